#![expect(clippy::disallowed_methods, reason = "tests read and write files and the clock")]

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use headwater_model::log::Object;
use headwater_model::{ContentId, Version};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const PIECE: usize = 4096;

/// A content, its data, and a place on disk for it.
struct Fixture {
    dir: TempDir,
    track: Track,
    data: Vec<Vec<u8>>,
    destination: Destination,
}

impl Fixture {
    fn folder(files: &[(&str, usize)]) -> Fixture {
        let data: Vec<Vec<u8>> =
            files.iter().enumerate().map(|(i, (_, len))| (0..*len).map(|b| (b / 7 + b + i) as u8).collect()).collect();
        let objects: Vec<Object> = files
            .iter()
            .map(|(path, len)| Object { path: (*path).into(), media_type: String::new(), size_bytes: *len as u64 })
            .collect();
        let leaves: Vec<Hash> = data.iter().flat_map(|d| d.chunks(PIECE).map(merkle::leaf)).collect();
        let track = Track {
            version: Version { content: ContentId([3; 32]), epoch: 5 },
            name: "n".into(),
            layout: Layout::new(PIECE as u32, &objects).unwrap(),
            objects,
            root: merkle::root(&leaves),
            origins: vec![],
            sums: None,
        };
        let dir = tempfile::tempdir().unwrap();
        let destination = Destination::Folder(dir.path().join("data"));
        Fixture { dir, track, data, destination }
    }

    fn file(bytes: usize) -> Fixture {
        let mut f = Fixture::folder(&[("f", bytes)]);
        f.destination = Destination::File(f.path("out.bin"));
        f
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self) -> Result<(Store, Opened), StoreError> {
        Store::open(&self.track, &self.destination, &self.path("state"), &mut |_, _| {})
    }

    fn pages(&self) -> Vec<Page> {
        let leaves: Vec<Hash> = self.data.iter().flat_map(|d| d.chunks(PIECE).map(merkle::leaf)).collect();
        merkle::cut_pages(&leaves, &[])
    }

    /// Opened, with all hash pages.
    fn ready(&self) -> Store {
        let (store, _) = self.open().unwrap();
        for page in self.pages() {
            assert_ne!(store.put_page(page).unwrap(), Written::Bad);
        }
        store
    }

    fn piece(&self, piece: u32) -> &[u8] {
        let at = self.track.layout.at(piece).unwrap();
        &self.data[at.object][at.offset as usize..][..at.len as usize]
    }

    fn write(&self, store: &Store, pieces: impl IntoIterator<Item = u32>) {
        for piece in pieces {
            assert_eq!(store.write(piece, self.piece(piece)).unwrap(), Written::Stored, "{piece}");
        }
    }

    fn check_held(&self, store: &Store, expected: &[u32]) {
        assert_eq!(store.have().iter().collect::<Vec<_>>(), expected);
        let mut out = [0; PIECE];
        for piece in 0..self.track.layout.pieces() {
            let len = store.read(piece, &mut out).unwrap();
            let right: &[u8] = if expected.contains(&piece) { self.piece(piece) } else { &[] };
            assert!(out[..len] == *right, "{piece}");
        }
    }

    /// Changes a byte of `piece` on disk; the time is set as clocks of file systems are coarse, and to the past as this
    /// store may itself have written just now.
    fn spoil(&self, store_files: &Files, piece: u32) {
        let at = self.track.layout.at(piece).unwrap();
        let part = store_files.part_path(at.object);
        let path = if part.exists() { part } else { store_files.path(at.object).to_owned() };
        let file = File::options().write(true).open(path).unwrap();
        write_at(&file, &[!self.piece(piece)[0]], at.offset).unwrap();
        static SECONDS: AtomicU64 = AtomicU64::new(1_000_000);
        let time = Duration::from_secs(SECONDS.fetch_sub(1, Ordering::Relaxed));
        file.set_modified(std::time::UNIX_EPOCH + time).unwrap();
    }

    fn is_whole(&self) -> bool {
        let Destination::Folder(folder) = &self.destination else { panic!("a folder") };
        self.track.objects.iter().zip(&self.data).all(|(o, data)| {
            let part = folder.join(format!("{}.part", o.path));
            fs::read(folder.join(&o.path)).is_ok_and(|d| d == *data) && !part.exists()
        })
    }
}

