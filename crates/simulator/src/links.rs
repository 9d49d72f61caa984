//! The fluid model of access links: who sends to whom, and how fast right now.
//!
//! Every node has an uplink and a downlink; the network between them is free. An edge from a sender with uplink `u`
//! and `k` active children to a receiver with downlink `d` and `p` active parents runs at least at its *base*,
//! `min(u / k, d / p)`. What an end cannot use at one edge it hands to its other edges, in one pass, whenever one of its
//! own edges comes or goes. Capacity lent that way is taken back when an edge claims its base; nothing cascades further.
//!
//! After every call, for every node and edge:
//! - no sender sends more than its uplink and no receiver takes more than its downlink (to 1e-9 relative);
//! - no active edge runs below its base.
//!
//! The rates are not the exact max-min fair ones: that costs a computation over all edges for each change. Over 2,000
//! random worlds of 3 to 12 nodes a test of this module finds 0.99 of the total throughput of exact max-min sharing on
//! average and 0.80 in the worst one; where all links and degrees are equal the rates are exact.
//!
//! A change costs O(degree), plus one scan of a neighbour's edges for each neighbour that has to give lent capacity
//! back. Nothing is hashed, and nothing is allocated once the vectors have grown.

/// The largest link rate in bytes per second; higher ones (and infinity) count as this.
pub const RATE_MAX_BYTES_PER_SECOND: f64 = 1e13;

/// Changes of a rate below this fraction are not reported, so that rounding does not move finish times.
const REPORTED_CHANGE_MIN: f64 = 1e-9;

const SENDER: usize = 0;
const RECEIVER: usize = 1;

/// A node of [`Links`]: dense, in order of [`Links::add_node`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIx(pub u32);

/// An active edge of [`Links`]. Valid until it is deactivated; the number is then used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeIx(pub u32);

/// Nodes, their links and the active transfers between them. Rates are in bytes per second.
///
/// Methods panic on a node or edge that this value never gave out.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// Uplinks of all nodes, then downlinks of all nodes.
    ends: [Vec<End>; 2],
    edges: Vec<Edge>,
    free: Vec<EdgeIx>,
    /// Edges whose rate was touched since the last drain, each once.
    touched: Vec<EdgeIx>,
}

/// One direction of a node's access link.
#[derive(Clone, Debug, Default)]
struct End {
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
    /// Where this edge stands in the list of each of them.
    positions: [u32; 2],
    rate: f64,
    /// The rate at the last drain; negative for an edge that is new since.
    reported: f64,
    active: bool,
    touched: bool,
}

impl Links {
    /// An empty world.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node with these link rates; negative rates and NaN count as zero.
    pub fn add_node(&mut self, up: f64, down: f64) -> NodeIx {
        let node = NodeIx(self.ends[SENDER].len() as u32);
        for (side, rate) in [(SENDER, up), (RECEIVER, down)] {
            self.ends[side].push(End { capacity: bounded(rate), ..End::default() });
        }
        node
    }

    /// Changes a node's link rates. All edges of its neighbours are settled anew: O(degree²), meant to be rare.
    pub fn set_rates(&mut self, node: NodeIx, up: f64, down: f64) {
        for (side, rate) in [(SENDER, up), (RECEIVER, down)] {
            let end = &mut self.ends[side][node.0 as usize];
            end.capacity = bounded(rate);
            end.update_fair();
        }
        for side in [RECEIVER, SENDER] {
            self.settle(side, node);
            for position in 0..self.end(side, node).edges.len() {
                let edge = self.end(side, node).edges[position];
                let neighbour = self.edges[edge.0 as usize].nodes[1 - side];
                self.settle(1 - side, neighbour);
            }
        }
    }

