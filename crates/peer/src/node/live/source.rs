//! The publisher's end: a node that is the source of a stream.

use super::{Inner, happened};
use crate::key::PublisherKey;
use crate::node::Node;
use crate::node::state::ContentState;
use bytes::Bytes;
use headwater_model::Name;
use headwater_model::id::{ContentId, Version};
use headwater_model::live::{LiveEntry, LiveTrack, SignedLiveEntry};
use headwater_model::log::{Log, LogError};
use headwater_model::merkle;
use headwater_peer_core::live::LiveInput;
use headwater_wire::StaticLog;
use headwater_wire::limits::MAX_LOGGED_ENTRIES;
use std::sync::Arc;
use tokio::sync::watch;

/// Why a node is no source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The log.
    #[error("the stream's log: {0}")]
    Log(#[from] LogError),
    /// The node stopped, or the control center refused it.
    #[error("the stream ended here: {0}")]
    Ended(String),
}

/// A stream that this node is a source of. Whether the others hear this one or another source of the same stream the
/// control center decides.
pub struct LiveSource {
    inner: Arc<Inner>,
    key: Arc<PublisherKey>,
    track: LiveTrack,
    active: watch::Receiver<bool>,
}

impl Node {
    /// Becomes a source of the stream that `log` is of.
    ///
    /// # Errors
    /// [`SourceError::Log`].
    pub fn live_source(&self, name: Name, log: Log, key: Arc<PublisherKey>) -> Result<LiveSource, SourceError> {
        let inner = self.0.clone();
        let track = log.verify_live(&name.name, Some(&name.key))?;
        let id = track.version.content;
        let (node, signs) = (self.id(), key.clone());
        let mut content = ContentState::new(id, Some(name), None, None);
        content.claim = Some(Box::new(move |version: Version| signs.claim_source(version, &node)));
        let mut state = inner.lock();
        state.contents.insert(id, content);
        super::run(&inner, &mut state, id, log, track.clone(), crate::origin::Access::default());
        let active = state.live_of(&id).map(|l| l.active.subscribe());
        drop(state);
        let active = active.ok_or_else(|| SourceError::Ended("it could not begin".into()))?;
        Ok(LiveSource { inner, key, track, active })
    }
}

impl Node {
    /// What is published of a stream's log: the newest entries after a number, as a static log's bytes; `None` where the
    /// stream is not here.
    pub fn live_log(&self, content: &ContentId, after: u64) -> Option<Vec<u8>> {
        let state = self.0.lock();
        let l = state.live_of(content)?;
        let entries = l.channel.entries_after(after, usize::MAX).map(|e| SignedLiveEntry::clone(e));
        let mut entries: Vec<SignedLiveEntry> = entries.collect();
        entries.drain(..entries.len().saturating_sub(MAX_LOGGED_ENTRIES));
        let log = l.log.clone();
        drop(state);
        Some(StaticLog { log, leaves: Vec::new(), sums: Vec::new(), entries }.encode())
    }
}

impl LiveSource {
    /// What its log says.
    pub fn track(&self) -> &LiveTrack {
        &self.track
    }
    /// Whether the others hear this source.
    pub fn is_active(&self) -> bool {
        *self.active.borrow()
    }
    /// Waits until that changes.
    ///
    /// # Errors
    /// [`SourceError::Ended`] when the node stopped.
    pub async fn changed(&mut self) -> Result<(), SourceError> {
        self.active.changed().await.map_err(|_| SourceError::Ended("the node stopped".into()))
    }
    /// Number of the newest entry known here, also where another source said it; and the piece after its last.
    pub fn newest(&self) -> Option<(u64, u64)> {
        let state = self.inner.lock();
        let l = state.live_of(&self.track.version.content)?;
        Some((l.channel.newest_entry()?, l.channel.end_piece()))
    }
    /// The highest number of an object of a listed segment known here, and that of a segment all of which its source said: one
    /// that was interrupted in the next is listed once more.
    pub fn newest_listed(&self) -> Option<(u64, Option<u64>)> {
        let state = self.inner.lock();
        let l = state.live_of(&self.track.version.content)?;
        let (object, ..) = l.channel.listed().next_back()?;
        let whole = l.channel.listed().rev().find(|(_, of, _)| of.bytes.is_some());
        Some((object, whole.map(|(.., listed)| listed.sequence)))
    }
    /// The control center's time, or this machine's where there is none, in Unix milliseconds.
    pub fn now_unix_ms(&self) -> u64 {
        let state = self.inner.lock();
        state.session.control_unix_ms(self.inner.now()).unwrap_or_else(crate::node::local_unix_ms)
    }

    /// Says `entry`, whose hashes are made here of `data`: all its pieces one after the other.
    pub fn publish(&self, mut entry: LiveEntry, data: &Bytes) {
        let piece_bytes = self.track.piece_bytes.max(1) as usize;
        let pieces: Vec<Bytes> =
            (0..data.len()).step_by(piece_bytes).map(|at| data.slice(at..data.len().min(at + piece_bytes))).collect();
        entry.bytes = data.len() as u32;
        entry.leaves = pieces.iter().map(|p| merkle::leaf(p)).collect();
        let version = self.track.version;
        let signed = Arc::new(self.key.sign_live(version.content, entry));
        let first = signed.entry.first_piece;
        let mut state = self.inner.lock();
        if let Some(l) = state.live(version) {
            l.pieces.extend(pieces.into_iter().enumerate().map(|(i, data)| (first + i as u64, data)));
        }
        happened(&self.inner, &mut state, version, LiveInput::Published(signed));
    }
}
