//! The identity folder: what makes this control center the one that nodes know. It is small and worth a backup; all else
//! can be rebuilt.
//!
//! `node.key` is the TLS key, `secret` derives parents' keys and signs tokens, `epoch` rises with each start,
//! `publishers` lists whom it ever published for, `restricted` which contents were not open to all, `admin.token` is the
//! first administrator's token.

use crate::tokens::{MAX_DAYS, TokenError, TokenRole, Tokens};
use headwater_model::ticket::{ParentKey, parent_key};
use headwater_model::{ContentId, Hash, NodeId};
use headwater_transport::{Identity, IdentityError};
use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

/// Publishers, and restricted contents, that are remembered.
const MAX_LINES: usize = 100_000;

const SECRET_FILE: &str = "secret";
const EPOCH_FILE: &str = "epoch";
const PUBLISHERS_FILE: &str = "publishers";
const RESTRICTED_FILE: &str = "restricted";
const ADMIN_TOKEN_FILE: &str = "admin.token";

/// Why the identity folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The TLS key.
    #[error(transparent)]
    Key(#[from] IdentityError),
    /// A file cannot be read or written.
    #[error("cannot {what} {path}: {source}; the identity folder must be writable by this user")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file holds something else than it should.
    #[error("{path} is broken: {problem}; restore the identity folder from a backup")]
    Broken {
        /// Which.
        path: PathBuf,
        /// In words.
        problem: String,
    },
    /// The first token.
    #[error("cannot make the first administrator's token: {0}")]
    Token(#[from] TokenError),
    /// A list is full.
    #[error("{path} has {MAX_LINES} lines, which is the most")]
    Full {
        /// Which.
        path: PathBuf,
    },
}

/// The folder, open.
pub(crate) struct IdentityFolder {
    path: PathBuf,
    /// TLS key and certificate.
    pub(crate) node: Arc<Identity>,
    secret: [u8; 32],
    publishers: Mutex<BTreeSet<Hash>>,
    restricted: Mutex<BTreeSet<ContentId>>,
}

/// What opening found.
pub(crate) struct Opened {
    pub(crate) folder: IdentityFolder,
    pub(crate) tokens: Tokens,
    /// Epoch of this start, kept already.
    pub(crate) epoch: u64,
    /// There was an earlier start.
    pub(crate) restarted: bool,
    /// Only when it was made now.
    pub(crate) first_admin_token: Option<String>,
}

impl IdentityFolder {
    /// Opens `path`, making what is not there. Blocks.
    pub(crate) fn open(path: &Path, now_unix_ms: u64) -> Result<Opened, FolderError> {
        make_private_folder(path).map_err(|source| io_error("create", path, source))?;
        let node = Arc::new(Identity::load_or_create(path)?);
        let secret = load_secret(&path.join(SECRET_FILE))?;
        let folder = IdentityFolder {
            path: path.into(),
            node,
            secret,
            publishers: Mutex::new(load_lines(&path.join(PUBLISHERS_FILE))?),
            restricted: Mutex::new(load_lines(&path.join(RESTRICTED_FILE))?),
        };
        let stored = load_epoch(&path.join(EPOCH_FILE))?;
        let epoch = stored.map_or(now_unix_ms, |e| now_unix_ms.max(e.saturating_add(1)));
        folder.keep_epoch(epoch)?;
        let tokens = Tokens::new(&secret);
        let token_path = path.join(ADMIN_TOKEN_FILE);
        let first_admin_token = if token_path.exists() {
            None
        } else {
            let token = tokens.make(TokenRole::Admin, Vec::new(), MAX_DAYS, now_unix_ms)?;
            write(&token_path, format!("{token}\n").as_bytes())?;
            Some(token)
        };
        Ok(Opened { folder, tokens, epoch, restarted: stored.is_some(), first_admin_token })
    }

    /// Keeps an epoch; on disk when this returns. Blocks.
    pub(crate) fn keep_epoch(&self, epoch: u64) -> Result<(), FolderError> {
        write(&self.path.join(EPOCH_FILE), format!("{epoch}\n").as_bytes())
    }

    /// Key `number` of a parent.
    pub(crate) fn parent_key(&self, parent: &NodeId, number: u64) -> ParentKey {
        parent_key(&self.secret, parent, number)
    }

    /// Whether contents of the publisher with this key were ever accepted.
    pub(crate) fn knows_publisher(&self, key: &Hash) -> bool {
        locked(&self.publishers).contains(key)
    }

    /// Whether the content was published for some viewers only.
    pub(crate) fn is_restricted(&self, content: &ContentId) -> bool {
        locked(&self.restricted).contains(content)
    }

    /// Remembers a publisher. Blocks.
    pub(crate) fn add_publisher(&self, key: Hash) -> Result<(), FolderError> {
        let mut publishers = locked(&self.publishers);
        let path = self.path.join(PUBLISHERS_FILE);
        if publishers.contains(&key) {
            return Ok(());
        }
        if publishers.len() >= MAX_LINES {
            return Err(FolderError::Full { path });
        }
        publishers.insert(key);
        write_lines(&path, &publishers).inspect_err(|_| {
            publishers.remove(&key);
        })
    }

    /// Remembers whether a content is for some viewers only. Blocks.
    pub(crate) fn set_restricted(&self, content: ContentId, restricted: bool) -> Result<(), FolderError> {
        let mut all = locked(&self.restricted);
        let path = self.path.join(RESTRICTED_FILE);
        if all.contains(&content) == restricted {
            return Ok(());
        }
        if restricted && all.len() >= MAX_LINES {
            return Err(FolderError::Full { path });
        }
        let mut new = all.clone();
        if restricted {
            new.insert(content);
        } else {
            new.remove(&content);
        }
        write_lines(&path, &new)?;
        *all = new;
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The sets are changed in one step each: a panic elsewhere leaves them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn io_error(what: &'static str, path: &Path, source: std::io::Error) -> FolderError {
    FolderError::Io { what, path: path.into(), source }
}

/// A folder that only this user may enter, if it is made now.
pub(crate) fn make_private_folder(path: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Opens or makes a file that only this user may read.
pub(crate) fn private_file(path: &Path, truncate: bool) -> std::io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(truncate);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Writes a file, complete or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    let temporary = path.with_extension("new");
    let put = || {
        let mut file = private_file(&temporary, true)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    put().map_err(|e| io_error("write", path, e))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, FolderError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error("read", path, e)),
    }
}

fn load_secret(path: &Path) -> Result<[u8; 32], FolderError> {
    if let Some(bytes) = read(path)? {
        let problem = || format!("{} bytes where a secret has 32", bytes.len());
        return bytes.as_slice().try_into().map_err(|_| FolderError::Broken { path: path.into(), problem: problem() });
    }
    let mut secret = [0; 32];
    let problem = |e: getrandom::Error| FolderError::Broken { path: path.into(), problem: e.to_string() };
    getrandom::fill(&mut secret).map_err(problem)?;
    write(path, &secret)?;
    Ok(secret)
}

fn load_epoch(path: &Path) -> Result<Option<u64>, FolderError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let problem = || format!("{:?} is no number", text.trim().chars().take(40).collect::<String>());
    text.trim().parse().map(Some).map_err(|_| FolderError::Broken { path: path.into(), problem: problem() })
}

fn load_lines<T: FromStr + Ord>(path: &Path) -> Result<BTreeSet<T>, FolderError> {
    let Some(bytes) = read(path)? else { return Ok(BTreeSet::new()) };
    let text = String::from_utf8_lossy(&bytes);
    let parse = |(i, line): (usize, &str)| {
        let problem = || format!("line {} is no fingerprint of 64 hexadecimal digits", i + 1);
        line.trim().parse().map_err(|_| FolderError::Broken { path: path.into(), problem: problem() })
    };
    text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()).take(MAX_LINES).map(parse).collect()
}

