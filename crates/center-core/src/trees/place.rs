//! Choosing a parent, or room for a child that finds none. Reads only; `insert.rs` and `repair.rs` commit.

use super::Trees;
use super::clusters::{Chain, Cx};
use super::index::{Lenders, SHELVES, use_first};
use super::member::Member;
use crate::dcm::Ix;
use crate::trust::Standing;
use headwater_model::node::{Accepts, SourceClass};
use headwater_model::time::Time;
use std::cmp::Reverse;

/// Members behind a child's own address that are looked at beside the others.
const MAX_MATES: usize = 8;
/// Of those equally far from the source who accept the same, so many are compared when one was found.
const MAX_COMPARED: usize = 4;
/// Of one depth, so many members are looked at for one that makes room.
const MAX_LOOKED_AT_DEPTH: usize = 8;
/// For so many members that may have to make room another parent is looked for.
const MAX_REHOUSED: usize = 8;

/// Who may be a parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Who {
    /// Peers, so that the source and waypoints are relieved.
    Peers,
    /// Everybody.
    Anyone,
}

/// Where in a tree a parent may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Where {
    /// Below the source, but not below the child.
    Fed,
    /// In the part of this member.
    Below(Ix),
}

/// A child takes the place of another one, which goes elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Room {
    /// Whose child it becomes.
    pub(super) parent: Ix,
    /// Who makes room.
    pub(super) displaced: Ix,
    /// Whose child that one becomes.
    pub(super) to: Ix,
}

/// Depth; then those first that fewest can use, near ones, those with most to spare, those that served well.
type Rank = (u32, usize, usize, Reverse<u32>, Reverse<u32>, Ix);

/// Whether a child may be able to use a sender, for what the two accept.
pub(super) fn could_connect(child: Accepts, sender: Accepts) -> bool {
    match child {
        Accepts::Open => true,
        Accepts::Punchable => sender != Accepts::DialOnly,
        Accepts::DialOnly => sender == Accepts::Open,
    }
}

/// What senders accept that a child may be able to use, those that fewest can use first.
pub(super) fn usable(child: Accepts) -> impl Iterator<Item = Accepts> {
    SHELVES.into_iter().filter(move |a| could_connect(child, *a))
}

impl Trees {
    /// The best parent with a free slot for `child` in `tree`.
    pub(super) fn find(&self, now: Time, tree: u8, child: Ix, who: Who) -> Option<Ix> {
        let source = || self.source.filter(|_| who == Who::Anyone && self.source_can_feed(now, tree, child));
        // One copy must leave the source, and more than one should not.
        let first = if self.source_is_idle(tree) { source() } else { None };
        first.or_else(|| self.find_in(now, tree, child, Who::Peers, Where::Fed)).or_else(|| {
            let is_pushed = who == Who::Anyone && !self.stays_pulled(tree, child);
            let waypoint = || self.find_in(now, tree, child, who, Where::Fed);
            if is_pushed { waypoint().or_else(source) } else { None }
        })
    }

    fn find_in(&self, now: Time, tree: u8, child: Ix, who: Who, at: Where) -> Option<Ix> {
        let waypoints = |cx| self.among_lenders(now, (tree, cx), child, at, SourceClass::Waypoint);
        let clusters = self.member(child)?.chain.outwards(0);
        self.find_peer(now, tree, child, at, 0)
            .or_else(|| if who == Who::Anyone { clusters.into_iter().find_map(waypoints) } else { None })
    }

    /// A peer in the nearest of the child's clusters that has one for it, as far out as that at position `outermost`: a copy
    /// less comes in, even where the slot is one that is wanted in another tree.
    pub(super) fn find_peer(&self, now: Time, tree: u8, child: Ix, at: Where, outermost: usize) -> Option<Ix> {
        self.member(child)?.chain.outwards(outermost).find_map(|cx| {
            let lender = || self.among_lenders(now, (tree, cx), child, at, SourceClass::Peer);
            self.among_homes(now, (tree, cx), child, at).or_else(lender)
        })
    }

