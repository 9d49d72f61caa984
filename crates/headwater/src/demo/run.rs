//! The flow of a demo: start the parts, publish, let everybody fetch, kill, and sum up.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use headwater_model::Hash;
use tokio::time::MissedTickBehavior;
use url::Url;

use super::Args;
use super::children::{Event, What};
use super::content::{Content, digest};
use super::fault::{Due, Part, Schedule};
use super::folder::Folder;
use super::receiver::Receiver;
use super::result::{Killed, ReceiverReport, Report, bound_s};
use super::site::{Control, NAME, NodeStarted, Origin, Published, Site, free_ports};
use super::stage::Stage;
use super::transfer::Transfer;
use super::watch::{self, Counted};
use crate::api_client::ApiClient;

/// Between two looks at the servers' counts.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The mean share of the content that receivers have when the explanation that is shown is asked for.
const EXPLAIN_AT: f64 = 0.5;
/// For the receivers' last counts after the last completion; they tell them twice a second.
const SETTLE: Duration = Duration::from_millis(1500);
/// A transfer may take so many times the bound, and [`TRANSFER_EXTRA`], until it counts as failed.
const BOUND_TIMES: f64 = 10.0;
const TRANSFER_EXTRA: Duration = Duration::from_secs(60);
/// What any machine passes on, where uplinks are unlimited and there is no bound.
const SLOW_BYTES_PER_S: f64 = 10e6;
/// For publishing: reading and hashing on a slow disk, beside [`TRANSFER_EXTRA`].
const SLOW_HASHING_BYTES_PER_S: f64 = 50e6;
/// Copies of the content on the disk beside the receivers': the origin's and the waypoint's.
const OTHER_COPIES: u64 = 2;

/// A demo in the making.
pub struct Demo<'a> {
    args: &'a Args,
    stage: &'a mut Stage,
    content: Content,
    site: Site,
    bound_s: Option<f64>,
    http: reqwest::Client,
    receivers: Vec<Receiver>,
    known: Known,
    /// When the receivers were started.
    started: Instant,
    killed: Vec<Killed>,
    origin_bytes: Counted,
    lightweight_pairs: Counted,
    lightweight_pairs_known: bool,
    /// A receiver's name, and the words on its parents.
    explanation: Option<(String, String)>,
}

/// What the parts tell when they are started; absent before.
#[derive(Default)]
struct Known {
    control: Option<Control>,
    api: Option<ApiClient>,
    origin: Option<Url>,
    hw: String,
    waypoint_node: String,
}

