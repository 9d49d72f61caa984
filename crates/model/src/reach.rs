//! Who can connect to whom (requirements A2, S2, S3): one place for choosing parents, for the check on what goes out,
//! and for the bounds.

use crate::id::NodeId;
use crate::node::{Accepts, Capabilities};
use std::net::{IpAddr, SocketAddr};

/// What decides whether two nodes can connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reachability {
    /// Whether others can open a connection to it.
    pub accepts: Accepts,
    /// Whether it listens at all; behind a NAT that helps its own site.
    pub listens: bool,
    /// Whether UDP gets through to it.
    pub udp: bool,
    /// Address that the control center sees.
    pub address: IpAddr,
}

impl Reachability {
    /// Of a node with these capabilities, seen at `address`.
    pub fn new(capabilities: &Capabilities, address: IpAddr) -> Self {
        Self {
            accepts: capabilities.accepts.value,
            listens: capabilities.listens,
            udp: capabilities.udp.value,
            address: address.to_canonical(),
        }
    }

    /// Whether both are behind one public address (IPv6: in one /64), or both on the control center's machine.
    pub fn same_site(&self, other: &Self) -> bool {
        match (self.address, other.address) {
            (IpAddr::V6(a), IpAddr::V6(b)) => a.octets()[..8] == b.octets()[..8],
            (a, b) => a == b || (a.is_loopback() && b.is_loopback()),
        }
    }

    /// Whether `self` dials `other` where the two are assigned to each other: whoever can be reached is dialled, and two
    /// that need a rendezvous dial each other at once (S3).
    pub fn dials(&self, other: &Self) -> bool {
        self.reaches(other, self.same_site(other))
    }

    /// Whether a connection can come about: UDP gets through to both, and at least one end can be reached by the other
    /// (A2).
    pub fn compatible(&self, other: &Self) -> bool {
        self.dials(other) || other.dials(self)
    }

    /// As [`Reachability::compatible`] when their site is none: a provider's NAT shared by strangers.
    pub fn compatible_from_afar(&self, other: &Self) -> bool {
        self.reaches(other, false) || other.reaches(self, false)
    }

    /// Whether the two ends must dial at the same moment.
    pub fn punches(&self, other: &Self) -> bool {
        let punchable = |r: &Self| r.accepts == Accepts::Punchable;
        (punchable(self) || punchable(other)) && self.dials(other) && other.dials(self)
    }

    fn reaches(&self, other: &Self, same_site: bool) -> bool {
        match other.accepts {
            // Connections of nodes are QUIC's.
            _ if !(self.udp && other.udp) => false,
            _ if same_site && other.listens => true,
            Accepts::Open => true,
            // The open end dials too: its packets alone would not get in, but it need not wait for the other's.
            Accepts::Punchable => self.accepts != Accepts::DialOnly,
            Accepts::DialOnly => false,
        }
    }
}

/// The network that an address belongs to, as far as one party has it to itself: /24 or /48.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(a) => IpAddr::from([a.octets()[0], a.octets()[1], a.octets()[2], 0]),
        IpAddr::V6(a) => {
            let mut octets = [0; 16];
            octets[..6].copy_from_slice(&a.octets()[..6]);
            IpAddr::from(octets)
        }
    }
}

/// An address with IPv4 in its own form.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Order to dial an address once and hand over a number there. Who gets the number reports it: only packets that got
/// through tell it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Unguessable; told to the one that dials, and to nobody else.
    pub number: [u8; 16],
    /// Who should be there.
    pub node: NodeId,
    /// Where.
    pub address: SocketAddr,
    /// From a socket that was never used before (can anybody reach it?), or from the one that the node listens on (which
    /// address do others see?).
    pub fresh_socket: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use Accepts::{DialOnly, Open, Punchable};

    fn at(accepts: Accepts, listens: bool, address: &str) -> Reachability {
        Reachability { accepts, listens, udp: true, address: address.parse().unwrap() }
    }

    /// (one, other, one dials, other dials)
    #[test]
    fn who_dials_whom() {
        let (a, b) = ("192.0.2.1", "198.51.100.1");
        for (one, other, dials, dialled) in [
            (at(Open, true, a), at(Open, true, b), true, true),
            (at(Open, true, a), at(Punchable, true, b), true, true),
            (at(Open, true, a), at(DialOnly, true, b), false, true),
            (at(Punchable, true, a), at(Punchable, true, b), true, true),
            (at(Punchable, true, a), at(DialOnly, true, b), false, false),
            (at(DialOnly, true, a), at(DialOnly, true, b), false, false),
            (at(DialOnly, true, a), at(DialOnly, true, a), true, true),
            (at(DialOnly, true, a), at(DialOnly, false, a), false, true),
            (at(DialOnly, false, a), at(DialOnly, false, a), false, false),
            (at(DialOnly, true, "2001:db8::1"), at(DialOnly, true, "2001:db8::2:1"), true, true),
            (at(DialOnly, true, "2001:db8::1"), at(DialOnly, true, "2001:db8:0:1::1"), false, false),
            (at(DialOnly, true, "127.0.0.1"), at(DialOnly, true, "127.0.0.9"), true, true),
        ] {
            assert_eq!((one.dials(&other), other.dials(&one)), (dials, dialled), "{one:?} {other:?}");
            assert_eq!(one.compatible(&other), dials || dialled);
            assert_eq!(one.compatible(&other), other.compatible(&one));
            assert!(one.compatible(&other) || !one.compatible_from_afar(&other));
        }
        let walled = Reachability { udp: false, ..at(Open, true, a) };
        for other in [at(Open, true, a), at(Open, true, b), walled] {
            assert!(!walled.compatible(&other) && !other.compatible(&walled) && !walled.compatible_from_afar(&other));
        }
        assert!(at(Punchable, true, a).punches(&at(Open, true, b)) && !at(Open, true, a).punches(&at(Open, true, b)));
    }
}
