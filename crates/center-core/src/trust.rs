//! Whom to believe: accusations of children against their parents, what speaks against them, and what follows.
//!
//! A child that accuses a parent can lie as well as the parent can. What decides is how many unrelated networks say so,
//! against how many say that they are served well: identities are cheap, networks are not. Only children to whom the
//! parent was assigned are heard, and nobody is banned on one network's word.

use headwater_model::id::NodeId;
use headwater_model::time::{Micros, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Nodes with a case; further ones are not taken up.
pub const MAX_CASES: usize = 4096;
/// Witnesses heard in one case.
pub const MAX_WITNESSES: usize = 64;
/// Of these, from one network: its further ones say nothing new, and must not crowd others out.
const MAX_WITNESSES_OF_NETWORK: usize = 4;
/// Cases in which one node accuses.
pub const MAX_ACCUSED_BY_ONE: usize = 32;
/// Accusers of unrelated networks that it takes to ban.
pub const MIN_ACCUSERS: usize = 2;
/// An accuser's word is one, shared by all whom it accuses and who are not banned yet: so many whole words, in thousandths,
/// it takes to ban. Two that accuse one parent ban it; two that accuse everybody ban nobody.
const MIN_WORDS_MILLI: usize = 1000;
/// Accusations do not ban before this time: whom else the accuser accuses is known by then.
const HEARING: Micros = Micros::from_millis(500);
/// Contradicted accusations that make a slanderer.
pub const MIN_CONTRADICTED: usize = 2;
/// Good pieces that others got since an accusation of bad ones, which contradict it: of a parent that spoils one piece
/// in fifty, so many good ones in a row come once in 20,000.
pub const CONTRADICTING_PIECES: u64 = 500;
/// The same for accusations of silence and slowness, which come true or false within an interval.
const CONTRADICTING_PIECES_WEAK: u64 = 16;
/// How long children that have not spoken yet are waited for: a heartbeat and a half.
const JURY: Micros = Micros::from_secs(3);
/// How long a child's word that it is served well counts: three heartbeats.
const PRAISE: Micros = Micros::from_secs(7);
/// How long accusations of silence and the like count, and that a child got pieces, which speaks against them.
const WEAK_MEMORY: Micros = Micros::from_secs(60);
/// A silent parent's own heartbeat must come within this time: one whose line is dead is no liar.
const ALIVE_WITHIN: Micros = Micros::from_secs(4);

/// Who counts as one party.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Network {
    /// A /24.
    V4([u8; 3]),
    /// A /48.
    V6([u8; 6]),
    /// A node that the operator vouches for, or one on loopback, stands for itself.
    Node(NodeId),
}

impl Network {
    /// The party that `node` at `address` belongs to.
    pub fn of(node: NodeId, address: IpAddr, vouched: bool) -> Network {
        match address.to_canonical() {
            _ if vouched => Network::Node(node),
            a if a.is_loopback() => Network::Node(node),
            IpAddr::V4(a) => {
                let [x, y, z, _] = a.octets();
                Network::V4([x, y, z])
            }
            IpAddr::V6(a) => {
                let o = a.octets();
                Network::V6([o[0], o[1], o[2], o[3], o[4], o[5]])
            }
        }
    }
}

/// What a parent is accused of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Offence {
    /// It sent bytes that are not the content.
    BadPieces,
    /// It was asked and sends nothing.
    Silent,
    /// It sends a trickle of what it promised.
    Slow,
    /// It tells the control center of runs that it does not offer.
    Holdings,
    /// It says that it sent far more than arrives, or than it has uplink for.
    Sent,
    /// It accuses nodes that never were its parents.
    Slander,
}

