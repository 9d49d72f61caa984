//! Sites: members behind one public address. What is to be had inside comes from inside; one of them brings the content
//! in over the line that all share (requirements S5, P9).

use super::Dcm;
use super::member::{Ix, Member};
use headwater_model::node::{Accepts, SourceClass};
use headwater_model::time::Time;
use std::collections::BTreeMap;

/// Members of a site that fetch from outside. Two would ask for the same newest pieces at the same moment.
const MAX_ENTRIES: usize = 1;
/// Pairs inside a site that could not connect before any did, after which it is held for a provider's NAT that strangers
/// share.
const MAX_FAILED: u32 = 3;
/// Alarms in a row after which a child of a site is helped from outside: who should bring the content in does not.
pub(super) const ENTRY_STALLED_ALARMS: u32 = 10;

/// Members behind one public address.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Site {
    members: u32,
    /// Those that have everything.
    complete: u32,
    /// Parents outside, by member.
    outside: BTreeMap<Ix, u32>,
    failed: u32,
    /// Content was passed on inside.
    works: bool,
}

impl Dcm {
    pub(super) fn join_site(&mut self, m: &Member) {
        // Who has no UDP neither brings anything in nor gets anything from inside.
        if let Some(key) = m.tier_keys[0].filter(|_| m.udp()) {
            let site = self.sites.entry(key).or_default();
            site.members += 1;
            site.complete += u32::from(!m.wants);
        }
    }

    /// `m`, which has no edges and fetches no more, leaves.
    pub(super) fn leave_site(&mut self, ix: Ix, m: &Member) {
        let Some(key) = m.tier_keys[0].filter(|_| m.udp()) else { return };
        let Some(site) = self.sites.get_mut(&key) else { return };
        site.members -= 1;
        site.complete -= u32::from(!m.wants);
        site.outside.remove(&ix);
        if site.members == 0 {
            self.sites.remove(&key);
        }
    }

    /// A member has everything, or lacks something again.
    pub(super) fn site_wants(&mut self, key: Option<u64>, wants: bool) {
        if let Some(site) = key.and_then(|k| self.sites.get_mut(&k)) {
            if wants { site.complete -= 1 } else { site.complete += 1 }
        }
    }

    /// An edge was made, or ended.
    pub(super) fn site_edge(&mut self, parent: Ix, child: Ix, made: bool) {
        let (Some(p), Some(c)) = (self.member(parent), self.member(child)) else { return };
        let (key, inside) = (c.tier_keys[0], p.tier_keys[0] == c.tier_keys[0]);
        let Some(site) = key.filter(|_| !inside).and_then(|k| self.sites.get_mut(&k)) else { return };
        let n = site.outside.entry(child).or_default();
        if made {
            *n += 1
        } else {
            *n -= 1
        }
        if *n == 0 {
            site.outside.remove(&child);
        }
    }

    /// Content went from `parent` to `child`.
    pub(super) fn site_works(&mut self, child: Ix, parent: Ix) {
        if let Some(site) = self.site_of_both(child, parent) {
            site.works = true;
        }
    }

    /// The two could not connect.
    pub(super) fn site_failed(&mut self, a: Ix, b: Ix) {
        if let Some(site) = self.site_of_both(a, b) {
            site.failed += 1;
        }
    }

    fn site_of_both(&mut self, a: Ix, b: Ix) -> Option<&mut Site> {
        let (a, b) = (self.member(a)?, self.member(b)?);
        let key = a.tier_keys[0].filter(|key| a.udp() && b.udp() && b.tier_keys[0] == Some(*key))?;
        self.sites.get_mut(&key)
    }

    /// Whether those behind the member's public address are on one network, as far as is known.
    pub(super) fn site_is_network(&self, m: &Member) -> bool {
        let site = m.tier_keys[0].and_then(|k| self.sites.get(&k));
        site.is_none_or(|s| s.works || s.failed < MAX_FAILED)
    }

    /// Whether others are behind the member's public address.
    pub(super) fn shares_site(&self, m: &Member) -> bool {
        m.tier_keys[0].and_then(|k| self.sites.get(&k)).is_some_and(|s| s.members > 1)
    }

    /// Whether others bring the content in for `child`: then it gets no parents from outside. `near`: it gets one inside.
    pub(super) fn site_served(&self, ix: Ix, child: &Member, near: bool) -> bool {
        let Some(site) = child.tier_keys[0].and_then(|k| self.sites.get(&k)) else { return false };
        if site.members < 2 || site.outside.contains_key(&ix) || !self.site_is_network(child) {
            return false;
        }
        let brings_in = |i: &&Ix| **i != ix && self.member(**i).is_some_and(|m| m.wants && m.away_since.is_none());
        if site.complete == 0 && site.outside.keys().filter(brings_in).take(MAX_ENTRIES).count() < MAX_ENTRIES {
            return false;
        }
        near || child
            .parents
            .iter()
            .any(|e| self.member(e.parent).is_some_and(|p| p.tier_keys[0] == child.tier_keys[0]))
    }

    /// Who brings the content in for `ix`, when nobody of its site has uplink to spare: what is inside stays inside all
    /// the same.
    pub(super) fn busy_entry_for(&self, now: Time, ix: Ix) -> Option<Ix> {
        let child = self.member(ix)?;
        let key = child.tier_keys[0]?;
        let site = self.sites.get(&key).filter(|s| s.members > 1 && !s.outside.contains_key(&ix))?;
        if child.parents.iter().any(|e| self.member(e.parent).is_some_and(|p| p.tier_keys[0] == Some(key))) {
            return None;
        }
        let kinds = [Accepts::Open, Accepts::Punchable, Accepts::DialOnly];
        if kinds.into_iter().any(|a| self.spare.shelf(SourceClass::Peer, 0, key, a, 0).any(|i| i != ix)) {
            return None;
        }
        let fit = |i: &Ix| {
            let entry = self.member(*i).filter(|e| e.wants);
            entry.is_some_and(|e| self.could_serve(child, e) && !self.pair_failed(now, child, e))
        };
        site.outside.keys().copied().find(fit)
    }

    /// Violated invariants.
    pub(super) fn check_sites(&self, say: &mut impl FnMut(String)) {
        let mut right: BTreeMap<u64, Site> = BTreeMap::new();
        for (ix, m) in self.members.iter().enumerate() {
            let m = m.as_ref().filter(|m| m.udp());
            let Some((m, key)) = m.and_then(|m| Some((m, m.tier_keys[0]?))) else { continue };
            let site = right.entry(key).or_default();
            site.members += 1;
            site.complete += u32::from(!m.wants);
            let inside = |p: Ix| self.member(p).is_some_and(|p| p.tier_keys[0] == m.tier_keys[0]);
            let outside = m.parents.iter().filter(|e| !inside(e.parent)).count() as u32;
            if outside > 0 {
                site.outside.insert(ix as Ix, outside);
            }
        }
        for (key, site) in &mut right {
            if let Some(s) = self.sites.get(key) {
                (site.failed, site.works) = (s.failed, s.works);
            }
        }
        if right != self.sites {
            say(format!("sites {:?} should be {right:?}", self.sites));
        }
    }
}
