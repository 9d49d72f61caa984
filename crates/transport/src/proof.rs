//! Who is at the other end of a control session where TLS does not tell: over WebSockets no client certificate is shown
//! (browsers would ask their users for one), and pages have none over WebTransport either. Both ends prove in band who
//! they are; see [`headwater_wire::web`].

use crate::framed::{Broken, ControlReader, ControlWriter, ReadError, Reader, Writer};
use crate::http::Io;
use crate::identity::Identity;
use crate::page::PeerConnection;
use crate::tls::node_of_certificate;
use crate::web::{self, Socket};
use bytes::{BufMut, Bytes, BytesMut};
use headwater_model::{Hash, NodeId};
use headwater_wire::WireError;
use headwater_wire::limits::{MAX_CONTROL_FRAME_BYTES, MAX_NODE_FRAME_BYTES, MAX_UNPROVED_MESSAGE_BYTES};
use headwater_wire::web::{Signer, WebAnswer, WebHello, WebProof, covered};
use quinn::{RecvStream, SendStream};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;
use tokio_tungstenite::tungstenite::protocol::Role;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A connection whose ends do not know yet who the other one is.
#[derive(Debug)]
pub enum Unproved {
    /// One that was upgraded to a WebSocket.
    WebSocket(Box<dyn Io>),
    /// The stream that a page opened on its WebTransport session.
    Page(PeerConnection, SendStream, RecvStream),
}

/// Messages on such a connection.
enum Messages {
    WebSocket(Box<Socket>, Role),
    Page(PeerConnection, Writer, Reader),
}

impl Messages {
    async fn of(connection: Unproved, role: Role, most_bytes: u32) -> Self {
        match connection {
            Unproved::WebSocket(io) => {
                Messages::WebSocket(Box::new(web::socket(io, role, most_bytes as usize).await), role)
            }
            Unproved::Page(page, send, receive) => Messages::Page(page, Writer(send), Reader::new(receive, most_bytes)),
        }
    }

    async fn receive(&mut self) -> Result<Bytes, ProofError> {
        let next = match self {
            Messages::WebSocket(socket, _) => web::next(socket.as_mut()).await?,
            Messages::Page(_, _, reader) => reader.next().await?,
        };
        next.ok_or(ProofError::Ended)
    }

    async fn send(&mut self, body: Bytes) -> Result<(), Broken> {
        match self {
            Messages::WebSocket(socket, _) => web::send(socket.as_mut(), body).await,
            Messages::Page(_, writer, _) => {
                let mut frame = BytesMut::with_capacity(4 + body.len());
                frame.put_u32(body.len() as u32);
                frame.put(body);
                writer.send(frame.freeze()).await.map_err(|e| Broken(e.to_string()))
            }
        }
    }

    /// From here on messages may be as large. The other end sends nothing before it is told to go on, so that nothing is
    /// lost that was read ahead.
    async fn allow(self, most_bytes: u32) -> Self {
        match self {
            Messages::WebSocket(socket, role) => {
                let socket = web::socket(socket.into_inner(), role, most_bytes as usize).await;
                Messages::WebSocket(Box::new(socket), role)
            }
            Messages::Page(page, writer, reader) => Messages::Page(page, writer, reader.allow(most_bytes)),
        }
    }

    fn proved(self, node: NodeId, certificate: Hash, page: bool) -> Proved {
        let (reader, writer) = match self {
            Messages::WebSocket(socket, _) => {
                let (reader, writer) = web::halves(*socket);
                (ControlReader::Web(reader), ControlWriter::Web(writer))
            }
            Messages::Page(page, writer, reader) => (ControlReader::Quic(reader), ControlWriter::Quic(writer, page)),
        };
        Proved { reader, writer, node, certificate, page }
    }
}

/// Why a session does not begin.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// Nothing could be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Nothing could be written.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// Something else than what was due.
    #[error("bad message: {0}")]
    Wire(#[from] WireError),
    /// The other end closed it.
    #[error("the other end closed the session before it had proved who it is")]
    Ended,
    /// No certificate of a P-256 key.
    #[error("the other end shows no certificate of a P-256 key")]
    Certificate,
    /// The key that it shows is not its own, or the proof was made for another session.
    #[error("the other end does not prove who it is: its signature is wrong")]
    Signature,
    /// Somebody else is there.
    #[error("another control center than the expected one answers")]
    OtherNode,
    /// TLS ends at somebody else's.
    #[error(
        "somebody between this node and the control center ends TLS: the control center shows another certificate than \
         the one that arrives here"
    )]
    Middleman,
    /// A node that is no page comes as one.
    #[error("only pages have sessions over WebTransport")]
    NoPage,
    /// The system has none.
    #[error("no randomness")]
    Randomness,
}

