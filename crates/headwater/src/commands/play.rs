//! `headwater play`: a stream or a film in the user's player, or in one without a screen that measures.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use headwater_hls::player::Rules;
use headwater_model::time::Micros;
use serde_json::json;
use url::Url;

use super::{print, print_json};
use crate::exit::Ending;
use crate::lifetime;
use crate::local_api::client::PeerAccess;
use crate::probe::{Plan, Probe, Report};

/// Players that are looked for, and what each is told beside the address.
const PLAYERS: [(&str, &[&str]); 3] = [("mpv", &[]), ("vlc", &[]), ("ffplay", &["-autoexit", "-loglevel", "warning"])];
/// How long the peer may take to know what a content is.
const OPENED_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Play a stream or a film, in your player or in one without a screen that measures
///
/// An http address is played as it is. An hw:// name is fetched by the peer of this machine (`headwater peer`) and read at
/// its gateway while it arrives.
///
/// With --probe nothing is shown: an HLS playlist is followed by a player's rules, and what a viewer would have seen is
/// reported: start-up time, stalls, lag, gaps and repeats of the media itself.
#[derive(Debug, Args)]
pub struct PlayArgs {
    /// Address of an HLS playlist or a film, or an hw:// name (quote it: it has a # in it)
    source: String,
    /// Of a folder: which file of it, as `live/index.m3u8`
    #[arg(long, value_name = "PATH")]
    file: Option<String>,
    /// The player to open [default: the first of mpv, vlc, ffplay that is there]
    #[arg(long, value_name = "PROGRAM", conflicts_with = "probe")]
    player: Option<PathBuf>,
    /// Show nothing, and measure: for HLS
    #[arg(long)]
    probe: bool,
    /// Measure for so long; to the end of the stream, or Ctrl-C, without
    #[arg(long, value_name = "SECONDS", requires = "probe")]
    seconds: Option<f64>,
    /// Begin so long before the end of a live playlist
    #[arg(long, value_name = "SECONDS", default_value = "6", requires = "probe")]
    hold_back: f64,
    /// Start when so much is buffered; with the first segment without
    #[arg(long, value_name = "SECONDS", default_value = "0", requires = "probe")]
    start_with: f64,
    /// Go on after a stall when so much is buffered; with the next segment without
    #[arg(long, value_name = "SECONDS", default_value = "0", requires = "probe")]
    go_on_with: f64,
    /// Fetch so much ahead
    #[arg(long, value_name = "SECONDS", default_value = "30", requires = "probe")]
    fetch_ahead: f64,
    #[command(flatten)]
    peer: PeerAccess,
    /// Print the measures as one JSON object
    #[arg(long, requires = "probe")]
    json: bool,
    /// Exit when standard input ends.
    #[arg(long, hide = true, requires = "probe")]
    exit_with_stdin: bool,
}

pub async fn run(args: PlayArgs) -> Result<()> {
    let is_content = args.source.starts_with("hw://");
    let address = if is_content {
        at_gateway(&args).await?
    } else {
        let address: Url =
            args.source.parse().map_err(|e| Ending::Usage(format!("{:?} is no address: {e}", args.source)))?;
        if !matches!(address.scheme(), "http" | "https") {
            return Err(Ending::Usage(format!("{address} is no http address")).into());
        }
        if args.file.is_some() || args.peer.data.is_some() {
            return Err(Ending::Usage("--file and --data are for hw:// names".into()).into());
        }
        address
    };
    if args.probe { probe(&args, address, !is_content).await } else { open(&args, &address).await }
}

