//! Stories of live streams.

use super::TreesStats;
use super::test_world::*;
use crate::network_monitor::Trouble;
use crate::trust::{Offence, Standing};
use headwater_model::id::{Hash, NodeId, Version};
use headwater_model::live::Substreams;
use headwater_model::node::{Accepts, Capabilities, From, Known, Role, SourceAccess};
use headwater_model::report::{Alarm, Join};
use headwater_model::rng::Rng;
use headwater_model::time::{Micros, Rate};
use std::collections::{BTreeMap, BTreeSet};

fn lost(parent: NodeId) -> Alarm {
    Alarm::ParentLost { parent, why: "gone".into() }
}

/// (what, kbit/s of the viewers in the order in which they come, most edges from the source, unfed places)
#[test]
fn one_copy_leaves_the_source_where_the_viewers_have_uplink() {
    let few: Vec<u64> = (0..24).map(|n| 1000 + (n * 7 % 24) * 5000 / 23).collect();
    let many: Vec<u64> = (0..200).map(|n| 1000 + (n * 77 % 200) * 5000 / 199).collect();
    let rising: Vec<u64> = (0..24).map(|n| 1000 + n * 5000 / 23).collect();
    let mut late = vec![0; 6];
    late.extend([6000; 10]);
    for (what, viewers, depth) in [
        ("the first", vec![0], 1),
        ("two", vec![6000, 6000], 3),
        ("of 1 to 6 Mbit/s", few, 5),
        ("those with least first", rising, 5),
        ("those without first", late, 5),
        ("many", many, 8),
    ] {
        let mut w = World::with_source(50_000);
        for (n, kbit) in viewers.iter().enumerate() {
            w.joins(open(n as u32, *kbit));
            w.pass(100);
        }
        w.pass(10_000);
        let s = w.trees.stats();
        assert_eq!((s.source_slots_used, s.unfed), (u32::from(K), 0), "{what}: {s:?}");
        assert!(s.max_depth <= depth, "{what}: {s:?}");
        w.all_know();
    }
}

/// One copy comes in to each cluster, which is one as long as it is large enough, and all are fed on the way (S7, T5).
#[test]
fn one_copy_comes_in_to_each_cluster() {
    let mut w = World::with_source(50_000);
    // In the tests' world five ASes take turns.
    for n in 0..100 {
        w.joins(open(n, 4000));
        w.pass(50);
    }
    w.pass(20_000);
    let s = w.trees.stats();
    assert_eq!((s.clusters, s.copies_in, s.unfed, s.source_slots_used), (5, 1.0, 0, u32::from(K)), "{s:?}");
    // All but three of one of them go, one after the other.
    for n in (0..100).filter(|n| n % 5 == 1).skip(3) {
        w.trees.leave(w.now, &id(n));
        w.hear();
        w.pass(50);
        assert_eq!(w.trees.stats().unfed, 0, "after {n}");
    }
    w.pass(20_000);
    let s = w.trees.stats();
    assert_eq!((s.clusters, s.copies_in, s.unfed), (4, 1.0, 0), "{s:?}");
    w.all_know();
}

#[test]
fn who_comes_with_others_is_placed_at_once_too() {
    let mut w = World::with_source(50_000);
    for n in 0..200 {
        w.joins(open(n, 1000 + u64::from(n) * 77 % 5000));
    }
    assert_eq!(w.trees.stats().unfed, 0);
    w.pass(20_000);
    let s = w.trees.stats();
    assert_eq!((s.source_slots_used, s.unfed), (u32::from(K), 0), "{s:?}");
    w.all_know();
}

/// What viewers lack leaves the source, or is left to helpers, and not a slot more: no uplink is lost between trees.
#[test]
fn only_what_viewers_lack_leaves_the_source() {
    for percent in [40, 70, 90, 100, 110, 150] {
        let mut w = World::with_source(200_000);
        // Each lacks and offers something else; 8 slots are 2,422 kbit/s.
        (0..30).for_each(|n| w.joins(open(n, (n as u64 * 13 % 30) * 2 * 2422 * percent / 2900)));
        w.wait(30);
        let (slots, s) = (w.slots().0, w.trees.stats());
        let lacking = (30 * u32::from(K)).saturating_sub(slots).max(u32::from(K));
        assert_eq!(s.source_slots_used + s.unfed as u32, lacking, "{percent} %: {slots} slots, {s:?}");
        assert_eq!(s.unfed > 0, lacking > u32::from(K), "{percent} %: {s:?}");
    }
}

