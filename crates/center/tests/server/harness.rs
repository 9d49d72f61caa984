//! A control center in temporary folders, and nodes that speak to it over real sockets.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use headwater_center::{ControlConfig, Running, StartError, start};
use headwater_model::log::{Entry, Log, Object, fingerprint, sign};
use headwater_model::node::{Accepts, Capabilities, Role};
use headwater_model::report::{self, Introduction};
use headwater_model::{ContentId, Hash, Layout, Rate, Sum, Version, merkle, sums};
use headwater_transport::{Alpn, Identity, Listener, Reader, Writer, bind};
use headwater_wire::limits::MAX_CONTROL_FRAME_BYTES;
use headwater_wire::{FromControl, FromNode, Hello, Join, PROTOCOL, StaticLog, Token, Welcome};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const PIECE_BYTES: u32 = 4096;
const PATIENCE: Duration = Duration::from_secs(20);

/// Fails instead of waiting for ever.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not happen in time"))
}

pub fn config(folder: &Path) -> ControlConfig {
    ControlConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        public: None,
        state: folder.join("state"),
        identity: folder.join("identity"),
        places: None,
        mmdb: None,
        tls: None,
        per_address: headwater_center::AddressLimits::default(),
        core: headwater_center_core::Config::default(),
    }
}

/// A control center that runs.
pub struct Control {
    pub folder: TempDir,
    pub address: std::net::SocketAddr,
    pub api_url: String,
    pub node: headwater_model::NodeId,
    pub token: String,
    stop: oneshot::Sender<()>,
    stopped: JoinHandle<()>,
}

impl Control {
    pub async fn start() -> Control {
        Self::start_in(tempfile::tempdir().unwrap()).await.unwrap()
    }

    pub async fn start_in(folder: TempDir) -> Result<Control, StartError> {
        let config = config(folder.path());
        Self::start_as(folder, config).await
    }

    pub async fn start_as(folder: TempDir, config: ControlConfig) -> Result<Control, StartError> {
        let running: Running = start(config).await?;
        let (address, api_url, node) = (running.address, running.api_url.clone(), running.node);
        let token = std::fs::read_to_string(folder.path().join("identity/admin.token")).unwrap().trim().to_owned();
        if let Some(first) = &running.first_admin_token {
            assert_eq!(*first, token);
        }
        let (stop, stopping) = oneshot::channel();
        let stopped = tokio::spawn(running.stopped(stopping));
        Ok(Control { folder, address, api_url, node, token, stop, stopped })
    }