/// As after a kill: nothing is closed.
fn kill(store: Store) {
    drop(store);
}

#[test]
fn a_file_is_written_read_and_renamed() {
    let f = Fixture::file(3 * PIECE + 10);
    let (store, opened) = f.open().unwrap();
    assert_eq!(opened, Opened::default());
    assert_eq!(store.write(0, f.piece(0)).unwrap(), Written::NoHash);
    for page in f.pages() {
        assert_eq!(store.put_page(page.clone()).unwrap(), Written::Stored);
        assert_eq!(store.put_page(page).unwrap(), Written::Already);
    }
    f.write(&store, [3, 0, 1]);
    f.check_held(&store, &[0, 1, 3]);
    assert!(!store.is_complete() && f.path("out.bin.part").exists() && !f.path("out.bin").exists());
    f.write(&store, [2]);
    assert_eq!(store.write(2, f.piece(2)).unwrap(), Written::Already);
    assert!(store.is_complete() && !f.path("out.bin.part").exists());
    assert_eq!(fs::read(f.path("out.bin")).unwrap(), f.data[0]);
    f.check_held(&store, &[0, 1, 2, 3]);
    drop(store);
    let (store, opened) = f.open().unwrap();
    assert_eq!((opened.held, opened.verified, opened.notes), (4, 0, vec![]), "complete is clean, even if killed");
    f.check_held(&store, &[0, 1, 2, 3]);
}

#[test]
fn a_folder_has_nested_and_empty_files() {
    let f = Fixture::folder(&[("a", 5000), ("b/c/d", 0), ("b/c/e", 1), ("b/f", 2 * PIECE), ("z", 0)]);
    let store = f.ready();
    assert!(f.path("data/b/c/d").exists() && f.path("data/z").exists());
    for piece in 0..store.layout().pieces() {
        assert!(!store.is_complete());
        f.write(&store, [piece]);
    }
    assert!(store.is_complete() && f.is_whole());
}

#[test]
fn a_content_without_bytes_is_complete_at_once() {
    for f in [Fixture::folder(&[("a", 0), ("b/c", 0)]), Fixture::folder(&[])] {
        let (store, _) = f.open().unwrap();
        assert!(store.is_complete() && f.is_whole());
        store.close().unwrap();
    }
    assert!(matches!(
        Files::new(&Fixture::folder(&[]).track, &Destination::File("x".into())),
        Err(StoreError::NotOneFile { files: 0 })
    ));
}

#[test]
fn an_object_may_be_called_like_a_part() {
    let f = Fixture::folder(&[("x", PIECE), ("x.PART", PIECE), ("x.part2", PIECE)]);
    let store = f.ready();
    f.write(&store, 0..3);
    assert!(store.is_complete());
    for (o, data) in f.track.objects.iter().zip(&f.data) {
        assert_eq!(fs::read(f.path("data").join(&o.path)).unwrap(), *data);
    }
}

#[test]
fn wrong_bytes_are_refused_before_anything_is_written() {
    let f = Fixture::file(3 * PIECE);
    let store = f.ready();
    let mut bad = f.piece(1).to_vec();
    bad[9] ^= 1;
    assert_eq!(store.write(1, &bad).unwrap(), Written::Bad);
    assert_eq!(store.write(1, &f.piece(1)[1..]).unwrap(), Written::Bad);
    assert_eq!(store.write(2, f.piece(1)).unwrap(), Written::Bad);
    assert_eq!(store.write(3, f.piece(1)).unwrap(), Written::Bad);
    assert_eq!(store.write(u32::MAX, &[]).unwrap(), Written::Bad);
    let mut page = f.pages().remove(0);
    page.leaves[0].0[0] ^= 1;
    assert_eq!(store.put_page(page).unwrap(), Written::Bad);
    assert!(!f.path("out.bin.part").exists());
    assert!(matches!(store.read(0, &mut []), Ok(0)));
    f.write(&store, [0]);
    assert!(store.read(0, &mut [0; 10]).is_err());
}

