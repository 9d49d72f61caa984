//! Network namespaces by name, as `ip netns` keeps them, and the programs that set them up.

use super::NetError;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const FOLDER: &str = "/run/netns";
const PREFIX: &str = "hwlab-";

/// Namespaces that are removed with this.
pub struct Namespaces(Vec<String>);

/// A prefix for the names of one network: `hwlab-PID-N`.
pub fn prefix() -> String {
    static NETS: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", std::process::id(), NETS.fetch_add(1, Ordering::Relaxed))
}

impl Namespaces {
    /// Makes them.
    pub fn make(names: Vec<String>) -> Result<Self, NetError> {
        let batch: String = names.iter().map(|name| format!("netns add {name}\n")).collect();
        let made = Self(names);
        tool("ip", "iproute2", &["-batch", "-"], "the lab", &batch)?;
        Ok(made)
    }

    /// Removes them.
    pub fn remove(&mut self) {
        remove(&std::mem::take(&mut self.0));
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.remove();
    }
}

fn remove(names: &[String]) {
    if !names.is_empty() {
        let batch: String = names.iter().map(|name| format!("netns del {name}\n")).collect();
        // What could not be removed, the next sweep finds.
        let _ = tool("ip", "iproute2", &["-force", "-batch", "-"], "the lab", &batch);
    }
}

/// Removes the namespaces of processes that are no more, and kills what still runs in them.
pub fn sweep() -> usize {
    let Ok(entries) = std::fs::read_dir(FOLDER) else { return 0 };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let stale: Vec<String> = names.filter(|name| owner(name).is_some_and(|pid| !is_alive(pid))).collect();
    for name in &stale {
        let Ok(listed) = Command::new("ip").args(["netns", "pids", name]).output() else { continue };
        for pid in String::from_utf8_lossy(&listed.stdout).split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    remove(&stale);
    stale.len()
}

/// The process whose lab a namespace belongs to.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Opens a namespace.
pub fn open(name: &str) -> Result<File, NetError> {
    File::open(Path::new(FOLDER).join(name)).map_err(|e| NetError::system(format!("opening the namespace {name}"), e))
}

/// Puts this thread into a namespace, for good.
pub fn enter(namespace: &File) -> io::Result<()> {
    Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?)
}

/// Runs something on a thread of its own inside a namespace.
pub fn within<T: Send>(namespace: &File, f: impl FnOnce() -> T + Send) -> Result<T, NetError> {
    let failed = |e| NetError::system("entering a namespace", e);
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().spawn_scoped(scope, || enter(namespace).map(|()| f())).map_err(failed)?;
        match thread.join() {
            Ok(done) => done.map_err(failed),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Runs lines of `ip -batch` in a namespace.
pub fn ip(namespace: &str, batch: &str) -> Result<(), NetError> {
    tool("ip", "iproute2", &["-netns", namespace, "-batch", "-"], namespace, batch)
}

/// Runs lines of `ip -batch` in the namespace of this thread.
pub fn ip_here(namespace: &str, batch: &str) -> Result<(), NetError> {
    tool("ip", "iproute2", &["-batch", "-"], namespace, batch)
}

/// Loads rules in the namespace of this thread.
pub fn nft_here(namespace: &str, rules: &str) -> Result<(), NetError> {
    if rules.is_empty() { Ok(()) } else { tool("nft", "nftables", &["-f", "-"], namespace, rules) }
}

/// Runs a program with this on its standard input.
fn tool(
    tool: &'static str,
    package: &'static str,
    args: &[&str],
    namespace: &str,
    input: &str,
) -> Result<(), NetError> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => NetError::Missing { tool, package },
        _ => NetError::system(format!("running {tool}"), e),
    };
    let mut child = Command::new(tool)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends early says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(NetError::Tool { tool, namespace: namespace.to_owned(), said })
}
