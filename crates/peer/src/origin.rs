//! The origin client: reads byte ranges of a file from any HTTP(S) server or CDN that has ranges.
//!
//! Nothing that an origin says is believed without need: ranges are tested, lengths and validators
//! are compared with the expected ones on every answer, and what it may send or delay has a limit.
//! Redirects are followed here and not by the HTTP library, because only this module knows that
//! every header of an [`Access`] is a secret of the first host.

mod access;
mod body;
mod error;
mod headers;
mod open;
#[cfg(test)]
#[path = "origin_tests.rs"]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, IF_RANGE, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use url::Url;

pub use self::access::Access;
use self::access::{credential_headers, with_query};
pub use self::body::RangeStream;
pub use self::error::OriginError;
pub(crate) use self::error::{causes, shown};
use self::headers::ContentRange;
pub(crate) use self::open::{OpenBody, Wanted};
use crate::downlink::Downlink;
use crate::sources::{Sources, Way};

/// Longest `Location` that is followed.
const MAX_LOCATION_BYTES: usize = 8 * 1024;

/// Idle connections kept for reuse, and for how long: below the 60 s and more at which servers close.
const MAX_IDLE_CONNECTIONS_PER_HOST: usize = 8;
const IDLE_CONNECTION_LIFE: Duration = Duration::from_secs(50);

/// Longest pause between two tries that the origin did not ask for.
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// So many bytes since the last count of failures make a fresh count: a long file on a shaky line
/// gets through, and an origin that drips cannot hold a fetch for ever.
const PROGRESS_FORGIVES_BYTES: u64 = 1024 * 1024;

/// How an [`OriginClient`] behaves.
#[derive(Debug, Clone)]
pub struct OriginConfig {
    /// Most time for a connection to come about, TLS included.
    pub connect_timeout: Duration,
    /// Most time without a byte from the origin.
    pub idle_timeout: Duration,
    /// Least rate of a body, averaged over the time spent waiting for it, after a first `idle_timeout`.
    pub least_bytes_per_s: u32,
    /// Most redirects followed per request.
    pub redirect_limit: u32,
    /// Tries after the first in [`OriginClient::fetch_all`].
    pub retries: u32,
    /// Pause before the first retry; it doubles each time, up to 10 s.
    pub backoff: Duration,
    /// Root certificates trusted beside the system's: PEM, one or more in each element.
    pub extra_root_pem: Vec<Vec<u8>>,
    /// Whether `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` of the environment count.
    pub environment_proxy: bool,
    /// Proxy for everything, in place of the environment's; `NO_PROXY` counts.
    pub proxy: Option<Url>,
    /// Where origins may be.
    pub sources: Sources,
    /// What bodies may fill of it.
    pub downlink: Option<Arc<Downlink>>,
}

impl Default for OriginConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(15),
            least_bytes_per_s: 1024,
            redirect_limit: 5,
            retries: 5,
            backoff: Duration::from_millis(250),
            extra_root_pem: Vec::new(),
            environment_proxy: true,
            proxy: None,
            sources: Sources::Any,
            downlink: None,
        }
    }
}

/// What identifies a version of the file at an origin.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Validator {
    /// A strong entity tag, with its quotes.
    ETag(String),
    /// The `Last-Modified` date, as the origin writes it.
    LastModified(String),
}

impl fmt::Display for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::ETag(value) | Self::LastModified(value)) = self;
        f.write_str(value)
    }
}

/// The version of the file that every answer must belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Length of the whole file, in bytes.
    pub length: u64,
    /// Its validator, if the origin gives one.
    pub validator: Option<Validator>,
}

/// What an origin says about a file.
#[derive(Clone, PartialEq, Eq)]
pub struct OriginInfo {
    /// Length in bytes.
    pub length: u64,
    /// Strong entity tag or else date of the last change, if any.
    pub validator: Option<Validator>,
    /// Whether a byte range was asked for and came.
    pub ranges: bool,
    /// The URL after redirects; without redirects the one asked for, without the query of the
    /// [`Access`]. A redirect's target may be a signed URL: `Debug` shows it without its query.
    pub final_url: Url,
}

