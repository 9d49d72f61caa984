use super::*;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

fn folder(files: &[(&str, usize)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, len) in files {
        let path = dir.path().join("it").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, (0..*len).map(|i| (i * 31 + i / 251) as u8).collect::<Vec<u8>>()).unwrap();
    }
    dir
}

fn key() -> PublisherKey {
    PublisherKey::create(&tempfile::tempdir().unwrap().path().join("key")).unwrap()
}

fn urls(texts: &[&str]) -> Vec<Url> {
    texts.iter().map(|t| Url::parse(t).unwrap()).collect()
}

fn prepared(path: &Path, origins: &[&str]) -> Result<StaticLog, PublishError> {
    prepare(path, "films/one", &key(), &urls(origins), Some(4096), 1_700_000_000_000, 2, &|_, _| {})
}

#[test]
fn a_file_becomes_a_log_that_is_believed() {
    let dir = folder(&[("film.mp4", 300_000)]);
    let key = key();
    let most = AtomicU64::new(0);
    let made = prepare(
        &dir.path().join("it/film.mp4"),
        "films/one",
        &key,
        &urls(&["https://o.example/film.mp4?v=1#top", "http://p.example/films/"]),
        None,
        1_700_000_000_000,
        2,
        &|done, all| {
            assert_eq!(all, 300_000);
            most.fetch_max(done, Ordering::Relaxed);
        },
    )
    .unwrap();
    assert_eq!(most.load(Ordering::Relaxed), 300_000);
    let track = made.log.verify("films/one", Some(&key.fingerprint())).unwrap();
    assert_eq!(
        (track.layout.piece_bytes(), track.layout.pieces(), track.version.epoch),
        (65_536, 5, 1_700_000_000_000)
    );
    assert_eq!(track.objects[0].media_type, "video/mp4");
    assert_eq!(track.origins, ["https://o.example/film.mp4?v=1", "http://p.example/films/film.mp4"]);
    assert_eq!(made.log.entries[0].entry.track, TRACK);
}

#[test]
fn many_files_take_several_entries_each_over_all_leaves_so_far() {
    let names: Vec<String> = (0..2500).map(|i| format!("d{}/f{i}", i % 7)).collect();
    let files: Vec<(&str, usize)> = names.iter().enumerate().map(|(i, n)| (n.as_str(), i % 9000)).collect();
    let dir = folder(&files);
    let made = prepared(&dir.path().join("it"), &["http://o.example/x/?sig=1"]).unwrap();
    let entries: Vec<&Entry> = made.log.entries.iter().map(|e| &e.entry).collect();
    assert_eq!(entries.iter().map(|e| e.objects.len()).collect::<Vec<_>>(), [1024, 1024, 452]);
    assert_eq!(entries.iter().map(|e| e.last).collect::<Vec<_>>(), [false, false, true]);
    for e in entries {
        assert_eq!(e.root, merkle::root(&made.leaves[..e.leaves as usize]), "entry {}", e.number);
    }
    assert_eq!(made.verify("films/one", None).unwrap().origins(), ["http://o.example/x/?sig=1"]);
}

#[test]
fn a_folder_of_one_file_names_the_file_as_origin() {
    let dir = folder(&[("a b/ü.txt", 10)]);
    let made = prepared(&dir.path().join("it"), &["http://o.example/x?sig=1"]).unwrap();
    assert_eq!(made.log.entries[0].entry.origins, ["http://o.example/x/a%20b/%C3%BC.txt?sig=1"]);
}

