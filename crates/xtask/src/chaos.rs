//! `cargo xtask chaos`: demos in which a process is killed. Everything random in a run follows from its seed, so that
//! `--runs 1 --seed N` replays run N, as far as the machine's own timing allows.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::demo_driver::{Driver, Sandbox};
use crate::shell::build_headwater;
use crate::test::Outcome;

/// The demo starts the first three again after 2 s, the others not.
const PROCESSES: [&str; 11] =
    ["control", "origin", "waypoint", "peer-1", "peer-2", "peer-3", "peer-4", "peer-5", "peer-6", "light-1", "light-2"];
const FILE_SIZE: &str = "32MiB";
/// A run without a fault takes a few seconds, so that faults fall into start, transfer and end.
const KILL_WITHIN_MILLIS: u64 = 4_000;
/// For a run, with whatever the fault costs.
const RUN_MAX: Duration = Duration::from_secs(90);
/// In which children must notice that their driver is gone.
const ORPHANS_MAX: Duration = Duration::from_secs(10);
/// Every seed that this divides kills the driver instead of one of its processes.
const DRIVER_EVERY: u64 = 5;

/// Step `chaos`: the short form.
pub fn check() -> Result<Outcome> {
    if !cfg!(target_os = "linux") {
        return Ok(Outcome::Skipped("the demo's processes are found through /proc".into()));
    }
    run(5, 1).map(Outcome::Passed)
}

/// Runs the seeds from `first_seed` on. Goes on after a failure; the error counts them.
pub fn run(runs: u64, first_seed: u64) -> Result<String> {
    let headwater = build_headwater()?;
    let mut failed = 0;
    for seed in (0..runs).map(|index| first_seed.wrapping_add(index)) {
        let fault = Fault::from_seed(seed);
        let result = fault.inflict(&headwater);
        match result {
            Ok(note) => println!("seed {seed}: {fault}: {note}"),
            Err(error) => {
                failed += 1;
                println!("seed {seed}: {fault}: FAILED: {error:#}");
                println!("replay with: cargo xtask chaos --runs 1 --seed {seed}");
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {runs} runs failed, first seed {first_seed}");
    }
    Ok(format!("{runs} runs, first seed {first_seed}"))
}

/// What is killed in a run, and when.
#[derive(Debug, PartialEq)]
enum Fault {
    /// After the demo's start.
    Process { name: &'static str, millis: u64 },
    /// After it has started its children.
    Driver { millis: u64 },
}

impl std::fmt::Display for Fault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Fault::Process { name, millis } => write!(formatter, "kill {name} at {millis} ms"),
            Fault::Driver { millis } => write!(formatter, "kill the driver {millis} ms after its children's start"),
        }
    }
}

impl Fault {
    fn from_seed(seed: u64) -> Fault {
        let mut random = SplitMix64(seed);
        let millis = random.below(KILL_WITHIN_MILLIS);
        if seed.is_multiple_of(DRIVER_EVERY) {
            return Fault::Driver { millis };
        }
        let index = random.below(PROCESSES.len() as u64) as usize;
        Fault::Process { name: PROCESSES[index], millis }
    }

    /// A demo that ends before the moment has met no fault; then it is run again with half the time.
    fn inflict(&self, headwater: &Path) -> Result<String> {
        let sandbox = Sandbox::new()?;
        let (Fault::Process { millis: drawn, .. } | Fault::Driver { millis: drawn }) = *self;
        let mut millis = drawn;
        loop {
            let moment = Duration::from_millis(millis);
            let note = match self {
                Fault::Process { name, .. } => kill_process(headwater, &sandbox, name, moment)?,
                Fault::Driver { .. } => kill_driver(headwater, &sandbox, moment)?,
            };
            match note {
                Some(note) if millis == drawn => return Ok(note),
                Some(note) => return Ok(format!("ended before that, so killed at {millis} ms; {note}")),
                None if millis == 0 => bail!("the demo ends as soon as it starts"),
                None => millis /= 2,
            }
        }
    }
}

