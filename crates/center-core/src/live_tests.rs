//! A live stream through [`Center`]: who is told what, and what it has of the uplinks.

use crate::client_manager::Arrival;
use crate::content_directory::{Content, Kind};
use crate::{Center, Config, Event, Input, Output};
use headwater_model::assignment::Assignment;
use headwater_model::id::{ContentId, Hash, NodeId, Version};
use headwater_model::layout::Layout;
use headwater_model::live::{LiveTerms, Substreams};
use headwater_model::node::{Accepts, Capabilities, Priority, Role};
use headwater_model::place::Place;
use headwater_model::report::{Alarm, ContentReport, EdgeReport, Heartbeat, Introduction, Join, LiveReport};
use headwater_model::time::{Micros, Rate, Time};
use std::collections::BTreeMap;

const S: u64 = 1_000_000;
const LIVE: Version = Version { content: ContentId([9; 32]), epoch: 1 };
const FILE: Version = Version { content: ContentId([8; 32]), epoch: 1 };
const SOURCE: u8 = 100;

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

struct Stream {
    center: Center,
    now: Time,
    interval: u64,
    told: BTreeMap<NodeId, Assignment>,
    out: Vec<Output>,
}

impl Stream {
    /// A source of 30 Mbit/s and `viewers` of 6 Mbit/s, of a stream of 2 Mbit/s.
    fn new(viewers: u8) -> Stream {
        let center = Center::new(Time(S), Config::default(), 1, false);
        let mut s = Stream { center, now: Time(S), interval: 0, told: BTreeMap::new(), out: Vec::new() };
        let substreams = 8.try_into().unwrap();
        let terms = LiveTerms { substreams, rate: Rate::from_mbit(2), window: Micros::from_secs(60) };
        s.publish(LIVE, Kind::Live(terms));
        s.publish(FILE, Kind::File(Layout::single(1 << 16, 64 << 20).unwrap()));
        s.arrives(SOURCE, 30);
        s.say(Input::Join(node(SOURCE), Join { source: true, ..Join::to(LIVE) }));
        for n in 1..=viewers {
            s.arrives(n, 6);
            s.say(Input::Join(node(n), Join::to(LIVE)));
        }
        s.pass(2000);
        s
    }

    fn publish(&mut self, version: Version, kind: Kind) {
        self.say(Input::Publish(Box::new(Content {
            version,
            name: "match".into(),
            kind,
            origin_needs_credentials: false,
            share_origin_credentials: false,
            stand_in: None,
            dcm: None,
            trees: None,
        })));
    }

    fn arrives(&mut self, n: u8, mbit: u64) {
        self.say(Input::Arrived(Box::new(Arrival {
            session: u64::from(n),
            node: node(n),
            introduction: Introduction {
                role: Role::Peer,
                capabilities: Capabilities::regular(Accepts::Open),
                up: Rate::from_mbit(mbit),
                down: Rate(0),
                client: String::new(),
                local_addresses: Vec::new(),
                https_port: None,
            },
            observed: format!("10.0.{n}.1:4433").parse().unwrap(),
            certificate: Hash([n; 32]),
            enrolled: true,
            place: Place::default(),
        })));
    }

    fn say(&mut self, input: Input) {
        self.out.clear();
        self.center.handle(self.now, input, &mut self.out);
        for o in &self.out {
            match o {
                Output::Assign(node, a) if a.version == LIVE => drop(self.told.insert(*node, a.clone())),
                Output::ChangeChildren(node, change) if change.version == LIVE => {
                    self.told.get_mut(node).expect("it has an assignment").change(change.clone());
                }
                _ => {}
            }
        }
        assert_eq!(self.center.check(self.now), Vec::<String>::new());
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.now = self.now + Micros::from_millis(100);
            self.say(Input::Tick);
        }
    }

    /// All nodes tell that the stream fares well; those of `files` also fetch and serve a file.
    fn beat(&mut self, viewers: u8, files: &[u8]) {
        self.pass(2000);
        self.interval += 1;
        for n in (1..=viewers).chain([SOURCE]) {
            let report = |version| ContentReport {
                version,
                runs: None,
                pieces_held: 7,
                origin_bytes: 0,
                wasted_bytes: 0,
                from: vec![],
                to: vec![],
                priority: Priority::Normal,
                live: (version == LIVE).then(LiveReport::default),
            };
            let mut contents = vec![report(LIVE)];
            contents.extend(files.contains(&n).then(|| report(FILE)));
            self.say(Input::Heartbeat(
                node(n),
                Heartbeat { interval: self.interval, contents, ..Heartbeat::default() },
            ));
        }
    }

    fn up(&self, n: u8) -> Rate {
        self.center.directory().trees(&LIVE.content).unwrap().member_of(&node(n)).unwrap().info.up
    }
}

