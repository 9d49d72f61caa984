use super::*;
use headwater_model::log::Object;
use headwater_model::rng::Rng;
use proptest::prelude::*;
use std::convert::Infallible;

const PIECE: usize = 4096;

/// A content in memory.
struct Sample {
    data: Vec<Vec<u8>>,
    layout: Layout,
    leaves: Vec<Hash>,
    sums: Vec<Sum>,
}

fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed, "bytes");
    (0..len).map(|_| rng.below(256) as u8).collect()
}

impl Sample {
    fn new(data: Vec<Vec<u8>>) -> Sample {
        let object = |d: &Vec<u8>| Object { path: "p".into(), media_type: String::new(), size_bytes: d.len() as u64 };
        let layout = Layout::new(PIECE as u32, &data.iter().map(object).collect::<Vec<_>>()).unwrap();
        let pieces = || data.iter().flat_map(|d| d.chunks(PIECE));
        let (leaves, sums) = (pieces().map(merkle::leaf).collect(), pieces().map(sums::of).collect());
        Sample { layout, leaves, sums, data }
    }
    fn piece(&self, piece: u32) -> &[u8] {
        self.data.iter().flat_map(|d| d.chunks(PIECE)).nth(piece as usize).unwrap()
    }
    fn finder(&self, have: &Bits) -> Finder {
        Finder::new(self.layout.clone(), &self.leaves, self.sums.clone(), have)
    }
    /// What is found in the files `old`, read by `chunk` bytes, and how many checks were in vain.
    fn search(&self, mut finder: Finder, old: &[Vec<u8>], chunk: usize) -> (Vec<u32>, u64) {
        let (mut found, mut vain) = (Vec::new(), 0);
        let mut check = |piece: u32, data: &[u8]| {
            let right = merkle::leaf(data) == self.leaves[piece as usize];
            if right {
                found.push(piece)
            } else {
                vain += 1
            }
            Ok::<_, Infallible>(right)
        };
        for file in old {
            finder.begin();
            let (mut held, mut rest) = (Vec::new(), &file[..]);
            loop {
                let (some, later) = rest.split_at(chunk.min(rest.len()));
                held.extend_from_slice(some);
                rest = later;
                let done = finder.search(&held, rest.is_empty(), &mut check).unwrap();
                held.drain(..done);
                if rest.is_empty() {
                    break;
                }
            }
            assert!(held.is_empty(), "all of a file is done with");
        }
        found.sort_unstable();
        assert_eq!(finder.left(), finder.missing.ones());
        (found, vain)
    }
    fn all_but(&self, found: &[u32]) -> Vec<u32> {
        (0..self.layout.pieces()).filter(|p| !found.contains(p)).collect()
    }
}

fn none(sample: &Sample) -> Bits {
    Bits::new(sample.layout.pieces())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whole_pieces_are_found_wherever_they_lie(
        seed in any::<u64>(),
        sizes in prop::collection::vec(0usize..40_000, 1..4),
        parts in prop::collection::vec((any::<u32>(), 0usize..9000, 1usize..4), 1..12),
        chunk in 1usize..30_000,
    ) {
        let data: Vec<Vec<u8>> = sizes.iter().zip(seed..).map(|(len, seed)| random(seed, *len)).collect();
        let sample = Sample::new(data);
        prop_assume!(sample.layout.pieces() > 0);
        // Junk, then some pieces that follow one another, and so on.
        let (mut old, mut placed) = (Vec::new(), Vec::new());
        for (piece, junk, run) in parts {
            old.extend(random(seed ^ u64::from(piece) ^ 1, junk));
            let first = piece % sample.layout.pieces();
            for piece in first..(first + run as u32).min(sample.layout.pieces()) {
                old.extend_from_slice(sample.piece(piece));
                if sample.piece(piece).len() == PIECE {
                    placed.push(piece);
                }
            }
        }
        let (found, vain) = sample.search(sample.finder(&none(&sample)), &[old], chunk);
        for piece in placed {
            prop_assert!(found.contains(&piece), "{} is not among {:?}", piece, found);
        }
        prop_assert_eq!(vain, 0, "random bytes do not share sums");
    }

    #[test]
    fn bytes_of_few_kinds_are_no_trap(
        seed in any::<u64>(),
        kinds in 1u64..3,
        len in 1usize..60_000,
        old in 1usize..60_000,
        chunk in 1usize..30_000,
        with_sums in any::<bool>(),
    ) {
        let coarse = |seed, len: usize| {
            let mut rng = Rng::new(seed, "coarse");
            let mut data = Vec::new();
            while data.len() < len {
                data.extend(vec![rng.below(kinds) as u8; 1 + rng.below(3000) as usize]);
            }
            data.truncate(len);
            data
        };
        let mut sample = Sample::new(vec![coarse(seed, len)]);
        if !with_sums {
            sample.sums.clear();
        }
        let old = coarse(seed ^ 1, old);
        let (_, vain) = sample.search(sample.finder(&none(&sample)), std::slice::from_ref(&old), chunk);
        prop_assert!(vain * PIECE as u64 <= old.len() as u64 + FIRST_CREDIT_PIECES * PIECE as u64);
    }
}

