//! Namespaces, links, NATs, firewalls.
//!
//! Every host is a network namespace. What leaves it (or the *box* that it sits behind: a NAT or an enterprise's router, a
//! namespace of its own) goes through a TUN device to one thread, the `forwarder`, which routes by destination address and
//! models the links (`wires`): uplink, peering link, delay, downlink. The lab needs no netem, and sees
//! every packet that leaves a LAN.
//!
//! Rates are those of IP bytes as they would be on the wire. All hosts have IPv4 or all have IPv6 addresses: ISP `k` is
//! 20.k.0.0/16 or 2a00:k::/32, every line has a /24 or /48 of its own, and what is behind a NAT has 192.168.b.x or fd00:b::x.

mod build;
mod forwarder;
mod namespaces;
mod packet;
mod plan;
mod script;
#[cfg(test)]
pub(crate) mod tests;
mod tun;
mod wires;

pub(crate) use script::port_forwarding;
pub use wires::LinkCounters;

use forwarder::Forwarder;
use headwater_simulator::scenario::{NetworkSpec, Reach, Site};
use ipnet::IpNet;
use plan::Plan;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wires::{Line, Wires};

/// The port that the proxies of `proxy-only` hosts listen on.
pub const PROXY_PORT: u16 = 3128;

/// The port that routers which forward ports listen on for UPnP.
pub const MAPPING_PORT: u16 = 2869;

/// What to build.
#[derive(Clone, Debug)]
pub struct NetSpec {
    /// Delays, queues, losses, links between ISPs, IP version.
    pub network: NetworkSpec,
    /// Enterprise lines.
    pub sites: Vec<Site>,
    /// Hosts; they are named by their place in this list.
    pub hosts: Vec<NetHost>,
}

/// A host to build.
#[derive(Clone, Debug)]
pub struct NetHost {
    /// For messages.
    pub name: String,
    /// Its ISP (1 to 255); that of its site wins.
    pub isp: u16,
    /// Uplink in Mbit/s; unused behind a site's line, whose LAN is not shaped.
    pub up_mbit: f64,
    /// Downlink in Mbit/s; unused behind a site's line.
    pub down_mbit: f64,
    /// How others reach it. In a site the site's NAT stands for those that say a NAT.
    pub reach: Reach,
    /// Its site, as a place in [`NetSpec::sites`].
    pub site: Option<usize>,
}

/// Why a network cannot be built or changed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Namespaces and devices need root.
    #[error("the lab makes network namespaces and devices: run it as root (sudo)")]
    NotRoot,
    /// A program is missing.
    #[error("`{tool}` is missing: install the package {package} (Debian's name)")]
    Missing {
        /// The program.
        tool: &'static str,
        /// Debian's package.
        package: &'static str,
    },
    /// A program refused.
    #[error("`{tool}` in {namespace}: {said}")]
    Tool {
        /// The program.
        tool: &'static str,
        /// Where it ran.
        namespace: String,
        /// What it wrote to its standard error.
        said: String,
    },
    /// The kernel refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Its answer.
        source: io::Error,
    },
    /// The description asks for what cannot be.
    #[error("{0}")]
    Spec(String),
}

impl NetError {
    fn system(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { what: what.into(), source: source.into() }
    }
}

/// What went over the links since the network was built.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Per host. Behind a site's line: what its own LAN device carried (also among the site's hosts), without drops.
    pub hosts: Vec<Duplex>,
    /// Per ordered pair of ISPs (from, to): the link between them.
    pub peering: BTreeMap<(u16, u16), LinkCounters>,
    /// Per site: its line; `up` leaves it, `down` enters it.
    pub sites: Vec<Duplex>,
    /// Packets to addresses that nobody has.
    pub to_nobody: u64,
    /// Packets that a destination's device did not take.
    pub refused: u64,
    /// Processor time of the forwarder, in seconds.
    pub forwarder_cpu_s: f64,
}

/// Both directions of a line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Duplex {
    /// From the host.
    pub up: LinkCounters,
    /// To the host.
    pub down: LinkCounters,
}

/// A network that runs. Dropping it takes everything down; processes that still run in its hosts are the caller's to end.
pub struct Net {
    plan: Plan,
    forwarder: Forwarder,
    /// Of each host: its namespace, for `setns`.
    entries: Vec<Arc<File>>,
    /// Of each host behind a site's line: the counters of its LAN device.
    lan_counters: Vec<Option<File>>,
    addresses: Mutex<plan::Addresses>,
    namespaces: namespaces::Namespaces,
}

