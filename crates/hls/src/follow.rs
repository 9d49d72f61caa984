//! What is fetched of a media playlist, and when it is loaded again (RFC 8216, section 6.3; where the origin can hold an
//! answer back until there is something new, RFC 8216bis, section 6.2.5.2).

use crate::playlist::{ByteRange, MediaPlaylist, Segment};
use headwater_model::time::{Micros, Time};
use std::collections::VecDeque;

/// Loads in a row that end before what is known, after which the packager is taken to have begun anew.
const BACKWARDS_LOADS: u32 = 3;
/// Target durations without anything new after which the stream stalls.
const STALLED_TARGETS: u64 = 3;
/// Of what was listed of late, so much is compared with what is listed later.
const MAX_REMEMBERED: usize = 256;
/// Segments that wait to be fetched; the oldest are left out where nobody fetches them.
const MAX_PENDING: usize = 4096;
/// No playlist is loaded more often.
const LEAST_PAUSE: Micros = Micros::from_millis(200);
/// Target durations that an origin may hold an answer back; a little more is waited for one that comes just then.
const HELD_TARGETS: u64 = 3;
const HELD_MARGIN: Micros = Micros::from_secs(1);
/// An origin that so many times in a row did not hold back what it said it would is asked in the ordinary way.
const UNKEPT_PROMISES: u32 = 3;
/// Before a playlist was read.
const FIRST_PAUSE: Micros = Micros::from_secs(1);

/// What is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The playlist ends before what it listed earlier: an old copy, and not used.
    Backwards,
    /// It has for a while: the packager began anew, and its first segment counts as a discontinuity.
    Restarted,
    /// So many segments left the playlist before it was loaded.
    Missed(u64),
    /// A segment that was listed is listed as another one; the first one counts.
    Changed(u64),
    /// A segment that was listed is listed as a discontinuity only now: players were not told in time.
    Discontinuity(u64),
    /// The target duration is another one, which must not be.
    TargetDuration(Micros),
    /// Nothing new has come for so long: the encoder or the packager stands still.
    Stalled(Micros),
    /// Something new has come after that.
    GoesOn,
}

/// That the origin is to hold its answer back until there is something new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Until a segment with this number is listed.
    pub until: u64,
    /// An answer that takes longer has failed.
    pub most: Micros,
}

impl Held {
    /// Name and value of what is added to the playlist's query (RFC 8216bis, section 6.2.5).
    pub fn query(&self) -> (&'static str, String) {
        ("_HLS_msn", self.until.to_string())
    }
}

/// What is remembered of a segment that was listed.
#[derive(Clone, Debug)]
struct Remembered {
    sequence: u64,
    uri: String,
    range: Option<ByteRange>,
    discontinuity: bool,
}

/// Follows one media playlist. Whoever drives it loads the playlist at [`Follower::next_load`] and says what came, and
/// fetches what [`Follower::next_segment`] gives.
#[derive(Clone, Debug)]
pub struct Follower {
    hold_back: Micros,
    target: Option<Micros>,
    /// The number that comes next, once one is known.
    next: Option<u64>,
    remembered: VecDeque<Remembered>,
    pending: VecDeque<Segment>,
    begun: Time,
    load_at: Option<Time>,
    new_at: Time,
    stalled: bool,
    backwards: u32,
    /// What it has is of an earlier run; no playlist was used in this one.
    resumes: bool,
    /// The origin says that it can hold answers back.
    can_block: bool,
    /// What it is asked for in the load that is under way.
    held: Option<Held>,
    /// The last load that was held back failed: the next one is an ordinary one and shows whose fault that was.
    in_doubt: bool,
    /// Promises that it did not keep, in a row.
    unkept: u32,
}

impl Follower {
    /// Nothing is known yet; the playlist is to be loaded at once. It begins `hold_back` before the end of a playlist that
    /// goes on, and with all of one that has ended.
    pub fn new(now: Time, hold_back: Micros) -> Self {
        Follower {
            hold_back,
            target: None,
            next: None,
            remembered: VecDeque::new(),
            pending: VecDeque::new(),
            begun: now,
            load_at: Some(now),
            new_at: now,
            stalled: false,
            backwards: 0,
            resumes: false,
            can_block: false,
            held: None,
            in_doubt: false,
            unkept: 0,
        }
    }

    /// For who has all before `next` from an earlier run. It goes on there if the playlist still has it, else where a
    /// newcomer begins.
    pub fn resume(now: Time, hold_back: Micros, next: u64) -> Self {
        Follower { next: Some(next), resumes: true, ..Follower::new(now, hold_back) }
    }

    /// When the playlist is to be loaded; `None` after its end.
    pub fn next_load(&self) -> Option<Time> {
        self.load_at
    }

    /// Whether there is nothing more to load or to fetch.
    pub fn is_over(&self) -> bool {
        self.load_at.is_none() && self.pending.is_empty()
    }

    /// What is to be fetched next, in order.
    pub fn next_segment(&mut self) -> Option<Segment> {
        self.pending.pop_front()
    }

    /// A load begins; whether the origin is to hold its answer back.
    pub fn loading(&mut self, now: Time) -> Option<Held> {
        self.begun = now;
        // While segments wait to be fetched nobody should wait for an answer.
        self.held = match (self.next, self.target) {
            (Some(until), Some(target)) if self.is_held() && self.pending.is_empty() => {
                Some(Held { until, most: target.times(HELD_TARGETS) + HELD_MARGIN })
            }
            _ => None,
        };
        self.held
    }

    /// Whether the next answer is to be held back.
    fn is_held(&self) -> bool {
        self.can_block && !self.in_doubt && self.unkept < UNKEPT_PROMISES && self.backwards == 0
    }

