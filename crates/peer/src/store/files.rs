//! Where objects lie on disk: `.part` files, their final names, a bounded set of open files, and positional I/O.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use headwater_model::log::{Track, is_plain_path};

use super::error::{StoreError, failed};
use super::locked;

/// Files kept open at a time: far below the usual limit of 1,024 per process, of which connections need the most.
const MAX_OPEN_FILES: usize = 64;

/// Where the data of a content goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// One file, for a content of one object: written beside as `FILE.part`, renamed when it is complete.
    File(PathBuf),
    /// A folder, with every object below it by its path, each written as `.part` until it is complete.
    Folder(PathBuf),
}

impl Destination {
    /// The file or folder.
    pub fn path(&self) -> &Path {
        match self {
            Destination::File(path) | Destination::Folder(path) => path,
        }
    }
}

/// Size and modification time of a data file: what tells that nobody changed it since.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Stamp {
    /// Size in bytes.
    pub bytes: u64,
    /// Modification time in nanoseconds since 1970; 0 where the file system has none.
    pub modified_unix_ns: u64,
}

/// What lies on disk for an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// Nothing, or a file of another size under the final name.
    Nothing,
    /// A `.part` file.
    Part(Stamp),
    /// No `.part` file, but one of the right size under the final name.
    Finished(Stamp),
}

/// Where an object's data is read and written now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Nowhere yet.
    Absent,
    /// In its `.part` file.
    Part,
    /// Under its final name, which was like this when it was finished or last written.
    Finished(Stamp),
    /// It was removed or changed by somebody else, and is left alone.
    Gone,
}

struct ObjectFile {
    path: PathBuf,
    bytes: u64,
}

struct OpenFile {
    file: Arc<File>,
    writable: bool,
    last_use: u64,
}

#[derive(Default)]
struct Inner {
    places: Vec<Place>,
    open: BTreeMap<usize, OpenFile>,
    uses: u64,
}

/// The files of all objects.
pub(super) struct Files {
    objects: Vec<ObjectFile>,
    suffix: String,
    inner: Mutex<Inner>,
}

impl Files {
    pub fn new(track: &Track, destination: &Destination) -> Result<Files, StoreError> {
        let objects = match destination {
            Destination::File(path) => {
                let [object] = &track.objects[..] else {
                    return Err(StoreError::NotOneFile { files: track.objects.len() });
                };
                vec![ObjectFile { path: path.clone(), bytes: object.size_bytes }]
            }
            Destination::Folder(folder) => {
                if let Some(o) = track.objects.iter().find(|o| !is_plain_path(&o.path)) {
                    let why = "the path could leave its folder".into();
                    return Err(StoreError::NotWritable { path: PathBuf::from(&o.path), why });
                }
                let below = |path: &str| path.split('/').fold(folder.clone(), |at, part| at.join(part));
                track.objects.iter().map(|o| ObjectFile { path: below(&o.path), bytes: o.size_bytes }).collect()
            }
        };
        let inner = Inner { places: vec![Place::Absent; objects.len()], ..Inner::default() };
        Ok(Files { objects, suffix: unused_suffix(track), inner: Mutex::new(inner) })
    }

    pub fn path(&self, object: usize) -> &Path {
        &self.objects[object].path
    }

    pub fn part_path(&self, object: usize) -> PathBuf {
        let mut path = self.objects[object].path.clone().into_os_string();
        path.push(&self.suffix);
        path.into()
    }

    /// Looks at the disk, and takes a `.part` file for the object's place.
    pub fn find(&self, object: usize) -> Result<Found, StoreError> {
        let (path, part) = (self.path(object), self.part_path(object));
        let seen = |path: &Path| match fs::metadata(path) {
            Ok(m) if m.is_file() => Ok(Some(stamp_of(&m))),
            Ok(_) => {
                let why = "there is something else under this name than a plain file".into();
                Err(StoreError::NotWritable { path: path.into(), why })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("look at", path, e)),
        };
        let finished = seen(path)?;
        if let Some(stamp) = seen(&part)? {
            self.set_place(object, Place::Part);
            return Ok(Found::Part(stamp));
        }
        Ok(finished.filter(|s| s.bytes == self.objects[object].bytes).map_or(Found::Nothing, Found::Finished))
    }

    pub fn place(&self, object: usize) -> Place {
        locked(&self.inner).places[object]
    }

    pub fn set_place(&self, object: usize, place: Place) {
        let mut inner = locked(&self.inner);
        inner.places[object] = place;
        inner.open.remove(&object);
    }

