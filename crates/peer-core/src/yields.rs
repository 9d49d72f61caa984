//! How much of a node's downlink files may take while live streams come over it, too: streams have it first, files the rest.
//!
//! Nobody knows how fast the line is. Streams that suffer say that it is full: what files take is cut then, and grows
//! slowly while they do not (additive increase, multiplicative decrease: Chiu, Jain 1989).

use headwater_model::id::NodeId;
use headwater_model::time::{Micros, Rate, Time};
use std::collections::BTreeMap;

/// How often [`Yields::seen`] is to be called.
pub const LOOK_EVERY: Micros = Micros::from_millis(200);
/// A piece that has not come so long after its entry is late: what trees bring of a segment of two seconds takes as long.
pub const LATE: Micros = Micros::from_millis(2500);
/// A round trip that takes so much longer than the shortest one over the same connection stood in a queue. Senders have
/// their own in their uplinks; where three of four are behind one it is the queue that they share: the node's own.
const QUEUES: Micros = Micros::from_millis(60);
/// What was asked for before a cut still comes for so long: nothing more is cut meanwhile.
const SETTLES: Micros = Micros::from_secs(1);
/// A cut leaves this part of what files took, in percent.
const CUT_PERCENT: u64 = 60;
/// Files never stand still: they have this part of the streams' rate, in percent.
const LEAST_PERCENT: u64 = 10;
/// Until the first cut files may take an eighth more at each look, then this part of the streams' rate, in percent.
const GROWS_PERCENT: u64 = 5;
/// Senders whose shortest round trips are remembered.
const MAX_SENDERS: usize = 256;

/// A round trip to a sender of a stream and back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundTrip {
    /// The sender.
    pub node: NodeId,
    /// How long it took, or has taken so far.
    pub took: Micros,
    /// Whether the answer is here.
    pub over: bool,
}

/// What files may take.
#[derive(Clone, Debug)]
pub struct Yields {
    /// Of all streams.
    streams: Rate,
    rate: Rate,
    cut_at: Option<Time>,
    shortest: BTreeMap<NodeId, Micros>,
}

impl Yields {
    /// Files begin with what the streams take: so much more the line has to bear.
    pub fn new(streams: Rate) -> Self {
        Self { streams, rate: streams, cut_at: None, shortest: BTreeMap::new() }
    }

    /// The streams at this node, all together, have this rate from now on.
    pub fn set_streams(&mut self, streams: Rate) {
        self.streams = streams;
    }

    /// How the streams fare: the latest round trip of each of their senders, and whether pieces are `late`; and what files
    /// `took` since the last look. Returns what they may take from now on, in bytes per second.
    pub fn seen(&mut self, now: Time, trips: &[RoundTrip], late: bool, took: Rate) -> Rate {
        let suffers = late || self.is_queue_full(trips);
        let settled = self.cut_at.is_none_or(|at| now.since(at) >= SETTLES);
        if suffers && settled {
            self.cut_at = Some(now);
            self.rate = Rate(self.rate.0.min(took.0) * CUT_PERCENT / 100);
        } else if !suffers && settled && took.0 * 2 >= self.rate.0 {
            let more = match self.cut_at {
                None => self.rate.0 / 8,
                Some(_) => self.streams.0 * GROWS_PERCENT / 100,
            };
            self.rate = Rate(self.rate.0.saturating_add(more));
        }
        self.rate = self.rate.max(Rate((self.streams.0 * LEAST_PERCENT / 100).max(1)));
        self.rate
    }

