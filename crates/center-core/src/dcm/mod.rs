//! DCM: the delivery coordinator manager of one content's swarm (requirement C6). It owns the topology: who feeds whom,
//! who brings in what from the origin; it reads, decides and commits in one synchronous step.

mod assignments;
mod check;
mod choose;
mod congestion;
mod edges;
mod leases;
mod member;
mod membership;
mod pairs;
mod reach;
mod repair;
mod sites;
mod slots;
mod standing;
mod standing_leases;
#[cfg(test)]
mod test_world;

pub(crate) use assignments::reach;
pub use check::Problem;
pub use leases::Leases;
pub(crate) use member::{AlarmAllowance, forwards};
pub use member::{Ix, Member, MemberInfo};
pub(crate) use pairs::FailedPairs;
pub(crate) use standing::NEWLY_HERE;

use crate::config::Config;
use crate::explain::Decision;
use crate::network_monitor::{EdgeWatch, Thresholds, Trouble};
use crate::node_map::NodeMap;
use crate::trust::Offence;
use congestion::RegionLink;
use headwater_model::assignment::{Assignment, ChildrenChange, Generation, Lease};
use headwater_model::bits::Bits;
use headwater_model::id::{NodeId, Version};
use headwater_model::layout::Layout;
use headwater_model::node::Capabilities;
use headwater_model::place::TIERS;
use headwater_model::report::{ContentReport, Join};
use headwater_model::time::{Micros, Rate, Time};
use headwater_model::{Role, SourceClass};
use member::{FarLinks, SpareIndex};
use reach::ByAccepts;
use sites::Site;
use standing_leases::StandingLeases;
use std::collections::{BTreeMap, BTreeSet};

/// Decisions made in one call, so that a call stays short; the rest follows at once in the next one.
const MAX_DECISIONS: usize = 256;

/// What a DCM wants said.
#[derive(Clone, PartialEq, Debug)]
pub enum DcmOutput {
    /// A new assignment for a node.
    Assign(NodeId, Assignment),
    /// Some of a node's children changed, and nothing else.
    ChangeChildren(NodeId, ChildrenChange),
    /// A lease for a node.
    Lease(NodeId, Lease),
    /// A lease that ended.
    Revoke(NodeId, u32),
    /// An edge gave trouble: (parent, child, what).
    Trouble(NodeId, NodeId, Trouble),
    /// A child accuses a parent that was assigned to it: (child, parent, of what).
    Accuse(NodeId, NodeId, Offence),
    /// A node's own words prove it guilty.
    Guilty(NodeId, Offence),
}

/// A swarm.
#[derive(Clone, Debug)]
pub struct Dcm {
    version: Version,
    layout: Layout,
    config: Config,
    members: Vec<Option<Member>>,
    free: Vec<Ix>,
    by_node: NodeMap<Ix>,
    spare: SpareIndex,
    /// Children with fewer parents than they should have.
    hungry: BTreeSet<Ix>,
    /// The one of them that had its turn last.
    repaired: Ix,
    /// The one of them to which a newcomer's uplink was offered last.
    offered: Ix,
    /// Pairs that failed of late.
    failed: FailedPairs,
    /// Members whose session broke or fell silent.
    aways: BTreeSet<Ix>,
    /// Members that are banned or on trial.
    distrusted: BTreeSet<Ix>,
    /// Links between regions, from and to.
    between: BTreeMap<(u64, u64), RegionLink>,
    /// Regions into which links lose packets, until when that counts.
    lossy: BTreeMap<u64, Time>,
    leases: Leases,
    standing_leases: StandingLeases,
    /// Waypoints among the members.
    waypoints: BTreeSet<Ix>,
    /// Members that lack pieces and have limited sources.
    limited: BTreeSet<Ix>,
    dirty: BTreeSet<Ix>,
    flush_at: Option<Time>,
    generation: Generation,
    up_total: u64,
    /// Uplink and children still fetching, by what they accept.
    by_accepts: ByAccepts,
    wanting: u32,
    /// Members without UDP that lack pieces: they are not among the `wanting`, who want parents.
    wanting_walled: u32,
    sites: BTreeMap<u64, Site>,
    wanting_by_region: BTreeMap<u64, u32>,
    /// Links into each region from outside.
    far_links: BTreeMap<u64, FarLinks>,
    /// Children that have some of them, by region.
    far_children: BTreeSet<(u64, Ix)>,
    /// Uplink per child slot.
    slot_rate: u64,
    /// Target in-degree that `hungry` was built for.
    target: u32,
    /// After a restart no leases are given before `settle_until`, which is never later than `settle_end`.
    settle_until: Time,
    settle_end: Time,
    repair_at: Time,
    out: Vec<DcmOutput>,
}