/// The demo itself kills the process, starts it again if that is its way, and must end well. `None`: ended before.
fn kill_process(headwater: &Path, sandbox: &Sandbox, name: &str, moment: Duration) -> Result<Option<String>> {
    let mut command = demo(headwater);
    command.args(["--kill", &format!("{name}@{}", moment.as_millis())]);
    let (finished, took) = run_to_end(command, sandbox)?;
    Ok((took > moment).then(|| format!("all {finished} survivors finished, {:.1} s", took.as_secs_f64())))
}

/// The driver dies: its children end by themselves, and the next demo removes the folder that it left. `None`: ended
/// before.
fn kill_driver(headwater: &Path, sandbox: &Sandbox, moment: Duration) -> Result<Option<String>> {
    let mut driver = Driver::start(demo(headwater), sandbox)?;
    if !driver.wait_for_children(1, RUN_MAX)? {
        driver.wait(RUN_MAX)?.json()?;
        bail!("the demo ended without a child that carries our mark");
    }
    if driver.ends_within(moment)? {
        driver.wait(RUN_MAX)?.json()?;
        return Ok(None);
    }
    driver.kill()?;
    let gone = driver.ensure_no_processes(ORPHANS_MAX)?;
    let (finished, took) = run_to_end(demo(headwater), sandbox).context("in the demo after it")?;
    let (gone, took) = (gone.as_secs_f64(), took.as_secs_f64());
    Ok(Some(format!("children gone in {gone:.1} s; next demo: all {finished} finished, {took:.1} s")))
}

/// A demo that must end well and leave nothing; returns how many finished and how long the whole command took.
fn run_to_end(command: Command, sandbox: &Sandbox) -> Result<(u64, Duration)> {
    let mut driver = Driver::start(command, sandbox)?;
    let ended = driver.wait(RUN_MAX)?;
    let finished = finished(&ended.json()?).with_context(|| format!("in\n{}{}", ended.stdout, ended.stderr))?;
    driver.ensure_no_processes(ORPHANS_MAX)?;
    sandbox.ensure_no_folders()?;
    Ok((finished, ended.took))
}

fn demo(headwater: &Path) -> Command {
    let mut command = Command::new(headwater);
    command.args(["demo", "--json", "--file-size", FILE_SIZE]);
    command
}

/// How many finished, if all that lived to the end did and all that they hold is right.
fn finished(json: &Value) -> Result<u64> {
    let count = |name: &str| json[name].as_u64().with_context(|| format!("the demo's JSON has no count `{name}`"));
    let (finished, survivors) = (count("finished")?, count("survivors")?);
    ensure!(json["verified"] == true, "a received file differs from the published one");
    ensure!(finished == survivors && finished > 0, "{finished} of {survivors} survivors finished");
    Ok(finished)
}

/// Sebastiano Vigna's splitmix64: small, and any seed is as good as another.
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_replays_and_every_process_has_its_turn() {
        let mut killed = BTreeSet::new();
        for seed in 1..=500 {
            let fault = Fault::from_seed(seed);
            assert_eq!(fault, Fault::from_seed(seed));
            let (name, millis) = match fault {
                Fault::Process { name, millis } => (name, millis),
                Fault::Driver { millis } => ("driver", millis),
            };
            assert_eq!(name == "driver", seed % 5 == 0);
            assert!(millis < KILL_WITHIN_MILLIS);
            killed.insert(name);
        }
        assert_eq!(killed.len(), PROCESSES.len() + 1);
    }

    #[test]
    fn all_survivors_must_finish_with_the_right_bytes() {
        let cases = [
            (r#"{"verified": true, "finished": 7, "survivors": 7}"#, true),
            (r#"{"verified": true, "finished": 6, "survivors": 7}"#, false),
            (r#"{"verified": true, "finished": 0, "survivors": 0}"#, false),
            (r#"{"verified": false, "finished": 7, "survivors": 7}"#, false),
            (r#"{"verified": true, "finished": 7}"#, false),
        ];
        for (json, passes) in cases {
            assert_eq!(finished(&serde_json::from_str(json).unwrap()).is_ok(), passes, "{json}");
        }
    }
}
