//! Nodes with a session.

use super::{ApiError, Caller, Shared};
use crate::hub::{self, Hub};
use axum::Json;
use axum::extract::{Path, State};
use headwater_center_core::client_manager::Client;
use headwater_center_core::trust::Standing;
use headwater_model::{NodeId, Place};
use serde::Serialize;
use utoipa::ToSchema;

/// A node.
#[derive(Serialize, ToSchema)]
pub(crate) struct NodeItem {
    /// Its id.
    node: String,
    /// `peer` or `waypoint`.
    #[schema(value_type = String)]
    role: headwater_model::Role,
    /// `open`, `punchable` or `dial-only`.
    #[schema(value_type = String)]
    accepts: headwater_model::Accepts,
    /// How that is known: `claim`, `operator` or `test`.
    #[schema(value_type = String)]
    accepts_from: headwater_model::node::From,
    /// Why, in words.
    accepts_why: String,
    /// Accepts connections itself, whatever stands before it.
    listens: bool,
    /// Address that its router forwards to it, as it says.
    mapped: Option<String>,
    /// Others reach it at that address, as a test showed.
    reached_by_mapping: bool,
    /// Sources that it may use: `any` or `listed`.
    #[schema(value_type = String)]
    sources: headwater_model::SourceAccess,
    /// How that is known.
    #[schema(value_type = String)]
    sources_from: headwater_model::node::From,
    /// Whether UDP gets through to it.
    udp: bool,
    /// How that is known.
    #[schema(value_type = String)]
    udp_from: headwater_model::node::From,
    /// Why it fetches from the origin and operator nodes only, if it does.
    limited: Option<&'static str>,
    /// What it passes on: `disk`, `memory` or `no`.
    #[schema(value_type = String)]
    forwards: headwater_model::Forwards,
    /// Address that its session comes from.
    observed: String,
    /// A page in a browser.
    page: bool,
    /// Client, version and platform.
    client: String,
    /// Uplink that it is believed to have.
    up_bytes_per_s: u64,
    /// Its claims are believed.
    enrolled: bool,
    /// Where it is.
    #[schema(value_type = Object)]
    place: Place,
    /// Ids of the contents that it takes part in.
    contents: Vec<String>,
    /// Age of its session in seconds.
    since_s: u64,
    /// Bytes that others confirm it sent.
    served_bytes: u64,
    /// Share of the time since it was first seen that it was there.
    availability_percent: u64,
    /// How well it served others: 0 (badly) to 3.
    score: u32,
    /// As a parent: `good`, `on trial` or `banned`.
    standing: &'static str,
    /// Its accusations of others are void, as theirs contradict them.
    slanderer: bool,
}

/// A node and its last downloads.
#[derive(Serialize, ToSchema)]
pub(crate) struct NodeDetail {
    /// The node.
    #[serde(flatten)]
    node: NodeItem,
    /// The last downloads, newest last.
    downloads: Vec<super::control::TransferItem>,
    /// What children accuse it of as a parent.
    accusations: Vec<AccusationItem>,
    /// Networks whose nodes it serves well, while it is accused.
    served_well_networks: usize,
    /// How often it was banned as a parent.
    bans: u32,
    /// For how long it still is.
    banned_for_s: u64,
}

/// What a child says against its parent.
#[derive(Serialize, ToSchema)]
pub(crate) struct AccusationItem {
    /// The child.
    by: String,
    /// Of what.
    of: &'static str,
    /// How long ago.
    s_ago: u64,
}

