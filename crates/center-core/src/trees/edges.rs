//! Edges: these are the only places that change them, on both sides at once.

use super::Trees;
use super::spot::UNROOTED;
use crate::dcm::Ix;
use crate::network_monitor::SequenceWatch;
use headwater_model::time::Time;

impl Trees {
    /// `child`, which has no parent there, gets one. Nothing happens where that would make a circle.
    pub(super) fn link(&mut self, now: Time, tree: u8, parent: Ix, child: Ix) {
        let fits = self.spot(tree, child).is_some_and(|s| s.parent.is_none()) && self.member(parent).is_some();
        if !fits || self.climb(tree, parent, child).1 {
            return;
        }
        self.change_children(tree, parent, |p, children| {
            p.used += 1;
            children.push(child);
        });
        let depth = self.spot(tree, parent).map_or(UNROOTED, |s| s.depth.saturating_add(1));
        let shared = self.shared(parent, child);
        let mut below = Vec::new();
        self.enter_tree(tree, child, false);
        if let Some(spot) = self.spot_mut(tree, child) {
            (spot.parent, spot.since) = (Some(parent), now);
            (spot.spare_fits, spot.pulled) = (false, false);
            spot.shared = u8::try_from(shared).unwrap_or(u8::MAX);
            if std::mem::replace(&mut spot.depth, depth) != depth {
                below = spot.children.clone();
            }
        }
        self.enter_tree(tree, child, true);
        if let Some(watch) = self.watch_mut(tree, child) {
            *watch = SequenceWatch::default();
        }
        // All below it is as deep as it stands now.
        below.into_iter().for_each(|c| self.set_depth(tree, c, depth.saturating_add(1)));
        self.children_changed(now, parent, child);
        self.dirty(now, child);
    }

    /// As [`Trees::link`] where nobody below `child` has a place yet: all sets are to be filled afterwards (see
    /// [`Trees::list_all`]), and what is to be said to be noted.
    pub(super) fn link_unlisted(&mut self, now: Time, tree: u8, parent: Ix, child: Ix) {
        let depth = self.spot(tree, parent).map_or(UNROOTED, |s| s.depth.saturating_add(1));
        let shared = u8::try_from(self.shared(parent, child)).unwrap_or(u8::MAX);
        self.member_mut(parent).into_iter().for_each(|p| p.used += 1);
        self.spot_mut(tree, parent).into_iter().for_each(|p| p.children.push(child));
        if let Some(spot) = self.spot_mut(tree, child) {
            (spot.parent, spot.since, spot.depth, spot.shared) = (Some(parent), now, depth, shared);
            (spot.spare_fits, spot.pulled) = (false, false);
        }
        self.watch_mut(tree, child).into_iter().for_each(|watch| *watch = SequenceWatch::default());
    }

    /// `child` has no parent there any more.
    pub(super) fn unlink(&mut self, now: Time, tree: u8, child: Ix) {
        let Some(parent) = self.parent(tree, child) else { return };
        self.enter_tree(tree, child, false);
        if let Some(spot) = self.spot_mut(tree, child) {
            (spot.parent, spot.spare_fits, spot.shared) = (None, false, u8::MAX);
        }
        self.enter_tree(tree, child, true);
        self.change_children(tree, parent, |p, children| {
            p.used = p.used.saturating_sub(1);
            children.retain(|c| *c != child);
        });
        self.children_changed(now, parent, child);
        self.dirty(now, child);
    }

    /// `child` gets another parent.
    pub(super) fn relink(&mut self, now: Time, tree: u8, parent: Ix, child: Ix) {
        self.unlink(now, tree, child);
        self.link(now, tree, parent, child);
    }

    /// Cuts the edges from `parent` that `which` (tree, child) says, or all; the children in order of the trees.
    pub(super) fn cut_children(&mut self, now: Time, parent: Ix, which: impl Fn(u8, Ix) -> bool) -> Vec<(u8, Ix)> {
        let mut cut = Vec::new();
        for tree in self.all_trees() {
            let children = self.children(tree, parent).iter().copied();
            cut.extend(children.filter(|c| which(tree, *c)).map(|c| (tree, c)));
        }
        for (tree, child) in &cut {
            self.unlink(now, *tree, *child);
        }
        cut
    }

    /// Cuts the edges to `child` from `parent`, or from everybody: in which trees.
    pub(super) fn cut_parents(&mut self, now: Time, child: Ix, parent: Option<Ix>) -> Vec<(u8, Ix)> {
        let cut: Vec<(u8, Ix)> = self
            .all_trees()
            .filter(|tree| self.parent(*tree, child).is_some_and(|p| parent.is_none_or(|only| only == p)))
            .map(|tree| (tree, child))
            .collect();
        for (tree, _) in &cut {
            self.unlink(now, *tree, child);
        }
        cut
    }

    /// A member is the source now: all below it is as deep as it stands there.
    pub(super) fn root_all(&mut self, source: Ix) {
        for tree in self.all_trees() {
            self.set_depth(tree, source, 0);
        }
    }

    fn set_depth(&mut self, tree: u8, top: Ix, depth: u32) {
        let mut next = vec![(top, depth)];
        while let Some((ix, depth)) = next.pop() {
            if self.spot(tree, ix).is_none_or(|s| s.depth == depth) {
                continue;
            }
            self.enter_tree(tree, ix, false);
            if let Some(spot) = self.spot_mut(tree, ix) {
                spot.depth = depth;
                next.extend(spot.children.iter().map(|c| (*c, depth.saturating_add(1))));
            }
            self.enter_tree(tree, ix, true);
        }
    }

    /// Whether one of `others` is `ix` or above it.
    pub(super) fn is_below_any(&self, tree: u8, ix: Ix, others: [Option<Ix>; 2]) -> bool {
        let mut at = Some(ix);
        // Never more steps than there are members, whatever went wrong.
        for _ in 0..=self.by_node.len() {
            match at {
                Some(here) if others.contains(&Some(here)) => return true,
                Some(here) => at = self.parent(tree, here),
                None => break,
            }
        }
        false
    }

    /// The last member above `ix`, and whether `other` is `ix` or above it.
    pub(super) fn climb(&self, tree: u8, ix: Ix, other: Ix) -> (Ix, bool) {
        let (mut at, mut meets) = (ix, ix == other);
        // Never more steps than there are members, whatever went wrong.
        for _ in 0..self.by_node.len() {
            let Some(parent) = self.parent(tree, at) else { break };
            at = parent;
            meets |= at == other;
        }
        (at, meets)
    }
}
