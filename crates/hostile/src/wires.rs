//! The real protocol's connections, without the product's caution: the control session and the links with peers. What
//! comes over them goes to one queue.

use crate::Setup;
use crate::story::unix_ms;
use bytes::Bytes;
use headwater_model::assignment::Reach;
use headwater_model::report::Introduction;
use headwater_model::{Accepts, Capabilities, Hash, NodeId, Rate, Role, Version};
use headwater_transport::{Alpn, Listener, PeerConnection, Reader, Writer, certificate_of, node_of, prove_page};
use headwater_wire::frame::{PEER_CONTROL_STREAM, PEER_DATA_STREAM, PieceHeader};
use headwater_wire::web::page_covered;
use headwater_wire::{DataHeader, FromControl, FromNode, FromPeer, Hello, Token, Welcome, limits};
use quinn::{Connection, RecvStream};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Messages waiting for one receiver.
const MAX_WAITING: usize = 4096;
/// Handshakes that take longer have failed.
const PATIENCE: Duration = Duration::from_secs(6);
/// Application error code of a connection that another one with the same node makes superfluous.
const MERGED: u32 = 2;
/// Tickets are shown over it; a hostile peer checks none.
const NONCE: [u8; 32] = [7; 32];

/// What came over the wires.
pub enum Event {
    /// The control center spoke.
    Control(FromControl),
    /// The session ended.
    ControlGone(String),
    /// A connection with a peer, its hello received.
    Linked(NodeId, Link),
    /// It ended.
    Unlinked(NodeId, u64, String),
    /// A dial failed.
    NotLinked(NodeId),
    /// A peer spoke, over the link of this number.
    Peer(NodeId, FromPeer),
    /// A piece came.
    Piece(NodeId, Version, u32, Bytes),
    /// A leased run came from the origin, in pieces; or why not.
    Run(u32, Result<Vec<(u32, Bytes)>, String>),
    /// Bytes went out to a child.
    Sent(NodeId, u64),
}

/// Where events go.
pub type Events = mpsc::UnboundedSender<Event>;

/// Nodes with a connection that this end keeps. Of two with the same node the one with the lower id keeps the first, like
/// the product: a liar that lets connections replace each other would lose its victims without their doing.
pub type Kept = Arc<Mutex<BTreeSet<NodeId>>>;

/// A connection with a peer.
#[derive(Clone)]
pub struct Link {
    /// Unique.
    pub id: u64,
    /// It.
    pub connection: PeerConnection,
    /// Frames to send.
    pub out: mpsc::Sender<Bytes>,
    /// The other end's nonce.
    pub nonce: [u8; 32],
    /// The other end's certificate.
    pub certificate: Hash,
}

/// The hello of a peer that says about itself what `setup.kind` wants said.
pub fn hello(setup: &Setup) -> Hello {
    let victim = setup.victim.into_iter().cycle().take(if setup.victim.is_some() { limits::MAX_ADDRESSES } else { 0 });
    Hello {
        protocol: limits::PROTOCOL,
        introduction: Introduction {
            role: Role::Peer,
            capabilities: Capabilities::regular(Accepts::Open),
            up: setup.kind.up(),
            down: Rate(0),
            client: setup.victim.map_or_else(|| "hostile".to_owned(), |v| v.to_string()),
            https_port: None,
            local_addresses: victim.collect(),
        },
        join_token: Token(String::new()),
        control_epoch_seen: 0,
        local_unix_ms: unix_ms(),
        page_certificates: setup.listener.pages().map(|p| p.hashes().to_vec()).unwrap_or_default(),
    }
}

/// A session, begun: the welcome, frames to send, and what is read.
pub struct Session {
    /// The connection.
    pub connection: Connection,
    /// The control center's answer.
    pub welcome: Welcome,
    /// Writes to it.
    pub writer: Writer,
    /// Reads from it.
    pub reader: Reader,
}

