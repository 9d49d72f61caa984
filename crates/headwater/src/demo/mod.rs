//! `headwater demo`: the whole system on one machine, unprivileged and offline, each part a process of its own.

mod board;
mod children;
mod content;
mod fault;
mod folder;
mod live;
mod page;
mod receiver;
mod result;
mod run;
mod site;
mod stage;
mod transfer;
mod watch;

use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use headwater_model::Rate;

use crate::exit::Ending;
use crate::units::{UNLIMITED, parse_rate, parse_size};
use fault::Kill;
use folder::Folder;
use run::Demo;
use stage::Stage;

/// Fewer columns than any terminal has today, and not too many to read.
const WIDTH: usize = 100;

/// Uplinks of viewers: four times the channel's rate, and with a page enough for a file besides.
const UPS: [(&str, &str, &str); 2] = [("live", "true", "1Mbit/s"), ("page", "true", "16Mbit/s")];
/// What a page fetches in ten seconds.
const PAGE_FILE_SIZE: &str = "64MiB";
/// As many as a legend has room for.
const PAGE_PEERS: &str = "4";

/// See it work: deliver a file or a live channel to peers on this machine, and measure
///
/// Starts a control center, an HTTP origin, a waypoint and the receivers as processes of their own on loopback, each
/// with the same uplink, publishes a file, fetches it to all receivers at once, and kills one of them on the way. Needs
/// no privileges and no network, and leaves nothing behind. All processes end with this one.
///
/// With --live it is a channel: some seconds of a test picture again and again, packaged as HLS, its publisher, and
/// viewers, each of whom has a probe (`headwater play --probe`) in place of a player. In the middle the viewer that feeds
/// most others is killed. Printed is what the others saw (start-up, stalls, lag, gaps), and how many copies of the
/// channel left publisher and origin; it ends with 1 if any of them saw the picture stand still or media missing.
///
/// With --page it is a channel and a file that stay there until Ctrl-C, and a page for your browser that is one more peer:
/// it plays the one, downloads the other, and shows whom each byte came from.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Deliver a live channel instead of a file
    #[arg(long, conflicts_with_all = ["file", "file_size", "lightweight", "kills", "lose_state"])]
    live: bool,
    /// Serve a page on this machine that plays a channel and downloads a file as a peer, until Ctrl-C
    #[arg(long, conflicts_with_all = ["live", "file", "lightweight", "kills", "lose_state", "no_kill"])]
    page: bool,
    /// The page's player: hls.min.js of hls.js (version 1), which is not in here. Without it the page has no picture
    #[arg(long, value_name = "FILE", requires = "page")]
    hls: Option<PathBuf>,
    /// How long viewers of the channel watch
    #[arg(long, value_name = "SECONDS", default_value_t = 40, requires = "live", value_parser = clap::value_parser!(u32).range(10..=3600))]
    seconds: u32,
    /// Deliver this file instead of a generated one
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Size of the generated file
    #[arg(long, value_name = "SIZE", default_value = "256MiB", default_value_if("page", "true", PAGE_FILE_SIZE))]
    #[arg(value_parser = parse_size, conflicts_with = "file")]
    file_size: u64,
    /// Uplink of every part, the origin's too, or `unlimited`; of a channel's publisher and viewers, by default 1Mbit/s,
    /// with --page 16Mbit/s
    #[arg(long, value_name = "RATE", default_value = "10MB/s", default_value_ifs(UPS))]
    up: Up,
    /// Regular receivers, or viewers
    #[arg(long, value_name = "N", default_value = "6", default_value_if("page", "true", PAGE_PEERS))]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=200))]
    peers: u32,
    /// Lightweight receivers, which can only dial
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=200))]
    lightweight: u32,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
    /// Keep the folder with everybody's files and logs
    #[arg(long)]
    keep: bool,
    /// Kill no receiver on the way
    #[arg(long)]
    no_kill: bool,
    /// Kill this part so many milliseconds after the receivers' start. Servers are started again after 2 s
    #[arg(long = "kill", value_name = "NAME@MILLIS", hide = true)]
    kills: Vec<Kill>,
    /// A control center that is killed comes back without its state
    #[arg(long, hide = true)]
    lose_state: bool,
}

/// An uplink as it was written, for the parts' own command lines.
#[derive(Clone, Debug)]
struct Up {
    text: String,
    /// Absent if unlimited.
    rate: Option<Rate>,
}

impl Up {
    /// As an option's value; absent if unlimited.
    fn option(&self) -> Option<String> {
        self.rate.map(|_| self.text.clone())
    }

    fn bytes_per_s(&self) -> Option<u64> {
        self.rate.map(|rate| rate.0)
    }
}

impl FromStr for Up {
    type Err = String;

    fn from_str(text: &str) -> Result<Up, String> {
        let rate = parse_rate(text)?;
        Ok(Up { text: text.to_owned(), rate: Some(rate).filter(|rate| *rate != UNLIMITED) })
    }
}

