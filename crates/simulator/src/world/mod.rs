//! A world: one control center and its nodes under virtual time, on one thread, the same for the same seed.
//!
//! The cores are the real ones. What is modelled is what their shells and the network do: sessions and connections with
//! latencies, dials that succeed or not, bytes over fluid links, disks, and faults.

mod check;
mod contents;
mod control;
mod faults;
mod network;
mod origin;
mod outcome;
mod peers;
mod transfers;

use crate::baseline::Baseline;
use crate::links::{EdgeIx, Links, NodeIx};
use crate::queue::Queue;
use crate::scenario::{Arrivals, Checks, HostSpec, Scenario, ScenarioError, span};
use contents::Published;
use control::{Control, FromCenter, ToCenter};
use faults::FaultStep;
use headwater_model::bits::Bits;
use headwater_model::id::{Hash, NodeId};
use headwater_model::layout::Layout;
use headwater_model::node::Priority;
use headwater_model::report::Alarm;
use headwater_model::rng::Rng;
use headwater_model::time::{Micros, Time};
use headwater_peer_core::{ControlSession, Input, Output, Swarm};
use network::Network;
use origin::Origin;
pub(crate) use outcome::Finished;
pub use outcome::Sample;
use peers::{Connection, PeerMessage};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use transfers::Moving;

/// Hashes in one page.
const PIECES_PER_PAGE: u32 = 1024;
/// How often the size of the cores' state is looked at in small worlds.
const MEASURE_EVERY: Micros = Micros::from_secs(600);
/// Violations kept; a broken run would make millions.
const VIOLATIONS_MAX: usize = 50;

/// Index of a node: of a host and one of the contents, as the host takes part in each by itself. What the contents of a
/// host share, its session and its links, is kept with the first of them; see `contents.rs`.
pub(crate) type Nx = u32;

/// Something that happens at a moment.
#[derive(Debug)]
enum Event {
    Arrive(Nx),
    Tick(Nx, u32),
    Session(Nx, u32),
    /// A dial of the control center was not answered.
    SessionDialOver(Nx, u32, Time),
    ToCenter {
        node: Nx,
        session: u64,
        message: Box<ToCenter>,
    },
    FromCenter {
        node: Nx,
        life: u32,
        session: u64,
        message: Box<FromCenter>,
    },
    CenterTick,
    /// The control center's shell looks for sessions that fell silent.
    CenterSweep,
    Connected(Nx, u32, NodeId),
    Dial(Nx, u32, Nx),
    DialDone(Nx, u32, Nx),
    DialFailed(Nx, u32, Nx),
    /// A message to end `side` of a connection.
    Peer {
        conn: u32,
        serial: u32,
        side: u8,
        message: PeerMessage,
    },
    /// End `side` of a connection notices that it is gone.
    Lost {
        conn: u32,
        serial: u32,
        side: u8,
    },
    Finish(EdgeIx, u32),
    OriginAnswers {
        node: Nx,
        life: u32,
        run: u32,
        serial: u32,
    },
    OriginPiece {
        node: Nx,
        life: u32,
        piece: u32,
        from: Option<Nx>,
    },
    OriginFails {
        node: Nx,
        life: u32,
        run: u32,
    },
    Fault(FaultStep),
}

