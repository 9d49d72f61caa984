//! The publisher's key: an Ed25519 seed in a text file that only its owner reads.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use headwater_model::live::{LiveEntry, SignedLiveEntry, source_claim};
use headwater_model::log::{Entry, SignedEntry, fingerprint, sign};
use headwater_model::{ContentId, Hash, NodeId, Version, id};
use ring::signature::{Ed25519KeyPair, KeyPair};

/// First line of the file, before the number of its format.
const TITLE: &str = "headwater publisher key, format ";
/// Format that is written here.
const FORMAT: u32 = 1;
/// A key file is shorter.
const MAX_FILE_BYTES: u64 = 4096;

/// The key that a publisher's names pin. Neither `Debug` nor an error prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct PublisherKey {
    seed: [u8; 32],
    public: [u8; 32],
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A new key would replace another one.
    #[error(
        "{path:?} exists already: its names would be lost with it. Use that key, or make the new one elsewhere with --out"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// There is no such file.
    #[error("there is no publisher key at {path:?}: make one with `headwater key new`, or say with --key where it is")]
    None {
        /// The file.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot {what} the publisher key {path:?}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Something else is in the file.
    #[error("{path:?} is not a publisher key ({why}): choose another file, or bring the key back from its copy")]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A format of a later version.
    #[error("{path:?} was made by a newer version of Headwater: update this one")]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl PublisherKey {
    /// Makes a new key and keeps it in `path`, which only this user may read. Missing folders are made.
    ///
    /// # Errors
    /// [`KeyError::Exists`] rather than replace a file; [`KeyError::Io`], [`KeyError::Random`].
    pub fn create(path: &Path) -> Result<PublisherKey, KeyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(KeyError::Random)?;
        let key = Self::of(seed).ok_or(KeyError::NotAKey { path: path.into(), why: "no Ed25519 key" })?;
        let text = format!(
            "{TITLE}{FORMAT}\n# Who has this file can publish in your name. Keep it secret, and keep a copy.\n{}\n",
            id::to_hex(&seed)
        );
        write_new(path, text.as_bytes()).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.into() },
            _ => KeyError::Io { what: "write", path: path.into(), source },
        })?;
        Ok(key)
    }

    /// Reads the key in `path`. Logs a warning when other users can read it too.
    ///
    /// # Errors
    /// [`KeyError`] says what the file is instead.
    pub fn load(path: &Path) -> Result<PublisherKey, KeyError> {
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => KeyError::None { path: path.into() },
            _ => KeyError::Io { what: "read", path: path.into(), source },
        };
        let file = fs::File::open(path).map_err(io)?;
        if others_can_read(&file) {
            tracing::warn!(path = %path.display(), "other users can read this publisher key; do: chmod 600 FILE");
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        let not_a_key = |why| KeyError::NotAKey { path: path.into(), why };
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(not_a_key("it is longer than 4 KiB"));
        }
        let text = String::from_utf8(bytes).map_err(|_| not_a_key("it is no text"))?;
        let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        let format =
            lines.next().and_then(|l| l.strip_prefix(TITLE)).ok_or(not_a_key("its first line is not a key's"))?;
        match format.parse::<u32>() {
            Ok(FORMAT) => {}
            Ok(newer) if newer > FORMAT => return Err(KeyError::Newer { path: path.into() }),
            _ => return Err(not_a_key("it has no number of a format")),
        }
        match (lines.next().and_then(|l| id::from_hex(l).ok()).and_then(Self::of), lines.next()) {
            (Some(key), None) => Ok(key),
            _ => Err(not_a_key("its second line is not 64 hexadecimal digits, or more lines follow")),
        }
    }

    fn of(seed: [u8; 32]) -> Option<PublisherKey> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).ok()?;
        Some(PublisherKey { seed, public: pair.public_key().as_ref().try_into().ok()? })
    }

    /// What names pin as `key=`.
    pub fn fingerprint(&self) -> Hash {
        fingerprint(&self.public)
    }

    /// The Ed25519 public key.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// `entry` of `content`'s log with this key's signature.
    pub fn sign(&self, content: ContentId, entry: Entry) -> SignedEntry {
        sign(content, entry, &self.seed.into())
    }

    /// An entry of `content`'s live track with this key's signature.
    pub fn sign_live(&self, content: ContentId, entry: LiveEntry) -> SignedLiveEntry {
        entry.sign(content, &self.seed.into())
    }

    /// Says that `node` is a source of this live stream.
    pub fn claim_source(&self, version: Version, node: &NodeId) -> [u8; 64] {
        let signature =
            Ed25519KeyPair::from_seed_unchecked(&self.seed).map(|pair| pair.sign(&source_claim(version, node)));
        // The seed made a key pair before; an empty signature is refused.
        signature.ok().and_then(|s| s.as_ref().try_into().ok()).unwrap_or([0; 64])
    }
}

