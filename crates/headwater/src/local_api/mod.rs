//! The API of a running peer, for its user's own commands and programs: HTTP on loopback, at `/local/v1/`.
//!
//! Where it listens and the token that it asks for stand in `local.json` in the peer's data folder, which nobody but its
//! user can read; both are new with each start. A page in a browser gets nothing: `Host` must be the address itself, and a
//! request with an `Origin` is refused.
//!
//! | call | what it does |
//! |---|---|
//! | `GET status` | a [`NodeStatus`] |
//! | `GET contents` | `{"contents": [...]}`, a [`ContentDetail`](headwater_peer::node::ContentDetail) each |
//! | `POST contents` `{"name": "hw://...", "pin": false}` | fetches a content and keeps it, pinned whatever the quota needs; 202 |
//! | `DELETE contents/WHICH` | gives it up and removes its files; WHICH is its id's beginning or its name |
//! | `POST pause` `{"keep_fetching": false}`, `POST resume` | serves nobody; the limits that hold then |
//! | `PUT limits` `{"up_bytes_per_s": 1000000}` | other limits until the next start: also `down_bytes_per_s`, `monthly_bytes`; null for none |
//! | `POST test` | a [`SelfTest`]; one at a time |
//! | `GET log`, `PUT log` `{"filter": "debug"}` | what is logged |
//! | `POST stop` | the peer hands its children over and ends; 202 |
//!
//! Errors are `{"error": "..."}`.

pub mod client;
pub mod door;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Json;
use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, HOST, HeaderValue, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use door::Door;
use headwater_model::Rate;
use headwater_model::{ContentId, Name};
use headwater_peer::node::{Conduct, Fetch, ForgetError, LimitsStatus, Node, NodeStatus, SelfTest};
use headwater_transport::{HttpLimits, serve_http};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

use crate::logging;

const LIMITS: HttpLimits =
    HttpLimits { connections: 32, headers_within: Duration::from_secs(30), header_bytes: 16 << 10 };
/// A name with the address of its log fits many times.
const MAX_BODY_BYTES: usize = 16 << 10;
/// What is not answered by then is not; a test takes ten seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Contents of one node; more are not begun here.
const MAX_CONTENTS: usize = 1024;

/// What the calls need.
struct Peer {
    node: Node,
    door: Arc<Door>,
    /// Somebody asked the peer to stop.
    stop: CancellationToken,
    /// One test at a time.
    testing: tokio::sync::Mutex<()>,
}

type Shared = State<Arc<Peer>>;

/// Serves until `stop` or a call to stop, which cancels it; runs for as long as the future is polled.
pub async fn serve(node: Node, door: Arc<Door>, listener: tokio::net::TcpListener, stop: CancellationToken) {
    let ended = stop.clone();
    let peer = Arc::new(Peer { node, door, stop, testing: tokio::sync::Mutex::new(()) });
    let api = TowerToHyperService::new(router(peer));
    serve_http(listener, None, LIMITS, ended, move |_| api.clone()).await;
}

fn router(peer: Arc<Peer>) -> Router {
    Router::new()
        .route("/local/v1/status", get(status))
        .route("/local/v1/contents", get(contents).post(fetch))
        .route("/local/v1/contents/{*which}", delete(forget))
        .route("/local/v1/pause", post(pause))
        .route("/local/v1/resume", post(resume))
        .route("/local/v1/limits", put(change_limits))
        .route("/local/v1/test", post(test))
        .route("/local/v1/log", get(log).put(change_log))
        .route("/local/v1/stop", post(stop))
        .fallback(|| async { Failure::new(StatusCode::NOT_FOUND, "there is no such call; see the API's description") })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(peer.clone(), let_in))
        .with_state(peer)
}

