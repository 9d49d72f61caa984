//! What a node tells its user of itself: how it is, how its contents fare, over which edges.

use super::meters::Meters;
use super::state::{ContentState, Phase, Running, State};
use super::{ContentStatus, Inner, LimitsStatus, Node, local_unix_ms};
use headwater_model::id::ContentId;
use headwater_model::{Accepts, NodeId, Role, SourceClass};
use headwater_peer_core::{EdgeStage, EdgeView};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// Edges of each kind that are shown of one content: the fastest.
const MAX_SHOWN_EDGES: usize = 256;

/// How a node is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Its id.
    pub node: String,
    /// Version of the program that runs it.
    pub version: String,
    /// `peer` or `waypoint`.
    pub role: String,
    /// Seconds since it started.
    pub uptime_s: f64,
    /// UDP address at which it listens.
    pub listens: Option<SocketAddr>,
    /// Its session with the control center.
    pub control: ControlStatus,
    /// How others reach it.
    pub reach: ReachStatus,
    /// What it may do for others.
    pub limits: LimitsStatus,
    /// Sent now, over all contents.
    pub up_bytes_per_s: u64,
    /// Received now.
    pub down_bytes_per_s: u64,
    /// Where it keeps things.
    pub data: PathBuf,
    /// Bytes of verified pieces that it holds.
    pub held_bytes: u64,
    /// What the contents may take of that disk at most; nothing until it was looked at.
    pub quota_bytes: Option<u64>,
    /// Room left on that disk, where the system says it.
    pub free_bytes: Option<u64>,
    /// Contents.
    pub contents: usize,
    /// Connections with other nodes.
    pub connections: usize,
    /// It is about to stop, and serves its children meanwhile.
    pub stopping: bool,
}

/// A node's session with the control center.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControlStatus {
    /// `host:port`.
    pub address: String,
    /// Its node id, where it is known.
    pub node: Option<String>,
    /// Whether there is one.
    pub connected: bool,
    /// `quic` or `websocket`.
    pub way: Option<String>,
    /// Why there is none, where that is known.
    pub problem: Option<String>,
    /// By how much this machine's clock is ahead of the control center's, milliseconds.
    pub clock_ahead_ms: Option<i64>,
}

/// How others reach a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReachStatus {
    /// Where the control center sees it.
    pub observed: Option<SocketAddr>,
    /// What it accepts, as the control center found out; `None` until it said so.
    pub accepts: Option<Accepts>,
    /// By test; else that is what the node claims.
    pub tested: bool,
    /// In words.
    pub why: String,
    /// The address of its router at which others reach it.
    pub via: Option<SocketAddr>,
    /// Whether it asks its router to forward a port.
    pub asks_router: bool,
    /// The port that its router forwards.
    pub mapped_port: Option<u16>,
    /// Why none does, where one was asked.
    pub mapping_problem: Option<String>,
    /// Addresses on this machine's networks at which it listens.
    pub local: Vec<SocketAddr>,
}

/// How a content fares, and over which edges.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContentDetail {
    /// Its state and what came from where.
    #[serde(flatten)]
    pub status: ContentStatus,
    /// Seconds since it was opened here.
    pub seconds: f64,
    /// Received now.
    pub down_bytes_per_s: u64,
    /// Sent now.
    pub up_bytes_per_s: u64,
    /// Edges to parents, the fastest first; at most 256.
    pub parent_edges: Vec<EdgeStatus>,
    /// Edges to children, the fastest first; at most 256.
    pub child_edges: Vec<EdgeStatus>,
}

/// An edge to a parent or a child.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EdgeStatus {
    /// The other end.
    pub node: String,
    /// `peer`, `waypoint` or `origin`; of children it is not known.
    pub class: Option<SourceClass>,
    /// Where it is, if there is a connection.
    pub address: Option<SocketAddr>,
    /// `dialling`, `opening` or `open`.
    pub stage: String,
    /// A parent that is asked only when others fail, or one that is about to end.
    pub spare: bool,
    /// Over it since it opened.
    pub bytes: u64,
    /// Over it now.
    pub bytes_per_s: u64,
    /// Of all that the content received (sent, for a child), in percent.
    pub share_percent: f64,
    /// Pieces that were asked for and are not through yet.
    pub waiting_pieces: usize,
    /// Round-trip time in milliseconds; 0 until known.
    pub rtt_ms: f64,
}

impl ContentStatus {
    /// Bytes received that were of use.
    pub fn received_bytes(&self) -> u64 {
        self.peer_bytes + self.waypoint_bytes + self.origin_bytes
    }

    /// Share of the received bytes that did not come from the origin, in percent; `None` before the first byte.
    pub fn offload_percent(&self) -> Option<f64> {
        let all = self.received_bytes();
        (all > 0).then(|| 100.0 * (all - self.origin_bytes) as f64 / all as f64)
    }
}

impl Node {
    /// How it is.
    pub fn status(&self) -> NodeStatus {
        let inner = &self.0;
        // Outside the lock: these ask the system.
        let (local, free_bytes) = (inner.local_addresses(), fs4::available_space(&inner.config.data).ok());
        let limits = self.limits();
        let state = inner.lock();
        let running = || state.contents.values().filter_map(running);
        let meters = || state.contents.values().filter_map(meters);
        NodeStatus {
            node: self.id().to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            role: match inner.config.role {
                Role::Peer => "peer".into(),
                Role::Waypoint => "waypoint".into(),
            },
            uptime_s: inner.begun.elapsed().as_secs_f64(),
            listens: self.address().ok(),
            control: control(inner, &state),
            reach: reach(inner, &state, local),
            limits,
            up_bytes_per_s: meters().map(Meters::up).sum(),
            down_bytes_per_s: meters().map(Meters::down).sum(),
            data: inner.config.data.clone(),
            held_bytes: running().map(|r| r.bytes_held).sum(),
            quota_bytes: Some(inner.quota_bytes.load(Ordering::Relaxed)).filter(|q| *q != u64::MAX),
            free_bytes,
            contents: state.contents.len(),
            connections: state.links.len(),
            stopping: state.leaving,
        }
    }

