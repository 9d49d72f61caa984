//! How fast a node may send so that its user's own packets do not wait: a governor over all of its connections, as they
//! share one uplink. After LEDBAT (RFC 6817) and LEDBAT++, with a rate instead of a window, as nobody here sees packets.
//!
//! Children echo small probes with the time at which they arrived. What a probe took on its way, less the least that one
//! took of late, is the queue that it stood in: at this end's uplink, or at that child's downlink. The first is common to
//! all children, so that the least of them counts. The way back does not count: a full downlink slows no upload.

mod path;

use headwater_model::id::NodeId;
use headwater_model::rng::Rng;
use headwater_model::time::{Micros, Rate, Time};
use path::{Path, Sample};
use std::collections::{BTreeMap, VecDeque};

/// A queue that is longer is shortened …
const TARGET: Micros = Micros::from_millis(10);
/// … on slow lines one of so many bytes: a packet and a half stand before a probe without any queue.
const TARGET_BYTES: u64 = 2250;
/// Slow start ends with a queue that is longer.
const START_TARGET: Micros = Micros::from_millis(5);
/// First rate, until the ways are known.
const FIRST: Rate = Rate(125_000);
/// Never slower: children would take it for dead, and nothing would be learnt.
const LEAST: Rate = Rate(12_000);
/// Never faster: beyond this no line is protected by waiting.
const MOST: Rate = Rate::from_mbit(20_000);
/// Share of what the line carried that is sent after a queue was seen, so that it drains and its absence is seen.
const BACK_OFF: f64 = 0.92;
/// A longer queue takes off more: it is to be gone in this time.
const DRAIN: Micros = Micros::from_millis(200);
/// Growth at each look while there is no queue; twice as much after each [`GROW_FASTER`] such looks.
const GROWTH: f64 = 0.01;
/// See [`GROWTH`].
const GROW_FASTER: u32 = 16;
/// Most growth at a look, as in slow start.
const MOST_GROWTH: f64 = 0.5;
/// A rate of which less is used is no limit, and does not grow.
const USED: f64 = 0.6;
/// How often a probe goes out while something is sent, to one child after the other.
const PROBE_EVERY: Micros = Micros::from_millis(20);
/// Samples that a look needs, all of probes that were sent since the rate changed.
const SAMPLES: usize = 5;
/// A child that nothing was sent to for this long is not probed.
const ACTIVE: Micros = Micros::from_millis(500);
/// A path is believed when its shortest time was looked for so long, if there is one that was.
const SEASONED: Micros = Micros::from_secs(2);
/// Nothing sent for this long: the line may be another one by now.
const IDLE: Micros = Micros::from_secs(10);
/// Nothing sent for longer is a pause, as between two segments of a stream: it tells nothing of the line. At low rates the
/// pacer itself waits for as long as [`PACED_BYTES`] take.
const PAUSE: Micros = Micros::from_millis(60);
/// See [`PAUSE`].
const PACED_BYTES: u64 = 2600;
/// What was sent in less time than this tells nothing of the line.
const TELLING: Micros = PROBE_EVERY.times(2);
/// What looks like a queue and has been the same, within [`STEADY`], for so long is none: the way became longer. Queues of
/// others come and go.
const LONGER: Micros = Micros::from_secs(10);
/// See [`LONGER`].
const STEADY: Micros = Micros::from_millis(6);
/// Probes that nobody echoes for this long: nothing is known, and less is sent.
const UNHEARD: Micros = Micros::from_secs(2);
/// Children that are probed, those with the oldest paths: all tell of the same uplink.
const PROBED: usize = 6;
/// The first probe to a child is repeated after this time.
const AGAIN: Micros = Micros::from_millis(300);
/// Children with a path at once; those of which nothing was heard for longest are forgotten.
const MAX_PATHS: usize = 256;
/// Probes under way; more of them are lost ones.
const MAX_UNDER_WAY: usize = 256;

/// A probe to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    /// To whom.
    pub to: NodeId,
    /// Nobody can guess it: an echo proves that the probe arrived.
    pub number: u64,
}

