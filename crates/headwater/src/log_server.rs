//! Gives a live stream's log by HTTP: who reaches no control center begins with it, from the origin.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use headwater_model::ContentId;
use headwater_peer::node::Node;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

/// Where it is given.
const PATH: &str = "/live.hwlog";

#[derive(Deserialize)]
struct Asked {
    /// Entries after this number only.
    #[serde(default)]
    after: u64,
}

/// Listens at `address`; the address that viewers use, which is `public` where that is said.
///
/// # Errors
/// If it cannot listen there.
pub async fn start(
    address: SocketAddr,
    public: Option<Url>,
    node: Node,
    content: ContentId,
    stop: CancellationToken,
) -> Result<Url> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
    let own: Url = format!("http://{}{PATH}", listener.local_addr()?).parse()?;
    let router = Router::new().route(PATH, get(give)).with_state((node, content));
    tokio::spawn(axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).into_future());
    Ok(public.unwrap_or(own))
}

async fn give(State((node, content)): State<(Node, ContentId)>, Query(asked): Query<Asked>) -> Response {
    match node.live_log(&content, asked.after) {
        // A cache before it spares this machine viewers who ask within the same second. Pages of any site may read it.
        Some(log) => {
            let fields = [
                (CONTENT_TYPE, "application/octet-stream"),
                (CACHE_CONTROL, "max-age=1"),
                (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            ];
            (fields, log).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
