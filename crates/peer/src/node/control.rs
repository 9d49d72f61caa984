//! The session with the control center: `peer-core` says when to dial and when to beat, this does it.

use super::state::{self, Phase, State};
use super::{FetchError, Inner, live, local_unix_ms, messages, opening, pinned, web};
use crate::origin::{Access, Expected, OriginError, Wanted};
use bytes::Bytes;
use headwater_model::id::{ContentId, Version};
use headwater_model::merkle;
use headwater_model::report::{ContentReport, Heartbeat, Introduction};
use headwater_model::time::{Micros, Rate, Time};
use headwater_peer_core::live::LiveInput;
use headwater_peer_core::{Input, SessionOutput};
use headwater_transport::{Alpn, ControlReader, ControlWriter, Proved, Reader, Writer};
use headwater_wire::limits;
use headwater_wire::{FromControl, FromNode, Hello, StaticLog, Token};
use quinn::Connection;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use url::Url;

/// Messages waiting for the control center.
const MAX_WAITING: usize = 1024;
/// A handshake that takes longer has failed; a welcome likewise.
const DIAL_PATIENCE: Duration = Duration::from_secs(5);
/// The same in two dials, one after the other.
const DIAL_PATIENCES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(3)];
/// How long QUIC has the field to itself before a WebSocket is tried as well.
const QUIC_FIRST: Duration = Duration::from_secs(3);
/// Whoever has no session for so long looks for the static log, again and again.
const ALONE: Duration = Duration::from_secs(3);
/// When a WebSocket got through, QUIC is tried once more for so long, where it was not found out before that it does not.
const QUIC_ANEW: Duration = Duration::from_secs(1);
/// A server that gives nothing more of a log for so long has failed.
const LOG_IDLE: Duration = Duration::from_secs(5);
/// How often QUIC is tried again during a session over a WebSocket.
const QUIC_AGAIN_EVERY: Duration = Duration::from_secs(60);
/// What the user is told of a session over a WebSocket.
pub(crate) const NO_UDP: &str =
    "UDP does not get through here: fetching over HTTPS from the origin and the operator's nodes only";

/// Runs for as long as the node does.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut quic = None;
    loop {
        let (action, until) = {
            let mut state = inner.lock();
            let now = inner.now();
            (state.session.poll(now), state.session.next_timeout(now))
        };
        if inner.lock().leaving {
            return;
        }
        if action == Some(SessionOutput::Dial) {
            let ended = tokio::select! {
                _ = inner.stopping.cancelled() => return,
                ended = session(&inner, quic.take()) => ended,
            };
            if let Ended::Moved(connection) = &ended {
                quic = Some(connection.clone());
            }
            lost(&inner, ended);
            continue;
        }
        tokio::select! {
            _ = inner.stopping.cancelled() => return,
            _ = inner.control_wake.notified() => {}
            _ = tokio::time::sleep_until(inner.at(until)) => {}
        }
    }
}

/// How a session ended.
enum Ended {
    /// It broke, or never was.
    Broken(String),
    /// The control center said so.
    Goodbye(String, bool),
    /// QUIC works now: the next session begins on this connection.
    Moved(Connection),
}

fn lost(inner: &Arc<Inner>, ended: Ended) {
    let mut state = inner.lock();
    let now = inner.now();
    let was = state.control.take().is_some();
    state.control_quic = None;
    if let Ended::Broken(why) | Ended::Goodbye(why, _) = &ended {
        // Told once, not with each dial in vain.
        if !was && !state.leaving && state.control_problem.as_ref() != Some(why) {
            tracing::warn!("no session with the control center {}: {why}; dialling on", inner.config.control);
        }
        state.control_problem = Some(why.clone());
    }
    state.session.lost(now);
    match ended {
        _ if state.leaving => {}
        Ended::Broken(why) if was => tracing::warn!("lost the control center: {why}; transfers go on, dialling again"),
        Ended::Broken(_) => {}
        Ended::Moved(_) => tracing::info!("QUIC gets through now: the session moves to it"),
        Ended::Goodbye(why, true) => tracing::info!("the control center ended the session: {why}"),
        Ended::Goodbye(why, false) => {
            tracing::error!("the control center ended the session for good: {why}");
            for content in state.contents.values_mut() {
                content.fail(FetchError::Goodbye(why.clone()));
            }
            state.session.wait(now, Micros::from_secs(60));
        }
    }
    state::happened_to_all(inner, &mut state, || Input::Control(false));
}

