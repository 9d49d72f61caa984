//! The one owner of the control center's state: the core, the sessions, and what the core's outputs become.

use crate::admission::Admission;
use crate::config::ControlConfig;
use crate::contents::Contents;
use crate::events::{self, EventLog};
use crate::identity::IdentityFolder;
use crate::metrics::Counters;
use crate::pages::PageDesk;
use crate::places::Places;
use crate::store::{Store, TransferRow};
use crate::tokens::Tokens;
use bytes::Bytes;
use headwater_center_core::client_manager::Client;
use headwater_center_core::{Center, Input, Output};
use headwater_model::assignment::{Assignment, Lease, LeaseSource};
use headwater_model::report::Heartbeat;
use headwater_model::ticket::{MAX_LIFE_MS, ParentKey, Ticket, key_number};
use headwater_model::{ContentId, Hash, NodeId, Substreams, Time, Version};
use headwater_transport::PageCertificates;
use headwater_wire::{FromControl, GivenTicket, PageCertificatesOf, TicketSecret};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Messages that may wait for a node; one that reads slower loses its session.
pub(crate) const MAX_QUEUED_MESSAGES: usize = 1024;
/// So long before they change, parents get their next keys.
const NEXT_KEY_EARLY_MS: u64 = 30 * 60 * 1000;
/// Tickets are renewed at half their life.
const RENEW_EVERY: Duration = Duration::from_millis(MAX_LIFE_MS / 2);
/// Announced logs that are verified at once.
const MAX_VERIFYING: usize = 4;
/// Uploads that are read and verified at once: each may take some hundred MiB.
const MAX_UPLOADS: usize = 4;

/// Monotonic time for the core, and the clock for people and tickets.
pub(crate) struct Clock {
    start: Instant,
    start_unix_ms: u64,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { start: Instant::now(), start_unix_ms: unix_ms() }
    }
    /// Since the process started.
    pub(crate) fn now(&self) -> Time {
        Time(self.start.elapsed().as_micros() as u64)
    }
    /// The moment on the clock, as it was when the process started.
    pub(crate) fn unix_ms_of(&self, time: Time) -> u64 {
        self.start_unix_ms + time.0 / 1000
    }
    fn instant_of(&self, time: Time) -> Instant {
        self.start + Duration::from_micros(time.0)
    }
}

/// Unix milliseconds now.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// What waits for a node. Tickets are sealed and messages encoded where they are sent, outside the lock.
pub(crate) enum Outgoing {
    Say(Box<FromControl>),
    /// Encoded once for many.
    Frame(Bytes),
    Assign {
        assignment: Assignment,
        highest_piece: u32,
    },
    /// With a ticket, where a waypoint is its source.
    Lease {
        lease: Lease,
        highest_piece: u32,
    },
    /// The keys that are in force when it is sent.
    ParentKeys,
    /// An answer to a request for a page; a place for the next one is free.
    Page(Box<FromControl>),
}

/// What a ticket is good for.
#[derive(Clone, Copy)]
struct Scope {
    /// Of a file.
    highest_piece: u32,
    /// Of a live stream.
    substreams: Substreams,
}

/// How a session ends.
#[derive(Clone, Debug)]
pub(crate) struct Farewell {
    pub(crate) why: String,
    pub(crate) come_back: bool,
}

/// A session as the hub sees it.
pub(crate) struct Session {
    node: NodeId,
    queue: mpsc::Sender<Outgoing>,
    close: Option<oneshot::Sender<Farewell>>,
    /// It is a page's.
    page: bool,
    /// By which certificates pages know the node.
    page_certificates: Vec<Hash>,
}

/// What the lock guards.
pub(crate) struct State {
    pub(crate) center: Center,
    sessions: BTreeMap<u64, Session>,
    current: BTreeMap<NodeId, u64>,
    last_session: u64,
    pub(crate) contents: Contents,
    pub(crate) pages: PageDesk,
    pub(crate) events: EventLog,
    outputs: Vec<Output>,
    keys_sent: (u64, bool),
}

/// All that sessions and API handlers share.
pub(crate) struct Hub {
    pub(crate) config: ControlConfig,
    pub(crate) clock: Clock,
    /// `host:port` that names carry.
    pub(crate) public: String,
    pub(crate) identity: IdentityFolder,
    /// SHA-256 of the certificate that the API's TLS shows; zeros without TLS.
    pub(crate) tls_certificate: Hash,
    /// What pages see over WebTransport.
    pub(crate) shown_to_pages: Arc<PageCertificates>,
    pub(crate) tokens: Tokens,
    pub(crate) store: Store,
    pub(crate) places: Places,
    /// WebSockets that have not said hello.
    pub(crate) web_places: Arc<Semaphore>,
    pub(crate) counters: Counters,
    pub(crate) admission: Mutex<Admission>,
    /// One change to what is kept at a time: a content published or withdrawn, the epoch raised.
    pub(crate) publishing: tokio::sync::Mutex<()>,
    pub(crate) verifying: Semaphore,
    pub(crate) uploads: Semaphore,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    state: Mutex<State>,
    wake: Notify,
}

