//! `headwater consent`: the web sites that the user allowed to read contents through the peer on this machine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Subcommand;
use headwater_peer::consents::{Consent, ConsentFile, Site};
use indicatif::HumanDuration;
use serde_json::json;

use super::{print, print_json};
use crate::exit::Ending;
use crate::local_api::client::PeerAccess;
use crate::table::table;

/// See and take back what web sites may read through the peer on this machine
///
/// A site asks by opening a page of the peer's gateway, on which you allow it or not. What you allowed always is remembered
/// in the peer's data folder; what you allowed once shows on the page that `headwater peer` prints.
#[derive(Debug, Subcommand)]
pub enum ConsentCommand {
    /// List the sites that were allowed always
    List {
        #[command(flatten)]
        peer: PeerAccess,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Take back what a site was allowed; what it is reading from a peer that runs ends within a second
    Revoke {
        /// The site, as `consent list` shows it
        #[arg(value_name = "SITE", required_unless_present = "all")]
        site: Option<Site>,
        /// Take back what all sites were allowed
        #[arg(long, conflicts_with = "site")]
        all: bool,
        #[command(flatten)]
        peer: PeerAccess,
    },
}

/// Runs the command.
///
/// # Errors
/// That the consents cannot be read or changed, or that the site has none.
pub fn run(command: ConsentCommand) -> Result<()> {
    match command {
        ConsentCommand::List { peer, json } => {
            let consents = ConsentFile::of(&peer.folder()?).read()?;
            if json {
                let one = |c: &Consent| {
                    json!({
                        "site": c.site.as_str(), "publisher": c.publisher.to_string(), "content": c.content,
                        "since_unix_ms": c.since_unix_ms,
                    })
                };
                return print_json(&json!({ "consents": consents.iter().map(one).collect::<Vec<_>>() }));
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let row = |c: &Consent| {
                let since = HumanDuration(now.saturating_sub(Duration::from_millis(c.since_unix_ms)));
                let publisher = c.publisher.to_string().chars().take(16).collect();
                vec![c.site.to_string(), publisher, c.content.clone(), format!("{since} ago")]
            };
            let rows: Vec<Vec<String>> = consents.iter().map(row).collect();
            if rows.is_empty() {
                return print("no site was allowed anything always");
            }
            print(&table(&["SITE", "PUBLISHER'S KEY", "FIRST CONTENT", "ALLOWED"], &rows, &[]))
        }
        ConsentCommand::Revoke { site, peer, .. } => {
            let (_, revoked) = ConsentFile::of(&peer.folder()?).change(|all| {
                let sites: Vec<Site> = match &site {
                    Some(site) => vec![site.clone()],
                    None => all.iter().map(|c| c.site.clone()).collect(),
                };
                Ok(sites.iter().map(|site| all.revoke(site)).sum::<usize>())
            })?;
            match (&site, revoked) {
                (Some(site), 0) => {
                    let why = format!("{site} was allowed nothing; `headwater consent list` shows the sites that were");
                    Err(Ending::Refused(why).into())
                }
                (Some(site), _) => print(&format!("{site} may read nothing any more")),
                (None, _) => print(&format!("consents taken back: {revoked}")),
            }
        }
    }
}
