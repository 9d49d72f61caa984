//! The same file to the same hosts over the same links with BitTorrent in place of Headwater: aria2 on every host, one that
//! has the file on the origin's host, and opentracker on the control center's. In turns with Headwater, because a
//! machine's speed drifts.
//!
//! aria2 runs with what suits it here: no limit on peers, peer exchange, a tracker that is asked often, no encryption, no
//! allocation of files beforehand; everybody seeds until the end. DHT is off, as there is nobody else to find.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use headwater_model::{Rng, Role};
use headwater_simulator::Scenario;
use headwater_simulator::scenario::{HostSpec, Reach};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::calibrate::Cache;
use crate::net::{Counters, Net};
use crate::outcome::{Bar, Outcome};
use crate::process::Process;
use crate::run::{self, Interrupted, Options, say};
use crate::site::{CONTROL, FIRST, ORIGIN, await_port, which};

/// Runs of each.
const TURNS: u64 = 3;
const TRACKER_PORT: u16 = 6969;
const FILE: &str = "content.bin";
const POLL: Duration = Duration::from_millis(20);
/// How long the one that has the file may take to tell the tracker.
const SEED_WITHIN: Duration = Duration::from_secs(20);

/// aria2's settings, on all hosts; see the module.
const ARIA2: [&str; 16] = [
    "--no-conf",
    "--listen-port=6881",
    "--seed-ratio=0.0",
    "--bt-max-peers=0",
    // Below this rate aria2 looks for more peers: always.
    "--bt-request-peer-speed-limit=100M",
    "--bt-tracker-interval=5",
    "--enable-peer-exchange=true",
    "--enable-dht=false",
    "--enable-dht6=false",
    "--bt-enable-lpd=false",
    "--max-overall-upload-limit=0",
    "--max-overall-download-limit=0",
    "--file-allocation=none",
    "--disk-cache=64M",
    "--show-console-readout=false",
    "--enable-color=false",
];

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Measures {
    /// Until the last host had everything; absent if one had not.
    makespan_s: Option<f64>,
    /// IP bytes on the origin's uplink.
    origin_bytes: u64,
    /// IP bytes from any ISP to another.
    across_bytes: u64,
}

/// Runs the scenario in turns with Headwater and with aria2. The outcome is that of Headwater's last run, with a bar for
/// each measure of each turn: Headwater's must be lower than aria2's.
///
/// # Errors
/// If the scenario has more than open hosts that ask at once, a program is missing, or a run cannot be set up.
pub fn run(scenario: &Scenario, options: &Options, cache: &mut Cache) -> Result<Outcome> {
    let programs = Programs::find()?;
    let hosts = scenario.hosts(options.seed);
    check(scenario, &hosts)?;
    let mut last = None;
    let (mut bars, mut notes) = (Vec::new(), Vec::new());
    for turn in 1..=TURNS {
        let ours = run::run(scenario, options, cache)?;
        let theirs = aria2(scenario, &hosts, options, &programs)?;
        let mine = Measures {
            makespan_s: ours.makespan_s,
            origin_bytes: ours.origin.wire_up_bytes,
            across_bytes: ours.isps.iter().filter(|f| f.from != f.to).map(|f| f.wire_bytes).sum(),
        };
        let note = format!("turn {turn}: Headwater {mine}; aria2 {theirs}");
        say(&scenario.name, &note);
        notes.push(note);
        bars.extend(judge(turn, mine, theirs, scenario.time_limit_s));
        last = Some(ours);
    }
    let mut outcome = last.context("no turn")?;
    outcome.notes.extend(notes);
    outcome.notes.push(format!("aria2 ran with {}", ARIA2.join(" ")));
    outcome.bars.extend(bars);
    outcome.pass = outcome.bars.iter().all(|bar| bar.pass);
    Ok(outcome)
}

impl std::fmt::Display for Measures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.makespan_s {
            Some(makespan) => write!(f, "{makespan:.1} s")?,
            None => f.write_str("did not finish")?,
        }
        let mb = |bytes: u64| bytes as f64 / 1e6;
        write!(f, ", {:.1} MB from the origin, {:.1} MB across ISPs", mb(self.origin_bytes), mb(self.across_bytes))
    }
}

