//! Tests of the bounds.

use super::*;
use crate::scenario::{Group, NetworkSpec, Reach, Scenario, Site, SiteNat, Sources};
use headwater_model::Role;
use proptest::prelude::*;

const OPEN: FileNode = FileNode { up: 1.0, down: f64::INFINITY, dial_only: false, receives: true, starts_full: false };
const FULL: FileNode = FileNode { receives: false, starts_full: true, ..OPEN };

fn assert_near(actual: f64, expected: f64) {
    let near = (actual - expected).abs() <= 1e-5 * expected.abs();
    assert!(near || actual == expected, "{actual} instead of {expected}");
}

fn program(nodes: &[FileNode], permitted: impl Fn(usize, usize) -> bool) -> f64 {
    blocked_pairs_makespan(1.0, nodes, permitted).unwrap()
}

fn population(ups: &[f64]) -> Vec<FileNode> {
    ups.iter().map(|up| FileNode { up: *up, ..OPEN }).collect()
}

/// Rates from a modem's to a server's.
fn any_rate() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(1e3), 1e3..1e5, 1e5..1e8]
}

fn any_node() -> impl Strategy<Value = FileNode> {
    (any_rate(), 1e4..1e9, any::<bool>(), 0..6).prop_map(|(up, down, dial_only, kind)| FileNode {
        up,
        down,
        dial_only,
        receives: kind > 0,
        starts_full: kind == 5,
    })
}

proptest! {
    #[test]
    fn without_blocked_pairs_the_program_is_the_fluid_bound(
        source in 1e4..1e8, ups in prop::collection::vec(any_rate(), 1..9), down in 1e4..1e9,
    ) {
        let mut nodes = vec![FileNode { up: source, ..FULL }];
        nodes.extend(ups.iter().map(|up| FileNode { up: *up, down, ..OPEN }));
        let solved = blocked_pairs_makespan(1e9, &nodes, |_, _| true).unwrap();
        assert_near(solved, fluid_makespan(1e9, source, down, ups.iter().sum(), ups.len()));
    }

    #[test]
    fn dial_only_peers_have_a_closed_form(
        source in 1e4..1e8, open in prop::collection::vec(any_rate(), 0..6),
        dial in prop::collection::vec(any_rate(), 0..6),
    ) {
        let mut nodes = vec![FileNode { up: source, ..FULL }];
        nodes.extend(population(&open));
        nodes.extend(population(&dial));
        let is_dial = |i: usize| i > open.len();
        let solved = blocked_pairs_makespan(1e9, &nodes, |a, b| !(is_dial(a) && is_dial(b))).unwrap();
        let open_up: f64 = open.iter().sum();
        let sum_up = open_up + dial.iter().sum::<f64>();
        let n = open.len() + dial.len();
        assert_near(solved, dial_only_makespan(1e9, source, open_up, sum_up, dial.len(), n));
    }

    #[test]
    fn blocking_pairs_makes_no_bound_smaller(
        nodes in prop::collection::vec(any_node(), 2..9), blocked: u64, more: u64,
    ) {
        let open = |mask: u64| move |a: usize, b: usize| (mask >> ((a * 8 + b) % 64)) & 1 == 0;
        let few = blocked_pairs_makespan(1e9, &nodes, open(blocked & more)).unwrap();
        let many = blocked_pairs_makespan(1e9, &nodes, open(blocked)).unwrap();
        prop_assert!(many >= few * (1.0 - 1e-5), "{} < {}", many, few);
    }

    #[test]
    fn the_program_is_above_every_transport_cut(
        nodes in prop::collection::vec(any_node(), 2..8), blocked: u64,
    ) {
        let open = |a: usize, b: usize| a != b && (blocked >> (a * 8 + b)) & 1 == 0;
        let solved = blocked_pairs_makespan(1e9, &nodes, open).unwrap();
        for set in 1_usize..1 << nodes.len() {
            let inside = |i: &usize| set >> i & 1 == 1;
            let all = || 0..nodes.len();
            if all().filter(inside).all(|i| nodes[i].receives && !nodes[i].starts_full) {
                let senders = all().filter(|a| all().filter(inside).any(|b| open(*a, b)));
                let up: f64 = senders.map(|a| nodes[a].up).sum();
                prop_assert!(solved >= time(f64::from(set.count_ones()) * 1e9, up) * (1.0 - 1e-5));
            }
        }
    }

    #[test]
    fn the_mixed_bound_is_at_least_its_parts(
        source in any_rate(), nodes in prop::collection::vec(any_node(), 0..9), pieces in 1_u32..100,
    ) {
        let fluid = mixed_makespan(1e9, None, source, &nodes).unwrap();
        let whole = mixed_makespan(1e9, Some(pieces), source, &nodes).unwrap();
        let easier: Vec<_> = nodes.iter().map(|x| FileNode { dial_only: false, ..*x }).collect();
        prop_assert!(whole >= fluid);
        prop_assert!(fluid >= mixed_makespan(1e9, None, source, &easier).unwrap() * (1.0 - 1e-5));
    }

    #[test]
    fn leaf_only_and_regular_viewers_are_special_cases(
        ups in prop::collection::vec(0.0..10.0, 1..9), leaves in 0_usize..9,
    ) {
        let n = (ups.len() + leaves) as f64;
        let capped: f64 = ups.iter().map(|u| f64::min(*u, (n - 1.0) * 2.0)).sum();
        let load = lightweight_server_load(2.0, &ups, &vec![0.0; leaves]);
        assert_near(load, f64::max(2.0, n * 2.0 - capped));
    }
}

