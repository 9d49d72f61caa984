//! Buffers that are used again and again, so that a piece on its way costs no allocation: one pool for all contents and
//! connections of a node.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Memory that unused buffers may hold.
const MAX_IDLE_BYTES: usize = 16 << 20;

/// Buffers that wait to be used again.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Idle>);

#[derive(Default)]
struct Idle {
    bytes: usize,
    by_size: BTreeMap<usize, Size>,
}

/// Buffers of one size.
#[derive(Default)]
struct Size {
    buffers: Vec<Box<[u8]>>,
    /// The fewest that were unused since the pool was last trimmed.
    fewest: usize,
}

impl Pool {
    /// A buffer of this size with arbitrary bytes in it.
    pub(crate) fn take(self: &Arc<Self>, buffer_bytes: usize) -> Pooled {
        let idle = {
            let mut idle = self.idle();
            let size = idle.by_size.entry(buffer_bytes).or_default();
            let buffer = size.buffers.pop();
            size.fewest = size.fewest.min(size.buffers.len());
            idle.bytes -= buffer.as_ref().map_or(0, |b| b.len());
            buffer
        };
        let buffer = idle.unwrap_or_else(|| vec![0; buffer_bytes].into_boxed_slice());
        Pooled { buffer, used: 0..0, pool: self.clone() }
    }

    /// Frees what was not needed since it was trimmed before.
    pub(crate) fn trim(&self) {
        let mut idle = self.idle();
        let Idle { bytes, by_size } = &mut *idle;
        by_size.retain(|_, size| {
            let left = size.buffers.len().saturating_sub(size.fewest);
            *bytes -= size.buffers.drain(left..).map(|b| b.len()).sum::<usize>();
            size.fewest = left;
            left > 0
        });
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer that goes back to its pool when it is dropped.
pub(crate) struct Pooled {
    buffer: Box<[u8]>,
    used: Range<usize>,
    pool: Arc<Pool>,
}

impl Pooled {
    /// All of it, to be filled.
    pub(crate) fn whole(&mut self) -> &mut [u8] {
        &mut self.buffer
    }
    /// A part of it; it goes back to the pool when the last clone is dropped.
    pub(crate) fn freeze(mut self, part: Range<usize>) -> Bytes {
        self.used = part;
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(self.used.clone()).unwrap_or_default()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut idle = self.pool.idle();
        if idle.bytes + buffer.len() <= MAX_IDLE_BYTES {
            idle.bytes += buffer.len();
            idle.by_size.entry(buffer.len()).or_default().buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_not_hoarded() {
        let pool = Arc::new(Pool::default());
        let first = pool.take(3 << 20);
        let at = first.buffer.as_ptr();
        drop(first);
        drop(pool.take(100));
        assert_eq!(pool.take(3 << 20).buffer.as_ptr(), at);
        let many: Vec<Pooled> = (0..9).map(|_| pool.take(3 << 20)).collect();
        drop(many);
        assert_eq!(pool.idle().bytes, (15 << 20) + 100, "of both sizes together");
    }

    #[test]
    fn what_is_not_needed_is_freed() {
        let pool = Arc::new(Pool::default());
        let take = |n: usize| drop((0..n).map(|_| pool.take(1000)).collect::<Vec<_>>());
        take(8);
        pool.trim();
        assert_eq!(pool.idle().bytes, 8000, "all were needed");
        take(3);
        pool.trim();
        assert_eq!(pool.idle().bytes, 3000);
        pool.trim();
        assert!(pool.idle().bytes == 0 && pool.idle().by_size.is_empty());
    }
}
