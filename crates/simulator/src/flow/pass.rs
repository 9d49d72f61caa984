//! One pass over the trees for one segment: when its pieces were at each viewer, and what its player made of that.
//!
//! A parent sends whole pieces to its children in turn. So the k-th child of `c` has a piece `k` piece times after the parent
//! has it, and the next one no sooner than `c` piece times later: pieces of one burst arrive in even steps, which no hop makes
//! shorter. What was held up by a gap comes when that ends, here and at all below.

use super::net::Net;
use super::stream::Stream;
use super::viewers::{Held, LAG_STEP, LAG_STEPS, LANES, Lane, NEVER, NONE, SOURCE, State, Viewer, Viewers, Vx, ms};
use crate::live::Histogram;
use headwater_model::rng::mix64;
use headwater_model::time::{Micros, Time};
use headwater_peer_core::live::LiveConfig;

/// Checking and handing on a piece: some 10 µs of hashing, and two turns of a program's loop.
const HANDLING: Micros = Micros(200);
/// Part of the stream's rate that each node's uplink needs for acknowledgements, entries and positions, as measured in the
/// packet model.
pub(super) const MESSAGES: f64 = 0.03;
/// What waits at a parent is asked of others when it is older than this.
const BACKLOG_MOST: Micros = Micros::from_secs(4);
/// How long before a player needs it a piece is fetched from the origin, and one that helpers were to bring.
const ORIGIN_AHEAD: Micros = LiveConfig::DEFAULT.origin_ahead;
const ORIGIN_AHEAD_OF_HELPERS: Micros = LiveConfig::DEFAULT.origin_ahead_of_helpers;
/// What helpers bring of a substream that nobody pushes comes after about this time: they have it themselves by then, and
/// are asked once it is known.
const HELPED: Micros = Micros::from_secs(1);
/// Rows that are worth a thread.
const PARALLEL_MIN: usize = 4096;

/// How a member sends, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Sends {
    piece: u32,
    /// A piece to each child.
    round: u32,
    backlog: u32,
}

/// What all lanes of one pass share.
struct Pass<'a> {
    net: &'a Net,
    stream: &'a Stream,
    viewers: &'a [Viewer],
    sends: &'a [Sends],
    segment: u64,
    /// Bytes per second that a further fetch from the origin has; nothing while it answers none.
    origin: Option<f64>,
}

/// What came of a pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) lags: Histogram,
    pub(super) peer_bytes: u64,
    pub(super) origin_bytes: u64,
    pub(super) repaired_bytes: u64,
    /// Sum of all pieces' lags.
    pub(super) lag_sum: u128,
    pub(super) depth_sum: u64,
    pub(super) depth_max: u32,
    pub(super) fed: u64,
    pub(super) unfed: u64,
}

impl Tally {
    pub(super) fn and(mut self, o: &Tally) -> Tally {
        self.lags = self.lags.and(&o.lags);
        self.peer_bytes += o.peer_bytes;
        self.origin_bytes += o.origin_bytes;
        self.repaired_bytes += o.repaired_bytes;
        self.lag_sum += o.lag_sum;
        self.depth_sum += o.depth_sum;
        self.depth_max = self.depth_max.max(o.depth_max);
        self.fed += o.fed;
        self.unfed += o.unfed;
        self
    }
}

