//! The rows of the file benchmark: 256 MiB in 64 KiB pieces to 16, 200 and 2,000 peers at once, each against its bound.
#![expect(clippy::unwrap_used, reason = "a test ends where a scenario cannot be run")]

use headwater_simulator::{Outcome, sim_command};
use std::path::Path;

fn row(name: &str) -> Outcome {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let outcome = sim_command(&scenarios.join(format!("file-{name}.toml")), 1).unwrap();
    println!("{outcome}");
    assert!(outcome.passed(), "{outcome}");
    assert_eq!(outcome.lightweight_pairs, 0);
    outcome
}

#[test]
fn sixteen_peers() {
    for name in ["16-equal", "16-equal-dial-only", "16-mixed", "16-mixed-dial-only"] {
        row(name);
    }
}

#[test]
fn two_hundred_peers() {
    for name in ["200-equal", "200-equal-dial-only", "200-mixed", "200-mixed-dial-only"] {
        row(name);
    }
}

/// The hardest of the four with 2,000 peers; the others take as long and are run by hand.
#[test]
fn two_thousand_peers() {
    row("2000-mixed-dial-only");
}

/// A content whose origin trickles slows no other one down.
#[test]
fn several_contents() {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let outcome = sim_command(&scenarios.join("several-contents.toml"), 1).unwrap();
    println!("{outcome}");
    assert!(outcome.passed(), "{outcome}");
    assert_eq!(outcome.complete_also, [24], "the slow one is slow, and arrives");
}

/// The model behind them: waypoints by HTTPS, sites, arrivals one by one.
#[test]
fn scenarios_of_the_lab_meet_their_bars_here_too() {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../lab/scenarios");
    for name in ["two-isps", "limited-sources", "enterprise", "one-by-one"] {
        let outcome = sim_command(&scenarios.join(format!("{name}.toml")), 1).unwrap();
        assert!(outcome.passed(), "{outcome}");
    }
}
