//! What children say of their parents at once, and what follows (R2, R3).

use super::Trees;
use super::member::count_words;
use crate::dcm::{DcmOutput, Ix};
use crate::network_monitor::Trouble;
use crate::trust::Offence;
use headwater_model::id::NodeId;
use headwater_model::live::Substreams;
use headwater_model::report::Alarm;
use headwater_model::time::{Micros, Time};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A parent that so many children lose within [`LOST_WITHIN`] is left by all.
const LOST_BY: usize = 2;
/// See [`LOST_BY`].
const LOST_WITHIN: Micros = Micros::from_secs(1);
/// See [`BEHIND_WITHIN`].
const BEHIND_BY: usize = 2;
/// A parent that half of its children, and two of them, say is behind, within this time, has less uplink than it said.
const BEHIND_WITHIN: Micros = Micros::from_secs(10);
/// For so long it is believed to have half of what it used.
const DOUBTED: Micros = Micros::from_secs(60);
/// For so long a child does not take a substream again from who was behind with it, or over a link that was congested.
const AVOIDED: Micros = Micros::from_secs(30);
/// A parent that got another parent itself so lately is behind for that.
const CATCHES_UP: Micros = Micros::from_secs(2);
/// A child that loses a parent so soon after that was started again may not have heard of the new process.
const STARTED_AGAIN: Micros = Micros::from_secs(1);

impl Trees {
    /// A child raises the alarm. False when it is not heard: it is no member, or raises too many.
    pub fn alarm(&mut self, now: Time, node: &NodeId, alarm: &Alarm) -> bool {
        let Some(ix) = self.by_node.get(node).copied() else { return false };
        if !self.member_mut(ix).is_some_and(|m| m.alarms.may_alarm(now)) {
            return false;
        }
        self.return_of(now, ix);
        self.doubt_spares(ix);
        match alarm {
            Alarm::ParentLost { parent, .. } => self.lost(now, ix, parent, None),
            Alarm::Silent { parent } => self.lost(now, ix, parent, Some(Offence::Silent)),
            Alarm::BadPieces { parent } => self.lost(now, ix, parent, Some(Offence::BadPieces)),
            Alarm::Behind { parent, substreams } => self.behind(now, ix, parent, *substreams),
            Alarm::Slow { parent } => self.behind(now, ix, parent, self.terms.all()),
            Alarm::Attacked { from } => self.attacked(now, ix, *from),
            // Of a file, which a stream is not.
            Alarm::Starving { .. } | Alarm::Reading { .. } => {}
        }
        self.feed(now);
        self.say_at_once(now, ix);
        true
    }

    /// A child is done with a parent. Its word counts only where that was assigned to it.
    fn lost(&mut self, now: Time, ix: Ix, parent: &NodeId, offence: Option<Offence>) {
        let Some(p) = self.by_node.get(parent).copied() else { return };
        let (Some(child), assigned) = (self.node_of(ix), self.feeds(p, ix)) else { return };
        if !assigned && !self.is_spare(p, ix) && !self.helps(p, ix) {
            return;
        }
        let restarted_at = self.member(p).and_then(|m| m.restarted_at);
        if offence != Some(Offence::BadPieces) && restarted_at.is_some_and(|at| now.since(at) < STARTED_AGAIN) {
            // It dials that one when it hears of it; should it have, the assignment says so once more.
            self.dirty(now, ix);
            return;
        }
        // All depend on the source: that it is silent is no question of trust, but of its line, or of another source.
        let is_tried = self.source != Some(p) || offence == Some(Offence::BadPieces);
        if let Some(offence) = offence.filter(|_| is_tried) {
            self.out.push(DcmOutput::Accuse(child, *parent, offence));
        }
        if offence == Some(Offence::BadPieces) {
            self.failed.spoil(now, &child, parent);
        } else {
            self.failed.fail(now, (&child, parent), if offence.is_some() { 2 } else { 1 }, false);
        }
        if offence.is_none() {
            self.site_tried(p, ix, false);
        }
        let only_child = self.count_children(p) <= 1;
        let mut orphans = self.cut_parents(now, ix, Some(p));
        let breaks = assigned && offence != Some(Offence::BadPieces) && self.source != Some(p);
        if breaks && self.is_gone(now, p, child) {
            orphans.extend(self.desert(now, p));
        }
        if assigned
            && self.source == Some(p)
            && offence != Some(Offence::BadPieces)
            && (self.is_gone(now, p, child) || only_child)
        {
            self.succeed(now);
        }
        self.dirty(now, ix);
        self.replace(now, orphans);
    }

    /// Whether a parent that a child lost is lost for the others too.
    fn is_gone(&mut self, now: Time, parent: Ix, child: NodeId) -> bool {
        self.member_mut(parent)
            .is_some_and(|m| count_words(&mut m.lost_by, now, child, LOST_WITHIN) >= LOST_BY || m.away_since.is_some())
    }

    /// All its children leave a member, and it gets none for a while.
    fn desert(&mut self, now: Time, parent: Ix) -> Vec<(u8, Ix)> {
        self.take_out(parent);
        let until = now + self.config.grace;
        if let Some(m) = self.member_mut(parent) {
            m.deserted_until = Some(until);
        }
        self.put_in(parent);
        self.doubted.insert(parent);
        self.not_relied_on(now, parent);
        self.cut_children(now, parent, |_, _| true)
    }

