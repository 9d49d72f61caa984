//! nginx with TLS, one worker, and `curl` as its clients.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Server;
use super::process::{Running, worker_of};

/// Connections that one `curl` makes at once at most.
const MOST_PER_CURL: usize = 250;

pub struct Nginx {
    _master: Running,
    worker: u32,
    port: u16,
    mib: u64,
}

impl Nginx {
    /// Serves `folder`/origin.
    pub fn start(program: &Path, folder: &Path, mib: u64) -> Result<Nginx> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        make_certificate(folder)?;
        let root = folder.display();
        // The cipher that the waypoint uses; OpenSSL would take AES-256 first, which costs more.
        let configuration = format!(
            "daemon off; worker_processes 1; pid {root}/nginx.pid; error_log {root}/nginx.log;\n\
             events {{ worker_connections 8192; }}\nhttp {{ access_log off; sendfile on; tcp_nopush on;\n\
             client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n\
             server {{ listen 127.0.0.1:{port} ssl backlog=4096; ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;\n\
             ssl_certificate {root}/tls.crt; ssl_certificate_key {root}/tls.key; root {root}/origin; }} }}\n"
        );
        let configured = folder.join("nginx.conf");
        fs::write(&configured, configuration)?;
        // The worker runs as another user where nginx is started by root; it must be able to read the folder.
        Command::new("chmod").args(["-R", "a+rX"]).arg(folder).status()?;
        let user = if running_as_root()? { "user root;" } else { "" };
        let (out, err) = (Stdio::null(), Stdio::null());
        let child =
            Command::new(program).arg("-c").arg(configured).args(["-g", user]).stdout(out).stderr(err).spawn()?;
        let master = Running(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = fs::read_to_string(folder.join("nginx.log")).unwrap_or_default();
            ensure!(Instant::now() < deadline, "nginx does not listen: {log}");
            std::thread::yield_now();
        }
        Ok(Nginx { worker: worker_of(master.pid())?, _master: master, port, mib })
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}/file", self.port)
    }
}

impl Server for Nginx {
    fn pid(&self) -> u32 {
        self.worker
    }
    fn feed(&self, children: usize, folder: &Path) -> Result<()> {
        let mut running = Vec::new();
        for first in (0..children).step_by(MOST_PER_CURL) {
            let last = children.min(first + MOST_PER_CURL) - 1;
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--insecure", "--http1.1", "--parallel", "--parallel-immediate"]);
            curl.args(["--parallel-max", &MOST_PER_CURL.to_string(), "--output", "/dev/null"]);
            // A line for each: how many bytes came.
            curl.args(["--write-out", "%{size_download} %{num_connects}\\n"]);
            curl.arg(format!("{}?[{first}-{last}]", self.url()));
            running.push(curl.stdout(Stdio::piped()).stderr(fs::File::create(folder.join("curl.err"))?).spawn()?);
        }
        let mut served = 0;
        for curl in running {
            let output = curl.wait_with_output()?;
            ensure!(output.status.success(), "curl: {}", fs::read_to_string(folder.join("curl.err"))?);
            let whole = format!("{} 1", self.mib << 20);
            served += String::from_utf8_lossy(&output.stdout).lines().filter(|line| *line == whole).count();
        }
        ensure!(served == children, "curl fetched {served} whole files over connections of their own, not {children}");
        Ok(())
    }
}

fn make_certificate(folder: &Path) -> Result<()> {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let made = Command::new("openssl")
        .args(["req", "-x509", "-days", "2", "-subj", "/CN=bench"])
        .args(key)
        .arg("-keyout")
        .arg(folder.join("tls.key"))
        .arg("-out")
        .arg(folder.join("tls.crt"))
        .output()
        .context("openssl")?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

fn running_as_root() -> Result<bool> {
    let out = Command::new("id").arg("-u").output()?;
    Ok(String::from_utf8_lossy(&out.stdout).trim() == "0")
}
