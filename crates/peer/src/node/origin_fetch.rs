//! Fetching leased runs, from the origin by HTTP ranges or from a waypoint.

use super::Inner;
use super::connections::store_piece;
use super::https_fetch::{Waypoint, WaypointError};
use super::state::{Running, happened};
use crate::buffer_pool::Pooled;
use crate::origin::{Access, Expected, OriginError};
use crate::publish::object_url;
use crate::store::StoreHandle;
use bytes::Bytes;
use headwater_model::assignment::LeaseSource;
use headwater_model::id::Version;
use headwater_model::log::Track;
use headwater_peer_core::{Input, PieceFrom};
use std::ops::Range;
use std::sync::Arc;
use tokio::task::{AbortHandle, JoinSet};
use url::Url;

/// Bytes of one HTTP request at most: what is fetched ahead of the disk stays in memory.
pub(super) const MAX_REQUEST_BYTES: u64 = 4 << 20;

/// Begins to fetch `pieces` of `run`; aborting the handle ends it.
pub(crate) fn start(
    inner: &Arc<Inner>,
    r: &Running,
    run: u32,
    source: LeaseSource,
    pieces: Vec<Range<u32>>,
) -> AbortHandle {
    let source = match source {
        LeaseSource::Origin => Ok(None),
        LeaseSource::Waypoint { node, reach } => Waypoint::new(inner, r, node, reach).map(Some),
    };
    let job = Job {
        inner: inner.clone(),
        track: r.track.clone(),
        access: r.access.clone(),
        store: r.store.clone(),
        version: r.version(),
    };
    // The first one of a content waits for nobody: one whose origin hangs keeps no other content from its own.
    let is_first = r.origin_jobs.is_empty();
    tokio::spawn(async move {
        let _permit = if is_first { None } else { job.inner.more_origin_jobs.acquire().await.ok() };
        let fetched = match source {
            Ok(source) => job.fetch(source, pieces).await,
            Err(e) => Err(e.into()),
        };
        let input = match fetched {
            Ok(()) => Input::OriginDone(run),
            Err(e) => {
                let changed = matches!(e, FetchFailure::Origin(OriginError::Changed { .. }));
                let forbidden = matches!(
                    e,
                    FetchFailure::Origin(OriginError::NotListed { .. })
                        | FetchFailure::Waypoint(WaypointError::NotListed)
                );
                Input::OriginFailed { run, why: e.to_string(), changed, forbidden }
            }
        };
        happened(&job.inner, &mut job.inner.lock(), job.version, input);
    })
    .abort_handle()
}

/// Why a run did not come.
#[derive(Debug, thiserror::Error)]
enum FetchFailure {
    #[error("origin: {0}")]
    Origin(#[from] OriginError),
    #[error("waypoint: {0}")]
    Waypoint(#[from] WaypointError),
}

struct Job {
    inner: Arc<Inner>,
    track: Arc<Track>,
    access: Access,
    store: StoreHandle,
    version: Version,
}

impl Job {
    /// For a piece.
    fn buffer(&self) -> Pooled {
        self.inner.buffers.take(self.track.layout.piece_bytes() as usize)
    }

    async fn fetch(&self, waypoint: Option<Waypoint>, pieces: Vec<Range<u32>>) -> Result<(), FetchFailure> {
        let layout = &self.track.layout;
        for range in pieces {
            let mut first = range.start;
            while first < range.end {
                let Some(at) = layout.at(first) else { return Ok(()) };
                let bytes = self.inner.downlink.request_bytes().min(MAX_REQUEST_BYTES);
                let per_request = (bytes / u64::from(layout.piece_bytes())).max(1) as u32;
                // A request stays within one object.
                let end = range.end.min(first + per_request).min(layout.pieces_of_object(at.object).end);
                match &waypoint {
                    None => self.read_origin(at.object, at.offset, first..end).await?,
                    Some(waypoint) => self.read_waypoint(waypoint, first..end).await?,
                }
                first = end;
            }
        }
        Ok(())
    }

    async fn read_origin(&self, object: usize, offset: u64, pieces: Range<u32>) -> Result<(), OriginError> {
        let object_of = &self.track.objects[object];
        let url = self.url(object)?;
        let bytes = offset..offset + self.track.layout.len_of(pieces.clone());
        let expected = Expected { length: object_of.size_bytes, validator: None };
        let mut cutter = Cutter::new(self, PieceFrom::Origin, pieces);
        let fetched =
            self.inner.origin.fetch_all(&url, &self.access, bytes, &expected, |_, chunk| cutter.take(chunk)).await;
        cutter.finish().await;
        fetched
    }

    async fn read_waypoint(&self, waypoint: &Waypoint, pieces: Range<u32>) -> Result<(), WaypointError> {
        let bytes = self.track.layout.len_of(pieces.clone());
        let mut cutter = Cutter::new(self, PieceFrom::Waypoint(waypoint.node), pieces.clone());
        let fetched = waypoint.fetch(self.version, pieces, bytes, |chunk| cutter.take(chunk)).await;
        cutter.finish().await;
        fetched
    }

    fn url(&self, object: usize) -> Result<Url, OriginError> {
        let (objects, origins) = (&self.track.objects, &self.track.origins);
        let origin = &origins[object % origins.len().max(1)];
        let origin =
            Url::parse(origin).map_err(|e| OriginError::BadAccess { what: format!("the origin's URL: {e}") })?;
        Ok(object_url(&origin, objects.len(), &objects[object].path))
    }
}

/// Cuts a stream of bytes into pieces, each of which is verified and stored as soon as it is whole.
struct Cutter<'a> {
    job: &'a Job,
    from: PieceFrom,
    pieces: Range<u32>,
    filled: usize,
    buffer: Pooled,
    writes: JoinSet<()>,
}

impl<'a> Cutter<'a> {
    fn new(job: &'a Job, from: PieceFrom, pieces: Range<u32>) -> Self {
        Self { job, from, pieces, filled: 0, buffer: job.buffer(), writes: JoinSet::new() }
    }

    fn take(&mut self, mut chunk: Bytes) {
        while !chunk.is_empty() && !self.pieces.is_empty() {
            let piece = self.pieces.start;
            let len = self.job.track.layout.piece_len(piece) as usize;
            let some = chunk.split_to(chunk.len().min(len - self.filled));
            self.buffer.whole()[self.filled..self.filled + some.len()].copy_from_slice(&some);
            self.filled += some.len();
            if self.filled == len {
                let data = std::mem::replace(&mut self.buffer, self.job.buffer()).freeze(0..len);
                let (inner, store, version) = (self.job.inner.clone(), self.job.store.clone(), self.job.version);
                let from = self.from;
                self.writes.spawn(async move { store_piece(&inner, &store, version, from, piece, data).await });
                self.pieces.start += 1;
                self.filled = 0;
            }
        }
    }

    /// Waits until all whole pieces were told.
    async fn finish(mut self) {
        while self.writes.join_next().await.is_some() {}
    }
}

impl Drop for Cutter<'_> {
    /// A fetch that is stopped keeps what has come: a piece that is written and not told of would be fetched again.
    fn drop(&mut self) {
        self.writes.detach_all();
    }
}
