//! Reachability by test (requirement A3): finds each node's `accepts`, and the address at which others reach it.
//!
//! There is one mechanism, the *probe*: a number that nobody can guess is told to one node, which dials an address and
//! hands the number over; whoever was dialled reports it. So "reached" is confirmed by the end that was reached, and a
//! prober cannot invent it. It is used for two questions:
//! - Is the node *open*? A node of another network, with which it never had to do, dials the address that the control
//!   center sees, from a socket that is new. The number arrives: open. Two probers of different networks in vain: not.
//! - Is it *punchable*? It dials an open node from the socket that it listens on. That node sees the same address as the
//!   control center does: its NAT maps endpoint-independently (RFC 4787), and others can meet it by a rendezvous.
//!
//! Only addresses with an IP that the control center itself saw are ever probed: nobody can have a victim dialled.

use crate::node_map::NodeMap;
use headwater_model::id::{Hash, NodeId};
use headwater_model::node::{Accepts, From, Known};
use headwater_model::reach::{Probe, network};
use headwater_model::time::{Micros, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Probers that must try in vain, and other addresses that must be seen, before a node is held for less than it claims.
const WITNESSES: usize = 2;
/// Nodes asked about one question, when some say nothing.
const MAX_ASKED: usize = 6;
/// A probe of which nothing was heard by then is over; who dials gives up after two seconds.
const PROBE_OVER: Micros = Micros::from_millis(2_300);
/// After this time without anybody to test it the node's claim counts.
const UNTESTED: Micros = Micros::from_millis(2_500);
/// Verdicts are tested anew after this time.
const AGAIN: Micros = Micros::from_secs(600);
/// After this time where too few others were there for a test.
const AGAIN_UNSURE: Micros = Micros::from_secs(10);
/// How long an address that the node had to do with says nothing about strangers: NATs forget within this time.
const CONTACT: Micros = Micros::from_secs(600);
/// Addresses kept of those.
const MAX_CONTACTS: usize = 1024;
/// Different nodes that failed to dial a node believed open, after which it is tested anew.
const FAILED_DIALERS: usize = 3;
/// Time between two orders to one node, and how many may come at once.
const ORDER_EVERY: Micros = Micros::from_millis(250);
const ORDERS_AT_ONCE: u64 = 4;
/// Time between two probes that one open node answers, and how many may come at once.
const VISIT_EVERY: Micros = Micros::from_millis(50);
const VISITS_AT_ONCE: u64 = 20;
/// Networks looked at for a prober.
const MAX_LOOKED_AT: usize = 64;
/// How long what was found out about a node is kept after it left.
const REMEMBER: Micros = Micros::from_secs(120);
/// Orders that wait for a node take this long to be looked at again.
const LOOK_AGAIN: Micros = Micros::from_millis(100);

/// A node, as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Newcomer {
    /// What it says of itself.
    pub claim: Accepts,
    /// Whether it accepts connections at all; one that does not is not tested.
    pub listens: bool,
    /// Its claim counts until a test says otherwise: it is enrolled.
    pub believed: bool,
    /// On the control center's own machine: there is nothing to test, and nobody can test others from there.
    pub local: bool,
    /// Address that its session comes from.
    pub observed: SocketAddr,
}

/// What is held of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// What it accepts, and where that comes from.
    pub accepts: Known<Accepts>,
    /// The address that its router forwards, where that is how others reach it.
    pub via: Option<SocketAddr>,
    /// In words.
    pub why: &'static str,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProbeOutput {
    /// Tell this node to make a probe.
    Order(NodeId, Probe),
    /// What is held of a node changed.
    Changed(NodeId, Verdict),
}

/// Number of a probe.
type Number = [u8; 16];

#[derive(Clone, Debug)]
struct Subject {
    as_came: Newcomer,
    present: bool,
    /// When it left, or when it came.
    since: Time,
    verdict: Verdict,
    mapped: Option<SocketAddr>,
    /// Addresses that it sent to, or may have, and until when that counts.
    contacts: BTreeMap<IpAddr, Time>,
    test: Option<Test>,
    failed_dialers: BTreeSet<NodeId>,
    /// Nothing was heard of the last probe that it should make.
    mute: bool,
    /// When it should be tested anew.
    again_at: Time,
    orders: Budget,
    visits: Budget,
    look_at: Time,
}

