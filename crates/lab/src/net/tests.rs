//! Real packets through real networks. They need root, and say so aloud when they are skipped.

use super::*;
use headwater_simulator::scenario::SiteNat;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static ALONE: Mutex<()> = Mutex::new(());
const PATIENCE: Duration = Duration::from_secs(10);

/// Timings are measured: one network at a time, as long as the result lives.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test on a network; the last hosts are the proxies.
fn on(network: NetworkSpec, sites: Vec<Site>, hosts: Vec<NetHost>, test: impl FnOnce(&Net)) {
    let _alone = alone();
    match Net::build(NetSpec { network, sites, hosts }) {
        Ok(net) => test(&net),
        Err(NetError::NotRoot) => eprintln!("SKIPPED, not tested: {}", NetError::NotRoot),
        Err(e) => panic!("{e}"),
    }
}

fn host(isp: u16, mbit: f64, reach: Reach) -> NetHost {
    NetHost { name: format!("{reach:?}"), isp, up_mbit: mbit, down_mbit: mbit, reach, site: None }
}

fn in_site(site: usize) -> NetHost {
    NetHost { site: Some(site), ..host(1, 20.0, Reach::Open) }
}

fn site(nat: SiteNat) -> Site {
    Site { name: "office".into(), isp: 1, up_mbit: 10.0, down_mbit: 10.0, nat }
}

fn udp(net: &Net, host: usize) -> UdpSocket {
    let address = net.inner_address(host);
    let socket = net.within(host, || UdpSocket::bind((address, 0))).expect("entered").expect("bound");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

/// Sends one datagram and says from where it arrived.
fn pass(from: &UdpSocket, to: &UdpSocket, at: SocketAddr) -> SocketAddr {
    let mut buffer = [0; 2048];
    from.send_to(b"hello", at).expect("sent");
    let (bytes, seen) = to.recv_from(&mut buffer).expect("received");
    assert_eq!(&buffer[..bytes], b"hello");
    seen
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The lower quartile of 20 round trips, in milliseconds: a busy machine delays some.
fn round_trip_ms(net: &Net, a: usize, b: usize) -> f64 {
    let (near, far) = (udp(net, a), udp(net, b));
    let to = far.local_addr().expect("bound");
    let mut times: Vec<f64> = (0..20)
        .map(|_| {
            let started = Instant::now();
            let back = pass(&near, &far, to);
            pass(&far, &near, back);
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 4]
}

/// Sends datagrams of 1,200 bytes at a rate of IP bytes, ten at a time (as one packet if `segments`), until told to stop.
fn send_at(socket: &UdpSocket, to: SocketAddr, mbit: f64, segments: bool, stop: &AtomicBool) {
    const PAYLOAD: usize = 1200;
    const TRAIN: usize = 10;
    if segments {
        let size: nix::libc::c_int = PAYLOAD as nix::libc::c_int;
        #[expect(unsafe_code, reason = "a socket option that the standard library lacks")]
        let set = unsafe {
            nix::libc::setsockopt(
                socket.as_raw_fd(),
                nix::libc::SOL_UDP,
                nix::libc::UDP_SEGMENT,
                (&raw const size).cast(),
                size_of::<nix::libc::c_int>() as u32,
            )
        };
        assert_eq!(set, 0, "UDP_SEGMENT");
    }
    let train = vec![7; PAYLOAD * TRAIN];
    let pause = Duration::from_secs_f64(((PAYLOAD + 28) * TRAIN * 8) as f64 / (mbit * 1e6));
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if segments {
            socket.send_to(&train, to).expect("sent");
        } else {
            for datagram in train.chunks(PAYLOAD) {
                socket.send_to(datagram, to).expect("sent");
            }
        }
        next += pause;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// The rate at which `bytes` more arrive at a host after the first half a megabyte, in Mbit/s.
fn rate_into(net: &Net, host: usize, bytes: u64) -> f64 {
    let arrived = || net.counters().hosts[host].down.bytes;
    let before = arrived();
    wait_until("the first bytes", || arrived() > before + 500_000);
    let (from, started) = (arrived(), Instant::now());
    wait_until("the bytes", || arrived() > from + bytes);
    (arrived() - from) as f64 * 8.0 / started.elapsed().as_secs_f64() / 1e6
}

fn udp_rate(net: &Net, a: usize, b: usize, mbit: f64, segments: bool) -> f64 {
    let (from, to) = (udp(net, a), udp(net, b));
    let at = to.local_addr().expect("bound");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| send_at(&from, at, mbit, segments, &stop));
        let rate = rate_into(net, b, (mbit * 1e6 / 8.0) as u64);
        stop.store(true, Ordering::Relaxed);
        rate
    })
}

fn tcp_rate(net: &Net, a: usize, b: usize, bytes: u64) -> f64 {
    let address = net.inner_address(b);
    let listener = net.within(b, || TcpListener::bind((address, 0))).expect("entered").expect("bound");
    let at = listener.local_addr().expect("bound");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepted");
            let mut buffer = [0; 65536];
            while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
        });
        let mut stream = net.within(a, || TcpStream::connect(at)).expect("entered").expect("connected");
        let mut writer = stream.try_clone().expect("cloned");
        scope.spawn(move || while writer.write_all(&[5; 65536]).is_ok() {});
        let rate = rate_into(net, b, bytes);
        stream.flush().expect("flushed");
        stream.shutdown(std::net::Shutdown::Both).expect("shut down");
        rate
    })
}

