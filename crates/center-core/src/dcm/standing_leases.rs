//! Standing leases: a member that may use the origin and operator nodes only (requirement A2, `sources` listed; or UDP
//! does not reach it) always has some runs under way from these, as nobody else will ever bring it any. Beside the
//! leases that bring in first copies.

use super::member::{Ix, Member};
use super::{Dcm, DcmOutput};
use headwater_model::assignment::{Lease, LeaseSource};
use headwater_model::id::NodeId;
use headwater_model::node::{Accepts, From, SourceClass};
use headwater_model::rng::mix64;
use headwater_model::time::{Micros, Time};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
#[path = "standing_leases_tests.rs"]
mod tests;

/// Runs under way at once for a member without any other source: one is always on its way while another ends.
const STANDING_LEASES: u32 = 4;
/// How long a lease may take; who fetches finds a dead source sooner, by its silence.
const WITHIN: Micros = Micros::from_secs(60);
/// First pause after the origin failed a member; twice as long each time.
const FIRST_PAUSE: Micros = Micros::from_secs(2);
const LONGEST_PAUSE: Micros = Micros::from_secs(60);
/// Waypoints looked at in one decision.
const MAX_WAYPOINTS: usize = 64;
/// Children that a waypoint lets go of at once.
const MAX_MOVED: usize = 2;

#[derive(Clone, Copy, Debug)]
struct Active {
    /// The waypoint; `None` for the origin.
    from: Option<Ix>,
    deadline: Time,
}

/// All standing leases of one content.
#[derive(Clone, Debug, Default)]
pub(super) struct StandingLeases {
    /// By child and run.
    active: BTreeMap<(Ix, u32), Active>,
    /// Members that may lack some.
    due: BTreeSet<Ix>,
}

impl StandingLeases {
    /// Runs of `ix` under way.
    pub(super) fn of(&self, ix: Ix) -> Vec<u32> {
        self.active.range((ix, 0)..=(ix, u32::MAX)).map(|((_, run), _)| *run).collect()
    }
    pub(super) fn has(&self, ix: Ix, run: u32) -> bool {
        self.active.contains_key(&(ix, run))
    }
    /// A member is looked at when leases are given next.
    pub(super) fn due(&mut self, ix: Ix) {
        self.due.insert(ix);
    }
}

impl Dcm {
    /// Gives the members that are due as many leases as they should have.
    pub(super) fn stand(&mut self, now: Time) {
        for ix in std::mem::take(&mut self.standing_leases.due) {
            while self.stand_one(now, ix) {}
        }
    }

    /// One more lease for a member, if it should have one and there is a source.
    fn stand_one(&mut self, now: Time, ix: Ix) -> bool {
        let due = |m: &&Member| m.wants && m.away_since.is_none() && (m.limited() || self.is_short_of_parents(m));
        let Some(m) = self.member(ix).filter(due) else {
            return false;
        };
        if m.standing_leases + m.leases >= self.standing_wanted(m) {
            return false;
        }
        // First copies leave the origin first, fetched by members that pass them on; from waypoints they come to the others.
        let waits = !m.counts() && self.leases.unheld() > 0 && self.serves_https();
        let origin = m.info.may_use_origin && m.origin_again.0 <= now && !waits;
        // Where it cannot use the origin a busy waypoint must do.
        if !m.udp()
            && let Some((run, waypoint)) = self.run_at_waypoint(now, ix, m, !origin)
        {
            self.give_standing(now, ix, run, Some(waypoint));
            return true;
        }
        if !origin {
            return false;
        }
        // Who passes it on brings in what nobody holds: an ordinary lease, so that it counts as the first copy.
        let first_copy = self.leases.next_unheld(now).filter(|_| m.counts() && (m.limited() || self.leases.has_slot()));
        if let Some(run) = first_copy {
            self.give_lease(now, ix, run);
            return true;
        }
        let Some(run) = self.run_at_origin(ix, m) else { return false };
        self.give_standing(now, ix, run, None);
        true
    }

