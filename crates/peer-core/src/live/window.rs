//! What a node knows and holds of a live stream: entries, their objects and pieces, as far back as the stream's window.

use headwater_model::bits::Bits;
use headwater_model::id::NodeId;
use headwater_model::live::{Listed, LiveEntry, LiveTrack, ObjectKind, SignedLiveEntry};
use headwater_model::time::{Micros, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Entries kept; a day of two-second segments in progressive ingest has fewer in its window.
const MAX_ENTRIES: usize = 1 << 16;
/// An entry that is missing is asked for after this time: those of one object come over two ways.
const ENTRY_PATIENCE: Micros = Micros::from_millis(150);
/// How often it is asked for.
const ENTRY_AGAIN: Micros = Micros::from_millis(400);
/// Nobody has an entry that is missing for so long: its objects are given up.
const ENTRY_GIVEN_UP: Micros = Micros::from_secs(5);

/// An entry and what is here of it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) signed: Arc<SignedLiveEntry>,
    pub(crate) have: Bits,
    pub(crate) at: Time,
}

/// An object, as far as entries tell.
#[derive(Clone, Debug)]
pub struct Object {
    /// What it is.
    pub kind: ObjectKind,
    /// What players are told, once they may ask for it.
    pub listed: Option<Listed>,
    /// Its length in bytes; `None` while it grows.
    pub bytes: Option<u64>,
    /// Numbers of its entries with pieces, by their place in it.
    pub(crate) entries: BTreeMap<u64, u64>,
    /// Numbers of all its entries.
    pub(crate) numbers: Vec<u64>,
    /// The publisher's time of the latest, in Unix milliseconds.
    pub(crate) time_unix_ms: u64,
    /// Some of it is not to be had any more.
    pub lost: bool,
}

/// A piece that is known and not here.
#[derive(Clone, Debug)]
pub(crate) struct Missing {
    pub(crate) known_at: Time,
    pub(crate) object: u64,
    /// Who was asked for it last, and when.
    pub(crate) asked: Option<(NodeId, Time)>,
    /// How many were asked.
    pub(crate) asks: u32,
    /// The parent passed over it.
    pub(crate) passed_over: Option<Time>,
    /// It is being fetched from the origin.
    pub(crate) at_origin: bool,
}

/// What became of an entry that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entered {
    New,
    Known,
    /// Before the window, or at odds with what is known.
    Useless,
}

/// What a piece that came is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Right, and wanted.
    Good,
    /// Not what its entry says.
    Bad,
    /// It is here already, or not wanted any more.
    Useless,
    /// Its entry is not here yet.
    Early,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    track: LiveTrack,
    entries: BTreeMap<u64, Known>,
    /// First piece to entry.
    by_piece: BTreeMap<u64, u64>,
    objects: BTreeMap<u64, Object>,
    missing: BTreeMap<u64, Missing>,
    /// Entries that others name and that are not here: since when, and when they were asked for last.
    unknown: BTreeMap<u64, (Time, Option<Time>)>,
    /// Number of the newest entry, its last piece's successor, and the publisher's time of it.
    newest: Option<(u64, u64, u64)>,
    /// Entries up to this number left the window.
    gone: u64,
    gone_piece: u64,
    ended: bool,
    lost_pieces: u64,
}

impl Window {
    pub(crate) fn new(track: LiveTrack) -> Self {
        Window {
            track,
            entries: BTreeMap::new(),
            by_piece: BTreeMap::new(),
            objects: BTreeMap::new(),
            missing: BTreeMap::new(),
            unknown: BTreeMap::new(),
            newest: None,
            gone: 0,
            gone_piece: 0,
            ended: false,
            lost_pieces: 0,
        }
    }

