//! The hosts of a scenario, one by one, and which of them can connect.

use super::{Arrivals, MBIT, Scenario, ScenarioError, SiteNat, Sources};
use crate::scenario::{FaultKind, LiveBars};
use headwater_model::Role;
use headwater_model::node::Accepts;
use headwater_model::place::Place;
use headwater_model::rng::Rng;
use headwater_model::time::Time;
use serde::{Deserialize, Serialize};

/// Share of pairs of endpoint-independent NATs as in life that cannot be punched (benchmarks, "NAT classes").
const PUNCHING_FAILS: f64 = 0.08;

/// Liars that the simulator can stand for by a node that sends bytes that are not the content.
const CORRUPTING: [&str; 2] = ["flips-bits", "wrong-piece"];

/// How others reach a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// A public address.
    #[default]
    Open,
    /// It only dials, by its own configuration.
    DialOnly,
    /// Unsolicited packets are dropped on the way in: can be punched.
    Firewall,
    /// A NAT that maps a port to one public port for all destinations, and filters by address and port.
    IndependentNat,
    /// A NAT that maps a port to another public port for each destination: it only dials.
    DependentNat,
    /// The same, whose router forwards a port to a host that asks for it (UPnP, NAT-PMP): it is reached there.
    MappingNat,
    /// No UDP; TCP out to port 443, and to the origin.
    UdpBlocked,
    /// Only TCP to a proxy in its ISP.
    ProxyOnly,
}

impl Reach {
    /// What a test should find.
    pub fn accepts(self) -> Accepts {
        match self {
            Reach::Open | Reach::MappingNat => Accepts::Open,
            Reach::Firewall | Reach::IndependentNat => Accepts::Punchable,
            Reach::DialOnly | Reach::DependentNat | Reach::UdpBlocked | Reach::ProxyOnly => Accepts::DialOnly,
        }
    }

    /// Whether UDP gets through.
    pub fn has_udp(self) -> bool {
        !matches!(self, Reach::UdpBlocked | Reach::ProxyOnly)
    }

    fn as_in_life(unit: f64) -> Reach {
        match unit {
            x if x < 0.20 => Reach::Open,
            x if x < 0.75 => Reach::IndependentNat,
            x if x < 0.95 => Reach::DependentNat,
            _ => Reach::DialOnly,
        }
    }
}

/// A host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostSpec {
    /// The group's name, a hyphen and its number from 1.
    pub name: String,
    /// Index of its group.
    pub group: usize,
    /// Its ISP.
    pub isp: u16,
    /// Uplink.
    pub up_mbit: f64,
    /// Downlink.
    pub down_mbit: f64,
    /// How others reach it, its site's NAT aside; see [`Scenario::accepts`].
    pub reach: Reach,
    /// Index of its site.
    pub site: Option<usize>,
    /// What it is there for.
    pub role: Role,
    /// Which sources it accepts.
    pub sources: Sources,
    /// How it lies.
    pub hostile: Option<String>,
    /// When it arrives; `None` = when the former receiver has finished, and has left if it leaves.
    #[serde(skip)]
    pub arrives: Option<Time>,
    /// It leaves when it has everything.
    pub leaves_when_complete: bool,
    /// It is told the rate of its uplink.
    pub told_up: bool,
    /// Its uploads step aside for its user's traffic (the lab only).
    pub steps_aside: bool,
    /// It starts with the whole content.
    pub seeded: bool,
    /// Its claims are believed.
    pub enrolled: bool,
    /// Its NAT is one as in life: not every pair that could be punched can.
    pub as_in_life: bool,
    /// Where it is; with `[network]` its AS is the number of its ISP, and its enterprise the name of its site.
    pub place: Place,
}

impl HostSpec {
    /// Uplink, bytes per second.
    pub fn up(&self) -> f64 {
        self.up_mbit * MBIT
    }
    /// Downlink, bytes per second.
    pub fn down(&self) -> f64 {
        self.down_mbit * MBIT
    }
    /// Whether the run is about its getting the content: an honest peer that does not have it.
    pub fn receives(&self) -> bool {
        self.role == Role::Peer && self.hostile.is_none() && !self.seeded
    }
}

