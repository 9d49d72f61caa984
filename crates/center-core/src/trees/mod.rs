//! Trees: the delivery coordinator manager of one live stream (requirements C6, T1). Each substream has a tree of its own
//! over all members, with the source at its root; it owns the topology: who feeds whom with what, and who would.
//!
//! A member passes on few substreams, to many children, and is a leaf in the trees of the others: who fails takes little
//! from each. One copy leaves the source as long as the members' uplink is enough; children without a parent in a tree
//! read that substream from the origin.

mod alarms;
mod anew;
mod assignments;
mod check;
mod clusters;
mod congestion;
mod edges;
mod help;
mod index;
mod insert;
mod member;
mod membership;
mod place;
mod sites;
mod spares;
mod spot;
#[cfg(test)]
mod story_tests;
#[cfg(test)]
mod test_world;
mod upkeep;
#[cfg(test)]
mod walk_tests;

pub use check::TreesStats;
pub use member::Member;

use crate::budgets::Use;
use crate::config::Config;
use crate::dcm::{DcmOutput, FailedPairs, Ix, MemberInfo};
use crate::node_map::NodeMap;
use assignments::Untold;
use clusters::Clusters;
use headwater_model::assignment::Generation;
use headwater_model::id::{NodeId, Version};
use headwater_model::live::{LiveTerms, Substreams};
use headwater_model::node::Priority;
use headwater_model::report::{ContentReport, Join};
use headwater_model::time::{Micros, Rate, Time};
use index::Tree;
use std::collections::{BTreeMap, BTreeSet};

/// How often trees are looked at without an occasion.
const UPKEEP: Micros = Micros::from_millis(500);

/// The trees of one live stream.
#[derive(Clone, Debug)]
pub struct Trees {
    version: Version,
    terms: LiveTerms,
    config: Config,
    members: Vec<Option<Member>>,
    /// Indices of members that left.
    vacant: Vec<Ix>,
    by_node: NodeMap<Ix>,
    /// One per substream.
    trees: Vec<Tree>,
    /// What each cluster has of them.
    clusters: Clusters,
    /// Uplink left over of all peers together, in percent of a substream's rate.
    left_over: u64,
    /// The root of all trees.
    source: Option<Ix>,
    /// When it became that.
    crowned_at: Time,
    /// The highest piece of each substream that the source says it sent: nobody has sent one after that.
    source_sent: Vec<u64>,
    /// Members that may be it.
    sources: BTreeSet<Ix>,
    waypoints: BTreeSet<Ix>,
    /// Members whose session broke or fell silent.
    aways: BTreeSet<Ix>,
    /// Members that are not fully believed for a while.
    doubted: BTreeSet<Ix>,
    /// Pairs that failed of late.
    failed: FailedPairs,
    /// After a restart: what members say of parents that are not back yet, by parent.
    claims: BTreeMap<NodeId, Vec<(NodeId, Substreams)>>,
    /// Counts members.
    order: u64,
    /// Counts rounds of upkeep.
    turn: usize,
    /// Where the next round of upkeep looks first.
    swept: usize,
    untold: BTreeMap<Ix, Untold>,
    flush_at: Option<Time>,
    generation: Generation,
    /// After a restart nothing is arranged before `settle_until`, which is never later than `settle_end`.
    settle_until: Time,
    settle_end: Time,
    /// After a restart nothing is made better before: those who have just come back are left in peace.
    calm_until: Time,
    upkeep_at: Time,
    out: Vec<DcmOutput>,
}

impl Trees {
    /// Trees without members. `epoch` is the control center's; `restarted` tells that nodes may be served already.
    pub fn new(now: Time, version: Version, terms: LiveTerms, config: Config, epoch: u64, restarted: bool) -> Self {
        let settle_end = if restarted { now + config.settle } else { now };
        Self {
            version,
            terms,
            members: Vec::new(),
            vacant: Vec::new(),
            by_node: NodeMap::new(),
            trees: vec![Tree::default(); usize::from(terms.substreams.get())],
            clusters: Clusters::new(usize::from(terms.substreams.get())),
            left_over: 0,
            source: None,
            crowned_at: Time(0),
            source_sent: vec![0; usize::from(terms.substreams.get())],
            sources: BTreeSet::new(),
            waypoints: BTreeSet::new(),
            aways: BTreeSet::new(),
            doubted: BTreeSet::new(),
            failed: FailedPairs::default(),
            claims: BTreeMap::new(),
            order: 0,
            turn: 0,
            swept: 0,
            untold: BTreeMap::new(),
            flush_at: None,
            generation: Generation { epoch, counter: 0 },
            settle_until: settle_end,
            settle_end,
            calm_until: if restarted { settle_end + config.grace } else { Time(0) },
            upkeep_at: now,
            out: Vec::new(),
            config,
        }
    }

