//! The parent's side: what is pushed to children, and what they ask for.

use super::{Channel, LiveOutput, Next};
use crate::edges::{EdgeStage, EdgeView};
use headwater_model::assignment::{Child, ChildrenChange};
use headwater_model::id::NodeId;
use headwater_model::live::{SignedLiveEntry, Substreams};
use headwater_model::report::EdgeReport;
use headwater_model::time::{Micros, Time};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// Segments whose entries a newcomer gets: what players hold back, and one more.
const NEWCOMER_OBJECTS: usize = 4;
/// Requests of one child that wait.
const MAX_ASKED: usize = 1024;
/// Pieces that a child has from elsewhere before they are here, as far as they are remembered.
const MAX_UNWANTED: usize = 4096;
/// Entries in one message: all that a newcomer learns, so that it does not take a part for the whole.
const ENTRIES_AT_ONCE: usize = 64;
/// Entries that one question is answered with, and how often a child is answered: what it does not read waits in memory.
const MAX_ANSWERED: usize = 64;
const ANSWERED_EVERY: Micros = Micros::from_millis(200);
/// A child that takes nothing, as this node is a spare, hears how far the stream is.
const SPARE_POSITION: Micros = Micros::from_secs(1);
/// A child that is no longer assigned is served for so long: until its new parent does.
const HAND_OVER: Micros = Micros::from_secs(3);
/// What came about while the control center was away it confirms within this time.
const CONFIRMED_WITHIN: Micros = Micros::from_secs(15);

/// What waits to be sent to a child of one substream. Each has its own turns at the uplink, so that a child that takes many
/// gets them no later than one that takes few.
#[derive(Clone, Debug, Default)]
struct Outlet {
    /// Pieces that the child takes from here: others bring those before and after.
    takes: Range<u64>,
    /// To be pushed, in order.
    queue: BTreeSet<u64>,
    /// Asked for: goes first.
    asked: BTreeSet<u64>,
    /// Asked for, but it may wait until no child is to be pushed anything, and until it is here.
    patient: BTreeSet<u64>,
    /// One is on its way out: as long as the child does not take it others need not wait.
    is_sending: bool,
    /// The highest piece that was sent since the child subscribed.
    sent_to: Option<u64>,
}

impl Outlet {
    /// Whether nothing waits but what may.
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.asked.is_empty()
    }
    fn asks(&self) -> usize {
        self.asked.len() + self.patient.len()
    }
}

/// A child.
#[derive(Clone, Debug)]
pub(super) struct ChildLink {
    /// What its ticket names.
    may: Substreams,
    subscribed: Substreams,
    /// By substream.
    outlets: Vec<Outlet>,
    /// The child has these from elsewhere.
    unwanted: BTreeSet<u64>,
    /// When it was last told what it asked of entries.
    answered_at: Option<Time>,
    /// When it last heard of this node.
    told_at: Time,
    ends_by: Option<Time>,
    pieces: u64,
    bytes: u64,
    pub(super) rtt: Micros,
    /// Sent and lost.
    pub(super) packets: (u64, u64),
    busy_since: Option<Time>,
    waited: Micros,
}

