//! The gateway: any downloader, player or package tool on this machine reads contents by plain HTTP, also while they
//! arrive. It answers on loopback only, under an unguessable path for each content. Pages of other sites have no access,
//! but to what the user allows their site.

mod access;
mod conditional;
mod consent;
mod folder;
mod pages;
mod sessions;
mod stream;

use super::Inner;
use super::http::{self, Pieces};
use super::reading::{NotReadable, Readable, Reader, read};
use crate::consents::Site;
use access::{Access, Asked, Place, Refusal};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conditional::{Answer, Validators};
use consent::Consenting;
use folder::Found;
use headwater_model::id::ContentId;
use headwater_model::log::Track;
use headwater_transport::{BoxError, HttpLimits, Identity};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use ring::hmac;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Clients that keep idle connections connect again after a minute.
const LIMITS: HttpLimits =
    HttpLimits { connections: 512, headers_within: Duration::from_secs(60), header_bytes: 16 << 10 };
/// Pieces of one response between store and socket.
const PIECES_AHEAD: usize = 1;
/// Those and the two that are with the socket and just read, of all responses: what clients that do not read can hold.
const MAX_HELD_KIB: usize = 256 << 10;
/// A content that was just asked for is waited for so long before a reader is told to ask again.
const OPENS_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Bytes of a content's path that nobody guesses.
const SECRET_BYTES: usize = 16;

/// Where a node's contents are read, by whom, and the keys of their paths.
pub(crate) struct Gateway {
    address: SocketAddr,
    key: hmac::Key,
    consenting: Consenting,
    held: Arc<Semaphore>,
}

impl Gateway {
    /// A gateway at `address`. Its paths stay the same for as long as the node's identity does; consents lie in `data`.
    pub(crate) fn new(address: SocketAddr, identity: &Identity, data: &Path) -> Gateway {
        Gateway {
            address,
            key: hmac::Key::new(hmac::HMAC_SHA256, &identity.key_for("headwater gateway")),
            consenting: Consenting::new(data, &identity.key_for("headwater consents")),
            held: Arc::new(Semaphore::new(MAX_HELD_KIB)),
        }
    }

    /// Where a content is read.
    pub(crate) fn url(&self, content: &ContentId) -> String {
        format!("http://{}/c/{}/", self.address, URL_SAFE_NO_PAD.encode(self.secret(&content.0)))
    }

    /// Where the user sees which sites have consent.
    pub(crate) fn consents_url(&self) -> String {
        format!("http://{}/consents/{}/", self.address, URL_SAFE_NO_PAD.encode(self.secret(b"consents")))
    }

    fn secret(&self, of: &[u8]) -> [u8; SECRET_BYTES] {
        let mut secret = [0; SECRET_BYTES];
        let tag = hmac::sign(&self.key, of);
        secret.iter_mut().zip(tag.as_ref()).for_each(|(s, t)| *s = *t);
        secret
    }

    /// Whether this is the secret of something, which is compared in constant time.
    fn is_secret(&self, said: &[u8], of: &[u8]) -> bool {
        bool::from(self.secret(of).as_slice().ct_eq(said))
    }

    /// Whether a request is for this server by name: else a page whose name was made to point here could read it.
    fn is_own(&self, host: &str) -> bool {
        let port = self.address.port();
        let own = [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("[::1]:{port}")];
        own.iter().any(|o| o.eq_ignore_ascii_case(host)) || self.address.to_string() == host
    }
}

/// Serves for as long as the node runs.
pub(crate) async fn serve(inner: Arc<Inner>, listener: TcpListener) {
    let consents_change = consent::watch(inner.clone());
    let serving = http::serve(inner, listener, None, LIMITS, answer);
    tokio::join!(consents_change, serving);
}

/// Why nothing is sent.
struct Refused(StatusCode, String);

impl Refused {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Refused(status, why.into())
    }
    fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is no content under this path")
    }
}

