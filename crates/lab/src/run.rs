//! Running one scenario: build the network, start the site, let the hosts loose, make go wrong what shall, judge.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use headwater_model::Role;
use headwater_simulator::scenario::{Arrivals, Bystander, CONTROL_MBIT, FaultKind, HostSpec, Reach, Scenario};

use crate::bars::judge;
use crate::bystander::Traffic;
use crate::calibrate::{Cache, Calibration};
use crate::compare;
use crate::faults::{Planned, Schedule, Turn, words};
use crate::measure::{Recorder, Seen};
use crate::net::{MAPPING_PORT, Net, NetHost, NetSpec, PROXY_PORT, port_forwarding};
use crate::observe::{Look, Steer, Watched, watch};
use crate::outcome::{FaultMark, Outcome};
use crate::peers::{Harm, Peers, hash_right};
use crate::process::{Heard, Process, Said, Usage, Who};
use crate::site::{CONTROL, FIRST, ORIGIN, Site, await_port, which};

const TICK: Duration = Duration::from_millis(10);
const SAY_EVERY: Duration = Duration::from_secs(1);
/// How long a waypoint may take until it has a session.
const WAYPOINT_WITHIN: Duration = Duration::from_secs(15);
/// How long processes may take to say goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(5);
/// How long the run waits for sessions that do not come back after all is done.
const SESSIONS_WITHIN: Duration = Duration::from_secs(30);
/// How long the run waits for honest peers to leave a liar after all is done.
const LEFT_WITHIN: Duration = Duration::from_secs(10);
/// Port of the address that liars name and nobody has.
const VICTIM_PORT: u16 = 4433;

/// How to run scenarios.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides contents, who is hit by what, and what else is random.
    pub seed: u64,
    /// Folder of the binaries `headwater` and `headwater-hostile`.
    pub programs: PathBuf,
    /// Leave logs and files, and say where.
    pub keep_files: bool,
    /// Goodput over line rate, instead of measuring it.
    pub assumed_factor: Option<f64>,
    /// Set from outside: everything is to be taken down.
    pub interrupted: Arc<AtomicBool>,
}

/// The run was interrupted.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Runs a scenario.
///
/// # Errors
/// If a part of it cannot be built or started, or [`Interrupted`]. What the scenario's hosts do wrong is no error but in
/// the outcome.
pub fn run(scenario: &Scenario, options: &Options, cache: &mut Cache) -> Result<Outcome> {
    let hosts = scenario.hosts(options.seed);
    if hosts.iter().any(|host| host.seeded) {
        bail!("the lab starts nobody with the whole content (`seeded`); `headwater sim` does");
    }
    let schedule = Schedule::new(scenario, &hosts, options.seed)?;
    let calibration = calibrated(scenario, &hosts, options, cache)?;
    let folder = tempfile::Builder::new().prefix("headwater-lab-").tempdir()?;
    say(&scenario.name, "building hosts and links");
    let net = Net::build(net_spec(scenario, &hosts))?;
    let ran = Stage::new(scenario, options, &net, folder.path(), hosts.clone(), schedule)
        .and_then(|stage| stage.play(&calibration));
    if options.keep_files {
        say(&scenario.name, &format!("files are left in {}", folder.keep().display()));
    }
    drop(net);
    let mut outcome = ran?;
    match compare::bound(scenario, &hosts, &calibration) {
        Ok(bound) => outcome.bound_s = Some(bound),
        Err(error) => outcome.notes.push(format!("no bound: {error:#}")),
    }
    outcome.simulator = Some(compare::simulate(scenario, options.seed, &calibration, &outcome));
    outcome.bars = judge(scenario, &outcome);
    outcome.pass = outcome.bars.iter().all(|bar| bar.pass);
    Ok(outcome)
}

/// Progress, for who watches.
pub fn say(scenario: &str, text: &str) {
    eprintln!("{scenario}: {text}");
}

