//! `headwater peer`: a resident peer, or a waypoint.

use super::get::{NodeArgs, say};
use crate::exit::Ending;
use crate::local_api::door::{Held, is_read_only};
use crate::service::Service;
use crate::units::parse_size;
use crate::{folders, lifetime, local_api};
use clap::Args;
use headwater_model::{Name, NodeId, Rate, Role};
use headwater_peer::node::{Fetch, Limits, LimitsStatus, Node, NodeConfig, StartError, StepsAside};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The gateway's usual address.
const GATEWAY: &str = "127.0.0.1:7480";
/// In the data folder: the control center that the peer belongs to.
const HOME: &str = "home.json";

/// Run a resident peer, or with --waypoint an operator's node that serves only.
///
/// It keeps what it fetches and serves it to others, also after it was started again. The control center and its key need
/// be given once: they are kept in the data folder, as are the names of its contents. While it runs, `headwater status`,
/// `top`, `doctor`, `fetch`, `forget`, `log` and `stop` deal with it. A waypoint fetches what the control center tells it
/// to and serves it to everyone near. It must come with the operator's join token (from `POST /v1/tokens`), except on the
/// control center's own machine.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  headwater peer --control control.example:7400 --fetch 'hw://…'\n  \
    headwater peer                        # goes on with that\n  \
    headwater peer --waypoint --https 0.0.0.0:443 --control control.example:7400 --cc ID --join-token T")]
pub struct PeerArgs {
    /// Control center, host:port [default: as at the last start, else that of the first --fetch].
    #[arg(long, value_name = "HOST:PORT", env = "HEADWATER_CONTROL_NODE")]
    control: Option<String>,
    /// Node id of the control center, which `headwater control` prints: nobody else is spoken to.
    #[arg(long, value_name = "ID")]
    cc: Option<NodeId>,
    /// Folder of the identity and of all contents [default: /var/lib/headwater for root, headwater/peer in your data
    /// folder for others].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
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
    /// Fetch and serve this content, and newer versions of it (may be given several times).
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
    let data = args.data.clone().map_or_else(folders::peer_data, Ok)?;
    let held = match Held::take(&data) {
        Err(e) if is_read_only(&e) => {
            tracing::warn!("{e:#}; going on without the commands that ask a running peer");
            None
        }
        held => Some(held?),
    };
    let home = Home::of(&args, &data)?;
    let node = start(&args, &data, &home).await?;
    tracing::info!("node {:.8} listens on {}, its data in {}", node.id(), node.address()?, data.display());
    home.keep(&data);
    say_started(&args, &node, &home)?;
    let stop = CancellationToken::new();
    let mut api = None;
    if let Some(held) = held {
        let listener = local_api::listen().await?;
        let door = Arc::new(held.open(listener.local_addr()?)?);
        let serving = tokio::spawn(local_api::serve(node.clone(), door.clone(), listener, stop.clone()));
        api = Some((door, serving));
    }
    let kept = node.contents().len();
    if kept > 0 {
        tracing::info!("going on with {kept} contents of earlier runs");
    }
    let (fetching, names) = (node.clone(), args.fetch.clone());
    // Its outcome shows in the state; a resident peer goes on without it.
    tokio::task::spawn_blocking(move || names.into_iter().for_each(|name| drop(fetching.fetch(Fetch::kept(name)))))
        .await?;
    let mut service = Service::new();
    service.ready();
    watch(&args, &node, &mut service, &stop).await;
    tracing::info!("stopping: children are handed over");
    service.stopping("children are handed over");
    node.stop().await;
    stop.cancel();
    if let Some((_door, serving)) = api {
        // Answers under way are sent.
        let _ = tokio::time::timeout(Duration::from_secs(1), serving).await;
    }
    Ok(())
}

/// Until it is to stop: shows how it is, and tells systemd that it lives.
async fn watch(args: &PeerArgs, node: &Node, service: &mut Service, stop: &CancellationToken) {
    let mut shutdown = Box::pin(lifetime::shutdown(args.node.exit_with_stdin));
    let mut pulse = tokio::time::interval(Duration::from_millis(if args.json { 500 } else { 10_000 }));
    // Without a watchdog nobody waits for this.
    let mut alive = tokio::time::interval(service.alive_every().unwrap_or(Duration::from_secs(3600)));
    let mut board = Board { json: args.json, shown: BTreeSet::new(), said: String::new() };
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            () = stop.cancelled() => return,
            _ = alive.tick() => {
                // Whoever holds the node's lock for ever keeps this from being said.
                let _ = node.has_control();
                service.alive();
            }
            _ = pulse.tick() => board.show(node, service),
        }
    }
}

/// Where state is shown: JSON lines, or plain ones on a terminal.
struct Board {
    json: bool,
    shown: BTreeSet<String>,
    said: String,
}