async fn answer(inner: Arc<Inner>, request: Request<Incoming>) -> Response<Pieces> {
    let Some(gateway) = &inner.gateway else { return text(StatusCode::NOT_FOUND, "there is no gateway\n") };
    let asked = Asked::of(request.method(), request.headers());
    let (place, query) = (Place::of(request.uri().path()), request.uri().query());
    let session = match place {
        Place::Session(secret, _) => gateway.consenting.session(&decoded(secret)),
        _ => None,
    };
    if place == Place::Sessions {
        consent::look(&inner).await;
    }
    let holder = session.as_ref().map(|s| &s.site);
    let knows = |site: &Site| gateway.consenting.knows(site);
    let access = access::decide(&asked, &place, gateway.is_own(asked.host), holder, knows);
    let (site, answered) = match access {
        Access::Refused(refusal) => (None, Err(in_words(gateway, refusal))),
        Access::Preflight(site) => (Some(site), Ok(text(StatusCode::NO_CONTENT, ""))),
        Access::Site(site) => {
            let answered = match (place, session) {
                (Place::Session(_, path), Some(session)) => {
                    content(&inner, gateway, session.content, path, &request, session.ended).await
                }
                _ => consent::session(&inner, gateway, &site, &request),
            };
            (Some(site), answered)
        }
        Access::User | Access::Click => {
            let answered = match place {
                Place::Home => Ok(own_page(StatusCode::OK, pages::home())),
                Place::Consent => Ok(consent::ask(&inner, gateway, query, access == Access::Click).await),
                Place::Consents(secret) if gateway.is_secret(&decoded(secret), b"consents") => {
                    Ok(consent::list(&inner, gateway, query, access == Access::Click).await)
                }
                Place::Content(secret, path) => users_content(&inner, gateway, secret, path, &request).await,
                _ => Err(Refused::not_found()),
            };
            (None, answered)
        }
    };
    let mut response = answered.unwrap_or_else(refusal);
    if request.method() == Method::HEAD {
        *response.body_mut() = Pieces::none();
    }
    for_whom(&mut response, site.as_ref(), request.headers());
    response
}

fn in_words(gateway: &Gateway, refusal: Refusal) -> Refused {
    match refusal {
        Refusal::OtherHost => Refused::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!("this is the gateway of a Headwater node: ask for http://{}", gateway.address),
        ),
        Refusal::OtherSite => {
            Refused::new(StatusCode::FORBIDDEN, "pages of other sites have no access to this gateway")
        }
        Refusal::Method => Refused::new(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD"),
        Refusal::NotFound => Refused::not_found(),
    }
}

fn refusal(Refused(status, why): Refused) -> Response<Pieces> {
    let mut response = text(status, &format!("{why}\n"));
    let fields = response.headers_mut();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        fields.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        fields.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// Says which pages may use a response: those of `site`, else the gateway's own.
fn for_whom(response: &mut Response<Pieces>, site: Option<&Site>, asked: &HeaderMap) {
    let preflight = response.status() == StatusCode::NO_CONTENT;
    let fields = response.headers_mut();
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            fields.insert(HeaderName::from_static(name), value);
        }
    };
    let Some(site) = site else { return put("cross-origin-resource-policy", "same-origin") };
    put("cross-origin-resource-policy", "cross-origin");
    // What is taken back is not in the browser's cache.
    put("cache-control", "no-store");
    put("access-control-allow-origin", site.as_str());
    put("access-control-expose-headers", "accept-ranges, content-length, content-range, etag, retry-after");
    put("vary", "origin");
    if preflight {
        put("access-control-allow-methods", "GET, HEAD, POST");
        put("access-control-allow-headers", "range, if-range, if-match, if-none-match, if-modified-since");
        put("access-control-max-age", "600");
        // Browsers ask before a page of a public site reaches a machine of a private network.
        for kind in ["private", "local"] {
            if asked.contains_key(format!("access-control-request-{kind}-network")) {
                put(
                    if kind == "private" {
                        "access-control-allow-private-network"
                    } else {
                        "access-control-allow-local-network"
                    },
                    "true",
                );
            }
        }
    }
}

fn decoded(secret: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(secret).unwrap_or_default()
}

async fn users_content(
    inner: &Arc<Inner>,
    gateway: &Gateway,
    secret: &str,
    path: &str,
    request: &Request<Incoming>,
) -> Result<Response<Pieces>, Refused> {
    let secret = decoded(secret);
    let known: Vec<ContentId> = inner.lock().contents.keys().copied().collect();
    let id = known.into_iter().find(|id| gateway.is_secret(&secret, &id.0)).ok_or_else(Refused::not_found)?;
    content(inner, gateway, id, path, request, CancellationToken::new()).await
}

