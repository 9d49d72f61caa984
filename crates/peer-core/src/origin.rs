//! Runs that the control center leased, from the origin or from a waypoint by HTTPS, and runs fetched alone from the
//! origin while it is away (idea 10: the last resort).

use crate::swarm::{Output, Swarm};
use headwater_model::assignment::LeaseSource;
use headwater_model::id::NodeId;
use headwater_model::report::EdgeReport;
use headwater_model::rng::mix64;
use headwater_model::time::{Micros, Time};
use std::collections::BTreeMap;
use std::ops::Range;

/// A session that broke is usually back by then, and the parents bring on what they have meanwhile.
const RECONNECTING: Micros = Micros::from_secs(3);

/// A run being fetched.
#[derive(Clone, Debug)]
struct Fetch {
    /// Leased, else fetched alone.
    by_control: bool,
    /// Pieces that the origin was asked for; others of the run were to come from parents.
    pieces: Vec<Range<u32>>,
    source: LeaseSource,
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
                }
            })
            .collect()
    }
    /// Whether the origin was asked for `piece` of `run`.
    pub(crate) fn fetches(&self, run: u32, piece: u32) -> bool {
        self.runs.get(&run).is_some_and(|f| f.pieces.iter().any(|range| range.contains(&piece)))
    }
}

impl Swarm {
    pub(crate) fn leased(&mut self, run: u32, by_control: bool, source: LeaseSource, out: &mut Vec<Output>) {
        if run >= self.layout.runs() || self.origin.runs.contains_key(&run) || self.paused {
            return;
        }
        if self.runs.get(run) {
            out.push(Output::LeaseDone(run));
            return;
        }
        self.origin.runs.insert(run, Fetch { by_control, pieces: Vec::new(), source });
        self.fetch_rest(run, out);
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
        let answered = |f: &Fetch| f.pieces.iter().cloned().flatten().all(|p| have.get(p));
        let runs: Vec<u32> = self.origin.runs.iter().filter(|(_, f)| answered(f)).map(|(run, _)| *run).collect();
        for run in runs {
            self.fetch_rest(run, out);
        }
    }

    fn unclaimed_of(&self, run: u32) -> Vec<Range<u32>> {
        let mut ranges: Vec<Range<u32>> = Vec::new();
        for piece in self.layout.pieces_of_run(run).filter(|p| !self.claimed.get(*p)) {
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
                        self.leased(run, false, LeaseSource::Origin, out);
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
                    self.leased(run, false, LeaseSource::Origin, out);
                }
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
#[path = "origin_tests.rs"]
mod tests;
