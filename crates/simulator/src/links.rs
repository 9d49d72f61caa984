//! The fluid model of access links and of links that many share: who sends to whom, and how fast right now.
//!
//! Every node has an uplink and a downlink; between them an edge may pass up to [`SHARED_MAX`] shared links (an
//! enterprise's line, the peering of two ISPs). An edge runs at least at its *base*: the least of `capacity / edges` over
//! all links that it passes. What a link's edges cannot use of their shares goes to its other edges, in one pass, whenever
//! one of its own edges comes or goes. Capacity lent that way is taken back when an edge claims its base; nothing cascades
//! further.
//!
//! After every call, for every link and edge:
//! - no link carries more than its capacity (to 1e-9 relative);
//! - no active edge runs below its base.
//!
//! The rates are not the exact max-min fair ones: that costs a computation over all edges for each change. Over 2,000
//! random worlds of 3 to 12 nodes without shared links a test of this module finds 0.99 of the total throughput of exact
//! max-min sharing on average and 0.80 in the worst one; where all links and degrees are equal the rates are exact.
//!
//! A change costs O(degree) of each link that the edge passes, plus one scan of a neighbour's edges for each neighbour that
//! has to give lent capacity back. Nothing is hashed, and nothing is allocated once the vectors have grown.

/// The largest link rate in bytes per second; higher ones (and infinity) count as this.
pub const RATE_MAX_BYTES_PER_SECOND: f64 = 1e13;

/// Shared links that an edge may pass, besides its sender's uplink and its receiver's downlink.
pub const SHARED_MAX: usize = 3;

/// Changes of a rate below this fraction are not reported, so that rounding does not move finish times.
const REPORTED_CHANGE_MIN: f64 = 1e-9;

const SENDER: usize = 0;
const RECEIVER: usize = 1;
const PASSED_MAX: usize = 2 + SHARED_MAX;

/// A node of [`Links`]: dense, in order of [`Links::add_node`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIx(pub u32);

/// A link that many edges share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SharedIx(u32);

/// An active edge of [`Links`]. Valid until it is deactivated; the number is then used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeIx(pub u32);

/// Nodes, their links and the active transfers between them. Rates are in bytes per second.
///
/// Methods panic on a node or edge that this value never gave out.
#[derive(Clone, Debug, Default)]
pub struct Links {
    links: Vec<Link>,
    /// Uplink and downlink of each node.
    nodes: Vec<[u32; 2]>,
    edges: Vec<Edge>,
    free: Vec<EdgeIx>,
    /// Edges whose rate was touched since the last drain, each once.
    touched: Vec<EdgeIx>,
}

/// One direction of a node's access link, or a shared link.
#[derive(Clone, Debug, Default)]
struct Link {
    capacity: f64,
    used: f64,
    /// `capacity / edges.len()`.
    fair: f64,
    edges: Vec<EdgeIx>,
}

#[derive(Clone, Debug)]
struct Edge {
    /// The sender and the receiver.
    nodes: [NodeIx; 2],
    /// The first `passed` are the links that it passes: the sender's, the receiver's, shared ones.
    links: [u32; PASSED_MAX],
    /// Where this edge stands in the list of each of them.
    positions: [u32; PASSED_MAX],
    passed: u8,
    rate: f64,
    /// The rate at the last drain; negative for an edge that is new since.
    reported: f64,
    active: bool,
    touched: bool,
}

impl Edge {
    fn passes(&self) -> &[u32] {
        &self.links[..usize::from(self.passed)]
    }
}

impl Links {
    /// An empty world.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node with these link rates; negative rates and NaN count as zero.
    pub fn add_node(&mut self, up: f64, down: f64) -> NodeIx {
        let links = [up, down].map(|rate| self.add_link(rate));
        self.nodes.push(links);
        NodeIx(self.nodes.len() as u32 - 1)
    }

    /// Adds a link that edges may share; a negative rate and NaN count as zero.
    pub fn add_shared(&mut self, rate: f64) -> SharedIx {
        SharedIx(self.add_link(rate))
    }

    fn add_link(&mut self, rate: f64) -> u32 {
        self.links.push(Link { capacity: bounded(rate), ..Link::default() });
        self.links.len() as u32 - 1
    }

    /// Changes a node's link rates. All edges of its neighbours are settled anew: O(degree²), meant to be rare.
    pub fn set_rates(&mut self, node: NodeIx, up: f64, down: f64) {
        let [own_up, own_down] = self.nodes[node.0 as usize];
        self.set_capacity(own_up, up);
        self.set_capacity(own_down, down);
        self.settle_around(own_down);
        self.settle_around(own_up);
    }

    /// Changes the rate of a shared link; costs as much as [`Links::set_rates`].
    pub fn set_shared(&mut self, link: SharedIx, rate: f64) {
        self.set_capacity(link.0, rate);
        self.settle_around(link.0);
    }

    fn set_capacity(&mut self, link: u32, rate: f64) {
        let link = &mut self.links[link as usize];
        link.capacity = bounded(rate);
        link.update_fair();
    }

