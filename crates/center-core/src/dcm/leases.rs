//! Origin leases: which child brings in which run, so that about one copy leaves the origin however many ask at once
//! (architecture, idea 8; mechanisms, "Origin leases").

use super::member::{Ix, Member};
use crate::trust::Network;
use headwater_model::bits::Bits;
use headwater_model::node::Accepts;
use headwater_model::time::{Micros, Time};
use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;

/// Leases that take less make room for one more at once, and those that take more for one fewer: together they keep the
/// origin's uplink in use, while each still ends soon (measured in the simulator: 16 peers whose downlinks equal the
/// origin's uplink need 1.10 times the bound with these, 1.22 times with four leases at once).
const SHORT_LEASE_US: u64 = 4_000_000;
/// See [`SHORT_LEASE_US`]. More at once than a line can carry costs losses: of what 32 sent into a line of 10 Mbit/s a
/// third never arrived (measured in the lab).
const LONG_LEASE_US: u64 = 8_000_000;
/// What a lease is thought to take before one was done.
const FIRST_LEASE_US: u64 = 2_500_000;
/// When nothing else is left to lease, one that takes so many halves of what is usual is given to another node, once: a
/// flow that lost many packets crawls on an idle line, a new one does not (measured in the lab: the last run of 40 MB to
/// eight hosts took up to 8 s of 26).
const HURRY_HALVES: u64 = 3;
/// A lease is not taken for slow before this time.
const HURRY_LEAST_US: u64 = 3_000_000;
/// With so many times the slots, what readers wait for does not wait for a slot: their nodes hold their other leases back.
const READERS_SLOTS: u32 = 4;
/// Leases that one member may have at once.
pub(super) const MOST_LEASES: u32 = 8;
/// A lease whose node comes and goes ends after so many times what it was given.
const MOST_EXTENSIONS: u64 = 4;
/// A network whose members let leases lapse is forgiven so long after the last one.
const LAPSE_MEMORY: Micros = Micros::from_secs(300);
/// Networks whose lapses are remembered; of further ones nothing is known.
const MAX_LAPSED: usize = 4096;

/// A lease under way.
#[derive(Clone, Copy, Debug)]
pub struct Active {
    /// Who fetches the run.
    pub to: Ix,
    /// Since when.
    pub since: Time,
    /// Missed when not done by then.
    pub deadline: Time,
    /// How long a deadline lasts.
    pub within: Micros,
    /// Deadlines missed; at two the lease ends.
    pub missed: u32,
    /// It is one of those that the origin has slots for; members with limited sources have theirs beside these.
    pub in_slot: bool,
}

/// What a member's share grows by with a lease, times its uplink in bytes per second.
const SHARE: u64 = 1 << 40;
/// Uplinks that are unknown or smaller count as this, in bytes per second.
const LEAST_UP: u64 = 1000;

/// Order in which members get leases: fewest under way, fewest that its network let lapse, reachable, least leased for its
/// uplink (with the next one).
type Turn = (u32, u32, Accepts, u64, Ix);

/// Leases that the members of a network did not bring in, less those that they did since; and when the last one ended.
/// Identities are cheap, networks are not: who takes leases and drops them under ever new names still waits for others.
#[derive(Clone, Copy, Debug)]
struct Lapses {
    count: u32,
    last: Time,
}

/// All that is known of runs and leases of one content.
#[derive(Clone, Debug)]
pub struct Leases {
    active: BTreeMap<u32, Active>,
    /// Members holding the complete run.
    replicas: Vec<u32>,
    /// Runs that nobody holds or fetches.
    unheld: BTreeSet<u32>,
    /// Runs whose last complete holder left: not leased before.
    not_before: BTreeMap<u32, Time>,
    /// Those of them that wait because they may turn up, not because the origin is to be spared.
    may_turn_up: BTreeSet<u32>,
    /// Members that may get leases, by region.
    waiting: BTreeMap<u64, BTreeSet<Turn>>,
    turns: BTreeMap<Ix, (u64, Turn)>,
    active_by_region: BTreeMap<u64, u32>,
    /// Leases under way that take slots.
    in_slots: u32,
    /// Runs that readers need next, and at whom: leased first.
    wanted: BTreeMap<u32, Ix>,
    /// Runs that were given to another node in a hurry, and how often.
    hurried: BTreeMap<u32, u32>,
    lapses: BTreeMap<Network, Lapses>,
    /// When the last of the leases was given that were done.
    done_since: Time,
    /// By region, the share of the last member that had a lease in its turn: where newcomers begin.
    shares: BTreeMap<u64, u64>,
    slots: u32,
    slots_min: u32,
    slots_max: u32,
    /// Smoothed duration of a lease in microseconds; `None` before one was done.
    duration_us: Option<u64>,
    /// Leases that were done.
    pub done: u64,
}