impl Dcm {
    /// A swarm without members. `epoch` is the control center's; `restarted` tells that nodes may hold content already.
    pub fn new(now: Time, version: Version, layout: Layout, config: Config, epoch: u64, restarted: bool) -> Self {
        let leases = Leases::new(layout.runs(), config.min_leases, config.max_leases);
        let settle_end = if restarted { now + config.settle } else { now };
        Self {
            version,
            layout,
            members: Vec::new(),
            free: Vec::new(),
            by_node: NodeMap::new(),
            spare: SpareIndex::default(),
            hungry: BTreeSet::new(),
            repaired: Ix::MAX,
            offered: Ix::MAX,
            failed: FailedPairs::default(),
            aways: BTreeSet::new(),
            distrusted: BTreeSet::new(),
            between: BTreeMap::new(),
            lossy: BTreeMap::new(),
            leases,
            standing_leases: StandingLeases::default(),
            waypoints: BTreeSet::new(),
            limited: BTreeSet::new(),
            dirty: BTreeSet::new(),
            flush_at: None,
            generation: Generation { epoch, counter: 0 },
            up_total: 0,
            by_accepts: ByAccepts::default(),
            wanting: 0,
            wanting_walled: 0,
            sites: BTreeMap::new(),
            wanting_by_region: BTreeMap::new(),
            far_links: BTreeMap::new(),
            far_children: BTreeSet::new(),
            slot_rate: 1,
            target: config.parents,
            settle_until: settle_end,
            settle_end,
            repair_at: now,
            out: Vec::new(),
            config,
        }
    }

