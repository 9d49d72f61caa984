//! Members get their places.

use super::Trees;
use super::clusters::WORLD;
use super::member::Member;
use super::place::{Room, Who};
use crate::dcm::Ix;
use crate::trust::Standing;
use headwater_model::time::Time;
use std::cmp::Reverse;
use std::ops::Bound;

/// Members that a newcomer displaces at most.
const MAX_DISPLACED: u32 = 4;
/// Hungry members of one tree that are looked at when something changed.
const FED_AT_ONCE: usize = 8;
/// Hungry members of one tree that are looked at from time to time.
const FED_PER_TICK: usize = 64;
/// After so many in a row of whom nobody found anything the others of the tree wait: slots are left that few can use.
const MAX_FAILURES: u32 = 4;

impl Trees {
    /// A newcomer gets all its places: first where its own children will be.
    pub(super) fn settle_in(&mut self, now: Time, ix: Ix) {
        let Some(homes) = self.member(ix).map(|m| m.homes) else { return };
        let mut displaced = 0;
        for tree in self.all_trees().filter(|t| homes.contains(*t)) {
            displaced += u32::from(displaced < MAX_DISPLACED && self.insert(now, tree, ix));
        }
        for tree in self.all_trees() {
            self.place(now, tree, ix);
        }
    }

    /// A member without a parent in a tree where it is at home takes the place of a lesser one, if that is higher up than
    /// what it gets otherwise. Whether it did.
    fn insert(&mut self, now: Time, tree: u8, ix: Ix) -> bool {
        if !self.wants_parent(now, tree, ix) {
            return false;
        }
        let found = self.find(now, tree, ix, Who::Anyone);
        let depth = found.and_then(|p| self.spot(tree, p)).map_or(u32::MAX, |s| s.depth.saturating_add(1));
        let outermost = found.map_or(0, |parent| self.shared(parent, ix));
        let room = self.higher_place(now, tree, ix, depth, outermost);
        if let Some(room) = room {
            self.make_room(now, tree, ix, room);
        } else if let Some(parent) = found.filter(|_| !self.source_is_idle(tree)) {
            self.link(now, tree, parent, ix);
        }
        room.is_some()
    }

    /// Looks for a parent; the member is hungry where there is none.
    pub(super) fn place(&mut self, now: Time, tree: u8, ix: Ix) -> bool {
        if !self.wants_parent(now, tree, ix) {
            return false;
        }
        if !self.has_slots() && !self.source_is_idle(tree) {
            return false;
        }
        let evicted = self.evict_for(now, tree, ix);
        let found = self.find(now, tree, ix, Who::Anyone);
        if let Some(parent) = found {
            self.link(now, tree, parent, ix);
        } else if self.source_is_idle(tree)
            && let Some(heir) = self.heir(now, tree, ix)
            && let Some(source) = self.source
        {
            self.relink(now, tree, source, heir);
            if let Some(parent) = self.find(now, tree, ix, Who::Anyone) {
                self.link(now, tree, parent, ix);
            }
        } else if !self.stays_pulled(tree, ix)
            && let Some(room) = self.room_for(now, tree, ix, Who::Anyone)
        {
            self.make_room(now, tree, ix, room);
        }
        if let Some((tree, evicted)) = evicted {
            self.place(now, tree, evicted);
        }
        self.parent(tree, ix).is_some()
    }

    /// A tree that has nothing from the source goes before a second child in another one.
    fn evict_for(&mut self, now: Time, tree: u8, ix: Ix) -> Option<(u8, Ix)> {
        let source = self.source.filter(|s| self.source_is_idle(tree) && self.may_feed(now, tree, *s, ix))?;
        let s = self.member(source)?;
        // Only what is full has one more when one goes, and only who is here makes that tree a fed one.
        let full = s.present() && s.info.standing == Standing::Good && s.slots > 0 && s.slots == s.used;
        if !full || !self.member(ix).is_some_and(Member::present) {
            return None;
        }
        let most = self.all_trees().max_by_key(|t| self.children(*t, source).len())?;
        let children = self.children(most, source);
        let here = |c: &&Ix| self.member(**c).is_some_and(Member::present);
        let stays = |c: &Ix| children.iter().filter(here).any(|other| other != c);
        let evicted = children.iter().copied().rev().find(stays)?;
        self.unlink(now, most, evicted);
        Some((most, evicted))
    }

