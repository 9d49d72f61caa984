//! What a node knows, behind one lock that is never held across I/O; and how a swarm's outputs are carried out.

use super::limits::InForce;
use super::live::{self, Live};
use super::meters::Meters;
use super::probes::PerSecond;
use super::storage::Keeping;
use super::{ContentStatus, FetchError, Inner, Outcome, connections, origin_fetch, serving, versions};
use crate::origin::Access;
use crate::store::{Destination, StoreHandle};
use bytes::Bytes;
use headwater_model::assignment::{Assignment, Child, Reach};
use headwater_model::id::{ContentId, Hash, NodeId, Version};
use headwater_model::log::{Log, Track};
use headwater_model::node::Priority;
use headwater_model::report::{Alarm, DialResult, Join};
use headwater_model::ticket::{ParentKey, Ticket};
use headwater_model::time::{Micros, Time};
use headwater_model::{Name, SourceClass};
use headwater_peer_core::live::LiveInput;
use headwater_peer_core::{ControlSession, Input, Output, PageSource, PieceFrom, PieceOutcome, Swarm};
use headwater_transport::PeerConnection;
use headwater_wire::{Bitmap, Found, FromControl, FromNode, FromPeer, GivenTicket, Held, OriginAccess, limits};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

/// Notes kept for the user.
const MAX_NOTES: usize = 16;
/// Nodes whose tickets and classes are remembered, beside those that an edge exists with.
pub(crate) const MAX_REMEMBERED: usize = 256;
/// How often time passes for swarms at least.
const TICK: Duration = Duration::from_millis(50);
/// A connection that no edge uses is closed after this long.
const UNUSED: Micros = Micros::from_secs(15);

/// Why a node is not fetched from.
pub(crate) const NOT_LISTED: &str = "it is not on this node's access list (--sources)";

/// A connection to another node, its hello received.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) id: u64,
    pub(crate) connection: PeerConnection,
    pub(crate) to_peer: mpsc::Sender<Bytes>,
    /// Nonce that the other end gave: this end proves its tickets over it.
    pub(crate) their_nonce: [u8; 32],
    pub(crate) their_certificate: Hash,
    pub(crate) used_at: Time,
}

/// The one connection with a node that this end, having the lower id, says hello on.
pub(crate) struct Kept {
    pub(crate) id: u64,
    pub(crate) connection: PeerConnection,
    /// Since when.
    pub(crate) at: Time,
    /// Which run of the other node it is with, once its hello came.
    pub(crate) instance: Option<u64>,
}

/// Everything a node knows.
pub(crate) struct State {
    pub(crate) session: ControlSession,
    pub(crate) control: Option<mpsc::Sender<Bytes>>,
    /// The session's connection, where it is by QUIC.
    pub(crate) control_quic: Option<quinn::Connection>,
    /// Why there was no session, last.
    pub(crate) control_problem: Option<String>,
    /// The session is, or was when there was one, over a WebSocket.
    pub(crate) by_web: bool,
    pub(crate) control_epoch_seen: u64,
    pub(crate) parent_keys: Vec<(u64, ParentKey)>,
    pub(crate) contents: BTreeMap<ContentId, ContentState>,
    /// Sum of the weights of contents that fetch, as of the last tick.
    fetching_weight: u64,
    /// The connection in use with each node.
    pub(crate) links: BTreeMap<NodeId, Link>,
    /// Of nodes with a higher id: the connection that is kept, whether its hello came or not.
    pub(crate) kept: BTreeMap<NodeId, Kept>,
    /// Connections by node whose hello has not come.
    pub(crate) greeting: BTreeMap<NodeId, u32>,
    pub(crate) probes_made: PerSecond,
    pub(crate) probes_told: PerSecond,
    /// Where the control center sees this node.
    pub(crate) observed: Option<SocketAddr>,
    /// What it found out about how others reach this node.
    pub(crate) found: Option<Found>,
    /// The task that has a router forward a port.
    pub(crate) port_mapping: Option<tokio::task::JoinHandle<()>>,
    /// Port of the router's that it forwards here.
    pub(crate) mapped_port: Option<NonZeroU16>,
    /// Why it forwards none.
    pub(crate) mapping_problem: Option<String>,
    pub(crate) dialling: BTreeSet<NodeId>,
    /// Requests by HTTPS under way, by child.
    pub(crate) https_children: BTreeMap<NodeId, u32>,
    pub(crate) next_link: u64,
    pub(crate) leaving: bool,
    pub(crate) limits: InForce,
    /// The task that looks at what the limits depend on.
    pub(crate) limits_kept: Option<tokio::task::JoinHandle<()>>,
    /// When a heartbeat last told of traffic, and the bytes sent and received by then.
    pub(crate) told_traffic: (Time, u64, u64),
}

