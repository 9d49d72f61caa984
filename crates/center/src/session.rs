//! Sessions of nodes: QUIC connections with one stream each, which the node opens, or WebSockets where UDP is blocked.
//! Those of pages in browsers: WebTransport on the same port, with one stream too, or WebSockets.

use crate::admission::Answer;
use crate::hub::{Farewell, Hub, MAX_QUEUED_MESSAGES, Outgoing, unix_ms};
use crate::pages;
use crate::tokens::TokenRole;
use headwater_center_core::Input;
use headwater_center_core::client_manager::Arrival;
use headwater_model::assignment::Refusal;
use headwater_model::live::is_source;
use headwater_model::node::{Accepts, Capabilities, Forwards, From, Known, SourceAccess};
use headwater_model::reach::canonical;
use headwater_model::{Hash, NodeId, Role};
use headwater_transport::{
    Alpn, ControlReader, ControlWriter, Io, Listener, PageError, PeerConnection, Proved, ReadError, Reader, Unproved,
    Writer, certificate_of, node_of, prove_as_control,
};
use headwater_wire::limits::MAX_NODE_FRAME_BYTES;
use headwater_wire::{Found, FromControl, FromNode, Hello, Join, PROTOCOL, Welcome, WireError};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use quinn::{Connection, Incoming, VarInt};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Connections that have not said hello; WebSockets likewise.
pub(crate) const MAX_HANDSHAKES: usize = 1024;
/// From this many on, a new connection must first prove that its address is its own.
const HANDSHAKES_BEFORE_RETRY: usize = 256;
/// How long a node may take for its hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// How long the last words may take.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// Messages per second of one session, and how many may come at once.
const MESSAGES_PER_S: f64 = 2000.0;
const MESSAGES_AT_ONCE: f64 = 4000.0;
/// Pages per second of one session; more of them wait.
const PAGES_PER_S: f64 = 500.0;
/// Pages that a session may wait for at once; it is not read further meanwhile.
const MAX_PAGES_WAITING: usize = 256;
/// What a connection may have in flight: messages are small but for logs.
const RECEIVE_WINDOW_BYTES: u32 = 1 << 20;
/// The wait between dials grows with the sessions that come back at once.
const MIN_BACKOFF_CAP_MS: usize = 2000;
const BACKOFF_MS_PER_SESSION: usize = 10;

/// Application error codes of closed connections.
const CLOSED: VarInt = VarInt::from_u32(0);
const CLOSED_FOR_FAULT: VarInt = VarInt::from_u32(1);

/// Takes connections until the control center stops.
pub(crate) async fn accept(hub: Arc<Hub>, listener: Listener) {
    let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let incoming = tokio::select! {
            incoming = listener.endpoint.accept() => incoming,
            () = hub.stop.cancelled() => return,
        };
        let Some(incoming) = incoming else { return };
        let busy = MAX_HANDSHAKES - places.available_permits();
        let address = incoming.remote_address().ip();
        let proved = incoming.remote_address_validated() || !incoming.may_retry();
        if busy >= HANDSHAKES_BEFORE_RETRY && !proved {
            // It fails only where a retry is not possible, which was just asked.
            let _ = incoming.retry();
            continue;
        }
        let answer = hub.door().knock(hub.clock.now(), address, proved);
        match (answer, places.clone().try_acquire_owned()) {
            (Answer::Enter, Ok(place)) => {
                let entered = Entered { hub: hub.clone(), address, greeted: false };
                drop(hub.tasks.spawn(serve(hub.clone(), incoming, place, entered)));
            }
            (Answer::Prove, _) => drop(incoming.retry()),
            (answer, _) => {
                if answer == Answer::Enter {
                    hub.door().left(address, false);
                }
                hub.counters.refused_handshakes.inc();
                incoming.refuse();
            }
        }
    }
}

/// A connection that was let in, until it ends.
pub(crate) struct Entered {
    hub: Arc<Hub>,
    address: IpAddr,
    greeted: bool,
}

impl Entered {
    /// Of a connection whose address is proved, as those of TCP are; `None` when the door is closed to it.
    pub(crate) fn by_tcp(hub: &Arc<Hub>, address: IpAddr) -> Option<Self> {
        let answer = hub.door().knock(hub.clock.now(), address, true);
        (answer == Answer::Enter).then(|| Self { hub: hub.clone(), address, greeted: false })
    }
    fn greeted(&mut self) {
        self.greeted = true;
        self.hub.door().greeted(self.address);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.hub.door().left(self.address, self.greeted);
    }
}