impl ProofError {
    /// Whether the connection ended, which the other end need not be to blame for.
    pub fn is_broken(&self) -> bool {
        match self {
            ProofError::Read(e) => e.is_broken(),
            ProofError::Broken(_) | ProofError::Ended => true,
            _ => false,
        }
    }
}

/// A session whose ends know who the other one is.
#[derive(Debug)]
pub struct Proved {
    /// Reads messages.
    pub reader: ControlReader,
    /// Writes messages.
    pub writer: ControlWriter,
    /// Who is at the other end.
    pub node: NodeId,
    /// SHA-256 of its certificate, or of a page's key.
    pub certificate: Hash,
    /// It is a page in a browser.
    pub page: bool,
}

/// The control center's part; `tls` is the SHA-256 of the certificate that its TLS shows, zeros without TLS. Over
/// WebTransport only pages are let in. How long it may take is the caller's business.
///
/// # Errors
/// [`ProofError`].
pub async fn prove_as_control(connection: Unproved, identity: &Identity, tls: Hash) -> Result<Proved, ProofError> {
    let is_page = matches!(connection, Unproved::Page(..));
    let mut messages = Messages::of(connection, Role::Server, MAX_UNPROVED_MESSAGE_BYTES as u32).await;
    let hello = WebHello::decode(messages.receive().await?)?;
    if is_page && !hello.page {
        return Err(ProofError::NoPage);
    }
    let (node, key) = if hello.page { page_key(&hello.certificate)? } else { known(&hello.certificate)? };
    let (nonce, own) = (nonce()?, Bytes::copy_from_slice(&identity.certificate));
    let signature =
        identity.sign(&covered(Signer::Control, &hello, &nonce, &tls, &own)).ok_or(ProofError::Randomness)?;
    let answer = covered(Signer::Node, &hello, &nonce, &tls, &own);
    messages.send(WebProof { nonce, certificate: own, tls, signature }.encode()).await?;
    let WebAnswer { signature } = WebAnswer::decode(messages.receive().await?)?;
    verify(&key, &answer, &signature)?;
    let mut messages = messages.allow(MAX_NODE_FRAME_BYTES).await;
    messages.send(Bytes::new()).await?;
    Ok(messages.proved(node, Hash::of(&[&hello.certificate]), hello.page))
}

/// The node's part; `tls` is the SHA-256 of the certificate that TLS showed here, zeros without TLS.
///
/// # Errors
/// [`ProofError`].
pub async fn prove_as_node(
    io: Box<dyn Io>,
    identity: &Identity,
    expected: Option<NodeId>,
    tls: Hash,
) -> Result<Proved, ProofError> {
    let hello = WebHello { nonce: nonce()?, certificate: Bytes::copy_from_slice(&identity.certificate), page: false };
    prove(Unproved::WebSocket(io), identity, hello, expected, Some(tls)).await
}

/// The part of a page, which has a key and no certificate, for what stands in for pages. `tls` is the certificate that it
/// wanted to see, over WebTransport; over a WebSocket it does not know what TLS showed.
///
/// # Errors
/// [`ProofError`].
pub async fn prove_as_page(
    connection: Unproved,
    identity: &Identity,
    expected: Option<NodeId>,
    tls: Option<Hash>,
) -> Result<Proved, ProofError> {
    let (_, parsed) = X509Certificate::from_der(&identity.certificate).map_err(|_| ProofError::Certificate)?;
    let key = Bytes::copy_from_slice(parsed.tbs_certificate.subject_pki.raw);
    prove(connection, identity, WebHello { nonce: nonce()?, certificate: key, page: true }, expected, tls).await
}

async fn prove(
    connection: Unproved,
    identity: &Identity,
    hello: WebHello,
    expected: Option<NodeId>,
    tls: Option<Hash>,
) -> Result<Proved, ProofError> {
    let mut messages = Messages::of(connection, Role::Client, MAX_CONTROL_FRAME_BYTES).await;
    messages.send(hello.encode()).await?;
    let proof = WebProof::decode(messages.receive().await?)?;
    let (node, key) = known(&proof.certificate)?;
    if expected.is_some_and(|expected| expected != node) {
        return Err(ProofError::OtherNode);
    }
    if tls.is_some_and(|tls| tls != proof.tls) {
        return Err(ProofError::Middleman);
    }
    verify(&key, &covered(Signer::Control, &hello, &proof.nonce, &proof.tls, &proof.certificate), &proof.signature)?;
    let covered = covered(Signer::Node, &hello, &proof.nonce, &proof.tls, &proof.certificate);
    let signature = identity.sign(&covered).ok_or(ProofError::Randomness)?;
    messages.send(WebAnswer { signature }.encode()).await?;
    // "Go on" has nothing in it.
    messages.receive().await?;
    Ok(messages.proved(node, Hash::of(&[&proof.certificate]), false))
}

