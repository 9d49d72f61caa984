//! Asks the router to forward a port to this node: PCP or NAT-PMP (RFC 6887, RFC 6886), else UPnP. In the background; the
//! control center tests what comes of it.

use super::Inner;
use crab_nat::{GatewayAddress, InternetProtocol, PortMapping, PortMappingOptions, TimeoutConfig};
use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{PortMappingProtocol, SearchOptions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

/// How long a mapping is asked for; it is renewed at half of what is granted.
const LIFETIME: Duration = Duration::from_secs(2 * 3600);
/// A router that grants less time than this is asked again no sooner.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(30);
/// Without a router that forwards: asked again after this time.
const AGAIN: Duration = Duration::from_secs(600);
/// How long routers that speak UPnP are looked for.
const SEARCH: Duration = Duration::from_secs(3);
/// How long a router may take to take a mapping back.
const GIVE_BACK: Duration = Duration::from_millis(600);
/// In the router's list.
const DESCRIPTION: &str = "headwater";

/// A port that a router forwards.
enum Mapping {
    Pcp(PortMapping),
    Upnp { gateway: Box<Gateway<Tokio>>, port: NonZeroU16 },
}

/// Has a port forwarded for as long as the node runs, where it is behind a router that does so.
pub(crate) async fn keep(inner: Arc<Inner>) {
    let mut mapping: Option<Mapping> = None;
    loop {
        let wait = tokio::select! {
            () = inner.stopping.cancelled() => break,
            wait = refresh(&inner, &mut mapping) => wait,
        };
        let port = mapping.as_ref().map(Mapping::port);
        {
            let mut state = inner.lock();
            if state.mapped_port != port {
                state.mapped_port = port;
                state.tell_mapped();
                match port {
                    Some(port) => tracing::info!("the router forwards its port {port} to this node"),
                    None => tracing::info!("the router forwards no port to this node any more"),
                }
            }
        }
        tokio::select! {
            () = inner.stopping.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
            // It may be behind another router now.
            () = inner.session_began.notified() => {}
        }
    }
    if let Some(mapping) = mapping {
        let _ = tokio::time::timeout(GIVE_BACK, mapping.give_back()).await;
    }
}

/// Makes or renews the mapping; how long that lasts.
async fn refresh(inner: &Inner, mapping: &mut Option<Mapping>) -> Duration {
    let Some((local, port)) = behind_nat(inner) else {
        *mapping = None;
        return AGAIN;
    };
    let renewed = match mapping.take() {
        Some(Mapping::Pcp(mut held)) => held.renew().await.ok().map(|()| Mapping::Pcp(held)),
        Some(Mapping::Upnp { gateway, port: held }) => {
            let to = SocketAddr::new(local.into(), port.get());
            let lifetime = LIFETIME.as_secs() as u32;
            let renewed = gateway.add_port(PortMappingProtocol::UDP, held.get(), to, lifetime, DESCRIPTION).await;
            renewed.ok().map(|()| Mapping::Upnp { gateway, port: held })
        }
        None => None,
    };
    *mapping = match renewed {
        Some(renewed) => Some(renewed),
        None => match by_pcp(local, port).await {
            Ok(made) => Some(made),
            Err(no_pcp) => match by_upnp(local, port).await {
                Ok(made) => Some(made),
                Err(no_upnp) => {
                    let why = format!("PCP and NAT-PMP: {no_pcp}; UPnP: {no_upnp}");
                    tracing::debug!("no router forwards a port: {why}");
                    inner.lock().mapping_problem = Some(why);
                    None
                }
            },
        },
    };
    match mapping {
        Some(Mapping::Pcp(held)) => (Duration::from_secs(held.lifetime().into()) / 2).max(SHORTEST_RENEWAL),
        Some(Mapping::Upnp { .. }) => LIFETIME / 2,
        None => AGAIN,
    }
}

/// This node's private address and port, if the control center sees it at another, public, address.
fn behind_nat(inner: &Inner) -> Option<(Ipv4Addr, NonZeroU16)> {
    let seen = inner.lock().observed?.ip().to_canonical();
    let local: Vec<SocketAddr> = inner.local_addresses();
    if seen.is_loopback() || !seen.is_ipv4() || local.iter().any(|l| l.ip() == seen) {
        return None;
    }
    let private = local.iter().find_map(|l| match l.ip() {
        IpAddr::V4(a) if a.is_private() => Some((a, l.port())),
        _ => None,
    });
    private.and_then(|(a, port)| Some((a, NonZeroU16::new(port)?)))
}

async fn by_pcp(local: Ipv4Addr, port: NonZeroU16) -> Result<Mapping, String> {
    let routes = tokio::fs::read_to_string("/proc/net/route").await.map_err(|e| format!("no table of routes: {e}"))?;
    let gateway = default_gateway(&routes).ok_or("no default gateway")?;
    let initial_timeout = Duration::from_millis(250);
    let timeout_config = TimeoutConfig { initial_timeout, max_retries: 2, max_retry_timeout: None };
    let options = PortMappingOptions {
        external_port: Some(port),
        lifetime_seconds: Some(LIFETIME.as_secs() as u32),
        timeout_config: Some(timeout_config),
    };
    let made =
        PortMapping::new(GatewayAddress::IpV4(gateway), local.into(), InternetProtocol::Udp, port, options).await;
    made.map(Mapping::Pcp).map_err(|e| e.to_string())
}

/// The default gateway in Linux's table of IPv4 routes.
fn default_gateway(routes: &str) -> Option<Ipv4Addr> {
    routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (to, by) = (fields.next()?, fields.next()?);
        // Written as the machine keeps them.
        let by = u32::from_str_radix(by, 16).ok()?;
        (to == "00000000" && by != 0).then(|| Ipv4Addr::from(by.to_ne_bytes()))
    })
}

