use super::*;
use crate::swarm::{Config, Input, PieceOutcome};
use crate::{PieceFrom, Swarm};
use headwater_model::Substreams;
use headwater_model::assignment::{Assignment, Generation, Lease, LeaseSource, Parent, Reach};
use headwater_model::bits::Bits;
use headwater_model::id::{ContentId, Version};
use headwater_model::layout::Layout;
use headwater_model::merkle;
use headwater_model::node::SourceClass;
use headwater_model::time::Rate;

const VERSION: Version = Version { content: ContentId([9; 32]), epoch: 1 };
const PIECE_BYTES: u32 = 64 << 10;
/// Pieces of the window.
const WINDOW: u32 = 64;

fn parent(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// A child of `parents`, who hold what `holds` says, of a content of 64 MB.
fn child(parents: u8, holds: impl Fn(u8, u32) -> bool, out: &mut Vec<Output>) -> Swarm {
    let layout = Layout::single(PIECE_BYTES, 64 << 20).unwrap();
    let (pieces, pages) = (layout.pieces(), merkle::pages(layout.pieces()));
    let mut swarm =
        Swarm::new(Time(1), VERSION, layout, Bits::new(pieces), Bits::full(pages), true, Config::default(), 7);
    let entry = |n: u8| Parent {
        node: parent(n),
        class: SourceClass::Peer,
        dial: true,
        promised: Rate(1_000_000),
        reach: Reach::default(),
        substreams: Substreams::default(),
    };
    let assignment = Assignment {
        version: VERSION,
        generation: Generation { epoch: 1, counter: 1 },
        parents: (1..=parents).map(entry).collect(),
        spares: Vec::new(),
        helpers: Vec::new(),
        children: Vec::new(),
        source: false,
    };
    swarm.handle(Time(1), Input::Control(true), out);
    swarm.handle(Time(1), Input::Assigned(assignment), out);
    for n in 1..=parents {
        swarm.handle(Time(1), Input::Connected(parent(n)), out);
        swarm.handle(Time(1), Input::Answered { parent: parent(n), refused: None }, out);
        let mut has = Bits::new(pieces);
        (0..pieces).filter(|p| holds(n, *p)).for_each(|p| {
            has.set(p);
        });
        swarm.handle(Time(1), Input::HasAll(parent(n), has), out);
    }
    swarm
}

fn asked(out: &[Output]) -> Vec<u32> {
    let asks = out.iter().filter_map(|o| match o {
        Output::Ask(_, pieces) => Some(pieces.clone()),
        _ => None,
    });
    asks.flatten().collect()
}

fn told(out: &[Output]) -> Vec<Vec<u32>> {
    let alarms = out.iter().filter_map(|o| match o {
        Output::Alarm(Alarm::Reading { runs }) => Some(runs.clone()),
        _ => None,
    });
    alarms.collect()
}

#[test]
fn what_a_reader_needs_next_is_asked_first() {
    let mut out = Vec::new();
    let mut swarm = child(1, |_, _| true, &mut out);
    let first = asked(&out);
    out.clear();
    swarm.handle(Time(2), Input::Reads { reader: 1, pieces: 500..900 }, &mut out);
    // What was asked before comes; then the reader's pieces, most of them.
    for piece in first {
        let outcome = PieceOutcome::Stored;
        swarm.handle(Time(3), Input::Piece { from: PieceFrom::Parent(parent(1)), piece, outcome }, &mut out);
    }
    let next = asked(&out);
    let needed = next.iter().filter(|p| (500..500 + WINDOW).contains(*p)).count();
    assert!(next.len() >= 3 && needed * 4 >= next.len() * 3, "{next:?}");
    assert!(next.contains(&500));
    assert_eq!(swarm.check(), Vec::<String>::new());
    assert_eq!(told(&out), Vec::<Vec<u32>>::new(), "the parent has it all");
}

#[test]
fn what_no_parent_has_is_told_of_in_order_and_not_too_often() {
    let mut out = Vec::new();
    let mut swarm = child(2, |_, piece| piece < 100, &mut out);
    let run = |swarm: &Swarm, piece| swarm.layout.run_of(piece);
    out.clear();
    swarm.handle(Time(2), Input::Reads { reader: 1, pieces: 300..900 }, &mut out);
    let runs = told(&out);
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0][0], run(&swarm, 300));
    assert!(runs[0].windows(2).all(|w| w[0] < w[1]) && runs[0].len() <= MAX_READING_RUNS);
    for ms in (0..10_000).step_by(50) {
        swarm.handle(Time(3 + ms * 1000), Input::Tick, &mut out);
    }
    assert!((4..=6).contains(&told(&out).len()), "{:?}", told(&out));
    // A leased run is on its way.
    out.clear();
    let lease = Lease { version: VERSION, run: runs[0][0], within: Micros::from_secs(9), source: LeaseSource::Origin };
    swarm.handle(Time(11_000_000), Input::Leased(lease), &mut out);
    swarm.handle(Time(13_500_000), Input::Tick, &mut out);
    assert!(told(&out).iter().all(|runs| !runs.contains(&run(&swarm, 300))), "{:?}", told(&out));
    // Who left reads no more.
    swarm.handle(Time(14_000_000), Input::ReaderLeft(1), &mut out);
    out.clear();
    (0..100).for_each(|i| swarm.handle(Time(15_000_000 + i * 100_000), Input::Tick, &mut out));
    assert_eq!(told(&out), Vec::<Vec<u32>>::new());
}