    /// A parent at home in the tree that is no deeper than `most`, and no farther away than the child's present one.
    pub(super) fn find_home(&self, now: Time, tree: u8, child: Ix, most: u32) -> Option<Ix> {
        let mut clusters = self.member(child)?.chain.outwards(self.shared_with_parent(tree, child));
        let found = clusters.find_map(|cx| self.among_homes(now, (tree, cx), child, Where::Fed))?;
        self.spot(tree, found).is_some_and(|s| s.depth <= most).then_some(found)
    }

    /// Position of the nearest cluster of the child in which its parent is, too.
    pub(super) fn shared_with_parent(&self, tree: u8, child: Ix) -> usize {
        self.spot(tree, child).filter(|s| s.parent.is_some()).map_or(0, |s| usize::from(s.shared))
    }

    /// Whether the source has nobody in `tree` who passes things on.
    pub(super) fn source_is_idle(&self, tree: u8) -> bool {
        let children = self.source.map(|s| self.children(tree, s)).unwrap_or_default();
        !children.iter().any(|c| self.member(*c).is_some_and(Member::present))
    }

    /// Whether the source can take `child` on.
    pub(super) fn source_can_feed(&self, now: Time, tree: u8, child: Ix) -> bool {
        let Some(s) = self.source else { return false };
        // A slot is kept for each other tree that has nothing from the source.
        let kept = || self.all_trees().filter(|t| self.source_is_idle(*t)).count() as u32;
        let free = self.member(s).map_or(0, Member::free);
        free > 0 && self.may_feed(now, tree, s, child) && (self.source_is_idle(tree) || free > kept())
    }

    /// Whether the two can be parent and child in `tree`, slots and the tree's shape aside.
    pub(super) fn may_feed(&self, now: Time, tree: u8, parent: Ix, child: Ix) -> bool {
        let (Some(p), Some(c)) = (self.member(parent), self.member(child)) else { return false };
        parent != child
            && p.present()
            && p.info.standing != Standing::Banned
            && !p.limited()
            && !c.limited()
            && self.connects(now, p, c)
            && !c.avoids(now, &p.info.node, tree)
    }

    /// Whether a connection can come about, and did not fail of late.
    pub(super) fn connects(&self, now: Time, a: &Member, b: &Member) -> bool {
        let pair = (&a.info.node, &b.info.node);
        // There is one source: nobody can be choosy about it.
        let no_choice = || self.is_source(a) || self.is_source(b);
        self.can_connect(a, b)
            && !a.shuns(b)
            && !b.shuns(a)
            && !self.failed.rest(now, pair, a.since.max(b.since), no_choice(), &self.config)
    }

    fn is_source(&self, m: &Member) -> bool {
        self.source.and_then(|s| self.member(s)).is_some_and(|s| std::ptr::eq(s, m))
    }

    /// Whether `parent` stands where a parent of `child` may be.
    pub(super) fn stands(&self, tree: u8, parent: Ix, child: Ix, at: Where) -> bool {
        let (root, below_child) = self.climb(tree, parent, child);
        !below_child
            && match at {
                Where::Fed => self.source == Some(root),
                Where::Below(top) => self.climb(tree, parent, top).1,
            }
    }

    fn among_homes(&self, now: Time, (tree, cx): (u8, Cx), child: Ix, at: Where) -> Option<Ix> {
        let c = self.member(child)?;
        let part = self.clusters.part(cx, tree)?;
        let each = self.config.max_considered / usable(c.accepts()).count().max(1);
        let mut best: Option<Rank> = None;
        for accepts in usable(c.accepts()) {
            let mut compared = 0;
            for (depth, ix) in part.homes(accepts).take(each) {
                // Those that follow are no nearer to the source.
                if compared >= MAX_COMPARED || best.is_some_and(|b| (b.0, b.1) < (depth, use_first(accepts))) {
                    break;
                }
                best = self.better(now, best, tree, ix, (c, child), at);
                compared += usize::from(best.is_some());
            }
        }
        // They are in all clusters of the child.
        for ix in self.mates(c).filter(|_| cx == c.chain.nearest()) {
            if self.member(ix).is_some_and(|m| m.free() > 0) {
                best = self.better(now, best, tree, ix, (c, child), at);
            }
        }
        best.map(|b| b.5)
    }

