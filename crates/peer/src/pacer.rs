//! Pacing of a line: one token bucket in wire bytes, first come first served, so that all who use it share it equally.

use headwater_model::Rate;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What goes out with a payload, in thousandths of it: headers of QUIC, UDP and IP take 45 (measured in the lab), those of
/// TLS, TCP and IP 55; so that the queue before a line of just this rate stays short.
const OVERHEAD_MILLI: u64 = 60;
/// How far sending may run ahead of the rate, to make up for timers that come late, where nothing else is said.
const BURST: Duration = Duration::from_millis(20);
/// What is let through at once at most, as time at the rate: a packet of the user's own waits behind it.
const SLICE: Duration = Duration::from_millis(5);
/// Less is not worth a turn: a packet's payload.
const MIN_SLICE_BYTES: usize = 1200;

/// A paced line; no limit where the rate is `None`.
#[derive(Debug)]
pub struct Pacer {
    bucket: Mutex<Bucket>,
    /// Held while waiting: that makes the queue.
    turn: tokio::sync::Mutex<()>,
    rate_changed: Notify,
    /// Wire bytes let through so far.
    sent: AtomicU64,
}

#[derive(Debug)]
struct Bucket {
    rate: Option<Rate>,
    burst: Duration,
    /// Wire bytes let through and not paid for by time yet, as of `at`; negative is credit.
    debt: f64,
    at: Instant,
}

impl Bucket {
    /// Time pays.
    fn advance(&mut self, now: Instant) {
        let Some(rate) = self.rate else {
            (self.debt, self.at) = (0.0, now);
            return;
        };
        let (rate, passed) = (rate.0 as f64, now.saturating_duration_since(self.at));
        self.debt = (self.debt - rate * passed.as_secs_f64()).max(-rate * self.burst.as_secs_f64());
        self.at = now;
    }

    /// How long until all is paid.
    fn wait(&self) -> Duration {
        let rate = self.rate.map_or(f64::MAX, |r| r.0.max(1) as f64);
        Duration::try_from_secs_f64(self.debt / rate).unwrap_or_default()
    }
}

impl Pacer {
    /// `rate` in wire bytes.
    pub fn new(rate: Option<Rate>) -> Self {
        Self::with_burst(rate, BURST)
    }

    /// The same, with another measure of how far sending may run ahead.
    pub fn with_burst(rate: Option<Rate>, burst: Duration) -> Self {
        Self {
            bucket: Mutex::new(Bucket { rate, burst, debt: 0.0, at: Instant::now() }),
            turn: tokio::sync::Mutex::new(()),
            rate_changed: Notify::new(),
            sent: AtomicU64::new(0),
        }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.advance(Instant::now());
        bucket
    }

    /// Another rate from now on, also for who waits already.
    pub fn set_rate(&self, rate: Option<Rate>) {
        let mut bucket = self.bucket();
        if std::mem::replace(&mut bucket.rate, rate) != rate {
            self.rate_changed.notify_waiters();
        }
    }

    /// Wire bytes let through so far.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// How much payload may go out in one turn: 5 ms of the line, a packet at least; all where there is no limit.
    pub fn slice_bytes(&self) -> usize {
        let rate = self.bucket().rate;
        rate.map_or(usize::MAX, |r| ((r.0 as f64 * SLICE.as_secs_f64()) as usize).max(MIN_SLICE_BYTES))
    }

    /// Waits until `payload_bytes` may go out: until all that went before has its time.
    pub async fn pass(&self, payload_bytes: u64) {
        let wire = payload_bytes * (1000 + OVERHEAD_MILLI) / 1000;
        if self.bucket().rate.is_some() {
            let _turn = self.turn.lock().await;
            loop {
                let changed = self.rate_changed.notified();
                let wait = {
                    let mut bucket = self.bucket();
                    let wait = bucket.wait();
                    if wait.is_zero() {
                        bucket.debt += wire as f64;
                        break;
                    }
                    wait
                };
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = changed => {}
                }
            }
        }
        self.sent.fetch_add(wire, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn keeps_the_rate_and_the_order() {
        let pacer = Arc::new(Pacer::new(Some(Rate(1_060_000))));
        let begun = Instant::now();
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let pacer = pacer.clone();
                tokio::spawn(async move {
                    for _ in 0..25 {
                        pacer.pass(10_000).await;
                    }
                    Instant::now()
                })
            })
            .collect();
        let mut ends = Vec::new();
        for t in tasks {
            ends.push(t.await.unwrap() - begun);
        }
        let (first, last) = (ends.iter().min().unwrap().as_secs_f64(), ends.iter().max().unwrap().as_secs_f64());
        assert!((0.95..=1.01).contains(&last), "a million bytes at a million a second took {last}");
        assert!(last - first < 0.12, "one was served before the others: {first} {last}");
        assert_eq!(pacer.sent_bytes(), 1_060_000);
    }

    #[tokio::test(start_paused = true)]
    async fn another_rate_holds_at_once_also_for_who_waits() {
        let pacer = Arc::new(Pacer::new(Some(Rate(10))));
        assert_eq!(pacer.slice_bytes(), MIN_SLICE_BYTES);
        let begun = Instant::now();
        pacer.pass(1000).await;
        let waits = tokio::spawn({
            let pacer = pacer.clone();
            async move { pacer.pass(1000).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        pacer.set_rate(Some(Rate(1_000_000)));
        waits.await.unwrap();
        assert!(begun.elapsed() < Duration::from_millis(1_010), "{:?}", begun.elapsed());
        assert_eq!(pacer.slice_bytes(), 5_000);
        pacer.set_rate(None);
        pacer.pass(1 << 40).await;
        assert!(begun.elapsed() < Duration::from_millis(1_010), "no limit");
    }
}
