//! `headwater peer`: a resident peer, or a waypoint.

use super::get::{NodeArgs, say};
use crate::lifetime;
use crate::units::parse_size;
use clap::Args;
use headwater_model::{Name, NodeId, Rate, Role};
use headwater_peer::node::{Fetch, Limits, LimitsStatus, NodeConfig, StartError};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The gateway's usual address.
const GATEWAY: &str = "127.0.0.1:7480";

/// Run a resident peer, or with --waypoint an operator's node that serves only.
///
/// A waypoint fetches what the control center tells it to and serves it to everyone near. It must come with the
/// operator's join token (from `POST /v1/tokens`), except on the control center's own machine.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  headwater peer --waypoint --https 0.0.0.0:443 --control control.example:7400 --cc ID --join-token T \\\n    \
    --data /var/lib/headwater\n  \
    headwater peer --control control.example:7400 --data ~/.local/share/headwater --fetch 'hw://…'"
)]
pub struct PeerArgs {
    /// Control center, host:port.
    #[arg(long, value_name = "HOST:PORT", env = "HEADWATER_CONTROL_NODE")]
    control: String,
    /// Node id of the control center, which `headwater control` prints: nobody else is spoken to.
    #[arg(long, value_name = "ID")]
    cc: Option<NodeId>,
    /// Folder of the identity and of all contents.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Most that contents may take of the disk, e.g. 50GB. What is over goes as whole contents: first those that nobody
    /// here used for long and many others hold; never one of --fetch, or one that is being used [default: what leaves a
    /// tenth of the disk free].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    quota: Option<u64>,
    /// Serve only; fetch what the control center says.
    #[arg(long)]
    waypoint: bool,
    /// Serve contents also by HTTPS at this TCP address, for nodes that UDP does not reach; best port 443, which firewalls
    /// and proxies let through.
    #[arg(long, value_name = "ADDR:PORT", requires = "waypoint")]
    https: Option<SocketAddr>,
    /// Where programs on this machine read contents by HTTP, also while they arrive: a loopback address.
    #[arg(long, value_name = "ADDR:PORT", default_value = GATEWAY, conflicts_with_all = ["no_gateway", "waypoint"])]
    gateway: SocketAddr,
    /// Have no gateway; a waypoint has none.
    #[arg(long)]
    no_gateway: bool,
    /// Fetch and serve this content (may be given several times).
    #[arg(long, value_name = "HW_NAME")]
    fetch: Vec<Name>,
    /// Contents of --fetch may go as others do when the quota needs room.
    #[arg(long, requires = "fetch")]
    no_pin: bool,
    /// Operator's token: this node's claims are believed.
    #[arg(long, value_name = "TOKEN", env = "HEADWATER_JOIN_TOKEN", hide_env_values = true)]
    join_token: Option<String>,
    /// Token from the publisher, for contents that are not open to all.
    #[arg(long, value_name = "TOKEN", env = "HEADWATER_VIEWER_TOKEN", hide_env_values = true)]
    viewer_token: Option<String>,
    /// Most to upload in a calendar month, e.g. 100GB: then it serves nobody until the next one, and fetches on.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    monthly: Option<u64>,
    #[command(flatten)]
    node: NodeArgs,
    /// Print state as one JSON object a line, twice a second.
    #[arg(long)]
    json: bool,
}

/// What keeps it from serving, or how much it serves at most.
fn limits_in_words(limits: &LimitsStatus) -> String {
    match (&limits.why, limits.up_bytes_per_s) {
        (Some(why), _) => format!("serves nobody: {why}"),
        (None, Some(up)) => format!("at most {}", Rate(up)),
        (None, None) => "no limit".to_owned(),
    }
}

/// Runs the command.
pub async fn run(args: PeerArgs) -> anyhow::Result<()> {
    let start = |gateway: Option<SocketAddr>| {
        let args = &args;
        args.node.start(move |listen| NodeConfig {
            role: if args.waypoint { Role::Waypoint } else { Role::Peer },
            listen,
            dial_only: args.node.dial_only,
            port_mapping: !args.node.no_port_mapping,
            limits: Limits { monthly_bytes: args.monthly, ..args.node.limits() },
            data: args.data.clone(),
            quota_bytes: args.quota,
            pinned: args.fetch.iter().filter(|_| !args.no_pin).map(Name::content).collect(),
            control: args.control.clone(),
            control_id: args.cc,
            join_token: args.join_token.clone(),
            viewer_token: args.viewer_token.clone(),
            sources: args.node.sources.clone(),
            proxy: args.node.proxy.clone(),
            https: args.https,
            gateway,
        })
    };
    let gateway = (!args.no_gateway && !args.waypoint).then_some(args.gateway);
    let node = match start(gateway).await {
        // The port that nobody asked for is another peer's: this one is useful all the same.
        Err(e @ StartError::Gateway { address, .. }) if address.to_string() == GATEWAY => {
            eprintln!("headwater: {e}, or say --no-gateway; going on without");
            start(None).await?
        }
        started => started?,
    };
    let (address, consents_url) = (node.address()?.to_string(), node.consents_url());
    if args.json {
        let https_port = node.https_port();
        let node = node.id().to_string();
        let consents = consents_url;
        say(&json!({
            "event": "started", "node": node, "address": address, "https_port": https_port, "consents": consents,
        }));
    } else {
        println!("node {} listens on {address}; control center {}", node.id(), args.control);
        if let Some(port) = node.https_port() {
            println!("contents by HTTPS at port {port}");
        }
        if let Some(url) = consents_url {
            println!("web sites that you allowed to read contents here are listed at {url}");
        }
    }
    for name in args.fetch {
        // Its outcome shows in the state; a resident peer goes on without it.
        drop(node.fetch(Fetch { name, destination: None, state_dir: None }));
    }
    let mut shutdown = Box::pin(lifetime::shutdown(args.node.exit_with_stdin));
    let mut pulse = tokio::time::interval(Duration::from_millis(if args.json { 500 } else { 10_000 }));
    let (mut said, mut shown) = (String::new(), BTreeSet::new());
    loop {
        tokio::select! {
            _ = &mut shutdown => break,
            _ = pulse.tick() => {}
        }
        let contents = node.contents();
        let uploaded: u64 = contents.iter().map(|c| c.uploaded_bytes).sum();
        if args.json {
            say(&json!({
                "event": "status", "control": node.has_control(), "uploaded_bytes": uploaded, "contents": contents,
                "storage": node.storage(),
                "limits": node.limits(),
            }));
            continue;
        }
        for c in contents.iter().filter(|c| !c.name.is_empty()) {
            if let Some(url) = c.gateway.as_ref().filter(|url| !shown.contains(*url)) {
                println!("{} is read at {url}", c.name);
                shown.insert(url.clone());
            }
        }
        let storage = node.storage();
        let complete = contents.iter().filter(|c| c.complete).count();
        let children: usize = contents.iter().map(|c| c.children).sum();
        let control = if node.has_control() { "connected" } else { "dialling" };
        let line = format!(
            "control center {control}; {complete} of {} contents complete, {} of {} MB; {children} children; {} bytes \
             served ({})",
            contents.len(),
            storage.kept_bytes.div_ceil(1_000_000),
            storage.quota_bytes / 1_000_000,
            uploaded,
            limits_in_words(&node.limits()),
        );
        if line != said {
            println!("{line}");
            said = line;
        }
    }
    node.stop().await;
    Ok(())
}
