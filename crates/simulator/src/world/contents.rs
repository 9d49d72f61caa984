//! Several contents: a host is a node for each, which share its links, its process and its session with the control
//! center. Contents come in new versions, are withdrawn, and come back.

use super::control::{FromCenter, ToCenter};
use super::{Nx, PIECES_PER_PAGE, World, node_id};
use crate::links::NodeIx;
use headwater_center_core::Input as CenterInput;
use headwater_center_core::content_directory::{Content, Kind};
use headwater_model::bits::Bits;
use headwater_model::id::{ContentId, Hash, NodeId, Version};
use headwater_model::layout::Layout;
use headwater_model::node::Priority;
use headwater_model::rng::mix64;
use headwater_model::time::{Micros, Time};
use headwater_peer_core::{Input, Swarm};

/// A content, and the link of its origin.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) version: Version,
    pub(super) layout: Layout,
    pub(super) origin: NodeIx,
    priority: Priority,
    /// Nobody can have it at present.
    withdrawn: bool,
}

impl Published {
    pub(super) fn new(seed: u64, number: usize, layout: Layout, origin: NodeIx, priority: Priority) -> Self {
        let number = number.to_be_bytes();
        let which: &[u8] = if number == [0; 8] { &[] } else { &number };
        let content = ContentId(Hash::of(&[b"content", &seed.to_be_bytes(), which]).0);
        Self { version: Version { content, epoch: 1 }, layout, origin, priority, withdrawn: false }
    }
}

impl World {
    // ---- nodes of hosts ----

    fn content_of(&self, node: Nx) -> &Published {
        &self.contents[node as usize % self.contents.len()]
    }
    pub(super) fn is_withdrawn(&self, node: Nx) -> bool {
        self.content_of(node).withdrawn
    }
    /// The present version of a node's content.
    pub(super) fn version(&self, node: Nx) -> Version {
        self.content_of(node).version
    }
    /// The version that a node works on.
    pub(super) fn running_version(&self, node: Nx) -> Version {
        self.nodes[node as usize].swarm.as_ref().map_or(self.version(node), Swarm::version)
    }
    pub(super) fn layout(&self, node: Nx) -> &Layout {
        &self.content_of(node).layout
    }
    pub(super) fn origin_of(&self, node: Nx) -> NodeIx {
        self.content_of(node).origin
    }
    /// The node of a host that stands for all of them.
    pub(super) fn first_of(&self, node: Nx) -> Nx {
        node - node % self.contents.len() as Nx
    }
    pub(super) fn is_first(&self, node: Nx) -> bool {
        self.first_of(node) == node
    }
    /// All nodes of a node's host.
    pub(super) fn of_host(&self, node: Nx) -> std::ops::Range<Nx> {
        let first = self.first_of(node);
        first..first + self.contents.len() as Nx
    }
    /// The first nodes of all hosts.
    pub(super) fn hosts(&self) -> impl Iterator<Item = Nx> + use<> {
        (0..self.nodes.len() as Nx).step_by(self.contents.len())
    }
    /// The first node of the host with an id.
    pub(super) fn host_of(&self, id: &NodeId) -> Nx {
        let [.., a, b, c, d] = id.0;
        Nx::from_be_bytes([a, b, c, d]) * self.contents.len() as Nx
    }
    /// The node with an id that has to do with the same content as `node`.
    pub(super) fn there(&self, node: Nx, id: &NodeId) -> Nx {
        self.host_of(id) + (node - self.first_of(node))
    }
    /// The node with an id that has to do with a content.
    pub(super) fn node_of(&self, id: &NodeId, content: ContentId) -> Option<Nx> {
        let number = self.contents.iter().position(|c| c.version.content == content)?;
        Some(self.host_of(id) + number as Nx)
    }

    // ---- swarms come and go ----

    /// A stream of random numbers for the running process of a node.
    pub(super) fn stream(&self, node: Nx) -> u64 {
        let life = self.nodes[node as usize].life;
        mix64(self.seed ^ (u64::from(node) << 20) ^ u64::from(life))
    }

    /// A process takes part in a content, if it is published.
    pub(super) fn start_swarm(&mut self, node: Nx) {
        let (now, version, stream) = (self.now, self.version(node), self.stream(node));
        if self.content_of(node).withdrawn || self.nodes[node as usize].swarm.is_some() {
            return;
        }
        let layout = self.layout(node).clone();
        let n = &mut self.nodes[node as usize];
        if n.disk_epoch != version.epoch {
            // Another version shares nothing with the former one here.
            n.disk = Bits::new(layout.pieces());
            n.pages = Bits::new(layout.pieces().div_ceil(PIECES_PER_PAGE));
            n.disk_epoch = version.epoch;
            n.rotten.clear();
            n.completed = None;
        }
        let config = headwater_peer_core::Config::default();
        let mut swarm =
            Swarm::new(now, version, layout, n.disk.clone(), n.pages.clone(), true, config, stream).known_as(n.id);
        swarm.set_priority(n.priority);
        self.wanting += usize::from(n.spec.receives() && !swarm.is_complete());
        n.swarm = Some(swarm);
        self.schedule_tick(node);
    }

