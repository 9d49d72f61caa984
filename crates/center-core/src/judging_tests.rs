//! The control center among liars and on bad links: nodes that say what they say, and what becomes of whom.

use crate::client_manager::Arrival;
use crate::content_directory::{Content, Kind};
use crate::network_monitor::Trouble;
use crate::trust::{Standing, Verdict};
use crate::{Center, Config, Event, Input, Output};
use headwater_model::assignment::Assignment;
use headwater_model::bits::Bits;
use headwater_model::id::{ContentId, Hash, NodeId, Version};
use headwater_model::layout::Layout;
use headwater_model::node::{Accepts, Capabilities, Priority, Role};
use headwater_model::place::Place;
use headwater_model::report::{Alarm, ContentReport, EdgeReport, Heartbeat, Introduction, Join};
use headwater_model::time::{Micros, Rate, Time};
use std::collections::BTreeMap;

const VERSION: Version = Version { content: ContentId([9; 32]), epoch: 1 };
const S: u64 = 1_000_000;
const PIECE_BYTES: u32 = 64 << 10;
const MBYTES: u64 = 64;

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// What a pair shows in an interval: bytes that arrive, packets sent, lost ones, round trip in ms,
/// and whether the parent offers the child nothing.
#[derive(Clone, Copy)]
struct Path {
    bytes: u64,
    sent: u64,
    lost: u64,
    rtt_ms: u64,
    offers_nothing: bool,
}

const FINE: Path = Path { bytes: 400_000, sent: 300, lost: 0, rtt_ms: 20, offers_nothing: false };
const LOSSY: Path = Path { bytes: 300_000, sent: 300, lost: 6, rtt_ms: 60, offers_nothing: false };

struct Swarm {
    center: Center,
    now: Time,
    interval: u64,
    assigned: BTreeMap<NodeId, Assignment>,
    events: Vec<Event>,
    /// Sums by (parent, child): bytes, packets sent, lost.
    sums: BTreeMap<(NodeId, NodeId), (u64, u64, u64)>,
    nodes: Vec<u8>,
}

impl Swarm {
    /// A swarm of `nodes`, each in a network of its own; `asn` says where each is. Node 1 has everything.
    fn new(nodes: &[u8], asn: impl Fn(u8) -> u32) -> Swarm {
        let mut s = Swarm {
            center: Center::new(Time(S), Config::default(), 1, false),
            now: Time(S),
            interval: 100,
            assigned: BTreeMap::new(),
            events: Vec::new(),
            sums: BTreeMap::new(),
            nodes: nodes.to_vec(),
        };
        s.say(Input::Publish(Box::new(Content {
            version: VERSION,
            name: "film".into(),
            kind: Kind::File(Layout::single(PIECE_BYTES, MBYTES << 20).unwrap()),
            origin_needs_credentials: false,
            share_origin_credentials: false,
            stand_in: None,
            dcm: None,
            trees: None,
        })));
        nodes.iter().for_each(|n| s.arrives(*n, u64::from(*n), asn(*n)));
        nodes.iter().for_each(|n| s.joins(*n));
        s.pass(500);
        s
    }

    /// Another session of the same node takes the place of the one before.
    fn arrives(&mut self, n: u8, session: u64, asn: u32) {
        self.say(Input::Arrived(Box::new(Arrival {
            session,
            node: node(n),
            introduction: Introduction {
                role: Role::Peer,
                capabilities: Capabilities::regular(Accepts::Open),
                up: Rate::from_mbit(5),
                down: Rate(0),
                client: String::new(),
                local_addresses: Vec::new(),
                https_port: None,
            },
            observed: format!("10.0.{n}.1:4433").parse().unwrap(),
            certificate: Hash([session as u8; 32]),
            enrolled: false,
            place: Place { asn: Some(asn), isp: Some(format!("Net {asn}")), ..Place::default() },
        })));
    }

    fn joins(&mut self, n: u8) {
        let (complete, leases) = (n == 1, Vec::new());
        self.say(Input::Join(node(n), Join { complete, leases, ..Join::to(VERSION) }));
    }

