//! Starting and stopping.

use crate::config::ControlConfig;
use crate::contents::Contents;
use crate::hub::{Clock, Hub, Parts, unix_ms};
use crate::identity::{FolderError, IdentityFolder, Opened};
use crate::places::{Places, PlacesError};
use crate::store::{Loaded, Store, StoreError};
use crate::{api, session};
use axum::extract::ConnectInfo;
use headwater_center_core::{Center, Input};
use headwater_model::{Hash, NodeId};
use headwater_transport::{Alpn, BindError, HttpLimits, Identity, Listener};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

/// Ports tried where any will do: one that is free for TCP may be taken for UDP.
const MAX_PORTS_TRIED: u32 = 32;
/// How long an HTTP client may take for its headers, also between two requests.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// Most bytes of them.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// Connections to the API at once; sessions over WebSockets do not count.
const MAX_HTTP_CONNECTIONS: usize = 4096;
/// How long stopping may take.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// Why a control center does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// Another program listens there.
    #[error(
        "{protocol} port {address} is already in use: another control center runs there, or choose another with --listen"
    )]
    PortTaken {
        /// TCP or UDP.
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// Listening failed otherwise.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        why: String,
    },
    /// The identity folder.
    #[error(transparent)]
    Identity(#[from] FolderError),
    /// The state folder.
    #[error(transparent)]
    State(#[from] StoreError),
    /// The table of places, or the MaxMind database.
    #[error(transparent)]
    Places(#[from] PlacesError),
    /// The certificate for the API.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The process is about to end.
    #[error("the process is stopping")]
    Stopping,
}

/// Why the API has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not what it should be.
    #[error("{path} holds no {what} in PEM: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// Certificate or key.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// Certificate and key do not fit.
    #[error("the certificate and key for the API cannot be used: {0}")]
    Rustls(#[from] rustls::Error),
}

/// A control center that runs. It ends, without goodbyes, when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where its API is, for this machine: `http://127.0.0.1:7400`.
    pub api_url: String,
    /// Who it is.
    pub node: NodeId,
    /// The first administrator's token, if it was made now.
    pub first_admin_token: Option<String>,
    hub: Held,
    listener: Listener,
    serving: JoinHandle<()>,
    state_thread: std::thread::JoinHandle<()>,
    _end: EndWhenDropped,
}

/// Ends what runs on its own.
#[derive(Debug)]
struct EndWhenDropped {
    stop: CancellationToken,
    http: AbortHandle,
    endpoint: quinn::Endpoint,
}

impl Drop for EndWhenDropped {
    fn drop(&mut self) {
        self.stop.cancel();
        self.http.abort();
        self.endpoint.close(quinn::VarInt::from_u32(0), b"the control center ended");
    }
}

/// Hides the hub, which holds secrets, from `Debug`.
struct Held(Arc<Hub>);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hub(..)")
    }
}

/// Starts a control center.
///
/// # Errors
/// [`StartError`] says what to do.
pub async fn start(config: ControlConfig) -> Result<Running, StartError> {
    let clock = Clock::start();
    let folders = config.clone();
    let open = move || -> Result<_, StartError> {
        let places = Places::open(folders.places.as_deref(), folders.mmdb.as_deref())?;
        let opened = IdentityFolder::open(&folders.identity, unix_ms())?;
        let kept = Store::open(&folders.state, unix_ms())?;
        Ok((places, opened, kept))
    };
    let (places, opened, (store, state_thread, loaded)) =
        tokio::task::spawn_blocking(open).await.map_err(|_| StartError::Stopping)??;
    let Opened { folder: identity, tokens, epoch, restarted, first_admin_token } = opened;
    let tls = tls_config(&config, &identity.node)?;
    let (tls, tls_certificate) = tls.map_or((None, Hash([0; 32])), |(tls, hash)| (Some(tls), hash));
    let (tcp, listener) = listen(config.listen, &identity.node)?;
    let wanted = config.listen;
    let no_address = |e: std::io::Error| StartError::Listen { address: wanted, why: e.to_string() };
    let address = listener.address().map_err(no_address)?;
    let (api_url, public) = urls(&config, address, tls.is_some());
    let node = identity.node.node;
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|_| StartError::NoRandomness)?;
    let center = Center::new(clock.now(), config.core.clone(), epoch, restarted).test_reachability(secret);
    let contents = Contents::default();
    let no_pages = || StartError::Listen { address, why: "no certificates for pages".into() };
    let shown_to_pages = listener.pages().cloned().ok_or_else(no_pages)?;
    let parts = Parts {
        config,
        clock,
        public,
        identity,
        tls_certificate,
        shown_to_pages,
        tokens,
        store,
        places,
        contents,
        center,
    };
    let hub = Arc::new(Hub::new(parts));
    restore(&hub, &loaded);
    hub.tasks.spawn(hub.clone().keep_time());
    hub.tasks.spawn(session::accept(hub.clone(), listener.clone()));
    hub.tasks.spawn(session::keep_certificates(hub.clone()));
    let serving = serve_http(hub.clone(), tcp, tls).map_err(no_address)?;
    tracing::info!("control center {node:.8} (epoch {epoch}) listens on {address}, API at {api_url}");
    let _end =
        EndWhenDropped { stop: hub.stop.clone(), http: serving.abort_handle(), endpoint: listener.endpoint.clone() };
    Ok(Running { address, api_url, node, first_admin_token, hub: Held(hub), listener, serving, state_thread, _end })
}

