//! Readers of a content while it arrives (D2, D3): what they need next comes before what is rare.

use crate::swarm::{Output, Swarm};
use headwater_model::id::NodeId;
use headwater_model::report::{Alarm, MAX_READING_RUNS};
use headwater_model::time::{Micros, Time};
use std::collections::BTreeMap;
use std::ops::Range;

/// So many bytes from a reader's position on come first.
const WINDOW_BYTES: u64 = 4 << 20;
/// Readers that are heeded; further ones wait for what comes.
const MAX_READERS: usize = 64;
/// The same runs that nobody near has are told of again after this time.
const TELL_AGAIN: Micros = Micros::from_secs(2);
/// Other ones after this time.
const TELL_OTHERS: Micros = Micros::from_millis(250);
/// One that a reader waits for at this moment after this time.
const TELL_AWAITED: Micros = Micros::from_millis(20);

/// Who reads, and how far they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readers {
    /// What each of them is still to read.
    ahead: BTreeMap<u64, Range<u32>>,
    /// Runs that the control center was told of last, and when.
    told: Option<(Time, Vec<u32>)>,
}

impl Swarm {
    pub(crate) fn reads(&mut self, now: Time, reader: u64, pieces: Range<u32>, out: &mut Vec<Output>) {
        let pieces = pieces.start..pieces.end.min(self.layout.pieces());
        let known = self.readers.ahead.contains_key(&reader);
        if pieces.is_empty() || self.is_complete() {
            return self.reader_left(reader);
        }
        if known || self.readers.ahead.len() < MAX_READERS {
            self.readers.ahead.insert(reader, pieces);
            self.yield_to_readers(now, out);
            self.make_way(now, out);
            self.ask_everyone(now, out);
            self.watch_readers(now, out);
        }
    }

    pub(crate) fn reader_left(&mut self, reader: u64) {
        self.readers.ahead.remove(&reader);
    }

    /// Pieces that are not here and that readers are at: these wait.
    pub(crate) fn awaited_by_readers(&self) -> impl Iterator<Item = u32> {
        self.readers.ahead.values().map(|a| a.start).filter(|piece| !self.have.get(*piece))
    }

    /// Whether anybody reads.
    pub(crate) fn is_read(&self) -> bool {
        !self.readers.ahead.is_empty()
    }

    /// Pieces that readers need soon: the next one of each, then the one after it of each, and so on, so that a reader far
    /// ahead does not take what another waits for.
    pub(crate) fn needed(&self) -> impl Iterator<Item = u32> {
        let window = (WINDOW_BYTES / u64::from(self.layout.piece_bytes().max(1))).max(2) as u32;
        let of_each = move |i| self.readers.ahead.values().map(move |a| a.start.saturating_add(i)..a.end);
        (0..window).flat_map(of_each).filter_map(|mut rest| rest.next())
    }

    /// At most `want` pieces that readers need soon, in that order, that `parent` has and nobody was asked for.
    pub(crate) fn needed_of(&self, parent: &NodeId, want: usize) -> Vec<u32> {
        let Some(p) = self.parents.get(parent) else { return Vec::new() };
        let free = |piece: &u32| p.has().get(*piece) && !self.claimed.get(*piece);
        let mut needed: Vec<u32> = Vec::with_capacity(want);
        for piece in self.needed().filter(free) {
            if needed.len() == want {
                break;
            }
            if !needed.contains(&piece) {
                needed.push(piece);
            }
        }
        needed
    }

    /// Runs that readers need soon and of which something is on its way from nobody, in their order.
    pub(crate) fn needed_runs(&self) -> Vec<u32> {
        let nobody = |piece: &u32| {
            !self.claimed.get(*piece)
                && self.holders.get(*piece as usize).is_none_or(|holders| *holders == 0)
                && !self.origin.has_lease(self.layout.run_of(*piece))
        };
        let mut runs: Vec<u32> = Vec::new();
        for run in self.needed().filter(nobody).map(|piece| self.layout.run_of(piece)) {
            if !runs.contains(&run) {
                runs.push(run);
            }
            if runs.len() == MAX_READING_RUNS {
                break;
            }
        }
        runs
    }

    /// The control center is told which runs readers wait for that no parent has.
    pub(crate) fn watch_readers(&mut self, now: Time, out: &mut Vec<Output>) {
        if !self.is_read() || !self.control || !self.may_fetch() {
            return;
        }
        let runs = self.needed_runs();
        let awaited: Vec<u32> = self.awaited_by_readers().map(|piece| self.layout.run_of(piece)).collect();
        let too_soon = self.readers.told.as_ref().is_some_and(|(at, told)| {
            let awaited_anew = runs.iter().any(|run| awaited.contains(run) && !told.contains(run));
            let others = if awaited_anew { TELL_AWAITED } else { TELL_OTHERS };
            now.since(*at) < if *told == runs { TELL_AGAIN } else { others }
        });
        if !runs.is_empty() && !too_soon {
            self.readers.told = Some((now, runs.clone()));
            out.push(Output::Alarm(Alarm::Reading { runs }));
        }
    }
}

#[cfg(test)]
#[path = "readers_tests.rs"]
mod tests;
