//! What goes wrong in life: each ends in a clear error or a recovery, and nothing wrong is delivered.

use crate::site::{Site, check, run};
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

#[test]
fn a_control_center_that_restarts_loses_no_transfer() {
    for lose_state in [false, true] {
        let mut site = Site::start("4MB/s");
        site.write("film", 20 << 20, 11);
        let name = site.publish("film", &[]);
        let peers: Vec<_> =
            ["a", "b", "c"].iter().map(|who| (*who, site.get(&name, who, &["--up", "4MB/s"]))).collect();
        peers[0].1.until("the middle", |v| v["bytes"].as_u64().is_some_and(|b| b > 4 << 20));
        let before = site.api_json("status")["epoch"].as_u64().unwrap();
        site.restart_control(lose_state);
        let begun = Instant::now();
        while site.api_json("status")["sessions"].as_u64() != Some(3) {
            assert!(begun.elapsed() < Duration::from_secs(5), "sessions are not back within 5 s");
            std::thread::yield_now();
        }
        for (who, peer) in &peers {
            peer.event("complete");
            assert!(site.same(who, "film"), "{who} got other bytes");
        }
        let swarm = site.api_json("contents/film");
        let epoch = swarm["swarm"]["generation"]["epoch"].as_u64().unwrap();
        assert!(epoch > before, "the generation did not rise with the restart (state lost: {lose_state})");
        assert_eq!(swarm["members"], 3);
    }
}

#[test]
fn a_parent_that_stops_hands_its_children_over() {
    let site = Site::start("1MB/s");
    site.write("film", 12 << 20, 18);
    let name = site.publish("film", &[]);
    let mut parent = site.get(&name, "parent", &["--up", "6MB/s"]);
    parent.event("complete");
    let others: Vec<String> = (1..=8).map(|n| format!("child-{n}")).collect();
    let others: Vec<_> = others.iter().map(|who| (who, site.get(&name, who, &["--up", "2MB/s"]))).collect();
    parent.until("eight children", |v| v["children"] == 8);
    for (_, child) in &others {
        child.until("something of it", |v| v["bytes"].as_u64() > Some(1 << 20));
    }
    parent.stop();
    let begun = Instant::now();
    assert_eq!(parent.code(), 0);
    assert!(begun.elapsed() < Duration::from_secs(8), "it took {:?} to hand over", begun.elapsed());
    assert!(!parent.said().contains("no other parents yet"), "{}", parent.said());
    for (who, child) in &others {
        let done = child.event("complete");
        assert!(site.same(who, "film"));
        // A piece that is sent twice is wasted; that one replaces another at the end of a file is not this parent's doing.
        assert!(done["wasted_bytes"].as_u64() <= Some(256 << 10), "{done}");
    }
    let events = site.api_json("events").to_string();
    assert!(!events.contains("lost its parent"), "{events}");
}

#[test]
fn a_transfer_goes_on_while_the_control_center_is_away() {
    let mut site = Site::start("3MB/s");
    site.write("film", 12 << 20, 12);
    let name = site.publish("film", &[]);
    let peers: Vec<_> = ["a", "b"].iter().map(|who| (*who, site.get(&name, who, &["--up", "8MB/s"]))).collect();
    for (_, peer) in &peers {
        peer.until("a parent", |v| v["parents"] == 1 && v["bytes"].as_u64() > Some(2 << 20));
    }
    site.control.kill();
    for (who, peer) in &peers {
        let done = peer.event("complete");
        assert_eq!(done["control"], false);
        assert!(site.same(who, "film"));
    }
}

#[test]
fn an_origin_that_goes_away_and_comes_back() {
    let mut site = Site::start("2MB/s");
    site.write("film", 8 << 20, 13);
    let name = site.publish("film", &[]);
    let peers: Vec<_> = ["a", "b"].iter().map(|who| (*who, site.get(&name, who, &[]))).collect();
    peers[0].1.until("a beginning", |v| v["bytes"].as_u64() > Some(1 << 20));
    site.restart_origin("unlimited");
    for (who, peer) in &peers {
        peer.event("complete");
        assert!(site.same(who, "film"));
    }
}

#[test]
fn an_origin_whose_file_changes_delivers_nothing_wrong() {
    let site = Site::start("unlimited");
    site.write("film", 2 << 20, 14);
    let original = fs::read(site.path("www/film")).unwrap();
    let name = site.publish("film", &[]);
    site.write("film", 2 << 20, 15);
    let same_length = site.get(&name, "a", &[]);
    let said = same_length.until("a note", |v| v["notes"].to_string().contains("changed"));
    assert_eq!(said["bytes"], 0);
    site.write("film", 1 << 20, 15);
    let shorter = site.get(&name, "b", &[]);
    shorter.until("a note", |v| v["notes"].to_string().contains("1048576"));
    fs::write(site.path("www/film"), original).unwrap();
    for (who, peer) in [("a", same_length), ("b", shorter)] {
        peer.event("complete");
        assert!(site.same(who, "film"));
    }
}

