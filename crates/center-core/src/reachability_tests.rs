//! Stories: what happens to nodes behind NATs of several kinds, told to the prober as events; and what it finds.

use super::*;
use headwater_model::rng::Rng;
use std::collections::VecDeque;

/// What stands before a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Before {
    Nothing,
    /// The same public port for all, strangers kept out.
    Independent,
    /// Another port for each, strangers kept out.
    Dependent,
    /// No packet is let in or out but those of its session with the control center.
    Wall,
}
use Before::*;

/// A world in which probes go their ways.
struct World {
    prober: Prober,
    now: Time,
    nodes: Vec<(NodeId, SocketAddr, Before)>,
    /// Probes on their way: when they arrive or fail.
    on_way: VecDeque<(Time, NodeId, Probe)>,
    /// These make no probe, and say that theirs failed.
    liars: Vec<NodeId>,
    /// Probes whose makers will say that they failed.
    failing: VecDeque<(Time, NodeId, Number)>,
    orders: Vec<(Time, NodeId, Probe)>,
}

fn id(n: usize) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(n as u64 + 1).to_be_bytes());
    NodeId(bytes)
}

const RTT: Micros = Micros::from_millis(60);

impl World {
    fn new() -> Self {
        let prober = Prober::new([7; 32], false);
        let (nodes, liars, orders) = (Vec::new(), Vec::new(), Vec::new());
        let (on_way, failing) = (VecDeque::new(), VecDeque::new());
        Self { prober, now: Time(1_000_000), nodes, on_way, liars, failing, orders }
    }

    fn comes(&mut self, address: &str, before: Before, claim: Accepts, believed: bool) -> NodeId {
        let (node, observed) = (id(self.nodes.len()), address.parse().unwrap());
        self.nodes.push((node, observed, before));
        let listens = claim != Accepts::DialOnly;
        let came = Newcomer { claim, listens, believed, local: observed.ip().is_loopback(), observed };
        self.prober.arrived(self.now, node, came);
        self.take();
        node
    }

    fn of(&self, node: &NodeId) -> (SocketAddr, Before) {
        self.nodes.iter().find(|n| n.0 == *node).map(|n| (n.1, n.2)).unwrap()
    }

    fn take(&mut self) {
        for output in self.prober.drain() {
            if let ProbeOutput::Order(node, probe) = output {
                self.orders.push((self.now, node, probe));
                self.on_way.push_back((self.now + RTT.times(3), node, probe));
            }
        }
    }

    fn run(&mut self, for_: Micros) {
        let end = self.now + for_;
        loop {
            let arrives = self.on_way.front().map(|p| p.0);
            let due = self.prober.next_timeout();
            let fails = self.failing.front().map(|p| p.0);
            let Some(next) = [arrives, due, fails].into_iter().flatten().min().filter(|t| *t <= end) else { break };
            self.now = self.now.max(next);
            if arrives == Some(next) {
                let (_, dialler, probe) = self.on_way.pop_front().unwrap();
                self.goes(dialler, probe);
            } else if fails == Some(next) {
                let (_, by, number) = self.failing.pop_front().unwrap();
                self.prober.probe_failed(self.now, &by, number);
            } else {
                self.prober.tick(self.now);
            }
            self.take();
        }
        self.now = end;
    }

    fn goes(&mut self, dialler: NodeId, probe: Probe) {
        if self.liars.contains(&dialler) {
            return self.prober.probe_failed(self.now, &dialler, probe.number);
        }
        let (from, before) = self.of(&dialler);
        let (_, at) = self.of(&probe.node);
        let seen_from = match before {
            // The control center's mapping is one, each other destination's another.
            Dependent => SocketAddr::new(from.ip(), from.port() ^ 0x1234),
            _ if probe.fresh_socket => SocketAddr::new(from.ip(), 50_000),
            _ => from,
        };
        match (before, at) {
            (Wall, _) => {}
            (_, Nothing) => self.prober.probe_arrived(self.now, &probe.node, probe.number, seen_from),
            // Its router forwards this one.
            _ if self.prober.mapped(&probe.node) == Some(probe.address) => {
                self.prober.probe_arrived(self.now, &probe.node, probe.number, seen_from);
            }
            _ => self.failing.push_back((self.now + Micros::from_millis(1_800), dialler, probe.number)),
        }
    }

