//! The flow of a live demo: start the parts, let everybody watch, kill a parent in the middle, and sum up.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::super::Args;
use super::super::board::{Row, View};
use super::super::children::{Event, READY_WITHIN, What};
use super::super::fault::busiest;
use super::super::folder::Folder;
use super::super::site::{Control, NAME, Origin, Site, free_ports};
use super::super::stage::Stage;
use super::encoder::{self, PLAYLIST};
use super::parts::PUBLISHER;
use super::publisher::Publisher;
use super::result::{Costs, Killed, Report, Totals};
use super::viewer::Viewer;

/// The publisher begins when the playlist has so many segments: enough for players to begin with.
const FIRST_SEGMENTS: u64 = 4;
/// Between two lines of progress when nobody tells anything.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What it costs that all viewers come at once is over after this time.
const ARRIVED_AFTER: Duration = Duration::from_secs(8);
/// For the probes' reports, once their time is over: on a busy machine they start late.
const REPORTED_WITHIN: Duration = Duration::from_secs(20);

/// A live demo in the making.
pub struct Demo<'a> {
    args: &'a Args,
    stage: &'a mut Stage,
    site: Site,
    publisher: Publisher,
    viewers: Vec<Viewer>,
    /// When the probes were started.
    started: Instant,
    /// When all had arrived, and what the origin had sent them by then.
    arrived: Option<(Instant, u64)>,
    killed: Vec<Killed>,
}