/// A content, from the wish to have it on.
pub(crate) struct ContentState {
    pub(crate) id: ContentId,
    pub(crate) name: Option<Name>,
    pub(crate) destination: Option<Destination>,
    pub(crate) state_dir: Option<PathBuf>,
    /// Files and folders that the user named, to take equal pieces from.
    pub(crate) have: Vec<PathBuf>,
    /// A newer version is fetched when there is one, and takes the place of a complete one.
    pub(crate) follows: bool,
    /// There is something to look through before taking part.
    pub(crate) looks_first: bool,
    /// The version before the one that is fetched now: read by programs here until that is complete.
    pub(crate) former: Option<Box<Running>>,
    pub(crate) phase: Phase,
    /// How much it matters beside the node's other contents.
    pub(crate) priority: Priority,
    pub(crate) pending: VecDeque<FromControl>,
    pub(crate) outcome: watch::Sender<Outcome>,
    pub(crate) keeping: Keeping,
    /// It is here in place of this one, and nobody asked for it.
    pub(crate) stands_in_for: Option<Name>,
    /// Makes the claim to be a source of this live stream.
    pub(crate) claim: Option<Claim>,
    notes: VecDeque<String>,
}

/// Signs, with the publisher's key, that this node is a source of a version.
pub(crate) type Claim = Box<dyn Fn(Version) -> [u8; 64] + Send>;

pub(crate) enum Phase {
    /// The log is being asked for.
    Asking,
    /// The store is being opened.
    Opening,
    /// The swarm runs.
    Running(Box<Running>),
    /// The live stream runs.
    Live(Box<Live>),
    /// This node is lightweight, and this content is here in its place.
    StandIn(ContentId),
    /// It came to nothing.
    Failed,
}

/// A content whose swarm runs.
pub(crate) struct Running {
    pub(crate) track: Arc<Track>,
    pub(crate) log: Log,
    pub(crate) swarm: Swarm,
    pub(crate) store: StoreHandle,
    pub(crate) access: Access,
    pub(crate) tickets: BTreeMap<NodeId, GivenTicket>,
    pub(crate) classes: BTreeMap<NodeId, SourceClass>,
    pub(crate) senders: BTreeMap<NodeId, Sender>,
    pub(crate) origin_jobs: BTreeMap<u32, AbortHandle>,
    pub(crate) bytes_held: u64,
    pub(crate) peer_bytes: u64,
    pub(crate) waypoint_bytes: u64,
    pub(crate) origin_bytes: u64,
    pub(crate) wasted_bytes: u64,
    pub(crate) uploaded_bytes: u64,
    /// Taken from files that were here.
    pub(crate) reused_bytes: u64,
    /// Files to look through.
    pub(crate) sources: Vec<PathBuf>,
    /// These are being looked through; what was found so far.
    pub(crate) looking: Option<Arc<AtomicU64>>,
    /// Where this version's state lies.
    pub(crate) folder: PathBuf,
    pub(crate) meters: Meters,
    /// A piece that a child says was bad is being looked at.
    pub(crate) rechecking: bool,
    pub(crate) tick_at: Time,
    /// Woken by every piece that is stored, and when the content ends.
    pub(crate) arrived: Arc<Notify>,
    /// Whoever reads it on this machine or has it by HTTPS holds a clone.
    pub(crate) reading: Arc<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.arrived.notify_waiters();
    }
}

