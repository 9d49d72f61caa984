//! Who has a slot to give, who could be lower or higher, who is hungry: the sets that make decisions cheap (R2).
//!
//! All keys follow from a member's own state, so that it is taken out before that changes and put back afterwards.

use super::Trees;
use super::clusters::{Cx, levels};
use super::member::Member;
use super::spot::Spot;
use crate::dcm::Ix;
use crate::network_monitor::SequenceWatch;
use headwater_model::node::{Accepts, SourceClass};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// What members accept, those that fewest children can use first.
pub(super) const SHELVES: [Accepts; 3] = [Accepts::DialOnly, Accepts::Punchable, Accepts::Open];

/// Peers at home in a tree with a free slot: nearest to the source first, then most free (see [`bucket`]).
pub(super) type Homes = BTreeSet<(u32, Reverse<u32>, Ix)>;
/// Members with a free slot, most free first, likewise.
pub(super) type Lenders = BTreeSet<(Reverse<u32>, Ix)>;

/// One tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    /// Peers with children that are not at home here.
    pub(super) lent: BTreeSet<Ix>,
    /// The one of them that had its turn last.
    pub(super) lent_last: Ix,
    /// Where members stand, by their indices.
    pub(super) spots: Vec<Spot>,
    /// What both ends of the edges from their parents last said of them.
    pub(super) watches: Vec<SequenceWatch>,
    /// Members that have no parent and want one.
    pub(super) hungry: BTreeSet<Ix>,
    /// The one of them that had its turn last.
    pub(super) fed_last: Ix,
}

/// What a cluster has of one tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Part {
    /// In the order of [`SHELVES`].
    homes: [Homes; SHELVES.len()],
    /// Members with a parent: nearest to the source first, then those with fewest slots here.
    pub(super) fed: BTreeSet<(u32, u32, Ix)>,
    /// Members with children.
    pub(super) interior: BTreeSet<Ix>,
    /// Those whose parent is outside.
    pub(super) entries: BTreeSet<Ix>,
    /// Slots of those at home here.
    pub(super) capacity: u64,
}

impl Part {
    /// Those with a free slot that accept this.
    pub(super) fn homes(&self, accepts: Accepts) -> impl Iterator<Item = (u32, Ix)> + '_ {
        let shelf = self.homes.get(use_first(accepts));
        shelf.into_iter().flatten().map(|(depth, _, ix)| (*depth, *ix))
    }
}

/// Position among [`SHELVES`].
pub(super) fn use_first(accepts: Accepts) -> usize {
    SHELVES.iter().position(|a| *a == accepts).unwrap_or(0)
}

/// Free slots as the sets order them, by their power of two (R2: a larger set with most to spare, then the nearest of it):
/// so that few children that come or go move a parent in them. 0 where there is none.
fn bucket(free: u32) -> u32 {
    u32::BITS - free.leading_zeros()
}

fn put<T: Ord>(set: &mut BTreeSet<T>, item: T, there: bool) {
    if there {
        set.insert(item);
    } else {
        set.remove(&item);
    }
}

impl Trees {
    /// Takes a member out of all sets: its state is about to change.
    pub(super) fn take_out(&mut self, ix: Ix) {
        self.enter(ix, false);
    }
    /// Puts it where it belongs now.
    pub(super) fn put_in(&mut self, ix: Ix) {
        self.enter(ix, true);
    }

    /// Fills all sets anew.
    pub(super) fn list_all(&mut self) {
        self.clusters.empty();
        self.left_over = 0;
        for tree in self.all_trees() {
            if let Some(t) = self.trees.get_mut(usize::from(tree)) {
                t.lent.clear();
                t.hungry.clear();
            }
            for ix in 0..self.members.len() as Ix {
                self.enter_tree(tree, ix, true);
            }
        }
        for ix in 0..self.members.len() as Ix {
            self.enter_uplink(ix, true);
        }
    }

    fn enter(&mut self, ix: Ix, there: bool) {
        for tree in self.all_trees() {
            self.enter_tree(tree, ix, there);
        }
        self.enter_uplink(ix, there);
    }

    fn enter_uplink(&mut self, ix: Ix, there: bool) {
        self.enter_shelf(ix, self.member(ix).map_or(0, |m| bucket(m.free())), there);
        self.enter_helpers(ix, self.help_of(ix), there);
    }

    /// Something about a member's children in one tree changes.
    pub(super) fn change_children(&mut self, tree: u8, ix: Ix, change: impl FnOnce(&mut Member, &mut Vec<Ix>)) {
        let help = self.help_of(ix);
        let m = self.members.get_mut(ix as usize).and_then(Option::as_mut);
        let spot = self.trees.get_mut(usize::from(tree)).and_then(|t| t.spots.get_mut(ix as usize));
        let Some((m, spot)) = m.zip(spot) else { return };
        let before = bucket(m.free());
        let was_interior = !spot.children.is_empty();
        change(m, &mut spot.children);
        let is_interior = !spot.children.is_empty();
        let (after, homes) = (bucket(m.free()), m.homes);
        self.help_changed(ix, help);
        if before != after {
            // Where it is at home its free slots count.
            for tree in homes.iter() {
                self.enter_homes(tree, ix, before, false);
                self.enter_homes(tree, ix, after, true);
            }
            self.enter_shelf(ix, before, false);
            self.enter_shelf(ix, after, true);
        }
        if was_interior != is_interior {
            self.enter_interior(tree, ix, is_interior);
        }
    }

