//! Everything that one machine can throw at a control center: messages, sessions, broken frames, datagrams.

use crate::Setup;
use crate::story::{Story, unix_ms};
use crate::wires;
use anyhow::Context;
use bytes::Bytes;
use headwater_model::report::{Alarm, ContentReport, EdgeReport, Heartbeat, Join};
use headwater_model::{Micros, NodeId, Priority, Version};
use headwater_transport::Alpn;
use headwater_wire::{FromNode, FromPeer, Token};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Sessions under fresh identities that are kept open at once; each has a socket.
const MAX_HELD_SESSIONS: usize = 200;
/// Tasks of each way to flood.
const TASKS: usize = 3;
/// Messages per second that a control center takes of one session, and a little less.
const BELOW_LIMIT_PER_S: u64 = 1_800;
/// Garbage datagrams per second.
const DATAGRAMS_PER_S: u64 = 5_000;
/// Pause after a session that could not be had.
const PAUSE: Duration = Duration::from_millis(50);

/// Floods until it is stopped.
pub async fn run(setup: Arc<Setup>, story: Story) -> anyhow::Result<()> {
    for n in 0..TASKS {
        tokio::spawn(messages(setup.clone(), story.clone(), n, None));
        tokio::spawn(messages(setup.clone(), story.clone(), n, Some(BELOW_LIMIT_PER_S)));
        tokio::spawn(sessions(setup.clone(), story.clone()));
        tokio::spawn(garbage(setup.clone(), story.clone(), n));
    }
    datagrams(setup, story).await
}

/// What costs a control center most, in turn.
fn costly(version: Version, turn: u64) -> FromNode {
    let join = || Join::to(version);
    match turn % 4 {
        0 => FromNode::Join(headwater_wire::Join::new(join(), Token(String::new()))),
        1 => FromNode::Alarm { version, alarm: Alarm::Starving { runs: (0..16).collect() } },
        2 => FromNode::PageRequest { version, page: 0 },
        _ => {
            let edge = |n: u64| EdgeReport {
                node: NodeId([n as u8; 32]),
                pieces: n,
                bytes: turn,
                waited: Micros::from_secs(2),
                rtt: Micros(1),
                sent_packets: 0,
                lost_packets: 0,
                offers_nothing: false,
                last_pieces: Vec::new(),
            };
            let report = ContentReport {
                version,
                runs: None,
                pieces_held: turn as u32 % 2,
                origin_bytes: turn,
                wasted_bytes: 0,
                from: (0..256).map(edge).collect(),
                to: (0..256).map(edge).collect(),
                priority: Priority::Normal,
                live: None,
            };
            let heartbeat = Heartbeat { interval: turn, contents: vec![report], ..Heartbeat::default() };
            FromNode::Heartbeat(headwater_wire::Heartbeat::new(heartbeat, unix_ms()))
        }
    }
}

