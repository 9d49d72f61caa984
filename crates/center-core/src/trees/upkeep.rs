//! What is put right as time passes: the source and waypoints are relieved, slots that were lent are given back, members
//! with many slots rise, spares that cannot help any more are replaced.

use super::Trees;
use super::place::Who;
use crate::dcm::Ix;
use headwater_model::SourceClass;
use headwater_model::time::Time;
use std::cmp::Reverse;
use std::ops::Bound;

/// Edges that are moved at one time, or one for so many members.
const MAX_MOVES: usize = 8;
/// See [`MAX_MOVES`].
const MEMBERS_PER_MOVE: usize = 100;
/// Children of the source or of waypoints that are looked at, of one tree at one time.
const MAX_RELIEVED: usize = 4;
/// Members that are looked at, at one time, or this part of all.
const SWEPT: usize = 32;
/// See [`SWEPT`].
const SWEPT_PART: usize = 20;

impl Trees {
    /// Members whose time is over, or whose bad time is.
    pub(super) fn expire(&mut self, now: Time) {
        let grace = self.config.grace;
        let is_gone =
            |ix: &&Ix| self.member(**ix).and_then(|m| m.away_since).is_some_and(|since| now.since(since) > grace);
        let gone: Vec<_> = self.aways.iter().filter(is_gone).filter_map(|ix| self.node_of(*ix)).collect();
        gone.iter().for_each(|node| self.leave(now, node));
        let is_over = |ix: &&Ix| self.member(**ix).is_none_or(|m| m.doubt_ends(now));
        for ix in self.doubted.iter().filter(is_over).copied().collect::<Vec<_>>() {
            self.believe_again(now, ix);
        }
    }

    fn believe_again(&mut self, now: Time, ix: Ix) {
        self.take_out(ix);
        let mut doubted = false;
        if let Some(m) = self.member_mut(ix) {
            m.deserted_until = m.deserted_until.filter(|until| *until > now);
            m.doubt = m.doubt.filter(|(_, until)| *until > now);
            doubted = m.deserted_until.is_some() || m.doubt.is_some();
        }
        self.put_in(ix);
        let surplus = self.reslot(now, ix);
        self.replace(now, surplus);
        if !doubted {
            self.doubted.remove(&ix);
        }
    }

    /// Some of what could be better.
    pub(super) fn improve(&mut self, now: Time) {
        self.turn = self.turn.wrapping_add(1);
        let mut left = MAX_MOVES.max(self.by_node.len() / MEMBERS_PER_MOVE) as u32;
        let trees = self.terms.substreams.get();
        for step in 0..trees {
            let tree = ((self.turn + usize::from(step)) % usize::from(trees)) as u8;
            self.relieve(now, tree, &mut left);
            self.give_back(now, tree, &mut left);
            self.raise_deepest(now, tree, &mut left);
        }
        self.sweep(now, &mut left);
    }

    /// Children of waypoints, and of the source beyond one, go to peers that have slots.
    fn relieve(&mut self, now: Time, tree: u8, left: &mut u32) {
        let surplus = self.surplus(tree);
        let skipped = if surplus.len() > MAX_RELIEVED { (self.turn * MAX_RELIEVED) % surplus.len() } else { 0 };
        for child in surplus.into_iter().skip(skipped).take(MAX_RELIEVED) {
            if *left == 0 {
                return;
            }
            if let Some(parent) = self.find(now, tree, child, Who::Peers) {
                self.relink(now, tree, parent, child);
            } else if let Some(room) = self.room_for(now, tree, child, Who::Peers) {
                self.make_room(now, tree, child, room);
            } else if !self.leave_to_helpers(now, tree, child) && !self.swap_with_leaf(now, tree, child) {
                continue;
            }
            *left -= 1;
        }
    }