/// Where the peer of this machine serves the content.
async fn at_gateway(args: &PlayArgs) -> Result<Url> {
    let peer = args.peer.peer()?;
    let said = peer.fetch(&args.source, false).await?;
    let id = said["content"].as_str().context("the peer does not say which content that is")?.to_owned();
    let opened = async {
        loop {
            let contents = peer.contents().await?;
            let found = contents.into_iter().find(|c| c.status.content == id);
            if let Some(url) = found.and_then(|c| c.status.gateway) {
                return anyhow::Ok(url);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let url = tokio::time::timeout(OPENED_WITHIN, opened).await.context(
        "the peer does not serve it: it has no gateway, or does not know the content; see `headwater status`",
    )??;
    let mut address: Url = url.parse().with_context(|| format!("{url:?} is no address"))?;
    if let (Some(file), Ok(mut path)) = (&args.file, address.path_segments_mut()) {
        path.pop_if_empty().extend(file.split('/'));
    }
    Ok(address)
}

/// The program of this name, if it is on the path.
fn program(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    std::env::split_paths(&paths).map(|folder| folder.join(&file)).find(|path| path.is_file())
}

async fn open(args: &PlayArgs, address: &Url) -> Result<()> {
    let (player, options) = match &args.player {
        Some(player) => (player.clone(), &[][..]),
        None => PLAYERS.iter().find_map(|(name, options)| Some((program(name)?, *options))).ok_or_else(|| {
            Ending::Refused(format!("neither mpv nor vlc nor ffplay is here: say --player, or open {address}"))
        })?,
    };
    print(&format!("{} plays {address}", player.display()))?;
    let mut child = tokio::process::Command::new(&player)
        .args(options)
        .arg(address.as_str())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", player.display()))?;
    tokio::select! {
        ended = child.wait() => {
            let status = ended.context("the player")?;
            anyhow::ensure!(status.success(), "the player ended with {status}");
            Ok(())
        }
        () = lifetime::shutdown(false) => Err(Ending::Interrupted.into()),
    }
}

async fn probe(args: &PlayArgs, address: Url, proxy: bool) -> Result<()> {
    let span = |name: &str, s: f64| {
        let sane = (0.0..=1e6).contains(&s);
        sane.then_some(Micros((s * 1e6) as u64))
            .ok_or_else(|| Ending::Usage(format!("{name} takes 0 to 1000000 seconds")))
    };
    let rules = Rules {
        start_with: span("--start-with", args.start_with)?.max(Micros(1)),
        go_on_with: span("--go-on-with", args.go_on_with)?.max(Micros(1)),
        fetch_ahead: span("--fetch-ahead", args.fetch_ahead)?.max(Micros(1)),
    };
    let lasts = args.seconds.map(|s| span("--seconds", s)).transpose()?.map(|m| Duration::from_micros(m.0));
    let plan = Plan { rules, hold_back: span("--hold-back", args.hold_back)?, lasts };
    let probe = Probe::new(address, plan, proxy)?;
    let played = tokio::select! {
        played = probe.play() => played,
        // What was measured until then is worth a report.
        () = lifetime::shutdown(args.exit_with_stdin) => Ok(()),
    };
    played?;
    let report = probe.report();
    if args.json { print_json(&json!(report)) } else { print(&page(&report)) }
}

/// A report in lines.
fn page(r: &Report) -> String {
    let seconds = |s: f64| format!("{s:.2} s");
    let mut lines = vec![
        (
            "played",
            format!("{} of {}, {} more are here", seconds(r.played_s), seconds(r.seconds), seconds(r.buffered_s)),
        ),
        ("start-up", r.start_up_s.map_or("never".into(), seconds)),
        ("stalls", format!("{}, {} in all", r.stalls.len(), seconds(r.stalled_s))),
    ];
    if let Some(lag) = &r.lag {
        let spread = format!(
            "median {}, p95 {}, at most {}, from the recording of a segment's end to its arrival",
            seconds(lag.median_s),
            seconds(lag.p95_s),
            seconds(lag.max_s)
        );
        lines.push(("lag", spread));
    }
    lines.push((
        "media",
        format!(
            "{} segments, {} gaps, {} repeats, {} broken",
            r.segments,
            r.gaps.len(),
            r.repeats.len(),
            r.broken.len()
        ),
    ));
    let mut text: String = lines.iter().map(|(what, value)| format!("{what:8}  {value}\n")).collect();
    for (what, told) in [("gap", &r.gaps), ("repeat", &r.repeats), ("broken", &r.broken)] {
        for b in told.iter().take(10) {
            text += &format!("{what:8}  in segment {}: {}\n", b.segment, b.what);
        }
    }
    for t in r.troubles.iter().take(20) {
        text += &format!("{:8}  at {:.1} s: {}\n", "trouble", t.at_s, t.what);
    }
    text.trim_end().to_owned()
}
