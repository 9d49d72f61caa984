//! Pacing of an uplink: one token bucket in wire bytes, first come first served, so that children share it equally.

use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// What goes out with a payload, in thousandths of it: headers of QUIC, UDP and IP take 45 (measured in the lab), those of
/// TLS, TCP and IP 55; so that the queue before a line of just this rate stays short.
const OVERHEAD_MILLI: u64 = 60;
/// How far sending may run ahead of the rate.
const BURST: Duration = Duration::from_millis(20);

/// A paced uplink; no limit where the rate is `None`.
#[derive(Debug)]
pub struct Pacer {
    bytes_per_s: Option<u64>,
    /// When what was let through so far is over at the rate. Held while waiting: that makes the queue.
    busy_until: Mutex<Instant>,
}

impl Pacer {
    /// `bytes_per_s` of wire bytes.
    pub fn new(bytes_per_s: Option<u64>) -> Self {
        Self { bytes_per_s, busy_until: Mutex::new(Instant::now()) }
    }

    /// Waits until `payload_bytes` may go out.
    pub async fn pass(&self, payload_bytes: u64) {
        let Some(rate) = self.bytes_per_s else { return };
        let wire = payload_bytes * (1000 + OVERHEAD_MILLI) / 1000;
        let mut busy_until = self.busy_until.lock().await;
        let now = Instant::now();
        *busy_until = (*busy_until).max(now) + Duration::from_secs_f64(wire as f64 / rate.max(1) as f64);
        let go = busy_until.checked_sub(BURST).unwrap_or(now);
        if go > now {
            tokio::time::sleep_until(go).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn keeps_the_rate_and_the_order() {
        let pacer = Arc::new(Pacer::new(Some(1_060_000)));
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
        // The first task has the burst to itself (20 ms of the line, 80 ms of its quarter), then all take turns.
        assert!(last - first < 0.12, "one was served before the others: {first} {last}");
    }
}
