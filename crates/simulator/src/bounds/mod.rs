//! Lower bounds on file makespans and on what a live source must send: the other half of every performance claim.
//!
//! Sizes are in bytes, rates in bytes per second, times in seconds, copies and loads as said. Fluid bounds let bytes be
//! forwarded the moment they arrive and ignore latency. A demand that nobody can serve takes `f64::INFINITY`; nothing to
//! deliver takes 0. Closed forms do not check their arguments: rates are finite or infinite but not negative.

mod lab;
mod program;
#[cfg(test)]
mod tests;

pub use lab::{Calibrated, lab_makespan};
pub(crate) use lab::{lab_makespan_where, region_makespan};
pub use program::{SharedLink, blocked_pairs_makespan, shared_links_makespan};

/// The most nodes that [`blocked_pairs_makespan`] takes: 64 peers and an origin. Its program has a variable per pair.
pub const PROGRAM_NODES_MAX: usize = 65;

/// A node of a file distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FileNode {
    /// Uplink, finite.
    pub up: f64,
    /// Downlink; may be infinite.
    pub down: f64,
    /// Never sends to or receives from another dial-only node. Read by [`mixed_makespan`] alone.
    pub dial_only: bool,
    /// Waits for the file. A node that neither waits nor starts full may relay.
    pub receives: bool,
    /// Has the whole file from the beginning: an origin, a seed, a preloaded waypoint.
    pub starts_full: bool,
}

/// Why a makespan bound could not be computed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MakespanError {
    /// The linear program would grow too large.
    #[error("{nodes} nodes; the linear program takes {PROGRAM_NODES_MAX}")]
    TooManyNodes {
        /// How many were given.
        nodes: usize,
    },
    /// A rate is negative or NaN, an uplink infinite, or the file's size not a finite number.
    #[error("a rate or the file size is out of range")]
    OutOfRange,
    /// The solver gave up.
    #[error("linear program: {0}")]
    Solver(#[from] microlp::Error),
}

/// `max{F/u_s, F/d_min, N·F/(u_s+U)}`: fluid makespan for `n` receivers with uplinks `sum_up` in total and the slowest
/// downlink `min_down` (Kumar, Ross 2006). Reached where every pair may exchange.
pub fn fluid_makespan(file_bytes: f64, source_up: f64, min_down: f64, sum_up: f64, n: usize) -> f64 {
    if n == 0 {
        return 0.0;
    }
    time(file_bytes, source_up).max(time(file_bytes, min_down)).max(time(n as f64 * file_bytes, source_up + sum_up))
}

/// `1 + ⌊log2 N⌋/M`, in units of the time one uplink takes for the file: equal uplinks, `pieces` equal pieces, each
/// forwarded once complete (Mundinger, Weber, Weiss 2008). 0 for no receivers; 0 pieces count as 1.
pub fn equal_pieces_makespan(n: usize, pieces: u32) -> f64 {
    match n.checked_ilog2() {
        None => 0.0,
        Some(doublings) => 1.0 + f64::from(doublings) / f64::from(pieces.max(1)),
    }
}

/// `F/u_s + ⌊log2 N⌋·(F/M)/u_max`, with `u_max` the fastest uplink, the source's included: the same for unequal
/// uplinks, where each copy of a piece comes from one sender.
///
/// The source cannot have sent every piece once before `F/u_s`; the last of them then has one copy besides the source's.
/// A node's j-th further copy of it takes at least j piece times of the fastest uplink, so copies at best double.
pub fn first_copy_makespan(file_bytes: f64, pieces: u32, source_up: f64, fastest_peer_up: f64, n: usize) -> f64 {
    let Some(doublings) = n.checked_ilog2() else {
        return 0.0;
    };
    let piece_bytes = file_bytes / f64::from(pieces.max(1));
    let doubling = time(piece_bytes, source_up.max(fastest_peer_up));
    let spread = if doublings == 0 { 0.0 } else { f64::from(doublings) * doubling };
    time(file_bytes, source_up) + spread
}

