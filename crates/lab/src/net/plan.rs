//! Which namespaces, devices and addresses a network has: decided before anything is made.

use super::{NetError, NetHost, NetSpec};
use headwater_simulator::scenario::{NetworkSpec, Reach, SiteNat};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// ISPs are the second byte of an address, lines of one ISP (also former addresses') its third.
const ISPS_MAX: u16 = 255;
const LINES_PER_ISP_MAX: u16 = 255;
/// Boxes are the third byte of an inner address.
const BOXES_MAX: usize = 254;
/// Hosts behind a box: the fourth byte of an address, from 2.
const SEATS_MAX: usize = 250;
const PROXY_MBIT: f64 = 1000.0;

/// What will be built.
pub struct Plan {
    pub network: NetworkSpec,
    pub hosts: Vec<PlannedHost>,
    /// One per TUN device.
    pub ports: Vec<PlannedPort>,
    /// The port of each site.
    pub site_ports: Vec<usize>,
    /// Of each ISP with `proxy-only` hosts: the host of its proxy.
    pub proxies: BTreeMap<u16, usize>,
}

/// A host.
pub struct PlannedHost {
    pub namespace: String,
    pub reach: Reach,
    pub site: Option<usize>,
    /// The line that it uses.
    pub port: usize,
    /// Its place behind the port's router; none when the TUN device is its own.
    pub seat: Option<usize>,
}

/// A line with a TUN device.
pub struct PlannedPort {
    /// Where the device is: a host's or a router's.
    pub namespace: String,
    pub isp: u16,
    pub up_mbit: f64,
    pub down_mbit: f64,
    pub router: Option<Router>,
}

/// A box between hosts and their line.
pub struct Router {
    /// Third byte of the addresses behind it.
    pub lan: u8,
    pub nat: SiteNat,
    /// By seat.
    pub hosts: Vec<usize>,
}

impl Plan {
    /// Plans a network; namespaces are named `PREFIX-0`, `PREFIX-1` ….
    pub fn new(spec: NetSpec, prefix: &str) -> Result<Plan, NetError> {
        let mut hosts = spec.hosts;
        if hosts.iter().any(|h| h.reach == Reach::MappingNat && (spec.network.ipv6 || h.site.is_some())) {
            let why = "routers forward ports over IPv4 only, and to a host that has one of its own";
            return Err(NetError::Spec(why.into()));
        }
        let mut proxies = BTreeMap::new();
        for host in 0..hosts.len() {
            let isp = isp_of(&hosts[host], &spec.sites)?;
            if hosts[host].reach == Reach::ProxyOnly && !proxies.contains_key(&isp) {
                proxies.insert(isp, hosts.len());
                hosts.push(NetHost {
                    name: format!("proxy-{isp}"),
                    isp,
                    up_mbit: PROXY_MBIT,
                    down_mbit: PROXY_MBIT,
                    reach: Reach::Open,
                    site: None,
                });
            }
        }
        let mut plan =
            Plan { network: spec.network, hosts: Vec::new(), ports: Vec::new(), site_ports: Vec::new(), proxies };
        let mut names = (0..).map(|n: usize| format!("{prefix}-{n}"));
        let mut name = || names.next().unwrap_or_default();
        let mut routers = 0;
        let mut router = |nat| -> Result<Option<Router>, NetError> {
            routers += 1;
            if routers > BOXES_MAX {
                return Err(NetError::Spec(format!("more than {BOXES_MAX} NATs and sites")));
            }
            Ok(Some(Router { lan: routers as u8, nat, hosts: Vec::new() }))
        };
        for site in &spec.sites {
            plan.site_ports.push(plan.ports.len());
            plan.ports.push(PlannedPort {
                namespace: name(),
                isp: site.isp,
                up_mbit: site.up_mbit,
                down_mbit: site.down_mbit,
                router: router(site.nat)?,
            });
        }
        for (index, host) in hosts.iter().enumerate() {
            let isp = isp_of(host, &spec.sites)?;
            let namespace = name();
            let port = match (host.site, nat_of(host.reach)) {
                (Some(site), _) => plan.site_ports[site],
                (None, nat) => {
                    let (router, gate) = match nat {
                        Some(nat) => (router(nat)?, name()),
                        None => (None, namespace.clone()),
                    };
                    let (up_mbit, down_mbit) = (host.up_mbit, host.down_mbit);
                    plan.ports.push(PlannedPort { namespace: gate, isp, up_mbit, down_mbit, router });
                    plan.ports.len() - 1
                }
            };
            let seat = match &mut plan.ports[port].router {
                Some(router) if router.hosts.len() == SEATS_MAX => {
                    return Err(NetError::Spec(format!("{}: more than {SEATS_MAX} hosts in its site", host.name)));
                }
                Some(router) => {
                    router.hosts.push(index);
                    Some(router.hosts.len() - 1)
                }
                None => None,
            };
            plan.hosts.push(PlannedHost { namespace, reach: host.reach, site: host.site, port, seat });
        }
        for (what, mbit) in plan.ports.iter().flat_map(|p| [("an uplink", p.up_mbit), ("a downlink", p.down_mbit)]) {
            if !(mbit > 0.0 && mbit.is_finite()) {
                return Err(NetError::Spec(format!("{what} has {mbit} Mbit/s")));
            }
        }
        Ok(plan)
    }

