//! Children that take a content and throw it away: any number in one process, each under a fresh identity with a socket of
//! its own, a session, tickets and an edge. They do no harm but to an uplink; being cheap, they are also the load of
//! `cargo xtask bench-serve`, which measures what serving costs.
//!
//! Each asks its first parent for all pieces in order, as far ahead and as many at a time as an honest child does. Bytes
//! are counted and not verified. Heartbeats tell truly what came.

use crate::Setup;
use crate::story::{Story, unix_ms};
use crate::wires::{self, Event};
use anyhow::{Context, bail, ensure};
use headwater_model::assignment::Parent;
use headwater_model::log::Track;
use headwater_model::report::{ContentReport, EdgeReport, Heartbeat, Introduction, Join};
use headwater_model::{Accepts, Capabilities, Layout, Micros, NodeId, Priority, Rate, Ticket, Version};
use headwater_transport::{Alpn, Identity, Listener, bind, certificate_of};
use headwater_wire::frame::{PEER_DATA_STREAM, PieceHeader};
use headwater_wire::{DataHeader, FromControl, FromNode, FromPeer, GivenTicket, Held, Hello, Token, limits};
use quinn::{Connection, RecvStream};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

/// How long a child waits for a parent that has everything.
const PATIENCE: Duration = Duration::from_secs(60);
/// Children that open sessions and edges at once: a waypoint refuses handshakes beyond 256.
const MAX_OPENING: usize = 64;
/// Fewest and most pieces asked for and not here, and how much of the rate is asked for ahead: what `peer-core` does.
const OUTSTANDING: (usize, usize) = (3, 128);
const AHEAD_S: f64 = 0.4;

/// Bytes of the pieces that a child got, for its heartbeats.
#[derive(Default)]
struct Taken {
    pieces: AtomicU64,
    bytes: AtomicU64,
}

/// Takes the content with `setup.children` children, says `taken` when all have it, and then stays connected.
pub async fn run(setup: Arc<Setup>, story: Story) -> anyhow::Result<()> {
    let (mut children, mut staying) = (JoinSet::new(), JoinSet::new());
    let opening = Arc::new(Semaphore::new(MAX_OPENING));
    for _ in 0..setup.children {
        let (taken, has_taken) = oneshot::channel();
        let (setup, opening) = (setup.clone(), opening.clone());
        staying.spawn(async move { child(&setup, opening, taken).await });
        children.spawn(has_taken);
    }
    let mut bytes = 0;
    loop {
        tokio::select! {
            // Why one did not is in `staying`.
            Some(taken) = children.join_next() => if let Ok(Ok(of_child)) = taken {
                bytes += of_child;
            },
            Some(ended) = staying.join_next() => ended??,
            else => bail!("no children"),
        }
        if children.is_empty() {
            break;
        }
    }
    story.say("taken", json!({"children": setup.children, "bytes": bytes}));
    while let Some(ended) = staying.join_next().await {
        ended??;
    }
    bail!("all children were left alone")
}

