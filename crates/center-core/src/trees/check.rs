//! Invariants of the trees as code, and their numbers for people.

use super::Trees;
use super::clusters::{Cluster, WORLD};
use super::index::is_hungry;
use super::member::Member;
use super::spot::Spot;
use crate::dcm::{Ix, Problem};
use crate::trust::Standing;
use headwater_model::id::NodeId;
use headwater_model::live::Substreams;
use headwater_model::time::Time;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Numbers of a stream's trees.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TreesStats {
    /// Members, the source among them.
    pub members: usize,
    /// Edges in all trees together.
    pub edges: usize,
    /// Slots of the source in use; one per tree is the least.
    pub source_slots_used: u32,
    /// Places without a parent, whose members read that substream from the origin.
    pub unfed: usize,
    /// Edges from the source to the member that is farthest from it in any tree.
    pub max_depth: u32,
    /// The mean of all places below the source.
    pub mean_depth: f64,
    /// Clusters that are smaller than all members together.
    pub clusters: usize,
    /// Copies that come in to each of them, on average.
    pub copies_in: f64,
    /// Clusters that came to be so far.
    pub splits: u64,
    /// Clusters that are no more.
    pub merges: u64,
}

impl Trees {
    /// Numbers for people; takes time in proportion to the members.
    pub fn stats(&self) -> TreesStats {
        let mut s = TreesStats {
            members: self.by_node.len(),
            source_slots_used: self.source.and_then(|s| self.member(s)).map_or(0, |m| m.used),
            splits: self.clusters.splits,
            merges: self.clusters.merges,
            ..TreesStats::default()
        };
        let (mut sum, mut rooted) = (0u64, 0u64);
        for (tree, t) in self.all_trees().zip(&self.trees) {
            s.unfed += t.hungry.len();
            for ix in 0..self.members.len() as Ix {
                let Some(depth) = self.spot(tree, ix).filter(|s| s.parent.is_some()).map(|s| s.depth) else { continue };
                s.edges += 1;
                if self.source == Some(self.climb(tree, ix, ix).0) {
                    (sum, rooted) = (sum + u64::from(depth), rooted + 1);
                    s.max_depth = s.max_depth.max(depth);
                }
            }
        }
        s.mean_depth = sum as f64 / rooted.max(1) as f64;
        let entries = |c: &Cluster| c.parts.iter().map(|p| p.entries.len()).sum::<usize>();
        let inner = self.clusters.iter().filter(|(cx, _)| *cx != WORLD);
        let (clusters, entries) = inner.fold((0, 0), |(n, sum), (_, c)| (n + 1, sum + entries(c)));
        (s.clusters, s.copies_in) = (clusters, entries as f64 / (clusters * self.trees.len()).max(1) as f64);
        s
    }

    /// Members through which substreams come in to their nearest cluster, from outside of it: those that bring most first.
    /// Takes time in proportion to them.
    pub fn entries(&self) -> Vec<(NodeId, Substreams)> {
        let mut by_member: BTreeMap<Ix, Substreams> = BTreeMap::new();
        for (cx, c) in self.clusters.iter().filter(|(cx, _)| *cx != WORLD) {
            for (tree, part) in self.all_trees().zip(&c.parts) {
                let nearest = |ix: &&Ix| self.member(**ix).is_some_and(|m| m.chain.nearest() == cx);
                part.entries.iter().filter(nearest).for_each(|ix| by_member.entry(*ix).or_default().insert(tree));
            }
        }
        let mut all: Vec<_> = by_member.into_iter().filter_map(|(ix, s)| Some((self.node_of(ix)?, s))).collect();
        all.sort_by_key(|(_, substreams)| Reverse(substreams.len()));
        all
    }

