//! QUIC endpoints: one UDP socket, for dialling and being dialled.

use crate::congestion::SlowStartByDelay;
use crate::identity::Identity;
use crate::page::{ByAlpn, PageCertificates};
use crate::tls::{ByKey, node_of};
use headwater_model::NodeId;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::sign::CertifiedKey;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What is spoken on a connection; one endpoint serves all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alpn {
    /// Node to control center.
    Control,
    /// Peer to peer.
    Peer,
    /// A probe: one number, from the end that dials.
    Probe,
    /// WebTransport of a page in a browser; see [`crate::PeerConnection::of_page`].
    Page,
}

impl Alpn {
    pub(crate) fn id(self) -> &'static [u8] {
        match self {
            Alpn::Control => b"headwater-control/1",
            Alpn::Peer => b"headwater-peer/1",
            Alpn::Probe => b"headwater-probe/1",
            Alpn::Page => b"h3",
        }
    }

    /// What is spoken on `connection`; `None` when it is nothing of these.
    pub fn of(connection: &Connection) -> Option<Alpn> {
        let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
        let spoken = data.protocol?;
        [Alpn::Control, Alpn::Peer, Alpn::Probe, Alpn::Page].into_iter().find(|a| a.id() == spoken)
    }
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program listens there.
    #[error("UDP port {0} is already in use: another Headwater process listens there, or choose another with --listen")]
    Taken(SocketAddr),
    /// Binding failed otherwise.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// TLS would not take the identity.
    #[error("cannot set TLS up: {0}")]
    Tls(String),
}

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address cannot be dialled from this endpoint.
    #[error("cannot dial {0}: {1}")]
    Address(SocketAddr, String),
    /// The handshake failed.
    #[error("no connection to {0}: {1}")]
    Handshake(SocketAddr, String),
    /// Somebody else is there.
    #[error("another node than the expected one answers at {0}")]
    OtherNode(SocketAddr),
}

/// An endpoint.
#[derive(Clone, Debug)]
pub struct Listener {
    /// The QUIC endpoint; accept from it.
    pub endpoint: Endpoint,
    identity: Arc<Identity>,
    pages: Option<Arc<PageCertificates>>,
    v6: bool,
    buffer_bytes: (usize, usize),
}

/// Kernel buffers that are asked for: with the default sizes the kernel drops datagrams under bursts of handshakes.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Most that one stream may have in flight, and one connection.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Datagrams that wait to be read or sent: they tell how long packets are under way, and old ones tell nothing.
const DATAGRAM_BUFFER_BYTES: usize = 2 << 10;
/// Packets that are acknowledged together: those of a live piece, …
const PACKETS_PER_ACK: u32 = 7;
/// … as far as they come within this time, and within a round trip.
const MAX_ACK_DELAY: Duration = Duration::from_millis(50);
/// The largest packets are tried once, and none in between: each trial takes a packet of the uplink, at either end of each
/// connection.
const MTU_CHANGE: u16 = 130;
/// Round-trip time that a dial between peers supposes: the first retransmission comes after three times as long.
const DIAL_RTT: Duration = Duration::from_millis(120);
/// Streams that the other end may have open at once: a control stream, and a data stream per content.
const MAX_UNI_STREAMS: u32 = 300;
/// Those of a session with the control center: HTTP/3 needs three, …
const MAX_CONTROL_UNI_STREAMS: u32 = 8;
/// … and a page one that asks for its session, and one for messages.
const MAX_CONTROL_BIDI_STREAMS: u32 = 2;
/// How long the control center bears silence. Nodes end theirs sooner; browsers slow the timers of pages in the background
/// down, and keep connections alive every 15 s by themselves.
const CONTROL_IDLE_MS: u32 = 35_000;

/// Binds an endpoint to `address`, speaking `accept` when dialled. An unspecified IPv6 address takes IPv4 too.
///
/// # Errors
/// [`BindError`].
pub fn bind(address: SocketAddr, identity: Arc<Identity>, accept: &[Alpn]) -> Result<Listener, BindError> {
    let io = |source: std::io::Error| match source.kind() {
        ErrorKind::AddrInUse => BindError::Taken(address),
        _ => BindError::Io { address, source },
    };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)).map_err(io)?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED)).map_err(io)?;
    }
    // The kernel may grant less; that is no error.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    let buffer_bytes = (granted(socket.recv_buffer_size()), granted(socket.send_buffer_size()));
    socket.set_nonblocking(true).map_err(io)?;
    socket.bind(&address.into()).map_err(io)?;
    let pages = match accept.contains(&Alpn::Page) {
        true => Some(Arc::new(PageCertificates::new(SystemTime::now()).map_err(BindError::Tls)?)),
        false => None,
    };
    let server = if accept.is_empty() { None } else { Some(server_config(&identity, accept, pages.as_ref())?) };
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = Endpoint::new(endpoint_config(&identity), server, socket.into(), runtime).map_err(io)?;
    Ok(Listener { endpoint, identity, pages, v6: address.is_ipv6(), buffer_bytes })
}

