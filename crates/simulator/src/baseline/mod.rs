//! What others would do with the same peers over the same network: small control centers in Headwater's place, so that each
//! figure stands beside what there was before.
//!
//! The peers' cores, links and players are the very same; only who decides is replaced. A baseline takes the control center's
//! inputs and gives its outputs, with a part of its decisions: nobody's uplink is managed, nobody is replaced by what a
//! monitor finds, nothing is explained.

mod feeds;
mod live;
mod peers;
mod seed;
#[cfg(test)]
mod tests;
mod tracker;

use crate::scenario::{LiveModel, Scenario, ScenarioError};
use headwater_center_core::content_directory::Kind;
use headwater_center_core::dcm::{Dcm, Problem};
use headwater_center_core::trees::TreesStats;
use headwater_center_core::{Center, Config, Input, Output, Totals};
use headwater_model::id::{ContentId, NodeId};
use headwater_model::time::Time;
use live::LiveControl;
use std::fmt;
use std::str::FromStr;
use tracker::FileTracker;

/// Who decides in Headwater's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// Nobody serves others: everybody has everything from the origin, or from the source of a stream.
    ClientServer,
    /// A tracker names 20 members at random to whoever joins, so that each has some 40 neighbours. Files are fetched rarest
    /// first of all of them, and the origin is a seed with 8 slots. Of a stream each has 40 partners, and each substream
    /// of any of them that has a slot left (Coolstreaming; Li et al. 2008).
    Random,
    /// The same, with half of those who are named from the newcomer's own ISP.
    Locality,
    /// For streams: a tree per substream, in one of which a node is interior (SplitStream; Castro et al. 2003). Places are
    /// taken at random when a node joins; who loses its parent takes another such place after 4 s.
    Forest,
}

impl Baseline {
    /// All of them.
    pub const ALL: [Baseline; 4] = [Baseline::ClientServer, Baseline::Random, Baseline::Locality, Baseline::Forest];

    /// As it is named on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Baseline::ClientServer => "client-server",
            Baseline::Random => "random",
            Baseline::Locality => "locality",
            Baseline::Forest => "forest",
        }
    }

    /// Whether it has a meaning for a scenario.
    pub(crate) fn check(self, scenario: &Scenario) -> Result<(), ScenarioError> {
        let no = |why: &str| {
            Err(ScenarioError::Contradiction(format!("the baseline {} has no meaning here: {why}", self.name())))
        };
        if self == Baseline::Forest && scenario.live.is_none() {
            return no("a forest is for streams, and the scenario is of files");
        }
        if scenario.live.as_ref().is_some_and(|live| live.model == LiveModel::Flow) {
            return no("viewers that are flows are for the real control center only");
        }
        let hosts = scenario.hosts(1);
        let near = hosts.first().map(|h| &h.place.isp);
        if self == Baseline::Locality && hosts.iter().all(|h| Some(&h.place.isp) == near) {
            return no("all hosts are in one ISP, or none is in any");
        }
        if !scenario.also.is_empty() || scenario.faults.iter().any(|f| f.kind.is_of_contents()) {
            return no("it knows one content in one version");
        }
        Ok(())
    }
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Baseline {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Baseline::ALL.map(Baseline::name).join(", ");
        Baseline::ALL.into_iter().find(|b| b.name() == text).ok_or_else(|| format!("one of {}", known()))
    }
}

/// Who decides in a world.
#[derive(Debug)]
pub(crate) enum Decider {
    /// Headwater.
    Center(Box<Center>),
    /// A baseline, for a file.
    File(Box<FileTracker>),
    /// A baseline, for a stream.
    Live(Box<LiveControl>),
}

impl Decider {
    pub(crate) fn for_file(now: Time, baseline: Option<Baseline>, epoch: u64, restarted: bool, seed: u64) -> Decider {
        match baseline {
            None => Decider::Center(Box::new(Center::new(now, Config::default(), epoch, restarted))),
            Some(kind) => Decider::File(Box::new(FileTracker::new(kind, epoch, seed))),
        }
    }

    pub(crate) fn for_live(baseline: Option<Baseline>, seed: u64) -> Decider {
        match baseline {
            None => Decider::Center(Box::new(Center::new(Time(0), Config::default(), 1, false))),
            Some(kind) => Decider::Live(Box::new(LiveControl::new(kind, seed))),
        }
    }

    pub(crate) fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        match self {
            Decider::Center(center) => center.handle(now, input, out),
            Decider::File(tracker) => tracker.handle(now, input, out),
            Decider::Live(live) => live.handle(now, input, out),
        }
    }

    pub(crate) fn next_timeout(&self) -> Time {
        match self {
            Decider::Center(center) => center.next_timeout(),
            Decider::File(tracker) => tracker.next_timeout(),
            Decider::Live(live) => live.next_timeout(),
        }
    }

    /// Violated invariants.
    pub(crate) fn check(&self, now: Time) -> Vec<Problem> {
        match self {
            Decider::Center(center) => center.check(now),
            Decider::File(tracker) => tracker.check(),
            Decider::Live(live) => live.check(),
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        match self {
            Decider::Center(center) => center.totals(),
            Decider::File(tracker) => tracker.totals(),
            Decider::Live(live) => live.totals(),
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        match self {
            Decider::Center(center) => center.epoch(),
            Decider::File(tracker) => tracker.epoch(),
            Decider::Live(_) => 1,
        }
    }

    /// Headwater's swarm of a file.
    pub(crate) fn dcm(&self, content: &ContentId) -> Option<&Dcm> {
        match self {
            Decider::Center(center) => center.directory().dcm(content),
            _ => None,
        }
    }

    /// Leases under way.
    pub(crate) fn leases(&self, content: &ContentId) -> usize {
        match self {
            Decider::File(tracker) => tracker.leases(),
            _ => self.dcm(content).map_or(0, |d| d.leases().active().len()),
        }
    }

    /// How the trees of a stream are.
    pub(crate) fn tree_stats(&self, content: &ContentId) -> TreesStats {
        match self {
            Decider::Center(center) => center.directory().trees(content).map(|t| t.stats()).unwrap_or_default(),
            Decider::Live(live) => live.stats(),
            Decider::File(_) => TreesStats::default(),
        }
    }

    /// For how many children the uplinks of a stream's viewers are, `source` aside.
    pub(crate) fn slots(&self, content: &ContentId, source: &NodeId) -> Vec<u32> {
        match self {
            Decider::Center(center) => {
                let members = center.directory().trees(content).map(|t| t.members());
                members.into_iter().flatten().filter(|m| m.info.node != *source).map(|m| m.slots).collect()
            }
            Decider::Live(live) => live.slots(),
            Decider::File(_) => Vec::new(),
        }
    }

    /// Lines of what it keeps, in its `Debug`; of Headwater's history nothing, which remembers nodes up to a limit.
    pub(crate) fn state_lines(&self) -> usize {
        let lines = |text: String| text.lines().count();
        match self {
            Decider::Center(center) => lines(format!("{center:#?}")) - lines(format!("{:#?}", center.history())),
            other => lines(format!("{other:#?}")),
        }
    }
}

/// The layout of what is published, if it is a file.
fn layout_of(kind: &Kind) -> Option<&headwater_model::layout::Layout> {
    match kind {
        Kind::File(layout) => Some(layout),
        Kind::Live(_) => None,
    }
}
