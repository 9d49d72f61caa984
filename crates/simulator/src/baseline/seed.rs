//! What an origin does that decides nothing: it is fetched from, or it seeds.

use headwater_model::bits::Bits;
use headwater_model::id::NodeId;
use headwater_model::layout::Layout;
use headwater_model::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// Members that a seed serves at once: what libtorrent has by default (`unchoke_slots_limit`).
const SEED_SLOTS: usize = 8;
/// Runs that a member fetches alone at once: the next is asked for before the former one is here, as a download over one
/// connection that is never idle.
const ALONE_RUNS: usize = 2;

/// Who fetches which runs from the origin, and who holds what, as far as members told.
#[derive(Debug)]
pub(super) struct Seed {
    layout: Layout,
    held: BTreeMap<NodeId, Bits>,
    under_way: BTreeMap<NodeId, BTreeSet<u32>>,
    /// Of each run: members that hold it, or fetch it here.
    copies: Vec<u32>,
    /// Slots of the seed in use.
    served: BTreeSet<(NodeId, u32)>,
}

impl Seed {
    pub(super) fn new(layout: Layout) -> Seed {
        let copies = vec![0; layout.runs() as usize];
        Seed { layout, held: BTreeMap::new(), under_way: BTreeMap::new(), copies, served: BTreeSet::new() }
    }

    /// A member joins, with these runs and these fetches.
    pub(super) fn joins(&mut self, node: NodeId, runs: Bits, fetches: &[u32]) {
        self.leaves(&node);
        runs.iter().for_each(|run| self.count(run, 1));
        self.held.insert(node, runs);
        let runs = self.layout.runs();
        fetches.iter().filter(|run| **run < runs).for_each(|run| self.begins(node, *run));
    }

    pub(super) fn leaves(&mut self, node: &NodeId) {
        for run in self.under_way.remove(node).unwrap_or_default() {
            self.served.remove(&(*node, run));
            self.count(run, -1);
        }
        for run in self.held.remove(node).iter().flat_map(Bits::iter) {
            self.count(run, -1);
        }
    }

    fn count(&mut self, run: u32, by: i32) {
        if let Some(copies) = self.copies.get_mut(run as usize) {
            *copies = copies.saturating_add_signed(by);
        }
    }

    fn begins(&mut self, node: NodeId, run: u32) {
        if self.under_way.entry(node).or_default().insert(run) {
            self.count(run, 1);
        }
    }

    /// A member says what it holds.
    pub(super) fn holds(&mut self, node: &NodeId, runs: Bits) {
        let Some(before) = self.held.get_mut(node) else { return };
        let before = std::mem::replace(before, runs.clone());
        before.iter().for_each(|run| self.count(run, -1));
        runs.iter().for_each(|run| self.count(run, 1));
    }

    /// A fetch is over.
    pub(super) fn over(&mut self, node: &NodeId, run: u32, came: bool) {
        if self.under_way.get_mut(node).is_some_and(|runs| runs.remove(&run)) {
            self.served.remove(&(*node, run));
            self.count(run, -1);
        }
        if came && self.held.get_mut(node).is_some_and(|held| run < held.len() && held.set(run)) {
            self.count(run, 1);
        }
    }

    /// Fetches under way.
    pub(super) fn fetches(&self) -> usize {
        self.under_way.values().map(BTreeSet::len).sum()
    }

    fn lacks(&self, node: &NodeId, run: u32) -> bool {
        let held = self.held.get(node).is_some_and(|h| h.get(run));
        !held && !self.under_way.get(node).is_some_and(|u| u.contains(&run))
    }

    /// Who fetches all alone goes on in order: the runs that it begins now.
    pub(super) fn alone(&mut self, node: &NodeId) -> Vec<u32> {
        let busy = self.under_way.get(node).map_or(0, BTreeSet::len);
        let lacks: Vec<u32> = (0..self.layout.runs()).filter(|run| self.lacks(node, *run)).collect();
        let new: Vec<u32> = lacks.into_iter().take(ALONE_RUNS.saturating_sub(busy)).collect();
        new.iter().for_each(|run| self.begins(*node, *run));
        new
    }

    /// Slots that are free go to members at random that lack something and have none: of each the rarest run.
    pub(super) fn seeds(&mut self, rng: &mut Rng, may: impl Fn(&NodeId) -> bool) -> Vec<(NodeId, u32)> {
        let mut new = Vec::new();
        while self.served.len() < SEED_SLOTS {
            let idle = |node: &NodeId| self.under_way.get(node).is_none_or(BTreeSet::is_empty);
            let could: Vec<NodeId> =
                self.held.iter().filter(|(n, held)| !held.is_full() && idle(n) && may(n)).map(|(n, _)| *n).collect();
            let Some(node) = could.get(rng.below(could.len().max(1) as u64) as usize).copied() else { break };
            let lacks = (0..self.layout.runs()).filter(|run| self.lacks(&node, *run));
            let ranked = lacks.map(|run| (self.copies.get(run as usize).copied(), rng.next_u64(), run));
            let Some((.., run)) = ranked.min() else { break };
            self.begins(node, run);
            self.served.insert((node, run));
            new.push((node, run));
        }
        new
    }

    /// What does not add up.
    pub(super) fn check(&self) -> Vec<String> {
        let mut copies = vec![0u32; self.copies.len()];
        let of = self.held.values().flat_map(Bits::iter).chain(self.under_way.values().flatten().copied());
        for run in of {
            if let Some(n) = copies.get_mut(run as usize) {
                *n += 1;
            }
        }
        let wrong = (copies != self.copies).then(|| "the seed counts other copies than there are".to_owned());
        wrong.into_iter().collect()
    }
}
