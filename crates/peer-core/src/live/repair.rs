//! Pieces that did not come by themselves: asked of spares and parents while there is time, fetched from the origin when
//! a player would else wait, given up when nobody needs them any more. And those that nobody pushes: helpers have until then.

use super::feeds::Feed;
use super::window::Missing;
use super::{Channel, LiveOutput};
use headwater_model::id::NodeId;
use headwater_model::live::Substreams;
use headwater_model::time::{Micros, Time};
use std::collections::{BTreeMap, BTreeSet};

/// A piece that a parent passed over may still come for so long.
const MAY_COME: Micros = Micros::from_millis(1000);
/// Nobody pushes a substream for so long: its pieces are asked for.
const UNFED: Micros = Micros::from_millis(400);
/// A parent that pushed something so lately is at it.
const FLOWS: Micros = Micros::from_millis(600);
/// Pieces looked at in one go.
const MAX_LOOKED_AT: usize = 4096;

/// Substreams, by what others can do about them.
struct Others {
    /// Parents or spares can be asked.
    asked: Substreams,
    /// Helpers can.
    help: Substreams,
    /// Nobody is to push them.
    pulled: Substreams,
}

/// What is to be done about a piece.
enum Need {
    Nothing,
    Ask,
    AskHelper,
    Origin,
    GiveUp,
}

impl Channel {
    /// Looks through all that is missing.
    pub(super) fn mend(&mut self, now: Time, out: &mut Vec<LiveOutput>) {
        if self.is_source || self.paused {
            return;
        }
        self.pass_over(now);
        let begin = self.begin();
        let due = self.due(now);
        let others = Others {
            asked: self.feeds.values().fold(Substreams::default(), |all, f| all.or(f.may_be_asked())),
            help: self.feeds.values().fold(Substreams::default(), |all, f| all.or(f.may_help())),
            pulled: self.left_to_helpers(),
        };
        let mut asks_of_helpers: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
        let mut asks: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
        let mut not_asked: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
        let mut from_origin: Vec<u64> = Vec::new();
        let mut given_up: Vec<u64> = Vec::new();
        // What lies before a newcomer's beginning is nobody's business but a player's.
        let concerns = |(p, m): &(&u64, &Missing)| **p >= begin || due.contains_key(&m.object);
        let missing = self.window.missing().iter().filter(concerns);
        let pieces: Vec<u64> = missing.map(|(p, _)| *p).take(MAX_LOOKED_AT).collect();
        let mut before: BTreeMap<u8, u64> = BTreeMap::new();
        for piece in pieces {
            let of_lane = before.entry(self.terms().substream_of(piece)).or_default();
            *of_lane += u64::from(piece >= begin);
            let comes_in = self.piece_time().times(*of_lane);
            match self.need(now, piece, begin, &due, (comes_in, &others)) {
                Need::Nothing => {}
                Need::AskHelper => {
                    if let Some((node, former)) = self.ask_helper(now, piece) {
                        asks_of_helpers.entry(node).or_default().push(piece);
                        former.into_iter().for_each(|other| not_asked.entry(other).or_default().push(piece));
                    }
                }
                Need::Ask => {
                    if let Some((node, others)) = self.ask(now, piece) {
                        asks.entry(node).or_default().push(piece);
                        others.into_iter().for_each(|other| not_asked.entry(other).or_default().push(piece));
                    }
                }
                Need::Origin => from_origin.push(piece),
                Need::GiveUp => given_up.push(piece),
            }
        }
        out.extend(not_asked.into_iter().map(|(node, pieces)| LiveOutput::Cancel(node, pieces)));
        out.extend(asks.into_iter().map(|(node, pieces)| LiveOutput::Ask(node, pieces)));
        out.extend(asks_of_helpers.into_iter().map(|(node, pieces)| LiveOutput::AskHelper(node, pieces)));
        if !given_up.is_empty() {
            given_up.into_iter().for_each(|p| self.window.give_up(p));
            out.push(LiveOutput::Changed);
        }
        self.fetch(&from_origin, out);
        if let Some(after) = self.window.entries_to_ask(now)
            && let Some(node) = self.anyone(now)
        {
            out.push(LiveOutput::AskEntries(node, after));
        }
    }

    /// How long a parent takes for a piece of a substream.
    fn piece_time(&self) -> Micros {
        self.terms().substream_rate().time_for(u64::from(self.track().piece_bytes))
    }