/// A test under way.
#[derive(Clone, Debug)]
struct Test {
    since: Time,
    address: SocketAddr,
    opening: Trial,
    mapping: Trial,
    same_seen: bool,
}

/// Tries of one question.
#[derive(Clone, Debug, Default)]
struct Trial {
    asked: BTreeSet<NodeId>,
    under_way: usize,
    /// In vain: did not get through; for the mapping question, saw another address.
    against: usize,
    /// Nothing learned: no word came.
    void: usize,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    target: NodeId,
    dials: NodeId,
    reports: NodeId,
    opening: bool,
    over_at: Time,
}

/// A token bucket in time: when the next one would be due.
#[derive(Clone, Copy, Default, Debug)]
struct Budget(Time);

impl Budget {
    fn has(&self, now: Time, every: Micros, at_once: u64) -> bool {
        self.0 <= now + every.times(at_once - 1)
    }
    fn take(&mut self, now: Time, every: Micros) {
        self.0 = self.0.max(now) + every;
    }
}

/// Whom to ask.
enum Found {
    One(NodeId),
    /// All who could are busy.
    Later,
    Nobody,
}

/// Finds out who can be reached.
#[derive(Clone)]
pub struct Prober {
    secret: [u8; 32],
    probes: u64,
    on_loopback: bool,
    subjects: NodeMap<Subject>,
    /// Nodes with a session, by network: those who can probe.
    present: BTreeMap<IpAddr, BTreeSet<NodeId>>,
    /// Those of them that are open.
    open: BTreeMap<IpAddr, BTreeSet<NodeId>>,
    under_way: BTreeMap<Number, UnderWay>,
    over_at: BTreeSet<(Time, Number)>,
    look_at: BTreeSet<(Time, NodeId)>,
    /// Where the last search for a prober ended.
    turn: IpAddr,
    out: Vec<ProbeOutput>,
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prober({} nodes, {} probes under way)", self.subjects.len(), self.under_way.len())
    }
}

impl Prober {
    /// `secret` makes the probes' numbers; `on_loopback` tests nodes on the control center's own machine too.
    pub fn new(secret: [u8; 32], on_loopback: bool) -> Self {
        Self {
            secret,
            on_loopback,
            probes: 0,
            subjects: NodeMap::new(),
            present: BTreeMap::new(),
            open: BTreeMap::new(),
            under_way: BTreeMap::new(),
            over_at: BTreeSet::new(),
            look_at: BTreeSet::new(),
            turn: IpAddr::from([0, 0, 0, 0]),
            out: Vec::new(),
        }
    }

    /// What is held of `node`.
    pub fn verdict(&self, node: &NodeId) -> Option<&Verdict> {
        self.subjects.get(node).map(|s| &s.verdict)
    }
    /// Whether it is held for less than it claims only until its first test is over.
    pub fn is_undecided(&self, node: &NodeId) -> bool {
        let claims_more = |s: &&Subject| s.as_came.listens && s.as_came.claim != Accepts::DialOnly;
        let s = self.subjects.get(node).filter(claims_more);
        s.is_some_and(|s| s.verdict.accepts == Known::claim(Accepts::DialOnly))
    }
    /// The address that its router forwards to it, as it says.
    pub fn mapped(&self, node: &NodeId) -> Option<SocketAddr> {
        self.subjects.get(node)?.mapped
    }

