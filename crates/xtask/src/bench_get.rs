//! `cargo xtask bench-get`: a file from one waypoint with `get`, beside the same file from nginx with TLS with curl, as
//! bytes per CPU-second of both ends. The two sides alternate, so that a machine whose speed drifts does them alike.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::shell::{build_headwater, find_program};

/// CPU seconds of the sending and the receiving process.
#[derive(Clone, Copy)]
struct Cost {
    sender: f64,
    receiver: f64,
}

impl Cost {
    fn both(self) -> f64 {
        self.sender + self.receiver
    }
}

/// A process that ends when this value does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Politely first: a killed nginx leaves its worker behind.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let deadline = Instant::now() + Duration::from_secs(3);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `runs` pairs with a file of `mib` MiB and prints the medians.
pub fn run(runs: usize, mib: u64) -> Result<String> {
    let headwater = build_headwater()?;
    let nginx = find_program("nginx").context("nginx is not installed (`apt-get install nginx`)")?;
    for tool in ["curl", "openssl"] {
        find_program(tool).with_context(|| format!("{tool} is not installed"))?;
    }
    let folder = std::env::temp_dir().join(format!("headwater-bench-{}", std::process::id()));
    fs::create_dir_all(folder.join("origin"))?;
    let result = measure(&headwater, &nginx, &folder, runs, mib);
    let _ = fs::remove_dir_all(&folder);
    result
}

fn measure(headwater: &Path, nginx: &Path, folder: &Path, runs: usize, mib: u64) -> Result<String> {
    let file = folder.join("origin/file");
    write_file(&file, mib)?;
    let (_nginx, nginx_port) = start_nginx(nginx, folder)?;
    let worker = worker_of(_nginx.0.id())?;
    let site = Site::start(headwater, folder)?;
    println!("waypoint holds {mib} MiB; {runs} pairs of runs");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let target = folder.join("got");
    for run in 0..=runs {
        let begun = cpu_of(site.waypoint.0.id())?;
        let command = format!("'{}' get '{}' -o '{}' --json", headwater.display(), site.name, target.display());
        let receiver = timed(&command, folder)?;
        let got = Cost { sender: cpu_of(site.waypoint.0.id())? - begun, receiver };
        ensure!(fs::metadata(&target)?.len() == mib << 20, "get fetched a file of another length");
        fs::remove_file(&target)?;
        let begun = cpu_of(worker)?;
        let command = format!(
            "curl --silent --show-error --insecure --output '{}' https://127.0.0.1:{nginx_port}/file",
            target.display()
        );
        let receiver = timed(&command, folder)?;
        let curl = Cost { sender: cpu_of(worker)? - begun, receiver };
        ensure!(fs::metadata(&target)?.len() == mib << 20, "curl fetched a file of another length");
        fs::remove_file(&target)?;
        // The first pair warms caches up.
        if run > 0 {
            println!(
                "  {run}: headwater {:.2} + {:.2} s CPU, nginx + curl {:.2} + {:.2} s",
                got.sender, got.receiver, curl.sender, curl.receiver
            );
            ours.push(got);
            theirs.push(curl);
        }
    }
    let speed = |c: &[Cost], of: fn(&Cost) -> f64| {
        let mut all: Vec<f64> = c.iter().map(|c| (mib << 20) as f64 / 1e6 / of(c).max(0.01)).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let both: fn(&Cost) -> f64 = |c| c.both();
    let sender: fn(&Cost) -> f64 = |c| c.sender;
    let (a, b) = (speed(&ours, both), speed(&theirs, both));
    let (c, d) = (speed(&ours, sender), speed(&theirs, sender));
    Ok(format!(
        "MB per CPU-second, both ends: headwater {a:.0}, nginx + curl {b:.0}, ratio {:.2}\n\
         MB per CPU-second, sender alone: waypoint {c:.0}, nginx {d:.0}, ratio {:.2}",
        a / b,
        c / d
    ))
}

/// A control center, an origin, and a waypoint that has fetched the file.
struct Site {
    _control: Running,
    _origin: Running,
    waypoint: Running,
    name: String,
}

impl Site {
    fn start(headwater: &Path, folder: &Path) -> Result<Site> {
        let start = |arguments: &[&str]| -> Result<(Running, Value, BufReader<std::process::ChildStdout>)> {
            let mut child = Command::new(headwater)
                .args(arguments)
                .args(["--json", "--exit-with-stdin"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()?;
            let mut lines = BufReader::new(child.stdout.take().context("no standard output")?);
            let mut first = String::new();
            lines.read_line(&mut first)?;
            let first = serde_json::from_str(&first).with_context(|| format!("{arguments:?} said {first:?}"))?;
            Ok((Running(child), first, lines))
        };
        let text =
            |v: &Value, key: &str| v[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {v}"));
        let path = |name: &str| folder.join(name).display().to_string();
        let (control, said, control_out) =
            start(&["control", "--listen", "127.0.0.1:0", "--state", &path("state"), "--identity", &path("identity")])?;
        let (address, api, node, token) =
            (text(&said, "address")?, text(&said, "api")?, text(&said, "node")?, text(&said, "admin_token")?);
        let (origin, said, origin_out) = start(&["origin", &path("origin"), "--listen", "127.0.0.1:0"])?;
        let url = format!("{}/file", text(&said, "url")?.trim_end_matches('/'));
        let key = path("key");
        let status = Command::new(headwater).args(["key", "new", "--out", &key]).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "key new failed");
        let published = Command::new(headwater)
            .args(["publish", &path("origin/file"), "--origin", &url, "--name", "bench", "--control", &api])
            .args(["--token", &token, "--key", &key, "--json"])
            .output()?;
        ensure!(published.status.success(), "publish failed: {}", String::from_utf8_lossy(&published.stderr));
        let name = text(&serde_json::from_slice(&published.stdout)?, "hw")?;
        let (waypoint, _, mut lines) = start(&[
            "peer",
            "--waypoint",
            "--control",
            &address,
            "--cc",
            &node,
            "--data",
            &path("waypoint"),
            "--listen",
            "127.0.0.1:0",
        ])?;
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let mut line = String::new();
            ensure!(lines.read_line(&mut line)? > 0, "the waypoint ended");
            let status: Value = serde_json::from_str(&line)?;
            if status["contents"][0]["complete"] == true {
                break;
            }
            if Instant::now() > deadline {
                bail!("the waypoint did not fetch the file within 120 s: {line}");
            }
        }
        // What they go on saying is read, so that no pipe fills.
        for mut lines in [lines, control_out, origin_out] {
            std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        }
        Ok(Site { _control: control, _origin: origin, waypoint, name })
    }
}

fn write_file(path: &Path, mib: u64) -> Result<()> {
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    let mut state = 1u64;
    let mut block = vec![0u8; 1 << 20];
    for _ in 0..mib {
        for word in block.chunks_exact_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&state.to_le_bytes());
        }
        std::io::Write::write_all(&mut file, &block)?;
    }
    Ok(())
}

