//! Leased runs: from the origin, an HTTP server whose uplink is shared by whoever fetches a run, and by HTTPS from
//! waypoints, whose uplink these share with their children.

use super::transfers::What;
use super::{Event, Nx, World};
use crate::links::EdgeIx;
use headwater_model::assignment::LeaseSource;
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
    /// The waypoint; `None` for the origin.
    from: Option<Nx>,
    pieces: VecDeque<u32>,
    edge: Option<EdgeIx>,
}

/// The origin's state.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) up: bool,
    requests: BTreeMap<(Nx, u32), Request>,
    made: u32,
}

impl Origin {
    pub(super) fn new() -> Self {
        Self { up: true, requests: BTreeMap::new(), made: 0 }
    }
}

impl World {
    pub(super) fn fetch_origin(&mut self, node: Nx, run: u32, source: &LeaseSource, pieces: Vec<Range<u32>>) {
        let from = match source {
            LeaseSource::Origin => None,
            LeaseSource::Waypoint { node: waypoint, .. } => Some(self.there(node, waypoint)),
        };
        self.stop_origin(node, run);
        self.origin.made += 1;
        let serial = self.origin.made;
        let request = Request { serial, from, pieces: pieces.into_iter().flatten().collect(), edge: None };
        self.origin.requests.insert((node, run), request);
        let life = self.nodes[node as usize].life;
        // Request there; the answer's way back is counted at each piece.
        self.queue.push(self.now + self.source_latency(node, from), Event::OriginAnswers { node, life, run, serial });
    }

    pub(super) fn origin_answers(&mut self, node: Nx, run: u32, serial: u32) {
        let Some(request) = self.origin.requests.get_mut(&(node, run)).filter(|r| r.serial == serial) else { return };
        let (from, first) = (request.from, request.pieces.front().copied());
        let Some(first) = first else { return };
        let reached = match from {
            None => self.origin.up && !self.cut_off(node),
            Some(waypoint) => !self.apart(node, waypoint) && self.holds(waypoint, first),
        };
        if !reached {
            self.origin.requests.remove(&(node, run));
            let life = self.nodes[node as usize].life;
            return self.queue.push(self.now + REQUEST_OVER, Event::OriginFails { node, life, run });
        }
        let sender = from.map_or(self.origin_of(node), |w| self.nodes[w as usize].link);
        let edge = self.start(sender, node, What::Origin { node, run }, first);
        if let Some(request) = self.origin.requests.get_mut(&(node, run)) {
            request.pieces.pop_front();
            request.edge = Some(edge);
        }
    }

    fn holds(&self, node: Nx, piece: u32) -> bool {
        self.nodes[node as usize].swarm.as_ref().is_some_and(|s| s.have().get(piece))
    }

    pub(super) fn origin_piece_through(&mut self, edge: EdgeIx, node: Nx, run: u32, piece: u32) {
        let life = self.nodes[node as usize].life;
        let request = self.origin.requests.get_mut(&(node, run));
        let (from, next) = request.map_or((None, None), |r| (r.from, r.pieces.pop_front()));
        self.queue.push(self.now + self.source_latency(node, from), Event::OriginPiece { node, life, piece, from });
        match next {
            // One that rotted meanwhile ends the answer.
            Some(next) if from.is_some_and(|w| !self.holds(w, next)) => {
                self.stop_origin(node, run);
                self.queue.push(self.now + REQUEST_OVER, Event::OriginFails { node, life, run });
            }
            Some(next) => self.continue_with(edge, next),
            None => {
                self.origin.requests.remove(&(node, run));
                self.drop_transfer(edge);
            }
        }
    }

    pub(super) fn origin_piece(&mut self, node: Nx, piece: u32, from: Option<Nx>) {
        let outcome = self.outcome_of(node, piece, false);
        let len = u64::from(self.layout(node).piece_len(piece));
        let n = &mut self.nodes[node as usize];
        let counter = if from.is_none() { &mut n.origin_bytes } else { &mut n.peer_bytes };
        if outcome == PieceOutcome::Stored {
            *counter += len;
        }
        let from = from.map_or(PieceFrom::Origin, |w| PieceFrom::Waypoint(self.nodes[w as usize].id));
        self.tell(node, Input::Piece { from, piece, outcome });
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

    /// One way between a node and the origin, or a waypoint.
    fn source_latency(&self, node: Nx, from: Option<Nx>) -> Micros {
        let sender = from.map_or(self.origin_of(node), |w| self.nodes[w as usize].link);
        self.network_latency(self.nodes[node as usize].link, sender).unwrap_or(LATENCY)
    }

    /// A node no longer reaches the origin: its requests are given up.
    pub(super) fn origin_lost(&mut self, node: Nx) {
        self.requests_fail(|by, from| by == node && from.is_none());
    }

    /// A waypoint's process ended, or it is cut off: requests to it are given up.
    pub(super) fn waypoint_lost(&mut self, waypoint: Nx) {
        self.requests_fail(|_, from| from == Some(waypoint));
    }

    /// Requests by a node of a source, where `lost` says so, end as failures.
    fn requests_fail(&mut self, lost: impl Fn(Nx, Option<Nx>) -> bool) {
        let requests = self.origin.requests.iter();
        let lost: Vec<(Nx, u32)> = requests.filter(|((by, _), r)| lost(*by, r.from)).map(|(key, _)| *key).collect();
        for (node, run) in lost {
            self.stop_origin(node, run);
            let life = self.nodes[node as usize].life;
            self.queue.push(self.now + REQUEST_OVER, Event::OriginFails { node, life, run });
        }
    }

    /// The origin goes away: what it was sending breaks off.
    pub(super) fn origin_goes(&mut self) {
        self.origin.up = false;
        for (node, run) in self.origin.requests.keys().copied().collect::<Vec<_>>() {
            let request = self.origin.requests.get(&(node, run));
            let was_sending = request.is_some_and(|r| r.edge.is_some() && r.from.is_none());
            if was_sending {
                self.stop_origin(node, run);
                let life = self.nodes[node as usize].life;
                self.queue.push(self.now + LATENCY, Event::OriginFails { node, life, run });
            }
        }
    }
}
