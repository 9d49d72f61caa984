//! Saying what was decided: assignments of members whose edges changed, sent together.

use super::member::{Ix, Member};
use super::{Dcm, DcmOutput, MemberInfo};
use headwater_model::assignment::{Assignment, Child, Generation, Parent, Reach};
use headwater_model::live::Substreams;
use headwater_model::reach::Reachability;
use headwater_model::time::{Micros, Time};
use std::collections::BTreeSet;

impl Dcm {
    pub(super) fn dirty(&mut self, now: Time, ix: Ix) {
        self.dirty.insert(ix);
        let at = now + self.config.flush;
        match self.flush_at {
            Some(Time(0)) | None => self.flush_at = Some(at),
            Some(t) => self.flush_at = Some(t.min(at)),
        }
    }

    pub(super) fn flush(&mut self, now: Time) {
        self.flush_at = None;
        let mut later = BTreeSet::new();
        for ix in std::mem::take(&mut self.dirty) {
            let Some(m) = self.member(ix) else { continue };
            if m.settle_until > now && !m.parents.is_empty() {
                later.insert(ix);
                continue;
            }
            if m.away_since.is_some() {
                continue;
            }
            self.generation.counter += 1;
            let assignment = self.assignment(ix, self.generation);
            if let (Some(node), Some(a)) = (self.node_of(ix), assignment) {
                self.out.push(DcmOutput::Assign(node, a));
            }
        }
        if !later.is_empty() {
            self.dirty = later;
            self.flush_at = Some(now + Micros::from_millis(250));
        }
    }

    fn assignment(&self, ix: Ix, generation: Generation) -> Option<Assignment> {
        let m = self.member(ix)?;
        let own = m.reachability();
        let parent = |p: Ix| {
            let other = self.member(p)?;
            Some(Parent {
                node: other.info.node,
                class: other.class(),
                dial: own.dials(&other.reachability()),
                promised: self.promised(p),
                reach: reach(&own, &other.reachability(), &other.info),
                substreams: Substreams::default(),
            })
        };
        let spare = |s: &Ix| !m.has_parent(*s) && self.member(*s).is_some_and(|s| self.could_serve(m, s));
        let child = |c: &Member| {
            let theirs = c.reachability();
            let (dial, punch) = (own.dials(&theirs), own.punches(&theirs));
            Child {
                node: c.info.node,
                dial,
                punch,
                reach: reach(&own, &theirs, &c.info),
                substreams: Substreams::default(),
            }
        };
        Some(Assignment {
            version: self.version,
            generation,
            parents: m.parents.iter().filter_map(|e| parent(e.parent)).collect(),
            helpers: Vec::new(),
            spares: (m.spares.iter().filter_map(|s| self.by_node.get(s)).copied())
                .filter(spare)
                .filter_map(parent)
                .collect(),
            children: m.children.iter().filter_map(|c| self.member(*c)).map(child).collect(),
            source: false,
        })
    }
}

/// How a member reaches `to`: on their own network first where they share a public address.
pub(crate) fn reach(own: &Reachability, theirs: &Reachability, to: &MemberInfo) -> Reach {
    let mut reach = to.reach.clone();
    if own.same_site(theirs) && !to.local_addresses.is_empty() {
        reach.addresses = to.local_addresses.iter().chain(&*to.reach.addresses).copied().collect();
    }
    reach
}