impl Leases {
    pub(super) fn new(runs: u32, slots_min: u32, slots_max: u32) -> Self {
        Self {
            active: BTreeMap::new(),
            replicas: vec![0; runs as usize],
            unheld: (0..runs).collect(),
            not_before: BTreeMap::new(),
            may_turn_up: BTreeSet::new(),
            waiting: BTreeMap::new(),
            turns: BTreeMap::new(),
            active_by_region: BTreeMap::new(),
            in_slots: 0,
            wanted: BTreeMap::new(),
            hurried: BTreeMap::new(),
            lapses: BTreeMap::new(),
            done_since: Time(0),
            shares: BTreeMap::new(),
            slots: slots_min,
            slots_min,
            slots_max,
            duration_us: None,
            done: 0,
        }
    }

    /// Leases under way.
    pub fn active(&self) -> &BTreeMap<u32, Active> {
        &self.active
    }
    /// Leases that may be under way at once.
    pub fn slots(&self) -> u32 {
        self.slots
    }
    /// Complete holders of `run`.
    pub fn replicas(&self, run: u32) -> u32 {
        self.replicas.get(run as usize).copied().unwrap_or(0)
    }
    /// Runs that no member holds and none fetches.
    pub fn unheld(&self) -> usize {
        self.unheld.len()
    }

    /// Members' holdings change: one more holder of `run`.
    pub(super) fn gained(&mut self, run: u32) {
        if let Some(n) = self.replicas.get_mut(run as usize) {
            *n += 1;
            self.unheld.remove(&run);
            self.wanted.remove(&run);
            self.not_before.remove(&run);
            self.may_turn_up.remove(&run);
        }
    }
    /// One holder less.
    pub(super) fn lost(&mut self, run: u32, again_at: Time) {
        let Some(n) = self.replicas.get_mut(run as usize) else { return };
        *n = n.saturating_sub(1);
        if *n == 0 && !self.active.contains_key(&run) {
            self.unheld.insert(run);
            self.not_before.insert(run, again_at);
            self.may_turn_up.insert(run);
        }
    }

    /// A newcomer's share: it does not make up for what was leased before it came.
    pub(super) fn newcomers(&self, region: u64) -> u64 {
        self.shares.get(&region).copied().unwrap_or(0)
    }

    /// Whether it may get a lease.
    pub(super) fn waits(&self, ix: Ix) -> bool {
        self.turns.contains_key(&ix)
    }

    /// Keeps the queue of members that may get a lease.
    pub(super) fn enqueue(&mut self, ix: Ix, member: &Member, may: bool) {
        if let Some((region, turn)) = self.turns.remove(&ix)
            && let Some(set) = self.waiting.get_mut(&region)
        {
            set.remove(&turn);
            if set.is_empty() {
                self.waiting.remove(&region);
            }
        }
        if may {
            let turn = self.turn(ix, member);
            self.waiting.entry(member.region).or_default().insert(turn);
            self.turns.insert(ix, (member.region, turn));
        }
    }

    fn turn(&self, ix: Ix, member: &Member) -> Turn {
        (member.leases, self.lapses_of(member), member.accepts(), member.leased + share(member), ix)
    }

    /// Whether others of its network did better or worse since the member was queued.
    pub(super) fn is_stale(&self, ix: Ix, member: &Member) -> bool {
        self.turns.get(&ix).is_some_and(|(_, turn)| turn.1 != self.lapses_of(member))
    }

    /// Leases that the member's network let lapse of late.
    pub(super) fn lapses_of(&self, member: &Member) -> u32 {
        self.lapses.get(&member.network).map_or(0, |l| l.count)
    }

    fn lapsed(&mut self, now: Time, network: Network) {
        if self.lapses.len() < MAX_LAPSED || self.lapses.contains_key(&network) {
            let l = self.lapses.entry(network).or_insert(Lapses { count: 0, last: Time(0) });
            // Those that end together count as one.
            *l = Lapses { count: l.count.saturating_add(u32::from(l.count == 0 || l.last != now)), last: now };
        }
    }

