//! A page about a run, for a person: what came out beside its bounds, and how that came about. One file without anything from
//! elsewhere; `report.html` draws what is said here.

use headwater_simulator::{Bar, LiveOutcome, LiveSample, Outcome, Sample};
use serde::Serialize;

const TEMPLATE: &str = include_str!("report.html");
/// Where the template has its data.
const PLACE: &str = "__DATA__";

/// What a page says.
#[derive(Debug, Serialize)]
pub struct Page {
    title: String,
    about: String,
    bars: Vec<Bar>,
    facts: Vec<Fact>,
    plots: Vec<Plot>,
}

/// A line of the table.
#[derive(Debug, Serialize)]
struct Fact {
    what: &'static str,
    value: String,
    bound: Option<String>,
}

/// A diagram.
#[derive(Debug, Default, Serialize)]
struct Plot {
    what: &'static str,
    /// Of the values.
    unit: &'static str,
    /// Of `at`.
    across: &'static str,
    at: Vec<f64>,
    lines: Vec<Line>,
    /// One line upon the other.
    stacked: bool,
    /// Drawn across.
    bound: Option<f64>,
    /// Where the scale ends, if not at the highest value.
    most: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    values: Vec<f64>,
}

fn fact(what: &'static str, value: String, bound: Option<String>) -> Fact {
    Fact { what, value, bound }
}

/// The baseline that decided, if one did.
fn by(baseline: &Option<String>) -> String {
    baseline.as_ref().map_or(String::new(), |b| format!(", baseline {b}"))
}

impl Plot {
    /// At these seconds.
    fn over_time(at: &[f64]) -> Plot {
        Plot { across: "s", at: at.to_vec(), ..Plot::default() }
    }
}

impl Page {
    /// The page as a file.
    ///
    /// # Errors
    /// When a number cannot be written.
    pub fn html(&self) -> serde_json::Result<String> {
        // A name must not end the script that it stands in.
        let data = serde_json::to_string(self)?.replace('<', "\\u003c");
        Ok(TEMPLATE.replacen(PLACE, &data, 1))
    }

    /// About a channel.
    pub fn of_stream(about: String, o: &LiveOutcome, samples: &[LiveSample]) -> Page {
        let at: Vec<f64> = samples.iter().map(|s| s.at_s).collect();
        let over_time = |what, unit, lines| Plot { what, unit, lines, ..Plot::over_time(&at) };
        let line = |name, of: fn(&LiveSample) -> f64| Line { name, values: samples.iter().map(of).collect() };
        let shares = |what, name, values: &[f64]| Plot {
            what,
            unit: "s",
            across: "% of all",
            at: (0..values.len()).map(|n| n as f64).collect(),
            lines: vec![Line { name, values: values.to_vec() }],
            ..Plot::default()
        };
        let sources = vec![
            line("from the origin", |s| s.fetched),
            line("pushed by the source", |s| s.pushed),
            line("from viewers", |s| s.from_viewers),
        ];
        let plots = vec![
            Plot { stacked: true, ..over_time("Bytes by source", "copies of the stream", sources) },
            Plot {
                bound: Some(o.s_min_copies),
                ..over_time(
                    "What left the source and the origin, beside S_min",
                    "copies of the stream",
                    vec![line("S", |s| s.pushed + s.fetched)],
                )
            },
            over_time("Viewers", "", vec![line("viewers", |s| s.viewers as f64)]),
            over_time("Pieces that a viewer lacks, the mean", "pieces", vec![line("missing", |s| s.missing)]),
            over_time("Assignments", "a second", vec![line("assignments", |s| s.assignments)]),
            over_time("Stalls so far", "", vec![line("stalls", |s| s.stalls as f64)]),
            shares("Lag: from the source to a viewer, of all pieces", "lag", &o.lag_percentiles_s),
            shares("Start-up: from a player's start to its first picture", "start-up", &o.start_up_percentiles_s),
        ];
        let number = |v: f64| format!("{v:.3}");
        let maybe = |v: Option<f64>| v.map_or("-".into(), number);
        let one = || Some("1".into());
        let facts = vec![
            fact("S / S_min after 60 s", maybe(o.source_ratio_later), one()),
            fact("S / S_min of all", number(o.source_ratio), one()),
            fact("continuity, %", format!("{:.4}", o.continuity * 100.0), Some("100".into())),
            fact(
                "viewers with a stall",
                format!("{} of {}", o.stalled_viewers, o.viewers + o.newcomers),
                Some("0".into()),
            ),
            fact(
                "start-up, median and 95 %, s",
                format!("{} / {}", maybe(o.start_up_p50_s), maybe(o.start_up_p95_s)),
                None,
            ),
            fact("lag, median and 99 %, s", format!("{:.3} / {:.3}", o.lag_p50_s, o.lag_p99_s), None),
            fact("depth, mean", format!("{:.2}", o.depth_mean), Some(format!("{:.2}", o.depth_mean_bound))),
            fact("depth, greatest", o.depth_max.to_string(), Some(o.depth_max_bound.to_string())),
            fact("messages, % of pieces", format!("{:.2}", o.message_share * 100.0), None),
            fact("invariants violated", o.violations.len().to_string(), Some("0".into())),
        ];
        let title =
            format!("{}{}, seed {}: {} viewers, {} s", o.scenario, by(&o.baseline), o.seed, o.viewers, o.seconds);
        Page { title, about, bars: o.bars.clone(), facts, plots }
    }

