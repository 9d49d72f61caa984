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
/// What takes so much longer from a sender to here than it did stood in a queue. Senders have their own in their uplinks;
/// where three of four are behind one it is the queue that they share: the node's own.
const QUEUES: Micros = Micros::from_millis(60);
/// The shortest way that a sender's words took is forgotten after this time, or twice: clocks drift.
const REMEMBERED: Micros = Micros::from_secs(60);
/// What was asked for before a cut still comes for so long: nothing more is cut meanwhile.
const SETTLES: Micros = Micros::from_secs(1);
/// A cut leaves this part of what files took, in percent.
const CUT_PERCENT: u64 = 60;
/// Files never stand still: they have this part of the streams' rate, in percent.
const LEAST_PERCENT: u64 = 10;
/// Until the first cut files may take an eighth more at each look, then this part of the streams' rate, in percent.
const GROWS_PERCENT: u64 = 5;
/// Senders whose shortest delays are remembered.
const MAX_SENDERS: usize = 256;
/// How often a sender is probed.
const PROBE_EVERY: Micros = Micros::from_millis(400);

/// How long the latest word of a stream's sender took to get here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delay {
    /// The sender.
    pub node: NodeId,
    /// In microseconds, by this node's clock less the sender's: only differences between words of one sender mean anything.
    pub micros: i64,
}

/// What the senders of streams echo: by when an echo left, and when it is here, this node's line is known, whatever its
/// uplink does.
#[derive(Clone, Debug, Default)]
pub struct Delays(BTreeMap<NodeId, Probed>);

/// A sender that is probed.
#[derive(Clone, Copy, Debug)]
struct Probed {
    /// When it last was; the probe's number, too.
    at: Time,
    is_echoed: bool,
    /// Of the latest echo; none if the probe before this one was lost.
    delay: Option<i64>,
}

impl Delays {
    /// The echo of a probe that came to `node` at that time of its clock, in microseconds.
    pub fn echoed(&mut self, now: Time, node: &NodeId, number: u64, arrived_us: u64) {
        if let Some(probed) = self.0.get_mut(node).filter(|p| p.at.0 == number && !p.is_echoed) {
            probed.is_echoed = true;
            probed.delay = Some((now.0 as i64).wrapping_sub(arrived_us as i64));
        }
    }

    /// The latest delay of each of the `senders`, and who is to be probed now, by which number.
    pub fn look(&mut self, now: Time, senders: &[NodeId]) -> (Vec<Delay>, Vec<(NodeId, u64)>) {
        self.0.retain(|node, _| senders.contains(node));
        let delays = self.0.iter().filter_map(|(node, p)| Some(Delay { node: *node, micros: p.delay? })).collect();
        let mut probes = Vec::new();
        for node in senders.iter().take(MAX_SENDERS) {
            let before = self.0.get(node).copied();
            if before.is_none_or(|p| now.since(p.at) >= PROBE_EVERY) {
                let delay = before.filter(|p| p.is_echoed).and_then(|p| p.delay);
                self.0.insert(*node, Probed { at: now, is_echoed: false, delay });
                probes.push((*node, now.0));
            }
        }
        (delays, probes)
    }
}

/// The shortest delay of a sender lately, and in the time before.
#[derive(Clone, Copy, Debug)]
struct Shortest {
    since: Time,
    lately: i64,
    before: i64,
}

/// What files may take.
#[derive(Clone, Debug)]
pub struct Yields {
    /// Of all streams.
    streams: Rate,
    rate: Rate,
    cut_at: Option<Time>,
    shortest: BTreeMap<NodeId, Shortest>,
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