fn write_lines<T: ToString>(path: &Path, lines: &BTreeSet<T>) -> Result<(), FolderError> {
    let text: String = lines.iter().map(|l| l.to_string() + "\n").collect();
    write(path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_stays_and_its_epoch_rises() {
        // Far ahead, as tokens are checked against the real clock.
        const NOW: u64 = 4_000_000_000_000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        let first = IdentityFolder::open(&path, NOW).unwrap();
        assert_eq!((first.epoch, first.restarted), (NOW, false));
        let token = first.first_admin_token.unwrap();
        let (key, content) = (Hash([7; 32]), ContentId([8; 32]));
        first.folder.add_publisher(key).unwrap();
        first.folder.set_restricted(content, true).unwrap();
        let parent_key = first.folder.parent_key(&NodeId([1; 32]), 3);
        // The clock went back.
        let second = IdentityFolder::open(&path, NOW - 500).unwrap();
        assert_eq!((second.epoch, second.restarted), (NOW + 1, true));
        assert!(second.first_admin_token.is_none());
        assert_eq!(second.tokens.check(&token).unwrap().role, TokenRole::Admin);
        assert!(second.folder.knows_publisher(&key) && second.folder.is_restricted(&content));
        assert_eq!(second.folder.node.node, first.folder.node.node);
        assert!(second.folder.parent_key(&NodeId([1; 32]), 3) == parent_key);
        second.folder.set_restricted(content, false).unwrap();
        assert!(!IdentityFolder::open(&path, NOW - 500).unwrap().folder.is_restricted(&content));
        #[cfg(unix)]
        for file in fs::read_dir(&path).unwrap() {
            use std::os::unix::fs::PermissionsExt;
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "others may read {file:?}");
        }
    }

    #[test]
    fn broken_files_are_named() {
        for (file, bytes) in [(SECRET_FILE, "short"), (EPOCH_FILE, "soon"), (PUBLISHERS_FILE, "\nnobody\n")] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(file), bytes).unwrap();
            let said = IdentityFolder::open(folder.path(), 1).err().unwrap().to_string();
            assert!(said.contains(file) && said.contains("broken"), "{said}");
        }
    }
}
