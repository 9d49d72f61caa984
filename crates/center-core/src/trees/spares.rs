//! Spares: whom a child goes to at once when a parent fails, tree by tree.

use super::Trees;
use super::clusters::Cx;
use super::index::SHELVES;
use crate::dcm::Ix;
use headwater_model::rng::mix64;
use headwater_model::time::Time;

/// Members with children that are looked at for one spare.
const MAX_INTERIOR: usize = 4;
/// Of each kind that has free slots, so many.
const MAX_HOMES: usize = 1;

impl Trees {
    /// Spares that cannot help any more are replaced: those of members whose parents changed, or `all`. Whether anything
    /// changed.
    pub(super) fn freshen_spares(&mut self, now: Time, ix: Ix, all: bool) -> bool {
        let in_trees = self.member(ix).is_some_and(|m| !m.limited()) && self.source != Some(ix);
        let is_helped = self.member(ix).is_some_and(|m| !m.helpers.is_empty());
        let mut changed = false;
        for tree in self.all_trees() {
            // What helpers bring no spare need push.
            let in_trees = in_trees && !(is_helped && self.parent(tree, ix).is_none());
            let Some((old, fits)) = self.spot(tree, ix).map(|s| (s.spare, s.spare_fits)) else { continue };
            if fits && in_trees && !all {
                continue;
            }
            if !(in_trees && old.is_some_and(|s| self.can_help(now, tree, ix, s))) {
                let new = if in_trees { self.choose_spare(now, tree, ix) } else { None };
                changed |= new != old;
                self.set_spare(tree, ix, new);
            }
            if let Some(spot) = self.spot_mut(tree, ix) {
                spot.spare_fits = true;
            }
        }
        changed
    }

    /// Something failed at a member: its spares are looked at before it is told of them again.
    pub(super) fn doubt_spares(&mut self, ix: Ix) {
        for tree in self.all_trees() {
            if let Some(spot) = self.spot_mut(tree, ix) {
                spot.spare_fits = false;
            }
        }
    }

    /// Whether `spare` can go on when the child's parent fails. Nobody is beyond the source: its other children are.
    pub(super) fn can_help(&self, now: Time, tree: u8, child: Ix, spare: Ix) -> bool {
        let parent = self.parent(tree, child);
        let falls_with = parent.filter(|p| self.source != Some(*p));
        parent != Some(spare)
            && self.member(spare).is_some_and(|m| m.slots > 0)
            && self.may_feed(now, tree, spare, child)
            && !self.is_below_any(tree, spare, [Some(child), falls_with])
    }

    fn choose_spare(&self, now: Time, tree: u8, child: Ix) -> Option<Ix> {
        let fits = |ix: &Ix| self.can_help(now, tree, child, *ix);
        self.grandparent_of_first(tree, child)
            .filter(fits)
            .or_else(|| self.member(child)?.chain.outwards(0).find_map(|cx| self.least_burdened(tree, child, cx, fits)))
            .or(self.source.filter(fits))
    }

    /// One child of each parent, the one that has it longest, goes to the grandparent: it has a slot when the parent fails.
    fn grandparent_of_first(&self, tree: u8, child: Ix) -> Option<Ix> {
        let parent = self.parent(tree, child)?;
        let first = self.children(tree, parent).first();
        self.parent(tree, parent).filter(|_| first == Some(&child))
    }

    /// Of some that pass the substream on, or could: with a free slot if possible, a spare of few others.
    fn least_burdened(&self, tree: u8, child: Ix, cx: Cx, fits: impl Fn(&Ix) -> bool) -> Option<Ix> {
        let part = self.clusters.part(cx, tree)?;
        let seed = self.member(child)?.info.node.prefix64();
        let turn = (mix64(seed ^ u64::from(tree)) % self.members.len().max(1) as u64) as Ix;
        let interior = part.interior.range(turn..).chain(part.interior.range(..turn)).take(MAX_INTERIOR).copied();
        let free = SHELVES.into_iter().flat_map(|a| part.homes(a).take(MAX_HOMES)).map(|(_, ix)| ix);
        let mut candidates: Vec<Ix> = interior.chain(free).filter(|ix| self.source != Some(*ix)).collect();
        candidates.sort_by_cached_key(|ix| self.member(*ix).map(|m| (m.free() == 0, m.spare_for.len(), *ix)));
        candidates.into_iter().find(fits)
    }

    pub(super) fn set_spare(&mut self, tree: u8, child: Ix, spare: Option<Ix>) {
        let Some(spot) = self.spot_mut(tree, child) else { return };
        let old = std::mem::replace(&mut spot.spare, spare);
        spot.spare_fits = false;
        if let Some(m) = old.and_then(|s| self.member_mut(s)) {
            m.spare_for.remove(&(child, tree));
        }
        if let Some(m) = spare.and_then(|s| self.member_mut(s)) {
            m.spare_for.insert((child, tree));
        }
    }

    /// Those who would go to `ix`, or whom it helps, learn whom to go to instead.
    pub(super) fn not_relied_on(&mut self, now: Time, ix: Ix) {
        self.help_no_more(now, ix);
        let for_whom: Vec<(Ix, u8)> =
            self.member(ix).map(|m| m.spare_for.iter().copied().collect()).unwrap_or_default();
        for (child, tree) in for_whom {
            self.set_spare(tree, child, None);
            self.dirty(now, child);
        }
    }
}
