//! Small worlds in which others decide, checked after every step.

use super::Baseline;
use crate::scenario::{Checks, Group, LiveSessions, NetworkSpec, Scenario};
use crate::{LiveOutcome, Outcome, run_by, run_live_by};
use std::path::Path;

fn read(path: &str) -> Scenario {
    Scenario::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
}

/// 16 MiB for 24 hosts of two ISPs; the origin is in the first.
fn file() -> Scenario {
    // The link between the two ISPs holds nobody back.
    let network = NetworkSpec { origin_isp: 1, peering_mbit: 1e5, ..NetworkSpec::default() };
    let group = |isp| Group { isp, name: Some(format!("isp{isp}")), ..Group::new(12, 20.0, 80.0) };
    Scenario {
        content_bytes: 16 << 20,
        network: Some(network),
        groups: vec![group(1), group(2)],
        checks: Checks::EveryStep,
        bars: Default::default(),
        ..read("scenarios/file-16-equal.toml")
    }
}

fn fetched(baseline: Option<Baseline>, scenario: &Scenario) -> Outcome {
    let outcome = run_by(baseline, scenario, 1, |_| {}).unwrap();
    assert!(outcome.violations.is_empty(), "{:#?}\n{outcome}", outcome.violations);
    assert_eq!(outcome.complete, outcome.nodes, "{outcome}");
    outcome
}

/// 24 viewers with ample uplinks in two ISPs.
fn stream() -> Scenario {
    let mut s = read("lab/scenarios/live/live-24.toml");
    (s.checks, s.arrive_within_s) = (Checks::EveryStep, 5.0);
    let group = |isp| Group { isp, name: Some(format!("isp{isp}")), ..Group::new(12, 6.0, 20.0) };
    s.groups = vec![group(1), group(2)];
    s.live.as_mut().unwrap().seconds = 80.0;
    s
}

fn watched(baseline: Baseline, scenario: &Scenario) -> LiveOutcome {
    let outcome = run_live_by(Some(baseline), scenario, 1, |_| {}).unwrap();
    assert!(outcome.violations.is_empty(), "{:#?}\n{outcome}", outcome.violations);
    assert_eq!(outcome.baseline.as_deref(), Some(baseline.name()));
    outcome
}

#[test]
fn without_peers_each_host_costs_a_copy() {
    let o = fetched(Some(Baseline::ClientServer), &file());
    assert!((24.0..24.2).contains(&o.origin_copies), "{o}");
    assert_eq!(o.peer_bytes, 0);
    // 24 copies of 16 MiB over the origin's line, and hardly more.
    let line_s = 24.0 * f64::from(16 << 20) * 8.0 / (file().origin_up_mbit * 1e6);
    assert!(o.makespan_s.is_some_and(|s| s >= line_s && s < 1.1 * line_s), "{line_s} s\n{o}");
}

#[test]
fn a_tracker_costs_fewer_copies_and_locality_fewer_that_cross() {
    let random = fetched(Some(Baseline::Random), &file());
    assert!(random.origin_copies < 6.0 && random.peer_bytes > 16 * (16 << 20), "{random}");
    // Among so few all are neighbours: who is near matters where there are more.
    let mut many = Scenario { checks: Checks::AtTheEnd, ..file() };
    many.groups.iter_mut().for_each(|g| g.count = 100);
    let copies_into_isp = |baseline| fetched(baseline, &many).copies_into_isp.unwrap();
    let random = copies_into_isp(Some(Baseline::Random));
    let local = copies_into_isp(Some(Baseline::Locality));
    let own = copies_into_isp(None);
    assert!(
        local < 0.8 * random && own < local,
        "{random} copies entered, {local} with locality, {own} with Headwater"
    );
}

#[test]
fn of_a_stream_the_source_sends_all_or_less() {
    let alone = watched(Baseline::ClientServer, &stream());
    assert!(alone.copies_later.is_some_and(|c| (23.5..24.5).contains(&c)), "{alone}");
    for baseline in [Baseline::Random, Baseline::Locality, Baseline::Forest] {
        let o = watched(baseline, &stream());
        // Among so few the source is drawn often.
        assert!(o.copies_later.is_some_and(|c| c < 18.0), "{o}");
        assert!(o.continuity > 0.99 && o.unfed_mean < 1.0 && o.never_started == 0, "{o}");
    }
}

#[test]
fn parents_that_leave_are_replaced() {
    let mut scenario = stream();
    let live = scenario.live.as_mut().unwrap();
    (live.sessions, live.kill_parent_every_s) = (LiveSessions::Lognormal, Some(15.0));
    for baseline in [Baseline::Random, Baseline::Forest] {
        let o = watched(baseline, &scenario);
        assert!(o.newcomers > 0 && o.killed > 0 && o.fed_again > 0, "{o}");
        assert!(o.continuity > 0.9, "{o}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |scenario: &Scenario| run_by(Some(Baseline::Locality), scenario, 3, |_| {}).unwrap();
    assert_eq!(run(&file()), run(&file()));
    assert_eq!(watched(Baseline::Forest, &stream()), watched(Baseline::Forest, &stream()));
}

#[test]
fn what_has_no_meaning_is_refused() {
    let why = |baseline, scenario: &Scenario| run_by(Some(baseline), scenario, 1, |_| {}).unwrap_err().to_string();
    assert!(why(Baseline::Forest, &file()).contains("a forest is for streams"));
    let one = Scenario { groups: vec![Group::new(4, 5.0, 5.0)], ..file() };
    let unknown = Scenario { network: None, ..file() };
    for scenario in [one, unknown] {
        assert!(why(Baseline::Locality, &scenario).contains("all hosts are in one ISP"));
    }
    assert!(why(Baseline::Random, &read("scenarios/several-contents.toml")).contains("one content"));
    assert!("trees".parse::<Baseline>().unwrap_err().contains("client-server, random, locality, forest"));
    assert!(Baseline::ALL.iter().all(|b| b.name().parse() == Ok(*b)));
}
