//! One content at one node: what comes in, what goes out, and the state that the parts share.

use crate::children::ChildLink;
use crate::intake::Intake;
use crate::origin::{Failure, OriginWork};
use crate::pages::Pages;
use crate::parents::ParentLink;
use crate::readers::Readers;
use headwater_model::assignment::{Assignment, Generation, Lease, LeaseSource, Parent};
use headwater_model::bits::Bits;
use headwater_model::id::{NodeId, Version};
use headwater_model::layout::Layout;
use headwater_model::live::Substreams;
use headwater_model::node::Priority;
use headwater_model::report::{Alarm, ContentReport, EdgeReport, Join};
use headwater_model::rng::Rng;
use headwater_model::time::{Micros, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;

/// An attack from the same address is told again after this time.
const TELL_ATTACKS_EVERY: Micros = Micros::from_secs(60);
/// Addresses whose attacks are told within it.
const MAX_ATTACKERS: usize = 16;

/// Thresholds and limits of a peer's decisions.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Fewest and most pieces asked of one parent and not yet here.
    pub min_outstanding: usize,
    /// See `min_outstanding`.
    pub max_outstanding: usize,
    /// How much of a parent's rate is asked for ahead.
    pub ahead: Micros,
    /// Have-messages to a busy child are held back this long, or until there are `have_batch` pieces.
    pub have_delay: Micros,
    /// See `have_delay`.
    pub have_batch: usize,
    /// Requests that one child may have waiting; more are dropped.
    pub max_queue_pieces: usize,
    /// Children at once.
    pub max_children: usize,
    /// What a parent that sends nothing for this long was asked for is asked of others (later where it is slow anyway).
    pub late: Micros,
    /// A parent that was asked and sends nothing for this long is silent (longer where it promised little, once its first
    /// bytes came).
    pub silent: Micros,
    /// A silent parent that the control center does not replace is asked again after this long.
    pub forgive: Micros,
    /// A parent that trickles for this long while others deliver is left.
    pub slow: Micros,
    /// Nothing to ask of anyone for this long is starving.
    pub starving: Micros,
    /// Without control center and parents: longest random wait before the origin is asked.
    pub alone: Micros,
    /// Runs fetched at once from the origin without a lease.
    pub alone_runs: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            min_outstanding: 3,
            max_outstanding: 128,
            ahead: Micros::from_millis(400),
            have_delay: Micros::from_millis(150),
            have_batch: 16,
            max_queue_pieces: 512,
            max_children: 4096,
            late: Micros::from_secs(1),
            silent: Micros::from_secs(2),
            forgive: Micros::from_secs(5),
            slow: Micros::from_secs(4),
            starving: Micros::from_millis(1000),
            alone: Micros::from_secs(3),
            alone_runs: 3,
        }
    }
}

/// Where a piece came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PieceFrom {
    /// A parent.
    Parent(NodeId),
    /// The origin.
    Origin,
    /// A waypoint, by HTTPS.
    Waypoint(NodeId),
}

/// What verification and the store said of a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PieceOutcome {
    /// Right, and kept.
    Stored,
    /// Right, but it was here already.
    Already,
    /// Not the content.
    Bad,
}

/// Where a page of hashes is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageSource {
    /// A parent.
    Parent(NodeId),
    /// The control center.
    Control,
}