    /// Whether a waypoint of the swarm serves by HTTPS.
    fn serves_https(&self) -> bool {
        let mut waypoints = self.waypoints.iter().filter_map(|w| self.member(*w));
        waypoints.any(|w| w.counts() && w.info.https.is_some())
    }

    /// Whether `m` can use open parents only while these have less than half of the uplink that all such members should
    /// get (requirement R5: who cannot be fed by peers is fed by the origin), and everything has left the origin once.
    fn is_short_of_parents(&self, m: &Member) -> bool {
        let found = m.info.capabilities.accepts.from == From::Test;
        let alone = m.udp() && m.dial_only() && found && !self.shares_site(m);
        alone && self.open_uplink_is_scarce() && self.leases.unheld() == 0
    }

    fn open_uplink_is_scarce(&self) -> bool {
        let wanted = u64::from(self.by_accepts.wanting_of(Accepts::DialOnly)) * u64::from(self.target);
        2 * self.by_accepts.up_of(Accepts::Open) / self.slot_rate.max(1) < wanted
    }

    /// Leases that a member should have: all where there are no parents, else for what its parents (waypoints) do not
    /// promise of what every member gets.
    fn standing_wanted(&self, m: &Member) -> u32 {
        let fair = (self.slot_rate * u64::from(self.target)).max(1);
        let promised: u64 = m.parents.iter().map(|e| self.promised(e.parent).0).sum();
        let lacking = fair.saturating_sub(promised);
        (u64::from(STANDING_LEASES) * lacking).div_ceil(fair) as u32
    }

    /// Child slots that a lease from a waypoint stands for: all of a member's leases together stand for a child's share.
    pub(super) fn slots_per_lease(&self) -> u32 {
        (self.target / STANDING_LEASES).max(1)
    }

    /// Runs that `m` lacks and does not fetch, from an arbitrary one on, so that members fetch different ones.
    fn lacking<'a>(&'a self, ix: Ix, m: &'a Member) -> impl Iterator<Item = u32> + 'a {
        let runs = self.layout.runs();
        let first = (mix64(m.info.node.prefix64()) % u64::from(runs.max(1))) as u32;
        (first..runs).chain(0..first).filter(move |run| {
            let leased = self.leases.active().get(run).is_some_and(|a| a.to == ix);
            !m.runs.get(*run) && !leased && !self.standing_leases.has(ix, *run)
        })
    }

    /// A run and the nearest waypoint with uplink to spare (`busy`: with or without) that holds it.
    fn run_at_waypoint(&self, now: Time, ix: Ix, m: &Member, busy: bool) -> Option<(u32, Ix)> {
        let fits = |w: &Member| {
            w.counts()
                && w.info.https.is_some()
                && w.https_leases < self.most_children(w)
                && !self.pair_failed(now, m, w)
        };
        let mut found: Vec<_> = self
            .waypoints
            .iter()
            .take(MAX_WAYPOINTS)
            .filter_map(|w| self.member(*w).filter(|o| *w != ix && fits(o)).map(|o| (*w, o, self.spare_of(*w))))
            .filter(|(_, _, spare)| busy || spare.0 > 0)
            .collect();
        found.sort_by_key(|(w, o, spare)| (o.tier_to(m), Reverse(spare.bucket()), o.https_leases, *w));
        found.iter().find_map(|(w, o, _)| self.lacking(ix, m).find(|run| o.runs.get(*run)).map(|run| (run, *w)))
    }

    /// A run for a member that reads from the origin: rather one that no waypoint holds; if it is one that passes on
    /// what it has, only such as others hold (first copies are leased in another way).
    fn run_at_origin(&self, ix: Ix, m: &Member) -> Option<u32> {
        let may =
            |run: &u32| !m.counts() || (self.leases.replicas(*run) > 0 && !self.leases.active().contains_key(run));
        let at_waypoint = |run: &u32| {
            self.waypoints.iter().take(MAX_WAYPOINTS).any(|w| self.member(*w).is_some_and(|w| w.runs.get(*run)))
        };
        let rather = self.lacking(ix, m).find(|run| may(run) && !at_waypoint(run));
        rather.or_else(|| self.lacking(ix, m).find(may))
    }