/// What is under `path` of a content; sending it stops when `ended` is done.
async fn content(
    inner: &Arc<Inner>,
    gateway: &Gateway,
    id: ContentId,
    path: &str,
    request: &Request<Incoming>,
    ended: CancellationToken,
) -> Result<Response<Pieces>, Refused> {
    let (here, readable) = opened(inner, id).await?;
    let Some(Readable { track, published_unix_ms, reader }) = readable else {
        return stream::answer(inner, gateway, here, path, request, ended).await;
    };
    let path = percent_decode_str(path).decode_utf8().map_err(|_| Refused::not_found())?;
    // Who asks by the path of a file knows that of the other one only.
    let only = || (here != id && track.objects.len() == 1).then_some(Found::File(0));
    match folder::find(&track, &path).or_else(only) {
        None => {
            let why = format!("there is no {path} in this content; its folder lists what there is");
            Err(Refused::new(StatusCode::NOT_FOUND, why))
        }
        Some(Found::Folder(below)) => Ok(listing(&track, &below)),
        Some(Found::FolderWithoutSlash(name)) => Ok(moved(&name, request.uri().query())),
        Some(Found::File(object)) => {
            let published = UNIX_EPOCH + Duration::from_millis(published_unix_ms);
            let mut response = head(&track, object, published, request.headers());
            let range = response.extensions_mut().remove::<Range<u64>>().filter(|r| !r.is_empty());
            if let Some(range) = range.filter(|_| request.method() == Method::GET) {
                let held = hold(gateway, &track)?;
                let (to_client, from_store) = mpsc::channel(PIECES_AHEAD);
                let sending = send(reader, track, object, range.clone(), to_client, held);
                tokio::spawn(async move { ended.run_until_cancelled(sending).await });
                *response.body_mut() = Pieces::new(from_store, range.end - range.start);
            }
            Ok(response)
        }
    }
}

/// A content of which the log may just be on its way, or what is here in its place; `None` for a live stream.
async fn opened(inner: &Arc<Inner>, asked: ContentId) -> Result<(ContentId, Option<Readable>), Refused> {
    let deadline = tokio::time::Instant::now() + OPENS_WITHIN;
    loop {
        let id = inner.lock().here_for(asked);
        match read(inner, id) {
            Ok(readable) => return Ok((id, Some(readable))),
            Err(NotReadable::Live) => return Ok((id, None)),
            Err(NotReadable::Unknown) => return Err(Refused::not_found()),
            Err(NotReadable::Failed(why)) => return Err(Refused::new(StatusCode::BAD_GATEWAY, why)),
            Err(NotReadable::NotYet) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(NotReadable::NotYet) => {
                return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the content is being opened: ask again"));
            }
        }
    }
}

/// Room for the pieces that one response holds.
fn hold(gateway: &Gateway, track: &Track) -> Result<OwnedSemaphorePermit, Refused> {
    let kib = track.layout.piece_bytes().div_ceil(1 << 10) * (PIECES_AHEAD as u32 + 2);
    gateway
        .held
        .clone()
        .try_acquire_many_owned(kib)
        .map_err(|_| Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too many programs read at this moment: ask again"))
}

/// A file of a content, or the part of it that is asked for; without its bytes, whose range is among the extensions.
fn head(track: &Arc<Track>, object: usize, published: SystemTime, asked: &HeaderMap) -> Response<Pieces> {
    let Some(of) = track.objects.get(object) else { return text(StatusCode::NOT_FOUND, "") };
    let length = of.size_bytes;
    let root: String = track.root.to_string().chars().take(32).collect();
    let validators = Validators { tag: format!("\"{root}-{object}\""), modified: published };
    let answer = conditional::decide(asked, &validators, length);
    let (status, range) = match &answer {
        Answer::Whole => (StatusCode::OK, 0..length),
        Answer::Part(range) => (StatusCode::PARTIAL_CONTENT, range.clone()),
        Answer::NotModified => (StatusCode::NOT_MODIFIED, 0..0),
        Answer::Failed => (StatusCode::PRECONDITION_FAILED, 0..0),
        Answer::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0),
    };
    let mut response = Response::new(Pieces::none());
    *response.status_mut() = status;
    let fields = response.headers_mut();
    let mut put = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            fields.insert(name, value);
        }
    };
    put(header::ETAG, validators.tag);
    put(header::LAST_MODIFIED, httpdate::fmt_http_date(published));
    put(header::ACCEPT_RANGES, "bytes".into());
    // Another version may come under the same name.
    put(header::CACHE_CONTROL, "private, no-cache".into());
    match answer {
        Answer::Part(range) => {
            put(header::CONTENT_RANGE, format!("bytes {}-{}/{length}", range.start, range.end - 1));
        }
        Answer::Unsatisfiable => put(header::CONTENT_RANGE, format!("bytes */{length}")),
        _ => {}
    }
    if status.is_success() {
        let media_type = if of.media_type.is_empty() { "application/octet-stream" } else { &of.media_type };
        put(header::CONTENT_TYPE, media_type.into());
        put(header::CONTENT_LENGTH, (range.end - range.start).to_string());
        harmless(fields, media_type);
        response.extensions_mut().insert(range);
    }
    response
}

