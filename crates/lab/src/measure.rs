//! Counting while a scenario runs, and putting together what was counted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use headwater_simulator::scenario::Scenario;

use crate::calibrate::Calibration;
use crate::net::{Counters, Duplex, Net};
use crate::observe::Watched;
use crate::outcome::{
    HarmedChild, HostOutcome, HostSeries, HostileOutcome, IspFlow, IspSeries, OriginOutcome, Outcome, Series, SiteFlow,
};
use crate::peers::{Peer, Peers, Stay};
use crate::process::Usage;
use crate::site::{FIRST, ORIGIN, OriginLog};

/// Between two samples.
pub const SAMPLE_EVERY: Duration = Duration::from_millis(250);
const SAMPLES_PER_S: usize = 4;

/// Counts from time zero on.
pub struct Recorder {
    /// Time zero.
    pub zero: Instant,
    /// The same, Unix milliseconds.
    pub zero_unix_ms: u64,
    base: Counters,
    series: Series,
    next: Instant,
}

impl Recorder {
    /// Time zero is now.
    pub fn new(net: &Net, hosts: usize) -> Recorder {
        let base = net.counters();
        let isps = base.peering.keys().map(|(from, to)| IspSeries { from: *from, to: *to, wire_bytes: Vec::new() });
        let series = Series { hosts: vec![HostSeries::default(); hosts], isps: isps.collect(), ..Series::default() };
        let now = Instant::now();
        let zero_unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64);
        Recorder { zero: now, zero_unix_ms, base, series, next: now }
    }

    /// Seconds since time zero.
    pub fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.zero).as_secs_f64()
    }

    /// Takes a sample if it is time.
    pub fn sample(&mut self, now: Instant, net: &Net, peers: &Peers, control: Usage) {
        if now < self.next {
            return;
        }
        self.next = now + SAMPLE_EVERY;
        let counters = net.counters();
        let at = self.seconds(now);
        let (series, base) = (&mut self.series, &self.base);
        series.at_s.push(at);
        let (mut origin, mut waypoint, mut peer) = (0, 0, 0);
        for (i, (host, of)) in series.hosts.iter_mut().zip(peers.all()).enumerate() {
            let (up, down) = wire(&counters.hosts, &base.hosts, FIRST + i);
            host.have_bytes.push(of.have_bytes);
            host.wire_up_bytes.push(up);
            host.wire_down_bytes.push(down);
            let counted = of.counted();
            origin += counted.origin_bytes;
            waypoint += counted.waypoint_bytes;
            peer += counted.peer_bytes;
        }
        for isp in &mut series.isps {
            isp.wire_bytes.push(crossed(&counters, base, (isp.from, isp.to)));
        }
        series.from_origin_bytes.push(origin);
        series.from_waypoint_bytes.push(waypoint);
        series.from_peer_bytes.push(peer);
        series.origin_wire_up_bytes.push(wire(&counters.hosts, &base.hosts, ORIGIN).0);
        series.dropped_packets.push(dropped(&counters).saturating_sub(dropped(base)));
        series.control_rss_bytes.push(control.rss_bytes);
        series.control_cpu_s.push(control.cpu_s);
    }

    /// Wire rate of all hosts' downlinks between the last two samples a second apart, Mbit/s.
    pub fn received_mbit(&self) -> f64 {
        let at = &self.series.at_s;
        let Some(last) = at.len().checked_sub(1) else { return 0.0 };
        let before = last.saturating_sub(SAMPLES_PER_S);
        let down = |sample: usize| self.series.hosts.iter().map(|h| h.wire_down_bytes[sample]).sum::<u64>();
        let span = (at[last] - at[before]).max(1e-3);
        down(last).saturating_sub(down(before)) as f64 * 8e-6 / span
    }

    /// Wire bytes that left the origin so far.
    pub fn origin_wire_bytes(&self) -> u64 {
        self.series.origin_wire_up_bytes.last().copied().unwrap_or(0)
    }
}

/// Bytes up and down of a host since `base`.
fn wire(now: &[Duplex], base: &[Duplex], host: usize) -> (u64, u64) {
    let of = |all: &[Duplex]| all.get(host).map_or((0, 0), |d| (d.up.bytes, d.down.bytes));
    let (now, base) = (of(now), of(base));
    (now.0.saturating_sub(base.0), now.1.saturating_sub(base.1))
}

fn crossed(now: &Counters, base: &Counters, pair: (u16, u16)) -> u64 {
    let of = |all: &Counters| all.peering.get(&pair).map_or(0, |link| link.bytes);
    of(now).saturating_sub(of(base))
}

fn dropped(counters: &Counters) -> u64 {
    let hosts = counters.hosts.iter().chain(&counters.sites).flat_map(|d| [d.up, d.down]);
    let links = hosts.chain(counters.peering.values().copied());
    links.map(|link| link.dropped_queue + link.dropped_loss + link.dropped_cut).sum()
}