/// The origin and the control center first, then the scenario's hosts.
pub(crate) fn net_spec(scenario: &Scenario, hosts: &[HostSpec]) -> NetSpec {
    let network = scenario.network.unwrap_or_default();
    let server = |name: &str, up_mbit, down_mbit| NetHost {
        name: name.into(),
        isp: network.origin_isp,
        up_mbit,
        down_mbit,
        reach: Reach::Open,
        site: None,
    };
    let up = scenario.origin_up_mbit;
    let mut all = vec![server("origin", up, up), server("control", CONTROL_MBIT, CONTROL_MBIT)];
    all.extend(hosts.iter().map(|h| NetHost {
        name: h.name.clone(),
        isp: h.isp,
        up_mbit: h.up_mbit,
        down_mbit: h.down_mbit,
        reach: h.reach,
        site: h.site,
    }));
    NetSpec { network, sites: scenario.sites.clone(), hosts: all }
}

/// What the scenario's links carry: measured, or what the options say.
pub(crate) fn calibrated(
    scenario: &Scenario,
    hosts: &[HostSpec],
    options: &Options,
    cache: &mut Cache,
) -> Result<Calibration> {
    say(&scenario.name, "calibrating links");
    Ok(match options.assumed_factor {
        Some(factor) => assumed(scenario, factor),
        None => cache.calibrate(scenario, hosts)?,
    })
}

/// The ISPs in which there is anybody.
pub(crate) fn isps_of(scenario: &Scenario, hosts: &[HostSpec]) -> Vec<u16> {
    let mut isps: Vec<u16> = hosts.iter().map(|host| host.isp).collect();
    isps.push(scenario.network.unwrap_or_default().origin_isp);
    isps.sort_unstable();
    isps.dedup();
    isps
}

fn assumed(scenario: &Scenario, factor: f64) -> Calibration {
    let point = |line_mbit: f64| crate::calibrate::Point {
        line_mbit,
        goodput_mbit: line_mbit * factor,
        wire_per_payload: 1.0 / factor,
    };
    let up = scenario.origin_up_mbit;
    Calibration { lines: vec![up], quic: vec![point(up)], origin_tcp: point(up) }
}

/// Everything that a running scenario is made of.
struct Stage<'a> {
    scenario: &'a Scenario,
    options: &'a Options,
    net: &'a Net,
    site: Site,
    peers: Peers,
    /// Proxies, and what forwards ports on routers.
    servers: Vec<Process>,
    schedule: Schedule,
    hosts: Vec<HostSpec>,
    watched: Watched,
    steer: Steer,
    hear: Receiver<Heard>,
    control_past: Usage,
    control_now: Usage,
    returned: Option<Instant>,
    sessions_back: Option<Duration>,
    /// Nobody has it; liars name it.
    victim: Option<SocketAddr>,
    /// The user's own traffic, and whose line it shares.
    bystander: Option<(usize, Arc<Traffic>)>,
}

/// Ends the watcher also when the run fails.
struct EndWatching<'a>(&'a Steer);

impl Drop for EndWatching<'_> {
    fn drop(&mut self) {
        self.0.end.store(true, Ordering::Relaxed);
    }
}

