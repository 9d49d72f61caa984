//! What is there during a soak: the processes that stay, the contents, and folders of those who come and go.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::process::Process;

/// Rates that leave most of the machine to others.
const ORIGIN_UP: &str = "6MB/s";
const PEER_UP: &str = "4MB/s";
/// Disk of a node that stays: less than all contents that come during a run take.
const QUOTA_BYTES: u64 = 96 << 20;

/// A name under which versions are published.
#[derive(Clone)]
pub struct Slot(Arc<Mutex<Published>>);

struct Published {
    file: String,
    hw: String,
    /// SHA-256 of each version, the present one last.
    digests: Vec<String>,
    withdrawn: bool,
}

impl Slot {
    fn of<T>(&self, read: impl FnOnce(&mut Published) -> T) -> T {
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
    /// How many versions there were.
    pub fn versions(&self) -> usize {
        self.of(|p| p.digests.len())
    }
    pub fn is_withdrawn(&self) -> bool {
        self.of(|p| p.withdrawn)
    }
    /// Whether a version from the one with index `since` on is this.
    pub fn is_version(&self, digest: &str, since: usize) -> bool {
        self.of(|p| p.digests.iter().skip(since).any(|d| d == digest))
    }
}

/// All of it, in a folder of the machine's temporary folder.
pub struct Site {
    program: PathBuf,
    folder: PathBuf,
    keeps_folder: bool,
    api: String,
    token: String,
    origin_url: String,
    /// Come and go.
    contents: Vec<Slot>,
    /// Stay, in new versions.
    staying_contents: Vec<Slot>,
    staying: Vec<(&'static str, Process)>,
    next: u64,
    /// Most that a node that stays may have on disk; `None` where the program knows no quota.
    pub quota_bytes: Option<u64>,
}

impl Site {
    pub fn start(program: &Path) -> Result<Site> {
        let nanos = std::time::UNIX_EPOCH.elapsed()?.as_nanos();
        let folder = std::env::temp_dir().join(format!("headwater-soak-{}-{nanos}", std::process::id()));
        for name in ["www", "logs", "visitors"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        let help = Command::new(program).args(["peer", "--help"]).output()?;
        let quota = String::from_utf8_lossy(&help.stdout).contains("--quota");
        let mut site = Site {
            program: program.to_owned(),
            folder,
            keeps_folder: false,
            api: String::new(),
            token: String::new(),
            origin_url: String::new(),
            contents: Vec::new(),
            staying_contents: Vec::new(),
            staying: Vec::new(),
            next: 0,
            quota_bytes: quota.then_some(QUOTA_BYTES),
        };
        site.begin()?;
        Ok(site)
    }

    fn begin(&mut self) -> Result<()> {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let (state, identity, www) = (path("state"), path("identity"), path("www"));
        let said =
            self.stays("control", &["control", "--listen", "127.0.0.1:0", "--state", &state, "--identity", &identity])?;
        let (address, control) = (text(&said, "address")?, text(&said, "node")?);
        (self.api, self.token) = (text(&said, "api")?, text(&said, "admin_token")?);
        let said = self.stays("origin", &["origin", &www, "--listen", "127.0.0.1:0", "--up", ORIGIN_UP])?;
        self.origin_url = text(&said, "url")?.trim_end_matches('/').to_owned();
        let key = self.folder.join("key").display().to_string();
        self.command(&["key", "new", "--out", &key])?;
        for seed in 0..2 {
            let slot = self.publish(format!("stays-{seed}"), 8 << 20, seed)?;
            self.staying_contents.push(slot);
        }
        let names: Vec<String> = self.staying_contents.iter().map(|s| s.of(|p| p.hw.clone())).collect();
        let quota = self.quota_bytes.map(|bytes| format!("{}MiB", bytes >> 20));
        for who in ["waypoint", "resident-1", "resident-2"] {
            let data = self.folder.join(who).display().to_string();
            let mut arguments = vec!["peer", "--control", &address, "--cc", &control, "--data", &data];
            arguments.extend(["--listen", "127.0.0.1:0", "--up", PEER_UP]);
            if who == "waypoint" {
                arguments.push("--waypoint");
            } else {
                arguments.push("--no-gateway");
                names.iter().for_each(|name| arguments.extend(["--fetch", name]));
            }
            if let Some(quota) = &quota {
                arguments.extend(["--quota", quota]);
            }
            self.stays(who, &arguments)?;
        }
        Ok(())
    }

    fn stays(&mut self, name: &'static str, arguments: &[&str]) -> Result<Value> {
        let mut process = Process::start(&self.program, &self.log(name), arguments)?;
        let said = process.first()?;
        self.staying.push((name, process));
        Ok(said)
    }

    fn log(&self, who: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{who}.log"))
    }

    /// Runs a command to its end; what it prints.
    fn command(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.program).args(arguments).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?} ended with {}: {errors}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    // ---- contents ----