fn near(measured: f64, expected: f64, percent: f64, what: &str) {
    let off = (measured / expected - 1.0) * 100.0;
    eprintln!("{what}: {measured:.3}, expected {expected} ({off:+.2} %)");
    assert!(off.abs() <= percent, "{what}: {measured:.3} is not within {percent} % of {expected}");
}

#[test]
fn round_trips_are_as_long_as_said() {
    for ipv6 in [false, true] {
        let hosts = vec![host(1, 100.0, Reach::Open), host(1, 100.0, Reach::Open), host(2, 100.0, Reach::Open)];
        on(NetworkSpec { ipv6, ..NetworkSpec::default() }, vec![], hosts, |net| {
            for (to, expected) in [(1, 20.0), (2, 60.0)] {
                let measured = round_trip_ms(net, 0, to);
                eprintln!("round trip {measured:.2} ms of {expected} ms, IPv6 {ipv6}");
                assert!((expected..expected + 2.0).contains(&measured), "{measured} ms instead of {expected} ms");
            }
            assert!(net.prefix_of_isp(2).contains(&net.address(2)));
            assert!(!net.prefix_of_isp(1).contains(&net.address(2)));
        });
    }
    let jitter = NetworkSpec { jitter_ms: 10.0, ..NetworkSpec::default() };
    on(jitter, vec![], vec![host(1, 100.0, Reach::Open), host(1, 100.0, Reach::Open)], |net| {
        let measured = round_trip_ms(net, 0, 1);
        assert!((22.0..42.0).contains(&measured), "{measured} ms instead of 20 ms and twice up to 10 ms");
    });
}

#[test]
fn links_have_their_rates() {
    let mut hosts = vec![host(1, 20.0, Reach::Open), host(2, 20.0, Reach::Open), host(1, 2.0, Reach::Open)];
    hosts.push(host(1, 20.0, Reach::IndependentNat));
    on(NetworkSpec::default(), vec![], hosts, |net| {
        near(udp_rate(net, 3, 0, 26.0, true), 20.0, 2.0, "UDP with segmentation offload out of a NAT, Mbit/s");
        near(udp_rate(net, 0, 1, 26.0, true), 20.0, 2.0, "UDP with segmentation offload, Mbit/s");
        near(udp_rate(net, 0, 1, 26.0, false), 20.0, 2.0, "UDP, Mbit/s");
        near(tcp_rate(net, 1, 0, 4_000_000), 20.0, 2.0, "TCP, Mbit/s");
        near(udp_rate(net, 2, 0, 3.0, false), 2.0, 2.0, "UDP on a slow uplink, Mbit/s");
        net.set_host_rate(1, 8.0, 40.0);
        near(tcp_rate(net, 1, 0, 2_000_000), 8.0, 3.0, "TCP on a reshaped uplink, Mbit/s");
        net.set_peering(5.0, 0.0, false);
        near(udp_rate(net, 0, 1, 10.0, true), 5.0, 2.0, "UDP over a reshaped peering link, Mbit/s");
        let counters = net.counters();
        assert!(counters.peering[&(1, 2)].dropped_queue > 0);
        assert!(counters.hosts[0].up.dropped_queue > 0);
        assert_eq!((counters.to_nobody, counters.refused), (0, 0));
    });
}

