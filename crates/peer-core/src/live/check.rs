//! Invariants of a stream at a node as code.

use super::Channel;

impl Channel {
    /// All violated invariants; empty when the state is sound.
    pub fn check(&self) -> Vec<String> {
        let mut problems = self.window.check();
        for (substream, lane) in self.lanes.iter().enumerate() {
            let pushes =
                |n: &headwater_model::NodeId| self.feeds.get(n).is_some_and(|f| f.subscribed.contains(substream as u8));
            if let Some(parent) = lane.parent.filter(|p| !pushes(p)) {
                problems
                    .push(format!("substream {substream} is expected of {parent:?}, which was not told to push it"));
            }
        }
        for (node, child) in &self.children {
            for piece in child.waiting().filter(|p| !self.window.has(**p)) {
                problems.push(format!("piece {piece} waits to be sent to {node:?} and is not here"));
            }
        }
        for (node, feed) in &self.feeds {
            if !feed.is_open() && !feed.subscribed.is_empty() {
                problems.push(format!("{node:?} is subscribed to and not open"));
            }
        }
        problems
    }
}
