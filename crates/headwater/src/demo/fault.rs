//! The parts of the demo by name, and which of them is killed when.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How long a killed process stays away before it is started again.
pub const AWAY: Duration = Duration::from_secs(2);

/// The mean share of the content that receivers have when the demo kills one of its own choice.
const CHOOSE_AT: f64 = 0.4;

/// A process of the demo that runs to its end. Receivers are numbered from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    /// The control center.
    Control,
    /// The HTTP origin.
    Origin,
    /// The waypoint.
    Waypoint,
    /// A regular receiver.
    Peer(u32),
    /// A lightweight receiver.
    Light(u32),
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Part::Control => formatter.pad("control"),
            Part::Origin => formatter.pad("origin"),
            Part::Waypoint => formatter.pad("waypoint"),
            Part::Peer(number) => formatter.pad(&format!("peer-{number}")),
            Part::Light(number) => formatter.pad(&format!("light-{number}")),
        }
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Part, String> {
        let number = |digits: &str| digits.parse().ok().filter(|number| *number > 0);
        let numbered = |prefix, part: fn(u32) -> Part| text.strip_prefix(prefix).and_then(number).map(part);
        match text {
            "control" => Some(Part::Control),
            "origin" => Some(Part::Origin),
            "waypoint" => Some(Part::Waypoint),
            _ => numbered("peer-", Part::Peer).or_else(|| numbered("light-", Part::Light)),
        }
        .ok_or_else(|| format!("{text:?} is none of control, origin, waypoint, peer-N, light-N"))
    }
}

/// `NAME@MILLIS`: which part is killed, and when after the receivers' start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kill {
    /// Which.
    pub part: Part,
    /// When.
    pub after: Duration,
}

impl FromStr for Kill {
    type Err = String;

    fn from_str(text: &str) -> Result<Kill, String> {
        let (part, millis) = text.split_once('@').ok_or("NAME@MILLIS is expected")?;
        let millis = millis.parse().map_err(|_| format!("{millis:?} is not a count of milliseconds"))?;
        Ok(Kill { part: part.parse()?, after: Duration::from_millis(millis) })
    }
}

/// What is to happen next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// The part is killed; `again` says whether it is started again after [`AWAY`].
    Kill {
        /// Which.
        part: Part,
        /// Whether it comes back.
        again: bool,
    },
    /// The part is started again.
    Restart(Part),
}

/// The faults of a run.
pub struct Schedule {
    due: Vec<(Instant, Due)>,
    /// Whether a regular receiver is still to be chosen and killed.
    choose: bool,
}

impl Schedule {
    /// Kills as told, or none of them and `choose` one of the demo's own; times count from `start`.
    pub fn new(kills: &[Kill], choose: bool, start: Instant) -> Schedule {
        let again = |part| matches!(part, Part::Control | Part::Origin | Part::Waypoint);
        let due = |kill: &Kill| (start + kill.after, Due::Kill { part: kill.part, again: again(kill.part) });
        Schedule { due: kills.iter().map(due).collect(), choose: choose && kills.is_empty() }
    }

    /// When the next thing is to happen.
    pub fn next_at(&self) -> Option<Instant> {
        self.due.iter().map(|(at, _)| *at).min()
    }

    /// Takes out what is due at `now`, the earliest of it.
    pub fn take_due(&mut self, now: Instant) -> Option<Due> {
        let at = self.next_at().filter(|at| *at <= now)?;
        let index = self.due.iter().position(|(other, _)| *other == at)?;
        Some(self.due.swap_remove(index).1)
    }

    /// Has a part that was killed at `now` started again later.
    pub fn bring_back(&mut self, part: Part, now: Instant) {
        self.due.push((now + AWAY, Due::Restart(part)));
    }

    /// Kills the regular receiver with most children once receivers have [`CHOOSE_AT`] of the content and one of them
    /// serves. `candidates` are the unfinished regular ones with their numbers of children.
    pub fn choose(&mut self, mean_progress: f64, candidates: impl Iterator<Item = (Part, u64)>, now: Instant) {
        if !self.choose || mean_progress < CHOOSE_AT {
            return;
        }
        if let Some(part) = busiest(candidates) {
            self.choose = false;
            self.due.push((now, Due::Kill { part, again: true }));
        }
    }
}

/// Of those that serve, the one with most children; of equals the first. With each stands its number of children.
pub fn busiest<T: Ord + Copy>(candidates: impl Iterator<Item = (T, u64)>) -> Option<T> {
    let serving = candidates.filter(|(_, children)| *children > 0);
    serving.max_by_key(|(one, children)| (*children, std::cmp::Reverse(*one))).map(|(one, _)| one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_printed() {
        for part in [Part::Control, Part::Origin, Part::Waypoint, Part::Peer(6), Part::Light(12)] {
            assert_eq!(part.to_string().parse(), Ok(part));
        }
        for wrong in ["", "peer", "peer-", "peer-0", "peer-x", "light--1", "key"] {
            assert!(wrong.parse::<Part>().is_err(), "{wrong}");
        }
        let kill = Kill { part: Part::Peer(2), after: Duration::from_millis(1500) };
        assert_eq!("peer-2@1500".parse(), Ok(kill));
        for wrong in ["peer-2", "peer-2@", "peer-2@-1", "driver@5"] {
            assert!(wrong.parse::<Kill>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn servers_come_back_and_receivers_do_not() {
        let start = Instant::now();
        let kills = ["peer-1@30".parse().unwrap(), "control@10".parse().unwrap()];
        let mut schedule = Schedule::new(&kills, true, start);
        assert_eq!(schedule.take_due(start), None);
        let late = start + Duration::from_secs(1);
        assert_eq!(schedule.take_due(late), Some(Due::Kill { part: Part::Control, again: true }));
        schedule.bring_back(Part::Control, late);
        assert_eq!(schedule.take_due(late), Some(Due::Kill { part: Part::Peer(1), again: false }));
        assert_eq!(schedule.take_due(late), None);
        assert_eq!(schedule.next_at(), Some(late + AWAY));
        assert_eq!(schedule.take_due(late + AWAY), Some(Due::Restart(Part::Control)));
        assert_eq!(schedule.next_at(), None);
    }

    #[test]
    fn one_serving_receiver_is_chosen_once() {
        let now = Instant::now();
        let mut schedule = Schedule::new(&[], true, now);
        let peers = |counts: [u64; 3]| (1..).map(Part::Peer).zip(counts);
        schedule.choose(0.39, peers([9, 9, 9]), now);
        schedule.choose(0.5, peers([0, 0, 0]), now);
        assert_eq!(schedule.take_due(now), None);
        schedule.choose(0.5, peers([1, 3, 3]), now);
        schedule.choose(0.5, peers([1, 3, 3]), now);
        assert_eq!(schedule.take_due(now), Some(Due::Kill { part: Part::Peer(2), again: true }));
        assert_eq!(schedule.take_due(now), None);
        let mut none = Schedule::new(&[], false, now);
        none.choose(0.9, peers([1, 1, 1]), now);
        assert_eq!(none.take_due(now), None);
    }
}
