//! Both cores under virtual time: links, population, faults, bounds.
//!
//! A [`scenario::Scenario`] and a seed make a run; its [`Report`] sets what came out beside the bound.
#![warn(missing_docs)]

pub mod bounds;
pub mod links;
mod queue;
mod report;
pub mod scenario;
mod small;
mod world;

pub use report::Report;
pub use scenario::{Scenario, ScenarioError};
pub use small::small_world;
pub use world::Sample;

use bounds::FileNode;
use scenario::{Nat, NodeSpec, pair_connects};
use std::path::Path;
use world::World;

/// Runs the scenario of a file.
///
/// # Errors
/// [`ScenarioError`] when the file cannot be read, understood or run.
pub fn sim_command(path: &Path, seed: u64) -> Result<Report, ScenarioError> {
    run(&Scenario::read(path)?, seed)
}

/// Runs a scenario; the same seed gives the same report.
///
/// # Errors
/// [`ScenarioError`] when a number of the scenario is out of range.
pub fn run(scenario: &Scenario, seed: u64) -> Result<Report, ScenarioError> {
    run_watched(scenario, seed, |_| {})
}

/// As [`run`]; `watch` sees the world once per simulated second.
///
/// # Errors
/// As [`run`].
pub fn run_watched(scenario: &Scenario, seed: u64, watch: impl FnMut(&Sample)) -> Result<Report, ScenarioError> {
    let bound_s = bound(scenario, seed)?;
    let outcome = World::new(scenario, seed)?.run(watch);
    let at = |share: f64| {
        let last = outcome.completions.len().saturating_sub(1);
        outcome.completions.get((last as f64 * share).ceil() as usize).map_or(0.0, |m| m.as_secs_f64())
    };
    let makespan_s = outcome.makespan.map(|m| m.as_secs_f64());
    let mut report = Report {
        scenario: scenario.name.clone(),
        seed,
        nodes: outcome.nodes,
        complete: outcome.completions.len(),
        makespan_s,
        bound_s,
        ratio: makespan_s.map(|m| m / bound_s),
        p50_s: at(0.5),
        p99_s: at(0.99),
        origin_copies: outcome.origin_sent / scenario.content_bytes as f64,
        peer_bytes: outcome.bytes[0],
        origin_bytes: outcome.bytes[1],
        wasted_bytes: outcome.bytes[2],
        uplinks_used: outcome.peers_sent / (outcome.peers_up * outcome.span.as_secs_f64()),
        control_messages: outcome.control_messages,
        peer_messages: outcome.peer_messages,
        assignments: outcome.totals.assignments,
        leases: outcome.totals.leases,
        alarms: outcome.totals.alarms,
        troubles: outcome.totals.troubles,
        lightweight_pairs: outcome.totals.lightweight_pairs,
        events: outcome.events,
        violations: outcome.violations,
        missed: Vec::new(),
    };
    report.judge(&scenario.bars);
    Ok(report)
}

/// Below which no schedule can come when nothing goes wrong.
fn bound(scenario: &Scenario, seed: u64) -> Result<f64, ScenarioError> {
    let specs = scenario.nodes(seed);
    let node = |n: &NodeSpec| FileNode {
        up: n.up,
        down: n.down,
        dial_only: n.nat == Nat::Blocked,
        receives: true,
        starts_full: false,
    };
    let nodes: Vec<FileNode> = specs.iter().map(node).collect();
    let (bytes, pieces) = (scenario.content_bytes as f64, scenario.layout()?.pieces());
    let origin_up = scenario.origin_up_mbit * 125_000.0;
    let failed = |_| ScenarioError::OutOfRange("the bound of the makespan");
    let bound = bounds::mixed_makespan(bytes, Some(pieces), origin_up, &nodes).map_err(failed)?;
    let as_in_life = scenario.groups.iter().any(|g| g.nat_as_in_life);
    if !as_in_life || nodes.len() >= bounds::PROGRAM_NODES_MAX {
        return Ok(bound);
    }
    // Pairs that NATs keep apart; the origin comes last.
    let origin = FileNode { up: origin_up, down: 0.0, dial_only: false, receives: false, starts_full: true };
    let all: Vec<FileNode> = nodes.into_iter().chain([origin]).collect();
    let connects = |a: usize, b: usize| match (specs.get(a), specs.get(b)) {
        (Some(x), Some(y)) => pair_connects(seed, (a as u32, x.nat), (b as u32, y.nat)),
        _ => true,
    };
    Ok(bound.max(bounds::blocked_pairs_makespan(bytes, &all, connects).map_err(failed)?))
}
