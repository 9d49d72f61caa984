//! The contents in a node's data folder: what the quota leaves of them, what goes on after a restart, and what is tried
//! again when the disk has been at fault.

use super::kept::{self as names, TakenOut};
use super::state::{ContentState, Phase, State};
use super::{FetchError, Inner, Outcome, local_unix_ms, opening, versions};
use headwater_model::ContentId;
use headwater_model::time::Micros;
use headwater_peer_core::{Eviction, Kept, evict};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

/// How often the quota is looked at, and what failed is tried again.
const TEND_EVERY: Duration = Duration::from_secs(5);
/// How often a content's folder is told at most that it was used.
const REMEMBER_EVERY_MS: u64 = 60_000;
/// Its modification time says when the content in its folder was last used.
const USED: &str = "used";

/// Lies in the folder of a content that the quota does not end.
const PINNED: &str = "pinned";

/// What decides whether a content is kept.
#[derive(Clone, Default)]
pub(crate) struct Keeping {
    /// The user asked for it.
    pub(crate) pinned: bool,
    /// Nodes that hold all of it, this one among them, as the control center says.
    pub(crate) holders: u32,
    /// Bytes that it takes of the quota; 0 while unknown.
    room_bytes: u64,
    /// Bytes of the quota that earlier versions take until this one is complete.
    pub(crate) beside_bytes: u64,
    /// When it was last used, by this machine's clock in Unix milliseconds, and what its folder says of that.
    used_unix_ms: u64,
    remembered_unix_ms: u64,
    /// Bytes that others had had of it when it was last looked at.
    uploaded_bytes: u64,
}

impl Keeping {
    /// Of a content that is wanted now.
    pub(crate) fn new() -> Keeping {
        Keeping { used_unix_ms: local_unix_ms(), ..Keeping::default() }
    }
}

/// Looks after the data folder for as long as the node runs.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut pulse = tokio::time::interval(TEND_EVERY);
    loop {
        tokio::select! {
            _ = inner.stopping.cancelled() => return,
            _ = pulse.tick() => {}
        }
        let tended = inner.clone();
        // A panic there has been told of, and the next time may do better.
        let _ = tokio::task::spawn_blocking(move || {
            tended.buffers.trim();
            remember_use(&tended);
            keep_to_quota(&tended);
            try_again(&tended);
        })
        .await;
    }
}

/// Room for a content of `bytes` that is about to be opened in `folder`: others go where they must, and earlier versions of
/// it where it does not fit beside them. Blocks.
///
/// One that nobody here asked for is judged as if it had last been used when it was published, so that an order that is
/// repeated with every session brings back nothing that had to go.
///
/// # Errors
/// [`FetchError::NoRoom`] when those that stay leave too little; then none goes.
pub(crate) fn make_room(
    inner: &Arc<Inner>,
    id: ContentId,
    folder: &Path,
    bytes: u64,
    published_unix_ms: u64,
) -> Result<(), FetchError> {
    let quota_bytes = quota_bytes(inner);
    let base = inner.lock().contents.get(&id).filter(|c| c.is_in_data_folder()).map(|c| c.folder(inner));
    let Some(base) = base else { return Ok(()) };
    let mut beside_bytes = versions::others(&base, folder).iter().map(|path| taken_bytes(path)).sum();
    loop {
        let mut state = inner.lock();
        let Some(content) = state.contents.get(&id) else { return Ok(()) };
        if (content.keeping.room_bytes, content.keeping.beside_bytes) == (bytes, beside_bytes) {
            return Ok(());
        }
        let (pinned, unused_ms) = (content.keeping.pinned, local_unix_ms().saturating_sub(published_unix_ms));
        let unused = Micros::from_millis(unused_ms);
        let others: Vec<Kept> = kept(&state).into_iter().filter(|k| k.content != id).collect();
        // What has to go for so many bytes, where they may come.
        let goes = |bytes| {
            let new = Kept { content: id, bytes, pinned, in_use: false, others: 0, unused };
            let all: Vec<Kept> = others.iter().cloned().chain([new]).collect();
            let Eviction { contents, short_bytes } = evict(&all, quota_bytes, 0);
            (short_bytes == 0 && !contents.contains(&id)).then_some(contents)
        };
        if let Some(contents) = goes(bytes.saturating_add(beside_bytes)) {
            if let Some(content) = state.contents.get_mut(&id) {
                (content.keeping.room_bytes, content.keeping.beside_bytes) = (bytes, beside_bytes);
            }
            let evicted = take_out(inner, &mut state, &contents);
            drop(state);
            remove(evicted);
            return Ok(());
        }
        if beside_bytes == 0 || goes(bytes).is_none() {
            return Err(FetchError::NoRoom { needed_bytes: bytes, quota_bytes });
        }
        drop(state);
        versions::give_up_others(inner, id, &base, folder);
        beside_bytes = 0;
    }
}

