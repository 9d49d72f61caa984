//! How near the trees come to the best that any overlay could do: the highest rate that all viewers of a small stream get
//! from one another, beside the optimum of a linear program over the pairs that can connect.

use anyhow::{Result, ensure};
use headwater_center_core::Config;
use headwater_center_core::client_manager::Arrival;
use headwater_center_core::trees::Trees;
use headwater_model::report::Join;
use headwater_model::{Micros, Rate, Reachability, Time};
use headwater_simulator::bounds::{FileNode, blocked_pairs_makespan};

use super::crowd::VERSION;
use super::figures::{Bar, Figure, Run};
use super::live::terms;
use super::population::{Population, member};

const VIEWERS: u32 = 40;
/// The source's uplink: what most of the best viewers have.
const SOURCE_UP: Rate = Rate::from_mbit(100);
/// Streams looked at.
const CASES: u64 = 20;
/// Rates are tried in steps of this part of the optimum.
const STEPS: u64 = 200;
/// The trees have so long to become as good as they get.
const PATIENCE: Micros = Micros::from_secs(20);
const TICK: Micros = Micros::from_millis(500);
/// Part of an uplink that trees give to children at their rate: 95 % of it, and 15 % more per child than its rate, so that
/// those who fell behind catch up.
const USABLE: f64 = 0.95 / 1.15;

/// Row e3, in percent.
const OPTIMUM: Bar = Bar { row: "e3", must: 97.0, goal: 99.5 };

/// Measures it.
///
/// # Errors
/// What the solver of the program says.
pub fn measure(seed: u64, into: &mut Vec<Figure>) -> Result<()> {
    let mut shares = Vec::new();
    for case in 0..CASES {
        shares.push(share(Population { seed: seed.wrapping_add(case << 32) })?);
    }
    shares.sort_by(f64::total_cmp);
    let (worst, median) = (shares[0], shares[shares.len() / 2]);
    let mut run = Run { content: "live", peers: VIEWERS, into };
    run.more("rate / optimum, median", median * 100.0, "%", Some(OPTIMUM));
    run.more("rate / optimum, worst", worst * 100.0, "%", Some(OPTIMUM));
    run.more("rate / optimum of 83 % of uplinks, median", median / USABLE * 100.0, "%", Some(OPTIMUM));
    run.more("rate / optimum of 83 % of uplinks, worst", worst / USABLE * 100.0, "%", Some(OPTIMUM));
    Ok(())
}

/// Part of the optimum that the trees reach.
fn share(population: Population) -> Result<f64> {
    let mut source = population.source(u32::MAX);
    source.introduction.up = SOURCE_UP;
    // Who has no UDP reads from the origin, whatever the trees are.
    let viewers = (0..).map(|n| population.arrival(n)).filter(|a| a.introduction.capabilities.udp.value);
    let nodes: Vec<Arrival> = std::iter::once(source).chain(viewers.take(VIEWERS as usize)).collect();
    let optimum = optimum(&nodes)?;
    let at = |step: u64| Rate((optimum * step as f64 / STEPS as f64) as u64);
    let reached = (1..=STEPS).rev().find(|step| all_are_fed(&nodes, at(*step)));
    Ok(reached.unwrap_or_default() as f64 / STEPS as f64)
}

/// The highest rate that all can get, in bytes per second. The file's program: what a rate needs in a second a file of that
/// size needs in all.
fn optimum(nodes: &[Arrival]) -> Result<f64> {
    const FILE: f64 = 1e9;
    let node = |(n, a): (usize, &Arrival)| FileNode {
        up: a.introduction.up.0 as f64,
        down: f64::INFINITY,
        dial_only: false,
        receives: n > 0,
        starts_full: n == 0,
    };
    let reach: Vec<Reachability> =
        nodes.iter().map(|a| Reachability::new(&a.introduction.capabilities, a.observed.ip())).collect();
    let all: Vec<FileNode> = nodes.iter().enumerate().map(node).collect();
    let makespan = blocked_pairs_makespan(FILE, &all, |from, to| reach[from].compatible(&reach[to]))?;
    ensure!(makespan.is_finite() && makespan > 0.0, "no rate reaches all");
    Ok(FILE / makespan)
}

/// Whether all viewers get all substreams from one another and the source.
fn all_are_fed(nodes: &[Arrival], rate: Rate) -> bool {
    let mut now = Time(1);
    let mut trees = Trees::new(now, VERSION, terms(rate), Config::default(), 1, false);
    for (n, arrival) in nodes.iter().enumerate() {
        trees.join(now, member(arrival), &Join { source: n == 0, ..Join::to(VERSION) });
    }
    let end = now + PATIENCE;
    while trees.stats().unfed > 0 && now < end {
        now = now + TICK;
        trees.tick(now);
    }
    trees.stats().unfed == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_never_beat_the_optimum_and_come_near_it() {
        for seed in 0..4 {
            let share = share(Population { seed }).unwrap();
            assert!(share <= USABLE && share > 0.5 * USABLE, "seed {seed}: {share}");
        }
    }
}
