//! Pages in browsers as peers: WebTransport (draft-ietf-webtrans-http3) on the endpoint that speaks QUIC with nodes, told
//! apart by ALPN, with certificates that browsers accept by their hash; and connections that are of one kind or the other.
//!
//! Browsers take a certificate by its hash only if its key is on P-256 and it is valid for 14 days at most. So there are
//! two at a time, the one that is shown and the next one, and whoever was told both hashes is right for days.

use crate::endpoint::Alpn;
use bytes::{Bytes, BytesMut};
use headwater_model::Hash;
use quinn::{Connection, RecvStream, SendStream};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use web_transport_proto::{ConnectRequest, ConnectResponse, Frame, Settings, StreamUni, VarInt};

/// What a page asks for when it connects.
pub const PAGE_PATH: &str = "/headwater/1";
/// How long one certificate is shown before the next one takes its place.
const SHOWN_FOR: Duration = Duration::from_secs(6 * 24 * 3600);
/// A certificate counts so long before it is made: pages' clocks may be behind.
const VALID_BEFORE: Duration = Duration::from_secs(24 * 3600);
/// And so long after: it is the next one for as long as it is shown then. Together less than 14 days.
const VALID_AFTER: Duration = Duration::from_secs(2 * 6 * 24 * 3600 + 12 * 3600);
/// How long a page may take for its request, and a stream for its first bytes.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a page that is refused may take to leave.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Streams of a page that wait to be taken.
const MAX_WAITING_STREAMS: usize = 16;
/// Bytes of a page on each of HTTP/3's own streams: it says little there, and nothing that matters.
const MAX_BYTES_UNHEARD: usize = 16 << 10;
/// How often it is looked whether another certificate is due: a machine that slept does not know how long.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// The certificates that are shown to pages.
pub struct PageCertificates(Mutex<Pair>);

struct Pair {
    shown: Made,
    next: Made,
    since: SystemTime,
}

#[derive(Clone)]
struct Made {
    key: Arc<CertifiedKey>,
    hash: Hash,
}

impl std::fmt::Debug for PageCertificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.hashes()).finish()
    }
}

impl PageCertificates {
    /// Two new ones, of which the first counts at `now`.
    ///
    /// # Errors
    /// When no certificate can be made, in words.
    pub fn new(now: SystemTime) -> Result<Self, String> {
        Ok(Self(Mutex::new(Pair { shown: make(now)?, next: make(now)?, since: now })))
    }

    /// SHA-256 of the one that is shown, and of the next one.
    pub fn hashes(&self) -> [Hash; 2] {
        let pair = self.pair();
        [pair.shown.hash, pair.next.hash]
    }

    /// When [`PageCertificates::rotate`] is due.
    pub fn rotates_at(&self) -> SystemTime {
        self.pair().since + SHOWN_FOR
    }

    /// The next one is shown from now on, and there is another next one.
    ///
    /// # Errors
    /// As of [`PageCertificates::new`]; nothing is changed then.
    pub fn rotate(&self, now: SystemTime) -> Result<(), String> {
        let another = make(now)?;
        let mut pair = self.pair();
        pair.shown = std::mem::replace(&mut pair.next, another);
        pair.since = now;
        Ok(())
    }

    /// Shows the next one whenever it is due, and calls `rotated` then; for ever.
    pub async fn keep(&self, rotated: impl Fn()) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = SystemTime::now();
            if now < self.rotates_at() {
                continue;
            }
            match self.rotate(now) {
                Ok(()) => rotated(),
                Err(e) => tracing::warn!("pages see the former certificate on: {e}"),
            }
        }
    }

    fn pair(&self) -> MutexGuard<'_, Pair> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make(now: SystemTime) -> Result<Made, String> {
    let words = |e: rcgen::Error| e.to_string();
    let unix = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = |after_epoch: Duration| rcgen::date_time_ymd(1970, 1, 1) + after_epoch;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(words)?;
    let mut params = CertificateParams::new(vec!["headwater".to_owned()]).map_err(words)?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "headwater");
    params.not_before = date(unix.saturating_sub(VALID_BEFORE));
    params.not_after = date(unix + VALID_AFTER);
    let certificate = params.self_signed(&key).map_err(words)?;
    let private: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let signing = rustls::crypto::ring::sign::any_ecdsa_type(&private).map_err(|e| e.to_string())?;
    let hash = Hash::of(&[certificate.der()]);
    Ok(Made { key: Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signing)), hash })
}

