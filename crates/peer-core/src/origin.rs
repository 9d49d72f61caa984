//! The origin: runs that the control center leased, and runs fetched alone while it is away (idea 10: the last resort).

use crate::swarm::{Output, Swarm};
use headwater_model::time::Time;
use std::collections::BTreeMap;
use std::ops::Range;

/// Runs being fetched from the origin.
#[derive(Clone, Debug, Default)]
pub(crate) struct OriginWork {
    /// Run → whether it was leased.
    runs: BTreeMap<u32, bool>,
    pub(crate) bytes: u64,
    /// When this node may begin to fetch without a lease.
    alone_at: Option<Time>,
}

impl OriginWork {
    pub(crate) fn busy(&self) -> bool {
        !self.runs.is_empty()
    }
    pub(crate) fn leased_runs(&self) -> impl Iterator<Item = u32> {
        self.runs.keys().copied()
    }
    pub(crate) fn fetches(&self, run: u32) -> bool {
        self.runs.contains_key(&run)
    }
}

impl Swarm {
    pub(crate) fn leased(&mut self, now: Time, run: u32, by_control: bool, out: &mut Vec<Output>) {
        let _ = now;
        if run >= self.layout.runs() || self.origin.runs.contains_key(&run) {
            return;
        }
        if self.runs.get(run) {
            out.push(Output::LeaseDone(run));
            return;
        }
        let pieces = self.unclaimed_of(run);
        self.origin.runs.insert(run, by_control);
        for piece in pieces.iter().cloned().flatten() {
            self.claimed.set(piece);
        }
        // Nothing left to fetch: the rest of the run is on its way from parents.
        if !pieces.is_empty() {
            out.push(Output::FetchOrigin { run, pieces });
        }
    }

    fn unclaimed_of(&self, run: u32) -> Vec<Range<u32>> {
        let mut ranges: Vec<Range<u32>> = Vec::new();
        for piece in self.layout.pieces_of_run(run).filter(|p| !self.claimed.get(*p)) {
            match ranges.last_mut() {
                Some(last) if last.end == piece => last.end += 1,
                _ => ranges.push(piece..piece + 1),
            }
        }
        ranges
    }

    pub(crate) fn run_complete(&mut self, run: u32, out: &mut Vec<Output>) {
        if let Some(by_control) = self.origin.runs.remove(&run)
            && by_control
        {
            out.push(Output::LeaseDone(run));
        }
    }

    pub(crate) fn lease_revoked(&mut self, run: u32, out: &mut Vec<Output>) {
        if self.origin.runs.remove(&run).is_some() {
            self.release(run);
            out.push(Output::StopOrigin(run));
        }
    }

    pub(crate) fn origin_failed(&mut self, now: Time, run: u32, why: String, changed: bool, out: &mut Vec<Output>) {
        let Some(by_control) = self.origin.runs.remove(&run) else { return };
        self.release(run);
        if by_control {
            out.push(Output::LeaseFailed { run, why, changed });
        } else {
            self.wait_alone(now);
        }
    }

    /// What was to come from the origin may be asked of parents again.
    fn release(&mut self, run: u32) {
        let asked: Vec<u32> = self.parents.values().flat_map(|p| p.asked().iter().copied()).collect();
        for piece in self.layout.pieces_of_run(run) {
            if !self.have.get(piece) && !asked.contains(&piece) {
                self.claimed.clear(piece);
            }
        }
    }

    fn wait_alone(&mut self, now: Time) {
        let wait = self.rng.below(self.config.alone.0.max(1));
        self.origin.alone_at = Some(Time(now.0 + 500_000 + wait));
    }

    /// Without control center and without anything to ask of a parent: runs from the origin, in random order after a
    /// random time, so that many who are alone do not fetch the same.
    pub(crate) fn go_alone(&mut self, now: Time, out: &mut Vec<Output>) {
        let idle = self.parents.values().all(|p| p.asked().is_empty());
        if self.control || !idle || !self.may_use_origin || !self.pages.complete() {
            self.origin.alone_at = None;
            return;
        }
        match self.origin.alone_at {
            None => self.wait_alone(now),
            Some(at) if at <= now => {
                while self.origin.runs.len() < self.config.alone_runs {
                    let (all, first) =
                        (self.layout.runs(), self.rng.below(u64::from(self.layout.runs().max(1))) as u32);
                    let missing = (0..all)
                        .map(|i| (first + i) % all)
                        .find(|r| !self.runs.get(*r) && !self.origin.runs.contains_key(r));
                    let Some(run) = missing else { return };
                    self.leased(now, run, false, out);
                }
            }
            Some(_) => {}
        }
    }
}
