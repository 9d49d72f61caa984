//! Runs that the control center leased, from the origin or from a waypoint by HTTPS, and runs fetched alone from the
//! origin while it is away (idea 10: the last resort).

use crate::swarm::{Output, Swarm};
use headwater_model::assignment::LeaseSource;
use headwater_model::id::NodeId;
use headwater_model::report::EdgeReport;
use headwater_model::rng::mix64;
use headwater_model::time::{Micros, Time};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

/// A session that broke is usually back by then, and the parents bring on what they have meanwhile.
const RECONNECTING: Micros = Micros::from_secs(3);

/// When fetches were held back for readers so long, all in all, one of them at a time goes on beside what these wait for: so
/// that their leases end, too.
const HOLD_MOST: Micros = Micros::from_secs(2);
/// It goes on when no reader has waited for so long: one that reads as fast as pieces come waits for each of them.
const HOLD_AFTER: Micros = Micros::from_millis(300);

/// A run being fetched.
#[derive(Clone, Debug)]
struct Fetch {
    /// Leased, else fetched alone.
    by_control: bool,
    /// Pieces that the origin was asked for, in that order; others of the run were to come from parents.
    pieces: Vec<Range<u32>>,
    source: LeaseSource,
    /// Stopped for what a reader waits for, since then.
    held: Option<Time>,
    /// How long it was before.
    held_for: Micros,
}

impl Fetch {
    fn may_be_held(&self, now: Time) -> bool {
        self.held_for.0 + self.held.map_or(0, |since| now.since(since).0) < HOLD_MOST.0
    }
}

/// Why a run did not come.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) why: String,
    /// The origin's file changed.
    pub(crate) changed: bool,
    /// This node's own access list forbids the source.
    pub(crate) forbidden: bool,
}

/// What came from a waypoint by HTTPS.
#[derive(Clone, Copy, Debug, Default)]
struct ByHttps {
    pieces: u64,
    bytes: u64,
    /// Bytes when it was last reported.
    reported: u64,
}

/// Runs being fetched from the origin.
#[derive(Clone, Debug, Default)]
pub(crate) struct OriginWork {
    runs: BTreeMap<u32, Fetch>,
    pub(crate) bytes: u64,
    waypoints: BTreeMap<NodeId, ByHttps>,
    /// When this node may begin to fetch without a lease.
    alone_at: Option<Time>,
    /// When a reader last waited for what is fetched here.
    awaited_at: Option<Time>,
}

impl OriginWork {
    pub(crate) fn busy(&self) -> bool {
        !self.runs.is_empty()
    }
    /// Runs under way, also those fetched alone: the control center decides about them from now on.
    pub(crate) fn under_way(&self) -> impl Iterator<Item = u32> {
        self.runs.keys().copied()
    }
    pub(crate) fn of_waypoint(&mut self, waypoint: NodeId, bytes: u64) {
        let came = self.waypoints.entry(waypoint).or_default();
        came.pieces += 1;
        came.bytes += bytes;
    }
    /// What came from waypoints, as the reports of edges tell it; only what changed, as an edge with the same waypoint
    /// may exist at another time.
    pub(crate) fn waypoint_reports(&mut self) -> Vec<EdgeReport> {
        let changed = self.waypoints.iter_mut().filter(|(_, w)| w.bytes != w.reported);
        changed
            .map(|(node, w)| {
                w.reported = w.bytes;
                EdgeReport {
                    node: *node,
                    pieces: w.pieces,
                    bytes: w.bytes,
                    waited: Micros(0),
                    rtt: Micros(0),
                    sent_packets: 0,
                    lost_packets: 0,
                    offers_nothing: false,
                    last_pieces: Vec::new(),
                }
            })
            .collect()
    }
    /// Whether `run` is fetched by this node, or soon will be.
    pub(crate) fn has_lease(&self, run: u32) -> bool {
        self.runs.contains_key(&run)
    }
    /// Whether the origin was asked for `piece` of `run`.
    pub(crate) fn fetches(&self, run: u32, piece: u32) -> bool {
        self.runs.get(&run).is_some_and(|f| f.pieces.iter().any(|range| range.contains(&piece)))
    }
}

impl Swarm {
    pub(crate) fn leased(&mut self, now: Time, run: u32, by_control: bool, source: LeaseSource, out: &mut Vec<Output>) {
        if run >= self.layout.runs() || self.origin.runs.contains_key(&run) || self.paused {
            return;
        }
        if self.runs.get(run) {
            out.push(Output::LeaseDone(run));
            return;
        }
        let fetch = Fetch { by_control, pieces: Vec::new(), source, held: None, held_for: Micros(0) };
        self.origin.runs.insert(run, fetch);
        self.fetch_rest(run, out);
        self.yield_to_readers(now, out);
    }