impl<'a> Demo<'a> {
    /// Makes the folders.
    ///
    /// # Errors
    /// If the disk is not fit, or there are no ports.
    pub fn new(args: &'a Args, folder: &Folder, stage: &'a mut Stage) -> Result<Demo<'a>> {
        let site = Site {
            folder: folder.path().to_owned(),
            name: NAME,
            file_name: PLAYLIST.to_owned(),
            up: args.up.option(),
            // As of a server: what viewers' uplinks make of the channel is looked at.
            origin_up: None,
            ports: free_ports(u64::from(std::process::id()))?,
        };
        site.make_folders(std::iter::empty())?;
        Ok(Demo {
            args,
            stage,
            site,
            publisher: Publisher::default(),
            viewers: (1..=args.peers).map(Viewer::new).collect(),
            started: Instant::now(),
            arrived: None,
            killed: Vec::new(),
        })
    }

    /// The demo from its start to its figures. May be dropped at any moment; [`Stage::end`] is to follow in any case.
    ///
    /// # Errors
    /// If a part cannot be started, a server or the encoder ends, or a part complains.
    pub async fn run(&mut self) -> Result<Report> {
        let (tell, mut recorded) = watch::channel(0);
        let encoding = encoder::run(self.site.origin(), tell, self.stage.stop.clone());
        let encoding = self.stage.work.spawn(encoding);
        tokio::select! {
            ended = encoding => {
                ended??;
                bail!("the encoder ended");
            }
            report = self.perform(&mut recorded) => report,
        }
    }

    async fn perform(&mut self, recorded: &mut watch::Receiver<u64>) -> Result<Report> {
        self.stage.board.note("starting an encoder, a control center, an origin and a publisher");
        self.stage.children.start("control", &self.site.control_arguments())?;
        let control: Control = self.stage.children.first_line("control").await?;
        self.stage.children.start("origin", &self.site.origin_arguments())?;
        let origin: Origin = self.stage.children.first_line("origin").await?;
        self.stage.children.run_to_end("key", &self.site.key_arguments(), READY_WITHIN).await?;
        recorded.wait_for(|segments| *segments >= FIRST_SEGMENTS).await.context("the encoder ended")?;
        self.stage.children.start(PUBLISHER, &self.site.publish_live_arguments(&origin.url, &control)?)?;
        self.until("no publisher is heard", |demo| demo.publisher.active).await?;
        self.stage.board.note(&format!("starting {} viewers", self.viewers.len()));
        for viewer in &self.viewers {
            self.stage.children.start(&viewer.name, &self.site.viewer_arguments(&viewer.name, &control))?;
        }
        self.until("not all viewers have a session", |demo| demo.viewers.iter().all(|one| one.has_session)).await?;
        self.watch().await?;
        Ok(self.report())
    }

    /// Listens until the parts are as they should be; an error, with the `problem`, if they are not in time.
    async fn until(&mut self, problem: &str, is_met: impl Fn(&Demo) -> bool) -> Result<()> {
        let deadline = tokio::time::Instant::now() + READY_WITHIN;
        while !is_met(self) {
            let event = tokio::time::timeout_at(deadline, self.stage.children.next_in_time()).await;
            let event = event.with_context(|| format!("{problem} after {} s", READY_WITHIN.as_secs()))??;
            self.hear(event)?;
        }
        Ok(())
    }

    /// From the probes' start to their reports.
    async fn watch(&mut self) -> Result<()> {
        self.started = Instant::now();
        for viewer in &self.viewers {
            let arguments = self.site.probe_arguments(&viewer.name, &self.publisher.hw, self.args.seconds);
            self.stage.children.start(&viewer.probe, &arguments)?;
        }
        let length = self.length();
        let deadline = self.started + length + REPORTED_WITHIN;
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.viewers.iter().any(Viewer::watches) && Instant::now() < deadline {
            tokio::select! {
                event = self.stage.children.next() => self.hear(event)?,
                _ = looks.tick() => {}
            }
            let now = Instant::now();
            if self.arrived.is_none() && now >= self.started + ARRIVED_AFTER {
                self.arrived = Some((now, self.origin_bytes()));
            }
            if !self.args.no_kill && self.killed.is_empty() && now >= self.started + length / 2 {
                self.kill_a_parent().await;
            }
            self.show(now);
        }
        for viewer in self.viewers.iter_mut().filter(|viewer| viewer.watches()) {
            self.stage.board.note(&format!("the probe of {} said nothing", viewer.name));
            viewer.lost = true;
        }
        Ok(())
    }

    /// The viewer that feeds most others, and its probe; nobody as long as none feeds others.
    async fn kill_a_parent(&mut self) {
        let watching = self.viewers.iter().enumerate().filter(|(_, viewer)| viewer.watches());
        let Some(index) = busiest(watching.map(|(index, viewer)| (index, viewer.stream.children))) else { return };
        let viewer = &mut self.viewers[index];
        self.stage.children.kill(&viewer.name).await;
        self.stage.children.kill(&viewer.probe).await;
        viewer.killed = true;
        let at_s = self.started.elapsed().as_secs_f64();
        let killed = Killed { name: viewer.name.clone(), at_s, children: viewer.stream.children };
        self.stage.board.note(&killed.words());
        self.killed.push(killed);
    }

    fn hear(&mut self, event: Event) -> Result<()> {
        let Event { name, at, what, .. } = event;
        let viewer = self.viewers.iter_mut().find(|viewer| viewer.name == name || viewer.probe == name);
        match (what, viewer) {
            (What::Line(line), Some(viewer)) => {
                viewer.hear(&name, &line).map_err(|problem| self.stage.children.complaint(&name, problem))
            }
            (What::Line(line), None) if name == PUBLISHER => {
                let heard = self.publisher.hear(&line, at);
                let trouble = heard.map_err(|problem| self.stage.children.complaint(&name, problem))?;
                trouble.into_iter().for_each(|what| self.stage.board.note(&format!("{name}: {what}")));
                Ok(())
            }
            (What::Line(_), None) => Ok(()),
            (What::Ended(status), Some(viewer)) => {
                // A probe that has reported is done.
                if viewer.report.is_none() {
                    self.stage.board.note(&self.stage.children.ended(&name, status).to_string());
                    viewer.lost = true;
                }
                Ok(())
            }
            (What::Ended(status), None) => Err(self.stage.children.ended(&name, status)),
        }
    }

    fn length(&self) -> Duration {
        Duration::from_secs(self.args.seconds.into())
    }

    /// What the origin has sent to viewers, by their own words: it sends to the publisher too.
    fn origin_bytes(&self) -> u64 {
        self.viewers.iter().map(|viewer| viewer.stream.counters.origin_bytes).sum()
    }

    /// What publisher and origin sent for the channel after `from`, when the origin had sent `origin_before` to viewers.
    fn costs(&self, from: Instant, origin_before: u64) -> Costs {
        let (published_bytes, publisher_bytes) = self.publisher.since(from);
        Costs { published_bytes, publisher_bytes, origin_bytes: self.origin_bytes().saturating_sub(origin_before) }
    }

    fn show(&mut self, now: Instant) {
        let copies = self.costs(self.started, 0).copies();
        let elapsed = now.duration_since(self.started);
        let view = Watching { elapsed, length: self.length(), copies, viewers: &self.viewers };
        self.stage.board.show(&view, now);
    }

    fn report(&self) -> Report {
        let arrived = self.arrived.map(|(at, origin_before)| self.costs(at, origin_before));
        let totals = Totals {
            seconds: self.args.seconds,
            costs: self.costs(self.started, 0),
            costs_arrived: arrived,
            segments: self.publisher.segments_since(self.started),
            up_bytes_per_s: self.args.up.bytes_per_s(),
        };
        Report::new(&totals, &self.viewers, self.killed.clone())
    }
}

