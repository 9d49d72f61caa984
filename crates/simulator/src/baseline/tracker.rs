//! A file without Headwater: everybody fetches it from the origin, or a tracker names neighbours and the origin seeds.

use super::Baseline;
use super::peers::Peers;
use super::seed::Seed;
use headwater_center_core::{Input, Output, Totals};
use headwater_model::assignment::{Assignment, Generation, Lease, LeaseSource, Refusal};
use headwater_model::bits::Bits;
use headwater_model::id::{NodeId, Version};
use headwater_model::live::Substreams;
use headwater_model::report::{Heartbeat, Join};
use headwater_model::rng::Rng;
use headwater_model::time::{Micros, Rate, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Members that a tracker names to who asks: as these become neighbours both ways, each has twice as many on average.
const NAMED: usize = 20;
/// Neighbours of one member; who has so many is not named any more. A peer takes no more parents.
const NEIGHBOURS_MAX: usize = 64;
/// A lease is not watched: the node says when it is over, or its session ends.
const WITHIN: Micros = Micros::from_secs(3600);
/// After a failed fetch the origin is asked again then.
const AGAIN: Micros = Micros::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct FileTracker {
    kind: Baseline,
    rng: Rng,
    generation: Generation,
    content: Option<(Version, Seed, u32)>,
    peers: Peers,
    /// Of each member.
    neighbours: BTreeMap<NodeId, BTreeSet<NodeId>>,
    totals: Totals,
    again_at: Time,
}

impl FileTracker {
    pub(super) fn new(kind: Baseline, epoch: u64, seed: u64) -> FileTracker {
        FileTracker {
            kind,
            rng: Rng::new(seed ^ epoch, "tracker"),
            generation: Generation { epoch, counter: 0 },
            content: None,
            peers: Peers::default(),
            neighbours: BTreeMap::new(),
            totals: Totals::default(),
            again_at: Time(u64::MAX),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.generation.epoch
    }
    pub(super) fn totals(&self) -> Totals {
        self.totals
    }
    pub(super) fn next_timeout(&self) -> Time {
        self.again_at
    }
    pub(super) fn leases(&self) -> usize {
        self.content.as_ref().map_or(0, |(_, seed, _)| seed.fetches())
    }

    pub(super) fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Publish(content) => {
                if let Some(layout) = super::layout_of(&content.kind) {
                    self.content = Some((content.version, Seed::new(layout.clone()), layout.runs()));
                }
            }
            Input::Arrived(arrival) => self.peers.arrived(*arrival),
            Input::Departed { node, session, .. } if self.peers.departed(&node, session) => self.leaves(&node, out),
            Input::Leave(node, _) => {
                self.peers.leaves(&node);
                self.leaves(&node, out);
            }
            Input::Join(node, join) => self.joins(node, join, out),
            Input::Heartbeat(node, heartbeat) => self.hears(node, heartbeat, out),
            Input::LeaseDone(node, _, run) => {
                if let Some((_, seed, _)) = &mut self.content {
                    seed.over(&node, run, true);
                }
                self.serve(node, out);
            }
            Input::LeaseFailed(node, _, run, _) => {
                if let Some((_, seed, _)) = &mut self.content {
                    seed.over(&node, run, false);
                }
                self.again_at = self.again_at.min(now + AGAIN);
            }
            Input::Tick if now >= self.again_at => {
                self.again_at = Time(u64::MAX);
                self.neighbours.keys().copied().collect::<Vec<_>>().into_iter().for_each(|n| self.serve(n, out));
            }
            Input::Alarm(..) => self.totals.alarms += 1,
            // A tracker has no use for the rest.
            _ => {}
        }
    }

    fn joins(&mut self, node: NodeId, join: Join, out: &mut Vec<Output>) {
        let Some((version, seed, runs)) = &mut self.content else { return };
        if join.version.content != version.content || ![0, version.epoch].contains(&join.version.epoch) {
            return out.push(Output::Refuse(node, join.version, Refusal::UnknownContent));
        }
        self.totals.joins += 1;
        let held = if join.complete { Bits::full(*runs) } else { join.runs.unwrap_or_else(|| Bits::new(*runs)) };
        seed.joins(node, held, &join.leases);
        self.peers.takes_part(node);
        self.neighbours.entry(node).or_default();
        self.announces(node, out);
        self.tell(node, out);
        self.serve(node, out);
    }

    /// Nobody is told: neighbours see that the connection is gone. But what they are told next is without it.
    fn leaves(&mut self, node: &NodeId, out: &mut Vec<Output>) {
        for other in self.neighbours.remove(node).unwrap_or_default() {
            if let Some(of) = self.neighbours.get_mut(&other) {
                of.remove(node);
            }
        }
        if let Some((_, seed, _)) = &mut self.content {
            seed.leaves(node);
        }
        self.seeds(out);
    }

    fn hears(&mut self, node: NodeId, heartbeat: Heartbeat, out: &mut Vec<Output>) {
        self.totals.heartbeats += 1;
        let Some((version, seed, _)) = &mut self.content else { return };
        for report in heartbeat.contents.into_iter().filter(|c| c.version == *version) {
            if let Some(runs) = report.runs {
                seed.holds(&node, runs);
            }
        }
        // Who has lost most of its neighbours asks the tracker again.
        if self.neighbours.get(&node).is_some_and(|n| n.len() < NAMED / 2) && self.announces(node, out) {
            self.tell(node, out);
        }
        self.seeds(out);
    }

    /// The tracker names members to a node; whether there were new ones.
    fn announces(&mut self, node: NodeId, out: &mut Vec<Output>) -> bool {
        let near = match self.kind {
            Baseline::Random => 0,
            Baseline::Locality => NAMED / 2,
            Baseline::ClientServer | Baseline::Forest => return false,
        };
        let Some(own) = self.neighbours.get(&node).filter(|_| !self.peers.is_limited(&node)) else { return false };
        let fits = |other: &NodeId| {
            let full = self.neighbours.get(other).is_none_or(|n| n.len() >= NEIGHBOURS_MAX);
            !full && !own.contains(other)
        };
        let named = self.peers.draw(&mut self.rng, &node, (NAMED, near), fits);
        for other in &named {
            self.neighbours.entry(node).or_default().insert(*other);
            self.neighbours.entry(*other).or_default().insert(node);
            self.tell(*other, out);
        }
        !named.is_empty()
    }

    /// A node learns its neighbours: each is parent and child.
    fn tell(&mut self, node: NodeId, out: &mut Vec<Output>) {
        let Some((version, ..)) = &self.content else { return };
        let Some(neighbours) = self.neighbours.get(&node) else { return };
        let promised = |other: &NodeId| {
            let up = self.peers.get(other).map_or(0, |a| a.introduction.up.0);
            Rate(up / self.neighbours.get(other).map_or(1, |n| n.len().max(1)) as u64)
        };
        let none = Substreams::default();
        let parents = neighbours.iter().filter_map(|n| self.peers.as_parent(&node, n, promised(n), none));
        let children = neighbours.iter().filter_map(|n| self.peers.as_child(&node, n, none));
        self.generation.counter += 1;
        self.totals.assignments += 1;
        out.push(Output::Assign(
            node,
            Assignment {
                version: *version,
                generation: self.generation,
                parents: parents.collect(),
                spares: Vec::new(),
                helpers: Vec::new(),
                children: children.collect(),
                source: false,
            },
        ));
    }

    /// The origin does what it does, now that something is over for a node, or begins.
    fn serve(&mut self, node: NodeId, out: &mut Vec<Output>) {
        if self.kind != Baseline::ClientServer && !self.peers.is_limited(&node) {
            return self.seeds(out);
        }
        let Some((version, seed, _)) = &mut self.content else { return };
        let (version, runs) = (*version, seed.alone(&node));
        runs.into_iter().for_each(|run| self.lease(version, node, run, out));
    }

    fn seeds(&mut self, out: &mut Vec<Output>) {
        if self.kind == Baseline::ClientServer {
            return;
        }
        let Some((version, seed, _)) = &mut self.content else { return };
        let peers = &self.peers;
        let (version, new) = (*version, seed.seeds(&mut self.rng, |node| !peers.is_limited(node)));
        new.into_iter().for_each(|(node, run)| self.lease(version, node, run, out));
    }

    fn lease(&mut self, version: Version, node: NodeId, run: u32, out: &mut Vec<Output>) {
        self.totals.leases += 1;
        out.push(Output::Lease(node, Lease { version, run, within: WITHIN, source: LeaseSource::Origin }));
    }

    /// What does not add up.
    pub(super) fn check(&self) -> Vec<String> {
        let of = |node: &NodeId| self.neighbours.get(node);
        let one_way = |node: &NodeId, other: &NodeId| !of(other).is_some_and(|n| n.contains(node));
        let pairs = self.neighbours.iter().flat_map(|(node, all)| all.iter().map(move |other| (node, other)));
        let wrong = pairs.filter(|(a, b)| one_way(a, b)).map(|(a, b)| format!("{a:?} has {b:?}, which has it not"));
        wrong.chain(self.content.iter().flat_map(|(_, seed, _)| seed.check())).collect()
    }
}
