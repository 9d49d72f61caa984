//! `headwater sim`: a scenario under virtual time.

use std::path::PathBuf;

use anyhow::{Result, bail};
use headwater_simulator::sim_command;

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
    let outcome = tokio::task::spawn_blocking(move || sim_command(&args.scenario, args.seed)).await??;
    if args.json {
        print_json(&outcome)?;
    } else {
        print(&outcome.to_string())?;
    }
    if !outcome.passed() {
        bail!("{} bars missed, {} invariants violated", outcome.missed().count(), outcome.violations.len());
    }
    Ok(())
}
