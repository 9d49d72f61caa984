//! The buffer of an HLS player: when it starts, when it stalls, how much it fetches ahead. Media is in it as soon as it has
//! arrived, and is played at the speed of time.

use headwater_model::time::{Micros, Time};

/// Stalls that are remembered one by one.
pub const MAX_STALLS: usize = 10_000;

/// A player's rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// So much must be there before it starts.
    pub start_with: Micros,
    /// So much must be there before it goes on after a stall.
    pub go_on_with: Micros,
    /// It fetches no more while it has so much.
    pub fetch_ahead: Micros,
}

impl Default for Rules {
    /// A segment starts it, as with hls.js; 30 s ahead at most.
    fn default() -> Self {
        Rules { start_with: Micros(1), go_on_with: Micros(1), fetch_ahead: Micros::from_secs(30) }
    }
}

/// A time in which nothing could be played.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stall {
    /// When it began.
    pub at: Time,
    /// How long it lasted, or has lasted.
    pub lasted: Micros,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Starting,
    Playing,
    Stalled,
    Over,
}

/// A player's buffer.
#[derive(Clone, Debug)]
pub struct Player {
    rules: Rules,
    state: State,
    begun: Time,
    /// Everything before was accounted for.
    now: Time,
    started: Option<Time>,
    played: Micros,
    buffered: Micros,
    ended: bool,
    stalls: Vec<Stall>,
}

impl Player {
    /// It opens the stream now.
    pub fn new(now: Time, rules: Rules) -> Self {
        Player {
            rules,
            state: State::Starting,
            begun: now,
            now,
            started: None,
            played: Micros(0),
            buffered: Micros(0),
            ended: false,
            stalls: Vec::new(),
        }
    }

    /// Media of this length has arrived.
    pub fn arrived(&mut self, now: Time, media: Micros) {
        self.pass(now);
        self.buffered = self.buffered + media;
        self.look();
    }

    /// No more will.
    pub fn ended(&mut self, now: Time) {
        self.pass(now);
        self.ended = true;
        self.look();
    }

    /// Time passes.
    pub fn pass(&mut self, now: Time) {
        let passed = now.since(self.now);
        if passed.0 == 0 {
            return;
        }
        match self.state {
            State::Playing => {
                let plays = Micros(passed.0.min(self.buffered.0));
                self.played = self.played + plays;
                self.buffered = self.buffered - plays;
                if self.buffered.0 == 0 && self.ended {
                    self.state = State::Over;
                } else if plays < passed {
                    self.state = State::Stalled;
                    self.stall(Stall { at: self.now + plays, lasted: passed - plays });
                }
            }
            State::Stalled => {
                if let Some(stall) = self.stalls.last_mut() {
                    stall.lasted = stall.lasted + passed;
                }
            }
            State::Starting | State::Over => {}
        }
        self.now = now;
    }

    /// Whether it fetches.
    pub fn wants_more(&self) -> bool {
        let wanted = self.rules.fetch_ahead.max(match self.state {
            State::Starting => self.rules.start_with,
            State::Stalled => self.rules.go_on_with,
            State::Playing | State::Over => Micros(0),
        });
        self.state != State::Over && !self.ended && self.buffered < wanted
    }
    /// When it wants more or is over, if nothing arrives; `None` where only that helps.
    pub fn wakes_at(&self) -> Option<Time> {
        match self.state {
            State::Playing if self.ended => Some(self.now + self.buffered),
            State::Playing if !self.wants_more() => {
                Some(self.now + (self.buffered - self.rules.fetch_ahead) + Micros(1))
            }
            _ => None,
        }
    }
    /// Whether all was played.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }
    /// What has arrived and was not played.
    pub fn buffered(&self) -> Micros {
        self.buffered
    }
    /// What was played.
    pub fn played(&self) -> Micros {
        self.played
    }
    /// How long it took from the opening to the first picture.
    pub fn startup(&self) -> Option<Micros> {
        self.started.map(|at| at.since(self.begun))
    }
    /// Every stall, the one that lasts among them; [`MAX_STALLS`] at most, the last of which stands for the rest.
    pub fn stalls(&self) -> &[Stall] {
        &self.stalls
    }

    fn look(&mut self) {
        let needed = match self.state {
            State::Starting => self.rules.start_with,
            State::Stalled => self.rules.go_on_with,
            State::Playing | State::Over => return,
        };
        if self.buffered.0 == 0 && self.ended {
            self.state = State::Over;
        } else if self.buffered >= needed || (self.ended && self.buffered.0 > 0) {
            self.state = State::Playing;
            self.started.get_or_insert(self.now);
        }
    }

