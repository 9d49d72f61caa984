//! A crowd that comes for a live stream.

use std::num::NonZeroU8;

use anyhow::Result;
use headwater_center_core::Config;
use headwater_center_core::content_directory::Kind;
use headwater_center_core::trees::Trees;
use headwater_model::live::{LiveTerms, SUBSTREAMS};
use headwater_model::report::Join;
use headwater_model::{Micros, Rate, Time};

use super::clock::{Calls, resident_bytes};
use super::crowd::{Crowd, VERSION};
use super::figures::{Bar, Figure, Run, per_second};
use super::population::{Population, member};

/// Row e1.
pub const EDGES: Bar = Bar { row: "e1", must: 1e6, goal: 1e7 };
/// Row f3, its second half.
pub const MEMORY: Bar = Bar { row: "f3", must: 1024.0, goal: 256.0 };

/// How long trees have to come to rest after a crowd.
const RESTED: Micros = Micros::from_secs(60);

/// Row e2, in milliseconds.
fn recomputation(peers: u32) -> Option<Bar> {
    let (must, goal) = match peers {
        10_000 => (20.0, 5.0),
        100_000 => (250.0, 60.0),
        1_000_000 => (3000.0, 800.0),
        _ => return None,
    };
    Some(Bar { row: "e2", must, goal })
}

/// What holds for the stream.
pub fn terms(rate: Rate) -> LiveTerms {
    let substreams = NonZeroU8::new(SUBSTREAMS).unwrap_or(NonZeroU8::MIN);
    LiveTerms { substreams, rate, window: Micros::from_secs(60) }
}

/// Measures all that there is of a live stream.
///
/// # Errors
/// What kept the crowd from being placed.
pub fn measure(peers: u32, rate: Rate, seed: u64, into: &mut Vec<Figure>) -> Result<()> {
    let (population, terms) = (Population { seed }, terms(rate));
    let mut run = Run { content: "live", peers, into };
    Crowd::new(peers, population, Kind::Live(terms)).measure(&mut run)?;
    decide(peers, population, terms, &mut run);
    recompute(peers, population, terms, &mut run);
    Ok(())
}

/// What the trees alone take: no sessions, no assignments.
fn decide(peers: u32, population: Population, terms: LiveTerms, run: &mut Run<'_>) {
    let (now, mut joins, before) = (Time(1), Calls::default(), resident_bytes());
    let mut trees = Trees::new(now, VERSION, terms, Config::default(), 1, false);
    trees.join(now, member(&population.source(peers)), &Join { source: true, ..Join::to(VERSION) });
    for n in 0..peers {
        let info = member(&population.arrival(n));
        joins.time(|| trees.join(now, info, &Join::to(VERSION)));
    }
    let stats = trees.stats();
    run.more("edges decided", per_second(stats.edges, joins.sum()), "/s", Some(EDGES));
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        run.less("memory of a member", after.saturating_sub(before) as f64 / f64::from(peers), "B", Some(MEMORY));
    }
    run.less("places without a parent", stats.unfed as f64, "", None);
    run.less("children of the source", f64::from(stats.source_slots_used), "", None);
    run.less("depth, mean", stats.mean_depth, "edges", None);
    run.less("depth, greatest", f64::from(stats.max_depth), "edges", None);
    run.more("clusters", stats.clusters as f64, "", None);
    run.less("copies into a cluster, mean", stats.copies_in, "", None);
    let (mut upkeep, mut said) = (Calls::default(), Vec::new());
    while let Some(at) = trees.next_timeout().filter(|at| *at <= now + RESTED) {
        upkeep.time(|| trees.tick(at));
        trees.drain(&mut said);
        said.clear();
    }
    let stats = trees.stats();
    run.less("depth after a minute, mean", stats.mean_depth, "edges", None);
    run.less("depth after a minute, greatest", f64::from(stats.max_depth), "edges", None);
    run.less("copies into a cluster after a minute, mean", stats.copies_in, "", None);
    run.less("a tick of that minute, longest", upkeep.quantiles()[2], "us", None);
}

/// All places anew, as after a restart of the control center where nobody says who serves whom; then all are told.
fn recompute(peers: u32, population: Population, terms: LiveTerms, run: &mut Run<'_>) {
    let (now, config) = (Time(1), Config::default());
    let mut trees = Trees::new(now, VERSION, terms, config.clone(), 1, true);
    trees.join(now, member(&population.source(peers)), &Join { source: true, ..Join::to(VERSION) });
    for n in 0..peers {
        trees.join(now, member(&population.arrival(n)), &Join::to(VERSION));
    }
    let mut then = now + config.settle;
    let (mut all, mut told, mut said) = (Calls::default(), Calls::default(), Vec::new());
    all.time(|| trees.tick(then));
    let stats = trees.stats();
    // Not all are told at one time, but the next few right after.
    while trees.next_timeout().is_some_and(|at| at <= then + Micros::from_millis(1)) {
        trees.drain(&mut said);
        said.clear();
        then = then.max(trees.next_timeout().unwrap_or(then));
        told.time(|| trees.tick(then));
    }
    run.less("all places anew", all.sum().as_secs_f64() * 1e3, "ms", recomputation(peers));
    run.less("depth then, mean", stats.mean_depth, "edges", None);
    run.less("depth then, greatest", f64::from(stats.max_depth), "edges", None);
    run.less("copies into a cluster then, mean", stats.copies_in, "", None);
    run.less("places without a parent then", stats.unfed as f64, "", None);
    run.less("telling all of it", told.sum().as_secs_f64() * 1e3, "ms", None);
}
