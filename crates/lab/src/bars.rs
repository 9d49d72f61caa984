//! Judging a run by its scenario's bars. Everything that a bar names is measured; what is missing fails, with a reason.

use headwater_simulator::scenario::{Arrivals, Scenario};

use crate::outcome::{Bar, BystanderOutcome, HostOutcome, HostileOutcome, Outcome};

/// Most memory that the control center may have used under a flood.
const FLOODED_RSS_BYTES_MAX: u64 = 512 << 20;
/// Most of a core that it may have used under a flood, over the whole run.
const FLOODED_CPU_MAX: f64 = 1.0;

/// The bars of `scenario`, met or not by what was measured.
pub fn judge(scenario: &Scenario, seen: &Outcome) -> Vec<Bar> {
    let bars = &scenario.bars;
    let mut judged = Vec::new();
    let receivers = || seen.hosts.iter().filter(|h| h.role == "peer" && h.hostile.is_none());
    if bars.all_complete {
        judged.push(all_complete(receivers()));
    }
    let ratio = seen.makespan_s.zip(seen.bound_s).map(|(makespan, bound)| makespan / bound);
    let without = if seen.bound_s.is_none() { "no bound is known" } else { "not all have everything" };
    let origin_isp = scenario.network.unwrap_or_default().origin_isp;
    let most = |flows: Vec<(f64, String)>| flows.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
    let mut isps: Vec<u16> = seen.hosts.iter().map(|h| h.isp).filter(|isp| *isp != origin_isp).collect();
    isps.dedup();
    let into = |isp: u16| seen.isps.iter().filter(|f| f.to == isp).map(|f| f.copies).sum::<f64>();
    let into_isps = most(isps.iter().map(|isp| (into(*isp), format!("into ISP {isp}"))).collect());
    let out_of = |isp: u16| seen.isps.iter().filter(|f| f.from == isp).map(|f| f.copies).sum::<f64>();
    let out_of_isps = most(isps.iter().map(|isp| (out_of(*isp), format!("out of ISP {isp}"))).collect());
    let into_sites = most(seen.sites.iter().map(|s| (s.copies_in, format!("into {}", s.name))).collect());
    let waits = receivers().filter(|h| !h.excused).map(|h| (h.longest_wait_s, h.name.clone()));
    let user =
        |of: fn(&BystanderOutcome) -> Option<f64>| seen.bystander.as_ref().and_then(of).map(|v| (v, String::new()));
    let few = "too few of the user's own packets while the host served, or while it did not";
    let limits = [
        ("makespan_ratio", bars.makespan_ratio, ratio.map(|r| (r, String::new())), without),
        ("origin_copies", bars.origin_copies, Some((seen.origin.copies, String::new())), ""),
        ("copies_into_isp", bars.copies_into_isp, into_isps, "there is only the origin's ISP"),
        ("copies_out_of_isp", bars.copies_out_of_isp, out_of_isps, "there is only the origin's ISP"),
        ("copies_back", bars.copies_back, Some((into(origin_isp), String::new())), ""),
        ("copies_into_site", bars.copies_into_site, into_sites, "there is no site"),
        (
            "dial_only_pairs",
            bars.dial_only_pairs.map(|n| n as f64),
            seen.control.unreachable_pairs.map(|n| (n as f64, String::new())),
            "the control center told no count",
        ),
        ("longest_wait_s", bars.longest_wait_s, most(waits.collect()), "nobody received"),
        (
            "sessions_back_s",
            bars.sessions_back_s,
            seen.control.sessions_back_s.map(|s| (s, String::new())),
            "not all sessions came back, or the control center was never away",
        ),
        (
            "congested_named_s",
            bars.congested_named_s,
            seen.control.congested_named_s.map(|s| (s, String::new())),
            "no pair across was named",
        ),
        ("ping_rise_ms", bars.ping_rise_ms, user(|b| b.ping_rise_p95_ms), few),
        ("call_loss_percent", bars.call_loss_percent, user(|b| b.call_loss_percent), few),
        ("call_rise_ms", bars.call_rise_ms, user(|b| b.call_rise_p95_ms), few),
        (
            "honest_banned",
            bars.honest_banned.map(|n| n as f64),
            seen.control.honest_banned.map(|n| (n as f64, String::new())),
            "the API does not tell who is banned",
        ),
    ];
    for (name, bound, value, missing) in limits {
        judged.extend(bound.map(|bound| at_most(name, bound, value, missing)));
    }
    if bars.types_match == Some(true) {
        judged.push(types_match(seen));
    }
    if let Some(bound) = bars.late_share_of_down {
        judged.push(late_share(bound, scenario, receivers()));
    }
    if let Some(bound) = bars.spare_share {
        judged.push(at_least("spare_share", bound, user(|b| b.spare_share).map(|(share, _)| share)));
    }
    if let Some(bound) = bars.left_within_s {
        judged.extend(left_within(bound, seen));
        let again = seen.hostile.iter().map(|h| (h.assigned_again as f64, h.name.clone())).collect();
        judged.push(at_most("assigned_again", 0.0, most(again), "there are no liars"));
        let unnoted: Vec<&str> =
            seen.hostile.iter().filter(|h| h.harmed > 0 && !h.in_history).map(|h| h.name.as_str()).collect();
        let value = (unnoted.len() as f64, unnoted.join(", "));
        judged.push(at_most("liars_not_in_history", 0.0, Some(value), ""));
    }
    let lies = |kind: &str| seen.hostile.iter().any(|h| h.kind == kind);
    if lies("names-victim") {
        let senders: Vec<String> = seen.victim_packets.iter().map(|p| p.from.to_string()).collect();
        judged.push(at_most("victim_senders", 1.0, Some((senders.len() as f64, senders.join(", "))), ""));
    }
    if lies("floods-control") {
        let control = &seen.control;
        let memory = Some((control.peak_rss_bytes as f64, String::new()));
        judged.push(at_most("control_rss_bytes", FLOODED_RSS_BYTES_MAX as f64, memory, ""));
        let share = Some((control.cpu_s / seen.duration_s.max(1.0), String::new()));
        judged.push(at_most("control_cpu_cores", FLOODED_CPU_MAX, share, ""));
    }
    judged
}