#[test]
fn losses_are_as_many_as_said() {
    let lossy = NetworkSpec { loss_percent: 5.0, peering_loss_percent: 10.0, ..NetworkSpec::default() };
    on(lossy, vec![], vec![host(1, 20.0, Reach::Open), host(2, 20.0, Reach::Open)], |net| {
        udp_rate(net, 0, 1, 18.0, true);
        let counters = net.counters();
        let sent = counters.hosts[0].up.packets as f64;
        near(counters.peering[&(1, 2)].dropped_loss as f64 / sent, 0.10, 25.0, "lost between ISPs");
        near(counters.hosts[0].up.dropped_loss as f64 / sent, 0.9 * 0.05, 35.0, "lost on the path");
    });
}

#[test]
fn nats_map_ports_as_their_kind_does() {
    for ipv6 in [false, true] {
        let hosts = vec![
            host(1, 20.0, Reach::Open),
            host(2, 20.0, Reach::Open),
            host(1, 20.0, Reach::IndependentNat),
            host(1, 20.0, Reach::DependentNat),
        ];
        on(NetworkSpec { ipv6, ..NetworkSpec::default() }, vec![], hosts, |net| {
            let (one, other) = (udp(net, 0), udp(net, 1));
            let at = |socket: &UdpSocket| socket.local_addr().expect("bound");
            for (behind, same) in [(2, true), (3, false)] {
                let inner = udp(net, behind);
                let (first, second) = (pass(&inner, &one, at(&one)), pass(&inner, &other, at(&other)));
                assert_eq!((first.ip(), second.ip()), (net.address(behind), net.address(behind)));
                assert_ne!(net.address(behind), net.inner_address(behind));
                assert_eq!(first.port() == second.port(), same, "{first} and {second}");
                assert_eq!(pass(&one, &inner, first), at(&one), "an answer comes in");
            }
        });
    }
}

#[test]
fn what_nobody_asked_for_does_not_come_in() {
    let mut hosts = vec![host(1, 20.0, Reach::Open), host(1, 20.0, Reach::Open)];
    hosts.extend([Reach::Firewall, Reach::DialOnly, Reach::IndependentNat].map(|reach| host(1, 20.0, reach)));
    on(NetworkSpec::default(), vec![], hosts, |net| {
        let (friend, stranger) = (udp(net, 0), udp(net, 1));
        for behind in 2..5 {
            let inner = udp(net, behind);
            let mapped = pass(&inner, &friend, friend.local_addr().expect("bound"));
            stranger.send_to(b"unasked", mapped).expect("sent");
            let from_stranger = |(from, _): &(IpAddr, u64)| *from == net.address(1);
            wait_until("the stranger's packet", || net.packets_to(mapped.ip()).iter().any(from_stranger));
            // The friend's packet goes later over the same links.
            assert_eq!(pass(&friend, &inner, mapped), friend.local_addr().expect("bound"));
        }
        let nobody: SocketAddr = "20.9.9.9:9".parse().expect("an address");
        stranger.send_to(b"?", nobody).expect("sent");
        wait_until("a packet to nobody", || net.packets_to(nobody.ip()) == [(net.address(1), 1)]);
        assert_eq!(net.counters().to_nobody, 1);
    });
}

/// Both ends send to where a third host saw the other; whether both hear each other.
fn punched(net: &Net, a: usize, b: usize, vantage: usize) -> bool {
    let (one, other, third) = (udp(net, a), udp(net, b), udp(net, vantage));
    let at = third.local_addr().expect("bound");
    let (of_one, of_other) = (pass(&one, &third, at), pass(&other, &third, at));
    for socket in [&one, &other] {
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    }
    let mut heard = [false; 2];
    for _ in 0..5 {
        one.send_to(b"punch", of_other).expect("sent");
        other.send_to(b"punch", of_one).expect("sent");
        let mut buffer = [0; 16];
        heard[0] |= one.recv_from(&mut buffer).is_ok();
        heard[1] |= other.recv_from(&mut buffer).is_ok();
    }
    heard == [true; 2]
}

#[test]
fn holes_are_punched_where_they_can_be() {
    let mut hosts = vec![host(1, 20.0, Reach::Open)];
    let kinds =
        [Reach::IndependentNat, Reach::IndependentNat, Reach::DependentNat, Reach::DependentNat, Reach::Firewall];
    hosts.extend(kinds.map(|reach| host(2, 20.0, reach)));
    on(NetworkSpec::default(), vec![], hosts, |net| {
        assert!(punched(net, 1, 2, 0), "two independent NATs");
        assert!(punched(net, 1, 5, 0), "an independent NAT and a firewall");
        assert!(!punched(net, 3, 4, 0), "two dependent NATs");
        assert!(!punched(net, 1, 3, 0), "a port-restricted and a dependent NAT");
    });
}