    /// Starts a transfer. A pair may have several at once; each counts as a child and a parent.
    pub fn activate(&mut self, from: NodeIx, to: NodeIx) -> EdgeIx {
        let index = self.free.pop().unwrap_or_else(|| {
            self.edges.push(Edge {
                nodes: [from, to],
                positions: [0; 2],
                rate: 0.0,
                reported: -1.0,
                active: false,
                touched: false,
            });
            EdgeIx(self.edges.len() as u32 - 1)
        });
        let edge = &mut self.edges[index.0 as usize];
        edge.nodes = [from, to];
        edge.rate = 0.0;
        edge.reported = -1.0;
        edge.active = true;
        for side in [SENDER, RECEIVER] {
            let end = &mut self.ends[side][edge.nodes[side].0 as usize];
            edge.positions[side] = end.edges.len() as u32;
            end.edges.push(index);
            end.update_fair();
        }
        self.touch(index);
        self.settle(RECEIVER, to);
        self.settle(SENDER, from);
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
        let (nodes, positions, rate) = (edge.nodes, edge.positions, edge.rate);
        edge.rate = 0.0;
        for side in [SENDER, RECEIVER] {
            let end = &mut self.ends[side][nodes[side].0 as usize];
            end.used -= rate;
            let position = positions[side] as usize;
            end.edges.swap_remove(position);
            end.update_fair();
            if let Some(moved) = end.edges.get(position) {
                self.edges[moved.0 as usize].positions[side] = positions[side];
            }
        }
        self.free.push(index);
        self.settle(RECEIVER, nodes[RECEIVER]);
        self.settle(SENDER, nodes[SENDER]);
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
        &self.end(SENDER, node).edges
    }

    /// The active edges on which a node receives, in no useful order.
    pub fn parents(&self, node: NodeIx) -> &[EdgeIx] {
        &self.end(RECEIVER, node).edges
    }

    /// What a node sends at present, over all its edges.
    pub fn used_up(&self, node: NodeIx) -> f64 {
        self.end(SENDER, node).used
    }

    /// What a node receives at present, over all its edges.
    pub fn used_down(&self, node: NodeIx) -> f64 {
        self.end(RECEIVER, node).used
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.ends[SENDER].len()
    }

    /// How many edges are active.
    pub fn edge_count(&self) -> usize {
        self.edges.len() - self.free.len()
    }

    fn end(&self, side: usize, node: NodeIx) -> &End {
        &self.ends[side][node.0 as usize]
    }

    /// Shares one end's capacity among its edges: each gets the fair share or what its far end allows, and what is left
    /// goes in equal parts to those whose far end has room.
    fn settle(&mut self, side: usize, node: NodeIx) {
        let fair = self.end(side, node).fair;
        let degree = self.end(side, node).edges.len();
        let mut roomy = 0_u32;
        for position in 0..degree {
            let index = self.end(side, node).edges[position];
            let edge = &self.edges[index.0 as usize];
            let (rate, far) = (edge.rate, edge.nodes[1 - side]);
            let far_end = self.end(1 - side, far);
            let base = fair.min(far_end.fair);
            let mut limit = rate + far_end.spare();
            if limit < base {
                self.reclaim(1 - side, far, base - limit);
                limit = base;
            }
            if limit > fair {
                roomy += 1;
            }
            self.set_rate(index, fair.min(limit));
        }
        // Summed anew, so that rounding cannot add up over many changes.
        let edges = &self.ends[side][node.0 as usize].edges;
        let used = edges.iter().map(|e| self.edges[e.0 as usize].rate).sum();
        self.ends[side][node.0 as usize].used = used;
        self.redistribute(side, node, roomy);
    }

    fn redistribute(&mut self, side: usize, node: NodeIx, mut roomy: u32) {
        let end = self.end(side, node);
        let (fair, degree) = (end.fair, end.edges.len());
        let mut spare = end.spare();
        for position in 0..degree {
            if roomy == 0 || spare <= REPORTED_CHANGE_MIN * fair {
                return;
            }
            let index = self.end(side, node).edges[position];
            let edge = &self.edges[index.0 as usize];
            let rate = edge.rate;
            let room = self.end(1 - side, edge.nodes[1 - side]).spare();
            // Edges below the fair share are at their far end's limit and were not counted.
            if rate < fair || room <= 0.0 {
                continue;
            }
            let extra = room.min(spare / f64::from(roomy));
            self.set_rate(index, rate + extra);
            spare -= extra;
            roomy -= 1;
        }
    }

