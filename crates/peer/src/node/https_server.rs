//! What a waypoint serves by HTTPS, to nodes that UDP does not reach: ranges of pieces, to children that show a ticket
//! and prove that it is theirs. TLS shows the node's own certificate, which the control center names to the child.

use super::http::{self, Pieces};
use super::https_fetch::path_of;
use super::limits::SERVES_NOBODY;
use super::origin_fetch::MAX_REQUEST_BYTES;
use super::{Inner, messages};
use crate::pacer::Place;
use crate::store::StoreHandle;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use headwater_model::Layout;
use headwater_model::id::{ContentId, NodeId, Version};
use headwater_transport::{BoxError, HttpLimits};
use headwater_wire::web::{HttpsTicket, https_nonce};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const LIMITS: HttpLimits =
    HttpLimits { connections: 1024, headers_within: Duration::from_secs(60), header_bytes: 16 << 10 };
/// Requests of one child at once.
const MAX_REQUESTS_PER_CHILD: u32 = 8;
/// A child that takes no piece for so long is dropped.
const TAKES_WITHIN: Duration = Duration::from_secs(15);
/// Pieces of one request between store and socket.
const PIECES_AHEAD: usize = 2;

/// Serves for as long as the node runs.
pub(crate) async fn serve(inner: Arc<Inner>, listener: TcpListener, tls: rustls::ServerConfig) {
    http::serve(inner, listener, Some(tls), LIMITS, |inner, request| std::future::ready(answer(&inner, &request)))
        .await;
}

