//! A publisher's site made of real processes of the real binary, on loopback.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Nothing here takes longer, also on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running process; its JSON lines come through a channel.
pub struct Process {
    pub name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    stderr: PathBuf,
}

impl Process {
    fn start(name: &str, folder: &Path, arguments: &[&str]) -> Process {
        Self::start_with(&[], name, folder, arguments)
    }

    fn start_with(environment: &[(&str, &str)], name: &str, folder: &Path, arguments: &[&str]) -> Process {
        let stderr = folder.join(format!("{name}.err"));
        let mut child = headwater()
            .args(["--log", "info"])
            .args(arguments)
            .args(["--json", "--exit-with-stdin"])
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::OpenOptions::new().create(true).append(true).open(&stderr).unwrap())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if send.send(serde_json::from_str(&line).unwrap_or(Value::String(line))).is_err() {
                    return;
                }
            }
        });
        Process { name: name.into(), stdin: child.stdin.take(), child, lines, stderr }
    }

    /// The first line that `wanted` accepts.
    pub fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut last = Value::Null;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if wanted(&line) => return line,
                Ok(line) => last = line,
                Err(e) => {
                    let why = if e == RecvTimeoutError::Timeout { "did not come in time" } else { "never came" };
                    panic!("{}: {what} {why}; last line {last}; standard error:\n{}", self.name, self.said());
                }
            }
        }
    }

    pub fn event(&self, event: &str) -> Value {
        self.until(event, |v| v["event"] == event)
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Memory that it holds; `None` where the system does not say.
    pub fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?.trim().trim_end_matches(" kB").parse::<u64>();
        Some(kib.ok()? << 10)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends its standard input, at which it stops.
    pub fn stop(&mut self) {
        self.stdin = None;
    }

    /// Waits for its end: the exit code.
    pub fn code(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{} does not end", self.name);
            std::thread::yield_now();
        }
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn headwater() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    for variable in ["HEADWATER_CONTROL", "HEADWATER_TOKEN", "HEADWATER_LOG"] {
        command.env_remove(variable);
    }
    command
}

/// Runs a command to its end.
pub fn run(arguments: &[&str]) -> Output {
    headwater().args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Whether `arguments` end with `code` and say `says`.
pub fn check(arguments: &[&str], code: i32, says: &str) {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(says), "{arguments:?} said {said:?}, not {says:?}");
}

/// A folder, a control center and an origin.
pub struct Site {
    pub folder: tempfile::TempDir,
    pub control: Process,
    pub origin: Process,
    pub control_address: String,
    pub api: String,
    pub control_id: String,
    pub token: String,
    pub origin_url: String,
}

impl Site {
    /// Starts one; the origin sends at `origin_up`.
    pub fn start(origin_up: &str) -> Site {
        Self::start_at(origin_up, "127.0.0.1:0")
    }

