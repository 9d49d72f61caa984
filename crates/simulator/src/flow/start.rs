//! A newcomer's start: segments from before it came, which helpers bring with the uplink that they have left over, or the
//! origin.

use super::feeds::PULSE;
use super::origin::slow_start;
use super::stream::PIECE;
use super::viewers::{HELPERS, LANES, NONE, State, Vx, Who};
use super::{What, World};
use headwater_model::rng::mix64;
use headwater_model::time::{Micros, Rate, Time};
use headwater_peer_core::live::LiveConfig;

/// Helpers that can bring the first segment within this time have so much longer: only then is the origin asked.
const HELPED_WITHIN: Micros = LiveConfig::DEFAULT.helped_within;
/// How long before a player needs it the rest of a segment from before a newcomer is fetched.
const ASK_AHEAD: Micros = LiveConfig::DEFAULT.ask_ahead;

/// Pieces that a helper is asked for at once, from the least to the most.
const ASKED: (u64, u64) = (2, LiveConfig::DEFAULT.max_asked_of_helper as u64);
/// Part of a newcomer's downlink that is for segments from before it came; the rest has what is pushed meanwhile, as much.
const LINE: f64 = 0.5;
/// How exactly it is known when helpers have brought something.
const PACE: Micros = Micros::from_millis(10);

fn asked_at_once(promised: u32) -> u64 {
    (Rate(u64::from(promised)).bytes_in(HELPED_WITHIN) / PIECE).clamp(ASKED.0, ASKED.1)
}

