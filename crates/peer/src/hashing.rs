//! What a publisher does with its files before it signs: finding them, hashing their pieces, and making their sums.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use headwater_model::log::{MAX_PATH_BYTES, Object, is_plain_path};
use headwater_model::{Hash, Layout, Sum, merkle, sums};

use crate::store::read_at;

/// Files of one content.
pub const MAX_FILES: usize = 100_000;

/// Threads that hash: more than any disk feeds.
const MAX_THREADS: usize = 64;

/// Read and hashed at a time: long enough for a system call not to count, short enough to stay in the core's cache.
const UNIT_BYTES: u32 = 1 << 20;

/// Why a file or folder cannot be published as it is.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The system refuses.
    #[error("cannot read {path:?}: {source}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A name that not every system can have.
    #[error("{path:?} cannot be published under this name: {why}")]
    Name {
        /// Which file.
        path: PathBuf,
        /// What is wrong with the name.
        why: &'static str,
    },
    /// A link to a folder, or out of the published folder.
    #[error("{path:?} is a link {why}")]
    Link {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        why: &'static str,
    },
    /// A device, a pipe or a socket.
    #[error("{path:?} is neither a file nor a folder")]
    NotAFile {
        /// What it is called.
        path: PathBuf,
    },
    /// More than [`MAX_FILES`].
    #[error("more than {MAX_FILES} files in {path:?}")]
    TooMany {
        /// The folder.
        path: PathBuf,
    },
    /// Nothing to publish.
    #[error("no files in {path:?}")]
    Empty {
        /// The folder.
        path: PathBuf,
    },
}

/// Why pieces cannot be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// Size or time of a file is not what it was: what was hashed may never have been one file.
    #[error("{path:?} changed while it was hashed: publish it when nobody writes to it")]
    Changed {
        /// Which file.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot read {path:?}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The layout is not that of the files.
    #[error("the layout is of other files")]
    Layout,
}

/// The objects of a file or of a folder with all below it, sorted by path, each with the file to read it from.
///
/// Links to files are followed where they stay inside the folder. Every file is opened once, so that what cannot be
/// read is found out before hours of hashing.
///
/// # Errors
/// [`ScanError`] names the first file that cannot be published.
pub fn scan(path: &Path) -> Result<Vec<(Object, PathBuf)>, ScanError> {
    let found = fs::metadata(path).map_err(|e| unreadable(path, e))?;
    if found.is_file() {
        let name = path.file_name().ok_or_else(|| ScanError::NotAFile { path: path.into() })?;
        return Ok(vec![object(path, name.to_str().map(str::to_owned), found.len())?]);
    }
    if !found.is_dir() {
        return Err(ScanError::NotAFile { path: path.into() });
    }
    let root = path.canonicalize().map_err(|e| unreadable(path, e))?;
    let mut folders = vec![(path.to_owned(), String::new())];
    let mut objects = Vec::new();
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|e| unreadable(&folder, e))? {
            let at = entry.map_err(|e| unreadable(&folder, e))?.path();
            let name = at.file_name().and_then(|n| n.to_str()).map(|n| format!("{prefix}{n}"));
            let mut kind = fs::symlink_metadata(&at).map_err(|e| unreadable(&at, e))?;
            if kind.is_symlink() {
                kind = followed(&at, &root)?;
            }
            if kind.is_dir() {
                let prefix = format!("{}/", plain_name(&at, name)?);
                folders.push((at, prefix));
            } else if kind.is_file() {
                objects.push(object(&at, name, kind.len())?);
            } else {
                return Err(ScanError::NotAFile { path: at });
            }
            if objects.len() > MAX_FILES {
                return Err(ScanError::TooMany { path: path.into() });
            }
        }
    }
    if objects.is_empty() {
        return Err(ScanError::Empty { path: path.into() });
    }
    objects.sort_unstable_by(|a, b| a.0.path.cmp(&b.0.path));
    Ok(objects)
}

