//! A content's versions at a node: each has a folder of its own, a new one takes from the files of those before what is
//! equal, and these are dropped when it is complete.

use super::state::{ContentState, Phase, Running, State, happened};
use super::{Inner, messages, opening, pinned};
use crate::store::{Reused, plain_files};
use headwater_model::Name;
use headwater_model::id::{ContentId, Version};
use headwater_model::log::Log;
use headwater_peer_core::Input;
use headwater_wire::decode_log;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Versions of one content that may lie in its folder: more are not looked at.
const MAX_VERSIONS: usize = 16;
/// What the store of the first version has in the content's own folder.
const FIRST_VERSION: [&str; 6] = ["log", "state", "pages", "journal", "lock", "files"];
/// Files named in what the user is told of.
const NAMED_FILES: usize = 3;

/// A version that an earlier run began.
struct Saved {
    log: Log,
    folder: PathBuf,
}

/// Versions whose state lies in `base` or a folder in it, newest first; of the content `id` and believed only.
fn saved(base: &Path, id: ContentId, name: &Option<Name>) -> Vec<Saved> {
    let inside = std::fs::read_dir(base).into_iter().flatten().flatten().map(|e| e.path());
    let folders = std::iter::once(base.to_owned()).chain(inside.filter(|p| p.is_dir()));
    let read = |folder: PathBuf| {
        let log = decode_log(&std::fs::read(folder.join("log")).ok()?).ok()?;
        let is_it = log.content() == id && log.verify(&log.name, pinned(name).as_ref()).is_ok();
        is_it.then_some(Saved { log, folder })
    };
    let mut all: Vec<Saved> = folders.filter_map(read).take(MAX_VERSIONS).collect();
    all.sort_by_key(|s| std::cmp::Reverse(epoch(&s.log)));
    all
}

fn epoch(log: &Log) -> u64 {
    log.version().map_or(0, |v| v.epoch)
}

/// The versions of a content that lie in a node's data folder, newest first: each with the folder of its state.
pub fn kept_versions(data: &Path, name: &Name) -> Vec<(Log, PathBuf)> {
    let base = data.join("contents").join(name.content().to_string());
    saved(&base, name.content(), &Some(name.clone())).into_iter().map(|s| (s.log, s.folder)).collect()
}

/// The log of the newest version that was begun, if there is one.
pub(crate) fn newest(base: &Path, id: ContentId, name: &Option<Name>) -> Option<Log> {
    saved(base, id, name).into_iter().next().map(|s| s.log)
}

/// The folder for the state of the version of `log`: that of an earlier run, else `base` for the first version, else a
/// new one in it.
pub(crate) fn folder_for(base: &Path, id: ContentId, name: &Option<Name>, log: &Log) -> PathBuf {
    let saved = saved(base, id, name);
    match saved.iter().find(|s| epoch(&s.log) == epoch(log)) {
        Some(same) => same.folder.clone(),
        None if saved.is_empty() => base.to_owned(),
        None => base.join(epoch(log).to_string()),
    }
}

/// The data of all other versions in `base` than the one whose state is in `folder`.
pub(crate) fn data_of_others(base: &Path, id: ContentId, name: &Option<Name>, folder: &Path) -> Vec<PathBuf> {
    saved(base, id, name).into_iter().filter(|s| s.folder != folder).map(|s| s.folder.join("files")).collect()
}

/// What lies in `base` of other versions than the one in `folder`; nothing where that is `base` itself.
pub(crate) fn others(base: &Path, folder: &Path) -> Vec<PathBuf> {
    let is_of_a_version = |path: &PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        FIRST_VERSION.contains(&name) || name.parse::<u64>().is_ok()
    };
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten().map(|e| e.path());
    if folder == base { Vec::new() } else { entries.filter(|p| p != folder && is_of_a_version(p)).collect() }
}

fn remove_others(base: &Path, folder: &Path) {
    for path in others(base, folder) {
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        if let Err(e) = removed {
            tracing::warn!("cannot remove {} of a former version: {e}", path.display());
        }
    }
}

