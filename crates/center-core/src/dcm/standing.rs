//! Distrust in a swarm: what children say of parents that were assigned to them, and what follows from a verdict.

use super::member::{Ix, Member};
use super::pairs::GRAVE;
use super::repair::occasion;
use super::{Dcm, DcmOutput};
use crate::network_monitor::Trouble;
use crate::trust::{Offence, Standing};
use headwater_model::id::NodeId;
use headwater_model::report::{EdgeReport, MAX_STARVING_RUNS};
use headwater_model::time::{Micros, Rate, Time};

/// A claim and an edge this old are known at both ends of the edge.
const SETTLED: Micros = Micros::from_millis(2500);
/// Who claims something to the control center has told its children so much earlier than this.
const CLAIM_TOLD: Micros = Micros::from_millis(500);
/// Children wait as long before they call a parent silent: what they say of one that came later is about the process
/// before it, and its restart explains that.
pub(crate) const NEWLY_HERE: Micros = Micros::from_secs(2);
/// Silence of one that brought fewer pieces than this is an offence.
const FEW_PIECES: u64 = 4;
/// Runs that a parent claims and its child lacks: with so many, an idle child is not merely waiting for others.
const MIN_CLAIMED_RUNS: usize = 8;
/// Idle intervals after which the claim is not believed.
const IDLE_INTERVALS: u32 = 2;
/// For so long a child's word that a parent is slow helps others to judge it.
const SLOW_TO_OTHERS: Micros = Micros::from_secs(60);
/// So many of a parent's other children are looked at where one is hopeless.
const CHILDREN_ASKED: usize = 64;
/// A parent is slow beyond doubt at this fraction of what the child's other parents deliver.
const TRICKLE: u64 = 8;

impl Dcm {
    /// The control center's verdict on a member as a parent.
    pub fn set_standing(&mut self, now: Time, node: &NodeId, standing: Standing) {
        let Some(ix) = self.by_node.get(node).copied() else { return };
        let Some(m) = self.member_mut(ix).filter(|m| m.standing != standing) else { return };
        let counted = m.counts();
        m.standing = standing;
        m.tried_by = None;
        let (counts, held) = (m.counts(), m.runs.clone());
        if standing == Standing::Good {
            self.distrusted.remove(&ix);
        } else {
            self.distrusted.insert(ix);
        }
        for run in held.iter() {
            match (counted, counts) {
                (true, false) => self.leases.lost(run, now),
                (false, true) => self.leases.gained(run),
                _ => {}
            }
        }
        if !counts {
            for run in self.leases.of(ix) {
                self.end_lease(now, ix, run, false);
                self.out.push(DcmOutput::Revoke(*node, run));
            }
        }
        self.requeue(ix, true);
        if standing == Standing::Banned {
            self.dismiss(now, ix, node);
        }
        self.refresh(ix);
        self.lease_out(now);
    }

    /// Nobody has it as a parent or a spare any more.
    fn dismiss(&mut self, now: Time, ix: Ix, node: &NodeId) {
        let children = self.member(ix).map(|m| m.children.clone()).unwrap_or_default();
        for c in children.iter().copied() {
            self.unlink(ix, c);
        }
        let mut named = Vec::new();
        for (other, m) in self.members.iter_mut().enumerate() {
            if let Some(m) = m.as_mut().filter(|m| m.spares.contains(node)) {
                m.spares.retain(|s| s != node);
                named.push(other as Ix);
            }
        }
        for other in named {
            self.dirty(now, other);
        }
        for c in children {
            self.dirty(now, c);
            self.look_for_parents(now, c, "its parent was banned");
        }
    }

    /// A child and its parent have failed each other: no edge, and no spare, until the pair is tried again. Where the child
    /// accuses the parent that is later than where a connection broke: what makes a parent trickle or lie does not pass
    /// soon. Silence may, of one that has served the child before.
    pub(super) fn part(&mut self, now: Time, child: Ix, parent: Ix, offence: Option<Offence>) {
        let edge = |c: &Member| c.parents.iter().find(|e| e.parent == parent).map(|e| e.watch.served());
        self.rest(now, child, parent, offence, self.member(child).and_then(edge));
        if let (Some(node), Some(c)) = (self.node_of(parent), self.member_mut(child)) {
            c.spares.retain(|s| *s != node);
        }
        let region = self.member(child).map(|c| c.region).filter(|_| offence == Some(Offence::Slow));
        if let (Some(region), Some(p)) = (region, self.member_mut(parent)) {
            p.slow_to = Some((child, region, now));
        }
        self.unlink(parent, child);
        self.dirty(now, child);
    }

