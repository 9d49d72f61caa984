//! Children that find nothing at their parents.

use super::*;
use crate::dcm::test_world::{RUNS, World, id, open};
use headwater_model::bits::Bits;
use headwater_model::node::Capabilities;
use headwater_model::{Place, Role};

const NATS: [u8; 2] = [7, 8];

/// One open node in ISP 1; in ISP 2 one that is dial-only and two that are punchable, with one link from outside at most,
/// which the dial-only one has: the other two have nobody but each other.
fn island() -> World {
    let mut w = World::new();
    w.dcm.config.far_links = 1;
    for (n, isp, accepts) in
        [(1, 1, Accepts::Open), (5, 2, Accepts::DialOnly), (7, 2, Accepts::Punchable), (8, 2, Accepts::Punchable)]
    {
        w.places.insert(n, Place { isp: Some(format!("isp-{isp}")), asn: Some(isp), ..Place::default() });
        w.joins(n, Capabilities::regular(accepts), Role::Peer, n == 1);
    }
    w.pass(2000);
    assert_eq!(NATS.map(|n| parents(&w, n)), [vec![8], vec![7]]);
    w
}

fn parents(w: &World, n: u8) -> Vec<u8> {
    let m = w.dcm.member_of(&id(n)).unwrap();
    m.parents.iter().filter_map(|e| w.dcm.node_of(e.parent)).map(|p| p.0[0]).collect()
}

fn starves(w: &mut World, n: u8) {
    w.dcm.alarm(w.now, &id(n), &Alarm::Starving { runs: (0..RUNS).collect() });
    w.pass(1000);
}

#[test]
fn whom_nobody_near_can_serve_gets_a_parent_from_far_and_keeps_it() {
    for held_near in [false, true] {
        let mut w = island();
        if held_near {
            let ix = w.dcm.by_node[&id(5)];
            w.dcm.holds(w.now, ix, Bits::full(RUNS));
        }
        starves(&mut w, 7);
        assert_eq!(parents(&w, 7).contains(&1), held_near, "one alarm, held near: {held_near}");
        starves(&mut w, 7);
        assert!(parents(&w, 7).contains(&1));
        // One is enough for the region: the other one has it as a parent.
        starves(&mut w, 8);
        starves(&mut w, 8);
        w.pass(10_000);
        assert_eq!(NATS.map(|n| parents(&w, n).contains(&1)), [true, false]);
    }
}

#[test]
fn what_only_those_who_are_away_have_is_leased_to_who_waits_for_it() {
    for (waits, was_fetched) in [(false, true), (false, false), (true, true), (true, false)] {
        let mut w = World::new();
        (1..=3).for_each(|n| w.joins(n, open(), Role::Peer, false));
        w.pass(1000);
        let fetched = w.take(1)[0].run;
        w.dcm.lease_done(w.now, &id(1), fetched);
        w.pass(1000);
        let run = if was_fetched { fetched } else { w.take(1)[0].run };
        // All else is held: the origin is idle.
        let mut others = Bits::full(RUNS);
        others.clear(run);
        w.dcm.holds(w.now, w.dcm.by_node[&id(3)], others);
        w.pass(0);
        w.leases.clear();
        w.dcm.away(w.now, &id(1));
        w.pass(0);
        if waits {
            w.dcm.alarm(w.now, &id(2), &Alarm::Starving { runs: vec![run] });
            w.pass(0);
        }
        let leased = w.take(2).iter().any(|l| l.run == run);
        assert_eq!(leased, waits, "fetched: {was_fetched}, one waits: {waits}");
    }
}

#[test]
fn half_of_a_regions_links_are_for_those_who_starve() {
    let mut w = island();
    w.dcm.config.far_links = 4;
    for n in 10..20 {
        w.places.insert(n, Place { isp: Some("isp-2".into()), asn: Some(2), ..Place::default() });
        w.joins(n, Capabilities::regular(Accepts::Punchable), Role::Peer, false);
    }
    for _ in 0..4 {
        (10..20).for_each(|n| starves(&mut w, n));
    }
    let sole = |n: u8| w.dcm.member_of(&id(n)).unwrap().parents.iter().filter(|e| e.sole).count();
    let all: usize = [7, 8].into_iter().chain(10..20).map(sole).sum();
    assert!((1..=2).contains(&all), "{all}");
}

#[test]
fn alarms_in_a_row_are_counted_although_each_comes_with_a_report() {
    for parted in [false, true] {
        let mut w = World::new();
        w.joins(1, open(), Role::Peer, true);
        w.joins(2, open(), Role::Peer, false);
        w.pass(1000);
        let (holder, child) = (w.dcm.by_node[&id(1)], w.dcm.by_node[&id(2)]);
        if parted {
            // The only one that holds anything, and the two do not meet for long.
            w.dcm.fail_pair_times(w.now, holder, child, 4, true);
            w.dcm.unlink(holder, child);
        }
        for _ in 0..STARVING_ALARMS {
            let runs = w.dcm.member(child).map(|m| m.runs.clone()).unwrap();
            w.dcm.holds(w.now, child, runs);
            starves(&mut w, 2);
        }
        assert!(!w.take(2).is_empty(), "the origin helps, parted: {parted}");
    }
}
