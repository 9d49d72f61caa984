//! A node's uplink as a budget (C7, idea 9): its home session grants each content that the node takes part in a share,
//! which the content's DCM takes for the node's uplink there.
//!
//! A grant is soft state, refreshed by every heartbeat that names the content and worth nothing three heartbeats after the
//! last one. The first content has all there is. When others want some, it is split by priority and by use: who uses
//! little leaves the rest to the others, whoever wants more has at least its fair share. Who wants nothing keeps a small
//! reserve, so that children can be found for it when it begins to. Live streams are served first: each has half as much
//! again as its children take, and what is needed for some at least; files share the rest.

use headwater_model::id::ContentId;
use headwater_model::node::Priority;
use headwater_model::time::{Micros, Rate, Time};
use std::collections::BTreeMap;

/// Heartbeats after which a grant that is not refreshed ends; for so long a newcomer counts as one that wants more.
const LEASE: u64 = 3;
/// Heartbeats without a wish after which a content wants nothing.
const IDLE: u64 = 2;
/// This part of the uplink is kept for contents that want nothing, in equal shares for all.
const RESERVE: u64 = 16;
/// A live stream has this part of the uplink, whatever its children take: so that some can be found for it.
const LIVE_LEAST: u64 = 4;
/// A grant changes by more than this part of it or not at all: each change may re-index a swarm.
const STEP: u64 = 8;
/// Who uses this share of its grant wants more, in percent.
const SATED_PERCENT: u64 = 90;
/// What a content that uses less is left with, in percent of its use: well above [`SATED_PERCENT`], as a share that is cut
/// to what is used would count as full.
const HEADROOM_PERCENT: u64 = 150;

/// What a content did with its grant in a heartbeat's interval.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Use {
    /// Whether anybody is to be fed.
    pub wants: bool,
    /// What was sent; `None` where that is not known.
    pub used: Option<Rate>,
    /// How much the content matters at this node.
    pub priority: Priority,
    /// It is a live stream, which goes before downloads.
    pub live: bool,
}

#[derive(Clone, Copy, Debug)]
struct Grant {
    rate: Rate,
    priority: Priority,
    live: bool,
    renewed: Time,
    wanted: Time,
    /// Until then it counts as one that wants more: it has had no chance to show what it uses.
    fresh_until: Time,
    /// Of late, where known: rises at once, falls by a quarter of the difference.
    used: Option<Rate>,
}

/// The uplink of one node and who has how much of it.
#[derive(Clone, Debug)]
pub struct Budget {
    total: Rate,
    heartbeat: Micros,
    grants: BTreeMap<ContentId, Grant>,
}

/// A grant that is another one now.
pub type Changed = (ContentId, Rate);

impl Budget {
    /// Nobody has anything of it yet. `heartbeat` is the time between two heartbeats of the node.
    pub fn new(total: Rate, heartbeat: Micros) -> Self {
        Self { total, heartbeat, grants: BTreeMap::new() }
    }

    /// All of it.
    pub fn total(&self) -> Rate {
        self.total
    }
    /// What a content has of it; 0 for one that takes no part.
    pub fn grant(&self, content: &ContentId) -> Rate {
        self.grants.get(content).map_or(Rate(0), |g| g.rate)
    }
    /// All grants.
    pub fn grants(&self) -> impl Iterator<Item = (&ContentId, Rate)> {
        self.grants.iter().map(|(content, g)| (content, g.rate))
    }

    /// The node is believed to have another uplink.
    pub fn set_total(&mut self, now: Time, total: Rate, changed: &mut Vec<Changed>) {
        self.total = total;
        self.split(now, changed);
    }

    /// The node takes part in a content, or says so again; `live` for a live stream.
    pub fn join(&mut self, now: Time, content: ContentId, live: bool, changed: &mut Vec<Changed>) {
        let fresh_until = now + self.heartbeat.times(LEASE);
        let (rate, priority) = (Rate(0), Priority::default());
        let new = Grant { rate, priority, live, renewed: now, wanted: now, fresh_until, used: None };
        let g = self.grants.entry(content).or_insert(new);
        g.live = live;
        (g.renewed, g.wanted, g.fresh_until) = (now, now, fresh_until);
        self.split(now, changed);
    }

    /// The node takes no part any more.
    pub fn leave(&mut self, now: Time, content: &ContentId, changed: &mut Vec<Changed>) {
        if self.grants.remove(content).is_some() {
            self.split(now, changed);
        }
    }

    /// A heartbeat names a content. What follows from all that it names is for [`Budget::split`].
    pub fn refresh(&mut self, now: Time, content: &ContentId, said: Use) {
        let fresh = now + self.heartbeat.times(LEASE);
        let idle = self.heartbeat.times(IDLE);
        let lapsed = self.lapse();
        let Some(g) = self.grants.get_mut(content) else { return };
        if now.since(g.renewed) > lapsed || (said.wants && now.since(g.wanted) > idle) {
            g.fresh_until = fresh;
        }
        g.renewed = now;
        (g.priority, g.live) = (said.priority, said.live);
        if said.wants {
            g.wanted = now;
        }
        let eased = |used: Rate, before: Rate| Rate(used.0.max(before.0 - before.0.saturating_sub(used.0) / 4));
        g.used = said.used.map(|used| eased(used, g.used.unwrap_or(used)));
    }

