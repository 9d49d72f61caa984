//! Network condition monitor: what the two ends of an edge say of the same interval, or of a live stream's last pieces (C3,
//! R3), and which links between regions are congested (C8).

use crate::node_map::PairMap;
use headwater_model::id::NodeId;
use headwater_model::place::Place;
use headwater_model::report::EdgeReport;
use headwater_model::time::{Micros, Rate, Time};
use std::collections::BTreeMap;

/// Share of packets lost in an interval from which on an edge is strained, in thousandths: a paced line loses none, a
/// window-based sender that fills a queue a few in ten thousand.
const STRAINED_LOSS_MILLI: u64 = 7;
/// Packets of an interval that such a share takes at least, and lost ones among them.
const MIN_PACKETS: u64 = 100;
/// See `MIN_PACKETS`.
const MIN_LOST: u64 = 2;
/// An edge whose round trips take so much longer than twice its shortest waits in a queue.
const QUEUE_GROWTH: Micros = Micros::from_millis(50);
/// More than send and receive windows of both ends hold: a sender that says it sent so much more than arrived lies.
const OVERSTATED_BYTES: u64 = 32 << 20;
/// Packets that a sender is believed to have sent in an interval; sums and products of such counts stay in range.
const MAX_PACKETS: u64 = 1 << 24;
/// Below this fraction of its promise a parent that is waited for all the time gives next to nothing.
const HOPELESS: u64 = 8;
/// Intervals in a row with signs of strain before a pair is named.
const STRAINED_INTERVALS: u32 = 2;
/// A piece of a live stream that takes so long from one end of an edge to the other is late: many times what connections
/// that carry what is sent need, clocks' errors and reports under way included.
const LATE: Micros = Micros::from_secs(2);
/// Comparisons in a row in which the child of an edge of a live stream lacked what should have come.
const LATE_TIMES: u32 = 2;

/// What is wrong with an edge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Asked, and not a byte came for N intervals.
    Silent,
    /// Under its share of what was promised for N intervals.
    Slow,
    /// The parent sent more than the child got, two intervals running, or pieces of a live stream that came seconds late:
    /// the link between them is congested.
    Congested,
    /// The parent offers nothing of what it tells the control center that it holds.
    Empty,
    /// The child was attacked from the parent's address.
    Attack,
}

/// An edge's reports, as far as they are needed to judge it.
#[derive(Clone, Copy, Default, Debug)]
pub struct EdgeWatch {
    got: (u64, u64),
    sent: (u64, u64),
    silent: u32,
    slow: u32,
    congested: u32,
    /// Intervals in a row in which the sender lost packets or their round trips grew.
    strained: u32,
    /// Packets sent and lost, as the sender last said.
    packets: (u64, u64),
    /// Those of late: each interval before the last one counts half as much as the one after it.
    recent: (u64, u64),
    /// Whether packets waited in a queue in the last interval.
    queued: bool,
    shortest_rtt: Micros,
    /// Intervals in a row in which the child asked nothing although the parent claims much that it lacks.
    pub idle: u32,
    judged: u64,
    /// Bytes that the child got in its last reported interval.
    pub last_bytes: u64,
    /// At which rate, while it waited for some.
    pub last_rate: Rate,
    /// Whether the child waited for it all the last interval and got next to nothing of what was promised.
    pub hopeless: bool,
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
        self.last_rate = Rate::while_waited(new, said.waited);
        self.hopeless = said.waited.0.saturating_mul(10) >= t.interval.0.saturating_mul(9)
            && self.last_rate.0.saturating_mul(HOPELESS) < promised.0;
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

    /// Payload that the parent, by its report of `interval`, sent since its last one; nothing where either is of a part
    /// of an interval, or it began anew. Before [`EdgeWatch::parent_says`].
    pub fn claimed(&self, interval: u64, said: &EdgeReport, t: &Thresholds) -> Rate {
        let intervals = interval.saturating_sub(self.sent.0);
        if self.sent.0 == 0 || interval == 0 || intervals == 0 {
            return Rate(0);
        }
        Rate::of(said.bytes.saturating_sub(self.sent.1), t.interval.times(intervals))
    }

