//! A member of a live stream's trees.

use super::clusters::Chain;
use crate::dcm::{AlarmAllowance, Ix, MemberInfo, forwards};
use crate::trust::Standing;
use headwater_model::Role;
use headwater_model::id::NodeId;
use headwater_model::live::{LiveTerms, Substreams};
use headwater_model::node::Accepts;
use headwater_model::place::TIERS;
use headwater_model::reach::Reachability;
use headwater_model::report::LiveReport;
use headwater_model::time::{Micros, Rate, Time};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Part of its uplink that a member is counted on for, in percent: the rest is for what else it says.
const USABLE_PERCENT: u64 = 95;
/// A slot's part of the substream's rate, in percent: children that fell behind can catch up.
const SLOT_PERCENT: u64 = 115;
/// A member with so many slots is at home in one tree; one with more in several, so that no piece waits for long until it
/// went out to all children.
const FAN_OUT: u32 = 24;
/// What a member said of its parents that is remembered: a row of words per list.
const MAX_WORDS: usize = 16;

/// A member.
#[derive(Clone, Debug)]
pub struct Member {
    /// As the client manager introduced it; uplink, reach and standing as they are now.
    pub info: MemberInfo,
    /// Keys of its place, nearest tier first.
    pub tier_keys: [Option<u64>; 6],
    /// The clusters that it is in.
    pub(super) chain: Chain,
    /// What decides who can connect to it: as `info` says.
    pub(super) reachability: Reachability,
    /// Children that its uplink is good for, in all trees together.
    pub slots: u32,
    /// Children that it has, in all trees together.
    pub used: u32,
    /// Trees in which its children are to be.
    pub homes: Substreams,
    /// It may be the source.
    pub offers_source: bool,
    /// Rises from member to member: who has been here longest.
    pub order: u64,
    /// When its present session joined: what failed with an earlier one says nothing of this one.
    pub since: Time,
    /// When another process took its place, if one did: what is said of it right afterwards may be of the former one.
    pub(super) restarted_at: Option<Time>,
    /// When its session broke or fell silent, if it did: it may still deliver.
    pub away_since: Option<Time>,
    /// How the stream fared there, as it last said.
    pub live: Option<LiveReport>,
    pub(super) alarms: AlarmAllowance,
    /// It is believed to have at most so many slots, until then.
    pub(super) doubt: Option<(u32, Time)>,
    /// All children left it: it gets none until then.
    pub(super) deserted_until: Option<Time>,
    /// Children that lost it, and when.
    pub(super) lost_by: Vec<(NodeId, Time)>,
    /// Children that it is behind for, and when they said so.
    pub(super) behind_by: Vec<(NodeId, Time)>,
    /// Parents that it does not take these substreams from, until then.
    pub(super) avoids: Vec<(NodeId, Substreams, Time)>,
    /// Who has it as a spare, and for which tree.
    pub(super) spare_for: BTreeSet<(Ix, u8)>,
    /// Who helps it.
    pub(super) helpers: Vec<Ix>,
    /// Whom it helps.
    pub(super) helped: BTreeSet<Ix>,
    /// Until then it may need what was there before it came.
    pub(super) newcomer_until: Time,
    /// Addresses from which it was attacked.
    pub(super) shuns: Vec<IpAddr>,
}

impl Member {
    pub(super) fn new(mut info: MemberInfo, order: u64) -> Self {
        let place = std::mem::take(&mut info.place);
        Self {
            tier_keys: TIERS.map(|t| place.key(t)),
            chain: Chain::default(),
            reachability: info.reachability(),
            info,
            slots: 0,
            used: 0,
            homes: Substreams::default(),
            offers_source: false,
            order,
            since: Time(0),
            restarted_at: None,
            away_since: None,
            live: None,
            alarms: AlarmAllowance::default(),
            doubt: None,
            deserted_until: None,
            lost_by: Vec::new(),
            behind_by: Vec::new(),
            avoids: Vec::new(),
            spare_for: BTreeSet::new(),
            helpers: Vec::new(),
            helped: BTreeSet::new(),
            newcomer_until: Time(0),
            shuns: Vec::new(),
        }
    }