#[test]
fn closed_forms_by_hand() {
    assert_eq!(fluid_makespan(6.0, 2.0, 3.0, 0.0, 1), 3.0);
    assert_eq!(fluid_makespan(6.0, 6.0, 3.0, 0.0, 1), 2.0);
    assert_eq!(fluid_makespan(6.0, 2.0, 9.0, 4.0, 4), 4.0);
    assert_eq!(fluid_makespan(6.0, 2.0, 9.0, 4.0, 0), 0.0);
    assert_eq!(fluid_makespan(6.0, 0.0, 9.0, 4.0, 4), f64::INFINITY);
    assert_eq!([1, 2, 3, 4, 1_023, 1_024].map(|n| equal_pieces_makespan(n, 4)), [1.0, 1.25, 1.25, 1.5, 3.25, 3.5]);
    assert_eq!(first_copy_makespan(8.0, 4, 2.0, 2.0, 5), 4.0 * equal_pieces_makespan(5, 4));
    assert_eq!(first_copy_makespan(8.0, 4, 1.0, 2.0, 5), 8.0 + 2.0);
    assert_eq!(first_copy_makespan(8.0, 4, 1.0, 0.0, 1), 8.0);
    assert_eq!(dial_only_makespan(1.0, 1.0, 1.0, 5.0, 4, 5), 2.0);
    assert_eq!(origin_only_makespan(3.0, 1.0, 2, true), 9.0);
    assert_eq!(origin_only_makespan(3.0, 1.0, 2, false), 6.0);
}

#[test]
fn live_forms_by_hand() {
    assert_eq!(live_capacity(4.0, 8.0, 6), 2.0);
    assert_eq!(live_capacity(1.0, 8.0, 6), 1.0);
    assert_eq!(live_server_load(2.0, &[]), 0.0);
    assert_eq!(live_server_load(2.0, &[9.0]), 2.0);
    assert_eq!(live_server_load(2.0, &[1.0, 1.0, 1.0]), 3.0);
    assert_eq!(live_server_load(2.0, &[100.0, 0.0, 0.0]), 2.0);
    // Three lightweight viewers give the one regular viewer all of its 2; it has 3 for their 6.
    assert_eq!(lightweight_server_load(2.0, &[3.0], &[1.0; 3]), 3.0);
    assert_eq!(lightweight_server_load(2.0, &[], &[5.0; 3]), 6.0);
    assert_eq!(region_copies_live(10, 16.0, 2.0, 1), 2.0);
    assert_eq!(region_copies_live(10, 40.0, 2.0, 2), 2.0);
    assert_eq!(region_copies_file(10, 4.0, 1.0, 16.0), 6.0);
    assert_eq!(clustered_server_load(2.0, 1, &[(10, 16.0), (3, 99.0), (0, 0.0)]), 6.0);
    assert_near(vod_offload(1.0), (-1.0_f64).exp());
    assert_eq!(vod_offload(0.0), 0.0);
    assert_eq!(rounding_loss(16.0, 8), 1.0);
    assert_eq!([tree_depth(1_000_000, 8), tree_depth(1_000_000, 16)], [Some(7), Some(5)]);
    assert_eq!([tree_depth(5, 1), tree_depth(1, 2), tree_depth(u64::MAX, 2)], [None, Some(0), Some(64)]);
}

#[test]
fn a_bridge_has_to_carry_the_file_once() {
    // The origin reaches node 1 only; 2 and 3 are quick between themselves. The transport rows alone allow 1 s.
    let nodes = [FULL, FileNode { up: 0.25, ..OPEN }, FileNode { up: 9.0, ..OPEN }, FileNode { up: 9.0, ..OPEN }];
    let bridged = |a: usize, b: usize| a.abs_diff(b) == 1;
    assert_near(program(&nodes, bridged), 4.0);
    assert_eq!(program(&nodes, |a, b| a != 1 && a.abs_diff(b) == 1), f64::INFINITY);
}