/// Shows pages another certificate when it is time, until the control center stops.
pub(crate) async fn keep_certificates(hub: Arc<Hub>) {
    tokio::select! {
        () = hub.stop.cancelled() => {}
        () = hub.shown_to_pages.keep(|| {}) => {}
    }
}

/// A node that said hello.
struct Guest {
    node: NodeId,
    observed: SocketAddr,
    certificate: Hash,
    /// How it came.
    way: Way,
    hello: Hello,
}

/// How a session comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Quic,
    WebSocket,
    /// By a page in a browser, over WebTransport, and so UDP, or over a WebSocket.
    Page {
        by_udp: bool,
    },
}

impl Way {
    fn is_page(self) -> bool {
        matches!(self, Way::Page { .. })
    }
}

/// A session that begins.
type Greeted = Option<(ControlReader, ControlWriter, Guest)>;

async fn serve(hub: Arc<Hub>, incoming: Incoming, place: OwnedSemaphorePermit, mut entered: Entered) {
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(HELLO_WITHIN, greet(&hub, incoming)) => greeted,
        () = hub.stop.cancelled() => return,
    };
    drop(place);
    entered.greeted();
    if let Ok(Some((reader, writer, guest))) = greeted {
        run(hub, reader, writer, guest).await;
    }
}

/// As [`serve`], for a WebSocket from `from` whose HTTP connection is about to be upgraded.
pub(crate) async fn serve_web(
    hub: Arc<Hub>,
    upgrade: OnUpgrade,
    from: SocketAddr,
    place: OwnedSemaphorePermit,
    mut entered: Entered,
) {
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(HELLO_WITHIN, greet_web(&hub, upgrade, from)) => greeted,
        () = hub.stop.cancelled() => return,
    };
    drop(place);
    entered.greeted();
    if let Ok(Some((reader, writer, guest))) = greeted {
        run(hub, reader, writer, guest).await;
    }
}

async fn greet_web(hub: &Hub, upgrade: OnUpgrade, from: SocketAddr) -> Greeted {
    let upgraded = upgrade.await.inspect_err(|e| tracing::debug!("an upgrade failed: {e}")).ok()?;
    let io: Box<dyn Io> = Box::new(TokioIo::new(upgraded));
    let proved = prove(hub, Unproved::WebSocket(io), from, hub.tls_certificate).await?;
    let way = if proved.page { Way::Page { by_udp: false } } else { Way::WebSocket };
    welcome_proved(hub, proved, from, way).await
}

/// Who is there, proved in band; `tls` is the certificate that TLS showed.
async fn prove(hub: &Hub, connection: Unproved, from: SocketAddr, tls: Hash) -> Option<Proved> {
    let proved = prove_as_control(connection, &hub.identity.node, tls).await;
    let proved = proved.inspect_err(|e| {
        if !e.is_broken() {
            hub.misbehaved(from.ip());
        }
        tracing::info!("a session from {from} does not begin: {e}");
    });
    proved.ok()
}

async fn welcome_proved(hub: &Hub, proved: Proved, from: SocketAddr, way: Way) -> Greeted {
    let Proved { reader, writer, node, certificate, .. } = proved;
    welcome_guest(hub, reader, writer, node, certificate, canonical(from), way).await
}

/// Handshake, stream and hello; `None` when the node was sent away.
async fn greet(hub: &Hub, incoming: Incoming) -> Greeted {
    let connection = incoming.await.inspect_err(|e| tracing::debug!("a handshake failed: {e}")).ok()?;
    connection.set_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES));
    match Alpn::of(&connection) {
        Some(Alpn::Page) => greet_page(hub, connection).await,
        _ => greet_node(hub, connection).await,
    }
}

async fn greet_node(hub: &Hub, connection: Connection) -> Greeted {
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(0));
    let (node, certificate) = (node_of(&connection)?, certificate_of(&connection)?);
    let remote = connection.remote_address();
    let observed = canonical(remote);
    let (send, receive) = connection.accept_bi().await.ok()?;
    let reader = ControlReader::Quic(Reader::new(receive, MAX_NODE_FRAME_BYTES));
    let writer = ControlWriter::Quic(Writer(send), connection.into());
    welcome_guest(hub, reader, writer, node, certificate, observed, Way::Quic).await
}