    /// Its network brought one in.
    fn forgive(&mut self, network: Network) {
        if let Some(l) = self.lapses.get_mut(&network) {
            l.count -= 1;
            if l.count == 0 {
                self.lapses.remove(&network);
            }
        }
    }

    /// Who gets the next lease of a run that nobody holds: the region with the fewest under way, there the next in turn.
    pub(super) fn next(&self, now: Time) -> Option<(Ix, u32)> {
        let free = |run: u32| self.unheld.contains(&run) && self.is_due(now, run);
        if self.in_slots < self.slots.saturating_mul(READERS_SLOTS)
            && let Some((run, ix)) = self.wanted.iter().find(|(run, ix)| free(**run) && self.turns.contains_key(ix))
        {
            return Some((*ix, *run));
        }
        if !self.has_slot() {
            return None;
        }
        // Before one was done, others may be about to join: what the first one alone has would reach them late.
        let most = if self.duration_us.is_none() { 1 } else { MOST_LEASES };
        let per_member = (self.slots / (self.turns.len() as u32).max(1)).clamp(1, most);
        let run = self.next_unheld(now)?;
        self.waiting
            .iter()
            .filter_map(|(region, set)| {
                let turn = set.first().filter(|t| t.0 < per_member)?;
                Some((self.active_by_region.get(region).copied().unwrap_or(0), *turn))
            })
            .min()
            .map(|(_, turn)| (turn.4, run))
    }

    /// The first run that nobody holds or fetches and that may be leased.
    pub(super) fn next_unheld(&self, now: Time) -> Option<u32> {
        self.unheld.iter().copied().find(|run| self.is_due(now, *run))
    }

    fn is_due(&self, now: Time, run: u32) -> bool {
        self.not_before.get(&run).is_none_or(|t| *t <= now)
    }

    /// A reader at `ix` needs a run next that nobody has. Those whose network let leases lapse wait their turn.
    pub(super) fn want(&mut self, run: u32, ix: Ix, member: &Member) {
        if self.unheld.contains(&run) && self.lapses_of(member) == 0 {
            self.wanted.insert(run, ix);
        }
    }

    /// A member at `ix` waits for a run whose holders went away and may come back: it is worth another copy.
    pub(super) fn want_lost(&mut self, run: u32, ix: Ix, member: &Member) {
        if self.may_turn_up.remove(&run) {
            self.not_before.remove(&run);
            self.want(run, ix, member);
        }
    }

    /// Whether the origin takes one more.
    pub(super) fn has_slot(&self) -> bool {
        self.in_slots < self.slots
    }

    /// Whether a starving member may be helped now, although others hold the run: the slots that are open to it are halved
    /// by each lease that its network let lapse, so that those who ask and do not fetch leave some to others.
    pub(super) fn has_slot_for(&self, starving: &Member) -> bool {
        let open = self.slots.checked_shr(self.lapses_of(starving)).unwrap_or(0);
        self.in_slots < open && starving.leases < MOST_LEASES
    }

    /// The lease of `run` goes to a member that starves for it, when it takes too long and nobody else holds the run: who
    /// has it, to be revoked. Each time it is waited for twice as long, and not for those that let more lapse themselves.
    pub(super) fn taken_over(&mut self, now: Time, run: u32, starving: &Member, fetcher: &Member) -> bool {
        let Some(a) = self.active.get(&run) else { return false };
        let times = self.hurried.get(&run).copied().unwrap_or(0);
        let patience = self.patience().checked_shl(times).unwrap_or(u64::MAX);
        let fair = self.lapses_of(starving) <= self.lapses_of(fetcher) && starving.leases < MOST_LEASES;
        if self.replicas(run) > 0 || !fair || now.since(a.since).0 <= patience {
            return false;
        }
        self.hurried.insert(run, times + 1);
        true
    }

    /// What a lease may take while others wait for it, in microseconds.
    fn patience(&self) -> u64 {
        (self.duration_us.unwrap_or(FIRST_LEASE_US) / 2 * HURRY_HALVES).max(HURRY_LEAST_US)
    }

