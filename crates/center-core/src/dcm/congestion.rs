//! Which strained edges are a congested link's fault (C3), and which a busy uplink's or downlink's.

use super::Dcm;
use super::member::Ix;
use crate::network_monitor::EdgeWatch;
use headwater_model::time::Time;

/// Links into a region that stay, however congested: without them the region would be cut off.
const KEPT_LINKS: u32 = 2;

impl Dcm {
    /// Whether a strained edge is strained for what lies between its ends. A parent whose other children are mostly
    /// strained as well has a busy uplink; a child whose other parents mostly are, a busy downlink. Between two regions,
    /// only edges that do not use the same link are compared.
    pub(super) fn link_is_to_blame(&self, child: Ix, parent: Ix) -> bool {
        let (Some(c), Some(p)) = (self.member(child), self.member(parent)) else { return false };
        let cross = c.region != p.region;
        let of_parent = p.children.iter().copied().filter(|k| *k != child).filter_map(|k| {
            let k = self.member(k).filter(|k| !cross || k.region != c.region)?;
            Some(k.parents.iter().find(|e| e.parent == parent)?.watch)
        });
        let of_child = c.parents.iter().filter(|e| e.parent != parent).filter_map(|e| {
            self.member(e.parent).filter(|q| !cross || q.region != p.region)?;
            Some(e.watch)
        });
        !mostly_strained(of_parent) && !mostly_strained(of_child)
    }

    /// A pair's link is congested: further edges avoid it. Whether this edge stays all the same, because the child or its
    /// region would be cut off.
    pub(super) fn stays_all_the_same(&mut self, now: Time, child: Ix, parent: Ix) -> bool {
        let (Some(c), Some(p)) = (self.member(child), self.member(parent)) else { return true };
        let (from, to) = (p.region, c.region);
        if from == to {
            return c.parents.len() <= 1;
        }
        let last = c.parents.len() <= 1 || self.far_links.get(&to).copied().unwrap_or(0) <= KEPT_LINKS;
        self.congested.insert((from, to), now + self.config.congested);
        last
    }

    /// Whether the link between two regions was congested of late.
    pub(super) fn is_congested(&self, now: Time, from: u64, to: u64) -> bool {
        from != to && self.congested.get(&(from, to)).is_some_and(|until| *until > now)
    }
}

fn mostly_strained(edges: impl Iterator<Item = EdgeWatch>) -> bool {
    let (mut all, mut strained) = (0, 0);
    for w in edges.filter(EdgeWatch::is_active) {
        all += 1;
        strained += u32::from(w.is_strained());
    }
    all > 0 && strained * 2 >= all
}
