//! The way into a running peer: `local.json` in its data folder says where its local API listens, and the token that it
//! asks for. Of one data folder there is one peer.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fs4::fs_std::FileExt;
use serde::{Deserialize, Serialize};

use crate::exit::Ending;

const FORMAT: u32 = 1;
const FILE: &str = "local.json";
const LOCK: &str = "local.lock";
const TOKEN_BYTES: usize = 24;
/// Of the file.
const MAX_BYTES: u64 = 4096;

/// A data folder, held for one peer.
#[derive(Debug)]
pub struct Held {
    data: PathBuf,
    _lock: File,
}

/// The way in, open for as long as this lives.
pub struct Door {
    entry: Entry,
    path: PathBuf,
    _held: Held,
}

/// What the file says.
#[derive(Clone, Serialize, Deserialize)]
pub struct Entry {
    format: u32,
    address: SocketAddr,
    token: String,
    /// Process that runs the peer.
    pub pid: u32,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Door({})", self.entry.address)
    }
}

/// Whether the data folder's disk is read-only: a peer may run there all the same, and goes on when it is not any more.
pub fn is_read_only(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::ReadOnlyFilesystem)
}

impl Held {
    /// Holds `data`, which is made where it is missing.
    ///
    /// # Errors
    /// The folder cannot be made, or another peer holds it.
    pub fn take(data: &Path) -> anyhow::Result<Held> {
        let said = || format!("cannot use the data folder {}: choose another with --data", data.display());
        std::fs::create_dir_all(data).with_context(said)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(data.join(LOCK)).with_context(said)?;
        if !lock.try_lock_exclusive().with_context(said)? {
            let pid = Entry::read(data).ok().map_or(String::new(), |e| format!(" (process {})", e.pid));
            bail!(
                "a peer runs with the data folder {} already{pid}: `headwater status` asks it how it is; another peer needs its own --data",
                data.display()
            );
        }
        Ok(Held { data: data.into(), _lock: lock })
    }

    /// Opens the way in at `address`, with a new token: one that an earlier process gave away is of no use.
    ///
    /// # Errors
    /// No randomness, or the file cannot be written.
    pub fn open(self, address: SocketAddr) -> anyhow::Result<Door> {
        let mut token = [0; TOKEN_BYTES];
        getrandom::fill(&mut token).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
        let token = URL_SAFE_NO_PAD.encode(token);
        let entry = Entry { format: FORMAT, address, token, pid: std::process::id() };
        let path = self.data.join(FILE);
        // Such a file is its user's own from the beginning, and is there whole or not at all.
        let mut file = tempfile::NamedTempFile::new_in(&self.data)?;
        file.write_all(&serde_json::to_vec(&entry)?)?;
        file.persist(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Door { entry, path, _held: self })
    }
}

impl Door {
    pub fn address(&self) -> SocketAddr {
        self.entry.address
    }
    pub fn token(&self) -> &str {
        &self.entry.token
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // The next start replaces it if it stays.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Entry {
    /// The way into the peer that runs with `data`.
    ///
    /// # Errors
    /// [`Ending::Refused`] where none runs; the file cannot be read.
    pub fn read(data: &Path) -> anyhow::Result<Entry> {
        let path = data.join(FILE);
        let bytes = match std::fs::metadata(&path).map(|m| m.len()) {
            Ok(length) if length <= MAX_BYTES => std::fs::read(&path),
            Ok(_) => bail!("{} is not what a peer writes", path.display()),
            Err(e) => Err(e),
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(nobody(data).into()),
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                bail!("{} is another user's: run this as the user who runs the peer, or as root", path.display())
            }
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        let entry: Entry =
            serde_json::from_slice(&bytes).with_context(|| format!("{} is not what a peer writes", path.display()))?;
        if entry.format != FORMAT {
            bail!("{} is of another version of headwater (format {}, not {FORMAT})", path.display(), entry.format);
        }
        Ok(entry)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
    pub fn token(&self) -> &str {
        &self.token
    }
}

/// No peer runs with `data`.
pub fn nobody(data: &Path) -> Ending {
    Ending::Refused(format!(
        "no peer runs with the data folder {}: `headwater peer` starts one; --data says where another one is",
        data.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_of_a_folder_and_a_way_in_for_its_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("deep");
        assert!(Entry::read(&data).err().unwrap().to_string().contains("no peer runs"));
        let held = Held::take(&data).unwrap();
        assert!(Held::take(&data).unwrap_err().to_string().contains("already"));
        let door = held.open("127.0.0.1:7".parse().unwrap()).unwrap();
        let said = Held::take(&data).unwrap_err().to_string();
        assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
        let entry = Entry::read(&data).unwrap();
        assert_eq!((entry.address(), entry.token()), (door.address(), door.token()));
        assert!(!format!("{door:?}").contains(door.token()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(data.join(FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let token = door.token().to_owned();
        drop(door);
        assert!(Entry::read(&data).is_err());
        let again = Held::take(&data).unwrap().open("127.0.0.1:7".parse().unwrap()).unwrap();
        assert_ne!(again.token(), token);
    }

    #[test]
    fn what_is_no_entry_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        for bad in [
            &b"{}"[..],
            b"",
            b"\xff\xfe",
            &[b' '; 5000],
            br#"{"format":9,"address":"127.0.0.1:1","token":"t","pid":1}"#,
        ] {
            std::fs::write(folder.path().join(FILE), bad).unwrap();
            assert!(Entry::read(folder.path()).is_err());
        }
    }
}
