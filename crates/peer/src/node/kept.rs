//! The contents that a resident node keeps: their names lie in their folders, so that it goes on with them when it is
//! started again; and how one is taken out, because its user gives it up or the quota does.

use super::stand_in::is_replaced_by;
use super::state::{ContentState, Phase, State};
use super::{Inner, Node};
use crate::store::StoreHandle;
use headwater_model::Name;
use headwater_model::id::ContentId;
use headwater_wire::{FromNode, FromPeer};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tokio::task::AbortHandle;

/// Ending of folders that are being removed.
const GONE: &str = "gone";
/// Of a name's file.
const MAX_NAME_BYTES: u64 = 16 << 10;

/// Why a content is not given up.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// There is none.
    #[error("this node has no such content")]
    Unknown,
    /// Its store is being opened.
    #[error("the content is being opened: try again in a moment")]
    Busy,
    /// Its files stay, at least in part.
    #[error("cannot remove {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl Node {
    /// Gives a content up: its children and the control center are told, and its files are removed.
    ///
    /// # Errors
    /// [`ForgetError`].
    pub async fn forget(&self, id: ContentId) -> Result<(), ForgetError> {
        let taken = {
            let mut state = self.0.lock();
            let id = state.goes_with(id);
            match state.contents.get(&id) {
                None => return Err(ForgetError::Unknown),
                Some(c) if matches!(c.phase, Phase::Opening) => return Err(ForgetError::Busy),
                Some(_) => take_out(&self.0, &mut state, &id).ok_or(ForgetError::Unknown)?,
            }
        };
        let removed = tokio::task::spawn_blocking(move || taken.remove());
        removed.await.unwrap_or_else(|e| Err(ForgetError::Io { path: PathBuf::new(), source: e.into() }))?;
        tracing::info!(content = %format!("{id:.8}"), "given up, and its files removed");
        Ok(())
    }
}

/// The name is kept for the next run; it can do without.
pub(super) fn keep(folder: &Path, name: &Name) {
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(folder.join("name"), name.to_string()));
    if let Err(e) = written {
        tracing::warn!("cannot keep the name of {}: {e}; the next start does not know of it", name.name);
    }
}

/// The name that was kept in a content's folder.
pub(super) fn name(folder: &Path) -> Option<Name> {
    let path = folder.join("name");
    let short = std::fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() <= MAX_NAME_BYTES);
    let text = short.then(|| std::fs::read_to_string(&path).ok()).flatten()?;
    let name: Name = text.trim().parse().ok()?;
    // A folder that was copied about is nobody's wish.
    (folder.file_name()?.to_str()? == name.content().to_string()).then_some(name)
}

/// A content that is no longer the node's, and whose folder is still there.
pub(super) struct TakenOut {
    folder: PathBuf,
    store: Option<StoreHandle>,
    /// Folders of those that it stood in for.
    also: Vec<PathBuf>,
}

/// Takes a content out, with those that it stands in for: whoever deals with it here is told that it ends, so that nobody is
/// sent here for it.
pub(super) fn take_out(inner: &Inner, state: &mut State, id: &ContentId) -> Option<TakenOut> {
    let content = state.contents.remove(id)?;
    inner.pacers().for_each(|pacer| pacer.forget(id));
    let replaced: Vec<ContentId> = state.contents.values().filter(|c| is_replaced_by(c, id)).map(|c| c.id).collect();
    let replaced = replaced.iter().filter_map(|id| state.contents.remove(id));
    let also = replaced.map(|c| c.folder(inner)).collect();
    let folder = content.folder(inner);
    Some(TakenOut { folder, store: leave(state, content), also })
}

impl TakenOut {
    /// What is left of one that was being removed when the node ended.
    pub(super) fn left(folder: &Path) -> Option<TakenOut> {
        let is_left = folder.extension().is_some_and(|e| e == GONE);
        is_left.then(|| TakenOut::unopened(folder.into()))
    }

