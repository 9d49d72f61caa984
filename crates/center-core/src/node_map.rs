//! What is kept by node, or by two.

use headwater_model::id::NodeId;
use indexmap::IndexMap;

/// By node: found by hash, in the same time however many there are; in an order that follows from who came and left, so
/// that the same events give the same decisions.
pub(crate) type NodeMap<T> = IndexMap<NodeId, T>;
/// By two nodes, likewise.
pub(crate) type PairMap<T> = IndexMap<(NodeId, NodeId), T>;