    /// All namespaces.
    pub fn namespaces(&self) -> Vec<String> {
        let routers = self.ports.iter().filter(|port| port.router.is_some()).map(|port| &port.namespace);
        self.hosts.iter().map(|host| &host.namespace).chain(routers).cloned().collect()
    }
}

/// The NAT between a host and its line, when it has one of its own.
fn nat_of(reach: Reach) -> Option<SiteNat> {
    match reach {
        Reach::Open | Reach::DialOnly | Reach::Firewall => None,
        // Networks that block UDP are offices': there is a NAT too.
        Reach::IndependentNat | Reach::UdpBlocked | Reach::ProxyOnly => Some(SiteNat::Independent),
        Reach::DependentNat | Reach::MappingNat => Some(SiteNat::Dependent),
    }
}

fn isp_of(host: &NetHost, sites: &[headwater_simulator::scenario::Site]) -> Result<u16, NetError> {
    let isp = match host.site {
        None => host.isp,
        Some(site) => match sites.get(site) {
            Some(site) => site.isp,
            None => return Err(NetError::Spec(format!("{} is in a site that does not exist", host.name))),
        },
    };
    if isp == 0 || isp > ISPS_MAX {
        return Err(NetError::Spec(format!("{}: ISP {isp} is not 1 to {ISPS_MAX}", host.name)));
    }
    Ok(isp)
}

/// The prefix of an ISP.
pub fn prefix_of_isp(isp: u16, ipv6: bool) -> IpNet {
    if ipv6 {
        // The prefix lengths are constants that are in range.
        Ipv6Net::new_assert(Ipv6Addr::new(0x2a00, isp, 0, 0, 0, 0, 0, 0), 32).into()
    } else {
        Ipv4Net::new_assert(Ipv4Addr::new(20, isp as u8, 0, 0), 16).into()
    }
}

/// Which block of its ISP each line has now.
pub struct Addresses {
    ipv6: bool,
    block_of_port: Vec<u8>,
    next_of_isp: BTreeMap<u16, u16>,
}

impl Addresses {
    /// The first block for each.
    pub fn new(plan: &Plan) -> Result<Self, NetError> {
        let mut addresses = Self { ipv6: plan.network.ipv6, block_of_port: Vec::new(), next_of_isp: BTreeMap::new() };
        for port in &plan.ports {
            let block = addresses.take(port.isp)?;
            addresses.block_of_port.push(block);
        }
        Ok(addresses)
    }

