//! Contents: publish, list, show, withdraw.

use super::{ApiError, Caller, Params, Shared, body_of};
use crate::contents::{PublishError, Published, Terms, check_access};
use crate::hub;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Json, response::IntoResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use headwater_center_core::dcm::{Dcm, Member};
use headwater_center_core::trees::Trees;
use headwater_model::{ContentId, Name, NodeId, Substreams};
use headwater_wire::limits::MAX_STATIC_LOG_BYTES;
use headwater_wire::{OriginAccess, StaticLog};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

const ACCESS_HEADER: &str = "x-headwater-origin-access";
/// Members listed of one swarm.
const MAX_LISTED_MEMBERS: usize = 10_000;
/// Members listed through which a stream comes in to clusters.
const MAX_LISTED_ENTRIES: usize = 100;

/// Who may join a content.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Audience {
    /// Everyone.
    #[default]
    Open,
    /// Bearers of a viewer's token.
    Tokens,
}

/// How to publish.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PublishParams {
    /// Viewers get the origin's credentials too.
    #[serde(default)]
    share_origin_credentials: bool,
    /// Who may join.
    #[serde(default)]
    audience: Audience,
    /// Name of another content of the same publisher, published here already: lightweight clients get it in place of this
    /// one.
    lightweight: Option<String>,
}

/// The origin's credentials, in the header.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccessJson {
    #[serde(default)]
    headers: Vec<(String, String)>,
    query: Option<String>,
}

/// What was published.
#[derive(Serialize, ToSchema)]
pub(crate) struct PublishedReply {
    /// Id of the content.
    content: String,
    /// Its name.
    name: String,
    /// Its version.
    epoch: u64,
    /// Bytes of all objects.
    bytes: u64,
    /// Number of pieces.
    pieces: u32,
    /// Number of objects.
    objects: usize,
    /// The `hw://` name to hand out.
    hw: String,
}

/// A content.
#[derive(Serialize, ToSchema)]
pub(crate) struct ContentItem {
    /// Id.
    content: String,
    /// Name.
    name: String,
    /// Version.
    epoch: u64,
    /// Fingerprint of the publisher's first key.
    key: String,
    /// Bytes of all objects.
    bytes: u64,
    /// Number of pieces.
    pieces: u32,
    /// Number of objects.
    objects: usize,
    /// Of a live stream, which has no bytes and no objects: its trees.
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<LiveItem>,
    /// Where its publisher keeps it.
    origins: Vec<String>,
    /// Who may join.
    audience: Audience,
    /// Name of what lightweight clients get in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    lightweight: Option<String>,
    /// Nodes in the swarm.
    members: usize,
    /// Those that have everything.
    complete: usize,
    /// When it was published here, Unix milliseconds.
    published_unix_ms: u64,
    /// Bytes that nodes fetched from the origin.
    origin_bytes: u64,
}

/// A live stream and its trees.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct LiveItem {
    /// Rate that places are made for.
    rate_bytes_per_s: u64,
    /// Substreams, each with a tree of its own.
    substreams: u8,
    /// Edges in all trees.
    edges: usize,
    /// Slots of the source in use: one per tree is one copy.
    source_slots: u32,
    /// Places without a parent: their nodes read that substream from the origin.
    unfed: usize,
    /// Edges from the source to the node that is farthest from it.
    max_depth: u32,
    /// Clusters of nodes near one another, which have a part of each tree of their own.
    clusters: usize,
    /// Copies that come in to each of them, on average.
    copies_into_clusters: f64,
    /// Clusters that came to be since the control center started.
    splits: u64,
    /// Clusters that were merged with the ones around them.
    merges: u64,
    /// Nodes through which substreams come in to their clusters, those that bring most first; at most 100.
    entries: Vec<EntryItem>,
}

/// A node through which substreams come in to its cluster.
#[derive(Serialize, ToSchema)]
pub(crate) struct EntryItem {
    /// Its id.
    node: String,
    /// How many substreams.
    substreams: u32,
    /// Nodes that it feeds.
    children: usize,
}

