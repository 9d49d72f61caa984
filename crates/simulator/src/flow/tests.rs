//! Stories of single mechanisms, and both models of one world side by side.

use super::net::Net;
use super::origin::{Pipe, slow_start};
use super::pass::look;
use super::stream::Stream;
use super::viewers::{SOURCE, State, Viewer, Viewers, Vx, Who};
use crate::live::{LiveOutcome, run_live};
use crate::scenario::{Fault, FaultKind, Ingest, Live, LiveModel, NetworkSpec, Scenario};
use headwater_model::time::{Micros, Time};
use std::path::Path;

/// Viewers with uplinks of 1 to 6 Mbit/s, as the lab has them.
fn lab(viewers: usize, seconds: f64, change: impl FnOnce(&mut Scenario, &mut Live)) -> Scenario {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../lab/scenarios/live");
    let mut s = Scenario::read(&folder.join("live-24.toml")).unwrap();
    s.arrive_within_s = 20.0;
    s.groups[0].count = viewers;
    let mut live = Live { model: LiveModel::Flow, seconds, ..s.live.unwrap() };
    change(&mut s, &mut live);
    s.live = Some(live);
    s
}

fn sound(scenario: &Scenario, seed: u64) -> LiveOutcome {
    let o = run_live(scenario, seed).unwrap();
    assert!(o.violations.is_empty(), "{o}");
    o
}

