//! Bodies whose length nobody knows before they have come: playlists, and segments that may still grow.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, HeaderMap, IF_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use super::error::{causes, shown};
use super::headers::ContentRange;
use super::{Access, OriginClient, OriginError, Validator, changed, headers, plain_header, refusal, refuse_encoding};
use crate::downlink::Downlink;

/// An origin without ranges may send so much again that is here already.
const MAX_SKIPPED_BYTES: u64 = 64 << 20;

/// Which bytes of a resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// The first one, counted in the resource.
    pub(crate) from: u64,
    /// End, exclusive; where `None` it is the resource's.
    pub(crate) end: Option<u64>,
    /// The version that the bytes before `from` are of.
    pub(crate) version: Option<Validator>,
}

/// The bytes of an answer, in order.
pub(crate) struct OpenBody {
    response: Response,
    /// Where they came from, after redirects.
    pub(crate) final_url: Url,
    /// What identifies this version of the resource.
    pub(crate) validator: Option<Validator>,
    /// The body's length, if stated.
    pub(crate) stated_bytes: Option<u64>,
    url: String,
    /// Bytes at the beginning that nobody wants: the origin knows no ranges.
    skip: u64,
    /// Bytes that are wanted, where that is known, and what came of them.
    wanted: Option<u64>,
    got: u64,
    /// The origin has nothing behind `from`.
    is_over: bool,
    idle_timeout: Duration,
    downlink: Option<Arc<Downlink>>,
}

impl OriginClient {
    /// Asks for what is `wanted` of a resource, whatever its length. An answer has to begin within `idle_timeout`, and
    /// no later byte may take longer. An origin without ranges sends all from the beginning again, and what is before
    /// `from` is read over.
    ///
    /// # Errors
    /// Any [`OriginError`].
    pub(crate) async fn open(
        &self,
        url: &Url,
        access: &Access,
        wanted: Wanted,
        idle_timeout: Duration,
    ) -> Result<OpenBody, OriginError> {
        let mut asked = HeaderMap::new();
        if wanted.from > 0 || wanted.end.is_some() {
            let last = wanted.end.map_or_else(String::new, |end| end.saturating_sub(1).to_string());
            asked.insert(RANGE, plain_header("range", format!("bytes={}-{last}", wanted.from))?);
            if let Some(version) = &wanted.version {
                asked.insert(IF_RANGE, plain_header("validator", version.to_string())?);
            }
        }
        let exchange = self.exchange(Method::GET, url, access, &asked);
        let answer = match tokio::time::timeout(idle_timeout, exchange).await {
            Ok(answer) => answer?,
            Err(_) => return Err(super::timed_out(url, "an answer", idle_timeout)),
        };
        let response = answer.response;
        let begins = begins_at(url, &response, &wanted)?;
        Ok(OpenBody {
            final_url: answer.redirected_to.unwrap_or_else(|| url.clone()),
            validator: headers::validator(response.headers()),
            stated_bytes: headers::content_length(response.headers()),
            url: shown(url),
            skip: wanted.from - begins.unwrap_or(wanted.from),
            wanted: wanted.end.map(|end| end.saturating_sub(wanted.from)),
            got: 0,
            is_over: begins.is_none(),
            idle_timeout,
            downlink: self.config.downlink.clone(),
            response,
        })
    }
}

/// The place in the resource where the answer's body begins, at or before what is wanted; `None` where the resource ends
/// there.
fn begins_at(url: &Url, response: &Response, wanted: &Wanted) -> Result<Option<u64>, OriginError> {
    let headers = response.headers();
    let status = response.status();
    if status == StatusCode::RANGE_NOT_SATISFIABLE
        && wanted.end.is_none()
        && ContentRange::unsatisfied_total(headers) == Some(wanted.from)
    {
        return Ok(None);
    }
    if !matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
        return Err(refusal(url, response, &(wanted.from..wanted.end.unwrap_or(u64::MAX))));
    }
    refuse_encoding(url, headers)?;
    if let Some(was) = &wanted.version
        && let Some(is) = headers::contradicting_validator(headers, was)
    {
        return Err(changed(url, "validator", was, &is));
    }
    if status == StatusCode::PARTIAL_CONTENT {
        // Its end may be unknown to the origin, too.
        let first = headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).and_then(headers::first_of_range);
        return match first {
            Some(first) if first == wanted.from => Ok(Some(first)),
            _ => Err(OriginError::BadResponse {
                url: shown(url),
                what: format!("a partial answer that does not begin with byte {}", wanted.from),
            }),
        };
    }
    let ends_there = wanted.end.is_none_or(|end| headers::content_length(headers) == Some(end));
    if ends_there && wanted.from <= MAX_SKIPPED_BYTES {
        Ok(Some(0))
    } else {
        Err(OriginError::NoRanges { url: shown(url) })
    }
}

impl OpenBody {
    /// The next bytes, of any size above none; `None` at the end.
    ///
    /// # Errors
    /// [`OriginError::TimedOut`], [`Truncated`](OriginError::Truncated), [`TooLong`](OriginError::TooLong) or
    /// [`Changed`](OriginError::Changed); the body is of no further use then.
    pub(crate) async fn next_chunk(&mut self) -> Result<Option<Bytes>, OriginError> {
        while !self.is_over && self.wanted != Some(self.got) {
            let read = tokio::time::timeout(self.idle_timeout, self.response.chunk()).await;
            let mut chunk = match read {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => return self.at_end(),
                Ok(Err(error)) => {
                    let cause = causes(&error.without_url());
                    tracing::debug!(url = self.url, cause, "origin body broke off");
                    return Err(self.truncated());
                }
                Err(_) => {
                    let (url, waited) = (self.url.clone(), self.idle_timeout);
                    return Err(OriginError::TimedOut { url, what: "the body", waited });
                }
            };
            if let Some(downlink) = &self.downlink {
                downlink.read(chunk.len() as u64).await;
            }
            let skipped = self.skip.min(chunk.len() as u64);
            self.skip -= skipped;
            let chunk = chunk.split_off(usize::try_from(skipped).unwrap_or(usize::MAX).min(chunk.len()));
            self.got += chunk.len() as u64;
            if let Some(wanted) = self.wanted.filter(|wanted| self.got > *wanted) {
                return Err(OriginError::TooLong { url: self.url.clone(), wanted });
            }
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    fn at_end(&self) -> Result<Option<Bytes>, OriginError> {
        if self.skip > 0 {
            let (url, was) = (self.url.clone(), "longer".to_owned());
            return Err(OriginError::Changed { url, what: "length", was, is: "shorter".to_owned() });
        }
        if self.wanted.is_some_and(|wanted| wanted > self.got) { Err(self.truncated()) } else { Ok(None) }
    }

    /// It ended early.
    pub(crate) fn truncated(&self) -> OriginError {
        let wanted = self.wanted.or(self.stated_bytes).unwrap_or(self.got + 1);
        OriginError::Truncated { url: self.url.clone(), got: self.got, wanted }
    }
}
