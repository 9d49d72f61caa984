//! What a node tells the control center (requirements C2, S3, R3).

use crate::bits::Bits;
use crate::id::{NodeId, Version};
use crate::live::Substreams;
use crate::node::{Capabilities, Priority, Role};
use crate::time::{Micros, Rate};
use std::net::{IpAddr, SocketAddr};

/// How a node introduces itself.
#[derive(Clone, PartialEq, Debug)]
pub struct Introduction {
    /// Peer or waypoint.
    pub role: Role,
    /// Claimed capabilities.
    pub capabilities: Capabilities,
    /// Uplink that it offers.
    pub up: Rate,
    /// Downlink that it has; 0 where unknown.
    pub down: Rate,
    /// Client, version and platform (A3).
    pub client: String,
    /// Own addresses on its networks, for nodes of the same site.
    pub local_addresses: Vec<SocketAddr>,
    /// TCP port at which it serves contents by HTTPS (waypoints).
    pub https_port: Option<u16>,
}

/// A node joins the swarm of a content, or comes back to it.
#[derive(Clone, PartialEq, Debug)]
pub struct Join {
    /// The content and the version that it has begun; epoch 0 for the newest.
    pub version: Version,
    /// Complete runs that it holds; empty when it has none or does not know the layout yet.
    pub runs: Option<Bits>,
    /// Whether it holds everything.
    pub complete: bool,
    /// Parents that serve it already (after the control center was away), and what each gives of a live stream.
    pub parents: Vec<(NodeId, Substreams)>,
    /// Leases that it is working on.
    pub leases: Vec<u32>,
    /// It takes no part yet and wants log and pages only: it looks through what it has first, and joins again.
    pub looks_first: bool,
    /// It is a source of this live stream: its publisher's key says so.
    pub source: bool,
}

impl Join {
    /// Of a node that has nothing of it.
    pub fn to(version: Version) -> Join {
        Join {
            version,
            runs: None,
            complete: false,
            parents: Vec::new(),
            leases: Vec::new(),
            looks_first: false,
            source: false,
        }
    }
}

/// Traffic with one other node in one content; cumulative since the node joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EdgeReport {
    /// The other end.
    pub node: NodeId,
    /// Pieces moved.
    pub pieces: u64,
    /// Payload bytes moved.
    pub bytes: u64,
    /// Of the last interval: how long requests were outstanding (for a parent's report: how long the child had any).
    pub waited: Micros,
    /// Smoothed round-trip time; 0 where unknown.
    pub rtt: Micros,
    /// In a parent's report: packets that its transport sent on the connection; cumulative, 0 where unknown.
    pub sent_packets: u64,
    /// Of these, the lost ones.
    pub lost_packets: u64,
    /// In a child's report: the edge has been open for half a second or more, and the parent offers no piece.
    pub offers_nothing: bool,
    /// Of a live stream, by substream, in rising order: the highest piece that came from this parent, or was sent to this
    /// child, since it began to push the substream. At most [`MAX_SUBSTREAMS`](crate::live::MAX_SUBSTREAMS), each one once;
    /// one of which no piece has moved yet is left out. Empty for a file.
    pub last_pieces: Vec<(u8, u64)>,
}

/// How a live stream fares at a node, in a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LiveReport {
    /// Number of the newest entry that it has.
    pub newest_entry: u64,
    /// Of what came in the interval, in the 95th percentile: time from the source having a piece to its being verified here.
    pub lag: Micros,
    /// Pieces that it knows of and lacks.
    pub missing: u32,
    /// Pieces that it gave up, since it joined.
    pub lost: u64,
}

/// One content in a heartbeat.
#[derive(Clone, PartialEq, Debug)]
pub struct ContentReport {
    /// Which.
    pub version: Version,
    /// Complete runs, when they changed since the last heartbeat.
    pub runs: Option<Bits>,
    /// Verified pieces.
    pub pieces_held: u32,
    /// Bytes from the origin, cumulative.
    pub origin_bytes: u64,
    /// Bytes that came twice or were wrong, cumulative.
    pub wasted_bytes: u64,
    /// Per parent.
    pub from: Vec<EdgeReport>,
    /// Per child.
    pub to: Vec<EdgeReport>,
    /// How much it matters at the node: its share of the node's uplink.
    pub priority: Priority,
    /// Of a live stream.
    pub live: Option<LiveReport>,
}

/// A heartbeat: what happened in one numbered interval of control time.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Heartbeat {
    /// Control time ÷ heartbeat interval.
    pub interval: u64,
    /// Share of the machine's processors in use, in thousandths.
    pub cpu_load_milli: u32,
    /// Free storage in bytes.
    pub free_storage_bytes: u64,
    /// Uplink in use.
    pub up_used: Rate,
    /// Downlink in use.
    pub down_used: Rate,
    /// Per content.
    pub contents: Vec<ContentReport>,
}

/// What a child says at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Alarm {
    /// The connection to a parent broke, could not be opened, or the parent refused.
    ParentLost {
        /// Which.
        parent: NodeId,
        /// In words, for the operator.
        why: String,
    },
    /// Requests are outstanding and nothing comes.
    Silent {
        /// Which parent.
        parent: NodeId,
    },
    /// A parent of a live stream falls behind with these substreams.
    Behind {
        /// Which parent.
        parent: NodeId,
        /// With which.
        substreams: Substreams,
    },
    /// A parent sends a trickle, while others deliver at many times its rate.
    Slow {
        /// Which parent.
        parent: NodeId,
    },
    /// A parent sent bytes that are not the content.
    BadPieces {
        /// Which parent.
        parent: NodeId,
    },
    /// Connections from this address broke the rules of the protocol, under whatever identity: floods of half-open streams,
    /// messages past their limits.
    Attacked {
        /// Where they came from.
        from: IpAddr,
    },
    /// Somebody at the node reads the content as it arrives, needs these runs next, and no parent has them.
    Reading {
        /// Which, the most urgent first.
        runs: Vec<u32>,
    },
    /// No parent has what is missing.
    Starving {
        /// Some runs that no parent has, lowest first.
        runs: Vec<u32>,
    },
}

/// Most runs that an alarm of a reader names.
pub const MAX_READING_RUNS: usize = 4;

/// Most runs named in one alarm.
pub const MAX_STARVING_RUNS: usize = 16;

/// The outcome of a dial that an assignment asked for (S3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DialResult {
    /// Which node was dialled.
    pub node: NodeId,
    /// `None` when it worked.
    pub error: Option<String>,
}