async fn session(inner: &Arc<Inner>, quic: Option<Connection>) -> Ended {
    let reached = match quic {
        Some(connection) => open_stream(connection).await,
        None => reach(inner).await,
    };
    let begun = match reached {
        Ok(reached) => tokio::time::timeout(DIAL_PATIENCE, greet(inner, reached)).await,
        Err(why) => return Ended::Broken(why),
    };
    let (connection, mut reader, out) = match begun {
        Ok(Ok(parts)) => parts,
        Ok(Err(why)) => return Ended::Broken(why),
        Err(_) => return Ended::Broken(format!("no welcome from {} within 5 s", inner.config.control)),
    };
    let by_web = connection.is_none();
    let better = async { if by_web { quic_again(inner).await } else { std::future::pending().await } };
    tokio::pin!(better);
    let ended = loop {
        let until = {
            let state = inner.lock();
            if state.control.is_none() {
                break Ended::Broken("it does not read what it is told".into());
            }
            state.session.next_timeout(inner.now())
        };
        tokio::select! {
            read = reader.next() => match read {
                Ok(Some(body)) => match FromControl::decode(body) {
                    Ok(FromControl::Goodbye { why, come_back }) => break Ended::Goodbye(why, come_back),
                    Ok(message) => messages::from_control(inner, &mut inner.lock(), message),
                    Err(e) => break Ended::Broken(format!("it sent what is no message: {e}")),
                },
                Ok(None) => break Ended::Broken("it closed the session".into()),
                Err(e) => break Ended::Broken(e.to_string()),
            },
            connection = &mut better => break Ended::Moved(connection),
            _ = tokio::time::sleep_until(inner.at(until)) => {
                let mut state = inner.lock();
                match state.session.poll(inner.now()) {
                    Some(SessionOutput::Heartbeat(interval)) => heartbeat(inner, &mut state, interval),
                    Some(SessionOutput::Redial) => break Ended::Broken("no reply to heartbeats".into()),
                    _ => {}
                }
            }
        }
    };
    drop(out);
    if let Some(connection) = connection {
        connection.close(0u32.into(), b"");
    }
    ended
}

/// With the connection where it is QUIC's.
type Session = (Option<Connection>, ControlReader, mpsc::Sender<Bytes>);
/// Both halves of a session before the hello; with the connection where it is QUIC's.
type Reached = (Option<Connection>, ControlReader, ControlWriter);

/// The control center, by QUIC; where that takes long also by a WebSocket: the first of them that is there.
async fn reach(inner: &Arc<Inner>) -> Result<Reached, String> {
    let sooner = tokio::sync::Notify::new();
    let quic = async {
        // A control center that comes back hears a new dial sooner than what is left of one to its former process.
        for patience in DIAL_PATIENCES {
            if let Ok(dialled) = tokio::time::timeout(patience, dial_quic(inner)).await {
                return dialled;
            }
        }
        Err(format!("no answer from {} within 5 s", inner.config.control))
    };
    if !inner.lock().session.web_is_due() {
        return open_stream(quic.await?).await;
    }
    let web = async {
        let first = if inner.lock().by_web { Duration::ZERO } else { QUIC_FIRST };
        let _ = tokio::time::timeout(first, sooner.notified()).await;
        web::dial(inner).await
    };
    tokio::pin!(quic, web);
    let (mut no_quic, mut no_web) = (None, None);
    loop {
        if let (Some(quic), Some(web)) = (&no_quic, &no_web) {
            return Err(format!("{quic}; by WebSocket: {web}"));
        }
        tokio::select! {
            dialled = &mut quic, if no_quic.is_none() => match dialled {
                Ok(connection) => return open_stream(connection).await,
                Err(why) => {
                    no_quic = Some(why);
                    sooner.notify_one();
                }
            },
            dialled = &mut web, if no_web.is_none() => match dialled {
                Ok(Proved { reader, writer, .. }) => {
                    // A control center that is just back hears of the dial under way only after a pause.
                    let is_known = inner.lock().by_web;
                    let anew = async { if is_known { None } else { dial_quic(inner).await.ok() } };
                    return match tokio::time::timeout(QUIC_ANEW, anew).await {
                        Ok(Some(connection)) => open_stream(connection).await,
                        Ok(None) | Err(_) => Ok((None, reader, writer)),
                    };
                }
                Err(why) => no_web = Some(why),
            },
        }
    }
}