impl fmt::Debug for OriginInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginInfo")
            .field("length", &self.length)
            .field("validator", &self.validator)
            .field("ranges", &self.ranges)
            .field("final_url", &shown(&self.final_url))
            .finish()
    }
}

/// An HTTP client for origins, HTTP/1.1 and HTTP/2; clones share its connections.
#[derive(Debug, Clone)]
pub struct OriginClient {
    http: reqwest::Client,
    config: Arc<OriginConfig>,
    way: Way,
}

/// An answer whose status is not a redirect's.
struct Answer {
    response: Response,
    /// Where it came from, if not from the URL asked for.
    redirected_to: Option<Url>,
}

impl OriginClient {
    /// Builds a client that trusts the system's root certificates and those of `config`.
    ///
    /// Installs ring as the process's TLS provider, unless one is installed already.
    ///
    /// # Errors
    /// [`OriginError::Setup`] if an extra root certificate cannot be read.
    pub fn new(config: OriginConfig) -> Result<Self, OriginError> {
        // An error means that the process has a provider, which then serves here too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut roots = Vec::new();
        for pem in &config.extra_root_pem {
            let found = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| setup(&causes(&error)))?;
            if found.is_empty() {
                return Err(setup("an extra root holds no certificate in PEM form"));
            }
            roots.extend(found);
        }
        let way = Way {
            proxy: config.proxy.clone(),
            environment_proxy: config.environment_proxy,
            sources: config.sources.clone(),
        };
        let builder = || {
            let builder = way.builder(true).map_err(|error| setup(&causes(&error)))?;
            Ok(builder
                .connect_timeout(config.connect_timeout)
                .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS_PER_HOST)
                .pool_idle_timeout(IDLE_CONNECTION_LIFE))
        };
        let with_system = builder()?.tls_certs_merge(roots.clone()).build();
        let http = match with_system {
            Ok(http) => http,
            // A container without root certificates still reaches origins by plain HTTP.
            Err(error) if roots.is_empty() => {
                let cause = causes(&error);
                tracing::warn!(cause, "no system root certificates: no HTTPS origin is trusted");
                let without = builder()?.tls_certs_only(roots).build();
                without.map_err(|error| setup(&causes(&error)))?
            }
            Err(error) => return Err(setup(&causes(&error))),
        };
        let config = Arc::new(config);
        Ok(Self { http, config, way })
    }

    /// Finds out length, validator and whether byte ranges work, by asking for the first byte.
    /// Where that answer states no length, a HEAD request follows.
    ///
    /// # Errors
    /// Any [`OriginError`]; no retries.
    pub async fn probe(&self, url: &Url, access: &Access) -> Result<OriginInfo, OriginError> {
        let mut asked = HeaderMap::new();
        asked.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        let answer = self.exchange(Method::GET, url, access, &asked).await?;
        let headers = answer.response.headers();
        let validator = headers::validator(headers);
        let (length, ranges) = match answer.response.status() {
            StatusCode::PARTIAL_CONTENT => {
                refuse_encoding(url, headers)?;
                let got = content_range(url, headers)?;
                if got.first != 0 || got.end != 1 {
                    return Err(wrong_range(url, got));
                }
                let mut body = RangeStream::new(answer.response, url, 1, &self.config);
                while body.next_chunk().await?.is_some() {}
                (got.total, true)
            }
            // The only file without a first byte is the empty one.
            StatusCode::RANGE_NOT_SATISFIABLE if ContentRange::unsatisfied_total(headers) == Some(0) => (0, true),
            StatusCode::OK => {
                refuse_encoding(url, headers)?;
                match headers::content_length(headers) {
                    Some(length) => (length, false),
                    None => (self.length_by_head(url, access).await?, false),
                }
            }
            _ => return Err(refusal(url, &answer.response, &(0..1))),
        };
        Ok(OriginInfo { length, validator, ranges, final_url: answer.redirected_to.unwrap_or_else(|| url.clone()) })
    }

    async fn length_by_head(&self, url: &Url, access: &Access) -> Result<u64, OriginError> {
        let asked = HeaderMap::new();
        let answer = self.exchange(Method::HEAD, url, access, &asked).await?;
        let headers = answer.response.headers();
        refuse_encoding(url, headers)?;
        let length = headers::content_length(headers).filter(|_| answer.response.status().is_success());
        length.ok_or_else(|| OriginError::NoLength { url: shown(url) })
    }

    /// Asks for the bytes of `range` of the expected version of the file, once.
    ///
    /// # Errors
    /// Any [`OriginError`]: [`Changed`](OriginError::Changed) if length or validator differ,
    /// [`NoRanges`](OriginError::NoRanges) if the whole file comes though less was asked for.
    pub async fn fetch_range(
        &self,
        url: &Url,
        access: &Access,
        range: Range<u64>,
        expected: &Expected,
    ) -> Result<RangeStream, OriginError> {
        if range.start >= range.end || range.end > expected.length {
            return Err(OriginError::BadRange { first: range.start, end: range.end, length: expected.length });
        }
        let mut asked = HeaderMap::new();
        let bytes = format!("bytes={}-{}", range.start, range.end - 1);
        asked.insert(RANGE, plain_header("range", bytes)?);
        if let Some(validator) = &expected.validator {
            asked.insert(IF_RANGE, plain_header("validator", validator.to_string())?);
        }
        let answer = self.exchange(Method::GET, url, access, &asked).await?;
        let wanted = range.end - range.start;
        check_head(url, &answer.response, &range, expected)?;
        Ok(RangeStream::new(answer.response, url, wanted, &self.config))
    }

    /// Asks for the bytes of `range` of a file of any length, once: a part of a stream that may still grow.
    ///
    /// # Errors
    /// Any [`OriginError`]; [`NoRanges`](OriginError::NoRanges) if the whole file comes though it has no such beginning.
    pub async fn fetch_part(&self, url: &Url, access: &Access, range: Range<u64>) -> Result<RangeStream, OriginError> {
        if range.start >= range.end {
            return Err(OriginError::BadRange { first: range.start, end: range.end, length: 0 });
        }
        let mut asked = HeaderMap::new();
        let bytes = format!("bytes={}-{}", range.start, range.end - 1);
        asked.insert(RANGE, plain_header("range", bytes)?);
        let answer = self.exchange(Method::GET, url, access, &asked).await?;
        let (status, headers) = (answer.response.status(), answer.response.headers());
        let wanted = range.end - range.start;
        if status == StatusCode::PARTIAL_CONTENT
            && let Some((first, end, None)) = headers::part(headers)
        {
            // How long one that grows will be its origin does not know.
            refuse_encoding(url, headers)?;
            if first != range.start || end > range.end {
                return Err(wrong_range(url, ContentRange { first, end, total: end }));
            }
            return Ok(RangeStream::new(answer.response, url, wanted, &self.config));
        }
        let length = match status {
            StatusCode::PARTIAL_CONTENT => content_range(url, headers)?.total,
            StatusCode::OK => headers::content_length(headers).unwrap_or(wanted),
            _ => return Err(refusal(url, &answer.response, &range)),
        };
        check_head(url, &answer.response, &range, &Expected { length, validator: None })?;
        Ok(RangeStream::new(answer.response, url, wanted, &self.config))
    }

    /// Fetches the bytes of `range` in order, giving each chunk once to `sink` with its offset in
    /// the file. After a transient fault it resumes at the byte where it broke, with exponential
    /// pauses and the origin's `Retry-After`, up to [`OriginConfig::retries`] times; every MiB that
    /// arrived makes a fresh count. An empty range asks nothing of the origin.
    ///
    /// Dropping the future ends the fetch.
    ///
    /// # Errors
    /// The first permanent [`OriginError`], or the last transient one.
    pub async fn fetch_all(
        &self,
        url: &Url,
        access: &Access,
        range: Range<u64>,
        expected: &Expected,
        mut sink: impl FnMut(u64, Bytes),
    ) -> Result<(), OriginError> {
        let mut expected = expected.clone();
        let mut offset = range.start;
        let mut counted_from = offset;
        let mut failures = 0;
        while offset < range.end {
            let rest = offset..range.end;
            let Err(error) = self
                .fetch_rest(url, access, rest, &mut expected, |chunk| {
                    let at = offset;
                    offset += chunk.len() as u64;
                    sink(at, chunk);
                })
                .await
            else {
                break;
            };
            if offset - counted_from >= PROGRESS_FORGIVES_BYTES {
                counted_from = offset;
                failures = 0;
            }
            if !error.is_transient() || failures == self.config.retries {
                return Err(error);
            }
            // The jitter on top of what the origin asks keeps its clients from returning together.
            let wait = error.retry_after().unwrap_or_default() + self.backoff(failures);
            failures += 1;
            tracing::debug!(%error, failures, offset, ?wait, "origin fetch will resume");
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    async fn fetch_rest(
        &self,
        url: &Url,
        access: &Access,
        range: Range<u64>,
        expected: &mut Expected,
        mut sink: impl FnMut(Bytes),
    ) -> Result<(), OriginError> {
        let mut body = self.fetch_range(url, access, range, expected).await?;
        if expected.validator.is_none() {
            // So that a resumed fetch cannot mix two versions.
            expected.validator = body.validator.take();
        }
        while let Some(chunk) = body.next_chunk().await? {
            let len = chunk.len() as u64;
            sink(chunk);
            if let Some(downlink) = &self.config.downlink {
                downlink.read(len).await;
            }
        }
        Ok(())
    }

    /// The pause after `failures` earlier ones: doubled each time, then cut by up to a half at random.
    fn backoff(&self, failures: u32) -> Duration {
        let full = self.config.backoff.saturating_mul(1 << failures.min(16));
        let random = getrandom::u32().unwrap_or(0);
        let share = 1.0 - 0.5 * f64::from(random) / f64::from(u32::MAX);
        full.min(MAX_BACKOFF).mul_f64(share)
    }

    /// Sends a request and follows redirects, leaving the credentials behind at the first one that
    /// goes to another scheme, host or port.
    async fn exchange(
        &self,
        method: Method,
        url: &Url,
        access: &Access,
        asked: &HeaderMap,
    ) -> Result<Answer, OriginError> {
        let mut credentials = credential_headers(access)?;
        let mut target = with_query(url, access)?;
        let mut redirected = false;
        let limit = self.config.redirect_limit;
        for _ in 0..=limit {
            if !matches!(target.scheme(), "http" | "https") {
                let url = shown(&target);
                return Err(OriginError::NotHttp { url });
            }
            if !self.way.allows(&target).await {
                let url = shown(&target);
                return Err(OriginError::NotListed { url });
            }
            // Credentials first: nothing in them may replace the range asked for.
            let mut request = self.http.request(method.clone(), target.clone());
            request = request.headers(credentials.clone()).headers(asked.clone());
            request = request.header(ACCEPT_ENCODING, "identity");
            let patience = self.config.connect_timeout + self.config.idle_timeout;
            let response = match tokio::time::timeout(patience, request.send()).await {
                Ok(sent) => sent.map_err(|error| OriginError::from_send(url, error))?,
                Err(_) => return Err(timed_out(url, "an answer", patience)),
            };
            if !is_redirect(response.status()) {
                return Ok(Answer { response, redirected_to: redirected.then_some(target) });
            }
            let next = location(url, &target, &response)?;
            if next.origin() != target.origin() {
                credentials.clear();
            }
            target = next;
            redirected = true;
        }
        let url = shown(url);
        Err(OriginError::TooManyRedirects { url, limit })
    }
}

/// Refuses an answer that does not carry the range of the expected version.
fn check_head(url: &Url, response: &Response, range: &Range<u64>, expected: &Expected) -> Result<(), OriginError> {
    let headers = response.headers();
    let status = response.status();
    let total = match status {
        StatusCode::PARTIAL_CONTENT => Some(content_range(url, headers)?.total),
        StatusCode::OK => headers::content_length(headers),
        StatusCode::RANGE_NOT_SATISFIABLE => ContentRange::unsatisfied_total(headers),
        _ => return Err(refusal(url, response, range)),
    };
    if status.is_success() {
        // A compressed body has another length: say so before calling it a change.
        refuse_encoding(url, headers)?;
    }
    if let Some(is) = total.filter(|total| *total != expected.length) {
        return Err(changed(url, "length", &expected.length, &is));
    }
    if let Some(was) = &expected.validator
        && let Some(is) = headers::contradicting_validator(headers, was)
    {
        return Err(changed(url, "validator", was, &is));
    }
    match status {
        StatusCode::PARTIAL_CONTENT => {
            let got = content_range(url, headers)?;
            // A shorter part is allowed (RFC 9110 section 15.3.7) and ends as `Truncated`.
            let fits = got.first == range.start && got.end <= range.end;
            if fits { Ok(()) } else { Err(wrong_range(url, got)) }
        }
        StatusCode::OK if *range == (0..expected.length) => Ok(()),
        StatusCode::OK => Err(OriginError::NoRanges { url: shown(url) }),
        _ => Err(refusal(url, response, range)),
    }
}

/// What a status without the bytes asked for means.
fn refusal(url: &Url, response: &Response, range: &Range<u64>) -> OriginError {
    let url = shown(url);
    let status = response.status().as_u16();
    match status {
        401 | 403 => OriginError::Refused { url, status },
        404 | 410 => OriginError::NotFound { url, status },
        416 => OriginError::RangeRefused { url, first: range.start, end: range.end },
        408 | 429 | 500..=599 => {
            OriginError::Busy { url, status, retry_after: headers::retry_after(response.headers(), wall_clock()) }
        }
        _ => {
            let what = format!("status {status}");
            OriginError::BadResponse { url, what }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the shell reads the clock; only for a date from an origin that states none of its own"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

fn refuse_encoding(url: &Url, headers: &HeaderMap) -> Result<(), OriginError> {
    match headers::content_encoding(headers) {
        None => Ok(()),
        Some(encoding) => Err(OriginError::Encoded { url: shown(url), encoding: encoding.chars().take(64).collect() }),
    }
}

fn content_range(url: &Url, headers: &HeaderMap) -> Result<ContentRange, OriginError> {
    ContentRange::of(headers).ok_or_else(|| OriginError::BadResponse {
        url: shown(url),
        what: "a partial answer without a valid Content-Range".to_owned(),
    })
}

fn wrong_range(url: &Url, got: ContentRange) -> OriginError {
    OriginError::BadResponse {
        url: shown(url),
        what: format!("bytes {}..{} that nobody asked for", got.first, got.end),
    }
}

fn changed(url: &Url, what: &'static str, was: &dyn fmt::Display, is: &dyn fmt::Display) -> OriginError {
    OriginError::Changed { url: shown(url), what, was: was.to_string(), is: is.to_string() }
}

fn timed_out(url: &Url, what: &'static str, waited: Duration) -> OriginError {
    let url = shown(url);
    OriginError::TimedOut { url, what, waited }
}

fn setup(cause: &str) -> OriginError {
    let cause = cause.to_owned();
    OriginError::Setup { cause }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn location(url: &Url, target: &Url, response: &Response) -> Result<Url, OriginError> {
    let value = response.headers().get(LOCATION);
    value
        .filter(|value| value.len() <= MAX_LOCATION_BYTES)
        .and_then(|value| target.join(std::str::from_utf8(value.as_bytes()).ok()?).ok())
        .ok_or_else(|| OriginError::BadResponse {
            url: shown(url),
            what: "a redirect without a usable Location".to_owned(),
        })
}

fn plain_header(what: &str, value: String) -> Result<HeaderValue, OriginError> {
    HeaderValue::try_from(value)
        .map_err(|_| OriginError::BadAccess { what: format!("the {what} cannot be sent as a header") })
}
