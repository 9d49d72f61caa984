//! Faults: what begins, to whom, and how it ends.

use super::control::ToCenter;
use super::peers::pair;
use super::{Event, Nx, World};
use crate::scenario::{Fault, FaultKind, span};
use headwater_model::rng::Rng;
use headwater_model::time::{Micros, Time};

/// A connection whose other end says nothing for this long is over.
const IDLE: Micros = Micros::from_secs(3);
/// Pieces that rot at once.
const ROTTEN_MAX: usize = 4;

/// A step of a fault.
#[derive(Clone, Copy, Debug)]
pub(super) enum FaultStep {
    Begin(Fault),
    Return(Nx),
    Thaw(Nx),
    /// The others give up on a frozen node.
    Idle(Nx),
    Rates(Nx),
    OriginBack,
    ControlBack,
    ControlNew,
    Mend(Nx, Nx),
}

/// Peers notice a broken connection after 2 to 4 s.
fn idle_timeout(rng: &mut Rng) -> Micros {
    Micros(2_000_000 + rng.below(2_000_000))
}

impl World {
    pub(super) fn plan_faults(&mut self) {
        for fault in self.scenario.faults.clone() {
            let at = Time(0) + span(fault.at_s);
            self.queue.push(at, Event::Fault(FaultStep::Begin(fault)));
            self.faults_over = self.faults_over.max(at + span(fault.for_s));
        }
    }

    pub(super) fn fault(&mut self, step: FaultStep) {
        match step {
            FaultStep::Begin(fault) => self.begin(fault),
            FaultStep::Return(node) => self.start_process(node),
            FaultStep::Thaw(node) | FaultStep::Rates(node) => self.apply_rates(node),
            FaultStep::Idle(node) => {
                if self.nodes[node as usize].frozen_until > self.now {
                    self.break_all(node, |_| Micros(0));
                }
            }
            FaultStep::OriginBack => self.origin.up = true,
            FaultStep::ControlBack => self.control.reachable = true,
            FaultStep::ControlNew => {
                self.control.reachable = true;
                self.restart_center();
            }
            FaultStep::Mend(a, b) => {
                self.broken_pairs.remove(&(a, b));
            }
        }
    }

    fn begin(&mut self, fault: Fault) {
        let over = self.now + span(fault.for_s);
        let after = |world: &mut World, step| world.queue.push(over, Event::Fault(step));
        match fault.kind {
            FaultKind::OriginOut => {
                self.origin_goes();
                after(self, FaultStep::OriginBack);
            }
            FaultKind::ControlOut => {
                self.control.reachable = false;
                after(self, FaultStep::ControlBack);
            }
            FaultKind::ControlLost => {
                self.control.reachable = false;
                after(self, FaultStep::ControlNew);
            }
            FaultKind::LinkBreak => {
                for _ in 0..fault.count {
                    if let Some((a, b)) = self.some_pair() {
                        self.broken_pairs.insert((a, b));
                        if let Some(ix) = self.live_connection(a, b) {
                            self.break_connection(ix, idle_timeout);
                        }
                        after(self, FaultStep::Mend(a, b));
                    }
                }
            }
            _ => {
                for node in self.some_nodes(fault.count) {
                    self.hit(node, fault.kind, over);
                }
            }
        }
    }

    fn hit(&mut self, node: Nx, kind: FaultKind, over: Time) {
        let now = self.now;
        let n = &mut self.nodes[node as usize];
        match kind {
            FaultKind::Crash | FaultKind::Death => {
                self.end_process(node);
                self.break_all(node, idle_timeout);
                if kind == FaultKind::Crash {
                    self.queue.push(over, Event::Fault(FaultStep::Return(node)));
                } else {
                    self.nodes[node as usize].left_for_good = true;
                }
            }
            FaultKind::Leave => {
                if let Some(session) = n.session_number {
                    let node_id = n.id;
                    let bye = headwater_center_core::Input::Departed { node: node_id, session, bye: true };
                    self.tell_center(node, ToCenter::Input(Box::new(bye)));
                }
                self.end_process(node);
                self.break_all(node, |_| Micros::from_millis(30));
                self.queue.push(over, Event::Fault(FaultStep::Return(node)));
            }
            FaultKind::Freeze => {
                n.frozen_until = n.frozen_until.max(over);
                self.apply_rates(node);
                self.queue.push(over, Event::Fault(FaultStep::Thaw(node)));
                self.queue.push(now + IDLE, Event::Fault(FaultStep::Idle(node)));
            }
            FaultKind::Slow => {
                n.slow_until = n.slow_until.max(over);
                self.apply_rates(node);
                self.queue.push(over, Event::Fault(FaultStep::Rates(node)));
            }
            FaultKind::Corrupt => n.corrupt_until = n.corrupt_until.max(over),
            FaultKind::Rot => {
                let held: Vec<u32> = n.swarm.iter().flat_map(|s| s.have().iter()).collect();
                for _ in 0..ROTTEN_MAX.min(held.len()) {
                    n.rotten.insert(held[self.rng.below(held.len() as u64) as usize]);
                }
            }
            FaultKind::OriginOut | FaultKind::ControlOut | FaultKind::ControlLost | FaultKind::LinkBreak => {}
        }
    }

    fn apply_rates(&mut self, node: Nx) {
        let n = &self.nodes[node as usize];
        let (up, down) = match n {
            _ if n.frozen_until > self.now => (0.0, 0.0),
            _ if n.slow_until > self.now => (n.spec.up / 10.0, n.spec.down),
            _ => (n.spec.up, n.spec.down),
        };
        self.links.set_rates(n.link, up, down);
    }

    fn break_all(&mut self, node: Nx, notice: impl Fn(&mut Rng) -> Micros) {
        let connections: Vec<u32> = self.nodes[node as usize].connections.values().copied().collect();
        for ix in connections {
            self.break_connection(ix, &notice);
            // A process that ended has no connections.
            if self.nodes[node as usize].swarm.is_none() {
                self.let_go(node, ix, "");
            }
        }
    }

    /// Some different nodes whose processes run.
    fn some_nodes(&mut self, count: usize) -> Vec<Nx> {
        let mut running: Vec<Nx> =
            (0..self.nodes.len() as Nx).filter(|n| self.nodes[*n as usize].swarm.is_some()).collect();
        self.rng.shuffle(&mut running);
        running.truncate(count);
        running
    }

    /// Two nodes with a connection.
    fn some_pair(&mut self) -> Option<(Nx, Nx)> {
        let pairs: Vec<(Nx, Nx)> =
            self.connections.iter().filter(|c| !c.broken && c.held == 2).map(|c| pair(c.ends[0], c.ends[1])).collect();
        (!pairs.is_empty()).then(|| pairs[self.rng.below(pairs.len() as u64) as usize])
    }
}