    fn say(&mut self, input: Input) {
        let mut out = Vec::new();
        self.center.handle(self.now, input, &mut out);
        for o in out {
            match o {
                Output::Assign(node, a) => drop(self.assigned.insert(node, a)),
                Output::Event(e) => self.events.push(e),
                _ => {}
            }
        }
        let problems = self.center.directory().dcm(&VERSION.content).map(|d| d.check(self.now));
        assert_eq!(problems.unwrap_or_default(), Vec::<String>::new());
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(100) {
            self.now = self.now + Micros::from_millis(100);
            self.say(Input::Tick);
        }
    }

    fn parents(&self, child: u8) -> Vec<u8> {
        let of = self.assigned.get(&node(child)).map(|a| a.parents.iter().map(|p| p.node.0[0]).collect());
        of.unwrap_or_default()
    }
    /// The child loses its first parent, and looks for another.
    fn loses_one(&mut self, child: u8) {
        if let Some(parent) = self.parents(child).first() {
            self.alarm(child, Alarm::ParentLost { parent: node(*parent), why: "gone".into() });
        }
    }
    /// However often the child looks for parents, it does not get that one for a minute.
    fn never_meet_again(&mut self, child: u8, parent: u8) {
        for _ in 0..30 {
            self.loses_one(child);
            self.beat(|_, _| FINE);
            assert!(!self.parents(child).contains(&parent));
        }
    }
    fn children(&self, parent: u8) -> Vec<u8> {
        self.nodes.iter().copied().filter(|c| self.parents(*c).contains(&parent)).collect()
    }
    fn alarm(&mut self, child: u8, alarm: Alarm) {
        self.say(Input::Alarm(node(child), VERSION, alarm));
    }
    fn standing(&self, n: u8) -> Standing {
        self.center.trust().standing(&node(n))
    }

    /// All nodes beat for one interval in which every edge carries what `path` says (parent, child).
    fn beat(&mut self, path: impl Fn(u8, u8) -> Path) {
        self.pass(2000);
        self.interval += 1;
        let edges: Vec<(u8, u8)> =
            self.nodes.iter().flat_map(|c| self.parents(*c).into_iter().map(|p| (p, *c)).collect::<Vec<_>>()).collect();
        for (p, c) in &edges {
            let (now, sum) = (path(*p, *c), self.sums.entry((node(*p), node(*c))).or_default());
            *sum = (sum.0 + now.bytes, sum.1 + now.sent, sum.2 + now.lost);
        }
        for n in self.nodes.clone() {
            let report = |other: u8, pair: (u8, u8), as_parent: bool| {
                let (bytes, sent, lost) = self.sums[&(node(pair.0), node(pair.1))];
                EdgeReport {
                    node: node(other),
                    pieces: bytes / u64::from(PIECE_BYTES),
                    bytes,
                    waited: Micros::from_secs(2),
                    rtt: Micros::from_millis(path(pair.0, pair.1).rtt_ms),
                    sent_packets: if as_parent { sent } else { 0 },
                    lost_packets: if as_parent { lost } else { 0 },
                    offers_nothing: !as_parent && path(pair.0, pair.1).offers_nothing,
                    last_pieces: Vec::new(),
                }
            };
            let from = edges.iter().filter(|e| e.1 == n).map(|e| report(e.0, *e, false)).collect();
            let to = edges.iter().filter(|e| e.0 == n).map(|e| report(e.1, *e, true)).collect();
            let runs = Layout::single(PIECE_BYTES, MBYTES << 20).unwrap().runs();
            let mut held = Bits::new(runs);
            for run in 0..runs / 2 {
                held.set(run);
            }
            let content = ContentReport {
                version: VERSION,
                runs: (n != 1).then_some(held),
                pieces_held: if n == 1 { (MBYTES << 20) as u32 / PIECE_BYTES } else { 500 },
                origin_bytes: 0,
                wasted_bytes: 0,
                from,
                to,
                priority: Priority::Normal,
                live: None,
            };
            let heartbeat = Heartbeat { interval: self.interval, contents: vec![content], ..Heartbeat::default() };
            self.say(Input::Heartbeat(node(n), heartbeat));
        }
    }
}