/// What a publisher sends must not act as a page of the gateway. Films and images cannot, and a browser that shows one asks
/// for it once more, which a page in a sandbox may not.
fn harmless(fields: &mut HeaderMap, media_type: &str) {
    let media = ["video/", "audio/", "image/"].iter().any(|kind| media_type.starts_with(kind));
    let policy = if media && !media_type.starts_with("image/svg") {
        "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    } else {
        "sandbox; default-src 'none'; frame-ancestors 'none'"
    };
    fields.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    fields.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

/// Reads piece by piece, as they come, and hands over what was asked for.
async fn send(
    mut reader: Reader,
    track: Arc<Track>,
    object: usize,
    range: Range<u64>,
    to_client: mpsc::Sender<Result<bytes::Bytes, BoxError>>,
    _held: OwnedSemaphorePermit,
) {
    let (layout, piece_bytes) = (&track.layout, u64::from(track.layout.piece_bytes()));
    let first = layout.pieces_of_object(object).start;
    let end = first + range.end.div_ceil(piece_bytes) as u32;
    let mut at = range.start;
    while at < range.end {
        let piece = first + (at / piece_bytes) as u32;
        let read = async {
            // Not before there is room for it: clients that pause hold no more than they must.
            let room = to_client.reserve().await.ok()?;
            Some((reader.piece(piece, end).await, room))
        };
        let (read, room) = tokio::select! {
            Some(read) = read => read,
            // Nobody waits for it any more.
            () = to_client.closed() => return,
        };
        let data = match read {
            Ok(data) => data,
            Err(e) => {
                tracing::info!("a reader of the gateway gets no more: {e}");
                return room.send(Err(e.into()));
            }
        };
        let from = (at % piece_bytes) as usize;
        let to = data.len().min(from + (range.end - at) as usize);
        if from >= to {
            return;
        }
        room.send(Ok(data.slice(from..to)));
        at += (to - from) as u64;
    }
}

/// The files of a folder, for people and for programs that follow links.
fn listing(track: &Track, below: &str) -> Response<Pieces> {
    own_page(StatusCode::OK, folder::listing(track, below))
}

/// To the folder `name`, whose path was said without the slash at its end.
fn moved(name: &str, query: Option<&str>) -> Response<Pieces> {
    let to = format!("./{}/{}", folder::link(name), query.map(|q| format!("?{q}")).unwrap_or_default());
    let mut response = text(StatusCode::MOVED_PERMANENTLY, "");
    if let Ok(to) = HeaderValue::try_from(to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

/// A page of the gateway's own: nothing in it runs, nothing frames it, and who opened it cannot touch it.
fn own_page(status: StatusCode, page: String) -> Response<Pieces> {
    let mut response = html(status, &page);
    let fields = response.headers_mut();
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    for (name, value) in [
        ("content-security-policy", policy),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-opener-policy", "same-origin"),
        // With `no-referrer` browsers would say `Origin: null` when a form is sent.
        ("referrer-policy", "same-origin"),
    ] {
        fields.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

fn html(status: StatusCode, page: &str) -> Response<Pieces> {
    let mut response = text(status, page);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

fn text(status: StatusCode, text: &str) -> Response<Pieces> {
    let mut response = Response::new(Pieces::text(text.to_owned()));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
