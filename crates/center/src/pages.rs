//! Pages of leaf hashes and rolling sums: cut once per content in use, and asked of nodes where they were lost with the state.

use crate::hub::{Hub, Outgoing, State};
use headwater_model::merkle::{self, Page};
use headwater_model::{Hash, Micros, NodeId, Sum, Time, Version, sums};
use headwater_wire::FromControl;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Contents whose pages are in memory.
const MAX_CONTENTS: usize = 64;
/// Pages in memory: 256 MiB. One content is always held, however large.
const MAX_PAGES: usize = 16_384;
/// Pages that nodes are asked for at once.
const MAX_ASKED: usize = 4096;
/// How long a node may take to answer.
const ANSWER_WITHIN: Micros = Micros::from_secs(3);
/// Nodes asked for one page, one after the other.
const MAX_TRIES: usize = 4;

/// Who waits for which page.
type Askers = Vec<(u64, u32)>;

/// Pages in memory and requests that wait.
#[derive(Default)]
pub(crate) struct PageDesk {
    held: BTreeMap<Version, Held>,
    turn: u64,
    /// Versions whose leaves are being read: (session, page).
    loading: BTreeMap<Version, Askers>,
    asked: BTreeMap<(Version, u32), Asked>,
}

/// Pages of one version; all of them, or those that nodes have given so far.
struct Held {
    pages: Vec<Option<Arc<Page>>>,
    count: usize,
    used: u64,
}

/// A page that a node was asked for.
struct Asked {
    sessions: Vec<u64>,
    nodes: BTreeSet<NodeId>,
    last: NodeId,
    until: Time,
}

impl PageDesk {
    fn page(&mut self, version: &Version, page: u32) -> Option<Arc<Page>> {
        self.turn += 1;
        let held = self.held.get_mut(version)?;
        held.used = self.turn;
        held.pages.get(page as usize)?.clone()
    }

    fn hold(&mut self, version: Version, pages: Vec<Option<Arc<Page>>>) {
        self.turn += 1;
        let count = pages.iter().flatten().count();
        self.held.insert(version, Held { pages, count, used: self.turn });
        self.evict(&version);
    }

    /// Pages that are asked of nodes are now known, or the other way round.
    pub(crate) fn forget(&mut self, version: &Version) {
        self.held.remove(version);
    }

    fn evict(&mut self, keep: &Version) {
        while self.held.len() > 1
            && (self.held.len() > MAX_CONTENTS || self.held.values().map(|h| h.count).sum::<usize>() > MAX_PAGES)
        {
            let oldest = self.held.iter().filter(|(v, _)| *v != keep).min_by_key(|(_, h)| h.used).map(|(v, _)| *v);
            let Some(oldest) = oldest else { return };
            self.held.remove(&oldest);
        }
    }

    /// Puts a page that a node gave; all leaf hashes, once the last one is there.
    fn put(&mut self, version: &Version, page: Page) -> Option<Vec<u8>> {
        let held = self.held.get_mut(version)?;
        let place = held.pages.get_mut(page.number as usize)?;
        if place.is_some() {
            return None;
        }
        *place = Some(Arc::new(page));
        held.count += 1;
        let full = held.count == held.pages.len();
        let all = full.then(|| {
            let pages = || held.pages.iter().flatten();
            let leaves: Vec<Hash> = pages().flat_map(|p| &p.leaves).copied().collect();
            let sums: Vec<Sum> = pages().filter_map(|p| p.sums.as_ref()).flat_map(|s| &s.sums).copied().collect();
            to_keep(&leaves, &sums)
        });
        self.evict(version);
        all
    }
}

/// Leaf hashes, then sums where there are any: as the store keeps them.
pub(crate) fn to_keep(leaves: &[Hash], sums: &[Sum]) -> Vec<u8> {
    let mut all: Vec<u8> = leaves.iter().flat_map(|h| h.0).collect();
    all.extend(sums::to_bytes(sums));
    all
}

/// The pages of what [`to_keep`] made, for a content of so many pieces.
fn cut(kept: &[u8], pieces: u32) -> Option<Vec<Page>> {
    let (leaves, sums) = kept.split_at_checked(32 * pieces as usize)?;
    let leaves: Vec<Hash> = leaves.as_chunks::<32>().0.iter().map(|h| Hash(*h)).collect();
    Some(merkle::cut_pages(&leaves, &sums::from_bytes(sums)?))
}