    /// Takes `need` back from the edges of this end that run above its fair share. They always have that much when the
    /// end is full and an edge of it runs below its base.
    fn reclaim(&mut self, side: usize, node: NodeIx, mut need: f64) {
        let end = self.end(side, node);
        let (fair, degree) = (end.fair, end.edges.len());
        for position in 0..degree {
            let index = self.end(side, node).edges[position];
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
        for side in [SENDER, RECEIVER] {
            self.ends[side][edge.nodes[side].0 as usize].used += change;
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

impl End {
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A small generator, so that the tests need no crate for it (SplitMix64, Steele, Lea, Flood 2014).
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        fn below(&mut self, n: usize) -> usize {
            (self.next() % n as u64) as usize
        }

        fn rate(&mut self) -> f64 {
            [0.5, 1.0, 2.0, 5.0, 10.0, 40.0][self.below(6)]
        }
    }

    fn active(links: &Links) -> Vec<EdgeIx> {
        (0..links.edges.len() as u32).map(EdgeIx).filter(|e| links.edges[e.0 as usize].active).collect()
    }

    /// The promises of the module's documentation, and that lists and sums agree with the edges.
    fn check(links: &Links) {
        for side in [SENDER, RECEIVER] {
            for (node, end) in links.ends[side].iter().enumerate() {
                let mut sum = 0.0;
                for (position, index) in end.edges.iter().enumerate() {
                    let edge = &links.edges[index.0 as usize];
                    assert!(edge.active);
                    assert_eq!(edge.nodes[side], NodeIx(node as u32));
                    assert_eq!(edge.positions[side] as usize, position);
                    sum += edge.rate;
                }
                let slack = 1e-9 * end.capacity + 1e-12;
                assert!(sum <= end.capacity + slack, "{sum} > {}", end.capacity);
                assert!((sum - end.used).abs() <= slack);
            }
        }
        for index in active(links) {
            let edge = &links.edges[index.0 as usize];
            let [s, r] = edge.nodes;
            let base = links.end(SENDER, s).fair.min(links.end(RECEIVER, r).fair);
            assert!(edge.rate >= base * (1.0 - 1e-9), "{} < {base}", edge.rate);
        }
    }

    /// Exact max-min fair rates of the active edges: all grow alike, and stop when one of their ends is full.
    fn progressive_filling(links: &Links) -> Vec<f64> {
        let edges: Vec<[usize; 2]> =
            active(links).iter().map(|e| links.edges[e.0 as usize].nodes.map(|n| n.0 as usize)).collect();
        let mut room =
            [SENDER, RECEIVER].map(|side| links.ends[side].iter().map(|end| end.capacity).collect::<Vec<_>>());
        let mut rates = vec![0.0; edges.len()];
        let mut growing = vec![true; edges.len()];
        while growing.contains(&true) {
            let mut counts = [vec![0; links.node_count()], vec![0; links.node_count()]];
            for (ends, _) in edges.iter().zip(&growing).filter(|(_, g)| **g) {
                counts[SENDER][ends[SENDER]] += 1;
                counts[RECEIVER][ends[RECEIVER]] += 1;
            }
            let mut step = f64::INFINITY;
            for side in [SENDER, RECEIVER] {
                for (room, count) in room[side].iter().zip(&counts[side]) {
                    if *count > 0 {
                        step = step.min(room / f64::from(*count));
                    }
                }
            }
            for side in [SENDER, RECEIVER] {
                for (room, count) in room[side].iter_mut().zip(&counts[side]) {
                    *room -= step * f64::from(*count);
                }
            }
            for (e, ends) in edges.iter().enumerate().filter(|(e, _)| growing[*e]).collect::<Vec<_>>() {
                rates[e] += step;
                growing[e] = (0..2).all(|side| room[side][ends[side]] > 1e-9);
            }
        }
        rates
    }

    fn random_world(random: &mut Random, nodes: usize, steps: usize) -> Links {
        let mut links = Links::new();
        for _ in 0..nodes {
            links.add_node(random.rate(), random.rate());
        }
        for _ in 0..steps {
            random_change(random, &mut links);
        }
        links
    }

    /// Activates twice as often as it deactivates.
    fn random_change(random: &mut Random, links: &mut Links) {
        let edges = active(links);
        if random.below(3) == 0 && !edges.is_empty() {
            links.deactivate(edges[random.below(edges.len())]);
        } else {
            let from = random.below(links.node_count());
            let to = (from + 1 + random.below(links.node_count() - 1)) % links.node_count();
            links.activate(NodeIx(from as u32), NodeIx(to as u32));
        }
    }

    proptest! {
        #[test]
        fn promises_hold_after_every_change(seed: u64, nodes in 2_usize..12) {
            let mut random = Random(seed);
            let mut links = random_world(&mut random, nodes, 0);
            for _ in 0..200 {
                if random.below(20) == 0 {
                    let node = NodeIx(random.below(nodes) as u32);
                    let (up, down) = (random.rate() * random.below(2) as f64, random.rate());
                    links.set_rates(node, up, down);
                } else {
                    random_change(&mut random, &mut links);
                }
                check(&links);
            }
            for edge in active(&links) {
                links.deactivate(edge);
            }
            check(&links);
            prop_assert_eq!(links.edge_count(), 0);
        }

        #[test]
        fn a_copy_kept_from_the_drains_is_right(seed: u64) {
            let mut random = Random(seed);
            let mut links = random_world(&mut random, 8, 0);
            let mut copy = Vec::new();
            let mut changed = Vec::new();
            for _ in 0..100 {
                random_change(&mut random, &mut links);
                changed.clear();
                links.drain_changed(&mut changed);
                for edge in &changed {
                    copy.resize(copy.len().max(edge.0 as usize + 1), 0.0);
                    copy[edge.0 as usize] = links.rate(*edge);
                }
                for edge in active(&links) {
                    let (kept, rate) = (copy[edge.0 as usize], links.rate(edge));
                    prop_assert!((kept - rate).abs() <= 1e-9 * rate);
                }
            }
        }
    }

    #[test]
    fn throughput_is_near_that_of_max_min_sharing() {
        let mut random = Random(7);
        let (mut sum, mut least, worlds) = (0.0, f64::INFINITY, 2_000);
        for _ in 0..worlds {
            let nodes = 3 + random.below(10);
            let steps = 5 + random.below(60);
            let links = random_world(&mut random, nodes, steps);
            let exact: f64 = progressive_filling(&links).iter().sum();
            let ours: f64 = active(&links).iter().map(|e| links.rate(*e)).sum();
            let ratio = if exact > 0.0 { ours / exact } else { 1.0 };
            sum += ratio;
            least = least.min(ratio);
        }
        let mean = sum / f64::from(worlds);
        assert!(mean > 0.98 && least > 0.7, "mean {mean}, least {least}");
    }

    #[test]
    fn symmetrical_worlds_are_exact() {
        for (nodes, degree) in [(2_u32, 1), (5, 1), (5, 4), (12, 3), (40, 20)] {
            let mut links = Links::new();
            for _ in 0..nodes {
                links.add_node(12.0, 12.0);
            }
            let mut edges = Vec::new();
            for step in 1..=degree {
                for from in 0..nodes {
                    edges.push(links.activate(NodeIx(from), NodeIx((from + step) % nodes)));
                }
            }
            for edge in edges {
                let exact = 12.0 / f64::from(degree);
                assert!((links.rate(edge) - exact).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn stars_share_the_center_equally() {
        for inward in [false, true] {
            let mut links = Links::new();
            let center = links.add_node(10.0, 10.0);
            let mut edges = Vec::new();
            for _ in 0..5 {
                let leaf = links.add_node(100.0, 100.0);
                let (from, to) = if inward { (leaf, center) } else { (center, leaf) };
                edges.push(links.activate(from, to));
            }
            assert!(edges.iter().all(|e| (links.rate(*e) - 2.0).abs() < 1e-12));
            links.deactivate(edges[0]);
            assert!(edges[1..].iter().all(|e| (links.rate(*e) - 2.5).abs() < 1e-12));
        }
    }

    #[test]
    fn an_unused_share_goes_to_the_others_and_comes_back() {
        let mut links = Links::new();
        let sender = links.add_node(9.0, 0.0);
        let slow = links.add_node(0.0, 1.0);
        let quick = links.add_node(0.0, 100.0);
        let other = links.add_node(0.0, 100.0);
        let edges = [slow, quick, other].map(|to| links.activate(sender, to));
        assert_eq!(edges.map(|e| links.rate(e)), [1.0, 4.0, 4.0]);
        links.set_rates(slow, 0.0, 100.0);
        assert_eq!(edges.map(|e| links.rate(e)), [3.0, 3.0, 3.0]);
        links.set_rates(sender, 0.0, 0.0);
        assert_eq!(edges.map(|e| links.rate(e)), [0.0; 3]);
    }

    #[test]
    fn unchanged_rates_are_not_reported() {
        let mut links = Links::new();
        let [a, b, c, d] = [(); 4].map(|()| links.add_node(10.0, 10.0));
        let mut changed = Vec::new();
        let first = links.activate(a, b);
        links.drain_changed(&mut changed);
        assert_eq!(changed, [first]);
        changed.clear();
        let second = links.activate(c, d);
        let gone = links.activate(a, c);
        links.deactivate(gone);
        links.deactivate(gone);
        links.drain_changed(&mut changed);
        assert_eq!(changed, [second]);
        assert_eq!(links.rate(gone), 0.0);
        assert_eq!(links.edge_count(), 2);
        assert_eq!(links.ends_of(second), (c, d));
    }

    #[test]
    fn odd_rates_are_bounded() {
        let mut links = Links::new();
        let endless = links.add_node(f64::INFINITY, f64::INFINITY);
        let odd = links.add_node(f64::NAN, -1.0);
        let other = links.add_node(1.0, f64::INFINITY);
        let (none, most) = (links.activate(odd, endless), links.activate(endless, other));
        assert_eq!((links.rate(none), links.rate(most)), (0.0, RATE_MAX_BYTES_PER_SECOND));
        assert_eq!(links.rate(links.parents(endless)[0]), 0.0);
        assert_eq!(links.children(odd), [none]);
        assert_eq!(links.used_up(odd) + links.used_down(endless), 0.0);
    }

    /// 10 to 40 children each and a million changes: finishes in seconds unless the work is quadratic.
    #[test]
    fn a_million_changes_among_two_thousand_nodes() {
        let mut random = Random(1);
        let mut links = Links::new();
        for _ in 0..2_000 {
            links.add_node(random.rate(), random.rate());
        }
        let mut edges = Vec::new();
        let mut changed = Vec::new();
        for _ in 0..500_000 {
            if edges.len() > 50_000 {
                links.deactivate(edges.swap_remove(random.below(edges.len())));
            }
            let from = random.below(2_000);
            let to = (from + 1 + random.below(1_999)) % 2_000;
            edges.push(links.activate(NodeIx(from as u32), NodeIx(to as u32)));
            changed.clear();
            links.drain_changed(&mut changed);
            assert!(changed.len() <= edges.len());
        }
        while let Some(edge) = edges.pop() {
            links.deactivate(edge);
            if edges.len() % 10_000 == 0 {
                check(&links);
            }
        }
        assert_eq!(links.edge_count(), 0);
        assert!(links.edges.len() <= 50_001);
    }
}
