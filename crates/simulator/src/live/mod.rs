//! A live channel under virtual time: the real trees of the control center and the real channel at each node; modelled are
//! connections, uplinks that send one piece after the other, downlinks, the publisher with its origin, and players.
//!
//! Nothing that one node says is heard by another before the least latency has passed. So time goes on in rounds of that
//! length, in which nodes are independent of one another: each does all of its round at once, on any thread, and the same
//! seed gives the same run on any number of them.

mod control;
mod isps;
mod media;
mod messages;
mod node;
mod outcome;
mod player;
#[cfg(test)]
mod tests;
mod uplink;

pub(crate) use control::accepts;
pub(crate) use messages::{SOURCE, id_of, nx_of};
pub(crate) use outcome::{Histogram, Sent};
pub use outcome::{IspCopies, LiveOutcome};

use crate::baseline::Baseline;
use crate::bounds;
use crate::flow;
use crate::scenario::{Checks, HostSpec, Live, LiveModel, LiveSessions, MBIT, Scenario, ScenarioError, span};
use control::{Arriving, Control};
use headwater_model::id::{ContentId, Version};
use headwater_model::live::{LIVE_PIECE_BYTES, LiveTerms, LiveTrack, PublisherKey, SUBSTREAMS};
use headwater_model::rng::Rng;
use headwater_model::time::{Micros, Rate, Time};
use media::Media;
use messages::{Due, Event, Nx};
use node::{Node, Outbox, Shared};
use outcome::{Depths, Viewer};
use std::num::NonZeroU8;

/// Arrivals are over then, and their cost is not counted (benchmark a).
pub(crate) const SETTLED: Micros = Micros::from_secs(60);
/// How long nodes keep pieces: what `publish --live` says by default.
const WINDOW: Micros = Micros::from_secs(60);
/// No latency is less: rounds of less than this take too long.
pub(crate) const LATENCY_MIN: Micros = Micros::from_millis(1);
/// A broken session is over after this time.
pub(crate) const SESSION_ENDS: Micros = Micros::from_secs(7);
/// Depth of the trees is looked at this often.
pub(crate) const LOOKED_AT_EVERY: Micros = Micros::from_secs(5);
/// Worlds with fewer nodes run on one thread.
const PARALLEL_MIN: usize = 256;
/// Violations kept; a broken run would make millions.
const VIOLATIONS_MAX: usize = 50;
/// Control time at virtual zero, Unix milliseconds.
const ZERO_UNIX_MS: u64 = 1_700_000_000_000;
/// Logarithmic mean and deviation of sessions in seconds (benchmarks, "Sessions").
const SESSION_LOG: (f64, f64) = (4.384, 1.427);

/// What was counted when somebody watched last.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    at: Time,
    sent: Sent,
    /// By viewers, from viewers and the source.
    received: u64,
    assignments: u64,
}

struct World<'a> {
    scenario: &'a Scenario,
    live: &'a Live,
    seed: u64,
    baseline: Option<Baseline>,
    hosts: Vec<HostSpec>,
    shared: Shared,
    control: Control,
    nodes: Vec<Option<Box<Node>>>,
    /// The host of each node, whether it still runs or not.
    host_of: Vec<Option<usize>>,
    boxes: Vec<Outbox>,
    /// Hosts that are still to arrive, the next one last.
    to_arrive: Vec<(Time, usize)>,
    /// When the first host may arrive: all times of outcomes are from then on.
    zero: Time,
    depths: Depths,
    sent_at_zero: Sent,
    sent_settled: Sent,
    pushed_settled: u64,
    borders: isps::Borders,
    gone: Vec<Viewer>,
    newcomers: usize,
    killed: usize,
    violations: Vec<String>,
}

/// How far a run with a live channel is.
#[derive(Clone, Copy, Debug)]
pub struct LiveSample {
    /// Virtual seconds.
    pub at_s: f64,
    /// Virtual seconds when it is over.
    pub of_s: f64,
    /// Viewers that are there, those that leave among them.
    pub viewers: usize,
    /// What the source pushed since the sample before, in copies of the stream.
    pub pushed: f64,
    /// What was fetched from the origin meanwhile, in such copies.
    pub fetched: f64,
    /// What viewers sent one another meanwhile, in such copies.
    pub from_viewers: f64,
    /// Pieces that a viewer lacks and that should come, on average.
    pub missing: f64,
    /// Assignments a second.
    pub assignments: f64,
    /// Stalls so far.
    pub stalls: usize,
}

