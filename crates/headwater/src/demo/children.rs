//! The demo's processes: started, heard line by line, killed and reaped.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a child may take from its start to its first line.
pub const READY_WITHIN: Duration = Duration::from_secs(15);

/// Between two looks at whether all get ready.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Longest line that is read; a child's lines have a few kilobytes.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Lines waiting to be heard. Each child prints two a second.
const LINES_MAX: usize = 1024;

/// How much of the end of a child's standard error is shown when it fails.
const LAST_WORDS_BYTES_MAX: u64 = 4096;
const LAST_WORDS_LINES_MAX: usize = 8;

/// Something that a child did.
#[derive(Debug)]
pub struct Event {
    /// Which child.
    pub name: String,
    /// When it was read, so that a busy listener does not shift it.
    pub at: Instant,
    /// What it did.
    pub what: What,
    life: u64,
}

/// What a child did.
#[derive(Debug)]
pub enum What {
    /// It printed a line on standard output.
    Line(String),
    /// It ended, by nobody's order.
    Ended(ExitStatus),
}

/// All children that run.
pub struct Children {
    program: PathBuf,
    logs: PathBuf,
    running: BTreeMap<String, Running>,
    lives: u64,
    sender: mpsc::Sender<Event>,
    receiver: mpsc::Receiver<Event>,
}

struct Running {
    life: u64,
    started: Instant,
    heard: bool,
    kill: CancellationToken,
    task: JoinHandle<()>,
    /// A child exits at the end of this pipe, so that none outlives the driver.
    _stdin: Option<ChildStdin>,
}

impl Children {
    /// Runs `program`; the children's standard errors go to files in the folder `logs`.
    pub fn new(program: PathBuf, logs: PathBuf) -> Children {
        let (sender, receiver) = mpsc::channel(LINES_MAX);
        Children { program, logs, running: BTreeMap::new(), lives: 0, sender, receiver }
    }

