//! A live channel in the lab: a real encoder behind the origin, a publisher there, viewers with probes behind their lines.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use headwater_simulator::scenario::{HostSpec, Live, LiveIngest, LiveSessions, MBIT, Reach, Scenario};
use serde_json::{Value, json};

use crate::api::Api;
use crate::bars::at_most;
use crate::calibrate::{Cache, Calibration};
use crate::net::Net;
use crate::outcome::{Bar, Outcome};
use crate::process::{Heard, Process, Said, Who};
use crate::run::{Interrupted, Options, net_spec, say};
use crate::site::{CONTROL, FIRST, ORIGIN, Site, which};

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
    /// Its peer's last word of the stream.
    last: Value,
    /// What its probe saw.
    report: Option<Value>,
    killed: bool,
}

struct Stage<'a> {
    scenario: &'a Scenario,
    live: &'a Live,
    options: &'a Options,
    net: &'a Net,
    site: Site,
    heard: Sender<Heard>,
    hear: Receiver<Heard>,
    name: String,
    viewers: Vec<Viewer>,
    /// Of each segment that was published: its bytes, and what the publisher had sent by then.
    segments: Vec<(f64, u64, u64)>,
    kills: Vec<String>,
    _encoder: Process,
    publisher: Process,
}

/// Runs a scenario with a live channel.
///
/// # Errors
/// If a part of it cannot be built or started, or [`Interrupted`].
pub fn run(scenario: &Scenario, live: &Live, options: &Options, cache: &mut Cache) -> Result<Outcome> {
    let plain = live.ingest == LiveIngest::Playlist && live.sessions == LiveSessions::Stay;
    ensure!(plain, "viewers that come and go, and progressive ingest, are for the simulator: see `headwater sim`");
    let hosts = scenario.hosts(options.seed);
    say(&scenario.name, "calibrating links");
    let calibration = cache.calibrate(scenario, &hosts)?;
    let folder = tempfile::Builder::new().prefix("headwater-lab-").tempdir()?;
    say(&scenario.name, "building hosts and links");
    let net = Net::build(net_spec(scenario, &hosts))?;
    let ran =
        Stage::new(scenario, live, options, &net, folder.path(), hosts).and_then(|stage| stage.play(&calibration));
    if options.keep_files {
        say(&scenario.name, &format!("files are left in {}", folder.keep().display()));
    }
    drop(net);
    ran
}

