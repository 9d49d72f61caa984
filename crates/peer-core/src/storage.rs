//! Which contents a node keeps when its room is limited: whole contents go, by value.
//!
//! What nobody has wanted for long is worth less, and so is what many others hold. The worth of a content falls with
//! both: it goes by the time since it was last used, times how many copies there are with this one.

use headwater_model::id::ContentId;
use headwater_model::time::Micros;

/// A content that takes room at a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Which.
    pub content: ContentId,
    /// Bytes that it takes, or will take when it is complete.
    pub bytes: u64,
    /// The user asked for it: it stays.
    pub pinned: bool,
    /// It is being fetched or read, or somebody has something of it: it stays for now.
    pub in_use: bool,
    /// Other nodes that hold all of it, as far as is known.
    pub others: u32,
    /// Time since somebody last used it.
    pub unused: Micros,
}

/// What has to go.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Eviction {
    /// These, the least worth first.
    pub contents: Vec<ContentId>,
    /// Bytes by which the rest is still over the quota, as it is pinned or in use; 0 where it fits.
    pub short_bytes: u64,
}

/// What has to go so that `kept` and `needed_bytes` more are within `quota_bytes`.
pub fn evict(kept: &[Kept], quota_bytes: u64, needed_bytes: u64) -> Eviction {
    let sum = kept.iter().fold(needed_bytes, |sum, k| sum.saturating_add(k.bytes));
    let mut over = sum.saturating_sub(quota_bytes);
    let mut may_go: Vec<&Kept> = kept.iter().filter(|k| !k.pinned && !k.in_use && k.bytes > 0).collect();
    may_go.sort_by_key(|k| (std::cmp::Reverse(worthlessness(k)), k.content));
    let mut contents = Vec::new();
    for k in may_go {
        if over == 0 {
            break;
        }
        over = over.saturating_sub(k.bytes);
        contents.push(k.content);
    }
    Eviction { contents, short_bytes: over }
}

fn worthlessness(kept: &Kept) -> u128 {
    // One microsecond more, so that what was used just now still differs by its copies.
    (u128::from(kept.unused.0) + 1) * (u128::from(kept.others) + 1)
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
