//! What a node may do for others now (P14): its user's limits, by the hour, the month's volume, the kind of network and of
//! power, and whether it was paused. Facts in, permission out.

use headwater_model::time::Rate;
use std::fmt;

/// Minutes of a day.
pub const DAY_MINUTES: u16 = 24 * 60;

/// What the user allows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Most to upload, in wire bytes; `None` for no limit.
    pub up: Option<Rate>,
    /// Most to download, in wire bytes; `None` for no limit.
    pub down: Option<Rate>,
    /// Exceptions by the hour; of those that cover a moment the first one counts.
    pub hours: Vec<Hours>,
    /// Most wire bytes to upload in a calendar month.
    pub monthly_bytes: Option<u64>,
    /// On a network that is paid by volume.
    pub on_metered: Conduct,
    /// On battery power.
    pub on_battery: Conduct,
}

/// Some hours of some days, and what holds then instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hours {
    /// Bit 0 is Monday.
    pub days: u8,
    /// First minute of the day.
    pub from: u16,
    /// The minute after the last one; not later than `from` when it is on the next day.
    pub until: u16,
    /// Most to upload then, where the rule says.
    pub up: Option<Rate>,
    /// Most to download then, where the rule says.
    pub down: Option<Rate>,
    /// What is done then.
    pub conduct: Conduct,
}

/// How a node behaves, from all to nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Conduct {
    /// Serves others, and fetches.
    #[default]
    Serve,
    /// Fetches only.
    Fetch,
    /// Neither.
    Pause,
}

/// A moment of the week, in the user's time zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// 0 is Monday.
    pub weekday: u8,
    /// Minutes since midnight.
    pub minute: u16,
}

/// What is the case now. `None` where the system does not say: then nothing is held against it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Circumstances {
    /// When.
    pub moment: Moment,
    /// Wire bytes sent in this calendar month.
    pub sent_this_month: u64,
    /// The network is paid by volume.
    pub metered: Option<bool>,
    /// The machine runs on its battery.
    pub on_battery: Option<bool>,
    /// What the user paused.
    pub paused: Conduct,
}

/// What a node may do now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Permission {
    /// Most to upload; `None` for no limit.
    pub up: Option<Rate>,
    /// Most to download; `None` for no limit.
    pub down: Option<Rate>,
    /// What it does.
    pub conduct: Conduct,
    /// What keeps it from serving, or from all; the strictest of them.
    pub why: Option<Reason>,
}

/// What keeps a node from serving others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Its user paused it.
    Paused,
    /// The hour.
    Hours,
    /// The month's volume is used up.
    MonthlyVolume,
    /// The network.
    Metered,
    /// The battery.
    Battery,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Paused => "paused",
            Reason::Hours => "these hours (--when)",
            Reason::MonthlyVolume => "this month's volume is used up (--monthly)",
            Reason::Metered => "the network is metered (--on-metered)",
            Reason::Battery => "it runs on battery (--on-battery)",
        })
    }
}

impl Hours {
    /// Whether `at` is among them.
    pub fn cover(&self, at: Moment) -> bool {
        let on = |weekday: u8| self.days >> (weekday % 7) & 1 == 1;
        let (today, yesterday) = (on(at.weekday), on(at.weekday + 6));
        if self.from < self.until {
            return today && (self.from..self.until).contains(&at.minute);
        }
        (today && at.minute >= self.from) || (yesterday && at.minute < self.until)
    }
}

impl Limits {
    /// What may be done now.
    pub fn permit(&self, now: &Circumstances) -> Permission {
        let rule = self.hours.iter().find(|h| h.cover(now.moment));
        let spent = self.monthly_bytes.is_some_and(|most| now.sent_this_month >= most);
        let when = |is: Option<bool>, conduct| if is == Some(true) { conduct } else { Conduct::Serve };
        let reasons = [
            (now.paused, Reason::Paused),
            (rule.map_or(Conduct::Serve, |h| h.conduct), Reason::Hours),
            (if spent { Conduct::Fetch } else { Conduct::Serve }, Reason::MonthlyVolume),
            (when(now.metered, self.on_metered), Reason::Metered),
            (when(now.on_battery, self.on_battery), Reason::Battery),
        ];
        // Of equally strict ones the first is told.
        let conduct = reasons.iter().map(|(conduct, _)| *conduct).max().unwrap_or_default();
        let why = reasons.iter().find(|(c, _)| *c == conduct).map(|(_, why)| *why);
        Permission {
            up: rule.and_then(|h| h.up).or(self.up),
            down: rule.and_then(|h| h.down).or(self.down),
            conduct,
            why: why.filter(|_| conduct > Conduct::Serve),
        }
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