fn tcp_reaches(net: &Net, from: usize, to: usize, port: u16) -> bool {
    let at = SocketAddr::new(net.address(to), port);
    let _listener = net.within(to, || TcpListener::bind(at)).expect("entered").expect("bound");
    net.within(from, || TcpStream::connect_timeout(&at, Duration::from_millis(500))).expect("entered").is_ok()
}

#[test]
fn blocked_networks_let_through_what_they_do() {
    let hosts = vec![host(1, 20.0, Reach::Open), host(1, 20.0, Reach::UdpBlocked), host(1, 20.0, Reach::ProxyOnly)];
    on(NetworkSpec::default(), vec![], hosts, |net| {
        let proxy = net.proxy_host(1).expect("a proxy");
        assert_eq!(net.hosts(), 4);
        assert_eq!(net.proxy_address(1), Some(SocketAddr::new(net.address(proxy), PROXY_PORT)));
        assert_eq!(net.proxy_address(2), None);
        for (from, to, port, through) in [
            (1, 0, 443, true),
            (1, 0, 80, true),
            (1, 0, 8080, false),
            (2, 0, 443, false),
            (2, proxy, 443, false),
            (2, 0, PROXY_PORT, false),
            (2, proxy, PROXY_PORT, true),
        ] {
            assert_eq!(tcp_reaches(net, from, to, port), through, "TCP from {from} to port {port} of {to}");
        }
        let outside = udp(net, 0);
        outside.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        for blocked in [1, 2] {
            // The sender is told nothing.
            udp(net, blocked).send_to(b"hello", outside.local_addr().expect("bound")).expect("sent");
        }
        assert!(outside.recv_from(&mut [0; 16]).is_err(), "UDP came through");
        let senders: Vec<IpAddr> = net.packets_to(net.address(0)).iter().map(|(from, _)| *from).collect();
        assert_eq!(senders, [net.address(1)], "only TCP did, and nothing past the proxy");
    });
}

#[test]
fn hosts_of_a_site_share_its_line_and_a_lan() {
    let mut hosts = vec![in_site(0), in_site(0), in_site(1), in_site(1), host(2, 20.0, Reach::Open)];
    hosts.extend([Reach::UdpBlocked, Reach::Firewall].map(|reach| NetHost { reach, ..in_site(0) }));
    on(NetworkSpec::default(), vec![site(SiteNat::Independent), site(SiteNat::None)], hosts, |net| {
        for (a, b) in [(0, 1), (2, 3), (0, 5), (5, 6)] {
            assert!(round_trip_ms(net, a, b) < 5.0, "the LAN is near, and nothing is blocked there");
        }
        assert_eq!(net.counters().sites[0].up.packets, 0, "the line is not for the LAN");
        let outside = udp(net, 4);
        let at = outside.local_addr().expect("bound");
        for inside in 0..4 {
            assert_eq!(pass(&udp(net, inside), &outside, at).ip(), net.address(inside));
        }
        udp(net, 5).send_to(b"blocked", at).expect("sent");
        pass(&udp(net, 6), &outside, at);
        assert_eq!(net.address(0), net.address(1));
        assert_ne!(net.address(2), net.address(3));
        let routed = udp(net, 3);
        pass(&outside, &routed, routed.local_addr().expect("bound"));
        near(tcp_rate(net, 0, 4, 1_500_000), 10.0, 3.0, "TCP out of a site, Mbit/s");
        let counters = net.counters();
        assert!(counters.sites[0].up.bytes > 1_500_000);
        assert!(counters.hosts[0].up.bytes > 1_500_000);
        assert_eq!(counters.sites[1].down.packets, 1);

        let (one, other) = (udp(net, 0), udp(net, 1));
        net.cut_host(1, true).expect("cut");
        one.send_to(b"lost", other.local_addr().expect("bound")).expect("sent");
        net.cut_host(1, false).expect("restored");
        wait_until("the LAN's return", || {
            one.send_to(b"hello", other.local_addr().expect("bound")).expect("sent");
            other.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
            other.recv_from(&mut [0; 16]).is_ok_and(|(bytes, _)| bytes == 5)
        });
    });
}

