//! `headwater sim`: a scenario under virtual time.

use std::fmt::Display;
use std::path::PathBuf;

use anyhow::{Result, bail};
use headwater_simulator::{Scenario, run_live};
use serde::Serialize;

use super::{print, print_json};

/// Simulate a scenario under virtual time, and set what comes out beside its bound
///
/// The control center's and the peers' decisions are the real ones; links, joins, leaves and failures are simulated.
/// The same seed gives the same run. Fails when a bar of the scenario is missed or an invariant violated.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The scenario's file; see the folder scenarios/
    #[arg(value_name = "SCENARIO")]
    scenario: PathBuf,
    /// Where its randomness starts
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<()> {
    let (json, seed) = (args.json, args.seed);
    let scenario = Scenario::read(&args.scenario)?;
    let is_live = scenario.live.is_some();
    let (missed, violated) = if is_live {
        let outcome = tokio::task::spawn_blocking(move || run_live(&scenario, seed)).await??;
        show(&outcome, json)?;
        (outcome.missed().count(), outcome.violations.len())
    } else {
        let outcome = tokio::task::spawn_blocking(move || headwater_simulator::run(&scenario, seed)).await??;
        show(&outcome, json)?;
        (outcome.missed().count(), outcome.violations.len())
    };
    if missed > 0 || violated > 0 {
        bail!("{missed} bars missed, {violated} invariants violated");
    }
    Ok(())
}

fn show(outcome: &(impl Serialize + Display), json: bool) -> Result<()> {
    if json { print_json(outcome) } else { print(&outcome.to_string()) }
}
