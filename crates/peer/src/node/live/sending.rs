//! Pushing to children: a task per child and substream, which asks the stream what is next, waits for the pacer, and
//! writes.

use super::State;
use crate::node::Inner;
use crate::node::governor::is_near;
use crate::node::serving::Paces;
use crate::node::state::Sender;
use crate::pacer::Place;
use bytes::{Bytes, BytesMut};
use headwater_model::id::{NodeId, Version};
use headwater_peer_core::live::Next;
use headwater_transport::PeerConnection;
use headwater_wire::DataHeader;
use headwater_wire::frame::{LivePieceHeader, PEER_LIVE_STREAM};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::{Mutex, MutexGuard, Notify};

/// What a child may have in flight: a second of a fast stream.
const WINDOW_BYTES: u64 = 1 << 20;

/// There is something of a substream to push to a child.
pub(super) fn wake(inner: &Arc<Inner>, state: &mut State, version: Version, to: (NodeId, u8)) {
    let Some(connection) = state.links.get(&to.0).map(|l| l.connection.clone()) else { return };
    let Some(l) = state.live(version) else { return };
    if let Some(sender) = l.senders.get(&to).filter(|s| !s.task.is_finished()) {
        sender.wake.notify_one();
        return;
    }
    let (wake, turns) = (Arc::new(Notify::new()), l.turns.clone());
    wake.notify_one();
    let task = tokio::spawn(send(inner.clone(), version, to, connection, wake.clone(), turns)).abort_handle();
    l.senders.insert(to, Sender { wake, task });
}

async fn send(
    inner: Arc<Inner>,
    version: Version,
    to: (NodeId, u8),
    connection: PeerConnection,
    wake: Arc<Notify>,
    turns: Arc<Mutex<()>>,
) {
    let child = to.0;
    let Ok(mut stream) = connection.open_uni().await else { return };
    let header = DataHeader { version }.encode();
    let _ = stream.set_priority(1);
    if stream.write_all(&[PEER_LIVE_STREAM]).await.is_err() || stream.write_all(&header).await.is_err() {
        return;
    }
    connection.set_send_window(WINDOW_BYTES);
    let governor = inner.governor.as_ref().filter(|_| !is_near(connection.remote_address().ip()));
    let paces = Paces { governor, inner: &inner, child };
    let place = Place::new(version.content);
    loop {
        let turn = turns.lock().await;
        let (piece, data) = match next(&inner, version, to) {
            Found::Piece(piece, data) => (piece, data),
            Found::AfterOthers => {
                // They have asked for their turns, or are just about to.
                drop(turn);
                tokio::task::yield_now().await;
                continue;
            }
            Found::Nothing => {
                drop(turn);
                tokio::select! {
                    () = wake.notified() => continue,
                    _ = connection.closed() => return,
                }
            }
        };
        let bytes = data.len() as u64;
        let head = LivePieceHeader { piece, len: data.len() as u32 }.encode();
        let mut framed = BytesMut::with_capacity(head.len() + data.len());
        framed.extend_from_slice(&head);
        framed.extend_from_slice(&data);
        if write(&paces, &mut stream, &place, framed.freeze(), turn).await.is_err() {
            // The connection's end is told by the task that reads it.
            return;
        }
        let mut state = inner.lock();
        let Some(l) = state.live(version) else { return };
        l.channel.sent(inner.now(), &child, piece, bytes);
    }
}

/// Writes a piece at the node's pace, in slices, so that the user's own packets never wait behind a whole one. A child
/// that does not take it loses the turn.
async fn write(
    paces: &Paces<'_>,
    stream: &mut quinn::SendStream,
    place: &Place,
    mut data: Bytes,
    turn: MutexGuard<'_, ()>,
) -> Result<(), quinn::WriteError> {
    let mut turn = Some(turn);
    while !data.is_empty() {
        let slice = data.split_to(data.len().min(paces.slice_bytes()));
        paces.pass(place, slice.len() as u64).await;
        let mut writing = pin!(stream.write_chunk(slice));
        match poll_fn(|cx| Poll::Ready(writing.as_mut().poll(cx))).await {
            Poll::Ready(written) => written?,
            Poll::Pending => {
                turn = None;
                writing.await?;
            }
        }
    }
    drop(turn);
    Ok(())
}

/// [`Next`], with the piece's bytes.
enum Found {
    Piece(u64, Bytes),
    AfterOthers,
    Nothing,
}

fn next(inner: &Inner, version: Version, (child, substream): (NodeId, u8)) -> Found {
    let mut state = inner.lock();
    let Some(l) = state.live(version) else { return Found::Nothing };
    loop {
        match l.channel.next_to_send(inner.now(), &child, substream) {
            Next::Nothing => return Found::Nothing,
            Next::AfterOthers => return Found::AfterOthers,
            Next::Piece(piece) => {
                if let Some(data) = l.pieces.get(&piece) {
                    return Found::Piece(piece, data.clone());
                }
            }
        }
    }
}
