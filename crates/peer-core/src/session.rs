//! The session with the control center: when to dial, how long to wait, what time it is there.

use headwater_model::rng::Rng;
use headwater_model::time::{Micros, Time};

/// First pause after a failed dial.
const FIRST_PAUSE: Micros = Micros::from_millis(200);
/// Every heartbeat is answered; an answer that is late by more means that the session is lost. On a full line that loses
/// packets a good session's answers are late by seconds, and giving it up costs more than waiting: a control center that
/// was restarted resets its former sessions at once.
const REPLY_PATIENCE: Micros = Micros::from_secs(5);
/// Where QUIC has worked a few failed dials are a busy line's or the control center's: so many losses in a row, the
/// session's own among them, before a WebSocket is tried.
const QUIC_FAILURES: u32 = 4;
/// A local clock that differs by more is worth a warning.
const SKEW_WORTH_A_WARNING: Micros = Micros::from_secs(5);

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionOutput {
    /// Dial now.
    Dial,
    /// Send the heartbeat of this interval.
    Heartbeat(u64),
    /// No reply came when one was due: drop the connection and dial again.
    Redial,
}

/// State of the session.
#[derive(Clone, Debug)]
pub struct ControlSession {
    connected: bool,
    dialling: bool,
    dial_at: Time,
    failures: u32,
    /// The last session was by QUIC.
    quic_worked: bool,
    heartbeat: Micros,
    backoff_cap: Micros,
    /// Control time, Unix microseconds, when the local clock showed `at`; and its error.
    clock: Option<(Time, u64, Micros)>,
    next_interval: u64,
    unanswered_since: Option<Time>,
    rng: Rng,
}

impl ControlSession {
    /// Dials at once.
    pub fn new(now: Time, seed: u64) -> Self {
        Self {
            connected: false,
            dialling: false,
            dial_at: now,
            failures: 0,
            quic_worked: false,
            heartbeat: Micros::from_secs(2),
            backoff_cap: Micros::from_secs(2),
            clock: None,
            next_interval: 0,
            unanswered_since: None,
            rng: Rng::new(seed, "session"),
        }
    }

    /// Whether there is a session.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// The session that began is by QUIC, or by a WebSocket.
    pub fn is_by_quic(&mut self, quic: bool) {
        self.quic_worked = quic;
    }

    /// Whether a WebSocket may be the way to the control center: QUIC has never worked, or not for a while.
    pub fn web_is_due(&self) -> bool {
        !self.quic_worked || self.failures > QUIC_FAILURES
    }

    /// Control time in Unix milliseconds; `None` before the first contact.
    pub fn control_unix_ms(&self, now: Time) -> Option<u64> {
        let (at, control_us, _) = self.clock?;
        Some((control_us + now.since(at).0) / 1000)
    }

    /// The control center welcomed this node. `dialled_at` is when the hello went out.
    pub fn welcomed(
        &mut self,
        now: Time,
        dialled_at: Time,
        control_unix_ms: u64,
        heartbeat_ms: u32,
        backoff_cap_ms: u32,
    ) {
        self.connected = true;
        self.dialling = false;
        self.failures = 0;
        self.heartbeat = Micros::from_millis(u64::from(heartbeat_ms.clamp(100, 60_000)));
        self.backoff_cap = Micros::from_millis(u64::from(backoff_cap_ms.clamp(200, 300_000)));
        self.unanswered_since = None;
        self.clock = None;
        self.heard(now, dialled_at, control_unix_ms);
        self.next_interval = self.interval(now) + 1;
    }

    /// A reply that carries control time; `asked_at` is when the question left. The reply's midpoint is the moment
    /// that it speaks of; half the round trip is its error.
    pub fn heard(&mut self, now: Time, asked_at: Time, control_unix_ms: u64) {
        self.unanswered_since = None;
        let error = Micros(now.since(asked_at).0 / 2);
        // Keep the reading with the smaller error, which grows by 100 µs per second (clocks drift).
        let old = self.clock.map(|(at, _, e)| e.0 + now.since(at).0 / 10_000);
        if old.is_none_or(|old| error.0 <= old) {
            self.clock = Some((Time(now.0 - error.0), control_unix_ms * 1000, error));
        }
    }

    /// The dial failed, or the session broke. Changes nothing when that is known.
    pub fn lost(&mut self, now: Time) {
        if !self.connected && !self.dialling {
            return;
        }
        self.connected = false;
        self.dialling = false;
        self.unanswered_since = None;
        let pause = FIRST_PAUSE.times(1 << self.failures.min(12)).min(self.backoff_cap);
        self.failures += 1;
        // Between half and all of the pause, so that many who lost it do not come back at one moment.
        self.dial_at = now + Micros(pause.0 / 2 + self.rng.below(pause.0 / 2 + 1));
    }

    /// The control center said not to come back before `pause`.
    pub fn wait(&mut self, now: Time, pause: Micros) {
        self.lost(now);
        self.dial_at = now + pause;
    }

