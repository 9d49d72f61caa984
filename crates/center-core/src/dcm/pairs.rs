//! Pairs of members that failed of late, and how long they are not tried again (requirement S3).

use super::Dcm;
use super::member::{Ix, Member};
use crate::config::Config;
use headwater_model::id::NodeId;
use headwater_model::time::Time;
use std::collections::BTreeMap;

/// Failed pairs remembered; more than a swarm in trouble makes in a minute.
const MAX_FAILED_PAIRS: usize = 100_000;

/// An offence of one end weighs as much as so many failures.
pub(super) const GRAVE: u32 = 4;

/// An unordered pair of nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct PairKey(NodeId, NodeId);

impl PairKey {
    fn of(a: &NodeId, b: &NodeId) -> Self {
        Self(*a.min(b), *a.max(b))
    }
}

/// How often a pair failed of late, and when last.
#[derive(Clone, Copy, Debug)]
struct Failure {
    at: Time,
    times: u32,
    /// There was an offence among them: the pair rests as long as a ban, or until one end has another session.
    grave: bool,
    /// One end got wrong bytes from the other: it does not try again, whatever sessions come and go.
    spoilt: bool,
}

/// Pairs that failed of late, in one content.
#[derive(Clone, Default, Debug)]
pub(crate) struct FailedPairs(BTreeMap<PairKey, Failure>);

impl FailedPairs {
    /// A failure that weighs as much as so many; an offence of one of the two may part them for long.
    pub(crate) fn fail(&mut self, now: Time, (a, b): (&NodeId, &NodeId), failures: u32, is_offence: bool) {
        if self.0.len() >= MAX_FAILED_PAIRS {
            return;
        }
        let new = Failure { at: now, times: 0, grave: false, spoilt: false };
        let f = self.0.entry(PairKey::of(a, b)).or_insert(new);
        f.at = now;
        f.times = f.times.saturating_add(failures);
        f.grave |= is_offence && f.times >= GRAVE;
    }

    /// One got wrong bytes from the other: the two do not meet again for as long as a ban lasts.
    pub(crate) fn spoil(&mut self, now: Time, a: &NodeId, b: &NodeId) {
        if self.0.len() < MAX_FAILED_PAIRS {
            self.0.insert(PairKey::of(a, b), Failure { at: now, times: 1, grave: true, spoilt: true });
        }
    }

    /// Whether one got wrong bytes from the other.
    pub(crate) fn spoilt(&self, now: Time, (a, b): (&NodeId, &NodeId), config: &Config) -> bool {
        self.0.get(&PairKey::of(a, b)).is_some_and(|f| f.spoilt && now.since(f.at) < config.ban)
    }

    /// Whether the two are not tried now. `since` is when the later of their sessions joined: whoever was restarted has
    /// another chance. Who has `limited` sources cannot be choosy.
    pub(crate) fn rest(
        &self,
        now: Time,
        (a, b): (&NodeId, &NodeId),
        since: Time,
        limited: bool,
        config: &Config,
    ) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let Some(f) = self.0.get(&PairKey::of(a, b)) else { return false };
        if f.spoilt && now.since(f.at) < config.ban {
            return true;
        }
        let times = if limited { 1 } else { f.times };
        let longer = config.first_blacklist.times(3u64.saturating_pow(times.saturating_sub(1))).min(config.blacklist);
        let pause = if f.grave && !limited { config.ban } else { longer };
        now.since(f.at) < pause && f.at >= since
    }

    /// Forgets what matters no more.
    pub(crate) fn forget(&mut self, now: Time, config: &Config) {
        let (forget, forget_grave) = (config.blacklist.times(2), config.ban);
        self.0.retain(|_, f| now.since(f.at) < if f.grave { forget_grave } else { forget });
    }
}

impl Dcm {
    pub(super) fn fail_pair(&mut self, now: Time, a: Ix, b: Ix) {
        self.fail_pair_times(now, a, b, 1, false);
    }

    /// A failure that weighs as much as so many; an offence of one of the two may part them for long.
    pub(super) fn fail_pair_times(&mut self, now: Time, a: Ix, b: Ix, failures: u32, is_offence: bool) {
        if let (Some(a), Some(b)) = (self.node_of(a), self.node_of(b)) {
            self.failed.fail(now, (&a, &b), failures, is_offence);
        }
    }

    pub(super) fn pair_failed(&self, now: Time, a: &Member, b: &Member) -> bool {
        let pair = (&a.info.node, &b.info.node);
        let limited = a.limited() || b.limited();
        a.shuns(b) || b.shuns(a) || self.failed.rest(now, pair, a.since.max(b.since), limited, &self.config)
    }
}