    /// As [`Site::start`], with the control center listening at `control`; elsewhere than on loopback its API has TLS.
    pub fn start_at(origin_up: &str, control: &str) -> Site {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("www")).unwrap();
        let (control, said) = start_control(folder.path(), control);
        let origin = start_origin(folder.path(), "127.0.0.1:0", origin_up);
        let url = origin.until("its address", |v| v["url"].is_string());
        let text = |v: &Value, key: &str| v[key].as_str().unwrap().to_owned();
        assert!(run(&["key", "new", "--out", folder.path().join("key").to_str().unwrap()]).status.success());
        Site {
            control_address: text(&said, "address"),
            api: text(&said, "api"),
            control_id: text(&said, "node"),
            token: text(&said, "admin_token"),
            origin_url: text(&url, "url").trim_end_matches('/').to_owned(),
            folder,
            control,
            origin,
        }
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file of arbitrary bytes to the origin's folder.
    pub fn write(&self, file: &str, bytes: usize, seed: u64) {
        let mut state = 2 * seed + 1;
        let mut data = vec![0; bytes];
        for chunk in data.chunks_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
        }
        let path = self.folder.path().join("www").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, data).unwrap();
    }

    /// Publishes a file or folder of the origin's; its name.
    pub fn publish(&self, file: &str, more: &[&str]) -> String {
        self.publish_at(&self.origin_url, file, more)
    }

    /// As [`Site::publish`], from another origin.
    pub fn publish_at(&self, origin_url: &str, file: &str, more: &[&str]) -> String {
        let (path, key) = (self.path(&format!("www/{file}")), self.path("key"));
        let url = format!("{origin_url}/{file}");
        let arguments =
            ["publish", &path, "--origin", &url, "--name", file, "--control", &self.api, "--token", &self.token];
        let output = run(&[&arguments[..], &["--key", &key, "--json"], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        said["hw"].as_str().unwrap().to_owned()
    }

    /// Starts a `get` that stays to serve others.
    pub fn get(&self, name: &str, who: &str, more: &[&str]) -> Process {
        let output = self.path(&format!("{who}/out"));
        let arguments = ["get", name, "-o", &output, "--listen", "127.0.0.1:0"];
        let stay: &[&str] = if more.contains(&"--seed-time") { &[] } else { &["--seed-time", "10m"] };
        Process::start(who, self.folder.path(), &[&arguments[..], stay, more].concat())
    }

    /// Starts a `publish --live` of the playlist in `www/live`.
    pub fn publish_live(&self, who: &str, more: &[&str]) -> Process {
        self.publish_live_as(who, "channel", more)
    }

    /// As [`Site::publish_live`], under another name.
    pub fn publish_live_as(&self, who: &str, name: &str, more: &[&str]) -> Process {
        let (url, key, data) = (format!("{}/live/index.m3u8", self.origin_url), self.path("key"), self.path(who));
        let arguments = ["publish", "--live", &url, "--name", name, "--control", &self.api, "--token", &self.token];
        let own = ["--key", &key, "--data", &data, "--listen", "127.0.0.1:0"];
        Process::start(who, self.folder.path(), &[&arguments[..], &own, more].concat())
    }

    /// Starts a `publish --live-push`.
    pub fn publish_pushed(&self, who: &str, more: &[&str]) -> Process {
        let (key, data) = (self.path("key"), self.path(who));
        let arguments = ["publish", "--live-push", "127.0.0.1:0", "--name", "pushed", "--control", &self.api];
        let own = ["--token", &self.token, "--key", &key, "--data", &data, "--listen", "127.0.0.1:0"];
        Process::start(who, self.folder.path(), &[&arguments[..], &own, more].concat())
    }

    /// Starts a `peer`.
    pub fn peer(&self, who: &str, more: &[&str]) -> Process {
        self.peer_of(&self.control_address, who, more)
    }

    /// As [`Site::peer`], dialling the control center at another of its addresses.
    pub fn peer_of(&self, control: &str, who: &str, more: &[&str]) -> Process {
        let data = self.path(who);
        let arguments =
            ["peer", "--control", control, "--cc", &self.control_id, "--data", &data, "--listen", "127.0.0.1:0"];
        Process::start(who, self.folder.path(), &[&arguments[..], more].concat())
    }

    /// As [`Site::peer`], with these variables in its environment.
    pub fn peer_with(&self, environment: &[(&str, &str)], who: &str, more: &[&str]) -> Process {
        let data = self.path(who);
        let arguments = ["peer", "--control", &self.control_address, "--data", &data, "--listen", "127.0.0.1:0"];
        Process::start_with(environment, who, self.folder.path(), &[&arguments[..], more].concat())
    }

    /// Starts a `peer` that was there before, with nothing but its data folder.
    pub fn peer_again(&self, who: &str) -> Process {
        let arguments = ["peer", "--data", &self.path(who), "--listen", "127.0.0.1:0", "--no-gateway"];
        Process::start(who, self.folder.path(), &arguments)
    }

    /// Whether what `who` fetched is what `file` is.
    pub fn same(&self, who: &str, file: &str) -> bool {
        let got = std::fs::read(self.folder.path().join(who).join("out")).unwrap();
        got == std::fs::read(self.folder.path().join("www").join(file)).unwrap()
    }

    /// SIGKILLs the control center and starts it again at the same address.
    pub fn restart_control(&mut self, lose_state: bool) {
        self.control.kill();
        if lose_state {
            std::fs::remove_dir_all(self.folder.path().join("state")).unwrap();
        }
        self.control = start_control(self.folder.path(), &self.control_address).0;
    }

    /// Another origin of the same folder, and its URL.
    pub fn another_origin(&self, up: &str) -> (Process, String) {
        let origin = start_origin(self.folder.path(), "127.0.0.1:0", up);
        let said = origin.until("its address", |v| v["url"].is_string());
        (origin, said["url"].as_str().unwrap().trim_end_matches('/').to_owned())
    }

    /// SIGKILLs the origin and starts it again at the same address.
    pub fn restart_origin(&mut self, up: &str) {
        self.origin.kill();
        let address = self.origin_url.trim_start_matches("http://").to_owned();
        self.origin = start_origin(self.folder.path(), &address, up);
        self.origin.until("its address", |v| v["url"].is_string());
    }

    /// What the control center's API answers.
    pub fn api_json(&self, path: &str) -> Value {
        let token = format!("Authorization: Bearer {}\r\n", self.token);
        get_json(&self.api, &format!("/v1/{path}"), &token)
    }

    /// Bytes of files that the origin handed to connections.
    pub fn origin_bytes(&self) -> u64 {
        get_json(&self.origin_url, "/_stats", "")["body_bytes"].as_u64().unwrap()
    }
}

fn get_json(url: &str, path: &str, headers: &str) -> Value {
    let host = url.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    let ask = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n");
    std::io::Write::write_all(&mut stream, ask.as_bytes()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"))
}

fn start_control(folder: &Path, listen: &str) -> (Process, Value) {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let arguments = ["control", "--listen", listen, "--state", &path("state"), "--identity", &path("identity")];
    let control = Process::start("control", folder, &arguments);
    let said = control.until("its address", |v| v["api"].is_string());
    (control, said)
}

fn start_origin(folder: &Path, listen: &str, up: &str) -> Process {
    let www = folder.join("www").to_str().unwrap().to_owned();
    Process::start("origin", folder, &["origin", &www, "--listen", listen, "--up", up])
}
