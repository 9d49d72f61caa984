//! Helpers: who sends what nobody pushes, with the uplink that pushing leaves over (T2: swarming pull beside the trees).
//! Newcomers ask them for the segments from before they came; members without a parent in a tree, for that substream.

use super::Trees;
use super::clusters::{Cx, WORLD};
use super::member::Member;
use super::place::{Where, usable};
use crate::dcm::Ix;
use crate::trust::Standing;
use headwater_model::node::SourceClass;
use headwater_model::time::{Micros, Rate, Time};
use std::cmp::Reverse;

/// Helpers of one member.
const HELPERS: usize = 8;
/// What a handshake takes of the uplink of either end, in bytes, and how long those with helpers may take in all: they stand
/// before what a newcomer on a thin line asks for.
const HANDSHAKE_BYTES: u64 = 4096;
/// See [`HANDSHAKE_BYTES`].
const HANDSHAKES: Micros = Micros::from_millis(150);
/// For so long after it came a newcomer may need what was there before it.
const NEWCOMER: Micros = Micros::from_secs(10);
/// So long after it came it holds that, asks for it no more, and can help the next ones.
const FILLED: Micros = Micros::from_secs(3);
/// So many times as many as could help are looked at for those that can.
const LOOKED_AT: usize = 4;
/// Of those that one helps, so many of the latest are looked at for how many of them ask it.
const MOST_ASKED: usize = 8;
/// What is worth another connection: twice as much at least, as powers of two.
const FAR_MORE: u32 = 2;
/// Less is not worth a connection, in percent of a substream's rate.
const LEAST: u64 = 10;
/// What the source pushes is left to helpers after so long: who has just lost a parent is fed first.
const PUSHED_FOR: Micros = Micros::from_secs(3);
/// Leaves give their places up to those who pass things on down to so many edges from the source.
const MOST_DEPTH: u32 = 2;
/// Substreams that are pulled where peers have no slots may take so much of what is left over, in percent: more of it is
/// used the more ask for it, and who gets nothing reads from the origin, later than the source would have pushed.
const ASKED_FOR: u64 = 250;
/// The same for substreams that the source pushes and that could be pulled.
const TAKEN_FROM_SOURCE: u64 = 150;

impl Trees {
    /// A member has come that holds nothing yet.
    pub(super) fn welcome(&mut self, now: Time, ix: Ix) {
        if let Some(m) = self.member_mut(ix) {
            m.newcomer_until = now + NEWCOMER;
        }
    }

    /// Helpers that cannot help any more are replaced; all are let go where none is needed. Whether anything changed.
    pub(super) fn freshen_helpers(&mut self, now: Time, ix: Ix) -> bool {
        let wants = self.wants_help(now, ix);
        let Some(m) = self.member(ix).filter(|m| wants || !m.helpers.is_empty()) else { return false };
        let old = m.helpers.clone();
        let mut new: Vec<Ix> = old.iter().copied().filter(|h| wants && self.can_help_out(now, ix, *h)).collect();
        let most = self.most_helpers(ix);
        if wants && new.len() < most {
            new.extend(self.choose_helpers(now, ix, &new, most));
        } else if wants {
            self.swap_helper(now, ix, &mut new, most);
        }
        if new == old {
            return false;
        }
        self.set_helpers(ix, new);
        true
    }

    fn wants_help(&self, now: Time, ix: Ix) -> bool {
        let Some(m) = self.member(ix).filter(|m| !m.limited() && m.away_since.is_none()) else { return false };
        self.source.is_some_and(|s| s != ix) && (now < m.newcomer_until || self.is_unfed(ix))
    }

    fn can_help_out(&self, now: Time, child: Ix, helper: Ix) -> bool {
        let Some((c, h)) = self.member(child).zip(self.member(helper)) else { return false };
        child != helper && self.left_over(helper, h) >= LEAST && self.connects(now, h, c)
    }

    fn most_helpers(&self, ix: Ix) -> usize {
        let in_time = self.member(ix).map_or(0, |m| m.info.up.bytes_in(HANDSHAKES) / HANDSHAKE_BYTES);
        HELPERS.min(usize::try_from(in_time).unwrap_or(HELPERS)).max(1)
    }

    /// One who came later and has far more left over for each takes the place of the helper that has least.
    fn swap_helper(&self, now: Time, ix: Ix, helpers: &mut [Ix], most: usize) {
        let each = |h: &Ix| self.help_of(*h).1;
        let Some(least) = helpers.iter().enumerate().min_by_key(|(_, h)| each(h)).map(|(place, _)| place) else {
            return;
        };
        // Most often there is none, which the sets tell at once.
        if helpers.get(least).is_none_or(|h| self.most_help_for_each(ix) < each(h) + FAR_MORE) {
            return;
        }
        let Some(other) = self.choose_helpers(now, ix, helpers, most + 1).first().copied() else { return };
        if let Some(helper) = helpers.get_mut(least).filter(|h| each(&other) >= each(h) + FAR_MORE) {
            *helper = other;
        }
    }