    /// A process takes part in a content no more; what is on disk stays.
    pub(super) fn end_swarm(&mut self, node: Nx) {
        self.stop_origin_of(node);
        self.waypoint_lost(node);
        let n = &mut self.nodes[node as usize];
        if let Some(swarm) = n.swarm.take() {
            n.disk = swarm.have().clone();
            self.wanting -= usize::from(n.spec.receives() && !swarm.is_complete());
        }
        self.nodes[node as usize].idle_since = None;
    }

    /// The control center says that a version is no longer served: it is given up, and a newer one is begun.
    pub(super) fn start_over(&mut self, node: Nx) {
        let n = &self.nodes[node as usize];
        let current = n.swarm.as_ref().is_some_and(|s| s.version() == self.version(node));
        if !n.running || (current && !self.content_of(node).withdrawn) {
            return;
        }
        self.end_swarm(node);
        self.break_all(node, |_| Micros::from_millis(30));
        // What is on its way to the former one is not for this one.
        let n = &mut self.nodes[node as usize];
        (n.life, n.tick_at) = (n.life + 1, Time(u64::MAX));
        n.dialling.clear();
        self.start_swarm(node);
        let Some(join) = self.nodes[node as usize].swarm.as_ref().map(Swarm::join) else { return };
        let id = self.nodes[node as usize].id;
        self.tell_center(node, ToCenter::Input(Box::new(CenterInput::Join(id, join))));
        let connected = self.nodes[self.first_of(node) as usize].session_number.is_some();
        self.tell(node, Input::Control(connected));
    }

    /// The host comes back as somebody else.
    pub(super) fn be_reborn(&mut self, first: Nx) {
        let host = first / self.contents.len() as Nx;
        let former = self.nodes[first as usize].former + 1;
        let id = node_id(self.seed, host, former);
        for node in self.of_host(first) {
            let n = &mut self.nodes[node as usize];
            (n.former, n.id, n.disk_epoch, n.completed) = (former, id, 0, None);
        }
    }

    // ---- what publishers do ----

    pub(super) fn publish_all(&mut self) {
        for number in 0..self.contents.len() {
            if !self.contents[number].withdrawn {
                self.publish(number);
            }
        }
    }

    fn publish(&mut self, number: usize) {
        let c = &self.contents[number];
        let content = Content {
            version: c.version,
            name: format!("{} {}", self.scenario.name, number + 1),
            kind: Kind::File(c.layout.clone()),
            origin_needs_credentials: false,
            share_origin_credentials: false,
            stand_in: None,
            dcm: None,
            trees: None,
        };
        self.center(CenterInput::Publish(Box::new(content)));
    }

    /// A new version of a content, or the return of one that was withdrawn.
    pub(super) fn publish_anew(&mut self, number: usize) {
        let c = &mut self.contents[number];
        c.version.epoch += 1;
        let was_withdrawn = std::mem::take(&mut c.withdrawn);
        self.publish(number);
        if was_withdrawn {
            // Those who want it ask again.
            for node in self.hosts().map(|first| first + number as Nx) {
                self.start_over(node);
            }
        }
    }

    pub(super) fn withdraw(&mut self, number: usize) {
        self.contents[number].withdrawn = true;
        self.center(CenterInput::Unpublish(self.contents[number].version.content));
    }

    /// A content of those that are published; the first one stays where `further`.
    pub(super) fn some_content(&mut self, further: bool) -> Option<usize> {
        let fit: Vec<usize> =
            (usize::from(further)..self.contents.len()).filter(|n| !self.contents[*n].withdrawn).collect();
        (!fit.is_empty()).then(|| fit[self.rng.below(fit.len() as u64) as usize])
    }

    /// One of a host's contents matters more or less to it from now on.
    pub(super) fn prefer(&mut self, first: Nx) {
        let node = first + self.rng.below(self.contents.len() as u64) as Nx;
        let usual = self.content_of(node).priority;
        let priority = [Priority::Low, usual, Priority::High][self.rng.below(3) as usize];
        let n = &mut self.nodes[node as usize];
        n.priority = priority;
        if let Some(swarm) = &mut n.swarm {
            swarm.set_priority(priority);
        }
    }

    // ---- at the control center's shell and the node's ----

    /// What the control center says of a content reaches the node that has to do with it.
    pub(super) fn tell_of(&mut self, node: &NodeId, content: ContentId, message: impl FnOnce(Nx) -> FromCenter) {
        if let Some(node) = self.node_of(node, content) {
            self.tell_node(self.first_of(node), message(node));
        }
    }

    /// Whether the swarm of a node is of this version.
    pub(super) fn is_of(&self, node: Nx, version: Version) -> bool {
        self.nodes[node as usize].swarm.as_ref().is_some_and(|s| s.version() == version)
    }
}