/// `max{F/u_s, n_D·F/(u_s+U_open), N·F/(u_s+U)}`: `n_dial_only` of the `n` receivers exchange with the source and with
/// open peers (uplinks `open_up` in total) but not with each other; `sum_up` is the uplink of all peers. Transport cuts
/// around everyone, the dial-only ones, and the source. A waypoint that starts full adds to `source_up`.
pub fn dial_only_makespan(
    file_bytes: f64,
    source_up: f64,
    open_up: f64,
    sum_up: f64,
    n_dial_only: usize,
    n: usize,
) -> f64 {
    fluid_makespan(file_bytes, source_up, f64::INFINITY, sum_up, n)
        .max(time(n_dial_only as f64 * file_bytes, source_up + open_up))
}

/// `(1+n_O)·F/u_s`: `n_origin_only` receivers may take from the source alone and send to nobody, and `others` says
/// whether there are other receivers, for whom one more copy has to leave the source.
pub fn origin_only_makespan(file_bytes: f64, source_up: f64, n_origin_only: usize, others: bool) -> f64 {
    let copies = n_origin_only + usize::from(others);
    time(copies as f64 * file_bytes, source_up)
}

/// The largest bound of this module that is valid for a population fed by an origin of `source_up` that reaches
/// everyone: fluid, dial-only, and the linear program where [`PROGRAM_NODES_MAX`] allows. `pieces` adds
/// [`first_copy_makespan`]; `None` leaves pieces out, for protocols that forward unfinished ones.
pub fn mixed_makespan(
    file_bytes: f64,
    pieces: Option<u32>,
    source_up: f64,
    nodes: &[FileNode],
) -> Result<f64, MakespanError> {
    let origin = FileNode { up: source_up, down: 0.0, dial_only: false, receives: false, starts_full: true };
    let all: Vec<FileNode> = std::iter::once(origin).chain(nodes.iter().copied()).collect();
    check_ranges(file_bytes, &all)?;
    let sum_up = |which: &dyn Fn(&FileNode) -> bool| -> f64 { all.iter().filter(|x| which(x)).map(|x| x.up).sum() };
    let waiting = || all.iter().filter(|x| x.receives && !x.starts_full);
    let n = waiting().count();
    let full_up = sum_up(&|x| x.starts_full);
    let peer_up = sum_up(&|x| !x.starts_full);
    let min_down = waiting().map(|x| x.down).fold(f64::INFINITY, f64::min);
    let mut bound = fluid_makespan(file_bytes, full_up, min_down, peer_up, n);

    let dial_only_bytes = waiting().filter(|x| x.dial_only).count() as f64 * file_bytes;
    bound = bound.max(time(dial_only_bytes, sum_up(&|x| !x.dial_only)));
    if let Some(pieces) = pieces {
        let peers = all.iter().filter(|x| !x.starts_full);
        let fastest = peers.map(|x| x.up).fold(0.0, f64::max);
        bound = bound.max(first_copy_makespan(file_bytes, pieces, full_up, fastest, n));
    }
    if all.len() <= PROGRAM_NODES_MAX {
        let open = |from: usize, to: usize| !(all[from].dial_only && all[to].dial_only);
        bound = bound.max(blocked_pairs_makespan(file_bytes, &all, open)?);
    }
    Ok(bound)
}

fn check_ranges(file_bytes: f64, nodes: &[FileNode]) -> Result<(), MakespanError> {
    let file_fits = file_bytes.is_finite() && file_bytes >= 0.0;
    let node_fits = |x: &FileNode| x.up.is_finite() && x.up >= 0.0 && x.down >= 0.0;
    if file_fits && nodes.iter().all(node_fits) { Ok(()) } else { Err(MakespanError::OutOfRange) }
}

fn time(bytes: f64, rate: f64) -> f64 {
    if bytes > 0.0 { bytes / rate } else { 0.0 }
}

