//! The publisher's and the operator's side: nginx as origin, the control center, what is published, tokens.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use headwater_model::Rng;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::Api;
use crate::net::Net;
use crate::process::{Heard, Process, Said, Who, output_of};

/// The origin's place among the hosts of the [`Net`].
pub const ORIGIN: usize = 0;
/// The control center's place among the hosts of the [`Net`].
pub const CONTROL: usize = 1;
/// Where the scenario's first host stands among the hosts of the [`Net`].
pub const FIRST: usize = 2;

/// The control center's port, UDP and TCP, and the waypoints' for HTTPS: it passes where little else does.
pub const HTTPS_PORT: u16 = 443;
/// How long a server may take from its start to its first word.
const READY_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// Name of the published file.
const FILE: &str = "content.bin";
const DAYS_OF_A_TOKEN: u32 = 1;

/// The running site.
pub struct Site {
    folder: PathBuf,
    program: PathBuf,
    origin: Process,
    control: Option<Process>,
    control_lives: u64,
    heard: Sender<Heard>,
    /// Where the control center is.
    pub control_address: SocketAddr,
    /// Its node id.
    pub control_id: String,
    /// The administrator's token.
    pub token: String,
    /// The content's `hw://` name.
    pub hw: String,
    /// The content's id.
    pub content: String,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
    /// The origin's log up to here is of publishing.
    log_skipped: usize,
}

/// What the origin's log says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OriginLog {
    /// Bytes of bodies.
    pub body_bytes: u64,
    /// Requests.
    pub requests: u64,
}

impl Site {
    /// Starts origin and control center and publishes a content of `content_bytes` made from `seed`. `programs` is the
    /// folder of Headwater's binaries, `folder` an empty one for all files.
    ///
    /// # Errors
    /// If a part does not start, or publishing fails.
    pub fn start(
        net: &Net,
        programs: &Path,
        folder: &Path,
        (content_bytes, piece_bytes): (u64, u32),
        (seed, isps): (u64, &[u16]),
        (heard, hear): (&Sender<Heard>, &Receiver<Heard>),
    ) -> Result<Site> {
        for name in ["www", "logs", "nginx"] {
            std::fs::create_dir(folder.join(name))?;
        }
        let sha256 = make_content(&folder.join("www").join(FILE), content_bytes, seed)?;
        let origin_address = net.inner_address(ORIGIN);
        let origin = start_origin(net, folder, origin_address)?;
        std::fs::write(folder.join("places"), places(net, isps))?;
        let mut site = Site {
            folder: folder.to_owned(),
            program: programs.join("headwater"),
            origin,
            control: None,
            control_lives: 0,
            heard: heard.clone(),
            control_address: SocketAddr::new(net.inner_address(CONTROL), HTTPS_PORT),
            control_id: String::new(),
            token: String::new(),
            hw: String::new(),
            content: String::new(),
            sha256,
            log_skipped: 0,
        };
        site.start_control(net)?;
        let told = site.await_control(hear)?;
        let text = |key: &str| told[key].as_str().map(str::to_owned).with_context(|| format!("it tells no {key}"));
        (site.control_id, site.token) = (text("node")?, text("admin_token")?);
        await_port(net, ORIGIN, SocketAddr::new(origin_address, 80)).context("nginx does not listen")?;
        site.publish(net, origin_address, piece_bytes)?;
        site.log_skipped = std::fs::read(site.access_log()).map_or(0, |log| log.len());
        Ok(site)
    }

    /// A folder for the host of that name.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn folder_of(&self, host: &str) -> Result<PathBuf> {
        let folder = self.folder.join("hosts").join(host);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Where what a process says on standard error is kept.
    pub fn log_of(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(name)
    }

    fn access_log(&self) -> PathBuf {
        self.folder.join("nginx").join("access.log")
    }