/// A node: what its shell would hold, and what it went through.
#[derive(Debug)]
struct Node {
    id: NodeId,
    spec: HostSpec,
    link: NodeIx,
    /// One way to the control center.
    latency: Micros,
    /// Counts its host's processes; messages of the control center to a former one are dropped.
    process: u32,
    /// Counts its swarms likewise.
    life: u32,
    /// A process runs.
    running: bool,
    /// The running process's swarm, where it takes part.
    swarm: Option<Swarm>,
    session: ControlSession,
    session_number: Option<u64>,
    dialled_at: Time,
    session_at: Time,
    /// Connections by the other end.
    connections: BTreeMap<Nx, u32>,
    dialling: BTreeSet<Nx>,
    tick_at: Time,
    /// Pieces on disk while no process runs, and of which version.
    disk: Bits,
    disk_epoch: u64,
    priority: Priority,
    /// Identities that the host had before this one.
    former: u32,
    pages: Bits,
    frozen_until: Time,
    slow_until: Time,
    slow_share: f64,
    cut_until: Time,
    /// Uplink and downlink by a fault, bytes per second.
    reshaped: Option<f64>,
    reshaped_until: Time,
    /// The largest such rate so far.
    reshaped_most: f64,
    corrupt_until: Time,
    rotten: BTreeSet<u32>,
    left_for_good: bool,
    arrived: Option<Time>,
    completed: Option<Time>,
    /// Transfers that bring it something at present.
    flowing: u32,
    /// Since when none does, after the first one did.
    idle_since: Option<Time>,
    longest_wait: Micros,
    peer_bytes: u64,
    origin_bytes: u64,
    wasted_bytes: u64,
}

/// The world.
pub(crate) struct World {
    scenario: Scenario,
    seed: u64,
    /// Who decides in Headwater's place.
    baseline: Option<Baseline>,
    now: Time,
    queue: Queue<Event>,
    rng: Rng,
    contents: Vec<Published>,
    nodes: Vec<Node>,
    control: Control,
    connections: Vec<Connection>,
    free_connections: Vec<u32>,
    links: Links,
    network: Network,
    moving: Vec<Moving>,
    origin: Origin,
    /// Pairs that cannot reach each other at present.
    broken_pairs: BTreeSet<(Nx, Nx)>,
    /// Bytes that each link node sent.
    sent: Vec<f64>,
    peer_messages: u64,
    /// Receivers that arrived, have not left for good, and lack something.
    wanting: usize,
    to_arrive: usize,
    /// Nodes that arrive when the one before them has finished.
    in_line: VecDeque<Nx>,
    /// Begins and ends of faults that wait for a share of the content to be held.
    at_share: Vec<(f64, FaultStep)>,
    first_arrival: Option<Time>,
    last_completion: Time,
    faults_over: Time,
    violations: Vec<String>,
    changed: Vec<EdgeIx>,
    outputs: Vec<Output>,
    /// Nodes touched since the last check.
    touched: BTreeSet<Nx>,
    center_touched: bool,
    /// See [`Finished::state_lines`].
    state_lines: Vec<usize>,
}

