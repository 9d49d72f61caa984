//! Nodes that do not keep to the rules, against a real peer with a real control center.

use crate::site::Site;
use bytes::Bytes;
use headwater_model::id::{NodeId, Version};
use headwater_model::ticket::Ticket;
use headwater_transport::{Alpn, Identity, Listener, Reader, Writer, bind, certificate_of};
use headwater_wire::frame::PEER_CONTROL_STREAM;
use headwater_wire::{EdgeRefusal, FromControl, FromNode, FromPeer, GivenTicket, Hello, Join, Token, limits};
use std::net::SocketAddr;
use std::sync::Arc;

/// A peer of our own making, with what the control center gave it.
struct Stranger {
    listener: Listener,
    control: quinn::Connection,
    reader: Reader,
    writer: Writer,
}

impl Stranger {
    async fn new(site: &Site) -> Stranger {
        let listener =
            bind("127.0.0.1:0".parse().unwrap(), Arc::new(Identity::ephemeral().unwrap()), &[Alpn::Peer]).unwrap();
        let control = listener.dial(site.control_address.parse().unwrap(), None, Alpn::Control).await.unwrap();
        let (send, receive) = control.open_bi().await.unwrap();
        let (mut writer, mut reader) = (Writer(send), Reader::new(receive, limits::MAX_CONTROL_FRAME_BYTES));
        let hello = Hello {
            protocol: limits::PROTOCOL,
            introduction: headwater_model::report::Introduction {
                role: headwater_model::Role::Peer,
                capabilities: headwater_model::Capabilities::regular(headwater_model::Accepts::Open),
                up: headwater_model::Rate(1_000_000),
                down: headwater_model::Rate(0),
                client: "stranger".into(),
                local_addresses: vec![],
                https_port: None,
            },
            join_token: Token(String::new()),
            control_epoch_seen: 0,
            local_unix_ms: 0,
            page_certificates: vec![],
        };
        writer.send(FromNode::Hello(hello).encode()).await.unwrap();
        let first = FromControl::decode(reader.next().await.unwrap().unwrap()).unwrap();
        assert!(matches!(first, FromControl::Welcome(_)), "{first:?}");
        Stranger { listener, control, reader, writer }
    }

    /// Joins and waits for an assignment with `parent` in it: its address and the ticket for it.
    async fn ticket_for(&mut self, version: Version, parent: NodeId) -> (SocketAddr, GivenTicket) {
        let join = headwater_model::report::Join::to(version);
        self.writer.send(FromNode::Join(Join::new(join, Token(String::new()))).encode()).await.unwrap();
        loop {
            let message = FromControl::decode(self.reader.next().await.unwrap().unwrap()).unwrap();
            if let FromControl::Assignment { assignment, tickets, .. } = message {
                let found = assignment.parents.iter().find(|p| p.node == parent);
                if let Some(p) = found {
                    let given = tickets.into_iter().find(|t| t.ticket.parent == parent).unwrap();
                    return (p.reach.addresses[0], given);
                }
            }
        }
    }

    /// A connection to `parent` as the process `instance`, its nonce, and streams both ways.
    async fn connect(
        &self,
        at: SocketAddr,
        parent: NodeId,
        instance: u64,
    ) -> (quinn::Connection, [u8; 32], Writer, Reader) {
        let connection = self.listener.dial(at, Some(parent), Alpn::Peer).await.unwrap();
        let mut send = connection.open_uni().await.unwrap();
        send.write_all(&[PEER_CONTROL_STREAM]).await.unwrap();
        let mut writer = Writer(send);
        writer
            .send(FromPeer::Hello { protocol: limits::PROTOCOL, nonce: [1; 32], instance, linked: false }.encode())
            .await
            .unwrap();
        let mut receive = connection.accept_uni().await.unwrap();
        let mut kind = [0];
        receive.read_exact(&mut kind).await.unwrap();
        let mut reader = Reader::new(receive, limits::MAX_PEER_FRAME_BYTES);
        let hello = FromPeer::decode(reader.next().await.unwrap().unwrap()).unwrap();
        let FromPeer::Hello { nonce, .. } = hello else { panic!("{hello:?}") };
        (connection, nonce, writer, reader)
    }
}

async fn answer(
    writer: &mut Writer,
    reader: &mut Reader,
    version: Version,
    ticket: Ticket,
    proof: [u8; 32],
) -> Option<EdgeRefusal> {
    writer.send(FromPeer::OpenEdge { version, ticket, proof }.encode()).await.unwrap();
    loop {
        if let FromPeer::EdgeAnswer { refusal, .. } = FromPeer::decode(reader.next().await.unwrap().unwrap()).unwrap() {
            return refusal.map(|(code, _)| code);
        }
    }
}

