//! Tests of scenarios: what is read, what is refused, who connects.

use super::*;
use headwater_model::node::Accepts;

const HEAD: &str = "name = \"s\"\ncontent_bytes = 1_000_000\npiece_bytes = 65536\norigin_up_mbit = 20\n";

fn parse(rest: &str) -> Result<Scenario, String> {
    let scenario: Scenario = toml::from_str(&format!("{HEAD}{rest}")).map_err(|e| e.to_string())?;
    scenario.layout().map_err(|e| e.to_string())?;
    Ok(scenario)
}

const LIVE: &str = "[live]\nmbit = 2\nsegment_s = 2\nhold_back_s = 6\nseconds = 60\n";

const OPEN: &str = "[[groups]]\ncount = 2\nup_mbit = 20\ndown_mbit = 20\n";

#[test]
fn what_is_missing_has_a_default() {
    let s = parse(&format!("[network]\n{OPEN}")).unwrap();
    assert_eq!(s.network, Some(NetworkSpec::default()));
    assert_eq!(s.group_name(0), "g1");
    let hosts = s.hosts(1);
    assert_eq!(hosts.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), ["g1-1", "g1-2"]);
    assert!(hosts.iter().all(|h| h.isp == 1 && h.reach == Reach::Open && h.receives() && h.place.asn == Some(1)));
    assert!(s.bars.all_complete);
    // Without a network nobody is in an ISP.
    assert_eq!(parse(OPEN).unwrap().hosts(1)[0].place, Place::default());
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let fault = |f: &str| format!("[network]\n{OPEN}[[faults]]\n{f}\n");
    for (rest, why) in [
        (format!("{OPEN}site = \"hq\"\n"), "there is no site hq"),
        (
            format!("[[sites]]\nname = \"hq\"\nisp = 2\nup_mbit = 1\ndown_mbit = 1\n{OPEN}site = \"hq\"\n"),
            "is in ISP 2",
        ),
        (format!("seeded = true\n{OPEN}"), "one by one"),
        (format!("{OPEN}name = \"a\"\n{OPEN}name = \"a\"\n"), "another group has this name"),
        (format!("{OPEN}isp = 0\n"), "out of range"),
        (fault("kind = \"death\""), "one of `at_s` and `at_share`"),
        (fault("at_s = 1\nat_share = 0.5\nkind = \"death\""), "one of `at_s` and `at_share`"),
        (fault("at_s = 1\nkind = \"peering-rate\""), "the rate in Mbit/s"),
        (fault("at_s = 1\nkind = \"death\"\ngroup = \"b\""), "there is no group b"),
        (fault("at_s = 1\nuntil_share = 0.5\nkind = \"freeze\""), "`until_share` is for"),
        (format!("{OPEN}[[faults]]\nat_s = 1\nkind = \"peering-cut\"\n"), "without [network]"),
        (format!("{OPEN}colour = \"red\"\n"), "unknown field"),
    ] {
        let error = parse(&rest).unwrap_err();
        assert!(error.contains(why), "{error} for {rest}");
    }
}

#[test]
fn some_things_are_for_flows() {
    for (before, in_live, why) in [
        ("[network]\nregions = true\n", "", "`regions` of the network"),
        ("", "heartbeat_s = 5\n", "for `heartbeat_s`"),
        ("[[faults]]\nat_s = 1\nkind = \"death\"\nof_share = 0.1\n", "", "`of_share` of a fault"),
    ] {
        let with = |model: &str| parse(&format!("{before}{OPEN}{LIVE}{in_live}{model}[live.bars]\n"));
        let error = with("").unwrap_err();
        assert!(error.contains(why) && error.contains("model = \"flow\""), "{error}");
        assert!(with("model = \"flow\"\n").is_ok());
    }
    let both = "[[faults]]\nat_s = 1\nkind = \"death\"\nof_share = 0.1\ncount = 3\n";
    let error = parse(&format!("{both}{OPEN}{LIVE}model = \"flow\"\n[live.bars]\n")).unwrap_err();
    assert!(error.contains("exclude each other"), "{error}");
}

#[test]
fn kinds_are_written_as_they_are_named() {
    use FaultKind::*;
    for kind in [
        Crash,
        Death,
        Leave,
        Freeze,
        Slow,
        Reshape,
        Cut,
        AddressChange,
        ClockJump,
        OriginOut,
        ControlOut,
        ControlLost,
        LinkBreak,
        Corrupt,
        Rot,
        PeeringCut,
        PeeringLoss,
        PeeringRate,
    ] {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
    }
    assert_eq!(serde_json::from_str::<FaultKind>("\"stop\"").unwrap(), Freeze);
}