/// One child, until its session ends.
async fn child(setup: &Arc<Setup>, opening: Arc<Semaphore>, taken: oneshot::Sender<u64>) -> anyhow::Result<()> {
    let permit = opening.acquire_owned().await?;
    let address = SocketAddr::new(setup.listener.address()?.ip(), 0);
    let listener = bind(address, Arc::new(Identity::ephemeral()?), &[])?;
    let (events, mut said) = mpsc::unbounded_channel();
    let session = wires::session(setup, &listener, hello()).await.map_err(anyhow::Error::msg)?;
    let (welcome, control) = wires::converse(session, events);
    let tell = |message: FromNode| control.try_send(message.encode()).context("the control center reads too slowly");
    tell(join(Version { content: setup.name.content(), epoch: 0 }))?;
    let count = Arc::new(Taken::default());
    let mut pulse = tokio::time::interval(Duration::from_millis(u64::from(welcome.heartbeat_ms)));
    let (mut track, mut parent, mut permit, mut taken) =
        (None::<Arc<Track>>, None::<NodeId>, Some(permit), Some(taken));
    let mut taking = JoinSet::new();
    loop {
        tokio::select! {
            event = said.recv() => match event {
                Some(Event::Control(FromControl::Content { log, .. })) if track.is_none() => {
                    let found = Arc::new(log.verify(&setup.name.name, Some(&setup.name.key))?);
                    tell(join(found.version))?;
                    track = Some(found);
                }
                Some(Event::Control(FromControl::Refused { refusal, .. })) => bail!("refused: {refusal}"),
                Some(Event::Control(FromControl::Assignment { assignment, tickets, .. })) => {
                    let first = assignment.parents.into_iter().next().filter(|_| parent.is_none());
                    if let (Some(first), Some(track)) = (first, &track)
                        && let Some(permit) = permit.take()
                    {
                        parent = Some(first.node);
                        let given = tickets.into_iter().find(|t| t.ticket.parent == first.node).context("no ticket")?;
                        taking.spawn(take(listener.clone(), first, given, track.clone(), count.clone(), permit));
                    }
                }
                Some(Event::ControlGone(why)) => bail!("the session ended: {why}"),
                Some(_) => {}
                None => bail!("the session ended"),
            },
            Some(took) = taking.join_next() => {
                // Edge and connection stay until this child ends.
                let (bytes, edge) = took??;
                if let Some(taken) = taken.take() {
                    let _ = taken.send(bytes);
                }
                taking.spawn(stay(edge));
            }
            _ = pulse.tick() => {
                if let Some((parent, track)) = parent.zip(track.as_ref()) {
                    tell(heartbeat(parent, track, &count, u64::from(welcome.heartbeat_ms)))?;
                }
            }
        }
    }
}

fn hello() -> Hello {
    Hello {
        protocol: limits::PROTOCOL,
        introduction: Introduction {
            role: headwater_model::Role::Peer,
            capabilities: Capabilities::regular(Accepts::DialOnly),
            up: Rate(0),
            down: Rate(0),
            client: "hostile".to_owned(),
            https_port: None,
            local_addresses: Vec::new(),
        },
        join_token: Token(String::new()),
        control_epoch_seen: 0,
        local_unix_ms: unix_ms(),
        page_certificates: Vec::new(),
    }
}

fn join(version: Version) -> FromNode {
    let join = Join::to(version);
    FromNode::Join(headwater_wire::Join::new(join, Token(String::new())))
}

fn heartbeat(parent: NodeId, track: &Track, taken: &Taken, heartbeat_ms: u64) -> FromNode {
    let edge = EdgeReport {
        node: parent,
        pieces: taken.pieces.load(Relaxed),
        bytes: taken.bytes.load(Relaxed),
        waited: Micros::from_millis(heartbeat_ms / 4),
        rtt: Micros(0),
        sent_packets: 0,
        lost_packets: 0,
        offers_nothing: false,
        last_pieces: Vec::new(),
    };
    let report = ContentReport {
        version: track.version,
        runs: None,
        pieces_held: 0,
        origin_bytes: 0,
        wasted_bytes: 0,
        from: vec![edge],
        to: Vec::new(),
        priority: Priority::Normal,
        live: None,
    };
    let interval = unix_ms() / heartbeat_ms.max(1);
    let heartbeat = Heartbeat { interval, contents: vec![report], ..Heartbeat::default() };
    FromNode::Heartbeat(headwater_wire::Heartbeat::new(heartbeat, unix_ms()))
}

/// What keeps an edge open.
struct Edge {
    connection: Connection,
    _control: (headwater_transport::Writer, headwater_transport::Reader),
    _data: RecvStream,
    _listener: Listener,
}

/// Keeps an edge until the parent ends it.
async fn stay(edge: Edge) -> anyhow::Result<(u64, Edge)> {
    bail!("the parent left: {}", edge.connection.closed().await)
}

