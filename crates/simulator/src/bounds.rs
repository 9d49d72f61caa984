//! Lower bounds on file makespans and on what a live source must send: the other half of every performance claim.
//!
//! Sizes are in bytes, rates in bytes per second, times in seconds, copies and loads as said. Fluid bounds let bytes be
//! forwarded the moment they arrive and ignore latency. A demand that nobody can serve takes `f64::INFINITY`; nothing to
//! deliver takes 0. Closed forms do not check their arguments: rates are finite or infinite but not negative.

use microlp::{ComparisonOp, LinearExpr, OptimizationDirection, Problem, Variable};

/// The most nodes that [`blocked_pairs_makespan`] takes: 64 peers and an origin. Its program has a variable per pair.
pub const PROGRAM_NODES_MAX: usize = 65;

/// Rounds of cuts added to the linear program. Stopping early leaves a valid, smaller bound, and the first rounds raise
/// it most.
const CUT_ROUNDS_MAX: usize = 6;

/// A cut counts as violated when it lacks more than this fraction of the file.
const CUT_TOLERANCE: f64 = 1e-6;

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

/// The makespan below which no schedule can come when only `permitted(from, to)` pairs exchange; the origin is one of
/// the nodes. A linear program, right to about 1e-6: minimise T so that each waiting node gets the file over permitted
/// pairs, no node sends more than `up·T` or receives more than `down·T`, and every cut between the full nodes and a
/// waiting one carries the whole file.
///
/// Every cut is a valid bound, since what is sent within a set that starts empty must first have entered it. The cut
/// around all full nodes is there from the start; others are added while the solution violates them.
///
/// # Errors
/// More than [`PROGRAM_NODES_MAX`] nodes, numbers out of range, or a failure of the solver.
pub fn blocked_pairs_makespan(
    file_bytes: f64,
    nodes: &[FileNode],
    permitted: impl Fn(usize, usize) -> bool,
) -> Result<f64, MakespanError> {
    if nodes.len() > PROGRAM_NODES_MAX {
        return Err(MakespanError::TooManyNodes { nodes: nodes.len() });
    }
    check_ranges(file_bytes, nodes)?;
    let waiting: Vec<usize> = (0..nodes.len()).filter(|i| nodes[*i].receives && !nodes[*i].starts_full).collect();
    if waiting.is_empty() || file_bytes == 0.0 {
        return Ok(0.0);
    }
    let can_send = |from: usize, to: usize| {
        let (sender, receiver) = (&nodes[from], &nodes[to]);
        from != to && sender.up > 0.0 && receiver.down > 0.0 && !receiver.starts_full && permitted(from, to)
    };
    let reached = reached_from_full(nodes, can_send);
    if waiting.iter().any(|i| !reached[*i]) {
        return Ok(f64::INFINITY);
    }
    let usable = |from: usize, to: usize| reached[from] && can_send(from, to);
    let least = transport_floor(file_bytes, nodes, &waiting, usable);
    // Files per unit of rate in the least makespan: with that as unit of time the solver's numbers stay near 1.
    let scale = least / file_bytes;
    let mut program = Transport::new(nodes.len(), usable);
    let first_copy: Vec<bool> = nodes.iter().map(|x| x.starts_full).collect();
    program.add_sending_rows(nodes, scale);
    program.add_receiving_rows(nodes, &waiting, scale);
    program.add_relay_rows(nodes);
    let first_row = program.across(&first_copy);
    program.problem.add_constraint(first_row, ComparisonOp::Ge, 1.0);

    let mut solution = program.problem.solve()?;
    for _ in 0..CUT_ROUNDS_MAX {
        let mut flows = vec![vec![0.0; nodes.len()]; nodes.len()];
        for (from, to, pair) in &program.pairs {
            flows[*from][*to] = solution[*pair];
        }
        let mut cuts: Vec<Vec<bool>> =
            waiting.iter().filter_map(|sink| narrow_cut(&flows, &first_copy, *sink)).collect();
        cuts.sort();
        cuts.dedup();
        if cuts.is_empty() {
            break;
        }
        for cut in cuts {
            solution = solution.add_constraint(program.across(&cut), ComparisonOp::Ge, 1.0)?;
        }
    }
    Ok(solution[program.makespan] * least)
}

/// The linear program: a variable for the makespan and one for the bytes of each usable pair.
struct Transport {
    problem: Problem,
    makespan: Variable,
    pairs: Vec<(usize, usize, Variable)>,
}

