//! What the control center's shell and the nodes' ends of its sessions do.

use super::{Event, Nx, World};
use crate::baseline::{Baseline, Decider};
use crate::scenario::{Reach, SiteNat, Sources};
use headwater_center_core::client_manager::Arrival;
use headwater_center_core::{Input, Output, Totals};
use headwater_model::assignment::{Assignment, Lease};
use headwater_model::id::{Hash, NodeId, Version};
use headwater_model::node::{Capabilities, Forwards, From, Known, Role, SourceAccess};
use headwater_model::place::Place;
use headwater_model::report::{Heartbeat, Introduction};
use headwater_model::time::{Micros, Rate, Time};
use headwater_peer_core::{Input as SwarmInput, PageSource, SessionOutput};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A session that says nothing for this long is over: three heartbeats and a little.
const SESSION_SILENT: Micros = Micros::from_millis(6500);
/// A dial that is not answered is given up.
const DIAL_OVER: Micros = Micros::from_millis(1000);
/// Control time at virtual zero, Unix milliseconds.
const ZERO_UNIX_MS: u64 = 1_700_000_000_000;
const HEARTBEAT_MS: u32 = 2000;
const BACKOFF_CAP_MS: u32 = 2000;

/// From a node to the control center.
#[derive(Debug)]
pub(super) enum ToCenter {
    Hello {
        life: u32,
        dialled_at: Time,
    },
    Input(Box<Input>),
    Heartbeat {
        heartbeat: Heartbeat,
        asked_at: Time,
    },
    /// For which node.
    AskPage(Nx, u32),
}

/// From the control center to a host; with the node that it is for.
#[derive(Debug)]
pub(super) enum FromCenter {
    Welcome {
        dialled_at: Time,
        unix_ms: u64,
    },
    Reply {
        asked_at: Time,
        unix_ms: u64,
    },
    Assigned(Nx, Assignment),
    Leased(Nx, Lease),
    Revoked(Nx, Version, u32),
    Page(Nx, u32),
    /// The version is no longer served, or was refused.
    Withdrawn(Nx),
    /// There is no such session.
    Reset,
    /// The session was ended.
    Closed,
}

/// A host's session, as the control center's shell knows it.
#[derive(Clone, Copy, Debug)]
struct Session {
    number: u64,
    /// Who it is.
    id: NodeId,
    /// Which process of the host.
    process: u32,
    heard: Time,
    /// A message of it was lost: streams are reliable, so that it is over when its ends next speak.
    broken: bool,
}

/// The control center and its shell's state.
#[derive(Debug)]
pub(super) struct Control {
    center: Decider,
    /// Whether messages get through.
    pub(super) reachable: bool,
    sessions: Vec<Option<Session>>,
    next_session: u64,
    tick_at: Time,
    messages: u64,
    /// Totals of control centers that lost their state.
    former: Totals,
    outputs: Vec<Output>,
    /// When the control center came back last, and the nodes whose sessions are not back since.
    back_at: Option<Time>,
    awaited: BTreeSet<Nx>,
    sessions_back: Option<Time>,
    /// Pairs among all assignments that cannot connect.
    pub(super) hopeless_pairs: BTreeSet<(Nx, Nx)>,
}

impl Control {
    pub(super) fn new(nodes: usize, baseline: Option<Baseline>, seed: u64) -> Self {
        Self {
            center: Decider::for_file(Time(0), baseline, 1, false, seed),
            reachable: true,
            sessions: vec![None; nodes],
            next_session: 1,
            tick_at: Time(u64::MAX),
            messages: 0,
            former: Totals::default(),
            outputs: Vec::new(),
            back_at: None,
            awaited: BTreeSet::new(),
            sessions_back: None,
            hopeless_pairs: BTreeSet::new(),
        }
    }
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }
    pub(super) fn totals(&self) -> Totals {
        let (a, b) = (self.former, self.center.totals());
        Totals {
            assignments: a.assignments + b.assignments,
            lightweight_pairs: a.lightweight_pairs + b.lightweight_pairs,
            leases: a.leases + b.leases,
            alarms: a.alarms + b.alarms,
            troubles: a.troubles + b.troubles,
            heartbeats: a.heartbeats + b.heartbeats,
            joins: a.joins + b.joins,
        }
    }
}