/// What there is to show of a channel.
struct Watching<'a> {
    /// Since the probes' start.
    elapsed: Duration,
    /// For so long they watch.
    length: Duration,
    /// From publisher and origin, once something was published.
    copies: Option<f64>,
    viewers: &'a [Viewer],
}

impl View for Watching<'_> {
    fn header(&self) -> String {
        let counted = || self.viewers.iter().map(|viewer| &viewer.stream.counters);
        let peers: u64 = counted().map(|one| one.peer_bytes).sum();
        let all: u64 = counted().map(|one| one.peer_bytes + one.waypoint_bytes + one.origin_bytes).sum();
        let lost: u64 = self.viewers.iter().map(Viewer::lost_pieces).sum();
        format!(
            "{:5.1} s of {} s: {} of {} watch; {:.1} % from peers, {:.2} copies from the servers, {lost} pieces lost",
            self.elapsed.as_secs_f64(),
            self.length.as_secs(),
            self.viewers.iter().filter(|viewer| viewer.watches()).count(),
            self.viewers.len(),
            100.0 * peers as f64 / all.max(1) as f64,
            self.copies.unwrap_or(0.0),
        )
    }

    /// The bar is the share that came from peers.
    fn rows(&self) -> Vec<Row> {
        let row = |viewer: &Viewer| {
            let counted = &viewer.stream.counters;
            Row {
                name: viewer.name.clone(),
                part: counted.peer_bytes,
                whole: counted.peer_bytes + counted.waypoint_bytes + counted.origin_bytes,
                words: viewer.words(),
            }
        };
        self.viewers.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_sums_up() {
        let mut viewers = [1, 2].map(Viewer::new);
        let status = r#"{"event":"status","control":true,"contents":[{"children":0,"peer_bytes":60,"origin_bytes":20,
            "live":{"lost_pieces":2}}]}"#;
        viewers[0].hear("viewer-1", status).unwrap();
        viewers[1].killed = true;
        let (elapsed, length) = (Duration::from_millis(7_400), Duration::from_secs(40));
        let view = Watching { elapsed, length, copies: Some(1.234), viewers: &viewers };
        let expected = "  7.4 s of 40 s: 1 of 2 watch; 75.0 % from peers, 1.23 copies from the servers, 2 pieces lost";
        assert_eq!(view.header(), expected);
        let rows = view.rows();
        assert_eq!((rows[0].part, rows[0].whole, rows[1].whole), (60, 80, 0));
        let nothing = Watching { copies: None, viewers: &[], ..view };
        let expected = "  7.4 s of 40 s: 0 of 0 watch; 0.0 % from peers, 0.00 copies from the servers, 0 pieces lost";
        assert_eq!(nothing.header(), expected);
    }
}
