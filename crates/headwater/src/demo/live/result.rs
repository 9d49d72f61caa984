//! What a live demo measured, beside what the channel costs at least: as JSON and as a table.

use headwater_simulator::bounds::live_server_load;
use indicatif::BinaryBytes;
use serde::Serialize;

use super::super::result::{figures, rate, received_from};
use super::encoder::SEGMENT;
use super::viewer::Viewer;
use crate::table::table;

/// What `headwater demo --live --json` prints. Bytes are of the channel, without overhead; seconds count from the moment
/// at which the probes were started. What viewers saw is of those that were not killed.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How long each probe watched.
    pub seconds: u32,
    /// How many there were.
    pub viewers: u64,
    /// Those of them that were not killed.
    pub survivors: u64,
    /// Survivors of which a process ended early, or whose probe saw nothing.
    pub lost: u64,
    /// The channel's rate, without that of which nothing was published.
    pub rate_bytes_per_s: Option<f64>,
    /// The uplink of publisher and viewers; absent if unlimited.
    pub up_bytes_per_s: Option<u64>,
    /// What was published while the probes watched, and who sent it.
    pub costs: Costs,
    /// `costs`, without the first seconds, in which all viewers came at once.
    pub costs_arrived: Option<Costs>,
    /// Copies that left publisher and origin.
    pub copies: Option<f64>,
    /// Without the first seconds.
    pub copies_arrived: Option<f64>,
    /// Below which neither can be: what viewers' uplinks cannot carry is the servers'.
    pub s_min_copies: Option<f64>,
    /// Received from one another.
    pub viewer_bytes: u64,
    /// All of them.
    pub stalls: u64,
    /// All of them.
    pub stalled_s: f64,
    /// Where media was missing, came twice, or was none.
    pub media_breaks: u64,
    /// 95 of 100 viewers saw the first picture no later.
    pub start_up_p95_s: Option<f64>,
    /// Of the viewer where it is most.
    pub lag_p95_s: Option<f64>,
    /// Each of them.
    pub per_viewer: Vec<ViewerReport>,
    /// What was killed.
    pub killed: Vec<Killed>,
}

/// What a time of the channel cost its servers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Costs {
    /// Bytes of the channel.
    pub published_bytes: u64,
    /// What the publisher sent to viewers.
    pub publisher_bytes: u64,
    /// What the origin sent to viewers.
    pub origin_bytes: u64,
}

impl Costs {
    /// Copies of the channel that left the two; `None` before something was published.
    pub fn copies(&self) -> Option<f64> {
        let sent = (self.publisher_bytes + self.origin_bytes) as f64;
        (self.published_bytes > 0).then(|| sent / self.published_bytes as f64)
    }
}

/// One viewer.
#[derive(Debug, Serialize)]
pub struct ViewerReport {
    /// In the demo.
    pub name: String,
    /// Its node id, if it lived to tell.
    pub node: Option<String>,
    /// By the demo; it has no probe's report then.
    pub killed: bool,
    /// See [`Report::lost`].
    pub lost: bool,
    /// Until the first picture.
    pub start_up_s: Option<f64>,
    /// How often the picture stood still.
    pub stalls: u64,
    /// How long in all.
    pub stalled_s: f64,
    /// From the recording of a segment's end to its arrival: half of all segments are no later.
    pub lag_median_s: Option<f64>,
    /// 95 of 100 are no later.
    pub lag_p95_s: Option<f64>,
    /// Segments that its probe got.
    pub segments: u64,
    /// Where media was missing.
    pub gaps: u64,
    /// Where media came twice.
    pub repeats: u64,
    /// Where it was none.
    pub broken: u64,
    /// Received from others, the publisher among them.
    pub peer_bytes: u64,
    /// Received from the origin.
    pub origin_bytes: u64,
    /// Received and thrown away.
    pub wasted_bytes: u64,
    /// Sent to others.
    pub uploaded_bytes: u64,
}

/// A viewer that was killed.
#[derive(Clone, Debug, Serialize)]
pub struct Killed {
    /// In the demo.
    pub name: String,
    /// When.
    pub at_s: f64,
    /// How many it fed.
    pub children: u64,
}

