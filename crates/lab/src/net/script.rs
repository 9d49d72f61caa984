//! What `ip` and `nft` are told in each namespace.

use super::plan::{Addresses, Plan, Router};
use super::{MAPPING_PORT, PROXY_PORT};
use headwater_simulator::scenario::{Reach, SiteNat};
use std::net::IpAddr;

/// Packets that wait in a TUN device until the forwarder takes them.
const TUN_PACKETS: u32 = 2000;
/// The largest packet that stands for several segments, on links where 64 KiB would be felt.
const SEGMENTS_BYTES_MAX: u32 = 16 * 1024;
const SEGMENTS_BYTES_UNLIMITED_FROM_MBIT: f64 = 200.0;

/// The router's end of the cable to a seat.
pub fn cable(seat: usize) -> String {
    format!("p{seat}")
}

/// One address only.
fn host_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn lan_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 24 } else { 64 }
}

/// Nobody else has these addresses, and none may be tentative when programs start.
fn no_detection(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "" } else { " nodad" }
}

/// All addresses of this one's family.
fn everywhere(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" }
}

/// The new one first: a device that loses its last address loses its routes.
pub fn change_address(old: IpAddr, new: IpAddr) -> String {
    let bits = host_bits(new);
    format!("addr add {new}/{bits} dev wan{}\naddr del {old}/{bits} dev wan\n", no_detection(new))
}

/// The TUN device of a line.
fn wan(plan: &Plan, port: usize, addresses: &Addresses) -> String {
    let segments = match plan.ports[port].up_mbit {
        mbit if mbit < SEGMENTS_BYTES_UNLIMITED_FROM_MBIT => format!(" gso_max_size {SEGMENTS_BYTES_MAX}"),
        _ => String::new(),
    };
    let address = addresses.gate(plan, port);
    format!(
        "link set lo up\nlink set wan addrgenmode none txqueuelen {TUN_PACKETS}{segments} up\n\
         addr add {address}/{} dev wan{}\nroute add {} dev wan\n",
        host_bits(address),
        no_detection(address),
        everywhere(address)
    )
}

/// A router: its line, and cables to its hosts' namespaces.
pub fn router(plan: &Plan, port: usize, router: &Router, addresses: &Addresses) -> String {
    let mut lines = String::from("link add lan type bridge mcast_snooping 0\nlink set lan addrgenmode none up\n");
    for (seat, host) in router.hosts.iter().enumerate() {
        let (cable, namespace) = (cable(seat), &plan.hosts[*host].namespace);
        lines +=
            &format!("link add {cable} type veth peer name lan netns {namespace}\nlink set {cable} master lan up\n");
    }
    let inside = addresses.router(plan, port, router);
    lines += &format!("addr add {inside}/{} dev lan{}\n", lan_bits(inside), no_detection(inside));
    lines + &wan(plan, port, addresses)
}

/// A host: its own line or its cable.
pub fn host(plan: &Plan, host: usize, addresses: &Addresses) -> String {
    let port = plan.hosts[host].port;
    let Some(router) = &plan.ports[port].router else { return wan(plan, port, addresses) };
    let (inside, gate) = (addresses.inside(plan, host), addresses.router(plan, port, router));
    format!(
        "link set lo up\nlink set lan addrgenmode none up\naddr add {inside}/{} dev lan{}\nroute add {} via {gate}\n",
        lan_bits(inside),
        no_detection(inside),
        everywhere(inside)
    )
}

