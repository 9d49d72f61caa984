//! A crowd at a control center: it comes, is heard of, loses some.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use headwater_center_core::content_directory::{Content, Kind};
use headwater_center_core::{Center, Config, Input, Output};
use headwater_model::report::{Alarm, ContentReport, EdgeReport, Heartbeat, Join};
use headwater_model::rng::Rng;
use headwater_model::{ContentId, Micros, NodeId, Priority, Time, Version};

use super::clock::Calls;
use super::figures::{Bar, Run, per_second};
use super::population::Population;

/// All come within this time.
const CROWD_WITHIN: Micros = Micros::from_secs(10);
/// Heartbeats have a figure of their own: none is due while the crowd comes.
const HEARTBEAT: Micros = Micros::from_secs(60);
/// Members whose heartbeat comes, at most.
const MAX_HEARTBEATS: u32 = 200_000;
/// They come within this time.
const HEARTBEATS_WITHIN: Micros = Micros::from_secs(2);
/// Members that leave, and that lose a parent, at most.
const MAX_LOSSES: u32 = 2000;
/// Time between two of them.
const LOSS_EVERY: Micros = Micros::from_millis(1);
/// How long upkeep is watched while nothing happens.
const QUIET: Micros = Micros::from_secs(4);

/// Row g: 100,000 joins in 10 s must be placed; the goal is a million.
const JOINS: Bar = Bar { row: "g", must: 10_000.0, goal: 100_000.0 };
/// Row f: of a heartbeat's whole cost, sockets included.
const HEARTBEATS: Bar = Bar { row: "f", must: 100_000.0, goal: 400_000.0 };

/// The content that all come for.
pub const VERSION: Version = Version { content: ContentId([7; 32]), epoch: 1 };

/// See the module.
pub struct Crowd {
    center: Center,
    population: Population,
    peers: u32,
    now: Time,
    out: Vec<Output>,
    told: Told,
    ticks: Calls,
    /// Who is there.
    present: Vec<u32>,
    rng: Rng,
}

/// What members were told of their edges.
#[derive(Clone, Copy, Default)]
struct Told {
    assignments: u64,
    changes: u64,
}

impl Told {
    fn take(&mut self, out: &mut Vec<Output>) {
        for o in out.drain(..) {
            self.assignments += u64::from(matches!(o, Output::Assign(..)));
            self.changes += u64::from(matches!(o, Output::ChangeChildren(..)));
        }
    }
}

/// Parents and children of a member.
type Edges = (Vec<NodeId>, Vec<NodeId>);

impl Crowd {
    /// A control center without sessions, with one content.
    pub fn new(peers: u32, population: Population, kind: Kind) -> Crowd {
        let config = Config { max_nodes: peers as usize + 1, heartbeat: HEARTBEAT, ..Config::default() };
        let content = Content {
            version: VERSION,
            name: "bench".into(),
            kind,
            origin_needs_credentials: false,
            share_origin_credentials: false,
            stand_in: None,
            dcm: None,
            trees: None,
        };
        let (mut center, mut out) = (Center::new(Time(0), config, 1, false), Vec::new());
        center.handle(Time(0), Input::Publish(Box::new(content)), &mut out);
        out.clear();
        let (now, rng) = (Time(1_000_000), Rng::new(population.seed, "crowd"));
        Crowd {
            center,
            population,
            peers,
            now,
            out,
            told: Told::default(),
            ticks: Calls::default(),
            present: Vec::new(),
            rng,
        }
    }

