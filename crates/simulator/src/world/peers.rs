//! Connections between nodes, and what they say to each other over them.

use super::{Event, Nx, World};
use crate::links::EdgeIx;
use crate::scenario::Reach;
use headwater_model::bits::Bits;
use headwater_model::id::NodeId;
use headwater_model::node::Accepts;
use headwater_model::report::DialResult;
use headwater_model::rng::{Rng, mix64};
use headwater_model::time::Micros;
use headwater_peer_core::{Input, PageSource, PieceFrom, PieceOutcome};

use super::control::ToCenter;

/// A dial that nobody answers is given up.
const DIAL_OVER: Micros = Micros::from_millis(1500);

/// From node to node.
#[derive(Debug)]
pub(super) enum PeerMessage {
    Open,
    Answer(Option<String>),
    Close,
    Dropped(&'static str),
    Ask(Vec<u32>),
    Unask(Vec<u32>),
    Has(Vec<u32>),
    HasAll(Bits),
    /// The first byte of the first piece.
    Began,
    Piece {
        piece: u32,
        bad: bool,
    },
    ToldBad(u32),
    AskPage(u32),
    Page(u32),
    NoPage(u32),
}

/// A connection between two nodes.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) ends: [Nx; 2],
    /// Told apart from former ones in the same place.
    pub(super) serial: u32,
    pub(super) latency: Micros,
    /// Messages no longer get through; the ends find out later.
    pub(super) broken: bool,
    /// Ends that have not let go of it.
    pub(super) held: u8,
    /// What each end is sending.
    pub(super) sending: [Option<EdgeIx>; 2],
    /// Whether each end has begun to send.
    pub(super) began: [bool; 2],
}

pub(super) fn pair(a: Nx, b: Nx) -> (Nx, Nx) {
    (a.min(b), a.max(b))
}

impl World {
    /// One way between two nodes, the same in both directions; without a `[network]` 5 to 45 ms.
    pub(super) fn latency(&self, a: Nx, b: Nx) -> Micros {
        if let Some(latency) = self.network_latency(self.nodes[a as usize].link, self.nodes[b as usize].link) {
            return latency;
        }
        let (a, b) = pair(a, b);
        Micros(5_000 + mix64(self.seed ^ (u64::from(a) << 32 | u64::from(b))) % 40_000)
    }

    /// Whether NATs and broken links let the two connect when `from` dials.
    fn reachable(&self, from: Nx, to: Nx) -> bool {
        let host = |node: Nx| (node as usize, &self.nodes[node as usize].spec);
        let (a, b) = (host(from), host(to));
        let listens = b.1.reach != Reach::DialOnly && b.1.reach.has_udp();
        let same_site = a.1.site.is_some() && a.1.site == b.1.site;
        let answers = self.scenario.accepts(b.1) != Accepts::DialOnly || (same_site && listens);
        answers && self.scenario.connects(self.seed, a, b) && !self.apart(from, to)
    }

    /// The connection of `node` to `other`, unless it is known to be gone.
    pub(super) fn live_connection(&self, node: Nx, other: Nx) -> Option<u32> {
        self.nodes[node as usize].connections.get(&other).copied()
    }

    pub(super) fn wants_connection(&mut self, node: Nx, other: &NodeId, may_dial: bool, wait: Micros) {
        let life = self.nodes[node as usize].life;
        let there = self.there(node, other);
        if self.live_connection(node, there).is_some() {
            self.queue.push(self.now, Event::Connected(node, life, *other));
        } else if may_dial {
            self.queue.push(self.now + wait, Event::Dial(node, life, there));
        }
    }

    pub(super) fn dial(&mut self, node: Nx, other: Nx) {
        if self.live_connection(node, other).is_some() || !self.nodes[node as usize].dialling.insert(other) {
            return;
        }
        let life = self.nodes[node as usize].life;
        let latency = self.latency(node, other);
        self.queue.push(self.now + latency.times(3), Event::DialDone(node, life, other));
    }