impl Offence {
    /// In words, after "accused of".
    pub fn words(self) -> &'static str {
        match self {
            Offence::BadPieces => "sending wrong bytes",
            Offence::Silent => "silence",
            Offence::Slow => "trickling",
            Offence::Holdings => "claiming what it does not offer",
            Offence::Sent => "claiming to have sent what did not arrive",
            Offence::Slander => "accusing nodes that were not its parents",
        }
    }
    /// Weak ones can be a link's fault.
    fn is_weak(self) -> bool {
        self != Offence::BadPieces
    }
    /// Whether the accused's next heartbeat must show that its line works.
    pub(crate) fn needs_life(self) -> bool {
        matches!(self, Offence::Silent | Offence::Slow)
    }
}

/// What a node may do as a parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Standing {
    /// Everything.
    #[default]
    Good,
    /// It keeps its children and gets one more at a time.
    OnTrial {
        /// What it says that it holds does not count.
        doubted: bool,
    },
    /// It is nobody's parent, and what it says that it holds does not count.
    Banned,
}

impl Standing {
    /// Whether what it says that it holds counts.
    pub fn is_believed(self) -> bool {
        !matches!(self, Standing::Banned | Standing::OnTrial { doubted: true })
    }
}

/// A node that speaks, and for which party.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Witness {
    /// Who.
    pub node: NodeId,
    /// Of which party.
    pub network: Network,
}

/// What follows from what was said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// A node's standing changed.
    Standing {
        /// Whose.
        node: NodeId,
        /// To what.
        standing: Standing,
        /// Networks that accuse it, and networks that it serves well.
        accusers: usize,
        /// See `accusers`.
        praisers: usize,
        /// What it is accused of by most; `None` when it is no longer accused.
        offence: Option<Offence>,
        /// How long a ban lasts; 0 for none.
        lasts: Micros,
    },
    /// A node's accusations are void.
    Slanderer {
        /// Whose.
        node: NodeId,
        /// Accusations that others' experience contradicts.
        contradicted: usize,
        /// Accusations that others share.
        upheld: usize,
        /// How long.
        lasts: Micros,
    },
}

/// How long bans last.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The first; each further one lasts twice as long.
    pub ban: Micros,
    /// At most.
    pub max_ban: Micros,
}

#[derive(Clone, Copy, Debug)]
struct Accusation {
    offence: Offence,
    at: Time,
    /// When it was first made.
    first: Time,
    /// Good pieces that others had from the accused by then.
    good_then: u64,
    /// The accused was heard of since.
    weighs: bool,
}

#[derive(Clone, Copy, Debug)]
struct Testimony {
    network: Network,
    accusation: Option<Accusation>,
    praised_at: Option<Time>,
    /// When it last got a good piece.
    fed_at: Option<Time>,
}

impl Testimony {
    fn of(network: Network) -> Self {
        Self { network, accusation: None, praised_at: None, fed_at: None }
    }
}

#[derive(Clone, Debug)]
struct Case {
    network: Network,
    said: BTreeMap<NodeId, Testimony>,
    /// Parties whose word is waited for.
    jury: BTreeMap<Network, Time>,
    good_pieces: u64,
    standing: Standing,
    banned_until: Option<Time>,
    bans: u32,
    last_ban: Time,
    /// Back from a ban: on trial until it serves somebody well.
    probation: bool,
    /// What its own words prove; it takes no accuser.
    own_words: Option<Offence>,
}

#[derive(Clone, Debug, Default)]
struct Word {
    accused: BTreeSet<NodeId>,
    void_until: Option<Time>,
}

/// A case in short, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaseSummary {
    /// The node's standing.
    pub standing: Standing,
    /// Accusers whose word counts, and what they say.
    pub accusations: Vec<(NodeId, Offence, Time)>,
    /// Networks that it serves well.
    pub praisers: usize,
    /// Bans so far.
    pub bans: u32,
    /// When the present ban ends.
    pub banned_until: Option<Time>,
}

/// All cases, and how good the accusers' word is.
#[derive(Clone, Debug)]
pub struct Trust {
    terms: Terms,
    cases: BTreeMap<NodeId, Case>,
    words: BTreeMap<NodeId, Word>,
}