/// Messages as fast as they go, or `per_s`, over one session after the other: the own identity first, then fresh ones.
async fn messages(setup: Arc<Setup>, story: Story, n: usize, per_s: Option<u64>) {
    let version = Version { content: setup.name.content(), epoch: 0 };
    let mut listener = (n == 0 && per_s.is_some()).then(|| setup.listener.clone());
    loop {
        let Some(from) = listener.take().or_else(|| setup.stranger().ok()) else { return };
        let mut session = match wires::session(&setup, &from, wires::hello(&setup)).await {
            Ok(session) => session,
            Err(why) => {
                story.refused("control", "session", &why);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        story.count("sessions", 1);
        let mut turn = n as u64;
        let send = async {
            let mut pulse = tokio::time::interval(Duration::from_micros(per_s.map_or(1, |n| 1_000_000 / n)));
            loop {
                if per_s.is_some() {
                    pulse.tick().await;
                }
                if session.writer.send(costly(version, turn).encode()).await.is_err() {
                    return;
                }
                story.count("messages", 1);
                turn += 1;
            }
        };
        let read = async { while let Ok(Some(_)) = session.reader.next().await {} };
        tokio::select! {
            () = send => {}
            () = read => {}
        }
        let why = match timeout(PAUSE, session.connection.closed()).await {
            Ok(e) => e.to_string(),
            Err(_) => "it stopped reading".into(),
        };
        story.refused("control", if per_s.is_some() { "messages below the limit" } else { "messages" }, &why);
        session.connection.close(0u32.into(), b"");
    }
}

/// Sessions under fresh identities that join and then say nothing.
async fn sessions(setup: Arc<Setup>, story: Story) {
    let mut held = VecDeque::new();
    loop {
        let Ok(from) = setup.stranger() else { return };
        match wires::session(&setup, &from, wires::hello(&setup)).await {
            Ok(mut session) => {
                story.count("fresh_sessions", 1);
                let version = Version { content: setup.name.content(), epoch: 0 };
                let _ = session.writer.send(costly(version, 0).encode()).await;
                held.push_back((session, from));
            }
            Err(why) => {
                story.refused("control", "fresh session", &why);
                tokio::time::sleep(PAUSE).await;
            }
        }
        if held.len() > MAX_HELD_SESSIONS / TASKS {
            held.pop_front();
        }
    }
}

/// Connections that say what is no message, or half of one, or nothing.
async fn garbage(setup: Arc<Setup>, story: Story, n: usize) {
    let hello = FromNode::Hello(wires::hello(&setup)).encode();
    let newer = FromNode::Hello(headwater_wire::Hello { protocol: 99, ..wires::hello(&setup) }).encode();
    let says: [(&str, Bytes); 6] = [
        ("a frame over its limit", Bytes::from_static(&[0xff; 64])),
        ("a frame that is no message", Bytes::from_static(&[0, 0, 0, 3, 0xff, 0xff, 0xff])),
        ("half a hello", hello.slice(..hello.len() / 2)),
        ("another protocol", newer),
        ("a peer's message", FromPeer::Hello { protocol: 1, nonce: [0; 32], instance: 1, linked: false }.encode()),
        ("nothing", Bytes::new()),
    ];
    let mut turn = n;
    let mut silent = VecDeque::new();
    loop {
        let Ok(from) = setup.stranger() else { return };
        // A few connections for each identity, which costs more to make.
        for _ in 0..8 {
            let (what, bytes) = &says[turn % says.len()];
            turn += 1;
            let dialled = timeout(Duration::from_secs(2), from.dial(setup.control, setup.cc, Alpn::Control)).await;
            let Ok(Ok(connection)) = dialled else {
                story.refused("control", "connection", "no answer");
                continue;
            };
            story.count("garbage", 1);
            if let Ok((mut send, _receive)) = connection.open_bi().await {
                let _ = send.write_all(bytes).await;
                if let Ok(why) = timeout(PAUSE, connection.closed()).await {
                    story.refused("control", what, &why.to_string());
                }
                silent.push_back((connection, send, from.clone()));
            }
            if silent.len() > MAX_HELD_SESSIONS / TASKS {
                silent.pop_front();
            }
        }
    }
}

/// Datagrams that are no QUIC, and some that look like the beginning of a handshake.
async fn datagrams(setup: Arc<Setup>, story: Story) -> anyhow::Result<()> {
    let address = SocketAddr::new(setup.listener.address()?.ip(), 0);
    let socket = tokio::net::UdpSocket::bind(address).await.context("binding a socket for datagrams")?;
    let mut pulse = tokio::time::interval(Duration::from_millis(10));
    let mut n = 0u64;
    loop {
        pulse.tick().await;
        for _ in 0..DATAGRAMS_PER_S / 100 {
            n += 1;
            let mut datagram = [n as u8; 1200];
            // Long header, initial, version 1, connection ids of 8 bytes.
            datagram[..6].copy_from_slice(&[0xc0 | (n as u8 & 0x3f), 0, 0, 0, 1, 8]);
            datagram[6..14].copy_from_slice(&n.to_be_bytes());
            let len = if n.is_multiple_of(2) { 1200 } else { 1 + n as usize % 1199 };
            let _ = socket.try_send_to(&datagram[..len], setup.control);
            story.count("datagrams", 1);
        }
    }
}
