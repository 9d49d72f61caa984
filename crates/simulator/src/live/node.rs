//! A node: the real channel, and what its shell, its links and its player do.

use super::isps::Crossed;
use super::media::{Media, data};
use super::messages::{Due, Event, FromCenter, Message, Nx, SOURCE, ToCenter, id_of, nx_of};
use super::outcome::Histogram;
use super::player::Watch;
use super::uplink::{Fetch, Sending, Turn, Uplink};
use crate::scenario::HostSpec;
use headwater_center_core::Input;
use headwater_model::assignment::{Assignment, Child, Parent};
use headwater_model::id::NodeId;
use headwater_model::live::{LIVE_PIECE_BYTES, LiveTrack, Substreams};
use headwater_model::node::Accepts;
use headwater_model::report::{Heartbeat, Join};
use headwater_model::rng::Rng;
use headwater_model::time::{Micros, Time};
use headwater_peer_core::live::{Channel, LiveConfig, LiveInput, LiveOutput, Next, Verdict};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

/// The shell's pulse.
const TICK: Micros = Micros::from_millis(50);
/// Time between heartbeats, which fall on multiples of it.
pub(super) const HEARTBEAT: Micros = Micros::from_secs(2);
/// A dial is given up after this time.
const DIAL_PATIENCE: Micros = Micros::from_secs(6);
/// A parent dials a child that may not be able to dial after this time.
const DIAL_CHILD_AFTER: Micros = Micros::from_millis(700);
/// Who leaves on purpose serves its children for so long at most.
const SERVES_ON: Micros = Micros::from_secs(3);
/// Others notice after this time that a node died.
const NOTICED: Micros = Micros::from_secs(5);
/// What TCP sends before the first acknowledgement (RFC 6928).
const FIRST_WINDOW_BYTES: u64 = 14_600;
/// What goes back of each that came, in thousandths: acknowledgements of QUIC, of every seventh packet, and of TCP, of every
/// second one, reckoned with their headers.
const ACKS_MILLI: (u64, u64) = (15, 23);
/// Pieces that came before their entries.
const MAX_EARLY: usize = 256;
/// Its one player, as the channel tells players apart.
const PLAYER: u64 = 1;

/// What all nodes see and none changes.
pub(super) struct Shared {
    pub(super) seed: u64,
    /// Control time at virtual zero, Unix milliseconds.
    pub(super) zero_unix_ms: u64,
    pub(super) media: Media,
    pub(super) track: LiveTrack,
    pub(super) hold_back: Micros,
    /// One way between two hosts of one ISP, and of two.
    pub(super) inside: Micros,
    pub(super) across: Micros,
    pub(super) origin_isp: u16,
    pub(super) isps: Vec<u16>,
    /// Every step is checked.
    pub(super) checks: bool,
}

impl Shared {
    fn isp(&self, n: Nx) -> u16 {
        self.isps.get(n as usize).copied().unwrap_or(self.origin_isp)
    }
    fn latency(&self, a: Nx, b: Nx) -> Micros {
        if self.isp(a) == self.isp(b) { self.inside } else { self.across }
    }
    /// One way to the control center, which is where the origin is.
    pub(super) fn to_center(&self, n: Nx) -> Micros {
        self.latency(n, SOURCE)
    }
}

/// What nodes did that concerns others.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) mail: Vec<(Nx, Due<Event>)>,
    pub(super) to_center: Vec<Due<(Nx, ToCenter)>>,
    /// Viewers that have seen enough.
    pub(super) ended: Vec<Nx>,
    /// Nodes that are gone.
    pub(super) gone: Vec<Nx>,
    /// From the publishing of a piece to its being at a viewer.
    pub(super) lags: Histogram,
    /// Pieces that came from one ISP into another, in bytes.
    pub(super) crossed: Crossed,
    pub(super) events: u64,
    pub(super) violations: Vec<String>,
}

