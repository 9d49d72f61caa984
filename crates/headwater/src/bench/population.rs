//! Peers as in life: uplinks `mixed-2025`, NATs and regions of the project's list of benchmarks. Each follows from its
//! number and a seed, so that none has to be kept.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use headwater_center_core::client_manager::Arrival;
use headwater_center_core::dcm::MemberInfo;
use headwater_center_core::trust::Standing;
use headwater_model::assignment::Reach;
use headwater_model::id::Hash;
use headwater_model::node::{Accepts, Capabilities, From, Known, Role};
use headwater_model::place::Place;
use headwater_model::report::Introduction;
use headwater_model::rng::Rng;
use headwater_model::{NodeId, Rate};

/// Share of peers in percent, and uplink in kbit/s.
const UPLINKS: [(u64, u64); 4] = [(10, 1_500), (35, 20_000), (40, 100_000), (15, 10_000)];
/// Share of peers in percent, by region.
const REGIONS: [(u64, &str); 6] = [(33, "NA"), (50, "EU"), (1, "SA"), (12, "AP"), (2, "JP"), (2, "AU")];
/// Share of peers in percent, and what they accept; nothing where UDP is blocked.
const NATS: [(u64, Option<Accepts>); 4] =
    [(20, Some(Accepts::Open)), (55, Some(Accepts::Punchable)), (20, Some(Accepts::DialOnly)), (5, None)];
/// Access ISPs of a region; subscribers by Zipf's law.
const ISPS: f64 = 1000.0;
/// Every so many-th peer is behind the address of the one before it.
const HOUSEHOLDS: u32 = 10;

/// Peers by number.
#[derive(Clone, Copy)]
pub struct Population {
    pub seed: u64,
}

fn pick<T: Copy>(rng: &mut Rng, of: &[(u64, T)]) -> Option<T> {
    let mut left = rng.below(of.iter().map(|(share, _)| share).sum());
    of.iter().find_map(|(share, item)| match left.checked_sub(*share) {
        None => Some(*item),
        Some(less) => {
            left = less;
            None
        }
    })
}

impl Population {
    /// A node's id.
    pub fn id(self, n: u32) -> NodeId {
        NodeId(Hash::of(&[&self.seed.to_be_bytes(), &n.to_be_bytes()]).0)
    }

    /// A peer as it arrives. The operator vouches for all, so that what they offer is believed at once.
    pub fn arrival(self, n: u32) -> Arrival {
        let node = self.id(n);
        let mut rng = Rng::new(node.prefix64(), "peer");
        let kbit = pick(&mut rng, &UPLINKS).unwrap_or_default();
        let mut capabilities = Capabilities::regular(Accepts::Open);
        match pick(&mut rng, &NATS).flatten() {
            Some(accepts) => capabilities = Capabilities::regular(accepts),
            None => capabilities.udp = Known { value: false, from: From::Test },
        }
        // Who shares an address shares the region and the ISP.
        let home = if n % HOUSEHOLDS == 1 { n - 1 } else { n };
        let mut rng = Rng::new(self.seed ^ u64::from(home), "place");
        let region = pick(&mut rng, &REGIONS).unwrap_or_default();
        let isp = ISPS.powf(rng.unit()) as u32;
        let [_, a, b, c] = home.to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(a.wrapping_add(11), b, c, 1));
        let place = Place {
            lan: Some(address.to_string()),
            asn: Some(REGIONS.iter().position(|r| r.1 == region).unwrap_or_default() as u32 * 100_000 + isp),
            isp: Some(format!("ISP {isp} of {region}")),
            country: Some(region.into()),
            ..Place::default()
        };
        let port = 4433 + (n - home) as u16;
        Arrival {
            session: u64::from(n) + 1,
            node,
            introduction: Introduction {
                role: Role::Peer,
                capabilities,
                up: Rate(kbit * 125),
                down: Rate(kbit * 250),
                client: "bench".into(),
                local_addresses: vec![SocketAddr::from(([192, 168, 1, 10 + (n - home) as u8], 4433))],
                https_port: None,
            },
            observed: SocketAddr::new(address, port),
            certificate: Hash(node.0),
            enrolled: true,
            place,
        }
    }

    /// The source of a live stream: open to all, with an uplink of 1 Gbit/s.
    pub fn source(self, n: u32) -> Arrival {
        let mut arrival = self.arrival(n);
        arrival.introduction.capabilities = Capabilities::regular(Accepts::Open);
        arrival.introduction.up = Rate::from_mbit(1000);
        arrival
    }
}

/// What a DCM is told of a node that arrived: as the control center does it.
pub fn member(arrival: &Arrival) -> MemberInfo {
    MemberInfo {
        node: arrival.node,
        session: arrival.session,
        role: arrival.introduction.role,
        capabilities: arrival.introduction.capabilities,
        up: arrival.introduction.up,
        place: arrival.place.clone(),
        reach: Reach { addresses: [arrival.observed].into(), certificate: arrival.certificate },
        observed: arrival.observed.ip(),
        local_addresses: arrival.introduction.local_addresses.clone(),
        https: None,
        may_use_origin: true,
        history: 2,
        standing: Standing::Good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_as_in_life() {
        let peers: Vec<Arrival> = (0..20_000).map(|n| Population { seed: 1 }.arrival(n)).collect();
        let share = |of: &dyn Fn(&Arrival) -> bool| peers.iter().filter(|a| of(a)).count() as f64 / peers.len() as f64;
        let near = |is: f64, should: f64| assert!((is - should).abs() < 0.015, "{is} instead of {should}");
        near(share(&|a| a.introduction.up == Rate::from_mbit(100)), 0.40);
        near(share(&|a| a.introduction.capabilities.accepts.value == Accepts::DialOnly), 0.20);
        near(share(&|a| !a.introduction.capabilities.udp.value), 0.05);
        near(share(&|a| a.place.country.as_deref() == Some("EU")), 0.50);
        let mean = peers.iter().map(|a| a.introduction.up.0 as f64 / 125_000.0).sum::<f64>() / peers.len() as f64;
        assert!((47.0..51.0).contains(&mean), "{mean} Mbit/s");
    }

    #[test]
    fn a_seed_is_a_population() {
        let of = |seed, n| Population { seed }.arrival(n);
        assert_eq!(of(1, 7), of(1, 7));
        assert_ne!(of(1, 7).node, of(2, 7).node);
        assert_eq!(of(1, 20).place, of(1, 21).place);
        assert_ne!(of(1, 20).observed, of(1, 21).observed);
    }
}