    /// A node came, or came back. Returns what is held of it now.
    pub fn arrived(&mut self, now: Time, node: NodeId, came: Newcomer) -> Verdict {
        let came = Newcomer { local: came.local && !self.on_loopback, ..came };
        let former = self.subjects.swap_remove(&node);
        if let Some(f) = &former {
            self.look_at.remove(&(f.look_at, node));
            self.unlist(&node, f.as_came.observed.ip());
        }
        // What was found out holds for as long as its address does; another port of the same host is tested at once.
        let same = |f: &Subject| {
            f.as_came.observed.ip() == came.observed.ip()
                && f.as_came.listens == came.listens
                && f.verdict.accepts.from == From::Test
        };
        let former = former.filter(same).map(|f| {
            let again_at = if f.as_came.observed == came.observed { f.again_at } else { now };
            Subject { again_at, ..f }
        });
        let mut subject = former.unwrap_or_else(|| Subject {
            as_came: came,
            present: true,
            since: now,
            verdict: at_first(&came),
            mapped: None,
            contacts: BTreeMap::new(),
            test: None,
            failed_dialers: BTreeSet::new(),
            mute: false,
            again_at: now,
            orders: Budget::default(),
            visits: Budget::default(),
            look_at: now,
        });
        (subject.as_came, subject.present, subject.since, subject.mapped) = (came, true, now, None);
        subject.mute = false;
        (subject.test, subject.look_at) = (None, subject.again_at.max(now));
        self.look_at.insert((subject.look_at, node));
        let verdict = subject.verdict;
        self.subjects.insert(node, subject);
        if !came.local {
            self.present.entry(network(came.observed.ip())).or_default().insert(node);
        }
        self.list_open(&node);
        self.look(now, node);
        self.verdict(&node).copied().unwrap_or(verdict)
    }

    /// Its session ended.
    pub fn left(&mut self, now: Time, node: &NodeId) {
        let Some(s) = self.subjects.get_mut(node) else { return };
        (s.present, s.since, s.test) = (false, now, None);
        let address = s.as_came.observed.ip();
        self.unlist(node, address);
        self.schedule(*node, now + REMEMBER);
    }

    /// The control center sees it at another address now.
    pub fn moved(&mut self, now: Time, node: NodeId, observed: SocketAddr) {
        let Some(came) = self.subjects.get(&node).map(|s| Newcomer { observed, ..s.as_came }) else { return };
        let (before, mapped) = (self.verdict(&node).copied(), self.mapped(&node));
        let verdict = self.arrived(now, node, came);
        if Some(verdict) != before {
            self.out.push(ProbeOutput::Changed(node, verdict));
        }
        self.mapped_address(now, node, mapped);
    }

    /// A router forwards `mapped` to it, as it says. Only an address with the IP that the control center sees counts.
    pub fn mapped_address(&mut self, now: Time, node: NodeId, mapped: Option<SocketAddr>) {
        let Some(s) = self.subjects.get_mut(&node) else { return };
        let ip = s.as_came.observed.ip();
        let mapped = mapped.filter(|m| m.ip().to_canonical() == ip.to_canonical() && m.port() != 0);
        if s.mapped == mapped {
            return;
        }
        s.mapped = mapped;
        let reached_at_observed = s.verdict.accepts.value == Accepts::Open && s.verdict.via.is_none();
        if !reached_at_observed && s.test.is_none() {
            self.begin(now, &node);
            self.look(now, node);
        }
    }

    /// The two were assigned to each other: their NATs let each other's packets in from now on, whatever they do with
    /// strangers'.
    pub fn contact(&mut self, now: Time, a: &NodeId, b: &NodeId) {
        self.sends(now, a, b);
        self.sends(now, b, a);
    }

    /// `node` sends to `other`: its NAT lets in what comes from there.
    fn sends(&mut self, now: Time, node: &NodeId, other: &NodeId) {
        let Some(other) = self.subjects.get(other).map(|s| s.as_came.observed.ip()) else { return };
        let Some(s) = self.subjects.get_mut(node) else { return };
        if s.contacts.len() >= MAX_CONTACTS && !s.contacts.contains_key(&other) {
            let oldest = s.contacts.iter().min_by_key(|(_, until)| **until).map(|(ip, _)| *ip);
            oldest.and_then(|ip| s.contacts.remove(&ip));
        }
        s.contacts.insert(other, now + CONTACT);
    }

