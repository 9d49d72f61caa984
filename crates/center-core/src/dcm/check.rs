//! Invariants of a DCM as code: one function reads the whole state and lists what is wrong.

use super::Dcm;
use super::member::{FarLinks, Ix};
use super::reach::ByAccepts;
use crate::trust::Standing;
use headwater_model::node::SourceClass;
use headwater_model::time::Time;
use std::collections::{BTreeMap, BTreeSet};

/// A violated invariant, in words.
pub type Problem = String;

impl Dcm {
    /// All violated invariants; empty when the state is sound.
    pub fn check(&self, now: Time) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut say = |p: String| problems.push(p);
        let (mut up, mut wanting, mut walled, mut by_accepts) = (0, 0, 0, ByAccepts::default());
        for (ix, m) in self.members.iter().enumerate() {
            let (ix, Some(m)) = (ix as Ix, m) else { continue };
            up += m.info.up.0;
            by_accepts.up(m.accepts(), 0, m.info.up.0);
            wanting += u32::from(m.wants && m.udp());
            walled += u32::from(m.wants && !m.udp());
            if m.wants && m.udp() {
                by_accepts.wanting(m.accepts(), true);
            }
            if self.by_node.get(&m.info.node) != Some(&ix) {
                say(format!("{:?} is not found by its id", m.info.node));
            }
            for e in &m.parents {
                match self.member(e.parent) {
                    None => say(format!("{:?} has a parent that left", m.info.node)),
                    Some(p) => {
                        if !p.children.contains(&ix) {
                            say(format!("{:?} is not a child of its parent {:?}", m.info.node, p.info.node));
                        }
                        if !(p.udp() && m.udp()) {
                            say(format!("UDP does not reach {:?} or its parent {:?}", m.info.node, p.info.node));
                        }
                        if m.listed_only() && p.class() != SourceClass::Waypoint {
                            say(format!("{:?} has a parent that is not on its access list", m.info.node));
                        }
                        if !m.reachability().compatible(&p.reachability()) {
                            say(format!("{:?} and {:?} cannot reach each other", m.info.node, p.info.node));
                        }
                        if !p.forwards() {
                            say(format!("{:?} forwards nothing and has a child", p.info.node));
                        }
                    }
                }
                if e.parent == ix {
                    say(format!("{:?} is its own parent", m.info.node));
                }
            }
            for c in &m.children {
                if !self.member(*c).is_some_and(|c| c.has_parent(ix)) {
                    say(format!("{:?} has a child that does not know", m.info.node));
                }
            }
            if !m.wants && !m.parents.is_empty() {
                say(format!("{:?} has everything and still has parents", m.info.node));
            }
            if m.children.len() as u32 > self.most_children(m) + 16 {
                say(format!("{:?} has {} children", m.info.node, m.children.len()));
            }
            if m.parents.len() as u32 > self.config.max_parents + 16 {
                say(format!("{:?} has {} parents", m.info.node, m.parents.len()));
            }
            let short = m.wants && m.udp() && (m.parents.len() as u32) < self.target;
            if short && !self.hungry.contains(&ix) {
                say(format!("{:?} lacks parents and nobody looks for more", m.info.node));
            }
            let spare = self.spare_of(ix);
            let bucket = (m.away_since.is_none() && spare.0 > 0).then(|| spare.bucket());
            if m.standing == Standing::Banned && !m.children.is_empty() {
                say(format!("{:?} is banned and has children", m.info.node));
            }
            if (m.standing != Standing::Good) != self.distrusted.contains(&ix) {
                say(format!("{:?} stands {:?}, which the list says otherwise", m.info.node, m.standing));
            }
            if m.indexed != bucket {
                say(format!("{:?} is indexed at {:?} but spares {bucket:?}", m.info.node, m.indexed));
            }
            if m.reachability != m.info.reachability() {
                say(format!("{:?} can be reached in another way than is thought", m.info.node));
            }
            if m.away_since.is_some() != self.aways.contains(&ix) {
                say(format!("{:?} is away since {:?}, which the list says otherwise", m.info.node, m.away_since));
            }
            if m.away_since.is_some_and(|t| now.since(t).0 > self.config.grace.0 + 2_000_000) {
                say(format!("{:?} is away for too long", m.info.node));
            }
        }
        let counted = (self.up_total, self.wanting, self.wanting_walled, self.by_accepts);
        let right = (up, wanting, walled, by_accepts);
        if counted != right {
            say(format!("counts {counted:?} should be {right:?}"));
        }
        let mut far_links: BTreeMap<u64, FarLinks> = BTreeMap::new();
        for m in self.members() {
            for e in m.parents.iter().filter(|e| self.member(e.parent).is_some_and(|p| self.is_far(p, m))) {
                let n = far_links.entry(m.region).or_default();
                *n = FarLinks { all: n.all + 1, sole: n.sole + u32::from(e.sole) };
            }
        }
        let far_children: BTreeSet<(u64, Ix)> = (self.members.iter().enumerate())
            .filter_map(|(ix, m)| Some((m.as_ref()?.region, ix as Ix)))
            .filter(|(_, ix)| self.has_far_parent(*ix))
            .collect();
        if self.far_children != far_children {
            say(format!("children with links from far {:?} should be {far_children:?}", self.far_children));
        }
        if self.far_links != far_links {
            say(format!("links from far {:?} should be {far_links:?}", self.far_links));
        }
        self.check_between(&mut say);
        self.check_sites(&mut say);
        if self.by_node.len() != self.members.iter().flatten().count() {
            say("members and ids differ".into());
        }
        self.leases.check(&self.members, &mut say);
        self.check_standing(&mut say);
        problems
    }
}
