//! Time and rates. The cores never read a clock: a [`Time`] is handed to them.

use std::fmt;
use std::ops::{Add, Sub};

/// A span of time in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Micros(pub u64);

impl Micros {
    /// `n` seconds.
    pub const fn from_secs(n: u64) -> Self {
        Self(n * 1_000_000)
    }
    /// `n` milliseconds.
    pub const fn from_millis(n: u64) -> Self {
        Self(n * 1_000)
    }
    /// Seconds as a float, for rates and reports.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
    /// This span `n` times.
    pub const fn times(self, n: u64) -> Self {
        Self(self.0.saturating_mul(n))
    }
}

impl Add for Micros {
    type Output = Micros;
    fn add(self, other: Micros) -> Micros {
        Micros(self.0.saturating_add(other.0))
    }
}

impl Sub for Micros {
    type Output = Micros;
    fn sub(self, other: Micros) -> Micros {
        Micros(self.0.saturating_sub(other.0))
    }
}

/// A moment: microseconds since an origin that its owner chose (process start, or the simulation's zero).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Time(pub u64);

impl Time {
    /// The span since `earlier`; zero when `earlier` lies ahead.
    pub fn since(self, earlier: Time) -> Micros {
        Micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Micros> for Time {
    type Output = Time;
    fn add(self, span: Micros) -> Time {
        Time(self.0.saturating_add(span.0))
    }
}

impl Sub<Micros> for Time {
    type Output = Time;
    fn sub(self, span: Micros) -> Time {
        Time(self.0.saturating_sub(span.0))
    }
}

/// Bytes per second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Rate(pub u64);

impl Rate {
    /// From megabits per second (10⁶ bits).
    pub const fn from_mbit(n: u64) -> Self {
        Self(n * 125_000)
    }
    /// Bytes moved in `span` at this rate.
    pub fn bytes_in(self, span: Micros) -> u64 {
        (u128::from(self.0) * u128::from(span.0) / 1_000_000) as u64
    }
    /// How long `bytes` take at this rate; `Micros(u64::MAX)` at rate 0.
    pub fn time_for(self, bytes: u64) -> Micros {
        match self.0 {
            0 => Micros(u64::MAX),
            r => Micros((u128::from(bytes) * 1_000_000 / u128::from(r)).min(u128::from(u64::MAX)) as u64),
        }
    }
    /// The rate that moves `bytes` in `span`; 0 for an empty span.
    pub fn of(bytes: u64, span: Micros) -> Rate {
        match span.0 {
            0 => Rate(0),
            t => Rate((u128::from(bytes) * 1_000_000 / u128::from(t)).min(u128::from(u64::MAX)) as u64),
        }
    }
    /// What a parent gives while it is waited for: the rate over `waited`, or over 200 ms where that is less, as what is on
    /// its way already takes no time.
    pub fn while_waited(bytes: u64, waited: Micros) -> Rate {
        Rate::of(bytes, waited.max(Micros::from_millis(200)))
    }
    /// Whether a parent trickles at `self`, by what others give in the middle, both [while waited for](Rate::while_waited):
    /// twelve times less, as an idle parent answers faster than a busy one.
    pub fn is_trickle_of(self, usual: Rate) -> bool {
        self.0.saturating_mul(12) < usual.0
    }
    /// log2 bucket, as ranking compares spare uplink (0 for rate 0).
    pub fn bucket(self) -> u32 {
        64 - self.0.leading_zeros()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            r if r >= 1_000_000_000 => write!(f, "{:.2} GB/s", r as f64 / 1e9),
            r if r >= 1_000_000 => write!(f, "{:.1} MB/s", r as f64 / 1e6),
            r if r >= 1_000 => write!(f, "{:.0} kB/s", r as f64 / 1e3),
            r => write!(f, "{r} B/s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_spans_agree() {
        let r = Rate::from_mbit(8);
        assert_eq!(r.bytes_in(Micros::from_secs(2)), 2_000_000);
        assert_eq!(r.time_for(1_000_000), Micros::from_secs(1));
        assert_eq!(Rate::of(1_000_000, Micros::from_secs(1)), r);
        assert_eq!(Rate(0).time_for(1), Micros(u64::MAX));
        assert_eq!((Rate(0).bucket(), Rate(1).bucket(), Rate(1024).bucket()), (0, 1, 11));
    }
}
