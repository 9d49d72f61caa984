//! The child's side: edges to parents, and which piece is asked of whom.

mod make_way;
mod watch;

use crate::edges::{EdgeStage, EdgeView};
use crate::swarm::{Output, PieceOutcome, Swarm};
use headwater_model::assignment::Parent;
use headwater_model::bits::Bits;
use headwater_model::id::NodeId;
use headwater_model::report::{Alarm, EdgeReport};
use headwater_model::rng::mix64;
use headwater_model::time::{Micros, Rate, Time};
use std::collections::VecDeque;

/// Candidates among which the rarest are picked: a random sample of what a parent has and this node lacks, so that a
/// pick costs the same in a content of a million pieces.
const PICK_SAMPLE: usize = 128;
/// Parents and spares of one assignment; more are dropped.
const MAX_PARENTS: usize = 64;
/// However little a parent promises, more silence than this is too much.
const PATIENCE_MAX: Micros = Micros::from_secs(30);
/// Within this time of opening, what a parent holds is known here.
const OFFER_WITHIN: Micros = Micros::from_millis(500);

/// Parents whose bad pieces are told of before they are assigned again.
const MAX_TOLD_BAD: usize = 4096;
/// What is on its way from a parent that is no longer assigned is waited for so long, if it should be here by half of it.
const DRAIN: Micros = Micros::from_secs(2);
/// A parent that sent something so lately sends the rest as well.
const FLOWING: Micros = Micros::from_millis(500);
/// Ended edges that a report tells of at most.
const MAX_DEPARTED: usize = 256;

/// What a parent did of late.
#[derive(Clone, Copy)]
struct Look {
    bytes: u64,
    /// While pieces were outstanding.
    rate: Rate,
    /// Whether it was waited for all the time.
    waited_for: bool,
}

/// A parent, assigned or spare.
#[derive(Clone, Debug)]
pub(crate) struct ParentLink {
    pub(crate) entry: Parent,
    /// Assigned, else only a spare, or one that ends.
    pub(crate) assigned: bool,
    /// No longer assigned: nothing more is asked of it, and it is closed when all that was asked is here, or by then.
    ends_by: Option<Time>,
    edge: EdgeStage,
    /// When the edge got where it is.
    since: Time,
    has: Bits,
    /// Pieces asked for, in the order of asking.
    asked: VecDeque<u32>,
    /// Sends nothing for a while: one piece stays asked of it, the others are asked of others.
    late: bool,
    /// Its first piece is on its way, or was here.
    began: bool,
    /// Asked, silent, and said so: nothing more is asked until something comes, or for a while.
    suspect: Option<Time>,
    /// Bytes by then, and time with pieces outstanding, at each look of late.
    looks: VecDeque<(Time, u64, Micros)>,
    /// Since when it was waited for at every look.
    waited_for_since: Option<Time>,
    last_arrival: Time,
    /// How long earlier requests were outstanding since it last sent something.
    unheard: Micros,
    /// Smoothed rate while pieces were outstanding, bytes per second.
    rate: f64,
    window: (Time, u64),
    busy_since: Option<Time>,
    /// Time with pieces outstanding up to `busy_since`, and how much of it was reported.
    waited: Micros,
    waited_reported: Micros,
    pieces: u64,
    bytes: u64,
    pub(crate) rtt: Micros,
}

impl ParentLink {
    fn new(now: Time, entry: Parent, assigned: bool) -> Self {
        Self {
            entry,
            assigned,
            ends_by: None,
            edge: EdgeStage::Dialling,
            since: now,
            has: Bits::default(),
            asked: VecDeque::new(),
            late: false,
            began: false,
            suspect: None,
            looks: VecDeque::new(),
            waited_for_since: None,
            last_arrival: now,
            unheard: Micros(0),
            rate: 0.0,
            window: (now, 0),
            busy_since: None,
            waited: Micros(0),
            waited_reported: Micros(0),
            pieces: 0,
            bytes: 0,
            rtt: Micros(0),
        }
    }
    pub(crate) fn is_open(&self) -> bool {
        self.edge == EdgeStage::Open
    }
    pub(crate) fn has_anything(&self) -> bool {
        self.is_open() && self.ends_by.is_none() && !self.has.is_empty()
    }
    /// Whether all that was asked of it is about to be here, so that nothing of it need be asked of others.
    fn flows(&self, now: Time, piece_bytes: u32) -> bool {
        let trusted = self.is_open() && !self.late && self.suspect.is_none() && self.rate > 0.0;
        let soon = self.asked.len().checked_sub(1).map(|last| self.eta(last, piece_bytes));
        trusted && now.since(self.last_arrival) <= FLOWING && soon.is_some_and(|s| s <= DRAIN.as_secs_f64() / 2.0)
    }
    pub(crate) fn view(&self, node: NodeId) -> EdgeView {
        EdgeView {
            node,
            stage: self.edge,
            spare: !self.assigned,
            bytes: self.bytes,
            waiting_pieces: self.asked.len(),
            rtt: self.rtt,
        }
    }
    pub(crate) fn asked(&self) -> &VecDeque<u32> {
        &self.asked
    }
    pub(crate) fn has(&self) -> &Bits {
        &self.has
    }