#[test]
fn relays_need_what_they_send() {
    let relay = FileNode { up: 8.0, receives: false, ..OPEN };
    let slow_relay = FileNode { down: 0.5, ..relay };
    let leaf = FileNode { up: 0.0, ..OPEN };
    let through = |a: usize, _: usize| a <= 1;
    assert_near(program(&[FULL, relay, leaf, leaf], through), 1.0);
    // One leaf, reached through the relay alone: its downlink limits what it passes on.
    assert_near(program(&[FULL, slow_relay, leaf], |a, b| a + 1 == b), 2.0);
}

#[test]
fn a_full_waypoint_adds_to_the_source() {
    let waypoint = FileNode { up: 3.0, ..FULL };
    let silent = population(&[0.0; 8]);
    assert_near(mixed_makespan(1.0, None, 1.0, &silent).unwrap(), 8.0);
    let nodes: Vec<_> = silent.iter().copied().chain([waypoint]).collect();
    assert_near(mixed_makespan(1.0, None, 1.0, &nodes).unwrap(), 2.0);
    assert_eq!(mixed_makespan(1.0, Some(4), 0.0, &silent), Ok(f64::INFINITY));
    assert_eq!(mixed_makespan(1.0, Some(4), 1.0, &[waypoint]), Ok(0.0));
    assert_near(mixed_makespan(8.0, Some(4), 1.0, &population(&[1.0; 5])).unwrap(), 12.0);
}

#[test]
fn sixty_four_unequal_peers_are_solved() {
    let ups: Vec<f64> = (0..64).map(|i| [0.0, 2e5, 2.5e6, 1.25e7][i % 4] + i as f64).collect();
    let mut nodes = population(&ups);
    nodes.iter_mut().step_by(3).for_each(|x| x.dial_only = true);
    let open_up = nodes.iter().filter(|x| !x.dial_only).map(|x| x.up).sum();
    let closed = dial_only_makespan(1e9, 1e7, open_up, ups.iter().sum(), 22, 64);
    assert_near(mixed_makespan(1e9, None, 1e7, &nodes).unwrap(), closed);
    let equal = population(&[1e6; 64]);
    assert_near(mixed_makespan(1e9, None, 1e6, &equal).unwrap(), 1e3);
}

#[test]
fn what_is_out_of_range_is_refused() {
    let nodes = vec![FULL; PROGRAM_NODES_MAX + 1];
    let refused = blocked_pairs_makespan(1.0, &nodes, |_, _| true);
    assert_eq!(refused, Err(MakespanError::TooManyNodes { nodes: 66 }));
    for odd in [f64::NAN, -1.0, f64::INFINITY] {
        let refused = mixed_makespan(1.0, None, 1.0, &population(&[odd]));
        assert_eq!(refused, Err(MakespanError::OutOfRange));
        assert_eq!(mixed_makespan(odd, None, 1.0, &[]), Err(MakespanError::OutOfRange));
    }
}
/// Two ISPs, the origin in the first: nodes 0 … `inside` and the rest.
fn two_isps(inside: usize, outside: usize, peering: f64) -> (Vec<FileNode>, Vec<SharedLink>) {
    let mut nodes = vec![FULL];
    nodes.extend(population(&vec![1.0; inside + outside]));
    let first: Vec<bool> = (0..nodes.len()).map(|i| i <= inside).collect();
    let second: Vec<bool> = first.iter().map(|f| !f).collect();
    let shared = vec![
        SharedLink { rate: peering, from: first.clone(), to: second.clone() },
        SharedLink { rate: peering, from: second, to: first },
    ];
    (nodes, shared)
}

#[test]
fn a_peering_link_has_to_carry_the_file_once() {
    let solve = |inside, outside, peering| {
        let (nodes, shared) = two_isps(inside, outside, peering);
        shared_links_makespan(1.0, &nodes, &shared, |_, _| true).unwrap()
    };
    assert_near(solve(4, 4, 100.0), 1.0);
    assert_near(solve(4, 4, 0.25), 4.0);
    // One receiver on each side: the link takes as long as it takes.
    assert_near(solve(1, 1, 0.5), 2.0);
    assert_eq!(solve(2, 2, 0.0), f64::INFINITY);
}

#[test]
fn copies_that_a_region_cannot_make_come_over_its_link() {
    // Four silent receivers behind a line: each copy has to come over it.
    let mut nodes = vec![FileNode { up: 100.0, ..FULL }];
    nodes.extend(population(&[0.0; 4]));
    let line =
        SharedLink { rate: 2.0, from: vec![true, false, false, false, false], to: vec![false, true, true, true, true] };
    assert_near(shared_links_makespan(1.0, &nodes, std::slice::from_ref(&line), |_, _| true).unwrap(), 2.0);
    // With uplinks of their own they need it once, and the origin's uplink of 100 is no limit.
    nodes.iter_mut().skip(1).for_each(|x| x.up = 10.0);
    assert_near(shared_links_makespan(1.0, &nodes, &[line], |_, _| true).unwrap(), 0.5);
}

