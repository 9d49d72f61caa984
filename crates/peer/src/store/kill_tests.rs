//! A process that writes to a store is killed at random moments, and a small disk fills up at random moments. What is
//! counted: pieces that the store says it holds and that are wrong, and pieces that had been acknowledged and are gone.
//!
//! `cargo xtask kills` runs long series of the same.
#![expect(clippy::disallowed_methods, reason = "tests read and write files and the clock")]

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use headwater_model::log::{Object, Track};
use headwater_model::merkle::{self, Page};
use headwater_model::rng::Rng;
use headwater_model::{ContentId, Hash, Layout, Version};

use super::{Destination, Opened, Store, StoreError, Written};

const PIECE: usize = 64 * 1024;
/// Tells the child where to write; its presence makes a child of this test program.
const FOLDER: &str = "HEADWATER_STORE_LOAD_FOLDER";
/// Rounds of a series.
const RUNS: &str = "HEADWATER_STORE_RUNS";
const SEED: &str = "HEADWATER_STORE_SEED";

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// A content of which every byte follows from its place: one large file, some small ones, an empty one.
struct Load {
    folder: PathBuf,
    track: Track,
    pages: Vec<Page>,
}

impl Load {
    fn new(folder: &Path, large_bytes: u64, small: u32) -> Load {
        let mut objects = vec![object("large", large_bytes), object("deep/empty", 0)];
        objects.extend((0..small).map(|n| object(&format!("small/{n}"), 100_001)));
        let layout = Layout::new(PIECE as u32, &objects).unwrap();
        let leaves: Vec<Hash> = (0..layout.pieces()).map(|p| merkle::leaf(&data(p, layout.piece_len(p)))).collect();
        let track = Track {
            version: Version { content: ContentId([7; 32]), epoch: 1 },
            name: "load".into(),
            layout,
            objects,
            root: merkle::root(&leaves),
            origins: vec![],
            sums: None,
        };
        Load { folder: folder.into(), track, pages: merkle::cut_pages(&leaves, &[]) }
    }

    fn open(&self) -> Result<(Store, Opened), StoreError> {
        let destination = Destination::Folder(self.folder.join("data"));
        Store::open(&self.track, &destination, &self.folder.join("state"), &mut |_, _| {})
    }

    /// Pieces that are held and wrong, by reading and hashing each of them.
    fn wrong(&self, store: &Store) -> usize {
        let mut out = vec![0; PIECE];
        let is_wrong = |piece: &u32| {
            let len = store.read(*piece, &mut out).unwrap();
            out[..len] != data(*piece, self.track.layout.piece_len(*piece))
        };
        store.have().iter().filter(is_wrong).count()
    }

    /// Writes what is missing, and compares all files by their SHA-256.
    fn complete(&self, store: &Store) {
        for page in &self.pages {
            store.put_page(page.clone()).unwrap();
        }
        let layout = &self.track.layout;
        for piece in 0..layout.pieces() {
            assert_ne!(store.write(piece, &data(piece, layout.piece_len(piece))).unwrap(), Written::Bad);
        }
        assert!(store.is_complete());
        for (at, object) in self.track.objects.iter().enumerate() {
            let on_disk = fs::read(self.folder.join("data").join(&object.path)).unwrap();
            let right: Vec<u8> = layout.pieces_of_object(at).flat_map(|p| data(p, layout.piece_len(p))).collect();
            assert_eq!(Hash::of(&[&on_disk]), Hash::of(&[&right]), "{}", object.path);
        }
    }
}

fn object(path: &str, size_bytes: u64) -> Object {
    Object { path: path.into(), media_type: String::new(), size_bytes }
}

fn data(piece: u32, len: u32) -> Vec<u8> {
    let mut rng = Rng::new(u64::from(piece), "data");
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
    bytes.truncate(len as usize);
    bytes
}

fn kill_load(folder: &Path) -> Load {
    Load::new(folder, 40 << 20, 60)
}