impl World {
    /// See [`Decider::state_lines`].
    pub(super) fn control_state_lines(&self) -> usize {
        self.control.center.state_lines()
    }

    /// Violated invariants of the control center.
    pub(super) fn check_control(&self) -> Vec<String> {
        self.control.center.check(self.now)
    }

    /// Leases of the first content under way.
    pub(super) fn leases(&self) -> usize {
        self.control.center.leases(&self.contents[0].version.content)
    }

    /// The control center comes back without its state; its epoch is durable.
    pub(super) fn restart_center(&mut self) {
        self.control.former = self.control.totals();
        let epoch = self.control.center.epoch() + 1;
        self.control.center = Decider::for_file(self.now, self.baseline, epoch, true, self.seed);
        self.control.sessions.fill(None);
        self.control.tick_at = Time(u64::MAX);
        self.publish_all();
    }

    /// The control center can be reached again: nodes' sessions are waited for.
    pub(super) fn control_is_back(&mut self) {
        self.control.reachable = true;
        let intact = |node: usize| {
            let known = self.control.sessions[node].filter(|s| !s.broken).map(|s| s.number);
            known.is_some() && known == self.nodes[node].session_number
        };
        let running = |node: &Nx| self.nodes[*node as usize].running;
        self.control.awaited = self.hosts().filter(running).filter(|n| !intact(*n as usize)).collect();
        self.control.back_at = Some(self.now);
        self.control.sessions_back = self.control.awaited.is_empty().then_some(self.now);
    }

    /// A node that ends has no session to come back.
    pub(super) fn await_no_session(&mut self, node: Nx) {
        if self.control.awaited.remove(&node) && self.control.awaited.is_empty() {
            self.control.sessions_back.get_or_insert(self.now);
        }
    }

    /// Whether sessions are missing since the control center came back.
    pub(super) fn awaits_sessions(&self) -> bool {
        self.control.back_at.is_some() && self.control.sessions_back.is_none()
    }

    /// From the control center's last return until all sessions were back.
    pub(super) fn sessions_back_after(&self) -> Option<Micros> {
        Some(self.control.sessions_back?.since(self.control.back_at?))
    }

    fn count_pairs(&mut self, node: Nx, assignment: &Assignment) {
        let scenario = &self.scenario;
        let own = &self.nodes[node as usize].spec;
        let parents = assignment.parents.iter().map(|p| self.there(node, &p.node));
        let hopeless = parents.filter(|p| !scenario.can_connect(&self.nodes[*p as usize].spec, own));
        let hopeless: Vec<_> = hopeless.map(|p| super::peers::pair(p, node)).collect();
        self.control.hopeless_pairs.extend(hopeless);
    }

    // ---- at the control center ----

