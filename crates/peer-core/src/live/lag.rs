//! How late pieces are.

use headwater_model::time::Micros;

/// Width of a bucket.
const BUCKET: Micros = Micros::from_millis(25);
/// Buckets; what is later is counted in the last.
const BUCKETS: usize = 1200;

/// A histogram of delays, in steps of 25 ms up to 30 s.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lags {
    counts: Vec<u64>,
}

impl Lags {
    /// Counts one.
    pub fn add(&mut self, lag: Micros) {
        let bucket = usize::try_from(lag.0 / BUCKET.0).unwrap_or(BUCKETS).min(BUCKETS - 1);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
    }
    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
    /// The delay that so many percent do not exceed, rounded up to a step; `None` where nothing was counted.
    pub fn percentile(&self, percent: u64) -> Option<Micros> {
        let all = self.count();
        let wanted = (all * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|n| {
            seen += n;
            seen >= wanted
        });
        bucket.filter(|_| all > 0).map(|b| BUCKET.times(b as u64 + 1))
    }
    /// Each step that something was counted in: its upper end in milliseconds, and how many.
    pub fn steps(&self) -> impl Iterator<Item = (u64, u64)> {
        let of = |(i, n): (usize, &u64)| (*n > 0).then_some((BUCKET.times(i as u64 + 1).0 / 1000, *n));
        self.counts.iter().enumerate().filter_map(of)
    }
    /// Counts what another one counted, too.
    pub fn add_all(&mut self, other: &Lags) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
    }
    /// What was counted after `earlier` was.
    pub fn since(&self, earlier: &Lags) -> Lags {
        let before = |i: usize| earlier.counts.get(i).copied().unwrap_or(0);
        Lags { counts: self.counts.iter().enumerate().map(|(i, n)| n.saturating_sub(before(i))).collect() }
    }
}