    /// What a reader waits for comes alone, and first of its run: what else this node fetches is held back meanwhile, as it
    /// would share the same line.
    pub(crate) fn yield_to_readers(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.origin.runs.is_empty() {
            return;
        }
        let fetched = |piece: &u32| {
            let fetch = self.origin.runs.get(&self.layout.run_of(*piece));
            fetch.is_some_and(|f| f.held.is_some() || f.pieces.iter().any(|range| range.contains(piece)))
        };
        let awaited = self.awaited_by_readers().filter(fetched);
        let awaited: BTreeMap<u32, u32> = awaited.map(|piece| (self.layout.run_of(piece), piece)).collect();
        if !awaited.is_empty() {
            self.origin.awaited_at = Some(now);
        }
        let Some(at) = self.origin.awaited_at else { return };
        let over = now.since(at) >= HOLD_AFTER;
        if over {
            self.origin.awaited_at = None;
        }
        let others = self.origin.runs.iter().filter(|(run, f)| !awaited.contains_key(run) && !f.may_be_held(now));
        let beside = others.max_by_key(|(_, f)| (f.held.is_none(), Reverse(f.held))).map(|(run, _)| *run);
        let runs: Vec<u32> = self.origin.runs.keys().copied().collect();
        for run in runs {
            match awaited.get(&run) {
                Some(piece) => {
                    self.go_on(now, run, out);
                    self.fetch_first(run, *piece, out);
                }
                None if over || beside == Some(run) => self.go_on(now, run, out),
                None if awaited.is_empty() => {}
                None => self.hold(now, run, out),
            }
        }
    }

    /// Fetches `run` from `piece` on, unless that comes next anyway.
    fn fetch_first(&mut self, run: u32, piece: u32, out: &mut Vec<Output>) {
        let Some(fetch) = self.origin.runs.get_mut(&run) else { return };
        let before = fetch.pieces.iter().cloned().flatten().take_while(|p| *p != piece);
        if before.filter(|p| !self.have.get(*p)).count() > 1 {
            fetch.pieces.clear();
            self.release(run);
            out.push(Output::StopOrigin(run));
            self.fetch_rest(run, out);
        }
    }

    fn hold(&mut self, now: Time, run: u32, out: &mut Vec<Output>) {
        let Some(fetch) = self.origin.runs.get_mut(&run) else { return };
        let rest = fetch.pieces.iter().cloned().flatten().any(|p| !self.have.get(p));
        if fetch.held.is_none() && rest {
            fetch.held = Some(now);
            fetch.pieces.clear();
            self.release(run);
            out.push(Output::StopOrigin(run));
        }
    }

    fn go_on(&mut self, now: Time, run: u32, out: &mut Vec<Output>) {
        let Some(fetch) = self.origin.runs.get_mut(&run) else { return };
        if let Some(since) = fetch.held.take() {
            fetch.held_for = Micros(fetch.held_for.0 + now.since(since).0);
            self.fetch_rest(run, out);
        }
    }

    /// Asks the origin for the pieces of a run that nobody was asked for; the others are on their way from parents.
    fn fetch_rest(&mut self, run: u32, out: &mut Vec<Output>) {
        // Without their hashes pieces could not be kept.
        if !self.may_fetch() {
            return;
        }
        let pieces = self.unclaimed_of(run);
        for piece in pieces.iter().cloned().flatten() {
            self.claimed.set(piece);
        }
        if let Some(fetch) = self.origin.runs.get_mut(&run).filter(|_| !pieces.is_empty()) {
            fetch.pieces.clone_from(&pieces);
            out.push(Output::FetchOrigin { run, source: fetch.source.clone(), pieces });
        }
    }

    /// Runs of which the origin gave all it was asked for, but parents did not give the rest.
    pub(crate) fn watch_origin(&mut self, out: &mut Vec<Output>) {
        let have = &self.have;
        let answered = |f: &Fetch| f.held.is_none() && f.pieces.iter().cloned().flatten().all(|p| have.get(p));
        let runs: Vec<u32> = self.origin.runs.iter().filter(|(_, f)| answered(f)).map(|(run, _)| *run).collect();
        for run in runs {
            self.fetch_rest(run, out);
        }
    }

    /// In the order of fetching: from what a reader needs first on, then what is before it.
    fn unclaimed_of(&self, run: u32) -> Vec<Range<u32>> {
        let all = self.layout.pieces_of_run(run);
        let first = self.needed().find(|p| all.contains(p) && !self.claimed.get(*p)).unwrap_or(all.start);
        let mut ranges: Vec<Range<u32>> = Vec::new();
        for piece in (first..all.end).chain(all.start..first).filter(|p| !self.claimed.get(*p)) {
            match ranges.last_mut() {
                Some(last) if last.end == piece => last.end += 1,
                _ => ranges.push(piece..piece + 1),
            }
        }
        ranges
    }