    pub(super) fn center(&mut self, input: Input) {
        let mut out = std::mem::take(&mut self.control.outputs);
        self.control.center.handle(self.now, input, &mut out);
        for output in out.drain(..) {
            match output {
                Output::Assign(node, assignment) => {
                    let content = assignment.version.content;
                    if let Some(child) = self.node_of(&node, content) {
                        self.count_pairs(child, &assignment);
                    }
                    self.tell_of(&node, content, |n| FromCenter::Assigned(n, assignment));
                }
                Output::Lease(node, lease) => {
                    self.tell_of(&node, lease.version.content, |n| FromCenter::Leased(n, lease));
                }
                Output::Revoke(node, version, run) => {
                    self.tell_of(&node, version.content, |n| FromCenter::Revoked(n, version, run));
                }
                // Without a secret for probes claims count, which are true here.
                Output::Probe(..) => {}
                Output::Close { node, session, .. } => {
                    let node = self.host_of(&node);
                    if let Some(own) = self.control.sessions[node as usize]
                        && own.number == session
                    {
                        self.control.sessions[node as usize] = None;
                        self.reply(node, own.process, session, FromCenter::Closed);
                    }
                }
                // The logs' bytes are not modelled, and waypoints want everything by themselves.
                Output::Admit { .. } => self.control.messages += 1,
                Output::Withdrawn(node, content, _) => self.tell_of(&node, content, FromCenter::Withdrawn),
                Output::Refuse(node, version, why) => {
                    if !self.scenario.faults.iter().any(|f| f.kind.is_of_contents()) {
                        self.violation(format!("node {} was refused: {why}", self.host_of(&node)));
                    }
                    self.tell_of(&node, version.content, FromCenter::Withdrawn);
                }
                // Only of streams, which are simulated in `live`.
                Output::ChangeChildren(..) => {}
                Output::Fetch(..) | Output::Record(_) | Output::Event(_) => {}
            }
        }
        self.control.outputs = out;
        self.center_touched = true;
        let due = self.control.center.next_timeout().max(self.now);
        if due < self.control.tick_at {
            self.control.tick_at = due;
            self.queue.push(due, Event::CenterTick);
        }
    }

    pub(super) fn center_tick(&mut self) {
        if self.control.tick_at != self.now {
            return;
        }
        self.control.tick_at = Time(u64::MAX);
        self.center(Input::Tick);
        // Decisions that are capped in number go on at once, but not for ever.
        if self.control.center.next_timeout() <= self.now {
            self.violation("the control center would spin: its timeout is not after its tick".into());
        }
    }

    pub(super) fn center_sweep(&mut self) {
        for node in 0..self.nodes.len() {
            if self.control.sessions[node].is_some_and(|s| self.now.since(s.heard) > SESSION_SILENT) {
                self.end_session(node as Nx);
            }
        }
        self.queue.push(self.now + Micros::from_secs(1), Event::CenterSweep);
    }

    fn end_session(&mut self, node: Nx) {
        if let Some(session) = self.control.sessions[node as usize].take() {
            self.center(Input::Departed { node: session.id, session: session.number, bye: false });
        }
    }

    pub(super) fn center_hears(&mut self, node: Nx, session: u64, message: ToCenter) {
        if !self.control.reachable || self.cut_off(node) {
            return self.message_lost(node, session);
        }
        let unix_ms = ZERO_UNIX_MS + self.now.0 / 1000;
        if let ToCenter::Hello { life, dialled_at } = message {
            let session = self.control.next_session;
            self.control.next_session += 1;
            self.reply(node, life, session, FromCenter::Welcome { dialled_at, unix_ms });
            let id = self.nodes[node as usize].id;
            if self.control.sessions[node as usize].is_some_and(|former| former.id != id) {
                self.end_session(node);
            }
            self.control.sessions[node as usize] =
                Some(Session { number: session, id, process: life, heard: self.now, broken: false });
            let arrival = self.arrival(node, session);
            self.center(Input::Arrived(Box::new(arrival)));
            return;
        }
        if self.control.sessions[node as usize].is_some_and(|s| s.number == session && s.broken) {
            self.end_session(node);
        }
        let Some(own) = &mut self.control.sessions[node as usize] else {
            let life = self.nodes[node as usize].process;
            return self.reply(node, life, session, FromCenter::Reset);
        };
        if own.number != session {
            return;
        }
        own.heard = self.now;
        let life = own.process;
        match message {
            ToCenter::Hello { .. } => {}
            ToCenter::Input(input) => {
                if let Input::Departed { .. } = *input {
                    self.control.sessions[node as usize] = None;
                }
                self.center(*input);
            }
            ToCenter::Heartbeat { heartbeat, asked_at } => {
                self.reply(node, life, session, FromCenter::Reply { asked_at, unix_ms });
                self.center(Input::Heartbeat(self.nodes[node as usize].id, heartbeat));
            }
            ToCenter::AskPage(of, page) => self.reply(node, life, session, FromCenter::Page(of, page)),
        }
    }

