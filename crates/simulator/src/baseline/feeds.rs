//! Who feeds whom which substream, as a baseline keeps it.

use headwater_center_core::trees::TreesStats;
use headwater_model::id::NodeId;
use headwater_model::live::Substreams;
use std::collections::BTreeMap;

/// A member of a stream.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// Children in all substreams together, at most.
    pub(super) slots: u32,
    pub(super) used: u32,
    /// By substream.
    parents: Vec<Option<NodeId>>,
    /// What each child is given.
    children: BTreeMap<NodeId, Substreams>,
}

/// Trees, one per substream.
#[derive(Debug)]
pub(super) struct Feeds {
    substreams: u8,
    pub(super) source: Option<NodeId>,
    members: BTreeMap<NodeId, Member>,
}

impl Feeds {
    pub(super) fn new(substreams: u8) -> Feeds {
        Feeds { substreams, source: None, members: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, node: NodeId, slots: u32) {
        let parents = vec![None; usize::from(self.substreams)];
        self.members.entry(node).or_insert(Member { slots, parents, ..Member::default() });
    }
    pub(super) fn get(&self, node: &NodeId) -> Option<&Member> {
        self.members.get(node)
    }
    /// All members, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Member)> {
        self.members.iter()
    }
    pub(super) fn is_source(&self, node: &NodeId) -> bool {
        self.source.as_ref() == Some(node)
    }

    pub(super) fn parent(&self, node: &NodeId, substream: u8) -> Option<NodeId> {
        self.members.get(node)?.parents.get(usize::from(substream)).copied().flatten()
    }
    /// Parents of a node, and what each gives.
    pub(super) fn parents(&self, node: &NodeId) -> BTreeMap<NodeId, Substreams> {
        let mut all: BTreeMap<NodeId, Substreams> = BTreeMap::new();
        for substream in 0..self.substreams {
            if let Some(parent) = self.parent(node, substream) {
                all.entry(parent).or_default().insert(substream);
            }
        }
        all
    }
    /// Children of a node, and what each is given.
    pub(super) fn children(&self, node: &NodeId) -> impl Iterator<Item = (&NodeId, Substreams)> {
        self.members.get(node).into_iter().flat_map(|m| m.children.iter().map(|(child, what)| (child, *what)))
    }

    /// Edges from the source to a node in a tree; nothing where it is not fed, or below `but`.
    pub(super) fn depth(&self, node: &NodeId, substream: u8, but: Option<&NodeId>) -> Option<u32> {
        let (mut at, mut depth) = (*node, 0);
        while !self.is_source(&at) {
            if Some(&at) == but || depth as usize > self.members.len() {
                return None;
            }
            at = self.parent(&at, substream)?;
            depth += 1;
        }
        Some(depth)
    }

    /// Whether `parent` may feed a substream to `child`: it is fed, not through the child, and has a slot left.
    pub(super) fn could_feed(&self, parent: &NodeId, child: &NodeId, substream: u8) -> bool {
        let free = self.members.get(parent).is_some_and(|m| m.used < m.slots);
        free && parent != child && self.depth(parent, substream, Some(child)).is_some()
    }

    /// From now on `parent` feeds a substream to `child`, or nobody does. Returns the former parent.
    pub(super) fn set(&mut self, child: &NodeId, substream: u8, parent: Option<NodeId>) -> Option<NodeId> {
        let place = self.members.get_mut(child)?.parents.get_mut(usize::from(substream))?;
        let former = std::mem::replace(place, parent);
        if former == parent {
            return None;
        }
        if let Some(m) = former.and_then(|f| self.members.get_mut(&f)) {
            m.used = m.used.saturating_sub(1);
            if let Some(given) = m.children.get_mut(child) {
                given.remove(substream);
                if given.is_empty() {
                    m.children.remove(child);
                }
            }
        }
        if let Some(m) = parent.and_then(|p| self.members.get_mut(&p)) {
            m.used += 1;
            m.children.entry(*child).or_default().insert(substream);
        }
        former
    }

    /// A node is gone. Returns its children, and what they have nobody for now.
    pub(super) fn remove(&mut self, node: &NodeId) -> Vec<(NodeId, Substreams)> {
        let orphans: Vec<(NodeId, Substreams)> = self.children(node).map(|(child, what)| (*child, what)).collect();
        for (child, what) in &orphans {
            for substream in what.iter() {
                self.set(child, substream, None);
            }
        }
        for substream in 0..self.substreams {
            self.set(node, substream, None);
        }
        self.members.remove(node);
        self.source.take_if(|s| s == node);
        orphans
    }

    /// Numbers for people; takes time in proportion to the members and the depth.
    pub(super) fn stats(&self) -> TreesStats {
        let mut stats = TreesStats { members: self.members.len(), ..TreesStats::default() };
        let (mut sum, mut fed) = (0u64, 0u64);
        for node in self.members.keys().filter(|n| !self.is_source(n)) {
            for substream in 0..self.substreams {
                stats.edges += usize::from(self.parent(node, substream).is_some());
                match self.depth(node, substream, None) {
                    Some(depth) => {
                        (sum, fed) = (sum + u64::from(depth), fed + 1);
                        stats.max_depth = stats.max_depth.max(depth);
                    }
                    None => stats.unfed += 1,
                }
            }
        }
        stats.source_slots_used = self.source.and_then(|s| self.members.get(&s)).map_or(0, |m| m.used);
        stats.mean_depth = sum as f64 / fed.max(1) as f64;
        stats
    }

    /// What does not add up.
    pub(super) fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (node, m) in &self.members {
            let given: u32 = m.children.values().map(|what| what.len()).sum();
            if given != m.used || m.used > m.slots {
                problems.push(format!("{node:?} feeds {given} places, counts {} and has {}", m.used, m.slots));
            }
            for (parent, what) in self.parents(node) {
                let gives = self.members.get(&parent).and_then(|p| p.children.get(node)).copied();
                if gives != Some(what) {
                    problems.push(format!("{node:?} has {what:?} of {parent:?}, which gives it {gives:?}"));
                }
            }
        }
        problems
    }
}
