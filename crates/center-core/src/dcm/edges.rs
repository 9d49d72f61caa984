//! Edges: these are the only places that change them, on both sides at once.

use super::Dcm;
use super::member::{Ix, Member, ParentEdge};
use crate::network_monitor::EdgeWatch;
use crate::trust::Standing;
use headwater_model::time::Time;

/// Parents that a member is remembered to have had: what it says of one may cross the word that takes it away.
const MAX_PARTED: usize = 8;

impl Dcm {
    pub(super) fn link(&mut self, now: Time, parent: Ix, child: Ix) {
        if parent == child || self.member(parent).is_none() {
            return;
        }
        let Some(c) = self.member(child).filter(|c| !c.has_parent(parent)) else { return };
        let region = c.region;
        let (far, from) = self.member(parent).map_or((false, region), |p| (self.is_far(p, c), p.region));
        if far {
            self.far_links.entry(region).or_default().all += 1;
            self.far_children.insert((region, child));
        }
        self.count_between(from, region, true);
        if let Some(c) = self.member_mut(child) {
            c.parents.push(ParentEdge { parent, since: now, watch: EdgeWatch::default(), sole: false });
        }
        self.site_edge(parent, child, true);
        if let Some(p) = self.member_mut(parent) {
            p.children.push(child);
            if matches!(p.standing, Standing::OnTrial { .. }) {
                p.tried_by = Some(child);
            }
            *p.children_by_region.entry(region).or_default() += 1;
        }
        self.refresh(parent);
        self.dirty(now, parent);
        self.dirty(now, child);
        self.sated(child);
    }

    pub(super) fn unlink(&mut self, parent: Ix, child: Ix) {
        let node = self.node_of(parent);
        let Some(c) = self.member_mut(child) else { return };
        let Some(at) = c.parents.iter().position(|e| e.parent == parent) else { return };
        let edge = c.parents.remove(at);
        if c.parted.len() == MAX_PARTED {
            c.parted.pop_front();
        }
        c.parted.extend(node.map(|node| (node, edge.watch.served())));
        let (region, wants) = (c.region, c.wants);
        let (far, from) = match (self.member(parent), self.member(child)) {
            (Some(p), Some(c)) => (self.is_far(p, c), p.region),
            _ => (false, region),
        };
        self.count_between(from, region, false);
        if far && let Some(n) = self.far_links.get_mut(&region) {
            n.all -= 1;
            n.sole -= u32::from(edge.sole);
            if n.all == 0 {
                self.far_links.remove(&region);
            }
            if !self.has_far_parent(child) {
                self.far_children.remove(&(region, child));
            }
        }
        self.site_edge(parent, child, false);
        if let Some(p) = self.member_mut(parent) {
            p.children.retain(|x| *x != child);
            p.tried_by = p.tried_by.filter(|x| *x != child);
            if let Some(n) = p.children_by_region.get_mut(&region) {
                *n -= 1;
                if *n == 0 {
                    p.children_by_region.remove(&region);
                }
            }
        }
        if wants {
            self.hungry.insert(child);
        }
        self.refresh(parent);
        self.dirty.insert(parent);
        self.dirty.insert(child);
        self.flush_at.get_or_insert(Time(0));
    }

    pub(super) fn has_far_parent(&self, child: Ix) -> bool {
        let far = |c: &Member, p: Ix| self.member(p).is_some_and(|p| self.is_far(p, c));
        self.member(child).is_some_and(|c| c.parents.iter().any(|e| far(c, e.parent)))
    }

    /// A link from far that nobody near can replace.
    pub(super) fn link_sole(&mut self, now: Time, parent: Ix, child: Ix) {
        self.link(now, parent, child);
        let far = self.member(parent).zip(self.member(child)).is_some_and(|(p, c)| self.is_far(p, c));
        let Some(c) = self.member_mut(child).filter(|_| far) else { return };
        let Some(edge) = c.parents.iter_mut().find(|e| e.parent == parent && !e.sole) else { return };
        edge.sole = true;
        let region = c.region;
        self.far_links.entry(region).or_default().sole += 1;
    }

    pub(super) fn cut_all(&mut self, now: Time, ix: Ix) {
        let Some(m) = self.member(ix) else { return };
        let (parents, children): (Vec<Ix>, Vec<Ix>) =
            (m.parents.iter().map(|e| e.parent).collect(), m.children.clone());
        for p in parents {
            self.unlink(p, ix);
        }
        for c in children {
            self.unlink(ix, c);
            self.dirty(now, c);
        }
    }

    pub(super) fn sated(&mut self, child: Ix) {
        let enough = self.member(child).is_none_or(|c| !c.wants || c.parents.len() as u32 >= self.target);
        if enough {
            self.hungry.remove(&child);
        }
    }
}
