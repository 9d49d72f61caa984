//! A waypoint that has the file, its control center and origin; and children for it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::nginx::Nginx;
use super::process::{Running, cpu_of};
use super::{Server, median};

pub struct Site {
    headwater: PathBuf,
    free_riders: PathBuf,
    _control: Running,
    _origin: Running,
    waypoint: Running,
    /// Address and node id of the control center.
    control: (String, String),
    name: String,
    mib: u64,
}

/// A program of ours that says in its first line where it is; and what it says later.
fn start(headwater: &Path, arguments: &[&str]) -> Result<(Running, Value, BufReader<ChildStdout>)> {
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
}

fn text(value: &Value, key: &str) -> Result<String> {
    value[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {value}"))
}

impl Site {
    /// A waypoint fetches `folder`/origin/file, of `mib` MiB.
    pub fn start(headwater: &Path, free_riders: &Path, folder: &Path, mib: u64) -> Result<Site> {
        let own = folder.join("site");
        let _ = fs::remove_dir_all(&own);
        fs::create_dir_all(&own)?;
        let path = |name: &str| own.join(name).display().to_string();
        let (control, said, control_out) = start(
            headwater,
            &["control", "--listen", "127.0.0.1:0", "--state", &path("state"), "--identity", &path("identity")],
        )?;
        let (address, api, node, token) =
            (text(&said, "address")?, text(&said, "api")?, text(&said, "node")?, text(&said, "admin_token")?);
        let served = folder.join("origin").display().to_string();
        let (origin, said, origin_out) = start(headwater, &["origin", &served, "--listen", "127.0.0.1:0"])?;
        let url = format!("{}/file", text(&said, "url")?.trim_end_matches('/'));
        let key = path("key");
        let status = Command::new(headwater).args(["key", "new", "--out", &key]).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "key new failed");
        let published = Command::new(headwater)
            .arg("publish")
            .arg(folder.join("origin/file"))
            .args(["--origin", &url, "--name", "bench", "--control", &api, "--token", &token, "--key", &key, "--json"])
            .output()?;
        ensure!(published.status.success(), "publish failed: {}", String::from_utf8_lossy(&published.stderr));
        let name = text(&serde_json::from_slice(&published.stdout)?, "hw")?;
        let waypoint = ["peer", "--waypoint", "--control", &address, "--cc", &node, "--listen", "127.0.0.1:0"];
        let (waypoint, _, mut lines) = start(headwater, &[&waypoint[..], &["--data", &path("waypoint")]].concat())?;
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
        let (headwater, free_riders) = (headwater.to_path_buf(), free_riders.to_path_buf());
        let (control, at) = ((address, node), control);
        Ok(Site { headwater, free_riders, _control: at, _origin: origin, waypoint, control, name, mib })
    }

    /// Both ends: `get` from the waypoint beside `curl` from nginx, each writing a file.
    pub fn beside_curl(&self, nginx: &Nginx, runs: usize, mib: u64, folder: &Path) -> Result<String> {
        let target = folder.join("got");
        let get = format!("'{}' get '{}' -o '{}' --json", self.headwater.display(), self.name, target.display());
        let curl = format!("curl --silent --show-error --insecure --output '{}' '{}'", target.display(), nginx.url());
        let (mut both, mut receivers) = (Vec::new(), Vec::new());
        let mut line = String::new();
        for run in 0..=runs {
            let mut sides = Vec::new();
            for (command, sender) in [(&get, self.pid()), (&curl, nginx.pid())] {
                let begun = cpu_of(sender)?;
                let receiver = timed(command, folder)?;
                let sender = cpu_of(sender)? - begun;
                ensure!(fs::metadata(&target)?.len() == mib << 20, "`{command}` fetched a file of another length");
                fs::remove_file(&target)?;
                sides.push((sender, receiver));
            }
            if run > 0 {
                println!(
                    "  {run}: get {:.2} + {:.2} s CPU, curl {:.2} + {:.2}",
                    sides[0].0, sides[0].1, sides[1].0, sides[1].1
                );
                both.push((sides[1].0 + sides[1].1) / (sides[0].0 + sides[0].1));
                receivers.push(sides[1].1 / sides[0].1);
                line = format!(
                    "     get  waypoint and `get` beside nginx and `curl`, each writing a file: ratio of both ends {:.2}, of receivers {:.2}",
                    median(both.clone()),
                    median(receivers.clone())
                );
            }
        }
        Ok(line)
    }
}

impl Server for Site {
    fn pid(&self) -> u32 {
        self.waypoint.pid()
    }
    fn feed(&self, children: usize, folder: &Path) -> Result<()> {
        let data = folder.join("site/free-riders");
        fs::create_dir_all(&data)?;
        let mut riders = Command::new(&self.free_riders)
            .args(["--kind", "rides-free", "--control", &self.control.0, "--cc", &self.control.1, "--name", &self.name])
            .args(["--children", &children.to_string(), "--listen", "127.0.0.1:0", "--exit-with-stdin", "--data"])
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.join("riders.err"))?)
            .spawn()?;
        let lines = BufReader::new(riders.stdout.take().context("no standard output")?).lines();
        let _riders = Running(riders);
        for line in lines {
            let said: Value = serde_json::from_str(&line?)?;
            if said["event"] == "taken" {
                let bytes = said["bytes"].as_u64();
                ensure!(bytes == Some(children as u64 * (self.mib << 20)), "they took other than the file: {said}");
                return Ok(());
            }
        }
        bail!("the children ended: {}", fs::read_to_string(folder.join("riders.err"))?)
    }
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
        assert!(minutes_and_seconds("nothing").is_err());
    }
}
