//! What a demo measured, beside the bounds: as JSON and as a table.

use std::fmt::Write;

use anyhow::{Context, Result};
use headwater_simulator::bounds::{FileNode, mixed_makespan};
use indicatif::BinaryBytes;
use serde::Serialize;

/// Digits of a node id in sentences.
const SHORT_ID: usize = 8;

/// What `headwater demo --json` prints. Bytes are of the content, without overhead; seconds count from the moment at
/// which the receivers were started.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Length of the content.
    pub content_bytes: u64,
    /// How many asked for it.
    pub receivers: u64,
    /// Those of them that were not killed for good.
    pub survivors: u64,
    /// Survivors that have it.
    pub finished: u64,
    /// What the origin server counted after the publishing.
    pub origin_bytes: u64,
    /// What receivers got from the waypoint.
    pub waypoint_bytes: u64,
    /// What receivers got from one another.
    pub peer_bytes: u64,
    /// `origin_bytes` in files.
    pub origin_copies: f64,
    /// When the last survivor had it; absent if not all did.
    pub makespan_s: Option<f64>,
    /// Below which no makespan can be; absent where uplinks are unlimited.
    pub bound_s: Option<f64>,
    /// `makespan_s / bound_s`.
    pub ratio: Option<f64>,
    /// Assignments of a lightweight peer to another, as the control center counted; absent if it never told.
    pub lightweight_pairs: Option<u64>,
    /// Whether every survivor's file is the published one.
    pub verified: bool,
    /// Everybody's uplink in bytes per second; absent if unlimited.
    pub up_bytes_per_s: Option<u64>,
    /// Each of them.
    pub per_receiver: Vec<ReceiverReport>,
    /// What was killed.
    pub killed: Vec<Killed>,
    /// The waypoint's node id.
    pub waypoint_node: String,
    /// The receiver, by its name in the demo, that `explanation` is about.
    pub explained: Option<String>,
    /// The control center's words on that receiver's parents, in the midst of the transfer.
    pub explanation: Option<String>,
}

/// One receiver.
#[derive(Debug, Serialize)]
pub struct ReceiverReport {
    /// In the demo.
    pub name: String,
    /// Its node id, if it lived to tell.
    pub node: Option<String>,
    /// Whether it could only dial.
    pub lightweight: bool,
    /// Until it had everything; absent if it never had.
    pub seconds: Option<f64>,
    /// Received from other receivers.
    pub peer_bytes: u64,
    /// Received from the waypoint.
    pub waypoint_bytes: u64,
    /// Received from the origin.
    pub origin_bytes: u64,
    /// Received and thrown away.
    pub wasted_bytes: u64,
    /// Sent to others.
    pub uploaded_bytes: u64,
}

/// A process that was killed.
#[derive(Clone, Debug, Serialize)]
pub struct Killed {
    /// In the demo.
    pub name: String,
    /// When.
    pub at_s: f64,
    /// Whether it was to be started again.
    pub restarted: bool,
}

/// Seconds below which no schedule brings the content to all receivers, when the origin, the waypoint and every receiver
/// send `up_bytes_per_s`; `None` if that is unlimited.
///
/// The waypoint starts empty and waits for nothing, but what it got it may pass on: it is a relay. Downlinks are not
/// limited, and pieces are left out, so that this stays a bound for whatever the peers do.
///
/// # Errors
/// If the linear program has no solution.
pub fn bound_s(content_bytes: u64, up_bytes_per_s: Option<u64>, regular: u32, lightweight: u32) -> Result<Option<f64>> {
    let Some(up) = up_bytes_per_s else { return Ok(None) };
    let up = up as f64;
    let peer = FileNode { up, down: f64::INFINITY, dial_only: false, receives: true, starts_full: false };
    let waypoint = FileNode { receives: false, ..peer };
    let regular = (0..regular).map(|_| peer);
    let lightweight = (0..lightweight).map(|_| FileNode { dial_only: true, ..peer });
    let nodes: Vec<FileNode> = std::iter::once(waypoint).chain(regular).chain(lightweight).collect();
    let bound = mixed_makespan(content_bytes as f64, None, up, &nodes).context("bound of the makespan")?;
    Ok(Some(bound))
}

impl Report {
    fn is_good(&self) -> bool {
        self.verified && self.survivors > 0 && self.finished == self.survivors
    }

    /// Why it is no success; `None` if it is one.
    pub fn problem(&self) -> Option<String> {
        let files = if self.verified { "all" } else { "not all" };
        let (finished, survivors) = (self.finished, self.survivors);
        (!self.is_good()).then(|| {
            format!("{finished} of {survivors} survivors finished, and {files} of their files are the published one")
        })
    }

