//! Links between regions, as pairs that use them show them.

use super::{ApiError, Caller, Shared};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

/// The way from one ISP, AS or country to another.
#[derive(Serialize, ToSchema)]
pub(crate) struct LinkItem {
    /// Where it begins.
    from: String,
    /// Where it ends.
    to: String,
    /// Pairs of nodes that moved something over it of late.
    pairs: usize,
    /// Those among them that are congested.
    congested_pairs: usize,
    /// Most of them are.
    congested: bool,
    /// For how long.
    congested_for_s: u64,
}

/// Lists the links between regions that pairs use now.
#[utoipa::path(get, path = "/v1/network", responses((status = 200, body = Vec<LinkItem>)), security(("token" = [])))]
pub(crate) async fn links(State(hub): Shared, caller: Caller) -> Result<Json<Vec<LinkItem>>, ApiError> {
    caller.admin()?;
    let (state, now) = (hub.lock(), hub.clock.now());
    let links = state.center.links().iter().map(|l| LinkItem {
        from: l.from.clone(),
        to: l.to.clone(),
        pairs: l.pairs,
        congested_pairs: l.congested_pairs,
        congested: l.congested_since.is_some(),
        congested_for_s: l.congested_since.map_or(0, |t| now.since(t).0 / 1_000_000),
    });
    Ok(Json(links.collect()))
}