    /// Expected seconds until the piece at `position` of the queue is here.
    fn eta(&self, position: usize, piece_bytes: u32) -> f64 {
        (position + 1) as f64 * f64::from(piece_bytes) / self.rate.max(1000.0)
    }

    /// How long a piece takes at the rate that was seen, else at the promised one.
    fn piece_time(&self, piece_bytes: u32) -> Micros {
        let time = if self.rate > 0.0 {
            Micros((f64::from(piece_bytes) / self.rate * 1e6) as u64)
        } else {
            self.entry.promised.time_for(u64::from(piece_bytes))
        };
        time.min(PATIENCE_MAX)
    }
    /// Silence after which others are asked.
    fn late_after(&self, late: Micros, piece_bytes: u32) -> Micros {
        late.max(self.rtt.times(4)).max(self.piece_time(piece_bytes).times(3)).min(PATIENCE_MAX)
    }
    /// Silence after which it is left. However small its uplink is, its first bytes come soon.
    fn silent_after(&self, silent: Micros, piece_bytes: u32) -> Micros {
        if !self.began {
            return silent;
        }
        // A promise is that of a node whose uplink was not seen yet: often less than what it can.
        let promised = self.entry.promised.time_for(u64::from(piece_bytes) * 3);
        let seen = if self.rate > 0.0 { self.piece_time(piece_bytes).times(4) } else { Micros(0) };
        // Its first piece is on its way: more was promised for it than it has.
        let first = if self.pieces == 0 { silent.times(2) } else { silent };
        first.max(promised).max(seen).min(PATIENCE_MAX)
    }
    /// Looks at it: what it did in the last `span` or less.
    fn look(&mut self, now: Time, span: Micros) -> Look {
        self.waited_for_since = self.is_waited_for().then(|| self.waited_for_since.unwrap_or(now));
        let waited = self.waited_by(now);
        self.looks.push_back((now, self.bytes, waited));
        // The newest look that is old enough is the first.
        while self.looks.get(1).is_some_and(|(at, ..)| now.since(*at) >= span) {
            self.looks.pop_front();
        }
        let (bytes, before) = self.looks.front().map_or((0, Micros(0)), |(_, bytes, waited)| (*bytes, *waited));
        Look {
            bytes: self.bytes - bytes,
            rate: Rate::while_waited(self.bytes - bytes, Micros(waited.0 - before.0)),
            waited_for: self.waited_for_since.is_some_and(|t| now.since(t) >= span),
        }
    }
    /// Time with pieces outstanding up to now.
    fn waited_by(&self, now: Time) -> Micros {
        Micros(self.waited.0 + self.busy_since.map_or(0, |t| now.since(t).0))
    }
    fn is_waited_for(&self) -> bool {
        let asked = self.late || !self.asked.is_empty();
        self.is_open() && self.suspect.is_none() && self.ends_by.is_none() && asked
    }