#[test]
fn who_spoils_loses_its_children_and_gets_no_more() {
    let nodes: Vec<u8> = (1..=12).collect();
    let mut s = Swarm::new(&nodes, |_| 1);
    s.beat(|_, _| FINE);
    let liar = 2;
    let accusers = s.children(liar);
    assert!(accusers.len() >= 4, "{accusers:?}");
    for c in &accusers {
        s.alarm(*c, Alarm::BadPieces { parent: node(liar) });
    }
    s.pass(1600);
    assert_eq!(s.standing(liar), Standing::Banned);
    assert!(s.events.iter().any(|e| matches!(e, Event::Verdict(Verdict::Standing { standing: Standing::Banned, .. }))));
    for _ in 0..20 {
        s.beat(|_, _| FINE);
        assert_eq!(s.children(liar), Vec::<u8>::new());
    }
    assert!(!s.parents(liar).is_empty(), "it may still fetch");
    assert!(s.center.history().node(&node(liar)).unwrap().bad >= 2);
    // It comes back with another session: nothing is forgotten.
    s.say(Input::Departed { node: node(liar), session: 2, bye: true });
    s.say(Input::Join(node(3), Join::to(VERSION)));
    s.pass(500);
    assert_eq!(s.standing(liar), Standing::Banned);
}

#[test]
fn who_claims_what_it_does_not_offer_is_left_after_one_interval() {
    let nodes: Vec<u8> = (1..=12).collect();
    let mut s = Swarm::new(&nodes, |_| 1);
    s.beat(|_, _| FINE);
    let liar = 2;
    assert!(s.children(liar).len() >= 4);
    let nothing = Path { bytes: 0, offers_nothing: true, ..FINE };
    s.beat(|p, _| if p == liar { nothing } else { FINE });
    s.pass(200);
    assert_eq!(s.children(liar), Vec::<u8>::new());
    s.beat(|_, _| FINE);
    s.beat(|_, _| FINE);
    assert_eq!(s.standing(liar), Standing::Banned);
    assert!(nodes.iter().all(|n| *n == liar || s.standing(*n) == Standing::Good));
}

#[test]
fn whose_own_words_cannot_be_true_is_banned_at_once() {
    let nodes: Vec<u8> = (1..=12).collect();
    let mut s = Swarm::new(&nodes, |_| 1);
    s.beat(|_, _| FINE);
    s.beat(|_, _| FINE);
    let liar = 2;
    let children = s.children(liar);
    assert!(children.len() >= 4);
    // It has 5 Mbit/s: what it says that it sent to each child in an interval is 16 MB.
    for c in &children {
        if let Some(sum) = s.sums.get_mut(&(node(liar), node(*c))) {
            sum.0 += 16_000_000;
        }
    }
    s.beat(|_, _| FINE);
    s.pass(200);
    assert_eq!(s.standing(liar), Standing::Banned);
    assert_eq!(s.children(liar), Vec::<u8>::new());
    assert!(nodes.iter().all(|n| *n == liar || s.standing(*n) == Standing::Good));
    s.beat(|_, _| FINE);
    assert_eq!(s.standing(liar), Standing::Banned, "it stays banned although nobody accuses it");
    s.pass(601_000);
    assert_ne!(s.standing(liar), Standing::Banned);
}

#[test]
fn slow_parents_stay_where_no_other_is_faster() {
    let nodes: Vec<u8> = (1..=12).collect();
    let mut s = Swarm::new(&nodes, |_| 1);
    s.beat(|_, _| FINE);
    let (child, slow) = (3, s.parents(3)[0]);
    let before = s.parents(child);
    // 2 kB in two seconds, which all were waited for.
    let trickle = Path { bytes: 2_000, ..FINE };
    (0..4).for_each(|_| s.beat(|_, c| if c == child { trickle } else { FINE }));
    s.pass(200);
    assert_eq!(s.parents(child), before, "its own line is slow");
    (0..4).for_each(|_| s.beat(|p, c| if (p, c) == (slow, child) { trickle } else { FINE }));
    s.pass(200);
    assert!(!s.parents(child).contains(&slow));
    (0..100).for_each(|_| s.beat(|_, _| FINE));
    assert!(!s.parents(child).contains(&slow), "the two rest for minutes");
}