/// What [`Hub::new`] takes.
pub(crate) struct Parts {
    pub(crate) config: ControlConfig,
    pub(crate) clock: Clock,
    pub(crate) public: String,
    pub(crate) identity: IdentityFolder,
    pub(crate) tls_certificate: Hash,
    pub(crate) shown_to_pages: Arc<PageCertificates>,
    pub(crate) tokens: Tokens,
    pub(crate) store: Store,
    pub(crate) places: Places,
    pub(crate) contents: Contents,
    pub(crate) center: Center,
}

impl Hub {
    pub(crate) fn new(parts: Parts) -> Hub {
        let state = State {
            center: parts.center,
            sessions: BTreeMap::new(),
            current: BTreeMap::new(),
            last_session: 0,
            contents: parts.contents,
            pages: PageDesk::default(),
            events: EventLog::default(),
            outputs: Vec::new(),
            keys_sent: keys_due(unix_ms()),
        };
        Hub {
            admission: Mutex::new(Admission::new(parts.config.per_address)),
            config: parts.config,
            clock: parts.clock,
            public: parts.public,
            identity: parts.identity,
            tls_certificate: parts.tls_certificate,
            shown_to_pages: parts.shown_to_pages,
            tokens: parts.tokens,
            store: parts.store,
            places: parts.places,
            web_places: Arc::new(Semaphore::new(crate::session::MAX_HANDSHAKES)),
            counters: Counters::default(),
            publishing: tokio::sync::Mutex::new(()),
            verifying: Semaphore::new(MAX_VERIFYING),
            uploads: Semaphore::new(MAX_UPLOADS),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            state: Mutex::new(state),
            wake: Notify::new(),
        }
    }

