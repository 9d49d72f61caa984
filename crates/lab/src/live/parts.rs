//! What a live channel in the lab is made of: its encoder, its publisher, viewers' peers and probes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::Sender;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use headwater_simulator::scenario::{HostSpec, Ingest, Live, Reach, Scenario};

use super::{PUBLISHER, TICK, WITHIN};
use crate::net::Net;
use crate::process::{Heard, Process, Who, output_of};
use crate::run::Options;
use crate::site::{FIRST, ORIGIN, Site, which};

/// Where an encoder puts the channel.
const PUSH_PORT: u16 = 8080;
/// Where viewers that reach no control center find the channel's log.
const LOG_PORT: u16 = 8081;

/// Noise at a constant rate: what an encoder makes of a difficult scene, all the time. It writes below `folder`, or puts
/// to the URL.
pub fn encode(live: &Live, net: &Net, folder: &Path, to: Option<&str>) -> Result<Process> {
    let www = folder.join("www").join("live");
    std::fs::create_dir_all(&www)?;
    let program = which("ffmpeg", "ffmpeg")?;
    let mut command = if to.is_some() { net.command(ORIGIN, &program) } else { Command::new(program) };
    // A tenth is for sound and for the container.
    let video = format!("{:.0}k", live.mbit * 1000.0 * 0.88);
    let frames = format!("{:.0}", live.segment_s * 25.0);
    command.current_dir(&www).args(["-v", "error", "-nostdin", "-re", "-f", "lavfi"]);
    command.args(["-i", "testsrc=size=480x270:rate=25", "-re", "-f", "lavfi", "-i", "sine=sample_rate=48000"]);
    command.args(["-vf", "noise=alls=40:allf=t", "-c:v", "libx264", "-preset", "ultrafast", "-g", &frames]);
    command.args(["-b:v", &video, "-minrate", &video, "-maxrate", &video, "-bufsize", &video, "-c:a", "aac"]);
    command.args(["-b:a", "64k"]);
    let seconds = live.segment_s.to_string();
    if let Some(to) = to {
        // Its `hls` would put each segment when that is over; this one puts it while it is made.
        command.args(["-f", "segment", "-segment_format", "mpegts", "-segment_time", &seconds, "-flush_packets", "1"]);
        command.args(["-segment_list_type", "m3u8", "-segment_list_size", "10", "-segment_list_flags", "+live"]);
        command.args(["-segment_list", to, &to.replace("index.m3u8", "segment%d.ts")]);
        return Process::server(command, &folder.join("logs").join("encoder")).context("ffmpeg");
    }
    command.args(["-f", "hls", "-hls_time", &seconds, "-hls_list_size", "10"]);
    command.args(["-hls_flags", "program_date_time+delete_segments", "index.m3u8"]);
    let mut encoder = Process::server(command, &folder.join("logs").join("encoder")).context("ffmpeg")?;
    let deadline = Instant::now() + WITHIN;
    let index = www.join("index.m3u8");
    while !std::fs::read_to_string(&index).is_ok_and(|text| text.matches("#EXTINF").count() >= 4) {
        ensure!(encoder.ended().is_none(), "the encoder ended; {}", encoder.last_words());
        ensure!(Instant::now() < deadline, "the encoder makes no segments; {}", encoder.last_words());
        std::thread::sleep(TICK);
    }
    Ok(encoder)
}

