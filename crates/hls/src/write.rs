//! The media playlist that a player gets, from a window of segments.

use headwater_model::time::Micros;
use std::fmt::Write;

/// What the tags that are written need: EXT-X-MAP before whole segments needs 6.
const VERSION: u32 = 7;
/// So many missing segments in a row are listed as missing. Behind a longer hole the playlist begins anew.
pub const MAX_GAPS: u64 = 64;

/// What a playlist is to list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window<'a> {
    /// As the stream's own playlist says it; it may be less than a whole second.
    pub target_duration: Micros,
    /// Discontinuities that left the window with their segments.
    pub discontinuity_sequence: u64,
    /// Their numbers rise. Those that are missing in between are listed as gaps.
    pub segments: &'a [WindowSegment],
    /// Nothing more will come.
    pub ended: bool,
}

/// A segment that a player may ask for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct WindowSegment {
    /// Its number in the stream.
    pub sequence: u64,
    /// How long it plays.
    pub duration: Micros,
    /// Where, relative to the playlist; not empty.
    pub uri: String,
    /// What must be read before it (EXT-X-MAP). It goes on to hold for segments that name none.
    pub map_uri: Option<String>,
    /// Timestamps and coding may begin anew with it.
    pub discontinuity: bool,
    /// When its first moment was recorded, in Unix microseconds; written to the millisecond.
    pub recorded_unix_us: Option<u64>,
}

/// Writes the playlist.
pub fn media_playlist(list: &Window<'_>) -> String {
    let (left_out, segments) = behind_long_holes(list.segments);
    let left = left_out.iter().filter(|s| s.discontinuity).count() as u64;
    let discontinuities = list.discontinuity_sequence.saturating_add(left);
    let mut out = String::new();
    line(&mut out, format_args!("#EXTM3U"));
    line(&mut out, format_args!("#EXT-X-VERSION:{VERSION}"));
    line(&mut out, format_args!("#EXT-X-TARGETDURATION:{}", whole_target_s(list.target_duration, segments)));
    line(&mut out, format_args!("#EXT-X-MEDIA-SEQUENCE:{}", segments.first().map_or(0, |s| s.sequence)));
    if discontinuities > 0 {
        line(&mut out, format_args!("#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuities}"));
    }
    let (mut expected, mut map) = (None, None);
    for segment in segments {
        let next = expected.unwrap_or(segment.sequence);
        if segment.sequence < next {
            // Its number has gone by: it would shift all others.
            continue;
        }
        (next..segment.sequence).for_each(|missing| gap(&mut out, missing, list.target_duration, &segment.uri));
        put(&mut out, segment, &mut map);
        expected = Some(segment.sequence.saturating_add(1));
    }
    if list.ended {
        line(&mut out, format_args!("#EXT-X-ENDLIST"));
    }
    out
}

/// What is before the last hole that is too long, and what comes after it.
fn behind_long_holes(segments: &[WindowSegment]) -> (&[WindowSegment], &[WindowSegment]) {
    let is_long = |pair: &[WindowSegment]| match pair {
        [a, b] => b.sequence.saturating_sub(a.sequence).saturating_sub(1) > MAX_GAPS,
        _ => false,
    };
    let from = segments.windows(2).rposition(is_long).map_or(0, |at| at + 1);
    segments.split_at_checked(from).unwrap_or((&[], segments))
}

/// Whole seconds that no segment exceeds when its duration is rounded, as the protocol demands.
fn whole_target_s(target: Micros, segments: &[WindowSegment]) -> u64 {
    let longest = segments.iter().map(|s| s.duration.0.saturating_add(500_000) / 1_000_000).max();
    target.0.div_ceil(1_000_000).max(longest.unwrap_or(0)).max(1)
}

fn put<'a>(out: &mut String, segment: &'a WindowSegment, map: &mut Option<&'a str>) {
    if segment.discontinuity {
        line(out, format_args!("#EXT-X-DISCONTINUITY"));
    }
    if let Some(uri) = segment.map_uri.as_deref()
        && *map != Some(uri)
    {
        line(out, format_args!("#EXT-X-MAP:URI=\"{}\"", plain(uri)));
        *map = Some(uri);
    }
    if let Some(date) = segment.recorded_unix_us.and_then(date_time) {
        line(out, format_args!("#EXT-X-PROGRAM-DATE-TIME:{date}"));
    }
    duration(out, segment.duration);
    line(out, format_args!("{}", plain(&segment.uri)));
}

/// Players that judge addresses by their endings refuse the whole playlist for one that has none: it has that of `like`.
fn gap_uri(sequence: u64, like: &str) -> String {
    let is_plain = |ending: &&str| !ending.is_empty() && ending.chars().all(|c| c.is_ascii_alphanumeric());
    match like.rsplit_once('.').map(|(_, ending)| ending).filter(is_plain) {
        Some(ending) => format!("gap-{sequence}.{ending}"),
        None => format!("gap-{sequence}"),
    }
}

/// `like` is the address of a segment that is there.
fn gap(out: &mut String, sequence: u64, target: Micros, like: &str) {
    line(out, format_args!("#EXT-X-GAP"));
    duration(out, target);
    line(out, format_args!("{}", gap_uri(sequence, like)));
}

fn duration(out: &mut String, of: Micros) {
    line(out, format_args!("#EXTINF:{}.{:06},", of.0 / 1_000_000, of.0 % 1_000_000));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{text}");
}

/// The address without what would end a line or a quotation, or begin a comment.
fn plain(uri: &str) -> String {
    let mut out = String::with_capacity(uri.len());
    for (at, c) in uri.char_indices() {
        if c.is_control() || c.is_whitespace() || c == '"' || (at == 0 && c == '#') {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                let _ = write!(out, "%{byte:02X}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// ISO 8601 in UTC; `None` from the year 10000 on, which it has no form for.
fn date_time(unix_us: u64) -> Option<String> {
    let ms = unix_us / 1000;
    let (days, ms_of_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute) = (ms_of_day / 3_600_000, ms_of_day / 60_000 % 60);
    let (second, ms) = (ms_of_day / 1000 % 60, ms_of_day % 1000);
    (year <= 9999).then(|| format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"))
}

/// Year, month and day of the Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms",
/// civil_from_days).
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    let z = days_since_1970 + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