#[test]
fn a_trickle_that_one_child_tells_from_its_line_is_left_by_all() {
    let nodes: Vec<u8> = (1..=12).collect();
    let mut s = Swarm::new(&nodes, |_| 1);
    s.beat(|_, _| FINE);
    let slow = 2;
    let (teller, other) = (s.children(slow)[0], s.children(slow)[1]);
    let trickle = Path { bytes: 2_000, ..FINE };
    // All that the other child has trickle: it cannot tell.
    let path = |p: u8, c: u8| if p == slow && c == teller || c == other { trickle } else { FINE };
    (0..2).for_each(|_| s.beat(path));
    s.pass(200);
    let before = s.parents(other);
    assert!(before.contains(&slow));
    s.alarm(teller, Alarm::Slow { parent: node(slow) });
    s.beat(path);
    s.pass(200);
    let after = s.parents(other);
    assert!(!after.contains(&slow) && before.iter().all(|p| *p == slow || after.contains(p)), "{before:?} {after:?}");
    assert_ne!(s.standing(slow), Standing::Banned, "one child accuses it");
}

#[test]
fn who_trickles_to_all_its_children_is_left_though_none_can_tell_it_from_its_line() {
    let nodes: Vec<u8> = (1..=16).collect();
    let mut s = Swarm::new(&nodes, |_| 1);
    s.beat(|_, _| FINE);
    let slow = 2;
    let children = s.children(slow);
    assert!(children.len() >= 3, "{children:?}");
    // All that these children have trickle.
    let path = |_: u8, c: u8| if children.contains(&c) { Path { bytes: 2_000, ..FINE } } else { FINE };
    (0..2).for_each(|_| s.beat(path));
    s.pass(200);
    assert!(s.children(slow).iter().all(|c| !children.contains(c)), "{children:?}");
    assert_ne!(s.standing(slow), Standing::Banned, "nobody accuses it");
    for child in children.iter().skip(1) {
        s.never_meet_again(*child, slow);
    }
}

#[test]
fn what_two_children_say_of_a_slow_parent_parts_them_for_long() {
    let nodes: Vec<u8> = (1..=16).collect();
    let mut s = Swarm::new(&nodes, |_| 1);
    s.beat(|_, _| FINE);
    let slow = 2;
    let (first, second) = (s.children(slow)[0], s.children(slow)[1]);
    let path = |_: u8, c: u8| if c == first || c == second { Path { bytes: 2_000, ..FINE } } else { FINE };
    s.beat(path);
    s.alarm(first, Alarm::Slow { parent: node(slow) });
    s.alarm(second, Alarm::Slow { parent: node(slow) });
    s.never_meet_again(second, slow);
}

#[test]
fn who_is_accused_is_no_spare_either() {
    let nodes: Vec<u8> = (1..=16).collect();
    let mut s = Swarm::new(&nodes, |_| 1);
    s.beat(|_, _| FINE);
    let named = |s: &Swarm, child: u8| {
        let a = s.assigned[&node(child)].clone();
        (a.parents.iter().map(|p| p.node).collect::<Vec<_>>(), a.spares.iter().map(|p| p.node).collect::<Vec<_>>())
    };
    let child = *nodes.iter().find(|n| !named(&s, **n).1.is_empty()).unwrap();
    let (parents, spares) = named(&s, child);
    let silent_spare = spares[0];
    // It called the spare in, for a parent that fell silent, and hears nothing from that one either.
    for silent in [parents[0], silent_spare] {
        s.alarm(child, Alarm::Silent { parent: silent });
        s.pass(300);
        let (parents, spares) = named(&s, child);
        assert!(!parents.contains(&silent) && !spares.contains(&silent));
    }
    for _ in 0..30 {
        s.loses_one(child);
        s.beat(|_, _| FINE);
        let (parents, spares) = named(&s, child);
        assert!(!parents.contains(&silent_spare) && !spares.contains(&silent_spare), "the two rest for minutes");
    }
}