pub(crate) fn at_most(name: &str, bound: f64, value: Option<(f64, String)>, missing: &str) -> Bar {
    let note = value.as_ref().map_or(missing, |(_, note)| note).to_owned();
    let value = value.map(|(value, _)| value);
    let ratio = value.filter(|_| bound > 0.0).map(|value| value / bound);
    Bar { name: name.into(), value, bound, ratio, pass: value.is_some_and(|value| value <= bound), note }
}

/// A bar that `value` must reach; one that was not measured fails.
pub fn at_least(name: &str, bound: f64, value: Option<f64>) -> Bar {
    let ratio = value.filter(|_| bound > 0.0).map(|value| value / bound);
    let pass = value.is_some_and(|value| value >= bound);
    let note = if value.is_none() { "not measured" } else { "" };
    Bar { name: name.into(), value, bound, ratio, pass, note: note.into() }
}

fn all_complete<'a>(receivers: impl Iterator<Item = &'a HostOutcome>) -> Bar {
    let (mut all, mut right, mut failed) = (0, 0, Vec::new());
    for host in receivers {
        if host.hash_right == Some(false) && host.finished_s.is_some() {
            failed.push(format!("{} has wrong bytes", host.name));
        } else if host.finished_s.is_some() && host.hash_right == Some(true) {
            right += 1;
        } else if !host.excused {
            let why = host.error.as_deref().map_or(String::new(), |error| format!(": {error}"));
            failed.push(format!("{} has {} bytes{why}", host.name, host.have_bytes));
        } else {
            continue;
        }
        all += 1;
    }
    let (value, bound) = (f64::from(right), f64::from(all));
    let pass = failed.is_empty() && all > 0;
    Bar {
        name: "all_complete".into(),
        value: Some(value),
        bound,
        ratio: Some(value / bound.max(1.0)),
        pass,
        note: failed.join("; "),
    }
}

