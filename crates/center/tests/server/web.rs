//! Sessions over a WebSocket: nodes that UDP does not reach.

use crate::harness::*;
use headwater_model::assignment::LeaseSource;
use headwater_model::node::Role;
use headwater_model::{Hash, report};
use headwater_transport::{
    ControlReader, ControlWriter, Identity, ProofError, Proved, Unproved, prove_as_node, prove_as_page,
};
use headwater_wire::{FromControl, FromNode, Heartbeat, Hello, Join};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A TCP connection on which an upgrade was asked for, and the head of the answer.
async fn upgrade(control: &Control, more: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(control.address).await.unwrap();
    let ask = format!(
        "GET /v1/session HTTP/1.1\r\nHost: {}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n",
        control.address
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("an answer", stream.read_u8()).await.unwrap());
    }
    (stream, String::from_utf8(head).unwrap())
}

async fn proved(control: &Control, identity: &Identity, tls: Hash) -> Result<Proved, ProofError> {
    let (stream, head) = upgrade(control, "").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "the example of RFC 6455: {head}");
    soon("the proofs", prove_as_node(Box::new(stream), identity, Some(control.node), tls)).await
}

/// A node whose session needed a proof in band.
pub struct WebNode {
    pub reader: ControlReader,
    pub writer: ControlWriter,
}

impl WebNode {
    async fn arrive(control: &Control, identity: &Identity, hello: Hello) -> WebNode {
        Self::greet(proved(control, identity, Hash([0; 32])).await.unwrap(), hello).await
    }
    pub async fn greet(Proved { reader, writer, .. }: Proved, hello: Hello) -> WebNode {
        let mut node = WebNode { reader, writer };
        node.say(FromNode::Hello(hello)).await;
        node.wait(|m| matches!(m, FromControl::Welcome(_)).then_some(())).await;
        node
    }
    pub async fn say(&mut self, message: FromNode) {
        soon("sending", self.writer.send(message.encode())).await.unwrap();
    }
    pub async fn wait<T>(&mut self, fit: impl Fn(FromControl) -> Option<T>) -> T {
        loop {
            let body = soon("a message", self.reader.next()).await.unwrap().expect("the session ended");
            if let Some(found) = fit(FromControl::decode(body).unwrap()) {
                return found;
            }
        }
    }
}

