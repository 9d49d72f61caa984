//! How a running peer is, for people.

use headwater_model::{Accepts, Rate, SourceClass};
use headwater_peer::node::{ContentDetail, EdgeStatus, LimitsStatus, NodeStatus};
use indicatif::{BinaryBytes, HumanDuration};
use std::time::Duration;

use crate::table::table;

/// Edges shown of one content; --json and `headwater top` show more.
const MAX_SHOWN_EDGES: usize = 12;

/// All of it, in lines and tables.
pub fn page(status: &NodeStatus, contents: &[ContentDetail]) -> String {
    let lines = summary(status);
    let width = lines.iter().map(|(what, _)| what.len()).max().unwrap_or(0);
    let mut text: String = lines.iter().map(|(what, value)| format!("{what:width$}  {value}\n")).collect();
    if contents.is_empty() {
        return text + "\nno contents; `headwater fetch NAME` fetches one\n";
    }
    let rows: Vec<_> = contents.iter().map(content_row).collect();
    text += "\n";
    text += &table(&CONTENT_HEADER, &rows, &CONTENT_HEADER[2..]);
    for content in contents {
        text += &details(content);
    }
    text
}

/// What a page begins with: what, and how it is.
pub fn summary(s: &NodeStatus) -> Vec<(&'static str, String)> {
    let uptime = HumanDuration(Duration::try_from_secs_f64(s.uptime_s).unwrap_or_default());
    let version = if s.version.is_empty() { "" } else { &s.version };
    let most = |limit: Option<u64>| limit.map_or(String::new(), |r| format!(" (at most {})", Rate(r)));
    let (down, up) = (most(s.limits.down_bytes_per_s), most(s.limits.up_bytes_per_s));
    let rates = format!("down {}{down}, up {}{up}", Rate(s.down_bytes_per_s), Rate(s.up_bytes_per_s));
    let quota = s.quota_bytes.map_or(String::new(), |b| format!(" of {} at most", BinaryBytes(b)));
    let free = s.free_bytes.map_or(String::new(), |b| format!(", {} free", BinaryBytes(b)));
    let stopping = if s.stopping { ", about to stop" } else { "" };
    vec![
        (
            if s.role == "waypoint" { "waypoint" } else { "peer" },
            format!("{:.8}, headwater {version}, up for {uptime}{stopping}", s.node),
        ),
        ("control", control(s)),
        ("reached", reached(s)),
        ("rates", rates),
        ("serving", serving(&s.limits)),
        ("disk", format!("{} held{quota} in {}{free}", BinaryBytes(s.held_bytes), s.data.display())),
    ]
}

/// What a peer may do for others, in a line.
pub fn limits(l: &LimitsStatus) -> String {
    let most =
        |what: &str, limit: Option<u64>| limit.map_or(String::new(), |r| format!("; {what} at most {}", Rate(r)));
    format!("serving {}{}{}", serving(l), most("down", l.down_bytes_per_s), most("up", l.up_bytes_per_s))
}

fn serving(l: &LimitsStatus) -> String {
    let what = match l.conduct.as_str() {
        "fetch" => "nobody; fetching only",
        "pause" => "nobody, and fetching nothing",
        _ => "others",
    };
    let why = l.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
    let sent = BinaryBytes(l.sent_this_month_bytes);
    let month = match l.monthly_bytes {
        Some(most) => format!("{sent} of {} sent this month", BinaryBytes(most)),
        None => format!("{sent} sent this month"),
    };
    format!("{what}{why}; {month}")
}

fn control(s: &NodeStatus) -> String {
    let c = &s.control;
    let clock = match c.clock_ahead_ms.map(|ms| ms / 1000) {
        Some(off) if off.abs() >= 5 => {
            format!("; this machine's clock is {} s {}", off.abs(), if off > 0 { "fast" } else { "slow" })
        }
        _ => String::new(),
    };
    match (&c.way, &c.problem) {
        (Some(way), _) if way == "quic" => format!("{}, connected by QUIC{clock}", c.address),
        (Some(_), _) => format!("{}, connected by a WebSocket: UDP does not get through{clock}", c.address),
        (None, Some(why)) => format!("{}, not connected: {why}", c.address),
        (None, None) => format!("{}, dialling", c.address),
    }
}

fn reached(s: &NodeStatus) -> String {
    let r = &s.reach;
    let at = r.via.or(r.observed).map_or(String::new(), |a| format!("; seen at {a}"));
    let how = match r.accepts {
        None => return format!("not known yet{at}"),
        Some(Accepts::Open) => "open",
        Some(Accepts::Punchable) => "punchable",
        Some(Accepts::DialOnly) => "dial-only",
    };
    format!("{how} ({}){at}", r.why)
}

const CONTENT_HEADER: [&str; 9] = ["CONTENT", "STATE", "HERE", "SIZE", "DOWN", "UP", "PARENTS", "CHILDREN", "OFFLOAD"];

fn content_row(c: &ContentDetail) -> Vec<String> {
    let s = &c.status;
    vec![
        content_name(c),
        if s.pinned { format!("{}, pinned", s.state) } else { s.state.clone() },
        here(c),
        if s.live.is_some() { "-".into() } else { BinaryBytes(s.total).to_string() },
        Rate(c.down_bytes_per_s).to_string(),
        Rate(c.up_bytes_per_s).to_string(),
        s.parents.to_string(),
        s.children.to_string(),
        offload(c),
    ]
}

/// Its name, or the beginning of its id until it is known.
pub fn content_name(c: &ContentDetail) -> String {
    if c.status.name.is_empty() { format!("{:.8}", c.status.content) } else { c.status.name.clone() }
}

