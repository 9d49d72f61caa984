//! The operator's table of places: address prefix → AS, ISP, country, state, enterprise, site, access technology (C5).

use headwater_model::place::Place;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Lines of one table.
pub const MAX_LINES: usize = 2_000_000;

/// Places by prefix; the longest prefix wins.
#[derive(Clone, Debug, Default)]
pub struct PlaceTable {
    /// By prefix length, longest last.
    by_length: BTreeMap<u8, BTreeMap<IpNet, Place>>,
}

/// What is wrong with a line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "line {line}: {problem} (a line is: prefix, AS, ISP, country, state, enterprise, site, access technology; empty where unknown)"
)]
pub struct BadLine {
    /// Counting from 1.
    pub line: usize,
    /// In words.
    pub problem: String,
}

impl PlaceTable {
    /// Reads a table: comma-separated, `#` begins a comment.
    ///
    /// # Errors
    /// The first [`BadLine`].
    pub fn parse(text: &str) -> Result<PlaceTable, BadLine> {
        let mut table = PlaceTable::default();
        for (i, raw) in text.lines().enumerate() {
            let no = |problem: String| BadLine { line: i + 1, problem };
            if i >= MAX_LINES {
                return Err(no(format!("more than {MAX_LINES} lines")));
            }
            let line = raw.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let mut fields = line.split(',').map(str::trim);
            let prefix = fields.next().unwrap_or("");
            let net: IpNet = match prefix.parse::<IpAddr>() {
                Ok(address) => address.into(),
                Err(_) => prefix.parse().map_err(|_| no(format!("{prefix:?} is no address prefix")))?,
            };
            let mut text = || fields.next().filter(|f| !f.is_empty()).map(str::to_owned);
            let asn = text()
                .map(|a| a.trim_start_matches("AS").parse().map_err(|_| no(format!("{a:?} is no AS number"))))
                .transpose()?;
            let place = Place {
                lan: None,
                asn,
                isp: text(),
                country: text(),
                state: text(),
                enterprise: text(),
                site: text(),
                access: text(),
            };
            if fields.next().is_some() {
                return Err(no("more than 8 fields".into()));
            }
            table.by_length.entry(net.prefix_len()).or_default().insert(net.trunc(), place);
        }
        Ok(table)
    }

    /// The place of `address`; nothing but its LAN where no line covers it.
    pub fn place_of(&self, address: IpAddr) -> Place {
        let address = address.to_canonical();
        let found = self.by_length.iter().rev().find_map(|(len, nets)| {
            let net = IpNet::new(address, *len).ok()?.trunc();
            nets.get(&net)
        });
        let lan = match address {
            IpAddr::V4(a) => a.to_string(),
            IpAddr::V6(a) => IpNet::new(a.into(), 64).map_or(String::new(), |n| n.trunc().to_string()),
        };
        Place { lan: Some(lan), ..found.cloned().unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins() {
        let t = PlaceTable::parse(
            "# places\n10.0.0.0/8, AS64500, Net, DE, BE, acme, berlin, fibre\n10.1.0.0/16,64500,Net,DE,,acme,bonn\n2001:db8::/32,7,,FR\n",
        )
        .unwrap();
        let site = |a: &str| t.place_of(a.parse().unwrap()).site;
        assert_eq!(site("10.2.3.4").as_deref(), Some("berlin"));
        assert_eq!(site("10.1.3.4").as_deref(), Some("bonn"));
        assert_eq!(site("::ffff:10.1.3.4").as_deref(), Some("bonn"));
        assert_eq!(site("11.0.0.1"), None);
        let v6 = t.place_of("2001:db8::1".parse().unwrap());
        assert_eq!((v6.asn, v6.country.as_deref(), v6.lan.as_deref()), (Some(7), Some("FR"), Some("2001:db8::/64")));
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, says) in [
            ("\nx/8,1", "line 2: \"x/8\" is no address prefix"),
            ("10.0.0.0/99", "no address prefix"),
            ("10.0.0.0/8,nine", "no AS number"),
            ("10.0.0.0/8,1,2,3,4,5,6,7,8,9", "more than 8 fields"),
        ] {
            let said = PlaceTable::parse(text).unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        }
    }
}
