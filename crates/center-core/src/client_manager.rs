//! Client manager (C1): sessions, capabilities, and how much each node is believed to be able to upload.

use crate::budgets::Budget;
use crate::node_map::NodeMap;
use headwater_model::assignment::Reach;
use headwater_model::id::{ContentId, NodeId};
use headwater_model::node::Forwards;
use headwater_model::place::Place;
use headwater_model::reach::{Reachability, network};
use headwater_model::report::{Introduction, Join};
use headwater_model::time::{Micros, Rate, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// What a node that nobody vouches for may claim at first.
pub const UNPROVED_UP: Rate = Rate::from_mbit(5);
/// Takeovers of one identity in [`TAKEOVER_WINDOW`] that end both sessions.
pub const MAX_TAKEOVERS: usize = 3;
/// Addresses on its own networks that are told to others there.
const MAX_LOCAL_ADDRESSES: usize = 8;
/// See [`may_explain`].
const EXPLAINS_EVERY: Micros = Micros::from_secs(60);
/// A process heard of so lately is still there: a little over a heartbeat.
const ALIVE: Micros = Micros::from_millis(2_500);
/// What a node sends to children that it had before it offered less is over by then.
const OFFER_ENDS: Micros = Micros::from_secs(15);
/// See [`MAX_TAKEOVERS`].
pub const TAKEOVER_WINDOW: Micros = Micros::from_secs(60);

/// A node's arrival, as the shell saw and checked it.
#[derive(Clone, PartialEq, Debug)]
pub struct Arrival {
    /// Number of the session, unique and rising.
    pub session: u64,
    /// Identity, proved by TLS.
    pub node: NodeId,
    /// What it says of itself.
    pub introduction: Introduction,
    /// Address that the session came from.
    pub observed: SocketAddr,
    /// SHA-256 of its certificate.
    pub certificate: headwater_model::Hash,
    /// Came with the operator's token, or from loopback: its claims are believed.
    pub enrolled: bool,
    /// Where it is.
    pub place: Place,
}

/// A node with a session.
#[derive(Clone, Debug)]
pub struct Client {
    /// As it arrived.
    pub arrival: Arrival,
    /// Since when.
    pub since: Time,
    /// When this process took the place of an earlier one, which explains that one's silence; once in a while only.
    pub restarted: Option<Time>,
    /// Uplink that it offers and is believed to have.
    pub up: Rate,
    /// Which content has how much of it.
    pub budget: Budget,
    /// Uplink that it is believed to have, whatever it offers.
    proved: Rate,
    /// What it offered before, and until when it may still be sending at that rate.
    offered: (Rate, Time),
    /// Contents that it takes part in.
    pub contents: BTreeSet<ContentId>,
    /// Joins that wait until it is known whether the node is lightweight.
    pub(crate) held: BTreeMap<ContentId, Join>,
    /// When it was last heard of: its heartbeat, or the beginning of its session.
    pub heard: Time,
    /// When it was heard of as far as is known where quiet ones are looked for; nothing once it fell quiet.
    watched: Option<Time>,
    /// The address that its router forwards to it, where that is how others reach it.
    pub via: Option<SocketAddr>,
    confirmed: (u64, u64),
}

/// What becomes of an arrival.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Welcome {
    /// A new session.
    New,
    /// It replaces this older session.
    TakesOver(u64),
    /// Both the new session and the old one end.
    Refused {
        /// The older session.
        old: u64,
    },
}

/// Whether a restart explains silence, after an earlier one did: who begins anew all the time is no parent.
pub(crate) fn may_explain(now: Time, before: Option<Time>) -> bool {
    before.is_none_or(|t| now.since(t) > EXPLAINS_EVERY)
}

/// All sessions.
#[derive(Clone, Debug)]
pub struct ClientManager {
    /// Between two heartbeats of a node.
    heartbeat: Micros,
    clients: NodeMap<Client>,
    /// What [`Client::reachability`] says of them, close together: all that is assigned is checked against it.
    reaches: NodeMap<Reachability>,
    takeovers: BTreeMap<NodeId, VecDeque<Time>>,
    /// Those that did not fall quiet, by [`Client::watched`]: each is looked at when it may have, not with all others.
    watched: BTreeSet<(Time, NodeId)>,
}