/// A content and its swarm.
#[derive(Serialize, ToSchema)]
pub(crate) struct ContentDetail {
    /// The content.
    #[serde(flatten)]
    content: ContentItem,
    /// Its swarm.
    swarm: Swarm,
}

/// A swarm; empty where nobody has asked for the content.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct Swarm {
    /// Number of the last assignment.
    generation: GenerationItem,
    /// Leases to fetch from the origin.
    leases: LeasesItem,
    /// Members, at most 10,000.
    members: Vec<MemberItem>,
}

/// Number of an assignment.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct GenerationItem {
    /// Epoch of the control center.
    epoch: u64,
    /// Counts within the epoch.
    counter: u64,
}

/// Leases of a swarm.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct LeasesItem {
    /// Under way.
    active: usize,
    /// That may be under way at once.
    slots: u32,
    /// Runs that no member holds and none fetches.
    unheld: usize,
}

/// A member of a swarm.
#[derive(Serialize, ToSchema)]
pub(crate) struct MemberItem {
    /// Its id.
    node: String,
    /// `peer` or `waypoint`.
    #[schema(value_type = String)]
    role: headwater_model::Role,
    /// `open`, `punchable` or `dial-only`.
    #[schema(value_type = String)]
    accepts: headwater_model::Accepts,
    /// Less than a regular peer in any capability.
    lightweight: bool,
    /// Verified pieces.
    pieces_held: u32,
    /// Has everything.
    complete: bool,
    /// Bytes from peers.
    peer_bytes: u64,
    /// Bytes from waypoints.
    waypoint_bytes: u64,
    /// Bytes from the origin.
    origin_bytes: u64,
    /// Bytes that came twice or were wrong.
    wasted_bytes: u64,
    /// Ids of its parents.
    parents: Vec<String>,
    /// Ids of its children.
    children: Vec<String>,
    /// Uplink granted to this content.
    up_bytes_per_s: u64,
}

impl From<PublishError> for ApiError {
    fn from(e: PublishError) -> ApiError {
        let status = match &e {
            PublishError::NameTaken { .. } | PublishError::Older { .. } | PublishError::OtherLog(_) => {
                StatusCode::CONFLICT
            }
            PublishError::StandIn(_) => StatusCode::BAD_REQUEST,
            PublishError::Limit(_) => StatusCode::INSUFFICIENT_STORAGE,
            PublishError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            PublishError::Store(_) | PublishError::Identity(_) => return ApiError::internal(e.to_string()),
        };
        ApiError::new(status, e.to_string())
    }
}

/// Credentials are never repeated in errors.
fn access_of(headers: &HeaderMap) -> Result<OriginAccess, ApiError> {
    let Some(given) = headers.get(ACCESS_HEADER) else { return Ok(OriginAccess::default()) };
    let bad = |what: &str| ApiError::bad_request(format!("{ACCESS_HEADER}: {what}"));
    let json = STANDARD.decode(given.as_bytes()).map_err(|_| bad("not base64"))?;
    let access: AccessJson = serde_json::from_slice(&json)
        .map_err(|_| bad("not JSON like {\"headers\":[[\"name\",\"value\"]],\"query\":null}"))?;
    let access = OriginAccess { headers: access.headers, query: access.query.unwrap_or_default() };
    check_access(&access).map_err(|e| bad(&e))?;
    Ok(access)
}