fn unreadable(path: &Path, source: io::Error) -> ScanError {
    ScanError::Io { path: path.into(), source }
}

/// What a link inside `root` leads to.
fn followed(link: &Path, root: &Path) -> Result<fs::Metadata, ScanError> {
    let target = link.canonicalize().map_err(|e| unreadable(link, e))?;
    let found = fs::metadata(&target).map_err(|e| unreadable(link, e))?;
    let refused = |why| Err(ScanError::Link { path: link.into(), why });
    if !target.starts_with(root) {
        return refused("out of the folder that is published");
    }
    // Folders could hold themselves through links.
    if found.is_dir() { refused("to a folder, and only links to files are followed") } else { Ok(found) }
}

fn plain_name(path: &Path, name: Option<String>) -> Result<String, ScanError> {
    let refused = |why| Err(ScanError::Name { path: path.into(), why });
    match name {
        None => refused("it is not UTF-8"),
        Some(n) if n.len() > MAX_PATH_BYTES => refused("it is longer than 1,024 bytes"),
        Some(n) if !is_plain_path(&n) => refused("it has a backslash, a colon or a control character"),
        Some(n) => Ok(n),
    }
}

fn object(path: &Path, name: Option<String>, size_bytes: u64) -> Result<(Object, PathBuf), ScanError> {
    let name = plain_name(path, name)?;
    File::open(path).map_err(|e| unreadable(path, e))?;
    Ok((Object { media_type: media_type(&name).into(), path: name, size_bytes }, path.into()))
}

/// The media type that the ending of `path` stands for; empty where unknown.
fn media_type(path: &str) -> &'static str {
    let ending = path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending);
    match ending.unwrap_or("").to_ascii_lowercase().as_str() {
        "m3u8" => "application/vnd.apple.mpegurl",
        "mpd" => "application/dash+xml",
        "mp4" | "m4v" => "video/mp4",
        "m4s" => "video/iso.segment",
        "ts" => "video/mp2t",
        "webm" => "video/webm",
        "mkv" => "video/x-matroska",
        "m4a" => "audio/mp4",
        "aac" => "audio/aac",
        "mp3" => "audio/mpeg",
        "ogg" | "opus" => "audio/ogg",
        "vtt" => "text/vtt",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        "html" | "htm" => "text/html",
        "css" => "text/css",
        "js" | "mjs" => "text/javascript",
        "json" => "application/json",
        "xml" => "application/xml",
        "txt" => "text/plain",
        "md" => "text/markdown",
        "csv" => "text/csv",
        "pdf" => "application/pdf",
        "wasm" => "application/wasm",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "zst" => "application/zstd",
        "tar" => "application/x-tar",
        _ => "",
    }
}

/// What is known of all pieces, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hashed {
    /// Leaf hashes: SHA-256(0x00 ‖ data), as [`merkle::leaf`].
    pub leaves: Vec<Hash>,
    /// Rolling sums, as [`sums::of`].
    pub sums: Vec<Sum>,
}

