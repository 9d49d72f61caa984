//! Processes that run in hosts: started, heard line by line, stopped, killed, reaped, and what they used.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Longest line that is read; lines have a few kilobytes.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// How much of the end of a log is shown when its process fails.
const LAST_WORDS_BYTES_MAX: usize = 1500;
/// Between two looks whether a process has ended.
const POLL: Duration = Duration::from_millis(10);

/// Whose process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The control center.
    Control,
    /// A host, by its place in the scenario.
    Host(usize),
}

/// Something that a process did.
#[derive(Debug)]
pub struct Heard {
    /// When it was read.
    pub at: Instant,
    /// Whose.
    pub who: Who,
    /// Which of its lives.
    pub life: u64,
    /// What.
    pub said: Said,
}

/// What a process did.
#[derive(Debug)]
pub enum Said {
    /// It printed a line.
    Line(Value),
    /// Its output ended, as it does when the process ends.
    Ended,
}

/// What a process used until now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU seconds.
    pub cpu_s: f64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Most resident memory ever.
    pub peak_rss_bytes: u64,
}

/// A running process. Dropping it kills it.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    life: u64,
    log: PathBuf,
    stopped: bool,
}

impl Process {
    /// Starts `command`; its standard error is added to `log`, its lines go to `heard`.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn start(mut command: Command, who: Who, life: u64, log: &Path, heard: &Sender<Heard>) -> Result<Process> {
        let mut process = Self::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()), life, log)?;
        if let Some(stdout) = process.child.stdout.take() {
            let heard = heard.clone();
            std::thread::spawn(move || {
                let mut stdout = BufReader::new(stdout);
                let mut line = String::new();
                // Whoever listened may be gone: then nobody needs the rest.
                let tell = |said| heard.send(Heard { at: Instant::now(), who, life, said }).is_ok();
                loop {
                    line.clear();
                    match stdout.by_ref().take(LINE_BYTES_MAX).read_line(&mut line) {
                        Ok(0) | Err(_) => break,
                        Ok(_) => {
                            let said = serde_json::from_str(&line).unwrap_or_else(|_| Value::String(line.clone()));
                            if !tell(Said::Line(said)) {
                                return;
                            }
                        }
                    }
                }
                tell(Said::Ended);
            });
        }
        Ok(process)
    }

    /// Starts a server that says nothing on standard output.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn server(mut command: Command, log: &Path) -> Result<Process> {
        Self::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()), 0, log)
    }

    fn spawn(command: &mut Command, life: u64, log: &Path) -> Result<Process> {
        let stderr = OpenOptions::new().create(true).append(true).open(log);
        let stderr = stderr.with_context(|| format!("cannot write {}", log.display()))?;
        // Ctrl-C goes to all processes of the terminal's group; only the lab shall answer it.
        let child = command.stderr(stderr).process_group(0).spawn();
        let mut child = child.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let stdin = child.stdin.take();
        Ok(Process { child, stdin, life, log: log.to_owned(), stopped: false })
    }

    /// Which life of its host this is.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// SIGKILL; returns when it is reaped.
    pub fn kill(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM.
    pub fn terminate(&mut self) {
        self.resume();
        self.signal(Signal::SIGTERM);
    }

    /// SIGSTOP.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGSTOP);
        self.stopped = true;
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        if self.stopped {
            self.signal(Signal::SIGCONT);
            self.stopped = false;
        }
    }

    fn signal(&self, signal: Signal) {
        // A child that ended is not reaped before `child` is waited for: the id is still its own.
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
    }

    /// Closes its standard input, at which it says goodbye and ends.
    pub fn leave(&mut self) {
        self.resume();
        self.stdin = None;
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end until `deadline`, then kills it.
    pub fn wait_until(&mut self, deadline: Instant) {
        while self.ended().is_none() {
            if Instant::now() >= deadline {
                return self.kill();
            }
            std::thread::sleep(POLL);
        }
    }

    /// What it used; nothing once it is reaped.
    pub fn usage(&self) -> Option<Usage> {
        let folder = PathBuf::from(format!("/proc/{}", self.child.id()));
        let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
        // After the name in parentheses: state is the first field, user and system time the 12th and 13th (proc(5)).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        let status = std::fs::read_to_string(folder.join("status")).ok()?;
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let (rss_bytes, peak_rss_bytes) = (kib("VmRSS:")? * 1024, kib("VmHWM:")? * 1024);
        Some(Usage { cpu_s: ticks as f64 / TICKS_PER_S, rss_bytes, peak_rss_bytes })
    }

    /// The end of its log, for an error.
    pub fn last_words(&self) -> String {
        last_words(&self.log)
    }
}

/// Unit of times in `/proc/PID/stat`; the same on all Linux systems that Rust runs on.
const TICKS_PER_S: f64 = 100.0;

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The end of a log, for an error.
pub fn last_words(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let tail = &text[text.len().saturating_sub(LAST_WORDS_BYTES_MAX)..];
    match String::from_utf8_lossy(tail).trim() {
        "" => "it said nothing".to_owned(),
        said => format!("it said:\n{said}"),
    }
}

/// Runs a command to its end: what it printed.
///
/// # Errors
/// If it cannot be started or fails; then with what it said.
pub fn output_of(mut command: Command) -> Result<String> {
    let what = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {what}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{what} failed ({}): {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
