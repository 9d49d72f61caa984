//! Clusters: members that are near one another have a part of each tree of their own, so that few copies of the stream come
//! in to them (S7, P9) and what is decided for one of them costs no more the more there are of others (T3, T6).
//!
//! Groups are those together in a country, there in an AS, there in an enterprise, at a site of it, behind one address.
//! A group of [`Config::cluster_opens`] members becomes a cluster of its own (a split of the one around it), and one of less
//! than [`Config::cluster_closes`] is none any more (it merges with that one): no more members change clusters at one time
//! than that (T5). Clusters are nested. Who feeds a cluster from outside is fed where the two ends are together: it has its
//! place in the part of the larger one as well, and is what both share.
//!
//! [`Config::cluster_opens`]: crate::config::Config::cluster_opens
//! [`Config::cluster_closes`]: crate::config::Config::cluster_closes

use super::Trees;
use super::index::{Lenders, Part};
use super::member::Member;
use super::sites::Site;
use super::spot::Spot;
use crate::dcm::{Ix, Problem};
use headwater_model::node::{Accepts, SourceClass};
use headwater_model::place::TIERS;
use headwater_model::rng::mix64;
use indexmap::IndexMap;
use std::collections::{BTreeMap, BTreeSet};

/// Index of a cluster.
pub(super) type Cx = u32;
/// The cluster of all members, which is always there.
pub(super) const WORLD: Cx = 0;
/// Tiers by which members are grouped, the largest first: positions in [`headwater_model::place::TIERS`].
const GROUPED_BY: [usize; 5] = [4, 3, 2, 1, 0];

/// The clusters of a member, the largest first: each is within the one before it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Chain {
    inner: [Cx; GROUPED_BY.len()],
    len: u8,
}

impl Chain {
    /// Position of the nearest one; 0 is [`WORLD`]'s.
    pub(super) fn last(&self) -> usize {
        usize::from(self.len)
    }
    /// The one at a position.
    pub(super) fn at(&self, position: usize) -> Cx {
        if position == 0 { WORLD } else { self.inner.get(position - 1).copied().unwrap_or(WORLD) }
    }
    /// The nearest one.
    pub(super) fn nearest(&self) -> Cx {
        self.at(self.last())
    }
    /// From the nearest one out to that at `outermost`.
    pub(super) fn outwards(self, outermost: usize) -> impl Iterator<Item = Cx> {
        (outermost..=self.last()).rev().map(move |position| self.at(position))
    }
    /// Position of the nearest one that both are in.
    pub(super) fn shared(&self, other: &Chain) -> usize {
        let both = self.inner.iter().zip(&other.inner).take(self.last().min(other.last()));
        both.take_while(|(a, b)| a == b).count()
    }
    fn push(&mut self, cluster: Cx) {
        if let Some(slot) = self.inner.get_mut(usize::from(self.len)) {
            *slot = cluster;
            self.len += 1;
        }
    }
    fn pop(&mut self) {
        self.len = self.len.saturating_sub(1);
        if let Some(slot) = self.inner.get_mut(usize::from(self.len)) {
            *slot = WORLD;
        }
    }
}

/// Members that are together at one tier, and at all larger ones that are known.
#[derive(Clone, Debug, Default)]
struct Group {
    count: u32,
    /// Who they are, as long as they have no cluster.
    waiting: Vec<Ix>,
    cluster: Option<Cx>,
    /// Of those behind one address.
    site: Site,
}

/// A part of all trees, and who has uplink to give there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cluster {
    /// Those who are in no cluster within it.
    pub(super) members: BTreeSet<Ix>,
    /// One per tree.
    pub(super) parts: Vec<Part>,
    pub(super) shelves: BTreeMap<(SourceClass, Accepts), Lenders>,
    /// Peers with uplink left over: most for each of those whom they help first, by its power of two.
    pub(super) helpers: BTreeMap<Accepts, Lenders>,
}