    /// What any member has left over for each that it helps, of those that this one may be able to use: as sets order them.
    fn most_help_for_each(&self, ix: Ix) -> u32 {
        let Some(m) = self.member(ix) else { return 0 };
        let clusters = m.chain.outwards(0).filter_map(|cx| self.clusters.get(cx));
        let shelves = clusters.flat_map(|c| usable(m.accepts()).filter_map(|a| c.helpers.get(&a)?.first()));
        shelves.map(|(Reverse(bucket), _)| *bucket).max().unwrap_or(0)
    }

    /// Those who have most left over for each that they help. Newcomers have those first that hold what was before them.
    /// Where slots are scarce all are of use to them: with what is pushed to these.
    fn choose_helpers(&self, now: Time, ix: Ix, known: &[Ix], most: usize) -> Vec<Ix> {
        let Some(m) = self.member(ix) else { return Vec::new() };
        let most = most.saturating_sub(known.len());
        if now >= m.newcomer_until || self.is_scarce() {
            return self.helpers_where(now, ix, known, most, |_| true);
        }
        let mut some = self.helpers_where(now, ix, known, most, |h| has_filled(now, h));
        if some.len() < most {
            some.extend(self.helpers_where(now, ix, known, most - some.len(), |h| !has_filled(now, h)));
        }
        some
    }

    /// Those of the nearest cluster first.
    fn helpers_where(&self, now: Time, ix: Ix, known: &[Ix], most: usize, fits: impl Fn(&Member) -> bool) -> Vec<Ix> {
        let mut some = known.to_vec();
        for cx in self.member(ix).into_iter().flat_map(|m| m.chain.outwards(0)) {
            let left = (known.len() + most).saturating_sub(some.len());
            if left == 0 {
                break;
            }
            some.extend(self.helpers_in(now, (ix, cx), &some, left, &fits));
        }
        some.split_off(known.len())
    }

    fn helpers_in(
        &self,
        now: Time,
        (ix, cx): (Ix, Cx),
        known: &[Ix],
        most: usize,
        fits: impl Fn(&Member) -> bool,
    ) -> Vec<Ix> {
        let Some((m, cluster)) = self.member(ix).zip(self.clusters.get(cx)) else { return Vec::new() };
        let shelves: Vec<_> = usable(m.accepts()).filter_map(|a| cluster.helpers.get(&a)).collect();
        let each = self.config.max_considered / shelves.len().max(1);
        let fits = |(_, h): &&(_, Ix)| {
            self.member(*h).is_some_and(&fits) && !known.contains(h) && self.can_help_out(now, ix, *h)
        };
        let some = shelves.into_iter().flat_map(|s| s.iter().take(each * LOOKED_AT).filter(fits).take(most));
        let mut best: Vec<_> = some.collect();
        best.sort();
        best.into_iter().map(|(_, h)| *h).take(most).collect()
    }

    pub(super) fn set_helpers(&mut self, ix: Ix, new: Vec<Ix>) {
        let Some(m) = self.member_mut(ix) else { return };
        let old = std::mem::replace(&mut m.helpers, new.clone());
        for helper in old.iter().filter(|h| !new.contains(h)) {
            self.change_helped(*helper, |h| h.helped.remove(&ix));
        }
        for helper in new.iter().filter(|h| !old.contains(h)) {
            self.change_helped(*helper, |h| h.helped.insert(ix));
        }
    }

    fn change_helped(&mut self, helper: Ix, change: impl FnOnce(&mut Member) -> bool) {
        let before = self.help_of(helper);
        self.member_mut(helper).map(change);
        self.help_changed(helper, before);
    }

    /// What a helper has for each of those that ask it at this time. Nothing is promised where slots are scarce, as it all
    /// goes to those to whom nobody pushes, nor by newcomers.
    pub(super) fn help_for_each(&self, now: Time, helper: Ix) -> Rate {
        let Some(h) = self.member(helper).filter(|h| has_filled(now, h) && !self.is_scarce()) else { return Rate(0) };
        let asks = |c: &&Ix| self.member(**c).is_some_and(|m| !has_filled(now, m)) || self.is_unfed(**c);
        let (looked_at, all) = (h.helped.len().min(MOST_ASKED), h.helped.len());
        let asking = h.helped.iter().rev().take(looked_at).filter(asks).count() * all / looked_at.max(1);
        let left = self.left_over(helper, h) / asking.max(1) as u64;
        Rate(self.terms.substream_rate().0.saturating_mul(left) / 100)
    }

