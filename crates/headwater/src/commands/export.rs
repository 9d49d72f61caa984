//! `headwater export`: a content that a resident peer has, as ordinary files.

use anyhow::{Context, Result};
use headwater_model::Name;
use headwater_peer::node::kept_versions;
use headwater_peer::store::{self, StoreError};
use std::path::PathBuf;

use super::print;
use crate::exit::Ending;
use crate::local_api::client::PeerAccess;

/// Give out a content that a resident peer has, as ordinary files
///
/// The peer may run or not. Where the file system can do it (Btrfs, XFS, APFS, ReFS) the copy takes no time and no room.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  headwater export 'hw://control.example/films/a.mp4#key=…' -o a.mp4")]
pub struct Args {
    /// Name of the content (quote it: it has a # in it)
    name: Name,
    #[command(flatten)]
    peer: PeerAccess,
    /// Where to put it; a folder content becomes a folder of this name
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Make hard links to the peer's own files, which must not be changed then; on the same disk only
    #[arg(long)]
    link: bool,
}

pub fn run(args: Args) -> Result<()> {
    let data = args.peer.folder()?;
    let mut refusal = format!("{} is not in {}", args.name.name, data.display());
    // The newest one that is complete: the version after it may be arriving.
    for (log, folder) in kept_versions(&data, &args.name) {
        let track =
            log.verify(&args.name.name, Some(&args.name.key)).context("the content's log is not to be believed")?;
        match store::export(&track, &folder, &args.output, args.link) {
            Err(StoreError::NotComplete { .. }) => {
                refusal = format!("{} is not complete yet in {}", args.name.name, data.display());
            }
            Err(e) => return Err(e.into()),
            Ok(()) => return print(&format!("{}: {} bytes", args.output.display(), track.layout.bytes())),
        }
    }
    Err(Ending::Refused(refusal).into())
}
