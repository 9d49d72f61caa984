//! What lies between the nodes: ISPs with a peering link for each two of them, and sites with a shared line.

use super::{Nx, World};
use crate::links::{Links, NodeIx, SHARED_MAX, SharedIx};
use crate::scenario::{HostSpec, MBIT, Scenario};
use headwater_model::time::Micros;

/// One way between two hosts of a site.
const LAN_LATENCY: Micros = Micros(500);

/// Shared links and what passed between ISPs and into sites. Ends are numbered as in [`Links`]: the origin first.
#[derive(Debug)]
pub(super) struct Network {
    /// The ISPs' numbers, ascending.
    pub(super) isps: Vec<u16>,
    /// Index into `isps` of each end.
    isp_of: Vec<usize>,
    site_of: Vec<Option<usize>>,
    /// From each ISP to each, in rows; none inside an ISP.
    peering: Vec<Option<SharedIx>>,
    /// Up and down of each site.
    lines: Vec<(SharedIx, SharedIx)>,
    /// Bytes from each ISP to each, in rows.
    moved: Vec<f64>,
    /// Bytes that came into each site.
    into_sites: Vec<f64>,
    /// Present rate of the peering links, unless cut.
    peering_rate: f64,
    /// Faults that cut the peering links at present.
    cuts: u32,
}

impl Network {
    /// The shared links of a scenario; the origin, all hosts and the further contents' origins, which are where the first
    /// one is, are in `links` already.
    pub(super) fn new(scenario: &Scenario, hosts: &[HostSpec], origins: usize, links: &mut Links) -> Network {
        let origin_isp = scenario.network.map_or(1, |n| n.origin_isp);
        let further = std::iter::repeat_n(origin_isp, origins);
        let of_ends: Vec<u16> = std::iter::once(origin_isp).chain(hosts.iter().map(|h| h.isp)).chain(further).collect();
        let mut isps = of_ends.clone();
        isps.sort_unstable();
        isps.dedup();
        let peering_rate = scenario.network.map_or(0.0, |n| n.peering_mbit * MBIT);
        let mut peering = Vec::new();
        for from in 0..isps.len() {
            for to in 0..isps.len() {
                let joined = scenario.network.is_some() && from != to;
                peering.push(joined.then(|| links.add_shared(peering_rate)));
            }
        }
        let mut line = |mbit: f64| links.add_shared(mbit * MBIT);
        Network {
            isp_of: of_ends.iter().map(|isp| isps.partition_point(|i| i < isp)).collect(),
            site_of: std::iter::once(None)
                .chain(hosts.iter().map(|h| h.site))
                .chain(std::iter::repeat_n(None, origins))
                .collect(),
            lines: scenario.sites.iter().map(|s| (line(s.up_mbit), line(s.down_mbit))).collect(),
            moved: vec![0.0; peering.len()],
            into_sites: vec![0.0; scenario.sites.len()],
            peering,
            peering_rate,
            cuts: 0,
            isps,
        }
    }

    fn row(&self, from: NodeIx, to: NodeIx) -> usize {
        self.isp_of[from.0 as usize] * self.isps.len() + self.isp_of[to.0 as usize]
    }

    /// The shared links from one end to another: the first so many of them.
    pub(super) fn path(&self, from: NodeIx, to: NodeIx) -> ([SharedIx; SHARED_MAX], usize) {
        let (a, b) = (self.site_of[from.0 as usize], self.site_of[to.0 as usize]);
        let mut path = [SharedIx::default(); SHARED_MAX];
        let mut passed = 0;
        let up = a.filter(|_| a != b).map(|site| self.lines[site].0);
        let down = b.filter(|_| a != b).map(|site| self.lines[site].1);
        for link in [up, self.peering[self.row(from, to)], down].into_iter().flatten() {
            path[passed] = link;
            passed += 1;
        }
        (path, passed)
    }

    /// Counts what passed.
    pub(super) fn count(&mut self, from: NodeIx, to: NodeIx, bytes: f64) {
        let row = self.row(from, to);
        self.moved[row] += bytes;
        let site = self.site_of[to.0 as usize];
        if let Some(site) = site.filter(|s| self.site_of[from.0 as usize] != Some(*s)) {
            self.into_sites[site] += bytes;
        }
    }