#[test]
fn paths_are_cut_and_restored_and_corrupted() {
    let hosts = vec![host(1, 20.0, Reach::Open), host(2, 20.0, Reach::Open)];
    on(NetworkSpec::default(), vec![], hosts, |net| {
        let (one, other) = (udp(net, 0), udp(net, 1));
        let at = other.local_addr().expect("bound");
        let network = NetworkSpec::default();
        let cuts: [&dyn Fn(bool); 3] =
            [&|cut| net.cut_host(1, cut).expect("cut"), &|cut| net.cut_pair(1, 0, cut), &|cut| {
                net.set_peering(network.peering_mbit, 0.0, cut)
            }];
        for cut in cuts {
            let dropped = || {
                let counters = net.counters();
                counters.hosts[0].up.dropped_cut + counters.peering[&(1, 2)].dropped_cut
            };
            let before = dropped();
            cut(true);
            one.send_to(b"lost", at).expect("sent");
            wait_until("the drop", || dropped() == before + 1);
            cut(false);
            pass(&one, &other, at);
        }
        net.corrupt_pair(0, 1, 100.0);
        one.send_to(b"hello", at).expect("sent");
        let mut buffer = [0; 16];
        let (bytes, _) = other.recv_from(&mut buffer).expect("received");
        let flipped: u32 = buffer[..bytes].iter().zip(b"hello").map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!((bytes, flipped), (5, 1));
        net.corrupt_pair(0, 1, 0.0);
        pass(&one, &other, at);
    });
}

#[test]
fn an_address_changes() {
    let hosts = vec![host(1, 20.0, Reach::Open), host(1, 20.0, Reach::Open), host(1, 20.0, Reach::IndependentNat)];
    for ipv6 in [false, true] {
        on(NetworkSpec { ipv6, ..NetworkSpec::default() }, vec![], hosts.clone(), |net| {
            let outside = udp(net, 0);
            let at = outside.local_addr().expect("bound");
            for changing in [1, 2] {
                let unbound: SocketAddr = if ipv6 { "[::]:0" } else { "0.0.0.0:0" }.parse().expect("an address");
                let inner = net.within(changing, || UdpSocket::bind(unbound)).expect("entered").expect("bound");
                let before = pass(&inner, &outside, at);
                assert_eq!(before.ip(), net.address(changing));
                let new = net.change_address(changing).expect("changed");
                assert_ne!(before.ip(), new);
                assert_eq!(net.address(changing), new);
                // The kernel forgets a NAT's mappings in its own time.
                let mut seen = before;
                wait_until("the new address", || {
                    seen = pass(&inner, &outside, at);
                    seen.ip() == new
                });
                pass(&outside, &inner, seen);
                outside.send_to(b"late", before).expect("sent");
                wait_until("a packet to the old address", || net.counters().to_nobody >= 1);
            }
        });
    }
}

fn names_with(prefix: &str) -> usize {
    let entries = std::fs::read_dir("/run/netns").expect("a folder");
    entries.filter(|e| e.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().starts_with(prefix))).count()
}

#[test]
fn nothing_is_left_behind_even_after_a_panic() {
    let hosts = || vec![host(1, 20.0, Reach::Open), host(1, 20.0, Reach::IndependentNat)];
    on(NetworkSpec::default(), vec![], hosts(), |net| {
        let prefix = |net: &Net| net.namespace(0).trim_end_matches("-0").to_owned() + "-";
        let build = || Net::build(NetSpec { network: NetworkSpec::default(), sites: vec![], hosts: hosts() });
        let second = build().expect("a second network beside the first");
        let (ours, theirs) = (prefix(net), prefix(&second));
        assert_eq!((names_with(&ours), names_with(&theirs)), (3, 3));
        assert_eq!(second.address(0), net.address(0));
        let (from, to) = (udp(&second, 1), udp(&second, 0));
        pass(&from, &to, to.local_addr().expect("bound"));
        assert_eq!(net.packets_to(net.address(0)), [], "networks are apart");
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _second = second;
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!((names_with(&ours), names_with(&theirs)), (3, 0));
    });
}

