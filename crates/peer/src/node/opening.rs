//! A content begins at a node: its log is believed, its store opened, then its swarm runs.

use super::meters::Meters;
use super::state::{ContentState, Phase, Running, State, carry_out};
use super::{FetchError, Inner, Outcome, live, pinned, random_seed, storage, versions};
use crate::origin::Access;
use crate::sources::Sources;
use crate::store::{Destination, Opened, Store, StoreError, StoreHandle};
use headwater_model::id::ContentId;
use headwater_model::log::{Log, Track};
use headwater_model::merkle::{self, Page};
use headwater_model::report::Join;
use headwater_model::{Bits, Name};
use headwater_peer_core::{Config, Input, Swarm};
use headwater_wire::{FromControl, FromNode, Token, encode_log};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Messages for a content that is being opened; more than an assignment and leases are not expected.
const MAX_PENDING: usize = 256;
/// A store that is open is closed within this time, if it is a former version's: no reader of it gets more.
const FREE_WITHIN: Duration = Duration::from_secs(5);
/// How often it is tried.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Begins with a content: from an earlier run's log where there is one, else by asking for it. One that failed is tried
/// again.
pub(crate) fn begin(inner: &Arc<Inner>, content: ContentState) {
    let id = content.id;
    // Whatever is here may have equal pieces; what exactly is found out when the log is known.
    let (own, named) = (content.destination.as_ref().map(Destination::path), content.have.iter());
    let looks_first = named.map(PathBuf::as_path).chain(own).any(std::path::Path::exists);
    let pinned = content.keeping.pinned || storage::is_pinned(inner, id, &content.folder(inner));
    {
        let mut state = inner.lock();
        if let Some(known) = state.contents.get_mut(&id) {
            known.stands_in_for = match &known.name {
                // The user asked for it before, or does now.
                Some(_) => known.stands_in_for.take().filter(|_| content.stands_in_for.is_some()),
                None => content.stands_in_for,
            };
            known.name = known.name.take().or(content.name);
            known.follows |= content.follows;
            known.keeping.pinned |= content.keeping.pinned;
            drop(state);
            return again(inner, id);
        }
        let mut content = content;
        content.keeping.pinned = pinned;
        content.looks_first = looks_first;
        if state.by_web {
            content.note(super::control::NO_UDP.into());
        }
        if let Some(note) = limited_by(inner) {
            content.note(note);
        }
        state.contents.insert(id, content);
    }
    look_for_log(inner, id);
}

/// Tries a content again that failed, or that another one replaced.
pub(crate) fn again(inner: &Arc<Inner>, id: ContentId) {
    {
        let mut state = inner.lock();
        let may_begin = |c: &&mut ContentState| matches!(c.phase, Phase::Failed | Phase::StandIn(_));
        let Some(content) = state.contents.get_mut(&id).filter(may_begin) else { return };
        content.phase = Phase::Asking;
        content.outcome.send_replace(Outcome::Running);
    }
    look_for_log(inner, id);
}

fn look_for_log(inner: &Arc<Inner>, id: ContentId) {
    let known = inner.lock().contents.get(&id).map(|c| (c.folder(inner), c.name.clone(), c.first_join()));
    let Some((folder, name, join)) = known else { return };
    let saved = versions::newest(&folder, id, &name);
    if saved.is_none() {
        let mut state = inner.lock();
        if state.session.is_connected() {
            join_content(inner, &mut state, join);
        }
    }
    match saved {
        Some(log) => open(inner, id, log, Access::default(), Vec::new()),
        None => {
            if let Some(url) = name.and_then(|n| n.log) {
                tokio::spawn(super::control::static_log_if_alone(inner.clone(), id, url));
            }
        }
    }
}

/// What the user is told of its own access list.
fn limited_by(inner: &Inner) -> Option<String> {
    let from = match &inner.config.sources {
        Sources::Any => return None,
        Sources::Operator => "the origin and the operator's nodes only",
        Sources::Networks(_) => "those of the origin and the operator's nodes whose address is listed, only",
    };
    Some(format!("this node's access list (--sources) limits it: fetching from {from}"))
}

pub(crate) fn join_content(inner: &Inner, state: &mut State, join: Join) {
    join_as(inner, state, join, None);
}

/// As [`join_content`], where there is a claim as a source of the live stream.
pub(crate) fn join_as(inner: &Inner, state: &mut State, join: Join, source: Option<[u8; 64]>) {
    if !state.limits.fetches() {
        return;
    }
    let token = Token(inner.config.viewer_token.clone().unwrap_or_default());
    state.tell_control(&FromNode::Join(headwater_wire::Join::new(join, token).claiming(source)));
}

