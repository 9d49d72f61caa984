//! What the two kinds of delivery coordinator managers (C6) have in common: a [`Dcm`] for each file, [`Trees`] for each
//! live stream.

use crate::budgets::Use;
use crate::dcm::{Dcm, DcmOutput, MemberInfo, Problem};
use crate::trees::Trees;
use crate::trust::Standing;
use headwater_model::assignment::Reach;
use headwater_model::id::{NodeId, Version};
use headwater_model::node::{Capabilities, Priority};
use headwater_model::report::{Alarm, ContentReport, Join};
use headwater_model::time::{Rate, Time};

/// Manages the delivery of one content: see the methods of [`Dcm`] and [`Trees`] of these names.
pub(crate) trait Coordinator {
    fn version(&self) -> Version;
    fn nodes(&self) -> Vec<NodeId>;
    fn children_of(&self, node: &NodeId) -> Vec<NodeId>;
    fn uplink_of(&self, node: &NodeId) -> Option<Rate>;
    fn use_of(&self, node: &NodeId, used: Rate, priority: Priority) -> Use;
    fn join(&mut self, now: Time, info: MemberInfo, join: &Join);
    fn leave(&mut self, now: Time, node: &NodeId);
    fn away(&mut self, now: Time, node: &NodeId);
    fn heartbeat(&mut self, now: Time, node: &NodeId, interval: u64, said: &ContentReport) -> Rate;
    fn alarm(&mut self, now: Time, node: &NodeId, alarm: &Alarm) -> bool;
    fn dial_failed(&mut self, now: Time, node: &NodeId, other: &NodeId);
    fn set_rate(&mut self, now: Time, node: &NodeId, up: Rate);
    fn set_reach(&mut self, now: Time, node: &NodeId, capabilities: Capabilities, reach: Reach);
    fn set_standing(&mut self, now: Time, node: &NodeId, standing: Standing);
    fn raise_epoch(&mut self, now: Time, epoch: u64);
    fn renew(&mut self, now: Time);
    fn next_timeout(&self) -> Option<Time>;
    fn tick(&mut self, now: Time);
    fn drain(&mut self, into: &mut Vec<DcmOutput>);
    fn check(&self, now: Time) -> Vec<Problem>;
}

macro_rules! coordinates {
    ($manager:ty { $($own:item)* }) => {
        impl Coordinator for $manager {
            $($own)*
            fn version(&self) -> Version {
                Self::version(self)
            }
            fn nodes(&self) -> Vec<NodeId> {
                Self::nodes(self)
            }
            fn children_of(&self, node: &NodeId) -> Vec<NodeId> {
                Self::children_of(self, node)
            }
            fn uplink_of(&self, node: &NodeId) -> Option<Rate> {
                Self::uplink_of(self, node)
            }
            fn use_of(&self, node: &NodeId, used: Rate, priority: Priority) -> Use {
                Self::use_of(self, node, used, priority)
            }
            fn join(&mut self, now: Time, info: MemberInfo, join: &Join) {
                Self::join(self, now, info, join);
            }
            fn leave(&mut self, now: Time, node: &NodeId) {
                Self::leave(self, now, node);
            }
            fn away(&mut self, now: Time, node: &NodeId) {
                Self::away(self, now, node);
            }
            fn heartbeat(&mut self, now: Time, node: &NodeId, interval: u64, said: &ContentReport) -> Rate {
                Self::heartbeat(self, now, node, interval, said)
            }
            fn alarm(&mut self, now: Time, node: &NodeId, alarm: &Alarm) -> bool {
                Self::alarm(self, now, node, alarm)
            }
            fn dial_failed(&mut self, now: Time, node: &NodeId, other: &NodeId) {
                Self::dial_failed(self, now, node, other);
            }
            fn set_reach(&mut self, now: Time, node: &NodeId, capabilities: Capabilities, reach: Reach) {
                Self::set_reach(self, now, node, capabilities, reach);
            }
            fn set_standing(&mut self, now: Time, node: &NodeId, standing: Standing) {
                Self::set_standing(self, now, node, standing);
            }
            fn raise_epoch(&mut self, now: Time, epoch: u64) {
                Self::raise_epoch(self, now, epoch);
            }
            fn renew(&mut self, now: Time) {
                Self::renew(self, now);
            }
            fn next_timeout(&self) -> Option<Time> {
                Self::next_timeout(self)
            }
            fn tick(&mut self, now: Time) {
                Self::tick(self, now);
            }
            fn drain(&mut self, into: &mut Vec<DcmOutput>) {
                Self::drain(self, into);
            }
            fn check(&self, now: Time) -> Vec<Problem> {
                Self::check(self, now)
            }
        }
    };
}

coordinates!(Dcm {
    fn set_rate(&mut self, _now: Time, node: &NodeId, up: Rate) {
        Self::set_rate(self, node, up);
    }
});
coordinates!(Trees {
    fn set_rate(&mut self, now: Time, node: &NodeId, up: Rate) {
        Self::set_rate(self, now, node, up);
    }
});