/// What happens to the swarm.
#[derive(Clone, Debug)]
pub enum Input {
    /// The control center's word.
    Assigned(Assignment),
    /// A connection to a node exists (whoever dialled).
    Connected(NodeId),
    /// A newer connection took the place of the one with a node: edges over that are gone. [`Input::Connected`] follows.
    Replaced(NodeId),
    /// A connection broke, or could not be made.
    Lost {
        /// To whom.
        node: NodeId,
        /// In words.
        why: String,
    },
    /// A parent answers the opening of an edge.
    Answered {
        /// Which parent.
        parent: NodeId,
        /// Why it refuses, if it does.
        refused: Option<String>,
    },
    /// A parent holds these pieces (and those it told of before).
    Has(NodeId, Vec<u32>),
    /// A parent holds exactly these.
    HasAll(NodeId, Bits),
    /// The first byte of a parent's first piece is here.
    Began(NodeId),
    /// A piece came and was verified.
    Piece {
        /// From whom.
        from: PieceFrom,
        /// Which.
        piece: u32,
        /// Verified and stored?
        outcome: PieceOutcome,
    },
    /// The round-trip time to a node.
    Rtt(NodeId, Micros),
    /// Packets sent on the connection to a node, and lost ones among them; cumulative.
    Packets(NodeId, u64, u64),
    /// What the node had already was looked through: it holds these pieces now.
    Searched(Bits),
    /// Leave to fetch a run from the origin or a waypoint.
    Leased(Lease),
    /// The leave ended.
    LeaseRevoked(u32),
    /// The lease's source sent all that was asked of it for the run, and all of it was verified and told.
    OriginDone(u32),
    /// The lease's source did not give the run.
    OriginFailed {
        /// Which run.
        run: u32,
        /// In words.
        why: String,
        /// The file at the origin is another one now.
        changed: bool,
        /// This node's own access list forbids the source.
        forbidden: bool,
    },
    /// A child with a valid ticket opened an edge.
    ChildOpened(NodeId),
    /// A child closed its edge.
    ChildClosed(NodeId),
    /// A child asks for pieces.
    Asked(NodeId, Vec<u32>),
    /// A child no longer wants pieces.
    Unasked(NodeId, Vec<u32>),
    /// A child says that a piece from here was bad, and checking it again said so too.
    Rotten(u32),
    /// Somebody here reads these pieces in order, from its position on; again when it has moved.
    Reads {
        /// Who.
        reader: u64,
        /// What is still to read.
        pieces: Range<u32>,
    },
    /// It reads no more.
    ReaderLeft(u64),
    /// A connection from this address broke the rules of the protocol, under whatever identity.
    Attacked(IpAddr),
    /// A verified page of hashes came.
    Page(u32),
    /// A source has not the page.
    NoPage(PageSource, u32),
    /// The session with the control center is there, or gone.
    Control(bool),
    /// Nothing is to be fetched from now on, from anybody; or fetching may go on.
    Pause(bool),
    /// Time passes; also as [`Swarm::next_timeout`] says.
    Tick,
}

/// What the swarm wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Make a connection to this parent, if there is none.
    Dial(Parent),
    /// Make a connection to this child, if there is none (both ends dial; this end is the one that waits a little).
    DialChild(headwater_model::assignment::Child),
    /// Show the ticket to the parent.
    OpenEdge(NodeId),
    /// Tell the parent that nothing more is wanted.
    CloseEdge(NodeId),
    /// Ask the parent for pieces.
    Ask(NodeId, Vec<u32>),
    /// Take requests back.
    Unask(NodeId, Vec<u32>),
    /// Tell the parent that a piece was bad.
    ToldBad(NodeId, u32),
    /// Look for pieces in what the node has already, then say [`Input::Searched`].
    Search,
    /// Ask for a page of hashes.
    AskPage(PageSource, u32),
    /// Tell the child all that is held.
    TellAll(NodeId),
    /// Tell the child of new pieces.
    Tell(NodeId, Vec<u32>),
    /// The child's queue is no longer empty: [`Swarm::next_to_send`].
    Serve(NodeId),
    /// Drop the child's edge.
    CloseChild(NodeId, &'static str),
    /// Fetch these pieces of `run` from the origin or a waypoint.
    FetchOrigin {
        /// Which run.
        run: u32,
        /// From where.
        source: LeaseSource,
        /// Its missing pieces.
        pieces: Vec<Range<u32>>,
    },
    /// Stop fetching `run`.
    StopOrigin(u32),
    /// Tell the control center that a leased run is here.
    LeaseDone(u32),
    /// Tell the control center that it is not to be had.
    LeaseFailed {
        /// Which run.
        run: u32,
        /// In words.
        why: String,
        /// The origin's file changed.
        changed: bool,
        /// This node's own access list forbids the source.
        forbidden: bool,
    },
    /// Raise the alarm.
    Alarm(Alarm),
    /// Everything is here.
    Complete,
}