fn nonce() -> Result<[u8; 32], ProofError> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|_| ProofError::Randomness)?;
    Ok(nonce)
}

/// Node and public key (an uncompressed point) of a certificate.
fn known(certificate: &Bytes) -> Result<(NodeId, Vec<u8>), ProofError> {
    let der = CertificateDer::from(certificate.as_ref());
    let node = node_of_certificate(&der).ok_or(ProofError::Certificate)?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| ProofError::Certificate)?;
    Ok((node, parsed.tbs_certificate.subject_pki.subject_public_key.data.to_vec()))
}

/// Node and public key (an uncompressed point) of a page, from its key as SubjectPublicKeyInfo.
fn page_key(key: &[u8]) -> Result<(NodeId, Vec<u8>), ProofError> {
    /// What stands before the point of a P-256 key (RFC 5480).
    const P256: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86, 0x48,
        0xCE, 0x3D, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let point = key.strip_prefix(&P256).filter(|p| p.len() == 65).ok_or(ProofError::Certificate)?;
    Ok((NodeId(Hash::of(&[key]).0), point.to_vec()))
}

/// Who a page is that dialled this peer, if its signature over [`page_covered`](headwater_wire::web::page_covered) is by
/// its key.
///
/// # Errors
/// [`ProofError::Certificate`] and [`ProofError::Signature`].
pub fn prove_page(key: &[u8], covered: &[u8], signature: &[u8]) -> Result<NodeId, ProofError> {
    let (node, point) = page_key(key)?;
    verify(&point, covered, signature)?;
    Ok(node)
}

