//! What lies on disk when a store is opened, and what of it is right.

use std::fs::File;
use std::sync::Arc;

use headwater_model::{Bits, merkle};

use super::error::{StoreError, failed};
use super::files::{Found, Place, read_at};
use super::state::State;
use super::{Opened, Progress, Store, Writer, locked};

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
        let state = saved.unwrap_or_else(|| State { bits: Bits::new(self.layout.pieces()), clean: None });
        let mut work = Vec::new();
        for object in 0..self.files.len() {
            let pieces = self.layout.pieces_of_object(object);
            let found = self.files.find(object)?;
            if pieces.is_empty() {
                if !matches!(found, Found::Finished(_)) {
                    self.files.finish(object)?;
                }
                continue;
            }
            let claimed: Vec<u32> = pieces.clone().filter(|p| state.bits.get(*p) && self.leaf(*p).is_some()).collect();
            let believed = |stamp| state.clean.as_ref().and_then(|c| c.get(object)) == Some(&stamp);
            match found {
                Found::Nothing => {}
                Found::Part(stamp) if believed(stamp) && claimed.len() < pieces.len() => {
                    self.set_bits(object, claimed.into_iter());
                }
                Found::Part(_) => work.push((object, claimed)),
                Found::Finished(stamp) if believed(stamp) && !claimed.is_empty() => {
                    self.files.set_place(object, Place::Finished(stamp));
                    self.set_bits(object, claimed.into_iter());
                }
                // Killed after the renaming, the bitmap may lack the last second's pieces: all are looked at.
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
        if self.is_complete() && !(writer.clean_on_disk && state.bits.is_full() && opened.verified == 0) {
            self.save_clean(&mut writer)
        } else if have != state.bits || is_new {
            self.save(&mut writer)
        } else {
            Ok(())
        }
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
            }
            seen(*piece);
        }
        if earlier && right.len() == self.layout.pieces_of_object(object).len() {
            let stamp = self.files.stamp(object).ok_or_else(|| StoreError::Vanished { path: path.into() })?;
            self.files.set_place(object, Place::Finished(stamp));
        } else if earlier {
            for piece in &right {
                let Some(at) = self.layout.at(*piece) else { continue };
                let data = &mut buffer[..at.len as usize];
                read_at(&file, data, at.offset).map_err(|e| failed("read", path, e))?;
                self.put(writer, object, at.offset, data)?;
            }
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
