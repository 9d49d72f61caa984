//! Reassignment (R1–R3, R6): alarms, trouble on edges, children with too few parents, and leases for the starving.

use super::leases::Leases;
use super::member::{Ix, Member};
use super::sites::ENTRY_STALLED_ALARMS;
use super::{Dcm, DcmOutput, MAX_DECISIONS};
use crate::network_monitor::Trouble;
use crate::trust::Offence;
use headwater_model::assignment::{Lease, LeaseSource};
use headwater_model::id::NodeId;
use headwater_model::node::Accepts;
use headwater_model::report::{Alarm, MAX_READING_RUNS, MAX_STARVING_RUNS};
use headwater_model::rng::mix64;
use headwater_model::time::{Micros, Time};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;

/// Members looked at for a holder of what a starving child lacks.
pub(super) const MAX_SAMPLED: usize = 64;
/// Leases for one alarm of a child that has parents.
const MAX_STARVING_LEASES: usize = 4;
/// Parents beyond the target that a member may get for what its readers need next.
const READERS_PARENTS: u32 = 2;
/// A child that found too few parents is not looked at again before, as long as it has some.
const TRIED_AGAIN: Micros = Micros::from_millis(900);
/// Alarms in a row after which a child gets a parent from far although its region has its share of those.
const SOLE_ALARMS: u32 = 2;
/// Alarms in a row after which the origin helps a child although others hold what it lacks.
const STARVING_ALARMS: u32 = 3;

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;

impl Dcm {
    /// A child raises the alarm. False when it is not heard: it is no member, or raises too many.
    pub fn alarm(&mut self, now: Time, node: &NodeId, alarm: &Alarm) -> bool {
        let Some(ix) = self.by_node.get(node).copied() else { return false };
        if !self.member_mut(ix).is_some_and(|m| m.alarms.may_alarm(now)) {
            return false;
        }
        match alarm {
            Alarm::ParentLost { parent, .. } => {
                if let Some(p) =
                    self.by_node.get(parent).copied().filter(|p| self.member(ix).is_some_and(|m| m.has_parent(*p)))
                {
                    self.site_failed(ix, p);
                }
                self.gone_bad(now, ix, parent, None);
            }
            Alarm::Silent { parent } => self.gone_bad(now, ix, parent, Some(Offence::Silent)),
            // Of a live stream, which a swarm is not.
            Alarm::Behind { .. } => {}
            Alarm::Slow { parent } => self.gone_bad(now, ix, parent, Some(Offence::Slow)),
            Alarm::BadPieces { parent } => self.gone_bad(now, ix, parent, Some(Offence::BadPieces)),
            Alarm::Attacked { from } => self.attacked(now, ix, *from),
            Alarm::Reading { runs } => self.read(now, ix, runs),
            Alarm::Starving { runs } => {
                self.doubt_holders(now, ix, runs);
                self.feed(now, ix, runs);
            }
        }
        self.lease_out(now);
        true
    }

    /// A child is done with a parent. Its word counts against the parent only where that was assigned to it.
    fn gone_bad(&mut self, now: Time, ix: Ix, parent: &NodeId, offence: Option<Offence>) {
        let Some(p) = self.by_node.get(parent).copied() else { return };
        let Some(m) = self.member(ix) else { return };
        let (assigned, spare) = (m.has_parent(p), m.spares.contains(parent));
        let before = m.parted_from(parent);
        if !assigned && !spare && offence.is_some() && self.member_mut(ix).is_some_and(|m| m.is_slander(now)) {
            self.out.extend(self.node_of(ix).map(|node| DcmOutput::Guilty(node, Offence::Slander)));
        }
        // A child may leave a parent for better ones; what accuses it is a trickle.
        let accuses = |o: &Offence| (assigned || spare) && (*o != Offence::Slow || self.trickles(ix, p));
        if let Some(offence) = offence.filter(accuses) {
            self.accuse(ix, p, offence);
        }
        // Between the two of them the child's word is enough.
        if offence == Some(Offence::BadPieces) {
            self.spoil_pair(now, ix, p);
        }
        if assigned || spare {
            self.part(now, ix, p, offence);
        } else if let Some(served) = before.filter(|_| offence.is_some()) {
            // The two were parted for another reason while this was on its way.
            self.rest(now, ix, p, offence, Some(served));
        }
        if assigned {
            self.look_for_parents(now, ix, "it lost a parent");
        }
    }

