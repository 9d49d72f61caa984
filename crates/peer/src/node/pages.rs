//! Pages in browsers that connect to this node: they say hello after it does, and prove in band who they are.

use super::Inner;
use super::connections::{self, End, HELLO_PATIENCE, MAX_WAITING};
use super::state::Link;
use bytes::Bytes;
use headwater_model::id::{Hash, NodeId};
use headwater_transport::{PeerConnection, Reader, prove_page};
use headwater_wire::web::page_covered;
use headwater_wire::{FromNode, FromPeer, limits};
use quinn::Connection;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Who a page is, and what it says first.
struct Greeting {
    node: NodeId,
    nonce: [u8; 32],
    key: Hash,
    reader: Reader,
}

/// Serves a page's connection until it ends; `place` is held until it is known who it is.
pub(super) async fn serve(inner: Arc<Inner>, connection: Connection, place: OwnedSemaphorePermit) {
    let remote = connection.remote_address();
    let connection = match PeerConnection::of_page(connection.clone()).await {
        Ok(page) => page,
        Err(e) => {
            tracing::debug!("a page at {remote} does not connect: {e}");
            return connection.close(1u32.into(), e.to_string().as_bytes());
        }
    };
    let mut own_nonce = [0; 32];
    if getrandom::fill(&mut own_nonce).is_err() {
        return connection.close(1u32.into(), b"no randomness");
    }
    let (to_peer, queue) = mpsc::channel(MAX_WAITING);
    let instance = inner.instance;
    let hello = FromPeer::Hello { protocol: limits::PROTOCOL, nonce: own_nonce, instance, linked: false }.encode();
    tokio::spawn(connections::write(connection.clone(), hello, queue));
    let greeted = tokio::time::timeout(HELLO_PATIENCE, greeting(&inner, &connection, &own_nonce)).await;
    drop(place);
    let greeting = match greeted {
        Ok(Ok(greeting)) => greeting,
        Ok(Err(End::Lost(why) | End::Rules(why))) => {
            tracing::debug!("a page at {remote} is sent away: {why}");
            return connection.close(1u32.into(), why.as_bytes());
        }
        Err(_) => return connection.close(1u32.into(), b"no hello"),
    };
    run(inner, connection, to_peer, greeting, own_nonce).await;
}

async fn run(
    inner: Arc<Inner>,
    connection: PeerConnection,
    to_peer: mpsc::Sender<Bytes>,
    greeting: Greeting,
    own_nonce: [u8; 32],
) {
    let Greeting { node, nonce: their_nonce, key: their_certificate, reader } = greeting;
    let id = {
        let mut state = inner.lock();
        state.next_link += 1;
        state.next_link
    };
    let (back, used_at) = (to_peer.clone(), inner.now());
    let link = Link { id, connection: connection.clone(), to_peer, their_nonce, their_certificate, used_at };
    let end = connections::converse(&inner, node, link, &own_nonce, back, reader).await;
    connections::ended(&inner, node, id, &connection, &end);
}

async fn greeting(inner: &Inner, connection: &PeerConnection, own_nonce: &[u8; 32]) -> Result<Greeting, End> {
    let (reader, first) = connections::first_message(connection).await?;
    let FromPeer::PageHello { protocol, nonce, key, signature, .. } = first else {
        return Err(End::Rules("it did not begin with a page's hello".into()));
    };
    if protocol != limits::PROTOCOL {
        return Err(connections::other_protocol(protocol));
    }
    let covered = page_covered(own_nonce, &nonce, &inner.listener.identity().node);
    let node = prove_page(&key, &covered, &signature).map_err(|e| End::Rules(e.to_string()))?;
    Ok(Greeting { node, nonce, key: Hash::of(&[&key]), reader })
}

/// Shows pages another certificate when it is time, for as long as the node runs.
pub(super) async fn keep_certificates(inner: Arc<Inner>) {
    let Some(pages) = inner.listener.pages().cloned() else { return };
    let rotated = || inner.lock().tell_control(&FromNode::PageCertificates(inner.page_certificates()));
    tokio::select! {
        () = inner.stopping.cancelled() => {}
        () = pages.keep(rotated) => {}
    }
}
