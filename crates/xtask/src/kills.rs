//! `cargo xtask kills`: the long form of the tests that kill what writes to a piece store. Each prints what it counted, and
//! fails where a piece that is held is wrong or one that was written has to be fetched again.

use anyhow::Result;

use crate::shell::{cargo, run as run_command};

/// Size of the file that a killed `get` fetches.
const GET_MIB: u64 = 512;

/// Runs the seeds from `first_seed` on, then kills a `get` a tenth as often.
pub fn run(runs: u64, first_seed: u64) -> Result<()> {
    println!("{runs} kills and {runs} full disks from seed {first_seed}");
    let mut store = cargo(&["test", "--release", "-p", "headwater-peer", "--lib", "store::kill_tests"]);
    store.args(["--", "--nocapture", "--test-threads=1"]);
    store.env("HEADWATER_STORE_RUNS", runs.to_string()).env("HEADWATER_STORE_SEED", first_seed.to_string());
    run_command(&mut store)?;
    let mut get = cargo(&["test", "--release", "-p", "headwater", "--test", "end_to_end", "killed_again_and_again"]);
    get.args(["--", "--nocapture"]);
    get.env("HEADWATER_GET_KILLS", runs.div_ceil(10).to_string()).env("HEADWATER_GET_KILL_MIB", GET_MIB.to_string());
    run_command(&mut get)
}
