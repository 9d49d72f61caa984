//! Connections between peers: accepting, dialling, and the streams on them.

use super::governor::read_datagrams;
use super::messages::{disk_failed, from_peer, linked, unlinked};
use super::pages;
use super::probes::answer;
use super::state::{self, Kept, Link, State};
use super::{Inner, live};
use crate::store::Written;
use bytes::{Bytes, BytesMut};
use headwater_model::assignment::Reach;
use headwater_model::id::{NodeId, Version};
use headwater_model::report::DialResult;
use headwater_model::time::Micros;
use headwater_peer_core::{Input, PieceFrom, PieceOutcome};
use headwater_transport::{Alpn, PeerConnection, ReadError, Reader, Writer, certificate_of, node_of};
use headwater_wire::frame::{LivePieceHeader, PEER_CONTROL_STREAM, PEER_DATA_STREAM, PEER_LIVE_STREAM, PieceHeader};
use headwater_wire::limits;
use headwater_wire::{DataHeader, FromNode, FromPeer, WireError};
use quinn::RecvStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Messages waiting for one peer; one that does not read so many is dropped.
pub(super) const MAX_WAITING: usize = 2048;
/// Handshakes of others in progress at once.
const MAX_HANDSHAKES: usize = 256;
/// Connections with one node whose hello has not come, at once.
const MAX_GREETING_PER_NODE: u32 = 8;
/// Application error code of a connection that another one with the same node makes superfluous.
const MERGED: u32 = 2;
/// Both ends' dials and hellos cross within this time. Later, an end that has no connection in use is believed.
const CROSSING: Micros = Micros::from_millis(1_500);
/// A dial that takes longer has failed.
const DIAL_PATIENCE: Duration = Duration::from_secs(6);
/// The hello must come within this time.
pub(super) const HELLO_PATIENCE: Duration = Duration::from_secs(5);
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
            let Ok(Ok(connection)) = tokio::time::timeout(DIAL_PATIENCE, incoming).await else { return };
            match Alpn::of(&connection) {
                // Who it is comes later.
                Some(Alpn::Page) => pages::serve(inner, connection, permit).await,
                Some(Alpn::Probe) => {
                    drop(permit);
                    answer(inner, connection).await;
                }
                _ => {
                    drop(permit);
                    serve(inner, connection.into()).await;
                }
            }
        });
    }
}

/// Dials a node after `wait`, unless it is connected by then: all its addresses at once. Of the connections that come
/// about one is kept, as with those that the other end dials.
pub(crate) fn dial(inner: &Arc<Inner>, state: &mut State, node: NodeId, reach: Reach, wait: Duration) {
    if state::is_linked(&state.links, &node, &reach) || !state.dialling.insert(node) {
        return;
    }
    let inner = inner.clone();
    tokio::spawn(async move {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
            let mut state = inner.lock();
            if state::is_linked(&state.links, &node, &reach) || state.leaving {
                state.dialling.remove(&node);
                return;
            }
        }
        let link = |state: &State| state.links.get(&node).map(|l| l.id);
        let before = link(&inner.lock());
        let failed = dial_all(&inner, node, &reach).await.err();
        let mut state = inner.lock();
        // The other end's dial may have come through.
        let failed = failed.filter(|_| link(&state).is_none() || link(&state) == before);
        state.tell_control(&FromNode::DialResult(DialResult { node, error: failed.clone() }));
        match failed {
            Some(why) => {
                state.dialling.remove(&node);
                state::happened_to_all(&inner, &mut state, || Input::Lost { node, why: why.clone() });
            }
            // Of two connections one is kept, which those who wait for this one may not have heard of.
            None if link(&state).is_some() => state::happened_to_all(&inner, &mut state, || Input::Connected(node)),
            None => {}
        }
    });
}

/// Dials all addresses; every connection is served. Returns at the first, or why there is none.
async fn dial_all(inner: &Arc<Inner>, node: NodeId, reach: &Reach) -> Result<(), String> {
    let (done, mut outcomes) = mpsc::channel(reach.addresses.len().max(1));
    for address in reach.addresses.iter().copied() {
        let (inner, done) = (inner.clone(), done.clone());
        tokio::spawn(async move {
            let dialling = inner.listener.dial(address, Some(node), Alpn::Peer);
            let (connection, outcome) = match tokio::time::timeout(DIAL_PATIENCE, dialling).await {
                Ok(Ok(connection)) => (Some(connection), Ok(())),
                Ok(Err(e)) => (None, Err(e.to_string())),
                Err(_) => (None, Err(format!("no answer from {address} within 6 s"))),
            };
            // Nobody waits for the later ones.
            let _ = done.send(outcome).await;
            drop(done);
            if let Some(connection) = connection {
                serve(inner, connection.into()).await;
            }
        });
    }
    drop(done);
    let mut problem = "it has no address that may be dialled".to_owned();
    while let Some(outcome) = outcomes.recv().await {
        match outcome {
            Ok(()) => return Ok(()),
            Err(why) => problem = why,
        }
    }
    Err(problem)
}

