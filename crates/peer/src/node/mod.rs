//! A running node: one UDP socket, one session with the control center, any number of contents. Decisions are
//! `peer-core`'s; this moves the bytes, checks tickets and hashes, and says what happened.

mod connections;
mod control;
mod gateway;
mod governor;
mod http;
mod https_fetch;
mod https_server;
mod kept;
mod limits;
pub mod live;
mod messages;
mod meters;
mod opening;
mod origin_fetch;
mod pages;
mod port_mapping;
mod probes;
mod reading;
mod self_test;
mod serving;
mod stand_in;
mod state;
mod status;
mod storage;
mod versions;
mod web;
mod wired;
mod yielding;

use crate::buffer_pool::Pool;
use crate::origin::{OriginClient, OriginConfig, OriginError};
use crate::pacer::Pacer;
pub use governor::StepsAside;
pub use headwater_peer_core::{Conduct, DAY_MINUTES, Hours, Limits};
pub use limits::LimitsStatus;

use crate::circumstances::local_time;
use crate::downlink::Downlink;
use crate::sources::{Sources, Way};
use crate::store::{Destination, StoreError};
use crate::volume::Volume;
use headwater_model::assignment::Refusal;
use headwater_model::log::LogError;
use headwater_model::node::{Known, Priority};
use headwater_model::{Accepts, Capabilities, ContentId, Forwards, Hash, Name, NodeId, Rate, Role, Time};
use headwater_transport::{Alpn, BindError, Identity, IdentityError, Listener, bind, http_server_config};
use serde::{Deserialize, Serialize};
use state::{ContentState, Phase, State};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

pub use kept::ForgetError;
pub use self_test::{DiskTest, OriginTest, PathTest, SelfTest, SystemTest, Tried};
pub use status::{ContentDetail, ControlStatus, EdgeStatus, NodeStatus, ReachStatus};
pub use versions::kept_versions;

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Peer or waypoint.
    pub role: Role,
    /// Address of the UDP socket; port 0 for any.
    pub listen: SocketAddr,
    /// Never accepts connections.
    pub dial_only: bool,
    /// Asks its router (UPnP, PCP, NAT-PMP) to forward a port.
    pub port_mapping: bool,
    /// What it may do for others, and when.
    pub limits: Limits,
    /// Whether uploads step aside for the user's own traffic.
    pub steps_aside: StepsAside,
    /// Folder of the node's identity and of contents that have no place of their own.
    pub data: PathBuf,
    /// Most bytes that contents in `data` may take; what leaves a tenth of the disk free where `None`.
    pub quota_bytes: Option<u64>,
    /// Contents that stay when the quota needs room.
    pub pinned: BTreeSet<ContentId>,
    /// Control center, `host:port`.
    pub control: String,
    /// Its node id, where it is known.
    pub control_id: Option<NodeId>,
    /// Operator's token: the node is believed.
    pub join_token: Option<String>,
    /// For contents that are not open to all.
    pub viewer_token: Option<String>,
    /// From whom it may fetch.
    pub sources: Sources,
    /// HTTP proxy for the origin, waypoints, and the control center where UDP is blocked; the environment's where `None`.
    pub proxy: Option<url::Url>,
    /// Address of the TCP socket at which it, a waypoint, serves contents by HTTPS.
    pub https: Option<SocketAddr>,
    /// Loopback address at which programs on this machine read contents by HTTP.
    pub gateway: Option<SocketAddr>,
}

/// When a node stops its children get so long to have what they asked for, and other parents.
const HAND_OVER: Duration = Duration::from_secs(3);
/// How often it looks whether they have.
const HAND_OVER_LOOK: Duration = Duration::from_millis(20);

/// See [`Inner::more_origin_jobs`]: each keeps up to 4 MiB in memory when the disk is slow.
const MAX_MORE_ORIGIN_JOBS: usize = 32;
/// See [`Inner::openings`]: each reads files and may hash them, on a thread of its own.
const MAX_OPENINGS: usize = 4;

/// What a node without a limit says that it can upload: the capacity of a gigabit line.
const UNLIMITED_CLAIM: Rate = Rate::from_mbit(1000);