/// Where peers have too few slots some places that nobody depends on are left to helpers; they know whom to ask.
#[test]
fn what_is_left_over_of_uplinks_is_used_where_they_are_scarce() {
    let mut w = World::with_source(200_000);
    (0..24).for_each(|n| w.joins(open(n, 500 + u64::from(n) * 2000 / 23)));
    w.pass(1000);
    assert_eq!(w.trees.stats().unfed, 0, "at first the source pushes what peers cannot");
    w.wait(30);
    let (unfed, left_over) = (w.trees.stats().unfed, w.trees.left_over);
    assert!(unfed as u64 * 100 >= left_over && unfed as u64 * 100 <= left_over * 5 / 2, "{unfed} of {left_over} %");
    for m in w.trees.members().filter(|m| Some(m.info.node) != w.trees.source()) {
        let told = &w.told[&m.info.node];
        let ix = w.trees.by_node[&m.info.node];
        let pulled: Vec<u8> = (0..K).filter(|t| w.trees.parent(*t, ix).is_none()).collect();
        assert!(pulled.iter().all(|t| w.trees.children(*t, ix).is_empty()), "nobody depends on it");
        assert!(pulled.iter().all(|t| told.spares.iter().all(|s| !s.substreams.contains(*t))));
        assert_eq!(pulled.is_empty(), told.helpers.is_empty(), "{pulled:?}");
        assert!(told.helpers.iter().all(|h| h.node != m.info.node && Some(h.node) != w.trees.source()));
    }
    // It stays so: nobody is moved to and fro.
    let before = w.trees.generation();
    w.wait(30);
    assert!(w.trees.generation().counter - before.counter <= 24, "{:?} after {before:?}", w.trees.generation());
    w.joins(open(100, 100_000));
    w.wait(30);
    assert_eq!(w.trees.stats().unfed, 0);
    assert!(w.told.values().all(|a| a.helpers.is_empty()), "they are let go");
}

#[test]
fn newcomers_have_helpers_for_a_while() {
    let mut w = World::with_source(50_000);
    (0..6).for_each(|n| w.joins(open(n, 4000)));
    w.joins(node(6, 4000, Accepts::DialOnly));
    w.wait(30);
    assert!(w.told.values().all(|a| a.helpers.is_empty()));
    for newcomer in [node(7, 2000, Accepts::DialOnly), open(8, 2000)] {
        let who = newcomer.node;
        let can_use = if newcomer.capabilities.accepts.value == Accepts::Open { 7 } else { 6 };
        w.joins(newcomer);
        w.pass(200);
        let told: BTreeSet<NodeId> = w.told[&who].helpers.iter().map(|h| h.node).collect();
        assert!(told.len() >= can_use && !told.contains(&who), "{told:?}");
        let first = *told.first().unwrap();
        w.trees.leave(w.now, &first);
        w.pass(200);
        assert!(w.told[&who].helpers.iter().all(|h| h.node != first), "who left helps nobody");
        let back = (0..9).find(|n| id(*n) == first).unwrap();
        w.joins(if back == 6 { node(6, 4000, Accepts::DialOnly) } else { open(back, 4000) });
        w.wait(30);
        assert!(w.told[&who].helpers.is_empty());
    }
    // Handshakes are not to fill a thin line: two of them in 0.15 s of 500 kbit/s.
    w.joins(open(9, 500));
    w.pass(200);
    assert_eq!(w.told[&open(9, 500).node].helpers.len(), 2);
}

#[test]
fn helpers_promise_each_what_they_have_and_newcomers_help_as_they_can() {
    let mut w = World::with_source(50_000);
    w.joins(open(0, 12_000));
    w.wait(30);
    (1..3).for_each(|n| w.joins(open(n, 1000)));
    w.pass(200);
    let promise =
        |w: &World, n: u32, by: u32| w.told[&id(n)].helpers.iter().find(|h| h.node == id(by)).map(|h| h.promised.0);
    let (alone, shared) = (promise(&w, 1, 0).unwrap(), promise(&w, 2, 0).unwrap());
    assert!(alone < 12_000_000 / 8 && shared > 0 && shared * 2 <= alone, "{alone} and {shared} bytes/s");
    assert_eq!(promise(&w, 2, 1), Some(0), "who came just now promises nothing");
    w.wait(30);
    w.joins(open(3, 1000));
    w.pass(200);
    let helpers = &w.told[&id(3)].helpers;
    assert!(helpers.len() > 1 && helpers.iter().all(|h| h.promised.0 > 0), "who came long ago does: {helpers:?}");
}

#[test]
fn helpers_that_came_later_and_have_far_more_left_over_take_places() {
    // Slots of 4 x 3000 kbit/s do not do for 14; the rest is pulled from what these have left over.
    let mut w = World::with_source(50_000);
    (0..4).for_each(|n| w.joins(open(n, 3000)));
    (4..14).for_each(|n| w.joins(open(n, 450)));
    w.wait(30);
    let helps = |w: &World, n: u32| w.told.values().filter(|a| a.helpers.iter().any(|h| h.node == id(n))).count();
    let helped: usize = (0..14).map(|n| helps(&w, n)).sum();
    assert!(helped > 0);
    w.joins(open(20, 900));
    w.wait(30);
    assert!(helps(&w, 20) > 0, "{helped}");
    let before = w.trees.generation();
    w.wait(30);
    assert!(w.trees.generation().counter - before.counter <= 15, "nobody is moved to and fro");
}

