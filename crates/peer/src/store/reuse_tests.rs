//! Pieces taken from files that are here, and files that are not what they were.
#![expect(clippy::disallowed_methods, reason = "tests read and write files")]

use super::*;
use crate::store::{Destination, Opened};
use headwater_model::log::{Object, Track};
use headwater_model::rng::Rng;
use headwater_model::sums::{self, Sum};
use headwater_model::{ContentId, Layout, Version, merkle};
use tempfile::TempDir;

const PIECE: usize = 4096;

/// A version of a content, in memory.
struct Sample {
    files: Vec<(&'static str, Vec<u8>)>,
    track: Track,
    leaves: Vec<Hash>,
    sums: Vec<Sum>,
}

fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed, "bytes");
    (0..len).map(|_| rng.below(256) as u8).collect()
}

impl Sample {
    fn new(files: Vec<(&'static str, Vec<u8>)>) -> Sample {
        let object = |(path, data): &(&str, Vec<u8>)| Object {
            path: (*path).into(),
            media_type: String::new(),
            size_bytes: data.len() as u64,
        };
        let objects: Vec<Object> = files.iter().map(object).collect();
        let pieces = || files.iter().flat_map(|(_, data)| data.chunks(PIECE));
        let (leaves, sums): (Vec<Hash>, Vec<Sum>) = pieces().map(|p| (merkle::leaf(p), sums::of(p))).unzip();
        let track = Track {
            version: Version { content: ContentId([3; 32]), epoch: 6 },
            name: "n".into(),
            layout: Layout::new(PIECE as u32, &objects).unwrap(),
            objects,
            root: merkle::root(&leaves),
            origins: vec![],
            sums: Some(sums::root(&sums)),
        };
        Sample { files, track, leaves, sums }
    }

    /// A store with all pages, whose data goes to the folder `data`.
    fn open(&self, dir: &TempDir) -> (Store, Opened) {
        let data = Destination::Folder(dir.path().join("data"));
        let (store, opened) = Store::open(&self.track, &data, &dir.path().join("state"), &mut |_, _| {}).unwrap();
        for page in merkle::cut_pages(&self.leaves, &self.sums) {
            assert_ne!(store.put_page(page).unwrap(), Written::Bad);
        }
        (store, opened)
    }

    fn check_held(&self, store: &Store) {
        let mut out = vec![0; PIECE];
        for piece in store.have().iter() {
            let len = store.read(piece, &mut out).unwrap();
            assert_eq!(merkle::leaf(&out[..len]), self.leaves[piece as usize], "{piece}");
        }
    }

    fn is_whole(&self, dir: &TempDir) -> bool {
        self.files.iter().all(|(path, data)| fs::read(dir.path().join("data").join(path)).unwrap() == *data)
    }
}

fn put(dir: &TempDir, path: &str, data: &[u8]) -> PathBuf {
    let path = dir.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, data).unwrap();
    path
}

/// A file of 300 pieces and its next version, with 1,000 bytes more in the middle.
fn versions() -> (Vec<u8>, Sample) {
    let before = random(1, 300 * PIECE + 99);
    let mut after = before.clone();
    after.splice(600_000..600_000, random(2, 1000));
    (before, Sample::new(vec![("f", after)]))
}

#[test]
fn an_old_version_stays_until_the_new_one_is_complete() {
    let (before, sample) = versions();
    let dir = tempfile::tempdir().unwrap();
    let old = put(&dir, "data/f", &before);
    let (store, _) = sample.open(&dir);
    let mut told = 0;
    let reused = store
        .reuse(std::slice::from_ref(&old), &mut |bytes| {
            told = bytes;
            true
        })
        .unwrap();
    assert_eq!((reused.bytes, &reused.from), (told, &vec![(old.clone(), told)]));
    assert_eq!(store.have().ones() + 1, store.layout().pieces());
    assert!(fs::read(&old).unwrap() == before, "untouched");
    drop(store);
    // After a kill what was taken is there, and is not looked for again.
    let (store, opened) = sample.open(&dir);
    assert_eq!(opened.held + 1, store.layout().pieces());
    let again = store.reuse(&plain_files(&[dir.path().join("data")]), &mut |_| true).unwrap();
    assert_eq!((again.bytes, again.from), (0, vec![]));
    let missing = (0..store.layout().pieces()).find(|p| !store.has(*p)).unwrap();
    let at = missing as usize * PIECE;
    store.write(missing, &sample.files[0].1[at..at + PIECE]).unwrap();
    assert!(sample.is_whole(&dir));
}

