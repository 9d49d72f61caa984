//! Two of the three files of a store's state folder; the third is the journal.
//!
//! `state`: which content this is, and the last checkpoint: bitmap of pieces and stamps of the data files; whole or not
//! at all (written beside and renamed, SHA-256 at the end). `pages`: hash pages one after the other, which need
//! no checksum as each proves itself against the signed root.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use headwater_model::log::Track;
use headwater_model::merkle::{self, MAX_PROOF_HASHES, PAGE_LEAVES, Page};
use headwater_model::sums::{self, PageSums, SUM_BYTES};
use headwater_model::{Bits, Hash, Layout};

use super::Opened;
use super::error::{StoreError, failed};
use super::files::{Stamp, sync_folder_of};

const MAGIC: &[u8; 16] = b"headwater state2";

/// A checkpoint: what was on the disk for sure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct State {
    /// Which pieces were held.
    pub bits: Bits,
    /// Each object's file as it was; zeros where there was none.
    pub stamps: Vec<Stamp>,
}

/// Why a state file is of no use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unusable {
    /// Not written by this program, cut off or changed.
    Damaged,
    /// Of another content or version.
    OtherVersion,
}

/// A hash over all that a state must agree on with its track.
pub(super) fn identity(track: &Track) -> Hash {
    let mut all = Vec::new();
    all.extend_from_slice(&track.version.content.0);
    all.extend_from_slice(&track.version.epoch.to_le_bytes());
    all.extend_from_slice(&track.root.0);
    track.sums.iter().for_each(|sums| all.extend_from_slice(&sums.0));
    all.extend_from_slice(&track.layout.piece_bytes().to_le_bytes());
    for o in &track.objects {
        all.extend_from_slice(&(o.path.len() as u64).to_le_bytes());
        all.extend_from_slice(o.path.as_bytes());
        all.extend_from_slice(&o.size_bytes.to_le_bytes());
    }
    Hash::of(&[&all])
}

impl State {
    /// Longest encoding for so many pieces and objects.
    fn max_bytes(pieces: u32, objects: usize) -> u64 {
        128 + u64::from(pieces).div_ceil(8) + 16 * objects as u64
    }

    pub fn encode(&self, identity: &Hash) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&identity.0);
        let bits = self.bits.to_bytes();
        out.extend_from_slice(&(bits.len() as u32).to_le_bytes());
        out.extend_from_slice(&bits);
        for stamp in &self.stamps {
            out.extend_from_slice(&stamp.bytes.to_le_bytes());
            out.extend_from_slice(&stamp.modified_unix_ns.to_le_bytes());
        }
        let sum = Hash::of(&[&out]);
        out.extend_from_slice(&sum.0);
        out
    }

    fn decode(bytes: &[u8], identity: &Hash, pieces: u32, objects: usize) -> Result<State, Unusable> {
        let (body, sum) = bytes.split_last_chunk::<32>().ok_or(Unusable::Damaged)?;
        if Hash::of(&[body]).0 != *sum {
            return Err(Unusable::Damaged);
        }
        let mut rest = body;
        if take::<16>(&mut rest) != Some(*MAGIC) {
            return Err(Unusable::Damaged);
        }
        if take::<32>(&mut rest) != Some(identity.0) {
            return Err(Unusable::OtherVersion);
        }
        decode_body(rest, pieces, objects).ok_or(Unusable::Damaged)
    }
}

fn decode_body(mut rest: &[u8], pieces: u32, objects: usize) -> Option<State> {
    let len = u32::from_le_bytes(take(&mut rest)?) as usize;
    let (bits, mut rest) = rest.split_at_checked(len)?;
    let bits = Bits::from_bytes(pieces, bits)?;
    let mut stamps = Vec::new();
    for _ in 0..objects {
        let bytes = u64::from_le_bytes(take(&mut rest)?);
        let modified_unix_ns = u64::from_le_bytes(take(&mut rest)?);
        stamps.push(Stamp { bytes, modified_unix_ns });
    }
    rest.is_empty().then_some(State { bits, stamps })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

/// Longest file of pages for so many leaves.
fn max_pages_bytes(leaves: u32) -> u64 {
    let hashes = u64::from(PAGE_LEAVES) + 2 * MAX_PROOF_HASHES as u64;
    u64::from(merkle::pages(leaves)) * (8 + 32 * hashes + SUM_BYTES as u64 * u64::from(PAGE_LEAVES))
}

pub(super) fn encode_page(page: &Page) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + 32 * (page.leaves.len() + page.proof.len()));
    out.extend_from_slice(&page.number.to_le_bytes());
    out.extend_from_slice(&(page.proof.len() as u32).to_le_bytes());
    for hash in page.leaves.iter().chain(&page.proof) {
        out.extend_from_slice(&hash.0);
    }
    if let Some(PageSums { sums, proof }) = &page.sums {
        out.extend_from_slice(&sums::to_bytes(sums));
        // As long as the other proof: both trees have as many leaves.
        proof.iter().for_each(|hash| out.extend_from_slice(&hash.0));
    }
    out
}