    /// Runs it, and notes what that took.
    ///
    /// # Errors
    /// A join that was refused, or a member without edges.
    pub fn measure(mut self, run: &mut Run<'_>) -> Result<()> {
        self.source_joins();
        let joins = self.joins();
        let time = joins.sum() + self.ticks.sum();
        run.more("joins placed", per_second(joins.count(), time), "/s", Some(JOINS));
        run.quantiles(["a join, median", "a join, p99", "a join, longest"], joins.quantiles());
        self.note_ticks(run, "a tick of the crowd, longest");
        let of_each = |n: u64| n as f64 / f64::from(self.peers);
        run.less("assignments told, of a join", of_each(self.told.assignments), "", None);
        run.less("changes of children told, of a join", of_each(self.told.changes), "", None);
        let members = self.members();
        ensure!(members >= self.peers as usize, "{members} of {} peers are members", self.peers);

        let before = self.now;
        self.pass(QUIET);
        let upkeep = std::mem::take(&mut self.ticks);
        let share = upkeep.sum().as_secs_f64() / Duration::from_micros(self.now.since(before).0).as_secs_f64();
        run.less("upkeep, of a core", share * 100.0, "%", None);
        run.less("a tick of upkeep, longest", upkeep.quantiles()[2], "us", None);

        let heartbeats = self.heartbeats()?;
        run.more(
            "heartbeats, without sockets",
            per_second(heartbeats.count(), heartbeats.sum()),
            "/s",
            Some(HEARTBEATS),
        );
        run.less("a heartbeat, longest", heartbeats.quantiles()[2], "us", None);
        self.note_ticks(run, "a tick among heartbeats, longest");

        let alarms = self.losses()?;
        run.quantiles(["a lost parent, median", "a lost parent, p99", "a lost parent, longest"], alarms.quantiles());
        let leaves = self.leaves();
        run.quantiles(["a leave, median", "a leave, p99", "a leave, longest"], leaves.quantiles());
        self.note_ticks(run, "a tick of repair, longest");
        Ok(())
    }

    fn note_ticks(&mut self, run: &mut Run<'_>, what: &'static str) {
        run.less(what, std::mem::take(&mut self.ticks).quantiles()[2], "us", None);
    }

    fn source_joins(&mut self) {
        let live = self.center.directory().get(&VERSION.content).is_some_and(|c| c.kind.is_live());
        if live {
            let arrival = self.population.source(self.peers);
            let node = arrival.node;
            self.center.handle(self.now, Input::Arrived(Box::new(arrival)), &mut self.out);
            let join = Join { source: true, ..Join::to(VERSION) };
            self.center.handle(self.now, Input::Join(node, join), &mut self.out);
            self.out.clear();
        }
    }

    fn joins(&mut self) -> Calls {
        let (start, mut joins) = (self.now, Calls::default());
        for n in 0..self.peers {
            self.until(start + Micros(CROWD_WITHIN.0 * u64::from(n) / u64::from(self.peers)));
            let arrival = Box::new(self.population.arrival(n));
            let node = arrival.node;
            joins.time(|| {
                self.center.handle(self.now, Input::Arrived(arrival), &mut self.out);
                self.center.handle(self.now, Input::Join(node, Join::to(VERSION)), &mut self.out);
                self.center.next_timeout()
            });
            self.told.take(&mut self.out);
        }
        self.present = (0..self.peers).collect();
        self.rng.shuffle(&mut self.present);
        joins
    }

    fn members(&self) -> usize {
        let directory = self.center.directory();
        let of_stream = directory.trees(&VERSION.content).map(|t| t.members().count());
        of_stream.or(directory.dcm(&VERSION.content).map(|d| d.members().count())).unwrap_or_default()
    }

    /// Time passes until then.
    fn until(&mut self, then: Time) {
        let Crowd { center, out, told, ticks, .. } = self;
        while center.next_timeout() <= then {
            let at = center.next_timeout();
            ticks.time(|| center.handle(at, Input::Tick, out));
            told.take(out);
        }
        self.now = then;
    }

    fn pass(&mut self, span: Micros) {
        self.until(self.now + span);
    }

