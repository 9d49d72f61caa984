//! A live stream at this node: its decisions are `peer_core::live`'s; here are its bytes, which stay in memory.

mod logged;
mod messages;
mod origin;
mod reading;
mod sending;
mod source;

pub(crate) use messages::{from_peer, logged, may_push, piece_came};
pub(crate) use reading::{LiveReader, Window, window};
pub use source::{LiveSource, SourceError};

use super::meters::Meters;
use super::state::{ContentState, Phase, Sender, State, is_linked};
use super::{ContentStatus, Inner, connections, opening};
use crate::origin::Access;
use bytes::Bytes;
use headwater_model::assignment::Child;
use headwater_model::id::{ContentId, NodeId, Version};
use headwater_model::live::LiveTrack;
use headwater_model::log::Log;
use headwater_model::node::Priority;
use headwater_model::report::{Alarm, Join};
use headwater_model::ticket::Ticket;
use headwater_model::time::{Micros, Time};
use headwater_model::{Role, SourceClass};
use headwater_peer_core::live::{Channel, LiveConfig, LiveInput, LiveOutput};
use headwater_wire::{FromNode, FromPeer, GivenTicket, limits};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Pieces that came before their entries.
const MAX_EARLY: usize = 256;
/// A stream that nobody here watches any more is left after this time, unless it is pinned.
const UNWATCHED: Micros = Micros::from_secs(60);

/// How a live stream fares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveStatus {
    /// From the source having a piece to its being here: 95 of 100 pieces are no later, in milliseconds.
    pub lag_p95_ms: Option<u64>,
    /// The same in full: delays in steps, each the step's upper end in milliseconds and the pieces in it.
    pub lags: Vec<(u64, u64)>,
    /// From the last word of a parent that was lost until another one pushed its substream, in such steps.
    pub fed_again: Vec<(u64, u64)>,
    /// The newest segment that is here as a whole, by its number in the stream.
    pub newest_segment: Option<u64>,
    /// Pieces that are known and not here.
    pub missing_pieces: usize,
    /// Pieces that were given up.
    pub lost_pieces: u64,
    /// Substreams that nobody pushes to this node.
    pub unfed_substreams: u32,
    /// Substreams that it pushes, of each child those that it takes.
    pub pushed_substreams: u32,
    /// This node is the source.
    pub source: bool,
}

/// A stream that runs.
pub(crate) struct Live {
    pub(crate) track: Arc<LiveTrack>,
    pub(crate) log: Log,
    pub(crate) channel: Channel,
    pub(crate) access: Access,
    tickets: BTreeMap<NodeId, GivenTicket>,
    pub(crate) classes: BTreeMap<NodeId, SourceClass>,
    /// By child and substream.
    senders: BTreeMap<(NodeId, u8), Sender>,
    /// Whoever sends a piece has it: one piece after the other goes out, and the first is not late for the last.
    turns: Arc<tokio::sync::Mutex<()>>,
    pieces: BTreeMap<u64, Bytes>,
    early: BTreeMap<u64, (NodeId, Bytes)>,
    origin_jobs: BTreeMap<u64, AbortHandle>,
    /// By the publisher's key: this node is a source.
    claim: Option<[u8; 64]>,
    /// Whether it is the one that the others hear.
    active: watch::Sender<bool>,
    /// Counts what readers may wait for.
    changed: watch::Sender<u64>,
    pub(crate) meters: Meters,
    /// When a player last asked for something.
    used_at: Time,
    pub(crate) tick_at: Time,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.origin_jobs.values().for_each(AbortHandle::abort);
    }
}

