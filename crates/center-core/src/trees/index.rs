//! Who has a slot to give, who could be lower or higher, who is hungry: the sets that make decisions cheap (R2).
//!
//! All keys follow from a member's own state, so that it is taken out before that changes and put back afterwards.

use super::Trees;
use super::member::Member;
use crate::dcm::Ix;
use headwater_model::live::Substreams;
use headwater_model::node::{Accepts, SourceClass};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What members accept, those that fewest children can use first.
pub(super) const SHELVES: [Accepts; 3] = [Accepts::DialOnly, Accepts::Punchable, Accepts::Open];

/// Peers at home in a tree with a free slot: nearest to the source first, then most free.
type Homes = BTreeSet<(u32, Reverse<u32>, Ix)>;
/// Members with a free slot, most free first.
type Lenders = BTreeSet<(Reverse<u32>, Ix)>;

/// One tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    pub(super) homes: BTreeMap<Accepts, Homes>,
    /// Members with a parent: nearest to the source first, then those with fewest slots here.
    pub(super) fed: BTreeSet<(u32, u32, Ix)>,
    /// Members with children.
    pub(super) interior: BTreeSet<Ix>,
    /// Peers with children that are not at home here.
    pub(super) lent: BTreeSet<Ix>,
    /// Members that have no parent and want one.
    pub(super) hungry: BTreeSet<Ix>,
    /// The one of them that had its turn last.
    pub(super) fed_last: Ix,
    /// Slots of those at home here.
    pub(super) capacity: u64,
}

/// What belongs to no single tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Lending {
    pub(super) shelves: BTreeMap<(SourceClass, Accepts), Lenders>,
    /// Peers with uplink left over: most for each of those whom they help first.
    pub(super) helpers: BTreeMap<Accepts, BTreeSet<(Reverse<u64>, Ix)>>,
    /// What is left over of all of them, in percent of a substream's rate.
    pub(super) left_over: u64,
    /// Members by their public address.
    pub(super) sites: BTreeMap<u64, BTreeSet<Ix>>,
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

    fn enter(&mut self, ix: Ix, there: bool) {
        for tree in self.all_trees() {
            self.enter_tree(tree, ix, there);
        }
        self.enter_shelf(ix, there);
        let site = self.member(ix).and_then(|m| *m.tier_keys.first()?);
        if let Some(key) = site {
            let site = self.lending.sites.entry(key).or_default();
            put(site, ix, there);
            if site.is_empty() {
                self.lending.sites.remove(&key);
            }
        }
    }

    /// Something about a member's children in one tree changes.
    pub(super) fn change_children(&mut self, tree: u8, ix: Ix, change: impl FnOnce(&mut Member, usize)) {
        let Some(homes) = self.member(ix).map(|m| m.homes) else { return };
        // Where it is at home its free slots count.
        let trees = homes.or(Substreams::one(tree));
        self.enter_shelf(ix, false);
        trees.iter().for_each(|t| self.enter_tree(t, ix, false));
        if let Some(m) = self.member_mut(ix) {
            change(m, usize::from(tree));
        }
        trees.iter().for_each(|t| self.enter_tree(t, ix, true));
        self.enter_shelf(ix, true);
    }

    pub(super) fn enter_shelf(&mut self, ix: Ix, there: bool) {
        let is_source = self.source == Some(ix);
        let left = self.member(ix).map_or(0, |m| self.left_over(ix, m));
        let Some(m) = self.members.get(ix as usize).and_then(Option::as_ref) else { return };
        if left > 0 {
            let each = left / (m.helped.len() as u64 + 1);
            put(self.lending.helpers.entry(m.accepts()).or_default(), (Reverse(each), ix), there);
            let all = &mut self.lending.left_over;
            *all = if there { all.saturating_add(left) } else { all.saturating_sub(left) };
        }
        let free = m.free();
        if free > 0 && !is_source {
            let shelf = self.lending.shelves.entry((m.info.class(), m.accepts())).or_default();
            put(shelf, (Reverse(free), ix), there);
        }
    }

    /// The same for one tree, of which alone something changes.
    pub(super) fn enter_tree(&mut self, tree: u8, ix: Ix, there: bool) {
        let is_source = self.source == Some(ix);
        let Some(m) = self.members.get(ix as usize).and_then(Option::as_ref) else { return };
        let (Some(t), Some(spot)) = (self.trees.get_mut(usize::from(tree)), m.spots.get(usize::from(tree))) else {
            return;
        };
        let is_peer = m.info.class() == SourceClass::Peer && !is_source;
        let (home, free) = (m.homes.contains(tree), m.free());
        if is_peer && home && free > 0 {
            put(t.homes.entry(m.accepts()).or_default(), (spot.depth, Reverse(free), ix), there);
        }
        if spot.parent.is_some() {
            put(&mut t.fed, (spot.depth, m.weight(tree), ix), there);
        }
        if !spot.children.is_empty() {
            put(&mut t.interior, ix, there);
            if is_peer && !home {
                put(&mut t.lent, ix, there);
            }
        }
        if spot.parent.is_none() && is_hungry(m, is_source) {
            put(&mut t.hungry, ix, there);
        }
    }
}

/// Whether a member without a parent wants one.
pub(super) fn is_hungry(m: &Member, is_source: bool) -> bool {
    !is_source && !m.limited() && m.away_since.is_none()
}
