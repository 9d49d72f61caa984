//! What other peers say of a stream, checked and handed on.

use super::{Live, MAX_EARLY, State, happened};
use crate::node::Inner;
use crate::node::connections::End;
use bytes::Bytes;
use headwater_model::id::{ContentId, NodeId, Version};
use headwater_model::live::SignedLiveEntry;
use headwater_peer_core::live::{LiveInput, Verdict};
use headwater_wire::FromPeer;
use std::sync::Arc;

/// The most bytes of a piece that this node takes of a live stream from `node`; `None` of one that is no parent.
pub(crate) fn may_push(inner: &Inner, version: Version, node: &NodeId) -> Option<u32> {
    let mut state = inner.lock();
    state.live(version).filter(|l| l.channel.is_feed(node)).map(|l| l.track.piece_bytes)
}

/// A message of another peer about a live stream; an error closes the connection, with the reason. Others come back.
pub(crate) fn from_peer(inner: &Arc<Inner>, node: NodeId, message: FromPeer) -> Result<Option<FromPeer>, End> {
    let (version, input) = match message {
        FromPeer::LiveEntries { version, entries } => {
            entries_came(inner, node, version, entries)?;
            return Ok(None);
        }
        FromPeer::Subscribe { version, substreams, from } => (version, LiveInput::Subscribed(node, substreams, from)),
        FromPeer::LiveRequest { version, pieces, patient: false } => (version, LiveInput::Asked(node, pieces)),
        FromPeer::LiveRequest { version, pieces, patient: true } => (version, LiveInput::AskedToHelp(node, pieces)),
        FromPeer::LiveCancel { version, pieces } => (version, LiveInput::Cancelled(node, pieces)),
        FromPeer::EntriesWanted { version, after } => (version, LiveInput::EntriesWanted(node, after)),
        FromPeer::LivePosition { version, newest_entry, next } => {
            (version, LiveInput::Position(node, newest_entry, next))
        }
        other => return Ok(Some(other)),
    };
    happened(inner, &mut inner.lock(), version, input);
    Ok(None)
}

/// Entries are verified outside the lock; those that are known need not be.
fn entries_came(inner: &Arc<Inner>, node: NodeId, version: Version, entries: Vec<SignedLiveEntry>) -> Result<(), End> {
    let (track, new) = {
        let mut state = inner.lock();
        let Some(l) = state.live(version) else { return Ok(()) };
        let new: Vec<SignedLiveEntry> =
            entries.into_iter().filter(|e| !l.channel.knows_entry(e.entry.number)).collect();
        (l.track.clone(), new)
    };
    for signed in &new {
        signed.verify(&track).map_err(|e| End::Rules(format!("an entry of a stream: {e}")))?;
    }
    // At once, so that no player takes a part of what a newcomer learns for the whole.
    let mut state = inner.lock();
    let new = new.into_iter().map(Arc::new).collect();
    happened(inner, &mut state, version, LiveInput::Entries(node, new));
    early_pieces(inner, &mut state, version);
    Ok(())
}

/// Entries came from where the stream's log is published; one that is not the publisher's spoils none of the others.
pub(crate) fn logged(inner: &Arc<Inner>, content: ContentId, entries: Vec<SignedLiveEntry>) {
    let Some(track) = inner.lock().live_of(&content).map(|l| l.track.clone()) else { return };
    let (good, bad): (Vec<_>, Vec<_>) = entries.into_iter().partition(|e| e.verify(&track).is_ok());
    if !bad.is_empty() {
        tracing::warn!("{} entries of the published log of {:?} are not its publisher's", bad.len(), track.name);
    }
    let mut state = inner.lock();
    let good = good.into_iter().map(Arc::new).collect();
    happened(inner, &mut state, track.version, LiveInput::Logged(good));
    early_pieces(inner, &mut state, track.version);
}

/// Pieces that waited for their entries.
fn early_pieces(inner: &Arc<Inner>, state: &mut State, version: Version) {
    let Some(l) = state.live(version) else { return };
    let Live { early, channel, .. } = l;
    let known = |piece: &u64, data: &Bytes| channel.judge(*piece, data) != Verdict::Early;
    let ready: Vec<u64> = early.iter().filter(|(p, (_, data))| known(p, data)).map(|(p, _)| *p).collect();
    let ready: Vec<_> =
        ready.into_iter().filter_map(|p| early.remove(&p).map(|(node, data)| (p, node, data))).collect();
    for (piece, node, data) in ready {
        take(inner, state, version, Some(node), piece, data);
    }
}

/// A piece came from a parent, or, where `from` is `None`, from the origin. False when the stream is not here any more.
pub(crate) fn piece_came(inner: &Arc<Inner>, version: Version, from: Option<NodeId>, piece: u64, data: Bytes) -> bool {
    let mut state = inner.lock();
    if state.live(version).is_none() {
        return false;
    }
    take(inner, &mut state, version, from, piece, data);
    true
}

fn take(inner: &Arc<Inner>, state: &mut State, version: Version, from: Option<NodeId>, piece: u64, data: Bytes) {
    let Some(l) = state.live(version) else { return };
    let verdict = l.channel.judge(piece, &data);
    let bytes = data.len() as u32;
    match (verdict, from) {
        (Verdict::Good, _) => drop(l.pieces.insert(piece, data)),
        (Verdict::Early, Some(node)) => {
            if l.early.len() >= MAX_EARLY {
                l.early.pop_first();
            }
            l.early.insert(piece, (node, data));
        }
        _ => {}
    }
    happened(inner, state, version, LiveInput::Piece { from, piece, verdict, bytes });
}