impl ChildLink {
    pub(super) fn view(&self, node: NodeId) -> EdgeView {
        EdgeView {
            node,
            stage: EdgeStage::Open,
            spare: self.subscribed.is_empty(),
            bytes: self.bytes,
            waiting_pieces: self.waiting().count(),
            rtt: self.rtt,
        }
    }
    pub(super) fn takes(&self) -> Substreams {
        self.subscribed
    }
    /// Requests that may be added.
    fn room(&self) -> usize {
        MAX_ASKED.saturating_sub(self.outlets.iter().map(Outlet::asks).sum())
    }
    pub(super) fn waiting(&self) -> impl Iterator<Item = &u64> {
        self.outlets.iter().flat_map(|o| o.queue.iter().chain(&o.asked))
    }
    pub(super) fn forget_before(&mut self, piece: u64) {
        for outlet in &mut self.outlets {
            outlet.queue = outlet.queue.split_off(&piece);
            outlet.asked = outlet.asked.split_off(&piece);
            outlet.patient = outlet.patient.split_off(&piece);
        }
        self.unwanted = self.unwanted.split_off(&piece);
    }
    pub(super) fn report(&mut self, now: Time, node: NodeId) -> EdgeReport {
        if let Some(since) = self.busy_since {
            self.waited = Micros(self.waited.0 + now.since(since).0);
            self.busy_since = Some(now);
        }
        EdgeReport {
            node,
            pieces: self.pieces,
            bytes: self.bytes,
            waited: std::mem::take(&mut self.waited),
            rtt: self.rtt,
            sent_packets: self.packets.0,
            lost_packets: self.packets.1,
            offers_nothing: false,
            last_pieces: self.last_pieces(),
        }
    }
    /// The highest piece that was sent of each substream that the child takes from here.
    fn last_pieces(&self) -> Vec<(u8, u64)> {
        let taken = (0..).zip(&self.outlets).filter(|(substream, _)| self.subscribed.contains(*substream));
        taken.filter_map(|(substream, outlet)| Some((substream, outlet.sent_to?))).collect()
    }
}

impl Channel {
    /// The control center's list of children: who is not on it gets nothing for long.
    pub(super) fn children_assigned(&mut self, now: Time, children: &[Child]) {
        self.named = children.iter().map(|c| c.node).collect();
        for (node, link) in &mut self.children {
            link.ends_by = if self.named.contains(node) { None } else { Some(link.ends_by.unwrap_or(now + HAND_OVER)) };
        }
    }

    /// Some of them changed.
    pub(super) fn children_changed(&mut self, now: Time, change: ChildrenChange, out: &mut Vec<LiveOutput>) {
        if change.generation <= self.generation {
            return;
        }
        self.generation = change.generation;
        for node in change.left {
            self.named.remove(&node);
            if let Some(link) = self.children.get_mut(&node) {
                link.ends_by = Some(link.ends_by.unwrap_or(now + HAND_OVER));
            }
        }
        for child in change.came {
            self.named.insert(child.node);
            if let Some(link) = self.children.get_mut(&child.node) {
                link.ends_by = None;
            }
            if child.dial {
                out.push(LiveOutput::DialChild(child));
            }
        }
    }

    /// The session with the control center came or went: who is on no list because nobody could be told stays until it was.
    pub(super) fn children_stay(&mut self, now: Time) {
        for by in self.children.values_mut().filter_map(|c| c.ends_by.as_mut()) {
            *by = (*by).max(now + CONFIRMED_WITHIN);
        }
    }

    /// A child showed its ticket.
    pub(super) fn child_opened(&mut self, now: Time, child: NodeId, may: Substreams, out: &mut Vec<LiveOutput>) {
        if self.children.len() >= self.config.max_children && !self.children.contains_key(&child) {
            out.push(LiveOutput::CloseChild(child, "too many children"));
            return;
        }
        if let Some(link) = self.children.get_mut(&child) {
            // A further ticket: the former holds too.
            link.may = link.may.or(may);
            return;
        }
        let link = ChildLink {
            may,
            subscribed: Substreams::default(),
            outlets: vec![Outlet::default(); self.lanes.len()],
            unwanted: BTreeSet::new(),
            answered_at: None,
            told_at: now,
            ends_by: None,
            pieces: 0,
            bytes: 0,
            rtt: Micros(0),
            packets: (0, 0),
            busy_since: None,
            waited: Micros(0),
        };
        self.children.insert(child, link);
    }

