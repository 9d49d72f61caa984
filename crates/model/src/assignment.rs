//! What the control center tells a node (architecture, idea 6): complete, numbered, and in the same words for peers,
//! control center and simulator. Tickets are added where an assignment is sent, checked where it is used.

use crate::id::{Hash, NodeId, Version};
use crate::live::Substreams;
use crate::node::{Lacks, SourceClass};
use crate::time::{Micros, Rate};
use std::net::SocketAddr;
use std::sync::Arc;

/// Number of an assignment: a restarted control center has a higher epoch, so that its first assignment is never
/// mistaken for an old one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Generation {
    /// Durable epoch of the control center.
    pub epoch: u64,
    /// Counts within the epoch.
    pub counter: u64,
}

/// How to reach a node.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Reach {
    /// Addresses that the control center has itself seen or tested, best first; shared, as each assignment has dozens.
    pub addresses: Arc<[SocketAddr]>,
    /// SHA-256 of the node's certificate (DER).
    pub certificate: Hash,
}

/// A parent, a spare one, or a helper.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parent {
    /// Who.
    pub node: NodeId,
    /// Peer or waypoint (the origin is leased, see [`Lease`]).
    pub class: SourceClass,
    /// Whether this child dials.
    pub dial: bool,
    /// What the parent should give; of a helper, what it has left over for this node.
    pub promised: Rate,
    /// Where.
    pub reach: Reach,
    /// What it gives of a live stream: of a spare and of a helper, what it may be asked for.
    pub substreams: Substreams,
}

/// A child.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Child {
    /// Who.
    pub node: NodeId,
    /// Whether this parent dials.
    pub dial: bool,
    /// Whether it dials at once: only packets of both ends at the same time open their NATs.
    pub punch: bool,
    /// Where.
    pub reach: Reach,
    /// What it is given of a live stream.
    pub substreams: Substreams,
}

/// All parents and children of a node in one content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// Which content and version.
    pub version: Version,
    /// Older generations are refused.
    pub generation: Generation,
    /// To fetch from.
    pub parents: Vec<Parent>,
    /// To go to at once when a parent fails.
    pub spares: Vec<Parent>,
    /// Of a live stream: to ask for pieces that nobody pushes, which they send when they have nothing to push (T2).
    pub helpers: Vec<Parent>,
    /// To serve.
    pub children: Vec<Child>,
    /// Of a live stream: this node is its source.
    pub source: bool,
}

impl Assignment {
    /// Everybody who may send something to this node: parents, spares, helpers. One node may be several of these.
    pub fn senders(&self) -> impl Iterator<Item = &Parent> {
        self.parents.iter().chain(&self.spares).chain(&self.helpers)
    }
}

/// What changed among a node's children since it was last told of them; the rest of its assignment holds. So a parent of
/// thousands learns of one more child in one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChildrenChange {
    /// Of which content and version.
    pub version: Version,
    /// As an assignment's.
    pub generation: Generation,
    /// New ones, and those that are given other substreams than before.
    pub came: Vec<Child>,
    /// They are children no more.
    pub left: Vec<NodeId>,
}

impl Assignment {
    /// The assignment as it is after a change. An older one changes nothing.
    pub fn change(&mut self, change: ChildrenChange) {
        if change.generation <= self.generation {
            return;
        }
        self.generation = change.generation;
        self.children.retain(|c| !change.left.contains(&c.node) && change.came.iter().all(|n| n.node != c.node));
        self.children.extend(change.came);
    }
}

/// Leave to fetch a run of pieces without asking a parent for each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Which content and version.
    pub version: Version,
    /// Which run.
    pub run: u32,
    /// How long the control center waits for it.
    pub within: Micros,
    /// From where.
    pub source: LeaseSource,
}

/// Where a leased run is fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LeaseSource {
    /// The publisher's origin or CDN.
    Origin,
    /// A waypoint, by HTTPS.
    Waypoint {
        /// Which.
        node: NodeId,
        /// Where it answers HTTPS, with which certificate.
        reach: Reach,
    },
}

/// Why a node gets nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No content of that id is published here.
    UnknownContent,
    /// It was withdrawn.
    Unpublished,
    /// The node's data is of another version than the current one.
    OtherVersion {
        /// The current epoch.
        current: u64,
    },
    /// Not permitted, and why.
    NotPermitted(String),
    /// Lightweight clients get another content of the same publisher in its place, and this node is one (S9).
    Lightweight {
        /// Name of the one that it may have.
        stand_in: String,
        /// What makes it lightweight.
        lacks: Lacks,
    },
    /// Too many contents, nodes or messages.
    Limit(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::UnknownContent => {
                write!(f, "no content of this name is published at this control center (see `headwater list`)")
            }
            Refusal::Unpublished => write!(f, "the content was withdrawn by its publisher"),
            Refusal::OtherVersion { current } => write!(f, "a newer version is published (epoch {current})"),
            Refusal::NotPermitted(why) => write!(f, "not permitted: {why}"),
            Refusal::Lightweight { stand_in, lacks } => {
                write!(f, "this client is lightweight ({lacks}), and its publisher has {stand_in:?} for such")
            }
            Refusal::Limit(what) => write!(f, "over a limit of the control center: {what}"),
        }
    }
}