    /// A parent that gives another child next to nothing gives this one next to nothing as well. Neither child can tell a
    /// trickle from its own line where all that it has trickle; of two, on different ways, the lines are not to blame.
    pub(super) fn judge_together(&mut self, now: Time, child: Ix, parent: Ix) {
        let hopeless = self.hopeless(child, parent).is_some_and(|h| h);
        if !hopeless || !(self.slow_to_another(now, child, parent) || self.hopeless_to_most(child, parent)) {
            return;
        }
        if let (Some(p), Some(c)) = (self.node_of(parent), self.node_of(child)) {
            self.out.push(DcmOutput::Trouble(p, c, Trouble::Slow));
        }
        self.part(now, child, parent, Some(Offence::Slow));
        self.look_for_parents(now, child, occasion(Trouble::Slow));
    }

    /// Whether a child got next to nothing of a parent in its last interval, though it waited; nothing where it was idle.
    fn hopeless(&self, child: Ix, parent: Ix) -> Option<bool> {
        let watch = self.member(child)?.parents.iter().find(|e| e.parent == parent)?.watch;
        (watch.hopeless || watch.last_bytes > 0).then_some(watch.hopeless)
    }

    /// Another child, on another way, left the parent as slow of late.
    fn slow_to_another(&self, now: Time, child: Ix, parent: Ix) -> bool {
        let (Some(c), Some(p)) = (self.member(child), self.member(parent)) else { return false };
        p.slow_to.is_some_and(|(by, region, at)| {
            by != child && now.since(at) <= SLOW_TO_OTHERS && (region == p.region || c.region == p.region)
        })
    }

    /// Most of the parent's children that are not idle get next to nothing of it: this one, and another on another way.
    /// Where nothing came at all the child tells of silence, which is an offence.
    fn hopeless_to_most(&self, child: Ix, parent: Ix) -> bool {
        let (Some(c), Some(p)) = (self.member(child), self.member(parent)) else { return false };
        if c.parents.iter().any(|e| e.parent == parent && e.watch.served() == 0) {
            return false;
        }
        let (mut hopeless, mut served, mut other_way) = (0, 0, false);
        for other in p.children.iter().copied().filter(|o| *o != child).take(CHILDREN_ASKED) {
            match (self.hopeless(other, parent), self.member(other)) {
                (Some(true), Some(o)) => {
                    hopeless += 1;
                    other_way |= o.region == p.region || c.region == p.region;
                }
                (Some(false), _) => served += 1,
                _ => {}
            }
        }
        other_way && hopeless + 1 > served
    }

    /// How long the two of an edge that brought the child so many bytes are not tried again.
    pub(super) fn rest(&mut self, now: Time, child: Ix, parent: Ix, offence: Option<Offence>, served: Option<u64>) {
        let of_former = matches!(offence, None | Some(Offence::Silent));
        if of_former && self.member(parent).and_then(|p| p.restarted).is_some_and(|t| now.since(t) < NEWLY_HERE) {
            return;
        }
        // Who brought a few pieces and fell silent may trickle. Of a spare that the child called in nothing is reported: one
        // that is silent counts as one that brought nothing. Silence of one that has served much may be the line's.
        let brought_little = served.unwrap_or(0) < FEW_PIECES * u64::from(self.layout.piece_bytes());
        let failures = match offence {
            // Seen by the child alone: it may have been its own line. The next time it was not.
            Some(Offence::Slow) if !self.trickles(child, parent) && !self.slow_to_another(now, child, parent) => {
                GRAVE - 1
            }
            Some(Offence::Slow | Offence::Holdings | Offence::Sent | Offence::Slander) => GRAVE,
            Some(Offence::Silent) if brought_little => GRAVE,
            // It came, brought nothing and is gone again.
            None if served == Some(0) => 3,
            Some(Offence::Silent) => 2,
            Some(Offence::BadPieces) | None => 1,
        };
        let is_offence = offence.is_some_and(|o| o != Offence::Silent || brought_little);
        self.fail_pair_times(now, child, parent, failures, is_offence);
    }

    pub(super) fn accuse(&mut self, child: Ix, parent: Ix, offence: Offence) {
        if let (Some(c), Some(p)) = (self.node_of(child), self.node_of(parent)) {
            self.out.push(DcmOutput::Accuse(c, p, offence));
        }
    }

    /// Whether a child has told of a piece of a parent that it has, or had until lately.
    pub fn had_a_piece(&self, child: &NodeId, parent: &NodeId) -> bool {
        let (Some(c), p) = (self.member_of(child), self.by_node.get(parent).copied()) else { return false };
        let now = c.parents.iter().find(|e| Some(e.parent) == p).map(|e| e.watch.served());
        now.or_else(|| c.parted_from(parent)).is_some_and(|served| served >= u64::from(self.layout.piece_bytes()))
    }