#[test]
fn members_are_interior_in_few_trees() {
    let mut w = World::with_source(50_000);
    (0..24).for_each(|n| w.joins(open(n, 4000)));
    w.pass(20_000);
    let interior = |m: &super::Member| {
        let spots = w.trees.spots(w.trees.by_node[&m.info.node]);
        spots.filter(|(_, s)| !s.children.is_empty()).count()
    };
    let source = w.trees.source().unwrap();
    let all: Vec<usize> = w.trees.members().filter(|m| m.info.node != source).map(interior).collect();
    assert!(all.iter().sum::<usize>() <= all.len() * 3 / 2, "{all:?}");
}

#[test]
fn without_uplink_viewers_read_from_source_waypoints_and_origin_and_later_ones_feed_them() {
    let mut w = World::with_source(4600);
    (0..4).for_each(|n| w.joins(open(n, 0)));
    // 15 slots of the source for 32 places.
    let s = w.trees.stats();
    assert_eq!((s.source_slots_used, s.unfed), (15, 17));
    w.joins(open(10, 20_000));
    let s = w.trees.stats();
    assert_eq!(s.unfed, 0, "{s:?}");
    w.pass(5000);
    let s = w.trees.stats();
    assert_eq!((s.source_slots_used, s.unfed), (u32::from(K), 0), "the source is relieved: {s:?}");
    w.joins(crate::dcm::MemberInfo { role: Role::Waypoint, ..open(11, 100_000) });
    w.trees.leave(w.now, &id(10));
    w.hear();
    let s = w.trees.stats();
    assert_eq!(s.unfed, 0, "{s:?}");
    (20..30).for_each(|n| w.joins(open(n, 6000)));
    w.pass(20_000);
    let s = w.trees.stats();
    assert_eq!((s.source_slots_used, s.unfed), (u32::from(K), 0), "{s:?}");
    assert_eq!(w.trees.children_of(&id(11)), vec![], "the waypoint is relieved too");
}

#[test]
fn a_child_that_loses_a_parent_gets_another_in_the_same_call() {
    let mut w = World::with_source(50_000);
    (0..24).for_each(|n| w.joins(open(n, 4000)));
    w.pass(5000);
    let (child, parent) = (0..24)
        .flat_map(|n| w.parents(n).into_iter().map(move |(p, _)| (n, p)))
        .find(|(_, p)| *p != id(SOURCE))
        .unwrap();
    let before = w.told[&id(child)].generation;
    w.alarm(child, lost(parent));
    assert!(w.told[&id(child)].generation > before);
    assert_eq!(w.told_parents(child), w.parents(child));
    let all = w.parents(child).iter().fold(Substreams::default(), |all, (_, s)| all.or(*s));
    assert_eq!(all, Substreams::all(K));
    for (p, _) in w.parents(child) {
        assert!(w.told[&p].children.iter().any(|c| c.node == id(child)), "its parent knows");
        assert_ne!(p, parent);
    }
    w.alarm(child, lost(parent));
    w.pass(1000);
    assert!(w.parents(child).iter().all(|(p, _)| *p != parent), "the pair rests");
}

#[test]
fn a_parent_that_two_lose_or_that_has_no_session_is_left_by_all() {
    for away in [false, true] {
        let mut w = World::with_source(50_000);
        (0..24).for_each(|n| w.joins(open(n, 4000)));
        w.pass(5000);
        let busy = (0..24).max_by_key(|n| w.trees.children_of(&id(*n)).len()).unwrap();
        let of: Vec<u32> = (0..24).filter(|n| w.trees.children_of(&id(busy)).contains(&id(*n))).collect();
        assert!(of.len() >= 4);
        if away {
            w.trees.away(w.now, &id(busy));
            assert_eq!(w.trees.children_of(&id(busy)).len(), of.len(), "it may still deliver");
        } else {
            w.alarm(of[0], lost(id(busy)));
            assert_eq!(w.trees.children_of(&id(busy)).len(), of.len() - 1);
        }
        w.alarm(of[1], lost(id(busy)));
        assert_eq!(w.trees.children_of(&id(busy)), vec![]);
        assert_eq!(w.trees.stats().unfed, 0);
        w.pass(200);
        for c in &of {
            assert!(w.told_parents(*c).iter().all(|(p, _)| *p != id(busy)));
        }
        w.pass(20_000);
        assert_eq!(w.trees.member_of(&id(busy)).is_none(), away, "who stays away is forgotten");
        assert_eq!(w.trees.stats().source_slots_used, u32::from(K));
    }
}

