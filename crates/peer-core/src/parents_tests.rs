//! A child among parents that die, keep silent, trickle or spoil: how long it waits, and whom it leaves when.

use super::*;
use crate::swarm::{Config, Input};
use headwater_model::Substreams;
use headwater_model::assignment::{Assignment, Generation, Reach};
use headwater_model::id::{ContentId, Version};
use headwater_model::layout::Layout;
use headwater_model::node::SourceClass;
use headwater_model::time::Rate;
use std::collections::BTreeMap;

const PIECE_BYTES: u32 = 64 << 10;
const STEP_MS: u64 = 50;
const VERSION: Version = Version { content: ContentId([9; 32]), epoch: 1 };

/// How a parent behaves from a moment on (milliseconds).
#[derive(Clone, Copy, Debug, PartialEq)]
enum Turns {
    Never,
    /// Says and sends nothing more.
    Dead(u64),
    /// Sends one piece in so many milliseconds.
    Trickle(u64, u64),
    /// Answers, and never says what it holds.
    Mute,
    /// Gets a piece in so many milliseconds itself.
    Fetching(u64),
    /// Is no longer assigned, and serves on.
    Unassigned(u64),
    /// The same, and it dies before it has served what it was asked for.
    UnassignedAndDead(u64),
}

struct Server {
    node: NodeId,
    rate: u64,
    turns: Turns,
    queue: VecDeque<u32>,
    sent: f64,
    began: bool,
}

