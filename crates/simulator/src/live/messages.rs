//! What happens at a node when, and what nodes and the control center tell one another.

use headwater_center_core::Input;
use headwater_model::assignment::{Assignment, ChildrenChange};
use headwater_model::id::NodeId;
use headwater_model::live::{SignedLiveEntry, Substreams};
use headwater_model::rng::mix64;
use headwater_model::time::Time;
use std::cmp::Ordering;
use std::sync::Arc;

/// Index of a node. The source is the first; who comes later gets a new one.
pub(crate) type Nx = u32;

/// The node that publishes, whose line the stream's origin shares.
pub(crate) const SOURCE: Nx = 0;
/// As a sender: the control center.
pub(super) const CENTER: Nx = u32::MAX;
/// As a sender: the world itself.
pub(super) const WORLD: Nx = u32::MAX - 1;

/// Something that happens at a node.
#[derive(Debug)]
pub(super) enum Event {
    /// The shell's pulse.
    Tick,
    /// A heartbeat is due.
    Beat,
    /// The uplink has sent what it was sending.
    Sent,
    /// The player loads the playlist.
    Load,
    /// The viewer has seen enough.
    Ends,
    /// A dial is not waited for any longer.
    DialOver(Nx),
    /// A child that may not be able to dial is dialled.
    DialChild(Nx),
    /// The publisher says this.
    Published(Arc<SignedLiveEntry>),
    /// Another node says this.
    Said(Nx, Message),
    /// A piece has passed the downlink: from a parent, or from the origin, whose fetch it may end.
    Landed(Option<Nx>, u64, Option<u64>),
    /// The control center says this.
    Told(FromCenter),
}

/// From one node to another.
#[derive(Debug)]
pub(super) enum Message {
    /// A connection, and the answer to it.
    Hello,
    HelloBack,
    /// A ticket for these substreams, and the answer to it.
    Open(Substreams),
    Answer,
    CloseEdge,
    CloseChild,
    /// The connection is gone.
    Gone,
    Subscribe(Substreams, Option<u64>),
    Ask(Box<[u64]>),
    AskHelper(Box<[u64]>),
    Cancel(Box<[u64]>),
    AskEntries(u64),
    Entries(Vec<Arc<SignedLiveEntry>>),
    Position(u64, Box<[(u8, u64)]>),
    Piece(u64),
    /// To the origin: number of the fetch, and pieces.
    Fetch(Option<u64>, Box<[u64]>),
    /// From the origin: a piece, and the fetch that ends with it.
    Fetched(u64, Option<u64>),
}

impl Message {
    /// About what it takes of an uplink, in bytes; pieces aside, which the uplink sends by itself.
    pub(super) fn bytes(&self) -> u64 {
        // Tags, version, packet and acknowledgement.
        const HEAD: u64 = 60;
        let body = match self {
            Message::Entries(entries) => entries.iter().map(|e| 200 + 32 * e.entry.leaves.len() as u64).sum(),
            Message::Position(_, lacks) => 8 + 10 * lacks.len() as u64,
            Message::Ask(pieces) | Message::AskHelper(pieces) | Message::Cancel(pieces) | Message::Fetch(_, pieces) => {
                8 * pieces.len() as u64
            }
            Message::Piece(_) | Message::Fetched(..) => return 0,
            // With the handshake and a trial of the largest packet: about what a connection costs in the lab.
            Message::Hello | Message::HelloBack => 5000,
            _ => 20,
        };
        HEAD + body
    }
}

/// From the control center to a node.
#[derive(Debug)]
pub(super) enum FromCenter {
    /// The session begins.
    Welcome,
    Assigned(Box<Assignment>),
    ChildrenChanged(Box<ChildrenChange>),
}

/// From a node to the control center.
#[derive(Debug)]
pub(super) enum ToCenter {
    Hello,
    Says(Box<Input>),
}

/// Something that is due somewhere. Those of one moment come in order of their senders, and of what each sent.
#[derive(Debug)]
pub(super) struct Due<E> {
    pub(super) at: Time,
    pub(super) from: Nx,
    pub(super) serial: u32,
    pub(super) what: E,
}

impl<E> Due<E> {
    fn key(&self) -> (Time, Nx, u32) {
        (self.at, self.from, self.serial)
    }
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl<E> Eq for Due<E> {}
impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Due<E> {
    /// The earliest is the greatest: it is the first out of a heap.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// A node's id: spread by the seed, with its index in the last bytes.
pub(crate) fn id_of(seed: u64, nx: Nx) -> NodeId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&mix64(seed ^ mix64(u64::from(nx))).to_be_bytes());
    id[28..].copy_from_slice(&nx.to_be_bytes());
    NodeId(id)
}

/// The node of an id.
pub(crate) fn nx_of(id: &NodeId) -> Nx {
    let [.., a, b, c, d] = id.0;
    u32::from_be_bytes([a, b, c, d])
}
