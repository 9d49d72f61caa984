//! CPU time of this thread, and what the process holds of the system's memory.

use std::time::Duration;

/// What [`now`] counts.
#[cfg(unix)]
pub const NAME: &str = "CPU time of the thread";
#[cfg(not(unix))]
pub const NAME: &str = "wall time";

/// Time from some moment on.
#[cfg(unix)]
pub fn now() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec.unsigned_abs() as u32)
}
#[cfg(not(unix))]
pub fn now() -> Duration {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}

/// Times of calls of one kind.
#[derive(Default)]
pub struct Calls {
    /// Of each, in nanoseconds.
    ns: Vec<u64>,
}

impl Calls {
    /// Makes a call, and notes how long it took.
    pub fn time<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let start = now();
        let result = call();
        self.ns.push((now() - start).as_nanos().min(u128::from(u64::MAX)) as u64);
        result
    }
    /// How many there were.
    pub fn count(&self) -> usize {
        self.ns.len()
    }
    /// How long all took together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.ns.iter().sum())
    }
    /// The times below which the median, 99 % and all of them are, in microseconds.
    pub fn quantiles(mut self) -> [f64; 3] {
        self.ns.sort_unstable();
        let last = self.ns.len().saturating_sub(1);
        [last / 2, last * 99 / 100, last].map(|at| self.ns.get(at).map_or(0.0, |ns| *ns as f64 / 1e3))
    }
}

/// Bytes of memory that the process holds, after what is free was given back; `None` where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    crate::memory::is_given_back();
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix("kB")?.trim();
    Some(kib.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_all_calls() {
        let calls = Calls { ns: (1..=1000).rev().map(|n| n * 1000).collect() };
        assert_eq!((calls.count(), calls.sum()), (1000, Duration::from_micros(500_500)));
        assert_eq!(calls.quantiles(), [500.0, 990.0, 1000.0]);
        assert_eq!(Calls::default().quantiles(), [0.0; 3]);
        let long = Calls { ns: vec![10_000_000_000] };
        assert_eq!((long.sum(), long.quantiles()), (Duration::from_secs(10), [1e7; 3]));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_that_is_held_is_seen() {
        let before = resident_bytes().unwrap();
        let held = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = resident_bytes().unwrap();
        assert!(after > before + (held.len() as u64) / 2, "{before} {after}");
    }
}
