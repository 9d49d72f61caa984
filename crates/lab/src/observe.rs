//! What the control center says while a scenario runs: nodes, pairs, totals, events, from its API.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::api::Api;
use crate::outcome::{EventMark, PunchCount};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two looks while something is waited for.
const LOOK_CLOSELY_EVERY: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(20);

/// Events kept for the report; a flood makes more than anybody reads.
const EVENTS_MAX: usize = 20_000;

/// What the API said at one moment.
#[derive(Debug)]
pub struct Look {
    /// When it was asked.
    pub at: Instant,
    /// `/v1/status`.
    pub status: Value,
    /// `/v1/nodes`.
    pub nodes: Vec<Value>,
    /// Child and parent, by node id, of all edges.
    pub edges: Vec<(String, String)>,
    /// Events since the last look: Unix milliseconds and words.
    pub events: Vec<(u64, String)>,
}

/// Steers a watcher from another thread.
#[derive(Debug, Default)]
pub struct Steer {
    /// It shall end.
    pub end: AtomicBool,
    /// It shall look closely.
    pub closely: AtomicBool,
}

/// Looks until told to end. Call it inside the control center's host.
pub fn watch(
    address: SocketAddr,
    token: &str,
    content: &str,
    steer: &Steer,
    told: &Sender<Look>,
) -> anyhow::Result<()> {
    let api = Api::new(address, token)?;
    let (mut after, mut epoch) = (0, 0);
    let mut next = Instant::now();
    while !steer.end.load(Ordering::Relaxed) {
        let closely = steer.closely.load(Ordering::Relaxed);
        if Instant::now() < next && !(closely && next - Instant::now() > LOOK_CLOSELY_EVERY) {
            std::thread::sleep(POLL);
            continue;
        }
        next = Instant::now() + if closely { LOOK_CLOSELY_EVERY } else { LOOK_EVERY };
        // It may be away: the scenario may have killed it.
        let Ok(look) = look(&api, content, &mut after, &mut epoch) else { continue };
        if told.send(look).is_err() {
            break;
        }
    }
    Ok(())
}

fn look(api: &Api, content: &str, after: &mut u64, epoch: &mut u64) -> anyhow::Result<Look> {
    let at = Instant::now();
    let status = api.get("/v1/status")?;
    let lives = status["epoch"].as_u64().unwrap_or(0);
    if lives != *epoch {
        // Its events are numbered anew.
        (*epoch, *after) = (lives, 0);
    }
    let nodes = match api.get("/v1/nodes")? {
        Value::Array(nodes) => nodes,
        _ => Vec::new(),
    };
    let said = api.get(&format!("/v1/events?after={after}"))?;
    *after = said["next"].as_u64().unwrap_or(*after);
    let events = said["events"].as_array().into_iter().flatten();
    let events = events.filter_map(|e| Some((e["unix_ms"].as_u64()?, e["text"].as_str()?.to_owned()))).collect();
    let swarm = api.get(&format!("/v1/contents/{content}"))?;
    let mut edges = Vec::new();
    for member in swarm["swarm"]["members"].as_array().into_iter().flatten() {
        let Some(child) = member["node"].as_str() else { continue };
        let parents = member["parents"].as_array().into_iter().flatten().filter_map(Value::as_str);
        edges.extend(parents.map(|parent| (child.to_owned(), parent.to_owned())));
    }
    Ok(Look { at, status, nodes, edges, events })
}

/// What a node was found to accept, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// `open`, `punchable` or `dial-only`.
    pub accepts: String,
    /// `claim`, `operator` or `test`.
    pub from: String,
}

/// All that the API said so far.
#[derive(Debug, Default)]
pub struct Watched {
    /// What nodes were last found to accept; a test is not overwritten by a later claim of another life.
    pub found: BTreeMap<String, Found>,
    /// Child and parent of every edge that was ever seen.
    pub edges: BTreeSet<(String, String)>,
    /// Nodes that are or were banned.
    pub banned: BTreeSet<String>,
    /// Whether the API tells who is banned.
    pub tells_banned: bool,
    /// Events, with Unix milliseconds.
    pub events: Vec<(u64, String)>,
    /// Nodes with a session at the last look.
    pub sessions: BTreeSet<String>,
    /// Totals at the last look.
    pub totals: Value,
    unreachable_past: u64,
    unreachable: Option<u64>,
    epoch: u64,
    dials_past: BTreeMap<(String, String), (u64, u64)>,
    dials: BTreeMap<(String, String), (u64, u64)>,
}

