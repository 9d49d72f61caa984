//! A playlist ahead of its encoder: encoders list a segment when it is over, and the publisher wants it while it is made.

use std::fmt::Write;
use std::time::Duration;

use headwater_hls::playlist::MediaPlaylist;
use headwater_model::log::is_plain_path;

/// So many segments are listed ahead: one that is made, and one before it of which the encoder says so only then.
const MAX_AHEAD: usize = 2;
/// A server says that it cannot rather than hold an answer back for more target durations (RFC 8216bis, section 6.2.5.2).
const HELD_TARGETS: u32 = 3;
/// Runs of digits of a name that may be the segment's number.
const MAX_RUNS: usize = 8;
/// Whoever asks for more than so many segments beyond the last one is told at once what there is.
const FAR: u64 = 2;

/// What an encoder listed, and what is known to come next.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    text: String,
    target: Duration,
    ended: bool,
    /// Number, address relative to the playlist and duration in seconds of the last segment.
    last: Option<(u64, String, f64)>,
    /// Its name tells that of the next one.
    is_file: bool,
    /// Where the playlist is, with a slash at its end if it is not at the root.
    folder: String,
    /// Addresses of the segments behind the last one that the publisher was told of. What was told stays told, whatever
    /// becomes of it: a playlist that goes back is taken for an encoder that began anew.
    ahead: Vec<String>,
}

impl Listing {
    /// The playlist at `path`.
    pub(super) fn of(path: &str, list: &MediaPlaylist, text: String) -> Listing {
        let last = list.segments.last();
        let folder = path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        Listing {
            target: Duration::from_micros(list.target_duration.0),
            ended: list.ended,
            is_file: last.is_some_and(|s| s.range.is_none() && !s.gap),
            last: last.map(|s| (s.sequence, s.uri.clone(), s.duration.0 as f64 / 1e6)),
            folder,
            ahead: Vec::new(),
            text,
        }
    }

    /// It takes the place of an earlier one: what that one told of and this one does not list yet stays told.
    pub(super) fn replaces(&mut self, former: &Listing) {
        let (Some((was, ..)), Some((is, ..))) = (&former.last, &self.last) else { return };
        let Some(more) = is.checked_sub(*was) else { return };
        self.ahead = former.ahead.iter().skip(usize::try_from(more).unwrap_or(usize::MAX)).cloned().collect();
    }

    /// Paths at which the segment that comes next may be put.
    pub(super) fn next_paths(&self) -> Vec<String> {
        self.next_names().into_iter().map(|name| format!("{}{name}", self.folder)).collect()
    }

    /// Something begins to be put at `path`; whether that is listed from now on.
    pub(super) fn begins(&mut self, path: &str) -> bool {
        let Some(name) = path.strip_prefix(&self.folder) else { return false };
        let is_next = self.next_names().iter().any(|next| next == name);
        if is_next {
            self.ahead.push(name.to_owned());
        }
        is_next
    }

    fn next_names(&self) -> Vec<String> {
        let Some((_, last, _)) = &self.last else { return Vec::new() };
        if self.ended || !self.is_file || self.ahead.len() >= MAX_AHEAD {
            return Vec::new();
        }
        let last = self.ahead.last().unwrap_or(last);
        if is_plain_path(last) && !last.contains(['?', '#', '%']) { successors(last) } else { Vec::new() }
    }

    /// Whether one who waits for segment `number` is to be answered now.
    pub(super) fn answers(&self, number: u64) -> bool {
        let Some((last, ..)) = &self.last else { return true };
        let newest = last.saturating_add(self.ahead.len() as u64);
        self.ended || number <= newest || number > newest.saturating_add(FAR)
    }

    /// How long an answer may be held back.
    pub(super) fn patience(&self) -> Duration {
        self.target * HELD_TARGETS
    }

    /// For the publisher.
    pub(super) fn text(&self) -> String {
        let mut out = String::with_capacity(self.text.len() + 256);
        let replaced = |l: &&str| l.starts_with("#EXT-X-SERVER-CONTROL") || l.starts_with("#EXT-X-ENDLIST");
        for (n, line) in self.text.lines().filter(|l| !replaced(l)).enumerate() {
            out.push_str(line);
            out.push('\n');
            if n == 0 {
                out.push_str("#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES\n");
            }
        }
        let duration_s = self.last.as_ref().map_or(0.0, |(.., s)| *s);
        for name in &self.ahead {
            // Writing to a string does not fail.
            let _ = writeln!(out, "#EXTINF:{duration_s:.6},\n{name}");
        }
        if self.ended {
            out.push_str("#EXT-X-ENDLIST\n");
        }
        out
    }
}