    fn take(&mut self, isp: u16) -> Result<u8, NetError> {
        let next = self.next_of_isp.entry(isp).or_insert(1);
        let block = u8::try_from(*next).map_err(|_| {
            NetError::Spec(format!("ISP {isp} has no address left: {LINES_PER_ISP_MAX} were given out"))
        })?;
        *next += 1;
        Ok(block)
    }

    /// The `seat`th public address of a line.
    fn public(&self, plan: &Plan, port: usize, seat: usize) -> IpAddr {
        let (isp, block) = (plan.ports[port].isp, self.block_of_port[port]);
        let last = seat as u8 + 2;
        if self.ipv6 {
            Ipv6Addr::new(0x2a00, isp, block.into(), 0, 0, 0, 0, last.into()).into()
        } else {
            Ipv4Addr::new(20, isp as u8, block, last).into()
        }
    }

    /// A host's address as others see it.
    pub fn outside(&self, plan: &Plan, host: usize) -> IpAddr {
        let host = &plan.hosts[host];
        match (&plan.ports[host.port].router, host.seat) {
            (Some(router), Some(seat)) if router.nat == SiteNat::None => self.public(plan, host.port, seat),
            _ => self.gate(plan, host.port),
        }
    }

    /// A host's own address.
    pub fn inside(&self, plan: &Plan, host: usize) -> IpAddr {
        let planned = &plan.hosts[host];
        match (&plan.ports[planned.port].router, planned.seat) {
            (Some(router), Some(seat)) if router.nat != SiteNat::None => self.private(router, seat as u8 + 2),
            _ => self.outside(plan, host),
        }
    }

    fn private(&self, router: &Router, last: u8) -> IpAddr {
        if self.ipv6 {
            Ipv6Addr::new(0xfd00, router.lan.into(), 0, 0, 0, 0, 0, last.into()).into()
        } else {
            Ipv4Addr::new(192, 168, router.lan, last).into()
        }
    }

    /// The address of a line's TUN device: a host's own or a NAT's. A router without NAT has that of its LAN there.
    pub fn gate(&self, plan: &Plan, port: usize) -> IpAddr {
        match &plan.ports[port].router {
            Some(router) if router.nat == SiteNat::None => self.router(plan, port, router),
            _ => self.public(plan, port, 0),
        }
    }

    /// A router's address on its LAN.
    pub fn router(&self, plan: &Plan, port: usize, router: &Router) -> IpAddr {
        match (router.nat, self.public(plan, port, 0)) {
            (SiteNat::None, IpAddr::V4(seat)) => {
                let [a, b, c, _] = seat.octets();
                Ipv4Addr::new(a, b, c, 1).into()
            }
            (SiteNat::None, IpAddr::V6(seat)) => {
                let [a, b, c, ..] = seat.segments();
                Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 1).into()
            }
            _ => self.private(router, 1),
        }
    }

    /// All addresses that lead to a line.
    pub fn routes(&self, plan: &Plan, port: usize) -> Vec<IpAddr> {
        let mut routes = vec![self.gate(plan, port)];
        if let Some(router) = plan.ports[port].router.as_ref().filter(|router| router.nat == SiteNat::None) {
            routes.extend(router.hosts.iter().map(|host| self.outside(plan, *host)));
        }
        routes
    }

    /// A new block for a host's line: its former and its new address.
    pub fn renew(&mut self, plan: &Plan, host: usize) -> Result<(IpAddr, IpAddr), NetError> {
        let port = plan.hosts[host].port;
        if plan.ports[port].router.as_ref().is_some_and(|router| router.nat == SiteNat::None) {
            return Err(NetError::Spec("a site with public addresses keeps them".into()));
        }
        let old = self.gate(plan, port);
        self.block_of_port[port] = self.take(plan.ports[port].isp)?;
        Ok((old, self.gate(plan, port)))
    }
}
