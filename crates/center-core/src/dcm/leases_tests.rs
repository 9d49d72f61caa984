//! What becomes of leases whose members come and go.

use super::*;
use crate::dcm::test_world::{CROWD, RUNS, World, id, open};
use headwater_model::id::NodeId;
use headwater_model::report::Alarm;
use headwater_model::{Rate, Role};

fn joins(w: &mut World, n: u8, session: u64, leases: Vec<u32>) {
    w.joins_with(n, session, open(), Role::Peer, false, leases);
}

fn runs_given(w: &mut World, n: u8) -> Vec<u32> {
    w.take(n).into_iter().map(|l| l.run).collect()
}

/// One node, which has its first run and fetches others in all slots: those.
fn under_way() -> (World, Vec<u32>) {
    let mut w = World::new();
    joins(&mut w, 1, 1, vec![]);
    assert_eq!(runs_given(&mut w, 1), [0], "one at first: others may be about to join");
    w.pass(2500);
    w.dcm.lease_done(w.now, &id(1), 0);
    w.pass(0);
    let its = runs_given(&mut w, 1);
    assert!(its.len() > 3 && !w.dcm.leases().has_slot(), "{its:?}");
    (w, its)
}

#[test]
fn those_who_join_together_get_one_lease_each() {
    let mut w = World::new();
    (1..=3).for_each(|n| joins(&mut w, n, u64::from(n), vec![]));
    w.pass(1000);
    let to: Vec<NodeId> = w.leases.iter().map(|(node, _)| *node).collect();
    assert_eq!(to, [id(1), id(2), id(3)]);
}

#[test]
fn leases_go_round_in_proportion_to_uplinks() {
    let mut w = World::new();
    (1..=9).for_each(|n| joins(&mut w, n, u64::from(n), vec![]));
    w.dcm.set_rate(&id(9), Rate::from_mbit(80));
    let mut given = [0; 10];
    for _ in 0..5 {
        w.pass(4500);
        for (run, a) in w.dcm.leases().active().clone() {
            let node = w.dcm.node_of(a.to).unwrap();
            given[node.0[0] as usize] += 1;
            w.dcm.lease_done(w.now, &node, run);
        }
    }
    let (least, most) = (given[1..9].iter().min().unwrap(), given[1..9].iter().max().unwrap());
    assert!(most - least <= 1 && given[9] >= 2 * most, "{given:?}");
}

#[test]
fn a_second_join_in_one_session_ends_no_lease() {
    let (mut w, first) = under_way();
    // The log is open; its leases came before, or are on their way.
    joins(&mut w, 1, 1, vec![]);
    joins(&mut w, 2, 2, vec![]);
    assert!(w.leases.is_empty() && w.revoked.is_empty());
    // A new process in a new session knows nothing of them.
    joins(&mut w, 1, 3, vec![]);
    let again: Vec<u32> = w.leases.iter().map(|(_, l)| l.run).collect();
    assert!(again.len() >= 4 && first.starts_with(&again), "{again:?}");
}

#[test]
fn who_comes_back_soon_keeps_what_it_fetches() {
    let (mut w, its) = under_way();
    joins(&mut w, 2, 2, vec![]);
    w.dcm.away(w.now, &id(1));
    w.pass(1_500);
    assert!(w.leases.is_empty(), "nobody else fetches them yet");
    joins(&mut w, 1, 3, its.clone());
    w.pass(3_000);
    assert!(w.leases.is_empty() && w.revoked.is_empty());
    // Who does not come back loses them.
    w.dcm.away(w.now, &id(1));
    w.pass(5_000);
    let others = runs_given(&mut w, 2);
    assert_eq!(others, [0, 1, 2, 3, 4], "what it held is nobody's either");
    // Too late: another one fetches them.
    joins(&mut w, 1, 4, its.clone());
    let mut revoked: Vec<u32> = w.revoked.iter().map(|(_, run)| *run).collect();
    revoked.dedup();
    assert!(revoked.ends_with(&[1, 2, 3, 4]), "{revoked:?}");
}

#[test]
fn what_is_fetched_alone_becomes_a_lease() {
    let mut w = World::new();
    joins(&mut w, 1, 1, vec![]);
    runs_given(&mut w, 1);
    joins(&mut w, 2, 2, vec![RUNS - 1, RUNS - 2, 0]);
    assert_eq!(w.revoked, [(id(2), 0)], "one of them is another's");
    let of_two: Vec<u32> = w.dcm.leases().active().iter().filter(|(_, a)| a.to == 1).map(|(run, _)| *run).collect();
    assert_eq!(of_two, [RUNS - 2, RUNS - 1]);
}

