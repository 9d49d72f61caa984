//! What goes wrong, when, and to which viewers.

use super::viewers::{State, Vx};
use super::{What, World};
use crate::scenario::{Fault, FaultKind, Scenario, ScenarioError, span};
use headwater_model::rng::Rng;
use headwater_model::time::Time;

/// What flows know.
const KNOWN: [FaultKind; 4] = [FaultKind::Death, FaultKind::Leave, FaultKind::Slow, FaultKind::OriginOut];

/// Whether all faults of a scenario can be had with flows.
pub(super) fn check(scenario: &Scenario) -> Result<(), ScenarioError> {
    match scenario.faults.iter().find(|f| !KNOWN.contains(&f.kind)) {
        Some(fault) => Err(ScenarioError::LabOnly(format!("the fault {} beside a live channel", fault.kind.name()))),
        None => Ok(()),
    }
}

impl World<'_> {
    /// A fault begins.
    pub(super) fn fault(&mut self, now: Time, number: usize) {
        let Some(fault) = self.scenario.faults.get(number) else { return };
        let over = now + span(fault.for_s);
        if fault.kind == FaultKind::OriginOut {
            self.origin_out_until = self.origin_out_until.max(over);
            return;
        }
        for vx in self.hit(fault, number) {
            let who = self.viewers.who(vx);
            match fault.kind {
                FaultKind::Death => self.kill(now, vx),
                FaultKind::Leave => {
                    if let Some(host) = self.ends(now, who) {
                        self.queue.push(over, What::Comes(host));
                    }
                }
                _ => {
                    let viewer = &mut self.viewers.all[vx as usize];
                    self.queue.push(over, What::Restores(who, viewer.up));
                    viewer.up = (f64::from(viewer.up) * fault.slow_share()) as u32;
                }
            }
        }
    }

    /// Viewers that the seed picks, in their order.
    fn hit(&self, fault: &Fault, number: usize) -> Vec<Vx> {
        let group = |vx: Vx| self.hosts.get(self.viewers.all[vx as usize].host as usize).map(|h| usize::from(h.group));
        let is_of = |vx: &Vx| match &fault.group {
            Some(name) => group(*vx).is_some_and(|g| self.scenario.group_name(g) == *name),
            None => true,
        };
        let watches = |vx: &Vx| self.viewers.all[*vx as usize].state == State::Watching;
        let mut all: Vec<Vx> = (1..self.viewers.all.len() as Vx).filter(|vx| watches(vx) && is_of(vx)).collect();
        let count = fault.of_share.map_or(fault.count, |share| (all.len() as f64 * share).round() as usize);
        Rng::new(self.seed ^ number as u64, "fault").shuffle(&mut all);
        all.truncate(count);
        all.sort_unstable();
        all
    }
}