/// The scenario with every rate as it is in practice: that of a link times `factor(rate in Mbit/s)`, the origin's times
/// `origin`; rates in faults included. For the simulator's run beside the lab's, whose rates are calibrated.
pub fn scaled(scenario: &Scenario, factor: impl Fn(f64) -> f64, origin: f64) -> Scenario {
    let goodput = |mbit: &mut f64| *mbit *= factor(*mbit);
    let mut s = scenario.clone();
    s.origin_up_mbit *= origin;
    for g in &mut s.groups {
        goodput(&mut g.up_mbit);
        goodput(&mut g.down_mbit);
        g.up_mbit_to.iter_mut().for_each(goodput);
    }
    for site in &mut s.sites {
        goodput(&mut site.up_mbit);
        goodput(&mut site.down_mbit);
    }
    s.network.iter_mut().for_each(|n| goodput(&mut n.peering_mbit));
    let rates = s.faults.iter_mut().filter(|f| matches!(f.kind, FaultKind::PeeringRate | FaultKind::Reshape));
    rates.for_each(|f| goodput(&mut f.value));
    s
}

impl Scenario {
    /// The hosts, in order of their groups; the same for the same seed.
    pub fn hosts(&self, seed: u64) -> Vec<HostSpec> {
        let mut rng = Rng::new(seed, "population");
        let mut hosts = Vec::new();
        for (ix, group) in self.groups.iter().enumerate() {
            let dial_only = (group.count as f64 * group.dial_only_share).round() as usize;
            let mut reaches: Vec<Reach> = (0..group.count)
                .map(|i| match i {
                    _ if i < dial_only => Reach::DialOnly,
                    _ if group.nat_as_in_life => Reach::as_in_life(rng.unit()),
                    _ => group.reach,
                })
                .collect();
            rng.shuffle(&mut reaches);
            let name = self.group_name(ix);
            let site = group.site.as_ref().and_then(|name| self.sites.iter().position(|s| s.name == *name));
            let to = group.up_mbit_to.unwrap_or(group.up_mbit);
            let step = (to - group.up_mbit) / (group.count.max(2) - 1) as f64;
            for (i, reach) in reaches.into_iter().enumerate() {
                let at = Time(((group.late_s + rng.unit() * self.arrive_within_s) * 1e6) as u64);
                hosts.push(HostSpec {
                    name: format!("{name}-{}", i + 1),
                    group: ix,
                    isp: group.isp,
                    up_mbit: group.up_mbit + step * i as f64,
                    down_mbit: group.down_mbit,
                    reach,
                    site,
                    role: group.role,
                    sources: group.sources,
                    hostile: group.hostile.clone(),
                    arrives: Some(at),
                    leaves_when_complete: group.leaves_when_complete,
                    told_up: group.told_up,
                    steps_aside: group.steps_aside,
                    seeded: false,
                    enrolled: group.enrolled,
                    as_in_life: group.nat_as_in_life,
                    place: self.place(group.place.clone(), group.isp, site),
                });
            }
        }
        if self.arrivals == Arrivals::OneByOne {
            for (n, host) in hosts.iter_mut().filter(|h| h.receives()).enumerate() {
                host.seeded = self.seeded && n == 0;
                host.arrives = host.arrives.filter(|_| n == 0);
            }
        }
        hosts
    }

    /// What an operator's table of places says, where the group does not say otherwise.
    fn place(&self, own: Place, isp: u16, site: Option<usize>) -> Place {
        let site = site.and_then(|s| self.sites.get(s)).map(|s| s.name.clone());
        let of_isp = |isp: u16| self.network.map(|_| isp);
        Place {
            asn: own.asn.or(of_isp(isp).map(u32::from)),
            isp: own.isp.or(of_isp(isp).map(|n| format!("isp-{n}"))),
            enterprise: own.enterprise.or_else(|| site.clone()),
            site: own.site.or(site),
            ..own
        }
    }

