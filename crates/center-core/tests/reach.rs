//! The whole control center with hosts behind NATs: no pair that cannot connect is ever assigned, crowds are served as
//! soon as it is known who they are, and one of a site brings the content in.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use headwater_center_core::client_manager::Arrival;
use headwater_center_core::content_directory::{Content, Kind};
use headwater_center_core::{Center, Config, Input, Output};
use headwater_model::assignment::Assignment;
use headwater_model::log::Object;
use headwater_model::reach::Probe;
use headwater_model::report::{ContentReport, EdgeReport, Heartbeat, Introduction, Join};
use headwater_model::time::{Micros, Rate, Time};
use headwater_model::{
    Accepts, Bits, Capabilities, ContentId, Hash, Layout, NodeId, Place, Priority, Rng, Role, Version,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What stands before a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Before {
    Nothing,
    Independent,
    Dependent,
    /// It does not listen.
    Closed,
}
use Before::*;

struct Host {
    node: NodeId,
    observed: SocketAddr,
    before: Before,
    role: Role,
}

struct World {
    center: Center,
    now: Time,
    hosts: Vec<Host>,
    assigned: BTreeMap<NodeId, Assignment>,
    probes: Vec<(Time, NodeId, Probe)>,
    failing: Vec<(Time, NodeId, [u8; 16])>,
    version: Version,
    layout: Layout,
}

fn id(n: usize) -> NodeId {
    NodeId(Hash::of(&[&n.to_be_bytes()]).0)
}

impl World {
    fn new() -> Self {
        let objects = [Object { path: "f".into(), media_type: String::new(), size_bytes: 20 << 20 }];
        let layout = Layout::new(64 << 10, &objects).unwrap();
        let version = Version { content: ContentId([9; 32]), epoch: 1 };
        let mut center = Center::new(Time(1), Config::default(), 1, false).test_reachability([3; 32]);
        let content = Content {
            version,
            name: "f".into(),
            kind: Kind::File(layout.clone()),
            origin_needs_credentials: false,
            share_origin_credentials: false,
            stand_in: None,
            dcm: None,
            trees: None,
        };
        center.handle(Time(1), Input::Publish(Box::new(content)), &mut Vec::new());
        let (hosts, probes, failing) = (Vec::new(), Vec::new(), Vec::new());
        Self { center, now: Time(1), hosts, assigned: BTreeMap::new(), probes, failing, version, layout }
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.center.handle(self.now, input, &mut out);
        for o in out {
            match o {
                Output::Assign(node, a) => {
                    self.check(&node, &a);
                    self.assigned.insert(node, a);
                }
                Output::Probe(node, probe) => self.probes.push((self.now + Micros::from_millis(180), node, probe)),
                _ => {}
            }
        }
    }

    fn host(&self, node: &NodeId) -> &Host {
        self.hosts.iter().find(|h| h.node == *node).unwrap()
    }

    /// Against what is true, whatever the control center knows: a pair with a chance to connect, unless neither end
    /// was tested yet.
    fn check(&self, node: &NodeId, a: &Assignment) {
        let own = self.center.clients().get(node).unwrap().reachability();
        for p in &a.parents {
            let theirs = self.center.clients().get(&p.node).unwrap().reachability();
            assert_eq!(p.dial, own.dials(&theirs));
            assert!(own.compatible(&theirs));
        }
        for c in &a.children {
            let theirs = self.center.clients().get(&c.node).unwrap().reachability();
            assert_eq!((c.dial, c.punch), (own.dials(&theirs), own.punches(&theirs)));
        }
    }

    fn comes(&mut self, address: &str, before: Before, role: Role) -> NodeId {
        let (node, observed): (NodeId, SocketAddr) = (id(self.hosts.len()), address.parse().unwrap());
        self.hosts.push(Host { node, observed, before, role });
        let accepts = if before == Closed { Accepts::DialOnly } else { Accepts::Open };
        let arrival = Arrival {
            session: self.hosts.len() as u64,
            node,
            introduction: Introduction {
                role,
                capabilities: Capabilities::regular(accepts),
                up: Rate::from_mbit(20),
                down: Rate(0),
                client: String::new(),
                local_addresses: vec![format!("10.0.0.{}:4000", self.hosts.len() % 250 + 1).parse().unwrap()],
                https_port: None,
            },
            observed,
            certificate: Hash(node.0),
            enrolled: role == Role::Waypoint,
            place: Place { lan: Some(observed.ip().to_string()), ..Place::default() },
        };
        self.input(Input::Arrived(Box::new(arrival)));
        self.joins(node, false);
        node
    }

    fn joins(&mut self, node: NodeId, complete: bool) {
        let join = Join { complete, ..Join::to(self.version) };
        self.input(Input::Join(node, join));
    }

    fn run(&mut self, for_: Micros) {
        let end = self.now + for_;
        loop {
            let arrives = self.probes.first().map(|p| p.0);
            let due = self.center.next_timeout().max(self.now + Micros(1));
            let fails = self.failing.first().map(|p| p.0);
            let next = [arrives, fails].into_iter().flatten().fold(due, Time::min);
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if arrives == Some(next) {
                let (_, dialler, probe) = self.probes.remove(0);
                let d = self.host(&dialler);
                let port = if d.before == Dependent { 9 } else { d.observed.port() };
                let (seen, at) = (SocketAddr::new(d.observed.ip(), port), self.host(&probe.node).before);
                if at == Nothing {
                    self.input(Input::ProbeArrived(probe.node, probe.number, seen));
                } else {
                    self.failing.push((self.now + Micros::from_millis(1_800), dialler, probe.number));
                }
            } else if fails == Some(next) {
                let (_, by, number) = self.failing.remove(0);
                self.input(Input::ProbeFailed(by, number));
            } else {
                self.input(Input::Tick);
            }
        }
        self.now = end;
        if let Some(dcm) = self.center.directory().dcm(&self.version.content) {
            assert_eq!(dcm.check(self.now), Vec::<String>::new());
        }
        assert_eq!(self.center.totals().lightweight_pairs, 0);
    }

    fn accepts(&self, node: &NodeId) -> Accepts {
        self.center.clients().get(node).unwrap().arrival.introduction.capabilities.accepts.value
    }

    fn parents(&self, node: &NodeId) -> usize {
        self.assigned.get(node).map_or(0, |a| a.parents.len())
    }

    /// All say that bytes came over every edge, and that they hold `pieces`.
    fn heartbeats(&mut self, interval: u64, pieces: u32) {
        for i in 0..self.hosts.len() {
            let node = self.hosts[i].node;
            let edge = |n| EdgeReport {
                node: n,
                pieces: 1,
                bytes: interval * 1_000_000,
                waited: Micros(0),
                rtt: Micros(0),
                sent_packets: 0,
                lost_packets: 0,
                offers_nothing: false,
                last_pieces: Vec::new(),
            };
            let from = self.assigned.get(&node).map(|a| a.parents.iter().map(|p| edge(p.node)).collect());
            let report = ContentReport {
                version: self.version,
                runs: None,
                pieces_held: if self.hosts[i].role == Role::Waypoint { self.layout.pieces() } else { pieces },
                origin_bytes: 0,
                wasted_bytes: 0,
                from: from.unwrap_or_default(),
                to: vec![],
                priority: Priority::Normal,
                live: None,
            };
            self.input(Input::Heartbeat(node, Heartbeat { interval, contents: vec![report], ..Heartbeat::default() }));
        }
    }
}

#[test]
fn a_crowd_of_strangers_is_served_after_three_round_trips() {
    let mut w = World::new();
    let kinds = [Nothing, Closed, Independent, Nothing, Dependent];
    let crowd: Vec<NodeId> =
        (0..60).map(|i| w.comes(&format!("198.18.{i}.7:4000"), kinds[i % 5], Role::Peer)).collect();
    w.run(Micros::from_millis(400));
    let open = crowd.iter().filter(|n| w.host(n).before == Nothing);
    assert!(open.clone().all(|n| w.accepts(n) == Accepts::Open));
    let served = open.filter(|n| w.parents(n) > 0).count();
    assert!(served >= 23, "{served} of 24 open ones have parents after 400 ms");
    w.run(Micros::from_secs(6));
    for node in &crowd {
        let right = match w.host(node).before {
            Nothing => Accepts::Open,
            Independent => Accepts::Punchable,
            Dependent | Closed => Accepts::DialOnly,
        };
        assert_eq!(w.accepts(node), right);
        assert!(w.parents(node) > 0, "{right:?} has parents");
    }
    let punched = w.assigned.values().flat_map(|a| &a.children).filter(|c| c.punch).count();
    assert!(punched > 0, "punchable ones serve one another");
}

#[test]
fn one_of_a_site_brings_the_content_in() {
    let mut w = World::new();
    let seed = w.comes("203.0.113.1:4000", Nothing, Role::Waypoint);
    w.joins(seed, true);
    for i in 0..6 {
        w.comes(&format!("198.18.{i}.7:4000"), Nothing, Role::Peer);
    }
    w.run(Micros::from_secs(3));
    let site: Vec<NodeId> =
        (0..20).map(|i| w.comes(&format!("192.0.2.1:{}", 5000 + i), Dependent, Role::Peer)).collect();
    for interval in 1..8 {
        w.run(Micros::from_secs(2));
        w.heartbeats(interval, 10);
        let from_outside = |n: &&NodeId| w.assigned[*n].parents.iter().any(|p| !site.contains(&p.node));
        let entries: Vec<_> = site.iter().filter(from_outside).collect();
        assert_eq!(entries.len(), 1, "interval {interval}");
        assert!(site.iter().all(|n| w.parents(n) > 0));
    }
    // They are told of each other's own addresses.
    let inside = w.assigned[&site[3]].parents.iter().find(|p| site.contains(&p.node)).unwrap();
    assert!(inside.reach.addresses[0].ip().to_string().starts_with("10.0.0."));
    let of_stranger = w.assigned.iter().filter(|(n, _)| !site.contains(n)).flat_map(|(_, a)| &a.children);
    assert!(of_stranger.flat_map(|c| c.reach.addresses.iter()).all(|a| !a.ip().to_string().starts_with("10.")));
    // The one that brings it in goes: another does.
    let entry = site.iter().position(|n| w.assigned[n].parents.iter().any(|p| !site.contains(&p.node))).unwrap();
    let host = w.hosts.iter().position(|h| h.node == site[entry]).unwrap();
    w.input(Input::Departed { node: site[entry], session: host as u64 + 1, bye: true });
    w.assigned.remove(&site[entry]);
    w.run(Micros::from_secs(3));
    let left: Vec<&NodeId> = site.iter().filter(|n| **n != site[entry]).collect();
    let entries = left.iter().filter(|n| w.assigned[**n].parents.iter().any(|p| !site.contains(&p.node))).count();
    assert!(entries >= 1);
}

#[test]
fn strangers_behind_a_provider_s_nat_are_no_site() {
    let mut w = World::new();
    let seed = w.comes("203.0.113.1:4000", Nothing, Role::Waypoint);
    w.joins(seed, true);
    let all: Vec<NodeId> = (0..8).map(|i| w.comes(&format!("192.0.2.1:{}", 5000 + i), Dependent, Role::Peer)).collect();
    for _ in 0..10 {
        w.run(Micros::from_secs(3));
        for node in &all {
            // None of them reaches another one.
            let parents: Vec<NodeId> = w.assigned[node].parents.iter().map(|p| p.node).collect();
            for p in parents.into_iter().filter(|p| all.contains(p)) {
                let result = headwater_model::report::DialResult { node: p, error: Some("no answer".into()) };
                w.input(Input::Dialled(*node, result));
            }
        }
    }
    w.run(Micros::from_secs(3));
    for node in &all {
        let parents: Vec<NodeId> = w.assigned[node].parents.iter().map(|p| p.node).collect();
        assert_eq!(parents, [seed]);
    }
}

/// Nodes of all kinds come, go, move, fail to dial and lie about probes, in any order.
#[test]
fn no_pair_that_cannot_connect_is_ever_assigned() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed, "reach");
        let mut w = World::new();
        for step in 0..120u64 {
            let known = w.hosts.len() as u64;
            match rng.below(7) {
                0..=2 if known < 40 => {
                    let before = [Nothing, Independent, Dependent, Closed][rng.below(4) as usize];
                    let role = if rng.below(8) == 0 { Role::Waypoint } else { Role::Peer };
                    let address = format!("198.18.{}.{}:{}", rng.below(9), 1 + rng.below(2), 4000 + known);
                    let node = w.comes(&address, before, role);
                    if rng.below(6) == 0 {
                        w.joins(node, true);
                    }
                }
                3 if known > 0 => {
                    let (node, other) =
                        (w.hosts[rng.below(known) as usize].node, w.hosts[rng.below(known) as usize].node);
                    let error = (rng.below(2) == 0).then(|| "no answer".to_owned());
                    w.input(Input::Dialled(node, headwater_model::report::DialResult { node: other, error }));
                }
                4 if known > 0 => {
                    let i = rng.below(known) as usize;
                    let port = 4000 + rng.below(100) as u16;
                    w.hosts[i].observed.set_port(port);
                    w.input(Input::Moved(w.hosts[i].node, w.hosts[i].observed));
                }
                5 if known > 0 => {
                    let i = rng.below(known) as usize;
                    w.hosts[i].before = [Nothing, Independent, Dependent][rng.below(3) as usize];
                    let whole = Bits::full(w.layout.runs());
                    let join = Join { runs: Some(whole), ..Join::to(w.version) };
                    w.input(Input::Join(w.hosts[i].node, join));
                }
                _ => {
                    w.run(Micros(rng.below(3_000_000)));
                    w.heartbeats(step + 1, rng.below(50) as u32);
                }
            }
        }
        w.run(Micros::from_secs(30));
    }
}