/// What a router does to packets.
pub fn router_rules(plan: &Plan, router: &Router, addresses: &Addresses) -> String {
    let masquerade = match router.nat {
        SiteNat::Independent => "masquerade",
        SiteNat::Dependent => "masquerade random,fully-random",
        SiteNat::None => "accept",
    };
    let inwards = match router.nat {
        SiteNat::None => "accept",
        _ => "ct state established,related accept",
    };
    // The chains that miniupnpd fills.
    let (chains, mapped_in, mapped_out, mapped_forward) = if forwards_ports(plan, router) {
        (
            "chain miniupnpd {}\n chain miniupnpd_in {}\n chain miniupnpd_out {}\n",
            "chain in { type nat hook prerouting priority dstnat; jump miniupnpd_in; }\n",
            "jump miniupnpd_out;",
            "jump miniupnpd\n",
        )
    } else {
        ("", "", "", "")
    };
    let restrictions: String = router.hosts.iter().map(|host| restrictions(plan, *host, addresses)).collect();
    // A packet that nobody asked for ends at `input` and leaves no trace in the table of connections.
    format!(
        "table inet lab {{\n{chains} {mapped_in}\
           chain out {{ type nat hook postrouting priority srcnat; {mapped_out} oifname \"wan\" {masquerade}; }}\n\
           chain input {{ type filter hook input priority filter; policy drop;\n\
             iifname != \"wan\" accept\n ct state established,related accept\n }}\n\
           chain forward {{ type filter hook forward priority filter; policy drop;\n\
             {restrictions} iifname \"lan\" accept\n {mapped_forward} {inwards}\n }}\n\
         }}\n"
    )
}

/// Whether a router forwards ports to hosts that ask for it.
fn forwards_ports(plan: &Plan, router: &Router) -> bool {
    router.hosts.iter().any(|host| plan.hosts[*host].reach == Reach::MappingNat)
}

/// What miniupnpd is told on a router.
pub(crate) fn port_forwarding() -> String {
    format!(
        "ext_ifname=wan\nlistening_ip=lan\nhttp_port={MAPPING_PORT}\nenable_natpmp=yes\nenable_upnp=yes\nsecure_mode=yes\n\
         upnp_table_name=lab\nupnp_nat_table_name=lab\nupnp_forward_chain=miniupnpd\nupnp_nat_chain=miniupnpd_in\n\
         upnp_nat_postrouting_chain=miniupnpd_out\nuuid=00000000-0000-0000-0000-000000000001\n\
         allow 1024-65535 192.168.0.0/16 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n"
    )
}

/// What does not get through between a host and the outside.
fn restrictions(plan: &Plan, host: usize, addresses: &Addresses) -> String {
    let inside = addresses.inside(plan, host);
    let family = if inside.is_ipv4() { "ip" } else { "ip6" };
    let tcp_only =
        format!("{family} saddr {inside} meta l4proto != tcp drop\n{family} daddr {inside} meta l4proto udp drop\n");
    match plan.hosts[host].reach {
        Reach::UdpBlocked => format!("{tcp_only}{family} saddr {inside} tcp dport != {{ 80, 443 }} drop\n"),
        Reach::ProxyOnly => {
            let isp = plan.ports[plan.hosts[host].port].isp;
            let proxy = plan.proxies.get(&isp).map(|proxy| addresses.outside(plan, *proxy));
            let to = proxy
                .map_or(String::new(), |proxy| format!("{family} saddr {inside} {family} daddr != {proxy} drop\n"));
            format!("{tcp_only}{to}{family} saddr {inside} tcp dport != {PROXY_PORT} drop\n")
        }
        _ => String::new(),
    }
}

/// What a host itself does to packets.
pub fn host_rules(plan: &Plan, host: usize, addresses: &Addresses) -> String {
    if !matches!(plan.hosts[host].reach, Reach::DialOnly | Reach::Firewall) {
        return String::new();
    }
    let neighbours = match plan.hosts[host].seat {
        None => String::new(),
        Some(_) => {
            let inside = addresses.inside(plan, host);
            let family = if inside.is_ipv4() { "ip" } else { "ip6" };
            format!("{family} saddr {inside}/{} accept\n", lan_bits(inside))
        }
    };
    format!(
        "table inet lab {{\n\
           chain input {{ type filter hook input priority filter; policy drop;\n\
             iifname \"lo\" accept\n ct state established,related accept\n\
             icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept\n {neighbours} }}\n\
         }}\n"
    )
}
