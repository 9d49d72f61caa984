//! A member of a swarm as its DCM knows it, and the index of members with uplink to spare.

use crate::explain::Decision;
use crate::network_monitor::EdgeWatch;
use crate::trust::{Network, Standing};
use headwater_model::assignment::Reach;
use headwater_model::bits::Bits;
use headwater_model::id::NodeId;
use headwater_model::node::{Accepts, Capabilities, Forwards, Role, SourceAccess, SourceClass};
use headwater_model::place::{Place, TIERS};
use headwater_model::reach::Reachability;
use headwater_model::time::{Micros, Rate, Time};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// Alarms of one member that are heard; more than one that loses all its parents at once raises.
const MAX_ALARMS_AT_ONCE: u32 = 64;
/// See [`MAX_ALARMS_AT_ONCE`].
const ALARMS_PER_S: u64 = 8;

/// Alarms that a member may raise: a flood of them costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct AlarmAllowance {
    /// Before the next one is due.
    left: u32,
    /// When that was counted.
    at: Time,
}

impl Default for AlarmAllowance {
    fn default() -> Self {
        Self { left: MAX_ALARMS_AT_ONCE, at: Time(0) }
    }
}

impl AlarmAllowance {
    /// Counts an alarm; false when there are more than [`ALARMS_PER_S`] on average.
    pub(crate) fn may_alarm(&mut self, now: Time) -> bool {
        let new = now.since(self.at).0 * ALARMS_PER_S / 1_000_000;
        if new > 0 {
            let left = (u64::from(self.left) + new).min(u64::from(MAX_ALARMS_AT_ONCE)) as u32;
            *self = Self { left, at: now };
        }
        let may = self.left > 0;
        self.left -= u32::from(may);
        may
    }
}

/// Alarms about nodes that are no parents of the member, in a row of [`BASELESS_WITHIN`]s: words about parents that were
/// just taken away cross the assignment that says so, but not so many.
const MAX_BASELESS: u32 = 16;
/// See [`MAX_BASELESS`].
const BASELESS_WITHIN: Micros = Micros::from_secs(10);
/// Addresses that attacked a member, which are remembered.
const MAX_SHUNNED: usize = 16;

/// Index of a member in its DCM.
pub type Ix = u32;

/// What the client manager knows of a node that joins a swarm.
#[derive(Clone, Debug)]
pub struct MemberInfo {
    /// Who.
    pub node: NodeId,
    /// Number of its session.
    pub session: u64,
    /// Peer or waypoint.
    pub role: Role,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Uplink granted to this content.
    pub up: Rate,
    /// Where it is. Of a member's only the keys are kept, as all that is asked is who is together with whom.
    pub place: Place,
    /// How others reach it.
    pub reach: Reach,
    /// Address that the control center sees.
    pub observed: IpAddr,
    /// Its addresses on its own networks.
    pub local_addresses: Vec<SocketAddr>,
    /// Where it serves by HTTPS, if it is a waypoint that does.
    pub https: Option<Reach>,
    /// Whether it may read from the origin (it has the credentials, or none are needed).
    pub may_use_origin: bool,
    /// How well it served others, 0 (badly) to 3; from the history.
    pub history: u32,
    /// What it may do as a parent.
    pub standing: Standing,
}

impl MemberInfo {
    /// What decides who can connect to it.
    pub fn reachability(&self) -> Reachability {
        Reachability::new(&self.capabilities, self.observed)
    }
    /// Its class as a source.
    pub fn class(&self) -> SourceClass {
        super::class_of(self.role)
    }
}

/// An edge as its child sees it.
#[derive(Clone, Debug)]
pub struct ParentEdge {
    /// The parent.
    pub parent: Ix,
    /// Assigned when.
    pub since: Time,
    /// What both ends said of it.
    pub watch: EdgeWatch,
    /// From far, as nobody near could give the child what it lacked: kept when its region gives up links from far.
    pub sole: bool,
}

/// Links into a region from outside.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct FarLinks {
    /// How many there are.
    pub all: u32,
    /// Those of them that nobody near can replace.
    pub sole: u32,
}