    /// Which swarm this is.
    pub fn version(&self) -> Version {
        self.version
    }
    /// Geometry of its content.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
    /// Its members.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().flatten()
    }
    /// One member.
    pub fn member_of(&self, node: &NodeId) -> Option<&Member> {
        self.member(*self.by_node.get(node)?)
    }
    /// Node of a member index.
    pub fn node_of(&self, ix: Ix) -> Option<NodeId> {
        self.member(ix).map(|m| m.info.node)
    }
    /// Leases and replicas.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }
    /// The last assignment's number.
    pub fn generation(&self) -> Generation {
        self.generation
    }
    /// The last choice of parents for `node`.
    pub fn decision(&self, node: &NodeId) -> Option<&Decision> {
        self.member_of(node)?.decision.as_deref()
    }
    /// Who takes part.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.by_node.keys().copied().collect()
    }
    /// Whom `node` feeds.
    pub fn children_of(&self, node: &NodeId) -> Vec<NodeId> {
        let children = self.member_of(node).map(|m| m.children.iter());
        children.into_iter().flatten().filter_map(|ix| self.node_of(*ix)).collect()
    }
    /// The uplink that it counts on at `node`; nothing where that is away or passes nothing on.
    pub fn uplink_of(&self, node: &NodeId) -> Option<Rate> {
        self.member_of(node).filter(|m| m.away_since.is_none() && m.forwards()).map(|m| m.info.up)
    }
    /// How many members lack nothing.
    pub fn holders(&self) -> u32 {
        (self.by_node.len() as u32).saturating_sub(self.wanting + self.wanting_walled)
    }
    /// Whether nobody is left.
    pub fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }

    /// A node joins, or comes back with what it holds.
    pub fn join(&mut self, now: Time, info: MemberInfo, join: &Join) {
        let node = info.node;
        let same_ways = |m: &Member| {
            let (a, b) = (&m.info.capabilities, &info.capabilities);
            let of = |c: &Capabilities| (c.udp.value, c.sources.value, c.forwards.value);
            of(a) == of(b)
        };
        if self.member_of(&node).is_some_and(|m| !same_ways(m)) {
            // Whom it can reach is another question now: nothing of what was arranged holds.
            self.leave(now, &node);
        }
        let ix = match self.by_node.get(&node).copied() {
            // Elsewhere now: its neighbours are others.
            Some(ix) if self.member(ix).is_some_and(|m| m.tier_keys != TIERS.map(|t| info.place.key(t))) => {
                self.leave(now, &node);
                self.admit(info)
            }
            Some(ix) => {
                self.back(now, ix, info, join);
                ix
            }
            None => self.admit(info),
        };
        if let Some(m) = self.member_mut(ix) {
            m.since = now;
        }
        if now < self.settle_until {
            // They come back together: when nobody has for a while, all are there.
            self.settle_until = self.settle_end.min(now + Micros(self.config.settle.0 / 4));
        }
        self.recount();
        self.refresh(ix);
        let runs = match (&join.runs, join.complete) {
            (_, true) => Some(Bits::full(self.layout.runs())),
            (Some(r), false) if r.len() == self.layout.runs() => Some(r.clone()),
            _ => None,
        };
        if let Some(runs) = runs {
            self.holds(now, ix, runs);
        }
        if join.complete {
            self.finished(ix);
        }
        self.adopt(now, ix, join);
        self.dirty(now, ix);
        self.look_for_parents(now, ix, "it joined");
        self.offer(now, ix);
        self.take_over(now, ix);
        self.lease_out(now);
    }

    /// A node leaves the swarm, or is gone for good.
    pub fn leave(&mut self, now: Time, node: &NodeId) {
        let Some(ix) = self.by_node.get(node).copied() else { return };
        let children = self.member(ix).map(|m| m.children.clone()).unwrap_or_default();
        self.cut_all(now, ix);
        self.set_wants(ix, false);
        if let Some(m) = self.member(ix) {
            let (held, counted) = (m.runs.clone(), m.counts());
            for run in self.leases.of(ix) {
                self.end_lease(now, ix, run, false);
            }
            if counted {
                for run in held.iter() {
                    self.leases.lost(run, now + self.config.lost_run_grace);
                }
            }
        }
        self.end_all_standing(now, ix);
        self.requeue(ix, false);
        self.index(ix, None);
        self.waypoints.remove(&ix);
        if let Some(m) = self.members.get_mut(ix as usize).and_then(Option::take) {
            self.up_total -= m.info.up.0;
            self.by_accepts.up(m.accepts(), m.info.up.0, 0);
            self.leave_site(ix, &m);
        }
        self.by_node.swap_remove(node);
        for set in [&mut self.hungry, &mut self.aways, &mut self.distrusted, &mut self.dirty] {
            set.remove(&ix);
        }
        self.free.push(ix);
        self.recount();
        self.rehome(now, children);
    }

    /// A node's session broke or fell silent. It may still deliver: it stays assigned for a while, but gets nothing new,
    /// and what only it holds is not relied on.
    pub fn away(&mut self, now: Time, node: &NodeId) {
        let Some(ix) = self.by_node.get(node).copied() else { return };
        let Some(m) = self.member_mut(ix).filter(|m| m.away_since.is_none()) else { return };
        let counted = m.counts();
        m.away_since = Some(now);
        let held = m.runs.clone();
        self.aways.insert(ix);
        for run in held.iter().filter(|_| counted) {
            self.leases.lost(run, now + self.config.lost_run_grace);
        }
        self.leases.doubt(ix, now + self.config.lost_run_grace.times(2));
        self.end_all_standing(now, ix);
        self.requeue(ix, false);
        self.refresh(ix);
        self.lease_out(now);
    }

    /// One content of a heartbeat. Returns the uplink that the node, by its own words, used for it.
    pub fn heartbeat(&mut self, now: Time, node: &NodeId, interval: u64, said: &ContentReport) -> Rate {
        let mut claimed = Rate(0);
        let Some(ix) = self.by_node.get(node).copied() else { return claimed };
        self.present(ix);
        if let Some(m) = self.member_mut(ix) {
            if said.pieces_held > m.pieces_held {
                // Something came; alarms come with a report, which alone does not end a row of them.
                m.starving = 0;
            }
            m.pieces_held = said.pieces_held;
        }
        if let Some(runs) = said.runs.as_ref().filter(|r| r.len() == self.layout.runs()) {
            self.holds(now, ix, runs.clone());
        }
        let t = self.thresholds();
        for e in &said.from {
            let Some(parent) = self.by_node.get(&e.node).copied() else { continue };
            let promised = self.promised(parent);
            if e.bytes > 0 {
                self.site_works(ix, parent);
            }
            let trouble = self.edge_mut(ix, parent).and_then(|w| w.child_says(interval, e, promised, &t));
            self.judge(now, ix, parent, trouble);
            self.judge_together(now, ix, parent);
            self.watch_idle(now, ix, parent, interval, e);
        }
        for e in &said.to {
            let Some(child) = self.by_node.get(&e.node).copied() else { continue };
            let Some(w) = self.edge_mut(child, ix) else { continue };
            claimed.0 = claimed.0.saturating_add(w.claimed(interval, e, &t).0);
            let trouble = w.parent_says(interval, e, &t);
            self.judge(now, child, ix, trouble);
        }
        if said.pieces_held == self.layout.pieces() && self.member(ix).is_some_and(|m| m.wants) {
            self.holds(now, ix, Bits::full(self.layout.runs()));
            self.finished(ix);
        }
        if said.pieces_held < self.layout.pieces() && self.member(ix).is_some_and(|m| !m.wants) {
            // Pieces rotted on its disk.
            self.wants_again(now, ix);
        }
        self.lease_out(now);
        claimed
    }

    /// The uplink that this content may use at `node` changed.
    pub fn set_rate(&mut self, node: &NodeId, up: Rate) {
        let Some(ix) = self.by_node.get(node).copied() else { return };
        let Some(m) = self.members.get_mut(ix as usize).and_then(Option::as_mut) else { return };
        let up = if m.forwards() { up } else { Rate(0) };
        let (was, accepts) = (std::mem::replace(&mut m.info.up, up), m.accepts());
        self.up_total = self.up_total - was.0 + up.0;
        self.by_accepts.up(accepts, was.0, up.0);
        self.recount();
        self.refresh(ix);
        if was != up && self.leases.waits(ix) {
            self.requeue(ix, true);
        }
    }

    /// A run arrived from the origin.
    pub fn lease_done(&mut self, now: Time, node: &NodeId, run: u32) {
        let Some(ix) = self.by_node.get(node).copied() else { return };
        // What a node that is not believed, or passes nothing on, fetched is nobody's.
        let counts = self.member(ix).is_some_and(Member::counts);
        let (stood, leased) = (self.end_standing(ix, run, true).is_some(), self.end_lease(now, ix, run, counts));
        if run >= self.layout.runs() || !(stood || leased) {
            return;
        }
        if self.member_mut(ix).is_some_and(|m| m.runs.set(run)) && counts {
            self.leases.gained(run);
        }
        self.lease_out(now);
    }

    /// A leased run could not be fetched; `forbidden` where the node's own access list forbids the source.
    pub fn lease_failed(&mut self, now: Time, node: &NodeId, run: u32, forbidden: bool) {
        let Some(ix) = self.by_node.get(node).copied() else { return };
        let from_origin = match self.end_standing(ix, run, false) {
            Some(Some(waypoint)) => {
                self.fail_pair(now, ix, waypoint);
                false
            }
            Some(None) => {
                self.postpone_origin(now, ix);
                true
            }
            None => {
                if self.member(ix).is_some_and(Member::limited) {
                    self.postpone_origin(now, ix);
                }
                self.end_lease(now, ix, run, false)
            }
        };
        // Words about runs that were not leased to it would keep them from others.
        if !from_origin {
            return self.lease_out(now);
        }
        if !forbidden {
            // The next one would fail as fast: the origin gets time to come right.
            self.leases.postpone(run, now + self.config.lost_run_grace);
        } else if let Some(m) = self.member_mut(ix) {
            m.info.may_use_origin = false;
            self.requeue(ix, false);
        }
        self.lease_out(now);
    }

    /// Assignments from now on carry this epoch.
    pub fn raise_epoch(&mut self, now: Time, epoch: u64) {
        self.generation = Generation { epoch, counter: 0 };
        self.renew(now);
    }

    /// Sends all assignments again.
    pub fn renew(&mut self, now: Time) {
        for ix in self.by_node.values().copied().collect::<Vec<_>>() {
            self.dirty(now, ix);
        }
    }

    /// When [`Dcm::tick`] should be called next.
    pub fn next_timeout(&self) -> Option<Time> {
        if self.by_node.is_empty() {
            return None;
        }
        [self.flush_at, Some(self.repair_at), self.leases.next_timeout()].into_iter().flatten().min()
    }

    /// Time passes.
    pub fn tick(&mut self, now: Time) {
        for (run, ix) in self.leases.overdue(now) {
            self.revoke(now, ix, run);
        }
        for (run, ix, other) in self.leases.crawling(now) {
            self.revoke(now, ix, run);
            self.give_lease(now, other, run);
        }
        self.leases.wake(now);
        if self.repair_at <= now {
            self.standing_overdue(now);
            let grace = self.config.grace;
            let aways = self.aways.iter().filter_map(|ix| self.member(*ix));
            let gone = aways.filter(|m| m.away_since.is_some_and(|t| now.since(t) > grace));
            let gone: Vec<NodeId> = gone.map(|m| m.info.node).collect();
            for node in gone {
                self.leave(now, &node);
            }
            self.failed.forget(now, &self.config);
            self.between.retain(|_, link| link.is_needed(now));
            self.lossy.retain(|_, until| *until > now);
            self.repair(now);
            self.repair_at = now + Micros::from_millis(500);
        }
        self.lease_out(now);
        if self.flush_at.is_some_and(|t| t <= now) {
            self.flush(now);
        }
    }

    /// Takes what is to be said.
    pub fn drain(&mut self, into: &mut Vec<DcmOutput>) {
        into.append(&mut self.out);
    }

    // ---- members and counts ----

    fn member(&self, ix: Ix) -> Option<&Member> {
        self.members.get(ix as usize)?.as_ref()
    }
    fn member_mut(&mut self, ix: Ix) -> Option<&mut Member> {
        self.members.get_mut(ix as usize)?.as_mut()
    }
    fn edge_mut(&mut self, child: Ix, parent: Ix) -> Option<&mut EdgeWatch> {
        self.member_mut(child)?.parents.iter_mut().find(|e| e.parent == parent).map(|e| &mut e.watch)
    }
    fn thresholds(&self) -> Thresholds {
        Thresholds {
            interval: self.config.heartbeat,
            silent: self.config.silent_intervals,
            slow: self.config.slow_intervals,
            slow_percent: self.config.slow_percent,
            piece_bytes: self.layout.piece_bytes(),
        }
    }

    /// Puts a member where its spare uplink says.
    fn refresh(&mut self, ix: Ix) {
        let spare = self.spare_of(ix);
        let fit = self.member(ix).is_some_and(|m| m.away_since.is_none()) && spare.0 > 0;
        self.index(ix, fit.then(|| spare.bucket()));
    }
    fn index(&mut self, ix: Ix, bucket: Option<u32>) {
        if let Some(m) = self.members.get_mut(ix as usize).and_then(Option::as_mut) {
            self.spare.put(ix, m, bucket);
        }
    }

    fn requeue(&mut self, ix: Ix, may: bool) {
        if let Some(m) = self.members.get(ix as usize).and_then(Option::as_ref) {
            // Who has limited sources has standing leases instead.
            let may = may && m.wants && m.counts() && m.info.may_use_origin && !m.limited();
            self.leases.enqueue(ix, m, may);
        }
    }

    fn revoke(&mut self, now: Time, ix: Ix, run: u32) {
        self.end_lease(now, ix, run, false);
        if let Some(node) = self.node_of(ix) {
            self.out.push(DcmOutput::Revoke(node, run));
        }
    }

    fn end_lease(&mut self, now: Time, ix: Ix, run: u32, done: bool) -> bool {
        let Some(m) = self.members.get_mut(ix as usize).and_then(Option::as_mut) else { return false };
        let limited = m.limited();
        let ended = self.leases.end(now, ix, m, run, done);
        if ended {
            self.requeue(ix, true);
        }
        if ended && limited {
            self.standing_leases.due(ix);
        }
        ended
    }
}

/// The class that a node of this role is as a source.
pub fn class_of(role: Role) -> SourceClass {
    match role {
        Role::Peer => SourceClass::Peer,
        Role::Waypoint => SourceClass::Waypoint,
    }
}
