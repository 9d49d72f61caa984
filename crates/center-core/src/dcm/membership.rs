//! Who is in the swarm: members that come, come back and finish, and what they hold.

use super::leases;
use super::member::{Ix, Member, MemberInfo};
use super::{Dcm, DcmOutput};
use crate::client_manager::may_explain;
use crate::trust::Standing;
use headwater_model::SourceClass;
use headwater_model::bits::Bits;
use headwater_model::report::Join;
use headwater_model::time::{Micros, Time};

impl Dcm {
    pub(super) fn admit(&mut self, info: MemberInfo) -> Ix {
        let m = Member::new(info, self.layout.runs());
        self.up_total += m.info.up.0;
        self.by_accepts.up(m.accepts(), 0, m.info.up.0);
        let node = m.info.node;
        let ix = self.free.pop().unwrap_or(self.members.len() as Ix);
        if ix as usize == self.members.len() {
            self.members.push(None);
        }
        if m.class() == SourceClass::Waypoint {
            self.waypoints.insert(ix);
        }
        if m.standing != Standing::Good {
            self.distrusted.insert(ix);
        }
        // Everybody lacks pieces at first: counted by `set_wants`.
        let m = Member { wants: false, leased: self.leases.newcomers(m.region), ..m };
        self.join_site(&m);
        self.members[ix as usize] = Some(m);
        self.by_node.insert(node, ix);
        self.set_wants(ix, true);
        self.requeue(ix, true);
        ix
    }

    /// A member joins again: what it says of itself replaces what was known.
    pub(super) fn back(&mut self, now: Time, ix: Ix, info: MemberInfo, join: &Join) {
        self.set_rate(&info.node, info.up);
        // It joins a second time in one session when it has opened the log: what it was given meanwhile is on its way. In
        // a new session it says what it works on, and a process that began anew knows nothing of former leases.
        if self.member(ix).is_some_and(|m| m.info.session != info.session) {
            for run in self.leases.of(ix).into_iter().filter(|run| !join.leases.contains(run)) {
                self.end_lease(now, ix, run, false);
            }
            for run in self.standing_leases.of(ix).into_iter().filter(|run| !join.leases.contains(run)) {
                self.end_standing(ix, run, false);
            }
        }
        if !join.complete && self.member(ix).is_some_and(|m| !m.wants) {
            self.set_wants(ix, true);
        }
        self.present(ix);
        let same_socket = |m: &Member| m.info.reach.addresses.iter().any(|a| info.reach.addresses.contains(a));
        if self.member(ix).is_some_and(|m| !same_socket(m) || m.info.reach.certificate != info.reach.certificate) {
            // Another socket: its connections are gone, and all edges with them.
            self.cut_all(now, ix);
            if let Some(m) = self.member_mut(ix)
                && m.info.reach.certificate != info.reach.certificate
                && may_explain(now, m.restarted)
            {
                m.restarted = Some(now);
            }
        }
        self.set_reach(now, &info.node, info.capabilities, info.reach);
        if let Some(m) = self.member_mut(ix) {
            m.info.session = info.session;
            m.info.local_addresses = info.local_addresses;
            m.info.https = info.https;
            m.info.may_use_origin = info.may_use_origin;
        }
        let others: Vec<Ix> = self
            .member(ix)
            .map(|m| m.children.iter().copied().chain(m.parents.iter().map(|e| e.parent)).collect())
            .unwrap_or_default();
        self.dirty.extend(others);
        self.requeue(ix, true);
        self.refresh(ix);
    }

    /// A member that was away is heard of again.
    pub(super) fn present(&mut self, ix: Ix) {
        let Some(m) = self.member_mut(ix).filter(|m| m.away_since.is_some()) else { return };
        m.away_since = None;
        let (held, counts) = (m.runs.clone(), m.counts());
        self.aways.remove(&ix);
        for run in held.iter().filter(|_| counts) {
            self.leases.gained(run);
        }
        self.standing_leases.due(ix);
        self.requeue(ix, true);
        self.refresh(ix);
        // What changed meanwhile was not sent.
        self.dirty.insert(ix);
        self.flush_at.get_or_insert(Time(0));
    }

