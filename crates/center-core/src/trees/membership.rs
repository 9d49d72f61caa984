//! Who is in the trees, what their uplink is good for, and who is the source.

use super::Trees;
use super::clusters::{Cx, WORLD};
use super::member::{Member, most_children};
use crate::dcm::{Ix, MemberInfo};
use crate::trust::Standing;
use headwater_model::SourceClass;
use headwater_model::assignment::Reach;
use headwater_model::id::NodeId;
use headwater_model::live::Substreams;
use headwater_model::node::Capabilities;
use headwater_model::place::TIERS;
use headwater_model::report::Join;
use headwater_model::time::{Rate, Time};
use std::cmp::Reverse;
use std::collections::BTreeSet;

impl Trees {
    pub(super) fn admit(&mut self, info: MemberInfo) -> Ix {
        let ix = self.vacant.pop().unwrap_or(self.members.len() as Ix);
        if ix as usize == self.members.len() {
            self.members.push(None);
        }
        self.order += 1;
        self.by_node.insert(info.node, ix);
        let m = Member::new(info, self.order);
        if let Some(slot) = self.members.get_mut(ix as usize) {
            *slot = Some(m);
        }
        self.clear_spots(ix);
        self.enter_groups(ix);
        self.resize(ix);
        self.put_in(ix);
        ix
    }

    /// A member joins again: what it says of itself replaces what was known.
    pub(super) fn back(&mut self, now: Time, ix: Ix, mut info: MemberInfo) {
        let Some(m) = self.member(ix) else { return };
        let known = |a: &_| m.info.reach.addresses.contains(a);
        let same_socket = m.info.reach.certificate == info.reach.certificate && info.reach.addresses.iter().any(known);
        let was_gone = m.away_since.is_some() || !same_socket;
        let place = std::mem::take(&mut info.place);
        let tier_keys = TIERS.map(|t| place.key(t));
        let moved = m.tier_keys != tier_keys;
        let mut orphans = Vec::new();
        if moved || !same_socket {
            // Its connections are gone, and all edges with them.
            orphans = self.cut_children(now, ix, |_, _| true);
            self.cut_parents(now, ix, None);
        }
        if moved {
            self.move_to(ix, tier_keys);
        }
        self.take_out(ix);
        self.order += 1;
        let order = self.order;
        let is_source = self.source == Some(ix);
        if let Some(m) = self.member_mut(ix) {
            m.reachability = info.reachability();
            m.info = info;
            (m.away_since, m.deserted_until) = (None, None);
            if was_gone && !is_source {
                m.order = order;
            }
            m.restarted_at = if same_socket { m.restarted_at } else { Some(now) };
        }
        self.put_in(ix);
        self.aways.remove(&ix);
        self.doubt_spares(ix);
        orphans.extend(self.cut_unfit(now, ix));
        orphans.extend(self.reslot(now, ix));
        self.neighbours(ix).into_iter().for_each(|other| self.dirty(now, other));
        self.replace(now, orphans);
    }

    /// A member that was away is heard of again.
    pub(super) fn return_of(&mut self, now: Time, ix: Ix) {
        if self.member(ix).is_none_or(|m| m.away_since.is_none()) {
            return;
        }
        self.set_away(ix, None);
        // What changed meanwhile was not sent.
        self.dirty(now, ix);
        self.elect(now);
        let surplus = self.reslot(now, ix);
        self.replace(now, surplus);
        self.settle_in(now, ix);
        self.feed(now);
    }

    pub(super) fn set_away(&mut self, ix: Ix, since: Option<Time>) {
        self.take_out(ix);
        if let Some(m) = self.member_mut(ix) {
            m.away_since = since;
        }
        self.put_in(ix);
        if since.is_some() {
            self.aways.insert(ix);
        } else {
            self.aways.remove(&ix);
        }
    }