/// A task that sends to a child.
pub(crate) struct Sender {
    pub(crate) wake: Arc<Notify>,
    pub(crate) task: AbortHandle,
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether there is a connection with the process of `node` that is at `reach`. One with an earlier process may look alive
/// for seconds; what tells them apart is the certificate, which each process makes anew.
pub(crate) fn is_linked(links: &BTreeMap<NodeId, Link>, node: &NodeId, reach: &Reach) -> bool {
    let is_of = |l: &Link| reach.certificate == Hash::default() || l.their_certificate == reach.certificate;
    links.get(node).is_some_and(is_of)
}

impl State {
    pub(crate) fn new(now: Time, seed: u64, limits: InForce) -> Self {
        Self {
            session: ControlSession::new(now, seed),
            control: None,
            control_quic: None,
            control_problem: None,
            by_web: false,
            control_epoch_seen: 0,
            parent_keys: Vec::new(),
            contents: BTreeMap::new(),
            fetching_weight: 0,
            links: BTreeMap::new(),
            kept: BTreeMap::new(),
            greeting: BTreeMap::new(),
            probes_made: PerSecond::default(),
            probes_told: PerSecond::default(),
            observed: None,
            found: None,
            mapped_port: None,
            mapping_problem: None,
            port_mapping: None,
            dialling: BTreeSet::new(),
            https_children: BTreeMap::new(),
            next_link: 0,
            leaving: false,
            limits,
            limits_kept: None,
            told_traffic: (now, 0, 0),
        }
    }

    /// Tells the control center what the router forwards here.
    pub(crate) fn tell_mapped(&mut self) {
        // The router's own idea of its address may be another NAT's inside; what counts is what is seen.
        let mapped = self.observed.zip(self.mapped_port).map(|(seen, port)| SocketAddr::new(seen.ip(), port.get()));
        self.tell_control(&FromNode::MappedAddress(mapped));
    }

    /// How all contents are joined, or joined again; and the claim to be a live stream's source.
    pub(crate) fn joins(&self) -> Vec<(Join, Option<[u8; 64]>)> {
        let join = |c: &ContentState| match &c.phase {
            Phase::Running(r) => Some((r.swarm.join(), None)),
            Phase::Live(l) => Some(l.join()),
            Phase::Asking => Some((c.first_join(), None)),
            Phase::Opening | Phase::StandIn(_) | Phase::Failed => None,
        };
        self.contents.values().filter_map(join).collect()
    }

    /// The running content of this version.
    pub(crate) fn running(&mut self, version: Version) -> Option<&mut Running> {
        match &mut self.contents.get_mut(&version.content)?.phase {
            Phase::Running(r) if r.swarm.version() == version => Some(r),
            _ => None,
        }
    }

    /// Says something to the control center; dropped when there is no session (a new one begins with everything anew).
    pub(crate) fn tell_control(&mut self, message: &FromNode) {
        if let Some(control) = &self.control
            && control.try_send(message.encode()).is_err()
        {
            // The queue is full or its task gone: the session is as good as lost.
            self.control = None;
        }
    }

    /// Says something to a node over the connection in use.
    pub(crate) fn tell_peer(&mut self, node: &NodeId, message: &FromPeer) {
        if let Some(link) = self.links.get(node)
            && link.to_peer.try_send(message.encode()).is_err()
        {
            link.connection.close(1u32.into(), b"reads too slowly");
        }
    }
}

impl Running {
    /// What was said of nodes that have nothing to do with this one any more is forgotten, when it is much.
    pub(crate) fn forget_strangers(&mut self, assigned: &Assignment) {
        if self.tickets.len().max(self.classes.len()) <= MAX_REMEMBERED {
            return;
        }
        let named = assigned.senders().map(|p| p.node);
        let near: BTreeSet<NodeId> = named.chain(self.swarm.partners().copied()).collect();
        self.tickets.retain(|node, _| near.contains(node));
        self.classes.retain(|node, _| near.contains(node));
    }
    pub(crate) fn version(&self) -> Version {
        self.swarm.version()
    }
}

impl ContentState {
    pub(crate) fn new(
        id: ContentId,
        name: Option<Name>,
        destination: Option<Destination>,
        state_dir: Option<PathBuf>,
    ) -> Self {
        Self {
            id,
            name,
            destination,
            state_dir,
            have: Vec::new(),
            follows: false,
            looks_first: false,
            former: None,
            phase: Phase::Asking,
            priority: Priority::default(),
            pending: VecDeque::new(),
            outcome: watch::Sender::new(Outcome::Running),
            keeping: Keeping::new(),
            stands_in_for: None,
            claim: None,
            notes: VecDeque::new(),
        }
    }

    /// The version whose swarm runs.
    pub(crate) fn version(&self) -> Option<Version> {
        match &self.phase {
            Phase::Running(r) => Some(r.version()),
            Phase::Live(l) => Some(l.channel.version()),
            _ => None,
        }
    }

