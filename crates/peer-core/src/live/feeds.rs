//! Who pushes what to this node: parents, spares, and which of them carries which substream; and who helps.

use super::{Channel, LiveConfig, LiveOutput};
use crate::edges::{EdgeStage, EdgeView};
use headwater_model::assignment::{Assignment, Parent};
use headwater_model::id::{Hash, NodeId};
use headwater_model::live::Substreams;
use headwater_model::report::{Alarm, EdgeReport};
use headwater_model::time::{Micros, Rate, Time};
use std::collections::BTreeMap;

/// A feed that failed, and that nobody replaces, is tried again after this time.
const TRY_AGAIN: Micros = Micros::from_secs(2);
/// A former parent pushes what was there when another took its place for so long at most.
const HAND_OVER: Micros = Micros::from_secs(4);
/// When all parents are silent at once it is this node's own line, for as long.
const ALL_SILENT: Micros = Micros::from_secs(2);
/// A substream lags when a piece of it has been known for so long and is not here.
const LAGS_AFTER: Micros = Micros::from_millis(300);
/// A parent is given so long before it is measured.
const SETTLES: Micros = Micros::from_millis(1500);
/// A parent that is not connected, or does not answer, within these times is lost.
const CONNECTS_WITHIN: Micros = Micros::from_secs(4);
const ANSWERS_WITHIN: Micros = Micros::from_millis(1500);
/// A helper is asked for so many pieces at once, however little it has left over: it has the next one when it sent one.
const HELP_MIN: usize = 2;
/// An assigned parent that is not open after this time has a spare in its place.
const SLOW_TO_OPEN: Micros = Micros::from_millis(800);

/// How far the edge to a feed is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Dialling(Time),
    Opening(Time),
    Open,
    Failed(Time),
}

/// A parent, a spare one, or a helper.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    entry: Parent,
    stage: Stage,
    /// Assigned to push these.
    gives: Substreams,
    /// A spare for these.
    may: Substreams,
    /// A helper for these.
    helps: Substreams,
    /// It was told to push these.
    pub(super) subscribed: Substreams,
    /// What the tickets name that it was shown.
    shown: Substreams,
    /// No longer assigned: it is done with by then.
    ends_by: Option<Time>,
    heard_at: Time,
    /// It has said nothing for a while: spares push in its place until it is heard again.
    suspected: bool,
    /// Pieces that it was asked for.
    pub(super) asked: BTreeMap<u64, Time>,
    pieces: u64,
    bytes: u64,
    rtt: Micros,
}

impl Feed {
    fn new(now: Time, entry: Parent) -> Self {
        Feed {
            entry,
            stage: Stage::Dialling(now),
            gives: Substreams::default(),
            may: Substreams::default(),
            helps: Substreams::default(),
            subscribed: Substreams::default(),
            shown: Substreams::default(),
            ends_by: None,
            heard_at: now,
            suspected: false,
            asked: BTreeMap::new(),
            pieces: 0,
            bytes: 0,
            rtt: Micros(0),
        }
    }
    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }
    /// Substreams of which pieces may be asked of it.
    pub(super) fn may_be_asked(&self) -> Substreams {
        if self.is_open() { self.gives.or(self.may).or(self.subscribed) } else { Substreams::default() }
    }
    /// Substreams of which it may be asked for what it need not send at once.
    pub(super) fn may_help(&self) -> Substreams {
        if self.is_open() { self.helps } else { Substreams::default() }
    }
    /// What it has for this node as a helper; 0 where that is not known.
    fn help(&self) -> Rate {
        if self.helps.is_empty() { Rate(0) } else { self.entry.promised }
    }
    /// How many pieces it may be asked for at once as a helper: what it soon brings, where that is known.
    pub(super) fn most_asked_to_help(&self, piece_bytes: u64, config: &LiveConfig) -> usize {
        let most = config.max_asked_of_helper;
        let help = self.help();
        if help.0 == 0 {
            return most;
        }
        let soon = help.bytes_in(config.helped_within) / piece_bytes.max(1);
        usize::try_from(soon).unwrap_or(most).clamp(HELP_MIN.min(most), most)
    }
    /// All that the control center names it for.
    fn named(&self) -> Substreams {
        self.gives.or(self.may).or(self.helps)
    }
    pub(super) fn heard(&mut self, now: Time) {
        self.heard_at = now;
        self.suspected = false;
    }
    /// Whether it can push.
    fn is_fit(&self) -> bool {
        self.is_open() && !self.suspected
    }
    pub(super) fn came(&mut self, piece: u64, bytes: u64, good: bool) {
        self.asked.remove(&piece);
        if good {
            self.pieces += 1;
            self.bytes += bytes;
        }
    }
    pub(super) fn view(&self, node: NodeId) -> EdgeView {
        let stage = match self.stage {
            Stage::Dialling(_) | Stage::Failed(_) => EdgeStage::Dialling,
            Stage::Opening(_) => EdgeStage::Opening,
            Stage::Open => EdgeStage::Open,
        };
        let (spare, waiting_pieces) = (self.subscribed.is_empty(), self.asked.len());
        EdgeView { node, stage, spare, bytes: self.bytes, waiting_pieces, rtt: self.rtt }
    }
    /// `last_pieces` are those of the substreams that it pushes.
    pub(super) fn report(&self, node: NodeId, last_pieces: Vec<(u8, u64)>) -> EdgeReport {
        EdgeReport {
            node,
            pieces: self.pieces,
            bytes: self.bytes,
            waited: Micros(0),
            rtt: self.rtt,
            sent_packets: 0,
            lost_packets: 0,
            offers_nothing: false,
            last_pieces,
        }
    }
}

