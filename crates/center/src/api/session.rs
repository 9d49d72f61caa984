//! Sessions of nodes that UDP does not reach: a WebSocket in place of QUIC. And what pages need for theirs over WebTransport.

use super::{ApiError, Shared};
use crate::session::{self, Entered};
use axum::Json;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use serde::Serialize;
use std::net::SocketAddr;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use utoipa::ToSchema;

/// How a page in a browser begins a session.
#[derive(Serialize, ToSchema)]
pub(crate) struct PageItem {
    /// Over WebTransport; where UDP does not get through, over a WebSocket at `/v1/session`.
    webtransport: WebTransportItem,
}

/// WebTransport at the host and port of this API, path `/headwater/1`.
#[derive(Serialize, ToSchema)]
struct WebTransportItem {
    /// SHA-256, hexadecimal, of the certificate that is shown and of the next one: `serverCertificateHashes`.
    certificate_hashes: [String; 2],
}

/// Tells pages of all sites by which certificates they know this control center over WebTransport.
#[utoipa::path(get, path = "/v1/page", responses((status = 200, body = PageItem)))]
pub(crate) async fn page(State(hub): Shared) -> impl IntoResponse {
    let certificate_hashes = hub.shown_to_pages.hashes().map(|hash| hash.to_string());
    let item = PageItem { webtransport: WebTransportItem { certificate_hashes } };
    ([(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (header::CACHE_CONTROL, "no-store")], Json(item))
}

/// Opens a node's session over a WebSocket (RFC 6455); see the schema of Headwater's messages.
#[utoipa::path(get, path = "/v1/session", responses((status = 101), (status = 426, body = ApiError)))]
pub(crate) async fn open(
    State(hub): Shared,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let headers = request.headers();
    if headers.contains_key(header::FORWARDED) || headers.contains_key("x-forwarded-for") {
        // Whoever stands between would seem to be the node, and its certificate the control center's.
        return Err(ApiError::bad_request("sessions of nodes do not go through a reverse proxy: TLS must end here"));
    }
    let wanted = lists(headers, header::CONNECTION, "upgrade") && lists(headers, header::UPGRADE, "websocket");
    let version = headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|v| v == "13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(|k| derive_accept_key(k.as_bytes()));
    let (Some(key), true, true) = (key, wanted, version) else {
        let mut response = ApiError::new(StatusCode::UPGRADE_REQUIRED, "this is for WebSockets").into_response();
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Ok(response);
    };
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| ApiError::bad_request("this connection cannot become a WebSocket"))?;
    let entered = Entered::by_tcp(&hub, from.ip());
    let (Some(entered), Ok(place)) = (entered, hub.web_places.clone().try_acquire_owned()) else {
        hub.counters.refused_handshakes.inc();
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many nodes arrive at once: try again"));
    };
    let accept = HeaderValue::try_from(key).map_err(|e| ApiError::internal(e.to_string()))?;
    hub.tasks.spawn(session::serve_web(hub.clone(), upgrade, from, place, entered));
    let switch = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, switch).into_response())
}

/// Whether a header names `word` in its list.
fn lists(headers: &HeaderMap, name: header::HeaderName, word: &str) -> bool {
    let words = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    words.into_iter().any(|w| w.trim().eq_ignore_ascii_case(word))
}