/// Shows pages and nodes what each of them accepts.
#[derive(Debug)]
pub(crate) struct ByAlpn {
    pub(crate) node: Arc<CertifiedKey>,
    pub(crate) pages: Arc<PageCertificates>,
}

impl ResolvesServerCert for ByAlpn {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_page = hello.alpn().is_some_and(|mut all| all.any(|a| a == Alpn::Page.id()));
        Some(if is_page { self.pages.pair().shown.key.clone() } else { self.node.clone() })
    }
}

/// Why a page's connection does not become one of a peer.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// It broke.
    #[error("the connection broke: {0}")]
    Connection(#[from] quinn::ConnectionError),
    /// What is said is no WebTransport.
    #[error("no WebTransport: {0}")]
    Protocol(String),
    /// It asks for something that is not here.
    #[error("it asks for {0}")]
    Path(String),
    /// It says nothing.
    #[error("it said nothing for 5 s")]
    Silent,
}

/// A connection between peers, or with the control center: QUIC's own, or a WebTransport session of a page, which ends with
/// the last clone as QUIC's own do. Whatever is not said here is QUIC's.
#[derive(Clone, Debug)]
pub struct PeerConnection {
    quic: Connection,
    page: Option<Arc<Session>>,
}

/// A WebTransport session, and what has to stay open for as long as it does.
#[derive(Debug)]
struct Session {
    quic: Connection,
    /// Of the stream that asked for it.
    id: VarInt,
    /// Before each stream that is opened here.
    stream_header: Bytes,
    /// Before each datagram.
    datagram_header: Bytes,
    streams: tokio::sync::Mutex<mpsc::Receiver<RecvStream>>,
    _settings: SendStream,
    _connect: SendStream,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Tasks that sort its streams hold the connection too.
        self.quic.close(0u32.into(), b"");
    }
}

impl From<Connection> for PeerConnection {
    fn from(quic: Connection) -> Self {
        Self { quic, page: None }
    }
}

impl Deref for PeerConnection {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.quic
    }
}

impl PeerConnection {
    /// A page's connection, its request answered.
    ///
    /// # Errors
    /// [`PageError`].
    pub async fn of_page(quic: Connection) -> Result<Self, PageError> {
        let begun = tokio::time::timeout(PATIENCE, begin(&quic)).await.map_err(|_| PageError::Silent)?;
        Ok(Self { page: Some(Arc::new(begun?)), quic })
    }

    /// Whether a page is at the other end: TLS says nothing of who it is.
    pub fn is_page(&self) -> bool {
        self.page.is_some()
    }

    /// Opens a stream to the other end.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn open_uni(&self) -> Result<SendStream, quinn::ConnectionError> {
        let mut stream = self.quic.open_uni().await?;
        if let Some(page) = &self.page
            && stream.write_chunk(page.stream_header.clone()).await.is_err()
        {
            return Err(self.quic.close_reason().unwrap_or(quinn::ConnectionError::LocallyClosed));
        }
        Ok(stream)
    }

    /// The next stream that the other end opens.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn accept_uni(&self) -> Result<RecvStream, quinn::ConnectionError> {
        let Some(page) = &self.page else { return self.quic.accept_uni().await };
        match page.streams.lock().await.recv().await {
            Some(stream) => Ok(stream),
            None => Err(self.quic.closed().await),
        }
    }

    /// The next stream in both directions that the other end opens.
    ///
    /// # Errors
    /// When the connection is lost, or the stream is none of a page's session.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), PageError> {
        let (send, mut receive) = self.quic.accept_bi().await?;
        let Some(page) = &self.page else { return Ok((send, receive)) };
        let mut header = [VarInt::default(); 2];
        for part in &mut header {
            *part = VarInt::read(&mut receive).await.map_err(|e| PageError::Protocol(e.to_string()))?;
        }
        if header != [Frame::WEBTRANSPORT.0, page.id] {
            return Err(PageError::Protocol("a stream that is not of its session".into()));
        }
        Ok((send, receive))
    }

    /// Sends a datagram; it may be lost.
    ///
    /// # Errors
    /// As QUIC's.
    pub fn send_datagram(&self, data: Bytes) -> Result<(), quinn::SendDatagramError> {
        let Some(page) = &self.page else { return self.quic.send_datagram(data) };
        let mut framed = BytesMut::with_capacity(page.datagram_header.len() + data.len());
        framed.extend_from_slice(&page.datagram_header);
        framed.extend_from_slice(&data);
        self.quic.send_datagram(framed.freeze())
    }

    /// The next datagram.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn read_datagram(&self) -> Result<Bytes, quinn::ConnectionError> {
        loop {
            let datagram = self.quic.read_datagram().await?;
            match &self.page {
                None => return Ok(datagram),
                // One of another session is nobody's.
                Some(page) => {
                    if let Some(rest) = datagram.strip_prefix(&page.datagram_header[..]) {
                        return Ok(datagram.slice_ref(rest));
                    }
                }
            }
        }
    }
}

