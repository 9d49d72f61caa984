//! What a node keeps on its disk: quota, restarts, kills, and disks that are full, read-only or gone.

use crate::site::{Site, check};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MB: usize = 1_000_000;

fn contents(status: &Value) -> &[Value] {
    status["contents"].as_array().map_or(&[], Vec::as_slice)
}

/// Names of contents that are complete, in order.
fn complete(status: &Value) -> Vec<String> {
    let all = contents(status).iter().filter(|c| c["complete"] == true);
    let mut names: Vec<String> = all.map(|c| c["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn folders(site: &Site, who: &str) -> usize {
    fs::read_dir(site.path(&format!("{who}/contents"))).map_or(0, |entries| entries.count())
}

#[test]
fn a_waypoint_keeps_its_quota_and_what_it_has() {
    let site = Site::start("unlimited");
    let options = ["--waypoint", "--quota", "10MB"];
    let mut waypoint = site.peer("waypoint", &options);
    waypoint.until("a session", |v| v["control"] == true);
    for (name, seed) in [("a", 31), ("b", 32)] {
        site.write(name, 4 * MB, seed);
        site.publish(name, &[]);
        waypoint.until(name, |v| complete(v).contains(&name.to_owned()));
    }
    site.write("c", 4 * MB, 33);
    let c = site.publish("c", &[]);
    let status = waypoint.until("c", |v| complete(v).contains(&"c".to_owned()));
    let kept = complete(&status);
    assert_eq!(kept, ["b", "c"], "the oldest goes: {status}");
    assert!(status["storage"]["kept_bytes"].as_u64() <= Some(10 * MB as u64), "{status}");
    assert_eq!(folders(&site, "waypoint"), 2, "the evicted one still takes room");
    let swarm = site.api_json("contents/a");
    assert_eq!(swarm["members"].as_u64().unwrap_or(0), 0, "nobody is to be sent there: {swarm}");

    site.write("large", 11 * MB, 34);
    site.publish("large", &[]);
    let refused = waypoint.until("a refusal", |v| contents(v).iter().any(|c| c["state"] == "failed"));
    assert!(refused.to_string().contains("into the quota of 10 MB"), "{refused}");
    assert_eq!(complete(&refused).len(), 2, "nothing goes for what does not fit: {refused}");

    // Killed and started again, it is told to fetch everything: what had to go does not drive out what is here.
    waypoint.kill();
    let origin_bytes = |v: &Value| contents(v).iter().filter_map(|c| c["origin_bytes"].as_u64()).sum::<u64>();
    let waypoint = site.peer("waypoint", &options);
    let again = waypoint.until("its contents", |v| complete(v) == kept && contents(v).len() == 4);
    assert_eq!(origin_bytes(&again), 0, "{again}");
    let reader = site.get(&c, "reader", &[]);
    assert_eq!(reader.event("complete")["origin_bytes"], 0, "it was announced again");
}

#[test]
fn what_the_user_named_stays_and_a_smaller_quota_is_kept() {
    let site = Site::start("unlimited");
    let names: Vec<String> = [("a", 41), ("b", 42)]
        .iter()
        .map(|(name, seed)| {
            site.write(name, 4 * MB, *seed);
            site.publish(name, &[])
        })
        .collect();
    let quiet = ["--no-gateway", "--quota"];
    let fetch = ["--fetch", &names[0], "--fetch", &names[1]];
    let mut peer = site.peer("peer", &[&quiet[..], &["9MB"], &fetch].concat());
    peer.until("both", |v| complete(v) == ["a", "b"]);
    // What was being removed when it ended is removed; what is not named any more may go.
    peer.kill();
    fs::create_dir_all(site.path("peer/contents/0123.gone/files")).unwrap();
    let mut peer = site.peer("peer", &[&quiet[..], &["5MB"], &fetch[2..]].concat());
    let status = peer.until("one", |v| complete(v) == ["b"] && contents(v).len() == 1);
    assert_eq!(contents(&status)[0]["pinned"], true);
    assert_eq!(folders(&site, "peer"), 1);
    peer.kill();
    // Both are named again, but only one fits.
    let peer = site.peer("peer", &[&quiet[..], &["5MB"], &fetch].concat());
    let status = peer.until("a refusal", |v| contents(v).iter().any(|c| c["state"] == "failed"));
    assert!(status.to_string().contains("raise --quota"), "{status}");
    peer.until("the other", |v| complete(v).len() == 1);
}

#[test]
fn what_a_peer_has_is_given_out_as_files() {
    let site = Site::start("unlimited");
    site.write("film", 3 * MB, 35);
    for file in ["a", "deep/b", "deep/empty"] {
        site.write(&format!("docs/{file}"), if file.ends_with("empty") { 0 } else { 70_000 }, 36);
    }
    let (film, docs) = (site.publish("film", &[]), site.publish("docs", &[]));
    let peer = site.peer("peer", &["--no-gateway", "--fetch", &film, "--fetch", &docs]);
    peer.until("both", |v| complete(v) == ["docs", "film"]);
    let (data, out) = (site.path("peer"), |name: &str| site.path(&format!("out/{name}")));
    let export = |name: &str, to: &str, more: &[&str], code, says: &str| {
        check(&[&["export", name, "--data", &data, "-o", to][..], more].concat(), code, says);
    };
    export(&film, &out("film"), &[], 0, "3000000 bytes");
    export(&film, &out("film"), &[], 1, "already");
    export(&film, &out("linked"), &["--link"], 0, "");
    export(&docs, &out("docs"), &[], 0, "");
    for (got, original) in [("film", "film"), ("linked", "film"), ("docs/a", "docs/a"), ("docs/deep/b", "docs/deep/b")]
    {
        assert_right(&site, original, Path::new(&out(got)));
    }
    assert!(fs::read(out("docs/deep/empty")).unwrap().is_empty());
    check(&["export", &film, "--data", &site.path("www"), "-o", &out("other")], 3, "is not in");
}

/// Few here; `cargo xtask kills` has more of them.
#[test]
fn a_download_killed_again_and_again_fetches_nothing_twice() {
    let number = |variable: &str, usual: u64| std::env::var(variable).map_or(usual, |n| n.parse().unwrap());
    let (kills, mib) = (number("HEADWATER_GET_KILLS", 3), number("HEADWATER_GET_KILL_MIB", 64));
    let site = Site::start("60MB/s");
    let bytes = mib << 20;
    site.write("film", bytes as usize, 51);
    let name = site.publish("film", &[]);
    let before = site.origin_bytes();
    for kill in 1..=kills {
        let mut peer = site.get(&name, "a", &[]);
        peer.until("some more", |v| v["bytes"].as_u64() >= Some(bytes * kill / (kills + 1)));
        peer.kill();
    }
    let last = site.get(&name, "a", &[]);
    last.event("complete");
    assert!(site.same("a", "film"));
    let sent = site.origin_bytes() - before;
    let percent = 100.0 * (sent as f64 / bytes as f64 - 1.0);
    println!("{kills} kills of a get of {mib} MiB: the origin sent {sent} bytes, {percent:.2} % more than the file");
    // What is on its way when the process dies is lost; what was written is not.
    assert!(sent - bytes <= kills * (2 << 20), "{sent} bytes of {bytes}");
}

#[test]
fn a_data_folder_that_is_taken_away_and_comes_back() {
    let site = Site::start("4MB/s");
    site.write("film", 10 * MB, 61);
    let name = site.publish("film", &[]);
    let peer = site.peer("peer", &["--no-gateway", "--fetch", &name]);
    peer.until("the middle", |v| contents(v).iter().any(|c| c["bytes"].as_u64() > Some(2 * MB as u64)));
    fs::rename(site.path("peer"), site.path("away")).unwrap();
    let failed = peer.until("an error", |v| contents(v).iter().any(|c| c["state"] == "failed"));
    let said = failed.to_string();
    assert!(said.contains("taken away") || said.contains("No such file"), "{said}");
    assert!(!Path::new(&site.path("peer/contents")).exists(), "something new was made in its place");
    let _ = fs::remove_dir_all(site.path("peer"));
    fs::rename(site.path("away"), site.path("peer")).unwrap();
    let done = peer.until("the end", |v| contents(v).iter().any(|c| c["complete"] == true));
    assert_right(&site, "film", &file_of(&site.path("peer"), &done));
}

/// A disk of so many MB at `at`, where the system lets us mount one; unmounted in the end.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &str, megabytes: u32) -> Option<Disk> {
        let disk = Disk(at.into());
        fs::create_dir_all(at).unwrap();
        if disk.ran(&format!("mount -t tmpfs -o size={megabytes}m tmpfs")) {
            return Some(disk);
        }
        println!("skipped: this user may not mount a tmpfs");
        std::mem::forget(disk);
        None
    }

    fn ran(&self, command: &str) -> bool {
        let mut words = command.split(' ');
        let ran = Command::new(words.next().unwrap()).args(words).arg(&self.0).output();
        ran.is_ok_and(|output| output.status.success())
    }

    /// One that can be taken away and brought back: an ext4 in a file.
    fn removable(image: &str, at: &str) -> Option<Disk> {
        let disk = Disk(at.into());
        fs::create_dir_all(at).unwrap();
        fs::File::create(image).unwrap().set_len(32 << 20).unwrap();
        let formatted = Command::new("mkfs.ext4").args(["-q", image]).output().is_ok_and(|o| o.status.success());
        if formatted && disk.ran(&format!("mount -o loop {image}")) {
            return Some(disk);
        }
        println!("skipped: this user may not mount an ext4");
        std::mem::forget(disk);
        None
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 65536]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.ran("umount -l");
    }
}