impl World {
    pub(crate) fn new(scenario: &Scenario, seed: u64, baseline: Option<Baseline>) -> Result<World, ScenarioError> {
        let layout = scenario.layout()?;
        scenario.check_simulable()?;
        let specs = scenario.hosts(seed);
        let mut links = Links::new();
        let origin_link = links.add_node(scenario.origin_up_mbit * 125_000.0, 0.0);
        let mut rng = Rng::new(seed, "world");
        let mut queue = Queue::new();
        let mut in_line = VecDeque::new();
        let mut contents = vec![Published::new(seed, 0, layout, origin_link, Priority::default())];
        let mut nodes: Vec<Node> = Vec::new();
        for (host, spec) in specs.iter().enumerate() {
            let first = nodes.len() as Nx;
            match spec.arrives {
                Some(at) => queue.push(at, Event::Arrive(first)),
                None => in_line.push_back(first),
            }
            let link = links.add_node(spec.up(), spec.down());
            let latency = Micros(10_000 + rng.below(30_000));
            let id = node_id(seed, host as u32, 0);
            nodes.push(Node::new(id, spec.clone(), link, &contents[0].layout, latency, seed));
            for also in &scenario.also {
                let layout = Layout::single(scenario.piece_bytes, also.content_bytes)?;
                let node = Node::new(id, spec.clone(), link, &layout, latency, seed);
                nodes.push(Node { priority: also.priority, ..node });
            }
        }
        for (n, also) in scenario.also.iter().enumerate() {
            let layout = Layout::single(scenario.piece_bytes, also.content_bytes)?;
            let origin = links.add_node(also.origin_up_mbit * 125_000.0, 0.0);
            contents.push(Published::new(seed, n + 1, layout, origin, also.priority));
        }
        let network = Network::new(scenario, &specs, scenario.also.len(), &mut links);
        let mut world = World {
            scenario: scenario.clone(),
            seed,
            baseline,
            now: Time(0),
            rng,
            control: Control::new(nodes.len(), baseline, seed),
            sent: vec![0.0; specs.len() + contents.len()],
            to_arrive: specs.len(),
            nodes,
            contents,
            network,
            in_line,
            at_share: Vec::new(),
            connections: Vec::new(),
            free_connections: Vec::new(),
            links,
            moving: Vec::new(),
            origin: Origin::new(),
            broken_pairs: BTreeSet::new(),
            peer_messages: 0,
            wanting: 0,
            first_arrival: None,
            last_completion: Time(0),
            faults_over: Time(0),
            violations: Vec::new(),
            changed: Vec::new(),
            outputs: Vec::new(),
            touched: BTreeSet::new(),
            center_touched: false,
            state_lines: Vec::new(),
            queue,
        };
        for node in 0..world.nodes.len() {
            let link = world.nodes[node].link;
            if let Some(latency) = world.network_latency(link, world.contents[0].origin) {
                world.nodes[node].latency = latency;
            }
        }
        world.plan_faults();
        world.publish_all();
        world.queue.push(Time(0), Event::CenterSweep);
        Ok(world)
    }

    /// Runs until every node that stays has everything, or until the time limit.
    pub(crate) fn run(mut self, mut watch: impl FnMut(&Sample)) -> Finished {
        let limit = Time(0) + span(self.scenario.time_limit_s);
        let mut sample_at = Time(0);
        while let Some((at, event)) = self.queue.pop() {
            if at > limit || self.violations.len() >= VIOLATIONS_MAX {
                break;
            }
            self.now = at;
            self.step(event);
            if self.scenario.checks == Checks::EveryStep {
                self.check_touched();
                if at >= Time(0) + MEASURE_EVERY.times(self.state_lines.len() as u64 + 1) {
                    self.state_lines.push(self.measure_state());
                }
            }
            if at >= sample_at {
                sample_at = sample_at + Micros::from_secs(1);
                if self.scenario.checks != Checks::AtTheEnd {
                    self.check_all();
                }
                watch(&self.sample());
            }
            let over = self.to_arrive == 0 && self.wanting == 0 && self.now > self.faults_over;
            if over && !self.awaits_sessions() {
                break;
            }
        }
        self.check_all();
        self.check_end();
        self.outcome()
    }