/// All clusters of a stream.
#[derive(Clone, Debug)]
pub(super) struct Clusters {
    all: Vec<Option<Cluster>>,
    vacant: Vec<Cx>,
    groups: IndexMap<u64, Group>,
    trees: usize,
    /// Where more than one is fed from outside.
    pub(super) crowded: BTreeSet<(Cx, u8)>,
    /// The one of these that had its turn last.
    pub(super) crowded_last: (Cx, u8),
    /// Those that have just come to be.
    pub(super) opened: Vec<Cx>,
    /// Which ones are looked at next.
    pub(super) turn: usize,
    /// Clusters that came to be (T5).
    pub(super) splits: u64,
    /// Clusters that are no more.
    pub(super) merges: u64,
}

impl Clusters {
    pub(super) fn new(trees: usize) -> Self {
        let mut clusters = Self {
            all: Vec::new(),
            vacant: Vec::new(),
            groups: IndexMap::new(),
            trees,
            crowded: BTreeSet::new(),
            crowded_last: (0, 0),
            opened: Vec::new(),
            turn: 0,
            splits: 0,
            merges: 0,
        };
        clusters.create();
        clusters
    }

    pub(super) fn get(&self, cx: Cx) -> Option<&Cluster> {
        self.all.get(cx as usize)?.as_ref()
    }
    pub(super) fn get_mut(&mut self, cx: Cx) -> Option<&mut Cluster> {
        self.all.get_mut(cx as usize)?.as_mut()
    }
    pub(super) fn part(&self, cx: Cx, tree: u8) -> Option<&Part> {
        self.get(cx)?.parts.get(usize::from(tree))
    }
    pub(super) fn part_mut(&mut self, cx: Cx, tree: u8) -> Option<&mut Part> {
        self.get_mut(cx)?.parts.get_mut(usize::from(tree))
    }
    /// How many there may be: some of these indices have none.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Cx, &Cluster)> {
        (0..).zip(&self.all).filter_map(|(cx, c)| Some((cx, c.as_ref()?)))
    }
    /// Nothing is in their sets any more; their capacities stay.
    pub(super) fn empty(&mut self) {
        self.crowded.clear();
        for c in self.all.iter_mut().flatten() {
            (c.shelves, c.helpers) = Default::default();
            for part in &mut c.parts {
                let capacity = std::mem::take(part).capacity;
                part.capacity = capacity;
            }
        }
    }
    /// Members behind the same address, as long as they are no cluster.
    pub(super) fn mates(&self, m: &Member) -> &[Ix] {
        self.lan(m).map_or(&[], |g| g.waiting.as_slice())
    }
    /// What is known of that address.
    pub(super) fn site(&self, m: &Member) -> Option<&Site> {
        self.lan(m).map(|g| &g.site)
    }
    /// The same, by [`lan_of`] a member.
    pub(super) fn site_mut(&mut self, lan: u64) -> Option<&mut Site> {
        self.groups.get_mut(&lan).map(|g| &mut g.site)
    }
    fn lan(&self, m: &Member) -> Option<&Group> {
        self.groups.get(&lan_of(m)?)
    }

    fn create(&mut self) -> Cx {
        let cluster = Cluster { parts: vec![Part::default(); self.trees], ..Cluster::default() };
        let cx = self.vacant.pop().unwrap_or(self.all.len() as Cx);
        match self.all.get_mut(cx as usize) {
            Some(slot) => *slot = Some(cluster),
            None => self.all.push(Some(cluster)),
        }
        cx
    }
}

/// Keys of a member's groups, the largest first: each says of all larger ones, too.
fn group_keys(m: &Member) -> impl Iterator<Item = u64> + use<> {
    let keys = m.tier_keys;
    GROUPED_BY.iter().filter_map(move |tier| keys.get(*tier).copied().flatten()).scan(0, |outer, own| {
        *outer = mix64(*outer ^ own);
        Some(*outer)
    })
}

/// The key of those behind a member's public address.
pub(super) fn lan_of(m: &Member) -> Option<u64> {
    m.tier_keys[0].and_then(|_| group_keys(m).last())
}

/// Clusters in whose parts of a tree a member has a place, the nearest first: its own one; and where others feed it from
/// outside of that, those on the way there.
pub(super) fn levels(m: &Member, spot: &Spot) -> impl Iterator<Item = Cx> + use<> {
    m.chain.outwards(usize::from(spot.shared).min(m.chain.last()))
}

