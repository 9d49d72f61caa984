//! A stream without Headwater: the source feeds all, or each node has parents that were chosen at random.

use super::Baseline;
use super::feeds::Feeds;
use super::peers::Peers;
use headwater_center_core::content_directory::Kind;
use headwater_center_core::trees::TreesStats;
use headwater_center_core::{Input, Output, Totals};
use headwater_model::assignment::{Assignment, ChildrenChange, Generation, Parent};
use headwater_model::id::{NodeId, Version};
use headwater_model::live::{LiveTerms, Substreams};
use headwater_model::report::Alarm;
use headwater_model::rng::Rng;
use headwater_model::time::{Micros, Rate, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Partners of a node, among whom its parents are.
const PARTNERS: usize = 40;
/// Of these, those that a newcomer asks for what was before it.
const HELPERS: usize = 8;
/// Part of an uplink that is for children at their rate, as Headwater's trees have it: the rest is for what protocols add,
/// and for who catches up.
const USABLE: f64 = 0.95 / 1.15;
/// Who finds no parent tries again then, with new partners.
const TRY_AGAIN: Micros = Micros::from_secs(1);
/// In a forest who loses its parent waits for so long before it joins anew.
const REJOIN: Micros = Micros::from_secs(4);
/// Who leaves on purpose serves on for so long at most: children that did not say so by then look for another parent.
const SERVES_ON: Micros = Micros::from_secs(4);

/// See the module.
#[derive(Debug)]
pub(crate) struct LiveControl {
    kind: Baseline,
    rng: Rng,
    generation: Generation,
    content: Option<(Version, LiveTerms)>,
    peers: Peers,
    feeds: Feeds,
    partners: BTreeMap<NodeId, Vec<NodeId>>,
    /// Places to be taken, and when.
    due: BTreeSet<(Time, NodeId, u8)>,
    due_of: BTreeMap<(NodeId, u8), Time>,
    totals: Totals,
}

impl LiveControl {
    pub(super) fn new(kind: Baseline, seed: u64) -> LiveControl {
        LiveControl {
            kind,
            rng: Rng::new(seed, "baseline of a stream"),
            generation: Generation { epoch: 1, counter: 0 },
            content: None,
            peers: Peers::default(),
            feeds: Feeds::new(0),
            partners: BTreeMap::new(),
            due: BTreeSet::new(),
            due_of: BTreeMap::new(),
            totals: Totals::default(),
        }
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }
    pub(super) fn stats(&self) -> TreesStats {
        self.feeds.stats()
    }
    /// Of all viewers.
    pub(super) fn slots(&self) -> Vec<u32> {
        self.feeds.iter().filter(|(n, _)| !self.feeds.is_source(n)).map(|(_, m)| m.slots).collect()
    }
    pub(super) fn check(&self) -> Vec<String> {
        self.feeds.check()
    }
    pub(super) fn next_timeout(&self) -> Time {
        self.due.first().map_or(Time(u64::MAX), |(at, ..)| *at)
    }

    pub(super) fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Publish(content) => {
                if let Kind::Live(terms) = content.kind {
                    self.feeds = Feeds::new(terms.substreams.get());
                    self.content = Some((content.version, terms));
                }
            }
            Input::Arrived(arrival) => self.peers.arrived(*arrival),
            Input::Join(node, join) => self.joins(now, node, join.source, out),
            Input::Departed { node, session, bye } if self.peers.departed(&node, session) => {
                self.leaves(now, &node, bye);
            }
            Input::Alarm(node, _, alarm) => self.alarm(now, node, alarm),
            Input::Heartbeat(..) => self.totals.heartbeats += 1,
            Input::Tick => {
                while let Some((at, node, substream)) = self.due.first().copied().filter(|(at, ..)| *at <= now) {
                    self.due.remove(&(at, node, substream));
                    self.due_of.remove(&(node, substream));
                    self.place(now, node, &[substream], out);
                }
            }
            // It has no use for the rest.
            _ => {}
        }
    }

    /// Children that an uplink suffices for, in all substreams together. The source's is all that client and server have.
    fn slots_of(&self, node: &NodeId, terms: LiveTerms) -> u32 {
        let up = self.peers.get(node).map_or(0, |a| a.introduction.up.0) as f64;
        match (self.kind, self.feeds.is_source(node)) {
            (Baseline::ClientServer, true) => u32::MAX,
            (Baseline::ClientServer, false) => 0,
            _ => (up * USABLE / terms.substream_rate().0.max(1) as f64) as u32,
        }
    }

    fn joins(&mut self, now: Time, node: NodeId, is_source: bool, out: &mut Vec<Output>) {
        let Some((_, terms)) = self.content else { return };
        self.totals.joins += 1;
        if is_source {
            self.feeds.source = Some(node);
        }
        self.feeds.insert(node, self.slots_of(&node, terms));
        self.peers.takes_part(node);
        if is_source {
            return self.tell(node, out);
        }
        let all: Vec<u8> = (0..terms.substreams.get()).collect();
        self.place(now, node, &all, out);
    }

    /// Partners notice by themselves, and raise the alarm.
    fn leaves(&mut self, now: Time, node: &NodeId, bye: bool) {
        let serves = if bye { SERVES_ON } else { Micros(0) };
        let after = if self.kind == Baseline::Forest { serves + REJOIN } else { serves };
        for (child, what) in self.feeds.remove(node) {
            what.iter().for_each(|substream| self.due_at(now + after, child, substream));
        }
        self.partners.remove(node);
        for substream in self.waiting(node) {
            if let Some(at) = self.due_of.remove(&(*node, substream)) {
                self.due.remove(&(at, *node, substream));
            }
        }
    }

    /// A child has left a parent: it looks for another one.
    fn alarm(&mut self, now: Time, node: NodeId, alarm: Alarm) {
        self.totals.alarms += 1;
        let (parent, substreams) = match alarm {
            Alarm::ParentLost { parent, .. } | Alarm::Silent { parent } | Alarm::Slow { parent } => (parent, None),
            Alarm::Behind { parent, substreams } => (parent, Some(substreams)),
            _ => return,
        };
        let lost = self.feeds.parents(&node).get(&parent).copied().unwrap_or_default();
        // Of one that said goodbye nobody is kept here.
        let orphaned = if self.feeds.get(&parent).is_none() { self.waiting(&node) } else { Vec::new() };
        let lost = substreams.map_or(lost, |some| lost.and(some));
        // A server has nobody to be replaced by.
        if self.kind == Baseline::ClientServer {
            return;
        }
        for substream in lost.iter().chain(orphaned) {
            self.feeds.set(&node, substream, None);
            let after = if self.kind == Baseline::Forest { REJOIN } else { Micros(0) };
            self.due_at(now + after, node, substream);
        }
    }

    /// Substreams in which a node is to take a place.
    fn waiting(&self, node: &NodeId) -> Vec<u8> {
        self.due_of.range((*node, 0)..=(*node, u8::MAX)).map(|((_, substream), _)| *substream).collect()
    }

    /// A place is to be taken then, or when that was due already.
    fn due_at(&mut self, at: Time, node: NodeId, substream: u8) {
        let at = match self.due_of.get(&(node, substream)) {
            Some(due) if *due <= at => return,
            Some(due) => {
                self.due.remove(&(*due, node, substream));
                at
            }
            None => at,
        };
        self.due_of.insert((node, substream), at);
        self.due.insert((at, node, substream));
    }

    /// A node takes places in the trees of these substreams, or tries again later.
    fn place(&mut self, now: Time, node: NodeId, substreams: &[u8], out: &mut Vec<Output>) {
        if self.feeds.get(&node).is_none() {
            return;
        }
        if self.kind != Baseline::ClientServer && self.kind != Baseline::Forest {
            let near = if self.kind == Baseline::Locality { PARTNERS / 2 } else { 0 };
            let drawn = self.peers.draw(&mut self.rng, &node, (PARTNERS, near), |_| true);
            self.partners.insert(node, drawn);
        }
        let mut parents = BTreeSet::new();
        for substream in substreams {
            match self.choose(&node, *substream) {
                Some(parent) => {
                    self.feeds.set(&node, *substream, Some(parent));
                    parents.insert(parent);
                }
                None => {
                    let after = if self.kind == Baseline::Forest { REJOIN } else { TRY_AGAIN };
                    self.due_at(now + after, node, *substream);
                }
            }
        }
        if !parents.is_empty() {
            self.tell(node, out);
        }
        parents.into_iter().for_each(|parent| self.tell_of_child(parent, node, out));
    }

    /// A parent at random of those that can be.
    fn choose(&mut self, node: &NodeId, substream: u8) -> Option<NodeId> {
        let trees = u64::from(self.content?.1.substreams.get());
        let mut could: Vec<NodeId> = match self.kind {
            Baseline::ClientServer => return self.feeds.source,
            // Interior in one tree each; the root of all of them is the source.
            Baseline::Forest => {
                let interior = |n: &NodeId| n.prefix64() % trees == u64::from(substream) || self.feeds.is_source(n);
                let free = self.feeds.iter().filter(|(n, m)| m.used < m.slots && interior(n));
                free.map(|(n, _)| *n).collect()
            }
            Baseline::Random | Baseline::Locality => self.partners.get(node).cloned().unwrap_or_default(),
        };
        while !could.is_empty() {
            let other = could.swap_remove(self.rng.below(could.len() as u64) as usize);
            if self.feeds.could_feed(&other, node, substream) && self.peers.compatible(node, &other) {
                return Some(other);
            }
        }
        None
    }

    /// Whom a node asks for what was before it: partners, or in a forest its parents.
    fn helpers(&self, node: &NodeId, terms: LiveTerms) -> Vec<Parent> {
        let parents = self.feeds.parents(node);
        let known: Vec<NodeId> = match self.kind {
            Baseline::ClientServer => Vec::new(),
            Baseline::Forest => parents.into_keys().filter(|p| !self.feeds.is_source(p)).collect(),
            Baseline::Random | Baseline::Locality => {
                let partners = self.partners.get(node).into_iter().flatten();
                partners.filter(|p| self.feeds.get(p).is_some() && !self.feeds.is_source(p)).copied().collect()
            }
        };
        let all = Substreams::all(terms.substreams.get());
        known.iter().take(HELPERS).filter_map(|h| self.peers.as_parent(node, h, Rate(0), all)).collect()
    }

    fn tell(&mut self, node: NodeId, out: &mut Vec<Output>) {
        let Some((version, terms)) = self.content else { return };
        let parents = self.feeds.parents(&node).into_iter();
        let rate = |what: Substreams| Rate(terms.substream_rate().0 * u64::from(what.len()));
        let parents = parents.filter_map(|(p, what)| self.peers.as_parent(&node, &p, rate(what), what)).collect();
        let children = self.feeds.children(&node).filter_map(|(c, what)| self.peers.as_child(&node, c, what)).collect();
        self.generation.counter += 1;
        self.totals.assignments += 1;
        let source = self.feeds.is_source(&node);
        let (generation, helpers) = (self.generation, self.helpers(&node, terms));
        let assignment = Assignment { version, generation, parents, spares: Vec::new(), helpers, children, source };
        out.push(Output::Assign(node, assignment));
    }

    /// A parent learns what it gives a child.
    fn tell_of_child(&mut self, parent: NodeId, child: NodeId, out: &mut Vec<Output>) {
        let Some((version, _)) = self.content else { return };
        let what = self.feeds.children(&parent).find(|(c, _)| **c == child).map(|(_, what)| what);
        let came = what.and_then(|what| self.peers.as_child(&parent, &child, what));
        let left = if came.is_none() { vec![child] } else { Vec::new() };
        self.generation.counter += 1;
        let came = came.into_iter().collect();
        out.push(Output::ChangeChildren(parent, ChildrenChange { version, generation: self.generation, came, left }));
    }
}