impl<'a> Stage<'a> {
    fn new(
        scenario: &'a Scenario,
        options: &'a Options,
        net: &'a Net,
        folder: &Path,
        hosts: Vec<HostSpec>,
        schedule: Schedule,
    ) -> Result<Stage<'a>> {
        let (heard, hear): (Sender<Heard>, Receiver<Heard>) = channel();
        let isps = isps_of(scenario, &hosts);
        say(&scenario.name, "starting origin and control center, publishing");
        let content = (scenario.content_bytes, scenario.piece_bytes);
        let site = Site::start(net, &options.programs, folder, content, (options.seed, &isps), (&heard, &hear))?;
        let mut peers = Peers::new(&hosts, &options.programs, &heard);
        for host in schedule.clocks() {
            peers.give_clock(&site, host)?;
        }
        let names_victim = hosts.iter().any(|host| host.hostile.as_deref() == Some("names-victim"));
        let victim = names_victim.then(|| SocketAddr::new(nobody(net, isps[0]), VICTIM_PORT));
        peers.victim = victim;
        let of = |b: &Bystander| hosts.iter().position(|h| scenario.group_name(h.group) == b.group);
        let bystander = scenario.bystander.as_ref().and_then(of).map(|host| (host, Arc::default()));
        let mut servers = start_proxies(net, &isps, folder, &site)?;
        servers.extend(start_port_forwarding(net, folder, &site)?);
        Ok(Stage {
            scenario,
            options,
            net,
            site,
            peers,
            servers,
            schedule,
            hosts,
            watched: Watched::default(),
            steer: Steer::default(),
            hear,
            control_past: Usage::default(),
            control_now: Usage::default(),
            returned: None,
            sessions_back: None,
            victim,
            bystander,
        })
    }

    fn play(mut self, calibration: &Calibration) -> Result<Outcome> {
        self.start_waypoints()?;
        let (tell, told) = channel();
        let (net, address) = (self.net, self.site.control_address);
        let (token, content) = (self.site.token.clone(), self.site.content.clone());
        let steer = std::mem::take(&mut self.steer);
        let (recorder, ended) = std::thread::scope(|scope| {
            let _end = EndWatching(&steer);
            let watcher = || net.within(CONTROL, || watch(address, &token, &content, &steer, &tell));
            let watcher = scope.spawn(watcher);
            let user = self.bystander.clone().zip(self.scenario.bystander.clone());
            let user = user.map(|((host, traffic), what)| {
                let end = &steer.end;
                scope.spawn(move || traffic.run(net, host, &what, end))
            });
            let played = self.loose(&steer, &told);
            steer.end.store(true, Ordering::Relaxed);
            match watcher.join() {
                Ok(watched) => watched?.context("watching the control center")?,
                Err(_) => bail!("watching the control center panicked"),
            }
            match user.map(|user| user.join()) {
                None => {}
                Some(Ok(ran)) => ran?,
                Some(Err(_)) => bail!("the user's own traffic panicked"),
            }
            played
        })?;
        self.finish(recorder, ended, calibration)
    }

    fn start_waypoints(&mut self) -> Result<()> {
        let waypoints = |stage: &Stage| -> Vec<usize> {
            (0..stage.hosts.len()).filter(|i| stage.hosts[*i].role == Role::Waypoint).collect()
        };
        for host in waypoints(self) {
            self.peers.start(self.net, &self.site, host)?;
        }
        let deadline = Instant::now() + WAYPOINT_WITHIN;
        for host in waypoints(self) {
            while self.peers.all()[host].node.is_none() {
                self.check_interrupted()?;
                let left = deadline.saturating_duration_since(Instant::now());
                let name = &self.hosts[host].name;
                let heard = self.hear.recv_timeout(left).with_context(|| format!("{name} does not start"))?;
                self.hear_one(heard);
                if let Some(error) = &self.peers.all()[host].error {
                    bail!("{}: {error}", self.hosts[host].name);
                }
            }
        }
        Ok(())
    }

    fn check_interrupted(&self) -> Result<()> {
        if self.options.interrupted.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        Ok(())
    }

    /// From time zero until nothing more is to come.
    fn loose(&mut self, steer: &Steer, told: &Receiver<Look>) -> Result<(Recorder, Instant)> {
        let mut recorder = Recorder::new(self.net, self.hosts.len());
        let mut next_word = recorder.zero;
        let mut done_since = None;
        loop {
            self.check_interrupted()?;
            let now = Instant::now();
            let now_s = recorder.seconds(now);
            self.start_arrivals(now_s)?;
            for turn in self.schedule.due(now_s, self.share()) {
                self.turn(turn)?;
            }
            while let Ok(heard) = self.hear.try_recv() {
                self.hear_one(heard);
            }
            while let Ok(look) = told.try_recv() {
                self.look(look, steer);
            }
            steer.closely.store(self.returned.is_some() && self.sessions_back.is_none(), Ordering::Relaxed);
            if let Some(usage) = self.site.control().and_then(Process::usage) {
                self.control_now = usage;
            }
            let used = self.control_used();
            recorder.sample(now, self.net, &self.peers, used);
            if let Some((host, traffic)) = &self.bystander {
                traffic.note_uploaded(now, self.peers.all()[*host].counted().uploaded_bytes);
            }
            if now >= next_word {
                next_word += SAY_EVERY;
                self.peers.note_usage();
                self.say_progress(&recorder, now_s);
            }
            if self.peers.all().iter().all(|peer| peer.settled()) {
                let since = *done_since.get_or_insert(now);
                if !self.waits_for_more(now.duration_since(since)) {
                    return Ok((recorder, now));
                }
            }
            if now_s >= self.scenario.time_limit_s {
                say(&self.scenario.name, "the time limit is reached");
                return Ok((recorder, now));
            }
            std::thread::sleep(TICK);
        }
    }

    /// After all receivers are done: whether a measure is still to come.
    fn waits_for_more(&self, done_for: Duration) -> bool {
        let bars = &self.scenario.bars;
        let control_away = self.schedule.all().iter().any(|planned| {
            matches!(planned.fault.kind, FaultKind::ControlOut | FaultKind::ControlLost) && planned.begun_s.is_some()
        });
        let sessions = bars.sessions_back_s.is_some() && control_away && self.sessions_back.is_none();
        let kept = || {
            let harmed = self.peers.all().iter().flat_map(|peer| peer.harms.values());
            harmed.into_iter().any(Harm::lasts)
        };
        let liars = bars.left_within_s.is_some() && kept();
        (sessions && done_for < SESSIONS_WITHIN) || (liars && done_for < LEFT_WITHIN)
    }

    fn start_arrivals(&mut self, now_s: f64) -> Result<()> {
        for host in 0..self.hosts.len() {
            if self.peers.all()[host].started.is_none() && self.arrives(host, now_s) {
                self.peers.start(self.net, &self.site, host)?;
            }
        }
        Ok(())
    }

    fn arrives(&self, host: usize, now_s: f64) -> bool {
        match self.hosts[host].arrives {
            Some(time) => now_s >= time.0 as f64 / 1e6,
            None if self.scenario.arrivals == Arrivals::OneByOne => {
                let before = self.peers.all()[..host].iter().rev().find(|peer| peer.spec.receives());
                before.is_none_or(|peer| {
                    let gone = !peer.runs() || !peer.spec.leaves_when_complete;
                    peer.settled() && peer.started.is_some() && gone
                })
            }
            None => true,
        }
    }

    /// What the receivers that should finish have on average.
    fn share(&self) -> f64 {
        let receivers = || self.peers.all().iter().filter(|peer| peer.spec.receives() && !peer.excused);
        let have: u64 = receivers().map(|peer| peer.have_bytes).sum();
        have as f64 / (receivers().count().max(1) as f64 * self.scenario.content_bytes as f64)
    }

    fn hear_one(&mut self, heard: Heard) {
        match heard.who {
            Who::Host(host) => self.peers.hear(host, heard),
            Who::Control => {
                let same = self.site.control().is_some_and(|control| control.life() == heard.life);
                if same && heard.life > 1 && matches!(heard.said, Said::Line(_)) && self.returned.is_none() {
                    self.returned = Some(heard.at);
                }
            }
        }
    }

    fn look(&mut self, look: Look, steer: &Steer) {
        let at = look.at;
        self.watched.take(look);
        if let Some(returned) = self.returned.filter(|returned| at > *returned && self.sessions_back.is_none()) {
            let lives = self.peers.all().iter().filter(|peer| peer.runs() && peer.spec.hostile.is_none());
            if lives.filter_map(|peer| peer.node.as_ref()).all(|node| self.watched.sessions.contains(node)) {
                self.sessions_back = Some(at.duration_since(returned));
                steer.closely.store(false, Ordering::Relaxed);
            }
        }
    }

    fn control_used(&self) -> Usage {
        Usage {
            cpu_s: self.control_past.cpu_s + self.control_now.cpu_s,
            rss_bytes: self.control_now.rss_bytes,
            peak_rss_bytes: self.control_past.peak_rss_bytes.max(self.control_now.peak_rss_bytes),
        }
    }

    fn say_progress(&self, recorder: &Recorder, now_s: f64) {
        let receivers = self.peers.all().iter().filter(|peer| peer.spec.receives());
        let (mut all, mut done) = (0, 0);
        for receiver in receivers {
            all += 1;
            done += u32::from(receiver.finished.is_some());
        }
        let copies = recorder.origin_wire_bytes() as f64 / self.scenario.content_bytes as f64;
        let text = format!(
            "{now_s:5.0} s  {:3.0} %  {done} of {all} done  {:6.0} Mbit/s received  {copies:.2} copies from the origin (wire)",
            100.0 * self.share(),
            recorder.received_mbit(),
        );
        say(&self.scenario.name, &text);
    }

    fn turn(&mut self, turn: Turn) -> Result<()> {
        let (Turn::Begins(number) | Turn::Ends(number)) = turn;
        let Some(planned) = self.schedule.get(number).cloned() else { return Ok(()) };
        let begins = matches!(turn, Turn::Begins(_));
        let what = words(&planned, &self.hosts);
        say(&self.scenario.name, &if begins { what } else { format!("over: {what}") });
        match planned.fault.kind {
            FaultKind::ControlOut | FaultKind::ControlLost => self.control_fault(&planned, begins),
            FaultKind::OriginOut => Ok(self.net.cut_host(ORIGIN, begins)?),
            FaultKind::PeeringCut | FaultKind::PeeringLoss | FaultKind::PeeringRate => {
                self.peering_fault(&planned, begins);
                Ok(())
            }
            FaultKind::LinkBreak | FaultKind::Corrupt => {
                self.pair_fault(&planned, begins);
                Ok(())
            }
            _ => planned.hosts.iter().try_for_each(|host| self.host_fault(&planned, *host, begins)),
        }
    }

    fn control_fault(&mut self, planned: &Planned, begins: bool) -> Result<()> {
        if begins {
            if let Some(usage) = self.site.control().and_then(Process::usage) {
                self.control_now = usage;
            }
            self.control_past = self.control_used();
            self.control_now = Usage::default();
            (self.returned, self.sessions_back) = (None, None);
            self.site.kill_control(planned.fault.kind == FaultKind::ControlLost)
        } else {
            self.site.start_control(self.net)
        }
    }

    fn peering_fault(&mut self, planned: &Planned, begins: bool) {
        let usual = self.scenario.network.unwrap_or_default();
        let (mbit, loss) = (usual.peering_mbit, usual.peering_loss_percent);
        let value = planned.fault.value;
        match planned.fault.kind {
            FaultKind::PeeringCut => {
                self.net.set_peering(mbit, loss, begins);
                // Whom the cut parts from the origin has nobody who brings anything new: how soon it goes on is what counts.
                let far = self.hosts.iter().enumerate().filter(|(_, h)| !begins && h.isp != usual.origin_isp);
                far.for_each(|(host, _)| self.peers.count_wait_from(host, Instant::now()));
            }
            FaultKind::PeeringLoss => self.net.set_peering(mbit, if begins { value } else { loss }, false),
            _ => self.net.set_peering(if begins { value } else { mbit }, loss, false),
        }
    }

    fn pair_fault(&self, planned: &Planned, begins: bool) {
        for pair in planned.hosts.chunks_exact(2) {
            let (a, b) = (FIRST + pair[0], FIRST + pair[1]);
            if planned.fault.kind == FaultKind::LinkBreak {
                self.net.cut_pair(a, b, begins);
            } else {
                self.net.corrupt_pair(a, b, if begins { planned.fault.value } else { 0.0 });
            }
        }
    }

    fn host_fault(&mut self, planned: &Planned, host: usize, begins: bool) -> Result<()> {
        let spec = &self.hosts[host];
        let (up, down) = (spec.up_mbit, spec.down_mbit);
        let on_net = FIRST + host;
        let value = planned.fault.value;
        match (planned.fault.kind, begins) {
            (FaultKind::Crash, true) => self.peers.kill(host),
            (FaultKind::Death, true) => {
                self.peers.kill(host);
                self.peers.excuse(host);
            }
            (FaultKind::Leave, true) => self.peers.leave(host),
            (FaultKind::Crash | FaultKind::Leave, false) => {
                // One that is still saying goodbye has had its time.
                self.peers.kill(host);
                self.peers.start(self.net, &self.site, host)?;
            }
            (FaultKind::Freeze, true) => self.peers.stop(host),
            (FaultKind::Freeze, false) => self.peers.resume(host),
            (FaultKind::Cut, _) => {
                self.peers.forgive_wait(host);
                self.net.cut_host(on_net, begins)?;
            }
            (FaultKind::Slow, true) => self.net.set_host_rate(on_net, up * planned.fault.slow_share(), down),
            (FaultKind::Reshape, true) => self.net.set_host_rate(on_net, value, value),
            (FaultKind::Slow | FaultKind::Reshape, false) => self.net.set_host_rate(on_net, up, down),
            (FaultKind::AddressChange, _) => {
                self.net.change_address(on_net)?;
            }
            (FaultKind::ClockJump, _) => self.peers.jump_clock(host, value)?,
            // The schedule ends nothing else, and hits no host with it.
            _ => {}
        }
        Ok(())
    }

    /// Takes everything down in order, and counts.
    fn finish(mut self, recorder: Recorder, ended: Instant, calibration: &Calibration) -> Result<Outcome> {
        say(&self.scenario.name, "stopping, checking files");
        self.peers.run_ends(ended);
        if let Some(usage) = self.site.control().and_then(Process::usage) {
            self.control_now = usage;
        }
        self.peers.stop_all(Instant::now() + GOODBYE_WITHIN);
        while let Ok(heard) = self.hear.try_recv() {
            self.hear_one(heard);
        }
        self.site.stop_control();
        let origin_ran = self.site.origin_runs();
        let origin = self.site.stop_origin()?;
        drop(std::mem::take(&mut self.servers));
        let mut hashes = BTreeMap::new();
        for (i, host) in self.hosts.iter().enumerate().filter(|(_, host)| host.receives()) {
            if let Some(right) = hash_right(&self.site, &host.name)? {
                hashes.insert(i, right);
            }
        }
        let (zero_unix_ms, zero) = (recorder.zero_unix_ms, recorder.zero);
        let seen = Seen {
            scenario: self.scenario,
            seed: self.options.seed,
            peers: &self.peers,
            watched: &self.watched,
            origin,
            calibration,
            hashes: &hashes,
            control: self.control_used(),
            ended,
        };
        let mut outcome = recorder.outcome(self.net, &seen);
        outcome.control.sessions_back_s = self.sessions_back.map(|span| span.as_secs_f64());
        self.congested_named(&mut outcome);
        outcome.bystander = self.bystander.as_ref().map(|(host, traffic)| traffic.outcome(&seen, *host));
        outcome.faults = self.schedule.all().iter().filter_map(|planned| self.mark(planned)).collect();
        if let Some(victim) = self.victim {
            let sent = self.net.packets_to(victim.ip()).into_iter();
            let packets = |(from, packets)| crate::outcome::VictimPackets { victim: victim.ip(), from, packets };
            outcome.victim_packets = sent.map(packets).collect();
        }
        if !origin_ran {
            outcome.notes.push("the origin ended by itself".into());
        }
        let took = Instant::now().duration_since(zero).as_secs_f64();
        outcome.notes.push(format!("{took:.0} s from time zero (Unix {zero_unix_ms} ms) to here"));
        Ok(outcome)
    }

    fn mark(&self, planned: &Planned) -> Option<FaultMark> {
        Some(FaultMark { at_s: planned.begun_s?, until_s: planned.over_s, what: words(planned, &self.hosts) })
    }

    /// From the first peering fault's beginning until the control center named a pair of two ISPs as congested; and how
    /// many such pairs it had named before, for no such reason.
    fn congested_named(&self, outcome: &mut Outcome) {
        let mut peering = self.schedule.all().iter().filter(|p| p.fault.kind.is_of_peering());
        let Some(begun) = peering.find_map(|p| p.begun_s) else { return };
        let isp_of: BTreeMap<&str, u16> =
            (outcome.hosts.iter()).filter_map(|host| Some((host.node.as_deref()?.get(..8)?, host.isp))).collect();
        let across = |text: &str| {
            let named = text.split(|c: char| !c.is_ascii_hexdigit()).filter_map(|word| isp_of.get(word));
            named.collect::<BTreeSet<_>>().len() > 1
        };
        let named = outcome.events.iter().filter(|e| e.text.contains("congested") && across(&e.text));
        let (before, after): (Vec<f64>, Vec<f64>) = named.map(|event| event.at_s).partition(|at| *at < begun);
        outcome.control.congested_named_s = after.first().map(|at| at - begun);
        outcome.notes.push(format!(
            "pairs across ISPs named as congested: {} before the peering link was hit, {} after",
            before.len(),
            after.len()
        ));
    }
}