    pub(super) fn make_room(&mut self, now: Time, tree: u8, ix: Ix, room: Room) {
        self.unlink(now, tree, ix);
        self.unlink(now, tree, room.displaced);
        self.link(now, tree, room.parent, ix);
        self.link(now, tree, room.to, room.displaced);
    }

    fn wants_parent(&self, now: Time, tree: u8, ix: Ix) -> bool {
        let hungry = self.trees.get(usize::from(tree)).is_some_and(|t| t.hungry.contains(&ix));
        hungry && !self.is_settling(now)
    }

    /// Members that lost their parents get others: those first that have most to give, as they get the best places.
    pub(super) fn replace(&mut self, now: Time, mut orphans: Vec<(u8, Ix)>) {
        let gives = |tree: u8, ix: Ix| self.member(ix).map(|m: &Member| (m.weight(tree), m.free()));
        orphans.sort_by_key(|(tree, ix)| (*tree, Reverse(gives(*tree, *ix)), *ix));
        // One of each tree first, so that what the source has goes round.
        let first_of = |n: usize| n == 0 || orphans.get(n - 1).map(|o| o.0) != orphans.get(n).map(|o| o.0);
        let (first, rest): (Vec<_>, Vec<_>) = (0..orphans.len()).partition(|n| first_of(*n));
        for (tree, ix) in first.into_iter().chain(rest).filter_map(|n| orphans.get(n).copied()) {
            self.place(now, tree, ix);
        }
    }

    /// Something may be free now: hungry members get it.
    pub(super) fn feed(&mut self, now: Time) {
        if self.is_settling(now) || !self.has_slots() {
            return;
        }
        for tree in self.all_trees() {
            let mut failures = 0;
            for ix in self.hungry_in_turn(tree, FED_AT_ONCE) {
                self.had_its_turn(tree, ix);
                match self.find(now, tree, ix, Who::Anyone) {
                    Some(parent) => self.link(now, tree, parent, ix),
                    None => failures += 1,
                }
                if failures >= MAX_FAILURES {
                    break;
                }
            }
        }
    }

    /// As [`Trees::feed`], of more of them, and others make room for them.
    pub(super) fn feed_more(&mut self, now: Time) {
        for tree in self.all_trees() {
            let mut failures = 0;
            for ix in self.hungry_in_turn(tree, FED_PER_TICK) {
                self.had_its_turn(tree, ix);
                failures += u32::from(!self.place(now, tree, ix));
                if failures >= MAX_FAILURES {
                    break;
                }
            }
        }
    }

    /// Whether anybody has a free slot.
    fn has_slots(&self) -> bool {
        let lent = self.clusters.get(WORLD).is_some_and(|c| c.shelves.values().any(|s| !s.is_empty()));
        lent || self.source.and_then(|s| self.member(s)).is_some_and(|m| m.free() > 0)
    }

    fn had_its_turn(&mut self, tree: u8, ix: Ix) {
        if let Some(t) = self.trees.get_mut(usize::from(tree)) {
            t.fed_last = ix;
        }
    }

    /// Some that are hungry in `tree`, each in its turn.
    fn hungry_in_turn(&self, tree: u8, most: usize) -> Vec<Ix> {
        let Some(t) = self.trees.get(usize::from(tree)) else { return Vec::new() };
        let after = t.hungry.range((Bound::Excluded(t.fed_last), Bound::Unbounded));
        after.chain(t.hungry.range(..=t.fed_last)).take(most).copied().collect()
    }
}
