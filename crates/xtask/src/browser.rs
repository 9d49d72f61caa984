//! Step `browser`: the SDK for pages builds and decides as `peer-core` does, and a page in Chromium plays a channel that
//! native peers bring; once with its session over WebTransport, and once over a WebSocket.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::shell::{build_headwater, find_program, run};
use crate::test::Outcome;

/// How long the page is watched, and where its session needs a WebSocket.
const MINUTES: &str = "0.5";
const MINUTES_WITHOUT_QUIC: &str = "0.3";
/// How long Shaka plays.
const SHAKA_SECONDS: &str = "25";

/// Builds and tests what is in `web/sdk`.
pub fn check() -> Result<Outcome> {
    let missing = |programs: &[&'static str]| programs.iter().copied().find(|p| find_program(p).is_none());
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
    let watch = |script: &str, more: &[&str]| {
        let script = format!("test/browser/{script}.mjs");
        run(Command::new("node").arg(script).arg(&headwater).args(more).current_dir(sdk))
    };
    watch("run", &[MINUTES])?;
    watch("run", &[MINUTES_WITHOUT_QUIC, "out/browser/no-quic", "no-quic"])?;
    watch("ways", &[SHAKA_SECONDS])?;
    Ok(Outcome::Passed(format!(
        "a page played for {MINUTES} min, for {MINUTES_WITHOUT_QUIC} min without QUIC, and Shaka for {SHAKA_SECONDS} s"
    )))
}