/// What BitTorrent has no counterpart of is no comparison.
fn check(scenario: &Scenario, hosts: &[HostSpec]) -> Result<()> {
    let plain =
        |h: &HostSpec| h.reach == Reach::Open && h.role == Role::Peer && h.hostile.is_none() && h.site.is_none();
    ensure!(
        scenario.faults.is_empty() && scenario.arrive_within_s == 0.0 && hosts.iter().all(plain),
        "scenario {}: the baseline is for open peers that all ask at once, without faults",
        scenario.name
    );
    Ok(())
}

/// Lower is better, and equal is not lower.
fn judge(turn: u64, ours: Measures, theirs: Measures, time_limit_s: f64) -> [Bar; 3] {
    let bar = |what: &str, value: Option<f64>, bound: Option<f64>| Bar {
        name: format!("{what}_{turn}"),
        value,
        bound: bound.unwrap_or(time_limit_s),
        ratio: value.zip(bound).map(|(v, b)| v / b),
        pass: value.is_some_and(|v| bound.is_none_or(|b| v < b)),
        note: match (value, bound) {
            (None, _) => "Headwater did not finish".into(),
            (_, None) => "aria2 did not finish".into(),
            _ => "Headwater, against aria2".into(),
        },
    };
    let mb = |bytes: u64| Some(bytes as f64 / 1e6);
    [
        bar("makespan_s", ours.makespan_s, theirs.makespan_s),
        bar("origin_mb", mb(ours.origin_bytes), mb(theirs.origin_bytes)),
        bar("across_mb", mb(ours.across_bytes), mb(theirs.across_bytes)),
    ]
}

struct Programs {
    aria2: PathBuf,
    tracker: PathBuf,
}

impl Programs {
    fn find() -> Result<Programs> {
        Ok(Programs { aria2: which("aria2c", "aria2")?, tracker: which("opentracker", "opentracker")? })
    }
}

/// One run with aria2.
fn aria2(scenario: &Scenario, hosts: &[HostSpec], options: &Options, programs: &Programs) -> Result<Measures> {
    // Declared before the processes, so that it goes after them.
    let folder = tempfile::Builder::new().prefix("headwater-lab-").tempdir()?;
    let folder = folder.path();
    let net = Net::build(run::net_spec(scenario, hosts))?;
    let home = |name: &str| -> Result<PathBuf> {
        let home = folder.join(name);
        fs::create_dir(&home)?;
        Ok(home)
    };
    let (origin, tracker) = (home("origin")?, SocketAddr::new(net.inner_address(CONTROL), TRACKER_PORT));
    let pieces = make_content(&origin.join(FILE), scenario.content_bytes, scenario.piece_bytes as usize, options.seed)?;
    let info = info(scenario, &pieces);
    let torrent = folder.join("content.torrent");
    fs::write(&torrent, torrent_file(&format!("http://{tracker}/announce"), &info))?;
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &info);
    let _tracker = start_tracker(&net, &programs.tracker, &home("tracker")?, tracker, hash.as_ref())?;

    let told = folder.join("told");
    fs::write(&told, "#!/bin/sh\n: > \"$3.complete\"\n")?;
    fs::set_permissions(&told, fs::Permissions::from_mode(0o755))?;
    let start = |host: usize, home: &Path, more: &[&str]| {
        let mut command = net.command(host, &programs.aria2);
        command.args(ARIA2).args(more).arg("--dir").arg(home);
        command.arg("--on-bt-download-complete").arg(&told).arg(&torrent);
        Process::server(command, &home.with_extension("log"))
    };
    let _seed = start(ORIGIN, &origin, &["--bt-seed-unverified=true", "--allow-overwrite=true"])?;
    await_seed(&net, tracker, hash.as_ref())?;

    let homes: Vec<PathBuf> = hosts.iter().map(|h| home(&h.name)).collect::<Result<_>>()?;
    let before = net.counters();
    let zero = Instant::now();
    let mut running = Vec::new();
    for (i, home) in homes.iter().enumerate() {
        running.push(start(FIRST + i, home, &[])?);
    }
    let mut missing: Vec<usize> = (0..homes.len()).collect();
    while !missing.is_empty() && zero.elapsed().as_secs_f64() < scenario.time_limit_s {
        if options.interrupted.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        std::thread::sleep(POLL);
        missing.retain(|i| !homes[*i].join(FILE).with_extension("bin.complete").exists());
        for i in &missing {
            if running[*i].ended().is_some() {
                bail!("aria2 on {} ended; {}", hosts[*i].name, running[*i].last_words());
            }
        }
    }
    let makespan_s = missing.is_empty().then(|| zero.elapsed().as_secs_f64());
    let after = net.counters();
    let right = fs::read(origin.join(FILE))?;
    for (i, home) in homes.iter().enumerate().filter(|(i, _)| !missing.contains(i)) {
        ensure!(fs::read(home.join(FILE))? == right, "aria2 on {} has wrong bytes", hosts[i].name);
    }
    let origin_bytes = |c: &Counters| c.hosts.get(ORIGIN).map_or(0, |h| h.up.bytes);
    let across_bytes =
        |c: &Counters| c.peering.iter().filter(|((a, b), _)| a != b).map(|(_, link)| link.bytes).sum::<u64>();
    Ok(Measures {
        makespan_s,
        origin_bytes: origin_bytes(&after) - origin_bytes(&before),
        across_bytes: across_bytes(&after) - across_bytes(&before),
    })
}