#[test]
fn what_a_reader_needs_next_is_leased_next_and_to_its_node() {
    let (mut w, _) = under_way();
    joins(&mut w, 2, 2, vec![]);
    let (under_way, slots) = (w.dcm.leases().active().clone(), w.dcm.leases().slots() as usize);
    assert_eq!(under_way.len(), slots);
    w.leases.clear();
    w.dcm.alarm(w.now, &id(2), &Alarm::Reading { runs: vec![20, 11, RUNS + 5] });
    w.pass(100);
    let given = |w: &World| w.leases.iter().map(|(node, lease)| (*node, lease.run)).collect::<Vec<_>>();
    assert_eq!(given(&w), [(id(2), 11), (id(2), 20)], "it does not wait for a slot");
    for first in [12, 16, 21, 5, 8] {
        w.dcm.alarm(w.now, &id(2), &Alarm::Reading { runs: (first..first + 4).collect() });
        w.pass(100);
    }
    assert_eq!(w.dcm.leases().active().len(), 4 * slots, "no more than so many");
    w.leases.clear();
    for (run, a) in under_way.iter().take(1) {
        let node = w.dcm.node_of(a.to).unwrap();
        w.dcm.lease_done(w.now, &node, *run);
    }
    w.pass(100);
    let given = given(&w);
    assert!(!given.is_empty() && given.iter().all(|(node, _)| *node == id(2)), "{given:?}");
    assert!(w.dcm.leases().active().len() <= 4 * w.dcm.leases().slots() as usize, "no more than so many");
}

#[test]
fn who_fetches_what_a_reader_needs_becomes_its_parent() {
    let mut w = World::new();
    joins(&mut w, 1, 1, vec![]);
    joins(&mut w, 2, 2, vec![]);
    let (run, fetcher) = w.dcm.leases().active().iter().map(|(run, a)| (*run, a.to)).next().unwrap();
    let fetcher = w.dcm.node_of(fetcher).unwrap();
    let reader = if fetcher == id(1) { id(2) } else { id(1) };
    w.dcm.alarm(w.now, &reader, &Alarm::Reading { runs: vec![run] });
    w.pass(500);
    assert!(w.assigned[&reader].parents.iter().any(|p| p.node == fetcher));
}

/// Leases under way, after each in `took_s` was done after that time, and others that began with it were not.
fn slots_after(took_s: &[u64]) -> u32 {
    let mut leases = Leases::new(2048, 4, 32);
    for s in took_s {
        leases.learn(s * 1_000_000, true);
    }
    leases.slots()
}

#[test]
fn as_many_at_once_as_take_seconds() {
    assert_eq!(slots_after(&[]), 4);
    assert_eq!(slots_after(&[1; 40]), 32);
    assert_eq!(slots_after(&[6; 40]), 4);
    assert_eq!(slots_after(&[1, 1, 1, 1, 6, 6, 6, 6]), 8, "enough");
    let crowded = [vec![1; 10], vec![20; 40]].concat();
    assert_eq!(slots_after(&crowded), 4);
    assert_eq!(slots_after(&[1, 30, 1]), 5, "one that took long is no trend, but a warning");
    assert_eq!(slots_after(&[1, 30, 1, 1, 1]), 7);
}

#[test]
fn what_is_given_up_late_counts_as_slow() {
    let mut leases = Leases::new(2048, 4, 32);
    (0..8).for_each(|_| leases.learn(1_000_000, true));
    assert_eq!(leases.slots(), 12);
    leases.learn(500_000, false);
    assert_eq!(leases.duration_us, Some(1_000_000), "one that ended early says nothing");
    (0..40).for_each(|_| leases.learn(20_000_000, false));
    assert_eq!(leases.slots(), 4);
}

#[test]
fn after_a_restart_those_that_come_back_are_heard_first() {
    let mut w = World::begun(true);
    w.pass(300);
    joins(&mut w, 1, 1, vec![7]);
    w.pass(600);
    joins(&mut w, 2, 2, vec![]);
    w.pass(600);
    assert!(w.leases.is_empty() && w.revoked.is_empty(), "others may come");
    assert_eq!(w.dcm.leases().active().keys().copied().collect::<Vec<_>>(), [7], "what one works on stays its own");
    w.pass(500);
    assert!(!w.leases.is_empty(), "nobody has come for a second");
    // However many come, it does not last longer than settling may.
    let mut w = World::begun(true);
    for n in 1..=6 {
        joins(&mut w, n, 1, vec![]);
        w.pass(700);
    }
    assert!(!w.leases.is_empty());
}