/// Where the data of a peer's one-file content lies.
fn file_of(data: &str, status: &Value) -> PathBuf {
    let complete = contents(status).iter().find(|c| c["complete"] == true).unwrap();
    let folder = Path::new(data).join("contents").join(complete["content"].as_str().unwrap()).join("files");
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

fn assert_right(site: &Site, file: &str, got: &Path) {
    assert!(fs::read(got).unwrap() == fs::read(site.path(&format!("www/{file}"))).unwrap(), "{file} is not right");
}

#[test]
fn a_disk_that_is_unmounted_and_mounted_again() {
    let site = Site::start("4MB/s");
    site.write("film", 10 * MB, 62);
    let name = site.publish("film", &[]);
    let (image, folder) = (site.path("image"), site.path("peer"));
    let Some(disk) = Disk::removable(&image, &folder) else { return };
    let peer = site.peer("peer", &["--no-gateway", "--quota", "50MB", "--fetch", &name]);
    peer.until("the middle", |v| contents(v).iter().any(|c| c["bytes"].as_u64() > Some(2 * MB as u64)));
    assert!(disk.ran("umount -l"));
    let failed = peer.until("an error", |v| contents(v).iter().any(|c| c["state"] == "failed"));
    let said = failed.to_string();
    assert!(said.contains("taken away") || said.contains("No such file"), "{said}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "something new was made in its place");
    assert!(disk.ran(&format!("mount -o loop {image}")));
    let done = peer.until("the end", |v| contents(v).iter().any(|c| c["complete"] == true));
    assert_right(&site, "film", &file_of(&folder, &done));
}

#[test]
fn a_full_disk_stops_one_content_until_there_is_room() {
    let site = Site::start("4MB/s");
    site.write("small", 2 * MB, 71);
    site.write("film", 10 * MB, 72);
    let small = site.publish("small", &[]);
    let film = site.publish("film", &[]);
    let Some(disk) = Disk::mount(&site.path("peer"), 24) else { return };
    let peer = site.peer("peer", &["--no-gateway", "--quota", "50MB", "--fetch", &small, "--fetch", &film]);
    peer.until("the small one and the middle of the other", |v| {
        complete(v) == ["small"]
            && contents(v).iter().any(|c| c["name"] == "film" && c["bytes"].as_u64() > Some(2 << 20))
    });
    disk.fill();
    let failed = peer.until("an error", |v| contents(v).iter().any(|c| c["state"] == "failed"));
    assert!(failed.to_string().contains("no room left on the disk"), "{failed}");
    assert_eq!(complete(&failed), ["small"], "the other content goes on");
    let reader = site.get(&small, "reader", &[]);
    assert_eq!(reader.event("complete")["origin_bytes"], 0, "the other content is still served");
    disk.make_room();
    let done = peer.until("the end", |v| complete(v) == ["film", "small"]);
    let film = contents(&done).iter().find(|c| c["name"] == "film").unwrap();
    let path = format!("peer/contents/{}/files/film", film["content"].as_str().unwrap());
    assert_right(&site, "film", Path::new(&site.path(&path)));
}

#[test]
fn a_download_to_a_full_disk_ends_and_the_same_command_goes_on() {
    let site = Site::start("4MB/s");
    site.write("film", 10 * MB, 81);
    let name = site.publish("film", &[]);
    let Some(disk) = Disk::mount(&site.path("a"), 16) else { return };
    let mut get = site.get(&name, "a", &[]);
    get.until("the middle", |v| v["bytes"].as_u64() > Some(3 * MB as u64));
    disk.fill();
    let error = get.event("error");
    assert!(error["error"].as_str().unwrap().contains("no room left on the disk"), "{error}");
    assert_eq!(get.code(), 1);
    // While it is full the command says so at once.
    let output = site.path("a/out");
    check(&["get", &name, "-o", &output, "--listen", "127.0.0.1:0"], 1, "room");
    disk.make_room();
    let before = site.origin_bytes();
    let get = site.get(&name, "a", &[]);
    get.event("complete");
    assert!(site.same("a", "film"));
    assert!(site.origin_bytes() - before < 8 * MB as u64, "it began anew");
}

#[test]
fn a_read_only_disk_is_told() {
    let site = Site::start("unlimited");
    site.write("film", 3 * MB, 91);
    let name = site.publish("film", &[]);
    let Some(disk) = Disk::mount(&site.path("peer"), 24) else { return };
    let mut peer = site.peer("peer", &["--no-gateway", "--quota", "50MB", "--fetch", &name]);
    peer.until("the film", |v| complete(v) == ["film"]);
    peer.kill();
    assert!(disk.ran("mount -o remount,ro"));
    // A peer whose disk is read-only says so, and goes on when it is not any more.
    let peer = site.peer("peer", &["--no-gateway", "--quota", "50MB", "--fetch", &name]);
    let failed = peer.until("an error", |v| contents(v).iter().any(|c| c["state"] == "failed"));
    assert!(failed.to_string().contains("Read-only file system"), "{failed}");
    assert!(failed.to_string().contains("make it writable"), "{failed}");
    assert!(disk.ran("mount -o remount,rw"));
    let done = peer.until("the film again", |v| complete(v) == ["film"]);
    assert_eq!(contents(&done)[0]["origin_bytes"], 0);
}

/// What a folder and all in it take of the disk.
fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |path: PathBuf| match path.symlink_metadata() {
        Ok(m) if m.is_dir() => disk_bytes(&path),
        Ok(m) => 512 * m.blocks(),
        Err(_) => 0,
    };
    entries.map(|e| of(e.path())).sum()
}

#[test]
fn versions_keep_to_the_quota_together() {
    let site = Site::start("unlimited");
    site.write("film", 4 * MB, 51);
    let name = site.publish("film", &[]);
    let peer = site.peer("peer", &["--no-gateway", "--quota", "6MB", "--fetch", &name]);
    let before = peer.until("the first", |v| complete(v) == ["film"]);
    site.write("film", 4 * MB, 52);
    site.publish("film", &[]);
    // Hashes, journal and log are little beside.
    let limit = 6 * MB as u64 + 500_000;
    let most = std::cell::Cell::new(0);
    let newer = |v: &Value| {
        most.set(most.get().max(disk_bytes(Path::new(&site.path("peer/contents")))));
        complete(v) == ["film"] && contents(v)[0]["epoch"] != contents(&before)[0]["epoch"]
    };
    peer.until("the second", newer);
    assert!(most.get() <= limit, "{} bytes of {limit}", most.get());

    // One that fits in no case costs nothing of what is here.
    site.write("film", 7 * MB, 53);
    site.publish("film", &[]);
    peer.until("a refusal", |v| contents(v).iter().any(|c| c["state"] == "failed"));
    assert!(disk_bytes(Path::new(&site.path("peer/contents"))) >= 4 * MB as u64);
}