    /// Those whom it helps get others in its place.
    pub(super) fn help_no_more(&mut self, now: Time, ix: Ix) {
        let helped: Vec<Ix> = self.member(ix).map(|m| m.helped.iter().copied().collect()).unwrap_or_default();
        for child in helped {
            let others = self.member(child).map(|m| m.helpers.iter().copied().filter(|h| *h != ix).collect());
            self.set_helpers(child, others.unwrap_or_default());
            self.dirty(now, child);
        }
    }

    /// Uplink of a member that its children do not take, in percent of a substream's rate. Nothing of those that are no
    /// peers: what they send costs as much as the origin.
    pub(super) fn left_over(&self, ix: Ix, m: &Member) -> u64 {
        let is_peer = m.info.class() == SourceClass::Peer && self.source != Some(ix);
        let is_believed = m.info.standing == Standing::Good && m.doubt.is_none() && m.slots > 0;
        if is_peer && is_believed && m.present() { m.left_over(&self.terms) } else { 0 }
    }

    /// A substream that the source or a waypoint has pushed to a member for a while is left to helpers, where peers have
    /// too few slots for all, the member passes it on to nobody, and enough is left over. Whether it was.
    pub(super) fn leave_to_helpers(&mut self, now: Time, tree: u8, child: Ix) -> bool {
        let has_settled = self.spot(tree, child).is_some_and(|s| now.since(s.since) >= PUSHED_FOR);
        let leaves = has_settled && self.can_be_pulled(tree, child, TAKEN_FROM_SOURCE);
        if leaves {
            self.unlink(now, tree, child);
            if let Some(spot) = self.spot_mut(tree, child) {
                spot.pulled = true;
            }
        }
        leaves
    }

    /// A child of the source or of a waypoint that passes the substream on takes the place of a leaf, which is left to
    /// helpers. Whether it did.
    pub(super) fn swap_with_leaf(&mut self, now: Time, tree: u8, child: Ix) -> bool {
        let Some((leaf, parent)) = self.place_of_leaf(now, tree, child) else { return false };
        if !self.leave_to_helpers(now, tree, leaf) {
            return false;
        }
        self.relink(now, tree, parent, child);
        true
    }

    /// A leaf that helpers may bring the substream to, not far from the source, and its parent, which could have `child`.
    fn place_of_leaf(&self, now: Time, tree: u8, child: Ix) -> Option<(Ix, Ix)> {
        let near = self.fed_near(tree, self.member(child)?.chain).take(self.config.max_considered);
        let near = near.filter(|(depth, ..)| *depth <= MOST_DEPTH);
        let with_parent = near.filter_map(|(.., leaf)| Some((*leaf, self.parent(tree, *leaf)?)));
        let mut fitting = with_parent.filter(|(leaf, parent)| {
            let is_peer = self.source != Some(*parent)
                && self.member(*parent).is_some_and(|p| p.info.class() == SourceClass::Peer);
            *leaf != child
                && is_peer
                && self.can_be_pulled(tree, *leaf, TAKEN_FROM_SOURCE)
                && self.may_feed(now, tree, *parent, child)
                && self.stands(tree, *parent, child, Where::Fed)
        });
        fitting.next()
    }

    /// Whether a substream that helpers bring is to stay with them, unless a peer can push it.
    pub(super) fn stays_pulled(&self, tree: u8, child: Ix) -> bool {
        self.spot(tree, child).is_some_and(|s| s.pulled) && self.can_be_pulled(tree, child, ASKED_FOR)
    }

    /// `part`: how much may be asked for of what is left over, in percent.
    fn can_be_pulled(&self, tree: u8, child: Ix, part: u64) -> bool {
        let is_leaf = self.member(child).is_some_and(|m| m.weight(tree) == 0)
            && self.spot(tree, child).is_some_and(|s| s.children.is_empty());
        let unfed: usize = self.trees.iter().map(|t| t.hungry.len()).sum();
        is_leaf && self.is_scarce() && unfed as u64 * 100 * 100 < self.left_over * part
    }

    /// Whether peers have too few slots for all.
    fn is_scarce(&self) -> bool {
        let slots: u64 = self.clusters.get(WORLD).map_or(0, |c| c.parts.iter().map(|p| p.capacity).sum());
        slots < self.by_node.len() as u64 * self.trees.len() as u64
    }
}

/// Whether a member holds what was there before it came, as far as its player needs that.
fn has_filled(now: Time, m: &Member) -> bool {
    now + NEWCOMER >= m.newcomer_until + FILLED
}