/// Looks at a segment.
pub(super) fn look(viewers: &mut Viewers, net: &Net, stream: &Stream, segment: u64, origin: Option<f64>) -> Tally {
    let sends: Vec<Sends> = viewers.all.iter().map(|v| sends(v, stream)).collect();
    count_pulled(viewers);
    let Viewers { all, lanes, .. } = viewers;
    let threads =
        if all.len() < PARALLEL_MIN { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
    let pass = Pass { net, stream, viewers: all, sends: &sends, segment, origin };
    let pass = &pass;
    std::thread::scope(|scope| {
        for (number, lanes) in lanes.chunks_mut(LANES.div_ceil(threads)).enumerate() {
            let first = number * LANES.div_ceil(threads);
            scope.spawn(move || (first..).zip(lanes).for_each(|(s, lane)| pass.lane(s, lane)));
        }
    });
    let lags: &[Lane] = lanes;
    let fares: Vec<Fare> = (0..all.len()).map(|vx| Fare { jit: pass.jit(vx as Vx) }).collect();
    let part = all.len().div_ceil(threads).max(1);
    let mut tallies = Vec::new();
    std::thread::scope(|scope| {
        let parts = all.chunks_mut(part).enumerate().map(|(number, viewers)| {
            let (first, fares) = (number * part, &fares);
            scope.spawn(move || {
                let mut tally = Tally::default();
                for (vx, viewer) in (first..).zip(viewers).skip(usize::from(first == 0)) {
                    watch(viewer, vx, lags, &fares[vx], stream, segment, &mut tally);
                }
                tally
            })
        });
        let running: Vec<_> = parts.collect();
        tallies.extend(running.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))));
    });
    for (viewer, sends) in all.iter_mut().zip(&sends) {
        let work = u64::from(sends.round) as f64 * stream.pieces() * stream.bursts as f64;
        let backlog = (viewer.backlog + viewer.extra + Micros(work as u64)) - stream.segment;
        (viewer.backlog, viewer.extra) = (backlog.min(BACKLOG_MOST), Micros(0));
    }
    tallies.iter().fold(Tally::default(), Tally::and)
}

fn sends(v: &Viewer, stream: &Stream) -> Sends {
    if v.outlets == 0 {
        return Sends::default();
    }
    let piece = v.piece_time(stream, MESSAGES);
    let round = piece * f64::from(v.outlets);
    let small = |us: f64| us.min(6e7) as u32;
    Sends { piece: small(piece), round: small(round), backlog: v.backlog.0 as u32 }
}

/// Who is asked for how much that nobody pushes.
fn count_pulled(viewers: &mut Viewers) {
    viewers.all.iter_mut().for_each(|v| v.pulled_milli = 0);
    for vx in 1..viewers.all.len() {
        let v = &viewers.all[vx];
        let helpers = v.helpers.iter().filter(|h| **h != NONE).count() as u32;
        if v.state != State::Watching || helpers == 0 {
            continue;
        }
        let unfed = viewers.lanes.iter().filter(|l| l.parent[vx] == NONE).count() as u32;
        if unfed > 0 {
            let helped = v.helpers;
            for h in helped.into_iter().filter(|h| *h != NONE) {
                viewers.all[h as usize].pulled_milli += unfed * 1000 / helpers;
            }
        }
    }
}

/// What of a viewer all its lanes share.
struct Fare {
    /// Lag of a piece that is fetched from the origin as late as may be; nothing where that is not possible.
    jit: Option<u64>,
}