    /// Cuts the edges of a member that cannot exist any more; the children that lost a parent.
    pub(super) fn cut_unfit(&mut self, now: Time, ix: Ix) -> Vec<(u8, Ix)> {
        let fits = |other: Ix| {
            let pair = self.member(ix).zip(self.member(other));
            pair.is_some_and(|(a, b)| {
                a.info.reachability().compatible(&b.info.reachability()) && !a.limited() && !b.limited()
            })
        };
        let unfit: Vec<Ix> = self.neighbours(ix).into_iter().filter(|other| !fits(*other)).collect();
        let mut orphans = Vec::new();
        for other in unfit {
            orphans.extend(self.cut_parents(now, ix, Some(other)));
            orphans.extend(self.cut_parents(now, other, Some(ix)));
        }
        orphans
    }

    /// Parents and children of a member.
    pub(super) fn neighbours(&self, ix: Ix) -> BTreeSet<Ix> {
        self.spots(ix).flat_map(|(_, s)| s.children.iter().copied().chain(s.parent)).collect()
    }

    /// Counts anew what a member's uplink is good for; children beyond that lose it, the latest first.
    pub(super) fn reslot(&mut self, now: Time, ix: Ix) -> Vec<(u8, Ix)> {
        self.take_out(ix);
        self.resize(ix);
        self.put_in(ix);
        let away = self.member(ix).is_none_or(|m| m.away_since.is_some());
        if away { Vec::new() } else { self.shed(now, ix) }
    }

    /// The slots of a member that is in no set, and where it is at home with them.
    fn resize(&mut self, ix: Ix) {
        let Some(m) = self.member(ix) else { return };
        let most = most_children(m.info.role, &self.config, self.terms.substreams.get());
        let slots = m.slots_now(&self.terms, most);
        self.count_homes(ix, false);
        if let Some(m) = self.member_mut(ix) {
            m.slots = slots;
        }
        self.choose_homes(ix);
        self.count_homes(ix, true);
    }

    fn shed(&mut self, now: Time, ix: Ix) -> Vec<(u8, Ix)> {
        let Some(m) = self.member(ix).filter(|m| m.used > m.slots) else { return Vec::new() };
        let surplus = (m.used - m.slots) as usize;
        let children = |tree: u8| self.children(tree, ix).iter().copied();
        let since = |tree: u8, c: Ix| self.spot(tree, c).map(|s| s.since);
        let mut edges: Vec<_> =
            self.all_trees().flat_map(|t| children(t).map(move |c| (t, c))).map(|(t, c)| (since(t, c), t, c)).collect();
        edges.sort_by_key(|edge| Reverse(*edge));
        let cut: Vec<(u8, Ix)> = edges.into_iter().take(surplus).map(|(_, t, c)| (t, c)).collect();
        cut.iter().for_each(|(tree, child)| self.unlink(now, *tree, *child));
        cut
    }

    /// After a restart: a member is at home where it has children.
    pub(super) fn keep_homes(&mut self, ix: Ix) {
        self.take_out(ix);
        self.count_homes(ix, false);
        let substreams = self.terms.substreams.get();
        let children = self.spots(ix).map(|(tree, s)| (s.children.len(), tree));
        let mut trees: Vec<(usize, u8)> = children.filter(|t| t.0 > 0).collect();
        trees.sort_by_key(|t| Reverse(*t));
        if let Some(m) = self.member_mut(ix) {
            m.homes = Substreams::default();
            trees.iter().take(m.homes_wanted(substreams) as usize).for_each(|(_, t)| m.homes.insert(*t));
        }
        self.choose_homes(ix);
        self.count_homes(ix, true);
        self.put_in(ix);
    }