impl Live {
    /// How it is joined, or joined again.
    pub(crate) fn join(&self) -> (Join, Option<[u8; 64]>) {
        (self.channel.join(), self.claim)
    }
    /// How it fares, for the user.
    pub(crate) fn status(&self, s: &mut ContentStatus) {
        let state = self.channel.state();
        s.name.clone_from(&self.track.name);
        s.epoch = self.track.version.epoch;
        s.bytes = self.pieces.values().map(|p| p.len() as u64).sum();
        s.peer_bytes = state.peer_bytes;
        s.origin_bytes = state.origin_bytes;
        s.wasted_bytes = state.wasted_bytes;
        s.uploaded_bytes = state.uploaded_bytes;
        (s.parents, s.children) = (state.parents, state.children);
        s.live = Some(LiveStatus {
            lag_p95_ms: self.channel.lags().percentile(95).map(|l| l.0 / 1000),
            lags: self.channel.lags().steps().collect(),
            fed_again: self.channel.fed_again().steps().collect(),
            newest_segment: self.channel.newest_here(),
            missing_pieces: state.missing,
            lost_pieces: state.lost,
            unfed_substreams: state.unfed,
            pushed_substreams: state.pushes,
            source: state.is_source,
        });
    }
    fn keep_tickets(&mut self, tickets: Vec<GivenTicket>) {
        let near: Vec<NodeId> = self.channel.partners().copied().collect();
        if self.tickets.len() > super::state::MAX_REMEMBERED {
            self.tickets.retain(|node, _| near.contains(node));
            self.classes.retain(|node, _| near.contains(node));
        }
        self.tickets.extend(tickets.into_iter().map(|t| (t.ticket.parent, t)));
    }
}

impl State {
    /// The live stream of this version.
    pub(crate) fn live(&mut self, version: Version) -> Option<&mut Live> {
        match &mut self.contents.get_mut(&version.content)?.phase {
            Phase::Live(l) if l.channel.version() == version => Some(l),
            _ => None,
        }
    }
    /// The live stream of a content.
    pub(crate) fn live_of(&self, content: &ContentId) -> Option<&Live> {
        match &self.contents.get(content)?.phase {
            Phase::Live(l) => Some(l),
            _ => None,
        }
    }
    fn live_of_mut(&mut self, content: &ContentId) -> Option<&mut Live> {
        match &mut self.contents.get_mut(content)?.phase {
            Phase::Live(l) => Some(l),
            _ => None,
        }
    }
    fn lives(&self) -> Vec<Version> {
        let version = |c: &ContentState| match &c.phase {
            Phase::Live(l) => Some(l.channel.version()),
            _ => None,
        };
        self.contents.values().filter_map(version).collect()
    }
}

/// A stream's log was believed: it begins here.
pub(crate) fn run(inner: &Arc<Inner>, state: &mut State, id: ContentId, log: Log, track: LiveTrack, access: Access) {
    let now = inner.now();
    let (control, paused) = (state.session.is_connected(), !state.limits.fetches());
    let Some(content) = state.contents.get_mut(&id) else { return };
    let claim = content.claim.as_ref().map(|claim| claim(track.version));
    let version = track.version;
    if let Some(url) = content.name.as_ref().and_then(|n| n.log.clone()).filter(|_| claim.is_none()) {
        tokio::spawn(logged::follow_while_alone(inner.clone(), version, url));
    }
    content.priority = Priority::High;
    inner.pacers().for_each(|pacer| pacer.set_live(id));
    tracing::info!(
        "{:?} is a live stream of {} in {} substreams",
        track.name,
        track.terms.rate,
        track.terms.substreams
    );
    let live = Live {
        channel: Channel::new(now, track.clone(), LiveConfig::default()),
        track: Arc::new(track),
        log,
        access,
        tickets: BTreeMap::new(),
        classes: BTreeMap::new(),
        senders: BTreeMap::new(),
        turns: Arc::default(),
        pieces: BTreeMap::new(),
        early: BTreeMap::new(),
        origin_jobs: BTreeMap::new(),
        claim,
        active: watch::Sender::new(false),
        changed: watch::Sender::new(0),
        meters: Meters::new(now),
        used_at: now,
        tick_at: now,
    };
    content.phase = Phase::Live(Box::new(live));
    let pending = std::mem::take(&mut content.pending);
    happened(inner, state, version, LiveInput::Control(control));
    happened(inner, state, version, LiveInput::Pause(paused));
    if control {
        join(inner, state, version);
    }
    for message in pending {
        super::messages::from_control(inner, state, message);
    }
}