    pub(super) fn subscribed(
        &mut self,
        now: Time,
        child: NodeId,
        substreams: Substreams,
        from: Option<u64>,
        out: &mut Vec<LiveOutput>,
    ) {
        let terms = self.terms();
        let Some(link) = self.children.get_mut(&child) else { return };
        if !substreams.without(link.may).is_empty() {
            self.children.remove(&child);
            out.push(LiveOutput::CloseChild(child, "it asked for substreams that its ticket does not name"));
            return;
        }
        let new = substreams.without(link.subscribed);
        if link.subscribed.is_empty() && !self.named.contains(&child) {
            // It has this node as a spare, has lost its parent, and gets another one soon; or its name is on its way.
            let by = now + HAND_OVER;
            link.ends_by = Some(link.ends_by.map_or(by, |before| before.max(by)));
        }
        link.subscribed = substreams;
        let start = match from {
            Some(from) => from,
            None => self.newcomer_begins(child, out),
        };
        let Some(link) = self.children.get_mut(&child) else { return };
        for (substream, outlet) in (0..).zip(&mut link.outlets) {
            if new.contains(substream) {
                outlet.takes = start..u64::MAX;
                // What it had before from here says nothing of how far it is now.
                outlet.sent_to = None;
            } else if !substreams.contains(substream) {
                // Whoever pushes it from now on begins there.
                outlet.takes.end = outlet.takes.end.min(from.unwrap_or(0));
                drop(outlet.queue.split_off(&outlet.takes.end));
            }
        }
        let held: Vec<u64> = self.held_from(start).filter(|p| new.contains(terms.substream_of(*p))).collect();
        if let Some(link) = self.children.get_mut(&child) {
            for piece in held {
                let substream = terms.substream_of(piece);
                let Some(outlet) = link.outlets.get_mut(usize::from(substream)) else { continue };
                if outlet.is_idle() {
                    link.busy_since.get_or_insert(now);
                    out.push(LiveOutput::Serve(child, substream));
                }
                outlet.queue.insert(piece);
            }
        }
        let lacks = self.lacks();
        self.tell_position(now, child, &lacks, out);
    }

    /// A newcomer learns of the last segments; it is pushed what comes from the newest on.
    fn newcomer_begins(&self, child: NodeId, out: &mut Vec<LiveOutput>) -> u64 {
        let newest: Vec<u64> = self.window.listed().rev().take(NEWCOMER_OBJECTS).map(|(n, ..)| n).collect();
        let Some(oldest) = newest.last() else { return 0 };
        let maps = newest.iter().filter_map(|n| self.window.objects().get(n)?.listed.as_ref()?.map);
        let maps: BTreeSet<u64> = maps.filter(|m| m < oldest).collect();
        let objects = self.window.objects().range(oldest..).map(|(n, _)| *n);
        self.tell_entries_of(child, maps.into_iter().chain(objects), out);
        newest.first().and_then(|n| self.window.pieces_of(*n).next()).unwrap_or(0)
    }

    fn tell_entries_of(&self, child: NodeId, objects: impl Iterator<Item = u64>, out: &mut Vec<LiveOutput>) {
        let numbers = objects.filter_map(|o| self.window.objects().get(&o)).flat_map(|o| o.numbers.iter());
        let numbers: BTreeSet<u64> = numbers.copied().collect();
        let entries = numbers.iter().filter_map(|n| Some(self.window.entries().get(n)?.signed.clone()));
        tell(child, entries.collect(), out);
    }

    /// Pieces that are here, from one on.
    fn held_from(&self, start: u64) -> impl Iterator<Item = u64> {
        let entries = self.window.entries().values().map(|k| &k.signed.entry).filter(move |e| e.end_piece() > start);
        entries.flat_map(move |e| e.first_piece.max(start)..e.end_piece()).filter(move |p| self.window.has(*p))
    }

    pub(super) fn entries_wanted(&mut self, now: Time, child: NodeId, after: u64, out: &mut Vec<LiveOutput>) {
        let Some(link) = self.children.get_mut(&child) else { return };
        if link.answered_at.is_some_and(|at| now.since(at) < ANSWERED_EVERY) {
            return;
        }
        link.answered_at = Some(now);
        tell(child, self.entries_after(after, MAX_ANSWERED).cloned().collect(), out);
    }

    /// Each entry reaches a child over two of its parents: those of two substreams that follow from its number.
    pub(super) fn tell_children(&self, signed: &Arc<SignedLiveEntry>, from: Option<NodeId>, out: &mut Vec<LiveOutput>) {
        let k = u64::from(self.terms().substreams.get());
        let number = signed.entry.number;
        let mut carriers = Substreams::one((number % k) as u8);
        carriers.insert(((number % k + 1) % k) as u8);
        let told =
            self.children.iter().filter(|(node, c)| Some(**node) != from && !c.subscribed.and(carriers).is_empty());
        out.extend(told.map(|(node, _)| LiveOutput::TellEntries(*node, vec![signed.clone()])));
    }