/// What the other end's hello says.
struct Greeting {
    nonce: [u8; 32],
    instance: u64,
    linked: bool,
}

/// Serves a connection until it ends.
async fn serve(inner: Arc<Inner>, connection: PeerConnection) {
    let Some((node, certificate)) = node_of(&connection).zip(certificate_of(&connection)) else {
        return connection.close(1u32.into(), b"no certificate");
    };
    let mut own_nonce = [0; 32];
    if getrandom::fill(&mut own_nonce).is_err() {
        return connection.close(1u32.into(), b"no randomness");
    }
    let Some((id, keeps, hello)) = begin(&inner, node, &connection, own_nonce) else {
        return connection.close(1u32.into(), b"too many connections");
    };
    let (to_peer, queue) = mpsc::channel(MAX_WAITING);
    let mut unsaid = Some((hello, queue));
    let say = |unsaid: &mut Option<(Bytes, mpsc::Receiver<Bytes>)>| {
        if let Some((hello, queue)) = unsaid.take() {
            tokio::spawn(write(connection.clone(), hello, queue));
        }
    };
    if keeps {
        say(&mut unsaid);
    }
    let greeted = tokio::time::timeout(HELLO_PATIENCE, hello_of(&connection)).await;
    greeting_over(&inner, node);
    let end = match greeted {
        Ok(Ok((_, theirs))) if !keep(&inner, node, id, &connection, &theirs) => {
            connection.close(MERGED.into(), b"connected already");
            End::Lost(String::new())
        }
        Ok(Ok((reader, theirs))) => {
            say(&mut unsaid);
            let back = to_peer.clone();
            let (their_nonce, used_at) = (theirs.nonce, inner.now());
            let their_certificate = certificate;
            let link = Link { id, connection: connection.clone(), to_peer, their_nonce, their_certificate, used_at };
            converse(&inner, node, link, &own_nonce, back, reader).await
        }
        Ok(Err(end)) => end,
        Err(_) => End::Lost("no hello".into()),
    };
    ended(&inner, node, id, &connection, &end);
}

/// A connection whose hello came is the one in use with its node: what happens on it, until it ends.
pub(super) async fn converse(
    inner: &Arc<Inner>,
    node: NodeId,
    link: Link,
    own_nonce: &[u8; 32],
    back: mpsc::Sender<Bytes>,
    reader: Reader,
) -> End {
    let connection = link.connection.clone();
    if let Some(former) = linked(inner, node, link) {
        former.close(MERGED.into(), b"a newer connection replaces it");
    }
    tokio::select! {
        end = read_messages(inner, node, own_nonce, back, reader) => end,
        end = read_pieces(inner, node, &connection) => end,
        end = read_datagrams(inner, node, &connection) => end,
    }
}

/// A connection is over.
pub(super) fn ended(inner: &Arc<Inner>, node: NodeId, id: u64, connection: &PeerConnection, end: &End) {
    let why = match end {
        End::Lost(why) | End::Rules(why) => why,
    };
    connection.close(1u32.into(), why.as_bytes());
    unlinked(inner, node, id, why);
    if let End::Rules(_) = end {
        let from = connection.remote_address().ip().to_canonical();
        state::happened_to_all(inner, &mut inner.lock(), || Input::Attacked(from));
    }
}

/// Why a connection ended.
pub(crate) enum End {
    /// It broke, or the other end closed it or is too slow.
    Lost(String),
    /// The other end does what no honest one does.
    Rules(String),
}

impl From<quinn::ConnectionError> for End {
    fn from(e: quinn::ConnectionError) -> Self {
        End::Lost(e.to_string())
    }
}
impl From<quinn::ReadExactError> for End {
    fn from(e: quinn::ReadExactError) -> Self {
        End::Lost(e.to_string())
    }
}
impl From<ReadError> for End {
    fn from(e: ReadError) -> Self {
        if matches!(e, ReadError::Frame(_)) { End::Rules(e.to_string()) } else { End::Lost(e.to_string()) }
    }
}
impl From<WireError> for End {
    fn from(e: WireError) -> Self {
        End::Rules(e.to_string())
    }
}