/// The log of a live stream is here.
fn open_live(inner: &Arc<Inner>, id: ContentId, log: Log, access: Access) {
    let mut state = inner.lock();
    let Some(content) = state.contents.get_mut(&id) else { return };
    if content.destination.is_some() {
        content.fail(FetchError::LiveStream);
        // It counts as a member since it asked for the log.
        if let Some(version) = log.version() {
            state.tell_control(&FromNode::Leave(version));
        }
        return;
    }
    let name = &content.name;
    let wanted = name.as_ref().map_or(log.name.as_str(), |n| n.name.as_str());
    match log.verify_live(wanted, pinned(name).as_ref()) {
        Ok(track) if track.version.content == id => live::run(inner, &mut state, id, log, track, access),
        Ok(_) => content.fail(FetchError::Withdrawn("the control center sent the log of another content".into())),
        Err(e) => content.fail(FetchError::Log(e)),
    }
}

/// A log is here: the store is opened, then the swarm runs. `pages` come with a static log.
pub(crate) fn open(inner: &Arc<Inner>, id: ContentId, log: Log, access: Access, pages: Vec<Page>) {
    if log.is_live() {
        return open_live(inner, id, log, access);
    }
    let place = {
        let mut state = inner.lock();
        let Some(content) = state.contents.get_mut(&id) else { return };
        if matches!(content.phase, Phase::Opening) {
            return;
        }
        content.phase = Phase::Opening;
        Where {
            id,
            name: content.name.clone(),
            base: content.folder(inner),
            apart: content.is_in_data_folder(),
            destination: content.destination.clone(),
            have: content.have.clone(),
        }
    };
    let inner = inner.clone();
    tokio::spawn(async move {
        let Ok(_permit) = inner.openings.acquire().await else { return };
        let node = inner.clone();
        let opening = tokio::task::spawn_blocking(move || {
            let opened = open_store(&node, &log, &place, pages);
            (opened, log)
        });
        let Ok((opened, log)) = opening.await else { return };
        let mut state = inner.lock();
        match opened {
            Ok(opened) => run(&inner, &mut state, id, log, opened, access),
            Err(e) => {
                // It counts as a member since it asked for the log.
                if let Some(version) = log.version() {
                    state.tell_control(&FromNode::Leave(version));
                }
                if let Some(c) = state.contents.get_mut(&id) {
                    c.fail(e);
                }
            }
        }
    });
}

/// Where a content goes.
struct Where {
    id: ContentId,
    name: Option<Name>,
    /// Folder of its state, and of folders for later versions.
    base: PathBuf,
    /// Whether each version has its folder.
    apart: bool,
    /// `None`: beside its state.
    destination: Option<Destination>,
    /// Files and folders that may have equal pieces.
    have: Vec<PathBuf>,
}

/// A content whose store is open.
struct OpenedStore {
    track: Arc<Track>,
    store: StoreHandle,
    folder: PathBuf,
    /// Files to look through for what is missing.
    sources: Vec<PathBuf>,
    notes: Vec<String>,
}

fn open_store(inner: &Arc<Inner>, log: &Log, place: &Where, pages: Vec<Page>) -> Result<OpenedStore, FetchError> {
    let Where { id, name, base, apart, destination, have } = place;
    let wanted = name.as_ref().map_or(log.name.as_str(), |n| n.name.as_str());
    let track = log.verify(wanted, pinned(name).as_ref()).map_err(FetchError::Log)?;
    if track.version.content != *id {
        // The id binds key and name: only a confused or lying control center sends another content's log.
        return Err(FetchError::Withdrawn("the control center sent the log of another content".into()));
    }
    let folder = &if *apart { versions::folder_for(base, *id, name, log) } else { base.clone() };
    let destination = match destination {
        None => Destination::Folder(folder.join("files")),
        Some(Destination::File(path)) if track.objects.len() > 1 => Destination::Folder(path.clone()),
        Some(other) => other.clone(),
    };
    inner.data_folder_is_there()?;
    let published_unix_ms = log.entries.last().map_or(0, |e| e.entry.time_unix_ms);
    storage::make_room(inner, *id, folder, track.layout.bytes(), published_unix_ms)?;
    let (store, opened) = open_when_free(&track, &destination, folder)?;
    for page in pages {
        store.put_page(page)?;
    }
    let mut sources = Vec::new();
    if !store.is_complete() {
        let others = if *apart { versions::data_of_others(base, *id, name, folder) } else { Vec::new() };
        sources = versions::sources(others, destination.path(), have);
        let missing = track.layout.bytes() * u64::from(track.layout.pieces() - store.have().ones())
            / u64::from(track.layout.pieces().max(1));
        crate::store::room_for(folder, missing)?;
    }
    // A log that cannot be kept only costs the next run a question.
    if let Err(e) = std::fs::write(folder.join("log"), encode_log(log)) {
        tracing::warn!("cannot keep the log: {e}");
    }
    let store = StoreHandle::start(store, inner.buffers.clone());
    Ok(OpenedStore { track: Arc::new(track), store, folder: folder.clone(), sources, notes: opened.notes })
}

