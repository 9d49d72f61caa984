//! Circumstances as stories, and what the doctor says of them.

use super::*;
use headwater_model::Accepts;
use headwater_peer::node::{
    ControlStatus, DiskTest, NodeStatus, OriginTest, PathTest, ReachStatus, SelfTest, SystemTest, Tried,
};

fn works(ms: f64) -> Tried {
    Tried { works: true, ms, why: String::new() }
}

fn fails(why: &str) -> Tried {
    Tried { works: false, ms: 8000.0, why: why.into() }
}

/// A node that is well.
fn well() -> (NodeStatus, SelfTest) {
    let status = NodeStatus {
        listens: Some("[::]:4000".parse().unwrap()),
        control: ControlStatus {
            address: "cc.example:7400".into(),
            node: None,
            connected: true,
            way: Some("quic".into()),
            problem: None,
            clock_ahead_ms: Some(12),
        },
        reach: ReachStatus {
            observed: Some("192.0.2.7:4000".parse().unwrap()),
            accepts: Some(Accepts::Open),
            tested: true,
            why: "reached by a stranger".into(),
            asks_router: true,
            local: vec!["192.168.1.7:4000".parse().unwrap()],
            ..ReachStatus::default()
        },
        ..NodeStatus::default()
    };
    let test = SelfTest {
        quic: works(12.0),
        websocket: works(30.0),
        ipv6: true,
        origins: vec![OriginTest {
            content: "films/one".into(),
            host: "o.example".into(),
            tried: works(40.0),
            ranges: true,
        }],
        paths: vec![PathTest { with: "control center".into(), mtu: 1452, sent_packets: 5000, ..PathTest::default() }],
        disk: DiskTest {
            path: "/data".into(),
            free_bytes: Some(100 << 30),
            write: works(50.0),
            written_bytes: 4 << 20,
        },
        system: SystemTest {
            open_files: Some(65_536),
            buffer_asked_bytes: 4 << 20,
            receive_buffer_bytes: 4 << 20,
            send_buffer_bytes: 4 << 20,
        },
        ..SelfTest::default()
    };
    (status, test)
}

/// Of what `story` makes of a node that is well, the finding `test` is `health` and says `says` somewhere; nothing else is
/// worse than good but what `also` names.
fn check(story: impl Fn(&mut NodeStatus, &mut SelfTest), test: &str, health: Health, says: &str, also: &[&str]) {
    let (mut status, mut measured) = well();
    story(&mut status, &mut measured);
    let all = findings(&status, &measured);
    let finding = all.iter().find(|f| f.test == test).unwrap_or_else(|| panic!("no finding {test}: {all:#?}"));
    assert_eq!(finding.health, health, "{finding:#?}");
    let words = format!("{} {} {}", finding.found, finding.meaning, finding.advice);
    assert!(words.contains(says), "{says:?} is not in {finding:#?}");
    assert_eq!(finding.advice.is_empty(), health == Health::Good, "{finding:#?}");
    for other in all.iter().filter(|f| f.health != Health::Good && f.test != test) {
        assert!(also.contains(&other.test), "{other:#?}");
    }
}

#[test]
fn a_node_that_is_well_needs_nothing() {
    let (status, test) = well();
    for finding in findings(&status, &test) {
        assert!(finding.health == Health::Good && finding.advice.is_empty(), "{finding:#?}");
        assert!(!finding.found.is_empty() && !finding.meaning.is_empty());
    }
}