    /// As many homes as its slots need, where slots are scarcest.
    fn choose_homes(&mut self, ix: Ix) {
        let Some(m) = self.member(ix) else { return };
        let is_peer = m.info.class() == SourceClass::Peer && self.source != Some(ix);
        let wanted = if is_peer { m.homes_wanted(self.terms.substreams.get()) } else { 0 };
        let (mut homes, nearest) = (m.homes, m.chain.nearest());
        while homes.len() > wanted {
            let children = |t: &u8| self.children(*t, ix).len();
            let Some(least) = homes.iter().min_by_key(children) else { break };
            homes.remove(least);
        }
        while homes.len() < wanted {
            let of = |cx: Cx, t: u8| self.clusters.part(cx, t).map_or(0, |p| p.capacity);
            let capacity = |t: &u8| (of(nearest, *t), of(WORLD, *t));
            let away_from = self.all_trees().filter(|t| !homes.contains(*t));
            let Some(scarcest) = away_from.min_by_key(capacity) else { break };
            homes.insert(scarcest);
        }
        if let Some(m) = self.member_mut(ix) {
            m.homes = homes;
        }
    }

    pub(super) fn count_homes(&mut self, ix: Ix, there: bool) {
        let Some((homes, slots, chain)) = self.member(ix).map(|m| (m.homes, m.slots, m.chain)) else { return };
        let share = u64::from(slots / homes.len().max(1));
        for (tree, cluster) in homes.iter().flat_map(|t| chain.outwards(0).map(move |cx| (t, cx))) {
            if let Some(part) = self.clusters.part_mut(cluster, tree) {
                part.capacity = if there { part.capacity + share } else { part.capacity.saturating_sub(share) };
            }
        }
    }

    // ---- what changes about a member ----

    /// The uplink that the stream may use at `node` changed: children beyond it get other parents.
    pub fn set_rate(&mut self, now: Time, node: &NodeId, up: Rate) {
        let Some(ix) = self.by_node.get(node).copied() else { return };
        if self.member(ix).is_none_or(|m| m.info.up == up) {
            return;
        }
        self.take_out(ix);
        if let Some(m) = self.member_mut(ix) {
            m.info.up = up;
        }
        self.put_in(ix);
        let surplus = self.reslot(now, ix);
        self.replace(now, surplus);
        self.feed(now);
    }

    /// How a member can be reached was found out, or changed: edges that cannot exist any more are cut and repaired.
    pub fn set_reach(&mut self, now: Time, node: &NodeId, capabilities: Capabilities, reach: Reach) {
        let Some(ix) = self.by_node.get(node).copied() else { return };
        if self.member(ix).is_none_or(|m| m.info.capabilities == capabilities && m.info.reach == reach) {
            return;
        }
        self.take_out(ix);
        if let Some(m) = self.member_mut(ix) {
            // The rest may differ between sessions only.
            let Capabilities { accepts, listens, .. } = capabilities;
            m.info.capabilities = Capabilities { accepts, listens, ..m.info.capabilities };
            m.info.reach = reach;
            m.reachability = m.info.reachability();
        }
        self.put_in(ix);
        self.doubt_spares(ix);
        // Who dials may have changed, or where to.
        self.neighbours(ix).into_iter().for_each(|other| self.dirty(now, other));
        self.dirty(now, ix);
        let orphans = self.cut_unfit(now, ix);
        self.replace(now, orphans);
        self.settle_in(now, ix);
        self.feed(now);
    }

    /// The control center's verdict on a member as a parent.
    pub fn set_standing(&mut self, now: Time, node: &NodeId, standing: Standing) {
        let Some(ix) = self.by_node.get(node).copied() else { return };
        if self.member(ix).is_none_or(|m| m.info.standing == standing) {
            return;
        }
        self.take_out(ix);
        if let Some(m) = self.member_mut(ix) {
            m.info.standing = standing;
        }
        self.put_in(ix);
        let mut orphans = self.reslot(now, ix);
        if standing == Standing::Banned {
            orphans.extend(self.cut_children(now, ix, |_, _| true));
            self.not_relied_on(now, ix);
        }
        self.elect(now);
        self.replace(now, orphans);
        self.feed(now);
    }

    // ---- the source ----