/// What a run was judged from, besides its recorder.
pub struct Seen<'a> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// Its seed.
    pub seed: u64,
    /// Hosts' processes.
    pub peers: &'a Peers,
    /// What the API said.
    pub watched: &'a Watched,
    /// What the origin's log says.
    pub origin: OriginLog,
    /// Calibrated rates.
    pub calibration: &'a Calibration,
    /// Whether the file of each host is the right one.
    pub hashes: &'a BTreeMap<usize, bool>,
    /// The control center's CPU and memory.
    pub control: Usage,
    /// When the run ended.
    pub ended: Instant,
}

impl Recorder {
    /// Puts together what was measured; bars, bound and simulator are still to come.
    pub fn outcome(self, net: &Net, seen: &Seen) -> Outcome {
        let counters = net.counters();
        let wire_per_payload = seen.calibration.wire_per_payload();
        let bytes = seen.scenario.content_bytes;
        let copies = |wire_bytes: u64| wire_bytes as f64 / wire_per_payload / bytes as f64;
        let hosts: Vec<HostOutcome> =
            seen.peers.all().iter().enumerate().map(|(i, peer)| self.host(net, seen, &counters, i, peer)).collect();
        let receivers = || seen.peers.all().iter().filter(|p| p.spec.receives() && !p.excused);
        let finished = receivers().map(|p| p.finished.map(|at| self.seconds(at))).collect::<Option<Vec<f64>>>();
        let isps = counters.peering.keys().map(|(from, to)| {
            let wire_bytes = crossed(&counters, &self.base, (*from, *to));
            IspFlow { from: *from, to: *to, wire_bytes, copies: copies(wire_bytes) }
        });
        let sites = seen.scenario.sites.iter().enumerate().map(|(i, site)| {
            let (wire_out_bytes, wire_in_bytes) = wire(&counters.sites, &self.base.sites, i);
            let (copies_in, copies_out) = (copies(wire_in_bytes), copies(wire_out_bytes));
            SiteFlow { name: site.name.clone(), wire_in_bytes, wire_out_bytes, copies_in, copies_out }
        });
        let mut outcome = Outcome {
            scenario: seen.scenario.name.clone(),
            about: seen.scenario.about.clone(),
            system: "headwater".into(),
            seed: seen.seed,
            content_bytes: bytes,
            zero_unix_ms: self.zero_unix_ms,
            duration_s: self.seconds(seen.ended),
            makespan_s: finished.and_then(|all| all.into_iter().max_by(f64::total_cmp)),
            calibrated: seen.calibration.told(),
            wire_per_payload,
            origin: OriginOutcome {
                body_bytes: seen.origin.body_bytes,
                requests: seen.origin.requests,
                wire_up_bytes: wire(&counters.hosts, &self.base.hosts, ORIGIN).0,
                copies: seen.origin.body_bytes as f64 / bytes as f64,
            },
            isps: isps.collect(),
            sites: sites.collect(),
            punched: seen.watched.punched(),
            events: seen.watched.marks(self.zero_unix_ms),
            hostile: hostile_of(seen, self.zero_unix_ms),
            forwarder_cpu_s: counters.forwarder_cpu_s - self.base.forwarder_cpu_s,
            hosts,
            ..Outcome::default()
        };
        let control = &mut outcome.control;
        (control.cpu_s, control.peak_rss_bytes) = (seen.control.cpu_s, seen.control.peak_rss_bytes);
        control.totals = seen.watched.totals.clone();
        control.unreachable_pairs = unreachable_pairs(seen);
        let honest =
            |id: &String| seen.peers.all().iter().any(|p| p.node.as_ref() == Some(id) && p.spec.hostile.is_none());
        let banned = seen.watched.banned.iter().filter(|id| honest(id)).count() as u64;
        control.honest_banned = seen.watched.tells_banned.then_some(banned);
        outcome.series = self.series;
        outcome
    }