/// A new connection: its number, whether hello is said on it at once, and that hello. `None` when there are too many.
fn begin(inner: &Inner, node: NodeId, connection: &PeerConnection, nonce: [u8; 32]) -> Option<(u64, bool, Bytes)> {
    let mut state = inner.lock();
    let greeting = state.greeting.entry(node).or_default();
    if *greeting >= MAX_GREETING_PER_NODE {
        return None;
    }
    *greeting += 1;
    state.next_link += 1;
    let (id, at) = (state.next_link, inner.now());
    let keeps = !inner.keeps_one_with(&node) || !state.kept.contains_key(&node);
    if inner.keeps_one_with(&node) && keeps {
        state.kept.insert(node, Kept { id, connection: connection.clone(), at, instance: None });
    }
    let linked = state.links.contains_key(&node);
    let hello = FromPeer::Hello { protocol: limits::PROTOCOL, nonce, instance: inner.instance, linked }.encode();
    Some((id, keeps, hello))
}

fn greeting_over(inner: &Inner, node: NodeId) {
    let mut state = inner.lock();
    if let Some(n) = state.greeting.get_mut(&node) {
        *n -= 1;
        if *n == 0 {
            state.greeting.remove(&node);
        }
    }
}

/// Whether this connection stays, at the end that decides: the first one, unless it belonged to a process that is no
/// more, or the other end does not have it any more.
fn keep(inner: &Inner, node: NodeId, id: u64, connection: &PeerConnection, theirs: &Greeting) -> bool {
    if !inner.keeps_one_with(&node) {
        return true;
    }
    let mut state = inner.lock();
    let now = inner.now();
    if let Some(k) = state.kept.get_mut(&node) {
        if k.id == id {
            k.instance = Some(theirs.instance);
            return true;
        }
        let restarted = k.instance.is_some_and(|i| i != theirs.instance);
        let lost_there = !theirs.linked && now.since(k.at) > CROSSING;
        if !(restarted || lost_there || k.connection.close_reason().is_some()) {
            return false;
        }
        k.connection.close(MERGED.into(), b"a newer connection replaces it");
    }
    let kept = Kept { id, connection: connection.clone(), at: now, instance: Some(theirs.instance) };
    state.kept.insert(node, kept);
    true
}

/// Writes messages, the hello first.
pub(super) async fn write(connection: PeerConnection, hello: Bytes, mut queue: mpsc::Receiver<Bytes>) {
    let Ok(mut stream) = connection.open_uni().await else { return };
    // Messages go before pieces, and pieces of live streams before others.
    let _ = stream.set_priority(2);
    if stream.write_all(&[PEER_CONTROL_STREAM]).await.is_err() {
        return;
    }
    let mut writer = Writer(stream);
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
async fn hello_of(connection: &PeerConnection) -> Result<(Reader, Greeting), End> {
    let (reader, first) = first_message(connection).await?;
    match first {
        FromPeer::Hello { protocol: limits::PROTOCOL, nonce, instance, linked } => {
            Ok((reader, Greeting { nonce, instance, linked }))
        }
        FromPeer::Hello { protocol, .. } => Err(other_protocol(protocol)),
        _ => Err(End::Rules("it did not begin with a hello".into())),
    }
}

pub(super) fn other_protocol(protocol: u32) -> End {
    End::Lost(format!("it speaks protocol {protocol}, this node {}", limits::PROTOCOL))
}

/// The first message on the first stream, which is the control stream.
pub(super) async fn first_message(connection: &PeerConnection) -> Result<(Reader, FromPeer), End> {
    let mut stream = connection.accept_uni().await?;
    let mut kind = [0];
    stream.read_exact(&mut kind).await?;
    if kind[0] != PEER_CONTROL_STREAM {
        return Err(End::Rules("the first stream is not the control stream".into()));
    }
    let mut reader = Reader::new(stream, limits::MAX_PEER_FRAME_BYTES);
    let body = reader.next().await?.ok_or(End::Lost("no hello".into()))?;
    Ok((reader, FromPeer::decode(body)?))
}

/// Messages, until the stream ends or one is bad: why the connection ends.
async fn read_messages(
    inner: &Arc<Inner>,
    node: NodeId,
    own_nonce: &[u8; 32],
    back: mpsc::Sender<Bytes>,
    mut reader: Reader,
) -> End {
    loop {
        let message = match reader.next().await {
            Ok(Some(body)) => FromPeer::decode(body),
            Ok(None) => return End::Lost("closed".into()),
            Err(e) => return e.into(),
        };
        match message {
            Ok(message) => {
                if let Err(end) = from_peer(inner, node, own_nonce, &back, message) {
                    return end;
                }
            }
            Err(e) => return e.into(),
        }
    }
}

/// Data streams, until the connection ends: why.
async fn read_pieces(inner: &Arc<Inner>, node: NodeId, connection: &PeerConnection) -> End {
    let unwritten = Arc::new(Semaphore::new(MAX_UNWRITTEN_PIECES));
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_uni() => match stream {
                Ok(stream) => {
                    streams.spawn(read_stream(inner.clone(), node, stream, unwritten.clone()));
                }
                Err(e) => return e.into(),
            },
            Some(done) = streams.join_next() => match done {
                Ok(Ok(())) => {}
                Ok(Err(end)) => return end,
                Err(e) => return End::Lost(e.to_string()),
            },
        }
    }
}

