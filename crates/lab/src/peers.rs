//! The hosts' processes: receivers, waypoints and liars, as their own lines tell.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use headwater_model::Role;
use headwater_simulator::scenario::{HostSpec, Reach, Sources};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::net::Net;
use crate::process::{Heard, Process, Said, Usage, Who};
use crate::site::{FIRST, HTTPS_PORT, Site};

/// Receivers stay this long: longer than any run.
const SEED_TIME: &str = "24h";
/// Notes kept of one host.
const NOTES_MAX: usize = 50;
/// The kind of liar that takes all the processor time that it gets.
const FLOOD: &str = "floods-control";
/// Stays kept of each liar and node.
const STAYS_MAX: usize = 100;

/// Bytes that a node counted in one life.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    /// Received from peers.
    pub peer_bytes: u64,
    /// Received from waypoints.
    pub waypoint_bytes: u64,
    /// Received from the origin.
    pub origin_bytes: u64,
    /// Received twice or wrong.
    pub wasted_bytes: u64,
    /// Sent to others.
    pub uploaded_bytes: u64,
}

impl Counted {
    fn of(line: &Value) -> Counted {
        let number = |key: &str| line[key].as_u64().unwrap_or(0);
        Counted {
            peer_bytes: number("peer_bytes"),
            waypoint_bytes: number("waypoint_bytes"),
            origin_bytes: number("origin_bytes"),
            wasted_bytes: number("wasted_bytes"),
            uploaded_bytes: number("uploaded_bytes"),
        }
    }

    fn plus(self, other: Counted) -> Counted {
        Counted {
            peer_bytes: self.peer_bytes + other.peer_bytes,
            waypoint_bytes: self.waypoint_bytes + other.waypoint_bytes,
            origin_bytes: self.origin_bytes + other.origin_bytes,
            wasted_bytes: self.wasted_bytes + other.wasted_bytes,
            uploaded_bytes: self.uploaded_bytes + other.uploaded_bytes,
        }
    }

    fn received(self) -> u64 {
        self.peer_bytes + self.waypoint_bytes + self.origin_bytes
    }
}

/// A liar and one honest node, Unix milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Harm {
    /// From the first harm on until that node left, each time that it was the liar's child.
    pub stays: Vec<Stay>,
    /// When it became the liar's child after having left it.
    pub again_ms: Vec<u64>,
}

/// A time that an honest node was harmed by a liar, Unix milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stay {
    /// The first harm.
    pub from_ms: u64,
    /// When the node left; absent while it did not.
    pub left_ms: Option<u64>,
}

impl Harm {
    /// Whether the node is harmed and has not left.
    pub fn lasts(&self) -> bool {
        self.stays.last().is_some_and(|s| s.left_ms.is_none())
    }
}

/// A host's process, over all its lives.
pub struct Peer {
    /// Its host.
    pub spec: HostSpec,
    /// Its node id, once it told.
    pub node: Option<String>,
    /// When it was first started.
    pub started: Option<Instant>,
    /// When it had everything.
    pub finished: Option<Instant>,
    /// Most bytes of the content that it had.
    pub have_bytes: u64,
    /// Longest time without receiving so far.
    pub longest_wait: Duration,
    /// It need not finish.
    pub excused: bool,
    /// What it told its user.
    pub notes: Vec<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// Whom it harmed, by node id.
    pub harms: BTreeMap<String, Harm>,
    process: Option<Process>,
    lives: u64,
    past: Counted,
    current: Counted,
    /// When it last received, as it told; from its first byte on, not while it is hit itself.
    received: Option<(Instant, u64)>,
    used_past: Usage,
    used: Usage,
    /// Its end is wanted.
    leaving: bool,
}

impl Peer {
    fn new(spec: HostSpec) -> Peer {
        Peer {
            spec,
            node: None,
            started: None,
            finished: None,
            have_bytes: 0,
            longest_wait: Duration::ZERO,
            excused: false,
            notes: Vec::new(),
            error: None,
            harms: BTreeMap::new(),
            process: None,
            lives: 0,
            past: Counted::default(),
            current: Counted::default(),
            received: None,
            used_past: Usage::default(),
            used: Usage::default(),
            leaving: false,
        }
    }