impl Killed {
    /// In a sentence.
    pub fn words(&self) -> String {
        format!("{}, which fed {} others, was killed at {:.1} s", self.name, self.children, self.at_s)
    }
}

/// What a report is made of, beside what each viewer tells.
#[derive(Debug)]
pub struct Totals {
    /// How long each probe watched.
    pub seconds: u32,
    /// While they did.
    pub costs: Costs,
    /// Once all had arrived, if they watched so long.
    pub costs_arrived: Option<Costs>,
    /// Published while they watched.
    pub segments: u64,
    /// Absent if unlimited.
    pub up_bytes_per_s: Option<u64>,
}

impl Report {
    /// Sums up.
    pub fn new(totals: &Totals, viewers: &[Viewer], killed: Vec<Killed>) -> Report {
        let per_viewer: Vec<ViewerReport> = viewers.iter().map(ViewerReport::new).collect();
        let survivors: Vec<&ViewerReport> = per_viewer.iter().filter(|viewer| !viewer.killed).collect();
        let published_bytes = totals.costs.published_bytes as f64;
        let rate = (totals.segments > 0).then(|| published_bytes / totals.segments as f64 / SEGMENT.as_secs_f64());
        let up = totals.up_bytes_per_s.map_or(f64::INFINITY, |up| up as f64);
        let peer_bytes: u64 = per_viewer.iter().map(|viewer| viewer.peer_bytes).sum();
        let sum = |of: fn(&ViewerReport) -> u64| survivors.iter().map(|viewer| of(viewer)).sum();
        Report {
            seconds: totals.seconds,
            viewers: viewers.len() as u64,
            survivors: survivors.len() as u64,
            lost: survivors.iter().filter(|viewer| viewer.lost).count() as u64,
            rate_bytes_per_s: rate,
            up_bytes_per_s: totals.up_bytes_per_s,
            costs: totals.costs,
            costs_arrived: totals.costs_arrived,
            copies: totals.costs.copies(),
            copies_arrived: totals.costs_arrived.and_then(|costs| costs.copies()),
            s_min_copies: rate.map(|rate| live_server_load(rate, &vec![up; survivors.len()]) / rate),
            viewer_bytes: peer_bytes.saturating_sub(totals.costs.publisher_bytes),
            stalls: sum(|viewer| viewer.stalls),
            stalled_s: survivors.iter().map(|viewer| viewer.stalled_s).sum(),
            media_breaks: sum(|viewer| viewer.gaps + viewer.repeats + viewer.broken),
            start_up_p95_s: p95(survivors.iter().filter_map(|viewer| viewer.start_up_s).collect()),
            lag_p95_s: survivors.iter().filter_map(|viewer| viewer.lag_p95_s).max_by(f64::total_cmp),
            per_viewer,
            killed,
        }
    }

    /// Why it is no success; `None` if it is one.
    pub fn problem(&self) -> Option<String> {
        let Report { survivors, lost, stalls, media_breaks, .. } = self;
        let is_good = *survivors > 0 && (*lost, *stalls, *media_breaks) == (0, 0, 0);
        (!is_good).then(|| {
            format!(
                "{survivors} viewers survived, {lost} of them were lost; they saw {stalls} stalls and {media_breaks} breaks of \
                 the media"
            )
        })
    }

    /// For people.
    pub fn table(&self) -> String {
        let channel = self.rate_bytes_per_s.map_or("no channel".to_owned(), |r| format!("a channel of {}", rate(r)));
        let up = self.up_bytes_per_s.map_or("unlimited".to_owned(), |up| format!("{} each", rate(up as f64)));
        let mut text = format!("{channel} to {} viewers for {} s; uplinks {up}\n", self.viewers, self.seconds);
        text += &self.figures();
        text += &received_from(&[
            ("other viewers", self.viewer_bytes),
            ("the publisher", self.costs.publisher_bytes),
            ("the origin", self.costs.origin_bytes),
        ]);
        text += &self.viewers_table();
        for killed in &self.killed {
            text += &format!("\n{}.\n", killed.words());
        }
        text
    }