#[test]
fn an_unclean_end_is_verified_and_kept() {
    let f = Fixture::file(10 * PIECE);
    let store = f.ready();
    f.write(&store, 0..6);
    kill(store);
    let mut told = Vec::new();
    let (store, opened) =
        Store::open(&f.track, &f.destination, &f.path("state"), &mut |done, all| told.push((done, all))).unwrap();
    assert_eq!((opened.held, opened.verified, opened.dropped), (6, 6, 0));
    assert_eq!(told.last(), Some(&(6 * PIECE as u64, 6 * PIECE as u64)));
    f.check_held(&store, &[0, 1, 2, 3, 4, 5]);
    store.close().unwrap();
    assert!(matches!(store.write(7, f.piece(7)), Err(StoreError::Closed)));
    let (store, opened) = f.open().unwrap();
    assert_eq!((opened.held, opened.verified), (6, 0), "closed cleanly");
    f.write(&store, [6]);
    drop(store);
    let (_, opened) = f.open().unwrap();
    assert_eq!((opened.held, opened.verified), (7, 1), "only what was written since is hashed");
}

#[test]
fn a_byte_that_rots_on_disk_is_found() {
    let f = Fixture::file(10 * PIECE);
    let store = f.ready();
    f.write(&store, 0..9);
    f.spoil(&store.files, 4);
    store.checkpoint().unwrap();
    assert!(store.recheck(3).unwrap() && !store.recheck(4).unwrap() && !store.recheck(4).unwrap());
    f.check_held(&store, &[0, 1, 2, 3, 5, 6, 7, 8]);
    f.write(&store, [4]);
    f.spoil(&store.files, 7);
    kill(store);
    let (store, opened) = f.open().unwrap();
    assert_eq!((opened.verified, opened.dropped, opened.notes.len()), (9, 1, 1));
    f.write(&store, [9]);
    store.close().unwrap();
    f.spoil(&store.files, 2);
    drop(store);
    let (store, opened) = f.open().unwrap();
    assert_eq!((opened.held, opened.verified, opened.dropped), (8, 9, 1), "a changed file is not believed clean");
    f.write(&store, [2, 7]);
    assert_eq!(fs::read(f.path("out.bin")).unwrap(), f.data[0]);
}

#[test]
fn a_finished_file_is_repaired_in_place_unless_somebody_changed_it() {
    let f = Fixture::folder(&[("a", 3 * PIECE), ("b", PIECE)]);
    let store = f.ready();
    f.write(&store, 0..4);
    f.spoil(&store.files, 1);
    store.files.restamp(0); // Rot changes no times.
    assert!(!store.recheck(1).unwrap());
    f.check_held(&store, &[0, 2, 3]);
    f.write(&store, [1]);
    assert!(store.is_complete() && f.is_whole());

    fs::write(f.path("data/a"), b"edited").unwrap();
    assert!(matches!(store.recheck(1), Err(StoreError::Vanished { .. })));
    assert!(matches!(store.write(0, f.piece(0)), Err(StoreError::Vanished { .. })));
    f.check_held(&store, &[3]);
    assert_eq!(fs::read(f.path("data/a")).unwrap(), b"edited");
    store.close().unwrap();
    drop(store);
    fs::remove_file(f.path("data/b")).unwrap();
    let (store, opened) = f.open().unwrap();
    assert_eq!((opened.held, opened.dropped), (0, 1), "the loss of a was saved before");
    f.check_held(&store, &[]);
}

#[test]
fn a_part_that_was_taken_away_is_told() {
    let f = Fixture::file(3 * PIECE);
    let store = f.ready();
    f.write(&store, 0..2);
    fs::remove_file(f.path("out.bin.part")).unwrap();
    assert!(matches!(store.write(2, f.piece(2)), Err(StoreError::Vanished { .. })));
    assert!(!store.is_complete() && store.have().is_empty());
}

#[test]
fn a_damaged_state_counts_as_none() {
    let f = Fixture::file(3 * PIECE);
    let store = f.ready();
    f.write(&store, 0..2);
    store.close().unwrap();
    drop(store);
    let whole = fs::read(f.path("state/state")).unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..whole.len()).map(|n| whole[..n].to_vec()).collect();
    damaged.extend((0..whole.len()).map(|n| {
        let mut bytes = whole.clone();
        bytes[n] ^= 4;
        bytes
    }));
    damaged.push([&whole[..], &[0; 4096]].concat());
    for bytes in damaged {
        fs::write(f.path("state/state"), &bytes).unwrap();
        let (store, opened) = f.open().unwrap();
        assert_eq!((opened.held, opened.notes.len()), (0, 1), "{}", bytes.len());
        assert_eq!(opened.importable_bytes, 3 * PIECE as u64);
        assert_eq!(store.import(&mut |_, _| {}).unwrap(), 2, "the data is still there");
    }
}

