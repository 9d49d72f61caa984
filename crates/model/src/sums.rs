//! Rolling sums of pieces: how a piece is found again in other bytes, at whatever offset.
//!
//! A [`Sum`] is weak: two pieces may share one, and who knows a sum can make bytes that have it. It only says where a
//! piece *could* lie; what lies there counts once its leaf hash is right. The sums are those of rsync (Tridgell and
//! Mackerras, "The rsync algorithm", 1996), wider: first = Σ xᵢ and second = Σ (n − i)·xᵢ over the n bytes of a window,
//! both of which follow a window that slides by one byte with a few additions.

use crate::id::Hash;
use crate::merkle::{self, MAX_PROOF_HASHES, PAGE_LEAVES};

/// Bytes of a sum on the wire and on disk.
pub const SUM_BYTES: usize = 8;

/// The rolling sum of one piece: `second · 2²⁴ + first` modulo 2⁶⁴.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Sum(pub u64);

/// Rows of a block whose columns are added up side by side: sixteen rows of sixteen bytes keep both sums of a column
/// within 16 bits.
const ROWS: usize = 16;
const COLUMNS: usize = 16;
const BLOCK_BYTES: usize = ROWS * COLUMNS;

/// The sums over a window of fixed length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    first: u64,
    second: u64,
    len: u64,
}

impl Window {
    /// The window over all of `data`. Several bytes per cycle.
    pub fn over(data: &[u8]) -> Self {
        let (mut first, mut second) = (0u64, 0u64);
        let (blocks, rest) = data.as_chunks::<BLOCK_BYTES>();
        for block in blocks {
            let (sum, weighted) = block_sums(block);
            second = second.wrapping_add(first * BLOCK_BYTES as u64).wrapping_add(weighted);
            first += sum;
        }
        for byte in rest {
            first += u64::from(*byte);
            second = second.wrapping_add(first);
        }
        Self { first, second, len: data.len() as u64 }
    }

    /// Moves the window on by one byte: `leaves` was its first byte, `enters` becomes its last one.
    #[inline]
    pub fn roll(&mut self, leaves: u8, enters: u8) {
        self.first = self.first.wrapping_add(u64::from(enters)).wrapping_sub(u64::from(leaves));
        self.second = self.second.wrapping_add(self.first).wrapping_sub(self.len.wrapping_mul(u64::from(leaves)));
    }

    /// The sum of what is in the window.
    #[inline]
    pub fn sum(&self) -> Sum {
        Sum((self.second << 24).wrapping_add(self.first))
    }
}

/// Σ xᵢ and Σ (256 − i)·xᵢ of a block, by columns, so that the compiler can add sixteen bytes at once.
fn block_sums(block: &[u8; BLOCK_BYTES]) -> (u64, u64) {
    let (mut sums, mut weighted) = ([0u16; COLUMNS], [0u16; COLUMNS]);
    let (rows, _) = block.as_chunks::<COLUMNS>();
    for row in rows {
        for column in 0..COLUMNS {
            sums[column] += u16::from(row[column]);
            weighted[column] += sums[column];
        }
    }
    let (mut first, mut second) = (0u32, 0u32);
    for column in 0..COLUMNS {
        first += u32::from(sums[column]);
        second += u32::from(weighted[column]) * COLUMNS as u32 - column as u32 * u32::from(sums[column]);
    }
    (u64::from(first), u64::from(second))
}

/// The sum of `data`.
pub fn of(data: &[u8]) -> Sum {
    Window::over(data).sum()
}

/// What the log commits to for a page of sums: the hash of a leaf of the tree over all pages' sums.
fn page_hash(sums: &[Sum]) -> Hash {
    merkle::leaf(&to_bytes(sums))
}

/// Sums one after the other, eight bytes each, lowest first.
pub fn to_bytes(sums: &[Sum]) -> Vec<u8> {
    sums.iter().flat_map(|s| s.0.to_le_bytes()).collect()
}

