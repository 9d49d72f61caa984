//! A process of a soak: what it says, how it ends, and what the system says of it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Within which a process says its first line, or ends when it is told to.
const PATIENCE: Duration = Duration::from_secs(30);
/// What of its log is shown when something goes wrong.
const SAID_BYTES: usize = 1500;
/// Clock ticks of /proc, which are 100 a second on every Linux.
const TICKS_PER_S: f64 = 100.0;

#[derive(Default)]
struct Heard {
    first: Option<Value>,
    last: Value,
    complete: bool,
}

/// A running `headwater`. It ends when this value does.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    heard: Arc<Mutex<Heard>>,
    log: PathBuf,
}

/// What the system says of a process.
#[derive(Clone, Copy)]
pub struct Measure {
    pub rss_bytes: u64,
    pub handles: u64,
    pub threads: u64,
}

impl Process {
    pub fn start(program: &Path, log: &Path, arguments: &[&str]) -> Result<Process> {
        let mut child = Command::new(program)
            .args(arguments)
            .args(["--json", "--exit-with-stdin"])
            .env_remove("HEADWATER_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::OpenOptions::new().create(true).append(true).open(log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let lines = BufReader::new(child.stdout.take().context("no standard output")?);
        let heard = Arc::<Mutex<Heard>>::default();
        let to = heard.clone();
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                let mut heard = to.lock().unwrap_or_else(PoisonError::into_inner);
                heard.first.get_or_insert_with(|| line.clone());
                heard.complete |= line["event"] == "complete";
                heard.last = line;
            }
        });
        Ok(Process { stdin: child.stdin.take(), child, heard, log: log.to_owned() })
    }

    fn heard<T>(&self, of: impl FnOnce(&Heard) -> T) -> T {
        of(&self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The first line that it says.
    pub fn first(&mut self) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(first) = self.heard(|h| h.first.clone()) {
                return Ok(first);
            }
            let ended = self.ended();
            ensure!(ended.is_none() && Instant::now() < deadline, "no first line ({ended:?}): {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The last line that it said.
    pub fn last(&self) -> Value {
        self.heard(|h| h.last.clone())
    }

    /// Whether it said that it has everything.
    pub fn is_complete(&self) -> bool {
        self.heard(|h| h.complete)
    }

    /// The end of its log.
    pub fn said(&self) -> String {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let from = (said.len().saturating_sub(SAID_BYTES)..=said.len()).find(|at| said.is_char_boundary(*at));
        said[from.unwrap_or(0)..].trim().to_owned()
    }

    /// Its exit code, if it has ended; -1 for a signal.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten().map(|status| status.code().unwrap_or(-1))
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends its standard input, at which it stops; its exit code.
    pub fn stop(&mut self) -> Result<i32> {
        self.stdin = None;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(code) = self.ended() {
                return Ok(code);
            }
            ensure!(Instant::now() < deadline, "does not stop within {} s: {}", PATIENCE.as_secs(), self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn measure(&self) -> Result<Measure> {
        let folder = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = std::fs::read_to_string(folder.join("status"))?;
        let of = |key: &str| -> Result<u64> {
            let line = status.lines().find_map(|l| l.strip_prefix(key)).with_context(|| format!("no {key}"))?;
            Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
        };
        Ok(Measure {
            rss_bytes: of("VmRSS:")? << 10,
            threads: of("Threads:")?,
            handles: std::fs::read_dir(folder.join("fd"))?.count() as u64,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// CPU seconds of `running` and of all processes that were waited for.
pub fn cpu_seconds<'a>(running: impl Iterator<Item = &'a Process>) -> f64 {
    // Fields 14 to 17 of `stat`: of the process itself, and of its children that were waited for.
    let ticks = |pid: &str, fields: std::ops::Range<usize>| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        after_name.split_whitespace().skip(fields.start).take(fields.len()).filter_map(|n| n.parse::<u64>().ok()).sum()
    };
    let of_running: u64 = running.map(|p| ticks(&p.child.id().to_string(), 11..13)).sum();
    (of_running + ticks("self", 13..15)) as f64 / TICKS_PER_S
}
