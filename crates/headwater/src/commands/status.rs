//! `headwater status`: how the peer of this machine, or a control center, is doing.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::HumanDuration;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{peer_status, print, print_json};
use crate::cli::ControlAccess;
use crate::local_api::client::PeerAccess;
use crate::table::table;

/// Show how the peer of this machine is doing; with --control, how a control center is
///
/// Of the peer: its session with the control center, how others reach it, its contents, and who feeds whom at which rate.
/// Of a control center: its nodes and what it counts. HEADWATER_CONTROL counts as --control, and --data wins over it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  headwater status                                  # the peer of this machine\n  \
    headwater status --control http://127.0.0.1:7400  # a control center\n\nExit status: 0 shown, 1 failed, 3 no peer runs, or \
    the control center refuses.")]
pub struct Args {
    #[command(flatten)]
    peer: PeerAccess,
    #[command(flatten)]
    control: ControlAccess,
    /// Print the answer, one JSON object
    #[arg(long)]
    json: bool,
}

/// The answer, as far as it is shown; what is counted differs between versions.
#[derive(Debug, Deserialize)]
struct Status {
    node: String,
    epoch: u64,
    uptime_s: f64,
    sessions: u64,
    contents: u64,
    #[serde(default)]
    limited: Vec<Limited>,
    #[serde(default)]
    limited_nodes: BTreeMap<String, u64>,
    #[serde(default)]
    totals: serde_json::Map<String, Value>,
    #[serde(default)]
    dials: Vec<Dials>,
}

/// Dials between nodes of two kinds.
#[derive(Debug, Deserialize)]
struct Dials {
    between: [String; 2],
    attempted: u64,
    connected: u64,
}

/// A node, as far as it is shown.
#[derive(Debug, Deserialize)]
struct Node {
    node: String,
    role: String,
    observed: String,
    accepts: String,
    accepts_from: String,
    #[serde(default)]
    accepts_why: String,
    #[serde(default)]
    mapped: Option<String>,
}

/// Nodes shown; --json and the API show all.
const MAX_SHOWN_NODES: usize = 50;

/// A node that fetches from the origin and operator nodes only.
#[derive(Debug, Deserialize)]
struct Limited {
    node: String,
    why: String,
}

pub async fn run(args: Args) -> Result<()> {
    if args.control.control.is_some() && args.peer.data.is_none() {
        return of_control_center(args).await;
    }
    let peer = args.peer.peer()?;
    let (status, contents) = (peer.status().await?, peer.contents().await?);
    if args.json {
        return print_json(&json!({"status": status, "contents": contents}));
    }
    print(&peer_status::page(&status, &contents))
}

async fn of_control_center(args: Args) -> Result<()> {
    let api = args.control.api()?;
    let answer = api.get_json("/v1/status").await?;
    if args.json {
        return print_json(&answer);
    }
    let status: Status = serde_json::from_value(answer).context("the control center's answer is no status")?;
    let uptime = HumanDuration(Duration::try_from_secs_f64(status.uptime_s).unwrap_or_default());
    let mut lines = vec![
        ("control center".to_owned(), api.url().to_string()),
        ("node".to_owned(), status.node),
        ("epoch".to_owned(), status.epoch.to_string()),
        ("up for".to_owned(), uptime.to_string()),
        ("sessions".to_owned(), status.sessions.to_string()),
        ("contents".to_owned(), status.contents.to_string()),
    ];
    lines.extend(status.totals.into_iter().map(|(what, count)| (what.replace('_', " "), count.to_string())));
    lines.extend(status.dials.iter().map(|d| {
        let [a, b] = &d.between;
        (format!("dials {a} to {b}"), format!("{} of {} connected", d.connected, d.attempted))
    }));
    let count = |(why, count): (&String, &u64)| ("limited nodes".to_owned(), format!("{count}: {why}"));
    lines.extend(status.limited_nodes.iter().map(count));
    let limited = status.limited.iter().map(|l| (format!("node {:.8}", l.node), format!("limited: {}", l.why)));
    lines.extend(limited);
    let width = lines.iter().map(|(what, _)| what.len()).max().unwrap_or(0);
    let text: String = lines.iter().map(|(what, value)| format!("{what:width$}  {value}\n")).collect();
    let nodes: Vec<Node> = serde_json::from_value(api.get_json("/v1/nodes").await?).context("no list of nodes")?;
    print(&(text + &node_table(&nodes)))
}

/// Who is there, and how it can be reached.
fn node_table(nodes: &[Node]) -> String {
    if nodes.is_empty() {
        return String::new();
    }
    let row = |n: &Node| {
        let seen = match &n.mapped {
            Some(mapped) => format!("{} (mapped {mapped})", n.observed),
            None => n.observed.clone(),
        };
        let short = n.node.chars().take(8).collect();
        vec![short, n.role.clone(), seen, n.accepts.clone(), n.accepts_from.clone(), n.accepts_why.clone()]
    };
    let rows: Vec<_> = nodes.iter().take(MAX_SHOWN_NODES).map(row).collect();
    let more = match nodes.len().saturating_sub(MAX_SHOWN_NODES) {
        0 => String::new(),
        n => format!("and {n} more (see GET /v1/nodes)\n"),
    };
    format!("\n{}{more}", table(&["node", "role", "seen at", "accepts", "known by", "why"], &rows, &[]))
}