/// What a data stream begins with; and whether it is of a live stream.
async fn data_header(stream: &mut RecvStream) -> Result<(DataHeader, bool), End> {
    let mut kind = [0];
    stream.read_exact(&mut kind).await?;
    if ![PEER_DATA_STREAM, PEER_LIVE_STREAM].contains(&kind[0]) {
        return Err(End::Rules("a second control stream".into()));
    }
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length);
    if length > limits::MAX_DATA_HEADER_FRAME_BYTES {
        return Err(End::Rules("a data header over its limit".into()));
    }
    let mut header = vec![0; length as usize];
    stream.read_exact(&mut header).await?;
    Ok((DataHeader::decode(header.into())?, kind[0] == PEER_LIVE_STREAM))
}

async fn read_stream(
    inner: Arc<Inner>,
    node: NodeId,
    mut stream: RecvStream,
    unwritten: Arc<Semaphore>,
) -> Result<(), End> {
    // Streams are counted by the transport; one that says nothing must not keep its place.
    let opened = tokio::time::timeout(HELLO_PATIENCE, data_header(&mut stream)).await;
    let (header, live) = opened.map_err(|_| End::Lost("a stream without a header".into()))??;
    let version = header.version;
    if live {
        return read_live(inner, node, stream, version).await;
    }
    let Some(layout) = inner.lock().running(version).map(|r| r.track.layout.clone()) else {
        // The content ended here while the stream was on its way.
        return Ok(());
    };
    let mut began = false;
    loop {
        let mut head = [0; PieceHeader::BYTES];
        if !filled(&mut stream, &mut head).await? {
            return Ok(());
        }
        let head = PieceHeader::decode(head)?;
        if head.len == 0 || head.len != layout.piece_len(head.piece) {
            return Err(End::Rules(format!("piece {} with {} bytes", head.piece, head.len)));
        }
        if !std::mem::replace(&mut began, true) {
            state::happened(&inner, &mut inner.lock(), version, Input::Began(node));
        }
        let mut buffer = inner.buffers.take(layout.piece_bytes() as usize);
        let body = buffer.whole().get_mut(..head.len as usize).ok_or(End::Rules("a piece over its limit".into()))?;
        if !filled(&mut stream, body).await? {
            return Ok(());
        }
        let data = buffer.freeze(0..head.len as usize);
        let Ok(permit) = unwritten.clone().acquire_owned().await else { return Ok(()) };
        // Not held while nothing comes: the store of a content that ended must be free for the next one at once, and a
        // dead parent's stream ends late.
        let Some(store) = inner.lock().running(version).map(|r| r.store.clone()) else { return Ok(()) };
        let inner = inner.clone();
        tokio::spawn(async move {
            store_piece(&inner, &store, version, PieceFrom::Parent(node), head.piece, data).await;
            drop(permit);
        });
    }
}

/// Pieces of a live stream, until it ends.
async fn read_live(inner: Arc<Inner>, node: NodeId, mut stream: RecvStream, version: Version) -> Result<(), End> {
    loop {
        let mut head = [0; LivePieceHeader::BYTES];
        if !filled(&mut stream, &mut head).await? {
            return Ok(());
        }
        let head = LivePieceHeader::decode(head)?;
        let Some(most) = live::may_push(&inner, version, &node) else { return Ok(()) };
        if head.len > most {
            return Err(End::Rules(format!("a piece of a stream with {} bytes", head.len)));
        }
        let mut buffer = BytesMut::zeroed(head.len as usize);
        if !filled(&mut stream, &mut buffer).await?
            || !live::piece_came(&inner, version, Some(node), head.piece, buffer.freeze())
        {
            return Ok(());
        }
    }
}

/// Fills `buffer`; false when the stream ends first: the parent closed the edge, not the connection, perhaps while a piece
/// waited for its turn.
async fn filled(stream: &mut RecvStream, buffer: &mut [u8]) -> Result<bool, End> {
    use quinn::{ReadError, ReadExactError};
    match stream.read_exact(buffer).await {
        Ok(()) => Ok(true),
        Err(ReadExactError::FinishedEarly(_) | ReadExactError::ReadError(ReadError::Reset(_))) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Verifies and stores a piece, and tells the swarm.
pub(crate) async fn store_piece(
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