    /// A parent falls behind with some substreams: the child gets these from others.
    fn behind(&mut self, now: Time, ix: Ix, parent: &NodeId, substreams: Substreams) {
        let Some(p) = self.by_node.get(parent).copied() else { return };
        let given = |tree: &u8| substreams.contains(*tree) && self.parent(*tree, ix) == Some(p);
        let mut edges = Substreams::default();
        self.all_trees().filter(given).for_each(|tree| edges.insert(tree));
        let Some(child) = self.node_of(ix).filter(|_| !edges.is_empty()) else { return };
        let excused = edges.iter().all(|tree| self.catches_up(now, tree, p));
        let (used, children) = (self.member(p).map_or(0, |m| m.used), self.count_children(p));
        let mut orphans = self.take_away(now, ix, *parent, edges);
        if !excused && self.is_overrated(now, p, child, children) {
            orphans.extend(self.halve(now, p, used));
        }
        self.replace(now, orphans);
    }

    /// A child does not get these from its parent any more, nor again for a while: where it has no parent now.
    pub(super) fn take_away(&mut self, now: Time, ix: Ix, parent: NodeId, trees: Substreams) -> Vec<(u8, Ix)> {
        if let Some(m) = self.member_mut(ix) {
            m.avoid(now, parent, trees, now + AVOIDED);
        }
        trees.iter().for_each(|tree| self.unlink(now, tree, ix));
        trees.iter().map(|tree| (tree, ix)).collect()
    }

    /// Whether a member got its own parent in `tree` so lately that it cannot have more than it gives.
    fn catches_up(&self, now: Time, tree: u8, ix: Ix) -> bool {
        self.spot(tree, ix).is_some_and(|s| s.parent.is_some() && now.since(s.since) < CATCHES_UP)
    }

    /// Whether enough of a parent's children say that it is behind: it is the parent, and not their lines. One's word is not
    /// enough even where it was the only one: the next child will tell.
    fn is_overrated(&mut self, now: Time, parent: Ix, child: NodeId, children: usize) -> bool {
        let words = self.member_mut(parent).map_or(0, |m| count_words(&mut m.behind_by, now, child, BEHIND_WITHIN));
        words >= BEHIND_BY && words * 2 >= children
    }

    /// A parent of `used` slots is believed to have half of that, and loses the others.
    fn halve(&mut self, now: Time, parent: Ix, used: u32) -> Vec<(u8, Ix)> {
        // One copy leaves the source, or nobody has anything.
        let least = if self.source == Some(parent) { u32::from(self.terms.substreams.get()) } else { 0 };
        self.take_out(parent);
        if let Some(m) = self.member_mut(parent) {
            let before = m.doubt.map_or(u32::MAX, |(slots, _)| slots);
            m.doubt = Some((before.min(used / 2).max(least), now + DOUBTED));
            m.behind_by.clear();
        }
        self.put_in(parent);
        self.doubted.insert(parent);
        self.reslot(now, parent)
    }

    /// Connections from an address broke the rules: whoever is there has nothing to do with the member any more.
    fn attacked(&mut self, now: Time, ix: Ix, from: IpAddr) {
        if !self.member_mut(ix).is_some_and(|m| m.shun(from.to_canonical())) {
            return;
        }
        let is_there = |other: Ix| self.member(ix).zip(self.member(other)).is_some_and(|(m, o)| m.shuns(o));
        let near: BTreeSet<Ix> = self.neighbours(ix).into_iter().filter(|o| is_there(*o)).collect();
        let mut orphans = Vec::new();
        for other in &near {
            orphans.extend(self.cut_parents(now, ix, Some(*other)));
            orphans.extend(self.cut_parents(now, *other, Some(ix)));
            let pair = self.node_of(*other).zip(self.node_of(ix));
            self.out.extend(pair.map(|(other, ix)| DcmOutput::Trouble(other, ix, Trouble::Attack)));
        }
        self.dirty(now, ix);
        self.replace(now, orphans);
    }

    /// A dial that an assignment asked for failed, as one end says (S3).
    pub fn dial_failed(&mut self, now: Time, node: &NodeId, other: &NodeId) {
        let (Some(a), Some(b)) = (self.by_node.get(node).copied(), self.by_node.get(other).copied()) else { return };
        [a, b].into_iter().for_each(|ix| self.doubt_spares(ix));
        let mut orphans = Vec::new();
        // Both ends dial; the child's word counts, the other end's only where it alone could dial.
        for (child, parent) in [(a, b), (b, a)] {
            let (Some(c), Some(p)) = (self.member(child), self.member(parent)) else { continue };
            let (c, p) = (c.info.reachability(), p.info.reachability());
            let only_one_dials = !(c.dials(&p) && p.dials(&c));
            let concerned = self.feeds(parent, child) || self.is_spare(parent, child) || self.helps(parent, child);
            if concerned && (child == a || only_one_dials) {
                self.failed.fail(now, (node, other), 1, false);
                self.site_tried(parent, child, false);
                orphans.extend(self.cut_parents(now, child, Some(parent)));
                self.dirty(now, child);
            }
        }
        self.replace(now, orphans);
        self.feed(now);
    }

    /// Whether `parent` is the child's parent in some tree.
    pub(super) fn feeds(&self, parent: Ix, child: Ix) -> bool {
        self.all_trees().any(|tree| self.parent(tree, child) == Some(parent))
    }
    fn is_spare(&self, spare: Ix, child: Ix) -> bool {
        self.all_trees().any(|tree| self.spot(tree, child).and_then(|s| s.spare) == Some(spare))
    }
    fn helps(&self, helper: Ix, child: Ix) -> bool {
        self.member(child).is_some_and(|m| m.helpers.contains(&helper))
    }
    fn count_children(&self, parent: Ix) -> usize {
        self.spots(parent).flat_map(|(_, s)| &s.children).collect::<BTreeSet<_>>().len()
    }
}