/// The true pages of a file of pages, and whether there was nothing else in it.
fn decode_pages(mut bytes: &[u8], track: &Track) -> (Vec<Page>, bool) {
    let (leaves, sums) = (track.layout.pieces(), track.sums.as_ref());
    let (mut pages, mut all_true) = (Vec::new(), true);
    while !bytes.is_empty() {
        let Some(page) = decode_page(&mut bytes, leaves, sums.is_some()) else { return (pages, false) };
        if page.is_true(leaves, &track.root, sums) {
            pages.push(page);
        } else {
            all_true = false;
        }
    }
    (pages, all_true)
}

fn decode_page(bytes: &mut &[u8], leaves: u32, has_sums: bool) -> Option<Page> {
    let number = u32::from_le_bytes(take(bytes)?);
    let proof_len = u32::from_le_bytes(take(bytes)?) as usize;
    if number >= merkle::pages(leaves) || proof_len > MAX_PROOF_HASHES {
        return None;
    }
    let len = merkle::page_len(leaves, number) as usize;
    let (hashes, proof) = (take_hashes(bytes, len)?, take_hashes(bytes, proof_len)?);
    let sums = if has_sums {
        let sums = sums::from_bytes(bytes.split_off(..len * SUM_BYTES)?)?;
        Some(PageSums { sums, proof: take_hashes(bytes, proof_len)? })
    } else {
        None
    };
    Some(Page { number, leaves: hashes, proof, sums })
}

fn take_hashes(bytes: &mut &[u8], count: usize) -> Option<Vec<Hash>> {
    (0..count).map(|_| take(bytes).map(Hash)).collect()
}

/// The state folder is this store's alone until this is dropped.
pub(super) struct FolderLock(File);

impl FolderLock {
    pub fn take(state_dir: &Path) -> Result<FolderLock, StoreError> {
        let path = state_dir.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|e| failed("create", &path, e))?;
        match fs4::fs_std::FileExt::try_lock_exclusive(&file) {
            Ok(true) => Ok(FolderLock(file)),
            Ok(false) => Err(StoreError::InUse { path: state_dir.into() }),
            Err(e) => Err(failed("lock", &path, e)),
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing is not enough while a process that is being started still has a copy of the open file; where
        // unlocking fails, closing remains.
        let _ = fs4::fs_std::FileExt::unlock(&self.0);
    }
}

/// Writes a file of the state folder whole or not at all; with `sync` it is on the disk when this returns.
pub(super) fn replace(folder: &Path, name: &str, bytes: &[u8], sync: bool) -> Result<(), StoreError> {
    let (path, new) = (folder.join(name), folder.join(format!("{name}.new")));
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        if sync {
            file.sync_all()?;
        }
        drop(file);
        fs::rename(&new, &path)?;
        if sync {
            sync_folder_of(&path);
        }
        Ok(())
    };
    write().map_err(|e: io::Error| failed("save", &path, e))
}

/// All of a file of at most `max_bytes`; `None` when there is none, the first `max_bytes + 1` when it is longer.
fn read_whole(path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|f| f.take(max_bytes + 1).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("read", path, e)),
    }
}

pub(super) fn load_state(
    state_dir: &Path,
    identity: &Hash,
    layout: &Layout,
    objects: usize,
    opened: &mut Opened,
) -> Result<Option<State>, StoreError> {
    let path = state_dir.join("state");
    let Some(bytes) = read_whole(&path, State::max_bytes(layout.pieces(), objects))? else { return Ok(None) };
    match State::decode(&bytes, identity, layout.pieces(), objects) {
        Ok(state) => return Ok(Some(state)),
        Err(Unusable::Damaged) => opened.notes.push(format!("{path:?} is damaged: starting anew")),
        Err(Unusable::OtherVersion) => opened.notes.push(format!("{path:?} is of another version: starting anew")),
    }
    Ok(None)
}

pub(super) type Pages = Vec<Option<Arc<Page>>>;

pub(super) fn load_pages(
    state_dir: &Path,
    track: &Track,
    opened: &mut Opened,
) -> Result<(Pages, File, u64), StoreError> {
    let (path, leaves) = (state_dir.join("pages"), track.layout.pieces());
    let mut pages: Pages = vec![None; merkle::pages(leaves) as usize];
    let max_bytes = max_pages_bytes(leaves);
    let mut bytes = read_whole(&path, max_bytes)?.unwrap_or_default();
    let (known, all_true) = decode_pages(&bytes, track);
    if !all_true || bytes.len() as u64 > max_bytes {
        opened.notes.push(format!("{path:?} had false or cut hash pages, which were dropped"));
        bytes = known.iter().flat_map(encode_page).collect();
        replace(state_dir, "pages", &bytes, false)?;
    }
    for page in known {
        let number = page.number as usize;
        pages[number] = Some(Arc::new(page));
    }
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    Ok((pages, file.map_err(|e| failed("create", &path, e))?, bytes.len() as u64))
}