/// Opens an edge to `parent` and takes everything over it.
async fn take(
    listener: Listener,
    parent: Parent,
    given: GivenTicket,
    track: Arc<Track>,
    taken: Arc<Taken>,
    opening: OwnedSemaphorePermit,
) -> anyhow::Result<(u64, Edge)> {
    let address = *parent.reach.addresses.first().context("a parent without an address")?;
    let connection = listener.dial(address, Some(parent.node), Alpn::Peer).await?;
    let mut writer = wires::greet(&connection.clone().into()).await?;
    let (mut reader, nonce) = wires::greeted(&connection.clone().into()).await.map_err(anyhow::Error::msg)?;
    let certificate = certificate_of(&connection).context("no certificate")?;
    let (version, proof) = (track.version, Ticket::prove(&given.secret.0, &nonce, &certificate));
    writer.send(FromPeer::OpenEdge { version, ticket: given.ticket, proof }.encode()).await?;
    let offered = async {
        loop {
            let body = reader.next().await?.context("the parent closed the connection")?;
            match FromPeer::decode(body)? {
                FromPeer::EdgeAnswer { refusal: Some((code, why)), .. } => bail!("refused: {code}: {why}"),
                FromPeer::Have { held: Held::All(bits), .. } => return Ok(bits.bits(track.layout.pieces())?),
                _ => {}
            }
        }
    };
    let held = tokio::time::timeout(PATIENCE, offered).await.context("the parent offers nothing")??;
    drop(opening);
    ensure!(held.is_full(), "the parent has not everything");
    let (begun, layout) = (Instant::now(), &track.layout);
    let mut asked = 0;
    ask(&mut writer, version, layout, &mut asked, 0, OUTSTANDING.0).await?;
    let mut data = connection.accept_uni().await?;
    header(&mut data).await?;
    for piece in 0..layout.pieces() {
        let mut head = [0; PieceHeader::BYTES];
        data.read_exact(&mut head).await?;
        let head = PieceHeader::decode(head)?;
        ensure!((head.piece, head.len) == (piece, layout.piece_len(piece)), "piece {} came out of turn", head.piece);
        skip(&mut data, head.len as usize).await?;
        taken.pieces.fetch_add(1, Relaxed);
        let bytes = taken.bytes.fetch_add(u64::from(head.len), Relaxed) + u64::from(head.len);
        let ahead = AHEAD_S * bytes as f64 / begun.elapsed().as_secs_f64() / f64::from(layout.piece_bytes());
        let target = (ahead as usize + 2).clamp(OUTSTANDING.0, OUTSTANDING.1);
        ask(&mut writer, version, layout, &mut asked, piece + 1, target).await?;
    }
    let edge = Edge { connection, _control: (writer, reader), _data: data, _listener: listener };
    Ok((layout.bytes(), edge))
}

/// Asks for what is missing to `target` outstanding pieces, a quarter of it at least.
async fn ask(
    writer: &mut headwater_transport::Writer,
    version: Version,
    layout: &Layout,
    asked: &mut u32,
    got: u32,
    target: usize,
) -> anyhow::Result<()> {
    let outstanding = (*asked - got) as usize;
    if outstanding + target.div_ceil(4) > target || *asked == layout.pieces() {
        return Ok(());
    }
    let pieces: Vec<u32> = (*asked..layout.pieces()).take(target - outstanding).collect();
    *asked += pieces.len() as u32;
    Ok(writer.send(FromPeer::Request { version, pieces }.encode()).await?)
}

async fn header(stream: &mut RecvStream) -> anyhow::Result<()> {
    let mut start = [0; 5];
    stream.read_exact(&mut start).await?;
    let [kind, length @ ..] = start;
    let length = u32::from_be_bytes(length);
    ensure!(kind == PEER_DATA_STREAM && length <= limits::MAX_DATA_HEADER_FRAME_BYTES, "no data stream");
    let mut header = vec![0; length as usize];
    stream.read_exact(&mut header).await?;
    DataHeader::decode(header.into())?;
    Ok(())
}

async fn skip(stream: &mut RecvStream, mut bytes: usize) -> anyhow::Result<()> {
    while bytes > 0 {
        let chunk = stream.read_chunk(bytes, true).await?.context("the parent ended the stream")?;
        bytes -= chunk.bytes.len();
    }
    Ok(())
}
