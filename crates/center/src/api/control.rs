//! The control center itself: status, events, records, tokens, numbers.

use super::{ApiError, Caller, MAX_BODY_BYTES, Params, Shared, body_of, is_loopback};
use crate::events::EventItem;
use crate::hub::unix_ms;
use crate::tokens::TokenRole;
use axum::Json;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::header;
use axum::response::IntoResponse;
use headwater_center_core::history::Transfer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use utoipa::{IntoParams, ToSchema};

/// Transfers in one answer.
const MAX_LISTED_TRANSFERS: u32 = 10_000;
const LISTED_TRANSFERS: u32 = 100;

/// How the control center is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Status {
    /// Its node id.
    node: String,
    /// Durable epoch.
    epoch: u64,
    /// Time since it started.
    uptime_s: u64,
    /// Nodes with a session.
    sessions: usize,
    /// Published contents.
    contents: usize,
    /// Nodes that fetch from the origin and operator nodes only, the first 100 of them.
    limited: Vec<LimitedNode>,
    /// How many there are, by reason.
    limited_nodes: BTreeMap<&'static str, usize>,
    /// Since it started.
    totals: Totals,
    /// Dials between peers since it started, by what the two accept.
    dials: Vec<DialsItem>,
}

/// Dials between nodes of two kinds; both ends' dials count.
#[derive(Serialize, ToSchema)]
pub(crate) struct DialsItem {
    /// What the two accept, the more open one first.
    #[schema(value_type = Vec<String>)]
    between: [headwater_model::Accepts; 2],
    /// Dials that ended.
    attempted: u64,
    /// After these the two were connected.
    connected: u64,
}

/// A node that fetches from the origin and operator nodes only.
#[derive(Serialize, ToSchema)]
pub(crate) struct LimitedNode {
    /// Its id.
    node: String,
    /// Why.
    why: &'static str,
}

/// Limited nodes in one answer.
const LISTED_LIMITED: usize = 100;

/// Running totals.
#[derive(Serialize, ToSchema)]
pub(crate) struct Totals {
    /// Assignments sent.
    assignments: u64,
    /// Assigned pairs whose ends cannot reach each other; stays 0.
    lightweight_pairs: u64,
    /// Leases given.
    leases: u64,
    /// Alarms of children.
    alarms: u64,
    /// Edges with trouble.
    troubles: u64,
    /// Heartbeats.
    heartbeats: u64,
    /// Joins.
    joins: u64,
}

/// How the control center is.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status)), security(("token" = [])))]
pub(crate) async fn status(State(hub): Shared, caller: Caller) -> Result<Json<Status>, ApiError> {
    caller.admin()?;
    let state = hub.lock();
    let t = state.center.totals();
    let (mut limited, mut limited_nodes) = (Vec::new(), BTreeMap::new());
    for (node, client) in state.center.clients().iter() {
        let Some(why) = client.arrival.introduction.capabilities.limited() else { continue };
        *limited_nodes.entry(why).or_default() += 1;
        if limited.len() < LISTED_LIMITED {
            limited.push(LimitedNode { node: node.to_string(), why });
        }
    }
    Ok(Json(Status {
        node: hub.identity.node.node.to_string(),
        epoch: state.center.epoch(),
        uptime_s: hub.clock.now().0 / 1_000_000,
        sessions: state.sessions(),
        contents: state.contents.len(),
        limited,
        limited_nodes,
        totals: Totals {
            assignments: t.assignments,
            lightweight_pairs: t.lightweight_pairs,
            leases: t.leases,
            alarms: t.alarms,
            troubles: t.troubles,
            heartbeats: t.heartbeats,
            joins: t.joins,
        },
        dials: (state.center.dials().iter())
            .map(|((a, b), d)| DialsItem { between: [*a, *b], attempted: d.attempted, connected: d.connected })
            .collect(),
    }))
}

/// Which events.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsParams {
    /// Only later ones than this number.
    #[serde(default)]
    after: u64,
}

/// Events.
#[derive(Serialize, ToSchema)]
pub(crate) struct Events {
    /// To be asked after next.
    next: u64,
    /// Oldest first, at most 1,000.
    events: Vec<EventItem>,
}

/// What happened.
#[utoipa::path(
    get, path = "/v1/events", params(EventsParams), responses((status = 200, body = Events)), security(("token" = []))
)]
pub(crate) async fn events(
    State(hub): Shared,
    caller: Caller,
    Params(params): Params<EventsParams>,
) -> Result<Json<Events>, ApiError> {
    caller.admin()?;
    let (next, events) = hub.lock().events.after(params.after);
    Ok(Json(Events { next, events }))
}

