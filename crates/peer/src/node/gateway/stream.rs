//! Live streams for players: a playlist that is made of what is here, and segments that arrive while they are read.

use super::{Gateway, Refused, harmless, text};
use crate::node::Inner;
use crate::node::http::Pieces;
use crate::node::live::{LiveReader, Window, window};
use headwater_hls::write::{self, WindowSegment, media_playlist};
use headwater_model::id::ContentId;
use headwater_model::live::ObjectKind;
use headwater_model::time::Micros;
use headwater_transport::BoxError;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

/// Name of the playlist.
pub(super) const PLAYLIST: &str = "live.m3u8";
/// A stream that has just begun here is waited for so long before a player is told to ask again.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);
/// A player begins so many segments before the end (RFC 8216, section 6.3.3): one that found fewer would ask again only after
/// the length of a segment, with nothing left to play.
const BEGINS_BEFORE_END: usize = 3;
/// So many are waited for no longer than this: the stream may have no more yet.
const MORE_WITHIN: Duration = Duration::from_secs(1);
/// Chunks of one response between stream and socket.
const AHEAD: usize = 2;
/// What a response may hold of pieces: [`AHEAD`], one that was read and one with the socket.
const HELD_KIB: u32 = 256;

/// What is under `path` of a live stream; sending it stops when `ended` is done.
pub(super) async fn answer(
    inner: &Arc<Inner>,
    gateway: &Gateway,
    id: ContentId,
    path: &str,
    request: &Request<Incoming>,
    ended: CancellationToken,
) -> Result<Response<Pieces>, Refused> {
    match path {
        "" => Ok(moved()),
        PLAYLIST => playlist(inner, &id).await,
        segment => {
            let object = object_of(segment).ok_or_else(|| none(segment))?;
            let reader =
                LiveReader::open(inner, &id, object, player(request.headers())).ok_or_else(|| none(segment))?;
            let mut response = head(&reader);
            if request.method() == Method::GET {
                let held = gateway.held.clone().try_acquire_many_owned(HELD_KIB).map_err(|_| {
                    Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too many programs read at this moment: ask again")
                })?;
                let (to_client, from_stream) = mpsc::channel(AHEAD);
                let bytes = reader.bytes;
                tokio::spawn(async move { ended.run_until_cancelled(send(reader, to_client, held)).await });
                *response.body_mut() = Pieces::new(from_stream, bytes);
            }
            Ok(response)
        }
    }
}

fn none(what: &str) -> Refused {
    let why = format!("there is no {what} in this stream, or no longer: its playlist is {PLAYLIST}");
    Refused::new(StatusCode::NOT_FOUND, why)
}

fn moved() -> Response<Pieces> {
    let mut response = text(StatusCode::TEMPORARY_REDIRECT, "");
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("./live.m3u8"));
    response
}

/// Players are told apart by what they call themselves: each needs other segments first.
fn player(fields: &HeaderMap) -> u64 {
    let mut hasher = DefaultHasher::new();
    fields.get(header::USER_AGENT).map(HeaderValue::as_bytes).hash(&mut hasher);
    hasher.finish()
}

/// The playlist, as soon as there is enough to begin with.
async fn playlist(inner: &Arc<Inner>, id: &ContentId) -> Result<Response<Pieces>, Refused> {
    let asked_at = Instant::now();
    let mut first_at = None;
    loop {
        let mut now = window(inner, id).ok_or_else(Refused::not_found)?;
        let (since, within) = match now.segments.is_empty() {
            true => (asked_at, BEGINS_WITHIN),
            false => (*first_at.get_or_insert_with(Instant::now), MORE_WITHIN),
        };
        let left = within.saturating_sub(since.elapsed());
        if now.ended || now.segments.len() >= BEGINS_BEFORE_END || (left.is_zero() && !now.segments.is_empty()) {
            return Ok(playlist_of(&now));
        }
        if left.is_zero() {
            let why = "nothing of the stream is here yet: its publisher may stand still. Ask again";
            return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, why));
        }
        if let Ok(Err(_)) = tokio::time::timeout(left, now.changed.changed()).await {
            return Err(Refused::not_found());
        }
    }
}

fn playlist_of(window: &Window) -> Response<Pieces> {
    let segments: Vec<WindowSegment> = window
        .segments
        .iter()
        .map(|(object, kind, listed)| WindowSegment {
            sequence: listed.sequence,
            duration: listed.duration,
            uri: name_of(*object, *kind),
            map_uri: listed.map.map(|map| name_of(map, ObjectKind::Mp4Init)),
            discontinuity: listed.discontinuity,
            recorded_unix_us: listed.recorded_unix_us,
        })
        .collect();
    let target = window.segments.last().map_or(Micros::from_secs(2), |(.., listed)| listed.target_duration);
    let list = media_playlist(&write::Window {
        target_duration: target,
        discontinuity_sequence: 0,
        segments: &segments,
        ended: window.ended,
    });
    let mut response = text(StatusCode::OK, &list);
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/vnd.apple.mpegurl"));
    harmless(fields, "application/vnd.apple.mpegurl");
    response
}

/// As playlists call an object.
fn name_of(object: u64, kind: ObjectKind) -> String {
    format!("{object}.{}", about(kind).0)
}

fn object_of(name: &str) -> Option<u64> {
    name.split_once('.')?.0.parse().ok()
}

/// Extension and media type.
fn about(kind: ObjectKind) -> (&'static str, &'static str) {
    match kind {
        ObjectKind::Ts => ("ts", "video/mp2t"),
        ObjectKind::Mp4 => ("m4s", "video/iso.segment"),
        ObjectKind::Mp4Init => ("mp4", "video/mp4"),
        ObjectKind::Aac => ("aac", "audio/aac"),
        ObjectKind::Vtt => ("vtt", "text/vtt"),
    }
}

fn head(reader: &LiveReader) -> Response<Pieces> {
    let mut response = Response::new(Pieces::none());
    let (_, media_type) = about(reader.kind);
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(reader.bytes));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=60"));
    harmless(fields, media_type);
    response
}

/// Hands over what comes, when it comes.
async fn send(
    mut reader: LiveReader,
    to_client: mpsc::Sender<Result<bytes::Bytes, BoxError>>,
    _held: OwnedSemaphorePermit,
) {
    loop {
        let next = tokio::select! {
            next = reader.next() => next,
            // Nobody waits for it any more.
            () = to_client.closed() => return,
        };
        let item = match next {
            Ok(Some(data)) => Ok(data),
            Ok(None) => return,
            Err(e) => {
                tracing::info!("a player gets no more of a segment: {e}");
                Err(e.into())
            }
        };
        let is_end = item.is_err();
        if to_client.send(item).await.is_err() || is_end {
            return;
        }
    }
}
