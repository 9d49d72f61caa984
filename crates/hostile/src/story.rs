//! What happened, one JSON object a line.

use headwater_model::NodeId;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// An assignment that comes within this time of a child's leaving was on its way: the control center had not heard of it.
const CROSSING: Duration = Duration::from_millis(500);
/// Refusals that are told one by one; more are only counted.
const MAX_REFUSALS_TOLD: usize = 200;

/// Prints events and counts; clones share what is known.
#[derive(Clone, Default)]
pub struct Story(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    /// Children that were harmed since they came, and when first.
    harmed_at: BTreeMap<NodeId, u64>,
    /// Nodes that were children, and whether they are: what is still on its way to one that left does no harm.
    children: BTreeMap<NodeId, bool>,
    /// Children that were ever harmed.
    harmed: BTreeSet<NodeId>,
    left_by: BTreeMap<NodeId, Instant>,
    refusals: BTreeSet<(String, String)>,
    counts: BTreeMap<&'static str, u64>,
    ended: bool,
}

/// Unix milliseconds.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

impl Story {
    /// Nothing happened yet.
    pub fn new() -> Self {
        Self::default()
    }
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// An event, with the fields of `more`.
    pub fn say(&self, event: &str, more: Value) {
        let told = self.told();
        if !told.ended {
            print(event, more);
        }
    }
    /// Harm was done to `to`; said the first time, and the first time after it had left.
    pub fn harm(&self, to: NodeId, what: &str) {
        let mut told = self.told();
        *told.counts.entry("harms").or_default() += 1;
        if !told.ended && !told.harmed_at.contains_key(&to) && told.children.get(&to) != Some(&false) {
            told.harmed_at.insert(to, unix_ms());
            told.harmed.insert(to);
            print("harm", json!({"to": to.to_string(), "what": what}));
        }
    }
    /// `node` opened an edge as a child.
    pub fn came(&self, node: NodeId) {
        self.told().children.insert(node, true);
    }
    /// `node` dropped an edge or a connection.
    pub fn left_by(&self, node: NodeId, how: &str) {
        let mut told = self.told();
        *told.counts.entry("left").or_default() += 1;
        let after_ms = told.harmed_at.remove(&node).map(|at| unix_ms() - at);
        told.left_by.insert(node, Instant::now());
        told.children.entry(node).and_modify(|here| *here = false);
        if !told.ended {
            print("left-by", json!({"node": node.to_string(), "how": how, "ms_after_first_harm": after_ms}));
        }
    }
    /// The control center assigned the child `node`, perhaps after that was harmed and left.
    pub fn assigned(&self, node: NodeId) {
        let mut told = self.told();
        let left = told.left_by.remove(&node).is_some_and(|at| at.elapsed() > CROSSING);
        if left && told.harmed.contains(&node) && !told.ended {
            *told.counts.entry("assigned_again").or_default() += 1;
            print("assigned-again", json!({"node": node.to_string()}));
        }
    }
    /// Something was refused; the same by the same is said once.
    pub fn refused(&self, by: impl ToString, what: &str, why: &str) {
        let mut told = self.told();
        *told.counts.entry("refused").or_default() += 1;
        let (by, first) = (by.to_string(), told.refusals.len() < MAX_REFUSALS_TOLD);
        if !told.ended && first && told.refusals.insert((by.clone(), format!("{what}: {why}"))) {
            print("refused", json!({"by": by, "what": what, "why": why}));
        }
    }
    /// Counts for the summary.
    pub fn count(&self, what: &'static str, n: u64) {
        *self.told().counts.entry(what).or_default() += n;
    }
    /// The summary; nothing is said after it.
    pub fn end(&self) {
        let mut told = self.told();
        if !std::mem::replace(&mut told.ended, true) {
            let harmed: Vec<String> = told.harmed.iter().map(NodeId::to_string).collect();
            print("end", json!({"counts": &told.counts, "harmed": harmed}));
        }
    }
}

fn print(event: &str, mut more: Value) {
    if let Some(fields) = more.as_object_mut() {
        fields.insert("event".into(), event.into());
        fields.insert("unix_ms".into(), unix_ms().into());
    }
    // println! would panic where nobody reads; then nobody needs it.
    let _ = std::io::Write::write_all(&mut std::io::stdout().lock(), format!("{more}\n").as_bytes());
}