/// A content to fetch.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Its name.
    pub name: Name,
    /// Where it goes; below the data folder where `None`.
    pub destination: Option<Destination>,
    /// Folder of the download's state, beside the destination.
    pub state_dir: Option<PathBuf>,
    /// Files and folders whose pieces are taken where they are equal, beside what lies at the destination.
    pub have: Vec<PathBuf>,
    /// When a newer version is published it is fetched too, and takes the place of this one.
    pub follow: bool,
    /// The quota does not end it, also after the next start.
    pub pin: bool,
}

impl Fetch {
    /// A content that the node keeps in its data folder, version after version.
    pub fn kept(name: Name) -> Fetch {
        Fetch { name, destination: None, state_dir: None, have: Vec::new(), follow: true, pin: false }
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The HTTP client.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A secret would go to an unknown party.
    #[error(
        "a join token is sent only to a control center that is pinned: give its node id with --cc (`headwater control` prints it)"
    )]
    JoinTokenWithoutPin,
    /// HTTPS cannot listen.
    #[error("cannot serve HTTPS at {address}: {source}; choose another address with --https")]
    Https {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The gateway cannot listen.
    #[error("the gateway cannot listen at {address}: {source}; choose another address with --gateway")]
    Gateway {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The count of this month's uploads.
    #[error("this month's volume so far: {0}; remove that file to count it anew")]
    Volume(std::io::Error),
    /// The system refused something.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Why a content is not to be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// The control center refuses.
    #[error("{0}")]
    Refused(Refusal),
    /// The log is not believed.
    #[error("the content's log is not to be believed: {0}")]
    Log(LogError),
    /// The static log is not to be had or not to be believed.
    #[error("no control center, and the static log does not help: {0}")]
    StaticLog(String),
    /// A stream where a file or folder is wanted.
    #[error("it is a live stream, which no file can hold: watch it with `headwater play`")]
    LiveStream,
    /// The disk.
    #[error("{0}")]
    Store(Arc<StoreError>),
    /// It does not fit into the quota.
    #[error(
        "its {} MB do not fit into the quota of {} MB beside what is pinned, in use or worth more: raise --quota",
        needed_bytes.div_ceil(1_000_000),
        quota_bytes / 1_000_000
    )]
    NoRoom {
        /// Size of the content.
        needed_bytes: u64,
        /// What all contents together may take.
        quota_bytes: u64,
    },
    /// It went, to keep the others within the quota.
    #[error("evicted to keep within the quota")]
    Evicted,
    /// The publisher or a newer version ended it.
    #[error("{0}")]
    Withdrawn(String),
    /// The control center ended the session for good.
    #[error("the control center ended the session: {0}")]
    Goodbye(String),
}

impl From<StoreError> for FetchError {
    fn from(e: StoreError) -> Self {
        FetchError::Store(Arc::new(e))
    }
}

impl FetchError {
    /// Whether the content was refused or unknown (and not something here or on the way at fault).
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            FetchError::Refused(_)
                | FetchError::Withdrawn(_)
                | FetchError::Goodbye(_)
                | FetchError::Log(_)
                | FetchError::LiveStream
        )
    }
}

/// How a content fares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContentStatus {
    /// Its id.
    pub content: String,
    /// Its name, once known.
    pub name: String,
    /// `asking`, `opening`, `looking` (through what is here), `fetching`, `live`, `complete`, `replaced` (by its stand-in)
    /// or `failed`.
    pub state: String,
    /// Id of the content that is here in its place, as this node is lightweight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stand_in: Option<String>,
    /// Name of the content in whose place it is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stands_in_for: Option<String>,
    /// Its version; 0 until known.
    pub epoch: u64,
    /// Verified bytes.
    pub bytes: u64,
    /// All bytes; 0 until known.
    pub total: u64,
    /// Whether everything is here.
    pub complete: bool,
    /// Whether it stays when the quota needs room.
    pub pinned: bool,
    /// Received from peers.
    pub peer_bytes: u64,
    /// Received from waypoints.
    pub waypoint_bytes: u64,
    /// Received from the origin.
    pub origin_bytes: u64,
    /// Taken from files that were here, as an older version's.
    pub reused_bytes: u64,
    /// Received twice or wrong.
    pub wasted_bytes: u64,
    /// Sent to others.
    pub uploaded_bytes: u64,
    /// Parents with an open edge.
    pub parents: usize,
    /// Children with an open edge.
    pub children: usize,
    /// Whether there is a session with the control center.
    pub control: bool,
    /// Where programs on this machine read it, if there is a gateway.
    pub gateway: Option<String>,
    /// Of a live stream.
    pub live: Option<live::LiveStatus>,
    /// What is worth telling the user, newest last.
    pub notes: Vec<String>,
}

