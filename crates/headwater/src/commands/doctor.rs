//! `headwater doctor`: what keeps a peer from doing its best, and what to do.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use headwater_model::{NodeId, Role};
use headwater_peer::node::{Limits, Node, NodeConfig, NodeStatus, SelfTest, StepsAside};
use headwater_peer::sources::Sources;
use serde_json::json;
use url::Url;

use super::{print, print_json};
use crate::doctor::{Finding, Health, findings};
use crate::exit::Ending;
use crate::folders;
use crate::local_api::client::PeerAccess;

/// How long a node that was started for the test waits for the control center's findings.
const FOUND_WITHIN: Duration = Duration::from_secs(12);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Lines are broken after so many characters.
const LINE_CHARS: usize = 110;

/// Find out what keeps this machine's peer from doing its best, and say what to do
///
/// A running peer is asked to test itself: its ways to the control center (UDP, TCP, proxy), how others reach it, router,
/// clock, disk, origins, path MTU, what the system grants. With --control a node is started for the test alone.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  headwater doctor                                # the peer that runs here\n  headwater doctor \
    --control control.example:7400   # before there is one\n\nExit status: 0 nothing is broken, 1 something is, 3 no peer runs."
)]
pub struct Args {
    #[command(flatten)]
    peer: PeerAccess,
    /// Test with a node of its own against this control center
    #[arg(long, value_name = "HOST:PORT")]
    control: Option<String>,
    /// Node id of that control center: nobody else is spoken to
    #[arg(long, value_name = "ID", requires = "control")]
    cc: Option<NodeId>,
    /// HTTP proxy of that node
    #[arg(long, value_name = "URL", requires = "control")]
    proxy: Option<Url>,
    /// Print one JSON object: the findings, and what they come from
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<()> {
    let (status, test) = match &args.control {
        Some(control) => alone(&args, control).await?,
        None => {
            let peer = args.peer.peer()?;
            let test = peer.test().await?;
            (peer.status().await?, test)
        }
    };
    let found = findings(&status, &test);
    let broken = found.iter().filter(|f| f.health == Health::Broken).count();
    if args.json {
        print_json(&json!({"findings": found, "status": status, "test": test}))?;
    } else {
        print(&page(&found))?;
    }
    if broken > 0 { Err(Ending::Unwell(broken).into()) } else { Ok(()) }
}

/// A node for the test: it has a new identity, and keeps nothing.
async fn alone(args: &Args, control: &str) -> Result<(NodeStatus, SelfTest)> {
    let wanted = args.peer.data.clone().map_or_else(folders::peer_data, Ok)?;
    // The disk that a peer would use, where that folder is there.
    let folder = if wanted.is_dir() { tempfile::tempdir_in(&wanted) } else { tempfile::tempdir() };
    let folder = folder.with_context(|| format!("cannot write in {}", wanted.display()))?;
    let config = |listen: &str| -> Result<NodeConfig> {
        Ok(NodeConfig {
            role: Role::Peer,
            listen: listen.parse()?,
            dial_only: false,
            port_mapping: true,
            limits: Limits::default(),
            steps_aside: StepsAside::Never,
            data: folder.path().into(),
            quota_bytes: None,
            pinned: BTreeSet::new(),
            control: control.into(),
            control_id: args.cc,
            join_token: None,
            viewer_token: None,
            sources: Sources::Any,
            proxy: args.proxy.clone(),
            https: None,
            gateway: None,
        })
    };
    let node = match Node::start(config("[::]:0")?).await {
        Ok(node) => node,
        Err(_) => Node::start(config("0.0.0.0:0")?).await?,
    };
    let test = node.self_test().await;
    let found = async {
        while !is_judged(&node.status()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    if test.quic.works || test.websocket.works {
        // What is not found out by then is told as not known.
        let _ = tokio::time::timeout(FOUND_WITHIN, found).await;
    }
    let status = node.status();
    node.stop().await;
    Ok((status, test))
}

/// Whether the control center is done with it.
fn is_judged(status: &NodeStatus) -> bool {
    status.control.way.as_deref() == Some("websocket")
        || (status.reach.accepts.is_some() && status.reach.why != "being tested")
}

fn page(found: &[Finding]) -> String {
    let width = found.iter().map(|f| f.test.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for f in found {
        let mark = match f.health {
            Health::Good => "good   ",
            Health::Limited => "LIMITED",
            Health::Broken => "BROKEN ",
        };
        let indent = 9 + width + 2;
        text += &format!("{mark}  {:width$}  {}\n", f.test, wrapped(&f.found, indent));
        text += &format!("{:indent$}{}\n", "", wrapped(f.meaning, indent));
        if !f.advice.is_empty() {
            text += &format!("{:indent$}{}\n", "", wrapped(&format!("→ {}", f.advice), indent));
        }
    }
    let count = |health| found.iter().filter(|f| f.health == health).count();
    let (broken, limited) = (count(Health::Broken), count(Health::Limited));
    text + &match (broken, limited) {
        (0, 0) => "\nAll is well.\n".to_owned(),
        (0, limited) => format!("\nNothing is broken; {limited} could be better.\n"),
        (broken, limited) => format!("\n{broken} broken, {limited} could be better.\n"),
    }
}

/// `text` in lines, the later ones indented.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines
            .last_mut()
            .filter(|l| l.is_empty() || indent + l.chars().count() + 1 + word.chars().count() <= LINE_CHARS);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines.join(&format!("\n{:indent$}", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        let text = "word ".repeat(40);
        let page = wrapped(text.trim(), 20);
        assert!(page.lines().count() > 1 && page.lines().all(|l| l.chars().count() <= LINE_CHARS), "{page}");
        assert_eq!(page.split_whitespace().count(), 40);
        assert_eq!(wrapped(&"x".repeat(300), 20), "x".repeat(300));
    }
}