impl Running {
    /// Runs until `shutdown` is ready; then nodes are told to come back later, requests are finished, and all is on
    /// disk when this returns.
    pub async fn stopped(self, shutdown: impl Future) {
        let Running { hub: Held(hub), listener, mut serving, state_thread, .. } = self;
        tokio::pin!(shutdown);
        tokio::select! {
            _ = shutdown => {}
            ended = &mut serving => tracing::error!("the API ended: {ended:?}"),
        }
        hub.stop.cancel();
        hub.say_goodbye();
        hub.tasks.close();
        if tokio::time::timeout(STOP_WITHIN, hub.tasks.wait()).await.is_err() {
            tracing::warn!("some sessions did not end in time");
        }
        listener.endpoint.close(quinn::VarInt::from_u32(0), b"the control center stopped");
        if tokio::time::timeout(STOP_WITHIN, listener.endpoint.wait_idle()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        if !serving.is_finished() {
            let _ = tokio::time::timeout(STOP_WITHIN, &mut serving).await;
            serving.abort();
        }
        drop(listener);
        // The thread ends when the last user of its queue does.
        drop(hub);
        let join = tokio::task::spawn_blocking(move || state_thread.join());
        if tokio::time::timeout(STOP_WITHIN, join).await.is_err() {
            tracing::warn!("the state was still being written");
        }
    }
}

fn restore(hub: &Arc<Hub>, loaded: &Loaded) {
    let mut state = hub.lock();
    if let Some(aside) = &loaded.moved_aside {
        let text = format!(
            "THE DATABASE WAS CORRUPT and is now {}; this control center starts with an empty one. Contents return when nodes that have them announce them",
            aside.display()
        );
        tracing::error!("{text}");
        state.events.say(unix_ms(), text);
    }
    for (content, epoch) in &loaded.withdrawn {
        state.contents.restore_withdrawn(*content, *epoch);
    }
    for row in &loaded.contents {
        match state.contents.restore(row) {
            Some(input @ Input::Publish(_)) => hub.input(&mut state, input),
            _ => tracing::error!("the kept log of {:.60?} is not true any more: it is not published", row.name),
        }
    }
}

/// TLS of the API, and the SHA-256 of the certificate that it shows.
type Tls = (Arc<rustls::ServerConfig>, Hash);

fn tls_config(config: &ControlConfig, identity: &Identity) -> Result<Option<Tls>, TlsError> {
    let (chain, key) = match &config.tls {
        Some((chain, key)) => read_pem(chain, key)?,
        None if config.listen.ip().to_canonical().is_loopback() => return Ok(None),
        None => {
            let (certificate, key) = identity.certificate_and_key();
            (vec![certificate], key)
        }
    };
    let shown = Hash::of(&[chain.first().map_or(&[][..], |c| c.as_ref())]);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some((Arc::new(tls), shown)))
}

type Pem = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read_pem(chain: &Path, key: &Path) -> Result<Pem, TlsError> {
    let bad = |path: &Path, what, why: String| TlsError::File { path: path.into(), what, why };
    let no_chain = |e: rustls::pki_types::pem::Error| bad(chain, "certificate", e.to_string());
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(chain).map_err(no_chain)?.collect::<Result<_, _>>().map_err(no_chain)?;
    if certificates.is_empty() {
        return Err(bad(chain, "certificate", "none found".into()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(key, "private key", e.to_string()))?;
    Ok((certificates, key))
}

/// TCP and UDP on the same port.
fn listen(address: SocketAddr, identity: &Arc<Identity>) -> Result<(TcpListener, Listener), StartError> {
    let mut tries = 1;
    loop {
        let tcp = TcpListener::bind(address).map_err(|e| match e.kind() {
            ErrorKind::AddrInUse => StartError::PortTaken { protocol: "TCP", address },
            _ => StartError::Listen { address, why: e.to_string() },
        })?;
        let bound = tcp.local_addr().and_then(|a| tcp.set_nonblocking(true).map(|()| a));
        let bound = bound.map_err(|e| StartError::Listen { address, why: e.to_string() })?;
        match headwater_transport::bind(bound, identity.clone(), &[Alpn::Control, Alpn::Page]) {
            Ok(listener) => return Ok((tcp, listener)),
            Err(BindError::Taken(_)) if address.port() == 0 && tries < MAX_PORTS_TRIED => tries += 1,
            Err(BindError::Taken(address)) => return Err(StartError::PortTaken { protocol: "UDP", address }),
            Err(e) => return Err(StartError::Listen { address, why: e.to_string() }),
        }
    }
}

/// Where the API is for this machine, and what names carry.
fn urls(config: &ControlConfig, address: SocketAddr, https: bool) -> (String, String) {
    // Nobody can dial "any address".
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let here = SocketAddr::new(ip, address.port()).to_string();
    if config.public.is_none() && address.ip().is_unspecified() {
        tracing::warn!("names will carry {here}, which other machines cannot reach: give --public HOST:PORT");
    }
    let scheme = if https { "https" } else { "http" };
    let public = config.public.clone().unwrap_or_else(|| here.clone());
    (format!("{scheme}://{here}"), public)
}

fn serve_http(
    hub: Arc<Hub>,
    tcp: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> std::io::Result<JoinHandle<()>> {
    let tcp = tokio::net::TcpListener::from_std(tcp)?;
    let limits = HttpLimits {
        connections: MAX_HTTP_CONNECTIONS,
        headers_within: HEADERS_WITHIN,
        header_bytes: MAX_HEADER_BYTES,
    };
    let stop = hub.stop.clone();
    let api = TowerToHyperService::new(api::router(hub));
    let service = move |from: SocketAddr| {
        let api = api.clone();
        hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(ConnectInfo(from));
            hyper::service::Service::call(&api, request)
        })
    };
    Ok(tokio::spawn(headwater_transport::serve_http(tcp, tls, limits, stop, service)))
}