/// Parties for and against.
#[derive(Clone, Copy, Default, Debug)]
struct Count {
    bad: usize,
    any: usize,
    /// Words behind `bad` and `any` that had their hearing, in thousandths.
    bad_milli: usize,
    any_milli: usize,
    /// Accusers of more than silence and slowness.
    lies: usize,
    praise: usize,
    /// Networks that get pieces, however slowly.
    fed: usize,
    undecided: usize,
    most: Option<Offence>,
    holdings: bool,
}

impl Count {
    fn convicts(&self) -> bool {
        let doubt = self.praise + self.undecided;
        // Who gets good bytes of it may not have met a bad one yet; but two slanderers must not outweigh one honest child.
        let enough = MIN_ACCUSERS + usize::from(self.praise > 0);
        let bad = self.bad >= enough && self.bad > doubt && self.bad_milli >= MIN_WORDS_MILLI;
        // Silence and the like can be a link's fault: one child that is served well speaks against all of them.
        let any = self.any >= MIN_ACCUSERS && self.any > doubt && self.any_milli >= MIN_WORDS_MILLI;
        // Who sends what it can is not silent: a small uplink was taken for a larger one.
        bad || (any && self.praise == 0 && (self.lies > 0 || self.fed == 0))
    }
}

impl Trust {
    /// Nobody is accused.
    pub fn new(terms: Terms) -> Self {
        Self { terms, cases: BTreeMap::new(), words: BTreeMap::new() }
    }

    /// A node's standing.
    pub fn standing(&self, node: &NodeId) -> Standing {
        self.cases.get(node).map_or(Standing::Good, |c| c.standing)
    }
    /// Whether a node's word is void.
    pub fn is_slanderer(&self, node: &NodeId) -> bool {
        self.words.get(node).is_some_and(|w| w.void_until.is_some())
    }
    /// Whether a node's doings are of interest: [`Trust::praise`] and [`Trust::heard`] do nothing for others.
    pub fn has_case(&self, node: &NodeId) -> bool {
        self.cases.contains_key(node)
    }
    /// Cases under way.
    pub fn cases(&self) -> usize {
        self.cases.len()
    }
    /// A node's case.
    pub fn case(&self, now: Time, node: &NodeId) -> Option<CaseSummary> {
        let case = self.cases.get(node)?;
        let accusations = case.said.iter().filter(|(n, _)| !self.is_void(n));
        Some(CaseSummary {
            standing: case.standing,
            accusations: accusations.filter_map(|(n, t)| t.accusation.map(|a| (*n, a.offence, a.at))).collect(),
            praisers: self.count(now, case).praise,
            bans: case.bans,
            banned_until: case.banned_until,
        })
    }

    /// A child accuses a parent that was assigned to it. `accused` is the parent and its party, `children` are the
    /// parties of the parent's children: those that have not spoken yet are waited for.
    pub fn accuse(
        &mut self,
        now: Time,
        by: Witness,
        accused: Witness,
        offence: Offence,
        children: impl IntoIterator<Item = Network>,
        out: &mut Vec<Verdict>,
    ) {
        if self.is_void(&by.node) || by.node == accused.node {
            return;
        }
        let known = self.cases.contains_key(&accused.node);
        let word = self.words.entry(by.node).or_default();
        if (!known && self.cases.len() >= MAX_CASES) || word.accused.len() >= MAX_ACCUSED_BY_ONE {
            return;
        }
        word.accused.insert(accused.node);
        let case = self.cases.entry(accused.node).or_insert_with(|| Case::new(accused.network));
        if !case.hears(&by) {
            return;
        }
        for network in children.into_iter().take(MAX_WITNESSES) {
            // Whoever praised it of late has spoken.
            let spoke = case.said.values().any(|t| t.network == network);
            if network != by.network && network != case.network && !spoke && case.jury.len() < MAX_WITNESSES {
                case.jury.entry(network).or_insert(now + JURY);
            }
        }
        let good_then = case.good_pieces;
        let new = Accusation { offence, at: now, first: now, good_then, weighs: !offence.needs_life() };
        let said = case.said.entry(by.node).or_insert(Testimony::of(by.network));
        // The gravest stays.
        match &mut said.accusation {
            Some(old) if old.offence < offence => {}
            Some(old) if old.offence == offence => old.at = now,
            other => *other = Some(new),
        }
        said.praised_at = None;
        case.jury.remove(&by.network);
        self.sentence(now, &accused.node, out);
    }

