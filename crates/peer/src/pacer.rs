//! Pacing of a line: one token bucket in wire bytes, at which contents take turns by priority, and those who send of one
//! content in the order in which they come, so that these share it equally.

use headwater_model::node::Priority;
use headwater_model::{ContentId, Micros, Rate};
use headwater_peer_core::{Turn, Turns};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What goes out with a payload, in thousandths of it, as far as it is not known better: headers of QUIC, UDP and IP take
/// 45 (measured in the lab), those of TLS, TCP and IP 55; so that the queue before a line of just this rate stays short.
const OVERHEAD_MILLI: u64 = 60;
/// What left is counted with so much more, in thousandths, so that a queue before a line of just this rate drains.
const MARGIN_MILLI: u64 = 15;
/// What waits in connections is no part of what left, as far as a line takes it in this time.
const WAITS: Micros = Micros::from_millis(250);
/// How far sending may run ahead of the rate, to make up for timers that come late, where nothing else is said.
const BURST: Duration = Duration::from_millis(20);
/// What is let through at once at most, of that: a packet of the user's own waits behind it, and each costs a timer.
const SLICE_OF_BURST: f64 = 0.625;
/// Less is not worth a turn: a packet's payload.
const MIN_SLICE_BYTES: usize = 1200;

/// A paced line; no limit where the rate is `None`.
#[derive(Debug)]
pub struct Pacer {
    bucket: Mutex<Bucket>,
    queue: Queue,
    rate_changed: Notify,
    /// Wire bytes let through so far.
    sent: AtomicU64,
    /// Those among them that [`Pacer::left`] is not told of.
    sent_otherwise: AtomicU64,
}

#[derive(Debug)]
struct Bucket {
    rate: Option<Rate>,
    burst: Duration,
    /// Wire bytes let through and not paid for by time yet, as of `at`; negative is credit.
    debt: f64,
    at: Instant,
    /// Absent where nothing is owed for what left so far: there was no limit.
    beside: Option<Beside>,
}

/// Wire bytes that left beside what was let through; negative where some of that waits.
#[derive(Clone, Copy, Debug)]
struct Beside {
    /// As far as they are in the debt.
    owed: i64,
    /// The most there were: when least waited.
    most: i64,
}

impl Bucket {
    /// Time pays.
    fn advance(&mut self, now: Instant) {
        let Some(rate) = self.rate else {
            (self.debt, self.at, self.beside) = (0.0, now, None);
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

/// Where one that sends waits for its turns.
#[derive(Debug)]
pub struct Place {
    content: ContentId,
    wake: Arc<Notify>,
}

/// Those who wait for their turn.
#[derive(Debug, Default)]
struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    turns: Turns,
    wakes: BTreeMap<Turn, Arc<Notify>>,
}

/// A wait, which ends when this is dropped.
struct Wait<'a> {
    queue: &'a Queue,
    turn: Turn,
}

impl Place {
    /// A place for one that sends of this content, at any pacer.
    pub fn new(content: ContentId) -> Self {
        Self { content, wake: Arc::default() }
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
            bucket: Mutex::new(Bucket { rate, burst, debt: 0.0, at: Instant::now(), beside: None }),
            queue: Queue::default(),
            rate_changed: Notify::new(),
            sent: AtomicU64::new(0),
            sent_otherwise: AtomicU64::new(0),
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

    /// `wire_bytes` have left so far. What left beside payloads (acknowledgements, messages, packets that were sent again)
    /// takes its part of the rate, too; what was let through and waits in a connection does not yet, but no more of it than
    /// [`WAITS`] says: connections take whatever they are given, and would all send it at once when they can.
    pub fn left(&self, wire_bytes: u64) {
        let counted = self.sent_bytes().saturating_sub(self.sent_otherwise.load(Ordering::Relaxed));
        let beside = (wire_bytes * (1000 + MARGIN_MILLI) / 1000) as i64 - counted as i64;
        let mut bucket = self.bucket();
        let waits = bucket.rate.map_or(0, |r| r.bytes_in(WAITS) as i64);
        let most = bucket.beside.map_or(beside, |b| b.most.max(beside));
        let owed = beside.max(most - waits);
        if let Some(before) = bucket.beside.replace(Beside { owed, most }) {
            bucket.debt += (owed - before.owed) as f64;
        }
    }

    /// Whether there is a limit.
    pub fn is_limited(&self) -> bool {
        self.bucket().rate.is_some()
    }

    /// How much payload may go out in one turn: a packet at least; all where there is no limit.
    pub fn slice_bytes(&self) -> usize {
        let (rate, burst) = {
            let bucket = self.bucket();
            (bucket.rate, bucket.burst.as_secs_f64())
        };
        rate.map_or(usize::MAX, |r| ((r.0 as f64 * burst * SLICE_OF_BURST) as usize).max(MIN_SLICE_BYTES))
    }

    /// How much a content matters from now on.
    pub fn set_priority(&self, content: ContentId, priority: Priority) {
        self.queue.lock().turns.set_priority(content, priority);
    }

    /// A content is a live stream: it goes before whatever is not.
    pub fn set_live(&self, content: ContentId) {
        self.queue.lock().turns.set_live(content);
    }

    /// A content has ended.
    pub fn forget(&self, content: &ContentId) {
        self.queue.lock().turns.forget(content);
    }

    /// The same as [`Pacer::pass`] for what [`Pacer::left`] is not told of.
    pub async fn pass_uncounted(&self, place: &Place, payload_bytes: u64) {
        self.pass(place, payload_bytes).await;
        self.sent_otherwise.fetch_add(wire_bytes(payload_bytes), Ordering::Relaxed);
    }

    /// Waits until `payload_bytes` may go out: until all that went before has its time.
    pub async fn pass(&self, place: &Place, payload_bytes: u64) {
        let wire = wire_bytes(payload_bytes);
        if self.bucket().rate.is_some() {
            let wait = self.queue.wait(place, wire);
            loop {
                if !wait.is_first() {
                    place.wake.notified().await;
                    continue;
                }
                // Who comes meanwhile may be the first then.
                let changed = self.rate_changed.notified();
                let pause = {
                    let mut bucket = self.bucket();
                    let pause = bucket.wait();
                    if pause.is_zero() {
                        bucket.debt += wire as f64;
                        break;
                    }
                    pause
                };
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = changed => {}
                }
            }
            wait.take();
        }
        self.sent.fetch_add(wire, Ordering::Relaxed);
    }
}

fn wire_bytes(payload_bytes: u64) -> u64 {
    payload_bytes * (1000 + OVERHEAD_MILLI) / 1000
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, place: &Place, bytes: u64) -> Wait<'_> {
        let mut waiting = self.lock();
        let turn = waiting.turns.ask(place.content, bytes);
        waiting.wakes.insert(turn, place.wake.clone());
        Wait { queue: self, turn }
    }
}