/// opentracker serves only what is on its list, and never as root: it enters `home` and becomes nobody.
fn start_tracker(net: &Net, program: &Path, home: &Path, at: SocketAddr, hash: &[u8]) -> Result<Process> {
    fs::write(home.join("torrents"), format!("{}\n", hex(hash)))?;
    let mut command = net.command(CONTROL, program);
    let port = at.port().to_string();
    command.args(["-i", &at.ip().to_string(), "-p", &port, "-P", &port, "-w", "torrents", "-u", "nobody", "-d"]);
    command.arg(home);
    let tracker = Process::server(command, &home.with_extension("log"))?;
    await_port(net, CONTROL, at).context("opentracker does not listen")?;
    Ok(tracker)
}

/// Waits until the tracker knows the one that has the file.
fn await_seed(net: &Net, tracker: SocketAddr, hash: &[u8]) -> Result<()> {
    let ask = format!("/scrape?info_hash={}", hash.iter().map(|byte| format!("%{byte:02x}")).collect::<String>());
    net.within(CONTROL, || {
        let deadline = Instant::now() + SEED_WITHIN;
        loop {
            let answer = http_get(tracker, &ask)?;
            if answer.windows(SEEDED.len()).any(|part| part == SEEDED) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the tracker never heard of the file: {}", answer.escape_ascii());
            std::thread::sleep(POLL);
        }
    })?
}

/// One complete copy, in a tracker's answer (BEP 48).
const SEEDED: &[u8] = b"8:completei1e";

fn http_get(from: SocketAddr, path: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(from)?;
    stream.set_read_timeout(Some(SEED_WITHIN))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {from}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Writes arbitrary bytes; the SHA-1 of each piece, one after the other.
fn make_content(path: &Path, bytes: u64, piece_bytes: usize, seed: u64) -> Result<Vec<u8>> {
    let mut random = Rng::new(seed, "content");
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (mut pieces, mut piece, mut left) = (Vec::new(), Vec::with_capacity(piece_bytes + 8), bytes);
    while left > 0 {
        piece.clear();
        while piece.len() < piece_bytes {
            piece.extend_from_slice(&random.next_u64().to_le_bytes());
        }
        piece.truncate(left.min(piece_bytes as u64) as usize);
        file.write_all(&piece)?;
        pieces.extend_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, &piece).as_ref());
        left -= piece.len() as u64;
    }
    file.flush()?;
    Ok(pieces)
}