    /// As logs call it.
    pub(crate) fn shown(&self) -> String {
        let name = match (&self.phase, &self.name) {
            (Phase::Running(r), _) => Some(r.track.name.as_str()),
            (Phase::Live(l), _) => Some(l.track.name.as_str()),
            (_, name) => name.as_ref().map(|n| n.name.as_str()),
        };
        name.map_or_else(|| format!("content {:.8}", self.id), |name| format!("{name:?}"))
    }

    /// Keeps a text for the user, and logs it.
    pub(crate) fn note(&mut self, text: String) {
        if self.notes.back() != Some(&text) {
            tracing::info!("{}: {text}", self.shown());
            self.keep_note(text);
        }
    }

    /// Keeps a text for the user.
    pub(crate) fn keep_note(&mut self, text: String) {
        if self.notes.back() != Some(&text) {
            if self.notes.len() == MAX_NOTES {
                self.notes.pop_front();
            }
            self.notes.push_back(text);
        }
    }

    pub(crate) fn fail(&mut self, error: FetchError) {
        let text = error.to_string();
        if self.notes.back() != Some(&text) {
            tracing::warn!("{} is given up: {text}", self.shown());
            self.keep_note(text);
        }
        self.phase = Phase::Failed;
        self.outcome.send_replace(Outcome::Failed(error));
    }

    pub(crate) fn status(&self, state: &State) -> ContentStatus {
        let mut s = ContentStatus {
            content: self.id.to_string(),
            name: self.name.as_ref().map(|n| n.name.clone()).unwrap_or_default(),
            state: String::from(match &self.phase {
                Phase::Asking => "asking",
                Phase::Opening => "opening",
                Phase::Running(r) if r.swarm.is_complete() => "complete",
                Phase::Running(r) if r.looking.is_some() => "looking",
                Phase::Running(_) => "fetching",
                Phase::Live(_) => "live",
                Phase::StandIn(_) => "replaced",
                Phase::Failed => "failed",
            }),
            stand_in: match &self.phase {
                Phase::StandIn(by) => Some(by.to_string()),
                _ => None,
            },
            stands_in_for: self.stands_in_for.as_ref().map(|n| n.name.clone()),
            control: state.session.is_connected(),
            pinned: self.keeping.pinned,
            notes: self.notes.iter().cloned().collect(),
            ..ContentStatus::default()
        };
        if let Phase::Running(r) = &self.phase {
            s.name.clone_from(&r.track.name);
            s.bytes = r.bytes_held;
            s.total = r.track.layout.bytes();
            s.complete = r.swarm.is_complete();
            s.peer_bytes = r.peer_bytes;
            s.waypoint_bytes = r.waypoint_bytes;
            s.origin_bytes = r.origin_bytes;
            s.wasted_bytes = r.wasted_bytes;
            s.uploaded_bytes = r.uploaded_bytes;
            let found = r.looking.as_ref().map_or(0, |l| l.load(Ordering::Relaxed));
            s.reused_bytes = r.reused_bytes + found;
            s.bytes += found;
            s.epoch = r.version().epoch;
            s.parents = r.swarm.open_parents();
            s.children = r.swarm.open_children();
        }
        if let Phase::Live(l) = &self.phase {
            l.status(&mut s);
        }
        s
    }

    /// Its share of what contents that fetch compete for.
    fn fetching_weight(&self) -> Option<u64> {
        match &self.phase {
            Phase::Running(r) if !r.swarm.is_complete() => Some(self.priority.weight()),
            _ => None,
        }
    }

    /// Whether it lies in the node's data folder, and not where the user said: then each version has a folder there.
    pub(crate) fn is_in_data_folder(&self) -> bool {
        self.destination.is_none() && self.state_dir.is_none()
    }

    /// Folder of the content's state; that of its first version, and of folders for later ones.
    pub(crate) fn folder(&self, inner: &Inner) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| inner.config.data.join("contents").join(self.id.to_string()))
    }

    /// The join that asks for the log.
    pub(crate) fn first_join(&self) -> Join {
        let version = Version { content: self.id, epoch: 0 };
        Join { looks_first: self.looks_first, ..Join::to(version) }
    }
}

/// Something happened to a swarm.
pub(crate) fn happened(inner: &Arc<Inner>, state: &mut State, version: Version, input: Input) {
    let now = inner.now();
    let mut out = Vec::new();
    let all = state.fetching_weight;
    if let Some(r) = state.running(version) {
        let mut intake = inner.downlink.intake();
        intake.share((1000 * r.swarm.priority().weight()).checked_div(all).unwrap_or(1000));
        r.swarm.handle_within(now, &mut intake, input, &mut out);
        drop(intake);
        carry_out(inner, state, version.content, out);
    }
}