fn join(version: headwater_model::Version) -> FromNode {
    let join = report::Join::to(version);
    FromNode::Join(Join::new(join, Default::default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_udp_is_served_and_said_to_be_limited() {
    let control = Control::start().await;
    let film = sample("film", 1, 1, 1000);
    control.publish(&film).await;
    let identity = Arc::new(Identity::ephemeral().unwrap());
    let mut node = WebNode::arrive(&control, &identity, hello()).await;
    let beat = report::Heartbeat { interval: 1, ..Default::default() };
    node.say(FromNode::Heartbeat(Heartbeat::new(beat, 5))).await;
    node.wait(|m| matches!(m, FromControl::HeartbeatReply { echo_local_us: 5, .. }).then_some(())).await;
    node.say(join(film.version)).await;
    let lease = node.wait(|m| if let FromControl::Lease { lease, .. } = m { Some(lease) } else { None }).await;
    assert_eq!((lease.version, &lease.source), (film.version, &LeaseSource::Origin));
    let nodes = control.get("/v1/nodes").await;
    assert_eq!((&nodes[0]["udp"], &nodes[0]["udp_from"]), (&false.into(), &"test".into()), "{nodes}");
    assert_eq!(nodes[0]["limited"], "no UDP (found by test)");
    let status = control.get("/v1/status").await;
    assert_eq!(status["limited_nodes"]["no UDP (found by test)"], 1, "{status}");
    let said = control.get(&format!("/v1/explain?client={}&content=film", identity.node)).await;
    assert!(said["words"].as_str().unwrap().contains("Its sources are limited: no UDP (found by test)"), "{said}");

    // QUIC works after all: the newer session wins, and nothing is limited any more.
    let mut by_quic = Node::arrive(&control, identity.clone()).await;
    node.wait(|m| matches!(m, FromControl::Goodbye { .. }).then_some(())).await;
    by_quic.joined(film.version, false).await;
    let nodes = control.get("/v1/nodes").await;
    assert_eq!((&nodes[0]["udp"], &nodes[0]["limited"]), (&true.into(), &serde_json::Value::Null), "{nodes}");
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waypoint_with_https_is_leased_to_a_node_without_udp() {
    let control = Control::start().await;
    let film = sample("film", 1, 1, 1000);
    control.publish(&film).await;
    let mut introduced = hello();
    introduced.introduction.role = Role::Waypoint;
    introduced.introduction.https_port = Some(4433);
    let own = Arc::new(Identity::ephemeral().unwrap());
    let (mut waypoint, _) = Node::arrive_as(&control, own.clone(), introduced).await;
    waypoint.joined(film.version, true).await;
    let identity = Identity::ephemeral().unwrap();
    let mut node = WebNode::arrive(&control, &identity, hello()).await;
    node.say(join(film.version)).await;
    let (lease, ticket) =
        node.wait(|m| if let FromControl::Lease { lease, ticket } = m { Some((lease, ticket)) } else { None }).await;
    let LeaseSource::Waypoint { node: from, reach } = lease.source else { panic!("{lease:?}") };
    assert_eq!((from, reach.certificate), (own.node, own.certificate_hash));
    assert_eq!(reach.addresses[0], "127.0.0.1:4433".parse().unwrap());
    let ticket = ticket.unwrap().ticket;
    assert_eq!((ticket.child, ticket.parent, ticket.version), (identity.node, own.node, film.version));
    assert_eq!(ticket.highest_piece, 999);
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_dial_only_whatever_it_says_and_learns_by_which_certificates_it_knows_its_parents() {
    let control = Control::start().await;
    let film = sample("film", 1, 1, 1000);
    control.publish(&film).await;
    let hashes = vec![Hash([7; 32]), Hash([8; 32])];
    let parent = Arc::new(Identity::ephemeral().unwrap());
    let shows = Hello { page_certificates: hashes.clone(), ..hello() };
    let (mut at_parent, _) = Node::arrive_as(&control, parent.clone(), shows).await;
    at_parent.joined(film.version, true).await;

    let identity = Identity::ephemeral().unwrap();
    let (stream, _) = upgrade(&control, "").await;
    let proving = prove_as_page(Unproved::WebSocket(Box::new(stream)), &identity, Some(control.node), None);
    // It claims to be what no page is.
    let mut page = WebNode::greet(soon("the proofs", proving).await.unwrap(), hello()).await;
    page.say(join(film.version)).await;
    let (given, shown) = page
        .wait(|m| match m {
            FromControl::Assignment { tickets, page_certificates, .. } if !tickets.is_empty() => {
                Some((tickets, page_certificates))
            }
            _ => None,
        })
        .await;
    assert_eq!((given[0].ticket.child, given[0].ticket.parent), (identity.node, parent.node));
    assert_eq!(shown.get(&parent.node), Some(&hashes));
    let nodes = control.get("/v1/nodes").await;
    let shown = nodes.as_array().unwrap().iter().find(|n| n["node"] == identity.node.to_string()).unwrap();
    assert_eq!(
        (&shown["page"], &shown["accepts"], &shown["listens"]),
        (&true.into(), &"dial-only".into(), &false.into())
    );
    assert_eq!((&shown["udp"], &shown["udp_from"], &shown["enrolled"]), (&true.into(), &"claim".into(), &false.into()));
    assert_eq!(shown["forwards"], "memory", "it has no disk");
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_beginnings_get_nowhere() {
    let control = Control::start().await;
    let identity = Identity::ephemeral().unwrap();
    let other_tls = proved(&control, &identity, Hash([1; 32])).await;
    assert!(matches!(other_tls, Err(ProofError::Middleman)), "{other_tls:?}");
    let (status, _) = control.call("GET", "/v1/session", "", vec![]).await;
    assert_eq!(status, 426);
    let (_, head) = upgrade(&control, "X-Forwarded-For: 192.0.2.1\r\n").await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    // Whoever says nothing loses the connection.
    let (mut silent, head) = upgrade(&control, "").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let mut rest = Vec::new();
    soon("the end", silent.read_to_end(&mut rest)).await.unwrap();
    // And whoever says too much.
    let (mut loud, _) = upgrade(&control, "").await;
    let frame = [&[0x82, 0xfe, 0x20, 0x00, 0, 0, 0, 0][..], &[0; 0x2000]].concat();
    let _ = loud.write_all(&frame).await;
    let ended = soon("the end", loud.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() || ended.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
    assert_eq!(control.get("/v1/status").await["sessions"], 0);
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_end_the_session_with_a_reason() {
    let control = Control::start().await;
    let identity = Identity::ephemeral().unwrap();
    let mut node = WebNode::arrive(&control, &identity, hello()).await;
    node.say(FromNode::Hello(hello())).await;
    let why = node.wait(|m| if let FromControl::Goodbye { why, .. } = m { Some(why) } else { None }).await;
    assert!(why.contains("a second hello"), "{why}");
    assert!(soon("the end", node.reader.next()).await.unwrap().is_none());
    control.stop().await;
}