    /// The parent's report of `interval`.
    pub fn parent_says(&mut self, interval: u64, said: &EdgeReport, t: &Thresholds) -> Option<Trouble> {
        self.sent = (interval, said.bytes);
        // Interval 0 is none: such a report tells of a part of one.
        if interval > 0 {
            self.watch_path(said);
        }
        let compared = self.compare(said.rtt, t);
        compared.or((self.strained >= STRAINED_INTERVALS).then_some(Trouble::Congested))
    }

    /// What the sender's transport says: packets lost, and time spent in queues.
    fn watch_path(&mut self, said: &EdgeReport) {
        let since = |new: u64, old: u64| new.checked_sub(old).unwrap_or(new);
        let sent = since(said.sent_packets, self.packets.0).min(MAX_PACKETS);
        let lost = since(said.lost_packets, self.packets.1).min(sent);
        self.packets = (said.sent_packets, said.lost_packets);
        self.recent = (self.recent.0 / 2 + sent, self.recent.1 / 2 + lost);
        let lossy = sent >= MIN_PACKETS && lost >= MIN_LOST && lost * 1000 >= sent * STRAINED_LOSS_MILLI;
        let known = self.shortest_rtt.0 > 0;
        self.queued = known && sent > 0 && said.rtt.0 > self.shortest_rtt.0 * 2 + QUEUE_GROWTH.0;
        if said.rtt.0 > 0 && (!known || said.rtt < self.shortest_rtt) {
            self.shortest_rtt = said.rtt;
        }
        self.strained = if lossy || self.queued { self.strained + 1 } else { 0 };
    }

