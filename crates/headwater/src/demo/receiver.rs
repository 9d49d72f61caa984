//! A receiver of the demo, as its own lines tell.

use std::ops::Add;
use std::time::Instant;

use serde::Deserialize;

use super::fault::Part;

/// What `headwater get --json` prints, a line each.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Told {
    Started {
        node: String,
    },
    Progress {
        bytes: u64,
        #[serde(default)]
        rate: f64,
        #[serde(default)]
        parents: u64,
        #[serde(default)]
        children: u64,
        #[serde(flatten)]
        counters: Counters,
    },
    Complete {
        #[serde(default)]
        sha256_ok: Option<bool>,
        #[serde(flatten)]
        counters: Counters,
    },
    Error {
        error: String,
    },
    /// Lines that the demo has no use for.
    #[serde(other)]
    Other,
}

/// Bytes that a receiver counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Received from peers that are no waypoints.
    pub peer_bytes: u64,
    /// Received from waypoints.
    pub waypoint_bytes: u64,
    /// Received from the origin.
    pub origin_bytes: u64,
    /// Received and thrown away.
    pub wasted_bytes: u64,
    /// Sent to others.
    pub uploaded_bytes: u64,
}

impl Add for Counters {
    type Output = Counters;

    fn add(self, other: Counters) -> Counters {
        Counters {
            peer_bytes: self.peer_bytes + other.peer_bytes,
            waypoint_bytes: self.waypoint_bytes + other.waypoint_bytes,
            origin_bytes: self.origin_bytes + other.origin_bytes,
            wasted_bytes: self.wasted_bytes + other.wasted_bytes,
            uploaded_bytes: self.uploaded_bytes + other.uploaded_bytes,
        }
    }
}

/// A receiver, over all its lives.
#[derive(Debug)]
pub struct Receiver {
    /// Its name in the demo.
    pub part: Part,
    /// Its node id, once it told.
    pub node: Option<String>,
    /// Bytes of the content that it has.
    pub bytes: u64,
    /// Bytes per second that it receives.
    pub rate: f64,
    /// From how many it receives.
    pub parents: u64,
    /// To how many it sends.
    pub children: u64,
    /// When it had the whole content.
    pub complete: Option<Instant>,
    /// Killed, and not to be started again.
    pub dead: bool,
    /// When it last told anything.
    pub heard: Option<Instant>,
    content_bytes: u64,
    /// Of the lives before this.
    past: Counters,
    current: Counters,
}

impl Receiver {
    /// One that has not been started, for a content of that length.
    pub fn new(part: Part, content_bytes: u64) -> Receiver {
        Receiver {
            part,
            content_bytes,
            node: None,
            bytes: 0,
            rate: 0.0,
            parents: 0,
            children: 0,
            complete: None,
            dead: false,
            heard: None,
            past: Counters::default(),
            current: Counters::default(),
        }
    }

    /// Whether it can only dial.
    pub fn lightweight(&self) -> bool {
        matches!(self.part, Part::Light(_))
    }

    /// Bytes over all its lives.
    pub fn counters(&self) -> Counters {
        self.past + self.current
    }

    /// Takes a line that it printed at `at`.
    ///
    /// # Errors
    /// What is wrong with it or with the line, in words.
    pub fn hear(&mut self, line: &str, at: Instant) -> Result<(), String> {
        let told: Told = serde_json::from_str(line).map_err(|error| format!("unexpected output {line:?}: {error}"))?;
        self.heard = Some(at);
        match told {
            Told::Started { node } => self.node = Some(node),
            Told::Progress { bytes, rate, parents, children, counters } => {
                (self.bytes, self.rate, self.parents, self.children) = (bytes, rate, parents, children);
                self.current = counters;
            }
            Told::Complete { sha256_ok: Some(false), .. } => return Err("the received file is not right".into()),
            Told::Complete { counters, .. } => {
                self.current = counters;
                // A receiver that comes back with all it needs had it before.
                self.complete.get_or_insert(at);
                (self.bytes, self.rate, self.parents) = (self.content_bytes, 0.0, 0);
            }
            Told::Error { error } => return Err(error),
            Told::Other => {}
        }
        Ok(())
    }

    /// Notes that it was killed; `again` says whether it comes back.
    pub fn killed(&mut self, again: bool) {
        self.past = self.counters();
        self.current = Counters::default();
        (self.rate, self.parents, self.children) = (0.0, 0, 0);
        self.dead = !again;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRESS: &str = r#"{"event":"progress","bytes":50,"total":100,"rate":10,"peer_bytes":30,"waypoint_bytes":12,
        "origin_bytes":8,"wasted_bytes":1,"uploaded_bytes":70,"parents":3,"children":2,"state":"receiving"}"#;

    #[test]
    fn counts_of_a_life_replace_and_those_of_lives_add_up() {
        let mut receiver = Receiver::new(Part::Peer(1), 100);
        let now = Instant::now();
        receiver.hear(r#"{"event":"started","node":"ab","address":"127.0.0.1:9"}"#, now).unwrap();
        receiver.hear(PROGRESS, now).unwrap();
        receiver.hear(PROGRESS, now).unwrap();
        let once = receiver.counters();
        assert_eq!((receiver.bytes, receiver.children, receiver.parents), (50, 2, 3));
        assert_eq!((once.peer_bytes, once.waypoint_bytes, once.origin_bytes, once.uploaded_bytes), (30, 12, 8, 70));
        receiver.killed(true);
        assert_eq!((receiver.counters(), receiver.children, receiver.dead), (once, 0, false));
        receiver.hear(PROGRESS, now).unwrap();
        assert_eq!(receiver.counters(), once + once);
        let end = r#"{"event":"complete","seconds":3.5,"path":"x","sha256_ok":true,"peer_bytes":40}"#;
        receiver.hear(end, now).unwrap();
        assert_eq!(receiver.counters().peer_bytes, 70);
        assert_eq!((receiver.complete, receiver.node.as_deref(), receiver.bytes), (Some(now), Some("ab"), 100));
    }

    #[test]
    fn the_first_completion_counts() {
        let mut receiver = Receiver::new(Part::Light(1), 100);
        let first = Instant::now();
        receiver.hear(r#"{"event":"complete","seconds":1}"#, first).unwrap();
        receiver.killed(true);
        receiver.hear(r#"{"event":"complete","seconds":0}"#, first + super::super::fault::AWAY).unwrap();
        assert_eq!(receiver.complete, Some(first));
        assert!(receiver.lightweight());
    }

    #[test]
    fn complaints_and_nonsense_are_errors() {
        let mut receiver = Receiver::new(Part::Peer(1), 100);
        for (line, expected) in [
            (r#"{"event":"error","error":"no such name"}"#, "no such name"),
            (r#"{"event":"complete","sha256_ok":false}"#, "not right"),
            ("Segmentation fault", "unexpected output"),
            (r#"{"event":"progress"}"#, "unexpected output"),
        ] {
            let error = receiver.hear(line, Instant::now()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        receiver.hear(r#"{"event":"weather","clouds":3}"#, Instant::now()).unwrap();
    }
}
