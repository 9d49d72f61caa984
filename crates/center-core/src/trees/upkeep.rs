//! What is put right as time passes: the source and waypoints are relieved, slots that were lent are given back, members
//! with many slots rise, spares that cannot help any more are replaced.

use super::Trees;
use super::clusters::{Cx, WORLD};
use super::place::{Where, Who, usable};
use crate::dcm::Ix;
use headwater_model::SourceClass;
use headwater_model::time::Time;
use std::cmp::Reverse;
use std::ops::Bound;

/// Edges that are moved at one time, or one for so many members; and as many again of those who rise in turn.
const MAX_MOVES: usize = 8;
/// See [`MAX_MOVES`].
const MEMBERS_PER_MOVE: usize = 100;
/// But never more: each takes time to tell, and nothing else is decided meanwhile.
const MOST_MOVES: usize = 250;
/// Children of the source or of waypoints that are looked at, of one tree at one time.
const MAX_RELIEVED: usize = 4;
/// A parent inside may be so far below the one who brings the copy in: what is below a child goes down with it.
const MOST_BELOW: u32 = 3;
/// Clusters that are looked at, at one time, or [`PART`] of all.
const MAX_DRAWN_IN: usize = 16;
/// See [`MAX_DRAWN_IN`].
const PART: usize = 20;
/// Members that are looked at, at one time, or [`SWEPT_PART`] of all.
const SWEPT: usize = 32;
/// See [`SWEPT`].
const SWEPT_PART: usize = 40;

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
        let most = (self.by_node.len() / MEMBERS_PER_MOVE).clamp(MAX_MOVES, MOST_MOVES) as u32;
        let (mut left, mut left_to_rise) = (most, most);
        let trees = self.terms.substreams.get();
        for step in 0..trees {
            let tree = ((self.turn + usize::from(step)) % usize::from(trees)) as u8;
            self.relieve(now, tree, &mut left);
            self.give_back(now, tree, &mut left);
        }
        self.draw_in(now, &mut left);
        self.raise_deepest(now, &mut left);
        self.sweep(now, &mut left_to_rise);
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
        let children = |ix: Ix| self.children(tree, ix).to_vec();
        let mut at_source = self.source.map(children).unwrap_or_default();
        at_source.sort_by_key(|ix| Reverse(self.worth(tree, *ix)));
        let at_waypoints = self.waypoints.iter().filter(|w| self.source != Some(**w)).flat_map(|w| children(*w));
        let here = |ix: &Ix| self.member(*ix).is_some_and(|m| m.away_since.is_none());
        at_source.into_iter().skip(1).chain(at_waypoints).filter(here).collect()
    }

    /// Whoever lends a slot in a tree where it is not at home gets it back when those at home have one no deeper.
    fn give_back(&mut self, now: Time, tree: u8, left: &mut u32) {
        let lent = self.trees.get(usize::from(tree)).map_or(0, |t| t.lent.len());
        for _ in 0..lent.div_ceil(PART) {
            let Some(t) = self.trees.get_mut(usize::from(tree)).filter(|_| *left > 0) else { return };
            let after = t.lent.range((Bound::Excluded(t.lent_last), Bound::Unbounded)).next();
            let Some(lender) = after.or(t.lent.first()).copied() else { return };
            t.lent_last = lender;
            let Some(child) = self.children(tree, lender).last().copied() else { continue };
            let depth = self.spot(tree, child).map_or(0, |s| s.depth);
            if self.is_away(child) {
                continue;
            }
            if let Some(parent) = self.find_home(now, tree, child, depth.saturating_sub(1)) {
                self.relink(now, tree, parent, child);
                *left -= 1;
            }
        }
    }

    /// One copy comes in to each cluster, where it has slots for its members: those beyond one that have parents outside get
    /// others inside.
    fn draw_in(&mut self, now: Time, left: &mut u32) {
        let (crowded, last) = (&self.clusters.crowded, self.clusters.crowded_last);
        let after = crowded.range((Bound::Excluded(last), Bound::Unbounded));
        let turn = MAX_DRAWN_IN.max(crowded.len() / PART);
        let turn: Vec<(Cx, u8)> = after.chain(crowded.range(..=last)).take(turn).copied().collect();
        for (cx, tree) in turn {
            self.clusters.crowded_last = (cx, tree);
            self.draw_in_to(now, (cx, tree), MAX_RELIEVED, left);
            if *left == 0 {
                return;
            }
        }
    }

    /// The same where clusters have just come to be.
    pub(super) fn draw_in_opened(&mut self, now: Time) {
        let mut unlimited = u32::MAX;
        let opened = std::mem::take(&mut self.clusters.opened);
        if self.is_settling(now) {
            // Those who come back keep the parents that serve them.
            return;
        }
        for cx in opened {
            for tree in self.all_trees() {
                self.draw_in_to(now, (cx, tree), usize::MAX, &mut unlimited);
            }
        }
    }

    fn draw_in_to(&mut self, now: Time, (cx, tree): (Cx, u8), most: usize, left: &mut u32) {
        // Nobody there is nearer to the source than who brings the copy in.
        let entry = self.clusters.part(cx, tree).and_then(|p| p.fed.first()).map_or(0, |f| f.0);
        for child in self.entries_beyond_one(cx, tree).into_iter().take(most) {
            if *left == 0 {
                return;
            }
            let chain = self.member(child).map(|m| m.chain).unwrap_or_default();
            let outermost = (0..=chain.last()).find(|position| chain.at(*position) == cx).unwrap_or_default();
            let found = self.find_peer(now, tree, child, Where::Fed, outermost);
            let is_near = |p: &Ix| self.spot(tree, *p).is_some_and(|s| s.depth < entry.saturating_add(MOST_BELOW));
            if let Some(parent) = found.filter(is_near) {
                self.relink(now, tree, parent, child);
                *left -= 1;
            }
        }
    }

    /// Those who have parents outside their cluster. The one with most slots brings the copy in.
    fn entries_beyond_one(&self, cx: Cx, tree: u8) -> Vec<Ix> {
        let entries = self.clusters.part(cx, tree).map(|p| p.entries.iter().copied()).into_iter().flatten();
        let mut entries: Vec<Ix> = entries.filter(|ix| !self.is_away(*ix)).take(self.config.max_considered).collect();
        entries.sort_by_key(|ix| Reverse(self.worth(tree, *ix)));
        entries.into_iter().skip(1).collect()
    }

    /// Who is to be next to the source, or bring a copy in: the greatest.
    fn worth(&self, tree: u8, ix: Ix) -> Option<(bool, u32, Reverse<u64>)> {
        self.member(ix).map(|m| (m.present(), m.weight(tree), Reverse(m.order)))
    }

    /// The member of each cluster that is farthest from the source gets a parent higher up, if there is one.
    fn raise_deepest(&mut self, now: Time, left: &mut u32) {
        let all = self.clusters.len().max(1);
        let turn = MAX_DRAWN_IN.max(all / PART).min(all);
        let first = self.clusters.turn;
        self.clusters.turn = (first + turn) % all;
        let in_turn = (0..turn).map(|step| ((first + step) % all) as Cx).filter(|cx| *cx != WORLD);
        for cx in [WORLD].into_iter().chain(in_turn) {
            for tree in self.all_trees() {
                let deepest = self.clusters.part(cx, tree).and_then(|p| p.fed.last()).map(|f| f.2);
                if *left > 0 && deepest.is_some_and(|ix| self.raise(now, (cx, tree), ix)) {
                    *left -= 1;
                }
            }
        }
    }

    /// A member gets a parent nearer to the source; where those there have no free slot, one that feeds a member of a
    /// smaller cluster, which can have another parent there. Whether it did.
    fn raise(&mut self, now: Time, (cx, tree): (Cx, u8), ix: Ix) -> bool {
        let depth = self.spot(tree, ix).map_or(0, |s| s.depth);
        if self.is_away(ix) {
            return false;
        }
        if self.move_up(now, tree, ix, depth) {
            return true;
        }
        let brings_in = self.member(ix).is_some_and(|m| m.chain.nearest() != cx);
        let room = if brings_in { self.room_above(now, (cx, tree), ix, depth) } else { None };
        if let Some(room) = room {
            self.make_room(now, tree, ix, room);
        }
        room.is_some()
    }

    /// A member gets a parent with a free slot that is nearer to the source, and no farther from it than the present one.
    fn move_up(&mut self, now: Time, tree: u8, ix: Ix, depth: u32) -> bool {
        let found = self.find_peer(now, tree, ix, Where::Fed, self.shared_with_parent(tree, ix));
        let is_above = |p: &Ix| self.spot(tree, *p).is_some_and(|s| s.depth.saturating_add(1) < depth);
        let parent = found.filter(is_above);
        parent.into_iter().for_each(|parent| self.relink(now, tree, parent, ix));
        parent.is_some()
    }

    /// Whether there may be a free slot nearer to the source: this costs less than to look who has one.
    fn is_home_above(&self, tree: u8, ix: Ix, depth: u32) -> bool {
        let Some(m) = self.member(ix) else { return false };
        let mut parts = self.levels(tree, ix).filter_map(|cx| self.clusters.part(cx, tree));
        parts.any(|p| usable(m.accepts()).any(|a| p.homes(a).next().is_some_and(|(d, _)| d.saturating_add(1) < depth)))
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

    /// A member gets a parent nearer to the source where one has a free slot; or it takes a place there from one with far
    /// fewer slots (R4).
    fn rise(&mut self, now: Time, ix: Ix, left: &mut u32) {
        for tree in self.all_trees() {
            let Some(depth) = self.spot(tree, ix).filter(|s| s.parent.is_some()).map(|s| s.depth) else { continue };
            if *left == 0 {
                return;
            }
            let outermost = self.shared_with_parent(tree, ix);
            if self.is_home_above(tree, ix, depth) && self.move_up(now, tree, ix, depth) {
                *left -= 1;
            } else if let Some(room) = self.higher_place(now, tree, ix, depth, outermost) {
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