impl Net {
    /// Builds a network; takes some hundred milliseconds. First removes what dead labs left behind.
    pub fn build(spec: NetSpec) -> Result<Net, NetError> {
        build::build(spec)
    }

    /// Removes the namespaces of labs that are no more, with the processes in them, and says how many there were.
    pub fn sweep() -> usize {
        namespaces::sweep()
    }

    /// Hosts, with the proxies that [`Net::build`] added behind those of the specification.
    pub fn hosts(&self) -> usize {
        self.plan.hosts.len()
    }

    /// A host's namespace, for `ip netns exec`.
    pub fn namespace(&self, host: usize) -> &str {
        &self.plan.hosts[host].namespace
    }

    /// A host's address as the outside sees it: that of its NAT, if it has one.
    pub fn address(&self, host: usize) -> IpAddr {
        self.addresses().outside(&self.plan, host)
    }

    /// A host's address as it sees it itself.
    pub fn inner_address(&self, host: usize) -> IpAddr {
        self.addresses().inside(&self.plan, host)
    }

    /// The host that an ISP's proxy must be started on; `None` when nobody there needs one.
    pub fn proxy_host(&self, isp: u16) -> Option<usize> {
        self.plan.proxies.get(&isp).copied()
    }

    /// Where `proxy-only` hosts of an ISP are let through to.
    pub fn proxy_address(&self, isp: u16) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.address(self.proxy_host(isp)?), PROXY_PORT))
    }

    /// The prefix of an ISP, for the control center's table of places.
    pub fn prefix_of_isp(&self, isp: u16) -> IpNet {
        plan::prefix_of_isp(isp, self.plan.network.ipv6)
    }

    /// A command that runs inside a host. Its process gets SIGKILL when the *thread* that spawned it ends: spawn from one
    /// that lives as long as the process should.
    pub fn command(&self, host: usize, program: &Path) -> Command {
        Self::command_in(Arc::clone(&self.entries[host]), program)
    }

    /// Hosts whose routers forward ports to who asks.
    pub fn mapping_hosts(&self) -> Vec<usize> {
        let hosts = self.plan.hosts.iter().enumerate();
        hosts.filter(|(_, h)| h.reach == Reach::MappingNat).map(|(host, _)| host).collect()
    }

    /// The router before a host: its address on the LAN, and a command that runs there as [`Net::command`] does.
    ///
    /// # Errors
    /// If the host has none.
    pub fn on_router_of(&self, host: usize, program: &Path) -> Result<(IpAddr, Command), NetError> {
        let port = self.plan.hosts[host].port;
        let planned = &self.plan.ports[port];
        let router = planned.router.as_ref().ok_or_else(|| NetError::Spec("the host is behind no router".into()))?;
        let address = self.addresses().router(&self.plan, port, router);
        Ok((address, Self::command_in(Arc::new(namespaces::open(&planned.namespace)?), program)))
    }

    fn command_in(entry: Arc<File>, program: &Path) -> Command {
        let mut command = Command::new(program);
        #[expect(unsafe_code, reason = "between fork and exec it makes two system calls and allocates nothing")]
        unsafe {
            command.pre_exec(move || {
                namespaces::enter(&entry)?;
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
                Ok(())
            });
        }
        command
    }

    /// Runs something on a thread inside a host's namespace. Sockets made there stay there.
    pub fn within<T: Send>(&self, host: usize, f: impl FnOnce() -> T + Send) -> Result<T, NetError> {
        namespaces::within(&self.entries[host], f)
    }

    /// A snapshot of all counters; costs microseconds.
    pub fn counters(&self) -> Counters {
        let wires = self.wires();
        let mut counters = Counters {
            peering: wires.peering_counters(),
            sites: self.plan.site_ports.iter().map(|port| wires.line(*port).counters()).collect(),
            to_nobody: wires.to_nobody,
            refused: wires.refused,
            forwarder_cpu_s: wires.cpu_s,
            hosts: Vec::with_capacity(self.plan.hosts.len()),
        };
        counters.hosts.extend(self.plan.hosts.iter().zip(&self.lan_counters).map(|(host, lan)| match lan {
            Some(file) => lan_counters(file),
            None => wires.line(host.port).counters(),
        }));
        counters
    }

    /// Who sent packets to an address, and how many; also to one that nobody has. Of the first 65,536 pairs only.
    pub fn packets_to(&self, to: IpAddr) -> Vec<(IpAddr, u64)> {
        self.wires().packets_to(to)
    }

    /// Changes a host's line, or the line of its site.
    pub fn set_host_rate(&self, host: usize, up_mbit: f64, down_mbit: f64) {
        let port = self.plan.hosts[host].port;
        self.wires().line_mut(port).set_rates(up_mbit, down_mbit);
        self.forwarder.set_offloads();
    }

    /// Cuts a host off, or restores it. In a site its cable to the LAN is pulled, else its line.
    pub fn cut_host(&self, host: usize, cut: bool) -> Result<(), NetError> {
        let planned = &self.plan.hosts[host];
        match (planned.site, planned.seat) {
            (Some(_), Some(seat)) => {
                let state = if cut { "down" } else { "up" };
                let router = &self.plan.ports[planned.port].namespace;
                namespaces::ip(router, &format!("link set {} {state}\n", script::cable(seat)))
            }
            _ => {
                self.wires().line_mut(planned.port).cut = cut;
                Ok(())
            }
        }
    }

    /// Cuts the path between two hosts in both directions, or restores it. The path of a site's host is that of its whole
    /// site; between hosts of one site nothing is cut.
    pub fn cut_pair(&self, a: usize, b: usize, cut: bool) {
        let (a, b) = (self.plan.hosts[a].port, self.plan.hosts[b].port);
        if a != b {
            self.wires().cut_pair(a, b, cut);
        }
    }

    /// Flips a bit of the payload in this share of the packets between two hosts, both ways, such that checksums do not
    /// notice. Sites as in [`Net::cut_pair`].
    pub fn corrupt_pair(&self, a: usize, b: usize, percent: f64) {
        let (a, b) = (self.plan.hosts[a].port, self.plan.hosts[b].port);
        if a != b {
            self.wires().corrupt_pair(a, b, percent);
            self.forwarder.set_offloads();
        }
    }

    /// Changes all links between ISPs.
    pub fn set_peering(&self, mbit: f64, loss_percent: f64, cut: bool) {
        self.wires().set_peering(mbit, loss_percent, cut);
        self.forwarder.set_offloads();
    }

    /// Gives a host's line a new public address in the same ISP; the old one is gone, and what its NAT remembered too. In a
    /// site with a NAT the whole site's changes; a site with public addresses keeps its own.
    pub fn change_address(&self, host: usize) -> Result<IpAddr, NetError> {
        let planned = &self.plan.hosts[host];
        let mut addresses = self.addresses();
        let (old, new) = addresses.renew(&self.plan, host)?;
        // The new one first: a device that loses its last address loses its routes.
        self.wires().move_address(old, new, planned.port);
        namespaces::ip(&self.plan.ports[planned.port].namespace, &script::change_address(old, new))?;
        Ok(new)
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.forwarder.wires()
    }

    fn addresses(&self) -> MutexGuard<'_, plan::Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.forwarder.stop();
        self.namespaces.remove();
    }
}

/// Bytes of the Ethernet header, which the LAN device's counters include.
const ETHERNET_BYTES: u64 = 14;

/// Reads `/proc/net/dev` of the namespace in which the file was opened.
fn lan_counters(file: &File) -> Duplex {
    let mut text = [0; 4096];
    let read = file.read_at(&mut text, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(&text[..read]);
    let Some((_, numbers)) =
        text.lines().find_map(|line| line.trim().split_once(':').filter(|(name, _)| *name == "lan"))
    else {
        return Duplex::default();
    };
    let numbers: Vec<u64> = numbers.split_whitespace().map(|n| n.parse().unwrap_or(0)).collect();
    let link = |at: usize| {
        let (bytes, packets) = (numbers.get(at).copied().unwrap_or(0), numbers.get(at + 1).copied().unwrap_or(0));
        LinkCounters { bytes: bytes.saturating_sub(packets * ETHERNET_BYTES), packets, ..Default::default() }
    };
    Duplex { up: link(8), down: link(0) }
}

impl Line {
    fn counters(&self) -> Duplex {
        Duplex { up: self.up.counters, down: self.down.counters }
    }
}