    fn found(&self, node: &NodeId) -> (Accepts, From) {
        let v = self.prober.verdict(node).unwrap();
        (v.accepts.value, v.accepts.from)
    }
}

const SOON: Micros = Micros::from_millis(300);
const LATER: Micros = Micros::from_secs(8);

#[test]
fn a_crowd_arriving_at_once_is_found_out() {
    let mut w = World::new();
    let kinds = [Nothing, Independent, Dependent, Wall];
    let crowd: Vec<(NodeId, Before)> = (0..80)
        .map(|i| {
            let before = kinds[i % 4];
            (w.comes(&format!("198.18.{i}.5:4000"), before, Accepts::Open, false), before)
        })
        .collect();
    for (node, _) in &crowd {
        assert_eq!(w.found(node), (Accepts::DialOnly, From::Claim), "nobody is believed");
    }
    w.run(SOON);
    let open = crowd.iter().filter(|(n, b)| *b == Nothing && w.found(n) == (Accepts::Open, From::Test)).count();
    assert!(open >= 15, "{open} of 20 open ones are known after three round trips");
    w.run(LATER.times(2));
    for (node, before) in &crowd {
        let right = match before {
            Nothing => Accepts::Open,
            Independent => Accepts::Punchable,
            Dependent | Wall => Accepts::DialOnly,
        };
        assert_eq!(w.found(node), (right, From::Test), "{before:?}: {}", w.prober.verdict(node).unwrap().why);
    }
    // No node is kept busy.
    for (node, _) in &crowd {
        let mut times: Vec<Time> = w.orders.iter().filter(|(_, n, _)| n == node).map(|(t, ..)| *t).collect();
        times.sort();
        assert!(times.windows(6).all(|t| t[5].since(t[0]) >= Micros::from_millis(250)), "{times:?}");
    }
}

#[test]
fn whoever_cannot_be_tested_is_believed_after_a_while() {
    let mut w = World::new();
    let all: Vec<NodeId> =
        (0..5).map(|i| w.comes(&format!("192.0.2.{}:4000", i + 1), Nothing, Accepts::Open, false)).collect();
    w.run(Micros::from_millis(2_400));
    assert!(all.iter().all(|n| w.found(n) == (Accepts::DialOnly, From::Claim)));
    w.run(Micros::from_millis(200));
    assert!(all.iter().all(|n| w.found(n) == (Accepts::Open, From::Claim)));
    // Somebody from elsewhere comes: they are tested.
    w.comes("198.51.100.1:4000", Nothing, Accepts::Open, false);
    w.run(Micros::from_secs(25));
    let tested = all.iter().filter(|n| w.found(n) == (Accepts::Open, From::Test)).count();
    assert_eq!(tested, 5);
}

#[test]
fn claims_that_count_at_once() {
    let mut w = World::new();
    let here = w.comes("127.0.0.1:4000", Wall, Accepts::Open, false);
    let enrolled = w.comes("192.0.2.1:4000", Independent, Accepts::Open, true);
    let closed = w.comes("192.0.2.2:4000", Nothing, Accepts::DialOnly, true);
    let outside = w.comes("203.0.113.9:4000", Nothing, Accepts::Open, true);
    for (node, accepts) in [(here, Accepts::Open), (enrolled, Accepts::Open), (closed, Accepts::DialOnly)] {
        assert_eq!(w.found(&node), (accepts, From::Claim));
    }
    w.run(LATER);
    assert_eq!(w.found(&here), (Accepts::Open, From::Claim), "nobody can test it");
    assert_eq!(w.found(&closed), (Accepts::DialOnly, From::Claim), "there is nothing to test");
    assert_eq!(w.found(&outside), (Accepts::Open, From::Test));
    assert_eq!(w.found(&enrolled), (Accepts::Punchable, From::Test), "the test wins over the claim");
}

