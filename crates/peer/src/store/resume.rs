//! What lies on disk when a store is opened, and what of it is right.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use headwater_model::{Bits, merkle};

use super::error::{StoreError, failed};
use super::files::{Found, Place, Stamp, read_at};
use super::state::State;
use super::{Opened, Progress, Store, Writer, locked};

/// A piece's data follows its entry in the journal within this time; a later change is somebody else's.
pub(super) const LONGEST_WRITE: Duration = Duration::from_secs(1);

impl Store {
    /// Decides for every object what to believe, what to hash, and what to forget.
    pub(super) fn resume(
        &self,
        saved: Option<State>,
        opened: &mut Opened,
        progress: Progress,
    ) -> Result<(), StoreError> {
        let mut writer = self.writer()?;
        let is_new = saved.is_none();
        let state = saved.unwrap_or_else(|| State {
            bits: Bits::new(self.layout.pieces()),
            stamps: vec![Stamp::default(); self.files.len()],
        });
        let left_unix_ns = writer.journal.left_unix_ns;
        let mut journalled = vec![BTreeSet::new(); self.files.len()];
        for piece in writer.journal.pieces() {
            if let Some(at) = self.layout.at(*piece) {
                journalled[at.object].insert(*piece);
            }
        }
        let mut work = Vec::new();
        for (object, journalled) in journalled.iter().enumerate() {
            let pieces = self.layout.pieces_of_object(object);
            let found = self.files.find(object)?;
            if pieces.is_empty() {
                if !matches!(found, Found::Finished(_)) {
                    self.files.finish(object)?;
                }
                continue;
            }
            let is_known = |p: &u32| self.leaf(*p).is_some();
            let (saved, written): (Vec<u32>, Vec<u32>) = pieces
                .clone()
                .filter(|p| (state.bits.get(*p) || journalled.contains(p)) && is_known(p))
                .partition(|p| !journalled.contains(p));
            let (saved_stamp, is_all) = (state.stamps[object], saved.len() + written.len() == pieces.len());
            let is_ours = |stamp| stamp == saved_stamp || self.only_we_wrote(object, stamp, saved_stamp, left_unix_ns);
            match found {
                Found::Nothing => {}
                Found::Part(stamp) if is_ours(stamp) => {
                    self.hold(&mut writer, object, &saved)?;
                    work.push((object, written));
                }
                // Either as it was left, or finished since.
                Found::Finished(stamp)
                    if (stamp == saved_stamp && !saved.is_empty())
                        || (is_all && !written.is_empty() && is_ours(stamp)) =>
                {
                    self.files.set_place(object, Place::Finished(stamp));
                    self.set_bits(object, saved.into_iter());
                    writer.changed.entry(object).or_default();
                    work.push((object, written));
                }
                Found::Part(_) => work.push((object, [saved, written].concat())),
                // One that somebody put there may be right from end to end.
                Found::Finished(_) => work.push((object, self.unheld_with_hash(object))),
            }
        }
        opened.verified = work.iter().map(|(_, pieces)| pieces.len() as u32).sum();
        self.examine_all(&mut writer, work, progress)?;
        let have = self.have();
        opened.held = have.ones();
        opened.dropped = state.bits.iter().filter(|p| !have.get(*p)).count() as u32;
        if opened.dropped > 0 {
            opened.notes.push(format!("{} pieces on disk were wrong or gone, to be fetched again", opened.dropped));
        }
        for object in 0..self.files.len() {
            let there = match self.files.place(object) {
                Place::Absent => matches!(self.files.find(object)?, Found::Finished(_)),
                Place::Part | Place::Finished(_) => true,
                Place::Gone => false,
            };
            let unheld = self.layout.pieces_of_object(object).filter(|p| there && !have.get(*p));
            opened.importable_bytes += unheld.map(|p| u64::from(self.layout.piece_len(p))).sum::<u64>();
        }
        writer.unsaved |= have != state.bits || is_new || left_unix_ns.is_some() || opened.verified > 0;
        Ok(())
    }

    /// Whether a data file that is not as at the last checkpoint looks as if only this store wrote to it: not before
    /// that, and not long after the last word of a journal that was left. (After a loss of power the journal may have
    /// lost its words; where it is lost itself the file is hashed as a whole.)
    fn only_we_wrote(&self, object: usize, found: Stamp, saved: Stamp, left_unix_ns: Option<u64>) -> bool {
        let Some(left) = left_unix_ns else { return false };
        let until = left.saturating_add(LONGEST_WRITE.as_nanos() as u64);
        found.bytes == self.files.bytes(object) && (saved.modified_unix_ns..=until).contains(&found.modified_unix_ns)
    }

    pub(super) fn unheld_with_hash(&self, object: usize) -> Vec<u32> {
        let held = locked(&self.held);
        self.layout.pieces_of_object(object).filter(|p| !held.bits.get(*p) && self.leaf(*p).is_some()).collect()
    }

    pub(super) fn examine_all(
        &self,
        writer: &mut Writer,
        work: Vec<(usize, Vec<u32>)>,
        progress: Progress,
    ) -> Result<(), StoreError> {
        let len = |p: &u32| u64::from(self.layout.piece_len(*p));
        let total: u64 = work.iter().flat_map(|(_, pieces)| pieces).map(len).sum();
        let mut done = 0;
        for (object, pieces) in work {
            self.examine(writer, object, &pieces, &mut |piece| {
                done += len(&piece);
                progress(done, total);
            })?;
        }
        Ok(())
    }

    /// Hashes `pieces` of one object where they lie and keeps those that are right.
    fn examine(
        &self,
        writer: &mut Writer,
        object: usize,
        pieces: &[u32],
        seen: &mut dyn FnMut(u32),
    ) -> Result<(), StoreError> {
        if pieces.is_empty() {
            return Ok(());
        }
        let path = self.files.path(object);
        let earlier = self.files.place(object) == Place::Absent;
        let opened = if earlier {
            File::open(path).map(Arc::new).map_err(|e| failed("open", path, e))
        } else {
            self.files.open(object, false)
        };
        let file = opened?;
        let mut buffer = vec![0; self.layout.piece_bytes() as usize];
        let mut right = Vec::new();
        for piece in pieces {
            if self.is_right(&file, *piece, &mut buffer) {
                right.push(*piece);
            } else if earlier {
                // Another version's, or changed by its owner: it is left as it is.
                return Ok(());
            }
            seen(*piece);
        }
        if earlier {
            if right.len() < self.layout.pieces_of_object(object).len() {
                return Ok(());
            }
            let stamp = self.files.stamp(object).ok_or_else(|| StoreError::Vanished { path: path.into() })?;
            self.files.set_place(object, Place::Finished(stamp));
        }
        if !right.is_empty() {
            // After a kill what is read may not have reached the disk yet.
            writer.changed.insert(object, true);
        }
        self.hold(writer, object, &right)
    }

    /// Whether `file` has the right data for `piece`, by its hash. What cannot be read is wrong.
    pub(super) fn is_right(&self, file: &File, piece: u32, buffer: &mut [u8]) -> bool {
        let (Some(at), Some(leaf)) = (self.layout.at(piece), self.leaf(piece)) else { return false };
        let Some(data) = buffer.get_mut(..at.len as usize) else { return false };
        read_at(file, data, at.offset).is_ok() && merkle::leaf(data) == leaf
    }
}
