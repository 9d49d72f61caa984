//! What the control center and other peers say, checked and handed to the swarms.

use super::connections::End;
use super::limits::SERVES_NOBODY;
use super::opening::{self, keep_for_later};
use super::state::{self, ContentState, Link, Phase, State, access_of, happened, happened_to_all};
use super::{FetchError, Inner, live, stand_in};
use bytes::Bytes;
use headwater_model::Accepts;
use headwater_model::assignment::{Parent, Refusal};
use headwater_model::id::{NodeId, Version};
use headwater_model::merkle::Page;
use headwater_model::report::DialResult;
use headwater_model::ticket::{Ticket, TicketError};
use headwater_peer_core::live::LiveInput;
use headwater_peer_core::{Input, PageSource};
use headwater_transport::PeerConnection;
use headwater_wire::{EdgeRefusal, Found, FromControl, FromNode, FromPeer, Held};
use std::sync::Arc;
use tokio::sync::mpsc;

/// A message of the control center.
pub(crate) fn from_control(inner: &Arc<Inner>, state: &mut State, message: FromControl) {
    let now = inner.now();
    if let Some(content) = about(&message)
        && keep_for_later(state, content, &message)
    {
        return;
    }
    match message {
        FromControl::Welcome(_) | FromControl::Goodbye { .. } => {}
        FromControl::HeartbeatReply { control_unix_ms, echo_local_us, holders, found } => {
            let asked_at = headwater_model::Time(echo_local_us.min(now.0));
            state.session.heard(now, asked_at, control_unix_ms);
            for (content, nodes) in holders {
                if let Some(content) = state.contents.get_mut(&content) {
                    content.keeping.holders = nodes;
                }
            }
            if let Some(found) = found {
                log_found(state.found.as_ref(), &found);
                state.found = Some(found);
            }
        }
        FromControl::ParentKeys(keys) => state.parent_keys = keys,
        FromControl::Content { log, access } => {
            let id = log.content();
            let access = access_of(&access);
            match state.contents.get_mut(&id).map(|c| &mut c.phase) {
                Some(Phase::Running(r)) => {
                    // The answer to a join again: only the credentials may be new.
                    r.access = access;
                }
                Some(Phase::Live(l)) => l.access = access,
                Some(Phase::Asking) => {
                    let inner = inner.clone();
                    tokio::spawn(async move { opening::open(&inner, id, log, access, Vec::new()) });
                }
                _ => {}
            }
        }
        FromControl::Refused { version, refusal } => refused(inner, state, version, refusal),
        FromControl::Assignment { mut assignment, tickets, .. } => {
            let version = assignment.version;
            keep_to_list(inner, state, &mut assignment.parents);
            keep_to_list(inner, state, &mut assignment.spares);
            keep_to_list(inner, state, &mut assignment.helpers);
            if let Some(r) = state.running(version) {
                r.forget_strangers(&assignment);
                for given in tickets {
                    r.tickets.insert(given.ticket.parent, given);
                }
                r.classes.extend(assignment.senders().map(|p| (p.node, p.class)));
                happened(inner, state, version, Input::Assigned(assignment));
            } else {
                live::assigned(inner, state, assignment, tickets);
            }
        }
        FromControl::ChangeChildren(change) => {
            live::happened(inner, state, change.version, LiveInput::ChildrenChanged(change));
        }
        FromControl::Lease { lease, ticket } => {
            if let Some((r, given)) = state.running(lease.version).zip(ticket) {
                r.tickets.insert(given.ticket.parent, *given);
            }
            happened(inner, state, lease.version, Input::Leased(lease));
        }
        FromControl::LeaseRevoked { version, run } => happened(inner, state, version, Input::LeaseRevoked(run)),
        FromControl::Page { version, page } => page_came(inner, state, version, page),
        FromControl::PageUnavailable { version, page } => {
            happened(inner, state, version, Input::NoPage(PageSource::Control, page));
        }
        FromControl::PageRequest { version, page } => {
            let held = state.running(version).and_then(|r| r.store.page(page));
            if let Some(page) = held {
                state.tell_control(&FromNode::Page { version, page: Page::clone(&page) });
            }
        }
        FromControl::Fetch { content, .. } => {
            let mut content = ContentState::new(content, None, None, None);
            content.follows = true;
            let inner = inner.clone();
            tokio::task::spawn_blocking(move || opening::begin(&inner, content));
        }
        FromControl::Withdrawn { content, why } => withdrawn(inner, state, content, why),
        FromControl::Probe(probe) => super::probes::ordered(inner, state, probe),
    }
}

