//! A viewer of a live demo: what the peer of its machine tells while it runs, and its probe at the end.

use indicatif::BinaryBytes;
use serde::Deserialize;

use super::super::receiver::Counters;
use crate::probe::Report;

/// What `headwater peer --json` prints, a line each.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Told {
    Started {
        node: String,
    },
    Status {
        control: bool,
        contents: Vec<Stream>,
    },
    /// Lines that the demo has no use for.
    #[serde(other)]
    Other,
}

/// How a stream is at a peer.
#[derive(Debug, Default, Deserialize)]
pub struct Stream {
    /// Bytes, by where they came from and went to.
    #[serde(flatten)]
    pub counters: Counters,
    /// How many it feeds.
    pub children: u64,
    /// What only a live one has.
    #[serde(default)]
    pub live: Option<Live>,
}

/// What only a live stream has.
#[derive(Debug, Deserialize)]
pub struct Live {
    /// Pieces that came too late or not at all.
    pub lost_pieces: u64,
}

/// A viewer: a machine's peer, and the probe that reads there.
#[derive(Debug)]
pub struct Viewer {
    /// Its name in the demo, and its peer's.
    pub name: String,
    /// Its probe's.
    pub probe: String,
    /// Its node id, once it told.
    pub node: Option<String>,
    /// Whether it has a session with the control center.
    pub has_session: bool,
    /// The channel at its peer.
    pub stream: Stream,
    /// What its probe saw.
    pub report: Option<Report>,
    /// By the demo.
    pub killed: bool,
    /// A process of it ended by itself before the end, or its probe said nothing.
    pub lost: bool,
}

impl Viewer {
    /// One that has not been started.
    pub fn new(number: u32) -> Viewer {
        Viewer {
            name: format!("viewer-{number}"),
            probe: format!("probe-{number}"),
            node: None,
            has_session: false,
            stream: Stream::default(),
            report: None,
            killed: false,
            lost: false,
        }
    }

    /// Whether its probe still measures.
    pub fn watches(&self) -> bool {
        !self.killed && !self.lost && self.report.is_none()
    }

    /// Takes a line that one of its two processes printed.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn hear(&mut self, process: &str, line: &str) -> Result<(), String> {
        let unexpected = |error: serde_json::Error| format!("unexpected output {line:?}: {error}");
        if process == self.probe {
            self.report = Some(serde_json::from_str(line).map_err(unexpected)?);
            return Ok(());
        }
        match serde_json::from_str(line).map_err(unexpected)? {
            Told::Started { node } => self.node = Some(node),
            Told::Status { control, contents } => {
                self.has_session = control;
                if let Some(stream) = contents.into_iter().find(|stream| stream.live.is_some()) {
                    self.stream = stream;
                }
            }
            Told::Other => {}
        }
        Ok(())
    }

    /// Pieces that came to its peer too late or not at all.
    pub fn lost_pieces(&self) -> u64 {
        self.stream.live.as_ref().map_or(0, |live| live.lost_pieces)
    }

    /// What it does, and what it has got from whom.
    pub fn words(&self) -> String {
        let does = match (self.killed, self.lost, &self.report) {
            (true, ..) => "killed".to_owned(),
            (_, true, _) => "lost".to_owned(),
            (_, _, Some(_)) => "done".to_owned(),
            _ => format!("{} lost pieces", self.lost_pieces()),
        };
        let counted = &self.stream.counters;
        let [peers, origin] = [counted.peer_bytes, counted.origin_bytes].map(|bytes| BinaryBytes(bytes).to_string());
        format!("{does:>14}  peers {peers:>10}  origin {origin:>10}  {:>3} children", self.stream.children)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#"{"event":"status","control":true,"uploaded_bytes":9,"contents":[
        {"name":"film","children":7,"peer_bytes":1,"live":null},
        {"name":"demo","children":2,"peer_bytes":4096,"origin_bytes":512,"uploaded_bytes":9,
         "live":{"lost_pieces":3,"lag_p95_ms":80,"unfed_substreams":0}}],"storage":{},"limits":{}}"#;

    #[test]
    fn both_processes_are_heard() {
        let mut viewer = Viewer::new(3);
        viewer.hear("viewer-3", r#"{"event":"started","node":"ab","address":"127.0.0.1:9"}"#).unwrap();
        viewer.hear("viewer-3", r#"{"event":"status","control":false,"contents":[]}"#).unwrap();
        assert!(viewer.watches() && !viewer.has_session && viewer.lost_pieces() == 0);
        viewer.hear("viewer-3", STATUS).unwrap();
        assert!(viewer.has_session && viewer.stream.children == 2 && viewer.node.as_deref() == Some("ab"));
        assert_eq!(viewer.words(), " 3 lost pieces  peers   4.00 KiB  origin      512 B    2 children");
        let report = serde_json::to_string(&Report { start_up_s: Some(0.5), ..Report::default() }).unwrap();
        viewer.hear("probe-3", &report).unwrap();
        assert!(!viewer.watches() && !viewer.lost && viewer.words().starts_with("          done  "));
        for (process, line) in [("viewer-3", "Segmentation fault"), ("probe-3", "{}"), ("probe-3", STATUS)] {
            assert!(viewer.hear(process, line).unwrap_err().contains("unexpected output"), "{line}");
        }
    }
}