impl Board {
    fn show(&mut self, node: &Node, service: &mut Service) {
        let (contents, storage, limits) = (node.contents(), node.storage(), node.limits());
        let uploaded: u64 = contents.iter().map(|c| c.uploaded_bytes).sum();
        let complete = contents.iter().filter(|c| c.complete).count();
        let children: usize = contents.iter().map(|c| c.children).sum();
        let control = if node.has_control() { "connected" } else { "dialling" };
        let line = format!(
            "control center {control}; {complete} of {} contents complete, {} of {} MB; {children} children",
            contents.len(),
            storage.kept_bytes.div_ceil(1_000_000),
            storage.quota_bytes / 1_000_000,
        );
        service.status(&line);
        if self.json {
            return say(&json!({
                "event": "status", "control": node.has_control(), "uploaded_bytes": uploaded, "contents": contents,
                "storage": storage, "limits": limits,
            }));
        }
        for c in contents.iter().filter(|c| !c.name.is_empty()) {
            if let Some(url) = c.gateway.as_ref().filter(|url| !self.shown.contains(*url)) {
                println!("{} is read at {url}", c.name);
                self.shown.insert(url.clone());
            }
        }
        let line = format!("{line}; {uploaded} bytes served ({})", limits_in_words(&limits));
        // In a journal such lines are noise.
        if line != self.said && std::io::stdout().is_terminal() {
            println!("{line}");
            self.said = line;
        }
    }
}

/// The node, without its gateway where another peer has the usual port.
async fn start(args: &PeerArgs, data: &Path, home: &Home) -> anyhow::Result<Node> {
    let start = |gateway: Option<SocketAddr>| {
        args.node.start(move |listen| NodeConfig {
            role: if args.waypoint { Role::Waypoint } else { Role::Peer },
            listen,
            dial_only: args.node.dial_only,
            port_mapping: !args.node.no_port_mapping,
            limits: Limits { monthly_bytes: args.monthly, ..args.node.limits() },
            steps_aside: if args.waypoint { StepsAside::Never } else { StepsAside::UnlessTold },
            data: data.into(),
            quota_bytes: args.quota,
            pinned: args.fetch.iter().filter(|_| !args.no_pin).map(Name::content).collect(),
            control: home.control.clone(),
            control_id: home.cc,
            join_token: args.join_token.clone(),
            viewer_token: args.viewer_token.clone(),
            sources: args.node.sources.clone(),
            proxy: args.node.proxy.clone(),
            https: args.https,
            gateway,
        })
    };
    let gateway = (!args.no_gateway && !args.waypoint).then_some(args.gateway);
    match start(gateway).await {
        // The port that nobody asked for is another peer's: this one is useful all the same.
        Err(e @ StartError::Gateway { address, .. }) if address.to_string() == GATEWAY => {
            tracing::warn!("{e}, or say --no-gateway; going on without");
            Ok(start(None).await?)
        }
        started => Ok(started?),
    }
}

fn say_started(args: &PeerArgs, node: &Node, home: &Home) -> anyhow::Result<()> {
    let (address, https_port, consents) = (node.address()?.to_string(), node.https_port(), node.consents_url());
    if args.json {
        let node = node.id().to_string();
        say(&json!({
            "event": "started", "node": node, "address": address, "https_port": https_port, "consents": consents,
        }));
        return Ok(());
    }
    println!("node {} listens on {address}; control center {}", node.id(), home.control);
    if let Some(port) = https_port {
        println!("contents by HTTPS at port {port}");
    }
    if let Some(url) = consents {
        println!("web sites that you allowed to read contents here are listed at {url}");
    }
    Ok(())
}

/// The control center that a peer belongs to.
#[derive(Clone, PartialEq, Debug)]
struct Home {
    /// `host:port`.
    control: String,
    /// Its node id, where it is known.
    cc: Option<NodeId>,
}

impl Home {
    /// As said, as kept, or as the first content's name says.
    fn of(args: &PeerArgs, data: &Path) -> anyhow::Result<Home> {
        let kept = Home::kept(data);
        let named = args.fetch.first().map(|n| Home { control: n.control.clone(), cc: n.control_id });
        let home = match (&args.control, kept, named) {
            (Some(control), kept, _) => {
                // The key that was given at first holds for as long as the address does.
                let cc = kept.filter(|k| k.control == *control).and_then(|k| k.cc);
                Home { control: control.clone(), cc }
            }
            (None, Some(kept), _) => kept,
            (None, None, Some(named)) => named,
            (None, None, None) => {
                return Err(Ending::Usage(format!(
                    "which control center? Say --control HOST:PORT (and --cc ID); it is kept in {}",
                    data.display()
                ))
                .into());
            }
        };
        Ok(Home { cc: args.cc.or(home.cc), ..home })
    }

    fn kept(data: &Path) -> Option<Home> {
        let said: Value = serde_json::from_slice(&std::fs::read(data.join(HOME)).ok()?).ok()?;
        let cc = said["cc"].as_str().and_then(|id| id.parse().ok());
        Some(Home { control: said["control"].as_str()?.to_owned(), cc })
    }

    /// For the next start; which can be told again.
    fn keep(&self, data: &Path) {
        let said = json!({"control": self.control, "cc": self.cc.map(|id| id.to_string())});
        if let Err(e) = std::fs::write(data.join(HOME), said.to_string()) {
            tracing::warn!("cannot keep which control center this peer is with: {e}");
        }
    }
}
