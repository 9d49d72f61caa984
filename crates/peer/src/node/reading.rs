//! Reading a content at a node while it arrives.

use super::state::{Phase, State, happened};
use super::{Inner, Outcome};
use crate::store::{StoreError, StoreHandle};
use bytes::Bytes;
use headwater_model::id::{ContentId, Version};
use headwater_model::log::Track;
use headwater_peer_core::Input;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// Pieces that a reader passes before the swarm is told again how far it is.
const TELL_EVERY: u32 = 8;

/// Why a reader gets no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It failed, was withdrawn, or there is a newer version.
    #[error("the content is no longer here: {0}")]
    Gone(String),
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads one version of a content, in order from any place.
pub(crate) struct Reader {
    inner: Arc<Inner>,
    number: u64,
    version: Version,
    store: StoreHandle,
    arrived: Arc<Notify>,
    _reading: Arc<()>,
    /// The position that the swarm was told of.
    told: Option<u32>,
}

/// What can be read of a content that runs.
pub(crate) struct Readable {
    pub(crate) track: Arc<Track>,
    /// When it was published, Unix milliseconds.
    pub(crate) published_unix_ms: u64,
    pub(crate) reader: Reader,
}

/// Why a content cannot be read.
pub(crate) enum NotReadable {
    /// It is not among this node's.
    Unknown,
    /// Its log is being asked for, or its store opened.
    NotYet,
    /// It is a live stream.
    Live,
    /// It came to nothing.
    Failed(String),
}

/// A reader of a content.
pub(crate) fn read(inner: &Arc<Inner>, id: ContentId) -> Result<Readable, NotReadable> {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    let state = inner.lock();
    let content = state.contents.get(&id).ok_or(NotReadable::Unknown)?;
    match (content.readable(), &content.phase) {
        (None, Phase::Failed) => Err(NotReadable::Failed(match &*content.outcome.borrow() {
            Outcome::Failed(e) => e.to_string(),
            Outcome::Running | Outcome::Complete | Outcome::StandIn(_) => String::new(),
        })),
        (None, Phase::Live(_)) => Err(NotReadable::Live),
        (None, _) => Err(NotReadable::NotYet),
        (Some(r), _) => Ok(Readable {
            track: r.track.clone(),
            published_unix_ms: r.log.entries.last().map_or(0, |e| e.entry.time_unix_ms),
            reader: Reader {
                inner: inner.clone(),
                number: NUMBERS.fetch_add(1, Ordering::Relaxed),
                version: r.version(),
                store: r.store.clone(),
                arrived: r.arrived.clone(),
                _reading: r.reading.clone(),
                told: None,
            },
        }),
    }
}

impl Reader {
    /// The data of `piece`, as soon as it is here; `end` is where this reader will stop reading.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(crate) async fn piece(&mut self, piece: u32, end: u32) -> Result<Bytes, ReadError> {
        loop {
            // Before looking, so that a piece that comes in between is not slept through.
            let arrived = self.arrived.clone();
            let mut arrived = std::pin::pin!(arrived.notified());
            arrived.as_mut().enable();
            let here = self.store.has(piece);
            self.tell(piece, end, here)?;
            if here && let Some(data) = self.store.read(piece).await? {
                // A newer version may write where this one lay: what was read since is not this one's.
                self.check(&mut self.inner.lock())?;
                return Ok(data);
            }
            if !here {
                arrived.await;
            }
        }
    }

    /// Tells the swarm how far the reader is, now and then, and at once where it waits. An error when the content is gone.
    fn tell(&mut self, piece: u32, end: u32, here: bool) -> Result<(), ReadError> {
        let mut state = self.inner.lock();
        let state = &mut *state;
        self.check(state)?;
        let near = self.told.is_some_and(|told| (told..told.saturating_add(TELL_EVERY)).contains(&piece));
        if !(near && (here || self.told == Some(piece))) {
            self.told = Some(piece);
            happened(&self.inner, state, self.version, Input::Reads { reader: self.number, pieces: piece..end });
        }
        Ok(())
    }

    /// An error when the content is gone.
    fn check(&self, state: &mut State) -> Result<(), ReadError> {
        if state.running(self.version).is_some() {
            return Ok(());
        }
        let content = state.contents.get(&self.version.content);
        // A former version is read to its end: it is complete, and lies apart from the new one.
        let is_former = content.and_then(|c| c.readable()).is_some_and(|r| r.version() == self.version);
        if is_former { Ok(()) } else { Err(gone(content)) }
    }
}

fn gone(content: Option<&super::state::ContentState>) -> ReadError {
    ReadError::Gone(match content.map(|c| c.outcome.borrow().clone()) {
        Some(Outcome::Failed(e)) => e.to_string(),
        Some(_) => "there is a newer version".into(),
        None => "it was removed, or the node stops".into(),
    })
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.told.is_some() {
            happened(&self.inner, &mut self.inner.lock(), self.version, Input::ReaderLeft(self.number));
        }
    }
}