impl<'a> Demo<'a> {
    /// Checks what can be checked before anything is started, and makes the folders.
    ///
    /// # Errors
    /// If an argument, the file or the disk is not fit.
    pub fn new(args: &'a Args, folder: &Folder, stage: &'a mut Stage) -> Result<Demo<'a>> {
        let content = match &args.file {
            Some(path) => Content::given(path)?,
            None => Content::Generated(args.file_size),
        };
        let bytes = content.bytes();
        let regular = (1..=args.peers).map(Part::Peer);
        let parts: Vec<Part> = regular.chain((1..=args.lightweight).map(Part::Light)).collect();
        for kill in &args.kills {
            let there = matches!(kill.part, Part::Control | Part::Origin | Part::Waypoint);
            ensure!(there || parts.contains(&kill.part), "--kill: this demo has no {}", kill.part);
        }
        folder.ensure_room((parts.len() as u64 + OTHER_COPIES).saturating_mul(bytes))?;
        let site = Site {
            folder: folder.path().to_owned(),
            name: NAME,
            file_name: content.file_name().to_owned(),
            up: args.up.option(),
            origin_up: args.up.option(),
            ports: free_ports(u64::from(std::process::id()))?,
        };
        site.make_folders(parts.iter().copied())?;
        Ok(Demo {
            args,
            bound_s: bound_s(bytes, args.up.bytes_per_s(), args.peers, args.lightweight)?,
            stage,
            site,
            http: reqwest::Client::builder().no_proxy().build().context("cannot set up HTTP")?,
            receivers: parts.into_iter().map(|part| Receiver::new(part, bytes)).collect(),
            content,
            known: Known::default(),
            started: Instant::now(),
            killed: Vec::new(),
            origin_bytes: Counted::default(),
            lightweight_pairs: Counted::default(),
            lightweight_pairs_known: false,
            explanation: None,
        })
    }

    /// The demo from its start to its figures. May be dropped at any moment; [`Stage::end`] is to follow in any case.
    ///
    /// # Errors
    /// If a part cannot be started, ends by itself or complains.
    pub async fn run(&mut self) -> Result<Report> {
        let source = self.put_content().await?;
        self.stage.board.note("starting a control center, an origin and a waypoint");
        self.start_control().await?;
        self.start_origin().await?;
        self.publish().await?;
        self.start(Part::Waypoint)?;
        let started: NodeStarted = self.stage.children.first_line("waypoint").await?;
        self.known.waypoint_node = started.node;
        self.transfer().await?;
        self.settle().await?;
        let verified = self.verify(source).await?;
        Ok(self.report(verified))
    }

    async fn put_content(&mut self) -> Result<PathBuf> {
        let size = indicatif::BinaryBytes(self.content.bytes());
        self.stage.board.note(&match &self.content {
            Content::Generated(_) => format!("writing a file of {size}"),
            Content::Given { path, .. } => format!("taking {} ({size})", path.display()),
        });
        let (content, folder, stop) = (self.content.clone(), self.site.origin(), self.stage.stop.clone());
        self.stage.work.spawn_blocking(move || content.put_into(&folder, &stop)).await?
    }

    async fn start_control(&mut self) -> Result<()> {
        self.start(Part::Control)?;
        let control: Control = self.stage.children.first_line("control").await?;
        self.known.api = Some(ApiClient::new(control.api.as_str(), Some(control.token()?))?);
        self.known.control = Some(control);
        Ok(())
    }

    async fn start_origin(&mut self) -> Result<()> {
        self.start(Part::Origin)?;
        let started: Origin = self.stage.children.first_line("origin").await?;
        self.known.origin = Some(started.url);
        Ok(())
    }

    async fn publish(&mut self) -> Result<()> {
        self.stage.board.note("publishing the file");
        let limit = publish_limit(self.content.bytes());
        self.stage.children.run_to_end("key", &self.site.key_arguments(), limit).await?;
        let (Some(origin), Some(control)) = (self.known.origin.clone(), &self.known.control) else {
            bail!("publishing needs an origin and a control center");
        };
        let arguments = self.site.publish_arguments(&origin, control)?;
        let printed = self.stage.children.run_to_end("publish", &arguments, limit).await?;
        let published: Published = serde_json::from_str(&printed).map_err(|error| {
            self.stage.children.complaint("publish", format!("unexpected output {printed:?}: {error}"))
        })?;
        self.known.hw = published.hw;
        // What the publishing itself has read does not count.
        self.origin_bytes.reset(watch::origin_body_bytes(&self.http, &origin).await?);
        Ok(())
    }

    fn start(&mut self, part: Part) -> Result<()> {
        let arguments = match (part, &self.known.control) {
            (Part::Control, _) => self.site.control_arguments(),
            (Part::Origin, _) => self.site.origin_arguments(),
            (Part::Waypoint, Some(control)) => self.site.waypoint_arguments(control),
            (Part::Waypoint, None) => bail!("a waypoint needs a control center"),
            (Part::Peer(_) | Part::Light(_), _) => self.site.receiver_arguments(part, &self.known.hw),
        };
        self.stage.children.start(&part.to_string(), &arguments)
    }

    /// From the receivers' start to the last completion, or to the time limit.
    async fn transfer(&mut self) -> Result<()> {
        self.started = Instant::now();
        for index in 0..self.receivers.len() {
            self.start(self.receivers[index].part)?;
        }
        let mut schedule = Schedule::new(&self.args.kills, !self.args.no_kill, self.started);
        let limit = transfer_limit(self.content.bytes(), self.bound_s, self.receivers.len());
        let deadline = self.started + limit;
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let Some(due) = schedule.take_due(Instant::now()) {
                self.inflict(due, &mut schedule).await?;
            }
            if self.receivers.iter().all(|receiver| receiver.dead || receiver.complete.is_some()) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                self.stage.board.note(&format!("not all have it after {} s, giving up", limit.as_secs()));
                return Ok(());
            }
            let wake = schedule.next_at().unwrap_or(deadline).min(deadline);
            tokio::select! {
                event = self.stage.children.next() => self.hear(event)?,
                _ = looks.tick() => {
                    self.look().await;
                    self.stage.children.ensure_ready(Instant::now())?;
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            let now = Instant::now();
            let unfinished = self.receivers.iter().filter(|receiver| receiver.complete.is_none());
            let regular = unfinished.filter(|receiver| !receiver.lightweight());
            schedule.choose(self.view(now).progress(), regular.map(|receiver| (receiver.part, receiver.children)), now);
            self.show(now);
        }
    }

    async fn inflict(&mut self, due: Due, schedule: &mut Schedule) -> Result<()> {
        let (part, again) = match due {
            Due::Restart(part) => {
                self.stage.board.note(&format!("{part} is started again"));
                return self.start(part);
            }
            Due::Kill { part, again } => (part, again),
        };
        let name = part.to_string();
        if !self.stage.children.runs(&name) {
            return Ok(());
        }
        // The servers' counts die with them.
        self.look_at_counts().await;
        self.stage.children.kill(&name).await;
        let at_s = self.started.elapsed().as_secs_f64();
        self.stage.board.note(&format!("{part} was killed at {at_s:.1} s"));
        self.killed.push(Killed { name, at_s, restarted: again });
        match part {
            Part::Origin => self.origin_bytes.end_life(),
            Part::Control => {
                self.lightweight_pairs.end_life();
                if self.args.lose_state {
                    let state = self.site.state();
                    std::fs::remove_dir_all(&state).with_context(|| format!("cannot remove {}", state.display()))?;
                }
            }
            Part::Waypoint => {}
            Part::Peer(_) | Part::Light(_) => {
                let killed = self.receivers.iter_mut().filter(|receiver| receiver.part == part);
                killed.for_each(|receiver| receiver.killed(again));
            }
        }
        if again {
            schedule.bring_back(part, Instant::now());
        }
        Ok(())
    }

    fn hear(&mut self, event: Event) -> Result<()> {
        let Event { name, at, what, .. } = event;
        let line = match what {
            What::Ended(status) => return Err(self.stage.children.ended(&name, status)),
            What::Line(line) => line,
        };
        if let Some(receiver) = self.receivers.iter_mut().find(|receiver| receiver.part.to_string() == name) {
            receiver.hear(&line, at).map_err(|problem| self.stage.children.complaint(&name, problem))?;
        }
        Ok(())
    }

    /// Asks the servers for what only they know. Who is away is asked again next time.
    async fn look(&mut self) {
        self.look_at_counts().await;
        let late = self.view(Instant::now()).progress() >= EXPLAIN_AT;
        if self.explanation.is_none() || !late {
            self.look_at_reasons().await;
        }
    }

    async fn look_at_counts(&mut self) {
        if let Some(origin) = &self.known.origin
            && self.stage.children.runs("origin")
            && let Ok(bytes) = watch::origin_body_bytes(&self.http, origin).await
        {
            self.origin_bytes.update(bytes);
        }
        if let Some(api) = &self.known.api
            && self.stage.children.runs("control")
            && let Ok(pairs) = watch::lightweight_pairs(api).await
        {
            self.lightweight_pairs.update(pairs);
            self.lightweight_pairs_known = true;
        }
    }

    async fn look_at_reasons(&mut self) {
        let fed = self.receivers.iter().filter(|receiver| receiver.parents > 0).max_by_key(|one| one.parents);
        if let (Some(api), Some(receiver)) = (&self.known.api, fed)
            && let Some(node) = &receiver.node
            && let Ok(words) = watch::explanation(api, node, &self.known.hw).await
        {
            self.explanation = Some((receiver.part.to_string(), words));
        }
    }

    /// Waits until every receiver has told its counts once more.
    async fn settle(&mut self) -> Result<()> {
        let from = Instant::now();
        let until = tokio::time::Instant::now() + SETTLE;
        let open = |receiver: &Receiver| !receiver.dead && receiver.heard.is_none_or(|heard| heard < from);
        while self.receivers.iter().any(open) {
            match tokio::time::timeout_at(until, self.stage.children.next()).await {
                Ok(event) => self.hear(event)?,
                Err(_) => break,
            }
        }
        self.look().await;
        self.show(Instant::now());
        Ok(())
    }

    /// Whether every survivor's file is the published one, as the driver itself reads them.
    async fn verify(&mut self, source: PathBuf) -> Result<bool> {
        self.stage.board.note("comparing every file with the published one");
        let alive = self.receivers.iter().filter(|receiver| !receiver.dead);
        let mut digests = Vec::new();
        for receiver in alive {
            digests.push((receiver.part, self.digest(self.site.received(receiver.part))));
        }
        let expected = self.digest(source).await??;
        let mut verified = true;
        for (part, digest) in digests {
            let problem = match digest.await? {
                Ok(digest) if digest == expected => continue,
                Ok(_) => "differs from the published one".to_owned(),
                Err(error) => format!("cannot be read: {error}"),
            };
            self.stage.board.note(&format!("the file of {part} {problem}"));
            verified = false;
        }
        Ok(verified)
    }

    fn digest(&self, path: PathBuf) -> tokio::task::JoinHandle<std::io::Result<Hash>> {
        let stop = self.stage.stop.clone();
        self.stage.work.spawn_blocking(move || digest(&path, &stop))
    }

    fn view(&self, now: Instant) -> Transfer<'_> {
        Transfer {
            elapsed: now.duration_since(self.started),
            bound_s: self.bound_s,
            content_bytes: self.content.bytes(),
            origin_bytes: self.origin_bytes.total(),
            receivers: &self.receivers,
        }
    }

    fn show(&mut self, now: Instant) {
        let view = Transfer {
            elapsed: now.duration_since(self.started),
            bound_s: self.bound_s,
            content_bytes: self.content.bytes(),
            origin_bytes: self.origin_bytes.total(),
            receivers: &self.receivers,
        };
        self.stage.board.show(&view, now);
    }

    fn report(&self, verified: bool) -> Report {
        let since_start = |at: Instant| at.duration_since(self.started).as_secs_f64();
        let survivors = || self.receivers.iter().filter(|receiver| !receiver.dead);
        let finished: Vec<f64> = survivors().filter_map(|receiver| receiver.complete).map(since_start).collect();
        let all_finished = finished.len() == survivors().count();
        let makespan_s = finished.iter().copied().reduce(f64::max).filter(|_| all_finished);
        let per_receiver: Vec<ReceiverReport> =
            self.receivers.iter().map(|one| receiver_report(one, since_start)).collect();
        let content_bytes = self.content.bytes();
        let origin_bytes = self.origin_bytes.total();
        Report {
            content_bytes,
            receivers: self.receivers.len() as u64,
            survivors: survivors().count() as u64,
            finished: finished.len() as u64,
            origin_bytes,
            waypoint_bytes: per_receiver.iter().map(|receiver| receiver.waypoint_bytes).sum(),
            peer_bytes: per_receiver.iter().map(|receiver| receiver.peer_bytes).sum(),
            origin_copies: origin_bytes as f64 / content_bytes as f64,
            makespan_s,
            bound_s: self.bound_s,
            ratio: makespan_s.zip(self.bound_s).map(|(makespan, bound)| makespan / bound),
            lightweight_pairs: self.lightweight_pairs_known.then(|| self.lightweight_pairs.total()),
            verified,
            up_bytes_per_s: self.args.up.bytes_per_s(),
            per_receiver,
            killed: self.killed.clone(),
            waypoint_node: self.known.waypoint_node.clone(),
            explained: self.explanation.as_ref().map(|(receiver, _)| receiver.clone()),
            explanation: self.explanation.as_ref().map(|(_, words)| words.clone()),
        }
    }
}