/// Something happened to all swarms and live streams.
pub(crate) fn happened_to_all(inner: &Arc<Inner>, state: &mut State, input: impl Fn() -> Input) {
    let versions: Vec<Version> = state.contents.values().filter_map(ContentState::version).collect();
    for version in versions {
        happened(inner, state, version, input());
    }
    let of_streams = || match input() {
        Input::Connected(node) => Some(LiveInput::Connected(node)),
        Input::Replaced(node) => Some(LiveInput::Replaced(node)),
        Input::Lost { node, why } => Some(LiveInput::Lost { node, why }),
        Input::Control(there) => Some(LiveInput::Control(there)),
        Input::Pause(paused) => Some(LiveInput::Pause(paused)),
        _ => None,
    };
    live::happened_to_all(inner, state, of_streams);
}

/// A piece went through the store: counted by the class of its source, then told to the swarm.
pub(crate) fn piece(
    inner: &Arc<Inner>,
    state: &mut State,
    version: Version,
    from: PieceFrom,
    piece: u32,
    outcome: PieceOutcome,
) {
    let Some(r) = state.running(version) else { return };
    let len = u64::from(r.track.layout.piece_len(piece));
    // What counts is what the swarm knows: two writes of a piece may be told of in any order, or the first one not at all.
    let new = outcome != PieceOutcome::Bad && !r.swarm.have().get(piece);
    match from {
        _ if !new => r.wasted_bytes += len,
        PieceFrom::Origin => r.origin_bytes += len,
        PieceFrom::Waypoint(_) => r.waypoint_bytes += len,
        PieceFrom::Parent(node) => match r.classes.get(&node) {
            Some(SourceClass::Waypoint) => r.waypoint_bytes += len,
            _ => r.peer_bytes += len,
        },
    }
    if new {
        r.bytes_held += len;
        r.arrived.notify_waiters();
    }
    happened(inner, state, version, Input::Piece { from, piece, outcome });
}

