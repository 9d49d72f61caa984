//! A live stream at one node: who pushes which substream to it, what it lacks and where it asks for that in time, what it
//! pushes to its children, and what players here read.
//!
//! Pieces come unasked, from one parent per substream; entries say what should have come. What does not come is asked for
//! of the substream's parents and spares, and of the origin when a player would else wait. What nobody is to push (whole
//! segments from before a newcomer, substreams for which there is no parent) is asked of helpers, who send it with the
//! uplink that they have left over.

mod check;
mod children;
mod feeds;
mod lag;
mod readers;
mod repair;
mod window;

pub use lag::Lags;
pub use window::{Object, Verdict};

use crate::edges::EdgeView;
use children::ChildLink;
use feeds::{Feed, Lane};
use headwater_model::assignment::{Assignment, Child, ChildrenChange, Generation, Parent};
use headwater_model::id::{NodeId, Version};
use headwater_model::live::{Listed, LiveTerms, LiveTrack, SignedLiveEntry, Substreams};
use headwater_model::node::Priority;
use headwater_model::report::{Alarm, ContentReport, EdgeReport, Join, LiveReport};
use headwater_model::time::{Micros, Time};
use readers::Reader;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use window::{Entered, Window};

/// Thresholds and limits.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveConfig {
    /// A parent says where it is when it has sent nothing for so long.
    pub position: Micros,
    /// A parent that says nothing for so long may be gone: spares push in its place, until it is heard again.
    pub suspected: Micros,
    /// A parent that says nothing for so long is silent: it is left for good, and the control center hears of it.
    pub silent: Micros,
    /// While a substream lags, its rate is measured over so long.
    pub behind: Micros,
    /// Below this share of the substream's rate, in percent, a parent is behind.
    pub behind_percent: u64,
    /// A request that is not answered for so long goes to somebody else.
    pub ask_again: Micros,
    /// A request that a helper does not answer for so long goes to another one.
    pub ask_helper_again: Micros,
    /// How long before a player needs it a piece is asked for that has not come.
    pub ask_ahead: Micros,
    /// How long before that it is fetched from the origin.
    pub origin_ahead: Micros,
    /// The same of what helpers were to bring as nobody pushes it.
    pub origin_ahead_of_helpers: Micros,
    /// How long after a player needed it a piece is given up.
    pub give_up: Micros,
    /// When a piece should be here that no player waits for, after its entry.
    pub in_time: Micros,
    /// Requests to one parent at once.
    pub max_asked: usize,
    /// Requests to one helper at once: who is faster is asked for more.
    pub max_asked_of_helper: usize,
    /// Helpers that can bring the first segment within this time have so much longer: only then is the origin asked. Each is
    /// asked at once for what it brings within it.
    pub helped_within: Micros,
    /// Fetches from the origin at once, and pieces of each.
    pub max_origin_jobs: usize,
    /// See `max_origin_jobs`.
    pub max_origin_pieces: u64,
    /// Children at once.
    pub max_children: usize,
    /// What is older than this is not pushed any more; children may ask for it.
    pub push_within: Micros,
}

