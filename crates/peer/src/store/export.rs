//! The files of a complete content for the user.

use std::fs;
use std::path::Path;

use headwater_model::log::Track;

use super::error::{StoreError, failed};
use super::files::{Destination, Files, create_parents};
use super::{Opened, state};

/// Makes the files of a complete content that lies below `state_dir`, as a node keeps it in its data folder, also at `to`:
/// a file for a content of one object, else a folder. Nobody needs to hold the store open, and somebody may.
///
/// The copies share their data with the originals where the file system can do that (Btrfs, XFS, APFS, ReFS); with `link`
/// they are hard links to the same files, which must not be changed then.
///
/// # Errors
/// [`StoreError::NotComplete`]; [`StoreError::Exists`] where there is something at `to`; or what the disk says, also where
/// `to` is on another disk than what it is to be linked to.
pub fn export(track: &Track, state_dir: &Path, to: &Path, link: bool) -> Result<(), StoreError> {
    let files = Files::new(track, &Destination::Folder(state_dir.join("files")))?;
    let (identity, objects) = (state::identity(track), 0..files.len());
    let state = state::load_state(state_dir, &identity, &track.layout, files.len(), &mut Opened::default())?;
    let is_as_saved = |object: usize| {
        let saved = state.as_ref().map(|s| s.stamps[object]);
        track.layout.pieces_of_object(object).is_empty() || files.stamp(object).is_some_and(|now| saved == Some(now))
    };
    if !state.as_ref().is_some_and(|s| s.bits.is_full()) || !objects.clone().all(is_as_saved) {
        return Err(StoreError::NotComplete { path: state_dir.into() });
    }
    if to.symlink_metadata().is_ok() {
        return Err(StoreError::Exists { path: to.into() });
    }
    let is_file = files.len() == 1;
    for (object, o) in objects.zip(&track.objects) {
        let target =
            if is_file { to.to_owned() } else { o.path.split('/').fold(to.to_owned(), |at, part| at.join(part)) };
        create_parents(&target)?;
        if link {
            fs::hard_link(files.path(object), &target).map_err(|e| failed("link", &target, e))?;
        } else {
            copy(files.path(object), &target).map_err(|e| failed("copy to", &target, e))?;
        }
    }
    Ok(())
}

/// Under another name first, so that what has the right name is whole.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    // The system's own copying shares data where it can.
    fs::copy(from, &part).and_then(|_| fs::rename(&part, to)).inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })
}