    /// All violated invariants; empty when the state is sound.
    pub fn check(&self, now: Time) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut say = |p: String| problems.push(p);
        for (ix, m) in self.members.iter().enumerate() {
            let ix = ix as Ix;
            let Some(m) = m else {
                if self.spots(ix).any(|(_, s)| *s != Spot::default()) {
                    say(format!("nobody is at {ix}, and has a place"));
                }
                continue;
            };
            self.check_member(now, ix, m, &mut say);
            self.check_help(ix, m, &mut say);
            for tree in self.all_trees() {
                self.check_spot(tree, ix, m, &mut say);
            }
        }
        if self.by_node.len() != self.members.iter().flatten().count() {
            say("members and ids differ".into());
        }
        self.check_index(&mut say);
        problems
    }

    fn check_member(&self, now: Time, ix: Ix, m: &Member, say: &mut impl FnMut(Problem)) {
        let node = m.info.node;
        if self.by_node.get(&node) != Some(&ix) {
            say(format!("{node:?} is not found by its id"));
        }
        let used: usize = self.spots(ix).map(|(_, s)| s.children.len()).sum();
        if used != m.used as usize {
            say(format!("{node:?} has {used} children and counts {}", m.used));
        }
        if m.reachability != m.info.reachability() {
            say(format!("{node:?} can be reached in another way than is thought"));
        }
        if m.used > m.slots && m.away_since.is_none() {
            say(format!("{node:?} has {} slots and uses {}", m.slots, m.used));
        }
        if m.info.standing == Standing::Banned && m.used > 0 {
            say(format!("{node:?} is banned and has children"));
        }
        if m.away_since.is_some_and(|t| now.since(t).0 > self.config.grace.0 + 2_000_000) {
            say(format!("{node:?} is away for too long"));
        }
        if m.away_since.is_some() != self.aways.contains(&ix) {
            say(format!("{node:?} is away since {:?}, which the list says otherwise", m.away_since));
        }
        if (m.doubt.is_some() || m.deserted_until.is_some()) && !self.doubted.contains(&ix) {
            say(format!("{node:?} would be doubted for ever"));
        }
        if m.offers_source != self.sources.contains(&ix) {
            say(format!("{node:?} offers to be the source, which the list says otherwise"));
        }
        let named: usize =
            m.spare_for.iter().filter(|(c, t)| self.spot(*t, *c).and_then(|s| s.spare) == Some(ix)).count();
        if named != m.spare_for.len() {
            say(format!("{node:?} is a spare of some that do not know"));
        }
    }

    fn check_help(&self, ix: Ix, m: &Member, say: &mut impl FnMut(Problem)) {
        let node = m.info.node;
        if m.helpers.iter().any(|h| *h == ix || self.member(*h).is_none_or(|h| !h.helped.contains(&ix))) {
            say(format!("{node:?} has a helper that does not know"));
        }
        if m.helped.iter().any(|c| self.member(*c).is_none_or(|c| !c.helpers.contains(&ix))) {
            say(format!("{node:?} helps some that do not know"));
        }
    }

    fn check_spot(&self, tree: u8, ix: Ix, m: &Member, say: &mut impl FnMut(Problem)) {
        let node = m.info.node;
        let Some(spot) = self.spot(tree, ix) else { return say(format!("{node:?} has no place in tree {tree}")) };
        for child in &spot.children {
            if self.parent(tree, *child) != Some(ix) {
                say(format!("{node:?} has a child in tree {tree} that does not know"));
            }
        }
        let no_tree = self.source == Some(ix) || m.limited();
        if no_tree && spot.parent.is_some() {
            say(format!("{node:?} has a parent in tree {tree} and is the source, or limited"));
        }
        if spot.spare.is_some_and(|s| self.member(s).is_none_or(|s| !s.spare_for.contains(&(ix, tree)))) {
            say(format!("{node:?} has a spare in tree {tree} that does not know"));
        }
        let hungry = self.trees.get(usize::from(tree)).is_some_and(|t| t.hungry.contains(&ix));
        if hungry != (spot.parent.is_none() && is_hungry(m, self.source == Some(ix))) {
            say(format!("{node:?} has no parent in tree {tree} and nobody looks for one, or has one"));
        }
        let Some(parent) = spot.parent else { return };
        let Some(p) = self.member(parent) else { return say(format!("{node:?} has a parent that left")) };
        let siblings = self.children(tree, parent);
        if siblings.iter().filter(|c| **c == ix).count() != 1 {
            say(format!("{node:?} is not once a child of its parent {:?} in tree {tree}", p.info.node));
        }
        if !m.info.reachability().compatible(&p.info.reachability()) {
            say(format!("{node:?} and {:?} cannot reach each other", p.info.node));
        }
        if self.spot(tree, parent).is_none_or(|s| s.depth.saturating_add(1) != spot.depth) {
            say(format!("{node:?} is not one deeper than its parent in tree {tree}"));
        }
        if usize::from(spot.shared) != self.shared(parent, ix) {
            say(format!("{node:?} shares another cluster with its parent in tree {tree}"));
        }
        let (root, _) = self.climb(tree, ix, ix);
        if self.parent(tree, root).is_some() {
            say(format!("{node:?} is in a circle of tree {tree}"));
        }
    }

    /// The sets are what they would be if they were made anew.
    fn check_index(&self, say: &mut impl FnMut(Problem)) {
        let mut anew = self.clone();
        (0..self.members.len() as Ix).for_each(|ix| anew.count_homes(ix, false));
        anew.clusters.empty();
        anew.left_over = 0;
        for tree in &mut anew.trees {
            tree.lent.clear();
            tree.hungry.clear();
        }
        for ix in 0..self.members.len() as Ix {
            anew.put_in(ix);
            anew.count_homes(ix, true);
        }
        for (tree, (is, should)) in self.trees.iter().zip(&anew.trees).enumerate() {
            if is.lent != should.lent || is.hungry != should.hungry {
                say(format!("the sets of tree {tree} are wrong"));
            }
        }
        for ((cx, is), (_, should)) in self.clusters.iter().zip(anew.clusters.iter()) {
            for (tree, (is, should)) in is.parts.iter().zip(&should.parts).enumerate().filter(|(_, (a, b))| a != b) {
                say(format!("the part of tree {tree} that cluster {cx} has is {is:?} and should be {should:?}"));
            }
            let lenders = |c: &Cluster| c.shelves.values().flatten().copied().collect::<Vec<_>>();
            let helpers = |c: &Cluster| c.helpers.values().flatten().copied().collect::<Vec<_>>();
            if lenders(is) != lenders(should) || helpers(is) != helpers(should) {
                say(format!("the sets of those with uplink to spare in cluster {cx} are wrong"));
            }
        }
        if self.clusters.crowded != anew.clusters.crowded || self.left_over != anew.left_over {
            say("which clusters are crowded, or what is left over, is wrong".into());
        }
        self.check_clusters(say);
    }
}