#[test]
fn what_a_reader_waits_for_does_not_stand_behind_the_rest() {
    let mut out = Vec::new();
    let mut swarm = child(1, |_, _| true, &mut out);
    let mut now = Time(1);
    // The parent is fast: many pieces are asked of it.
    let mut queue: std::collections::VecDeque<u32> = asked(&out).into();
    for _ in 0..150 {
        now = now + Micros::from_millis(10);
        let (piece, outcome) = (queue.pop_front().unwrap(), PieceOutcome::Stored);
        out.clear();
        swarm.handle(now, Input::Piece { from: PieceFrom::Parent(parent(1)), piece, outcome }, &mut out);
        queue.extend(asked(&out));
    }
    assert!(queue.len() > 20, "{queue:?}");
    let wanted = (500..).find(|p| !swarm.have().get(*p) && !queue.contains(p)).unwrap();
    out.clear();
    swarm.handle(now, Input::Reads { reader: 1, pieces: wanted..wanted + 2 }, &mut out);
    let back: Vec<u32> =
        out.iter().filter_map(|o| if let Output::Unask(_, p) = o { Some(p.clone()) } else { None }).flatten().collect();
    assert!(back.iter().copied().eq(queue.iter().copied().skip(2)), "{back:?} of {queue:?}");
    assert_eq!(asked(&out)[0], wanted);
    assert_eq!(swarm.check(), Vec::<String>::new());
    // It is asked for: that the reader waits changes nothing more.
    out.clear();
    swarm.handle(now, Input::Reads { reader: 1, pieces: wanted..wanted + 2 }, &mut out);
    assert!(out.is_empty(), "{out:?}");
}

#[test]
fn two_readers_take_turns() {
    let mut out = Vec::new();
    let mut swarm = child(1, |_, _| true, &mut out);
    let first = asked(&out);
    out.clear();
    swarm.handle(Time(2), Input::Reads { reader: 1, pieces: 100..900 }, &mut out);
    swarm.handle(Time(2), Input::Reads { reader: 2, pieces: 500..900 }, &mut out);
    for piece in first {
        let outcome = PieceOutcome::Stored;
        swarm.handle(Time(3), Input::Piece { from: PieceFrom::Parent(parent(1)), piece, outcome }, &mut out);
    }
    let next = asked(&out);
    let of = |from: u32| next.iter().filter(|p| (from..from + WINDOW).contains(*p)).count();
    assert!(of(100) > 0 && of(100).abs_diff(of(500)) <= 2, "{next:?}");
}

