//! The response headers that matter to an origin client (RFC 9110), read without trust.

use std::time::{Duration, SystemTime};

use reqwest::header::{
    AsHeaderName, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap, LAST_MODIFIED, RETRY_AFTER,
};

use super::Validator;

/// Longest validator that is kept; a longer one is treated as absent.
const MAX_VALIDATOR_BYTES: usize = 256;

/// Longest `Retry-After` that is honoured, so that an origin cannot put a fetch to sleep for a day.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// `Content-Range: bytes FIRST-LAST/TOTAL` of a 206; its end and total are exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) total: u64,
}

impl ContentRange {
    /// Reads the header of a 206; `None` if it is absent, malformed or without a total.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let (first, end, total) = part(headers)?;
        total.map(|total| Self { first, end, total })
    }

    /// Reads the total of a 416's `bytes */TOTAL`.
    pub(super) fn unsatisfied_total(headers: &HeaderMap) -> Option<u64> {
        let (range, total) = content_range_parts(headers)?;
        total.filter(|_| range == "*")
    }
}

/// First byte, end and total of a 206's `Content-Range`; of a file that grows the total is `*`, and none here.
pub(super) fn part(headers: &HeaderMap) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = content_range_parts(headers)?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (decimal(first)?, decimal(last)?);
    let end = last.checked_add(1)?;
    (first < end && total.is_none_or(|total| end <= total)).then_some((first, end, total))
}

fn content_range_parts(headers: &HeaderMap) -> Option<(&str, Option<u64>)> {
    let (unit, rest) = text(headers, CONTENT_RANGE)?.split_once(' ')?;
    let (range, total) = rest.trim().split_once('/')?;
    let total = if total == "*" { None } else { Some(decimal(total)?) };
    Some((range, total)).filter(|_| unit.eq_ignore_ascii_case("bytes"))
}

/// The first byte of a `Content-Range`, whatever it says of the end: `bytes 5-9/*` is the answer of one whose file grows.
pub(super) fn first_of_range(value: &str) -> Option<u64> {
    let (unit, range) = value.split_once(' ')?;
    let (first, _) = range.trim().split_once('-')?;
    decimal(first).filter(|_| unit.eq_ignore_ascii_case("bytes"))
}

/// The stated length of the body, in bytes.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    decimal(text(headers, CONTENT_LENGTH)?)
}

