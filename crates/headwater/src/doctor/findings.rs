//! From measurements to words.

use headwater_model::Accepts;
use headwater_peer::node::{DiskTest, NodeStatus, OriginTest, PathTest, SelfTest, SystemTest};
use indicatif::BinaryBytes;
use serde::Serialize;

/// A clock that is off by more disturbs other programs.
const CLOCK_OFF_MS: u64 = 5_000;
/// With less room than this a download soon stops.
const LITTLE_ROOM_BYTES: u64 = 1 << 30;
/// A disk that takes less than this per second holds a fast line up.
const SLOW_DISK_BYTES_PER_S: f64 = 5e6;
/// QUIC's least is 1,200; what passes on the Internet is 1,452 or so. Below this a tunnel takes its share.
const SMALL_MTU_BYTES: u16 = 1_300;
/// Share of packets lost that holds a connection up, and of how many at least that says something.
const LOSSY_PERCENT: f64 = 3.0;
const PACKETS_THAT_TELL: u64 = 1_000;
/// Each content takes some files, each child over HTTPS a socket.
const FEW_FILES: u64 = 4_096;
/// Less than this overflows in a burst of handshakes or at a gigabit.
const SMALL_BUFFER_BYTES: usize = 1 << 20;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Good,
    /// It works, and could do better.
    Limited,
    /// It does not work.
    Broken,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub test: &'static str,
    /// How bad it is.
    pub health: Health,
    /// What was found.
    pub found: String,
    /// What that means.
    pub meaning: &'static str,
    /// What to do about it; empty where nothing need be done.
    pub advice: String,
}

impl Finding {
    fn good(test: &'static str, found: impl Into<String>, meaning: &'static str) -> Self {
        Self { test, health: Health::Good, found: found.into(), meaning, advice: String::new() }
    }
    fn limited(test: &'static str, found: impl Into<String>, meaning: &'static str, advice: impl Into<String>) -> Self {
        Self { test, health: Health::Limited, found: found.into(), meaning, advice: advice.into() }
    }
    fn broken(test: &'static str, found: impl Into<String>, meaning: &'static str, advice: impl Into<String>) -> Self {
        Self { test, health: Health::Broken, found: found.into(), meaning, advice: advice.into() }
    }
}

/// Everything that can be said, in the order in which it is worth reading.
pub fn findings(status: &NodeStatus, test: &SelfTest) -> Vec<Finding> {
    let mut all = vec![udp(status, test), tcp(test), session(status, test)];
    all.extend(proxy(test));
    all.push(reached(status));
    all.extend(port_mapping(status));
    all.push(ipv6(test));
    all.extend(clock(status));
    all.extend(disk(&test.disk));
    all.extend(test.origins.iter().map(origin));
    all.extend(paths(&test.paths));
    all.extend(open_files(&test.system));
    all.push(buffers(&test.system));
    all
}

fn udp(status: &NodeStatus, test: &SelfTest) -> Finding {
    let (name, at) = ("control center by UDP", &status.control.address);
    if test.quic.works {
        return Finding::good(
            name,
            format!("QUIC to {at} in {:.0} ms", test.quic.ms),
            "UDP gets through: peers can be connected with",
        );
    }
    let found = format!("no QUIC to {at}: {}", test.quic.why);
    if test.websocket.works {
        let port = at.rsplit(':').next().unwrap_or_default();
        return Finding::limited(
            name,
            found,
            "UDP does not get through: this node has no peers, and fetches by HTTPS from the origin and waypoints only",
            format!("let UDP out to port {port} of the control center, and to any port for peers; or live with it"),
        );
    }
    Finding::broken(
        name,
        found,
        "the control center is not reached by UDP, nor by TCP",
        "check the address (--control), the network, and whether the control center runs; a firewall may hold both back",
    )
}

fn tcp(test: &SelfTest) -> Finding {
    let name = "control center by TCP";
    let ws = &test.websocket;
    match (ws.works, test.quic.works) {
        (true, _) => Finding::good(
            name,
            format!("a WebSocket in {:.0} ms", ws.ms),
            "where UDP fails one day, the session goes on by this",
        ),
        (false, true) => Finding::limited(
            name,
            format!("no WebSocket: {}", ws.why),
            "there is nothing to fall back on where UDP fails",
            "let TCP out to the control center's port, or name a proxy with --proxy or HTTPS_PROXY",
        ),
        (false, false) => Finding::broken(
            name,
            format!("no WebSocket: {}", ws.why),
            "without a control center a content comes from its origin alone, and only if its name has a log",
            "see above; behind a firewall that lets only a proxy out, name that with --proxy or HTTPS_PROXY",
        ),
    }
}