    /// Starts a child, or starts it again under its old name.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn start(&mut self, name: &str, arguments: &[OsString]) -> anyhow::Result<()> {
        let log = self.log(name);
        let stderr = OpenOptions::new().create(true).append(true).open(&log);
        let stderr = stderr.with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).kill_on_drop(true);
        // Ctrl-C goes to all processes of the terminal's group; only the driver shall answer it.
        #[cfg(unix)]
        command.process_group(0);
        let mut process = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        self.lives += 1;
        let kill = CancellationToken::new();
        let voice = Voice { name: name.to_owned(), life: self.lives, kill: kill.clone(), events: self.sender.clone() };
        let task = tokio::spawn(voice.follow(process, stdout));
        let started = Instant::now();
        let running = Running { life: self.lives, started, heard: false, kill, task, _stdin: stdin };
        self.running.insert(name.to_owned(), running);
        Ok(())
    }

    /// The next thing that any child does. Waits forever when none runs. Nothing is lost when it is dropped.
    pub async fn next(&mut self) -> Event {
        loop {
            let Some(event) = self.receiver.recv().await else { return std::future::pending().await };
            // Lines that a killed child had printed may come after its kill.
            match self.running.get_mut(&event.name) {
                Some(running) if running.life == event.life => running.heard = true,
                _ => continue,
            }
            if matches!(event.what, What::Ended(_)) {
                self.running.remove(&event.name);
            }
            return event;
        }
    }

    /// The next event of any child, as long as all of them get ready in time.
    ///
    /// # Errors
    /// If one does not.
    pub async fn next_in_time(&mut self) -> anyhow::Result<Event> {
        loop {
            if let Ok(event) = tokio::time::timeout(LOOK_EVERY, self.next()).await {
                return Ok(event);
            }
            self.ensure_ready(Instant::now())?;
        }
    }

    /// What a child prints when it is ready.
    ///
    /// # Errors
    /// If that is something else, or any child ends.
    pub async fn first_line<T: DeserializeOwned>(&mut self, name: &str) -> anyhow::Result<T> {
        loop {
            match self.next_in_time().await? {
                Event { name: from, what: What::Line(line), .. } if from == name => {
                    return serde_json::from_str(&line)
                        .map_err(|error| self.complaint(name, format!("unexpected output {line:?}: {error}")));
                }
                Event { name, what: What::Ended(status), .. } => return Err(self.ended(&name, status)),
                Event { .. } => {}
            }
        }
    }

    /// Runs a command that ends by itself, and returns what it prints.
    ///
    /// # Errors
    /// If it fails or takes longer than `limit`, or another child ends.
    pub async fn run_to_end(&mut self, name: &str, arguments: &[OsString], limit: Duration) -> anyhow::Result<String> {
        self.start(name, arguments)?;
        let hear = async {
            let mut printed = String::new();
            loop {
                match self.next().await {
                    Event { name: from, what: What::Line(line), .. } if from == name => printed += &line,
                    Event { name: from, what: What::Ended(status), .. } if from == name && status.success() => {
                        return Ok(printed);
                    }
                    Event { name: from, what: What::Ended(status), .. } => return Err(self.ended(&from, status)),
                    Event { .. } => {}
                }
            }
        };
        match tokio::time::timeout(limit, hear).await {
            Ok(heard) => heard,
            Err(_) => Err(self.complaint(name, format!("still running after {} s", limit.as_secs()))),
        }
    }

    /// An error if a child has not printed anything in the time that it has for that.
    pub fn ensure_ready(&self, now: Instant) -> anyhow::Result<()> {
        let silent = |running: &Running| !running.heard && now.duration_since(running.started) > READY_WITHIN;
        if let Some((name, _)) = self.running.iter().find(|(_, running)| silent(running)) {
            bail!("{name} was not ready within {} s{}", READY_WITHIN.as_secs(), self.last_words(name));
        }
        Ok(())
    }

    /// SIGKILL; returns when the child is reaped. Does nothing if it does not run.
    pub async fn kill(&mut self, name: &str) {
        if let Some(running) = self.running.get_mut(name) {
            running.kill.cancel();
            // Only a panic of that task is lost here, and it drops the child, which kills it too.
            let _ = (&mut running.task).await;
        }
        // Only now, so that `kill_all` still waits for it if this was dropped before.
        self.running.remove(name);
    }

    /// SIGKILL to all; returns when they are reaped.
    pub async fn kill_all(&mut self) {
        for running in self.running.values() {
            running.kill.cancel();
        }
        for (_, running) in std::mem::take(&mut self.running) {
            let _ = running.task.await;
        }
    }

    /// Whether the child runs.
    pub fn runs(&self, name: &str) -> bool {
        self.running.contains_key(name)
    }

    /// The error for a child that ended by itself.
    pub fn ended(&self, name: &str, status: ExitStatus) -> anyhow::Error {
        anyhow!("{name} ended unexpectedly ({status}){}", self.last_words(name))
    }

    /// The error for a child that complains, or prints what it should not.
    pub fn complaint(&self, name: &str, problem: impl std::fmt::Display) -> anyhow::Error {
        anyhow!("{name}: {problem}{}", self.last_words(name))
    }

    /// The last lines of the child's standard error, to be put behind an error's first line.
    fn last_words(&self, name: &str) -> String {
        let tail = File::open(self.log(name)).and_then(|mut file| {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES_MAX)))?;
            let mut tail = Vec::new();
            file.take(LAST_WORDS_BYTES_MAX).read_to_end(&mut tail)?;
            Ok(String::from_utf8_lossy(&tail).into_owned())
        });
        let tail = tail.unwrap_or_default();
        let lines: Vec<&str> = tail.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(LAST_WORDS_LINES_MAX)..];
        last.iter().map(|line| format!("\n  {line}")).collect()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }
}

/// What carries a child's doings to the listener.
struct Voice {
    name: String,
    life: u64,
    kill: CancellationToken,
    events: mpsc::Sender<Event>,
}

