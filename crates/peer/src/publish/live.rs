//! Publishing a live stream: what comes of it is cut into pieces, signed and said to the trees.

use crate::ingest::{CHANNEL_MESSAGES, Ingest, IngestConfig, IngestError, Ingested, Resume};
use crate::node::live::{LiveSource, SourceError};
use crate::origin::{Access, OriginClient};
use bytes::{Bytes, BytesMut};
use headwater_model::live::{LiveEntry, MAX_ENTRY_PIECES, ObjectKind};
use headwater_model::time::Micros;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::Url;

/// What has come is said after this time, though it fills no piece.
const SAY_EVERY: Duration = Duration::from_millis(200);
/// What fills so many pieces is said at once.
const SAY_PIECES: usize = 16;
/// Objects that grow at once.
const MAX_GROWING: usize = 16;
/// Numbers of a source's first entry, piece and object are the time in milliseconds times this: no source that began
/// earlier has come as far, at a thousand pieces a millisecond.
const NUMBERS_PER_MS: u64 = 1 << 10;
/// Format of the file that tells how far a stream was published.
const FORMAT: u32 = 1;
/// A newcomer's player finds so much of the stream.
const HOLD_BACK: Micros = Micros::from_secs(6);

/// An object whose bytes still come.
struct Growing {
    kind: ObjectKind,
    offset: u64,
    pending: BytesMut,
}

/// Cuts what comes into entries, whose hashes are made where they are signed.
pub struct Cutter {
    piece_bytes: usize,
    next_entry: u64,
    next_piece: u64,
    previous: Option<u64>,
    growing: BTreeMap<u64, Growing>,
    last: (u64, ObjectKind),
}

impl Cutter {
    /// The first entry and the first piece have this number.
    pub fn new(piece_bytes: u32, first: u64) -> Cutter {
        let (piece_bytes, growing) = (piece_bytes.max(1) as usize, BTreeMap::new());
        Cutter {
            piece_bytes,
            next_entry: first,
            next_piece: first,
            previous: None,
            growing,
            last: (first, ObjectKind::Ts),
        }
    }

    /// What is to be said of what came: entries, each with the bytes of its pieces.
    pub fn take(&mut self, now_unix_ms: u64, what: Ingested) -> Vec<(LiveEntry, Bytes)> {
        match what {
            Ingested::Listed { object, kind, listed } => {
                self.grow(object, kind);
                let entry = self.entry(now_unix_ms, object, Bytes::new(), false);
                vec![(LiveEntry { listed: Some(listed), ..entry }, Bytes::new())]
            }
            Ingested::Bytes { object, kind, data } => {
                self.grow(object, kind);
                if let Some(g) = self.growing.get_mut(&object) {
                    g.pending.extend_from_slice(&data);
                }
                let full = self.piece_bytes * SAY_PIECES;
                let mut said = Vec::new();
                while self.growing.get(&object).is_some_and(|g| g.pending.len() >= full) {
                    said.extend(self.say(now_unix_ms, object, full, false));
                }
                said
            }
            Ingested::Complete { object } => {
                let all = self.growing.get(&object).map_or(0, |g| g.pending.len());
                let said = self.say(now_unix_ms, object, all, true);
                self.growing.remove(&object);
                said.into_iter().collect()
            }
            Ingested::Abandoned { object } => {
                self.growing.remove(&object);
                Vec::new()
            }
            Ingested::Ended => {
                let (object, kind) = self.last;
                self.grow(object, kind);
                let entry = self.entry(now_unix_ms, object, Bytes::new(), false);
                vec![(LiveEntry { last: true, ..entry }, Bytes::new())]
            }
            Ingested::Progress(_) | Ingested::Trouble(_) => Vec::new(),
        }
    }

    /// What waits to fill pieces is said now.
    pub fn flush(&mut self, now_unix_ms: u64) -> Vec<(LiveEntry, Bytes)> {
        let most = self.piece_bytes * MAX_ENTRY_PIECES;
        let waits = self.growing.iter().filter(|(_, g)| !g.pending.is_empty());
        let waits: Vec<(u64, usize)> = waits.map(|(o, g)| (*o, g.pending.len().min(most))).collect();
        waits.into_iter().filter_map(|(object, bytes)| self.say(now_unix_ms, object, bytes, false)).collect()
    }

