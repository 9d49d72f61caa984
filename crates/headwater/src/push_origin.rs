//! An origin in memory for encoders that push: what is put below a secret path is served at a public one, segments while
//! they still come.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use bytes::Bytes;
use futures_util::StreamExt;
use headwater_hls::playlist::{self, Playlist};
use headwater_model::log::is_plain_path;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;
use url::Url;

/// All objects together; the oldest go first.
const MAX_BYTES: usize = 256 << 20;
/// One object.
const MAX_OBJECT_BYTES: usize = 64 << 20;
/// Objects at once.
const MAX_OBJECTS: usize = 20_000;
/// An encoder that sends nothing for so long has broken off.
const SILENT: Duration = Duration::from_secs(30);
/// Between store and socket.
const PIPE_BYTES: usize = 64 << 10;
/// Bytes of the path that nobody guesses.
const SECRET_BYTES: usize = 16;

/// Something that was put, or is being put.
#[derive(Clone, Default)]
struct Object {
    chunks: Vec<Bytes>,
    bytes: usize,
    end: End,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum End {
    /// It still comes.
    #[default]
    Open,
    Complete,
    /// The encoder broke off.
    Broken,
}

#[derive(Default)]
struct Stored {
    objects: BTreeMap<String, watch::Sender<Object>>,
    /// The oldest first.
    order: VecDeque<String>,
    bytes: usize,
}

struct Shared {
    stored: Mutex<Stored>,
    /// The first media playlist that came.
    playlist: watch::Sender<Option<String>>,
}

/// A running origin; it ends with `stop`.
pub struct PushOrigin {
    /// Where the encoder puts what it makes; secret.
    pub push_url: Url,
    /// Where the same is read.
    pub public_url: Url,
    shared: Arc<Shared>,
}

impl PushOrigin {
    /// Listens at `address`. `public` is where others reach it, where that is elsewhere.
    ///
    /// # Errors
    /// If it cannot listen there.
    pub async fn start(address: SocketAddr, public: Option<Url>, stop: CancellationToken) -> Result<PushOrigin> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
        let at: Url = format!("http://{}/", listener.local_addr()?).parse()?;
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(|e| anyhow::anyhow!("the system gives no randomness: {e}"))?;
        let secret: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        let shared = Arc::new(Shared { stored: Mutex::default(), playlist: watch::Sender::new(None) });
        let router = Router::new()
            .route(&format!("/push/{secret}/{{*path}}"), put(take).post(take).delete(forget))
            .route("/live/{*path}", get(give))
            .with_state(shared.clone());
        let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        tokio::spawn(serving.into_future());
        let public_url = public.unwrap_or_else(|| at.clone()).join("live/")?;
        Ok(PushOrigin { push_url: at.join(&format!("push/{secret}/"))?, public_url, shared })
    }

    /// Waits for the first media playlist; where it is read.
    ///
    /// # Errors
    /// If its path makes no address.
    pub async fn playlist(&self) -> Result<Url> {
        let mut playlist = self.shared.playlist.subscribe();
        let path = playlist.wait_for(Option::is_some).await.context("the origin ended")?.clone().unwrap_or_default();
        Ok(self.public_url.join(&path)?)
    }
}