#[test]
fn damaged_pages_are_dropped_and_the_others_kept() {
    let f = Fixture::file(1100 * PIECE);
    let store = f.ready();
    f.write(&store, [0, 600, 1099]);
    store.close().unwrap();
    drop(store);
    let state = fs::read(f.path("state/state")).unwrap();
    let whole = fs::read(f.path("state/pages")).unwrap();
    for n in (0..whole.len()).step_by(977).chain([whole.len() - 1]) {
        fs::write(f.path("state/state"), &state).unwrap();
        fs::write(f.path("state/pages"), &whole[..n]).unwrap();
        let (store, opened) = f.open().unwrap();
        let known = (0..3).filter(|p| store.has_page(*p)).count() as u32;
        assert!(known < 3 && opened.held == known && opened.dropped == 3 - known, "{n} {known}");
    }
    let mut bad = whole.clone();
    bad[whole.len() / 2] ^= 1;
    fs::write(f.path("state/pages"), &bad).unwrap();
    let (store, opened) = f.open().unwrap();
    assert_eq!([0, 1, 2].map(|p| store.has_page(p)), [true, false, true]);
    assert_eq!(store.page(2).as_deref(), f.pages().get(2));
    assert!(opened.notes[0].contains("hash pages"));
    for page in f.pages() {
        store.put_page(page).unwrap();
    }
    drop(store);
    assert!((0..3).all(|p| f.open().unwrap().0.has_page(p)), "the file was mended");
}

#[test]
fn another_version_starts_anew() {
    let mut f = Fixture::file(3 * PIECE);
    let store = f.ready();
    f.write(&store, 0..2);
    store.close().unwrap();
    drop(store);
    f.track.version.epoch += 1;
    let (store, opened) = f.open().unwrap();
    assert_eq!((opened.held, opened.notes.len()), (0, 1));
    assert!(opened.notes[0].contains("another version"));
    assert_eq!(store.import(&mut |_, _| {}).unwrap(), 2, "what is equal needs no fetching");
}

#[test]
fn a_second_opener_is_refused() {
    let f = Fixture::file(PIECE);
    let (store, _) = f.open().unwrap();
    assert!(matches!(f.open(), Err(StoreError::InUse { .. })));
    store.close().unwrap();
    assert!(f.open().is_ok());
}

#[test]
fn a_file_from_before_is_imported() {
    for spoilt in [false, true] {
        let f = Fixture::file(5 * PIECE);
        fs::write(f.path("out.bin"), &f.data[0]).unwrap();
        let (store, opened) = f.open().unwrap();
        assert_eq!((opened.held, opened.importable_bytes), (0, 5 * PIECE as u64));
        assert_eq!(store.import(&mut |_, _| {}).unwrap(), 0, "no hashes yet");
        if spoilt {
            f.spoil(&store.files, 3);
        }
        for page in f.pages() {
            store.put_page(page).unwrap();
        }
        assert_eq!(store.import(&mut |_, _| {}).unwrap(), if spoilt { 0 } else { 5 });
        if spoilt {
            let reused = store.reuse(&[f.path("out.bin")], &mut |_| true).unwrap();
            assert_eq!(reused.bytes, 4 * PIECE as u64);
        }
        assert_eq!(f.path("out.bin.part").exists(), spoilt);
        if spoilt {
            f.write(&store, [3]);
        }
        assert!(store.is_complete());
        assert_eq!(fs::read(f.path("out.bin")).unwrap(), f.data[0]);
    }
}

#[test]
fn killed_between_renaming_and_checkpoint() {
    let f = Fixture::file(5 * PIECE);
    let store = f.ready();
    f.write(&store, 0..4);
    store.checkpoint().unwrap();
    let state = fs::read(f.path("state/state")).unwrap();
    f.write(&store, [4]);
    kill(store);
    fs::write(f.path("state/state"), state).unwrap();
    fs::write(f.path("state/journal"), 4u32.to_le_bytes()).unwrap();
    let (store, opened) = f.open().unwrap();
    assert!(store.is_complete());
    assert_eq!((opened.verified, opened.dropped), (1, 0));
}