/// Dials the control center from `listener` and says `hello`.
pub async fn session(setup: &Setup, listener: &Listener, hello: Hello) -> Result<Session, String> {
    let begun = async {
        let connection = listener.dial(setup.control, setup.cc, Alpn::Control).await.map_err(|e| e.to_string())?;
        let (send, receive) = connection.open_bi().await.map_err(|e| e.to_string())?;
        let (mut writer, mut reader) = (Writer(send), Reader::new(receive, limits::MAX_CONTROL_FRAME_BYTES));
        writer.send(FromNode::Hello(hello).encode()).await.map_err(|e| e.to_string())?;
        let body = reader.next().await.map_err(|e| e.to_string())?.ok_or("it closed the session at once")?;
        match FromControl::decode(body).map_err(|e| e.to_string())? {
            FromControl::Welcome(welcome) => Ok(Session { connection, welcome, writer, reader }),
            FromControl::Goodbye { why, .. } => Err(why),
            _ => Err("it did not begin with a welcome".into()),
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap_or_else(|_| Err("no answer".into()))
}

/// Passes what the control center says on to `events`; the returned queue is sent to it.
pub fn converse(session: Session, events: Events) -> (Welcome, mpsc::Sender<Bytes>) {
    let (out, mut queue) = mpsc::channel::<Bytes>(MAX_WAITING);
    let Session { connection, welcome, mut writer, mut reader } = session;
    tokio::spawn(async move {
        while let Some(frame) = queue.recv().await {
            if writer.send(frame).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        let why = loop {
            match reader.next().await {
                // What a later version says is no reason to go.
                Ok(Some(body)) => match FromControl::decode(body) {
                    Ok(FromControl::Goodbye { why, .. }) => break why,
                    Ok(message) => drop(events.send(Event::Control(message))),
                    Err(_) => {}
                },
                Ok(None) => break "it closed the session".to_owned(),
                Err(e) => break e.to_string(),
            }
        };
        connection.close(0u32.into(), b"");
        let _ = events.send(Event::ControlGone(why));
    });
    (welcome, out)
}

/// Accepts peers' connections, and pages'.
pub async fn accept(listener: Listener, kept: Kept, events: Events) {
    while let Some(incoming) = listener.endpoint.accept().await {
        let (own, kept, events) = (listener.identity().node, kept.clone(), events.clone());
        tokio::spawn(async move {
            let Ok(Ok(connection)) = tokio::time::timeout(PATIENCE, incoming).await else { return };
            if Alpn::of(&connection) != Some(Alpn::Page) {
                keep_one(own, connection, &kept, events).await;
            } else if let Ok(page) = PeerConnection::of_page(connection).await {
                serve_page(own, page, events).await;
            }
        });
    }
}

/// Dials a peer at all its addresses after `wait`.
pub fn dial(listener: &Listener, node: NodeId, reach: Reach, wait: Duration, kept: &Kept, events: Events) {
    let (listener, kept) = (listener.clone(), kept.clone());
    tokio::spawn(async move {
        tokio::time::sleep(wait).await;
        for address in reach.addresses.iter().copied() {
            let dialled = tokio::time::timeout(PATIENCE, listener.dial(address, Some(node), Alpn::Peer)).await;
            if let Ok(Ok(connection)) = dialled {
                return keep_one(listener.identity().node, connection, &kept, events).await;
            }
        }
        let _ = events.send(Event::NotLinked(node));
    });
}

/// Opens this end's control stream: says hello.
pub async fn greet(connection: &PeerConnection) -> Result<Writer, quinn::WriteError> {
    let mut send = connection.open_uni().await?;
    let _ = send.set_priority(1);
    send.write_all(&[PEER_CONTROL_STREAM]).await?;
    let mut writer = Writer(send);
    writer
        .send(FromPeer::Hello { protocol: limits::PROTOCOL, nonce: NONCE, instance: 1, linked: false }.encode())
        .await?;
    Ok(writer)
}

/// Waits for the other end's hello: its messages, and its nonce.
pub async fn greeted(connection: &PeerConnection) -> Result<(Reader, [u8; 32]), String> {
    match first_message(connection).await? {
        (reader, FromPeer::Hello { nonce, .. }) => Ok((reader, nonce)),
        _ => Err("it did not begin with a hello".into()),
    }
}

async fn first_message(connection: &PeerConnection) -> Result<(Reader, FromPeer), String> {
    let mut receive = connection.accept_uni().await.map_err(|e| e.to_string())?;
    let mut kind = [0];
    receive.read_exact(&mut kind).await.map_err(|e| e.to_string())?;
    let mut reader = Reader::new(receive, limits::MAX_PEER_FRAME_BYTES);
    let body = reader.next().await.map_err(|e| e.to_string())?.ok_or("no hello")?;
    Ok((reader, FromPeer::decode(body).map_err(|e| e.to_string())?))
}

async fn keep_one(own: NodeId, connection: Connection, kept: &Kept, events: Events) {
    let Some(node) = node_of(&connection) else { return };
    let all = || kept.lock().unwrap_or_else(PoisonError::into_inner);
    let decides = own < node;
    if decides && !all().insert(node) {
        return connection.close(MERGED.into(), b"connected already");
    }
    serve(connection.into(), events).await;
    if decides {
        all().remove(&node);
    }
}

/// A page says who it is after this end's hello.
async fn serve_page(own: NodeId, connection: PeerConnection, events: Events) {
    let Ok(writer) = greet(&connection).await else { return };
    let Ok((reader, FromPeer::PageHello { nonce, key, signature, .. })) = first_message(&connection).await else {
        return;
    };
    if let Ok(node) = prove_page(&key, &page_covered(&NONCE, &nonce, &own), &signature) {
        talk((node, Hash::of(&[&key])), connection, (writer, reader), nonce, events).await;
    }
}

async fn serve(connection: PeerConnection, events: Events) {
    let Some((node, certificate)) = node_of(&connection).zip(certificate_of(&connection)) else { return };
    let Ok(writer) = greet(&connection).await else { return };
    let Ok((reader, nonce)) = greeted(&connection).await else { return };
    talk((node, certificate), connection, (writer, reader), nonce, events).await;
}

async fn talk(
    (node, certificate): (NodeId, Hash),
    connection: PeerConnection,
    (mut writer, mut reader): (Writer, Reader),
    nonce: [u8; 32],
    events: Events,
) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let (out, mut queue) = mpsc::channel::<Bytes>(MAX_WAITING);
    tokio::spawn(async move {
        while let Some(frame) = queue.recv().await {
            if writer.send(frame).await.is_err() {
                return;
            }
        }
    });
    let id = NUMBER.fetch_add(1, Ordering::Relaxed);
    let link = Link { id, connection: connection.clone(), out, nonce, certificate };
    let _ = events.send(Event::Linked(node, link));
    let messages = async {
        loop {
            match reader.next().await {
                Ok(Some(body)) => {
                    if let Ok(message) = FromPeer::decode(body) {
                        let _ = events.send(Event::Peer(node, message));
                    }
                }
                Ok(None) => return connection.closed().await.to_string(),
                Err(e) => return e.to_string(),
            }
        }
    };
    let streams = async {
        loop {
            match connection.accept_uni().await {
                Ok(stream) => drop(tokio::spawn(pieces(node, stream, events.clone()))),
                Err(e) => return e.to_string(),
            }
        }
    };
    let why = tokio::select! {
        why = messages => why,
        why = streams => why,
    };
    connection.close(0u32.into(), b"");
    let _ = events.send(Event::Unlinked(node, id, why));
}

/// Reads one data stream to its end.
async fn pieces(node: NodeId, mut stream: RecvStream, events: Events) -> Option<()> {
    let mut start = [0; 5];
    stream.read_exact(&mut start).await.ok()?;
    let [kind, length @ ..] = start;
    let length = u32::from_be_bytes(length);
    if kind != PEER_DATA_STREAM || length > limits::MAX_DATA_HEADER_FRAME_BYTES {
        return None;
    }
    let mut header = vec![0; length as usize];
    stream.read_exact(&mut header).await.ok()?;
    let version = DataHeader::decode(header.into()).ok()?.version;
    loop {
        let mut head = [0; PieceHeader::BYTES];
        stream.read_exact(&mut head).await.ok()?;
        let head = PieceHeader::decode(head).ok()?;
        let mut data = vec![0; head.len as usize];
        stream.read_exact(&mut data).await.ok()?;
        events.send(Event::Piece(node, version, head.piece, data.into())).ok()?;
    }
}
