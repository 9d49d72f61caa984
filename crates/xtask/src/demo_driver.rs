//! Running `headwater demo` under watch. Its processes are known by a mark in their environment, which children
//! inherit, and its temporary folders by standing in a folder of our own; so other demos on the machine do not disturb.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const MARK: &str = "HEADWATER_DEMO_ID";
const POLL: Duration = Duration::from_millis(20);

/// A folder in the machine's temporary folder, removed with this value.
pub struct Sandbox {
    folder: PathBuf,
    /// Of all that runs in it; random enough to be of this sandbox alone.
    mark: String,
}

impl Sandbox {
    pub fn new() -> Result<Sandbox> {
        let nanos = std::time::UNIX_EPOCH.elapsed()?.as_nanos();
        let mark = format!("{}-{nanos}", std::process::id());
        let folder = std::env::temp_dir().join(format!("headwater-xtask-{mark}"));
        std::fs::create_dir_all(folder.join("tmp"))?;
        Ok(Sandbox { folder, mark })
    }

    /// What the demo takes for the machine's temporary folder.
    fn temporary(&self) -> PathBuf {
        self.folder.join("tmp")
    }

    /// Fails if a folder of a demo is still there.
    pub fn ensure_no_folders(&self) -> Result<()> {
        let mut left = Vec::new();
        for entry in std::fs::read_dir(self.temporary())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with("headwater-demo-") {
                left.push(name);
            }
        }
        ensure!(left.is_empty(), "left in the temporary folder: {}", left.join(", "));
        Ok(())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

/// A demo that ended by itself.
pub struct Ended {
    pub status: ExitStatus,
    pub took: Duration,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The object that `--json` prints, provided that the exit status is 0; the error carries what the demo wrote.
    pub fn json(&self) -> Result<serde_json::Value> {
        ensure!(self.status.success(), "the demo ended with {}\n{}{}", self.status, self.stdout, self.stderr);
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON:\n{}{}", self.stdout, self.stderr))
    }
}

/// A demo that runs. Dropping it kills what is left of its processes.
pub struct Driver {
    child: Child,
    mark: String,
    started: Instant,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Driver {
    /// Starts `command` in the sandbox. Output goes to files, since a pipe would stay open as long as any child lives.
    pub fn start(mut command: Command, sandbox: &Sandbox) -> Result<Driver> {
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| sandbox.folder.join(name));
        let started = Instant::now();
        let mark = sandbox.mark.clone();
        let child = command
            .env(MARK, &mark)
            .env("TMPDIR", sandbox.temporary())
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Driver { child, mark, started, stdout, stderr })
    }

    /// Waits until the driver ends, at most `limit` since its start.
    pub fn wait(&mut self, limit: Duration) -> Result<Ended> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                let took = self.started.elapsed();
                return Ok(Ended { status, took, stdout: read(&self.stdout)?, stderr: read(&self.stderr)? });
            }
            if self.started.elapsed() > limit {
                bail!("still running after {} s\n{}{}", limit.as_secs(), read(&self.stdout)?, read(&self.stderr)?);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits until the driver has at least `count` children; returns whether it had before it ended.
    pub fn wait_for_children(&mut self, count: usize, limit: Duration) -> Result<bool> {
        while self.processes()?.len() <= count {
            if self.child.try_wait()?.is_some() {
                return Ok(false);
            }
            ensure!(self.started.elapsed() < limit, "fewer than {count} children after {} s", limit.as_secs());
            std::thread::sleep(POLL);
        }
        Ok(true)
    }

    /// Waits for `duration`, or less if the driver ends first; returns whether it did.
    pub fn ends_within(&mut self, duration: Duration) -> Result<bool> {
        let asked = Instant::now();
        while asked.elapsed() < duration {
            if self.child.try_wait()?.is_some() {
                return Ok(true);
            }
            std::thread::sleep(POLL);
        }
        Ok(self.child.try_wait()?.is_some())
    }

    /// SIGKILL to the driver alone, which leaves it no chance to end its children.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until every process of the demo is gone, at most `limit`; returns how long it took.
    pub fn ensure_no_processes(&self, limit: Duration) -> Result<Duration> {
        let asked = Instant::now();
        loop {
            let left = self.processes()?;
            if left.is_empty() {
                return Ok(asked.elapsed());
            }
            if asked.elapsed() > limit {
                let left: Vec<String> = left.into_iter().map(described).collect();
                bail!("still running {} s after the driver's end:\n{}", limit.as_secs(), left.join("\n"));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Ids of the processes that carry the mark, the driver's own included. Linux only.
    fn processes(&self) -> Result<Vec<u32>> {
        let mark = format!("{MARK}={}", self.mark);
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").context("cannot list processes")? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Other users' processes cannot be read, and some end while we look; neither are ours.
            let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
            if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
                found.push(id);
            }
        }
        Ok(found)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Both may find that nothing is left, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for id in self.processes().unwrap_or_default() {
            let _ = Command::new("kill").args(["-KILL", &id.to_string()]).stderr(Stdio::null()).status();
        }
    }
}

fn described(id: u32) -> String {
    let words = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    format!("{id} {}", String::from_utf8_lossy(&words).replace('\0', " "))
}

fn read(file: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&std::fs::read(file)?).into_owned())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_clean_run_passes() {
        let sandbox = Sandbox::new().unwrap();
        let mut driver = Driver::start(shell("echo '{\"verified\": true}'"), &sandbox).unwrap();
        assert_eq!(driver.wait(LONG).unwrap().json().unwrap()["verified"], true);
        driver.ensure_no_processes(LONG).unwrap();
        sandbox.ensure_no_folders().unwrap();
    }

    #[test]
    fn a_failure_shows_what_the_demo_wrote() {
        let sandbox = Sandbox::new().unwrap();
        let mut driver = Driver::start(shell("echo dam broke >&2; exit 3"), &sandbox).unwrap();
        assert!(driver.wait(LONG).unwrap().json().unwrap_err().to_string().contains("dam broke"));
    }

    #[test]
    fn what_outlives_a_killed_driver_is_found() {
        let sandbox = Sandbox::new().unwrap();
        let script = "mkdir $TMPDIR/headwater-demo-1; sleep 600 & sleep 600";
        let mut driver = Driver::start(shell(script), &sandbox).unwrap();
        assert!(driver.wait_for_children(2, LONG).unwrap());
        driver.kill().unwrap();
        assert!(driver.ensure_no_processes(Duration::ZERO).unwrap_err().to_string().contains("sleep 600"));
        assert!(sandbox.ensure_no_folders().unwrap_err().to_string().contains("headwater-demo-1"));
        drop(driver);
        let mut next = Driver::start(shell("true"), &sandbox).unwrap();
        next.wait(LONG).unwrap();
        next.ensure_no_processes(LONG).unwrap();
    }

    #[test]
    fn a_driver_that_runs_too_long_is_an_error() {
        let sandbox = Sandbox::new().unwrap();
        let mut driver = Driver::start(shell("sleep 600"), &sandbox).unwrap();
        assert!(driver.wait(Duration::ZERO).is_err());
    }
}
