//! `cargo xtask results`: runs scenarios and `headwater bench core`, keeps what each came to, and writes `docs/results.md`
//! from all that is kept: each figure beside its bound, its bar and what others would come to.

mod figures;
mod page;
mod rows;
mod runs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::shell::{build_headwater, output};
use runs::{RUNS, Run};

/// What earlier runs came to, one file for each.
const KEPT: &str = "target/results";
/// What is written.
const PAGE: &str = "docs/results.md";
/// Ticks of `/proc/self/stat` (`USER_HZ`, which is the same on all machines).
const TICKS_PER_S: f64 = 100.0;

/// What is run and written.
pub struct Plan {
    /// Runs by name, or scenarios with their baselines; all where empty.
    pub only: Vec<String>,
    /// Also those that take long.
    pub all: bool,
    /// Runs nothing.
    pub page: bool,
    /// Program to run; built now where `None`.
    pub program: Option<PathBuf>,
    /// A folder with what the lab came to.
    pub lab: Option<PathBuf>,
}

/// A run that is kept.
#[derive(Clone, Debug)]
struct Kept {
    command: String,
    commit: String,
    /// Processor seconds, where known.
    cpu_s: Option<f64>,
    wall_s: f64,
    /// What the program printed.
    outcome: Value,
}

/// Runs what is to be run, and writes the page.
pub fn run(plan: &Plan) -> Result<String> {
    let wanted = wanted(plan)?;
    if !wanted.is_empty() {
        let program = match &plan.program {
            Some(program) => std::path::absolute(program)?,
            None => build_headwater()?,
        };
        for (n, (run, baseline)) in wanted.iter().enumerate() {
            let name = run.name_with(*baseline);
            eprintln!("{} of {}: {name}", n + 1, wanted.len());
            let kept = measure(&program, run, *baseline).with_context(|| name.clone())?;
            eprintln!("{name}: {:.0} s", kept.wall_s);
            keep(&name, &kept)?;
        }
    }
    let kept = all_kept()?;
    let lab = plan.lab.as_deref().map(lab_outcomes).transpose()?.unwrap_or_default();
    std::fs::write(PAGE, page::text(RUNS, &kept, &lab, &commit()?)?)?;
    Ok(format!("{PAGE}: {} runs of {}", kept.len(), RUNS.iter().map(|r| 1 + r.baselines.len()).sum::<usize>()))
}

/// The runs to be made now, with the baselines of each.
fn wanted(plan: &Plan) -> Result<Vec<(&'static Run, Option<&'static str>)>> {
    if plan.page {
        return Ok(Vec::new());
    }
    let every = || RUNS.iter().flat_map(|run| run.deciders().map(move |baseline| (run, baseline)));
    let is = |only: &str, run: &Run, baseline| only == run.name || only == run.name_with(baseline);
    for only in &plan.only {
        let known = || RUNS.iter().map(|r| r.name).collect::<Vec<_>>().join(", ");
        ensure!(every().any(|(run, b)| is(only, run, b)), "no run is called {only}; there are {}", known());
    }
    let chosen = |run: &Run, baseline| match plan.only.as_slice() {
        [] => plan.all || !run.is_long,
        only => only.iter().any(|only| is(only, run, baseline)),
    };
    Ok(every().filter(|(run, baseline)| chosen(run, *baseline)).collect())
}

fn measure(program: &Path, run: &Run, baseline: Option<&str>) -> Result<Kept> {
    let arguments = run.arguments(baseline);
    let (began, cpu) = (Instant::now(), cpu_of_children());
    let mut command = Command::new(program);
    let done = command.args(&arguments).stderr(Stdio::piped()).output().context("cannot run the program")?;
    let wall_s = began.elapsed().as_secs_f64();
    // A missed bar is an outcome too: the program prints it, and ends with 1.
    let Ok(outcome) = serde_json::from_slice(&done.stdout) else {
        bail!("it ended with {} and said no JSON: {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
    };
    Ok(Kept {
        command: format!("headwater {}", arguments.join(" ")),
        commit: commit()?,
        cpu_s: cpu.zip(cpu_of_children()).map(|(before, after)| after - before),
        wall_s,
        outcome,
    })
}

/// Processor seconds of all children that have ended, where the system tells.
fn cpu_of_children() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let ticks: u64 = after_name.split_whitespace().skip(13).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Some(ticks as f64 / TICKS_PER_S)
}

/// The present commit, and whether something is changed beside it.
fn commit() -> Result<String> {
    let git = |arguments: &[&str]| output(Command::new("git").args(arguments));
    let hash = git(&["rev-parse", "--short=12", "HEAD"])?.trim().to_owned();
    // The page itself is always another one than before.
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/results.md"])?;
    Ok(if changed.trim().is_empty() { hash } else { format!("{hash} with changes") })
}

fn file_of(name: &str) -> PathBuf {
    Path::new(KEPT).join(format!("{}.json", name.replace('/', ".")))
}

fn keep(name: &str, kept: &Kept) -> Result<()> {
    std::fs::create_dir_all(KEPT)?;
    let Kept { command, commit, cpu_s, wall_s, outcome } = kept;
    let all = json!({
        "command": command, "commit": commit, "cpu_s": cpu_s, "wall_s": wall_s, "outcome": outcome,
    });
    std::fs::write(file_of(name), all.to_string()).with_context(|| format!("cannot keep {name}"))
}

fn all_kept() -> Result<BTreeMap<String, Kept>> {
    let mut all = BTreeMap::new();
    for name in RUNS.iter().flat_map(|run| run.deciders().map(|b| run.name_with(b))) {
        let Ok(text) = std::fs::read_to_string(file_of(&name)) else { continue };
        let kept = kept_from(&text).with_context(|| format!("what is kept of {name}"))?;
        all.insert(name, kept);
    }
    Ok(all)
}

fn kept_from(text: &str) -> Result<Kept> {
    let mut all: Value = serde_json::from_str(text)?;
    let words = |field: &str| all.get(field).and_then(Value::as_str).map(str::to_owned).context("a field is missing");
    Ok(Kept {
        command: words("command")?,
        commit: words("commit")?,
        cpu_s: all.get("cpu_s").and_then(Value::as_f64),
        wall_s: all.get("wall_s").and_then(Value::as_f64).context("wall_s is missing")?,
        outcome: all.get_mut("outcome").map(Value::take).context("the outcome is missing")?,
    })
}

/// All outcomes in a folder of files that the lab wrote (`cargo xtask lab … --json FILE`).
fn lab_outcomes(folder: &Path) -> Result<Vec<Value>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        files.push(entry?.path());
    }
    files.retain(|f| f.extension().is_some_and(|e| e == "json"));
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let of_file: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        let Value::Array(outcomes) = of_file else { bail!("{} is not what the lab writes", file.display()) };
        all.extend(outcomes);
    }
    Ok(all)
}
