//! Live streams: a real encoder, a publisher, viewers with probes, and real faults.

use crate::gateway::ask;
use crate::play::{Encoder, encode, none_of, probe, until};
use crate::site::{Process, Site, check};
use serde_json::Value;
use std::fs;

/// Segments of a second, until the test is over.
pub fn channel(site: &Site, kind: &str) -> Option<Encoder> {
    let live = ["-hls_segment_type", kind, "-hls_list_size", "8", "-hls_flags", "program_date_time+delete_segments"];
    let encoder = encode(site, true, "300", &live)?;
    let index = site.path("www/live/index.m3u8");
    until("four segments", || fs::read_to_string(&index).is_ok_and(|t| t.matches("#EXTINF").count() > 3));
    Some(encoder)
}

fn viewers(site: &Site, count: usize, up: &str) -> Vec<Process> {
    let peers: Vec<Process> =
        (0..count).map(|n| site.peer(&format!("viewer-{n}"), &["--gateway", "127.0.0.1:0", "--up", up])).collect();
    peers.iter().for_each(|p| drop(p.until("a session", |v| v["control"] == true)));
    peers
}

/// All of them watch for so long; what each saw.
pub fn watch(site: &Site, name: &str, who: std::ops::Range<usize>, seconds: &str) -> Vec<Value> {
    std::thread::scope(|scope| {
        let watching: Vec<_> = who
            .map(|n| {
                let data = site.path(&format!("viewer-{n}"));
                scope.spawn(move || probe(name, &["--data", &data, "--seconds", seconds, "--hold-back", "3"]))
            })
            .collect();
        watching.into_iter().map(|w| w.join().unwrap()).collect()
    })
}

fn live_of(peer: &Process) -> Value {
    let much = |v: &Value| v["contents"][0]["peer_bytes"].as_u64().is_some_and(|n| n > 180_000);
    peer.until("much of the stream", much)["contents"][0].clone()
}

pub fn has_gone_well(reports: &[Value]) {
    for r in reports {
        none_of(r, &["stalls", "gaps", "repeats", "broken", "troubles"]);
        assert!(r["start_up_s"].as_f64().is_some_and(|s| s < 2.0), "{r:#}");
        assert!(r["segments"].as_u64().is_some_and(|n| n >= 8), "{r:#}");
    }
}

#[test]
fn a_channel_reaches_its_viewers_through_the_trees() {
    for kind in ["mpegts", "fmp4"] {
        let site = Site::start("unlimited");
        let Some(_encoder) = channel(&site, kind) else { return };
        let publisher = site.publish_live("publisher", &["--rate", "1Mbit/s"]);
        let name = publisher.event("started")["hw"].as_str().unwrap().to_owned();
        publisher.event("active");
        let peers = viewers(&site, 6, "3Mbit/s");
        has_gone_well(&watch(&site, &name, 0..6, "10"));
        let seen: Vec<Value> = peers.iter().map(live_of).collect();
        let sum = |what: &str| seen.iter().map(|c| c[what].as_u64().unwrap()).sum::<u64>();
        // Each begins with what was played before it came, two segments or so, from the origin.
        assert!(sum("origin_bytes") * 3 < sum("peer_bytes"), "{seen:#?}");
        assert!(sum("uploaded_bytes") > 0, "viewers feed one another: {seen:#?}");
        is_not_read_at_memory_speed(seen[0]["gateway"].as_str().unwrap());
        check(&["get", &name, "-o", &site.path("file"), "--listen", "127.0.0.1:0"], 3, "live stream");
        let other = ["--rate", "3Mbit/s", "--data", &site.path("other"), "--listen", "127.0.0.1:0"];
        let url = format!("{}/live/index.m3u8", site.origin_url);
        let key = site.path("key");
        let again = ["publish", "--live", &url, "--name", "channel", "--control", &site.api, "--token", &site.token];
        check(&[&again[..], &["--key", &key], &other].concat(), 3, "--new-version");
    }
}

