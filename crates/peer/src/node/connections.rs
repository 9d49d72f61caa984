//! Connections between peers: accepting, dialling, and the streams on them.

use super::Inner;
use super::messages::{disk_failed, from_peer, linked, unlinked};
use super::state::{self, Link, State};
use crate::buffer_pool::Pool;
use crate::store::Written;
use bytes::Bytes;
use headwater_model::assignment::Reach;
use headwater_model::id::{NodeId, Version};
use headwater_model::report::DialResult;
use headwater_peer_core::{Input, PieceFrom, PieceOutcome};
use headwater_transport::{Alpn, Reader, Writer, certificate_of, node_of};
use headwater_wire::frame::{PEER_CONTROL_STREAM, PEER_DATA_STREAM, PieceHeader};
use headwater_wire::limits;
use headwater_wire::{DataHeader, FromNode, FromPeer};
use quinn::{Connection, RecvStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Messages waiting for one peer; one that does not read so many is dropped.
const MAX_WAITING: usize = 2048;
/// Handshakes of others in progress at once.
const MAX_HANDSHAKES: usize = 256;
/// Connections with one node at once.
const MAX_LINKS_PER_NODE: usize = 3;
/// A dial that takes longer has failed.
const DIAL_PATIENCE: Duration = Duration::from_secs(6);
/// The hello must come within this time.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// Pieces of one connection that are being hashed and written; more wait on the wire.
const MAX_UNWRITTEN_PIECES: usize = 32;

/// Accepts connections for as long as the node runs.
pub(crate) async fn accept(inner: Arc<Inner>) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let incoming = tokio::select! {
            _ = inner.stopping.cancelled() => return,
            incoming = inner.listener.endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        let Ok(permit) = handshakes.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let inner = inner.clone();
        tokio::spawn(async move {
            let done = tokio::time::timeout(DIAL_PATIENCE, incoming).await;
            drop(permit);
            if let Ok(Ok(connection)) = done {
                serve(inner, connection).await;
            }
        });
    }
}

/// Dials a node after `wait`, unless it is connected by then; all its addresses at once, the first to answer counts.
pub(crate) fn dial(inner: &Arc<Inner>, state: &mut State, node: NodeId, reach: Reach, wait: Duration) {
    if state.links.contains_key(&node) || !state.dialling.insert(node) {
        return;
    }
    let inner = inner.clone();
    tokio::spawn(async move {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
            let mut state = inner.lock();
            if state.links.contains_key(&node) || state.leaving {
                state.dialling.remove(&node);
                return;
            }
        }
        let dialled = tokio::time::timeout(DIAL_PATIENCE, dial_any(&inner, node, &reach)).await;
        let result = match dialled {
            Ok(Ok(connection)) => {
                report(&inner, node, None);
                // `linked` takes it off the list of dials.
                return serve(inner, connection).await;
            }
            Ok(Err(why)) => why,
            Err(_) => "no answer within 6 s".into(),
        };
        report(&inner, node, Some(result.clone()));
        let mut state = inner.lock();
        state.dialling.remove(&node);
        if !state.links.contains_key(&node) {
            let why = result;
            state::happened_to_all(&inner, &mut state, || Input::Lost { node, why: why.clone() });
        }
    });
}

async fn dial_any(inner: &Arc<Inner>, node: NodeId, reach: &Reach) -> Result<Connection, String> {
    let mut dials = JoinSet::new();
    for address in reach.addresses.iter().copied() {
        let inner = inner.clone();
        dials.spawn(async move { inner.listener.dial(address, Some(node), Alpn::Peer).await });
    }
    let mut problem = "it has no address that may be dialled".to_owned();
    while let Some(done) = dials.join_next().await {
        match done {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(e)) => problem = e.to_string(),
            Err(e) => problem = e.to_string(),
        }
    }
    Err(problem)
}

fn report(inner: &Inner, node: NodeId, error: Option<String>) {
    inner.lock().tell_control(&FromNode::DialResult(DialResult { node, error }));
}

