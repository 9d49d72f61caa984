//! Small commands to the peer that runs on this machine.

use anyhow::Result;
use clap::Args;
use headwater_model::Rate;
use headwater_peer::node::LimitsStatus;
use serde_json::{Map, Value};

use super::{peer_status, print, print_json};
use crate::local_api::client::PeerAccess;
use crate::units::{UNLIMITED, parse_rate, parse_size};

/// Have the peer of this machine fetch a content, and keep it
///
/// It serves others what it has, also after it was started again, until `headwater forget` or, without --pin, until the
/// quota needs its room.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// Name of the content (quote it: it has a # in it)
    name: String,
    /// It stays however long nobody uses it, until `headwater forget`; said again of one that is here, it stays from now on
    #[arg(long)]
    pin: bool,
    #[command(flatten)]
    peer: PeerAccess,
    /// Print the peer's answer, one JSON object
    #[arg(long)]
    json: bool,
}

/// Have the peer of this machine give a content up and remove its files
#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// Which: its name, its hw:// name, or the beginning of its id, as `headwater status` shows them
    content: String,
    #[command(flatten)]
    peer: PeerAccess,
    /// Print the peer's answer, one JSON object
    #[arg(long)]
    json: bool,
}

/// Show or change what the peer of this machine logs, while it runs
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  headwater log                              # what is logged\n  headwater log debug\n  \
    headwater log info,headwater_peer=trace    # one part in detail\n\nThe next start begins with --log again."
)]
pub struct LogArgs {
    /// A level (error, warn, info, debug, trace), or directives
    filter: Option<String>,
    #[command(flatten)]
    peer: PeerAccess,
    /// Print the peer's answer, one JSON object
    #[arg(long)]
    json: bool,
}

/// Have the peer of this machine serve nobody and fetch nothing, until `headwater resume` or its next start
///
/// Its children get other parents first. The programs of this machine go on reading what is here.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// Serve nobody, but fetch on
    #[arg(long)]
    keep_fetching: bool,
    #[command(flatten)]
    peer: PeerAccess,
    /// Print what the peer may do now, one JSON object
    #[arg(long)]
    json: bool,
}

/// End a pause of the peer of this machine
#[derive(Debug, Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    peer: PeerAccess,
    /// Print what the peer may do now, one JSON object
    #[arg(long)]
    json: bool,
}

/// Change what the peer of this machine may upload and download, while it runs
///
/// The next start begins with --up, --down and --monthly of `headwater peer` again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  headwater limit --up 5MB/s\n  headwater limit --up unlimited --monthly 200GB")]
#[command(group = clap::ArgGroup::new("limits").required(true).multiple(true).args(["up", "down", "monthly"]))]
pub struct LimitArgs {
    /// Most to upload, e.g. 10MB/s, or unlimited
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    up: Option<Rate>,
    /// Most to download, e.g. 10MB/s, or unlimited
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    down: Option<Rate>,
    /// Most to upload in a calendar month, e.g. 100GB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    monthly: Option<u64>,
    #[command(flatten)]
    peer: PeerAccess,
    /// Print what the peer may do now, one JSON object
    #[arg(long)]
    json: bool,
}

/// Stop the peer of this machine: it hands its children over first
#[derive(Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    peer: PeerAccess,
    /// Print the peer's answer, one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn fetch(args: FetchArgs) -> Result<()> {
    let said = args.peer.peer()?.fetch(&args.name, args.pin).await?;
    if args.json {
        return print_json(&said);
    }
    print(&format!("{} is on its way; `headwater status` shows how far", said["name"].as_str().unwrap_or(&args.name)))
}

pub async fn forget(args: ForgetArgs) -> Result<()> {
    let said = args.peer.peer()?.forget(&args.content).await?;
    if args.json { print_json(&said) } else { print("given up, and its files removed") }
}

pub async fn log(args: LogArgs) -> Result<()> {
    let said = args.peer.peer()?.log(args.filter.as_deref()).await?;
    if args.json { print_json(&said) } else { print(said["filter"].as_str().unwrap_or_default()) }
}

pub async fn pause(args: PauseArgs) -> Result<()> {
    show(&args.peer.peer()?.pause(args.keep_fetching).await?, args.json)
}

pub async fn resume(args: ResumeArgs) -> Result<()> {
    show(&args.peer.peer()?.resume().await?, args.json)
}

pub async fn limit(args: LimitArgs) -> Result<()> {
    let mut new = Map::new();
    let rate = |r: Rate| if r == UNLIMITED { Value::Null } else { r.0.into() };
    args.up.map(|r| new.insert("up_bytes_per_s".into(), rate(r)));
    args.down.map(|r| new.insert("down_bytes_per_s".into(), rate(r)));
    args.monthly.map(|bytes| new.insert("monthly_bytes".into(), bytes.into()));
    show(&args.peer.peer()?.limit(new.into()).await?, args.json)
}

fn show(limits: &LimitsStatus, json: bool) -> Result<()> {
    if json { print_json(limits) } else { print(&peer_status::limits(limits)) }
}

pub async fn stop(args: StopArgs) -> Result<()> {
    let said = args.peer.peer()?.stop().await?;
    if args.json { print_json(&said) } else { print("stopped") }
}