    /// What a test of the host's reachability should find, its site's NAT included.
    pub fn accepts(&self, host: &HostSpec) -> Accepts {
        let nat = host.site.and_then(|s| self.sites.get(s)).map_or(SiteNat::None, |s| s.nat);
        let behind = match nat {
            SiteNat::None => Accepts::Open,
            SiteNat::Independent => Accepts::Punchable,
            SiteNat::Dependent => Accepts::DialOnly,
        };
        // From open to dial-only: what is hardest to pass counts.
        host.reach.accepts().max(behind)
    }

    /// Whether a connection between the two can come about: one is open, both can be punched, or both are in one site.
    /// A host without UDP connects to open waypoints only.
    pub fn can_connect(&self, a: &HostSpec, b: &HostSpec) -> bool {
        let (to_a, to_b) = (self.accepts(a), self.accepts(b));
        if !a.reach.has_udp() || !b.reach.has_udp() {
            let serves =
                |h: &HostSpec, to: Accepts| h.reach.has_udp() && h.role == Role::Waypoint && to == Accepts::Open;
            return serves(a, to_a) || serves(b, to_b);
        }
        let listens = a.reach != Reach::DialOnly || b.reach != Reach::DialOnly;
        let same_site = a.site.is_some() && a.site == b.site && listens;
        let open = to_a == Accepts::Open || to_b == Accepts::Open;
        same_site || open || (to_a == Accepts::Punchable && to_b == Accepts::Punchable)
    }

    /// Whether `from` may send the content to `to`: they can connect, and `to` accepts such a source.
    pub fn may_send(&self, from: &HostSpec, to: &HostSpec) -> bool {
        let accepted = to.sources == Sources::Any || from.role == Role::Waypoint;
        accepted && self.can_connect(from, to)
    }

    /// [`Scenario::may_send`] between hosts `from` and `to` in the world of `seed`, where some NATs as in life cannot be
    /// punched: the same whichever dials, and for ever.
    pub(crate) fn connects(&self, seed: u64, from: (usize, &HostSpec), to: (usize, &HostSpec)) -> bool {
        let punched = from.1.as_in_life && to.1.as_in_life && !self.one_is_open(from.1, to.1);
        let pair = (from.0.min(to.0) as u64) << 32 | from.0.max(to.0) as u64;
        let fails = || Rng::new(seed ^ pair, "nat").unit() < PUNCHING_FAILS;
        self.can_connect(from.1, to.1) && !(punched && fails())
    }

    fn one_is_open(&self, a: &HostSpec, b: &HostSpec) -> bool {
        self.accepts(a) == Accepts::Open || self.accepts(b) == Accepts::Open
    }

    /// Whether the simulator can run this, beyond its numbers being in range.
    ///
    /// # Errors
    /// [`ScenarioError::LabOnly`] names what only the lab can do.
    pub fn check_simulable(&self) -> Result<(), ScenarioError> {
        let lab_only = |what: String| Err(ScenarioError::LabOnly(what));
        if self.network.is_some_and(|n| n.loss_percent > 0.0 || n.peering_loss_percent > 0.0) {
            return lab_only("loss of packets".into());
        }
        if let Some(f) = self
            .faults
            .iter()
            .find(|f| matches!(f.kind, FaultKind::AddressChange | FaultKind::ClockJump | FaultKind::PeeringLoss))
        {
            return lab_only(format!("faults of kind {}", f.kind.name()));
        }
        if self.live.is_some() && (!self.sites.is_empty() || self.network.is_some_and(|n| n.jitter_ms > 0.0)) {
            return lab_only("live channels in sites or with jitter".into());
        }
        if self.bystander.is_some() {
            return lab_only("the user's own traffic".into());
        }
        if self.live.is_some_and(|live| live.kill_entry_at_s.is_some()) {
            return lab_only("the death of who brings the stream in to a cluster".into());
        }
        let counts = |b: LiveBars| b.lost_pieces.or(b.splits).or(b.merges);
        if self.live.is_some_and(|live| counts(live.bars).is_some()) {
            return lab_only("pieces that viewers gave up, splits and merges".into());
        }
        let liars = self.groups.iter().filter_map(|g| g.hostile.as_deref());
        match liars.into_iter().find(|kind| !CORRUPTING.contains(kind)) {
            Some(kind) => lab_only(format!("liars of kind {kind}")),
            None => Ok(()),
        }
    }
}