    fn step(&mut self, event: Event) {
        if let Some(node) = self.addressee(&event)
            && self.nodes[node as usize].frozen_until > self.now
        {
            let n = &mut self.nodes[node as usize];
            let thaw = n.frozen_until;
            for due in [&mut n.tick_at, &mut n.session_at] {
                *due = if *due < thaw { thaw } else { *due };
            }
            self.queue.push(thaw, event);
            return;
        }
        match event {
            Event::Arrive(node) => self.start_process(node),
            Event::Tick(node, life) => {
                if self.is_life(node, life) && self.nodes[node as usize].tick_at == self.now {
                    self.nodes[node as usize].tick_at = Time(u64::MAX);
                    self.tell(node, Input::Tick);
                    if self.nodes[node as usize].tick_at <= self.now {
                        self.violation(format!("node {node} would spin: its timeout is not after its tick"));
                    }
                }
            }
            Event::Session(node, life) => {
                if self.is_process(node, life) && self.nodes[node as usize].session_at == self.now {
                    self.nodes[node as usize].session_at = Time(u64::MAX);
                    self.poll_session(node);
                }
            }
            Event::SessionDialOver(node, life, dialled_at) => {
                let n = &mut self.nodes[node as usize];
                if n.process == life && n.running && n.session_number.is_none() && n.dialled_at == dialled_at {
                    n.session.lost(self.now);
                    self.schedule_session(node);
                }
            }
            Event::ToCenter { node, session, message } => self.center_hears(node, session, *message),
            Event::FromCenter { node, life, session, message } => {
                if self.is_process(node, life) {
                    self.node_hears_center(node, session, *message);
                }
            }
            Event::CenterTick => self.center_tick(),
            Event::CenterSweep => self.center_sweep(),
            Event::Connected(node, life, other) => {
                if self.is_life(node, life) && self.live_connection(node, self.there(node, &other)).is_some() {
                    self.tell(node, Input::Connected(other));
                }
            }
            Event::Dial(node, life, other) => {
                if self.is_life(node, life) {
                    self.dial(node, other);
                }
            }
            Event::DialDone(node, life, other) => {
                if self.is_life(node, life) {
                    self.dial_done(node, other);
                }
            }
            Event::DialFailed(node, life, other) => {
                if self.is_life(node, life) {
                    self.dial_failed(node, other);
                }
            }
            Event::Peer { conn, serial, side, message } => self.deliver(conn, serial, side, message),
            Event::Lost { conn, serial, side } => self.connection_lost(conn, serial, side),
            Event::Finish(edge, serial) => self.finish(edge, serial),
            Event::OriginAnswers { node, life, run, serial } => {
                if self.is_life(node, life) {
                    self.origin_answers(node, run, serial);
                }
            }
            Event::OriginPiece { node, life, piece, from } => {
                if self.is_life(node, life) {
                    self.origin_piece(node, piece, from);
                }
            }
            Event::OriginFails { node, life, run } => {
                if self.is_life(node, life) {
                    let why = "the origin does not answer".into();
                    self.tell(node, Input::OriginFailed { run, why, changed: false, forbidden: false });
                }
            }
            Event::Fault(step) => self.fault(step),
        }
        self.settle_rates();
    }

    /// The node whose process must run for the event to happen.
    fn addressee(&self, event: &Event) -> Option<Nx> {
        match event {
            Event::Tick(n, _)
            | Event::Session(n, _)
            | Event::SessionDialOver(n, ..)
            | Event::Connected(n, ..)
            | Event::Dial(n, ..)
            | Event::DialDone(n, ..)
            | Event::DialFailed(n, ..) => Some(*n),
            Event::FromCenter { node, .. }
            | Event::OriginAnswers { node, .. }
            | Event::OriginPiece { node, .. }
            | Event::OriginFails { node, .. } => Some(*node),
            Event::Peer { conn, serial, side, .. } | Event::Lost { conn, serial, side } => {
                let c = &self.connections[*conn as usize];
                (c.serial == *serial).then_some(c.ends[*side as usize])
            }
            _ => None,
        }
    }

    fn is_process(&self, node: Nx, process: u32) -> bool {
        let n = &self.nodes[node as usize];
        n.process == process && n.running
    }

    fn is_life(&self, node: Nx, life: u32) -> bool {
        let n = &self.nodes[node as usize];
        n.life == life && n.running
    }

    // ---- a node's process ----

    /// A host's process starts; it takes part in all contents that are published.
    fn start_process(&mut self, first: Nx) {
        let now = self.now;
        let n = &mut self.nodes[first as usize];
        if n.running || n.left_for_good {
            return;
        }
        for node in self.of_host(first) {
            let n = &mut self.nodes[node as usize];
            n.process += 1;
            n.life += 1;
            n.running = true;
            n.session_number = None;
            n.tick_at = Time(u64::MAX);
            n.session_at = Time(u64::MAX);
        }
        let stream = self.stream(first);
        let n = &mut self.nodes[first as usize];
        n.session = ControlSession::new(now, stream);
        if n.arrived.is_none() {
            self.to_arrive -= 1;
            self.first_arrival.get_or_insert(now);
        }
        for node in self.of_host(first) {
            self.nodes[node as usize].arrived.get_or_insert(now);
            self.start_swarm(node);
        }
        self.schedule_session(first);
        let n = &self.nodes[first as usize];
        if n.spec.seeded && n.swarm.as_ref().is_some_and(Swarm::is_complete) {
            self.has_all(first);
        }
    }

