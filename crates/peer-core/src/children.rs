//! The parent's side: edges to children, what they asked for, what they were told.

use crate::edges::{EdgeStage, EdgeView};
use crate::swarm::{Output, Swarm};
use headwater_model::id::NodeId;
use headwater_model::report::EdgeReport;
use headwater_model::time::{Micros, Time};
use std::collections::VecDeque;

/// A child.
#[derive(Clone, Debug)]
pub(crate) struct ChildLink {
    queue: VecDeque<u32>,
    pub(crate) untold: Vec<u32>,
    pub(crate) told_at: Time,
    busy_since: Option<Time>,
    waited: Micros,
    pieces: u64,
    bytes: u64,
    pub(crate) rtt: Micros,
    /// Sent and lost.
    pub(crate) packets: (u64, u64),
}

impl ChildLink {
    pub(crate) fn queue(&self) -> &VecDeque<u32> {
        &self.queue
    }
    pub(crate) fn view(&self, node: NodeId) -> EdgeView {
        EdgeView {
            node,
            stage: EdgeStage::Open,
            spare: false,
            bytes: self.bytes,
            waiting_pieces: self.queue.len(),
            rtt: self.rtt,
        }
    }
    /// The piece is no longer here.
    pub(crate) fn forget(&mut self, piece: u32) {
        self.queue.retain(|p| *p != piece);
        self.untold.retain(|p| *p != piece);
    }
    pub(crate) fn report(&mut self, now: Time, node: NodeId) -> EdgeReport {
        if let Some(since) = self.busy_since {
            self.waited = Micros(self.waited.0 + now.since(since).0);
            self.busy_since = Some(now);
        }
        let waited = std::mem::take(&mut self.waited);
        EdgeReport {
            node,
            pieces: self.pieces,
            bytes: self.bytes,
            waited,
            rtt: self.rtt,
            sent_packets: self.packets.0,
            lost_packets: self.packets.1,
            offers_nothing: false,
            last_pieces: Vec::new(),
        }
    }
}

impl Swarm {
    pub(crate) fn child_opened(&mut self, now: Time, child: NodeId, out: &mut Vec<Output>) {
        if self.children.len() >= self.config.max_children && !self.children.contains_key(&child) {
            out.push(Output::CloseChild(child, "too many children"));
            return;
        }
        let link = ChildLink {
            queue: VecDeque::new(),
            untold: Vec::new(),
            told_at: now,
            busy_since: None,
            waited: Micros(0),
            pieces: 0,
            bytes: 0,
            rtt: Micros(0),
            packets: (0, 0),
        };
        self.children.insert(child, link);
        out.push(Output::TellAll(child));
    }

    pub(crate) fn child_closed(&mut self, child: &NodeId) {
        self.children.remove(child);
    }

    pub(crate) fn asked(&mut self, now: Time, child: NodeId, pieces: &[u32], out: &mut Vec<Output>) {
        let (have, max) = (&self.have, self.config.max_queue_pieces);
        let Some(c) = self.children.get_mut(&child) else { return };
        let idle = c.queue.is_empty();
        for piece in pieces.iter().filter(|p| have.get(**p)) {
            if c.queue.len() >= max {
                break;
            }
            if !c.queue.contains(piece) {
                c.queue.push_back(*piece);
            }
        }
        if idle && !c.queue.is_empty() {
            c.busy_since.get_or_insert(now);
            out.push(Output::Serve(child));
        }
    }

    pub(crate) fn unasked(&mut self, child: NodeId, pieces: &[u32]) {
        if let Some(c) = self.children.get_mut(&child) {
            c.queue.retain(|p| !pieces.contains(p));
        }
    }

    /// Pieces that wait to be sent to `child`.
    pub fn queued(&self, child: &NodeId) -> usize {
        self.children.get(child).map_or(0, |c| c.queue.len())
    }

    /// The next piece to send to `child`; it counts as sent when [`Swarm::sent`] says so.
    pub fn next_to_send(&mut self, now: Time, child: &NodeId) -> Option<u32> {
        let c = self.children.get_mut(child)?;
        let next = c.queue.pop_front();
        if next.is_none()
            && let Some(since) = c.busy_since.take()
        {
            c.waited = Micros(c.waited.0 + now.since(since).0);
        }
        next
    }

    /// A piece went out to `child`. Returns news for a child that now has nothing left to wait for.
    pub fn sent(&mut self, now: Time, child: &NodeId, piece: u32, out: &mut Vec<Output>) {
        let len = u64::from(self.layout.piece_len(piece));
        let Some(c) = self.children.get_mut(child) else { return };
        c.pieces += 1;
        c.bytes += len;
        if c.queue.is_empty() && !c.untold.is_empty() {
            tell(c, *child, now, out);
        }
    }

    /// A new piece: children that nothing is sent to hear of it at once, others with more pieces.
    pub(crate) fn tell_of(&mut self, now: Time, piece: u32, out: &mut Vec<Output>) {
        let (delay, batch) = (self.config.have_delay, self.config.have_batch);
        for (node, c) in &mut self.children {
            c.untold.push(piece);
            if c.busy_since.is_none() || c.untold.len() >= batch || now.since(c.told_at) >= delay {
                tell(c, *node, now, out);
            } else {
                let due = c.told_at + delay;
                self.tell_at = Some(self.tell_at.map_or(due, |t| t.min(due)));
            }
        }
    }

    pub(crate) fn tell_children(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.tell_at.is_none_or(|t| t > now) {
            return;
        }
        let delay = self.config.have_delay;
        self.tell_at = None;
        for (node, c) in self.children.iter_mut().filter(|(_, c)| !c.untold.is_empty()) {
            let due = c.told_at + delay;
            if due <= now {
                tell(c, *node, now, out);
            } else {
                self.tell_at = Some(self.tell_at.map_or(due, |t| t.min(due)));
            }
        }
    }
}

fn tell(c: &mut ChildLink, node: NodeId, now: Time, out: &mut Vec<Output>) {
    c.told_at = now;
    out.push(Output::Tell(node, std::mem::take(&mut c.untold)));
}
