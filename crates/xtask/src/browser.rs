//! Step `browser`: the SDK for pages builds and decides as `peer-core` does, and a page in Chromium plays a channel that
//! native peers bring; once with its session over WebTransport, and once over a WebSocket. And `cargo xtask pages`: all that
//! is tried with pages, as long as it takes.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::shell::{build_headwater, find_program, run};
use crate::test::Outcome;

/// How long the page is watched, and where its session needs a WebSocket.
const MINUTES: &str = "0.5";
const MINUTES_WITHOUT_QUIC: &str = "0.3";
/// How long Shaka plays.
const SHAKA_SECONDS: &str = "25";

/// All runs with pages but the long one: script and what it is given after the program.
const RUNS: [(&str, &[&str]); 10] = [
    ("run", &["3", "out/pages/plays"]),
    ("run", &["3", "out/pages/faults", "faults"]),
    ("run", &["0.5", "out/pages/blocked", "blocked"]),
    ("run", &["0.5", "out/pages/no-quic", "no-quic"]),
    ("run", &["0.5", "out/pages/no-peers", "no-peers"]),
    ("run", &["0.5", "out/pages/no-udp", "no-udp"]),
    ("senders", &["16", "out/pages/senders"]),
    ("ways", &["60", "out/pages/ways"]),
    ("file", &["500", "out/pages/file"]),
    ("file", &["16", "out/pages/hostile", "hostile"]),
];

/// Runs all that is tried with pages, then one page for so many minutes; what is written lies in `web/sdk/out/pages`.
///
/// # Errors
/// If something is missing that it needs, or a run misses a bar: all others are run nevertheless.
pub fn pages(minutes: u64) -> Result<String> {
    if let Some(program) = missing(&["node", "npm", "chromium", "ffmpeg"]) {
        bail!("no {program}: `cargo xtask test --only packages` installs what there is for Debian");
    }
    let sdk = Path::new("web/sdk");
    let npm = |arguments: &[&str]| run(Command::new("npm").args(arguments).current_dir(sdk));
    npm(&["ci", "--no-audit", "--no-fund"])?;
    npm(&["run", "build"])?;
    let headwater = build_headwater()?;
    let long = minutes.to_string();
    let long: &[&str] = &[&long, "out/pages/long"];
    let mut failed = Vec::new();
    for (script, more) in RUNS.into_iter().chain((minutes > 0).then_some(("run", long))) {
        let words = format!("{script} {}", more.join(" "));
        println!("--- {words}");
        if let Err(e) = page(&headwater, script, more) {
            println!("{e:#}");
            failed.push(words);
        }
    }
    ensure!(failed.is_empty(), "these runs missed a bar: {}", failed.join("; "));
    Ok("all bars of all runs with pages are met".into())
}

/// One run of a script of `test/browser`.
fn page(headwater: &Path, script: &str, more: &[&str]) -> Result<()> {
    let script = format!("test/browser/{script}.mjs");
    run(Command::new("node").arg(script).arg(headwater).args(more).current_dir("web/sdk"))
}

fn missing(programs: &[&'static str]) -> Option<&'static str> {
    programs.iter().copied().find(|p| find_program(p).is_none())
}

/// Builds and tests what is in `web/sdk`.
pub fn check() -> Result<Outcome> {
    if let Some(program) = missing(&["node", "npm"]) {
        return Ok(Outcome::Skipped(format!("no {program}")));
    }
    let sdk = Path::new("web/sdk");
    let npm = |arguments: &[&str]| run(Command::new("npm").args(arguments).current_dir(sdk));
    npm(&["ci", "--no-audit", "--no-fund"])?;
    // First: the build would mend a bundle that is not what the sources make.
    npm(&["test"])?;
    npm(&["run", "build"])?;
    if let Some(program) = missing(&["chromium", "ffmpeg"]) {
        return Ok(Outcome::Passed(format!("without a page: no {program}")));
    }
    let headwater = build_headwater()?;
    page(&headwater, "run", &[MINUTES])?;
    page(&headwater, "run", &[MINUTES_WITHOUT_QUIC, "out/browser/no-quic", "no-quic"])?;
    page(&headwater, "ways", &[SHAKA_SECONDS])?;
    Ok(Outcome::Passed(format!(
        "a page played for {MINUTES} min, for {MINUTES_WITHOUT_QUIC} min without QUIC, and Shaka for {SHAKA_SECONDS} s"
    )))
}