/// A node asks for a page; it is answered now or later, exactly once.
pub(crate) fn requested(hub: &Arc<Hub>, node: NodeId, session: u64, version: Version, page: u32) {
    let mut state = hub.lock();
    if !state.is_current(&node, session) {
        return;
    }
    hub.counters.page_requests.inc();
    let content = state.contents.get(&version.content).filter(|c| c.version == version);
    let known = content.is_some_and(|c| page < merkle::pages(c.pieces));
    let is_member = || state.center.clients().get(&node).is_some_and(|c| c.contents.contains(&version.content));
    let permitted = content.is_some_and(|c| !c.restricted || is_member());
    if !known || !permitted {
        unavailable(hub, &mut state, session, version, page);
        return;
    }
    look_up(hub, &mut state, session, version, page);
}

fn look_up(hub: &Arc<Hub>, state: &mut State, session: u64, version: Version, page: u32) {
    if let Some(found) = state.pages.page(&version, page) {
        give(hub, state, session, version, &found);
    } else if state.pages.held.contains_key(&version) {
        ask_for(hub, state, session, version, page);
    } else if let Some(askers) = state.pages.loading.get_mut(&version) {
        askers.push((session, page));
    } else {
        state.pages.loading.insert(version, vec![(session, page)]);
        hub.tasks.spawn(load(hub.clone(), version));
    }
}

/// Reads the leaf hashes and cuts pages.
async fn load(hub: Arc<Hub>, version: Version) {
    let kept = hub.store.leaves(version).await.unwrap_or_else(|e| {
        tracing::error!("leaf hashes could not be read: {e}");
        None
    });
    let expected = hub.lock().contents.get(&version.content).map(|c| (c.pieces, c.root, c.sums));
    let cut = move || {
        let (pieces, root, sums) = expected?;
        let pages = cut(&kept?, pieces)?;
        // A damaged disk: nodes have the true ones.
        let good = pages.first().is_some_and(|p| p.is_true(pieces, &root, sums.as_ref()));
        good.then(|| pages.into_iter().map(|p| Some(Arc::new(p))).collect::<Vec<_>>())
    };
    let pages = tokio::task::spawn_blocking(cut).await.ok().flatten();
    let mut state = hub.lock();
    let askers = state.pages.loading.remove(&version).unwrap_or_default();
    let count = expected.map_or(0, |(pieces, ..)| merkle::pages(pieces));
    state.pages.hold(version, pages.unwrap_or_else(|| vec![None; count as usize]));
    for (session, page) in askers {
        look_up(&hub, &mut state, session, version, page);
    }
}

fn give(hub: &Hub, state: &mut State, session: u64, version: Version, page: &Page) {
    hub.counters.pages_given.inc();
    send(hub, state, session, FromControl::Page { version, page: page.clone() });
}

fn unavailable(hub: &Hub, state: &mut State, session: u64, version: Version, page: u32) {
    send(hub, state, session, FromControl::PageUnavailable { version, page });
}

fn send(hub: &Hub, state: &mut State, session: u64, message: FromControl) {
    if let Some(input) = hub.send_to(state, session, Outgoing::Page(Box::new(message))) {
        hub.input(state, input);
    }
}

fn ask_for(hub: &Hub, state: &mut State, session: u64, version: Version, page: u32) {
    if let Some(asked) = state.pages.asked.get_mut(&(version, page)) {
        asked.sessions.push(session);
        return;
    }
    if state.pages.asked.len() >= MAX_ASKED {
        unavailable(hub, state, session, version, page);
        return;
    }
    ask_next(hub, state, version, page, vec![session], BTreeSet::new());
}

/// Asks one more node that has the content, or gives up.
fn ask_next(
    hub: &Hub,
    state: &mut State,
    version: Version,
    page: u32,
    sessions: Vec<u64>,
    mut nodes: BTreeSet<NodeId>,
) {
    let Some(holder) = holder_of(state, version, &nodes).filter(|_| nodes.len() < MAX_TRIES) else {
        for session in sessions {
            unavailable(hub, state, session, version, page);
        }
        return;
    };
    nodes.insert(holder);
    let until = hub.clock.now() + ANSWER_WITHIN;
    state.pages.asked.insert((version, page), Asked { sessions, nodes, last: holder, until });
    let request = Outgoing::Say(Box::new(FromControl::PageRequest { version, page }));
    if let Some(input) = hub.send(state, &holder, request) {
        hub.input(state, input);
    }
}