    /// Connections from an address broke the rules: whoever is there, under whatever name, has nothing to do with the member
    /// any more. Others are not affected: an address may be shared.
    fn attacked(&mut self, now: Time, ix: Ix, from: IpAddr) {
        if !self.member_mut(ix).is_some_and(|m| m.shun(from.to_canonical())) {
            return;
        }
        let Some(m) = self.member(ix) else { return };
        let is_there = |other: &Ix| self.member(*other).is_some_and(|o| m.shuns(o));
        let parents: Vec<Ix> = m.parents.iter().map(|e| e.parent).filter(is_there).collect();
        let children: Vec<Ix> = m.children.iter().copied().filter(is_there).collect();
        let spares: Vec<NodeId> =
            m.spares.iter().copied().filter(|s| self.by_node.get(s).is_some_and(is_there)).collect();
        let node = m.info.node;
        if let Some(m) = self.member_mut(ix).filter(|_| !spares.is_empty()) {
            m.spares.retain(|s| !spares.contains(s));
        }
        for other in &parents {
            self.unlink(*other, ix);
            self.out.extend(self.node_of(*other).map(|p| DcmOutput::Trouble(p, node, Trouble::Attack)));
        }
        for other in children {
            self.unlink(ix, other);
            self.out.extend(self.node_of(other).map(|c| DcmOutput::Trouble(c, node, Trouble::Attack)));
            self.look_for_parents(now, other, "it was left by a parent");
        }
        self.out.extend(spares.into_iter().map(|s| DcmOutput::Trouble(s, node, Trouble::Attack)));
        self.dirty(now, ix);
        self.look_for_parents(now, ix, occasion(Trouble::Attack));
    }

    /// A dial that an assignment asked for failed, as one end says (S3).
    pub fn dial_failed(&mut self, now: Time, node: &NodeId, other: &NodeId) {
        let (Some(a), Some(b)) = (self.by_node.get(node).copied(), self.by_node.get(other).copied()) else { return };
        // Both ends dial; the child's word counts, the other end's only where it alone could dial.
        for (child, parent) in [(a, b), (b, a)] {
            let (Some(c), Some(p)) = (self.member(child), self.member(parent)) else { continue };
            let (c, p) = (c.reachability(), p.reachability());
            let only_one_dials = !(c.dials(&p) && p.dials(&c));
            if self.member(child).is_some_and(|m| m.has_parent(parent)) && (child == a || only_one_dials) {
                self.fail_pair(now, a, b);
                self.site_failed(a, b);
                self.unlink(parent, child);
                self.dirty(now, child);
                self.look_for_parents(now, child, "a connection failed");
            }
        }
    }

    /// A heartbeat shows trouble on an edge.
    pub(super) fn judge(&mut self, now: Time, child: Ix, parent: Ix, trouble: Option<Trouble>) {
        let Some(trouble) = trouble else { return };
        if trouble == Trouble::Congested && self.edge_mut(child, parent).is_some_and(|w| w.is_overstated()) {
            self.accuse(child, parent, Offence::Sent);
        }
        if trouble == Trouble::Congested && !self.link_is_to_blame(child, parent) {
            return;
        }
        // Where others bring no more the child's own line may be slow, or the promise was too high; where they do the child
        // asks more of them anyway.
        if trouble == Trouble::Slow && !self.trickles(child, parent) {
            return;
        }
        if let (Some(p), Some(c)) = (self.node_of(parent), self.node_of(child)) {
            self.out.push(DcmOutput::Trouble(p, c, trouble));
        }
        if trouble == Trouble::Congested && !self.part_for_congestion(now, child, parent) {
            return;
        }
        let offence = match trouble {
            Trouble::Silent if self.trickles(child, parent) => Some(Offence::Silent),
            Trouble::Slow => Some(Offence::Slow),
            Trouble::Silent | Trouble::Congested | Trouble::Empty | Trouble::Attack => None,
        };
        if let Some(offence) = offence {
            self.accuse(child, parent, offence);
        }
        self.part(now, child, parent, offence);
        self.look_for_parents(now, child, occasion(trouble));
    }