fn answer(inner: &Arc<Inner>, request: &Request<Incoming>) -> Response<Pieces> {
    let begun = match ask(inner, request) {
        Ok(asked) => asked,
        Err(Refused(status, why)) => return refusal(status, why),
    };
    let bytes = begun.layout.len_of(begun.pieces.clone());
    let (to_child, from_store) = mpsc::channel(PIECES_AHEAD);
    tokio::spawn(send(inner.clone(), begun, to_child));
    let mut response = Response::new(Pieces::new(from_store, bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    // It is for the bearer of this ticket.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    response
}

/// Why nothing is sent.
struct Refused(StatusCode, &'static str);

/// Pieces that a child may have.
struct Asked {
    child: NodeId,
    version: Version,
    pieces: Range<u32>,
    layout: Layout,
    store: StoreHandle,
    _reading: Arc<()>,
}

fn ask(inner: &Arc<Inner>, request: &Request<Incoming>) -> Result<Asked, Refused> {
    if request.method() != Method::GET {
        return Err(Refused(StatusCode::METHOD_NOT_ALLOWED, "only GET"));
    }
    let path = request.uri().path();
    let (version, pieces) = asked_for(path)
        .ok_or(Refused(StatusCode::NOT_FOUND, "pieces are at /v1/contents/ID/EPOCH/pieces/FIRST-END"))?;
    let HttpsTicket { ticket, proof } =
        shown(request).ok_or(Refused(StatusCode::UNAUTHORIZED, "a ticket of the control center is needed"))?;
    let refused = Refused(StatusCode::FORBIDDEN, "the ticket is not accepted");
    if ticket.version != version || pieces.end > ticket.highest_piece.saturating_add(1) {
        return Err(refused);
    }
    let own = inner.listener.identity();
    let mut state = inner.lock();
    if state.leaving {
        return Err(Refused(StatusCode::SERVICE_UNAVAILABLE, "this node is about to stop"));
    }
    if !state.limits.serves() {
        return Err(Refused(StatusCode::SERVICE_UNAVAILABLE, SERVES_NOBODY));
    }
    let control_ms = state.session.control_unix_ms(inner.now());
    let keys = &state.parent_keys;
    let nonce = https_nonce(path);
    let checked = control_ms.map(|now| {
        // Who shows the ticket's secret is its child: TLS keeps both from everyone else.
        ticket.check(keys, &ticket.child, &own.node, now, &proof, &nonce, &own.certificate_hash)
    });
    if !matches!(checked, Some(Ok(()))) {
        return Err(refused);
    }
    let missing = Refused(StatusCode::NOT_FOUND, "these pieces are not here");
    let Some(r) = state.running(version) else { return Err(missing) };
    if !pieces.clone().all(|p| r.swarm.have().get(p)) {
        return Err(missing);
    }
    let (layout, store, reading) = (r.track.layout.clone(), r.store.clone(), r.reading.clone());
    if pieces.len() > 1 && layout.len_of(pieces.clone()) > MAX_REQUEST_BYTES {
        return Err(Refused(StatusCode::PAYLOAD_TOO_LARGE, "too many pieces for one request"));
    }
    let requests = state.https_children.entry(ticket.child).or_default();
    if *requests >= MAX_REQUESTS_PER_CHILD {
        return Err(Refused(StatusCode::TOO_MANY_REQUESTS, "too many requests at once"));
    }
    *requests += 1;
    Ok(Asked { child: ticket.child, version, pieces, layout, store, _reading: reading })
}

/// Content and pieces of a path, which is written in one way only.
fn asked_for(path: &str) -> Option<(Version, Range<u32>)> {
    let mut parts = path.strip_prefix("/v1/contents/")?.split('/');
    let content: ContentId = parts.next()?.parse().ok()?;
    let epoch = parts.next()?.parse().ok()?;
    let (first, end) = parts.next().filter(|p| *p == "pieces").and(parts.next())?.split_once('-')?;
    let (version, pieces) = (Version { content, epoch }, first.parse().ok()?..end.parse().ok()?);
    (!pieces.is_empty() && path_of(version, &pieces) == path).then_some((version, pieces))
}

fn shown(request: &Request<Incoming>) -> Option<HttpsTicket> {
    let text = request.headers().get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Headwater ")?;
    HttpsTicket::decode(URL_SAFE_NO_PAD.decode(text).ok()?.into()).ok()
}

/// Reads, waits for the uplink's pace, and hands over, piece by piece.
async fn send(inner: Arc<Inner>, asked: Asked, to_child: mpsc::Sender<Result<Bytes, BoxError>>) {
    let place = Place::new(asked.version.content);
    for piece in asked.pieces.clone() {
        let data = match asked.store.read(piece).await {
            Ok(Some(data)) => data,
            Ok(None) => break,
            Err(e) => {
                messages::disk_failed(&inner, asked.version, e);
                break;
            }
        };
        let len = data.len() as u64;
        inner.pacer.pass_uncounted(&place, len).await;
        if !matches!(tokio::time::timeout(TAKES_WITHIN, to_child.send(Ok(data))).await, Ok(Ok(()))) {
            break;
        }
        if let Some(r) = inner.lock().running(asked.version) {
            r.uploaded_bytes += len;
        }
    }
    let mut state = inner.lock();
    if let Some(requests) = state.https_children.get_mut(&asked.child) {
        *requests -= 1;
        if *requests == 0 {
            state.https_children.remove(&asked.child);
        }
    }
}

fn refusal(status: StatusCode, why: &'static str) -> Response<Pieces> {
    let mut response = Response::new(Pieces::text(why));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_they_are_written() {
        let version = Version { content: ContentId([0xab; 32]), epoch: 7 };
        let path = path_of(version, &(3..9));
        assert_eq!(asked_for(&path), Some((version, 3..9)));
        for bad in [
            path.replace("3-9", "9-3"),
            path.replace("3-9", "3-3"),
            path.replace("3-9", "+3-9"),
            path.replace("3-9", "3-99999999999"),
            path.replace("/7/", "/07/"),
            path.replace("ab", "AB"),
            path.replace("pieces", "runs"),
            format!("{path}/"),
            "/v1/contents/".into(),
            "/".into(),
        ] {
            assert_eq!(asked_for(&bad), None, "{bad}");
        }
    }
}