async fn by_upnp(local: Ipv4Addr, port: NonZeroU16) -> Result<Mapping, String> {
    let mut options = SearchOptions::default();
    options.bind_addr = (local, 0).into();
    (options.timeout, options.single_search_timeout) = (Some(SEARCH), Some(SEARCH));
    let gateway = Box::new(search_gateway(options).await.map_err(|e| e.to_string())?);
    let (to, lifetime) = (SocketAddr::new(local.into(), port.get()), LIFETIME.as_secs() as u32);
    let udp = PortMappingProtocol::UDP;
    let port = match gateway.add_port(udp, port.get(), to, lifetime, DESCRIPTION).await {
        Ok(()) => port,
        Err(_) => {
            let any = gateway.add_any_port(udp, to, lifetime, DESCRIPTION).await.map_err(|e| e.to_string())?;
            NonZeroU16::new(any).ok_or("it mapped port 0")?
        }
    };
    Ok(Mapping::Upnp { gateway, port })
}

impl Mapping {
    fn port(&self) -> NonZeroU16 {
        match self {
            Mapping::Pcp(held) => held.external_port(),
            Mapping::Upnp { port, .. } => *port,
        }
    }

    async fn give_back(self) {
        match self {
            Mapping::Pcp(held) => {
                if let Err((e, _)) = held.try_drop().await {
                    tracing::debug!("the router keeps the port for now: {e}");
                }
            }
            Mapping::Upnp { gateway, port } => {
                if let Err(e) = gateway.remove_port(PortMappingProtocol::UDP, port.get()).await {
                    tracing::debug!("the router keeps the port for now: {e}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_gateway_is_found() {
        let table =
            "Iface\tDestination\tGateway \tFlags\nlan\t0001A8C0\t00000000\t0001\nlan\t00000000\t0101A8C0\t0003\n";
        assert_eq!(default_gateway(table), Some(Ipv4Addr::new(192, 168, 1, 1)));
        assert_eq!(default_gateway("Iface\n"), None);
    }
}