    /// Children that the operator's nodes and the source need not feed. The one with most slots stays with the source.
    fn surplus(&self, tree: u8) -> Vec<Ix> {
        let children = |ix: Ix| self.spot(tree, ix).map(|s| s.children.clone()).unwrap_or_default();
        let mut at_source = self.source.map(children).unwrap_or_default();
        let worth = |ix: &Ix| self.member(*ix).map(|m| (m.present(), m.weight(tree), Reverse(m.order)));
        at_source.sort_by_key(|ix| Reverse(worth(ix)));
        let at_waypoints = self.waypoints.iter().filter(|w| self.source != Some(**w)).flat_map(|w| children(*w));
        let here = |ix: &Ix| self.member(*ix).is_some_and(|m| m.away_since.is_none());
        at_source.into_iter().skip(1).chain(at_waypoints).filter(here).collect()
    }

    /// Whoever lends a slot in a tree where it is not at home gets it back when those at home have one no deeper.
    fn give_back(&mut self, now: Time, tree: u8, left: &mut u32) {
        let Some(t) = self.trees.get_mut(usize::from(tree)).filter(|_| *left > 0) else { return };
        let after = t.lent.range((Bound::Excluded(t.lent_last), Bound::Unbounded)).next();
        let Some(lender) = after.or(t.lent.first()).copied() else { return };
        t.lent_last = lender;
        let Some(child) = self.spot(tree, lender).and_then(|s| s.children.last().copied()) else { return };
        let depth = self.spot(tree, child).map_or(0, |s| s.depth);
        if self.is_away(child) {
            return;
        }
        if let Some(parent) = self.find_home(now, tree, child, depth.saturating_sub(1)) {
            self.relink(now, tree, parent, child);
            *left -= 1;
        }
    }

    /// The member farthest from the source gets a parent higher up, if there is one.
    fn raise_deepest(&mut self, now: Time, tree: u8, left: &mut u32) {
        let deepest = self.trees.get(usize::from(tree)).and_then(|t| t.fed.last()).copied();
        let Some((depth, _, ix)) = deepest.filter(|_| *left > 0) else { return };
        if self.is_away(ix) {
            return;
        }
        let found = self.find(now, tree, ix, Who::Peers);
        let above = found.filter(|p| self.spot(tree, *p).is_some_and(|s| s.depth.saturating_add(1) < depth));
        if let Some(parent) = above {
            self.relink(now, tree, parent, ix);
            *left -= 1;
        }
    }

    /// Looks at some members in turn.
    fn sweep(&mut self, now: Time, left: &mut u32) {
        let all = self.members.len();
        let swept = SWEPT.max(all / SWEPT_PART);
        for step in 0..swept.min(all) {
            let ix = ((self.swept + step) % all) as Ix;
            if self.member(ix).is_none() || self.is_away(ix) {
                continue;
            }
            let helpers_changed = self.freshen_helpers(now, ix);
            if self.freshen_spares(now, ix, true) || helpers_changed {
                self.dirty(now, ix);
            }
            self.rise(now, ix, left);
        }
        self.swept = (self.swept + swept) % all.max(1);
    }

    /// A member with slots takes a place nearer to the source from one with far fewer (R4).
    fn rise(&mut self, now: Time, ix: Ix, left: &mut u32) {
        let Some(homes) = self.member(ix).map(|m| m.homes) else { return };
        for tree in self.all_trees().filter(|t| homes.contains(*t)) {
            let Some(depth) = self.spot(tree, ix).filter(|s| s.parent.is_some()).map(|s| s.depth) else { continue };
            if *left > 0
                && let Some(room) = self.higher_place(now, tree, ix, depth)
            {
                self.make_room(now, tree, ix, room);
                *left -= 1;
            }
        }
    }

    fn is_away(&self, ix: Ix) -> bool {
        self.member(ix).is_none_or(|m| m.away_since.is_some())
    }

    /// Keeps the list of waypoints.
    pub(super) fn note_class(&mut self, ix: Ix) {
        if self.member(ix).is_some_and(|m| m.info.class() == SourceClass::Waypoint) {
            self.waypoints.insert(ix);
        } else {
            self.waypoints.remove(&ix);
        }
    }
}