    /// A child got `pieces` good ones from `parent` in an interval, at a fair share of what was promised.
    pub fn praise(&mut self, now: Time, by: Witness, parent: &NodeId, pieces: u64, out: &mut Vec<Verdict>) {
        if self.is_void(&by.node) {
            return;
        }
        let Some(case) = self.cases.get_mut(parent) else { return };
        if by.network == case.network || !case.hears(&by) {
            return;
        }
        case.jury.remove(&by.network);
        let said = case.said.entry(by.node).or_insert(Testimony::of(by.network));
        // Who is served well again takes back that it was not; wrong bytes stay wrong.
        if said.accusation.is_some_and(|a| a.offence.is_weak()) {
            said.accusation = None;
        }
        if said.accusation.is_none() {
            said.praised_at = Some(now);
            case.good_pieces += pieces;
            case.probation &= case.standing == Standing::Banned;
        }
        self.sentence(now, parent, out);
    }

    /// A child got a good piece of `parent` at least in an interval, at whatever rate.
    pub fn fed(&mut self, now: Time, by: Witness, parent: &NodeId) {
        if self.is_void(&by.node) {
            return;
        }
        if let Some(case) = self.cases.get_mut(parent).filter(|c| by.network != c.network && c.hears(&by)) {
            case.said.entry(by.node).or_insert(Testimony::of(by.network)).fed_at = Some(now);
        }
    }

    /// What `accused` says of itself cannot be true: it is banned without accusers.
    pub fn contradicts_itself(&mut self, now: Time, accused: Witness, offence: Offence, out: &mut Vec<Verdict>) {
        if self.cases.len() < MAX_CASES || self.cases.contains_key(&accused.node) {
            let case = self.cases.entry(accused.node).or_insert_with(|| Case::new(accused.network));
            case.own_words = Some(offence);
            self.sentence(now, &accused.node, out);
        }
    }

    /// A heartbeat of a node: it is there, so that its silence towards others is its own. One that was not there all the
    /// time (it was restarted, paused or cut off) was silent for that.
    pub fn heard(&mut self, now: Time, node: &NodeId, steady: bool, out: &mut Vec<Verdict>) {
        let Some(case) = self.cases.get_mut(node) else { return };
        let mut changed = false;
        for t in case.said.values_mut() {
            if let Some(a) = t.accusation.as_mut().filter(|a| !a.weighs) {
                a.weighs = true;
                changed = true;
                t.accusation = t.accusation.filter(|_| steady);
            }
        }
        if changed {
            self.sentence(now, node, out);
        }
    }