fn item(hub: &Hub, state: &hub::State, node: &NodeId, client: &Client) -> NodeItem {
    let (a, now) = (&client.arrival, hub.clock.now());
    let record = state.center.history().node(node);
    let udp = a.introduction.capabilities.udp.value;
    let tested = state.center.prober().filter(|_| udp);
    NodeItem {
        node: node.to_string(),
        role: a.introduction.role,
        accepts: a.introduction.capabilities.accepts.value,
        accepts_from: a.introduction.capabilities.accepts.from,
        accepts_why: state.why_accepts(node, client).to_owned(),
        listens: a.introduction.capabilities.listens,
        mapped: tested.and_then(|p| p.mapped(node)).map(|m| m.to_string()),
        reached_by_mapping: client.via.is_some(),
        sources: a.introduction.capabilities.sources.value,
        sources_from: a.introduction.capabilities.sources.from,
        udp,
        udp_from: a.introduction.capabilities.udp.from,
        limited: a.introduction.capabilities.limited(),
        forwards: a.introduction.capabilities.forwards.value,
        observed: a.observed.to_string(),
        page: state.is_page(node),
        client: a.introduction.client.clone(),
        up_bytes_per_s: client.up.0,
        enrolled: a.enrolled,
        place: a.place.clone(),
        contents: client.contents.iter().map(ToString::to_string).collect(),
        since_s: now.since(client.since).0 / 1_000_000,
        served_bytes: record.map_or(0, |r| r.served_bytes),
        availability_percent: record.map_or(0, |r| r.availability_percent(now)),
        score: record.map_or(2, |r| r.score()),
        standing: match state.center.trust().standing(node) {
            Standing::Good => "good",
            Standing::OnTrial { .. } => "on trial",
            Standing::Banned => "banned",
        },
        slanderer: state.center.trust().is_slanderer(node),
    }
}

/// Lists the nodes with a session.
#[utoipa::path(get, path = "/v1/nodes", responses((status = 200, body = Vec<NodeItem>)), security(("token" = [])))]
pub(crate) async fn list(State(hub): Shared, caller: Caller) -> Result<Json<Vec<NodeItem>>, ApiError> {
    caller.admin()?;
    let state = hub.lock();
    let mut nodes: Vec<_> = state.center.clients().iter().collect();
    nodes.sort_unstable_by_key(|(node, _)| **node);
    Ok(Json(nodes.into_iter().map(|(n, c)| item(&hub, &state, n, c)).collect()))
}

/// The one node with a session whose id begins so.
pub(super) fn find(state: &hub::State, prefix: &str) -> Result<NodeId, ApiError> {
    match state.find_nodes(prefix).as_slice() {
        [one] => Ok(*one),
        [] => Err(ApiError::not_found(format!(
            "no node with a session has an id that begins with {prefix:?} (4 digits or more); GET /v1/nodes lists them"
        ))),
        _ => Err(ApiError::bad_request(format!("several nodes' ids begin with {prefix:?}: give more digits"))),
    }
}

/// A node and its last downloads.
#[utoipa::path(
    get, path = "/v1/nodes/{prefix}", params(("prefix" = String, Path, description = "Beginning of its id")),
    responses((status = 200, body = NodeDetail), (status = 404, body = ApiError)), security(("token" = []))
)]
pub(crate) async fn show(
    State(hub): Shared,
    caller: Caller,
    Path(prefix): Path<String>,
) -> Result<Json<NodeDetail>, ApiError> {
    caller.admin()?;
    let state = hub.lock();
    let node = find(&state, &prefix)?;
    let client = state.center.clients().get(&node).ok_or_else(|| ApiError::not_found("it just left"))?;
    let record = state.center.history().node(&node);
    let at = |t| hub.clock.unix_ms_of(t);
    let downloads = record.iter().flat_map(|r| &r.downloads);
    let downloads = downloads.map(|d| super::control::TransferItem::of(d, at(d.start), at(d.end))).collect();
    let now = hub.clock.now();
    let case = state.center.trust().case(now, &node);
    let accusations = case.iter().flat_map(|c| &c.accusations);
    let accusations = accusations.map(|(by, of, at)| AccusationItem {
        by: by.to_string(),
        of: of.words(),
        s_ago: now.since(*at).0 / 1_000_000,
    });
    Ok(Json(NodeDetail {
        node: item(&hub, &state, &node, client),
        downloads,
        accusations: accusations.collect(),
        served_well_networks: case.as_ref().map_or(0, |c| c.praisers),
        bans: case.as_ref().map_or(0, |c| c.bans),
        banned_for_s: case.and_then(|c| c.banned_until).map_or(0, |until| until.since(now).0 / 1_000_000),
    }))
}
