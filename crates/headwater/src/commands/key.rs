//! `headwater key`: the publisher's key.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use headwater_peer::key::{KeyError, PublisherKey};
use serde_json::json;

use super::{print, print_json};
use crate::exit::Ending;

/// Name of the key's file in the configuration folder.
const KEY_FILE: &str = "publisher.key";

/// Make or show the publisher's key
///
/// Names of contents pin the key they are signed with. Who has its file can publish in your name; without it nobody can
/// publish a new version, so keep a copy.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key and keep it in a file that only you can read
    New {
        /// Where to keep it [default: headwater/publisher.key in your configuration folder]
        #[arg(long, value_name = "PATH")]
        out: Option<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the fingerprint of a key, as it stands in names
    Show {
        /// The key's file [default: headwater/publisher.key in your configuration folder]
        #[arg(long, value_name = "PATH")]
        key: Option<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

pub fn run(command: KeyCommand) -> Result<()> {
    let (path, key, json, made) = match command {
        KeyCommand::New { out, json } => {
            let path = path_or_default(out)?;
            let key = PublisherKey::create(&path)?;
            (path, key, json, true)
        }
        KeyCommand::Show { key, json } => {
            let path = path_or_default(key)?;
            let key = load(&path)?;
            (path, key, json, false)
        }
    };
    let fingerprint = key.fingerprint().to_string();
    if json {
        return print_json(&json!({"path": path, "fingerprint": fingerprint}));
    }
    if made {
        print(&format!("new key in {}\nIt cannot be made again: keep a copy in a safe place.", path.display()))?;
    }
    print(&format!("fingerprint {fingerprint}"))
}

/// The key in `path`.
pub fn load(path: &Path) -> Result<PublisherKey> {
    PublisherKey::load(path).map_err(|error| match error {
        KeyError::None { .. } => Ending::Refused(error.to_string()).into(),
        other => other.into(),
    })
}

/// `path`, or where the key is when nobody says so.
pub fn path_or_default(path: Option<PathBuf>) -> Result<PathBuf> {
    match path {
        Some(path) => Ok(path),
        None => Ok(config_folder()?.join("headwater").join(KEY_FILE)),
    }
}

fn config_folder() -> Result<PathBuf> {
    let of = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let at_home = || std::env::home_dir().map(|home| home.join(".config"));
    of("XDG_CONFIG_HOME")
        .or_else(|| if cfg!(windows) { of("APPDATA") } else { at_home() })
        .context("neither XDG_CONFIG_HOME nor a home folder is known: say where the key is with --key or --out")
}