/// Publishes a content, or a newer version of it.
#[utoipa::path(
    post, path = "/v1/contents", params(PublishParams),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The static log that the publisher signed"),
    responses((status = 201, body = PublishedReply), (status = 400, body = ApiError), (status = 409, body = ApiError)),
    security(("token" = []))
)]
pub(crate) async fn publish(
    State(hub): Shared,
    caller: Caller,
    Params(params): Params<PublishParams>,
    request: Request,
) -> Result<impl IntoResponse, ApiError> {
    caller.manager()?;
    let access = access_of(request.headers())?;
    // Uploads are large: few are in memory at once.
    let stopping = |_| ApiError::from(PublishError::Stopping);
    let _place = hub.uploads.acquire().await.map_err(stopping)?;
    let body = body_of(request, MAX_STATIC_LOG_BYTES).await?;
    let verify = move || {
        let file = StaticLog::decode(&body).map_err(|e| format!("the body is no static log: {e}"))?;
        let said = file.verify(&file.log.name, None).map_err(|e| format!("the log is not true: {e}"))?;
        Ok((file, said))
    };
    let verified = tokio::task::spawn_blocking(verify).await.map_err(|e| ApiError::internal(e.to_string()))?;
    let (file, said) = verified.map_err(|e: String| ApiError::bad_request(e))?;
    caller.manager_of(said.name())?;
    let key = headwater_model::log::fingerprint(&file.log.first_key);
    let control_id = Some(hub.identity.node.node);
    let name = Name { control: hub.public.clone(), name: said.name().to_owned(), key, log: None, control_id };
    let closed = said.closed();
    let reply = PublishedReply {
        content: said.version().content.to_string(),
        name: said.name().to_owned(),
        epoch: said.version().epoch,
        bytes: closed.map_or(0, |t| t.layout.bytes()),
        pieces: closed.map_or(0, |t| t.layout.pieces()),
        objects: closed.map_or(0, |t| t.objects.len()),
        hw: name.to_string(),
    };
    let terms = Terms {
        access,
        share_origin_credentials: params.share_origin_credentials,
        restricted: params.audience == Audience::Tokens,
        lightweight: params.lightweight,
    };
    hub.publish(file, said, terms).await?;
    Ok((StatusCode::CREATED, Json(reply)))
}

fn entries(trees: &Trees) -> Vec<EntryItem> {
    let entry = |(node, substreams): (NodeId, Substreams)| EntryItem {
        node: node.to_string(),
        substreams: substreams.len(),
        children: trees.children_of(&node).len(),
    };
    trees.entries().into_iter().take(MAX_LISTED_ENTRIES).map(entry).collect()
}

fn item(state: &hub::State, c: &Published) -> ContentItem {
    let id = c.version.content;
    let dcm = state.center.directory().dcm(&id);
    let of_live = state.center.directory().trees(&id);
    let trees = of_live.map(Trees::stats);
    let live = c.live.as_ref().map(|track| {
        let t = trees.unwrap_or_default();
        LiveItem {
            rate_bytes_per_s: track.terms.rate.0,
            substreams: track.terms.substreams.get(),
            edges: t.edges,
            source_slots: t.source_slots_used,
            unfed: t.unfed,
            max_depth: t.max_depth,
            clusters: t.clusters,
            copies_into_clusters: t.copies_in,
            splits: t.splits,
            merges: t.merges,
            entries: of_live.map(entries).unwrap_or_default(),
        }
    });
    let count = |fit: &dyn Fn(&Member) -> bool| dcm.map_or(0, |d| d.members().filter(|m| fit(m)).count());
    ContentItem {
        content: id.to_string(),
        name: c.name.clone(),
        epoch: c.version.epoch,
        key: c.key.to_string(),
        bytes: c.bytes,
        pieces: c.pieces,
        objects: c.objects,
        live,
        origins: c.origins.clone(),
        audience: if c.restricted { Audience::Tokens } else { Audience::Open },
        lightweight: c.lightweight.clone(),
        members: trees.map_or_else(|| count(&|_| true), |t| t.members),
        complete: count(&|m| !m.wants),
        published_unix_ms: c.published_unix_ms,
        origin_bytes: state.center.origin_bytes(id),
    }
}

/// Lists the contents that the caller manages.
#[utoipa::path(
    get, path = "/v1/contents", responses((status = 200, body = Vec<ContentItem>)), security(("token" = []))
)]
pub(crate) async fn list(State(hub): Shared, caller: Caller) -> Result<Json<Vec<ContentItem>>, ApiError> {
    caller.manager()?;
    let state = hub.lock();
    let mine = state.contents.iter().filter(|(_, c)| caller.manages(&c.name));
    Ok(Json(mine.map(|(_, c)| item(&state, c)).collect()))
}