    /// The state. Held briefly, and never across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Whatever panicked, the other sessions go on; the core's own checks would show damage.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who may knock. Held briefly, and never together with the state.
    pub(crate) fn door(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session broke the rules: it is counted, and too many of them close the door to their address for a while.
    pub(crate) fn misbehaved(&self, address: IpAddr) {
        self.counters.bad_sessions.inc();
        let ban = self.door().misbehaved(self.clock.now(), address);
        if let Some(ban) = ban {
            let text = format!("{address} is refused for {} s: too many bad sessions", ban.0 / 1_000_000);
            self.lock().events.say(unix_ms(), text);
        }
    }

    /// One input to the core; its outputs go where they belong.
    pub(crate) fn input(&self, state: &mut State, input: Input) {
        let now = self.clock.now();
        let mut waiting = vec![input];
        while let Some(input) = waiting.pop() {
            let mut outputs = std::mem::take(&mut state.outputs);
            state.center.handle(now, input, &mut outputs);
            for output in outputs.drain(..) {
                waiting.extend(self.route(state, output));
            }
            state.outputs = outputs;
        }
        self.wake.notify_one();
    }

    /// An input from a node's session, unless that session is over: then false.
    pub(crate) fn input_from(&self, node: &NodeId, session: u64, input: Input) -> bool {
        let mut state = self.lock();
        let present = state.is_current(node, session);
        if present {
            self.input(&mut state, input);
        }
        present
    }

    fn route(&self, state: &mut State, output: Output) -> Option<Input> {
        let say = |m: FromControl| Outgoing::Say(Box::new(m));
        match output {
            Output::Admit { node, version, origin_credentials } => {
                let frame = state.contents.frame(&version, origin_credentials)?;
                self.send(state, &node, Outgoing::Frame(frame))
            }
            Output::Refuse(node, version, refusal) => {
                self.send(state, &node, say(FromControl::Refused { version, refusal }))
            }
            Output::Assign(node, assignment) => {
                let highest_piece = state.contents.get(&assignment.version.content)?.pieces.saturating_sub(1);
                self.send(state, &node, Outgoing::Assign { assignment, highest_piece })
            }
            Output::ChangeChildren(node, change) => self.send(state, &node, say(FromControl::ChangeChildren(change))),
            Output::Lease(node, lease) => {
                tracing::debug!("run {} is leased to {node:.8} for {} s", lease.run, lease.within.0 / 1_000_000);
                let highest_piece = state.contents.get(&lease.version.content)?.pieces.saturating_sub(1);
                self.send(state, &node, Outgoing::Lease { lease, highest_piece })
            }
            Output::Revoke(node, version, run) => {
                tracing::debug!("the lease of run {run} to {node:.8} is revoked");
                self.send(state, &node, say(FromControl::LeaseRevoked { version, run }))
            }
            Output::Probe(node, probe) => self.send(state, &node, say(FromControl::Probe(probe))),
            Output::Fetch(node, content) => self.send(state, &node, say(FromControl::Fetch { content, keep: true })),
            Output::Withdrawn(node, content, why) => {
                self.send(state, &node, say(FromControl::Withdrawn { content, why }))
            }
            Output::Close { node, session, why, come_back } => {
                tracing::info!("session {session} of {node:.8} ends: {why}");
                state.end_session(session, Farewell { why, come_back });
                None
            }
            Output::Record(transfer) => {
                let (start, end) = (transfer.start, transfer.end);
                self.store.record(TransferRow {
                    start_unix_ms: self.clock.unix_ms_of(start),
                    end_unix_ms: self.clock.unix_ms_of(end),
                    transfer,
                });
                None
            }
            Output::Event(event) => {
                state.events.say(unix_ms(), events::words(&event));
                None
            }
        }
    }

    /// Queues a message for a node's present session. A session whose queue is full ends: what the core has to know.
    pub(crate) fn send(&self, state: &mut State, node: &NodeId, message: Outgoing) -> Option<Input> {
        let session = *state.current.get(node)?;
        self.send_to(state, session, message)
    }

    /// As [`Hub::send`], to a session by its number.
    pub(crate) fn send_to(&self, state: &mut State, session: u64, message: Outgoing) -> Option<Input> {
        let known = state.sessions.get(&session)?;
        let node = known.node;
        match known.queue.try_send(message) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Closed(_)) => None,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.counters.slow_readers.inc();
                let why = format!("more than {MAX_QUEUED_MESSAGES} messages waited: the node reads too slowly");
                state.events.say(unix_ms(), format!("session of {node:.8} ends: {why}"));
                state.end_session(session, Farewell { why, come_back: true });
                Some(Input::Departed { node, session, bye: false })
            }
        }
    }

    /// A session ended, for whatever reason.
    pub(crate) fn departed(&self, node: NodeId, session: u64, bye: bool) {
        let mut state = self.lock();
        state.forget_session(session);
        self.input(&mut state, Input::Departed { node, session, bye });
    }

    /// A node has seen this epoch, which is not older than ours: later assignments must be newer. Not more than a day
    /// ahead of the clock, so that a liar cannot use the numbers up.
    pub(crate) async fn seen_epoch(self: &std::sync::Arc<Self>, seen: u64) {
        const MAX_AHEAD_MS: u64 = 24 * 3600 * 1000;
        if seen <= self.lock().center.epoch() {
            return;
        }
        if seen > unix_ms() + MAX_AHEAD_MS {
            tracing::warn!("a node says that it has seen epoch {seen}, far ahead of this machine's clock: ignored");
            return;
        }
        let _one_at_a_time = self.publishing.lock().await;
        if seen <= self.lock().center.epoch() {
            return;
        }
        let hub = self.clone();
        match tokio::task::spawn_blocking(move || hub.identity.keep_epoch(seen + 1)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => {
                tracing::error!("the epoch is not raised, as it could not be kept: {e}");
                return;
            }
            Err(_) => return,
        }
        let mut state = self.lock();
        let now = self.clock.now();
        state.center.raise_epoch(now, seen + 1);
        state.events.say(unix_ms(), format!("epoch raised to {}: a node has seen {seen}", seen + 1));
        drop(state);
        self.wake.notify_one();
    }

    /// The keys that a parent gets now: the current and the previous, and shortly before a change the next.
    pub(crate) fn parent_keys(&self, node: &NodeId) -> Vec<(u64, ParentKey)> {
        let (number, next) = keys_due(unix_ms());
        let numbers = [Some(number), number.checked_sub(1), next.then_some(number + 1)];
        numbers.into_iter().flatten().map(|n| (n, self.identity.parent_key(node, n))).collect()
    }

    /// An assignment with its tickets.
    pub(crate) fn with_tickets(&self, child: &NodeId, assignment: Assignment, highest_piece: u32) -> FromControl {
        let (version, epoch) = (assignment.version, assignment.generation.epoch);
        let all = || assignment.senders();
        let seal = |parent: &NodeId| {
            // A node may be parent of some substreams and spare of others.
            let substreams = all().filter(|p| p.node == *parent).fold(Substreams::default(), |s, p| s.or(p.substreams));
            self.ticket(child, parent, version, Scope { highest_piece, substreams }, epoch)
        };
        let tickets: Vec<GivenTicket> = all().map(|p| seal(&p.node)).collect();
        let state = self.lock();
        let mut page_certificates = PageCertificatesOf::new();
        if state.is_page(child) {
            let neighbours = all().map(|p| p.node).chain(assignment.children.iter().map(|c| c.node));
            let shown = neighbours.filter_map(|n| Some((n, state.session_of(&n)?.page_certificates.clone())));
            page_certificates = shown.filter(|(_, hashes)| !hashes.is_empty()).collect();
        }
        FromControl::Assignment { assignment, tickets, page_certificates }
    }

    /// A lease with its ticket, if it needs one.
    pub(crate) fn lease_with_ticket(&self, child: &NodeId, lease: Lease, highest_piece: u32) -> FromControl {
        let ticket = match &lease.source {
            LeaseSource::Origin => None,
            LeaseSource::Waypoint { node, .. } => {
                let epoch = self.lock().center.epoch();
                let scope = Scope { highest_piece, substreams: Substreams::default() };
                Some(Box::new(self.ticket(child, node, lease.version, scope, epoch)))
            }
        };
        FromControl::Lease { lease, ticket }
    }

    fn ticket(&self, child: &NodeId, parent: &NodeId, version: Version, scope: Scope, epoch: u64) -> GivenTicket {
        let now = unix_ms();
        let number = key_number(now);
        let key = self.identity.parent_key(parent, number);
        let ticket = Ticket {
            child: *child,
            parent: *parent,
            version,
            highest_piece: scope.highest_piece,
            substreams: scope.substreams,
            key_number: number,
            control_epoch: epoch,
            expires_unix_ms: now + MAX_LIFE_MS,
            mac: [0; 32],
        }
        .seal(&key);
        GivenTicket { secret: TicketSecret(ticket.secret(&key)), ticket }
    }

    /// Calls the core when it is due, sends new parent keys, renews tickets, and gives unanswered page requests up.
    pub(crate) async fn keep_time(self: std::sync::Arc<Self>) {
        let mut renew_at = Instant::now() + RENEW_EVERY;
        loop {
            let due = {
                let mut state = self.lock();
                let now = self.clock.now();
                let mut next = state.center.next_timeout();
                if next <= now {
                    self.input(&mut state, Input::Tick);
                    next = state.center.next_timeout();
                }
                if Instant::now() >= renew_at {
                    state.center.renew(now);
                    next = now;
                    renew_at += RENEW_EVERY;
                }
                let keys = keys_due(unix_ms());
                if state.keys_sent != keys {
                    state.keys_sent = keys;
                    self.send_keys(&mut state);
                }
                crate::pages::give_up_waiting(&self, &mut state);
                self.clock.instant_of(next).min(Instant::now() + Duration::from_secs(1))
            };
            // Every input may bring the next timeout nearer; a moment's wait takes a burst of them together.
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = self.wake.notified() => tokio::time::sleep(Duration::from_millis(5)).await,
                () = self.stop.cancelled() => return,
            }
        }
    }

    fn send_keys(&self, state: &mut State) {
        let sessions: Vec<u64> = state.current.values().copied().collect();
        for session in sessions {
            if let Some(input) = self.send_to(state, session, Outgoing::ParentKeys) {
                self.input(state, input);
            }
        }
    }

    /// Tells all nodes that the control center stops for a while.
    pub(crate) fn say_goodbye(&self) {
        let mut state = self.lock();
        let sessions: Vec<u64> = state.sessions.keys().copied().collect();
        for session in sessions {
            let why = "the control center stops; it should be back soon".to_owned();
            state.end_session(session, Farewell { why, come_back: true });
        }
    }
}