/// Serves a connection until it ends.
async fn serve(inner: Arc<Inner>, connection: Connection) {
    let Some((node, certificate)) = node_of(&connection).zip(certificate_of(&connection)) else {
        return connection.close(1u32.into(), b"no certificate");
    };
    let own_nonce: [u8; 32] = {
        let mut nonce = [0; 32];
        if getrandom::fill(&mut nonce).is_err() {
            return connection.close(1u32.into(), b"no randomness");
        }
        nonce
    };
    let id = {
        let mut state = inner.lock();
        if state.links.get(&node).is_some_and(|l| l.len() >= MAX_LINKS_PER_NODE) {
            state.dialling.remove(&node);
            return connection.close(0u32.into(), b"connected already");
        }
        state.next_link += 1;
        state.next_link
    };
    let (to_peer, queue) = mpsc::channel(MAX_WAITING);
    tokio::spawn(write(connection.clone(), own_nonce, queue));
    let why = match tokio::time::timeout(HELLO_PATIENCE, hello(&connection)).await {
        Ok(Ok((reader, their_nonce))) => {
            let used_at = inner.now();
            let their_certificate = certificate;
            let back = to_peer.clone();
            let link = Link { id, connection: connection.clone(), to_peer, their_nonce, their_certificate, used_at };
            linked(&inner, node, link);
            let why = tokio::select! {
                why = read_messages(&inner, node, &own_nonce, back, reader) => why,
                why = read_pieces(&inner, node, &connection) => why,
            };
            connection.close(1u32.into(), why.as_bytes());
            why
        }
        Ok(Err(why)) => {
            connection.close(1u32.into(), why.as_bytes());
            why
        }
        Err(_) => {
            connection.close(1u32.into(), b"no hello");
            "no hello".into()
        }
    };
    inner.lock().dialling.remove(&node);
    unlinked(&inner, node, id, &why);
}

/// Writes messages, the hello first.
async fn write(connection: Connection, nonce: [u8; 32], mut queue: mpsc::Receiver<Bytes>) {
    let Ok(mut stream) = connection.open_uni().await else { return };
    // Messages go before pieces.
    let _ = stream.set_priority(1);
    if stream.write_all(&[PEER_CONTROL_STREAM]).await.is_err() {
        return;
    }
    let mut writer = Writer(stream);
    let hello = FromPeer::Hello { protocol: limits::PROTOCOL, nonce }.encode();
    if writer.send(hello).await.is_err() {
        return;
    }
    while let Some(frame) = queue.recv().await {
        if writer.send(frame).await.is_err() {
            return;
        }
    }
}

/// The first stream is the control stream, its first message the hello.
async fn hello(connection: &Connection) -> Result<(Reader, [u8; 32]), String> {
    let mut stream = connection.accept_uni().await.map_err(|e| e.to_string())?;
    let mut kind = [0];
    stream.read_exact(&mut kind).await.map_err(|e| e.to_string())?;
    if kind[0] != PEER_CONTROL_STREAM {
        return Err("the first stream is not the control stream".into());
    }
    let mut reader = Reader::new(stream, limits::MAX_PEER_FRAME_BYTES);
    let body = reader.next().await.map_err(|e| e.to_string())?.ok_or("no hello")?;
    match FromPeer::decode(body).map_err(|e| e.to_string())? {
        FromPeer::Hello { protocol: limits::PROTOCOL, nonce } => Ok((reader, nonce)),
        FromPeer::Hello { protocol, .. } => {
            Err(format!("it speaks protocol {protocol}, this node {}", limits::PROTOCOL))
        }
        _ => Err("it did not begin with a hello".into()),
    }
}

/// Messages, until the stream ends or one is bad: the reason.
async fn read_messages(
    inner: &Arc<Inner>,
    node: NodeId,
    own_nonce: &[u8; 32],
    back: mpsc::Sender<Bytes>,
    mut reader: Reader,
) -> String {
    loop {
        let message = match reader.next().await {
            Ok(Some(body)) => FromPeer::decode(body),
            Ok(None) => return "closed".into(),
            Err(e) => return e.to_string(),
        };
        match message {
            Ok(message) => {
                if let Err(why) = from_peer(inner, node, own_nonce, &back, message) {
                    return why.into();
                }
            }
            Err(e) => return e.to_string(),
        }
    }
}