pub(super) async fn dial_quic(inner: &Arc<Inner>) -> Result<Connection, String> {
    let config = &inner.config;
    let addresses = tokio::net::lookup_host(&config.control)
        .await
        .map_err(|e| format!("cannot look up {}: {e}", config.control))?;
    let mut problem = format!("{} has no address", config.control);
    for address in addresses.take(4) {
        match inner.listener.dial(address, config.control_id, Alpn::Control).await {
            Ok(connection) => return Ok(connection),
            Err(e) => problem = e.to_string(),
        }
    }
    Err(problem)
}

/// Tries QUIC now and then, until it works.
async fn quic_again(inner: &Arc<Inner>) -> Connection {
    loop {
        tokio::time::sleep(QUIC_AGAIN_EVERY).await;
        if let Ok(Ok(connection)) = tokio::time::timeout(DIAL_PATIENCE, dial_quic(inner)).await {
            return connection;
        }
    }
}

async fn open_stream(connection: Connection) -> Result<Reached, String> {
    let (send, receive) = connection.open_bi().await.map_err(|e| e.to_string())?;
    let reader = ControlReader::Quic(Reader::new(receive, limits::MAX_CONTROL_FRAME_BYTES));
    let writer = ControlWriter::Quic(Writer(send), connection.clone().into());
    Ok((Some(connection), reader, writer))
}

/// Says hello, is welcomed, and joins all contents.
async fn greet(inner: &Arc<Inner>, reached: Reached) -> Result<Session, String> {
    let (connection, mut reader, mut writer) = reached;
    let by_web = connection.is_none();
    let said_at = inner.now();
    let offered = inner.lock().limits.offered_up();
    writer.send(hello(inner, offered).encode()).await.map_err(|e| e.to_string())?;
    let body = reader.next().await.map_err(|e| e.to_string())?.ok_or("it closed the session at once")?;
    let welcome = match FromControl::decode(body).map_err(|e| e.to_string())? {
        FromControl::Welcome(w) => w,
        FromControl::Goodbye { why, .. } => return Err(why),
        _ => return Err("it did not begin with a welcome".into()),
    };
    let (out, mut queue) = mpsc::channel::<Bytes>(MAX_WAITING);
    tokio::spawn(async move {
        while let Some(frame) = queue.recv().await {
            if writer.send(frame).await.is_err() {
                return;
            }
        }
        let _ = writer.finish().await;
    });
    let mut state = inner.lock();
    let now = inner.now();
    state.session.welcomed(now, said_at, welcome.control_unix_ms, welcome.heartbeat_ms, welcome.backoff_cap_ms);
    if let Some(off) = state.session.skew_seconds(now, local_unix_ms()) {
        tracing::warn!(
            "this machine's clock is off by {off} s; Headwater uses the control center's, other programs may not"
        );
    }
    state.control_epoch_seen = state.control_epoch_seen.max(welcome.control_epoch);
    state.parent_keys = welcome.parent_keys;
    state.control = Some(out.clone());
    state.observed = welcome.observed_address;
    if state.mapped_port.is_some() {
        state.tell_mapped();
    }
    state.by_web = by_web;
    state.control_quic.clone_from(&connection);
    state.control_problem = None;
    state.session.is_by_quic(!by_web);
    if by_web {
        state.contents.values_mut().for_each(|c| c.note(NO_UDP.into()));
    }
    inner.session_began.notify_one();
    let offers = state.limits.offered_up();
    if offers != offered {
        // It changed while the hello was on its way.
        state.tell_control(&FromNode::UplinkOffer(offers));
    }
    for (join, claim) in state.joins() {
        opening::join_as(inner, &mut state, join, claim);
    }
    state::happened_to_all(inner, &mut state, || Input::Control(true));
    let way = if by_web { "a WebSocket, as QUIC does not get through" } else { "QUIC" };
    let seen = welcome.observed_address.map_or(String::new(), |a| format!("; it sees this node at {a}"));
    tracing::info!("session with the control center {} by {way}{seen}", inner.config.control);
    Ok((connection, reader, out))
}