    /// About a file.
    pub fn of_file(about: String, o: &Outcome, samples: &[Sample]) -> Page {
        let at: Vec<f64> = samples.iter().map(|s| s.at_s).collect();
        let over_time = |what, unit, lines| Plot { what, unit, lines, ..Plot::over_time(&at) };
        // Shares of nothing are no numbers.
        let line = |name, of: fn(&Sample) -> f64| Line {
            name,
            values: samples.iter().map(of).map(|v| if v.is_finite() { v } else { 0.0 }).collect(),
        };
        let percent = |what, lines| Plot { most: Some(100.0), ..over_time(what, "%", lines) };
        let plots = vec![
            percent("How much of the file hosts hold, the mean", vec![line("held", |s| s.held * 100.0)]),
            over_time("Hosts that have all of it", "", vec![line("complete", |s| s.complete as f64)]),
            percent(
                "Uplinks in use",
                vec![line("of hosts", |s| s.up_used * 100.0), line("of the origin", |s| s.origin_used * 100.0)],
            ),
            Plot {
                bound: Some(1.0),
                ..over_time("Copies that left the origin", "copies", vec![line("copies", |s| s.origin_copies)])
            },
            over_time(
                "Transfers under way",
                "",
                vec![line("all", |s| s.active as f64), line("from one ISP into another", |s| s.across as f64)],
            ),
            over_time("Alarms so far", "", vec![line("alarms", |s| s.alarms as f64)]),
        ];
        let seconds = |v: f64| format!("{v:.1}");
        let or_never = |v: Option<f64>| v.map_or("never".into(), seconds);
        let facts = vec![
            fact("hosts that have it", format!("{} of {}", o.complete, o.nodes), Some(o.nodes.to_string())),
            fact("makespan, s", or_never(o.makespan_s), Some(seconds(o.bound_s))),
            fact("half of them have it after, s", or_never(o.p50_s), None),
            fact("99 % of them have it after, s", or_never(o.p99_s), None),
            fact("copies that left the origin", format!("{:.2}", o.origin_copies), Some("1".into())),
            fact("uplinks used, %", format!("{:.1}", o.uplinks_used * 100.0), Some("100".into())),
            fact("invariants violated", o.violations.len().to_string(), Some("0".into())),
        ];
        let title = format!("{}{}, seed {}: {} hosts", o.scenario, by(&o.baseline), o.seed, o.nodes);
        Page { title, about, bars: o.bars.clone(), facts, plots }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_stays_within_its_script() {
        assert_eq!(TEMPLATE.matches(PLACE).count(), 1);
        let (bars, facts, plots) = (Vec::new(), Vec::new(), Vec::new());
        let page = Page { title: "</script><b>".into(), about: PLACE.into(), bars, facts, plots };
        let html = page.html().unwrap();
        assert!(!html.contains("</script><b>"), "{html}");
        let (_, rest) = html.split_once(r#"id="data">"#).unwrap();
        let data: serde_json::Value = serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap();
        assert_eq!((&data["title"], &data["about"]), (&"</script><b>".into(), &PLACE.into()));
    }

    #[test]
    fn runs_become_pages() {
        let scenario = headwater_simulator::small_world(1);
        let mut samples = Vec::new();
        let outcome = headwater_simulator::run_watched(&scenario, 1, |s| samples.push(s.clone())).unwrap();
        let page = Page::of_file("a run".into(), &outcome, &samples);
        assert!(!samples.is_empty() && page.plots.iter().all(|p| p.at.len() == samples.len()));
        assert!(page.plots.iter().flat_map(|p| &p.lines).flat_map(|l| &l.values).all(|v| v.is_finite()));
        assert_eq!(page.bars, outcome.bars);
    }
}
