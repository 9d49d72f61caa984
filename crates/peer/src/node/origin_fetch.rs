//! Fetching leased runs from the origin by HTTP ranges.

use super::Inner;
use super::connections::store_piece;
use super::state::{Running, happened};
use crate::buffer_pool::Pool;
use crate::origin::{Access, Expected, OriginError};
use crate::publish::object_url;
use crate::store::StoreHandle;
use headwater_model::id::Version;
use headwater_model::log::Track;
use headwater_peer_core::{Input, PieceFrom};
use std::ops::Range;
use std::sync::Arc;
use tokio::task::{AbortHandle, JoinSet};
use url::Url;

/// Bytes of one HTTP request at most: what is fetched ahead of the disk stays in memory.
const MAX_REQUEST_BYTES: u64 = 4 << 20;

/// Begins to fetch `pieces` of `run`; aborting the handle ends it.
pub(crate) fn start(inner: &Arc<Inner>, r: &Running, run: u32, pieces: Vec<Range<u32>>) -> AbortHandle {
    let job = Job {
        inner: inner.clone(),
        track: r.track.clone(),
        access: r.access.clone(),
        store: r.store.clone(),
        version: r.version(),
    };
    tokio::spawn(async move {
        let input = match job.fetch(pieces).await {
            Ok(()) => Input::OriginDone(run),
            Err(e) => {
                let changed = matches!(e, OriginError::Changed { .. });
                Input::OriginFailed { run, why: e.to_string(), changed }
            }
        };
        happened(&job.inner, &mut job.inner.lock(), job.version, input);
    })
    .abort_handle()
}

struct Job {
    inner: Arc<Inner>,
    track: Arc<Track>,
    access: Access,
    store: StoreHandle,
    version: Version,
}

impl Job {
    async fn fetch(&self, pieces: Vec<Range<u32>>) -> Result<(), OriginError> {
        let layout = &self.track.layout;
        let per_request = (MAX_REQUEST_BYTES / u64::from(layout.piece_bytes())).max(1) as u32;
        for range in pieces {
            let mut first = range.start;
            while first < range.end {
                let Some(at) = layout.at(first) else { return Ok(()) };
                // A request stays within one object.
                let end = range.end.min(first + per_request).min(layout.pieces_of_object(at.object).end);
                self.fetch_pieces(at.object, at.offset, first..end).await?;
                first = end;
            }
        }
        Ok(())
    }

    async fn fetch_pieces(&self, object: usize, offset: u64, pieces: Range<u32>) -> Result<(), OriginError> {
        let layout = &self.track.layout;
        let object_of = &self.track.objects[object];
        let url = self.url(object)?;
        let bytes = offset..offset + layout.len_of(pieces.clone());
        let expected = Expected { length: object_of.size_bytes, validator: None };
        let pool = Arc::new(Pool::new(layout.piece_bytes() as usize));
        let mut writes = JoinSet::new();
        let (mut piece, mut filled, mut buffer) = (pieces.start, 0usize, pool.take());
        let fetched = self
            .inner
            .origin
            .fetch_all(&url, &self.access, bytes, &expected, |_, mut chunk| {
                while !chunk.is_empty() && piece < pieces.end {
                    let len = layout.piece_len(piece) as usize;
                    let some = chunk.split_to(chunk.len().min(len - filled));
                    buffer.whole()[filled..filled + some.len()].copy_from_slice(&some);
                    filled += some.len();
                    if filled == len {
                        let data = std::mem::replace(&mut buffer, pool.take()).freeze(len);
                        let (inner, store, version, number) =
                            (self.inner.clone(), self.store.clone(), self.version, piece);
                        writes.spawn(async move {
                            store_piece(&inner, &store, version, PieceFrom::Origin, number, data).await
                        });
                        piece += 1;
                        filled = 0;
                    }
                }
            })
            .await;
        while writes.join_next().await.is_some() {}
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
