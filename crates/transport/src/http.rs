//! An HTTP/1.1 server on TCP, with or without TLS, with limits: the control center's API and the waypoints' HTTPS.

use crate::endpoint::{BindError, provider};
use crate::identity::Identity;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How long a TLS handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Pause after accepting failed: the process has too many files open, say.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection.
pub trait Io: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Unpin + 'static> Io for T {}

/// What clients may cost.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Connections at once; more wait to be accepted. Those that were upgraded do not count.
    pub connections: usize,
    /// How long a client may take for the headers of a request, also for the next one.
    pub headers_within: Duration,
    /// Most bytes of a request's headers.
    pub header_bytes: usize,
}

/// TLS with the identity's own certificate.
///
/// # Errors
/// [`BindError::Tls`].
pub fn http_server_config(identity: &Identity) -> Result<rustls::ServerConfig, BindError> {
    let tls = |e: rustls::Error| BindError::Tls(e.to_string());
    let (certificate, key) = identity.certificate_and_key();
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .map_err(tls)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Serves until `stop`; then requests under way are finished. Dropping the future ends all connections that were not
/// upgraded. `service` makes the service of a connection from an address.
pub async fn serve_http<S, B>(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    limits: HttpLimits,
    stop: CancellationToken,
    service: impl Fn(SocketAddr) -> S,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let tls = tls.map(TlsAcceptor::from);
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = open.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((place, stream, from)) => {
                let (tls, stop, service) = (tls.clone(), stop.clone(), service(from));
                open.spawn(async move {
                    let _place = place;
                    if let Some(io) = secured(stream, tls).await {
                        connection(io, limits, stop, service).await;
                    }
                });
            }
            Err(e) => {
                tracing::warn!("accepting a connection failed: {e}");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, from) = listener.accept().await?;
    // It only costs latency where it fails.
    let _ = stream.set_nodelay(true);
    Ok((place, stream, SocketAddr::new(from.ip().to_canonical(), from.port())))
}

async fn secured(stream: TcpStream, tls: Option<TlsAcceptor>) -> Option<Box<dyn Io>> {
    let Some(tls) = tls else { return Some(Box::new(stream)) };
    let stream = tokio::time::timeout(HANDSHAKE_WITHIN, tls.accept(stream)).await.ok()?;
    Some(Box::new(stream.inspect_err(|e| tracing::debug!("a TLS handshake failed: {e}")).ok()?))
}

async fn connection<S, B>(io: Box<dyn Io>, limits: HttpLimits, stop: CancellationToken, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.headers_within).max_buf_size(limits.header_bytes);
    let serving = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!("an HTTP connection ended: {e}");
    }
}
