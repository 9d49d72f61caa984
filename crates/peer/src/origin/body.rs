//! The body of an origin's answer, counted and timed.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::time::Instant;
use url::Url;

use super::error::{causes, shown};
use super::{OriginConfig, OriginError, Validator, headers};

/// The body of an answer: exactly the bytes asked for, in order, or an error.
pub struct RangeStream {
    response: Response,
    url: String,
    /// The validator that came with the answer.
    pub(super) validator: Option<Validator>,
    wanted: u64,
    got: u64,
    /// Time spent in waiting for the origin, the caller's own pauses not counted.
    waited: Duration,
    idle_timeout: Duration,
    least_bytes_per_s: u32,
}

impl fmt::Debug for RangeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeStream")
            .field("url", &self.url)
            .field("wanted", &self.wanted)
            .field("got", &self.got)
            .finish_non_exhaustive()
    }
}

impl RangeStream {
    pub(super) fn new(response: Response, url: &Url, wanted: u64, config: &OriginConfig) -> Self {
        Self {
            validator: headers::validator(response.headers()),
            response,
            url: shown(url),
            wanted,
            got: 0,
            waited: Duration::ZERO,
            idle_timeout: config.idle_timeout,
            least_bytes_per_s: config.least_bytes_per_s.max(1),
        }
    }

    /// The next bytes, of any size above none; `None` once all have come.
    ///
    /// Safe to cancel: no bytes are lost.
    ///
    /// # Errors
    /// [`OriginError::TimedOut`], [`Truncated`](OriginError::Truncated) or
    /// [`TooLong`](OriginError::TooLong); the stream is of no further use then.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, OriginError> {
        loop {
            let complete = self.got == self.wanted;
            if !complete && self.waited > self.patience() {
                return Err(self.timed_out());
            }
            let started = Instant::now();
            let read = tokio::time::timeout(self.idle_timeout, self.response.chunk()).await;
            self.waited += started.elapsed();
            let chunk = match read {
                Ok(Ok(Some(chunk))) => chunk,
                // A fault behind the last byte asked for harms nobody.
                _ if complete => return Ok(None),
                Err(_) => return Err(self.timed_out()),
                Ok(Ok(None)) => return Err(self.truncated()),
                Ok(Err(error)) => {
                    let cause = causes(&error.without_url());
                    tracing::debug!(url = self.url, cause, "origin body broke off");
                    return Err(self.truncated());
                }
            };
            let (url, wanted) = (&self.url, self.wanted);
            if chunk.len() as u64 > wanted - self.got {
                let url = url.clone();
                return Err(OriginError::TooLong { url, wanted });
            }
            self.got += chunk.len() as u64;
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }

    /// The time that the bytes received so far may have taken.
    fn patience(&self) -> Duration {
        let at_least_rate = self.got / u64::from(self.least_bytes_per_s);
        self.idle_timeout.saturating_add(Duration::from_secs(at_least_rate))
    }

    fn timed_out(&self) -> OriginError {
        OriginError::TimedOut { url: self.url.clone(), what: "the body", waited: self.waited }
    }

    fn truncated(&self) -> OriginError {
        OriginError::Truncated { url: self.url.clone(), got: self.got, wanted: self.wanted }
    }
}
