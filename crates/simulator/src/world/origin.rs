//! The origin: an HTTP server whose uplink is shared by whoever fetches a run.

use super::transfers::What;
use super::{Event, Nx, World};
use crate::links::{EdgeIx, NodeIx};
use headwater_model::time::Micros;
use headwater_peer_core::{Input, PieceFrom, PieceOutcome};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// One way to the origin, without a `[network]`.
const LATENCY: Micros = Micros::from_millis(20);
/// A request that is not answered is given up.
const REQUEST_OVER: Micros = Micros::from_millis(1000);

/// A request for pieces of one run.
#[derive(Debug)]
struct Request {
    serial: u32,
    pieces: VecDeque<u32>,
    edge: Option<EdgeIx>,
}

/// The origin's state.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) link: NodeIx,
    pub(super) up: bool,
    requests: BTreeMap<(Nx, u32), Request>,
    made: u32,
}

impl Origin {
    pub(super) fn new(link: NodeIx) -> Self {
        Self { link, up: true, requests: BTreeMap::new(), made: 0 }
    }
}

impl World {
    pub(super) fn fetch_origin(&mut self, node: Nx, run: u32, pieces: Vec<Range<u32>>) {
        self.stop_origin(node, run);
        self.origin.made += 1;
        let serial = self.origin.made;
        let request = Request { serial, pieces: pieces.into_iter().flatten().collect(), edge: None };
        self.origin.requests.insert((node, run), request);
        let life = self.nodes[node as usize].life;
        // Request there; the answer's way back is counted at each piece.
        self.queue.push(self.now + self.origin_latency(node), Event::OriginAnswers { node, life, run, serial });
    }

    pub(super) fn origin_answers(&mut self, node: Nx, run: u32, serial: u32) {
        if self.origin.requests.get(&(node, run)).is_none_or(|r| r.serial != serial) {
            return;
        }
        if !self.origin.up || self.cut_off(node) {
            self.origin.requests.remove(&(node, run));
            let life = self.nodes[node as usize].life;
            return self.queue.push(self.now + REQUEST_OVER, Event::OriginFails { node, life, run });
        }
        let Some(first) = self.origin.requests.get_mut(&(node, run)).and_then(|r| r.pieces.pop_front()) else { return };
        let (from, to) = (self.origin.link, self.nodes[node as usize].link);
        let edge = self.start(from, to, What::Origin { node, run }, first);
        if let Some(request) = self.origin.requests.get_mut(&(node, run)) {
            request.edge = Some(edge);
        }
    }

    pub(super) fn origin_piece_through(&mut self, edge: EdgeIx, node: Nx, run: u32, piece: u32) {
        let life = self.nodes[node as usize].life;
        self.queue.push(self.now + self.origin_latency(node), Event::OriginPiece { node, life, piece });
        match self.origin.requests.get_mut(&(node, run)).and_then(|r| r.pieces.pop_front()) {
            Some(next) => self.continue_with(edge, next),
            None => {
                self.origin.requests.remove(&(node, run));
                self.drop_transfer(edge);
            }
        }
    }

    pub(super) fn origin_piece(&mut self, node: Nx, piece: u32) {
        let outcome = self.outcome_of(node, piece, false);
        if outcome == PieceOutcome::Stored {
            self.nodes[node as usize].origin_bytes += u64::from(self.layout.piece_len(piece));
        }
        self.tell(node, Input::Piece { from: PieceFrom::Origin, piece, outcome });
    }

    pub(super) fn stop_origin(&mut self, node: Nx, run: u32) {
        if let Some(edge) = self.origin.requests.remove(&(node, run)).and_then(|r| r.edge) {
            self.drop_transfer(edge);
        }
    }

    pub(super) fn stop_origin_of(&mut self, node: Nx) {
        let runs: Vec<u32> = self.origin.requests.range((node, 0)..=(node, u32::MAX)).map(|((_, r), _)| *r).collect();
        for run in runs {
            self.stop_origin(node, run);
        }
    }

    /// One way between a node and the origin.
    fn origin_latency(&self, node: Nx) -> Micros {
        self.network_latency(self.nodes[node as usize].link, self.origin.link).unwrap_or(LATENCY)
    }

    /// A node no longer reaches the origin: its requests are given up.
    pub(super) fn origin_lost(&mut self, node: Nx) {
        let runs: Vec<u32> = self.origin.requests.range((node, 0)..=(node, u32::MAX)).map(|((_, r), _)| *r).collect();
        let life = self.nodes[node as usize].life;
        for run in runs {
            self.stop_origin(node, run);
            self.queue.push(self.now + REQUEST_OVER, Event::OriginFails { node, life, run });
        }
    }

    /// The origin goes away: what it was sending breaks off.
    pub(super) fn origin_goes(&mut self) {
        self.origin.up = false;
        for (node, run) in self.origin.requests.keys().copied().collect::<Vec<_>>() {
            let was_sending = self.origin.requests.get(&(node, run)).is_some_and(|r| r.edge.is_some());
            if was_sending {
                self.stop_origin(node, run);
                let life = self.nodes[node as usize].life;
                self.queue.push(self.now + LATENCY, Event::OriginFails { node, life, run });
            }
        }
    }
}
