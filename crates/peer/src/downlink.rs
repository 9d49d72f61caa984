//! The node's downlink, shared by all contents: what parents are asked for and what is read from origins. Live streams have
//! it first: what they read waits for nothing, and files leave them what they need.

use headwater_model::{Rate, Time};
use headwater_peer_core::Intake;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A downlink, limited or not.
#[derive(Debug)]
pub struct Downlink {
    begun: Instant,
    intake: Mutex<Intake>,
}

impl Downlink {
    /// Without a limit; `begun` is the moment that times are counted from.
    pub fn new(begun: Instant) -> Self {
        Self { begun, intake: Mutex::new(Intake::default()) }
    }

    /// To be charged while a swarm asks.
    pub(crate) fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another limit from now on, in wire bytes.
    pub(crate) fn limit(&self, rate: Option<Rate>) {
        self.intake().limit(self.now(), rate);
    }

    /// What live streams take from now on, and what files may beside them; `None` where there are no streams.
    pub(crate) fn beside_streams(&self, rates: Option<(Rate, Rate)>) {
        self.intake().beside_streams(self.now(), rates);
    }

    /// `payload_bytes` were read that nobody had counted: returns when the next may be read.
    pub(crate) async fn read(&self, payload_bytes: u64) {
        let until = self.intake().charge(self.now(), payload_bytes);
        if let Some(until) = until {
            let wait = until.since(self.now());
            tokio::time::sleep(std::time::Duration::from_micros(wait.0)).await;
        }
    }

    /// What one request may ask an origin or a waypoint for: it all comes as fast as the line goes, however slowly it is
    /// read.
    pub(crate) fn request_bytes(&self) -> u64 {
        self.intake().at_once().unwrap_or(u64::MAX)
    }

    fn now(&self) -> Time {
        Time(self.begun.elapsed().as_micros() as u64 + 1)
    }
}