/// A substream.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    /// Who pushes it: the assigned parent, or a spare in its place.
    pub(super) parent: Option<NodeId>,
    /// Since when, or since when nobody does.
    pub(super) since: Time,
    /// The first piece that is expected of it. Those before come from the former one, as long as there is one: so no piece
    /// is sent twice, and nobody takes on what has piled up elsewhere.
    pub(super) from: u64,
    pub(super) former: Option<NodeId>,
    /// Whether it was heard.
    spoke: bool,
    /// The first piece that its parent lacks, as that says.
    parent_lacks: Option<u64>,
    /// The highest piece that its parent pushed.
    pub(super) pushed_to: u64,
    /// When it last pushed one.
    pub(super) pushed_at: Option<Time>,
    /// Since when it lags, and what came since.
    lags: Option<(Time, u64)>,
    /// When a parent was last heard that was then lost, until another one is.
    pub(super) lost_at: Option<Time>,
}

impl Lane {
    pub(super) fn new(now: Time) -> Self {
        Lane {
            parent: None,
            since: now,
            from: 0,
            former: None,
            spoke: false,
            parent_lacks: None,
            pushed_to: 0,
            pushed_at: None,
            lags: None,
            lost_at: None,
        }
    }
    /// Another parent, or none; what is remembered of the time before stays.
    fn hand_to(&mut self, now: Time, parent: Option<NodeId>, former: Option<NodeId>, from: u64) {
        *self = Lane { parent, former, from, lost_at: self.lost_at, ..Lane::new(now) };
    }
    /// The highest piece that `parent` pushed, if it is its parent and has pushed one.
    pub(super) fn last_piece_of(&self, parent: &NodeId) -> Option<u64> {
        let pushes = self.parent.as_ref() == Some(parent) && self.pushed_at.is_some();
        pushes.then_some(self.pushed_to)
    }
    /// Whether its parents will not bring a piece any more.
    pub(super) fn passed_over(&self, piece: u64) -> bool {
        match piece < self.from {
            true => self.former.is_none(),
            // What it does not have itself may still come to it.
            false => self.pushed_to > piece && self.parent_lacks.is_some_and(|lacks| lacks > piece),
        }
    }
    /// No piece from this one on is passed over.
    pub(super) fn passed_over_to(&self) -> u64 {
        let by_former = if self.former.is_none() { self.from } else { 0 };
        by_former.max(self.parent_lacks.map_or(0, |lacks| lacks.min(self.pushed_to)))
    }
    /// A piece came; how long after the loss of its parent, if it is the first since.
    pub(super) fn came(&mut self, now: Time, from: Option<NodeId>, piece: u64, bytes: u64) -> Option<Micros> {
        let is_parent = from.is_some() && from == self.parent;
        if is_parent {
            self.spoke = true;
            self.pushed_to = self.pushed_to.max(piece);
            self.pushed_at = Some(now);
            if let Some((_, came)) = &mut self.lags {
                *came += bytes;
            }
        }
        self.lost_at.take_if(|_| is_parent).map(|at| now.since(at))
    }
}

