//! The command line.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use clap::Parser;
use headwater_lab::calibrate::Cache;
use headwater_lab::net::Net;
use headwater_lab::outcome::Outcome;
use headwater_lab::run::{Interrupted, Options, run, say};
use headwater_lab::{baseline, live, report, simulated};
use headwater_simulator::Scenario;

const NOT_ALL_BARS_MET: u8 = 1;
const CANNOT: u8 = 2;
const INTERRUPTED: u8 = 130;
/// Its name has it run with other software beside Headwater.
const BASELINE: &str = "baseline";

/// Run scenarios in the lab: real binaries in network namespaces behind shaped links, NATs and firewalls
///
/// Needs root. Prints one JSON object per scenario on standard output, progress on standard error. Exit status: 0 all bars
/// met, 1 not, 2 it could not run, 130 interrupted.
#[derive(Parser, Debug)]
#[command(after_long_help = "\
Examples:
  headwater-lab lab/scenarios/two-isps.toml --report two-isps.html
  headwater-lab --short
  headwater-lab --all --json all.json --report all.html")]
struct Args {
    /// Scenario files
    #[arg(value_name = "SCENARIO.toml")]
    scenarios: Vec<PathBuf>,
    /// All scenarios in the folder
    #[arg(long)]
    all: bool,
    /// The short ones, in its folder `short`
    #[arg(long)]
    short: bool,
    /// The long ones, in its folder `nightly`
    #[arg(long)]
    nightly: bool,
    /// Folder of scenarios
    #[arg(long, value_name = "DIR", default_value = "lab/scenarios")]
    folder: PathBuf,
    /// Say which scenarios would run, and run none
    #[arg(long)]
    list: bool,
    /// Remove what dead labs left behind, and run none
    #[arg(long)]
    sweep: bool,
    /// Decides what is random
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Folder of the binaries headwater and headwater-hostile [default: where this binary is]
    #[arg(long, value_name = "DIR")]
    bin: Option<PathBuf>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write all outcomes with their series over time
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave logs and files, and say where
    #[arg(long)]
    keep_files: bool,
    /// Take this for goodput over line rate instead of measuring it
    #[arg(long, value_name = "FACTOR", value_parser = share)]
    no_calibration: Option<f64>,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("a number above 0, at most 1".into()),
    }
}

/// Runs the command.
pub fn main() -> ExitCode {
    let args = Args::parse();
    match all(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_ALL_BARS_MET),
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("interrupted: everything is taken down");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("headwater-lab: {error:#}");
            ExitCode::from(CANNOT)
        }
    }
}

/// Whether all bars of all scenarios were met.
fn all(args: &Args) -> Result<bool> {
    if args.sweep {
        println!("{} namespaces removed", Net::sweep());
        return Ok(true);
    }
    let files = files(args)?;
    let mut scenarios = Vec::new();
    for file in &files {
        scenarios.push(Scenario::read(file)?);
    }
    if args.list {
        for (file, scenario) in files.iter().zip(&scenarios) {
            println!("{}  {}", file.display(), scenario.about);
        }
        return Ok(true);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("the lab makes network namespaces and devices: run it as root (sudo -E)");
    }
    let options = options(args)?;
    let mut cache = Cache::default();
    let (mut outcomes, mut pass) = (Vec::new(), true);
    for scenario in &scenarios {
        let ran = match (scenario.name.as_str(), &scenario.live) {
            (BASELINE, _) => baseline::run(scenario, &options, &mut cache),
            (_, Some(channel)) => live::run(scenario, channel, &options, &mut cache),
            _ if simulated::too_large(scenario) => {
                say(&scenario.name, "more hosts than the lab builds: in the simulator");
                simulated::run(scenario, options.seed)
            }
            _ => run(scenario, &options, &mut cache),
        };
        match ran {
            Ok(outcome) => {
                pass &= outcome.pass;
                tell(&outcome)?;
                outcomes.push(outcome);
            }
            Err(error) if error.is::<Interrupted>() => return Err(error),
            // One that cannot run does not keep the others from running.
            Err(error) if scenarios.len() > 1 => {
                pass = false;
                say(&scenario.name, &format!("FAILED: {error:#}"));
            }
            Err(error) => return Err(error.context(scenario.name.clone())),
        }
    }
    if let Some(path) = &args.json {
        write(path, &serde_json::to_string(&outcomes)?)?;
    }
    if let Some(path) = &args.report {
        write(path, &report::page(&outcomes))?;
    }
    Ok(pass)
}

fn files(args: &Args) -> Result<Vec<PathBuf>> {
    let mut files = args.scenarios.clone();
    let sets = [(args.all, ""), (args.short, "short"), (args.nightly, "nightly")];
    for (_, set) in sets.into_iter().filter(|(wanted, _)| *wanted) {
        let folder = args.folder.join(set);
        let read = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut found: Vec<PathBuf> = read.filter_map(|entry| Some(entry.ok()?.path())).collect();
        found.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        found.sort();
        files.extend(found);
    }
    if files.is_empty() {
        bail!("which scenarios? Give files, or --all, --short or --nightly");
    }
    Ok(files)
}

fn options(args: &Args) -> Result<Options> {
    let own = || std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned()));
    let programs = args.bin.clone().or_else(own).context("say with --bin where Headwater's binaries are")?;
    let programs = std::path::absolute(programs)?;
    if !programs.join("headwater").is_file() {
        bail!("there is no headwater in {}: cargo build --release, or say where with --bin", programs.display());
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    heed_signals(Arc::clone(&interrupted))?;
    let (keep_files, assumed_factor) = (args.keep_files, args.no_calibration);
    Ok(Options { seed: args.seed, programs, keep_files, assumed_factor, interrupted })
}

/// The first signal asks for everything to be taken down, the second ends the process at once.
fn heed_signals(interrupted: Arc<AtomicBool>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
            let (Ok(mut interrupt), Ok(mut terminate)) = signals else { return };
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if interrupted.swap(true, Ordering::Relaxed) {
                    std::process::exit(i32::from(INTERRUPTED));
                }
            }
        });
    });
    Ok(())
}

/// One object on a line, without what only a page needs; and the bars in words.
fn tell(outcome: &Outcome) -> Result<()> {
    let mut told = serde_json::to_value(outcome)?;
    if let Some(object) = told.as_object_mut() {
        object.remove("series");
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{told}")?;
    out.flush()?;
    for bar in &outcome.bars {
        let number = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.3}"));
        let verdict = if bar.pass { "met   " } else { "MISSED" };
        let text = format!("{verdict} {:20} {:>10} of {:.3}  {}", bar.name, number(bar.value), bar.bound, bar.note);
        say(&outcome.scenario, &text);
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