/// As over a WebSocket, in messages as nodes send them: the page asks for a session, opens a stream, and proves on it who
/// it is.
async fn greet_page(hub: &Hub, connection: Connection) -> Greeted {
    let from = connection.remote_address();
    let refused = |e: &PageError| {
        if !matches!(e, PageError::Connection(_)) {
            hub.misbehaved(from.ip());
        }
        tracing::debug!("a page at {from} does not connect: {e}");
    };
    // A page knows this certificate and the next one, should that take its place just now.
    let [tls, _] = hub.shown_to_pages.hashes();
    let page = PeerConnection::of_page(connection).await.inspect_err(refused).ok()?;
    let (send, receive) = page.accept_bi().await.inspect_err(refused).ok()?;
    let proved = prove(hub, Unproved::Page(page, send, receive), from, tls).await?;
    welcome_proved(hub, proved, from, Way::Page { by_udp: true }).await
}

/// The hello of a node whose identity is proved; `None` when it was sent away.
async fn welcome_guest(
    hub: &Hub,
    mut reader: ControlReader,
    writer: ControlWriter,
    node: NodeId,
    certificate: Hash,
    observed: SocketAddr,
    way: Way,
) -> Greeted {
    let hello = match next_message(&mut reader).await {
        Ok(Some(FromNode::Hello(hello))) if hello.protocol == PROTOCOL => Ok(hello),
        Ok(Some(FromNode::Hello(hello))) => Err(format!(
            "the node speaks protocol {}, this control center protocol {PROTOCOL}: update the older one",
            hello.protocol
        )),
        Ok(Some(_)) => Err("the first message must be a hello".into()),
        Ok(None) => return None,
        Err(e) => Err(format!("bad message: {e}")),
    };
    match hello {
        Ok(hello) => Some((reader, writer, Guest { node, observed, certificate, way, hello })),
        Err(why) => {
            hub.misbehaved(observed.ip());
            tracing::info!("{node:.8} at {observed} is sent away: {why}");
            say_goodbye(writer, Farewell { why, come_back: false }).await;
            None
        }
    }
}

/// Why a session cannot be read on.
#[derive(Debug, thiserror::Error)]
enum BadMessage {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("a second hello")]
    SecondHello,
    #[error("more than {MESSAGES_PER_S} messages per second")]
    TooMany,
}

async fn next_message(reader: &mut ControlReader) -> Result<Option<FromNode>, BadMessage> {
    let Some(frame) = reader.next().await? else { return Ok(None) };
    Ok(Some(FromNode::decode(frame)?))
}

async fn run(hub: Arc<Hub>, reader: ControlReader, writer: ControlWriter, mut guest: Guest) {
    let (node, observed) = (guest.node, guest.observed);
    let capabilities = &mut guest.hello.introduction.capabilities;
    // How the session came is the test; what is claimed does not count (A3).
    match guest.way {
        Way::Quic => capabilities.udp = Known { value: true, from: From::Test },
        Way::WebSocket => capabilities.udp = Known { value: false, from: From::Test },
        Way::Page { by_udp } => of_page(capabilities, by_udp),
    }
    let enrolled = is_enrolled(&hub, &guest);
    if enrolled && guest.hello.control_epoch_seen > 0 {
        hub.seen_epoch(guest.hello.control_epoch_seen).await;
    }
    let (queue, waiting) = mpsc::channel(MAX_QUEUED_MESSAGES);
    let (close, closed) = oneshot::channel();
    let page_places = Arc::new(Semaphore::new(MAX_PAGES_WAITING));
    let session = {
        let mut state = hub.lock();
        let welcome = welcome(&hub, &guest, state.center.epoch(), state.sessions());
        // The queue is new and has room.
        let _ = queue.try_send(Outgoing::Say(Box::new(FromControl::Welcome(welcome))));
        let session = state.open_session(
            node,
            queue,
            close,
            guest.way.is_page(),
            std::mem::take(&mut guest.hello.page_certificates),
        );
        let place = hub.places.place_of(guest.observed.ip());
        let arrival = Arrival {
            session,
            node,
            introduction: guest.hello.introduction,
            observed: guest.observed,
            certificate: guest.certificate,
            enrolled,
            place,
        };
        hub.input(&mut state, Input::Arrived(Box::new(arrival)));
        session
    };
    tracing::debug!("{node:.8} arrived from {} (session {session})", guest.observed);
    let connection = match &writer {
        ControlWriter::Quic(_, connection) => Some(connection.clone()),
        ControlWriter::Web(..) => None,
    };
    let sending = send_all(hub.clone(), node, writer, waiting, closed, page_places.clone());
    let sending = hub.tasks.spawn(sending);
    let mut inbox = Inbox {
        hub: hub.clone(),
        node,
        session,
        enrolled,
        reader,
        page_places,
        connection,
        observed: guest.observed,
        told: None,
    };
    let mut bye = false;
    let guest_address = observed.ip();
    let mut sending = sending;
    tokio::select! {
        read = inbox.read() => match read {
            Ok(said_bye) => bye = said_bye,
            // The connection broke: nobody is left to tell.
            Err(BadMessage::Read(e)) if e.is_broken() => tracing::debug!("session {session} of {node:.8} broke: {e}"),
            Err(e) => {
                hub.misbehaved(guest_address);
                let why = format!("bad message: {e}");
                let mut state = hub.lock();
                state.events.say(unix_ms(), format!("session of {node:.8} ends: {why}"));
                state.end_session(session, Farewell { why, come_back: false });
            }
        },
        // It ends by itself when the session is closed or the connection breaks.
        _ = &mut sending => {}
    }
    hub.departed(node, session, bye);
    if !sending.is_finished() {
        // Dropping the queue, which leaving has done, ends it; the task itself limits how long that takes.
        let _ = sending.await;
    }
    tracing::debug!("{node:.8} left (session {session})");
}

