//! The thousand seeds: small worlds where everything goes wrong, with every invariant checked after every step.
#![expect(clippy::unwrap_used, reason = "a test ends where a scenario cannot be run")]

use headwater_simulator::{long_world, run, small_world};
use std::sync::atomic::{AtomicU64, Ordering};

const SEEDS: u64 = 1000;

fn problems(seed: u64) -> Option<String> {
    let scenario = small_world(seed);
    let outcome = run(&scenario, seed).unwrap();
    (!outcome.violations.is_empty()).then(|| {
        format!(
            "seed {seed}: {}\nreplay: HEADWATER_SEED={seed} cargo test --release -p headwater-simulator --test worlds -- --nocapture\n{scenario:#?}\n{outcome}",
            outcome.violations[0]
        )
    })
}

#[test]
fn no_invariant_is_violated_whatever_goes_wrong() {
    if let Ok(seed) = std::env::var("HEADWATER_SEED") {
        if let Some(problems) = problems(seed.parse().unwrap()) {
            panic!("{problems}");
        }
        return;
    }
    let next = AtomicU64::new(1);
    let work = || {
        let seeds = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|s| *s <= SEEDS));
        seeds.filter_map(problems).collect::<Vec<_>>()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failed: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "{} of {SEEDS} worlds failed; the first:\n{}", failed.len(), failed[0]);
}

/// Hours of random use of several contents; how much the cores keep every ten minutes.
fn random_use(seed: u64, hours: f64) -> Vec<usize> {
    let outcome = run(&long_world(seed, hours), seed).unwrap();
    println!("seed {seed}: {} events, lines of state {:?}", outcome.events, outcome.state_lines);
    assert!(outcome.violations.is_empty(), "seed {seed}: {}", outcome.violations[0]);
    assert!(outcome.passed(), "{outcome}");
    outcome.state_lines
}

#[test]
fn twenty_minutes_of_random_use_of_several_contents() {
    (1..=3).for_each(|seed| drop(random_use(seed, 1.0 / 3.0)));
}

/// What is kept of nodes that are gone is kept for an hour: from then on nothing may grow.
#[test]
#[ignore = "eight hours of virtual time take minutes: cargo test --release -p headwater-simulator --test worlds -- --ignored --nocapture"]
fn eight_hours_of_random_use_leave_nothing_behind() {
    let seed = std::env::var("HEADWATER_SEED").map_or(1, |seed| seed.parse().unwrap());
    let lines = random_use(seed, 8.0);
    // Much more is kept for the moments in which something is fetched: the median does not mind.
    let median = |lines: &[usize]| {
        let mut lines = lines.to_vec();
        lines.sort_unstable();
        lines[lines.len() / 2] as f64
    };
    let (early, late) = (median(&lines[6..18]), median(&lines[lines.len() - 12..]));
    println!("median of hours 2 and 3: {early}, of the last two: {late}, ratio {:.3}", late / early);
    assert!(late <= 1.1 * early, "what the cores keep grew from {early:.0} to {late:.0} lines");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 2, 3] {
        let scenario = small_world(seed);
        assert_eq!(run(&scenario, seed).unwrap(), run(&scenario, seed).unwrap());
    }
}
