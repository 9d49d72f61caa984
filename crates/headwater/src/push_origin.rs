//! An origin in memory for encoders that push: what is put below a secret path is served at a public one, segments while
//! they still come. Playlists are served as the encoder wrote them; only the publisher learns at once of segments that are
//! being made.

mod ahead;
mod object;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use futures_util::StreamExt;
use headwater_hls::playlist::{self, Playlist};
use headwater_model::log::is_plain_path;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use url::Url;

use self::ahead::Listing;
use self::object::{End, Object};

/// All objects together; the oldest go first.
const MAX_BYTES: usize = 256 << 20;
/// One object.
const MAX_OBJECT_BYTES: usize = 64 << 20;
/// Objects at once.
const MAX_OBJECTS: usize = 20_000;
/// An encoder that sends nothing for so long has broken off.
const SILENT: Duration = Duration::from_secs(30);
/// Playlists that are given ahead of their encoder; others as they are.
const MAX_LISTS: usize = 64;
/// Answers that wait for something at once: the publisher's, and all others.
const MAX_OWN_WAITS: usize = 16;
const MAX_WAITS: usize = 1024;
const PLAYLIST_TYPE: &str = "application/vnd.apple.mpegurl";
/// Bytes of the path that nobody guesses.
const SECRET_BYTES: usize = 16;

#[derive(Default)]
struct Stored {
    objects: BTreeMap<String, watch::Sender<Object>>,
    /// The oldest first.
    order: VecDeque<String>,
    bytes: usize,
    lists: BTreeMap<String, watch::Sender<Listing>>,
    /// The last that was given to an object.
    version: u64,
}

struct Shared {
    stored: Mutex<Stored>,
    /// The first media playlist that came.
    playlist: watch::Sender<Option<String>>,
    own_query: String,
    /// The publisher's answers that wait; and all others'.
    own_waits: Semaphore,
    waits: Semaphore,
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
        let push_secret = secret()?;
        // A restarted one must not give a version again.
        let version = u64::from_str_radix(secret()?.get(..12).unwrap_or_default(), 16)?;
        let shared = Arc::new(Shared {
            stored: Mutex::new(Stored { version, ..Stored::default() }),
            playlist: watch::Sender::new(None),
            own_query: format!("ahead={}", secret()?),
            own_waits: Semaphore::new(MAX_OWN_WAITS),
            waits: Semaphore::new(MAX_WAITS),
        });
        let router = Router::new()
            .route(&format!("/push/{push_secret}/{{*path}}"), put(take).post(take).delete(forget))
            .route("/live/{*path}", get(give))
            .with_state(shared.clone());
        let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        tokio::spawn(serving.into_future());
        let public_url = public.unwrap_or_else(|| at.clone()).join("live/")?;
        Ok(PushOrigin { push_url: at.join(&format!("push/{push_secret}/"))?, public_url, shared })
    }

    /// Query of the publisher's requests; secret. With it a playlist lists what is being put right now as well, and answers
    /// are held back until there is something new.
    pub fn own_query(&self) -> &str {
        &self.shared.own_query
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

fn secret() -> Result<String> {
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret).map_err(|e| anyhow::anyhow!("the system gives no randomness: {e}"))?;
    Ok(secret.iter().map(|b| format!("{b:02x}")).collect())
}

