//! A crowd that comes for a file.

use anyhow::Result;
use headwater_center_core::Config;
use headwater_center_core::content_directory::Kind;
use headwater_center_core::dcm::Dcm;
use headwater_model::layout::default_piece_bytes;
use headwater_model::report::Join;
use headwater_model::{Layout, Time};

use super::clock::{Calls, resident_bytes};
use super::crowd::{Crowd, VERSION};
use super::figures::{Figure, Run, per_second};
use super::live::{EDGES, MEMORY};
use super::population::{Population, member};

const FILE_BYTES: u64 = 1 << 30;

/// Measures all that there is of a file.
///
/// # Errors
/// What kept the crowd from being placed.
pub fn measure(peers: u32, seed: u64, into: &mut Vec<Figure>) -> Result<()> {
    let (population, layout) = (Population { seed }, Layout::single(default_piece_bytes(FILE_BYTES), FILE_BYTES)?);
    let mut run = Run { content: "file", peers, into };
    Crowd::new(peers, population, Kind::File(layout.clone())).measure(&mut run)?;
    decide(peers, population, layout, &mut run);
    Ok(())
}

/// What the swarm alone takes: no sessions, no assignments.
fn decide(peers: u32, population: Population, layout: Layout, run: &mut Run<'_>) {
    let (now, mut joins, before) = (Time(1), Calls::default(), resident_bytes());
    let mut dcm = Dcm::new(now, VERSION, layout, Config::default(), 1, false);
    let mut said = Vec::new();
    for n in 0..peers {
        let info = member(&population.arrival(n));
        joins.time(|| dcm.join(now, info, &Join::to(VERSION)));
        dcm.drain(&mut said);
        said.clear();
    }
    let edges: usize = dcm.members().map(|m| m.parents.len()).sum();
    run.more("edges decided", per_second(edges, joins.sum()), "/s", Some(EDGES));
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        run.less("memory of a member", after.saturating_sub(before) as f64 / f64::from(peers), "B", Some(MEMORY));
    }
    run.more("parents of a member, mean", edges as f64 / f64::from(peers), "", None);
}