/// What is held and hashed again after pieces 0 to 4 reached a checkpoint, 4 to 7 were written since and the journal was
/// left as `journal` makes it.
fn check_journal(journal: impl Fn(Vec<u8>) -> Option<Vec<u8>>, held: u32, verified: u32) {
    let f = Fixture::file(10 * PIECE);
    let store = f.ready();
    f.write(&store, 0..4);
    store.checkpoint().unwrap();
    assert!(!f.path("state/journal").exists(), "a checkpoint says it all");
    f.write(&store, 4..7);
    kill(store);
    let path = f.path("state/journal");
    match journal(fs::read(&path).unwrap()) {
        Some(bytes) => fs::write(&path, bytes).unwrap(),
        None => fs::remove_file(&path).unwrap(),
    }
    let (store, opened) = f.open().unwrap();
    assert_eq!((opened.held, opened.verified, opened.dropped), (held, verified, 0));
    store.checkpoint().unwrap();
    assert!(!path.exists());
    f.check_held(&store, &(0..held).collect::<Vec<_>>());
}

#[test]
fn a_journal_may_be_cut_off_or_hold_anything() {
    check_journal(Some, 7, 3);
    check_journal(|whole| Some(whole[..11].to_vec()), 6, 2);
    check_journal(|whole| Some([&[0xFF; 8], &whole[..], &[9, 0, 0, 0]].concat()), 7, 4);
    // The power failed before its words reached the disk: what was in flight is fetched again, the rest is believed.
    check_journal(|_| Some(vec![]), 4, 0);
    // The state reached the disk, but was not yet forgotten in the journal.
    check_journal(|whole| Some([&[0, 0, 0, 0], &whole[..]].concat()), 7, 4);
}

#[test]
fn a_change_that_the_journal_does_not_explain_has_the_file_hashed() {
    let f = Fixture::file(10 * PIECE);
    let store = f.ready();
    f.write(&store, 0..4);
    store.checkpoint().unwrap();
    f.write(&store, 4..7);
    kill(store);
    let part = File::options().write(true).open(f.path("out.bin.part")).unwrap();
    write_at(&part, &[!f.piece(2)[0]], 2 * PIECE as u64).unwrap();
    part.set_modified(std::time::SystemTime::now() + 2 * resume::LONGEST_WRITE).unwrap();
    let (store, opened) = f.open().unwrap();
    assert_eq!((opened.held, opened.verified, opened.dropped), (6, 7, 1));
    f.check_held(&store, &[0, 1, 3, 4, 5, 6]);
}

#[test]
fn a_sync_that_fails_has_pieces_fetched_again() {
    let f = Fixture::folder(&[("a", 5 * PIECE), ("b", 5 * PIECE)]);
    let store = f.ready();
    f.write(&store, [0, 1, 5]);
    store.checkpoint().unwrap();
    f.write(&store, [2, 3, 6]);
    store.distrust(&mut store.writer().unwrap(), 0);
    f.check_held(&store, &[0, 1, 5, 6]);
    kill(store);
    let (store, opened) = f.open().unwrap();
    assert_eq!((opened.held, opened.verified), (4, 1));
    f.write(&store, [2, 3, 4, 7, 8, 9]);
    assert!(store.is_complete() && f.is_whole());
}

#[test]
fn checkpoints_are_made_while_pieces_are_written() {
    let f = Fixture::file(600 * PIECE);
    let store = f.ready();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| f.write(&store, 0..590));
        while !writing.is_finished() {
            store.checkpoint().unwrap();
        }
    });
    kill(store);
    let (store, opened) = f.open().unwrap();
    assert_eq!((opened.held, opened.dropped), (590, 0));
    f.check_held(&store, &(0..590).collect::<Vec<_>>());
}

