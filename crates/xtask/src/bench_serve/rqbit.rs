//! rqbit that seeds, and leechers that throw away what they get.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow};

use super::Server;
use super::bittorrent::{self, InfoHash};
use super::process::Running;

pub struct Rqbit {
    process: Running,
    address: SocketAddr,
    torrent: InfoHash,
    mib: u64,
}

impl Rqbit {
    /// Seeds `folder`/origin/file.
    pub fn start(program: &Path, folder: &Path, mib: u64) -> Result<Rqbit> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut child = Command::new(program)
            .args([
                "--disable-dht",
                "--disable-lsd",
                "--disable-trackers",
                "--disable-upnp-port-forward",
                "--ipv4-only",
            ])
            .args(["--listen-ip", "127.0.0.1", "--listen-port", &port.to_string(), "--peer-limit", "10000"])
            .args(["--http-api-listen-addr", "127.0.0.1:0", "share"])
            .arg(folder.join("origin/file"))
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.join("rqbit.err"))?)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let process = Running(child);
        let torrent = loop {
            let line = lines.next().with_context(|| {
                format!("rqbit ended: {}", fs::read_to_string(folder.join("rqbit.err")).unwrap_or_default())
            })??;
            if let Some(found) = bittorrent::info_hash(&line) {
                break found;
            }
        };
        // What it goes on saying is read, so that no pipe fills.
        thread::spawn(move || lines.for_each(drop));
        Ok(Rqbit { process, address: SocketAddr::from(([127, 0, 0, 1], port)), torrent, mib })
    }
}

impl Server for Rqbit {
    fn pid(&self) -> u32 {
        self.process.pid()
    }
    fn feed(&self, children: usize, _: &Path) -> Result<()> {
        let (address, torrent, bytes) = (self.address, self.torrent, self.mib << 20);
        let leechers: Vec<_> = (0..children)
            .map(|n| thread::spawn(move || bittorrent::leech(address, torrent, bytes, n as u64)))
            .collect();
        leechers.into_iter().try_for_each(|l| l.join().map_err(|_| anyhow!("a leecher failed"))?)
    }
}
