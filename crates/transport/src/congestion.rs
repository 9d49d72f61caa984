//! Congestion control between peers: CUBIC (RFC 9438) whose slow start ends when round trips grow (after RFC 9406), not
//! only when a queue overflows: a parent opens connections all the time, and each would cost all others packets.

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, Cubic, CubicConfig};
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Slow start ends when a round's shortest round trip is so much longer than the shortest so far (RFC 9406,
/// `MAX_RTT_THRESH`).
const QUEUE: Duration = Duration::from_millis(16);
/// Packets acknowledged that a round has at least to be judged: jitter is no queue (RFC 9406, `N_RTT_SAMPLE`, counts
/// acknowledgements, which are half as many).
const SAMPLES: u32 = 16;

/// The least window, in packets: with two of them, as RFC 9002 has it, no substream of a live stream comes through a line on
/// which packets were lost while many connections began. What is sent is paced for all connections together.
const LEAST_PACKETS: u64 = 4;

/// Makes the controllers.
#[derive(Debug, Default)]
pub(crate) struct SlowStartByDelay(Arc<CubicConfig>);

impl ControllerFactory for SlowStartByDelay {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let cubic = Cubic::new(self.0.clone(), now, current_mtu);
        Box::new(Sender { cubic, rounds: Some(Rounds::new(now)), packet_bytes: current_mtu.into() })
    }
}

/// One connection's controller.
#[derive(Clone, Debug)]
struct Sender {
    cubic: Cubic,
    /// While slow start lasts.
    rounds: Option<Rounds>,
    packet_bytes: u64,
}

/// Round trips since the connection began. A round ends when `SAMPLES` packets are acknowledged that were sent in it.
#[derive(Clone, Debug)]
struct Rounds {
    began: Instant,
    samples: u32,
    /// Shortest round trip of this round, and of all.
    shortest: Option<Duration>,
    base: Option<Duration>,
}

impl Rounds {
    fn new(now: Instant) -> Self {
        Self { began: now, samples: 0, shortest: None, base: None }
    }

    /// A packet that was sent at `sent` is acknowledged. Returns whether a round ended in which packets waited in a queue.
    fn acked(&mut self, now: Instant, sent: Instant) -> bool {
        let took = Some(now.saturating_duration_since(sent));
        let least = |old: Option<Duration>| old.into_iter().chain(took).min();
        self.base = least(self.base);
        if sent < self.began {
            return false;
        }
        (self.samples, self.shortest) = (self.samples + 1, least(self.shortest));
        if self.samples < SAMPLES {
            return false;
        }
        let queue = self.shortest.zip(self.base).map_or(Duration::ZERO, |(s, b)| s - b);
        (self.began, self.samples, self.shortest) = (now, 0, None);
        queue > QUEUE
    }
}

impl Controller for Sender {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
        if self.rounds.as_mut().is_some_and(|r| r.acked(now, sent)) {
            self.rounds = None;
            // The one way out of slow start that quinn's CUBIC has; RFC 9406 would leave the window as it is.
            self.cubic.on_congestion_event(now, sent, false, 0);
        }
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.rounds = is_persistent_congestion.then(|| Rounds::new(now));
        self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.packet_bytes = new_mtu.into();
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window().max(LEAST_PACKETS * self.packet_bytes)
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Round trips in ms, one round of 20 packets each, and in which slow start ends.
    fn check(story: &[(u64, u64)], expected: Option<usize>) {
        let zero = Instant::now();
        let (mut rounds, mut sent) = (Rounds::new(zero), zero);
        let found = story.iter().position(|(least, most)| {
            let ended = (0..20).any(|n| {
                let rtt = if n % 8 == 0 { *least } else { *most };
                rounds.acked(sent + Duration::from_millis(rtt), sent)
            });
            sent += Duration::from_millis(*most);
            ended
        });
        assert_eq!(found, expected, "{story:?}");
    }

    #[test]
    fn slow_start_ends_with_a_queue_and_not_with_jitter() {
        check(&[(20, 20), (20, 24), (28, 30), (40, 44)], Some(3));
        check(&[(60, 60), (62, 90), (61, 95), (60, 95)], None);
        check(&[(60, 60), (70, 90), (80, 95)], Some(2));
    }
}