    /// Finds and assigns as many parents as the child lacks.
    pub(super) fn look_for_parents(&mut self, now: Time, ix: Ix, occasion: &'static str) {
        let Some(m) = self.member(ix) else { return };
        if !m.wants || m.away_since.is_some() {
            return;
        }
        let want = self.target.saturating_sub(m.parents.len() as u32);
        if want == 0 {
            self.hungry.remove(&ix);
            return;
        }
        if let Some(entry) = self.busy_entry_for(now, ix) {
            self.link(now, entry, ix);
        }
        let want = self.target.saturating_sub(self.member(ix).map_or(0, |m| m.parents.len() as u32));
        let Some(choice) = self.choose(now, ix, want, occasion) else { return };
        let found = choice.parents.len() as u32;
        if let Some(m) = self.member_mut(ix) {
            m.tried = now;
            // A look that found nobody does not hide the one that explains the present parents.
            if found > 0 || m.parents.is_empty() || m.decision.is_none() {
                m.decision = Some(Box::new(choice.decision));
            }
        }
        let spares: Vec<NodeId> = choice.spares.iter().filter_map(|s| self.node_of(*s)).collect();
        if let Some(m) = self.member_mut(ix).filter(|_| !spares.is_empty()) {
            m.spares = spares;
        }
        for p in choice.parents {
            self.link(now, p, ix);
        }
        let may_oust = |m: &Member| m.udp() && m.dial_only() && !self.site_served(ix, m, false);
        if found < want && self.member(ix).is_some_and(may_oust) {
            let left = self.take_open_slots(now, ix, want - found);
            self.relieve_parents(now, ix, left);
        }
    }

    /// A dial-only child that found too few parents takes the place of open children at open parents, and becomes
    /// their parent instead (only open children can use a dial-only parent).
    /// Returns how many it lacks still.
    fn take_open_slots(&mut self, now: Time, ix: Ix, want: u32) -> u32 {
        let seed = self.member(ix).map_or(0, |m| m.info.node.prefix64()) ^ now.0;
        let mut left = want;
        for try_ in 0..MAX_SAMPLED as u64 {
            if left == 0 {
                break;
            }
            let p = (mix64(seed.wrapping_add(try_)) % self.members.len().max(1) as u64) as Ix;
            let (Some(child), Some(parent)) = (self.member(ix), self.member(p)) else { continue };
            let fits =
                p != ix && !child.has_parent(p) && parent.accepts() == Accepts::Open && self.could_serve(child, parent);
            if !fits || self.pair_failed(now, child, parent) {
                continue;
            }
            let open_child = parent
                .children
                .iter()
                .copied()
                .find(|c| self.member(*c).is_some_and(|m| !m.dial_only() && self.can_spare(m, p)));
            let Some(moved) = open_child else { continue };
            self.unlink(p, moved);
            self.dirty(now, moved);
            self.link(now, p, ix);
            let spare = self.spare_of(ix).0 > 0;
            if spare && self.member(moved).is_some_and(|m| m.wants && !m.has_parent(ix)) && self.pair_ok(now, ix, moved)
            {
                self.link(now, ix, moved);
            }
            left -= 1;
        }
        left
    }

