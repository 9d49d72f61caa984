//! Viewers as rows of numbers: what each has, who feeds it in which substream, and since when.

use super::stream::Stream;
use headwater_model::live::SUBSTREAMS;
use headwater_model::time::{Micros, Time};

/// Index of a viewer; the source is the first.
pub(super) type Vx = u32;
/// No viewer.
pub(super) const NONE: Vx = Vx::MAX;
/// The node that publishes.
pub(super) const SOURCE: Vx = 0;
/// Substreams.
pub(super) const LANES: usize = SUBSTREAMS as usize;
/// Helpers of one viewer.
pub(super) const HELPERS: usize = 8;
/// A moment or a span without end, in the units of the rows.
pub(super) const NEVER: u32 = u32::MAX;
/// Steps of a viewer's own lags, and how many: what is later counts in the last.
pub(super) const LAG_STEP: Micros = Micros::from_millis(100);
/// See [`LAG_STEP`].
pub(super) const LAG_STEPS: usize = 60;

/// A viewer's place and the number of who has it: places are used again, numbers are not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Who {
    pub(super) vx: Vx,
    pub(super) number: u32,
}

/// How far a viewer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum State {
    /// Nobody has this place.
    #[default]
    Vacant,
    /// Its session is being made.
    Coming,
    Watching,
    /// It said goodbye, and serves on for a while.
    Leaving,
    /// It died, and others find out.
    Dead,
}

/// What concerns a viewer as a whole.
#[derive(Clone, Debug)]
pub(super) struct Viewer {
    pub(super) state: State,
    /// Which that has this place.
    pub(super) number: u32,
    /// Of the scenario.
    pub(super) host: u32,
    /// Bytes per second.
    pub(super) up: u32,
    pub(super) down: u32,
    /// Index of its region or ISP.
    pub(super) place: u8,
    /// Children in all substreams.
    pub(super) outlets: u32,
    /// What its uplink has not sent when the next burst comes.
    pub(super) backlog: Micros,
    /// Work that newcomers made since the last segment, what of it is left, and when that was so.
    pub(super) extra: Micros,
    pub(super) owes: Micros,
    pub(super) owes_at: Time,
    /// Its children were told of its being behind.
    pub(super) behind_at: Time,
    pub(super) helpers: [Vx; HELPERS],
    /// What each has for it, in bytes per second.
    pub(super) promised: [u32; HELPERS],
    /// Newcomers that ask it for segments from before they came.
    pub(super) asked_by: u32,
    /// Substreams that it is asked for by those to whom nobody pushes them, in thousandths.
    pub(super) pulled_milli: u32,
    // ---- its player ----
    pub(super) watches_since: Time,
    /// The segment from which on everything is pushed; nothing before it hears of the stream.
    pub(super) begin: Option<u64>,
    /// The segment from before that which it fetches, from 0, of so many.
    pub(super) early: u64,
    pub(super) earlies: u64,
    /// When helpers were asked for it, what of it is left to the origin.
    pub(super) asked_at: Time,
    pub(super) rest: u64,
    /// From when on helpers bring what it reads next.
    pub(super) helped_since: Time,
    pub(super) start_up: Option<Micros>,
    /// From a segment's being published to its being played.
    pub(super) slack: Option<Micros>,
    pub(super) stalls: u32,
    pub(super) stalled: Micros,
    pub(super) late_pieces: u32,
    pub(super) needed_pieces: u32,
    /// Pieces by their lag.
    pub(super) lags: [u16; LAG_STEPS],
}

impl Viewer {
    pub(super) fn vacant() -> Viewer {
        Viewer {
            state: State::Vacant,
            number: 0,
            host: 0,
            up: 0,
            down: 0,
            place: 0,
            outlets: 0,
            backlog: Micros(0),
            extra: Micros(0),
            owes: Micros(0),
            owes_at: Time(0),
            behind_at: Time(0),
            helpers: [NONE; HELPERS],
            promised: [0; HELPERS],
            asked_by: 0,
            pulled_milli: 0,
            watches_since: Time(0),
            begin: None,
            early: 0,
            earlies: 0,
            asked_at: Time(0),
            rest: 0,
            helped_since: Time(0),
            start_up: None,
            slack: None,
            stalls: 0,
            stalled: Micros(0),
            late_pieces: 0,
            needed_pieces: 0,
            lags: [0; LAG_STEPS],
        }
    }

    /// Whether it sends what it has.
    pub(super) fn serves(&self) -> bool {
        matches!(self.state, State::Watching | State::Leaving)
    }