#[test]
fn a_parent_whose_uplink_is_not_what_it_said_is_left() {
    let mut w = World::with_source(50_000);
    (0..24).for_each(|n| w.joins(open(n, 6000)));
    w.pass(5000);
    let busy = (0..24).max_by_key(|n| w.trees.member_of(&id(*n)).unwrap().used).unwrap();
    let used = w.trees.member_of(&id(busy)).unwrap().used;
    let children = |w: &World| (0..24).filter(|n| w.trees.children_of(&id(busy)).contains(&id(*n))).collect::<Vec<_>>();
    let behind = |w: &mut World, child: u32| {
        let trees = w.parents(child).into_iter().find(|(p, _)| *p == id(busy)).unwrap().1;
        w.alarm(child, Alarm::Behind { parent: id(busy), substreams: trees });
        assert!(w.parents(child).iter().all(|(p, _)| *p != id(busy)));
    };
    w.pass(3000);
    let of = children(&w);
    let edges =
        |w: &World, c: u32| w.parents(c).iter().filter(|(p, _)| *p == id(busy)).map(|(_, s)| s.len()).sum::<u32>();
    let moved = edges(&w, of[0]);
    behind(&mut w, of[0]);
    assert_eq!(w.trees.member_of(&id(busy)).unwrap().used, used - moved, "one may have a bad line");
    let children_then = of.len();
    for c in &of[1..children_then.div_ceil(2)] {
        behind(&mut w, *c);
    }
    let left = w.trees.member_of(&id(busy)).unwrap().used;
    assert!(left <= used / 2, "{left} of {used}");
    for _ in 0..2 {
        for c in children(&w).into_iter().take(2) {
            if w.trees.children_of(&id(busy)).contains(&id(c)) {
                behind(&mut w, c);
            }
        }
    }
    assert!(w.trees.member_of(&id(busy)).unwrap().used <= used / 4);
    let s = w.trees.stats();
    assert_eq!(s.unfed, 0, "{s:?}");
    w.pass(62_000);
    let m = w.trees.member_of(&id(busy)).unwrap();
    assert_eq!(m.slots, 19, "it is believed again");
}

#[test]
fn only_what_was_behind_is_moved() {
    let mut w = World::with_source(50_000);
    w.joins(open(1, 6000));
    w.joins(open(2, 6000));
    w.joins(open(3, 6000));
    w.pass(100);
    let (child, parent, trees) = (1..4)
        .flat_map(|n| w.parents(n).into_iter().map(move |(p, s)| (n, p, s)))
        .filter(|(_, p, _)| *p != id(SOURCE))
        .max_by_key(|(.., s)| s.len())
        .unwrap();
    assert!(trees.len() >= 2, "{trees:?}");
    let one = trees.iter().next().unwrap();
    w.alarm(child, Alarm::Behind { parent, substreams: Substreams::one(one) });
    assert_ne!(w.parent(child, one), Some(parent));
    assert!(trees.iter().skip(1).all(|t| w.parent(child, t) == Some(parent)));
}

#[test]
fn bad_bytes_and_silence_accuse_who_is_a_parent() {
    let mut w = World::with_source(50_000);
    (0..6).for_each(|n| w.joins(open(n, 6000)));
    let parent = w.parents(3).into_iter().map(|(p, _)| p).find(|p| *p != id(SOURCE)).unwrap();
    w.alarm(3, Alarm::BadPieces { parent });
    w.alarm(3, Alarm::BadPieces { parent: id(77) });
    assert_eq!(w.accused, vec![(id(3), parent, Offence::BadPieces)]);
    let other = w.parents(3).into_iter().map(|(p, _)| p).find(|p| *p != id(SOURCE)).unwrap();
    w.alarm(3, Alarm::Silent { parent: other });
    assert_eq!(w.accused.last(), Some(&(id(3), other, Offence::Silent)));
    w.trees.set_standing(w.now, &other, Standing::Banned);
    w.hear();
    assert_eq!(w.trees.children_of(&other), vec![]);
    assert!(!w.trees.parents_of(&other).is_empty(), "it may still watch");
    w.pass(100);
    w.all_know();
    assert!(w.told.values().all(|a| a.spares.iter().all(|s| s.node != other)));
}

#[test]
fn a_standby_source_takes_over() {
    for bye in [true, false] {
        let mut w = World::with_source(50_000);
        w.source_joins(SOURCE + 1, 40_000);
        w.source_joins(SOURCE + 2, 40_000);
        (0..24).for_each(|n| w.joins(open(n, 4000)));
        w.pass(5000);
        assert_eq!(w.trees.source(), Some(id(SOURCE)));
        assert!(w.told[&id(SOURCE)].source && !w.told[&id(SOURCE + 1)].source);
        assert!(!w.told_parents(SOURCE + 1).is_empty());
        if bye {
            w.trees.leave(w.now, &id(SOURCE));
        } else {
            w.trees.away(w.now, &id(SOURCE));
        }
        w.pass(100);
        assert_eq!(w.trees.source(), Some(id(SOURCE + 1)));
        let told = &w.told[&id(SOURCE + 1)];
        assert!(told.source && told.parents.is_empty() && told.spares.is_empty());
        assert_eq!(w.trees.stats().unfed, 0);
        w.pass(2000);
        if !bye {
            w.source_joins(SOURCE, 50_000);
            w.pass(200);
            assert!(!w.told[&id(SOURCE)].source && !w.told_parents(SOURCE).is_empty());
            assert_eq!(w.trees.source(), Some(id(SOURCE + 1)));
        }
        w.pass(10_000);
        let s = w.trees.stats();
        assert_eq!((s.unfed, s.source_slots_used >= u32::from(K)), (0, true), "{s:?}");
        w.all_know();
    }
}