/// An address in the ISP's prefix that nobody has: hosts' networks are counted from its beginning.
fn nobody(net: &Net, isp: u16) -> IpAddr {
    match net.prefix_of_isp(isp).broadcast() {
        IpAddr::V4(last) => IpAddr::V4((u32::from(last) - 250).into()),
        IpAddr::V6(last) => IpAddr::V6((u128::from(last) - 250).into()),
    }
}

/// What forwards ports on the routers of hosts that are behind such.
fn start_port_forwarding(net: &Net, folder: &Path, site: &Site) -> Result<Vec<Process>> {
    let mut servers = Vec::new();
    for host in net.mapping_hosts() {
        let miniupnpd = which("miniupnpd", "miniupnpd-nftables")?;
        let (router, mut command) = net.on_router_of(host, &miniupnpd)?;
        let name = format!("router-{}", servers.len() + 1);
        let (config, pid_file) = (folder.join(format!("{name}.conf")), folder.join(format!("{name}.pid")));
        std::fs::write(&config, port_forwarding())?;
        command.arg("-d").arg("-f").arg(&config).arg("-P").arg(&pid_file);
        servers.push(Process::server(command, &site.log_of(&name))?);
        await_port(net, host, SocketAddr::new(router, MAPPING_PORT)).context("miniupnpd does not listen")?;
    }
    Ok(servers)
}

/// An HTTP proxy in each ISP that has hosts which need one.
fn start_proxies(net: &Net, isps: &[u16], folder: &Path, site: &Site) -> Result<Vec<Process>> {
    let mut proxies = Vec::new();
    for isp in isps {
        let (Some(host), Some(address)) = (net.proxy_host(*isp), net.proxy_address(*isp)) else { continue };
        let tinyproxy = which("tinyproxy", "tinyproxy")?;
        let config = folder.join(format!("proxy-{isp}.conf"));
        let text = format!(
            "Port {PROXY_PORT}\nListen {}\nTimeout 600\nMaxClients 200\nLogLevel Warning\nConnectPort 443\nConnectPort 80\n",
            net.inner_address(host)
        );
        std::fs::write(&config, text)?;
        let mut command = net.command(host, &tinyproxy);
        command.arg("-d").arg("-c").arg(&config);
        proxies.push(Process::server(command, &site.log_of(&format!("proxy-{isp}")))?);
        await_port(net, host, address).context("tinyproxy does not listen")?;
    }
    Ok(proxies)
}