/// Whether what the node has already is looked through before anything is fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Search {
    /// As soon as all hashes are here.
    Due,
    UnderWay,
    Over,
}

/// One content at one node.
#[derive(Clone, Debug)]
pub struct Swarm {
    pub(crate) config: Config,
    priority: Priority,
    pub(crate) version: Version,
    pub(crate) layout: Layout,
    /// Verified pieces.
    pub(crate) have: Bits,
    /// Verified pieces, and those asked of someone.
    pub(crate) claimed: Bits,
    /// Complete runs.
    pub(crate) runs: Bits,
    runs_reported: Bits,
    /// Per piece: open parents that hold it.
    pub(crate) holders: Vec<u8>,
    pub(crate) parents: BTreeMap<NodeId, ParentLink>,
    pub(crate) children: BTreeMap<NodeId, ChildLink>,
    /// Last words on edges that ended since the last report, so that no byte goes uncounted.
    pub(crate) departed: Vec<EdgeReport>,
    pub(crate) origin: OriginWork,
    pub(crate) pages: Pages,
    generation: Generation,
    pub(crate) control: bool,
    pub(crate) control_lost_at: Time,
    /// This node.
    pub(crate) own: NodeId,
    pub(crate) may_use_origin: bool,
    pub(crate) last_progress: Time,
    pub(crate) starving_alarm_at: Time,
    pub(crate) starving_alarms: u32,
    pub(crate) rng: Rng,
    pub(crate) wasted_bytes: u64,
    pub(crate) readers: Readers,
    /// Addresses that broke the rules, and when that was told.
    attackers: BTreeMap<IpAddr, Time>,
    /// Those of whom bad pieces were told since they were last assigned.
    pub(crate) told_bad: BTreeSet<NodeId>,
    complete_said: bool,
    /// Nothing is fetched.
    pub(crate) paused: bool,
    /// The node's downlink, as of the last input.
    pub(crate) intake: Intake,
    search: Search,
    /// Its share of the node's downlink is used until then.
    pub(crate) asked_until: Time,
    /// When parents and progress are looked at next.
    look_at: Time,
    /// When a child is to be told of pieces that were held back for it.
    pub(crate) tell_at: Option<Time>,
    /// Candidates of one pick: kept for its memory.
    pub(crate) scratch: Vec<u64>,
}

impl Swarm {
    /// A swarm that holds `have` already. `pages_known` are the pages of hashes that are here.
    #[expect(clippy::too_many_arguments, reason = "each is one fact of the content or of the node")]
    pub fn new(
        now: Time,
        version: Version,
        layout: Layout,
        have: Bits,
        pages_known: Bits,
        may_use_origin: bool,
        config: Config,
        seed: u64,
    ) -> Self {
        let mut runs = Bits::new(layout.runs());
        for run in 0..layout.runs() {
            let pieces = layout.pieces_of_run(run);
            if have.ones_in(pieces.start, pieces.end) == pieces.len() as u32 {
                runs.set(run);
            }
        }
        Self {
            priority: Priority::default(),
            claimed: have.clone(),
            holders: vec![0; if have.is_full() { 0 } else { layout.pieces() as usize }],
            runs_reported: Bits::new(layout.runs()),
            runs,
            have,
            parents: BTreeMap::new(),
            children: BTreeMap::new(),
            departed: Vec::new(),
            origin: OriginWork::default(),
            pages: Pages::new(pages_known),
            generation: Generation::default(),
            control: false,
            control_lost_at: now,
            may_use_origin,
            last_progress: now,
            starving_alarm_at: now,
            starving_alarms: 0,
            rng: Rng::new(seed, "swarm"),
            wasted_bytes: 0,
            readers: Readers::default(),
            attackers: BTreeMap::new(),
            told_bad: BTreeSet::new(),
            complete_said: false,
            paused: false,
            intake: Intake::default(),
            search: Search::Over,
            asked_until: now,
            look_at: now,
            tell_at: None,
            scratch: Vec::new(),
            config,
            version,
            layout,
            own: NodeId::default(),
        }
    }