/// Runs a scenario with a live channel; the same seed gives the same outcome.
///
/// # Errors
/// [`ScenarioError`] when there is no live channel, a number is out of range, or only the lab can run it.
pub fn run_live(scenario: &Scenario, seed: u64) -> Result<LiveOutcome, ScenarioError> {
    run_live_watched(scenario, seed, |_| {})
}

/// As [`run_live`]; `watch` sees the world once per segment, as much goes on in its rhythm.
///
/// # Errors
/// As [`run_live`].
pub fn run_live_watched(
    scenario: &Scenario,
    seed: u64,
    watch: impl FnMut(&LiveSample),
) -> Result<LiveOutcome, ScenarioError> {
    run_live_by(None, scenario, seed, watch)
}

/// As [`run_live_watched`]; a baseline decides in Headwater's place.
///
/// # Errors
/// As [`run_live`], and where the baseline has no meaning for the scenario.
pub fn run_live_by(
    baseline: Option<Baseline>,
    scenario: &Scenario,
    seed: u64,
    watch: impl FnMut(&LiveSample),
) -> Result<LiveOutcome, ScenarioError> {
    scenario.layout()?;
    scenario.check_simulable()?;
    let Some(live) = &scenario.live else {
        return Err(ScenarioError::Contradiction("the scenario has no live channel".into()));
    };
    if live.fetch_at_s.is_some() {
        return Err(ScenarioError::LabOnly("a content beside a live channel".into()));
    }
    if let Some(baseline) = baseline {
        baseline.check(scenario)?;
    }
    if live.model == LiveModel::Flow {
        return flow::run(scenario, live, seed, watch);
    }
    if let Some(fault) = scenario.faults.first() {
        return Err(ScenarioError::LabOnly(format!("the fault {} beside a live channel", fault.kind.name())));
    }
    let mut world = World::new(scenario, live, seed, baseline)?;
    world.run(watch);
    Ok(world.outcome())
}

impl<'a> World<'a> {
    fn new(
        scenario: &'a Scenario,
        live: &'a Live,
        seed: u64,
        baseline: Option<Baseline>,
    ) -> Result<World<'a>, ScenarioError> {
        let network = scenario.network.unwrap_or_default();
        let one_way = |rtt_ms: f64| Micros((rtt_ms * 500.0) as u64).max(LATENCY_MIN);
        let segment = span(live.segment_s);
        // Whoever counts begins and ends in the middle of a segment.
        let begins = Time(2_000_000 + segment.0 / 2);
        let zero = begins + segment + Micros(segment.0 / 2);
        let hosts = scenario.hosts(seed);
        let mut to_arrive: Vec<(Time, usize)> =
            hosts.iter().enumerate().map(|(n, h)| (zero + h.arrives.unwrap_or_default().since(Time(0)), n)).collect();
        to_arrive.sort_by(|a, b| b.cmp(a));
        let track = track(live)?;
        let shared = Shared {
            seed,
            zero_unix_ms: ZERO_UNIX_MS,
            media: Media::new(live, begins, ZERO_UNIX_MS),
            track,
            hold_back: span(live.hold_back_s),
            inside: one_way(network.rtt_inside_ms),
            across: one_way(network.rtt_across_ms),
            origin_isp: network.origin_isp,
            isps: Vec::new(),
            checks: scenario.checks == Checks::EveryStep,
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if hosts.len() < PARALLEL_MIN { 1 } else { threads };
        let mut world = World {
            scenario,
            live,
            seed,
            baseline,
            hosts,
            control: Control::new(&shared.track, baseline, seed),
            shared,
            nodes: Vec::new(),
            host_of: Vec::new(),
            boxes: std::iter::repeat_with(Outbox::default).take(threads).collect(),
            to_arrive,
            zero,
            depths: Depths::default(),
            sent_at_zero: Sent::default(),
            sent_settled: Sent::default(),
            pushed_settled: 0,
            borders: isps::Borders::default(),
            gone: Vec::new(),
            newcomers: 0,
            killed: 0,
            violations: Vec::new(),
        };
        world.arrives(Time(0), None);
        Ok(world)
    }

