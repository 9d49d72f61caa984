#![expect(clippy::disallowed_methods, reason = "tests read and write files and the clock")]

use super::*;
use std::time::Instant;
use tempfile::TempDir;

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8 ^ seed).collect()
}

fn folder(files: &[(&str, usize)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (i, (path, len)) in files.iter().enumerate() {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes(i as u8, *len)).unwrap();
    }
    dir
}

fn layout_of(files: &[(Object, PathBuf)], piece_bytes: u32) -> Layout {
    let objects: Vec<Object> = files.iter().map(|f| f.0.clone()).collect();
    Layout::new(piece_bytes, &objects).unwrap()
}

fn naive(files: &[(Object, PathBuf)], piece_bytes: usize) -> Hashed {
    let read = |(_, path): &(Object, PathBuf)| fs::read(path).unwrap();
    let pieces: Vec<Vec<u8>> =
        files.iter().flat_map(|f| read(f).chunks(piece_bytes).map(<[u8]>::to_vec).collect::<Vec<_>>()).collect();
    Hashed {
        leaves: pieces.iter().map(|p| merkle::leaf(p)).collect(),
        sums: pieces.iter().map(|p| sums::of(p)).collect(),
    }
}

#[test]
fn leaves_are_those_of_the_naive_loop() {
    let dir = folder(&[("a", 0), ("b/c", 1), ("b/d", 4096), ("b/e", 0), ("b/f", 3_000_001), ("g", 12_289), ("h", 0)]);
    let files = scan(dir.path()).unwrap();
    for piece_bytes in [4096, 65_536, 4 << 20] {
        for threads in [0, 1, 2, 5] {
            let most = AtomicU64::new(0);
            let layout = layout_of(&files, piece_bytes);
            let leaves = hash_pieces(&files, &layout, threads, &|done| {
                most.fetch_max(done, Ordering::Relaxed);
            });
            assert_eq!(leaves.unwrap(), naive(&files, piece_bytes as usize), "{piece_bytes} {threads}");
            assert_eq!(most.load(Ordering::Relaxed), layout.bytes());
        }
    }
}

#[test]
fn one_file_and_an_empty_one() {
    let dir = folder(&[("Film.MP4", 70_000), ("empty", 0)]);
    let files = scan(&dir.path().join("Film.MP4")).unwrap();
    assert_eq!(files[0].0, Object { path: "Film.MP4".into(), media_type: "video/mp4".into(), size_bytes: 70_000 });
    let leaves = hash_pieces(&files, &layout_of(&files, 65_536), 2, &|_| {}).unwrap();
    assert_eq!(leaves, naive(&files, 65_536));
    let empty = scan(&dir.path().join("empty")).unwrap();
    assert!(hash_pieces(&empty, &layout_of(&empty, 65_536), 2, &|_| {}).unwrap().leaves.is_empty());
}

#[test]
fn folders_are_sorted_by_path() {
    let dir = folder(&[("b/z.m3u8", 1), ("a", 1), ("b.txt", 2), ("b/a/x", 3)]);
    let files = scan(dir.path()).unwrap();
    let paths: Vec<&str> = files.iter().map(|f| f.0.path.as_str()).collect();
    assert_eq!(paths, ["a", "b.txt", "b/a/x", "b/z.m3u8"]);
    assert_eq!(files[3].0.media_type, "application/vnd.apple.mpegurl");
    for (object, path) in &files {
        assert_eq!(*path, dir.path().join(&object.path));
    }
}

#[test]
fn what_cannot_be_published_is_named() {
    let said = |path: &Path| scan(path).unwrap_err().to_string();
    let dir = folder(&[]);
    assert!(said(dir.path()).starts_with("no files in"));
    assert!(said(&dir.path().join("none")).contains("cannot read"));
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        for (name, expected) in [
            (&b"a\\b"[..], "a backslash, a colon"),
            (b"a:b", "a backslash, a colon"),
            (b"a\nb", "a control character"),
            (b"a\xff", "not UTF-8"),
        ] {
            let dir = folder(&[("fine", 1)]);
            let path = dir.path().join(std::ffi::OsStr::from_bytes(name));
            // Not every file system takes every name.
            if fs::write(&path, b"x").is_ok() {
                assert!(said(dir.path()).contains(expected), "{}", said(dir.path()));
            }
        }
        let dir = folder(&[("fine", 1)]);
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        assert!(said(dir.path()).contains("neither a file nor a folder"));
    }
}

#[cfg(unix)]
#[test]
fn links_are_followed_to_files_inside_only() {
    use std::os::unix::fs::symlink;
    let dir = folder(&[("in/data", 5), ("out", 6)]);
    let inside = dir.path().join("in");
    symlink("data", inside.join("link")).unwrap();
    let files = scan(&inside).unwrap();
    assert_eq!((files.len(), files[1].0.path.as_str(), files[1].0.size_bytes), (2, "link", 5));
    for (target, expected) in [("../out", "out of the folder"), (".", "to a folder"), ("missing", "cannot read")] {
        let link = inside.join("other");
        symlink(target, &link).unwrap();
        let said = scan(&inside).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn a_file_that_changes_while_it_is_hashed_is_refused() {
    let change = |how: &(dyn Fn(&Path) + Sync)| {
        let dir = folder(&[("a", 3 << 20)]);
        let files = scan(dir.path()).unwrap();
        let once = AtomicBool::new(false);
        let hashed = hash_pieces(&files, &layout_of(&files, 65_536), 1, &|_| {
            if !once.swap(true, Ordering::Relaxed) {
                how(&files[0].1);
            }
        });
        assert!(matches!(hashed, Err(HashError::Changed { .. })), "{hashed:?}");
    };
    change(&|path| File::options().write(true).open(path).unwrap().set_len(1 << 20).unwrap());
    change(&|path| File::options().write(true).open(path).unwrap().set_len(4 << 20).unwrap());
    change(&|path| {
        let later = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        File::options().write(true).open(path).unwrap().set_modified(later).unwrap();
    });
    let dir = folder(&[("a", 10)]);
    let files = scan(dir.path()).unwrap();
    assert!(matches!(hash_pieces(&files, &Layout::single(4096, 11).unwrap(), 1, &|_| {}), Err(HashError::Layout)));
    fs::write(&files[0].1, b"shorter").unwrap();
    assert!(matches!(hash_pieces(&files, &layout_of(&files, 4096), 1, &|_| {}), Err(HashError::Changed { .. })));
}

/// Measures; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn throughput() {
    const BYTES: usize = 512 << 20;
    let dir = tempfile::tempdir().unwrap();
    let data = bytes(7, BYTES);
    fs::write(dir.path().join("big"), &data).unwrap();
    let files = scan(dir.path()).unwrap();
    let layout = layout_of(&files, 64 << 10);
    let rate = |start: Instant| BYTES as f64 / 1e6 / start.elapsed().as_secs_f64();
    for _ in 0..3 {
        let start = Instant::now();
        let expected: Vec<Hash> = data.chunks(64 << 10).map(merkle::leaf).collect();
        println!("sha2 over memory, 1 thread: {:.0} MB/s", rate(start));
        let start = Instant::now();
        let sums: Vec<Sum> = data.chunks(64 << 10).map(sums::of).collect();
        println!("sums over memory, 1 thread: {:.0} MB/s for {}", rate(start), sums.len());
        for threads in [1, 2] {
            let start = Instant::now();
            let hashed = hash_pieces(&files, &layout, threads, &|_| {}).unwrap();
            println!("hash_pieces, {threads} thread(s): {:.0} MB/s", rate(start));
            assert_eq!(hashed.leaves, expected);
        }
    }
}