/// Joins a stream, or joins it again.
fn join(inner: &Inner, state: &mut State, version: Version) {
    let Some((join, claim)) = state.live(version).map(|l| l.join()) else { return };
    opening::join_as(inner, state, join, claim);
}

/// An assignment with its tickets.
pub(crate) fn assigned(
    inner: &Arc<Inner>,
    state: &mut State,
    assignment: headwater_model::Assignment,
    tickets: Vec<GivenTicket>,
) {
    let version = assignment.version;
    if let Some(l) = state.live(version) {
        l.keep_tickets(tickets);
        l.classes.extend(assignment.senders().map(|p| (p.node, p.class)));
        happened(inner, state, version, LiveInput::Assigned(assignment));
    }
}

fn ask(state: &mut State, version: Version, of: &NodeId, pieces: &[u64], patient: bool) {
    for some in pieces.chunks(limits::MAX_LIVE_REQUEST) {
        state.tell_peer(of, &FromPeer::LiveRequest { version, pieces: some.to_vec(), patient });
    }
}

/// Streams that nobody here watches any more, and that nobody wants kept.
pub(crate) fn unwatched(inner: &Inner, state: &State) -> Vec<ContentId> {
    let now = inner.now();
    let is_left = |c: &&ContentState| match &c.phase {
        Phase::Live(l) => !c.keeping.pinned && c.claim.is_none() && now.since(l.used_at) >= UNWATCHED,
        _ => false,
    };
    let serves_only = inner.config.role == Role::Waypoint;
    state.contents.values().filter(is_left).filter(|_| !serves_only).map(|c| c.id).collect()
}

/// All children, in all streams.
pub(crate) fn children(state: &State) -> Vec<(Version, NodeId)> {
    let of = |c: &ContentState| match &c.phase {
        Phase::Live(l) => l.channel.children().map(|child| (l.channel.version(), *child)).collect(),
        _ => Vec::new(),
    };
    state.contents.values().flat_map(of).collect()
}

/// Time passes.
pub(crate) fn tick(inner: &Arc<Inner>, state: &mut State) {
    let now = inner.now();
    let control_ms = state.session.control_unix_ms(now);
    for version in state.lives() {
        let Some(l) = state.live(version).filter(|l| l.tick_at <= now) else { continue };
        l.tick_at = l.channel.next_timeout();
        if let Some(ms) = control_ms {
            happened(inner, state, version, LiveInput::ControlTime(ms));
        }
        happened(inner, state, version, LiveInput::Tick);
    }
}

/// Something happened to all streams.
pub(crate) fn happened_to_all(inner: &Arc<Inner>, state: &mut State, input: impl Fn() -> Option<LiveInput>) {
    for version in state.lives() {
        if let Some(input) = input() {
            happened(inner, state, version, input);
        }
    }
}

/// Something happened to a stream.
pub(crate) fn happened(inner: &Arc<Inner>, state: &mut State, version: Version, input: LiveInput) {
    let Some(l) = state.live(version) else { return };
    let mut out = Vec::new();
    l.channel.handle(inner.now(), input, &mut out);
    carry_out(inner, state, version, out);
}

