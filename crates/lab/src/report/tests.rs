//! A made-up run on a page. `HEADWATER_LAB_PAGE=FILE` keeps the page, to be looked at.

use super::*;
use crate::outcome::{
    Bar, CalibratedRate, EventMark, FaultMark, HostSeries, HostileOutcome, IspFlow, OriginOutcome, PunchCount, SiteFlow,
};

const STEP_S: f64 = 0.25;
const HOSTS: usize = 16;

fn made_up() -> Outcome {
    let content_bytes = 100_000_000u64;
    let at_s: Vec<f64> = (0..240).map(|i| f64::from(i) * STEP_S).collect();
    let grown = |rate: &dyn Fn(f64) -> f64, most: u64| -> Vec<u64> {
        let mut sum = 0.0;
        let add = |t: &f64| {
            sum += rate(*t) * 125_000.0 * STEP_S;
            (sum as u64).min(most)
        };
        at_s.iter().map(add).collect()
    };
    let dip = |t: f64| if (25.0..40.0).contains(&t) { 0.4 } else { 1.0 };
    let host = |i: usize| HostOutcome {
        name: format!("{}-{}", if i.is_multiple_of(2) { "near" } else { "far" }, i / 2 + 1),
        isp: 1 + (i % 2) as u16,
        up_mbit: 20.0,
        down_mbit: 20.0,
        reach: ["open", "independent-nat", "dial-only"][i % 3].into(),
        role: "peer".into(),
        hostile: (i == 15).then(|| "flips-bits".into()),
        accepts: Some(["open", "punchable", "dial-only"][i % 3].into()),
        accepts_from: Some("test".into()),
        accepts_expected: ["open", "punchable", "dial-only"][i % 3].into(),
        started_s: Some(0.0),
        finished_s: (i != 15).then_some(48.0 + i as f64 * 0.4),
        hash_right: Some(true),
        have_bytes: content_bytes,
        peer_bytes: 92_000_000,
        origin_bytes: 8_000_000,
        uploaded_bytes: 93_000_000 + i as u64 * 100_000,
        goodput_bytes_per_s: Some(2.1e6),
        longest_wait_s: 0.4,
        cpu_s: 1.2,
        peak_rss_bytes: 61_000_000,
        notes: if i == 3 { vec!["says <b>this</b> & \"that\"".into()] } else { Vec::new() },
        ..HostOutcome::default()
    };
    let series = |i: usize| HostSeries {
        have_bytes: grown(&|t| (15.5 + i as f64 * 0.13) * dip(t), content_bytes),
        wire_up_bytes: grown(&|t| if t > 50.0 { 2.0 } else { 19.0 * dip(t) - (i % 5) as f64 }, u64::MAX),
        wire_down_bytes: grown(&|t| 19.0 * dip(t), u64::MAX),
    };
    let far = |from, to, rate: f64| IspSeries {
        from,
        to,
        wire_bytes: grown(
            &|t| if (25.0..40.0).contains(&t) { 0.0 } else { rate * (1.0 + (t / 3.0).sin() / 4.0) },
            u64::MAX,
        ),
    };
    let bar = |name: &str, value: Option<f64>, bound: f64| Bar {
        name: name.into(),
        value,
        bound,
        ratio: value.map(|v| v / bound),
        pass: value.is_some_and(|v| v <= bound),
        note: if value.is_none() { "the API told no history".into() } else { String::new() },
    };
    Outcome {
        scenario: "made-up <i>".into(),
        about: "16 hosts in 2 ISPs, and the peering link is cut for 15 s; all of this is invented for a test.".into(),
        system: "headwater".into(),
        seed: 7,
        bars: vec![
            bar("makespan_ratio", Some(1.18), 1.25),
            bar("origin_copies", Some(1.21), 1.15),
            bar("honest_banned", None, 0.0),
        ],
        content_bytes,
        duration_s: 61.0,
        makespan_s: Some(54.0),
        bound_s: Some(45.8),
        calibrated: ["quic", "http"]
            .map(|by| CalibratedRate {
                line_mbit: 20.0,
                goodput_bytes_per_s: 2.31e6,
                wire_per_payload: 1.07,
                measured: true,
                by: by.into(),
            })
            .to_vec(),
        hosts: (0..HOSTS).map(host).collect(),
        origin: OriginOutcome { copies: 1.21, ..OriginOutcome::default() },
        isps: [(1, 2, 1.4), (2, 1, 0.5)]
            .map(|(from, to, copies)| IspFlow { from, to, wire_bytes: 150_000_000, copies })
            .to_vec(),
        sites: vec![SiteFlow {
            name: "office".into(),
            wire_in_bytes: 107_000_000,
            copies_in: 1.0,
            ..SiteFlow::default()
        }],
        punched: vec![PunchCount {
            a: "independent-nat".into(),
            b: "independent-nat".into(),
            attempted: 12,
            connected: 12,
        }],
        hostile: vec![HostileOutcome {
            name: "far-8".into(),
            kind: "flips-bits".into(),
            harmed: 3,
            left: 3,
            longest_until_left_s: Some(0.7),
            in_history: true,
            ..HostileOutcome::default()
        }],
        simulator: Some(SimulatorOutcome {
            makespan_s: Some(51.0),
            origin_copies: 1.0,
            copies_into_isp: Some(1.2),
            makespan_difference_percent: Some(5.9),
            origin_difference_percent: Some(21.0),
            agrees: false,
            note: String::new(),
        }),
        faults: vec![
            FaultMark { at_s: 12.0, until_s: None, what: "near-2 and far-3 are killed".into() },
            FaultMark { at_s: 25.0, until_s: Some(40.0), what: "the peering link is cut".into() },
            FaultMark { at_s: 27.0, until_s: Some(30.0), what: "near-1 stops".into() },
        ],
        events: (0..30).map(|i| EventMark { at_s: f64::from(i), text: format!("near-{i}: joined <swarm>") }).collect(),
        forwarder_cpu_s: 14.2,
        series: crate::outcome::Series {
            hosts: (0..HOSTS).map(series).collect(),
            origin_wire_up_bytes: grown(&|t| if t < 45.0 { 19.5 } else { 0.5 }, u64::MAX),
            isps: vec![far(1, 2, 28.0), far(2, 1, 11.0)],
            from_origin_bytes: grown(&|t| if t < 45.0 { 18.0 } else { 0.0 }, u64::MAX),
            from_waypoint_bytes: grown(&|t| if t < 30.0 { 9.0 } else { 20.0 }, u64::MAX),
            from_peer_bytes: grown(&|t| if t < 50.0 { 230.0 * dip(t) } else { 20.0 }, u64::MAX),
            at_s,
            ..crate::outcome::Series::default()
        },
        ..Outcome::default()
    }
}

