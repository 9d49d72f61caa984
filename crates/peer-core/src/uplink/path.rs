//! The way to one child: how long probes took, and the queue that they stood in.

use headwater_model::time::{Micros, Time};
use std::collections::VecDeque;

/// The least time that a probe took is looked for in so many spans (RFC 6817 keeps minutes): clocks drift, and routes
/// change.
const SPANS: usize = 6;
/// See [`SPANS`].
const SPAN: Micros = Micros::from_secs(30);
/// Samples kept.
const MAX_SAMPLES: usize = 16;

/// A way.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// Since when.
    pub(super) since: Time,
    /// When something was last sent on it.
    pub(super) used_at: Time,
    /// When a probe was last sent on it.
    pub(super) probed_at: Option<Time>,
    /// Shortest way out, on two clocks that have nothing to do with one another.
    out: Shortest,
    /// Shortest round trip.
    round: Shortest,
    samples: VecDeque<Sample>,
}

/// A probe that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sample {
    pub(super) sent_at: Time,
    /// Bytes sent before it, on all ways.
    pub(super) sent: u64,
    /// How long it stood in queues.
    pub(super) queue: Micros,
}

/// The least of a number in the last minutes.
#[derive(Clone, Debug, Default)]
struct Shortest {
    /// The beginning of a span, and the least in it.
    spans: VecDeque<(Time, i64)>,
}

impl Shortest {
    /// `value` less the least of late, itself included.
    /// The first value counts as so much above it as is `known` by other ways.
    fn above(&mut self, now: Time, value: i64, known: Micros) -> Micros {
        if self.spans.is_empty() {
            self.spans.push_back((now, value.wrapping_sub(known.0 as i64)));
        }
        match self.spans.back_mut() {
            Some((began, least)) if now.since(*began) < SPAN => *least = (*least).min(value),
            _ => self.spans.push_back((now, value)),
        }
        self.spans.retain(|(began, _)| now.since(*began) < SPAN.times(SPANS as u64));
        let least = self.spans.iter().map(|(_, least)| *least).min().unwrap_or(value);
        Micros(value.saturating_sub(least).max(0) as u64)
    }
}

impl Path {
    pub(super) fn new(now: Time) -> Self {
        let shortest = Shortest::default;
        Self { since: now, used_at: now, probed_at: None, out: shortest(), round: shortest(), samples: VecDeque::new() }
    }

    /// Its shortest times are to be learnt anew.
    pub(super) fn forget(&mut self) {
        *self = Self { used_at: self.used_at, probed_at: self.probed_at, ..Self::new(self.since) };
    }

    /// Whether any probe was echoed: without one nothing is known of it.
    pub(super) fn is_known(&self) -> bool {
        !self.out.spans.is_empty()
    }

    /// A probe that was sent at `sent_at` is echoed `now`; the first one only tells where to count from. `known` is the queue as other ways saw it last.
    pub(super) fn add(&mut self, now: Time, (sent_at, sent): (Time, u64), arrived_us: u64, known: Micros) {
        let is_first = !self.is_known();
        // The difference of two clocks: it may be anything, and wraps.
        let out = self.out.above(now, arrived_us.wrapping_sub(sent_at.0) as i64, known);
        // No probe stands in a longer queue than the whole round took longer than usual: that bounds what a clock that was
        // set, or a lie, can add.
        let round = self.round.above(now, now.since(sent_at).0 as i64, known);
        if is_first {
            return;
        }
        if self.samples.len() >= MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { sent_at, sent, queue: out.min(round) });
    }

    /// The probe, of those sent since then, that stood in the shortest queue: what delays one of them only is no queue.
    pub(super) fn shortest(&self, since: Time) -> Option<Sample> {
        self.samples.iter().filter(|s| s.sent_at >= since).min_by_key(|s| s.queue).copied()
    }
}
