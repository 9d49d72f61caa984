//! Nodes with a session, as a baseline knows them, and how it draws some of them.

use headwater_center_core::client_manager::Arrival;
use headwater_model::assignment::{Child, Parent, Reach};
use headwater_model::id::NodeId;
use headwater_model::live::Substreams;
use headwater_model::node::SourceClass;
use headwater_model::rng::Rng;
use headwater_model::time::Rate;
use headwater_model::{Reachability, Role};
use std::collections::BTreeMap;

/// Draws of a tracker until it gives up: most of a large swarm may be known to the newcomer already, or not be reached.
const DRAWS_PER_PEER: usize = 20;

/// Nodes with a session, by id and in an order to draw from.
#[derive(Debug, Default)]
pub(super) struct Peers {
    arrivals: BTreeMap<NodeId, Arrival>,
    /// Those that take part, in any order; and of each ISP.
    all: Drawn,
    of_isp: BTreeMap<Option<String>, Drawn>,
}

/// Members to draw from.
#[derive(Debug, Default)]
struct Drawn {
    ids: Vec<NodeId>,
    place: BTreeMap<NodeId, usize>,
}

impl Drawn {
    fn insert(&mut self, id: NodeId) {
        if !self.place.contains_key(&id) {
            self.place.insert(id, self.ids.len());
            self.ids.push(id);
        }
    }
    fn remove(&mut self, id: &NodeId) {
        let Some(place) = self.place.remove(id) else { return };
        self.ids.swap_remove(place);
        if let Some(moved) = self.ids.get(place) {
            self.place.insert(*moved, place);
        }
    }
    fn draw(&self, rng: &mut Rng) -> Option<NodeId> {
        self.ids.get(rng.below(self.ids.len().max(1) as u64) as usize).copied()
    }
}

impl Peers {
    /// A session begins.
    pub(super) fn arrived(&mut self, arrival: Arrival) {
        self.arrivals.insert(arrival.node, arrival);
    }
    /// A session ends; `false` where a newer one took its place.
    pub(super) fn departed(&mut self, node: &NodeId, session: u64) -> bool {
        let is_last = self.arrivals.get(node).is_some_and(|a| a.session == session);
        if is_last {
            self.leaves(node);
            self.arrivals.remove(node);
        }
        is_last
    }
    /// It takes part from now on.
    pub(super) fn takes_part(&mut self, node: NodeId) {
        let isp = self.get(&node).map(isp);
        self.all.insert(node);
        if let Some(isp) = isp {
            self.of_isp.entry(isp).or_default().insert(node);
        }
    }
    /// It takes part no more.
    pub(super) fn leaves(&mut self, node: &NodeId) {
        let isp = self.get(node).map(isp);
        self.all.remove(node);
        if let Some(of) = isp.and_then(|isp| self.of_isp.get_mut(&isp)) {
            of.remove(node);
        }
    }
    pub(super) fn get(&self, node: &NodeId) -> Option<&Arrival> {
        self.arrivals.get(node)
    }
    /// Whether peers are of no use to it: it may fetch from the origin only, or has no UDP.
    pub(super) fn is_limited(&self, node: &NodeId) -> bool {
        self.get(node).is_none_or(|a| a.introduction.capabilities.limited().is_some())
    }
    pub(super) fn compatible(&self, a: &NodeId, b: &NodeId) -> bool {
        self.get(a).zip(self.get(b)).is_some_and(|(a, b)| reachability(a).compatible(&reachability(b)))
    }

    /// Up to `wanted` other members at random that `fits`, `near` of them from its own ISP as long as that has as many.
    /// Whom it cannot connect to is left out: dials of these would fail.
    pub(super) fn draw(
        &self,
        rng: &mut Rng,
        node: &NodeId,
        (wanted, near): (usize, usize),
        fits: impl Fn(&NodeId) -> bool,
    ) -> Vec<NodeId> {
        let mut drawn: Vec<NodeId> = Vec::new();
        let own = self.get(node).and_then(|a| self.of_isp.get(&isp(a)));
        for (from, until) in [(own.filter(|_| near > 0), near), (Some(&self.all), wanted)] {
            let Some(from) = from else { continue };
            for _ in 0..until * DRAWS_PER_PEER {
                if drawn.len() >= until {
                    break;
                }
                let Some(other) = from.draw(rng) else { break };
                let is_new = other != *node && !drawn.contains(&other);
                if is_new && !self.is_limited(&other) && fits(&other) && self.compatible(node, &other) {
                    drawn.push(other);
                }
            }
        }
        drawn
    }

    /// What `child` is told of a parent.
    pub(super) fn as_parent(
        &self,
        child: &NodeId,
        parent: &NodeId,
        promised: Rate,
        what: Substreams,
    ) -> Option<Parent> {
        let (c, p) = (self.get(child)?, self.get(parent)?);
        let class = if p.introduction.role == Role::Waypoint { SourceClass::Waypoint } else { SourceClass::Peer };
        let dial = reachability(c).dials(&reachability(p));
        Some(Parent { node: *parent, class, dial, promised, reach: reach(p), substreams: what })
    }

    /// What `parent` is told of a child.
    pub(super) fn as_child(&self, parent: &NodeId, child: &NodeId, what: Substreams) -> Option<Child> {
        let (p, c) = (self.get(parent)?, self.get(child)?);
        let (own, theirs) = (reachability(p), reachability(c));
        let (dial, punch) = (own.dials(&theirs), own.punches(&theirs));
        Some(Child { node: *child, dial, punch, reach: reach(c), substreams: what })
    }
}

fn isp(arrival: &Arrival) -> Option<String> {
    arrival.place.isp.clone()
}

fn reachability(arrival: &Arrival) -> Reachability {
    Reachability::new(&arrival.introduction.capabilities, arrival.observed.ip())
}

fn reach(arrival: &Arrival) -> Reach {
    Reach { addresses: [arrival.observed].into(), certificate: arrival.certificate }
}
