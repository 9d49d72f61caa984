//! `cargo xtask test`: the steps, in order, and their summary.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::shell::{cargo, run as run_command};
use crate::{browser, chaos, demo, lab, licences, pure, system_packages, words};

/// How a step ended that did not fail; the text stands in the summary.
pub enum Outcome {
    Passed(String),
    /// With what was missing.
    Skipped(String),
}

struct Step {
    name: &'static str,
    about: &'static str,
    run: fn() -> Result<Outcome>,
}

/// Cheap steps stand before dear ones, except that what needs the built program stands after the build.
const STEPS: [Step; 12] = [
    Step { name: "packages", about: "Debian packages that the tests use", run: system_packages::check },
    Step { name: "format", about: "cargo fmt --check", run: || cargo_step(cargo(&["fmt", "--all", "--check"])) },
    Step {
        name: "clippy",
        about: "cargo clippy, warnings are errors",
        run: || cargo_step(cargo(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"])),
    },
    Step {
        name: "docs",
        about: "cargo doc, warnings are errors",
        run: || {
            let mut doc = cargo(&["doc", "--release", "--workspace", "--no-deps"]);
            doc.env("RUSTDOCFLAGS", "-D warnings");
            cargo_step(doc)
        },
    },
    Step {
        name: "tests",
        about: "cargo test: unit, property, simulator and end-to-end tests",
        // Optimised, because the simulator is unusable otherwise and one profile means one build.
        run: || cargo_step(cargo(&["test", "--release", "--workspace", "--no-fail-fast"])),
    },
    Step { name: "purity", about: "dependencies of the pure crates", run: || pure::check().map(Outcome::Passed) },
    Step { name: "licences", about: "licences of all dependencies", run: licences::check },
    Step { name: "words", about: "no paths of a machine, nothing left to do", run: words::check },
    Step { name: "demo", about: "headwater demo meets its bars and leaves nothing behind", run: demo::check },
    Step { name: "browser", about: "the SDK for pages, and a page that plays a channel", run: browser::check },
    Step { name: "chaos", about: "five demo runs with a process killed", run: chaos::check },
    Step { name: "lab", about: "short scenarios on real sockets in network namespaces, as root", run: lab::check },
];

struct Report {
    step: &'static Step,
    result: Result<Outcome>,
    took: Duration,
}

/// Prints the steps.
pub fn list() {
    for step in &STEPS {
        println!("{:10} {}", step.name, step.about);
    }
}

/// Runs the steps named in `only`, or all of them when it is empty. A failed step does not stop the next one.
pub fn run(only: &[String]) -> Result<ExitCode> {
    for name in only {
        ensure!(STEPS.iter().any(|step| step.name == name), "no step `{name}`; see cargo xtask test --list");
    }
    let reports: Vec<Report> = STEPS.iter().enumerate().map(|(index, step)| run_step(index, step, only)).collect();
    let failed = summarise(&reports);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_step(index: usize, step: &'static Step, only: &[String]) -> Report {
    if !only.is_empty() && !only.iter().any(|name| name == step.name) {
        return Report { step, result: Ok(Outcome::Skipped("not asked for".into())), took: Duration::ZERO };
    }
    println!("\n=== {}/{} {}: {}", index + 1, STEPS.len(), step.name, step.about);
    let started = Instant::now();
    let result = (step.run)();
    let took = started.elapsed();
    if let Err(error) = &result {
        println!("{error:#}");
    }
    println!("=== {} {} after {:.1} s", step.name, word(&result), took.as_secs_f64());
    Report { step, result, took }
}

/// Prints the table and the line of totals; returns how many steps failed.
fn summarise(reports: &[Report]) -> usize {
    println!("\n{:10} {:8} {:>8}", "step", "result", "time");
    for Report { step, result, took } in reports {
        let note = match result {
            Ok(Outcome::Passed(note) | Outcome::Skipped(note)) => note.clone(),
            Err(error) => format!("{error:#}").lines().next().unwrap_or_default().to_owned(),
        };
        println!("{:10} {:8} {:>6.1} s  {note}", step.name, word(result), took.as_secs_f64());
    }
    let count = |wanted| reports.iter().filter(|report| word(&report.result) == wanted).count();
    let failed = count("failed");
    println!("\n{} passed, {failed} failed, {} skipped", count("passed"), count("skipped"));
    failed
}

fn word(result: &Result<Outcome>) -> &'static str {
    match result {
        Ok(Outcome::Passed(_)) => "passed",
        Ok(Outcome::Skipped(_)) => "skipped",
        Err(_) => "failed",
    }
}

fn cargo_step(mut command: std::process::Command) -> Result<Outcome> {
    run_command(&mut command)?;
    Ok(Outcome::Passed(String::new()))
}