/// A member.
#[derive(Clone, Debug)]
pub struct Member {
    /// As the client manager introduced it.
    pub info: MemberInfo,
    /// Keys of its place, nearest tier first.
    pub tier_keys: [Option<u64>; 6],
    /// What decides who can connect to it: as `info` says.
    pub(super) reachability: Reachability,
    /// The region that shares scarce sources with it.
    pub region: u64,
    /// The party that it belongs to where leases are given out.
    pub network: Network,
    /// Still lacks pieces.
    pub wants: bool,
    /// Verified pieces.
    pub pieces_held: u32,
    /// Complete runs.
    pub runs: Bits,
    /// When it last told of new ones.
    pub runs_at: Time,
    /// Assigned parents.
    pub parents: Vec<ParentEdge>,
    /// Assigned children.
    pub children: Vec<Ix>,
    /// Named as spares in the last assignment.
    pub spares: Vec<NodeId>,
    /// Leases under way.
    pub leases: u32,
    /// Standing leases under way, from the origin and from waypoints.
    pub standing_leases: u32,
    /// Standing leases under way that others have from it.
    pub https_leases: u32,
    /// Standing leases from the origin wait until then, and how many failed in a row.
    pub origin_again: (Time, u32),
    /// Parents that it had until lately, the newest last, and the bytes that each gave.
    pub parted: VecDeque<(NodeId, u64)>,
    /// The last child that left it as slow, that one's region, and when.
    pub slow_to: Option<(Ix, u64, Time)>,
    /// What was leased to it, for its uplink: leases go round in proportion to uplinks.
    pub leased: u64,
    /// When its present session joined: what failed with an earlier one says nothing of this one.
    pub since: Time,
    /// When its process took the place of an earlier one, which explains that one's silence; once in a while only.
    pub restarted: Option<Time>,
    /// When its session broke or fell silent, if it did: it may still deliver, but what it holds does not count.
    pub away_since: Option<Time>,
    /// Alarms "no parent has what is missing" in a row.
    pub starving: u32,
    /// When the DCM last looked for parents for it.
    pub tried: Time,
    /// Assignments wait until then (after a control restart, for parents that are about to come back).
    pub settle_until: Time,
    /// Children by region, for parents whose slots are shared (waypoints).
    pub children_by_region: BTreeMap<u64, u32>,
    /// The last choice of parents, explained.
    pub decision: Option<Box<Decision>>,
    /// What it may do as a parent.
    pub standing: Standing,
    /// While it is on trial: the child that tries it.
    pub tried_by: Option<Ix>,
    /// Alarms that it may raise.
    pub alarms: AlarmAllowance,
    /// Accusations of nodes that are not its parents: how many since when.
    pub baseless: (u32, Time),
    /// Addresses from which it was attacked, latest last: it has nothing to do with nodes there.
    pub shuns: Vec<IpAddr>,
    /// Where it stands in the index of spare uplink.
    pub indexed: Option<u32>,
}