    /// Splits what there is anew: first who has too much gives, then who has too little takes. `changed` gets those that
    /// changed.
    pub fn split(&mut self, now: Time, changed: &mut Vec<Changed>) {
        let targets = self.targets(now);
        let before: Vec<Rate> = self.grants.values().map(|g| g.rate).collect();
        for (g, target) in self.grants.values_mut().zip(&targets) {
            let spare = g.rate.0.saturating_sub(*target);
            if *target == 0 || spare > g.rate.0 / STEP {
                g.rate = Rate(*target);
            }
        }
        let lacks =
            |g: &Grant, target: u64| Some(target.saturating_sub(g.rate.0)).filter(|more| *more > g.rate.0 / STEP);
        let lacking: u64 = self.grants.values().zip(&targets).filter_map(|(g, target)| lacks(g, *target)).sum();
        // Nobody keeps a little too much where another lacks it, or where it is no longer there.
        if self.granted().saturating_add(lacking) > self.total.0 {
            self.grants.values_mut().zip(&targets).for_each(|(g, target)| g.rate.0 = g.rate.0.min(*target));
        }
        for (g, target) in self.grants.values_mut().zip(&targets) {
            if lacks(g, *target).is_some() {
                g.rate.0 = *target;
            }
        }
        let now_has = self.grants.iter().zip(before).filter(|((_, g), was)| g.rate != *was);
        changed.extend(now_has.map(|((content, g), _)| (*content, g.rate)));
    }

    /// Violated invariants, in words.
    pub fn check(&self) -> Vec<String> {
        let granted = self.granted();
        let over = granted > self.total.0;
        over.then(|| format!("{granted} bytes per second of {} are granted", self.total.0)).into_iter().collect()
    }

    fn granted(&self) -> u64 {
        self.grants.values().map(|g| g.rate.0).sum()
    }

    /// A heartbeat may come half an interval late.
    fn lapse(&self) -> Micros {
        Micros(self.heartbeat.0 * (2 * LEASE + 1) / 2)
    }

    /// What each should have, in the order of the contents; never more than there is.
    fn targets(&self, now: Time) -> Vec<u64> {
        let (lapse, idle) = (self.lapse(), self.heartbeat.times(IDLE));
        let lives = |g: &Grant| now.since(g.renewed) <= lapse;
        let living = self.grants.values().filter(|g| lives(g)).count() as u64;
        let reserve = self.total.0 / RESERVE / living.max(1);
        let claims: Vec<Claim> = self
            .grants
            .values()
            .map(|g| {
                let fresh = now < g.fresh_until;
                let full = |used: Rate| used.0.saturating_mul(100) >= g.rate.0.saturating_mul(SATED_PERCENT);
                let most = match g.used.filter(|used| !fresh && !full(*used)) {
                    Some(used) => (used.0.saturating_mul(HEADROOM_PERCENT) / 100).saturating_sub(reserve),
                    None => u64::MAX,
                };
                let most = if g.live { most.max(self.total.0 / LIVE_LEAST) } else { most };
                let wants = lives(g) && (fresh || now.since(g.wanted) <= idle);
                Claim { weight: if lives(g) { g.priority.weight() } else { 0 }, most, wants, first: g.live }
            })
            .collect();
        let shares = fill(self.total.0 - reserve * living, &claims);
        self.grants.values().zip(shares).map(|(g, share)| if lives(g) { reserve + share } else { 0 }).collect()
    }
}

struct Claim {
    /// 0 for one that gets nothing.
    weight: u64,
    most: u64,
    wants: bool,
    /// It is served before those that are not.
    first: bool,
}

/// Weighted max-min shares of `total`: nobody gets more than it claims while another gets less than it claims and than its
/// weight is worth; those that go first get theirs before the others. What all claims leave is split by weight among those
/// who want something; among all where nobody does.
fn fill(total: u64, claims: &[Claim]) -> Vec<u64> {
    let anybody = claims.iter().any(|c| c.wants);
    let takes = |c: &Claim| c.weight > 0 && (c.wants || !anybody);
    let mut order: Vec<usize> = (0..claims.len()).filter(|ix| takes(&claims[*ix])).collect();
    order.sort_by_key(|ix| (!claims[*ix].first, claims[*ix].most / claims[*ix].weight));
    let weights_of = |first: Option<bool>| -> u64 {
        order.iter().map(|ix| &claims[*ix]).filter(|c| first.is_none_or(|f| c.first == f)).map(|c| c.weight).sum()
    };
    let (mut weights_left, weights) = ([weights_of(Some(true)), weights_of(Some(false))], weights_of(None));
    let mut shares = vec![0; claims.len()];
    let mut left = total;
    for ix in &order {
        let Claim { weight, most, first, .. } = claims[*ix];
        let [before, after] = &mut weights_left;
        let of_class = if first { before } else { after };
        shares[*ix] = portion(left, weight, *of_class).min(most);
        left -= shares[*ix];
        *of_class -= weight;
    }
    for ix in order {
        shares[ix] += portion(left, claims[ix].weight, weights);
    }
    shares
}

fn portion(of: u64, weight: u64, weights: u64) -> u64 {
    (u128::from(of) * u128::from(weight) / u128::from(weights.max(1))) as u64
}

#[cfg(test)]
#[path = "budgets_tests.rs"]
mod tests;
