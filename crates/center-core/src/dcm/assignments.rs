//! Saying what was decided: assignments of members whose edges changed, sent together.

use super::member::Ix;
use super::{Dcm, DcmOutput};
use headwater_model::assignment::{Assignment, Child, Generation, Parent};
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
        let parent = |p: Ix| {
            let other = self.member(p)?;
            Some(Parent {
                node: other.info.node,
                class: other.class(),
                // Both ends dial, unless one can only dial (S3).
                dial: !other.dial_only(),
                promised: self.promised(p),
                reach: other.info.reach.clone(),
            })
        };
        Some(Assignment {
            version: self.version,
            generation,
            parents: m.parents.iter().filter_map(|e| parent(e.parent)).collect(),
            spares: (m.spares.iter().filter_map(|s| self.by_node.get(s)))
                .filter(|s| !m.has_parent(**s))
                .filter_map(|s| parent(*s))
                .collect(),
            children: m
                .children
                .iter()
                .filter_map(|c| self.member(*c))
                .map(|c| Child { node: c.info.node, dial: !c.dial_only(), reach: c.info.reach.clone() })
                .collect(),
        })
    }
}