/// What holds for a page, whatever it says: nobody dials it, and it has no disk. That it reaches no peer is its word, as
/// its browser or its site's policy may not let it; that it does is shown by a session that came by UDP, else its word too.
fn of_page(capabilities: &mut Capabilities, by_udp: bool) {
    capabilities.accepts = Known { value: Accepts::DialOnly, from: From::Test };
    capabilities.listens = false;
    let reaches = capabilities.sources.value == SourceAccess::Any;
    capabilities.udp = Known { value: reaches, from: if by_udp && reaches { From::Test } else { From::Claim } };
    if capabilities.forwards.value == Forwards::Disk {
        capabilities.forwards.value = Forwards::Memory;
    }
}

fn is_enrolled(hub: &Hub, guest: &Guest) -> bool {
    let token = &guest.hello.join_token.0;
    if !token.is_empty() {
        match hub.tokens.check(token) {
            Ok(claims) if matches!(claims.role, TokenRole::Join | TokenRole::Admin) => return true,
            Ok(_) => say_bad_token(hub, guest, "it is of another role than \"join\""),
            Err(e) => say_bad_token(hub, guest, &e.to_string()),
        }
    }
    // Any site's page may come from this machine.
    guest.observed.ip().is_loopback() && !guest.way.is_page()
}

fn say_bad_token(hub: &Hub, guest: &Guest, why: &str) {
    let text = format!("{:.8} at {} came with a join token that does not enrol it: {why}", guest.node, guest.observed);
    hub.lock().events.say(unix_ms(), text);
}

fn welcome(hub: &Hub, guest: &Guest, control_epoch: u64, sessions: usize) -> Welcome {
    Welcome {
        protocol: PROTOCOL,
        control_epoch,
        control_unix_ms: unix_ms(),
        heartbeat_ms: (hub.config.core.heartbeat.0 / 1000) as u32,
        backoff_cap_ms: (BACKOFF_MS_PER_SESSION * sessions).max(MIN_BACKOFF_CAP_MS) as u32,
        observed_address: Some(guest.observed),
        parent_keys: hub.parent_keys(&guest.node),
    }
}

/// How others reach a node, as it may know.
fn found(state: &crate::hub::State, node: &NodeId) -> Option<Found> {
    let client = state.center.clients().get(node)?;
    let accepts = client.arrival.introduction.capabilities.accepts;
    Some(Found {
        accepts: accepts.value,
        tested: accepts.from == From::Test,
        observed: client.arrival.observed,
        via: client.via,
        why: state.why_accepts(node, client).to_owned(),
    })
}

/// The reading half of a session.
struct Inbox {
    hub: Arc<Hub>,
    node: NodeId,
    session: u64,
    enrolled: bool,
    reader: ControlReader,
    page_places: Arc<Semaphore>,
    /// None for a WebSocket, which stays at its address.
    connection: Option<PeerConnection>,
    /// Where its packets come from, as the core knows.
    observed: SocketAddr,
    /// What it was told last of how others reach it.
    told: Option<Found>,
}