#[test]
fn an_insertion_costs_the_pieces_around_it() {
    let before = random(1, 50 * PIECE + 1234);
    let mut after = before.clone();
    let at = 20 * PIECE + 77;
    after.splice(at..at, random(2, 1000));
    let sample = Sample::new(vec![after]);
    for chunk in [1000, 3 * PIECE, 1 << 20] {
        let (found, _) = sample.search(sample.finder(&none(&sample)), std::slice::from_ref(&before), chunk);
        assert_eq!(sample.all_but(&found), [20], "with {chunk}");
    }
    // What is held already is not asked for, and is no hindrance.
    let mut have = none(&sample);
    (3..9).chain(30..32).for_each(|p| assert!(have.set(p)));
    let (found, _) = sample.search(sample.finder(&have), &[before], 3 * PIECE);
    assert_eq!(found.len() as u32, sample.layout.pieces() - 1 - 8);
}

#[test]
fn files_that_were_moved_are_found_also_small_ones() {
    let files: Vec<Vec<u8>> = (0..40).map(|n| random(n, 300 + n as usize * 311)).collect();
    let sample = Sample::new(files.clone());
    let mut moved = files;
    moved.reverse();
    let (found, _) = sample.search(sample.finder(&none(&sample)), &moved, 1 << 20);
    assert_eq!(found.len() as u32, sample.layout.pieces());
}

#[test]
fn without_sums_what_lies_at_its_place_is_found() {
    let before = random(5, 30 * PIECE + 99);
    let mut after = before.clone();
    after[7 * PIECE] ^= 1;
    after.extend(random(6, 5 * PIECE));
    let mut sample = Sample::new(vec![after]);
    sample.sums.clear();
    let (found, vain) = sample.search(sample.finder(&none(&sample)), &[before], 10_000);
    assert_eq!((found.len(), vain), (29, 0));
    assert!(!found.contains(&7));
}

#[test]
fn zeros_cost_a_hash_for_each_piece_that_is_zeros() {
    let mut data = vec![0; 200 * PIECE];
    data.extend(random(8, 50 * PIECE));
    let sample = Sample::new(vec![data]);
    let (found, vain) = sample.search(sample.finder(&none(&sample)), &[vec![0; 300 * PIECE]], 1 << 20);
    assert_eq!((found.len(), vain), (200, 0));
}

#[test]
fn false_sums_cost_no_more_hashing_than_there_are_bytes() {
    let mut sample = Sample::new(vec![random(9, 100 * PIECE)]);
    sample.sums = vec![sums::of(&[0; PIECE]); 100];
    let (found, vain) = sample.search(sample.finder(&none(&sample)), &[vec![0; 500 * PIECE]], 1 << 20);
    assert!(found.is_empty());
    assert!((64..=64 + 500).contains(&vain), "{vain}");
}

/// cargo test --release -p headwater-peer-core speed -- --ignored --nocapture
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn speed() {
    const BYTES: usize = 512 << 20;
    let object = Object { path: "p".into(), media_type: String::new(), size_bytes: BYTES as u64 };
    let layout = Layout::new(64 << 10, &[object]).unwrap();
    let data = random(1, BYTES);
    let sums: Vec<Sum> = data.chunks(64 << 10).map(sums::of).collect();
    let others: Vec<Sum> = sums.iter().map(|s| Sum(s.0 ^ 0x5555_5555)).collect();
    for (what, sums, from) in [("nothing", others, 0), ("all", sums.clone(), 0), ("all but the first bytes", sums, 777)]
    {
        let mut finder = Finder::new(layout.clone(), &[], sums, &Bits::new(layout.pieces()));
        let (start, mut at) = (std::time::Instant::now(), from);
        let mut seen = 0u8;
        while at < BYTES {
            let some = &data[at..(at + (4 << 20)).min(BYTES)];
            let mut check = |_, piece: &[u8]| {
                seen ^= merkle::leaf(piece).0[0];
                Ok::<_, Infallible>(true)
            };
            at += finder.search(some, at + some.len() == BYTES, &mut check).unwrap();
        }
        let rate = (BYTES - from) as f64 / 1e6 / start.elapsed().as_secs_f64();
        println!("{what} matches: {rate:.0} MB/s, {} pieces left ({seen})", finder.left());
    }
}