/// Opens a store that a former version may still have open: until its last reader and its threads are done.
fn open_when_free(
    track: &Track,
    destination: &Destination,
    folder: &std::path::Path,
) -> Result<(Store, Opened), StoreError> {
    let deadline = std::time::Instant::now() + FREE_WITHIN;
    loop {
        match Store::open(track, destination, folder, &mut |_, _| ()) {
            Err(StoreError::InUse { .. }) if std::time::Instant::now() < deadline => {
                std::thread::sleep(LOOK_EVERY);
            }
            opened => return opened,
        }
    }
}

fn run(inner: &Arc<Inner>, state: &mut State, id: ContentId, log: Log, opened: OpenedStore, access: Access) {
    let OpenedStore { track, store, folder, sources, notes } = opened;
    let now = inner.now();
    let (control, paused) = (state.session.is_connected(), !state.limits.fetches());
    let Some(content) = state.contents.get_mut(&id) else { return };
    notes.into_iter().for_each(|n| content.note(n));
    let pages = merkle::pages(track.layout.pieces());
    let mut known = Bits::new(pages);
    (0..pages).filter(|p| store.has_page(*p)).for_each(|p| {
        known.set(p);
    });
    let have = store.have();
    let bytes_held = have.iter().map(|p| u64::from(track.layout.piece_len(p))).sum();
    let may_use_origin = !track.origins.is_empty();
    let seed = random_seed();
    let layout = track.layout.clone();
    let swarm = Swarm::new(now, track.version, layout, have, known, may_use_origin, Config::default(), seed);
    let mut swarm = swarm.known_as(inner.listener.identity().node);
    if !sources.is_empty() {
        swarm = swarm.searching_first();
    }
    swarm.set_priority(content.priority);
    let mut out = Vec::new();
    swarm.handle(now, Input::Control(control), &mut out);
    swarm.handle(now, Input::Pause(paused), &mut out);
    let running = Running {
        track,
        log,
        swarm,
        store,
        access,
        tickets: BTreeMap::new(),
        classes: BTreeMap::new(),
        senders: BTreeMap::new(),
        origin_jobs: BTreeMap::new(),
        bytes_held,
        peer_bytes: 0,
        waypoint_bytes: 0,
        origin_bytes: 0,
        wasted_bytes: 0,
        uploaded_bytes: 0,
        reused_bytes: 0,
        sources,
        looking: None,
        folder,
        meters: Meters::new(now),
        rechecking: false,
        tick_at: now,
        arrived: Arc::default(),
        reading: Arc::default(),
    };
    let complete = running.swarm.is_complete();
    let (held, bytes) = (running.bytes_held, running.track.layout.bytes());
    let what = if complete { "is here and served" } else { "is fetched" };
    tracing::info!("{:?} {what}: {held} of {bytes} bytes are here", running.track.name);
    if complete {
        content.outcome.send_replace(Outcome::Complete);
    }
    // The control center learns what is held; its answers to the first question are in `pending`.
    let join = running.swarm.join();
    content.phase = Phase::Running(Box::new(running));
    let pending = std::mem::take(&mut content.pending);
    if control {
        join_content(inner, state, join);
    }
    if complete {
        versions::complete(inner, state, id);
    }
    carry_out(inner, state, id, out);
    for message in pending {
        super::messages::from_control(inner, state, message);
    }
}

/// Keeps a message for a content that is being opened; true when it was kept.
pub(crate) fn keep_for_later(state: &mut State, content: ContentId, message: &FromControl) -> bool {
    match state.contents.get_mut(&content) {
        Some(c) if matches!(c.phase, Phase::Opening | Phase::Asking) && c.pending.len() < MAX_PENDING => {
            c.pending.push_back(message.clone());
            true
        }
        _ => false,
    }
}
