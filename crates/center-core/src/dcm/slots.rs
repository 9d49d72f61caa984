//! Whose uplink is for how many children: targets, slots, and what is promised.

use super::Dcm;
use super::member::{Ix, Member};
use crate::budgets::Use;
use crate::trust::Standing;
use headwater_model::Role;
use headwater_model::id::NodeId;
use headwater_model::node::Priority;
use headwater_model::time::Rate;

impl Dcm {
    /// In-degree that children should have: more when few still fetch, so that all uplinks stay in use.
    pub(super) fn target_parents(&self) -> u32 {
        let all = self.by_node.len() as u32;
        (self.config.parents * all / self.wanting.max(1)).clamp(self.config.parents, self.config.max_parents)
    }

    /// Uplink per child slot: so that the slots of all just feed the targets of all. Re-indexes when it moved by an eighth.
    pub(super) fn recount(&mut self) {
        let target = self.target_parents();
        if target > self.target {
            self.hungry.extend(
                self.members
                    .iter()
                    .enumerate()
                    .filter(|(_, m)| {
                        m.as_ref().is_some_and(|m| m.wants && m.udp() && (m.parents.len() as u32) < target)
                    })
                    .map(|(ix, _)| ix as Ix),
            );
        }
        if std::mem::replace(&mut self.target, target) != target {
            // What their leases by HTTPS take of their slots changed.
            for ix in self.waypoints.iter().copied().collect::<Vec<_>>() {
                self.refresh(ix);
            }
        }
        // Members without UDP take no slots of peers but their share of waypoints: leases are counted in slots there.
        let sharers = self.wanting + self.wanting_walled;
        let rate = (self.up_total / u64::from((sharers * target).max(1))).max(1);
        if rate.abs_diff(self.slot_rate) * 8 > self.slot_rate {
            self.slot_rate = rate;
            for ix in 0..self.members.len() as Ix {
                self.refresh(ix);
            }
        }
    }

    pub(super) fn slots_of(&self, m: &Member) -> u32 {
        if !m.forwards() || m.info.up.0 == 0 {
            return 0;
        }
        // 15 % more slots than edges, so that the last children find some.
        let fair = (m.info.up.0 * 115).div_ceil(self.slot_rate.saturating_mul(100));
        (fair as u32).clamp(2, self.most_children(m))
    }

    /// Children that a member may have, whatever its uplink.
    pub(super) fn most_children(&self, m: &Member) -> u32 {
        match m.info.role {
            Role::Waypoint => self.config.max_waypoint_children,
            Role::Peer => self.config.max_children,
        }
    }

    /// Children that a member would have if all edges were spread by uplink.
    pub(super) fn fair_children(&self, m: &Member) -> u32 {
        if !m.forwards() {
            return 0;
        }
        ((m.info.up.0 / self.slot_rate) as u32).min(self.most_children(m))
    }

    /// Uplink of a member that no child slot uses.
    pub(super) fn spare_of(&self, ix: Ix) -> Rate {
        let Some(m) = self.member(ix) else { return Rate(0) };
        if !m.may_take_child() {
            return Rate(0);
        }
        let most = if m.standing == Standing::Good { u32::MAX } else { 1 };
        let used = m.children.len() as u32 + m.https_leases * self.slots_per_lease();
        let free = self.slots_of(m).saturating_sub(used).min(most);
        Rate(u64::from(free) * self.slot_rate)
    }

    /// What a member does with its grant: its children are fed with `used`, those by HTTPS with what nobody tells.
    pub fn use_of(&self, node: &NodeId, used: Rate, priority: Priority) -> Use {
        let member = self.member_of(node);
        let https = member.is_some_and(|m| m.https_leases > 0);
        let children = member.is_some_and(|m| !m.children.is_empty());
        Use { wants: children || https, used: (!https).then_some(used), priority, live: false }
    }

    pub(super) fn promised(&self, parent: Ix) -> Rate {
        self.member(parent).map_or(Rate(0), |m| {
            let sharers = m.children.len() + m.https_leases as usize;
            Rate(m.info.up.0 / sharers.max(1) as u64)
        })
    }
}
