//! All places at once, where nobody has one: after a restart of the control center of which nobody says who serves whom.
//!
//! What each member gets follows from the same rules as one by one: those with most to give stand next to the source, and
//! each has a parent in the nearest of its clusters that has a slot. But free slots wait in queues, in the order in which
//! they came to be, which is that of their depth; and the sets that single decisions need are filled once, at the end. Few
//! are left without a parent: they look for one as always.

use super::Trees;
use super::clusters::{Cx, WORLD};
use super::index::{SHELVES, use_first};
use super::place::usable;
use crate::dcm::Ix;
use headwater_model::time::Time;
use std::cmp::Reverse;
use std::collections::VecDeque;

/// Of those first in a queue, so many are looked at for one that may be the parent.
const MAX_LOOKED_AT: usize = 4;
/// So many slots for each who wants one are plenty.
const PLENTY: u64 = 2;

/// A member with slots for those in one of its clusters.
#[derive(Clone, Copy)]
struct Open {
    depth: u32,
    ix: Ix,
    /// Position of that cluster among its own.
    position: usize,
}

/// Free slots of one tree.
struct Slots {
    /// By cluster, and what the members accept: nearest to the source first.
    open: Vec<[VecDeque<Open>; SHELVES.len()]>,
    /// Slots of each member that are left.
    left: Vec<u32>,
    /// Slots in each cluster beyond those that its own members need: others get no more, so that one copy comes in.
    beyond: Vec<i64>,
}

impl Trees {
    /// Gives all their places. False, and nothing is changed, where some have one; and where there are not [`PLENTY`] slots:
    /// one by one, others make room for who cannot use those that are left.
    pub(super) fn place_all(&mut self, now: Time) -> bool {
        let is_new = self.members().all(|m| m.used == 0) && self.all_trees().all(|tree| self.has_plenty(tree));
        let Some(source) = self.source.filter(|_| is_new) else { return false };
        for tree in self.all_trees() {
            let mut order = self.wanting(tree);
            let Some(first) = order.iter().position(|ix| self.source_can_feed(now, tree, *ix)) else { continue };
            let first = order.remove(first);
            let mut slots = self.slots(tree, &order);
            self.link_unlisted(now, tree, source, first);
            slots.open_to_all(self, tree, first);
            for ix in order {
                if let Some(parent) = slots.take(self, now, tree, ix) {
                    self.link_unlisted(now, tree, parent, ix);
                    slots.open_to_all(self, tree, ix);
                }
            }
        }
        self.list_all();
        for ix in self.by_node.values().copied().collect::<Vec<_>>() {
            self.dirty(now, ix);
        }
        true
    }

    fn has_plenty(&self, tree: u8) -> bool {
        let slots = self.clusters.part(WORLD, tree).map_or(0, |p| p.capacity);
        slots >= PLENTY * self.trees.get(usize::from(tree)).map_or(0, |t| t.hungry.len() as u64)
    }

    /// Who wants a parent in `tree`: those with most to give first.
    fn wanting(&self, tree: u8) -> Vec<Ix> {
        let hungry = self.trees.get(usize::from(tree)).into_iter().flat_map(|t| &t.hungry);
        let key = |ix: &Ix| self.member(*ix).map(|m| (Reverse(m.weight(tree)), *ix));
        let mut all: Vec<_> = hungry.filter_map(key).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, ix)| ix).collect()
    }

    /// What there is in `tree` for those.
    fn slots(&self, tree: u8, wanting: &[Ix]) -> Slots {
        let capacity = |cx: usize| self.clusters.part(cx as Cx, tree).map_or(0, |p| p.capacity);
        let mut beyond: Vec<i64> =
            (0..self.clusters.len()).map(|cx| i64::try_from(capacity(cx)).unwrap_or(i64::MAX)).collect();
        for cx in wanting.iter().filter_map(|ix| self.member(*ix)).flat_map(|m| m.chain.outwards(0)) {
            beyond.get_mut(cx as usize).into_iter().for_each(|b| *b -= 1);
        }
        let at_home = |ix: &Ix| {
            let m = self.member(*ix).filter(|m| m.homes.contains(tree))?;
            Some(m.free().min(m.slots.div_ceil(m.homes.len())))
        };
        let left = (0..self.members.len() as Ix).map(|ix| at_home(&ix).unwrap_or(0)).collect();
        Slots { open: (0..self.clusters.len()).map(|_| Default::default()).collect(), left, beyond }
    }
}

impl Slots {
    /// A member that has its place offers its slots where it is at home: in its clusters as far out as its parent.
    fn open_to_all(&mut self, trees: &Trees, tree: u8, ix: Ix) {
        let Some((m, spot)) = trees.member(ix).zip(trees.spot(tree, ix)) else { return };
        if self.left.get(ix as usize).is_none_or(|left| *left == 0) {
            return;
        }
        for position in usize::from(spot.shared).min(m.chain.last())..=m.chain.last() {
            let queues = self.open.get_mut(m.chain.at(position) as usize);
            let queue = queues.and_then(|q| q.get_mut(use_first(m.accepts())));
            queue.into_iter().for_each(|q| q.push_back(Open { depth: spot.depth, ix, position }));
        }
    }

    /// A slot for `child`, which is taken: in the nearest of its clusters that has one, and there nearest to the source.
    fn take(&mut self, trees: &Trees, now: Time, tree: u8, child: Ix) -> Option<Ix> {
        let c = trees.member(child)?;
        for cx in c.chain.outwards(0) {
            let mut best: Option<Open> = None;
            for accepts in usable(c.accepts()) {
                let found = self.first(trees, (cx, use_first(accepts)), |p| trees.may_feed(now, tree, p, child));
                best = found.filter(|f| best.is_none_or(|b| f.depth < b.depth)).or(best);
            }
            if let Some(open) = best {
                self.use_one(trees, open);
                return Some(open.ix);
            }
        }
        None
    }

    fn first(&mut self, trees: &Trees, (cx, shelf): (Cx, usize), may_feed: impl Fn(Ix) -> bool) -> Option<Open> {
        while let Some(open) = self.open.get(cx as usize)?.get(shelf)?.front() {
            if self.has_slot(trees, open) {
                break;
            }
            self.open.get_mut(cx as usize)?.get_mut(shelf)?.pop_front();
        }
        let queue = self.open.get(cx as usize)?.get(shelf)?;
        queue.iter().take(MAX_LOOKED_AT).find(|open| self.has_slot(trees, open) && may_feed(open.ix)).copied()
    }

    fn has_slot(&self, trees: &Trees, open: &Open) -> bool {
        self.left.get(open.ix as usize).is_some_and(|left| *left > 0)
            && inside(trees, open).all(|cx| self.beyond.get(cx as usize).is_some_and(|b| *b > 0))
    }

    fn use_one(&mut self, trees: &Trees, open: Open) {
        self.left.get_mut(open.ix as usize).into_iter().for_each(|left| *left -= 1);
        for cx in inside(trees, &open) {
            self.beyond.get_mut(cx as usize).into_iter().for_each(|b| *b -= 1);
        }
    }
}

/// The clusters of a member that those whom it offers a slot there are not in.
fn inside(trees: &Trees, open: &Open) -> impl Iterator<Item = Cx> {
    let chain = trees.member(open.ix).map(|m| m.chain).unwrap_or_default();
    chain.outwards(open.position + 1)
}