    /// For people, at most `width` columns where words can be wrapped.
    pub fn table(&self, width: usize) -> String {
        let mut text = self.heading();
        text += &self.figures();
        text += &self.sources();
        text += &self.receivers_table();
        for killed in &self.killed {
            let then = if killed.restarted { ", and started again 2 s later" } else { "" };
            text += &format!("\n{} was killed at {:.1} s{then}.", killed.name, killed.at_s);
        }
        if let (Some(receiver), Some(words)) = (&self.explained, &self.explanation) {
            let words = wrapped(&self.with_names(words), width);
            text += &format!("\nThe control center on the parents of {receiver}:\n{words}");
        }
        text + "\n"
    }

    /// The words with the demo's names in place of node ids.
    fn with_names(&self, words: &str) -> String {
        let receivers = self.per_receiver.iter().filter_map(|one| Some((one.node.as_deref()?, one.name.as_str())));
        let mut words = words.to_owned();
        for (node, name) in receivers.chain([(self.waypoint_node.as_str(), "waypoint")]) {
            if let Some(short) = node.get(..SHORT_ID) {
                words = words.replace(node, name).replace(short, name);
            }
        }
        words
    }

    fn heading(&self) -> String {
        let lightweight = self.per_receiver.iter().filter(|receiver| receiver.lightweight).count();
        let up = self.up_bytes_per_s.map_or("unlimited".to_owned(), |up| format!("{} each", rate(up as f64)));
        let content = BinaryBytes(self.content_bytes);
        format!("{content} to {} receivers, {lightweight} of them lightweight; uplinks {up}\n", self.receivers)
    }

    fn figures(&self) -> String {
        let seconds = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1} s"));
        let ratio = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
        let pairs = self.lightweight_pairs.map_or("not known".to_owned(), |pairs| pairs.to_string());
        let finished = format!("{} of {}", self.finished, self.survivors);
        let copies = format!("{:.2}", self.origin_copies);
        let offload = format!("{:.1} %", 100.0 * self.offload());
        let offload_max = format!("{:.1} %", 100.0 * (1.0 - 1.0 / self.survivors.max(1) as f64));
        let verified = if self.verified { "all" } else { "NOT ALL" };
        figures(&[
            ("last receiver done", &seconds(self.makespan_s), &seconds(self.bound_s), &ratio(self.ratio)),
            ("copies from the origin", &copies, "1.00", &copies),
            ("offload", &offload, &offload_max, ""),
            ("pairs of lightweight peers", &pairs, "0", ""),
            ("receivers finished", &finished, "", ""),
            ("hashes right", verified, "", ""),
        ])
    }

    /// Share of what receivers needed that did not leave the origin.
    fn offload(&self) -> f64 {
        offload(self.origin_bytes, self.content_bytes * self.finished)
    }

    fn sources(&self) -> String {
        let origin: u64 = self.per_receiver.iter().map(|receiver| receiver.origin_bytes).sum();
        let from =
            received_from(&[("peers", self.peer_bytes), ("the waypoint", self.waypoint_bytes), ("the origin", origin)]);
        from + &format!(
            "left the origin{:>22}  (the waypoint's own included)\n",
            BinaryBytes(self.origin_bytes).to_string()
        )
    }

    fn receivers_table(&self) -> String {
        let heads = ["done", "from peers", "waypoint", "origin", "wasted", "sent"];
        let mut text = format!("\n{:<10}", "receiver");
        for head in heads {
            text += &format!("{head:>12}");
        }
        text.push('\n');
        for receiver in &self.per_receiver {
            let done = receiver.seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.1} s"));
            // Writing to a string cannot fail.
            let _ = write!(text, "{:<10}{done:>12}", receiver.name);
            let counted = [
                receiver.peer_bytes,
                receiver.waypoint_bytes,
                receiver.origin_bytes,
                receiver.wasted_bytes,
                receiver.uploaded_bytes,
            ];
            for bytes in counted {
                text += &format!("{:>12}", BinaryBytes(bytes).to_string());
            }
            text.push('\n');
        }
        text
    }
}

/// Lines of what was measured, beside its bound and how many times that it is.
pub fn figures(rows: &[(&str, &str, &str, &str)]) -> String {
    let mut text = String::from("\n");
    for (name, measured, bound, ratio) in [&[("", "measured", "bound", "ratio")][..], rows].concat() {
        text += format!("{name:<27}{measured:>10}{bound:>10}{ratio:>8}").trim_end();
        text.push('\n');
    }
    text
}

/// Lines of who all bytes came from.
pub fn received_from(sources: &[(&str, u64)]) -> String {
    let all = sources.iter().map(|(_, bytes)| bytes).sum::<u64>().max(1) as f64;
    let mut text = String::from("\nreceived from\n");
    for (name, bytes) in sources {
        let share = 100.0 * *bytes as f64 / all;
        text += &format!("  {name:<25}{:>10}{share:>8.1} %\n", BinaryBytes(*bytes).to_string());
    }
    text
}

/// The share of `delivered_bytes` that did not leave the origin; 0 before anything was delivered.
pub fn offload(origin_bytes: u64, delivered_bytes: u64) -> f64 {
    if delivered_bytes == 0 {
        return 0.0;
    }
    (1.0 - origin_bytes as f64 / delivered_bytes as f64).max(0.0)
}

