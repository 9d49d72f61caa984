//! Who feeds whom: assignments that are carried out, parents that are lost, spares that push in their place, alarms.

use super::control::{node_of, set_of};
use super::viewers::{HELPERS, LANES, NEVER, NONE, SOURCE, State, Vx, Who, ms};
use super::{What, World};
use headwater_center_core::Input;
use headwater_model::assignment::{Assignment, Parent};
use headwater_model::report::Alarm;
use headwater_model::rng::Rng;
use headwater_model::time::{Micros, Time};
use headwater_peer_core::live::LiveConfig;

/// A parent that has nothing to send says so this often.
const POSITION: Micros = LiveConfig::DEFAULT.position;
/// After so long without a word spares push, and the control center hears of it.
const SUSPECTED: Micros = LiveConfig::DEFAULT.suspected;
const SILENT: Micros = LiveConfig::DEFAULT.silent;
/// A node looks at its parents, and at what it lacks, this often.
pub(super) const PULSE: Micros = Micros::from_millis(50);
/// Ways between two strangers before the first piece comes: a handshake, hello and answer, ticket and answer, subscription,
/// piece; and between those that have a connection.
const STRANGERS: u64 = 8;
const ACQUAINTED: u64 = 2;
/// A spare's edge is open after so many.
const OPEN: u64 = 6;
/// Where only the parent can dial it does after this time.
const PARENT_DIALS: Micros = Micros::from_millis(700);
/// A parent that cannot be connected to is given up after this time.
const CONNECTS_WITHIN: Micros = Micros::from_secs(4);
/// A substream lags for so long until a parent that is behind is reported: what is missing is late by 300 ms, and then its
/// rate is measured.
const BEHIND_AFTER: Micros = Micros(LiveConfig::DEFAULT.behind.0 + 350_000);
/// A parent that sends less than this part of what it should is behind.
const BEHIND_BELOW: f64 = LiveConfig::DEFAULT.behind_percent as f64 / 100.0;
/// So often at most.
const BEHIND_EVERY: Micros = Micros::from_secs(2);

/// What a child says of a parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    Silent,
    Lost,
    Behind,
}