    /// `comes_in` is how long its parent needs for it and what comes before it.
    fn need(
        &self,
        now: Time,
        piece: u64,
        begin: u64,
        due: &BTreeMap<u64, Time>,
        (comes_in, others): (Micros, &Others),
    ) -> Need {
        let Some(m) = self.window.missing().get(&piece) else { return Need::Nothing };
        let c = &self.config;
        let player = due.get(&m.object).copied();
        if piece < begin && player.is_none() {
            return Need::Nothing;
        }
        let by = player.unwrap_or(m.known_at + c.in_time);
        if now >= by + c.give_up && now.since(m.known_at) >= c.in_time {
            return Need::GiveUp;
        }
        if m.at_origin {
            return Need::Nothing;
        }
        let substream = self.terms().substream_of(piece);
        let lane = self.lanes.get(usize::from(substream));
        let fed = lane.is_some_and(|l| l.parent.is_some() || now.since(l.since) < UNFED);
        // Nobody pushes it, and helpers may bring it.
        let is_pulled = others.help.contains(substream) && (piece < begin || others.pulled.contains(substream));
        let somebody = is_pulled || others.asked.contains(substream);
        let left = Micros(by.0.saturating_sub(now.0));
        let comes = fed && piece >= begin && m.passed_over.is_none_or(|at| now.since(at) < MAY_COME);
        let flows = lane.and_then(|l| l.pushed_at).is_some_and(|at| now.since(at) < FLOWS);
        let in_time = comes && flows && comes_in < left;
        // Where nobody could bring it, waiting helps nobody.
        let waits_in_vain = !fed && !somebody;
        let origin_helps = player.is_some() && self.has_origin(m.object);
        // Whole segments from before this node came would take uplinks that are for what others need now. What is pulled
        // comes from the origin in many requests, over a line whose uplink may be full.
        let ahead = match (is_pulled, piece < begin) {
            (true, false) => c.origin_ahead_of_helpers,
            (false, false) => c.origin_ahead,
            (_, true) => c.ask_ahead,
        };
        if origin_helps && !in_time && (left <= ahead || waits_in_vain) && self.jobs.len() < c.max_origin_jobs {
            return Need::Origin;
        }
        // What has no other source, as initialisation sections, parents are asked for when helpers had their time.
        if is_pulled && (left > ahead || !others.asked.contains(substream)) {
            let asked = m.asked.is_some_and(|(_, at)| now.since(at) < c.ask_helper_again);
            return if asked { Need::Nothing } else { Need::AskHelper };
        }
        // So would asking others for what is only late.
        if in_time || (origin_helps && (comes || piece < begin)) || (comes && left > c.ask_ahead) {
            return Need::Nothing;
        }
        if m.asked.is_some_and(|(_, at)| now.since(at) < c.ask_again) { Need::Nothing } else { Need::Ask }
    }

    fn has_origin(&self, object: u64) -> bool {
        let listed = self.window.objects().get(&object).and_then(|o| o.listed.as_ref());
        listed.is_some_and(|l| l.origin.is_some())
    }

    /// Pieces before one that its parent pushed later were passed over: it does not have them, or lost them on the way.
    fn pass_over(&mut self, now: Time) {
        let terms = self.terms();
        for (piece, m) in self.window.missing_mut() {
            let lane = self.lanes.get(usize::from(terms.substream_of(*piece)));
            if m.passed_over.is_none() && lane.is_some_and(|l| l.passed_over(*piece)) {
                m.passed_over = Some(now);
            }
        }
    }

    /// Whom to ask for a piece: those who have its substream, one after the other, the one that passed it over last; and
    /// who else might send it.
    fn ask(&mut self, now: Time, piece: u64) -> Option<(NodeId, BTreeSet<NodeId>)> {
        let substream = self.terms().substream_of(piece);
        let parent = self.lanes.get(usize::from(substream)).and_then(|l| l.parent);
        let m = self.window.missing().get(&piece)?;
        let (asks, last) = (m.asks as usize, m.asked.map(|(n, _)| n));
        let could = self
            .feeds
            .iter()
            .filter(|(_, f)| f.may_be_asked().contains(substream) && f.asked.len() < self.config.max_asked);
        let mut could: Vec<NodeId> = could.map(|(n, _)| *n).collect();
        could.sort_by_key(|n| Some(*n) == parent);
        let node = *could.get(asks % could.len().max(1))?;
        if let Some(feed) = last.and_then(|l| self.feeds.get_mut(&l)) {
            feed.asked.remove(&piece);
        }
        self.feeds.get_mut(&node)?.asked.insert(piece, now);
        let mut others = self.senders(piece);
        others.remove(&node);
        let m = self.window.missing_mut().get_mut(&piece)?;
        m.asked = Some((node, now));
        m.asks += 1;
        Some((node, others))
    }