    /// The file that the object's data is in; for writing it is created when there is none.
    pub fn open(&self, object: usize, write: bool) -> Result<Arc<File>, StoreError> {
        let mut inner = locked(&self.inner);
        inner.uses += 1;
        let uses = inner.uses;
        if let Some(open) = inner.open.get_mut(&object).filter(|o| o.writable || !write) {
            open.last_use = uses;
            return Ok(open.file.clone());
        }
        let (path, part) = (self.path(object), self.part_path(object));
        let vanished = || StoreError::Vanished { path: path.into() };
        let (opened, at, writable) = match inner.places[object] {
            Place::Absent if write => {
                create_parents(&part)?;
                let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&part);
                (file, part.as_path(), true)
            }
            Place::Part => (OpenOptions::new().read(true).write(true).open(&part), part.as_path(), true),
            Place::Finished(stamp) if write => {
                if self.stamp(object) != Some(stamp) {
                    return Err(vanished());
                }
                (OpenOptions::new().read(true).write(true).open(path), path, true)
            }
            Place::Finished(_) => (File::open(path), path, false),
            Place::Absent | Place::Gone => return Err(vanished()),
        };
        let file = opened.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => vanished(),
            _ => failed("open", at, e),
        })?;
        if writable && file.metadata().map_err(|e| failed("look at", at, e))?.len() != self.objects[object].bytes {
            file.set_len(self.objects[object].bytes).map_err(|e| failed("make room in", at, e))?;
        }
        if inner.places[object] == Place::Absent {
            inner.places[object] = Place::Part;
        }
        if inner.open.len() >= MAX_OPEN_FILES
            && let Some(oldest) = inner.open.iter().min_by_key(|(_, o)| o.last_use).map(|(object, _)| *object)
        {
            inner.open.remove(&oldest);
        }
        let file = Arc::new(file);
        inner.open.insert(object, OpenFile { file: file.clone(), writable, last_use: uses });
        Ok(file)
    }

    /// A complete object's data reaches the disk, and the file gets its final name.
    pub fn finish(&self, object: usize) -> Result<(), StoreError> {
        let (path, part) = (self.path(object), self.part_path(object));
        if self.place(object) == Place::Absent {
            self.open(object, true)?;
        }
        self.sync(object)?;
        let mut inner = locked(&self.inner);
        if inner.places[object] == Place::Part {
            inner.open.remove(&object);
            fs::rename(&part, path).map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => StoreError::Vanished { path: part.clone() },
                _ => failed("give its final name to", &part, e),
            })?;
        }
        let stamp = self.stamp(object).ok_or_else(|| StoreError::Vanished { path: path.into() })?;
        inner.places[object] = Place::Finished(stamp);
        drop(inner);
        sync_folder_of(path);
        Ok(())
    }

    /// Waits until what was written to the object is on the disk.
    pub fn sync(&self, object: usize) -> Result<(), StoreError> {
        let reading = matches!(self.place(object), Place::Finished(_));
        match self.open(object, !reading)?.sync_all() {
            // Some systems sync only what is open for writing; what is not has nothing of ours to write.
            Err(e) if reading && e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            done => done.map_err(|e| failed("write", self.path(object), e)),
        }
    }

    /// After a write: a file under its final name is known by its new stamp.
    pub fn restamp(&self, object: usize) {
        let mut inner = locked(&self.inner);
        if matches!(inner.places[object], Place::Finished(_))
            && let Some(stamp) = self.stamp(object)
        {
            inner.places[object] = Place::Finished(stamp);
        }
    }

    /// Whether a finished file is not as it was left.
    pub fn was_changed(&self, object: usize) -> bool {
        matches!(self.place(object), Place::Finished(stamp) if self.stamp(object) != Some(stamp))
    }

    /// The stamp under the final name.
    pub fn stamp(&self, object: usize) -> Option<Stamp> {
        fs::metadata(self.path(object)).ok().filter(|m| m.is_file()).map(|m| stamp_of(&m))
    }

    /// The stamp of the file that the data is in now; zeros where there is none.
    pub fn stamp_in_place(&self, object: usize) -> Stamp {
        match self.place(object) {
            Place::Part => fs::metadata(self.part_path(object)).map_or(Stamp::default(), |m| stamp_of(&m)),
            Place::Finished(stamp) => stamp,
            Place::Absent | Place::Gone => Stamp::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.objects.len()
    }

    pub fn bytes(&self, object: usize) -> u64 {
        self.objects[object].bytes
    }
}

/// `.part`, or with a number where an object has such a name itself.
fn unused_suffix(track: &Track) -> String {
    let used = |suffix: &str| {
        let mut parts = track.objects.iter().flat_map(|o| o.path.split('/'));
        parts.any(|part| part.to_lowercase().ends_with(suffix))
    };
    let mut suffix = ".part".to_owned();
    let mut number = 1;
    while used(&suffix) {
        number += 1;
        suffix = format!(".part{number}");
    }
    suffix
}

fn stamp_of(m: &fs::Metadata) -> Stamp {
    let modified = m.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    Stamp { bytes: m.len(), modified_unix_ns: modified.map_or(0, |d| d.as_nanos() as u64) }
}

pub(super) fn create_parents(path: &Path) -> Result<(), StoreError> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            fs::create_dir_all(folder).map_err(|e| failed("create", folder, e))
        }
        _ => Ok(()),
    }
}

/// A new name survives a power failure only when its folder is written too; systems without that do without.
pub(super) fn sync_folder_of(path: &Path) {
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        // Not every file system can sync a folder, and the data itself is safe: nothing to tell.
        let _ = File::open(folder).and_then(|f| f.sync_all());
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// Fills `out` from `offset` on.
pub(crate) fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, out, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < out.len() {
            match std::os::windows::fs::FileExt::seek_read(file, &mut out[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n,
            }
        }
        Ok(())
    }
}

/// Fills `out` from `offset` on if that takes no waiting for the disk; false where it would, and where a system or a file
/// system cannot tell.
pub(crate) fn read_at_once(file: &File, out: &mut [u8], offset: u64) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::io::{ReadWriteFlags, preadv2};
        let len = out.len();
        let read = preadv2(file, &mut [io::IoSliceMut::new(out)], offset, ReadWriteFlags::NOWAIT);
        read.is_ok_and(|n| n == len)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, out, offset);
        false
    }
}

/// Writes all of `data` at `offset`.
pub(crate) fn write_at(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, data, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < data.len() {
            match std::os::windows::fs::FileExt::seek_write(file, &data[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => done += n,
            }
        }
        Ok(())
    }
}
