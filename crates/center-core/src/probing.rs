//! The center's dealings with the prober: whom it tests when, and what follows from a test (A3).

use crate::reachability::{Newcomer, ProbeOutput, Prober};
use crate::{Center, Event, Output};
use headwater_model::Accepts;
use headwater_model::id::{ContentId, NodeId};
use headwater_model::node::{From, Known};
use headwater_model::reach::canonical;
use headwater_model::report::DialResult;
use headwater_model::time::Time;
use std::net::SocketAddr;

impl Center {
    pub(crate) fn dialled(&mut self, now: Time, node: NodeId, result: &DialResult, out: &mut Vec<Output>) {
        let accepts = |n: &NodeId| self.clients.get(n).map(|c| c.arrival.introduction.capabilities.accepts.value);
        let (Some(a), Some(b)) = (accepts(&node), accepts(&result.node)) else { return };
        let dials = self.dials.entry((a.min(b), a.max(b))).or_default();
        dials.attempted += 1;
        dials.connected += u64::from(result.error.is_none());
        self.probing(now, out, |p| p.dialled(now, node, &result.node, result.error.is_none()));
        if result.error.is_none() {
            return;
        }
        let contents: Vec<ContentId> =
            self.clients.get(&node).map(|c| c.contents.iter().copied().collect()).unwrap_or_default();
        for id in contents {
            if let Some(coordinator) = self.directory.coordinator_mut(&id) {
                coordinator.dial_failed(now, &node, &result.node);
                self.collect(now, id, out);
            }
        }
    }

    pub(crate) fn begin_tests(&mut self, now: Time, node: NodeId, out: &mut Vec<Output>) {
        let (Some(prober), Some(client)) = (&mut self.prober, self.clients.get_mut(&node)) else { return };
        let a = &mut client.arrival;
        let capabilities = &mut a.introduction.capabilities;
        if !capabilities.udp.value {
            // Nobody can connect to it, and it can test nobody.
            capabilities.accepts = Known { value: Accepts::DialOnly, from: From::Test };
            client.via = None;
            self.clients.note_reach(&node);
            return self.probing(now, out, |p| p.left(now, &node));
        }
        let verdict = prober.arrived(
            now,
            node,
            Newcomer {
                claim: capabilities.accepts.value,
                listens: capabilities.listens,
                believed: a.enrolled,
                local: a.observed.ip().is_loopback(),
                observed: a.observed,
            },
        );
        capabilities.accepts = verdict.accepts;
        client.via = verdict.via;
        self.clients.note_reach(&node);
        self.probing(now, out, |_| ());
    }

    /// Something happens to the prober; what it found out is told to all who build on it.
    pub(crate) fn probing(&mut self, now: Time, out: &mut Vec<Output>, f: impl FnOnce(&mut Prober)) {
        let Some(prober) = &mut self.prober else { return };
        f(prober);
        for said in prober.drain() {
            match said {
                ProbeOutput::Order(node, probe) => out.push(Output::Probe(node, probe)),
                ProbeOutput::Changed(node, verdict) => {
                    out.push(Output::Event(Event::Reachability(node, verdict)));
                    let Some(client) = self.clients.get_mut(&node) else { continue };
                    client.arrival.introduction.capabilities.accepts = verdict.accepts;
                    client.via = verdict.via;
                    self.clients.note_reach(&node);
                    self.reach_changed(now, node, out);
                    self.go_on_with_held(now, node, out);
                }
            }
        }
    }

    /// A node's session comes from another address: another port of its NAT, or another network.
    pub(crate) fn moved(&mut self, now: Time, node: NodeId, observed: SocketAddr, out: &mut Vec<Output>) {
        let observed = canonical(observed);
        let Some(client) = self.clients.get_mut(&node).filter(|c| c.arrival.observed != observed) else { return };
        if client.arrival.observed.ip() != observed.ip() {
            let (session, why) = (client.arrival.session, "its address changed: it is placed anew".to_owned());
            out.push(Output::Close { node, session, why, come_back: true });
            return;
        }
        client.arrival.observed = observed;
        self.probing(now, out, |p| p.moved(now, node, observed));
        self.reach_changed(now, node, out);
    }

    /// All swarms that a node takes part in learn how it can be reached now.
    pub(crate) fn reach_changed(&mut self, now: Time, node: NodeId, out: &mut Vec<Output>) {
        let Some(client) = self.clients.get(&node) else { return };
        let (capabilities, reach) = (client.arrival.introduction.capabilities, client.reach());
        for id in client.contents.clone() {
            if let Some(coordinator) = self.directory.coordinator_mut(&id) {
                coordinator.set_reach(now, &node, capabilities, reach.clone());
                self.collect(now, id, out);
            }
        }
    }
}