impl Inbox {
    /// Reads until the session ends; whether the node said goodbye.
    async fn read(&mut self) -> Result<bool, BadMessage> {
        let mut messages = Bucket::new(MESSAGES_PER_S, MESSAGES_AT_ONCE);
        let mut pages = Bucket::new(PAGES_PER_S, PAGES_PER_S);
        while let Some(message) = next_message(&mut self.reader).await? {
            self.hub.counters.messages.inc();
            if !messages.take().is_zero() {
                return Err(BadMessage::TooMany);
            }
            match message {
                FromNode::Bye => return Ok(true),
                FromNode::Hello(_) => return Err(BadMessage::SecondHello),
                FromNode::PageRequest { version, page } => {
                    tokio::time::sleep(pages.take()).await;
                    // Freed when the answer is sent.
                    if let Ok(place) = self.page_places.acquire().await {
                        place.forget();
                    }
                    pages::requested(&self.hub, self.node, self.session, version, page);
                }
                FromNode::Page { version, page } => pages::given(&self.hub, self.node, version, page),
                FromNode::Announce(log) => self.hub.announced(self.node, log).await,
                other => {
                    if !self.handle(other)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(false)
    }

    /// What the core decides; false when the session is over.
    fn handle(&mut self, message: FromNode) -> Result<bool, BadMessage> {
        let node = self.node;
        let input = match message {
            FromNode::Join(join) => return self.join(join),
            FromNode::Heartbeat(heartbeat) => {
                let mut state = self.hub.lock();
                if !state.is_current(&node, self.session) {
                    return Ok(false);
                }
                let echo_local_us = heartbeat.local_us;
                let heartbeat = heartbeat.with_runs(|v| state.runs_of(v))?;
                let holders = state.holders(&heartbeat);
                let found = found(&state, &node).filter(|f| self.told.as_ref() != Some(f));
                self.told = found.clone().or(self.told.take());
                let reply = FromControl::HeartbeatReply { control_unix_ms: unix_ms(), echo_local_us, holders, found };
                if let Some(input) = self.hub.send_to(&mut state, self.session, Outgoing::Say(Box::new(reply))) {
                    self.hub.input(&mut state, input);
                    return Ok(false);
                }
                self.hub.input(&mut state, Input::Heartbeat(node, heartbeat));
                let seen = self.connection.as_ref().map(|c| canonical(c.remote_address()));
                if let Some(seen) = seen.filter(|seen| *seen != self.observed) {
                    self.observed = seen;
                    self.hub.input(&mut state, Input::Moved(node, seen));
                }
                return Ok(true);
            }
            FromNode::Leave(version) => Input::Leave(node, version),
            FromNode::LeaseDone { version, run } => Input::LeaseDone(node, version, run),
            FromNode::LeaseFailed { version, run, why, content_changed, forbidden } => {
                let what = if content_changed { ": the origin gives other bytes than the log says" } else { "" };
                let text = format!("{node:.8} could not fetch run {run} of {:.8}{what}: {why}", version.content);
                self.hub.lock().events.say(unix_ms(), text);
                Input::LeaseFailed(node, version, run, forbidden)
            }
            FromNode::Alarm { version, alarm } => Input::Alarm(node, version, alarm),
            FromNode::DialResult(result) => Input::Dialled(node, result),
            FromNode::ProbeArrived { number, seen_from } => Input::ProbeArrived(node, number, seen_from),
            FromNode::ProbeFailed { number, why } => {
                tracing::debug!("a probe by {node:.8} was in vain: {why}");
                Input::ProbeFailed(node, number)
            }
            FromNode::MappedAddress(address) => Input::Mapped(node, address),
            FromNode::UplinkOffer(up) => Input::Offers(node, up),
            FromNode::PageCertificates(hashes) => {
                self.hub.lock().show_pages(self.session, hashes);
                return Ok(true);
            }
            FromNode::Hello(_)
            | FromNode::PageRequest { .. }
            | FromNode::Announce(_)
            | FromNode::Page { .. }
            | FromNode::Bye => return Ok(true),
        };
        Ok(self.hub.input_from(&node, self.session, input))
    }

    fn join(&self, join: Join) -> Result<bool, BadMessage> {
        let mut state = self.hub.lock();
        if !state.is_current(&self.node, self.session) {
            return Ok(false);
        }
        let version = join.version();
        if let Some(refusal) = self.refusal(&state, &join) {
            let refused = Outgoing::Say(Box::new(FromControl::Refused { version, refusal }));
            if let Some(input) = self.hub.send_to(&mut state, self.session, refused) {
                self.hub.input(&mut state, input);
            }
            return Ok(true);
        }
        let is_source = join.source.is_some();
        let join = join.with_runs(|v| state.runs_of(v), is_source)?;
        self.hub.input(&mut state, Input::Join(self.node, join));
        Ok(true)
    }

    /// What the core does not know: viewers' tokens, and what was withdrawn before a restart.
    fn refusal(&self, state: &crate::hub::State, join: &Join) -> Option<Refusal> {
        let id = join.version().content;
        let Some(content) = state.contents.get(&id) else {
            return state.contents.was_withdrawn(&id).then_some(Refusal::Unpublished);
        };
        let is_claimed = |claim| content.live.as_ref().is_some_and(|t| is_source(t, &self.node, claim));
        if join.source.as_ref().is_some_and(|claim| !is_claimed(claim)) {
            let why = "only a node that has the publisher's key is a source of its stream";
            return Some(Refusal::NotPermitted(why.into()));
        }
        let role = state.center.clients().get(&self.node).map(|c| c.arrival.introduction.role);
        // A waypoint of the operator comes because it was told to.
        if !content.restricted || (self.enrolled && role == Some(Role::Waypoint)) {
            return None;
        }
        let token = &join.viewer_token.0;
        let why = match self.hub.tokens.check(token) {
            _ if token.is_empty() => {
                "this content is for viewers with a token: get one from its publisher and give it with --viewer-token"
                    .to_owned()
            }
            Ok(claims) if claims.role == TokenRole::Viewer && claims.covers(&content.name) => return None,
            Ok(_) => "the token is not a viewer's token for this content: ask its publisher for one".to_owned(),
            Err(e) => e.to_string(),
        };
        Some(Refusal::NotPermitted(why))
    }
}

/// The sending half of a session: ends when the session is closed, left, or broken.
async fn send_all(
    hub: Arc<Hub>,
    node: NodeId,
    mut writer: ControlWriter,
    mut waiting: mpsc::Receiver<Outgoing>,
    mut closed: oneshot::Receiver<Farewell>,
    page_places: Arc<Semaphore>,
) {
    let farewell = loop {
        let message = tokio::select! {
            biased;
            farewell = &mut closed => break farewell.ok(),
            message = waiting.recv() => message,
        };
        let Some(message) = message else { break None };
        let frame = match message {
            Outgoing::Frame(frame) => frame,
            Outgoing::Say(message) => message.encode(),
            Outgoing::Assign { assignment, highest_piece } => {
                hub.with_tickets(&node, assignment, highest_piece).encode()
            }
            Outgoing::Lease { lease, highest_piece } => hub.lease_with_ticket(&node, lease, highest_piece).encode(),
            Outgoing::ParentKeys => FromControl::ParentKeys(hub.parent_keys(&node)).encode(),
            Outgoing::Page(message) => {
                page_places.add_permits(1);
                message.encode()
            }
        };
        tokio::select! {
            sent = writer.send(frame) => if sent.is_err() {
                return;
            },
            farewell = &mut closed => {
                // In the middle of a message: only the connection's own last words are left.
                let farewell = farewell.ok();
                let why = farewell.as_ref().map_or("", |f| f.why.as_str());
                let code = if farewell.as_ref().is_none_or(|f| f.come_back) { CLOSED } else { CLOSED_FOR_FAULT };
                writer.close(code, why.as_bytes());
                return;
            }
        }
    };
    match farewell {
        Some(farewell) => say_goodbye(writer, farewell).await,
        None => writer.close(CLOSED, b"bye"),
    }
}

async fn say_goodbye(mut writer: ControlWriter, farewell: Farewell) {
    let Farewell { why, come_back } = farewell;
    let last_words = async {
        writer.send(FromControl::Goodbye { why: why.clone(), come_back }.encode()).await.ok()?;
        writer.finish().await.ok()
    };
    // A node that does not listen finds the reason in the connection's end.
    let _ = tokio::time::timeout(GOODBYE_WITHIN, last_words).await;
    writer.close(if come_back { CLOSED } else { CLOSED_FOR_FAULT }, why.as_bytes());
}

/// A token bucket.
struct Bucket {
    per_s: f64,
    most: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_s: f64, most: f64) -> Bucket {
        Bucket { per_s, most, left: most, at: Instant::now() }
    }
    /// Takes one; how long to wait for it.
    fn take(&mut self) -> Duration {
        let now = Instant::now();
        let refill = now.duration_since(self.at).as_secs_f64() * self.per_s;
        self.left = (self.left + refill).min(self.most) - 1.0;
        self.at = now;
        Duration::from_secs_f64((-self.left / self.per_s).max(0.0))
    }
}