impl World<'_> {
    /// Those that help a viewer are others now, or promise other things.
    pub(super) fn help_changes(&mut self, vx: Vx, (helpers, promised): ([Vx; HELPERS], [u32; HELPERS])) {
        let v = &mut self.viewers.all[vx as usize];
        let is_asking = v.begin.is_some() && v.early < v.earlies;
        let old = std::mem::replace(&mut v.helpers, helpers);
        v.promised = promised;
        if is_asking {
            self.asks(old, false);
            self.asks(helpers, true);
        }
    }

    fn asks(&mut self, helpers: [Vx; HELPERS], begins: bool) {
        for h in helpers.into_iter().filter(|h| *h != NONE) {
            let h = &mut self.viewers.all[h as usize];
            h.asked_by = if begins { h.asked_by + 1 } else { h.asked_by.saturating_sub(1) };
        }
    }

    /// The first entries came: its player begins some segments before the newest one.
    pub(super) fn hears(&mut self, now: Time, who: Who) {
        let (newest, held_back) = (self.stream.newest(now), self.held_back);
        let Some(v) = self.viewers.watching(who).filter(|v| v.begin.is_none()) else { return };
        v.begin = Some(newest);
        // What it is pushed from the newest segment on comes too late for the first picture.
        (v.early, v.earlies) = (0, (held_back - 1).min(newest).max(1));
        let helpers = v.helpers;
        self.asks(helpers, true);
        let way = self.slowest_helper(who.vx);
        self.viewers.all[who.vx as usize].helped_since = now + way.times(2);
        self.reads(now, who, now);
    }

    /// It needs the next segment from before it came at `due`, as far as that is known.
    fn reads(&mut self, now: Time, who: Who, due: Time) {
        let way = self.slowest_helper(who.vx);
        let v = &self.viewers.all[who.vx as usize];
        let helped_since = v.helped_since;
        let promised = v.promised.iter().fold(0u64, |all, p| all + u64::from(*p));
        let is_first = v.early == 0;
        let is_helped = promised > 0 && Rate(promised).time_for(self.stream.segment_bytes) <= HELPED_WITHIN;
        let until = match (is_first, is_helped) {
            (true, false) => now,
            (true, true) => now + HELPED_WITHIN,
            (false, _) => (due - ASK_AHEAD).max(now),
        };
        self.viewers.all[who.vx as usize].asked_at = now;
        if is_first && until == now {
            return self.fetches(now, who, self.stream.segment_bytes);
        }
        let begun = if is_first { now + way.times(2) } else { helped_since };
        let bytes = self.stream.segment_bytes;
        if is_first {
            let (brought, at) = self.first_brought(who.vx, begun, until);
            self.viewers.all[who.vx as usize].rest = bytes - (brought as u64).min(bytes);
            return match at {
                Some(at) => self.queue.push(at, What::Fetched(who)),
                None => self.queue.push(until, What::Rest(who)),
            };
        }
        let brought = self.brought(who.vx, begun, until);
        if brought >= bytes as f64 {
            // Where they bring more than that they were as much faster.
            let part = bytes as f64 / brought;
            let at = begun + Micros((until.since(begun).0 as f64 * part) as u64);
            self.queue.push(at, What::Fetched(who));
        } else {
            self.viewers.all[who.vx as usize].rest = bytes - brought as u64;
            self.queue.push(until, What::Rest(who));
        }
    }

    fn slowest_helper(&self, vx: Vx) -> Micros {
        let helpers = self.viewers.all[vx as usize].helpers;
        helpers.into_iter().filter(|h| *h != NONE).map(|h| self.way(vx, h)).max().unwrap_or_default()
    }

    /// What helpers bring in that time, in bytes: each shares what it has left over among those that ask it, and is asked for
    /// so many pieces at once.
    fn brought(&self, vx: Vx, from: Time, until: Time) -> f64 {
        let v = &self.viewers.all[vx as usize];
        let of = |(h, promised): (&Vx, &u32)| {
            let helper = &self.viewers.all[*h as usize];
            // Who promises nothing has nothing of before, or is needed otherwise.
            if !helper.serves() || *promised == 0 {
                return 0.0;
            }
            let each = helper.piece_time(&self.stream, super::pass::MESSAGES) * f64::from(helper.asked_by.max(1));
            let asked = asked_at_once(*promised) as f64;
            let rounds = self.way(vx, *h).times(2) + PULSE;
            let rate = (PIECE as f64 / each * 1e6).min(asked * PIECE as f64 / rounds.as_secs_f64());
            rate * self.idle(*h, from, until)
        };
        let all: f64 = v.helpers.iter().zip(&v.promised).filter(|(h, _)| **h != NONE).map(of).sum();
        all.min(f64::from(v.down) * LINE * until.since(from).as_secs_f64())
    }

    /// What of the first segment helpers bring by then, and when they have brought all, if they do: its pieces are asked for
    /// one helper after the other, each for so many, and the slowest counts.
    fn first_brought(&self, vx: Vx, from: Time, until: Time) -> (f64, Option<Time>) {
        let v = &self.viewers.all[vx as usize];
        let mut helpers: Vec<(u64, Vx, u64)> = v
            .helpers
            .iter()
            .zip(&v.promised)
            .filter(|(h, p)| **h != NONE && **p > 0)
            .map(|(h, p)| (mix64(self.seed ^ u64::from(self.viewers.all[*h as usize].number)), *h, asked_at_once(*p)))
            .collect();
        helpers.sort_unstable();
        let pieces = self.stream.burst_pieces * self.stream.bursts;
        let all: u64 = helpers.iter().map(|h| h.2).sum();
        // What is asked for later goes to all of them.
        let more = (pieces as f64 / all.max(1) as f64).max(1.0);
        let (mut left, mut bytes, mut last) = (pieces as f64, 0.0, from);
        for (_, h, asked) in helpers {
            let helper = &self.viewers.all[h as usize];
            let asked = (asked as f64 * more).min(left);
            left -= asked;
            let takes =
                helper.piece_time(&self.stream, super::pass::MESSAGES) * f64::from(helper.asked_by.max(1)) * asked
                    / 1e6;
            // It has to be idle for so long.
            let mut at = from;
            while helper.serves() && at < until && self.idle(h, from, at) < takes {
                at = at + PACE;
            }
            let done = if helper.serves() { (self.idle(h, from, at) / takes.max(1e-6)).min(1.0) } else { 0.0 };
            bytes += asked * done * PIECE as f64;
            last = last.max(if done < 1.0 { until } else { at });
        }
        let down = Micros((self.stream.segment_bytes as f64 / (f64::from(v.down) * LINE) * 1e6) as u64);
        last = last.max(from + down);
        let is_whole = last < until && left < 1.0;
        (bytes.min(self.stream.segment_bytes as f64), is_whole.then_some(last))
    }

    /// Seconds of that time in which a viewer has nothing to push: it does so after each burst.
    fn idle(&self, vx: Vx, from: Time, until: Time) -> f64 {
        let v = &self.viewers.all[vx as usize];
        let every = self.stream.burst_every.0 as f64;
        let work = v.piece_time(&self.stream, super::pass::MESSAGES) * f64::from(v.outlets) * self.stream.pieces();
        let seconds = until.since(from).as_secs_f64();
        if work >= every {
            return 0.0;
        }
        let feeds = |s: &usize| self.viewers.lanes[*s].first[vx as usize] != NONE;
        let lag = (0..LANES).filter(feeds).map(|s| self.viewers.lanes[s].lag[vx as usize]).min();
        // Who has children that catch up sends nothing else.
        let owes = v.still_owes(from, &self.stream, super::pass::MESSAGES).as_secs_f64();
        let Some(lag) = lag else { return (seconds - owes).max(0.0) };
        // Since the last burst came.
        let burst = self.stream.published(self.stream.newest(from)) + Micros(u64::from(lag));
        let phase = (from.0 as f64 - burst.0 as f64).rem_euclid(every);
        let busy_before = |t: f64| (t / every).floor() * work + (t.rem_euclid(every)).min(work);
        let end = phase + seconds * 1e6;
        (seconds - owes - (busy_before(end) - busy_before(phase)) / 1e6).max(0.0)
    }

    /// Helpers had their time.
    pub(super) fn rest(&mut self, now: Time, who: Who) {
        if let Some(v) = self.viewers.watching(who) {
            let rest = v.rest;
            self.fetches(now, who, rest);
        }
    }

    fn fetches(&mut self, now: Time, who: Who, bytes: u64) {
        let v = &mut self.viewers.all[who.vx as usize];
        let way = self.net.to_origin(v.place);
        (v.asked_at, v.rest) = (now, bytes);
        // A request that is on its way has the rest of its time before it; none is answered while the origin is out.
        let begins = (now + way.times(3)).max(self.origin_out_until);
        if begins > now + way.times(3) {
            self.queue.push(begins, What::Asks(who));
        } else {
            self.asks_origin(now, who);
        }
    }

    /// The origin hears of it.
    pub(super) fn asks_origin(&mut self, now: Time, who: Who) {
        if let Some(v) = self.viewers.watching(who) {
            let bytes = v.rest;
            self.figures.sent.fetched += bytes;
            self.figures.origin_bytes += bytes;
            self.figures.repaired_bytes += bytes;
            self.pipe.fetch(now, who, bytes);
        }
    }

    /// The origin has sent all of it.
    pub(super) fn sent(&mut self, now: Time, who: Who) {
        let Some(v) = self.viewers.watching(who) else { return };
        let (place, asked_at, rest, down) = (v.place, v.asked_at, v.rest, f64::from(v.down));
        let way = self.net.to_origin(place);
        // The pipe began with the question; what the way there takes, and slow start, is in this.
        let at = (now + way.times(4)).max(asked_at + slow_start(way, rest, down * LINE));
        self.queue.push(at, What::Fetched(who));
    }

    /// A segment from before it came is here.
    pub(super) fn fetched(&mut self, now: Time, who: Who) {
        let (stream, held_back) = (self.stream, self.held_back);
        let Some(v) = self.viewers.watching(who) else { return };
        let Some(begin) = v.begin else { return };
        // A player that holds back no more than a segment begins with what is pushed as well. The first segments of all were
        // published at once, and are played one after the other all the same.
        let before = if v.earlies == held_back { 0 } else { v.earlies - v.early };
        let lag = now.since(stream.published(begin)) + stream.segment.times(before);
        match v.start_up {
            None => {
                v.start_up = Some(now.since(v.watches_since));
                v.slack = Some(lag);
            }
            Some(_) => v.plays(lag),
        }
        v.needed_pieces += (stream.burst_pieces * stream.bursts) as u32;
        // Where the origin brought the first one helpers were asked for the next one meanwhile.
        if v.early > 0 || v.rest < stream.segment_bytes {
            v.helped_since = now;
        }
        v.early += 1;
        self.figures.early_bytes += stream.segment_bytes;
        let v = &self.viewers.all[who.vx as usize];
        if v.early < v.earlies {
            let due = stream.published(begin) + v.slack.unwrap_or_default() - stream.segment.times(before - 1);
            return self.reads(now, who, due);
        }
        let helpers = v.helpers;
        self.asks(helpers, false);
    }

    /// Who goes asks nobody any more.
    pub(super) fn stops_asking(&mut self, vx: Vx) {
        let v = &self.viewers.all[vx as usize];
        if v.state == State::Watching && v.begin.is_some() && v.early < v.earlies {
            let helpers = v.helpers;
            self.asks(helpers, false);
        }
    }
}