#[test]
fn who_brings_a_piece_and_falls_silent_does_not_come_back() {
    let nodes: Vec<u8> = (1..=16).collect();
    let mut s = Swarm::new(&nodes, |_| 1);
    let (child, silent) = (5, s.parents(5)[0]);
    let piece = Path { bytes: u64::from(PIECE_BYTES), ..FINE };
    s.beat(|p, c| if (p, c) == (silent, child) { piece } else { FINE });
    s.alarm(child, Alarm::Silent { parent: node(silent) });
    s.never_meet_again(child, silent);
}

#[test]
fn a_small_uplink_is_left_and_not_banned() {
    for (bytes, expected) in [(0, true), (u64::from(PIECE_BYTES), false)] {
        let nodes: Vec<u8> = (1..=16).collect();
        let mut s = Swarm::new(&nodes, |_| 1);
        let small = 1;
        let path = |p: u8, _: u8| if p == small { Path { bytes, ..FINE } } else { FINE };
        s.beat(path);
        let children: Vec<u8> = nodes.iter().copied().filter(|c| s.parents(*c).contains(&small)).collect();
        assert!(children.len() >= 3, "{children:?}");
        for c in children {
            s.alarm(c, Alarm::Silent { parent: node(small) });
        }
        (0..3).for_each(|_| s.beat(path));
        assert_eq!(s.standing(small) == Standing::Banned, expected, "{bytes} bytes");
    }
}

#[test]
fn who_is_accused_just_after_it_was_taken_away_does_not_come_back() {
    let nodes: Vec<u8> = (1..=16).collect();
    let mut s = Swarm::new(&nodes, |_| 1);
    let (child, silent) = (5, s.parents(5)[0]);
    let piece = Path { bytes: u64::from(PIECE_BYTES), ..FINE };
    s.beat(|p, c| if (p, c) == (silent, child) { piece } else { FINE });
    // It is taken away for a broken connection, and the child's word on its silence comes after.
    s.alarm(child, Alarm::ParentLost { parent: node(silent), why: "gone".into() });
    s.pass(300);
    assert!(!s.parents(child).contains(&silent));
    s.alarm(child, Alarm::Silent { parent: node(silent) });
    s.never_meet_again(child, silent);
}

#[test]
fn who_slanders_repairs_only_its_own_edges_and_is_found_out() {
    let nodes: Vec<u8> = (1..=12).collect();
    let mut s = Swarm::new(&nodes, |_| 1);
    let slanderer = 5;
    s.beat(|_, _| FINE);
    for _ in 0..14 {
        for p in s.parents(slanderer) {
            s.alarm(slanderer, Alarm::BadPieces { parent: node(p) });
        }
        s.beat(|_, _| FINE);
        assert!(nodes.iter().all(|n| s.standing(*n) != Standing::Banned));
    }
    s.beat(|_, _| FINE);
    assert!(s.center.trust().is_slanderer(&node(slanderer)));
    assert!(nodes.iter().all(|n| s.standing(*n) == Standing::Good));
}

#[test]
fn who_accuses_nodes_that_are_not_its_parents_proves_itself_a_slanderer() {
    let nodes: Vec<u8> = (1..=12).collect();
    let mut s = Swarm::new(&nodes, |_| 1);
    s.beat(|_, _| FINE);
    let (slanderer, clumsy) = (5, 6);
    let strangers = |s: &Swarm, of: u8| -> Vec<u8> {
        let named = &s.assigned[&node(of)];
        let near: Vec<u8> = named.parents.iter().chain(&named.spares).map(|p| p.node.0[0]).collect();
        nodes.iter().copied().filter(|n| *n != of && !near.contains(n)).collect()
    };
    // Words about former parents may cross the assignment that says so.
    for n in strangers(&s, clumsy).into_iter().take(5) {
        s.alarm(clumsy, Alarm::Silent { parent: node(n) });
    }
    for _ in 0..8 {
        for n in strangers(&s, slanderer) {
            s.alarm(slanderer, Alarm::Silent { parent: node(n) });
        }
    }
    s.pass(200);
    assert_eq!(s.standing(slanderer), Standing::Banned);
    assert_eq!(s.children(slanderer), Vec::<u8>::new());
    assert!(nodes.iter().all(|n| *n == slanderer || s.standing(*n) == Standing::Good));
}