    /// How long its uplink takes for a piece, `messages` being the part of the stream's rate that it needs for other things.
    pub(super) fn piece_time(&self, stream: &Stream, messages: f64) -> f64 {
        let up = f64::from(self.up);
        super::stream::PIECE as f64 / (up - stream.rate * messages).max(up / 4.0).max(1.0) * 1e6
    }

    /// How much of the time its uplink is busy with what it pushes.
    pub(super) fn busy(&self, stream: &Stream, messages: f64) -> f64 {
        self.piece_time(stream, messages) * f64::from(self.outlets) * stream.pieces() / stream.burst_every.0 as f64
    }

    /// A child is to have so many pieces beside what comes: how long it waits for each piece until it has all, in
    /// microseconds. All that catch up share what pushing leaves of the uplink, and what comes meanwhile waits behind.
    pub(super) fn catches_up(&mut self, now: Time, pieces: f64, stream: &Stream, messages: f64) -> u32 {
        let work = Micros((self.piece_time(stream, messages) * pieces) as u64);
        let left = self.left(stream, messages);
        self.owes = self.owes_at(now, left) + work;
        self.owes_at = now;
        self.extra = self.extra + work;
        let clear = self.owes.0 as f64 / left;
        let come = clear / stream.piece_every();
        (clear / (pieces + come).max(1.0)) as u32
    }

    fn left(&self, stream: &Stream, messages: f64) -> f64 {
        (1.0 - self.busy(stream, messages)).max(0.1)
    }

    fn owes_at(&self, now: Time, left: f64) -> Micros {
        self.owes - Micros((now.since(self.owes_at).0 as f64 * left) as u64)
    }

    /// What children that catch up are still to have, in time of its uplink.
    pub(super) fn still_owes(&self, now: Time, stream: &Stream, messages: f64) -> Micros {
        self.owes_at(now, self.left(stream, messages))
    }

    /// A segment is here: whether in time, or after a stall, by which all that follows is later.
    pub(super) fn plays(&mut self, lag: Micros) {
        let Some(slack) = self.slack else { return };
        if lag > slack {
            self.stalls += 1;
            self.stalled = self.stalled + (lag - slack);
            self.slack = Some(lag);
        }
    }
}

/// Pieces that were held up: those that should have come from a moment on come from another one on, one after the other, until
/// they are as late as others. Moments are in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Held {
    pub(super) since: u32,
    /// When the first of them was published.
    pub(super) first: u32,
    /// From when on they come; nothing is held up where that is 0.
    pub(super) from: u32,
    /// Microseconds from one to the next.
    pub(super) each: u32,
}

/// One substream at all viewers, row by row. Moments are in milliseconds, lags in microseconds.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) parent: Vec<Vx>,
    /// Children of one parent are a list.
    pub(super) first: Vec<Vx>,
    next: Vec<Vx>,
    previous: Vec<Vx>,
    /// Since when this parent feeds it.
    pub(super) since: Vec<u32>,
    /// The last gap: when a parent was heard last, and when another one began.
    pub(super) lost: Vec<u32>,
    pub(super) again: Vec<u32>,
    /// How long it waited for each piece then, in microseconds.
    pub(super) catches_up: Vec<u32>,
    pub(super) spare: Vec<Vx>,
    /// From when on that could push.
    pub(super) spare_open: Vec<u32>,
    /// Of the segment that was looked at last: lag of the first piece, and of each further one after that.
    pub(super) lag: Vec<u32>,
    pub(super) spacing: Vec<u32>,
    pub(super) held: Vec<Held>,
    pub(super) depth: Vec<u8>,
}

impl Lane {
    fn grow(&mut self, rows: usize) {
        for list in [&mut self.parent, &mut self.first, &mut self.next, &mut self.previous, &mut self.spare] {
            list.resize(rows, NONE);
        }
        let catches_up = &mut self.catches_up;
        for list in [&mut self.since, &mut self.lost, &mut self.again, &mut self.spare_open, catches_up] {
            list.resize(rows, 0);
        }
        self.lag.resize(rows, NEVER);
        self.spacing.resize(rows, 0);
        self.held.resize(rows, Held::default());
        self.depth.resize(rows, 0);
    }

    pub(super) fn children(&self, parent: Vx) -> impl Iterator<Item = Vx> + '_ {
        let real = |vx: Vx| Some(vx).filter(|vx| *vx != NONE);
        std::iter::successors(real(self.first[parent as usize]), move |vx| real(self.next[*vx as usize]))
    }

    /// Whether nobody pushes it now.
    pub(super) fn is_open_gap(&self, vx: Vx) -> bool {
        self.again[vx as usize] == NEVER
    }

    /// When who feeds it now began, if that is over.
    pub(super) fn flows(&self, vx: Vx, now_ms: u32) -> bool {
        self.parent[vx as usize] != NONE && self.again[vx as usize] <= now_ms
    }
}