    /// Keeps the time with outstanding requests, and the rate over windows of a quarter of a second.
    fn account(&mut self, now: Time, bytes: u64) {
        self.window.1 += bytes;
        let span = now.since(self.window.0);
        if span.0 >= 250_000 && self.window.1 > 0 {
            let sample = self.window.1 as f64 / span.as_secs_f64();
            self.rate = if self.rate == 0.0 { sample } else { (self.rate + sample) / 2.0 };
            self.window = (now, 0);
        }
    }
    fn began(&mut self, now: Time) {
        if self.busy_since.is_none() {
            self.busy_since = Some(now);
            self.last_arrival = now;
            self.window = (now, 0);
        }
    }
    fn settled(&mut self, now: Time) {
        if self.asked.is_empty()
            && let Some(since) = self.busy_since.take()
        {
            self.waited = Micros(self.waited.0 + now.since(since).0);
            if !self.late {
                self.unheard = self.quiet(now);
                self.last_arrival = now;
            }
        }
    }
    /// It sent something, or gets another chance.
    fn heard(&mut self, now: Time) {
        self.suspect = None;
        self.last_arrival = now;
        self.unheard = Micros(0);
    }
    /// The first byte of its first piece is here. Only once: who sends nothing else is silent.
    pub(crate) fn begins(&mut self, now: Time) {
        if !std::mem::replace(&mut self.began, true) {
            self.heard(now);
        }
    }
    /// How long requests have been outstanding since it last sent something. Taking them back before they are answered
    /// does not make it less silent.
    fn quiet(&self, now: Time) -> Micros {
        Micros(now.since(self.last_arrival).0 + self.unheard.0)
    }

    pub(crate) fn report(&mut self, now: Time, node: NodeId) -> EdgeReport {
        let by_now = self.waited_by(now);
        let waited = Micros(by_now.0 - std::mem::replace(&mut self.waited_reported, by_now).0);
        EdgeReport {
            node,
            pieces: self.pieces,
            bytes: self.bytes,
            waited,
            rtt: self.rtt,
            sent_packets: 0,
            lost_packets: 0,
            // Who says nothing at all is left for that.
            offers_nothing: self.is_open()
                && !self.has.words().is_empty()
                && self.has.is_empty()
                && now.since(self.since) >= OFFER_WITHIN,
            last_pieces: Vec::new(),
        }
    }
}

impl Swarm {
    /// The assignment's parents replace the present ones; those that stay keep what was asked of them, and of those that go
    /// what is on its way is waited for.
    pub(crate) fn new_parents(&mut self, now: Time, parents: Vec<Parent>, spares: Vec<Parent>, out: &mut Vec<Output>) {
        if self.is_complete() {
            return;
        }
        let parents: Vec<Parent> = parents.into_iter().take(MAX_PARENTS).collect();
        let spares: Vec<Parent> = spares.into_iter().take(MAX_PARENTS).collect();
        let keep = |n: &NodeId| parents.iter().chain(&spares).any(|p| p.node == *n);
        parents.iter().filter(|p| !self.parents.contains_key(&p.node)).for_each(|p| {
            self.told_bad.remove(&p.node);
        });
        let gone: Vec<NodeId> = self.parents.keys().filter(|n| !keep(n)).copied().collect();
        let piece_bytes = self.layout.piece_bytes();
        for node in gone {
            match self.parents.get_mut(&node) {
                Some(p) if p.ends_by.is_some() => {}
                Some(p) if p.flows(now, piece_bytes) => (p.ends_by, p.assigned) = (Some(now + DRAIN), false),
                _ => self.end_edge(now, node, out),
            }
        }
        let spares = spares.into_iter().filter(|s| !parents.iter().any(|p| p.node == s.node)).collect::<Vec<_>>();
        for (entry, assigned) in
            parents.iter().cloned().map(|p| (p, true)).chain(spares.into_iter().map(|p| (p, false)))
        {
            let node = entry.node;
            match self.parents.get_mut(&node) {
                Some(link) => {
                    if link.ends_by.take().is_some() {
                        // It is open: it goes on, also as a spare.
                        link.assigned = true;
                    }
                    // A spare that becomes a parent: the connection may be there already, for an edge the other way.
                    let called = assigned && !link.assigned;
                    link.assigned |= assigned;
                    // A spare that was called in stays until the control center names the parents again.
                    if !assigned && link.assigned {
                        link.assigned = link.edge != EdgeStage::Dialling;
                    }
                    // It could not be reached before, and its own dial has not come.
                    let now_dials = entry.dial && !link.entry.dial;
                    if (now_dials || called) && link.assigned && link.edge == EdgeStage::Dialling {
                        out.push(Output::Dial(entry.clone()));
                    }
                    link.entry = entry;
                }
                None => {
                    self.parents.insert(node, ParentLink::new(now, entry.clone(), assigned));
                    if assigned {
                        out.push(Output::Dial(entry));
                    }
                }
            }
        }
        self.ask_everyone(now, out);
    }