    /// Tells which node this is: nodes that fetch alone share the work by their ids.
    #[must_use]
    pub fn known_as(mut self, own: NodeId) -> Self {
        self.own = own;
        self
    }

    /// Fetches no piece before [`Input::Searched`]: [`Output::Search`] asks for it once all pages are here.
    #[must_use]
    pub fn searching_first(mut self) -> Self {
        self.search = Search::Due;
        self
    }

    /// Whether pieces may be asked for: their hashes are here, and so is all that need not be fetched.
    pub(crate) fn may_fetch(&self) -> bool {
        self.pages.complete() && self.search == Search::Over
    }

    /// Beside the node's other contents it matters so much from now on.
    pub fn set_priority(&mut self, priority: Priority) {
        self.priority = priority;
    }
    /// See [`Swarm::set_priority`].
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// Content and version.
    pub fn version(&self) -> Version {
        self.version
    }
    /// Its geometry.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
    /// Verified pieces.
    pub fn have(&self) -> &Bits {
        &self.have
    }
    /// Whether everything is here.
    pub fn is_complete(&self) -> bool {
        self.have.is_full()
    }
    /// The last assignment's number.
    pub fn generation(&self) -> Generation {
        self.generation
    }
    /// Whether the control center has assigned anything yet.
    pub fn has_assignment(&self) -> bool {
        self.generation != Generation::default()
    }
    /// Whether `child` has an edge here.
    pub fn is_child(&self, child: &NodeId) -> bool {
        self.children.contains_key(child)
    }
    /// Parents with an open edge.
    pub fn open_parents(&self) -> usize {
        self.parents.values().filter(|p| p.is_open()).count()
    }
    /// Children with an open edge.
    pub fn open_children(&self) -> usize {
        self.children.len()
    }
    /// Children with an open edge, by node.
    pub fn children(&self) -> impl Iterator<Item = &NodeId> {
        self.children.keys()
    }
    /// Nodes that an edge exists with or is wanted with.
    pub fn partners(&self) -> impl Iterator<Item = &NodeId> {
        self.parents.keys().chain(self.children.keys())
    }

    /// The one way in, where the node's downlink is limited: what is asked for counts against it.
    pub fn handle_within(&mut self, now: Time, intake: &mut Intake, input: Input, out: &mut Vec<Output>) {
        self.intake = *intake;
        self.handle(now, input, out);
        *intake = self.intake;
    }

