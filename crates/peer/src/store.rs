//! The piece store of one version of a content: data files, hash pages and the bitmap of pieces, safe against being
//! killed at any moment.
//!
//! A piece is hashed before anything is written. Its number is appended to a *journal* before its data goes to the data
//! file, so that a killed process loses nothing that it wrote. Every few seconds, and when it is closed, the store makes
//! a *checkpoint*: the data files reach the disk, then a bitmap with size and modification time of each of them, and the
//! journal forgets what that bitmap says. After an unclean end, whether of the process or of the machine, what the
//! bitmap says is believed and what the journal names is hashed again; a data file whose modification time says that
//! somebody else has touched it is hashed as a whole.

mod checkpoint;
mod error;
mod export;
mod files;
mod journal;
mod resume;
mod reuse;
mod state;
mod thread;
mod worker;

#[cfg(test)]
mod kill_tests;
#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_model::log::Track;
use headwater_model::merkle::{self, PAGE_LEAVES, Page};
use headwater_model::{Bits, Hash, Layout};

use self::error::failed;
pub use self::error::{StoreError, room_for};
pub use self::export::export;
pub use self::files::Destination;
use self::files::read_at_once;
use self::files::{Files, Found, Place, Stamp};
pub(crate) use self::files::{read_at, write_at};
use self::journal::Journal;
pub use self::reuse::{Reused, plain_files};
use self::state::FolderLock;
pub use self::thread::StoreHandle;

/// Time between checkpoints: writing of about so long may be lost when the machine loses power, and is hashed again
/// after a kill.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// What became of something handed to the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// It was true, and is kept.
    Stored,
    /// It was there already.
    Already,
    /// It is not what the signed root says; nothing was written.
    Bad,
    /// No hash page says yet what is true here; nothing was written.
    NoHash,
}

/// What opening found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Opened {
    /// Pieces held.
    pub held: u32,
    /// Pieces that were hashed while opening.
    pub verified: u32,
    /// Pieces that the state claimed and that are not there or wrong.
    pub dropped: u32,
    /// Bytes that lie in data files but are not held: what [`Store::import`] can look at once their hashes are known.
    pub importable_bytes: u64,
    /// What a user may want to know, a sentence each.
    pub notes: Vec<String>,
}

/// Called with bytes done and bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

struct Held {
    bits: Bits,
    /// Pieces that each object lacks.
    missing: Vec<u32>,
}

/// What only one at a time may do.
struct Writer {
    /// `None` once closed.
    lock: Option<FolderLock>,
    /// Nothing is written any more, but for the last checkpoint.
    closing: bool,
    pages_file: Arc<File>,
    pages_file_bytes: u64,
    journal: Journal,
    /// Something has changed since the last checkpoint.
    unsaved: bool,
    /// Objects changed since the last checkpoint, and whether they have data that may not have reached the disk.
    changed: BTreeMap<usize, bool>,
    /// A checkpoint that was made meanwhile failed: whoever writes next is told.
    trouble: Option<StoreError>,
    /// Each object's file as it was at the last checkpoint.
    stamps: Vec<Stamp>,
}

/// The piece store of one content version. All methods block on the disk; see [`StoreHandle`] for the async face.
///
/// Writing calls wait for one another; [`Store::read`] waits for none of them.
pub struct Store {
    layout: Layout,
    root: Hash,
    /// Root over the pieces' rolling sums, where the log has it.
    sums_root: Option<Hash>,
    identity: Hash,
    state_dir: PathBuf,
    files: Files,
    pages: Mutex<Vec<Option<Arc<Page>>>>,
    held: Mutex<Held>,
    writer: Mutex<Writer>,
    /// Held while a checkpoint is made; taken before `writer`.
    saving: Mutex<()>,
    /// A reader found an object gone, whose cleared bits are to be saved.
    lost: AtomicBool,
}

