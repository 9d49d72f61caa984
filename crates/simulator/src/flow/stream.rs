//! The stream: when which of its segments is there, and in how many pieces. As the packet model's publisher has it.

use crate::scenario::{Ingest, Live, MBIT, span};
use headwater_model::live::{LIVE_PIECE_BYTES, SUBSTREAMS};
use headwater_model::time::{Micros, Time};

/// Pieces in one entry of a segment that comes as a whole (as the publisher's cutter does it).
const ENTRY_BYTES: u64 = 16 * PIECE;
/// What has come is said after this time, though it fills no piece.
const SAY_EVERY: Micros = Micros::from_millis(200);
/// Segments that a playlist has when its publisher begins with it.
const FIRST_SEGMENTS: u64 = 3;
/// Bytes of a piece.
pub(super) const PIECE: u64 = LIVE_PIECE_BYTES as u64;

/// See the module. Segments count from 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    begins: Time,
    pub(super) segment: Micros,
    pub(super) segment_bytes: u64,
    /// In so many parts it comes, one after the other.
    pub(super) bursts: u64,
    /// Pieces of one burst, in all substreams.
    pub(super) burst_pieces: u64,
    /// Between two bursts.
    pub(super) burst_every: Micros,
    /// Payload per second.
    pub(super) rate: f64,
}

impl Stream {
    pub(super) fn new(live: &Live) -> Stream {
        let segment = span(live.segment_s);
        let segment_bytes = (live.mbit * MBIT * live.segment_s) as u64;
        let (bursts, burst_every) = match live.ingest {
            Ingest::Follow => (1, segment),
            Ingest::Push => ((segment.0 / SAY_EVERY.0).max(1), SAY_EVERY),
        };
        let of_burst = segment_bytes / bursts;
        let burst_pieces = of_burst / ENTRY_BYTES * (ENTRY_BYTES / PIECE) + (of_burst % ENTRY_BYTES).div_ceil(PIECE);
        Stream {
            begins: Time(2_000_000 + segment.0 / 2),
            segment,
            segment_bytes,
            bursts,
            burst_pieces: burst_pieces.max(1),
            burst_every,
            rate: live.mbit * MBIT,
        }
    }

    /// When the first host may arrive: whoever counts begins and ends in the middle of a segment.
    pub(super) fn zero(&self) -> Time {
        self.begins + self.segment + Micros(self.segment.0 / 2)
    }

    /// When a segment is there as a whole.
    pub(super) fn published(&self, segment: u64) -> Time {
        self.begins + self.segment.times((segment + 1).saturating_sub(FIRST_SEGMENTS))
    }

    /// The newest segment that is there as a whole.
    pub(super) fn newest(&self, at: Time) -> u64 {
        FIRST_SEGMENTS - 1 + at.since(self.begins).0 / self.segment.0
    }

    /// Whole pieces' worth of a substream in a burst, the mean.
    pub(super) fn pieces(&self) -> f64 {
        self.segment_bytes as f64 / (self.bursts * u64::from(SUBSTREAMS) * PIECE) as f64
    }

    /// Pieces that are there at a moment.
    pub(super) fn pieces_before(&self, at: Time) -> u64 {
        if at < self.begins {
            return 0;
        }
        let bursts = at.since(self.begins).0 / self.burst_every.0;
        (FIRST_SEGMENTS * self.bursts + bursts) * self.burst_pieces
    }

    /// Bytes that are published after one moment, up to another.
    pub(super) fn bytes_between(&self, after: Time, until: Time) -> f64 {
        let bursts = |at: Time| at.since(self.begins).0 / self.burst_every.0;
        bursts(until).saturating_sub(bursts(after)) as f64 * self.segment_bytes as f64 / self.bursts as f64
    }

    /// Bytes per second of one substream.
    pub(super) fn lane_rate(&self) -> f64 {
        self.rate / f64::from(SUBSTREAMS)
    }

    /// Between two pieces of a substream, the mean, in microseconds.
    pub(super) fn piece_every(&self) -> f64 {
        PIECE as f64 / self.lane_rate() * 1e6
    }

    /// When the first burst of a segment is there.
    pub(super) fn begun(&self, segment: u64) -> Time {
        self.published(segment) - self.burst_every.times(self.bursts - 1)
    }

    /// Bytes of one substream in a segment.
    pub(super) fn lane_bytes(&self) -> u64 {
        self.segment_bytes / u64::from(SUBSTREAMS)
    }
}