    /// It failed.
    pub fn failed(&mut self, now: Time) -> Vec<Trouble> {
        self.in_doubt = self.held.take().is_some();
        self.load_at = Some(now + self.pause(2));
        self.stalls(now).into_iter().collect()
    }

    /// It brought this.
    pub fn loaded(&mut self, now: Time, list: &MediaPlaylist) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let before = self.next;
        let held = self.held.take();
        if !self.take(list, &mut troubles) {
            troubles.extend(self.stalls(now));
            self.load_at = Some((self.begun + self.pause(2)).max(now));
            return troubles;
        }
        if self.target.replace(list.target_duration).is_some_and(|t| t != list.target_duration) {
            troubles.push(Trouble::TargetDuration(list.target_duration));
        }
        let has_new = self.next != before;
        self.can_block = list.can_block;
        self.judge(held, has_new);
        if has_new {
            self.new_at = now;
            if std::mem::take(&mut self.stalled) {
                troubles.push(Trouble::GoesOn);
            }
        } else {
            troubles.extend(self.stalls(now));
        }
        let pause = match has_new {
            // It says itself when there is more.
            true if self.is_held() => LEAST_PAUSE,
            true => self.pause(1),
            false => self.pause(if before.is_none() { 1 } else { 2 }),
        };
        self.load_at = (!list.ended).then(|| (self.begun + pause).max(now));
        troubles
    }

    /// Whether the origin keeps what it promises: an answer that it held back has something new, and one that it never gave
    /// was not kept from us although there was something.
    fn judge(&mut self, held: Option<Held>, has_new: bool) {
        let in_doubt = std::mem::take(&mut self.in_doubt);
        match (held, has_new) {
            (Some(_), true) => self.unkept = 0,
            (Some(_), false) => self.unkept = self.unkept.saturating_add(1),
            (None, true) if in_doubt => self.unkept = self.unkept.saturating_add(1),
            (None, _) => {}
        }
    }

    /// A part of the target duration.
    fn pause(&self, part: u64) -> Micros {
        self.target.map_or(FIRST_PAUSE, |t| Micros(t.0 / part).max(LEAST_PAUSE))
    }

    /// Takes what is new of a playlist; false when it is an old copy.
    fn take(&mut self, list: &MediaPlaylist, troubles: &mut Vec<Trouble>) -> bool {
        let Some(last) = list.segments.last().map(|s| s.sequence) else { return true };
        let mut restarted = false;
        match self.next {
            None => {
                self.next = Some(self.first_of(list));
            }
            Some(next) if last.saturating_add(1) < next => {
                self.backwards += 1;
                if self.backwards < BACKWARDS_LOADS {
                    troubles.push(Trouble::Backwards);
                    return false;
                }
                troubles.push(Trouble::Restarted);
                self.remembered.clear();
                self.next = Some(self.goes_on_at(list));
                restarted = true;
            }
            Some(next) if list.media_sequence > next => {
                let at = self.goes_on_at(list);
                troubles.push(Trouble::Missed(at.saturating_sub(next)));
                self.next = Some(at);
            }
            Some(_) => {}
        }
        (self.backwards, self.resumes) = (0, false);
        let Some(next) = self.next else { return true };
        self.compare(list, next, troubles);
        for segment in list.segments.iter().filter(|s| s.sequence >= next) {
            let mut segment = segment.clone();
            segment.discontinuity |= std::mem::take(&mut restarted);
            if self.remembered.len() == MAX_REMEMBERED {
                self.remembered.pop_front();
            }
            let Segment { sequence, range, discontinuity, .. } = segment;
            self.remembered.push_back(Remembered { sequence, uri: segment.uri.clone(), range, discontinuity });
            self.pending.push_back(segment);
        }
        let too_many = self.pending.len().saturating_sub(MAX_PENDING);
        if too_many > 0 {
            self.pending.drain(..too_many);
            troubles.push(Trouble::Missed(too_many as u64));
        }
        self.next = Some(last.saturating_add(1).max(next));
        true
    }

    /// The number that it goes on with where that which came next is gone.
    fn goes_on_at(&self, list: &MediaPlaylist) -> u64 {
        if self.resumes { self.first_of(list) } else { list.media_sequence }
    }

    /// The number that a newcomer begins with.
    fn first_of(&self, list: &MediaPlaylist) -> u64 {
        if list.ended {
            return list.media_sequence;
        }
        let mut behind = Micros(0);
        let first = list.segments.iter().rev().find(|s| {
            behind = behind + s.duration;
            behind >= self.hold_back
        });
        first.map_or(list.media_sequence, |s| s.sequence)
    }

    /// Whether what was listed is still listed as it was.
    fn compare(&mut self, list: &MediaPlaylist, next: u64, troubles: &mut Vec<Trouble>) {
        let first = list.media_sequence;
        self.remembered.retain(|r| r.sequence >= first);
        for known in self.remembered.iter_mut().filter(|r| r.sequence < next) {
            let Some(listed) = usize::try_from(known.sequence - first).ok().and_then(|at| list.segments.get(at)) else {
                break;
            };
            // Each is told of once.
            if (&listed.uri, listed.range) != (&known.uri, known.range) {
                troubles.push(Trouble::Changed(known.sequence));
                (known.uri, known.range) = (listed.uri.clone(), listed.range);
            }
            if listed.discontinuity && !known.discontinuity {
                troubles.push(Trouble::Discontinuity(known.sequence));
                known.discontinuity = true;
            }
        }
    }

    fn stalls(&mut self, now: Time) -> Option<Trouble> {
        let quiet = now.since(self.new_at);
        let patience = self.target?.times(STALLED_TARGETS);
        (!self.stalled && quiet >= patience).then(|| {
            self.stalled = true;
            Trouble::Stalled(quiet)
        })
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
