//! A live channel in the lab: a real encoder behind the origin, a publisher there, viewers with probes behind their lines.

mod judge;
mod parts;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail, ensure};
use headwater_simulator::scenario::{FaultKind, HostSpec, Ingest, Live, LiveSessions, Scenario};
use serde_json::Value;

use crate::api::Api;
use crate::calibrate::{Cache, Calibration};
use crate::faults::{Planned, Schedule, Turn, words};
use crate::net::Net;
use crate::outcome::Outcome;
use crate::process::{Heard, Process, Said, Who};
use crate::run::{Interrupted, Options, calibrated, isps_of, net_spec, say};
use crate::site::{CONTROL, FIRST, Site};

const TICK: Duration = Duration::from_millis(20);
/// How long the encoder may take for its first segments, the publisher for its first word, and probes for their reports.
const WITHIN: Duration = Duration::from_secs(60);
/// Arrivals are over, and their cost is not counted.
const SETTLED_S: f64 = 60.0;
/// The publisher among those that are heard, beside hosts and their probes.
const PUBLISHER: usize = usize::MAX;

/// A host that watches.
struct Viewer {
    spec: HostSpec,
    peer: Option<Process>,
    probe: Option<Process>,
    /// Number of the process's life.
    life: u64,
    /// Its peer's id, as it last said.
    node: Option<String>,
    /// Its peer's last word: of all its contents, and whether it has a session.
    contents: Vec<Value>,
    has_session: Option<bool>,
    /// What its probe saw.
    report: Option<Value>,
    /// It was killed, or left, and is not back.
    is_away: bool,
    /// Its uplink's rate, in Mbit/s, where it was made slower, when, and how soon it pushed no more than that carries.
    slowed: Option<(f64, f64, Option<f64>)>,
    /// After the origin's return, when it had a segment that was published afterwards.
    resumed_s: Option<f64>,
    /// What it had sent, and had from the origin, once arrivals were over.
    settled: Option<(u64, u64)>,
    fetches: bool,
}

impl Viewer {
    /// What its peer last said of the stream.
    fn stream(&self) -> &Value {
        self.contents.iter().find(|c| c["live"].is_object()).unwrap_or(&Value::Null)
    }
    /// What its peer last said of the content beside it.
    fn file(&self) -> &Value {
        self.contents.iter().find(|c| !c["live"].is_object()).unwrap_or(&Value::Null)
    }
    fn count(&self, key: &str) -> u64 {
        self.stream()[key].as_u64().unwrap_or(0)
    }
}

/// A segment that was published.
#[derive(Clone, Copy)]
struct Segment {
    at_s: f64,
    sequence: u64,
    bytes: u64,
    /// What the publisher had sent to peers by then.
    sent: u64,
}

struct Stage<'a> {
    scenario: &'a Scenario,
    live: &'a Live,
    options: &'a Options,
    net: &'a Net,
    site: Site,
    heard: Sender<Heard>,
    hear: Receiver<Heard>,
    schedule: Schedule,
    join_token: String,
    name: String,
    /// Where the encoder shall put what it makes.
    push_url: Option<String>,
    viewers: Vec<Viewer>,
    segments: Vec<Segment>,
    /// When the origin was back, if it was away.
    origin_back_s: Option<f64>,
    notes: Vec<String>,
    encoder: Option<Process>,
    publisher: Process,
}

/// Runs a scenario with a live channel.
///
/// # Errors
/// If a part of it cannot be built or started, or [`Interrupted`].
pub fn run(scenario: &Scenario, live: &Live, options: &Options, cache: &mut Cache) -> Result<Outcome> {
    let stays = live.sessions == LiveSessions::Stay;
    ensure!(stays, "viewers whose sessions have a distribution are for the simulator: see `headwater sim`");
    let hosts = scenario.hosts(options.seed);
    let schedule = Schedule::new(scenario, &hosts, options.seed)?;
    let calibration = calibrated(scenario, &hosts, options, cache)?;
    let folder = tempfile::Builder::new().prefix("headwater-lab-").tempdir()?;
    say(&scenario.name, "building hosts and links");
    let net = Net::build(net_spec(scenario, &hosts))?;
    let ran = Stage::new((scenario, live), options, &net, folder.path(), hosts, schedule)
        .and_then(|stage| stage.play(&calibration, folder.path()));
    if options.keep_files {
        say(&scenario.name, &format!("files are left in {}", folder.keep().display()));
    }
    drop(net);
    ran
}

