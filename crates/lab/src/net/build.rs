//! Making a network: namespaces, then routers with the cables to their hosts, then hosts, then the forwarder.

use super::forwarder::Forwarder;
use super::plan::{Addresses, Plan};
use super::wires::Wires;
use super::{Net, NetError, NetSpec, namespaces, script, tun};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const THREADS: usize = 4;

/// Builds it.
pub fn build(spec: NetSpec) -> Result<Net, NetError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(NetError::NotRoot);
    }
    namespaces::sweep();
    let plan = Plan::new(spec, &namespaces::prefix())?;
    let addresses = Addresses::new(&plan)?;
    let namespaces = namespaces::Namespaces::make(plan.namespaces())?;

    let routers: Vec<usize> = (0..plan.ports.len()).filter(|port| plan.ports[*port].router.is_some()).collect();
    let router_tuns = in_parallel(routers.len(), |n| make_router(&plan, routers[n], &addresses))?;
    let hosts = in_parallel(plan.hosts.len(), |host| make_host(&plan, host, &addresses))?;

    let mut tuns: Vec<Option<File>> = plan.ports.iter().map(|_| None).collect();
    for (port, tun) in routers.iter().zip(router_tuns) {
        tuns[*port] = Some(tun);
    }
    let mut entries = Vec::with_capacity(hosts.len());
    let mut lan_counters = Vec::with_capacity(hosts.len());
    for (planned, made) in plan.hosts.iter().zip(hosts) {
        entries.push(Arc::new(made.entry));
        lan_counters.push(made.lan_counters);
        if made.tun.is_some() {
            tuns[planned.port] = made.tun;
        }
    }
    let lines: Vec<(u16, f64, f64)> = plan.ports.iter().map(|port| (port.isp, port.up_mbit, port.down_mbit)).collect();
    let mut wires = Wires::new(&plan.network, &lines);
    for port in 0..plan.ports.len() {
        for address in addresses.routes(&plan, port) {
            wires.route(address, port);
        }
    }
    let forwarder = Forwarder::start(wires, tuns.into_iter().flatten().collect())?;
    Ok(Net { plan, forwarder, entries, lan_counters, addresses: Mutex::new(addresses), namespaces })
}

struct MadeHost {
    entry: File,
    /// When the line is its own.
    tun: Option<File>,
    /// Behind a site's line.
    lan_counters: Option<File>,
}

fn make_host(plan: &Plan, host: usize, addresses: &Addresses) -> Result<MadeHost, NetError> {
    let planned = &plan.hosts[host];
    let name = &planned.namespace;
    let entry = namespaces::open(name)?;
    let (tun, lan_counters) = namespaces::within(&entry, || {
        let tun = if planned.seat.is_none() { Some(make_tun(name)?) } else { None };
        set_up(name, false, &script::host(plan, host, addresses), &script::host_rules(plan, host, addresses))?;
        let lan_counters = if planned.site.is_some() {
            let counters = File::open("/proc/thread-self/net/dev");
            Some(counters.map_err(|e| NetError::system("opening a device's counters", e))?)
        } else {
            None
        };
        Ok((tun, lan_counters))
    })??;
    Ok(MadeHost { entry, tun, lan_counters })
}

fn make_router(plan: &Plan, port: usize, addresses: &Addresses) -> Result<File, NetError> {
    let planned = &plan.ports[port];
    let name = &planned.namespace;
    namespaces::within(&namespaces::open(name)?, || {
        let tun = make_tun(name)?;
        if let Some(router) = &planned.router {
            let rules = script::router_rules(plan, router, addresses);
            set_up(name, true, &script::router(plan, port, router, addresses), &rules)?;
        }
        Ok(tun)
    })?
}

fn make_tun(namespace: &str) -> Result<File, NetError> {
    tun::open("wan").map_err(|e| NetError::system(format!("making a TUN device in {namespace}"), e))
}

/// Sets up the namespace of this thread.
fn set_up(namespace: &str, routes: bool, batch: &str, rules: &str) -> Result<(), NetError> {
    let settings = [
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv4/ping_group_range", "0 2147483647"),
    ];
    let routing = [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        // What stays on a LAN does not pass the router's rules.
        ("bridge/bridge-nf-call-iptables", "0"),
        ("bridge/bridge-nf-call-ip6tables", "0"),
    ];
    for (name, value) in settings.iter().chain(routing.iter().filter(|_| routes)) {
        let file = Path::new("/proc/sys/net").join(name);
        // Without IPv6 or filters on bridges there is nothing to set for them.
        if file.exists() {
            std::fs::write(&file, value).map_err(|e| NetError::system(format!("setting {name} in {namespace}"), e))?;
        }
    }
    namespaces::ip_here(namespace, batch)?;
    namespaces::nft_here(namespace, rules)
}

/// Does jobs 0 … `count` − 1 on a few threads; the first error counts.
fn in_parallel<T: Send>(count: usize, job: impl Fn(usize) -> Result<T, NetError> + Sync) -> Result<Vec<T>, NetError> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS.min(count) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let result = job(n);
                    let failed = result.is_err();
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((n, result));
                    if failed {
                        return;
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, result)| result).collect()
}