    /// The one way in.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Assigned(a) => self.assigned(now, a, out),
            Input::Connected(node) => self.connected(now, node, out),
            Input::Replaced(node) => self.replaced(now, node, out),
            Input::Lost { node, why } => self.lost(now, node, why, out),
            Input::Answered { parent, refused } => self.answered(now, parent, refused, out),
            Input::Has(parent, pieces) => self.parent_has(now, parent, &pieces, out),
            Input::HasAll(parent, bits) => self.parent_has_all(now, parent, bits, out),
            Input::Began(parent) => {
                if let Some(p) = self.parents.get_mut(&parent) {
                    p.begins(now);
                }
            }
            Input::Piece { from, piece, outcome } => self.piece(now, from, piece, outcome, out),
            Input::Rtt(node, rtt) => self.measured(node, rtt),
            Input::Packets(child, sent, lost) => {
                if let Some(c) = self.children.get_mut(&child) {
                    c.packets = (sent, lost);
                }
            }
            Input::Leased(lease) => self.leased(now, lease.run, true, lease.source, out),
            Input::LeaseRevoked(run) => self.lease_revoked(run, out),
            Input::OriginDone(run) => self.origin_done(now, run, out),
            Input::OriginFailed { run, why, changed, forbidden } => {
                self.origin_failed(now, run, Failure { why, changed, forbidden }, out);
            }
            Input::ChildOpened(child) => self.child_opened(now, child, out),
            Input::ChildClosed(child) => self.child_closed(&child),
            Input::Asked(child, pieces) => self.asked(now, child, &pieces, out),
            Input::Unasked(child, pieces) => self.unasked(child, &pieces),
            Input::Rotten(piece) => self.rotten(piece),
            Input::Attacked(from) => self.attacked(now, from, out),
            Input::Reads { reader, pieces } => self.reads(now, reader, pieces, out),
            Input::ReaderLeft(reader) => self.reader_left(reader),
            Input::Page(page) => {
                if self.pages.came(page) {
                    self.watch_origin(out);
                    self.ask_everyone(now, out);
                }
                self.search_if_due(out);
                self.ask_pages(now, out);
            }
            Input::NoPage(source, page) => self.no_page(now, source, page),
            Input::Control(up) => {
                if self.control && !up {
                    self.control_lost_at = now;
                }
                self.control = up;
                if up {
                    self.not_alone();
                    self.ask_everyone(now, out);
                }
                self.search_if_due(out);
                self.ask_pages(now, out);
            }
            Input::Pause(paused) => self.pause(now, paused, out),
            Input::Searched(found) => self.searched(now, &found, out),
            Input::Tick => self.tick(now, out),
        }
    }

    /// When [`Input::Tick`] is due; never before `now`.
    pub fn next_timeout(&self, now: Time) -> Time {
        // Where the downlink is limited nothing else may tell that there is room again.
        let asks_at = self.intake.frees_at(self.asked_until).filter(|_| !self.is_complete() && !self.paused);
        [self.tell_at, asks_at].into_iter().flatten().fold(self.look_at, Time::min).max(now)
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        self.tell_children(now, out);
        if self.intake.frees_at(self.asked_until).is_some_and(|t| t <= now) {
            self.ask_everyone(now, out);
        }
        if self.look_at > now {
            return;
        }
        self.look_at = now + if self.is_complete() { Micros::from_secs(1) } else { Micros::from_millis(250) };
        if self.is_complete() || self.paused {
            return;
        }
        self.watch_origin(out);
        self.yield_to_readers(now, out);
        self.ask_pages(now, out);
        self.watch_parents(now, out);
        self.watch_starving(now, out);
        self.watch_readers(now, out);
        self.go_alone(now, out);
    }

    fn search_if_due(&mut self, out: &mut Vec<Output>) {
        if self.search == Search::Due && self.pages.complete() {
            self.search = Search::UnderWay;
            out.push(Output::Search);
        }
    }

    fn searched(&mut self, now: Time, found: &Bits, out: &mut Vec<Output>) {
        self.search = Search::Over;
        for piece in found.iter() {
            self.stored(now, piece, out);
        }
        self.last_progress = now;
        self.watch_origin(out);
        self.ask_everyone(now, out);
    }

    fn assigned(&mut self, now: Time, a: Assignment, out: &mut Vec<Output>) {
        // Idea 6: a generation that is not newer is an old message.
        if a.version != self.version || a.generation <= self.generation || self.paused {
            return;
        }
        self.generation = a.generation;
        self.new_parents(now, a.parents, a.spares, out);
        for child in a.children.into_iter().take(self.config.max_children) {
            if child.dial && !self.children.contains_key(&child.node) {
                out.push(Output::DialChild(child));
            }
        }
    }

    /// Parents are left and runs given up, or all may begin anew: with the next assignment, whatever its number, as the
    /// swarm may be another one by then.
    fn pause(&mut self, now: Time, paused: bool, out: &mut Vec<Output>) {
        if std::mem::replace(&mut self.paused, paused) == paused {
            return;
        }
        self.generation = Generation::default();
        if paused {
            let parents: Vec<NodeId> = self.parents.keys().copied().collect();
            parents.into_iter().for_each(|node| self.end_edge(now, node, out));
            let runs: Vec<u32> = self.origin.under_way().collect();
            runs.into_iter().for_each(|run| self.lease_revoked(run, out));
        }
    }

    /// Told once in a while for each address: there are others behind it, and it may be given to somebody else.
    fn attacked(&mut self, now: Time, from: IpAddr, out: &mut Vec<Output>) {
        self.attackers.retain(|_, at| now.since(*at) < TELL_ATTACKS_EVERY);
        if self.attackers.len() < MAX_ATTACKERS && !self.attackers.contains_key(&from) {
            self.attackers.insert(from, now);
            out.push(Output::Alarm(Alarm::Attacked { from }));
        }
    }

    fn piece(&mut self, now: Time, from: PieceFrom, piece: u32, outcome: PieceOutcome, out: &mut Vec<Output>) {
        let len = u64::from(self.layout.piece_len(piece));
        let was_asked = match from {
            PieceFrom::Parent(parent) => self.arrived(now, &parent, piece, len, outcome, out),
            PieceFrom::Origin => {
                self.origin.bytes += len;
                false
            }
            PieceFrom::Waypoint(waypoint) => {
                self.origin.of_waypoint(waypoint, len);
                false
            }
        };
        match outcome {
            // It may be on disk, and never have been told of: a fetch was stopped in between.
            PieceOutcome::Stored | PieceOutcome::Already if !self.have.get(piece) => {
                if !was_asked {
                    self.take_back(now, piece, out);
                }
                self.stored(now, piece, out);
            }
            PieceOutcome::Stored | PieceOutcome::Already => self.wasted_bytes += len,
            PieceOutcome::Bad => {
                self.wasted_bytes += len;
                if !self.is_awaited(piece) {
                    self.claimed.clear(piece);
                }
            }
        }
        if let PieceFrom::Parent(parent) = from {
            self.ask(now, parent, out);
        }
    }

    fn stored(&mut self, now: Time, piece: u32, out: &mut Vec<Output>) {
        if !self.have.set(piece) {
            return;
        }
        self.claimed.set(piece);
        self.last_progress = now;
        self.starving_alarms = 0;
        let run = self.layout.run_of(piece);
        let of_run = self.layout.pieces_of_run(run);
        if self.have.ones_in(of_run.start, of_run.end) == of_run.len() as u32 {
            self.runs.set(run);
            self.run_complete(run, out);
        }
        self.tell_of(now, piece, out);
        if self.have.is_full() && !self.complete_said {
            self.complete_said = true;
            self.drop_parents(now, out);
            out.push(Output::Complete);
        }
    }

    /// A piece that was verified once is wrong on disk: it is missing again.
    fn rotten(&mut self, piece: u32) {
        if self.have.clear(piece) {
            self.claimed.clear(piece);
            self.runs.clear(self.layout.run_of(piece));
            self.complete_said = false;
            for child in self.children.values_mut() {
                child.forget(piece);
            }
            if self.holders.is_empty() {
                self.holders = vec![0; self.layout.pieces() as usize];
            }
        }
    }

    /// How the node joins the swarm, or comes back to it.
    pub fn join(&self) -> Join {
        Join {
            version: self.version,
            runs: Some(self.runs.clone()),
            complete: self.is_complete(),
            parents: self
                .parents
                .iter()
                .filter(|(_, p)| p.is_open() && p.assigned)
                .map(|(n, _)| (*n, Substreams::default()))
                .collect(),
            leases: self.origin.under_way().collect(),
            looks_first: self.search != Search::Over,
            source: false,
        }
    }

    /// This content in a heartbeat; `full` reports all that is held, else only what changed.
    pub fn report(&mut self, now: Time, full: bool) -> ContentReport {
        let changed = full || self.runs != self.runs_reported;
        if changed {
            self.runs_reported = self.runs.clone();
        }
        let mut from = std::mem::take(&mut self.departed);
        from.extend(self.origin.waypoint_reports());
        from.extend(self.parents.iter_mut().filter(|(_, p)| p.is_open()).map(|(n, p)| p.report(now, *n)));
        let to: Vec<EdgeReport> = self.children.iter_mut().map(|(n, c)| c.report(now, *n)).collect();
        ContentReport {
            version: self.version,
            runs: changed.then(|| self.runs.clone()),
            pieces_held: self.have.ones(),
            origin_bytes: self.origin.bytes,
            wasted_bytes: self.wasted_bytes,
            from,
            to,
            priority: self.priority,
            live: None,
        }
    }

    fn measured(&mut self, node: NodeId, rtt: Micros) {
        if let Some(p) = self.parents.get_mut(&node) {
            p.rtt = rtt;
        }
        if let Some(c) = self.children.get_mut(&node) {
            c.rtt = rtt;
        }
    }
}