    fn give_standing(&mut self, now: Time, ix: Ix, run: u32, from: Option<Ix>) {
        let source = match from.map(|w| self.member(w)) {
            None => LeaseSource::Origin,
            Some(Some(Member { info, .. })) => match info.https.clone() {
                Some(reach) => LeaseSource::Waypoint { node: info.node, reach },
                None => return,
            },
            Some(None) => return,
        };
        let Some(m) = self.member_mut(ix) else { return };
        m.standing_leases += 1;
        let node = m.info.node;
        self.standing_leases.active.insert((ix, run), Active { from, deadline: now + WITHIN });
        self.https_leases_of(from, |n| n + 1);
        self.out.push(DcmOutput::Lease(node, Lease { version: self.version, run, within: WITHIN, source }));
    }

    fn https_leases_of(&mut self, waypoint: Option<Ix>, change: impl Fn(u32) -> u32) {
        if let Some(ix) = waypoint
            && let Some(w) = self.member_mut(ix)
        {
            w.https_leases = change(w.https_leases);
            self.refresh(ix);
        }
    }

    /// Ends a standing lease, if there is one: its waypoint, or `None` for the origin.
    pub(super) fn end_standing(&mut self, ix: Ix, run: u32, done: bool) -> Option<Option<Ix>> {
        let ended = self.standing_leases.active.remove(&(ix, run))?;
        if let Some(m) = self.member_mut(ix) {
            m.standing_leases -= 1;
            if done && ended.from.is_none() {
                m.origin_again = (Time(0), 0);
            }
        }
        self.https_leases_of(ended.from, |n| n - 1);
        self.standing_leases.due(ix);
        Some(ended.from)
    }

    /// A member is gone: it needs no leases, and others get none from it.
    pub(super) fn end_all_standing(&mut self, now: Time, ix: Ix) {
        let mut ended: Vec<(Ix, u32)> = self.standing_leases.of(ix).into_iter().map(|run| (ix, run)).collect();
        // Only waypoints serve by HTTPS, of which there are few.
        if self.member(ix).is_some_and(|m| m.https_leases > 0) {
            let active = self.standing_leases.active.iter();
            ended.extend(active.filter(|((to, _), a)| *to != ix && a.from == Some(ix)).map(|(key, _)| *key));
        }
        for (to, run) in ended {
            self.end_standing(to, run, false);
            if to != ix
                && let Some(node) = self.node_of(to)
            {
                self.fail_pair(now, to, ix);
                self.out.push(DcmOutput::Revoke(node, run));
            }
        }
    }

    /// The origin failed a member.
    pub(super) fn postpone_origin(&mut self, now: Time, ix: Ix) {
        // What failed at the same time counts once.
        if let Some(m) = self.member_mut(ix).filter(|m| m.origin_again.0 <= now) {
            let failures = m.origin_again.1;
            let pause = FIRST_PAUSE.times(1 << failures.min(8)).min(LONGEST_PAUSE);
            m.origin_again = (now + pause, failures + 1);
        }
    }

    /// Leases past their time are revoked, and all members with limited sources are looked at again.
    pub(super) fn standing_overdue(&mut self, now: Time) {
        let over: Vec<(Ix, u32)> =
            self.standing_leases.active.iter().filter(|(_, a)| a.deadline <= now).map(|(key, _)| *key).collect();
        for (ix, run) in over {
            self.end_standing(ix, run, false);
            if let Some(node) = self.node_of(ix) {
                self.out.push(DcmOutput::Revoke(node, run));
            }
        }
        let limited = self.limited.iter().copied();
        self.standing_leases.due.extend(limited);
        if self.open_uplink_is_scarce() && self.leases.unheld() == 0 {
            let members = self.members.iter().enumerate();
            let short = members.filter(|(_, m)| m.as_ref().is_some_and(|m| m.wants && m.dial_only()));
            self.standing_leases.due.extend(short.map(|(ix, _)| ix as Ix));
        }
    }