/// There is no room for a content's earlier versions beside the one that is to come in `folder`: nobody reads them any
/// more, and their pieces are fetched. Blocks.
pub(crate) fn give_up_others(inner: &Arc<Inner>, id: ContentId, base: &Path, folder: &Path) {
    let former = inner.lock().contents.get_mut(&id).and_then(|c| c.former.take());
    if let Some(former) = former
        && let Err(e) = tokio::runtime::Handle::current().block_on(former.store.close())
    {
        tracing::warn!("closing the store of a former version: {e}");
    }
    remove_others(base, folder);
}

impl ContentState {
    /// The version that programs on this machine read: a complete former one while its successor is not.
    pub(crate) fn readable(&self) -> Option<&Running> {
        let complete = |r: &&Running| r.swarm.is_complete();
        match &self.phase {
            Phase::Running(r) if r.swarm.is_complete() => Some(r.as_ref()),
            Phase::Running(r) => self.former.as_deref().filter(complete).or(Some(r.as_ref())),
            _ => self.former.as_deref().filter(complete),
        }
    }
}

/// A complete version is here: those before it go.
pub(crate) fn complete(inner: &Arc<Inner>, state: &mut State, id: ContentId) {
    let Some(content) = state.contents.get_mut(&id).filter(|c| c.is_in_data_folder()) else { return };
    let former = content.former.take();
    let Phase::Running(r) = &content.phase else { return };
    let (base, folder) = (content.folder(inner), r.folder.clone());
    content.keeping.beside_bytes = 0;
    if folder == base {
        return;
    }
    tokio::spawn(async move {
        if let Some(former) = former
            && let Err(e) = former.store.close().await
        {
            tracing::warn!("closing the store of a former version: {e}");
        }
        let _ = tokio::task::spawn_blocking(move || remove_others(&base, &folder)).await;
    });
}

/// Looks for pieces in what is here, then takes part in the swarm.
pub(crate) fn search(inner: &Arc<Inner>, state: &mut State, version: Version) {
    let Some(r) = state.running(version) else { return };
    let (store, files) = (r.store.clone(), std::mem::take(&mut r.sources));
    let found = Arc::new(AtomicU64::new(0));
    let (looking, stopping) = (Arc::downgrade(&found), inner.stopping.clone());
    r.looking = Some(found);
    let inner = inner.clone();
    // It ends when the node stops, or goes on to another version.
    let told = move |bytes| {
        looking.upgrade().is_some_and(|found| {
            found.store(bytes, Ordering::Relaxed);
            !stopping.is_cancelled()
        })
    };
    tokio::spawn(async move {
        match store.reuse(files, told).await {
            Ok(reused) => searched_through(&inner, version, &reused),
            Err(e) => messages::disk_failed(&inner, version, e),
        }
    });
}

fn searched_through(inner: &Arc<Inner>, version: Version, reused: &Reused) {
    let mut state = inner.lock();
    let state = &mut *state;
    let Some(r) = state.running(version) else { return };
    r.looking = None;
    r.reused_bytes += reused.bytes;
    let have = r.store.have();
    r.bytes_held = have.iter().map(|p| u64::from(r.track.layout.piece_len(p))).sum();
    let note = told(reused, r.track.layout.bytes());
    r.arrived.notify_waiters();
    if let Some(c) = state.contents.get_mut(&version.content) {
        note.into_iter().for_each(|n| c.note(n));
        reused.unread.iter().take(NAMED_FILES).for_each(|u| c.note(format!("not looked through: {u}")));
    }
    happened(inner, state, version, Input::Searched(have));
    if let Some(join) = state.running(version).map(|r| r.swarm.join()) {
        opening::join_content(inner, state, join);
    }
}

fn told(reused: &Reused, total: u64) -> Option<String> {
    let (first, more) = (reused.from.first()?, reused.from.len() - 1);
    let percent = 100.0 * reused.bytes as f64 / total.max(1) as f64;
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    Some(format!("{percent:.1} % ({} bytes) taken from {}{more}", reused.bytes, first.0.display()))
}

/// The files to look through for a content that is not complete: those of its other versions, those where it is to go,
/// and those that the user named.
pub(crate) fn sources(others: Vec<PathBuf>, destination: &Path, named: &[PathBuf]) -> Vec<PathBuf> {
    plain_files(&[others, vec![destination.to_owned()], named.to_vec()].concat())
}