/// Lets in who is on this machine, is no page of a browser, and has the token.
async fn let_in(State(peer): Shared, request: Request, next: Next) -> Response {
    let refused = match refusal(&peer.door, request.headers()) {
        Some(failure) => failure,
        None => match tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await {
            Ok(mut response) => {
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                return response;
            }
            Err(_) => Failure::new(StatusCode::REQUEST_TIMEOUT, "it took too long"),
        },
    };
    refused.into_response()
}

fn refusal(door: &Door, headers: &HeaderMap) -> Option<Failure> {
    let host = headers.get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    if host != door.address().to_string() {
        // A name that was made to point here (DNS rebinding).
        return Some(Failure::new(
            StatusCode::MISDIRECTED_REQUEST,
            "this is a Headwater peer's local API: ask for its address",
        ));
    }
    if headers.contains_key(ORIGIN) {
        return Some(Failure::new(StatusCode::FORBIDDEN, "pages of browsers have no access"));
    }
    let shown = headers.get(AUTHORIZATION).and_then(|v| v.as_bytes().strip_prefix(b"Bearer ")).unwrap_or_default();
    if !bool::from(shown.ct_eq(door.token().as_bytes())) {
        return Some(Failure::new(StatusCode::UNAUTHORIZED, "the token of the peer's local.json is needed"));
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let too_long = length.is_some_and(|l| l > MAX_BODY_BYTES);
    too_long.then(|| Failure::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has {MAX_BODY_BYTES} bytes at most")))
}

/// Why a call fails.
#[derive(Debug)]
struct Failure(StatusCode, String);

impl Failure {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self(status, why.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

impl From<JsonRejection> for Failure {
    fn from(e: JsonRejection) -> Self {
        Failure(e.status(), e.body_text())
    }
}

async fn status(State(peer): Shared) -> Json<NodeStatus> {
    Json(peer.node.status())
}

async fn contents(State(peer): Shared) -> Json<Value> {
    Json(json!({"contents": peer.node.content_details()}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToFetch {
    name: String,
    #[serde(default)]
    pin: bool,
}

async fn fetch(
    State(peer): Shared,
    body: Result<Json<ToFetch>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let Json(ToFetch { name, pin }) = body?;
    let name: Name =
        name.parse().map_err(|e| Failure::new(StatusCode::BAD_REQUEST, format!("{name:?} is no hw:// name: {e}")))?;
    let status = peer.node.status();
    if status.stopping {
        return Err(Failure::new(StatusCode::CONFLICT, "this peer is about to stop"));
    }
    // One control center may have several addresses; its key is one.
    let same_key = name.control_id.is_some_and(|id| status.control.node == Some(id.to_string()));
    if name.control != status.control.address && !same_key {
        let why = format!(
            "the content is at the control center {}, and this peer is with {}: start one for that with its own --data",
            name.control, status.control.address
        );
        return Err(Failure::new(StatusCode::CONFLICT, why));
    }
    if status.contents >= MAX_CONTENTS {
        return Err(Failure::new(
            StatusCode::CONFLICT,
            format!("this peer has {MAX_CONTENTS} contents: forget one first"),
        ));
    }
    let (id, shown) = (name.content(), name.name.clone());
    let node = peer.node.clone();
    let begun = move || drop(node.fetch(Fetch { pin, ..Fetch::kept(name) }));
    tokio::task::spawn_blocking(begun)
        .await
        .map_err(|e| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    tracing::info!("{shown:?} is to be fetched, its user says");
    Ok((StatusCode::ACCEPTED, Json(json!({"content": id.to_string(), "name": shown}))))
}

async fn forget(State(peer): Shared, Path(which): Path<String>) -> Result<Json<Value>, Failure> {
    let id = one_content(&peer.node, &which)?;
    peer.node.forget(id).await.map_err(|e| match e {
        ForgetError::Unknown => Failure::new(StatusCode::NOT_FOUND, e.to_string()),
        ForgetError::Busy => Failure::new(StatusCode::CONFLICT, e.to_string()),
        ForgetError::Io { .. } => Failure::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
    })?;
    Ok(Json(json!({"content": id.to_string()})))
}

/// The one content that `which` means.
fn one_content(node: &Node, which: &str) -> Result<ContentId, Failure> {
    match node.find(which).as_slice() {
        [one] => Ok(*one),
        [] => Err(Failure::new(
            StatusCode::NOT_FOUND,
            format!("this peer has no content whose name is {which:?}, or whose id begins so"),
        )),
        _ => Err(Failure::new(
            StatusCode::CONFLICT,
            format!("the ids of several contents begin with {which:?}: give more of it"),
        )),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToPause {
    #[serde(default)]
    keep_fetching: bool,
}

async fn pause(State(peer): Shared, body: Result<Json<ToPause>, JsonRejection>) -> Result<Json<LimitsStatus>, Failure> {
    let Json(ToPause { keep_fetching }) = body?;
    peer.node.pause(if keep_fetching { Conduct::Fetch } else { Conduct::Pause });
    Ok(Json(peer.node.limits()))
}

async fn resume(State(peer): Shared) -> Json<LimitsStatus> {
    peer.node.resume();
    Json(peer.node.limits())
}

/// What is not named stays; null is no limit.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLimits {
    #[serde(default, deserialize_with = "named")]
    up_bytes_per_s: Option<Option<u64>>,
    #[serde(default, deserialize_with = "named")]
    down_bytes_per_s: Option<Option<u64>>,
    #[serde(default, deserialize_with = "named")]
    monthly_bytes: Option<Option<u64>>,
}

fn named<'a, D: Deserializer<'a>>(d: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(d).map(Some)
}

async fn change_limits(
    State(peer): Shared,
    body: Result<Json<NewLimits>, JsonRejection>,
) -> Result<Json<LimitsStatus>, Failure> {
    let Json(new) = body?;
    let rate = |new: Option<Option<u64>>, now: Option<Rate>| new.map_or(now, |limit| limit.map(Rate));
    if new.up_bytes_per_s == Some(Some(0)) || new.down_bytes_per_s == Some(Some(0)) {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "a rate of 0 moves nothing: `pause` is for that"));
    }
    let mut limits = peer.node.allowed();
    limits.up = rate(new.up_bytes_per_s, limits.up);
    limits.down = rate(new.down_bytes_per_s, limits.down);
    limits.monthly_bytes = new.monthly_bytes.unwrap_or(limits.monthly_bytes);
    peer.node.set_limits(limits);
    let now = peer.node.limits();
    let or_none = |limit: Option<u64>| limit.map_or("none".into(), |l| l.to_string());
    tracing::info!(
        "limits, as its user says: up {}, down {} bytes per second, {} bytes a month",
        or_none(now.up_bytes_per_s),
        or_none(now.down_bytes_per_s),
        or_none(now.monthly_bytes)
    );
    Ok(Json(now))
}

async fn test(State(peer): Shared) -> Result<Json<SelfTest>, Failure> {
    let busy = || Failure::new(StatusCode::CONFLICT, "a test is under way: ask again in a moment");
    let _one = peer.testing.try_lock().map_err(|_| busy())?;
    Ok(Json(peer.node.self_test().await))
}

async fn log() -> Json<Value> {
    Json(json!({"filter": logging::current()}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogFilter {
    filter: String,
}

async fn change_log(body: Result<Json<LogFilter>, JsonRejection>) -> Result<Json<Value>, Failure> {
    let Json(LogFilter { filter }) = body?;
    logging::change(&filter).map_err(|why| Failure::new(StatusCode::BAD_REQUEST, why))?;
    Ok(log().await)
}

async fn stop(State(peer): Shared) -> (StatusCode, Json<Value>) {
    tracing::info!("stopping, as its user says");
    peer.stop.cancel();
    (StatusCode::ACCEPTED, Json(json!({"stopping": true})))
}

/// Listens on loopback, at a port that the system chooses.
///
/// # Errors
/// The system's.
pub async fn listen() -> anyhow::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.context("the peer's local API cannot listen on 127.0.0.1")
}
