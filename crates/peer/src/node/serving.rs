//! Sending to children: a task per child and content, which asks the swarm what is next, waits for the pacer, and
//! writes while the next piece is being read.

use super::governor::{Governor, is_near};
use super::state::{Sender, State, carry_out, happened};
use super::{Inner, messages};
use crate::pacer::Place;
use bytes::Bytes;
use headwater_model::id::{NodeId, Version};
use headwater_peer_core::Input;
use headwater_transport::PeerConnection;
use headwater_wire::DataHeader;
use headwater_wire::frame::{PEER_DATA_STREAM, PieceHeader};
use quinn::SendStream;
use std::sync::Arc;
use tokio::sync::Notify;

/// What all children together may have in flight or waiting in their connections, so that a node's memory is bounded
/// however many it serves: enough for 10 Gbit/s over 100 ms.
const IN_FLIGHT_BYTES: u64 = 128 << 20;
/// What one child may have of it at least and at most; and no more than twice its congestion window, in powers of two, so
/// that a child that takes little holds little.
const MIN_WINDOW_BYTES: u64 = 128 << 10;
const MAX_WINDOW_BYTES: u64 = 8 << 20;
/// A congestion window below this is not looked at.
const MIN_TWICE_CONGESTION_BYTES: u64 = 512 << 10;

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

async fn send(inner: Arc<Inner>, version: Version, child: NodeId, connection: PeerConnection, wake: Arc<Notify>) {
    let Ok(mut stream) = connection.open_uni().await else { return };
    let header = DataHeader { version }.encode();
    if stream.write_all(&[PEER_DATA_STREAM]).await.is_err() || stream.write_all(&header).await.is_err() {
        return;
    }
    let governor = inner.governor.as_ref().filter(|_| !is_near(connection.remote_address().ip()));
    let place = Place::new(version.content);
    let (mut ready, mut first, mut window) = (None, true, 0);
    loop {
        let current = match ready.take() {
            Some(current) => Some(current),
            None => next(&inner, version, child).await,
        };
        let Some(Ready { piece, data, share }) = current else {
            wake.notified().await;
            continue;
        };
        let twice = connection.stats().path.cwnd.saturating_mul(2).next_power_of_two();
        let wanted = twice.max(MIN_TWICE_CONGESTION_BYTES).min(share);
        if wanted != window {
            window = wanted;
            connection.set_send_window(window);
        }
        let len = data.len() - PieceHeader::BYTES;
        let paces = Paces { governor, inner: &inner, child };
        let write = write(&paces, &mut stream, &place, data, first);
        let (written, following) = tokio::join!(write, next(&inner, version, child));
        (ready, first) = (following, false);
        if written.is_err() {
            // The connection's end is told by the task that reads it.
            return;
        }
        let mut state = inner.lock();
        let now = inner.now();
        let Some(r) = state.running(version) else { return };
        r.uploaded_bytes += len as u64;
        let mut out = Vec::new();
        r.swarm.sent(now, &child, piece, &mut out);
        carry_out(&inner, &mut state, version.content, out);
    }
}

/// A piece that was read.
struct Ready {
    piece: u32,
    /// Its header and its bytes.
    data: Bytes,
    /// What the child may have in flight.
    share: u64,
}

/// The next piece for `child`; `None` when there is none now.
async fn next(inner: &Arc<Inner>, version: Version, child: NodeId) -> Option<Ready> {
    loop {
        let (piece, store, share) = {
            let mut state = inner.lock();
            let (now, share) = (inner.now(), window_bytes(state.links.len()));
            let r = state.running(version)?;
            (r.swarm.next_to_send(now, &child)?, r.store.clone(), share)
        };
        let head = PieceHeader { piece, len: store.layout().piece_len(piece) }.encode();
        match store.read_after(piece, head).await {
            Ok(Some(data)) => return Some(Ready { piece, data, share }),
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
pub(super) struct Paces<'a> {
    pub(super) governor: Option<&'a Governor>,
    pub(super) inner: &'a Inner,
    pub(super) child: NodeId,
}

impl Paces<'_> {
    fn governed(&self) -> Option<&Governor> {
        self.governor.filter(|g| g.governs())
    }

    pub(super) fn slice_bytes(&self) -> usize {
        let governed = self.governed().map_or(usize::MAX, |g| g.pacer.slice_bytes());
        governed.min(self.inner.pacer.slice_bytes())
    }

    pub(super) async fn pass(&self, place: &Place, payload_bytes: u64) {
        if let Some(governor) = self.governed() {
            governor.sends_to(self.inner.now(), self.child);
            governor.pacer.pass(place, payload_bytes).await;
        }
        self.inner.pacer.pass(place, payload_bytes).await;
    }
}

/// A power of two, so that it seldom changes while nodes come and go.
fn window_bytes(nodes: usize) -> u64 {
    let fair = IN_FLIGHT_BYTES / (nodes as u64).max(1).next_power_of_two();
    fair.clamp(MIN_WINDOW_BYTES, MAX_WINDOW_BYTES)
}

/// Writes header and piece at the node's pace, in slices, so that the user's own packets never wait behind a whole piece.
/// The first piece's header goes ahead: the child knows that it is on its way.
pub(super) async fn write(
    paces: &Paces<'_>,
    stream: &mut SendStream,
    place: &Place,
    mut data: Bytes,
    first: bool,
) -> Result<(), quinn::WriteError> {
    if first {
        stream.write_chunk(data.split_to(PieceHeader::BYTES)).await?;
    }
    while !data.is_empty() {
        let slice = data.split_to(data.len().min(paces.slice_bytes()));
        paces.pass(place, slice.len() as u64).await;
        stream.write_chunk(slice).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_share_what_may_be_in_flight() {
        assert_eq!(window_bytes(0), MAX_WINDOW_BYTES);
        assert_eq!(window_bytes(16), MAX_WINDOW_BYTES);
        for nodes in [17, 200, 1000] {
            let all = window_bytes(nodes) * nodes as u64;
            assert!((IN_FLIGHT_BYTES / 2..=IN_FLIGHT_BYTES).contains(&all), "{nodes}: {all}");
        }
        assert_eq!(window_bytes(100_000), MIN_WINDOW_BYTES);
    }
}