impl Channel {
    /// Substreams to be asked for, as the control center names helpers for them and nobody to push them.
    pub(super) fn left_to_helpers(&self) -> Substreams {
        let of =
            |which: fn(&Feed) -> Substreams| self.feeds.values().fold(Substreams::default(), |all, f| all.or(which(f)));
        of(|f| f.helps).without(of(|f| f.gives.or(f.may)))
    }

    /// What all helpers have for this node, those that are being dialled too.
    pub(super) fn help(&self) -> Rate {
        let may_come = |f: &&Feed| !matches!(f.stage, Stage::Failed(_));
        Rate(self.feeds.values().filter(may_come).fold(0, |all, f| all.saturating_add(f.help().0)))
    }

    pub(super) fn assigned(&mut self, now: Time, assignment: Assignment, out: &mut Vec<LiveOutput>) {
        if assignment.generation <= self.generation {
            return;
        }
        self.generation = assignment.generation;
        if self.is_source != assignment.source {
            self.is_source = assignment.source;
            out.push(LiveOutput::Source(self.is_source));
        }
        for (node, feed) in &mut self.feeds {
            let is_named = assignment.senders().any(|p| p.node == *node);
            (feed.gives, feed.may, feed.helps) = Default::default();
            feed.ends_by = if is_named { None } else { Some(feed.ends_by.unwrap_or(now + HAND_OVER)) };
        }
        for parent in assignment.parents {
            self.name_feed(now, parent, |f| &mut f.gives, out);
        }
        for spare in assignment.spares {
            self.name_feed(now, spare, |f| &mut f.may, out);
        }
        // Last: what a node promises that has several roles is what it promises as a helper.
        for helper in assignment.helpers {
            self.name_feed(now, helper, |f| &mut f.helps, out);
        }
        self.show_tickets(out);
        self.children_assigned(now, &assignment.children);
        out.extend(assignment.children.into_iter().filter(|c| c.dial).map(LiveOutput::DialChild));
        self.open_lanes(now, out);
    }

    fn name_feed(
        &mut self,
        now: Time,
        parent: Parent,
        role: impl Fn(&mut Feed) -> &mut Substreams,
        out: &mut Vec<LiveOutput>,
    ) {
        let node = parent.node;
        let substreams = parent.substreams;
        let feed = self.feeds.entry(node).or_insert_with(|| {
            out.push(LiveOutput::Dial(parent.clone()));
            Feed::new(now, parent.clone())
        });
        let is_new_reach = feed.entry.reach != parent.reach;
        let (old, new) = (feed.entry.reach.certificate, parent.reach.certificate);
        feed.entry = parent;
        let of_role = role(feed);
        *of_role = of_role.or(substreams);
        let spare = feed.gives.is_empty();
        let failed = matches!(feed.stage, Stage::Failed(_));
        // Each process makes a certificate anew: an edge to the former one is dead, whatever it looks like.
        let is_new_process = old != new && old != Hash::default() && new != Hash::default();
        if is_new_process || (failed && (!spare || is_new_reach)) {
            // Where it failed the control center knows, and names it all the same.
            out.push(LiveOutput::Dial(feed.entry.clone()));
            self.drop_feed(now, &node, Stage::Dialling(now));
        }
    }

    /// Parents that may be asked for more than before see the ticket for it first.
    fn show_tickets(&mut self, out: &mut Vec<LiveOutput>) {
        for (node, feed) in &mut self.feeds {
            let named = feed.named();
            let knows_us = matches!(feed.stage, Stage::Open | Stage::Opening(_));
            if knows_us && !named.without(feed.shown).is_empty() {
                feed.shown = feed.shown.or(named);
                out.push(LiveOutput::OpenEdge(*node));
            }
        }
    }

