//! How far the file has come, as the board shows it.

use std::time::Duration;

use indicatif::BinaryBytes;

use super::board::{Row, View};
use super::receiver::Receiver;
use super::result::{offload, rate};

/// What there is to show of a file.
#[derive(Clone, Copy)]
pub struct Transfer<'a> {
    /// Since the receivers' start.
    pub elapsed: Duration,
    /// Below which it cannot end.
    pub bound_s: Option<f64>,
    /// Length of the content.
    pub content_bytes: u64,
    /// That left the origin.
    pub origin_bytes: u64,
    /// All of them, in the same order every time.
    pub receivers: &'a [Receiver],
}

impl Transfer<'_> {
    /// The mean share of the content that receivers have which are to get it.
    pub fn progress(&self) -> f64 {
        let alive = || self.receivers.iter().filter(|receiver| !receiver.dead);
        let total = self.content_bytes.saturating_mul(alive().count() as u64).max(1);
        alive().map(|receiver| receiver.bytes).sum::<u64>() as f64 / total as f64
    }
}

impl View for Transfer<'_> {
    fn header(&self) -> String {
        let delivered: u64 = self.receivers.iter().map(|receiver| receiver.bytes).sum();
        let done = self.receivers.iter().filter(|receiver| receiver.complete.is_some()).count();
        let bound = self.bound_s.map_or(String::new(), |bound| format!(" of at least {bound:.1} s"));
        format!(
            "{:5.1} s{bound}: {:.0} %, {done} of {} done; offload {:.1} %, {:.2} copies from the origin",
            self.elapsed.as_secs_f64(),
            100.0 * self.progress(),
            self.receivers.len(),
            100.0 * offload(self.origin_bytes, delivered),
            self.origin_bytes as f64 / self.content_bytes.max(1) as f64,
        )
    }

    fn rows(&self) -> Vec<Row> {
        let row = |receiver: &Receiver| Row {
            name: receiver.part.to_string(),
            part: receiver.bytes,
            whole: self.content_bytes,
            words: sources(receiver),
        };
        self.receivers.iter().map(row).collect()
    }
}

/// What a receiver does, and what it has got from whom.
fn sources(receiver: &Receiver) -> String {
    let counted = receiver.counters();
    let does = match (receiver.dead, receiver.complete) {
        (true, _) => "killed".to_owned(),
        (_, Some(_)) => "done".to_owned(),
        _ => rate(receiver.rate),
    };
    let [peers, waypoint, origin] =
        [counted.peer_bytes, counted.waypoint_bytes, counted.origin_bytes].map(|bytes| BinaryBytes(bytes).to_string());
    format!("{does:>10}  peers {peers:>10}  waypoint {waypoint:>10}  origin {origin:>10}")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::fault::Part;
    use super::*;

    fn receivers() -> Vec<Receiver> {
        let now = Instant::now();
        let mut receivers = [Part::Peer(1), Part::Peer(2), Part::Light(1)].map(|part| Receiver::new(part, 100));
        let line = r#"{"event":"progress","bytes":60,"total":100,"rate":1500000,"peer_bytes":2048,"origin_bytes":10}"#;
        receivers[0].hear(line, now).unwrap();
        receivers[1].hear(&line.replace("60", "100"), now).unwrap();
        receivers[1].hear(r#"{"event":"complete"}"#, now).unwrap();
        receivers[2].killed(false);
        receivers.into()
    }

    #[test]
    fn the_header_sums_up() {
        let receivers = receivers();
        let elapsed = Duration::from_millis(3_400);
        let view =
            Transfer { elapsed, bound_s: Some(26.84), content_bytes: 100, origin_bytes: 40, receivers: &receivers };
        let expected = "  3.4 s of at least 26.8 s: 80 %, 1 of 3 done; offload 75.0 %, 0.40 copies from the origin";
        assert_eq!(view.header(), expected);
        let nothing = Transfer { bound_s: None, origin_bytes: 0, receivers: &[], ..view };
        assert_eq!(nothing.header(), "  3.4 s: 0 %, 0 of 0 done; offload 0.0 %, 0.00 copies from the origin");
    }

    #[test]
    fn a_bar_tells_where_bytes_came_from() {
        let lines: Vec<String> = receivers().iter().map(sources).collect();
        assert_eq!(lines[0], "  1.5 MB/s  peers   2.00 KiB  waypoint        0 B  origin       10 B");
        assert!(lines[1].starts_with("      done ") && lines[2].starts_with("    killed "));
    }
}
