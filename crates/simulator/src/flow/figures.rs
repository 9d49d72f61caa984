//! What is counted while a run goes on, and what it comes to.

use super::World;
use super::pass::{MESSAGES, Tally};
use super::viewers::{LAG_STEP, SOURCE, State, Viewer};
use crate::bounds;
use crate::live::{Histogram, LiveOutcome, LiveSample, SETTLED, Sent, depth_bound};
use crate::scenario::MBIT;
use headwater_model::live::SUBSTREAMS;
use headwater_model::time::{Micros, Time};
use headwater_peer_core::live::Lags;

/// Whose start or lag is judged has been there for so long.
const SETTLED_IN: Micros = Micros::from_secs(10);

/// See the module. Sizes in bytes.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// By source and origin: now, when arrivals began, and a minute later.
    pub(super) sent: Sent,
    at_zero: Sent,
    settled: Sent,
    /// From peers and source by then.
    peers_settled: u64,
    pub(super) origin_bytes: u64,
    pub(super) repaired_bytes: u64,
    /// Of segments from before newcomers came, from helpers and the origin.
    pub(super) early_bytes: u64,
    tally: Tally,
    latest: Tally,
    /// Trees, whenever they were looked at after all had arrived.
    looks: u64,
    depth_mean_sum: f64,
    depth_max: u32,
    unfed: u64,
    pub(super) fed_again: Lags,
    start_ups: Vec<Micros>,
    never_started: usize,
    stalls: usize,
    stalled_viewers: usize,
    stalled_s: f64,
    late: u64,
    needed: u64,
    worst: Option<Micros>,
}

/// What was counted when somebody watched last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watched {
    at: Time,
    sent: Sent,
    received: u64,
    assignments: u64,
}

impl Figures {
    /// A segment was looked at, `arrived` when all are there.
    pub(super) fn add(&mut self, tally: &Tally, arrived: bool) {
        self.sent.fetched += tally.origin_bytes;
        self.origin_bytes += tally.origin_bytes;
        self.repaired_bytes += tally.repaired_bytes;
        if arrived && tally.fed > 0 {
            self.looks += 1;
            self.depth_mean_sum += tally.depth_sum as f64 / tally.fed as f64;
            self.depth_max = self.depth_max.max(tally.depth_max);
            self.unfed += tally.unfed;
        }
        self.tally = std::mem::take(&mut self.tally).and(tally);
        self.latest = tally.clone();
    }

    /// All that was pushed or helped with.
    fn by_peers(&self) -> u64 {
        let fetched = self.origin_bytes - self.tally.origin_bytes;
        self.tally.peer_bytes + self.early_bytes.saturating_sub(fetched)
    }

    /// A viewer has seen enough, or the run is over.
    pub(super) fn gone(&mut self, now: Time, v: &Viewer, at_end: bool) {
        let watched = now.since(v.watches_since);
        self.start_ups.extend(v.start_up);
        self.never_started += usize::from(v.start_up.is_none() && watched >= SETTLED_IN);
        self.stalls += v.stalls as usize;
        self.stalled_viewers += usize::from(v.stalls > 0);
        self.stalled_s += v.stalled.as_secs_f64();
        self.late += u64::from(v.late_pieces);
        self.needed += u64::from(v.needed_pieces);
        if at_end && watched >= SETTLED_IN {
            let all: u64 = v.lags.iter().map(|n| u64::from(*n)).sum();
            let mut seen = 0;
            let step = v.lags.iter().position(|n| {
                seen += u64::from(*n);
                seen * 100 >= all * 95
            });
            let p95 = step.filter(|_| all > 0).map(|step| LAG_STEP.times(step as u64 + 1));
            self.worst = self.worst.max(p95);
        }
    }

    fn stalls_of<'a>(&self, here: impl Iterator<Item = &'a Viewer>) -> usize {
        self.stalls + here.map(|v| v.stalls as usize).sum::<usize>()
    }
}

