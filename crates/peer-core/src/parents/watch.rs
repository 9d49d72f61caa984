//! Parents that are silent, slow or never there, and what is to be had from none of them.

use super::Look;
use crate::edges::EdgeStage;
use crate::swarm::{Output, Swarm};
use headwater_model::id::NodeId;
use headwater_model::report::{Alarm, MAX_STARVING_RUNS};
use headwater_model::time::{Micros, Rate, Time};

/// A parent trickles below this fraction of what others deliver, and below two thirds of its promise.
const TRICKLE: u64 = 4;
/// Below this fraction of its promise a parent is beyond doubt.
const HOPELESS: u64 = 8;
/// What others deliver says something from so many pieces on.
const USUAL_PIECES: u64 = 8;

impl Swarm {
    /// Parents that were asked and send nothing or next to nothing, and edges that do not come about.
    pub(crate) fn watch_parents(&mut self, now: Time, out: &mut Vec<Output>) {
        self.end_edges(now, out);
        let piece_bytes = self.layout.piece_bytes();
        let (late_after, silent_after, forgive) = (self.config.late, self.config.silent, self.config.forgive);
        let (mut late, mut silent, mut mute, mut stuck) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (node, p) in self.parents.iter_mut().filter(|(_, p)| p.ends_by.is_none()) {
            if p.suspect.is_some_and(|t| now.since(t) > forgive) {
                p.heard(now);
            }
            let (quiet, age) = (now.since(p.last_arrival), now.since(p.since));
            // It does not answer, or says nothing of what it holds, which every parent says first.
            if (p.edge == EdgeStage::Opening || (p.is_open() && p.has.words().is_empty())) && age > silent_after {
                mute.push(*node);
            } else if p.is_waited_for() && p.quiet(now) > p.silent_after(silent_after, piece_bytes) {
                silent.push(*node);
            } else if p.is_waited_for() && !p.late && quiet > p.late_after(late_after, piece_bytes) {
                late.push(*node);
            } else if p.assigned && p.edge == EdgeStage::Dialling && age > Micros::from_secs(10) {
                stuck.push(*node);
            }
        }
        for node in late {
            self.ask_others(node, out);
        }
        for node in silent {
            self.take_all_back(now, node, out);
            if let Some(p) = self.parents.get_mut(&node) {
                p.suspect = Some(now);
                p.late = false;
            }
            out.push(Output::Alarm(Alarm::Silent { parent: node }));
            self.call_spare(out);
        }
        for node in mute {
            self.leave_parent(now, node, Alarm::Silent { parent: node }, out);
        }
        for node in self.trickling(now) {
            self.leave_parent(now, node, Alarm::Slow { parent: node }, out);
        }
        for node in stuck {
            self.parent_lost(now, node, "no connection within 10 s".into(), out);
        }
        self.ask_everyone(now, out);
    }

    /// A parent is late: one piece stays asked of it, to hear when it comes back, and the others are free to be asked of
    /// others. Who has nobody else to ask gets a spare.
    fn ask_others(&mut self, node: NodeId, out: &mut Vec<Output>) {
        let Some(p) = self.parents.get_mut(&node) else { return };
        p.late = true;
        let back: Vec<u32> = p.asked.drain(1.min(p.asked.len())..).collect();
        self.unclaim(back.iter().copied());
        if !back.is_empty() {
            out.push(Output::Unask(node, back));
        }
        if !self.parents.values().any(|p| p.has_anything() && !p.late && p.suspect.is_none()) {
            self.call_spare(out);
        }
    }

    fn take_all_back(&mut self, now: Time, node: NodeId, out: &mut Vec<Output>) {
        let Some(p) = self.parents.get_mut(&node) else { return };
        let asked: Vec<u32> = p.asked.drain(..).collect();
        p.settled(now);
        self.unclaim(asked.iter().copied());
        if !asked.is_empty() {
            out.push(Output::Unask(node, asked));
        }
    }

    fn leave_parent(&mut self, now: Time, node: NodeId, alarm: Alarm, out: &mut Vec<Output>) {
        self.forget_parent(now, &node);
        out.push(Output::CloseEdge(node));
        out.push(Output::Alarm(alarm));
        self.call_spare(out);
    }

    /// Parents that have kept requests waiting for long, at a small fraction of their promise and of what others deliver
    /// (or deliver while they are waited for, where there is little to ask of them): neither a small uplink nor this
    /// node's own line explains that.
    fn trickling(&mut self, now: Time) -> Vec<NodeId> {
        let (piece_bytes, span) = (u64::from(self.layout.piece_bytes()), self.config.slow);
        let looks: Vec<(NodeId, Look)> = self
            .parents
            .iter_mut()
            .filter(|(_, p)| p.is_open() && p.ends_by.is_none())
            .map(|(n, p)| (*n, p.look(now, span)))
            .collect();
        let mut slow = Vec::new();
        for (node, look) in looks.iter().filter(|(_, look)| look.waited_for) {
            let others = looks.iter().filter(|(n, other)| n != node && other.bytes > 0).map(|(_, other)| other);
            let (mut others, mut rates): (Vec<u64>, Vec<Rate>) = others.map(|o| (o.bytes, o.rate)).unzip();
            others.sort_unstable();
            rates.sort_unstable();
            let promised = self.parents.get(node).map_or(0, |p| p.entry.promised.bytes_in(span));
            let usual = others.get(others.len() / 2).copied().unwrap_or(0);
            let usual_rate = rates.get(rates.len() / 2).copied().unwrap_or_default();
            let broken = look.bytes.saturating_mul(3) < promised.saturating_mul(2);
            // So far below its promise that others need not be in full swing to show that it is not this node's line.
            let hopeless = look.bytes.saturating_mul(HOPELESS) < promised;
            let few = piece_bytes * USUAL_PIECES / 2;
            let enough = if hopeless { few } else { piece_bytes * USUAL_PIECES };
            let by_bytes = broken && usual >= enough && look.bytes.saturating_mul(TRICKLE) < usual;
            let far_below = look.rate.is_trickle_of(usual_rate);
            let by_rate =
                far_below && look.bytes.saturating_mul(TRICKLE) < promised && others.iter().sum::<u64>() >= few;
            if by_bytes || by_rate {
                slow.push(*node);
            }
        }
        slow
    }

    /// Nothing to ask of anyone: the control center should know what is missing.
    pub(crate) fn watch_starving(&mut self, now: Time, out: &mut Vec<Output>) {
        let held_back = self.intake.room(now, self.asked_until, self.layout.piece_bytes()) == 0;
        let waiting =
            held_back || self.parents.values().any(|p| !p.asked.is_empty()) || self.origin.busy() || !self.may_fetch();
        if waiting || !self.control || now.since(self.last_progress) < self.config.starving {
            return;
        }
        // One second, then less and less often.
        let pause = self.config.starving.times(1 << self.starving_alarms.min(2));
        if now.since(self.starving_alarm_at) < pause {
            return;
        }
        self.starving_alarm_at = now;
        self.starving_alarms += 1;
        let first = self.rng.below(u64::from(self.layout.runs().max(1))) as u32;
        let all = self.layout.runs();
        let runs = (0..all).map(|i| (first + i) % all).filter(|r| !self.runs.get(*r)).take(MAX_STARVING_RUNS).collect();
        out.push(Output::Alarm(Alarm::Starving { runs }));
    }
}
