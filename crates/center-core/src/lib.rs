//! The control center's decisions as one state machine: inputs in, outputs out. Nothing here reads a clock, does I/O or
//! draws random numbers; the server and the simulator drive the same code.
//!
//! [`Center`] routes between the parts, each in a file of its name: client manager, content directory with the service
//! manager, a [`dcm::Dcm`] per file and [`trees::Trees`] per live stream, network monitor, history.
#![deny(clippy::disallowed_methods, reason = "time and I/O are arguments of the cores")]
#![warn(missing_docs)]

pub mod budgets;
pub mod client_manager;
mod config;
pub mod content_directory;
mod coordinator;
pub mod dcm;
pub mod explain;
pub mod history;
mod judging;
pub mod network_monitor;
mod node_map;
pub mod place_table;
mod probing;
mod progress;
pub mod reachability;
pub mod stand_ins;
pub mod trees;
pub mod trust;

pub use config::Config;
pub use progress::Progress;

use budgets::{Budget, Changed};
use client_manager::{Arrival, ClientManager, Welcome};
use content_directory::{Content, ContentDirectory, Published};
use coordinator::Coordinator;
use dcm::{DcmOutput, MemberInfo};
use headwater_model::assignment::{Assignment, ChildrenChange, Lease, Refusal};
use headwater_model::id::{ContentId, NodeId, Version};
use headwater_model::reach::{Probe, canonical};
use headwater_model::report::{Alarm, DialResult, Heartbeat, Join};
use headwater_model::time::{Micros, Rate, Time};
use headwater_model::{Accepts, Role};
use history::{History, Transfer};
use network_monitor::{Links, Trouble};
use node_map::NodeMap;
use reachability::{Prober, Verdict};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use trust::{Offence, Terms, Trust};

/// What happens to the control center. Node messages are believed to come from the node that they name: the shell
/// authenticates, and drops messages of sessions that are over.
#[derive(Clone, Debug)]
pub enum Input {
    /// A session begins.
    Arrived(Box<Arrival>),
    /// A session ended; `bye` when the node said so.
    Departed {
        /// Who.
        node: NodeId,
        /// Number of the session.
        session: u64,
        /// It left on purpose.
        bye: bool,
    },
    /// A node wants a content.
    Join(NodeId, Join),
    /// A node no longer takes part in a content.
    Leave(NodeId, Version),
    /// A heartbeat.
    Heartbeat(NodeId, Heartbeat),
    /// A leased run arrived.
    LeaseDone(NodeId, Version, u32),
    /// A leased run could not be fetched; true where the node's own access list forbids the source.
    LeaseFailed(NodeId, Version, u32, bool),
    /// A child raises the alarm.
    Alarm(NodeId, Version, Alarm),
    /// The outcome of a dial.
    Dialled(NodeId, DialResult),
    /// A node says that a probe arrived there: its number, and where its packets came from.
    ProbeArrived(NodeId, [u8; 16], SocketAddr),
    /// A node says that a probe that it was told to make did not get through.
    ProbeFailed(NodeId, [u8; 16]),
    /// A router forwards this address to a node, as it says; `None` when it does no more.
    Mapped(NodeId, Option<SocketAddr>),
    /// A node offers so much uplink from now on; 0 = it serves nobody.
    Offers(NodeId, Rate),
    /// A node's session comes from another address now.
    Moved(NodeId, SocketAddr),
    /// A content, or a new version of it.
    Publish(Box<Content>),
    /// A content is withdrawn.
    Unpublish(ContentId),
    /// Time passes; also as [`Center::next_timeout`] says.
    Tick,
}

/// What the control center does about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The node may have this version: its log goes out (and the origin's credentials, if the node may know them).
    Admit {
        /// To whom.
        node: NodeId,
        /// What.
        version: Version,
        /// With the credentials.
        origin_credentials: bool,
    },
    /// A node gets nothing.
    Refuse(NodeId, Version, Refusal),
    /// A new assignment.
    Assign(NodeId, Assignment),
    /// Some of a node's children changed, and nothing else of its assignment.
    ChangeChildren(NodeId, ChildrenChange),
    /// A lease.
    Lease(NodeId, Lease),
    /// A lease that ended.
    Revoke(NodeId, Version, u32),
    /// Dial an address once.
    Probe(NodeId, Probe),
    /// Fetch this content in order to serve it.
    Fetch(NodeId, ContentId),
    /// The content, or this version of it, is no longer served.
    Withdrawn(NodeId, ContentId, String),
    /// End a session.
    Close {
        /// Whose.
        node: NodeId,
        /// Which.
        session: u64,
        /// In words.
        why: String,
        /// Whether to come back later.
        come_back: bool,
    },
    /// A transfer ended: to be kept.
    Record(Transfer),
    /// Something for the event log.
    Event(Event),
}

