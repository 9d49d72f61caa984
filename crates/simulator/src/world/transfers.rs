//! Bytes on their way: one piece at a time per sender and receiver, at the rates that the links give.

use super::peers::PeerMessage;
use super::{Event, Nx, World};
use crate::links::{EdgeIx, NodeIx};
use headwater_model::id::NodeId;
use headwater_model::time::{Micros, Time};

/// What moves over an active edge of the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Nothing,
    /// A piece of end `side` of a connection to the other end.
    Peer {
        conn: u32,
        side: u8,
    },
    /// A piece of a run from the origin.
    Origin {
        node: Nx,
        run: u32,
    },
}

/// A piece on its way.
#[derive(Clone, Debug)]
pub(super) struct Moving {
    pub(super) what: What,
    pub(super) piece: u32,
    receiver: Nx,
    /// Bytes that are not through.
    left: f64,
    rate: f64,
    /// When `left` was right.
    at: Time,
    /// When the event that may finish it is due. Only made anew when it would come too late: one that comes too early
    /// finds bytes left.
    due: Time,
    serial: u32,
}

const NEVER: Time = Time(u64::MAX);

impl World {
    // ---- edges between nodes ----

    fn side_of(&self, node: Nx, child: &NodeId) -> Option<(u32, usize)> {
        let ix = self.live_connection(node, self.there(node, child))?;
        Some((ix, usize::from(self.connections[ix as usize].ends[1] == node)))
    }

    /// The child's queue is no longer empty.
    pub(super) fn serve(&mut self, node: Nx, child: &NodeId) {
        let Some((ix, side)) = self.side_of(node, child) else { return };
        let c = &self.connections[ix as usize];
        if c.sending[side].is_some() || c.broken {
            return;
        }
        let other = c.ends[1 - side];
        let Some(piece) = self.next_to_send(node, child) else { return };
        let from = self.nodes[node as usize].link;
        let edge = self.start(from, other, What::Peer { conn: ix, side: side as u8 }, piece);
        let c = &mut self.connections[ix as usize];
        c.sending[side] = Some(edge);
        if !std::mem::replace(&mut c.began[side], true) {
            self.send(node, child, PeerMessage::Began);
        }
    }

    pub(super) fn stop_serving(&mut self, node: Nx, child: &NodeId) {
        let Some((ix, side)) = self.side_of(node, child) else { return };
        let c = &mut self.connections[ix as usize];
        c.began[side] = false;
        if let Some(edge) = c.sending[side].take() {
            self.drop_transfer(edge);
        }
    }

    fn next_to_send(&mut self, node: Nx, child: &NodeId) -> Option<u32> {
        let swarm = self.nodes[node as usize].swarm.as_mut()?;
        let piece = swarm.next_to_send(self.now, child)?;
        if !swarm.have().get(piece) {
            self.violation(format!("node {node} sends piece {piece}, which it has not got"));
        }
        Some(piece)
    }

    fn peer_piece_through(&mut self, edge: EdgeIx, conn: u32, side: u8, piece: u32) {
        let c = &self.connections[conn as usize];
        let (node, other) = (c.ends[side as usize], c.ends[1 - side as usize]);
        let child = self.nodes[other as usize].id;
        let n = &self.nodes[node as usize];
        let corrupt = n.corrupt_until > self.now && self.rng.below(3) == 0;
        // The simulator's liars send bytes that are not the content.
        let bad = corrupt || n.spec.hostile.is_some() || n.rotten.contains(&piece);
        self.send(node, &child, PeerMessage::Piece { piece, bad });
        let mut out = std::mem::take(&mut self.outputs);
        if let Some(swarm) = &mut self.nodes[node as usize].swarm {
            swarm.sent(self.now, &child, piece, &mut out);
        }
        self.act(node, &mut out);
        self.outputs = out;
        match self.next_to_send(node, &child) {
            Some(next) => self.continue_with(edge, next),
            None => {
                self.connections[conn as usize].sending[side as usize] = None;
                self.drop_transfer(edge);
            }
        }
    }

    // ---- any edge ----

