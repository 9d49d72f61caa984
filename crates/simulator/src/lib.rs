//! Both cores under virtual time: links, population, faults, bounds.
//!
//! A [`scenario::Scenario`] and a seed make a run; its [`Outcome`] sets what came out beside the bound, that of a live
//! channel is a [`LiveOutcome`] of [`run_live`]. The lab runs the same scenarios with real hosts, and takes [`run`],
//! [`bounds::lab_makespan`] and [`scenario::scaled`] from here.
#![warn(missing_docs)]

mod baseline;
pub mod bounds;
mod flow;
pub mod links;
mod live;
mod outcome;
mod queue;
pub mod scenario;
mod small;
mod world;

pub use baseline::Baseline;
pub use live::{IspCopies, LiveOutcome, LiveSample, run_live, run_live_by, run_live_watched};
pub use outcome::{Bar, Flow, HostOutcome, IntoSite, Outcome};
pub use scenario::{Scenario, ScenarioError};
pub use small::{long_world, small_world};
pub use world::Sample;

use bounds::{Calibrated, FileNode};
use headwater_model::node::Accepts;
use scenario::{Bars, HostSpec};
use std::path::Path;
use world::World;

/// Runs the scenario of a file, in which hosts fetch contents.
///
/// # Errors
/// [`ScenarioError`] when the file cannot be read, understood or run.
pub fn sim_command(path: &Path, seed: u64) -> Result<Outcome, ScenarioError> {
    run(&Scenario::read(path)?, seed)
}

/// Runs a scenario; the same seed gives the same outcome.
///
/// # Errors
/// [`ScenarioError`] when a number of the scenario is out of range, or only the lab can run it.
pub fn run(scenario: &Scenario, seed: u64) -> Result<Outcome, ScenarioError> {
    run_watched(scenario, seed, |_| {})
}

/// As [`run`]; `watch` sees the world once per simulated second.
///
/// # Errors
/// As [`run`].
pub fn run_watched(scenario: &Scenario, seed: u64, watch: impl FnMut(&Sample)) -> Result<Outcome, ScenarioError> {
    run_by(None, scenario, seed, watch)
}

/// As [`run_watched`]; a baseline decides in Headwater's place.
///
/// # Errors
/// As [`run`], and where the baseline has no meaning for the scenario.
pub fn run_by(
    baseline: Option<Baseline>,
    scenario: &Scenario,
    seed: u64,
    watch: impl FnMut(&Sample),
) -> Result<Outcome, ScenarioError> {
    if scenario.live.is_some() {
        return Err(ScenarioError::Contradiction("a live channel is run by itself".into()));
    }
    if let Some(baseline) = baseline {
        baseline.check(scenario)?;
    }
    let bound_s = bound(scenario, seed)?;
    let alone_s = match scenario.bars.beside_ratio {
        Some(_) => run(&Scenario { also: vec![], bars: Bars::default(), ..scenario.clone() }, seed)?.makespan_s,
        None => None,
    };
    let finished = World::new(scenario, seed, baseline)?.run(watch);
    // Of those that were there to the end, or left with everything: whoever has not got it counts, too.
    let counted =
        |h: &&HostOutcome| h.receives && h.arrived_s.is_some() && (!h.left_for_good || h.finished_s.is_some());
    let last = finished.hosts.iter().filter(counted).count().saturating_sub(1);
    let at = |share: f64| {
        let nth = (last as f64 * share).ceil() as usize;
        finished.completions.get(nth).map(|m| m.as_secs_f64())
    };
    let makespan_s = finished.makespan.map(|m| m.as_secs_f64());
    let mut outcome = Outcome {
        scenario: scenario.name.clone(),
        baseline: baseline.map(|b| b.to_string()),
        seed,
        nodes: finished.nodes,
        complete: finished.completions.len(),
        makespan_s,
        bound_s,
        ratio: makespan_s.map(|m| m / bound_s),
        beside_ratio: makespan_s.zip(alone_s).map(|(m, alone)| m / alone),
        complete_also: finished.complete_also,
        p50_s: at(0.5),
        p99_s: at(0.99),
        origin_copies: finished.origin_sent / scenario.content_bytes as f64,
        peer_bytes: finished.bytes[0],
        origin_bytes: finished.bytes[1],
        wasted_bytes: finished.bytes[2],
        uplinks_used: finished.peers_sent / (finished.peers_up * finished.span.as_secs_f64()),
        control_messages: finished.control_messages,
        peer_messages: finished.peer_messages,
        assignments: finished.totals.assignments,
        leases: finished.totals.leases,
        alarms: finished.totals.alarms,
        troubles: finished.totals.troubles,
        lightweight_pairs: finished.totals.lightweight_pairs,
        hopeless_pairs: finished.hopeless_pairs,
        flows: finished.flows,
        into_sites: finished.into_sites,
        copies_into_isp: None,
        copies_out_of_isp: None,
        copies_back: None,
        copies_into_site: None,
        sessions_back_s: finished.sessions_back.map(|m| m.as_secs_f64()),
        hosts: finished.hosts,
        events: finished.events,
        state_lines: finished.state_lines,
        violations: finished.violations,
        bars: Vec::new(),
        not_judged: Vec::new(),
    };
    outcome.judge(scenario);
    Ok(outcome)
}

/// Below which no schedule can come when nothing goes wrong.
fn bound(scenario: &Scenario, seed: u64) -> Result<f64, ScenarioError> {
    let pieces = scenario.layout()?.pieces();
    let hosts = scenario.hosts(seed);
    let rates = Calibrated::new(scenario, &hosts, |_| 1.0, 1.0);
    let node = |host: &HostSpec| FileNode {
        up: host.up(),
        down: host.down(),
        // Dial-only hosts of one site do reach each other.
        dial_only: scenario.accepts(host) == Accepts::DialOnly && host.site.is_none(),
        receives: host.receives(),
        starts_full: host.seeded,
    };
    let nodes: Vec<FileNode> = hosts.iter().map(node).collect();
    let failed = |_| ScenarioError::OutOfRange("the bound of the makespan");
    let mixed = bounds::mixed_makespan(scenario.content_bytes as f64, Some(pieces), rates.origin_up, &nodes);
    let bound = mixed.map_err(failed)?.max(bounds::region_makespan(scenario, &hosts, &rates));
    if hosts.len() >= bounds::PROGRAM_NODES_MAX {
        return Ok(bound);
    }
    let program =
        bounds::lab_makespan_where(scenario, &hosts, &rates, |from, to| match (hosts.get(from), hosts.get(to)) {
            (Some(a), Some(b)) => scenario.may_send(a, b) && scenario.connects(seed, (from, a), (to, b)),
            _ => false,
        });
    Ok(bound.max(program.map_err(failed)?))
}