    /// Whether it shows any sign of congestion at present.
    pub fn is_strained(&self) -> bool {
        self.strained > 0 || self.congested > 0
    }
    /// Whether packets get lost though they wait in no queue: what lies between the ends loses them at any rate.
    pub fn is_lossy(&self) -> bool {
        self.strained > 0 && !self.queued
    }
    /// Packets that the parent sent of late, and those of them that were lost.
    pub fn packets_of_late(&self) -> (u64, u64) {
        self.recent
    }
    /// Whether anything moved in its last interval.
    pub fn is_active(&self) -> bool {
        self.last_bytes > 0 || self.is_strained()
    }
    /// Bytes that the child has told of from the parent.
    pub fn served(&self) -> u64 {
        self.got.1
    }
    /// Whether the child has told of the edge: it is open.
    pub fn is_reported(&self) -> bool {
        self.got.0 > 0
    }
    /// Whether the parent says that it sent more than can be on its way.
    pub fn is_overstated(&self) -> bool {
        self.sent.1.saturating_sub(self.got.1) > OVERSTATED_BYTES
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

/// The last pieces that the two ends of an edge of a live stream tell of in one substream (C3). They count as long as the
/// edge is the same.
///
/// What the parent had sent by the end of an interval is compared with what the child had by the end of a later one. A
/// parent that is itself behind sends nothing new, so that its children lack nothing of it.
#[derive(Clone, Copy, Default, Debug)]
pub struct SequenceWatch {
    /// What the child is to have: interval, and the highest piece that the parent had sent by its end. No interval is 0.
    awaited: (u64, u64),
    /// The same as the parent last said it.
    sent: (u64, u64),
    /// Whether the two ends were compared at all.
    compared: bool,
    /// How often in a row the child lacked what it was to have.
    late: u32,
}

impl SequenceWatch {
    /// The parent's report of `interval`: the highest piece that it had sent by its end. Its first word on it counts.
    pub fn parent_says(&mut self, interval: u64, sent: u64) {
        if interval <= self.sent.0 {
            return;
        }
        self.sent = (interval, sent);
        if self.awaited.0 == 0 {
            self.awaited = self.sent;
        }
    }

    /// The child's report of `interval`: the highest piece that had come by its end. Nobody can have sent a piece after
    /// `newest`: who says so is not heard. Returns whether the link is congested: each of the last comparisons, for which
    /// both ends spoke anew, found the child late. `length` is that of an interval.
    pub fn child_says(&mut self, interval: u64, got: u64, newest: u64, length: Micros) -> bool {
        let (at, sent) = self.awaited;
        let later = LATE.0.div_ceil(length.0.max(1)).max(1);
        if at == 0 || interval < at.saturating_add(later) {
            return false;
        }
        // Where the parent has not spoken since, its next word is awaited.
        self.awaited = if self.sent.0 > at { self.sent } else { (0, 0) };
        self.compared = true;
        self.late = if got < sent && sent <= newest { self.late.saturating_add(1) } else { 0 };
        self.late >= LATE_TIMES
    }

    /// Whether the two ends were compared.
    pub fn is_compared(&self) -> bool {
        self.compared
    }
    /// Whether the child lacked what it was to have when they were compared last.
    pub fn is_late(&self) -> bool {
        self.late > 0
    }
}

/// Links between regions that are watched; further ones are not.
const MAX_LINKS: usize = 4096;
/// Pairs that are kept of each; further ones do not count.
const MAX_PAIRS_OF_LINK: usize = 512;
/// A pair counts for so long after it moved something: two heartbeats and a half.
const ACTIVE: Micros = Micros::from_secs(5);
/// A pair counts as congested for so long after it was named.
const NAMED: Micros = Micros::from_secs(10);

/// Where a link begins or ends: an ISP or AS, else a country; nothing where that is not known.
pub fn region_name(place: &Place) -> Option<String> {
    let asn = place.asn.map(|n| format!("AS{n}"));
    match (&place.isp, asn) {
        (Some(isp), Some(asn)) => Some(format!("{isp} ({asn})")),
        (Some(one), None) => Some(one.clone()),
        (None, Some(one)) => Some(one),
        (None, None) => place.country.clone(),
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    moved_at: Time,
    named_at: Option<Time>,
}

/// The way from one region to another.
#[derive(Clone, Debug)]
pub struct Link {
    /// Where it begins and ends, in words.
    pub from: String,
    /// See `from`.
    pub to: String,
    /// Pairs that use it.
    pub pairs: usize,
    /// Those among them that were named as congested of late.
    pub congested_pairs: usize,
    /// Since when most of them are; `None` while they are not.
    pub congested_since: Option<Time>,
    by_pair: PairMap<Pair>,
}

/// All links between regions that pairs use.
#[derive(Clone, Debug, Default)]
pub struct Links {
    links: BTreeMap<(u64, u64), Link>,
}

impl Links {
    /// Bytes went from `parent` to `child`.
    pub fn moved(&mut self, now: Time, parent: (NodeId, &Place), child: (NodeId, &Place)) {
        if let Some(pair) = self.pair(parent, child) {
            pair.moved_at = now;
        }
    }

    /// The edge from `parent` to `child` is congested. Returns whether that is new: pairs across regions stay, and are
    /// named in every interval.
    pub fn named(&mut self, now: Time, parent: (NodeId, &Place), child: (NodeId, &Place)) -> bool {
        let Some(pair) = self.pair(parent, child) else { return true };
        let before = pair.named_at.replace(now);
        pair.moved_at = now;
        before.is_none_or(|t| now.since(t) > NAMED)
    }

    fn pair(&mut self, parent: (NodeId, &Place), child: (NodeId, &Place)) -> Option<&mut Pair> {
        let key = (parent.1.region(), child.1.region());
        if key.0 == key.1 {
            return None;
        }
        // Names are made once, and not for each heartbeat.
        if !self.links.contains_key(&key) {
            let (from, to) = (region_name(parent.1)?, region_name(child.1)?);
            if self.links.len() >= MAX_LINKS {
                return None;
            }
            let (congested_since, by_pair) = (None, PairMap::new());
            self.links.insert(key, Link { from, to, pairs: 0, congested_pairs: 0, congested_since, by_pair });
        }
        let link = self.links.get_mut(&key)?;
        let nodes = (parent.0, child.0);
        let room = link.by_pair.len() < MAX_PAIRS_OF_LINK || link.by_pair.contains_key(&nodes);
        room.then(|| link.by_pair.entry(nodes).or_default())
    }

    /// Counts the pairs of each link. Returns those whose state changed.
    pub fn tick(&mut self, now: Time) -> Vec<Link> {
        let mut changed = Vec::new();
        for link in self.links.values_mut() {
            let is_named = |p: &Pair| p.named_at.is_some_and(|t| now.since(t) <= NAMED);
            link.by_pair.retain(|_, p| now.since(p.moved_at) <= ACTIVE || is_named(p));
            link.pairs = link.by_pair.len();
            link.congested_pairs = link.by_pair.values().filter(|p| is_named(p)).count();
            let congested = link.congested_pairs > 0 && link.congested_pairs * 2 >= link.pairs;
            // One that is said to be congested stays so until no pair is.
            let stays = link.congested_since.is_some() && link.congested_pairs > 0;
            if (congested || stays) != link.congested_since.is_some() {
                link.congested_since = congested.then_some(now);
                changed.push(Link { by_pair: PairMap::new(), ..link.clone() });
            }
        }
        self.links.retain(|_, l| !l.by_pair.is_empty());
        changed
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
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
            sent_packets: 0,
            lost_packets: 0,
            offers_nothing: false,
            last_pieces: Vec::new(),
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

    /// A sender's reports: packets sent and lost in each interval, round trip in ms; and in which one it is named.
    fn check_path(story: &[(u64, u64, u64)], expected: Option<usize>) {
        let (mut w, mut sum) = (EdgeWatch::default(), (0, 0));
        let found = story.iter().enumerate().find_map(|(i, (sent, lost, rtt))| {
            sum = (sum.0 + sent, sum.1 + lost);
            let report = EdgeReport {
                sent_packets: sum.0,
                lost_packets: sum.1,
                rtt: Micros::from_millis(*rtt),
                ..said(0, 2000)
            };
            w.parent_says(i as u64 + 1, &report, &T).map(|_| i)
        });
        assert_eq!(found, expected, "{story:?}");
    }

    #[test]
    fn loss_and_queues_take_two_intervals() {
        check_path(&[(300, 0, 60), (300, 6, 60), (300, 5, 60)], Some(2));
        check_path(&[(300, 0, 60), (300, 6, 60), (300, 0, 60), (300, 6, 60)], None);
        check_path(&[(300, 1, 60), (300, 1, 60), (300, 1, 60)], None);
        check_path(&[(20, 2, 60), (20, 2, 60), (20, 2, 60)], None);
        check_path(&[(300, 0, 60), (300, 0, 180), (300, 0, 250)], Some(2));
        check_path(&[(300, 0, 60), (300, 0, 160), (300, 0, 160)], None);
    }

    #[test]
    fn counts_out_of_range_do_no_harm() {
        let mut w = EdgeWatch::default();
        for (i, n) in [u64::MAX, 5, u64::MAX, u64::MAX - 1].into_iter().enumerate() {
            let report = EdgeReport { sent_packets: n, lost_packets: n, ..said(0, 2000) };
            let _ = w.parent_says(i as u64 + 1, &report, &T);
            let (sent, lost) = w.packets_of_late();
            assert!(lost <= sent && sent <= 2 * MAX_PACKETS);
        }
    }

    /// What the parent and the child say of each interval.
    type LastPieces = (Option<u64>, Option<u64>);

    /// In which interval the link is congested, where the parent speaks first in each, and where the child does. Nobody has
    /// sent a piece after 1000.
    fn congested_at(length: Micros, story: &[LastPieces]) -> [Option<usize>; 2] {
        [false, true].map(|child_first| {
            let mut w = SequenceWatch::default();
            story.iter().enumerate().position(|(i, (sent, got))| {
                let interval = i as u64 + 1;
                if let Some(sent) = sent.filter(|_| !child_first) {
                    w.parent_says(interval, sent);
                }
                let congested = got.is_some_and(|got| w.child_says(interval, got, 1000, length));
                if let Some(sent) = sent.filter(|_| child_first) {
                    w.parent_says(interval, sent);
                }
                congested
            })
        })
    }

    #[test]
    fn a_link_is_congested_when_pieces_are_late_twice() {
        let both = |all: &[(u64, u64)]| all.iter().map(|(s, g)| (Some(*s), Some(*g))).collect::<Vec<_>>();
        for (what, story, expected) in [
            ("in time", both(&[(10, 10), (20, 20), (30, 30), (40, 40)]), None),
            ("an interval behind", both(&[(10, 1), (20, 10), (30, 20), (40, 30)]), None),
            ("more than that", both(&[(10, 1), (20, 2), (30, 19), (40, 39)]), Some(2)),
            ("once in a while", both(&[(10, 1), (20, 2), (30, 30), (40, 29), (50, 50)]), None),
            ("later and later", both(&[(10, 10), (20, 17), (30, 22), (40, 27), (50, 32)]), Some(4)),
            ("a parent that is behind", both(&[(10, 10), (10, 10), (10, 10), (11, 10), (11, 11)]), None),
            ("a parent that begins anew", both(&[(90, 90), (100, 100), (20, 20), (30, 30), (40, 40)]), None),
            ("more than anybody sent", both(&[(2000, 10), (3000, 10), (u64::MAX, 10), (u64::MAX, 10)]), None),
            ("one such word", both(&[(10, 10), (2000, 19), (30, 20), (40, 29)]), None),
            ("a child that claims more", both(&[(10, u64::MAX), (20, u64::MAX), (30, u64::MAX)]), None),
            ("only the parent", vec![(Some(10), None), (Some(20), None), (Some(30), None)], None),
            ("only the child", vec![(None, Some(1)), (None, Some(1)), (None, Some(1))], None),
            ("the parent once", vec![(Some(10), Some(1)), (None, Some(1)), (None, Some(1)), (None, Some(1))], None),
            (
                "the child sometimes",
                vec![(Some(10), None), (Some(20), Some(1)), (Some(30), None), (Some(40), Some(11))],
                Some(3),
            ),
        ] {
            assert_eq!(congested_at(Micros::from_secs(2), &story), [expected; 2], "{what}");
        }
        // Four intervals of half a second are as long as one of two.
        let behind =
            |by: u64| (1..20u64).map(|n| (Some(n * 10), Some((n * 10).saturating_sub(by)))).collect::<Vec<_>>();
        assert_eq!(congested_at(Micros::from_millis(500), &behind(30)), [None, None]);
        assert_eq!(congested_at(Micros::from_millis(500), &behind(50)), [Some(8), Some(7)]);
    }

    /// A child that invents intervals is compared no more often than its parent speaks, and the other way round.
    #[test]
    fn who_invents_intervals_gains_nothing() {
        let length = Micros::from_secs(2);
        let mut w = SequenceWatch::default();
        w.parent_says(5, 50);
        assert!((6..1000).all(|i| !w.child_says(i, 1, 1000, length)));
        w.parent_says(6, 60);
        assert!(w.child_says(u64::MAX, 1, 1000, length), "twice each");
        let mut w = SequenceWatch::default();
        for interval in 6..1000 {
            w.parent_says(5, 50 + interval);
            assert!(!w.child_says(interval, 1, 1000, length), "its word on one interval counts once");
        }
        let mut w = SequenceWatch::default();
        w.parent_says(u64::MAX, 50);
        assert!((6..1000).all(|i| !w.child_says(i, 1, 1000, length)));
        (5..1000).for_each(|i| w.parent_says(i, 900));
        assert!(!w.child_says(7, 1, 1000, length));
    }

    #[test]
    fn a_link_is_congested_when_half_of_its_pairs_are() {
        let place = |asn| Place { asn: Some(asn), isp: Some(format!("Net {asn}")), ..Place::default() };
        let (a, b) = (place(1), place(2));
        let node = |n| NodeId([n; 32]);
        let mut links = Links::default();
        (0..6).for_each(|n| links.moved(Time(1), (node(n), &a), (node(n + 10), &b)));
        links.moved(Time(1), (node(1), &a), (node(2), &a));
        assert!(links.tick(Time(2)).is_empty());
        assert!((0..2).all(|n| links.named(Time(3), (node(n), &a), (node(n + 10), &b))));
        assert!(links.tick(Time(4)).is_empty(), "two of six are not enough");
        assert!(links.named(Time(5), (node(2), &a), (node(12), &b)));
        assert!(!links.named(Time(5), (node(2), &a), (node(12), &b)), "it is known");
        let changed = links.tick(Time(6));
        let link = changed.first().unwrap();
        assert_eq!((link.from.as_str(), link.to.as_str()), ("Net 1 (AS1)", "Net 2 (AS2)"));
        assert_eq!((changed.len(), link.congested_pairs, link.pairs), (1, 3, 6));
        assert!(links.tick(Time(7)).is_empty());
        let later = Time(7) + NAMED + Micros::from_secs(1);
        assert_eq!(links.tick(later).first().map(|l| l.congested_since), Some(None));
        assert_eq!(links.iter().count(), 0);
    }
}