/// How many transfers.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TransfersParams {
    /// At most 10,000; 100 where not given.
    limit: Option<u32>,
}

/// A transfer that ended.
#[derive(Serialize, ToSchema)]
pub(crate) struct TransferItem {
    /// Who fetched.
    node: String,
    /// What.
    content: String,
    /// Name of the content.
    title: String,
    /// Bytes from peers.
    peer_bytes: u64,
    /// Bytes from waypoints.
    waypoint_bytes: u64,
    /// Bytes from the origin.
    origin_bytes: u64,
    /// When it began, Unix milliseconds.
    start_unix_ms: u64,
    /// When it ended, Unix milliseconds.
    end_unix_ms: u64,
    /// Highest rate over one heartbeat interval.
    max_rate_bytes_per_s: u64,
    /// Everything arrived.
    complete: bool,
}

impl TransferItem {
    pub(super) fn of(t: &Transfer, start_unix_ms: u64, end_unix_ms: u64) -> TransferItem {
        TransferItem {
            node: t.node.to_string(),
            content: t.content.to_string(),
            title: t.title.clone(),
            peer_bytes: t.peer_bytes,
            waypoint_bytes: t.waypoint_bytes,
            origin_bytes: t.origin_bytes,
            start_unix_ms,
            end_unix_ms,
            max_rate_bytes_per_s: t.max_rate,
            complete: t.complete,
        }
    }
}

/// Transfers that ended, newest first.
#[utoipa::path(
    get, path = "/v1/transfers", params(TransfersParams), responses((status = 200, body = Vec<TransferItem>)),
    security(("token" = []))
)]
pub(crate) async fn transfers(
    State(hub): Shared,
    caller: Caller,
    Params(params): Params<TransfersParams>,
) -> Result<Json<Vec<TransferItem>>, ApiError> {
    caller.admin()?;
    let limit = params.limit.unwrap_or(LISTED_TRANSFERS).min(MAX_LISTED_TRANSFERS);
    let rows = hub.store.transfers(limit).await.map_err(|e| ApiError::internal(e.to_string()))?;
    Ok(Json(rows.iter().map(|r| TransferItem::of(&r.transfer, r.start_unix_ms, r.end_unix_ms)).collect()))
}

/// Which token to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenRequest {
    /// What its bearer may do.
    role: TokenRole,
    /// Names of contents; a trailing `*` stands for any rest.
    #[serde(default)]
    names: Vec<String>,
    /// How long it lasts.
    days: u32,
}

/// A new token.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenReply {
    /// For `Authorization: Bearer`.
    token: String,
}

/// Makes a token.
#[utoipa::path(
    post, path = "/v1/tokens", request_body = TokenRequest,
    responses((status = 200, body = TokenReply), (status = 400, body = ApiError)), security(("token" = []))
)]
pub(crate) async fn make_token(
    State(hub): Shared,
    caller: Caller,
    request: Request,
) -> Result<Json<TokenReply>, ApiError> {
    caller.admin()?;
    let body = body_of(request, MAX_BODY_BYTES).await?;
    let wanted: TokenRequest = serde_json::from_slice(&body).map_err(|e| {
        ApiError::bad_request(format!(
            "the body must be like {{\"role\":\"viewer\",\"names\":[\"films/*\"],\"days\":30}}: {e}"
        ))
    })?;
    let token = hub.tokens.make(wanted.role, wanted.names, wanted.days, unix_ms());
    token.map(|token| Json(TokenReply { token })).map_err(|e| ApiError::bad_request(e.to_string()))
}

/// Whether the control center runs.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = String)))]
pub(crate) async fn healthz(State(hub): Shared) -> &'static str {
    // Answers only where the state is not stuck.
    drop(hub.lock());
    "ok\n"
}

/// Numbers for Prometheus; open to loopback, else with any token.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String)), security((), ("token" = [])))]
pub(crate) async fn metrics(
    State(hub): Shared,
    from: ConnectInfo<SocketAddr>,
    request: Request,
) -> Result<impl IntoResponse, ApiError> {
    if !is_loopback(&from) {
        Caller::from_request_parts(&mut request.into_parts().0, &hub).await?;
    }
    let text = crate::metrics::render(&hub).map_err(|e| ApiError::internal(e.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}