#[test]
fn nodes_at_an_address_that_attacks_are_left_by_whom_it_attacked_only() {
    let nodes: Vec<u8> = (1..=12).collect();
    let mut s = Swarm::new(&nodes, |_| 1);
    s.beat(|_, _| FINE);
    let attacker = 2;
    let children = s.children(attacker);
    assert!(children.len() >= 4, "{children:?}");
    let (victim, others) = (children[0], &children[1..]);
    s.alarm(victim, Alarm::Attacked { from: "10.0.2.1".parse().unwrap() });
    // Its own address it shares with whoever is at home there.
    s.alarm(victim, Alarm::Attacked { from: format!("10.0.{victim}.1").parse().unwrap() });
    s.pass(200);
    let left =
        |e: &Event| matches!(e, Event::Trouble(_, p, c, Trouble::Attack) if (p.0[0], c.0[0]) == (attacker, victim));
    assert!(s.events.iter().any(left));
    assert!(others.iter().all(|c| s.parents(*c).contains(&attacker)));
    for _ in 0..10 {
        s.beat(|_, _| FINE);
        assert!(!s.parents(victim).contains(&attacker) && !s.parents(attacker).contains(&victim));
    }
    assert_eq!(s.standing(attacker), Standing::Good, "others may sit behind its address");
}

#[test]
fn a_flood_of_alarms_is_not_heard() {
    let nodes: Vec<u8> = (1..=12).collect();
    let mut s = Swarm::new(&nodes, |_| 1);
    let before = s.events.len();
    for _ in 0..5000 {
        s.alarm(5, Alarm::Starving { runs: (0..16).collect() });
    }
    assert!(s.events.len() - before <= 70, "{}", s.events.len() - before);
}

/// Two ISPs of six, in which all went well for an interval.
fn two_isps() -> Swarm {
    let nodes: Vec<u8> = (1..=12).collect();
    let mut s = Swarm::new(&nodes, |n| u32::from(n > 6) + 1);
    s.beat(|_, _| FINE);
    s.events.clear();
    s
}

fn cross(parent: u8, child: u8) -> bool {
    (parent > 6) != (child > 6)
}

/// Pairs of two ISPs that are named within three intervals in which paths are as `path` says.
fn named(path: impl Fn(u8, u8) -> Path) -> (Vec<(u8, u8)>, Vec<String>) {
    let mut s = two_isps();
    (0..3).for_each(|_| s.beat(&path));
    s.pass(1000);
    let pair = |e: &Event| match e {
        Event::Congested(_, p, c, _) => Some((p.0[0], c.0[0])),
        _ => None,
    };
    let link = |e: &Event| match e {
        Event::Link { from, to, congested: true, .. } => Some(format!("{from} → {to}")),
        _ => None,
    };
    (s.events.iter().filter_map(pair).collect(), s.events.iter().filter_map(link).collect())
}

#[test]
fn pairs_across_a_congested_link_are_named_and_no_others() {
    let (pairs, links) = named(|p, c| if cross(p, c) { LOSSY } else { FINE });
    assert!(!pairs.is_empty() && pairs.iter().all(|(p, c)| cross(*p, *c)), "{pairs:?}");
    assert!(links.contains(&"Net 1 (AS1) → Net 2 (AS2)".to_owned()), "{links:?}");
    let once: std::collections::BTreeSet<_> = pairs.iter().collect();
    assert_eq!(once.len(), pairs.len(), "each is named once while it lasts");
    // A queue before the link tells as much as loss.
    let queued = Path { rtt_ms: 200, ..FINE };
    let (pairs, _) = named(|p, c| if cross(p, c) { queued } else { FINE });
    assert!(!pairs.is_empty() && pairs.iter().all(|(p, c)| cross(*p, *c)), "{pairs:?}");
}

#[test]
fn one_lossy_pair_does_not_make_a_region_lossy() {
    let mut s = two_isps();
    let across = |s: &Swarm| -> Vec<(u8, u8)> {
        let edges = s.nodes.iter().flat_map(|c| s.parents(*c).into_iter().map(|p| (p, *c)).collect::<Vec<_>>());
        edges.filter(|(p, c)| cross(*p, *c)).collect()
    };
    let before = across(&s);
    let bad = before[0];
    (0..6).for_each(|_| s.beat(|p, c| if (p, c) == bad { LOSSY } else { FINE }));
    s.pass(1000);
    let named = s.events.iter().filter(|e| matches!(e, Event::Congested(..))).count();
    assert_eq!((named, across(&s)), (1, before));
}