    fn grow(&mut self, object: u64, kind: ObjectKind) {
        self.last = (object, kind);
        if self.growing.len() >= MAX_GROWING && !self.growing.contains_key(&object) {
            self.growing.pop_first();
        }
        self.growing.entry(object).or_insert_with(|| Growing { kind, offset: 0, pending: BytesMut::new() });
    }

    fn say(&mut self, now_unix_ms: u64, object: u64, bytes: usize, complete: bool) -> Option<(LiveEntry, Bytes)> {
        let g = self.growing.get_mut(&object)?;
        let data = g.pending.split_to(bytes.min(g.pending.len())).freeze();
        Some((self.entry(now_unix_ms, object, data.clone(), complete), data))
    }

    /// The next entry; bytes and hashes follow from its data.
    fn entry(&mut self, now_unix_ms: u64, object: u64, data: Bytes, complete: bool) -> LiveEntry {
        let (kind, offset) = self.growing.get(&object).map_or((self.last.1, 0), |g| (g.kind, g.offset));
        let entry = LiveEntry {
            epoch: 0,
            number: self.next_entry,
            previous: self.previous,
            time_unix_ms: now_unix_ms,
            object,
            kind,
            offset,
            first_piece: self.next_piece,
            bytes: data.len() as u32,
            leaves: Vec::new(),
            complete,
            listed: None,
            last: false,
        };
        self.previous = Some(self.next_entry);
        self.next_entry += 1;
        self.next_piece += data.len().div_ceil(self.piece_bytes) as u64;
        if let Some(g) = self.growing.get_mut(&object) {
            g.offset += data.len() as u64;
        }
        entry
    }
}

/// How far a stream was published, for the next start.
#[derive(Clone, Default, PartialEq, Debug, Serialize, Deserialize)]
pub struct LiveProgress {
    format: u32,
    /// Its version.
    pub epoch: u64,
    /// Of its origin.
    pub resume: Resume,
}

impl LiveProgress {
    /// Of a version of which nothing was published.
    pub fn new(epoch: u64) -> LiveProgress {
        LiveProgress { format: FORMAT, epoch, resume: Resume::default() }
    }
    /// What an earlier run left; `None` where there is nothing that can be used.
    pub fn read(path: &Path) -> Option<LiveProgress> {
        let found: LiveProgress = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        (found.format == FORMAT).then_some(found)
    }
    fn write(&self, path: &Path) -> std::io::Result<()> {
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(new, path)
    }
}

/// What is worth telling the publisher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LiveNews {
    /// The viewers hear this source from now on; or another one.
    Active(bool),
    /// A segment went out: its number, and its bytes.
    Segment(u64, u64),
    /// Something is not as it should be, or is again.
    Trouble(String),
}

/// Why a stream is not published any more.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// It cannot be brought in.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The node.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Publishes a live stream from its HLS playlist.
pub struct LivePublisher {
    /// The trees' end.
    pub source: LiveSource,
    /// Reads the origin.
    pub client: OriginClient,
    /// The playlist.
    pub url: Url,
    /// For the origin.
    pub access: Access,
    /// Keeps how far it has come.
    pub progress_file: PathBuf,
}

impl LivePublisher {
    /// Publishes until the stream ends (`Ok(true)`) or `stop` is cancelled (`Ok(false)`). While another source of the same
    /// stream is heard it waits, and goes on where that one ended.
    ///
    /// # Errors
    /// [`LiveError`].
    pub async fn run(mut self, stop: CancellationToken, mut tell: impl FnMut(LiveNews)) -> Result<bool, LiveError> {
        let epoch = self.source.track().version.epoch;
        let kept = LiveProgress::read(&self.progress_file).filter(|p| p.epoch == epoch);
        let mut progress = kept.unwrap_or_else(|| LiveProgress::new(epoch));
        loop {
            while !self.source.is_active() {
                tokio::select! {
                    changed = self.source.changed() => changed?,
                    () = stop.cancelled() => return Ok(false),
                }
            }
            tell(LiveNews::Active(true));
            if self.publish(&mut progress, &stop, &mut tell).await? {
                return Ok(true);
            }
            if stop.is_cancelled() {
                return Ok(false);
            }
            tell(LiveNews::Active(false));
        }
    }