    /// One that was not begun with.
    pub(super) fn unopened(folder: PathBuf) -> TakenOut {
        TakenOut { folder, store: None, also: Vec::new() }
    }

    /// Removes the folder: under another name first, so that after a kill in the middle nobody takes the rest for a
    /// content. Blocks.
    ///
    /// # Errors
    /// [`ForgetError::Io`].
    pub(super) fn remove(self) -> Result<(), ForgetError> {
        if let Some(store) = self.store
            && let Err(error) = tokio::runtime::Handle::current().block_on(store.close())
        {
            tracing::debug!(%error, "closing a store whose content goes");
        }
        self.also.into_iter().chain([self.folder]).try_for_each(remove_folder)
    }
}

fn remove_folder(folder: PathBuf) -> Result<(), ForgetError> {
    let doomed = folder.with_extension(GONE);
    if doomed != folder {
        // One that an earlier attempt left half removed.
        let _ = std::fs::remove_dir_all(&doomed);
    }
    let removed = match std::fs::rename(&folder, &doomed) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => std::fs::remove_dir_all(&doomed),
    };
    match removed {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(ForgetError::Io { path: folder, source }),
        _ => Ok(()),
    }
}

/// Gives up a stream that nobody here watches any more.
pub(super) fn leave_stream(inner: &Inner, state: &mut State, id: &ContentId) {
    if let Some(taken) = take_out(inner, state, id) {
        tracing::info!(content = %format!("{id:.8}"), "left, as nobody here watches it any more");
        // A name that stays behind only brings the stream back at the next start.
        tokio::task::spawn_blocking(move || drop(taken.remove()));
    }
}

/// Tells everybody that deals with a content here that it ends.
fn leave(state: &mut State, content: ContentState) -> Option<StoreHandle> {
    let version = match &content.phase {
        Phase::Running(r) => r.version(),
        Phase::Live(l) => l.channel.version(),
        _ => content.first_join().version,
    };
    state.tell_control(&FromNode::Leave(version));
    part(state, content.phase)
}

/// Tells those whom this node has something of, or who have something of it, that it ends. Its store, where it has one.
pub(super) fn part(state: &mut State, phase: Phase) -> Option<StoreHandle> {
    if let Phase::Live(l) = &phase {
        let version = l.channel.version();
        for node in l.channel.partners() {
            for as_child in [true, false] {
                let why = if as_child { String::new() } else { "it gives the stream up".into() };
                state.tell_peer(node, &FromPeer::CloseEdge { version, as_child, why });
            }
        }
    }
    let Phase::Running(r) = phase else { return None };
    let version = r.version();
    r.origin_jobs.values().for_each(AbortHandle::abort);
    let close = |as_child, why: &str| FromPeer::CloseEdge { version, as_child, why: why.into() };
    for parent in r.swarm.parent_edges() {
        state.tell_peer(&parent.node, &close(true, ""));
    }
    for child in r.swarm.child_edges() {
        state.tell_peer(&child.node, &close(false, "it gives the content up"));
    }
    Some(r.store.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_and_strange_folders_are_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let name: Name = format!("hw://cc.example:7400/films/one#key={}", "ab".repeat(32)).parse().unwrap();
        let of = |id: &str| folder.path().join(id);
        let own = of(&name.content().to_string());
        keep(&own, &name);
        assert_eq!(super::name(&own), Some(name.clone()));
        keep(&of("elsewhere"), &name);
        std::fs::create_dir(of("empty")).unwrap();
        std::fs::create_dir(of("long")).unwrap();
        std::fs::write(of("long").join("name"), vec![b'a'; 20 << 10]).unwrap();
        for strange in ["elsewhere", "empty", "long", "missing"] {
            assert_eq!(super::name(&of(strange)), None, "{strange}");
        }
        TakenOut::unopened(of("missing")).remove().unwrap();
    }
}
