//! A node's access list (requirement A2, `sources`): from whom it may fetch. And the way that its HTTP takes: a proxy, and
//! no other addresses than those on the list.

use headwater_model::assignment::{Parent, Reach};
use headwater_model::{SourceAccess, SourceClass};
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use url::{Host, Url};

/// Networks that one list names.
const MAX_NETWORKS: usize = 256;
/// Variables that name proxies.
const PROXY_VARIABLES: [&str; 6] = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// From whom a node may fetch.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub enum Sources {
    /// From anyone whom the control center assigns.
    #[default]
    Any,
    /// From the origin and the operator's nodes.
    Operator,
    /// From those of them whose address is in one of these networks.
    Networks(Vec<IpNet>),
}

/// Why a text is no access list.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not any, operator, or networks like 192.0.2.0/24,2001:db8::/32 (at most {MAX_NETWORKS})")]
pub struct NotSources(String);

impl FromStr for Sources {
    type Err = NotSources;
    fn from_str(text: &str) -> Result<Self, NotSources> {
        let network = |t: &str| t.trim().parse::<IpNet>().or_else(|_| t.trim().parse::<IpAddr>().map(IpNet::from));
        match text {
            "any" => Ok(Sources::Any),
            "operator" => Ok(Sources::Operator),
            _ => {
                let all: Result<Vec<IpNet>, _> = text.split(',').map(network).collect();
                match all {
                    Ok(all) if all.len() <= MAX_NETWORKS => Ok(Sources::Networks(all)),
                    _ => Err(NotSources(text.chars().take(80).collect())),
                }
            }
        }
    }
}

impl Sources {
    /// What the control center is told.
    pub fn access(&self) -> SourceAccess {
        if *self == Sources::Any { SourceAccess::Any } else { SourceAccess::Listed }
    }
    /// Whether an address may be fetched from, if it is the origin's or an operator node's.
    pub fn allows(&self, address: IpAddr) -> bool {
        match self {
            Sources::Any | Sources::Operator => true,
            Sources::Networks(networks) => networks.iter().any(|n| n.contains(&address.to_canonical())),
        }
    }
    /// A parent with those of its addresses that are on the list; `None` if it is not.
    pub fn permit(&self, mut parent: Parent) -> Option<Parent> {
        if *self == Sources::Any {
            return Some(parent);
        }
        // A parent that dials has no address to look at until it is there.
        let dials_itself = parent.reach.addresses.is_empty();
        parent.reach = self.permit_reach(parent.reach);
        let reachable = dials_itself || !parent.reach.addresses.is_empty();
        (parent.class != SourceClass::Peer && reachable).then_some(parent)
    }
    /// The addresses that are on the list.
    pub fn permit_reach(&self, reach: Reach) -> Reach {
        let addresses = reach.addresses.iter().copied().filter(|a| self.allows(a.ip())).collect();
        Reach { addresses, ..reach }
    }
}

/// The way that HTTP takes.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) proxy: Option<Url>,
    /// Whether the environment's proxies count, where none is given.
    pub(crate) environment_proxy: bool,
    pub(crate) sources: Sources,
}

impl Way {
    /// A client's beginnings; `listed` for sources, which must be on the access list.
    pub(crate) fn builder(&self, listed: bool) -> Result<reqwest::ClientBuilder, reqwest::Error> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("headwater/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false);
        if let Some(proxy) = &self.proxy {
            let proxy = reqwest::Proxy::all(proxy.clone())?.no_proxy(reqwest::NoProxy::from_env());
            builder = builder.proxy(proxy);
        } else if !self.environment_proxy {
            builder = builder.no_proxy();
        }
        if listed && matches!(self.sources, Sources::Networks(_)) {
            let resolver = Listed { sources: self.sources.clone(), proxies: self.proxies() };
            builder = builder.dns_resolver(Arc::new(resolver));
        }
        Ok(builder)
    }