fn session(status: &NodeStatus, test: &SelfTest) -> Finding {
    let name = "session";
    let c = &status.control;
    match c.way.as_deref() {
        Some("quic") => Finding::good(name, "by QUIC", "the control center assigns parents and children"),
        Some(_) if test.quic.works => {
            Finding::good(name, "by a WebSocket, though QUIC works now", "it moves to QUIC within a minute")
        }
        Some(_) => Finding::good(name, "by a WebSocket", "the control center tells what to fetch from where"),
        None if test.quic.works || test.websocket.works => Finding::broken(
            name,
            format!(
                "none, though the control center is there: {}",
                c.problem.as_deref().unwrap_or("it is being dialled")
            ),
            "nobody is assigned to this node; what it has assigned goes on",
            "see the reason; where it names a version, update; else look at the control center's log",
        ),
        None => Finding::broken(
            name,
            format!("none: {}", c.problem.as_deref().unwrap_or("the control center is not reached")),
            "nobody is assigned to this node; what it has assigned goes on",
            "see above",
        ),
    }
}

fn proxy(test: &SelfTest) -> Option<Finding> {
    let named: Vec<String> = test.proxies.iter().map(|(where_, what)| format!("{where_} {what}")).collect();
    (!named.is_empty()).then(|| {
        Finding::good(
            "proxy",
            named.join(", "),
            "HTTP goes by it: the origin, waypoints by HTTPS, and the control center where UDP fails",
        )
    })
}

fn reached(status: &NodeStatus) -> Finding {
    let name = "reachability";
    let r = &status.reach;
    let at = r.via.or(r.observed).map_or(String::new(), |a| format!(", at {a}"));
    let found = |what: &str| format!("{what}{at}: {}", r.why);
    let open_port = format!(
        "forward UDP port {} of the router to this machine, or switch UPnP or PCP on there",
        status.listens.map_or(0, |a| a.port())
    );
    match r.accepts {
        None => Finding::limited(
            name,
            format!("not known{at}"),
            "the control center has not said what it found out",
            "ask again when there has been a session for some seconds",
        ),
        Some(Accepts::Open) if r.tested => Finding::good(name, found("open"), "anyone can be connected with"),
        Some(Accepts::Open) => Finding::good(
            name,
            found("open, untested"),
            "it is believed to be open; a test needs a node of another network",
        ),
        Some(Accepts::Punchable) => Finding::good(
            name,
            found("punchable"),
            "behind a NAT or firewall that others get through with the control center's help",
        ),
        Some(Accepts::DialOnly) if r.why == "being tested" => Finding::limited(
            name,
            found("dial-only until it is tested"),
            "nobody connects to this node before the test is done",
            "ask again in some seconds",
        ),
        Some(Accepts::DialOnly) => Finding::limited(
            name,
            found("dial-only"),
            "nobody can connect to this node: it connects to open ones only, and serves few",
            if r.local.is_empty() { "start it without --dial-only, if others may connect".into() } else { open_port },
        ),
    }
}

fn port_mapping(status: &NodeStatus) -> Option<Finding> {
    let name = "port mapping";
    let r = &status.reach;
    if let Some(port) = r.mapped_port {
        return Some(Finding::good(
            name,
            format!("the router forwards its port {port}"),
            "others may reach this node by it",
        ));
    }
    let why = r.mapping_problem.as_ref().filter(|_| r.asks_router)?;
    let found = format!("no router forwards a port: {why}");
    Some(if r.accepts == Some(Accepts::DialOnly) {
        Finding::limited(
            name,
            found,
            "others cannot reach this node by its router",
            "switch UPnP or PCP on in the router",
        )
    } else {
        Finding::good(name, found, "not needed: others reach this node all the same")
    })
}

fn ipv6(test: &SelfTest) -> Finding {
    let name = "IPv6";
    if test.ipv6 {
        Finding::good(name, "this machine has a global address", "peers with IPv6 are often reached without a NAT")
    } else {
        Finding::good(name, "no global address", "peers are reached by IPv4 only; nothing is wrong with that")
    }
}

fn clock(status: &NodeStatus) -> Option<Finding> {
    let name = "clock";
    let ahead = status.control.clock_ahead_ms?;
    Some(if ahead.unsigned_abs() <= CLOCK_OFF_MS {
        Finding::good(name, "as the control center's", "nothing depends on it here")
    } else {
        let way = if ahead > 0 { "ahead of" } else { "behind" };
        Finding::limited(
            name,
            format!("{:.0} s {way} the control center's", ahead.unsigned_abs() as f64 / 1000.0),
            "Headwater goes by the control center's time; HTTPS to the origin may fail, as certificates have dates",
            "have the machine's clock set by NTP (timedatectl set-ntp true)",
        )
    })
}

