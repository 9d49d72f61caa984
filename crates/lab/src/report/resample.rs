//! Counters over time, at as many moments as a plot can show.

/// Columns of a plot, at most.
const COLUMNS_MAX: usize = 160;
/// Narrower ones would show the lab's own rhythm rather than the hosts'.
const WIDTH_MIN_S: f64 = 0.5;

/// Equal spans of time over a run's samples.
pub(super) struct Columns<'a> {
    at_s: &'a [f64],
    /// Where columns begin, and the end of the last.
    edges: Vec<f64>,
}

impl<'a> Columns<'a> {
    /// `at_s`: when samples were taken, ascending.
    pub(super) fn new(at_s: &'a [f64]) -> Columns<'a> {
        let end = at_s.last().copied().unwrap_or(0.0).max(WIDTH_MIN_S);
        let count = ((end / WIDTH_MIN_S) as usize).clamp(1, COLUMNS_MAX);
        Columns { at_s, edges: (0..=count).map(|i| end * i as f64 / count as f64).collect() }
    }

    /// Seconds per column.
    pub(super) fn width_s(&self) -> f64 {
        self.edges.get(1).copied().unwrap_or(WIDTH_MIN_S)
    }

    /// A counter at each column's beginning, and at the end.
    pub(super) fn values(&self, counter: &[u64]) -> Vec<(f64, f64)> {
        self.edges.iter().map(|t| (*t, self.at(counter, *t))).collect()
    }

    /// What a counter of bytes grew by, in Mbit/s: time of each column's beginning, and rate in it.
    pub(super) fn mbit(&self, counter: &[u64]) -> Vec<(f64, f64)> {
        let values = self.values(counter);
        let rate = |w: &[(f64, f64)]| match w {
            [(t, v), (t2, v2)] => (*t, (v2 - v).max(0.0) / (t2 - t) / 125_000.0),
            _ => (0.0, 0.0),
        };
        values.windows(2).map(rate).collect()
    }

    /// The same over a line rate.
    pub(super) fn used(&self, counter: &[u64], line_mbit: f64) -> Vec<(f64, f64)> {
        self.mbit(counter).into_iter().map(|(t, rate)| (t, rate / line_mbit.max(1e-9))).collect()
    }

    /// The counter at `t`, on the line between the samples around it.
    fn at(&self, counter: &[u64], t: f64) -> f64 {
        let value = |i: usize| counter.get(i).map(|v| *v as f64);
        let after = self.at_s.partition_point(|s| *s < t);
        match (
            after.checked_sub(1).and_then(|i| Some((*self.at_s.get(i)?, value(i)?))),
            self.at_s.get(after).zip(value(after)),
        ) {
            (Some((t0, v0)), Some((t1, v1))) if *t1 > t0 => v0 + (v1 - v0) * (t - t0) / (t1 - t0),
            (_, Some((_, v))) | (Some((_, v)), None) => v,
            (None, None) => 0.0,
        }
    }
}

/// Draws a rate as constant over its column.
pub(super) fn step(width_s: f64) -> impl Fn((f64, f64)) -> [(f64, f64); 2] {
    move |(t, v)| [(t, v), (t + width_s, v)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_grows_evenly_has_one_rate() {
        let at: Vec<f64> = (0..=40).map(|i| f64::from(i) * 0.25).collect();
        let counter: Vec<u64> = (0..=40).map(|i| i * 312_500).collect();
        let columns = Columns::new(&at);
        let rates = columns.mbit(&counter);
        assert_eq!(rates.len(), 20);
        assert!(rates.iter().all(|(_, r)| (r - 10.0).abs() < 1e-6), "{rates:?}");
        assert!(columns.used(&counter, 20.0).iter().all(|(_, u)| (u - 0.5).abs() < 1e-6));
        assert_eq!(columns.values(&counter).last(), Some(&(10.0, 12_500_000.0)));
    }

    #[test]
    fn missing_samples_are_no_panic() {
        assert_eq!(Columns::new(&[]).mbit(&[]), [(0.0, 0.0)]);
        assert_eq!(Columns::new(&[0.0, 1.0]).values(&[7])[0].1, 7.0);
    }
}
