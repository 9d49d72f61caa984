//! The stream: when which bytes of it are there, and what its publisher says of them.

use super::messages::Due;
use super::messages::{Event, WORLD};
use crate::scenario::{Ingest, Live, span};
use headwater_model::live::{LIVE_PIECE_BYTES, Listed, LiveEntry, ObjectKind, OriginPlace, SignedLiveEntry};
use headwater_model::merkle;
use headwater_model::time::{Micros, Time};
use std::sync::Arc;

/// Pieces in one entry of a segment that comes as a whole (as the publisher's cutter does it).
const SAY_PIECES: u64 = 16;
/// What has come is said after this time, though it fills no piece.
const SAY_EVERY: Micros = Micros::from_millis(200);
/// Segments that a playlist has when its publisher begins with it.
const FIRST_SEGMENTS: u64 = 3;

/// A piece that was published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Its segment.
    pub(super) segment: u32,
    /// Its length.
    pub(super) bytes: u32,
    /// When.
    pub(super) at: Time,
}

/// What was published so far, and what comes next.
#[derive(Debug)]
pub(super) struct Media {
    ingest: Ingest,
    /// Control time at virtual zero, Unix milliseconds.
    zero_unix_ms: u64,
    pub(super) segment: Micros,
    segment_bytes: u64,
    pub(super) pieces: Vec<Piece>,
    /// Pieces of each segment that is whole.
    pub(super) segments: Vec<u32>,
    /// Of the segment that grows: what was said of it.
    said_bytes: u64,
    said_pieces: u32,
    entries: u64,
    next_at: Time,
    serial: u32,
}

impl Media {
    /// Its publisher begins at `begins` with the last segments of a playlist.
    pub(super) fn new(live: &Live, begins: Time, zero_unix_ms: u64) -> Media {
        Media {
            ingest: live.ingest,
            zero_unix_ms,
            segment: span(live.segment_s),
            segment_bytes: (live.mbit * crate::scenario::MBIT * live.segment_s) as u64,
            pieces: Vec::new(),
            segments: Vec::new(),
            said_bytes: 0,
            said_pieces: 0,
            entries: 0,
            next_at: begins,
            serial: 0,
        }
    }

    /// Bytes that were published after a moment.
    pub(super) fn bytes_after(&self, at: Time) -> u64 {
        let first = self.pieces.partition_point(|p| p.at <= at);
        self.pieces.iter().skip(first).map(|p| u64::from(p.bytes)).sum()
    }

    /// What is said before `until`.
    pub(super) fn publish(&mut self, until: Time, into: &mut Vec<Due<Event>>) {
        while self.next_at < until {
            let at = self.next_at;
            if self.segments.is_empty() {
                (0..FIRST_SEGMENTS).for_each(|_| self.whole_segment(at, into));
                self.next_at = at + if self.ingest == Ingest::Follow { self.segment } else { SAY_EVERY };
                continue;
            }
            match self.ingest {
                Ingest::Follow => {
                    self.whole_segment(at, into);
                    self.next_at = at + self.segment;
                }
                Ingest::Push => {
                    self.some(at, into);
                    self.next_at = at + SAY_EVERY;
                }
            }
        }
    }

    fn whole_segment(&mut self, at: Time, into: &mut Vec<Due<Event>>) {
        self.say(at, 0, false, true, into);
        let most = SAY_PIECES * u64::from(LIVE_PIECE_BYTES);
        while self.said_bytes + most < self.segment_bytes {
            self.say(at, most, false, false, into);
        }
        self.say(at, self.segment_bytes - self.said_bytes, true, false, into);
    }

    /// What an encoder made of the segment that grows.
    fn some(&mut self, at: Time, into: &mut Vec<Due<Event>>) {
        let came = (self.segment_bytes as f64 * SAY_EVERY.0 as f64 / self.segment.0.max(1) as f64) as u64;
        let left = self.segment_bytes - self.said_bytes;
        // What rounding leaves goes with the last.
        if left < came + came / 2 {
            self.say(at, left, true, true, into);
        } else {
            self.say(at, came, false, false, into);
        }
    }

    fn say(&mut self, at: Time, bytes: u64, complete: bool, lists: bool, into: &mut Vec<Due<Event>>) {
        let segment = self.segments.len() as u64;
        let first_piece = self.pieces.len() as u64;
        let full = u64::from(LIVE_PIECE_BYTES);
        for n in 0..bytes.div_ceil(full) {
            let bytes = (bytes - n * full).min(full) as u32;
            self.pieces.push(Piece { segment: segment as u32, bytes, at });
        }
        let end_piece = self.pieces.len() as u64;
        let listed = lists.then(|| Listed {
            sequence: segment,
            duration: self.segment,
            target_duration: self.segment,
            discontinuity: false,
            map: None,
            recorded_unix_us: None,
            origin: Some(OriginPlace { url: format!("http://o/{segment}.ts"), from: 0 }),
        });
        let entry = LiveEntry {
            epoch: 1,
            number: self.entries,
            previous: self.entries.checked_sub(1),
            time_unix_ms: self.zero_unix_ms + at.0 / 1000,
            object: segment,
            kind: ObjectKind::Ts,
            offset: self.said_bytes,
            first_piece,
            bytes: bytes as u32,
            leaves: (first_piece..end_piece).map(|p| merkle::leaf(&data(p))).collect(),
            complete,
            listed,
            last: false,
        };
        self.entries += 1;
        self.said_bytes += bytes;
        self.said_pieces += (end_piece - first_piece) as u32;
        if complete {
            self.segments.push(self.said_pieces);
            (self.said_bytes, self.said_pieces) = (0, 0);
        }
        self.serial += 1;
        let what = Event::Published(Arc::new(SignedLiveEntry { entry, signature: [0; 64] }));
        into.push(Due { at, from: WORLD, serial: self.serial, what });
    }
}

/// What a piece holds: enough to tell it from others, and not so much that hashing it takes all the time.
pub(super) fn data(piece: u64) -> [u8; 8] {
    piece.to_be_bytes()
}