    /// `dialler` could not reach `node`, or could.
    pub fn dialled(&mut self, now: Time, dialler: NodeId, node: &NodeId, reached: bool) {
        let Some(s) = self.subjects.get_mut(node).filter(|s| s.verdict.accepts.value == Accepts::Open) else { return };
        if reached {
            s.failed_dialers.clear();
            return;
        }
        s.failed_dialers.insert(dialler);
        if s.failed_dialers.len() >= FAILED_DIALERS {
            s.failed_dialers.clear();
            if s.test.is_none() && s.as_came.listens && !s.as_came.local {
                self.begin(now, node);
                self.look(now, *node);
            }
        }
    }

    /// `by` says that the probe arrived there, with packets from `seen_from`.
    pub fn probe_arrived(&mut self, now: Time, by: &NodeId, number: Number, seen_from: SocketAddr) {
        let Some(p) = self.under_way.get(&number).filter(|p| p.reports == *by).copied() else { return };
        self.forget(number);
        let Some(s) = self.subjects.get_mut(&p.target) else { return };
        let observed = s.as_came.observed;
        let Some(t) = s.test.as_mut() else { return };
        if p.opening {
            let via = (t.address != observed).then_some(t.address);
            let why = if via.is_some() {
                "reached by a stranger at the address that its router forwards"
            } else {
                "reached by a stranger"
            };
            return self.conclude(now, p.target, tested(Accepts::Open, via, why), AGAIN);
        }
        t.mapping.under_way = t.mapping.under_way.saturating_sub(1);
        if headwater_model::reach::canonical(seen_from) == observed {
            t.same_seen = true;
        } else {
            t.mapping.against += 1;
        }
        self.look(now, p.target);
    }

    /// `by` says that the probe that it should make did not get through.
    pub fn probe_failed(&mut self, now: Time, by: &NodeId, number: Number) {
        if let Some(p) = self.under_way.get(&number).filter(|p| p.dials == *by).copied() {
            self.in_vain(now, number, p, true);
        }
    }

    /// When [`Prober::tick`] is due.
    pub fn next_timeout(&self) -> Option<Time> {
        let first = |(t, _): &(Time, NodeId)| *t;
        [self.over_at.first().map(|(t, _)| *t), self.look_at.first().map(first)].into_iter().flatten().min()
    }

    /// Time passes.
    pub fn tick(&mut self, now: Time) {
        while let Some((_, number)) = self.over_at.first().filter(|(t, _)| *t <= now).copied() {
            match self.under_way.get(&number).copied() {
                Some(p) => self.in_vain(now, number, p, false),
                None => self.forget(number),
            }
        }
        let due: Vec<NodeId> = self.look_at.iter().take_while(|(t, _)| *t <= now).map(|(_, n)| *n).collect();
        for node in due {
            self.look(now, node);
        }
    }

    /// Takes what is to be done.
    pub fn drain(&mut self) -> Vec<ProbeOutput> {
        std::mem::take(&mut self.out)
    }

    // ---- one node's test ----

    /// What is next for `node`.
    fn look(&mut self, now: Time, node: NodeId) {
        let Some(s) = self.subjects.get_mut(&node) else { return };
        if !s.present {
            if now.since(s.since) >= REMEMBER {
                self.look_at.remove(&(s.look_at, node));
                self.subjects.swap_remove(&node);
            }
            return;
        }
        if !s.as_came.listens || s.as_came.local {
            return self.schedule(node, now + AGAIN);
        }
        if s.test.is_none() {
            if s.look_at > now {
                return;
            }
            self.begin(now, &node);
        }
        let next = self.advance(now, node);
        if self.subjects.get(&node).is_some_and(|s| s.test.is_some()) {
            self.schedule(node, next);
        }
    }

    fn begin(&mut self, now: Time, node: &NodeId) {
        let Some(s) = self.subjects.get_mut(node) else { return };
        let address = s.verdict.via.filter(|via| s.mapped == Some(*via)).unwrap_or(s.as_came.observed);
        s.contacts.retain(|_, until| *until > now);
        let (opening, mapping) = (Trial::default(), Trial::default());
        s.test = Some(Test { since: now, address, opening, mapping, same_seen: false });
    }

