//! Runs from the origin beside parents that fail, and while the control center is away.

use super::*;
use crate::swarm::{Config, Input};
use crate::{PieceFrom, PieceOutcome};
use headwater_model::Substreams;
use headwater_model::assignment::{Assignment, Generation, Lease, Parent, Reach};
use headwater_model::bits::Bits;
use headwater_model::id::{ContentId, Version};
use headwater_model::layout::Layout;
use headwater_model::node::SourceClass;
use headwater_model::time::Rate;

const PIECE_BYTES: u32 = 64 << 10;
const VERSION: Version = Version { content: ContentId([9; 32]), epoch: 1 };
const PARENT: NodeId = NodeId([7; 32]);

struct Story {
    swarm: Swarm,
    now: Time,
    out: Vec<Output>,
}

impl Story {
    /// A node with nothing, and a session, of a content of so many megabytes.
    fn new(megabytes: u64) -> Self {
        let layout = Layout::single(PIECE_BYTES, megabytes << 20).unwrap();
        let pages = headwater_model::merkle::pages(layout.pieces());
        let (have, known) = (Bits::new(layout.pieces()), Bits::full(pages));
        let swarm = Swarm::new(Time(1), VERSION, layout, have, known, true, Config::default(), 7);
        let mut story = Self { swarm, now: Time(1), out: Vec::new() };
        story.says(Input::Control(true));
        story
    }
    fn says(&mut self, input: Input) {
        self.swarm.handle(self.now, input, &mut self.out);
        assert_eq!(self.swarm.check(), Vec::<String>::new());
    }
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            self.now = self.now + Micros::from_millis(50);
            self.says(Input::Tick);
        }
    }
    /// A parent that holds everything and says nothing more.
    fn parent_comes(&mut self, node: NodeId) {
        let (reach, promised) = (Reach::default(), Rate(1_000_000));
        let parents = vec![Parent {
            node,
            class: SourceClass::Peer,
            dial: true,
            promised,
            reach,
            substreams: Substreams::default(),
        }];
        let generation = Generation { epoch: 1, counter: 1 };
        let (spares, children) = (vec![], vec![]);
        self.says(Input::Assigned(Assignment {
            version: VERSION,
            generation,
            parents,
            spares,
            helpers: vec![],
            children,
            source: false,
        }));
        self.says(Input::Connected(node));
        self.says(Input::Answered { parent: node, refused: None });
        self.says(Input::HasAll(node, Bits::full(self.swarm.have().len())));
    }
    fn leased(&mut self, run: u32) {
        let within = Micros::from_secs(10);
        self.says(Input::Leased(Lease { version: VERSION, run, within, source: LeaseSource::Origin }));
    }
    /// Pieces that the origin was asked for since the last look.
    fn fetched(&mut self) -> Vec<(u32, Vec<u32>)> {
        let fetches = std::mem::take(&mut self.out).into_iter().filter_map(|o| match o {
            Output::FetchOrigin { run, pieces, .. } => Some((run, pieces.into_iter().flatten().collect())),
            _ => None,
        });
        fetches.collect()
    }
    fn origin_sends(&mut self, pieces: &[u32], outcome: PieceOutcome) {
        for piece in pieces {
            self.says(Input::Piece { from: PieceFrom::Origin, piece: *piece, outcome });
        }
    }
    fn failed(&self) -> bool {
        self.out.iter().any(|o| matches!(o, Output::LeaseFailed { .. }))
    }
}

#[test]
fn a_parent_that_fails_is_not_the_origin_s_fault() {
    let mut s = Story::new(1);
    s.parent_comes(PARENT);
    s.leased(0);
    let fetched = s.fetched();
    let (_, of_origin) = fetched.first().unwrap();
    assert!(!of_origin.is_empty() && of_origin.len() < 16, "the rest was asked of the parent: {of_origin:?}");
    s.origin_sends(of_origin, PieceOutcome::Stored);
    s.says(Input::Lost { node: PARENT, why: "cut".into() });
    s.says(Input::OriginDone(0));
    assert!(!s.failed());
    s.pass(1_000);
    let rest: Vec<u32> = s.fetched().into_iter().flat_map(|(_, pieces)| pieces).collect();
    assert_eq!(rest.len() + of_origin.len(), 16);
    s.origin_sends(&rest, PieceOutcome::Stored);
    assert!(s.swarm.is_complete() && s.out.contains(&Output::LeaseDone(0)));
}