    /// Which helper to ask for a piece: who has been asked for least, another one than before if there is one; and
    /// whom it was asked of before.
    fn ask_helper(&mut self, now: Time, piece: u64) -> Option<(NodeId, Option<NodeId>)> {
        let substream = self.terms().substream_of(piece);
        let last = self.window.missing().get(&piece)?.asked.map(|(node, _)| node);
        let most = self.config.max_asked_of_helper;
        let could = self.feeds.iter().filter(|(_, f)| f.may_help().contains(substream) && f.asked.len() < most);
        // Pieces that follow one another go to one of them, so that the origin can bring what is left in few requests.
        let follows = |f: &Feed| piece.checked_sub(1).is_some_and(|before| f.asked.contains_key(&before));
        let rank = |n: &NodeId, f: &Feed| (Some(*n) == last, !follows(f), f.asked.len(), *n);
        let node = could.min_by_key(|(n, f)| rank(n, f)).map(|(n, _)| *n)?;
        if let Some(feed) = last.and_then(|l| self.feeds.get_mut(&l)) {
            feed.asked.remove(&piece);
        }
        self.feeds.get_mut(&node)?.asked.insert(piece, now);
        let m = self.window.missing_mut().get_mut(&piece)?;
        m.asked = Some((node, now));
        m.asks += 1;
        Some((node, last.filter(|l| *l != node)))
    }

    /// Somebody who can be asked for entries, another one each time.
    fn anyone(&self, now: Time) -> Option<NodeId> {
        let open: Vec<NodeId> = self.feeds.iter().filter(|(_, f)| f.is_open()).map(|(n, _)| *n).collect();
        open.get((now.0 / 100_000) as usize % open.len().max(1)).copied()
    }

    /// Runs of pieces that follow one another in an object are fetched together.
    fn fetch(&mut self, pieces: &[u64], out: &mut Vec<LiveOutput>) {
        let mut rest = pieces;
        while let Some(first) = rest.first().copied() {
            if self.jobs.len() >= self.config.max_origin_jobs {
                return;
            }
            let object = self.object_of(first);
            let follows = |(i, p): &(usize, &u64)| **p == first + *i as u64 && self.object_of(**p) == object;
            let most = self.config.max_origin_pieces as usize;
            let run = rest.iter().enumerate().take_while(follows).take(most).count().max(1);
            let (now, later) = rest.split_at(run);
            rest = later;
            self.begin_job(now, out);
        }
    }

    fn object_of(&self, piece: u64) -> Option<u64> {
        self.window.missing().get(&piece).map(|m| m.object)
    }

    fn begin_job(&mut self, pieces: &[u64], out: &mut Vec<LiveOutput>) {
        let piece_bytes = self.track().piece_bytes;
        let place = |p: &u64| self.window.entry_of(*p).and_then(|k| k.signed.entry.place_of(*p, piece_bytes));
        let places: Vec<(u64, u64, u32)> =
            pieces.iter().filter_map(|p| place(p).map(|(at, len)| (*p, at, len))).collect();
        let Some((first, begin, _)) = places.first().copied() else { return };
        let listed = self.object_of(first).and_then(|o| self.window.objects().get(&o)?.listed.as_ref());
        let Some(origin) = listed.and_then(|l| l.origin.clone()) else { return };
        let job = self.next_job;
        self.next_job += 1;
        for (piece, ..) in &places {
            if let Some(m) = self.window.missing_mut().get_mut(piece) {
                m.at_origin = true;
            }
        }
        self.jobs.insert(job, pieces.to_vec());
        self.cancel(pieces, out);
        let from = origin.from.saturating_add(begin);
        let pieces = places.into_iter().map(|(p, _, len)| (p, len)).collect();
        out.push(LiveOutput::FetchOrigin { job, url: origin.url, from, pieces });
    }

    /// Who may send a piece: whose turn it is in its substream, and who was asked for it.
    fn senders(&self, piece: u64) -> BTreeSet<NodeId> {
        let lane = self.lanes.get(usize::from(self.terms().substream_of(piece)));
        let brings = lane.and_then(|l| if piece < l.from { l.former } else { l.parent });
        let asked = self.window.missing().get(&piece).and_then(|m| m.asked).map(|(node, _)| node);
        brings.into_iter().chain(asked).collect()
    }

    /// Tells those who would send them too.
    fn cancel(&mut self, pieces: &[u64], out: &mut Vec<LiveOutput>) {
        let mut of: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
        for piece in pieces {
            self.senders(*piece).into_iter().for_each(|node| of.entry(node).or_default().push(*piece));
        }
        for (node, pieces) in of {
            if let Some(feed) = self.feeds.get_mut(&node) {
                feed.asked.retain(|p, _| !pieces.contains(p));
            }
            out.push(LiveOutput::Cancel(node, pieces));
        }
    }

    /// What the origin did not give is asked of others again.
    pub(super) fn origin_ended(&mut self, now: Time, job: u64) {
        for piece in self.jobs.remove(&job).unwrap_or_default() {
            if let Some(m) = self.window.missing_mut().get_mut(&piece) {
                m.at_origin = false;
                m.passed_over.get_or_insert(now);
                m.asked = None;
            }
        }
    }
}
