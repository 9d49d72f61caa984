//! Rates, sizes and durations as people write them.

use std::time::Duration;

use headwater_model::Rate;

/// What `unlimited` means.
pub const UNLIMITED: Rate = Rate(u64::MAX);

/// Longest duration: ten years.
const MAX_SECONDS: f64 = 10.0 * 366.0 * 86_400.0;

/// A rate: `10MB/s`, `1.5MiB/s`, `20Mbit/s`, a number of bytes per second, or `unlimited`.
///
/// Bare `K`, `M` and `G` are powers of 1,024 bytes per second, as curl and aria2 have them.
///
/// # Errors
/// What is wrong, in words. A rate of zero is.
pub fn parse_rate(text: &str) -> Result<Rate, String> {
    let text = text.trim();
    if text == "unlimited" {
        return Ok(UNLIMITED);
    }
    let (number, unit) = split(text)?;
    let bytes = match unit.strip_suffix("bit/s").or_else(|| unit.strip_suffix("bps")) {
        Some(prefix) => decimal(prefix).map(|n| n / 8.0),
        None if unit.ends_with("/s") => unit.strip_suffix("/s").and_then(bytes_of),
        None => bytes_of(unit).filter(|_| !unit.ends_with('B')),
    };
    let per_s = bytes.ok_or_else(|| {
        format!("{unit:?} is no unit of a rate: write MB/s, MiB/s or Mbit/s (or kB/s, GB/s, Gbit/s), or unlimited")
    })? * number;
    match whole(per_s)? {
        0 => Err("a rate below one byte per second moves nothing".into()),
        rate => Ok(Rate(rate)),
    }
}

/// A number of bytes: `64KiB`, `256MiB`, `1.5GB`, `1000`. Bare `K`, `M`, `G` and `T` are powers of 1,024.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text.trim())?;
    let bytes =
        bytes_of(unit).ok_or_else(|| format!("{unit:?} is no unit of a size: write B, KiB, MiB, GiB or kB, MB, GB"))?;
    whole(number * bytes)
}

/// A number of things: `200`, `10k`, `1.5M`; prefixes are powers of 1,000.
///
/// # Errors
/// What is wrong, in words.
pub fn decimal_count(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text.trim())?;
    let times = decimal(unit).ok_or_else(|| format!("{unit:?} is no unit of a number: write k or M"))?;
    whole(number * times)
}

/// A time: `500ms`, `2s`, `5m`, `1.5h`, `2d`, or several one after the other as `1m30s`; a bare number is seconds.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (mut rest, mut seconds) = (text.trim(), 0.0);
    loop {
        let (number, after) = split(rest)?;
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let unit = match &after[..end] {
            "ms" => 0.001,
            "" | "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            other => return Err(format!("{other:?} is no unit of time: write ms, s, m, h or d")),
        };
        seconds += number * unit;
        rest = &after[end..];
        if rest.is_empty() {
            break;
        }
    }
    if seconds > MAX_SECONDS { Err("longer than ten years".into()) } else { Ok(Duration::from_secs_f64(seconds)) }
}

/// The number at the start of `text`, and what follows it.
fn split(text: &str) -> Result<(f64, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse().map_err(|_| format!("{text:?} does not begin with a number"))?;
    Ok((number, text[end..].trim_start()))
}

/// Bytes in one `unit`.
fn bytes_of(unit: &str) -> Option<f64> {
    match unit {
        "" | "B" => return Some(1.0),
        _ => {}
    }
    let binary = |prefix: &str| {
        let power = "KMGT".find(&prefix.to_ascii_uppercase()).filter(|_| prefix.len() == 1)?;
        Some(1024f64.powi(power as i32 + 1))
    };
    match (unit.strip_suffix("iB"), unit.strip_suffix('B')) {
        (Some(prefix), _) => binary(prefix),
        (None, Some(prefix)) => decimal(prefix),
        (None, None) => binary(unit),
    }
}

fn decimal(prefix: &str) -> Option<f64> {
    Some(match prefix {
        "" => 1.0,
        "k" | "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        _ => return None,
    })
}

fn whole(number: f64) -> Result<u64, String> {
    // Beyond this a float no longer counts every byte.
    if number < 9e15 { Ok(number.round() as u64) } else { Err("too large".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, bytes) in [
            ("10MB/s", 10_000_000),
            ("20Mbit/s", 2_500_000),
            ("20 Mbps", 2_500_000),
            ("1.5MiB/s", 1_572_864),
            ("1kB/s", 1000),
            ("1KB/s", 1000),
            ("1KiB/s", 1024),
            ("800bit/s", 100),
            ("1Gbit/s", 125_000_000),
            ("512K", 524_288),
            ("2M", 2 << 20),
            ("4096", 4096),
            ("7B/s", 7),
            (" 1 MB/s ", 1_000_000),
        ] {
            assert_eq!(parse_rate(text), Ok(Rate(bytes)), "{text}");
        }
        assert_eq!(parse_rate("unlimited"), Ok(UNLIMITED));
        for (text, says) in [
            ("", "number"),
            ("fast", "number"),
            ("-1MB/s", "number"),
            ("1.2.3MB/s", "number"),
            ("10mb/s", "no unit of a rate"),
            ("10Mb/s", "no unit of a rate"),
            ("10MB", "no unit of a rate"),
            ("10MB/h", "no unit of a rate"),
            ("0", "moves nothing"),
            ("1bit/s", "moves nothing"),
            ("99999999TB/s", "too large"),
        ] {
            let said = parse_rate(text).expect_err(text);
            assert!(said.contains(says), "{text}: {said}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("64KiB", 65_536),
            ("64kiB", 65_536),
            ("64K", 65_536),
            ("256MiB", 256 << 20),
            ("1.5GB", 1_500_000_000),
            ("2TiB", 2 << 40),
            ("0", 0),
            ("12 B", 12),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "1XB", "1KM", "1Mbit", "1e9", "99999999T", "1é"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("500ms", 500),
            ("2s", 2000),
            ("2", 2000),
            ("0.25s", 250),
            ("5m", 300_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("2d", 172_800_000),
            ("1 min", 60_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1s", "1y", "1s m", "99999999d", "1é"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
