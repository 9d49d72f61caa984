//! Choosing parents: feasible → permitted → ranked (architecture, idea 8). Reads only; [`super::Dcm`] commits.

use super::Dcm;
use super::member::{Ix, Member};
use crate::explain::{Decision, MAX_NAMED, Ranked, Removed};
use crate::trust::Standing;
use headwater_model::node::{Accepts, SourceClass};
use headwater_model::place::TIERS;
use headwater_model::rng::mix64;
use headwater_model::time::Time;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What was chosen for a child.
pub(super) struct Choice {
    pub(super) parents: Vec<Ix>,
    pub(super) spares: Vec<Ix>,
    pub(super) decision: Decision,
}

/// Position of the tier from which on a parent counts as far: outside the child's region.
fn first_far_tier(child: &Member) -> usize {
    // A region is the AS, else the country, else everywhere, where nobody is far.
    if child.tier_keys[3].is_some() {
        4
    } else if child.tier_keys[4].is_some() {
        5
    } else {
        6
    }
}

/// Limits that a candidate may run into, as far as they were found before it is looked at.
#[derive(Clone, Copy)]
struct Limits {
    /// Others need its uplink more.
    keep_open: bool,
    /// Enough links lead into the region.
    too_far: bool,
    /// Others bring the content into the site.
    site_served: bool,
}

/// Whether a child can use a sender, for what the two accept.
fn fits(child: Accepts, sender: Accepts) -> bool {
    match child {
        Accepts::Open => true,
        Accepts::Punchable => sender != Accepts::DialOnly,
        Accepts::DialOnly => sender == Accepts::Open,
    }
}

impl Dcm {
    /// The best `want` parents for `child`.
    pub(super) fn choose(&self, now: Time, child_ix: Ix, want: u32, occasion: &'static str) -> Option<Choice> {
        let child = self.member(child_ix)?;
        let mut decision = Decision {
            at: now,
            occasion,
            wanted: want,
            considered: 0,
            not_reached: 0,
            removed: BTreeMap::new(),
            removed_named: Vec::new(),
            ranked: Vec::new(),
        };
        let (enough, far) = (want as usize + self.config.spares as usize, first_far_tier(child));
        let turn = (mix64(child.info.node.prefix64() ^ now.0) % self.members.len().max(1) as u64) as Ix;
        let served_inside = [false, true].map(|near| self.site_served(child_ix, child, near));
        let mut found: Vec<Candidate> = Vec::new();
        let mut open_left = self.open_parents_left(child);
        let mut far_left = self.far_links_left(child);
        for class in [SourceClass::Peer, SourceClass::Waypoint] {
            for (tier, key) in child.tier_keys.iter().enumerate() {
                let Some(key) = *key else { continue };
                // Senders that fewer children can use go first.
                for accepts in [Accepts::DialOnly, Accepts::Punchable, Accepts::Open] {
                    // A shelf where nobody fits: a few stand for all in the explanation.
                    let most = if tier == 0 || fits(child.accepts(), accepts) { usize::MAX } else { 2 };
                    for ix in self.spare.shelf(class, tier, key, accepts, turn).take(most) {
                        if found.len() >= enough || decision.considered as usize >= self.config.max_considered {
                            break;
                        }
                        if ix == child_ix || found.iter().any(|f| f.ix == ix) {
                            continue;
                        }
                        let Some(parent) = self.member(ix) else { continue };
                        if parent.tier_to(child) != tier {
                            continue;
                        }
                        decision.considered += 1;
                        let limits = Limits {
                            keep_open: parent.accepts() == Accepts::Open && open_left == Some(0),
                            too_far: tier >= far && far_left == 0,
                            site_served: tier > 0 && served_inside[usize::from(found.iter().any(|f| f.rank.1 == 0))],
                        };
                        match self.removed(now, child, ix, parent, limits) {
                            Some(by) => {
                                *decision.removed.entry(by).or_default() += 1;
                                if decision.removed_named.len() < MAX_NAMED {
                                    decision.removed_named.push((parent.info.node, by));
                                }
                            }
                            None => {
                                if parent.accepts() == Accepts::Open {
                                    open_left = open_left.map(|n| n - 1);
                                }
                                far_left -= u32::from(tier >= far);
                                found.push(Candidate::new(ix, parent, child, tier, self.spare_of(ix).bucket()));
                            }
                        }
                    }
                }
            }
        }
        self.name_distrusted(child, &mut decision);
        found.sort_by_key(|c| c.rank);
        let want = want as usize;
        decision.not_reached = (self.by_node.len() as u32).saturating_sub(decision.considered + 1);
        if decision.not_reached > 0 && decision.removed_named.len() < MAX_NAMED && found.is_empty() {
            // The busy ones are not in the index; one of them stands for all.
            if let Some(busy) = self
                .members
                .iter()
                .flatten()
                .take(64)
                .find(|m| m.indexed.is_none() && m.info.node != child.info.node && self.could_serve(child, m))
            {
                decision.removed_named.push((busy.info.node, Removed::NoSpareUplink));
            }
        }
        decision.ranked = found
            .iter()
            .take(MAX_NAMED)
            .enumerate()
            .map(|(i, c)| Ranked {
                node: c.node,
                class: c.rank.0,
                tier: TIERS[c.rank.1],
                spare_bucket: c.rank.2.0,
                history: c.rank.3.0,
                chosen: i < want,
            })
            .collect();
        let parents = found.iter().take(want).map(|c| c.ix).collect();
        let spares = found.iter().skip(want).take(self.config.spares as usize).map(|c| c.ix).collect();
        Some(Choice { parents, spares, decision })
    }