#[test]
fn viewers_are_assigned_and_an_alarm_is_answered_in_the_same_call() {
    let mut s = Stream::new(12);
    assert!(s.told[&node(SOURCE)].source);
    let stats = s.center.directory().trees(&LIVE.content).unwrap().stats();
    assert_eq!((stats.members, stats.source_slots_used, stats.unfed), (13, 8, 0));
    let mut found = None;
    for n in 1..=12 {
        let told = &s.told[&node(n)];
        let all = told.parents.iter().fold(Substreams::default(), |all, p| all.or(p.substreams));
        assert_eq!(all, Substreams::all(8));
        found = told.parents.iter().find(|p| p.node != node(SOURCE)).map(|p| (n, p.node)).or(found);
    }
    let (child, parent) = found.unwrap();
    let alarm = Alarm::ParentLost { parent, why: "gone".into() };
    s.say(Input::Alarm(node(child), LIVE, alarm));
    let told = s.out.iter().find_map(|o| match o {
        Output::Assign(to, a) if *to == node(child) => Some(a),
        _ => None,
    });
    let told = told.expect("a new assignment, at once");
    assert!(told.parents.iter().all(|p| p.node != parent));
    let all = told.parents.iter().fold(Substreams::default(), |all, p| all.or(p.substreams));
    assert_eq!(all, Substreams::all(8));
    s.say(Input::Departed { node: node(child), session: u64::from(child), bye: true });
    s.say(Input::Departed { node: node(SOURCE), session: u64::from(SOURCE), bye: false });
    s.pass(2000);
    s.say(Input::Unpublish(LIVE.content));
    assert_eq!(s.out.iter().filter(|o| matches!(o, Output::Withdrawn(..))).count(), 12);
}

#[test]
fn a_stream_has_what_its_children_take_of_an_uplink_before_files() {
    let viewers = 12;
    let mut s = Stream::new(viewers);
    for n in 1..=viewers {
        assert_eq!(s.up(n), Rate::from_mbit(6), "it has all of it where there are no files");
    }
    let files: Vec<u8> = (1..=viewers).collect();
    for n in &files {
        s.say(Input::Join(node(*n), Join { complete: *n == 1, ..Join::to(FILE) }));
    }
    (0..6).for_each(|_| s.beat(viewers, &files));
    let stats = s.center.directory().trees(&LIVE.content).unwrap().stats();
    assert_eq!((stats.source_slots_used, stats.unfed), (8, 0), "{stats:?}");
    let mut of_files = 0;
    for n in 1..=viewers {
        let trees = s.center.directory().trees(&LIVE.content).unwrap();
        let used = u64::from(trees.member_of(&node(n)).unwrap().used);
        assert!(s.up(n).0 >= used * 2_000_000 / 8 / 8, "{used} children and {:?}", s.up(n));
        let budget = &s.center.clients().get(&node(n)).unwrap().budget;
        of_files += budget.grant(&FILE.content).0;
    }
    assert!(of_files > 0, "files have the rest");
}

#[test]
fn files_and_streams_are_published_and_withdrawn_alike() {
    let mut s = Stream::new(3);
    s.publish(Version { epoch: 2, ..LIVE }, Kind::File(Layout::single(1 << 16, 1 << 20).unwrap()));
    assert_eq!(s.out.iter().filter(|o| matches!(o, Output::Withdrawn(..))).count(), 4);
    assert!(s.center.directory().trees(&LIVE.content).is_none());
}

/// The last pieces of an edge, in reports of one of its ends.
fn edge(other: NodeId, substreams: Substreams, piece: u64) -> EdgeReport {
    EdgeReport {
        node: other,
        pieces: 1,
        bytes: 1,
        waited: Micros(0),
        rtt: Micros(0),
        sent_packets: 0,
        lost_packets: 0,
        offers_nothing: false,
        last_pieces: substreams.iter().map(|s| (s, piece * 8 + u64::from(s))).collect(),
    }
}

#[test]
fn a_congested_link_is_told_of() {
    let viewers = 12;
    let mut s = Stream::new(viewers);
    (0..20).for_each(|_| s.beat(viewers, &[]));
    let told = |s: &Stream, n: u8| s.told[&node(n)].clone();
    let (child, parent) = (1..=viewers)
        .find_map(|n| Some((n, told(&s, n).parents.iter().find(|p| p.node != node(SOURCE))?.node)))
        .unwrap();
    let mut congested = Vec::new();
    for piece in 1..=5 {
        s.pass(2000);
        s.interval += 1;
        for n in (1..=viewers).chain([SOURCE]) {
            let a = told(&s, n);
            let got = |p: NodeId| if (n, p) == (child, parent) { 1 } else { piece };
            let report = ContentReport {
                version: LIVE,
                runs: None,
                pieces_held: 0,
                origin_bytes: 0,
                wasted_bytes: 0,
                from: a.parents.iter().map(|p| edge(p.node, p.substreams, got(p.node))).collect(),
                to: a.children.iter().map(|c| edge(c.node, c.substreams, piece)).collect(),
                priority: Priority::High,
                live: Some(LiveReport::default()),
            };
            let heartbeat = Heartbeat { interval: s.interval, contents: vec![report], ..Heartbeat::default() };
            s.say(Input::Heartbeat(node(n), heartbeat));
            congested.extend(s.out.iter().filter_map(|o| match o {
                Output::Event(Event::Congested(content, parent, child, _)) => Some((*content, *parent, *child)),
                _ => None,
            }));
        }
    }
    assert_eq!(congested, vec![(LIVE.content, parent, node(child))]);
    assert!(told(&s, child).parents.iter().all(|p| p.node != parent));
}