    /// A connection exists: the edge is opened if it is wanted.
    pub(crate) fn connected(&mut self, now: Time, node: NodeId, out: &mut Vec<Output>) {
        if let Some(p) = self.parents.get_mut(&node).filter(|p| p.edge == EdgeStage::Dialling && p.assigned) {
            p.edge = EdgeStage::Opening;
            p.since = now;
            out.push(Output::OpenEdge(node));
        }
    }

    pub(crate) fn answered(&mut self, now: Time, parent: NodeId, refused: Option<String>, out: &mut Vec<Output>) {
        let Some(p) = self.parents.get_mut(&parent).filter(|p| p.edge == EdgeStage::Opening) else { return };
        match refused {
            None => {
                p.edge = EdgeStage::Open;
                p.since = now;
                p.last_arrival = now;
                self.ask_pages(now, out);
            }
            Some(why) => self.parent_lost(now, parent, format!("it refused: {why}"), out),
        }
    }

    /// The other end lost the connection, or was restarted, and is back: the edge to it is opened anew. What was asked on
    /// the former one is asked again.
    pub(crate) fn replaced(&mut self, now: Time, node: NodeId, out: &mut Vec<Output>) {
        self.child_closed(&node);
        let Some(p) = self.parents.get(&node) else { return };
        let (entry, assigned, ends) = (p.entry.clone(), p.assigned, p.ends_by.is_some());
        if !assigned && !ends {
            return;
        }
        self.forget_parent(now, &node);
        if assigned && !ends {
            self.parents.insert(node, ParentLink::new(now, entry, assigned));
        }
        self.ask_everyone(now, out);
    }

    pub(crate) fn lost(&mut self, now: Time, node: NodeId, why: String, out: &mut Vec<Output>) {
        self.child_closed(&node);
        match self.parents.get(&node) {
            Some(p) if p.assigned => self.parent_lost(now, node, why, out),
            Some(p) if p.ends_by.is_some() => {
                self.forget_parent(now, &node);
                self.ask_everyone(now, out);
            }
            _ => {}
        }
    }

    pub(crate) fn end_edge(&mut self, now: Time, node: NodeId, out: &mut Vec<Output>) {
        self.forget_parent(now, &node);
        out.push(Output::CloseEdge(node));
    }

    /// Closes edges that are no longer assigned and of which nothing more comes.
    pub(crate) fn end_edges(&mut self, now: Time, out: &mut Vec<Output>) {
        let over = |p: &ParentLink| p.ends_by.is_some_and(|by| by <= now || p.asked.is_empty());
        let over: Vec<NodeId> = self.parents.iter().filter(|(_, p)| over(p)).map(|(n, _)| *n).collect();
        for node in over {
            self.end_edge(now, node, out);
        }
    }

    fn parent_lost(&mut self, now: Time, parent: NodeId, why: String, out: &mut Vec<Output>) {
        self.forget_parent(now, &parent);
        out.push(Output::Alarm(Alarm::ParentLost { parent, why }));
        self.call_spare(out);
        self.ask_everyone(now, out);
    }

    /// Idea 10: the child does not wait for the control center to have another parent.
    fn call_spare(&mut self, out: &mut Vec<Output>) {
        if let Some(spare) = self.parents.values_mut().find(|p| !p.assigned && p.ends_by.is_none()) {
            spare.assigned = true;
            out.push(Output::Dial(spare.entry.clone()));
        }
    }

    fn forget_parent(&mut self, now: Time, node: &NodeId) {
        let Some(mut p) = self.parents.remove(node) else { return };
        self.last_words(now, node, &mut p);
        self.unclaim(p.asked.drain(..));
        p.settled(now);
        for piece in p.has.iter() {
            if let Some(n) = self.holders.get_mut(piece as usize) {
                *n = n.saturating_sub(1);
            }
        }
    }

    fn unclaim(&mut self, pieces: impl Iterator<Item = u32>) {
        for piece in pieces {
            if !self.have.get(piece) {
                self.claimed.clear(piece);
            }
        }
    }

    /// What an edge that ends has moved is told with the next report.
    fn last_words(&mut self, now: Time, node: &NodeId, p: &mut ParentLink) {
        if p.bytes > 0 && self.departed.len() < MAX_DEPARTED {
            self.departed.push(p.report(now, *node));
        }
    }

    pub(crate) fn drop_parents(&mut self, now: Time, out: &mut Vec<Output>) {
        for (node, mut p) in std::mem::take(&mut self.parents) {
            self.last_words(now, &node, &mut p);
            out.push(Output::CloseEdge(node));
        }
        self.holders = Vec::new();
    }

