//! What a run with a live channel came to.

use anyhow::Result;
use headwater_simulator::bounds::{lightweight_server_load, live_server_load};
use headwater_simulator::scenario::{Ingest, MBIT, Reach};
use serde_json::{Value, json};
use std::collections::BTreeSet;

use super::{SETTLED_S, Segment, Stage, Viewer, parts};
use crate::bars::{at_least, at_most};
use crate::calibrate::Calibration;
use crate::outcome::{Bar, Outcome};
use crate::peers::hash_right;
use crate::site::ORIGIN;

/// Segments are that much longer than they should be at most.
const LONGER: f64 = 1.05;
/// Numbers of segments in one note.
const MAX_TOLD: usize = 20;

impl Stage<'_> {
    pub(super) fn outcome(mut self, calibration: &Calibration, duration_s: f64, zero_unix_s: f64) -> Result<Outcome> {
        let (trees, pairs) = self.control_says()?;
        let mut notes = std::mem::take(&mut self.notes);
        let content_right = self.contents_right(&mut notes)?;
        let here: Vec<&Viewer> = self.viewers.iter().filter(|v| !v.is_away).collect();
        let reports: Vec<&Value> = here.iter().filter_map(|v| v.report.as_ref()).collect();
        let sum = |key: &str| reports.iter().map(|r| r[key].as_array().map_or(0, Vec::len)).sum::<usize>() as f64;
        let start_up = percentile(reports.iter().filter_map(|r| r["start_up_s"].as_f64()).collect(), 95);
        let steps = |of: &[&Viewer], key: &str| -> Vec<(u64, u64)> {
            let all = of.iter().filter_map(|v| serde_json::from_value(v.stream()["live"][key].clone()).ok());
            all.flat_map(|steps: Vec<(u64, u64)>| steps).collect()
        };
        let worst_lag = here.iter().filter_map(|v| of_steps(&steps(&[*v], "lags"), 95)).max_by(f64::total_cmp);
        let (lags, fed_again) = (steps(&here, "lags"), steps(&here, "fed_again"));
        let left = here.iter().filter_map(|v| v.slowed).map(|(.., left)| left.unwrap_or(f64::INFINITY));
        let left = left.max_by(f64::total_cmp).filter(|s| s.is_finite());
        let resumed = here.iter().map(|v| v.resumed_s.unwrap_or(f64::INFINITY)).max_by(f64::total_cmp);
        let had: BTreeSet<u64> = self.segments.iter().map(|s| s.sequence).collect();
        let gaps = || reports.iter().flat_map(|r| r["gaps"].as_array().into_iter().flatten());
        let at_publisher = gaps().filter(|g| is_at_publisher(g, &had, self.live.segment_s)).count();
        if at_publisher > 0 {
            let lacks: Vec<u64> = lacks(&had).take(MAX_TOLD).collect();
            notes.push(format!(
                "segments {lacks:?} never came to the publisher: {at_publisher} gaps at viewers are theirs"
            ));
        }
        let media_breaks = sum("gaps") + sum("repeats") + sum("broken") - at_publisher as f64;
        let lost = here.iter().filter_map(|v| v.stream()["live"]["lost_pieces"].as_u64()).sum::<u64>() as f64;
        let (rate, bound, lightweight) = self.bounds(calibration);
        let (all, later) = (self.copies(0.0, zero_unix_s)?, self.copies(SETTLED_S, zero_unix_s)?);
        let bars = &self.live.bars;
        let over = |copies: Option<f64>, bound: f64| copies.map(|c| c / bound);
        let most = [
            ("source_ratio_later", bars.source_ratio_later, over(later, bound)),
            ("source_ratio", bars.source_ratio, over(all, bound)),
            ("lightweight_ratio", bars.lightweight_ratio, over(later, lightweight)),
            ("stalls", bars.stalls, Some(sum("stalls"))),
            ("start_up_p95_s", bars.start_up_p95_s, start_up),
            ("lag_p95_s", bars.lag_p95_s, worst_lag),
            ("media_breaks", bars.media_breaks, Some(media_breaks)),
            ("fed_again_p99_s", bars.fed_again_p99_s, of_steps(&fed_again, 99)),
            ("left_within_s", bars.left_within_s, left),
            ("resumes_within_s", bars.resumes_within_s, resumed.filter(|s| s.is_finite())),
            ("dial_only_pairs", bars.dial_only_pairs, pairs),
            ("lost_pieces", bars.lost_pieces, Some(lost)),
        ];
        let number = |value: Option<f64>| value.map(|v| (v, String::new()));
        let mut judged: Vec<Bar> =
            most.into_iter().filter_map(|(n, b, v)| Some(at_most(n, b?, number(v), "not measured"))).collect();
        judged
            .extend(bars.uplink_share.map(|b| at_least("uplink_share", b, self.uplink_share(calibration, duration_s))));
        for (name, bound) in [("splits", bars.splits), ("merges", bars.merges)] {
            judged.extend(bound.map(|bound| at_least(name, bound, trees[name].as_f64())));
        }
        judged.extend(content_right.map(|share| at_least("content_right", 1.0, Some(share))));
        notes.push(format!("the control center of its trees: {trees}"));
        notes.push(format!(
            "the stream had {:.2} Mbit/s; S_min is {bound:.3} of it, {lightweight:.3} where some cannot be dialled; {} \
             viewers to the end",
            rate / MBIT,
            here.len()
        ));
        notes.push(format!("copies from publisher and origin: {all:?}, after {SETTLED_S} s {later:?}"));
        let told = |steps: &[(u64, u64)]| [50, 90, 95, 99, 100].map(|p| of_steps(steps, p));
        notes.push(format!("lag of all viewers together, p50, 90, 95, 99, 100: {:?}", told(&lags)));
        notes.push(format!("fed again p50, 90, 95, 99, 100: {:?} of {}", told(&fed_again), count(&fed_again)));
        notes.extend(here.iter().map(|v| in_words(v)));
        Ok(Outcome {
            scenario: self.scenario.name.clone(),
            about: self.scenario.about.clone(),
            system: "headwater".into(),
            seed: self.options.seed,
            pass: judged.iter().all(|bar| bar.pass),
            bars: judged,
            zero_unix_ms: (zero_unix_s * 1000.0) as u64,
            duration_s,
            notes,
            ..Outcome::default()
        })
    }

    /// Copies of the stream that publisher and origin sent to viewers after a time; `None` where it had no media then.
    fn copies(&self, after_s: f64, zero_unix_s: f64) -> Result<Option<f64>> {
        let of: Vec<&Segment> = self.segments.iter().filter(|s| s.at_s >= after_s).collect();
        let (Some(first), Some(last)) = (of.first(), of.last()) else { return Ok(None) };
        let bytes: u64 = of.iter().skip(1).map(|s| s.bytes).sum();
        let origin = match self.live.ingest {
            Ingest::Follow => {
                let publisher = self.net.inner_address(ORIGIN);
                self.site.origin_bytes_to_others(publisher, "/live/", zero_unix_s + after_s)?
            }
            // The publisher is the origin, and keeps no log: what viewers had from there.
            Ingest::Push => {
                let before = |v: &Viewer| if after_s > 0.0 { v.settled.map_or(0, |(_, origin)| origin) } else { 0 };
                self.viewers.iter().map(|v| v.count("origin_bytes").saturating_sub(before(v))).sum()
            }
        };
        Ok((bytes > 0).then(|| (last.sent.saturating_sub(first.sent) + origin) as f64 / bytes as f64))
    }

    /// The stream's rate in bytes per second, and what its servers must send at least, in copies, by calibrated uplinks:
    /// when all viewers can be dialled, and as it is.
    fn bounds(&self, calibration: &Calibration) -> (f64, f64, f64) {
        let bytes: u64 = self.segments.iter().map(|s| s.bytes).sum();
        let rate = (bytes as f64 / (self.segments.len().max(1) as f64 * self.live.segment_s)).max(1.0);
        let ups = |dial_only: Option<bool>| -> Vec<f64> {
            let of = self.viewers.iter().filter(|v| !v.is_away);
            let of = of.filter(|v| dial_only.is_none_or(|d| d == (v.spec.reach == Reach::DialOnly)));
            of.map(|v| calibration.goodput(v.spec.up_mbit)).collect()
        };
        let lightweight = lightweight_server_load(rate, &ups(Some(false)), &ups(Some(true)));
        (rate, live_server_load(rate, &ups(None)) / rate, lightweight / rate)
    }

    /// Share of the uplinks of viewers that stayed that was used once arrivals were over.
    fn uplink_share(&self, calibration: &Calibration, duration_s: f64) -> Option<f64> {
        let of = || self.viewers.iter().filter(|v| !v.is_away).filter_map(|v| Some((v, v.settled?.0)));
        let sent: u64 = of().map(|(v, before)| v.count("uploaded_bytes").saturating_sub(before)).sum();
        let could: f64 = of().map(|(v, _)| calibration.goodput(v.spec.up_mbit)).sum();
        let time = self.live.seconds.min(duration_s) - SETTLED_S;
        (could > 0.0 && time > 0.0).then(|| sent as f64 / could / time)
    }

    /// Share of the viewers that have the right content beside the stream; `None` where that is not asked for.
    fn contents_right(&self, notes: &mut Vec<String>) -> Result<Option<f64>> {
        if !self.live.bars.content_right {
            return Ok(None);
        }
        let (mut all, mut right) = (0u32, 0u32);
        for (host, viewer) in self.viewers.iter().enumerate().filter(|(_, v)| !v.is_away) {
            all += 1;
            if viewer.file()["complete"] != true {
                notes.push(format!("{} does not have all of the content", viewer.spec.name));
                continue;
            }
            parts::export((host, &viewer.spec), self.net, self.options, &self.site)?;
            right += u32::from(hash_right(&self.site, &viewer.spec.name)? == Some(true));
        }
        Ok(Some(f64::from(right) / f64::from(all.max(1))))
    }
}