/// What operators see happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An edge gave trouble: content, parent, child, what.
    Trouble(ContentId, NodeId, NodeId, Trouble),
    /// A child raised the alarm.
    Alarm(ContentId, NodeId, Alarm),
    /// An identity is used by two processes.
    Takeover(NodeId),
    /// What a node accepts was found out.
    Reachability(NodeId, Verdict),
    /// The link between two ends is congested: content, parent, child, and their ISPs where these are known and differ.
    Congested(ContentId, NodeId, NodeId, Option<(String, String)>),
    /// Most pairs between two ISPs are congested, or no longer.
    Link {
        /// From where.
        from: String,
        /// To where.
        to: String,
        /// Pairs that are named as congested.
        congested_pairs: usize,
        /// Pairs in all.
        pairs: usize,
        /// Whether it is congested now.
        congested: bool,
    },
    /// What is thought of a node changed.
    Verdict(trust::Verdict),
}

/// Running totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Assignments sent.
    pub assignments: u64,
    /// Parent edges in them whose ends cannot reach each other. Counted where they go out, against what the client manager
    /// knows: it must stay 0.
    pub lightweight_pairs: u64,
    /// Leases given.
    pub leases: u64,
    /// Alarms.
    pub alarms: u64,
    /// Edges with trouble.
    pub troubles: u64,
    /// Heartbeats.
    pub heartbeats: u64,
    /// Joins.
    pub joins: u64,
}

/// Dials between nodes of two kinds, as both ends report them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dials {
    /// Dials that ended.
    pub attempted: u64,
    /// After these the two were connected.
    pub connected: u64,
}

/// The control center's decisions.
#[derive(Clone, Debug)]
pub struct Center {
    config: Config,
    epoch: u64,
    /// Until when nodes are expected to come back with what they hold.
    restarted_until: Time,
    clients: ClientManager,
    directory: ContentDirectory,
    history: History,
    trust: Trust,
    links: Links,
    progress: BTreeMap<ContentId, NodeMap<Progress>>,
    /// Bytes from the origin of nodes that are gone for long, by content.
    gone_origin_bytes: BTreeMap<ContentId, u64>,
    /// When such nodes are looked for next.
    forget_at: Time,
    totals: Totals,
    prober: Option<Prober>,
    dials: BTreeMap<(Accepts, Accepts), Dials>,
    /// Time of the last input.
    now: Time,
    tick_at: Time,
    /// When trust and links are looked at next.
    judge_at: Time,
    scratch: Vec<DcmOutput>,
    /// Grants that changed: kept for its memory.
    regranted: Vec<Changed>,
}

impl Center {
    /// `epoch` is durable and rises with each start; `restarted` when there was an earlier one.
    pub fn new(now: Time, config: Config, epoch: u64, restarted: bool) -> Self {
        let restarted_until = if restarted { now + config.settle } else { now };
        Self {
            epoch,
            restarted_until,
            clients: ClientManager::new(config.heartbeat),
            directory: ContentDirectory::default(),
            history: History::default(),
            trust: Trust::new(Terms { ban: config.ban, max_ban: config.max_ban }),
            links: Links::default(),
            progress: BTreeMap::new(),
            gone_origin_bytes: BTreeMap::new(),
            forget_at: now,
            totals: Totals::default(),
            prober: None,
            dials: BTreeMap::new(),
            now,
            tick_at: now,
            judge_at: now,
            scratch: Vec::new(),
            regranted: Vec::new(),
            config,
        }
    }