impl<'a> Stage<'a> {
    fn new(
        scenario: &'a Scenario,
        live: &'a Live,
        options: &'a Options,
        net: &'a Net,
        folder: &Path,
        hosts: Vec<HostSpec>,
    ) -> Result<Stage<'a>> {
        let (heard, hear) = channel();
        let mut isps: Vec<u16> = hosts.iter().map(|host| host.isp).collect();
        isps.push(scenario.network.unwrap_or_default().origin_isp);
        isps.sort_unstable();
        isps.dedup();
        say(&scenario.name, "starting origin, control center and encoder, publishing");
        let content = (scenario.content_bytes, scenario.piece_bytes);
        let site = Site::start(net, &options.programs, folder, content, (options.seed, &isps), (&heard, &hear))?;
        let encoder = encode(live, folder)?;
        let publisher = publish(scenario, net, options, folder, &site, &heard)?;
        let viewer = |spec| Viewer { spec, peer: None, probe: None, last: Value::Null, report: None, killed: false };
        Ok(Stage {
            scenario,
            live,
            options,
            net,
            site,
            heard,
            hear,
            name: String::new(),
            viewers: hosts.into_iter().map(viewer).collect(),
            segments: Vec::new(),
            kills: Vec::new(),
            _encoder: encoder,
            publisher,
        })
    }

    fn play(mut self, calibration: &Calibration) -> Result<Outcome> {
        let deadline = Instant::now() + WITHIN;
        let zero = Instant::now();
        while self.name.is_empty() {
            self.listen(zero);
            if Instant::now() > deadline || self.publisher.ended().is_some() {
                bail!("the publisher does not start; {}", self.publisher.last_words());
            }
            self.check_interrupted()?;
            std::thread::sleep(TICK);
        }
        self.segments.clear();
        let (zero, zero_unix_s) = (Instant::now(), unix_s());
        let mut next_word = zero;
        let mut kill_at = self.live.kill_parent_every_s.map(|every| SETTLED_S.min(self.live.seconds / 2.0).max(every));
        let over = |stage: &Stage| stage.viewers.iter().all(|v| v.killed || v.report.is_some());
        while !over(&self) {
            self.check_interrupted()?;
            let now_s = zero.elapsed().as_secs_f64();
            self.listen(zero);
            self.arrivals(now_s)?;
            if let (Some(at), Some(every)) = (kill_at, self.live.kill_parent_every_s)
                && now_s >= at
                && now_s < self.live.seconds - every
            {
                self.kill_a_parent(now_s);
                kill_at = Some(at + every);
            }
            if Instant::now() >= next_word {
                next_word += Duration::from_secs(5);
                let watching = self.viewers.iter().filter(|v| v.probe.is_some() && !v.killed).count();
                say(&self.scenario.name, &format!("{now_s:5.0} s  {watching} watch, {} segments", self.segments.len()));
            }
            ensure!(now_s < self.live.seconds + WITHIN.as_secs_f64(), "a probe gives no report");
            std::thread::sleep(TICK);
        }
        self.outcome(calibration, zero.elapsed().as_secs_f64(), zero_unix_s)
    }

    fn check_interrupted(&self) -> Result<()> {
        if self.options.interrupted.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
    }

    fn listen(&mut self, zero: Instant) {
        while let Ok(heard) = self.hear.try_recv() {
            let (Who::Host(host), Said::Line(line)) = (heard.who, heard.said) else { continue };
            let hosts = self.viewers.len();
            match host {
                PUBLISHER => match line["event"].as_str() {
                    Some("started") => self.name = line["hw"].as_str().unwrap_or_default().to_owned(),
                    Some("segment") => {
                        let number = |key: &str| line[key].as_u64().unwrap_or(0);
                        let at = heard.at.saturating_duration_since(zero).as_secs_f64();
                        self.segments.push((at, number("bytes"), number("uploaded_bytes")));
                    }
                    _ => {}
                },
                _ if host >= hosts => {
                    if let Some(viewer) = self.viewers.get_mut(host - hosts) {
                        viewer.report = Some(line);
                    }
                }
                _ => {
                    if let Some(viewer) = self.viewers.get_mut(host)
                        && line["event"] == "status"
                    {
                        viewer.last = line;
                    }
                }
            }
        }
    }

    fn arrivals(&mut self, now_s: f64) -> Result<()> {
        for host in 0..self.viewers.len() {
            let arrives_s = self.viewers[host].spec.arrives.map_or(0.0, |at| at.0 as f64 / 1e6);
            if self.viewers[host].peer.is_none() && now_s >= arrives_s && !self.viewers[host].killed {
                self.viewers[host].peer = Some(self.peer(host)?);
            }
            let has_session = self.viewers[host].last["control"] == true;
            if has_session && self.viewers[host].probe.is_none() {
                self.viewers[host].probe = Some(self.probe(host, self.live.seconds - now_s)?);
            }
        }
        Ok(())
    }

    fn peer(&self, host: usize) -> Result<Process> {
        let spec = &self.viewers[host].spec;
        let folder = self.site.folder_of(&spec.name)?;
        let mut command = self.net.command(FIRST + host, &self.options.programs.join("headwater"));
        command.args(["peer", "--control", &self.site.control_address.to_string(), "--cc", &self.site.control_id]);
        command.args(["--gateway", "127.0.0.1:7480", "--no-port-mapping", "--json", "--exit-with-stdin"]);
        command.args(["--up", &format!("{}Mbit/s", spec.up_mbit)]).arg("--data").arg(folder);
        if spec.enrolled {
            command.args(["--join-token", &self.site.join_token(self.net)?]);
        }
        if spec.reach == Reach::DialOnly {
            command.arg("--dial-only");
        }
        Process::start(command, Who::Host(host), 1, &self.site.log_of(&spec.name), &self.heard)
    }

    fn probe(&self, host: usize, seconds: f64) -> Result<Process> {
        let spec = &self.viewers[host].spec;
        let mut command = self.net.command(FIRST + host, &self.options.programs.join("headwater"));
        command.args(["play", &self.name, "--probe", "--json", "--seconds", &format!("{:.1}", seconds.max(5.0))]);
        command.args(["--hold-back", &self.live.hold_back_s.to_string()]);
        command.arg("--data").arg(self.site.folder_of(&spec.name)?);
        let log = self.site.log_of(&format!("{}-probe", spec.name));
        Process::start(command, Who::Host(self.viewers.len() + host), 1, &log, &self.heard)
    }

    /// SIGKILLs the viewer that most others depend on, with its player.
    fn kill_a_parent(&mut self, now_s: f64) {
        let children = |v: &Viewer| v.last["contents"][0]["children"].as_u64().unwrap_or(0);
        let worst = self.viewers.iter_mut().filter(|v| !v.killed && v.probe.is_some()).max_by_key(|v| children(v));
        let Some(viewer) = worst else { return };
        self.kills.push(format!("{} with {} children was killed at {now_s:.1} s", viewer.spec.name, children(viewer)));
        viewer.killed = true;
        (viewer.peer, viewer.probe) = (None, None);
    }

    fn outcome(mut self, calibration: &Calibration, duration_s: f64, zero_unix_s: f64) -> Result<Outcome> {
        let publisher = self.net.inner_address(ORIGIN);
        let from_origin = |after_s: f64| self.site.origin_bytes_to_others(publisher, zero_unix_s + after_s);
        let (origin_all, origin_later) = (from_origin(0.0)?, from_origin(SETTLED_S)?);
        let published = |after_s: f64| -> (f64, f64) {
            let of = self.segments.iter().filter(|(at, ..)| *at >= after_s);
            let bytes = of.clone().skip(1).map(|(_, bytes, _)| *bytes as f64).sum();
            let sent = |s: Option<&(f64, u64, u64)>| s.map_or(0, |(.., sent)| *sent);
            (bytes, sent(of.clone().next_back()).saturating_sub(sent(of.clone().next())) as f64)
        };
        let (rate, bound) = self.bound(calibration);
        let ratio = |after_s: f64, origin: u64| {
            let (copy, sent) = published(after_s);
            (copy > 0.0).then(|| (sent + origin as f64) / copy / bound)
        };
        let alive: Vec<&Viewer> = self.viewers.iter().filter(|v| !v.killed).collect();
        let reports: Vec<&Value> = alive.iter().filter_map(|v| v.report.as_ref()).collect();
        let count = |key: &str| reports.iter().map(|r| r[key].as_array().map_or(0, Vec::len)).sum::<usize>() as f64;
        let start_up = percentile(reports.iter().filter_map(|r| r["start_up_s"].as_f64()).collect(), 95);
        let lag = |v: &&Viewer| v.last["contents"][0]["live"]["lag_p95_ms"].as_f64().map(|ms| ms / 1000.0);
        let lag = alive.iter().filter_map(lag).max_by(f64::total_cmp);
        let number = |value: Option<f64>| value.map(|v| (v, String::new()));
        let bars = &self.live.bars;
        let judged = [
            ("source_ratio_later", bars.source_ratio_later, number(ratio(SETTLED_S, origin_later))),
            ("source_ratio", bars.source_ratio, number(ratio(0.0, origin_all))),
            ("stalls", bars.stalls, number(Some(count("stalls")))),
            ("start_up_p95_s", bars.start_up_p95_s, number(start_up)),
            ("lag_p95_s", bars.lag_p95_s, number(lag)),
            ("media_breaks", bars.media_breaks, number(Some(count("gaps") + count("repeats") + count("broken")))),
        ];
        let judged: Vec<Bar> =
            judged.into_iter().filter_map(|(n, b, v)| Some(at_most(n, b?, v, "not measured"))).collect();
        let mut notes = std::mem::take(&mut self.kills);
        let (address, token) = (self.site.control_address, self.site.token.clone());
        let contents = self.net.within(CONTROL, || Api::new(address, &token)?.get("/v1/contents"))?;
        let trees = contents.ok().and_then(|all| all.as_array()?.iter().find(|c| c["live"].is_object()).cloned());
        notes.push(format!("the control center of its trees: {}", trees.map_or(Value::Null, |c| c["live"].clone())));
        notes.push(format!(
            "the stream had {:.2} Mbit/s; S_min is {bound:.3} of it; {} viewers to the end",
            rate / MBIT,
            alive.len()
        ));
        for v in &alive {
            let (r, c) = (v.report.as_ref().unwrap_or(&Value::Null), &v.last["contents"][0]);
            let told = json!({
                "start_up_s": r["start_up_s"], "stalls": r["stalls"], "gaps": r["gaps"], "repeats": r["repeats"],
                "peer_bytes": c["peer_bytes"], "origin_bytes": c["origin_bytes"], "wasted_bytes": c["wasted_bytes"],
                "uploaded_bytes": c["uploaded_bytes"], "live": c["live"],
            });
            notes.push(format!("{} ({} Mbit/s up): {told}", v.spec.name, v.spec.up_mbit));
        }
        Ok(Outcome {
            scenario: self.scenario.name.clone(),
            about: self.scenario.about.clone(),
            system: "headwater".into(),
            seed: self.options.seed,
            pass: judged.iter().all(|bar| bar.pass),
            bars: judged,
            zero_unix_ms: (zero_unix_s * 1000.0) as u64,
            duration_s,
            notes,
            ..Outcome::default()
        })
    }

    /// The stream's rate in bytes per second, and what its server must send at least, in copies: max{r, N·r − Σ min(u,
    /// (N−1)·r)} (Kumar, Liu, Ross 2007), by calibrated uplinks.
    fn bound(&self, calibration: &Calibration) -> (f64, f64) {
        let bytes: u64 = self.segments.iter().map(|(_, bytes, _)| bytes).sum();
        let rate = bytes as f64 / (self.segments.len().max(1) as f64 * self.live.segment_s).max(0.001);
        let up = |v: &Viewer| calibration.goodput(v.spec.up_mbit);
        let n = self.viewers.iter().filter(|v| !v.killed).count() as f64;
        let uplinks: f64 =
            self.viewers.iter().filter(|v| !v.killed).map(|v| up(v).min((n - 1.0).max(0.0) * rate)).sum();
        (rate, ((n * rate - uplinks) / rate.max(1.0)).max(1.0))
    }
}