impl Shared {
    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stored {
    fn insert(&mut self, path: String, object: watch::Sender<Object>) {
        self.remove(&path);
        self.version = self.version.wrapping_add(1);
        let version = self.version;
        object.send_modify(|o| o.version = version);
        self.bytes += object.borrow().bytes;
        self.order.push_back(path.clone());
        self.objects.insert(path, object);
        self.make_room();
    }

    fn remove(&mut self, path: &str) {
        if let Some(former) = self.objects.remove(path) {
            self.bytes = self.bytes.saturating_sub(former.borrow().bytes);
            // Nobody is to wait for the rest of it.
            former.send_if_modified(|o| o.ends(End::Broken));
            self.order.retain(|p| p != path);
        }
    }

    fn make_room(&mut self) {
        while self.bytes > MAX_BYTES || self.objects.len() > MAX_OBJECTS {
            let Some(oldest) = self.order.front().cloned() else { return };
            self.remove(&oldest);
        }
    }

    fn is_open(&self, path: &str) -> bool {
        self.objects.get(path).is_some_and(|o| o.borrow().end == End::Open)
    }

    /// Something begins to be put at `path`: a playlist may list it already.
    fn begins(&mut self, path: &str) {
        for list in self.lists.values() {
            list.send_if_modified(|l| l.begins(path));
        }
    }

    /// A media playlist came.
    fn listed(&mut self, path: &str, mut listing: Listing) {
        if let Some(former) = self.lists.get(path) {
            listing.replaces(&former.borrow());
        }
        // Some say what they have made after they have begun the next one.
        while let Some(open) = listing.next_paths().into_iter().find(|p| self.is_open(p)) {
            listing.begins(&open);
        }
        match self.lists.get(path) {
            Some(list) => drop(list.send_replace(listing)),
            None if self.lists.len() < MAX_LISTS => {
                drop(self.lists.insert(path.to_owned(), watch::Sender::new(listing)))
            }
            None => {}
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
        let mut stored = shared.stored();
        stored.insert(path.clone(), object.clone());
        stored.begins(&path);
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
                if object.borrow().end == End::Broken {
                    return replaced();
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
    if !object.send_if_modified(|o| o.ends(End::Complete)) {
        return replaced();
    }
    if is_playlist {
        let text = String::from_utf8_lossy(&object.borrow().chunks.concat()).into_owned();
        let parsed = playlist::parse(&text);
        let mut stored = shared.stored();
        stored.insert(path.clone(), object);
        if let Ok(Playlist::Media(list)) = parsed {
            stored.listed(&path, Listing::of(&path, &list, text));
            drop(stored);
            shared.playlist.send_if_modified(|known| {
                let is_first = known.is_none();
                known.get_or_insert(path);
                is_first
            });
        }
    }
    StatusCode::CREATED.into_response()
}

fn replaced() -> Response {
    (StatusCode::CONFLICT, "something else was put in its place\n").into_response()
}

/// Half of something is of no use to those who come later.
fn broken(shared: &Shared, path: &str, object: &watch::Sender<Object>) {
    object.send_if_modified(|o| o.ends(End::Broken));
    let mut stored = shared.stored();
    if stored.objects.get(path).is_some_and(|o| o.same_channel(object)) {
        stored.remove(path);
    }
}

/// What an encoder deletes stays as long as there is room: a viewer may still need it.
async fn forget() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// What is put below the secret path is read here; whoever knows what [`PushOrigin::own_query`] says, who is the publisher,
/// gets playlists ahead of their encoder.
async fn give(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
    asked: HeaderMap,
) -> Response {
    let query = query.unwrap_or_default();
    let is_own = query.split('&').any(|part| part == shared.own_query);
    let listing = shared.stored().lists.get(&path).filter(|_| is_own).map(watch::Sender::subscribe);
    if let Some(listing) = listing {
        return give_ahead(&shared, listing, &query).await;
    }
    let Some(object) = shared.stored().objects.get(&path).map(watch::Sender::subscribe) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut response = object::answer(object, &asked, &shared.waits).await;
    let (media_type, keep) = match path.rsplit('.').next() {
        Some("m3u8") => (PLAYLIST_TYPE, "no-cache"),
        Some("ts") => ("video/mp2t", "max-age=60"),
        _ => ("video/mp4", "max-age=60"),
    };
    if response.status().is_success() {
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        fields.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
        // What is public is so for pages of any site.
        fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    response
}

/// The publisher's playlist; held back until the segment that it waits for is listed or is being put (RFC 8216bis, section
/// 6.2.5.2).
async fn give_ahead(shared: &Shared, mut listing: watch::Receiver<Listing>, query: &str) -> Response {
    let number = query.split('&').find_map(|part| part.strip_prefix("_HLS_msn=")?.parse::<u64>().ok());
    if let Some(number) = number {
        let Ok(_waits) = shared.own_waits.try_acquire() else { return object::not_now() };
        let patience = listing.borrow().patience();
        let comes = tokio::time::timeout(patience, listing.wait_for(|l| l.answers(number))).await;
        if !matches!(comes, Ok(Ok(_))) {
            return object::not_now();
        }
    }
    let text = listing.borrow().text();
    ([(CONTENT_TYPE, PLAYLIST_TYPE), (CACHE_CONTROL, "private, no-store")], text).into_response()
}

#[cfg(test)]
#[path = "push_origin_tests.rs"]
mod tests;
