//! New versions of a content: what is equal is taken from what is here.

use crate::site::{Site, check};
use serde_json::Value;

const MIB: usize = 1 << 20;

/// Rewrites a file of the origin's.
fn change(site: &Site, file: &str, how: impl Fn(&mut Vec<u8>)) {
    let path = site.path(&format!("www/{file}"));
    let mut data = std::fs::read(&path).unwrap();
    how(&mut data);
    std::fs::write(path, data).unwrap();
}

/// Three percent of it in ten places.
fn overwrite(data: &mut [u8]) {
    let (step, some) = (data.len() / 10, data.len() * 3 / 1000);
    for place in 0..10 {
        data[place * step + 4321..][..some].iter_mut().for_each(|b| *b ^= 0xA5);
    }
}

/// A hundred thousand bytes in the middle.
fn insert(data: &mut Vec<u8>) {
    let middle = data.len() / 2 + 777;
    data.splice(middle..middle, (0..100_000u32).map(|n| ((n * n) >> 7) as u8));
}

/// At most a twentieth was fetched, and the rest taken from what is here.
fn check_reuse(status: &Value) {
    let bytes = |field: &str| status[field].as_u64().unwrap();
    let fetched = ["origin_bytes", "peer_bytes", "waypoint_bytes", "wasted_bytes"].map(bytes).iter().sum::<u64>();
    assert!(fetched > 0 && fetched * 20 <= bytes("total"), "{fetched} bytes were fetched: {status}");
    assert!(bytes("reused_bytes") + fetched >= bytes("total"), "{status}");
}

#[test]
fn an_updated_file_fetches_only_what_changed() {
    let site = Site::start("unlimited");
    site.write("image", 24 * MIB, 41);
    let publish = || site.publish("image", &["--piece-size", "16KiB"]);
    let get = |who: &str, more: &[&str]| {
        let name = publish();
        let mut got = site.get(&name, who, &[&["--seed-time", "0s"], more].concat());
        let done = got.event("complete");
        assert_eq!(got.code(), 0);
        assert!(site.same(who, "image"));
        done
    };
    assert_eq!(get("reader", &[])["reused_bytes"], 0);
    change(&site, "image", |data| overwrite(data));
    let done = get("reader", &[]);
    check_reuse(&done);
    assert!(done["notes"].to_string().contains("% (") && done["notes"].to_string().contains("taken from"), "{done}");
    change(&site, "image", insert);
    check_reuse(&get("reader", &[]));

    // One that is named is only read; a file that is here already is not fetched at all.
    let (old, other) = (site.path("reader/out"), site.path("copies"));
    std::fs::create_dir(&other).unwrap();
    std::fs::copy(&old, format!("{other}/image.old")).unwrap();
    change(&site, "image", insert);
    check_reuse(&get("elsewhere", &["--have", &other]));
    let again = get("elsewhere", &[]);
    assert_eq!((again["origin_bytes"].as_u64(), again["reused_bytes"].as_u64()), (Some(0), again["total"].as_u64()));
    let name = publish();
    let nowhere = site.path("nowhere");
    check(&["get", &name, "-o", &site.path("x"), "--have", &nowhere], 1, "does not exist");
}

#[test]
fn a_resident_peer_updates_by_itself() {
    let site = Site::start("unlimited");
    site.write("image", 24 * MIB, 42);
    let name = site.publish("image", &["--piece-size", "16KiB"]);
    let peers = [
        site.peer("resident", &["--gateway", "127.0.0.1:0", "--fetch", &name]),
        site.peer("waypoint", &["--waypoint"]),
    ];
    let complete = |v: &Value| v["contents"][0]["complete"] == true;
    let mut epochs: Vec<Value> =
        peers.iter().map(|p| p.until("everything", complete)["contents"][0]["epoch"].clone()).collect();
    for how in [&(|data: &mut Vec<u8>| overwrite(data)) as &dyn Fn(&mut Vec<u8>), &insert] {
        change(&site, "image", how);
        site.publish("image", &["--piece-size", "16KiB"]);
        let new = std::fs::read(site.path("www/image")).unwrap();
        for (peer, epoch) in peers.iter().zip(&mut epochs) {
            let newer = |v: &Value| complete(v) && v["contents"][0]["epoch"] != *epoch;
            let status = peer.until("the new version", newer)["contents"][0].clone();
            check_reuse(&status);
            let content = format!("{}/contents/{}", peer.name, status["content"].as_str().unwrap());
            let data = site.path(&format!("{content}/{}/files/image", status["epoch"]));
            assert!(std::fs::read(data).unwrap() == new, "{} has other bytes", peer.name);
            // The former version goes, once its store is closed.
            let of_versions = || {
                let names = std::fs::read_dir(site.path(&content)).unwrap().map(|e| e.unwrap().file_name());
                // What is of the content stays: its name, and when it was last used.
                names.filter(|name| name != "name" && name != "used").count()
            };
            peer.until("only the new version", |_| of_versions() == 1);
            *epoch = status["epoch"].clone();
        }
    }
}

#[test]
fn files_that_move_are_not_fetched_again() {
    let site = Site::start("unlimited");
    for n in 0..20 {
        site.write(&format!("docs/{n}.bin"), 10_000 + n * 7_001, 50 + n as u64);
    }
    let name = site.publish("docs", &[]);
    site.get(&name, "reader", &["--seed-time", "0s"]).event("complete");
    let www = |file: &str| site.path(&format!("www/docs/{file}"));
    std::fs::create_dir(www("moved")).unwrap();
    for n in 0..20 {
        let (from, to) = (www(&format!("{n}.bin")), www(&format!("moved/{}.dat", 19 - n)));
        std::fs::rename(from, to).unwrap();
    }
    site.write("docs/new.txt", 5_000, 99);
    let old = site.path("reader/out");
    let name = site.publish("docs", &[]);
    let done = site.get(&name, "later", &["--have", &old, "--seed-time", "0s"]).event("complete");
    assert_eq!(done["origin_bytes"], 5_000, "{done}");
    let same = |file: &str| {
        std::fs::read(site.path(&format!("later/out/{file}"))).unwrap() == std::fs::read(www(file)).unwrap()
    };
    assert!((0..20).all(|n| same(&format!("moved/{n}.dat"))) && same("new.txt"));
}
