//! How what was written becomes what is believed.

use std::sync::atomic::Ordering;

use headwater_model::Bits;

use super::error::{StoreError, failed};
use super::files::{Place, Stamp};
use super::state::{self, State};
use super::{Store, Writer, locked};

impl Store {
    /// Makes a checkpoint if anything has changed since the last one and the store is not closed. Writing goes on while
    /// the data files are synced.
    ///
    /// # Errors
    /// What the disk says; the last checkpoint then stands. A data file that could not be synced loses what was written
    /// to it since.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        let _saving = locked(&self.saving);
        let mut writer = locked(&self.writer);
        if writer.lock.is_none() || !(self.lost.swap(false, Ordering::Relaxed) | writer.unsaved) {
            return Ok(());
        }
        // Under the lock: whatever is written from here on is named by the journal behind these entries.
        let (bits, journalled, thinned) = (self.have(), writer.journal.pieces().len(), writer.journal.thinned);
        let changed = std::mem::take(&mut writer.changed);
        for object in changed.keys() {
            writer.stamps[*object] = self.files.stamp_in_place(*object);
        }
        let (stamps, pages_file) = (writer.stamps.clone(), writer.pages_file.clone());
        writer.unsaved = false;
        drop(writer);

        let written = changed.iter().filter(|(_, has_data)| **has_data).map(|(object, _)| *object);
        let unsynced: Vec<(usize, StoreError)> =
            written.filter_map(|object| self.sync(object).err().map(|e| (object, e))).collect();
        let saved = if unsynced.is_empty() {
            let pages = pages_file.sync_all().map_err(|e| failed("write", &self.state_dir.join("pages"), e));
            pages.and_then(|()| self.save(bits, stamps))
        } else {
            Ok(())
        };

        let mut writer = locked(&self.writer);
        let mut failure = saved.err();
        for (object, error) in unsynced {
            self.distrust(&mut writer, object);
            failure.get_or_insert(error);
        }
        if let Some(failure) = failure {
            for (object, has_data) in changed {
                *writer.changed.entry(object).or_default() |= has_data;
            }
            writer.unsaved = true;
            return Err(failure);
        }
        if writer.journal.thinned != thinned {
            // Its first entries are not those from before any more: the next checkpoint says them again.
            writer.unsaved = true;
            return Ok(());
        }
        writer.journal.forget(journalled)
    }

    /// What was written to an object since the last checkpoint counts as missing: a failed sync may have lost it, though
    /// reading still shows it.
    pub(super) fn distrust(&self, writer: &mut Writer, object: usize) {
        let is_of_object = |piece: u32| self.layout.at(piece).is_some_and(|at| at.object == object);
        self.clear_bits(object, writer.journal.pieces().iter().copied().filter(|p| is_of_object(*p)));
        if let Err(error) = writer.journal.retain(|piece| !is_of_object(piece)) {
            tracing::warn!(%error, "the journal still names pieces that may be lost");
        }
        writer.unsaved = true;
    }

    fn sync(&self, object: usize) -> Result<(), StoreError> {
        match self.files.place(object) {
            Place::Absent | Place::Gone => Ok(()),
            Place::Part | Place::Finished(_) => match self.files.sync(object) {
                // Whoever reads or writes next finds that it is gone, and counts its pieces as missing.
                Err(StoreError::Vanished { .. }) => Ok(()),
                synced => synced,
            },
        }
    }

    /// Writes the state file; of `bits` those go that were cleared meanwhile.
    fn save(&self, mut bits: Bits, stamps: Vec<Stamp>) -> Result<(), StoreError> {
        let have = self.have();
        let cleared: Vec<u32> = bits.iter().filter(|piece| !have.get(*piece)).collect();
        for piece in cleared {
            bits.clear(piece);
        }
        state::replace(&self.state_dir, "state", &State { bits, stamps }.encode(&self.identity), true)
    }
}