impl World<'_> {
    pub(super) fn counts(&mut self, is_settled: bool) {
        let f = &mut self.figures;
        if is_settled {
            (f.settled, f.peers_settled) = (f.sent, f.by_peers());
        } else {
            f.at_zero = f.sent;
        }
    }

    fn watching(&self) -> impl Iterator<Item = &Viewer> {
        self.viewers.all.iter().skip(SOURCE as usize + 1).filter(|v| v.state == State::Watching)
    }

    /// How it stands, and what was sent since `before`.
    pub(super) fn sample(&self, now: Time, before: &mut Watched) -> LiveSample {
        let viewers = self.watching().count();
        let (sent, received) = (self.figures.sent, self.figures.by_peers());
        let watched = Watched { at: now, sent, received, assignments: self.control.center.totals().assignments };
        let before = std::mem::replace(before, watched);
        let (span, sent) = (now.since(before.at).as_secs_f64().max(1e-6), sent.since(&before.sent));
        let copies = |bytes: u64| bytes as f64 / span / self.stream.rate;
        // Pieces are missing for as long as they lag.
        let lags = self.figures.latest.lag_sum as f64 / self.stream.segment.0 as f64;
        LiveSample {
            at_s: now.0 as f64 / 1e6,
            of_s: self.end.0 as f64 / 1e6,
            viewers,
            pushed: copies(sent.pushed),
            fetched: copies(sent.fetched),
            from_viewers: copies((received - before.received).saturating_sub(sent.pushed)),
            missing: lags / viewers.max(1) as f64,
            assignments: (watched.assignments - before.assignments) as f64 / span,
            stalls: self.figures.stalls_of(self.watching()),
        }
    }

    pub(super) fn outcome(mut self) -> LiveOutcome {
        let here: Vec<Viewer> = self.watching().cloned().collect();
        here.iter().for_each(|v| self.figures.gone(self.end, v, true));
        let f = &mut self.figures;
        f.start_ups.sort_unstable();
        let start_up = |percent: usize| {
            let last = f.start_ups.len().checked_sub(1)?;
            let at = (f.start_ups.len() * percent).div_ceil(100).saturating_sub(1).min(last);
            f.start_ups.get(at).map(|m| m.as_secs_f64())
        };
        let ups: Vec<f64> =
            here.iter().filter_map(|v| self.hosts.get(v.host as usize)).map(|h| f64::from(h.up)).collect();
        let rate = self.live.mbit * MBIT;
        let s_min_copies = bounds::live_server_load(rate, &ups) / rate;
        let source = super::control::node_of(self.seed, self.viewers.who(SOURCE));
        let trees = self.control.trees();
        let slots = trees.into_iter().flat_map(|t| t.members()).filter(|m| m.info.node != source).map(|m| m.slots);
        let (depth_max_bound, depth_mean_bound) = depth_bound(slots.collect(), SUBSTREAMS, 1);
        let (sent, sent_later) = (f.sent.since(&f.at_zero), f.sent.since(&f.settled));
        let copies = sent.all() / self.stream.bytes_between(self.zero, self.end).max(1.0);
        let published_later = self.stream.bytes_between(self.zero + SETTLED, self.end);
        let is_longer = self.end > self.zero + SETTLED;
        let later = |bytes: f64| is_longer.then_some(bytes / published_later.max(1.0));
        let copies_later = later(sent_later.all());
        let (totals, peer_bytes) = (self.control.center.totals(), f.by_peers());
        let seconds_later = self.end.since(self.zero + SETTLED).as_secs_f64();
        // Who came, or went, would count for a part of the time.
        let uplink_share = (self.newcomers + self.killed == 0 && is_longer).then(|| {
            let pushed = (peer_bytes - f.peers_settled) as f64 - sent_later.pushed as f64;
            pushed / (ups.iter().sum::<f64>() * seconds_later).max(1.0)
        });
        let again = |percent| f.fed_again.percentile(percent).map(Micros::as_secs_f64);
        let lags: &Histogram = &f.tally.lags;
        let looks = f.looks.max(1) as f64;
        let mut outcome = LiveOutcome {
            scenario: self.scenario.name.clone(),
            seed: self.seed,
            baseline: None,
            seconds: self.live.seconds,
            viewers: here.len(),
            newcomers: self.newcomers,
            killed: self.killed,
            s_min_copies,
            copies,
            copies_later,
            origin_copies_later: later(sent_later.fetched as f64),
            source_ratio: copies / s_min_copies,
            source_ratio_later: copies_later.map(|c| c / s_min_copies),
            uplink_share,
            continuity: 1.0 - f.late as f64 / f.needed.max(1) as f64,
            stalls: f.stalls,
            stalled_viewers: f.stalled_viewers,
            stalled_s: f.stalled_s,
            media_breaks: 0,
            start_up_p50_s: start_up(50),
            start_up_p95_s: start_up(95),
            never_started: f.never_started,
            lag_p50_s: lags.at_s(0.5),
            lag_p95_s: lags.at_s(0.95),
            lag_p99_s: lags.at_s(0.99),
            lag_max_s: lags.at_s(1.0),
            lag_p95_worst_s: f.worst.map(Micros::as_secs_f64),
            lag_percentiles_s: (0..=100).map(|percent| lags.at_s(f64::from(percent) / 100.0)).collect(),
            start_up_percentiles_s: (0..=100).filter_map(start_up).collect(),
            fed_again_p50_s: again(50),
            fed_again_p99_s: again(99),
            fed_again: f.fed_again.count(),
            depth_mean: f.depth_mean_sum / looks,
            depth_max: f.depth_max,
            depth_mean_bound,
            depth_max_bound,
            unfed_mean: f.unfed as f64 / looks,
            peer_bytes,
            origin_bytes: f.origin_bytes,
            wasted_bytes: 0,
            // Flows do not say between which hosts bytes go.
            copies_into_isp_later: None,
            copies_out_of_isp_later: None,
            isps: Vec::new(),
            repaired_bytes: f.repaired_bytes,
            message_share: MESSAGES,
            assignments: totals.assignments,
            alarms: totals.alarms,
            verdicts: self.control.verdicts,
            events: self.queue.made(),
            violations: std::mem::take(&mut self.control.violations),
            bars: Vec::new(),
        };
        outcome.judge(self.live);
        outcome
    }
}
