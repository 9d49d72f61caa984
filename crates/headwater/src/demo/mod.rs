//! `headwater demo`: the whole system on one machine, unprivileged and offline, each part a process of its own.

mod board;
mod children;
mod content;
mod fault;
mod folder;
mod receiver;
mod result;
mod run;
mod site;
mod watch;

use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use headwater_model::Rate;

use crate::exit::Ending;
use crate::units::{UNLIMITED, parse_rate, parse_size};
use fault::Kill;
use folder::Folder;
use result::Report;
use run::Demo;

/// Fewer columns than any terminal has today, and not too many to read.
const WIDTH: usize = 100;

/// See it work: deliver a file to peers on this machine, and measure
///
/// Starts a control center, an HTTP origin, a waypoint and the receivers as processes of their own on loopback, each
/// with the same uplink, publishes a file, fetches it to all receivers at once, and kills one of them on the way. Needs
/// no privileges and no network, and leaves nothing behind. All processes end with this one.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Deliver this file instead of a generated one
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Size of the generated file
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size, conflicts_with = "file")]
    file_size: u64,
    /// Uplink of every part, the origin's too, or `unlimited`
    #[arg(long, value_name = "RATE", default_value = "10MB/s")]
    up: Up,
    /// Regular receivers
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(0..=200))]
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
/// If the options or the disk are not fit, a part of the demo failed, or a survivor lacks the published file;
/// [`Ending::Interrupted`] after Ctrl-C.
pub async fn run(args: Args) -> Result<()> {
    ensure!(args.peers + args.lightweight > 0, "a demo needs receivers");
    ensure!(args.file_size > 0, "a demo needs something to deliver: --file-size is 0");
    let mut interruption = Interruption::new()?;
    let temporary = std::env::temp_dir();
    let cleared = folder::clear_leftovers(&temporary);
    let folder = Folder::new(&temporary)?;
    // From here on, whatever happens, children are reaped and the folder is removed.
    let ended = match Demo::new(&args, &folder) {
        Ok(mut demo) => {
            for leftover in cleared {
                demo.board.note(&format!("cleared what a demo that died had left: {}", leftover.display()));
            }
            let ended = tokio::select! {
                biased;
                () = interruption.happens() => None,
                ended = demo.run() => Some(ended),
            };
            demo.end().await;
            ended
        }
        Err(error) => Some(Err(error)),
    };
    let tidied = if args.keep { folder.keep().map(Some) } else { folder.remove().map(|()| None) };
    if let Ok(Some(kept)) = &tidied {
        // Only words are lost if nobody reads them.
        let _ = writeln!(std::io::stderr(), "files and logs are in {}", kept.display());
    }
    let report = ended.unwrap_or_else(|| Err(Ending::Interrupted.into()))?;
    tidied?;
    print(&report, args.json).context("cannot print the result")?;
    ensure!(
        report.is_good(),
        "{} of {} survivors finished, and {} of their files are the published one",
        report.finished,
        report.survivors,
        if report.verified { "all" } else { "not all" },
    );
    Ok(())
}

fn print(report: &Report, json: bool) -> std::io::Result<()> {
    let text = if json { serde_json::to_string(report)? + "\n" } else { format!("\n{}", report.table(columns())) };
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
        assert!(args.kills.is_empty() && !args.no_kill && !args.json);
    }

    #[test]
    fn options_are_read() {
        let words =
            ["--up", "unlimited", "--kill", "control@900", "--kill", "peer-2@5", "--lose-state", "--peers", "0"];
        let args = parsed(&words).unwrap();
        assert_eq!((args.up.bytes_per_s(), args.kills.len(), args.peers), (None, 2, 0));
        assert!(args.lose_state);
        for wrong in
            [&["--up", "0"][..], &["--up", "fast"], &["--kill", "driver@5"], &["--file", "x", "--file-size", "1MiB"]]
        {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