#[test]
fn an_origin_that_sends_other_bytes_is_found_out() {
    let mut s = Story::new(1);
    s.leased(0);
    let fetched = s.fetched();
    let (last, right) = fetched[0].1.split_last().unwrap();
    s.origin_sends(right, PieceOutcome::Stored);
    s.origin_sends(&[*last], PieceOutcome::Bad);
    s.says(Input::OriginDone(0));
    assert!(s.out.iter().any(|o| matches!(o, Output::LeaseFailed { changed: true, .. })));
}

#[test]
fn what_was_begun_alone_is_told_when_the_control_center_is_back() {
    let mut s = Story::new(8);
    s.parent_comes(PARENT);
    s.says(Input::Lost { node: PARENT, why: "cut".into() });
    s.out.clear();
    s.says(Input::Control(false));
    s.pass(10_000);
    let alone: Vec<u32> = s.fetched().into_iter().map(|(run, _)| run).collect();
    assert_eq!(alone.len(), Config::default().alone_runs);
    let mut told = s.swarm.join().leases;
    told.sort_unstable();
    let mut expected = alone.clone();
    expected.sort_unstable();
    assert_eq!(told, expected);
    s.says(Input::Control(true));
    assert!(!s.out.iter().any(|o| matches!(o, Output::StopOrigin(_))), "what has come is not thrown away");
    // Another one fetches it.
    s.says(Input::LeaseRevoked(alone[0]));
    assert!(s.out.contains(&Output::StopOrigin(alone[0])));
}

#[test]
fn neighbours_share_what_is_to_be_fetched_alone() {
    let other = NodeId([1; 32]);
    let mut stories = [(PARENT, other), (other, PARENT)].map(|(own, neighbour)| {
        let mut s = Story::new(64);
        s.swarm = s.swarm.known_as(own);
        s.parent_comes(neighbour);
        s
    });
    let runs = stories[0].swarm.layout().runs();
    let due = |s: &Story| (0..runs).filter(|run| s.swarm.is_due_to_fetch(*run)).collect::<Vec<_>>();
    let both = [due(&stories[0]), due(&stories[1])];
    assert!(both.iter().all(|due| due.len() as u32 > runs / 4), "{both:?}");
    let mut all = both.concat();
    all.sort_unstable();
    assert_eq!(all, (0..runs).collect::<Vec<_>>(), "each run is one node's");
    // Who is gone fetches nothing.
    stories[0].says(Input::Lost { node: other, why: "cut".into() });
    assert_eq!(due(&stories[0]).len() as u32, runs);
}

#[test]
fn nothing_is_fetched_before_what_is_here_was_looked_through() {
    let mut s = Story::new(4);
    s.swarm = s.swarm.searching_first();
    assert!(s.swarm.join().looks_first);
    s.says(Input::Control(true));
    let search = |o: &&Output| matches!(o, Output::Search);
    assert_eq!(s.out.iter().filter(search).count(), 1);
    s.parent_comes(PARENT);
    s.leased(1);
    s.pass(5000);
    let asks = |o: &&Output| matches!(o, Output::Ask(..) | Output::FetchOrigin { .. } | Output::Alarm(_));
    assert_eq!(s.out.iter().filter(asks).count(), 0, "{:?}", s.out);
    // All of runs 0 and 1 and half of run 2 were found.
    let mut found = Bits::new(s.swarm.have().len());
    (0..40).for_each(|piece| assert!(found.set(piece)));
    s.says(Input::Searched(found));
    assert!(!s.swarm.join().looks_first && s.swarm.have().ones() == 40);
    assert!(s.out.iter().any(|o| matches!(o, Output::LeaseDone(1))));
    let asked: Vec<u32> =
        s.out.iter().filter_map(|o| if let Output::Ask(_, p) = o { Some(p.clone()) } else { None }).flatten().collect();
    assert!(!asked.is_empty() && asked.iter().all(|piece| *piece >= 40), "{asked:?}");
    assert_eq!(s.out.iter().filter(search).count(), 1, "once");
}
