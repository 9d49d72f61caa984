//! Limits by the hour and what holds on metered networks and battery, as people write them.

use crate::units::{UNLIMITED, parse_rate};
use headwater_peer::node::{Conduct, DAY_MINUTES, Hours};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const HOW: &str = "write it as 'Mon-Fri 08:00-18:00 up=200kB/s' or 'Sat,Sun 22:00-06:00 serve=no': days (all if none), hours \
                   (all if none), then what holds: up=RATE, down=RATE, serve=no (fetch only), or pause";

/// `Mon-Fri 08:00-18:00 up=200kB/s down=1MB/s`, `Sat,Sun serve=no`, `22:00-06:00 pause`.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_hours(text: &str) -> Result<Hours, String> {
    let mut words = text.split_whitespace().peekable();
    let mut hours =
        Hours { days: 0b111_1111, from: 0, until: DAY_MINUTES, up: None, down: None, conduct: Conduct::Serve };
    if let Some(days) = words.next_if(|w| w.starts_with(|c: char| c.is_ascii_alphabetic()) && !is_setting(w)) {
        hours.days = parse_days(days)?;
    }
    if let Some(span) = words.next_if(|w| w.starts_with(|c: char| c.is_ascii_digit())) {
        let (from, until) = span.split_once('-').ok_or_else(|| format!("{span:?} are no hours: {HOW}"))?;
        (hours.from, hours.until) = (parse_time(from)?, parse_time(until)?);
        // Until midnight is until the end of the same day.
        hours.from %= DAY_MINUTES;
    }
    if words.peek().is_none() {
        return Err(format!("it does not say what holds then: {HOW}"));
    }
    for word in words {
        let rate = |text| match parse_rate(text)? {
            UNLIMITED => Err("leave a rate out where the usual one holds".to_owned()),
            rate => Ok(Some(rate)),
        };
        match word.split_once('=') {
            Some(("up", text)) => hours.up = rate(text)?,
            Some(("down", text)) => hours.down = rate(text)?,
            Some(("serve", "no")) => hours.conduct = hours.conduct.max(Conduct::Fetch),
            None if word == "pause" => hours.conduct = Conduct::Pause,
            _ => return Err(format!("{word:?} is no setting: {HOW}")),
        }
    }
    Ok(hours)
}

fn is_setting(word: &str) -> bool {
    word.contains('=') || word == "pause"
}

fn parse_days(text: &str) -> Result<u8, String> {
    let day = |name: &str| {
        let name = name.to_ascii_lowercase();
        DAYS.iter().position(|d| *d == name).ok_or_else(|| format!("{name:?} is no day (Mon, Tue, …): {HOW}"))
    };
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut at, last) = (day(first)?, day(last)?);
        // Sat-Mon goes over the end of the week.
        days |= 1 << at;
        while at != last {
            at = (at + 1) % 7;
            days |= 1 << at;
        }
    }
    Ok(days)
}

/// Minutes since midnight; 24:00 is the end of the day.
fn parse_time(text: &str) -> Result<u16, String> {
    let wrong = || format!("{text:?} is no time of day (08:00): {HOW}");
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let two = |text: &str| text.parse::<u16>().ok().filter(|_| (1..=2).contains(&text.len())).ok_or_else(wrong);
    let (hour, minute) = (two(hour)?, two(minute)?);
    let time = hour * 60 + minute;
    if minute < 60 && time <= DAY_MINUTES { Ok(time) } else { Err(wrong()) }
}

/// `serve`, `fetch` or `pause`.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_conduct(text: &str) -> Result<Conduct, String> {
    match text {
        "serve" => Ok(Conduct::Serve),
        "fetch" => Ok(Conduct::Fetch),
        "pause" => Ok(Conduct::Pause),
        _ => Err("write serve (as always), fetch (serve nobody) or pause (nor fetch)".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_model::Rate;

    #[track_caller]
    fn check(text: &str, days: u8, from: u16, until: u16, up: Option<u64>, down: Option<u64>, conduct: Conduct) {
        let hours = Hours { days, from, until, up: up.map(Rate), down: down.map(Rate), conduct };
        assert_eq!(parse_hours(text), Ok(hours), "{text}");
    }

    #[test]
    fn hours_as_people_write_them() {
        let (all, serve) = (0b111_1111, Conduct::Serve);
        check("Mon-Fri 08:00-18:00 up=200kB/s", 0b001_1111, 480, 1080, Some(200_000), None, serve);
        check("Sat,Sun serve=no", 0b110_0000, 0, 1440, None, None, Conduct::Fetch);
        check("22:00-6:30 pause", all, 1320, 390, None, None, Conduct::Pause);
        check(
            "sat-mon,wed 8:00-24:00 down=1MB/s up=8Mbit/s",
            0b110_0101,
            480,
            1440,
            Some(1_000_000),
            Some(1_000_000),
            serve,
        );
        check("pause", all, 0, 1440, None, None, Conduct::Pause);
        check("24:00-08:00 serve=no", all, 0, 480, None, None, Conduct::Fetch);
        for bad in [
            "",
            "Mon-Fri",
            "Mon-Fri 08:00-18:00",
            "Mon-Fry up=1MB/s",
            "08:00 up=1MB/s",
            "08:60-09:00 pause",
            "25:00-09:00 pause",
            "08:00-09:00 up=fast",
            "08:00-09:00 serve=yes",
            "Mon 08:00-09:00 stop",
            "08:00-09:00 up=unlimited",
        ] {
            assert!(parse_hours(bad).is_err(), "{bad}");
        }
    }
}