    /// How the streams fare: the latest delay of each of their senders, and whether pieces are `late`; and what files `took`
    /// since the last look. Returns what they may take from now on, in bytes per second.
    pub fn seen(&mut self, now: Time, delays: &[Delay], late: bool, took: Rate) -> Rate {
        let suffers = late || self.is_queue_full(now, delays);
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

    fn is_queue_full(&mut self, now: Time, delays: &[Delay]) -> bool {
        self.shortest.retain(|node, _| delays.iter().any(|d| d.node == *node));
        let mut queued = Vec::with_capacity(delays.len());
        for Delay { node, micros } in delays.iter().take(MAX_SENDERS).copied() {
            let new = Shortest { since: now, lately: micros, before: micros };
            let shortest = self.shortest.entry(node).or_insert(new);
            if now.since(shortest.since) >= REMEMBERED {
                *shortest = Shortest { before: shortest.lately, ..new };
            }
            shortest.lately = shortest.lately.min(micros);
            queued.push(micros.saturating_sub(shortest.lately.min(shortest.before)));
        }
        queued.sort_unstable();
        queued.get(queued.len() / 4).is_some_and(|queue| *queue >= QUEUES.0 as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MBIT: u64 = 125_000;
    const FEEDS: u8 = 8;

    /// Each sender has another clock.
    fn of(sender: u8, micros: i64) -> Delay {
        Delay { node: NodeId([sender; 32]), micros: micros + (i64::from(sender) - 4) * 1_000_000_000 }
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
            let micros = 25_000 + (queue * 1_000_000 / line) as i64;
            let delays: Vec<Delay> = (0..FEEDS).map(|n| of(n, micros)).collect();
            let took = may.min(line - stream);
            if look >= looks / 2 {
                had += took / 5;
                full += u64::from(queue >= line / 12);
            }
            may = yields.seen(Time(1 + look * LOOK_EVERY.0), &delays, false, Rate(took)).0;
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
        let look = |yields: &mut Yields, n: u64, slow: u8, late: bool| {
            let delays: Vec<Delay> =
                (0..FEEDS).map(|f| of(f, if n > 0 && f < slow { 125_000 } else { 25_000 })).collect();
            yields.seen(Time(1 + n * LOOK_EVERY.0), &delays, late && n > 0, Rate(8 * MBIT)).0
        };
        for (slow, late, is_cut) in [(0, false, false), (5, false, false), (6, false, true), (0, true, true)] {
            let mut yields = Yields::new(Rate(2 * MBIT));
            let before = look(&mut yields, 0, slow, late);
            let after = look(&mut yields, 1, slow, late);
            assert_eq!(after < before, is_cut, "{slow} slow, late: {late}");
            for n in 2..100 {
                look(&mut yields, n, slow, late);
            }
            assert!(!is_cut || look(&mut yields, 100, slow, late) == MBIT / 5, "files never stand still");
        }
    }

    #[test]
    fn a_sender_is_known_by_its_latest_echo_as_long_as_it_echoes() {
        let (mut delays, node) = (Delays::default(), NodeId([1; 32]));
        let at = |ms: u64| Time(ms * 1000);
        let known = |delays: &mut Delays, ms: u64| {
            let (known, probes) = delays.look(at(ms), &[node]);
            (known.first().map(|d| d.micros), probes.first().map(|p| p.1))
        };
        // Its clock is far ahead.
        let delay = Some(1_210_000 - 9_001_185_000);
        assert_eq!(known(&mut delays, 1000), (None, Some(1_000_000)));
        delays.echoed(at(1050), &node, 999_999, 0);
        assert_eq!(known(&mut delays, 1200), (None, None), "nobody was asked that");
        delays.echoed(at(1210), &node, 1_000_000, 9_001_185_000);
        delays.echoed(at(1220), &node, 1_000_000, 1);
        assert_eq!(known(&mut delays, 1390), (delay, None), "the first echo counts");
        assert_eq!(known(&mut delays, 1400), (delay, Some(1_400_000)));
        assert_eq!(known(&mut delays, 1600), (delay, None));
        assert_eq!(known(&mut delays, 1800), (delay, Some(1_800_000)));
        assert_eq!(known(&mut delays, 2000), (None, None), "the probe was lost");
        assert_eq!(delays.look(at(2200), &[]), (vec![], vec![]));
        assert_eq!(known(&mut delays, 2210), (None, Some(2_210_000)), "it is no sender any more, and is one again");
    }

    #[test]
    fn a_clock_that_drifts_is_no_queue() {
        let mut yields = Yields::new(Rate(2 * MBIT));
        for second in 0..7200 {
            // 200 in a million, as bad clocks do.
            let now = Time(1 + second * 1_000_000);
            assert!(!yields.is_queue_full(now, &[of(0, 25_000 + 200 * second as i64)]), "{second} s");
        }
    }
}