    pub(super) fn connected(&mut self, now: Time, node: NodeId, out: &mut Vec<LiveOutput>) {
        let Some(feed) = self.feeds.get_mut(&node) else { return };
        if matches!(feed.stage, Stage::Dialling(_) | Stage::Failed(_)) && feed.ends_by.is_none() {
            feed.stage = Stage::Opening(now);
            feed.heard(now);
            feed.shown = feed.named();
            out.push(LiveOutput::OpenEdge(node));
        }
    }

    pub(super) fn answered(&mut self, now: Time, parent: NodeId, refused: Option<String>, out: &mut Vec<LiveOutput>) {
        let Some(feed) = self.feeds.get_mut(&parent) else { return };
        match refused {
            None if !matches!(feed.stage, Stage::Opening(_)) => {}
            None => {
                feed.stage = Stage::Open;
                feed.heard(now);
                self.open_lanes(now, out);
            }
            Some(why) => {
                let why = format!("it refused: {why}");
                self.lost_feed(now, parent, why, out);
            }
        }
    }

    /// The edges over the former connection are gone; [`super::LiveInput::Connected`] follows.
    pub(super) fn replaced(&mut self, now: Time, node: &NodeId) {
        self.children.remove(node);
        self.drop_feed(now, node, Stage::Dialling(now));
    }

    pub(super) fn lost(&mut self, now: Time, node: NodeId, why: String, out: &mut Vec<LiveOutput>) {
        self.children.remove(&node);
        self.lost_feed(now, node, why, out);
    }

    pub(super) fn lost_feed(&mut self, now: Time, node: NodeId, why: String, out: &mut Vec<LiveOutput>) {
        let Some(feed) = self.feeds.get(&node) else { return };
        if matches!(feed.stage, Stage::Failed(_)) {
            return;
        }
        if feed.gives.or(feed.subscribed).is_empty() || feed.ends_by.is_some() {
            self.drop_feed(now, &node, Stage::Failed(now));
            self.open_lanes(now, out);
        } else {
            self.leave(now, node, Alarm::ParentLost { parent: node, why }, out);
        }
    }

    /// Nothing more is expected of a feed: its substreams are anybody's.
    fn drop_feed(&mut self, now: Time, node: &NodeId, stage: Stage) {
        let Some(feed) = self.feeds.get_mut(node) else { return };
        feed.stage = stage;
        feed.subscribed = Substreams::default();
        let heard_at = feed.heard_at;
        for piece in std::mem::take(&mut feed.asked).into_keys() {
            if let Some(m) = self.window.missing_mut().get_mut(&piece) {
                m.asked = None;
            }
        }
        for lane in &mut self.lanes {
            if lane.former == Some(*node) {
                lane.former = None;
            }
            if lane.parent == Some(*node) {
                lane.hand_to(now, None, lane.former, lane.from);
                lane.lost_at = lane.lost_at.or(Some(heard_at));
            }
        }
    }

    /// A parent is left for good, with the reason; spares take its place at once.
    pub(super) fn leave(&mut self, now: Time, node: NodeId, alarm: Alarm, out: &mut Vec<LiveOutput>) {
        self.drop_feed(now, &node, Stage::Failed(now));
        out.push(LiveOutput::CloseEdge(node));
        out.push(LiveOutput::Alarm(alarm));
        self.open_lanes(now, out);
    }

    pub(super) fn measured(&mut self, node: &NodeId, rtt: Micros) {
        if let Some(feed) = self.feeds.get_mut(node) {
            feed.rtt = rtt;
        }
        if let Some(child) = self.children.get_mut(node) {
            child.rtt = rtt;
        }
    }

    pub(super) fn position(&mut self, now: Time, node: NodeId, newest: u64, lacks: &[(u8, u64)]) {
        let Some(feed) = self.feeds.get_mut(&node) else { return };
        feed.heard(now);
        self.window.heard_of(now, newest);
        for (substream, piece) in lacks {
            if let Some(lane) = self.lanes.get_mut(usize::from(*substream)).filter(|l| l.parent == Some(node)) {
                lane.spoke = true;
                lane.parent_lacks = Some(*piece);
            }
        }
        self.count_fed_again(now, lacks);
    }

