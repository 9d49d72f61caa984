//! A live stream for stories of tests: members come, go and complain; what they are told is kept.

use super::Trees;
use crate::config::Config;
use crate::dcm::{DcmOutput, Ix, MemberInfo};
use crate::trust::{Offence, Standing};
use headwater_model::assignment::{Assignment, Reach};
use headwater_model::id::{Hash, NodeId, Version};
use headwater_model::live::{LiveTerms, Substreams};
use headwater_model::node::{Accepts, Capabilities, Role};
use headwater_model::report::{Alarm, Join};
use headwater_model::time::{Micros, Rate, Time};
use headwater_model::{Place, SourceClass};
use std::collections::BTreeMap;

pub(super) const K: u8 = 8;
/// The source of most stories.
pub(super) const SOURCE: u32 = 1_000_000;

pub(super) struct World {
    pub(super) trees: Trees,
    pub(super) now: Time,
    pub(super) told: BTreeMap<NodeId, Assignment>,
    pub(super) accused: Vec<(NodeId, NodeId, Offence)>,
    /// Sessions that each had: its port changes when its process begins anew.
    pub(super) ports: BTreeMap<u32, u16>,
}

pub(super) fn id(n: u32) -> NodeId {
    NodeId(Hash::of(&[&n.to_be_bytes()]).0)
}

/// A member that offers so many kbit/s.
pub(super) fn node(n: u32, kbit: u64, accepts: Accepts) -> MemberInfo {
    let [_, b, c, d] = n.to_be_bytes();
    let observed = std::net::IpAddr::from([10 + b, c, d, 1]);
    MemberInfo {
        node: id(n),
        session: 1,
        role: Role::Peer,
        capabilities: Capabilities::regular(accepts),
        up: Rate(kbit * 125),
        place: Place { lan: Some(observed.to_string()), asn: Some(n % 5), ..Place::default() },
        reach: Reach { addresses: vec![(observed, 4433).into()], certificate: Hash([1; 32]) },
        observed,
        local_addresses: vec![],
        https: None,
        may_use_origin: true,
        history: 2,
        standing: Standing::Good,
    }
}

pub(super) fn open(n: u32, kbit: u64) -> MemberInfo {
    node(n, kbit, Accepts::Open)
}

pub(super) fn terms() -> LiveTerms {
    LiveTerms { substreams: K.try_into().unwrap(), rate: Rate::from_mbit(2), window: Micros::from_secs(60) }
}

impl World {
    pub(super) fn begun(restarted: bool) -> World {
        let trees = Trees::new(Time(1), Version::default(), terms(), Config::default(), 1, restarted);
        World { trees, now: Time(1), told: BTreeMap::new(), accused: vec![], ports: BTreeMap::new() }
    }

    /// With a source of so many kbit/s.
    pub(super) fn with_source(kbit: u64) -> World {
        let mut w = Self::begun(false);
        w.source_joins(SOURCE, kbit);
        w
    }

    pub(super) fn source_joins(&mut self, n: u32, kbit: u64) {
        self.joins_with(open(n, kbit), Join { source: true, ..Join::to(Version::default()) });
    }

    pub(super) fn joins(&mut self, info: MemberInfo) {
        self.joins_with(info, Join::to(Version::default()));
    }

    pub(super) fn joins_with(&mut self, info: MemberInfo, join: Join) {
        self.trees.join(self.now, info, &join);
        self.hear();
    }

    pub(super) fn alarm(&mut self, child: u32, alarm: Alarm) {
        assert!(self.trees.alarm(self.now, &id(child), &alarm));
        self.hear();
    }

    /// What was said is kept, and the state is sound.
    pub(super) fn hear(&mut self) {
        let mut said = Vec::new();
        self.trees.drain(&mut said);
        for output in said {
            match output {
                DcmOutput::Assign(node, a) => {
                    let before = self.told.get(&node).map(|b| b.generation);
                    assert!(before.is_none_or(|b| b < a.generation));
                    self.told.insert(node, a);
                }
                DcmOutput::Accuse(child, parent, offence) => self.accused.push((child, parent, offence)),
                _ => {}
            }
        }
        assert_eq!(self.trees.check(self.now), Vec::<String>::new());
    }

    pub(super) fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(50) {
            self.now = self.now + Micros::from_millis(50);
            self.trees.tick(self.now);
            self.hear();
        }
    }

    /// So many seconds pass in which nothing happens.
    pub(super) fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds * 2 {
            self.now = self.now + Micros::from_millis(500);
            self.trees.tick(self.now);
            self.hear();
        }
        self.pass(200);
    }

    pub(super) fn parents(&self, n: u32) -> Vec<(NodeId, Substreams)> {
        self.trees.parents_of(&id(n))
    }
    /// The parent in one tree.
    pub(super) fn parent(&self, n: u32, tree: u8) -> Option<NodeId> {
        self.parents(n).into_iter().find(|(_, trees)| trees.contains(tree)).map(|(node, _)| node)
    }
    /// What the member was last told of its parents.
    pub(super) fn told_parents(&self, n: u32) -> Vec<(NodeId, Substreams)> {
        let told = self.told.get(&id(n)).map(|a| a.parents.iter().map(|p| (p.node, p.substreams)).collect());
        let mut told: Vec<_> = told.unwrap_or_default();
        told.sort_unstable();
        told
    }
    /// Everybody who is here knows what was decided.
    pub(super) fn all_know(&self) {
        for m in self.trees.members().filter(|m| m.away_since.is_none()) {
            let told = &self.told[&m.info.node];
            let mut parents: Vec<_> = told.parents.iter().map(|p| (p.node, p.substreams)).collect();
            parents.sort_unstable();
            assert_eq!(parents, self.trees.parents_of(&m.info.node));
            let mut children: Vec<_> = told.children.iter().map(|c| c.node).collect();
            let mut are = self.trees.children_of(&m.info.node);
            children.sort_unstable();
            are.sort_unstable();
            assert_eq!(children, are);
            for spare in &told.spares {
                assert!(
                    spare
                        .substreams
                        .iter()
                        .all(|k| told.parents.iter().all(|p| { p.node != spare.node || !p.substreams.contains(k) }))
                );
            }
        }
    }
    /// A place without a parent although somebody could be one.
    pub(super) fn needlessly_hungry(&self) -> Option<(NodeId, u8, NodeId)> {
        let t = &self.trees;
        let all = 0..t.members.len() as Ix;
        (0..K).find_map(|tree| {
            t.trees[usize::from(tree)].hungry.iter().find_map(|hungry| {
                let could = |p: &Ix| {
                    let (root, below) = t.climb(tree, *p, *hungry);
                    t.may_feed(self.now, tree, *p, *hungry)
                        && t.member(*p).is_some_and(|m| m.free() > 0)
                        && t.source == Some(root)
                        && !below
                };
                let found = all.clone().find(could)?;
                Some((t.node_of(*hungry)?, tree, t.node_of(found)?))
            })
        })
    }
    /// Slots of peers that accept connections, and of the others.
    pub(super) fn slots(&self) -> (u32, u32) {
        let source = self.trees.source();
        let peers = self.trees.members().filter(|m| Some(m.info.node) != source);
        peers.filter(|m| m.info.class() == SourceClass::Peer && m.present()).fold((0, 0), |(open, closed), m| {
            if m.accepts() == Accepts::Open { (open + m.slots, closed) } else { (open, closed + m.slots) }
        })
    }
}