    /// The process ends; what is on disk stays.
    fn end_process(&mut self, first: Nx) {
        for node in self.of_host(first) {
            self.end_swarm(node);
            let n = &mut self.nodes[node as usize];
            n.running = false;
            n.session_number = None;
            n.dialling.clear();
        }
    }

    /// Hands an input to a node's swarm and does what it wants.
    fn tell(&mut self, node: Nx, input: Input) {
        let mut out = std::mem::take(&mut self.outputs);
        if let Some(swarm) = &mut self.nodes[node as usize].swarm {
            let was_complete = swarm.is_complete();
            swarm.handle(self.now, input, &mut out);
            // A rotten piece makes a complete node want again.
            let lost_some = was_complete && !swarm.is_complete();
            self.wanting += usize::from(lost_some && self.nodes[node as usize].spec.receives());
        }
        self.act(node, &mut out);
        self.outputs = out;
    }

    /// Does what a swarm wants.
    fn act(&mut self, node: Nx, out: &mut Vec<Output>) {
        for output in out.drain(..) {
            match output {
                Output::Dial(parent) => self.wants_connection(node, &parent.node, parent.dial, Micros(0)),
                Output::DialChild(child) => {
                    self.wants_connection(node, &child.node, child.dial, Micros::from_millis(100));
                }
                Output::OpenEdge(to) => self.send(node, &to, PeerMessage::Open),
                Output::CloseEdge(to) => self.send(node, &to, PeerMessage::Close),
                Output::Ask(to, pieces) => self.send(node, &to, PeerMessage::Ask(pieces)),
                Output::Unask(to, pieces) => self.send(node, &to, PeerMessage::Unask(pieces)),
                Output::ToldBad(to, piece) => self.send(node, &to, PeerMessage::ToldBad(piece)),
                Output::AskPage(source, page) => self.ask_page(node, source, page),
                // Nodes here begin with nothing.
                Output::Search => {}
                Output::TellAll(to) => {
                    if let Some(have) = self.nodes[node as usize].swarm.as_ref().map(|s| s.have().clone()) {
                        self.send(node, &to, PeerMessage::HasAll(have));
                    }
                }
                Output::Tell(to, pieces) => self.send(node, &to, PeerMessage::Has(pieces)),
                Output::Serve(child) => self.serve(node, &child),
                Output::CloseChild(child, why) => {
                    self.stop_serving(node, &child);
                    self.send(node, &child, PeerMessage::Dropped(why));
                }
                Output::FetchOrigin { run, source, pieces } => self.fetch_origin(node, run, &source, pieces),
                Output::StopOrigin(run) => self.stop_origin(node, run),
                Output::LeaseDone(run) => {
                    let input = headwater_center_core::Input::LeaseDone(
                        self.nodes[node as usize].id,
                        self.running_version(node),
                        run,
                    );
                    self.tell_center(node, ToCenter::Input(Box::new(input)));
                }
                Output::LeaseFailed { run, forbidden, .. } => {
                    let id = self.nodes[node as usize].id;
                    let input =
                        headwater_center_core::Input::LeaseFailed(id, self.running_version(node), run, forbidden);
                    self.tell_center(node, ToCenter::Input(Box::new(input)));
                }
                Output::Alarm(alarm) => self.alarm(node, alarm),
                Output::Complete => {
                    let n = &mut self.nodes[node as usize];
                    n.completed.get_or_insert(self.now);
                    n.idle_since = None;
                    if n.spec.receives() {
                        self.wanting -= 1;
                        if self.is_first(node) {
                            self.last_completion = self.now;
                        }
                        self.has_all(node);
                    }
                }
            }
        }
        self.touched.insert(node);
        self.schedule_tick(node);
    }