/// Does what a stream wants done; what that brings about at once goes back in.
fn carry_out(inner: &Arc<Inner>, state: &mut State, version: Version, outputs: Vec<LiveOutput>) {
    let mut todo: VecDeque<LiveOutput> = outputs.into();
    while let Some(output) = todo.pop_front() {
        let State { contents, links, .. } = state;
        let Some(ContentState { phase: Phase::Live(l), .. }) = contents.get_mut(&version.content) else { return };
        match output {
            LiveOutput::Dial(parent) => {
                if is_linked(links, &parent.node, &parent.reach) {
                    let mut more = Vec::new();
                    l.channel.handle(inner.now(), LiveInput::Connected(parent.node), &mut more);
                    todo.extend(more);
                } else if parent.dial {
                    connections::dial(inner, state, parent.node, parent.reach, Duration::ZERO);
                }
            }
            LiveOutput::DialChild(Child { node, reach, punch, .. }) => {
                if !is_linked(links, &node, &reach) {
                    let at_once = punch || inner.config.dial_only;
                    let wait = if at_once { Duration::ZERO } else { Duration::from_millis(700) };
                    connections::dial(inner, state, node, reach, wait);
                }
            }
            LiveOutput::OpenEdge(parent) => open_edge(inner, state, version, parent),
            LiveOutput::CloseEdge(node) => {
                state.tell_peer(&node, &FromPeer::CloseEdge { version, as_child: true, why: String::new() });
            }
            LiveOutput::Subscribe(node, substreams, from) => {
                state.tell_peer(&node, &FromPeer::Subscribe { version, substreams, from });
            }
            LiveOutput::Ask(node, pieces) => ask(state, version, &node, &pieces, false),
            LiveOutput::AskHelper(node, pieces) => ask(state, version, &node, &pieces, true),
            LiveOutput::Cancel(node, pieces) => {
                for some in pieces.chunks(limits::MAX_LIVE_REQUEST) {
                    state.tell_peer(&node, &FromPeer::LiveCancel { version, pieces: some.to_vec() });
                }
            }
            LiveOutput::AskEntries(node, after) => {
                state.tell_peer(&node, &FromPeer::EntriesWanted { version, after });
            }
            LiveOutput::ToldBad(node, piece) => {
                tracing::warn!("piece {piece} from {node:.8} is not the stream's: nothing more is taken from there");
            }
            LiveOutput::TellEntries(child, entries) => {
                let entries = entries.iter().map(|e| headwater_model::live::SignedLiveEntry::clone(e)).collect();
                state.tell_peer(&child, &FromPeer::LiveEntries { version, entries });
            }
            LiveOutput::TellPosition(child, newest_entry, next) => {
                state.tell_peer(&child, &FromPeer::LivePosition { version, newest_entry, next });
            }
            LiveOutput::Serve(child, substream) => sending::wake(inner, state, version, (child, substream)),
            LiveOutput::CloseChild(child, why) => {
                l.senders.retain(|(node, _), _| *node != child);
                state.tell_peer(&child, &FromPeer::CloseEdge { version, as_child: false, why: why.into() });
            }
            LiveOutput::FetchOrigin { job, url, from, pieces } => {
                let task = origin::start(inner, l, job, &url, from, pieces);
                l.origin_jobs.insert(job, task);
            }
            LiveOutput::Alarm(alarm) => {
                log_alarm(&alarm);
                state.tell_control(&FromNode::Alarm { version, alarm });
            }
            LiveOutput::Changed => l.changed.send_modify(|n| *n += 1),
            LiveOutput::Forget => {
                let Live { pieces, early, channel, .. } = l.as_mut();
                pieces.retain(|piece, _| channel.has(*piece));
                // The entry that made room may be that of pieces which came before it.
                *early = early.split_off(&channel.first_piece());
            }
            LiveOutput::Source(active) => {
                l.active.send_replace(active);
            }
        }
    }
}

fn log_alarm(alarm: &Alarm) {
    match alarm {
        Alarm::ParentLost { parent, why } => tracing::debug!("lost the parent {parent:.8}: {why}"),
        Alarm::Silent { parent } => tracing::debug!("left the parent {parent:.8}: it is silent"),
        Alarm::Behind { parent, substreams } => {
            tracing::debug!("the parent {parent:.8} is behind with {} substreams", substreams.len());
        }
        _ => {}
    }
}

fn open_edge(inner: &Inner, state: &mut State, version: Version, parent: NodeId) {
    let Some(link) = state.links.get(&parent).cloned() else { return };
    if !inner.config.sources.allows(link.connection.remote_address().ip()) {
        return;
    }
    let Some(given) = state.live(version).and_then(|l| l.tickets.get(&parent)).cloned() else { return };
    let proof = Ticket::prove(&given.secret.0, &link.their_nonce, &link.their_certificate);
    state.tell_peer(&parent, &FromPeer::OpenEdge { version, ticket: given.ticket, proof });
}