    /// Substreams that lost a parent are fed again by one that has nothing that is missing here.
    fn count_fed_again(&mut self, now: Time, lacks: &[(u8, u64)]) {
        let terms = self.terms();
        for (substream, lacks) in lacks {
            let Some(lane) = self.lanes.get_mut(usize::from(*substream)).filter(|l| l.spoke) else { continue };
            let Some(lost_at) = lane.lost_at else { continue };
            let mut missing = self.window.missing().range(self.begin.unwrap_or(0)..).map(|(p, _)| *p);
            if missing.find(|p| terms.substream_of(*p) == *substream).is_none_or(|first| first >= *lacks) {
                lane.lost_at = None;
                self.fed_again.add(now.since(lost_at));
            }
        }
    }

    /// Gives each substream the best feed that there is for it.
    pub(super) fn open_lanes(&mut self, now: Time, out: &mut Vec<LiveOutput>) {
        if self.is_source || self.paused {
            return;
        }
        let end = self.window.newest_entry().map(|_| self.window.end_piece());
        let mut orphaned: BTreeMap<NodeId, Substreams> = BTreeMap::new();
        let mut handed: BTreeMap<NodeId, Substreams> = BTreeMap::new();
        let mut dismissed: BTreeMap<NodeId, Substreams> = BTreeMap::new();
        let mut deserted: BTreeMap<NodeId, Substreams> = BTreeMap::new();
        let to_helpers = self.left_to_helpers();
        for substream in to_helpers.iter() {
            if let Some(lane) = self.lanes.get_mut(usize::from(substream))
                && let Some(parent) = lane.parent
            {
                lane.hand_to(now, None, Some(parent), end.unwrap_or(0));
                lane.lost_at = None;
                dismissed.entry(parent).or_default().insert(substream);
            }
        }
        for substream in self.terms().all().without(to_helpers).iter() {
            let Some(best) = self.best_feed(now, substream) else { continue };
            let Some(lane) = self.lanes.get_mut(usize::from(substream)) else { continue };
            match lane.parent {
                Some(parent) if parent == best => {}
                Some(parent) if let Some(feed) = self.feeds.get(&parent).filter(|f| f.suspected) => {
                    lane.lost_at = lane.lost_at.or(Some(feed.heard_at));
                    lane.hand_to(now, Some(best), lane.former, lane.from);
                    orphaned.entry(best).or_default().insert(substream);
                    deserted.entry(parent).or_default().insert(substream);
                }
                Some(parent) => {
                    lane.hand_to(now, Some(best), Some(parent), end.unwrap_or(0));
                    handed.entry(best).or_default().insert(substream);
                    dismissed.entry(parent).or_default().insert(substream);
                }
                None => {
                    lane.hand_to(now, Some(best), lane.former, lane.from);
                    orphaned.entry(best).or_default().insert(substream);
                }
            }
        }
        for (node, added) in orphaned {
            let from = end.map(|_| self.push_from(added));
            self.subscribe(now, node, added, from, out);
        }
        for (node, added) in handed {
            self.subscribe(now, node, added, end, out);
        }
        let dismissed = dismissed.into_iter().map(|(node, substreams)| (node, substreams, end));
        // What is on its way from there is of use; nothing else is.
        for (node, substreams, until) in dismissed.chain(deserted.into_iter().map(|(n, s)| (n, s, Some(0)))) {
            let Some(feed) = self.feeds.get_mut(&node).filter(|f| f.is_open()) else { continue };
            feed.subscribed = feed.subscribed.without(substreams);
            out.push(LiveOutput::Subscribe(node, feed.subscribed, until));
        }
        self.dismiss_former(now);
        self.end_feeds(now, out);
    }

    fn subscribe(&mut self, now: Time, node: NodeId, added: Substreams, from: Option<u64>, out: &mut Vec<LiveOutput>) {
        for substream in added.iter() {
            if let Some(lane) = self.lanes.get_mut(usize::from(substream)) {
                lane.from = from.unwrap_or(0);
            }
        }
        if let Some(feed) = self.feeds.get_mut(&node) {
            feed.subscribed = feed.subscribed.or(added);
            feed.heard_at = now;
            out.push(LiveOutput::Subscribe(node, feed.subscribed, from));
        }
    }