    /// A dial-only child with too few parents, all of them busy, gets more of those that it has: they let go of open
    /// children that have more open parents than there is open uplink for.
    fn relieve_parents(&mut self, now: Time, ix: Ix, want: u32) {
        let parents: Vec<Ix> =
            self.member(ix).map(|m| m.parents.iter().map(|e| e.parent).collect()).unwrap_or_default();
        for p in parents.into_iter().take(want as usize) {
            let over = |c: &Ix| {
                let child = self.member(*c).filter(|c| !c.dial_only() && self.can_spare(c, p));
                child.is_some_and(|c| {
                    self.open_parents_each(c.accepts()).is_some_and(|each| self.open_parents_of(c) > each)
                })
            };
            if let Some(c) = self.member(p).and_then(|m| m.children.iter().copied().find(over)) {
                self.unlink(p, c);
                self.dirty(now, c);
                self.look_for_parents(now, c, "dial-only peers need its parent");
            }
        }
    }

    /// Whether a child may lose an open parent to one that can be reached by few. Punchable ones keep the last one: else a
    /// few of them have only one another, and none has what the others lack.
    fn can_spare(&self, child: &Member, parent: Ix) -> bool {
        let sole = child.parents.iter().any(|e| e.parent == parent && e.sole);
        let others = child.parents.len() > 1;
        !sole && others && (child.accepts() == Accepts::Open || self.keeps_open(child, parent))
    }

    /// Whether a child that loses a parent still has an open one.
    fn keeps_open(&self, child: &Member, parent: Ix) -> bool {
        let mut others = child.parents.iter().map(|e| e.parent).filter(|p| *p != parent);
        others.any(|p| self.member(p).is_some_and(|p| p.accepts() == Accepts::Open))
    }

    pub(super) fn pair_ok(&self, now: Time, parent: Ix, child: Ix) -> bool {
        let (Some(p), Some(c)) = (self.member(parent), self.member(child)) else { return false };
        self.could_serve(c, p) && !self.pair_failed(now, p, c)
    }

    /// Child selection, the dual (S6): a newcomer's uplink goes to children that lack parents.
    pub(super) fn offer(&mut self, now: Time, ix: Ix) {
        let after = self.hungry.range((Bound::Excluded(self.offered), Bound::Unbounded));
        let in_turn = after.chain(self.hungry.range(..=self.offered)).take(MAX_SAMPLED).copied();
        let may_feed = |child: &Ix| {
            *child != ix && self.member(*child).is_some_and(|c| !c.has_parent(ix)) && self.pair_ok(now, ix, *child)
        };
        let slots = self.spare_of(ix).0 / self.slot_rate.max(1);
        let hungry: Vec<Ix> = in_turn.filter(may_feed).take(slots as usize).collect();
        self.offered = hungry.last().copied().unwrap_or(Ix::MAX);
        for child in hungry {
            if self.spare_of(ix).0 > 0 {
                self.look_for_parents(now, child, "a node with uplink to spare joined");
            }
        }
    }

    /// A newcomer takes its share of children from random others, whose uplink is then free for those who come next
    /// (S6, R4). Without this, nodes that arrive together would serve only each other, and what one group of them has
    /// would reach the next one late.
    pub(super) fn take_over(&mut self, now: Time, ix: Ix) {
        let Some(m) = self.member(ix) else { return };
        let mut left = self.fair_children(m).saturating_sub(m.children.len() as u32);
        let seed = m.info.node.prefix64() ^ now.0;
        for try_ in 0..MAX_SAMPLED as u64 {
            if left == 0 {
                return;
            }
            let luck = mix64(seed.wrapping_add(try_));
            let c = (luck % self.members.len().max(1) as u64) as Ix;
            let (Some(parent), Some(child)) = (self.member(ix), self.member(c)) else { continue };
            if c == ix || !child.wants || child.parents.is_empty() || child.has_parent(ix) {
                continue;
            }
            let p = child.parents[(luck >> 32) as usize % child.parents.len()].parent;
            let better = self.member(p).is_some_and(|old| {
                // Fewer senders can feed children that can be reached by few: one does not take what another can do.
                let wasteful = parent.accepts() < old.accepts();
                !wasteful && parent.class() <= old.class() && parent.tier_to(child) <= old.tier_to(child)
            });
            if better && p != ix && self.pair_ok(now, ix, c) {
                self.unlink(p, c);
                self.link(now, ix, c);
                left -= 1;
            }
        }
    }