    /// Tests from now on who can be reached (A3); without this, claims count. `secret` makes the probes' numbers.
    pub fn test_reachability(mut self, secret: [u8; 32]) -> Self {
        self.prober = Some(Prober::new(secret, self.config.test_on_loopback));
        self
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }
    /// The durable epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
    /// Sessions.
    pub fn clients(&self) -> &ClientManager {
        &self.clients
    }
    /// Contents and swarms.
    pub fn directory(&self) -> &ContentDirectory {
        &self.directory
    }
    /// Records.
    pub fn history(&self) -> &History {
        &self.history
    }
    /// Whom to believe.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }
    /// Links between regions.
    pub fn links(&self) -> &Links {
        &self.links
    }
    /// Violated invariants of all swarms and of all nodes' budgets; empty when the state is sound.
    pub fn check(&self, now: Time) -> Vec<dcm::Problem> {
        let coordinators = self.directory.iter().filter_map(|(_, c)| c.coordinator());
        let mut problems: Vec<dcm::Problem> = coordinators.flat_map(|c| c.check(now)).collect();
        for (node, client) in self.clients.iter() {
            let of = |p| format!("the budget of {node:?}: {p}");
            problems.extend(client.budget.check().into_iter().map(of));
            if self.clients.reachability(node) != Some(&client.reachability()) {
                problems.push(format!("{node:?} can be reached in another way than what goes out is checked against"));
            }
            if client.budget.total() != client.up {
                problems.push(of(format!("{:?} of an uplink of {:?}", client.budget.total(), client.up)));
            }
            for (content, granted) in client.budget.grants() {
                let Some(up) = self.directory.coordinator(content).and_then(|c| c.uplink_of(node)) else { continue };
                if up != granted {
                    problems.push(of(format!("{granted:?} are granted to a content that uses {up:?}")));
                }
            }
        }
        problems
    }
    /// Running totals.
    pub fn totals(&self) -> Totals {
        self.totals
    }
    /// What was found out about who can be reached; `None` where it is not tested.
    pub fn prober(&self) -> Option<&Prober> {
        self.prober.as_ref()
    }
    /// Dials by what the two ends accept, the more open one first.
    pub fn dials(&self) -> &BTreeMap<(Accepts, Accepts), Dials> {
        &self.dials
    }
    /// What a node got in a content.
    pub fn progress(&self, content: &ContentId, node: &NodeId) -> Option<&Progress> {
        self.progress.get(content)?.get(node)
    }
    /// What all nodes got in a content.
    pub fn progress_of(&self, content: ContentId) -> impl Iterator<Item = (&NodeId, &Progress)> {
        self.progress.get(&content).into_iter().flatten()
    }

    /// When [`Input::Tick`] is due.
    pub fn next_timeout(&self) -> Time {
        let probes = self.prober.as_ref().and_then(Prober::next_timeout);
        let coordinators = self.directory.iter().filter_map(|(_, c)| c.coordinator()?.next_timeout());
        coordinators.chain(probes).fold(self.tick_at.min(self.judge_at), |a, b| a.min(b))
    }

    /// A node has seen a higher epoch than this one (this machine's clock went back, or the identity was restored from an
    /// older copy): assignments must be newer than those that it has.
    pub fn raise_epoch(&mut self, now: Time, epoch: u64) {
        if epoch <= self.epoch {
            return;
        }
        self.epoch = epoch;
        for coordinator in self.directory.coordinators_mut() {
            coordinator.raise_epoch(now, epoch);
        }
    }

    /// Sends all assignments again, with new tickets: the shell asks for it at half the life of a ticket.
    pub fn renew(&mut self, now: Time) {
        for coordinator in self.directory.coordinators_mut() {
            coordinator.renew(now);
        }
    }

