//! How long a packet takes from one place to another.

use crate::live::LATENCY_MIN;
use crate::scenario::{HostSpec, NetworkSpec};
use headwater_model::rng::Rng;
use headwater_model::time::Micros;

/// Regions, the share of viewers in each in percent, and round trips between them in milliseconds (benchmarks, "Region round
/// trips").
const REGIONS: [(&str, u64, [f64; 6]); 6] = [
    ("NA", 33, [32.0, 124.0, 184.0, 198.0, 151.0, 189.0]),
    ("EU", 50, [124.0, 11.0, 227.0, 237.0, 252.0, 294.0]),
    ("SA", 1, [184.0, 227.0, 88.0, 325.0, 301.0, 322.0]),
    ("AP", 12, [198.0, 237.0, 325.0, 85.0, 58.0, 198.0]),
    ("JP", 2, [151.0, 252.0, 301.0, 58.0, 12.0, 126.0]),
    ("AU", 2, [189.0, 294.0, 322.0, 198.0, 126.0, 16.0]),
];
/// Where the origin and the control center are, if hosts are in regions.
const ORIGIN_REGION: u8 = 1;

/// One-way times between places.
#[derive(Debug)]
pub(super) struct Net {
    /// From each place to each.
    ways: Vec<Micros>,
    places: usize,
    /// ISPs by their place; none where places are regions.
    isps: Vec<u16>,
    origin: u8,
}

impl Net {
    pub(super) fn new(network: &NetworkSpec, hosts: &[HostSpec]) -> Net {
        let one_way = |rtt_ms: f64| Micros((rtt_ms * 500.0) as u64).max(LATENCY_MIN);
        if network.regions {
            let ways = REGIONS.iter().flat_map(|(.., rtts)| rtts.iter().map(|rtt| one_way(*rtt))).collect();
            return Net { ways, places: REGIONS.len(), isps: Vec::new(), origin: ORIGIN_REGION };
        }
        let mut isps: Vec<u16> = hosts.iter().map(|h| h.isp).chain([network.origin_isp]).collect();
        isps.sort_unstable();
        isps.dedup();
        let way = |a: &u16, b: &u16| one_way(if a == b { network.rtt_inside_ms } else { network.rtt_across_ms });
        let ways = isps.iter().flat_map(|a| isps.iter().map(move |b| way(a, b))).collect();
        let origin = isps.binary_search(&network.origin_isp).unwrap_or_default() as u8;
        Net { ways, places: isps.len(), isps, origin }
    }

    /// Where a host is, by its number; the same for the same seed.
    pub(super) fn place_of(&self, seed: u64, number: usize, host: &HostSpec) -> u8 {
        if !self.isps.is_empty() {
            return self.isps.binary_search(&host.isp).unwrap_or_default() as u8;
        }
        let mut left = Rng::new(seed ^ ((number as u64) << 16), "region").below(100);
        let found = REGIONS.iter().position(|(_, share, _)| match left.checked_sub(*share) {
            None => true,
            Some(less) => {
                left = less;
                false
            }
        });
        found.unwrap_or_default() as u8
    }

    /// What an operator's table of places calls it, if it is a region.
    pub(super) fn region(&self, place: u8) -> Option<&'static str> {
        self.isps.is_empty().then(|| REGIONS.get(usize::from(place)).map(|r| r.0)).flatten()
    }

    pub(super) fn origin(&self) -> u8 {
        self.origin
    }

    /// All places.
    pub(super) fn places(&self) -> std::ops::Range<u8> {
        0..self.places as u8
    }

    pub(super) fn way(&self, a: u8, b: u8) -> Micros {
        self.ways[usize::from(a) * self.places + usize::from(b)]
    }

    /// One way to the origin, and to the control center, which is there.
    pub(super) fn to_origin(&self, place: u8) -> Micros {
        self.way(place, self.origin)
    }
}
