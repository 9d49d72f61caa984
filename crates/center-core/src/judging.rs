//! The control center as a court: who is heard, what a heartbeat says for a parent, and what verdicts do in all swarms.

use crate::client_manager::Client;
use crate::dcm::NEWLY_HERE;
use crate::network_monitor::{Trouble, region_name};
use crate::trust::{Network, Offence, Standing, Verdict, Witness};
use crate::{Center, Event, Output};
use headwater_model::id::{ContentId, NodeId};
use headwater_model::live::LIVE_PIECE_BYTES;
use headwater_model::time::{Micros, Rate, Time};

/// A parent serves a child well from this fraction on of what the child's busy parents give on average.
const FAIR_SHARE: u64 = 4;

/// A node that says it sends so many times what it says it can, and [`OVERSTATED`] beyond that, says what cannot be.
const OVERSTATED_TIMES: u64 = 4;
/// See [`OVERSTATED_TIMES`]: what a clock's jumps and a full socket buffer make of a small uplink.
const OVERSTATED: Rate = Rate(1_000_000);
/// Who claims so much knows no limit of its uplink: it may send more.
const NO_LIMIT: Rate = Rate::from_mbit(1000);

/// What a child had from a parent in an interval.
pub(crate) struct Served {
    pub(crate) parent: NodeId,
    pub(crate) bytes: u64,
    pub(crate) waited: Micros,
}

fn witness(node: NodeId, client: &Client) -> Witness {
    let a = &client.arrival;
    Witness { node, network: Network::of(node, a.observed.ip(), a.enrolled) }
}

impl Center {
    /// A child accuses a parent that was assigned to it in `content`.
    pub(crate) fn accused(
        &mut self,
        now: Time,
        content: ContentId,
        child: NodeId,
        parent: NodeId,
        offence: Offence,
        out: &mut Vec<Output>,
    ) {
        let (Some(c), Some(p)) = (self.clients.get(&child), self.clients.get(&parent)) else { return };
        if offence.needs_life() && p.restarted.is_some_and(|t| now.since(t) < NEWLY_HERE) {
            return;
        }
        let (by, accused) = (witness(child, c), witness(parent, p));
        if !self.trust.is_slanderer(&child) {
            self.history.trouble(parent, child, Trouble::Silent);
        }
        let nodes = self.directory.coordinator(&content).map(|c| c.children_of(&parent)).unwrap_or_default();
        let network = |n: NodeId| Some(witness(n, self.clients.get(&n)?).network);
        let children = nodes.into_iter().filter_map(network).collect::<Vec<_>>();
        let mut verdicts = Vec::new();
        self.trust.accuse(now, by, accused, offence, children, &mut verdicts);
        if self.had_a_piece(content, &child, &parent) {
            self.trust.fed(now, by, &parent);
        }
        self.carry_out(now, verdicts, out);
    }

    /// Whether a child has told of a piece that it had from a parent.
    fn had_a_piece(&self, content: ContentId, child: &NodeId, parent: &NodeId) -> bool {
        if let Some(dcm) = self.directory.dcm(&content) {
            return dcm.had_a_piece(child, parent);
        }
        let bytes = self.progress(&content, child).and_then(|p| p.last.get(parent)).copied().unwrap_or(0);
        bytes >= u64::from(LIVE_PIECE_BYTES)
    }

    /// A child's heartbeat speaks for the parents that serve it well.
    pub(crate) fn praise(
        &mut self,
        now: Time,
        child: NodeId,
        piece_bytes: u64,
        served: &[Served],
        out: &mut Vec<Output>,
    ) {
        let Some(c) = self.clients.get(&child) else { return };
        for s in served.iter().filter(|s| s.bytes > 0) {
            if let Some(p) = self.clients.get(&s.parent) {
                self.links.moved(now, (s.parent, &p.arrival.place), (child, &c.arrival.place));
            }
        }
        if !served.iter().any(|s| self.trust.has_case(&s.parent)) {
            return;
        }
        let by = witness(child, c);
        let busy_most = |s: &Served| s.waited.0 * 2 > self.config.heartbeat.0;
        let (count, sum) =
            served.iter().filter(|s| busy_most(s)).fold((0u64, 0u64), |(n, sum), s| (n + 1, sum + s.bytes));
        let enough = sum / count.max(1) / FAIR_SHARE;
        for s in served.iter().filter(|s| s.bytes >= piece_bytes) {
            self.trust.fed(now, by, &s.parent);
        }
        let mut verdicts = Vec::new();
        for s in served.iter().filter(|s| s.bytes >= piece_bytes && (s.bytes >= enough || !busy_most(s))) {
            self.trust.praise(now, by, &s.parent, s.bytes / piece_bytes.max(1), &mut verdicts);
        }
        self.carry_out(now, verdicts, out);
    }