impl Member {
    pub(super) fn new(mut info: MemberInfo, runs: u32) -> Self {
        if !forwards(&info.capabilities) {
            // An uplink that nobody can use is none.
            info.up = Rate(0);
        }
        let place = std::mem::take(&mut info.place);
        let tier_keys = TIERS.map(|t| place.key(t));
        let (region, standing) = (place.region(), info.standing);
        let network = Network::of(info.node, info.observed, info.role == Role::Waypoint);
        Self {
            network,
            reachability: info.reachability(),
            info,
            tier_keys,
            region,
            wants: true,
            pieces_held: 0,
            runs: Bits::new(runs),
            runs_at: Time(0),
            parents: Vec::new(),
            children: Vec::new(),
            spares: Vec::new(),
            leases: 0,
            standing_leases: 0,
            https_leases: 0,
            origin_again: (Time(0), 0),
            parted: VecDeque::new(),
            slow_to: None,
            leased: 0,
            since: Time(0),
            restarted: None,
            away_since: None,
            starving: 0,
            tried: Time(0),
            settle_until: Time(0),
            children_by_region: BTreeMap::new(),
            decision: None,
            standing,
            tried_by: None,
            alarms: AlarmAllowance::default(),
            baseless: (0, Time(0)),
            shuns: Vec::new(),
            indexed: None,
        }
    }
    /// Whether what it holds is relied on: it is there, believed, and passes it on.
    pub fn counts(&self) -> bool {
        self.away_since.is_none() && self.standing.is_believed() && self.forwards()
    }
    /// Bytes that a parent gave that it had until lately.
    pub fn parted_from(&self, parent: &NodeId) -> Option<u64> {
        self.parted.iter().rev().find(|(p, _)| p == parent).map(|(_, served)| *served)
    }
    /// Whether it may get a child.
    pub fn may_take_child(&self) -> bool {
        match self.standing {
            Standing::Good => true,
            Standing::OnTrial { .. } => self.tried_by.is_none(),
            Standing::Banned => false,
        }
    }
    /// Counts an accusation of a node that is not its parent; true when there are more than can be mistakes.
    pub(super) fn is_slander(&mut self, now: Time) -> bool {
        let (count, since) = &mut self.baseless;
        if now.since(*since) > BASELESS_WITHIN {
            (*count, *since) = (0, now);
        }
        *count += 1;
        *count > MAX_BASELESS
    }
    /// It was attacked from there. False when that is known.
    pub(super) fn shun(&mut self, from: IpAddr) -> bool {
        let new = !self.shuns.contains(&from);
        if new {
            if self.shuns.len() >= MAX_SHUNNED {
                self.shuns.remove(0);
            }
            self.shuns.push(from);
        }
        new
    }
    /// Whether it was attacked from the other's address, which is not its own.
    pub(super) fn shuns(&self, other: &Member) -> bool {
        let (own, theirs) = (self.reachability.address, other.reachability.address);
        own != theirs && self.shuns.contains(&theirs)
    }
    /// Its class as a source.
    pub fn class(&self) -> SourceClass {
        self.info.class()
    }
    /// Whether others can open a connection to it.
    pub fn accepts(&self) -> Accepts {
        self.info.capabilities.accepts.value
    }
    /// What decides who can connect to it.
    pub fn reachability(&self) -> Reachability {
        self.reachability
    }
    /// Whether no stranger can open a connection to it.
    pub fn dial_only(&self) -> bool {
        self.info.capabilities.dial_only()
    }
    /// Whether it passes anything on to peers.
    pub fn forwards(&self) -> bool {
        forwards(&self.info.capabilities)
    }
    /// Whether UDP gets through to it: without it has no parents and no children.
    pub fn udp(&self) -> bool {
        self.info.capabilities.udp.value
    }
    /// Whether it may or can fetch from the origin and operator nodes only.
    pub fn limited(&self) -> bool {
        self.info.capabilities.limited().is_some()
    }
    /// Whether it may use operator nodes and the origin only.
    pub fn listed_only(&self) -> bool {
        self.info.capabilities.sources.value == SourceAccess::Listed
    }
    /// Whether `ix` is a parent.
    pub fn has_parent(&self, ix: Ix) -> bool {
        self.parents.iter().any(|e| e.parent == ix)
    }
    /// Position of the nearest tier shared with `other` (0 = LAN … 5 = world).
    pub fn tier_to(&self, other: &Member) -> usize {
        (0..5).find(|t| self.tier_keys[*t].is_some() && self.tier_keys[*t] == other.tier_keys[*t]).unwrap_or(5)
    }
}

/// Whether a node with these passes anything on to peers.
pub(crate) fn forwards(capabilities: &Capabilities) -> bool {
    capabilities.forwards.value != Forwards::No && capabilities.udp.value
}

type Shelf = (SourceClass, usize, u64, Accepts);

/// Members with uplink to spare, by class, tier and reachability, most spare first: the answer to "who is near and has
/// most spare" without a scan (R2).
#[derive(Clone, Debug, Default)]
pub struct SpareIndex {
    shelves: BTreeMap<Shelf, BTreeSet<(Reverse<u32>, Ix)>>,
}

impl SpareIndex {
    /// Puts `member` where `bucket` says, or takes it out.
    pub fn put(&mut self, ix: Ix, member: &mut Member, bucket: Option<u32>) {
        if member.indexed == bucket {
            return;
        }
        for (tier, key) in member.tier_keys.iter().enumerate() {
            let Some(key) = *key else { continue };
            let shelf = (member.class(), tier, key, member.accepts());
            let set = self.shelves.entry(shelf).or_default();
            if let Some(old) = member.indexed {
                set.remove(&(Reverse(old), ix));
            }
            if let Some(new) = bucket {
                set.insert((Reverse(new), ix));
            } else if set.is_empty() {
                self.shelves.remove(&shelf);
            }
        }
        member.indexed = bucket;
    }

    /// Members on a shelf, most spare first, those of one bucket starting at an arbitrary place (`turn`), so that
    /// equal ones share the work.
    pub fn shelf(
        &self,
        class: SourceClass,
        tier: usize,
        key: u64,
        accepts: Accepts,
        turn: Ix,
    ) -> impl Iterator<Item = Ix> + '_ {
        let set = self.shelves.get(&(class, tier, key, accepts));
        let mut bucket = set.and_then(|s| s.first()).map(|(b, _)| *b);
        std::iter::from_fn(move || {
            let (set, b) = (set?, bucket?);
            bucket = set.range((b, Ix::MAX)..).find(|(next, _)| *next != b).map(|(next, _)| *next);
            Some(set.range((b, turn)..=(b, Ix::MAX)).chain(set.range((b, 0)..(b, turn))).map(|(_, ix)| *ix))
        })
        .flatten()
    }
}