    fn is_queue_full(&mut self, trips: &[RoundTrip]) -> bool {
        self.shortest.retain(|node, _| trips.iter().any(|t| t.node == *node));
        let mut queued = Vec::with_capacity(trips.len());
        for trip in trips.iter().take(MAX_SENDERS) {
            if trip.over {
                let shortest = self.shortest.entry(trip.node).or_insert(trip.took);
                *shortest = (*shortest).min(trip.took);
            }
            // One that is under way says something as soon as it takes longer than ever.
            let longer = self.shortest.get(&trip.node).and_then(|s| trip.took.0.checked_sub(s.0));
            queued.extend(longer.map(Micros));
        }
        queued.sort_unstable();
        queued.get(queued.len() / 4).is_some_and(|queue| *queue >= QUEUES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MBIT: u64 = 125_000;
    const FEEDS: u8 = 8;

    fn over(sender: u8, took: Micros) -> RoundTrip {
        RoundTrip { node: NodeId([sender; 32]), took, over: true }
    }

    /// A line with a queue of 100 ms: files take what they may of it, after a round trip; the streams 2 Mbit/s. Returns what
    /// files had of the last half, and for how many looks of that the queue was full.
    fn beside_a_stream(line_mbit: u64, seconds: u64) -> (u64, u64) {
        let (line, stream) = (line_mbit * MBIT, 2 * MBIT);
        let mut yields = Yields::new(Rate(stream));
        let (mut may, mut queue, mut had, mut full) = (stream, 0u64, 0u64, 0u64);
        let looks = seconds * 5;
        for look in 0..looks {
            let comes = (may + stream) / 5;
            queue = (queue + comes).saturating_sub(line / 5).min(line / 10);
            let rtt = Micros(50_000 + queue * 1_000_000 / line);
            let trips: Vec<RoundTrip> = (0..FEEDS).map(|n| over(n, rtt)).collect();
            let took = may.min(line - stream);
            if look >= looks / 2 {
                had += took / 5;
                full += u64::from(queue >= line / 12);
            }
            may = yields.seen(Time(1 + look * LOOK_EVERY.0), &trips, false, Rate(took)).0;
        }
        (had * 100 / ((line - stream) / 5 * (looks - looks / 2)), full * 100 / (looks - looks / 2))
    }

    #[test]
    fn files_have_most_of_what_streams_leave_and_the_queue_is_seldom_full() {
        for line in [4, 10, 20, 50] {
            let (had, full) = beside_a_stream(line, 120);
            assert!(
                had >= 60 && full <= 10,
                "{line} Mbit/s: files had {had} % of the rest, the queue was full {full} %"
            );
        }
    }

    #[test]
    fn slow_senders_are_no_queue_of_the_node_s_and_what_is_late_is() {
        const MS: fn(u64) -> Micros = Micros::from_millis;
        let look = |yields: &mut Yields, n: u64, slow: u8, answers: bool, late: bool| {
            let is_slow = |f: u8| n > 0 && f < slow;
            let trip = |f| RoundTrip { over: answers || !is_slow(f), ..over(f, MS(if is_slow(f) { 150 } else { 50 })) };
            yields
                .seen(
                    Time(1 + n * LOOK_EVERY.0),
                    &(0..FEEDS).map(trip).collect::<Vec<_>>(),
                    late && n > 0,
                    Rate(8 * MBIT),
                )
                .0
        };
        let cases = [(0, true, false, false), (5, true, false, false), (6, true, false, true), (6, false, false, true)];
        for (slow, answers, late, is_cut) in cases.into_iter().chain([(0, true, true, true)]) {
            let mut yields = Yields::new(Rate(2 * MBIT));
            let before = look(&mut yields, 0, slow, answers, late);
            let after = look(&mut yields, 1, slow, answers, late);
            assert_eq!(after < before, is_cut, "{slow} slow, late: {late}");
            for n in 2..400 {
                look(&mut yields, n, slow, answers, late);
            }
            assert!(!is_cut || look(&mut yields, 400, slow, answers, late) == MBIT / 5, "files never stand still");
        }
    }

    #[test]
    fn a_trip_under_way_says_nothing_before_it_takes_longer_than_ever() {
        let mut yields = Yields::new(Rate(2 * MBIT));
        let under_way = |ms| [RoundTrip { over: false, ..over(0, Micros::from_millis(ms)) }];
        assert!(!yields.is_queue_full(&under_way(500)), "how long it takes is not known yet");
        assert!(!yields.is_queue_full(&[over(0, Micros::from_millis(500))]));
        for (ms, full) in [(100, false), (550, false), (560, true)] {
            assert_eq!(yields.is_queue_full(&under_way(ms)), full, "{ms} ms");
        }
    }
}