    pub(crate) fn parent_has_all(&mut self, now: Time, parent: NodeId, bits: Bits, out: &mut Vec<Output>) {
        let Some(p) = self.parents.get_mut(&parent).filter(|p| p.is_open()) else { return };
        if bits.len() != self.layout.pieces() {
            return;
        }
        let old = std::mem::replace(&mut p.has, bits);
        for piece in old.iter() {
            self.holders[piece as usize] -= 1;
        }
        for piece in self.parents[&parent].has.iter() {
            self.holders[piece as usize] = self.holders[piece as usize].saturating_add(1);
        }
        self.ask_pages(now, out);
        self.ask(now, parent, out);
    }

    pub(crate) fn parent_has(&mut self, now: Time, parent: NodeId, pieces: &[u32], out: &mut Vec<Output>) {
        let Some(p) = self.parents.get_mut(&parent).filter(|p| p.is_open()) else { return };
        if p.has.is_empty() {
            p.has = Bits::new(self.layout.pieces());
        }
        for piece in pieces {
            if p.has.set(*piece) {
                self.holders[*piece as usize] = self.holders[*piece as usize].saturating_add(1);
            }
        }
        self.ask(now, parent, out);
    }

    /// A piece came from a parent; whether it was asked of it.
    pub(crate) fn arrived(
        &mut self,
        now: Time,
        parent: &NodeId,
        piece: u32,
        len: u64,
        outcome: PieceOutcome,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(p) = self.parents.get_mut(parent) else {
            if outcome == PieceOutcome::Bad {
                // One that was left meanwhile: it should not come back.
                self.tell_bad(*parent, piece, out);
            }
            return false;
        };
        let at = p.asked.iter().position(|a| *a == piece);
        if let Some(at) = at {
            p.asked.remove(at);
        }
        p.began = true;
        p.heard(now);
        p.late = false;
        if outcome == PieceOutcome::Bad {
            out.push(Output::CloseEdge(*parent));
            self.tell_bad(*parent, piece, out);
            self.forget_parent(now, parent);
            self.call_spare(out);
            return at.is_some();
        }
        p.pieces += 1;
        p.bytes += len;
        p.account(now, len);
        p.settled(now);
        if p.ends_by.is_some() && p.asked.is_empty() {
            self.end_edge(now, *parent, out);
        }
        at.is_some()
    }

    /// Tells the parent and the control center of a bad piece, once: more of them are on their way.
    fn tell_bad(&mut self, parent: NodeId, piece: u32, out: &mut Vec<Output>) {
        if self.told_bad.len() < MAX_TOLD_BAD && self.told_bad.insert(parent) {
            out.push(Output::ToldBad(parent, piece));
            out.push(Output::Alarm(Alarm::BadPieces { parent }));
        }
    }

    /// A piece is here that may also be asked of someone: one that was closed, or told to stop, sent it all the same.
    pub(crate) fn take_back(&mut self, now: Time, piece: u32, out: &mut Vec<Output>) {
        for (node, p) in &mut self.parents {
            if let Some(at) = p.asked.iter().position(|a| *a == piece) {
                p.asked.remove(at);
                p.settled(now);
                out.push(Output::Unask(*node, vec![piece]));
            }
        }
    }

    /// Whether a piece is here, or to come from someone.
    pub(crate) fn is_awaited(&self, piece: u32) -> bool {
        self.have.get(piece)
            || self.origin.fetches(self.layout.run_of(piece), piece)
            || self.parents.values().any(|p| p.asked.contains(&piece))
    }

    /// Asks all parents that have room for more.
    pub(crate) fn ask_everyone(&mut self, now: Time, out: &mut Vec<Output>) {
        let open: Vec<NodeId> = self.parents.iter().filter(|(_, p)| p.is_open()).map(|(n, _)| *n).collect();
        for node in open {
            self.ask(now, node, out);
        }
    }