fn hello(inner: &Inner, up: Rate) -> FromNode {
    FromNode::Hello(Hello {
        protocol: limits::PROTOCOL,
        introduction: Introduction {
            role: inner.config.role,
            capabilities: inner.capabilities(up),
            up,
            down: Rate(0),
            client: format!("headwater/{} {}", env!("CARGO_PKG_VERSION"), std::env::consts::OS),
            local_addresses: inner.local_addresses(),
            https_port: inner.https_port,
        },
        join_token: Token(inner.config.join_token.clone().unwrap_or_default()),
        control_epoch_seen: inner.lock().control_epoch_seen,
        local_unix_ms: local_unix_ms(),
        page_certificates: inner.page_certificates(),
    })
}

fn heartbeat(inner: &Inner, state: &mut State, interval: u64) {
    let now = inner.now();
    let links: Vec<_> = state.links.iter().map(|(n, l)| (*n, l.connection.stats().path)).collect();
    let mut contents = Vec::new();
    for content in state.contents.values_mut() {
        if let Phase::Running(r) = &mut content.phase {
            for (node, path) in &links {
                let rtt = Micros(path.rtt.as_micros() as u64);
                r.swarm.handle(now, Input::Rtt(*node, rtt), &mut Vec::new());
                let packets = Input::Packets(*node, path.sent_packets, path.lost_packets);
                r.swarm.handle(now, packets, &mut Vec::new());
            }
            contents.push(r.swarm.report(now, false));
        }
        if let Phase::Live(l) = &mut content.phase {
            for (node, path) in &links {
                let rtt = Micros(path.rtt.as_micros() as u64);
                l.channel.handle(now, LiveInput::Rtt(*node, rtt), &mut Vec::new());
                let packets = LiveInput::Packets(*node, path.sent_packets, path.lost_packets);
                l.channel.handle(now, packets, &mut Vec::new());
            }
            contents.push(l.channel.report(now));
        }
    }
    contents.truncate(limits::MAX_REPORTED_CONTENTS);
    send(inner, state, now, interval, contents);
}

/// Tells of one content between two heartbeats.
pub(crate) fn heartbeat_now(inner: &Inner, state: &mut State, version: Version) {
    let now = inner.now();
    let Some(report) = state.running(version).map(|r| r.swarm.report(now, true)) else { return };
    // Interval 0 is none: the report is compared with nobody's.
    send(inner, state, now, 0, vec![report]);
}

fn send(inner: &Inner, state: &mut State, now: Time, interval: u64, contents: Vec<ContentReport>) {
    let (up_used, down_used) = traffic(state, now);
    let heartbeat = Heartbeat {
        interval,
        up_used,
        down_used,
        cpu_load_milli: cpu_load_milli(),
        free_storage_bytes: fs4::available_space(&inner.config.data).unwrap_or(0),
        contents,
    };
    state.tell_control(&FromNode::Heartbeat(headwater_wire::Heartbeat::new(heartbeat, now.0)));
}

/// Rates up and down since the last heartbeat, over all contents.
fn traffic(state: &mut State, now: Time) -> (Rate, Rate) {
    let (mut up, mut down) = (0, 0);
    for content in state.contents.values() {
        if let Phase::Running(r) = &content.phase {
            up += r.uploaded_bytes;
            down += r.peer_bytes + r.waypoint_bytes + r.origin_bytes + r.wasted_bytes;
        }
        if let Phase::Live(l) = &content.phase {
            let s = l.channel.state();
            up += s.uploaded_bytes;
            down += s.peer_bytes + s.origin_bytes + s.wasted_bytes;
        }
    }
    let (at, up_before, down_before) = std::mem::replace(&mut state.told_traffic, (now, up, down));
    let rate = |bytes: u64, before| Rate::of(bytes.saturating_sub(before), now.since(at));
    (rate(up, up_before), rate(down, down_before))
}