    /// Orders what is missing, and concludes when everything is known. Returns when to look again.
    fn advance(&mut self, now: Time, node: NodeId) -> Time {
        let later = now + LOOK_AGAIN;
        let Some(t) = self.test(&node) else { return later };
        let (since, address) = (t.since, t.address);
        let mut nobody = false;
        while let Some(t) = self.test(&node).filter(|t| t.opening.against + t.opening.under_way < WITNESSES) {
            if t.opening.asked.len() >= MAX_ASKED {
                nobody = true;
                break;
            }
            match self.find(now, &node, &t.opening.asked.clone(), true) {
                Found::One(prober) => self.order(now, node, prober, true, address),
                Found::Later => break,
                Found::Nobody => {
                    nobody = true;
                    break;
                }
            }
        }
        let Some(t) = self.test(&node) else { return later };
        if t.opening.asked.len() >= if nobody { 1 } else { WITNESSES } {
            // The other question is asked meanwhile, so that the answer is here when it is needed; but of nobody before
            // the strangers are chosen, as whom it dials is none to it any more.
            self.ask_mapping(now, node, 1);
        }
        let Some(t) = self.test(&node) else { return later };
        let (against, under_way) = (t.opening.against, t.opening.under_way);
        if nobody && under_way == 0 && against == 0 {
            return self.untested(now, node, since);
        }
        if against < WITNESSES && !(nobody && under_way == 0) {
            return if nobody || against + under_way == WITNESSES { now + PROBE_OVER } else { later };
        }
        // Nobody gets in.
        let Some(s) = self.subjects.get_mut(&node) else { return later };
        let (mapped, observed) = (s.mapped, s.as_came.observed);
        if let Some(t) = s.test.as_mut() {
            let other = if Some(address) == mapped { None } else { mapped };
            if let Some(mapped) = other.filter(|_| address == observed) {
                // Its router may forward another address.
                (t.since, t.address, t.opening) = (now, mapped, Trial::default());
                return now;
            }
        }
        self.judge_mapping(now, node, against < WITNESSES)
    }

    fn ask_mapping(&mut self, now: Time, node: NodeId, most: usize) -> bool {
        let Some(t) = self.test(&node).filter(|t| !t.same_seen && t.mapping.asked.len() < most) else { return true };
        match self.find(now, &node, &t.mapping.asked.clone(), false) {
            Found::One(open) => {
                self.order(now, node, open, false, SocketAddr::from(([0; 4], 0)));
                true
            }
            Found::Later => true,
            Found::Nobody => false,
        }
    }

    /// Strangers do not get in. Does its NAT show everybody the same address?
    fn judge_mapping(&mut self, now: Time, node: NodeId, one_witness: bool) -> Time {
        let again = if one_witness { AGAIN_UNSURE } else { AGAIN };
        let Some(t) = self.test(&node) else { return now + LOOK_AGAIN };
        let m = &t.mapping;
        let (same, against, void, under_way, asked) = (t.same_seen, m.against, m.void, m.under_way, m.asked.len());
        if same {
            let why = "not reached by strangers; its NAT shows the same address to all";
            self.conclude(now, node, tested(Accepts::Punchable, None, why), again);
        } else if against >= WITNESSES {
            let why = "not reached by strangers; its NAT shows each another address";
            self.conclude(now, node, tested(Accepts::DialOnly, None, why), again);
        } else if under_way == 0 && (void >= WITNESSES || asked >= MAX_ASKED || !self.ask_mapping(now, node, asked + 1))
        {
            let why = if against > 0 {
                "not reached by strangers; its NAT shows each another address"
            } else {
                "not reached by strangers; no open node is there to compare addresses with"
            };
            self.conclude(now, node, tested(Accepts::DialOnly, None, why), AGAIN_UNSURE);
        }
        now + LOOK_AGAIN
    }

