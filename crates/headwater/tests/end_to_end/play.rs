//! `headwater play`: what a real encoder makes is measured as a viewer would see it.

use crate::gateway_programs::program;
use crate::site::{Site, check, run};
use serde_json::Value;
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Ends with the test.
pub struct Encoder(Child);

impl Encoder {
    pub fn of(command: &mut std::process::Command) -> Encoder {
        Encoder(command.stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A picture and a tone as HLS in `www/live`, with segments of a second; `None`, and said so, without ffmpeg.
pub fn encode(site: &Site, is_live: bool, seconds: &str, more: &[&str]) -> Option<Encoder> {
    let mut ffmpeg = program("ffmpeg", "ffmpeg")?;
    fs::create_dir_all(site.path("www/live")).unwrap();
    ffmpeg.current_dir(site.path("www/live")).args(["-v", "error", "-nostdin"]);
    if is_live {
        ffmpeg.arg("-re");
    }
    ffmpeg.args(["-f", "lavfi", "-i", "testsrc=size=160x90:rate=25"]);
    if is_live {
        ffmpeg.arg("-re");
    }
    ffmpeg.args(["-f", "lavfi", "-i", "sine=sample_rate=48000", "-t", seconds]);
    ffmpeg.args(["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "25", "-c:a", "aac", "-f", "hls"]);
    ffmpeg.args(["-hls_time", "1"]).args(more).arg("index.m3u8");
    Some(Encoder::of(&mut ffmpeg))
}

pub fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn probe(address: &str, more: &[&str]) -> Value {
    let output = run(&[&["play", address, "--probe", "--json"], more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub fn none_of(report: &Value, what: &[&str]) {
    for what in what {
        assert_eq!(report[what].as_array().map(Vec::len), Some(0), "{what}: {report:#}");
    }
}

#[test]
fn a_live_channel_is_measured() {
    for kind in [&["-hls_segment_type", "mpegts"][..], &["-hls_segment_type", "fmp4"]] {
        let site = Site::start("unlimited");
        let live = ["-hls_list_size", "6", "-hls_flags", "program_date_time+delete_segments"];
        let Some(_encoder) = encode(&site, true, "60", &[kind, &live].concat()) else { return };
        let listed =
            || fs::read_to_string(site.path("www/live/index.m3u8")).is_ok_and(|t| t.matches("#EXTINF").count() > 3);
        until("four segments", listed);
        let url = format!("{}/live/index.m3u8", site.origin_url);
        let r = probe(&url, &["--seconds", "8", "--hold-back", "3"]);
        none_of(&r, &["stalls", "gaps", "repeats", "broken", "troubles"]);
        let number = |v: &Value| v.as_f64().unwrap_or(f64::NAN);
        assert!(number(&r["start_up_s"]) < 1.0, "{r:#}");
        assert!(number(&r["played_s"]) > 6.5 && number(&r["segments"]) >= 9.0, "{r:#}");
        // A segment is dated by its first frame and listed when it is complete; the playlist is loaded every second.
        assert!((0.0..3.0).contains(&number(&r["lag"]["p95_s"])), "{r:#}");
    }
}

#[test]
fn what_a_viewer_would_miss_is_told() {
    let site = Site::start("unlimited");
    let whole = ["-hls_list_size", "0", "-hls_playlist_type", "vod"];
    let Some(mut encoder) = encode(&site, false, "8", &whole) else { return };
    assert!(encoder.0.wait().unwrap().success());
    let index = site.path("www/live/index.m3u8");
    let listed = fs::read_to_string(&index).unwrap();
    let url = format!("{}/live/index.m3u8", site.origin_url);
    let fast = ["--fetch-ahead", "60", "--seconds", "3"];

    let r = probe(&url, &fast);
    none_of(&r, &["stalls", "gaps", "repeats", "broken", "troubles"]);
    assert_eq!(r["segments"], 8);
    check(&[&["play", &url, "--probe"], &fast[..]].concat(), 0, "8 segments, 0 gaps, 0 repeats");

    // One that is listed is not there; it is asked for three times.
    fs::rename(site.path("www/live/index4.ts"), site.path("www/live/away")).unwrap();
    let r = probe(&url, &fast);
    assert_eq!((r["segments"].as_u64(), r["gaps"][0]["segment"].as_u64()), (Some(7), Some(5)), "{r:#}");
    assert!(r["troubles"].to_string().contains("404"), "{r:#}");
    fs::rename(site.path("www/live/away"), site.path("www/live/index4.ts")).unwrap();

    // One comes twice.
    fs::write(&index, listed.replace("index5.ts", "index4.ts")).unwrap();
    let r = probe(&url, &fast);
    assert_eq!(r["repeats"][0]["segment"], 5, "{r:#}");
    assert_eq!(r["gaps"][0]["segment"], 6, "{r:#}");

    // One is cut off, and one is something else.
    fs::write(&index, &listed).unwrap();
    let third = fs::read(site.path("www/live/index3.ts")).unwrap();
    fs::write(site.path("www/live/index3.ts"), &third[..third.len() / 2 + 50]).unwrap();
    fs::write(site.path("www/live/index6.ts"), "<html>not found</html>").unwrap();
    let r = probe(&url, &fast);
    let broken = r["broken"].to_string();
    assert!(broken.contains("\"segment\":3") && broken.contains("\"segment\":6"), "{r:#}");

    // What is no playlist, and what is not there.
    fs::write(&index, "<html>").unwrap();
    check(&["play", &url, "--probe"], 1, "no playlist");
    check(&["play", &format!("{}/live/none.m3u8", site.origin_url), "--probe"], 1, "404");
}

#[test]
fn a_stream_of_a_folder_comes_through_the_peer_of_this_machine() {
    let site = Site::start("unlimited");
    let whole = ["-hls_list_size", "0", "-hls_playlist_type", "vod", "-hls_segment_type", "fmp4"];
    let Some(mut encoder) = encode(&site, false, "3", &whole) else { return };
    assert!(encoder.0.wait().unwrap().success());
    let name = site.publish("live", &[]);
    let peer = site.peer("home", &["--gateway", "127.0.0.1:0"]);
    peer.until("a session", |v| v["control"] == true);
    let data = site.path("home");
    let r = probe(&name, &["--file", "index.m3u8", "--data", &data]);
    none_of(&r, &["stalls", "gaps", "repeats", "broken", "troubles"]);
    assert_eq!(r["segments"], 3);
    assert!(r["played_s"].as_f64().is_some_and(|s| (2.8..3.3).contains(&s)), "{r:#}");
    assert!(r["playlist"].as_str().is_some_and(|p| p.starts_with("http://127.0.0.1:")), "{r:#}");

    // Any program is a player.
    check(
        &["play", &name, "--file", "index.m3u8", "--data", &data, "--player", "true"],
        0,
        "true plays http://127.0.0.1:",
    );
    check(&["play", &name, "--data", &data, "--player", "false"], 1, "the player ended with");
    check(&["play", &name, "--data", &data, "--player", "/no/such"], 1, "cannot start /no/such");
    check(&["play", &name, "--data", &site.path("nowhere")], 3, "no peer runs");
    check(&["play", "film.mp4"], 2, "is no address");
    check(&["play", "file:///etc/passwd"], 2, "is no http address");
    check(&["play", "http://127.0.0.1:1/", "--probe", "--hold-back=-1"], 2, "0 to 1000000 seconds");
    check(&["play", "http://127.0.0.1:1/", "--probe", "--seconds", "1"], 1, "no answer from http://127.0.0.1:1/");
    check(&["play", "http://127.0.0.1:1/", "--file", "a"], 2, "are for hw:// names");
}