    /// Parents for children that lack some, as many as are looked at in one call, each in its turn.
    pub(super) fn repair(&mut self, now: Time) {
        self.make_room_for_limited(now);
        self.bring_near(now);
        let after = self.hungry.range((Bound::Excluded(self.repaired), Bound::Unbounded));
        let hungry: Vec<Ix> = after.chain(self.hungry.range(..=self.repaired)).take(MAX_DECISIONS).copied().collect();
        // Where all are looked at, those first that have waited longest.
        self.repaired = hungry.last().copied().filter(|_| hungry.len() == MAX_DECISIONS).unwrap_or(Ix::MAX);
        self.rehome(now, hungry);
    }

    /// Other parents for some that lack some, unless they were just looked at.
    pub(super) fn rehome(&mut self, now: Time, children: Vec<Ix>) {
        for ix in children {
            let due = |m: &Member| m.parents.is_empty() || now.since(m.tried) > TRIED_AGAIN;
            if self.hungry.contains(&ix) && self.member(ix).is_some_and(due) {
                self.look_for_parents(now, ix, "it had fewer parents than it should");
            }
        }
    }

    /// Regions that came to have more links from outside than they should (while nobody near was known to be reachable)
    /// give the surplus up, one link at a time of children that have other parents, which look for near ones instead.
    fn bring_near(&mut self, now: Time) {
        for (child, parent) in self.surplus_far() {
            self.unlink(parent, child);
            self.look_for_parents(now, child, "its region had more links from outside than it needs");
        }
    }

    /// Links from outside that regions have beyond what they should: parents by child, one of each child.
    fn surplus_far(&self) -> BTreeMap<Ix, Ix> {
        let surplus = self.far_links.iter().filter_map(|(region, n)| {
            Some((*region, n.all.checked_sub(self.far_links_most(*region)).filter(|n| *n > 0)?))
        });
        let mut cut = BTreeMap::new();
        for (region, surplus) in surplus {
            let children = || self.far_children.range((region, 0)..=(region, Ix::MAX)).map(|(_, child)| *child);
            let replaceable = |keeps_open: bool| {
                children().filter_map(move |child| Some((child, self.replaceable_far(child, keeps_open)?)))
            };
            let before = cut.len();
            // First of those that keep a parent which can have any.
            for (child, parent) in replaceable(true).chain(replaceable(false)) {
                if cut.len() - before >= surplus as usize {
                    break;
                }
                cut.entry(child).or_insert(parent);
            }
        }
        cut
    }

    /// A parent from far that a child with others can do without; one beside which it keeps an open one.
    fn replaceable_far(&self, child: Ix, keeps_open: bool) -> Option<Ix> {
        let c = self.member(child).filter(|c| c.parents.len() > 1)?;
        let mut far = c.parents.iter().filter(|e| !e.sole).map(|e| e.parent);
        far.find(|p| self.member(*p).is_some_and(|m| self.is_far(m, c)) && (!keeps_open || self.keeps_open(c, *p)))
    }

    /// Leases to whoever is next, as long as the origin has slots and there are runs that nobody holds.
    pub(super) fn lease_out(&mut self, now: Time) {
        if now < self.settle_until {
            return;
        }
        // Those with limited sources first: what they bring in they would have to fetch in any case.
        self.stand(now);
        while let Some((ix, run)) = self.leases.next(now) {
            if self.member(ix).is_some_and(|m| self.leases.is_stale(ix, m)) {
                self.requeue(ix, true);
            } else {
                self.give_lease(now, ix, run);
            }
        }
    }

