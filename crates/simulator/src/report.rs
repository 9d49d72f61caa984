//! What a run came to: value, bound, ratio, and what it took.

use crate::scenario::Bars;
use serde::Serialize;
use std::fmt;

/// Outcome of a run. Times in virtual seconds, sizes in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// The seed, to replay it.
    pub seed: u64,
    /// Nodes that arrived.
    pub nodes: usize,
    /// Nodes that have everything.
    pub complete: usize,
    /// From the first arrival until the last node has everything; `None` when a node that stayed has not.
    pub makespan_s: Option<f64>,
    /// Below which no schedule can come for these links; see [`crate::bounds::mixed_makespan`].
    pub bound_s: f64,
    /// Makespan over bound.
    pub ratio: Option<f64>,
    /// Of the time from the first arrival until each node had everything: the median.
    pub p50_s: f64,
    /// 99th percentile.
    pub p99_s: f64,
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
    /// Events of the simulation.
    pub events: u64,
    /// Violated invariants; empty in a sound run.
    pub violations: Vec<String>,
    /// Bars of the scenario that were missed, in words.
    pub missed: Vec<String>,
}

impl Report {
    /// Whether all bars were reached and no invariant violated.
    pub fn passed(&self) -> bool {
        self.missed.is_empty() && self.violations.is_empty()
    }

    /// As JSON, for programs.
    pub fn json(&self) -> String {
        // A report is plain numbers and text, which always serialize.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    pub(crate) fn judge(&mut self, bars: &Bars) {
        match (bars.makespan_ratio, self.ratio) {
            (Some(_), None) => self.missed.push("not every node has everything".into()),
            (Some(bar), Some(ratio)) if ratio > bar => {
                self.missed.push(format!("makespan is {ratio:.3} × its bound, at most {bar} were allowed"));
            }
            _ => {}
        }
        if let Some(bar) = bars.origin_copies.filter(|bar| self.origin_copies > *bar) {
            self.missed.push(format!("{:.3} copies left the origin, at most {bar} were allowed", self.origin_copies));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let or_never = |s: Option<f64>| s.map_or("never".to_owned(), |s| format!("{s:.2} s"));
        writeln!(f, "{}, seed {}: {} of {} nodes complete", self.scenario, self.seed, self.complete, self.nodes)?;
        writeln!(f, "  makespan         {:>12}", or_never(self.makespan_s))?;
        writeln!(f, "  bound            {:>12}", format!("{:.2} s", self.bound_s))?;
        writeln!(f, "  ratio            {:>12}", self.ratio.map_or("-".to_owned(), |r| format!("{r:.3}")))?;
        writeln!(f, "  p50 / p99        {:>12}", format!("{:.1} / {:.1} s", self.p50_s, self.p99_s))?;
        writeln!(f, "  origin copies    {:>12.3}", self.origin_copies)?;
        writeln!(f, "  from peers       {:>8.1} MiB", mib(self.peer_bytes))?;
        writeln!(f, "  from the origin  {:>8.1} MiB", mib(self.origin_bytes))?;
        writeln!(f, "  wasted           {:>8.1} MiB", mib(self.wasted_bytes))?;
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
        for m in &self.missed {
            writeln!(f, "  MISSED: {m}")?;
        }
        Ok(())
    }
}
