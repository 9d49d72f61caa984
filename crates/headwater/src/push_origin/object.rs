//! What an encoder puts, while it comes and afterwards.

use std::ops::Range;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_RANGE, RANGE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, watch};
use tokio_util::io::ReaderStream;

/// Between store and socket.
const PIPE_BYTES: usize = 64 << 10;
/// Bytes that have not come yet are waited for so long.
const COMES_WITHIN: Duration = Duration::from_secs(10);

/// Something that was put, or is being put.
#[derive(Clone, Default)]
pub(super) struct Object {
    /// Tells it from others that are put at the same path.
    pub(super) version: u64,
    pub(super) chunks: Vec<Bytes>,
    pub(super) bytes: usize,
    pub(super) end: End,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// It still comes.
    #[default]
    Open,
    Complete,
    /// The encoder broke off, or put something else in its place.
    Broken,
}

impl Object {
    /// Bytes that have come.
    fn part(&self, range: &Range<usize>) -> Bytes {
        let mut part = BytesMut::with_capacity(range.len());
        let mut at = 0;
        for chunk in &self.chunks {
            let (from, to) = (range.start.saturating_sub(at), range.end.saturating_sub(at).min(chunk.len()));
            part.extend_from_slice(chunk.get(from..to).unwrap_or_default());
            at += chunk.len();
        }
        part.freeze()
    }

    /// Whether it came to an end now, of this kind.
    pub(super) fn ends(&mut self, end: End) -> bool {
        let is_open = self.end == End::Open;
        self.end = if is_open { end } else { self.end };
        is_open
    }

    fn etag(&self) -> String {
        format!("\"{:x}\"", self.version)
    }
}

/// What a reader asked for of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    All,
    From(usize),
    /// First and last.
    Part(usize, usize),
}

/// What is not understood, and what is asked of another version, asks for all (RFC 9110, sections 13.1.5 and 14.2).
fn asked(fields: &HeaderMap, etag: &str) -> Asked {
    let text = |name: HeaderName| fields.get(name).and_then(|v| v.to_str().ok());
    if text(IF_RANGE).is_some_and(|tag| tag != etag) {
        return Asked::All;
    }
    let bounds = text(RANGE).and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
    match bounds.map(|(first, last)| (first.parse(), last.parse(), last.is_empty())) {
        Some((Ok(first), _, true)) => Asked::From(first),
        Some((Ok(first), Ok(last), _)) if first <= last => Asked::Part(first, last),
        _ => Asked::All,
    }
}

/// The answer to a request with these fields. A part of one that still comes is waited for, if so many may wait; from
/// somewhere to an end that nobody knows: all is sent as it comes.
pub(super) async fn answer(mut object: watch::Receiver<Object>, fields: &HeaderMap, waits: &Semaphore) -> Response {
    let (etag, end) = {
        let now = object.borrow();
        (now.etag(), now.end)
    };
    let asked = asked(fields, &etag);
    let mut response = match (end, asked) {
        (End::Broken, _) => return StatusCode::NOT_FOUND.into_response(),
        (End::Open, Asked::All | Asked::From(_)) => as_it_comes(object),
        (End::Open, Asked::Part(_, last)) => {
            let Ok(_waits) = waits.try_acquire() else { return not_now() };
            let is_there = |o: &Object| o.bytes > last || o.end != End::Open;
            let comes = tokio::time::timeout(COMES_WITHIN, object.wait_for(is_there)).await;
            match comes.map(|there| there.map(|o| o.clone())) {
                Ok(Ok(now)) if now.bytes > last || now.end == End::Complete => what_is_here(&now, asked),
                Ok(_) => return StatusCode::NOT_FOUND.into_response(),
                Err(_) => return not_now(),
            }
        }
        (End::Complete, _) => {
            let now = object.borrow().clone();
            what_is_here(&now, asked)
        }
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

pub(super) fn not_now() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")]).into_response()
}

/// All of it, or the part that is asked for. How long one is that still comes nobody knows.
fn what_is_here(object: &Object, asked: Asked) -> Response {
    let range = match asked {
        Asked::All => None,
        Asked::From(first) => Some(first..object.bytes),
        Asked::Part(first, last) => Some(first..last.saturating_add(1).min(object.bytes)),
    };
    let range = range.filter(|r| !r.is_empty());
    let (status, part) = match &range {
        Some(range) => (StatusCode::PARTIAL_CONTENT, object.part(range)),
        None => (StatusCode::OK, object.part(&(0..object.bytes))),
    };
    let mut response = (status, [(CONTENT_LENGTH, part.len().to_string())], part).into_response();
    let total = if object.end == End::Complete { object.bytes.to_string() } else { "*".to_owned() };
    if let Some(range) = range
        && let Ok(value) = HeaderValue::from_str(&format!("bytes {}-{}/{total}", range.start, range.end - 1))
    {
        response.headers_mut().insert(CONTENT_RANGE, value);
    }
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

/// What is here, and what comes, until it is complete; a body that breaks off where the encoder did.
fn as_it_comes(mut object: watch::Receiver<Object>) -> Response {
    let (reader, mut writer) = tokio::io::duplex(PIPE_BYTES);
    let (fail, failed) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut sent = 0;
        loop {
            let (more, end) = {
                let now = object.borrow_and_update();
                (now.chunks.get(sent..).unwrap_or_default().to_vec(), now.end)
            };
            sent += more.len();
            for chunk in more {
                if writer.write_all(&chunk).await.is_err() {
                    return;
                }
            }
            match end {
                End::Complete => return,
                End::Broken => {
                    // Whoever reads is told that it is not all.
                    let _ = fail.send(());
                    return;
                }
                End::Open if object.changed().await.is_err() => return,
                End::Open => {}
            }
        }
    });
    let broke_off = async move {
        match failed.await {
            Ok(()) => Some(Err(std::io::Error::other("the encoder broke off"))),
            Err(_) => None,
        }
    };
    let end = futures_util::stream::once(broke_off).filter_map(|end| async { end });
    Response::new(Body::from_stream(ReaderStream::new(reader).chain(end)))
}