    pub(super) fn give_lease(&mut self, now: Time, ix: Ix, run: u32) {
        let Some(m) = self.members.get_mut(ix as usize).and_then(Option::as_mut) else { return };
        let (node, within) = (m.info.node, self.leases.give(now, ix, m, run));
        self.requeue(ix, true);
        self.out
            .push(DcmOutput::Lease(node, Lease { version: self.version, run, within, source: LeaseSource::Origin }));
    }

    /// A child's parents lack what it lacks: another parent that holds it, else the origin (which is the last resort).
    fn feed(&mut self, now: Time, ix: Ix, runs: &[u32]) {
        let Some(m) = self.member_mut(ix).filter(|m| m.wants) else { return };
        if !m.udp() {
            // It lives on standing leases.
            return self.standing_leases.due(ix);
        }
        m.starving += 1;
        let patience_over = m.starving >= STARVING_ALARMS;
        let (node, may_lease, starving) = (m.info.node, m.info.may_use_origin, m.starving);
        // What is on its way into the site comes to it from there.
        let inside_only =
            starving < ENTRY_STALLED_ALARMS && self.member(ix).is_some_and(|m| self.site_served(ix, m, false));
        let lacks: Vec<u32> =
            runs.iter().copied().take(MAX_STARVING_RUNS).filter(|r| *r < self.layout.runs()).collect();
        for run in lacks.iter().copied().filter(|_| may_lease && !inside_only) {
            // Who fetches it and is not heard may be dead: a child that waits for it is worth a second copy.
            let fetcher = self.leases.active().get(&run).map(|a| a.to);
            if let Some(away) = fetcher.filter(|to| self.member(*to).is_some_and(|m| m.away_since.is_some())) {
                self.end_lease(now, away, run, false);
                self.want(run, ix, Leases::want);
            }
            self.want(run, ix, Leases::want_lost);
        }
        let holder = |far: bool| {
            let held = lacks.iter().filter(|run| self.leases.replicas(**run) > 0);
            held.filter_map(|run| self.holder_for(now, ix, *run, node.prefix64(), inside_only, far)).next()
        };
        let near = holder(self.member(ix).is_some_and(|m| self.far_links_left(m) > 0));
        // Who is near and has it cannot be reached, or nobody near has it and those who bring things in have not either.
        let sole =
            near.is_none() && (starving >= SOLE_ALARMS || self.is_held_near(now, ix, &lacks)) && self.may_have_sole(ix);
        let far = sole.then(|| holder(true)).flatten();
        let helped = near.or(far).is_some();
        if let Some(p) = near {
            self.link(now, p, ix);
        } else if let Some(p) = far {
            self.link_sole(now, p, ix);
        }
        if helped && !patience_over {
            return;
        }
        let no_parents = self.member(ix).is_some_and(|m| m.parents.is_empty());
        if inside_only || !may_lease || !(patience_over || no_parents) || now < self.settle_until {
            return;
        }
        let most = if no_parents { MAX_STARVING_RUNS } else { MAX_STARVING_LEASES };
        for run in lacks.into_iter().take(most) {
            let Some(m) = self.members.get(ix as usize).and_then(Option::as_ref) else { return };
            match self.leases.active().get(&run).map(|a| a.to) {
                None if self.leases.has_slot_for(m) => self.give_lease(now, ix, run),
                Some(to) if to != ix => {
                    let Some(fetcher) = self.members.get(to as usize).and_then(Option::as_ref) else { continue };
                    if self.leases.taken_over(now, run, m, fetcher) {
                        self.revoke(now, to, run);
                        self.give_lease(now, ix, run);
                    }
                }
                _ => {}
            }
        }
    }

    /// A member wants a run to be leased to it, in one of the two ways.
    fn want(&mut self, run: u32, ix: Ix, how: fn(&mut Leases, u32, Ix, &Member)) {
        if let Some(m) = self.members.get(ix as usize).and_then(Option::as_ref) {
            how(&mut self.leases, run, ix, m);
        }
    }

