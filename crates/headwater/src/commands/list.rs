//! `headwater list`: what is published.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use indicatif::{BinaryBytes, HumanDuration};
use serde::Deserialize;

use super::{print, print_json};
use crate::cli::ControlAccess;
use crate::table::table;

/// List what a control center has published
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    control: ControlAccess,
    /// Print the control center's answer, a JSON array
    #[arg(long)]
    json: bool,
}

/// A content in the answer, as far as the table shows it.
#[derive(Debug, Deserialize)]
struct Listed {
    content: String,
    name: String,
    bytes: u64,
    pieces: u64,
    #[serde(default)]
    audience: String,
    #[serde(default)]
    members: u64,
    #[serde(default)]
    complete: u64,
    #[serde(default)]
    origin_bytes: u64,
    #[serde(default)]
    published_unix_ms: u64,
    live: Option<serde_json::Value>,
}

pub async fn run(args: Args) -> Result<()> {
    let answer = args.control.api()?.get_json("/v1/contents").await?;
    if args.json {
        return print_json(&answer);
    }
    let listed: Vec<Listed> = serde_json::from_value(answer).context("the control center's answer is not a list")?;
    if listed.is_empty() {
        return print("nothing is published; see `headwater publish --help`");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let row = |c: &Listed| {
        let closed = |text: String| if c.live.is_some() { "-".to_owned() } else { text };
        vec![
            c.name.clone(),
            c.content.chars().take(8).collect(),
            if c.live.is_some() { "live".into() } else { BinaryBytes(c.bytes).to_string() },
            closed(c.pieces.to_string()),
            c.members.to_string(),
            closed(c.complete.to_string()),
            closed(format!("{:.2}", c.origin_bytes as f64 / c.bytes.max(1) as f64)),
            c.audience.clone(),
            format!("{} ago", HumanDuration(now.saturating_sub(Duration::from_millis(c.published_unix_ms)))),
        ]
    };
    let rows: Vec<Vec<String>> = listed.iter().map(row).collect();
    let header = ["NAME", "CONTENT", "SIZE", "PIECES", "NODES", "COMPLETE", "ORIGIN COPIES", "AUDIENCE", "PUBLISHED"];
    print(&table(&header, &rows, &["SIZE", "PIECES", "NODES", "COMPLETE", "ORIGIN COPIES"]))
}