    /// A node has everything: when its host has everything it leaves, or the next one in line arrives.
    fn has_all(&mut self, node: Nx) {
        let lacks = |n: Nx| self.nodes[n as usize].swarm.as_ref().is_some_and(|s| !s.is_complete());
        if self.of_host(node).any(lacks) {
            return;
        }
        let node = self.first_of(node);
        if self.nodes[node as usize].spec.leaves_when_complete {
            self.queue.push(self.now, Event::Fault(FaultStep::Goodbye(node)));
        } else {
            self.next_in_line();
        }
    }

    fn next_in_line(&mut self) {
        if self.scenario.arrivals == Arrivals::OneByOne
            && let Some(next) = self.in_line.pop_front()
        {
            self.queue.push(self.now, Event::Arrive(next));
        }
    }

    fn alarm(&mut self, node: Nx, alarm: Alarm) {
        let input =
            headwater_center_core::Input::Alarm(self.nodes[node as usize].id, self.running_version(node), alarm);
        self.tell_center(node, ToCenter::Input(Box::new(input)));
    }

    fn schedule_tick(&mut self, node: Nx) {
        let n = &mut self.nodes[node as usize];
        let Some(swarm) = &n.swarm else { return };
        let due = swarm.next_timeout(self.now);
        if due < n.tick_at {
            n.tick_at = due.max(self.now);
            self.queue.push(n.tick_at, Event::Tick(node, n.life));
        }
    }

    fn violation(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(format!("at {:.3} s: {what}", self.now.0 as f64 / 1e6));
        }
    }
}

impl Node {
    fn new(id: NodeId, spec: HostSpec, link: NodeIx, layout: &Layout, latency: Micros, seed: u64) -> Node {
        let (pieces, pages) = (layout.pieces(), layout.pieces().div_ceil(PIECES_PER_PAGE));
        let (disk, known) =
            if spec.seeded { (Bits::full(pieces), Bits::full(pages)) } else { (Bits::new(pieces), Bits::new(pages)) };
        Node {
            id,
            spec,
            link,
            latency,
            process: 0,
            life: 0,
            running: false,
            swarm: None,
            session: ControlSession::new(Time(0), seed),
            session_number: None,
            dialled_at: Time(0),
            session_at: Time(u64::MAX),
            connections: BTreeMap::new(),
            dialling: BTreeSet::new(),
            tick_at: Time(u64::MAX),
            disk,
            disk_epoch: 1,
            priority: Priority::default(),
            former: 0,
            pages: known,
            frozen_until: Time(0),
            slow_until: Time(0),
            slow_share: 1.0,
            cut_until: Time(0),
            reshaped: None,
            reshaped_until: Time(0),
            reshaped_most: 0.0,
            corrupt_until: Time(0),
            rotten: BTreeSet::new(),
            left_for_good: false,
            arrived: None,
            completed: None,
            flowing: 0,
            idle_since: None,
            longest_wait: Micros(0),
            peer_bytes: 0,
            origin_bytes: 0,
            wasted_bytes: 0,
        }
    }
}

/// An id that spreads like a hash and ends with the host's index. `former` counts the identities that it had before.
fn node_id(seed: u64, host: u32, former: u32) -> NodeId {
    let former = former.to_be_bytes();
    let former: &[u8] = if former == [0; 4] { &[] } else { &former };
    let mut id = Hash::of(&[b"node", &seed.to_be_bytes(), &host.to_be_bytes(), former]).0;
    id[28..].copy_from_slice(&host.to_be_bytes());
    NodeId(id)
}