    pub(crate) fn track(&self) -> &LiveTrack {
        &self.track
    }
    /// Number of the newest entry.
    pub(crate) fn newest_entry(&self) -> Option<u64> {
        self.newest.map(|(number, ..)| number)
    }
    /// The piece that follows the newest entry's last one.
    pub(crate) fn end_piece(&self) -> u64 {
        self.newest.map_or(0, |(_, piece, _)| piece)
    }
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }
    pub(crate) fn lost_pieces(&self) -> u64 {
        self.lost_pieces
    }
    pub(crate) fn objects(&self) -> &BTreeMap<u64, Object> {
        &self.objects
    }
    pub(crate) fn missing(&self) -> &BTreeMap<u64, Missing> {
        &self.missing
    }
    pub(crate) fn missing_mut(&mut self) -> &mut BTreeMap<u64, Missing> {
        &mut self.missing
    }
    /// By substream: the first piece from `begin` on that is missing.
    pub(crate) fn first_missing(&self, begin: u64) -> Vec<Option<u64>> {
        let terms = self.track.terms;
        let mut first = vec![None; usize::from(terms.substreams.get())];
        let mut left = first.len();
        for piece in self.missing.range(begin..).map(|(p, _)| *p) {
            if let Some(of) = first.get_mut(usize::from(terms.substream_of(piece))).filter(|of| of.is_none()) {
                *of = Some(piece);
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        first
    }
    pub(crate) fn entries(&self) -> &BTreeMap<u64, Known> {
        &self.entries
    }
    /// The first piece that may still be of use.
    pub(crate) fn first_piece(&self) -> u64 {
        self.gone_piece
    }

    /// The entry of `piece`.
    pub(crate) fn entry_of(&self, piece: u64) -> Option<&Known> {
        let (_, number) = self.by_piece.range(..=piece).next_back()?;
        self.entries.get(number).filter(|k| piece < k.signed.entry.end_piece())
    }

    /// Whether `piece` is here.
    pub(crate) fn has(&self, piece: u64) -> bool {
        self.entry_of(piece).is_some_and(|k| k.have.get(index(&k.signed.entry, piece)))
    }

    /// What `data` is, said to be `piece`.
    pub(crate) fn judge(&self, piece: u64, data: &[u8]) -> Verdict {
        let Some(known) = self.entry_of(piece) else {
            return if piece < self.gone_piece { Verdict::Useless } else { Verdict::Early };
        };
        if known.have.get(index(&known.signed.entry, piece)) {
            return Verdict::Useless;
        }
        if known.signed.entry.has(piece, data) { Verdict::Good } else { Verdict::Bad }
    }

    /// A verified entry; where `held`, its pieces are here.
    pub(crate) fn enter(&mut self, now: Time, signed: Arc<SignedLiveEntry>, held: bool) -> Entered {
        let entry = &signed.entry;
        let number = entry.number;
        if self.entries.contains_key(&number) {
            return Entered::Known;
        }
        let is_old = number <= self.gone && self.newest.is_some();
        if is_old || !self.fits(entry) || self.entries.len() >= MAX_ENTRIES {
            return Entered::Useless;
        }
        self.unknown.remove(&number);
        self.miss_around(now, entry);
        let pieces = entry.leaves.len() as u32;
        let object = self.objects.entry(entry.object).or_insert_with(|| Object {
            kind: entry.kind,
            listed: None,
            bytes: None,
            entries: BTreeMap::new(),
            numbers: Vec::new(),
            time_unix_ms: 0,
            lost: false,
        });
        object.numbers.push(number);
        object.time_unix_ms = object.time_unix_ms.max(entry.time_unix_ms);
        if entry.listed.is_some() {
            object.listed.clone_from(&entry.listed);
        }
        if pieces > 0 {
            object.entries.insert(entry.offset, number);
        }
        if entry.complete {
            object.bytes = Some(entry.offset + u64::from(entry.bytes));
        }
        if pieces > 0 {
            self.by_piece.insert(entry.first_piece, number);
        }
        if !held {
            let missing = |piece| {
                let m = Missing {
                    known_at: now,
                    object: entry.object,
                    asked: None,
                    asks: 0,
                    passed_over: None,
                    at_origin: false,
                };
                (piece, m)
            };
            self.missing.extend((entry.first_piece..entry.end_piece()).map(missing));
        }
        self.ended |= entry.last;
        if self.newest.is_none_or(|(n, ..)| n < number) {
            self.newest = Some((number, entry.end_piece(), entry.time_unix_ms));
        }
        let have = if held { Bits::full(pieces) } else { Bits::new(pieces) };
        self.entries.insert(number, Known { signed, have, at: now });
        self.forget_old();
        Entered::New
    }

    /// Whether an entry's pieces are nobody else's: a publisher that signs nonsense gets no further than here.
    fn fits(&self, entry: &LiveEntry) -> bool {
        let overlaps = |n: &u64| {
            self.entries.get(n).is_some_and(|k| {
                let other = &k.signed.entry;
                other.end_piece() > entry.first_piece && other.first_piece < entry.end_piece()
            })
        };
        let before = self.by_piece.range(..=entry.first_piece).next_back().map(|(_, n)| n);
        let after = self.by_piece.range(entry.first_piece..).next().map(|(_, n)| n);
        let same_kind = self.objects.get(&entry.object).is_none_or(|o| o.kind == entry.kind);
        let is_free = self.objects.get(&entry.object).is_none_or(|o| !o.entries.contains_key(&entry.offset));
        same_kind && (entry.leaves.is_empty() || (is_free && ![before, after].into_iter().flatten().any(overlaps)))
    }

    /// The entry before this one is missing, if it is not here; so is the one before the next, which may have been the
    /// oldest here: newcomers hear from several parents.
    fn miss_around(&mut self, now: Time, entry: &LiveEntry) {
        let is_first = self.newest.is_none();
        let next = self.entries.range(entry.number..).next().and_then(|(_, k)| k.signed.entry.previous);
        let before = [entry.previous.filter(|_| !is_first), next.filter(|p| *p != entry.number)];
        for previous in before.into_iter().flatten().filter(|p| *p > self.gone) {
            if !self.entries.contains_key(&previous) {
                self.unknown.entry(previous).or_insert((now, None));
            }
        }
    }

    /// Somebody has this entry.
    pub(crate) fn heard_of(&mut self, now: Time, number: u64) {
        if self.newest.is_none_or(|(n, ..)| n < number) && number > self.gone {
            // Only the newest is remembered: what lies before it comes with it.
            let newest = self.newest.map_or(0, |(n, ..)| n);
            if !self.unknown.range(newest..).any(|_| true) {
                self.unknown.insert(number, (now, None));
            }
        }
    }

    /// Whether an entry from before the newest one is missing and may still come.
    pub(crate) fn awaits_entries(&self) -> bool {
        let newest = self.newest.map_or(0, |(n, ..)| n);
        self.unknown.range(..newest).next().is_some()
    }

    /// Entries are to be asked for that come after this number.
    pub(crate) fn entries_to_ask(&mut self, now: Time) -> Option<u64> {
        let given_up: Vec<u64> = self
            .unknown
            .iter()
            .filter(|(_, (since, _))| now.since(*since) >= ENTRY_GIVEN_UP)
            .map(|(n, _)| *n)
            .collect();
        for number in given_up {
            self.unknown.remove(&number);
        }
        let is_due = |(since, asked): &(Time, Option<Time>)| {
            now.since(*since) >= ENTRY_PATIENCE && asked.is_none_or(|at| now.since(at) >= ENTRY_AGAIN)
        };
        let (number, _) = self.unknown.iter().find(|(_, u)| is_due(u))?;
        let number = *number;
        for (_, asked) in self.unknown.values_mut() {
            *asked = Some(now);
        }
        let before = self.entries.range(..number).next_back().map(|(n, _)| *n);
        Some(before.unwrap_or(self.gone))
    }

    /// The piece was verified and is kept.
    pub(crate) fn stored(&mut self, piece: u64) {
        self.missing.remove(&piece);
        let Some((_, number)) = self.by_piece.range(..=piece).next_back() else { return };
        if let Some(known) = self.entries.get_mut(number) {
            known.have.set(index(&known.signed.entry, piece));
        }
    }

    /// A piece that nobody has any more.
    pub(crate) fn give_up(&mut self, piece: u64) {
        if let Some(m) = self.missing.remove(&piece) {
            self.lost_pieces += 1;
            if let Some(object) = self.objects.get_mut(&m.object) {
                object.lost = true;
            }
        }
    }

    /// Whether all of an object is here.
    pub(crate) fn is_here(&self, object: u64) -> bool {
        let Some(o) = self.objects.get(&object) else { return false };
        o.bytes.is_some_and(|bytes| self.held_from(o, 0) == bytes)
    }

    /// The byte of an object up to which all is here, from `offset` on.
    pub(crate) fn held_up_to(&self, object: u64, offset: u64) -> u64 {
        self.objects.get(&object).map_or(offset, |o| self.held_from(o, offset))
    }

    fn held_from(&self, object: &Object, offset: u64) -> u64 {
        let mut at = offset;
        while let Some((piece, begin)) = self.piece_of(object, at).filter(|(p, _)| self.has(*p)) {
            let Some((_, len)) =
                self.entry_of(piece).and_then(|k| k.signed.entry.place_of(piece, self.track.piece_bytes))
            else {
                break;
            };
            at = begin + u64::from(len);
        }
        at
    }

    /// The piece with this byte of an object, and the byte at which that piece begins.
    pub(crate) fn piece_at(&self, object: u64, offset: u64) -> Option<(u64, u64)> {
        self.piece_of(self.objects.get(&object)?, offset)
    }

    fn piece_of(&self, object: &Object, offset: u64) -> Option<(u64, u64)> {
        let (_, number) = object.entries.range(..=offset).next_back()?;
        let entry = &self.entries.get(number)?.signed.entry;
        let within = offset - entry.offset;
        if within >= u64::from(entry.bytes) {
            return None;
        }
        let piece_bytes = u64::from(self.track.piece_bytes).max(1);
        let nth = within / piece_bytes;
        Some((entry.first_piece + nth, entry.offset + nth * piece_bytes))
    }

    /// All pieces of an object that are known, in order.
    pub(crate) fn pieces_of(&self, object: u64) -> impl Iterator<Item = u64> {
        let entries = self.objects.get(&object).into_iter().flat_map(|o| o.entries.values());
        entries.filter_map(|n| self.entries.get(n)).flat_map(|k| k.signed.entry.first_piece..k.signed.entry.end_piece())
    }

    /// Listed objects, oldest first.
    pub(crate) fn listed(&self) -> impl DoubleEndedIterator<Item = (u64, &Object, &Listed)> {
        self.objects.iter().filter_map(|(n, o)| Some((*n, o, o.listed.as_ref()?)))
    }

    /// What is older than the window goes, object by object.
    fn forget_old(&mut self) {
        let Some((.., newest_ms)) = self.newest else { return };
        let since_ms = newest_ms.saturating_sub(self.track.terms.window.0 / 1000);
        let is_first_old = self.objects.values().next().is_some_and(|o| o.time_unix_ms < since_ms);
        if !is_first_old && self.entries.len() <= MAX_ENTRIES / 2 {
            return;
        }
        let maps: BTreeSet<u64> = self
            .objects
            .values()
            .filter(|o| o.time_unix_ms >= since_ms)
            .filter_map(|o| o.listed.as_ref()?.map)
            .collect();
        let mut left = self.entries.len();
        let mut old = Vec::new();
        for (number, object) in &self.objects {
            let is_too_much = left > MAX_ENTRIES / 2;
            if object.time_unix_ms >= since_ms && !is_too_much {
                break;
            }
            if !maps.contains(number) {
                old.push(*number);
                left = left.saturating_sub(object.numbers.len());
            }
        }
        old.into_iter().for_each(|object| self.forget(object));
        let gone = self.gone;
        self.unknown.retain(|n, _| *n > gone);
    }

    fn forget(&mut self, object: u64) {
        let Some(object) = self.objects.remove(&object) else { return };
        for number in object.numbers {
            let Some(known) = self.entries.remove(&number) else { continue };
            let (first, end) = (known.signed.entry.first_piece, known.signed.entry.end_piece());
            self.gone = self.gone.max(number);
            if first == end {
                continue;
            }
            self.by_piece.remove(&first);
            self.gone_piece = self.gone_piece.max(end);
            // Nobody needed what is missing of it: else it would have been given up by now.
            let unneeded: Vec<u64> = self.missing.range(first..end).map(|(p, _)| *p).collect();
            for piece in unneeded {
                self.missing.remove(&piece);
            }
        }
    }

    /// Violated invariants.
    pub(crate) fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut end = 0;
        for (first, number) in &self.by_piece {
            match self.entries.get(number) {
                Some(k) if k.signed.entry.first_piece == *first && *first >= end => end = k.signed.entry.end_piece(),
                _ => problems.push(format!("pieces from {first} are not those of entry {number}")),
            }
        }
        for (number, k) in &self.entries {
            for piece in k.signed.entry.first_piece..k.signed.entry.end_piece() {
                let here = k.have.get(index(&k.signed.entry, piece));
                let lost = self.objects.get(&k.signed.entry.object).is_none_or(|o| o.lost);
                let is_known = here != self.missing.contains_key(&piece);
                if !is_known && (here || !lost) {
                    problems.push(format!("piece {piece} of entry {number} is both here and missing, or neither"));
                }
            }
        }
        for (number, o) in &self.objects {
            if o.numbers.iter().any(|n| !self.entries.contains_key(n)) {
                problems.push(format!("object {number} has entries that are gone"));
            }
        }
        problems
    }
}

fn index(entry: &LiveEntry, piece: u64) -> u32 {
    piece.saturating_sub(entry.first_piece) as u32
}