impl Wait<'_> {
    fn is_first(&self) -> bool {
        self.queue.lock().turns.first() == Some(self.turn)
    }

    fn take(self) {
        self.queue.lock().turns.take(self.turn);
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut waiting = self.queue.lock();
        waiting.turns.leave(self.turn);
        waiting.wakes.remove(&self.turn);
        if let Some(wake) = waiting.turns.first().and_then(|first| waiting.wakes.get(&first)) {
            wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Senders of contents each send 25 times 10,000 bytes over a line of a million bytes a second; when each content is
    /// through, in seconds.
    async fn ends(contents: &[(usize, Priority)]) -> Vec<f64> {
        let pacer = Arc::new(Pacer::new(Some(Rate(1_060_000))));
        let begun = Instant::now();
        let mut tasks = Vec::new();
        for (n, (senders, priority)) in contents.iter().enumerate() {
            let content = ContentId([n as u8; 32]);
            pacer.set_priority(content, *priority);
            for _ in 0..*senders {
                let (pacer, place) = (pacer.clone(), Place::new(content));
                tasks.push(tokio::spawn(async move {
                    for _ in 0..25 {
                        pacer.pass(&place, 10_000).await;
                    }
                    (n, begun.elapsed().as_secs_f64())
                }));
            }
        }
        let mut ends = vec![0.0_f64; contents.len()];
        for task in tasks {
            let (n, end) = task.await.unwrap();
            ends[n] = ends[n].max(end);
        }
        ends
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_the_rate_and_shares_it() {
        type Case<'a> = (&'a [(usize, Priority)], &'a [f64]);
        let cases: &[Case<'_>] = &[
            (&[(4, Priority::Normal)], &[1.0]),
            // 250,000 bytes of one child beside 24 children of another content: half the line, then the rest.
            (&[(24, Priority::Normal), (1, Priority::Normal)], &[6.25, 0.5]),
            (&[(24, Priority::Normal), (1, Priority::High)], &[6.25, 0.3125]),
            (&[(24, Priority::Normal), (1, Priority::Low)], &[6.25, 1.25]),
        ];
        for (contents, expected) in cases {
            let ends = ends(contents).await;
            let near =
                ends.iter().zip(*expected).all(|(end, expected)| (end - expected).abs() <= 0.06 * expected + 0.03);
            assert!(near, "{contents:?}: {ends:?}, not {expected:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_live_stream_has_the_line_first() {
        let pacer = Arc::new(Pacer::new(Some(Rate(1_060_000))));
        let [file, live] = [0, 1].map(|n| ContentId([n; 32]));
        pacer.set_live(live);
        let begun = Instant::now();
        let files: Vec<_> = (0..24)
            .map(|_| {
                let (pacer, place) = (pacer.clone(), Place::new(file));
                tokio::spawn(async move {
                    for _ in 0..10 {
                        pacer.pass(&place, 10_000).await;
                    }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let place = Place::new(live);
        for _ in 0..25 {
            pacer.pass(&place, 10_000).await;
        }
        let took = begun.elapsed().as_secs_f64();
        assert!((0.2..0.3).contains(&took), "250,000 bytes beside 24 children of a file took {took} s");
        for task in files {
            task.await.unwrap();
        }
        assert!(begun.elapsed().as_secs_f64() < 2.8, "the file has the rest");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_holds_nobody_back() {
        let pacer = Pacer::new(Some(Rate(1_060)));
        let begun = Instant::now();
        let give_up = |at_ms, place: Place| {
            let pacer = &pacer;
            async move { tokio::time::timeout(Duration::from_millis(at_ms), pacer.pass(&place, 10_000)).await.is_ok() }
        };
        let place = |n| Place::new(ContentId([n; 32]));
        // One takes ten seconds of the line; of those who wait, the first two give up.
        let passed = tokio::join!(
            give_up(1, place(0)),
            give_up(100, place(0)),
            give_up(50, place(0)),
            give_up(60_000, place(1))
        );
        assert_eq!(passed, (true, false, false, true));
        assert!(begun.elapsed() < Duration::from_millis(10_100), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_leaves_beside_payloads_takes_its_part_and_what_waits_does_not() {
        // Of a line of 10,600 bytes a second 2,120 go to acknowledgements; then nothing leaves of what is let through.
        let pacer = Pacer::new(Some(Rate(10_600)));
        let (place, begun) = (Place::new(ContentId::default()), Instant::now());
        for step in 1..=40_u64 {
            pacer.pass(&place, 800).await;
            pacer.left(step * (848 + 212));
        }
        let took = begun.elapsed().as_secs_f64();
        assert!((3.8..4.1).contains(&took), "{took}");
        let begun = Instant::now();
        for _ in 0..40 {
            pacer.pass(&place, 800).await;
            pacer.left(40 * (848 + 212));
        }
        // 33,920 bytes, less what a quarter of a second takes.
        let took = begun.elapsed().as_secs_f64();
        assert!((2.8..3.05).contains(&took), "{took}");
        // When that leaves at last it is owed for once, and no more.
        let begun = Instant::now();
        pacer.left(40 * (848 + 212) + 33_920);
        pacer.pass(&place, 800).await;
        let took = begun.elapsed().as_secs_f64();
        assert!((0.2..0.45).contains(&took), "{took}");
        pacer.pass_uncounted(&place, 10_000).await;
        let begun = Instant::now();
        pacer.left(40 * (848 + 212) + 33_920 + 848);
        pacer.pass(&place, 1).await;
        assert!(begun.elapsed().as_secs_f64() > 0.9, "what is not told of is no credit: {:?}", begun.elapsed());
        // What left while there was no limit is not owed when there is one again.
        pacer.set_rate(None);
        assert!(!pacer.is_limited());
        pacer.set_rate(Some(Rate(10_600)));
        let begun = Instant::now();
        pacer.left(10_000_000);
        pacer.pass(&place, 1).await;
        pacer.pass(&place, 1).await;
        assert!(begun.elapsed().as_secs_f64() < 0.1, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn another_rate_holds_at_once_also_for_who_waits() {
        let pacer = Arc::new(Pacer::new(Some(Rate(10))));
        assert_eq!(pacer.slice_bytes(), MIN_SLICE_BYTES);
        let begun = Instant::now();
        let place = || Place::new(ContentId::default());
        pacer.pass(&place(), 1000).await;
        let waits = tokio::spawn({
            let pacer = pacer.clone();
            let place = place();
            async move { pacer.pass(&place, 1000).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        pacer.set_rate(Some(Rate(1_000_000)));
        waits.await.unwrap();
        assert!(begun.elapsed() < Duration::from_millis(1_010), "{:?}", begun.elapsed());
        assert_eq!(pacer.slice_bytes(), 12_500);
        pacer.set_rate(None);
        pacer.pass(&place(), 1 << 40).await;
        assert!(begun.elapsed() < Duration::from_millis(1_010), "no limit");
    }
}