/// Linux says twice what can be used: the other half is for its own records.
fn granted(said: std::io::Result<usize>) -> usize {
    said.unwrap_or(0) / if cfg!(target_os = "linux") { 2 } else { 1 }
}

impl Listener {
    /// Who this end is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The certificates that it shows to pages, where it accepts these.
    pub fn pages(&self) -> Option<&Arc<PageCertificates>> {
        self.pages.as_ref()
    }

    /// Kernel buffers that were granted of [`SOCKET_BUFFER_BYTES`]: for what comes in, and for what goes out.
    pub fn buffer_bytes(&self) -> (usize, usize) {
        self.buffer_bytes
    }

    /// An endpoint of the same identity on a socket of its own, which accepts nothing: packets that come back to it
    /// answer what it sent.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn fresh(&self) -> Result<Listener, BindError> {
        let any: IpAddr = if self.v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let ip = self.endpoint.local_addr().map_or(any, |a| a.ip());
        bind(SocketAddr::new(ip, 0), self.identity.clone(), &[])
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's, which a bound socket has none of.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Dials `address`, where `expected` should be.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial(
        &self,
        address: SocketAddr,
        expected: Option<NodeId>,
        alpn: Alpn,
    ) -> Result<Connection, DialError> {
        let no = |e: String| DialError::Address(address, e);
        // A dual-stack socket reaches IPv4 addresses in their mapped form.
        let to = match (self.v6, address.ip()) {
            (true, IpAddr::V4(a)) => SocketAddr::new(a.to_ipv6_mapped().into(), address.port()),
            _ => address,
        };
        let config = client_config(&self.identity, expected, alpn).map_err(no)?;
        let connecting = self.endpoint.connect_with(config, to, "headwater").map_err(|e| no(e.to_string()))?;
        let connection = connecting.await.map_err(|e| match e {
            quinn::ConnectionError::TransportError(e) if e.to_string().contains("ApplicationVerificationFailure") => {
                DialError::OtherNode(address)
            }
            e => DialError::Handshake(address, e.to_string()),
        })?;
        match (expected, node_of(&connection)) {
            (Some(expected), Some(found)) if expected != found => Err(DialError::OtherNode(address)),
            (_, None) => Err(DialError::Handshake(address, "it showed no certificate".into())),
            _ => Ok(connection),
        }
    }
}

/// A restarted process resets its former connections at once, as the keys for that come from its identity: the other ends
/// need not wait for a timeout. Packets are answered with a reset only if their connection id is one that this node made.
fn endpoint_config(identity: &Identity) -> EndpointConfig {
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &identity.key_for("headwater stateless reset"));
    let ids = identity.key_for("headwater connection ids");
    let ids = u64::from_be_bytes([ids[0], ids[1], ids[2], ids[3], ids[4], ids[5], ids[6], ids[7]]);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

/// AES-128 first: it costs a quarter less CPU than AES-256, and what travels is public or ticketed for hours at most.
pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    use rustls::crypto::ring::{cipher_suite, default_provider};
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(rustls::crypto::CryptoProvider { cipher_suites, ..default_provider() })
}

fn by_key(expected: Option<NodeId>, optional: bool) -> Arc<ByKey> {
    let algorithms = provider().signature_verification_algorithms;
    Arc::new(ByKey { expected, certificate: None, optional, algorithms })
}

fn server_config(
    identity: &Identity,
    accept: &[Alpn],
    pages: Option<&Arc<PageCertificates>>,
) -> Result<quinn::ServerConfig, BindError> {
    let tls = |e: rustls::Error| BindError::Tls(e.to_string());
    let (certificate, key) = identity.certificate_and_key();
    // Pages have no certificate to show; whoever else shows none has no node id, and is sent away by who accepts it.
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .with_client_cert_verifier(by_key(None, pages.is_some()));
    let mut config = match pages {
        None => config.with_single_cert(vec![certificate], key).map_err(tls)?,
        Some(pages) => {
            let signing = rustls::crypto::ring::sign::any_ecdsa_type(&key).map_err(tls)?;
            let node = Arc::new(CertifiedKey::new(vec![certificate], signing));
            config.with_cert_resolver(Arc::new(ByAlpn { node, pages: pages.clone() }))
        }
    };
    config.alpn_protocols = accept.iter().map(|a| a.id().to_vec()).collect();
    // Each dial begins anew: a kilobyte of tickets for going on would be for nothing.
    config.send_tls13_tickets = 0;
    let quic = QuicServerConfig::try_from(config).map_err(|e| BindError::Tls(e.to_string()))?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(quic));
    server.transport_config(Arc::new(match accept.contains(&Alpn::Control) {
        true => control_transport(),
        false => transport(Alpn::Peer),
    }));
    Ok(server)
}