    pub(super) fn dial_done(&mut self, node: Nx, other: Nx) {
        let answers = {
            let o = &self.nodes[other as usize];
            o.swarm.is_some() && o.frozen_until <= self.now
        };
        if !answers || !self.reachable(node, other) {
            let life = self.nodes[node as usize].life;
            self.queue.push(self.now + DIAL_OVER, Event::DialFailed(node, life, other));
            return;
        }
        self.nodes[node as usize].dialling.remove(&other);
        if let Some(c) = self.live_connection(node, other) {
            if !self.connections[c as usize].broken {
                return;
            }
            self.let_go(node, c, Input::Replaced);
        }
        // The other end may still hold one that it does not know to be gone.
        if let Some(old) = self.live_connection(other, node) {
            self.let_go(other, old, Input::Replaced);
        }
        self.connect(node, other);
        self.dialled(node, other, None);
        let (a, b) = (self.nodes[node as usize].id, self.nodes[other as usize].id);
        self.tell(other, Input::Connected(a));
        self.tell(node, Input::Connected(b));
    }

    pub(super) fn dial_failed(&mut self, node: Nx, other: Nx) {
        self.nodes[node as usize].dialling.remove(&other);
        if self.live_connection(node, other).is_some() {
            return;
        }
        self.dialled(node, other, Some("no answer".into()));
        let id = self.nodes[other as usize].id;
        self.tell(node, Input::Lost { node: id, why: "could not be dialled".into() });
    }

    fn dialled(&mut self, node: Nx, other: Nx, error: Option<String>) {
        let result = DialResult { node: self.nodes[other as usize].id, error };
        let input = headwater_center_core::Input::Dialled(self.nodes[node as usize].id, result);
        self.tell_center(node, ToCenter::Input(Box::new(input)));
    }

    fn connect(&mut self, a: Nx, b: Nx) {
        if !self.scenario.can_connect(&self.nodes[a as usize].spec, &self.nodes[b as usize].spec) {
            self.violation(format!("nodes {a} and {b} cannot reach each other and are connected"));
        }
        let latency = self.latency(a, b);
        let new = Connection {
            ends: [a, b],
            serial: 0,
            latency,
            broken: false,
            held: 2,
            sending: [None; 2],
            began: [false; 2],
        };
        let ix = match self.free_connections.pop() {
            Some(ix) => {
                let serial = self.connections[ix as usize].serial + 1;
                self.connections[ix as usize] = Connection { serial, ..new };
                ix
            }
            None => {
                self.connections.push(new);
                self.connections.len() as u32 - 1
            }
        };
        self.nodes[a as usize].connections.insert(b, ix);
        self.nodes[b as usize].connections.insert(a, ix);
    }

    /// Nothing gets through any more; each end that still runs notices after `notice`.
    pub(super) fn break_connection(&mut self, ix: u32, notice: impl Fn(&mut Rng) -> Micros) {
        if self.connections[ix as usize].broken {
            return;
        }
        self.connections[ix as usize].broken = true;
        for side in 0..2 {
            if let Some(edge) = self.connections[ix as usize].sending[side].take() {
                self.drop_transfer(edge);
            }
            let serial = self.connections[ix as usize].serial;
            let at = self.now + notice(&mut self.rng);
            self.queue.push(at, Event::Lost { conn: ix, serial, side: side as u8 });
        }
    }

    pub(super) fn connection_lost(&mut self, ix: u32, serial: u32, side: u8) {
        let c = &self.connections[ix as usize];
        let node = c.ends[side as usize];
        if c.serial == serial && self.nodes[node as usize].connections.get(&c.ends[1 - side as usize]) == Some(&ix) {
            self.let_go(node, ix, |node| Input::Lost { node, why: "the connection broke".into() });
        }
    }

    /// One end forgets a connection; its swarm hears of it.
    pub(super) fn let_go(&mut self, node: Nx, ix: u32, what: impl FnOnce(NodeId) -> Input) {
        self.break_connection(ix, |_| Micros(0));
        let c = &mut self.connections[ix as usize];
        let other = if c.ends[0] == node { c.ends[1] } else { c.ends[0] };
        if self.nodes[node as usize].connections.remove(&other).is_none() {
            return;
        }
        c.held -= 1;
        if c.held == 0 {
            c.serial += 1;
            self.free_connections.push(ix);
        }
        let id = self.nodes[other as usize].id;
        if self.nodes[node as usize].swarm.is_some() {
            self.tell(node, what(id));
        }
    }

