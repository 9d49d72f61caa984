//! Pairs of members that failed of late, and how long they are not tried again (requirement S3).

use super::Dcm;
use super::member::{Ix, Member};
use headwater_model::id::NodeId;
use headwater_model::time::Time;

/// Failed pairs remembered; more than a swarm in trouble makes in a minute.
pub(super) const MAX_FAILED_PAIRS: usize = 100_000;

/// An offence of one end weighs as much as so many failures.
pub(super) const GRAVE: u32 = 4;

/// An unordered pair of nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct PairKey(NodeId, NodeId);

impl PairKey {
    pub(super) fn of(a: NodeId, b: NodeId) -> Self {
        Self(a.min(b), a.max(b))
    }
}

/// How often a pair failed of late, and when last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub(super) at: Time,
    pub(super) times: u32,
    /// There was an offence among them: the pair rests as long as a ban, or until one end has another session.
    pub(super) grave: bool,
    /// One end got wrong bytes from the other: it does not try again, whatever sessions come and go.
    pub(super) spoilt: bool,
}

impl Dcm {
    pub(super) fn fail_pair(&mut self, now: Time, a: Ix, b: Ix) {
        self.fail_pair_times(now, a, b, 1, false);
    }

    /// A failure that weighs as much as so many; an offence of one of the two may part them for long.
    pub(super) fn fail_pair_times(&mut self, now: Time, a: Ix, b: Ix, failures: u32, is_offence: bool) {
        if let (Some(a), Some(b)) = (self.node_of(a), self.node_of(b))
            && self.failed.len() < MAX_FAILED_PAIRS
        {
            let new = Failure { at: now, times: 0, grave: false, spoilt: false };
            let f = self.failed.entry(PairKey::of(a, b)).or_insert(new);
            f.at = now;
            f.times = f.times.saturating_add(failures);
            f.grave |= is_offence && f.times >= GRAVE;
        }
    }

    pub(super) fn pair_failed(&self, now: Time, a: &Member, b: &Member) -> bool {
        if a.shuns(b) || b.shuns(a) {
            return true;
        }
        let Some(f) = self.failed.get(&PairKey::of(a.info.node, b.info.node)) else { return false };
        if f.spoilt && now.since(f.at) < self.config.ban {
            return true;
        }
        // Who has few sources cannot be choosy.
        let limited = a.limited() || b.limited();
        let times = if limited { 1 } else { f.times };
        let longer = self.config.first_blacklist.times(3u64.saturating_pow(times - 1)).min(self.config.blacklist);
        let pause = if f.grave && !limited { self.config.ban } else { longer };
        // Whoever was restarted has another chance.
        now.since(f.at) < pause && f.at >= a.since && f.at >= b.since
    }
}