impl Voice {
    /// Until the child is reaped: because it ended, or was ordered to.
    async fn follow(self, mut process: Child, stdout: Option<ChildStdout>) {
        let kill = self.kill.clone();
        let talk = async {
            if let Some(stdout) = stdout {
                let mut stdout = BufReader::new(stdout);
                // An unreadable pipe is treated as closed: what counts is that the process ends.
                while let Ok(Some(line)) = read_line(&mut stdout).await {
                    self.say(What::Line(line)).await;
                }
            }
            if let Ok(status) = process.wait().await {
                self.say(What::Ended(status)).await;
            }
        };
        if kill.run_until_cancelled(talk).await.is_none() {
            // Fails only if the process has ended already.
            let _ = process.start_kill();
            let _ = process.wait().await;
        }
    }

    async fn say(&self, what: What) {
        let event = Event { name: self.name.clone(), at: Instant::now(), what, life: self.life };
        // Nobody listens only when the driver is ending.
        let _ = self.events.send(event).await;
    }
}

/// A line without its end; a longer one than [`LINE_BYTES_MAX`] comes in parts. `None` at the end.
async fn read_line(from: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    from.take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned()))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(folder: &tempfile::TempDir) -> Children {
        Children::new("/bin/sh".into(), folder.path().to_owned())
    }

    fn script(text: &str) -> [OsString; 2] {
        ["-c".into(), text.into()]
    }

    #[tokio::test]
    async fn lines_and_the_end_are_heard() {
        let folder = tempfile::tempdir().unwrap();
        let mut children = shell(&folder);
        children.start("peer-1", &script("echo one; echo two; echo mud >&2; exit 3")).unwrap();
        for expected in ["one", "two"] {
            let event = children.next().await;
            assert!(matches!(event.what, What::Line(line) if line == expected));
        }
        let event = children.next().await;
        let What::Ended(status) = event.what else { panic!("{event:?}") };
        let error = children.ended("peer-1", status).to_string();
        assert!(error.starts_with("peer-1 ended unexpectedly") && error.ends_with("3)\n  mud"), "{error}");
        assert!(!children.runs("peer-1"));
    }

    #[tokio::test]
    async fn a_killed_child_is_reaped_and_heard_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let mut children = shell(&folder);
        children.start("origin", &script("echo $$; echo more; cat")).unwrap();
        let What::Line(id) = children.next().await.what else { panic!("no line") };
        children.kill("origin").await;
        assert!(!std::path::Path::new("/proc").join(id).exists());
        children.start("origin", &script("echo again; cat")).unwrap();
        assert!(matches!(children.next().await.what, What::Line(line) if line == "again"));
        children.kill_all().await;
        assert!(!children.runs("origin"));
    }

    #[tokio::test]
    async fn a_child_whose_driver_is_gone_sees_the_end_of_its_input() {
        let folder = tempfile::tempdir().unwrap();
        let mut children = shell(&folder);
        children.start("control", &script("read line; echo over")).unwrap();
        if let Some(running) = children.running.get_mut("control") {
            running._stdin = None;
        }
        assert!(matches!(children.next().await.what, What::Line(line) if line == "over"));
    }

    #[tokio::test]
    async fn a_child_that_says_nothing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut children = shell(&folder);
        children.start("waypoint", &script("cat")).unwrap();
        let now = Instant::now();
        assert!(children.ensure_ready(now).is_ok());
        let error = children.ensure_ready(now + READY_WITHIN + Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().starts_with("waypoint was not ready within 15 s"), "{error}");
        children.kill_all().await;
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut children = Children::new(folder.path().join("absent"), folder.path().to_owned());
        let error = children.start("peer-2", &[]).unwrap_err();
        assert_eq!(error.to_string(), "cannot start peer-2");
    }

    #[tokio::test]
    async fn lines_have_a_limit() {
        let long = vec![b'x'; LINE_BYTES_MAX as usize + 3];
        let mut from = BufReader::new(&long[..]);
        assert_eq!(read_line(&mut from).await.unwrap().map(|line| line.len()), Some(LINE_BYTES_MAX as usize));
        assert_eq!(read_line(&mut from).await.unwrap().as_deref(), Some("xxx"));
        assert_eq!(read_line(&mut from).await.unwrap(), None);
    }
}
