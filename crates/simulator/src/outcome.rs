//! What a run came to: value, bound, ratio, and what it took.

use crate::scenario::{Arrivals, Scenario};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Outcome of a run. Times in virtual seconds, sizes in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The scenario's name.
    pub scenario: String,
    /// The baseline that decided, if one did.
    pub baseline: Option<String>,
    /// The seed, to replay it.
    pub seed: u64,
    /// Receivers that arrived.
    pub nodes: usize,
    /// Receivers that have everything.
    pub complete: usize,
    /// From the first arrival until the last receiver has everything; `None` when one that stayed has not.
    pub makespan_s: Option<f64>,
    /// Below which no schedule can come for these links; the largest that [`crate::bounds`] knows.
    pub bound_s: f64,
    /// Makespan over bound.
    pub ratio: Option<f64>,
    /// Makespan over what it is without the further contents; `None` where that was not asked for.
    pub beside_ratio: Option<f64>,
    /// Receivers that have everything of each further content.
    pub complete_also: Vec<usize>,
    /// Of the time from the first arrival until each receiver had everything: the median; `None` where fewer than half of
    /// those that stayed have.
    pub p50_s: Option<f64>,
    /// 99th percentile; `None` where fewer have everything.
    pub p99_s: Option<f64>,
    /// Bytes that left the origin over the content's size.
    pub origin_copies: f64,
    /// Bytes that nodes got from peers.
    pub peer_bytes: u64,
    /// Bytes that nodes got from the origin.
    pub origin_bytes: u64,
    /// Bytes that came twice or were wrong.
    pub wasted_bytes: u64,
    /// Share of the nodes' uplinks in use from the first arrival until the end.
    pub uplinks_used: f64,
    /// Messages between nodes and control center, both ways.
    pub control_messages: u64,
    /// Messages between nodes, pieces aside.
    pub peer_messages: u64,
    /// Assignments that the control center sent.
    pub assignments: u64,
    /// Leases that it gave.
    pub leases: u64,
    /// Alarms that it got.
    pub alarms: u64,
    /// Edges that its monitor found in trouble.
    pub troubles: u64,
    /// Assigned pairs of two dial-only nodes: must be 0.
    pub lightweight_pairs: u64,
    /// Pairs among all assignments of which neither end can reach the other.
    pub hopeless_pairs: u64,
    /// Payload between each two ISPs.
    pub flows: Vec<Flow>,
    /// Payload into each site.
    pub into_sites: Vec<IntoSite>,
    /// Most copies that entered an ISP other than the origin's; `None` where there is none.
    pub copies_into_isp: Option<f64>,
    /// Most copies that left an ISP other than the origin's; `None` where there is none.
    pub copies_out_of_isp: Option<f64>,
    /// Copies that came from the other ISPs into the origin's; `None` where there is no other.
    pub copies_back: Option<f64>,
    /// Most copies that entered a site; `None` where there is none.
    pub copies_into_site: Option<f64>,
    /// From the control center's last return until all sessions were back.
    pub sessions_back_s: Option<f64>,
    /// Each host, in the scenario's order.
    pub hosts: Vec<HostOutcome>,
    /// Events of the simulation.
    pub events: u64,
    /// Lines of what the cores keep, every ten minutes; in worlds that are checked after every step.
    pub state_lines: Vec<usize>,
    /// Violated invariants; empty in a sound run.
    pub violations: Vec<String>,
    /// The scenario's bars that a simulation can judge.
    pub bars: Vec<Bar>,
    /// The scenario's bars that only the lab can judge.
    pub not_judged: Vec<String>,
}

/// Payload from one ISP into another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// From which.
    pub from: u16,
    /// Into which.
    pub to: u16,
    /// How much.
    pub bytes: u64,
}

/// Payload into a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntoSite {
    /// Which.
    pub site: String,
    /// How much.
    pub bytes: u64,
}

/// What became of a host. Times are from the first arrival.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostOutcome {
    /// Its name.
    pub name: String,
    /// Its ISP.
    pub isp: u16,
    /// Whether the run is about its getting the content.
    pub receives: bool,
    /// When it arrived, if it did.
    pub arrived_s: Option<f64>,
    /// When it had everything, if ever.
    pub finished_s: Option<f64>,
    /// It died or left, and did not come back.
    pub left_for_good: bool,
    /// Verified bytes from peers and waypoints.
    pub peer_bytes: u64,
    /// Verified bytes from the origin.
    pub origin_bytes: u64,
    /// The longest time that nothing came, after the first byte and before the last.
    pub longest_wait_s: f64,
}