/// The process that is killed. It writes in random order while checkpoints are made often, and says what was written in
/// the file `acknowledged`.
#[test]
#[ignore = "started by `killed_at_random_moments`, to be killed"]
fn child_that_writes() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let load = kill_load(Path::new(&folder));
    let mut rng = Rng::new(number(SEED, 1), "writes");
    let (store, _) = load.open().unwrap();
    for page in &load.pages {
        store.put_page(page.clone()).unwrap();
    }
    let have = store.have();
    let mut missing: Vec<u32> = (0..load.track.layout.pieces()).filter(|p| !have.get(*p)).collect();
    rng.shuffle(&mut missing);
    let mut acknowledged = OpenOptions::new().create(true).append(true).open(load.folder.join("acknowledged")).unwrap();
    let pause = Duration::from_micros(rng.below(40_000));
    let (working, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let store = &store;
        scope.spawn(move || {
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                store.checkpoint().unwrap();
            }
        });
        for piece in missing {
            let written = store.write(piece, &data(piece, load.track.layout.piece_len(piece))).unwrap();
            assert_eq!(written, Written::Stored);
            acknowledged.write_all(&piece.to_le_bytes()).unwrap();
        }
        drop(working);
    });
    store.close().unwrap();
}

fn acknowledged(folder: &Path) -> BTreeSet<u32> {
    let bytes = fs::read(folder.join("acknowledged")).unwrap_or_default();
    let (numbers, _) = bytes.as_chunks::<4>();
    numbers.iter().map(|n| u32::from_le_bytes(*n)).collect()
}

#[derive(Default, Debug)]
struct Counts {
    /// Acknowledged before the kill, by the process that was killed.
    acknowledged: usize,
    /// Held after it, and wrong.
    wrong: usize,
    /// Acknowledged and not held after it.
    lost: usize,
    /// Hashed again when the store was opened.
    hashed: usize,
    /// Held after it.
    held: usize,
    /// Contents that were completed.
    completed: usize,
}

#[test]
fn killed_at_random_moments() {
    let (runs, first_seed) = (number(RUNS, 12), number(SEED, 1));
    let dir = tempfile::tempdir().unwrap();
    let mut counts = Counts::default();
    let begun = Instant::now();
    for seed in first_seed..first_seed + runs {
        kill_once(dir.path(), seed, &mut counts);
        assert_eq!((counts.wrong, counts.lost), (0, 0), "seed {seed}: {counts:?}");
    }
    let load = kill_load(dir.path());
    load.complete(&load.open().unwrap().0);
    println!(
        "{runs} kills from seed {first_seed} in {:.1} s: {counts:?}; SHA-256 right",
        begun.elapsed().as_secs_f64()
    );
}