    /// As long as this source is heard; whether the stream ended.
    async fn publish(
        &mut self,
        progress: &mut LiveProgress,
        stop: &CancellationToken,
        tell: &mut impl FnMut(LiveNews),
    ) -> Result<bool, LiveError> {
        let first = self.first_number();
        let mut resume = progress.resume.clone();
        self.hear_others(&mut resume);
        resume.next_object = resume.next_object.max(first);
        let (piece_bytes, epoch) = (self.source.track().piece_bytes, progress.epoch);
        let mut cutter = Cutter::new(piece_bytes, first);
        let config = IngestConfig {
            url: self.url.clone(),
            access: self.access.clone(),
            resume: Some(resume),
            hold_back: HOLD_BACK,
        };
        let (tx, mut came) = mpsc::channel(CHANNEL_MESSAGES);
        let ends = stop.child_token();
        let _ends_with_this = ends.clone().drop_guard();
        let mut ingest = tokio::spawn(Ingest::run(self.client.clone(), config, tx, ends));
        let mut pulse = tokio::time::interval(SAY_EVERY);
        let mut sizes: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        loop {
            let what = tokio::select! {
                what = came.recv() => what,
                _ = pulse.tick() => {
                    let said = cutter.flush(self.source.now_unix_ms());
                    self.say(epoch, said);
                    continue;
                }
                changed = self.source.changed() => {
                    changed?;
                    if self.source.is_active() {
                        continue;
                    }
                    return Ok(false);
                }
            };
            let Some(what) = what else {
                let ended = (&mut ingest).await.map_err(|e| SourceError::Ended(e.to_string()))?;
                ended?;
                return Ok(false);
            };
            match &what {
                Ingested::Trouble(what) => tell(LiveNews::Trouble(what.clone())),
                Ingested::Listed { object, listed, .. } => drop(sizes.insert(*object, (listed.sequence, 0))),
                Ingested::Bytes { object, data, .. } => {
                    if let Some((_, bytes)) = sizes.get_mut(object) {
                        *bytes += data.len() as u64;
                    }
                }
                Ingested::Complete { object } => {
                    if let Some((sequence, bytes)) = sizes.remove(object) {
                        tell(LiveNews::Segment(sequence, bytes));
                    }
                }
                Ingested::Progress(resume) => {
                    progress.resume = resume.clone();
                    if let Err(e) = progress.write(&self.progress_file) {
                        tell(LiveNews::Trouble(format!("how far the stream has come could not be kept: {e}")));
                    }
                }
                Ingested::Abandoned { object } => drop(sizes.remove(object)),
                Ingested::Ended => {}
            }
            let ended = what == Ingested::Ended;
            let said = cutter.take(self.source.now_unix_ms(), what);
            self.say(epoch, said);
            if ended {
                return Ok(true);
            }
        }
    }

    fn say(&self, epoch: u64, said: Vec<(LiveEntry, Bytes)>) {
        for (entry, data) in said {
            self.source.publish(LiveEntry { epoch, ..entry }, &data);
        }
    }

    /// Higher than any that a source of this stream gave before.
    fn first_number(&self) -> u64 {
        let heard = self.source.newest().map_or(0, |(entry, piece)| entry.max(piece) + 1);
        heard.max(self.source.now_unix_ms().saturating_mul(NUMBERS_PER_MS))
    }

    /// What another source said meanwhile is not said again. Both follow one playlist, so that segments have one number.
    fn hear_others(&self, resume: &mut Resume) {
        let Some((object, sequence)) = self.source.newest_listed() else { return };
        resume.next_object = resume.next_object.max(object + 1);
        if let Some(sequence) = sequence
            && resume.last.is_none_or(|last| last.listed < sequence)
        {
            let ahead = resume.last.map_or(0, |last| last.listed.saturating_sub(last.sequence));
            let sequence_there = sequence.saturating_sub(ahead);
            resume.last = Some(crate::ingest::LastSegment { sequence: sequence_there, listed: sequence });
            resume.map = None;
        }
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