/// A bar of the scenario, judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// As the scenario calls it.
    pub name: String,
    /// What came out; missing where it never came about, which fails.
    pub value: Option<f64>,
    /// What it must not pass, or for shares of a rate not stay below.
    pub bound: f64,
    /// Value over bound.
    pub ratio: Option<f64>,
    /// Whether it was met.
    pub pass: bool,
}

impl Bar {
    pub(crate) fn at_most(name: &str, value: Option<f64>, bound: f64) -> Self {
        Self {
            name: name.into(),
            value,
            bound,
            ratio: value.filter(|_| bound > 0.0).map(|v| v / bound),
            pass: value.is_some_and(|v| v <= bound),
        }
    }

    pub(crate) fn at_least(name: &str, value: Option<f64>, bound: f64) -> Self {
        Self { pass: value.is_some_and(|v| v >= bound), ..Self::at_most(name, value, bound) }
    }
}

impl Outcome {
    /// Whether all bars were reached and no invariant violated.
    pub fn passed(&self) -> bool {
        self.missed().next().is_none() && self.violations.is_empty()
    }

    /// Bars that were not reached.
    pub fn missed(&self) -> impl Iterator<Item = &Bar> {
        self.bars.iter().filter(|bar| !bar.pass)
    }

    /// As JSON, for programs.
    pub fn json(&self) -> String {
        // An outcome is plain numbers and text, which always serialize.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Sums up flows, and sets what came out beside the scenario's bars.
    pub(crate) fn judge(&mut self, scenario: &Scenario) {
        self.sum_flows(scenario);
        let bars = &scenario.bars;
        let most: [(&str, Option<f64>, Option<f64>); 9] = [
            ("makespan_ratio", bars.makespan_ratio, self.ratio),
            ("beside_ratio", bars.beside_ratio, self.beside_ratio),
            ("origin_copies", bars.origin_copies, Some(self.origin_copies)),
            ("copies_into_isp", bars.copies_into_isp, self.copies_into_isp),
            ("copies_out_of_isp", bars.copies_out_of_isp, self.copies_out_of_isp),
            ("copies_back", bars.copies_back, self.copies_back),
            ("copies_into_site", bars.copies_into_site, self.copies_into_site),
            ("longest_wait_s", bars.longest_wait_s, Some(self.longest_wait_s())),
            ("sessions_back_s", bars.sessions_back_s, self.sessions_back_s),
        ];
        let judged = most.into_iter().filter_map(|(name, bar, value)| Some(Bar::at_most(name, value, bar?)));
        self.bars = judged.collect();
        if let Some(bar) = bars.dial_only_pairs {
            self.bars.push(Bar::at_most("dial_only_pairs", Some(self.hopeless_pairs as f64), bar as f64));
        }
        if let Some(bar) = bars.late_share_of_down {
            self.bars.push(Bar::at_least("late_share_of_down", self.late_share(scenario), bar));
        }
        if bars.all_complete {
            let all = self.staying().count() as f64;
            let complete = self.staying().filter(|h| h.finished_s.is_some()).count() as f64;
            self.bars.push(Bar::at_least("all_complete", Some(complete), all));
        }
        let lab_only = [
            ("types_match", bars.types_match.is_some()),
            ("congested_named_s", bars.congested_named_s.is_some()),
            ("left_within_s", bars.left_within_s.is_some()),
            ("honest_banned", bars.honest_banned.is_some()),
        ];
        self.not_judged = lab_only.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned()).collect();
    }

    fn sum_flows(&mut self, scenario: &Scenario) {
        let origin_isp = scenario.network.map_or(1, |n| n.origin_isp);
        let into = |isp: u16| self.flows.iter().filter(|f| f.to == isp).map(|f| f.bytes).sum::<u64>();
        let copies = |bytes: u64| bytes as f64 / scenario.content_bytes as f64;
        let out_of = |isp: u16| self.flows.iter().filter(|f| f.from == isp).map(|f| f.bytes).sum::<u64>();
        let others = || self.flows.iter().map(|f| f.to).filter(|isp| *isp != origin_isp);
        self.copies_into_isp = others().map(into).max().map(copies);
        self.copies_out_of_isp = others().map(out_of).max().map(copies);
        self.copies_back = self.copies_into_isp.map(|_| copies(into(origin_isp)));
        self.copies_into_site = self.into_sites.iter().map(|s| s.bytes).max().map(copies);
    }

    /// Receivers that were there to the end, or left with everything.
    fn staying(&self) -> impl Iterator<Item = &HostOutcome> {
        self.hosts.iter().filter(|h| h.receives && (!h.left_for_good || h.finished_s.is_some()))
    }

