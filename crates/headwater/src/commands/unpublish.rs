//! `headwater unpublish`: take a content back.

use anyhow::Result;
use serde_json::json;

use super::{print, print_json};
use crate::cli::ControlAccess;

/// Take a content back
///
/// Nobody is given it from then on; copies that viewers have, and the file at the origin, stay where they are.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its name, content id or hw:// name
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    control: ControlAccess,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<()> {
    args.control.api()?.unpublish(&args.name).await?;
    if args.json {
        print_json(&json!({"unpublished": args.name}))
    } else {
        print(&format!("{}: unpublished", args.name))
    }
}