/// The content encoding, unless it is none.
pub(super) fn content_encoding(headers: &HeaderMap) -> Option<&str> {
    let encoding = text(headers, CONTENT_ENCODING)?.trim();
    (!encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity")).then_some(encoding)
}

/// The best validator for byte ranges: a strong entity tag, else the date of the last change.
pub(super) fn validator(headers: &HeaderMap) -> Option<Validator> {
    let tag = entity_tag(headers).filter(|tag| !tag.starts_with("W/"));
    match tag {
        Some(tag) => Some(Validator::ETag(tag.to_owned())),
        None => last_modified(headers).map(|date| Validator::LastModified(date.to_owned())),
    }
}

/// The validator found where it contradicts the expected one; an absent header contradicts nothing.
///
/// A tag that a proxy weakened on the way (`W/"x"` for `"x"`) still names the same version.
pub(super) fn contradicting_validator(headers: &HeaderMap, expected: &Validator) -> Option<String> {
    match expected {
        Validator::ETag(was) => entity_tag(headers).filter(|is| opaque(is) != opaque(was)),
        Validator::LastModified(was) => last_modified(headers).filter(|is| is != was),
    }
    .map(str::to_owned)
}

fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

fn entity_tag(headers: &HeaderMap) -> Option<&str> {
    let tag = text(headers, ETAG)?.trim();
    let quoted = opaque(tag);
    let whole = quoted.len() >= 2 && quoted.starts_with('"') && quoted.ends_with('"');
    (whole && tag.len() <= MAX_VALIDATOR_BYTES).then_some(tag)
}

fn last_modified(headers: &HeaderMap) -> Option<&str> {
    let date = text(headers, LAST_MODIFIED)?.trim();
    (!date.is_empty() && date.len() <= MAX_VALIDATOR_BYTES).then_some(date)
}

/// `Retry-After` in seconds or as a date, at most 60 s.
///
/// A date is taken relative to the answer's own `Date`, so that a wrong local clock does no harm.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = text(headers, RETRY_AFTER)?.trim();
    let wait = match decimal(value) {
        Some(seconds) => Duration::from_secs(seconds),
        None => {
            let until = http_date(value)?;
            let now = text(headers, DATE).and_then(http_date).unwrap_or(now);
            until.duration_since(now).unwrap_or(Duration::ZERO)
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// Reads the one date format that senders may still write, `Sun, 06 Nov 1994 08:49:37 GMT`
/// (IMF-fixdate, RFC 9110 section 5.6.7), from 1970 to 9999.
pub(super) fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_weekday, rest) = text.trim().split_once(", ")?;
    let mut parts = rest.split(' ');
    let mut next = || parts.next();
    let (day, month, year, clock, zone) = (next()?, next()?, next()?, next()?, next()?);
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let (day, year) = (decimal(day)?, decimal(year)?);
    let mut clock = clock.split(':').map(decimal);
    let mut next = || clock.next().flatten();
    let (hour, minute, second) = (next()?, next()?, next()?);
    // A leap second is written as 60.
    let plausible = (1..=31).contains(&day)
        && (1970..=9999).contains(&year)
        && hour < 24
        && minute < 60
        && second <= 60
        && zone == "GMT";
    if !plausible {
        return None;
    }
    // Days since 1970-01-01 of the Gregorian calendar, with the year beginning in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn text(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Digits only: `u64::from_str` would let a plus sign pass.
fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_str(value).expect("valid value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn content_ranges() {
        let read = |value| ContentRange::of(&headers(&[("content-range", value)]));
        let good = ContentRange { first: 5, end: 10, total: 20 };
        assert_eq!(read("bytes 5-9/20"), Some(good));
        assert_eq!(read("Bytes 5-9/20"), Some(good));
        for bad in [
            "",
            "bytes",
            "bytes 5-9",
            "bytes 5-9/*",
            "bytes */20",
            "bytes 9-5/20",
            "bytes 5-20/20",
            "bytes +5-9/20",
            "pieces 5-9/20",
            "bytes 0-18446744073709551615/18446744073709551615",
            "bytes 5-99999999999999999999/20",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let of_growing = |value| part(&headers(&[("content-range", value)]));
        assert_eq!(of_growing("bytes 5-9/*"), Some((5, 10, None)));
        assert_eq!(of_growing("bytes 5-9/20"), Some((5, 10, Some(20))));
        for bad in ["bytes */*", "bytes 9-5/*", "bytes 5-/*", "bytes 0-18446744073709551615/*", "bytes 5-9/**"] {
            assert_eq!(of_growing(bad), None, "{bad}");
        }
        let total = |value| ContentRange::unsatisfied_total(&headers(&[("content-range", value)]));
        assert_eq!(total("bytes */20"), Some(20));
        assert_eq!(total("bytes 5-9/20"), None);
    }

    #[test]
    fn validators() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let both = headers(&[("etag", "\"a\""), ("last-modified", date)]);
        let weak = headers(&[("etag", "W/\"a\""), ("last-modified", date)]);
        let unquoted = headers(&[("etag", "a")]);
        let tag = Validator::ETag("\"a\"".into());
        let dated = Validator::LastModified(date.into());
        assert_eq!(validator(&both), Some(tag.clone()));
        assert_eq!(validator(&weak), Some(dated.clone()));
        assert_eq!(validator(&unquoted), None);
        assert_eq!(contradicting_validator(&weak, &tag), None);
        assert_eq!(contradicting_validator(&unquoted, &dated), None);
        let other = headers(&[("etag", "\"b\"")]);
        assert_eq!(contradicting_validator(&other, &tag), Some("\"b\"".to_owned()));
    }

    #[test]
    fn retry_after_in_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH;
        let read = |pairs: &[(&'static str, &str)]| retry_after(&headers(pairs), now);
        assert_eq!(read(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(read(&[("retry-after", "86400")]), Some(MAX_RETRY_AFTER));
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let until = |value| read(&[date, ("retry-after", value)]);
        assert_eq!(until("Sun, 06 Nov 1994 08:49:57 GMT"), Some(Duration::from_secs(20)));
        assert_eq!(until("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(until("soon"), None);
    }

    #[test]
    fn dates() {
        let seconds = |text| {
            let since = http_date(text)?.duration_since(SystemTime::UNIX_EPOCH);
            Some(since.expect("after 1970").as_secs())
        };
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
        for bad in [
            "",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 25:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "06 Nov 1994",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
