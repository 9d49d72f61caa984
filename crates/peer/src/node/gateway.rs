//! The gateway: any downloader, player or package tool on this machine reads contents by plain HTTP, also while they
//! arrive. It answers on loopback only, under an unguessable path for each content; pages of other sites have no access.

mod conditional;

use super::Inner;
use super::http::{self, Pieces};
use super::reading::{NotReadable, Readable, Reader, read};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conditional::{Answer, Validators};
use headwater_model::id::ContentId;
use headwater_model::log::Track;
use headwater_transport::{BoxError, HttpLimits, Identity};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ring::hmac;
use std::fmt::Write;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Readers keep their connections for as long as they pause.
const LIMITS: HttpLimits =
    HttpLimits { connections: 256, headers_within: Duration::from_secs(300), header_bytes: 16 << 10 };
/// Pieces of one response between store and socket.
const PIECES_AHEAD: usize = 2;
/// Bytes of a content's path that nobody guesses.
const SECRET_BYTES: usize = 16;
/// What stays as it is in a path: RFC 3986's unreserved characters.
const IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a node's contents are read, and the key of their paths.
pub(crate) struct Gateway {
    address: SocketAddr,
    key: hmac::Key,
}

impl Gateway {
    /// A gateway at `address`. Its paths stay the same for as long as the node's identity does.
    pub(crate) fn new(address: SocketAddr, identity: &Identity) -> Gateway {
        Gateway { address, key: hmac::Key::new(hmac::HMAC_SHA256, &identity.key_for("headwater gateway")) }
    }

    /// Where a content is read.
    pub(crate) fn url(&self, content: &ContentId) -> String {
        format!("http://{}/c/{}/", self.address, URL_SAFE_NO_PAD.encode(self.secret(content)))
    }

    fn secret(&self, content: &ContentId) -> [u8; SECRET_BYTES] {
        let mut secret = [0; SECRET_BYTES];
        let tag = hmac::sign(&self.key, &content.0);
        secret.iter_mut().zip(tag.as_ref()).for_each(|(s, t)| *s = *t);
        secret
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
    http::serve(inner, listener, None, LIMITS, answer).await;
}

/// Why nothing is sent.
struct Refused(StatusCode, String);

impl Refused {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Refused(status, why.into())
    }
}