/// The governor of a node's uplink.
#[derive(Clone, Debug)]
pub struct Uplink {
    paths: BTreeMap<NodeId, Path>,
    /// Probes under way, oldest first.
    under_way: VecDeque<UnderWay>,
    /// Echoes of probes sent since the rate changed.
    samples: usize,
    starting: bool,
    rate: f64,
    /// The user's own limit.
    most: f64,
    /// Since when it is so, and the bytes sent by then.
    changed: (Time, u64),
    /// How long of that nothing was to be sent.
    paused: Micros,
    /// When the last pause ended.
    paused_at: Time,
    /// What the last look saw.
    seen: Option<Sample>,
    /// Since when a queue stands, and its shortest and longest.
    stands: Option<(Time, Micros, Micros)>,
    /// The rate at which a queue was last seen.
    peak: f64,
    /// The rate to go on with when the queue is gone.
    drained: f64,
    /// Looks in a row without a queue.
    free_looks: u32,
    /// When more was last sent, and the bytes by then.
    sent: (Time, u64),
    heard: Time,
    probe_at: Time,
    rng: Rng,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    probe: Probe,
    at: Time,
    /// Bytes sent before it.
    sent: u64,
}

impl Uplink {
    /// `most` is the user's limit, which is tried soon.
    pub fn new(now: Time, most: Option<Rate>, seed: u64) -> Self {
        let mut uplink = Self {
            paths: BTreeMap::new(),
            under_way: VecDeque::new(),
            samples: 0,
            starting: true,
            rate: FIRST.0 as f64,
            most: MOST.0 as f64,
            changed: (now, 0),
            paused: Micros(0),
            paused_at: now,
            seen: None,
            stands: None,
            drained: 0.0,
            peak: 0.0,
            free_looks: 0,
            sent: (now, 0),
            heard: now,
            probe_at: now,
            rng: Rng::new(seed, "uplink"),
        };
        uplink.limit(most);
        uplink
    }

    /// The user's limit is another one.
    pub fn limit(&mut self, most: Option<Rate>) {
        self.most = most.map_or(MOST.0, |m| m.0.min(MOST.0)) as f64;
        self.rate = self.rate.min(self.most);
    }

    /// How fast may be sent, in bytes that the caller counts.
    pub fn rate(&self) -> Rate {
        Rate(self.rate as u64)
    }

    /// Something is sent to `child`.
    pub fn sends_to(&mut self, now: Time, child: NodeId) {
        if let Some(path) = self.paths.get_mut(&child) {
            path.used_at = now;
            return;
        }
        if self.paths.len() >= MAX_PATHS
            && let Some(oldest) = self.paths.iter().min_by_key(|(_, p)| p.used_at).map(|(n, _)| *n)
        {
            self.paths.remove(&oldest);
        }
        self.paths.insert(child, Path::new(now));
    }

    /// The connection with `child` ended.
    pub fn gone(&mut self, child: &NodeId) {
        self.paths.remove(child);
    }

    /// Whether anything is sent to anybody.
    pub fn is_active(&self, now: Time) -> bool {
        self.paths.values().any(|p| now.since(p.used_at) < ACTIVE)
    }

    /// Time passes; `sent` bytes were sent in all. To be called every [`Uplink::PULSE`] while it is active. Returns probes
    /// to be sent now.
    pub fn pulse(&mut self, now: Time, sent: u64) -> Vec<Probe> {
        if sent != self.sent.1 {
            let since = now.since(self.sent.0);
            if since > IDLE {
                self.begin_anew(now, sent);
            }
            let pause = self.pause(now);
            if pause > Micros(0) {
                self.paused = Micros(self.paused.0 + pause.0);
                self.paused_at = now;
            }
            self.sent = (now, sent);
        }
        if now.since(self.probe_at) > ACTIVE {
            // Nothing was sent, and nobody asked, meanwhile.
            self.heard = now;
        }
        if now.since(self.heard) > UNHEARD && !self.under_way.is_empty() {
            self.heard = now;
            self.set(now, sent, self.rate / 2.0);
        }
        let due = self.due(now);
        due.into_iter().map(|to| self.probe(now, to, sent)).collect()
    }