    /// Where parents of these substreams begin that take the place of lost ones: at the first piece that is missing of
    /// them, and that no former parent still brings.
    fn push_from(&mut self, substreams: Substreams) -> u64 {
        let (terms, begin) = (self.terms(), self.begin());
        let comes = |piece: u64, substream: u8| {
            self.lanes.get(usize::from(substream)).is_some_and(|l| piece < l.from && l.former.is_some())
        };
        let mut missing = self.window.missing().range(begin..).map(|(p, _)| (*p, terms.substream_of(*p)));
        let first = missing.find(|(p, s)| substreams.contains(*s) && !comes(*p, *s));
        first.map_or(self.window.end_piece(), |(piece, _)| piece)
    }

    /// The piece from which on everything is pushed: what lies before it a newcomer asks for. It is the first piece of the
    /// object that was the newest listed one when the first entries came.
    pub(super) fn begin(&mut self) -> u64 {
        if let Some(begin) = self.begin {
            return begin;
        }
        let newest = self.window.listed().next_back().map(|(n, ..)| n);
        self.begin = newest.and_then(|object| self.window.pieces_of(object).next());
        self.begin.unwrap_or(0)
    }

    /// The assigned parent if it is open, else a spare that is, if the parent failed, is slow to open or says nothing.
    fn best_feed(&self, now: Time, substream: u8) -> Option<NodeId> {
        let lane = self.lanes.get(usize::from(substream))?;
        let assigned = self.feeds.iter().find(|(_, f)| f.gives.contains(substream));
        if let Some((node, _)) = assigned.filter(|(_, f)| f.is_fit()) {
            return Some(*node);
        }
        let current = lane.parent.filter(|p| self.feeds.get(p).is_some_and(Feed::is_fit));
        let waits = assigned.is_some_and(|(_, f)| match f.stage {
            Stage::Dialling(since) | Stage::Opening(since) => now.since(since) < SLOW_TO_OPEN,
            Stage::Open | Stage::Failed(_) => false,
        });
        if current.is_some() || waits {
            return current;
        }
        let spare = self.feeds.iter().find(|(_, f)| f.is_fit() && f.may.contains(substream)).map(|(n, _)| *n);
        spare.or(lane.parent)
    }

    /// Nothing more is expected of former parents that have brought all, or had their time.
    fn dismiss_former(&mut self, now: Time) {
        if self.lanes.iter().all(|l| l.former.is_none()) {
            return;
        }
        let first_missing = self.window.first_missing(self.begin.unwrap_or(0));
        for (lane, first) in self.lanes.iter_mut().zip(first_missing) {
            let owes = first.is_some_and(|piece| piece < lane.from);
            if !owes || now.since(lane.since) >= HAND_OVER {
                lane.former = None;
            }
        }
    }

    /// Closes edges that are no longer assigned and carry nothing, or have carried it long enough.
    fn end_feeds(&mut self, now: Time, out: &mut Vec<LiveOutput>) {
        let owes = |n: &NodeId| self.lanes.iter().any(|l| l.former == Some(*n));
        let idle = |n: &NodeId, f: &Feed| f.subscribed.is_empty() && f.asked.is_empty() && !owes(n);
        let is_over = |n: &NodeId, f: &Feed| f.ends_by.is_some_and(|by| by <= now || idle(n, f));
        let over: Vec<NodeId> = self.feeds.iter().filter(|(n, f)| is_over(n, f)).map(|(n, _)| *n).collect();
        for node in over {
            self.drop_feed(now, &node, Stage::Failed(now));
            if let Some(Feed { stage: Stage::Failed(_), .. }) = self.feeds.remove(&node) {
                out.push(LiveOutput::CloseEdge(node));
            }
        }
    }

