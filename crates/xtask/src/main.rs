//! `cargo xtask`: what the project automates, a file per command or step. Start with `test.rs`.
#![allow(
    clippy::disallowed_methods,
    reason = "the list in clippy.toml is for the pure crates; this one runs programs, times them and waits for them"
)]

mod bench_serve;
mod browser;
mod chaos;
mod demo;
mod demo_driver;
mod kills;
mod lab;
mod licences;
mod pure;
mod results;
mod shell;
mod soak;
mod spdx;
mod system_packages;
mod test;
mod words;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Headwater's automation")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything a change must pass, in order; installs what it needs where it may
    Test {
        /// Run this step only (may be given several times)
        #[arg(long, value_name = "STEP")]
        only: Vec<String>,
        /// List the steps and what each checks
        #[arg(long)]
        list: bool,
    },
    /// Compare what the pure crates depend on with the committed lists
    Pure {
        /// Rewrite the lists instead
        #[arg(long)]
        write: bool,
    },
    /// Kill a random process of the demo at a random moment, many times
    Chaos {
        /// How many runs; each takes the next seed
        #[arg(long, default_value_t = 50)]
        runs: u64,
        /// Seed of the first run; taken from the clock when absent
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Minutes of random use on real sockets: joins, leaves, kills, contents that come, change and go; nothing may grow
    Soak {
        /// How long
        #[arg(long, default_value_t = 30)]
        minutes: u64,
        /// What is random follows from it; taken from the clock when absent
        #[arg(long)]
        seed: Option<u64>,
        /// The `headwater` to run, instead of one that is built now
        #[arg(long, value_name = "PATH")]
        program: Option<std::path::PathBuf>,
        /// Where to write all measures, as comma-separated values
        #[arg(long, value_name = "PATH")]
        measures: Option<std::path::PathBuf>,
    },
    /// All that is tried with pages in Chromium: faults, what a network blocks, liars, large files, and one page for long
    Pages {
        /// How long the last page plays; 0 for none
        #[arg(long, default_value_t = 60)]
        minutes: u64,
    },
    /// Kill what writes to a piece store at random moments, fill a small disk, and kill a `get`: what is held must be right
    Kills {
        /// How often a writing process is killed; a tenth as often a `get`
        #[arg(long, default_value_t = 200)]
        runs: u64,
        /// Seed of the first run; taken from the clock when absent
        #[arg(long)]
        seed: Option<u64>,
    },
    /// What serving costs a waypoint beside nginx with TLS and rqbit: bytes per CPU-second, memory per child
    BenchServe {
        /// Numbers of children
        #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,10,200")]
        children: Vec<usize>,
        /// Runs of each sender, after one that is not counted
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// MiB that a sender sends in a run, all children together
        #[arg(long, default_value_t = 1024)]
        mib: u64,
        /// Also both ends' cost of a real `get` beside curl, each writing a file
        #[arg(long)]
        receivers: bool,
    },
    /// Run scenarios, with baselines beside, and what decisions cost, and write docs/results.md from what they came to
    #[command(after_help = RESULTS_EXAMPLES)]
    Results {
        /// Only this scenario with its baselines, or one of these as SCENARIO/BASELINE or SCENARIO/headwater; may be given
        /// several times. What earlier runs came to is kept in target/results, so that the page has all of them
        #[arg(long, value_name = "NAME")]
        only: Vec<String>,
        /// Also what takes long: 10,000 viewers of a stream, a million decisions
        #[arg(long, conflicts_with = "only")]
        all: bool,
        /// Run nothing: write the page from what is kept
        #[arg(long, conflicts_with_all = ["only", "all"])]
        page: bool,
        /// The `headwater` to run, instead of one that is built now
        #[arg(long, value_name = "PATH")]
        program: Option<std::path::PathBuf>,
        /// A folder with what `cargo xtask lab … --json FILE` wrote: its bars get a table, too
        #[arg(long, value_name = "DIR")]
        lab: Option<std::path::PathBuf>,
    },
    /// Build the lab and what it runs, then run it: real hosts, links, NATs, failures and liars (Linux, root)
    #[command(disable_help_flag = true)]
    Lab {
        /// Scenario files or options of `headwater-lab`; `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
}

const RESULTS_EXAMPLES: &str = "\
Examples:
  cargo xtask results                                # all but the longest: about half an hour
  cargo xtask results --only live-1000               # Headwater and its baselines, for the page that stands
  cargo xtask results --only live-1000/headwater     # without the baselines
  cargo xtask results --page --lab target/lab        # with what the lab wrote there

One run after the other; each says what it is and how long it took. A missed bar is no failure here: the page says it.
A run whose figure is missing is an error, which names both.";

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<ExitCode> {
    // Every path below is relative to the root of the repository.
    std::env::set_current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))?;
    match task {
        Task::Test { list: true, .. } => test::list(),
        Task::Test { only, .. } => return test::run(&only),
        Task::Lab { arguments } => return lab::run(&arguments),
        Task::Pure { write: true } => pure::write()?,
        Task::Pure { write: false } => println!("{}", pure::check()?),
        Task::BenchServe { children, runs, mib, receivers } => {
            println!("{}", bench_serve::run(&bench_serve::Plan { children, runs, mib, receivers })?);
        }
        Task::Kills { runs, seed } => kills::run(runs, seed.unwrap_or_else(seed_from_clock))?,
        Task::Soak { minutes, seed, program, measures } => {
            let seed = seed.unwrap_or_else(seed_from_clock);
            println!("{}", soak::run(soak::Plan { minutes, seed, program, measures })?);
        }
        Task::Results { only, all, page, program, lab } => {
            println!("{}", results::run(&results::Plan { only, all, page, program, lab })?);
        }
        Task::Pages { minutes } => println!("{}", browser::pages(minutes)?),
        Task::Chaos { runs, seed } => {
            println!("{}", chaos::run(runs, seed.unwrap_or_else(seed_from_clock))?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A seed short enough to be typed again.
fn seed_from_clock() -> u64 {
    UNIX_EPOCH.elapsed().map_or(1, |since| u64::from(since.subsec_micros()))
}
