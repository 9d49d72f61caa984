//! Finding a content's pieces in other bytes: those of an older version, or of any file that the user names.
//!
//! A window of a piece's length slides over the bytes; where its rolling sum is that of a missing piece, the piece
//! *may* lie there, and whoever asked checks the leaf hash. After a piece the next one is expected right behind it, so
//! that a run of equal pieces costs a hash each, and an insertion costs the two pieces around it. Where the log has no
//! sums, pieces are found at multiples of the piece size, by their leaf hashes.

use headwater_model::bits::Bits;
use headwater_model::id::Hash;
use headwater_model::layout::Layout;
use headwater_model::merkle;
use headwater_model::sums::{self, Sum, Window};
use std::ops::Range;

/// Bits of the filter for each piece: one window in 64 that is nothing is looked up in vain.
const FILTER_BITS_PER_PIECE: usize = 64;
/// Windows that have a piece's sum and are not the piece cost a hash each. Every byte that is looked at earns so much
/// hashing, so that no bytes, however they were made, take more than twice as long as others.
const HASHED_BYTES_PER_BYTE: u64 = 1;
/// Hashing that may be in vain before anything was earned, in pieces.
const FIRST_CREDIT_PIECES: u64 = 64;
/// Pieces with the sum of one window that are tried there.
const MAX_CANDIDATES: usize = 4;
/// Different lengths of short pieces that are tried at the end of every file.
const MAX_SHORT_LENGTHS: usize = 16;

/// Looks for the missing pieces of one content.
#[derive(Clone, Debug)]
pub struct Finder {
    layout: Layout,
    missing: Bits,
    left: u32,
    by: Index,
    /// The piece that is expected where the next bytes begin.
    next: Option<u32>,
    /// Bytes of the file that are done with.
    done_bytes: u64,
    credit_bytes: u64,
}

#[derive(Clone, Debug)]
enum Index {
    Sums(BySum),
    /// Leaf hash and piece, sorted.
    Leaves(Vec<(Hash, u32)>),
}

/// Missing pieces by their sums.
#[derive(Clone, Debug)]
struct BySum {
    sums: Vec<Sum>,
    /// Mixed sum and piece of all pieces of full length, sorted.
    whole: Vec<(u64, u32)>,
    /// Where the entries of `whole` begin whose first bits are the index.
    starts: Vec<u32>,
    filter: Filter,
    /// Length, sum and piece of all shorter pieces, sorted.
    short: Vec<(u32, Sum, u32)>,
    short_lengths: Vec<u32>,
}

/// One bit for each value of a mixed sum's first bits.
#[derive(Clone, Debug)]
struct Filter {
    words: Vec<u64>,
    shift: u32,
}