    /// The child got wrong bytes from the parent: the two do not meet again for as long as a ban lasts.
    pub(super) fn spoil_pair(&mut self, now: Time, child: Ix, parent: Ix) {
        if let (Some(c), Some(p)) = (self.node_of(child), self.node_of(parent)) {
            self.failed.spoil(now, &c, &p);
        }
    }

    pub(super) fn spoilt(&self, now: Time, a: &Member, b: &Member) -> bool {
        self.failed.spoilt(now, (&a.info.node, &b.info.node), &self.config)
    }

    /// Whether the child's other parents deliver so much more that `parent` cannot blame the child's line; or would, where
    /// there is little to ask of them: while they are waited for.
    pub(super) fn trickles(&self, child: Ix, parent: Ix) -> bool {
        let Some(m) = self.member(child) else { return false };
        let mine = m.parents.iter().find(|e| e.parent == parent).map(|e| e.watch);
        let (bytes, rate) = mine.map_or((0, Rate(0)), |w| (w.last_bytes, w.last_rate));
        let others = m.parents.iter().filter(|e| e.parent != parent && e.watch.last_bytes > 0).map(|e| e.watch);
        let (mut others, mut rates): (Vec<u64>, Vec<Rate>) = others.map(|w| (w.last_bytes, w.last_rate)).unzip();
        others.sort_unstable();
        rates.sort_unstable();
        let usual = others.get(others.len() / 2).copied().unwrap_or(0);
        let usual_rate = rates.get(rates.len() / 2).copied().unwrap_or_default();
        bytes.saturating_mul(TRICKLE) < usual || rate.is_trickle_of(usual_rate)
    }

    /// A child finds runs at no parent that a parent says it holds: one of the two is wrong.
    pub(super) fn doubt_holders(&mut self, now: Time, ix: Ix, runs: &[u32]) {
        let Some(m) = self.member(ix).filter(|m| m.wants) else { return };
        let open = m.parents.iter().filter(|e| e.watch.is_reported() && now.since(e.since) > SETTLED);
        let doubted: Vec<Ix> = open
            .map(|e| e.parent)
            .filter(|p| {
                let claims = |p: &Member| runs.iter().take(MAX_STARVING_RUNS).any(|r| p.runs.get(*r));
                self.member(*p).is_some_and(|p| now.since(p.runs_at) > SETTLED && p.away_since.is_none() && claims(p))
            })
            .collect();
        for parent in doubted {
            self.accuse(ix, parent, Offence::Holdings);
        }
    }

    /// A heartbeat of a child: a parent offers nothing of what it says that it holds. The child says so, or it asks nothing
    /// of that parent while others serve it.
    pub(super) fn watch_idle(&mut self, now: Time, child: Ix, parent: Ix, interval: u64, said: &EdgeReport) {
        let (Some(c), Some(p)) = (self.member(child), self.member(parent)) else { return };
        // A spare that the child called in may lie as well, but nobody assigned it: it is not idle by that.
        let edge = c.parents.iter().find(|e| e.parent == parent);
        if edge.is_none() && !c.spares.contains(&p.info.node) {
            return;
        }
        let offers_nothing = edge.is_some_and(|edge| {
            let settled = now.since(edge.since) > SETTLED && now.since(p.runs_at) > SETTLED && p.away_since.is_none();
            let idle = interval > 0 && settled && c.wants && said.waited == Micros(0) && edge.watch.last_bytes == 0;
            idle && c.parents.iter().any(|e| e.watch.last_bytes > 0)
                && p.runs.iter().filter(|r| !c.runs.get(*r)).nth(MIN_CLAIMED_RUNS - 1).is_some()
        });
        let lies = said.offers_nothing
            && c.wants
            && p.away_since.is_none()
            && now.since(p.runs_at) > CLAIM_TOLD
            && p.runs.iter().nth(MIN_CLAIMED_RUNS - 1).is_some();
        let idle = self.edge_mut(child, parent).map_or(0, |w| {
            w.idle = if offers_nothing { w.idle + 1 } else { 0 };
            w.idle
        });
        if lies || idle >= IDLE_INTERVALS {
            if let (Some(p), Some(c)) = (self.node_of(parent), self.node_of(child)) {
                self.out.push(DcmOutput::Trouble(p, c, Trouble::Empty));
            }
            self.accuse(child, parent, Offence::Holdings);
            self.part(now, child, parent, Some(Offence::Holdings));
            self.look_for_parents(now, child, occasion(Trouble::Empty));
        }
    }
}