fn disk(disk: &DiskTest) -> Vec<Finding> {
    let at = disk.path.display();
    let room = disk.free_bytes.map(|free| {
        let found = format!("{} free at {at}", BinaryBytes(free));
        if free < LITTLE_ROOM_BYTES {
            let advice = "make room, forget contents (`headwater forget`), or move the data folder (--data)";
            Finding::limited("disk room", found, "a download that does not fit stops with an error", advice)
        } else {
            Finding::good("disk room", found, "there is room for contents")
        }
    });
    let write = &disk.write;
    let per_s = disk.written_bytes as f64 / (write.ms / 1000.0).max(1e-6);
    let written = format!("{} brought to the disk in {:.0} ms", BinaryBytes(disk.written_bytes), write.ms);
    let write = if !write.works {
        Finding::broken(
            "disk writes",
            format!("cannot write at {at}: {}", write.why),
            "nothing can be fetched, as every piece is stored first",
            "see that the folder is there, is this user's, and lies on no read-only or full file system",
        )
    } else if per_s < SLOW_DISK_BYTES_PER_S {
        Finding::limited(
            "disk writes",
            written,
            "the disk is slower than a good line",
            "move the data folder to a faster disk (--data)",
        )
    } else {
        Finding::good("disk writes", written, "the disk keeps up")
    };
    room.into_iter().chain([write]).collect()
}

fn origin(o: &OriginTest) -> Finding {
    let name = "origin";
    if !o.tried.works {
        return Finding::limited(
            name,
            format!("{} of {:?} does not answer as it should: {}", o.host, o.content, o.tried.why),
            "what no peer and no waypoint has is not to be had",
            "see whether a browser gets it from this machine; behind a proxy name that; else tell the publisher",
        );
    }
    if !o.ranges {
        return Finding::broken(
            name,
            format!("{} of {:?} sends no parts of a file", o.host, o.content),
            "byte ranges are what the origin is asked for",
            "tell the publisher: the server, or a proxy on the way, must pass Range requests on",
        );
    }
    Finding::good(
        name,
        format!("{} of {:?} answers in {:.0} ms, with byte ranges", o.host, o.content, o.tried.ms),
        "what nobody else has comes from there",
    )
}

fn paths(paths: &[PathTest]) -> Vec<Finding> {
    let Some(least) = paths.iter().min_by_key(|p| p.mtu) else { return Vec::new() };
    let holes: u64 = paths.iter().map(|p| p.black_holes).sum();
    let found = format!(
        "datagrams of {} bytes get through ({} connections, to {} the least)",
        least.mtu,
        paths.len(),
        partner(least)
    );
    let mtu = if holes > 0 {
        Finding::limited(
            "path MTU",
            format!("{found}; {holes} times larger ones vanished without a word"),
            "QUIC sends smaller ones from then on: nothing is lost but speed",
            "a tunnel or firewall on the way drops ICMP \"too big\": let that pass, or set the tunnel's MTU right",
        )
    } else if least.mtu < SMALL_MTU_BYTES {
        // A connection that has just begun has not tried larger ones yet.
        Finding::good(
            "path MTU",
            found,
            "small, as through a tunnel or on a new connection: it works, with more overhead",
        )
    } else {
        Finding::good("path MTU", found, "full-sized datagrams pass")
    };
    let lossy: Vec<&PathTest> = paths
        .iter()
        .filter(|p| p.sent_packets >= PACKETS_THAT_TELL)
        .filter(|p| p.lost_packets as f64 * 100.0 > LOSSY_PERCENT * p.sent_packets as f64)
        .collect();
    let worst = lossy.iter().max_by(|a, b| loss_percent(a).total_cmp(&loss_percent(b)));
    let loss = worst.map(|w| {
        Finding::limited(
            "packet loss",
            format!(
                "{} of {} connections lose packets, the one to {} {:.1} %",
                lossy.len(),
                paths.len(),
                partner(w),
                loss_percent(w)
            ),
            "a line on the way is full or bad",
            "set --up below what the line can send; on Wi-Fi try a cable",
        )
    });
    [mtu].into_iter().chain(loss).collect()
}

/// As people tell them apart: node ids by their beginning.
fn partner(p: &PathTest) -> &str {
    if p.with == "control center" { "the control center" } else { p.with.get(..8).unwrap_or(&p.with) }
}

fn loss_percent(p: &PathTest) -> f64 {
    100.0 * p.lost_packets as f64 / p.sent_packets.max(1) as f64
}

fn open_files(system: &SystemTest) -> Option<Finding> {
    let files = system.open_files?;
    let found = format!("{files} may be open at once");
    Some(if files < FEW_FILES {
        Finding::limited(
            "open files",
            found,
            "enough for a user's peer; many contents, or a waypoint's children over HTTPS, need more",
            "raise it: ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit",
        )
    } else {
        Finding::good("open files", found, "enough")
    })
}

fn buffers(system: &SystemTest) -> Finding {
    let name = "socket buffers";
    let (receive, send) = (system.receive_buffer_bytes, system.send_buffer_bytes);
    let bytes = |b: usize| BinaryBytes(b as u64);
    let found = format!(
        "{} to receive and {} to send, of {} asked for",
        bytes(receive),
        bytes(send),
        bytes(system.buffer_asked_bytes)
    );
    if receive.min(send) >= SMALL_BUFFER_BYTES {
        return Finding::good(name, found, "bursts fit");
    }
    Finding::limited(
        name,
        found,
        "above some hundred Mbit/s, or with many children, the kernel drops datagrams",
        format!("sysctl -w net.core.rmem_max={0} net.core.wmem_max={0}", system.buffer_asked_bytes),
    )
}