impl World<'_> {
    /// An assignment reaches a viewer.
    pub(super) fn assigned(&mut self, told: Time, vx: Vx, a: &Assignment) {
        let v = vx as usize;
        if vx == SOURCE || self.viewers.all[v].state != State::Watching && self.viewers.all[v].state != State::Coming {
            return;
        }
        let at = ms(told);
        let mut parents: [Option<&Parent>; LANES] = [None; LANES];
        a.parents.iter().for_each(|p| p.substreams.iter().for_each(|s| parents[usize::from(s)] = Some(p)));
        let mut hears_at = None;
        for (s, parent) in parents.into_iter().enumerate() {
            let new = parent.map_or(NONE, |p| self.known(p));
            let old = self.viewers.lanes[s].parent[v];
            if new == old {
                continue;
            }
            if new == NONE {
                self.viewers.unlink(s, vx);
                self.viewers.open_gap(s, vx, told);
                continue;
            }
            let opens = told + self.opening(told, vx, new, parent.is_some_and(|p| p.dial));
            let goes_on =
                old != NONE && !self.viewers.lanes[s].is_open_gap(vx) && self.viewers.all[old as usize].serves();
            if !self.viewers.all[new as usize].serves() {
                self.finds_dead(told, vx, new);
                if !goes_on {
                    self.viewers.link(told, s, new, vx);
                    self.viewers.open_gap(s, vx, told);
                }
                continue;
            }
            self.viewers.link(told, s, new, vx);
            if !goes_on {
                self.begins(s, vx, opens);
                hears_at = Some(hears_at.map_or(opens, |h: Time| h.min(opens)));
            }
        }
        for s in 0..LANES {
            let spare = a.spares.iter().find(|p| p.substreams.contains(s as u8)).map_or(NONE, |p| self.known(p));
            if spare != self.viewers.lanes[s].spare[v] {
                let way = if spare == NONE { Micros(0) } else { self.way(vx, spare) };
                self.viewers.lanes[s].spare[v] = spare;
                self.viewers.lanes[s].spare_open[v] = at.saturating_add((way.0 * OPEN / 1000) as u32);
            }
        }
        let mut helpers = ([NONE; HELPERS], [0; HELPERS]);
        for (n, p) in a.helpers.iter().take(HELPERS).enumerate() {
            (helpers.0[n], helpers.1[n]) = (self.known(p), p.promised.0.min(u64::from(NEVER)) as u32);
        }
        self.help_changes(vx, helpers);
        if let Some(at) = hears_at.filter(|_| self.viewers.all[v].begin.is_none()) {
            self.queue.push(at, What::Hears(self.viewers.who(vx)));
        }
    }

    fn known(&self, parent: &Parent) -> Vx {
        let who = super::control::who_of(&parent.node);
        if self.viewers.is_there(who) { who.vx } else { NONE }
    }

    /// From an assignment to the first piece of a new parent.
    fn opening(&self, told: Time, vx: Vx, parent: Vx, dials: bool) -> Micros {
        let is_known = |l: &super::viewers::Lane| {
            (l.parent[vx as usize] == parent && l.flows(vx, ms(told)))
                || (l.spare[vx as usize] == parent && l.spare_open[vx as usize] <= ms(told))
        };
        let way = self.way(vx, parent);
        match self.viewers.lanes.iter().any(is_known) || self.viewers.all[vx as usize].helpers.contains(&parent) {
            true => way.times(ACQUAINTED),
            false if dials => way.times(STRANGERS),
            false => PARENT_DIALS + way.times(STRANGERS),
        }
    }

    pub(super) fn way(&self, a: Vx, b: Vx) -> Micros {
        self.net.way(self.viewers.all[a as usize].place, self.viewers.all[b as usize].place)
    }

    /// Somebody pushes a substream from then on, which nobody did.
    fn begins(&mut self, s: usize, vx: Vx, at: Time) {
        let lost = self.viewers.lanes[s].lost[vx as usize];
        let was_fed = lost > 0;
        self.viewers.close_gap(s, vx, at);
        // What has been published since, and of a newcomer's first segment all.
        let parent = self.viewers.lanes[s].parent[vx as usize];
        let newest = self.stream.newest(at);
        let begun = self.viewers.all[vx as usize].begin.unwrap_or(newest);
        let missing = if was_fed { at.since(Time(u64::from(lost) * 1000)) } else { at.since(self.stream.begun(begun)) };
        let pieces = match was_fed {
            true => missing.0 as f64 / self.stream.piece_every(),
            // A burst comes as a whole.
            false => (missing.0 / self.stream.burst_every.0 + 1) as f64 * self.stream.pieces(),
        };
        let viewer = &mut self.viewers.all[parent as usize];
        let each = viewer.catches_up(at, pieces, &self.stream, super::pass::MESSAGES);
        self.viewers.lanes[s].catches_up[vx as usize] = each;
        if was_fed && self.viewers.all[vx as usize].begin.is_some() {
            // With the first piece, which waits for its turn.
            let piece_at = at + Micros(u64::from(each));
            self.figures.fed_again.add(piece_at.since(Time(u64::from(lost) * 1000)));
        }
        if parent == SOURCE {
            // What was there before goes out as well.
            self.figures.sent.pushed += (pieces * super::stream::PIECE as f64) as u64;
        }
    }

    /// The control center names somebody that died, and nobody knows yet.
    fn finds_dead(&mut self, told: Time, vx: Vx, parent: Vx) {
        let is_known = self.viewers.lanes.iter().any(|l| l.spare[vx as usize] == parent);
        let after = if is_known { SILENT } else { CONNECTS_WITHIN };
        let word = if is_known { Word::Silent } else { Word::Lost };
        let (child, of) = (self.viewers.who(vx), self.viewers.who(parent));
        self.queue.push(told + after, What::Suspects(child, of));
        self.queue.push(told + after + self.to_center(vx), What::Alarm(child, of, word));
    }

    /// Children of who died find out.
    pub(super) fn dies(&mut self, now: Time, vx: Vx) {
        self.viewers.all[vx as usize].state = State::Dead;
        let of = self.viewers.who(vx);
        let mut edges: Vec<(Vx, usize)> = Vec::new();
        for (s, lane) in self.viewers.lanes.iter().enumerate() {
            edges.extend(lane.children(vx).map(|c| (c, s)));
        }
        edges.sort_unstable();
        let mut told = NONE;
        let mut rng = Rng::new(self.seed ^ (u64::from(of.number) << 24), "last words");
        let mut heard = now;
        for (child, s) in edges {
            if child != told {
                told = child;
                heard = (now + self.way(vx, child)) - Micros(rng.below(POSITION.0));
                let pulse = Micros(rng.below(PULSE.0));
                let who = self.viewers.who(child);
                self.queue.push(heard + SUSPECTED + pulse, What::Suspects(who, of));
                let alarm = heard + SILENT + pulse + self.to_center(child);
                self.queue.push(alarm, What::Alarm(who, of, Word::Silent));
            }
            self.viewers.open_gap(s, child, heard);
        }
    }

    /// Who left is gone: children that it still has lose it at once.
    pub(super) fn goes(&mut self, now: Time, who: Who) {
        let mut edges: Vec<(Vx, usize)> = Vec::new();
        for (s, lane) in self.viewers.lanes.iter().enumerate() {
            edges.extend(lane.children(who.vx).map(|c| (c, s)));
        }
        edges.sort_unstable();
        let mut told = NONE;
        for (child, s) in edges {
            let heard = now + self.way(who.vx, child);
            self.viewers.open_gap(s, child, heard);
            self.spare_pushes(heard, s, child, who.vx);
            if child != told {
                told = child;
                let alarm = heard + self.to_center(child);
                self.queue.push(alarm, What::Alarm(self.viewers.who(child), who, Word::Lost));
            }
        }
    }

    /// Nothing is heard of a parent: spares push what it did.
    pub(super) fn suspects(&mut self, now: Time, child: Who, of: Who) {
        if self.viewers.watching(child).is_none() || !self.viewers.is_there(of) {
            return;
        }
        for s in 0..LANES {
            let lane = &self.viewers.lanes[s];
            if lane.parent[child.vx as usize] == of.vx && lane.is_open_gap(child.vx) {
                self.spare_pushes(now, s, child.vx, of.vx);
            }
        }
    }

    fn spare_pushes(&mut self, now: Time, s: usize, child: Vx, lost: Vx) {
        let lane = &self.viewers.lanes[s];
        let spare = lane.spare[child as usize];
        let can = spare != NONE
            && spare != lost
            && spare != child
            && lane.spare_open[child as usize] <= ms(now)
            && self.viewers.all[spare as usize].serves();
        if can {
            self.viewers.link(now, s, spare, child);
            self.begins(s, child, now + self.way(child, spare).times(ACQUAINTED));
        }
    }

    /// A child's word reaches the control center.
    pub(super) fn alarm(&mut self, now: Time, child: Who, of: Who, word: Word) {
        if self.viewers.watching(child).is_none() {
            return;
        }
        let parent = node_of(self.seed, of);
        let alarm = match word {
            Word::Silent => Alarm::Silent { parent },
            Word::Lost => Alarm::ParentLost { parent, why: "the connection is gone".into() },
            Word::Behind => {
                let given = |s: &usize| self.viewers.lanes[*s].parent[child.vx as usize] == of.vx;
                let substreams = set_of((0..LANES).filter(given));
                if substreams.is_empty() || !self.viewers.is_there(of) {
                    return;
                }
                Alarm::Behind { parent, substreams }
            }
        };
        self.says(now, Input::Alarm(node_of(self.seed, child), self.control.track.version, alarm));
    }

    /// Parents whose children take far more than their uplinks carry: these say so.
    pub(super) fn behind(&mut self, now: Time) {
        for vx in 1..self.viewers.all.len() as Vx {
            let v = &self.viewers.all[vx as usize];
            if v.outlets == 0 || !v.serves() || now.since(v.behind_at) < BEHIND_EVERY {
                continue;
            }
            let work = v.piece_time(&self.stream, super::pass::MESSAGES) * f64::from(v.outlets) * self.stream.pieces();
            if work * BEHIND_BELOW <= self.stream.burst_every.0 as f64 {
                continue;
            }
            self.viewers.all[vx as usize].behind_at = now;
            let mut children: Vec<Vx> = self.viewers.lanes.iter().flat_map(|l| l.children(vx)).collect();
            children.sort_unstable();
            children.dedup();
            let of = self.viewers.who(vx);
            for child in children {
                let at = now + BEHIND_AFTER + self.to_center(child);
                self.queue.push(at, What::Alarm(self.viewers.who(child), of, Word::Behind));
            }
        }
    }
}
