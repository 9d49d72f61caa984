//! SHA-256 Merkle trees, hashed as RFC 9162 section 2.1 says, and *pages*: aligned runs of leaf hashes that are
//! proved together.
//!
//! A page holds [`PAGE_LEAVES`] leaf hashes (fewer in the last one). As a page is an aligned power of two, its root
//! is an inner node of the whole tree, and the tree over all leaves is the tree over the pages' roots.

use crate::id::Hash;
use crate::sums::{self, PageSums, Sum};

/// Leaf hashes in a page: 16 KiB of hashes for each 32 MiB of 64 KiB pieces.
pub const PAGE_LEAVES: u32 = 512;

/// A proof longer than this cannot be true for fewer than 2⁶⁴ leaves.
pub const MAX_PROOF_HASHES: usize = 64;

/// Hash of a leaf: SHA-256(0x00 ‖ data).
pub fn leaf(data: &[u8]) -> Hash {
    Hash::of(&[&[0], data])
}

fn inner(left: &Hash, right: &Hash) -> Hash {
    Hash::of(&[&[1], &left.0, &right.0])
}

/// The largest power of two below `n` (RFC 9162: k < n <= 2k).
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

/// Root over hashes of leaves (or of pages). SHA-256 of nothing for none, as RFC 9162 says.
pub fn root(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => Hash::of(&[]),
        [one] => *one,
        many => {
            let (left, right) = many.split_at(split(many.len()));
            inner(&root(left), &root(right))
        }
    }
}

/// The inclusion proof of `hashes[index]`, from the bottom up (RFC 9162 section 2.1.3.1). Empty when out of range.
pub fn proof(hashes: &[Hash], index: usize) -> Vec<Hash> {
    if index >= hashes.len() || hashes.len() == 1 {
        return Vec::new();
    }
    let k = split(hashes.len());
    let (left, right) = hashes.split_at(k);
    let (mut path, sibling) =
        if index < k { (proof(left, index), root(right)) } else { (proof(right, index - k), root(left)) };
    path.push(sibling);
    path
}

/// Whether `path` proves that the `index`th of `count` hashes is `hash` under `expected`.
pub fn proves(expected: &Hash, count: u64, index: u64, hash: &Hash, path: &[Hash]) -> bool {
    if index >= count || path.len() > MAX_PROOF_HASHES {
        return false;
    }
    // RFC 9162 section 2.1.3.2.
    let (mut fn_, mut sn, mut r) = (index, count - 1, *hash);
    for p in path {
        if sn == 0 {
            return false;
        }
        if fn_ & 1 == 1 || fn_ == sn {
            r = inner(p, &r);
            while fn_ & 1 == 0 && fn_ != 0 {
                fn_ >>= 1;
                sn >>= 1;
            }
        } else {
            r = inner(&r, p);
        }
        fn_ >>= 1;
        sn >>= 1;
    }
    sn == 0 && r == *expected
}

/// How many pages `leaves` fill.
pub fn pages(leaves: u32) -> u32 {
    leaves.div_ceil(PAGE_LEAVES)
}

/// How many leaves page `page` of a tree of `leaves` has.
pub fn page_len(leaves: u32, page: u32) -> u32 {
    leaves.saturating_sub(page.saturating_mul(PAGE_LEAVES)).min(PAGE_LEAVES)
}

/// A page of leaf hashes with its proof.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// Which page.
    pub number: u32,
    /// Its leaf hashes, in order.
    pub leaves: Vec<Hash>,
    /// Proof of the page's root, from the bottom up.
    pub proof: Vec<Hash>,
    /// The rolling sums of its pieces, where the log commits to them.
    pub sums: Option<PageSums>,
}

impl Page {
    /// Whether the page belongs at its number to the tree of `leaves` leaves with root `expected`, and has the sums that
    /// the log commits to by the root `sums`; none where it does not.
    pub fn is_true(&self, leaves: u32, expected: &Hash, sums: Option<&Hash>) -> bool {
        let sums_are_true = match (&self.sums, sums) {
            (None, None) => true,
            (Some(found), Some(root)) => found.is_true(self.number, leaves, root),
            _ => false,
        };
        self.number < pages(leaves)
            && self.leaves.len() == page_len(leaves, self.number) as usize
            && proves(expected, u64::from(pages(leaves)), u64::from(self.number), &root(&self.leaves), &self.proof)
            && sums_are_true
    }
}

/// All pages of a tree, with their proofs, and with the pieces' `sums` where there are any (one for each leaf).
pub fn cut_pages(leaves: &[Hash], sums: &[Sum]) -> Vec<Page> {
    let roots: Vec<Hash> = leaves.chunks(PAGE_LEAVES as usize).map(root).collect();
    let mut sums = sums::cut_pages(sums).into_iter();
    leaves
        .chunks(PAGE_LEAVES as usize)
        .enumerate()
        .map(|(i, l)| Page { number: i as u32, leaves: l.to_vec(), proof: proof(&roots, i), sums: sums.next() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(n: usize) -> Vec<Hash> {
        (0..n).map(|i| leaf(&i.to_le_bytes())).collect()
    }

    #[test]
    fn known_roots_of_rfc_trees() {
        // Certificate Transparency's published test vectors (RFC 9162 hashing) for 0, 1 and 2 leaves.
        assert_eq!(root(&[]).to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(root(&[leaf(b"")]).to_string(), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        assert_eq!(
            root(&[leaf(b""), leaf(&[0])]).to_string(),
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn proofs_prove_and_nothing_else_does(n in 1usize..200, i in 0usize..200, flip in 0usize..6400) {
            let all = leaves(n);
            let (i, r) = (i % n, root(&all));
            let path = proof(&all, i);
            prop_assert!(proves(&r, n as u64, i as u64, &all[i], &path));
            prop_assert!(!proves(&r, n as u64, i as u64, &leaf(b"other"), &path));
            prop_assert!(!proves(&r, n as u64, n as u64, &all[i], &path));
            if !path.is_empty() {
                let mut bad = path.clone();
                let at = flip % (path.len() * 32);
                bad[at / 32].0[at % 32] ^= 1;
                prop_assert!(!proves(&r, n as u64, i as u64, &all[i], &bad));
                prop_assert!(!proves(&r, n as u64, i as u64, &all[i], &path[1..]));
            }
        }
    }

    #[test]
    fn pages_are_inner_nodes_of_the_whole_tree() {
        for n in [1, 511, 512, 513, 1024, 1025, 2600] {
            let all = leaves(n);
            let r = root(&all);
            let sums: Vec<Sum> = (0..n as u64).map(Sum).collect();
            let (cut, sums_root) = (cut_pages(&all, &sums), sums::root(&sums));
            assert_eq!(cut.len() as u32, pages(n as u32));
            for page in &cut {
                let is_true = |page: &Page| page.is_true(n as u32, &r, Some(&sums_root));
                assert!(is_true(page), "{n} {}", page.number);
                let mut bad = page.clone();
                bad.leaves[0].0[0] ^= 1;
                assert!(!is_true(&bad));
                assert!(!is_true(&Page { number: page.number + 1, ..page.clone() }));
                let mut false_sums = page.clone();
                false_sums.sums.as_mut().unwrap().sums[0].0 ^= 1;
                let without = Page { sums: None, ..page.clone() };
                assert!(!is_true(&false_sums) && !is_true(&without));
                assert!(without.is_true(n as u32, &r, None) && !page.is_true(n as u32, &r, None));
            }
        }
    }
}
