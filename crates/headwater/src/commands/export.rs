//! `headwater export`: a content that a resident peer has, as ordinary files.

use anyhow::{Context, Result};
use headwater_model::Name;
use headwater_peer::store::{self, StoreError};
use headwater_wire::decode_log;
use std::path::PathBuf;

use super::print;
use crate::exit::Ending;

/// Give out a content that a resident peer has, as ordinary files
///
/// The peer may run or not. Where the file system can do it (Btrfs, XFS, APFS, ReFS) the copy takes no time and no room.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  headwater export 'hw://control.example/films/a.mp4#key=…' --data ~/.local/share/headwater -o a.mp4"
)]
pub struct Args {
    /// Name of the content (quote it: it has a # in it)
    name: Name,
    /// Data folder of the peer, as given to `headwater peer`
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where to put it; a folder content becomes a folder of this name
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Make hard links to the peer's own files, which must not be changed then; on the same disk only
    #[arg(long)]
    link: bool,
}

pub fn run(args: Args) -> Result<()> {
    let folder = args.data.join("contents").join(args.name.content().to_string());
    let not_here = || Ending::Refused(format!("{} is not in {}", args.name.name, args.data.display()));
    let log = std::fs::read(folder.join("log")).map_err(|_| not_here())?;
    let log = decode_log(&log).context("the content's log is damaged: start the peer, which asks for it again")?;
    let track = log.verify(&args.name.name, Some(&args.name.key)).context("the content's log is not to be believed")?;
    store::export(&track, &folder, &args.output, args.link).map_err(|e| match e {
        StoreError::NotComplete { .. } => {
            Ending::Refused(format!("{} is not complete yet in {}", args.name.name, args.data.display())).into()
        }
        e => anyhow::Error::from(e),
    })?;
    print(&format!("{}: {} bytes", args.output.display(), track.layout.bytes()))
}