    /// Members that are at home elsewhere lend a slot rather than leave a child unfed.
    fn among_lenders(&self, now: Time, (tree, cx): (u8, Cx), child: Ix, at: Where, class: SourceClass) -> Option<Ix> {
        let c = self.member(child)?;
        let cluster = self.clusters.get(cx)?;
        let each = self.config.max_considered / usable(c.accepts()).count().max(1);
        let lenders = usable(c.accepts()).filter_map(|a| cluster.shelves.get(&(class, a)));
        let mut best: Option<Rank> = None;
        for (_, ix) in lenders.flat_map(|s: &Lenders| s.iter().take(each)) {
            best = self.better(now, best, tree, *ix, (c, child), at);
        }
        best.map(|b| b.5)
    }

    /// The better one of the best so far and `ix`. What costs most is asked last, and of few: whether it may.
    fn better(
        &self,
        now: Time,
        best: Option<Rank>,
        tree: u8,
        ix: Ix,
        (c, child): (&Member, Ix),
        at: Where,
    ) -> Option<Rank> {
        let rank = self.rank(tree, ix, c);
        let wins = rank.is_some_and(|r| best.is_none_or(|b| r < b))
            && self.may_feed(now, tree, ix, child)
            && self.stands(tree, ix, child, at);
        if wins { rank } else { best }
    }

    fn rank(&self, tree: u8, ix: Ix, child: &Member) -> Option<Rank> {
        let (p, spot) = (self.member(ix)?, self.spot(tree, ix)?);
        Some((spot.depth, use_first(p.accepts()), p.tier_to(child), Reverse(p.free()), Reverse(p.info.history), ix))
    }

    /// Peers behind the same public address, who can use one another whatever strangers can.
    fn mates(&self, c: &Member) -> impl Iterator<Item = Ix> {
        let is_peer = move |ix: &Ix| self.member(*ix).is_some_and(|m| m.info.class() == SourceClass::Peer);
        let mates = self.clusters.mates(c).iter().copied();
        mates.filter(move |ix| self.source != Some(*ix)).filter(is_peer).take(MAX_MATES)
    }

    /// A place less deep than `depth` that a member with slots in `tree` takes from one with fewer, which becomes its
    /// child: so the tree stays low, and grows as long as there are slots. Its own clusters' parts come first, as far out as
    /// that at position `outermost`.
    pub(super) fn higher_place(&self, now: Time, tree: u8, child: Ix, depth: u32, outermost: usize) -> Option<Room> {
        let c = self.member(child).filter(|m| m.weight(tree) > 0 && m.free() > 0)?;
        let mut clusters = c.chain.outwards(outermost);
        clusters.find_map(|cx| self.higher_place_in(now, (tree, cx), (c, child), depth))
    }

    fn higher_place_in(&self, now: Time, (tree, cx): (u8, Cx), (c, child): (&Member, Ix), depth: u32) -> Option<Room> {
        let t = self.clusters.part(cx, tree)?;
        let (mut from, mut looked) = (1, 0);
        while let Some((d, ..)) = t.fed.range((from, 0, 0)..(depth.max(from), 0, 0)).next() {
            from = d.saturating_add(1);
            for (_, _, ix) in t.fed.range((*d, 0, 0)..(from, 0, 0)).take(MAX_LOOKED_AT_DEPTH) {
                looked += 1;
                let deserves = self.outranks(tree, c, *ix, *d);
                let room = if deserves { self.room_at(now, tree, child, *ix) } else { None };
                if room.is_some() || looked >= self.config.max_considered {
                    return room;
                }
            }
        }
        None
    }

    /// Whether a member deserves the other's place: it has many more slots there; next to the source, it is open too.
    fn outranks(&self, tree: u8, m: &Member, other: Ix, depth: u32) -> bool {
        let Some(o) = self.member(other) else { return false };
        let (own, theirs) = (m.weight(tree), o.weight(tree));
        let open = |m: &Member| m.accepts() == Accepts::Open;
        own > theirs.saturating_mul(2) || (depth == 1 && own >= theirs && open(m) && !open(o))
    }