    /// Gives `run` to `ix`; returns how long it has. One with limited sources takes no slot: it must fetch all that it
    /// gets from the origin anyway, and others get it from there.
    pub(super) fn give(&mut self, now: Time, ix: Ix, member: &mut Member, run: u32) -> Micros {
        let in_slot = !member.limited();
        self.in_slots += u32::from(in_slot);
        let within = Micros((self.duration_us.unwrap_or(FIRST_LEASE_US) * 4).clamp(3_000_000, 60_000_000));
        member.leases += 1;
        if self.waiting.get(&member.region).and_then(BTreeSet::first).is_some_and(|turn| turn.4 == ix) {
            self.shares.insert(member.region, member.leased);
        }
        member.leased += share(member);
        self.unheld.remove(&run);
        self.wanted.remove(&run);
        *self.active_by_region.entry(member.region).or_default() += 1;
        self.active.insert(run, Active { to: ix, since: now, deadline: now + within, within, missed: 0, in_slot });
        within
    }

    /// A lease that a returning node works on: kept unless others hold or fetch the run. Whether it is its lease now.
    pub(super) fn adopt(&mut self, now: Time, ix: Ix, member: &mut Member, run: u32) -> bool {
        let free = run < self.replicas.len() as u32 && self.replicas(run) == 0 && !self.active.contains_key(&run);
        if free && self.in_slots < self.slots_max.checked_shr(self.lapses_of(member)).unwrap_or(0) {
            self.give(now, ix, member, run);
        }
        let Some(a) = self.active.get_mut(&run).filter(|a| a.to == ix) else { return false };
        a.deadline = (now + a.within).min(a.since + a.within.times(MOST_EXTENSIONS));
        true
    }

    /// The node of these leases is not heard. It may fetch all the same: they end at `until`, unless it comes back.
    pub(super) fn doubt(&mut self, ix: Ix, until: Time) {
        for a in self.active.values_mut().filter(|a| a.to == ix) {
            a.missed = 1;
            a.deadline = a.deadline.min(until);
        }
    }

    /// Ends the lease of `run` if `ix` has it; `done` when the run arrived.
    pub(super) fn end(&mut self, now: Time, ix: Ix, member: &mut Member, run: u32, done: bool) -> bool {
        if self.active.get(&run).is_none_or(|a| a.to != ix) {
            return false;
        }
        let Some(a) = self.active.remove(&run) else { return false };
        member.leases = member.leases.saturating_sub(1);
        self.in_slots -= u32::from(a.in_slot);
        if let Some(n) = self.active_by_region.get_mut(&member.region) {
            *n -= 1;
            if *n == 0 {
                self.active_by_region.remove(&member.region);
            }
        }
        self.done += u64::from(done);
        if done {
            self.done_since = self.done_since.max(a.since);
            self.forgive(member.network);
        } else {
            self.lapsed(now, member.network);
        }
        // Where later ones were done meanwhile the origin is not to blame for one that lapsed.
        if done || self.done_since <= a.since {
            self.learn(now.since(a.since).0, done);
        }
        if !done && self.replicas(run) == 0 {
            self.unheld.insert(run);
        }
        true
    }

    /// A lease took so long, or was not done by then.
    fn learn(&mut self, took_us: u64, done: bool) {
        if !done && self.duration_us.is_none_or(|usual| took_us < usual) {
            return;
        }
        let before = self.duration_us.unwrap_or(took_us);
        let smoothed = (before * 7 + took_us) / 8;
        self.duration_us = Some(smoothed);
        // A child's downlink is shared with its parents, so that few leases leave the origin idle: more at once until
        // each takes seconds, fewer where they crowd a slow origin or line. What began before the last change is not
        // taken for its effect: this lease and those before it must agree.
        if done && smoothed.max(took_us) < SHORT_LEASE_US {
            self.slots = (self.slots + 1).min(self.slots_max);
        } else if smoothed.min(took_us) > LONG_LEASE_US {
            self.slots = (self.slots - 1).max(self.slots_min);
        }
    }

    /// A run that nobody holds is not leased before `until`.
    pub(super) fn postpone(&mut self, run: u32, until: Time) {
        if self.unheld.contains(&run) {
            self.not_before.insert(run, until);
            self.may_turn_up.remove(&run);
        }
    }

    /// Leases of `ix`.
    pub(super) fn of(&self, ix: Ix) -> Vec<u32> {
        self.active.iter().filter(|(_, a)| a.to == ix).map(|(r, _)| *r).collect()
    }

