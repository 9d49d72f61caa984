//! A downlink that is not to be filled: what is asked for is counted against its rate when it is asked for, so that no more
//! comes than the rate lets through; what comes unasked (from an origin) when it is read.

use headwater_model::time::{Micros, Rate, Time};

/// How far ahead of the rate is asked: answers take a round trip and their turn in the parent's queue.
const AHEAD: Micros = Micros::from_millis(500);
/// What comes with a payload, in thousandths of it (headers, acknowledgements).
const OVERHEAD_MILLI: u64 = 60;

/// A node's downlink.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Intake {
    rate: Option<Rate>,
    /// When all that was asked for is here at the rate.
    busy_until: Time,
}

impl Intake {
    /// At most `rate` from now on, in wire bytes; `None` for no limit.
    pub fn limit(&mut self, now: Time, rate: Option<Rate>) {
        if std::mem::replace(&mut self.rate, rate) != rate {
            self.busy_until = now;
        }
    }

    /// Pieces of `piece_bytes` that may be asked for now.
    pub fn room(&self, now: Time, piece_bytes: u32) -> usize {
        let Some(rate) = self.rate else { return usize::MAX };
        let free = (now + AHEAD).since(self.busy_until);
        let pieces = rate.bytes_in(free) / wire(u64::from(piece_bytes)).max(1);
        // A piece may take longer than what is asked ahead.
        if self.busy_until <= now { pieces.max(1) as usize } else { pieces as usize }
    }

    /// `payload_bytes` were asked for, or came. Returns until when they should take at the rate, if there is one.
    pub fn charge(&mut self, now: Time, payload_bytes: u64) -> Option<Time> {
        let rate = self.rate?;
        self.busy_until = self.busy_until.max(now) + rate.time_for(wire(payload_bytes));
        Some(self.busy_until)
    }

    /// `payload_bytes` that were asked for are taken back.
    pub fn refund(&mut self, payload_bytes: u64) {
        if let Some(rate) = self.rate {
            self.busy_until = Time(self.busy_until.0.saturating_sub(rate.time_for(wire(payload_bytes)).0));
        }
    }

    /// When there is room again that there was not before; `None` without a limit.
    pub fn frees_at(&self) -> Option<Time> {
        self.rate.map(|_| self.busy_until)
    }
}

fn wire(payload_bytes: u64) -> u64 {
    payload_bytes * (1000 + OVERHEAD_MILLI) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    #[test]
    fn no_more_is_asked_for_than_the_rate_lets_through() {
        for (rate, piece) in [(100_000u64, 65_536u32), (1_000_000, 65_536), (20_000, 65_536), (10_000_000, 16_384)] {
            let mut intake = Intake::default();
            assert_eq!((intake.room(Time(0), piece), intake.frees_at()), (usize::MAX, None));
            intake.limit(Time(0), Some(Rate(rate)));
            let mut asked = 0;
            for ms in 0..60_000 {
                let now = Time(ms * 1000);
                for _ in 0..intake.room(now, piece) {
                    intake.charge(now, u64::from(piece));
                    asked += wire(u64::from(piece));
                }
            }
            let most = rate * 60 + rate * 3 / 4 + wire(u64::from(piece));
            assert!((rate * 58..=most).contains(&asked), "{asked} at {rate}");
        }
    }

    #[test]
    fn another_limit_forgets_what_was_asked_for_under_the_former() {
        let mut intake = Intake::default();
        intake.limit(Time(0), Some(Rate(1000)));
        assert_eq!(intake.charge(Time(0), 100_000), Some(Time(106 * S)));
        intake.charge(Time(0), 5000);
        intake.refund(5000);
        assert_eq!(intake.frees_at(), Some(Time(106 * S)));
        intake.limit(Time(S), Some(Rate(1000)));
        assert_eq!(intake.room(Time(S), 1000), 0);
        intake.limit(Time(S), Some(Rate(1_000_000)));
        assert!(intake.room(Time(S), 1000) > 400);
    }
}