/// Those who are fed by it say that the source is silent: nobody waits until it is missed, if another one stands by.
#[test]
fn a_silent_source_is_replaced_at_once() {
    for stands_by in [true, false] {
        let mut w = World::with_source(50_000);
        if stands_by {
            w.source_joins(SOURCE + 1, 40_000);
        }
        (0..24).for_each(|n| w.joins(open(n, 4000)));
        w.pass(20_000);
        let fed: Vec<u32> = (0..24).filter(|n| w.parents(*n).iter().any(|(p, _)| *p == id(SOURCE))).collect();
        for child in &fed {
            w.alarm(*child, Alarm::Silent { parent: id(SOURCE) });
        }
        w.pass(100);
        let heard = if stands_by { SOURCE + 1 } else { SOURCE };
        assert_eq!(w.trees.source(), Some(id(heard)), "{} children", fed.len());
        assert!(w.trees.stats().unfed == 0 || !stands_by);
        if stands_by {
            // The same game with the new one has no effect for a while.
            let fed: Vec<u32> = (0..24).filter(|n| w.parents(*n).iter().any(|(p, _)| *p == id(heard))).collect();
            fed.iter().for_each(|child| w.alarm(*child, Alarm::Silent { parent: id(heard) }));
            assert_eq!(w.trees.source(), Some(id(heard)));
        }
    }
}

/// Whoever is fed by the source hears nothing of it for ten seconds: its line is full. All are fed soon afterwards.
#[test]
fn a_source_whose_line_was_full_feeds_all_again() {
    let mut w = World::with_source(50_000);
    (0..24).for_each(|n| w.joins(open(n, 4000)));
    w.pass(20_000);
    for _ in 0..14 {
        let fed: Vec<u32> = (0..24).filter(|n| w.parents(*n).iter().any(|(p, _)| *p == id(SOURCE))).collect();
        for child in fed {
            w.trees.alarm(w.now, &id(child), &Alarm::Silent { parent: id(SOURCE) });
            w.hear();
        }
        w.pass(700);
    }
    assert_eq!(w.accused, [], "no question of trust");
    w.pass(5000);
    let s = w.trees.stats();
    assert_eq!((s.unfed, s.source_slots_used >= u32::from(K)), (0, true), "{s:?}");
    w.all_know();
}

/// Its process was started again, and its children notice that the former one is silent before they hear of the new one.
#[test]
fn a_source_started_again_goes_on_at_once() {
    let mut w = World::with_source(50_000);
    (0..5).for_each(|n| w.joins(open(n, 3000)));
    w.pass(5000);
    let mut again = open(SOURCE, 50_000);
    again.reach.certificate = Hash([2; 32]);
    again.reach.addresses = [(again.reach.addresses[0].ip(), 4434).into()].into();
    w.joins_with(again, Join { source: true, ..Join::to(Version::default()) });
    w.pass(300);
    let fed: Vec<u32> = (0..5).filter(|n| w.parents(*n).iter().any(|(p, _)| *p == id(SOURCE))).collect();
    let before = w.told[&id(fed[0])].generation;
    fed.iter().for_each(|n| w.alarm(*n, Alarm::Silent { parent: id(SOURCE) }));
    w.pass(100);
    let s = w.trees.stats();
    assert_eq!((s.unfed, s.source_slots_used >= u32::from(K)), (0, true), "{s:?}");
    assert!(w.told[&id(fed[0])].generation > before, "it hears of the new one");
    // A second later the word counts.
    w.pass(1000);
    w.alarm(fed[0], Alarm::Silent { parent: id(SOURCE) });
    assert!(w.parents(fed[0]).iter().all(|(p, _)| *p != id(SOURCE)));
}

#[test]
fn a_source_that_is_away_and_comes_back_goes_on() {
    let mut w = World::with_source(50_000);
    (0..24).for_each(|n| w.joins(open(n, 4000)));
    w.pass(5000);
    let before: BTreeMap<u32, _> = (0..24).map(|n| (n, w.parents(n))).collect();
    w.trees.away(w.now, &id(SOURCE));
    w.pass(3000);
    w.source_joins(SOURCE, 50_000);
    w.pass(200);
    assert_eq!(w.trees.source(), Some(id(SOURCE)));
    let same = (0..24).filter(|n| before[n] == w.parents(*n)).count();
    assert!(same >= 20, "{same} keep all their parents");
    assert!(w.told[&id(SOURCE)].source);
}