    fn arrival(&self, node: Nx, session: u64) -> Arrival {
        let n = &self.nodes[node as usize];
        // Each node in a /24 of its own: they are unrelated, unless a site's NAT hides them behind one address.
        let [_, a, b, c] = node.to_be_bytes();
        let hidden = n.spec.site.filter(|s| self.scenario.sites[*s].nat != SiteNat::None);
        let address = match hidden.map(|site| (site as u16).to_be_bytes()) {
            Some([a, b]) => Ipv4Addr::new(200, a, b, 1),
            None => Ipv4Addr::new(1 + a, b, c, 1),
        };
        // What a test would find; whoever says of itself that it is not to be dialled is not tried.
        let tested = From::Test;
        let accepts = if n.spec.reach == Reach::DialOnly { From::Claim } else { tested };
        let limited = n.spec.sources == Sources::Operator || !n.spec.reach.has_udp();
        let capabilities = Capabilities {
            sources: Known { value: if limited { SourceAccess::Listed } else { SourceAccess::Any }, from: From::Claim },
            forwards: Known::claim(if n.spec.reach.has_udp() { Forwards::Disk } else { Forwards::No }),
            accepts: Known { value: self.scenario.accepts(&n.spec), from: accepts },
            udp: Known { value: n.spec.reach.has_udp(), from: tested },
            listens: n.spec.reach != Reach::DialOnly && n.spec.reach.has_udp(),
        };
        Arrival {
            session,
            node: n.id,
            introduction: Introduction {
                role: n.spec.role,
                capabilities,
                up: Rate(n.spec.up() as u64),
                down: Rate(n.spec.down() as u64),
                client: "simulator".into(),
                local_addresses: Vec::new(),
                https_port: (n.spec.role == Role::Waypoint && n.spec.enrolled).then_some(443),
            },
            observed: SocketAddr::new(IpAddr::V4(address), 4433),
            certificate: Hash(n.id.0),
            enrolled: n.spec.enrolled,
            place: Place { lan: Some(address.to_string()), ..n.spec.place.clone() },
        }
    }

    pub(super) fn tell_node(&mut self, node: Nx, message: FromCenter) {
        if let Some(session) = self.control.sessions[node as usize] {
            self.reply(node, session.process, session.number, message);
        }
    }

    fn message_lost(&mut self, node: Nx, session: u64) {
        if let Some(own) = self.control.sessions[node as usize].as_mut().filter(|s| s.number == session) {
            own.broken = true;
        }
    }

    fn reply(&mut self, node: Nx, life: u32, session: u64, message: FromCenter) {
        self.control.messages += 1;
        if !self.control.reachable || self.cut_off(node) {
            return self.message_lost(node, session);
        }
        let at = self.now + self.nodes[node as usize].latency;
        self.queue.push(at, Event::FromCenter { node, life, session, message: Box::new(message) });
    }

    // ---- at a node ----

    /// Sends to the control center, if there is a session.
    pub(super) fn tell_center(&mut self, node: Nx, message: ToCenter) {
        let node = self.first_of(node);
        let Some(session) = self.nodes[node as usize].session_number else { return };
        self.send_to_center(node, session, message);
    }

    fn send_to_center(&mut self, node: Nx, session: u64, message: ToCenter) {
        self.control.messages += 1;
        let at = self.now + self.nodes[node as usize].latency;
        self.queue.push(at, Event::ToCenter { node, session, message: Box::new(message) });
    }

    pub(super) fn schedule_session(&mut self, node: Nx) {
        let n = &mut self.nodes[node as usize];
        n.session_at = n.session.next_timeout(self.now).max(self.now);
        self.queue.push(n.session_at, Event::Session(node, n.process));
    }