impl Watched {
    /// Takes in what the API said.
    pub fn take(&mut self, look: Look) {
        let epoch = look.status["epoch"].as_u64().unwrap_or(0);
        if epoch != self.epoch {
            // Its totals start again at 0.
            self.epoch = epoch;
            self.unreachable_past += self.unreachable.unwrap_or(0);
            for (pair, (attempted, connected)) in std::mem::take(&mut self.dials) {
                let past = self.dials_past.entry(pair).or_default();
                *past = (past.0 + attempted, past.1 + connected);
            }
        }
        self.totals = look.status["totals"].clone();
        self.unreachable = self.totals["lightweight_pairs"].as_u64().or(self.unreachable);
        for count in look.status["dials"].as_array().into_iter().flatten() {
            let end = |ix: usize| count["between"][ix].as_str().unwrap_or("?").to_owned();
            let number = |key: &str| count[key].as_u64().unwrap_or(0);
            self.dials.insert((end(0), end(1)), (number("attempted"), number("connected")));
        }
        self.sessions.clear();
        for node in &look.nodes {
            let Some(id) = node["node"].as_str() else { continue };
            self.sessions.insert(id.to_owned());
            let text = |key: &str| node[key].as_str().unwrap_or("").to_owned();
            let found = Found { accepts: text("accepts"), from: text("accepts_from") };
            let known = self.found.entry(id.to_owned()).or_default();
            if found.from == "test" || known.from != "test" {
                *known = found;
            }
            if let Some(standing) = node["standing"].as_str() {
                self.tells_banned = true;
                if standing == "banned" {
                    self.banned.insert(id.to_owned());
                }
            }
        }
        self.edges.extend(look.edges);
        let room = EVENTS_MAX.saturating_sub(self.events.len());
        self.events.extend(look.events.into_iter().take(room));
    }

    /// Pairs assigned of which neither can reach the other, as the control center counts them over all its lives.
    pub fn unreachable_pairs(&self) -> Option<u64> {
        self.unreachable.map(|now| now + self.unreachable_past)
    }

    /// Dials by what the two ends accept, over all its lives.
    pub fn punched(&self) -> Vec<PunchCount> {
        let mut sum = self.dials_past.clone();
        for (pair, (attempted, connected)) in &self.dials {
            let all = sum.entry(pair.clone()).or_default();
            *all = (all.0 + attempted, all.1 + connected);
        }
        let count = |((a, b), (attempted, connected))| PunchCount { a, b, attempted, connected };
        sum.into_iter().map(count).collect()
    }

    /// When the events first told what a liar did as the parent of an honest node (first eight letters of their ids), or of
    /// the liar's ban; Unix milliseconds.
    pub fn found_out(&self, liar: &str, honest: &str) -> Option<u64> {
        let tells = |text: &str| {
            let child_says = text.starts_with(honest) && !text.contains("lost its parent");
            let of_it = ["sent nothing", "was too slow", "offers nothing"].iter().any(|what| text.contains(what));
            (child_says && text.contains(&format!("from its parent {liar}")))
                || (text.starts_with(liar) && (text.contains("is banned") || (of_it && text.contains(honest))))
        };
        self.events.iter().find(|(_, text)| tells(text)).map(|(at, _)| *at)
    }

    /// Events as marks after `zero_unix_ms`.
    pub fn marks(&self, zero_unix_ms: u64) -> Vec<EventMark> {
        let mark = |(at, text): &(u64, String)| EventMark {
            at_s: (*at as f64 - zero_unix_ms as f64) / 1000.0,
            text: text.clone(),
        };
        self.events.iter().map(mark).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn look(epoch: u64, pairs: u64, accepts: &str, from: &str) -> Look {
        Look {
            at: Instant::now(),
            status: json!({"epoch": epoch, "totals": {"lightweight_pairs": pairs},
                "dials": [{"between": ["x", "y"], "attempted": 2, "connected": 1}]}),
            nodes: vec![json!({"node": "ab", "accepts": accepts, "accepts_from": from})],
            edges: vec![],
            events: vec![(1_500, "it rains".into())],
        }
    }

    #[test]
    fn a_liar_is_found_out_by_what_is_said_of_it_and_not_of_its_link() {
        let mut watched = Watched::default();
        let tell = |at, text: &str| (at, text.to_owned());
        watched.events = vec![
            tell(1, "the link from aaaaaaaa to bbbbbbbb is congested"),
            tell(2, "bbbbbbbb lost its parent aaaaaaaa: reset"),
            tell(2, "aaaaaaaa hears nothing from its parent bbbbbbbb"),
            tell(3, "bbbbbbbb hears nothing from its parent aaaaaaaa"),
            tell(4, "aaaaaaaa is banned as a parent for 600 s"),
        ];
        assert_eq!(watched.found_out("aaaaaaaa", "bbbbbbbb"), Some(3));
        assert_eq!(watched.found_out("aaaaaaaa", "cccccccc"), Some(4));
        assert_eq!(watched.found_out("cccccccc", "bbbbbbbb"), None);
    }

    #[test]
    fn counts_go_on_over_lives_and_tests_win() {
        let mut watched = Watched::default();
        watched.take(look(1, 2, "punchable", "test"));
        watched.take(look(2, 1, "open", "claim"));
        assert_eq!(watched.unreachable_pairs(), Some(3));
        assert_eq!(watched.punched()[0].attempted, 4);
        assert_eq!(watched.found["ab"], Found { accepts: "punchable".into(), from: "test".into() });
        assert_eq!(watched.marks(1_000)[1].at_s, 0.5);
        assert!(!watched.tells_banned && watched.sessions.contains("ab"));
    }
}
