//! What a node finds out about its own circumstances when its user asks: the ways to the control center, origins, the
//! disk, what the system grants.

use super::{Inner, Node, control, web};
use crate::node::state::Phase;
use crate::origin::Access;
use crate::publish::object_url;
use headwater_transport::SOCKET_BUFFER_BYTES;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::Url;

/// A way to the control center, or an origin, that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(8);
/// Contents whose origins are tried; of each the first origin.
const MAX_ORIGINS: usize = 8;
/// Connections whose paths are told.
const MAX_PATHS: usize = 64;
/// What is written to try the disk.
const DISK_TEST_BYTES: usize = 4 << 20;
/// Variables that name proxies.
const PROXY_VARIABLES: [&str; 5] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY"];

/// What was found out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelfTest {
    /// The control center, by QUIC.
    pub quic: Tried,
    /// The control center, by a WebSocket on TCP.
    pub websocket: Tried,
    /// Proxies in force, without credentials: where they are named, and which.
    pub proxies: Vec<(String, String)>,
    /// Whether this machine has a global IPv6 address.
    pub ipv6: bool,
    /// The first origin of each of some contents.
    pub origins: Vec<OriginTest>,
    /// Paths of connections: the control center's first.
    pub paths: Vec<PathTest>,
    /// The data folder's disk.
    pub disk: DiskTest,
    /// What the system grants.
    pub system: SystemTest,
}

/// How a try came out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tried {
    /// Whether it works.
    pub works: bool,
    /// How long it took.
    pub ms: f64,
    /// Why it does not work.
    pub why: String,
}

/// An origin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OriginTest {
    /// The content's name.
    pub content: String,
    /// Host and port.
    pub host: String,
    /// Whether it answers.
    pub tried: Tried,
    /// Whether it sends parts of a file.
    pub ranges: bool,
}

/// A connection's path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathTest {
    /// With whom: `control center`, or a node's id.
    pub with: String,
    /// Largest datagram that gets through, as far as QUIC found out, bytes.
    pub mtu: u16,
    /// Times that datagrams of a size that got through no longer did.
    pub black_holes: u64,
    /// Packets sent, and those of them that were lost.
    pub sent_packets: u64,
    /// See `sent_packets`.
    pub lost_packets: u64,
    /// Round-trip time.
    pub rtt_ms: f64,
}

/// A folder's disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskTest {
    /// The folder.
    pub path: PathBuf,
    /// Room left, where the system says it.
    pub free_bytes: Option<u64>,
    /// Whether 4 MiB could be written and brought to the disk, and how long that took.
    pub write: Tried,
    /// So many bytes were written.
    pub written_bytes: u64,
}

/// What the system grants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SystemTest {
    /// Files and sockets that the process may have open; `None` where the system does not say.
    pub open_files: Option<u64>,
    /// Kernel buffers of the UDP socket: asked for.
    pub buffer_asked_bytes: usize,
    /// Granted for what comes in.
    pub receive_buffer_bytes: usize,
    /// Granted for what goes out.
    pub send_buffer_bytes: usize,
}

impl Tried {
    async fn at(work: impl Future<Output = Result<(), String>>) -> Tried {
        let begun = Instant::now();
        let done = tokio::time::timeout(PATIENCE, work).await;
        let done = done.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())));
        Tried { works: done.is_ok(), ms: begun.elapsed().as_secs_f64() * 1000.0, why: done.err().unwrap_or_default() }
    }
}

impl Node {
    /// Tries what it depends on; takes up to ten seconds.
    pub async fn self_test(&self) -> SelfTest {
        let inner = &self.0;
        let quic = Tried::at(async {
            let connection = control::dial_quic(inner).await?;
            connection.close(0u32.into(), b"only a test");
            Ok(())
        });
        // It is given up before anything is said in it.
        let websocket = Tried::at(async { web::dial(inner).await.map(drop) });
        let (quic, websocket, origins, disk) = tokio::join!(quic, websocket, origins(inner), disk(inner));
        let (receive, send) = inner.listener.buffer_bytes();
        SelfTest {
            quic,
            websocket,
            proxies: proxies(inner.config.proxy.as_ref()),
            ipv6: has_ipv6(),
            origins,
            paths: paths(inner),
            disk,
            system: SystemTest {
                open_files: open_files(),
                buffer_asked_bytes: SOCKET_BUFFER_BYTES,
                receive_buffer_bytes: receive,
                send_buffer_bytes: send,
            },
        }
    }
}

