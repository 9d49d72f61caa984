//! Which links between parents and children are congested, as the last pieces tell that both of them speak of in their
//! heartbeats (C3): such a child gets another parent, and nobody is blamed.

use super::Trees;
use super::spot::Spot;
use crate::dcm::{DcmOutput, Ix};
use crate::network_monitor::{SequenceWatch, Trouble};
use headwater_model::live::Substreams;
use headwater_model::report::{ContentReport, EdgeReport};
use headwater_model::time::{Micros, Time};
use std::collections::BTreeMap;

/// An edge is judged when it has been there for so long: until then the child catches up.
const SETTLES: Micros = Micros::from_secs(4);
/// Places of a parent's other children that are looked at where it is asked whether they are late too.
const MAX_SIBLINGS: usize = 64;

impl Trees {
    /// What a member says of the last pieces that it sent and got, beside what the other ends said.
    pub(super) fn compare(&mut self, now: Time, ix: Ix, interval: u64, said: &ContentReport) {
        // Interval 0 is none: such a report tells of a part of one.
        if interval == 0 || self.is_settling(now) {
            return;
        }
        said.to.iter().for_each(|e| self.sent(ix, interval, e));
        // All of it is heard before anything is judged: what comes from others is what an edge is compared with.
        let mut late: BTreeMap<Ix, Substreams> = BTreeMap::new();
        for e in &said.from {
            let Some(parent) = self.by_node.get(&e.node).copied() else { continue };
            let trees = self.got(now, ix, parent, interval, e);
            if !trees.is_empty() {
                late.insert(parent, trees);
            }
        }
        late.retain(|parent, _| self.link_is_to_blame(*parent, ix));
        late.into_iter().for_each(|(parent, trees)| self.congested(now, parent, ix, trees));
    }

    /// A parent's word of what it sent a child.
    fn sent(&mut self, parent: Ix, interval: u64, said: &EdgeReport) {
        let is_source = self.source == Some(parent);
        let child = self.by_node.get(&said.node).copied();
        for (tree, piece) in &said.last_pieces {
            if let Some(newest) = self.source_sent.get_mut(usize::from(*tree)).filter(|_| is_source) {
                *newest = (*newest).max(*piece);
            }
            let child = child.filter(|c| self.parent(*tree, *c) == Some(parent));
            if let Some(watch) = child.and_then(|c| self.watch_mut(*tree, c)) {
                watch.parent_says(interval, *piece);
            }
        }
    }

    /// A child's word of what it got of a parent: of which substreams pieces are late, time and again.
    fn got(&mut self, now: Time, child: Ix, parent: Ix, interval: u64, said: &EdgeReport) -> Substreams {
        let length = self.config.heartbeat;
        let mut late = Substreams::default();
        for (tree, piece) in &said.last_pieces {
            let newest = self.source_sent.get(usize::from(*tree)).copied().unwrap_or(0);
            let is_judged = |s: &Spot| s.parent == Some(parent) && now.since(s.since) >= SETTLES;
            if self.spot(*tree, child).is_some_and(is_judged)
                && let Some(watch) = self.watch_mut(*tree, child)
                && watch.child_says(interval, *piece, newest, length)
            {
                late.insert(*tree);
            }
        }
        late
    }

    /// Whether pieces are late for what lies between the two. A parent whose other children get them late as well has a
    /// busy uplink, of which its children tell; a child that gets them late from others as well has a busy downlink.
    fn link_is_to_blame(&self, parent: Ix, child: Ix) -> bool {
        let children = self.spots(parent).flat_map(|(tree, s)| s.children.iter().map(move |c| (tree, *c)));
        let siblings = children.filter(|(_, c)| *c != child).take(MAX_SIBLINGS);
        let of_parent = siblings.filter_map(|(tree, c)| self.watch(tree, c));
        let by_others = self.spots(child).filter(|(_, s)| s.parent.is_some_and(|other| other != parent));
        let of_child = by_others.filter_map(|(tree, _)| self.watch(tree, child));
        most_in_time(of_parent) && most_in_time(of_child)
    }

    /// The link between the two is congested: the child gets these substreams from others.
    fn congested(&mut self, now: Time, parent: Ix, child: Ix, trees: Substreams) {
        let (Some(p), Some(c)) = (self.node_of(parent), self.node_of(child)) else { return };
        self.out.push(DcmOutput::Trouble(p, c, Trouble::Congested));
        // Room that was made for another substream may have moved it already.
        let mut given = trees;
        trees.iter().filter(|tree| self.parent(*tree, child) != Some(parent)).for_each(|tree| given.remove(tree));
        let orphans = self.take_away(now, child, p, given);
        self.replace(now, orphans);
        self.feed(now);
    }
}

/// Whether less than half of those that could be compared are late.
fn most_in_time<'a>(others: impl Iterator<Item = &'a SequenceWatch>) -> bool {
    let (mut compared, mut late) = (0, 0);
    for w in others.filter(|w| w.is_compared()) {
        compared += 1;
        late += u32::from(w.is_late());
    }
    late == 0 || late * 2 < compared
}
