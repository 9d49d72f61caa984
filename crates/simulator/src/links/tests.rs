//! Tests of the fluid links.

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
    for (number, link) in links.links.iter().enumerate() {
        let mut sum = 0.0;
        for (position, index) in link.edges.iter().enumerate() {
            let edge = &links.edges[index.0 as usize];
            assert!(edge.active);
            let slot = edge.passes().iter().position(|l| *l == number as u32).unwrap();
            assert_eq!(edge.positions[slot] as usize, position);
            sum += edge.rate;
        }
        let slack = 1e-9 * link.capacity + 1e-12;
        assert!(sum <= link.capacity + slack, "{sum} > {}", link.capacity);
        assert!((sum - link.used).abs() <= slack);
    }
    for index in active(links) {
        let edge = &links.edges[index.0 as usize];
        let base = edge.passes().iter().map(|l| links.links[*l as usize].fair).fold(f64::INFINITY, f64::min);
        assert!(edge.rate >= base * (1.0 - 1e-9), "{} < {base}", edge.rate);
    }
}

/// Exact max-min fair rates of the active edges: all grow alike, and stop when one of their links is full.
fn progressive_filling(links: &Links) -> Vec<f64> {
    let edges: Vec<&[u32]> = active(links).iter().map(|e| links.edges[e.0 as usize].passes()).collect();
    let mut room: Vec<f64> = links.links.iter().map(|link| link.capacity).collect();
    let mut rates = vec![0.0; edges.len()];
    let mut growing = vec![true; edges.len()];
    while growing.contains(&true) {
        let mut counts = vec![0; room.len()];
        for link in edges.iter().zip(&growing).filter(|(_, g)| **g).flat_map(|(passed, _)| *passed) {
            counts[*link as usize] += 1;
        }
        let used = || room.iter().zip(&counts).filter(|(_, count)| **count > 0);
        let step = used().map(|(room, count)| room / f64::from(*count)).fold(f64::INFINITY, f64::min);
        for (room, count) in room.iter_mut().zip(&counts) {
            *room -= step * f64::from(*count);
        }
        for (e, passed) in edges.iter().enumerate().filter(|(e, _)| growing[*e]).collect::<Vec<_>>() {
            rates[e] += step;
            growing[e] = passed.iter().all(|link| room[*link as usize] > 1e-9);
        }
    }
    rates
}

/// The first `shared` links are shared.
fn random_world(random: &mut Random, nodes: usize, shared: usize, steps: usize) -> Links {
    let mut links = Links::new();
    for _ in 0..shared {
        links.add_shared(random.rate());
    }
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
        let first_own = links.nodes[0][SENDER];
        let shared: Vec<SharedIx> = (0..first_own).map(SharedIx).filter(|_| random.below(2) == 0).collect();
        links.activate_through(NodeIx(from as u32), NodeIx(to as u32), &shared);
    }
}

proptest! {
    #[test]
    fn promises_hold_after_every_change(seed: u64, nodes in 2_usize..12, shared in 0_usize..4) {
        let mut random = Random(seed);
        let mut links = random_world(&mut random, nodes, shared, 0);
        for _ in 0..200 {
            if shared > 0 && random.below(20) == 0 {
                let link = SharedIx(random.below(shared) as u32);
                let rate = random.rate() * random.below(2) as f64;
                links.set_shared(link, rate);
            } else if random.below(20) == 0 {
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
        let mut links = random_world(&mut random, 8, 1, 0);
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
        let links = random_world(&mut random, nodes, 0, steps);
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
fn a_shared_link_is_shared_and_its_rest_is_lent() {
    let mut links = Links::new();
    let peering = links.add_shared(4.0);
    let [a, b, c] = [(); 3].map(|()| links.add_node(10.0, 10.0));
    let across = links.activate_through(a, b, &[peering]);
    assert_eq!(links.rate(across), 4.0);
    let second = links.activate_through(c, b, &[peering]);
    let inside = links.activate(a, c);
    assert_eq!([across, second, inside].map(|e| links.rate(e)), [2.0, 2.0, 8.0]);
    assert_eq!(links.used_shared(peering), (4.0, 4.0));
    links.set_shared(peering, 0.0);
    assert_eq!([across, second, inside].map(|e| links.rate(e)), [0.0, 0.0, 10.0]);
    links.set_shared(peering, 100.0);
    assert_eq!([across, second, inside].map(|e| links.rate(e)), [5.0, 5.0, 5.0]);
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