/// Edges between two ISPs of six before and after some intervals in which these are as `path` says.
fn across(path: Path) -> [Vec<(u8, u8)>; 2] {
    let mut s = two_isps();
    let edges = |s: &Swarm| -> Vec<(u8, u8)> {
        let all = s.nodes.iter().flat_map(|c| s.parents(*c).into_iter().map(|p| (p, *c)).collect::<Vec<_>>());
        all.filter(|(p, c)| cross(*p, *c)).collect()
    };
    let before = edges(&s);
    (0..6).for_each(|_| s.beat(|p, c| if cross(p, c) { path } else { FINE }));
    s.pass(1000);
    [before, edges(&s)]
}

#[test]
fn pairs_across_regions_stay_and_where_packets_are_lost_get_company() {
    let [before, after] = across(LOSSY);
    assert!(before.iter().all(|e| after.contains(e)), "{before:?} {after:?}");
    assert!(after.len() > before.len(), "{before:?} {after:?}");
    let [before, after] = across(Path { rtt_ms: 250, ..FINE });
    assert_eq!(before, after, "more connections make a queue no shorter");
}

#[test]
fn busy_uplinks_and_downlinks_are_not_links() {
    let (pairs, links) = named(|p, _| if p == 1 { LOSSY } else { FINE });
    assert_eq!((pairs, links), (vec![], vec![]), "a busy uplink");
    let (pairs, links) = named(|_, c| if c == 8 { LOSSY } else { FINE });
    assert_eq!((pairs, links), (vec![], vec![]), "a busy downlink");
    let (pairs, links) = named(|_, _| FINE);
    assert_eq!((pairs, links), (vec![], vec![]));
}

#[test]
fn who_offers_nothing_has_no_children_and_fetches_on() {
    let nodes: Vec<u8> = (1..=12).collect();
    let mut s = Swarm::new(&nodes, |_| 1);
    s.beat(|_, _| FINE);
    let (quiet, again) = (2, Join::to(VERSION));
    assert!(!s.children(quiet).is_empty());
    for (up, serves) in [(Rate(0), false), (Rate::from_mbit(5), true), (Rate::from_mbit(1), true)] {
        s.say(Input::Offers(node(quiet), up));
        s.say(Input::Join(node(quiet), again.clone()));
        for _ in 0..5 {
            s.beat(|_, _| FINE);
        }
        assert_eq!(!s.children(quiet).is_empty(), serves, "at {up}");
        assert!(!s.parents(quiet).is_empty(), "it fetches on");
        assert_eq!(s.standing(quiet), Standing::Good);
    }
}

#[test]
fn a_restart_explains_the_silence_before_it() {
    let nodes: Vec<u8> = (1..=16).collect();
    let mut s = Swarm::new(&nodes, |_| 1);
    s.beat(|_, _| FINE);
    let restarted = 2;
    let children: Vec<u8> = nodes.iter().copied().filter(|n| s.parents(*n).contains(&restarted)).collect();
    assert!(children.len() > 3);
    let (before, after) = children.split_at(2);
    before.iter().for_each(|c| s.alarm(*c, Alarm::Silent { parent: node(restarted) }));
    s.arrives(restarted, 100, 1);
    after.iter().for_each(|c| s.alarm(*c, Alarm::Silent { parent: node(restarted) }));
    s.pass(100);
    s.joins(restarted);
    children.iter().for_each(|c| s.alarm(*c, Alarm::Silent { parent: node(restarted) }));
    s.beat(|_, _| FINE);
    s.beat(|_, _| FINE);
    let judged = |e: &Event| matches!(e, Event::Verdict(_));
    assert!(!s.events.iter().any(judged), "{:?}", s.events);
    assert!(after.iter().any(|c| s.parents(*c).contains(&restarted)), "it is a parent again, and at once");
}
