//! `headwater sim`: a scenario under virtual time.

mod report;

use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use headwater_simulator::{Baseline, Scenario, run_by, run_live_by};
use serde::Serialize;

use super::{print, print_json};
use report::Page;

/// Simulate a scenario under virtual time, and set what comes out beside its bound
///
/// The control center's and the peers' decisions are the real ones; links, joins, leaves and failures are simulated.
/// Where a scenario says so the viewers of a stream are flows, so that a million of them run in minutes.
/// The same seed gives the same run. Fails when a bar of the scenario is missed or an invariant violated.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The scenario's file; see the folder scenarios/
    #[arg(value_name = "SCENARIO")]
    scenario: PathBuf,
    /// Where its randomness starts
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Let another way decide in Headwater's place, with the same peers, links and seed, to see what it would come to
    ///
    /// client-server: everybody has all from the origin. random: a tracker names 20 members at random to whoever joins, so
    /// that each has some 40 neighbours. locality: half of those who are named are of one's own ISP. forest, for streams: a
    /// tree per substream, places taken at random, and again 4 s after a parent was lost.
    #[arg(long, value_name = "NAME", value_parser = baselines())]
    baseline: Option<Baseline>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write a page for a browser: what came out beside its bounds, and how the run went
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

fn baselines() -> impl TypedValueParser<Value = Baseline> {
    PossibleValuesParser::new(Baseline::ALL.map(Baseline::name)).try_map(|name| name.parse::<Baseline>())
}

pub async fn run(args: Args) -> Result<()> {
    let (json, seed, baseline) = (args.json, args.seed, args.baseline);
    let scenario = Scenario::read(&args.scenario)?;
    let about = scenario.about.clone();
    let report = args.report;
    report.as_deref().map(check_writable).transpose()?;
    let (missed, violated) = if scenario.live.is_some() {
        let run = move || {
            let (mut told, mut samples) = (Told::new(json), Vec::new());
            let outcome = run_live_by(baseline, &scenario, seed, |s| {
                samples.push(*s);
                told.tell(|| {
                    let (at, of, viewers, copies) = (s.at_s, s.of_s, s.viewers, s.pushed + s.fetched);
                    let fares =
                        format!("{copies:.1} copies left the source, {:.0} pieces are missing at each", s.missing);
                    format!("{at:.0} of {of:.0} s simulated; {viewers} viewers, {fares}")
                });
            });
            (outcome, samples)
        };
        let (outcome, samples) = tokio::task::spawn_blocking(run).await?;
        let outcome = outcome?;
        write(report, || Page::of_stream(about, &outcome, &samples))?;
        show(&outcome, json)?;
        (outcome.missed().count(), outcome.violations.len())
    } else {
        let run = move || {
            let (mut told, mut samples) = (Told::new(json), Vec::new());
            let outcome = run_by(baseline, &scenario, seed, |s| {
                samples.push(s.clone());
                told.tell(|| format!("{:.0} s simulated; {} have everything", s.at_s, s.complete));
            });
            (outcome, samples)
        };
        let (outcome, samples) = tokio::task::spawn_blocking(run).await?;
        let outcome = outcome?;
        write(report, || Page::of_file(about, &outcome, &samples))?;
        show(&outcome, json)?;
        (outcome.missed().count(), outcome.violations.len())
    };
    if missed > 0 || violated > 0 {
        bail!("{missed} bars missed, {violated} invariants violated");
    }
    Ok(())
}

/// The run may take long: whether the report can be written shows before it. What an earlier run wrote stays until then.
fn check_writable(path: &Path) -> Result<()> {
    let opened = File::options().append(true).create(true).open(path);
    opened.map(drop).with_context(|| format!("the report cannot be written to {}", path.display()))
}

fn write(report: Option<PathBuf>, page: impl FnOnce() -> Page) -> Result<()> {
    let Some(path) = report else { return Ok(()) };
    std::fs::write(&path, page().html()?).with_context(|| format!("the report cannot be written to {}", path.display()))
}

fn show(outcome: &(impl Serialize + Display), json: bool) -> Result<()> {
    if json { print_json(outcome) } else { print(&outcome.to_string()) }
}

/// Says on standard error now and then how far a long run is, unless its output is for a program.
struct Told(Option<Instant>);

impl Told {
    const EVERY: Duration = Duration::from_secs(5);

    fn new(json: bool) -> Told {
        Told((!json).then(Instant::now))
    }

    fn tell(&mut self, words: impl FnOnce() -> String) {
        if let Some(last) = &mut self.0
            && last.elapsed() >= Self::EVERY
        {
            *last = Instant::now();
            eprintln!("{}", words());
        }
    }
}