impl Transport {
    fn new(nodes: usize, usable: impl Fn(usize, usize) -> bool) -> Self {
        let mut problem = Problem::new(OptimizationDirection::Minimize);
        let makespan = problem.add_var(1.0, (1.0, f64::INFINITY));
        let mut pairs = Vec::new();
        for from in 0..nodes {
            for to in (0..nodes).filter(|to| usable(from, *to)) {
                pairs.push((from, to, problem.add_var(0.0, (0.0, f64::INFINITY))));
            }
        }
        Self { problem, makespan, pairs }
    }

    /// A node that could send everybody the file in the least makespan needs no row.
    fn add_sending_rows(&mut self, nodes: &[FileNode], scale: f64) {
        for (sender, node) in nodes.iter().enumerate() {
            let files = node.up * scale;
            if files < nodes.len() as f64 {
                let mut row = self.sum(|from, _| from == sender);
                row.add(self.makespan, -files);
                self.problem.add_constraint(row, ComparisonOp::Le, 0.0);
            }
        }
    }

    /// A waiting node takes the file once (more is waste, and its downlink is in the makespan's lower limit); a relay
    /// takes at most that.
    fn add_receiving_rows(&mut self, nodes: &[FileNode], waiting: &[usize], scale: f64) {
        for (receiver, node) in nodes.iter().enumerate().filter(|(_, x)| !x.starts_full) {
            let waits = waiting.contains(&receiver);
            let kind = if waits { ComparisonOp::Eq } else { ComparisonOp::Le };
            let mut row = self.sum(|_, to| to == receiver);
            self.problem.add_constraint(row.clone(), kind, 1.0);
            if !waits && node.down * scale < 1.0 {
                row.add(self.makespan, -node.down * scale);
                self.problem.add_constraint(row, ComparisonOp::Le, 0.0);
            }
        }
    }

    /// A relay passes to each other node no more than it took: these are cuts that would be violated first.
    fn add_relay_rows(&mut self, nodes: &[FileNode]) {
        for (relay, _) in nodes.iter().enumerate().filter(|(_, x)| !x.starts_full && !x.receives) {
            for (from, _, pair) in &self.pairs {
                if *from == relay {
                    let mut row = self.sum(|_, to| to == relay);
                    row.add(*pair, -1.0);
                    self.problem.add_constraint(row, ComparisonOp::Ge, 0.0);
                }
            }
        }
    }

    /// What crosses from the nodes marked true to the others.
    fn across(&self, near: &[bool]) -> LinearExpr {
        self.sum(|from, to| near[from] && !near[to])
    }

    fn sum(&self, which: impl Fn(usize, usize) -> bool) -> LinearExpr {
        let chosen = self.pairs.iter().filter(|(from, to, _)| which(*from, *to));
        chosen.map(|(_, _, pair)| (*pair, 1.0)).collect()
    }
}

/// A makespan that the linear program cannot undercut: for everyone, for the first copy and for each receiver alone.
fn transport_floor(
    file_bytes: f64,
    nodes: &[FileNode],
    waiting: &[usize],
    usable: impl Fn(usize, usize) -> bool,
) -> f64 {
    let up =
        |which: &dyn Fn(usize) -> bool| -> f64 { (0..nodes.len()).filter(|i| which(*i)).map(|i| nodes[i].up).sum() };
    let everyone = up(&|from| (0..nodes.len()).any(|to| usable(from, to)));
    let first_copy = up(&|from| nodes[from].starts_full);
    let mut floor = time(waiting.len() as f64 * file_bytes, everyone).max(time(file_bytes, first_copy));
    for receiver in waiting {
        let senders = up(&|from| usable(from, *receiver));
        floor = floor.max(time(file_bytes, senders.min(nodes[*receiver].down)));
    }
    floor
}

/// The near side of a minimum cut between the full nodes and `sink`, if less than the file crosses it (Edmonds, Karp
/// 1972: augment along shortest paths).
fn narrow_cut(flows: &[Vec<f64>], full: &[bool], sink: usize) -> Option<Vec<bool>> {
    let mut room = flows.to_vec();
    let mut arrived = 0.0;
    loop {
        let mut previous: Vec<Option<usize>> = vec![None; full.len()];
        let mut near = full.to_vec();
        let mut queue: Vec<usize> = (0..full.len()).filter(|i| full[*i]).collect();
        let mut next = 0;
        while next < queue.len() && !near[sink] {
            let from = queue[next];
            next += 1;
            for to in 0..full.len() {
                if !near[to] && room[from][to] > CUT_TOLERANCE * 1e-3 {
                    near[to] = true;
                    previous[to] = Some(from);
                    queue.push(to);
                }
            }
        }
        if !near[sink] {
            return (arrived < 1.0 - CUT_TOLERANCE).then_some(near);
        }
        let step = |to: &(usize, usize)| previous[to.0].map(|from| (from, to.0));
        let path: Vec<(usize, usize)> = std::iter::successors(step(&(sink, sink)), step).collect();
        let least = path.iter().map(|(from, to)| room[*from][*to]).fold(f64::INFINITY, f64::min);
        for (from, to) in path {
            room[from][to] -= least;
            room[to][from] += least;
        }
        arrived += least;
    }
}

