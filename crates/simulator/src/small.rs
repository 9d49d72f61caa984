//! Small worlds with everything that can go wrong, more often than in life: the thousand seeds.

use crate::scenario::{Bars, Checks, Fault, FaultKind, Group, Scenario};
use headwater_model::place::Place;
use headwater_model::rng::Rng;

/// Most nodes and most pieces of a small world: all invariants are checked after every step.
const NODES_MAX: u64 = 16;
/// See `NODES_MAX`.
const PIECES_MAX: u64 = 64;
const PIECE_BYTES: u32 = 64 << 10;

/// The small world of a seed.
pub fn small_world(seed: u64) -> Scenario {
    let mut rng = Rng::new(seed, "small world");
    let mut left = 2 + rng.below(NODES_MAX - 1);
    let mut groups = Vec::new();
    while left > 0 {
        let count = 1 + rng.below(left);
        left -= count;
        groups.push(group(&mut rng, count as usize));
    }
    let content_bytes = (1 + rng.below(PIECES_MAX)) * u64::from(PIECE_BYTES) - rng.below(u64::from(PIECE_BYTES));
    let origin_up_mbit = [0.5, 2.0, 5.0, 20.0][rng.below(4) as usize];
    // About as long as a first copy takes, so that faults fall into the transfer.
    let span_s = 2.0 + content_bytes as f64 * 8.0 / (origin_up_mbit * 1e6) * 1.5;
    let faults = (0..rng.below(7)).map(|_| fault(&mut rng, span_s)).collect();
    Scenario {
        name: format!("small-world-{seed}"),
        about: String::new(),
        content_bytes,
        piece_bytes: PIECE_BYTES,
        origin_up_mbit,
        arrive_within_s: rng.unit() * 2.0,
        time_limit_s: span_s * 20.0 + 600.0,
        checks: Checks::EveryStep,
        groups,
        faults,
        bars: Bars::default(),
    }
}

fn group(rng: &mut Rng, count: usize) -> Group {
    let asn = [None, Some(1), Some(2)][rng.below(3) as usize];
    Group {
        count,
        up_mbit: [0.0, 1.0, 5.0, 20.0, 35.0][rng.below(5) as usize],
        down_mbit: [10.0, 50.0, 160.0][rng.below(3) as usize],
        dial_only_share: [0.0, 0.0, 0.5, 1.0][rng.below(4) as usize],
        nat_as_in_life: rng.below(2) == 0,
        enrolled: rng.below(2) == 0,
        late_s: if rng.below(3) == 0 { rng.unit() * 20.0 } else { 0.0 },
        place: Place { asn, country: asn.map(|_| "DE".into()), ..Place::default() },
    }
}

fn fault(rng: &mut Rng, span_s: f64) -> Fault {
    use FaultKind::{ControlLost, ControlOut, Corrupt, Crash, Death, Freeze, Leave, LinkBreak, OriginOut, Rot, Slow};
    let kinds = [Crash, Death, Leave, Freeze, Slow, OriginOut, ControlOut, ControlLost, LinkBreak, Corrupt, Rot];
    Fault {
        at_s: rng.unit() * span_s,
        for_s: 0.2 + rng.unit() * rng.unit() * 20.0,
        count: 1 + rng.below(3) as usize,
        kind: kinds[rng.below(kinds.len() as u64) as usize],
    }
}
