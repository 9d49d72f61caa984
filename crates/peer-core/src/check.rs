//! Invariants of a swarm as code: one function reads the whole state and lists what is wrong.

use crate::swarm::Swarm;

impl Swarm {
    /// All violated invariants; empty when the state is sound.
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut say = |p: String| problems.push(p);
        let mut asked = std::collections::BTreeMap::new();
        for (node, p) in &self.parents {
            for piece in p.asked() {
                if let Some(other) = asked.insert(*piece, *node) {
                    say(format!("piece {piece} is asked of both {other:?} and {node:?}"));
                }
                if self.have.get(*piece) && !self.is_complete() {
                    say(format!("piece {piece} is here and still asked of {node:?}"));
                }
                if !p.has().get(*piece) {
                    say(format!("piece {piece} is asked of {node:?}, which has not got it"));
                }
            }
        }
        for piece in 0..self.layout.pieces() {
            let (have, claimed) = (self.have.get(piece), self.claimed.get(piece));
            let run = self.layout.run_of(piece);
            let reason = have || asked.contains_key(&piece) || self.origin.fetches(run, piece);
            if claimed && !reason {
                say(format!("piece {piece} is claimed by nobody: it would never be asked for"));
            }
            if have && !claimed {
                say(format!("piece {piece} is here and could be asked for"));
            }
            if !self.holders.is_empty() {
                let holders = self.parents.values().filter(|p| p.has().get(piece)).count();
                if holders != usize::from(self.holders[piece as usize]) {
                    say(format!("piece {piece}: {} holders counted, {holders} are", self.holders[piece as usize]));
                }
            }
        }
        for run in 0..self.layout.runs() {
            let of_run = self.layout.pieces_of_run(run);
            let full = self.have.ones_in(of_run.start, of_run.end) == of_run.len() as u32;
            if full != self.runs.get(run) {
                say(format!("run {run} is complete: {full}, but the list says {}", !full));
            }
        }
        for (node, c) in &self.children {
            for piece in c.queue().iter().filter(|p| !self.have.get(**p)) {
                say(format!("piece {piece} waits to be sent to {node:?} and is not here"));
            }
        }
        if self.is_complete() && !self.parents.is_empty() {
            say("everything is here, and there are still parents".into());
        }
        if self.children.values().any(|c| c.untold.len() > self.config.have_batch + 1) {
            say("a child is told late".into());
        }
        problems
    }
}