async fn begin(quic: &Connection) -> Result<Session, PageError> {
    let no = |e: &dyn std::fmt::Display| PageError::Protocol(e.to_string());
    let mut settings = Settings::default();
    settings.enable_webtransport(1);
    let mut control = quic.open_uni().await?;
    settings.write(&mut control).await.map_err(|e| no(&e))?;
    let (taken, streams) = mpsc::channel(MAX_WAITING_STREAMS);
    let (mut send, mut receive) = quic.accept_bi().await?;
    let request = ConnectRequest::read(&mut receive).await.map_err(|e| no(&e))?;
    if request.url.path() != PAGE_PATH {
        let _ = ConnectResponse::new(web_transport_proto::http::StatusCode::NOT_FOUND).write(&mut send).await;
        let _ = send.finish();
        // What closes the connection at this end next would overtake the answer: the page closes it when it has read that.
        let _ = tokio::time::timeout(ANSWER_WITHIN, quic.closed()).await;
        return Err(PageError::Path(format!("{:.80}", request.url.path())));
    }
    let id = VarInt::from_u64(quinn::VarInt::from(send.id()).into_inner()).map_err(|e| no(&e))?;
    ConnectResponse::OK.write(&mut send).await.map_err(|e| no(&e))?;
    tokio::spawn(sort_streams(quic.clone(), id, taken));
    tokio::spawn(end_with_request(quic.clone(), receive));
    let (mut stream_header, mut datagram_header) = (BytesMut::new(), BytesMut::new());
    StreamUni::WEBTRANSPORT.encode(&mut stream_header);
    id.encode(&mut stream_header);
    // RFC 9297: a quarter of the request's stream id.
    VarInt::from_u64(id.into_inner() / 4).map_err(|e| no(&e))?.encode(&mut datagram_header);
    Ok(Session {
        quic: quic.clone(),
        id,
        stream_header: stream_header.freeze(),
        datagram_header: datagram_header.freeze(),
        streams: tokio::sync::Mutex::new(streams),
        _settings: control,
        _connect: send,
    })
}

/// The session ends with the stream that asked for it.
async fn end_with_request(quic: Connection, mut request: RecvStream) {
    match forget(&mut request).await {
        true => quic.close(0u32.into(), b"the page left"),
        false => quic.close(1u32.into(), TOO_MUCH),
    }
}

const TOO_MUCH: &[u8] = b"too much where nothing is to be said";

/// Reads a stream to its end; false when there is more than is borne.
async fn forget(stream: &mut RecvStream) -> bool {
    let (mut rest, mut heard) = ([0; 256], 0);
    while let Ok(Some(n)) = stream.read(&mut rest).await {
        heard += n;
        if heard > MAX_BYTES_UNHEARD {
            return false;
        }
    }
    true
}