    pub fn publish_new(&mut self, bytes: u64, seed: u64) -> Result<()> {
        self.next += 1;
        let slot = self.publish(format!("content-{}", self.next), bytes, seed)?;
        self.contents.push(slot);
        Ok(())
    }

    fn publish(&self, file: String, bytes: u64, seed: u64) -> Result<Slot> {
        let digest = self.write(&file, bytes, seed)?;
        let hw = self.register(&file)?;
        Ok(Slot(Arc::new(Mutex::new(Published { file, hw, digests: vec![digest], withdrawn: false }))))
    }

    /// A new version under the same name.
    pub fn replace(&self, slot: &Slot, bytes: u64, seed: u64) -> Result<()> {
        let file = slot.of(|p| p.file.clone());
        let digest = self.write(&file, bytes, seed)?;
        self.register(&file)?;
        slot.of(|p| p.digests.push(digest));
        Ok(())
    }

    pub fn withdraw(&mut self, index: usize) -> Result<()> {
        let slot = self.contents.remove(index);
        let file = slot.of(|p| {
            p.withdrawn = true;
            p.file.clone()
        });
        self.command(&["unpublish", &file, "--control", &self.api, "--token", &self.token])?;
        for name in [file.clone(), format!("{file}.hwlog")] {
            std::fs::remove_file(self.folder.join("www").join(name))?;
        }
        Ok(())
    }

    fn register(&self, file: &str) -> Result<String> {
        let (path, key) = (self.folder.join("www").join(file).display().to_string(), self.folder.join("key"));
        let url = format!("{}/{file}", self.origin_url);
        let said = self.command(&[
            "publish",
            &path,
            "--origin",
            &url,
            "--name",
            file,
            "--control",
            &self.api,
            "--token",
            &self.token,
            "--key",
            &key.display().to_string(),
            "--json",
        ])?;
        text(&serde_json::from_str(&said)?, "hw")
    }

    /// Arbitrary bytes, whose SHA-256 it returns. The file is exchanged at once: nobody reads half of it.
    fn write(&self, file: &str, bytes: u64, seed: u64) -> Result<String> {
        let path = self.folder.join("www").join(file);
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        let mut data = vec![0; bytes as usize];
        for chunk in data.chunks_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            chunk.copy_from_slice(&state.to_be_bytes()[..chunk.len()]);
        }
        let new = self.folder.join("new");
        std::fs::File::create(&new)?.write_all(&data)?;
        std::fs::rename(&new, &path)?;
        Ok(digest(&data))
    }

    /// One that may be replaced: the first content that stays is the one that residents serve all the time.
    pub fn changeable(&self, index: usize) -> Slot {
        self.slot(index % (self.slots() - 1))
    }

    /// All contents that are published, that one last.
    pub fn slots(&self) -> usize {
        self.contents.len() + self.staying_contents.len()
    }
    pub fn slot(&self, index: usize) -> Slot {
        self.contents
            .iter()
            .chain(self.staying_contents.iter().rev())
            .nth(index % self.slots())
            .expect("one of them")
            .clone()
    }

    // ---- peers ----

    pub fn visit(&self, who: &str, slot: &Slot, dial_only: bool) -> Result<Process> {
        let hw = slot.of(|p| p.hw.clone());
        let folder = self.folder.join("visitors").join(who);
        std::fs::create_dir_all(&folder)?;
        let output = folder.join("out").display().to_string();
        let mut arguments = vec!["get", &hw, "-o", &output, "--listen", "127.0.0.1:0"];
        arguments.extend(["--up", PEER_UP, "--seed-time", "24h"]);
        if dial_only {
            arguments.push("--dial-only");
        }
        Process::start(&self.program, &self.log(who), &arguments)
    }

    /// SHA-256 of what a visitor fetched.
    pub fn digest_of(&self, who: &str) -> Result<String> {
        let path = self.folder.join("visitors").join(who).join("out");
        Ok(digest(&std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?))
    }

    /// A visitor's files go.
    pub fn forget(&self, who: &str) -> Result<()> {
        let _ = std::fs::remove_file(self.log(who));
        Ok(std::fs::remove_dir_all(self.folder.join("visitors").join(who))?)
    }

    /// The processes that stay, each with its folder.
    pub fn staying(&self) -> Vec<(&'static str, &Process, PathBuf)> {
        let folder = |name: &str| self.folder.join(if name == "control" { "state" } else { name });
        let watched = self.staying.iter().filter(|(name, _)| *name != "origin");
        watched.map(|(name, process)| (*name, process, folder(name))).collect()
    }
    pub fn staying_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut Process)> {
        self.staying.iter_mut().map(|(name, process)| (*name, process))
    }

    /// Logs and files stay where they are, for whoever looks into what went wrong.
    pub fn keep(&mut self) -> PathBuf {
        self.keeps_folder = true;
        self.folder.clone()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.staying.clear();
        if !self.keeps_folder
            && let Err(error) = std::fs::remove_dir_all(&self.folder)
        {
            eprintln!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

fn text(said: &Value, key: &str) -> Result<String> {
    said[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {said}"))
}

fn digest(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}