/// The content that is meant; whether it exists is told to those who may manage it.
pub(super) fn find(state: &hub::State, caller: &Caller, which: &str) -> Result<ContentId, ApiError> {
    caller.manager()?;
    let found = state.find_content(which).and_then(|id| Some((id, state.contents.get(&id)?)));
    match found {
        Some((id, content)) => caller.manager_of(&content.name).map(|()| id),
        None => {
            Err(ApiError::not_found(format!("no content has the name or id {which:?}; GET /v1/contents lists them")))
        }
    }
}

/// A content and its swarm.
#[utoipa::path(
    get, path = "/v1/contents/{which}", params(("which" = String, Path, description = "Name or id")),
    responses((status = 200, body = ContentDetail), (status = 404, body = ApiError)), security(("token" = []))
)]
pub(crate) async fn show(
    State(hub): Shared,
    caller: Caller,
    Path(which): Path<String>,
) -> Result<Json<ContentDetail>, ApiError> {
    let state = hub.lock();
    let id = find(&state, &caller, &which)?;
    let content = state.contents.get(&id).ok_or_else(|| ApiError::not_found("it was just withdrawn"))?;
    let swarm = state.center.directory().dcm(&id).map(|dcm| swarm(&state, dcm)).unwrap_or_default();
    Ok(Json(ContentDetail { content: item(&state, content), swarm }))
}

fn swarm(state: &hub::State, dcm: &Dcm) -> Swarm {
    let (generation, leases) = (dcm.generation(), dcm.leases());
    Swarm {
        generation: GenerationItem { epoch: generation.epoch, counter: generation.counter },
        leases: LeasesItem { active: leases.active().len(), slots: leases.slots(), unheld: leases.unheld() },
        members: dcm.members().take(MAX_LISTED_MEMBERS).map(|m| member(state, dcm, m)).collect(),
    }
}

fn member(state: &hub::State, dcm: &Dcm, m: &Member) -> MemberItem {
    let node = m.info.node;
    let progress = state.center.progress(&dcm.version().content, &node).cloned().unwrap_or_default();
    let name = |ix| dcm.node_of(ix).map(|n| n.to_string());
    MemberItem {
        node: node.to_string(),
        role: m.info.role,
        accepts: m.info.capabilities.accepts.value,
        lightweight: m.info.capabilities.lightweight(),
        pieces_held: if m.wants { m.pieces_held } else { dcm.layout().pieces() },
        complete: !m.wants,
        peer_bytes: progress.peer_bytes,
        waypoint_bytes: progress.waypoint_bytes,
        origin_bytes: progress.origin_bytes,
        wasted_bytes: progress.wasted_bytes,
        parents: m.parents.iter().filter_map(|e| name(e.parent)).collect(),
        children: m.children.iter().filter_map(|c| name(*c)).collect(),
        up_bytes_per_s: m.info.up.0,
    }
}

/// What was withdrawn.
#[derive(Serialize, ToSchema)]
pub(crate) struct WithdrawnReply {
    /// Id.
    content: String,
    /// Name.
    name: String,
}

/// Withdraws a content: nodes forget it.
#[utoipa::path(
    delete, path = "/v1/contents/{which}", params(("which" = String, Path, description = "Name or id")),
    responses((status = 200, body = WithdrawnReply), (status = 404, body = ApiError)), security(("token" = []))
)]
pub(crate) async fn withdraw(
    State(hub): Shared,
    caller: Caller,
    Path(which): Path<String>,
) -> Result<Json<WithdrawnReply>, ApiError> {
    let id = find(&hub.lock(), &caller, &which)?;
    let gone = hub.withdraw(id).await?;
    let name = gone.ok_or_else(|| ApiError::not_found("it was just withdrawn"))?;
    Ok(Json(WithdrawnReply { content: id.to_string(), name }))
}