    /// Starts the control center, again at its address and with its identity.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn start_control(&mut self, net: &Net) -> Result<()> {
        let address = self.control_address.to_string();
        let mut command = net.command(CONTROL, &self.program);
        command.args(["control", "--listen", &address, "--public", &address, "--json", "--exit-with-stdin"]);
        command.arg("--data").arg(self.folder.join("control")).arg("--places").arg(self.folder.join("places"));
        self.control_lives += 1;
        let log = self.log_of("control");
        let process = Process::start(command, Who::Control, self.control_lives, &log, &self.heard);
        self.control = Some(process.context("control center")?);
        Ok(())
    }

    /// SIGKILLs the control center; with `lose_state` only its identity is left.
    ///
    /// # Errors
    /// If its state cannot be removed.
    pub fn kill_control(&mut self, lose_state: bool) -> Result<()> {
        self.control = None;
        if lose_state {
            std::fs::remove_dir_all(self.folder.join("control").join("state"))?;
        }
        Ok(())
    }

    /// The control center's process, unless it is killed.
    pub fn control(&self) -> Option<&Process> {
        self.control.as_ref()
    }

    fn await_control(&mut self, hear: &Receiver<Heard>) -> Result<Value> {
        let deadline = Instant::now() + READY_WITHIN;
        let failed = |site: &Site| site.control.as_ref().map_or(String::new(), Process::last_words);
        loop {
            match hear.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Heard { who: Who::Control, said: Said::Line(told), .. }) if told["node"].is_string() => {
                    return Ok(told);
                }
                Ok(Heard { who: Who::Control, said: Said::Ended, .. }) => {
                    bail!("the control center ended at once; {}", failed(self))
                }
                Ok(_) => {}
                Err(_) => bail!("the control center was not ready in time; {}", failed(self)),
            }
        }
    }

    fn publish(&mut self, net: &Net, origin: IpAddr, piece_bytes: u32) -> Result<()> {
        let key = self.folder.join("publisher.key");
        let mut command = Command::new(&self.program);
        output_of({
            command.args(["key", "new", "--out"]).arg(&key);
            command
        })?;
        let mut command = net.command(CONTROL, &self.program);
        command.arg("publish").arg(self.folder.join("www").join(FILE)).arg("--key").arg(&key);
        command.args(["--name", "lab/content", "--piece-size", &piece_bytes.to_string(), "--json"]);
        command.args(["--origin", &format!("http://{}/{FILE}", SocketAddr::new(origin, 80))]);
        command.args(["--control", &format!("https://{}", self.control_address), "--cc", &self.control_id]);
        command.args(["--token", &self.token]);
        let told: Value = serde_json::from_str(&output_of(command)?).context("publish printed no JSON")?;
        let text = |key: &str| told[key].as_str().map(str::to_owned).with_context(|| format!("publish tells no {key}"));
        (self.hw, self.content) = (text("hw")?, text("content")?);
        Ok(())
    }

    /// A join token for a waypoint.
    ///
    /// # Errors
    /// If the control center makes none.
    pub fn join_token(&self, net: &Net) -> Result<String> {
        let ask = json!({"role": "join", "days": DAYS_OF_A_TOKEN});
        let told = net.within(CONTROL, || Api::new(self.control_address, &self.token)?.post("/v1/tokens", &ask))??;
        told["token"].as_str().map(str::to_owned).context("the API gives no token")
    }

    /// Payload of what is below `path` that the origin sent to others than `except` after a time in Unix seconds.
    ///
    /// # Errors
    /// If its log cannot be read.
    pub fn origin_bytes_to_others(&self, except: IpAddr, path: &str, after_unix_s: f64) -> Result<u64> {
        let log = std::fs::read_to_string(self.access_log()).context("the origin's log")?;
        let mut sum = 0;
        for line in log.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let &[body, _, _, at, to, uri] = fields.as_slice() else { bail!("the origin's log has the line {line:?}") };
            let is_later = at.parse::<f64>().is_ok_and(|at| at >= after_unix_s);
            if is_later && uri.starts_with(path) && to.parse() != Ok(except) {
                sum += body.parse::<u64>().unwrap_or(0);
            }
        }
        Ok(sum)
    }

    /// Stops the origin; what it sent since publishing.
    ///
    /// # Errors
    /// If its log cannot be read.
    pub fn stop_origin(&mut self) -> Result<OriginLog> {
        self.origin.terminate();
        self.origin.wait_until(Instant::now() + READY_WITHIN);
        let log = std::fs::read(self.access_log()).context("the origin's log")?;
        read_log(&String::from_utf8_lossy(&log[self.log_skipped.min(log.len())..]))
    }

    /// Lets the origin answer nothing, with open connections; or go on.
    pub fn freeze_origin(&mut self, frozen: bool) {
        if frozen { self.origin.stop() } else { self.origin.resume() }
    }

    /// Lets the control center say goodbye.
    pub fn stop_control(&mut self) {
        if let Some(control) = &mut self.control {
            control.leave();
            control.wait_until(Instant::now() + READY_WITHIN);
        }
    }

    /// Whether the origin still runs.
    pub fn origin_runs(&mut self) -> bool {
        self.origin.ended().is_none()
    }
}

fn start_origin(net: &Net, folder: &Path, address: IpAddr) -> Result<Process> {
    let nginx = which("nginx", "nginx")?;
    let own = folder.join("nginx");
    let config = own.join("nginx.conf");
    std::fs::write(&config, nginx_config(&own, &folder.join("www"), SocketAddr::new(address, 80)))?;
    let mut command = net.command(ORIGIN, &nginx);
    command.arg("-p").arg(&own).arg("-c").arg(&config).arg("-e").arg(own.join("error.log"));
    Process::server(command, &folder.join("logs").join("nginx")).context("nginx")
}

