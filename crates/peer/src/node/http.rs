//! A node as an HTTP server: what the gateway and a waypoint's HTTPS have in common.

use super::Inner;
use bytes::Bytes;
use headwater_transport::{BoxError, HttpLimits, serve_http};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Serves for as long as the node runs; `answer` answers each request.
pub(crate) async fn serve<F: Future<Output = Response<Pieces>> + Send + 'static>(
    inner: Arc<Inner>,
    listener: TcpListener,
    tls: Option<rustls::ServerConfig>,
    limits: HttpLimits,
    answer: fn(Arc<Inner>, Request<Incoming>) -> F,
) {
    let stop = inner.stopping.clone();
    let service = move |_| {
        let inner = inner.clone();
        service_fn(move |request| {
            let inner = inner.clone();
            async move { Ok::<_, Infallible>(answer(inner, request).await) }
        })
    };
    serve_http(listener, tls.map(Arc::new), limits, stop, service).await;
}

/// Pieces as they come; a body that ends early ends the connection.
pub(crate) struct Pieces {
    from_store: mpsc::Receiver<Result<Bytes, BoxError>>,
    left: u64,
}

impl Pieces {
    /// A body of so many bytes.
    pub(crate) fn new(from_store: mpsc::Receiver<Result<Bytes, BoxError>>, bytes: u64) -> Self {
        Self { from_store, left: bytes }
    }
    /// A text.
    pub(crate) fn text(text: impl Into<Bytes>) -> Self {
        let (text, (sender, from_store)) = (text.into(), mpsc::channel(1));
        let left = text.len() as u64;
        // The queue is new and has room.
        let _ = sender.try_send(Ok(text));
        Self { from_store, left }
    }
    /// Nothing, of which a header may say how long it would be.
    pub(crate) fn none() -> Self {
        Self::text(Bytes::new())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.from_store.poll_recv(cx).map(|next| match next {
            Some(Ok(data)) => {
                self.left = self.left.saturating_sub(data.len() as u64);
                Some(Ok(Frame::data(data)))
            }
            Some(Err(e)) => Some(Err(e)),
            None => Some(Err("the pieces could not all be read or were not taken in time".into())),
        })
    }
    fn is_end_stream(&self) -> bool {
        self.left == 0
    }
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