/// What has become of a content.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Running,
    Complete,
    /// This one is here in its place.
    StandIn(ContentId),
    Failed(FetchError),
}

pub(crate) struct Inner {
    pub(crate) config: NodeConfig,
    pub(crate) listener: Listener,
    pub(crate) origin: OriginClient,
    /// The same for live streams, which wait for no file.
    pub(crate) live_origin: OriginClient,
    /// The user's own limit.
    pub(crate) pacer: Pacer,
    pub(crate) downlink: Arc<Downlink>,
    /// Keeps the user's own traffic from waiting; an operator's node has none.
    pub(crate) governor: Option<governor::Governor>,
    pub(crate) echoes: yielding::Echoes,
    pub(crate) way: Way,
    pub(crate) https_clients: https_fetch::Clients,
    /// Leased runs that are fetched at once, beside one of each content.
    pub(crate) more_origin_jobs: Semaphore,
    /// Contents that are opened at once.
    pub(crate) openings: Semaphore,
    /// TCP port at which contents are served by HTTPS.
    pub(crate) https_port: Option<u16>,
    pub(crate) gateway: Option<gateway::Gateway>,
    begun: Instant,
    /// Differs between two runs of this node.
    pub(crate) instance: u64,
    state: Mutex<State>,
    /// The control center said where it sees this node.
    pub(crate) session_began: Notify,
    /// The control loop looks at its session again.
    pub(crate) control_wake: Notify,
    pub(crate) stopping: CancellationToken,
    /// What contents in the data folder may take, as last looked up.
    pub(crate) quota_bytes: AtomicU64,
    /// For pieces on their way.
    pub(crate) buffers: Arc<Pool>,
}

/// What a node's contents take of its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Storage {
    /// By the contents in the data folder, when they are complete.
    pub kept_bytes: u64,
    /// What they may take.
    pub quota_bytes: u64,
}

/// A running node. Dropping it does not stop it; see [`Node::stop`].
#[derive(Clone)]
pub struct Node(pub(crate) Arc<Inner>);

/// A content at a node.
pub struct Content {
    node: Arc<Inner>,
    id: ContentId,
    outcome: watch::Receiver<Outcome>,
}

impl Inner {
    pub(crate) fn now(&self) -> Time {
        Time(self.begun.elapsed().as_micros() as u64 + 1)
    }
    pub(crate) fn at(&self, time: Time) -> tokio::time::Instant {
        (self.begun + Duration::from_micros(time.0)).into()
    }
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// What it can do, and passes on while it offers any uplink.
    pub(crate) fn capabilities(&self, up: Rate) -> Capabilities {
        let accepts = if self.config.dial_only { Accepts::DialOnly } else { Accepts::Open };
        let forwards = if up.0 == 0 { Forwards::No } else { Forwards::Disk };
        Capabilities {
            sources: Known::claim(self.config.sources.access()),
            forwards: Known::claim(forwards),
            ..Capabilities::regular(accepts)
        }
    }
    /// By which certificates pages know this node; none where they cannot connect.
    pub(crate) fn page_certificates(&self) -> Vec<Hash> {
        self.listener.pages().map(|p| p.hashes().to_vec()).unwrap_or_default()
    }
    /// Whether this end decides which one of several connections with `node` is kept.
    pub(crate) fn keeps_one_with(&self, node: &NodeId) -> bool {
        self.listener.identity().node < *node
    }
    /// Whether the control center is on this machine.
    pub(crate) fn is_on_loopback(&self) -> bool {
        is_loopback(&self.config.control)
    }
    /// Addresses on this machine's networks at which it listens: for nodes there.
    pub(crate) fn local_addresses(&self) -> Vec<SocketAddr> {
        let Ok(bound) = self.listener.address() else { return Vec::new() };
        if self.config.dial_only {
            return Vec::new();
        }
        if !bound.ip().is_unspecified() {
            return if bound.ip().is_loopback() { Vec::new() } else { vec![bound] };
        }
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let ips = interfaces.iter().filter(|i| !i.is_loopback() && !i.is_link_local()).map(|i| i.ip());
        let ips = ips.filter(|ip| bound.is_ipv6() || ip.is_ipv4());
        ips.take(headwater_wire::limits::MAX_ADDRESSES).map(|ip| SocketAddr::new(ip, bound.port())).collect()
    }
    /// What paces sending, by whatever reason.
    pub(crate) fn pacers(&self) -> impl Iterator<Item = &Pacer> {
        std::iter::once(&self.pacer).chain(self.governor.as_ref().map(|g| &g.pacer))
    }