    /// Bytes over all its lives.
    pub fn counted(&self) -> Counted {
        self.past.plus(self.current)
    }

    /// Whether its process runs.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Whether nothing more is to come of it.
    pub fn settled(&self) -> bool {
        !self.spec.receives() || self.excused || self.finished.is_some() || self.error.is_some()
    }

    /// CPU and memory over all its lives.
    pub fn usage(&self) -> Usage {
        Usage {
            cpu_s: self.used_past.cpu_s + self.used.cpu_s,
            rss_bytes: self.used.rss_bytes,
            peak_rss_bytes: self.used_past.peak_rss_bytes.max(self.used.peak_rss_bytes),
        }
    }

    fn hear(&mut self, line: &Value, at: Instant) {
        match line["event"].as_str() {
            Some("started") => self.node = line["node"].as_str().map(str::to_owned),
            Some("progress") => self.progress(line, at),
            Some("status") => {
                if let Some(content) = line["contents"].get(0) {
                    self.progress(content, at);
                }
            }
            Some("complete") => {
                self.progress(line, at);
                // A receiver that comes back with all it needs had it before.
                self.finished.get_or_insert(at);
                self.received = None;
            }
            Some("error") => self.error = line["error"].as_str().map(str::to_owned),
            Some("harm") => {
                if let (Some(to), Some(ms)) = (line["to"].as_str(), time_of(line)) {
                    let harm = self.harms.entry(to.to_owned()).or_default();
                    if !harm.lasts() && harm.stays.len() < STAYS_MAX {
                        harm.stays.push(Stay { from_ms: ms, left_ms: None });
                    }
                }
            }
            Some("left-by") => {
                if let (Some(by), Some(ms)) = (line["node"].as_str(), time_of(line)) {
                    let harm = self.harms.entry(by.to_owned()).or_default();
                    if let Some(stay) = harm.stays.last_mut().filter(|s| s.left_ms.is_none()) {
                        stay.left_ms = Some(ms);
                    }
                }
            }
            Some("assigned-again") => {
                if let (Some(to), Some(ms)) = (line["node"].as_str(), time_of(line)) {
                    self.harms.entry(to.to_owned()).or_default().again_ms.push(ms);
                }
            }
            _ => {}
        }
    }

    fn progress(&mut self, line: &Value, at: Instant) {
        self.current = Counted::of(line);
        self.have_bytes = self.have_bytes.max(line["bytes"].as_u64().unwrap_or(0));
        for note in line["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if self.notes.len() < NOTES_MAX && !self.notes.iter().any(|known| known == note) {
                self.notes.push(note.to_owned());
            }
        }
        let received = self.counted().received();
        if self.finished.is_none() && received > 0 {
            match self.received {
                Some((since, before)) if received > before => {
                    self.longest_wait = self.longest_wait.max(at - since);
                    self.received = Some((at, received));
                }
                None => self.received = Some((at, received)),
                Some(_) => {}
            }
        }
    }

    fn waits_from(&mut self, at: Instant) {
        if let Some((since, _)) = &mut self.received {
            *since = at.max(*since);
        }
    }

    /// The wait that is still going on counts too.
    fn run_ends(&mut self, at: Instant) {
        if let Some((since, _)) = self.received.take()
            && !self.settled()
        {
            self.longest_wait = self.longest_wait.max(at - since);
        }
    }

    fn life_ends(&mut self) {
        self.note_usage();
        self.process = None;
        self.past = self.counted();
        self.current = Counted::default();
        self.used_past = self.usage();
        self.used = Usage::default();
        self.received = None;
    }

    fn note_usage(&mut self) {
        if let Some(usage) = self.process.as_ref().and_then(Process::usage) {
            self.used = usage;
        }
    }
}

/// Liars say when, in Unix milliseconds.
fn time_of(line: &Value) -> Option<u64> {
    line["unix_ms"].as_u64()
}

/// All hosts' processes.
pub struct Peers {
    all: Vec<Peer>,
    programs: PathBuf,
    heard: Sender<Heard>,
    clocks: BTreeMap<usize, PathBuf>,
    /// An address that nobody has, for liars that name one.
    pub victim: Option<SocketAddr>,
}