impl Pass<'_> {
    /// Lags of one substream at all viewers.
    fn lane(&self, s: usize, lane: &mut Lane) {
        let rows = self.viewers.len();
        // 0: not looked at; 1: on the way up from somebody; 2: known.
        let mut known = vec![0u8; rows];
        let mut above: Vec<Vx> = Vec::new();
        known[SOURCE as usize] = 2;
        let source = SOURCE as usize;
        (lane.lag[source], lane.spacing[source], lane.held[source], lane.depth[source]) = (0, 0, Held::default(), 0);
        for vx in 1..rows {
            let mut at = vx as Vx;
            while known[at as usize] == 0 && self.viewers[at as usize].state != State::Vacant {
                known[at as usize] = 1;
                above.push(at);
                match lane.parent[at as usize] {
                    NONE => break,
                    parent => at = parent,
                }
            }
            while let Some(at) = above.pop() {
                let parent = lane.parent[at as usize];
                // Who would be fed by one below it (as what was decided is on its way) is not fed.
                let feeds = parent != NONE && known[parent as usize] == 2 && lane.lag[parent as usize] != NEVER;
                if feeds {
                    self.fed(s, lane, parent, at)
                } else {
                    self.unfed(lane, at)
                }
                known[at as usize] = 2;
            }
        }
    }

    fn fed(&self, s: usize, lane: &mut Lane, parent: Vx, child: Vx) {
        let (p, c) = (parent as usize, child as usize);
        let (sends, viewer) = (self.sends[p], &self.viewers[c]);
        let outlets = self.viewers[p].outlets.max(1);
        // Its turn is always the same: children are served in one order.
        let turn = 1 + (mix64(u64::from(child) << 8 | s as u64) % u64::from(outlets)) as u32;
        let down = (super::stream::PIECE * 1_000_000 / u64::from(viewer.down.max(1))) as u32;
        let way = self.net.way(self.viewers[p].place, viewer.place).0 as u32;
        let hop = turn.saturating_mul(sends.piece).saturating_add(down + way + HANDLING.0 as u32);
        lane.lag[c] = lane.lag[p].saturating_add(sends.backlog).saturating_add(hop);
        lane.spacing[c] = lane.spacing[p].max(sends.round).max(down);
        lane.depth[c] = lane.depth[p].saturating_add(1);
        let (after, since) = (hop / 1000, lane.since[c]);
        let own = match (lane.lost[c], lane.again[c]) {
            (0, from) => Held {
                since: 0,
                first: viewer.begin.map_or(0, |b| ms(self.stream.begun(b))),
                from,
                each: lane.catches_up[c],
            },
            (lost, from) => {
                Held { since: lost, first: lost.saturating_sub(lane.lag[c] / 1000), from, each: lane.catches_up[c] }
            }
        };
        // What came before this parent took over came from the former one.
        let later = |h: Held| Held {
            since: h.since.saturating_add(after).max(since),
            from: if h.from == 0 { 0 } else { h.from.saturating_add(after) },
            ..h
        };
        let handed_on = later(lane.held[p]);
        // Who is held up twice has pieces no sooner than the worse of both lets it.
        let at = self.stream.published(self.segment);
        let comes = |h: &Held| if h.from == 0 { 0 } else { comes_after(h, at, 0, self.stream) };
        lane.held[c] = if comes(&own) >= comes(&handed_on) { own } else { handed_on };
    }

    /// Nobody pushes it: helpers bring it, or the origin.
    fn unfed(&self, lane: &mut Lane, child: Vx) {
        let c = child as usize;
        let viewer = &self.viewers[c];
        let lag = if self.helped_share(viewer) >= 1.0 {
            Some(HELPED.0)
        } else {
            self.jit_after(child, ORIGIN_AHEAD_OF_HELPERS)
        };
        lane.lag[c] = lag.map_or(NEVER, |l| l.min(u64::from(NEVER - 1)) as u32);
        (lane.spacing[c], lane.held[c], lane.depth[c]) = (0, Held::default(), 0);
    }

    /// Part of what nobody pushes to a viewer that its helpers bring.
    fn helped_share(&self, viewer: &Viewer) -> f64 {
        let helpers = viewer.helpers.iter().filter(|h| **h != NONE);
        let count = helpers.clone().count() as f64;
        let lane_rate = self.stream.rate / LANES as f64;
        let brings = |h: &Vx| {
            let h = &self.viewers[*h as usize];
            let left = f64::from(h.up) - self.stream.rate * MESSAGES - f64::from(h.outlets) * lane_rate;
            let asked = f64::from(h.pulled_milli) / 1000.0 * lane_rate;
            if h.serves() { (left.max(0.0) / asked.max(1.0)).min(1.0) } else { 0.0 }
        };
        helpers.map(brings).sum::<f64>() / count.max(1.0)
    }

    fn jit(&self, vx: Vx) -> Option<u64> {
        self.jit_after(vx, ORIGIN_AHEAD)
    }

    /// A player that has not begun is not waited for longer than those that hold back least.
    fn jit_after(&self, vx: Vx, ahead: Micros) -> Option<u64> {
        let v = &self.viewers[vx as usize];
        let share = self.origin?;
        let slack = v.slack.unwrap_or(self.stream.segment.times(2));
        let bytes = self.stream.lane_bytes() as f64 / self.stream.bursts as f64;
        let takes = self.net.to_origin(v.place).0 * 4 + (bytes / share.min(f64::from(v.down)).max(1.0) * 1e6) as u64;
        Some(slack.0.saturating_sub(ahead.0) + takes)
    }
}