    /// Bytes from each ISP to each other one.
    pub(super) fn between_isps(&self) -> impl Iterator<Item = (u16, u16, f64)> {
        let n = self.isps.len();
        let all =
            self.moved.iter().enumerate().map(move |(row, bytes)| (self.isps[row / n], self.isps[row % n], *bytes));
        all.filter(|(from, to, _)| from != to)
    }

    /// Bytes that came into each site.
    pub(super) fn entered_sites(&self) -> &[f64] {
        &self.into_sites
    }

    /// Shared links that carry more than they can.
    pub(super) fn overfull(&self, links: &Links) -> usize {
        let lines = self.lines.iter().flat_map(|(up, down)| [*up, *down]);
        let over = |link: SharedIx| {
            let (used, capacity) = links.used_shared(link);
            used > capacity * (1.0 + 1e-6) + 1.0
        };
        self.peering.iter().flatten().copied().chain(lines).filter(|link| over(*link)).count()
    }
}

impl World {
    /// Transfers under way from one ISP into another.
    pub(super) fn edges_across(&self) -> usize {
        let hosts = self.hosts().map(|first| self.nodes[first as usize].link);
        let edges = hosts.flat_map(|link| self.links.parents(link));
        edges.map(|e| self.links.ends_of(*e)).filter(|(from, to)| !self.same_isp(*from, *to)).count()
    }

    /// The end of a node in the links.
    fn end(&self, node: Nx) -> NodeIx {
        self.nodes[node as usize].link
    }

    fn same_isp(&self, a: NodeIx, b: NodeIx) -> bool {
        self.network.isp_of[a.0 as usize] == self.network.isp_of[b.0 as usize]
    }

    /// One way between two ends, with the mean of the jitter; `None` without a `[network]`.
    pub(super) fn network_latency(&self, a: NodeIx, b: NodeIx) -> Option<Micros> {
        let network = self.scenario.network?;
        let site = self.network.site_of[a.0 as usize];
        if site.is_some() && site == self.network.site_of[b.0 as usize] {
            return Some(LAN_LATENCY);
        }
        let rtt_ms = if self.same_isp(a, b) { network.rtt_inside_ms } else { network.rtt_across_ms };
        Some(Micros(((rtt_ms + network.jitter_ms) * 500.0) as u64))
    }

    /// Whether faults keep two nodes apart at present.
    pub(super) fn apart(&self, a: Nx, b: Nx) -> bool {
        let cut = self.network.cuts > 0 && !self.same_isp(self.end(a), self.end(b));
        cut || self.broken_pairs.contains(&super::peers::pair(a, b)) || self.is_cut(a) || self.is_cut(b)
    }

    /// Whether faults keep a node from the origin and the control center at present.
    pub(super) fn cut_off(&self, node: Nx) -> bool {
        let cut = self.network.cuts > 0 && !self.same_isp(self.end(node), self.origin_of(node));
        cut || self.is_cut(node)
    }

    fn is_cut(&self, node: Nx) -> bool {
        self.nodes[node as usize].cut_until > self.now
    }

    /// The peering links carry nothing until as many calls of [`World::peering_mended`].
    pub(super) fn peering_cut(&mut self) {
        self.network.cuts += 1;
        self.apply_peering();
        for ix in 0..self.connections.len() as u32 {
            let [a, b] = self.connections[ix as usize].ends;
            if self.connections[ix as usize].held > 0 && !self.same_isp(self.end(a), self.end(b)) {
                self.break_connection(ix, super::faults::idle_timeout);
            }
        }
        for node in 0..self.nodes.len() as Nx {
            if self.cut_off(node) {
                self.origin_lost(node);
            }
        }
    }

    /// See [`World::peering_cut`].
    pub(super) fn peering_mended(&mut self) {
        self.network.cuts = self.network.cuts.saturating_sub(1);
        self.apply_peering();
    }

    /// The peering links have this rate from now on; `None` = that of the scenario.
    pub(super) fn set_peering(&mut self, mbit: Option<f64>) {
        let own = self.scenario.network.map_or(0.0, |n| n.peering_mbit);
        self.network.peering_rate = mbit.unwrap_or(own) * MBIT;
        self.apply_peering();
    }

    fn apply_peering(&mut self) {
        let rate = if self.network.cuts > 0 { 0.0 } else { self.network.peering_rate };
        for link in self.network.peering.iter().flatten() {
            self.links.set_shared(*link, rate);
        }
    }
}