/// Data streams, until the connection ends: the reason.
async fn read_pieces(inner: &Arc<Inner>, node: NodeId, connection: &Connection) -> String {
    let unwritten = Arc::new(Semaphore::new(MAX_UNWRITTEN_PIECES));
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_uni() => match stream {
                Ok(stream) => {
                    streams.spawn(read_stream(inner.clone(), node, stream, unwritten.clone()));
                }
                Err(e) => return e.to_string(),
            },
            Some(done) = streams.join_next() => match done {
                Ok(Ok(())) => {}
                Ok(Err(why)) => return why,
                Err(e) => return e.to_string(),
            },
        }
    }
}

async fn read_stream(
    inner: Arc<Inner>,
    node: NodeId,
    mut stream: RecvStream,
    unwritten: Arc<Semaphore>,
) -> Result<(), String> {
    let mut kind = [0];
    stream.read_exact(&mut kind).await.map_err(|e| e.to_string())?;
    if kind[0] != PEER_DATA_STREAM {
        return Err("a second control stream".into());
    }
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.map_err(|e| e.to_string())?;
    let length = u32::from_be_bytes(length);
    if length > limits::MAX_DATA_HEADER_FRAME_BYTES {
        return Err("a data header over its limit".into());
    }
    let mut header = vec![0; length as usize];
    stream.read_exact(&mut header).await.map_err(|e| e.to_string())?;
    let version = DataHeader::decode(header.into()).map_err(|e| e.to_string())?.version;
    let Some((store, layout)) = inner.lock().running(version).map(|r| (r.store.clone(), r.track.layout.clone())) else {
        // The content ended here while the stream was on its way.
        return Ok(());
    };
    let pool = Arc::new(Pool::new(layout.piece_bytes() as usize));
    loop {
        let mut head = [0; PieceHeader::BYTES];
        match stream.read_exact(&mut head).await {
            Ok(()) => {}
            Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(()),
            // The parent closed the edge, not the connection.
            Err(quinn::ReadExactError::ReadError(quinn::ReadError::Reset(_))) => return Ok(()),
            Err(e) => return Err(e.to_string()),
        }
        let head = PieceHeader::decode(head).map_err(|e| e.to_string())?;
        if head.len == 0 || head.len != layout.piece_len(head.piece) {
            return Err(format!("piece {} with {} bytes", head.piece, head.len));
        }
        let mut buffer = pool.take();
        let body = buffer.whole().get_mut(..head.len as usize).ok_or("a piece over its limit")?;
        match stream.read_exact(body).await {
            Ok(()) => {}
            Err(quinn::ReadExactError::ReadError(quinn::ReadError::Reset(_))) => return Ok(()),
            Err(e) => return Err(e.to_string()),
        }
        let data = buffer.freeze(head.len as usize);
        let Ok(permit) = unwritten.clone().acquire_owned().await else { return Ok(()) };
        let (inner, store) = (inner.clone(), store.clone());
        tokio::spawn(async move {
            keep(&inner, &store, version, PieceFrom::Parent(node), head.piece, data).await;
            drop(permit);
        });
    }
}

/// Verifies and stores a piece, and tells the swarm.
pub(crate) async fn keep(
    inner: &Arc<Inner>,
    store: &crate::store::StoreHandle,
    version: Version,
    from: PieceFrom,
    piece: u32,
    data: Bytes,
) {
    let outcome = match store.write(piece, data).await {
        Ok(Written::Stored) => PieceOutcome::Stored,
        Ok(Written::Already) => PieceOutcome::Already,
        Ok(Written::Bad) => PieceOutcome::Bad,
        // Pieces are asked for only when their hashes are here: this one was not asked for.
        Ok(Written::NoHash) => return,
        Err(e) => return disk_failed(inner, version, e),
    };
    state::piece(inner, &mut inner.lock(), version, from, piece, outcome);
}
