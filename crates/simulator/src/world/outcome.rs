//! Looking at a world: while it runs, and what came of it.

use super::{Node, World};
use crate::outcome::{Flow, HostOutcome, IntoSite};
use headwater_model::node::Accepts;
use headwater_model::time::Micros;

/// A moment of a run, for looking at how it goes.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Virtual seconds.
    pub at_s: f64,
    /// Share of the uplinks of nodes in use.
    pub up_used: f64,
    /// Share of the uplinks of dial-only nodes in use.
    pub dial_only_up_used: f64,
    /// Share of the origin's uplink in use.
    pub origin_used: f64,
    /// Share of the content that left the origin.
    pub origin_copies: f64,
    /// Mean share of the content that nodes hold; and that dial-only ones hold.
    pub held: f64,
    /// See `held`.
    pub dial_only_held: f64,
    /// Nodes that have everything.
    pub complete: usize,
    /// Parents per node that still fetches.
    pub parents: f64,
    /// Active edges.
    pub active: usize,
    /// Of these, edges from one ISP into another.
    pub across: usize,
    /// Leases under way.
    pub leases: usize,
    /// Alarms so far.
    pub alarms: u64,
}

/// What a finished world is asked for.
pub(crate) struct Finished {
    pub(crate) nodes: usize,
    pub(crate) makespan: Option<Micros>,
    /// Of each receiver that has everything: from the first arrival until then.
    pub(crate) completions: Vec<Micros>,
    pub(crate) origin_sent: f64,
    pub(crate) peers_sent: f64,
    pub(crate) peers_up: f64,
    pub(crate) span: Micros,
    pub(crate) bytes: [u64; 3],
    pub(crate) control_messages: u64,
    pub(crate) peer_messages: u64,
    pub(crate) totals: headwater_center_core::Totals,
    pub(crate) events: u64,
    pub(crate) flows: Vec<Flow>,
    pub(crate) into_sites: Vec<IntoSite>,
    pub(crate) complete_also: Vec<usize>,
    pub(crate) hosts: Vec<HostOutcome>,
    pub(crate) hopeless_pairs: u64,
    pub(crate) sessions_back: Option<Micros>,
    /// How much the cores kept every ten minutes, see `check.rs`; in small worlds.
    pub(crate) state_lines: Vec<usize>,
    pub(crate) violations: Vec<String>,
}

impl World {
    pub(super) fn sample(&self) -> Sample {
        let mut s = Sample { at_s: self.now.0 as f64 / 1e6, ..Sample::default() };
        let (mut up, mut used, mut dial_up, mut dial_used) = (0.0, 0.0, 0.0, 0.0);
        let (mut held, mut dial_held, mut n, mut dial_n, mut fetching) = (0.0, 0.0, 0.0, 0.0, 0.0f64);
        for node in self.firsts() {
            let Some(swarm) = &node.swarm else { continue };
            let share = f64::from(swarm.have().ones()) / f64::from(swarm.layout().pieces());
            up += node.spec.up();
            used += self.links.used_up(node.link);
            held += share;
            n += 1.0;
            if self.scenario.accepts(&node.spec) == Accepts::DialOnly {
                dial_up += node.spec.up();
                dial_used += self.links.used_up(node.link);
                dial_held += share;
                dial_n += 1.0;
            }
            s.complete += usize::from(swarm.is_complete());
            if !swarm.is_complete() {
                fetching += 1.0;
                s.parents += swarm.open_parents() as f64;
            }
        }
        s.up_used = used / up;
        s.dial_only_up_used = dial_used / dial_up;
        s.held = held / n;
        s.dial_only_held = dial_held / dial_n;
        s.parents /= fetching;
        s.origin_used = self.links.used_up(self.contents[0].origin) / (self.scenario.origin_up_mbit * 125_000.0);
        s.origin_copies = self.sent[self.contents[0].origin.0 as usize] / self.contents[0].layout.bytes() as f64;
        s.active = self.links.edge_count();
        s.across = self.edges_across();
        s.leases = self.leases();
        s.alarms = self.control.totals().alarms;
        s
    }

    /// The nodes that have to do with the first content, which the outcome is about.
    fn firsts(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().step_by(self.contents.len())
    }

    pub(super) fn outcome(self) -> Finished {
        let first = self.first_arrival.unwrap_or_default();
        let receivers = || self.firsts().filter(|n| n.spec.receives());
        let stays = |n: &&Node| !n.left_for_good;
        let all_complete = receivers().filter(stays).all(|n| n.completed.is_some());
        let mut completions: Vec<Micros> = receivers().filter_map(|n| n.completed).map(|t| t.since(first)).collect();
        completions.sort();
        let origin = self.contents[0].origin.0 as usize;
        let peers_sent = self.hosts().map(|first| self.sent[self.nodes[first as usize].link.0 as usize]).sum();
        let sum = |f: fn(&Node) -> u64| self.firsts().map(f).sum();
        let complete = |number: usize| {
            let of_content = self.nodes.iter().skip(number).step_by(self.contents.len());
            of_content.filter(|n| n.spec.receives() && n.completed.is_some()).count()
        };
        let seconds = |t: Option<headwater_model::time::Time>| t.map(|t| t.since(first).as_secs_f64());
        let host = |n: &Node| HostOutcome {
            name: n.spec.name.clone(),
            isp: n.spec.isp,
            receives: n.spec.receives(),
            arrived_s: seconds(n.arrived),
            finished_s: seconds(n.completed),
            left_for_good: n.left_for_good,
            peer_bytes: n.peer_bytes,
            origin_bytes: n.origin_bytes,
            longest_wait_s: {
                let waits = n.idle_since.filter(|_| n.completed.is_none()).map_or(Micros(0), |t| self.now.since(t));
                n.longest_wait.max(waits).as_secs_f64()
            },
        };
        let sites = self.scenario.sites.iter().zip(self.network.entered_sites());
        Finished {
            complete_also: (1..self.contents.len()).map(complete).collect(),
            hosts: self.firsts().map(host).collect(),
            flows: self
                .network
                .between_isps()
                .map(|(from, to, bytes)| Flow { from, to, bytes: bytes as u64 })
                .collect(),
            into_sites: sites.map(|(s, bytes)| IntoSite { site: s.name.clone(), bytes: *bytes as u64 }).collect(),
            hopeless_pairs: self.control.hopeless_pairs.len() as u64,
            sessions_back: self.sessions_back_after(),
            nodes: receivers().filter(|n| n.arrived.is_some()).count(),
            makespan: all_complete.then(|| self.last_completion.since(first)),
            completions,
            origin_sent: self.sent[origin],
            peers_sent,
            peers_up: self.firsts().map(|n| n.spec.up()).sum(),
            span: self.now.since(first),
            bytes: [sum(|n| n.peer_bytes), sum(|n| n.origin_bytes), sum(|n| n.wasted_bytes)],
            control_messages: self.control.messages(),
            peer_messages: self.peer_messages,
            totals: self.control.totals(),
            events: self.queue.made(),
            state_lines: self.state_lines,
            violations: self.violations,
        }
    }
}