impl LiveConfig {
    /// What suits everyone.
    pub const DEFAULT: LiveConfig = LiveConfig {
        position: Micros::from_millis(250),
        suspected: Micros::from_millis(500),
        silent: Micros::from_millis(700),
        behind: Micros::from_millis(1000),
        behind_percent: 40,
        ask_again: Micros::from_millis(400),
        ask_helper_again: Micros::from_millis(1500),
        ask_ahead: Micros::from_millis(1200),
        origin_ahead: Micros::from_millis(600),
        origin_ahead_of_helpers: Micros::from_millis(1800),
        give_up: Micros::from_secs(4),
        in_time: Micros::from_secs(5),
        max_asked: 64,
        max_asked_of_helper: 12,
        helped_within: Micros::from_millis(600),
        max_origin_jobs: 10,
        max_origin_pieces: 64,
        max_children: 4096,
        push_within: Micros::from_secs(8),
    };
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What happens to a stream at a node.
#[derive(Clone, Debug)]
pub enum LiveInput {
    /// The control center's word.
    Assigned(Assignment),
    /// Its word on children only; the rest of the assignment holds.
    ChildrenChanged(ChildrenChange),
    /// A connection to a node exists.
    Connected(NodeId),
    /// A newer connection took the place of the one with a node.
    Replaced(NodeId),
    /// A connection broke, or could not be made.
    Lost {
        /// To whom.
        node: NodeId,
        /// In words.
        why: String,
    },
    /// A parent closed the edge; the connection stays.
    FeedClosed {
        /// Which parent.
        node: NodeId,
        /// In words.
        why: String,
    },
    /// A parent answers the showing of the ticket.
    Answered {
        /// Which parent.
        parent: NodeId,
        /// Why it refuses, if it does.
        refused: Option<String>,
    },
    /// Verified entries came from a node.
    Entries(NodeId, Vec<Arc<SignedLiveEntry>>),
    /// Verified entries came from where the stream's log is published.
    Logged(Vec<Arc<SignedLiveEntry>>),
    /// This node is the source, and says this; the pieces are here.
    Published(Arc<SignedLiveEntry>),
    /// A piece came: verified and kept where it was good.
    Piece {
        /// From a parent; from the origin where `None`.
        from: Option<NodeId>,
        /// Which.
        piece: u64,
        /// What it is.
        verdict: Verdict,
        /// Its length in bytes.
        bytes: u32,
    },
    /// A parent says where it is: its newest entry, and the piece that it sends next per substream.
    Position(NodeId, u64, Vec<(u8, u64)>),
    /// A child with a valid ticket for these substreams opened an edge.
    ChildOpened(NodeId, Substreams),
    /// A child closed its edge.
    ChildClosed(NodeId),
    /// A child wants these substreams pushed, what is new of them from this piece on; and others no longer, from it on.
    Subscribed(NodeId, Substreams, Option<u64>),
    /// A child asks for pieces.
    Asked(NodeId, Vec<u64>),
    /// A child asks for pieces that may wait until nothing is to be pushed, and until they are here.
    AskedToHelp(NodeId, Vec<u64>),
    /// A child takes pieces from elsewhere.
    Cancelled(NodeId, Vec<u64>),
    /// A child asks for the entries after a number.
    EntriesWanted(NodeId, u64),
    /// A fetch from the origin ended; what is still missing of it did not come.
    OriginEnded(u64),
    /// A player reads this object now.
    Reads {
        /// Which player.
        reader: u64,
        /// Which object.
        object: u64,
    },
    /// A player is gone.
    ReaderLeft(u64),
    /// The round-trip time to a node.
    Rtt(NodeId, Micros),
    /// Packets sent on the connection to a node, and lost ones among them; cumulative.
    Packets(NodeId, u64, u64),
    /// The session with the control center is there, or gone.
    Control(bool),
    /// The control center's time now, in Unix milliseconds.
    ControlTime(u64),
    /// Nothing is to be fetched from now on; or fetching may go on.
    Pause(bool),
    /// Time passes; also as [`Channel::next_timeout`] says.
    Tick,
}

/// What it wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum LiveOutput {
    /// Make a connection to this parent, if there is none.
    Dial(Parent),
    /// Make a connection to this child, if there is none.
    DialChild(Child),
    /// Show the ticket to the parent.
    OpenEdge(NodeId),
    /// Tell the parent that nothing more is wanted.
    CloseEdge(NodeId),
    /// Tell a parent what to push.
    Subscribe(NodeId, Substreams, Option<u64>),
    /// Ask a parent for pieces.
    Ask(NodeId, Vec<u64>),
    /// Ask a helper for pieces, when it has nothing to push.
    AskHelper(NodeId, Vec<u64>),
    /// Tell a parent that pieces are fetched elsewhere.
    Cancel(NodeId, Vec<u64>),
    /// Ask a parent for the entries after a number.
    AskEntries(NodeId, u64),
    /// Tell the parent that a piece was bad.
    ToldBad(NodeId, u64),
    /// Send these entries to a child.
    TellEntries(NodeId, Vec<Arc<SignedLiveEntry>>),
    /// Tell a child where this node is.
    TellPosition(NodeId, u64, Vec<(u8, u64)>),
    /// There may be something of a substream for a child: [`Channel::next_to_send`].
    Serve(NodeId, u8),
    /// Drop the child's edge.
    CloseChild(NodeId, &'static str),
    /// Fetch bytes from the origin: those of pieces of one object, one after the other.
    FetchOrigin {
        /// Number of the fetch.
        job: u64,
        /// Where.
        url: String,
        /// First byte there.
        from: u64,
        /// The pieces, with their lengths in bytes.
        pieces: Vec<(u64, u32)>,
    },
    /// Raise the alarm.
    Alarm(Alarm),
    /// What players may ask for has changed, or a piece came that one waits for.
    Changed,
    /// Pieces that are not here any more (see [`Channel::has`]) may be dropped.
    Forget,
    /// This node is the stream's source from now on, or no longer.
    Source(bool),
}

/// What is to be sent to a child of a substream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// This piece; [`Channel::sent`] follows.
    Piece(u64),
    /// Something that may wait, after what is to be pushed to other children: ask again when these have had a turn.
    AfterOthers,
    /// Nothing; [`LiveOutput::Serve`] tells when there is.
    Nothing,
}