/// What [`to_bytes`] made; `None` when it is no whole number of sums.
pub fn from_bytes(bytes: &[u8]) -> Option<Vec<Sum>> {
    let (whole, rest) = bytes.as_chunks::<SUM_BYTES>();
    rest.is_empty().then(|| whole.iter().map(|s| Sum(u64::from_le_bytes(*s))).collect())
}

/// Root over the pages of `sums`: a Merkle tree (RFC 9162) with one leaf for each page of [`PAGE_LEAVES`] sums.
pub fn root(sums: &[Sum]) -> Hash {
    merkle::root(&page_hashes(sums))
}

fn page_hashes(sums: &[Sum]) -> Vec<Hash> {
    sums.chunks(PAGE_LEAVES as usize).map(page_hash).collect()
}

/// The sums of a page's pieces, with their proof.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageSums {
    /// One for each leaf of the page, in order.
    pub sums: Vec<Sum>,
    /// Proof of the page of sums, from the bottom up.
    pub proof: Vec<Hash>,
}

impl PageSums {
    /// Whether these are the sums of page `number` of a tree of `leaves` leaves whose sums have the root `expected`.
    pub fn is_true(&self, number: u32, leaves: u32, expected: &Hash) -> bool {
        self.proof.len() <= MAX_PROOF_HASHES
            && self.sums.len() == merkle::page_len(leaves, number) as usize
            && merkle::proves(
                expected,
                u64::from(merkle::pages(leaves)),
                u64::from(number),
                &page_hash(&self.sums),
                &self.proof,
            )
    }
}

/// All pages of sums, with their proofs.
pub fn cut_pages(sums: &[Sum]) -> Vec<PageSums> {
    let hashes = page_hashes(sums);
    let pages = sums.chunks(PAGE_LEAVES as usize).enumerate();
    pages.map(|(i, s)| PageSums { sums: s.to_vec(), proof: merkle::proof(&hashes, i) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As the formula says, byte by byte.
    fn plainly(data: &[u8]) -> Sum {
        let n = data.len() as u64;
        let first: u64 = data.iter().map(|b| u64::from(*b)).sum();
        let second: u64 = data.iter().zip(0..).map(|(b, i)| (n - i) * u64::from(*b)).sum();
        Sum((second << 24).wrapping_add(first))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn windows_that_slide_have_the_sums_of_what_is_in_them(
            data in prop::collection::vec(any::<u8>(), 1..3000),
            len in 1usize..1200,
        ) {
            let len = len.min(data.len());
            let mut window = Window::over(&data[..len]);
            for at in 0..=data.len() - len {
                prop_assert_eq!(window.sum(), plainly(&data[at..at + len]));
                prop_assert_eq!(of(&data[at..at + len]), window.sum());
                if let Some(enters) = data.get(at + len) {
                    window.roll(data[at], *enters);
                }
            }
        }
    }

    #[test]
    fn the_largest_pieces_of_the_largest_bytes_do_not_overflow() {
        let data = vec![255; crate::layout::MAX_PIECE_BYTES as usize];
        assert_eq!(of(&data), plainly(&data));
    }

    #[test]
    fn pages_of_sums_are_proved() {
        for n in [1u32, 511, 512, 513, 2600] {
            let sums: Vec<Sum> = (0..n).map(|i| Sum(u64::from(i) * 977)).collect();
            let (root, cut) = (root(&sums), cut_pages(&sums));
            assert_eq!(cut.len() as u32, merkle::pages(n));
            for (number, page) in (0..).zip(&cut) {
                assert!(page.is_true(number, n, &root), "{n} {number}");
                assert!(!page.is_true(number + 1, n, &root));
                let mut other = page.clone();
                other.sums[0].0 ^= 1;
                assert!(!other.is_true(number, n, &root));
                other.sums.pop();
                assert!(!other.is_true(number, n, &root));
            }
            assert_eq!(from_bytes(&to_bytes(&sums)), Some(sums));
        }
        assert_eq!(from_bytes(&[0; 9]), None);
    }
}
