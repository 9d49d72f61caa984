//! `headwater bench`: how much the control center's decisions cost, each figure beside what it must reach.

mod clock;
mod crowd;
mod figures;
mod file;
mod live;
mod optimum;
mod population;

use anyhow::{Result, ensure};
use clap::{Subcommand, ValueEnum};
use headwater_model::Rate;
use serde::Serialize;

use crate::commands::{print, print_json};
use crate::units::{decimal_count, parse_rate};
use figures::Figure;

/// More nodes than this have no addresses of their own.
const MAX_PEERS: u64 = 4_000_000;

/// Measure what decisions cost, and set it beside what it must be
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure the control center's decisions: joins, edges, heartbeats, repair, memory
    ///
    /// Drives the control center's real decisions in this process, in one thread, under virtual time: no sockets, no
    /// messages on a wire. For each number of peers a crowd comes within ten virtual seconds, uplinks, NATs and regions as
    /// in life, all drawn from a seed; then each member's heartbeat comes once, some leave, and some lose a parent.
    /// Once to a live stream in 8 substreams, once to a file of 1 GiB. Beside that, how near trees of 40 viewers come to
    /// the best rate that a linear program finds.
    ///
    /// Times are CPU time of the thread. LIMIT and GOAL are those of the project's list of benchmarks, by its ROW; RATIO
    /// is value / limit, or the other way round, so that more than 1.00 is better than must be. Memory is what the process
    /// holds of the system's (its resident set) after free memory was given back, less what it held at the start; known
    /// on Linux only. A million peers need about 8 GB.
    #[command(after_help = EXAMPLES)]
    Core(CoreArgs),
}

const EXAMPLES: &str = "\
Examples:
  headwater bench core                                # 10k and 100k peers: about half a minute
  headwater bench core --peers 1M --content live
  headwater bench core --peers 10k --rate 40Mbit/s    # a stream for which uplinks hardly suffice
  perf record -g headwater bench core --peers 100k    # where the time goes";

#[derive(Debug, clap::Args)]
pub struct CoreArgs {
    /// How many peers come, one run for each number
    #[arg(long, value_name = "N,...", default_value = "10k,100k", value_delimiter = ',', value_parser = peers)]
    peers: Vec<u32>,
    /// What they come for [default: both, one after the other]
    #[arg(long, value_name = "KIND")]
    content: Option<Kind>,
    /// Rate of the live stream; peers' uplinks are 49 Mbit/s on average
    #[arg(long, value_name = "RATE", default_value = "2Mbit/s", value_parser = parse_rate)]
    rate: Rate,
    /// Where randomness starts: the same seed gives the same decisions
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Kind {
    /// A live stream
    Live,
    /// A file
    File,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    seed: u64,
    clock: &'static str,
    figures: Vec<Figure>,
}

fn peers(text: &str) -> Result<u32, String> {
    let n = decimal_count(text)?;
    if (100..=MAX_PEERS).contains(&n) { Ok(n as u32) } else { Err(format!("from 100 to {MAX_PEERS}")) }
}

/// Runs `command` to its end.
///
/// # Errors
/// What went wrong.
pub async fn run(command: BenchCommand) -> Result<()> {
    let BenchCommand::Core(args) = command;
    let json = args.json;
    let report = tokio::task::spawn_blocking(move || core(args)).await??;
    if json { print_json(&report) } else { print(&figures::lines(report.clock, &report.figures)) }
}

fn core(args: CoreArgs) -> Result<Report> {
    let mut figures = Vec::new();
    if args.content != Some(Kind::File) {
        optimum::measure(args.seed, &mut figures)?;
    }
    for n in args.peers {
        if args.content != Some(Kind::File) {
            live::measure(n, args.rate, args.seed, &mut figures)?;
        }
        if args.content != Some(Kind::Live) {
            file::measure(n, args.seed, &mut figures)?;
        }
    }
    ensure!(!figures.is_empty(), "nothing was measured");
    Ok(Report { seed: args.seed, clock: clock::NAME, figures })
}