    /// Whether its region may have one more link from far that nobody near can replace: starving children do not each
    /// bring the content in, and those who only say that they starve do not get all of them.
    fn may_have_sole(&self, ix: Ix) -> bool {
        let Some(region) = self.member(ix).map(|m| m.region) else { return false };
        self.far_links.get(&region).is_none_or(|n| n.sole < self.far_links_most(region).div_ceil(2))
    }

    /// Whether somebody near has what a child lacks. A sample is looked at.
    fn is_held_near(&self, now: Time, ix: Ix, runs: &[u32]) -> bool {
        let Some(child) = self.member(ix) else { return false };
        let sampled =
            |i: u64| (mix64(child.info.node.prefix64() ^ now.0.wrapping_add(i)) % self.members.len() as u64) as Ix;
        (0..MAX_SAMPLED as u64)
            .filter_map(|i| self.member(sampled(i)))
            .any(|p| !self.is_far(p, child) && p.standing.is_believed() && runs.iter().any(|run| p.runs.get(*run)))
    }

    /// A reader at the member needs runs next that no parent of it has: who has one, or fetches it, becomes its parent; what
    /// nobody has or fetches is leased next, to the member itself.
    fn read(&mut self, now: Time, ix: Ix, runs: &[u32]) {
        let all = self.layout.runs();
        for run in runs.iter().copied().take(MAX_READING_RUNS).filter(|r| *r < all) {
            let Some(m) = self.member(ix).filter(|m| m.wants && m.udp()) else { return };
            let room = (m.parents.len() as u32) < self.target + READERS_PARENTS;
            let (node, may_lease) = (m.info.node, m.info.may_use_origin);
            let (inside_only, may_be_far) = (self.site_served(ix, m, false), self.far_links_left(m) > 0);
            let has = |p: Ix| self.member(p).is_some_and(|p| p.runs.get(run));
            if m.parents.iter().any(|e| has(e.parent)) {
                continue;
            }
            let fetcher = self.leases.active().get(&run).map(|a| a.to).filter(|to| *to != ix);
            if self.leases.replicas(run) > 0 {
                if let Some(p) =
                    room.then(|| self.holder_for(now, ix, run, node.prefix64(), inside_only, may_be_far)).flatten()
                {
                    self.link(now, p, ix);
                }
            } else if let Some(p) = fetcher {
                if room && !self.member(ix).is_some_and(|m| m.has_parent(p)) && self.pair_ok(now, p, ix) && !inside_only
                {
                    self.link(now, p, ix);
                }
            } else if may_lease && !inside_only {
                self.want(run, ix, Leases::want);
            }
        }
    }

    /// A member that holds `run` and may serve the child, also when its slots are taken (R2: most spare first, then any).
    fn holder_for(
        &self,
        now: Time,
        child_ix: Ix,
        run: u32,
        seed: u64,
        inside_only: bool,
        may_be_far: bool,
    ) -> Option<Ix> {
        let child = self.member(child_ix)?;
        (0..MAX_SAMPLED as u64)
            .map(|i| (mix64(seed ^ now.0.wrapping_add(i)) % self.members.len() as u64) as Ix)
            .filter(|p| *p != child_ix && !child.has_parent(*p))
            .filter(|p| !inside_only || self.member(*p).is_some_and(|p| p.tier_to(child) == 0))
            .filter(|p| self.member(*p).is_some_and(|p| !self.is_kept_for_limited(p, child)))
            .filter(|p| {
                self.member(*p).is_some_and(|m| {
                    m.standing.is_believed() && m.runs.get(run) && (may_be_far || !self.is_far(m, child))
                }) && self.pair_ok(now, *p, child_ix)
            })
            .max_by_key(|p| (self.spare_of(*p).bucket(), std::cmp::Reverse(*p)))
    }
}

/// Why a child looks for another parent.
pub(super) fn occasion(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Silent => "a parent fell silent",
        Trouble::Slow => "a parent was slow",
        Trouble::Congested => "the link to a parent was congested",
        Trouble::Empty => "a parent offered nothing of what it claims",
        Trouble::Attack => "it was attacked from a parent's address",
    }
}