fn answer(inner: &Arc<Inner>, request: &Request<Incoming>) -> Response<Pieces> {
    let Some(gateway) = &inner.gateway else { return text(StatusCode::NOT_FOUND, "there is no gateway\n") };
    let answered = respond(inner, gateway, request.method(), request.uri().path(), request.headers());
    let mut response = answered.unwrap_or_else(|Refused(status, why)| {
        let mut response = text(status, &format!("{why}\n"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    });
    if request.method() == Method::HEAD {
        *response.body_mut() = Pieces::none();
    }
    response
}

fn respond(
    inner: &Arc<Inner>,
    gateway: &Gateway,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<Response<Pieces>, Refused> {
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    if !gateway.is_own(host) {
        let why = format!("this is the gateway of a Headwater node: ask for http://{}", gateway.address);
        return Err(Refused::new(StatusCode::MISDIRECTED_REQUEST, why));
    }
    let origin = headers.get(header::ORIGIN).map(|o| o.to_str().unwrap_or_default());
    if origin.is_some_and(|o| o.strip_prefix("http://") != Some(host)) {
        return Err(Refused::new(StatusCode::FORBIDDEN, "pages of other sites have no access to this gateway"));
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD"));
    }
    if path == "/" {
        return Ok(text(
            StatusCode::OK,
            "The gateway of a Headwater node: contents are under the paths that `headwater peer` prints.\n",
        ));
    }
    let unknown = || Refused::new(StatusCode::NOT_FOUND, "there is no content under this path");
    let (secret, rest) = path.strip_prefix("/c/").and_then(|p| p.split_once('/')).ok_or_else(unknown)?;
    let secret = URL_SAFE_NO_PAD.decode(secret).map_err(|_| unknown())?;
    let known: Vec<ContentId> = inner.lock().contents.keys().copied().collect();
    let id =
        known.into_iter().find(|id| bool::from(gateway.secret(id).as_slice().ct_eq(&secret))).ok_or_else(unknown)?;
    let Readable { track, published_unix_ms, reader } = read(inner, id).map_err(|why| match why {
        NotReadable::Unknown => unknown(),
        NotReadable::NotYet => Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the content is being opened: ask again"),
        NotReadable::Failed(why) => Refused::new(StatusCode::BAD_GATEWAY, why),
    })?;
    let rest = percent_decode_str(rest).decode_utf8().map_err(|_| unknown())?;
    if rest.is_empty() {
        return Ok(listing(&track));
    }
    let object = track.objects.iter().position(|o| o.path == *rest).ok_or_else(|| {
        Refused::new(
            StatusCode::NOT_FOUND,
            format!("there is no {rest} in this content; its folder lists what there is"),
        )
    })?;
    let published = UNIX_EPOCH + Duration::from_millis(published_unix_ms);
    Ok(file(&track, object, published, reader, method, headers))
}

/// A file of a content, or the part of it that is asked for.
fn file(
    track: &Arc<Track>,
    object: usize,
    published: SystemTime,
    reader: Reader,
    method: &Method,
    headers: &HeaderMap,
) -> Response<Pieces> {
    let Some(of) = track.objects.get(object) else { return text(StatusCode::NOT_FOUND, "") };
    let length = of.size_bytes;
    let root: String = track.root.to_string().chars().take(32).collect();
    let validators = Validators { tag: format!("\"{root}-{object}\""), modified: published };
    let answer = conditional::decide(headers, &validators, length);
    let (status, range) = match &answer {
        Answer::Whole => (StatusCode::OK, 0..length),
        Answer::Part(range) => (StatusCode::PARTIAL_CONTENT, range.clone()),
        Answer::NotModified => (StatusCode::NOT_MODIFIED, 0..0),
        Answer::Failed => (StatusCode::PRECONDITION_FAILED, 0..0),
        Answer::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0),
    };
    let has_body = status.is_success();
    let body = if has_body && method == Method::GET && !range.is_empty() {
        let (to_client, from_store) = mpsc::channel(PIECES_AHEAD);
        tokio::spawn(send(reader, track.clone(), object, range.clone(), to_client));
        Pieces::new(from_store, range.end - range.start)
    } else {
        Pieces::none()
    };
    let mut response = Response::new(body);
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
    if has_body {
        let media_type = if of.media_type.is_empty() { "application/octet-stream" } else { &of.media_type };
        put(header::CONTENT_TYPE, media_type.into());
        put(header::CONTENT_LENGTH, (range.end - range.start).to_string());
        harmless(fields);
    }
    response
}

/// What a publisher sends must not act as a page of the gateway.
fn harmless(fields: &mut HeaderMap) {
    fields.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Reads piece by piece, as they come, and hands over what was asked for.
async fn send(
    mut reader: Reader,
    track: Arc<Track>,
    object: usize,
    range: Range<u64>,
    to_client: mpsc::Sender<Result<bytes::Bytes, BoxError>>,
) {
    let (layout, piece_bytes) = (&track.layout, u64::from(track.layout.piece_bytes()));
    let first = layout.pieces_of_object(object).start;
    let end = first + range.end.div_ceil(piece_bytes) as u32;
    let mut at = range.start;
    while at < range.end {
        let piece = first + (at / piece_bytes) as u32;
        let read = tokio::select! {
            read = reader.piece(piece, end) => read,
            // Nobody waits for it any more.
            () = to_client.closed() => return,
        };
        let data = match read {
            Ok(data) => data,
            Err(e) => {
                tracing::info!("a reader of the gateway gets no more: {e}");
                let _ = to_client.send(Err(e.into())).await;
                return;
            }
        };
        let from = (at % piece_bytes) as usize;
        let to = data.len().min(from + (range.end - at) as usize);
        if from >= to || to_client.send(Ok(data.slice(from..to))).await.is_err() {
            return;
        }
        at += (to - from) as u64;
    }
}

/// The files of a content, for people.
fn listing(track: &Track) -> Response<Pieces> {
    let mut page = String::from("<!doctype html><meta charset=utf-8><title>");
    let _ = write!(page, "{0}</title><h1>{0}</h1><table>", escaped(&track.name));
    for object in &track.objects {
        let link: Vec<String> = object.path.split('/').map(|s| utf8_percent_encode(s, IN_PATHS).to_string()).collect();
        let _ = write!(
            page,
            "<tr><td><a href=\"{}\">{}</a><td align=right>{} bytes",
            link.join("/"),
            escaped(&object.path),
            object.size_bytes
        );
    }
    page.push_str("</table>\n");
    let mut response = text(StatusCode::OK, &page);
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    harmless(fields);
    response
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
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