/// After a restart all come back with what serves them, in whatever order: nothing changes, and nobody is told less.
#[test]
fn after_a_restart_everything_is_adopted() {
    let mut w = World::with_source(50_000);
    w.source_joins(SOURCE + 1, 5000);
    (0..40).for_each(|n| w.joins(open(n, 4000)));
    w.pass(20_000);
    for turn in 0..3 {
        let mut all: Vec<u32> = (0..40).chain([SOURCE + 1, SOURCE]).collect();
        all.rotate_left(turn * 17);
        let before: BTreeMap<u32, _> = all.iter().map(|n| (*n, w.parents(*n))).collect();
        let mut anew = World::begun(true);
        for n in &all {
            let source = *n >= SOURCE;
            let up = w.trees.member_of(&id(*n)).unwrap().info.up;
            let info = crate::dcm::MemberInfo { up, ..open(*n, 0) };
            let join = Join { parents: before[n].clone(), source, ..Join::to(Version::default()) };
            anew.joins_with(info, join);
            anew.pass(50);
            assert!(anew.told.is_empty());
        }
        anew.joins(open(77, 4000));
        anew.pass(1500);
        assert_eq!(anew.trees.source(), Some(id(SOURCE)));
        let moved: Vec<u32> = all.iter().copied().filter(|n| before[n] != anew.parents(*n)).collect();
        // The newcomer takes a place, and upkeep goes on.
        assert!(moved.len() <= 6, "{moved:?}");
        assert_eq!(anew.trees.stats().unfed, 0);
        anew.all_know();
    }
}

/// All places at once are as good as those that were found one by one.
#[test]
fn a_crowd_that_comes_back_and_knows_nothing_is_placed_at_once() {
    let accepts = |n: u32| [Accepts::Open, Accepts::Punchable, Accepts::Punchable, Accepts::DialOnly][n as usize % 4];
    for (some, most_kbit, seed) in [(5, 40_000, 1), (60, 30_000, 2), (400, 15_000, 3), (400, 60_000, 4)] {
        let mut rng = Rng::new(seed, "crowd");
        let all: Vec<_> = (0..some).map(|n| node(n, 500 + rng.below(most_kbit), accepts(n))).collect();
        let [one_by_one, at_once] = [false, true].map(|restarted| {
            let mut w = World::begun(restarted);
            w.source_joins(SOURCE, 50_000);
            all.iter().for_each(|info| w.joins(info.clone()));
            // Until nobody has come for a while: upkeep makes nothing better so soon after a restart.
            w.pass(if restarted { 3000 } else { 500 });
            w.all_know();
            let first = w.trees.stats();
            w.wait(30);
            (first, w.trees.stats())
        });
        let what = format!("{one_by_one:?}, {at_once:?}");
        assert!(at_once.0.unfed <= one_by_one.0.unfed, "{what}");
        assert!(at_once.0.mean_depth <= one_by_one.0.mean_depth * 1.05, "{what}");
        // Nobody lends a slot yet.
        assert!(at_once.1.copies_in <= one_by_one.0.copies_in * 1.25, "{what}");
        let not_from_peers = |s: TreesStats| s.source_slots_used as usize + s.unfed;
        assert!(not_from_peers(at_once.1) <= not_from_peers(one_by_one.1), "{what}");
    }
}

#[test]
fn nobody_takes_the_source_for_itself() {
    let mut w = World::with_source(50_000);
    (0..6).for_each(|n| w.joins(open(n, 6000)));
    let parents = vec![(id(SOURCE), Substreams::all(K))];
    w.joins_with(open(9, 1000), Join { parents, ..Join::to(Version::default()) });
    assert_eq!(w.trees.stats().source_slots_used, u32::from(K));
}

#[test]
fn members_with_limited_sources_are_in_no_tree() {
    let udp = Known { value: false, from: From::Test };
    let walled = Capabilities { udp, ..Capabilities::regular(Accepts::Open) };
    let listed = Capabilities { sources: Known::claim(SourceAccess::Listed), ..Capabilities::regular(Accepts::Open) };
    for capabilities in [walled, listed] {
        let mut w = World::with_source(50_000);
        (0..6).for_each(|n| w.joins(open(n, 6000)));
        w.joins(crate::dcm::MemberInfo { capabilities, ..open(9, 50_000) });
        w.pass(3000);
        assert_eq!((w.parents(9), w.trees.children_of(&id(9))), (vec![], vec![]));
        assert_eq!(w.trees.stats().unfed, 0, "it does not wait for any");
        assert!(w.told[&id(9)].parents.is_empty());
        // It was one that could until now.
        w.joins(crate::dcm::MemberInfo { capabilities, ..open(2, 6000) });
        w.pass(3000);
        assert_eq!((w.parents(2), w.trees.children_of(&id(2))), (vec![], vec![]));
        w.all_know();
    }
}

#[test]
fn dial_only_viewers_are_fed_by_those_that_accept() {
    let mut w = World::with_source(50_000);
    for n in 0..30 {
        w.joins(node(n, 6000, if n % 3 == 0 { Accepts::Open } else { Accepts::DialOnly }));
    }
    w.pass(30_000);
    let s = w.trees.stats();
    assert_eq!(s.unfed, 0, "{s:?}");
    assert!(s.source_slots_used <= u32::from(K) + 2, "{s:?}");
}