    /// Parents that are silent or behind; feeds that are to be tried again.
    pub(super) fn watch(&mut self, now: Time, out: &mut Vec<LiveOutput>) {
        let pushing = || self.feeds.iter().filter(|(_, f)| f.is_open() && (f.suspected || !f.subscribed.is_empty()));
        let silent_for = |f: &Feed| now.since(f.heard_at);
        let quiet_for =
            |least| pushing().filter(|(_, f)| silent_for(f) >= least).map(|(n, _)| *n).collect::<Vec<NodeId>>();
        let (suspected, silent) = (quiet_for(self.config.suspected), quiet_for(self.config.silent));
        let all = pushing().count();
        let least = pushing().map(|(_, f)| silent_for(f)).min().unwrap_or_default();
        if suspected.len() < all || all == 1 {
            for node in suspected {
                self.feeds.get_mut(&node).into_iter().for_each(|f| f.suspected = true);
            }
        }
        if silent.len() < all || all == 1 || least >= ALL_SILENT {
            for node in silent {
                self.leave(now, node, Alarm::Silent { parent: node }, out);
            }
        }
        let never_opened = |f: &Feed| match f.stage {
            Stage::Dialling(since) if now.since(since) >= CONNECTS_WITHIN => Some("it was not connected in time"),
            Stage::Opening(since) if now.since(since) >= ANSWERS_WITHIN => Some("it does not answer"),
            _ => None,
        };
        let lost: Vec<(NodeId, &str)> = self.feeds.iter().filter_map(|(n, f)| Some((*n, never_opened(f)?))).collect();
        for (node, why) in lost {
            self.lost_feed(now, node, why.to_owned(), out);
        }
        for (node, substreams) in self.behind(now) {
            for substream in substreams.iter() {
                if let Some(lane) = self.lanes.get_mut(usize::from(substream)) {
                    lane.lags = None;
                    lane.since = now;
                }
            }
            out.push(LiveOutput::Alarm(Alarm::Behind { parent: node, substreams }));
        }
        self.try_again(now, out);
    }

    /// Parents that have what they should push, and push too little of it.
    fn behind(&mut self, now: Time) -> BTreeMap<NodeId, Substreams> {
        let (terms, begin) = (self.terms(), self.begin());
        let mut oldest: Vec<Option<u64>> = vec![None; self.lanes.len()];
        // What no parent has yet none can push.
        let end = self.lanes.iter().filter_map(|l| l.parent_lacks).max().unwrap_or(begin).max(begin);
        for (piece, m) in self.window.missing().range(begin..end) {
            if now.since(m.known_at) < LAGS_AFTER || m.at_origin || m.passed_over.is_some() {
                // What it passed over it will not push any more, however fast it is.
                continue;
            }
            let substream = usize::from(terms.substream_of(*piece));
            let (Some(lane), Some(oldest)) = (self.lanes.get(substream), oldest.get_mut(substream)) else { continue };
            // Nor what a former one owes.
            if *piece >= lane.from {
                oldest.get_or_insert(*piece);
            }
        }
        let least = Rate(terms.substream_rate().0 * self.config.behind_percent / 100);
        let mut behind: BTreeMap<NodeId, Substreams> = BTreeMap::new();
        for ((substream, lane), waits_for) in (0..).zip(&mut self.lanes).zip(oldest) {
            let parent_has_it = waits_for.zip(lane.parent_lacks).is_some_and(|(piece, lacks)| lacks > piece);
            let Some(parent) = lane.parent.filter(|_| parent_has_it && now.since(lane.since) >= SETTLES) else {
                lane.lags = None;
                continue;
            };
            let (since, came) = *lane.lags.get_or_insert((now, 0));
            let span = now.since(since);
            if span >= self.config.behind {
                lane.lags = None;
                if Rate::of(came, span) < least {
                    behind.entry(parent).or_default().insert(substream);
                }
            }
        }
        behind
    }

    /// Where nobody else is left, what failed is tried again.
    fn try_again(&mut self, now: Time, out: &mut Vec<LiveOutput>) {
        if self.lanes.iter().all(|l| l.parent.is_some()) {
            return;
        }
        for feed in self.feeds.values_mut().filter(|f| f.ends_by.is_none()) {
            if let Stage::Failed(at) = feed.stage
                && now.since(at) >= TRY_AGAIN
            {
                feed.stage = Stage::Dialling(now);
                out.push(LiveOutput::Dial(feed.entry.clone()));
            }
        }
    }
}
