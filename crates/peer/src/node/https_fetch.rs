//! Fetching leased runs from a waypoint by HTTPS, for nodes that UDP does not reach.

use super::Inner;
use super::state::Running;
use crate::downlink::Downlink;
use crate::origin::causes;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use headwater_model::assignment::Reach;
use headwater_model::id::{NodeId, Version};
use headwater_model::{Hash, Ticket};
use headwater_transport::{Shows, https_client_config};
use headwater_wire::GivenTicket;
use headwater_wire::web::{HttpsTicket, https_nonce};
use reqwest::StatusCode;
use reqwest::header::AUTHORIZATION;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Clients kept, one for each waypoint.
const MAX_CLIENTS: usize = 32;
/// Most time for a connection, without an answer, and without a byte.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(15);
/// Most bytes of a refusal in words that are read.
const MAX_WHY_BYTES: usize = 256;

/// Why a waypoint did not give pieces.
#[derive(Debug, thiserror::Error)]
pub(super) enum WaypointError {
    /// This node's own access list forbids it.
    #[error("no address of it is on this node's access list (--sources)")]
    NotListed,
    /// The control center gave none.
    #[error("there is no ticket for it")]
    NoTicket,
    /// Nothing, or something else than HTTP.
    #[error("{0}")]
    NoAnswer(String),
    /// It refuses.
    #[error("it answers with status {0}: {1}")]
    Refused(u16, String),
    /// Nothing came for too long.
    #[error("it fell silent")]
    Silent,
    /// The body has another length.
    #[error("it sent {got} of {wanted} bytes")]
    Length {
        /// Bytes that came.
        got: u64,
        /// Bytes asked for.
        wanted: u64,
    },
}

/// HTTP clients by waypoint: each believes only the certificate of its own.
#[derive(Default)]
pub(crate) struct Clients(Mutex<BTreeMap<NodeId, (Hash, reqwest::Client)>>);

/// The path of some pieces at a waypoint.
pub(super) fn path_of(version: Version, pieces: &Range<u32>) -> String {
    format!("/v1/contents/{}/{}/pieces/{}-{}", version.content, version.epoch, pieces.start, pieces.end)
}

/// A waypoint that pieces of one content may be fetched from.
pub(super) struct Waypoint {
    pub(super) node: NodeId,
    addresses: Arc<[SocketAddr]>,
    certificate: Hash,
    ticket: GivenTicket,
    client: reqwest::Client,
    downlink: Arc<Downlink>,
}

impl Waypoint {
    pub(super) fn new(inner: &Inner, r: &Running, node: NodeId, reach: Reach) -> Result<Waypoint, WaypointError> {
        let reach = inner.config.sources.permit_reach(reach);
        if reach.addresses.is_empty() {
            return Err(WaypointError::NotListed);
        }
        let ticket = r.tickets.get(&node).cloned().ok_or(WaypointError::NoTicket)?;
        let client = client_of(inner, node, reach.certificate)?;
        Ok(Waypoint {
            node,
            addresses: reach.addresses,
            certificate: reach.certificate,
            ticket,
            client,
            downlink: inner.downlink.clone(),
        })
    }

    /// Fetches `pieces`, `bytes` in all.
    pub(super) async fn fetch(
        &self,
        version: Version,
        pieces: Range<u32>,
        bytes: u64,
        mut sink: impl FnMut(Bytes),
    ) -> Result<(), WaypointError> {
        let path = path_of(version, &pieces);
        let proof = Ticket::prove(&self.ticket.secret.0, &https_nonce(&path), &self.certificate);
        let shown = HttpsTicket { ticket: self.ticket.ticket.clone(), proof }.encode();
        let mut shown = reqwest::header::HeaderValue::try_from(format!("Headwater {}", URL_SAFE_NO_PAD.encode(shown)))
            .map_err(|e| WaypointError::NoAnswer(e.to_string()))?;
        shown.set_sensitive(true);
        let mut response = self.ask(&path, &shown).await?;
        if response.status() != StatusCode::OK {
            let status = response.status().as_u16();
            let chunk = tokio::time::timeout(IDLE, response.chunk()).await;
            let why = chunk.ok().and_then(Result::ok).flatten().unwrap_or_default();
            let why = String::from_utf8_lossy(&why[..why.len().min(MAX_WHY_BYTES)]).into_owned();
            return Err(WaypointError::Refused(status, why));
        }
        let mut got = 0;
        loop {
            let chunk = tokio::time::timeout(IDLE, response.chunk()).await.map_err(|_| WaypointError::Silent)?;
            match chunk.map_err(no_answer)? {
                Some(chunk) if got + chunk.len() as u64 <= bytes => {
                    got += chunk.len() as u64;
                    let len = chunk.len() as u64;
                    sink(chunk);
                    self.downlink.read(len).await;
                }
                None if got == bytes => return Ok(()),
                Some(_) | None => return Err(WaypointError::Length { got, wanted: bytes }),
            }
        }
    }

    /// The first of its addresses that answers.
    async fn ask(&self, path: &str, shown: &reqwest::header::HeaderValue) -> Result<reqwest::Response, WaypointError> {
        let mut problem = WaypointError::NotListed;
        for address in &*self.addresses {
            let request = self.client.get(format!("https://{address}{path}")).header(AUTHORIZATION, shown);
            match tokio::time::timeout(CONNECT_WITHIN + ANSWER_WITHIN, request.send()).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(e)) => problem = no_answer(e),
                Err(_) => problem = WaypointError::Silent,
            }
        }
        Err(problem)
    }
}

fn no_answer(e: reqwest::Error) -> WaypointError {
    WaypointError::NoAnswer(causes(&e.without_url()))
}

fn client_of(inner: &Inner, node: NodeId, certificate: Hash) -> Result<reqwest::Client, WaypointError> {
    let mut clients = inner.https_clients.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, client)) = clients.get(&node).filter(|(known, _)| *known == certificate) {
        return Ok(client.clone());
    }
    let (tls, _) = https_client_config(Shows::This(certificate)).map_err(|e| WaypointError::NoAnswer(e.to_string()))?;
    let builder = inner.way.builder(true).map_err(no_answer)?;
    let client = builder.connect_timeout(CONNECT_WITHIN).tls_backend_preconfigured(tls).build().map_err(no_answer)?;
    if clients.len() >= MAX_CLIENTS {
        clients.pop_first();
    }
    clients.insert(node, (certificate, client.clone()));
    Ok(client)
}
