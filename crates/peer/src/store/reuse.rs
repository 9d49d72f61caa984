//! Taking pieces from files that are here already: those of an older version, or any that the user names.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use headwater_model::Hash;
use headwater_peer_core::Finder;

use super::error::StoreError;
use super::{Store, StoreHandle, Written};

/// Files that are looked through for one content.
const MAX_FILES: usize = 100_000;
/// Opened before the first one is read, as finished objects may take their names: few enough beside all connections.
const MAX_OPEN_FIRST: usize = 256;
/// Read at a time; two pieces at least.
const READ_BYTES: usize = 4 << 20;

/// What was taken from where.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Reused {
    /// Bytes of pieces that need not be fetched.
    pub bytes: u64,
    /// The files that gave some, and how many bytes each, most first.
    pub from: Vec<(PathBuf, u64)>,
    /// Files that could not be read, with the reasons.
    pub unread: Vec<String>,
}

/// The plain files that `sources` are, or that lie in them however deep; links are not followed. What cannot be read is
/// left out.
pub fn plain_files(sources: &[PathBuf]) -> Vec<PathBuf> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for source in sources {
        let mut folders = vec![];
        match fs::metadata(source) {
            Ok(m) if m.is_file() => found.push(source.clone()),
            Ok(m) if m.is_dir() => folders.push(source.clone()),
            _ => {}
        }
        while let Some(folder) = folders.pop() {
            let mut entries: Vec<_> = fs::read_dir(&folder).into_iter().flatten().flatten().collect();
            entries.sort_by_key(fs::DirEntry::path);
            for entry in entries {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    Ok(kind) if kind.is_file() => found.push(entry.path()),
                    _ => {}
                }
                if found.len() >= MAX_FILES {
                    return found;
                }
            }
        }
    }
    found.retain(|path| seen.insert(path.clone()));
    found
}

impl Store {
    /// Looks for missing pieces in `files`, which are only read, and writes those that are right. All hash pages must be
    /// known. `told` hears now and then how many bytes were found so far, and ends the search by false.
    ///
    /// A file that vanishes, shrinks or changes meanwhile gives what was read of it and is true; nothing is believed
    /// without its leaf hash.
    ///
    /// # Errors
    /// What [`Store::write`] says; [`StoreError::Closed`] when it was ended.
    pub fn reuse(&self, files: &[PathBuf], told: &mut dyn FnMut(u64) -> bool) -> Result<Reused, StoreError> {
        let before = self.have();
        self.import(&mut |_, _| {})?;
        let have = self.have();
        let mut reused = Reused::default();
        for piece in have.iter().filter(|p| !before.get(*p)) {
            let len = u64::from(self.layout.piece_len(piece));
            reused.bytes += len;
            if let Some(at) = self.layout.at(piece) {
                credit(&mut reused.from, self.files.path(at.object), len);
            }
        }
        let mut finder = self.finder();
        let parts: BTreeSet<PathBuf> = (0..self.files.len()).map(|object| self.files.part_path(object)).collect();
        let files = || files.iter().filter(|path| !parts.contains(*path));
        let first: Vec<_> = files().take(MAX_OPEN_FIRST).map(File::open).collect();
        let mut opened = first.into_iter();
        for path in files() {
            if finder.left() == 0 {
                break;
            }
            let taken = reused.bytes;
            let mut found = |piece: Option<(u32, &[u8])>| -> Result<bool, StoreError> {
                let is_right = match piece {
                    None => true,
                    Some((piece, data)) => match self.write(piece, data)? {
                        Written::Stored => {
                            reused.bytes += data.len() as u64;
                            true
                        }
                        Written::Already => true,
                        Written::Bad | Written::NoHash => false,
                    },
                };
                if told(reused.bytes) { Ok(is_right) } else { Err(StoreError::Closed) }
            };
            let searched = match opened.next().unwrap_or_else(|| File::open(path)) {
                Ok(file) => search(&mut finder, &file, self.layout.piece_bytes() as usize, &mut found)?,
                Err(error) => Err(error),
            };
            if let Err(error) = searched {
                reused.unread.push(format!("{}: {error}", path.display()));
            }
            let taken = reused.bytes - taken;
            if taken > 0 {
                credit(&mut reused.from, path, taken);
            }
        }
        reused.from.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Ok(reused)
    }

    fn finder(&self) -> Finder {
        let pages = || (0..).map_while(|number| self.page(number));
        let leaves: Vec<Hash> = pages().flat_map(|p| p.leaves.clone()).collect();
        let sums = pages().filter_map(|p| p.sums.as_ref().map(|s| s.sums.clone())).flatten().collect();
        Finder::new(self.layout.clone(), &leaves, sums, &self.have())
    }
}

fn credit(from: &mut Vec<(PathBuf, u64)>, path: &Path, bytes: u64) {
    match from.last_mut() {
        Some((last, all)) if last == path => *all += bytes,
        _ => from.push((path.to_owned(), bytes)),
    }
}

/// Searches one file to the end that it has now: one that grows is not read for ever. `found` is told of pieces, and of
/// nothing for each read. The inner error is the file's.
fn search(
    finder: &mut Finder,
    file: &File,
    piece_bytes: usize,
    found: &mut impl FnMut(Option<(u32, &[u8])>) -> Result<bool, StoreError>,
) -> Result<std::io::Result<()>, StoreError> {
    let mut left = match file.metadata() {
        Ok(m) => m.len(),
        Err(error) => return Ok(Err(error)),
    };
    finder.begin();
    let room = READ_BYTES.max(2 * piece_bytes).min(left as usize).max(1);
    let (mut buffer, mut held, mut file) = (vec![0; room], 0, file);
    loop {
        let read = match file.read(&mut buffer[held..]) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(Err(error)),
        };
        held += read.min(usize::try_from(left).unwrap_or(usize::MAX));
        left = left.saturating_sub(read as u64);
        let last = read == 0 || left == 0;
        if held < buffer.len() && !last {
            continue;
        }
        found(None)?;
        let done = finder.search(&buffer[..held], last, &mut |piece, data: &[u8]| found(Some((piece, data))))?;
        if last || finder.left() == 0 {
            return Ok(Ok(()));
        }
        buffer.copy_within(done..held, 0);
        held -= done;
    }
}

impl StoreHandle {
    /// As [`Store::reuse`], on a thread of its own; writes and reads go on meanwhile.
    ///
    /// # Errors
    /// As [`Store::reuse`].
    pub async fn reuse(
        &self,
        files: Vec<PathBuf>,
        mut told: impl FnMut(u64) -> bool + Send + 'static,
    ) -> Result<Reused, StoreError> {
        let store = self.store.clone();
        let searched = tokio::task::spawn_blocking(move || store.reuse(&files, &mut told)).await;
        searched.unwrap_or(Err(StoreError::Closed))
    }
}

#[cfg(test)]
#[path = "reuse_tests.rs"]
mod tests;
