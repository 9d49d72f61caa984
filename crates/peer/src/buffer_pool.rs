//! Buffers of one size that are used again and again, so that a piece on its way costs no allocation.

use bytes::Bytes;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Memory that unused buffers may hold.
const MAX_IDLE_BYTES: usize = 16 << 20;
/// Most unused buffers.
const MAX_IDLE: usize = 256;

/// Buffers that wait to be used again.
pub(crate) struct Pool {
    idle: Mutex<Vec<Box<[u8]>>>,
    buffer_bytes: usize,
    max_idle: usize,
}

impl Pool {
    /// Buffers of `buffer_bytes` each.
    pub(crate) fn new(buffer_bytes: usize) -> Pool {
        let max_idle = (MAX_IDLE_BYTES / buffer_bytes.max(1)).clamp(4, MAX_IDLE);
        Pool { idle: Mutex::default(), buffer_bytes, max_idle }
    }

    /// A buffer with arbitrary bytes in it.
    pub(crate) fn take(self: &Arc<Self>) -> Pooled {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let buffer = idle.unwrap_or_else(|| vec![0; self.buffer_bytes].into_boxed_slice());
        Pooled { buffer, used: 0..0, pool: self.clone() }
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
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.pool.max_idle {
            idle.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_not_hoarded() {
        let pool = Arc::new(Pool::new(8 << 20));
        let first = pool.take();
        let at = first.buffer.as_ptr();
        drop(first);
        assert_eq!(pool.take().buffer.as_ptr(), at);
        let many: Vec<Pooled> = (0..9).map(|_| pool.take()).collect();
        drop(many);
        assert_eq!(pool.idle.lock().unwrap().len(), 4);
    }
}