/// What the two models say of the same world, and by which part of the packet model's word they may differ.
#[test]
fn both_models_tell_the_same_of_one_world() {
    for (viewers, ingest) in [(24, Ingest::Follow), (60, Ingest::Follow), (60, Ingest::Push)] {
        let world = |model| {
            lab(viewers, 90.0, |_, live| {
                (live.model, live.ingest) = (model, ingest);
            })
        };
        let (flow, packet) = (sound(&world(LiveModel::Flow), 1), sound(&world(LiveModel::Packet), 1));
        let of = |o: &LiveOutcome| {
            [
                ("S/S_min after 60 s", o.source_ratio_later.unwrap(), 0.15),
                ("S/S_min", o.source_ratio, 0.15),
                ("lag p50", o.lag_p50_s, if ingest == Ingest::Push { 0.25 } else { 0.15 }),
                // What newcomers catch up with comes in another order where it comes in small parts.
                ("lag p95", o.lag_p95_s, if ingest == Ingest::Push { 0.45 } else { 0.15 }),
                ("start-up p50", o.start_up_p50_s.unwrap(), 0.2),
                ("start-up p95", o.start_up_p95_s.unwrap(), 0.15),
                ("depth", o.depth_mean, 0.1),
            ]
        };
        for ((what, is, part), (_, should, _)) in of(&flow).into_iter().zip(of(&packet)) {
            assert!((is - should).abs() <= should * part, "{viewers} {ingest:?} {what}: {is}, not {should}");
        }
        assert_eq!((flow.viewers, flow.stalls), (packet.viewers, packet.stalls));
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    // So many that the passes run on several threads.
    let s = lab(4500, 20.0, |s, live| {
        s.faults = vec![Fault { of_share: Some(0.05), ..Fault::at(12.0, 0.0, FaultKind::Death) }];
        (s.arrive_within_s, s.origin_up_mbit) = (8.0, 100_000.0);
        live.sessions = crate::scenario::LiveSessions::Lognormal;
    });
    let json = |seed| serde_json::to_string(&sound(&s, seed)).unwrap();
    assert_eq!(json(1), json(1));
    assert_ne!(json(1), json(2));
}

// ---- lags ----

/// A source and viewers of 8 Mbit/s in a row, each fed by the one before it in all substreams; 50 ms there and back.
struct Row {
    viewers: Viewers,
    net: Net,
    stream: Stream,
}

const UP: u32 = 1_000_000;

impl Row {
    fn new(viewers: u32, up: u32) -> Row {
        let network = NetworkSpec { rtt_inside_ms: 50.0, ..NetworkSpec::default() };
        let live = lab(1, 60.0, |_, _| {}).live.unwrap();
        let mut row = Row { viewers: Viewers::new(), net: Net::new(&network, &[]), stream: Stream::new(&live) };
        for vx in 0..=viewers {
            let slack = Some(Micros::from_secs(5));
            let (state, begin, down) = (State::Watching, Some(0), 100 * UP);
            row.viewers.admit(Viewer { up, down, state, begin, slack, ..Viewer::vacant() });
            for s in (0..super::viewers::LANES).filter(|_| vx > 0) {
                row.viewers.link(Time(1_000_000), s, vx - 1, vx);
                row.viewers.lanes[s].lost[vx as usize] = 1;
                row.viewers.close_gap(s, vx, Time(2000));
            }
        }
        row
    }

    /// Lags of the first pieces of a segment, in milliseconds.
    fn looks(&mut self, segment: u64) -> Vec<u32> {
        look(&mut self.viewers, &self.net, &self.stream, segment, Some(1e9));
        self.viewers.lanes[0].lag.iter().skip(1).take(self.viewers.all.len() - 1).map(|l| l / 1000).collect()
    }

    fn longest_ms(&mut self, segment: u64) -> Vec<u64> {
        let before: Vec<Viewer> = self.viewers.all.clone();
        look(&mut self.viewers, &self.net, &self.stream, segment, Some(1e9));
        let step = |v: &Viewer, old: &Viewer| v.lags.iter().zip(&old.lags).rposition(|(new, old)| new > old);
        let steps =
            self.viewers.all.iter().zip(&before).skip(1).map(|(v, old)| step(v, old).unwrap_or_default() as u64);
        steps.map(|s| s * 100).collect()
    }
}

#[test]
fn a_row_of_three_adds_up() {
    let mut row = Row::new(3, UP);
    // One way of 25 ms, and its turn among eight pieces of 8.3 ms each, of which the first one in line has to wait for one.
    let lags = row.looks(10);
    let hops: Vec<u32> = std::iter::once(lags[0]).chain(lags.windows(2).map(|w| w[1] - w[0])).collect();
    assert!(hops.iter().all(|hop| (33..=93).contains(hop)), "{hops:?}");
    // Eight pieces of each of eight substreams take half a second of its uplink, however long the row is.
    let spacing: Vec<u32> = row.viewers.lanes[0].spacing.iter().skip(1).take(3).map(|s| s / 1000).collect();
    assert_eq!(spacing, [66, 66, 66]);
    assert_eq!(row.viewers.lanes[0].depth[..4], [0, 1, 2, 3]);
}

#[test]
fn what_a_gap_held_up_comes_when_it_ends_and_so_below() {
    let mut row = Row::new(3, UP);
    let published = row.stream.published(10);
    let quiet = row.longest_ms(9);
    assert!(quiet.iter().all(|ms| *ms <= 800), "{quiet:?}");
    // The first of them is lost for 1.5 s when the segment is published.
    for s in 0..super::viewers::LANES {
        row.viewers.open_gap(s, 1, published);
        row.viewers.close_gap(s, 1, published + Micros::from_millis(1500));
    }
    let held = row.longest_ms(10);
    assert!(held.iter().all(|ms| (1500..=2400).contains(ms)), "{held:?}");
    assert!(row.viewers.all.iter().all(|v| v.stalls == 0));
    // Nobody pushes: the origin does in time, 600 ms before a picture is needed.
    for s in 0..super::viewers::LANES {
        row.viewers.open_gap(s, 1, row.stream.published(11));
    }
    assert!(row.longest_ms(11)[0] >= 4400);
    assert!(row.viewers.all.iter().all(|v| v.stalls == 0));
}

#[test]
fn who_has_too_little_uplink_is_later_each_time() {
    // 1.6 Mbit/s for a stream of 2.
    let mut row = Row::new(1, UP / 5);
    row.viewers.all[SOURCE as usize].up = UP / 5;
    let lags: Vec<u32> = (10..14).map(|segment| row.looks(segment)[0]).collect();
    assert!(lags.windows(2).all(|w| w[1] > w[0] + 300), "{lags:?}");
}

// ---- the origin ----

#[test]
fn an_origin_is_shared_evenly() {
    let who = |vx: Vx| Who { vx, number: vx };
    // When who asks for how much of a line of 1 MB/s, and when each has it, in milliseconds.
    for (asks, ends) in [
        (vec![(0, 1_000_000)], vec![1000]),
        (vec![(0, 100_000); 10], vec![1000; 10]),
        (vec![(0, 1_000_000), (500, 250_000)], vec![1250, 1000]),
        (vec![(0, 500_000), (2000, 500_000)], vec![500, 2500]),
    ] {
        let mut pipe = Pipe::new(1e6);
        let mut done = vec![0; asks.len()];
        let mut asked = asks.iter().enumerate().peekable();
        loop {
            let next = pipe.next_at();
            match asked.peek() {
                Some((vx, (at, bytes))) if next.is_none_or(|n| n > Time(at * 1000)) => {
                    pipe.fetch(Time(at * 1000), who(*vx as Vx), *bytes);
                    asked.next();
                }
                _ => {
                    let Some(at) = next else { break };
                    if let Some(who) = pipe.pop(at) {
                        done[who.vx as usize] = (at.0 + 500) / 1000;
                    }
                }
            }
        }
        assert_eq!(done, ends, "{asks:?}");
    }
}

#[test]
fn a_far_fetch_takes_round_trips() {
    let way = Micros::from_millis(25);
    // A piece: handshake, question, answer. A segment: 1, 3, 7, 14, 28 and 9 pieces.
    assert_eq!(slow_start(way, 8192, 1e12), way.times(4));
    assert_eq!(slow_start(way, 62 * 8192, 1e12), way.times(14));
}

// ---- what goes wrong ----

#[test]
fn children_of_who_dies_go_on() {
    let o = sound(&lab(60, 90.0, |_, live| live.kill_parent_every_s = Some(5.0)), 1);
    assert!(o.killed >= 8 && o.alarms > 0 && o.fed_again as usize >= o.killed, "{o}");
    let (p50, p99) = (o.fed_again_p50_s.unwrap(), o.fed_again_p99_s.unwrap());
    assert!((0.55..=0.85).contains(&p50) && p99 <= 1.5, "{o}");
    assert_eq!((o.viewers, o.stalls), (60 - o.killed, 0), "{o}");
}

#[test]
fn a_share_of_all_dies_at_once() {
    let die = |share| {
        let death = Fault { of_share: Some(share), ..Fault::at(40.0, 0.0, FaultKind::Death) };
        sound(&lab(100, 60.0, |s, _| s.faults = vec![death]), 1)
    };
    let (none, tenth, quarter) = (die(0.0), die(0.1), die(0.25));
    assert_eq!([none.killed, tenth.killed, quarter.killed], [0, 10, 25]);
    assert_eq!([none.viewers, tenth.viewers, quarter.viewers], [100, 90, 75]);
    assert!(none.fed_again < tenth.fed_again && tenth.fed_again < quarter.fed_again, "{quarter}");
    // Some are sent to another one that died, which takes a dial to find out.
    assert!(quarter.fed_again_p99_s.unwrap() <= 6.0, "{quarter}");
}

#[test]
fn children_of_who_is_slow_say_so() {
    let slow = Fault { value: 5.0, count: 5, ..Fault::at(30.0, 20.0, FaultKind::Slow) };
    let with = sound(&lab(60, 60.0, |s, _| s.faults = vec![slow]), 1);
    let without = sound(&lab(60, 60.0, |_, _| {}), 1);
    assert!(without.alarms == 0 && with.alarms >= 5, "{without}{with}");
    assert!(with.assignments > without.assignments && with.stalls == 0, "{with}");
}

#[test]
fn without_an_origin_newcomers_wait() {
    let out = Fault::at(0.0, 15.0, FaultKind::OriginOut);
    let o = sound(&lab(20, 40.0, |s, _| s.faults = vec![out]), 1);
    let usual = sound(&lab(20, 40.0, |_, _| {}), 1);
    assert!(o.start_up_p95_s.unwrap() > usual.start_up_p95_s.unwrap() + 5.0, "{o}");
}

#[test]
fn what_flows_do_not_have_is_refused() {
    let frozen = lab(5, 20.0, |s, _| s.faults = vec![Fault::at(1.0, 1.0, FaultKind::Freeze)]);
    assert!(run_live(&frozen, 1).unwrap_err().to_string().contains("the fault freeze"));
    let packets = lab(5, 20.0, |s, live| {
        s.faults = vec![Fault { of_share: Some(0.5), ..Fault::at(1.0, 1.0, FaultKind::Death) }];
        live.model = LiveModel::Packet;
    });
    assert!(run_live(&packets, 1).unwrap_err().to_string().contains("model = \"flow\""));
}