#[test]
fn the_simulator_names_what_only_the_lab_can_do() {
    let refused = |rest: &str| parse(rest).unwrap().check_simulable().unwrap_err().to_string();
    assert!(refused(&format!("[network]\nloss_percent = 1\n{OPEN}")).contains("loss of packets"));
    let jump = format!("{OPEN}[[faults]]\nat_s = 1\nkind = \"clock-jump\"\nvalue = 60\n");
    assert!(refused(&jump).contains("clock-jump"));
    assert!(refused(&format!("{OPEN}hostile = \"slanders\"\n")).contains("slanders"));
    assert!(parse(&format!("{OPEN}hostile = \"flips-bits\"\n")).unwrap().check_simulable().is_ok());
    let live = |what: &str, bar: &str| format!("{OPEN}{LIVE}{what}\n[live.bars]\n{bar}\n");
    assert!(parse(&live("", "stalls = 0")).unwrap().check_simulable().is_ok());
    assert!(refused(&live("kill_entry_at_s = 30", "")).contains("in to a cluster"));
    assert!(parse(&live("kill_entry_at_s = 61", "")).is_err());
    for bar in ["lost_pieces = 0", "splits = 1", "merges = 1"] {
        assert!(refused(&live("", bar)).contains("splits and merges"), "{bar}");
    }
}

#[test]
fn uplinks_are_evenly_spread() {
    let s = parse("[[groups]]\ncount = 4\nup_mbit = 2\nup_mbit_to = 50\ndown_mbit = 50\n").unwrap();
    assert_eq!(s.hosts(1).iter().map(|h| h.up_mbit).collect::<Vec<_>>(), [2.0, 18.0, 34.0, 50.0]);
    let half = scaled(&s, |mbit| if mbit < 10.0 { 0.5 } else { 1.0 }, 0.9);
    assert_eq!((half.groups[0].up_mbit, half.groups[0].up_mbit_to), (1.0, Some(50.0)));
    assert_eq!(half.origin_up_mbit, 18.0);
}

#[test]
fn one_by_one_only_the_first_knows_when_it_arrives() {
    let waypoint = "[[groups]]\ncount = 1\nup_mbit = 20\ndown_mbit = 20\nrole = \"waypoint\"\n";
    let s = parse(&format!("arrivals = \"one-by-one\"\nseeded = true\n{waypoint}{OPEN}")).unwrap();
    let hosts = s.hosts(1);
    assert_eq!(hosts.iter().map(|h| h.arrives.is_some()).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(hosts.iter().map(|h| h.receives()).collect::<Vec<_>>(), [false, false, true]);
}

#[test]
fn who_connects() {
    let mut s = parse(&format!("[network]\n{OPEN}")).unwrap();
    let site = |nat| Site { name: format!("{nat:?}"), isp: 1, up_mbit: 1.0, down_mbit: 1.0, nat };
    s.sites = vec![site(SiteNat::Independent), site(SiteNat::Dependent), site(SiteNat::None)];
    let host = |reach, site, role| HostSpec { reach, site, role, ..s.hosts(1)[0].clone() };
    let peer = |reach| host(reach, None, Role::Peer);
    let all =
        [Reach::Open, Reach::Firewall, Reach::IndependentNat, Reach::DialOnly, Reach::DependentNat, Reach::UdpBlocked];
    let matrix = all.map(|a| all.map(|b| u8::from(s.can_connect(&peer(a), &peer(b)))));
    let expected = [
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(matrix, expected);
    let behind = |site, reach| host(reach, Some(site), Role::Peer);
    let accepts = [0, 1, 2].map(|site| s.accepts(&behind(site, Reach::Open)));
    assert_eq!(accepts, [Accepts::Punchable, Accepts::DialOnly, Accepts::Open]);
    // A LAN needs no NAT to be passed, but somebody who listens.
    assert!(s.can_connect(&behind(1, Reach::Open), &behind(1, Reach::Open)));
    assert!(!s.can_connect(&behind(1, Reach::DialOnly), &behind(1, Reach::DialOnly)));
    assert!(!s.can_connect(&behind(0, Reach::Open), &behind(1, Reach::Open)));
    let waypoint = host(Reach::Open, None, Role::Waypoint);
    assert!(s.can_connect(&peer(Reach::ProxyOnly), &waypoint));
    assert!(!s.can_connect(&peer(Reach::ProxyOnly), &host(Reach::Firewall, None, Role::Waypoint)));
    let listed = HostSpec { sources: Sources::Operator, ..peer(Reach::Open) };
    assert!(s.may_send(&listed, &peer(Reach::Open)) && s.may_send(&waypoint, &listed));
    assert!(!s.may_send(&peer(Reach::Open), &listed));
}
