//! Swarms with members whose sources are limited.

use super::*;
use crate::dcm::test_world::{RUNS, World, id, listed, open, walled};
use headwater_model::node::Role;

fn from_waypoint(lease: &Lease) -> bool {
    matches!(lease.source, LeaseSource::Waypoint { .. })
}

#[test]
fn a_member_without_udp_lives_on_a_waypoint() {
    let mut w = World::new();
    w.joins(9, open(), Role::Waypoint, true);
    w.joins(1, walled(), Role::Peer, false);
    let mut got = BTreeSet::new();
    let mut leases = w.take(1);
    assert_eq!(leases.len(), STANDING_LEASES as usize);
    while let Some(lease) = leases.pop() {
        assert!(from_waypoint(&lease), "{lease:?}");
        assert!(got.insert(lease.run), "run {} twice", lease.run);
        w.dcm.lease_done(w.now, &id(1), lease.run);
        w.pass(0);
        leases.extend(w.take(1));
    }
    assert_eq!(got.len() as u32, RUNS);
    let member = w.dcm.member_of(&id(1)).unwrap();
    assert!(member.parents.is_empty() && member.children.is_empty());
    // What it holds is no copy for others.
    assert_eq!(w.dcm.leases().replicas(0), 1);
}

#[test]
fn a_swarm_goes_on_as_if_members_without_udp_were_not_there() {
    let mut w = World::new();
    for n in 1..=6 {
        w.joins(n, open(), Role::Peer, false);
    }
    for n in 20..=25 {
        w.joins(n, walled(), Role::Peer, false);
    }
    w.pass(500);
    for n in 1..=6 {
        let assignment = &w.assigned[&id(n)];
        assert_eq!(assignment.parents.len(), 5, "its five neighbours");
        assert!(assignment.parents.iter().chain(&assignment.spares).all(|p| p.node < id(20)));
    }
    // Whoever cannot pass it on brings in no first copy, but takes what there is at the origin.
    assert!((20..=25).all(|n| w.take(n).iter().all(|l| l.source == LeaseSource::Origin)));
    let first: BTreeSet<u32> = (1..=6).flat_map(|n| w.take(n)).map(|l| l.run).collect();
    assert_eq!(first.len(), w.dcm.leases().active().len(), "each first copy once");
}

#[test]
fn an_origin_that_fails_is_left_alone_for_longer_each_time() {
    let mut w = World::new();
    w.joins(1, walled(), Role::Peer, false);
    let mut given = Vec::new();
    for _ in 0..300 {
        for lease in w.take(1) {
            given.push(w.now);
            w.dcm.lease_failed(w.now, &id(1), lease.run, false);
        }
        w.pass(0);
    }
    assert!((3..40).contains(&given.len()), "{} in 30 s", given.len());
    // An access list is not tried again.
    w.pass(60_000);
    let lease = w.take(1).pop().unwrap();
    w.dcm.lease_failed(w.now, &id(1), lease.run, true);
    w.take(1);
    w.pass(120_000);
    assert!(w.take(1).is_empty());
}

#[test]
fn a_waypoint_that_fails_or_leaves_is_replaced_by_the_origin() {
    let mut w = World::new();
    w.joins(9, open(), Role::Waypoint, true);
    w.joins(1, walled(), Role::Peer, false);
    let lease = w.take(1).pop().unwrap();
    w.dcm.lease_failed(w.now, &id(1), lease.run, false);
    w.pass(0);
    assert!(w.take(1).iter().all(|l| l.source == LeaseSource::Origin));
    w.pass(10_000);
    let open_leases = w.dcm.standing_leases().count();
    assert_eq!(open_leases, STANDING_LEASES as usize);
    w.dcm.leave(w.now, &id(9));
    w.pass(0);
    assert_eq!(w.revoked.len(), open_leases - 1, "those from the waypoint");
    assert!(w.take(1).iter().all(|l| l.source == LeaseSource::Origin));
}

#[test]
fn an_access_list_has_waypoints_as_parents_and_the_origin_for_the_rest() {
    let mut w = World::new();
    for n in 1..=3 {
        w.joins(n, open(), Role::Peer, true);
    }
    w.joins(10, listed(), Role::Peer, false);
    w.pass(200);
    assert!(w.assigned[&id(10)].parents.is_empty());
    let leases = w.take(10);
    assert_eq!(leases.len(), STANDING_LEASES as usize);
    assert!(leases.iter().all(|l| l.source == LeaseSource::Origin));
    w.joins(9, open(), Role::Waypoint, true);
    w.pass(2_000);
    assert_eq!(w.assigned[&id(10)].parents.iter().map(|p| p.node).collect::<Vec<_>>(), [id(9)]);
}

#[test]
fn a_waypoint_is_kept_for_those_who_have_nobody_else() {
    let mut w = World::new();
    w.joins(30, open(), Role::Waypoint, true);
    for n in 1..=12 {
        w.joins(n, open(), Role::Peer, false);
    }
    w.pass(1_000);
    let children = |w: &World| w.dcm.member_of(&id(30)).unwrap().children.len();
    let before = children(&w);
    assert!(before >= 4, "{before}");
    w.joins(20, listed(), Role::Peer, false);
    w.joins(21, walled(), Role::Peer, false);
    w.pass(6_000);
    assert!(w.assigned[&id(20)].parents.iter().any(|p| p.node == id(30)));
    assert!(children(&w) < before, "{} children, {before} before", children(&w));
    // What it began at the origin meanwhile it ends there; what follows comes from the waypoint.
    for lease in w.take(21) {
        w.dcm.lease_done(w.now, &id(21), lease.run);
    }
    w.pass(0);
    assert!(w.take(21).iter().any(from_waypoint));
}

#[test]
fn a_member_that_gets_udp_is_a_member_like_others() {
    let mut w = World::new();
    w.joins(1, open(), Role::Peer, true);
    w.joins(2, walled(), Role::Peer, false);
    assert!(w.dcm.member_of(&id(2)).unwrap().parents.is_empty());
    w.joins(2, open(), Role::Peer, false);
    w.pass(200);
    assert_eq!(w.dcm.member_of(&id(2)).unwrap().parents.len(), 1);
    assert_eq!(w.dcm.standing_leases().count(), 0);
    w.joins(2, walled(), Role::Peer, false);
    w.pass(200);
    assert!(w.dcm.member_of(&id(2)).unwrap().parents.is_empty() && w.dcm.standing_leases().count() > 0);
}
