//! Players at this node: what each needs next, and when.

use super::window::Window;
use super::{Channel, LiveOutput};
use headwater_model::time::{Micros, Time};
use std::collections::BTreeMap;

/// What a player may take to begin once its first segment is here.
const BEGINS_WITHIN: Micros = Micros::from_millis(200);
/// A player that reads nothing for so long is paused, or gone.
const IDLE: Micros = Micros::from_secs(12);
/// A player that reads so many segments ahead has jumped.
const JUMP: u64 = 8;
/// Players at once.
const MAX_READERS: usize = 64;

/// A player.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    read_at: Time,
    plays: Option<Plays>,
    /// What it reads now that is no segment.
    other: Option<u64>,
}

/// What a player plays.
#[derive(Clone, Copy, Debug)]
struct Plays {
    /// The segment that it began with, and whether that was here.
    first: u64,
    begun: bool,
    /// The segment that it read last, and when that has to be here. What it read before may have left the window.
    last: u64,
    due: Time,
}

impl Channel {
    /// A player reads an object.
    pub(super) fn reads(&mut self, now: Time, reader: u64, object: u64, out: &mut Vec<LiveOutput>) {
        let sequence = self.window.objects().get(&object).and_then(|o| o.listed.as_ref()).map(|l| l.sequence);
        let plays = self.readers.get(&reader).and_then(|r| r.plays);
        let begins_within =
            if self.is_helped_with(object) { self.config.ask_ahead + self.config.helped_within } else { BEGINS_WITHIN };
        let next = match (sequence, plays) {
            (None, plays) => Reader { read_at: now, plays, other: Some(object) },
            (Some(sequence), Some(p)) if (p.last..p.last.saturating_add(JUMP)).contains(&sequence) => {
                // Whoever reads it only now did not need it before.
                let due = (p.due + played_between(&self.window, p.last, sequence)).max(now);
                let plays = Some(Plays { due, last: sequence, ..p });
                Reader { read_at: now, plays, other: None }
            }
            (Some(sequence), _) => {
                let plays = Some(Plays { first: sequence, due: now + begins_within, begun: false, last: sequence });
                Reader { read_at: now, plays, other: None }
            }
        };
        self.set_reader(reader, next);
        self.mend(now, out);
    }

    /// Whether helpers can bring an object soon.
    fn is_helped_with(&self, object: u64) -> bool {
        let (help, bytes) = (self.help(), self.window.objects().get(&object).and_then(|o| o.bytes));
        help.0 > 0 && bytes.is_some_and(|bytes| help.time_for(bytes) <= self.config.helped_within)
    }

    fn set_reader(&mut self, number: u64, reader: Reader) {
        if self.readers.len() >= MAX_READERS && !self.readers.contains_key(&number) {
            let longest = self.readers.iter().min_by_key(|(_, r)| r.read_at).map(|(n, _)| *n);
            longest.map(|n| self.readers.remove(&n));
        }
        self.readers.insert(number, reader);
    }

    /// When players need which objects; those that nobody is going to read are not in it.
    pub(super) fn due(&mut self, now: Time) -> BTreeMap<u64, Time> {
        self.readers.retain(|_, r| now.since(r.read_at) < IDLE);
        let window = &self.window;
        for p in self.readers.values_mut().filter_map(|r| r.plays.as_mut()).filter(|p| !p.begun) {
            // What follows is needed so much later as the picture came later than it was hoped for.
            p.begun = window.listed().any(|(object, _, l)| l.sequence == p.first && window.is_here(object));
            if p.begun {
                p.due = now + played_between(window, p.first, p.last);
            }
        }
        let mut due: BTreeMap<u64, Time> = BTreeMap::new();
        let mut needs = |object: u64, at: Time| {
            let known = due.entry(object).or_insert(at);
            *known = (*known).min(at);
        };
        for r in self.readers.values() {
            if let Some(object) = r.other {
                needs(object, now);
            }
            let Some(p) = r.plays else { continue };
            let mut at = p.due;
            let not_begun = if p.begun { Micros(0) } else { now.since(p.due) };
            for (object, _, l) in self.window.listed().filter(|(_, _, l)| l.sequence >= p.last) {
                needs(object, at);
                if let Some(map) = l.map {
                    needs(map, at);
                }
                at = at + l.duration;
                if l.sequence == p.last {
                    at = at + not_begun;
                }
            }
        }
        due
    }
}

/// How long the segments from `first` to before `sequence` play.
fn played_between(window: &Window, first: u64, sequence: u64) -> Micros {
    let between = window.listed().filter(|(_, _, l)| (first..sequence).contains(&l.sequence));
    Micros(between.map(|(_, _, l)| l.duration.0).sum())
}