    pub(super) fn poll_session(&mut self, node: Nx) {
        let now = self.now;
        let n = &mut self.nodes[node as usize];
        let dialling_for_nothing = !n.session.is_connected();
        match n.session.poll(now) {
            Some(SessionOutput::Dial) => {
                n.dialled_at = now;
                let life = n.process;
                self.send_to_center(node, 0, ToCenter::Hello { life, dialled_at: now });
                self.queue.push(now + DIAL_OVER, Event::SessionDialOver(node, life, now));
            }
            Some(SessionOutput::Heartbeat(interval)) => {
                let nodes = self.of_host(node);
                let swarms = nodes.filter_map(|n| Some(self.nodes[n as usize].swarm.as_mut()?.report(now, false)));
                let heartbeat = Heartbeat { interval, contents: swarms.collect(), ..Heartbeat::default() };
                self.tell_center(node, ToCenter::Heartbeat { heartbeat, asked_at: now });
                self.schedule_session(node);
            }
            Some(SessionOutput::Redial) => {
                n.session_number = None;
                self.tell_host(node, false);
                self.schedule_session(node);
            }
            // While a dial is under way, its outcome schedules the next poll.
            None if dialling_for_nothing => {}
            None => self.schedule_session(node),
        }
    }

    pub(super) fn node_hears_center(&mut self, node: Nx, session: u64, message: FromCenter) {
        let now = self.now;
        let n = &mut self.nodes[node as usize];
        if let FromCenter::Welcome { dialled_at, unix_ms } = message {
            if n.session_number.is_some() || n.dialled_at != dialled_at {
                return;
            }
            n.session_number = Some(session);
            self.control.awaited.remove(&node);
            if self.control.awaited.is_empty() {
                self.control.sessions_back.get_or_insert(now);
            }
            let n = &mut self.nodes[node as usize];
            n.session.welcomed(now, dialled_at, unix_ms, HEARTBEAT_MS, BACKOFF_CAP_MS);
            let id = n.id;
            for node in self.of_host(node) {
                let join = self.nodes[node as usize].swarm.as_ref().map(|s| s.join());
                if let Some(join) = join {
                    self.tell_center(node, ToCenter::Input(Box::new(Input::Join(id, join))));
                }
            }
            self.tell_host(node, true);
            self.schedule_session(node);
            return;
        }
        if n.session_number != Some(session) {
            return;
        }
        let hostile = n.spec.hostile.is_some();
        match message {
            FromCenter::Welcome { .. } => {}
            FromCenter::Reply { asked_at, unix_ms } => {
                self.nodes[node as usize].session.heard(now, asked_at, unix_ms);
            }
            FromCenter::Assigned(node, a) if self.is_of(node, a.version) => self.tell(node, SwarmInput::Assigned(a)),
            FromCenter::Leased(node, l) if self.is_of(node, l.version) => self.tell(node, SwarmInput::Leased(l)),
            // A liar fetches on, as it does in the lab.
            FromCenter::Revoked(..) if hostile => {}
            FromCenter::Revoked(node, version, run) if self.is_of(node, version) => {
                self.tell(node, SwarmInput::LeaseRevoked(run));
            }
            // They are of a version that was given up.
            FromCenter::Assigned(..) | FromCenter::Leased(..) | FromCenter::Revoked(..) => {}
            FromCenter::Withdrawn(node) => self.start_over(node),
            FromCenter::Page(node, page) => {
                self.nodes[node as usize].pages.set(page);
                self.tell(node, SwarmInput::Page(page));
            }
            // Also one that is told not to come back does: its supervisor starts it again.
            FromCenter::Reset | FromCenter::Closed => {
                let n = &mut self.nodes[node as usize];
                n.session_number = None;
                n.session.lost(now);
                self.tell_host(node, false);
                self.schedule_session(node);
            }
        }
    }

    /// The session is there or gone, for all of a host's nodes.
    fn tell_host(&mut self, node: Nx, connected: bool) {
        self.of_host(node).for_each(|node| self.tell(node, SwarmInput::Control(connected)));
    }

    pub(super) fn ask_page(&mut self, node: Nx, source: PageSource, page: u32) {
        match source {
            PageSource::Control => self.tell_center(node, ToCenter::AskPage(node, page)),
            PageSource::Parent(parent) => self.send(node, &parent, super::PeerMessage::AskPage(page)),
        }
    }
}
