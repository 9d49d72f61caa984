//! Real programs that read through the gateway while the content arrives: the right bytes, and no pause that the paced
//! line does not impose. Each says beside its pauses what the same bytes take from the origin directly.

use crate::gateway::{MIB, reader};
use crate::site::Site;
use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the origin sends in a second.
const RATE: f64 = 3e6;
/// What starting a program, asking the control center and the rest of this machine may add to the line's own time.
const BESIDE: Duration = Duration::from_millis(1500);

/// A program, without proxies and without the user's settings; `None`, and said so, where it is missing.
pub fn program(name: &str, package: &str) -> Option<Command> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&folders).any(|folder| folder.join(name).is_file()) {
        eprintln!("SKIPPED: there is no {name}; install the package {package}");
        return None;
    }
    let mut command = Command::new(name);
    for variable in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY"] {
        command.env_remove(variable);
    }
    command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    Some(command)
}

/// What came out of a program, and how.
struct Came {
    bytes: Vec<u8>,
    took: Duration,
    /// The longest time without a byte, from the start on.
    paused: Duration,
}

/// Runs it to its good end.
fn timed(mut command: Command) -> Came {
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let (mut bytes, mut paused, mut last) = (Vec::new(), Duration::ZERO, begun);
    let mut chunk = vec![0; 64 << 10];
    while let n @ 1.. = out.read(&mut chunk).unwrap() {
        bytes.extend(&chunk[..n]);
        paused = paused.max(last.elapsed());
        last = Instant::now();
    }
    let said = child.wait_with_output().unwrap();
    assert!(said.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said.stderr));
    Came { bytes, took: begun.elapsed(), paused }
}

fn seconds(bytes: usize) -> Duration {
    Duration::from_secs_f64(bytes as f64 / RATE)
}

/// Numbers below `limit`, always the same.
fn numbers(mut state: u64) -> impl FnMut(usize) -> usize {
    move |limit| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    }
}