    fn heartbeats(&mut self) -> Result<Calls> {
        let (start, mut calls) = (self.now, Calls::default());
        let count = self.peers.min(MAX_HEARTBEATS);
        for at in 0..count {
            self.until(start + Micros(HEARTBEATS_WITHIN.0 * u64::from(at) / u64::from(count)));
            let node = self.population.id(self.present[at as usize]);
            let heartbeat = self.heartbeat(&node)?;
            calls.time(|| {
                self.center.handle(self.now, Input::Heartbeat(node, heartbeat), &mut self.out);
                self.center.next_timeout()
            });
            self.out.clear();
        }
        Ok(calls)
    }

    /// What a member says to whom all goes well.
    fn heartbeat(&self, node: &NodeId) -> Result<Heartbeat> {
        let edge = |node: NodeId| EdgeReport {
            node,
            pieces: 8,
            bytes: 8 << 16,
            waited: Micros(HEARTBEAT.0 / 4),
            rtt: Micros::from_millis(50),
            sent_packets: 400,
            lost_packets: 0,
            offers_nothing: false,
            last_pieces: Vec::new(),
        };
        let (parents, children) = self.edges(node)?;
        let contents = vec![ContentReport {
            version: VERSION,
            runs: None,
            pieces_held: 8 * parents.len() as u32,
            origin_bytes: 0,
            wasted_bytes: 0,
            from: parents.into_iter().map(edge).collect(),
            to: children.into_iter().map(edge).collect(),
            priority: Priority::Normal,
            live: None,
        }];
        Ok(Heartbeat { interval: self.now.0 / HEARTBEAT.0, contents, ..Heartbeat::default() })
    }

    fn edges(&self, node: &NodeId) -> Result<Edges> {
        let directory = self.center.directory();
        if let Some(trees) = directory.trees(&VERSION.content) {
            let parents = trees.parents_of(node).into_iter().map(|(parent, _)| parent).collect();
            return Ok((parents, trees.children_of(node)));
        }
        let dcm = directory.dcm(&VERSION.content).context("nothing manages the content")?;
        let parents = dcm.member_of(node).map(|m| m.parents.iter().filter_map(|e| dcm.node_of(e.parent)).collect());
        Ok((parents.unwrap_or_default(), dcm.children_of(node)))
    }

    /// Connections to parents break.
    fn losses(&mut self) -> Result<Calls> {
        let mut calls = Calls::default();
        for at in 0..MAX_LOSSES.min(self.peers / 4) {
            self.pass(LOSS_EVERY);
            let node = self.population.id(self.present[at as usize]);
            let Some(parent) = self.edges(&node)?.0.first().copied() else { continue };
            let alarm = Alarm::ParentLost { parent, why: String::new() };
            calls.time(|| {
                self.center.handle(self.now, Input::Alarm(node, VERSION, alarm), &mut self.out);
                self.center.next_timeout()
            });
            self.out.clear();
        }
        Ok(calls)
    }

    /// Members say goodbye.
    fn leaves(&mut self) -> Calls {
        let mut calls = Calls::default();
        for n in self.present.split_off(self.present.len() - MAX_LOSSES.min(self.peers / 4) as usize) {
            self.pass(LOSS_EVERY);
            let departed = Input::Departed { node: self.population.id(n), session: u64::from(n) + 1, bye: true };
            calls.time(|| {
                self.center.handle(self.now, departed, &mut self.out);
                self.center.next_timeout()
            });
            self.out.clear();
        }
        calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_model::Layout;

    #[test]
    fn a_crowd_is_placed_and_measured() {
        for kind in [
            Kind::Live(super::super::live::terms(headwater_model::Rate::from_mbit(2))),
            Kind::File(Layout::single(64 << 10, 1 << 30).unwrap()),
        ] {
            let mut figures = Vec::new();
            let mut run = Run { content: "test", peers: 200, into: &mut figures };
            Crowd::new(200, Population { seed: 1 }, kind).measure(&mut run).unwrap();
            let measured = |what: &str| figures.iter().find(|f| f.what == what).map_or(0.0, |f| f.value);
            for what in ["joins placed", "heartbeats, without sockets", "a lost parent, median", "a leave, longest"] {
                assert!(measured(what) > 0.0, "{what}");
            }
        }
    }
}