impl Client {
    /// How others reach it: the address that was seen (QUIC dials from the socket that it listens on). A node that the
    /// operator runs beside the control center is seen at loopback: it may name its other addresses.
    pub fn reach(&self) -> Reach {
        let a = &self.arrival;
        let mut addresses: Vec<SocketAddr> = self.via.into_iter().chain([a.observed]).collect();
        if a.enrolled && a.observed.ip().to_canonical().is_loopback() {
            addresses.extend(a.introduction.local_addresses.iter().filter(|l| !l.ip().is_loopback()).take(8));
        }
        Reach { addresses: addresses.into(), certificate: a.certificate }
    }
    /// What decides who can connect to it.
    pub fn reachability(&self) -> Reachability {
        Reachability::new(&self.arrival.introduction.capabilities, self.arrival.observed.ip())
    }
    /// Its addresses on its own networks, for nodes behind the same public address.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        let all = self.arrival.introduction.local_addresses.iter();
        all.filter(|a| is_private(a.ip()) && a.port() != 0).take(MAX_LOCAL_ADDRESSES).copied().collect()
    }
    /// Where it serves by HTTPS.
    pub fn https(&self) -> Option<Reach> {
        let port = self.arrival.introduction.https_port?;
        let reach = self.reach();
        let addresses = reach.addresses.iter().map(|a| SocketAddr::new(a.ip(), port)).collect();
        Some(Reach { addresses, ..reach })
    }
    /// The most that it can have meant to send of late, by its own words.
    pub fn most_offered(&self, now: Time) -> Rate {
        let before = if now < self.offered.1 { self.offered.0 } else { Rate(0) };
        self.arrival.introduction.up.max(before)
    }
    /// Whether the two could be one party: the same network.
    fn related(&self, other: &Client) -> bool {
        network(self.arrival.observed.ip()) == network(other.arrival.observed.ip())
    }
}

/// Addresses that mean something on a node's own network only: no stranger's can be named.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(a) => a.is_private() || a.is_link_local(),
        IpAddr::V6(a) => a.is_unique_local(),
    }
}

impl ClientManager {
    /// No sessions. `heartbeat` is the time between two heartbeats of a node.
    pub fn new(heartbeat: Micros) -> Self {
        Self {
            heartbeat,
            clients: NodeMap::new(),
            reaches: NodeMap::new(),
            takeovers: BTreeMap::new(),
            watched: BTreeSet::new(),
        }
    }

    /// A session begins. The newest session of an identity wins; when two fight for one, both lose.
    pub fn arrive(&mut self, now: Time, arrival: Arrival) -> Welcome {
        let node = arrival.node;
        let former = self.clients.get(&node).map(|c| (c.arrival.session, c.heard));
        let old = former.map(|(session, _)| session);
        // A session that was silent for a while is that of a process that died or lost its way, not of a rival.
        if let Some((old, heard)) = former
            && now.since(heard) < ALIVE
        {
            let recent = self.takeovers.entry(node).or_default();
            recent.retain(|t| now.since(*t) < TAKEOVER_WINDOW);
            recent.push_back(now);
            if recent.len() >= MAX_TAKEOVERS {
                self.takeovers.remove(&node);
                self.remove(&node);
                return Welcome::Refused { old };
            }
        }
        let of_other_process = |c: &Client| c.arrival.certificate != arrival.certificate;
        let before = self.clients.get(&node).and_then(|c| c.restarted);
        let is_restarted = self.clients.get(&node).is_some_and(of_other_process) && may_explain(now, before);
        let restarted = if is_restarted { Some(now) } else { before };
        let claim = arrival.introduction.up;
        let proved = if arrival.enrolled { Rate(u64::MAX) } else { UNPROVED_UP };
        let up = claim.min(proved);
        let (contents, budget) = match self.remove(&node) {
            Some(former) => (former.contents, former.budget),
            None => (BTreeSet::new(), Budget::new(up, self.heartbeat)),
        };
        let client = Client {
            arrival,
            since: now,
            restarted,
            up,
            budget,
            proved,
            offered: (Rate(0), now),
            contents,
            held: BTreeMap::new(),
            heard: now,
            watched: Some(now),
            via: None,
            confirmed: (0, 0),
        };
        self.clients.insert(node, client);
        self.note_reach(&node);
        self.watched.insert((now, node));
        old.map_or(Welcome::New, Welcome::TakesOver)
    }

    /// A session ends; `None` when it was not the node's present one.
    pub fn depart(&mut self, node: &NodeId, session: u64) -> Option<Client> {
        self.clients.get(node).filter(|c| c.arrival.session == session)?;
        self.remove(node)
    }

    fn remove(&mut self, node: &NodeId) -> Option<Client> {
        let client = self.clients.swap_remove(node)?;
        self.reaches.swap_remove(node);
        if let Some(at) = client.watched {
            self.watched.remove(&(at, *node));
        }
        Some(client)
    }

    /// A heartbeat came: when something was heard of the node before. `None` when it has no session.
    pub fn heard(&mut self, now: Time, node: &NodeId) -> Option<Time> {
        let c = self.clients.get_mut(node)?;
        if c.watched.is_none() {
            c.watched = Some(now);
            self.watched.insert((now, *node));
        }
        Some(std::mem::replace(&mut c.heard, now))
    }