    /// Whether it may or can fetch from the origin and operator nodes only: it is in no tree.
    pub fn limited(&self) -> bool {
        self.info.capabilities.limited().is_some()
    }
    /// Whether it is here: heard of, and not left by all its children of late.
    pub fn present(&self) -> bool {
        self.away_since.is_none() && self.deserted_until.is_none()
    }
    /// Whether one of the times for which it is not fully believed is over.
    pub(super) fn doubt_ends(&self, now: Time) -> bool {
        let until = [self.deserted_until, self.doubt.map(|(_, until)| until)];
        until.iter().all(Option::is_none) || until.into_iter().flatten().any(|until| until <= now)
    }
    /// Whether others can open a connection to it.
    pub fn accepts(&self) -> Accepts {
        self.info.capabilities.accepts.value
    }
    /// What the tree has from it: its slots, and more where more members can use them. 0 where it is not at home.
    pub fn weight(&self, tree: u8) -> u32 {
        let usable = match self.accepts() {
            Accepts::Open => 4,
            Accepts::Punchable => 3,
            Accepts::DialOnly => 1,
        };
        if self.homes.contains(tree) { self.slots.saturating_mul(usable) } else { 0 }
    }
    /// Slots that nobody uses and that may be given away.
    pub fn free(&self) -> u32 {
        if !self.present() {
            return 0;
        }
        match self.info.standing {
            Standing::Good => self.slots.saturating_sub(self.used),
            // One child tries it.
            Standing::OnTrial { .. } => u32::from(self.used == 0 && self.slots > 0),
            Standing::Banned => 0,
        }
    }
    /// Position of the nearest tier shared with `other` (0 = LAN … 5 = world).
    pub fn tier_to(&self, other: &Member) -> usize {
        let shared = |(a, b): (&Option<u64>, &Option<u64>)| a.is_some() && a == b;
        self.tier_keys.iter().zip(&other.tier_keys).take(5).position(shared).unwrap_or(5)
    }

    /// How many slots its uplink is good for, believed as far as it is; at most `most`.
    pub(super) fn slots_now(&self, terms: &LiveTerms, most: u32) -> u32 {
        if !forwards(&self.info.capabilities) || self.limited() || self.info.standing == Standing::Banned {
            return 0;
        }
        let believed = self.doubt.map_or(u32::MAX, |(slots, _)| slots);
        slots(self.info.up, terms).min(most).min(believed)
    }
    /// Uplink that its children do not take, in percent of a substream's rate: a slot's share for catching up, and what
    /// makes no whole slot.
    pub(super) fn left_over(&self, terms: &LiveTerms) -> u64 {
        let usable = u128::from(self.info.up.0) * u128::from(USABLE_PERCENT);
        let pushed = u128::from(terms.substream_rate().0) * u128::from(self.used) * 100;
        let left = usable.saturating_sub(pushed) / u128::from(terms.substream_rate().0.max(1));
        u64::try_from(left).unwrap_or(u64::MAX)
    }
    /// In how many trees it is to be at home.
    pub(super) fn homes_wanted(&self, substreams: u8) -> u32 {
        let each = FAN_OUT.max(u32::from(substreams));
        self.slots.div_ceil(each).min(u32::from(substreams))
    }
    /// Whether it was attacked from the other's address, which is not its own.
    pub(super) fn shuns(&self, other: &Member) -> bool {
        let (own, theirs) = (self.reachability.address, other.reachability.address);
        own != theirs && self.shuns.contains(&theirs)
    }
    /// It was attacked from there. False when that is known.
    pub(super) fn shun(&mut self, from: IpAddr) -> bool {
        let new = !self.shuns.contains(&from);
        if new {
            push(&mut self.shuns, from);
        }
        new
    }
    /// Whether it does not take `tree` from that node now.
    pub(super) fn avoids(&self, now: Time, parent: &NodeId, tree: u8) -> bool {
        self.avoids.iter().any(|(node, trees, until)| node == parent && trees.contains(tree) && *until > now)
    }
    /// It does not take these from that node until then.
    pub(super) fn avoid(&mut self, now: Time, parent: NodeId, trees: Substreams, until: Time) {
        self.avoids.retain(|(.., until)| *until > now);
        push(&mut self.avoids, (parent, trees, until));
    }
}

/// How many children `up` feeds with a substream each.
pub(super) fn slots(up: Rate, terms: &LiveTerms) -> u32 {
    let usable = u128::from(up.0) * u128::from(USABLE_PERCENT);
    let slot = u128::from(terms.substream_rate().0.max(1)) * u128::from(SLOT_PERCENT);
    (usable / slot).min(u128::from(u32::MAX)) as u32
}

/// What a parent gives for each slot.
pub(super) fn slot_rate(terms: &LiveTerms) -> Rate {
    Rate(terms.substream_rate().0.saturating_mul(SLOT_PERCENT) / 100)
}

/// The uplink that so many children take.
pub(super) fn uplink_for(children: u32, terms: &LiveTerms) -> Rate {
    Rate((slot_rate(terms).0.saturating_mul(u64::from(children))).saturating_mul(100) / USABLE_PERCENT)
}

/// Children that a member may have, whatever its uplink.
pub(super) fn most_children(role: Role, config: &crate::Config, substreams: u8) -> u32 {
    let each = match role {
        Role::Waypoint => config.max_waypoint_children,
        Role::Peer => config.max_children,
    };
    each.saturating_mul(u32::from(substreams))
}

/// Whether `by` is the first to say something of a member, or says it again, after `within`: how many different ones did.
pub(super) fn count_words(words: &mut Vec<(NodeId, Time)>, now: Time, by: NodeId, within: Micros) -> usize {
    words.retain(|(node, at)| *node != by && now.since(*at) <= within);
    push(words, (by, now));
    words.len()
}

fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() >= MAX_WORDS {
        list.remove(0);
    }
    list.push(item);
}
