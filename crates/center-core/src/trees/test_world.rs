//! A live stream for stories of tests: members come, go and complain; what they are told is kept.

use super::Trees;
use crate::config::Config;
use crate::dcm::{DcmOutput, Ix, MemberInfo};
use crate::network_monitor::Trouble;
use crate::trust::{Offence, Standing};
use headwater_model::assignment::{Assignment, Reach};
use headwater_model::id::{Hash, NodeId, Version};
use headwater_model::live::{LiveTerms, Substreams};
use headwater_model::node::{Accepts, Capabilities, Priority, Role};
use headwater_model::report::{Alarm, ContentReport, EdgeReport, Join};
use headwater_model::time::{Micros, Rate, Time};
use headwater_model::{Place, SourceClass};
use std::collections::BTreeMap;

pub(super) const K: u8 = 8;
/// The source of most stories.
pub(super) const SOURCE: u32 = 1_000_000;

/// Of the edge from a parent to a child in a tree, at the end of an interval: the last pieces of which the parent and the
/// child speak.
pub(super) type Says = dyn Fn(u64, NodeId, NodeId, u8) -> (Option<u64>, Option<u64>);

/// The highest piece of a substream that the source has sent by the end of an interval.
pub(super) fn newest(interval: u64, tree: u8) -> u64 {
    interval * 64 + u64::from(tree)
}

pub(super) struct World {
    pub(super) trees: Trees,
    pub(super) now: Time,
    pub(super) told: BTreeMap<NodeId, Assignment>,
    pub(super) accused: Vec<(NodeId, NodeId, Offence)>,
    /// Parent, child, and what is wrong between them.
    pub(super) troubles: Vec<(NodeId, NodeId, Trouble)>,
    /// The last one of which heartbeats told.
    pub(super) interval: u64,
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
        reach: Reach { addresses: [(observed, 4433).into()].into(), certificate: Hash([1; 32]) },
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
        World {
            trees,
            now: Time(1),
            told: BTreeMap::new(),
            accused: vec![],
            troubles: vec![],
            interval: 0,
            ports: BTreeMap::new(),
        }
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

    /// An interval passes, and all members tell of it.
    pub(super) fn beat(&mut self, says: &Says) {
        self.pass(2000);
        self.all_tell(says);
    }

    /// All members tell of the next interval.
    pub(super) fn all_tell(&mut self, says: &Says) {
        self.interval += 1;
        for node in self.trees.nodes() {
            self.tells(&node, self.interval, says);
        }
        self.hear();
    }

    /// A member's heartbeat.
    pub(super) fn tells(&mut self, node: &NodeId, interval: u64, says: &Says) {
        let edge = |other: NodeId, trees: Substreams, last: &dyn Fn(u8) -> Option<u64>| EdgeReport {
            node: other,
            pieces: 1,
            bytes: 1,
            waited: Micros(0),
            rtt: Micros(0),
            sent_packets: 0,
            lost_packets: 0,
            offers_nothing: false,
            last_pieces: trees.iter().filter_map(|t| Some((t, last(t)?))).collect(),
        };
        let from = self.trees.parents_of(node).into_iter();
        let from = from.map(|(p, trees)| edge(p, trees, &|t| says(interval, p, *node, t).1)).collect();
        let gives = |child: &NodeId| {
            let all = self.trees.parents_of(child);
            all.into_iter().find(|(p, _)| p == node).map(|(_, trees)| trees).unwrap_or_default()
        };
        let to = self.trees.children_of(node).into_iter();
        let to = to.map(|c| edge(c, gives(&c), &|t| says(interval, *node, c, t).0)).collect();
        let said = ContentReport {
            version: Version::default(),
            runs: None,
            pieces_held: 0,
            origin_bytes: 0,
            wasted_bytes: 0,
            from,
            to,
            priority: Priority::High,
            live: None,
        };
        self.trees.heartbeat(self.now, node, interval, &said);
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
                DcmOutput::ChangeChildren(node, change) => {
                    let told = self.told.get_mut(&node).expect("told of children before anything else");
                    assert!(told.generation < change.generation);
                    told.change(change);
                }
                DcmOutput::Accuse(child, parent, offence) => self.accused.push((child, parent, offence)),
                DcmOutput::Trouble(parent, child, what) => self.troubles.push((parent, child, what)),
                _ => {}
            }
        }
        assert_eq!(self.trees.check(self.now), Vec::<String>::new());
        let wrong = self.told.iter().find_map(|(node, told)| self.trees.told_wrong(node, told));
        assert_eq!(wrong, None);
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
                    let is_peer =
                        t.member(*p).is_some_and(|m| m.info.class() == SourceClass::Peer) && t.source != Some(*p);
                    (is_peer || !t.stays_pulled(tree, *hungry))
                        && t.may_feed(self.now, tree, *p, *hungry)
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