#[test]
fn spares_do_not_fall_with_the_parent() {
    let mut w = World::with_source(50_000);
    (0..24).for_each(|n| w.joins(open(n, 4000)));
    w.pass(20_000);
    let (mut named, mut below, mut spares) = (0, 0, BTreeSet::new());
    for n in 0..24 {
        let ix = w.trees.by_node[&id(n)];
        for tree in 0..K {
            let spot = w.trees.spot(tree, ix).unwrap();
            // The source's own child has everybody below it.
            below += u32::from(spot.parent != w.trees.source);
            if let Some(s) = spot.spare {
                named += 1;
                spares.insert(s);
                assert!(w.trees.can_help(w.now, tree, ix, s));
            }
        }
    }
    assert_eq!(named, below);
    assert!(spares.len() >= 8, "they are spread: {spares:?}");
}

#[test]
fn what_changes_about_a_member_moves_what_must_move() {
    let mut w = World::with_source(50_000);
    (0..24).for_each(|n| w.joins(open(n, 6000)));
    w.pass(5000);
    let busy = (0..24).max_by_key(|n| w.trees.member_of(&id(*n)).unwrap().used).unwrap();
    w.trees.set_rate(w.now, &id(busy), Rate::from_mbit(1));
    w.hear();
    assert_eq!(w.trees.member_of(&id(busy)).unwrap().slots, 3);
    assert_eq!(w.trees.stats().unfed, 0);
    w.pass(Micros::from_secs(5).0 / 1000);
    let dial_only = Capabilities::regular(Accepts::DialOnly);
    let reach = w.trees.member_of(&id(3)).unwrap().info.reach.clone();
    w.trees.set_reach(w.now, &id(3), dial_only, reach);
    w.hear();
    w.trees.dial_failed(w.now, &id(5), &w.parents(5)[0].0.clone());
    w.hear();
    w.pass(5000);
    assert_eq!(w.trees.stats().unfed, 0);
    w.all_know();
}

/// Streams of which nothing is to be improved any more, and an edge in it: child, parent, its trees. Neither has only the
/// other one.
fn at_rest() -> (World, u32, NodeId, Substreams) {
    let mut w = World::with_source(50_000);
    (0..24).for_each(|n| w.joins(open(n, 4000)));
    w.wait(30);
    let edges = (0..24).flat_map(|n| w.parents(n).into_iter().map(move |(p, trees)| (n, p, trees)));
    let busy = |(n, p, _): &(u32, NodeId, Substreams)| {
        *p != id(SOURCE) && w.parents(*n).len() >= 3 && w.trees.children_of(p).len() >= 3
    };
    let (child, parent, trees) = edges.filter(busy).max_by_key(|(.., trees)| trees.len()).unwrap();
    (w, child, parent, trees)
}

/// The last pieces of both ends where all come in time.
fn in_time(interval: u64, _: NodeId, _: NodeId, tree: u8) -> (Option<u64>, Option<u64>) {
    (Some(newest(interval, tree)), Some(newest(interval, tree)))
}

/// And where they come after three intervals.
fn late(interval: u64, _: NodeId, _: NodeId, tree: u8) -> (Option<u64>, Option<u64>) {
    (Some(newest(interval, tree)), Some(newest(interval.saturating_sub(3), tree)))
}

#[test]
fn a_congested_link_is_named_once_and_its_child_moved() {
    let (mut w, child, parent, trees) = at_rest();
    let before = w.trees.member_of(&parent).unwrap().clone();
    let siblings = w.trees.children_of(&parent);
    let says = move |i, p, c, t| if (p, c) == (parent, id(child)) { late(i, p, c, t) } else { in_time(i, p, c, t) };
    (0..2).for_each(|_| w.beat(&says));
    assert_eq!(w.troubles, vec![], "once may be luck");
    w.beat(&says);
    assert_eq!(w.troubles, vec![(parent, id(child), Trouble::Congested)]);
    assert!(w.parents(child).iter().all(|(p, _)| *p != parent), "it has others in its place");
    assert!(w.trees.stats().unfed == 0 && w.accused.is_empty());
    let after = w.trees.member_of(&parent).unwrap();
    assert_eq!((after.slots, after.doubt), (before.slots, None), "it is not the parent");
    assert!(before.used - after.used <= trees.len());
    let left = siblings.iter().filter(|s| !w.trees.children_of(&parent).contains(s)).count();
    assert_eq!(left, 1, "the others stay");
    w.pass(200);
    w.all_know();
    (0..6).for_each(|_| w.beat(&says));
    assert_eq!(w.troubles.len(), 1, "{:?}", w.troubles);
    assert!(w.parents(child).iter().all(|(p, _)| *p != parent), "the two do not meet again for a while");
}

