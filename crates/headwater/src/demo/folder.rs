//! The demo's temporary folder: locked while its demo runs, removed with it, and cleared by the next demo if it died.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fs4::fs_std::FileExt;
use tempfile::TempDir;

const PREFIX: &str = "headwater-demo-";
const LOCK: &str = "lock";
/// A lock before it is locked; it is then renamed, so that a file named [`LOCK`] is locked unless its demo is dead.
const LOCK_IN_THE_MAKING: &str = "lock.new";
/// A folder without a lock belongs to a demo that is starting, or that died in the midst of that.
const LOCKED_WITHIN: Duration = Duration::from_secs(60);
/// Children of a demo that was killed may still write for a moment.
const REMOVALS_MAX: u32 = 5;

/// A folder of a running demo.
pub struct Folder {
    folder: TempDir,
    /// The lock goes with it, and with the process.
    _lock: File,
}

impl Folder {
    /// Makes a folder in `parent`.
    ///
    /// # Errors
    /// If `parent` is not there or not writable.
    pub fn new(parent: &Path) -> Result<Folder> {
        let made = make(parent);
        let why = || format!("cannot use {} for temporary files (TMPDIR names another folder)", parent.display());
        let (folder, lock) = made.with_context(why)?;
        Ok(Folder { folder, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// An error if the disk has no room for `bytes`.
    pub fn ensure_room(&self, bytes: u64) -> Result<()> {
        let path = self.path();
        let available =
            fs4::available_space(path).with_context(|| format!("how much is free in {}", path.display()))?;
        ensure!(
            bytes <= available,
            "the demo needs {} in {}, which has {} (--file-size, --peers and TMPDIR change that)",
            indicatif::BinaryBytes(bytes),
            path.parent().unwrap_or(path).display(),
            indicatif::BinaryBytes(available)
        );
        Ok(())
    }

    /// Removes it with all that is in it.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn remove(self) -> Result<()> {
        let path = self.folder.path().to_owned();
        self.folder.close().with_context(|| format!("cannot remove {}", path.display()))
    }

    /// Leaves it there; no later demo will clear it.
    pub fn keep(self) -> Result<PathBuf> {
        let path = self.folder.keep();
        std::fs::remove_file(path.join(LOCK)).with_context(|| format!("cannot unlock {}", path.display()))?;
        Ok(path)
    }
}

fn make(parent: &Path) -> std::io::Result<(TempDir, File)> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    // It holds keys and tokens.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    let folder = builder.tempdir_in(parent)?;
    let making = folder.path().join(LOCK_IN_THE_MAKING);
    let mut lock = File::create_new(&making)?;
    FileExt::lock_exclusive(&lock)?;
    writeln!(lock, "{}", std::process::id())?;
    std::fs::rename(making, folder.path().join(LOCK))?;
    Ok((folder, lock))
}

/// Removes what demos that died have left in `parent`; returns which folders. What cannot be removed stays: it is
/// another user's, or the next demo's to clear.
pub fn clear_leftovers(parent: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| {
        // A link of that name is none of ours.
        entry.file_name().to_string_lossy().starts_with(PREFIX) && entry.file_type().is_ok_and(|kind| kind.is_dir())
    });
    folders.map(|entry| entry.path()).filter(|folder| clear(folder)).collect()
}

/// Returns whether the folder is gone.
fn clear(folder: &Path) -> bool {
    let Ok(lock) = File::options().read(true).write(true).open(folder.join(LOCK)) else {
        return clear_unlocked(folder);
    };
    // Held while removing, so that no second demo removes the same.
    let dead = FileExt::try_lock_exclusive(&lock).unwrap_or(false);
    dead && (0..REMOVALS_MAX).any(|_| std::fs::remove_dir_all(folder).is_ok())
}

/// Removes an old folder that has nothing in it, but none that was kept.
fn clear_unlocked(folder: &Path) -> bool {
    let changed = folder.metadata().and_then(|found| found.modified());
    let age = changed.ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
    if age < LOCKED_WITHIN {
        return false;
    }
    // Fails where there is none, which is as well.
    let _ = std::fs::remove_file(folder.join(LOCK_IN_THE_MAKING));
    std::fs::remove_dir(folder).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_while_it_lives_and_cleared_when_its_demo_died() {
        let parent = tempfile::tempdir().unwrap();
        let alive = Folder::new(parent.path()).unwrap();
        let dead = Folder::new(parent.path()).unwrap();
        let left = dead.path().to_owned();
        std::fs::write(left.join("file"), "text").unwrap();
        let other = parent.path().join("headwater-else");
        std::fs::create_dir(&other).unwrap();
        // What a killed process leaves: the folder, and a lock that the system has released.
        let Folder { folder, _lock } = dead;
        let _ = folder.keep();
        drop(_lock);
        assert_eq!(clear_leftovers(parent.path()), std::slice::from_ref(&left));
        assert!(alive.path().join(LOCK).exists() && other.exists() && !left.exists());
        let path = alive.path().to_owned();
        alive.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_kept_folder_stays() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::new(parent.path()).unwrap();
        std::fs::create_dir(folder.path().join("origin")).unwrap();
        let kept = folder.keep().unwrap();
        File::open(&kept).unwrap();
        assert_eq!(clear_leftovers(parent.path()), [] as [PathBuf; 0]);
        assert!(!clear_unlocked(&kept));
        assert!(kept.join("origin").exists());
    }

    #[test]
    fn a_folder_whose_demo_died_before_it_was_locked_is_cleared_when_old() {
        let parent = tempfile::tempdir().unwrap();
        let early = parent.path().join("headwater-demo-early");
        std::fs::create_dir(&early).unwrap();
        std::fs::write(early.join(LOCK_IN_THE_MAKING), "").unwrap();
        assert_eq!(clear_leftovers(parent.path()), [] as [PathBuf; 0]);
        let old = std::time::SystemTime::now() - 2 * LOCKED_WITHIN;
        File::open(&early).unwrap().set_modified(old).unwrap();
        assert_eq!(clear_leftovers(parent.path()), [early]);
    }

    #[test]
    fn what_is_wrong_with_the_disk_is_said() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::new(parent.path()).unwrap();
        folder.ensure_room(1).unwrap();
        let error = folder.ensure_room(u64::MAX).unwrap_err().to_string();
        assert!(error.starts_with("the demo needs 16.00 EiB in "), "{error}");
        let absent = Folder::new(&parent.path().join("absent"));
        assert!(absent.err().unwrap().to_string().contains("TMPDIR"));
    }
}
