//! Where things are kept when nobody says where.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// The user's data folder: `XDG_DATA_HOME`, or as the system has it.
///
/// # Errors
/// Neither it nor a home folder is known.
pub fn user_data() -> Result<PathBuf> {
    let of = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let at_home = || std::env::home_dir().map(|home| home.join(".local").join("share"));
    of("XDG_DATA_HOME")
        .or_else(|| if cfg!(windows) { of("LOCALAPPDATA") } else { at_home() })
        .context("neither XDG_DATA_HOME nor a home folder is known: say where to keep things with --data")
}

/// The folder of this machine's peer: systemd's for its service, `/var/lib/headwater` for root, `headwater/peer` in the
/// user's data folder for others.
///
/// # Errors
/// As [`user_data`].
pub fn peer_data() -> Result<PathBuf> {
    let of_service = std::env::var_os("STATE_DIRECTORY").map(PathBuf::from).filter(|path| path.is_absolute());
    match of_service {
        Some(folder) => Ok(folder),
        None if is_root() => Ok(PathBuf::from("/var/lib/headwater")),
        None => Ok(user_data()?.join("headwater").join("peer")),
    }
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}