#[test]
fn two_files_that_change_places_are_found() {
    let (a, b) = (random(3, 40_000), random(4, 30_000));
    let dir = tempfile::tempdir().unwrap();
    put(&dir, "data/a", &a);
    put(&dir, "data/b", &b);
    let sample = Sample::new(vec![("a", b), ("b", a)]);
    let (store, _) = sample.open(&dir);
    let reused = store.reuse(&plain_files(&[dir.path().join("data")]), &mut |_| true).unwrap();
    assert_eq!(reused.bytes, 70_000);
    assert!(store.is_complete() && sample.is_whole(&dir));
}

#[test]
fn a_file_that_changes_meanwhile_gives_what_is_true() {
    let (before, sample) = versions();
    for what in ["overwritten", "truncated", "removed", "grown"] {
        let dir = tempfile::tempdir().unwrap();
        let old = put(&dir, "old", &before);
        let (store, _) = sample.open(&dir);
        let mut done = false;
        let reused = store.reuse(std::slice::from_ref(&old), &mut |bytes| {
            if bytes > 100 * PIECE as u64 && !std::mem::replace(&mut done, true) {
                match what {
                    "overwritten" => fs::write(&old, random(9, before.len())).unwrap(),
                    "truncated" => fs::write(&old, &before[..10]).unwrap(),
                    "removed" => fs::remove_file(&old).unwrap(),
                    _ => fs::write(&old, [&before[..], &before[..]].concat()).unwrap(),
                }
            }
            true
        });
        assert!(reused.unwrap().bytes > 100 * PIECE as u64, "{what}");
        assert!(done);
        sample.check_held(&store);
    }
}

#[test]
fn a_search_ends_when_it_is_told_to() {
    let (before, sample) = versions();
    let dir = tempfile::tempdir().unwrap();
    let old = put(&dir, "old", &before);
    let (store, _) = sample.open(&dir);
    let ended = store.reuse(std::slice::from_ref(&old), &mut |bytes| bytes < 50 * PIECE as u64);
    assert!(matches!(ended, Err(StoreError::Closed)));
    assert_eq!(store.have().ones(), 50);
    let bytes = store.reuse(&[old], &mut |_| true).unwrap().bytes;
    assert_eq!(bytes, store.layout().bytes() - 51 * PIECE as u64, "the rest");
}

#[test]
fn what_cannot_be_read_is_told_and_passed_over() {
    let (before, sample) = versions();
    let dir = tempfile::tempdir().unwrap();
    let (good, gone) = (put(&dir, "old/good", &before), dir.path().join("gone"));
    let (store, _) = sample.open(&dir);
    let reused = store.reuse(&[gone, dir.path().join("old"), good], &mut |_| true).unwrap();
    assert_eq!((reused.unread.len(), reused.from.len()), (2, 1), "{:?}", reused.unread);
    assert_eq!(store.have().ones() + 1, store.layout().pieces());
    assert_eq!(plain_files(&[dir.path().join("nothing")]), Vec::<PathBuf>::new());
}

#[test]
fn a_version_smaller_than_a_piece_and_one_that_is_here_already() {
    let dir = tempfile::tempdir().unwrap();
    let small = Sample::new(vec![("f", random(5, 700))]);
    let old = put(&dir, "old", &[random(6, 50_000), small.files[0].1.clone()].concat());
    let (store, _) = small.open(&dir);
    assert_eq!(store.reuse(&[old], &mut |_| true).unwrap().bytes, 700);
    assert!(small.is_whole(&dir));

    let dir = tempfile::tempdir().unwrap();
    let (_, sample) = versions();
    let here = put(&dir, "data/f", &sample.files[0].1);
    let (store, _) = sample.open(&dir);
    let reused = store.reuse(std::slice::from_ref(&here), &mut |_| true).unwrap();
    assert_eq!(reused.bytes, sample.files[0].1.len() as u64);
    assert!(store.is_complete() && !dir.path().join("data/f.part").exists(), "adopted where it lies");
}