/// Starts a child, kills it, and looks at what it left.
fn kill_once(folder: &Path, seed: u64, counts: &mut Counts) {
    let mut rng = Rng::new(seed, "kill");
    let before = acknowledged(folder);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["store::kill_tests::child_that_writes", "--exact", "--ignored", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(SEED, seed.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // A third dies while it starts and resumes, the others after so many writes.
    let load = kill_load(folder);
    let writes = rng.below(u64::from(load.track.layout.pieces()) * 3 / 4);
    let patience = match rng.below(3) {
        0 => Duration::from_micros(rng.below(200_000)),
        _ => Duration::from_secs(30),
    };
    let begun = Instant::now();
    let path = folder.join("acknowledged");
    let enough = 4 * (before.len() as u64 + writes);
    while begun.elapsed() < patience
        && fs::metadata(&path).map_or(0, |m| m.len()) < enough
        && child.try_wait().unwrap().is_none()
    {
        std::thread::sleep(Duration::from_micros(100));
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let said = acknowledged(folder);
    let (store, opened) = load.open().unwrap();
    counts.acknowledged += said.len() - before.len();
    counts.wrong += load.wrong(&store);
    counts.lost += said.iter().filter(|p| !store.has(**p)).count();
    counts.hashed += opened.verified as usize;
    counts.held += opened.held as usize;
    if store.is_complete() {
        load.complete(&store);
        counts.completed += 1;
        drop(store);
        for name in ["data", "state"] {
            fs::remove_dir_all(folder.join(name)).unwrap();
        }
        fs::remove_file(path).unwrap();
    } else if rng.below(2) == 0 {
        // As often, whoever looked at it is killed as well.
        store.close().unwrap();
    }
}

/// A file system of a few tens of MB, for as long as this lives.
#[cfg(target_os = "linux")]
struct SmallDisk {
    at: PathBuf,
    kind: &'static str,
}

#[cfg(target_os = "linux")]
impl SmallDisk {
    /// An ext4 in a file where the system can mount one, else a tmpfs.
    fn mount(dir: &Path, mib: u64) -> Option<SmallDisk> {
        let (at, image) = (dir.join("disk"), dir.join("image"));
        fs::create_dir_all(&at).unwrap();
        let ran = |command: &mut Command| command.output().is_ok_and(|o| o.status.success());
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let formatted = ran(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image));
        if formatted && ran(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at)) {
            return Some(SmallDisk { at, kind: "ext4" });
        }
        let size = format!("size={mib}m");
        let tmpfs = ran(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at));
        tmpfs.then_some(SmallDisk { at, kind: "tmpfs" })
    }

    /// Leaves so much room at most, with a file that is removed later.
    fn fill(&self, leave_bytes: u64) {
        let free = fs4::available_space(&self.at).unwrap();
        let mut file = File::create(self.at.join("filler")).unwrap();
        let mut left = free.saturating_sub(leave_bytes);
        let chunk = vec![1; 16 * 1024];
        while left > 0 && file.write_all(&chunk[..chunk.len().min(left as usize)]).is_ok() {
            left = left.saturating_sub(chunk.len() as u64);
        }
    }

    fn make_room(&self) {
        let _ = fs::remove_file(self.at.join("filler"));
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_disk_fills_up_at_random_moments() {
    let (runs, first_seed) = (number(RUNS, 12), number(SEED, 1));
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path(), 32) else {
        eprintln!("SKIPPED: this user may not mount a file system");
        return;
    };
    let load = Load::new(&disk.at, 12 << 20, 20);
    let (mut counts, mut full) = (Counts::default(), 0);
    let mut written = BTreeSet::new();
    let (mut store, _) = load.open().unwrap();
    for seed in first_seed..first_seed + runs {
        let mut rng = Rng::new(seed, "disk");
        let before = written.len();
        full += usize::from(fill_once(&disk, &load, &store, &mut written, &mut rng));
        if rng.below(3) > 0 {
            // Killed or ended, then opened while there is no room or when there is some again.
            if rng.below(2) == 0 {
                let _ = store.close();
            }
            drop(store);
            if rng.below(2) == 0 {
                disk.make_room();
            }
            let (again, opened) = load.open().unwrap();
            store = again;
            counts.hashed += opened.verified as usize;
            counts.held += opened.held as usize;
        }
        counts.wrong += load.wrong(&store);
        counts.lost += written.iter().filter(|p| !store.has(**p)).count();
        counts.acknowledged += written.len() - before;
        assert_eq!((counts.wrong, counts.lost), (0, 0), "seed {seed}: {counts:?}");
        disk.make_room();
        if store.is_complete() {
            load.complete(&store);
            drop(store);
            fs::remove_dir_all(disk.at.join("data")).unwrap();
            fs::remove_dir_all(disk.at.join("state")).unwrap();
            (written, counts.completed) = (BTreeSet::new(), counts.completed + 1);
            store = load.open().unwrap().0;
        }
    }
    load.complete(&store);
    println!("{runs} rounds from seed {first_seed} on {}, {full} times full: {counts:?}; SHA-256 right", disk.kind);
}

/// Writes pieces while the disk fills up; whether it came to that.
#[cfg(target_os = "linux")]
fn fill_once(disk: &SmallDisk, load: &Load, store: &Store, written: &mut BTreeSet<u32>, rng: &mut Rng) -> bool {
    for page in &load.pages {
        if let Err(error) = store.put_page(page.clone()) {
            assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
        }
    }
    let have = store.have();
    let mut missing: Vec<u32> = (0..load.track.layout.pieces()).filter(|p| !have.get(*p)).collect();
    rng.shuffle(&mut missing);
    let fill_after = rng.below(80);
    let checkpoint_after = rng.below(100);
    for (count, piece) in missing.into_iter().enumerate() {
        if count as u64 == fill_after {
            disk.fill(rng.below(1 << 20));
        }
        if count as u64 == checkpoint_after {
            let saved = store.checkpoint();
            assert!(matches!(saved, Ok(()) | Err(StoreError::DiskFull { .. })), "{saved:?}");
        }
        match store.write(piece, &data(piece, load.track.layout.piece_len(piece))) {
            Ok(Written::Stored) => {
                written.insert(piece);
            }
            Ok(other) => panic!("{other:?}"),
            Err(StoreError::DiskFull { .. }) => return true,
            Err(error) => panic!("{error}"),
        }
    }
    false
}
