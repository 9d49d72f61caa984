//! Edges as a node's user is shown them.

use crate::swarm::Swarm;
use headwater_model::id::NodeId;
use headwater_model::time::Micros;

/// How far an edge to a parent has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EdgeStage {
    /// No connection yet.
    Dialling,
    /// The ticket was shown.
    Opening,
    /// Pieces may be asked for.
    Open,
}

/// An edge, seen from this end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EdgeView {
    /// The other end.
    pub node: NodeId,
    /// How far it has come; a child's edge is open.
    pub stage: EdgeStage,
    /// A parent that is asked only when others fail, or one that is about to end.
    pub spare: bool,
    /// Bytes of pieces that went over it since it opened.
    pub bytes: u64,
    /// Pieces asked for over it that are not through yet.
    pub waiting_pieces: usize,
    /// Round-trip time; 0 until known.
    pub rtt: Micros,
}

impl Swarm {
    /// All edges to parents.
    pub fn parent_edges(&self) -> impl Iterator<Item = EdgeView> {
        self.parents.iter().map(|(node, p)| p.view(*node))
    }
    /// All edges to children.
    pub fn child_edges(&self) -> impl Iterator<Item = EdgeView> {
        self.children.iter().map(|(node, c)| c.view(*node))
    }
}