/// A lock held by a thread that panicked still guards whole values: each is changed in one step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Creates or resumes the store of `track`, with its state in `state_dir`, which belongs to this store alone.
    ///
    /// Damaged state, or that of another version, counts as none, with a note. `progress` is told of verification.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while another store has the state folder open; [`StoreError::NotOneFile`];
    /// [`StoreError::NotWritable`], [`StoreError::DiskFull`] and [`StoreError::Io`] as the system says.
    pub fn open(
        track: &Track,
        destination: &Destination,
        state_dir: &Path,
        progress: Progress,
    ) -> Result<(Store, Opened), StoreError> {
        let files = Files::new(track, destination)?;
        fs::create_dir_all(state_dir).map_err(|e| failed("create", state_dir, e))?;
        let lock = FolderLock::take(state_dir)?;
        let (layout, identity) = (track.layout.clone(), state::identity(track));
        let mut opened = Opened::default();
        let state = state::load_state(state_dir, &identity, &layout, files.len(), &mut opened)?;
        let journal = Journal::open(state_dir, layout.pieces())?;
        let (pages, pages_file, pages_file_bytes) = state::load_pages(state_dir, track, &mut opened)?;
        let missing = (0..files.len()).map(|o| layout.pieces_of_object(o).len() as u32).collect();
        let store = Store {
            root: track.root,
            sums_root: track.sums,
            identity,
            state_dir: state_dir.into(),
            pages: Mutex::new(pages),
            held: Mutex::new(Held { bits: Bits::new(layout.pieces()), missing }),
            writer: Mutex::new(Writer {
                lock: Some(lock),
                closing: false,
                pages_file: Arc::new(pages_file),
                pages_file_bytes,
                journal,
                unsaved: false,
                changed: BTreeMap::new(),
                trouble: None,
                stamps: state.as_ref().map_or_else(|| vec![Stamp::default(); files.len()], |s| s.stamps.clone()),
            }),
            saving: Mutex::new(()),
            lost: AtomicBool::new(false),
            layout,
            files,
        };
        store.resume(state, &mut opened, progress)?;
        if opened.dropped > 0 {
            // Later writing would make the file look as if nobody else had touched it.
            store.checkpoint()?;
        }
        Ok((store, opened))
    }

    /// The track's geometry.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A snapshot of which pieces are held.
    pub fn have(&self) -> Bits {
        locked(&self.held).bits.clone()
    }

    /// Whether `piece` is held.
    pub fn has(&self, piece: u32) -> bool {
        locked(&self.held).bits.get(piece)
    }

    /// Whether every piece is held and every file has its final name.
    pub fn is_complete(&self) -> bool {
        locked(&self.held).bits.is_full()
    }

    /// Whether hash page `number` is known.
    pub fn has_page(&self, number: u32) -> bool {
        self.page(number).is_some()
    }

    /// Hash page `number` with its proof, to hand on.
    pub fn page(&self, number: u32) -> Option<Arc<Page>> {
        locked(&self.pages).get(number as usize)?.clone()
    }

    /// The leaf hash of `piece`, where its page is known.
    pub fn leaf(&self, piece: u32) -> Option<Hash> {
        self.page(piece / PAGE_LEAVES)?.leaves.get((piece % PAGE_LEAVES) as usize).copied()
    }

    /// Keeps a hash page if the signed root proves it.
    ///
    /// # Errors
    /// [`StoreError::Closed`], or what the disk says.
    pub fn put_page(&self, page: Page) -> Result<Written, StoreError> {
        if !page.is_true(self.layout.pieces(), &self.root, self.sums_root.as_ref()) {
            return Ok(Written::Bad);
        }
        let mut writer = self.writer()?;
        if self.has_page(page.number) {
            return Ok(Written::Already);
        }
        let bytes = state::encode_page(&page);
        write_at(&writer.pages_file, &bytes, writer.pages_file_bytes)
            .map_err(|e| failed("write", &self.state_dir.join("pages"), e))?;
        writer.pages_file_bytes += bytes.len() as u64;
        if let Some(slot) = locked(&self.pages).get_mut(page.number as usize) {
            *slot = Some(Arc::new(page));
        }
        Ok(Written::Stored)
    }

    /// Keeps a piece if it has the length and the hash that it must have. [`Written::Bad`] past the last piece.
    ///
    /// When it is the last one that its object lacked, the object's data is synced and its file renamed.
    ///
    /// # Errors
    /// [`StoreError::Vanished`] when the file was taken away, [`StoreError::Closed`], or what the disk says, also of
    /// pieces written before; the piece then counts as missing, or is kept and only the checkpoint failed.
    pub fn write(&self, piece: u32, data: &[u8]) -> Result<Written, StoreError> {
        let Some(at) = self.layout.at(piece).filter(|at| at.len as usize == data.len()) else {
            return Ok(Written::Bad);
        };
        drop(self.writer()?);
        if self.has(piece) {
            return Ok(Written::Already);
        }
        match self.leaf(piece) {
            None => return Ok(Written::NoHash),
            Some(leaf) if leaf != merkle::leaf(data) => return Ok(Written::Bad),
            Some(_) => {}
        }
        let mut writer = self.writer()?;
        if let Some(error) = writer.trouble.take() {
            return Err(error);
        }
        if self.has(piece) {
            return Ok(Written::Already);
        }
        let done = self.put(&mut writer, piece, data);
        self.unless_vanished(at.object, done)?;
        let done = self.hold(&mut writer, at.object, &[piece]);
        self.unless_vanished(at.object, done)?;
        drop(writer);
        if self.is_complete() {
            self.checkpoint()?;
        }
        Ok(Written::Stored)
    }

    /// Reads a piece into the beginning of `out`; its length, or 0 when it is not held.
    ///
    /// # Errors
    /// [`StoreError::Vanished`] when the file was taken away, which clears the bits of the object; or what the disk
    /// says, which it does of an `out` that is too short also.
    pub fn read(&self, piece: u32, out: &mut [u8]) -> Result<usize, StoreError> {
        let Some(at) = self.layout.at(piece).filter(|_| self.has(piece)) else { return Ok(0) };
        let path = self.files.path(at.object);
        let short = || failed("read", path, io::Error::new(io::ErrorKind::InvalidInput, "the buffer is too short"));
        let out = out.get_mut(..at.len as usize).ok_or_else(short)?;
        let read = self.files.open(at.object, false).and_then(|file| {
            read_at(&file, out, at.offset).map_err(|e| match e.kind() {
                io::ErrorKind::UnexpectedEof => StoreError::Vanished { path: path.into() },
                _ => failed("read", path, e),
            })
        });
        self.unless_vanished(at.object, read)?;
        Ok(out.len())
    }

    /// As [`Store::read`], for threads that must not wait for the disk: `None` where it would wait, and whatever else is
    /// in the way.
    pub fn read_at_once(&self, piece: u32, out: &mut [u8]) -> Option<usize> {
        let at = self.layout.at(piece).filter(|_| self.has(piece))?;
        let out = out.get_mut(..at.len as usize)?;
        let file = self.files.open(at.object, false).ok()?;
        read_at_once(&file, out, at.offset).then_some(out.len())
    }

    /// Hashes a piece again, as somebody complained of it. If it is wrong its bit is cleared, to be fetched again.
    /// False also when it is not held.
    ///
    /// # Errors
    /// [`StoreError::Vanished`] when somebody else changed the file since it was finished: then all of the object
    /// counts as missing and the file is left alone. [`StoreError::Closed`], or what the disk says.
    pub fn recheck(&self, piece: u32) -> Result<bool, StoreError> {
        let mut writer = self.writer()?;
        let Some(at) = self.layout.at(piece).filter(|_| self.has(piece)) else { return Ok(false) };
        let opened = self.files.open(at.object, false);
        let file = self.unless_vanished(at.object, opened)?;
        if self.is_right(&file, piece, &mut vec![0; at.len as usize]) {
            return Ok(true);
        }
        if self.files.was_changed(at.object) {
            let path = self.files.path(at.object).into();
            self.unless_vanished(at.object, Err(StoreError::Vanished { path }))?;
        }
        self.clear_bits(at.object, std::iter::once(piece));
        writer.unsaved = true;
        // So that it is hashed again even if it was killed before the checkpoint.
        writer.journal.add(piece)?;
        drop(writer);
        self.checkpoint()?;
        Ok(false)
    }

    /// Hashes what lies in the data files and is not held, where hashes are known, and keeps what is right: a file of
    /// the final name from before if all of it is ([`Store::reuse`] takes parts of one), or what is right of a `.part`
    /// file whose state was lost. The number of pieces gained.
    ///
    /// # Errors
    /// [`StoreError::Closed`], or what the disk says.
    pub fn import(&self, progress: Progress) -> Result<u32, StoreError> {
        let mut writer = self.writer()?;
        let mut work = Vec::new();
        for object in 0..self.files.len() {
            let has_data = match self.files.place(object) {
                Place::Gone => continue,
                Place::Absent => matches!(self.files.find(object)?, Found::Finished(_)),
                Place::Part | Place::Finished(_) => true,
            };
            if has_data {
                work.push((object, self.unheld_with_hash(object)));
            }
        }
        let before = self.have().ones();
        self.examine_all(&mut writer, work, false, progress)?;
        let gained = self.have().ones() - before;
        drop(writer);
        if gained > 0 {
            self.checkpoint()?;
        }
        Ok(gained)
    }

    /// Takes the files under their final names for what the track says, unread: for a publisher who has just hashed
    /// them and has put in all pages.
    ///
    /// # Errors
    /// [`StoreError::Vanished`] when a file is not there in its size, [`StoreError::Closed`], or what the disk says.
    pub fn adopt(&self) -> Result<(), StoreError> {
        let mut writer = self.writer()?;
        for object in 0..self.files.len() {
            let stamp = self.files.stamp(object).filter(|s| s.bytes == self.files.bytes(object));
            let path = self.files.path(object);
            let stamp = stamp.ok_or_else(|| StoreError::Vanished { path: path.into() })?;
            self.files.set_place(object, Place::Finished(stamp));
            writer.stamps[object] = stamp;
            self.set_bits(object, self.layout.pieces_of_object(object));
        }
        writer.unsaved = true;
        drop(writer);
        self.checkpoint()
    }

    /// Makes a last checkpoint and lets go of the state folder. Reading goes on, writing does not.
    ///
    /// # Errors
    /// What the disk says; what the last checkpoint but one lacks is then hashed when the store is opened again, and the
    /// folder is free all the same.
    pub fn close(&self) -> Result<(), StoreError> {
        let Ok(mut writer) = self.writer() else { return Ok(()) };
        writer.closing = true;
        drop(writer);
        let saved = self.checkpoint();
        locked(&self.writer).lock = None;
        saved
    }

    fn writer(&self) -> Result<MutexGuard<'_, Writer>, StoreError> {
        let writer = locked(&self.writer);
        if writer.closing {
            return Err(StoreError::Closed);
        }
        Ok(writer)
    }

    /// Writes a piece to its data file, the journal first.
    fn put(&self, writer: &mut Writer, piece: u32, data: &[u8]) -> Result<(), StoreError> {
        let Some(at) = self.layout.at(piece) else { return Ok(()) };
        writer.journal.add(piece)?;
        writer.unsaved = true;
        let file = self.files.open(at.object, true)?;
        writer.changed.insert(at.object, true);
        write_at(&file, data, at.offset).map_err(|e| failed("write", self.files.path(at.object), e))?;
        self.files.restamp(at.object);
        Ok(())
    }

    /// Counts `pieces`, whose data is in place and which were not held, as held; finishes the object first if they
    /// are the last.
    fn hold(&self, writer: &mut Writer, object: usize, pieces: &[u32]) -> Result<(), StoreError> {
        if pieces.is_empty() {
            return Ok(());
        }
        if locked(&self.held).missing[object] as usize == pieces.len() {
            if let Err(error) = self.files.finish(object) {
                self.distrust(writer, object);
                return Err(error);
            }
            writer.changed.insert(object, false);
        }
        self.set_bits(object, pieces.iter().copied());
        writer.changed.entry(object).or_default();
        writer.unsaved = true;
        Ok(())
    }

    fn set_bits(&self, object: usize, pieces: impl Iterator<Item = u32>) {
        let mut held = locked(&self.held);
        for piece in pieces {
            if held.bits.set(piece) {
                held.missing[object] -= 1;
            }
        }
    }

    fn clear_bits(&self, object: usize, pieces: impl Iterator<Item = u32>) {
        let mut held = locked(&self.held);
        for piece in pieces {
            if held.bits.clear(piece) {
                held.missing[object] += 1;
            }
        }
    }

    /// Passes `done` on; an object that has vanished counts as missing and is not touched again.
    fn unless_vanished<T>(&self, object: usize, done: Result<T, StoreError>) -> Result<T, StoreError> {
        if matches!(done, Err(StoreError::Vanished { .. })) {
            self.files.set_place(object, Place::Gone);
            self.clear_bits(object, self.layout.pieces_of_object(object));
            self.lost.store(true, Ordering::Relaxed);
        }
        done
    }
}
