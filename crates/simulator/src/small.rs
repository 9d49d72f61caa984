//! Small worlds with everything that can go wrong, more often than in life: the thousand seeds.

use crate::scenario::{
    Also, Arrivals, Bars, Checks, Fault, FaultKind, Group, NetworkSpec, Reach, Scenario, Site, SiteNat, Sources,
};
use headwater_model::place::Place;
use headwater_model::rng::Rng;
use headwater_model::{Priority, Role};

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
    let mut scenario = Scenario {
        name: format!("small-world-{seed}"),
        about: String::new(),
        content_bytes,
        piece_bytes: PIECE_BYTES,
        origin_up_mbit,
        also: Vec::new(),
        arrive_within_s: rng.unit() * 2.0,
        time_limit_s: span_s * 20.0 + 600.0,
        arrivals: Arrivals::Spread,
        seeded: false,
        checks: Checks::EveryStep,
        network: None,
        sites: Vec::new(),
        groups,
        faults,
        bystander: None,
        live: None,
        bars: Bars::default(),
    };
    let mut rng = Rng::new(seed, "small network");
    if rng.below(2) == 0 {
        lay_network(&mut rng, &mut scenario, span_s);
    }
    scenario
}

/// Random use for hours: nodes that come, leave, die, come back and are replaced by others, contents that come in new
/// versions and are withdrawn, priorities that change, and what else goes wrong. All small, so that everything is checked
/// after every step.
pub fn long_world(seed: u64, hours: f64) -> Scenario {
    use FaultKind::{ControlLost, ControlOut, Corrupt, Crash, Freeze, Leave, LinkBreak, NewVersion, OriginOut};
    use FaultKind::{Priority as Prefer, Reborn, Slow, Withdrawn};
    let mut rng = Rng::new(seed, "long world");
    let span_s = hours * 3600.0;
    let kinds = [
        Crash, Crash, Leave, Leave, Leave, Reborn, Reborn, Reborn, Freeze, Slow, LinkBreak, Corrupt, OriginOut,
        ControlOut, NewVersion, NewVersion, NewVersion, NewVersion, Withdrawn, Withdrawn, Prefer, Prefer,
    ];
    let mut faults = Vec::new();
    let mut at_s = 20.0;
    while at_s < span_s {
        let kind = match rng.below(300) {
            0 => ControlLost,
            n => kinds[n as usize % kinds.len()],
        };
        faults.push(Fault::at(at_s, 0.5 + rng.unit() * rng.unit() * 40.0, kind));
        at_s += 1.0 + rng.unit() * 30.0;
    }
    let peers = Group { enrolled: false, ..Group::new(5, 10.0, 50.0) };
    let dial_only = Group { dial_only_share: 1.0, enrolled: false, ..Group::new(3, 5.0, 50.0) };
    let waypoint = Group { role: Role::Waypoint, ..Group::new(1, 20.0, 50.0) };
    let also = [(40, 10.0, Priority::Normal), (24, 1.0, Priority::High), (64, 4.0, Priority::Low)];
    Scenario {
        name: format!("long-world-{seed}"),
        about: String::new(),
        content_bytes: 48 * u64::from(PIECE_BYTES) - 1,
        piece_bytes: PIECE_BYTES,
        origin_up_mbit: 8.0,
        also: also
            .map(|(pieces, up, priority)| Also {
                content_bytes: pieces * u64::from(PIECE_BYTES) - 77,
                origin_up_mbit: up,
                priority,
            })
            .to_vec(),
        arrive_within_s: 10.0,
        time_limit_s: span_s + 1800.0,
        arrivals: Arrivals::Spread,
        seeded: false,
        checks: Checks::EveryStep,
        network: None,
        sites: Vec::new(),
        groups: vec![peers, dial_only, waypoint],
        faults,
        bystander: None,
        live: None,
        bars: Bars::default(),
    }
}