fn types_match(seen: &Outcome) -> Bar {
    let honest = seen.hosts.iter().filter(|h| h.hostile.is_none() && h.started_s.is_some());
    let wrong: Vec<String> = honest
        .filter_map(|h| {
            let found = h.accepts.as_deref().unwrap_or("nothing");
            let from = h.accepts_from.as_deref().unwrap_or("nowhere");
            // What a node refuses by its own configuration, and what an operator says, needs no test.
            let tested = from == "test" || h.reach == "dial-only" || h.role == "waypoint";
            let right = found == h.accepts_expected && tested;
            (!right).then(|| format!("{} is {}, found {found} by {from}", h.name, h.accepts_expected))
        })
        .collect();
    at_most("types_match", 0.0, Some((wrong.len() as f64, wrong.join("; "))), "")
}

/// Least goodput of a receiver that came after the first, over its downlink.
fn late_share<'a>(bound: f64, scenario: &Scenario, receivers: impl Iterator<Item = &'a HostOutcome>) -> Bar {
    let name = "late_share_of_down";
    let failed = |note: &str| Bar { name: name.into(), bound, note: note.into(), ..Bar::default() };
    if scenario.arrivals != Arrivals::OneByOne {
        return failed("receivers do not arrive one by one");
    }
    let mut least: Option<(f64, &str)> = None;
    for host in receivers.skip(1) {
        let Some(goodput) = host.goodput_bytes_per_s else { return failed(&format!("{} did not finish", host.name)) };
        let share = goodput / host.down_goodput_bytes_per_s;
        if least.is_none_or(|(before, _)| share < before) {
            least = Some((share, &host.name));
        }
    }
    let Some((value, host)) = least else { return failed("nobody came late") };
    let (ratio, pass) = (Some(value / bound), value >= bound);
    Bar { name: name.into(), value: Some(value), bound, ratio, pass, note: host.into() }
}

/// The kind of liar that is hard to tell from an honest peer with little uplink.
const SLOW: &str = "trickles";

/// How long it took until all children had left: who trickles may be kept twice as long, a bar of its own.
fn left_within(bound: f64, seen: &Outcome) -> Vec<Bar> {
    let is_slow = |h: &&HostileOutcome| h.kind == SLOW;
    let (slow, others): (Vec<&HostileOutcome>, Vec<&HostileOutcome>) = seen.hostile.iter().partition(is_slow);
    let mut bars = Vec::new();
    if !others.is_empty() || slow.is_empty() {
        bars.push(all_left("left_within_s", bound, &others));
    }
    if !slow.is_empty() {
        bars.push(all_left("slow_left_within_s", 2.0 * bound, &slow));
    }
    bars
}

