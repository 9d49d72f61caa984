//! The bound for a scenario with ISPs, sites and kinds of reachability.

use super::{FileNode, MakespanError, SharedLink, shared_links_makespan, time};
use crate::scenario::{Arrivals, HostSpec, MBIT, Scenario};
use headwater_model::time::Time;

/// What the links of a scenario really carry: goodput in bytes per second.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibrated {
    /// Uplink and downlink of each host, in the order of [`Scenario::hosts`].
    pub hosts: Vec<(f64, f64)>,
    /// The origin's uplink.
    pub origin_up: f64,
    /// The link between each two ISPs, in each direction; `None` without `[network]`.
    pub peering: Option<f64>,
    /// Up and down of each site's line, in the order of the scenario.
    pub sites: Vec<(f64, f64)>,
}

impl Calibrated {
    /// The scenario's own rates times `factor(rate in Mbit/s)`, the origin's times `origin`; with factors of 1 what the
    /// simulator's links carry.
    pub fn new(scenario: &Scenario, hosts: &[HostSpec], factor: impl Fn(f64) -> f64, origin: f64) -> Self {
        let goodput = |mbit: f64| mbit * MBIT * factor(mbit);
        Self {
            hosts: hosts.iter().map(|h| (goodput(h.up_mbit), goodput(h.down_mbit))).collect(),
            origin_up: scenario.origin_up_mbit * MBIT * origin,
            peering: scenario.network.map(|n| goodput(n.peering_mbit)),
            sites: scenario.sites.iter().map(|s| (goodput(s.up_mbit), goodput(s.down_mbit))).collect(),
        }
    }
}

/// Seconds from the first arrival below which no schedule can come when nothing goes wrong: the linear program over all
/// pairs of which one may send to the other ([`Scenario::may_send`]), with uplinks, downlinks, links between ISPs and
/// lines of sites, and never less than one copy over the origin's uplink or a late receiver's own download after it
/// arrived. Waypoints start empty and need no copy; they and liars may pass on what they took. Bytes may be forwarded the
/// moment they arrive, and delays and loss are ignored. Late receivers are in the program as if they were there from the
/// start, which makes it smaller, not wrong. Hosts that die or leave are counted as if they stayed.
///
/// # Errors
/// More hosts than [`super::PROGRAM_NODES_MAX`] less one for the origin, numbers out of range, or a failure of the solver.
pub fn lab_makespan(scenario: &Scenario, hosts: &[HostSpec], rates: &Calibrated) -> Result<f64, MakespanError> {
    lab_makespan_where(scenario, hosts, rates, |from, to| match (hosts.get(from), hosts.get(to)) {
        (Some(from), Some(to)) => scenario.may_send(from, to),
        _ => false,
    })
}

/// [`lab_makespan`] where `permitted` says which hosts may send to which; the origin may send to all.
pub(crate) fn lab_makespan_where(
    scenario: &Scenario,
    hosts: &[HostSpec],
    rates: &Calibrated,
    permitted: impl Fn(usize, usize) -> bool,
) -> Result<f64, MakespanError> {
    if rates.hosts.len() != hosts.len() || rates.sites.len() != scenario.sites.len() {
        return Err(MakespanError::OutOfRange);
    }
    let file = scenario.content_bytes as f64;
    // The origin comes last.
    let origin = FileNode { up: rates.origin_up, down: 0.0, dial_only: false, receives: false, starts_full: true };
    let node = |(host, (up, down)): (&HostSpec, &(f64, f64))| FileNode {
        up: *up,
        down: *down,
        dial_only: false,
        receives: host.receives(),
        starts_full: host.seeded,
    };
    let nodes: Vec<FileNode> = hosts.iter().zip(&rates.hosts).map(node).chain([origin]).collect();
    let from_origin = |from: usize, to: usize| from == hosts.len() && to < hosts.len();
    let program = shared_links_makespan(file, &nodes, &shared_links(scenario, hosts, rates), |from, to| {
        from_origin(from, to) || permitted(from, to)
    })?;
    Ok(program.max(one_after_another(scenario, hosts, rates)))
}

/// Closed forms that hold for any number of hosts: what must come into each ISP other than the origin's and into each
/// site, and what each receiver's own arrival and downlink allow at best.
pub(crate) fn region_makespan(scenario: &Scenario, hosts: &[HostSpec], rates: &Calibrated) -> f64 {
    let file = scenario.content_bytes as f64;
    let shared = shared_links(scenario, hosts, rates);
    let mut regions: Vec<&Vec<bool>> = shared.iter().map(|link| &link.to).collect();
    regions.sort();
    regions.dedup();
    let region = |inside: &[bool]| {
        // The origin comes last; what leads to where it is does not confine the content.
        let within = || hosts.iter().zip(&rates.hosts).zip(inside).filter(|(_, inside)| **inside).map(|(host, _)| host);
        if inside.last() == Some(&true) || within().any(|(h, _)| h.seeded) {
            return 0.0;
        }
        let enters: f64 = shared.iter().filter(|link| link.to == inside).map(|link| link.rate).sum();
        let receivers = within().filter(|(h, _)| h.receives()).count();
        let up: f64 = within().map(|(_, (up, _))| up).sum();
        let once = if receivers > 0 { time(file, enters) } else { 0.0 };
        once.max(time(receivers as f64 * file, up + enters))
    };
    regions.into_iter().map(|inside| region(inside)).fold(one_after_another(scenario, hosts, rates), f64::max)
}

/// What each receiver's own arrival and downlink allow at best.
fn one_after_another(scenario: &Scenario, hosts: &[HostSpec], rates: &Calibrated) -> f64 {
    let file = scenario.content_bytes as f64;
    let first = hosts.iter().filter_map(|h| h.arrives).min().unwrap_or_default();
    let receivers = hosts.iter().zip(&rates.hosts).filter(|(h, _)| h.receives());
    let own =
        receivers.map(|(h, (_, down))| (h.arrives.unwrap_or(Time(0)).since(first).as_secs_f64(), time(file, *down)));
    match scenario.arrivals {
        Arrivals::Spread => own.map(|(at, takes)| at + takes).fold(0.0, f64::max),
        Arrivals::OneByOne => own.map(|(at, takes)| at + takes).sum(),
    }
}

/// Links between ISPs and lines of sites; the origin comes last and is in its own ISP, in no site.
fn shared_links(scenario: &Scenario, hosts: &[HostSpec], rates: &Calibrated) -> Vec<SharedLink> {
    let mut links = Vec::new();
    if let (Some(network), Some(peering)) = (&scenario.network, rates.peering) {
        let isps: Vec<u16> = hosts.iter().map(|h| h.isp).chain([network.origin_isp]).collect();
        let mut all = isps.clone();
        all.sort_unstable();
        all.dedup();
        let inside = |isp: u16| isps.iter().map(|i| *i == isp).collect::<Vec<bool>>();
        let pairs = all.iter().flat_map(|a| all.iter().filter(move |b| *b != a).map(move |b| (*a, *b)));
        links.extend(pairs.map(|(a, b)| SharedLink { rate: peering, from: inside(a), to: inside(b) }));
    }
    for (site, (up, down)) in rates.sites.iter().enumerate() {
        let inside: Vec<bool> = hosts.iter().map(|h| h.site == Some(site)).chain([false]).collect();
        let outside: Vec<bool> = inside.iter().map(|i| !i).collect();
        links.push(SharedLink { rate: *up, from: inside.clone(), to: outside.clone() });
        links.push(SharedLink { rate: *down, from: outside, to: inside });
    }
    links
}
