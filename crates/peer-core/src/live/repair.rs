//! Pieces that did not come by themselves: asked of spares and parents while there is time, fetched from the origin when
//! a player would else wait, given up when nobody needs them any more. And those that nobody pushes: helpers have until then.

use super::feeds::{Feed, Lane};
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

/// What holds of all pieces of a substream at one moment.
#[derive(Clone, Copy, Default)]
struct Ways {
    /// Somebody pushes it, or did until just now.
    fed: bool,
    /// Its parent pushed something lately.
    flows: bool,
    /// Parents or spares can be asked.
    asked: bool,
    /// Helpers can.
    help: bool,
    /// Nobody is to push it.
    pulled: bool,
    /// How long its parent needs for what is missing of it, as far as that was looked at.
    comes_in: Micros,
}

/// What holds of all pieces of an object at one moment.
#[derive(Clone, Copy)]
struct Wanted {
    object: u64,
    /// When a player needs it, if one does.
    due: Option<Time>,
    has_origin: bool,
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
        let begin = self.begin();
        self.pass_over(now, begin);
        let mut asks_of_helpers: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
        let mut asks: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
        let mut not_asked: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
        let mut from_origin: Vec<u64> = Vec::new();
        let mut given_up: Vec<u64> = Vec::new();
        for (piece, need) in self.needs(now, begin) {
            match need {
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

    /// Pieces about which something is to be done, in their order.
    fn needs(&mut self, now: Time, begin: u64) -> Vec<(u64, Need)> {
        let due = self.due(now);
        let mut ways = self.ways(now);
        let terms = self.terms();
        let piece_time = terms.substream_rate().time_for(u64::from(self.track().piece_bytes));
        // What lies before a newcomer's beginning is nobody's business but a player's.
        let first_due = due.keys().filter_map(|object| self.window.pieces_of(*object).next()).min();
        let missing = self.window.missing();
        let early = missing.range(first_due.map_or(begin, |p| p.min(begin))..begin);
        let early = early.filter(|(_, m)| due.contains_key(&m.object));
        let mut wanted: Option<Wanted> = None;
        let mut needs = Vec::new();
        for (piece, m) in early.chain(missing.range(begin..)).take(MAX_LOOKED_AT) {
            let Some(ways) = ways.get_mut(usize::from(terms.substream_of(*piece))) else { continue };
            if *piece >= begin {
                ways.comes_in = ways.comes_in + piece_time;
            }
            let wanted = match wanted.filter(|w| w.object == m.object) {
                Some(known) => known,
                None => {
                    let (due, has_origin) = (due.get(&m.object).copied(), self.has_origin(m.object));
                    *wanted.insert(Wanted { object: m.object, due, has_origin })
                }
            };
            match self.need(now, m, wanted, *piece < begin, *ways) {
                Need::Nothing => {}
                need => needs.push((*piece, need)),
            }
        }
        needs
    }

    /// By substream.
    fn ways(&self, now: Time) -> Vec<Ways> {
        let any = |of: fn(&Feed) -> Substreams| self.feeds.values().fold(Substreams::default(), |all, f| all.or(of(f)));
        let (asked, help, pulled) = (any(Feed::may_be_asked), any(Feed::may_help), self.left_to_helpers());
        let of = |(substream, lane): (u8, &Lane)| Ways {
            fed: lane.parent.is_some() || now.since(lane.since) < UNFED,
            flows: lane.pushed_at.is_some_and(|at| now.since(at) < FLOWS),
            asked: asked.contains(substream),
            help: help.contains(substream),
            pulled: pulled.contains(substream),
            comes_in: Micros(0),
        };
        (0..).zip(&self.lanes).map(of).collect()
    }

    /// `early` pieces lie before those that are pushed here.
    fn need(&self, now: Time, m: &Missing, wanted: Wanted, early: bool, ways: Ways) -> Need {
        let c = &self.config;
        let player = wanted.due;
        let by = player.unwrap_or(m.known_at + c.in_time);
        if now >= by + c.give_up && now.since(m.known_at) >= c.in_time {
            return Need::GiveUp;
        }
        if m.at_origin {
            return Need::Nothing;
        }
        // Nobody pushes it, and helpers may bring it.
        let is_pulled = ways.help && (early || ways.pulled);
        let somebody = is_pulled || ways.asked;
        let left = Micros(by.0.saturating_sub(now.0));
        let comes = ways.fed && !early && m.passed_over.is_none_or(|at| now.since(at) < MAY_COME);
        let in_time = comes && ways.flows && ways.comes_in < left;
        // Where nobody could bring it, waiting helps nobody.
        let waits_in_vain = !ways.fed && !somebody;
        let origin_helps = player.is_some() && wanted.has_origin;
        // Whole segments from before this node came would take uplinks that are for what others need now. What is pulled
        // comes from the origin in many requests, over a line whose uplink may be full.
        let ahead = match (is_pulled, early) {
            (true, false) => c.origin_ahead_of_helpers,
            (false, false) => c.origin_ahead,
            (_, true) => c.ask_ahead,
        };
        if origin_helps && !in_time && (left <= ahead || waits_in_vain) && self.jobs.len() < c.max_origin_jobs {
            return Need::Origin;
        }
        // What has no other source, as initialisation sections, parents are asked for when helpers had their time.
        if is_pulled && (left > ahead || !ways.asked) {
            let asked = m.asked.is_some_and(|(_, at)| now.since(at) < c.ask_helper_again);
            return if asked { Need::Nothing } else { Need::AskHelper };
        }
        // So would asking others for what is only late.
        if in_time || (origin_helps && (comes || early)) || (comes && left > c.ask_ahead) {
            return Need::Nothing;
        }
        if m.asked.is_some_and(|(_, at)| now.since(at) < c.ask_again) { Need::Nothing } else { Need::Ask }
    }

    fn has_origin(&self, object: u64) -> bool {
        let listed = self.window.objects().get(&object).and_then(|o| o.listed.as_ref());
        listed.is_some_and(|l| l.origin.is_some())
    }

    /// Pieces before one that its parent pushed later were passed over: it does not have them, or lost them on the way.
    fn pass_over(&mut self, now: Time, begin: u64) {
        let Some(end) = self.lanes.iter().map(Lane::passed_over_to).max().filter(|end| *end > begin) else { return };
        let terms = self.terms();
        for (piece, m) in self.window.missing_mut().range_mut(begin..end) {
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
        let piece_bytes = u64::from(self.track().piece_bytes);
        let could = self.feeds.iter().filter(|(_, f)| f.may_help().contains(substream));
        let could = could.filter(|(_, f)| f.asked.len() < f.most_asked_to_help(piece_bytes, &self.config));
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