#[test]
fn the_last_runs_are_not_waited_for_long() {
    let mut w = World::new();
    joins(&mut w, 1, 1, vec![]);
    joins(&mut w, 2, 2, vec![]);
    let mut slow = None;
    // Each lease takes a second, but one of the last four.
    for _ in 0..60 {
        w.pass(900);
        for (node, lease) in std::mem::take(&mut w.leases) {
            if lease.run == RUNS - 2 {
                slow = Some((node, w.now));
            } else {
                w.dcm.lease_done(w.now, &node, lease.run);
            }
        }
        if w.dcm.leases().unheld() == 0 && w.dcm.leases().active().len() == 1 {
            break;
        }
    }
    let (first, since) = slow.unwrap();
    let (second, lease) = loop {
        w.pass(400);
        assert!(w.now.since(since).0 < 6_000_000, "nobody else gets it");
        if let Some(given) = w.leases.pop() {
            break given;
        }
    };
    assert!(lease.run == RUNS - 2 && second != first && w.revoked == [(first, RUNS - 2)]);
    // Once only: the origin may be slow.
    w.pass(6_000);
    assert!(w.leases.is_empty());
}

/// Three fetch what is leased to them within 0.8 s, and pass it on; a crowd from one network takes leases and drops them, as
/// `crowd` does to one of it every 0.1 s. When all three have everything.
fn all_have_it_after(mut crowd: impl FnMut(&mut World, u8)) -> Option<u64> {
    let mut w = World::new();
    (1..=3).for_each(|n| joins(&mut w, n, u64::from(n), vec![]));
    (0..40).for_each(|n| joins(&mut w, CROWD + n, 1, vec![]));
    let mut fetched = Bits::new(RUNS);
    let mut fetching = Vec::new();
    for tenth in 0..1200_u64 {
        w.pass(0);
        crowd(&mut w, CROWD + (tenth * 7 % 40) as u8);
        let revoked = std::mem::take(&mut w.revoked);
        fetching.retain(|(_, node, run)| !revoked.contains(&(*node, *run)));
        let given = std::mem::take(&mut w.leases).into_iter().filter(|(node, _)| *node <= id(3));
        fetching.extend(given.map(|(node, lease)| (tenth + 8, node, lease.run)));
        fetching.retain(|(at, node, run)| {
            let done = *at <= tenth;
            if done {
                w.dcm.lease_done(w.now, node, *run);
                fetched.set(*run);
            }
            !done
        });
        if fetched.ones() == RUNS {
            return Some(tenth / 10);
        }
        if tenth % 20 == 0 {
            let lacks: Vec<u32> = (0..RUNS).filter(|run| !fetched.get(*run)).collect();
            for n in 1..=3 {
                w.dcm.alarm(w.now, &id(n), &Alarm::Starving { runs: lacks.clone() });
            }
        }
    }
    None
}

#[test]
fn those_who_take_leases_and_drop_them_do_not_keep_them_from_others() {
    let check = |story: &str, crowd: &mut dyn FnMut(&mut World, u8), within_s: u64| {
        let took = all_have_it_after(crowd);
        assert!(took.is_some_and(|s| s <= within_s), "{story}: {took:?} s");
    };
    check("they keep silent", &mut |_, _| {}, 40);
    let starve = |w: &mut World, n: u8| {
        w.dcm.alarm(w.now, &id(n), &Alarm::Starving { runs: (0..16).collect() });
    };
    check("they say that they starve", &mut { starve }, 40);
    let mut session = 1;
    check(
        "they come again",
        &mut |w, n| {
            session += 1;
            joins(w, n, session, vec![]);
        },
        40,
    );
    check(
        "they claim to work on them",
        &mut |w, n| {
            session += 1;
            joins(w, n, session, (0..RUNS).collect());
        },
        40,
    );
    let fail = |w: &mut World, n: u8| (0..RUNS).for_each(|run| w.dcm.lease_failed(w.now, &id(n), run, false));
    check("they say that they cannot be fetched", &mut { fail }, 40);
}