    /// Settles a link, and then all others that its edges pass.
    fn settle_around(&mut self, link: u32) {
        self.settle(link);
        for position in 0..self.links[link as usize].edges.len() {
            let edge = self.links[link as usize].edges[position];
            for other in 0..self.edges[edge.0 as usize].passes().len() {
                let other = self.edges[edge.0 as usize].links[other];
                if other != link {
                    self.settle(other);
                }
            }
        }
    }

    /// Starts a transfer that passes no shared link. A pair may have several at once; each counts as a child and a parent.
    pub fn activate(&mut self, from: NodeIx, to: NodeIx) -> EdgeIx {
        self.activate_through(from, to, &[])
    }

    /// As [`Links::activate`], through shared links, each named once; those after the first [`SHARED_MAX`] are ignored.
    pub fn activate_through(&mut self, from: NodeIx, to: NodeIx, shared: &[SharedIx]) -> EdgeIx {
        let [sender, receiver] = [self.nodes[from.0 as usize][SENDER], self.nodes[to.0 as usize][RECEIVER]];
        let mut links = [sender, receiver, 0, 0, 0];
        let mut passed = 2;
        for link in shared.iter().take(SHARED_MAX) {
            links[passed] = link.0;
            passed += 1;
        }
        let mut new = Edge {
            nodes: [from, to],
            links,
            positions: [0; PASSED_MAX],
            passed: passed as u8,
            rate: 0.0,
            reported: -1.0,
            active: true,
            touched: false,
        };
        let index = self.free.pop().unwrap_or(EdgeIx(self.edges.len() as u32));
        for (slot, link) in links.iter().enumerate().take(passed) {
            let link = &mut self.links[*link as usize];
            new.positions[slot] = link.edges.len() as u32;
            link.edges.push(index);
            link.update_fair();
        }
        match self.edges.get_mut(index.0 as usize) {
            Some(former) => {
                new.touched = former.touched;
                *former = new;
            }
            None => self.edges.push(new),
        }
        self.touch(index);
        self.settle(receiver);
        self.settle(sender);
        index
    }

    /// Ends a transfer; its number may be given out again by the next [`activate`](Self::activate). Does nothing for
    /// an edge that is not active. The edge itself is not reported as changed.
    pub fn deactivate(&mut self, index: EdgeIx) {
        let edge = &mut self.edges[index.0 as usize];
        if !edge.active {
            return;
        }
        edge.active = false;
        let (links, positions, passed, rate) = (edge.links, edge.positions, usize::from(edge.passed), edge.rate);
        edge.rate = 0.0;
        for (number, position) in links.into_iter().zip(positions).take(passed) {
            let link = &mut self.links[number as usize];
            link.used -= rate;
            link.edges.swap_remove(position as usize);
            link.update_fair();
            if let Some(moved) = link.edges.get(position as usize) {
                let moved = &mut self.edges[moved.0 as usize];
                if let Some(slot) = moved.passes().iter().position(|l| *l == number) {
                    moved.positions[slot] = position;
                }
            }
        }
        self.free.push(index);
        self.settle(links[RECEIVER]);
        self.settle(links[SENDER]);
        for shared in links.into_iter().take(passed).skip(2) {
            self.settle(shared);
        }
    }

    /// The rate of an edge; 0 when it is not active.
    pub fn rate(&self, edge: EdgeIx) -> f64 {
        self.edges[edge.0 as usize].rate
    }

    /// Sender and receiver of an edge.
    pub fn ends_of(&self, edge: EdgeIx) -> (NodeIx, NodeIx) {
        let [from, to] = self.edges[edge.0 as usize].nodes;
        (from, to)
    }

    /// Appends the active edges whose rate differs from that at the last drain by more than 1e-9 of it, new edges
    /// included, each once and in the order in which they were first touched.
    pub fn drain_changed(&mut self, changed: &mut Vec<EdgeIx>) {
        for index in self.touched.drain(..) {
            let edge = &mut self.edges[index.0 as usize];
            edge.touched = false;
            let differs = (edge.rate - edge.reported).abs() > REPORTED_CHANGE_MIN * edge.reported.abs();
            if edge.active && differs {
                edge.reported = edge.rate;
                changed.push(index);
            }
        }
    }

    /// The active edges on which a node sends, in no useful order.
    pub fn children(&self, node: NodeIx) -> &[EdgeIx] {
        &self.of(SENDER, node).edges
    }

    /// The active edges on which a node receives, in no useful order.
    pub fn parents(&self, node: NodeIx) -> &[EdgeIx] {
        &self.of(RECEIVER, node).edges
    }

    /// What a node sends at present, over all its edges.
    pub fn used_up(&self, node: NodeIx) -> f64 {
        self.of(SENDER, node).used
    }

    /// What a node receives at present, over all its edges.
    pub fn used_down(&self, node: NodeIx) -> f64 {
        self.of(RECEIVER, node).used
    }