    fn run(&mut self, mut watch: impl FnMut(&LiveSample)) {
        let round = self.shared.inside.min(self.shared.across);
        let end = self.zero + span(self.live.seconds);
        let kill_after = |s: f64| self.zero + SETTLED.min(span(self.live.seconds / 2.0)).max(span(s));
        let mut kill_at = self.live.kill_parent_every_s.map(kill_after);
        let (mut looks_at, mut now) = (self.zero, Time(0));
        let mut watched = Watched::default();
        let mut published = Vec::new();
        while now < end && self.violations.len() < VIOLATIONS_MAX {
            let until = (now + round).min(end);
            self.shared.media.publish(until, &mut published);
            if let Some(source) = self.nodes.get_mut(SOURCE as usize).and_then(Option::as_mut) {
                source.inbox.extend(published.drain(..));
            }
            while let Some((at, host)) = self.to_arrive.pop_if(|(at, _)| *at < until) {
                self.arrives(at, Some(host));
            }
            self.run_nodes(until);
            self.deliver(until);
            now = until;
            if let (Some(at), Some(every)) = (kill_at, self.live.kill_parent_every_s)
                && now >= at
                && now + span(every) < end
            {
                self.kill_a_parent(now);
                kill_at = Some(at + span(every));
            }
            self.looks(now, &mut looks_at);
            if now >= watched.at + span(self.live.segment_s) {
                watch(&self.sample(now, end, &mut watched));
            }
        }
        self.check(now);
    }

    /// How it stands, and what was sent since `before`.
    fn sample(&self, now: Time, end: Time, before: &mut Watched) -> LiveSample {
        let alive = || self.nodes.iter().flatten().filter(|n| n.host.is_some());
        let (viewers, mut missing, mut received, mut stalls) = (alive().count(), 0, 0, 0);
        for node in alive() {
            let state = node.channel.state();
            missing += state.missing;
            received += state.peer_bytes;
            stalls += node.watch.as_ref().map_or(0, |w| w.player.stalls().len());
        }
        received += self.gone.iter().map(Viewer::peer_bytes).sum::<u64>();
        stalls += self.gone.iter().map(Viewer::stalls).sum::<usize>();
        let watched = Watched { at: now, sent: self.sent(), received, assignments: self.control.totals().assignments };
        let before = std::mem::replace(before, watched);
        let (span, sent) = (now.since(before.at).as_secs_f64().max(1e-6), watched.sent.since(&before.sent));
        let copies = |bytes: u64| bytes as f64 / span / (self.live.mbit * MBIT);
        // Of killed viewers nobody counts what they had.
        let from_peers = received.saturating_sub(before.received);
        LiveSample {
            at_s: now.0 as f64 / 1e6,
            of_s: end.0 as f64 / 1e6,
            viewers,
            pushed: copies(sent.pushed),
            fetched: copies(sent.fetched),
            from_viewers: copies(from_peers.saturating_sub(sent.pushed)),
            missing: missing as f64 / viewers.max(1) as f64,
            assignments: (watched.assignments - before.assignments) as f64 / span,
            stalls,
        }
    }

    /// All nodes do what is due before `until`.
    fn run_nodes(&mut self, until: Time) {
        let World { nodes, boxes, shared, .. } = self;
        let shared = &*shared;
        let run = |nodes: &mut [Option<Box<Node>>], out: &mut Outbox| {
            nodes.iter_mut().flatten().for_each(|node| node.run(until, shared, out));
        };
        let part = nodes.len().div_ceil(boxes.len().max(1)).max(1);
        match boxes.as_mut_slice() {
            [only] => run(nodes, only),
            boxes => std::thread::scope(|scope| {
                for (nodes, out) in nodes.chunks_mut(part).zip(boxes) {
                    scope.spawn(move || run(nodes, out));
                }
            }),
        }
    }