    /// Whoever may be the source and has been here longest is it, unless there is one.
    pub(super) fn elect(&mut self, now: Time) {
        if self.source.is_some_and(|s| self.may_be_source(s)) {
            return;
        }
        let order = |ix: &Ix| self.member(*ix).map(|m| m.order);
        let heir = self.sources.iter().copied().filter(|ix| self.may_be_source(*ix)).min_by_key(order);
        // One that is away may still deliver where nobody takes its place.
        let keeps = self.source.and_then(|s| self.member(s)).is_some_and(|m| m.offers_source && m.away_since.is_some());
        if heir.is_some() || !keeps {
            self.crown(now, heir);
        }
    }

    /// The source is silent, as its children say: one that stands by takes its place. Where the word was false nothing is
    /// lost, as the new one goes on behind it; so that nobody makes a game of it, it counts once in a while.
    pub(super) fn succeed(&mut self, now: Time) {
        if now.since(self.crowned_at) < self.config.grace {
            return;
        }
        let order = |ix: &Ix| self.member(*ix).map(|m| m.order);
        let others = self.sources.iter().copied().filter(|ix| Some(*ix) != self.source && self.may_be_source(*ix));
        let heir = others.min_by_key(order);
        if heir.is_some() {
            self.crown(now, heir);
        }
    }

    fn may_be_source(&self, ix: Ix) -> bool {
        self.member(ix).is_some_and(|m| {
            m.offers_source && m.away_since.is_none() && !m.limited() && m.info.standing != Standing::Banned
        })
    }

    pub(super) fn crown(&mut self, now: Time, new: Option<Ix>) {
        let old = self.source;
        if old == new {
            return;
        }
        let mut orphans = old.map(|old| self.cut_children(now, old, |_, _| true)).unwrap_or_default();
        if let Some(new) = new {
            self.cut_parents(now, new, None);
        }
        let both: Vec<Ix> = old.into_iter().chain(new).collect();
        self.rechain(&both, |trees, _| trees.source = new);
        self.source = new;
        self.crowned_at = now;
        self.source_sent.fill(0);
        for ix in both {
            orphans.extend(self.reslot(now, ix));
            self.dirty(now, ix);
        }
        if let Some(new) = new {
            self.root_all(new);
        }
        orphans.retain(|(_, ix)| Some(*ix) != new);
        self.replace(now, orphans);
        if let Some(old) = old {
            self.settle_in(now, old);
        }
    }

    // ---- coming back after the control center was away ----

    /// Edges over which a returning node is served already are kept where they are sound. Parents that are not back yet
    /// are waited for.
    pub(super) fn adopt(&mut self, now: Time, ix: Ix, join: &Join) {
        let Some(child) = self.node_of(ix) else { return };
        for (parent, substreams) in &join.parents {
            match self.by_node.get(parent).copied() {
                Some(p) => self.adopt_edges(now, p, ix, *substreams),
                None if self.is_settling(now) => {
                    self.claims.entry(*parent).or_default().push((child, *substreams));
                }
                None => {}
            }
        }
        for (child, substreams) in self.claims.remove(&child).unwrap_or_default() {
            if let Some(c) = self.by_node.get(&child).copied() {
                self.adopt_edges(now, ix, c, substreams);
            }
        }
    }

    fn adopt_edges(&mut self, now: Time, parent: Ix, child: Ix, substreams: Substreams) {
        for tree in self.all_trees().filter(|t| substreams.contains(*t)) {
            let hungry = self.trees.get(usize::from(tree)).is_some_and(|t| t.hungry.contains(&child));
            let free = self.member(parent).is_some_and(|m| m.free() > 0);
            // Who says that the source serves it would have it for itself.
            let spared = self.source != Some(parent) || self.is_settling(now) || self.source_is_idle(tree);
            if hungry && free && spared && self.may_feed(now, tree, parent, child) {
                self.link(now, tree, parent, child);
            }
        }
    }
}
