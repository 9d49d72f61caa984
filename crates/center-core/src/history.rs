//! History, first form (C9): who served whom how well, who was there when, what was downloaded.

use crate::network_monitor::Trouble;
use crate::node_map::{NodeMap, PairMap};
use headwater_model::id::{ContentId, NodeId};
use headwater_model::time::{Micros, Time};
use std::collections::{BTreeSet, VecDeque};

/// Downloads remembered per node (C9).
pub const MAX_DOWNLOADS_PER_NODE: usize = 10;
/// Nodes remembered; the one that was away longest goes first.
pub const MAX_NODES: usize = 200_000;
/// Pairs remembered.
pub const MAX_PAIRS: usize = 200_000;
/// When pairs are as many as are remembered, those of nodes that are gone are looked for after so many sessions ended: to
/// look through all takes as long as a thousand joins.
const LOOK_AFTER: usize = 4096;

/// A finished or broken-off transfer.
#[derive(Clone, PartialEq, Debug)]
pub struct Transfer {
    /// Who fetched.
    pub node: NodeId,
    /// What.
    pub content: ContentId,
    /// Name of the content.
    pub title: String,
    /// Bytes by class of source.
    pub peer_bytes: u64,
    /// See `peer_bytes`.
    pub waypoint_bytes: u64,
    /// See `peer_bytes`.
    pub origin_bytes: u64,
    /// When it began and ended.
    pub start: Time,
    /// See `start`.
    pub end: Time,
    /// Highest rate over one heartbeat interval, bytes per second.
    pub max_rate: u64,
    /// Whether everything arrived.
    pub complete: bool,
}

/// One node's record.
#[derive(Clone, Debug, Default)]
pub struct NodeRecord {
    /// Bytes that others confirm it sent.
    pub served_bytes: u64,
    /// Intervals in which it served someone without trouble.
    pub good: u64,
    /// Intervals with trouble, and failed dials.
    pub bad: u64,
    /// Time with a session.
    pub online: Micros,
    /// Sessions begun.
    pub sessions: u64,
    /// When it was first and last seen.
    pub first_seen: Time,
    /// See `first_seen`.
    pub last_seen: Time,
    online_since: Option<Time>,
    /// The last downloads, newest last.
    pub downloads: VecDeque<Transfer>,
}

/// How well one node served another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairRecord {
    /// Bytes, as the child says.
    pub bytes: u64,
    /// Intervals without trouble.
    pub good: u32,
    /// Intervals with trouble.
    pub bad: u32,
}

/// All records.
#[derive(Clone, Debug, Default)]
pub struct History {
    nodes: NodeMap<NodeRecord>,
    pairs: PairMap<PairRecord>,
    /// Nodes without a session, by when they were last seen.
    gone: BTreeSet<(Time, NodeId)>,
    /// Sessions that ended since pairs were looked through.
    ended: usize,
}

impl NodeRecord {
    /// Share of the time since it was first seen that it was there, in percent.
    pub fn availability_percent(&self, now: Time) -> u64 {
        let online = self.online.0 + self.online_since.map_or(0, |t| now.since(t).0);
        (online * 100).checked_div(now.since(self.first_seen).0).unwrap_or(100).min(100)
    }
    /// 0 (served badly) to 3, as ranking compares; 2 for a node without a record.
    pub fn score(&self) -> u32 {
        match (self.good, self.bad) {
            (g, b) if g + b < 4 => 2,
            (g, b) if b * 10 <= g => 3,
            (g, b) if b * 3 <= g => 2,
            (g, b) if b <= g => 1,
            _ => 0,
        }
    }
}