/// Share of the processors in use, in thousandths; 0 where the system does not say.
fn cpu_load_milli() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|l| l.parse::<f64>().ok()).map_or(0, |l| (l / cores * 1000.0) as u32)
}

/// Idea 4: a client that reaches no control center still starts, verified, from the origin.
pub(crate) async fn static_log_if_alone(inner: Arc<Inner>, id: ContentId, url: String) {
    let mut said = None;
    loop {
        tokio::select! {
            _ = inner.stopping.cancelled() => return,
            _ = tokio::time::sleep(ALONE) => {}
        }
        let name = {
            let state = inner.lock();
            match state.contents.get(&id) {
                Some(c) if matches!(c.phase, Phase::Asking) && state.session.is_connected() => continue,
                Some(c) if matches!(c.phase, Phase::Asking) => c.name.clone(),
                _ => return,
            }
        };
        let fetched = fetch_static_log(&inner, &url).await;
        let read = fetched.and_then(|bytes| StaticLog::decode(&bytes).map_err(|e| e.to_string())).and_then(|log| {
            let wanted = name.as_ref().map_or(log.log.name.clone(), |n| n.name.clone());
            log.verify(&wanted, pinned(&name).as_ref()).map_err(|e| e.to_string()).map(|_| log)
        });
        match read {
            Ok(log) => {
                if let Some(c) = inner.lock().contents.get_mut(&id) {
                    c.note("no control center answers: starting from the static log and the origin".into());
                }
                opening::open(&inner, id, log.log, Access::default(), merkle::cut_pages(&log.leaves, &log.sums));
                live::logged(&inner, id, log.entries);
                return;
            }
            Err(why) if said.as_ref() != Some(&why) => {
                if let Some(c) = inner.lock().contents.get_mut(&id).filter(|c| matches!(c.phase, Phase::Asking)) {
                    c.note(format!("no control center answers, and its static log does not help: {why}"));
                }
                said = Some(why);
            }
            Err(_) => {}
        }
    }
}

async fn fetch_static_log(inner: &Inner, url: &str) -> Result<Vec<u8>, String> {
    let at = Url::parse(url).map_err(|e| format!("the log's URL: {e}"))?;
    let access = Access::default();
    let info = match inner.origin.probe(&at, &access).await {
        Ok(info) => info,
        Err(OriginError::NoRanges { .. } | OriginError::Changed { .. }) => return fetch_log_now(inner, url).await,
        Err(e) => return Err(e.to_string()),
    };
    if info.length > limits::MAX_STATIC_LOG_BYTES as u64 {
        return Err(format!("a static log of {} bytes is over the limit", info.length));
    }
    let mut bytes = Vec::with_capacity(info.length as usize);
    let expected = Expected { length: info.length, validator: info.validator };
    let into = |_, chunk: bytes::Bytes| bytes.extend_from_slice(&chunk);
    match inner.origin.fetch_all(&at, &access, 0..info.length, &expected, into).await {
        Ok(_) => Ok(bytes),
        // That of a live stream is another one all the time, and comes as a whole.
        Err(OriginError::Changed { .. }) => fetch_log_now(inner, url).await,
        Err(e) => Err(e.to_string()),
    }
}

/// All that a server gives now.
pub(crate) async fn fetch_log_now(inner: &Inner, url: &str) -> Result<Vec<u8>, String> {
    let url = Url::parse(url).map_err(|e| format!("the log's URL: {e}"))?;
    let opened = inner.origin.open(&url, &Access::default(), Wanted::default(), LOG_IDLE).await;
    let mut body = opened.map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next_chunk().await.map_err(|e| e.to_string())? {
        if bytes.len() + chunk.len() > limits::MAX_STATIC_LOG_BYTES {
            return Err(format!("a static log of more than {} bytes", limits::MAX_STATIC_LOG_BYTES));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