/// A live stream at one node.
#[derive(Clone, Debug)]
pub struct Channel {
    config: LiveConfig,
    window: Window,
    generation: Generation,
    /// Parents, spares and helpers.
    feeds: BTreeMap<NodeId, Feed>,
    /// Substreams, by their number.
    lanes: Vec<Lane>,
    children: BTreeMap<NodeId, ChildLink>,
    /// Children, as the control center names them.
    named: BTreeSet<NodeId>,
    readers: BTreeMap<u64, Reader>,
    /// Fetches from the origin under way, and their pieces.
    jobs: BTreeMap<u64, Vec<u64>>,
    /// See [`Channel::begin`].
    begin: Option<u64>,
    next_job: u64,
    is_source: bool,
    control: bool,
    paused: bool,
    /// Control time and when it was so.
    control_ms: Option<(u64, Time)>,
    lags: Lags,
    told_lags: Lags,
    fed_again: Lags,
    forgotten: u64,
    peer_bytes: u64,
    origin_bytes: u64,
    wasted_bytes: u64,
    uploaded_bytes: u64,
    tick_at: Time,
}

/// How a stream fares at a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveState {
    /// Received from peers, in bytes.
    pub peer_bytes: u64,
    /// Received from the origin, in bytes.
    pub origin_bytes: u64,
    /// Received twice or wrong, in bytes.
    pub wasted_bytes: u64,
    /// Sent to children, in bytes.
    pub uploaded_bytes: u64,
    /// Parents that push something.
    pub parents: usize,
    /// Children.
    pub children: usize,
    /// Substreams that nobody pushes.
    pub unfed: u32,
    /// Substreams that it pushes, of each child those that it takes.
    pub pushes: u32,
    /// Pieces that are known and not here.
    pub missing: usize,
    /// Pieces that were given up.
    pub lost: u64,
    /// Whether it is the source.
    pub is_source: bool,
}

impl Channel {
    /// Nothing is known yet but the track.
    pub fn new(now: Time, track: LiveTrack, config: LiveConfig) -> Self {
        let lanes = (0..track.terms.substreams.get()).map(|_| Lane::new(now)).collect();
        Channel {
            config,
            window: Window::new(track),
            generation: Generation::default(),
            feeds: BTreeMap::new(),
            lanes,
            children: BTreeMap::new(),
            named: BTreeSet::new(),
            readers: BTreeMap::new(),
            jobs: BTreeMap::new(),
            begin: None,
            next_job: 0,
            is_source: false,
            control: false,
            paused: false,
            control_ms: None,
            lags: Lags::default(),
            told_lags: Lags::default(),
            fed_again: Lags::default(),
            forgotten: 0,
            peer_bytes: 0,
            origin_bytes: 0,
            wasted_bytes: 0,
            uploaded_bytes: 0,
            tick_at: now,
        }
    }