#[test]
fn only_a_ticket_of_ones_own_opens_an_edge() {
    let site = Site::start("unlimited");
    site.write("film", 2 << 20, 21);
    let name: headwater_model::Name = site.publish("film", &[]).parse().unwrap();
    let seed = site.get(&name.to_string(), "seed", &[]);
    let parent: NodeId = seed.event("started")["node"].as_str().unwrap().parse().unwrap();
    seed.event("complete");
    let version = Version { content: name.content(), epoch: 0 };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut me = Stranger::new(&site).await;
        let (at, given) = me.ticket_for(version, parent).await;
        let version = given.ticket.version;
        let (connection, nonce, mut writer, mut reader) = me.connect(at, parent, 1).await;
        let certificate = certificate_of(&connection).unwrap();
        let proof = Ticket::prove(&given.secret.0, &nonce, &certificate);

        // Forged: more pieces than it was given for.
        let more = Ticket { highest_piece: u32::MAX, ..given.ticket.clone() };
        assert_eq!(answer(&mut writer, &mut reader, version, more, proof).await, Some(EdgeRefusal::BadTicket));
        // Without the secret.
        let unproved = answer(&mut writer, &mut reader, version, given.ticket.clone(), [0; 32]).await;
        assert_eq!(unproved, Some(EdgeRefusal::BadTicket));
        // For another content.
        let other = Version { epoch: version.epoch + 1, ..version };
        let refused = answer(&mut writer, &mut reader, other, given.ticket.clone(), proof).await;
        assert_eq!(refused, Some(EdgeRefusal::NoSuchContent));
        // The right one works, and its pieces come.
        assert_eq!(answer(&mut writer, &mut reader, version, given.ticket.clone(), proof).await, None);

        // Replayed: the same proof on another connection, whose nonce is another.
        // It says that its process is another one: of one process only the first connection would stay.
        let (_second, _, mut writer2, mut reader2) = me.connect(at, parent, 2).await;
        let replayed = answer(&mut writer2, &mut reader2, version, given.ticket.clone(), proof).await;
        assert_eq!(replayed, Some(EdgeRefusal::BadTicket));

        // Stolen: another node shows it, with the secret even.
        let thief = Stranger::new(&site).await;
        let (connection, nonce, mut writer, mut reader) = thief.connect(at, parent, 1).await;
        let proof = Ticket::prove(&given.secret.0, &nonce, &certificate_of(&connection).unwrap());
        let stolen = answer(&mut writer, &mut reader, version, given.ticket.clone(), proof).await;
        assert_eq!(stolen, Some(EdgeRefusal::BadTicket));
        drop(me.control);
    });
}

#[test]
fn garbage_ends_a_connection_and_nothing_else() {
    let site = Site::start("unlimited");
    site.write("film", 2 << 20, 22);
    let name = site.publish("film", &[]);
    let seed = site.get(&name, "seed", &[]);
    let started = seed.event("started");
    let parent: NodeId = started["node"].as_str().unwrap().parse().unwrap();
    let at: SocketAddr = started["address"].as_str().unwrap().parse().unwrap();
    seed.event("complete");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let me = Stranger::new(&site).await;
        let oversized = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
        let no_message = Bytes::from_static(&[0, 0, 0, 3, 0xff, 0xff, 0xff]);
        let second_hello =
            FromPeer::Hello { protocol: limits::PROTOCOL, nonce: [2; 32], instance: 1, linked: false }.encode();
        for garbage in [oversized, no_message, second_hello] {
            let (connection, _, mut writer, _reader) = me.connect(at, parent, 1).await;
            writer.send(garbage).await.unwrap();
            connection.closed().await;
        }
        // A stream that is neither control nor data, and a data stream for a content that is not there.
        let (connection, ..) = me.connect(at, parent, 1).await;
        connection.open_uni().await.unwrap().write_all(&[9, 9, 9]).await.unwrap();
        connection.closed().await;
        // Garbage to the control center ends that session only.
        let mut me = Stranger::new(&site).await;
        me.writer.send(Bytes::from_static(&[0xff, 0xff, 0xff, 0xff])).await.unwrap();
        me.control.closed().await;
    });
    let later = site.get(&name, "later", &[]);
    later.event("complete");
    assert!(site.same("later", "film"));
}
