//! Faults: what begins, to whom, and how it ends.

use super::control::ToCenter;
use super::peers::pair;
use super::{Event, Nx, World};
use crate::scenario::{Fault, FaultKind, MBIT, span};
use headwater_model::rng::Rng;
use headwater_model::time::{Micros, Time};
use headwater_peer_core::Input;
use std::collections::BTreeSet;

/// A connection whose other end says nothing for this long is over.
const IDLE: Micros = Micros::from_secs(3);
/// Pieces that rot at once.
const ROTTEN_MAX: usize = 4;
/// How often faults look whether the share of the content that they wait for is held.
const LOOK: Micros = Micros::from_millis(100);

/// A step of a fault.
#[derive(Clone, Copy, Debug)]
pub(super) enum FaultStep {
    /// The fault of this index.
    Begin(usize),
    /// Faults look at what receivers hold.
    Look,
    Return(Nx),
    /// A content that was withdrawn is published again.
    Republish(usize),
    /// The node leaves for good.
    Goodbye(Nx),
    Thaw(Nx),
    /// The others give up on a frozen node.
    Idle(Nx),
    Rates(Nx),
    OriginBack,
    ControlBack,
    ControlNew,
    Mend(Nx, Nx),
    PeeringMended,
    PeeringRate,
}

/// Peers notice a broken connection after 2 to 4 s.
pub(super) fn idle_timeout(rng: &mut Rng) -> Micros {
    Micros(2_000_000 + rng.below(2_000_000))
}

impl World {
    pub(super) fn plan_faults(&mut self) {
        for (ix, fault) in self.scenario.faults.clone().into_iter().enumerate() {
            if let Some(at_s) = fault.at_s {
                let at = Time(0) + span(at_s);
                self.queue.push(at, Event::Fault(FaultStep::Begin(ix)));
                self.faults_over = self.faults_over.max(at + span(fault.for_s));
            }
            if let Some(share) = fault.at_share {
                self.step_at_share(share, FaultStep::Begin(ix));
            }
        }
    }

    fn step_at_share(&mut self, share: f64, step: FaultStep) {
        if self.at_share.is_empty() {
            self.queue.push(self.now + LOOK, Event::Fault(FaultStep::Look));
        }
        self.at_share.push((share, step));
    }

    /// Does what waits for the share of the content that receivers hold on average.
    fn look_at_shares(&mut self) {
        let receivers = || self.nodes.iter().enumerate().filter(|(_, n)| n.spec.receives());
        let held: u64 = receivers()
            .map(|(_, n)| n.swarm.as_ref().map_or(&n.disk, |s| s.have()))
            .map(|have| u64::from(have.ones()))
            .sum();
        let all: u64 = receivers().map(|(node, _)| u64::from(self.layout(node as Nx).pieces())).sum();
        let share = held as f64 / all.max(1) as f64;
        let (due, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.at_share).into_iter().partition(|(at, _)| *at <= share);
        if !left.is_empty() {
            self.queue.push(self.now + LOOK, Event::Fault(FaultStep::Look));
        }
        self.at_share = left;
        for (_, step) in due {
            self.fault(step);
        }
    }

    pub(super) fn fault(&mut self, step: FaultStep) {
        match step {
            FaultStep::Begin(ix) => {
                if let Some(fault) = self.scenario.faults.get(ix).cloned() {
                    self.begin(&fault);
                }
            }
            FaultStep::Look => self.look_at_shares(),
            FaultStep::Goodbye(node) => {
                if self.nodes[node as usize].running {
                    self.goodbye(node);
                    self.leave_for_good(node);
                    self.next_in_line();
                }
            }
            FaultStep::Return(node) => self.start_process(node),
            FaultStep::Republish(number) => self.publish_anew(number),
            FaultStep::Thaw(node) => {
                let now = self.now;
                for node in self.of_host(node) {
                    let n = &mut self.nodes[node as usize];
                    n.idle_since = n.idle_since.map(|_| now);
                }
                self.apply_rates(node);
            }
            FaultStep::Rates(node) => {
                let n = &mut self.nodes[node as usize];
                n.reshaped = n.reshaped.filter(|_| n.reshaped_until > self.now);
                self.apply_rates(node);
            }
            FaultStep::Idle(node) => {
                if self.nodes[node as usize].frozen_until > self.now {
                    self.of_host(node).for_each(|node| self.break_all(node, |_| Micros(0)));
                }
            }
            FaultStep::OriginBack => self.origin.up = true,
            FaultStep::ControlBack => self.control_is_back(),
            FaultStep::ControlNew => {
                self.restart_center();
                self.control_is_back();
            }
            FaultStep::PeeringMended => self.peering_mended(),
            FaultStep::PeeringRate => self.set_peering(None),
            FaultStep::Mend(a, b) => {
                self.broken_pairs.remove(&(a, b));
            }
        }
    }