    /// An error when the data folder was taken away: nothing new is made in its place.
    pub(crate) fn data_folder_is_there(&self) -> Result<(), StoreError> {
        match self.config.data.join("identity").is_dir() {
            true => Ok(()),
            false => Err(StoreError::FolderGone { path: self.config.data.clone() }),
        }
    }
    fn status(&self, content: &ContentState, state: &State) -> ContentStatus {
        let gateway = self.gateway.as_ref().map(|g| g.url(&content.id));
        ContentStatus { gateway, ..content.status(state) }
    }
}

/// Unix milliseconds of the local clock, which may be wrong: control time is used for everything that expires.
pub(crate) fn local_unix_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Random 64 bits for the seeds of decisions.
pub(crate) fn random_seed() -> u64 {
    let mut seed = [0; 8];
    // Without randomness the time must do: nothing secret depends on it.
    match getrandom::fill(&mut seed) {
        Ok(()) => u64::from_le_bytes(seed),
        Err(_) => local_unix_ms(),
    }
}

impl Node {
    /// Starts a node: it listens, and dials its control center for as long as it runs. It goes on with the contents that
    /// an earlier run left in the data folder.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: NodeConfig) -> Result<Node, StartError> {
        if config.join_token.is_some() && config.control_id.is_none() && !is_loopback(&config.control) {
            return Err(StartError::JoinTokenWithoutPin);
        }
        let identity = Arc::new(Identity::load_or_create(&config.data.join("identity"))?);
        let accept: &[Alpn] = if config.dial_only { &[] } else { &[Alpn::Peer, Alpn::Probe, Alpn::Page] };
        let tls = http_server_config(&identity)?;
        let listener = bind(config.listen, identity, accept)?;
        let https = match config.https {
            None => None,
            Some(address) => {
                let listen = tokio::net::TcpListener::bind(address).await;
                Some(listen.map_err(|source| StartError::Https { address, source })?)
            }
        };
        let reading = match config.gateway {
            None => None,
            Some(address) => Some(listen_on_loopback(address).await?),
        };
        let gateway = reading.as_ref().and_then(|l| l.local_addr().ok());
        let gateway = gateway.map(|address| gateway::Gateway::new(address, listener.identity(), &config.data));
        let https_port = https.as_ref().and_then(|l| l.local_addr().ok()).map(|a| a.port());
        let begun = Instant::now();
        let way = Way { proxy: config.proxy.clone(), environment_proxy: true, sources: config.sources.clone() };
        let downlink = Arc::new(Downlink::new(begun));
        downlink.limit(config.limits.down);
        let origin = OriginConfig {
            proxy: config.proxy.clone(),
            sources: config.sources.clone(),
            downlink: Some(downlink.clone()),
            ..OriginConfig::default()
        };
        let (kept_at, month) = (config.data.join("volume"), local_time().1);
        let volume = match Volume::open(kept_at.clone(), month) {
            // Without a limit the count is for show.
            Err(e) if config.limits.monthly_bytes.is_none() => {
                tracing::warn!("counting this month's volume anew: {e}");
                Volume::new(kept_at, month)
            }
            opened => opened.map_err(StartError::Volume)?,
        };
        let in_force = limits::InForce::new(config.limits.clone(), volume.sent());
        let inner = Arc::new(Inner {
            live_origin: OriginClient::new(OriginConfig { downlink: None, ..origin.clone() })?,
            origin: OriginClient::new(origin)?,
            way,
            downlink,
            https_clients: https_fetch::Clients::default(),
            more_origin_jobs: Semaphore::new(MAX_MORE_ORIGIN_JOBS),
            openings: Semaphore::new(MAX_OPENINGS),
            https_port,
            gateway,
            pacer: Pacer::new(config.limits.up),
            echoes: yielding::Echoes::default(),
            governor: governor::Governor::new(Time(1), config.steps_aside, config.limits.up, random_seed()),
            begun,
            instance: random_seed(),
            state: Mutex::new(State::new(Time(1), random_seed(), in_force)),
            session_began: Notify::new(),
            control_wake: Notify::new(),
            stopping: CancellationToken::new(),
            buffers: Arc::default(),
            quota_bytes: AtomicU64::new(config.quota_bytes.unwrap_or(u64::MAX)),
            listener,
            config,
        });
        let resumed = inner.clone();
        // Before the control center orders more: what is here comes first.
        tokio::task::spawn_blocking(move || storage::resume(&resumed)).await.map_err(std::io::Error::other)?;
        limits::apply(&inner);
        let kept = tokio::spawn(limits::keep(inner.clone(), volume));
        inner.lock().limits_kept = Some(kept);
        tokio::spawn(governor::govern(inner.clone()));
        tokio::spawn(wired::tell_pacer(inner.clone()));
        tokio::spawn(yielding::to_streams(inner.clone()));
        tokio::spawn(control::run(inner.clone()));
        tokio::spawn(connections::accept(inner.clone()));
        tokio::spawn(pages::keep_certificates(inner.clone()));
        tokio::spawn(state::tick(inner.clone()));
        tokio::spawn(storage::run(inner.clone()));
        if inner.config.port_mapping && !inner.config.dial_only {
            let mapping = tokio::spawn(port_mapping::keep(inner.clone()));
            inner.lock().port_mapping = Some(mapping);
        }
        if let Some(https) = https {
            tokio::spawn(https_server::serve(inner.clone(), https, tls));
        }
        if let Some(reading) = reading {
            tokio::spawn(gateway::serve(inner.clone(), reading));
        }
        Ok(Node(inner))
    }

    /// Who it is.
    pub fn id(&self) -> NodeId {
        self.0.listener.identity().node
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.0.listener.address()
    }

    /// TCP port at which it serves contents by HTTPS, if it does.
    pub fn https_port(&self) -> Option<u16> {
        self.0.https_port
    }

    /// Begins to fetch a content, or goes on where an earlier run stopped; one that failed begins again. Without a place
    /// of its own its name is kept in the data folder, for the next start. Blocks for the disk.
    pub fn fetch(&self, fetch: Fetch) -> Content {
        let id = fetch.name.content();
        if fetch.destination.is_none() && fetch.state_dir.is_none() {
            let folder = self.0.config.data.join("contents").join(id.to_string());
            kept::keep(&folder, &fetch.name);
            if fetch.pin {
                storage::pin(&folder);
            }
        }
        let mut content = ContentState::new(id, Some(fetch.name), fetch.destination, fetch.state_dir);
        (content.have, content.follows) = (fetch.have, fetch.follow);
        content.keeping.pinned = fetch.pin;
        let outcome = content.outcome.subscribe();
        opening::begin(&self.0, content);
        // It may be here already.
        let outcome = self.0.lock().contents.get(&id).map_or(outcome, |c| c.outcome.subscribe());
        Content { node: self.0.clone(), id, outcome }
    }

    /// How much a content matters beside the node's other ones, from now on: where they compete for the uplink, or for a
    /// limited downlink, it gets its share, and the control center plans with that. Nothing happens where the node has no
    /// such content.
    pub fn set_priority(&self, content: &ContentId, priority: Priority) {
        let mut state = self.0.lock();
        let Some(c) = state.contents.get_mut(content) else { return };
        c.priority = priority;
        if let Phase::Running(r) = &mut c.phase {
            r.swarm.set_priority(priority);
        }
        self.0.pacers().for_each(|pacer| pacer.set_priority(*content, priority));
    }

    /// What its contents take of the disk.
    pub fn storage(&self) -> Storage {
        let quota_bytes = self.0.quota_bytes.load(Ordering::Relaxed);
        Storage { kept_bytes: storage::kept_bytes(&self.0.lock()), quota_bytes }
    }

    /// Page on which the user sees which web sites may read contents here, and takes that back; if there is a gateway.
    pub fn consents_url(&self) -> Option<String> {
        self.0.gateway.as_ref().map(gateway::Gateway::consents_url)
    }

    /// All contents.
    pub fn contents(&self) -> Vec<ContentStatus> {
        let state = self.0.lock();
        state.contents.values().map(|c| self.0.status(c, &state)).collect()
    }

    /// How a content fares that was asked for, or what is here in its place.
    pub fn status_of(&self, asked: &ContentId) -> Option<ContentStatus> {
        let state = self.0.lock();
        state.contents.get(&state.here_for(*asked)).map(|c| self.0.status(c, &state))
    }

    /// Whether there is a session with the control center.
    pub fn has_control(&self) -> bool {
        self.0.lock().session.is_connected()
    }

    /// Leaves: says goodbye, serves its children until the control center has given them other parents (three seconds at
    /// most; not at all without a control center), closes connections and stores.
    pub async fn stop(&self) {
        if state::say_goodbye(&self.0) {
            let handed_over = async {
                while state::has_children(&self.0) {
                    tokio::time::sleep(HAND_OVER_LOOK).await;
                }
            };
            if tokio::time::timeout(HAND_OVER, handed_over).await.is_err() {
                tracing::info!("stopping, though some children have no other parents yet");
            }
        }
        let stores = state::leave(&self.0);
        self.0.stopping.cancel();
        let kept = self.0.lock().limits_kept.take();
        if let Some(kept) = kept {
            // It writes a line to a file.
            let _ = kept.await;
        }
        let mapping = self.0.lock().port_mapping.take();
        if let Some(mapping) = mapping {
            // It gives the port back; a router that does not answer keeps nobody here.
            let _ = tokio::time::timeout(Duration::from_millis(700), mapping).await;
        }
        for store in stores {
            if let Err(e) = store.close().await {
                tracing::warn!("closing a store: {e}");
            }
        }
        self.0.listener.endpoint.close(0u32.into(), b"leaving");
        // The close frames go out within a round trip; nobody waits longer for a node that leaves.
        let _ = tokio::time::timeout(Duration::from_millis(500), self.0.listener.endpoint.wait_idle()).await;
    }
}