/// A node with a session that has the whole content, or said so, and was not asked yet.
fn holder_of(state: &State, version: Version, asked: &BTreeSet<NodeId>) -> Option<NodeId> {
    let fit = |n: &&NodeId| !asked.contains(*n) && state.has_session(n);
    let announcer = state.contents.get(&version.content)?.announcers.iter().find(fit).copied();
    announcer.or_else(|| {
        let dcm = state.center.directory().dcm(&version.content).filter(|d| d.version() == version)?;
        dcm.members().filter(|m| m.runs.is_full()).map(|m| &m.info.node).find(fit).copied()
    })
}

/// A node gives a page that it was asked for.
pub(crate) fn given(hub: &Arc<Hub>, node: NodeId, version: Version, page: Page) {
    let expected = {
        let state = hub.lock();
        let asked = state.pages.asked.get(&(version, page.number)).is_some_and(|a| a.nodes.contains(&node));
        // One that nobody asked for, or that came too late, is no harm.
        state.contents.get(&version.content).filter(|_| asked).map(|c| (c.pieces, c.root, c.sums))
    };
    let Some((pieces, root, sums)) = expected else { return };
    let is_true = page.is_true(pieces, &root, sums.as_ref());
    let mut state = hub.lock();
    let number = page.number;
    if !is_true {
        tracing::warn!("{node:.8} gave a page of {:.8} that is not true", version.content);
        let key = (version, number);
        if state.pages.asked.get(&key).is_some_and(|a| a.last == node)
            && let Some(asked) = state.pages.asked.remove(&key)
        {
            ask_next(hub, &mut state, version, number, asked.sessions, asked.nodes);
        }
        return;
    }
    if let Some(asked) = state.pages.asked.remove(&(version, number)) {
        for session in asked.sessions {
            give(hub, &mut state, session, version, &page);
        }
    }
    if let Some(leaves) = state.pages.put(&version, page) {
        keep(hub, version, leaves);
    }
}

/// All leaf hashes of a content are back.
fn keep(hub: &Arc<Hub>, version: Version, leaves: Vec<u8>) {
    let keeper = hub.clone();
    hub.tasks.spawn(async move {
        if let Err(e) = keeper.store.set_leaves(version, leaves).await {
            tracing::error!("leaf hashes were not kept: {e}");
        }
    });
}

/// Requests that a node did not answer in time go to the next one.
pub(crate) fn give_up_waiting(hub: &Hub, state: &mut State) {
    let now = hub.clock.now();
    let late: Vec<(Version, u32)> =
        state.pages.asked.iter().filter(|(_, a)| a.until <= now).map(|(key, _)| *key).collect();
    for (version, page) in late {
        if let Some(asked) = state.pages.asked.remove(&(version, page)) {
            ask_next(hub, state, version, page, asked.sessions, asked.nodes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_model::ContentId;

    fn version(n: u8) -> Version {
        Version { content: ContentId([n; 32]), epoch: 1 }
    }

    fn leaves(n: u32) -> Vec<Hash> {
        (0..n).map(|i| merkle::leaf(&i.to_be_bytes())).collect()
    }

    #[test]
    fn pages_come_back_one_by_one() {
        let leaves = leaves(1100);
        let sums: Vec<Sum> = (0..1100).map(Sum).collect();
        let mut desk = PageDesk::default();
        desk.hold(version(1), vec![None; 3]);
        let pages = merkle::cut_pages(&leaves, &sums);
        assert_eq!(desk.put(&version(1), pages[2].clone()), None);
        assert_eq!(desk.put(&version(1), pages[2].clone()), None, "twice the same");
        assert_eq!(desk.put(&version(1), pages[0].clone()), None);
        assert!(desk.page(&version(1), 1).is_none());
        let all = desk.put(&version(1), pages[1].clone()).unwrap();
        assert_eq!(all, to_keep(&leaves, &sums));
        assert_eq!(cut(&all, 1100), Some(pages.clone()));
        assert_eq!(cut(&all, 2000), None, "damaged");
        assert_eq!(*desk.page(&version(1), 1).unwrap(), pages[1]);
    }

    #[test]
    fn the_least_used_pages_go_first() {
        let mut desk = PageDesk::default();
        for n in 0..=MAX_CONTENTS as u8 {
            desk.hold(version(n), vec![None]);
            desk.page(&version(0), 0);
        }
        assert!(desk.held.contains_key(&version(0)), "used all the time");
        assert!(!desk.held.contains_key(&version(1)));
        let many: Vec<_> = merkle::cut_pages(&leaves(1), &[]).into_iter().cycle().take(MAX_PAGES + 1).collect();
        desk.hold(version(99), many.into_iter().map(|p| Some(Arc::new(p))).collect());
        assert!(desk.held.contains_key(&version(99)), "one is always held");
    }
}
