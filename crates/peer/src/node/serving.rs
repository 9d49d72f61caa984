//! Sending to children: a task per child and content, which asks the swarm what is next, waits for the pacer, and
//! writes while the next piece is being read.

use super::governor::{Governor, is_near};
use super::state::{Sender, State, carry_out, happened};
use super::{Inner, messages};
use bytes::Bytes;
use headwater_model::id::{NodeId, Version};
use headwater_peer_core::Input;
use headwater_wire::DataHeader;
use headwater_wire::frame::{PEER_DATA_STREAM, PieceHeader};
use quinn::SendStream;
use std::sync::Arc;
use tokio::sync::Notify;

/// What waits in memory for one child at most, sent and not acknowledged included: twice what may be in flight, so that a
/// child that takes little holds little, and within these.
const MIN_UNSENT_BYTES: u64 = 512 << 10;
/// See [`MIN_UNSENT_BYTES`].
const MAX_UNSENT_BYTES: u64 = 8 << 20;

/// There is something to send to `child`.
pub(crate) fn wake(inner: &Arc<Inner>, state: &mut State, version: Version, child: NodeId) {
    let Some(connection) = state.links.get(&child).map(|l| l.connection.clone()) else { return };
    let Some(r) = state.running(version) else { return };
    if let Some(sender) = r.senders.get(&child) {
        sender.wake.notify_one();
        return;
    }
    let wake = Arc::new(Notify::new());
    wake.notify_one();
    let task = tokio::spawn(send(inner.clone(), version, child, connection, wake.clone())).abort_handle();
    r.senders.insert(child, Sender { wake, task });
}

async fn send(inner: Arc<Inner>, version: Version, child: NodeId, connection: quinn::Connection, wake: Arc<Notify>) {
    let Ok(mut stream) = connection.open_uni().await else { return };
    let header = DataHeader { version }.encode();
    if stream.write_all(&[PEER_DATA_STREAM]).await.is_err() || stream.write_all(&header).await.is_err() {
        return;
    }
    let governor = inner.governor.as_ref().filter(|_| !is_near(connection.remote_address().ip()));
    let (mut ready, mut first) = (None, true);
    loop {
        let current = match ready.take() {
            Some(current) => Some(current),
            None => next(&inner, version, child).await,
        };
        let Some((piece, data)) = current else {
            wake.notified().await;
            continue;
        };
        let len = data.len() as u64;
        let window = connection.stats().path.cwnd.saturating_mul(2);
        connection.set_send_window(window.clamp(MIN_UNSENT_BYTES, MAX_UNSENT_BYTES));
        let paces = Paces { governor, inner: &inner, child };
        let write = write(&paces, &mut stream, piece, data, first);
        let (written, following) = tokio::join!(write, next(&inner, version, child));
        (ready, first) = (following, false);
        if written.is_err() {
            // The connection's end is told by the task that reads it.
            return;
        }
        let mut state = inner.lock();
        let now = inner.now();
        let Some(r) = state.running(version) else { return };
        r.uploaded_bytes += len;
        let mut out = Vec::new();
        r.swarm.sent(now, &child, piece, &mut out);
        carry_out(&inner, &mut state, version.content, out);
    }
}

/// The next piece for `child` and its bytes; `None` when there is none now.
async fn next(inner: &Arc<Inner>, version: Version, child: NodeId) -> Option<(u32, Bytes)> {
    loop {
        let (piece, store) = {
            let mut state = inner.lock();
            let now = inner.now();
            let r = state.running(version)?;
            (r.swarm.next_to_send(now, &child)?, r.store.clone())
        };
        match store.read(piece).await {
            Ok(Some(data)) => return Some((piece, data)),
            // It was here and is gone: the store says so, the swarm must know.
            Ok(None) => happened(inner, &mut inner.lock(), version, Input::Rotten(piece)),
            Err(e) => {
                messages::disk_failed(inner, version, e);
                return None;
            }
        }
    }
}

/// What holds sending to a child back.
struct Paces<'a> {
    governor: Option<&'a Governor>,
    inner: &'a Inner,
    child: NodeId,
}

impl Paces<'_> {
    fn slice_bytes(&self) -> usize {
        let governed = self.governor.map_or(usize::MAX, |g| g.pacer.slice_bytes());
        governed.min(self.inner.pacer.slice_bytes())
    }

    async fn pass(&self, payload_bytes: u64) {
        if let Some(governor) = self.governor {
            governor.sends_to(self.inner.now(), self.child);
            governor.pacer.pass(payload_bytes).await;
        }
        self.inner.pacer.pass(payload_bytes).await;
    }
}

/// Writes a piece at the node's pace, in slices, so that the user's own packets never wait behind a whole piece. The first
/// one's header goes ahead: the child knows that it is on its way.
async fn write(
    paces: &Paces<'_>,
    stream: &mut SendStream,
    piece: u32,
    mut data: Bytes,
    first: bool,
) -> Result<(), quinn::WriteError> {
    let head = PieceHeader { piece, len: data.len() as u32 }.encode();
    if first {
        stream.write_all(&head).await?;
    }
    let mut head = (!first).then(|| Bytes::copy_from_slice(&head));
    while !data.is_empty() {
        let slice = data.split_to(data.len().min(paces.slice_bytes()));
        paces.pass(slice.len() as u64).await;
        match head.take() {
            Some(head) => stream.write_all_chunks(&mut [head, slice]).await?,
            None => stream.write_all_chunks(&mut [slice]).await?,
        }
    }
    Ok(())
}