fn all_left(name: &str, bound: f64, liars: &[&HostileOutcome]) -> Bar {
    let kept: Vec<&str> = liars.iter().filter(|h| h.left < h.harmed).map(|h| h.name.as_str()).collect();
    if !kept.is_empty() {
        return at_most(name, bound, None, &format!("not left by all that they harmed: {}", kept.join(", ")));
    }
    let longest = liars.iter().filter_map(|h| Some((h.longest_until_left_s?, h.name.clone())));
    at_most(name, bound, longest.max_by(|a, b| a.0.total_cmp(&b.0)), "no liar told of any harm")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::IspFlow;

    fn scenario(bars: &str) -> Scenario {
        let text = format!(
            "name = \"t\"\ncontent_bytes = 1000\npiece_bytes = 65536\norigin_up_mbit = 20\n[network]\n\
             [[groups]]\ncount = 2\nup_mbit = 20\ndown_mbit = 20\n[bars]\n{bars}"
        );
        toml::from_str(&text).unwrap()
    }

    fn host(name: &str, isp: u16) -> HostOutcome {
        HostOutcome {
            name: name.into(),
            isp,
            role: "peer".into(),
            started_s: Some(0.0),
            finished_s: Some(9.0),
            hash_right: Some(true),
            ..HostOutcome::default()
        }
    }

    fn judged(bars: &str, seen: &Outcome) -> Vec<(String, bool, Option<f64>)> {
        judge(&scenario(bars), seen).into_iter().map(|b| (b.name, b.pass, b.value)).collect()
    }

    #[test]
    fn only_what_is_right_is_complete() {
        let mut seen = Outcome { hosts: vec![host("a", 1), host("b", 1)], ..Outcome::default() };
        assert_eq!(judged("", &seen), [("all_complete".into(), true, Some(2.0))]);
        seen.hosts[1].hash_right = Some(false);
        assert!(!judged("", &seen)[0].1);
        seen.hosts[1] = HostOutcome { finished_s: None, hash_right: None, excused: true, ..host("b", 1) };
        assert!(judged("", &seen)[0].1);
        seen.hosts[1].excused = false;
        assert!(!judged("", &seen)[0].1);
        assert!(!judged("", &Outcome::default())[0].1);
    }

    #[test]
    fn what_is_missing_fails() {
        let seen = Outcome { hosts: vec![host("a", 1)], ..Outcome::default() };
        let bars =
            "makespan_ratio = 1.2\nhonest_banned = 0\nleft_within_s = 3\nsessions_back_s = 5\nall_complete = false";
        for bar in judge(&scenario(bars), &seen) {
            let missing_is_fine = bar.name == "liars_not_in_history";
            assert!(missing_is_fine || (!bar.pass && !bar.note.is_empty()), "{bar:?}");
        }
    }

    #[test]
    fn copies_are_summed_by_direction() {
        let flow = |from, to, copies| IspFlow { from, to, wire_bytes: 0, copies };
        let isps = vec![flow(1, 2, 1.5), flow(3, 2, 0.25), flow(2, 1, 0.5), flow(3, 1, 0.25)];
        let seen = Outcome { hosts: vec![host("a", 2), host("b", 3)], isps, ..Outcome::default() };
        let bars = "copies_into_isp = 1.7\ncopies_back = 0.75\nall_complete = false";
        let expected = [("copies_into_isp".into(), false, Some(1.75)), ("copies_back".into(), true, Some(0.75))];
        assert_eq!(judged(bars, &seen), expected);
    }

    #[test]
    fn liars_must_be_left_by_all_that_they_harmed() {
        let liar = |harmed, left| HostileOutcome {
            harmed,
            left,
            in_history: true,
            longest_until_left_s: (harmed == left).then_some(2.0),
            ..HostileOutcome::default()
        };
        let mut seen = Outcome { hostile: vec![liar(3, 3)], ..Outcome::default() };
        let bars = "left_within_s = 3\nall_complete = false";
        assert!(judged(bars, &seen).iter().all(|b| b.1));
        seen.hostile.push(HostileOutcome { kind: SLOW.into(), longest_until_left_s: Some(5.5), ..liar(2, 2) });
        let both = judged(bars, &seen);
        assert_eq!((both[0].1, both[1].0.as_str(), both[1].1), (true, "slow_left_within_s", true));
        seen.hostile.push(HostileOutcome { longest_until_left_s: Some(5.5), ..liar(2, 2) });
        assert!(!judged(bars, &seen)[0].1);
        seen.hostile.pop();
        seen.hostile.push(liar(3, 2));
        assert!(!judged(bars, &seen)[0].1);
    }

    #[test]
    fn types_must_be_found_by_test() {
        let found = |accepts: &str, from: &str, expected: &str| HostOutcome {
            accepts: Some(accepts.into()),
            accepts_from: Some(from.into()),
            accepts_expected: expected.into(),
            ..host("a", 1)
        };
        let check = |host: HostOutcome| {
            let seen = Outcome { hosts: vec![host], ..Outcome::default() };
            judged("types_match = true\nall_complete = false", &seen)[0].1
        };
        assert!(check(found("open", "test", "open")));
        assert!(!check(found("open", "claim", "open")));
        assert!(!check(found("punchable", "test", "dial-only")));
        assert!(!check(HostOutcome { accepts_expected: "open".into(), ..host("a", 1) }));
    }
}