/// One process, so that nothing of it outlives the lab; its log tells bytes only.
fn nginx_config(own: &Path, www: &Path, address: SocketAddr) -> String {
    let (own, www) = (own.display(), www.display());
    format!(
        "daemon off;\nmaster_process off;\npid {own}/pid;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
           log_format bytes '$body_bytes_sent $bytes_sent $status $msec $remote_addr $uri';\n\
           access_log {own}/access.log bytes;\n\
           default_type application/octet-stream;\n\
           sendfile on;\n  tcp_nopush on;\n  keepalive_timeout 60s;\n  keepalive_requests 1000000;\n\
           client_body_temp_path {own}/body;\n  proxy_temp_path {own}/proxy;\n  fastcgi_temp_path {own}/fastcgi;\n\
           uwsgi_temp_path {own}/uwsgi;\n  scgi_temp_path {own}/scgi;\n\
           server {{ listen {address}; root {www}; }}\n\
         }}\n"
    )
}

fn read_log(text: &str) -> Result<OriginLog> {
    let mut sum = OriginLog::default();
    for line in text.lines() {
        let bytes = line.split(' ').next().and_then(|bytes| bytes.parse::<u64>().ok());
        sum.body_bytes += bytes.with_context(|| format!("the origin's log has the line {line:?}"))?;
        sum.requests += 1;
    }
    Ok(sum)
}

/// The operator's table: which ISP, AS and country an address is in.
fn places(net: &Net, isps: &[u16]) -> String {
    isps.iter().fold(String::new(), |mut table, isp| {
        // Writing to a string does not fail.
        let _ = writeln!(table, "{},{},isp-{isp},C{isp}", net.prefix_of_isp(*isp), as_number(*isp));
        table
    })
}

/// The AS number of an ISP: of those that are for documentation (RFC 5398).
pub fn as_number(isp: u16) -> u32 {
    64_496 + u32::from(isp)
}

/// Writes arbitrary bytes; their SHA-256.
fn make_content(path: &Path, bytes: u64, seed: u64) -> Result<[u8; 32]> {
    let mut random = Rng::new(seed, "content");
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut hash = Sha256::new();
    let mut left = bytes;
    let mut chunk = Vec::with_capacity(1 << 16);
    while left > 0 {
        chunk.clear();
        while chunk.len() < 1 << 16 {
            chunk.extend_from_slice(&random.next_u64().to_le_bytes());
        }
        chunk.truncate(left.min(1 << 16) as usize);
        hash.update(&chunk);
        file.write_all(&chunk)?;
        left -= chunk.len() as u64;
    }
    file.flush()?;
    Ok(hash.finalize().into())
}

/// Waits until somebody listens at `address`, asked from inside `host`.
///
/// # Errors
/// If nobody does for long.
pub fn await_port(net: &Net, host: usize, address: SocketAddr) -> Result<()> {
    net.within(host, || {
        let deadline = Instant::now() + READY_WITHIN;
        while let Err(error) = std::net::TcpStream::connect(address) {
            anyhow::ensure!(Instant::now() < deadline, "{address}: {error}");
            std::thread::sleep(POLL);
        }
        Ok(())
    })?
}

/// Where a program is.
///
/// # Errors
/// If it is nowhere; the error names its Debian package.
pub fn which(program: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    let mut folders = std::env::split_paths(&path).chain(usual);
    let found = folders.find_map(|folder| Some(folder.join(program)).filter(|path| path.is_file()));
    found.with_context(|| format!("{program} is not installed: apt-get install {package}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_summed_up() {
        let log = "1048576 1048900 206 1.5 20.1.3.1 /a\n10 350 206 1.6 20.2.3.1 /b\n";
        assert_eq!(read_log(log).unwrap(), OriginLog { body_bytes: 1_048_586, requests: 2 });
        assert!(read_log("what\n").is_err());
    }

    #[test]
    fn the_content_is_the_seeds() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, bytes, seed| {
            let path = folder.path().join(name);
            let told = make_content(&path, bytes, seed).unwrap();
            let is = std::fs::read(path).unwrap();
            assert_eq!((is.len() as u64, told), (bytes, Sha256::digest(&is).into()));
            told
        };
        assert_eq!(make("a", 100_001, 7), make("b", 100_001, 7));
        assert_ne!(make("c", 100_001, 8), make("d", 100_001, 7));
    }
}