/// How much of it is here; 100 % only of all.
pub fn here(c: &ContentDetail) -> String {
    let s = &c.status;
    if s.total == 0 {
        return if s.complete { "100 %".into() } else { "-".into() };
    }
    let percent = 100.0 * s.bytes as f64 / s.total as f64;
    if s.complete { "100 %".into() } else { format!("{:.1} %", percent.min(99.9)) }
}

/// Share of what came that did not come from the origin.
pub fn offload(c: &ContentDetail) -> String {
    c.status.offload_percent().map_or("-".into(), |o| format!("{o:.0} %"))
}

fn details(c: &ContentDetail) -> String {
    let s = &c.status;
    let mut text = format!("\n{}  {:.8}\n", content_name(c), s.content);
    if s.received_bytes() + s.uploaded_bytes > 0 {
        text += &format!(
            "  from peers {}, waypoints {}, the origin {}; wasted {}; sent to others {}\n",
            BinaryBytes(s.peer_bytes),
            BinaryBytes(s.waypoint_bytes),
            BinaryBytes(s.origin_bytes),
            BinaryBytes(s.wasted_bytes),
            BinaryBytes(s.uploaded_bytes)
        );
    }
    if let Some(live) = &s.live {
        let lag = live
            .lag_p95_ms
            .map_or("not known yet".into(), |ms| format!("at most {:.2} s for 95 of 100 pieces", ms as f64 / 1e3));
        let whose = if live.source { "the source; " } else { "" };
        text += &format!(
            "  live: {whose}lag {lag}; {} pieces awaited, {} lost; {} substreams without a parent\n",
            live.missing_pieces, live.lost_pieces, live.unfed_substreams
        );
    }
    if let Some(url) = &s.gateway {
        text += &format!("  read at {url}\n");
    }
    for note in &s.notes {
        text += &format!("  note: {note}\n");
    }
    for (what, edges) in [("PARENT", &c.parent_edges), ("CHILD", &c.child_edges)] {
        if edges.is_empty() {
            continue;
        }
        let rows: Vec<_> = edges.iter().take(MAX_SHOWN_EDGES).map(edge_row).collect();
        let header = [what, "AT", "CLASS", "STATE", "RATE", "BYTES", "SHARE", "RTT"];
        for line in table(&header, &rows, &header[4..]).lines() {
            text += &format!("  {line}\n");
        }
        if let more @ 1.. = edges.len().saturating_sub(MAX_SHOWN_EDGES) {
            text += &format!("  and {more} more\n");
        }
    }
    text
}

/// An edge's cells: node, address, class, state, rate, bytes, share, round-trip time.
pub fn edge_row(e: &EdgeStatus) -> Vec<String> {
    let class = match e.class {
        Some(SourceClass::Peer) => "peer",
        Some(SourceClass::Waypoint) => "waypoint",
        Some(SourceClass::Origin) => "origin",
        None => "",
    };
    vec![
        format!("{:.8}", e.node),
        e.address.map_or("-".into(), |a| a.to_string()),
        class.into(),
        if e.spare { "spare".into() } else { e.stage.clone() },
        Rate(e.bytes_per_s).to_string(),
        BinaryBytes(e.bytes).to_string(),
        format!("{:.0} %", e.share_percent),
        if e.rtt_ms > 0.0 { format!("{:.1} ms", e.rtt_ms) } else { "-".into() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_peer::node::{ContentStatus, ControlStatus, ReachStatus};

    #[test]
    fn a_status_is_told_in_words() {
        let control = ControlStatus { address: "cc.example:7400".into(), ..ControlStatus::default() };
        let by = |way: Option<&str>, problem: Option<&str>, clock_ahead_ms| NodeStatus {
            control: ControlStatus {
                connected: way.is_some(),
                way: way.map(Into::into),
                problem: problem.map(Into::into),
                clock_ahead_ms,
                ..control.clone()
            },
            ..NodeStatus::default()
        };
        for (status, says) in [
            (by(Some("quic"), None, Some(3)), "connected by QUIC"),
            (by(Some("websocket"), None, None), "UDP does not get through"),
            (by(None, Some("no answer"), None), "not connected: no answer"),
            (by(None, None, None), "dialling"),
            (by(Some("quic"), None, Some(-90_500)), "clock is 90 s slow"),
        ] {
            let page = page(&status, &[]);
            assert!(page.contains(says) && page.contains("no contents"), "{page}");
        }
        let reach = ReachStatus {
            accepts: Some(Accepts::DialOnly),
            why: "not reached by strangers".into(),
            observed: Some("192.0.2.1:7".parse().unwrap()),
            ..ReachStatus::default()
        };
        let page = page(&NodeStatus { reach, ..NodeStatus::default() }, &[]);
        assert!(page.contains("dial-only (not reached by strangers); seen at 192.0.2.1:7"), "{page}");
    }

    #[test]
    fn a_content_is_a_hundred_percent_here_only_when_it_is() {
        let of = |bytes, total, complete| ContentDetail {
            status: ContentStatus { bytes, total, complete, ..ContentStatus::default() },
            ..ContentDetail::default()
        };
        for (content, says) in [
            (of(0, 0, false), "-"),
            (of(0, 0, true), "100 %"),
            (of(999_999, 1_000_000, false), "99.9 %"),
            (of(500, 1000, false), "50.0 %"),
            (of(1000, 1000, true), "100 %"),
        ] {
            assert_eq!(here(&content), says);
        }
    }
}
