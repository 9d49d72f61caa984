//! A viewer's player: the buffer of `headwater play --probe`, the playlist that it loads, and what came in time.

use headwater_hls::player::{Player, Rules};
use headwater_model::time::{Micros, Time};
use headwater_peer_core::live::Channel;

/// Of the pieces that players needed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InTime {
    /// All.
    pub(super) needed: u64,
    /// Those that were not there when their segment was to be played.
    pub(super) late: u64,
    /// Segments of which something never came.
    pub(super) lost_segments: u64,
}

/// A player.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) player: Player,
    hold_back: Micros,
    segment: Micros,
    /// The segment that it reads, or waits for until it is listed.
    next: Option<u64>,
    pub(super) reads: bool,
    /// The last that it knows of.
    newest: u64,
    /// When its buffer runs empty.
    dry_at: Time,
    late_of_this: u64,
    pub(super) in_time: InTime,
}

impl Watch {
    /// It opens the stream now.
    pub(super) fn new(now: Time, hold_back: Micros, segment: Micros) -> Watch {
        Watch {
            player: Player::new(now, Rules::default()),
            hold_back,
            segment,
            next: None,
            reads: false,
            newest: 0,
            dry_at: Time(u64::MAX),
            late_of_this: 0,
            in_time: InTime::default(),
        }
    }

    /// Whether it has seen a playlist.
    pub(super) fn has_begun(&self) -> bool {
        self.next.is_some()
    }
    /// The segment that it reads.
    pub(super) fn segment(&self) -> Option<u64> {
        self.next.filter(|_| self.reads)
    }

    /// It loads the playlist that the node makes now: whole segments that are listed, up to the first gap. Returns when it
    /// loads it again; `None` where the node answers as soon as there is one.
    pub(super) fn load(&mut self, now: Time, channel: &Channel) -> Option<Time> {
        let whole = channel.listed().filter(|(_, o, _)| o.bytes.is_some() && !o.lost).map(|(_, _, l)| l.sequence);
        let (mut first, mut last) = (None, None);
        for sequence in whole {
            first.get_or_insert(sequence);
            last = Some(sequence);
        }
        let (first, last) = first.zip(last)?;
        let news = self.next.is_none() || last > self.newest;
        self.newest = self.newest.max(last);
        let held_back = self.hold_back.0.div_ceil(self.segment.0.max(1)).max(1);
        let begin = (last + 1).saturating_sub(held_back).max(first);
        self.next.get_or_insert(begin);
        // RFC 8216, section 6.3.4: half as long where there was nothing new.
        Some(now + if news { self.segment } else { Micros(self.segment.0 / 2) })
    }

    /// The segment that it begins to read now, if it wants one that is listed.
    pub(super) fn begins(&mut self, now: Time) -> Option<u64> {
        let next = self.next.filter(|n| !self.reads && *n <= self.newest)?;
        self.player.pass(now);
        if !self.player.wants_more() {
            return None;
        }
        self.reads = true;
        self.late_of_this = 0;
        Some(next)
    }

    /// A piece of the segment that it reads came.
    pub(super) fn came(&mut self, now: Time) {
        self.late_of_this += u64::from(now > self.dry_at);
    }

    /// All `pieces` of it are here.
    pub(super) fn whole(&mut self, now: Time, pieces: u32) {
        if self.player.startup().is_some() {
            self.in_time.needed += u64::from(pieces);
            self.in_time.late += self.late_of_this;
        }
        self.player.arrived(now, self.segment);
        self.dry_at = now + self.player.buffered();
        self.goes_on();
    }

    /// Some of it will never come.
    pub(super) fn lost(&mut self, pieces: u32, missing: u32) {
        self.in_time.needed += u64::from(pieces);
        self.in_time.late += u64::from(missing).max(self.late_of_this);
        self.in_time.lost_segments += 1;
        self.goes_on();
    }

    fn goes_on(&mut self) {
        self.next = self.next.map(|n| n + 1);
        self.reads = false;
    }
}