fn log_found(before: Option<&Found>, found: &Found) {
    if before.is_some_and(|b| (b.accepts, b.via, b.tested) == (found.accepts, found.via, found.tested)) {
        return;
    }
    let how = match found.accepts {
        Accepts::Open => "anyone can connect to this node",
        Accepts::Punchable => "others reach this node by a rendezvous",
        Accepts::DialOnly => "nobody can connect to this node: it dials",
    };
    tracing::info!("{how}: {}; the control center sees it at {}", found.why, found.via.unwrap_or(found.observed));
}

/// The content that a message cannot do without.
fn about(message: &FromControl) -> Option<headwater_model::ContentId> {
    match message {
        FromControl::Assignment { assignment, .. } => Some(assignment.version.content),
        FromControl::ChangeChildren(change) => Some(change.version.content),
        FromControl::Lease { lease, .. } => Some(lease.version.content),
        FromControl::LeaseRevoked { version, .. } => Some(version.content),
        _ => None,
    }
}

/// Parents that are not on this node's access list are left out, and the control center is told.
fn keep_to_list(inner: &Inner, state: &mut State, parents: &mut Vec<Parent>) {
    let sources = &inner.config.sources;
    let (permitted, refused): (Vec<_>, Vec<_>) =
        std::mem::take(parents).into_iter().map(|p| (p.node, sources.permit(p))).partition(|(_, p)| p.is_some());
    *parents = permitted.into_iter().filter_map(|(_, parent)| parent).collect();
    for (node, _) in refused {
        let error = Some(state::NOT_LISTED.to_owned());
        state.tell_control(&FromNode::DialResult(DialResult { node, error }));
    }
}

fn refused(inner: &Arc<Inner>, state: &mut State, version: Version, refusal: Refusal) {
    match refusal {
        // It may have lost its state: what this node holds is published anew from the publisher's own signature.
        Refusal::UnknownContent => {
            let known = state.contents.get(&version.content).and_then(|c| match &c.phase {
                Phase::Running(r) => Some((r.log.clone(), (r.swarm.join(), None))),
                Phase::Live(l) => Some((l.log.clone(), l.join())),
                _ => None,
            });
            match known {
                Some((log, (join, claim))) => {
                    state.tell_control(&FromNode::Announce(log));
                    opening::join_as(inner, state, join, claim);
                    retry_join(inner, version);
                }
                None => fail(state, version, refusal),
            }
        }
        Refusal::OtherVersion { .. } => {
            withdrawn(inner, state, version.content, "a newer version was published".into());
        }
        Refusal::Lightweight { ref stand_in, lacks } => {
            if !stand_in::go_over(inner, state, version.content, stand_in, lacks) {
                fail(state, version, refusal);
            }
        }
        other => fail(state, version, other),
    }
}

/// A content that the control center does not know (yet): another node's announcement may bring it.
fn retry_join(inner: &Arc<Inner>, version: Version) {
    let inner = inner.clone();
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let mut state = inner.lock();
        let again = match state.contents.get(&version.content).map(|c| &c.phase) {
            Some(Phase::Running(r)) if !r.swarm.has_assignment() => Some((r.swarm.join(), None)),
            Some(Phase::Live(l)) if !l.channel.has_assignment() => Some(l.join()),
            _ => None,
        };
        if let Some((join, claim)) = again {
            opening::join_as(&inner, &mut state, join, claim);
        }
    });
}

fn fail(state: &mut State, version: Version, refusal: Refusal) {
    if let Some(c) = state.contents.get_mut(&version.content) {
        match &c.phase {
            // What is complete here stays; it is only not served any more.
            Phase::Running(r) if r.swarm.is_complete() => c.note(refusal.to_string()),
            // There is no newer version.
            _ if c.former.is_some() && c.name.is_some() => {
                c.note(refusal.to_string());
                if let Some(former) = c.former.take() {
                    c.phase = Phase::Running(former);
                    c.outcome.send_replace(super::Outcome::Complete);
                }
            }
            _ => {
                c.former = None;
                c.fail(FetchError::Refused(refusal));
            }
        }
    }
}

fn withdrawn(inner: &Arc<Inner>, state: &mut State, content: headwater_model::ContentId, why: String) {
    let Some(c) = state.contents.get_mut(&content) else { return };
    let complete = matches!(&c.phase, Phase::Running(r) if r.swarm.is_complete());
    if !complete || c.follows {
        // There may be a newer version; if there is none, the answer to the new question says so.
        start_over(inner, state, content, &why);
    } else if c.name.is_some() {
        c.note(format!("no longer served: {why}"));
    } else {
        c.fail(FetchError::Withdrawn(why));
    }
}

