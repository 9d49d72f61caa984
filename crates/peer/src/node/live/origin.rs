//! Fetching pieces of a stream from its origin, when a player would else wait.

use super::{Live, happened, piece_came};
use crate::node::Inner;
use crate::origin::{Access, OriginError};
use bytes::BytesMut;
use headwater_model::id::Version;
use headwater_peer_core::live::LiveInput;
use std::sync::Arc;
use tokio::task::AbortHandle;
use url::Url;

/// Begins to fetch pieces that lie one after the other, the first at byte `from` of `url`.
pub(super) fn start(
    inner: &Arc<Inner>,
    l: &Live,
    job: u64,
    url: &str,
    from: u64,
    pieces: Vec<(u64, u32)>,
) -> AbortHandle {
    let (inner, version, access, url) = (inner.clone(), l.channel.version(), l.access.clone(), Url::parse(url));
    tokio::spawn(async move {
        let fetched = match url {
            Ok(url) => fetch(&inner, version, &access, &url, from, &pieces).await.map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        if let Err(why) = fetched {
            tracing::debug!("the origin did not give pieces of a stream: {why}");
        }
        let mut state = inner.lock();
        if let Some(l) = state.live(version) {
            l.origin_jobs.remove(&job);
        }
        happened(&inner, &mut state, version, LiveInput::OriginEnded(job));
    })
    .abort_handle()
}

async fn fetch(
    inner: &Arc<Inner>,
    version: Version,
    access: &Access,
    url: &Url,
    from: u64,
    pieces: &[(u64, u32)],
) -> Result<(), OriginError> {
    let bytes: u64 = pieces.iter().map(|(_, len)| u64::from(*len)).sum();
    let mut body = inner.live_origin.fetch_part(url, access, from..from.saturating_add(bytes)).await?;
    let mut pieces = pieces.iter();
    let Some((mut piece, mut len)) = pieces.next().copied() else { return Ok(()) };
    let mut buffer = BytesMut::new();
    while let Some(chunk) = body.next_chunk().await? {
        buffer.extend_from_slice(&chunk);
        while buffer.len() >= len as usize {
            let data = buffer.split_to(len as usize).freeze();
            if !piece_came(inner, version, None, piece, data) {
                return Ok(());
            }
            let Some(next) = pieces.next() else { return Ok(()) };
            (piece, len) = *next;
        }
    }
    Ok(())
}
