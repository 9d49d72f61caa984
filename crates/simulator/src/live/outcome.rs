//! What a live run came to, each number beside its bound.

use super::node::Node;
use crate::baseline::Baseline;
use crate::outcome::{Bar, by};
use crate::scenario::{Live, Scenario};
use headwater_center_core::Totals;
use headwater_center_core::trees::TreesStats;
use headwater_model::time::{Micros, Time};
use headwater_peer_core::live::Lags;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whose lag is judged has been there for so long.
const SETTLED_IN: Micros = Micros::from_secs(10);

/// Outcome of a run with a live channel. Times in virtual seconds, sizes in bytes; a copy is all bytes of the stream once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveOutcome {
    /// The scenario's name.
    pub scenario: String,
    /// The baseline that decided, if one did.
    pub baseline: Option<String>,
    /// The seed, to replay it.
    pub seed: u64,
    /// How long the run was.
    pub seconds: f64,
    /// Viewers at the end.
    pub viewers: usize,
    /// Viewers that came in place of others.
    pub newcomers: usize,
    /// Viewers that were killed.
    pub killed: usize,
    /// S_min = max{r, N·r − Σ min(u_i, (N−1)·r)} in copies (Kumar, Liu, Ross 2007).
    pub s_min_copies: f64,
    /// S of the whole run: what publisher and origin sent.
    pub copies: f64,
    /// S after the first 60 s; nothing in runs that are not longer.
    pub copies_later: Option<f64>,
    /// Of that, what was fetched from the origin.
    pub origin_copies_later: Option<f64>,
    /// S over S_min, of the whole run.
    pub source_ratio: f64,
    /// S over S_min, after the first 60 s.
    pub source_ratio_later: Option<f64>,
    /// Share of the viewers' uplinks that they used after the first 60 s, where all stayed.
    pub uplink_share: Option<f64>,
    /// Share of the pieces that players needed that were there in time.
    pub continuity: f64,
    /// Stalls of all viewers that were not killed.
    pub stalls: usize,
    /// Viewers that had any.
    pub stalled_viewers: usize,
    /// How long they all lasted.
    pub stalled_s: f64,
    /// Segments that players had to leave out.
    pub media_breaks: u64,
    /// From a player's start to its first picture: the median.
    pub start_up_p50_s: Option<f64>,
    /// … and what 95 % do not pass.
    pub start_up_p95_s: Option<f64>,
    /// Viewers without a picture after 10 s.
    pub never_started: usize,
    /// From the publishing of a piece to its being at a viewer: the median of all pieces and viewers.
    pub lag_p50_s: f64,
    /// What 95 % do not pass.
    pub lag_p95_s: f64,
    /// What 99 % do not pass.
    pub lag_p99_s: f64,
    /// The longest.
    pub lag_max_s: f64,
    /// What 95 % of its pieces do not pass, at the viewer where that is longest.
    pub lag_p95_worst_s: Option<f64>,
    /// What so many percent of all pieces do not pass, from 0 to 100.
    pub lag_percentiles_s: Vec<f64>,
    /// What so many percent of the viewers that began do not pass, from 0 to 100.
    pub start_up_percentiles_s: Vec<f64>,
    /// From the last word of a parent that was lost until another one pushes its substream: the median.
    pub fed_again_p50_s: Option<f64>,
    /// … and what 99 % do not pass.
    pub fed_again_p99_s: Option<f64>,
    /// How often that was.
    pub fed_again: u64,
    /// Edges from the source, the mean of all places in all trees.
    pub depth_mean: f64,
    /// At the place that is farthest from it.
    pub depth_max: u32,
    /// The least mean for the slots that the members have.
    pub depth_mean_bound: f64,
    /// The least depth for these.
    pub depth_max_bound: u32,
    /// Places without a parent, the mean.
    pub unfed_mean: f64,
    /// From peers and the source.
    pub peer_bytes: u64,
    /// From the origin.
    pub origin_bytes: u64,
    /// Most copies that entered an ISP other than the origin's, after the first 60 s; nothing where there is none, or the run
    /// is not longer.
    pub copies_into_isp_later: Option<f64>,
    /// Most copies that left such an ISP, after the first 60 s.
    pub copies_out_of_isp_later: Option<f64>,
    /// What entered and left each ISP that has hosts; nothing without a network.
    pub isps: Vec<IspCopies>,
    /// Twice or wrong.
    pub wasted_bytes: u64,
    /// Asked for, as they did not come by themselves; those from the origin among them.
    pub repaired_bytes: u64,
    /// Messages between nodes over pieces, in bytes; transport aside.
    pub message_share: f64,
    /// Assignments.
    pub assignments: u64,
    /// Alarms.
    pub alarms: u64,
    /// Changes of what the control center thinks of a node.
    pub verdicts: u64,
    /// Events of the simulation.
    pub events: u64,
    /// Violated invariants; empty in a sound run.
    pub violations: Vec<String>,
    /// The scenario's bars.
    pub bars: Vec<Bar>,
}