#[test]
fn a_page_shows_everything_and_nothing_becomes_markup() {
    let mut good = made_up();
    good.scenario = "made-up-good".into();
    good.pass = true;
    let html = page(&[made_up(), good]);
    if let Some(file) = std::env::var_os("HEADWATER_LAB_PAGE") {
        std::fs::write(file, &html).unwrap();
    }
    for text in [
        "made-up &lt;i&gt;",
        "says &lt;b&gt;this&lt;/b&gt; &amp; &quot;that&quot;",
        "the peering link is cut",
        "flips-bits",
    ] {
        assert!(html.contains(text), "no {text:?}");
    }
    for outside in ["<script", "<link", "<img", "src=", "url(", "href=\"http"] {
        assert!(!html.contains(outside), "the page needs something else: {outside}");
    }
    assert_eq!(html.matches("<svg").count(), 8, "four plots for each of two runs");
    for tag in ["section", "table", "svg", "details", "div", "tr", "polyline", "polygon"] {
        let (opened, closed) = (html.matches(&format!("<{tag}")).count(), html.matches(&format!("</{tag}>")).count());
        assert!(opened == closed, "{tag}: {opened} opened, {closed} closed");
    }
}

#[test]
fn an_empty_run_has_a_page() {
    assert!(page(&[Outcome::default()]).contains("Headwater lab"));
    assert!(page(&[]).ends_with("</html>\n"));
}