/// The dictionary whose hash names a torrent (BEP 3); keys in order.
fn info(scenario: &Scenario, pieces: &[u8]) -> Vec<u8> {
    let (length, name, piece) = (scenario.content_bytes, FILE, scenario.piece_bytes);
    let head =
        format!("d6:lengthi{length}e4:name{}:{name}12:piece lengthi{piece}e6:pieces{}:", name.len(), pieces.len());
    [head.as_bytes(), pieces, b"e"].concat()
}

fn torrent_file(announce: &str, info: &[u8]) -> Vec<u8> {
    let head = format!("d8:announce{}:{announce}4:info", announce.len());
    [head.as_bytes(), info, b"e"].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn every_measure_must_be_lower() {
        let measures = |makespan_s, origin_bytes| Measures { makespan_s, origin_bytes, across_bytes: 5 };
        let passes = |ours, theirs| judge(1, ours, theirs, 300.0).map(|bar| bar.pass);
        assert_eq!(passes(measures(Some(1.0), 9), measures(Some(2.0), 10)), [true, true, false]);
        assert_eq!(passes(measures(None, 9), measures(Some(2.0), 9)), [false, false, false]);
        assert_eq!(passes(measures(Some(9.0), 9), measures(None, 10)), [true, true, false]);
    }

    #[test]
    fn four_hosts_get_a_file_with_aria2() {
        let _alone = crate::net::tests::alone();
        let text = "name = \"x\"\ncontent_bytes = 4_000_000\npiece_bytes = 65_536\norigin_up_mbit = 20.0\n\
            time_limit_s = 60.0\n[network]\n[[groups]]\ncount = 2\nup_mbit = 20.0\ndown_mbit = 20.0\n\
            [[groups]]\ncount = 2\nisp = 2\nup_mbit = 20.0\ndown_mbit = 20.0\n";
        let scenario: Scenario = toml::from_str(text).unwrap();
        let options = Options {
            seed: 1,
            programs: PathBuf::new(),
            keep_files: false,
            assumed_factor: None,
            interrupted: Arc::default(),
        };
        let programs = match Programs::find() {
            Ok(programs) if nix::unistd::geteuid().is_root() => programs,
            Ok(_) => return eprintln!("SKIPPED: not root"),
            Err(error) => return eprintln!("SKIPPED: {error:#}"),
        };
        let measures = aria2(&scenario, &scenario.hosts(1), &options, &programs).unwrap();
        eprintln!("{measures}");
        // One copy over the origin's line takes 1.6 s.
        assert!(measures.makespan_s.is_some_and(|s| s > 1.5), "{measures:?}");
        assert!(measures.origin_bytes > 4_000_000 && measures.across_bytes > 4_000_000, "{measures:?}");
    }

    #[test]
    fn the_torrent_is_well_formed() {
        let folder = tempfile::tempdir().unwrap();
        let mut scenario: Scenario = toml::from_str(
            "name = \"x\"\ncontent_bytes = 100_000\npiece_bytes = 65_536\norigin_up_mbit = 20.0\n[[groups]]\ncount = 1\nup_mbit = 1.0\ndown_mbit = 1.0\n",
        )
        .unwrap();
        let pieces = make_content(&folder.path().join("f"), 100_000, 65_536, 1).unwrap();
        assert_eq!((pieces.len(), fs::metadata(folder.path().join("f")).unwrap().len()), (40, 100_000));
        let info = info(&scenario, &pieces);
        assert!(info.starts_with(b"d6:lengthi100000e4:name11:content.bin12:piece lengthi65536e6:pieces40:"));
        let file = torrent_file("http://t/announce", &info);
        assert!(file.starts_with(b"d8:announce17:http://t/announce4:infod6:") && file.ends_with(b"ee"));
        check(&scenario, &scenario.hosts(1)).unwrap();
        scenario.arrive_within_s = 1.0;
        assert!(check(&scenario, &scenario.hosts(1)).is_err());
    }
}
