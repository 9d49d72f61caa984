//! A downlink that is not to be filled: what is asked for is counted against its rate when it is asked for, so that no more
//! comes than the rate lets through; what comes unasked (from an origin) when it is read. Several contents share it: each
//! may ask for what its own share lets through, however much the others asked for, and for all of it where they do not.
//! Live streams have it first, and wait for nothing: contents that are not live share what is left.

use headwater_model::time::{Micros, Rate, Time};

/// How far ahead of the rate is asked: answers take a round trip and their turn in the parent's queue.
const AHEAD: Micros = Micros::from_millis(500);
/// Of what an origin is asked for all comes at once: so much of the rate.
const AT_ONCE: Micros = Micros::from_millis(150);
/// Beside streams contents have this part of the limit at least, in percent.
const LEAST_PERCENT: u64 = 10;
/// What comes with a payload, in thousandths of it (headers, acknowledgements).
const OVERHEAD_MILLI: u64 = 60;

/// A node's downlink.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Intake {
    /// The user's limit.
    told: Option<Rate>,
    /// What live streams take, and what other contents may beside them.
    beside: Option<(Rate, Rate)>,
    /// What follows from these.
    rate: Option<Rate>,
    /// Share of the content that is about to ask, in thousandths.
    share_milli: u64,
    /// When all that was asked for is here at the rate.
    busy_until: Time,
}

impl Default for Intake {
    fn default() -> Self {
        Self { told: None, beside: None, rate: None, share_milli: 1000, busy_until: Time(0) }
    }
}

impl Intake {
    /// The content that is about to ask has this share of it, in thousandths.
    pub fn share(&mut self, milli: u64) {
        self.share_milli = milli.clamp(1, 1000);
    }

    /// At most `rate` from now on, in wire bytes, for streams and all; `None` for no limit.
    pub fn limit(&mut self, now: Time, rate: Option<Rate>) {
        self.told = rate;
        self.set_rate(now);
    }

    /// What live streams take from now on, and what other contents may beside them; `None` where there are no streams.
    pub fn beside_streams(&mut self, now: Time, rates: Option<(Rate, Rate)>) {
        self.beside = rates;
        self.set_rate(now);
    }

    fn set_rate(&mut self, now: Time) {
        let streams = self.beside.map_or(0, |(streams, _)| streams.0);
        let left = |told: Rate| Rate(told.0.saturating_sub(streams).max(told.0 / 100 * LEAST_PERCENT));
        let rate = self.told.map(left).into_iter().chain(self.beside.map(|(_, others)| others)).min();
        let before = std::mem::replace(&mut self.rate, rate);
        if before == rate {
            return;
        }
        // What was asked for comes at the new rate.
        let comes = before.map_or(0, |before| before.bytes_in(self.busy_until.since(now)));
        self.busy_until = now + rate.map_or(Micros(0), |rate| rate.time_for(comes));
    }

    /// Pieces of `piece_bytes` that may be asked for now by a content whose share is used until `own_until`.
    pub fn room(&self, now: Time, own_until: Time, piece_bytes: u32) -> usize {
        let Some(rate) = self.rate else { return usize::MAX };
        let room = |rate: Rate, busy_until: Time| {
            let free = (now + AHEAD).since(busy_until);
            let pieces = rate.bytes_in(free) / wire(u64::from(piece_bytes)).max(1);
            // A piece may take longer than what is asked ahead.
            if busy_until <= now { pieces.max(1) as usize } else { pieces as usize }
        };
        room(rate, self.busy_until).max(room(self.share_of(rate), own_until))
    }

    /// A content whose share is used until `own_until` asked for `payload_bytes`. Returns until when it is used now.
    pub fn ask(&mut self, now: Time, own_until: Time, payload_bytes: u64) -> Time {
        self.charge(now, payload_bytes);
        let own = self.rate.map_or(Micros(0), |rate| self.share_of(rate).time_for(wire(payload_bytes)));
        own_until.max(now) + own
    }

    /// Takes back what a content whose share is used until `own_until` asked for. Returns until when it is used now.
    pub fn take_back(&mut self, own_until: Time, payload_bytes: u64) -> Time {
        let Some(rate) = self.rate else { return own_until };
        let less = |until: Time, rate: Rate| Time(until.0.saturating_sub(rate.time_for(wire(payload_bytes)).0));
        self.busy_until = less(self.busy_until, rate);
        less(own_until, self.share_of(rate))
    }

    fn share_of(&self, rate: Rate) -> Rate {
        Rate((rate.0 / 1000 * self.share_milli).max(1))
    }

    /// `payload_bytes` were asked for, or came. Returns until when they should take at the rate, if there is one.
    pub fn charge(&mut self, now: Time, payload_bytes: u64) -> Option<Time> {
        let rate = self.rate?;
        self.busy_until = self.busy_until.max(now) + rate.time_for(wire(payload_bytes));
        Some(self.busy_until)
    }

