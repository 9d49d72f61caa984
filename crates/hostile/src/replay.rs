//! Tickets where they do not belong, and edges without one.

use crate::Setup;
use crate::story::Story;
use crate::wires;
use headwater_model::assignment::Reach;
use headwater_model::{NodeId, Ticket, Version};
use headwater_transport::{Alpn, Listener, Reader, Writer, certificate_of};
use headwater_wire::{FromPeer, GivenTicket};
use quinn::Connection;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a parent may take to answer, and to send what it should not.
const PATIENCE: Duration = Duration::from_secs(2);
/// Tries to have a second connection, and the pause before each.
const TRIES: usize = 4;
const PAUSE: Duration = Duration::from_millis(300);
/// A day, in milliseconds: longer than any ticket lives.
const DAY_MS: u64 = 24 * 3600 * 1000;

/// A connection on which tickets are shown.
struct Counter {
    parent: NodeId,
    connection: Connection,
    writer: Writer,
    reader: Reader,
    nonce: [u8; 32],
    story: Story,
}

/// Shows `given` in every way that must not work, to its parent and to all `known` others.
pub async fn attack(setup: Arc<Setup>, story: Story, given: GivenTicket, known: BTreeMap<NodeId, Reach>) {
    let parent = given.ticket.parent;
    let Some(reach) = known.get(&parent) else { return };
    let own = &setup.listener;
    let altered = |change: &dyn Fn(&mut Ticket)| {
        let mut ticket = given.ticket.clone();
        change(&mut ticket);
        ticket
    };
    if let Some(mut at) = connect(own, parent, reach, &story).await {
        let later = altered(&|t| t.expires_unix_ms += DAY_MS);
        at.show("an altered ticket (expiry)", &given, later).await;
        at.show("an expired ticket", &given, altered(&|t| t.expires_unix_ms = 1)).await;
        at.show("an altered ticket (highest piece)", &given, altered(&|t| t.highest_piece = u32::MAX)).await;
        at.show("an altered ticket (epoch)", &given, altered(&|t| t.version.epoch += 1)).await;
        at.show("an altered ticket (key number)", &given, altered(&|t| t.key_number += 1)).await;
        at.show("no ticket", &given, altered(&|t| t.mac = [0; 32])).await;
        // The proof of an earlier connection.
        let stale = at.proof(&given);
        at.connection.close(0u32.into(), b"");
        let open = |proof| (given.ticket.version, given.ticket.clone(), proof);
        for _ in 0..TRIES {
            // The parent takes few connections of one node, and lets go of the last one a moment later.
            tokio::time::sleep(PAUSE).await;
            let Some(mut second) = connect(own, parent, reach, &story).await else { continue };
            second.try_open("a proof of another connection", open(stale)).await;
            second.try_open("a ticket without a proof", open([0; 32])).await;
            second.ask_without_edge(given.ticket.version).await;
            break;
        }
    }
    for (other, reach) in known.iter().filter(|(n, _)| **n != parent) {
        if let Some(mut at) = connect(own, *other, reach, &story).await {
            at.show("another parent's ticket", &given, given.ticket.clone()).await;
            at.show("another parent's ticket, renamed", &given, altered(&|t| t.parent = *other)).await;
        }
    }
    // A thief has ticket and secret, but not the identity.
    if let Ok(thief) = setup.stranger()
        && let Some(mut at) = connect(&thief, parent, reach, &story).await
    {
        at.show("a stolen ticket", &given, given.ticket.clone()).await;
        let thief = thief.identity().node;
        at.show("a stolen ticket, renamed", &given, altered(&|t| t.child = thief)).await;
    }
}

async fn connect(from: &Listener, parent: NodeId, reach: &Reach, story: &Story) -> Option<Counter> {
    let at = *reach.addresses.first()?;
    let begun = async {
        let connection = from.dial(at, Some(parent), Alpn::Peer).await.map_err(|e| e.to_string())?;
        let writer = wires::greet(&connection.clone().into()).await.map_err(|e| e.to_string())?;
        let (reader, nonce) = wires::greeted(&connection.clone().into()).await?;
        Ok::<_, String>((connection, writer, reader, nonce))
    };
    match tokio::time::timeout(PATIENCE, begun).await {
        Ok(Ok((connection, writer, reader, nonce))) => {
            Some(Counter { parent, connection, writer, reader, nonce, story: story.clone() })
        }
        Ok(Err(why)) => {
            story.refused(parent, "connection", &why);
            None
        }
        Err(_) => None,
    }
}

impl Counter {
    fn proof(&self, given: &GivenTicket) -> [u8; 32] {
        let certificate = certificate_of(&self.connection).unwrap_or_default();
        Ticket::prove(&given.secret.0, &self.nonce, &certificate)
    }

    async fn show(&mut self, what: &str, given: &GivenTicket, ticket: Ticket) {
        let proof = self.proof(given);
        self.try_open(what, (ticket.version, ticket, proof)).await;
    }

    async fn try_open(&mut self, what: &str, (version, ticket, proof): (Version, Ticket, [u8; 32])) {
        self.story.count("tries", 1);
        if self.writer.send(FromPeer::OpenEdge { version, ticket, proof }.encode()).await.is_err() {
            return self.story.refused(self.parent, what, "the connection ended");
        }
        let answer = async {
            while let Ok(Some(body)) = self.reader.next().await {
                if let Ok(FromPeer::EdgeAnswer { refusal, .. }) = FromPeer::decode(body) {
                    return Some(refusal);
                }
            }
            None
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Some(None)) => self.story.harm(self.parent, &format!("accepted {what}")),
            Ok(Some(Some((code, why)))) => self.story.refused(self.parent, what, &format!("{code}: {why}")),
            Ok(None) => self.story.refused(self.parent, what, "the connection ended"),
            Err(_) => self.story.refused(self.parent, what, "no answer"),
        }
    }

    /// Pieces and hashes, asked for without any edge on this connection.
    async fn ask_without_edge(&mut self, version: Version) {
        let asks = [FromPeer::PageRequest { version, page: 0 }, FromPeer::Request { version, pieces: vec![0, 1, 2] }];
        for ask in asks {
            if self.writer.send(ask.encode()).await.is_err() {
                return;
            }
        }
        let parent = self.parent;
        tokio::select! {
            stream = self.connection.accept_uni() => if stream.is_ok() {
                self.story.harm(parent, "sent pieces without an edge");
            },
            read = self.reader.next() => if let Ok(Some(body)) = read
                && let Ok(FromPeer::Page { .. }) = FromPeer::decode(body)
            {
                self.story.harm(parent, "sent hashes without an edge");
            },
            () = tokio::time::sleep(PATIENCE) => self.story.refused(parent, "asking without an edge", "no answer"),
        }
    }
}