/// All viewers, and the source.
#[derive(Debug)]
pub(super) struct Viewers {
    pub(super) all: Vec<Viewer>,
    pub(super) lanes: Vec<Lane>,
    vacant: Vec<Vx>,
    numbers: u32,
}

/// A moment in the rows' milliseconds.
pub(super) fn ms(at: Time) -> u32 {
    (at.0 / 1000).min(u64::from(NEVER) - 1) as u32
}

impl Viewers {
    pub(super) fn new() -> Viewers {
        let lanes = std::iter::repeat_with(Lane::default).take(LANES).collect();
        Viewers { all: Vec::new(), lanes, vacant: Vec::new(), numbers: 0 }
    }

    /// Somebody comes, who has a place and a number from now on.
    pub(super) fn admit(&mut self, viewer: Viewer) -> Who {
        let number = self.numbers;
        self.numbers += 1;
        let vx = self.vacant.pop().unwrap_or(self.all.len() as Vx);
        if vx as usize == self.all.len() {
            self.all.push(Viewer::vacant());
            // In steps, as each row grows by itself.
            let rows = self.lanes[0].parent.len();
            if rows <= vx as usize {
                let rows = (rows + rows / 4).max(1024);
                self.lanes.iter_mut().for_each(|l| l.grow(rows));
            }
        }
        self.all[vx as usize] = Viewer { number, ..viewer };
        for lane in &mut self.lanes {
            let v = vx as usize;
            (lane.parent[v], lane.spare[v]) = (NONE, NONE);
            (lane.since[v], lane.lost[v], lane.again[v], lane.spare_open[v]) = (0, 0, NEVER, 0);
            (lane.lag[v], lane.spacing[v], lane.held[v], lane.depth[v]) = (NEVER, 0, Held::default(), 0);
        }
        Who { vx, number }
    }

    /// Its place is free.
    pub(super) fn leave(&mut self, now: Time, vx: Vx) {
        for s in 0..LANES {
            let children: Vec<Vx> = self.lanes[s].children(vx).collect();
            for child in children {
                self.unlink(s, child);
                self.open_gap(s, child, now);
            }
            self.unlink(s, vx);
        }
        self.all[vx as usize] = Viewer { number: self.all[vx as usize].number, ..Viewer::vacant() };
        self.vacant.push(vx);
    }

    pub(super) fn who(&self, vx: Vx) -> Who {
        Who { vx, number: self.all[vx as usize].number }
    }

    /// The viewer, if it is still there and watches.
    pub(super) fn watching(&mut self, who: Who) -> Option<&mut Viewer> {
        self.all.get_mut(who.vx as usize).filter(|v| v.number == who.number && v.state == State::Watching)
    }

    /// Whether it is still the same, whatever it does.
    pub(super) fn is_there(&self, who: Who) -> bool {
        self.all.get(who.vx as usize).is_some_and(|v| v.number == who.number && v.state != State::Vacant)
    }

    /// `parent` feeds `child` from now on, in place of whom did.
    pub(super) fn link(&mut self, now: Time, s: usize, parent: Vx, child: Vx) {
        self.unlink(s, child);
        let lane = &mut self.lanes[s];
        let (p, c) = (parent as usize, child as usize);
        let second = lane.first[p];
        lane.next[c] = second;
        lane.previous[c] = NONE;
        if second != NONE {
            lane.previous[second as usize] = child;
        }
        lane.first[p] = child;
        lane.parent[c] = parent;
        lane.since[c] = ms(now);
        self.all[p].outlets += 1;
    }

    pub(super) fn unlink(&mut self, s: usize, child: Vx) {
        let lane = &mut self.lanes[s];
        let c = child as usize;
        let parent = std::mem::replace(&mut lane.parent[c], NONE);
        if parent == NONE {
            return;
        }
        let (before, after) = (lane.previous[c], lane.next[c]);
        match before {
            NONE => lane.first[parent as usize] = after,
            before => lane.next[before as usize] = after,
        }
        if after != NONE {
            lane.previous[after as usize] = before;
        }
        self.all[parent as usize].outlets -= 1;
    }

    /// Nobody pushes it from that moment on; a gap that there is already stays.
    pub(super) fn open_gap(&mut self, s: usize, vx: Vx, since: Time) {
        let lane = &mut self.lanes[s];
        if !lane.is_open_gap(vx) {
            (lane.lost[vx as usize], lane.again[vx as usize]) = (ms(since), NEVER);
        }
    }

    /// Somebody pushes it again from that moment on.
    pub(super) fn close_gap(&mut self, s: usize, vx: Vx, at: Time) {
        self.lanes[s].again[vx as usize] = ms(at);
    }
}