    /// Who is to be probed now: all of whom nothing is known, and one after the other of the rest.
    fn due(&mut self, now: Time) -> Vec<NodeId> {
        let active = self.paths.iter().filter(|(_, p)| now.since(p.used_at) < ACTIVE);
        let mut probed: Vec<(&NodeId, &Path)> = active.collect();
        probed.sort_by_key(|(node, p)| (p.since, **node));
        probed.truncate(PROBED);
        let is_new = |p: &Path| !p.is_known() && p.probed_at.is_none_or(|at| now.since(at) >= AGAIN);
        let mut due: Vec<NodeId> = probed.iter().filter(|(_, p)| is_new(p)).map(|(n, _)| **n).collect();
        if now >= self.probe_at {
            self.probe_at = now + PROBE_EVERY;
            let longest_ago = probed.iter().filter(|(_, p)| p.is_known()).min_by_key(|(_, p)| p.probed_at);
            due.extend(longest_ago.map(|(node, _)| **node));
        }
        due
    }

    fn probe(&mut self, now: Time, to: NodeId, sent: u64) -> Probe {
        if let Some(path) = self.paths.get_mut(&to) {
            path.probed_at = Some(now);
        }
        let probe = Probe { to, number: self.rng.next_u64() };
        if self.under_way.len() >= MAX_UNDER_WAY {
            self.under_way.pop_front();
        }
        if self.under_way.is_empty() {
            self.heard = now;
        }
        self.under_way.push_back(UnderWay { probe, at: now, sent });
        probe
    }

    /// How often [`Uplink::pulse`] is to be called.
    pub const PULSE: Micros = PROBE_EVERY;

    /// `child` echoes the probe `number`: it arrived when the child's clock, of whatever origin, showed `their_us`. Words
    /// about a probe that it was not sent, or echoed already, are not heard.
    pub fn echoed(&mut self, now: Time, child: NodeId, number: u64, their_us: u64) {
        let is_it = |u: &UnderWay| u.probe.number == number && u.probe.to == child;
        let Some(at) = self.under_way.iter().position(is_it) else { return };
        let Some(probe) = self.under_way.remove(at) else { return };
        let Some(path) = self.paths.get_mut(&child) else { return };
        let known = self.seen.filter(|s| now.since(s.sent_at) < SEASONED).map_or(Micros(0), |s| s.queue);
        let was_known = path.is_known();
        path.add(now, (probe.at, probe.sent), their_us, known);
        self.heard = now;
        if probe.at >= self.changed.0 && was_known {
            self.samples += 1;
        }
        if self.samples >= SAMPLES {
            // While it waits for a queue to drain, what was is no news.
            let news = probe.at - PROBE_EVERY.times(SAMPLES as u64 - 1);
            self.look(now, if self.drained > 0.0 { news.max(self.changed.0) } else { self.changed.0 });
        }
    }

    /// The probe that stood in the shortest queue, of those sent since then; of four ways or more the one of the second way, so that one child that lies about its delays changes nothing.
    fn least_delayed(&self, now: Time, since: Time) -> Option<Sample> {
        let of = |seasoned: bool| {
            let paths = self.paths.values().filter(|p| !seasoned || now.since(p.since) >= SEASONED);
            let mut shortest: Vec<Sample> = paths.filter_map(|p| p.shortest(since)).collect();
            shortest.sort_by_key(|s| s.queue);
            let second = self.paths.values().filter(|p| p.is_known() && now.since(p.used_at) < ACTIVE).count() >= 4;
            shortest.get(usize::from(second).min(shortest.len().saturating_sub(1))).copied()
        };
        of(true).or_else(|| of(false))
    }

