//! Which strained edges are a congested link's fault (C3), and which a busy uplink's or downlink's; what becomes of pairs on
//! such links.

use super::Dcm;
use super::member::Ix;
use super::repair::MAX_SAMPLED;
use crate::network_monitor::EdgeWatch;
use headwater_model::rng::mix64;
use headwater_model::time::Time;
use std::collections::BTreeMap;

/// An edge that loses more than so many times the share of packets that others lose does not lose them where those do, if
/// it is by so many packets, which luck does not explain.
const LOSES_MORE: (u64, u64) = (2, 4);
/// The same inside a region, where there is no other sign, and a queue at an end may hit one connection harder.
const LOSES_MORE_INSIDE: (u64, u64) = (4, 16);
/// Where links into a region lose packets it may have so many times more of them.
const LOSSY_LINKS: u32 = 3;
/// Parents beyond the target that a child behind such links may have.
const LOSSY_PARENTS: u32 = 3;

/// Heartbeats for which a pair counts that was named as congested.
const NAMED_INTERVALS: u64 = 3;

/// The link from one region to another.
#[derive(Clone, Debug, Default)]
pub(super) struct RegionLink {
    /// Edges that use it.
    edges: u32,
    /// Pairs that were named as congested of late, parent and child.
    named: BTreeMap<(Ix, Ix), Time>,
    congested_until: Time,
}

impl RegionLink {
    pub(super) fn is_needed(&self, now: Time) -> bool {
        self.edges > 0 || self.congested_until > now
    }
}

impl Dcm {
    /// Whether a strained edge is strained for what lies between its ends. A parent whose other children are strained as
    /// well has a busy uplink; a child whose other parents are, a busy downlink. Between two regions, only edges that do
    /// not use the same link are compared.
    pub(super) fn link_is_to_blame(&self, child: Ix, parent: Ix) -> bool {
        let (Some(c), Some(p)) = (self.member(child), self.member(parent)) else { return false };
        let Some(edge) = c.parents.iter().find(|e| e.parent == parent).map(|e| e.watch) else { return false };
        let cross = c.region != p.region;
        let of_parent = p.children.iter().copied().filter(|k| *k != child).filter_map(|k| {
            let k = self.member(k).filter(|k| !cross || k.region != c.region)?;
            Some(k.parents.iter().find(|e| e.parent == parent)?.watch)
        });
        let of_child = c.parents.iter().filter(|e| e.parent != parent).filter_map(|e| {
            self.member(e.parent).filter(|q| !cross || q.region != p.region)?;
            Some(e.watch)
        });
        let more = if cross { LOSES_MORE } else { LOSES_MORE_INSIDE };
        differs(&edge, of_parent, more) && differs(&edge, of_child, more)
    }

    /// A pair's link is congested. Returns whether the two part: not where that would cut the child off, and not where the
    /// pair links two regions, as all other links between them are no better. When half of those are named they are used
    /// sparingly for a while; where they only lose packets, each connection carries little, and the region gets more.
    pub(super) fn part_for_congestion(&mut self, now: Time, child: Ix, parent: Ix) -> bool {
        let (Some(c), Some(p)) = (self.member(child), self.member(parent)) else { return false };
        let (from, to) = (p.region, c.region);
        if from == to {
            return c.parents.len() > 1;
        }
        let lossy = c.parents.iter().any(|e| e.parent == parent && e.watch.is_lossy());
        let (until, recent) = (now + self.config.congested, self.config.heartbeat.times(NAMED_INTERVALS));
        let mut named = std::mem::take(&mut self.between.entry((from, to)).or_default().named);
        let is_edge = |p: Ix, c: Ix| self.member(c).is_some_and(|c| c.has_parent(p));
        named.retain(|(p, c), at| now.since(*at) <= recent && is_edge(*p, *c));
        named.insert((parent, child), now);
        let link = self.between.entry((from, to)).or_default();
        link.named = named;
        if link.named.len() as u32 * 2 < link.edges {
            return false;
        }
        if lossy {
            self.lossy.insert(to, until);
            self.add_parent_from(now, child, from);
        } else {
            link.congested_until = until;
        }
        false
    }

    /// An edge between two regions is there, or no longer.
    pub(super) fn count_between(&mut self, from: u64, to: u64, more: bool) {
        if from == to {
            return;
        }
        let link = self.between.entry((from, to)).or_default();
        link.edges = if more { link.edges + 1 } else { link.edges.saturating_sub(1) };
    }

    /// One more parent from a region, beyond what is aimed at.
    fn add_parent_from(&mut self, now: Time, child: Ix, region: u64) {
        let Some(c) = self.member(child).filter(|c| c.wants && self.far_links_left(c) > 0) else { return };
        if c.parents.len() as u32 >= self.target + LOSSY_PARENTS {
            return;
        }
        let seed = c.info.node.prefix64() ^ now.0;
        let found = (0..MAX_SAMPLED as u64)
            .map(|n| (mix64(seed.wrapping_add(n)) % self.members.len().max(1) as u64) as Ix)
            .filter(|p| *p != child && !c.has_parent(*p) && self.spare_of(*p).0 > 0)
            .find(|p| self.member(*p).is_some_and(|p| p.region == region) && self.pair_ok(now, *p, child));
        if let Some(parent) = found {
            self.link(now, parent, child);
        }
    }

    /// Most links from outside that a region may have.
    pub(super) fn far_links_most(&self, region: u64) -> u32 {
        self.config.far_links * if self.lossy.contains_key(&region) { LOSSY_LINKS } else { 1 }
    }

    pub(super) fn check_between(&self, say: &mut impl FnMut(String)) {
        let mut edges: BTreeMap<(u64, u64), u32> = BTreeMap::new();
        for m in self.members() {
            for p in m.parents.iter().filter_map(|e| self.member(e.parent)).filter(|p| p.region != m.region) {
                *edges.entry((p.region, m.region)).or_default() += 1;
            }
        }
        let counted: BTreeMap<_, _> =
            self.between.iter().filter(|(_, l)| l.edges > 0).map(|(k, l)| (*k, l.edges)).collect();
        if counted != edges {
            say(format!("edges between regions {counted:?} should be {edges:?}"));
        }
    }

    /// Whether the link between two regions was congested of late.
    pub(super) fn is_congested(&self, now: Time, from: u64, to: u64) -> bool {
        self.between.get(&(from, to)).is_some_and(|link| link.congested_until > now)
    }
}

/// Whether an edge's strain is another one than that of the others at one of its ends. Packets that a queue there drops,
/// it drops of all of them; where packets wait in it, all are strained.
fn differs(edge: &EdgeWatch, others: impl Iterator<Item = EdgeWatch>, more: (u64, u64)) -> bool {
    let (mut active, mut strained, mut sent, mut lost) = (0, 0, 0, 0);
    for w in others.filter(EdgeWatch::is_active) {
        active += 1;
        strained += u32::from(w.is_strained());
        let (s, l) = w.packets_of_late();
        (sent, lost) = (sent + s, lost + l);
    }
    let (own_sent, own_lost) = edge.packets_of_late();
    let expected = (own_sent * lost).checked_div(sent).unwrap_or(0);
    if edge.is_lossy() { own_lost > expected * more.0 + more.1 } else { active == 0 || strained * 2 < active }
}