impl Content {
    /// How it fares, or what is here in its place.
    pub fn status(&self) -> ContentStatus {
        Node(self.node.clone()).status_of(&self.id).unwrap_or_default()
    }

    /// Waits until everything is here, of it or of what is here in its place.
    ///
    /// # Errors
    /// [`FetchError`] when it never will be.
    pub async fn complete(&mut self) -> Result<(), FetchError> {
        loop {
            let outcome = self.outcome.borrow_and_update().clone();
            match outcome {
                Outcome::Complete => return Ok(()),
                Outcome::Failed(e) => return Err(e),
                Outcome::Running => {}
                Outcome::StandIn(by) => {
                    let stand_in = self.node.lock().contents.get(&by).map(|c| c.outcome.subscribe());
                    self.outcome = stand_in.ok_or_else(|| FetchError::Withdrawn("its stand-in is gone".into()))?;
                    continue;
                }
            }
            if self.outcome.changed().await.is_err() {
                return Err(FetchError::Withdrawn("the node stopped".into()));
            }
        }
    }
}

async fn listen_on_loopback(address: SocketAddr) -> Result<tokio::net::TcpListener, StartError> {
    let refused = |source| StartError::Gateway { address, source };
    if !address.ip().is_loopback() {
        return Err(refused(std::io::Error::other("it answers programs on this machine only, at a loopback address")));
    }
    tokio::net::TcpListener::bind(address).await.map_err(refused)
}

pub(crate) fn is_loopback(control: &str) -> bool {
    control.starts_with("127.") || control.starts_with("localhost:") || control.starts_with("[::1]")
}

/// The fingerprint that a fetched log must begin with; any for contents that the control center named by id.
pub(crate) fn pinned(name: &Option<Name>) -> Option<Hash> {
    name.as_ref().map(|n| n.key)
}

#[cfg(test)]
#[path = "merging_tests.rs"]
mod merging_tests;