/// What may come after a name: the same with one of its numbers one higher, with as many digits at least.
fn successors(name: &str) -> Vec<String> {
    let is_digit = |c: char| c.is_ascii_digit();
    let file = name.rfind('/').map_or(0, |at| at + 1);
    let mut found = Vec::new();
    let mut rest = name.len();
    for _ in 0..MAX_RUNS {
        let left = name.get(file..rest).unwrap_or_default().trim_end_matches(|c| !is_digit(c));
        let (begin, end) = (file + left.trim_end_matches(is_digit).len(), file + left.len());
        let (Some(before), Some(number), Some(after)) = (name.get(..begin), name.get(begin..end), name.get(end..))
        else {
            break;
        };
        if let Some(next) = number.parse::<u64>().ok().and_then(|n| n.checked_add(1)) {
            let digits = number.len();
            found.push(format!("{before}{next:0digits$}{after}"));
        }
        rest = begin;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_hls::playlist::{Playlist, parse};

    fn listing(path: &str, text: &str) -> Listing {
        match parse(text).unwrap() {
            Playlist::Media(list) => Listing::of(path, &list, text.to_owned()),
            Playlist::Multivariant(_) => panic!("multivariant"),
        }
    }

    fn of(first: u64, names: &[&str]) -> String {
        let segments: String = names.iter().map(|n| format!("#EXTINF:1.5,\n{n}\n")).collect();
        format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:{first}\n{segments}")
    }

    #[test]
    fn the_next_one_has_a_number_one_higher() {
        for (last, next, expected) in [
            ("segment41.ts", "segment42.ts", true),
            ("segment41.ts", "segment43.ts", false),
            ("segment41.ts", "segment41.ts", false),
            ("segment41.ts", "segment42.m4s", false),
            ("segment9.ts", "segment10.ts", true),
            ("a/099.m4s", "a/100.m4s", true),
            ("a/099.m4s", "100.m4s", false),
            ("1/999.ts", "1/1000.ts", true),
            ("1/999.ts", "2/999.ts", false),
            ("00041.ts", "00042.ts", true),
            ("00041.ts", "42.ts", false),
            ("s41_720p.ts", "s42_720p.ts", true),
            ("å7ö.ts", "å8ö.ts", true),
            ("18446744073709551615.ts", "18446744073709551616.ts", false),
            ("first.ts", "second.ts", false),
            ("s1.ts?x=1", "s2.ts?x=1", false),
            ("http://o/1.ts", "http://o/2.ts", false),
            ("../1.ts", "../2.ts", false),
        ] {
            let mut l = listing("live/index.m3u8", &of(5, &["0.ts", last]));
            assert_eq!(l.begins(&format!("live/{next}")), expected, "{last} {next}");
            assert!(!l.begins(next), "it is in another folder");
            assert_eq!(l.text().contains(&format!("#EXTINF:1.500000,\n{next}\n")), expected);
        }
    }

    #[test]
    fn it_answers_when_the_next_one_begins_and_never_goes_back() {
        let mut l = listing("index.m3u8", &of(40, &["40.ts", "41.ts"]));
        assert!(l.answers(41) && !l.answers(42) && !l.answers(43) && l.answers(44));
        assert_eq!(l.next_paths(), ["42.ts"]);
        assert!(l.begins("42.ts") && l.answers(42) && !l.answers(43));
        // The encoder lists one only when the next one is made already; it never lists more ahead.
        assert!(l.begins("43.ts") && l.answers(43) && !l.begins("44.ts"));
        let list = |first, names: &[&str], former: &Listing| {
            let mut l = listing("index.m3u8", &of(first, names));
            l.replaces(former);
            l
        };
        let same = list(40, &["40.ts", "41.ts"], &l);
        assert!(same.answers(43) && same.next_paths().is_empty());
        let next = list(41, &["41.ts", "42.ts"], &l);
        assert!(next.answers(43) && !next.answers(44));
        assert_eq!(next.next_paths(), ["44.ts"]);
        assert!(next.text().ends_with("42.ts\n#EXTINF:1.500000,\n43.ts\n"));
        let later = list(44, &["44.ts"], &l);
        assert!(!later.answers(45) && later.next_paths() == ["45.ts"]);
        // One that is never listed stays listed to the end.
        let end = format!("{}#EXT-X-ENDLIST\n", of(41, &["41.ts"]));
        let mut ended = listing("index.m3u8", &end);
        ended.replaces(&l);
        assert!(ended.answers(44) && ended.next_paths().is_empty());
        assert!(ended.text().ends_with("\n43.ts\n#EXT-X-ENDLIST\n"), "{}", ended.text());
        // It began anew: nothing of before counts, and who waits for what came before learns of it.
        let anew = list(0, &["0.ts"], &l);
        assert!(anew.answers(44) && anew.next_paths() == ["1.ts"]);
    }

    #[test]
    fn it_says_that_it_can_hold_answers_back_and_lists_nothing_after_an_end() {
        let text = of(1, &["1.ts"]).replace("#EXTINF", "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=NO\n#EXTINF");
        let l = listing("index.m3u8", &text);
        let Ok(Playlist::Media(list)) = parse(&l.text()) else { panic!("{}", l.text()) };
        assert!(list.can_block && list.segments.len() == 1);
        for end in ["#EXT-X-ENDLIST\n", "#EXTINF:1,\n#EXT-X-BYTERANGE:9@0\n2.ts\n", "#EXT-X-GAP\n#EXTINF:1,\n2.ts\n"] {
            let mut l = listing("index.m3u8", &format!("{}{end}", of(1, &["1.ts"])));
            assert!(!l.begins("2.ts") && !l.begins("3.ts") && l.answers(9), "{end}");
        }
        assert!(listing("index.m3u8", &of(0, &[])).answers(0));
    }
}