/// Noise at a constant rate: what an encoder makes of a difficult scene, all the time.
fn encode(live: &Live, folder: &Path) -> Result<Process> {
    let www = folder.join("www").join("live");
    std::fs::create_dir_all(&www)?;
    let mut command = Command::new(which("ffmpeg", "ffmpeg")?);
    // A tenth is for sound and for the container.
    let video = format!("{:.0}k", live.mbit * 1000.0 * 0.88);
    let frames = format!("{:.0}", live.segment_s * 25.0);
    command.current_dir(&www).args(["-v", "error", "-nostdin", "-re", "-f", "lavfi"]);
    command.args(["-i", "testsrc=size=480x270:rate=25", "-re", "-f", "lavfi", "-i", "sine=sample_rate=48000"]);
    command.args(["-vf", "noise=alls=40:allf=t", "-c:v", "libx264", "-preset", "ultrafast", "-g", &frames]);
    command.args(["-b:v", &video, "-minrate", &video, "-maxrate", &video, "-bufsize", &video, "-c:a", "aac"]);
    command.args(["-b:a", "64k", "-f", "hls", "-hls_time", &live.segment_s.to_string(), "-hls_list_size", "10"]);
    command.args(["-hls_flags", "program_date_time+delete_segments", "index.m3u8"]);
    let mut encoder = Process::server(command, &folder.join("logs").join("encoder")).context("ffmpeg")?;
    let deadline = Instant::now() + WITHIN;
    let index = www.join("index.m3u8");
    while !std::fs::read_to_string(&index).is_ok_and(|text| text.matches("#EXTINF").count() >= 4) {
        ensure!(encoder.ended().is_none(), "the encoder ended; {}", encoder.last_words());
        ensure!(Instant::now() < deadline, "the encoder makes no segments; {}", encoder.last_words());
        std::thread::sleep(TICK);
    }
    Ok(encoder)
}