/// Does what a swarm wants done. What that brings about at once (a connection that exists already) goes back in.
pub(crate) fn carry_out(inner: &Arc<Inner>, state: &mut State, id: ContentId, outputs: Vec<Output>) {
    let mut todo: VecDeque<Output> = outputs.into();
    while let Some(output) = todo.pop_front() {
        let Some(ContentState { phase: Phase::Running(r), .. }) = state.contents.get_mut(&id) else { return };
        let version = r.version();
        match output {
            Output::Dial(parent) => {
                r.classes.insert(parent.node, parent.class);
                if is_linked(&state.links, &parent.node, &parent.reach) {
                    let mut more = Vec::new();
                    let connected = Input::Connected(parent.node);
                    r.swarm.handle_within(inner.now(), &mut inner.downlink.intake(), connected, &mut more);
                    todo.extend(more);
                } else if parent.dial {
                    connections::dial(inner, state, parent.node, parent.reach, Duration::ZERO);
                }
            }
            Output::DialChild(Child { node, reach, punch, .. }) => {
                if !is_linked(&state.links, &node, &reach) {
                    // A child that can dial does so itself: this end helps where that is not enough.
                    let at_once = punch || inner.config.dial_only;
                    let wait = if at_once { Duration::ZERO } else { Duration::from_millis(700) };
                    connections::dial(inner, state, node, reach, wait);
                }
            }
            Output::OpenEdge(parent) => open_edge(inner, state, version, parent),
            Output::CloseEdge(node) => {
                let close = FromPeer::CloseEdge { version, as_child: true, why: String::new() };
                state.tell_peer(&node, &close);
            }
            Output::Ask(node, pieces) => {
                for some in pieces.chunks(limits::MAX_NAMED_PIECES) {
                    state.tell_peer(&node, &FromPeer::Request { version, pieces: some.to_vec() });
                }
            }
            Output::Unask(node, pieces) => {
                for some in pieces.chunks(limits::MAX_NAMED_PIECES) {
                    state.tell_peer(&node, &FromPeer::Cancel { version, pieces: some.to_vec() });
                }
            }
            Output::ToldBad(node, piece) => state.tell_peer(&node, &FromPeer::BadPiece { version, piece }),
            Output::Search => versions::search(inner, state, version),
            Output::AskPage(PageSource::Parent(node), page) => {
                state.tell_peer(&node, &FromPeer::PageRequest { version, page });
            }
            Output::AskPage(PageSource::Control, page) => state.tell_control(&FromNode::PageRequest { version, page }),
            Output::TellAll(child) => {
                let held = Held::All(Bitmap::new(r.swarm.have()));
                state.tell_peer(&child, &FromPeer::Have { version, held });
            }
            Output::Tell(child, pieces) => {
                for some in pieces.chunks(limits::MAX_NAMED_PIECES) {
                    state.tell_peer(&child, &FromPeer::Have { version, held: Held::More(some.to_vec()) });
                }
            }
            Output::Serve(child) => serving::wake(inner, state, version, child),
            Output::CloseChild(child, why) => {
                r.senders.remove(&child);
                state.tell_peer(&child, &FromPeer::CloseEdge { version, as_child: false, why: why.into() });
            }
            Output::FetchOrigin { run, source, pieces } => {
                let job = origin_fetch::start(inner, r, run, source, pieces);
                r.origin_jobs.insert(run, job);
            }
            Output::StopOrigin(run) => {
                if let Some(job) = r.origin_jobs.remove(&run) {
                    job.abort();
                }
            }
            Output::LeaseDone(run) => {
                r.origin_jobs.remove(&run);
                state.tell_control(&FromNode::LeaseDone { version, run });
            }
            Output::LeaseFailed { run, why, changed, forbidden } => {
                if let Some(c) = state.contents.get_mut(&id) {
                    c.note(why.clone());
                }
                let content_changed = changed;
                state.tell_control(&FromNode::LeaseFailed { version, run, why, content_changed, forbidden });
            }
            Output::Alarm(alarm) => {
                match &alarm {
                    Alarm::BadPieces { parent } => {
                        let from = state.links.get(parent).map(|l| l.connection.remote_address());
                        let from = from.map_or(String::new(), |a| format!(" at {a}"));
                        tracing::warn!(
                            "left the parent {parent:.8}{from}: what it sent is not the content; nothing of it was kept"
                        );
                    }
                    Alarm::Attacked { from } => {
                        tracing::warn!("{from} broke the protocol's rules; the control center is told")
                    }
                    Alarm::ParentLost { parent, why } => {
                        tracing::debug!(parent = %format!("{parent:.8}"), "lost a parent: {why}");
                    }
                    Alarm::Starving { .. } if r.swarm.open_parents() == 0 => {
                        let waiting = "waiting: nobody that this node may fetch from has what is missing, and the control \
                                       center gave no leave for the origin (see `headwater explain`)";
                        if let Some(c) = state.contents.get_mut(&id) {
                            c.note(waiting.into());
                        }
                    }
                    _ => {}
                }
                state.tell_control(&FromNode::Alarm { version, alarm });
            }
            Output::Complete => {
                if let Some(c) = state.contents.get_mut(&id) {
                    c.outcome.send_replace(Outcome::Complete);
                    log_complete(inner.now(), c);
                }
                versions::complete(inner, state, id);
                // The control center learns it now, not with the next heartbeat.
                super::control::heartbeat_now(inner, state, version);
            }
        }
    }
}

fn log_complete(now: Time, content: &ContentState) {
    let Phase::Running(r) = &content.phase else { return };
    let (peers, waypoints, origin) = (r.peer_bytes, r.waypoint_bytes, r.origin_bytes);
    let offload = 100 * (peers + waypoints) / (peers + waypoints + origin).max(1);
    tracing::info!(
        "{} is complete: {} bytes after {:.1} s; from peers {peers}, waypoints {waypoints}, origin {origin}: {offload} % offload",
        content.shown(),
        r.track.layout.bytes(),
        now.since(r.meters.began).as_secs_f64(),
    );
}

fn open_edge(inner: &Inner, state: &mut State, version: Version, parent: NodeId) {
    let Some(link) = state.links.get(&parent).cloned() else { return };
    if !inner.config.sources.allows(link.connection.remote_address().ip()) {
        // It dialled from elsewhere than where it was assigned.
        let error = Some(NOT_LISTED.to_owned());
        return state.tell_control(&FromNode::DialResult(DialResult { node: parent, error }));
    }
    let Some(given) = state.running(version).and_then(|r| r.tickets.get(&parent)).cloned() else { return };
    let proof = Ticket::prove(&given.secret.0, &link.their_nonce, &link.their_certificate);
    state.tell_peer(&parent, &FromPeer::OpenEdge { version, ticket: given.ticket, proof });
}