/// Goes on with the contents that an earlier run left in the data folder, as far as the quota allows. Blocks.
pub(crate) fn resume(inner: &Arc<Inner>) {
    let folder = inner.config.data.join("contents");
    let (mut found, mut wanted) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if let Some(left) = TakenOut::left(&path) {
            remove([left]);
        } else if let Some(content) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            match left_here(inner, content, &path) {
                Some(left) => found.push(left),
                // Its log never came.
                None => wanted.extend(names::name(&path)),
            }
        }
    }
    found.sort_by_key(|kept| kept.unused);
    let evicted = evict(&found, quota_bytes(inner), 0).contents;
    for Kept { content, bytes, unused, .. } in found {
        if evicted.contains(&content) {
            tracing::info!(content = %format!("{content:.8}"), "evicted to keep within the quota");
            remove([TakenOut::unopened(folder.join(content.to_string()))]);
            continue;
        }
        let name = names::name(&folder.join(content.to_string()));
        let mut state = ContentState::new(content, name, None, None);
        state.follows = true;
        state.keeping.room_bytes = bytes;
        state.keeping.used_unix_ms = local_unix_ms().saturating_sub(unused.0 / 1000);
        opening::begin(inner, state);
    }
    for name in wanted {
        let mut state = ContentState::new(name.content(), Some(name), None, None);
        state.follows = true;
        opening::begin(inner, state);
    }
}

/// What a content that lies in `folder` is to be judged by, if its log is there.
fn left_here(inner: &Inner, content: ContentId, folder: &Path) -> Option<Kept> {
    let log = versions::newest(folder, content, &None)?;
    let track = log.verify(&log.name, None).ok().filter(|t| t.version.content == content)?;
    let used = [folder.join(USED), folder.join("log")].iter().find_map(|p| p.metadata().ok()?.modified().ok())?;
    let unused = SystemTime::now().duration_since(used).unwrap_or_default();
    let pinned = is_pinned(inner, content, folder);
    let unused = Micros(u64::try_from(unused.as_micros()).unwrap_or(u64::MAX));
    Some(Kept { content, bytes: track.layout.bytes(), pinned, in_use: false, others: 0, unused })
}

/// Whether the user said that the content in `folder` stays: when the node was started, or when it was fetched.
pub(super) fn is_pinned(inner: &Inner, content: ContentId, folder: &Path) -> bool {
    inner.config.pinned.contains(&content) || folder.join(PINNED).exists()
}

/// The quota does not end the content in `folder`, also after the next start.
pub(super) fn pin(folder: &Path) {
    if let Err(e) = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(folder.join(PINNED), "")) {
        tracing::warn!("cannot note that {} is pinned: {e}; the next start does not know of it", folder.display());
    }
}

/// What the contents may take: what the user said, or what leaves a tenth of the disk free; on a disk that is nearly full
/// half of what there is. Blocks.
fn quota_bytes(inner: &Inner) -> u64 {
    let quota = inner.config.quota_bytes.unwrap_or_else(|| {
        let data = &inner.config.data;
        let disk = fs4::available_space(data).and_then(|free| Ok((free, fs4::total_space(data)?)));
        // A disk that cannot be asked tells its trouble where it is written to.
        disk.map_or(u64::MAX, |(free, total)| {
            let all = on_disk_bytes(inner) + free;
            all.saturating_sub(total / 10).max(all / 2)
        })
    });
    inner.quota_bytes.store(quota, Ordering::Relaxed);
    quota
}

/// What the contents in the data folder take already.
fn on_disk_bytes(inner: &Inner) -> u64 {
    let (mut known, mut bytes) = (Vec::new(), 0);
    for content in inner.lock().contents.values().filter(|c| c.is_in_data_folder()) {
        if let Phase::Running(r) = &content.phase {
            bytes += r.bytes_held + content.former.as_ref().map_or(0, |f| f.bytes_held);
            known.push(content.folder(inner));
        }
    }
    let entries = std::fs::read_dir(inner.config.data.join("contents")).into_iter().flatten().flatten();
    bytes + entries.map(|e| e.path()).filter(|path| !known.contains(path)).map(|path| taken_bytes(&path)).sum::<u64>()
}

/// What a file or all files of a folder take of the disk.
fn taken_bytes(path: &Path) -> u64 {
    match path.symlink_metadata() {
        Ok(m) if m.is_dir() => {
            std::fs::read_dir(path).into_iter().flatten().flatten().map(|e| taken_bytes(&e.path())).sum()
        }
        #[cfg(unix)]
        Ok(m) => 512 * std::os::unix::fs::MetadataExt::blocks(&m),
        #[cfg(not(unix))]
        Ok(m) => m.len(),
        Err(_) => 0,
    }
}