fn receiver_report(receiver: &Receiver, since_start: impl Fn(Instant) -> f64) -> ReceiverReport {
    let counted = receiver.counters();
    ReceiverReport {
        name: receiver.part.to_string(),
        node: receiver.node.clone(),
        lightweight: receiver.lightweight(),
        seconds: receiver.complete.map(since_start),
        peer_bytes: counted.peer_bytes,
        waypoint_bytes: counted.waypoint_bytes,
        origin_bytes: counted.origin_bytes,
        wasted_bytes: counted.wasted_bytes,
        uploaded_bytes: counted.uploaded_bytes,
    }
}

/// After which a publishing counts as failed.
pub fn publish_limit(content_bytes: u64) -> Duration {
    TRANSFER_EXTRA + Duration::from_secs_f64(content_bytes as f64 / SLOW_HASHING_BYTES_PER_S)
}

/// After which a transfer counts as failed.
fn transfer_limit(content_bytes: u64, bound_s: Option<f64>, receivers: usize) -> Duration {
    let slow = content_bytes as f64 * receivers as f64 / SLOW_BYTES_PER_S;
    // A bound beyond all time is as good as a year.
    let times_bound = Duration::try_from_secs_f64(BOUND_TIMES * bound_s.unwrap_or(slow));
    times_bound.unwrap_or(Duration::MAX).min(Duration::from_secs(365 * 86_400)) + TRANSFER_EXTRA
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_have_a_generous_limit() {
        assert_eq!(transfer_limit(1 << 28, Some(26.8), 8), Duration::from_secs(268 + 60));
        assert!(transfer_limit(1 << 28, None, 8) > Duration::from_secs(60 + 2000));
        assert!(transfer_limit(1 << 28, Some(f64::INFINITY), 8) > Duration::from_secs(86_400));
    }
}