/// What a player measures of a segment that is here is no more than four times the stream's rate, which is 1 Mbit/s.
fn is_not_read_at_memory_speed(gateway: &str) {
    let list = String::from_utf8(ask("GET", &format!("{gateway}live.m3u8"), &[]).body).unwrap();
    let segments: Vec<&str> = list.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    let begun = std::time::Instant::now();
    let segment = ask("GET", &format!("{gateway}{}", segments[segments.len() - 3]), &[]);
    // The last piece goes out when its turn is.
    let at_least = segment.body.len().saturating_sub(8192) as f64 / 500_000.0;
    assert!(segment.body.len() > 2 * 8192 && begun.elapsed().as_secs_f64() >= 0.9 * at_least, "{:?}", begun.elapsed());
}

/// Segments that are put when they are over.
#[test]
fn an_encoder_pushes_a_channel() {
    pushes_a_channel(|to| {
        format!(
            "-f hls -hls_time 1 -hls_list_size 8 -hls_flags program_date_time+delete_segments -method PUT {to}index.m3u8"
        )
    });
}

/// Segments that are put while they are made.
#[test]
fn an_encoder_pushes_a_channel_while_it_makes_it() {
    pushes_a_channel(|to| {
        format!(
            "-f segment -segment_format mpegts -segment_time 1 -flush_packets 1 -segment_list_type m3u8 \
             -segment_list_size 8 -segment_list_flags +live -segment_list {to}index.m3u8 {to}segment%d.ts"
        )
    });
}

fn pushes_a_channel(output: impl Fn(&str) -> String) {
    let site = Site::start("unlimited");
    let Some(mut ffmpeg) = crate::gateway_programs::program("ffmpeg", "ffmpeg") else { return };
    let publisher = site.publish_pushed("publisher", &["--rate", "1Mbit/s"]);
    let to = publisher.event("listens")["push_url"].as_str().unwrap().to_owned();
    ffmpeg.args(["-v", "error", "-nostdin", "-re", "-f", "lavfi", "-i", "testsrc=size=160x90:rate=25", "-t", "60"]);
    ffmpeg.args(["-c:v", "libx264", "-preset", "ultrafast", "-g", "25"]);
    let _encoder = Encoder::of(ffmpeg.args(output(&to).split_whitespace()));
    let name = publisher.event("started")["hw"].as_str().unwrap().to_owned();
    publisher.event("active");
    let published = |n: u64| publisher.until("segments", |v| v["sequence"].as_u64().is_some_and(|s| s >= n));
    published(3);
    let peers = viewers(&site, 2, "3Mbit/s");
    has_gone_well(&watch(&site, &name, 0..2, "10"));
    assert!(peers.iter().map(live_of).all(|c| c["peer_bytes"].as_u64() > c["origin_bytes"].as_u64()));
}

/// A channel that viewers watch for 16 s, while something happens to it that costs each of them so long a stall at most.
fn while_watched(
    stall_s: f64,
    happens: impl FnOnce(&mut Site, &mut Vec<Process>, &mut Process, &str),
    who_stays: std::ops::Range<usize>,
) {
    let mut site = Site::start("unlimited");
    let Some(_encoder) = channel(&site, "mpegts") else { return };
    let mut publisher = site.publish_live("publisher", &["--rate", "1Mbit/s"]);
    let name = publisher.event("started")["hw"].as_str().unwrap().to_owned();
    publisher.event("active");
    let mut peers = viewers(&site, 5, "3Mbit/s");
    // The others pass it on without watching.
    for n in (0..5).filter(|n| !who_stays.contains(n)) {
        check(&["fetch", &name, "--data", &site.path(&format!("viewer-{n}"))], 0, "");
    }
    let homes: Vec<String> = who_stays.clone().map(|n| site.path(&format!("viewer-{n}"))).collect();
    let reports: Vec<Value> = std::thread::scope(|scope| {
        let name = &name;
        let watching: Vec<_> = homes
            .iter()
            .map(|data| scope.spawn(move || probe(name, &["--data", data, "--seconds", "16", "--hold-back", "6"])))
            .collect();
        // In the middle of it: all have some of it, and the trees stand.
        for peer in &peers[who_stays] {
            let fed = |v: &Value| {
                let c = &v["contents"][0];
                c["peer_bytes"].as_u64().is_some_and(|n| n > 60_000) && c["live"]["unfed_substreams"] == 0
            };
            peer.until("a part of the stream from peers", fed);
        }
        happens(&mut site, &mut peers, &mut publisher, name);
        watching.into_iter().map(|w| w.join().unwrap()).collect()
    });
    for r in &reports {
        none_of(r, &["gaps", "repeats", "broken"]);
        assert!(r["stalled_s"].as_f64().is_some_and(|s| s <= stall_s), "{r:#}");
        assert!(r["segments"].as_u64().is_some_and(|n| n >= 12), "{r:#}");
    }
}