/// What the origin is asked for and what no longer, in order: the run with its first piece, or `None`.
fn of_origin(out: &[Output]) -> Vec<(u32, Option<u32>)> {
    let orders = out.iter().filter_map(|o| match o {
        Output::FetchOrigin { run, pieces, .. } => Some((*run, Some(pieces[0].start))),
        Output::StopOrigin(run) => Some((*run, None)),
        _ => None,
    });
    orders.collect()
}

#[test]
fn what_a_reader_waits_for_comes_alone_and_first() {
    let mut out = Vec::new();
    let mut swarm = child(0, |_, _| false, &mut out);
    let lease =
        |run| Input::Leased(Lease { version: VERSION, run, within: Micros::from_secs(9), source: LeaseSource::Origin });
    let at = |ms: u64| Time(1 + ms * 1000);
    swarm.handle(at(0), lease(3), &mut out);
    swarm.handle(at(0), lease(4), &mut out);
    let (third, fourth) = (swarm.layout.pieces_of_run(3).start, swarm.layout.pieces_of_run(4).start);
    let check = |swarm: &mut Swarm, now, input, expected: &[(u32, Option<u32>)]| {
        let mut out = Vec::new();
        swarm.handle(now, input, &mut out);
        assert_eq!(of_origin(&out), expected, "at {now:?}");
        assert_eq!(swarm.check(), Vec::<String>::new());
    };
    // In the middle of one of them: the other is held back, and this one begins there.
    let middle = fourth + 7;
    let reads = |piece: u32| Input::Reads { reader: 1, pieces: piece..piece + 2 };
    check(&mut swarm, at(10), reads(middle), &[(3, None), (4, None), (4, Some(middle))]);
    let came = |piece| Input::Piece { from: PieceFrom::Origin, piece, outcome: PieceOutcome::Stored };
    check(&mut swarm, at(20), came(middle), &[]);
    check(&mut swarm, at(21), reads(middle + 1), &[]);
    check(&mut swarm, at(30), came(middle + 1), &[]);
    check(&mut swarm, at(31), Input::ReaderLeft(1), &[]);
    // Not at once: the next reader may be there already.
    check(&mut swarm, at(260), Input::Tick, &[]);
    check(&mut swarm, at(520), Input::Tick, &[(3, Some(third))]);
    // A run that is leased for a reader begins where it reads, and holds back the others.
    let fifth = swarm.layout.pieces_of_run(5).start;
    check(&mut swarm, at(600), reads(fifth + 3), &[]);
    check(&mut swarm, at(610), lease(5), &[(5, Some(fifth + 3)), (3, None), (4, None)]);
    // Not for ever: one at a time goes on, and ends.
    let mut out = Vec::new();
    (0..12).for_each(|i| swarm.handle(at(860 + 250 * i), Input::Tick, &mut out));
    assert_eq!(of_origin(&out), [(3, Some(third))]);
    let rest: Vec<u32> = swarm.layout.pieces_of_run(3).collect();
    rest.iter().for_each(|piece| swarm.handle(at(4000), came(*piece), &mut out));
    out.clear();
    swarm.handle(at(4250), Input::Tick, &mut out);
    assert_eq!(of_origin(&out), [(4, Some(fourth))]);
    assert_eq!(swarm.check(), Vec::<String>::new());
}

#[test]
fn readers_beyond_the_limit_and_past_the_end_do_no_harm() {
    let mut out = Vec::new();
    let mut swarm = child(1, |_, _| true, &mut out);
    for reader in 0..1000 {
        swarm.handle(Time(2), Input::Reads { reader, pieces: reader as u32 * 10..u32::MAX }, &mut out);
    }
    assert!(swarm.readers.ahead.len() <= MAX_READERS);
    swarm.handle(Time(3), Input::Reads { reader: 3, pieces: 2000..2100 }, &mut out);
    assert!(!swarm.readers.ahead.contains_key(&3), "there is nothing for it");
    assert_eq!(swarm.check(), Vec::<String>::new());
}