    /// Leases past a deadline: those with one miss get as long again, the others are returned, to be revoked.
    pub(super) fn overdue(&mut self, now: Time) -> Vec<(u32, Ix)> {
        let mut over = Vec::new();
        for (run, a) in self.active.iter_mut().filter(|(_, a)| a.deadline <= now) {
            a.missed += 1;
            a.deadline = now + a.within;
            if a.missed >= 2 {
                over.push((*run, a.to));
            }
        }
        over
    }

    /// Leases that all wait for, and which other node should rather have them.
    pub(super) fn crawling(&mut self, now: Time) -> Vec<(u32, Ix, Ix)> {
        if self.duration_us.is_none() || !self.unheld.is_empty() {
            return Vec::new();
        }
        let patience = self.patience();
        let slow = self.active.iter().filter(|(run, a)| {
            let crawls = a.in_slot && a.missed == 0 && now.since(a.since).0 > patience;
            crawls && self.replicas(**run) == 0 && !self.hurried.contains_key(*run)
        });
        let other = |than: Ix| self.waiting.values().filter_map(|set| set.iter().find(|turn| turn.4 != than)).min();
        let slow: Vec<_> = slow.filter_map(|(run, a)| Some((*run, a.to, other(a.to)?.4))).collect();
        self.hurried.extend(slow.iter().map(|(run, ..)| (*run, 1)));
        slow
    }

    /// Runs that waited long enough for a holder to turn up.
    pub(super) fn wake(&mut self, now: Time) {
        self.lapses.retain(|_, l| now.since(l.last) < LAPSE_MEMORY);
        self.not_before.retain(|_, until| *until > now);
        self.may_turn_up.retain(|run| self.not_before.contains_key(run));
    }

    /// When something here falls due.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        let deadline = self.active.values().map(|a| a.deadline).min();
        let again = if self.has_slot() { self.not_before.values().min().copied() } else { None };
        [deadline, again].into_iter().flatten().min()
    }

    /// Violated invariants, against what the members say.
    pub(super) fn check(&self, members: &[Option<Member>], say: &mut impl FnMut(String)) {
        for (run, n) in self.replicas.iter().enumerate() {
            let held = members.iter().flatten().filter(|m| m.counts() && m.runs.get(run as u32)).count() as u32;
            if held != *n {
                say(format!("run {run}: {n} replicas counted, {held} held"));
            }
            let free = *n == 0 && !self.active.contains_key(&(run as u32));
            if free != self.unheld.contains(&(run as u32)) {
                say(format!("run {run}: nobody holds or fetches it is {free}, but listed so is {}", !free));
            }
        }
        for (run, a) in &self.active {
            if members.get(a.to as usize).is_none_or(Option::is_none) {
                say(format!("run {run} is leased to a node that left"));
            }
        }
        for (ix, m) in members.iter().enumerate() {
            let n = self.active.values().filter(|a| a.to == ix as u32).count() as u32;
            if let Some(m) = m.as_ref().filter(|m| m.leases != n) {
                say(format!("{:?} counts {} leases but has {n}", m.info.node, m.leases));
            }
        }
        let in_slots = self.active.values().filter(|a| a.in_slot).count() as u32;
        if in_slots != self.in_slots {
            say(format!("{in_slots} leases take slots, {} are counted", self.in_slots));
        }
        if in_slots > self.slots_max + 1 {
            say(format!("{in_slots} leases under way, at most {} may be", self.slots_max));
        }
    }
}

/// What one lease adds to the member's share: each piece that it brings in it has to send once at least.
fn share(member: &Member) -> u64 {
    SHARE / member.info.up.0.max(LEAST_UP)
}

/// Differences between two bitmaps: what came and what went.
pub(super) fn difference(old: &Bits, new: &Bits) -> (Vec<u32>, Vec<u32>) {
    let (mut came, mut went) = (Vec::new(), Vec::new());
    for (w, (a, b)) in old.words().iter().zip(new.words()).enumerate() {
        let mut changed = a ^ b;
        while changed != 0 {
            let i = w as u32 * 64 + changed.trailing_zeros();
            if new.get(i) {
                came.push(i)
            } else {
                went.push(i)
            }
            changed &= changed - 1;
        }
    }
    (came, went)
}