    /// What a shared link carries at present, and what it can.
    pub fn used_shared(&self, link: SharedIx) -> (f64, f64) {
        let link = &self.links[link.0 as usize];
        (link.used, link.capacity)
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// How many edges are active.
    pub fn edge_count(&self) -> usize {
        self.edges.len() - self.free.len()
    }

    fn of(&self, side: usize, node: NodeIx) -> &Link {
        &self.links[self.nodes[node.0 as usize][side] as usize]
    }

    /// The least of the shares that an edge has in all its links, and what those besides `link` have unused.
    fn base_and_room(&self, edge: &Edge, link: u32) -> (f64, f64) {
        let (mut base, mut room) = (f64::INFINITY, f64::INFINITY);
        for passed in edge.passes() {
            let other = &self.links[*passed as usize];
            base = base.min(other.fair);
            if *passed != link {
                room = room.min(other.spare());
            }
        }
        (base, room)
    }

    /// Shares one link's capacity among its edges: each gets the fair share or what its other links allow, and what is
    /// left goes in equal parts to those whose other links have room.
    fn settle(&mut self, link: u32) {
        let fair = self.links[link as usize].fair;
        let degree = self.links[link as usize].edges.len();
        let mut roomy = 0_u32;
        for position in 0..degree {
            let index = self.links[link as usize].edges[position];
            let edge = &self.edges[index.0 as usize];
            let rate = edge.rate;
            let (base, room) = self.base_and_room(edge, link);
            let mut limit = rate + room;
            if limit < base {
                self.claim(index, link, base);
                limit = base;
            }
            if limit > fair {
                roomy += 1;
            }
            self.set_rate(index, fair.min(limit));
        }
        // Summed anew, so that rounding cannot add up over many changes.
        let edges = &self.links[link as usize].edges;
        let used = edges.iter().map(|e| self.edges[e.0 as usize].rate).sum();
        self.links[link as usize].used = used;
        self.redistribute(link, roomy);
    }

    fn redistribute(&mut self, link: u32, mut roomy: u32) {
        let own = &self.links[link as usize];
        let (fair, degree) = (own.fair, own.edges.len());
        let mut spare = own.spare();
        for position in 0..degree {
            if roomy == 0 || spare <= REPORTED_CHANGE_MIN * fair {
                return;
            }
            let index = self.links[link as usize].edges[position];
            let edge = &self.edges[index.0 as usize];
            let rate = edge.rate;
            let (_, room) = self.base_and_room(edge, link);
            // Edges below the fair share are at another link's limit and were not counted.
            if rate < fair || room <= 0.0 {
                continue;
            }
            let extra = room.min(spare / f64::from(roomy));
            self.set_rate(index, rate + extra);
            spare -= extra;
            roomy -= 1;
        }
    }

    /// Takes back what an edge lacks to its base at the links besides `link`.
    fn claim(&mut self, index: EdgeIx, link: u32, base: f64) {
        for slot in 0..self.edges[index.0 as usize].passes().len() {
            let edge = &self.edges[index.0 as usize];
            let other = edge.links[slot];
            let room = edge.rate + self.links[other as usize].spare();
            if other != link && room < base {
                self.reclaim(other, base - room);
            }
        }
    }

    /// Takes `need` back from the edges of this link that run above its fair share. They always have that much when the
    /// link is full and an edge of it runs below its base.
    fn reclaim(&mut self, link: u32, mut need: f64) {
        let own = &self.links[link as usize];
        let (fair, degree) = (own.fair, own.edges.len());
        for position in 0..degree {
            let index = self.links[link as usize].edges[position];
            let rate = self.edges[index.0 as usize].rate;
            if rate > fair {
                let taken = need.min(rate - fair);
                self.set_rate(index, rate - taken);
                need -= taken;
                if need <= 0.0 {
                    return;
                }
            }
        }
    }

    fn set_rate(&mut self, index: EdgeIx, rate: f64) {
        let edge = &mut self.edges[index.0 as usize];
        let change = rate - edge.rate;
        if change == 0.0 {
            return;
        }
        edge.rate = rate;
        for link in edge.links.iter().take(usize::from(edge.passed)) {
            self.links[*link as usize].used += change;
        }
        self.touch(index);
    }

    fn touch(&mut self, index: EdgeIx) {
        let edge = &mut self.edges[index.0 as usize];
        if !edge.touched {
            edge.touched = true;
            self.touched.push(index);
        }
    }
}

impl Link {
    fn spare(&self) -> f64 {
        (self.capacity - self.used).max(0.0)
    }

    fn update_fair(&mut self) {
        if self.edges.is_empty() {
            self.fair = self.capacity;
            self.used = 0.0;
        } else {
            self.fair = self.capacity / self.edges.len() as f64;
        }
    }
}

/// NaN is not above zero and becomes it.
fn bounded(rate: f64) -> f64 {
    if rate > 0.0 { rate.min(RATE_MAX_BYTES_PER_SECOND) } else { 0.0 }
}

#[cfg(test)]
mod tests;
