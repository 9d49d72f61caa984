//! A node's uplink: one piece after the other, those who wait in turn, as the shell's tasks write to its pacer.

use super::messages::Nx;
use headwater_model::time::{Micros, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Who waits for the uplink.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Turn {
    /// What is pushed to a child of a substream.
    Child(Nx, u8),
    /// At the origin: a fetch, by its number here.
    Fetch(u64),
}

/// A piece that is being sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    pub(super) turn: Turn,
    pub(super) piece: u64,
    pub(super) bytes: u64,
}

/// What the origin was asked for.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) node: Nx,
    /// The job that is over with these.
    pub(super) ends: Option<u64>,
    pub(super) pieces: VecDeque<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Uplink {
    /// Bytes per second.
    rate: f64,
    /// What is pushed goes before what is fetched: a publisher whose line the origin shares cannot have its stream wait.
    pushes: VecDeque<Turn>,
    fetched: VecDeque<Turn>,
    /// Those in both.
    waiting: BTreeSet<Turn>,
    pub(super) sending: Option<Sending>,
    pub(super) fetches: BTreeMap<u64, Fetch>,
    next_fetch: u64,
    /// Messages that went out since the last piece, in bytes: they make the next one later.
    owed_bytes: u64,
    /// Messages in all.
    pub(super) message_bytes: u64,
    pub(super) pushed_bytes: u64,
    pub(super) fetched_bytes: u64,
}

impl Uplink {
    pub(super) fn new(rate: f64) -> Uplink {
        Uplink {
            rate,
            pushes: VecDeque::new(),
            fetched: VecDeque::new(),
            waiting: BTreeSet::new(),
            sending: None,
            fetches: BTreeMap::new(),
            next_fetch: 0,
            owed_bytes: 0,
            message_bytes: 0,
            pushed_bytes: 0,
            fetched_bytes: 0,
        }
    }

    /// It has something to send.
    pub(super) fn wants(&mut self, turn: Turn) {
        let is_sent = self.sending.is_some_and(|s| s.turn == turn);
        if !is_sent && self.waiting.insert(turn) {
            match turn {
                Turn::Child(..) => self.pushes.push_back(turn),
                Turn::Fetch(_) => self.fetched.push_back(turn),
            }
        }
    }

    /// The origin is asked for pieces.
    pub(super) fn fetch(&mut self, fetch: Fetch) {
        self.fetches.insert(self.next_fetch, fetch);
        self.wants(Turn::Fetch(self.next_fetch));
        self.next_fetch += 1;
    }

    /// A message went out.
    pub(super) fn message(&mut self, bytes: u64) {
        self.owed_bytes += bytes;
        self.message_bytes += bytes;
    }

    /// Who is next.
    pub(super) fn next_turn(&mut self) -> Option<Turn> {
        let turn = self.pushes.pop_front().or_else(|| self.fetched.pop_front())?;
        self.waiting.remove(&turn);
        Some(turn)
    }

    /// A piece goes out from now on: when its last byte has left.
    pub(super) fn begin(&mut self, now: Time, sending: Sending) -> Time {
        let bytes = sending.bytes + std::mem::take(&mut self.owed_bytes);
        self.sending = Some(sending);
        now + Micros((bytes as f64 / self.rate.max(1.0) * 1e6) as u64 + 1)
    }

    /// It has gone out; whoever sent it may have more.
    pub(super) fn end(&mut self) -> Option<Sending> {
        let sent = self.sending.take()?;
        match sent.turn {
            Turn::Child(..) => self.pushed_bytes += sent.bytes,
            Turn::Fetch(_) => self.fetched_bytes += sent.bytes,
        }
        self.wants(sent.turn);
        Some(sent)
    }
}