    /// Content and version.
    pub fn version(&self) -> Version {
        self.window.track().version
    }
    /// What its log says.
    pub fn track(&self) -> &LiveTrack {
        self.window.track()
    }
    /// What holds for it.
    pub fn terms(&self) -> LiveTerms {
        self.window.track().terms
    }
    /// Whether this node is the source.
    pub fn is_source(&self) -> bool {
        self.is_source
    }
    /// Whether no parent and no spare is there to hear entries from.
    pub fn is_alone(&self) -> bool {
        !self.is_source && !self.feeds.values().any(Feed::is_open)
    }
    /// Entries after a number, oldest first, `most` at most.
    pub fn entries_after(&self, after: u64, most: usize) -> impl Iterator<Item = &Arc<SignedLiveEntry>> {
        let range = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        self.window.entries().range(range).take(most).map(|(_, k)| &k.signed)
    }
    /// Whether the publisher ended the stream.
    pub fn has_ended(&self) -> bool {
        self.window.has_ended()
    }
    /// Time from the source having a piece to its being here, of all pieces.
    pub fn lags(&self) -> &Lags {
        &self.lags
    }
    /// From the last word of a parent that was lost until another one pushes its substream, of all such losses.
    pub fn fed_again(&self) -> &Lags {
        &self.fed_again
    }
    /// What `data` is, said to be `piece`.
    pub fn judge(&self, piece: u64, data: &[u8]) -> Verdict {
        self.window.judge(piece, data)
    }
    /// Whether the entry is known, or too old to be of use: then it need not be verified.
    pub fn knows_entry(&self, number: u64) -> bool {
        self.window.entries().contains_key(&number)
    }
    /// Objects that players may ask for, oldest first, and whether some of each is lost.
    pub fn listed(&self) -> impl DoubleEndedIterator<Item = (u64, &Object, &Listed)> {
        self.window.listed()
    }
    /// Whether an entry from before the newest one is missing and may still come: what is not listed now may be soon.
    pub fn awaits_entries(&self) -> bool {
        self.window.awaits_entries()
    }
    /// An object.
    pub fn object(&self, object: u64) -> Option<&Object> {
        self.window.objects().get(&object)
    }
    /// Whether a piece is here.
    pub fn has(&self, piece: u64) -> bool {
        self.window.has(piece)
    }
    /// Whether all of an object is here.
    pub fn is_here(&self, object: u64) -> bool {
        self.window.is_here(object)
    }
    /// The byte of an object up to which all is here, from `offset` on.
    pub fn held_up_to(&self, object: u64, offset: u64) -> u64 {
        self.window.held_up_to(object, offset)
    }
    /// The piece with this byte of an object, and the byte at which that piece begins.
    pub fn piece_at(&self, object: u64, offset: u64) -> Option<(u64, u64)> {
        self.window.piece_at(object, offset)
    }
    /// Number of the newest entry.
    pub fn newest_entry(&self) -> Option<u64> {
        self.window.newest_entry()
    }
    /// The piece from which on everything is pushed here; what was before it came late or not at all. Known with the first
    /// entries.
    pub fn begins(&self) -> Option<u64> {
        self.begin
    }
    /// The first piece of the window.
    pub fn first_piece(&self) -> u64 {
        self.window.first_piece()
    }
    /// The piece after the newest entry's last one.
    pub fn end_piece(&self) -> u64 {
        self.window.end_piece()
    }
    /// Whoever has to do with this node in this stream.
    pub fn partners(&self) -> impl Iterator<Item = &NodeId> {
        self.feeds.keys().chain(self.children.keys())
    }
    /// Nodes with an open edge as children.
    pub fn children(&self) -> impl Iterator<Item = &NodeId> {
        self.children.keys()
    }
    /// The newest segment that is here as a whole: its number in the stream.
    pub fn newest_here(&self) -> Option<u64> {
        self.listed().rev().find(|(object, ..)| self.is_here(*object)).map(|(.., listed)| listed.sequence)
    }
    /// Whether the control center ever assigned anything.
    pub fn has_assignment(&self) -> bool {
        self.generation > Generation::default()
    }
    /// Whether `node` is a parent, a spare one or a helper, or was one until just now.
    pub fn is_feed(&self, node: &NodeId) -> bool {
        self.feeds.contains_key(node)
    }
    /// Whether `node` has an open edge as a child.
    pub fn is_child(&self, node: &NodeId) -> bool {
        self.children.contains_key(node)
    }

    /// When [`LiveInput::Tick`] is due.
    pub fn next_timeout(&self) -> Time {
        self.tick_at
    }

    /// How it is joined, or joined again.
    pub fn join(&self) -> Join {
        let gives = |(node, f): (&NodeId, &Feed)| (!f.subscribed.is_empty()).then_some((*node, f.subscribed));
        Join { parents: self.feeds.iter().filter_map(gives).collect(), ..Join::to(self.version()) }
    }

    /// All edges to parents, spares and helpers.
    pub fn parent_edges(&self) -> impl Iterator<Item = EdgeView> {
        self.feeds.iter().map(|(node, f)| f.view(*node))
    }
    /// All edges to children.
    pub fn child_edges(&self) -> impl Iterator<Item = EdgeView> {
        self.children.iter().map(|(node, c)| c.view(*node))
    }

