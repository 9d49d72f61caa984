//! `headwater explain`: why a node is fed by whom it is fed.

use anyhow::{Context, Result};

use super::{print, print_json};
use crate::cli::ControlAccess;

/// Explain why a node gets a content from whom it gets it
///
/// Tells which sources were considered, which were removed and by what, how the rest ranked, and, when none was left,
/// the nearest thing that would have made it otherwise.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node's id, or the first 8 or more digits of it
    #[arg(long, value_name = "NODE")]
    client: String,
    /// The content's name, id or hw:// name
    #[arg(long, value_name = "NAME")]
    content: String,
    #[command(flatten)]
    control: ControlAccess,
    /// Print the control center's answer, one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<()> {
    let answer = args.control.api()?.explain(&args.client, &args.content).await?;
    if args.json {
        return print_json(&answer);
    }
    print(answer["words"].as_str().context("the control center explains it in no words; see --json")?)
}