    /// A piece is here: it goes to all children that its substream is pushed to.
    pub(super) fn push(&mut self, piece: u64, out: &mut Vec<LiveOutput>) {
        let substream = self.terms().substream_of(piece);
        for (node, child) in &mut self.children {
            let Some(outlet) = child.outlets.get_mut(usize::from(substream)) else { continue };
            if outlet.takes.contains(&piece) && !child.unwanted.remove(&piece) {
                if outlet.is_idle() {
                    out.push(LiveOutput::Serve(*node, substream));
                }
                outlet.queue.insert(piece);
            } else if outlet.patient.contains(&piece) {
                out.push(LiveOutput::Serve(*node, substream));
            }
        }
    }

    pub(super) fn asked(&mut self, child: NodeId, pieces: &[u64], out: &mut Vec<LiveOutput>) {
        let terms = self.terms();
        let window = &self.window;
        let Some(link) = self.children.get_mut(&child) else { return };
        let mut room = link.room();
        for piece in pieces.iter().filter(|p| window.has(**p)) {
            let substream = terms.substream_of(*piece);
            let outlet = link.outlets.get_mut(usize::from(substream));
            let Some(outlet) = outlet.filter(|_| link.may.contains(substream) && room > 0) else { continue };
            if outlet.is_idle() {
                out.push(LiveOutput::Serve(child, substream));
            }
            room -= 1;
            link.unwanted.remove(piece);
            outlet.queue.remove(piece);
            outlet.patient.remove(piece);
            outlet.asked.insert(*piece);
        }
    }

    pub(super) fn asked_to_help(&mut self, child: NodeId, pieces: &[u64], out: &mut Vec<LiveOutput>) {
        let terms = self.terms();
        let future = self.window.end_piece().saturating_add(MAX_ASKED as u64);
        let known = self.window.first_piece()..future;
        let Some(link) = self.children.get_mut(&child) else { return };
        let mut room = link.room();
        for piece in pieces.iter().filter(|p| known.contains(p)) {
            let substream = terms.substream_of(*piece);
            let outlet = link.outlets.get_mut(usize::from(substream));
            let Some(outlet) = outlet.filter(|_| link.may.contains(substream) && room > 0) else { continue };
            room -= 1;
            outlet.patient.insert(*piece);
            if self.window.has(*piece) {
                out.push(LiveOutput::Serve(child, substream));
            }
        }
    }

    /// A child takes pieces from elsewhere: the uplink is for those that it lacks.
    pub(super) fn cancelled(&mut self, child: &NodeId, pieces: &[u64]) {
        let terms = self.terms();
        let Some(link) = self.children.get_mut(child) else { return };
        for piece in pieces {
            if let Some(outlet) = link.outlets.get_mut(usize::from(terms.substream_of(*piece))) {
                outlet.queue.remove(piece);
                outlet.asked.remove(piece);
                outlet.patient.remove(piece);
            }
            if !self.window.has(*piece) && link.unwanted.len() < MAX_UNWANTED {
                link.unwanted.insert(*piece);
            }
        }
    }

    /// The next piece of a substream for `child`, whose turn at the uplink it is.
    pub fn next_to_send(&mut self, now: Time, child: &NodeId, substream: u8) -> Next {
        if let Some(piece) = self.next_to_push(now, child, substream) {
            return Next::Piece(piece);
        }
        let others_wait = self.children.values().flat_map(|c| &c.outlets).any(|o| !o.is_idle() && !o.is_sending);
        let Some(link) = self.children.get_mut(child) else { return Next::Nothing };
        let Some(outlet) = link.outlets.get_mut(usize::from(substream)) else { return Next::Nothing };
        let Some(piece) = outlet.patient.iter().copied().find(|p| self.window.has(*p)) else { return Next::Nothing };
        if others_wait {
            return Next::AfterOthers;
        }
        outlet.patient.remove(&piece);
        outlet.is_sending = true;
        Next::Piece(piece)
    }