    /// How it fares.
    pub fn state(&self) -> LiveState {
        LiveState {
            peer_bytes: self.peer_bytes,
            origin_bytes: self.origin_bytes,
            wasted_bytes: self.wasted_bytes,
            uploaded_bytes: self.uploaded_bytes,
            parents: self.feeds.values().filter(|f| !f.subscribed.is_empty()).count(),
            children: self.children.len(),
            unfed: self.lanes.iter().filter(|l| l.parent.is_none()).count() as u32,
            pushes: self.children.values().map(|c| c.takes().len()).sum(),
            missing: self.awaited(),
            lost: self.window.lost_pieces(),
            is_source: self.is_source,
        }
    }

    /// Whether a piece that should have come is missing so long after its entry came.
    pub fn is_late(&self, now: Time, by: Micros) -> bool {
        let mut missing = self.window.missing().range(self.begin.unwrap_or(u64::MAX)..);
        missing.any(|(_, m)| now.since(m.known_at) >= by)
    }

    /// Pieces that should come and are not here.
    fn awaited(&self) -> usize {
        self.window.missing().range(self.begin.unwrap_or(0)..).count()
    }

    /// What a heartbeat says of it.
    pub fn report(&mut self, now: Time) -> ContentReport {
        let lanes = || (0..).zip(&self.lanes);
        let last_pieces = |parent: &NodeId| lanes().filter_map(|(s, l)| Some((s, l.last_piece_of(parent)?))).collect();
        let open = self.feeds.iter().filter(|(_, f)| f.is_open());
        let from: Vec<EdgeReport> = open.map(|(n, f)| f.report(*n, last_pieces(n))).collect();
        let to: Vec<EdgeReport> = self.children.iter_mut().map(|(n, c)| c.report(now, *n)).collect();
        let lag = self.lags.since(&self.told_lags).percentile(95);
        self.told_lags = self.lags.clone();
        ContentReport {
            version: self.version(),
            runs: None,
            pieces_held: 0,
            origin_bytes: self.origin_bytes,
            wasted_bytes: self.wasted_bytes,
            from,
            to,
            priority: Priority::High,
            live: Some(LiveReport {
                newest_entry: self.window.newest_entry().unwrap_or(0),
                lag: lag.unwrap_or_default(),
                missing: self.awaited() as u32,
                lost: self.window.lost_pieces(),
            }),
        }
    }

    /// The one way in.
    pub fn handle(&mut self, now: Time, input: LiveInput, out: &mut Vec<LiveOutput>) {
        match input {
            LiveInput::Assigned(assignment) => self.assigned(now, assignment, out),
            LiveInput::ChildrenChanged(change) => self.children_changed(now, change, out),
            LiveInput::Connected(node) => self.connected(now, node, out),
            LiveInput::Replaced(node) => self.replaced(now, &node),
            LiveInput::Lost { node, why } => self.lost(now, node, why, out),
            LiveInput::FeedClosed { node, why } => self.lost_feed(now, node, why, out),
            LiveInput::Answered { parent, refused } => self.answered(now, parent, refused, out),
            LiveInput::Entries(from, entries) => entries.into_iter().for_each(|e| self.entry(now, Some(from), e, out)),
            LiveInput::Logged(entries) => entries.into_iter().for_each(|e| self.entry(now, None, e, out)),
            LiveInput::Published(entry) => self.published(now, entry, out),
            LiveInput::Piece { from, piece, verdict, bytes } => self.piece(now, from, piece, verdict, bytes, out),
            LiveInput::Position(node, newest, next) => self.position(now, node, newest, &next),
            LiveInput::ChildOpened(node, may) => self.child_opened(now, node, may, out),
            LiveInput::ChildClosed(node) => drop(self.children.remove(&node)),
            LiveInput::Subscribed(node, substreams, from) => self.subscribed(now, node, substreams, from, out),
            LiveInput::Asked(node, pieces) => self.asked(node, &pieces, out),
            LiveInput::AskedToHelp(node, pieces) => self.asked_to_help(node, &pieces, out),
            LiveInput::Cancelled(node, pieces) => self.cancelled(&node, &pieces),
            LiveInput::EntriesWanted(node, after) => self.entries_wanted(now, node, after, out),
            LiveInput::OriginEnded(job) => self.origin_ended(now, job),
            LiveInput::Reads { reader, object } => self.reads(now, reader, object, out),
            LiveInput::ReaderLeft(reader) => drop(self.readers.remove(&reader)),
            LiveInput::Rtt(node, rtt) => self.measured(&node, rtt),
            LiveInput::Packets(node, sent, lost) => {
                if let Some(c) = self.children.get_mut(&node) {
                    c.packets = (sent, lost);
                }
            }
            LiveInput::Control(there) => {
                self.control = there;
                self.children_stay(now);
            }
            LiveInput::ControlTime(ms) => self.control_ms = Some((ms, now)),
            LiveInput::Pause(paused) => {
                self.paused = paused;
                self.lanes.iter_mut().for_each(|l| l.lost_at = None);
            }
            LiveInput::Tick => self.tick(now, out),
        }
    }