/// `min{u_s, (u_s+U)/N}`: the highest rate that `n` viewers can all get (Kumar, Liu, Ross 2007).
pub fn live_capacity(source_up: f64, sum_up: f64, n: usize) -> f64 {
    source_up.min((source_up + sum_up) / n.max(1) as f64)
}

/// `S_min = max{r, N·r − Σ min(u_i, (N−1)r)}`: what origin and waypoints have to send, in bytes per second, when the
/// viewers have uplinks `ups`. 0 without viewers.
pub fn live_server_load(rate: f64, ups: &[f64]) -> f64 {
    lightweight_server_load(rate, ups, &[])
}

/// `S_min = max{r, n_L·r + max(0, n_R·r − U_L) − U_R}`: lightweight viewers may send to regular ones only. Each term of
/// `U_R` is capped at `(N−1)r`, each of `U_L` at `n_R·r`. Empty or zero `lightweight_ups` are the special cases
/// [`live_server_load`] and leaf-only lightweight viewers, `max{r, N·r − U_R}`.
pub fn lightweight_server_load(rate: f64, regular_ups: &[f64], lightweight_ups: &[f64]) -> f64 {
    let (regular, lightweight) = (regular_ups.len() as f64, lightweight_ups.len() as f64);
    let n = regular + lightweight;
    if n == 0.0 {
        return 0.0;
    }
    let capped = |ups: &[f64], cap: f64| ups.iter().map(|u| u.min(cap)).sum::<f64>();
    let left = (regular * rate - capped(lightweight_ups, regular * rate)).max(0.0);
    rate.max(lightweight * rate + left - capped(regular_ups, (n - 1.0) * rate))
}

/// `max{1, n_k − U_k/r}`: copies of a live stream that must enter a region of `n` viewers with uplinks `region_up` in
/// total; with `feeds` 2 at least two, for regions that are fed twice. 0 without viewers.
pub fn region_copies_live(n: usize, region_up: f64, rate: f64, feeds: u32) -> f64 {
    if n == 0 {
        return 0.0;
    }
    f64::from(feeds).max(n as f64 - region_up / rate)
}

/// `max{F, n_k·F − U_k·T}/F`: copies of a file that must enter a region where all `n` have it after `deadline` seconds.
pub fn region_copies_file(n: usize, file_bytes: f64, region_up: f64, deadline: f64) -> f64 {
    if n == 0 {
        return 0.0;
    }
    (n as f64 - region_up * deadline / file_bytes).max(1.0)
}

/// `S = r·Σ max{κ, n_k − U_k/r}`, in bytes per second: clusters of (viewers, uplink in total) that take nothing from
/// each other, with κ = `feeds` into each.
pub fn clustered_server_load(rate: f64, feeds: u32, clusters: &[(usize, f64)]) -> f64 {
    let copies = |(n, up): &(usize, f64)| region_copies_live(*n, *up, rate, feeds);
    rate * clusters.iter().map(copies).sum::<f64>()
}

/// `1 − (1−e^−c)/c`: the share that peers can deliver of a video-on-demand swarm of mean concurrency `c`.
pub fn vod_offload(concurrency: f64) -> f64 {
    if concurrency > 0.0 { 1.0 + (-concurrency).exp_m1() / concurrency } else { 0.0 }
}

/// `r/(2K)`, in bytes per second: what a contributing peer loses on average because it forwards whole substreams.
pub fn rounding_loss(rate: f64, substreams: u32) -> f64 {
    rate / (2.0 * f64::from(substreams))
}

/// The least depth in which `substreams` interior-disjoint trees of that many children a node hold `n` peers:
/// the smallest h with `K^h ≥ n`. `None` for fewer than two substreams, whose only tree is a chain.
pub fn tree_depth(n: u64, substreams: u32) -> Option<u32> {
    if substreams < 2 {
        return None;
    }
    let mut depth = 0;
    let mut held = 1_u64;
    while held < n {
        held = held.saturating_mul(u64::from(substreams));
        depth += 1;
    }
    Some(depth)
}
