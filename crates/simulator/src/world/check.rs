//! What must hold in every world, whatever goes wrong in it.

use super::World;
use crate::scenario::{Fault, FaultKind};

impl World {
    /// Cores that were touched since the last check.
    pub(super) fn check_touched(&mut self) {
        for node in std::mem::take(&mut self.touched) {
            self.check_node(node);
        }
        if std::mem::take(&mut self.center_touched) {
            self.check_center();
        }
    }

    /// Both cores of everybody, and the links.
    pub(super) fn check_all(&mut self) {
        self.touched.clear();
        self.center_touched = false;
        for node in 0..self.nodes.len() as u32 {
            self.check_node(node);
        }
        self.check_center();
        self.check_links();
    }

    fn check_node(&mut self, node: u32) {
        let problems = self.nodes[node as usize].swarm.as_ref().map(|s| s.check()).unwrap_or_default();
        for problem in problems {
            self.violation(format!("node {node}: {problem}"));
        }
    }

    fn check_center(&mut self) {
        let problems = self.check_control();
        for problem in problems {
            self.violation(format!("control center: {problem}"));
        }
        if self.control.totals().lightweight_pairs > 0 {
            self.violation("two dial-only nodes were assigned to each other".into());
        }
    }

    fn check_links(&mut self) {
        let mut problems = Vec::new();
        for ix in self.hosts() {
            let node = &self.nodes[ix as usize];
            let (up, down) = (self.links.used_up(node.link), self.links.used_down(node.link));
            let reshaped = node.reshaped_most;
            let (most_up, most_down) = (node.spec.up().max(reshaped), node.spec.down().max(reshaped));
            if up > most_up * (1.0 + 1e-6) + 1.0 || down > most_down * (1.0 + 1e-6) + 1.0 {
                problems.push(format!("node {ix} sends {up} and receives {down} bytes per second: over its links"));
            }
            let most = most_up * self.now.0 as f64 / 1e6;
            if self.sent[node.link.0 as usize] > most * (1.0 + 1e-6) + 1.0 {
                problems.push(format!("node {ix} sent more than its uplink can"));
            }
        }
        for c in self.connections.iter().filter(|c| !c.broken && c.held > 0) {
            let [a, b] = c.ends.map(|n| &self.nodes[n as usize].spec);
            if !self.scenario.can_connect(a, b) {
                problems.push(format!("nodes {:?} cannot reach each other and are connected", c.ends));
            }
        }
        let overfull = self.network.overfull(&self.links);
        if overfull > 0 {
            problems.push(format!("{overfull} shared links carry more than they can"));
        }
        for problem in problems {
            self.violation(problem);
        }
    }

    /// How much the cores keep, in lines of what their `Debug` prints: every entry of every map counts. The history is left
    /// out, which remembers nodes up to a limit.
    pub(super) fn measure_state(&self) -> usize {
        let lines = |text: String| text.lines().count();
        let nodes = self.nodes.iter().map(|n| lines(format!("{:#?}{:#?}", n.swarm, n.session)));
        self.control_state_lines() + nodes.sum::<usize>()
    }

    /// At the end: everybody who stayed has everything, and every byte was counted once.
    pub(super) fn check_end(&mut self) {
        let mut problems = Vec::new();
        for (ix, node) in self.nodes.iter().enumerate().filter(|(_, n)| n.spec.receives()) {
            let held = node.swarm.as_ref().map_or(node.disk.ones(), |s| s.have().ones());
            let layout = self.layout(ix as u32);
            let gone = node.left_for_good || self.is_withdrawn(ix as u32);
            // What others leave undone is no bug here: the outcome says it.
            if self.baseline.is_none() && !gone && held < layout.pieces() {
                problems.push(format!("node {ix} has {held} of {} pieces and gets no more", layout.pieces()));
            }
            // What rots, and what is given up for a newer version, is fetched twice.
            let once = |f: &Fault| !matches!(f.kind, FaultKind::Rot | FaultKind::Reborn) && !f.kind.is_of_contents();
            let counted = node.peer_bytes + node.origin_bytes;
            let all_once = self.scenario.faults.iter().all(once);
            if all_once && !gone && held == layout.pieces() && counted != layout.bytes() {
                problems.push(format!("node {ix} counted {counted} bytes of {}", layout.bytes()));
            }
        }
        for problem in problems {
            self.violation(problem);
        }
    }
}
