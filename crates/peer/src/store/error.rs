//! What can go wrong with a store's files.

use std::io;
use std::path::{Path, PathBuf};

/// Why the store cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, or this user's share of it, is full.
    #[error("no room left on the disk for {path:?}: make some, then it goes on from here")]
    DiskFull {
        /// What was written.
        path: PathBuf,
    },
    /// Found out before anything is written.
    #[error("not enough room in {path:?}: {} MB needed, {} MB free", needed_bytes.div_ceil(1_000_000), free_bytes / 1_000_000)]
    NoRoom {
        /// The folder.
        path: PathBuf,
        /// Bytes that are needed.
        needed_bytes: u64,
        /// Bytes that are free.
        free_bytes: u64,
    },
    /// Permissions, a read-only disk, or something else under the name.
    #[error("cannot write {path:?}: {why}; make it writable, or choose another folder")]
    NotWritable {
        /// What was to be written.
        path: PathBuf,
        /// The system's reason.
        why: String,
    },
    /// Another process has this store open.
    #[error("{path:?} is in use by another process")]
    InUse {
        /// The state folder.
        path: PathBuf,
    },
    /// Somebody removed or changed a data file.
    #[error(
        "{path:?} was removed or changed by somebody else, or its disk was taken away: what is gone is fetched again"
    )]
    Vanished {
        /// The file.
        path: PathBuf,
    },
    /// The folder is not there any more.
    #[error("the folder {path:?} is gone, or its disk was taken away: bring it back, then it goes on from there")]
    FolderGone {
        /// The folder.
        path: PathBuf,
    },
    /// Only a complete content can be given out.
    #[error("the content in {path:?} is not complete")]
    NotComplete {
        /// Its folder.
        path: PathBuf,
    },
    /// Nothing is overwritten.
    #[error("there is something at {path:?} already: choose another place")]
    Exists {
        /// What was to be made.
        path: PathBuf,
    },
    /// A content of several files, or of none, cannot go to one file.
    #[error("the content has {files} files: choose a folder for it")]
    NotOneFile {
        /// Objects of the content.
        files: usize,
    },
    /// The store was closed.
    #[error("the piece store is closed")]
    Closed,
    /// Anything else that the system refuses.
    #[error("cannot {what} {path:?}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// The error that `source` means for `path`.
pub(super) fn failed(what: &'static str, path: &Path, source: io::Error) -> StoreError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::DiskFull { path },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::NotWritable { path, why: source.to_string() }
        }
        _ => StoreError::Io { what, path, source },
    }
}

/// Whether `bytes` more fit on the disk that `folder` is on, or would be on once created.
///
/// # Errors
/// [`StoreError::NoRoom`] when they do not, [`StoreError::Io`] when the disk cannot be asked.
pub fn room_for(folder: &Path, bytes: u64) -> Result<(), StoreError> {
    let here = Path::new(".");
    let existing = folder.ancestors().find(|p| p.exists()).unwrap_or(here);
    let existing = if existing.as_os_str().is_empty() { here } else { existing };
    let free_bytes = fs4::available_space(existing).map_err(|e| failed("ask for the room in", existing, e))?;
    if free_bytes < bytes {
        return Err(StoreError::NoRoom { path: folder.into(), needed_bytes: bytes, free_bytes });
    }
    Ok(())
}
