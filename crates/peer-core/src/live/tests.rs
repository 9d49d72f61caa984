//! A network of channels under virtual time: a source, viewers, and a scripted control center.

use super::*;
use crate::edges::EdgeStage;
use headwater_model::assignment::Reach;
use headwater_model::id::{ContentId, Hash};
use headwater_model::live::{LIVE_PIECE_BYTES, LiveEntry, ObjectKind, OriginPlace};
use headwater_model::node::SourceClass;
use headwater_model::time::Rate;
use headwater_model::{Rng, merkle};
use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU8;

const K: u8 = 4;
/// Pieces of a segment of a second.
const PIECES: u64 = 16;
const HOP: Micros = Micros::from_millis(10);

fn id(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn track() -> LiveTrack {
    let key = ed25519_key();
    LiveTrack {
        version: Version { content: ContentId([9; 32]), epoch: 1 },
        name: "n".into(),
        terms: LiveTerms {
            substreams: NonZeroU8::new(K).unwrap(),
            rate: Rate(PIECES * u64::from(LIVE_PIECE_BYTES)),
            window: Micros::from_secs(20),
        },
        piece_bytes: LIVE_PIECE_BYTES,
        origins: vec![],
        key,
    }
}

/// Any valid key: signatures are the shell's business.
fn ed25519_key() -> headwater_model::live::PublisherKey {
    headwater_model::live::PublisherKey::from_bytes(&[
        0x8a, 0x88, 0xe3, 0xdd, 0x74, 0x09, 0xf1, 0x95, 0xfd, 0x52, 0xdb, 0x2d, 0x3c, 0xba, 0x5d, 0x72, 0xca, 0x67,
        0x09, 0xbf, 0x1d, 0x94, 0x12, 0x1b, 0xf3, 0x74, 0x88, 0x01, 0xb4, 0x0f, 0x6f, 0x5c,
    ])
    .unwrap()
}

/// A message under way.
enum Packet {
    Open,
    Answer,
    Subscribe(Substreams, Option<u64>),
    Ask(Vec<u64>),
    AskHelper(Vec<u64>),
    Cancel(Vec<u64>),
    AskEntries(u64),
    Entries(Vec<Arc<SignedLiveEntry>>),
    Position(u64, Vec<(u8, u64)>),
    Piece(u64),
    CloseEdge,
    CloseChild,
}

struct Node {
    channel: Channel,
    /// Pieces per second that it can send; `None` for any number.
    up: Option<u64>,
    may_send_at: Time,
    dead: bool,
    alarms: Vec<(Time, Alarm)>,
    /// When each piece came.
    came: BTreeMap<u64, Time>,
    origin: BTreeSet<u64>,
    /// Came before their entries.
    early: BTreeMap<u64, NodeId>,
    given: BTreeMap<NodeId, Substreams>,
}

/// Pieces and their lengths.
type Pieces = Vec<(u64, u32)>;

impl Node {
    fn new(now: Time) -> Node {
        Node {
            channel: Channel::new(now, track(), LiveConfig::default()),
            up: None,
            may_send_at: now,
            dead: false,
            alarms: vec![],
            came: BTreeMap::new(),
            origin: BTreeSet::new(),
            early: BTreeMap::new(),
            given: BTreeMap::new(),
        }
    }
}

struct World {
    now: Time,
    nodes: BTreeMap<NodeId, Node>,
    wire: BTreeMap<(Time, u64), (NodeId, NodeId, Packet)>,
    /// When it answers whom, the number of the fetch, and its pieces.
    origin: VecDeque<(Time, NodeId, u64, Pieces)>,
    serial: u64,
    generation: u64,
    number: u64,
    piece: u64,
    published: BTreeMap<u64, Time>,
    has_origin: bool,
    /// What each helper has left over for whom it helps.
    help: Rate,
    /// How often each was started again.
    restarts: BTreeMap<u8, u8>,
    /// The parents of each, as last assigned.
    parents: BTreeMap<u8, Vec<(u8, u32)>>,
}

impl World {
    fn new(viewers: u8) -> World {
        let now = Time(1_000_000);
        World {
            now,
            nodes: (0..=viewers).map(|n| (id(n), Node::new(now))).collect(),
            wire: BTreeMap::new(),
            origin: VecDeque::new(),
            serial: 0,
            generation: 0,
            number: 0,
            piece: 0,
            published: BTreeMap::new(),
            has_origin: true,
            help: Rate(0),
            restarts: BTreeMap::new(),
            parents: BTreeMap::new(),
        }
    }

    fn newcomer(&mut self, node: u8) {
        self.nodes.insert(id(node), Node::new(self.now));
    }

    /// `parents` and `spares`: who, and which substreams.
    fn assign(&mut self, node: u8, parents: &[(u8, u32)], spares: &[(u8, u32)]) {
        self.assign_with_helpers(node, parents, spares, &[]);
    }

    /// The same, and helpers of all substreams.
    fn assign_with_helpers(&mut self, node: u8, parents: &[(u8, u32)], spares: &[(u8, u32)], helpers: &[u8]) {
        let helpers: Vec<(u8, u32)> = helpers.iter().map(|h| (*h, track().terms.all().0)).collect();
        self.generation += 1;
        self.parents.insert(node, parents.to_vec());
        let certificate = |n: &u8| Hash([1 + self.restarts.get(n).copied().unwrap_or_default(); 32]);
        let reach = |n: &u8| Reach { addresses: [].into(), certificate: certificate(n) };
        let entry = |(n, s): &(u8, u32)| Parent {
            node: id(*n),
            class: SourceClass::Peer,
            dial: true,
            promised: Rate(0),
            reach: reach(n),
            substreams: Substreams(*s),
        };
        let child = |n: &u8, s: u32| Child {
            node: id(*n),
            dial: false,
            punch: false,
            reach: reach(n),
            substreams: Substreams(s),
        };
        let of =
            |(n, parents): (&u8, &Vec<(u8, u32)>)| parents.iter().find(|(p, _)| *p == node).map(|(_, s)| child(n, *s));
        for (p, s) in parents.iter().chain(spares).chain(&helpers) {
            let given = self.nodes.get_mut(&id(*p)).unwrap().given.entry(id(node)).or_default();
            *given = given.or(Substreams(*s));
        }
        let assignment = Assignment {
            version: track().version,
            generation: Generation { epoch: 1, counter: self.generation },
            parents: parents.iter().map(entry).collect(),
            spares: spares.iter().map(entry).collect(),
            helpers: helpers.iter().map(entry).map(|h| Parent { promised: self.help, ..h }).collect(),
            children: self.parents.iter().filter_map(of).collect(),
            source: node == 0,
        };
        self.say(id(node), LiveInput::Assigned(assignment));
    }

    fn say(&mut self, node: NodeId, input: LiveInput) {
        let n = self.nodes.get_mut(&node).unwrap();
        if n.dead {
            return;
        }
        let mut out = Vec::new();
        n.channel.handle(self.now, input, &mut out);
        let problems = n.channel.check();
        assert!(problems.is_empty(), "{node:?} at {:?}: {problems:?}", self.now);
        self.carry_out(node, out);
    }

    fn send(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        self.serial += 1;
        self.wire.insert((self.now + HOP, self.serial), (from, to, packet));
    }

    fn carry_out(&mut self, node: NodeId, out: Vec<LiveOutput>) {
        for o in out {
            match o {
                LiveOutput::Dial(p) => {
                    let there = !self.nodes[&p.node].dead;
                    if there {
                        self.say(node, LiveInput::Connected(p.node));
                    }
                }
                LiveOutput::OpenEdge(p) => self.send(node, p, Packet::Open),
                LiveOutput::CloseEdge(p) => self.send(node, p, Packet::CloseEdge),
                LiveOutput::Subscribe(p, s, from) => self.send(node, p, Packet::Subscribe(s, from)),
                LiveOutput::Ask(p, pieces) => self.send(node, p, Packet::Ask(pieces)),
                LiveOutput::AskHelper(p, pieces) => self.send(node, p, Packet::AskHelper(pieces)),
                LiveOutput::Cancel(p, pieces) => self.send(node, p, Packet::Cancel(pieces)),
                LiveOutput::AskEntries(p, after) => self.send(node, p, Packet::AskEntries(after)),
                LiveOutput::TellEntries(c, entries) => self.send(node, c, Packet::Entries(entries)),
                LiveOutput::TellPosition(c, newest, lacks) => self.send(node, c, Packet::Position(newest, lacks)),
                LiveOutput::CloseChild(c, _) => self.send(node, c, Packet::CloseChild),
                LiveOutput::FetchOrigin { job, pieces, .. } => {
                    self.origin.push_back((self.now + HOP.times(3), node, job, pieces));
                }
                LiveOutput::Alarm(alarm) => {
                    let now = self.now;
                    self.nodes.get_mut(&node).unwrap().alarms.push((now, alarm));
                }
                LiveOutput::DialChild(_)
                | LiveOutput::ToldBad(..)
                | LiveOutput::Serve(..)
                | LiveOutput::Changed
                | LiveOutput::Forget
                | LiveOutput::Source(_) => {}
            }
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        if self.nodes[&to].dead {
            return;
        }
        let input = match packet {
            Packet::Open => {
                let may = self.nodes[&to].given.get(&from).copied().unwrap_or_default();
                self.say(to, LiveInput::ChildOpened(from, may));
                return self.send(to, from, Packet::Answer);
            }
            Packet::Answer => LiveInput::Answered { parent: from, refused: None },
            Packet::Subscribe(s, piece) => LiveInput::Subscribed(from, s, piece),
            Packet::Ask(pieces) => LiveInput::Asked(from, pieces),
            Packet::AskHelper(pieces) => LiveInput::AskedToHelp(from, pieces),
            Packet::Cancel(pieces) => LiveInput::Cancelled(from, pieces),
            Packet::AskEntries(after) => LiveInput::EntriesWanted(from, after),
            Packet::Position(newest, lacks) => LiveInput::Position(from, newest, lacks),
            Packet::CloseEdge => LiveInput::ChildClosed(from),
            Packet::CloseChild => LiveInput::Lost { node: from, why: "closed".into() },
            Packet::Entries(entries) => {
                self.say(to, LiveInput::Entries(from, entries));
                let early = std::mem::take(&mut self.nodes.get_mut(&to).unwrap().early);
                early.into_iter().for_each(|(piece, from)| self.piece(Some(from), to, piece));
                return;
            }
            Packet::Piece(piece) => return self.piece(Some(from), to, piece),
        };
        self.say(to, input);
    }

    fn piece(&mut self, from: Option<NodeId>, to: NodeId, piece: u64) {
        let verdict = self.nodes[&to].channel.judge(piece, &data(piece));
        let now = self.now;
        if let (Verdict::Early, Some(from)) = (verdict, from) {
            self.nodes.get_mut(&to).unwrap().early.insert(piece, from);
        }
        if verdict == Verdict::Good {
            let n = self.nodes.get_mut(&to).unwrap();
            n.came.entry(piece).or_insert(now);
            if from.is_none() {
                n.origin.insert(piece);
            }
        }
        self.say(to, LiveInput::Piece { from, piece, verdict, bytes: LIVE_PIECE_BYTES });
    }

    /// A segment is published.
    fn publish(&mut self) {
        let sequence = self.piece / PIECES;
        let entry = LiveEntry {
            epoch: 1,
            number: self.number,
            previous: self.number.checked_sub(1),
            time_unix_ms: self.now.0 / 1000,
            object: sequence,
            kind: ObjectKind::Ts,
            offset: 0,
            first_piece: self.piece,
            bytes: (PIECES * u64::from(LIVE_PIECE_BYTES)) as u32,
            leaves: (self.piece..self.piece + PIECES).map(|p| merkle::leaf(&data(p))).collect(),
            complete: true,
            listed: Some(Listed {
                sequence,
                duration: Micros::from_secs(1),
                target_duration: Micros::from_secs(1),
                discontinuity: false,
                map: None,
                recorded_unix_us: None,
                origin: self.has_origin.then(|| OriginPlace { url: format!("http://o/{sequence}.ts"), from: 0 }),
            }),
            last: false,
        };
        self.number += 1;
        for p in self.piece..self.piece + PIECES {
            self.published.insert(p, self.now);
        }
        self.piece += PIECES;
        self.say(id(0), LiveInput::Published(Arc::new(SignedLiveEntry { entry, signature: [0; 64] })));
    }

    /// Time passes; a segment is published each second, and what waits is sent.
    fn run(&mut self, ms: u64) {
        let end = self.now + Micros::from_millis(ms);
        while self.now < end {
            self.now = self.now + Micros::from_millis(5);
            if (self.now.0 / 1000).is_multiple_of(1000) {
                self.publish();
            }
            while let Some(((at, _), _)) = self.wire.first_key_value().filter(|((at, _), _)| *at <= self.now) {
                let _ = at;
                let (_, (from, to, packet)) = self.wire.pop_first().unwrap();
                self.deliver(from, to, packet);
            }
            while self.origin.front().is_some_and(|(at, ..)| *at <= self.now) {
                let (_, node, job, pieces) = self.origin.pop_front().unwrap();
                pieces.into_iter().for_each(|(p, _)| self.piece(None, node, p));
                self.say(node, LiveInput::OriginEnded(job));
            }
            let all: Vec<NodeId> = self.nodes.keys().copied().collect();
            for node in all {
                if (self.now.0 / 1000).is_multiple_of(50) {
                    self.say(node, LiveInput::ControlTime(self.now.0 / 1000));
                    self.say(node, LiveInput::Tick);
                }
                self.send_pieces(node);
            }
        }
    }

    fn send_pieces(&mut self, node: NodeId) {
        let children: Vec<NodeId> = self.nodes.keys().copied().filter(|n| *n != node).collect();
        let mut sent = Vec::new();
        let n = self.nodes.get_mut(&node).unwrap();
        if n.dead {
            return;
        }
        let mut more = true;
        while more {
            more = false;
            for (child, substream) in children.iter().flat_map(|c| (0..K).map(move |s| (c, s))) {
                if n.up.is_some() && n.may_send_at > self.now {
                    break;
                }
                if let Next::Piece(piece) = n.channel.next_to_send(self.now, child, substream) {
                    n.channel.sent(self.now, child, piece, u64::from(LIVE_PIECE_BYTES));
                    sent.push((*child, piece));
                    more = true;
                    if let Some(up) = n.up {
                        n.may_send_at = n.may_send_at.max(self.now) + Micros(1_000_000 / up);
                    }
                }
            }
        }
        for (child, piece) in sent {
            self.send(node, child, Packet::Piece(piece));
        }
    }

    fn kill(&mut self, node: u8) {
        self.nodes.get_mut(&id(node)).unwrap().dead = true;
    }

    /// Another process takes the place of one that was killed.
    fn start_again(&mut self, node: u8) {
        *self.restarts.entry(node).or_default() += 1;
        let n = self.nodes.get_mut(&id(node)).unwrap();
        n.channel = Channel::new(self.now, track(), LiveConfig::default());
        n.dead = false;
    }

    fn node(&self, n: u8) -> &Node {
        &self.nodes[&id(n)]
    }

    /// The latest that any piece published between the two times came at a node, and how many never came.
    fn worst(&self, node: u8, from: Time, to: Time) -> (Micros, usize) {
        let of = self.published.iter().filter(|(_, at)| (from..to).contains(at));
        let came = &self.node(node).came;
        let late: Vec<Option<Micros>> = of.map(|(p, at)| came.get(p).map(|c| c.since(*at))).collect();
        (late.iter().flatten().copied().max().unwrap_or_default(), late.iter().filter(|l| l.is_none()).count())
    }
}

fn data(piece: u64) -> Vec<u8> {
    let mut data = vec![0; LIVE_PIECE_BYTES as usize];
    data[..8].copy_from_slice(&piece.to_be_bytes());
    data
}

const ALL: u32 = 0b1111;

/// A source; 1 and 2 are interior in two trees each; 3 is a leaf in all.
fn two_trees() -> World {
    let mut w = World::new(3);
    w.assign(0, &[], &[]);
    w.run(3000);
    w.assign(1, &[(0, 0b0011), (2, 0b1100)], &[(0, 0b1100)]);
    w.assign(2, &[(0, 0b1100), (1, 0b0011)], &[(0, 0b0011)]);
    w.assign(3, &[(1, 0b0011), (2, 0b1100)], &[(2, 0b0011), (1, 0b1100), (0, ALL)]);
    w
}

#[test]
fn everybody_gets_everything_soon_and_once() {
    let mut w = two_trees();
    let begun = w.now;
    w.run(6000);
    for viewer in 1..=3 {
        let (late, never) = w.worst(viewer, begun + Micros::from_secs(1), Time(w.now.0 - 500_000));
        assert!(late <= Micros::from_millis(200) && never == 0, "{viewer}: {late:?}, {never} never");
        let s = w.node(viewer).channel.state();
        assert!(s.wasted_bytes == 0 && s.origin_bytes == 0 && s.unfed == 0, "{viewer}: {s:?}");
        assert!(w.node(viewer).alarms.is_empty(), "{viewer}: {:?}", w.node(viewer).alarms);
    }
    let lag = w.node(3).channel.lags().percentile(95).unwrap();
    assert!(lag <= Micros::from_millis(200), "{lag:?}");
}

#[test]
fn a_dead_parent_is_replaced_by_a_spare_within_a_second() {
    let mut w = two_trees();
    w.run(4000);
    w.kill(1);
    let at = w.now;
    w.run(4000);
    let alarms = &w.node(3).alarms;
    let told = alarms.iter().find(|(_, a)| matches!(a, Alarm::Silent { parent } if *parent == id(1)));
    assert!(told.is_some_and(|(t, _)| t.since(at) <= Micros::from_millis(900)), "{alarms:?}");
    let (late, never) = w.worst(3, Time(at.0 - 500_000), Time(w.now.0 - 1_000_000));
    assert!(late <= Micros::from_secs(1) && never == 0, "{late:?}, {never} never came");
    let three = &w.node(3).channel;
    assert_eq!(three.state().origin_bytes, 0);
    let again = three.fed_again();
    assert!(again.count() == 2 && again.percentile(100).is_some_and(|t| t <= Micros::from_millis(900)), "{again:?}");
}

#[test]
fn a_spare_that_the_child_is_not_listed_with_pushes_until_the_control_center_speaks() {
    let mut w = two_trees();
    w.assign(3, &[(1, ALL)], &[(0, ALL)]);
    w.run(2000);
    w.say(id(0), LiveInput::Control(true));
    w.assign(0, &[], &[]);
    w.run(5000);
    w.kill(1);
    let at = w.now;
    w.run(2500);
    let alarms = &w.node(3).alarms;
    assert!(matches!(alarms.as_slice(), [(_, Alarm::Silent { parent })] if *parent == id(1)), "{alarms:?}");
    let (late, never) = w.worst(3, Time(at.0 - 500_000), Time(w.now.0 - 500_000));
    assert!(late <= Micros::from_millis(700) && never == 0, "{late:?}, {never} never came");
    w.run(3000);
    let closed =
        w.node(3).alarms.iter().any(|(_, a)| matches!(a, Alarm::ParentLost { parent, .. } if *parent == id(0)));
    assert!(closed, "nobody confirmed the spare, and it pushes for ever");
}

#[test]
fn a_spare_pushes_on_while_there_is_no_control_center() {
    let mut w = two_trees();
    w.assign(3, &[(1, ALL)], &[(0, ALL)]);
    w.assign(0, &[], &[]);
    w.say(id(0), LiveInput::Control(true));
    w.run(4000);
    w.say(id(0), LiveInput::Control(false));
    w.kill(1);
    let at = w.now;
    w.run(20_000);
    w.say(id(0), LiveInput::Control(true));
    w.run(4000);
    let lost = w.node(3).alarms.iter().any(|(_, a)| matches!(a, Alarm::ParentLost { parent, .. } if *parent == id(0)));
    assert!(!lost, "{:?}", w.node(3).alarms);
    let (late, never) = w.worst(3, Time(at.0 - 500_000), Time(w.now.0 - 500_000));
    assert!(late <= Micros::from_secs(1) && never == 0, "{late:?}, {never} never came");
}

/// The control center's word on children only is as good as a whole assignment.
#[test]
fn children_come_and_go_by_name() {
    let mut w = two_trees();
    w.run(2000);
    w.say(id(0), LiveInput::Control(true));
    w.assign(0, &[], &[]);
    w.newcomer(4);
    w.assign(4, &[(0, ALL)], &[]);
    let change = |w: &mut World, came: &[u8], left: &[u8]| {
        w.generation += 1;
        let reach = Reach { addresses: [].into(), certificate: Hash([1; 32]) };
        let child = |n: &u8| Child {
            node: id(*n),
            dial: false,
            punch: false,
            reach: reach.clone(),
            substreams: Substreams(ALL),
        };
        let generation = Generation { epoch: 1, counter: w.generation };
        let (came, left) = (came.iter().map(child).collect(), left.iter().map(|n| id(*n)).collect());
        w.say(id(0), LiveInput::ChildrenChanged(ChildrenChange { version: track().version, generation, came, left }));
    };
    change(&mut w, &[4], &[]);
    w.run(8000);
    assert!(w.node(4).alarms.is_empty(), "{:?}", w.node(4).alarms);
    change(&mut w, &[], &[4]);
    w.run(2000);
    assert!(w.node(4).alarms.is_empty(), "a former child has some time");
    w.run(2500);
    let lost = |w: &World| w.node(4).alarms.iter().filter(|(_, a)| matches!(a, Alarm::ParentLost { .. })).count();
    assert!(lost(&w) > 0, "nobody gives it to that parent any more");
    // An old word is none.
    w.generation = 0;
    change(&mut w, &[4], &[1]);
    w.run(6000);
    assert!(w.node(1).alarms.is_empty(), "{:?}", w.node(1).alarms);
}

#[test]
fn a_parent_that_says_nothing_for_half_a_second_is_not_left() {
    let mut w = two_trees();
    w.run(4000);
    w.kill(1);
    let at = w.now;
    w.run(450);
    w.nodes.get_mut(&id(1)).unwrap().dead = false;
    w.run(4000);
    assert!(w.node(3).alarms.is_empty(), "{:?}", w.node(3).alarms);
    let feeds: Vec<_> = w.node(3).channel.parent_edges().collect();
    assert!(feeds.iter().any(|f| f.node == id(1) && !f.spare && f.stage == EdgeStage::Open), "{feeds:?}");
    let (late, never) = w.worst(3, Time(at.0 - 500_000), Time(w.now.0 - 500_000));
    // What was sent to it meanwhile it does not have itself.
    assert!(late <= LiveConfig::default().in_time && never == 0, "{late:?}, {never} never came");
}

#[test]
fn an_entry_that_is_missing_is_waited_for_until_it_is_given_up() {
    let mut w = two_trees();
    w.run(6000);
    let entries: Vec<_> = w.node(1).channel.entries_after(0, 100).cloned().collect();
    let mut alone = World::new(0);
    let say = |w: &mut World, of: &[Arc<SignedLiveEntry>]| w.say(id(0), LiveInput::Logged(of.to_vec()));
    say(&mut alone, &entries[..2]);
    assert!(!alone.node(0).channel.awaits_entries());
    say(&mut alone, &entries[3..]);
    assert!(alone.node(0).channel.awaits_entries());
    let passes = |w: &mut World, ms| {
        w.now = w.now + Micros::from_millis(ms);
        w.say(id(0), LiveInput::Tick);
    };
    passes(&mut alone, 4500);
    assert!(alone.node(0).channel.awaits_entries(), "it may come yet");
    let mut later = World::new(0);
    say(&mut later, &entries[..2]);
    say(&mut later, &entries[3..]);
    say(&mut later, &entries[2..3]);
    assert!(!later.node(0).channel.awaits_entries(), "it came");
    passes(&mut alone, 1000);
    assert!(!alone.node(0).channel.awaits_entries(), "nobody has it");
    // Of two parents one says the end first, the other then the beginning in two messages.
    let mut newcomer = World::new(0);
    say(&mut newcomer, &entries[3..]);
    assert!(!newcomer.node(0).channel.awaits_entries());
    say(&mut newcomer, &entries[..2]);
    assert!(newcomer.node(0).channel.awaits_entries(), "what is between may come");
    say(&mut newcomer, &entries[2..3]);
    assert!(!newcomer.node(0).channel.awaits_entries());
}

#[test]
fn a_parent_that_was_started_again_is_dialled_anew() {
    let mut w = two_trees();
    w.run(4000);
    w.kill(1);
    w.run(100);
    let at = w.now;
    w.start_again(1);
    w.assign(1, &[(0, 0b0011), (2, 0b1100)], &[(0, 0b1100)]);
    w.assign(3, &[(1, 0b0011), (2, 0b1100)], &[(2, 0b0011), (1, 0b1100), (0, ALL)]);
    w.run(3000);
    let (alarms, feeds) = (&w.node(3).alarms, w.node(3).channel.parent_edges().collect::<Vec<_>>());
    assert!(alarms.is_empty(), "{alarms:?}");
    assert!(feeds.iter().any(|f| f.node == id(1) && !f.spare && f.stage == EdgeStage::Open), "{feeds:?}");
    // What that one does not have any more is asked of the spares in time.
    let (late, never) = w.worst(3, Time(at.0 - 500_000), Time(w.now.0 - 1_000_000));
    assert!(late <= LiveConfig::default().in_time && never == 0, "{late:?}, {never} never came");
}

#[test]
fn a_parent_with_too_little_uplink_is_told_of_in_time() {
    let mut w = two_trees();
    w.run(4000);
    // Six substreams of four pieces a second, at a fifth.
    w.nodes.get_mut(&id(1)).unwrap().up = Some(4);
    let at = w.now;
    w.run(4000);
    let alarms: Vec<_> = w.nodes.values().flat_map(|n| &n.alarms).collect();
    let told = alarms.iter().find(|(_, a)| matches!(a, Alarm::Behind { parent, .. } if *parent == id(1)));
    assert!(told.is_some_and(|(t, _)| t.since(at) <= Micros::from_millis(3500)), "{alarms:?}");
    assert!(alarms.iter().all(|(_, a)| matches!(a, Alarm::Behind { parent, .. } if *parent == id(1))), "{alarms:?}");
}

#[test]
fn switching_parents_loses_nothing_and_repeats_little() {
    let mut w = two_trees();
    w.run(3700);
    let begun = w.now;
    for turn in 0..6 {
        let (a, b) = if turn % 2 == 0 { (0, 1) } else { (1, 0) };
        w.assign(3, &[(a, 0b0011), (2, 0b1100)], &[(b, 0b0011)]);
        w.run(930);
    }
    let (late, never) = w.worst(3, begun, Time(w.now.0 - 1_000_000));
    assert!(late <= Micros::from_millis(400) && never == 0, "{late:?}, {never} never came");
    let s = w.node(3).channel.state();
    assert!(s.wasted_bytes * 20 <= s.peer_bytes, "{} of {} bytes wasted", s.wasted_bytes, s.peer_bytes);
}

#[test]
fn a_newcomer_s_player_begins_at_once_and_goes_on_from_peers() {
    let mut w = two_trees();
    w.run(6000);
    w.newcomer(4);
    w.assign(4, &[(1, 0b0011), (2, 0b1100)], &[(0, ALL)]);
    w.run(100);
    let segments: Vec<u64> = w.node(4).channel.listed().map(|(n, ..)| n).collect();
    assert!(segments.len() >= 3, "{segments:?}");
    let first = segments[segments.len() - 3];
    w.say(id(4), LiveInput::Reads { reader: 1, object: first });
    w.run(300);
    assert!(w.node(4).channel.is_here(first), "the first segment is here");
    w.run(2000);
    let fourth = w.node(4);
    assert!((first..first + 4).all(|o| fourth.channel.is_here(o)));
    // What others have played by now would take uplinks that are for what comes.
    assert!(fourth.origin.iter().all(|p| *p < (first + 2) * PIECES), "{:?}", fourth.origin);
}

/// A newcomer, whose player begins with the segment that is the `back`th from the newest one, and whose helpers have so
/// many times the stream's rate left over each.
fn newcomer(helpers: &[u8], back: usize, help: u64) -> (World, u64) {
    let mut w = two_trees();
    w.help = Rate(track().terms.rate.0 * help);
    w.run(6000);
    w.newcomer(4);
    w.assign_with_helpers(4, &[(1, 0b0011), (2, 0b1100)], &[(0, ALL)], helpers);
    w.run(100);
    let segments: Vec<u64> = w.node(4).channel.listed().map(|(n, ..)| n).collect();
    let first = segments[segments.len() - back];
    w.say(id(4), LiveInput::Reads { reader: 1, object: first });
    (w, first)
}

/// The newcomer's player goes on to the sixth segment: how many pieces of each came from the origin.
fn plays_on(w: &mut World, first: u64) -> Vec<u64> {
    for object in first + 1..first + 6 {
        w.run(1000);
        w.say(id(4), LiveInput::Reads { reader: 1, object });
    }
    let fourth = w.node(4);
    let s = fourth.channel.state();
    assert!(s.wasted_bytes == 0 && s.missing == 0, "{s:?}");
    assert!((first..first + 5).all(|o| fourth.channel.is_here(o)));
    let from_origin = |object: u64| fourth.origin.iter().filter(|p| **p / PIECES == object).count() as u64;
    (first..first + 5).map(from_origin).collect()
}

#[test]
fn helpers_bring_a_newcomer_what_was_before_it() {
    for helpers in [&[2, 3][..], &[]] {
        let (mut w, first) = newcomer(helpers, 4, 0);
        w.run(400);
        assert!(w.node(4).channel.is_here(first), "the first segment is here");
        let from_origin = plays_on(&mut w, first);
        // What is needed at once comes from the origin. The third segment helpers have a second for.
        assert_eq!(from_origin[..3], [PIECES, PIECES, if helpers.is_empty() { PIECES } else { 0 }]);
    }
}

#[test]
fn helpers_with_much_left_over_bring_the_first_segment_too() {
    let (mut w, first) = newcomer(&[2, 3], 4, 2);
    w.run(500);
    assert!(w.node(4).channel.is_here(first), "the first segment is here");
    // Of the second one, which is needed within a second then, helpers bring what they can until the origin has to.
    assert_eq!(plays_on(&mut w, first)[..4], [0, PIECES / 2, 0, 0]);
}

#[test]
fn where_helpers_are_dead_or_slow_the_origin_brings_it_in_time() {
    for (dead, help, within_ms) in [(true, 0, 1000), (false, 0, 1000), (true, 2, 1200), (false, 2, 1200)] {
        let (mut w, first) = newcomer(&[2, 3], 3, help);
        for helper in [2, 3] {
            let n = w.nodes.get_mut(&id(helper)).unwrap();
            (n.dead, n.up) = (dead, Some(15));
        }
        w.run(within_ms);
        let s = w.node(4).channel.state();
        assert!(w.node(4).channel.is_here(first) && s.origin_bytes > 0, "dead: {dead}, {help}: {s:?}");
    }
}

/// As what is at no origin: an initialisation section.
#[test]
fn where_there_is_no_origin_either_parents_are_asked() {
    let mut w = two_trees();
    w.has_origin = false;
    w.run(6000);
    [2, 3].into_iter().for_each(|helper| w.newcomer(helper));
    w.newcomer(4);
    w.assign_with_helpers(4, &[(0, ALL)], &[], &[2, 3]);
    w.run(100);
    let segments: Vec<u64> = w.node(4).channel.listed().map(|(n, ..)| n).collect();
    let first = segments[segments.len() - 3];
    w.say(id(4), LiveInput::Reads { reader: 1, object: first });
    w.run(1500);
    assert!(w.node(4).channel.is_here(first), "{:?}", w.node(4).channel.state());
}

#[test]
fn who_helps_pushes_to_its_children_first() {
    let mut w = two_trees();
    w.run(6000);
    // Six substreams of four pieces a second, and one more piece.
    w.nodes.get_mut(&id(2)).unwrap().up = Some(25);
    w.newcomer(4);
    w.assign_with_helpers(4, &[(0, ALL)], &[], &[2]);
    w.run(100);
    let begun = w.now;
    let first = w.node(4).channel.listed().next_back().map(|(n, ..)| n).unwrap() - 4;
    w.say(id(4), LiveInput::Reads { reader: 1, object: first });
    w.run(4000);
    for viewer in [1, 3] {
        let (late, never) = w.worst(viewer, begun, Time(w.now.0 - 1_500_000));
        // A second's pieces take a second; one of another child may be on its way out.
        assert!(late <= Micros::from_millis(1100) && never == 0, "{viewer}: {late:?}, {never} never");
        assert!(w.node(viewer).alarms.is_empty(), "{:?}", w.node(viewer).alarms);
    }
}

/// Substreams that the control center leaves to helpers are asked of them as soon as they are known, at leisure.
#[test]
fn what_nobody_pushes_helpers_bring() {
    let mut w = two_trees();
    w.run(4000);
    w.assign_with_helpers(3, &[(2, 0b1100)], &[], &[1, 2]);
    let begun = w.now;
    let newest = w.node(3).channel.listed().next_back().map(|(n, ..)| n).unwrap();
    for object in newest - 3..newest + 8 {
        w.say(id(3), LiveInput::Reads { reader: 1, object });
        w.run(1000);
    }
    let (late, never) = w.worst(3, begun, Time(w.now.0 - 1_500_000));
    assert!(late <= Micros::from_secs(1) && never == 0, "{late:?}, {never} never");
    let s = w.node(3).channel.state();
    assert!(s.origin_bytes == 0 && s.wasted_bytes == 0 && s.unfed == 2, "{s:?}");
    assert!(w.node(3).alarms.is_empty(), "{:?}", w.node(3).alarms);
    // With a parent again it is pushed, and nothing comes twice.
    w.assign(3, &[(1, 0b0011), (2, 0b1100)], &[]);
    w.run(4000);
    let s = w.node(3).channel.state();
    assert!(s.origin_bytes == 0 && s.unfed == 0 && s.wasted_bytes <= 2 * u64::from(LIVE_PIECE_BYTES), "{s:?}");
}

#[test]
fn who_has_no_parents_reads_from_the_origin() {
    let mut w = two_trees();
    w.run(3000);
    // Only two of its substreams have a parent anywhere.
    w.assign(3, &[(1, 0b0011)], &[]);
    w.run(2500);
    let newest = w.node(3).channel.listed().next_back().map(|(n, ..)| n).unwrap();
    let begun = w.now;
    for object in newest..newest + 5 {
        w.say(id(3), LiveInput::Reads { reader: 1, object });
        w.run(1000);
    }
    let (_, never) = w.worst(3, begun, Time(w.now.0 - 1_500_000));
    assert_eq!(never, 0);
    let three = w.node(3);
    assert!(three.origin.iter().filter(|p| **p > newest * PIECES + PIECES).all(|p| p % 4 >= 2), "{:?}", three.origin);
}

/// What comes too late from a parent is fetched from the origin, and takes nothing of that parent's uplink then.
#[test]
fn what_the_origin_gives_is_not_pushed_too() {
    let mut w = two_trees();
    w.run(4000);
    // Six substreams of four pieces a second, at half.
    w.nodes.get_mut(&id(1)).unwrap().up = Some(12);
    let newest = w.node(3).channel.listed().next_back().map(|(n, ..)| n).unwrap();
    for object in newest - 1..newest + 14 {
        w.say(id(3), LiveInput::Reads { reader: 1, object });
        w.run(1000);
    }
    let s = w.node(3).channel.state();
    assert!(s.origin_bytes > 0 && s.wasted_bytes * 20 <= s.origin_bytes, "{s:?}");
}

/// What a child has from elsewhere before its parent has it is not pushed when it comes there.
#[test]
fn what_a_child_took_elsewhere_is_not_pushed_later() {
    let mut w = two_trees();
    w.run(4000);
    let next = w.piece;
    w.say(id(1), LiveInput::Cancelled(id(3), (next..next + PIECES).collect()));
    w.run(1500);
    let came = |w: &World| -> Vec<u64> { w.node(3).came.range(next..next + PIECES).map(|(p, _)| p % 4).collect() };
    let of_the_other = came(&w);
    assert!(of_the_other.len() as u64 == PIECES / 2 && of_the_other.iter().all(|s| *s >= 2), "{of_the_other:?}");
    // It was not true: the child asks for them after all.
    w.run(5000);
    assert_eq!(came(&w).len() as u64, PIECES);
}

/// When segments that were played leave the window, those that follow are not needed any earlier.
#[test]
fn who_watches_longer_than_the_window_needs_no_origin() {
    let mut w = two_trees();
    w.run(4000);
    let begun = w.node(3).channel.listed().next_back().map(|(n, ..)| n).unwrap() - 2;
    for object in begun..begun + 60 {
        w.say(id(3), LiveInput::Reads { reader: 1, object });
        w.run(1000);
    }
    let window = track().terms.window.0 / 1_000_000;
    assert!(w.node(3).channel.object(begun + window).is_none(), "the window has moved on");
    assert_eq!(w.node(3).channel.state().origin_bytes, 0);
}

/// Whoever has no control center and no parents hears of the stream by its published log.
#[test]
fn the_published_log_and_the_origin_are_enough() {
    let mut w = two_trees();
    w.run(2000);
    let reads_log = |w: &mut World| {
        let newest = w.node(3).channel.newest_entry().unwrap_or(0);
        let entries: Vec<_> = w.node(0).channel.entries_after(newest, 100).cloned().collect();
        w.say(id(3), LiveInput::Logged(entries));
    };
    w.nodes.get_mut(&id(3)).unwrap().channel = Channel::new(w.now, track(), LiveConfig::default());
    assert!(w.node(3).channel.is_alone() && !w.node(0).channel.is_alone());
    reads_log(&mut w);
    let begun = w.node(3).channel.listed().next_back().map(|(n, ..)| n).unwrap() - 2;
    for object in begun..begun + 8 {
        w.say(id(3), LiveInput::Reads { reader: 1, object });
        w.run(1000);
        reads_log(&mut w);
        assert!(w.node(3).channel.is_here(object), "{object}");
    }
    w.assign(3, &[(1, 0b0011), (2, 0b1100)], &[(0, ALL)]);
    w.run(2000);
    let (of_origin, newest) = (w.node(3).channel.state().origin_bytes, w.piece / PIECES);
    for object in begun + 8..newest {
        w.say(id(3), LiveInput::Reads { reader: 1, object });
    }
    w.run(4000);
    let s = w.node(3).channel.state();
    assert!(s.origin_bytes == of_origin && s.peer_bytes > 0 && s.unfed == 0, "{s:?}");
}

#[test]
fn more_than_the_ticket_names_is_refused() {
    let mut w = two_trees();
    w.run(1000);
    w.say(id(0), LiveInput::ChildClosed(id(3)));
    w.say(id(0), LiveInput::ChildOpened(id(3), Substreams(1)));
    w.say(id(0), LiveInput::Subscribed(id(3), Substreams(3), None));
    assert!(!w.node(0).channel.is_child(&id(3)));
    w.say(id(0), LiveInput::ChildOpened(id(3), Substreams(1)));
    w.say(id(0), LiveInput::Asked(id(3), vec![0, 1, 4, u64::MAX]));
    let channel = &mut w.nodes.get_mut(&id(0)).unwrap().channel;
    let now = w.now;
    let next = || match channel.next_to_send(now, &id(3), 0) {
        Next::Piece(piece) => Some(piece),
        Next::AfterOthers | Next::Nothing => None,
    };
    let got: Vec<u64> = std::iter::from_fn(next).collect();
    assert_eq!(got, [0, 4]);
}

/// Parents die, come back, and change at random; whatever happens, the state stays sound, and those who have a living
/// way to the source go on.
#[test]
fn at_random_the_state_stays_sound() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed, "live");
        let mut w = two_trees();
        w.has_origin = seed % 2 == 0;
        for _ in 0..25 {
            match rng.below(6) {
                0 => w.kill(1 + rng.below(2) as u8),
                1 => {
                    for n in 1..=2 {
                        w.nodes.get_mut(&id(n)).unwrap().dead = false;
                    }
                }
                2 => {
                    let (a, b) = (rng.below(3) as u8, rng.below(3) as u8);
                    let mask = rng.below(16) as u32;
                    w.assign(3, &[(a, mask), (b, ALL & !mask)], &[(rng.below(3) as u8, rng.below(16) as u32)]);
                }
                3 => {
                    let (node, other) = (1 + rng.below(3) as u8, rng.below(3) as u8);
                    w.say(id(node), LiveInput::Lost { node: id(other), why: "cut".into() });
                }
                4 => {
                    let (node, other) = (1 + rng.below(3) as u8, rng.below(3) as u8);
                    w.say(id(node), LiveInput::Replaced(id(other)));
                    w.say(id(node), LiveInput::Connected(id(other)));
                }
                _ => {
                    let object = rng.below(12);
                    w.say(id(3), LiveInput::Reads { reader: rng.below(3), object });
                }
            }
            w.run(300);
        }
        for n in 1..=2 {
            w.nodes.get_mut(&id(n)).unwrap().dead = false;
        }
        w.assign(1, &[(0, ALL)], &[]);
        w.assign(3, &[(1, ALL)], &[(0, ALL)]);
        w.run(4000);
        let begun = w.now;
        w.run(3000);
        let (late, never) = w.worst(3, begun, Time(w.now.0 - 500_000));
        assert!(never == 0 && late <= Micros::from_millis(500), "seed {seed}: {late:?}, {never} never came");
    }
}