    /// The one way in.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        self.now = now;
        match input {
            Input::Arrived(arrival) => self.arrived(now, *arrival, out),
            Input::Departed { node, session, bye } => self.departed(now, node, session, bye, out),
            Input::Join(node, join) => {
                self.totals.joins += 1;
                self.join(now, node, &join, out);
            }
            Input::Leave(node, version) => self.leave(now, node, version.content, out),
            Input::Heartbeat(node, heartbeat) => self.heartbeat(now, node, &heartbeat, out),
            Input::LeaseDone(node, v, run) => self.with_dcm(now, v, out, |d| d.lease_done(now, &node, run)),
            Input::LeaseFailed(node, v, run, forbidden) => {
                self.with_dcm(now, v, out, |d| d.lease_failed(now, &node, run, forbidden));
            }
            Input::Alarm(node, v, alarm) => {
                self.totals.alarms += 1;
                let mut heard = false;
                self.with_coordinator(now, v, out, |c| heard = c.alarm(now, &node, &alarm));
                if heard {
                    out.push(Output::Event(Event::Alarm(v.content, node, alarm)));
                }
            }
            Input::Dialled(node, result) => self.dialled(now, node, &result, out),
            Input::ProbeArrived(node, number, from) => {
                self.probing(now, out, |p| p.probe_arrived(now, &node, number, from));
            }
            Input::ProbeFailed(node, number) => self.probing(now, out, |p| p.probe_failed(now, &node, number)),
            Input::Mapped(node, address) => {
                if self.clients.get(&node).is_some_and(|c| c.arrival.introduction.capabilities.udp.value) {
                    self.probing(now, out, |p| p.mapped_address(now, node, address));
                }
            }
            Input::Offers(node, up) => {
                self.clients.offers(now, &node, up);
                let up = self.clients.get(&node).map_or(Rate(0), |c| c.up);
                self.regrant(&node, |budget, changed| budget.set_total(now, up, changed));
            }
            Input::Moved(node, observed) => self.moved(now, node, observed, out),
            Input::Publish(content) => self.publish(now, *content, out),
            Input::Unpublish(id) => self.unpublish(now, id, out),
            Input::Tick => self.tick(now, out),
        }
    }

    fn arrived(&mut self, now: Time, mut arrival: Arrival, out: &mut Vec<Output>) {
        arrival.observed = canonical(arrival.observed);
        let (node, session, role) = (arrival.node, arrival.session, arrival.introduction.role);
        let close = |session, why: &str, come_back| Output::Close { node, session, why: why.into(), come_back };
        if self.clients.len() >= self.config.max_nodes && self.clients.get(&node).is_none() {
            out.push(close(session, "the control center has as many nodes as it takes", true));
            return;
        }
        let fight = "two processes use this identity; each needs a data folder of its own";
        match self.clients.arrive(now, arrival) {
            Welcome::New => {}
            Welcome::TakesOver(old) => {
                out.push(Output::Event(Event::Takeover(node)));
                out.push(close(old, "a newer process uses this identity", false));
                self.history.went(now, &node);
                let up = self.clients.get(&node).map_or(Rate(0), |c| c.up);
                self.regrant(&node, |budget, changed| budget.set_total(now, up, changed));
            }
            Welcome::Refused { old } => {
                out.push(Output::Event(Event::Takeover(node)));
                out.push(close(old, fight, false));
                out.push(close(session, fight, false));
                self.history.went(now, &node);
                return;
            }
        }
        self.history.came(now, node);
        self.alive(now, node, false, out);
        self.begin_tests(now, node, out);
        if role == Role::Waypoint {
            out.extend(
                self.directory.iter().take(self.config.max_contents_per_node).map(|(id, _)| Output::Fetch(node, *id)),
            );
        }
    }

    fn departed(&mut self, now: Time, node: NodeId, session: u64, bye: bool, out: &mut Vec<Output>) {
        let Some(client) = self.clients.depart(&node, session) else { return };
        self.probing(now, out, |p| p.left(now, &node));
        self.history.went(now, &node);
        for content in client.contents {
            let Some(coordinator) = self.directory.coordinator_mut(&content) else { continue };
            if bye {
                self.leave(now, node, content, out);
            } else {
                coordinator.away(now, &node);
                self.collect(now, content, out);
            }
        }
    }

    fn join(&mut self, now: Time, node: NodeId, join: &Join, out: &mut Vec<Output>) {
        let id = join.version.content;
        if self.clients.get(&node).is_none() {
            return;
        }
        let Some(content) = self.directory.get(&id) else {
            let why = if self.directory.was_withdrawn(&id) { Refusal::Unpublished } else { Refusal::UnknownContent };
            out.push(Output::Refuse(node, join.version, why));
            return;
        };
        let version = content.version;
        if join.version.epoch != 0 && join.version.epoch != version.epoch {
            out.push(Output::Refuse(node, join.version, Refusal::OtherVersion { current: version.epoch }));
            return;
        }
        let is_live = content.kind.is_live();
        if !self.is_admitted(node, join, id, out) {
            return;
        }
        let Some(client) = self.clients.get(&node) else { return };
        if client.contents.len() >= self.config.max_contents_per_node && !client.contents.contains(&id) {
            let limit = format!("a node takes part in at most {} contents", self.config.max_contents_per_node);
            out.push(Output::Refuse(node, join.version, Refusal::Limit(limit)));
            return;
        }
        if let Some(client) = self.clients.get_mut(&node) {
            client.contents.insert(id);
        }
        if !join.looks_first {
            self.regrant(&node, |budget, changed| budget.join(now, id, is_live, changed));
        }
        let (Some(client), Some(content)) = (self.clients.get(&node), self.directory.get(&id)) else { return };
        let arrival = &client.arrival;
        let trusted = arrival.introduction.role == Role::Waypoint && arrival.enrolled;
        let may_use_origin = !content.origin_needs_credentials || content.share_origin_credentials || trusted;
        let info = MemberInfo {
            node,
            session: arrival.session,
            role: if trusted { Role::Waypoint } else { Role::Peer },
            capabilities: arrival.introduction.capabilities,
            up: client.budget.grant(&id),
            place: arrival.place.clone(),
            reach: client.reach(),
            observed: arrival.observed.ip(),
            local_addresses: client.local_addresses(),
            https: client.https().filter(|_| trusted),
            may_use_origin,
            history: self.history.node(&node).map_or(2, |r| r.score()),
            standing: self.trust.standing(&node),
        };
        let origin_credentials = content.origin_needs_credentials && may_use_origin;
        out.push(Output::Admit { node, version, origin_credentials });
        let p = self.progress.entry(id).or_default().entry(node).or_default();
        if p.since == Time(0) || p.complete_at.is_some() {
            *p = Progress { since: now, ..Progress::default() };
        }
        if join.looks_first {
            return;
        }
        let restarted = now < self.restarted_until;
        let Some(manager) = self.directory.serve(now, &id, &self.config, self.epoch, restarted) else { return };
        manager.join(now, info, join);
        self.collect(now, id, out);
    }

    fn leave(&mut self, now: Time, node: NodeId, content: ContentId, out: &mut Vec<Output>) {
        self.takes_no_part(now, &node, &content);
        if let Some(coordinator) = self.directory.coordinator_mut(&content) {
            coordinator.leave(now, &node);
        }
        self.record(now, content, node, false, out);
        self.collect(now, content, out);
    }

    fn publish(&mut self, now: Time, content: Content, out: &mut Vec<Output>) {
        let id = content.version.content;
        let (published, former) = self.directory.publish(content);
        for node in former {
            self.takes_no_part(now, &node, &id);
            out.push(Output::Withdrawn(node, id, "a newer version was published".into()));
        }
        if published == Published::NewVersion {
            self.forget_progress_of(id);
        }
        if matches!(published, Published::New | Published::NewVersion) {
            let waypoints = self.clients.iter().filter(|(_, c)| c.arrival.introduction.role == Role::Waypoint);
            out.extend(waypoints.map(|(node, _)| Output::Fetch(*node, id)));
        }
    }

    fn unpublish(&mut self, now: Time, id: ContentId, out: &mut Vec<Output>) {
        let Some(content) = self.directory.unpublish(now, &id) else { return };
        for node in content.coordinator().map(Coordinator::nodes).unwrap_or_default() {
            self.takes_no_part(now, &node, &id);
            out.push(Output::Withdrawn(node, id, "its publisher withdrew it".into()));
        }
        self.forget_progress_of(id);
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.tick_at <= now {
            self.clients.tick(now);
            self.forget_progress(now);
            self.tick_at = now + Micros::from_millis(500);
            // A dead node is found here before its connection times out.
            for node in self.clients.fell_quiet(now, self.config.heartbeat.times(2)) {
                let contents = self.clients.get(&node).map(|c| c.contents.clone()).unwrap_or_default();
                for content in contents {
                    if let Some(coordinator) = self.directory.coordinator_mut(&content) {
                        coordinator.away(now, &node);
                        self.collect(now, content, out);
                    }
                }
            }
        }
        self.probing(now, out, |p| p.tick(now));
        if self.judge_at <= now {
            self.judge_at = now + Micros::from_secs(1);
            self.judge(now, out);
        }
        let due: Vec<ContentId> = self
            .directory
            .iter()
            .filter(|(_, c)| c.coordinator().and_then(Coordinator::next_timeout).is_some_and(|t| t <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            if let Some(coordinator) = self.directory.coordinator_mut(&id) {
                coordinator.tick(now);
            }
            self.collect(now, id, out);
        }
    }

    // ---- who can be reached ----

    // ---- helpers ----

    fn with_dcm(&mut self, now: Time, version: Version, out: &mut Vec<Output>, f: impl FnOnce(&mut dcm::Dcm)) {
        if let Some(dcm) = self.directory.dcm_mut(&version.content).filter(|d| d.version() == version) {
            f(dcm);
            self.collect(now, version.content, out);
        }
    }

    fn with_coordinator(
        &mut self,
        now: Time,
        version: Version,
        out: &mut Vec<Output>,
        f: impl FnOnce(&mut dyn Coordinator),
    ) {
        if let Some(coordinator) = self.directory.coordinator_mut(&version.content).filter(|c| c.version() == version) {
            f(coordinator);
            self.collect(now, version.content, out);
        }
    }

    /// What a DCM wants said becomes the center's outputs.
    fn collect(&mut self, now: Time, content: ContentId, out: &mut Vec<Output>) {
        let Some(coordinator) = self.directory.coordinator_mut(&content) else { return };
        let version = coordinator.version();
        let mut said = std::mem::take(&mut self.scratch);
        let mut accusations: Vec<(NodeId, NodeId, Offence)> = Vec::new();
        let mut guilty: Vec<(NodeId, Offence)> = Vec::new();
        coordinator.drain(&mut said);
        for o in said.drain(..) {
            match o {
                DcmOutput::Assign(node, assignment) => {
                    self.totals.assignments += 1;
                    self.totals.lightweight_pairs += self.out_of_reach(&node, &assignment);
                    if let Some(prober) = &mut self.prober {
                        let others = assignment.senders().map(|p| &p.node);
                        others
                            .chain(assignment.children.iter().map(|c| &c.node))
                            .for_each(|n| prober.contact(self.now, &node, n));
                    }
                    out.push(Output::Assign(node, assignment));
                }
                DcmOutput::ChangeChildren(node, change) => {
                    self.totals.assignments += 1;
                    if let Some(prober) = &mut self.prober {
                        change.came.iter().for_each(|c| prober.contact(self.now, &node, &c.node));
                    }
                    out.push(Output::ChangeChildren(node, change));
                }
                DcmOutput::Lease(node, lease) => {
                    self.totals.leases += 1;
                    out.push(Output::Lease(node, lease));
                }
                DcmOutput::Revoke(node, run) => out.push(Output::Revoke(node, version, run)),
                DcmOutput::Trouble(parent, child, Trouble::Congested) => {
                    self.name_congested(now, content, parent, child, out);
                }
                DcmOutput::Trouble(parent, child, what) => {
                    self.totals.troubles += 1;
                    if !self.trust.is_slanderer(&child) {
                        self.history.trouble(parent, child, what);
                    }
                    out.push(Output::Event(Event::Trouble(content, parent, child, what)));
                }
                DcmOutput::Accuse(child, parent, offence) => accusations.push((child, parent, offence)),
                DcmOutput::Guilty(node, offence) => guilty.push((node, offence)),
            }
        }
        self.scratch = said;
        for (child, parent, offence) in accusations {
            self.accused(now, content, child, parent, offence, out);
        }
        for (node, offence) in guilty {
            self.convict(now, node, offence, out);
        }
    }

    /// Senders in `assignment` that can neither reach `node` nor be reached by it.
    fn out_of_reach(&self, node: &NodeId, assignment: &Assignment) -> u64 {
        let Some(own) = self.clients.reachability(node) else { return 0 };
        let others = assignment.senders().filter_map(|p| self.clients.reachability(&p.node));
        others.filter(|other| !own.compatible(other)).count() as u64
    }

    fn takes_no_part(&mut self, now: Time, node: &NodeId, content: &ContentId) {
        if let Some(client) = self.clients.get_mut(node) {
            client.contents.remove(content);
            client.held.remove(content);
        }
        self.regrant(node, |budget, changed| budget.leave(now, content, changed));
    }

    /// Something happens to a node's budget: the contents whose grants change learn it.
    fn regrant(&mut self, node: &NodeId, what: impl FnOnce(&mut Budget, &mut Vec<Changed>)) {
        let (now, Some(client)) = (self.now, self.clients.get_mut(node)) else { return };
        what(&mut client.budget, &mut self.regranted);
        for (content, rate) in self.regranted.drain(..) {
            if let Some(coordinator) = self.directory.coordinator_mut(&content) {
                coordinator.set_rate(now, node, rate);
            }
        }
    }
}

#[cfg(test)]
mod live_tests;
