//! `cargo xtask bench-serve`: what serving costs the sender. A waypoint feeds 1, 10 and 200 children over loopback, beside
//! nginx with TLS and rqbit that feed as many; compared are bytes per CPU-second of the sending process, in runs that
//! alternate, so that a machine whose speed drifts does them alike.
//!
//! The receivers are cheap, as only the sender counts: free riders of `headwater-hostile` (real sessions, tickets, edges
//! and requests; pieces are counted and thrown away), `curl` to `/dev/null`, and a BitTorrent leecher of some lines that
//! throws blocks away. All connections are made within what is measured. The waypoint sends datagrams of at most 1,452
//! bytes; nginx and rqbit send TCP over loopback, whose segments have up to 64 KiB; rqbit does not encrypt.

mod bittorrent;
mod nginx;
mod process;
mod rqbit;
mod waypoint;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::shell::{build_programs, find_program};
use nginx::Nginx;
use process::{Growth, cpu_of};
use rqbit::Rqbit;
use waypoint::Site;

/// What is measured.
pub struct Plan {
    /// Numbers of children.
    pub children: Vec<usize>,
    /// Runs of each side that count, after one that does not.
    pub runs: usize,
    /// MiB that a sender sends in a run, all children together.
    pub mib: u64,
    /// Also what `get` and `curl` cost that write a file.
    pub receivers: bool,
}

/// A sender to be measured.
trait Server {
    /// Whose CPU and memory count.
    fn pid(&self) -> u32;
    /// Feeds `children` children the whole file, and returns when all have it. Files and logs go to `folder`.
    fn feed(&self, children: usize, folder: &Path) -> Result<()>;
}

/// One run: CPU seconds of the sender, and how much memory it had more at most than before.
#[derive(Clone, Copy)]
struct Sample {
    cpu_s: f64,
    grown_bytes: u64,
    took: Duration,
}

/// Measures and returns the tables.
pub fn run(plan: &Plan) -> Result<String> {
    let programs = build_programs()?;
    let tools = Tools {
        headwater: programs.join("headwater"),
        free_riders: programs.join("headwater-hostile"),
        nginx: find_program("nginx").context("nginx is not installed (`apt-get install nginx`)")?,
        rqbit: find_program("rqbit"),
    };
    for tool in ["curl", "openssl"] {
        find_program(tool).with_context(|| format!("{tool} is not installed"))?;
    }
    let folder = std::env::temp_dir().join(format!("headwater-bench-{}", std::process::id()));
    fs::create_dir_all(folder.join("origin"))?;
    let result = measure(plan, &tools, &folder);
    let _ = fs::remove_dir_all(&folder);
    result
}

struct Tools {
    headwater: PathBuf,
    free_riders: PathBuf,
    nginx: PathBuf,
    rqbit: Option<PathBuf>,
}

fn measure(plan: &Plan, tools: &Tools, folder: &Path) -> Result<String> {
    let mut lines = vec![format!(
        "{:>8}  {:>22}  {:>26}  {:>26}  memory per child",
        "children", "waypoint", "nginx with TLS", "rqbit (plain TCP)"
    )];
    if tools.rqbit.is_none() {
        println!("rqbit is not installed (`cargo install rqbit`): compared with nginx only");
    }
    for children in &plan.children {
        let mib = (plan.mib / *children as u64).max(1);
        let file = folder.join("origin/file");
        write_file(&file, mib)?;
        // Fresh processes for each number: what memory they keep from an earlier one would hide what this one needs.
        let site = Site::start(&tools.headwater, &tools.free_riders, folder, mib)?;
        let nginx = Nginx::start(&tools.nginx, folder, mib)?;
        let rqbit = tools.rqbit.as_ref().map(|program| Rqbit::start(program, folder, mib)).transpose()?;
        let mut servers: Vec<(&str, &dyn Server)> = vec![("waypoint", &site), ("nginx", &nginx)];
        servers.extend(rqbit.iter().map(|r| ("rqbit", r as &dyn Server)));
        println!("{children} children, {mib} MiB each");
        let bytes = *children as u64 * (mib << 20);
        let rows = alternate(&servers, *children, plan.runs, bytes, folder)?;
        lines.push(row(*children, bytes, &rows));
        if plan.receivers && *children == 1 {
            lines.push(site.beside_curl(&nginx, plan.runs, mib, folder)?);
        }
    }
    Ok(lines.join("\n"))
}

/// All samples of each server. The first of each warms caches up: its memory counts, its CPU does not.
fn alternate(
    servers: &[(&str, &dyn Server)],
    children: usize,
    runs: usize,
    bytes: u64,
    folder: &Path,
) -> Result<Vec<Vec<Sample>>> {
    let mut all = vec![Vec::new(); servers.len()];
    for run in 0..=runs {
        let mut said = Vec::new();
        for ((name, server), samples) in servers.iter().zip(&mut all) {
            let (before, begun, growth) = (cpu_of(server.pid())?, Instant::now(), Growth::watch(server.pid())?);
            server.feed(children, folder).with_context(|| format!("{name}, {children} children"))?;
            let took = begun.elapsed();
            let cpu_s = cpu_of(server.pid())? - before;
            let sample = Sample { cpu_s, grown_bytes: growth.most()?, took };
            said.push(format!(
                "{name} {cpu_s:.2} s CPU in {:.1} s ({:.0} MB/CPU-s)",
                took.as_secs_f64(),
                speed(bytes, &sample)
            ));
            samples.push(sample);
        }
        println!("  {run}: {}", said.join(", "));
    }
    Ok(all)
}

/// MB per CPU-second.
fn speed(bytes: u64, sample: &Sample) -> f64 {
    // The kernel counts in hundredths.
    bytes as f64 / 1e6 / sample.cpu_s.max(0.01)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A line of the table: medians of speeds, and of ratios run by run.
fn row(children: usize, bytes: u64, samples: &[Vec<Sample>]) -> String {
    let counted = |side: usize| samples.get(side).map_or(&[][..], |s| s.get(1..).unwrap_or_default());
    let speeds = |side: usize| counted(side).iter().map(|s| speed(bytes, s)).collect::<Vec<_>>();
    let beside = |side: usize| {
        let ratios = counted(0).iter().zip(counted(side)).map(|(a, b)| speed(bytes, a) / speed(bytes, b));
        format!("{:>4.0} MB/CPU-s, ratio {:.2}", median(speeds(side)), median(ratios.collect()))
    };
    let memory = |side: usize| {
        samples
            .get(side)
            .and_then(|s| s.first())
            .map_or("-".to_owned(), |s| format!("{:.0} KiB", s.grown_bytes as f64 / 1024.0 / children as f64))
    };
    let pace = median(counted(0).iter().map(|s| bytes as f64 / 1e6 / s.took.as_secs_f64()).collect());
    format!(
        "{children:>8}  {:>5.0} MB/CPU-s {pace:>5.0} MB/s  {:>26}  {:>26}  waypoint {}, nginx {}, rqbit {}",
        median(speeds(0)),
        beside(1),
        if samples.len() > 2 { beside(2) } else { "-".to_owned() },
        memory(0),
        memory(1),
        memory(2)
    )
}

/// `mib` MiB that do not compress.
fn write_file(path: &Path, mib: u64) -> Result<()> {
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    let mut state = mib;
    let mut block = vec![0u8; 1 << 20];
    for _ in 0..mib {
        for word in block.chunks_exact_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&state.to_le_bytes());
        }
        std::io::Write::write_all(&mut file, &block)?;
    }
    Ok(())
}