#[test]
fn a_viewer_that_others_depend_on_is_killed() {
    while_watched(
        0.0,
        |_, peers, _, _| {
            for peer in &peers[3..5] {
                peer.until("children", |v| v["contents"][0]["children"].as_u64().is_some_and(|n| n > 0));
            }
            peers[3].kill();
            peers[4].kill();
        },
        0..3,
    );
}

#[test]
fn a_publisher_that_is_killed_and_started_again_goes_on() {
    while_watched(
        0.0,
        |site, _, publisher, _| {
            publisher.kill();
            let again = site.publish_live("publisher", &["--rate", "1Mbit/s"]);
            again.event("active");
            *publisher = again;
        },
        0..3,
    );
}

#[test]
fn a_second_publisher_stands_by_and_takes_over() {
    while_watched(
        // Its silence is noticed after two heartbeats; 6 s are held back.
        3.0,
        |site, _, publisher, name| {
            let mut second = site.publish_live("second", &["--rate", "1Mbit/s"]);
            assert_eq!(second.event("started")["hw"], *name);
            publisher.kill();
            second.event("active");
            std::mem::swap(publisher, &mut second);
        },
        0..3,
    );
}

#[test]
fn without_a_control_center_the_trees_go_on() {
    while_watched(
        0.0,
        |site, peers, _, _| {
            site.control.kill();
            for peer in &peers[0..3] {
                peer.until("no session", |v| v["control"] == false);
            }
            site.restart_control(false);
            for peer in &peers[0..3] {
                peer.until("a session", |v| v["control"] == true);
            }
        },
        0..3,
    );
}

#[test]
fn a_newcomer_begins_without_a_control_center() {
    let mut site = Site::start("unlimited");
    let Some(_encoder) = channel(&site, "mpegts") else { return };
    let publisher = site.publish_live("publisher", &["--rate", "1Mbit/s", "--log-listen", "127.0.0.1:0"]);
    let name = publisher.event("started")["hw"].as_str().unwrap().to_owned();
    publisher.event("active");
    let _helper = viewers(&site, 1, "3Mbit/s");
    site.control.kill();
    let newcomer = site.peer("newcomer", &["--gateway", "127.0.0.1:0"]);
    newcomer.until("no session", |v| v["control"] == false);
    let data = site.path("newcomer");
    let report = std::thread::scope(|scope| {
        let watching = scope.spawn(|| probe(&name, &["--data", &data, "--seconds", "25", "--hold-back", "6"]));
        let from_origin = |v: &Value| v["contents"][0]["origin_bytes"].as_u64().is_some_and(|n| n > 500_000);
        let alone = newcomer.until("some of the stream from the origin", from_origin);
        assert!(alone["contents"][0]["peer_bytes"] == 0 && alone["control"] == false, "{alone:#}");
        site.restart_control(false);
        let fed = |v: &Value| {
            let c = &v["contents"][0];
            c["peer_bytes"].as_u64().is_some_and(|n| n > 500_000) && c["live"]["unfed_substreams"] == 0
        };
        newcomer.until("a place in the trees", fed);
        watching.join().unwrap()
    });
    none_of(&report, &["stalls", "gaps", "repeats", "broken"]);
}