#[test]
fn a_publisher_serves_its_own_files() {
    let f = Fixture::folder(&[("a", 5000), ("b", 0)]);
    fs::create_dir_all(f.path("data")).unwrap();
    fs::write(f.path("data/a"), &f.data[0]).unwrap();
    fs::write(f.path("data/b"), b"").unwrap();
    let store = f.ready();
    store.adopt().unwrap();
    f.check_held(&store, &[0, 1]);
    drop(store);
    assert_eq!(f.open().unwrap().1.held, 2);
    fs::write(f.path("data/a"), b"x").unwrap();
    assert!(matches!(f.ready().adopt(), Err(StoreError::Vanished { .. })));
}

#[test]
fn more_objects_than_open_files() {
    let names: Vec<String> = (0..200).map(|i| format!("{}/{i}", i % 7)).collect();
    let f = Fixture::folder(&names.iter().map(|n| (n.as_str(), PIECE + 1)).collect::<Vec<_>>());
    let store = f.ready();
    f.write(&store, (0..400).step_by(2));
    f.write(&store, (1..400).step_by(2));
    assert!(store.is_complete() && f.is_whole());
    f.check_held(&store, &(0..400).collect::<Vec<_>>());
}

#[test]
fn system_errors_get_their_names() {
    let name = |kind: io::ErrorKind| failed("write", Path::new("p"), kind.into());
    assert!(matches!(name(io::ErrorKind::StorageFull), StoreError::DiskFull { .. }));
    assert!(matches!(name(io::ErrorKind::QuotaExceeded), StoreError::DiskFull { .. }));
    assert!(matches!(name(io::ErrorKind::PermissionDenied), StoreError::NotWritable { .. }));
    assert!(matches!(name(io::ErrorKind::ReadOnlyFilesystem), StoreError::NotWritable { .. }));
    assert!(matches!(name(io::ErrorKind::Other), StoreError::Io { .. }));
    let f = Fixture::file(PIECE);
    fs::create_dir(f.path("out.bin")).unwrap();
    assert!(matches!(f.open(), Err(StoreError::NotWritable { .. })));
    assert!(room_for(&f.path("not/there/yet"), 1).is_ok());
    let said = room_for(f.dir.path(), u64::MAX).unwrap_err().to_string();
    assert!(said.contains("not enough room in") && said.contains("MB free"), "{said}");
}

#[cfg(unix)]
#[test]
fn an_unwritable_folder_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let f = Fixture::file(PIECE);
    let folder = f.path("locked");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    if File::create(folder.join("probe")).is_ok() {
        eprintln!("SKIPPED: this user may write everywhere");
        return;
    }
    let f = Fixture { destination: Destination::File(folder.join("out.bin")), ..f };
    let said = f.ready().write(0, f.piece(0)).unwrap_err();
    assert!(matches!(&said, StoreError::NotWritable { path, .. } if path.starts_with(&folder)), "{said}");
}