    /// What nodes and control center said goes to whom it is for.
    fn deliver(&mut self, until: Time) {
        let mut ended: Vec<Nx> = Vec::new();
        for b in &mut self.boxes {
            for (to, due) in b.mail.drain(..) {
                post(&mut self.nodes, to, due);
            }
            self.borders.all.take(&mut b.crossed);
            self.control.mail.extend(b.to_center.drain(..));
            ended.append(&mut b.ended);
            self.violations.append(&mut b.violations);
            for nx in b.gone.drain(..) {
                if let Some(node) = self.nodes.get_mut(nx as usize).and_then(Option::take) {
                    self.gone.push(Viewer::of(until, &node));
                }
            }
        }
        for nx in ended {
            if let Some(host) = self.host_of.get(nx as usize).copied().flatten() {
                self.newcomers += 1;
                self.arrives(until, Some(host));
            }
        }
        let (hosts, host_of) = (&self.hosts, &self.host_of);
        let (scenario, source_up) = (self.scenario, self.scenario.origin_up_mbit * MBIT);
        self.control.run(until, &self.shared, |nx| {
            let spec = host_of.get(nx as usize).copied().flatten().and_then(|h| hosts.get(h));
            Arriving { spec, accepts: accepts(scenario, spec), source_up }
        });
        for (to, due) in self.control.said.drain(..) {
            post(&mut self.nodes, to, due);
        }
        self.violations.append(&mut self.control.violations);
    }

    /// A node begins: that of a host, or the publisher's.
    fn arrives(&mut self, at: Time, host: Option<usize>) {
        let nx = self.nodes.len() as Nx;
        let spec = host.and_then(|h| self.hosts.get(h));
        self.shared.isps.push(spec.map_or(self.shared.origin_isp, |s| s.isp));
        self.host_of.push(host);
        let stays = match self.live.sessions {
            LiveSessions::Lognormal if host.is_some() => Some(session(self.seed, nx)),
            _ => None,
        };
        let accepts = accepts(self.scenario, spec);
        let source_up = self.scenario.origin_up_mbit * MBIT;
        let mut node = Box::new(Node::new(at, nx, (host, spec), accepts, source_up, stays, &self.shared));
        if let Some(out) = self.boxes.first_mut() {
            node.hello(at, &self.shared, out);
        }
        self.nodes.push(Some(node));
    }

    /// The viewer with most children dies, as in the lab.
    fn kill_a_parent(&mut self, now: Time) {
        let viewers = self.nodes.iter().flatten().filter(|n| n.host.is_some());
        let Some(id) = viewers.max_by_key(|n| n.channel.children().count()).map(|n| n.id) else { return };
        let nx = messages::nx_of(&id);
        let Some(mut node) = self.nodes.get_mut(nx as usize).and_then(Option::take) else { return };
        if let Some(out) = self.boxes.first_mut() {
            node.die(now, out);
        }
        self.control.session_ends(now + SESSION_ENDS, nx, self.seed);
        self.killed += 1;
    }

    /// What is looked at from time to time.
    fn looks(&mut self, now: Time, looks_at: &mut Time) {
        if now <= self.zero {
            self.sent_at_zero = self.sent();
            self.borders.at_zero.clone_from(&self.borders.all);
        }
        if now <= self.zero + SETTLED {
            self.sent_settled = self.sent();
            self.pushed_settled = self.pushed();
            self.borders.settled.clone_from(&self.borders.all);
        }
        if now < *looks_at {
            return;
        }
        *looks_at = now + LOOKED_AT_EVERY;
        if now >= self.zero + span(self.scenario.arrive_within_s) {
            self.depths.add(&self.control.stats());
        }
        if self.scenario.checks == Checks::EverySecond && self.hosts.len() < PARALLEL_MIN {
            self.check(now);
        }
    }

    /// What viewers that are here pushed.
    fn pushed(&self) -> u64 {
        self.nodes.iter().flatten().filter(|n| n.host.is_some()).map(|n| n.uplink.pushed_bytes).sum()
    }

    fn sent(&self) -> Sent {
        let uplink = self.nodes.get(SOURCE as usize).and_then(Option::as_ref).map(|n| &n.uplink);
        uplink.map_or(Sent::default(), |u| Sent { pushed: u.pushed_bytes, fetched: u.fetched_bytes })
    }

    /// Notes what is violated at this moment.
    fn check(&mut self, now: Time) {
        self.control.check(now);
        self.violations.append(&mut self.control.violations);
        for node in self.nodes.iter().flatten() {
            let of = |p| format!("node {:?} at {now:?}: {p}", node.host);
            self.violations.extend(node.channel.check().into_iter().map(of));
        }
    }
}

fn post(nodes: &mut [Option<Box<Node>>], to: Nx, due: Due<Event>) {
    // Whoever is gone hears nothing.
    if let Some(node) = nodes.get_mut(to as usize).and_then(Option::as_mut) {
        node.inbox.push(due);
    }
}

