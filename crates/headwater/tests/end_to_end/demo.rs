//! `headwater demo --live`: the whole of a channel, started by one command.

use crate::site::headwater;
use serde_json::Value;
use std::process::Stdio;

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
