//! Processes that are measured: what they used, and how they end.

use std::fs;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A process that ends when this value does.
pub struct Running(pub Child);

impl Running {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Politely first: a killed nginx leaves its worker behind.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let deadline = Instant::now() + Duration::from_secs(3);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The one worker process of nginx, which the master starts after it listens.
pub fn worker_of(master: u32) -> Result<u32> {
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
pub fn cpu_of(pid: u32) -> Result<f64> {
    let stat = stat(pid)?;
    let ticks = |i: usize| stat.get(i).and_then(|s| s.parse::<f64>().ok()).context("no CPU time");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// Bytes of memory that a process has of its own: pages of files are the system's.
fn memory_of(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("RssAnon:")).context("no RssAnon")?;
    let kib: u64 = line.trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}

/// Watches how a process grows.
pub struct Growth {
    stop: Arc<AtomicBool>,
    before: u64,
    watcher: JoinHandle<u64>,
}

impl Growth {
    pub fn watch(pid: u32) -> Result<Growth> {
        let (stop, before) = (Arc::new(AtomicBool::new(false)), memory_of(pid)?);
        let stopped = stop.clone();
        let watcher = std::thread::spawn(move || {
            let mut most = before;
            while !stopped.load(Ordering::Relaxed) {
                most = most.max(memory_of(pid).unwrap_or_default());
                std::thread::sleep(LOOK);
            }
            most
        });
        Ok(Growth { stop, before, watcher })
    }

    /// How much it had more at most.
    pub fn most(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let most = self.watcher.join().ok().context("the watcher failed")?;
        Ok(most - self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_and_memory_of_a_process_are_read() {
        let pid = std::process::id();
        let growth = Growth::watch(pid).unwrap();
        let filled = vec![1u8; 64 << 20];
        while memory_of(pid).unwrap() < growth.before + (48 << 20) {}
        std::thread::sleep(LOOK * 3);
        assert!(growth.most().unwrap() >= 48 << 20, "{}", filled[filled.len() / 2]);
        assert!(cpu_of(pid).unwrap() >= 0.0);
    }
}