#[test]
fn one_liar_convinces_nobody() {
    let mut w = World::new();
    let honest: Vec<NodeId> =
        (0..4).map(|i| w.comes(&format!("198.18.{i}.5:4000"), Nothing, Accepts::Open, true)).collect();
    let liar = w.comes("203.0.113.1:4000", Nothing, Accepts::Open, true);
    w.liars.push(liar);
    w.run(LATER);
    assert!(honest.iter().all(|n| w.found(n) == (Accepts::Open, From::Test)));
    // A number can be guessed by nobody, and counts only from the node that was to be reached.
    let target = w.comes("203.0.113.77:4000", Wall, Accepts::Open, false);
    let seen: SocketAddr = "198.18.0.5:1".parse().unwrap();
    for guess in 0..1000u128 {
        w.prober.probe_arrived(w.now, &target, guess.to_be_bytes(), seen);
    }
    let numbers: Vec<Number> = w.on_way.iter().map(|p| p.2.number).collect();
    for number in numbers {
        honest.iter().chain([&liar]).for_each(|n| w.prober.probe_arrived(w.now, n, number, seen));
    }
    assert_eq!(w.found(&target), (Accepts::DialOnly, From::Claim));
    w.run(LATER);
    assert_eq!(w.found(&target), (Accepts::DialOnly, From::Test));
}

#[test]
fn only_strangers_probe() {
    let mut w = World::new();
    let target = w.comes("192.0.2.1:4000", Independent, Accepts::Open, true);
    let known = w.comes("198.51.100.1:4000", Nothing, Accepts::Open, true);
    w.prober.contact(w.now, &target, &known);
    w.on_way.clear();
    w.orders.clear();
    w.run(Micros::from_secs(30));
    let probes_target = |w: &World, by| w.orders.iter().any(|(_, n, p)| *n == by && p.node == target && p.fresh_socket);
    assert!(!probes_target(&w, known), "its NAT would let in whom it sent to");
    let neighbour = w.comes("192.0.2.9:4000", Nothing, Accepts::Open, true);
    w.run(Micros::from_secs(30));
    assert!(!probes_target(&w, neighbour), "so might it let in whoever is beside it");
}

#[test]
fn an_address_that_changes_is_tested_anew() {
    let mut w = World::new();
    w.comes("198.51.100.1:4000", Nothing, Accepts::Open, true);
    w.comes("203.0.113.1:4000", Nothing, Accepts::Open, true);
    let moving = w.comes("192.0.2.1:4000", Nothing, Accepts::Open, false);
    w.run(LATER);
    assert_eq!(w.found(&moving), (Accepts::Open, From::Test));
    // Another network, behind a NAT: nothing is believed at first.
    let to: SocketAddr = "192.88.99.7:999".parse().unwrap();
    w.nodes[2].1 = to;
    w.nodes[2].2 = Independent;
    w.prober.moved(w.now, moving, to);
    w.take();
    assert_eq!(w.found(&moving), (Accepts::DialOnly, From::Claim));
    w.run(LATER);
    assert_eq!(w.found(&moving), (Accepts::Punchable, From::Test));
    // Another port of the same NAT: what was found out holds until the new test ends.
    let to: SocketAddr = "192.88.99.7:1000".parse().unwrap();
    w.nodes[2].1 = to;
    w.prober.moved(w.now, moving, to);
    assert_eq!(w.found(&moving), (Accepts::Punchable, From::Test));
    let orders = w.orders.len();
    w.take();
    w.run(LATER);
    assert!(w.orders.len() > orders, "it was tested");
}

#[test]
fn who_cannot_be_dialled_is_tested_anew() {
    let mut w = World::new();
    let others: Vec<NodeId> =
        (0..4).map(|i| w.comes(&format!("198.18.{i}.5:4000"), Nothing, Accepts::Open, true)).collect();
    let node = w.comes("192.0.2.1:4000", Nothing, Accepts::Open, false);
    w.run(LATER);
    w.nodes[4].2 = Wall;
    for other in &others[..2] {
        w.prober.dialled(w.now, *other, &node, false);
        w.prober.dialled(w.now, *other, &node, false);
    }
    w.take();
    w.run(LATER);
    assert_eq!(w.found(&node), (Accepts::Open, From::Test), "two are not enough");
    w.prober.dialled(w.now, others[2], &node, false);
    w.take();
    w.run(LATER);
    assert_eq!(w.found(&node), (Accepts::DialOnly, From::Test));
}