impl Trees {
    /// A newcomer, which is in no set yet, is counted where it is; its clusters follow from that.
    pub(super) fn enter_groups(&mut self, ix: Ix) {
        let Some(keys) = self.member(ix).map(group_keys) else { return };
        let opens = self.config.cluster_opens;
        let mut chain = Chain::default();
        for key in keys {
            let group = self.clusters.groups.entry(key).or_default();
            group.count += 1;
            if group.cluster.is_none() {
                group.waiting.push(ix);
                // The ones around it are as large at least: they have theirs.
                if group.count < opens {
                    continue;
                }
                let waiting = std::mem::take(&mut group.waiting);
                self.split_off(key, waiting.into_iter().filter(|other| *other != ix).collect());
            }
            let group = self.clusters.groups.get(&key);
            group.and_then(|g| g.cluster).into_iter().for_each(|cx| chain.push(cx));
        }
        if let Some(m) = self.member_mut(ix) {
            m.chain = chain;
        }
        if let Some(cluster) = self.clusters.get_mut(chain.nearest()) {
            cluster.members.insert(ix);
        }
    }

    /// One that leaves, or has another place now, and is in no set any more.
    pub(super) fn leave_groups(&mut self, ix: Ix) {
        let Some((keys, chain)) = self.member(ix).map(|m| (group_keys(m).collect::<Vec<_>>(), m.chain)) else { return };
        if let Some(cluster) = self.clusters.get_mut(chain.nearest()) {
            cluster.members.remove(&ix);
        }
        if let Some(m) = self.member_mut(ix) {
            m.chain = Chain::default();
        }
        for key in keys.into_iter().rev() {
            let Some(group) = self.clusters.groups.get_mut(&key) else { continue };
            group.count = group.count.saturating_sub(1);
            group.waiting.retain(|other| *other != ix);
            if let Some(cx) = group.cluster.filter(|_| group.count < self.config.cluster_closes) {
                self.merge(key, cx);
            }
            if self.clusters.groups.get(&key).is_some_and(|g| g.count == 0) {
                self.clusters.groups.swap_remove(&key);
            }
        }
    }

    /// A member without edges is there now.
    pub(super) fn move_to(&mut self, ix: Ix, tier_keys: [Option<u64>; TIERS.len()]) {
        self.take_out(ix);
        self.count_homes(ix, false);
        self.leave_groups(ix);
        if let Some(m) = self.member_mut(ix) {
            m.tier_keys = tier_keys;
        }
        self.enter_groups(ix);
        self.count_homes(ix, true);
        self.put_in(ix);
    }

    /// These members get a cluster of their own within the one that they are in.
    fn split_off(&mut self, key: u64, members: Vec<Ix>) {
        let cx = self.clusters.create();
        if let Some(group) = self.clusters.groups.get_mut(&key) {
            group.cluster = Some(cx);
        }
        self.clusters.opened.push(cx);
        self.clusters.splits += 1;
        self.rechain(&members, |trees, ix| {
            let outer = trees.member_mut(ix).map(|m| {
                let outer = m.chain.nearest();
                m.chain.push(cx);
                outer
            });
            trees.change_cluster(ix, outer, cx);
        });
    }

    /// The members of a cluster go to the one around it.
    fn merge(&mut self, key: u64, cx: Cx) {
        self.clusters.merges += 1;
        let members: Vec<Ix> = self.clusters.get(cx).map(|c| c.members.iter().copied().collect()).unwrap_or_default();
        self.rechain(&members, |trees, ix| {
            let outer = trees.member_mut(ix).map(|m| {
                m.chain.pop();
                m.chain.nearest()
            });
            trees.change_cluster(ix, Some(cx), outer.unwrap_or(WORLD));
        });
        if let Some(group) = self.clusters.groups.get_mut(&key) {
            (group.cluster, group.waiting) = (None, members);
        }
        self.clusters.crowded.retain(|(crowded, _)| *crowded != cx);
        self.clusters.opened.retain(|opened| *opened != cx);
        if let Some(slot) = self.clusters.all.get_mut(cx as usize) {
            *slot = None;
            self.clusters.vacant.push(cx);
        }
    }

    fn change_cluster(&mut self, ix: Ix, from: Option<Cx>, to: Cx) {
        if let Some(cluster) = from.and_then(|cx| self.clusters.get_mut(cx)) {
            cluster.members.remove(&ix);
        }
        if let Some(cluster) = self.clusters.get_mut(to) {
            cluster.members.insert(ix);
        }
    }