    /// `child` takes the place of `displaced` and becomes its parent, where all three can connect.
    fn room_at(&self, now: Time, tree: u8, child: Ix, displaced: Ix) -> Option<Room> {
        let parent = self.parent(tree, displaced)?;
        let fits = displaced != child
            && self.member(displaced).is_some_and(|d| d.away_since.is_none())
            && self.may_feed(now, tree, parent, child)
            && self.may_feed(now, tree, child, displaced)
            && self.stands(tree, parent, child, Where::Fed);
        fits.then_some(Room { parent, displaced, to: child })
    }

    /// Room for a child that finds no free slot, though there may be some that it cannot use: another member makes room
    /// for it, and goes to the child, below it, or elsewhere.
    pub(super) fn room_for(&self, now: Time, tree: u8, child: Ix, who: Who) -> Option<Room> {
        let c = self.member(child)?;
        let (has_slot, mut rehoused) = (c.free() > 0, 0);
        for (_, _, displaced) in self.fed_near(tree, c.chain).take(self.config.max_considered) {
            if has_slot && let Some(room) = self.room_at(now, tree, child, *displaced) {
                return Some(room);
            }
            if rehoused >= MAX_REHOUSED {
                continue;
            }
            let Some(parent) = self.parent(tree, *displaced) else { continue };
            let fits = *displaced != child
                && self.member(*displaced).is_some_and(|d| d.away_since.is_none())
                && self.may_feed(now, tree, parent, child)
                && self.stands(tree, parent, child, Where::Fed);
            if !fits {
                continue;
            }
            rehoused += 1;
            let below = || self.find_in(now, tree, *displaced, Who::Peers, Where::Below(child));
            let to = below().or_else(|| self.find(now, tree, *displaced, who)).filter(|to| *to != parent);
            if let Some(to) = to {
                return Some(Room { parent, displaced: *displaced, to });
            }
        }
        None
    }

    /// Room for a member higher up in a part of a tree: at one who feeds a leaf of a smaller cluster there, which can have
    /// another parent in that one.
    pub(super) fn room_above(&self, now: Time, (cx, tree): (Cx, u8), child: Ix, depth: u32) -> Option<Room> {
        let part = self.clusters.part(cx, tree)?;
        let above = part.fed.range(..(depth.saturating_sub(1), 0, 0)).take(self.config.max_considered);
        let above = above.map(|f| f.2).filter(|p| self.may_feed(now, tree, *p, child));
        let mut leaves = above.take(MAX_LOOKED_AT_DEPTH).flat_map(|parent| {
            let children = self.children(tree, parent);
            let is_leaf = |c: &&Ix| self.children(tree, **c).is_empty();
            let is_inside = |c: &&Ix| self.levels(tree, **c).all(|level| level != cx);
            let here = |c: &&Ix| self.member(**c).is_some_and(|m| m.away_since.is_none());
            children.iter().filter(is_leaf).filter(is_inside).filter(here).take(1).map(move |c| (parent, *c))
        });
        leaves.find_map(|(parent, displaced)| {
            let outermost = self.shared_with_parent(tree, displaced);
            let to = self.find_peer(now, tree, displaced, Where::Fed, outermost).filter(|to| *to != parent)?;
            let room = Room { parent, displaced, to };
            (displaced != child && self.stands(tree, parent, child, Where::Fed)).then_some(room)
        })
    }

    /// Members with a parent, those of the nearest cluster first, and of each those next to the source.
    pub(super) fn fed_near(&self, tree: u8, chain: Chain) -> impl Iterator<Item = &(u32, u32, Ix)> {
        chain.outwards(0).filter_map(move |cx| self.clusters.part(cx, tree)).flat_map(|p| &p.fed)
    }

    /// Where the source can reach nobody but a child of `child`: the one with most slots, which is to be next to the source.
    pub(super) fn heir(&self, now: Time, tree: u8, child: Ix) -> Option<Ix> {
        let children = self.children(tree, child);
        let fits = |c: &&Ix| self.source_can_feed(now, tree, **c) && self.member(**c).is_some_and(Member::present);
        let weight = |c: &&Ix| (self.member(**c).map_or(0, |m| m.weight(tree)), Reverse(**c));
        children.iter().take(self.config.max_considered).filter(fits).max_by_key(weight).copied()
    }
}
