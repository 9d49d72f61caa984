//! What a playlist says, as far as it must be understood; all else stays in the text, which travels untouched.

use headwater_model::time::{Micros, Rate};
use std::sync::Arc;

/// A longer playlist is refused: a day of two-second segments takes a third of it.
pub const MAX_PLAYLIST_BYTES: usize = 8 << 20;
/// Segments or variants of a playlist.
pub const MAX_ENTRIES: usize = 100_000;
/// Of an address.
pub const MAX_URI_BYTES: usize = 8 << 10;
/// Of a segment, and of the target duration.
const MAX_DURATION: Micros = Micros::from_secs(3600);

/// A playlist of either kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Playlist {
    /// It names other playlists, one per rendition.
    Multivariant(Vec<Variant>),
    /// It names segments.
    Media(MediaPlaylist),
}

/// One rendition of a multivariant playlist.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Variant {
    /// Its playlist, relative to this one.
    pub uri: String,
    /// Its peak rate.
    pub bandwidth: Rate,
}

/// The segments of one rendition.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MediaPlaylist {
    /// No segment is longer, when rounded.
    pub target_duration: Micros,
    /// Number of the first segment.
    pub media_sequence: u64,
    /// Nothing more will come.
    pub ended: bool,
    /// It has segments that need a key (EXT-X-KEY with another method than NONE).
    pub encrypted: bool,
    /// Its origin holds an answer back until there is a segment with the number that was asked for (RFC 8216bis, section
    /// 6.2.5.2: CAN-BLOCK-RELOAD).
    pub can_block: bool,
    /// In order; their numbers rise by one.
    pub segments: Vec<Segment>,
}

/// One segment.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Segment {
    /// Its number in the stream.
    pub sequence: u64,
    /// Where, relative to the playlist.
    pub uri: String,
    /// Only these bytes of it.
    pub range: Option<ByteRange>,
    /// How long it plays.
    pub duration: Micros,
    /// Timestamps and coding may begin anew with it.
    pub discontinuity: bool,
    /// It is known to be missing.
    pub gap: bool,
    /// What must be read before it (EXT-X-MAP).
    pub map: Option<Arc<Map>>,
    /// When its first moment was recorded, in Unix microseconds: said of it, or counted on from a segment before it.
    pub recorded_unix_us: Option<u64>,
}

/// Bytes of a resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteRange {
    /// The first one.
    pub from: u64,
    /// How many; not 0.
    pub bytes: u64,
}

/// A media initialisation section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Map {
    /// Where, relative to the playlist.
    pub uri: String,
    /// Only these bytes of it.
    pub range: Option<ByteRange>,
}

/// Why a playlist cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlaylistError {
    /// It is longer than [`MAX_PLAYLIST_BYTES`].
    #[error("the playlist has {0} bytes, more than {MAX_PLAYLIST_BYTES}")]
    TooLong(usize),
    /// It names more than [`MAX_ENTRIES`].
    #[error("the playlist names more than {MAX_ENTRIES} segments")]
    TooMany,
    /// Its first line is another one.
    #[error("this is no playlist: it does not begin with #EXTM3U")]
    NoPlaylist,
    /// A media playlist must have one.
    #[error("the playlist has no EXT-X-TARGETDURATION")]
    NoTargetDuration,
    /// A line that must be understood is not.
    #[error("line {line} of the playlist: {what}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Reads a playlist.