    /// Forgets fights that are over.
    pub fn tick(&mut self, now: Time) {
        self.takeovers.retain(|_, times| times.iter().any(|t| now.since(*t) < TAKEOVER_WINDOW));
    }

    /// A client.
    pub fn get(&self, node: &NodeId) -> Option<&Client> {
        self.clients.get(node)
    }
    /// A client, to be changed.
    pub fn get_mut(&mut self, node: &NodeId) -> Option<&mut Client> {
        self.clients.get_mut(node)
    }
    /// How a client can be reached.
    pub fn reachability(&self, node: &NodeId) -> Option<&Reachability> {
        self.reaches.get(node)
    }
    /// What decides how a client can be reached was changed.
    pub(crate) fn note_reach(&mut self, node: &NodeId) {
        if let Some(client) = self.clients.get(node) {
            self.reaches.insert(*node, client.reachability());
        }
    }
    /// Those of whom nothing was heard for `patience`; each is named once, until it is heard of again.
    pub fn fell_quiet(&mut self, now: Time, patience: Micros) -> Vec<NodeId> {
        let mut quiet = Vec::new();
        while let Some((at, node)) = self.watched.first().copied().filter(|(at, _)| now.since(*at) > patience) {
            self.watched.pop_first();
            let Some(c) = self.clients.get_mut(&node) else { continue };
            c.watched = (c.heard > at).then_some(c.heard);
            match c.watched {
                Some(heard) => _ = self.watched.insert((heard, node)),
                None => quiet.push(node),
            }
        }
        quiet
    }
    /// All clients.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Client)> {
        self.clients.iter()
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.clients.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// `child` got `bytes` from `parent` in `interval`. Only unrelated children count; a node is believed to have up to
    /// twice what they confirmed. Returns the new uplink when it changed.
    pub fn confirm(
        &mut self,
        parent: &NodeId,
        child: &NodeId,
        interval: u64,
        bytes: u64,
        length: Micros,
    ) -> Option<Rate> {
        let (p, c) = (self.clients.get(parent)?, self.clients.get(child)?);
        if p.arrival.enrolled || p.related(c) {
            return None;
        }
        let p = self.clients.get_mut(parent)?;
        let (at, sum) = &mut p.confirmed;
        if *at == interval {
            *sum += bytes;
            return None;
        }
        let confirmed = Rate::of(std::mem::replace(sum, bytes), length);
        *at = interval;
        p.proved = p.proved.max(Rate(confirmed.0 * 2));
        let believed = p.proved.min(p.arrival.introduction.up);
        (std::mem::replace(&mut p.up, believed) != believed).then_some(believed)
    }

