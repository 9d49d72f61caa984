//! What precedes a session over a WebSocket, where no TLS client certificate tells who the node is: both ends sign over
//! both nonces and the TLS certificate that the control center shows, so that a middleman who ends TLS is found out.
//! And what a child shows to a waypoint by HTTPS.

use super::*;
use crate::limits::MAX_UNPROVED_MESSAGE_BYTES;
use crate::shape;
use prost::Message;

/// Bytes of a signature: r and s on P-256.
pub const SIGNATURE_BYTES: usize = 64;

/// A node begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebHello {
    /// Random.
    pub nonce: [u8; 32],
    /// Its X.509 certificate, DER; of a page, which has none, its public key (SubjectPublicKeyInfo, DER).
    pub certificate: Bytes,
    /// It is a page in a browser.
    pub page: bool,
}

/// The control center proves who it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebProof {
    /// Random.
    pub nonce: [u8; 32],
    /// Its identity's X.509 certificate, DER; TLS may show another one.
    pub certificate: Bytes,
    /// SHA-256 of the certificate that its TLS shows; zeros without TLS.
    pub tls: Hash,
    /// Over [`covered`] for [`Signer::Control`].
    pub signature: [u8; SIGNATURE_BYTES],
}

/// The node proves who it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebAnswer {
    /// Over [`covered`] for [`Signer::Node`].
    pub signature: [u8; SIGNATURE_BYTES],
}

/// Who signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signer {
    /// The control center.
    Control,
    /// The node.
    Node,
}

/// What a signature covers: who signs, both nonces, the TLS certificate, and both identities, so that no signature is of
/// use in another direction, session, connection or company.
pub fn covered(signer: Signer, hello: &WebHello, nonce: &[u8; 32], tls: &Hash, control_certificate: &[u8]) -> Vec<u8> {
    let context: &[u8] = match signer {
        Signer::Control => b"headwater websocket control/1\0",
        Signer::Node => b"headwater websocket node/1\0",
    };
    let (of_node, of_control) = (Hash::of(&[&hello.certificate]), Hash::of(&[control_certificate]));
    [context, &hello.nonce, nonce, &tls.0, &of_node.0, &of_control.0].concat()
}

/// What a page signs for a peer that it dialled: both nonces, the peer's first, and whom it takes the peer for, so that
/// nobody can use it on another connection or pass it on.
pub fn page_covered(peer_nonce: &[u8; 32], page_nonce: &[u8; 32], peer: &NodeId) -> Vec<u8> {
    [&b"headwater page/1\0"[..], peer_nonce, page_nonce, &peer.0].concat()
}

impl WebHello {
    /// Reads a message.
    ///
    /// # Errors
    /// [`WireError`] for anything that is not a message within its limits; likewise below.
    pub fn decode(body: Bytes) -> Result<Self, WireError> {
        within_limit(&body)?;
        shape::check(&body, &shape::WEB_HELLO)?;
        let m = proto::WebHello::decode(body)?;
        let page = m.certificate.is_empty() && !m.key.is_empty();
        let shown = if page { m.key } else { m.certificate };
        Ok(Self { nonce: array("nonce", &m.nonce)?, certificate: certificate(shown)?, page })
    }
    /// A message.
    pub fn encode(&self) -> Bytes {
        let (shown, none) = (self.certificate.clone(), Bytes::new());
        let (certificate, key) = if self.page { (none, shown) } else { (shown, none) };
        proto::WebHello { nonce: copy(&self.nonce), certificate, key }.encode_to_vec().into()
    }
}

impl WebProof {
    /// Reads a message.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(body: Bytes) -> Result<Self, WireError> {
        within_limit(&body)?;
        shape::check(&body, &shape::WEB_PROOF)?;
        let m = proto::WebProof::decode(body)?;
        Ok(Self {
            nonce: array("nonce", &m.nonce)?,
            certificate: certificate(m.certificate)?,
            tls: hash("tls", &m.tls)?,
            signature: array("signature", &m.signature)?,
        })
    }
    /// A message.
    pub fn encode(&self) -> Bytes {
        let m = proto::WebProof {
            nonce: copy(&self.nonce),
            certificate: self.certificate.clone(),
            tls: copy(&self.tls.0),
            signature: copy(&self.signature),
        };
        m.encode_to_vec().into()
    }
}

impl WebAnswer {
    /// Reads a message.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(body: Bytes) -> Result<Self, WireError> {
        within_limit(&body)?;
        shape::check(&body, &shape::WEB_ANSWER)?;
        Ok(Self { signature: array("signature", &proto::WebAnswer::decode(body)?.signature)? })
    }
    /// A message.
    pub fn encode(&self) -> Bytes {
        proto::WebAnswer { signature: copy(&self.signature) }.encode_to_vec().into()
    }
}

/// What a child shows to a waypoint with each request by HTTPS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpsTicket {
    /// The ticket.
    pub ticket: Ticket,
    /// [`Ticket::prove`] over [`https_nonce`] and the waypoint's certificate.
    pub proof: [u8; 32],
}

impl HttpsTicket {
    /// Reads a message.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(body: Bytes) -> Result<Self, WireError> {
        within_limit(&body)?;
        shape::check(&body, &shape::HTTPS_TICKET)?;
        let m = proto::HttpsTicket::decode(body)?;
        Ok(Self { ticket: ticket(m.ticket.ok_or(WireError::Missing("ticket"))?)?, proof: array("proof", &m.proof)? })
    }
    /// A message.
    pub fn encode(&self) -> Bytes {
        let m = proto::HttpsTicket { ticket: Some(ticket_to_proto(&self.ticket)), proof: copy(&self.proof) };
        m.encode_to_vec().into()
    }
}

/// What stands in a proof by HTTPS for the nonce of a connection: the path that is asked for. TLS with the waypoint's
/// own key keeps the proof from everyone else, so that it needs no nonce of the waypoint.
pub fn https_nonce(path: &str) -> [u8; 32] {
    Hash::of(&[b"headwater https request\0", path.as_bytes()]).0
}

fn within_limit(body: &Bytes) -> Result<(), WireError> {
    if body.len() > MAX_UNPROVED_MESSAGE_BYTES {
        return Err(WireError::Length { field: "message", got: body.len(), limit: MAX_UNPROVED_MESSAGE_BYTES });
    }
    Ok(())
}

fn certificate(der: Bytes) -> Result<Bytes, WireError> {
    if der.is_empty() { Err(WireError::Missing("certificate")) } else { Ok(der) }
}