impl History {
    /// A session begins.
    pub fn came(&mut self, now: Time, node: NodeId) {
        if self.nodes.len() >= MAX_NODES
            && !self.nodes.contains_key(&node)
            && let Some((_, oldest)) = self.gone.pop_first()
        {
            self.nodes.swap_remove(&oldest);
        }
        let r = self.nodes.entry(node).or_insert_with(|| NodeRecord { first_seen: now, ..NodeRecord::default() });
        self.gone.remove(&(r.last_seen, node));
        r.sessions += 1;
        r.online_since = Some(now);
        r.last_seen = now;
    }
    /// A session ends.
    pub fn went(&mut self, now: Time, node: &NodeId) {
        if let Some(r) = self.nodes.get_mut(node) {
            if let Some(since) = r.online_since.take() {
                r.online = Micros(r.online.0 + now.since(since).0);
            }
            self.gone.remove(&(r.last_seen, *node));
            r.last_seen = now;
            self.gone.insert((now, *node));
            self.ended += 1;
        }
    }
    /// A child says what came from a parent in an interval.
    pub fn served(&mut self, parent: NodeId, child: NodeId, bytes: u64) {
        if bytes == 0 {
            return;
        }
        if let Some(r) = self.nodes.get_mut(&parent) {
            r.served_bytes += bytes;
            r.good += 1;
        }
        if let Some(p) = self.pairs.get_mut(&(parent, child)) {
            p.bytes += bytes;
            p.good += 1;
            return;
        }
        if self.pairs.len() >= MAX_PAIRS && self.ended >= LOOK_AFTER {
            // Pairs of nodes that are not there make room for those that are.
            self.ended = 0;
            let here = |n: &NodeId| self.nodes.get(n).is_some_and(|r| r.online_since.is_some());
            self.pairs.retain(|(p, c), _| here(p) && here(c));
        }
        if self.pairs.len() < MAX_PAIRS {
            self.pairs.insert((parent, child), PairRecord { bytes, good: 1, bad: 0 });
        }
    }
    /// An edge gave trouble. A congested link is not the parent's fault, an address may be
    /// shared, and what it claims to hold is an accusation, which counts by itself.
    pub fn trouble(&mut self, parent: NodeId, child: NodeId, what: Trouble) {
        if !matches!(what, Trouble::Congested | Trouble::Empty | Trouble::Attack)
            && let Some(r) = self.nodes.get_mut(&parent)
        {
            r.bad += 1;
        }
        if let Some(p) = self.pairs.get_mut(&(parent, child)) {
            p.bad += 1;
        }
    }
    /// A transfer ended.
    pub fn finished(&mut self, transfer: Transfer) {
        if let Some(r) = self.nodes.get_mut(&transfer.node) {
            if r.downloads.len() >= MAX_DOWNLOADS_PER_NODE {
                r.downloads.pop_front();
            }
            // Most nodes come for one: room for more would be kept for all that ever came.
            r.downloads.reserve_exact(1);
            r.downloads.push_back(transfer);
        }
    }
    /// A node's record.
    pub fn node(&self, node: &NodeId) -> Option<&NodeRecord> {
        self.nodes.get(node)
    }
    /// A pair's record: parent, child.
    pub fn pair(&self, parent: &NodeId, child: &NodeId) -> Option<&PairRecord> {
        self.pairs.get(&(*parent, *child))
    }
    /// All nodes that are remembered.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, &NodeRecord)> {
        self.nodes.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_follow_what_children_say() {
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        let mut h = History::default();
        h.came(Time(0), a);
        assert_eq!(h.node(&a).unwrap().score(), 2);
        (0..20).for_each(|_| h.served(a, b, 10));
        assert_eq!(h.node(&a).unwrap().score(), 3);
        (0..30).for_each(|_| h.trouble(a, b, Trouble::Slow));
        assert_eq!(h.node(&a).unwrap().score(), 0);
        assert_eq!(h.pair(&a, &b), Some(&PairRecord { bytes: 200, good: 20, bad: 30 }));
        h.went(Time(50), &a);
        assert_eq!(h.node(&a).unwrap().availability_percent(Time(100)), 50);
    }

    fn id(n: u32) -> NodeId {
        NodeId(headwater_model::Hash::of(&[&n.to_be_bytes()]).0)
    }

    #[test]
    fn who_was_away_longest_is_forgotten_first() {
        let mut h = History::default();
        let most = MAX_NODES as u32;
        (0..most).for_each(|n| h.came(Time(u64::from(n)), id(n)));
        for (at, n) in [5, 3, 9].into_iter().enumerate() {
            h.went(Time(1_000_000 + at as u64), &id(n));
        }
        h.came(Time(2_000_000), id(5));
        for newcomer in most..most + 4 {
            h.came(Time(3_000_000), id(newcomer));
        }
        let known = |n: u32| h.node(&id(n)).is_some();
        assert!(!known(3) && !known(9) && known(5) && known(0) && known(most + 3));
    }

    #[test]
    fn pairs_of_nodes_that_are_gone_make_room() {
        let mut h = History::default();
        let (most, gone) = (MAX_PAIRS as u32, LOOK_AFTER as u32);
        (0..=most).for_each(|n| h.came(Time(0), id(n)));
        (0..most).for_each(|n| h.served(id(n), id(n + 1), 1));
        h.served(id(7), id(9), 1);
        assert_eq!(h.pair(&id(7), &id(9)), None, "there is no room");
        (most - gone..most).for_each(|n| h.went(Time(1), &id(n)));
        h.served(id(7), id(9), 1);
        assert_eq!(h.pair(&id(7), &id(9)).map(|p| p.bytes), Some(1));
        assert_eq!(h.pair(&id(most - 1), &id(most)), None);
        assert!(h.pair(&id(7), &id(8)).is_some());
    }
}