    /// Which stream this is.
    pub fn version(&self) -> Version {
        self.version
    }
    /// What holds for it.
    pub fn terms(&self) -> &LiveTerms {
        &self.terms
    }
    /// Its members, the source among them.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().flatten()
    }
    /// One member.
    pub fn member_of(&self, node: &NodeId) -> Option<&Member> {
        self.member(*self.by_node.get(node)?)
    }
    /// Node of a member index.
    pub fn node_of(&self, ix: Ix) -> Option<NodeId> {
        self.member(ix).map(|m| m.info.node)
    }
    /// Who takes part.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.by_node.keys().copied().collect()
    }
    /// The source that is active.
    pub fn source(&self) -> Option<NodeId> {
        self.source.and_then(|s| self.node_of(s))
    }
    /// The last assignment's number.
    pub fn generation(&self) -> Generation {
        self.generation
    }
    /// Whether nobody is left.
    pub fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }
    /// Who feeds `node`, and with what.
    pub fn parents_of(&self, node: &NodeId) -> Vec<(NodeId, Substreams)> {
        let Some(ix) = self.by_node.get(node) else { return Vec::new() };
        let mut parents: BTreeMap<NodeId, Substreams> = BTreeMap::new();
        for tree in self.all_trees() {
            if let Some(parent) = self.parent(tree, *ix).and_then(|p| self.node_of(p)) {
                parents.entry(parent).or_default().insert(tree);
            }
        }
        parents.into_iter().collect()
    }
    /// Whom `node` feeds.
    pub fn children_of(&self, node: &NodeId) -> Vec<NodeId> {
        let Some(ix) = self.by_node.get(node) else { return Vec::new() };
        let children: BTreeSet<Ix> = self.spots(*ix).flat_map(|(_, s)| s.children.iter().copied()).collect();
        children.into_iter().filter_map(|c| self.node_of(c)).collect()
    }
    /// The uplink that it counts on at `node`; nothing where that is away or passes nothing on.
    pub fn uplink_of(&self, node: &NodeId) -> Option<Rate> {
        let m = self.member_of(node)?;
        (m.away_since.is_none() && crate::dcm::forwards(&m.info.capabilities)).then_some(m.info.up)
    }
    /// What a member does with its grant: its children take `used`.
    pub fn use_of(&self, _node: &NodeId, used: Rate, priority: Priority) -> Use {
        Use { wants: true, used: Some(used), priority, live: true }
    }

    /// A node joins, or comes back with what serves it.
    pub fn join(&mut self, now: Time, info: MemberInfo, join: &Join) {
        let ix = match self.by_node.get(&info.node).copied() {
            Some(ix) => {
                self.back(now, ix, info);
                ix
            }
            None => self.admit(info),
        };
        self.note_class(ix);
        if let Some(m) = self.member_mut(ix) {
            (m.since, m.offers_source) = (now, join.source);
        }
        if join.parents.is_empty() {
            self.welcome(now, ix);
        }
        if self.is_settling(now) {
            // They come back together: when nobody has for a while, all are there.
            self.settle_until = self.settle_end.min(now + Micros(self.config.settle.0 / 4));
        }
        if join.source {
            self.sources.insert(ix);
        } else {
            self.sources.remove(&ix);
        }
        if !self.is_settling(now) {
            self.elect(now);
        } else if join.source && join.parents.is_empty() && self.source.is_none() {
            // Of those that come back, the one that nobody serves was the source.
            self.crown(now, Some(ix));
        }
        self.adopt(now, ix, join);
        self.dirty(now, ix);
        self.settle_in(now, ix);
        self.draw_in_opened(now);
        self.feed(now);
    }

    /// A node leaves, or is gone for good.
    pub fn leave(&mut self, now: Time, node: &NodeId) {
        let Some(ix) = self.by_node.get(node).copied() else { return };
        let orphans = self.cut_children(now, ix, |_, _| true);
        self.cut_parents(now, ix, None);
        self.not_relied_on(now, ix);
        for tree in self.all_trees() {
            self.set_spare(tree, ix, None);
        }
        self.set_helpers(ix, Vec::new());
        self.forget(ix, node);
        self.elect(now);
        self.replace(now, orphans);
        self.feed(now);
    }

    /// A node's session broke or fell silent. It may still deliver: its children stay until they complain, and it gets
    /// nothing new.
    pub fn away(&mut self, now: Time, node: &NodeId) {
        let Some(ix) = self.by_node.get(node).copied() else { return };
        if self.member(ix).is_some_and(|m| m.away_since.is_none()) {
            self.set_away(ix, Some(now));
            self.not_relied_on(now, ix);
            self.elect(now);
        }
    }

    /// One content of a heartbeat. Returns the uplink that the node's children take.
    pub fn heartbeat(&mut self, now: Time, node: &NodeId, interval: u64, said: &ContentReport) -> Rate {
        let Some(ix) = self.by_node.get(node).copied() else { return Rate(0) };
        self.return_of(now, ix);
        for e in said.from.iter().filter(|e| e.bytes > 0) {
            if let Some(parent) = self.by_node.get(&e.node).copied() {
                self.site_tried(parent, ix, true);
            }
        }
        if let Some(m) = self.member_mut(ix) {
            m.live = said.live;
        }
        self.compare(now, ix, interval, said);
        self.member(ix).map_or(Rate(0), |m| member::uplink_for(m.used, &self.terms))
    }

    /// Assignments from now on carry this epoch.
    pub fn raise_epoch(&mut self, now: Time, epoch: u64) {
        self.generation = Generation { epoch, counter: 0 };
        self.renew(now);
    }

    /// Sends all assignments again.
    pub fn renew(&mut self, now: Time) {
        for ix in self.by_node.values().copied().collect::<Vec<_>>() {
            self.dirty(now, ix);
        }
    }

    /// When [`Trees::tick`] should be called next.
    pub fn next_timeout(&self) -> Option<Time> {
        let next = self.flush_at.map_or(self.upkeep_at, |t| t.min(self.upkeep_at));
        (!self.is_empty()).then_some(next)
    }

    /// Time passes.
    pub fn tick(&mut self, now: Time) {
        if self.upkeep_at <= now {
            self.upkeep_at = now + UPKEEP;
            self.expire(now);
            if !self.is_settling(now) {
                self.arrange(now);
            }
        }
        if self.flush_at.is_some_and(|t| t <= now) {
            if !self.is_settling(now) && self.settle_end != Time(0) {
                self.settled(now);
            }
            self.flush(now);
        }
    }

    fn arrange(&mut self, now: Time) {
        self.settled(now);
        self.failed.forget(now, &self.config);
        self.feed_more(now);
        if now >= self.calm_until {
            self.improve(now);
        }
    }

    /// Whoever was to come back is there: the others get their places.
    fn settled(&mut self, now: Time) {
        if self.settle_end == Time(0) {
            return;
        }
        self.settle_end = Time(0);
        self.claims.clear();
        self.elect(now);
        if !self.place_all(now) {
            (0..self.members.len() as Ix).for_each(|ix| self.keep_homes(ix));
        }
        let hungry: Vec<(u8, Ix)> = (self.all_trees().zip(&self.trees))
            .flat_map(|(tree, t)| t.hungry.iter().map(move |ix| (tree, *ix)))
            .collect();
        self.replace(now, hungry);
    }

    /// Takes what is to be said.
    pub fn drain(&mut self, into: &mut Vec<DcmOutput>) {
        into.append(&mut self.out);
    }

    // ---- members ----

    fn forget(&mut self, ix: Ix, node: &NodeId) {
        self.take_out(ix);
        self.count_homes(ix, false);
        self.leave_groups(ix);
        if self.source == Some(ix) {
            self.source = None;
        }
        for set in [&mut self.sources, &mut self.waypoints, &mut self.aways, &mut self.doubted] {
            set.remove(&ix);
        }
        self.untold.remove(&ix);
        self.by_node.swap_remove(node);
        if let Some(slot) = self.members.get_mut(ix as usize) {
            *slot = None;
        }
        self.clear_spots(ix);
        self.vacant.push(ix);
    }

    /// Whether nodes are still coming back after a restart of the control center.
    fn is_settling(&self, now: Time) -> bool {
        now < self.settle_until
    }
    fn all_trees(&self) -> std::ops::Range<u8> {
        0..self.terms.substreams.get()
    }
    fn member(&self, ix: Ix) -> Option<&Member> {
        self.members.get(ix as usize)?.as_ref()
    }
    fn member_mut(&mut self, ix: Ix) -> Option<&mut Member> {
        self.members.get_mut(ix as usize)?.as_mut()
    }
}