    /// Whether `url` may be fetched from. Names are looked up here as well as when connecting, because a proxy connects
    /// to what it finds itself.
    pub(crate) async fn allows(&self, url: &Url) -> bool {
        if !matches!(self.sources, Sources::Networks(_)) {
            return true;
        }
        match url.host() {
            None => false,
            Some(Host::Ipv4(address)) => self.sources.allows(address.into()),
            Some(Host::Ipv6(address)) => self.sources.allows(address.into()),
            Some(Host::Domain(name)) => {
                let found = tokio::net::lookup_host((name, url.port_or_known_default().unwrap_or(0))).await;
                // A name that cannot be looked up fails later, with better words.
                found.map_or(true, |mut found| found.any(|a| self.sources.allows(a.ip())))
            }
        }
    }

    /// Hosts of proxies: they are no sources.
    fn proxies(&self) -> BTreeSet<String> {
        let variables = PROXY_VARIABLES.iter().filter(|_| self.environment_proxy).filter_map(|v| std::env::var(v).ok());
        let parse = |v: String| Url::parse(&v).or_else(|_| Url::parse(&format!("http://{v}"))).ok();
        let urls = variables.filter_map(parse).chain(self.proxy.clone());
        urls.filter_map(|u| u.host_str().map(str::to_ascii_lowercase)).collect()
    }
}

/// Looks names up and gives the addresses that are on the list.
struct Listed {
    sources: Sources,
    proxies: BTreeSet<String>,
}

impl Resolve for Listed {
    fn resolve(&self, name: Name) -> Resolving {
        let exempt = self.proxies.contains(&name.as_str().to_ascii_lowercase());
        let sources = if exempt { Sources::Any } else { self.sources.clone() };
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> = found.into_iter().filter(|a| sources.allows(a.ip())).collect();
            if allowed.is_empty() {
                return Err("no address of it is on this node's access list".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_model::{NodeId, Rate, Substreams};

    fn parent(class: SourceClass, addresses: &[&str]) -> Parent {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let reach = Reach { addresses, ..Reach::default() };
        Parent { node: NodeId([1; 32]), class, dial: true, promised: Rate(0), reach, substreams: Substreams::default() }
    }

    #[test]
    fn lists_are_read() {
        assert_eq!("any".parse(), Ok(Sources::Any));
        assert_eq!("operator".parse(), Ok(Sources::Operator));
        let Ok(list @ Sources::Networks(_)) = "192.0.2.0/24, 2001:db8::/32,198.51.100.7".parse::<Sources>() else {
            panic!("a list of networks")
        };
        for (address, on) in [
            ("192.0.2.200", true),
            ("::ffff:192.0.2.200", true),
            ("192.0.3.1", false),
            ("2001:db8:1::1", true),
            ("198.51.100.7", true),
            ("198.51.100.8", false),
        ] {
            assert_eq!(list.allows(address.parse().unwrap()), on, "{address}");
        }
        for bad in ["", "none", "192.0.2.0/33", "192.0.2.0/24,", "operator,192.0.2.0/24"] {
            assert!(bad.parse::<Sources>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_operator_nodes_on_the_list_are_parents() {
        let list: Sources = "192.0.2.0/24".parse().unwrap();
        let (peer, waypoint) = (SourceClass::Peer, SourceClass::Waypoint);
        assert!(Sources::Any.permit(parent(peer, &["192.0.3.1:1"])).is_some());
        assert!(Sources::Operator.permit(parent(peer, &["192.0.2.1:1"])).is_none());
        assert!(Sources::Operator.permit(parent(waypoint, &["192.0.3.1:1"])).is_some());
        assert!(list.permit(parent(waypoint, &["192.0.3.1:1"])).is_none());
        assert!(list.permit(parent(peer, &["192.0.2.1:1"])).is_none());
        let some = list.permit(parent(waypoint, &["192.0.3.1:1", "192.0.2.1:1"])).unwrap();
        assert_eq!(some.reach.addresses[..], ["192.0.2.1:1".parse().unwrap()]);
    }
}
