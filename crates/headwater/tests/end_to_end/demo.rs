//! `headwater demo --live` and `--page`: the whole of a channel, started by one command.

use crate::gateway::ask;
use crate::site::headwater;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[test]
fn a_channel_survives_the_viewer_that_feeds_most() {
    let temporary = tempfile::tempdir().unwrap();
    let arguments = ["demo", "--live", "--json", "--peers", "4", "--seconds", "20"];
    let demo = headwater().args(arguments).env("TMPDIR", temporary.path()).stdin(Stdio::null()).output().unwrap();
    let progress = String::from_utf8_lossy(&demo.stderr);
    assert!(demo.status.success(), "{progress}");
    assert!(progress.contains(" s of 20 s: 3 of 4 watch; "), "{progress}");
    let report: Value = serde_json::from_slice(&demo.stdout).unwrap();
    for (what, expected) in [("survivors", 3), ("lost", 0), ("stalls", 0), ("media_breaks", 0)] {
        assert_eq!(report[what], expected, "{what}: {report:#}");
    }
    let killed = report["killed"].as_array().unwrap();
    assert_eq!((killed.len(), report["s_min_copies"].as_f64()), (1, Some(1.0)), "{report:#}");
    assert!(killed[0]["children"].as_u64().is_some_and(|n| n > 0), "{report:#}");
    let number = |what: &str| report[what].as_f64().unwrap_or(f64::NAN);
    assert!((25_000.0..40_000.0).contains(&number("rate_bytes_per_s")), "{report:#}");
    assert!(number("start_up_p95_s") < 3.0, "{report:#}");
    // Of twenty segments the 95th percentile is the one that the kill delayed most, and what delays more than that stalls.
    assert!(number("lag_p95_s") < 5.0, "{report:#}");
    let usual = |one: &Value| one["lag_median_s"].as_f64().is_some_and(|lag| lag < 1.5);
    let mut viewers = report["per_viewer"].as_array().unwrap().iter();
    assert!(viewers.all(|one| one["killed"] == true || usual(one)), "{report:#}");
    // Each begins with what was played before it came, from the origin; later one copy leaves the publisher.
    assert!(number("copies") < 3.0 && number("copies_arrived") < 2.0, "{report:#}");
    let seen = report["per_viewer"].as_array().unwrap().iter().filter(|one| one["killed"] == false);
    assert!(seen.clone().all(|one| one["segments"].as_u64().is_some_and(|n| n >= 18)), "{report:#}");
    assert!(seen.clone().all(|one| one["peer_bytes"].as_u64() > one["origin_bytes"].as_u64()), "{report:#}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "the demo left something behind");
}

#[cfg(unix)]
#[test]
fn a_page_is_served_until_somebody_ends_it() {
    let temporary = tempfile::tempdir().unwrap();
    let player = temporary.path().join("player.js");
    std::fs::write(&player, "a player").unwrap();
    let folder = temporary.path().join("demo");
    std::fs::create_dir(&folder).unwrap();
    let mut command = headwater();
    command.args(["demo", "--page", "--json", "--peers", "1", "--file-size", "1MiB", "--hls"]).arg(&player);
    command.env("TMPDIR", &folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut demo = command.spawn().unwrap();
    let mut told = String::new();
    BufReader::new(demo.stdout.take().unwrap()).read_line(&mut told).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    let get = |path: &str| ask("GET", &format!("{}{path}", told["url"].as_str().unwrap()), &[]);
    let about: Value = serde_json::from_slice(&get("demo.json").body).unwrap();
    for what in ["control", "channel", "playlist", "film", "sources"] {
        assert_eq!(about[what], told[what], "{what}");
    }
    let kinds: Vec<&str> = about["sources"].as_array().unwrap().iter().map(|s| s["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["publisher", "waypoint", "viewer"]);
    assert_eq!((about["film"]["bytes"].as_u64(), about["player"].as_bool()), (Some(1 << 20), Some(true)));
    assert!(String::from_utf8_lossy(&get("").body).contains("headwater.js"));
    assert_eq!(get("hls.min.js").body, b"a player");
    // Pages may read what the publisher serves.
    let playlist = ask("GET", about["playlist"].as_str().unwrap(), &[]);
    assert_eq!(playlist.fields["access-control-allow-origin"], "*");
    let ended = Command::new("kill").arg(demo.id().to_string()).status().unwrap();
    assert!(ended.success() && demo.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "the demo left something behind");
}