/// Leaf hashes and sums of all pieces.
///
/// `progress` is called with the bytes done so far, from any of the `threads` (1 to 64) and not always in order.
///
/// # Errors
/// [`HashError::Changed`] when a file is not as it was at the beginning or as `files` says, [`HashError::Io`],
/// [`HashError::Layout`].
pub fn hash_pieces(
    files: &[(Object, PathBuf)],
    layout: &Layout,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Hashed, HashError> {
    let objects: Vec<Object> = files.iter().map(|(object, _)| object.clone()).collect();
    if Layout::new(layout.piece_bytes(), &objects).as_ref() != Ok(layout) {
        return Err(HashError::Layout);
    }
    let times = files.iter().map(|(object, path)| modified(object, path)).collect::<Result<Vec<_>, _>>()?;
    let work = Work {
        files,
        layout,
        progress,
        unit_pieces: (UNIT_BYTES / layout.piece_bytes()).max(1),
        next_piece: AtomicU64::new(0),
        done_bytes: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        hashed: Mutex::new(Hashed {
            leaves: vec![Hash::default(); layout.pieces() as usize],
            sums: vec![Sum::default(); layout.pieces() as usize],
        }),
    };
    std::thread::scope(|scope| {
        let extra = threads.clamp(1, MAX_THREADS) - 1;
        let others: Vec<_> = (0..extra).map(|_| scope.spawn(|| work.run())).collect();
        let mine = work.run();
        others
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .fold(mine, Result::and)
    })?;
    for ((object, path), time) in files.iter().zip(times) {
        if modified(object, path)? != time {
            return Err(HashError::Changed { path: path.clone() });
        }
    }
    Ok(work.hashed.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// When the file of `object` was last written; an error when it no longer has the object's size.
fn modified(object: &Object, path: &Path) -> Result<Option<SystemTime>, HashError> {
    let found = fs::metadata(path).map_err(|source| HashError::Io { path: path.into(), source })?;
    if found.len() != object.size_bytes {
        return Err(HashError::Changed { path: path.into() });
    }
    Ok(found.modified().ok())
}

/// What the hashing threads share.
struct Work<'a> {
    files: &'a [(Object, PathBuf)],
    layout: &'a Layout,
    progress: &'a (dyn Fn(u64) + Sync),
    unit_pieces: u32,
    next_piece: AtomicU64,
    done_bytes: AtomicU64,
    failed: AtomicBool,
    hashed: Mutex<Hashed>,
}

impl Work<'_> {
    /// Takes units, the next one always, so that all threads together read from beginning to end.
    fn run(&self) -> Result<(), HashError> {
        let mut buffer = vec![0; UNIT_BYTES.max(self.layout.piece_bytes()) as usize];
        let mut open = None;
        while !self.failed.load(Ordering::Relaxed) {
            let first = self.next_piece.fetch_add(u64::from(self.unit_pieces), Ordering::Relaxed);
            let Ok(first) = u32::try_from(first) else { break };
            if first >= self.layout.pieces() {
                break;
            }
            let unit = first..first.saturating_add(self.unit_pieces).min(self.layout.pieces());
            if let Err(e) = self.hash_unit(unit, &mut buffer, &mut open) {
                self.failed.store(true, Ordering::Relaxed);
                return Err(e);
            }
        }
        Ok(())
    }

    /// Hashes the pieces of `unit`, with one read for each object that it touches.
    fn hash_unit(
        &self,
        unit: Range<u32>,
        buffer: &mut [u8],
        open: &mut Option<(usize, File)>,
    ) -> Result<(), HashError> {
        let mut first = unit.start;
        while let Some(at) = self.layout.at(first).filter(|_| first < unit.end) {
            let end = self.layout.pieces_of_object(at.object).end.min(unit.end);
            let path = &self.files[at.object].1;
            let failed = |source: io::Error| match source.kind() {
                io::ErrorKind::UnexpectedEof => HashError::Changed { path: path.clone() },
                _ => HashError::Io { path: path.clone(), source },
            };
            let file = match open.take() {
                Some((object, file)) if object == at.object => file,
                _ => File::open(path).map_err(failed)?,
            };
            let data = &mut buffer[..self.layout.len_of(first..end) as usize];
            read_at(&file, data, at.offset).map_err(failed)?;
            *open = Some((at.object, file));
            // A piece is in the core's cache when its sum is made.
            let pieces = data.chunks(self.layout.piece_bytes() as usize);
            let (leaves, sums): (Vec<Hash>, Vec<Sum>) = pieces.map(|p| (merkle::leaf(p), sums::of(p))).unzip();
            let mut hashed = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
            hashed.leaves[first as usize..end as usize].copy_from_slice(&leaves);
            hashed.sums[first as usize..end as usize].copy_from_slice(&sums);
            drop(hashed);
            (self.progress)(self.done_bytes.fetch_add(data.len() as u64, Ordering::Relaxed) + data.len() as u64);
            first = end;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "hashing_tests.rs"]
mod tests;