/// A disk of one MB, where the system lets us mount one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_and_a_read_only_disk_are_told() {
    let mount = |options: &str, at: &Path| {
        let ran = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        ran.is_ok_and(|o| o.status.success())
    };
    let mut f = Fixture::file(400 * PIECE);
    let disk = f.path("disk");
    fs::create_dir(&disk).unwrap();
    if !mount("size=1m", &disk) {
        eprintln!("SKIPPED: this user may not mount a tmpfs");
        return;
    }
    f.destination = Destination::File(disk.join("out.bin"));
    let store = f.ready();
    let mut done = 0..400;
    let error = done.find_map(|piece| store.write(piece, f.piece(piece)).err());
    assert!(matches!(error, Some(StoreError::DiskFull { .. })), "{error:?}");
    let held = store.have();
    assert!(held.ones() > 100 && !store.is_complete());
    store.close().unwrap();
    drop(store);
    assert_eq!(f.open().unwrap().0.have(), held);
    assert!(mount("remount,ro", &disk));
    let error = f.ready().write(399, f.piece(399));
    assert!(matches!(error, Err(StoreError::NotWritable { .. })), "{error:?}");
    assert!(std::process::Command::new("umount").arg(&disk).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_a_handle() {
    let f = Arc::new(Fixture::file(1500 * PIECE - 5));
    let store = StoreHandle::start(f.open().unwrap().0, Arc::default());
    for page in f.pages() {
        assert_eq!(store.put_page(page).await.unwrap(), Written::Stored);
    }
    let tasks: Vec<_> = (0..1500u32)
        .map(|piece| {
            let (f, store) = (f.clone(), store.clone());
            tokio::spawn(async move {
                let data = Bytes::copy_from_slice(f.piece(piece));
                assert_eq!(store.read(piece).await.unwrap(), None);
                assert_eq!(store.write(piece, data.clone()).await.unwrap(), Written::Stored);
                assert_eq!(store.read(piece).await.unwrap(), Some(data));
                assert!(store.recheck(piece).await.unwrap());
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(store.is_complete());
    assert_eq!(store.read(1500).await.unwrap(), None);
    assert_eq!(store.import(|_, _| {}).await.unwrap(), 0);
    let kept = store.read(0).await.unwrap().unwrap();
    let headed = store.read_after(0, *b"head").await.unwrap().unwrap();
    assert_eq!((&headed[..4], &headed[4..]), (&b"head"[..], &kept[..]));
    store.close().await.unwrap();
    assert!(matches!(store.write(0, kept.clone()).await, Err(StoreError::Closed)));
    assert!(matches!(store.close().await, Err(StoreError::Closed)));
    assert_eq!(store.read(1).await.unwrap().as_deref(), Some(f.piece(1)), "serving goes on");
    drop(store);
    assert_eq!(kept, f.piece(0));
    assert_eq!(f.open().unwrap().1.held, 1500);
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_store() {
    let f = Fixture::file(3 * PIECE);
    let store = StoreHandle::start(f.ready(), Arc::default());
    store.write(1, Bytes::copy_from_slice(f.piece(1))).await.unwrap();
    drop(store);
    let (_, opened) = loop {
        match f.open() {
            Err(StoreError::InUse { .. }) => std::thread::yield_now(),
            opened => break opened.unwrap(),
        }
    };
    assert_eq!((opened.held, opened.verified), (1, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Write(u32),
    WriteWrong(u32),
    Recheck(u32),
    Checkpoint,
    Reopen { cleanly: bool, spoil: Option<u32> },
}

fn step() -> impl Strategy<Value = Step> {
    let piece = || 0u32..16;
    prop_oneof![
        6 => piece().prop_map(Step::Write),
        1 => piece().prop_map(Step::WriteWrong),
        1 => piece().prop_map(Step::Recheck),
        1 => Just(Step::Checkpoint),
        2 => (any::<bool>(), prop::option::of(piece())).prop_map(|(cleanly, spoil)| Step::Reopen { cleanly, spoil }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn never_claims_what_is_not_there(steps in prop::collection::vec(step(), 1..60)) {
        let f = Fixture::folder(&[("a", 6 * PIECE + 1), ("b/c", 0), ("b/d", 3), ("e", 8 * PIECE - 1)]);
        let pieces = f.track.layout.pieces();
        assert_eq!(pieces, 16);
        let mut store = f.ready();
        let mut held = BTreeSet::new();
        for step in steps {
            match step {
                Step::Write(p) => {
                    let expected = if held.insert(p) { Written::Stored } else { Written::Already };
                    prop_assert_eq!(store.write(p, f.piece(p)).unwrap(), expected);
                }
                Step::WriteWrong(p) => {
                    let expected = if held.contains(&p) { Written::Already } else { Written::Bad };
                    prop_assert_eq!(store.write(p, &vec![0xEE; f.piece(p).len()]).unwrap(), expected);
                }
                Step::Recheck(p) => prop_assert_eq!(store.recheck(p).unwrap(), held.contains(&p)),
                Step::Checkpoint => store.checkpoint().unwrap(),
                Step::Reopen { cleanly, spoil } => {
                    if cleanly {
                        store.close().unwrap();
                    }
                    if let Some(p) = spoil.filter(|p| held.contains(p)) {
                        f.spoil(&store.files, p);
                        held.remove(&p);
                    }
                    drop(store);
                    store = f.ready();
                    let found: BTreeSet<u32> = store.have().iter().collect();
                    prop_assert_eq!(&found, &held);
                }
            }
            prop_assert_eq!(store.is_complete(), held.len() == 16);
        }
        f.check_held(&store, &held.iter().copied().collect::<Vec<_>>());
        f.write(&store, (0..pieces).filter(|p| !held.contains(p)));
        prop_assert!(store.is_complete() && f.is_whole());
    }
}