#[test]
fn what_a_dead_lab_left_is_swept() {
    on(NetworkSpec::default(), vec![], vec![host(1, 20.0, Reach::Open)], |net| {
        let mut dead = Command::new("true").spawn().expect("spawned");
        dead.wait().expect("ended");
        let left = format!("hwlab-{}-0-0", dead.id());
        let ip = |arguments: &[&str]| Command::new("ip").args(arguments).status().expect("ran").success();
        assert!(ip(&["netns", "add", &left]));
        let mut orphan = Command::new("ip").args(["netns", "exec", &left, "sleep", "60"]).spawn().expect("spawned");
        let inside = || Command::new("ip").args(["netns", "pids", &left]).output().expect("ran").stdout;
        wait_until("the orphan's start", || !inside().is_empty());
        assert!(Net::sweep() >= 1);
        assert!(!orphan.wait().expect("ended").success());
        assert_eq!((names_with(&left), names_with(net.namespace(0))), (0, 1));
    });
}

#[test]
fn commands_run_inside() {
    on(NetworkSpec::default(), vec![], vec![host(1, 20.0, Reach::Open)], |net| {
        let output = net.command(0, Path::new("ip")).args(["-o", "addr", "show", "wan"]).output().expect("ran");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(&net.address(0).to_string()), "{said}");
    });
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |network: NetworkSpec, hosts: Vec<NetHost>| {
        let planned =
            Plan::new(NetSpec { network, sites: vec![], hosts }, "x").and_then(|plan| plan::Addresses::new(&plan));
        assert!(matches!(planned.err(), Some(NetError::Spec(_))));
    };
    refused(NetworkSpec::default(), vec![host(0, 20.0, Reach::Open)]);
    refused(NetworkSpec::default(), vec![host(256, 20.0, Reach::Open)]);
    refused(NetworkSpec::default(), vec![host(1, 0.0, Reach::Open)]);
    refused(NetworkSpec::default(), vec![in_site(0)]);
    refused(NetworkSpec::default(), vec![host(1, 20.0, Reach::IndependentNat); 255]);
    refused(NetworkSpec::default(), vec![host(1, 20.0, Reach::Open); 256]);
}

/// What thirty busy hosts cost.
#[test]
#[ignore = "a benchmark of half a minute: cargo test --release -p headwater-lab -- --ignored --nocapture thirty"]
fn thirty_hosts_send_and_receive_20_mbit_each() {
    const HOSTS: usize = 30;
    let started = Instant::now();
    let hosts = (0..HOSTS).map(|n| host(1 + (n % 2) as u16, 20.0, Reach::Open)).collect();
    let network = NetworkSpec { peering_mbit: 1000.0, ..NetworkSpec::default() };
    on(network, vec![], hosts, |net| {
        eprintln!("{HOSTS} hosts built in {:.2} s", started.elapsed().as_secs_f64());
        for segments in [true, false] {
            let stop = AtomicBool::new(false);
            let sockets: Vec<UdpSocket> = (0..HOSTS).map(|host| udp(net, host)).collect();
            std::thread::scope(|scope| {
                for (n, socket) in sockets.iter().enumerate() {
                    let to = sockets[(n + 1) % HOSTS].local_addr().expect("bound");
                    let stop = &stop;
                    scope.spawn(move || send_at(socket, to, 20.5, segments, stop));
                }
                rate_into(net, 0, 2_500_000);
                let (before, from) = (net.counters(), Instant::now());
                rate_into(net, 0, 10_000_000);
                let (after, seconds) = (net.counters(), from.elapsed().as_secs_f64());
                stop.store(true, Ordering::Relaxed);
                let mbit = |n: usize| (after.hosts[n].down.bytes - before.hosts[n].down.bytes) as f64 * 8e-6 / seconds;
                let rates: BTreeSet<u64> = (0..HOSTS).map(|n| (mbit(n) * 100.0) as u64).collect();
                let all: f64 = (0..HOSTS).map(mbit).sum();
                let core = (after.forwarder_cpu_s - before.forwarder_cpu_s) / seconds;
                eprintln!(
                    "segmentation offload {segments}: {all:.1} Mbit/s in all, hosts {:.2} to {:.2}, forwarder {:.0} % of a core",
                    rates.first().map_or(0.0, |r| *r as f64 / 100.0),
                    rates.last().map_or(0.0, |r| *r as f64 / 100.0),
                    core * 100.0
                );
            });
        }
        near(round_trip_ms(net, 0, 2), 20.0, 10.0, "round trip afterwards, ms");
    });
    let started = Instant::now();
    on(NetworkSpec::default(), vec![], vec![host(1, 20.0, Reach::DependentNat); 32], |_| {
        eprintln!("32 hosts behind NATs built in {:.2} s", started.elapsed().as_secs_f64());
    });
}