    /// An entry came, from a parent or from the published log.
    fn entry(&mut self, now: Time, from: Option<NodeId>, signed: Arc<SignedLiveEntry>, out: &mut Vec<LiveOutput>) {
        if let Some(feed) = from.and_then(|f| self.feeds.get_mut(&f)) {
            feed.heard(now);
        }
        if self.window.enter(now, signed.clone(), false) == Entered::New {
            self.entered(&signed, from, out);
        }
    }

    /// An entry that this node says itself.
    fn published(&mut self, now: Time, signed: Arc<SignedLiveEntry>, out: &mut Vec<LiveOutput>) {
        if self.window.enter(now, signed.clone(), true) == Entered::New {
            self.entered(&signed, None, out);
            for piece in signed.entry.first_piece..signed.entry.end_piece() {
                self.push(piece, out);
            }
        }
    }

    fn entered(&mut self, signed: &Arc<SignedLiveEntry>, from: Option<NodeId>, out: &mut Vec<LiveOutput>) {
        self.tell_children(signed, from, out);
        if signed.entry.listed.is_some() || signed.entry.last {
            out.push(LiveOutput::Changed);
        }
        let first = self.window.first_piece();
        if first > self.forgotten {
            self.forgotten = first;
            self.children.values_mut().for_each(|c| c.forget_before(first));
            out.push(LiveOutput::Forget);
        }
    }

    fn piece(
        &mut self,
        now: Time,
        from: Option<NodeId>,
        piece: u64,
        verdict: Verdict,
        bytes: u32,
        out: &mut Vec<LiveOutput>,
    ) {
        let bytes = u64::from(bytes);
        let substream = self.terms().substream_of(piece);
        if let Some(node) = from
            && let Some(feed) = self.feeds.get_mut(&node)
        {
            feed.heard(now);
            feed.came(piece, bytes, verdict == Verdict::Good);
        }
        if matches!(verdict, Verdict::Good | Verdict::Useless)
            && let Some(lane) = self.lanes.get_mut(usize::from(substream))
            && let Some(after) = lane.came(now, from, piece, bytes)
        {
            self.fed_again.add(after);
        }
        match (verdict, from) {
            (Verdict::Good, _) => {
                self.count_lag(now, piece);
                *(if from.is_some() { &mut self.peer_bytes } else { &mut self.origin_bytes }) += bytes;
                self.window.stored(piece);
                self.push(piece, out);
                out.push(LiveOutput::Changed);
            }
            (Verdict::Bad, Some(node)) => {
                self.wasted_bytes += bytes;
                out.push(LiveOutput::ToldBad(node, piece));
                self.leave(now, node, Alarm::BadPieces { parent: node }, out);
            }
            (Verdict::Bad, None) | (Verdict::Useless, _) => self.wasted_bytes += bytes,
            (Verdict::Early, _) => {}
        }
    }

    fn count_lag(&mut self, now: Time, piece: u64) {
        if piece < self.begin() {
            // It was there before this node was.
            return;
        }
        let Some((ms, at)) = self.control_ms else { return };
        let Some(known) = self.window.entry_of(piece) else { return };
        let now_ms = ms + now.since(at).0 / 1000;
        self.lags.add(Micros::from_millis(now_ms.saturating_sub(known.signed.entry.time_unix_ms)));
    }

    fn tick(&mut self, now: Time, out: &mut Vec<LiveOutput>) {
        self.tick_at = now + Micros::from_millis(50);
        self.tell_positions(now, out);
        if self.is_source || self.paused {
            return;
        }
        self.watch(now, out);
        self.open_lanes(now, out);
        self.mend(now, out);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