/// ISPs, a site, kinds of reachability, a waypoint, leavers, and what goes wrong with links.
fn lay_network(rng: &mut Rng, scenario: &mut Scenario, span_s: f64) {
    use FaultKind::{Cut, PeeringCut, PeeringRate, Reshape};
    scenario.network = Some(NetworkSpec {
        rtt_inside_ms: 4.0 + rng.unit() * 40.0,
        rtt_across_ms: 20.0 + rng.unit() * 200.0,
        jitter_ms: rng.unit() * 10.0,
        peering_mbit: [2.0, 20.0, 200.0][rng.below(3) as usize],
        origin_isp: 1 + rng.below(3) as u16,
        ..NetworkSpec::default()
    });
    for group in &mut scenario.groups {
        group.isp = 1 + rng.below(3) as u16;
        group.leaves_when_complete = rng.below(4) == 0;
        let reach = [Reach::Open, Reach::Firewall, Reach::IndependentNat, Reach::DependentNat, Reach::UdpBlocked];
        if !group.nat_as_in_life {
            group.reach = reach[rng.below(5) as usize];
        }
        if rng.below(6) == 0 {
            group.sources = Sources::Operator;
        }
    }
    if rng.below(2) == 0 {
        let rate = |rng: &mut Rng| [2.0, 10.0, 50.0][rng.below(3) as usize];
        let nat = [SiteNat::Independent, SiteNat::Dependent, SiteNat::None][rng.below(3) as usize];
        let isp = scenario.groups.first().map_or(1, |g| g.isp);
        scenario.sites = vec![Site { name: "office".into(), isp, up_mbit: rate(rng), down_mbit: rate(rng), nat }];
        if let Some(group) = scenario.groups.first_mut() {
            group.site = Some("office".into());
        }
    }
    if rng.below(2) == 0 {
        let isp = 1 + rng.below(3) as u16;
        scenario.groups.push(Group { isp, role: Role::Waypoint, ..Group::new(1, 20.0, 50.0) });
    }
    for _ in 0..rng.below(3) {
        let kind = [Cut, PeeringCut, PeeringRate, Reshape][rng.below(4) as usize];
        let (for_s, value) = (0.2 + rng.unit() * 10.0, 0.5 + rng.unit() * 20.0);
        let at = Fault { value, ..Fault::at(rng.unit() * span_s, for_s, kind) };
        let at_share = Fault { at_s: None, at_share: Some(rng.unit()), ..at.clone() };
        scenario.faults.push(if rng.below(2) == 0 { at } else { at_share });
    }
}

fn group(rng: &mut Rng, count: usize) -> Group {
    let asn = [None, Some(1), Some(2)][rng.below(3) as usize];
    let up_mbit = [0.0, 1.0, 5.0, 20.0, 35.0][rng.below(5) as usize];
    let down_mbit = [10.0, 50.0, 160.0][rng.below(3) as usize];
    Group {
        dial_only_share: [0.0, 0.0, 0.5, 1.0][rng.below(4) as usize],
        nat_as_in_life: rng.below(2) == 0,
        enrolled: rng.below(2) == 0,
        late_s: if rng.below(3) == 0 { rng.unit() * 20.0 } else { 0.0 },
        place: Place { asn, country: asn.map(|_| "DE".into()), ..Place::default() },
        ..Group::new(count, up_mbit, down_mbit)
    }
}

fn fault(rng: &mut Rng, span_s: f64) -> Fault {
    use FaultKind::{ControlLost, ControlOut, Corrupt, Crash, Death, Freeze, Leave, LinkBreak, OriginOut, Rot, Slow};
    let kinds = [Crash, Death, Leave, Freeze, Slow, OriginOut, ControlOut, ControlLost, LinkBreak, Corrupt, Rot];
    let (at_s, for_s) = (rng.unit() * span_s, 0.2 + rng.unit() * rng.unit() * 20.0);
    let count = 1 + rng.below(3) as usize;
    Fault { count, ..Fault::at(at_s, for_s, kinds[rng.below(kinds.len() as u64) as usize]) }
}
