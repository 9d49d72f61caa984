//! Who can be reached: counts by what members accept, and what happens when that is found out or changes (A3).

use super::Dcm;
use super::member::{Ix, Member};
use headwater_model::assignment::Reach;
use headwater_model::id::NodeId;
use headwater_model::node::{Accepts, Capabilities};
use headwater_model::time::Time;

/// Uplink and children still fetching, by what they accept.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct ByAccepts {
    up: [u64; 3],
    wanting: [u32; 3],
}

fn slot(accepts: Accepts) -> usize {
    match accepts {
        Accepts::Open => 0,
        Accepts::Punchable => 1,
        Accepts::DialOnly => 2,
    }
}

impl ByAccepts {
    /// The uplink of one member changes.
    pub(super) fn up(&mut self, accepts: Accepts, was: u64, is: u64) {
        let up = &mut self.up[slot(accepts)];
        *up = *up - was + is;
    }
    /// One member begins or ceases to fetch.
    pub(super) fn wanting(&mut self, accepts: Accepts, wants: bool) {
        let n = &mut self.wanting[slot(accepts)];
        if wants { *n += 1 } else { *n -= 1 }
    }
    /// Uplink in bytes per second.
    pub(super) fn up_of(&self, accepts: Accepts) -> u64 {
        self.up[slot(accepts)]
    }
    /// Members that fetch.
    pub(super) fn wanting_of(&self, accepts: Accepts) -> u32 {
        self.wanting[slot(accepts)]
    }
}

impl Dcm {
    /// How a member can be reached was found out, or changed: edges that cannot exist any more are cut and repaired.
    pub fn set_reach(&mut self, now: Time, node: &NodeId, capabilities: Capabilities, reach: Reach) {
        let Some(ix) = self.by_node.get(node).copied() else { return };
        let Some(m) = self.member(ix) else { return };
        if m.info.capabilities == capabilities && m.info.reach == reach {
            return;
        }
        let (was, up, wants) = (m.accepts(), m.info.up.0, m.wants && m.udp());
        let parents: Vec<Ix> = m.parents.iter().map(|e| e.parent).collect();
        let children = m.children.clone();
        self.index(ix, None);
        let Some(m) = self.member_mut(ix) else { return };
        // Whether UDP gets through, its sources and what it passes on may differ between sessions only: see `Dcm::join`.
        let Capabilities { accepts, listens, .. } = capabilities;
        m.info.capabilities = Capabilities { accepts, listens, ..m.info.capabilities };
        m.info.reach = reach;
        m.reachability = m.info.reachability();
        let is = m.accepts();
        self.by_accepts.up(was, up, 0);
        self.by_accepts.up(is, 0, up);
        if wants {
            self.by_accepts.wanting(was, false);
            self.by_accepts.wanting(is, true);
        }
        self.refresh(ix);
        self.requeue(ix, true);
        let mut bereft = Vec::new();
        for (parent, child) in parents.iter().map(|p| (*p, ix)).chain(children.iter().map(|c| (ix, *c))) {
            // Who dials may have changed, or where to.
            self.dirty(now, if child == ix { parent } else { child });
            let fits = match (self.member(parent), self.member(child)) {
                (Some(p), Some(c)) => self.can_connect(c, p) && p.forwards(),
                _ => false,
            };
            if !fits {
                self.unlink(parent, child);
                bereft.push(child);
            }
        }
        self.dirty(now, ix);
        for child in bereft {
            self.look_for_parents(now, child, "what a parent or it accepts was found out");
        }
        self.look_for_parents(now, ix, "what it accepts was found out");
        if is < was {
            self.offer(now, ix);
            self.take_over(now, ix);
        }
        self.lease_out(now);
    }

    /// Whether a connection between the two can come about.
    pub(super) fn can_connect(&self, child: &Member, parent: &Member) -> bool {
        let (c, p) = (child.reachability(), parent.reachability());
        c.compatible_from_afar(&p) || (c.compatible(&p) && self.site_is_network(child))
    }

    /// How many open parents `child` may have; `None` = any number. Dial-only children can use no others, punchable ones
    /// few others: what these leave of the open uplink is shared.
    pub(super) fn open_parents_each(&self, child: Accepts) -> Option<u32> {
        let n = |a| u64::from(self.by_accepts.wanting_of(a));
        let slots = |a| self.by_accepts.up_of(a) / self.slot_rate;
        let (dial_only, punchable) = (n(Accepts::DialOnly), n(Accepts::Punchable));
        let target = u64::from(self.target);
        let left = slots(Accepts::Open).saturating_sub(dial_only * target);
        // What punchable children lack beside one another's uplink.
        let lacking = (punchable * target).saturating_sub(slots(Accepts::Punchable)).min(left);
        match child {
            Accepts::DialOnly => None,
            Accepts::Punchable => (dial_only > 0).then(|| (left / punchable.max(1)) as u32),
            Accepts::Open if dial_only == 0 && lacking == 0 => None,
            Accepts::Open => Some(((left - lacking) / n(Accepts::Open).max(1)) as u32),
        }
    }
}
