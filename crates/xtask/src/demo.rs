//! Step `demo`: the demo of the README keeps what the README says of it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::demo_driver::{Driver, Sandbox};
use crate::shell::build_headwater;
use crate::test::Outcome;

/// Whole copies of the content that may leave the origin: one, and what is fetched twice at the start.
const ORIGIN_COPIES_MAX: f64 = 1.3;
/// How far the time to the last receiver's completion may be above the lower bound of these links.
const MAKESPAN_OVER_BOUND_MAX: f64 = 1.4;
/// For the whole command, from its start to its exit.
const DEMO_MAX: Duration = Duration::from_secs(60);
/// Processes of the demo are its children, so that they end before it or with it.
const AFTER_EXIT_MAX: Duration = Duration::from_secs(1);

/// Runs the default demo once and holds it against the bars.
pub fn check() -> Result<Outcome> {
    if !cfg!(target_os = "linux") {
        return Ok(Outcome::Skipped("the demo's processes are found through /proc".into()));
    }
    let sandbox = Sandbox::new()?;
    let mut command = Command::new(build_headwater()?);
    command.args(["demo", "--json"]);
    let mut driver = Driver::start(command, &sandbox)?;
    let ended = driver.wait(DEMO_MAX)?;
    let figures = Figures::from_json(&ended.json()?)?;
    let (complaints, summary) = (figures.complaints(), figures.summary());
    println!("{}\nwhole command {:.1} s", figures.table(), ended.took.as_secs_f64());
    if !complaints.is_empty() {
        // What it printed every second says where the time went.
        bail!("{}\n{}", complaints.join("; "), ended.stderr);
    }
    driver.ensure_no_processes(AFTER_EXIT_MAX)?;
    sandbox.ensure_no_folders()?;
    Ok(Outcome::Passed(summary))
}

/// What `headwater demo --json` prints.
#[derive(Debug)]
struct Figures {
    content_bytes: u64,
    receivers: u64,
    origin_bytes: u64,
    waypoint_bytes: u64,
    peer_bytes: u64,
    origin_copies: f64,
    makespan_s: f64,
    bound_s: f64,
    lightweight_pairs: u64,
    verified: bool,
}

impl Figures {
    fn from_json(json: &Value) -> Result<Figures> {
        let field = |name: &str| json.get(name).with_context(|| format!("the demo's JSON lacks `{name}`"));
        let count = |name| field(name)?.as_u64().with_context(|| format!("`{name}` is not a count"));
        let number = |name| field(name)?.as_f64().with_context(|| format!("`{name}` is not a number"));
        Ok(Figures {
            content_bytes: count("content_bytes")?,
            receivers: count("receivers")?,
            origin_bytes: count("origin_bytes")?,
            waypoint_bytes: count("waypoint_bytes")?,
            peer_bytes: count("peer_bytes")?,
            origin_copies: number("origin_copies")?,
            makespan_s: number("makespan_s")?,
            bound_s: number("bound_s")?,
            lightweight_pairs: count("lightweight_pairs")?,
            verified: field("verified")?.as_bool().context("`verified` is neither true nor false")?,
        })
    }

    fn ratio(&self) -> f64 {
        self.makespan_s / self.bound_s
    }

    /// One sentence for every bar that is missed.
    fn complaints(&self) -> Vec<String> {
        let bars = [
            (self.receivers > 0 && self.content_bytes > 0, "nobody received anything".to_owned()),
            (self.verified, "a received file differs from the published one".to_owned()),
            (
                self.origin_copies <= ORIGIN_COPIES_MAX,
                format!("{:.2} copies left the origin, at most {ORIGIN_COPIES_MAX} may", self.origin_copies),
            ),
            (self.lightweight_pairs == 0, format!("{} pairs of lightweight peers", self.lightweight_pairs)),
            (self.bound_s > 0.0, "the bound is not a time".to_owned()),
            (
                self.makespan_s <= MAKESPAN_OVER_BOUND_MAX * self.bound_s,
                format!("{:.2} times the bound, at most {MAKESPAN_OVER_BOUND_MAX} may be", self.ratio()),
            ),
        ];
        bars.into_iter().filter(|(met, _)| !met).map(|(_, complaint)| complaint).collect()
    }

    fn summary(&self) -> String {
        format!("{:.2} origin copies, {:.1} s, {:.2} x bound", self.origin_copies, self.makespan_s, self.ratio())
    }

    fn table(&self) -> String {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let lines = [
            format!("content    {:9.1} MiB to {} receivers", mebibytes(self.content_bytes), self.receivers),
            format!("origin     {:9.1} MiB, {:.2} copies", mebibytes(self.origin_bytes), self.origin_copies),
            format!("waypoint   {:9.1} MiB", mebibytes(self.waypoint_bytes)),
            format!("peers      {:9.1} MiB", mebibytes(self.peer_bytes)),
            format!("makespan   {:9.2} s", self.makespan_s),
            format!("bound      {:9.2} s, ratio {:.2}", self.bound_s, self.ratio()),
            format!("verified   {:>9}", self.verified),
            format!("lightweight pairs {:2}", self.lightweight_pairs),
        ];
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sample in which every bar is just met.
    fn sample() -> Value {
        serde_json::json!({
            "content_bytes": 268_435_456, "receivers": 8, "origin_bytes": 348_966_092, "waypoint_bytes": 400_000_000,
            "peer_bytes": 1_398_517_556, "origin_copies": 1.3, "makespan_s": 14.0, "bound_s": 10.0,
            "lightweight_pairs": 0, "verified": true,
        })
    }

    #[test]
    fn each_bar_is_held() {
        assert_eq!(Figures::from_json(&sample()).unwrap().complaints(), Vec::<String>::new());
        let misses = [
            ("verified", false.into(), "differs"),
            ("origin_copies", 1.31.into(), "1.31 copies"),
            ("lightweight_pairs", 1.into(), "1 pairs"),
            ("makespan_s", 14.1.into(), "1.41 times"),
            ("bound_s", 0.0.into(), "not a time"),
            ("receivers", 0.into(), "nobody"),
        ];
        for (key, value, expected) in misses {
            let mut json = sample();
            json[key] = value;
            let complaints = Figures::from_json(&json).unwrap().complaints();
            assert!(complaints.iter().any(|complaint| complaint.contains(expected)), "{key}: {complaints:?}");
        }
    }

    #[test]
    fn a_key_that_is_absent_or_of_another_type_is_named() {
        for key in sample().as_object().unwrap().keys() {
            let mut absent = sample();
            absent.as_object_mut().unwrap().remove(key);
            assert!(Figures::from_json(&absent).unwrap_err().to_string().contains(key));
            let mut text = sample();
            text[key] = "8".into();
            assert!(Figures::from_json(&text).unwrap_err().to_string().contains(key));
        }
    }
}