    fn host(&self, net: &Net, seen: &Seen, counters: &Counters, i: usize, peer: &Peer) -> HostOutcome {
        let (spec, counted, usage) = (&peer.spec, peer.counted(), peer.usage());
        let (wire_up_bytes, wire_down_bytes) = wire(&counters.hosts, &self.base.hosts, FIRST + i);
        let found = peer.node.as_ref().and_then(|id| seen.watched.found.get(id));
        let site = spec.site.and_then(|site| seen.scenario.sites.get(site));
        let took = peer.started.zip(peer.finished).map(|(from, to)| (to - from).as_secs_f64());
        // What a site's hosts share is faster than the site's line.
        let down_mbit = site.map_or(spec.down_mbit, |site| site.down_mbit);
        HostOutcome {
            name: spec.name.clone(),
            node: peer.node.clone(),
            isp: spec.isp,
            address: Some(net.address(FIRST + i)),
            up_mbit: spec.up_mbit,
            down_mbit: spec.down_mbit,
            down_goodput_bytes_per_s: seen.calibration.goodput(down_mbit),
            reach: said(&spec.reach),
            role: said(&spec.role),
            site: site.map(|site| site.name.clone()),
            hostile: spec.hostile.clone(),
            accepts: found.map(|f| f.accepts.clone()),
            accepts_from: found.map(|f| f.from.clone()),
            accepts_expected: said(&seen.scenario.accepts(spec)),
            started_s: peer.started.map(|at| self.seconds(at)),
            finished_s: peer.finished.map(|at| self.seconds(at)),
            hash_right: seen.hashes.get(&i).copied(),
            excused: peer.excused,
            have_bytes: peer.have_bytes,
            peer_bytes: counted.peer_bytes,
            waypoint_bytes: counted.waypoint_bytes,
            origin_bytes: counted.origin_bytes,
            wasted_bytes: counted.wasted_bytes,
            uploaded_bytes: counted.uploaded_bytes,
            goodput_bytes_per_s: took.map(|s| seen.scenario.content_bytes as f64 / s.max(1e-3)),
            longest_wait_s: peer.longest_wait.as_secs_f64(),
            wire_up_bytes,
            wire_down_bytes,
            cpu_s: usage.cpu_s,
            peak_rss_bytes: usage.peak_rss_bytes,
            notes: peer.notes.clone(),
            error: peer.error.clone(),
        }
    }
}

fn hostile_of(seen: &Seen, zero_unix_ms: u64) -> Vec<HostileOutcome> {
    let honest: BTreeMap<&str, &Peer> = (seen.peers.all().iter())
        .filter(|p| p.spec.hostile.is_none())
        .filter_map(|p| Some((p.node.as_deref()?, p)))
        .collect();
    let liars = seen.peers.all().iter().filter_map(|p| Some((p, p.spec.hostile.clone()?)));
    liars.map(|(liar, kind)| liar_of(seen, zero_unix_ms, &honest, liar, kind)).collect()
}

fn liar_of(
    seen: &Seen,
    zero_unix_ms: u64,
    honest: &BTreeMap<&str, &Peer>,
    liar: &Peer,
    kind: String,
) -> HostileOutcome {
    let node = liar.node.as_deref().unwrap_or("");
    let short = node.get(..8).unwrap_or(node);
    let from_zero = |ms: u64| (ms as f64 - zero_unix_ms as f64) / 1e3;
    let children: Vec<HarmedChild> = (liar.harms.iter())
        .filter(|(_, harm)| !harm.stays.is_empty())
        .filter_map(|(id, harm)| {
            let found_out = seen.watched.found_out(short, id.get(..8).unwrap_or(id));
            let stay = |s: &Stay| (from_zero(s.from_ms), s.left_ms.map(from_zero));
            Some(HarmedChild {
                name: honest.get(id.as_str())?.spec.name.clone(),
                stays_s: harm.stays.iter().map(stay).collect(),
                found_out_s: found_out.map(from_zero),
                again_s: harm.again_ms.iter().copied().map(from_zero).collect(),
            })
        })
        .collect();
    let again = |c: &HarmedChild| c.again_s.iter().filter(|at| c.found_out_s.is_none_or(|f| **at > f)).count() as u64;
    let stays = children.iter().flat_map(|c| &c.stays_s);
    HostileOutcome {
        name: liar.spec.name.clone(),
        kind,
        harmed: children.len() as u64,
        left: children.iter().filter(|c| c.stays_s.iter().all(|(_, left)| left.is_some())).count() as u64,
        longest_until_left_s: stays.filter_map(|(from, left)| Some((*left)? - from)).max_by(f64::total_cmp),
        assigned_again: children.iter().map(again).sum(),
        in_history: !short.is_empty()
            && (seen.watched.banned.contains(node) || seen.watched.events.iter().any(|(_, text)| text.contains(short))),
        children,
    }
}

/// What the control center counted, and what its lists showed: the worse of the two.
fn unreachable_pairs(seen: &Seen) -> Option<u64> {
    let by_node: BTreeMap<&str, &Peer> =
        seen.peers.all().iter().filter_map(|p| Some((p.node.as_deref()?, p))).collect();
    let blocked = seen.watched.edges.iter().filter(|(child, parent)| {
        let ends = by_node.get(child.as_str()).zip(by_node.get(parent.as_str()));
        ends.is_some_and(|(a, b)| !seen.scenario.can_connect(&a.spec, &b.spec))
    });
    let seen_blocked = blocked.count() as u64;
    seen.watched.unreachable_pairs().map(|counted| counted.max(seen_blocked))
}

/// A plain enum as scenario files say it.
fn said(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}
