//! Events in order of virtual time; those of one moment in the order in which they were made.

use headwater_model::time::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A queue of events. The heap holds only keys, so that moving its entries is cheap.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<(Time, u64, u32)>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    made: u64,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), made: 0 }
    }
    pub(crate) fn push(&mut self, at: Time, event: E) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() as u32 - 1
        });
        self.events[slot as usize] = Some(event);
        self.heap.push(Reverse((at, self.made, slot)));
        self.made += 1;
    }
    pub(crate) fn pop(&mut self) -> Option<(Time, E)> {
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        Some((at, self.events[slot as usize].take()?))
    }
    /// When the next one is.
    pub(crate) fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }
    /// How many events were ever made.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }
}