fn reached_from_full(nodes: &[FileNode], can_send: impl Fn(usize, usize) -> bool) -> Vec<bool> {
    let mut reached: Vec<bool> = nodes.iter().map(|x| x.starts_full).collect();
    let mut queue: Vec<usize> = (0..nodes.len()).filter(|i| reached[*i]).collect();
    while let Some(from) = queue.pop() {
        let newly: Vec<usize> = (0..nodes.len()).filter(|to| !reached[*to] && can_send(from, *to)).collect();
        for to in &newly {
            reached[*to] = true;
        }
        queue.extend(newly);
    }
    reached
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPEN: FileNode =
        FileNode { up: 1.0, down: f64::INFINITY, dial_only: false, receives: true, starts_full: false };
    const FULL: FileNode = FileNode { receives: false, starts_full: true, ..OPEN };

    fn assert_near(actual: f64, expected: f64) {
        let near = (actual - expected).abs() <= 1e-5 * expected.abs();
        assert!(near || actual == expected, "{actual} instead of {expected}");
    }

    fn program(nodes: &[FileNode], permitted: impl Fn(usize, usize) -> bool) -> f64 {
        blocked_pairs_makespan(1.0, nodes, permitted).unwrap()
    }

    fn population(ups: &[f64]) -> Vec<FileNode> {
        ups.iter().map(|up| FileNode { up: *up, ..OPEN }).collect()
    }

    /// Rates from a modem's to a server's.
    fn any_rate() -> impl Strategy<Value = f64> {
        prop_oneof![Just(0.0), Just(1e3), 1e3..1e5, 1e5..1e8]
    }

    fn any_node() -> impl Strategy<Value = FileNode> {
        (any_rate(), 1e4..1e9, any::<bool>(), 0..6).prop_map(|(up, down, dial_only, kind)| FileNode {
            up,
            down,
            dial_only,
            receives: kind > 0,
            starts_full: kind == 5,
        })
    }

    proptest! {
        #[test]
        fn without_blocked_pairs_the_program_is_the_fluid_bound(
            source in 1e4..1e8, ups in prop::collection::vec(any_rate(), 1..9), down in 1e4..1e9,
        ) {
            let mut nodes = vec![FileNode { up: source, ..FULL }];
            nodes.extend(ups.iter().map(|up| FileNode { up: *up, down, ..OPEN }));
            let solved = blocked_pairs_makespan(1e9, &nodes, |_, _| true).unwrap();
            assert_near(solved, fluid_makespan(1e9, source, down, ups.iter().sum(), ups.len()));
        }

        #[test]
        fn dial_only_peers_have_a_closed_form(
            source in 1e4..1e8, open in prop::collection::vec(any_rate(), 0..6),
            dial in prop::collection::vec(any_rate(), 0..6),
        ) {
            let mut nodes = vec![FileNode { up: source, ..FULL }];
            nodes.extend(population(&open));
            nodes.extend(population(&dial));
            let is_dial = |i: usize| i > open.len();
            let solved = blocked_pairs_makespan(1e9, &nodes, |a, b| !(is_dial(a) && is_dial(b))).unwrap();
            let open_up: f64 = open.iter().sum();
            let sum_up = open_up + dial.iter().sum::<f64>();
            let n = open.len() + dial.len();
            assert_near(solved, dial_only_makespan(1e9, source, open_up, sum_up, dial.len(), n));
        }

        #[test]
        fn blocking_pairs_makes_no_bound_smaller(
            nodes in prop::collection::vec(any_node(), 2..9), blocked: u64, more: u64,
        ) {
            let open = |mask: u64| move |a: usize, b: usize| (mask >> ((a * 8 + b) % 64)) & 1 == 0;
            let few = blocked_pairs_makespan(1e9, &nodes, open(blocked & more)).unwrap();
            let many = blocked_pairs_makespan(1e9, &nodes, open(blocked)).unwrap();
            prop_assert!(many >= few * (1.0 - 1e-5), "{} < {}", many, few);
        }

        #[test]
        fn the_program_is_above_every_transport_cut(
            nodes in prop::collection::vec(any_node(), 2..8), blocked: u64,
        ) {
            let open = |a: usize, b: usize| a != b && (blocked >> (a * 8 + b)) & 1 == 0;
            let solved = blocked_pairs_makespan(1e9, &nodes, open).unwrap();
            for set in 1_usize..1 << nodes.len() {
                let inside = |i: &usize| set >> i & 1 == 1;
                let all = || 0..nodes.len();
                if all().filter(inside).all(|i| nodes[i].receives && !nodes[i].starts_full) {
                    let senders = all().filter(|a| all().filter(inside).any(|b| open(*a, b)));
                    let up: f64 = senders.map(|a| nodes[a].up).sum();
                    prop_assert!(solved >= time(f64::from(set.count_ones()) * 1e9, up) * (1.0 - 1e-5));
                }
            }
        }

        #[test]
        fn the_mixed_bound_is_at_least_its_parts(
            source in any_rate(), nodes in prop::collection::vec(any_node(), 0..9), pieces in 1_u32..100,
        ) {
            let fluid = mixed_makespan(1e9, None, source, &nodes).unwrap();
            let whole = mixed_makespan(1e9, Some(pieces), source, &nodes).unwrap();
            let easier: Vec<_> = nodes.iter().map(|x| FileNode { dial_only: false, ..*x }).collect();
            prop_assert!(whole >= fluid);
            prop_assert!(fluid >= mixed_makespan(1e9, None, source, &easier).unwrap() * (1.0 - 1e-5));
        }

        #[test]
        fn leaf_only_and_regular_viewers_are_special_cases(
            ups in prop::collection::vec(0.0..10.0, 1..9), leaves in 0_usize..9,
        ) {
            let n = (ups.len() + leaves) as f64;
            let capped: f64 = ups.iter().map(|u| f64::min(*u, (n - 1.0) * 2.0)).sum();
            let load = lightweight_server_load(2.0, &ups, &vec![0.0; leaves]);
            assert_near(load, f64::max(2.0, n * 2.0 - capped));
        }
    }

    #[test]
    fn closed_forms_by_hand() {
        assert_eq!(fluid_makespan(6.0, 2.0, 3.0, 0.0, 1), 3.0);
        assert_eq!(fluid_makespan(6.0, 6.0, 3.0, 0.0, 1), 2.0);
        assert_eq!(fluid_makespan(6.0, 2.0, 9.0, 4.0, 4), 4.0);
        assert_eq!(fluid_makespan(6.0, 2.0, 9.0, 4.0, 0), 0.0);
        assert_eq!(fluid_makespan(6.0, 0.0, 9.0, 4.0, 4), f64::INFINITY);
        assert_eq!([1, 2, 3, 4, 1_023, 1_024].map(|n| equal_pieces_makespan(n, 4)), [1.0, 1.25, 1.25, 1.5, 3.25, 3.5]);
        assert_eq!(first_copy_makespan(8.0, 4, 2.0, 2.0, 5), 4.0 * equal_pieces_makespan(5, 4));
        assert_eq!(first_copy_makespan(8.0, 4, 1.0, 2.0, 5), 8.0 + 2.0);
        assert_eq!(first_copy_makespan(8.0, 4, 1.0, 0.0, 1), 8.0);
        assert_eq!(dial_only_makespan(1.0, 1.0, 1.0, 5.0, 4, 5), 2.0);
        assert_eq!(origin_only_makespan(3.0, 1.0, 2, true), 9.0);
        assert_eq!(origin_only_makespan(3.0, 1.0, 2, false), 6.0);
    }

    #[test]
    fn live_forms_by_hand() {
        assert_eq!(live_capacity(4.0, 8.0, 6), 2.0);
        assert_eq!(live_capacity(1.0, 8.0, 6), 1.0);
        assert_eq!(live_server_load(2.0, &[]), 0.0);
        assert_eq!(live_server_load(2.0, &[9.0]), 2.0);
        assert_eq!(live_server_load(2.0, &[1.0, 1.0, 1.0]), 3.0);
        assert_eq!(live_server_load(2.0, &[100.0, 0.0, 0.0]), 2.0);
        // Three lightweight viewers give the one regular viewer all of its 2; it has 3 for their 6.
        assert_eq!(lightweight_server_load(2.0, &[3.0], &[1.0; 3]), 3.0);
        assert_eq!(lightweight_server_load(2.0, &[], &[5.0; 3]), 6.0);
        assert_eq!(region_copies_live(10, 16.0, 2.0, 1), 2.0);
        assert_eq!(region_copies_live(10, 40.0, 2.0, 2), 2.0);
        assert_eq!(region_copies_file(10, 4.0, 1.0, 16.0), 6.0);
        assert_eq!(clustered_server_load(2.0, 1, &[(10, 16.0), (3, 99.0), (0, 0.0)]), 6.0);
        assert_near(vod_offload(1.0), (-1.0_f64).exp());
        assert_eq!(vod_offload(0.0), 0.0);
        assert_eq!(rounding_loss(16.0, 8), 1.0);
        assert_eq!([tree_depth(1_000_000, 8), tree_depth(1_000_000, 16)], [Some(7), Some(5)]);
        assert_eq!([tree_depth(5, 1), tree_depth(1, 2), tree_depth(u64::MAX, 2)], [None, Some(0), Some(64)]);
    }

    #[test]
    fn a_bridge_has_to_carry_the_file_once() {
        // The origin reaches node 1 only; 2 and 3 are quick between themselves. The transport rows alone allow 1 s.
        let nodes = [FULL, FileNode { up: 0.25, ..OPEN }, FileNode { up: 9.0, ..OPEN }, FileNode { up: 9.0, ..OPEN }];
        let bridged = |a: usize, b: usize| a.abs_diff(b) == 1;
        assert_near(program(&nodes, bridged), 4.0);
        assert_eq!(program(&nodes, |a, b| a != 1 && a.abs_diff(b) == 1), f64::INFINITY);
    }

    #[test]
    fn relays_need_what_they_send() {
        let relay = FileNode { up: 8.0, receives: false, ..OPEN };
        let slow_relay = FileNode { down: 0.5, ..relay };
        let leaf = FileNode { up: 0.0, ..OPEN };
        let through = |a: usize, _: usize| a <= 1;
        assert_near(program(&[FULL, relay, leaf, leaf], through), 1.0);
        // One leaf, reached through the relay alone: its downlink limits what it passes on.
        assert_near(program(&[FULL, slow_relay, leaf], |a, b| a + 1 == b), 2.0);
    }

    #[test]
    fn a_full_waypoint_adds_to_the_source() {
        let waypoint = FileNode { up: 3.0, ..FULL };
        let silent = population(&[0.0; 8]);
        assert_near(mixed_makespan(1.0, None, 1.0, &silent).unwrap(), 8.0);
        let nodes: Vec<_> = silent.iter().copied().chain([waypoint]).collect();
        assert_near(mixed_makespan(1.0, None, 1.0, &nodes).unwrap(), 2.0);
        assert_eq!(mixed_makespan(1.0, Some(4), 0.0, &silent), Ok(f64::INFINITY));
        assert_eq!(mixed_makespan(1.0, Some(4), 1.0, &[waypoint]), Ok(0.0));
        assert_near(mixed_makespan(8.0, Some(4), 1.0, &population(&[1.0; 5])).unwrap(), 12.0);
    }

    #[test]
    fn sixty_four_unequal_peers_are_solved() {
        let ups: Vec<f64> = (0..64).map(|i| [0.0, 2e5, 2.5e6, 1.25e7][i % 4] + i as f64).collect();
        let mut nodes = population(&ups);
        nodes.iter_mut().step_by(3).for_each(|x| x.dial_only = true);
        let open_up = nodes.iter().filter(|x| !x.dial_only).map(|x| x.up).sum();
        let closed = dial_only_makespan(1e9, 1e7, open_up, ups.iter().sum(), 22, 64);
        assert_near(mixed_makespan(1e9, None, 1e7, &nodes).unwrap(), closed);
        let equal = population(&[1e6; 64]);
        assert_near(mixed_makespan(1e9, None, 1e6, &equal).unwrap(), 1e3);
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let nodes = vec![FULL; PROGRAM_NODES_MAX + 1];
        let refused = blocked_pairs_makespan(1.0, &nodes, |_, _| true);
        assert_eq!(refused, Err(MakespanError::TooManyNodes { nodes: 66 }));
        for odd in [f64::NAN, -1.0, f64::INFINITY] {
            let refused = mixed_makespan(1.0, None, 1.0, &population(&[odd]));
            assert_eq!(refused, Err(MakespanError::OutOfRange));
            assert_eq!(mixed_makespan(odd, None, 1.0, &[]), Err(MakespanError::OutOfRange));
        }
    }
}