/// Segments that the publisher did not have, of those between its first and its last.
fn lacks(had: &BTreeSet<u64>) -> impl Iterator<Item = u64> {
    let all = had.first().copied().unwrap_or(0)..had.last().copied().unwrap_or(0);
    all.filter(|n| !had.contains(n))
}

/// Whether what a viewer misses before a segment is what the publisher did not have, and no more than that.
fn is_at_publisher(gap: &Value, had: &BTreeSet<u64>, segment_s: f64) -> bool {
    let Some((segment, lasts_s)) = gap["segment"].as_u64().zip(gap["lasts_s"].as_f64()) else { return false };
    let before = had.range(..segment).next_back();
    let lacked = before.map_or(0, |before| segment - before - 1);
    lacked > 0 && had.contains(&segment) && lasts_s <= lacked as f64 * segment_s * LONGER
}

fn in_words(v: &Viewer) -> String {
    let (r, c) = (v.report.as_ref().unwrap_or(&Value::Null), v.stream());
    let live = &c["live"];
    let told = json!({
        "start_up_s": r["start_up_s"], "stalls": r["stalls"], "gaps": r["gaps"], "repeats": r["repeats"],
        "peer_bytes": c["peer_bytes"], "origin_bytes": c["origin_bytes"], "wasted_bytes": c["wasted_bytes"],
        "uploaded_bytes": c["uploaded_bytes"], "lag_p95_ms": live["lag_p95_ms"], "lost": live["lost_pieces"],
        "troubles": r["troubles"], "missing": live["missing_pieces"], "unfed": live["unfed_substreams"],
        "pushes": live["pushed_substreams"],
    });
    format!("{} ({} Mbit/s up): {told}", v.spec.name, v.spec.up_mbit)
}