#[test]
fn a_mapped_address_counts_only_with_the_address_that_was_seen() {
    let mut w = World::new();
    for i in 0..4 {
        w.comes(&format!("198.18.{i}.5:4000"), Nothing, Accepts::Open, true);
    }
    let node = w.comes("192.0.2.1:4000", Dependent, Accepts::Open, false);
    let victim: SocketAddr = "203.0.113.5:53".parse().unwrap();
    w.prober.mapped_address(w.now, node, Some(victim));
    assert_eq!(w.prober.mapped(&node), None);
    w.run(LATER);
    assert_eq!(w.found(&node).0, Accepts::DialOnly);
    let mapped: SocketAddr = "192.0.2.1:7777".parse().unwrap();
    w.prober.mapped_address(w.now, node, Some(mapped));
    w.take();
    w.run(LATER);
    assert_eq!(w.found(&node), (Accepts::Open, From::Test));
    assert_eq!(w.prober.verdict(&node).unwrap().via, Some(mapped));
    assert!(w.on_way.iter().all(|p| p.2.address != victim));
}

#[test]
fn all_behind_nats() {
    let mut w = World::new();
    let all: Vec<NodeId> =
        (0..12).map(|i| w.comes(&format!("198.18.{i}.5:4000"), Independent, Accepts::Open, false)).collect();
    w.run(LATER);
    for node in &all {
        assert_eq!(w.found(node), (Accepts::DialOnly, From::Test), "nobody is there to compare addresses with");
    }
    w.comes("203.0.113.1:4000", Nothing, Accepts::Open, true);
    w.run(Micros::from_secs(30));
    let punchable = all.iter().filter(|n| w.found(n) == (Accepts::Punchable, From::Test)).count();
    assert_eq!(punchable, 12, "an open node came");
}

/// Whatever happens in whatever order: no panic, bounded work, and timeouts that move on.
#[test]
fn any_order_of_events() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed, "reachability");
        let mut w = World::new();
        for _ in 0..200 {
            let n = rng.below(12) as usize;
            let node = id(n);
            match rng.below(8) {
                0..=2 => {
                    let observed: SocketAddr =
                        format!("198.18.{}.{}:{}", rng.below(6), 1 + rng.below(3), 4000 + rng.below(2))
                            .parse()
                            .unwrap();
                    let claim = [Accepts::Open, Accepts::DialOnly][rng.below(2) as usize];
                    let (listens, believed) = (claim == Accepts::Open, rng.below(2) == 0);
                    w.nodes.retain(|x| x.0 != node);
                    let before = [Nothing, Independent, Dependent, Wall][rng.below(4) as usize];
                    w.nodes.push((node, observed, before));
                    w.prober.arrived(w.now, node, Newcomer { claim, listens, believed, local: false, observed });
                }
                3 => w.prober.left(w.now, &node),
                4 => w.prober.contact(w.now, &node, &id(rng.below(12) as usize)),
                5 => w.prober.dialled(w.now, id(rng.below(12) as usize), &node, rng.below(3) == 0),
                6 => {
                    let port = rng.below(3);
                    let mapped = (port > 0).then(|| format!("198.18.1.1:{port}").parse().unwrap());
                    w.prober.mapped_address(w.now, node, mapped);
                }
                _ => w.run(Micros(rng.below(4_000_000))),
            }
            w.take();
        }
        let before = w.orders.len();
        w.run(Micros::from_secs(1300));
        assert!(w.orders.len() - before < 12 * 130 * 8, "seed {seed}: {} probes", w.orders.len() - before);
        assert!(w.prober.under_way.len() <= 12 * 8 && w.prober.over_at.len() == w.prober.under_way.len());
    }
}