/// Copies of the stream that crossed the border of an ISP, both ways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IspCopies {
    /// Its number.
    pub isp: u16,
    /// Hosts in it.
    pub hosts: usize,
    /// In the whole run.
    pub into: f64,
    /// In the whole run.
    pub out: f64,
    /// After the first 60 s; nothing in runs that are not longer.
    pub into_later: Option<f64>,
    /// After the first 60 s.
    pub out_later: Option<f64>,
    /// Least that must enter: max{1, n − U/r} for n hosts with uplinks of U in all and a rate r.
    pub into_bound: f64,
}

/// What the publisher's line carried, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) pushed: u64,
    pub(crate) fetched: u64,
}

impl Sent {
    pub(crate) fn since(&self, before: &Sent) -> Sent {
        Sent { pushed: self.pushed - before.pushed, fetched: self.fetched - before.fetched }
    }
    pub(crate) fn all(&self) -> f64 {
        (self.pushed + self.fetched) as f64
    }
}

/// Depth of the trees, whenever it was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Depths {
    looks: u64,
    mean_sum: f64,
    max: u32,
    unfed: usize,
}

impl Depths {
    pub(super) fn add(&mut self, stats: &TreesStats) {
        self.looks += 1;
        self.mean_sum += stats.mean_depth;
        self.max = self.max.max(stats.max_depth);
        self.unfed += stats.unfed;
    }
}

/// Delays in steps of a millisecond.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
}

impl Histogram {
    /// What is later than this counts as this.
    const MOST_MS: u64 = 60_000;