    /// Children with other sources that `waypoint` may have while members with limited sources fetch: what these leave
    /// of its slots, each having the share of a child.
    fn unlimited_children(&self, waypoint: &Member) -> u32 {
        let kept = (self.limited.len() as u32 * self.target).div_ceil(self.waypoints.len().max(1) as u32);
        self.slots_of(waypoint).saturating_sub(kept)
    }

    fn has_other_sources(&self, child: &Ix) -> bool {
        self.member(*child).is_some_and(|c| !c.limited())
    }

    /// Whether the uplink of `parent`, a waypoint, is kept for members with limited sources.
    pub(super) fn is_kept_for_limited(&self, parent: &Member, child: &Member) -> bool {
        if self.limited.is_empty() || parent.class() != SourceClass::Waypoint || child.limited() {
            return false;
        }
        let others = parent.children.iter().filter(|c| self.has_other_sources(c)).count() as u32;
        others >= self.unlimited_children(parent)
    }

    /// Waypoints let go of children that have other parents, for members with limited sources.
    pub(super) fn make_room_for_limited(&mut self, now: Time) {
        if self.limited.is_empty() {
            return;
        }
        for w in self.waypoints.iter().copied().take(MAX_WAYPOINTS).collect::<Vec<_>>() {
            let Some(waypoint) = self.member(w) else { continue };
            let others: Vec<Ix> = waypoint.children.iter().copied().filter(|c| self.has_other_sources(c)).collect();
            let over = others.len().saturating_sub(self.unlimited_children(waypoint) as usize);
            let movable = others.into_iter().filter(|c| self.member(*c).is_some_and(|c| c.parents.len() > 1));
            for child in movable.take(over.min(MAX_MOVED)).collect::<Vec<_>>() {
                self.unlink(w, child);
                self.dirty(now, child);
                self.look_for_parents(now, child, "peers with limited sources need its parent");
            }
        }
    }

    /// Standing leases under way: (child, run, waypoint or `None` for the origin).
    pub fn standing_leases(&self) -> impl Iterator<Item = (NodeId, u32, Option<NodeId>)> + '_ {
        self.standing_leases
            .active
            .iter()
            .filter_map(|((ix, run), a)| Some((self.node_of(*ix)?, *run, a.from.and_then(|w| self.node_of(w)))))
    }

    /// Violated invariants.
    pub(super) fn check_standing(&self, say: &mut impl FnMut(String)) {
        for (ix, m) in self.members.iter().enumerate() {
            let (ix, Some(m)) = (ix as Ix, m) else { continue };
            if self.standing_leases.of(ix).len() as u32 != m.standing_leases {
                say(format!("{:?} counts {} standing leases", m.info.node, m.standing_leases));
            }
            let from = self.standing_leases.active.values().filter(|a| a.from == Some(ix)).count() as u32;
            if from != m.https_leases {
                say(format!("{:?} counts {} leases from it, there are {from}", m.info.node, m.https_leases));
            }
            if self.limited.contains(&ix) != (m.wants && m.limited()) {
                say(format!("{:?}: that it lacks pieces and has limited sources is listed wrongly", m.info.node));
            }
            if self.waypoints.contains(&ix) != (m.class() == SourceClass::Waypoint) {
                say(format!("{:?}: whether it is a waypoint is listed wrongly", m.info.node));
            }
        }
        for (ix, run) in self.standing_leases.active.keys() {
            if self.member(*ix).is_none() {
                say(format!("run {run} stands leased to nobody"));
            }
        }
    }
}