    /// A node offers another uplink than before; none, and it passes nothing on.
    pub fn offers(&mut self, now: Time, node: &NodeId, up: Rate) {
        let Some(c) = self.clients.get_mut(node) else { return };
        c.offered = (c.most_offered(now), now + OFFER_ENDS);
        let said = &mut c.arrival.introduction;
        said.up = up;
        // Who does not listen is a page, which has no disk.
        let kept = if said.capabilities.listens { Forwards::Disk } else { Forwards::Memory };
        said.capabilities.forwards.value = if up.0 == 0 { Forwards::No } else { kept };
        c.up = up.min(c.proved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_model::{Accepts, Capabilities, Hash, Role};

    fn arrival(node: u8, session: u64, address: &str, enrolled: bool) -> Arrival {
        Arrival {
            session,
            node: NodeId([node; 32]),
            introduction: Introduction {
                role: Role::Peer,
                capabilities: Capabilities::regular(Accepts::Open),
                up: Rate::from_mbit(100),
                down: Rate(0),
                client: String::new(),
                local_addresses: vec![],
                https_port: None,
            },
            observed: address.parse().unwrap(),
            certificate: Hash::default(),
            enrolled,
            place: Place::default(),
        }
    }

    #[test]
    fn the_newest_session_wins_and_a_fight_ends_both() {
        let mut m = ClientManager::new(Micros::from_secs(2));
        let a = |s| arrival(1, s, "192.0.2.1:1", false);
        assert_eq!(m.arrive(Time(0), a(1)), Welcome::New);
        assert_eq!(m.arrive(Time(1), a(2)), Welcome::TakesOver(1));
        assert!(m.depart(&NodeId([1; 32]), 1).is_none(), "the older session's end is no news");
        assert_eq!(m.arrive(Time(2), a(3)), Welcome::TakesOver(2));
        assert_eq!(m.arrive(Time(3), a(4)), Welcome::Refused { old: 3 });
        assert!(m.is_empty());
        assert_eq!(m.arrive(Time(4), a(5)), Welcome::New);
        for crash in 1..9 {
            let taken = m.arrive(Time(crash * 3_000_000), a(5 + crash));
            assert_eq!(taken, Welcome::TakesOver(4 + crash), "a process that crashes is not a rival");
        }
    }

    #[test]
    fn who_falls_quiet_is_named_once_until_it_is_heard_of_again() {
        let (mut m, patience) = (ClientManager::new(Micros::from_secs(2)), Micros::from_secs(4));
        let at = |s: u64| Time(s * 1_000_000);
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        m.arrive(at(1), arrival(1, 1, "192.0.2.1:1", false));
        m.arrive(at(1), arrival(2, 2, "192.0.2.2:1", false));
        assert_eq!(m.heard(at(3), &a), Some(at(1)));
        assert_eq!(m.heard(at(3), &NodeId([3; 32])), None);
        assert!(m.fell_quiet(at(5), patience).is_empty());
        assert_eq!(m.fell_quiet(at(6), patience), [b]);
        assert_eq!(m.fell_quiet(at(8), patience), [a]);
        assert!(m.fell_quiet(at(60), patience).is_empty());
        assert_eq!(m.heard(at(60), &a), Some(at(3)));
        m.depart(&b, 2);
        m.arrive(at(61), arrival(2, 3, "192.0.2.2:1", false));
        assert!(m.fell_quiet(at(64), patience).is_empty());
        m.depart(&a, 1);
        assert_eq!(m.fell_quiet(at(66), patience), [b]);
        m.arrive(at(66), arrival(2, 4, "192.0.2.2:1", false));
        assert_eq!((m.fell_quiet(at(70), patience), m.fell_quiet(at(71), patience)), (vec![], vec![b]));
    }

    #[test]
    fn only_unrelated_children_raise_what_is_believed() {
        let mut m = ClientManager::new(Micros::from_secs(2));
        m.arrive(Time(0), arrival(1, 1, "192.0.2.1:1", false));
        m.arrive(Time(0), arrival(2, 2, "192.0.2.77:1", false));
        m.arrive(Time(0), arrival(3, 3, "198.51.100.1:1", false));
        m.arrive(Time(0), arrival(4, 4, "192.0.2.5:1", true));
        let (p, s) = (NodeId([1; 32]), Micros::from_secs(2));
        assert_eq!(m.get(&p).unwrap().up, UNPROVED_UP);
        assert_eq!(m.get(&NodeId([4; 32])).unwrap().up, Rate::from_mbit(100));
        assert_eq!(m.confirm(&p, &NodeId([2; 32]), 1, 9_000_000, s), None);
        assert_eq!(m.confirm(&p, &NodeId([2; 32]), 2, 9_000_000, s), None, "a neighbour's word does not count");
        assert_eq!(m.confirm(&p, &NodeId([3; 32]), 2, 1_250_000, s), None);
        assert_eq!(m.confirm(&p, &NodeId([3; 32]), 3, 90_000_000, s), Some(Rate::from_mbit(10)));
        assert_eq!(m.confirm(&p, &NodeId([3; 32]), 4, 0, s), Some(Rate::from_mbit(100)), "never over the claim");
    }

    #[test]
    fn what_is_offered_changes_and_what_was_confirmed_stays_believed() {
        let mut m = ClientManager::new(Micros::from_secs(2));
        m.arrive(Time(0), arrival(1, 1, "192.0.2.1:1", false));
        m.arrive(Time(0), arrival(3, 3, "198.51.100.1:1", false));
        let (p, s) = (NodeId([1; 32]), Micros::from_secs(2));
        m.confirm(&p, &NodeId([3; 32]), 1, 5_000_000, s);
        assert_eq!(m.confirm(&p, &NodeId([3; 32]), 2, 0, s), Some(Rate(5_000_000)));
        let now = Time(10_000_000);
        for (up, believed, forwards) in [
            (Rate(0), Rate(0), Forwards::No),
            (Rate(9_000_000), Rate(5_000_000), Forwards::Disk),
            (Rate(1_000_000), Rate(1_000_000), Forwards::Disk),
        ] {
            m.offers(now, &p, up);
            let c = m.get(&p).unwrap();
            assert_eq!((c.up, c.arrival.introduction.capabilities.forwards.value), (believed, forwards));
        }
        let c = m.get(&p).unwrap();
        assert_eq!(c.most_offered(now), Rate::from_mbit(100), "it may still be sending what it offered before");
        assert_eq!(c.most_offered(now + OFFER_ENDS), Rate(1_000_000));
    }
}
