//! Deliveries from end to end, with the real binary, real sockets and real faults.
#![allow(clippy::unwrap_used, reason = "a test ends where its world is not as it should be")]

mod demo;
mod faults;
mod gateway;
mod gateway_consent;
mod gateway_endings;
mod gateway_programs;
mod hostile;
mod limited;
mod limits;
mod live;
mod play;
mod service;
mod several;
mod site;
mod stand_ins;
mod storage;
mod versions;

use site::{Site, check};

#[test]
fn a_swarm_takes_one_copy_from_the_origin() {
    let site = Site::start("8MB/s");
    site.write("film", 24 << 20, 1);
    let name = site.publish("film", &[]);
    let peers: Vec<_> = ["a", "b", "c", "light-1", "light-2"]
        .iter()
        .map(|who| {
            let more: &[&str] =
                if who.starts_with("light") { &["--up", "8MB/s", "--dial-only"] } else { &["--up", "8MB/s"] };
            (*who, site.get(&name, who, more))
        })
        .collect();
    let mut from_origin = 0;
    for (who, peer) in &peers {
        let done = peer.event("complete");
        from_origin += done["origin_bytes"].as_u64().unwrap();
        assert!(site.same(who, "film"), "{who} got other bytes");
    }
    assert!(from_origin <= 24 << 20 << 1, "{from_origin} bytes left the origin");
    assert!(from_origin as f64 <= 1.3 * f64::from(24 << 20), "{from_origin} bytes left the origin");
    assert_eq!(site.api_json("status")["totals"]["lightweight_pairs"], 0);
}

#[test]
fn a_folder_a_new_version_and_its_end() {
    let site = Site::start("unlimited");
    site.write("docs/a.txt", 300_000, 2);
    site.write("docs/deep/b.bin", 70_000, 3);
    site.write("docs/empty", 0, 4);
    let name = site.publish("docs", &[]);
    let mut got = site.get(&name, "reader", &["--seed-time", "0s"]);
    got.event("complete");
    assert_eq!(got.code(), 0);
    let out = site.folder.path().join("reader/out");
    for file in ["a.txt", "deep/b.bin", "empty"] {
        assert_eq!(
            std::fs::read(out.join(file)).unwrap(),
            std::fs::read(site.path(&format!("www/docs/{file}"))).unwrap()
        );
    }
    assert!(!site.folder.path().join("reader/out.headwater").exists(), "what was kept to go on is left behind");

    site.write("docs/a.txt", 310_000, 5);
    let again = site.publish("docs", &[]);
    assert_eq!(again, name, "a name stays through versions");
    let new = site.get(&name, "later", &[]);
    new.event("complete");
    assert_eq!(std::fs::read(site.path("later/out/a.txt")).unwrap().len(), 310_000);
    assert_eq!(site.api_json("contents").as_array().unwrap().len(), 1);

    check(&["unpublish", "docs", "--control", &site.api, "--token", &site.token], 0, "");
    let output = site.path("late");
    check(&["get", &name, "-o", &output, "--listen", "127.0.0.1:0"], 3, "withdrawn");
}

#[test]
fn decisions_are_explained() {
    let site = Site::start("1MB/s");
    site.write("film", 4 << 20, 6);
    let name = site.publish("film", &[]);
    let (a, b) = (site.get(&name, "a", &[]), site.get(&name, "b", &["--dial-only"]));
    let node = a.event("started")["node"].as_str().unwrap().to_owned();
    b.until("a parent", |v| v["parents"].as_u64().is_some_and(|n| n > 0));
    let said = site.api_json(&format!("explain?client={node}&content=film"));
    let words = said["words"].as_str().unwrap();
    assert!(words.contains("wanted") && words.len() > 40, "{words}");
    check(
        &["explain", "--client", &node[..10], "--content", "film", "--control", &site.api, "--token", &site.token],
        0,
        "wanted",
    );
    check(
        &["explain", "--client", "00000000", "--content", "film", "--control", &site.api, "--token", &site.token],
        3,
        "",
    );
}

#[test]
fn without_a_control_center_a_static_log_is_enough() {
    let mut site = Site::start("unlimited");
    site.write("film", 3 << 20, 7);
    let log_url = format!("{}/film.hwlog", site.origin_url);
    let name = site.publish("film", &["--log-url", &log_url]);
    assert!(name.contains("log="), "{name}");
    site.control.kill();
    let peer = site.get(&name, "alone", &[]);
    let done = peer.event("complete");
    assert_eq!(done["control"], false);
    assert!(site.same("alone", "film"));
    // A log of another publisher at that URL is not believed.
    let forged = name.replacen("key=", "key=00", 1);
    let forged: String = {
        let at = forged.find("key=").unwrap() + 4;
        format!("{}{}", &forged[..at + 64], &forged[at + 66..])
    };
    let stranger = site.get(&forged, "stranger", &[]);
    stranger.until("a refusal of the log", |v| v["notes"].to_string().contains("pins key"));
}

#[test]
fn a_waypoint_fetches_what_is_published_and_serves_it() {
    let site = Site::start("unlimited");
    site.write("film", 6 << 20, 8);
    let waypoint = site.peer("waypoint", &["--waypoint"]);
    waypoint.until("a session", |v| v["control"] == true);
    let name = site.publish("film", &[]);
    waypoint.until("the content", |v| v["contents"][0]["complete"] == true);
    let reader = site.get(&name, "reader", &[]);
    let done = reader.event("complete");
    assert_eq!((done["origin_bytes"].as_u64(), done["waypoint_bytes"].as_u64()), (Some(0), Some(6 << 20)));
    assert!(site.same("reader", "film"));
}