pub(crate) fn track(live: &Live) -> Result<LiveTrack, ScenarioError> {
    // Signatures are not made here: any valid key will do.
    let mut base = [0x66; 32];
    base[0] = 0x58;
    let key = PublisherKey::from_bytes(&base).map_err(|_| ScenarioError::OutOfRange("the key of the live channel"))?;
    let substreams = NonZeroU8::new(SUBSTREAMS).unwrap_or(NonZeroU8::MIN);
    let rate = Rate((live.mbit * MBIT) as u64);
    Ok(LiveTrack {
        version: Version { content: ContentId([7; 32]), epoch: 1 },
        name: "live".into(),
        terms: LiveTerms { substreams, rate, window: WINDOW },
        piece_bytes: LIVE_PIECE_BYTES,
        origins: Vec::new(),
        key,
    })
}

/// How long a viewer stays: lognormal, by Box and Muller.
pub(crate) fn session(seed: u64, nx: Nx) -> Micros {
    let mut rng = Rng::new(seed ^ (u64::from(nx) << 20), "session");
    let (a, b) = (1.0 - rng.unit(), rng.unit());
    let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
    let (mean, deviation) = SESSION_LOG;
    span((mean + deviation * normal).exp().clamp(1.0, 1e6))
}

/// The least depth of the deepest of the trees and their mean, when members with so many slots share them evenly: each
/// tree has every K-th of those with most slots, which stand nearest to its source, and `first` children of that.
pub(crate) fn depth_bound(mut slots: Vec<u32>, substreams: u8, first: u64) -> (u32, f64) {
    slots.sort_by(|a, b| b.cmp(a));
    let members = slots.len() as u64;
    let mut widths = slots.iter().step_by(usize::from(substreams.max(1))).map(|s| u64::from(*s));
    let (mut placed, mut width, mut depth, mut sum) = (0, first.max(1), 0, 0);
    while placed < members && width > 0 {
        width = width.min(members - placed);
        depth += 1;
        placed += width;
        sum += width * u64::from(depth);
        width = widths.by_ref().take(width as usize).sum();
    }
    (depth, sum as f64 / placed.max(1) as f64)
}

impl World<'_> {
    fn outcome(mut self) -> LiveOutcome {
        let end = self.zero + span(self.live.seconds);
        let ups: Vec<f64> =
            self.nodes.iter().flatten().filter_map(|n| self.hosts.get(n.host?)).map(HostSpec::up).collect();
        let rate = self.live.mbit * MBIT;
        let media = &self.shared.media;
        let slots = self.control.slots(self.seed);
        let alive: Vec<Viewer> =
            self.nodes.iter().flatten().filter(|n| n.host.is_some()).map(|n| Viewer::of(end, n)).collect();
        let published = media.bytes_after(self.zero) as f64;
        let published_later = media.bytes_after(self.zero + SETTLED) as f64;
        let isps = match self.scenario.network {
            Some(_) => self.borders.copies(&self.hosts, rate, published, published_later),
            None => Vec::new(),
        };
        let run = outcome::Run {
            baseline: self.baseline,
            seconds: self.live.seconds,
            s_min_copies: bounds::live_server_load(rate, &ups) / rate,
            published,
            published_later,
            isps,
            sent: self.sent().since(&self.sent_at_zero),
            // Who came, or went, would count for a part of the time.
            uplink_share: (self.newcomers + self.killed == 0 && self.live.seconds > SETTLED.as_secs_f64()).then(|| {
                let seconds = self.live.seconds - SETTLED.as_secs_f64();
                (self.pushed() - self.pushed_settled) as f64 / (ups.iter().sum::<f64>() * seconds).max(1.0)
            }),
            sent_later: self.sent().since(&self.sent_settled),
            depth_bound: depth_bound(slots, SUBSTREAMS, 1),
            depths: self.depths,
            alive,
            gone: std::mem::take(&mut self.gone),
            newcomers: self.newcomers,
            killed: self.killed,
            lags: self.boxes.iter().fold(outcome::Histogram::default(), |all, b| all.and(&b.lags)),
            totals: self.control.totals(),
            verdicts: self.control.verdicts,
            events: self.boxes.iter().map(|b| b.events).sum(),
            violations: self.violations,
        };
        LiveOutcome::of(self.scenario, self.live, self.seed, run)
    }
}