/// Hands streams of the session on; HTTP/3's own are read and forgotten: no page says anything on them that matters.
async fn sort_streams(quic: Connection, session: VarInt, taken: mpsc::Sender<RecvStream>) {
    while let Ok(mut stream) = quic.accept_uni().await {
        let (taken, quic) = (taken.clone(), quic.clone());
        // A stream may be opened long before its first byte is sent.
        tokio::spawn(async move {
            let Ok(kind) = VarInt::read(&mut stream).await else { return };
            if StreamUni(kind) == StreamUni::WEBTRANSPORT {
                if VarInt::read(&mut stream).await == Ok(session) {
                    let _ = taken.send(stream).await;
                }
                return;
            }
            if !forget(&mut stream).await {
                quic.close(1u32.into(), TOO_MUCH);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::identity::Identity;
    use crate::tls::{Shows, https_client_config, node_of};
    use crate::{Listener, bind};
    use quinn::crypto::rustls::QuicClientConfig;
    use web_transport_proto::ConnectError;

    /// As a browser does: no certificate of its own, the other's known by its hash.
    async fn dialled(server: &Listener, hash: Hash, alpn: Alpn) -> Result<Connection, quinn::ConnectionError> {
        let (mut tls, _) = https_client_config(Shows::This(hash)).unwrap();
        tls.alpn_protocols = vec![alpn.id().to_vec()];
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let client = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        client.connect_with(config, server.address().unwrap(), "127.0.0.1").unwrap().await
    }

    /// Asks for a session; what has to stay open for it, and the answer's status.
    async fn asked(page: &Connection, path: &str) -> ((SendStream, SendStream, RecvStream), u16) {
        let mut settings = Settings::default();
        settings.enable_webtransport(1);
        let mut control = page.open_uni().await.unwrap();
        settings.write(&mut control).await.unwrap();
        let (mut send, mut receive) = page.open_bi().await.unwrap();
        let url: url::Url = format!("https://127.0.0.1{path}").parse().unwrap();
        ConnectRequest::new(url).write(&mut send).await.unwrap();
        let status = match ConnectResponse::read(&mut receive).await {
            Ok(answer) => answer.status,
            Err(ConnectError::WrongStatus(Some(status))) => status,
            Err(e) => panic!("{e}"),
        };
        ((control, send, receive), status.as_u16())
    }

    fn server() -> Listener {
        // As the control center, so that a page has a stream in both directions besides the one that asks for its session.
        let accept = [Alpn::Control, Alpn::Peer, Alpn::Probe, Alpn::Page];
        bind("127.0.0.1:0".parse().unwrap(), Arc::new(Identity::ephemeral().unwrap()), &accept).unwrap()
    }

    async fn accepted(server: &Listener) -> Connection {
        server.endpoint.accept().await.unwrap().await.unwrap()
    }

    #[tokio::test]
    async fn pages_and_nodes_come_to_one_port() {
        let server = server();
        let [hash, _] = server.pages().unwrap().hashes();
        let (page, at_server) = tokio::join!(dialled(&server, hash, Alpn::Page), accepted(&server));
        let page = page.unwrap();
        assert_eq!((Alpn::of(&at_server), node_of(&at_server)), (Some(Alpn::Page), None));
        let (session, asked) = tokio::join!(PeerConnection::of_page(at_server), asked(&page, PAGE_PATH));
        let (session, (open, status)) = (session.unwrap(), asked);
        assert_eq!(status, 200);
        let mut out = session.open_uni().await.unwrap();
        out.write_all(b"to the page").await.unwrap();
        out.finish().unwrap();
        // Its settings come first.
        let mut heard = Vec::new();
        for _ in 0..2 {
            let mut stream = page.accept_uni().await.unwrap();
            let kind = VarInt::read(&mut stream).await.unwrap();
            if StreamUni(kind) == StreamUni::WEBTRANSPORT {
                VarInt::read(&mut stream).await.unwrap();
                heard = stream.read_to_end(100).await.unwrap();
            }
        }
        assert_eq!(heard, b"to the page");
        let (mut to_session, _) = page.open_bi().await.unwrap();
        let mut header = Vec::new();
        Frame::WEBTRANSPORT.encode(&mut header);
        VarInt::from_u32(0).encode(&mut header);
        to_session.write_all(&[&header[..], b"both ways"].concat()).await.unwrap();
        to_session.finish().unwrap();
        let (_, mut stream) = session.accept_bi().await.unwrap();
        assert_eq!(stream.read_to_end(100).await.unwrap(), b"both ways");
        let mut own = page.open_uni().await.unwrap();
        let mut header = Vec::new();
        StreamUni::WEBTRANSPORT.encode(&mut header);
        VarInt::from_u32(0).encode(&mut header);
        own.write_all(&header).await.unwrap();
        own.write_all(b"from the page").await.unwrap();
        own.finish().unwrap();
        let mut stream = session.accept_uni().await.unwrap();
        assert_eq!(stream.read_to_end(100).await.unwrap(), b"from the page");
        page.send_datagram(Bytes::from_static(b"\0probe")).unwrap();
        assert_eq!(session.read_datagram().await.unwrap(), &b"probe"[..]);
        drop(open);
        session.closed().await;

        let node = bind("127.0.0.1:0".parse().unwrap(), Arc::new(Identity::ephemeral().unwrap()), &[]).unwrap();
        let to = server.address().unwrap();
        let dial = node.dial(to, Some(server.identity().node), Alpn::Peer);
        let (dialled, at_server) = tokio::join!(dial, accepted(&server));
        dialled.unwrap();
        assert_eq!(node_of(&at_server), Some(node.identity().node));
    }

    /// A page with a session at `server`, and what stays open for it.
    async fn with_session(server: &Listener) -> (Connection, PeerConnection, (SendStream, SendStream, RecvStream)) {
        let [hash, _] = server.pages().unwrap().hashes();
        let (page, at_server) = tokio::join!(dialled(server, hash, Alpn::Page), accepted(server));
        let page = page.unwrap();
        let (session, (open, _)) = tokio::join!(PeerConnection::of_page(at_server), asked(&page, PAGE_PATH));
        (page, session.unwrap(), open)
    }

    #[tokio::test]
    async fn a_session_ends_with_its_last_clone_and_takes_its_own_streams_only() {
        let server = server();
        let (page, session, _open) = with_session(&server).await;
        let (mut send, _receive) = page.open_bi().await.unwrap();
        send.write_all(&[0x40, 0x41, 4]).await.unwrap();
        assert!(matches!(session.accept_bi().await, Err(PageError::Protocol(_))), "a stream of session 4");
        let clone = session.clone();
        drop(session);
        assert!(page.close_reason().is_none());
        drop(clone);
        page.closed().await;
    }

    #[tokio::test]
    async fn who_says_much_where_nothing_is_to_be_said_is_left() {
        let server = server();
        for on_request in [true, false] {
            let (page, session, (mut settings, mut request, _)) = with_session(&server).await;
            let stream = if on_request { &mut request } else { &mut settings };
            let _ = stream.write_all(&[0; 2 * MAX_BYTES_UNHEARD]).await;
            page.closed().await;
            assert_eq!(session.close_reason(), Some(quinn::ConnectionError::LocallyClosed));
        }
    }

    #[tokio::test]
    async fn whoever_shows_no_certificate_is_no_node() {
        let server = server();
        let hash = server.identity().certificate_hash;
        let (dialled, at_server) = tokio::join!(dialled(&server, hash, Alpn::Peer), accepted(&server));
        dialled.unwrap();
        assert_eq!(node_of(&at_server), None);
    }

    #[tokio::test]
    async fn another_certificate_and_another_path_are_refused() {
        let server = server();
        let [hash, next] = server.pages().unwrap().hashes();
        let accept = async { server.endpoint.accept().await.unwrap().await };
        let (wrong, _) = tokio::join!(dialled(&server, next, Alpn::Page), accept);
        assert!(wrong.is_err(), "the next certificate is not shown yet");
        let (page, at_server) = tokio::join!(dialled(&server, hash, Alpn::Page), accepted(&server));
        let page = page.unwrap();
        let asking = async {
            let (_, status) = asked(&page, "/other").await;
            page.close(0u32.into(), b"");
            status
        };
        let (session, status) = tokio::join!(PeerConnection::of_page(at_server), asking);
        assert!(matches!(session, Err(PageError::Path(_))) && status == 404);
    }

    fn dates(made: &Made) -> (i64, i64) {
        let der = made.key.cert.first().unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(der).unwrap();
        (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp())
    }

    #[test]
    fn certificates_are_what_browsers_accept_and_follow_one_another() {
        let now = SystemTime::now();
        let all = PageCertificates::new(now).unwrap();
        let [shown, next] = all.hashes();
        let (from, to) = dates(&all.pair().shown);
        let unix = now.duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        assert!(from < unix && to - from <= 14 * 24 * 3600, "valid for 14 days at most");
        let due = all.rotates_at();
        all.rotate(due).unwrap();
        assert_eq!(all.hashes()[0], next);
        assert!(![shown, next].contains(&all.hashes()[1]));
        let (_, to) = dates(&all.pair().shown);
        let ends = all.rotates_at().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        assert!(ends < to, "it counts for as long as it is shown");
    }
}