impl<'a> Stage<'a> {
    fn new(
        (scenario, live): (&'a Scenario, &'a Live),
        options: &'a Options,
        net: &'a Net,
        folder: &Path,
        hosts: Vec<HostSpec>,
        schedule: Schedule,
    ) -> Result<Stage<'a>> {
        let (heard, hear) = channel();
        let isps = isps_of(scenario, &hosts);
        say(&scenario.name, "starting origin, control center and encoder, publishing");
        let content = (scenario.content_bytes, scenario.piece_bytes);
        let site = Site::start(net, &options.programs, folder, content, (options.seed, &isps), (&heard, &hear))?;
        let encoder = match live.ingest {
            Ingest::Follow => Some(parts::encode(live, net, folder, None)?),
            Ingest::Push => None,
        };
        let publisher = parts::publish((scenario, live), net, options, folder, &site, &heard)?;
        let join_token = site.join_token(net)?;
        let viewer = |spec| Viewer {
            spec,
            peer: None,
            probe: None,
            life: 1,
            node: None,
            contents: Vec::new(),
            has_session: None,
            report: None,
            is_away: false,
            slowed: None,
            resumed_s: None,
            settled: None,
            fetches: false,
        };
        Ok(Stage {
            scenario,
            live,
            options,
            net,
            site,
            heard,
            hear,
            schedule,
            join_token,
            name: String::new(),
            push_url: None,
            viewers: hosts.into_iter().map(viewer).collect(),
            segments: Vec::new(),
            origin_back_s: None,
            notes: Vec::new(),
            encoder,
            publisher,
        })
    }

    fn play(mut self, calibration: &Calibration, folder: &Path) -> Result<Outcome> {
        self.await_publisher(folder)?;
        let (zero, zero_unix_s) = (Instant::now(), unix_s());
        let mut next_word = zero;
        let mut kill_at = self.live.kill_parent_every_s.map(|every| SETTLED_S.min(self.live.seconds / 2.0).max(every));
        let mut kill_entry_at = self.live.kill_entry_at_s;
        let over = |stage: &Stage| stage.viewers.iter().all(|v| v.is_away || v.report.is_some());
        while !over(&self) {
            self.check_interrupted()?;
            let now_s = zero.elapsed().as_secs_f64();
            self.listen(zero);
            self.arrivals(now_s)?;
            for turn in self.schedule.due(now_s, 0.0) {
                self.turn(turn, now_s)?;
            }
            if let (Some(at), Some(every)) = (kill_at, self.live.kill_parent_every_s)
                && now_s >= at
                && now_s < self.live.seconds - every
            {
                self.kill_a_parent(now_s);
                kill_at = Some(at + every);
            }
            if kill_entry_at.is_some_and(|at| now_s >= at) {
                kill_entry_at = None;
                self.kill_an_entry(now_s)?;
            }
            if Instant::now() >= next_word {
                next_word += Duration::from_secs(5);
                let watching = self.viewers.iter().filter(|v| v.probe.is_some() && !v.is_away).count();
                say(&self.scenario.name, &format!("{now_s:5.0} s  {watching} watch, {} segments", self.segments.len()));
            }
            ensure!(now_s < self.live.seconds + WITHIN.as_secs_f64(), "a probe gives no report");
            std::thread::sleep(TICK);
        }
        self.outcome(calibration, zero.elapsed().as_secs_f64(), zero_unix_s)
    }

    fn await_publisher(&mut self, folder: &Path) -> Result<()> {
        let (deadline, zero) = (Instant::now() + WITHIN, Instant::now());
        while self.name.is_empty() {
            self.listen(zero);
            if let Some(url) = self.push_url.take() {
                self.encoder = Some(parts::encode(self.live, self.net, folder, Some(&url))?);
            }
            if Instant::now() > deadline || self.publisher.ended().is_some() {
                bail!("the publisher does not start; {}", self.publisher.last_words());
            }
            self.check_interrupted()?;
            std::thread::sleep(TICK);
        }
        self.segments.clear();
        Ok(())
    }

    fn check_interrupted(&self) -> Result<()> {
        if self.options.interrupted.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
    }

    fn listen(&mut self, zero: Instant) {
        while let Ok(heard) = self.hear.try_recv() {
            let (Who::Host(host), Said::Line(line)) = (heard.who, heard.said) else { continue };
            let at_s = heard.at.saturating_duration_since(zero).as_secs_f64();
            let hosts = self.viewers.len();
            if host == PUBLISHER {
                self.publisher_said(&line, at_s);
            } else if let Some(viewer) = self.viewers.get_mut(host % hosts.max(1)).filter(|v| v.life == heard.life) {
                if host >= hosts {
                    viewer.report = Some(line);
                } else if line["event"] == "started" {
                    viewer.node = line["node"].as_str().map(str::to_owned);
                } else if line["event"] == "status" {
                    viewer.has_session = Some(line["control"] == true);
                    viewer.contents = line["contents"].as_array().cloned().unwrap_or_default();
                    self.look_at(host, at_s);
                }
            }
        }
    }

    fn publisher_said(&mut self, line: &Value, at_s: f64) {
        let number = |key: &str| line[key].as_u64().unwrap_or(0);
        match line["event"].as_str() {
            Some("started") => self.name = line["hw"].as_str().unwrap_or_default().to_owned(),
            Some("listens") => self.push_url = line["push_url"].as_str().map(|url| format!("{url}index.m3u8")),
            Some("segment") => {
                let (bytes, sent) = (number("bytes"), number("uploaded_bytes"));
                self.segments.push(Segment { at_s, sequence: number("sequence"), bytes, sent });
            }
            _ => {}
        }
    }

    /// What a viewer's word says that is measured while it happens.
    fn look_at(&mut self, host: usize, now_s: f64) {
        let rate = self.live.mbit;
        let back_s = self.origin_back_s.unwrap_or(f64::INFINITY);
        let after = self.segments.iter().find(|s| s.at_s > back_s).map(|s| s.sequence);
        let Some(viewer) = self.viewers.get_mut(host) else { return };
        let counts = (viewer.count("uploaded_bytes"), viewer.count("origin_bytes"));
        if now_s >= SETTLED_S {
            viewer.settled.get_or_insert(counts);
        }
        let newest = viewer.stream()["live"]["newest_segment"].as_u64();
        if after.is_some_and(|after| newest >= Some(after)) {
            viewer.resumed_s.get_or_insert(now_s - back_s);
        }
        let pushes = viewer.stream()["live"]["pushed_substreams"].as_u64().unwrap_or(0) as f64;
        if let Some((mbit, since_s, left @ None)) = &mut viewer.slowed
            && pushes * rate / 8.0 <= *mbit
        {
            *left = Some(now_s - *since_s);
        }
    }

    fn arrivals(&mut self, now_s: f64) -> Result<()> {
        for host in 0..self.viewers.len() {
            let viewer = &self.viewers[host];
            let arrives_s = viewer.spec.arrives.map_or(0.0, |at| at.0 as f64 / 1e6);
            if viewer.is_away || now_s < arrives_s {
                continue;
            }
            if viewer.peer.is_none() {
                let token = viewer.spec.enrolled.then_some(self.join_token.as_str());
                let of = (host, &viewer.spec, viewer.life);
                let peer = parts::peer(of, self.net, self.options, &self.site, token, &self.heard)?;
                self.viewers[host].peer = Some(peer);
                continue;
            }
            // Who comes while the control center is away does not wait for it.
            let is_ready = viewer.has_session.is_some_and(|has| has || self.site.control().is_none());
            if viewer.probe.is_none() && is_ready {
                let of = (host, &viewer.spec, viewer.life);
                let how = (self.name.as_str(), self.live.hold_back_s, self.live.seconds - now_s);
                let heard = (&self.heard, self.viewers.len() + host);
                let probe = parts::probe(of, self.net, self.options, &self.site, how, heard)?;
                self.viewers[host].probe = Some(probe);
            }
            let viewer = &self.viewers[host];
            if self.live.fetch_at_s.is_some_and(|at| now_s >= at) && !viewer.fetches && viewer.probe.is_some() {
                parts::fetch((host, &viewer.spec), self.net, self.options, &self.site)?;
                self.viewers[host].fetches = true;
            }
        }
        Ok(())
    }

    fn turn(&mut self, turn: Turn, now_s: f64) -> Result<()> {
        let (Turn::Begins(number) | Turn::Ends(number)) = turn;
        let Some(planned) = self.schedule.get(number).cloned() else { return Ok(()) };
        let begins = matches!(turn, Turn::Begins(_));
        let specs: Vec<HostSpec> = self.viewers.iter().map(|v| v.spec.clone()).collect();
        let what = words(&planned, &specs);
        let what = if begins { what } else { format!("over: {what}") };
        say(&self.scenario.name, &what);
        self.notes.push(format!("{now_s:.1} s: {what}"));
        match planned.fault.kind {
            FaultKind::ControlOut | FaultKind::ControlLost if begins => {
                self.site.kill_control(planned.fault.kind == FaultKind::ControlLost)
            }
            FaultKind::ControlOut | FaultKind::ControlLost => self.site.start_control(self.net),
            FaultKind::OriginOut => {
                self.site.freeze_origin(begins);
                self.origin_back_s = (!begins).then_some(now_s);
                Ok(())
            }
            _ => {
                planned.hosts.iter().for_each(|host| self.host_fault(&planned, *host, begins, now_s));
                Ok(())
            }
        }
    }

    fn host_fault(&mut self, planned: &Planned, host: usize, begins: bool, now_s: f64) {
        let Some(viewer) = self.viewers.get_mut(host) else { return };
        let (up, down) = (viewer.spec.up_mbit, viewer.spec.down_mbit);
        match (planned.fault.kind, begins) {
            (FaultKind::Crash | FaultKind::Death, true) => viewer.goes(false),
            (FaultKind::Leave, true) => viewer.goes(true),
            (FaultKind::Crash | FaultKind::Leave, false) => {
                viewer.peer = None;
                viewer.life += 1;
                viewer.is_away = false;
            }
            (FaultKind::Freeze, true) => viewer.peer.iter_mut().for_each(Process::stop),
            (FaultKind::Freeze, false) => viewer.peer.iter_mut().for_each(Process::resume),
            (FaultKind::Slow, true) => {
                let slow = up * planned.fault.slow_share();
                viewer.slowed = Some((slow, now_s, None));
                self.net.set_host_rate(FIRST + host, slow, down);
            }
            (FaultKind::Slow, false) => self.net.set_host_rate(FIRST + host, up, down),
            // The scenario has no others.
            _ => {}
        }
    }

    /// SIGKILLs the viewer that most others depend on, with its player.
    fn kill_a_parent(&mut self, now_s: f64) {
        let children = |v: &Viewer| v.count("children");
        let worst = self.viewers.iter_mut().filter(|v| !v.is_away && v.probe.is_some()).max_by_key(|v| children(v));
        let Some(viewer) = worst else { return };
        let (name, children) = (&viewer.spec.name, children(viewer));
        self.notes.push(format!("{now_s:.1} s: {name} with {children} children was killed"));
        viewer.goes(false);
    }

    /// SIGKILLs the viewer that brings most of the stream in to a cluster and passes it on there, with its player.
    fn kill_an_entry(&mut self, now_s: f64) -> Result<()> {
        let (trees, _) = self.control_says()?;
        let entries = trees["entries"].as_array().into_iter().flatten();
        let passes_on = entries.filter(|e| e["children"].as_u64() > Some(0));
        let mut hosts = passes_on.filter_map(|e| {
            let is_it = |v: &Viewer| v.node.as_deref() == e["node"].as_str() && !v.is_away && v.probe.is_some();
            Some((self.viewers.iter().position(is_it)?, e.clone()))
        });
        let Some((host, entry)) = hosts.next() else { bail!("no viewer brings the stream in to a cluster: {trees}") };
        let Some(viewer) = self.viewers.get_mut(host) else { return Ok(()) };
        let (substreams, children) = (&entry["substreams"], &entry["children"]);
        let what = format!(
            "{}, through which {substreams} substreams come in to its cluster, was killed with {children} children",
            viewer.spec.name
        );
        say(&self.scenario.name, &what);
        self.notes.push(format!("{now_s:.1} s: {what}"));
        viewer.goes(false);
        Ok(())
    }

    /// What the control center says of the stream's trees, and of pairs that cannot reach each other.
    fn control_says(&self) -> Result<(Value, Option<f64>)> {
        let (address, token) = (self.site.control_address, &self.site.token);
        let of = |path: &str| self.net.within(CONTROL, || Api::new(address, token)?.get(path))?;
        let contents = of("/v1/contents")?;
        let stream = contents.as_array().into_iter().flatten().find(|c| c["live"].is_object());
        let pairs = of("/v1/status")?["totals"]["lightweight_pairs"].as_f64();
        Ok((stream.map_or(Value::Null, |c| c["live"].clone()), pairs))
    }
}

impl Viewer {
    /// It goes, with its player: with a goodbye, or without.
    fn goes(&mut self, says_goodbye: bool) {
        self.is_away = true;
        self.probe = None;
        match &mut self.peer {
            Some(peer) if says_goodbye => peer.leave(),
            _ => self.peer = None,
        }
        (self.report, self.has_session) = (None, None);
    }
}

fn unix_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