///
/// # Errors
/// [`PlaylistError`].
pub fn parse(text: &str) -> Result<Playlist, PlaylistError> {
    if text.len() > MAX_PLAYLIST_BYTES {
        return Err(PlaylistError::TooLong(text.len()));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().map(str::trim_end).enumerate();
    if lines.next().is_none_or(|(_, first)| first != "#EXTM3U") {
        return Err(PlaylistError::NoPlaylist);
    }
    let mut reader = Reader::default();
    for (n, line) in lines {
        reader.read(line).map_err(|e| match e {
            Wrong::Line(what) => PlaylistError::Line { line: n + 1, what },
            Wrong::TooMany => PlaylistError::TooMany,
        })?;
    }
    reader.end()
}

enum Wrong {
    Line(&'static str),
    TooMany,
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    list: MediaPlaylist,
    variants: Vec<Variant>,
    has_target: bool,
    /// Of the next URI.
    next: Segment,
    has_duration: bool,
    bandwidth: Option<Rate>,
    /// Where a range without an offset begins: behind the one before, of the same resource.
    range_end: Option<(String, u64)>,
    /// A range of the next URI without an offset.
    open_range: Option<u64>,
}

impl Reader {
    fn read(&mut self, line: &str) -> Result<(), Wrong> {
        if let Some(tag) = line.strip_prefix("#EXT") {
            let (name, value) = tag.split_once(':').unwrap_or((tag, ""));
            return self.tag(name, value).map_err(Wrong::Line);
        }
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if self.list.segments.len() + self.variants.len() >= MAX_ENTRIES {
            return Err(Wrong::TooMany);
        }
        let line = short(line).map_err(Wrong::Line)?;
        if let Some(bandwidth) = self.bandwidth.take() {
            self.variants.push(Variant { uri: line.into(), bandwidth });
            return Ok(());
        }
        self.segment(line).map_err(Wrong::Line)
    }

    fn tag(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        match name {
            "INF" => {
                let seconds = value.split_once(',').map_or(value, |(s, _)| s);
                self.next.duration = duration(seconds).ok_or("the duration is none")?;
                self.has_duration = true;
            }
            "-X-TARGETDURATION" => {
                self.list.target_duration = duration(value).filter(|d| d.0 > 0).ok_or("the target duration is none")?;
                self.has_target = true;
            }
            "-X-MEDIA-SEQUENCE" if !self.list.segments.is_empty() => return Err("the media sequence after a segment"),
            "-X-MEDIA-SEQUENCE" => {
                self.list.media_sequence = value.trim().parse().map_err(|_| "the media sequence is no number")?;
            }
            "-X-BYTERANGE" => match range(value).ok_or("the byte range is none")? {
                (bytes, Some(from)) => self.next.range = Some(ByteRange { from, bytes }),
                (bytes, None) => self.open_range = Some(bytes),
            },
            "-X-MAP" => {
                let uri = attribute(value, "URI").ok_or("EXT-X-MAP without a URI")?;
                let range = match attribute(value, "BYTERANGE") {
                    None => None,
                    Some(text) => {
                        let (bytes, from) = range(text).ok_or("the byte range is none")?;
                        Some(ByteRange { from: from.unwrap_or(0), bytes })
                    }
                };
                self.next.map = Some(Arc::new(Map { uri: short(uri)?.into(), range }));
            }
            "-X-DISCONTINUITY" => self.next.discontinuity = true,
            "-X-GAP" => self.next.gap = true,
            "-X-PROGRAM-DATE-TIME" => self.next.recorded_unix_us = Some(unix_us(value).ok_or("the date is none")?),
            "-X-ENDLIST" => self.list.ended = true,
            "-X-SERVER-CONTROL" => self.list.can_block = attribute(value, "CAN-BLOCK-RELOAD") == Some("YES"),
            "-X-KEY" => self.list.encrypted |= attribute(value, "METHOD") != Some("NONE"),
            "-X-STREAM-INF" => {
                let bandwidth: u64 = attribute(value, "BANDWIDTH").and_then(|v| v.parse().ok()).unwrap_or(0);
                self.bandwidth = Some(Rate(bandwidth / 8));
            }
            _ => {}
        }
        Ok(())
    }

    fn segment(&mut self, uri: &str) -> Result<(), &'static str> {
        if !std::mem::take(&mut self.has_duration) {
            return Err("a segment without EXTINF");
        }
        let before = self.list.segments.last();
        let sequence = match before {
            None => self.list.media_sequence,
            Some(before) => before.sequence + 1,
        };
        if sequence == u64::MAX {
            return Err("the media sequence is too high");
        }
        let counted_on = before.and_then(|b| b.recorded_unix_us?.checked_add(b.duration.0));
        let next = Segment { map: self.next.map.clone(), ..Segment::default() };
        let mut segment = std::mem::replace(&mut self.next, next);
        if let Some(bytes) = self.open_range.take() {
            let from = match &self.range_end {
                Some((of, end)) if of == uri => *end,
                _ => return Err("a byte range without an offset, after none of the same resource"),
            };
            segment.range = Some(ByteRange { from, bytes });
        }
        if let Some(r) = segment.range {
            let end = r.from.checked_add(r.bytes).ok_or("the byte range is too high")?;
            self.range_end = Some((uri.into(), end));
        }
        if !segment.discontinuity {
            segment.recorded_unix_us = segment.recorded_unix_us.or(counted_on);
        }
        (segment.sequence, segment.uri) = (sequence, uri.into());
        self.list.segments.push(segment);
        Ok(())
    }

    fn end(self) -> Result<Playlist, PlaylistError> {
        if !self.variants.is_empty() {
            return Ok(Playlist::Multivariant(self.variants));
        }
        if !self.has_target {
            return Err(PlaylistError::NoTargetDuration);
        }
        Ok(Playlist::Media(self.list))
    }
}

fn short(uri: &str) -> Result<&str, &'static str> {
    if uri.len() > MAX_URI_BYTES { Err("an address that is too long") } else { Ok(uri) }
}