#[test]
fn new_edges_are_judged_by_what_moved_over_them() {
    let (mut w, child, parent, trees) = at_rest();
    let says = move |i, p, c, t| if c == id(child) && p == parent { late(i, p, c, t) } else { in_time(i, p, c, t) };
    (0..2).for_each(|_| w.beat(&says));
    w.pass(2000);
    // It goes, and comes back: what was late is forgotten, and it may catch up first.
    let (tree, ix) = (trees.iter().next().unwrap(), w.trees.by_node[&id(child)]);
    let (of, p) = (Substreams::one(tree), w.trees.by_node[&parent]);
    trees.without(of).iter().for_each(|t| w.trees.unlink(w.now, t, ix));
    w.trees.relink(w.now, tree, p, ix);
    w.all_tell(&says);
    w.beat(&says);
    assert!(!w.trees.watch(tree, ix).unwrap().is_compared());
    w.beat(&says);
    assert_eq!(w.troubles, vec![]);
    w.beat(&says);
    assert_eq!(w.troubles, vec![(parent, id(child), Trouble::Congested)]);
}

/// Whose fault it is that pieces are late: what all say, and which pairs are named.
#[test]
fn links_are_named_for_what_is_theirs_only() {
    let (_, child, parent, _) = at_rest();
    let child = id(child);
    let is = move |p: NodeId, c: NodeId| p == parent && c == child;
    let either = |ours: bool, i, p, c, t| if ours { late(i, p, c, t) } else { in_time(i, p, c, t) };
    let stands_still = |t| (Some(newest(0, t)), Some(newest(0, t)));
    let named = vec![(parent, child, Trouble::Congested)];
    let stories: Vec<(&str, Box<Says>, _)> = vec![
        ("all is well", Box::new(in_time), vec![]),
        ("one link", Box::new(move |i, p, c, t| either(is(p, c), i, p, c, t)), named.clone()),
        ("a parent's uplink", Box::new(move |i, p, c, t| either(p == parent, i, p, c, t)), vec![]),
        ("a child's downlink", Box::new(move |i, p, c, t| either(c == child, i, p, c, t)), vec![]),
        (
            "a parent that is behind itself",
            Box::new(move |i, p, c, t| if p == parent { stands_still(t) } else { in_time(i, p, c, t) }),
            vec![],
        ),
        (
            "a link above others: nothing new goes down from there",
            Box::new(move |i, p, c, t| match (is(p, c), p == child) {
                (true, _) => late(i, p, c, t),
                (_, true) => (late(i, p, c, t).1, late(i, p, c, t).1),
                _ => in_time(i, p, c, t),
            }),
            named.clone(),
        ),
        (
            "only the parent speaks of it",
            Box::new(move |i, p, c, t| if is(p, c) { (Some(newest(i, t)), None) } else { in_time(i, p, c, t) }),
            vec![],
        ),
        (
            "only the child does",
            Box::new(move |i, p, c, t| if is(p, c) { (None, Some(0)) } else { in_time(i, p, c, t) }),
            vec![],
        ),
        (
            "a parent claims more than there is",
            Box::new(
                move |i, p, c, t| {
                    if is(p, c) { (Some(u64::MAX - i), Some(newest(i, t))) } else { in_time(i, p, c, t) }
                },
            ),
            vec![],
        ),
        (
            "a parent claims to one child what it did not send: it costs that edge",
            Box::new(
                move |i, p, c, t| {
                    if is(p, c) { (Some(newest(i, t)), Some(newest(0, t))) } else { in_time(i, p, c, t) }
                },
            ),
            named,
        ),
        (
            "a child claims to get nothing of anybody",
            Box::new(move |i, p, c, t| if c == child { (Some(newest(i, t)), Some(0)) } else { in_time(i, p, c, t) }),
            vec![],
        ),
        (
            "a child claims to have more than there is",
            Box::new(
                move |i, p, c, t| if c == child { (Some(newest(i, t)), Some(u64::MAX)) } else { in_time(i, p, c, t) },
            ),
            vec![],
        ),
    ];
    for (what, says, named) in stories {
        let mut w = at_rest().0;
        let slots: Vec<u32> = w.trees.members().map(|m| m.slots).collect();
        let before: Vec<_> = (0..24).map(|n| w.parents(n)).collect();
        (0..4).for_each(|_| w.beat(&*says));
        assert_eq!(w.troubles, named, "{what}");
        assert_eq!((w.accused.len(), w.trees.stats().unfed), (0, 0), "{what}");
        assert_eq!(w.trees.members().map(|m| m.slots).collect::<Vec<_>>(), slots, "{what}: nobody is believed less");
        let moved = (0..24).filter(|n| before[*n as usize] != w.parents(*n)).count();
        assert!(if named.is_empty() { moved == 0 } else { moved <= 3 }, "{what}: {moved} moved");
    }
}

/// Heartbeats as fast as a child can say them make nothing of one word of its parent.
#[test]
fn a_child_that_invents_intervals_is_not_heard() {
    let (mut w, child, parent, _) = at_rest();
    w.beat(&in_time);
    w.beat(&in_time);
    let before = w.parents(child);
    let says = move |i, p, c, t| if p == parent { (None, Some(0)) } else { in_time(i, p, c, t) };
    (3..200).for_each(|interval| w.tells(&id(child), interval, &says));
    w.hear();
    assert_eq!((w.troubles.len(), w.parents(child)), (0, before));
}
