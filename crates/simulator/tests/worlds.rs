//! The thousand seeds: small worlds where everything goes wrong, with every invariant checked after every step.
#![expect(clippy::unwrap_used, reason = "a test ends where a scenario cannot be run")]

use headwater_simulator::{run, small_world};
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

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 2, 3] {
        let scenario = small_world(seed);
        assert_eq!(run(&scenario, seed).unwrap(), run(&scenario, seed).unwrap());
    }
}