fn count(steps: &[(u64, u64)]) -> u64 {
    steps.iter().map(|(_, n)| n).sum()
}

/// Of delays counted in steps (upper end in milliseconds, how many), in seconds; `None` of nothing.
fn of_steps(steps: &[(u64, u64)], percent: u64) -> Option<f64> {
    let mut steps = steps.to_vec();
    steps.sort_unstable();
    let wanted = (count(&steps) * percent).div_ceil(100).max(1);
    let mut seen = 0;
    let step = steps.iter().find(|(_, n)| {
        seen += n;
        seen >= wanted
    });
    step.map(|(ms, _)| *ms as f64 / 1000.0)
}

/// `None` of nothing.
fn percentile(mut values: Vec<f64>, percent: usize) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    values.get((values.len() * percent).div_ceil(100).saturating_sub(1).min(last)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_the_publisher_s_where_it_lacked_just_that() {
        let had = BTreeSet::from([4, 5, 8, 9]);
        for (segment, lasts_s, expected) in
            [(8, 4.0, true), (8, 4.04, true), (8, 6.0, false), (9, 2.0, false), (7, 2.0, false), (4, 2.0, false)]
        {
            let gap = json!({ "segment": segment, "lasts_s": lasts_s, "what": "" });
            assert_eq!(is_at_publisher(&gap, &had, 2.0), expected, "{gap}");
        }
        assert!(!is_at_publisher(&json!({ "segment": 8 }), &had, 2.0));
        assert_eq!(lacks(&had).collect::<Vec<u64>>(), [6, 7]);
        assert_eq!(lacks(&BTreeSet::new()).count(), 0);
    }

    #[test]
    fn percentiles() {
        assert_eq!(percentile(vec![], 95), None);
        assert_eq!(percentile(vec![3.0], 95), Some(3.0));
        assert_eq!(percentile((1..=20).rev().map(f64::from).collect(), 95), Some(19.0));
        assert_eq!(of_steps(&[], 95), None);
        assert_eq!(of_steps(&[(100, 1), (25, 94), (50, 4), (25, 1)], 95), Some(0.025));
        assert_eq!(of_steps(&[(100, 1), (25, 94), (50, 4), (25, 1)], 100), Some(0.1));
    }
}