    /// Changes the clusters of members. No edge changes: who has the wrong parents now gets others one by one.
    pub(super) fn rechain(&mut self, members: &[Ix], change: impl Fn(&mut Self, Ix)) {
        let children = |ix: &Ix| {
            self.spots(*ix).flat_map(|(tree, s)| s.children.iter().map(move |c| (tree, *c))).collect::<Vec<_>>()
        };
        let others = |(_, c): &(u8, Ix)| !members.contains(c);
        let below: Vec<(u8, Ix)> = members.iter().flat_map(children).filter(others).collect();
        below.iter().for_each(|(tree, c)| self.enter_tree(*tree, *c, false));
        for ix in members {
            self.take_out(*ix);
            self.count_homes(*ix, false);
        }
        members.iter().for_each(|ix| change(self, *ix));
        let own = |ix: &Ix| self.all_trees().map(|tree| (tree, *ix)).collect::<Vec<_>>();
        for (tree, c) in members.iter().flat_map(own).chain(below.iter().copied()).collect::<Vec<_>>() {
            self.note_shared(tree, c);
        }
        for ix in members {
            self.count_homes(*ix, true);
            self.put_in(*ix);
        }
        below.iter().for_each(|(tree, c)| self.enter_tree(*tree, *c, true));
    }

    /// Where a member, which is in no set of that tree, and its parent are together.
    pub(super) fn note_shared(&mut self, tree: u8, child: Ix) {
        let parent = self.parent(tree, child);
        let shared = parent.map_or(usize::MAX, |parent| self.shared(parent, child));
        if let Some(spot) = self.spot_mut(tree, child) {
            spot.shared = u8::try_from(shared).unwrap_or(u8::MAX);
        }
    }

    /// Position of the nearest cluster that both are in, among those of the child. The source is in none but that of all.
    pub(super) fn shared(&self, parent: Ix, child: Ix) -> usize {
        let both = self.member(parent).zip(self.member(child)).filter(|_| self.source != Some(parent));
        both.map_or(0, |(p, c)| c.chain.shared(&p.chain))
    }

    /// The same of a member by its index.
    pub(super) fn levels(&self, tree: u8, ix: Ix) -> impl Iterator<Item = Cx> {
        let both = self.member(ix).zip(self.spot(tree, ix));
        both.into_iter().flat_map(|(m, spot)| levels(m, spot))
    }

    /// Whether members and clusters know one another.
    pub(super) fn check_clusters(&self, say: &mut impl FnMut(Problem)) {
        let mut counted: BTreeMap<u64, u32> = BTreeMap::new();
        for (ix, m) in (0..).zip(&self.members).filter_map(|(ix, m)| Some((ix, m.as_ref()?))) {
            let keys: Vec<u64> = group_keys(m).collect();
            keys.iter().for_each(|key| *counted.entry(*key).or_default() += 1);
            let chain: Vec<Cx> = keys.iter().filter_map(|key| self.clusters.groups.get(key)?.cluster).collect();
            if chain != (1..=m.chain.last()).map(|position| m.chain.at(position)).collect::<Vec<_>>() {
                say(format!("{:?} is in clusters {:?} and should be in {chain:?}", m.info.node, m.chain));
            }
            if !self.clusters.get(m.chain.nearest()).is_some_and(|c| c.members.contains(&ix)) {
                say(format!("{:?} is not in its cluster", m.info.node));
            }
        }
        let groups: BTreeMap<u64, u32> = self.clusters.groups.iter().map(|(key, g)| (*key, g.count)).collect();
        if groups != counted {
            say("groups are counted wrong".into());
        }
        let opens = |g: &Group| g.cluster.is_none() && g.count >= self.config.cluster_opens;
        let closes = |g: &Group| g.cluster.is_some() && g.count < self.config.cluster_closes;
        if self.clusters.groups.values().any(|g| opens(g) || closes(g)) {
            say("a group has a cluster and should have none, or none and should have one".into());
        }
        if self.clusters.iter().map(|(_, c)| c.members.len()).sum::<usize>() != self.by_node.len() {
            say("clusters have members that are gone".into());
        }
    }
}