    /// Payload bytes that may come at once, however fast the line is; `None` without a limit.
    pub fn at_once(&self) -> Option<u64> {
        self.rate.map(|rate| rate.bytes_in(AT_ONCE) * 1000 / (1000 + OVERHEAD_MILLI))
    }

    /// When there is room again that there was not before, for a content whose share is used until `own_until`; `None`
    /// without a limit.
    pub fn frees_at(&self, own_until: Time) -> Option<Time> {
        self.rate.map(|_| self.busy_until.min(own_until))
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
            assert_eq!((intake.room(Time(0), Time(0), piece), intake.frees_at(Time(0))), (usize::MAX, None));
            intake.limit(Time(0), Some(Rate(rate)));
            let (mut asked, mut own) = (0, Time(0));
            for ms in 0..60_000 {
                let now = Time(ms * 1000);
                for _ in 0..intake.room(now, own, piece) {
                    own = intake.ask(now, own, u64::from(piece));
                    asked += wire(u64::from(piece));
                }
            }
            let most = rate * 60 + rate * 3 / 4 + wire(u64::from(piece));
            assert!((rate * 58..=most).contains(&asked), "{asked} at {rate}");
        }
    }

    #[test]
    fn who_asks_late_has_its_share_at_once_and_what_nobody_else_wants() {
        let mut intake = Intake::default();
        intake.limit(Time(0), Some(Rate(1_000_000)));
        let (mut own, mut asked) = ([Time(0); 2], [0; 2]);
        for ms in 0..30_000 {
            let now = Time(ms * 1000);
            // The first one always asks first; the second one is there in the middle.
            let there = [true, (10_000..20_000).contains(&ms)];
            for n in (0..2).filter(|n| there[*n]) {
                intake.share(if there[1] { [800, 200][n] } else { 1000 });
                for _ in 0..intake.room(now, own[n], 16_384) {
                    own[n] = intake.ask(now, own[n], 16_384);
                    asked[n] += wire(16_384);
                }
            }
        }
        assert!((1_900_000..2_300_000).contains(&asked[1]), "{asked:?}");
        assert!((27_500_000..29_000_000).contains(&asked[0]), "{asked:?}");
    }

    #[test]
    fn what_was_asked_for_comes_at_the_new_limit() {
        let mut intake = Intake::default();
        intake.limit(Time(0), Some(Rate(1000)));
        assert_eq!(intake.charge(Time(0), 100_000), Some(Time(106 * S)));
        let own_until = intake.ask(Time(0), Time(106 * S), 5000);
        assert_eq!(intake.take_back(own_until, 5000), Time(106 * S));
        assert_eq!(intake.frees_at(Time(200 * S)), Some(Time(106 * S)));
        intake.limit(Time(S), Some(Rate(1000)));
        assert_eq!(intake.room(Time(S), Time(106 * S), 1000), 0);
        intake.limit(Time(S), Some(Rate(1_000_000)));
        // 105 kB are to come; a piece is 1060 bytes on the wire, and half a second is asked ahead.
        assert_eq!(intake.frees_at(Time(200 * S)), Some(Time(S + 105_000)));
        assert_eq!(intake.room(Time(S), Time(106 * S), 1000), 395_000 / 1060);
        intake.limit(Time(2 * S), None);
        assert_eq!(intake.room(Time(2 * S), Time(0), 1000), usize::MAX);
        intake.limit(Time(2 * S), Some(Rate(1000)));
        assert_eq!(
            intake.frees_at(Time(200 * S)),
            Some(Time(2 * S)),
            "nothing is known of what was asked for without one"
        );
    }

    #[test]
    fn streams_have_the_downlink_first() {
        // The user's limit; what streams take, and others may; what these have.
        type Case = (Option<u64>, Option<(u64, u64)>, Option<u64>);
        let cases: &[Case] = &[
            (None, None, None),
            (Some(1000), None, Some(1000)),
            (None, Some((250, 700)), Some(700)),
            (Some(1000), Some((250, 800)), Some(750)),
            (Some(1000), Some((250, 700)), Some(700)),
            (Some(1000), Some((5000, 700)), Some(100)),
        ];
        for (told, beside, has) in cases {
            let mut intake = Intake::default();
            intake.limit(Time(1), told.map(Rate));
            intake.beside_streams(Time(1), beside.map(|(streams, others)| (Rate(streams), Rate(others))));
            assert_eq!(intake.rate, has.map(Rate), "{told:?}, {beside:?}");
            intake.beside_streams(Time(1), None);
            assert_eq!(intake.rate, told.map(Rate));
        }
    }
}