    fn figures(&self) -> String {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let ratio =
            |copies: Option<f64>| copies.zip(self.s_min_copies).map_or(String::new(), |(c, s)| format!("{:.2}", c / s));
        let stalls = match self.stalls {
            0 => "0".to_owned(),
            stalls => format!("{stalls}, {:.1} s", self.stalled_s),
        };
        figures(&[
            ("copies from the servers", &number(self.copies), &number(self.s_min_copies), &ratio(self.copies)),
            (
                "  once all had arrived",
                &number(self.copies_arrived),
                &number(self.s_min_copies),
                &ratio(self.copies_arrived),
            ),
            ("start-up, p95", &seconds(self.start_up_p95_s), "", ""),
            ("stalls", &stalls, "0", ""),
            ("lag, p95 of the worst", &seconds(self.lag_p95_s), "", ""),
            ("gaps, repeats, broken", &self.media_breaks.to_string(), "0", ""),
            ("viewers lost", &self.lost.to_string(), "0", ""),
        ])
    }

    fn viewers_table(&self) -> String {
        let heads = ["viewer", "start-up", "stalls", "lag p50", "lag p95", "from peers", "origin", "wasted", "sent"];
        let rows: Vec<Vec<String>> = self.per_viewer.iter().map(ViewerReport::cells).collect();
        format!("\n{}", table(&heads, &rows, &heads[1..]))
    }
}

impl ViewerReport {
    fn new(viewer: &Viewer) -> ViewerReport {
        let seen = viewer.report.clone().unwrap_or_default();
        let counted = &viewer.stream.counters;
        ViewerReport {
            name: viewer.name.clone(),
            node: viewer.node.clone(),
            killed: viewer.killed,
            lost: !viewer.killed && (viewer.lost || seen.start_up_s.is_none()),
            start_up_s: seen.start_up_s,
            stalls: seen.stalls.len() as u64,
            stalled_s: seen.stalled_s,
            lag_median_s: seen.lag.map(|lag| lag.median_s),
            lag_p95_s: seen.lag.map(|lag| lag.p95_s),
            segments: seen.segments,
            gaps: seen.gaps.len() as u64,
            repeats: seen.repeats.len() as u64,
            broken: seen.broken.len() as u64,
            peer_bytes: counted.peer_bytes,
            origin_bytes: counted.origin_bytes,
            wasted_bytes: counted.wasted_bytes,
            uploaded_bytes: counted.uploaded_bytes,
        }
    }

    fn cells(&self) -> Vec<String> {
        let stalls = match (self.killed, self.lost) {
            (true, _) => "killed".to_owned(),
            (_, true) => "lost".to_owned(),
            _ => self.stalls.to_string(),
        };
        let bytes = [self.peer_bytes, self.origin_bytes, self.wasted_bytes, self.uploaded_bytes];
        [self.name.clone(), seconds(self.start_up_s), stalls, seconds(self.lag_median_s), seconds(self.lag_p95_s)]
            .into_iter()
            .chain(bytes.map(|bytes| BinaryBytes(bytes).to_string()))
            .collect()
    }
}

fn seconds(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.2} s"))
}

