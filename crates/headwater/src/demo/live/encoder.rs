//! The channel: a few seconds of media, written again and again in real time as a packager does, with a live playlist.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use headwater_hls::write::{Window, WindowSegment, media_playlist};
use headwater_model::time::Micros;
use tokio::fs;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The media; how it was made stands beside it.
const MEDIA: [&[u8]; 4] = [
    include_bytes!("../../../assets/live/0.ts"),
    include_bytes!("../../../assets/live/1.ts"),
    include_bytes!("../../../assets/live/2.ts"),
    include_bytes!("../../../assets/live/3.ts"),
];
const LOOP: u64 = MEDIA.len() as u64;
/// How long each of them plays.
pub const SEGMENT: Duration = Duration::from_secs(1);
/// Its rate at its peaks, with some headroom, as an option's value.
pub const RATE: &str = "320kbit/s";

/// The playlist's file.
pub const PLAYLIST: &str = "index.m3u8";
/// So many segments are listed.
const LISTED: u64 = 8;
/// A segment that has left the playlist stays as long as a playlist is (RFC 8216, section 6.2.2): a player may have an
/// old one.
const KEPT: u64 = 2 * LISTED;

/// Writes the channel into `folder` until `stop` is cancelled, and tells how many segments there were so far.
///
/// # Errors
/// If a file cannot be written.
pub async fn run(folder: PathBuf, recorded: watch::Sender<u64>, stop: CancellationToken) -> Result<()> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).context("this machine's clock")?;
    let begun_unix_us = u64::try_from(since_1970.as_micros()).context("this machine's clock")?;
    let mut due = Instant::now();
    for sequence in 0.. {
        due += SEGMENT;
        tokio::select! {
            () = sleep_until(due) => {}
            () = stop.cancelled() => break,
        }
        let put = put(&folder, sequence, begun_unix_us).await;
        put.with_context(|| format!("cannot write the channel into {}", folder.display()))?;
        recorded.send_replace(sequence + 1);
    }
    Ok(())
}

/// Adds a segment, and removes one that nobody asks for any more.
async fn put(folder: &Path, sequence: u64, begun_unix_us: u64) -> std::io::Result<()> {
    fs::write(folder.join(file_name(sequence)), media(sequence)).await?;
    // Whoever reads finds the former playlist or the new one, whole.
    let new = folder.join("index.new");
    fs::write(&new, playlist(sequence + 1, begun_unix_us)).await?;
    fs::rename(new, folder.join(PLAYLIST)).await?;
    match sequence.checked_sub(KEPT) {
        Some(old) => fs::remove_file(folder.join(file_name(old))).await,
        None => Ok(()),
    }
}

fn media(sequence: u64) -> &'static [u8] {
    MEDIA[(sequence % LOOP) as usize]
}

fn file_name(sequence: u64) -> String {
    format!("{sequence}.ts")
}

/// Whether timestamps jump back: with each turn of the loop but the first.
fn begins_anew(sequence: u64) -> bool {
    sequence > 0 && sequence.is_multiple_of(LOOP)
}

/// The playlist once so many segments were recorded, the first of them from `begun_unix_us` on.
fn playlist(recorded: u64, begun_unix_us: u64) -> String {
    let span = Micros(SEGMENT.as_micros() as u64);
    let first = recorded.saturating_sub(LISTED);
    let segment = |sequence: u64| WindowSegment {
        sequence,
        duration: span,
        uri: file_name(sequence),
        map_uri: None,
        discontinuity: begins_anew(sequence),
        recorded_unix_us: Some(begun_unix_us + sequence * span.0),
    };
    let segments: Vec<WindowSegment> = (first..recorded).map(segment).collect();
    media_playlist(&Window {
        target_duration: span,
        discontinuity_sequence: (0..first).filter(|sequence| begins_anew(*sequence)).count() as u64,
        segments: &segments,
        ended: false,
    })
}

#[cfg(test)]
mod tests {
    use headwater_hls::media::{Break, Continuity};
    use headwater_hls::playlist::{MediaPlaylist, Playlist, parse};

    use super::*;

    const BEGUN_UNIX_US: u64 = 1_800_000_000_250_000;

    fn listed(recorded: u64) -> MediaPlaylist {
        let Ok(Playlist::Media(list)) = parse(&playlist(recorded, BEGUN_UNIX_US)) else { panic!("no playlist") };
        list
    }

    #[test]
    fn playlists_slide_and_count_what_left_them() {
        /// So many recorded: the first listed, how many, which begin anew, and the discontinuities that are gone.
        type Case<'a> = (u64, u64, usize, &'a [u64], Option<u64>);
        let cases: [Case<'_>; 8] = [
            (1, 0, 1, &[], None),
            (4, 0, 4, &[], None),
            (5, 0, 5, &[4], None),
            (8, 0, 8, &[4], None),
            (12, 4, 8, &[4, 8], None),
            (13, 5, 8, &[8, 12], Some(1)),
            (16, 8, 8, &[8, 12], Some(1)),
            (17, 9, 8, &[12, 16], Some(2)),
        ];
        for (recorded, first, count, anew, gone) in cases {
            let list = listed(recorded);
            assert_eq!((list.media_sequence, list.segments.len(), list.ended), (first, count, false), "{recorded}");
            assert_eq!(list.target_duration, Micros::from_secs(1));
            let found = list.segments.iter().filter(|s| s.discontinuity).map(|s| s.sequence);
            assert_eq!(found.collect::<Vec<_>>(), anew, "{recorded}");
            for segment in &list.segments {
                let recorded_at = BEGUN_UNIX_US + segment.sequence * 1_000_000;
                assert_eq!(segment.recorded_unix_us, Some(recorded_at), "{recorded}");
                assert_eq!(segment.uri, format!("{}.ts", segment.sequence));
            }
            let text = playlist(recorded, BEGUN_UNIX_US);
            let said = text.lines().find_map(|line| line.strip_prefix("#EXT-X-DISCONTINUITY-SEQUENCE:"));
            assert_eq!(said.map(|n| n.parse()), gone.map(Ok), "{text}");
        }
    }

    #[test]
    fn the_media_goes_on_but_where_it_says_so() {
        let mut player = Continuity::new();
        for sequence in 0..3 * LOOP {
            let found = player.segment(None, media(sequence), begins_anew(sequence));
            assert_eq!(found.breaks, [], "segment {sequence}");
            assert!(found.duration.0.abs_diff(1_000_000) < 60_000, "segment {sequence}: {:?}", found.duration);
        }
        let unannounced = player.segment(None, media(0), false);
        assert!(unannounced.breaks.iter().any(|b| matches!(b, Break::Repeat { .. })), "{unannounced:?}");
    }

    #[tokio::test]
    async fn old_segments_go() {
        let folder = tempfile::tempdir().unwrap();
        for sequence in 0..=KEPT + 1 {
            put(folder.path(), sequence, BEGUN_UNIX_US).await.unwrap();
        }
        let there = |name: &str| folder.path().join(name).exists();
        assert!(!there("0.ts") && !there("1.ts") && there("2.ts") && there(&file_name(KEPT + 1)));
        assert!(there(PLAYLIST) && !there("index.new"));
        let text = std::fs::read_to_string(folder.path().join(PLAYLIST)).unwrap();
        assert_eq!(text, playlist(KEPT + 2, BEGUN_UNIX_US));
    }
}