fn start_nginx(nginx: &Path, folder: &Path) -> Result<(Running, u16)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let root = folder.display();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=bench",
        ])
        .arg("-keyout")
        .arg(folder.join("tls.key"))
        .arg("-out")
        .arg(folder.join("tls.crt"))
        .output()?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    let configuration = format!(
        "daemon off; worker_processes 1; pid {root}/nginx.pid; error_log {root}/nginx.log;\n\
         events {{}}\nhttp {{ access_log off; sendfile on; tcp_nopush on;\n\
         client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n\
         server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {root}/tls.crt; ssl_certificate_key {root}/tls.key; root {root}/origin; }} }}\n"
    );
    fs::write(folder.join("nginx.conf"), configuration)?;
    // The worker runs as another user where nginx is started by root; it must be able to read the folder.
    Command::new("chmod").args(["-R", "a+rX"]).arg(folder).status()?;
    let configured = folder.join("nginx.conf");
    let user = if running_as_root()? { "user root;" } else { "" };
    let child = Command::new(nginx)
        .arg("-c")
        .arg(configured)
        .args(["-g", user])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let child = Running(child);
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(Instant::now() < deadline, "nginx does not listen: {}", fs::read_to_string(folder.join("nginx.log"))?);
        std::thread::yield_now();
    }
    Ok((child, port))
}

fn running_as_root() -> Result<bool> {
    let out = Command::new("id").arg("-u").output()?;
    Ok(String::from_utf8_lossy(&out.stdout).trim() == "0")
}

/// The one worker process of nginx, which the master starts after it listens.
fn worker_of(master: u32) -> Result<u32> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            if stat(pid).is_ok_and(|s| s.get(1) == Some(&master.to_string())) {
                return Ok(pid);
            }
        }
    }
    bail!("nginx has no worker")
}

/// The fields of /proc/PID/stat after the command's name: state, parent …
fn stat(pid: u32) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = text.rsplit(')').next().unwrap_or_default();
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

/// CPU seconds, user and system, that a process has used. The kernel counts in hundredths.
fn cpu_of(pid: u32) -> Result<f64> {
    let stat = stat(pid)?;
    let ticks = |i: usize| stat.get(i).and_then(|s| s.parse::<f64>().ok()).context("no CPU time");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// Runs a shell command; CPU seconds of what it started.
fn timed(command: &str, folder: &Path) -> Result<f64> {
    let script = format!("{{ {command}; }} >'{0}/out' 2>'{0}/err'; code=$?; times; exit $code", folder.display());
    let out = Command::new("bash").args(["-c", &script]).output()?;
    ensure!(out.status.success(), "{command}: {}", fs::read_to_string(folder.join("err"))?);
    let text = String::from_utf8_lossy(&out.stdout);
    let line = text.lines().nth(1).context("no times")?;
    line.split_whitespace().map(minutes_and_seconds).sum()
}

/// `0m1.234s` in seconds.
fn minutes_and_seconds(text: &str) -> Result<f64> {
    let (minutes, seconds) = text.trim_end_matches('s').split_once('m').context("not a time")?;
    Ok(minutes.parse::<f64>()? * 60.0 + seconds.parse::<f64>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_shell_are_read() {
        assert!((minutes_and_seconds("1m2.500s").unwrap() - 62.5).abs() < 1e-9);
        assert!(cpu_of(std::process::id()).unwrap() >= 0.0);
    }
}