fn duration(seconds: &str) -> Option<Micros> {
    let s: f64 = seconds.trim().parse().ok()?;
    let most = MAX_DURATION.0 as f64 / 1e6;
    (0.0..=most).contains(&s).then_some(Micros((s * 1e6).round() as u64))
}

/// `length[@offset]`.
fn range(text: &str) -> Option<(u64, Option<u64>)> {
    let (bytes, from) = match text.trim().split_once('@') {
        Some((bytes, from)) => (bytes, Some(from.parse().ok()?)),
        None => (text.trim(), None),
    };
    Some((bytes.parse().ok().filter(|b| *b > 0)?, from))
}

/// The value of `NAME=value` or `NAME="value"` in an attribute list.
fn attribute<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = list;
    loop {
        let (key, after) = rest.split_once('=')?;
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let (value, next) = quoted.split_once('"')?;
                (value, next.strip_prefix(',').unwrap_or(next))
            }
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.trim() == name {
            return Some(value);
        }
        rest = next;
    }
}

/// ISO 8601 as EXT-X-PROGRAM-DATE-TIME has it: `2026-11-29T10:00:00.250+01:00`, `Z`, or `+0100`; without a zone it counts
/// as UTC.
fn unix_us(text: &str) -> Option<u64> {
    let (date, time) = text.trim().split_once('T')?;
    let mut ymd = date.splitn(3, '-').map(|n| n.parse::<u32>().ok());
    let (year, month, day) = (ymd.next()??, ymd.next()??, ymd.next()??);
    let zone_at = time.find(['Z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = (time.get(..zone_at)?, time.get(zone_at..)?);
    let mut parts = clock.splitn(3, ':');
    let (hour, minute): (u64, u64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let second: f64 = parts.next()?.parse().ok()?;
    let sane = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && (0.0..61.0).contains(&second);
    if !sane {
        return None;
    }
    let ahead_s: i64 = match zone.chars().next() {
        None | Some('Z') => 0,
        Some(sign) => {
            let digits: String = zone.chars().filter(char::is_ascii_digit).collect();
            let (h, m): (i64, i64) = (digits.get(..2)?.parse().ok()?, digits.get(2..4).unwrap_or("0").parse().ok()?);
            (h * 3600 + m * 60) * if sign == '-' { -1 } else { 1 }
        }
    };
    let seconds = days_since_1970(year, month, day) * 86_400 + (hour * 3600 + minute * 60) as i64 - ahead_s;
    let us = seconds.checked_mul(1_000_000)? + (second * 1e6).round() as i64;
    u64::try_from(us).ok()
}

/// Of the Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms", days_from_civil).
fn days_since_1970(year: u32, month: u32, day: u32) -> i64 {
    let (y, m, d) = (i64::from(year) - i64::from(month <= 2), i64::from(month), i64::from(day));
    let (era, of_era) = (y.div_euclid(400), y.rem_euclid(400));
    let of_year = (153 * (m + if m > 2 { -3 } else { 9 }) + 2) / 5 + d - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
#[path = "playlist_tests.rs"]
mod tests;