/// Spreads a sum over 64 bits, so that its first bits depend on all of it (Fibonacci hashing).
#[inline]
fn mix(sum: Sum) -> u64 {
    sum.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Filter {
    fn new(entries: &[(u64, u32)]) -> Self {
        let bits = (entries.len().max(1) * FILTER_BITS_PER_PIECE).next_power_of_two();
        let mut filter = Self { words: vec![0; bits / 64], shift: 64 - bits.ilog2() };
        for (mixed, _) in entries {
            let bit = filter.bit(*mixed);
            filter.words[bit / 64] |= 1 << (bit % 64);
        }
        filter
    }
    #[inline]
    fn bit(&self, mixed: u64) -> usize {
        (mixed >> self.shift) as usize
    }
    #[inline]
    fn may_have(&self, mixed: u64) -> bool {
        let bit = self.bit(mixed);
        self.words[bit / 64] >> (bit % 64) & 1 == 1
    }
    fn clear(&mut self, mixed: u64) {
        let bit = self.bit(mixed);
        self.words[bit / 64] &= !(1 << (bit % 64));
    }
}

impl BySum {
    fn new(layout: &Layout, sums: Vec<Sum>, missing: &Bits) -> Self {
        let (mut whole, mut short) = (Vec::new(), Vec::new());
        for piece in 0..layout.pieces() {
            let (len, sum) = (layout.piece_len(piece), sums[piece as usize]);
            if len < layout.piece_bytes() {
                short.push((len, sum, piece));
            } else if missing.get(piece) {
                whole.push((mix(sum), piece));
            }
        }
        short.retain(|(.., piece)| missing.get(*piece));
        whole.sort_unstable();
        short.sort_unstable();
        let mut short_lengths: Vec<u32> = short.iter().map(|s| s.0).collect();
        short_lengths.dedup();
        let first_bits = whole.len().next_power_of_two().ilog2();
        let mut starts = Vec::with_capacity((1 << first_bits) + 1);
        for bucket in 0..=1u64 << first_bits {
            starts.push(whole.partition_point(|(mixed, _)| first_of(*mixed, first_bits) < bucket) as u32);
        }
        let filter = Filter::new(&whole);
        Self { sums, whole, starts, filter, short, short_lengths }
    }

    /// The entries with this mixed sum, found or not.
    fn with(&self, mixed: u64) -> Range<usize> {
        let bucket = first_of(mixed, (self.starts.len() as u32 - 1).ilog2()) as usize;
        let (first, end) = (self.starts[bucket] as usize, self.starts[bucket + 1] as usize);
        let entries = &self.whole[first..end];
        let from = entries.partition_point(|(m, _)| *m < mixed);
        let to = entries.partition_point(|(m, _)| *m <= mixed);
        first + from..first + to
    }

    /// The filter forgets a mixed sum that no missing piece needs any more, nor another one that shares its bit.
    fn forget(&mut self, mixed: u64, missing: &Bits) {
        let bit = self.filter.bit(mixed);
        let here = self.with(mixed);
        let shares = |(m, _): &&(u64, u32)| self.filter.bit(*m) == bit;
        let before = self.whole[..here.start].iter().rev().take_while(shares);
        let after = self.whole[here.start..].iter().take_while(shares);
        if !before.chain(after).any(|(_, piece)| missing.get(*piece)) {
            self.filter.clear(mixed);
        }
    }
}

/// The first `bits` bits.
fn first_of(mixed: u64, bits: u32) -> u64 {
    mixed.checked_shr(64 - bits).unwrap_or(0)
}

impl Finder {
    /// Looks for the pieces that are not in `have`, by `sums` if there is one for each piece, else by `leaves`.
    ///
    /// `leaves` has one hash for each piece.
    pub fn new(layout: Layout, leaves: &[Hash], sums: Vec<Sum>, have: &Bits) -> Self {
        let mut missing = Bits::new(layout.pieces());
        (0..layout.pieces()).filter(|p| !have.get(*p)).for_each(|p| {
            missing.set(p);
        });
        let by = if sums.len() == layout.pieces() as usize {
            Index::Sums(BySum::new(&layout, sums, &missing))
        } else {
            let mut by_leaf: Vec<(Hash, u32)> = leaves.iter().copied().zip(0..).filter(|l| missing.get(l.1)).collect();
            by_leaf.sort_unstable();
            Index::Leaves(by_leaf)
        };
        let credit_bytes = FIRST_CREDIT_PIECES * u64::from(layout.piece_bytes());
        Self { left: missing.ones(), layout, missing, by, next: None, done_bytes: 0, credit_bytes }
    }

    /// Pieces that are still missing.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// Other bytes follow: those of the next file.
    pub fn begin(&mut self) {
        (self.next, self.done_bytes) = (None, 0);
    }

    /// Looks through `bytes`, which follow those that earlier calls said they had done with; `last` when nothing follows
    /// in this file.
    ///
    /// `check` is told of a piece and of bytes that may be it, and says whether they are. Returns how many bytes are done
    /// with: the next call's begin after them. When `bytes` has less than two pieces it may be none.
    ///
    /// # Errors
    /// What `check` fails with, which ends the search.
    pub fn search<E>(
        &mut self,
        bytes: &[u8],
        last: bool,
        check: &mut impl FnMut(u32, &[u8]) -> Result<bool, E>,
    ) -> Result<usize, E> {
        let done = self.search_from_start(bytes, last, check)?;
        self.done_bytes += done as u64;
        Ok(done)
    }

    fn search_from_start<E>(
        &mut self,
        bytes: &[u8],
        last: bool,
        check: &mut impl FnMut(u32, &[u8]) -> Result<bool, E>,
    ) -> Result<usize, E> {
        let mut at = 0;
        while self.left > 0 {
            match (&self.by, self.next) {
                (Index::Leaves(_), _) => return self.search_blocks(bytes, last, check),
                (Index::Sums(_), Some(piece)) => {
                    let len = self.layout.piece_len(piece) as usize;
                    let Some(data) = bytes.get(at..at + len) else {
                        if !last {
                            return Ok(at);
                        }
                        self.next = None;
                        continue;
                    };
                    self.next = None;
                    if self.sum_of(piece) == Some(sums::of(data)) && self.try_piece(piece, data, check)? {
                        at += len;
                        self.credit_bytes += len as u64 * HASHED_BYTES_PER_BYTE;
                        self.next = self.following(piece);
                    }
                }
                (Index::Sums(_), None) => match self.slide(bytes, at, check)? {
                    Some(found) => at = found,
                    None if last => {
                        self.search_end(&bytes[at..], self.done_bytes + bytes.len() as u64, check)?;
                        return Ok(bytes.len());
                    }
                    None => return Ok(at.max((bytes.len() + 1).saturating_sub(self.layout.piece_bytes() as usize))),
                },
            }
        }
        Ok(bytes.len())
    }

    fn sum_of(&self, piece: u32) -> Option<Sum> {
        match &self.by {
            Index::Sums(by) => by.sums.get(piece as usize).copied(),
            Index::Leaves(_) => None,
        }
    }

    /// The piece that lies behind `piece` in its object.
    fn following(&self, piece: u32) -> Option<u32> {
        let object = self.layout.at(piece)?.object;
        Some(piece + 1).filter(|next| self.layout.at(*next).is_some_and(|at| at.object == object))
    }

    /// `data` has the piece's sum: whether it is the piece. One that is here already is believed to be it.
    fn try_piece<E>(
        &mut self,
        piece: u32,
        data: &[u8],
        check: &mut impl FnMut(u32, &[u8]) -> Result<bool, E>,
    ) -> Result<bool, E> {
        if !self.missing.get(piece) {
            return Ok(true);
        }
        if self.credit_bytes < data.len() as u64 {
            return Ok(false);
        }
        if !check(piece, data)? {
            self.credit_bytes -= data.len() as u64;
            return Ok(false);
        }
        self.found(piece);
        // Equal pieces are all had from one place.
        for other in self.missing_with(data.len(), self.sum_of(piece), usize::MAX) {
            if self.credit_bytes < data.len() as u64 {
                break;
            }
            if check(other, data)? {
                self.found(other);
            } else {
                self.credit_bytes -= data.len() as u64;
            }
        }
        if let Index::Sums(by) = &mut self.by
            && data.len() == self.layout.piece_bytes() as usize
        {
            by.forget(mix(by.sums[piece as usize]), &self.missing);
        }
        Ok(true)
    }

    fn found(&mut self, piece: u32) {
        if self.missing.clear(piece) {
            self.left -= 1;
        }
    }

    /// At most `most` missing pieces of this length and sum.
    fn missing_with(&self, len: usize, sum: Option<Sum>, most: usize) -> Vec<u32> {
        let (Index::Sums(by), Some(sum)) = (&self.by, sum) else { return Vec::new() };
        let missing = |piece: &u32| self.missing.get(*piece);
        if len == self.layout.piece_bytes() as usize {
            return by.whole[by.with(mix(sum))].iter().map(|(_, piece)| *piece).filter(missing).take(most).collect();
        }
        let from = by.short.partition_point(|(l, s, _)| (*l as usize, *s) < (len, sum));
        let same = by.short[from..].iter().take_while(|(l, s, _)| (*l as usize, *s) == (len, sum));
        same.map(|(.., piece)| *piece).filter(missing).take(most).collect()
    }

    /// Slides the window on from `at` to the first piece that it finds; returns where that ends.
    fn slide<E>(
        &mut self,
        bytes: &[u8],
        at: usize,
        check: &mut impl FnMut(u32, &[u8]) -> Result<bool, E>,
    ) -> Result<Option<usize>, E> {
        let len = self.layout.piece_bytes() as usize;
        let Some(first) = bytes.get(at..at + len) else { return Ok(None) };
        let mut window = Window::over(first);
        let mut at = at;
        loop {
            let Index::Sums(by) = &self.by else { return Ok(None) };
            let (moved, may_be) = slide_to_candidate(&by.filter, &mut window, &bytes[at..], len);
            at += moved;
            self.credit_bytes += moved as u64 * HASHED_BYTES_PER_BYTE;
            if !may_be {
                return Ok(None);
            }
            let data = &bytes[at..at + len];
            let may_try = self.credit_bytes >= len as u64;
            for piece in self.missing_with(len, Some(window.sum()), if may_try { MAX_CANDIDATES } else { 0 }) {
                if self.try_piece(piece, data, check)? {
                    self.next = self.following(piece);
                    return Ok(Some(at + len));
                }
            }
            let Some(enters) = bytes.get(at + len) else { return Ok(None) };
            window.roll(bytes[at], *enters);
            at += 1;
        }
    }

    /// The end of a file, shorter than a whole piece or looked through already: the last pieces of objects lie there.
    fn search_end<E>(
        &mut self,
        end: &[u8],
        file_bytes: u64,
        check: &mut impl FnMut(u32, &[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        let Index::Sums(by) = &self.by else { return Ok(()) };
        let lengths: Vec<u32> = if by.short_lengths.len() <= MAX_SHORT_LENGTHS {
            by.short_lengths.clone()
        } else {
            // Of many small files each is looked for in files of its own size.
            vec![(file_bytes % u64::from(self.layout.piece_bytes())) as u32]
        };
        for len in lengths.into_iter().map(|l| l as usize) {
            let Some(data) = end.len().checked_sub(len).filter(|_| len > 0).map(|from| &end[from..]) else { continue };
            if let Some(piece) = self.missing_with(len, Some(sums::of(data)), 1).first() {
                self.try_piece(*piece, data, check)?;
            }
        }
        Ok(())
    }

    /// Without sums: at multiples of the piece size only.
    fn search_blocks<E>(
        &mut self,
        bytes: &[u8],
        last: bool,
        check: &mut impl FnMut(u32, &[u8]) -> Result<bool, E>,
    ) -> Result<usize, E> {
        let len = self.layout.piece_bytes() as usize;
        let done = if last { bytes.len() } else { bytes.len() / len * len };
        for block in bytes[..done].chunks(len) {
            let Index::Leaves(by_leaf) = &self.by else { break };
            let leaf = merkle::leaf(block);
            let from = by_leaf.partition_point(|(l, _)| *l < leaf);
            let same: Vec<u32> = by_leaf[from..].iter().take_while(|(l, _)| *l == leaf).map(|(_, p)| *p).collect();
            for piece in same {
                if self.missing.get(piece) && check(piece, block)? {
                    self.found(piece);
                }
            }
        }
        Ok(done)
    }
}

/// Slides the window, which is over the first `len` of `bytes`, until its sum passes the filter; how far it went, and
/// whether it did. The loop that a search spends its time in.
fn slide_to_candidate(filter: &Filter, window: &mut Window, bytes: &[u8], len: usize) -> (usize, bool) {
    if filter.may_have(mix(window.sum())) {
        return (0, true);
    }
    let mut here = *window;
    for (moved, (leaves, enters)) in bytes.iter().zip(&bytes[len..]).enumerate() {
        here.roll(*leaves, *enters);
        if filter.may_have(mix(here.sum())) {
            *window = here;
            return (moved + 1, true);
        }
    }
    *window = here;
    (bytes.len() - len, false)
}

#[cfg(test)]
#[path = "reuse_tests.rs"]
mod tests;