/// Runs the command. All its processes are gone and its folder is removed when this returns.
///
/// # Errors
/// If the options or the disk are not fit, a part of the demo failed, or a survivor lacks what was published;
/// [`Ending::Interrupted`] after Ctrl-C.
pub async fn run(args: Args) -> Result<()> {
    ensure!(args.peers > 0 || (args.lightweight > 0 && !args.live), "a demo needs receivers");
    ensure!(args.file_size > 0, "a demo needs something to deliver: --file-size is 0");
    let mut interruption = Interruption::new()?;
    let temporary = std::env::temp_dir();
    let cleared = folder::clear_leftovers(&temporary);
    let folder = Folder::new(&temporary)?;
    // From here on, whatever happens, children are reaped and the folder is removed.
    let ended = match Stage::new(folder.path()) {
        Ok(mut stage) => {
            for leftover in cleared {
                stage.board.note(&format!("cleared what a demo that died had left: {}", leftover.display()));
            }
            let ended = tokio::select! {
                biased;
                () = interruption.happens() => None,
                ended = play(&args, &folder, &mut stage) => Some(ended),
            };
            stage.end().await;
            ended
        }
        Err(error) => Some(Err(error)),
    };
    let tidied = if args.keep { folder.keep().map(Some) } else { folder.remove().map(|()| None) };
    if let Ok(Some(kept)) = &tidied {
        // Only words are lost if nobody reads them.
        let _ = writeln!(std::io::stderr(), "files and logs are in {}", kept.display());
    }
    let outcome = match ended {
        Some(ended) => ended?,
        // That is how the one with a page ends.
        None if args.page => Outcome { text: String::new(), problem: None },
        None => return Err(Ending::Interrupted.into()),
    };
    tidied?;
    print(&outcome.text).context("cannot print the result")?;
    match outcome.problem {
        Some(problem) => bail!(problem),
        None => Ok(()),
    }
}

/// What a demo came to.
struct Outcome {
    /// For whoever asked.
    text: String,
    /// Why that is no success.
    problem: Option<String>,
}

async fn play(args: &Args, folder: &Folder, stage: &mut Stage) -> Result<Outcome> {
    let text = |json: serde_json::Result<String>, table: String| {
        if args.json { json.map(|json| json + "\n") } else { Ok(format!("\n{table}")) }
    };
    if args.page {
        page::Demo::new(args, folder, stage)?.run().await?;
        bail!("the demo ended");
    }
    if args.live {
        let report = live::Demo::new(args, folder, stage)?.run().await?;
        let text = text(serde_json::to_string(&report), report.table())?;
        return Ok(Outcome { text, problem: report.problem() });
    }
    let report = Demo::new(args, folder, stage)?.run().await?;
    let text = text(serde_json::to_string(&report), report.table(columns()))?;
    Ok(Outcome { text, problem: report.problem() })
}

fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn columns() -> usize {
    let stated = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    stated.filter(|columns| (20..=WIDTH).contains(columns)).unwrap_or(WIDTH)
}

/// Ctrl-C, or the system's wish that the process ends.
struct Interruption {
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 3],
}

#[cfg(unix)]
impl Interruption {
    fn new() -> Result<Interruption> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let signals =
            [listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?];
        Ok(Interruption { signals })
    }

    async fn happens(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Interruption {
    fn new() -> Result<Interruption> {
        Ok(Interruption {})
    }

    async fn happens(&mut self) {
        // Where Ctrl-C cannot be heard, nothing interrupts.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(words: &[&str]) -> Result<Args, String> {
        let words = std::iter::once(&"demo").chain(words);
        Command::try_parse_from(words).map(|command| command.args).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_those_of_the_readme() {
        let args = parsed(&[]).unwrap();
        assert_eq!((args.file_size, args.peers, args.lightweight), (256 << 20, 6, 2));
        assert_eq!(args.up.bytes_per_s(), Some(10_000_000));
        assert!(args.kills.is_empty() && !args.no_kill && !args.json && !args.live);
        let args = parsed(&["--live"]).unwrap();
        assert_eq!((args.live, args.peers, args.seconds, args.up.bytes_per_s()), (true, 6, 40, Some(125_000)));
        let args = parsed(&["--page"]).unwrap();
        assert_eq!((args.file_size, args.peers, args.up.bytes_per_s(), args.hls), (64 << 20, 4, Some(2_000_000), None));
    }

    #[test]
    fn options_are_read() {
        let words =
            ["--up", "unlimited", "--kill", "control@900", "--kill", "peer-2@5", "--lose-state", "--peers", "0"];
        let args = parsed(&words).unwrap();
        assert_eq!((args.up.bytes_per_s(), args.kills.len(), args.peers), (None, 2, 0));
        assert!(args.lose_state);
        let args = parsed(&["--live", "--seconds", "20", "--up", "unlimited"]).unwrap();
        assert_eq!((args.seconds, args.up.option()), (20, None));
        for wrong in [
            &["--up", "0"][..],
            &["--up", "fast"],
            &["--kill", "driver@5"],
            &["--file", "x", "--file-size", "1MiB"],
            &["--live", "--file-size", "1MiB"],
            &["--live", "--file", "x"],
            &["--live", "--lightweight", "1"],
            &["--live", "--kill", "control@5"],
            &["--live", "--seconds", "9"],
            &["--seconds", "20"],
            &["--page", "--live"],
            &["--page", "--file", "x"],
            &["--page", "--no-kill"],
            &["--hls", "hls.min.js"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
