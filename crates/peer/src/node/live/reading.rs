//! Reading a stream at this node, as players do.

use super::{Live, happened};
use crate::node::Inner;
use bytes::Bytes;
use headwater_model::id::{ContentId, Version};
use headwater_model::live::{Listed, ObjectKind};
use headwater_model::time::Rate;
use headwater_peer_core::live::{Channel, LiveInput, Object};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A segment whose end has not come when so many later ones are whole will not be.
const OVERTAKEN: usize = 3;
/// What was here before a player asked for it goes out at this many times the stream's rate, or as fast as the network has
/// been: so a player that measures its throughput learns of the network, not of this machine's memory.
const FROM_MEMORY: u64 = 4;

/// Why a reader gets no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadEnd {
    /// It was given up.
    #[error("a part of it is not to be had any more")]
    Lost,
    /// It left the window, or the stream ended here.
    #[error("it is no longer here")]
    Gone,
}

/// What players may ask for.
pub(crate) struct Window {
    /// Object, its kind, and what the playlist says of it; oldest first, rising by number in the stream.
    pub(crate) segments: Vec<(u64, ObjectKind, Listed)>,
    /// Nothing more will come.
    pub(crate) ended: bool,
    /// Changes when something does.
    pub(crate) changed: watch::Receiver<u64>,
}

/// What players may ask for of a stream; `None` where the content is none.
pub(crate) fn window(inner: &Inner, id: &ContentId) -> Option<Window> {
    let mut state = inner.lock();
    let l = state.live_of_mut(id)?;
    l.used_at = inner.now();
    let changed = l.changed.subscribe();
    let mut listed: BTreeMap<u64, Vec<(u64, &Object, &Listed)>> = BTreeMap::new();
    for (object, of, l) in l.channel.listed() {
        listed.entry(l.sequence).or_default().push((object, of, l));
    }
    // Nor can players begin without a segment's initialisation section, whose entry may come after the segment's.
    let has_map = |l: &Listed, c: &Channel| l.map.is_none_or(|m| c.object(m).is_some_and(|of| of.bytes.is_some()));
    let whole = |all: &[_]| whole(all).filter(|(.., listed)| has_map(listed, &l.channel));
    let mut segments = Vec::new();
    let mut newer = listed.values().filter(|all| whole(all).is_some()).count();
    // Many come at once after a source stood still: how many are newer does not tell then how long ago that was.
    let awaits_entries = l.channel.awaits_entries();
    let mut expected = None;
    for (sequence, all) in &listed {
        let may_come = newer < OVERTAKEN || awaits_entries;
        // Entries come over several ways: one that is missing may be about to come.
        if expected.is_some_and(|next| next < *sequence) && may_come {
            break;
        }
        expected = Some(sequence.saturating_add(1));
        match whole(all) {
            Some((object, of, listed)) => {
                newer -= 1;
                let here = all.iter().find(|(object, ..)| all.len() > 1 && l.channel.is_here(*object));
                let (object, of, listed) = here.copied().unwrap_or((object, of, listed));
                segments.push((object, of.kind, listed.clone()));
            }
            // What still comes is waited for: players would take a later one for the next.
            None if may_come && !all.iter().all(|(_, of, _)| of.lost) => break,
            None => {}
        }
    }
    Some(Window { segments, ended: l.channel.has_ended(), changed })
}

/// Of those that were listed under one number, the last whose source had all of it: one that began anew lists what it was
/// interrupted in once more.
fn whole<'a>(all: &[(u64, &'a Object, &'a Listed)]) -> Option<(u64, &'a Object, &'a Listed)> {
    all.iter().rev().find(|(_, of, _)| of.bytes.is_some() && !of.lost).copied()
}

/// Reads one object, in order.
pub(crate) struct LiveReader {
    inner: Arc<Inner>,
    version: Version,
    reader: u64,
    object: u64,
    /// Kind and length in bytes.
    pub(crate) kind: ObjectKind,
    /// See `kind`.
    pub(crate) bytes: u64,
    at: u64,
    began: Instant,
    /// What was here then, and how fast that goes out.
    here: u64,
    rate: Rate,
    changed: watch::Receiver<u64>,
}

impl LiveReader {
    /// Begins to read an object that is whole; `reader` tells players apart. `None` where there is none such.
    pub(crate) fn open(inner: &Arc<Inner>, id: &ContentId, object: u64, reader: u64) -> Option<LiveReader> {
        let mut state = inner.lock();
        let l = state.live_of_mut(id)?;
        l.used_at = inner.now();
        let of = l.channel.object(object).filter(|o| !o.lost)?;
        let (kind, bytes, version) = (of.kind, of.bytes?, l.channel.version());
        let (changed, here) = (l.changed.subscribe(), l.channel.held_up_to(object, 0));
        let usual = l.channel.terms().rate.0.saturating_mul(FROM_MEMORY);
        let rate = Rate(usual.max(l.meters.fastest_down()).max(1));
        happened(inner, &mut state, version, LiveInput::Reads { reader, object });
        let (inner, began) = (inner.clone(), Instant::now());
        Some(LiveReader { inner, version, reader, object, kind, bytes, at: 0, began, here, rate, changed })
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`ReadEnd`].
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ReadEnd> {
        if self.at >= self.bytes {
            return Ok(None);
        }
        if self.at < self.here {
            let due = Duration::from_micros(self.rate.time_for(self.at).0);
            tokio::time::sleep_until(self.began + due).await;
        }
        loop {
            self.changed.mark_unchanged();
            if let Some(data) = self.look()? {
                self.at += data.len() as u64;
                return Ok(Some(data));
            }
            self.changed.changed().await.map_err(|_| ReadEnd::Gone)?;
        }
    }

    fn look(&self) -> Result<Option<Bytes>, ReadEnd> {
        let mut state = self.inner.lock();
        let l: &mut Live = state.live(self.version).ok_or(ReadEnd::Gone)?;
        let of = l.channel.object(self.object).ok_or(ReadEnd::Gone)?;
        if of.lost {
            return Err(ReadEnd::Lost);
        }
        let Some((piece, begin)) = l.channel.piece_at(self.object, self.at) else { return Ok(None) };
        let from = (self.at - begin) as usize;
        Ok(l.pieces.get(&piece).filter(|d| d.len() > from).map(|d| d.slice(from..)))
    }
}

impl Drop for LiveReader {
    /// A player that goes away in the middle needs nothing more.
    fn drop(&mut self) {
        if self.at < self.bytes {
            let mut state = self.inner.lock();
            happened(&self.inner, &mut state, self.version, LiveInput::ReaderLeft(self.reader));
        }
    }
}
