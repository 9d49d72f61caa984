//! A swarm for stories of tests: members come, go and fetch; what the DCM says is kept.

use super::{Dcm, DcmOutput, MemberInfo};
use crate::config::Config;
use crate::trust::Standing;
use headwater_model::assignment::{Assignment, Lease, Reach};
use headwater_model::id::{Hash, NodeId, Version};
use headwater_model::node::{Accepts, Capabilities, From, Known, Role, SourceAccess};
use headwater_model::report::Join;
use headwater_model::time::{Micros, Time};
use headwater_model::{Layout, Place, Rate};
use std::collections::BTreeMap;

pub(super) const RUNS: u32 = 24;
/// Nodes from this one on are in one network, each of the others in its own.
pub(super) const CROWD: u8 = 100;

pub(super) struct World {
    pub(super) dcm: Dcm,
    pub(super) now: Time,
    pub(super) leases: Vec<(NodeId, Lease)>,
    pub(super) revoked: Vec<(NodeId, u32)>,
    pub(super) assigned: BTreeMap<NodeId, Assignment>,
    /// Where nodes are; nobody knows of the others.
    pub(super) places: BTreeMap<u8, Place>,
}

pub(super) fn id(n: u8) -> NodeId {
    NodeId([n; 32])
}

pub(super) fn open() -> Capabilities {
    Capabilities::regular(Accepts::Open)
}

pub(super) fn walled() -> Capabilities {
    Capabilities { udp: Known { value: false, from: From::Test }, ..open() }
}

pub(super) fn listed() -> Capabilities {
    Capabilities { sources: Known::claim(SourceAccess::Listed), ..open() }
}

impl World {
    pub(super) fn new() -> World {
        Self::begun(false)
    }

    /// Of a control center that was restarted, or was not.
    pub(super) fn begun(restarted: bool) -> World {
        let layout = Layout::single(1 << 20, u64::from(RUNS) << 20).unwrap();
        let dcm = Dcm::new(Time(0), Version::default(), layout, Config::default(), 1, restarted);
        World { dcm, now: Time(0), leases: vec![], revoked: vec![], assigned: BTreeMap::new(), places: BTreeMap::new() }
    }

    pub(super) fn joins(&mut self, n: u8, capabilities: Capabilities, role: Role, complete: bool) {
        self.joins_with(n, 1, capabilities, role, complete, vec![]);
    }

    /// It joins in this session, and says that it works on these leases.
    pub(super) fn joins_with(
        &mut self,
        n: u8,
        session: u64,
        capabilities: Capabilities,
        role: Role,
        complete: bool,
        leases: Vec<u32>,
    ) {
        let reach = Reach { addresses: ["192.0.2.1:443".parse().unwrap()].into(), certificate: Hash([n; 32]) };
        let info = MemberInfo {
            session,
            node: id(n),
            role,
            capabilities,
            up: Rate::from_mbit(20),
            place: self.places.get(&n).cloned().unwrap_or_default(),
            reach: reach.clone(),
            observed: [192, 0, n.min(CROWD), n].into(),
            local_addresses: vec![],
            https: (role == Role::Waypoint).then_some(reach),
            may_use_origin: true,
            history: 2,
            standing: Standing::Good,
        };
        let version = Version::default();
        self.dcm.join(self.now, info, &Join { complete, leases, ..Join::to(version) });
        self.dcm.set_rate(&id(n), Rate::from_mbit(20));
        self.pass(0);
    }

    pub(super) fn pass(&mut self, ms: u64) {
        for _ in 0..=ms / 100 {
            self.dcm.tick(self.now);
            let mut said = Vec::new();
            self.dcm.drain(&mut said);
            for output in said {
                match output {
                    DcmOutput::Lease(node, lease) => self.leases.push((node, lease)),
                    DcmOutput::Revoke(node, run) => self.revoked.push((node, run)),
                    DcmOutput::Assign(node, assignment) => drop(self.assigned.insert(node, assignment)),
                    DcmOutput::ChangeChildren(..)
                    | DcmOutput::Trouble(..)
                    | DcmOutput::Accuse(..)
                    | DcmOutput::Guilty(..) => {}
                }
            }
            assert_eq!(self.dcm.check(self.now), Vec::<String>::new());
            self.now = self.now + Micros::from_millis(100);
        }
    }

    pub(super) fn take(&mut self, n: u8) -> Vec<Lease> {
        let (its, others) = std::mem::take(&mut self.leases).into_iter().partition(|(node, _)| *node == id(n));
        self.leases = others;
        its.into_iter().map(|(_, lease)| lease).collect()
    }
}