/// `curl` reads random ranges of `url`; its pauses in a line.
fn random_ranges(url: &str, whole: &[u8], ranges: usize) -> Option<String> {
    let mut next = numbers(41);
    let (mut took, mut paused, mut direct, mut over) = (Vec::new(), Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for _ in 0..ranges {
        let first = next(whole.len());
        let end = whole.len().min(first + 1 + next(400_000));
        let mut curl = program("curl", "curl")?;
        curl.args(["-q", "-sSf", "-N", "-r", &format!("{first}-{}", end - 1), url]);
        let came = timed(curl);
        assert!(came.bytes == whole[first..end], "{} bytes from {first} on are not those", came.bytes.len());
        let alone = seconds(end - first);
        paused = paused.max(came.paused);
        over = over.max(came.took.saturating_sub(alone));
        direct += alone;
        took.push(came.took);
    }
    took.sort_unstable();
    assert!(over < BESIDE, "a range took {over:.1?} longer than its bytes from the origin alone; all: {took:?}");
    let (sum, half, most) = (took.iter().sum::<Duration>(), took[took.len() / 2], took[took.len() - 1]);
    Some(format!(
        "{ranges} ranges in {sum:.2?} (from the origin alone {direct:.2?}), half of them in {half:.2?}, the slowest in \
         {most:.2?}; longest pause {paused:.2?}"
    ))
}

#[test]
fn curl_reads_random_ranges_while_a_film_arrives() {
    let site = Site::start("3MB/s");
    site.write("film", 16 * MIB, 41);
    let name = site.publish("film", &[]);
    let film = std::fs::read(site.path("www/film")).unwrap();
    let (peer, url) = reader(&site, &name, "reader");
    let Some(said) = random_ranges(&format!("{url}film"), &film, 30) else { return };
    eprintln!("curl, alone: {said}");
    let done = peer.until("everything", |v| v["contents"][0]["complete"] == true);
    let origin = done["contents"][0]["origin_bytes"].as_u64().unwrap();
    assert!(origin < 17 * MIB as u64, "{origin} bytes came from the origin");
}

#[test]
fn curl_reads_random_ranges_among_peers() {
    let site = Site::start("3MB/s");
    site.write("film", 12 * MIB, 42);
    let name = site.publish("film", &[]);
    let seed = site.get(&name, "seed", &["--up", "3MB/s"]);
    seed.event("complete");
    let _other = site.get(&name, "other", &["--up", "3MB/s"]);
    let film = std::fs::read(site.path("www/film")).unwrap();
    let (peer, url) = reader(&site, &name, "reader");
    let Some(said) = random_ranges(&format!("{url}film"), &film, 20) else { return };
    eprintln!("curl, with two peers: {said}");
    peer.until("everything", |v| v["contents"][0]["complete"] == true);
}

#[test]
fn ffmpeg_plays_films_while_they_arrive() {
    let Some(mut make) = program("ffmpeg", "ffmpeg") else { return };
    let site = Site::start("3MB/s");
    let (at_end, at_start) = (site.path("www/end.mp4"), site.path("www/start.mp4"));
    let source = ["-v", "error", "-f", "lavfi", "-i", "testsrc2=duration=20:size=640x360:rate=25"];
    make.args(source).args(["-c:v", "mpeg4", "-q:v", "2", "-g", "25", &at_end]);
    timed(make);
    let mut again = program("ffmpeg", "ffmpeg").unwrap();
    again.args(["-v", "error", "-i", &at_end, "-c", "copy", "-movflags", "+faststart", &at_start]);
    timed(again);
    // How many frames are played, from some second on.
    let play = |url: &str, from: &str| {
        let mut ffmpeg = program("ffmpeg", "ffmpeg").unwrap();
        ffmpeg.args(["-v", "error", "-progress", "pipe:1", "-stats_period", "0.1", "-ss", from, "-i", url]);
        ffmpeg.args(["-f", "null", "-"]);
        let came = timed(ffmpeg);
        let said = String::from_utf8(came.bytes).unwrap();
        let frames = said.lines().filter_map(|l| l.strip_prefix("frame=")?.trim().parse::<u32>().ok()).next_back();
        (frames.unwrap_or(0), came.took, came.paused)
    };
    for file in ["end.mp4", "start.mp4"] {
        let bytes = std::fs::metadata(site.path(&format!("www/{file}"))).unwrap().len() as usize;
        assert!(bytes > 4 * MIB, "{bytes} bytes are here before they are read");
        let name = site.publish(file, &[]);
        let (_peer, url) = reader(&site, &name, file);
        let url = format!("{url}{file}");
        // The last five seconds of it first: its index, wherever it is, then what is far from the beginning.
        let (frames, took, paused) = play(&url, "15");
        assert_eq!(frames, 125);
        let line = seconds(bytes / 4);
        eprintln!(
            "ffmpeg, {file} ({bytes} bytes) from second 15 on: {took:.2?} (the line {line:.2?}), pause {paused:.2?}"
        );
        assert!(took < line + BESIDE * 2, "{took:.1?}");
        let (frames, took, paused) = play(&url, "0");
        assert_eq!(frames, 500);
        let line = seconds(bytes);
        eprintln!("ffmpeg, {file}, whole: {took:.2?} (the line {line:.2?}), longest pause {paused:.2?}");
        assert!(took < line + BESIDE * 2, "{took:.1?}");
    }
}

/// Compares all files of a folder with those of another one.
fn same_files(one: &Path, other: &Path) -> usize {
    let mut same = 0;
    for entry in std::fs::read_dir(one).unwrap() {
        let (path, beside) = (entry.as_ref().unwrap().path(), other.join(entry.unwrap().file_name()));
        if path.is_dir() {
            same += same_files(&path, &beside);
        } else {
            let read = std::fs::read(&beside).unwrap_or_else(|e| panic!("{}: {e}", beside.display()));
            assert!(std::fs::read(&path).unwrap() == read, "{} is another", beside.display());
            same += 1;
        }
    }
    same
}

#[test]
fn wget_fetches_a_folder_while_it_arrives() {
    let Some(mut wget) = program("wget", "wget") else { return };
    let site = Site::start("3MB/s");
    for (n, (path, bytes)) in
        [("a b.txt", 300_000), ("deep/er/c.bin", 5_000_000), ("deep/ü#%?.bin", 70_000), ("empty", 0), ("z/d", 900_000)]
            .into_iter()
            .enumerate()
    {
        site.write(&format!("tree/{path}"), bytes, 43 + n as u64);
    }
    let name = site.publish("tree", &[]);
    let (_peer, url) = reader(&site, &name, "reader");
    let out = site.path("out");
    wget.args(["-q", "-r", "-np", "-nH", "--cut-dirs=2", "--restrict-file-names=nocontrol", "-P", &out, &url]);
    let came = timed(wget);
    assert_eq!(same_files(Path::new(&site.path("www/tree")), Path::new(&out)), 5);
    let line = seconds(6_270_000);
    eprintln!("wget, a folder: {:.2?} (the line {line:.2?})", came.took);
    assert!(came.took < line + BESIDE * 2, "{:.1?}", came.took);
}

#[test]
fn apt_installs_from_a_folder_while_it_arrives() {
    let tools = ["apt-get", "dpkg-deb", "dpkg-scanpackages"].map(|tool| program(tool, "apt and dpkg-dev"));
    let [Some(mut update), Some(mut build), Some(mut scan)] = tools else { return };
    let site = Site::start("3MB/s");
    // A package of some megabytes that do not compress.
    site.write("repo/filler", 2 * MIB, 50);
    let package = site.path("package");
    std::fs::create_dir_all(format!("{package}/DEBIAN")).unwrap();
    std::fs::create_dir_all(format!("{package}/usr/share/film")).unwrap();
    std::fs::copy(site.path("www/repo/filler"), format!("{package}/usr/share/film/film")).unwrap();
    let control =
        "Package: film\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@films.example>\nDescription: a film\n";
    std::fs::write(format!("{package}/DEBIAN/control"), control).unwrap();
    std::fs::create_dir(site.path("www/repo/pool")).unwrap();
    let deb = site.path("www/repo/pool/film_1.0_all.deb");
    build.args(["--root-owner-group", "-b", &package, &deb]);
    timed(build);
    scan.args(["--multiversion", "pool"]).current_dir(site.path("www/repo"));
    let packages = timed(scan).bytes;
    std::fs::write(site.path("www/repo/Packages"), packages).unwrap();
    let name = site.publish("repo", &[]);
    let (_peer, url) = reader(&site, &name, "reader");

    // A root of its own, so that nothing of this machine is read or changed.
    let root = site.path("root");
    for folder in [
        "etc/apt/preferences.d",
        "etc/apt/apt.conf.d",
        "var/lib/apt/lists/partial",
        "var/cache/apt/archives/partial",
        "var/lib/dpkg",
    ] {
        std::fs::create_dir_all(format!("{root}/{folder}")).unwrap();
    }
    std::fs::write(format!("{root}/var/lib/dpkg/status"), "").unwrap();
    std::fs::write(format!("{root}/etc/apt/sources.list"), format!("deb [trusted=yes] {url} ./\n")).unwrap();
    let mut options = String::new();
    for option in [
        format!("Dir \"{root}\""),
        format!("Dir::State::status \"{root}/var/lib/dpkg/status\""),
        "APT::Sandbox::User \"root\"".into(),
        "Acquire::Languages \"none\"".into(),
        "Acquire::http::Proxy \"DIRECT\"".into(),
        "Acquire::Retries \"0\"".into(),
    ] {
        let _ = writeln!(options, "{option};");
    }
    let settings = site.path("apt.conf");
    std::fs::write(&settings, options).unwrap();
    update.env("APT_CONFIG", &settings).args(["-q", "update"]);
    let updated = timed(update);
    let mut download = program("apt-get", "apt").unwrap();
    download.env("APT_CONFIG", &settings).current_dir(&root).args(["-q", "download", "film"]);
    let came = timed(download);
    let line = seconds(std::fs::metadata(&deb).unwrap().len() as usize);
    assert!(std::fs::read(format!("{root}/film_1.0_all.deb")).unwrap() == std::fs::read(&deb).unwrap());
    eprintln!("apt: update {:.2?}, download {:.2?} (the line {line:.2?})", updated.took, came.took);
    assert!(came.took < line + BESIDE * 2, "{:.1?}", came.took);
    // What it has it does not read again.
    let mut again = program("apt-get", "apt").unwrap();
    again.env("APT_CONFIG", &settings).args(["-q", "update"]);
    let said = String::from_utf8(timed(again).bytes).unwrap();
    assert!(said.contains("Hit:") || said.contains("Ign:"), "{said}");
}