impl Shared {
    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stored {
    fn insert(&mut self, path: String, object: watch::Sender<Object>) {
        self.remove(&path);
        self.bytes += object.borrow().bytes;
        self.order.push_back(path.clone());
        self.objects.insert(path, object);
        self.make_room();
    }

    fn remove(&mut self, path: &str) {
        if let Some(former) = self.objects.remove(path) {
            self.bytes = self.bytes.saturating_sub(former.borrow().bytes);
            self.order.retain(|p| p != path);
        }
    }

    fn make_room(&mut self) {
        while self.bytes > MAX_BYTES || self.objects.len() > MAX_OBJECTS {
            let Some(oldest) = self.order.front().cloned() else { return };
            self.remove(&oldest);
        }
    }

    /// More came of what is at `path`, if that is still `object`.
    fn grew(&mut self, path: &str, object: &watch::Sender<Object>, by: usize) {
        if self.objects.get(path).is_some_and(|o| o.same_channel(object)) {
            self.bytes += by;
            self.make_room();
        }
    }
}

/// An encoder puts something. Some are gone as soon as they have said all: that ends the request, and must not end this.
async fn take(State(shared): State<Arc<Shared>>, Path(path): Path<String>, body: Body) -> Response {
    let taken = tokio::spawn(take_all(shared, path, body)).await;
    taken.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// A playlist counts when all of it is here, anything else from its first byte on.
async fn take_all(shared: Arc<Shared>, path: String, body: Body) -> Response {
    if !is_plain_path(&path) || path.len() > 512 {
        return (StatusCode::BAD_REQUEST, "a plain relative path is needed\n").into_response();
    }
    let is_playlist = path.ends_with(".m3u8");
    let object = watch::Sender::new(Object::default());
    if !is_playlist {
        shared.stored().insert(path.clone(), object.clone());
    }
    let mut body = body.into_data_stream();
    loop {
        match tokio::time::timeout(SILENT, body.next()).await {
            Ok(Some(Ok(chunk))) => {
                let len = chunk.len();
                if object.borrow().bytes + len > MAX_OBJECT_BYTES {
                    broken(&shared, &path, &object);
                    return (StatusCode::PAYLOAD_TOO_LARGE, "more than 64 MiB\n").into_response();
                }
                object.send_modify(|o| {
                    o.bytes += len;
                    o.chunks.push(chunk);
                });
                shared.stored().grew(&path, &object, len);
            }
            Ok(None) => break,
            Ok(Some(Err(_))) | Err(_) => {
                broken(&shared, &path, &object);
                return StatusCode::REQUEST_TIMEOUT.into_response();
            }
        }
    }
    object.send_modify(|o| o.end = End::Complete);
    if is_playlist {
        let text = String::from_utf8_lossy(&object.borrow().chunks.concat()).into_owned();
        shared.stored().insert(path.clone(), object);
        if matches!(playlist::parse(&text), Ok(Playlist::Media(_))) {
            shared.playlist.send_if_modified(|known| {
                let is_first = known.is_none();
                known.get_or_insert(path);
                is_first
            });
        }
    }
    StatusCode::CREATED.into_response()
}

/// Half of something is of no use to those who come later.
fn broken(shared: &Shared, path: &str, object: &watch::Sender<Object>) {
    object.send_modify(|o| o.end = End::Broken);
    let mut stored = shared.stored();
    if stored.objects.get(path).is_some_and(|o| o.same_channel(object)) {
        stored.remove(path);
    }
}

/// What an encoder deletes stays as long as there is room: a viewer may still need it.
async fn forget() -> StatusCode {
    StatusCode::NO_CONTENT
}

async fn give(State(shared): State<Arc<Shared>>, Path(path): Path<String>, asked: HeaderMap) -> Response {
    let Some(object) = shared.stored().objects.get(&path).map(watch::Sender::subscribe) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let now = object.borrow().clone();
    let mut response = match now.end {
        End::Complete => whole(&now, asked.get(RANGE)),
        End::Open | End::Broken => Response::new(as_it_comes(object)),
    };
    let fields = response.headers_mut();
    let (media_type, keep) = match path.rsplit('.').next() {
        Some("m3u8") => ("application/vnd.apple.mpegurl", "no-cache"),
        Some("ts") => ("video/mp2t", "max-age=60"),
        _ => ("video/mp4", "max-age=60"),
    };
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    // What is public is so for pages of any site.
    fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// All of it, or the range that is asked for.
fn whole(object: &Object, range: Option<&HeaderValue>) -> Response {
    let all = Bytes::from(object.chunks.concat());
    let range = range.and_then(|r| r.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
    let range = range.and_then(|(from, to)| {
        let from: usize = from.parse().ok()?;
        let to = if to.is_empty() { all.len() } else { to.parse::<usize>().ok()?.checked_add(1)?.min(all.len()) };
        (from < to).then_some(from..to)
    });
    let (status, part) = match &range {
        Some(range) => (StatusCode::PARTIAL_CONTENT, all.slice(range.clone())),
        None => (StatusCode::OK, all.clone()),
    };
    let mut response = (status, [(CONTENT_LENGTH, part.len().to_string())], part).into_response();
    if let Some(range) = range
        && let Ok(value) = HeaderValue::from_str(&format!("bytes {}-{}/{}", range.start, range.end - 1, all.len()))
    {
        response.headers_mut().insert(CONTENT_RANGE, value);
    }
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

/// What is here, and what comes, until it is complete; a body that breaks off where the encoder did.
fn as_it_comes(mut object: watch::Receiver<Object>) -> Body {
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
    Body::from_stream(ReaderStream::new(reader).chain(end))
}

#[cfg(test)]
#[path = "push_origin_tests.rs"]
mod tests;