/// Another version is current, and is asked for. It takes from what is here of the former one; a complete one is read by
/// programs here until then.
fn start_over(inner: &Arc<Inner>, state: &mut State, content: headwater_model::ContentId, why: &str) {
    let Some(c) = state.contents.get_mut(&content) else { return };
    c.note(format!("{why}: starting over with it"));
    if let Phase::Running(mut r) = std::mem::replace(&mut c.phase, Phase::Asking) {
        r.origin_jobs.values().for_each(tokio::task::AbortHandle::abort);
        r.senders.clear();
        c.looks_first = c.is_in_data_folder() || c.looks_first;
        if c.is_in_data_folder() && r.swarm.is_complete() {
            c.former = Some(r);
        }
        c.outcome.send_replace(super::Outcome::Running);
    }
    let join = c.first_join();
    opening::join_content(inner, state, join);
}

/// A page of hashes, from whomever: verified by the store, then told to the swarm.
fn page_came(inner: &Arc<Inner>, state: &mut State, version: Version, page: Page) {
    let Some(store) = state.running(version).map(|r| r.store.clone()) else { return };
    let inner = inner.clone();
    tokio::spawn(async move {
        let number = page.number;
        match store.put_page(page).await {
            Ok(crate::store::Written::Bad) => tracing::warn!("a page of hashes was wrong and is not used"),
            Ok(_) => happened(&inner, &mut inner.lock(), version, Input::Page(number)),
            Err(e) => disk_failed(&inner, version, e),
        }
    });
}

/// The disk is full, read-only or gone: the content stops with that error.
pub(crate) fn disk_failed(inner: &Arc<Inner>, version: Version, error: crate::store::StoreError) {
    let mut state = inner.lock();
    if state.leaving || state.running(version).is_none() {
        return;
    }
    state.tell_control(&FromNode::Leave(version));
    if let Some(c) = state.contents.get_mut(&version.content) {
        c.fail(error.into());
    }
}

/// A message of another peer; an error closes the connection, with the reason.
///
/// The answer to a ticket goes back over the connection that it was shown on, whose nonce is `nonce`.
pub(crate) fn from_peer(
    inner: &Arc<Inner>,
    node: NodeId,
    nonce: &[u8; 32],
    back: &mpsc::Sender<Bytes>,
    message: FromPeer,
) -> Result<(), End> {
    let Some(message) = live::from_peer(inner, node, message)? else { return Ok(()) };
    let mut state = inner.lock();
    let state = &mut *state;
    match message {
        FromPeer::Hello { .. } | FromPeer::PageHello { .. } => return Err(End::Rules("a second hello".into())),
        FromPeer::OpenEdge { version, ticket, proof } => {
            let refusal = may_open(inner, state, node, nonce, version, &ticket, &proof).err();
            let refused = refusal.is_some();
            if back.try_send(FromPeer::EdgeAnswer { version, refusal }.encode()).is_err() {
                return Err(End::Lost("reads too slowly".into()));
            }
            if !refused {
                happened(inner, state, version, Input::ChildOpened(node));
                live::happened(inner, state, version, LiveInput::ChildOpened(node, ticket.substreams));
            }
        }
        FromPeer::EdgeAnswer { version, refusal } => {
            let refused = refusal.map(|(code, why)| if why.is_empty() { code.to_string() } else { why });
            live::happened(inner, state, version, LiveInput::Answered { parent: node, refused: refused.clone() });
            happened(inner, state, version, Input::Answered { parent: node, refused });
        }
        FromPeer::Have { version, held } => {
            let Some(pieces) = state.running(version).map(|r| r.track.layout.pieces()) else { return Ok(()) };
            let input = match held {
                Held::All(bitmap) => Input::HasAll(node, bitmap.bits(pieces)?),
                Held::More(some) => Input::Has(node, some),
            };
            happened(inner, state, version, input);
        }
        FromPeer::Request { version, pieces } => happened(inner, state, version, Input::Asked(node, pieces)),
        FromPeer::Cancel { version, pieces } => happened(inner, state, version, Input::Unasked(node, pieces)),
        FromPeer::CloseEdge { version, as_child: true, .. } => {
            live::happened(inner, state, version, LiveInput::ChildClosed(node));
            happened(inner, state, version, Input::ChildClosed(node));
            if let Some(r) = state.running(version) {
                r.senders.remove(&node);
            }
        }
        FromPeer::CloseEdge { version, as_child: false, why } => {
            live::happened(inner, state, version, LiveInput::FeedClosed { node, why: why.clone() });
            happened(inner, state, version, Input::Lost { node, why });
        }
        FromPeer::PageRequest { version, page } => {
            let held = state.running(version).filter(|r| r.swarm.is_child(&node)).and_then(|r| r.store.page(page));
            if let Some(page) = held {
                state.tell_peer(&node, &FromPeer::Page { version, page: Page::clone(&page) });
            }
        }
        FromPeer::Page { version, page } => page_came(inner, state, version, page),
        FromPeer::BadPiece { version, piece } => recheck(inner, state, node, version, piece),
        FromPeer::Subscribe { .. }
        | FromPeer::LiveEntries { .. }
        | FromPeer::EntriesWanted { .. }
        | FromPeer::LiveRequest { .. }
        | FromPeer::LiveCancel { .. }
        | FromPeer::LivePosition { .. } => {}
    }
    Ok(())
}