    /// Stops it; its folders stay.
    pub async fn stop(self) -> TempDir {
        self.stop.send(()).unwrap();
        soon("stopping", self.stopped).await.unwrap();
        self.folder
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub async fn call(&self, method: &str, path: &str, token: &str, body: Vec<u8>) -> (u16, Value) {
        self.call_with(method, path, token, body, &[]).await
    }

    pub async fn call_with(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Vec<u8>,
        headers: &[(&str, &str)],
    ) -> (u16, Value) {
        let mut request = client()
            .request(method.parse().unwrap(), format!("{}{path}", self.api_url))
            .body(body)
            .header("authorization", format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = soon("an answer", request.send()).await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// GET as administrator, which must succeed.
    pub async fn get(&self, path: &str) -> Value {
        let (status, value) = self.call("GET", path, &self.token, vec![]).await;
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    pub async fn publish(&self, content: &Sample) -> Value {
        self.publish_with(content, "").await
    }

    pub async fn publish_with(&self, content: &Sample, query: &str) -> Value {
        let (status, value) =
            self.call("POST", &format!("/v1/contents{query}"), &self.token, content.file.encode()).await;
        assert_eq!(status, 201, "{value}");
        value
    }

    pub async fn make_token(&self, json: &str) -> String {
        let (status, value) = self.call("POST", "/v1/tokens", &self.token, json.into()).await;
        assert_eq!(status, 200, "{value}");
        value["token"].as_str().unwrap().to_owned()
    }

    pub async fn arrive(&self) -> Node {
        Node::arrive(self, Arc::new(Identity::ephemeral().unwrap())).await
    }
}

pub fn client() -> reqwest::Client {
    // Another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap()
}

/// A signed content of one object.
pub struct Sample {
    pub file: StaticLog,
    pub version: Version,
    pub root: Hash,
    pub key: Hash,
    pub sums_root: Hash,
}

pub fn sample(name: &str, key: u8, epoch: u64, pieces: u32) -> Sample {
    let object =
        Object { path: "film.mp4".into(), media_type: String::new(), size_bytes: u64::from(pieces * PIECE_BYTES) };
    sample_of(name, key, epoch, vec![object])
}

pub fn sample_of(name: &str, key: u8, epoch: u64, objects: Vec<Object>) -> Sample {
    let key = SigningKey::from_bytes(&[key; 32]);
    let pieces = Layout::new(PIECE_BYTES, &objects).unwrap().pieces();
    let leaves: Vec<Hash> = (0..pieces).map(|i| merkle::leaf(&(u64::from(i) + epoch).to_be_bytes())).collect();
    let root = merkle::root(&leaves);
    let sums: Vec<Sum> = (0..u64::from(pieces)).map(|i| Sum(i ^ epoch)).collect();
    let mut log =
        Log { name: name.into(), first_key: key.verifying_key().to_bytes(), key_changes: vec![], entries: vec![] };
    let entry = Entry {
        track: "main".into(),
        epoch,
        number: 0,
        previous: Hash::default(),
        time_unix_ms: 1,
        piece_bytes: PIECE_BYTES,
        objects,
        first_leaf: 0,
        leaves: pieces,
        root,
        origins: vec!["http://origin.example/film.mp4".into()],
        last: true,
        sums: Some(sums::root(&sums)),
        live: None,
    };
    log.entries.push(sign(log.content(), entry, &key));
    let version = log.version().unwrap();
    let (key, sums_root) = (fingerprint(&log.first_key), sums::root(&sums));
    Sample { key, file: StaticLog { log, leaves, sums, entries: Vec::new() }, version, root, sums_root }
}

/// A node with a session, or a connection without one.
pub struct Node {
    pub identity: Arc<Identity>,
    pub connection: quinn::Connection,
    pub reader: Reader,
    pub writer: Writer,
    _listener: Listener,
}

pub fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL,
        introduction: Introduction {
            role: Role::Peer,
            capabilities: Capabilities::regular(Accepts::Open),
            up: Rate::from_mbit(80),
            down: Rate(0),
            client: "test".into(),
            local_addresses: vec![],
            https_port: None,
        },
        join_token: Token::default(),
        control_epoch_seen: 0,
        local_unix_ms: 0,
        page_certificates: vec![],
    }
}

impl Node {
    /// Connected, without a hello.
    pub async fn connect(control: &Control, identity: Arc<Identity>) -> Node {
        let listener = bind("127.0.0.1:0".parse().unwrap(), identity.clone(), &[]).unwrap();
        let dial = listener.dial(control.address, Some(control.node), Alpn::Control);
        let connection = soon("a connection", dial).await.unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        let reader = Reader::new(receive, MAX_CONTROL_FRAME_BYTES);
        Node { identity, connection, reader, writer: Writer(send), _listener: listener }
    }

    pub async fn arrive(control: &Control, identity: Arc<Identity>) -> Node {
        Self::arrive_as(control, identity, hello()).await.0
    }

    pub async fn arrive_as(control: &Control, identity: Arc<Identity>, hello: Hello) -> (Node, Welcome) {
        let mut node = Self::connect(control, identity).await;
        node.say(FromNode::Hello(hello)).await;
        let welcome = node.wait(|m| if let FromControl::Welcome(w) = m { Some(w) } else { None }).await;
        (node, welcome)
    }

    pub async fn say(&mut self, message: FromNode) {
        self.raw(message.encode()).await;
    }

    pub async fn raw(&mut self, bytes: Bytes) {
        soon("sending", self.writer.send(bytes)).await.unwrap();
    }

    /// The next message; `None` when the session has ended.
    pub async fn next(&mut self) -> Option<FromControl> {
        let frame = soon("a message", self.reader.next()).await.ok()??;
        Some(FromControl::decode(frame).unwrap())
    }

    /// Reads on until a message fits.
    pub async fn wait<T>(&mut self, fit: impl Fn(FromControl) -> Option<T>) -> T {
        loop {
            let message = self.next().await.expect("the session ended");
            if let Some(found) = fit(message) {
                return found;
            }
        }
    }

    /// Reads on until the last words: why, and whether to come back.
    pub async fn goodbye(&mut self) -> (String, bool) {
        let said =
            self.wait(|m| if let FromControl::Goodbye { why, come_back } = m { Some((why, come_back)) } else { None });
        let said = said.await;
        soon("the end", self.connection.closed()).await;
        said
    }

    pub async fn join_as(&mut self, version: Version, complete: bool, token: &str) {
        let join = report::Join { complete, ..report::Join::to(version) };
        self.say(FromNode::Join(Join::new(join, Token(token.into())))).await;
    }

    /// Joins, and reads until it was let in.
    pub async fn joined(&mut self, version: Version, complete: bool) -> (Log, headwater_wire::OriginAccess) {
        self.join_as(version, complete, "").await;
        self.wait(|m| if let FromControl::Content { log, access } = m { Some((log, access)) } else { None }).await
    }

    /// Joins, and reads until it was refused.
    pub async fn refused(&mut self, version: Version, token: &str) -> headwater_model::assignment::Refusal {
        self.join_as(version, false, token).await;
        self.wait(|m| if let FromControl::Refused { refusal, .. } = m { Some(refusal) } else { None }).await
    }

    /// Asks for a page.
    pub async fn page(&mut self, version: Version, page: u32) -> Option<merkle::Page> {
        self.say(FromNode::PageRequest { version, page }).await;
        self.wait(|m| match m {
            FromControl::Page { page, .. } => Some(Some(page)),
            FromControl::PageUnavailable { .. } => Some(None),
            _ => None,
        })
        .await
    }
}

pub fn newest(content: ContentId) -> Version {
    Version { content, epoch: 0 }
}
