//! The origin's line as one pipe: all fetches share what pushing leaves of it, each as much as any other.

use super::viewers::Who;
use headwater_model::live::LIVE_PIECE_BYTES;
use headwater_model::time::{Micros, Time};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What TCP sends before the first acknowledgement (RFC 6928).
const FIRST_WINDOW_BYTES: u64 = 14_600;
/// Pushing never takes all of it from fetches.
const LEAST_SHARE: f64 = 0.01;
/// Parts of a byte in which service is counted, so that fetches are in an order that no rounding changes.
const PARTS: f64 = 1024.0;

/// A fetch that is over when each has had so much: service, number, whose.
type Fetch = (u64, u64, Who);

/// See the module.
#[derive(Debug)]
pub(super) struct Pipe {
    /// Bytes per second in all, and what is left of it.
    line: f64,
    rate: f64,
    /// What each fetch that was there all the time has had, in parts of bytes.
    served: f64,
    at: Time,
    fetches: BinaryHeap<Reverse<Fetch>>,
    made: u64,
}

impl Pipe {
    pub(super) fn new(line: f64) -> Pipe {
        Pipe { line, rate: line, served: 0.0, at: Time(0), fetches: BinaryHeap::new(), made: 0 }
    }

    /// So much of it is used otherwise, in bytes per second.
    pub(super) fn used(&mut self, now: Time, otherwise: f64) {
        self.pass(now);
        self.rate = (self.line - otherwise).max(self.line * LEAST_SHARE);
    }

    pub(super) fn fetch(&mut self, now: Time, who: Who, bytes: u64) {
        self.pass(now);
        self.made += 1;
        let over = self.served + bytes as f64 * PARTS;
        self.fetches.push(Reverse((over as u64, self.made, who)));
    }

    /// What a further fetch would have, in bytes per second.
    pub(super) fn share(&self) -> f64 {
        self.rate / (self.fetches.len() + 1) as f64
    }

    /// When the next fetch is over.
    pub(super) fn next_at(&self) -> Option<Time> {
        let Reverse((over, ..)) = self.fetches.peek()?;
        let left = (*over as f64 - self.served).max(0.0) / PARTS * self.fetches.len() as f64;
        Some(self.at + Micros((left / self.rate * 1e6) as u64 + 1))
    }

    /// Whose fetch is over now.
    pub(super) fn pop(&mut self, now: Time) -> Option<Who> {
        self.pass(now);
        let Reverse((over, ..)) = self.fetches.peek()?;
        if *over as f64 > self.served {
            return None;
        }
        self.fetches.pop().map(|Reverse((.., who))| who)
    }

    fn pass(&mut self, now: Time) {
        let seconds = now.since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        if !self.fetches.is_empty() {
            self.served += self.rate * PARTS * seconds / self.fetches.len() as f64;
        }
    }
}

/// What a fetch takes over an idle line, from the request to the last byte: a handshake, and slow start, in which each round
/// trip brings twice what the one before did. `way` is one way, `down` the fetcher's downlink in bytes per second.
pub(super) fn slow_start(way: Micros, bytes: u64, down: f64) -> Micros {
    let (mut rounds, mut window, mut rest) = (0, FIRST_WINDOW_BYTES, bytes);
    let mut last = 0;
    while rest > 0 {
        // Whole pieces are asked for.
        let pieces = (window / u64::from(LIVE_PIECE_BYTES)).max(1);
        last = rest.min(pieces * u64::from(LIVE_PIECE_BYTES));
        rest -= last;
        window *= 2;
        rounds += 1;
    }
    way.times(2 * rounds + 2) + Micros((last as f64 / down.max(1.0) * 1e6) as u64)
}
