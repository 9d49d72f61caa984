//! Network condition monitor, first form: what the two ends of an edge say of the same interval (C3, R3).

use headwater_model::report::EdgeReport;
use headwater_model::time::{Micros, Rate};

/// What is wrong with an edge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Asked, and not a byte came for N intervals.
    Silent,
    /// Under its share of what was promised for N intervals.
    Slow,
    /// The parent sent more than the child got, two intervals running: the link between them is congested.
    Congested,
}

/// An edge's reports, as far as they are needed to judge it.
#[derive(Clone, Copy, Default, Debug)]
pub struct EdgeWatch {
    got: (u64, u64),
    sent: (u64, u64),
    silent: u32,
    slow: u32,
    congested: u32,
    judged: u64,
    /// Bytes that the child got in its last reported interval.
    pub last_bytes: u64,
}

/// Thresholds, from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// Length of an interval.
    pub interval: Micros,
    /// Intervals of silence.
    pub silent: u32,
    /// Intervals of slowness.
    pub slow: u32,
    /// Share of the promise below which an interval is slow.
    pub slow_percent: u32,
    /// Size of a piece.
    pub piece_bytes: u32,
}

impl EdgeWatch {
    /// The child's report of `interval`; `promised` is what the parent should give it.
    pub fn child_says(&mut self, interval: u64, said: &EdgeReport, promised: Rate, t: &Thresholds) -> Option<Trouble> {
        // A counter that went back is a child that began anew.
        let new = said.bytes.checked_sub(self.got.1).unwrap_or(said.bytes);
        self.last_bytes = new;
        self.got = (interval, said.bytes);
        if said.bytes == 0 && said.waited.0 == 0 {
            return None;
        }
        let waited_most = said.waited.0 * 2 > t.interval.0;
        self.silent = if waited_most && new == 0 { self.silent + 1 } else { 0 };
        let share = promised.0 / 100 * u64::from(t.slow_percent);
        let slow = waited_most && Rate::of(new, said.waited).0 < share;
        self.slow = if slow { self.slow + 1 } else { 0 };
        if self.silent >= t.silent {
            return Some(Trouble::Silent);
        }
        if self.slow >= t.slow {
            return Some(Trouble::Slow);
        }
        self.compare(said.rtt, t)
    }

    /// The parent's report of `interval`.
    pub fn parent_says(&mut self, interval: u64, said: &EdgeReport, t: &Thresholds) -> Option<Trouble> {
        self.sent = (interval, said.bytes);
        self.compare(said.rtt, t)
    }

    /// C3. Both ends count since the edge began; what is on its way is `rate × (RTT + error)` and two pieces.
    fn compare(&mut self, rtt: Micros, t: &Thresholds) -> Option<Trouble> {
        if self.got.0 != self.sent.0 || self.judged == self.got.0 {
            return None;
        }
        self.judged = self.got.0;
        let rate = Rate::of(self.last_bytes, t.interval);
        // The clock error of both ends is RTT/2 each.
        let on_the_way = rate.bytes_in(Micros(rtt.0 * 2 + 100_000)) + 2 * u64::from(t.piece_bytes);
        let missing = self.sent.1.saturating_sub(self.got.1);
        self.congested = if missing > on_the_way { self.congested + 1 } else { 0 };
        (self.congested >= 2).then_some(Trouble::Congested)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_model::id::NodeId;

    const T: Thresholds =
        Thresholds { interval: Micros::from_secs(2), silent: 3, slow: 3, slow_percent: 20, piece_bytes: 65536 };

    fn said(bytes: u64, waited_ms: u64) -> EdgeReport {
        EdgeReport {
            node: NodeId::default(),
            pieces: 0,
            bytes,
            waited: Micros::from_millis(waited_ms),
            rtt: Micros::from_millis(20),
        }
    }

    /// Reports of the child interval by interval (cumulative bytes, milliseconds waited), and the first trouble.
    fn check(story: &[(u64, u64)], expected: Option<(usize, Trouble)>) {
        let mut w = EdgeWatch::default();
        let found = story.iter().enumerate().find_map(|(i, (bytes, waited))| {
            w.child_says(i as u64 + 1, &said(*bytes, *waited), Rate(1_000_000), &T).map(|t| (i, t))
        });
        assert_eq!(found, expected, "{story:?}");
    }

    #[test]
    fn silence_and_slowness_take_n_intervals() {
        check(&[(0, 2000), (0, 2000), (0, 2000)], Some((2, Trouble::Silent)));
        check(&[(0, 2000), (0, 2000), (9_000_000, 2000), (9_000_000, 2000), (9_000_000, 2000)], None);
        check(&[(0, 0), (0, 0), (0, 0), (0, 0)], None);
        check(&[(100_000, 2000), (200_000, 2000), (300_000, 2000)], Some((2, Trouble::Slow)));
        check(&[(100_000, 90), (200_000, 90), (300_000, 90), (400_000, 90)], None);
    }

    #[test]
    fn a_pair_is_congested_when_both_ends_differ_twice() {
        let mut w = EdgeWatch::default();
        let mut step = |i: u64, sent: u64, got: u64| {
            let a = w.parent_says(i, &said(sent, 2000), &T);
            a.or(w.child_says(i, &said(got, 2000), Rate(1000), &T))
        };
        assert_eq!(step(1, 2_000_000, 2_000_000 - 100_000), None);
        assert_eq!(step(2, 4_000_000, 3_000_000), None);
        assert_eq!(step(3, 6_000_000, 4_000_000), Some(Trouble::Congested));
    }
}