fn publish(
    scenario: &Scenario,
    net: &Net,
    options: &Options,
    folder: &Path,
    site: &Site,
    heard: &Sender<Heard>,
) -> Result<Process> {
    let live = scenario.live.as_ref().context("no live channel")?;
    let origin = net.inner_address(ORIGIN);
    let mut command = net.command(ORIGIN, &options.programs.join("headwater"));
    command.args(["publish", "--live", &format!("http://{}/live/index.m3u8", SocketAddr::new(origin, 80))]);
    command.args(["--name", "lab/live", "--rate", &format!("{}Mbit/s", live.mbit), "--json", "--exit-with-stdin"]);
    command.args(["--control", &format!("https://{}", site.control_address), "--cc", &site.control_id]);
    command.args(["--token", &site.token, "--join-token", &site.join_token(net)?]);
    command.args(["--up", &format!("{}Mbit/s", scenario.origin_up_mbit)]);
    command.args(["--listen", &SocketAddr::new(origin, 0).to_string()]);
    command.arg("--key").arg(folder.join("publisher.key")).arg("--data").arg(folder.join("publisher"));
    Process::start(command, Who::Host(PUBLISHER), 1, &site.log_of("publisher"), heard)
}

/// `None` of nothing.
fn percentile(mut values: Vec<f64>, percent: usize) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    values.get((values.len() * percent).div_ceil(100).saturating_sub(1).min(last)).copied()
}

fn unix_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        assert_eq!(percentile(vec![], 95), None);
        assert_eq!(percentile(vec![3.0], 95), Some(3.0));
        assert_eq!(percentile((1..=20).rev().map(f64::from).collect(), 95), Some(19.0));
    }
}