    /// Those that are banned or on trial have no uplink to spare, so that the index does not name them.
    fn name_distrusted(&self, child: &Member, decision: &mut Decision) {
        for m in self.distrusted.iter().take(MAX_NAMED).filter_map(|ix| self.member(*ix)) {
            let by = if m.standing == Standing::Banned { Removed::Banned } else { Removed::OnTrial };
            if m.info.node != child.info.node && !m.may_take_child() && decision.removed_named.len() < MAX_NAMED {
                *decision.removed.entry(by).or_default() += 1;
                decision.removed_named.push((m.info.node, by));
                decision.considered += 1;
            }
        }
    }

    /// Feasible and permitted tests, cheapest first.
    fn removed(&self, now: Time, child: &Member, ix: Ix, parent: &Member, limits: Limits) -> Option<Removed> {
        if !(child.udp() && parent.udp()) {
            return Some(Removed::NoUdp);
        }
        if !self.can_connect(child, parent) {
            return Some(Removed::OutOfReach);
        }
        if !parent.forwards() {
            return Some(Removed::ForwardsNothing);
        }
        if child.listed_only() && parent.class() == SourceClass::Peer {
            return Some(Removed::NotListed);
        }
        if parent.standing == Standing::Banned {
            return Some(Removed::Banned);
        }
        if child.has_parent(ix) {
            return Some(Removed::AlreadyParent);
        }
        if self.pair_failed(now, child, parent) {
            let spoilt = self.spoilt(now, child, parent);
            return Some(if spoilt { Removed::Accused } else { Removed::Blacklisted });
        }
        if parent.away_since.is_some() {
            return Some(Removed::Away);
        }
        if !parent.may_take_child() {
            return Some(Removed::OnTrial);
        }
        if !child.parents.is_empty() && self.is_congested(now, parent.region, child.region) {
            return Some(Removed::CongestedLink);
        }
        if limits.keep_open {
            return Some(Removed::KeptForOthers);
        }
        if self.is_kept_for_limited(parent, child) {
            return Some(Removed::KeptForLimited);
        }
        if parent.class() == SourceClass::Waypoint && !self.region_may_use(parent, child.region) {
            return Some(Removed::RegionShare);
        }
        if limits.too_far {
            return Some(Removed::TooFar);
        }
        limits.site_served.then_some(Removed::SiteServed)
    }

    /// Whether `parent` could serve `child` at all, uplink and pair history aside.
    pub(super) fn could_serve(&self, child: &Member, parent: &Member) -> bool {
        self.can_connect(child, parent)
            && parent.forwards()
            && parent.away_since.is_none()
            && parent.may_take_child()
            && !(child.listed_only() && parent.class() == SourceClass::Peer)
    }

    pub(super) fn open_parents_of(&self, child: &Member) -> u32 {
        let open = |p: Ix| self.member(p).is_some_and(|p| p.accepts() == Accepts::Open);
        child.parents.iter().filter(|e| open(e.parent)).count() as u32
    }

    /// How many more open parents `child` may have. `None` = any number.
    fn open_parents_left(&self, child: &Member) -> Option<u32> {
        let each = self.open_parents_each(child.accepts())?;
        // A child without parents may always have one.
        Some(each.max(u32::from(child.parents.is_empty())).saturating_sub(self.open_parents_of(child)))
    }

    /// Links from far that the child's region may still have; a child without parents may always have one.
    pub(super) fn far_links_left(&self, child: &Member) -> u32 {
        let into = self.far_links.get(&child.region).map_or(0, |n| n.all);
        let free = self.far_links_most(child.region).saturating_sub(into);
        if child.parents.is_empty() { free.max(1) } else { free }
    }

    /// A waypoint's slots are shared by the regions that fetch: none may take them all.
    fn region_may_use(&self, waypoint: &Member, region: u64) -> bool {
        let regions = self.wanting_by_region.len().max(1) as u32;
        let slots = self.slots_of(waypoint);
        waypoint.children_by_region.get(&region).copied().unwrap_or(0) < slots.div_ceil(regions)
    }

    /// Whether edge `parent` → `child` leads into the child's region from outside.
    pub(super) fn is_far(&self, parent: &Member, child: &Member) -> bool {
        parent.tier_to(child) >= first_far_tier(child)
    }
}

/// Class, tier, spare bucket, history, and a tie-break that spreads children over equals.
type Rank = (SourceClass, usize, Reverse<u32>, Reverse<u32>, u64);

struct Candidate {
    ix: Ix,
    node: headwater_model::id::NodeId,
    rank: Rank,
}

impl Candidate {
    fn new(ix: Ix, parent: &Member, child: &Member, tier: usize, bucket: u32) -> Self {
        let tie = mix64(parent.info.node.prefix64() ^ child.info.node.prefix64().rotate_left(17));
        Self {
            ix,
            node: parent.info.node,
            rank: (parent.class(), tier, Reverse(bucket), Reverse(parent.info.history), tie),
        }
    }
}
