//! Where a node is, and how near two nodes are (requirements C5, S1, S7).

use crate::rng::fnv64_of;
use serde::{Deserialize, Serialize};

/// Tiers of nearness, nearest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Behind the same public address.
    Lan,
    /// The same site of an enterprise.
    Site,
    /// The same enterprise.
    Enterprise,
    /// The same autonomous system.
    As,
    /// The same country.
    Country,
    /// Anywhere.
    World,
}

/// All tiers, nearest first.
pub const TIERS: [Tier; 6] = [Tier::Lan, Tier::Site, Tier::Enterprise, Tier::As, Tier::Country, Tier::World];

/// A place; `None` is unknown, which is near to nothing.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The public address (IPv4) or /64 (IPv6) that the control center saw.
    pub lan: Option<String>,
    /// Site within the enterprise.
    pub site: Option<String>,
    /// Enterprise.
    pub enterprise: Option<String>,
    /// Autonomous system number.
    #[serde(rename = "as")]
    pub asn: Option<u32>,
    /// Internet service provider.
    pub isp: Option<String>,
    /// State or province.
    pub state: Option<String>,
    /// ISO 3166 country code.
    pub country: Option<String>,
    /// Access technology (dsl, cable, fibre, mobile …).
    pub access: Option<String>,
}

impl Place {
    /// A key that two places share exactly when they are together at `tier`; `None` where unknown.
    pub fn key(&self, tier: Tier) -> Option<u64> {
        let of = |text: &Option<String>| Some(fnv64_of(&[&[tier as u8], text.as_deref()?.as_bytes()]));
        match tier {
            Tier::Lan => of(&self.lan),
            Tier::Site => {
                let enterprise = self.enterprise.as_deref().unwrap_or("");
                Some(fnv64_of(&[&[tier as u8], enterprise.as_bytes(), b"\0", self.site.as_deref()?.as_bytes()]))
            }
            Tier::Enterprise => of(&self.enterprise),
            Tier::As => Some(fnv64_of(&[&[tier as u8], &self.asn?.to_be_bytes()])),
            Tier::Country => of(&self.country),
            Tier::World => Some(fnv64_of(&[&[tier as u8]])),
        }
    }
    /// The nearest tier at which both are together.
    pub fn nearness(&self, other: &Place) -> Tier {
        TIERS.into_iter().find(|t| self.key(*t).is_some_and(|k| other.key(*t) == Some(k))).unwrap_or(Tier::World)
    }
    /// Key of the region that shares scarce sources: the AS, else the country, else everywhere.
    pub fn region(&self) -> u64 {
        [Tier::As, Tier::Country, Tier::World].into_iter().find_map(|t| self.key(t)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearness_is_the_nearest_shared_tier() {
        let office = |e: &str, s: &str, asn| Place {
            enterprise: Some(e.into()),
            site: Some(s.into()),
            asn: Some(asn),
            country: Some("DE".into()),
            ..Place::default()
        };
        let a = office("acme", "berlin", 1);
        assert_eq!(a.nearness(&a), Tier::Site);
        assert_eq!(a.nearness(&office("acme", "bonn", 1)), Tier::Enterprise);
        assert_eq!(a.nearness(&office("other", "berlin", 1)), Tier::As);
        assert_eq!(a.nearness(&office("other", "berlin", 2)), Tier::Country);
        assert_eq!(Place::default().nearness(&Place::default()), Tier::World);
        assert_ne!(a.region(), office("acme", "berlin", 2).region());
    }
}