    /// What there is to know of the rate that was set: the queue, and how much the line carried meanwhile.
    fn look(&mut self, now: Time, since: Time) {
        let Some(seen) = self.least_delayed(now, since) else { return };
        if self.is_longer_way(now, seen.queue) {
            self.paths.values_mut().for_each(Path::forget);
            self.seen = None;
            return;
        }
        let before = self.seen.replace(seen);
        let (sent, sent_then) = (self.sent.1, self.changed.1);
        let paused = self.paused + self.pause(now);
        let took = Micros(now.since(self.changed.0).0.saturating_sub(paused.0));
        if took < TELLING {
            // A queue now is not of this node's making.
            (self.changed, self.paused, self.samples) = ((now, sent), Micros(0), 0);
            return;
        }
        let sending = (sent - sent_then) as f64 / took.as_secs_f64();
        let target = if self.starting { START_TARGET } else { TARGET }.max(self.rate().time_for(TARGET_BYTES));
        if seen.queue > target {
            self.starting = false;
            self.free_looks = 0;
            self.peak = self.rate;
            // A short queue tells little of the line, but that the rate is not far above it. While one drains it may tell
            // nothing; then what was seen before holds.
            let carries = before.filter(|b| seen.queue > TARGET.times(3) && b.sent_at >= self.paused_at);
            let carries = carries.and_then(|b| carried(b, seen));
            let known = if self.drained > 0.0 { self.drained } else { sending.min(self.rate) };
            let line = carries.unwrap_or(known).min(self.most);
            let less = BACK_OFF - (seen.queue.0 - target.0) as f64 / DRAIN.0 as f64;
            self.set(now, sent, line * less.max(0.25));
            self.drained = line * BACK_OFF;
            return;
        }
        if self.drained > self.rate {
            if seen.queue.0 < target.0 / 2 {
                self.set(now, sent, self.drained);
            }
            return;
        }
        if sending < USED * self.rate {
            return self.set(now, sent, self.rate);
        }
        self.free_looks += 1;
        let faster = f64::from(1u32 << (self.free_looks / GROW_FASTER).min(8));
        if self.starting && self.most < MOST.0 as f64 {
            // The user may know the line.
            self.rate = self.rate.max(self.most / 2.0);
        }
        let growth = match self.starting {
            true => MOST_GROWTH,
            // It was that fast before, and the queue may have been somebody else's.
            false if self.rate < self.peak * BACK_OFF => GROWTH * faster.max(3.0),
            false => GROWTH * faster,
        };
        // Slower as a queue comes up.
        let near = (2.0 - 2.0 * seen.queue.0 as f64 / target.0 as f64).min(1.0);
        self.set(now, sent, self.rate * (1.0 + growth.min(MOST_GROWTH) * near));
    }

    /// Whether what looks like a queue is none.
    fn is_longer_way(&mut self, now: Time, queue: Micros) -> bool {
        let (since, least, most) = self.stands.unwrap_or((now, queue, queue));
        let (least, most) = (least.min(queue), most.max(queue));
        let steady = queue > TARGET && most.0 - least.0 <= STEADY.0;
        self.stands = steady.then_some((since, least, most));
        steady && now.since(since) >= LONGER
    }

    /// How much longer nothing was sent than the pacer waits for, since the last word of it or the last change.
    fn pause(&self, now: Time) -> Micros {
        let quiet = now.since(self.sent.0.max(self.changed.0));
        if quiet > PAUSE.max(self.rate().time_for(PACED_BYTES)) { quiet } else { Micros(0) }
    }

    fn set(&mut self, now: Time, sent: u64, rate: f64) {
        self.rate = rate.min(self.most).max((LEAST.0 as f64).min(self.most));
        self.drained = 0.0;
        self.changed = (now, sent);
        self.paused = Micros(0);
        self.samples = 0;
    }

    /// After a long pause: what is known of the line is old.
    fn begin_anew(&mut self, now: Time, sent: u64) {
        self.starting = true;
        self.free_looks = 0;
        self.heard = now;
        self.under_way.clear();
        self.set(now, sent, (self.rate / 2.0).max(FIRST.0 as f64));
    }
}

/// Bytes per second that left the line between two probes: those sent between them, in the time between their arrivals.
fn carried(first: Sample, last: Sample) -> Option<f64> {
    let took = (last.sent_at.since(first.sent_at).0 + last.queue.0).checked_sub(first.queue.0).filter(|us| *us > 0)?;
    Some(last.sent.saturating_sub(first.sent) as f64 / Micros(took).as_secs_f64())
}

#[cfg(test)]
#[path = "uplink_tests.rs"]
mod tests;
