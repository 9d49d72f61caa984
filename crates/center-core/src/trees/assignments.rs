//! Saying what was decided: assignments of members whose edges changed, sent together.

use super::Trees;
use super::member::slot_rate;
use crate::dcm::{DcmOutput, Ix, reach};
use headwater_model::assignment::{Assignment, Child, ChildrenChange, Generation, Parent};
use headwater_model::id::NodeId;
use headwater_model::live::Substreams;
use headwater_model::time::{Micros, Rate, Time};
#[cfg(test)]
use std::collections::BTreeMap;

/// Members that are told at one time; the others after a [`PAUSE`], in which what else there is gets decided.
const TOLD_AT_ONCE: usize = 500;
/// See [`TOLD_AT_ONCE`].
const PAUSE: Micros = Micros::from_millis(1);

/// What a member has not been told.
#[derive(Clone, Default, Debug)]
pub(super) struct Untold {
    /// More than children.
    whole: bool,
    /// Children that came, left, or are given other substreams, as long as it is no more than that. By node: a place may be
    /// another's by then.
    children: Vec<NodeId>,
}

impl Trees {
    /// It is to be told everything.
    pub(super) fn dirty(&mut self, now: Time, ix: Ix) {
        self.untold(now, ix).whole = true;
    }

    /// An edge from `parent` to `child` came or went.
    pub(super) fn children_changed(&mut self, now: Time, parent: Ix, child: Ix) {
        let child = self.node_of(child);
        let untold = self.untold(now, parent);
        if !untold.whole {
            untold.children.extend(child);
        }
    }

    fn untold(&mut self, now: Time, ix: Ix) -> &mut Untold {
        let at = (now + self.config.flush).max(self.settle_until);
        self.flush_at = Some(self.flush_at.map_or(at, |t| t.min(at)));
        self.untold.entry(ix).or_default()
    }

    pub(super) fn flush(&mut self, now: Time) {
        if self.is_settling(now) {
            // What one was served by is complete only when its parents are back.
            self.flush_at = Some(self.settle_until);
            return;
        }
        for _ in 0..TOLD_AT_ONCE {
            let Some((ix, untold)) = self.untold.pop_first() else { break };
            self.say(now, ix, untold);
        }
        self.flush_at = if self.untold.is_empty() { None } else { Some(now + PAUSE) };
    }

    /// A child in need and its new parents learn at once what was decided.
    pub(super) fn say_at_once(&mut self, now: Time, ix: Ix) {
        if self.is_settling(now) {
            return;
        }
        let parents: Vec<Ix> = self.all_trees().filter_map(|tree| self.parent(tree, ix)).collect();
        for who in parents.into_iter().chain([ix]) {
            if let Some(untold) = self.untold.remove(&who) {
                self.say(now, who, untold);
            }
        }
    }

    fn say(&mut self, now: Time, ix: Ix, mut untold: Untold) {
        // Who comes back is told everything.
        if self.member(ix).is_none_or(|m| m.away_since.is_some()) {
            return;
        }
        if !untold.whole {
            self.generation.counter += 1;
            untold.children.sort_unstable();
            untold.children.dedup();
            let change = self.change(ix, &untold.children, self.generation);
            self.out.extend(self.node_of(ix).map(|node| DcmOutput::ChangeChildren(node, change)));
            return;
        }
        self.freshen_helpers(now, ix);
        self.freshen_spares(now, ix, false);
        self.generation.counter += 1;
        if let Some(a) = self.assignment(now, ix, self.generation) {
            self.out.extend(self.node_of(ix).map(|node| DcmOutput::Assign(node, a)));
        }
    }

    fn assignment(&self, now: Time, ix: Ix, generation: Generation) -> Option<Assignment> {
        let parents = by_member(self.spots(ix).filter_map(|(tree, s)| Some((s.parent?, tree))));
        let spares = by_member(self.spots(ix).filter_map(|(tree, s)| Some((s.spare?, tree))));
        let children = by_member(self.spots(ix).flat_map(|(tree, s)| s.children.iter().map(move |c| (*c, tree))));
        Some(Assignment {
            version: self.version,
            generation,
            parents: each(&parents, |(p, trees)| self.as_parent(ix, *p, *trees)),
            spares: each(&spares, |(p, trees)| self.as_parent(ix, *p, *trees)),
            helpers: self.helpers_of(now, ix),
            children: each(&children, |(c, trees)| self.as_child(ix, *c, *trees)),
            source: self.source == Some(ix),
        })
    }