fn client_config(identity: &Identity, expected: Option<NodeId>, alpn: Alpn) -> Result<quinn::ClientConfig, String> {
    let (certificate, key) = identity.certificate_and_key();
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(by_key(expected, false))
        .with_client_auth_cert(vec![certificate], key)
        .map_err(|e| e.to_string())?;
    config.alpn_protocols = vec![alpn.id().to_vec()];
    config.enable_sni = false;
    let quic = QuicClientConfig::try_from(config).map_err(|e| e.to_string())?;
    let mut client = quinn::ClientConfig::new(Arc::new(quic));
    client.transport_config(Arc::new(transport(alpn)));
    Ok(client)
}

fn transport(alpn: Alpn) -> TransportConfig {
    let mut t = TransportConfig::default();
    let (idle_ms, keep_alive) = match alpn {
        // Heartbeats keep it alive; three missing ones end it.
        Alpn::Control => (7_000, None),
        // A dead parent is noticed by its child's outstanding requests; this finds the idle ones.
        Alpn::Peer | Alpn::Page => (5_000, Some(Duration::from_millis(1_500))),
        Alpn::Probe => (3_000, None),
    };
    // The first packets of a dial meet closed NATs or full lines: they are sent again soon, four times within 3 s.
    t.initial_rtt(DIAL_RTT);
    t.max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))));
    t.keep_alive_interval(keep_alive);
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.minimum_change(MTU_CHANGE);
    t.mtu_discovery_config(Some(mtu));
    t.stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES));
    t.receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
    t.send_window(u64::from(STREAM_WINDOW_BYTES));
    t.max_concurrent_uni_streams(VarInt::from_u32(MAX_UNI_STREAMS));
    t.max_concurrent_bidi_streams(VarInt::from_u32(1));
    t.datagram_receive_buffer_size((alpn == Alpn::Peer).then_some(DATAGRAM_BUFFER_BYTES));
    t.datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES);
    if alpn == Alpn::Peer {
        // Uplinks are thin, and acknowledgements of what comes over them take what could be sent.
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(VarInt::from_u32(PACKETS_PER_ACK)).max_ack_delay(Some(MAX_ACK_DELAY));
        t.ack_frequency_config(Some(acks));
        t.congestion_controller_factory(Arc::new(SlowStartByDelay::default()));
    }
    t
}

/// The control center's end.
fn control_transport() -> TransportConfig {
    let mut t = transport(Alpn::Control);
    t.max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(CONTROL_IDLE_MS))));
    t.max_concurrent_uni_streams(VarInt::from_u32(MAX_CONTROL_UNI_STREAMS));
    t.max_concurrent_bidi_streams(VarInt::from_u32(MAX_CONTROL_BIDI_STREAMS));
    // HTTP/3 with datagrams is what WebTransport needs; nobody reads any here.
    t.datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES));
    t
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str, accept: &[Alpn]) -> Listener {
        bind(address.parse().unwrap(), Arc::new(Identity::ephemeral().unwrap()), accept).unwrap()
    }

    #[tokio::test]
    async fn both_ends_learn_who_the_other_is() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let (server, client) = (listener(address, &[Alpn::Peer]), listener(address, &[]));
            let port = server.address().unwrap().port();
            let to = if address == "[::]:0" { "127.0.0.1".into() } else { address.replace(":0", "") };
            let to: SocketAddr = format!("{to}:{port}").parse().unwrap();
            let accepting = tokio::spawn({
                let server = server.clone();
                async move { server.endpoint.accept().await.unwrap().await.unwrap() }
            });
            let out = client.dial(to, Some(server.identity().node), Alpn::Peer).await.unwrap();
            let incoming = accepting.await.unwrap();
            assert_eq!(node_of(&out), Some(server.identity().node));
            assert_eq!(node_of(&incoming), Some(client.identity().node));
        }
    }

    #[tokio::test]
    async fn another_node_at_the_address_is_refused() {
        let (server, client) = (listener("127.0.0.1:0", &[Alpn::Peer]), listener("127.0.0.1:0", &[]));
        let to = server.address().unwrap();
        tokio::spawn(async move { server.endpoint.accept().await.unwrap().await.map(drop) });
        let said = client.dial(to, Some(NodeId([1; 32])), Alpn::Peer).await.unwrap_err();
        assert!(matches!(said, DialError::OtherNode(_) | DialError::Handshake(..)), "{said}");
    }

    #[tokio::test]
    async fn a_taken_port_is_said_so() {
        let first = listener("127.0.0.1:0", &[]);
        let address = first.address().unwrap();
        let said = bind(address, Arc::new(Identity::ephemeral().unwrap()), &[]).unwrap_err().to_string();
        assert!(said.contains("already in use"), "{said}");
    }
}