/// 100 MB over a network with default links; an origin of 20 Mbit/s in ISP 1.
fn scenario(groups: Vec<Group>) -> Scenario {
    let head =
        "name = \"s\"\ncontent_bytes = 100_000_000\npiece_bytes = 65536\norigin_up_mbit = 20\ngroups = []\n[network]\n";
    let mut scenario: Scenario = toml::from_str(head).unwrap();
    scenario.groups = groups;
    scenario
}

fn lab(scenario: &Scenario, factor: f64) -> f64 {
    let hosts = scenario.hosts(1);
    lab_makespan(scenario, &hosts, &Calibrated::new(scenario, &hosts, |_| factor, factor)).unwrap()
}

#[test]
fn the_lab_bound_of_equal_hosts_is_one_copy() {
    let isp = |isp| Group { isp, ..Group::new(8, 20.0, 20.0) };
    let mut s = scenario(vec![isp(1), isp(2)]);
    assert_near(lab(&s, 1.0), 40.0);
    assert_near(lab(&s, 0.8), 50.0);
    // What enters ISP 2 has to pass the link between the two.
    s.network = Some(NetworkSpec { peering_mbit: 5.0, ..NetworkSpec::default() });
    assert_near(lab(&s, 1.0), 160.0);
    // A third ISP brings a second link.
    s.groups.push(isp(3));
    assert_near(lab(&s, 1.0), 80.0);
}

#[test]
fn a_site_takes_at_least_one_copy_over_its_line() {
    let mut s = scenario(vec![Group { isp: 2, site: Some("office".into()), ..Group::new(20, 1000.0, 1000.0) }]);
    s.sites = vec![Site { name: "office".into(), isp: 2, up_mbit: 10.0, down_mbit: 10.0, nat: SiteNat::Independent }];
    assert_near(lab(&s, 1.0), 80.0);
}

#[test]
fn dial_only_hosts_share_the_open_uplinks() {
    let s = scenario(vec![Group::new(1, 20.0, 20.0), Group { reach: Reach::DialOnly, ..Group::new(7, 20.0, 20.0) }]);
    // Seven copies over the uplinks of the origin and the one open host.
    assert_near(lab(&s, 1.0), 140.0);
    let punched = scenario(vec![Group { reach: Reach::IndependentNat, ..Group::new(8, 20.0, 20.0) }]);
    assert_near(lab(&punched, 1.0), 40.0);
}

#[test]
fn limited_hosts_take_from_the_origin_and_waypoints() {
    let listed = Group { sources: Sources::Operator, ..Group::new(2, 20.0, 20.0) };
    let blocked = Group { reach: Reach::UdpBlocked, ..Group::new(2, 20.0, 20.0) };
    let s = scenario(vec![listed, blocked]);
    assert_near(lab(&s, 1.0), 160.0);
    let waypoint = Group { role: Role::Waypoint, ..Group::new(1, 60.0, 20.0) };
    let with_waypoint = scenario(s.groups.iter().cloned().chain([waypoint]).collect());
    // Four copies over 20 + 60 Mbit/s of uplink.
    assert_near(lab(&with_waypoint, 1.0), 40.0);
}

#[test]
fn late_hosts_and_those_one_by_one_need_their_own_time() {
    let mut s = scenario(vec![Group::new(3, 20.0, 20.0), Group { late_s: 30.0, ..Group::new(1, 20.0, 20.0) }]);
    assert_near(lab(&s, 1.0), 70.0);
    s.arrivals = crate::scenario::Arrivals::OneByOne;
    assert_near(lab(&s, 1.0), 160.0);
}

#[test]
fn thirty_two_hosts_with_everything_are_solved() {
    let kinds = [Reach::Open, Reach::IndependentNat, Reach::DialOnly, Reach::DependentNat];
    let group = |(i, reach): (usize, &Reach)| Group {
        isp: 1 + (i % 2) as u16,
        reach: *reach,
        up_mbit_to: Some(50.0),
        ..Group::new(8, 2.0, 20.0)
    };
    let s = scenario(kinds.iter().enumerate().map(group).collect());
    let bound = lab(&s, 1.0);
    assert!((40.0..400.0).contains(&bound), "{bound}");
    let region = region_makespan(&s, &s.hosts(1), &Calibrated::new(&s, &s.hosts(1), |_| 1.0, 1.0));
    assert!(region <= bound * (1.0 + 1e-6), "{region} > {bound}");
}