#[test]
fn a_killed_download_resumes_and_a_corrupt_store_heals() {
    let site = Site::start("3MB/s");
    site.write("film", 12 << 20, 16);
    let name = site.publish("film", &[]);
    let mut first = site.get(&name, "a", &[]);
    first.until("the middle", |v| v["bytes"].as_u64() > Some(6 << 20));
    first.kill();
    // Some bytes of what is there rot.
    let part = site.path("a/out.part");
    let mut file = fs::OpenOptions::new().read(true).write(true).open(&part).unwrap();
    for at in [0u64, 70_000, 1 << 20] {
        let mut byte = [0];
        file.seek(SeekFrom::Start(at)).unwrap();
        file.read_exact(&mut byte).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&[byte[0] ^ 1]).unwrap();
    }
    drop(file);
    let mut second = site.get(&name, "a", &[]);
    let resumed = second.until("what is here", |v| v["state"] == "fetching");
    assert!(resumed["bytes"].as_u64() > Some(4 << 20), "it began anew: {resumed}");
    second.kill();
    // The state itself is cut off and garbled: nothing is believed, everything comes again.
    for entry in fs::read_dir(site.path("a/out.headwater")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.file_name().unwrap() != "log" {
            let mut bytes = fs::read(&path).unwrap();
            bytes.truncate(bytes.len() / 2);
            bytes.iter_mut().for_each(|b| *b ^= 0x55);
            fs::write(&path, bytes).unwrap();
        }
    }
    let third = site.get(&name, "a", &[]);
    third.event("complete");
    assert!(site.same("a", "film"));
}

#[test]
fn two_processes_with_one_identity() {
    let site = Site::start("unlimited");
    let first = site.peer("one", &[]);
    first.until("a session", |v| v["control"] == true);
    fs::create_dir_all(site.path("two/identity")).unwrap();
    fs::copy(site.path("one/identity/node.key"), site.path("two/identity/node.key")).unwrap();
    let second = site.peer("two", &[]);
    second.until("a session", |v| v["control"] == true);
    first.until("the end of its session", |v| v["control"] == false);
    assert!(first.said().contains("newer process uses this identity"), "{}", first.said());
}

#[test]
fn what_cannot_work_says_why() {
    let site = Site::start("unlimited");
    site.write("film", 1 << 20, 17);
    let name = site.publish("film", &[]);
    let out = site.path("out");
    let listen = ["--listen", "127.0.0.1:0"];
    let get = |name: &str, more: &[&str], code, says: &str| {
        check(&[&["get", name, "-o", &out][..], more].concat(), code, says);
    };
    get(&name.replace("/film#", "/other#"), &listen, 3, "no content of this name");
    let at = name.find("key=").unwrap() + 4;
    let wrong_key = format!("{}{}{}", &name[..at], "00".repeat(32), &name[at + 64..]);
    get(&wrong_key, &listen, 3, "no content of this name");
    get("hw://127.0.0.1:1/x", &listen, 2, "#key=");
    get(&name, &["--listen", &site.control_address], 1, "already in use");
    check(&["control", "--listen", &site.control_address, "--data", &site.path("other")], 1, "already in use");
    fs::write(site.path("file"), "not a folder").unwrap();
    check(&["get", &name, "-o", &site.path("file/below/out"), listen[0], listen[1]], 1, "file");
    check(
        &["peer", "--control", &site.control_address, "--data", &site.path("file/below"), listen[0], listen[1]],
        1,
        "choose another with --data",
    );
    check(
        &[
            "peer",
            "--control",
            "control.example:7400",
            "--join-token",
            "t",
            "--data",
            &site.path("p"),
            listen[0],
            listen[1],
        ],
        1,
        "--cc",
    );
}

/// `faketime` shifts the clock that a program sees.
#[test]
fn a_clock_that_is_a_day_off_works_with_a_warning() {
    if !std::path::Path::new("/usr/bin/faketime").exists() {
        println!("skipped: faketime is not installed");
        return;
    }
    let site = Site::start("unlimited");
    site.write("film", 2 << 20, 18);
    let name = site.publish("film", &[]);
    let seed = site.get(&name, "seed", &[]);
    seed.event("complete");
    for shift in ["+1d", "-1d"] {
        let out = site.path(&format!("shifted{shift}"));
        let output = std::process::Command::new("/usr/bin/faketime")
            .args(["-f", shift, env!("CARGO_BIN_EXE_headwater"), "get", &name, "-o", &out, "--listen", "127.0.0.1:0"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("clock is off by"), "{said}");
        assert_eq!(fs::read(&out).unwrap(), fs::read(site.path("www/film")).unwrap());
    }
    drop(run(&["--version"]));
}