#[test]
fn what_cannot_be_published_is_said() {
    let dir = folder(&[("f", 10), ("empty/none", 0)]);
    let (file, empty) = (dir.path().join("it/f"), dir.path().join("it/empty"));
    let said = |result: Result<StaticLog, PublishError>, expected: &str| {
        let said = result.unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    };
    let named = |name: &str, piece| prepare(&file, name, &key(), &[], piece, 1, 1, &|_, _| {});
    said(named("", None), "it is empty");
    said(named(&"n".repeat(1025), None), "longer than 1,024");
    said(named("a\nb", None), "control character");
    said(named("a", Some(5000)), "power of two");
    said(prepared(&empty, &[]), "nothing to deliver");
    said(prepared(&dir.path().join("no"), &[]), "cannot read");
    said(prepared(&file, &["ftp://o.example/f"]), "no http or https");
    said(prepared(&file, &["mailto:f"]), "no http or https");
    let secret = prepared(&file, &["https://me:hunter2@o.example/f"]).unwrap_err().to_string();
    assert!(secret.contains("--origin-header") && !secret.contains("hunter2"), "{secret}");
    said(prepared(&file, &["https://o.example/f"; 9]), "9 origins");
    said(prepared(&file, &[&format!("https://o.example/{}", "f".repeat(5000))]), "4,096 bytes");
}

#[test]
fn a_list_of_files_that_is_too_long_is_refused_before_hashing() {
    let long = "n".repeat(200);
    let names: Vec<String> = (0..20_000).map(|i| format!("{long}{i}")).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|n| (n.as_str(), 1)).collect();
    let dir = folder(&files);
    let hashed = AtomicU64::new(0);
    let count = |_, _| {
        hashed.fetch_add(1, Ordering::Relaxed);
    };
    let said = prepare(&dir.path().join("it"), "n", &key(), &[], None, 1, 1, &count).unwrap_err().to_string();
    assert!(said.contains("20000 files") && said.contains("archive"), "{said}");
    assert_eq!(hashed.load(Ordering::Relaxed), 0);
}

#[test]
fn the_static_log_stands_beside_what_it_is_of() {
    let dir = folder(&[("film.mp4", 10_000)]);
    let (path, root) = (dir.path().join("it/film.mp4"), dir.path().canonicalize().unwrap());
    let made = prepared(&path, &[]).unwrap();
    let written = write_beside(&path, &made).unwrap();
    assert_eq!(written, dir.path().join("it/film.mp4.hwlog"));
    assert_eq!(StaticLog::decode(&fs::read(&written).unwrap()).unwrap(), made);
    assert_eq!(write_beside(&path, &made).unwrap(), written, "a second version replaces the first");
    for folder in ["it", "it/", "it/."] {
        assert_eq!(write_beside(&dir.path().join(folder), &made).unwrap(), dir.path().join("it.hwlog"));
    }
    fs::create_dir(dir.path().join("it/sub")).unwrap();
    assert_eq!(write_beside(&dir.path().join("it/sub/.."), &made).unwrap(), root.join("it.hwlog"));
    fs::create_dir(dir.path().join("it/taken.hwlog")).unwrap();
    let said = write_beside(&dir.path().join("it/taken"), &made).unwrap_err().to_string();
    assert!(said.contains("taken.hwlog") && said.contains("writable"), "{said}");
    let mut left: Vec<_> = fs::read_dir(dir.path().join("it")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["film.mp4", "film.mp4.hwlog", "sub", "taken.hwlog"], "no partial file stays");
}

#[test]
fn urls_of_objects() {
    let check = |origin: &str, count: usize, path: &str, expected: &str| {
        let url = object_url(&Url::parse(origin).unwrap(), count, path);
        assert_eq!(url.as_str(), expected);
    };
    check("https://o/f.mp4?sig=a%2Fb", 1, "other", "https://o/f.mp4?sig=a%2Fb");
    check("https://o/f#x", 1, "f", "https://o/f");
    check("https://o/x", 2, "a/b.c", "https://o/x/a/b.c");
    check("https://o/x/", 2, "a", "https://o/x/a");
    check("https://o", 2, "a", "https://o/a");
    check("https://o/", 2, "a", "https://o/a");
    check("https://o/x/?sig=1&b=2#frag", 2, "a", "https://o/x/a?sig=1&b=2");
    check("https://o/x", 2, "a b/c?d#e/100%25", "https://o/x/a%20b/c%3Fd%23e/100%2525");
    check("https://o/x", 2, "ä/…", "https://o/x/%C3%A4/%E2%80%A6");
    check("https://o/x", 2, "..a/...", "https://o/x/..a/...");
    check("https://o/x", 2, "%2e%2e/%2E", "https://o/x/%252e%252e/%252E");
}