    pub(crate) fn run_complete(&mut self, run: u32, out: &mut Vec<Output>) {
        if self.origin.runs.remove(&run).is_some_and(|f| f.by_control) {
            out.push(Output::LeaseDone(run));
        }
    }

    pub(crate) fn lease_revoked(&mut self, run: u32, out: &mut Vec<Output>) {
        if self.origin.runs.remove(&run).is_some() {
            self.release(run);
            out.push(Output::StopOrigin(run));
        }
    }

    /// Pieces that it was asked for came and were not right: the origin's file is another one. What was to come from
    /// parents, and did not, is asked for in [`Swarm::watch_origin`].
    pub(crate) fn origin_done(&mut self, now: Time, run: u32, out: &mut Vec<Output>) {
        let have = &self.have;
        let is_wrong = |f: &&Fetch| f.pieces.iter().cloned().flatten().any(|p| !have.get(p));
        let Some(fetch) = self.origin.runs.get(&run).filter(is_wrong) else { return };
        let (why, changed) = match fetch.source {
            LeaseSource::Origin => ("what the origin sends is not what was published: its file was changed", true),
            LeaseSource::Waypoint { .. } => ("what the waypoint sends is not what was published", false),
        };
        self.origin_failed(now, run, Failure { why: why.to_owned(), changed, forbidden: false }, out);
    }

    pub(crate) fn origin_failed(&mut self, now: Time, run: u32, failure: Failure, out: &mut Vec<Output>) {
        let Some(fetch) = self.origin.runs.remove(&run) else { return };
        self.release(run);
        if fetch.by_control {
            let Failure { why, changed, forbidden } = failure;
            out.push(Output::LeaseFailed { run, why, changed, forbidden });
        } else {
            self.wait_alone(now);
        }
    }

    /// What was to come from the origin may be asked of parents again.
    fn release(&mut self, run: u32) {
        for piece in self.layout.pieces_of_run(run) {
            if !self.is_awaited(piece) {
                self.claimed.clear(piece);
            }
        }
    }

    /// The control center is back: it says who fetches what. What is under way is told when this node joins again, as if
    /// it had been leased: it is revoked where others fetch it, and what has come of it is not thrown away elsewhere.
    pub(crate) fn not_alone(&mut self) {
        self.origin.runs.values_mut().for_each(|fetch| fetch.by_control = true);
        self.origin.alone_at = None;
    }

    /// Whether this node, of all that are connected here, is the one to fetch `run`: the highest hash of run and node
    /// (rendezvous hashing), so that neighbours agree without a word.
    fn is_due_to_fetch(&self, run: u32) -> bool {
        let rank = |node: &NodeId| mix64(node.prefix64() ^ mix64(u64::from(run) + 1));
        let parents = self.parents.iter().filter(|(_, p)| p.is_open()).map(|(node, _)| node);
        parents.chain(self.children.keys()).all(|other| rank(other) <= rank(&self.own))
    }

    fn wait_alone(&mut self, now: Time) {
        let wait = self.rng.below(self.config.alone.0.max(1));
        self.origin.alone_at = Some(Time(now.0 + 500_000 + wait));
    }

    /// Without control center and without anything to ask of a parent: runs from the origin after a random time. First
    /// those that no neighbour should fetch rather than this node, then in random order: so that the many who are alone do
    /// not fetch the same.
    pub(crate) fn go_alone(&mut self, now: Time, out: &mut Vec<Output>) {
        let idle = self.parents.values().all(|p| p.asked().is_empty());
        let just_lost = now.since(self.control_lost_at) < RECONNECTING && !self.parents.is_empty();
        if self.control || just_lost || !idle || !self.may_use_origin || !self.may_fetch() {
            self.origin.alone_at = None;
            return;
        }
        match self.origin.alone_at {
            None => self.wait_alone(now),
            Some(at) if at <= now => {
                for run in self.needed_runs() {
                    if self.origin.runs.len() < self.config.alone_runs {
                        self.leased(now, run, false, LeaseSource::Origin, out);
                    }
                }
                while self.origin.runs.len() < self.config.alone_runs {
                    let (all, first) =
                        (self.layout.runs(), self.rng.below(u64::from(self.layout.runs().max(1))) as u32);
                    let missing = || {
                        let runs = (0..all).map(|i| (first + i) % all);
                        runs.filter(|r| !self.runs.get(*r) && !self.origin.runs.contains_key(r))
                    };
                    let Some(run) = missing().find(|r| self.is_due_to_fetch(*r)).or_else(|| missing().next()) else {
                        return;
                    };
                    self.leased(now, run, false, LeaseSource::Origin, out);
                }
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
#[path = "origin_tests.rs"]
mod tests;