    pub(super) fn start(&mut self, from: NodeIx, receiver: Nx, what: What, piece: u32) -> EdgeIx {
        let to = self.nodes[receiver as usize].link;
        let (path, passed) = self.network.path(from, to);
        let edge = self.links.activate_through(from, to, &path[..passed]);
        let left = f64::from(self.layout(receiver).piece_len(piece));
        let new = Moving { what, piece, receiver, left, rate: 0.0, at: self.now, due: NEVER, serial: 0 };
        let ix = edge.0 as usize;
        if ix == self.moving.len() {
            self.moving.push(new);
        } else {
            let serial = self.moving[ix].serial + 1;
            self.moving[ix] = Moving { serial, ..new };
        }
        edge
    }

    pub(super) fn continue_with(&mut self, edge: EdgeIx, piece: u32) {
        let len = f64::from(self.layout(self.moving[edge.0 as usize].receiver).piece_len(piece));
        let m = &mut self.moving[edge.0 as usize];
        m.piece = piece;
        m.left += len;
        self.plan(edge);
    }

    /// The piece on its way is not sent to its end.
    pub(super) fn drop_transfer(&mut self, edge: EdgeIx) {
        self.progress(edge);
        let m = &mut self.moving[edge.0 as usize];
        m.what = What::Nothing;
        m.due = NEVER;
        self.set_flow(edge, 0.0);
        self.links.deactivate(edge);
    }

    fn progress(&mut self, edge: EdgeIx) {
        let m = &mut self.moving[edge.0 as usize];
        let moved = (m.rate * self.now.since(m.at).as_secs_f64()).min(m.left);
        m.left -= moved;
        m.at = self.now;
        let (from, to) = self.links.ends_of(edge);
        self.sent[from.0 as usize] += moved;
        self.network.count(from, to, moved);
    }

    /// Takes over an edge's rate, and whether anything comes to its receiver.
    fn set_flow(&mut self, edge: EdgeIx, rate: f64) {
        let m = &mut self.moving[edge.0 as usize];
        let (was, is) = (m.rate > 0.0, rate > 0.0);
        m.rate = rate;
        let n = &mut self.nodes[m.receiver as usize];
        if was == is {
            return;
        }
        if is {
            n.flowing += 1;
            if let Some(since) = n.idle_since.take() {
                n.longest_wait = n.longest_wait.max(self.now.since(since));
            }
        } else {
            n.flowing -= 1;
            let waits = n.completed.is_none() && n.swarm.is_some();
            n.idle_since = Some(self.now).filter(|_| n.flowing == 0 && waits);
        }
    }

    fn plan(&mut self, edge: EdgeIx) {
        let m = &mut self.moving[edge.0 as usize];
        if m.rate <= 0.0 {
            return;
        }
        let due = self.now + Micros((m.left / m.rate * 1e6).ceil().max(0.0) as u64);
        if due < m.due {
            m.due = due;
            self.queue.push(due, Event::Finish(edge, m.serial));
        }
    }

    /// Takes over the rates that the links changed since the last step.
    pub(super) fn settle_rates(&mut self) {
        let mut changed = std::mem::take(&mut self.changed);
        self.links.drain_changed(&mut changed);
        for edge in changed.drain(..) {
            self.progress(edge);
            self.set_flow(edge, self.links.rate(edge));
            self.plan(edge);
        }
        self.changed = changed;
    }

    pub(super) fn finish(&mut self, edge: EdgeIx, serial: u32) {
        let m = &mut self.moving[edge.0 as usize];
        if m.serial != serial || m.due != self.now || m.what == What::Nothing {
            return;
        }
        m.due = NEVER;
        self.progress(edge);
        let m = &self.moving[edge.0 as usize];
        if m.left > 1e-3 {
            return self.plan(edge);
        }
        let piece = m.piece;
        match m.what {
            What::Nothing => {}
            What::Peer { conn, side } => self.peer_piece_through(edge, conn, side, piece),
            What::Origin { node, run } => self.origin_piece_through(edge, node, run, piece),
        }
    }
}