/// The channel's publisher, on the origin's host.
pub fn publish(
    (scenario, live): (&Scenario, &Live),
    net: &Net,
    options: &Options,
    folder: &Path,
    site: &Site,
    heard: &Sender<Heard>,
) -> Result<Process> {
    let origin = net.inner_address(ORIGIN);
    let mut command = net.command(ORIGIN, &options.programs.join("headwater"));
    command.arg("publish");
    match live.ingest {
        Ingest::Follow => command.args(["--live", &format!("http://{}/live/index.m3u8", SocketAddr::new(origin, 80))]),
        Ingest::Push => command.args(["--live-push", &SocketAddr::new(origin, PUSH_PORT).to_string()]),
    };
    command.args(["--name", "lab/live", "--rate", &format!("{}Mbit/s", live.mbit), "--json", "--exit-with-stdin"]);
    command.args(["--control", &format!("https://{}", site.control_address), "--cc", &site.control_id]);
    command.args(["--token", &site.token, "--join-token", &site.join_token(net)?]);
    command.args(["--up", &format!("{}Mbit/s", scenario.origin_up_mbit)]);
    command.args(["--listen", &SocketAddr::new(origin, 0).to_string()]);
    command.args(["--log-listen", &SocketAddr::new(origin, LOG_PORT).to_string()]);
    command.arg("--key").arg(folder.join("publisher.key")).arg("--data").arg(folder.join("publisher"));
    Process::start(command, Who::Host(PUBLISHER), 1, &site.log_of("publisher"), heard)
}

/// Many machines' programs on a few processors: none of them needs more than one thread.
fn of_a_viewer(net: &Net, host: usize, options: &Options) -> Command {
    let mut command = net.command(FIRST + host, &options.programs.join("headwater"));
    command.env("TOKIO_WORKER_THREADS", "1");
    command
}

/// The peer of a viewer, in its life of that number, with the join token if it is given one.
pub fn peer(
    (host, spec, life): (usize, &HostSpec, u64),
    net: &Net,
    options: &Options,
    site: &Site,
    token: Option<&str>,
    heard: &Sender<Heard>,
) -> Result<Process> {
    let mut command = of_a_viewer(net, host, options);
    command.args(["peer", "--control", &site.control_address.to_string(), "--cc", &site.control_id]);
    command.args(["--gateway", "127.0.0.1:7480", "--no-port-mapping", "--json", "--exit-with-stdin"]);
    command.args(["--up", &format!("{}Mbit/s", spec.up_mbit)]).arg("--data").arg(site.folder_of(&spec.name)?);
    if let Some(token) = token {
        command.args(["--join-token", token]);
    }
    if spec.reach == Reach::DialOnly {
        command.arg("--dial-only");
    }
    Process::start(command, Who::Host(host), life, &site.log_of(&spec.name), heard)
}

/// A player without a screen at a viewer's peer, for so long.
pub fn probe(
    (host, spec, life): (usize, &HostSpec, u64),
    net: &Net,
    options: &Options,
    site: &Site,
    (name, hold_back_s, seconds): (&str, f64, f64),
    (heard, who): (&Sender<Heard>, usize),
) -> Result<Process> {
    let mut command = of_a_viewer(net, host, options);
    command.args(["play", name, "--probe", "--json", "--seconds", &format!("{:.1}", seconds.max(5.0))]);
    command.args(["--hold-back", &hold_back_s.to_string()]).arg("--data").arg(site.folder_of(&spec.name)?);
    Process::start(command, Who::Host(who), life, &site.log_of(&format!("{}-probe", spec.name)), heard)
}

/// Has a viewer's peer fetch the scenario's content, too.
pub fn fetch((host, spec): (usize, &HostSpec), net: &Net, options: &Options, site: &Site) -> Result<()> {
    let mut command = net.command(FIRST + host, &options.programs.join("headwater"));
    command.args(["fetch", &site.hw, "--pin", "--data"]).arg(site.folder_of(&spec.name)?);
    output_of(command).with_context(|| format!("{}: fetch", spec.name)).map(drop)
}

/// Takes the scenario's content from a viewer's peer as a file; where it is.
pub fn export((host, spec): (usize, &HostSpec), net: &Net, options: &Options, site: &Site) -> Result<PathBuf> {
    let folder = site.folder_of(&spec.name)?;
    let path = folder.join("content.bin");
    let mut command = net.command(FIRST + host, &options.programs.join("headwater"));
    command.arg("export").arg(&site.hw).arg("--data").arg(&folder).arg("-o").arg(&path);
    output_of(command).with_context(|| format!("{}: export", spec.name))?;
    Ok(path)
}