#[test]
fn ways_to_the_control_center() {
    let web = |s: &mut NodeStatus, t: &mut SelfTest| {
        (s.control.way, t.quic) = (Some("websocket".into()), fails("timed out"));
    };
    check(web, "control center by UDP", Health::Limited, "let UDP out to port 7400", &[]);
    let no_tcp = |_: &mut NodeStatus, t: &mut SelfTest| t.websocket = fails("refused");
    check(no_tcp, "control center by TCP", Health::Limited, "--proxy", &[]);
    let none = |s: &mut NodeStatus, t: &mut SelfTest| {
        (t.quic, t.websocket) = (fails("timed out"), fails("refused"));
        (s.control.way, s.control.problem) = (None, Some("timed out".into()));
    };
    let all = ["control center by UDP", "control center by TCP", "session"];
    check(none, "control center by UDP", Health::Broken, "whether the control center runs", &all);
    check(none, "control center by TCP", Health::Broken, "its origin alone", &all);
    check(none, "session", Health::Broken, "timed out", &all);
    let sent_away = |s: &mut NodeStatus, _: &mut SelfTest| {
        (s.control.way, s.control.problem) = (None, Some("the node speaks protocol 1".into()));
    };
    check(sent_away, "session", Health::Broken, "speaks protocol 1", &[]);
    let proxied = |_: &mut NodeStatus, t: &mut SelfTest| {
        t.proxies = vec![("HTTPS_PROXY".into(), "http://proxy.example:3128/".into())];
    };
    check(proxied, "proxy", Health::Good, "proxy.example:3128", &[]);
}

#[test]
fn who_reaches_it() {
    let is = |accepts, why: &'static str| {
        move |s: &mut NodeStatus, _: &mut SelfTest| {
            (s.reach.accepts, s.reach.why) = (accepts, why.into());
        }
    };
    check(
        is(Some(Accepts::Punchable), "its NAT shows the same"),
        "reachability",
        Health::Good,
        "control center's help",
        &[],
    );
    check(is(Some(Accepts::DialOnly), "not reached"), "reachability", Health::Limited, "UDP port 4000", &[]);
    check(is(Some(Accepts::DialOnly), "being tested"), "reachability", Health::Limited, "some seconds", &[]);
    check(is(None, ""), "reachability", Health::Limited, "not known, at 192.0.2.7:4000", &[]);
    let by_choice = |s: &mut NodeStatus, _: &mut SelfTest| {
        (s.reach.accepts, s.reach.local) = (Some(Accepts::DialOnly), Vec::new());
    };
    check(by_choice, "reachability", Health::Limited, "without --dial-only", &[]);
    let mapped = |s: &mut NodeStatus, _: &mut SelfTest| s.reach.mapped_port = Some(4711);
    check(mapped, "port mapping", Health::Good, "4711", &[]);
    let unmapped = |accepts| {
        move |s: &mut NodeStatus, _: &mut SelfTest| {
            (s.reach.accepts, s.reach.mapping_problem) = (Some(accepts), Some("no default gateway".into()));
        }
    };
    check(unmapped(Accepts::Open), "port mapping", Health::Good, "not needed", &[]);
    check(unmapped(Accepts::DialOnly), "port mapping", Health::Limited, "switch UPnP", &["reachability"]);
}

#[test]
fn the_machine() {
    let clock = |ms| move |s: &mut NodeStatus, _: &mut SelfTest| s.control.clock_ahead_ms = Some(ms);
    check(clock(90_000), "clock", Health::Limited, "90 s ahead of", &[]);
    check(clock(-86_400_000), "clock", Health::Limited, "86400 s behind", &[]);
    check(|_, t| t.disk.free_bytes = Some(500 << 20), "disk room", Health::Limited, "500.00 MiB", &[]);
    check(|_, t| t.disk.write = fails("Read-only file system"), "disk writes", Health::Broken, "Read-only", &[]);
    check(|_, t| t.disk.write = works(4000.0), "disk writes", Health::Limited, "slower", &[]);
    check(|_, t| t.system.open_files = Some(1024), "open files", Health::Limited, "LimitNOFILE", &[]);
    check(|_, t| t.system.receive_buffer_bytes = 208 << 10, "socket buffers", Health::Limited, "rmem_max=4194304", &[]);
}

#[test]
fn the_way() {
    check(|_, t| t.origins[0].tried = fails("no route"), "origin", Health::Limited, "no route", &[]);
    check(|_, t| t.origins[0].ranges = false, "origin", Health::Broken, "Range requests", &[]);
    check(|_, t| t.paths[0].mtu = 1200, "path MTU", Health::Good, "1200 bytes", &[]);
    check(|_, t| t.paths[0].black_holes = 2, "path MTU", Health::Limited, "too big", &[]);
    check(|_, t| t.paths[0].lost_packets = 400, "packet loss", Health::Limited, "8.0 %", &[]);
    check(|_, t| t.paths.clear(), "IPv6", Health::Good, "global address", &[]);
}
