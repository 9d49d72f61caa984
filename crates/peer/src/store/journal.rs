//! Which pieces were about to be written since the last checkpoint.
//!
//! A list of piece numbers, four bytes each. It needs no checksums: what it names is hashed before it is believed. The
//! file is there only while something was written that no checkpoint says: a store that was closed has none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::error::{StoreError, failed};
use super::write_at;

/// The file `journal` of a state folder.
pub(super) struct Journal {
    path: PathBuf,
    /// `None` while there is no such file.
    file: Option<File>,
    /// What the file says; when it was found it may name pieces that do not exist.
    pieces: Vec<u32>,
    /// When the file that was found was last written to, in nanoseconds since 1970; `None` when there was none.
    pub left_unix_ns: Option<u64>,
    /// How often [`Journal::retain`] has left out some.
    pub thinned: u32,
}

impl Journal {
    /// Opens the journal of a content of so many pieces, with what was left in it.
    pub fn open(state_dir: &Path, pieces: u32) -> Result<Journal, StoreError> {
        let path = state_dir.join("journal");
        let open = || -> io::Result<_> {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let modified = file.metadata()?.modified()?;
            let mut bytes = Vec::new();
            // Each number is appended once between two checkpoints, or once more for each time that it was found wrong.
            (&file).take(64 * 1024 + 8 * u64::from(pieces)).read_to_end(&mut bytes)?;
            Ok((file, modified, bytes))
        };
        let (file, modified, bytes) = match open() {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(Journal { path, file: None, pieces: Vec::new(), left_unix_ns: None, thinned: 0 });
            }
            Err(e) => return Err(failed("open", &path, e)),
        };
        let left_unix_ns = Some(modified.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64));
        // A number that was cut off is written over by the next one.
        let (numbers, _) = bytes.as_chunks::<4>();
        let pieces = numbers.iter().map(|n| u32::from_le_bytes(*n)).collect();
        Ok(Journal { path, file: Some(file), pieces, left_unix_ns, thinned: 0 })
    }

    /// Every piece that it names, in the order of writing.
    pub fn pieces(&self) -> &[u32] {
        &self.pieces
    }

    /// Names a piece; after a failure it may or may not be named when the journal is opened again.
    pub fn add(&mut self, piece: u32) -> Result<(), StoreError> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let created = OpenOptions::new().write(true).create(true).truncate(true).open(&self.path);
                let created = created.map_err(|e| failed("create", &self.path, e))?;
                none.insert(created)
            }
        };
        write_at(file, &piece.to_le_bytes(), 4 * self.pieces.len() as u64)
            .map_err(|e| failed("write", &self.path, e))?;
        self.pieces.push(piece);
        Ok(())
    }

    /// Leaves out the `first` pieces that it names, which a checkpoint says now.
    pub fn forget(&mut self, first: usize) -> Result<(), StoreError> {
        self.replace(self.pieces[first.min(self.pieces.len())..].to_vec())
    }

    /// Names only those of its pieces that are to be kept.
    pub fn retain(&mut self, keep: impl Fn(u32) -> bool) -> Result<(), StoreError> {
        self.thinned += 1;
        self.replace(self.pieces.iter().copied().filter(|p| keep(*p)).collect())
    }

    fn replace(&mut self, pieces: Vec<u32>) -> Result<(), StoreError> {
        if pieces.is_empty() {
            self.file = None;
            match fs::remove_file(&self.path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &self.path, e)),
                _ => {}
            }
        } else {
            let new = self.path.with_extension("new");
            let bytes: Vec<u8> = pieces.iter().flat_map(|p| p.to_le_bytes()).collect();
            let write = || -> io::Result<File> {
                let mut file = File::create(&new)?;
                file.write_all(&bytes)?;
                fs::rename(&new, &self.path)?;
                Ok(file)
            };
            self.file = Some(write().map_err(|e| failed("save", &self.path, e))?);
        }
        self.pieces = pieces;
        Ok(())
    }
}
