//! Loads playlists.

use std::time::Duration;

use headwater_hls::follow::Held;
use headwater_hls::playlist::{self, MAX_PLAYLIST_BYTES, MediaPlaylist, Playlist, PlaylistError, Variant};
use url::Url;

use super::Ingest;
use crate::origin::{OpenBody, OriginError, Wanted, shown};

/// Why there is no playlist.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Origin(#[from] OriginError),
    #[error("{url}: {error}")]
    Playlist { url: String, error: PlaylistError },
    #[error("{url} {what}")]
    Other { url: String, what: String },
}

/// Whether the origin cannot be asked, now or later.
pub(super) fn is_hopeless(error: &OriginError) -> bool {
    use OriginError::{BadAccess, NotHttp, NotListed, Setup};
    matches!(error, BadAccess { .. } | NotHttp { .. } | NotListed { .. } | Setup { .. })
}

/// A media playlist that came.
pub(super) struct Loaded {
    pub(super) list: MediaPlaylist,
    /// Its address, which is another one than was asked for where that names renditions.
    pub(super) playlist: Url,
    /// Its addresses are relative to this one.
    pub(super) base: Url,
    /// What the stream's owner should know of renditions.
    pub(super) chosen: Option<String>,
}

impl Ingest {
    /// Loads the playlist at `from`; of renditions that with the highest rate.
    pub(super) async fn load(&self, from: &Url, held: Option<Held>) -> Result<Loaded, LoadError> {
        let (found, base) = self.playlist(from, held).await?;
        let variants = match found {
            Playlist::Media(list) => return Ok(Loaded { list, playlist: from.clone(), base, chosen: None }),
            Playlist::Multivariant(variants) => variants,
        };
        let (url, chosen) = choose(&base, &variants).ok_or_else(|| other(from, "names no usable rendition"))?;
        match self.playlist(&url, None).await? {
            (Playlist::Media(list), base) => Ok(Loaded { list, playlist: url, base, chosen: Some(chosen) }),
            _ => Err(other(&url, "names other playlists where it should name segments")),
        }
    }

    async fn playlist(&self, url: &Url, held: Option<Held>) -> Result<(Playlist, Url), LoadError> {
        let begins = held.map_or(self.patience.idle, |h| Duration::from_micros(h.most.0));
        let read = tokio::time::timeout(begins + self.patience.idle, self.text(&asked(url, held), begins)).await;
        let (text, at) = read.map_err(|_| other(url, "takes too long"))??;
        let found = playlist::parse(&text).map_err(|error| LoadError::Playlist { url: shown(url), error })?;
        Ok((found, at))
    }

    /// An answer has to begin within `begins`.
    async fn text(&self, url: &Url, begins: Duration) -> Result<(String, Url), LoadError> {
        let too_long = || other(url, &format!("has more than {MAX_PLAYLIST_BYTES} bytes: it is no playlist"));
        let opened = self.client.open(url, self.access_for(url), Wanted::default(), begins);
        let mut body: OpenBody = opened.await?;
        if body.stated_bytes.is_some_and(|bytes| bytes > MAX_PLAYLIST_BYTES as u64) {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next_chunk().await? {
            if bytes.len() + chunk.len() > MAX_PLAYLIST_BYTES {
                return Err(too_long());
            }
            bytes.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(bytes).map_err(|_| other(url, "is no text: it is no playlist"))?;
        Ok((text, body.final_url))
    }
}

/// The address at which the answer is held back.
fn asked(url: &Url, held: Option<Held>) -> Url {
    let mut asked = url.clone();
    if let Some((name, value)) = held.map(|h| h.query()) {
        asked.query_pairs_mut().append_pair(name, &value);
    }
    asked
}

/// The rendition with the highest rate, and that it was chosen.
fn choose(base: &Url, variants: &[Variant]) -> Option<(Url, String)> {
    let best = variants.iter().max_by_key(|v| v.bandwidth)?;
    let url = base.join(&best.uri).ok()?;
    let (mbit, shown) = (best.bandwidth.0 as f64 * 8.0 / 1e6, shown(&url));
    let chosen = format!(
        "of {} renditions {shown} is published, the one with the highest rate ({mbit:.1} Mbit/s); others, and sound or \
         subtitles with playlists of their own, are not published yet",
        variants.len()
    );
    Some((url, chosen))
}

fn other(url: &Url, what: &str) -> LoadError {
    LoadError::Other { url: shown(url), what: what.to_owned() }
}