    /// There is nobody who could test it: after a while its claim counts.
    fn untested(&mut self, now: Time, node: NodeId, since: Time) -> Time {
        let Some(s) = self.subjects.get(&node) else { return now };
        if s.verdict.accepts.from == From::Test {
            // What an earlier test found holds.
            let verdict = s.verdict;
            self.conclude(now, node, verdict, AGAIN_UNSURE);
            return now;
        }
        if now.since(since) < UNTESTED {
            // Somebody may come meanwhile.
            return (since + UNTESTED).min(now + LOOK_AGAIN);
        }
        let claim = Known::claim(s.as_came.claim);
        let why = "its claim: no node of another network is there to test it";
        self.conclude(now, node, Verdict { accepts: claim, via: None, why }, AGAIN_UNSURE);
        now
    }

    fn conclude(&mut self, now: Time, node: NodeId, verdict: Verdict, again: Micros) {
        let of_node: Vec<Number> = self
            .over_at
            .iter()
            .map(|(_, n)| *n)
            .filter(|n| self.under_way.get(n).is_some_and(|p| p.target == node))
            .collect();
        of_node.into_iter().for_each(|n| self.forget(n));
        let Some(s) = self.subjects.get_mut(&node) else { return };
        (s.test, s.again_at) = (None, now + again);
        s.failed_dialers.clear();
        let before = std::mem::replace(&mut s.verdict, verdict);
        self.list_open(&node);
        self.schedule(node, now + again);
        if before != verdict {
            self.out.push(ProbeOutput::Changed(node, verdict));
        }
    }

    // ---- probes ----

    fn order(&mut self, now: Time, target: NodeId, other: NodeId, opening: bool, address: SocketAddr) {
        self.probes += 1;
        // Of fixed length, under a secret: nobody can tell one number from another's.
        let hash = Hash::of(&[b"headwater probe", &self.secret, &self.probes.to_be_bytes()]);
        let mut number = [0; 16];
        number.copy_from_slice(&hash.0[..16]);
        let (dials, reports) = if opening { (other, target) } else { (target, other) };
        let open_at = |s: &Subject| s.verdict.via.unwrap_or(s.as_came.observed);
        let address = if opening { Some(address) } else { self.subjects.get(&other).map(open_at) };
        let Some(address) = address else { return };
        if let Some(s) = self.subjects.get_mut(&dials) {
            s.orders.take(now, ORDER_EVERY);
        }
        if !opening {
            self.sends(now, &target, &other);
            if let Some(s) = self.subjects.get_mut(&other) {
                s.visits.take(now, VISIT_EVERY);
            }
        }
        if let Some(t) = self.subjects.get_mut(&target).and_then(|s| s.test.as_mut()) {
            let trial = if opening { &mut t.opening } else { &mut t.mapping };
            trial.asked.insert(other);
            trial.under_way += 1;
        }
        let over_at = now + PROBE_OVER;
        self.under_way.insert(number, UnderWay { target, dials, reports, opening, over_at });
        self.over_at.insert((over_at, number));
        let probe = Probe { number, node: reports, address, fresh_socket: opening };
        self.out.push(ProbeOutput::Order(dials, probe));
    }

    /// A probe is over; `said` when its maker said so: one that is silent is no witness.
    fn in_vain(&mut self, now: Time, number: Number, p: UnderWay, said: bool) {
        self.forget(number);
        if let Some(s) = self.subjects.get_mut(&p.dials).filter(|_| p.opening) {
            s.mute = !said;
        }
        if let Some(t) = self.subjects.get_mut(&p.target).and_then(|s| s.test.as_mut()) {
            let trial = if p.opening { &mut t.opening } else { &mut t.mapping };
            trial.under_way = trial.under_way.saturating_sub(1);
            // An open node that could not be reached says nothing about how the NAT maps.
            if p.opening && said { trial.against += 1 } else { trial.void += 1 }
        }
        self.look(now, p.target);
    }

    fn forget(&mut self, number: Number) {
        if let Some(p) = self.under_way.remove(&number) {
            self.over_at.remove(&(p.over_at, number));
        }
    }