    pub(super) fn send(&mut self, from: Nx, to: &NodeId, message: PeerMessage) {
        let Some(ix) = self.live_connection(from, self.there(from, to)) else { return };
        self.peer_messages += 1;
        let c = &self.connections[ix as usize];
        if c.broken {
            return;
        }
        let side = u8::from(c.ends[0] == from);
        let event = Event::Peer { conn: ix, serial: c.serial, side, message };
        self.queue.push(self.now + c.latency, event);
    }

    pub(super) fn deliver(&mut self, conn: u32, serial: u32, side: u8, message: PeerMessage) {
        let c = &self.connections[conn as usize];
        if c.serial != serial || c.broken {
            return;
        }
        let (node, other) = (c.ends[side as usize], c.ends[1 - side as usize]);
        let (from, latency) = (self.nodes[other as usize].id, c.latency);
        if self.nodes[node as usize].swarm.is_none() {
            return;
        }
        match message {
            PeerMessage::Open => self.open_edge(node, from, latency),
            PeerMessage::Answer(refused) => {
                let opened = refused.is_none();
                self.tell(node, Input::Answered { parent: from, refused });
                if opened {
                    self.tell(node, Input::Rtt(from, latency.times(2)));
                }
            }
            PeerMessage::Close => {
                self.stop_serving(node, &from);
                self.tell(node, Input::ChildClosed(from));
            }
            PeerMessage::Dropped(why) => self.tell(node, Input::Lost { node: from, why: why.into() }),
            PeerMessage::Ask(pieces) => self.tell(node, Input::Asked(from, pieces)),
            PeerMessage::Unask(pieces) => self.tell(node, Input::Unasked(from, pieces)),
            PeerMessage::Has(pieces) => self.tell(node, Input::Has(from, pieces)),
            PeerMessage::HasAll(bits) => self.tell(node, Input::HasAll(from, bits)),
            PeerMessage::Began => self.tell(node, Input::Began(from)),
            PeerMessage::Piece { piece, bad } => {
                let outcome = self.outcome_of(node, piece, bad);
                if outcome == PieceOutcome::Stored {
                    self.nodes[node as usize].peer_bytes += u64::from(self.layout(node).piece_len(piece));
                }
                self.tell(node, Input::Piece { from: PieceFrom::Parent(from), piece, outcome });
            }
            PeerMessage::ToldBad(piece) => {
                // The shell reads the piece again and hashes it.
                if self.nodes[node as usize].rotten.remove(&piece) {
                    self.tell(node, Input::Rotten(piece));
                }
            }
            PeerMessage::AskPage(page) => {
                let has = self.nodes[node as usize].pages.get(page);
                self.send(node, &from, if has { PeerMessage::Page(page) } else { PeerMessage::NoPage(page) });
            }
            PeerMessage::Page(page) => {
                self.nodes[node as usize].pages.set(page);
                self.tell(node, Input::Page(page));
            }
            PeerMessage::NoPage(page) => self.tell(node, Input::NoPage(PageSource::Parent(from), page)),
        }
    }

    /// What verification and the store say of a piece that came.
    pub(super) fn outcome_of(&mut self, node: Nx, piece: u32, bad: bool) -> PieceOutcome {
        let len = u64::from(self.layout(node).piece_len(piece));
        let n = &mut self.nodes[node as usize];
        let here = n.swarm.as_ref().is_some_and(|s| s.have().get(piece));
        let outcome = match (bad, here) {
            (true, _) => PieceOutcome::Bad,
            (_, true) => PieceOutcome::Already,
            _ => PieceOutcome::Stored,
        };
        if outcome != PieceOutcome::Stored {
            n.wasted_bytes += len;
        }
        outcome
    }

    /// A child shows its ticket. The parent's shell answers before it tells what is held.
    fn open_edge(&mut self, node: Nx, child: NodeId, latency: Micros) {
        // An edge that is opened anew starts with an empty queue.
        self.stop_serving(node, &child);
        let mut out = std::mem::take(&mut self.outputs);
        if let Some(swarm) = &mut self.nodes[node as usize].swarm {
            swarm.handle(self.now, Input::ChildOpened(child), &mut out);
        }
        let open = self.nodes[node as usize].swarm.as_ref().is_some_and(|s| s.is_child(&child));
        let refused = (!open).then(|| "it has too many children".to_owned());
        self.send(node, &child, PeerMessage::Answer(refused));
        self.act(node, &mut out);
        self.outputs = out;
        self.tell(node, Input::Rtt(child, latency.times(2)));
    }
}
