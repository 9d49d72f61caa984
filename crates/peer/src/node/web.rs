//! The session with the control center over a WebSocket, where QUIC does not get through.

use super::{Inner, is_loopback};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use headwater_model::Hash;
use headwater_transport::{Proved, Shows, https_client_config, prove_as_node};
use reqwest::StatusCode;
use reqwest::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use std::sync::Arc;
use std::time::Duration;

/// A connection, TLS, the upgrade and the proofs that take longer have failed.
const PATIENCE: Duration = Duration::from_secs(8);

/// Opens a WebSocket to the control center, by the proxy if there is one; both ends have proved who they are.
pub(super) async fn dial(inner: &Arc<Inner>) -> Result<Proved, String> {
    let control = &inner.config.control;
    let dialled = tokio::time::timeout(PATIENCE, async {
        match dial_at(inner, "https").await {
            // A control center that listens on loopback alone has no TLS.
            Err(_) if is_loopback(control) => dial_at(inner, "http").await,
            dialled => dialled,
        }
    });
    dialled.await.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}

async fn dial_at(inner: &Inner, scheme: &str) -> Result<Proved, String> {
    // What counts where the control center's key is known is its proof; else a certificate authority vouches for it.
    let wanted = if inner.config.control_id.is_some() { Shows::Any } else { Shows::Public };
    let (tls, shown) = https_client_config(wanted).map_err(|e| e.to_string())?;
    let words = |e: reqwest::Error| crate::origin::causes(&e.without_url());
    let client = inner.way.builder(false).map_err(words)?.tls_backend_preconfigured(tls).build().map_err(words)?;
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|e| e.to_string())?;
    let request = client
        .get(format!("{scheme}://{}/v1/session", inner.config.control))
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, STANDARD.encode(key));
    let response = request.send().await.map_err(words)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(format!("it answers with status {} to a WebSocket", response.status().as_u16()));
    }
    let io = response.upgrade().await.map_err(words)?;
    let tls = match scheme {
        "https" => shown.certificate().ok_or("TLS showed no certificate")?,
        _ => Hash([0; 32]),
    };
    let (identity, expected) = (inner.listener.identity(), inner.config.control_id);
    prove_as_node(Box::new(io), identity, expected, tls).await.map_err(|e| e.to_string())
}
