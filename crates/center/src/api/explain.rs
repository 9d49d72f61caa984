//! Why a node has the parents that it has.

use super::{ApiError, Caller, Params, Shared};
use crate::words::{Explained, words};
use axum::Json;
use axum::extract::State;
use headwater_center_core::explain::{Decision, Removed};
use headwater_model::NodeId;
use headwater_model::node::SourceClass;
use headwater_model::place::Tier;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which decision.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExplainParams {
    /// The node, or the beginning of its id.
    client: String,
    /// Name or id.
    content: String,
}

/// The last choice of parents for a node.
#[derive(Serialize, ToSchema)]
pub(crate) struct Explanation {
    /// For which node.
    client: String,
    /// In which content.
    content: String,
    /// How long ago.
    at_s_ago: f64,
    /// Why it was made.
    occasion: String,
    /// Parents looked for.
    wanted: u32,
    /// Candidates looked at.
    considered: u32,
    /// Members that were not looked at.
    not_reached: u32,
    /// How many were removed by what.
    removed: Vec<RemovedCount>,
    /// Some of them.
    removed_named: Vec<RemovedNode>,
    /// Those that passed, best first.
    ranked: Vec<RankedItem>,
    /// Its parents now.
    parents: Vec<String>,
    /// Where nobody was found: who came nearest, and what would help.
    nearest_miss: Option<NearestMiss>,
    /// Why the node fetches from the origin and operator nodes only, if it does.
    limited: Option<&'static str>,
    /// Runs under way from these.
    standing_leases: u32,
    /// All of it in sentences.
    words: String,
}

/// How many candidates a test removed.
#[derive(Serialize, ToSchema)]
pub(crate) struct RemovedCount {
    /// Why.
    why: String,
    /// How many.
    count: u32,
}

/// A candidate that was removed.
#[derive(Serialize, ToSchema)]
pub(crate) struct RemovedNode {
    /// Who.
    node: String,
    /// Why.
    why: String,
}

/// A candidate that passed all tests.
#[derive(Serialize, ToSchema)]
pub(crate) struct RankedItem {
    /// Who.
    node: String,
    /// `peer` or `waypoint`.
    #[schema(value_type = String)]
    class: SourceClass,
    /// `lan`, `site`, `enterprise`, `as`, `country` or `world`.
    #[schema(value_type = String)]
    tier: Tier,
    /// log2 of spare uplink in bytes per second.
    spare_bucket: u32,
    /// How well it served others: 0 (badly) to 3.
    history: u32,
    /// Became a parent.
    chosen: bool,
}

/// The candidate that came nearest.
#[derive(Serialize, ToSchema)]
pub(crate) struct NearestMiss {
    /// Who.
    node: String,
    /// What kept it out.
    why: String,
    /// What would let it in.
    would_help: String,
}

/// Why a node has the parents that it has.
#[utoipa::path(
    get, path = "/v1/explain", params(ExplainParams),
    responses((status = 200, body = Explanation), (status = 404, body = ApiError)), security(("token" = []))
)]
pub(crate) async fn explain(
    State(hub): Shared,
    caller: Caller,
    Params(params): Params<ExplainParams>,
) -> Result<Json<Explanation>, ApiError> {
    let state = hub.lock();
    let content = super::contents::find(&state, &caller, &params.content)?;
    let name = state.contents.get(&content).map(|c| c.name.clone()).unwrap_or_default();
    let dcm = state.center.directory().dcm(&content);
    let nobody = || ApiError::not_found(format!("nobody has asked for {name:?} since the control center started"));
    let dcm = dcm.ok_or_else(nobody)?;
    let mut members = dcm.members().filter(|m| crate::hub::begins(&m.info.node.0, &params.client));
    let member = match (members.next(), members.next()) {
        (Some(one), None) => one,
        (None, _) => {
            return Err(ApiError::not_found(format!(
                "no member of {name:?} has an id that begins with {:?} (4 digits or more); GET /v1/contents/{{id}} lists them",
                params.client
            )));
        }
        _ => {
            let error = format!("several members' ids begin with {:?}: give more digits", params.client);
            return Err(ApiError::bad_request(error));
        }
    };
    let client = member.info.node;
    let decision = member.decision.as_deref().ok_or_else(|| {
        ApiError::not_found(format!(
            "no parents were ever looked for for {client:.8}: it had everything when it joined"
        ))
    })?;
    let parents: Vec<NodeId> = member.parents.iter().filter_map(|e| dcm.node_of(e.parent)).collect();
    let at_s_ago = hub.clock.now().since(decision.at).as_secs_f64();
    let limited = member.info.capabilities.limited();
    let (complete, standing_leases) = (!member.wants, member.standing_leases);
    let explained =
        Explained { client, name: &name, at_s_ago, decision, parents: &parents, complete, limited, standing_leases };
    Ok(Json(explanation(&explained, content.to_string())))
}

fn explanation(e: &Explained<'_>, content: String) -> Explanation {
    let d: &Decision = e.decision;
    let why = |r: Removed| r.words().0.to_owned();
    Explanation {
        client: e.client.to_string(),
        content,
        at_s_ago: e.at_s_ago,
        occasion: d.occasion.to_owned(),
        wanted: d.wanted,
        considered: d.considered,
        not_reached: d.not_reached,
        removed: d.removed.iter().map(|(r, n)| RemovedCount { why: why(*r), count: *n }).collect(),
        removed_named: d.removed_named.iter().map(|(n, r)| RemovedNode { node: n.to_string(), why: why(*r) }).collect(),
        ranked: d
            .ranked
            .iter()
            .map(|r| RankedItem {
                node: r.node.to_string(),
                class: r.class,
                tier: r.tier,
                spare_bucket: r.spare_bucket,
                history: r.history,
                chosen: r.chosen,
            })
            .collect(),
        parents: e.parents.iter().map(ToString::to_string).collect(),
        nearest_miss: d.nearest_miss().map(|(node, r)| NearestMiss {
            node: node.to_string(),
            why: why(r),
            would_help: r.words().1.to_owned(),
        }),
        limited: e.limited,
        standing_leases: e.standing_leases,
        words: words(e),
    }
}