#[test]
fn a_spare_that_becomes_a_parent_sees_the_ticket_first() {
    let mut w = two_trees();
    w.run(3000);
    // What 2 gave is now for 1 to give, which was a spare for it; and 0 gives what nobody said before.
    w.assign(3, &[(1, 0b1100), (0, 0b0011)], &[(2, 0b0011)]);
    w.run(1000);
    let begun = w.now;
    w.run(2000);
    let (late, never) = w.worst(3, begun, Time(w.now.0 - 500_000));
    assert!(late <= Micros::from_millis(300) && never == 0, "{late:?}, {never} never came");
    assert!(w.node(3).alarms.is_empty(), "{:?}", w.node(3).alarms);
    assert_eq!(w.node(3).channel.state().unfed, 0);
}

/// What a node's heartbeat says of its edges: of parents, and of children.
fn last_pieces(w: &mut World, node: u8) -> [BTreeMap<NodeId, Vec<(u8, u64)>>; 2] {
    let now = w.now;
    let report = w.nodes.get_mut(&id(node)).unwrap().channel.report(now);
    [report.from, report.to].map(|edges| edges.into_iter().map(|e| (e.node, e.last_pieces)).collect())
}

#[test]
fn both_ends_tell_of_the_last_pieces() {
    let mut w = two_trees();
    w.run(6500);
    // The newest piece of each substream: a segment is a whole number of rounds.
    let newest = |w: &World, all: &[u8]| all.iter().map(|s| (*s, w.piece - u64::from(K - s))).collect::<Vec<_>>();
    for (child, parent, substreams) in [(1, 0, [0, 1]), (1, 2, [2, 3]), (2, 1, [0, 1]), (3, 1, [0, 1]), (3, 2, [2, 3])]
    {
        let expected = newest(&w, &substreams);
        assert_eq!(last_pieces(&mut w, child)[0][&id(parent)], expected, "{child} from {parent}");
        assert_eq!(last_pieces(&mut w, parent)[1][&id(child)], expected, "{parent} to {child}");
    }
    assert_eq!(last_pieces(&mut w, 3)[0][&id(0)], vec![], "a spare pushes nothing");
    assert_eq!(last_pieces(&mut w, 0)[1][&id(3)], vec![]);
    // A hand-over: the new parent's begin anew.
    w.assign(3, &[(0, 0b0011), (2, 0b1100)], &[(1, 0b0011)]);
    w.run(300);
    for (other, of) in [(0, [].as_slice()), (1, &[]), (2, &[2, 3])] {
        assert_eq!(last_pieces(&mut w, 3)[0][&id(other)], newest(&w, of), "from {other}");
        assert_eq!(last_pieces(&mut w, other)[1][&id(3)], newest(&w, of), "{other} to it");
    }
    w.run(700);
    let expected = newest(&w, &[0, 1]);
    assert_eq!(last_pieces(&mut w, 3)[0][&id(0)], expected);
    assert_eq!(last_pieces(&mut w, 0)[1][&id(3)], expected);
    // And back: what the former one sent before says nothing of what it sends now.
    w.assign(3, &[(1, 0b0011), (2, 0b1100)], &[(0, 0b0011)]);
    w.run(300);
    assert_eq!(last_pieces(&mut w, 3)[0][&id(1)], vec![]);
    assert_eq!(last_pieces(&mut w, 1)[1][&id(3)], vec![]);
}

/// A parent that is slow has not sent what waits; what is under way its child lacks.
#[test]
fn the_last_pieces_tell_what_is_under_way() {
    let mut w = two_trees();
    w.run(4000);
    w.nodes.get_mut(&id(1)).unwrap().up = Some(4);
    w.run(1990);
    let (sent, got) = (last_pieces(&mut w, 1)[1][&id(3)].clone(), last_pieces(&mut w, 3)[0][&id(1)].clone());
    for ((s, sent), (_, got)) in sent.into_iter().zip(got) {
        assert!(got <= sent && sent - got <= u64::from(K) && sent + u64::from(K) < w.piece, "{s}: {sent}, {got}");
    }
}