impl Peers {
    /// For these hosts, none of them started; `programs` is the folder of Headwater's binaries.
    pub fn new(hosts: &[HostSpec], programs: &Path, heard: &Sender<Heard>) -> Peers {
        let all = hosts.iter().cloned().map(Peer::new).collect();
        Peers { all, programs: programs.to_owned(), heard: heard.clone(), clocks: BTreeMap::new(), victim: None }
    }

    /// All of them, in the scenario's order.
    pub fn all(&self) -> &[Peer] {
        &self.all
    }

    /// Makes it possible that the clock of a host jumps, before it is started: it reads its offset from a file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn give_clock(&mut self, site: &Site, host: usize) -> Result<()> {
        let file = site.folder_of(&self.all[host].spec.name)?.join("clock");
        std::fs::write(&file, "+0\n")?;
        self.clocks.insert(host, file);
        Ok(())
    }

    /// Makes the clock of a host jump.
    ///
    /// # Errors
    /// If it was not given one that can.
    pub fn jump_clock(&self, host: usize, seconds: f64) -> Result<()> {
        let file = self.clocks.get(&host).context("this host's clock cannot jump")?;
        Ok(std::fs::write(file, format!("{seconds:+}\n"))?)
    }

    /// Starts a host's process, or starts it again.
    ///
    /// # Errors
    /// If the system refuses, or the control center gives a waypoint no token.
    pub fn start(&mut self, net: &Net, site: &Site, host: usize) -> Result<()> {
        let spec = self.all[host].spec.clone();
        let folder = site.folder_of(&spec.name)?;
        let mut command = match &spec.hostile {
            Some(kind) => self.hostile(net, site, host, kind, &folder),
            None if spec.role == Role::Waypoint => self.waypoint(net, site, host, &folder)?,
            None => self.receiver(net, site, host, &folder)?,
        };
        command.arg("--exit-with-stdin");
        if spec.hostile.is_none() {
            command.arg("--json");
        }
        if let Some(clock) = self.clocks.get(&host) {
            command.env("LD_PRELOAD", faketime()?).env("FAKETIME_TIMESTAMP_FILE", clock);
            // Only the wall clock jumps in life; and the file is not read at every look at the clock.
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_CACHE_DURATION", "1");
        }
        let peer = &mut self.all[host];
        peer.lives += 1;
        peer.leaving = false;
        let log = site.log_of(&spec.name);
        let process = Process::start(command, Who::Host(host), peer.lives, &log, &self.heard);
        peer.process = Some(process.with_context(|| spec.name.clone())?);
        peer.started.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn receiver(&self, net: &Net, site: &Site, host: usize, folder: &Path) -> Result<Command> {
        let spec = &self.all[host].spec;
        let mut command = net.command(FIRST + host, &self.programs.join("headwater"));
        command.arg("get").arg(&site.hw).arg("-o").arg(folder.join("content.bin"));
        command.args(["--seed-time", if spec.leaves_when_complete { "0s" } else { SEED_TIME }]);
        if spec.told_up {
            command.args(["--up", &format!("{}Mbit/s", spec.up_mbit)]);
        }
        if spec.steps_aside {
            command.arg("--step-aside");
        }
        if spec.reach == Reach::DialOnly {
            command.arg("--dial-only");
        }
        if spec.sources == Sources::Operator {
            command.args(["--sources", "operator"]);
        }
        if spec.reach == Reach::ProxyOnly {
            let proxy = net.proxy_address(spec.isp).context("there is no proxy in its ISP")?;
            command.args(["--proxy", &format!("http://{proxy}")]);
        }
        Ok(command)
    }

    fn waypoint(&self, net: &Net, site: &Site, host: usize, folder: &Path) -> Result<Command> {
        let mut command = net.command(FIRST + host, &self.programs.join("headwater"));
        command.args(["peer", "--waypoint", "--control", &site.control_address.to_string()]);
        // What an operator knows of a machine's line.
        command.args(["--up", &format!("{}Mbit/s", self.all[host].spec.up_mbit)]);
        command.args(["--cc", &site.control_id, "--join-token", &site.join_token(net)?]).arg("--data").arg(folder);
        let address: IpAddr = net.inner_address(FIRST + host);
        command.args(["--https", &SocketAddr::new(address, HTTPS_PORT).to_string()]);
        Ok(command)
    }

    fn hostile(&self, net: &Net, site: &Site, host: usize, kind: &str, folder: &Path) -> Command {
        let program = self.programs.join("headwater-hostile");
        let mut command = if kind == FLOOD {
            // It has its own machine elsewhere: here it gets what the others leave of this one.
            let mut nice = net.command(FIRST + host, Path::new("nice"));
            nice.args(["-n", "5"]).arg(program);
            nice
        } else {
            net.command(FIRST + host, &program)
        };
        command.args(["--kind", kind, "--control", &site.control_address.to_string(), "--cc", &site.control_id]);
        command.arg("--data").arg(folder).args(["--name", &site.hw]);
        command.args(["--listen", &SocketAddr::new(net.inner_address(FIRST + host), 0).to_string()]);
        if let Some(victim) = self.victim {
            command.args(["--victim", &victim.to_string()]);
        }
        command
    }

    /// SIGKILL.
    pub fn kill(&mut self, host: usize) {
        let peer = &mut self.all[host];
        peer.note_usage();
        if let Some(process) = &mut peer.process {
            process.kill();
        }
        peer.life_ends();
    }

    /// Whatever becomes of it, it need not finish.
    pub fn excuse(&mut self, host: usize) {
        self.all[host].excused = true;
    }

    /// It says goodbye and ends.
    pub fn leave(&mut self, host: usize) {
        let peer = &mut self.all[host];
        peer.leaving = true;
        if let Some(process) = &mut peer.process {
            process.leave();
        }
    }

    /// SIGSTOP. What it waits for meanwhile is its own doing.
    pub fn stop(&mut self, host: usize) {
        let peer = &mut self.all[host];
        peer.received = None;
        if let Some(process) = &mut peer.process {
            process.stop();
        }
    }

    /// SIGCONT.
    pub fn resume(&mut self, host: usize) {
        if let Some(process) = &mut self.all[host].process {
            process.resume();
        }
    }

    /// A wait that begins now is not counted: the host itself is hit.
    pub fn forgive_wait(&mut self, host: usize) {
        self.all[host].received = None;
    }

    /// What it waited for until now could not come; from now on it can.
    pub fn count_wait_from(&mut self, host: usize, at: Instant) {
        self.all[host].waits_from(at);
    }

    /// Takes in what a process did.
    pub fn hear(&mut self, host: usize, heard: Heard) {
        let Some(peer) = self.all.get_mut(host) else { return };
        if peer.process.as_ref().map(Process::life) != Some(heard.life) {
            // Lines that a killed process had printed may come after its kill.
            return;
        }
        match heard.said {
            Said::Line(line) => peer.hear(&line, heard.at),
            Said::Ended => {
                peer.note_usage();
                let expected = peer.leaving || (peer.finished.is_some() && peer.spec.leaves_when_complete);
                if !expected
                    && peer.error.is_none()
                    && let Some(process) = &mut peer.process
                {
                    process.wait_until(Instant::now() + Duration::from_secs(1));
                    let status = process.ended().map_or("no status".into(), |status| status.to_string());
                    peer.error = Some(format!("ended by itself ({status}); {}", process.last_words()));
                }
                peer.life_ends();
            }
        }
    }

    /// Notes what processes used until now.
    pub fn note_usage(&mut self) {
        self.all.iter_mut().for_each(Peer::note_usage);
    }

    /// The run is over: waits that are going on end now.
    pub fn run_ends(&mut self, at: Instant) {
        self.all.iter_mut().for_each(|peer| peer.run_ends(at));
    }

    /// Lets all say goodbye, and waits for it until `deadline`.
    pub fn stop_all(&mut self, deadline: Instant) {
        for host in 0..self.all.len() {
            self.leave(host);
        }
        for peer in &mut self.all {
            peer.note_usage();
            if let Some(process) = &mut peer.process {
                process.wait_until(deadline);
            }
            peer.life_ends();
        }
    }
}

