//! The linear program behind the bounds where not every pair may exchange, or where pairs share links.

use super::{FileNode, MakespanError, PROGRAM_NODES_MAX, check_ranges, time};
use microlp::{ComparisonOp, LinearExpr, OptimizationDirection, Problem, Variable};

/// Rounds of cuts added to the linear program. Stopping early leaves a valid, smaller bound, and the first rounds raise
/// it most.
const CUT_ROUNDS_MAX: usize = 6;

/// A cut counts as violated when it lacks more than this fraction of the file.
const CUT_TOLERANCE: f64 = 1e-6;

/// A link that many pairs share: whatever goes from a node of `from` to a node of `to`. Both lists are as long as the
/// nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedLink {
    /// What it carries, finite.
    pub rate: f64,
    /// The nodes that send over it.
    pub from: Vec<bool>,
    /// The nodes that receive over it.
    pub to: Vec<bool>,
}

impl SharedLink {
    fn carries(&self, from: usize, to: usize) -> bool {
        let is = |side: &[bool], node: usize| side.get(node).copied().unwrap_or(false);
        is(&self.from, from) && is(&self.to, to)
    }
}

/// [`shared_links_makespan`] where pairs share nothing but their own access links.
///
/// # Errors
/// As [`shared_links_makespan`].
pub fn blocked_pairs_makespan(
    file_bytes: f64,
    nodes: &[FileNode],
    permitted: impl Fn(usize, usize) -> bool,
) -> Result<f64, MakespanError> {
    shared_links_makespan(file_bytes, nodes, &[], permitted)
}

/// The makespan below which no schedule can come when only `permitted(from, to)` pairs exchange; the origin is one of
/// the nodes. A linear program, right to about 1e-6: minimise T so that each waiting node gets the file over permitted
/// pairs, no node sends more than `up·T` or receives more than `down·T`, no shared link carries more than its `rate·T`,
/// and every cut between the full nodes and a waiting one carries the whole file.
///
/// Every cut is a valid bound, since what is sent within a set that starts empty must first have entered it. The cut
/// around all full nodes is there from the start; others are added while the solution violates them.
///
/// # Errors
/// More than [`PROGRAM_NODES_MAX`] nodes, numbers out of range, or a failure of the solver.
pub fn shared_links_makespan(
    file_bytes: f64,
    nodes: &[FileNode],
    shared: &[SharedLink],
    permitted: impl Fn(usize, usize) -> bool,
) -> Result<f64, MakespanError> {
    if nodes.len() > PROGRAM_NODES_MAX {
        return Err(MakespanError::TooManyNodes { nodes: nodes.len() });
    }
    check_ranges(file_bytes, nodes)?;
    if shared.iter().any(|link| !(link.rate.is_finite() && link.rate >= 0.0)) {
        return Err(MakespanError::OutOfRange);
    }
    let waiting: Vec<usize> = (0..nodes.len()).filter(|i| nodes[*i].receives && !nodes[*i].starts_full).collect();
    if waiting.is_empty() || file_bytes == 0.0 {
        return Ok(0.0);
    }
    let can_send = |from: usize, to: usize| {
        let (sender, receiver) = (&nodes[from], &nodes[to]);
        from != to
            && sender.up > 0.0
            && receiver.down > 0.0
            && !receiver.starts_full
            && permitted(from, to)
            && !shared.iter().any(|link| link.rate == 0.0 && link.carries(from, to))
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
    program.add_shared_rows(nodes, shared, scale);
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

    /// A shared link that could carry the file to each of its receivers in the least makespan needs no row: a receiver
    /// takes it at most once.
    fn add_shared_rows(&mut self, nodes: &[FileNode], shared: &[SharedLink], scale: f64) {
        for link in shared {
            let files = link.rate * scale;
            let receivers = (0..nodes.len()).filter(|to| link.to.get(*to) == Some(&true)).count();
            if files < receivers as f64 {
                let mut row = self.sum(|from, to| link.carries(from, to));
                row.add(self.makespan, -files);
                self.problem.add_constraint(row, ComparisonOp::Le, 0.0);
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