/// Time passes for all swarms, and for connections that nobody uses.
pub(crate) async fn tick(inner: Arc<Inner>) {
    let mut pulse = tokio::time::interval(TICK);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sweep_at = inner.now();
    loop {
        tokio::select! {
            _ = inner.stopping.cancelled() => return,
            _ = pulse.tick() => {}
        }
        let now = inner.now();
        let mut state = inner.lock();
        state.fetching_weight = state.contents.values().filter_map(ContentState::fetching_weight).sum();
        let due: Vec<Version> = state
            .contents
            .values_mut()
            .filter_map(|c| match &mut c.phase {
                Phase::Running(r) if r.tick_at <= now => Some(r.version()),
                _ => None,
            })
            .collect();
        for version in due {
            happened(&inner, &mut state, version, Input::Tick);
            if let Some(r) = state.running(version) {
                r.tick_at = r.swarm.next_timeout(now);
            }
        }
        live::tick(&inner, &mut state);
        if sweep_at <= now {
            sweep(&mut state, now);
            sweep_at = now + Micros::from_secs(1);
            for id in live::unwatched(&inner, &state) {
                super::kept::leave_stream(&inner, &mut state, &id);
            }
        }
    }
}

fn sweep(state: &mut State, now: Time) {
    for content in state.contents.values_mut() {
        if let Phase::Running(r) = &mut content.phase {
            let down = r.peer_bytes + r.waypoint_bytes + r.origin_bytes + r.wasted_bytes;
            r.meters.read(now, (down, r.uploaded_bytes), r.swarm.parent_edges(), r.swarm.child_edges());
        }
        if let Phase::Live(l) = &mut content.phase {
            let s = l.channel.state();
            let down = s.peer_bytes + s.origin_bytes + s.wasted_bytes;
            l.meters.read(now, (down, s.uploaded_bytes), l.channel.parent_edges(), l.channel.child_edges());
        }
    }
    let partners: BTreeSet<NodeId> = state
        .contents
        .values()
        .filter_map(|c| match &c.phase {
            Phase::Running(r) => Some(r.swarm.partners().copied().collect::<Vec<_>>()),
            Phase::Live(l) => Some(l.channel.partners().copied().collect()),
            _ => None,
        })
        .flatten()
        .collect();
    for (node, link) in &mut state.links {
        if partners.contains(node) {
            link.used_at = now;
        } else if now.since(link.used_at) > UNUSED {
            link.connection.close(0u32.into(), b"not used");
        }
    }
}

/// The origin's credentials as the origin client takes them.
pub(crate) fn access_of(given: &OriginAccess) -> Access {
    Access { headers: given.headers.clone(), query: (!given.query.is_empty()).then(|| given.query.clone()) }
}

/// The control center is told that the node leaves, so that it gives its children other parents. False where there is no
/// session to say it in.
pub(crate) fn say_goodbye(inner: &Arc<Inner>) -> bool {
    let mut state = inner.lock();
    let new = !std::mem::replace(&mut state.leaving, true);
    let heard = new && state.session.is_connected();
    state.tell_control(&FromNode::Bye);
    heard
}

/// Whether anybody has something of the node now.
pub(crate) fn has_children(inner: &Arc<Inner>) -> bool {
    let state = inner.lock();
    let fed = |c: &ContentState| match &c.phase {
        Phase::Running(r) => r.swarm.open_children() > 0,
        Phase::Live(l) => l.channel.state().children > 0,
        _ => false,
    };
    !state.https_children.is_empty() || state.contents.values().any(fed)
}

/// The node leaves: the stores are returned to be closed.
pub(crate) fn leave(inner: &Arc<Inner>) -> Vec<StoreHandle> {
    let mut state = inner.lock();
    let contents = std::mem::take(&mut state.contents);
    state.links.values().for_each(|l| l.connection.close(0u32.into(), b"leaving"));
    let mut stores = Vec::new();
    for content in contents.into_values() {
        stores.extend(content.former.map(|r| r.store.clone()));
        if let Phase::Running(r) = content.phase {
            r.origin_jobs.values().for_each(AbortHandle::abort);
            stores.push(r.store.clone());
        }
    }
    stores
}