/// A segment at one viewer: pieces that came, and what its player makes of it.
fn watch(
    viewer: &mut Viewer,
    vx: usize,
    lanes: &[Lane],
    fare: &Fare,
    stream: &Stream,
    segment: u64,
    tally: &mut Tally,
) {
    if viewer.state != State::Watching || viewer.begin.is_none_or(|begin| segment < begin) {
        return;
    }
    let published = stream.published(segment);
    let slack = viewer.slack.map_or(u64::MAX, |s| s.0);
    let (mut longest, mut origin_pieces, mut pieces, mut held_pieces, mut late) = (0, 0u64, 0u64, 0u64, 0);
    for (s, lane) in lanes.iter().enumerate() {
        let parent = lane.parent[vx];
        if lane.depth[vx] > 0 {
            tally.fed += 1;
            tally.depth_sum += u64::from(lane.depth[vx]);
            tally.depth_max = tally.depth_max.max(u32::from(lane.depth[vx]));
        } else {
            tally.unfed += 1;
        }
        let held = lane.held[vx];
        for burst in 0..stream.bursts {
            let at = published - stream.burst_every.times(stream.bursts - 1 - burst);
            for piece in 0..pieces_of(s, segment * stream.bursts + burst, stream.burst_pieces) {
                let mut lag = u64::from(lane.lag[vx]) + piece * u64::from(lane.spacing[vx]);
                if held.from != 0 && ms(at + Micros(lag)) >= held.since {
                    let comes = comes_after(&held, at, piece, stream);
                    held_pieces += u64::from(comes > lag);
                    lag = lag.max(comes);
                }
                let is_pushed = parent != NONE && lane.lag[vx] != NEVER;
                let early_by = published.since(at).0;
                // Whoever needs it in time takes it from the origin before it is late.
                match fare.jit.map(|jit| jit + early_by) {
                    Some(jit) if lag > jit || !is_pushed => {
                        origin_pieces += 1;
                        lag = lag.min(jit);
                    }
                    _ => {}
                }
                pieces += 1;
                let after_segment = lag.saturating_sub(early_by);
                late += u32::from(after_segment > slack);
                longest = longest.max(after_segment);
                let lag = Micros(lag.min(60_000_000));
                tally.lags.add(lag);
                tally.lag_sum += u128::from(lag.0);
                let step = ((lag.0 / LAG_STEP.0) as usize).min(LAG_STEPS - 1);
                viewer.lags[step] = viewer.lags[step].saturating_add(1);
            }
        }
    }
    let piece_bytes = stream.segment_bytes / pieces.max(1);
    tally.peer_bytes += (pieces - origin_pieces) * piece_bytes;
    tally.origin_bytes += origin_pieces * piece_bytes;
    tally.repaired_bytes += held_pieces.max(origin_pieces) * piece_bytes;
    if viewer.start_up.is_some() {
        viewer.needed_pieces += pieces as u32;
        viewer.late_pieces += late;
        viewer.plays(Micros(longest.min(600_000_000)));
    }
}

/// Lag of a piece that is held up: those before it come first.
fn comes_after(held: &Held, at: Time, piece: u64, stream: &Stream) -> u64 {
    if held.from == NEVER {
        return u64::MAX;
    }
    let before = at.since(Time(u64::from(held.first) * 1000)).0 as f64 / stream.piece_every();
    let comes =
        Time(u64::from(held.from) * 1000) + Micros(((before + piece as f64 + 1.0) * f64::from(held.each)) as u64);
    comes.since(at).0
}

/// Pieces of a substream in a burst: they are numbered on and on, and go round.
fn pieces_of(s: usize, burst: u64, burst_pieces: u64) -> u64 {
    let lanes = LANES as u64;
    let before = |end: u64| (end + lanes - 1 - s as u64) / lanes;
    before((burst + 1) * burst_pieces) - before(burst * burst_pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pieces_are_in_some_substream() {
        for (burst, pieces) in [(0, 62), (1, 62), (7, 62), (3, 7), (0, 1)] {
            let all: u64 = (0..LANES).map(|s| pieces_of(s, burst, pieces)).sum();
            assert_eq!(all, pieces, "burst {burst}");
        }
        assert_eq!((pieces_of(0, 0, 62), pieces_of(7, 0, 62), pieces_of(7, 1, 62)), (8, 7, 8));
    }
}
