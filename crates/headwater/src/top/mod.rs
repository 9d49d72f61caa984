//! The page of `headwater top`: what it remembers from second to second, and how it is drawn.

mod screen;

use std::collections::{BTreeMap, VecDeque};

use headwater_peer::node::{ContentDetail, NodeStatus};
pub use screen::draw;

/// Seconds of a content's rates that are kept: as many as a wide terminal has columns.
const HISTORY_S: usize = 240;

/// What the page shows.
#[derive(Debug, Default)]
pub struct Page {
    pub status: NodeStatus,
    pub contents: Vec<ContentDetail>,
    /// Id of the content whose edges are shown.
    chosen: String,
    /// Per content, bytes per second down and up, newest last.
    history: BTreeMap<String, VecDeque<(u64, u64)>>,
    /// Why the peer was not heard, or what came of a command.
    pub said: Option<String>,
}

impl Page {
    /// A second has passed.
    pub fn update(&mut self, status: NodeStatus, contents: Vec<ContentDetail>) {
        (self.status, self.contents, self.said) = (status, contents, None);
        let contents = &self.contents;
        self.history.retain(|id, _| contents.iter().any(|c| c.status.content == *id));
        for c in contents {
            let history = self.history.entry(c.status.content.clone()).or_default();
            if history.len() == HISTORY_S {
                history.pop_front();
            }
            history.push_back((c.down_bytes_per_s, c.up_bytes_per_s));
        }
        self.choose(0);
    }

    /// Moves the choice; it stays with its content, whatever comes before that.
    pub fn choose(&mut self, by: isize) {
        let Some(last) = self.contents.len().checked_sub(1) else { return };
        let at = self.chosen_row().unwrap_or(0).saturating_add_signed(by).min(last);
        self.chosen.clone_from(&self.contents[at].status.content);
    }

    fn chosen_row(&self) -> Option<usize> {
        self.contents.iter().position(|c| c.status.content == self.chosen)
    }

    fn chosen(&self) -> Option<&ContentDetail> {
        self.contents.get(self.chosen_row()?)
    }

    /// The last `seconds` of the chosen content: down and up.
    fn rates(&self, seconds: usize) -> (Vec<u64>, Vec<u64>) {
        let history = self.history.get(&self.chosen);
        let newest = history.into_iter().flat_map(|h| h.iter().skip(h.len().saturating_sub(seconds)));
        newest.copied().unzip()
    }
}

#[cfg(test)]
mod tests;