/// Whether the file that `host` has is the right one; nothing where there is none.
///
/// # Errors
/// If it cannot be read.
pub fn hash_right(site: &Site, host: &str) -> Result<Option<bool>> {
    let path = site.folder_of(host)?.join("content.bin");
    let mut file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash)?;
    Ok(Some(<[u8; 32]>::from(hash.finalize()) == site.sha256))
}

/// The library that lets a process see another time.
fn faketime() -> Result<PathBuf> {
    let architectures = std::fs::read_dir("/usr/lib")?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut libraries = architectures.map(|folder| folder.join("faketime").join("libfaketimeMT.so.1"));
    libraries.find(|path| path.is_file()).context("libfaketime is not installed: apt-get install faketime")
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_simulator::scenario::Scenario;
    use serde_json::json;

    fn peer() -> Peer {
        let text = "name = \"t\"\ncontent_bytes = 1000\npiece_bytes = 65536\norigin_up_mbit = 20\n\
                    [[groups]]\ncount = 1\nup_mbit = 20\ndown_mbit = 20\n";
        let scenario: Scenario = toml::from_str(text).unwrap();
        Peer::new(scenario.hosts(1).remove(0))
    }

    #[test]
    fn the_longest_wait_is_found() {
        let (mut peer, start) = (peer(), Instant::now());
        let mut tell = |s: u64, event: &str, bytes: u64| {
            let line = json!({"event": event, "bytes": bytes, "peer_bytes": bytes});
            peer.hear(&line, start + Duration::from_secs(s));
        };
        // Before the first byte nobody waits.
        tell(5, "progress", 0);
        tell(6, "progress", 10);
        tell(7, "progress", 10);
        tell(9, "progress", 20);
        tell(10, "complete", 30);
        tell(99, "progress", 30);
        peer.run_ends(start + Duration::from_secs(999));
        assert_eq!((peer.longest_wait.as_secs(), peer.have_bytes), (3, 30));
        assert_eq!(peer.finished, Some(start + Duration::from_secs(10)));
    }

    #[test]
    fn a_wait_that_does_not_end_counts() {
        let (mut peer, start) = (peer(), Instant::now());
        peer.hear(&json!({"event": "progress", "bytes": 1, "origin_bytes": 1}), start);
        peer.run_ends(start + Duration::from_secs(40));
        assert_eq!(peer.longest_wait.as_secs(), 40);
    }

    #[test]
    fn only_what_could_come_was_waited_for() {
        let (mut peer, start) = (peer(), Instant::now());
        let at = |s: u64| start + Duration::from_secs(s);
        let tell = |peer: &mut Peer, s: u64, bytes: u64| {
            peer.hear(&json!({"event": "progress", "bytes": bytes, "peer_bytes": bytes}), at(s));
        };
        tell(&mut peer, 1, 1);
        // A wait before the cut counts, the one that the cut's end ends does not, what follows does.
        tell(&mut peer, 4, 2);
        peer.waits_from(at(24));
        tell(&mut peer, 26, 3);
        assert_eq!(peer.longest_wait.as_secs(), 3);
        tell(&mut peer, 33, 4);
        assert_eq!(peer.longest_wait.as_secs(), 7);
        peer.waits_from(at(2));
        tell(&mut peer, 41, 5);
        assert_eq!(peer.longest_wait.as_secs(), 8);
    }

    #[test]
    fn counts_of_lives_add_up_and_harm_is_noted() {
        let (mut peer, now) = (peer(), Instant::now());
        peer.hear(&json!({"event": "progress", "bytes": 5, "origin_bytes": 5, "notes": ["a", "a"]}), now);
        peer.life_ends();
        peer.hear(&json!({"event": "progress", "bytes": 7, "peer_bytes": 2}), now);
        assert_eq!((peer.counted().received(), peer.have_bytes, peer.notes.len()), (7, 7, 1));
        let told = [("left-by", 1), ("harm", 5), ("harm", 9), ("left-by", 11), ("left-by", 12), ("assigned-again", 13)];
        for (event, ms) in told {
            let who = if event == "harm" { "to" } else { "node" };
            peer.hear(&json!({"event": event, who: "ab", "unix_ms": ms}), now);
        }
        let stay = Stay { from_ms: 5, left_ms: Some(11) };
        assert_eq!(peer.harms["ab"], Harm { stays: vec![stay], again_ms: vec![13] });
    }
}