    /// Asks a parent for as many pieces as keep it busy: mostly what readers need next, else rarest first.
    pub(crate) fn ask(&mut self, now: Time, parent: NodeId, out: &mut Vec<Output>) {
        if self.is_complete() || !self.may_fetch() || self.paused {
            return;
        }
        let asks = |p: &&ParentLink| p.is_open() && p.ends_by.is_none() && !p.late && p.suspect.is_none();
        let Some(p) = self.parents.get(&parent).filter(asks) else { return };
        let ahead = p.rate * self.config.ahead.as_secs_f64() / f64::from(self.layout.piece_bytes());
        let target = (ahead as usize + 2).clamp(self.config.min_outstanding, self.config.max_outstanding);
        // A quarter at a time, so that requests travel together.
        if p.asked.len() + target.div_ceil(4) > target {
            return;
        }
        let room = self.intake.room(now, self.asked_until, self.layout.piece_bytes());
        let want = (target - self.parents[&parent].asked.len()).min(room);
        if want == 0 {
            return;
        }
        // Some stay for rare pieces: where all read the same, nobody would have anything for the others.
        let mut picked = if self.is_read() { self.needed_of(&parent, want - want / 4) } else { Vec::new() };
        for piece in &picked {
            self.claimed.set(*piece);
        }
        picked.extend(self.pick(&parent, want - picked.len()));
        if picked.is_empty() {
            if self.parents[&parent].asked.is_empty() {
                self.steal(now, parent, out);
            }
            return;
        }
        for piece in &picked {
            self.claimed.set(*piece);
        }
        if let Some(p) = self.parents.get_mut(&parent) {
            p.asked.extend(&picked);
            p.began(now);
        }
        let asked: u64 = picked.iter().map(|p| u64::from(self.layout.piece_len(*p))).sum();
        self.asked_until = self.intake.ask(now, self.asked_until, asked);
        out.push(Output::Ask(parent, picked));
    }

    /// Rarest first among a random sample of what the parent has and nobody was asked for.
    fn pick(&mut self, parent: &NodeId, want: usize) -> Vec<u32> {
        let Some(p) = self.parents.get(parent) else { return Vec::new() };
        let (theirs, mine) = (p.has.words(), self.claimed.words());
        if theirs.is_empty() {
            return Vec::new();
        }
        self.scratch.clear();
        let (start, salt) = (self.rng.below(theirs.len() as u64) as usize, self.rng.next_u64());
        'sample: for w in (start..theirs.len()).chain(0..start) {
            let mut left = theirs[w] & !mine[w];
            while left != 0 {
                let piece = w as u32 * 64 + left.trailing_zeros();
                left &= left - 1;
                // Fewest holders first, ties by chance; a piece number has 22 bits.
                let chance = mix64(salt ^ u64::from(piece)) >> 40;
                self.scratch.push(u64::from(self.holders[piece as usize]) << 48 | chance << 24 | u64::from(piece));
                if self.scratch.len() == PICK_SAMPLE {
                    break 'sample;
                }
            }
        }
        let want = want.min(self.scratch.len());
        if want < self.scratch.len() && want > 0 {
            self.scratch.select_nth_unstable(want - 1);
        }
        self.scratch.iter().take(want).map(|key| (key & 0xFF_FFFF) as u32).collect()
    }

    /// End game: an idle parent takes over a piece that would come much later from another. It is asked of one only, so
    /// that it is not sent twice.
    fn steal(&mut self, now: Time, thief: NodeId, out: &mut Vec<Output>) {
        let Some(t) = self.parents.get(&thief) else { return };
        let piece_bytes = self.layout.piece_bytes();
        let mine = t.eta(0, piece_bytes) + t.rtt.as_secs_f64() + 0.05;
        let worst = self
            .parents
            .iter()
            .filter(|(n, _)| **n != thief)
            .filter_map(|(n, p)| {
                // The first in the queue is probably on its way, unless nothing is.
                let on_its_way = usize::from(!p.late);
                let (at, piece) = p.asked.iter().enumerate().skip(on_its_way).rfind(|(_, piece)| t.has.get(**piece))?;
                let eta = if p.late { f64::MAX } else { p.eta(at, piece_bytes) };
                Some((eta, *n, *piece))
            })
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, from, piece)) = worst.filter(|(eta, ..)| *eta > 2.0 * mine) else { return };
        if let Some(p) = self.parents.get_mut(&from) {
            p.asked.retain(|a| *a != piece);
            p.settled(now);
        }
        if let Some(p) = self.parents.get_mut(&thief) {
            p.asked.push_back(piece);
            p.began(now);
        }
        out.push(Output::Unask(from, vec![piece]));
        out.push(Output::Ask(thief, vec![piece]));
    }
}

#[cfg(test)]
#[path = "parents_tests.rs"]
mod tests;