    fn change(&self, ix: Ix, children: &[NodeId], generation: Generation) -> ChildrenChange {
        let mut change = ChildrenChange { version: self.version, generation, came: Vec::new(), left: Vec::new() };
        for node in children {
            let child = self.by_node.get(node).copied();
            let mut substreams = Substreams::default();
            let is_given = |tree: &u8| child.is_some_and(|c| self.parent(*tree, c) == Some(ix));
            self.all_trees().filter(is_given).for_each(|tree| substreams.insert(tree));
            match child.filter(|_| !substreams.is_empty()).and_then(|c| self.as_child(ix, c, substreams)) {
                Some(child) => change.came.push(child),
                None => change.left.push(*node),
            }
        }
        change
    }

    /// Children as a member was told, and as they are, where these differ: nothing is to be said to it any more.
    #[cfg(test)]
    pub(super) fn told_wrong(&self, node: &NodeId, told: &Assignment) -> Option<String> {
        let ix = self.by_node.get(node).copied().filter(|ix| !self.untold.contains_key(ix))?;
        self.member(ix).filter(|m| m.away_since.is_none())?;
        let now = self.assignment(Time(0), ix, told.generation)?;
        let set = |a: &Assignment| a.children.iter().map(|c| (c.node, c.substreams)).collect::<BTreeMap<_, _>>();
        (set(&now) != set(told)).then(|| format!("{node:?} was told of {:?}, has {:?}", set(told), set(&now)))
    }

    fn helpers_of(&self, now: Time, ix: Ix) -> Vec<Parent> {
        let helpers = self.member(ix).map(|m| m.helpers.as_slice()).unwrap_or_default();
        each(helpers, |h| {
            let entry = self.as_parent(ix, *h, self.terms.all())?;
            Some(Parent { promised: self.help_for_each(now, *h), ..entry })
        })
    }

    fn as_parent(&self, child: Ix, parent: Ix, substreams: Substreams) -> Option<Parent> {
        let (c, p) = (self.member(child)?, self.member(parent)?);
        Some(Parent {
            node: p.info.node,
            class: p.info.class(),
            dial: c.reachability.dials(&p.reachability),
            promised: Rate(slot_rate(&self.terms).0.saturating_mul(u64::from(substreams.len()))),
            reach: reach(&c.reachability, &p.reachability, &p.info),
            substreams,
        })
    }

    fn as_child(&self, parent: Ix, child: Ix, substreams: Substreams) -> Option<Child> {
        let (p, c) = (self.member(parent)?, self.member(child)?);
        let (own, theirs) = (&p.reachability, &c.reachability);
        let (dial, punch) = (own.dials(theirs), own.punches(theirs));
        Some(Child { node: c.info.node, dial, punch, reach: reach(own, theirs, &c.info), substreams })
    }
}

/// The trees of each member, by its index.
fn by_member(places: impl Iterator<Item = (Ix, u8)>) -> Vec<(Ix, Substreams)> {
    let mut places: Vec<(Ix, u8)> = places.collect();
    places.sort_unstable();
    let mut all: Vec<(Ix, Substreams)> = Vec::with_capacity(places.len());
    for (ix, tree) in places {
        if all.last().is_none_or(|last| last.0 != ix) {
            all.push((ix, Substreams::default()));
        }
        all.last_mut().into_iter().for_each(|(_, trees)| trees.insert(tree));
    }
    all
}

/// As `filter_map` and `collect`, in room that is asked for once: entries are large.
fn each<T, U>(all: &[T], of: impl FnMut(&T) -> Option<U>) -> Vec<U> {
    let mut some = Vec::with_capacity(all.len());
    some.extend(all.iter().filter_map(of));
    some
}