    /// Seconds by which the local clock is off, when that is worth a warning.
    pub fn skew_seconds(&self, now: Time, local_unix_ms: u64) -> Option<i64> {
        let control = self.control_unix_ms(now)?;
        (control.abs_diff(local_unix_ms) * 1000 > SKEW_WORTH_A_WARNING.0)
            .then(|| (local_unix_ms as i64 - control as i64) / 1000)
    }

    /// What is due.
    pub fn poll(&mut self, now: Time) -> Option<SessionOutput> {
        if !self.connected {
            if self.dialling || now < self.dial_at {
                return None;
            }
            self.dialling = true;
            return Some(SessionOutput::Dial);
        }
        if self.unanswered_since.is_some_and(|t| now.since(t) > REPLY_PATIENCE) {
            self.lost(now);
            return Some(SessionOutput::Redial);
        }
        let interval = self.interval(now);
        if interval >= self.next_interval {
            self.next_interval = interval + 1;
            self.unanswered_since.get_or_insert(now);
            return Some(SessionOutput::Heartbeat(interval));
        }
        None
    }

    /// When [`ControlSession::poll`] should be asked next.
    pub fn next_timeout(&self, now: Time) -> Time {
        match (self.connected, self.dialling) {
            (false, true) => now + Micros::from_secs(1),
            (false, false) => self.dial_at,
            (true, _) => {
                let into = self.control_us(now) % self.heartbeat.0;
                let beat = now + Micros(self.heartbeat.0 - into + 1);
                match self.unanswered_since {
                    Some(t) => beat.min((t + REPLY_PATIENCE + Micros(1)).max(now + Micros(1))),
                    None => beat,
                }
            }
        }
    }

    fn control_us(&self, now: Time) -> u64 {
        self.clock.map_or(now.0, |(at, control, _)| control + now.since(at).0)
    }
    fn interval(&self, now: Time) -> u64 {
        self.control_us(now) / self.heartbeat.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    #[test]
    fn backs_off_with_jitter_up_to_the_cap() {
        let mut s = ControlSession::new(Time(0), 1);
        assert_eq!(s.poll(Time(0)), Some(SessionOutput::Dial));
        assert_eq!(s.poll(Time(0)), None, "one dial at a time");
        let mut now = Time(0);
        for (i, most) in [200u64, 400, 800, 1600, 2000, 2000, 2000].iter().enumerate() {
            s.lost(now);
            let pause = s.next_timeout(now).since(now).0 / 1000;
            assert!(pause >= most / 2 && pause <= *most, "pause {i} was {pause} ms");
            now = s.next_timeout(now);
            assert_eq!(s.poll(now), Some(SessionOutput::Dial));
        }
    }

    #[test]
    fn heartbeats_fall_on_intervals_of_control_time_and_silence_means_redial() {
        let mut s = ControlSession::new(Time(0), 1);
        s.poll(Time(0));
        // A local clock that shows anything: control time is 1,000,000.5 s.
        s.welcomed(Time(20_000), Time(0), 1_000_000_500, 2000, 2000);
        assert_eq!(s.control_unix_ms(Time(10_000)), Some(1_000_000_500));
        let due = s.next_timeout(Time(20_000));
        assert_eq!(s.poll(due), Some(SessionOutput::Heartbeat(500_001)));
        s.heard(due + Micros(10), due, 1_000_002_000);
        let mut now = due;
        let mut sent = 0;
        let end = loop {
            now = s.next_timeout(now);
            match s.poll(now) {
                Some(SessionOutput::Heartbeat(_)) => sent += 1,
                Some(SessionOutput::Redial) => break now,
                other => assert_eq!(other, None),
            }
            assert!(sent < 10);
        };
        assert!(end.0 - due.0 >= 6 * S && end.0 - due.0 <= 8 * S, "{}", end.0 - due.0);
        assert!(!s.is_connected());
    }

    #[test]
    fn a_websocket_is_tried_at_first_and_where_quic_fails_for_long() {
        let mut s = ControlSession::new(Time(0), 1);
        assert!(s.web_is_due());
        s.welcomed(Time(S), Time(0), 1_000_000_500, 2000, 2000);
        s.is_by_quic(true);
        for _ in 0..QUIC_FAILURES {
            s.lost(Time(S));
            s.lost(Time(S));
            assert!(!s.web_is_due(), "one loss that is told twice is one");
            assert_eq!(s.poll(Time(20 * S)), Some(SessionOutput::Dial));
        }
        s.lost(Time(S));
        assert!(s.web_is_due());
        s.welcomed(Time(S), Time(0), 1_000_000_500, 2000, 2000);
        s.is_by_quic(false);
        assert!(s.web_is_due());
    }

    #[test]
    fn a_clock_a_day_off_is_noticed_and_does_not_matter() {
        let mut s = ControlSession::new(Time(0), 1);
        s.welcomed(Time(10), Time(0), 86_400_000 * 10, 2000, 2000);
        assert_eq!(s.skew_seconds(Time(10), 86_400_000 * 11), Some(86_400));
        assert_eq!(s.skew_seconds(Time(10), 86_400_000 * 10 + 900), None);
    }
}