fn may_open(
    inner: &Arc<Inner>,
    state: &mut State,
    node: NodeId,
    nonce: &[u8; 32],
    version: Version,
    ticket: &Ticket,
    proof: &[u8; 32],
) -> Result<(), (EdgeRefusal, String)> {
    if state.leaving {
        return Err((EdgeRefusal::Leaving, "this node is about to stop".into()));
    }
    if !state.limits.serves() {
        return Err((EdgeRefusal::Leaving, SERVES_NOBODY.into()));
    }
    let (own, control_ms) = (inner.listener.identity(), state.session.control_unix_ms(inner.now()));
    let keys = state.parent_keys.clone();
    if state.running(version).is_none() && state.live(version).is_none() {
        return Err((EdgeRefusal::NoSuchContent, "not here".into()));
    }
    let bad = |e: TicketError| (EdgeRefusal::BadTicket, e.to_string());
    if ticket.version != version {
        return Err((EdgeRefusal::BadTicket, "the ticket is for another content".into()));
    }
    let control_ms = control_ms.ok_or_else(|| bad(TicketError::OldKey))?;
    ticket.check(&keys, &node, &own.node, control_ms, proof, nonce, &own.certificate_hash).map_err(bad)
}

/// A child says that a piece from here was bad: looked at again, at most one at a time.
fn recheck(inner: &Arc<Inner>, state: &mut State, node: NodeId, version: Version, piece: u32) {
    let Some(r) = state.running(version).filter(|r| r.swarm.is_child(&node) && !r.rechecking) else { return };
    r.rechecking = true;
    let (inner, store) = (inner.clone(), r.store.clone());
    tokio::spawn(async move {
        let checked = store.recheck(piece).await;
        if let Some(r) = inner.lock().running(version) {
            r.rechecking = false;
        }
        match checked {
            Ok(true) => tracing::debug!(child = %format!("{node:.8}"), "says that piece {piece} is bad; it is not"),
            Ok(false) => {
                tracing::warn!("piece {piece} was wrong on disk: fetching it again");
                let mut state = inner.lock();
                if let Some(r) = state.running(version) {
                    r.bytes_held = r.bytes_held.saturating_sub(u64::from(r.track.layout.piece_len(piece)));
                }
                happened(&inner, &mut state, version, Input::Rotten(piece));
            }
            Err(e) => disk_failed(&inner, version, e),
        }
    });
}

/// A connection's hello came: it is the one in use. Returns one that it replaces, whose edges are lost.
pub(crate) fn linked(inner: &Arc<Inner>, node: NodeId, link: Link) -> Option<PeerConnection> {
    let mut state = inner.lock();
    let former = state.links.insert(node, link).map(|l| l.connection);
    state.dialling.remove(&node);
    if former.is_some() {
        end_sending(&mut state, &node);
        happened_to_all(inner, &mut state, || Input::Replaced(node));
    }
    happened_to_all(inner, &mut state, || Input::Connected(node));
    former
}

/// A connection ended.
pub(crate) fn unlinked(inner: &Arc<Inner>, node: NodeId, id: u64, why: &str) {
    let mut state = inner.lock();
    if state.kept.get(&node).is_some_and(|k| k.id == id) {
        state.kept.remove(&node);
    }
    state.dialling.remove(&node);
    if state.links.get(&node).is_some_and(|l| l.id == id) {
        state.links.remove(&node);
        if let Some(governor) = &inner.governor {
            governor.gone(&node);
        }
        end_sending(&mut state, &node);
        happened_to_all(inner, &mut state, || Input::Lost { node, why: why.to_owned() });
    }
}

/// Nothing more goes to a child whose connection is gone.
fn end_sending(state: &mut State, child: &NodeId) {
    for content in state.contents.values_mut() {
        if let Phase::Running(r) = &mut content.phase {
            r.senders.remove(child);
        }
    }
}