    pub(crate) fn add(&mut self, delay: Micros) {
        let ms = (delay.0 / 1000).min(Self::MOST_MS) as usize;
        if self.counts.len() <= ms {
            self.counts.resize(ms + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(ms) {
            *count += 1;
        }
    }
    pub(crate) fn and(mut self, other: &Histogram) -> Histogram {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        self
    }
    pub(crate) fn at_s(&self, share: f64) -> f64 {
        let wanted = (self.counts.iter().sum::<u64>() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let ms = self.counts.iter().position(|n| {
            seen += n;
            seen >= wanted
        });
        ms.map_or(0.0, |ms| (ms + 1) as f64 / 1000.0)
    }
}

/// How a viewer fared.
#[derive(Clone, Debug)]
pub(super) struct Viewer {
    watched: Micros,
    start_up_s: Option<f64>,
    stalls: usize,
    stalled_s: f64,
    in_time: super::player::InTime,
    lag_p95_s: Option<f64>,
    fed_again: Lags,
    peer_bytes: u64,
    origin_bytes: u64,
    wasted_bytes: u64,
    repaired_bytes: u64,
    message_bytes: u64,
}

impl Viewer {
    pub(super) fn peer_bytes(&self) -> u64 {
        self.peer_bytes
    }
    pub(super) fn stalls(&self) -> usize {
        self.stalls
    }
    pub(super) fn of(now: Time, node: &Node) -> Viewer {
        let state = node.channel.state();
        let player = node.watch.as_ref().map(|w| {
            let mut player = w.player.clone();
            player.pass(if node.is_leaving() { Time(0) } else { now });
            player
        });
        let stalls = player.as_ref().map(|p| p.stalls().to_vec()).unwrap_or_default();
        Viewer {
            watched: node.watches_since.map_or(Micros(0), |since| now.since(since)),
            start_up_s: player.as_ref().and_then(|p| p.startup()).map(Micros::as_secs_f64),
            stalls: stalls.len(),
            stalled_s: stalls.iter().map(|s| s.lasted.as_secs_f64()).sum(),
            in_time: node.watch.as_ref().map(|w| w.in_time).unwrap_or_default(),
            lag_p95_s: node.channel.lags().percentile(95).map(Micros::as_secs_f64),
            fed_again: node.channel.fed_again().clone(),
            peer_bytes: state.peer_bytes,
            origin_bytes: state.origin_bytes,
            wasted_bytes: state.wasted_bytes,
            repaired_bytes: node.repaired_bytes,
            message_bytes: node.uplink.message_bytes,
        }
    }
}

/// What was measured.
pub(super) struct Run {
    pub(super) baseline: Option<Baseline>,
    pub(super) seconds: f64,
    pub(super) s_min_copies: f64,
    pub(super) published: f64,
    pub(super) published_later: f64,
    pub(super) sent: Sent,
    pub(super) sent_later: Sent,
    pub(super) uplink_share: Option<f64>,
    pub(super) depth_bound: (u32, f64),
    pub(super) depths: Depths,
    pub(super) alive: Vec<Viewer>,
    pub(super) gone: Vec<Viewer>,
    pub(super) newcomers: usize,
    pub(super) killed: usize,
    pub(super) lags: Histogram,
    pub(super) isps: Vec<IspCopies>,
    pub(super) totals: Totals,
    pub(super) verdicts: u64,
    pub(super) events: u64,
    pub(super) violations: Vec<String>,
}

impl LiveOutcome {
    pub(super) fn of(scenario: &Scenario, live: &Live, seed: u64, run: Run) -> LiveOutcome {
        let all = || run.alive.iter().chain(&run.gone);
        let sum = |of: fn(&Viewer) -> u64| all().map(of).sum::<u64>();
        let needed: u64 = sum(|v| v.in_time.needed);
        let mut start_ups: Vec<f64> = all().filter_map(|v| v.start_up_s).collect();
        start_ups.sort_by(f64::total_cmp);
        let start_up = |percent: usize| {
            let last = start_ups.len().checked_sub(1)?;
            start_ups.get((start_ups.len() * percent).div_ceil(100).saturating_sub(1).min(last)).copied()
        };
        let worst = run.alive.iter().filter(|v| v.watched >= SETTLED_IN).filter_map(|v| v.lag_p95_s);
        let mut fed_again = Lags::default();
        run.alive.iter().for_each(|v| fed_again.add_all(&v.fed_again));
        let fed_again_s = |percent| fed_again.percentile(percent).map(Micros::as_secs_f64);
        let copies = run.sent.all() / run.published.max(1.0);
        let later = |bytes: f64| (run.published_later > 0.0).then_some(bytes / run.published_later);
        let copies_later = later(run.sent_later.all());
        let looks = run.depths.looks.max(1) as f64;
        let (peer_bytes, origin_bytes) = (sum(|v| v.peer_bytes), sum(|v| v.origin_bytes));
        let origin_isp = scenario.network.map(|n| n.origin_isp);
        let most = |of: fn(&IspCopies) -> Option<f64>| {
            run.isps.iter().filter(|i| Some(i.isp) != origin_isp).filter_map(of).max_by(f64::total_cmp)
        };
        let mut outcome = LiveOutcome {
            scenario: scenario.name.clone(),
            baseline: run.baseline.map(|b| b.to_string()),
            seed,
            seconds: run.seconds,
            viewers: run.alive.len(),
            newcomers: run.newcomers,
            killed: run.killed,
            s_min_copies: run.s_min_copies,
            copies,
            copies_later,
            origin_copies_later: later(run.sent_later.fetched as f64),
            source_ratio: copies / run.s_min_copies,
            source_ratio_later: copies_later.map(|c| c / run.s_min_copies),
            uplink_share: run.uplink_share,
            continuity: 1.0 - sum(|v| v.in_time.late) as f64 / needed.max(1) as f64,
            stalls: all().map(|v| v.stalls).sum(),
            stalled_viewers: all().filter(|v| v.stalls > 0).count(),
            stalled_s: all().map(|v| v.stalled_s).sum(),
            media_breaks: sum(|v| v.in_time.lost_segments),
            start_up_p50_s: start_up(50),
            start_up_p95_s: start_up(95),
            never_started: all().filter(|v| v.start_up_s.is_none() && v.watched >= SETTLED_IN).count(),
            lag_p50_s: run.lags.at_s(0.5),
            lag_p95_s: run.lags.at_s(0.95),
            lag_p99_s: run.lags.at_s(0.99),
            lag_max_s: run.lags.at_s(1.0),
            lag_p95_worst_s: worst.max_by(f64::total_cmp),
            lag_percentiles_s: (0..=100).map(|percent| run.lags.at_s(f64::from(percent) / 100.0)).collect(),
            start_up_percentiles_s: (0..=100).filter_map(start_up).collect(),
            fed_again_p50_s: fed_again_s(50),
            fed_again_p99_s: fed_again_s(99),
            fed_again: fed_again.count(),
            depth_mean: run.depths.mean_sum / looks,
            depth_max: run.depths.max,
            depth_mean_bound: run.depth_bound.1,
            depth_max_bound: run.depth_bound.0,
            unfed_mean: run.depths.unfed as f64 / looks,
            peer_bytes,
            origin_bytes,
            copies_into_isp_later: most(|i| i.into_later),
            copies_out_of_isp_later: most(|i| i.out_later),
            isps: run.isps,
            wasted_bytes: sum(|v| v.wasted_bytes),
            repaired_bytes: sum(|v| v.repaired_bytes),
            message_share: sum(|v| v.message_bytes) as f64 / ((peer_bytes + origin_bytes) as f64).max(1.0),
            assignments: run.totals.assignments,
            alarms: run.totals.alarms,
            verdicts: run.verdicts,
            events: run.events,
            violations: run.violations,
            bars: Vec::new(),
        };
        outcome.judge(live);
        outcome
    }

    /// Whether all bars were reached and no invariant violated.
    pub fn passed(&self) -> bool {
        self.missed().next().is_none() && self.violations.is_empty()
    }

    /// Bars that were not reached.
    pub fn missed(&self) -> impl Iterator<Item = &Bar> {
        self.bars.iter().filter(|bar| !bar.pass)
    }

    pub(crate) fn judge(&mut self, live: &Live) {
        let bars = &live.bars;
        let all = [
            ("source_ratio_later", bars.source_ratio_later, self.source_ratio_later),
            ("source_ratio", bars.source_ratio, Some(self.source_ratio)),
            ("stalls", bars.stalls, Some(self.stalls as f64)),
            ("start_up_p95_s", bars.start_up_p95_s, self.start_up_p95_s),
            ("lag_p95_s", bars.lag_p95_s, self.lag_p95_worst_s),
            ("fed_again_p99_s", bars.fed_again_p99_s, self.fed_again_p99_s),
            ("media_breaks", bars.media_breaks, Some(self.media_breaks as f64)),
            ("copies_into_isp", bars.copies_into_isp, self.copies_into_isp_later),
            ("copies_out_of_isp", bars.copies_out_of_isp, self.copies_out_of_isp_later),
        ];
        self.bars = all.into_iter().filter_map(|(name, bar, value)| Some(Bar::at_most(name, value, bar?))).collect();
        self.bars.extend(bars.uplink_share.map(|bar| Bar::at_least("uplink_share", self.uplink_share, bar)));
    }
}

impl fmt::Display for LiveOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let or_none = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.3}"));
        writeln!(
            f,
            "{}, {}seed {}: {} viewers after {} s, {} came in place of others, {} killed",
            self.scenario,
            by(&self.baseline),
            self.seed,
            self.viewers,
            self.seconds,
            self.newcomers,
            self.killed
        )?;
        writeln!(f, "  S                {:>12.3} copies", self.copies)?;
        let later = (or_none(self.copies_later), or_none(self.origin_copies_later));
        writeln!(f, "  S after 60 s     {:>12} copies, {} of them from the origin", later.0, later.1)?;
        writeln!(f, "  S_min            {:>12.3} copies", self.s_min_copies)?;
        let ratios = format!("{} / {:.3}", or_none(self.source_ratio_later), self.source_ratio);
        writeln!(f, "  S/S_min          {ratios:>20}  (after 60 s / of all)")?;
        let share = self.uplink_share.map_or("-".to_owned(), |s| format!("{:.1}", s * 100.0));
        writeln!(f, "  uplinks used     {share:>12} % after 60 s")?;
        writeln!(f, "  continuity       {:>14.5} %", self.continuity * 100.0)?;
        writeln!(
            f,
            "  stalls           {:>8}  at {} viewers, {:.1} s in all; {} segments left out",
            self.stalls, self.stalled_viewers, self.stalled_s, self.media_breaks
        )?;
        let start_up = format!("{} / {}", or_none(self.start_up_p50_s), or_none(self.start_up_p95_s));
        writeln!(f, "  start-up         {start_up:>20} s  (p50 / p95); {} never began", self.never_started)?;
        writeln!(
            f,
            "  lag              {:.3} / {:.3} / {:.3} / {:.3} s  (p50 / p95 / p99 / max); p95 at the worst viewer {} s",
            self.lag_p50_s,
            self.lag_p95_s,
            self.lag_p99_s,
            self.lag_max_s,
            or_none(self.lag_p95_worst_s)
        )?;
        let again = format!("{} / {}", or_none(self.fed_again_p50_s), or_none(self.fed_again_p99_s));
        writeln!(f, "  fed again        {again:>20} s  (p50 / p99); {} places that lost a parent", self.fed_again)?;
        writeln!(
            f,
            "  depth            {:.2} mean (bound {:.2}), {} max (bound {}); {:.2} places unfed",
            self.depth_mean, self.depth_mean_bound, self.depth_max, self.depth_max_bound, self.unfed_mean
        )?;
        for i in &self.isps {
            let later = format!("{} in, {} out", or_none(i.into_later), or_none(i.out_later));
            writeln!(
                f,
                "  ISP {:<3} {:>6} hosts  {later} copies after 60 s (bound {:.3} in); {:.3} in, {:.3} out of all",
                i.isp, i.hosts, i.into_bound, i.into, i.out
            )?;
        }
        writeln!(f, "  from peers       {:>10.1} MiB", mib(self.peer_bytes))?;
        writeln!(f, "  from the origin  {:>10.1} MiB", mib(self.origin_bytes))?;
        writeln!(f, "  wasted           {:>10.1} MiB", mib(self.wasted_bytes))?;
        writeln!(f, "  repaired         {:>10.1} MiB", mib(self.repaired_bytes))?;
        writeln!(f, "  messages         {:>10.2} % of pieces", self.message_share * 100.0)?;
        writeln!(
            f,
            "  assignments {} ({:.0} a second), alarms {}, verdicts {}, events {}",
            self.assignments,
            self.assignments as f64 / self.seconds.max(1.0),
            self.alarms,
            self.verdicts,
            self.events
        )?;
        for v in self.violations.iter().take(20) {
            writeln!(f, "  VIOLATED: {v}")?;
        }
        for bar in &self.bars {
            let value = bar.value.map_or("never".to_owned(), |v| format!("{v:.3}"));
            let verdict = if bar.pass { "passed" } else { "MISSED" };
            writeln!(f, "  {verdict}: {} {value}, bar {}", bar.name, bar.bound)?;
        }
        Ok(())
    }
}