/// By nearest rank.
fn p95(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get((values.len() * 95).div_ceil(100).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe;

    const MIB: u64 = 1 << 20;

    fn report(change: impl FnOnce(&mut Vec<Viewer>)) -> Report {
        let mut viewers: Vec<Viewer> = (1..=3).map(Viewer::new).collect();
        for (viewer, start_up_s) in viewers.iter_mut().zip([0.25, 0.5]) {
            let lag = probe::Spread { min_s: 0.2, median_s: 0.4, p95_s: start_up_s + 0.5, max_s: 2.0 };
            let seen = probe::Report { start_up_s: Some(start_up_s), lag: Some(lag), ..probe::Report::default() };
            viewer.report = Some(seen);
            viewer.stream.counters.peer_bytes = 2 * MIB;
        }
        viewers[2].killed = true;
        change(&mut viewers);
        let costs = Costs { published_bytes: MIB, publisher_bytes: MIB, origin_bytes: MIB / 2 };
        let totals = Totals {
            seconds: 40,
            costs,
            costs_arrived: Some(Costs { origin_bytes: 0, ..costs }),
            segments: 32,
            up_bytes_per_s: Some(125_000),
        };
        let killed = Killed { name: "viewer-3".into(), at_s: 20.04, children: 2 };
        Report::new(&totals, &viewers, vec![killed])
    }

    #[test]
    fn the_table_has_every_figure() {
        let report = report(|_| {});
        assert!(report.problem().is_none() && report.survivors == 2);
        let table = report.table();
        for line in [
            "a channel of 32.8 kB/s to 3 viewers for 40 s; uplinks 125.0 kB/s each",
            "copies from the servers          1.50      1.00    1.50",
            "  once all had arrived           1.00      1.00    1.00",
            "start-up, p95                  0.50 s",
            "stalls                              0         0",
            "lag, p95 of the worst          1.00 s",
            "gaps, repeats, broken               0         0",
            "viewers lost                        0         0",
            "  other viewers              3.00 MiB    66.7 %",
            "  the publisher              1.00 MiB    22.2 %",
            "  the origin               512.00 KiB    11.1 %",
            "viewer    start-up  stalls  lag p50  lag p95  from peers  origin  wasted  sent",
            "viewer-1    0.25 s       0   0.40 s   0.75 s    2.00 MiB     0 B     0 B   0 B",
            "viewer-3         -  killed        -        -         0 B     0 B     0 B   0 B",
            "viewer-3, which fed 2 others, was killed at 20.0 s.",
        ] {
            assert!(table.lines().any(|other| other == line), "{line}\nis not in\n{table}");
        }
    }

    #[test]
    fn what_a_surviving_viewer_missed_is_no_success() {
        let stall = probe::StallTold { at_s: 20.0, lasted_s: 1.25 };
        let gap = probe::BreakTold { segment: 7, what: "800 ms are missing".into(), lasts_s: 0.8 };
        let of = |viewer: &mut Viewer| viewer.report.take().unwrap_or_default();
        let spoilt = [
            report(|v| v[0].report = Some(probe::Report { stalls: vec![stall], stalled_s: 1.25, ..of(&mut v[0]) })),
            report(|v| v[1].report = Some(probe::Report { gaps: vec![gap.clone()], ..of(&mut v[1]) })),
            report(|v| v[1].report = Some(probe::Report { broken: vec![gap.clone()], ..of(&mut v[1]) })),
            report(|v| v[1].report = Some(probe::Report { start_up_s: None, ..of(&mut v[1]) })),
            report(|v| v[0].lost = true),
            report(|v| v.iter_mut().for_each(|one| one.killed = true)),
        ];
        assert!(spoilt.iter().all(|report| report.problem().is_some()));
        assert!(spoilt[0].table().contains("stalls                       1, 1.2 s         0"), "{}", spoilt[0].table());
        assert_eq!((spoilt[3].lost, spoilt[4].lost, spoilt[5].survivors), (1, 1, 0));
    }

    #[test]
    fn thin_uplinks_leave_more_to_the_servers() {
        let viewers: Vec<Viewer> = (1..=4).map(Viewer::new).collect();
        let costs = Costs { published_bytes: 1000, publisher_bytes: 0, origin_bytes: 0 };
        let s_min = |up_bytes_per_s| {
            let totals = Totals { seconds: 10, costs, costs_arrived: None, segments: 10, up_bytes_per_s };
            Report::new(&totals, &viewers, Vec::new()).s_min_copies
        };
        assert_eq!([s_min(None), s_min(Some(75)), s_min(Some(50))], [Some(1.0), Some(1.0), Some(2.0)]);
        let nothing = Totals {
            seconds: 10,
            costs: Costs { published_bytes: 0, ..costs },
            costs_arrived: None,
            segments: 0,
            up_bytes_per_s: None,
        };
        let nothing = Report::new(&nothing, &viewers, Vec::new());
        assert!(
            nothing.copies.is_none() && nothing.s_min_copies.is_none() && nothing.table().starts_with("no channel")
        );
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        assert_eq!(p95(Vec::new()), None);
        assert_eq!(p95(vec![3.0, 1.0, 2.0]), Some(3.0));
        assert_eq!(p95((1..=40).rev().map(f64::from).collect()), Some(38.0));
    }
}