/// See the module.
pub(super) struct Node {
    nx: Nx,
    pub(super) id: NodeId,
    /// Its host in the scenario; nothing for the publisher.
    pub(super) host: Option<usize>,
    accepts: Accepts,
    pub(super) channel: Channel,
    pub(super) inbox: BinaryHeap<Due<Event>>,
    serial: u32,
    pub(super) uplink: Uplink,
    /// Bytes per second, and until when it is busy.
    down: f64,
    down_busy: Time,
    /// Nodes with a connection.
    links: BTreeSet<Nx>,
    dialling: BTreeSet<Nx>,
    /// What the tickets name that it has.
    tickets: BTreeMap<Nx, Substreams>,
    /// Pieces that came before their entries, and from whom.
    early: BTreeMap<u64, Nx>,
    /// Pieces that it asked for.
    asked: BTreeSet<u64>,
    /// Pieces of each segment that are here.
    held: Vec<u32>,
    pub(super) watch: Option<Watch>,
    pub(super) watches_since: Option<Time>,
    /// How long the viewer stays, if not to the end.
    stays: Option<Micros>,
    /// It leaves, and is gone by then.
    leaves_by: Option<Time>,
    pub(super) repaired_bytes: u64,
    outputs: Vec<LiveOutput>,
    gone: bool,
}

impl Node {
    /// It begins now. The publisher has no host.
    pub(super) fn new(
        now: Time,
        nx: Nx,
        (host, spec): (Option<usize>, Option<&HostSpec>),
        accepts: Accepts,
        source_up: f64,
        stays: Option<Micros>,
        shared: &Shared,
    ) -> Node {
        let mut node = Node {
            nx,
            id: id_of(shared.seed, nx),
            host,
            accepts,
            channel: Channel::new(now, shared.track.clone(), LiveConfig::default()),
            inbox: BinaryHeap::new(),
            serial: 0,
            uplink: Uplink::new(spec.map_or(source_up, HostSpec::up)),
            down: spec.map_or(source_up, HostSpec::down),
            down_busy: now,
            links: BTreeSet::new(),
            dialling: BTreeSet::new(),
            tickets: BTreeMap::new(),
            early: BTreeMap::new(),
            asked: BTreeSet::new(),
            held: Vec::new(),
            watch: None,
            watches_since: None,
            stays,
            leaves_by: None,
            repaired_bytes: 0,
            outputs: Vec::new(),
            gone: false,
        };
        // Pulses of nodes do not beat together.
        let phase = Rng::new(shared.seed ^ u64::from(nx), "pulse").below(TICK.0);
        node.at(now + Micros(phase + 1), Event::Tick);
        node
    }

    /// The first word to the control center: a handshake and it.
    pub(super) fn hello(&mut self, now: Time, shared: &Shared, out: &mut Outbox) {
        self.tells_center(now + shared.to_center(self.nx).times(2), ToCenter::Hello, shared, out);
    }

    /// It dies: nothing is said to anybody, who notice in time.
    pub(super) fn die(&mut self, now: Time, out: &mut Outbox) {
        self.gone = true;
        for other in self.partners() {
            self.serial += 1;
            let what = Event::Said(self.nx, Message::Gone);
            out.mail.push((other, Due { at: now + NOTICED, from: self.nx, serial: self.serial, what }));
        }
    }