    fn next_to_push(&mut self, now: Time, child: &NodeId, substream: u8) -> Option<u64> {
        let link = self.children.get_mut(child)?;
        let outlet = link.outlets.get_mut(usize::from(substream))?;
        outlet.is_sending = false;
        let piece = loop {
            if let Some(asked) = outlet.asked.pop_first() {
                break Some(asked);
            }
            let Some(next) = outlet.queue.pop_first() else { break None };
            // What is late by so much is of no use to those who watch: they ask for it if it is.
            let known_at = self.window.entry_of(next).map(|k| k.at);
            if known_at.is_some_and(|at| now.since(at) < self.config.push_within) {
                break Some(next);
            }
        };
        outlet.is_sending = piece.is_some();
        match piece {
            Some(_) => drop(link.busy_since.get_or_insert(now)),
            None => {
                if let Some(since) = link.busy_since.take_if(|_| link.outlets.iter().all(Outlet::is_idle)) {
                    link.waited = Micros(link.waited.0 + now.since(since).0);
                }
            }
        }
        piece
    }

    /// A piece was handed to the transport.
    pub fn sent(&mut self, now: Time, child: &NodeId, piece: u64, bytes: u64) {
        self.uploaded_bytes += bytes;
        let substream = self.terms().substream_of(piece);
        if let Some(link) = self.children.get_mut(child) {
            link.pieces += 1;
            link.bytes += bytes;
            link.told_at = now;
            if let Some(outlet) = link.outlets.get_mut(usize::from(substream)) {
                outlet.is_sending = false;
                outlet.sent_to = outlet.sent_to.max(Some(piece));
            }
        }
    }

    /// By substream: the first piece that is missing here, of those that should come.
    fn lacks(&mut self) -> Vec<u64> {
        let (terms, begin, end) = (self.terms(), self.begin(), self.window.end_piece());
        let first = (0..).zip(self.window.first_missing(begin));
        first.map(|(substream, missing)| missing.unwrap_or_else(|| terms.next_of(substream, end))).collect()
    }

    /// Children that have heard nothing for a while learn that this node is alive, and where it is.
    pub(super) fn tell_positions(&mut self, now: Time, out: &mut Vec<LiveOutput>) {
        let is_due = |c: &ChildLink| {
            let every = if c.subscribed.is_empty() { SPARE_POSITION } else { self.config.position };
            now.since(c.told_at) >= every
        };
        let due: Vec<NodeId> = self.children.iter().filter(|(_, c)| is_due(c)).map(|(n, _)| *n).collect();
        if !due.is_empty() {
            let lacks = self.lacks();
            for child in due {
                self.tell_position(now, child, &lacks, out);
            }
        }
        let is_over = |c: &ChildLink| self.control && c.ends_by.is_some_and(|by| by <= now) && !c.subscribed.is_empty();
        let over: Vec<NodeId> = self.children.iter().filter(|(_, c)| is_over(c)).map(|(n, _)| *n).collect();
        for child in over {
            self.children.remove(&child);
            out.push(LiveOutput::CloseChild(child, "the control center gave it another parent"));
        }
    }

    fn tell_position(&mut self, now: Time, child: NodeId, lacks: &[u64], out: &mut Vec<LiveOutput>) {
        let newest = self.window.newest_entry().unwrap_or(0);
        if let Some(link) = self.children.get_mut(&child) {
            link.told_at = now;
            let of = link.subscribed.iter().filter_map(|s| Some((s, *lacks.get(usize::from(s))?)));
            out.push(LiveOutput::TellPosition(child, newest, of.collect()));
        }
    }
}

fn tell(child: NodeId, entries: Vec<Arc<SignedLiveEntry>>, out: &mut Vec<LiveOutput>) {
    out.extend(entries.chunks(ENTRIES_AT_ONCE).map(|some| LiveOutput::TellEntries(child, some.to_vec())));
}
