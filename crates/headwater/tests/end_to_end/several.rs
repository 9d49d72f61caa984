//! Several contents at one node: none of them slows another one.

use crate::site::{Process, Site};
use serde_json::Value;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Lines of a peer come twice a second.
const LINES: Duration = Duration::from_millis(500);

fn content<'a>(status: &'a Value, name: &str) -> &'a Value {
    let all = status["contents"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().find(|c| c["name"] == name).unwrap_or(&Value::Null)
}

/// A peer that fetches contents; how long the first one took, and what it said then.
fn fetches(site: &Site, who: &str, first: &str, names: &[&str], more: &[&str]) -> (Process, Duration, Value) {
    let mut arguments = vec!["--no-gateway"];
    names.iter().for_each(|name| arguments.extend(["--fetch", name]));
    arguments.extend(more);
    let begun = Instant::now();
    let peer = site.peer(who, &arguments);
    let status = peer.until("its first content", |v| content(v, first)["complete"] == true);
    (peer, begun.elapsed(), status)
}

#[test]
fn a_content_whose_origin_trickles_or_hangs_slows_no_other_one() {
    let site = Site::start("5MB/s");
    for (seed, (file, mib)) in [("alone", 14), ("beside", 14), ("slow", 4), ("hung", 4)].into_iter().enumerate() {
        site.write(file, mib << 20, seed as u64);
    }
    let (_trickles, slow_url) = site.another_origin("50kB/s");
    // It takes connections and never says a word.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let hung_url = format!("http://{}", hangs.local_addr().unwrap());
    let (alone, beside) = (site.publish("alone", &[]), site.publish("beside", &[]));
    let slow = site.publish_at(&slow_url, "slow", &["--no-check"]);
    let hung = site.publish_at(&hung_url, "hung", &["--no-check"]);
    let (_a, alone_took, _) = fetches(&site, "a", "alone", &[&alone], &[]);
    let (_b, beside_took, status) = fetches(&site, "b", "beside", &[&hung, &slow, &beside], &[]);
    println!("alone {alone_took:?}, beside {beside_took:?}");
    assert!(beside_took <= alone_took.mul_f64(1.1) + LINES, "alone {alone_took:?}, beside others {beside_took:?}");
    assert_eq!(content(&status, "hung")["bytes"], 0);
    let of_slow = content(&status, "slow")["bytes"].as_u64().unwrap();
    assert!(of_slow < 2 << 20, "{of_slow} bytes came from an origin of 50 kB/s");
}

#[test]
fn a_child_of_one_content_has_as_much_as_many_of_another_one() {
    let site = Site::start("unlimited");
    site.write("crowded", 12 << 20, 1);
    site.write("lonely", 3 << 20, 2);
    let (crowded, lonely) = (site.publish("crowded", &[]), site.publish("lonely", &[]));
    let up = ["--up", "2MB/s"];
    let (seeder, ..) = fetches(&site, "seeder", "crowded", &[&crowded, &lonely], &up);
    seeder.until("both contents", |v| content(v, "lonely")["complete"] == true);
    // They have no uplink to speak of: what they get comes from the seeder.
    let getters: Vec<Process> =
        (0..5).map(|n| site.get(&crowded, &format!("crowd-{n}"), &["--up", "10kB/s"])).collect();
    for getter in &getters {
        getter.until("a first piece", |v| v["bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    }
    let begun = Instant::now();
    let one = site.get(&lonely, "one", &["--up", "10kB/s"]);
    let done = one.event("complete");
    let took = begun.elapsed();
    println!("3 MiB over half of 2 MB/s took {took:?}");
    // Half of the uplink brings it in 3.2 s, a sixth would in 9.4.
    assert!(took < Duration::from_secs(6), "{took:?} beside five children of another content");
    assert_eq!(done["origin_bytes"], 0, "the seeder has all of it");
}