async fn origins(inner: &Arc<Inner>) -> Vec<OriginTest> {
    let wanted: Vec<(String, Url, Access)> = {
        let state = inner.lock();
        let first = |c: &super::state::ContentState| match &c.phase {
            Phase::Running(r) => {
                let origin = Url::parse(r.track.origins.first()?).ok()?;
                let file = r.track.objects.iter().find(|o| o.size_bytes > 0)?;
                let url = object_url(&origin, r.track.objects.len(), &file.path);
                Some((r.track.name.clone(), url, r.access.clone()))
            }
            _ => None,
        };
        state.contents.values().filter_map(first).take(MAX_ORIGINS).collect()
    };
    let mut tried = Vec::new();
    for (content, url, access) in wanted {
        let mut ranges = false;
        let probe = async {
            let info = inner.origin.probe(&url, &access).await.map_err(|e| e.to_string())?;
            ranges = info.ranges;
            Ok(())
        };
        let outcome = Tried::at(probe).await;
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        tried.push(OriginTest { content, host, tried: outcome, ranges });
    }
    tried
}

async fn disk(inner: &Inner) -> DiskTest {
    let path = inner.config.data.clone();
    let free_bytes = fs4::available_space(&path).ok();
    let folder = path.clone();
    let write = Tried::at(async move {
        let written = tokio::task::spawn_blocking(move || try_disk(&folder)).await;
        written.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    });
    DiskTest { path, free_bytes, write: write.await, written_bytes: DISK_TEST_BYTES as u64 }
}

fn try_disk(folder: &Path) -> std::io::Result<()> {
    let path = folder.join("disk-test.tmp");
    let done = std::fs::File::create(&path).and_then(|mut file| {
        file.write_all(&vec![0x5a; DISK_TEST_BYTES])?;
        file.sync_all()
    });
    let removed = std::fs::remove_file(&path);
    done.and(removed)
}

fn paths(inner: &Inner) -> Vec<PathTest> {
    let state = inner.lock();
    let control = state.control_quic.iter().map(|c| path("control center".into(), c));
    control.chain(state.links.iter().map(|(node, l)| path(node.to_string(), &l.connection))).take(MAX_PATHS).collect()
}

fn path(with: String, connection: &quinn::Connection) -> PathTest {
    let p = connection.stats().path;
    PathTest {
        with,
        mtu: p.current_mtu,
        black_holes: p.black_holes_detected,
        sent_packets: p.sent_packets,
        lost_packets: p.lost_packets,
        rtt_ms: p.rtt.as_secs_f64() * 1000.0,
    }
}

/// Without user names and passwords.
fn proxies(given: Option<&Url>) -> Vec<(String, String)> {
    let harmless = |text: &str| match Url::parse(text) {
        Ok(mut url) if url.has_host() => {
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.to_string()
        }
        _ => text.rsplit('@').next().unwrap_or_default().to_owned(),
    };
    let given = given.map(|url| ("--proxy".to_owned(), harmless(url.as_str())));
    let named = PROXY_VARIABLES.iter().filter_map(|v| Some(((*v).to_owned(), std::env::var(v).ok()?)));
    let named = named.filter(|(_, value)| !value.is_empty());
    given.into_iter().chain(named.map(|(variable, value)| (variable, harmless(&value)))).collect()
}

fn has_ipv6() -> bool {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    // 2000::/3 is what the Internet uses.
    interfaces.iter().any(|i| matches!(i.ip(), IpAddr::V6(a) if a.segments()[0] & 0xe000 == 0x2000))
}

#[cfg(unix)]
fn open_files() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(not(unix))]
fn open_files() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_shown_without_their_passwords() {
        let url = Url::parse("http://user:hush@proxy.example:3128").unwrap();
        let shown = proxies(Some(&url));
        assert_eq!(shown.first().unwrap(), &("--proxy".to_owned(), "http://proxy.example:3128/".to_owned()));
    }

    #[test]
    fn a_disk_is_tried_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        try_disk(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(try_disk(&folder.path().join("missing")).is_err());
    }
}