/// Number of the key in force, and whether the next one is handed out already.
fn keys_due(unix_ms: u64) -> (u64, bool) {
    (key_number(unix_ms), key_number(unix_ms + NEXT_KEY_EARLY_MS) != key_number(unix_ms))
}

impl State {
    /// Number of a new session, which takes over from an older one of the same node.
    pub(crate) fn open_session(
        &mut self,
        node: NodeId,
        queue: mpsc::Sender<Outgoing>,
        close: oneshot::Sender<Farewell>,
        page: bool,
        page_certificates: Vec<Hash>,
    ) -> u64 {
        self.last_session += 1;
        let session = Session { node, queue, close: Some(close), page, page_certificates };
        self.sessions.insert(self.last_session, session);
        self.current.insert(node, self.last_session);
        self.last_session
    }

    fn session_of(&self, node: &NodeId) -> Option<&Session> {
        self.sessions.get(self.current.get(node)?)
    }

    /// Whether a page in a browser has the node's session.
    pub(crate) fn is_page(&self, node: &NodeId) -> bool {
        self.session_of(node).is_some_and(|s| s.page)
    }

    /// A node shows pages other certificates.
    pub(crate) fn show_pages(&mut self, session: u64, certificates: Vec<Hash>) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.page_certificates = certificates;
        }
    }

    /// Whether this is the node's session, and not over.
    pub(crate) fn is_current(&self, node: &NodeId, session: u64) -> bool {
        self.current.get(node) == Some(&session)
    }

    /// Why a node is held to accept what it accepts, in words.
    pub(crate) fn why_accepts(&self, node: &NodeId, client: &Client) -> &'static str {
        if !client.arrival.introduction.capabilities.udp.value {
            return "UDP does not get through";
        }
        self.center.prober().and_then(|p| p.verdict(node)).map_or("its claim", |v| v.why)
    }

    /// Whether the node has a session.
    pub(crate) fn has_session(&self, node: &NodeId) -> bool {
        self.current.contains_key(node)
    }

    /// How many sessions there are.
    pub(crate) fn sessions(&self) -> usize {
        self.current.len()
    }

    /// Ends a session: its node is told why. Messages that wait for it are not sent.
    pub(crate) fn end_session(&mut self, session: u64, farewell: Farewell) {
        if let Some(mut ended) = self.forget_session(session)
            && let Some(close) = ended.close.take()
        {
            // The session's task may have ended by itself.
            let _ = close.send(farewell);
        }
    }

    fn forget_session(&mut self, session: u64) -> Option<Session> {
        let ended = self.sessions.remove(&session)?;
        if self.current.get(&ended.node) == Some(&session) {
            self.current.remove(&ended.node);
        }
        Some(ended)
    }

    /// Runs of a version, if it is the published one.
    pub(crate) fn runs_of(&self, version: headwater_model::Version) -> Option<u32> {
        let content = self.center.directory().get(&version.content)?;
        content.kind.layout().filter(|_| content.version == version).map(|layout| layout.runs())
    }

    /// Of each content that a heartbeat tells of, how many nodes hold all of it.
    pub(crate) fn holders(&self, heartbeat: &Heartbeat) -> Vec<(ContentId, u32)> {
        let ids = heartbeat.contents.iter().map(|c| c.version.content);
        ids.filter_map(|id| Some((id, self.center.directory().dcm(&id)?.holders()))).collect()
    }

    /// The content with this id, name, or unique beginning of an id.
    pub(crate) fn find_content(&self, which: &str) -> Option<ContentId> {
        if let Some(id) = self.contents.by_name(which) {
            return Some(id);
        }
        let mut found = self.contents.iter().map(|(id, _)| *id).filter(|id| begins(&id.0, which));
        match (found.next(), found.next()) {
            (Some(one), None) => Some(one),
            _ => None,
        }
    }

    /// Nodes with a session whose id begins so.
    pub(crate) fn find_nodes(&self, prefix: &str) -> Vec<NodeId> {
        self.center.clients().iter().map(|(n, _)| *n).filter(|n| begins(&n.0, prefix)).take(2).collect()
    }
}

/// Whether a printed id begins with these digits.
pub(crate) fn begins(id: &[u8; 32], digits: &str) -> bool {
    (4..=64).contains(&digits.len())
        && digits.is_ascii()
        && headwater_model::id::to_hex(id).starts_with(&digits.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_key_is_handed_out_shortly_before_it_counts() {
        assert_eq!(keys_due(0), (0, false));
        assert_eq!(keys_due(MAX_LIFE_MS - NEXT_KEY_EARLY_MS - 1), (0, false));
        assert_eq!(keys_due(MAX_LIFE_MS - NEXT_KEY_EARLY_MS), (0, true));
        assert_eq!(keys_due(MAX_LIFE_MS), (1, false));
    }

    #[test]
    fn ids_are_found_by_their_beginnings() {
        let id = [0xab; 32];
        for (digits, fits) in [("abab", true), ("ABab", true), ("aba", false), ("abac", false), ("äbab", false)] {
            assert_eq!(begins(&id, digits), fits, "{digits}");
        }
    }
}