/// What became of a story: the longest wait without a piece, and when (ms) which parent was left with which alarm.
#[derive(Debug, Default)]
struct Told {
    longest_wait_ms: u64,
    left: Vec<(u8, u64, &'static str)>,
    complete_ms: Option<u64>,
    /// Pieces asked for and not taken back: how often.
    asked: BTreeMap<u32, i32>,
    /// Which parent's edge was closed when.
    closed: Vec<(u8, u64)>,
}

/// A parent that promises so many bytes per second.
fn entry(node: NodeId, rate: u64) -> Parent {
    Parent {
        node,
        class: SourceClass::Peer,
        dial: true,
        promised: Rate(rate),
        reach: Reach::default(),
        substreams: Substreams::default(),
    }
}

/// A node that has nothing but the hashes, and may not read from the origin.
fn newcomer(layout: &Layout) -> Swarm {
    let (have, known) = (Bits::new(layout.pieces()), Bits::full(headwater_model::merkle::pages(layout.pieces())));
    Swarm::new(Time(1), VERSION, layout.clone(), have, known, false, Config::default(), 7)
}

/// A child with these parents (bytes per second, behaviour), and a spare that serves well.
fn tell(parents: &[(u64, Turns)], megabytes: u64) -> Told {
    let layout = Layout::single(PIECE_BYTES, megabytes << 20).unwrap();
    let mut swarm = newcomer(&layout);
    let mut servers: Vec<Server> = parents
        .iter()
        .chain(&[(1_000_000, Turns::Never)])
        .enumerate()
        .map(|(i, (rate, turns))| Server {
            node: NodeId([i as u8 + 1; 32]),
            rate: *rate,
            turns: *turns,
            queue: VecDeque::new(),
            sent: 0.0,
            began: false,
        })
        .collect();
    let entry = |s: &Server| entry(s.node, s.rate);
    let last = servers.len() - 1;
    let mut assignment = Assignment {
        version: VERSION,
        generation: Generation { epoch: 1, counter: 1 },
        parents: servers[..last].iter().map(entry).collect(),
        spares: vec![entry(&servers[last])],
        helpers: vec![],
        children: Vec::new(),
        source: false,
    };
    let mut told = Told::default();
    let mut out = Vec::new();
    swarm.handle(Time(1), Input::Control(true), &mut out);
    swarm.handle(Time(1), Input::Assigned(assignment.clone()), &mut out);
    let mut received_ms = 0;
    for ms in (0..120_000).step_by(STEP_MS as usize) {
        let now = Time(1 + ms * 1000);
        swarm.handle(now, Input::Tick, &mut out);
        for s in &mut servers {
            if matches!(s.turns, Turns::Unassigned(at) | Turns::UnassignedAndDead(at) if ms == at) {
                assignment.generation.counter += 1;
                assignment.parents.retain(|p| p.node != s.node);
                swarm.handle(now, Input::Assigned(assignment.clone()), &mut out);
            }
            let per_ms = match s.turns {
                Turns::Dead(at) | Turns::UnassignedAndDead(at) if ms >= at => 0.0,
                Turns::Trickle(at, every) if ms >= at => f64::from(PIECE_BYTES) / every as f64,
                _ => s.rate as f64 / 1000.0,
            };
            if !s.began && !s.queue.is_empty() && per_ms > 0.0 {
                s.began = true;
                swarm.handle(now, Input::Began(s.node), &mut out);
            }
            if let Turns::Fetching(every) = s.turns
                && ms % every == 0
            {
                // Each another one.
                let piece = (ms / every) as u32 * 8 + u32::from(s.node.0[0]);
                swarm.handle(now, Input::Has(s.node, vec![piece]), &mut out);
            }
            s.sent = if s.queue.is_empty() { 0.0 } else { s.sent + per_ms * STEP_MS as f64 };
            while s.sent >= f64::from(PIECE_BYTES)
                && let Some(piece) = s.queue.pop_front()
            {
                s.sent -= f64::from(PIECE_BYTES);
                let here = swarm.have().get(piece);
                let outcome = if here { PieceOutcome::Already } else { PieceOutcome::Stored };
                let from = crate::PieceFrom::Parent(s.node);
                swarm.handle(now, Input::Piece { from, piece, outcome }, &mut out);
                told.longest_wait_ms = told.longest_wait_ms.max(ms - received_ms);
                received_ms = ms;
            }
        }
        while !out.is_empty() {
            for o in std::mem::take(&mut out) {
                answer(&mut swarm, &mut servers, &layout, now, o, &mut told, &mut out);
            }
        }
        assert_eq!(swarm.check(), Vec::<String>::new(), "at {ms} ms");
        if swarm.is_complete() {
            told.complete_ms = Some(ms);
            break;
        }
    }
    told
}

fn server(servers: &mut [Server], node: NodeId) -> Option<&mut Server> {
    servers.iter_mut().find(|s| s.node == node)
}

/// What the network and the parents do about an output.
fn answer(
    swarm: &mut Swarm,
    servers: &mut [Server],
    layout: &Layout,
    now: Time,
    output: Output,
    told: &mut Told,
    out: &mut Vec<Output>,
) {
    let ms = now.0 / 1000;
    let alive = |s: &&mut Server| !matches!(s.turns, Turns::Dead(at) if ms >= at);
    match output {
        Output::Dial(p) => swarm.handle(now, Input::Connected(p.node), out),
        Output::OpenEdge(node) => {
            if let Some(s) = server(servers, node).filter(alive) {
                swarm.handle(now, Input::Answered { parent: node, refused: None }, out);
                if matches!(s.turns, Turns::Fetching(_)) {
                    swarm.handle(now, Input::HasAll(node, Bits::new(layout.pieces())), out);
                } else if s.turns != Turns::Mute {
                    swarm.handle(now, Input::HasAll(node, Bits::full(layout.pieces())), out);
                }
            }
        }
        Output::Ask(node, pieces) => {
            pieces.iter().for_each(|p| *told.asked.entry(*p).or_default() += 1);
            server(servers, node).unwrap().queue.extend(pieces);
        }
        Output::Unask(node, pieces) => {
            pieces.iter().for_each(|p| *told.asked.entry(*p).or_default() -= 1);
            server(servers, node).unwrap().queue.retain(|p| !pieces.contains(p));
        }
        Output::CloseEdge(node) => {
            told.closed.push((node.0[0], ms));
            server(servers, node).unwrap().queue.clear();
        }
        Output::Alarm(Alarm::Silent { parent }) => told.left.push((parent.0[0], ms, "silent")),
        Output::Alarm(Alarm::Slow { parent }) => told.left.push((parent.0[0], ms, "slow")),
        Output::Alarm(a) => panic!("at {ms} ms: {a:?}"),
        _ => {}
    }
}

const GOOD: (u64, Turns) = (500_000, Turns::Never);

/// Parents that were left within a time after they turned bad, and nobody else.
fn check(parents: &[(u64, Turns)], expected: &[(u8, &str)], turned_ms: u64, within_ms: u64) {
    let told = tell(parents, 24);
    assert!(told.longest_wait_ms <= 2000, "{parents:?}: {told:?}");
    assert!(told.complete_ms.is_some(), "{parents:?}: {told:?}");
    let mut left: Vec<(u8, &str)> = told.left.iter().map(|(n, _, why)| (*n, *why)).collect();
    left.sort_unstable();
    left.dedup();
    assert_eq!(left, expected, "{parents:?}: {told:?}");
    for (node, ..) in expected {
        let first = told.left.iter().find(|(n, ..)| n == node).unwrap().1;
        assert!(first - turned_ms <= within_ms, "{parents:?}: {told:?}");
    }
}

#[test]
fn what_is_on_its_way_from_a_parent_that_is_no_longer_assigned_is_not_asked_of_others() {
    for parents in [
        vec![GOOD, (500_000, Turns::Unassigned(3000))],
        vec![(2_000_000, Turns::Unassigned(3000)), GOOD, (500_000, Turns::Unassigned(3000))],
    ] {
        let told = tell(&parents, 24);
        assert!(told.left.is_empty() && told.longest_wait_ms <= 500 && told.complete_ms.is_some(), "{told:?}");
        let twice: Vec<_> = told.asked.iter().filter(|(_, n)| **n != 1).collect();
        assert!(twice.is_empty(), "{parents:?}: {twice:?}");
        for (i, _) in parents.iter().enumerate().filter(|(_, (_, turns))| *turns == Turns::Unassigned(3000)) {
            let at = told.closed.iter().find(|(n, _)| usize::from(*n) == i + 1).map(|(_, at)| *at);
            assert!(at.is_some_and(|at| at > 3000 && at < 4500), "{parents:?}: {told:?}");
        }
    }
    // It is not waited for longer than what it sends is worth, and nobody is accused.
    let told = tell(&[GOOD, (500_000, Turns::UnassignedAndDead(3000))], 24);
    assert!(told.left.is_empty() && told.complete_ms.is_some(), "{told:?}");
    assert!(told.closed.iter().any(|(n, at)| *n == 2 && *at <= 5100), "{told:?}");
    // One that sends next to nothing is closed at once.
    let told = tell(&[GOOD, (20_000, Turns::Unassigned(3000))], 24);
    assert!(told.closed.contains(&(2, 3000)), "{told:?}");
}

#[test]
fn a_dead_parents_pieces_are_asked_of_others_before_it_is_left() {
    check(&[GOOD, GOOD, (500_000, Turns::Dead(3000))], &[(3, "silent")], 3000, 3000);
    check(
        &[GOOD, (500_000, Turns::Dead(3000)), (500_000, Turns::Dead(3000))],
        &[(2, "silent"), (3, "silent")],
        3000,
        3000,
    );
    // All of them: the spare serves.
    check(&[(500_000, Turns::Dead(3000)), (500_000, Turns::Dead(3000))], &[(1, "silent"), (2, "silent")], 3000, 3000);
}

#[test]
fn silent_and_mute_parents_are_left() {
    check(&[GOOD, GOOD, (500_000, Turns::Dead(0))], &[(3, "silent")], 0, 3000);
    check(&[GOOD, GOOD, (500_000, Turns::Mute)], &[(3, "silent")], 0, 3000);
    // One of whose uplink little was believed.
    check(&[GOOD, GOOD, (70_000, Turns::Dead(0))], &[(3, "silent")], 0, 3000);
    check(&[GOOD, GOOD, (10_000, Turns::Dead(0))], &[(3, "silent")], 0, 3000);
}

#[test]
fn requests_that_are_taken_back_do_not_excuse_silence() {
    let entry = entry(NodeId([1; 32]), 500_000);
    let mut p = ParentLink::new(Time(1), entry, true);
    let at = |ms: u64| Time(1 + ms * 1000);
    for ms in (0..7000).step_by(1000) {
        p.asked.push_back(1);
        p.began(at(ms));
        p.asked.clear();
        p.settled(at(ms + 300));
    }
    p.asked.push_back(1);
    p.began(at(9000));
    assert_eq!(p.quiet(at(9100)), Micros::from_millis(2200), "only what was waited for counts");
    p.heard(at(9200));
    assert_eq!(p.quiet(at(9200)), Micros(0));
}

#[test]
fn a_trickle_is_left_within_six_seconds() {
    check(&[GOOD, GOOD, (500_000, Turns::Trickle(3000, 1500))], &[(3, "slow")], 3000, 6000);
    check(&[GOOD, GOOD, GOOD, (500_000, Turns::Trickle(0, 1800))], &[(4, "slow")], 0, 6000);
    // So little was believed of it that the trickle is almost what it promised.
    check(&[GOOD, GOOD, GOOD, (70_000, Turns::Trickle(0, 1900))], &[(4, "slow")], 0, 6000);
}

#[test]
fn a_trickle_is_left_where_others_have_little_to_give() {
    let fetching = (1_000_000, Turns::Fetching(1200));
    let told = tell(&[fetching, fetching, fetching, (500_000, Turns::Trickle(0, 1900))], 24);
    let left: Vec<(u8, &str)> = told.left.iter().map(|(n, _, why)| (*n, *why)).collect();
    assert!(left == [(4, "slow")] && told.left[0].1 <= 6000, "{told:?}");
    // One that is as fast as it promised is not.
    let told = tell(&[fetching, fetching, fetching, (40_000, Turns::Trickle(0, 1600))], 2);
    assert_eq!(told.left, []);
}

#[test]
fn a_spare_that_becomes_a_parent_is_dialled() {
    let (mut swarm, mut out) = (newcomer(&Layout::single(PIECE_BYTES, 1 << 20).unwrap()), Vec::new());
    let entry = entry(NodeId([1; 32]), 500_000);
    let assign = |counter, parents: &[Parent], spares: &[Parent]| {
        let generation = Generation { epoch: 1, counter };
        let (parents, spares) = (parents.to_vec(), spares.to_vec());
        Input::Assigned(Assignment {
            version: VERSION,
            generation,
            parents,
            spares,
            helpers: vec![],
            children: Vec::new(),
            source: false,
        })
    };
    swarm.handle(Time(1), assign(1, &[], std::slice::from_ref(&entry)), &mut out);
    assert!(!out.iter().any(|o| matches!(o, Output::Dial(_))));
    swarm.handle(Time(2), assign(2, std::slice::from_ref(&entry), &[]), &mut out);
    swarm.handle(Time(3), assign(3, std::slice::from_ref(&entry), &[]), &mut out);
    assert_eq!(out.iter().filter(|o| matches!(o, Output::Dial(_))).count(), 1);
}

#[test]
fn a_bad_piece_of_a_parent_that_was_left_is_told_once() {
    let (mut swarm, mut out) = (newcomer(&Layout::single(PIECE_BYTES, 1 << 20).unwrap()), Vec::new());
    let from = crate::PieceFrom::Parent(NodeId([3; 32]));
    for piece in 0..4 {
        swarm.handle(Time(2), Input::Piece { from, piece, outcome: PieceOutcome::Bad }, &mut out);
    }
    let alarms = out.iter().filter(|o| matches!(o, Output::Alarm(Alarm::BadPieces { .. })));
    assert_eq!(alarms.count(), 1, "{out:?}");
}

#[test]
fn a_piece_that_is_on_disk_already_counts_though_nobody_told_of_it() {
    let (mut swarm, mut out) = (newcomer(&Layout::single(PIECE_BYTES, 1 << 20).unwrap()), Vec::new());
    let from = crate::PieceFrom::Origin;
    for outcome in [PieceOutcome::Already, PieceOutcome::Stored] {
        swarm.handle(Time(2), Input::Piece { from, piece: 5, outcome }, &mut out);
        assert!(swarm.have().get(5));
        assert_eq!(swarm.check(), Vec::<String>::new());
    }
}

#[test]
fn an_address_that_attacks_is_told_of_once_a_minute() {
    let (mut swarm, mut out) = (newcomer(&Layout::single(PIECE_BYTES, 1 << 20).unwrap()), Vec::new());
    for s in 0..90 {
        swarm.handle(Time(1 + s * 1_000_000), Input::Attacked([10, 0, 0, 1].into()), &mut out);
    }
    let told = out.iter().filter(|o| matches!(o, Output::Alarm(Alarm::Attacked { .. }))).count();
    assert_eq!(told, 2);
    // By many addresses it is not made to shout.
    for n in 0..250 {
        swarm.handle(Time(91_000_000), Input::Attacked([10, 0, 1, n].into()), &mut out);
    }
    assert!(out.iter().filter(|o| matches!(o, Output::Alarm(_))).count() < 24);
}

#[test]
fn honest_parents_of_small_uplinks_are_kept() {
    check(&[GOOD, GOOD, (20_000, Turns::Never)], &[], 0, 0);
    check(&[(2_000_000, Turns::Never), (60_000, Turns::Never), (60_000, Turns::Never)], &[], 0, 0);
    // Half of the promise, as its uplink is shared.
    check(&[GOOD, GOOD, (500_000, Turns::Trickle(0, 262))], &[], 0, 0);
}

#[test]
fn a_paused_child_asks_nobody_and_begins_anew_with_whatever_assignment() {
    let layout = Layout::single(PIECE_BYTES, 4 << 20).unwrap();
    let (mut swarm, parent) = (newcomer(&layout), NodeId([1; 32]));
    let assigned = |counter| {
        let (parents, generation) = (vec![entry(parent, 1_000_000)], Generation { epoch: 1, counter });
        Input::Assigned(Assignment {
            version: VERSION,
            generation,
            parents,
            spares: vec![],
            helpers: vec![],
            children: vec![],
            source: false,
        })
    };
    let opened = [
        Input::Connected(parent),
        Input::Answered { parent, refused: None },
        Input::HasAll(parent, Bits::full(layout.pieces())),
    ];
    let mut say = |at: u64, inputs: Vec<Input>| {
        let mut out = Vec::new();
        inputs.into_iter().for_each(|input| swarm.handle(Time(at), input, &mut out));
        out
    };
    let asks = |out: &[Output]| out.iter().any(|o| matches!(o, Output::Ask(..)));
    let begins = |counter| [vec![Input::Control(true), assigned(counter)], opened.to_vec()].concat();
    assert!(asks(&say(1, begins(7))));
    assert_eq!(say(2, vec![Input::Pause(true)]), [Output::CloseEdge(parent)]);
    assert_eq!(say(60_000_000, [begins(8), vec![Input::Tick]].concat()), []);
    assert_eq!(say(60_000_001, vec![Input::Pause(false)]), []);
    assert!(asks(&say(60_000_002, begins(2))));
}

#[test]
fn no_more_is_asked_of_parents_than_the_downlink_may_take() {
    let layout = Layout::single(PIECE_BYTES, 64 << 20).unwrap();
    let (mut swarm, mut intake, mut asked) = (newcomer(&layout), crate::Intake::default(), 0);
    intake.limit(Time(1), Some(Rate(500_000)));
    let parents: Vec<NodeId> = (1..5).map(|n| NodeId([n; 32])).collect();
    let mut inputs = vec![
        Input::Control(true),
        Input::Assigned(Assignment {
            version: VERSION,
            generation: Generation { epoch: 1, counter: 1 },
            parents: parents.iter().map(|p| entry(*p, 10_000_000)).collect(),
            spares: vec![],
            helpers: vec![],
            children: vec![],
            source: false,
        }),
    ];
    for p in &parents {
        inputs.extend([
            Input::Connected(*p),
            Input::Answered { parent: *p, refused: None },
            Input::HasAll(*p, Bits::full(layout.pieces())),
        ]);
    }
    let mut now = Time(1);
    while now.0 < 30_000_000 {
        let mut out = Vec::new();
        inputs.push(Input::Tick);
        inputs.drain(..).for_each(|input| swarm.handle_within(now, &mut intake, input, &mut out));
        for o in out {
            match o {
                // Whoever is asked brings it at once.
                Output::Ask(parent, pieces) => {
                    asked += pieces.len() as u64;
                    let came = |piece| Input::Piece {
                        from: crate::PieceFrom::Parent(parent),
                        piece,
                        outcome: crate::PieceOutcome::Stored,
                    };
                    inputs.extend(pieces.into_iter().map(came));
                }
                Output::Alarm(alarm) => panic!("{alarm:?} at {now:?}"),
                _ => {}
            }
        }
        now = swarm.next_timeout(now).max(now + Micros::from_millis(50));
    }
    let rate = asked * u64::from(PIECE_BYTES) / 30;
    assert!((440_000..=490_000).contains(&rate), "{rate} bytes a second of payload");
}

#[test]
fn an_edge_is_opened_anew_on_a_newer_connection() {
    let layout = Layout::single(PIECE_BYTES, 4 << 20).unwrap();
    let (mut swarm, parent) = (newcomer(&layout), NodeId([1; 32]));
    let assignment = Assignment {
        version: VERSION,
        generation: Generation { epoch: 1, counter: 1 },
        parents: vec![entry(parent, 1_000_000)],
        spares: vec![],
        helpers: vec![],
        children: vec![],
        source: false,
    };
    let opened = [
        Input::Connected(parent),
        Input::Answered { parent, refused: None },
        Input::HasAll(parent, Bits::full(layout.pieces())),
    ];
    let mut say = |inputs: Vec<Input>| {
        let mut out = Vec::new();
        inputs.into_iter().for_each(|input| swarm.handle(Time(1), input, &mut out));
        out
    };
    let asked = |out: &[Output]| -> Vec<u32> {
        let of = |o: &Output| if let Output::Ask(_, pieces) = o { pieces.clone() } else { Vec::new() };
        out.iter().flat_map(of).collect()
    };
    let begin = vec![Input::Control(true), Input::Assigned(assignment)];
    assert!(!asked(&say([begin, opened.to_vec()].concat())).is_empty());
    // The other end was restarted and dials before this end knows.
    let out = say(vec![Input::Replaced(parent), Input::Connected(parent)]);
    assert_eq!(out, [Output::OpenEdge(parent)], "it is not lost: nobody is told, no spare is called");
    assert!(!asked(&say(opened[1..].to_vec())).is_empty());
}