impl fmt::Debug for PublisherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublisherKey({:.8}..)", self.fingerprint())
    }
}

/// Writes a file that only this user may read and that was not there before.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a key is of no use, and would stand in the way of the next try.
        let _ = fs::remove_file(path);
    }
    written
}

#[cfg(unix)]
fn others_can_read(file: &fs::File) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|m| m.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn others_can_read(_: &fs::File) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config/publisher.key");
        assert!(matches!(PublisherKey::load(&path), Err(KeyError::None { .. })));
        let key = PublisherKey::create(&path).unwrap();
        assert_eq!(PublisherKey::load(&path).unwrap(), key);
        assert!(matches!(PublisherKey::create(&path), Err(KeyError::Exists { .. })));
        assert_eq!(PublisherKey::load(&path).unwrap().fingerprint(), key.fingerprint());
        assert_ne!(PublisherKey::create(&folder.path().join("other")).unwrap(), key);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(!others_can_read(&fs::File::open(&path).unwrap()));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            assert!(others_can_read(&fs::File::open(&path).unwrap()));
        }
    }

    #[test]
    fn the_seed_is_not_printed() {
        let folder = tempfile::tempdir().unwrap();
        let key = PublisherKey::create(&folder.path().join("key")).unwrap();
        let printed = format!("{key:?}");
        assert!(!printed.contains(&id::to_hex(&key.seed)[..8]), "{printed}");
    }

    #[test]
    fn both_libraries_agree_on_the_public_key() {
        let key = PublisherKey::of([7; 32]).unwrap();
        // One derives the public key from the seed (RFC 8032), the other signs.
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("f"), b"x").unwrap();
        let log = crate::publish::prepare(&folder.path().join("f"), "n", &key, &[], None, 1, 1, &|_, _| {}).unwrap();
        assert!(log.verify("n", Some(&key.fingerprint())).is_ok());
    }

    #[test]
    fn other_files_are_named_and_said_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        let seed = "ab".repeat(32);
        let check = |text: &[u8], expected: &str| {
            fs::write(&path, text).unwrap();
            let said = PublisherKey::load(&path).unwrap_err().to_string();
            assert!(said.contains(expected) && said.contains("k\""), "{said}");
            assert!(!said.contains(&seed), "{said}");
        };
        check(b"", "first line");
        check(b"-----BEGIN PRIVATE KEY-----", "first line");
        check(b"\xff\xfe", "no text");
        check(&[b'x'; 5000], "longer than 4 KiB");
        check(format!("{TITLE}2\n{seed}").as_bytes(), "newer version");
        check(format!("{TITLE}0\n{seed}").as_bytes(), "number of a format");
        check(format!("{TITLE}1\n").as_bytes(), "64 hexadecimal");
        check(format!("{TITLE}1\n{}", &seed[1..]).as_bytes(), "64 hexadecimal");
        check(format!("{TITLE}1\n{seed}\n{seed}").as_bytes(), "more lines");
        fs::write(&path, format!("# mine\n{TITLE}1\r\n\n  {seed}\n# end\n")).unwrap();
        assert!(PublisherKey::load(&path).is_ok());
    }
}