/// In units of rates, which are decimal.
pub fn rate(bytes_per_s: f64) -> String {
    match bytes_per_s {
        below if below < 1e3 => format!("{below:.0} B/s"),
        below if below < 1e6 => format!("{:.1} kB/s", below / 1e3),
        below if below < 1e9 => format!("{:.1} MB/s", below / 1e6),
        all => format!("{:.2} GB/s", all / 1e9),
    }
}

/// The lines indented by two, and broken between words where they would pass `width` columns.
fn wrapped(words: &str, width: usize) -> String {
    let mut text = String::new();
    for line in words.lines() {
        let own = line.len() - line.trim_start().len();
        let mut column = 0;
        for word in line.split_whitespace() {
            let length = word.chars().count();
            if column > 0 && column + 1 + length > width {
                text.push('\n');
                column = 0;
            }
            let gap = if column == 0 { 2 + own } else { 1 };
            text += &" ".repeat(gap);
            text += word;
            column += gap + length;
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB_256: u64 = 256 << 20;

    fn sample() -> Report {
        let receiver = |name: &str, lightweight, seconds| ReceiverReport {
            name: name.into(),
            node: (name == "peer-1").then(|| "0011223344".into()),
            lightweight,
            seconds,
            peer_bytes: 200 << 20,
            waypoint_bytes: 40 << 20,
            origin_bytes: 16 << 20,
            wasted_bytes: 0,
            uploaded_bytes: 180 << 20,
        };
        Report {
            content_bytes: MIB_256,
            receivers: 2,
            survivors: 2,
            finished: 2,
            origin_bytes: MIB_256 + (16 << 20),
            waypoint_bytes: 80 << 20,
            peer_bytes: 400 << 20,
            origin_copies: 1.0625,
            makespan_s: Some(30.0),
            bound_s: Some(26.84),
            ratio: Some(1.118),
            lightweight_pairs: Some(0),
            verified: true,
            up_bytes_per_s: Some(10_000_000),
            per_receiver: vec![receiver("peer-1", false, Some(29.26)), receiver("light-1", true, None)],
            killed: vec![Killed { name: "peer-1".into(), at_s: 11.0, restarted: true }],
            waypoint_node: "beef0000ff".into(),
            explained: Some("light-1".into()),
            explanation: Some("3 considered by 00112233\n  beef0000 far".into()),
        }
    }

    #[test]
    fn at_the_defaults_the_origins_uplink_bounds() {
        let bound = bound_s(MIB_256, Some(10_000_000), 6, 2).unwrap().unwrap();
        assert!((bound - 26.84).abs() < 0.01, "{bound}");
        assert_eq!(bound_s(MIB_256, None, 6, 2).unwrap(), None);
        // Nine lightweight receivers and one regular take from origin, waypoint and the regular one only: 9 F / 3 u.
        let dialling = bound_s(MIB_256, Some(10_000_000), 1, 9).unwrap().unwrap();
        assert!((dialling / bound - 3.0).abs() < 0.01, "{dialling}");
    }

    #[test]
    fn the_table_has_every_figure() {
        let table = sample().table(80);
        for line in [
            "256.00 MiB to 2 receivers, 1 of them lightweight; uplinks 10.0 MB/s each",
            "last receiver done             30.0 s    26.8 s    1.12",
            "copies from the origin           1.06      1.00    1.06",
            "offload                        46.9 %    50.0 %",
            "pairs of lightweight peers          0         0",
            "receivers finished             2 of 2",
            "hashes right                      all",
            "  peers                    400.00 MiB    78.1 %",
            "light-1              -  200.00 MiB   40.00 MiB   16.00 MiB         0 B  180.00 MiB",
            "peer-1 was killed at 11.0 s, and started again 2 s later.",
            "The control center on the parents of light-1:",
            "  3 considered by peer-1",
            "    waypoint far",
        ] {
            assert!(table.lines().any(|other| other == line), "{line}\nis not in\n{table}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        let report = Report {
            makespan_s: None,
            bound_s: None,
            ratio: None,
            lightweight_pairs: None,
            up_bytes_per_s: None,
            verified: false,
            finished: 1,
            ..sample()
        };
        let table = report.table(80);
        assert!(table.contains("not known") && table.contains("NOT ALL") && table.contains("uplinks unlimited"));
        assert!(!report.is_good() && sample().is_good());
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["makespan_s"].is_null() && json["per_receiver"][0]["peer_bytes"] == 200 << 20);
    }

    #[test]
    fn words_are_wrapped_at_the_width() {
        assert_eq!(wrapped("one two three\n  four", 12), "  one two\n  three\n    four\n");
        assert_eq!(wrapped("incomprehensibilities", 5), "  incomprehensibilities\n");
    }

    #[test]
    fn rates_have_units() {
        let rates = [0.0, 1500.0, 1e7, 2.5e9].map(rate);
        assert_eq!(rates, ["0 B/s", "1.5 kB/s", "10.0 MB/s", "2.50 GB/s"]);
    }
}