    /// A node was heard of; `steady` when it was there all the time since it was heard of before.
    pub(crate) fn alive(&mut self, now: Time, node: NodeId, steady: bool, out: &mut Vec<Output>) {
        if self.trust.has_case(&node) {
            let mut verdicts = Vec::new();
            self.trust.heard(now, &node, steady, &mut verdicts);
            self.carry_out(now, verdicts, out);
        }
    }

    /// A node that nobody vouches for says that it sends at `claimed`: not believed beyond what it says that it can.
    pub(crate) fn weigh_words(&mut self, now: Time, node: NodeId, claimed: Rate, out: &mut Vec<Output>) {
        let Some(client) = self.clients.get(&node) else { return };
        let offered = client.most_offered(now);
        if client.arrival.enrolled || offered >= NO_LIMIT {
            return;
        }
        let can = offered.0.saturating_mul(OVERSTATED_TIMES).saturating_add(OVERSTATED.0);
        if claimed.0 > can {
            self.convict(now, node, Offence::Sent, out);
        }
    }

    /// A node's own words prove it guilty, unless the operator vouches for it.
    pub(crate) fn convict(&mut self, now: Time, node: NodeId, offence: Offence, out: &mut Vec<Output>) {
        let Some(client) = self.clients.get(&node).filter(|c| !c.arrival.enrolled) else { return };
        if self.trust.standing(&node) != Standing::Banned {
            let mut verdicts = Vec::new();
            self.trust.contradicts_itself(now, witness(node, client), offence, &mut verdicts);
            self.carry_out(now, verdicts, out);
        }
    }

    /// Time passes for cases and links.
    pub(crate) fn judge(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut verdicts = Vec::new();
        self.trust.tick(now, &mut verdicts);
        self.carry_out(now, verdicts, out);
        for link in self.links.tick(now) {
            out.push(Output::Event(Event::Link {
                congested: link.congested_since.is_some(),
                from: link.from,
                to: link.to,
                congested_pairs: link.congested_pairs,
                pairs: link.pairs,
            }));
        }
    }

    fn carry_out(&mut self, now: Time, verdicts: Vec<Verdict>, out: &mut Vec<Output>) {
        for verdict in verdicts {
            if let Verdict::Standing { node, standing, .. } = verdict {
                let contents = self.clients.get(&node).map(|c| c.contents.clone()).unwrap_or_default();
                for content in contents {
                    if let Some(coordinator) = self.directory.coordinator_mut(&content) {
                        coordinator.set_standing(now, &node, standing);
                        self.collect(now, content, out);
                    }
                }
            }
            out.push(Output::Event(Event::Verdict(verdict)));
        }
    }

    /// A pair is named as congested, with its ISPs where they differ; once while it lasts.
    pub(crate) fn name_congested(
        &mut self,
        now: Time,
        content: ContentId,
        parent: NodeId,
        child: NodeId,
        out: &mut Vec<Output>,
    ) {
        let mut places = None;
        if let (Some(p), Some(c)) = (self.clients.get(&parent), self.clients.get(&child)) {
            let (from, to) = (&p.arrival.place, &c.arrival.place);
            if !self.links.named(now, (parent, from), (child, to)) {
                return;
            }
            let differ = from.region() != to.region();
            places = region_name(from).zip(region_name(to)).filter(|_| differ);
        }
        self.totals.troubles += 1;
        self.history.trouble(parent, child, Trouble::Congested);
        out.push(Output::Event(Event::Congested(content, parent, child, places)));
    }
}

#[cfg(test)]
#[path = "judging_tests.rs"]
mod tests;
