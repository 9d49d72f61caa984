//! Connections and half-open streams, by the thousand, to one peer.

use crate::Setup;
use crate::story::Story;
use crate::wires;
use headwater_model::assignment::Reach;
use headwater_model::{NodeId, Version};
use headwater_transport::Alpn;
use headwater_wire::frame::{PEER_DATA_STREAM, PieceHeader};
use headwater_wire::{DataHeader, FromPeer};
use quinn::{Connection, SendStream};
use std::sync::Arc;
use std::time::Duration;

/// Streams of one connection; the other end permits a few more.
const STREAMS: usize = 290;
/// Connections under one identity: a peer takes no more of one node.
const CONNECTIONS_PER_IDENTITY: usize = 3;
/// Opening a stream takes longer only where no more are permitted.
const PATIENCE: Duration = Duration::from_secs(2);

/// Opens them and holds them until the peer ends the connection.
pub async fn attack(setup: Arc<Setup>, story: Story, node: NodeId, reach: Reach, version: Version) {
    let mut listener = None;
    for number in 0..setup.connections {
        if number % CONNECTIONS_PER_IDENTITY == 0 {
            listener = setup.stranger().ok();
        }
        let (Some(from), Some(at)) = (listener.clone(), reach.addresses.first().copied()) else { return };
        match tokio::time::timeout(PATIENCE, from.dial(at, Some(node), Alpn::Peer)).await {
            Ok(Ok(connection)) => {
                story.count("connections", 1);
                story.harm(node, "half-open streams");
                tokio::spawn(hold(setup.clone(), story.clone(), node, connection, version, number));
            }
            Ok(Err(e)) => story.refused(node, "connection", &e.to_string()),
            Err(_) => story.refused(node, "connection", "no answer"),
        }
    }
}

async fn hold(
    setup: Arc<Setup>,
    story: Story,
    node: NodeId,
    connection: Connection,
    version: Version,
    number: usize,
) -> Option<()> {
    // Every eighth connection says no hello.
    let greeting = if number % 8 == 7 { None } else { wires::greet(&connection.clone().into()).await.ok() };
    let mut streams = Vec::new();
    for n in 0..STREAMS {
        match tokio::time::timeout(PATIENCE, half_open(&setup, &connection, version, n)).await {
            Ok(Ok(stream)) => streams.push(stream),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    story.count("streams", streams.len() as u64);
    // Two in eight go on to what no reader can accept: a length past all limits, and a second hello.
    if number % 8 == 5 {
        let mut stream = connection.open_uni().await.ok()?;
        let _ = stream.write_all(&[PEER_DATA_STREAM, 0xff, 0xff, 0xff, 0xff]).await;
        streams.push(stream);
    }
    let mut greeting = greeting;
    if number % 8 == 6
        && let Some(writer) = &mut greeting
    {
        let _ = writer
            .send(
                FromPeer::Hello { protocol: headwater_wire::PROTOCOL, nonce: [0; 32], instance: 1, linked: false }
                    .encode(),
            )
            .await;
    }
    let why = connection.closed().await;
    story.left_by(node, &format!("connection with {} streams: {why}", streams.len()));
    Some(())
}

/// A stream that stops where its reader must wait: after its first byte, in its header, or within a piece.
async fn half_open(
    setup: &Setup,
    connection: &Connection,
    version: Version,
    n: usize,
) -> Result<SendStream, quinn::WriteError> {
    let mut stream = connection.open_uni().await?;
    let header = DataHeader { version }.encode();
    match n % 4 {
        0 => stream.write_all(&[PEER_DATA_STREAM]).await?,
        1 => {
            stream.write_all(&[PEER_DATA_STREAM]).await?;
            stream.write_all(&header[..header.len() / 2]).await?;
        }
        // The reader has made room for a piece by then.
        _ => {
            stream.write_all(&[PEER_DATA_STREAM]).await?;
            stream.write_all(&header).await?;
            let len = setup.piece_bytes.load(std::sync::atomic::Ordering::Relaxed);
            stream.write_all(&PieceHeader { piece: 0, len }.encode()).await?;
            stream.write_all(&[0]).await?;
        }
    }
    Ok(stream)
}