    fn stall(&mut self, stall: Stall) {
        if self.stalls.len() < MAX_STALLS {
            self.stalls.push(stall);
        } else if let Some(last) = self.stalls.last_mut() {
            last.lasted = last.lasted + stall.lasted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What arrives when, in seconds; until when; then: start-up, played, buffered, and the stalls, in milliseconds.
    type Story<'a> = (&'a [(f64, f64)], f64, (Option<u64>, u64, u64, &'a [(u64, u64)]));

    fn at(s: f64) -> Time {
        Time((s * 1e6) as u64)
    }

    #[test]
    fn it_plays_what_has_arrived() {
        let rules = Rules { start_with: Micros::from_secs(2), go_on_with: Micros::from_secs(3), ..Rules::default() };
        let stories: &[Story<'_>] = &[
            (&[], 5.0, (None, 0, 0, &[])),
            (&[(0.5, 1.9)], 9.0, (None, 0, 1900, &[])),
            (&[(0.5, 1.0), (0.7, 1.0)], 1.7, (Some(700), 1000, 1000, &[])),
            // Just in time is no stall.
            (&[(1.0, 2.0), (3.0, 2.0)], 4.0, (Some(1000), 3000, 1000, &[])),
            (&[(1.0, 2.0), (4.0, 3.0)], 5.0, (Some(1000), 3000, 2000, &[(3000, 1000)])),
            // Two seconds are too few to go on with.
            (&[(1.0, 2.0), (4.0, 2.0), (5.5, 2.0)], 6.5, (Some(1000), 3000, 3000, &[(3000, 2500)])),
            (&[(1.0, 2.0)], 5.0, (Some(1000), 2000, 0, &[(3000, 2000)])),
            (&[(0.0, 2.0), (3.0, 3.0), (7.0, 3.0)], 8.0, (Some(0), 6000, 2000, &[(2000, 1000), (6000, 1000)])),
        ];
        for (arrivals, until, (startup, played, buffered, stalls)) in stories {
            let mut p = Player::new(Time(0), rules);
            arrivals.iter().for_each(|(t, s)| p.arrived(at(*t), Micros((s * 1e6) as u64)));
            p.pass(at(*until));
            let ms = |m: Micros| m.0 / 1000;
            let found: Vec<(u64, u64)> = p.stalls().iter().map(|s| (s.at.0 / 1000, ms(s.lasted))).collect();
            let all = (p.startup().map(ms), ms(p.played()), ms(p.buffered()), &found[..]);
            assert_eq!(all, (*startup, *played, *buffered, *stalls), "{arrivals:?}");
        }
    }

    #[test]
    fn the_end_is_no_stall() {
        let mut p = Player::new(Time(0), Rules { start_with: Micros::from_secs(9), ..Rules::default() });
        p.arrived(at(0.1), Micros::from_secs(2));
        p.ended(at(1.0));
        assert!(!p.wants_more());
        assert_eq!(p.wakes_at(), Some(at(3.0)));
        p.pass(at(3.0));
        assert!(p.is_over() && p.stalls().is_empty());
        assert_eq!((p.played(), p.startup()), (Micros::from_secs(2), Some(Micros::from_secs(1))));
        let mut empty = Player::new(Time(0), Rules::default());
        empty.ended(at(1.0));
        assert!(empty.is_over() && empty.startup().is_none());
    }

    #[test]
    fn it_fetches_so_much_ahead() {
        let mut p = Player::new(Time(0), Rules::default());
        (0..16).for_each(|_| p.arrived(at(1.0), Micros::from_secs(2)));
        assert!(!p.wants_more());
        assert_eq!(p.wakes_at(), Some(at(3.0) + Micros(1)));
        p.pass(at(3.0) + Micros(1));
        assert!(p.wants_more() && p.wakes_at().is_none());
        // It never starts with less than it needs.
        let late = Rules { start_with: Micros::from_secs(40), ..Rules::default() };
        let mut p = Player::new(Time(0), late);
        p.arrived(at(1.0), Micros::from_secs(35));
        assert!(p.wants_more());
    }

    proptest! {
        #[test]
        fn time_is_played_or_stalled(arrivals in proptest::collection::vec((0u64..4_000_000, 0u64..4_000_000), 1..60)) {
            let (mut p, mut now, mut media) = (Player::new(Time(0), Rules::default()), Time(0), 0);
            for (wait, len) in arrivals {
                now = now + Micros(wait);
                media += len;
                p.arrived(now, Micros(len));
            }
            p.pass(now + Micros::from_secs(1));
            let stalled: u64 = p.stalls().iter().map(|s| s.lasted.0).sum();
            prop_assert_eq!(p.played().0 + p.buffered().0, media);
            if let Some(startup) = p.startup() {
                prop_assert_eq!(startup.0 + p.played().0 + stalled, now.0 + 1_000_000);
            }
        }
    }
}