fn verify(key: &[u8], covered: &[u8], signature: &[u8]) -> Result<(), ProofError> {
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key);
    key.verify(covered, signature).map_err(|_| ProofError::Signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex};

    const TLS: Hash = Hash([7; 32]);

    fn identity() -> Identity {
        Identity::ephemeral().unwrap()
    }

    fn ends() -> (Unproved, Box<dyn Io>) {
        let (a, b): (DuplexStream, DuplexStream) = duplex(64 << 10);
        (Unproved::WebSocket(Box::new(a)), Box::new(b))
    }

    #[tokio::test]
    async fn both_ends_learn_who_the_other_is_and_talk() {
        let (control, node) = (identity(), identity());
        let (a, b) = ends();
        let (at_control, at_node) =
            tokio::join!(prove_as_control(a, &control, TLS), prove_as_node(b, &node, Some(control.node), TLS));
        let (mut at_control, mut at_node) = (at_control.unwrap(), at_node.unwrap());
        assert_eq!((at_control.node, at_control.certificate), (node.node, node.certificate_hash));
        assert_eq!((at_node.node, at_node.certificate), (control.node, control.certificate_hash));
        let large = Bytes::from(vec![5; 4 + (1 << 20)]);
        let (sent, got) = tokio::join!(at_node.writer.send(large.clone()), at_control.reader.next());
        sent.unwrap();
        assert_eq!(got.unwrap().unwrap(), large.slice(4..));
        at_control.writer.finish().await.unwrap();
        assert!(at_node.reader.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn another_control_center_and_another_tls_certificate_are_refused() {
        let (control, node) = (identity(), identity());
        for (expected, tls, says) in
            [(identity().node, TLS, "another control center"), (control.node, Hash([8; 32]), "ends TLS")]
        {
            let (a, b) = ends();
            let (at_control, at_node) =
                tokio::join!(prove_as_control(a, &control, TLS), prove_as_node(b, &node, Some(expected), tls));
            assert!(at_node.unwrap_err().to_string().contains(says));
            assert!(at_control.is_err());
        }
    }

    /// A node that speaks by hand: what the control center says to `answer`, made from its proof.
    async fn by_hand(
        hello: WebHello,
        control: &Identity,
        answer: impl FnOnce(&WebProof) -> Bytes,
    ) -> Result<Proved, ProofError> {
        let (a, b) = ends();
        let node = async {
            let mut messages = Messages::of(Unproved::WebSocket(b), Role::Client, 1 << 20).await;
            messages.send(hello.encode()).await.unwrap();
            if let Ok(body) = messages.receive().await {
                let answer = answer(&WebProof::decode(body).unwrap());
                let _ = messages.send(answer).await;
                let _ = messages.receive().await;
            }
        };
        tokio::join!(prove_as_control(a, control, TLS), node).0
    }

    /// A key as pages show it.
    fn key_of(identity: &Identity) -> Bytes {
        let (_, parsed) = X509Certificate::from_der(&identity.certificate).unwrap();
        Bytes::copy_from_slice(parsed.tbs_certificate.subject_pki.raw)
    }

    #[tokio::test]
    async fn a_page_has_a_key_in_place_of_a_certificate() {
        let (control, page, thief) = (identity(), identity(), identity());
        let hello = || WebHello { nonce: [1; 32], certificate: key_of(&page), page: true };
        let sign = |who: &Identity, p: &WebProof| {
            let covered = covered(Signer::Node, &hello(), &p.nonce, &p.tls, &p.certificate);
            WebAnswer { signature: who.sign(&covered).unwrap() }.encode()
        };
        let right = by_hand(hello(), &control, |p| sign(&page, p)).await.unwrap();
        assert_eq!((right.node, right.page), (page.node, true));
        assert_eq!(right.certificate, Hash::of(&[&key_of(&page)]));
        let wrong = by_hand(hello(), &control, |p| sign(&thief, p)).await;
        assert!(matches!(wrong, Err(ProofError::Signature)), "another page's key");
        let certificate = WebHello { certificate: Bytes::copy_from_slice(&[0x30; 91]), ..hello() };
        assert!(matches!(by_hand(certificate, &control, |_| Bytes::new()).await, Err(ProofError::Certificate)));
    }

    #[test]
    fn a_page_proves_itself_to_the_peer_that_it_dialled_and_to_no_other() {
        use headwater_wire::web::page_covered;
        let (page, peer, other) = (identity(), identity(), identity());
        let said = |peer: &Identity, nonce| page_covered(&[nonce; 32], &[2; 32], &peer.node);
        let signature = page.sign(&said(&peer, 1)).unwrap();
        let proves = |covered: Vec<u8>| prove_page(&key_of(&page), &covered, &signature).ok();
        assert_eq!(proves(said(&peer, 1)), Some(page.node));
        assert_eq!(proves(said(&peer, 3)), None, "on another connection");
        assert_eq!(proves(said(&other, 1)), None, "at another peer");
        assert!(prove_page(&key_of(&other), &said(&peer, 1), &signature).is_err(), "as somebody else");
    }

    #[tokio::test]
    async fn a_wrong_key_a_replay_and_nonsense_are_refused() {
        let (control, node, thief) = (identity(), identity(), identity());
        let hello = || WebHello { nonce: [1; 32], certificate: Bytes::copy_from_slice(&node.certificate), page: false };
        let sign = |who: &Identity, p: &WebProof, tls: &Hash| {
            let covered = covered(Signer::Node, &hello(), &p.nonce, tls, &p.certificate);
            WebAnswer { signature: who.sign(&covered).unwrap() }.encode()
        };
        let right = by_hand(hello(), &control, |p| sign(&node, p, &p.tls)).await;
        assert_eq!(right.unwrap().node, node.node);
        let wrong = by_hand(hello(), &control, |p| sign(&thief, p, &p.tls)).await;
        assert!(matches!(wrong, Err(ProofError::Signature)), "the certificate of another node");
        let relayed = by_hand(hello(), &control, |p| sign(&node, p, &Hash([9; 32]))).await;
        assert!(matches!(relayed, Err(ProofError::Signature)), "signed for another TLS certificate");
        let mut heard = Bytes::new();
        let first = by_hand(hello(), &control, |p| {
            heard = sign(&node, p, &p.tls);
            heard.clone()
        });
        assert!(first.await.is_ok());
        let replayed = by_hand(hello(), &control, |_| heard.clone()).await;
        assert!(matches!(replayed, Err(ProofError::Signature)), "an answer heard before");
        let reflected = by_hand(hello(), &control, |p| WebAnswer { signature: p.signature }.encode()).await;
        assert!(matches!(reflected, Err(ProofError::Signature)), "the control center's own signature");
        let nothing = WebHello { certificate: Bytes::from_static(b"no certificate"), ..hello() };
        assert!(matches!(by_hand(nothing, &control, |_| Bytes::new()).await, Err(ProofError::Certificate)));
        let large = WebHello { certificate: vec![0; 5000].into(), ..hello() };
        let said = by_hand(large, &control, |_| Bytes::new()).await;
        assert!(matches!(said, Err(ProofError::Read(ReadError::WebMessage(_)))), "{said:?}");
    }
}
