//! `headwater origin`: a small web server to try things with.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use headwater_model::Rate;
use serde_json::json;
use tokio::net::TcpListener;

use super::{print, print_json};
use crate::lifetime;
use crate::origin_server::OriginServer;
use crate::units::{UNLIMITED, parse_rate};

/// Serve a folder by HTTP, as an origin to try things with
///
/// A real origin is any web server or CDN that has byte ranges. This one adds an uplink of a set rate, and a count of
/// the bytes it sent at /_stats.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Address to listen at; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Most bytes sent per second, all together: 10MB/s, 20Mbit/s, unlimited
    #[arg(long, value_name = "RATE", value_parser = parse_rate, default_value = "unlimited")]
    up: Rate,
    /// Print one JSON object: address, url
    #[arg(long)]
    json: bool,
    /// End when standard input ends
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

pub async fn run(args: Args) -> Result<()> {
    if !args.dir.is_dir() {
        bail!("{} is not a folder", args.dir.display());
    }
    let cannot = || format!("cannot listen at {} (choose another address with --listen)", args.listen);
    let listener = TcpListener::bind(args.listen).await.with_context(cannot)?;
    let address = listener.local_addr()?;
    let url = format!("http://{address}/");
    if args.json {
        print_json(&json!({"address": address, "url": url}))?;
    } else {
        print(&format!("serving {} at {url}", args.dir.display()))?;
    }
    let server = OriginServer { dir: args.dir, up_bytes_per_s: Some(args.up).filter(|r| *r != UNLIMITED).map(|r| r.0) };
    server.serve(listener, lifetime::shutdown(args.exit_with_stdin)).await.context("the origin stopped")
}
