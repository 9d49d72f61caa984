//! Conditional and range requests (RFC 9110, sections 13 and 14): what a GET gets.

use hyper::header::{self, HeaderMap, HeaderName};
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What tells one version of a file from another.
pub(super) struct Validators {
    /// A strong entity tag, with its quotes.
    pub(super) tag: String,
    pub(super) modified: SystemTime,
}

/// What is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Whole,
    /// Never empty.
    Part(Range<u64>),
    NotModified,
    /// A precondition failed.
    Failed,
    Unsatisfiable,
}

/// What a request with `fields` gets of a file of `length` bytes. Preconditions are looked at in the order of RFC 9110,
/// section 13.2.2.
pub(super) fn decide(fields: &HeaderMap, own: &Validators, length: u64) -> Answer {
    let said = |name: HeaderName| fields.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    match (said(header::IF_MATCH), said(header::IF_UNMODIFIED_SINCE)) {
        (Some(tags), _) if !lists(tags, &own.tag, false) => return Answer::Failed,
        (None, Some(date)) if date_of(date).is_some_and(|d| seconds(own.modified) > d) => return Answer::Failed,
        _ => {}
    }
    match (said(header::IF_NONE_MATCH), said(header::IF_MODIFIED_SINCE)) {
        (Some(tags), _) if lists(tags, &own.tag, true) => return Answer::NotModified,
        (None, Some(date)) if date_of(date).is_some_and(|d| seconds(own.modified) <= d) => return Answer::NotModified,
        _ => {}
    }
    let same = said(header::IF_RANGE).is_none_or(|v| v == own.tag || date_of(v) == Some(seconds(own.modified)));
    match said(header::RANGE).filter(|_| same).and_then(|asked| range_of(asked, length)) {
        None => Answer::Whole,
        Some(range) if range.is_empty() => Answer::Unsatisfiable,
        Some(range) => Answer::Part(range),
    }
}

/// Whether a list of entity tags names `own`; weak ones count where `weakly`.
fn lists(tags: &str, own: &str, weakly: bool) -> bool {
    let same = |tag: &str| tag == own || (weakly && tag.strip_prefix("W/") == Some(own));
    tags == "*" || tags.split(',').any(|tag| same(tag.trim()))
}

fn date_of(text: &str) -> Option<Duration> {
    Some(seconds(httpdate::parse_http_date(text).ok()?))
}

/// HTTP dates have whole seconds.
fn seconds(time: SystemTime) -> Duration {
    Duration::from_secs(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// One range of bytes; empty where nothing satisfies it, `None` for what a server may ignore (several ranges, other
/// units, nonsense).
fn range_of(asked: &str, length: u64) -> Option<Range<u64>> {
    let (first, last) = asked.strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    match (first, last) {
        ("", last) => Some(length.saturating_sub(number(last)?)..length),
        (first, "") => Some(number(first)?.min(length)..length),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then(|| first.min(length)..last.saturating_add(1).min(length))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fields: &[(HeaderName, &str)], expected: Answer) {
        let own = Validators { tag: "\"a-0\"".into(), modified: UNIX_EPOCH + Duration::from_millis(1_000_000_500) };
        let fields: HeaderMap = fields.iter().map(|(n, v)| (n.clone(), v.parse().unwrap())).collect();
        assert_eq!(decide(&fields, &own, 1000), expected, "{fields:?}");
    }

    const THEN: &str = "Mon, 12 Jan 1970 13:46:40 GMT";
    const BEFORE: &str = "Mon, 12 Jan 1970 13:46:39 GMT";

    #[test]
    fn ranges() {
        use header::RANGE;
        check(&[], Answer::Whole);
        for (asked, range) in [
            ("bytes=0-0", 0..1),
            ("bytes=10-19", 10..20),
            ("bytes=990-", 990..1000),
            ("bytes=990-5000", 990..1000),
            ("bytes=-10", 990..1000),
            ("bytes=-5000", 0..1000),
            ("bytes=999-18446744073709551615", 999..1000),
        ] {
            check(&[(RANGE, asked)], Answer::Part(range));
        }
        for asked in ["bytes=1000-", "bytes=1000-2000", "bytes=-0", "bytes=5000-"] {
            check(&[(RANGE, asked)], Answer::Unsatisfiable);
        }
        for asked in ["bytes=5-4", "bytes=0-1,5-6", "items=0-1", "bytes=", "bytes=-", "bytes=+1-2", "bytes=a-b", "0-1"]
        {
            check(&[(RANGE, asked)], Answer::Whole);
        }
        check(&[(RANGE, "bytes=99999999999999999999-")], Answer::Whole);
    }

    #[test]
    fn any_fields_get_an_answer_within_the_file() {
        let own = Validators { tag: "\"a-0\"".into(), modified: UNIX_EPOCH + Duration::from_secs(1_000_000) };
        let mut state = 5u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        let words = [
            "bytes=",
            "-",
            "0",
            "999",
            "1000",
            "18446744073709551615",
            "9",
            ",",
            " ",
            "W/",
            "\"a-0\"",
            "*",
            THEN,
            "\u{fc}",
        ];
        let names =
            [header::RANGE, header::IF_RANGE, header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE];
        for _ in 0..50_000 {
            let mut fields = HeaderMap::new();
            for name in &names[..1 + next() % names.len()] {
                let value: String = (0..next() % 6).map(|_| words[next() % words.len()]).collect();
                if let Ok(value) = value.parse() {
                    fields.insert(name, value);
                }
            }
            let length = [0, 1, 1000, u64::MAX][next() % 4];
            if let Answer::Part(range) = decide(&fields, &own, length) {
                assert!(range.start < range.end && range.end <= length, "{fields:?} of {length}: {range:?}");
            }
        }
    }

    #[test]
    fn conditions() {
        use header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE};
        check(&[(IF_NONE_MATCH, "\"b\", W/\"a-0\"")], Answer::NotModified);
        check(&[(IF_NONE_MATCH, "*")], Answer::NotModified);
        check(&[(IF_NONE_MATCH, "\"b\"")], Answer::Whole);
        check(&[(IF_NONE_MATCH, "\"b\""), (IF_MODIFIED_SINCE, THEN)], Answer::Whole);
        check(&[(IF_MODIFIED_SINCE, THEN)], Answer::NotModified);
        check(&[(IF_MODIFIED_SINCE, BEFORE)], Answer::Whole);
        check(&[(IF_MODIFIED_SINCE, "yesterday")], Answer::Whole);
        check(&[(IF_MATCH, "\"a-0\"")], Answer::Whole);
        check(&[(IF_MATCH, "W/\"a-0\"")], Answer::Failed);
        check(&[(IF_MATCH, "\"b\"")], Answer::Failed);
        check(&[(IF_UNMODIFIED_SINCE, THEN)], Answer::Whole);
        check(&[(IF_UNMODIFIED_SINCE, BEFORE)], Answer::Failed);
        check(&[(IF_RANGE, "\"a-0\""), (RANGE, "bytes=0-1")], Answer::Part(0..2));
        check(&[(IF_RANGE, THEN), (RANGE, "bytes=0-1")], Answer::Part(0..2));
        check(&[(IF_RANGE, "\"b\""), (RANGE, "bytes=0-1")], Answer::Whole);
        check(&[(IF_RANGE, "W/\"a-0\""), (RANGE, "bytes=0-1")], Answer::Whole);
        check(&[(IF_RANGE, BEFORE), (RANGE, "bytes=0-1")], Answer::Whole);
    }
}
