//! What a slanderer says, of whomever it heard of.

use headwater_model::report::{Alarm, DialResult, EdgeReport};
use headwater_model::{Micros, NodeId, Version};
use headwater_wire::FromNode;

/// Everything bad that can be said of `node` to the control center.
pub fn of(node: NodeId, version: Version) -> [FromNode; 4] {
    let alarm = |alarm| FromNode::Alarm { version, alarm };
    [
        alarm(Alarm::BadPieces { parent: node }),
        alarm(Alarm::Silent { parent: node }),
        alarm(Alarm::ParentLost { parent: node, why: "it hung up".into() }),
        FromNode::DialResult(DialResult { node, error: Some("no answer within 6 s".into()) }),
    ]
}

/// A heartbeat's word of a parent that was asked all the time and gave nothing.
pub fn report(node: NodeId, interval: Micros) -> EdgeReport {
    EdgeReport {
        node,
        pieces: 0,
        bytes: 0,
        waited: interval,
        rtt: Micros::from_millis(20),
        sent_packets: 0,
        lost_packets: 0,
        offers_nothing: true,
        last_pieces: Vec::new(),
    }
}