    /// The longest time that a receiver waited for its next byte.
    pub fn longest_wait_s(&self) -> f64 {
        self.hosts.iter().filter(|h| h.receives && !h.left_for_good).map(|h| h.longest_wait_s).fold(0.0, f64::max)
    }

    /// Arrivals one by one: the least goodput of a receiver after the first one, over its downlink.
    fn late_share(&self, scenario: &Scenario) -> Option<f64> {
        if scenario.arrivals != Arrivals::OneByOne {
            return None;
        }
        let specs = scenario.hosts(self.seed);
        let share = |host: &HostOutcome, down: f64| {
            let took = host.finished_s? - host.arrived_s?;
            Some(scenario.content_bytes as f64 / took / down)
        };
        let late = self.hosts.iter().zip(&specs).filter(|(h, spec)| h.receives && spec.arrives.is_none());
        late.map(|(h, spec)| share(h, spec.down())).try_fold(f64::INFINITY, |least, s| Some(least.min(s?)))
    }
}

/// Who decided, if it was not Headwater, for the first line of what a run came to.
pub(crate) fn by(baseline: &Option<String>) -> String {
    baseline.as_ref().map_or(String::new(), |b| format!("baseline {b}, "))
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let or_never = |s: Option<f64>| s.map_or("never".to_owned(), |s| format!("{s:.2} s"));
        let by = by(&self.baseline);
        writeln!(f, "{}, {by}seed {}: {} of {} nodes complete", self.scenario, self.seed, self.complete, self.nodes)?;
        writeln!(f, "  makespan         {:>12}", or_never(self.makespan_s))?;
        writeln!(f, "  bound            {:>12}", format!("{:.2} s", self.bound_s))?;
        writeln!(f, "  ratio            {:>12}", self.ratio.map_or("-".to_owned(), |r| format!("{r:.3}")))?;
        if let Some(ratio) = self.beside_ratio {
            writeln!(f, "  beside / alone   {ratio:>12.3}")?;
        }
        for (also, complete) in self.complete_also.iter().enumerate() {
            writeln!(f, "  content {:<8} {complete:>13} complete", also + 2)?;
        }
        let p50_p99 = format!("{} / {}", or_never(self.p50_s), or_never(self.p99_s));
        writeln!(f, "  p50 / p99        {p50_p99:>12}")?;
        writeln!(f, "  origin copies    {:>12.3}", self.origin_copies)?;
        let copies = [
            ("into an ISP", self.copies_into_isp),
            ("out of an ISP", self.copies_out_of_isp),
            ("back", self.copies_back),
            ("into a site", self.copies_into_site),
        ];
        for (where_to, copies) in copies.into_iter().filter_map(|(w, c)| Some((w, c?))) {
            writeln!(f, "  copies {where_to:<13}{copies:>9.3}")?;
        }
        for flow in &self.flows {
            writeln!(f, "  ISP {:>3} to {:>3}   {:>8.1} MiB", flow.from, flow.to, mib(flow.bytes))?;
        }
        for site in &self.into_sites {
            writeln!(f, "  into site {:<6} {:>8.1} MiB", site.site, mib(site.bytes))?;
        }
        writeln!(f, "  from peers       {:>8.1} MiB", mib(self.peer_bytes))?;
        writeln!(f, "  from the origin  {:>8.1} MiB", mib(self.origin_bytes))?;
        writeln!(f, "  wasted           {:>8.1} MiB", mib(self.wasted_bytes))?;
        writeln!(f, "  longest wait     {:>12}", format!("{:.2} s", self.longest_wait_s()))?;
        writeln!(f, "  uplinks in use   {:>11.1} %", self.uplinks_used * 100.0)?;
        writeln!(f, "  control messages {:>12}", self.control_messages)?;
        writeln!(f, "  peer messages    {:>12}", self.peer_messages)?;
        writeln!(f, "  events           {:>12}", self.events)?;
        writeln!(
            f,
            "  assignments {}, leases {}, alarms {}, troubles {}, lightweight pairs {}",
            self.assignments, self.leases, self.alarms, self.troubles, self.lightweight_pairs
        )?;
        for v in self.violations.iter().take(20) {
            writeln!(f, "  VIOLATED: {v}")?;
        }
        for bar in &self.bars {
            let value = bar.value.map_or("never".to_owned(), |v| format!("{v:.3}"));
            let verdict = if bar.pass { "passed" } else { "MISSED" };
            writeln!(f, "  {verdict}: {} {value}, bar {}", bar.name, bar.bound)?;
        }
        for name in &self.not_judged {
            writeln!(f, "  not judged here: {name}")?;
        }
        Ok(())
    }
}