    /// All contents, with their edges.
    pub fn content_details(&self) -> Vec<ContentDetail> {
        let state = self.0.lock();
        state.contents.values().map(|c| detail(&self.0, &state, c)).collect()
    }

    /// The contents whose id begins with `text`, or whose name is `text`; an `hw://` name counts by its id.
    pub fn find(&self, text: &str) -> Vec<ContentId> {
        let by_name = text.parse::<headwater_model::Name>().ok().map(|n| n.content());
        let state = self.0.lock();
        let found = |c: &&ContentState| match by_name {
            Some(id) => c.id == id,
            None => c.id.to_string().starts_with(text) || c.status(&state).name == text,
        };
        if text.is_empty() { Vec::new() } else { state.contents.values().filter(found).map(|c| c.id).collect() }
    }
}

fn meters(content: &ContentState) -> Option<&Meters> {
    match &content.phase {
        Phase::Running(r) => Some(&r.meters),
        Phase::Live(l) => Some(&l.meters),
        _ => None,
    }
}

fn running(content: &ContentState) -> Option<&Running> {
    match &content.phase {
        Phase::Running(r) => Some(r),
        _ => None,
    }
}

fn control(inner: &Inner, state: &State) -> ControlStatus {
    let connected = state.session.is_connected();
    let by_quic = state.control_quic.as_ref().and_then(headwater_transport::node_of);
    let control_ms = state.session.control_unix_ms(inner.now());
    ControlStatus {
        address: inner.config.control.clone(),
        node: inner.config.control_id.or(by_quic).map(|id| id.to_string()),
        connected,
        way: connected.then(|| if state.by_web { "websocket" } else { "quic" }.to_owned()),
        problem: state.control_problem.clone().filter(|_| !connected),
        clock_ahead_ms: control_ms.map(|c| local_unix_ms() as i64 - c as i64),
    }
}

fn reach(inner: &Inner, state: &State, local: Vec<SocketAddr>) -> ReachStatus {
    let found = state.found.as_ref();
    ReachStatus {
        observed: found.map(|f| f.observed).or(state.observed),
        accepts: found.map(|f| f.accepts),
        tested: found.is_some_and(|f| f.tested),
        why: found.map(|f| f.why.clone()).unwrap_or_default(),
        via: found.and_then(|f| f.via),
        asks_router: inner.config.port_mapping && !inner.config.dial_only,
        mapped_port: state.mapped_port.map(Into::into),
        mapping_problem: state.mapping_problem.clone(),
        local,
    }
}

fn detail(inner: &Inner, state: &State, content: &ContentState) -> ContentDetail {
    let status = inner.status(content, state);
    let (meters, classes, parents, children): (_, _, Vec<EdgeView>, Vec<EdgeView>) = match &content.phase {
        Phase::Running(r) => (&r.meters, &r.classes, r.swarm.parent_edges().collect(), r.swarm.child_edges().collect()),
        Phase::Live(l) => {
            (&l.meters, &l.classes, l.channel.parent_edges().collect(), l.channel.child_edges().collect())
        }
        _ => return ContentDetail { status, ..ContentDetail::default() },
    };
    let (received, sent) = (status.received_bytes() + status.wasted_bytes, status.uploaded_bytes);
    let parent = |e: &EdgeView| edge(state, e, classes.get(&e.node).copied(), meters.parent(&e.node), received);
    let child = |e: &EdgeView| edge(state, e, None, meters.child(&e.node), sent);
    ContentDetail {
        seconds: inner.now().since(meters.began).as_secs_f64(),
        down_bytes_per_s: meters.down(),
        up_bytes_per_s: meters.up(),
        parent_edges: fastest(parents.iter().map(parent).collect()),
        child_edges: fastest(children.iter().map(child).collect()),
        status,
    }
}

fn fastest(mut edges: Vec<EdgeStatus>) -> Vec<EdgeStatus> {
    edges.sort_by_key(|e| (e.spare, std::cmp::Reverse((e.bytes_per_s, e.bytes))));
    edges.truncate(MAX_SHOWN_EDGES);
    edges
}

fn edge(state: &State, e: &EdgeView, class: Option<SourceClass>, bytes_per_s: u64, of_bytes: u64) -> EdgeStatus {
    let stage = match e.stage {
        EdgeStage::Dialling => "dialling",
        EdgeStage::Opening => "opening",
        EdgeStage::Open => "open",
    };
    EdgeStatus {
        node: e.node.to_string(),
        class,
        address: address(state, &e.node),
        stage: stage.into(),
        spare: e.spare,
        bytes: e.bytes,
        bytes_per_s,
        share_percent: if of_bytes == 0 { 0.0 } else { 100.0 * e.bytes as f64 / of_bytes as f64 },
        waiting_pieces: e.waiting_pieces,
        rtt_ms: e.rtt.as_secs_f64() * 1000.0,
    }
}

fn address(state: &State, node: &NodeId) -> Option<SocketAddr> {
    state.links.get(node).map(|l| headwater_model::reach::canonical(l.connection.remote_address()))
}