    /// Whether its viewer has seen enough.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaves_by.is_some()
    }

    /// All that happens here before `until`.
    pub(super) fn run(&mut self, until: Time, shared: &Shared, out: &mut Outbox) {
        while !self.gone && self.inbox.peek().is_some_and(|due| due.at < until) {
            let Some(due) = self.inbox.pop() else { return };
            out.events += 1;
            self.step(due.at, due.what, shared, out);
            if shared.checks {
                let of = |p| format!("node {} at {:?}: {p}", self.nx, due.at);
                out.violations.extend(self.channel.check().into_iter().map(of));
            }
        }
    }

    fn step(&mut self, now: Time, event: Event, shared: &Shared, out: &mut Outbox) {
        match event {
            Event::Tick => self.tick(now, shared, out),
            Event::Beat => self.beat(now, shared, out),
            Event::Sent => self.sent(now, shared, out),
            Event::Load => self.load(now, shared, out),
            Event::Ends => self.ends(now, shared, out),
            Event::DialOver(other) => {
                if self.dialling.remove(&other) && !self.links.contains(&other) {
                    let lost = LiveInput::Lost { node: id_of(shared.seed, other), why: "no answer".into() };
                    self.tell(now, lost, shared, out);
                }
            }
            Event::DialChild(other) => self.dial(now, other, shared, out),
            Event::Published(entry) => self.tell(now, LiveInput::Published(entry), shared, out),
            Event::Said(from, message) => self.said(now, from, message, shared, out),
            Event::Landed(from, piece, job) => self.landed(now, from, piece, job, shared, out),
            Event::Told(FromCenter::Welcome) => self.welcome(now, shared, out),
            Event::Told(FromCenter::Assigned(assignment)) => {
                self.keep_tickets(&assignment);
                self.tell(now, LiveInput::Assigned(*assignment), shared, out);
            }
            Event::Told(FromCenter::ChildrenChanged(change)) => {
                self.tell(now, LiveInput::ChildrenChanged(*change), shared, out);
            }
        }
    }

    // ---- time ----

    fn tick(&mut self, now: Time, shared: &Shared, out: &mut Outbox) {
        self.at(now + TICK, Event::Tick);
        if let Some(by) = self.leaves_by
            && (by <= now || self.channel.children().next().is_none())
        {
            return self.go(now, shared, out);
        }
        if self.channel.next_timeout() <= now {
            self.tell(now, LiveInput::ControlTime(shared.zero_unix_ms + now.0 / 1000), shared, out);
            self.tell(now, LiveInput::Tick, shared, out);
        }
    }

    fn beat(&mut self, now: Time, shared: &Shared, out: &mut Outbox) {
        if self.leaves_by.is_some() {
            return;
        }
        self.at(now + HEARTBEAT, Event::Beat);
        let contents = vec![self.channel.report(now)];
        let heartbeat = Heartbeat { interval: now.0 / HEARTBEAT.0, contents, ..Heartbeat::default() };
        self.says(now, Input::Heartbeat(self.id, heartbeat), shared, out);
    }

    // ---- the control center ----

    fn welcome(&mut self, now: Time, shared: &Shared, out: &mut Outbox) {
        let next_beat = (now.0 / HEARTBEAT.0 + 1) * HEARTBEAT.0;
        self.at(Time(next_beat), Event::Beat);
        self.tell(now, LiveInput::Control(true), shared, out);
        self.tell(now, LiveInput::ControlTime(shared.zero_unix_ms + now.0 / 1000), shared, out);
        let join = Join { source: self.nx == SOURCE, ..Join::to(shared.track.version) };
        self.says(now, Input::Join(self.id, join), shared, out);
        if self.nx != SOURCE {
            self.watch = Some(Watch::new(now, shared.hold_back, shared.media.segment));
            self.watches_since = Some(now);
            if let Some(stays) = self.stays {
                self.at(now + stays, Event::Ends);
            }
        }
    }

    fn keep_tickets(&mut self, assignment: &Assignment) {
        let mut named: BTreeMap<Nx, Substreams> = BTreeMap::new();
        for p in assignment.senders() {
            let of = named.entry(nx_of(&p.node)).or_default();
            *of = of.or(p.substreams);
        }
        let links = &self.links;
        self.tickets.retain(|node, _| links.contains(node));
        self.tickets.extend(named);
    }

    /// The viewer closes the program: it says goodbye, and serves on until its children have other parents.
    fn ends(&mut self, now: Time, shared: &Shared, out: &mut Outbox) {
        self.leaves_by = Some(now + SERVES_ON);
        if let Some(watch) = &mut self.watch {
            watch.player.pass(now);
        }
        self.tell(now, LiveInput::ReaderLeft(PLAYER), shared, out);
        self.says(now, Input::Departed { node: self.id, session: u64::from(self.nx), bye: true }, shared, out);
        out.ended.push(self.nx);
    }

    /// Nodes that have connections with it, and the origin: they notice that it is gone.
    fn partners(&mut self) -> BTreeSet<Nx> {
        let mut partners = std::mem::take(&mut self.links);
        partners.insert(SOURCE);
        partners
    }

    fn go(&mut self, now: Time, shared: &Shared, out: &mut Outbox) {
        for other in self.partners() {
            self.send(now, other, Message::Gone, shared, out);
        }
        self.gone = true;
        out.gone.push(self.nx);
    }

    // ---- the channel ----

    fn tell(&mut self, now: Time, input: LiveInput, shared: &Shared, out: &mut Outbox) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.channel.handle(now, input, &mut outputs);
        let mut changed = false;
        let mut todo: VecDeque<LiveOutput> = outputs.drain(..).collect();
        while let Some(output) = todo.pop_front() {
            match output {
                LiveOutput::Dial(parent) => {
                    if self.links.contains(&nx_of(&parent.node)) {
                        self.channel.handle(now, LiveInput::Connected(parent.node), &mut outputs);
                        todo.extend(outputs.drain(..));
                    } else {
                        self.dial_parent(now, &parent, shared, out);
                    }
                }
                LiveOutput::Changed => changed = true,
                other => self.carry_out(now, other, shared, out),
            }
        }
        self.outputs = outputs;
        if changed && self.leaves_by.is_none() && self.watch.as_ref().is_some_and(|w| !w.has_begun()) {
            self.load(now, shared, out);
        }
    }

    fn carry_out(&mut self, now: Time, output: LiveOutput, shared: &Shared, out: &mut Outbox) {
        let (to, message) = match output {
            LiveOutput::DialChild(Child { node, .. }) => {
                // Whoever can be dialled is: only this node can begin here.
                if self.accepts == Accepts::DialOnly {
                    self.at(now + DIAL_CHILD_AFTER, Event::DialChild(nx_of(&node)));
                }
                return;
            }
            LiveOutput::OpenEdge(to) => (to, Message::Open(self.tickets.get(&nx_of(&to)).copied().unwrap_or_default())),
            LiveOutput::CloseEdge(to) => (to, Message::CloseEdge),
            LiveOutput::CloseChild(to, _) => (to, Message::CloseChild),
            LiveOutput::Subscribe(to, substreams, from) => (to, Message::Subscribe(substreams, from)),
            LiveOutput::Ask(to, pieces) => {
                self.asked.extend(&pieces);
                (to, Message::Ask(pieces.into()))
            }
            LiveOutput::AskHelper(to, pieces) => (to, Message::AskHelper(pieces.into())),
            LiveOutput::Cancel(to, pieces) => (to, Message::Cancel(pieces.into())),
            LiveOutput::AskEntries(to, after) => (to, Message::AskEntries(after)),
            LiveOutput::TellEntries(to, entries) => (to, Message::Entries(entries)),
            LiveOutput::TellPosition(to, newest, lacks) => (to, Message::Position(newest, lacks.into())),
            LiveOutput::Serve(child, substream) => {
                self.uplink.wants(Turn::Child(nx_of(&child), substream));
                return self.send_next(now, shared);
            }
            LiveOutput::FetchOrigin { job, pieces, .. } => {
                let pieces = pieces.into_iter().map(|(p, _)| p).collect();
                return self.fetch(now, job, pieces, shared, out);
            }
            LiveOutput::Alarm(alarm) => {
                let input = Input::Alarm(self.id, shared.track.version, alarm);
                return self.says(now, input, shared, out);
            }
            LiveOutput::Forget => {
                // Those that came before their entries wait on: the entry that made room may be theirs.
                let first = self.channel.first_piece();
                self.asked = self.asked.split_off(&first);
                self.early = self.early.split_off(&first);
                return;
            }
            LiveOutput::Dial(_) | LiveOutput::Changed | LiveOutput::ToldBad(..) | LiveOutput::Source(_) => return,
        };
        let to = nx_of(&to);
        // Without a connection there is nobody to say it to.
        if self.links.contains(&to) {
            self.send(now, to, message, shared, out);
        }
    }

    /// A TCP handshake, the request, and slow start: each round trip brings twice what the one before did.
    fn fetch(&mut self, now: Time, job: u64, mut pieces: Vec<u64>, shared: &Shared, out: &mut Outbox) {
        let way = shared.latency(self.nx, SOURCE);
        let (mut later, mut window) = (now + way.times(2), FIRST_WINDOW_BYTES);
        while !pieces.is_empty() {
            let rest = pieces.split_off(pieces.len().min((window / u64::from(LIVE_PIECE_BYTES)).max(1) as usize));
            let ends = rest.is_empty().then_some(job);
            self.send(later, SOURCE, Message::Fetch(ends, pieces.into()), shared, out);
            pieces = rest;
            later = later + way.times(2);
            window *= 2;
        }
    }

    // ---- connections ----

    fn dial_parent(&mut self, now: Time, parent: &Parent, shared: &Shared, out: &mut Outbox) {
        if parent.dial {
            self.dial(now, nx_of(&parent.node), shared, out);
        }
    }

    fn dial(&mut self, now: Time, other: Nx, shared: &Shared, out: &mut Outbox) {
        if self.links.contains(&other) || !self.dialling.insert(other) {
            return;
        }
        // The handshake, then the hello.
        let later = now + shared.latency(self.nx, other).times(2);
        self.send(later, other, Message::Hello, shared, out);
        self.at(now + DIAL_PATIENCE, Event::DialOver(other));
    }

    fn connected(&mut self, now: Time, other: Nx, shared: &Shared, out: &mut Outbox) {
        self.dialling.remove(&other);
        if self.links.insert(other) {
            self.tell(now, LiveInput::Connected(id_of(shared.seed, other)), shared, out);
        }
    }

    fn said(&mut self, now: Time, from: Nx, message: Message, shared: &Shared, out: &mut Outbox) {
        let node = id_of(shared.seed, from);
        let input = match message {
            Message::Hello => {
                self.send(now, from, Message::HelloBack, shared, out);
                return self.connected(now, from, shared, out);
            }
            Message::HelloBack => return self.connected(now, from, shared, out),
            Message::Gone => {
                self.uplink.fetches.retain(|_, f| f.node != from);
                if !self.links.remove(&from) && self.nx == SOURCE {
                    return;
                }
                LiveInput::Lost { node, why: "the connection is gone".into() }
            }
            Message::Fetch(ends, pieces) => {
                self.uplink.fetch(Fetch { node: from, ends, pieces: pieces.into_vec().into() });
                return self.send_next(now, shared);
            }
            Message::Piece(piece) => return self.arrives(now, (Some(from), piece, None), shared, out),
            Message::Fetched(piece, job) => return self.arrives(now, (None, piece, job), shared, out),
            Message::Entries(entries) => {
                let new = entries.into_iter().filter(|e| !self.channel.knows_entry(e.entry.number)).collect();
                self.tell(now, LiveInput::Entries(node, new), shared, out);
                return self.early_pieces(now, shared, out);
            }
            Message::Open(may) => {
                self.tell(now, LiveInput::ChildOpened(node, may), shared, out);
                return self.send(now, from, Message::Answer, shared, out);
            }
            Message::Answer => LiveInput::Answered { parent: node, refused: None },
            Message::CloseEdge => LiveInput::ChildClosed(node),
            Message::CloseChild => LiveInput::FeedClosed { node, why: "closed".into() },
            Message::Subscribe(substreams, from) => LiveInput::Subscribed(node, substreams, from),
            Message::Ask(pieces) => LiveInput::Asked(node, pieces.into()),
            Message::AskHelper(pieces) => LiveInput::AskedToHelp(node, pieces.into()),
            Message::Cancel(pieces) => LiveInput::Cancelled(node, pieces.into()),
            Message::AskEntries(after) => LiveInput::EntriesWanted(node, after),
            Message::Position(newest, lacks) => LiveInput::Position(node, newest, lacks.into()),
        };
        self.tell(now, input, shared, out);
    }

    // ---- pieces ----

    /// The next piece goes out, where none does.
    fn send_next(&mut self, now: Time, shared: &Shared) {
        if self.uplink.sending.is_some() {
            return;
        }
        let mut later = Vec::new();
        while let Some(turn) = self.uplink.next_turn() {
            let piece = match turn {
                Turn::Child(child, substream) => {
                    match self.channel.next_to_send(now, &id_of(shared.seed, child), substream) {
                        Next::Piece(piece) => Some(piece),
                        Next::AfterOthers => {
                            later.push(turn);
                            None
                        }
                        Next::Nothing => None,
                    }
                }
                Turn::Fetch(fetch) => {
                    let next = self.uplink.fetches.get_mut(&fetch).and_then(|f| f.pieces.pop_front());
                    if next.is_none() {
                        self.uplink.fetches.remove(&fetch);
                    }
                    next
                }
            };
            let Some(piece) = piece else { continue };
            let bytes = u64::from(length(shared, piece));
            let over = self.uplink.begin(now, Sending { turn, piece, bytes });
            later.into_iter().for_each(|turn| self.uplink.wants(turn));
            return self.at(over, Event::Sent);
        }
        later.into_iter().for_each(|turn| self.uplink.wants(turn));
    }

    fn sent(&mut self, now: Time, shared: &Shared, out: &mut Outbox) {
        if let Some(sent) = self.uplink.end() {
            match sent.turn {
                Turn::Child(child, _) => {
                    self.channel.sent(now, &id_of(shared.seed, child), sent.piece, sent.bytes);
                    if self.links.contains(&child) {
                        self.send(now, child, Message::Piece(sent.piece), shared, out);
                    }
                }
                Turn::Fetch(fetch) => {
                    if let Some(f) = self.uplink.fetches.get(&fetch) {
                        let (node, ends) = (f.node, f.ends.filter(|_| f.pieces.is_empty()));
                        self.send(now, node, Message::Fetched(sent.piece, ends), shared, out);
                    }
                }
            }
        }
        self.send_next(now, shared);
    }

    /// Its last byte would be here now, if nothing else came over the downlink.
    fn arrives(
        &mut self,
        now: Time,
        (from, piece, job): (Option<Nx>, u64, Option<u64>),
        shared: &Shared,
        out: &mut Outbox,
    ) {
        let bytes = length(shared, piece);
        out.crossed.add(shared.isp(from.unwrap_or(SOURCE)), shared.isp(self.nx), u64::from(bytes));
        let takes = Micros((f64::from(bytes) / self.down.max(1.0) * 1e6) as u64);
        self.down_busy = now.max(self.down_busy + takes);
        if self.down_busy > now {
            self.at(self.down_busy, Event::Landed(from, piece, job));
        } else {
            self.landed(now, from, piece, job, shared, out);
        }
    }

    fn landed(&mut self, now: Time, from: Option<Nx>, piece: u64, job: Option<u64>, shared: &Shared, out: &mut Outbox) {
        let acks = if from.is_some() { ACKS_MILLI.0 } else { ACKS_MILLI.1 };
        self.uplink.message(u64::from(length(shared, piece)) * acks / 1000);
        // The shell takes nothing from who is no parent.
        if from.is_none_or(|f| self.channel.is_feed(&id_of(shared.seed, f))) {
            self.take(now, from, piece, shared, out);
        }
        if let Some(job) = job {
            self.tell(now, LiveInput::OriginEnded(job), shared, out);
        }
    }

    fn take(&mut self, now: Time, from: Option<Nx>, piece: u64, shared: &Shared, out: &mut Outbox) {
        let verdict = self.channel.judge(piece, &data(piece));
        let bytes = length(shared, piece);
        if let (Verdict::Early, Some(from)) = (verdict, from) {
            if self.early.len() >= MAX_EARLY {
                self.early.pop_first();
            }
            self.early.insert(piece, from);
        }
        let from_node = from.map(|f| id_of(shared.seed, f));
        self.tell(now, LiveInput::Piece { from: from_node, piece, verdict, bytes }, shared, out);
        if verdict == Verdict::Good {
            self.counts(now, from, piece, shared, out);
        }
    }

    fn counts(&mut self, now: Time, from: Option<Nx>, piece: u64, shared: &Shared, out: &mut Outbox) {
        let Some(p) = shared.media.pieces.get(piece as usize) else { return };
        if self.asked.remove(&piece) || from.is_none() {
            self.repaired_bytes += u64::from(p.bytes);
        }
        let segment = p.segment as usize;
        if self.held.len() <= segment {
            self.held.resize(segment + 1, 0);
        }
        if let Some(held) = self.held.get_mut(segment) {
            *held += 1;
        }
        if self.leaves_by.is_some() {
            return;
        }
        // As the node counts it: what was there before it is not late.
        if self.watch.is_some() && self.channel.begins().is_some_and(|begins| piece >= begins) {
            out.lags.add(now.since(p.at));
        }
        if let Some(watch) = self.watch.as_mut().filter(|w| w.segment() == Some(u64::from(p.segment))) {
            watch.came(now);
            self.read(now, shared, out);
        }
    }

    fn early_pieces(&mut self, now: Time, shared: &Shared, out: &mut Outbox) {
        let known = |p: &u64| self.channel.judge(*p, &data(*p)) != Verdict::Early;
        let ready: Vec<u64> = self.early.keys().copied().filter(known).collect();
        for piece in ready {
            if let Some(from) = self.early.remove(&piece) {
                self.take(now, Some(from), piece, shared, out);
            }
        }
    }

    // ---- the player ----

    fn load(&mut self, now: Time, shared: &Shared, out: &mut Outbox) {
        if self.leaves_by.is_some() {
            return;
        }
        let Some(watch) = &mut self.watch else { return };
        let again = watch.load(now, &self.channel);
        self.skip_lost(shared);
        if let Some(again) = again {
            self.at(again, Event::Load);
        }
        self.read(now, shared, out);
    }

    /// The player goes on as far as it can.
    fn read(&mut self, now: Time, shared: &Shared, out: &mut Outbox) {
        loop {
            let Some(watch) = &mut self.watch else { return };
            if let Some(segment) = watch.segment() {
                let all = shared.media.segments.get(segment as usize).copied();
                if all.is_none() || self.held.get(segment as usize).copied() != all {
                    return;
                }
                watch.whole(now, all.unwrap_or_default());
            }
            let Some(segment) = watch.begins(now) else { return };
            self.tell(now, LiveInput::Reads { reader: PLAYER, object: segment }, shared, out);
        }
    }

    /// A segment of which something was given up is left out.
    fn skip_lost(&mut self, shared: &Shared) {
        let Some(watch) = &mut self.watch else { return };
        let Some(segment) = watch.segment() else { return };
        if self.channel.object(segment).is_none_or(|o| o.lost) {
            let all = shared.media.segments.get(segment as usize).copied().unwrap_or_default();
            let held = self.held.get(segment as usize).copied().unwrap_or_default();
            watch.lost(all, all.saturating_sub(held));
        }
    }

    // ---- sending ----

    fn at(&mut self, at: Time, what: Event) {
        self.serial += 1;
        self.inbox.push(Due { at, from: self.nx, serial: self.serial, what });
    }

    fn send(&mut self, now: Time, to: Nx, message: Message, shared: &Shared, out: &mut Outbox) {
        self.serial += 1;
        self.uplink.message(message.bytes());
        let at = now + shared.latency(self.nx, to);
        let what = Event::Said(self.nx, message);
        out.mail.push((to, Due { at, from: self.nx, serial: self.serial, what }));
    }

    fn says(&mut self, now: Time, input: Input, shared: &Shared, out: &mut Outbox) {
        self.tells_center(now, ToCenter::Says(Box::new(input)), shared, out);
    }

    fn tells_center(&mut self, now: Time, what: ToCenter, shared: &Shared, out: &mut Outbox) {
        self.serial += 1;
        let at = now + shared.to_center(self.nx);
        out.to_center.push(Due { at, from: self.nx, serial: self.serial, what: (self.nx, what) });
    }
}

/// Bytes of a piece.
fn length(shared: &Shared, piece: u64) -> u32 {
    shared.media.pieces.get(piece as usize).map_or(LIVE_PIECE_BYTES, |p| p.bytes)
}
