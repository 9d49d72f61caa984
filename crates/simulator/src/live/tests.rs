//! Small live worlds, checked after every step.

use super::*;
use crate::scenario::Ingest;
use std::path::Path;

fn lab(name: &str) -> Scenario {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../lab/scenarios/live");
    Scenario::read(&folder.join(format!("{name}.toml"))).unwrap()
}

/// A channel that viewers with uplinks of 1 to 6 Mbit/s watch, checked after every step.
fn small(viewers: usize, seconds: f64, change: impl FnOnce(&mut Live)) -> Scenario {
    let mut s = lab("live-24");
    (s.checks, s.arrive_within_s) = (Checks::EveryStep, 5.0);
    s.groups[0].count = viewers;
    if let Some(live) = &mut s.live {
        live.seconds = seconds;
        change(live);
    }
    s
}

/// The outcome of a world in which nothing is violated.
fn sound(scenario: &Scenario, seed: u64) -> LiveOutcome {
    let outcome = run_live(scenario, seed).unwrap();
    assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}\n{outcome}", outcome.violations);
    outcome
}

#[test]
fn everybody_sees_it_without_a_stall() {
    for seed in 1..=3 {
        let o = sound(&small(12, 40.0, |_| {}), seed);
        assert_eq!((o.viewers, o.stalls, o.media_breaks, o.never_started), (12, 0, 0, 0), "seed {seed}: {o}");
        assert!(o.continuity > 0.999 && o.start_up_p95_s.is_some_and(|s| s <= 2.0), "seed {seed}: {o}");
        assert!(o.lag_p50_s <= 1.5 && o.depth_mean >= o.depth_mean_bound * 0.8, "seed {seed}: {o}");
    }
}

/// Pieces that are published as they are made are on their way while the segment grows.
#[test]
fn progressive_ingest_has_no_bursts() {
    // Long enough that what newcomers catch up with, in either way, is less than 5 % of all.
    let lag = |ingest| sound(&small(8, 120.0, |live| live.ingest = ingest), 1).lag_p95_s;
    let (progressive, playlist) = (lag(Ingest::Push), lag(Ingest::Follow));
    assert!(progressive < playlist, "{progressive} s, and {playlist} s following a playlist");
}

/// Viewers come, leave and die: whatever happens, the state of all stays sound, and the others go on.
#[test]
fn viewers_come_and_go() {
    for seed in 1..=4 {
        let o = sound(
            &small(10, 40.0, |live| {
                live.sessions = LiveSessions::Lognormal;
                live.kill_parent_every_s = Some(8.0);
            }),
            seed,
        );
        assert!(o.killed > 0 && o.newcomers > 0, "seed {seed}: {o}");
        assert!(o.continuity > 0.95, "seed {seed}: {o}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run_on_any_number_of_threads() {
    let mut scenario = small(30, 20.0, |live| live.sessions = LiveSessions::Lognormal);
    scenario.checks = Checks::AtTheEnd;
    let on = |threads: usize| {
        let live = scenario.live.as_ref().unwrap();
        let mut world = World::new(&scenario, live, 5, None).unwrap();
        world.boxes.resize_with(threads, Outbox::default);
        world.run(|_| {});
        world.outcome()
    };
    let one = on(1);
    assert_eq!(one, on(3));
    assert_ne!(one, run_live(&scenario, 6).unwrap());
}

/// Bars of the lab's scenario, for the whole of it.
#[test]
fn the_lab_s_bars_are_met_here_too() {
    let o = sound(&lab("live-24"), 1);
    assert!(o.passed(), "{o}");
}

#[test]
fn the_deepest_of_even_trees() {
    // One tree: 1, then 2, then 4 of 7 with two children each.
    assert_eq!(depth_bound(vec![2; 7], 1, 1), (3, 17.0 / 7.0));
    assert_eq!(depth_bound(vec![9, 0, 0, 0], 1, 1), (2, 7.0 / 4.0));
    assert_eq!(depth_bound(vec![], 8, 1), (0, 0.0));
}

#[test]
fn sessions_have_the_median_of_their_distribution() {
    let mut all: Vec<u64> = (0..2001).map(|nx| session(3, nx).0).collect();
    all.sort_unstable();
    let median_s = all[1000] as f64 / 1e6;
    assert!((70.0..92.0).contains(&median_s), "{median_s} s, where 80.2 s are right");
}