    /// A node of another network than `target`'s that has nothing to do with it: for the first question one that
    /// dials it, for the other an open one that it dials. In turn, one of each network.
    fn find(&mut self, now: Time, target: &NodeId, asked: &BTreeSet<NodeId>, opening: bool) -> Found {
        let Some(t) = self.subjects.get(target) else { return Found::Nobody };
        let (own, v6) = (network(t.as_came.observed.ip()), t.as_came.observed.is_ipv6());
        if !opening && !t.orders.has(now, ORDER_EVERY, ORDERS_AT_ONCE) {
            return Found::Later;
        }
        let networks_asked: BTreeSet<IpAddr> =
            asked.iter().filter_map(|n| self.subjects.get(n)).map(|s| network(s.as_came.observed.ip())).collect();
        let lists = if opening { &self.present } else { &self.open };
        let turn = self.turn;
        let ring =
            lists.range((std::ops::Bound::Excluded(turn), std::ops::Bound::Unbounded)).chain(lists.range(..=turn));
        let mut busy = false;
        for (net, nodes) in ring.take(MAX_LOOKED_AT) {
            if *net == own || net.is_ipv6() != v6 || networks_asked.contains(net) {
                continue;
            }
            for node in nodes.iter().take(MAX_LOOKED_AT) {
                let Some(s) = self.subjects.get(node) else { continue };
                if opening && s.mute {
                    continue;
                }
                if opening && t.contacts.get(&s.as_came.observed.ip()).is_some_and(|until| *until > now) {
                    continue;
                }
                let free = if opening {
                    s.orders.has(now, ORDER_EVERY, ORDERS_AT_ONCE)
                } else {
                    s.visits.has(now, VISIT_EVERY, VISITS_AT_ONCE)
                };
                if free {
                    self.turn = *net;
                    return Found::One(*node);
                }
                busy = true;
            }
        }
        if busy { Found::Later } else { Found::Nobody }
    }

    // ---- lists ----

    fn test(&self, node: &NodeId) -> Option<&Test> {
        self.subjects.get(node)?.test.as_ref()
    }

    fn schedule(&mut self, node: NodeId, at: Time) {
        if let Some(s) = self.subjects.get_mut(&node) {
            self.look_at.remove(&(s.look_at, node));
            s.look_at = at;
            self.look_at.insert((at, node));
        }
    }

    /// Open nodes can be dialled by others that compare addresses.
    fn list_open(&mut self, node: &NodeId) {
        let Some(s) = self.subjects.get(node) else { return };
        let net = network(s.as_came.observed.ip());
        let fit = s.present && s.as_came.listens && !s.as_came.local && s.verdict.accepts.value == Accepts::Open;
        if fit {
            self.open.entry(net).or_default().insert(*node);
        } else {
            take(&mut self.open, net, node);
        }
    }

    fn unlist(&mut self, node: &NodeId, address: IpAddr) {
        let net = network(address);
        take(&mut self.present, net, node);
        take(&mut self.open, net, node);
    }
}

fn take(lists: &mut BTreeMap<IpAddr, BTreeSet<NodeId>>, net: IpAddr, node: &NodeId) {
    if let Some(set) = lists.get_mut(&net) {
        set.remove(node);
        if set.is_empty() {
            lists.remove(&net);
        }
    }
}

/// Before any test.
fn at_first(came: &Newcomer) -> Verdict {
    let (value, why) = match came {
        _ if !came.listens => (Accepts::DialOnly, "its claim: it accepts no connections"),
        _ if came.local => (came.claim, "its claim: it is on the control center's machine"),
        _ if came.believed => (came.claim, "its claim, as it is enrolled"),
        _ => (Accepts::DialOnly, "being tested"),
    };
    Verdict { accepts: Known::claim(value), via: None, why }
}

fn tested(value: Accepts, via: Option<SocketAddr>, why: &'static str) -> Verdict {
    Verdict { accepts: Known { value, from: From::Test }, via, why }
}

#[cfg(test)]
#[path = "reachability_tests.rs"]
mod tests;