    fn begin(&mut self, fault: &Fault) {
        let over = self.now + span(fault.for_s);
        self.faults_over = self.faults_over.max(over);
        let after = |world: &mut World, step| match fault.until_share {
            Some(share) => world.step_at_share(share, step),
            None => world.queue.push(over, Event::Fault(step)),
        };
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
            FaultKind::NewVersion => {
                if let Some(number) = self.some_content(false) {
                    self.publish_anew(number);
                }
            }
            FaultKind::Withdrawn => {
                if let Some(number) = self.some_content(true) {
                    self.withdraw(number);
                    self.queue.push(over, Event::Fault(FaultStep::Republish(number)));
                }
            }
            FaultKind::PeeringCut => {
                self.peering_cut();
                after(self, FaultStep::PeeringMended);
            }
            FaultKind::PeeringRate => {
                self.set_peering(Some(fault.value));
                after(self, FaultStep::PeeringRate);
            }
            _ => {
                for node in self.some_nodes(fault) {
                    self.hit(node, fault, over);
                }
            }
        }
    }

    fn hit(&mut self, node: Nx, fault: &Fault, over: Time) {
        let (now, kind) = (self.now, fault.kind);
        let n = &mut self.nodes[node as usize];
        match kind {
            FaultKind::Crash | FaultKind::Death | FaultKind::Reborn => {
                let was_next = n.completed.is_none();
                self.end_process(node);
                self.of_host(node).for_each(|node| self.break_all(node, idle_timeout));
                self.await_no_session(node);
                if kind == FaultKind::Reborn {
                    self.be_reborn(node);
                }
                if kind != FaultKind::Death {
                    self.queue.push(over, Event::Fault(FaultStep::Return(node)));
                } else {
                    self.leave_for_good(node);
                    if was_next {
                        self.next_in_line();
                    }
                }
            }
            FaultKind::Leave => {
                self.goodbye(node);
                self.queue.push(over, Event::Fault(FaultStep::Return(node)));
            }
            FaultKind::Reshape => {
                let rate = fault.value * MBIT;
                n.reshaped = Some(rate);
                n.reshaped_most = n.reshaped_most.max(rate);
                n.reshaped_until = n.reshaped_until.max(over);
                self.apply_rates(node);
                self.queue.push(over, Event::Fault(FaultStep::Rates(node)));
            }
            FaultKind::Cut => {
                for node in self.of_host(node) {
                    let n = &mut self.nodes[node as usize];
                    n.cut_until = n.cut_until.max(over);
                    self.break_all(node, idle_timeout);
                    self.origin_lost(node);
                    self.waypoint_lost(node);
                }
                self.apply_rates(node);
                self.queue.push(over, Event::Fault(FaultStep::Rates(node)));
            }
            FaultKind::Freeze => {
                for node in self.of_host(node) {
                    let n = &mut self.nodes[node as usize];
                    n.frozen_until = n.frozen_until.max(over);
                }
                self.apply_rates(node);
                self.queue.push(over, Event::Fault(FaultStep::Thaw(node)));
                self.queue.push(now + IDLE, Event::Fault(FaultStep::Idle(node)));
            }
            FaultKind::Slow => {
                n.slow_until = n.slow_until.max(over);
                n.slow_share = fault.slow_share();
                self.apply_rates(node);
                self.queue.push(over, Event::Fault(FaultStep::Rates(node)));
            }
            FaultKind::Corrupt => {
                for node in self.of_host(node) {
                    let n = &mut self.nodes[node as usize];
                    n.corrupt_until = n.corrupt_until.max(over);
                }
            }
            FaultKind::Priority => self.prefer(node),
            FaultKind::Rot => {
                let held: Vec<u32> = n.swarm.iter().flat_map(|s| s.have().iter()).collect();
                for _ in 0..ROTTEN_MAX.min(held.len()) {
                    n.rotten.insert(held[self.rng.below(held.len() as u64) as usize]);
                }
            }
            // These hit no node, or are refused before the run begins.
            FaultKind::NewVersion
            | FaultKind::Withdrawn
            | FaultKind::OriginOut
            | FaultKind::ControlOut
            | FaultKind::ControlLost
            | FaultKind::LinkBreak
            | FaultKind::PeeringCut
            | FaultKind::PeeringRate
            | FaultKind::PeeringLoss
            | FaultKind::AddressChange
            | FaultKind::ClockJump => {}
        }
    }

    /// A node says goodbye and ends.
    fn goodbye(&mut self, node: Nx) {
        let n = &self.nodes[node as usize];
        if let Some(session) = n.session_number {
            let bye = headwater_center_core::Input::Departed { node: n.id, session, bye: true };
            self.tell_center(node, ToCenter::Input(Box::new(bye)));
        }
        self.end_process(node);
        self.of_host(node).for_each(|node| self.break_all(node, |_| Micros::from_millis(30)));
        self.await_no_session(node);
    }

    fn leave_for_good(&mut self, node: Nx) {
        for node in self.of_host(node) {
            self.nodes[node as usize].left_for_good = true;
        }
    }

    fn apply_rates(&mut self, node: Nx) {
        let n = &self.nodes[node as usize];
        let (own_up, own_down) = n.reshaped.map_or((n.spec.up(), n.spec.down()), |rate| (rate, rate));
        let (up, down) = match n {
            _ if n.frozen_until > self.now || n.cut_until > self.now => (0.0, 0.0),
            _ if n.slow_until > self.now => (own_up * n.slow_share, own_down),
            _ => (own_up, own_down),
        };
        self.links.set_rates(n.link, up, down);
    }

    pub(super) fn break_all(&mut self, node: Nx, notice: impl Fn(&mut Rng) -> Micros) {
        let connections: Vec<u32> = self.nodes[node as usize].connections.values().copied().collect();
        for ix in connections {
            self.break_connection(ix, &notice);
            // A process that ended has no connections.
            if self.nodes[node as usize].swarm.is_none() {
                self.let_go(node, ix, |node| Input::Lost { node, why: String::new() });
            }
        }
    }

    /// Some different nodes whose processes run: of the fault's group, or any receivers.
    fn some_nodes(&mut self, fault: &Fault) -> Vec<Nx> {
        let groups: BTreeSet<usize> = (0..self.scenario.groups.len())
            .filter(|g| fault.group.as_ref().is_none_or(|name| self.scenario.group_name(*g) == *name))
            .collect();
        let fits = |n: &super::Node| match fault.group {
            Some(_) => groups.contains(&n.spec.group),
            None => n.spec.receives(),
        };
        let mut running: Vec<Nx> =
            self.hosts().filter(|n| self.nodes[*n as usize].running && fits(&self.nodes[*n as usize])).collect();
        self.rng.shuffle(&mut running);
        running.truncate(fault.count);
        running
    }

    /// Two nodes with a connection.
    fn some_pair(&mut self) -> Option<(Nx, Nx)> {
        let pairs: Vec<(Nx, Nx)> =
            self.connections.iter().filter(|c| !c.broken && c.held == 2).map(|c| pair(c.ends[0], c.ends[1])).collect();
        (!pairs.is_empty()).then(|| pairs[self.rng.below(pairs.len() as u64) as usize])
    }
}