    /// What a member has left over, and its place among those who help.
    pub(super) fn help_of(&self, ix: Ix) -> (u64, u32) {
        let Some(m) = self.member(ix) else { return (0, 0) };
        let left = self.left_over(ix, m);
        let each = left / (m.helped.len() as u64 + 1);
        (left, bucket(u32::try_from(each).unwrap_or(u32::MAX)))
    }

    /// It was another one before.
    pub(super) fn help_changed(&mut self, ix: Ix, before: (u64, u32)) {
        let after = self.help_of(ix);
        if before.1 == after.1 {
            self.left_over = self.left_over.saturating_sub(before.0).saturating_add(after.0);
        } else {
            self.enter_helpers(ix, before, false);
            self.enter_helpers(ix, after, true);
        }
    }

    fn enter_helpers(&mut self, ix: Ix, (left, bucket): (u64, u32), there: bool) {
        let Some((accepts, chain)) = self.member(ix).map(|m| (m.accepts(), m.chain)) else { return };
        for cluster in chain.outwards(0).filter(|_| bucket > 0) {
            if let Some(cluster) = self.clusters.get_mut(cluster) {
                put(cluster.helpers.entry(accepts).or_default(), (Reverse(bucket), ix), there);
            }
        }
        let all = &mut self.left_over;
        *all = if there { all.saturating_add(left) } else { all.saturating_sub(left) };
    }

    fn enter_shelf(&mut self, ix: Ix, bucket: u32, there: bool) {
        let is_source = self.source == Some(ix);
        let Some(m) = self.member(ix).filter(|_| bucket > 0 && !is_source) else { return };
        let (shelf, chain) = ((m.info.class(), m.accepts()), m.chain);
        for cluster in chain.outwards(0) {
            if let Some(cluster) = self.clusters.get_mut(cluster) {
                put(cluster.shelves.entry(shelf).or_default(), (Reverse(bucket), ix), there);
            }
        }
    }

    fn enter_homes(&mut self, tree: u8, ix: Ix, bucket: u32, there: bool) {
        let is_source = self.source == Some(ix);
        let Some(m) = self.member(ix).filter(|m| bucket > 0 && m.homes.contains(tree) && !is_source) else { return };
        let Some(spot) = self.spot(tree, ix) else { return };
        if m.info.class() != SourceClass::Peer {
            return;
        }
        let shelf = use_first(m.accepts());
        let depth = spot.depth;
        for cluster in levels(m, spot) {
            let part = self.clusters.part_mut(cluster, tree);
            if let Some(homes) = part.and_then(|p| p.homes.get_mut(shelf)) {
                put(homes, (depth, Reverse(bucket), ix), there);
            }
        }
    }

    fn enter_interior(&mut self, tree: u8, ix: Ix, there: bool) {
        let is_source = self.source == Some(ix);
        let Some((m, spot)) = self.member(ix).zip(self.spot(tree, ix)) else { return };
        let there = there && !spot.children.is_empty();
        let is_lent = m.info.class() == SourceClass::Peer && !is_source && !m.homes.contains(tree);
        for cluster in levels(m, spot) {
            if let Some(part) = self.clusters.part_mut(cluster, tree) {
                put(&mut part.interior, ix, there);
            }
        }
        if let Some(t) = self.trees.get_mut(usize::from(tree)) {
            put(&mut t.lent, ix, there && is_lent);
        }
    }

    /// The same for one tree, of which alone something changes.
    pub(super) fn enter_tree(&mut self, tree: u8, ix: Ix, there: bool) {
        let is_source = self.source == Some(ix);
        let Some((m, spot)) = self.member(ix).zip(self.spot(tree, ix)) else { return };
        let (interior, free) = (!spot.children.is_empty(), bucket(m.free()));
        if spot.parent.is_some() {
            let (fed, levels) = ((spot.depth, m.weight(tree), ix), levels(m, spot));
            let inside = m.chain.last().saturating_sub(usize::from(spot.shared));
            for (n, cluster) in levels.enumerate() {
                if let Some(part) = self.clusters.part_mut(cluster, tree) {
                    put(&mut part.fed, fed, there);
                }
                if n < inside {
                    self.enter_entries(cluster, tree, ix, there);
                }
            }
        } else if is_hungry(m, is_source)
            && let Some(t) = self.trees.get_mut(usize::from(tree))
        {
            put(&mut t.hungry, ix, there);
        }
        self.enter_homes(tree, ix, free, there);
        if interior {
            self.enter_interior(tree, ix, there);
        }
    }

    fn enter_entries(&mut self, cluster: Cx, tree: u8, ix: Ix, there: bool) {
        let Some(part) = self.clusters.part_mut(cluster, tree) else { return };
        put(&mut part.entries, ix, there);
        let is_crowded = part.entries.len() > 1;
        put(&mut self.clusters.crowded, (cluster, tree), is_crowded);
    }
}

/// Whether a member without a parent wants one.
pub(super) fn is_hungry(m: &Member, is_source: bool) -> bool {
    !is_source && !m.limited() && m.away_since.is_none()
}