/// The contents in the data folder.
fn kept(state: &State) -> Vec<Kept> {
    let now = local_unix_ms();
    // One that another replaces takes no room, and goes with that.
    let takes_room = |c: &&ContentState| c.is_in_data_folder() && !matches!(c.phase, Phase::StandIn(_));
    let kept = state.contents.values().filter(takes_room).map(|c| Kept {
        content: c.id,
        bytes: c.keeping.room_bytes + c.keeping.beside_bytes,
        pinned: c.keeping.pinned,
        in_use: is_in_use(c),
        others: match &*c.outcome.borrow() {
            // Nobody can be served with it any more.
            Outcome::Failed(FetchError::Withdrawn(_)) => u32::MAX,
            _ => c.keeping.holders.saturating_sub(1),
        },
        unused: Micros::from_millis(now.saturating_sub(c.keeping.used_unix_ms)),
    });
    kept.collect()
}

fn is_in_use(content: &ContentState) -> bool {
    match &content.phase {
        Phase::Asking | Phase::Opening => true,
        Phase::Running(r) => !r.swarm.is_complete() || r.swarm.open_children() > 0 || Arc::strong_count(&r.reading) > 1,
        // It lies in memory.
        Phase::Live(_) | Phase::StandIn(_) | Phase::Failed => false,
    }
}

/// Notes which contents are being used, and has their folders remember it.
fn remember_use(inner: &Inner) {
    let now = local_unix_ms();
    let mut to_remember = Vec::new();
    for content in inner.lock().contents.values_mut().filter(|c| c.is_in_data_folder()) {
        let uploaded = match &content.phase {
            Phase::Running(r) => r.uploaded_bytes,
            _ => content.keeping.uploaded_bytes,
        };
        if is_in_use(content) || uploaded != content.keeping.uploaded_bytes {
            content.keeping.used_unix_ms = now;
        }
        content.keeping.uploaded_bytes = uploaded;
        let folder = content.folder(inner);
        let keeping = &mut content.keeping;
        if keeping.used_unix_ms.saturating_sub(keeping.remembered_unix_ms) > REMEMBER_EVERY_MS {
            keeping.remembered_unix_ms = keeping.used_unix_ms;
            to_remember.push((folder, keeping.used_unix_ms));
        }
    }
    for (folder, used_unix_ms) in to_remember {
        // Without it the content counts as used when its log came.
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(used_unix_ms);
        let _ = std::fs::File::create(folder.join(USED)).and_then(|file| file.set_modified(time));
    }
}

fn keep_to_quota(inner: &Arc<Inner>) {
    let quota_bytes = quota_bytes(inner);
    let mut state = inner.lock();
    let evicted = evict(&kept(&state), quota_bytes, 0).contents;
    let evicted = take_out(inner, &mut state, &evicted);
    drop(state);
    remove(evicted);
}

/// The contents leave their swarms.
fn take_out(inner: &Inner, state: &mut State, contents: &[ContentId]) -> Vec<TakenOut> {
    let mut evicted = Vec::new();
    for id in contents {
        let Some(content) = state.contents.get(id) else { continue };
        tracing::info!(content = %format!("{id:.8}"), "evicted to keep within the quota");
        content.outcome.send_replace(Outcome::Failed(FetchError::Evicted));
        evicted.extend(names::take_out(inner, state, id));
    }
    evicted
}

/// Their files go. Blocks.
fn remove(evicted: impl IntoIterator<Item = TakenOut>) {
    for error in evicted.into_iter().filter_map(|e| e.remove().err()) {
        tracing::warn!("an evicted content still takes room: {error}");
    }
}

/// Contents that the disk has stopped go on when it lets them, and the user's own when there is room for them.
fn try_again(inner: &Arc<Inner>) {
    let may_go_on = |c: &&ContentState| {
        let by_its_error = match &*c.outcome.borrow() {
            Outcome::Failed(FetchError::Store(_)) => true,
            Outcome::Failed(FetchError::NoRoom { .. }) => c.keeping.pinned,
            _ => false,
        };
        by_its_error && c.is_in_data_folder()
    };
    let stopped: Vec<ContentId> = inner.lock().contents.values().filter(may_go_on).map(|c| c.id).collect();
    if !stopped.is_empty() && inner.data_folder_is_there().is_ok() {
        stopped.into_iter().for_each(|id| opening::again(inner, id));
    }
}

/// Bytes that the contents in the data folder take of the quota.
pub(crate) fn kept_bytes(state: &State) -> u64 {
    state
        .contents
        .values()
        .filter(|c| c.is_in_data_folder())
        .map(|c| c.keeping.room_bytes + c.keeping.beside_bytes)
        .sum()
}
