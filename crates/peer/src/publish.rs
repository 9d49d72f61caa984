//! Publishing: from a file or folder to a signed static log, and whether its origins have the same bytes.

mod check;
pub mod live;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use headwater_model::layout::{LayoutError, default_piece_bytes};
use headwater_model::log::{
    Entry, Log, MAX_ENTRY_OBJECTS, MAX_ORIGINS, MAX_PATH_BYTES, MAX_URL_BYTES, Object, SignedEntry,
};
use headwater_model::merkle::{self, PAGE_LEAVES};
use headwater_model::{Hash, Layout, sums};
use headwater_wire::limits::MAX_LOG_BYTES;
use headwater_wire::{StaticLog, StaticLogError, encode_log};
use url::Url;

pub use self::check::{Check, CheckedOrigin, OriginCheck, OriginProblem, check_origin};
use crate::hashing::{HashError, Hashed, ScanError, hash_pieces, scan};
use crate::key::PublisherKey;

/// Track of a file or folder.
pub const TRACK: &str = "main";
/// Ending of a static log's file name.
pub const STATIC_LOG_ENDING: &str = ".hwlog";

/// Why a file or folder is not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The name is not one.
    #[error("{name:?} cannot be a content's name: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An origin is not a place that viewers could read from.
    #[error("{url} cannot be an origin: {why}")]
    Origin {
        /// The origin, without user, password and query.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Too many origins.
    #[error("{0} origins, and at most {MAX_ORIGINS} are possible: put the others behind one address")]
    TooManyOrigins(usize),
    /// A file that cannot be published.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// Only empty files.
    #[error("{path:?} has no bytes: there is nothing to deliver")]
    Empty {
        /// The file or folder.
        path: PathBuf,
    },
    /// Pieces too small, too large or too many.
    #[error("{files} files of {bytes} bytes in all: {source}")]
    Layout {
        /// Number of files.
        files: usize,
        /// Bytes in all.
        bytes: u64,
        /// What is wrong.
        source: LayoutError,
    },
    /// The log would be too long to be sent to peers.
    #[error(
        "a list of {files} files takes {log_bytes} bytes, and at most {MAX_LOG_BYTES} are possible: publish the folder \
         as one archive (tar, zip), or as several smaller folders"
    )]
    TooManyFiles {
        /// Number of files.
        files: usize,
        /// Length of the log in bytes.
        log_bytes: usize,
    },
    /// A file cannot be read, or changed meanwhile.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// What was made is not believed by those who will read it.
    #[error("the log that was made is not valid: {0}")]
    Log(#[from] StaticLogError),
    /// The static log cannot be written.
    #[error(
        "cannot write {path:?}: {source}; the static log goes beside what is published, so that folder must be writable"
    )]
    Write {
        /// The static log.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Hashes the file or folder `path` and signs a log of it as version `epoch` (Unix milliseconds) of `name`.
///
/// `origins` are as in [`Entry::origins`], but for a single file one that ends in `/`, and for a folder with a single
/// file any, is taken as the folder's. `piece_bytes` is chosen by size when `None`. `progress` is called with bytes done
/// and bytes in all, from any of the `threads`.
///
/// # Errors
/// [`PublishError`]; what can be known before hashing is found before.
#[expect(clippy::too_many_arguments, reason = "all that a publisher says about a content, each once")]
pub fn prepare(
    path: &Path,
    name: &str,
    key: &PublisherKey,
    origins: &[Url],
    piece_bytes: Option<u32>,
    epoch: u64,
    threads: usize,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<StaticLog, PublishError> {
    check_name(name)?;
    let files = scan(path)?;
    let objects: Vec<Object> = files.iter().map(|(object, _)| object.clone()).collect();
    let bytes = objects.iter().map(|o| o.size_bytes).sum();
    if bytes == 0 {
        return Err(PublishError::Empty { path: path.into() });
    }
    let origins = origins_of(origins, &objects, path.is_dir())?;
    let piece_bytes = piece_bytes.unwrap_or_else(|| default_piece_bytes(bytes));
    let of_layout = |source| PublishError::Layout { files: objects.len(), bytes, source };
    let layout = Layout::new(piece_bytes, &objects).map_err(of_layout)?;
    let entries = unsigned(&objects, &layout, &origins, epoch);
    let mut log = Log { name: name.into(), first_key: key.public(), key_changes: Vec::new(), entries };
    let log_bytes = encode_log(&log).len();
    if log_bytes > MAX_LOG_BYTES {
        return Err(PublishError::TooManyFiles { files: objects.len(), log_bytes });
    }
    let hashed = hash_pieces(&files, &layout, threads, &|done| progress(done, bytes))?;
    sign(&mut log, &hashed, key);
    let made = StaticLog { log, leaves: hashed.leaves, sums: hashed.sums, entries: Vec::new() };
    made.verify(name, Some(&key.fingerprint()))?;
    Ok(made)
}

fn check_name(name: &str) -> Result<(), PublishError> {
    let refused = |why| Err(PublishError::Name { name: name.chars().take(80).collect(), why });
    match name {
        "" => refused("it is empty"),
        n if n.len() > MAX_PATH_BYTES => refused("it is longer than 1,024 bytes"),
        n if n.contains(char::is_control) => refused("it has a control character"),
        _ => Ok(()),
    }
}

fn origins_of(origins: &[Url], objects: &[Object], folder: bool) -> Result<Vec<String>, PublishError> {
    if origins.len() > MAX_ORIGINS {
        return Err(PublishError::TooManyOrigins(origins.len()));
    }
    let one = |origin: &Url| {
        let refused = |why| Err(PublishError::Origin { url: shown(origin), why });
        if !matches!(origin.scheme(), "http" | "https") || origin.cannot_be_a_base() {
            return refused("it is no http or https URL");
        }
        if !origin.username().is_empty() || origin.password().is_some() {
            return refused(
                "it has a user or password, which all viewers would read; give credentials with --origin-header",
            );
        }
        let mut url = match objects {
            [single] if folder || origin.path().ends_with('/') => below(origin, &single.path),
            _ => origin.clone(),
        };
        url.set_fragment(None);
        if url.as_str().len() > MAX_URL_BYTES { refused("it is longer than 4,096 bytes") } else { Ok(url.into()) }
    };
    origins.iter().map(one).collect()
}

/// The entries without what only hashing tells.
fn unsigned(objects: &[Object], layout: &Layout, origins: &[String], epoch: u64) -> Vec<SignedEntry> {
    let count = objects.len().div_ceil(MAX_ENTRY_OBJECTS);
    let entry = |(number, chunk): (usize, &[Object])| {
        let first = number * MAX_ENTRY_OBJECTS;
        Entry {
            track: TRACK.into(),
            epoch,
            number: number as u32,
            previous: Hash::default(),
            time_unix_ms: epoch,
            piece_bytes: layout.piece_bytes(),
            objects: chunk.to_vec(),
            first_leaf: layout.pieces_of_object(first).start,
            leaves: layout.pieces_of_object(first + chunk.len() - 1).end,
            root: Hash::default(),
            origins: origins.to_vec(),
            last: number + 1 == count,
            // Its room is counted before it is known.
            sums: (number + 1 == count).then(Hash::default),
            live: None,
        }
    };
    objects
        .chunks(MAX_ENTRY_OBJECTS)
        .enumerate()
        .map(entry)
        .map(|entry| SignedEntry { entry, signature: [0; 64] })
        .collect()
}

fn sign(log: &mut Log, hashed: &Hashed, key: &PublisherKey) {
    let leaves = &hashed.leaves;
    let content = log.content();
    let page = PAGE_LEAVES as usize;
    let pages: Vec<Hash> = leaves.chunks(page).map(merkle::root).collect();
    let mut previous = Hash::default();
    for signed in &mut log.entries {
        let mut entry = signed.entry.clone();
        let so_far = entry.leaves as usize;
        // The tree over all leaves so far is the tree over their pages, of which all but the last are shared.
        let (whole, rest) = (so_far / page, so_far % page);
        let mut roots = pages[..whole].to_vec();
        if rest > 0 {
            roots.push(merkle::root(&leaves[whole * page..so_far]));
        }
        entry.root = merkle::root(&roots);
        entry.previous = previous;
        entry.sums = entry.last.then(|| sums::root(&hashed.sums));
        previous = Hash::of(&[&entry.signed_bytes()]);
        *signed = key.sign(content, entry);
    }
}

/// Writes the static log beside what it is of: `FILE.hwlog`, `FOLDER.hwlog`. Complete or not at all.
///
/// # Errors
/// [`PublishError::Write`].
pub fn write_beside(path: &Path, made: &StaticLog) -> Result<PathBuf, PublishError> {
    let beside = beside(path).map_err(|source| PublishError::Write { path: path.into(), source })?;
    let failed = |source| PublishError::Write { path: beside.clone(), source };
    let mut partial = OsString::from(&beside);
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let write = || {
        let mut file = fs::File::create(&partial)?;
        file.write_all(&made.encode())?;
        file.sync_all()?;
        fs::rename(&partial, &beside)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&partial);
        failed(e)
    })?;
    Ok(beside)
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let path = match path.file_name() {
        Some(_) => path.to_owned(),
        // `.` and `..` have a name only in full.
        None => path.canonicalize()?,
    };
    let name = path.file_name().ok_or_else(|| io::Error::other("it is the root of a file system"))?;
    let mut name = name.to_owned();
    name.push(STATIC_LOG_ENDING);
    Ok(path.with_file_name(name))
}

/// Where the object `path` of a content of `objects_count` objects lies: for a single object the origin's URL itself,
/// for several below it. The origin's query is kept, what follows `#` is not.
pub fn object_url(origin: &Url, objects_count: usize, path: &str) -> Url {
    let mut url = if objects_count == 1 { origin.clone() } else { below(origin, path) };
    url.set_fragment(None);
    url
}

fn below(folder: &Url, path: &str) -> Url {
    let mut url = folder.clone();
    // Refused only for URLs without a path, which are not HTTP's.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path.split('/'));
    }
    url
}

/// The URL as it may be printed: without user, password and query.
fn shown(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), &url[url::Position::BeforeHost..url::Position::AfterPort], url.path())
}

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;