    pub(super) fn set_wants(&mut self, ix: Ix, wants: bool) {
        let Some(m) = self.member_mut(ix).filter(|m| m.wants != wants) else { return };
        m.wants = wants;
        let (region, accepts, key, udp, limited) = (m.region, m.accepts(), m.tier_keys[0], m.udp(), m.limited());
        if limited && wants {
            self.limited.insert(ix);
            self.standing_leases.due(ix);
        } else {
            self.limited.remove(&ix);
        }
        let step = |n: &mut u32| if wants { *n += 1 } else { *n -= 1 };
        if !udp {
            // It wants no parents.
            return step(&mut self.wanting_walled);
        }
        if wants {
            self.hungry.insert(ix);
        }
        step(&mut self.wanting);
        self.by_accepts.wanting(accepts, wants);
        self.site_wants(key, wants);
        let in_region = self.wanting_by_region.entry(region).or_default();
        step(in_region);
        if *in_region == 0 {
            self.wanting_by_region.remove(&region);
        }
    }

    /// A member has everything: it needs no parents, and its share of the others' uplink is free.
    pub(super) fn finished(&mut self, ix: Ix) {
        self.set_wants(ix, false);
        self.requeue(ix, false);
        self.hungry.remove(&ix);
        for run in self.standing_leases.of(ix) {
            self.end_standing(ix, run, true);
        }
        let parents: Vec<Ix> =
            self.member(ix).map(|m| m.parents.iter().map(|e| e.parent).collect()).unwrap_or_default();
        for p in parents {
            self.unlink(p, ix);
        }
        if let Some(pieces) = Some(self.layout.pieces())
            && let Some(m) = self.member_mut(ix)
        {
            m.pieces_held = pieces;
        }
        self.recount();
        self.refresh(ix);
    }

    /// A member that had everything lacks something.
    pub(super) fn wants_again(&mut self, now: Time, ix: Ix) {
        self.set_wants(ix, true);
        self.requeue(ix, true);
        self.recount();
        self.look_for_parents(now, ix, "it lost pieces");
    }

    pub(super) fn holds(&mut self, now: Time, ix: Ix, runs: Bits) {
        let Some(m) = self.member_mut(ix) else { return };
        let (came, went) = leases::difference(&m.runs, &runs);
        m.runs = runs;
        let counts = m.counts();
        if !came.is_empty() {
            m.runs_at = now;
        }
        for run in came {
            if counts {
                self.leases.gained(run);
            }
            // It may have come from elsewhere than the lease.
            self.end_lease(now, ix, run, counts);
            self.end_standing(ix, run, true);
        }
        for run in went.into_iter().filter(|_| counts) {
            self.leases.lost(run, now);
        }
    }

    /// Edges and leases that a returning node works on already: kept where they still make sense.
    pub(super) fn adopt(&mut self, now: Time, ix: Ix, join: &Join) {
        for (node, _) in &join.parents {
            let Some(p) = self.by_node.get(node).copied() else { continue };
            let fits = match (self.member(ix), self.member(p)) {
                (Some(c), Some(m)) => c.wants && p != ix && !c.has_parent(p) && self.could_serve(c, m),
                _ => false,
            };
            if fits {
                self.link(now, p, ix);
            }
        }
        if !join.parents.is_empty() {
            let until = now + Micros::from_secs(2);
            if let Some(m) = self.member_mut(ix) {
                m.settle_until = until;
            }
        }
        for run in join.leases.iter().filter(|run| !self.standing_leases.has(ix, **run)) {
            if let Some(m) = self.members.get_mut(ix as usize).and_then(Option::as_mut)
                && !(m.counts() && self.leases.adopt(now, ix, m, *run))
            {
                self.out.push(DcmOutput::Revoke(m.info.node, *run));
            }
        }
        self.requeue(ix, true);
    }
}