    /// Time passes: bans end, accusations fade, slander is found out. Call it about once a second.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Verdict>) {
        let nodes: Vec<NodeId> = self.cases.keys().copied().collect();
        for node in nodes {
            let memory = self.terms.ban;
            let Some(case) = self.cases.get_mut(&node) else { continue };
            case.jury.retain(|_, until| *until > now);
            if case.banned_until.is_some_and(|t| t <= now) {
                case.banned_until = None;
                case.probation = true;
                case.said.values_mut().for_each(|t| t.accusation = None);
                case.own_words = None;
            }
            // What brought a ban about is kept for as long as it lasts.
            let banned = case.banned_until.is_some();
            for t in case.said.values_mut() {
                let over = |a: &Accusation| {
                    let life = if a.offence.is_weak() { WEAK_MEMORY } else { memory };
                    now.since(a.at) > life || (!a.weighs && now.since(a.at) > ALIVE_WITHIN)
                };
                t.accusation = t.accusation.filter(|a| banned || !over(a));
                t.praised_at = t.praised_at.filter(|p| now.since(*p) <= PRAISE);
                t.fed_at = t.fed_at.filter(|p| now.since(*p) <= WEAK_MEMORY);
            }
            case.said.retain(|_, t| t.accusation.is_some() || t.praised_at.is_some() || t.fed_at.is_some());
            self.sentence(now, &node, out);
        }
        self.find_slanderers(now, out);
        let max_ban = self.terms.max_ban;
        self.cases.retain(|_, c| {
            let accused = c.said.values().any(|t| t.accusation.is_some());
            // How often it was banned is remembered for as long as the longest ban.
            accused || c.banned_until.is_some() || (c.bans > 0 && now.since(c.last_ban) < max_ban)
        });
        let cases = &self.cases;
        self.words.retain(|node, w| {
            w.void_until = w.void_until.filter(|t| *t > now);
            let accuses = |c: &Case| c.said.get(node).is_some_and(|t| t.accusation.is_some());
            w.accused.retain(|a| cases.get(a).is_some_and(accuses));
            w.void_until.is_some() || !w.accused.is_empty()
        });
    }

    /// A banned node's word is worth as little as a slanderer's.
    fn is_void(&self, node: &NodeId) -> bool {
        self.is_slanderer(node) || self.standing(node) == Standing::Banned
    }

    fn count(&self, now: Time, case: &Case) -> Count {
        let mut accusers: BTreeMap<Network, (Offence, usize)> = BTreeMap::new();
        let (mut praisers, mut fed) = (BTreeSet::new(), BTreeSet::new());
        let mut holdings = false;
        for (node, t) in case.said.iter().filter(|(n, _)| !self.is_void(n)) {
            if t.fed_at.is_some_and(|p| now.since(p) <= WEAK_MEMORY) {
                fed.insert(t.network);
            }
            if let Some(a) = t.accusation.filter(|a| a.weighs) {
                holdings |= a.offence == Offence::Holdings;
                let heard = now.since(a.first) >= HEARING;
                // Who was right about others speaks as loudly as before.
                let open = |n: &&NodeId| self.standing(n) != Standing::Banned;
                let shared = self.words.get(node).map_or(1, |w| w.accused.iter().filter(open).count().max(1));
                let milli = if heard { 1000 / shared } else { 0 };
                let (worst, most) = accusers.entry(t.network).or_insert((a.offence, milli));
                *worst = (*worst).min(a.offence);
                *most = (*most).max(milli);
            } else if t.praised_at.is_some_and(|p| now.since(p) <= PRAISE) {
                praisers.insert(t.network);
            }
        }
        praisers.retain(|n| !accusers.contains_key(n));
        let mut by_offence: BTreeMap<Offence, usize> = BTreeMap::new();
        accusers.values().for_each(|(o, _)| *by_offence.entry(*o).or_default() += 1);
        let milli =
            |bad: bool| accusers.values().filter(|(o, _)| !bad || *o == Offence::BadPieces).map(|(_, m)| m).sum();
        Count {
            bad: by_offence.get(&Offence::BadPieces).copied().unwrap_or(0),
            any: accusers.len(),
            bad_milli: milli(true),
            any_milli: milli(false),
            lies: accusers.values().filter(|(o, _)| !o.needs_life()).count(),
            praise: praisers.len(),
            fed: fed.len(),
            undecided: case.jury.iter().filter(|(n, t)| **t > now && !praisers.contains(n)).count(),
            most: by_offence
                .iter()
                .max_by_key(|(o, n)| (**n, std::cmp::Reverse(**o)))
                .map(|(o, _)| *o)
                .or(case.own_words),
            holdings,
        }
    }

    /// Whether others' experience with the accused speaks against an accusation.
    fn is_contradicted(count: &Count, case: &Case, a: &Accusation) -> bool {
        let enough = if a.offence.is_weak() { CONTRADICTING_PIECES_WEAK } else { CONTRADICTING_PIECES };
        count.praise >= 2 && count.praise > count.any && case.good_pieces.saturating_sub(a.good_then) >= enough
    }

    /// Accusers whose word proves worthless lose it, in all their cases.
    fn find_slanderers(&mut self, now: Time, out: &mut Vec<Verdict>) {
        let mut records: BTreeMap<NodeId, (usize, usize)> = BTreeMap::new();
        for case in self.cases.values() {
            let count = self.count(now, case);
            let convicted = case.standing == Standing::Banned || count.convicts();
            for (accuser, a) in case.said.iter().filter_map(|(n, t)| Some((n, t.accusation?))) {
                let record = records.entry(*accuser).or_default();
                record.0 += usize::from(Self::is_contradicted(&count, case, &a));
                record.1 += usize::from(convicted);
            }
        }
        for (accuser, (contradicted, upheld)) in records {
            if contradicted < MIN_CONTRADICTED || contradicted <= upheld || self.is_void(&accuser) {
                continue;
            }
            let lasts = self.terms.ban;
            let Some(word) = self.words.get_mut(&accuser) else { continue };
            word.void_until = Some(now + lasts);
            let accused = std::mem::take(&mut word.accused);
            out.push(Verdict::Slanderer { node: accuser, contradicted, upheld, lasts });
            for other in accused {
                if let Some(case) = self.cases.get_mut(&other) {
                    case.said.remove(&accuser);
                }
                self.sentence(now, &other, out);
            }
        }
    }

    fn sentence(&mut self, now: Time, node: &NodeId, out: &mut Vec<Verdict>) {
        let Some(case) = self.cases.get(node) else { return };
        let count = self.count(now, case);
        // An accusation of wrong bytes weighs until it is contradicted.
        let accused_of_bad = case.said.iter().any(|(n, t)| {
            t.accusation.is_some_and(|a| !a.offence.is_weak() && !Self::is_contradicted(&count, case, &a))
                && !self.is_void(n)
        });
        let terms = self.terms;
        let Some(case) = self.cases.get_mut(node) else { return };
        let mut lasts = Micros(0);
        let serving_ban = case.banned_until.is_some_and(|t| t > now);
        // A ban that only slander had brought about ends when the slander is found out.
        let by_own_words = case.own_words.is_some();
        let stays = serving_ban && (by_own_words || count.any >= MIN_ACCUSERS);
        if serving_ban && !stays {
            case.bans = case.bans.saturating_sub(1);
            case.banned_until = None;
        }
        let standing = if stays {
            Standing::Banned
        } else if by_own_words || count.convicts() {
            lasts = Micros(terms.ban.0 << case.bans.min(16)).min(terms.max_ban);
            case.bans += 1;
            case.banned_until = Some(now + lasts);
            case.last_ban = now + lasts;
            Standing::Banned
        } else if case.probation || accused_of_bad || (count.any > 0 && count.any >= count.praise) {
            Standing::OnTrial { doubted: count.holdings && count.praise == 0 }
        } else {
            Standing::Good
        };
        if std::mem::replace(&mut case.standing, standing) != standing {
            let (accusers, praisers, offence) = (count.any, count.praise, count.most);
            out.push(Verdict::Standing { node: *node, standing, accusers, praisers, offence, lasts });
        }
    }
}

impl Case {
    fn new(network: Network) -> Self {
        Self {
            network,
            said: BTreeMap::new(),
            jury: BTreeMap::new(),
            good_pieces: 0,
            standing: Standing::Good,
            banned_until: None,
            bans: 0,
            last_ban: Time(0),
            probation: false,
            own_words: None,
        }
    }

    /// Whether there is room for a witness.
    fn hears(&self, by: &Witness) -> bool {
        let of_network = self.said.values().filter(|t| t.network == by.network).count();
        self.said.contains_key(&by.node) || (self.said.len() < MAX_WITNESSES && of_network < MAX_WITNESSES_OF_NETWORK)
    }
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
