//! Bodies of HTTP responses that are pieces of a content.

use bytes::Bytes;
use headwater_transport::BoxError;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

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
