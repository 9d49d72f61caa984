//! `headwater control`: the control center.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use headwater_center::{AddressLimits, ControlConfig};
use headwater_center_core::Config;
use headwater_model::time::Micros;
use serde_json::json;

use super::{print, print_json};
use crate::folders;
use crate::lifetime;
use crate::service::Service;
use crate::units::parse_duration;

const LEAST_HEARTBEAT: Duration = Duration::from_millis(100);
const MOST_HEARTBEAT: Duration = Duration::from_secs(60);

/// Run a control center
///
/// It knows who wants what and who has what, decides who feeds whom, and explains it. Nodes reach it by QUIC (UDP), its
/// API by HTTP at the same port (TCP). Its first start prints an admin token, once: keep it. What must last is in two
/// folders, state and identity; keep a copy of the identity apart, with it all the rest comes back.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  headwater control
  headwater control --listen 0.0.0.0:7400 --public cc.example.com:7400 --data /var/lib/headwater
  headwater control --places places.txt --tls-cert cert.pem --tls-key key.pem")]
pub struct Args {
    /// Address to listen at, UDP and TCP; port 0 takes a free one. Port 443 where viewers sit behind firewalls: those
    /// that UDP does not reach keep their session over a WebSocket at the TCP port
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
    /// What names of contents call it, where that is another address than the one it listens at
    #[arg(long, value_name = "HOST:PORT")]
    public: Option<String>,
    /// Folder of both state and identity [default: headwater/control in your data folder]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder of the state: contents, history [default: state in the data folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Folder of the identity: keys, epoch [default: identity in the data folder]
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,
    /// File that says where addresses are: prefix, AS, ISP, country, state, enterprise, site, access technology
    #[arg(long, value_name = "FILE")]
    places: Option<PathBuf>,
    /// MaxMind database (MMDB) that says where other addresses are
    #[arg(long, value_name = "FILE")]
    mmdb: Option<PathBuf>,
    /// Certificate chain of the API, PEM; the API is https then
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Time between two reports of a node, 100ms to 60s
    #[arg(long, value_name = "DURATION", value_parser = heartbeat, default_value = "2s")]
    heartbeat: Duration,
    /// Connections that nodes behind one address (IPv6: one /64) may have at once
    #[arg(long, value_name = "NUMBER", default_value_t = AddressLimits::default().connections, value_parser = clap::value_parser!(u32).range(1..))]
    connections_per_address: u32,
    /// Handshakes per second of one address
    #[arg(long, value_name = "NUMBER", default_value_t = AddressLimits::default().handshakes_per_s, value_parser = clap::value_parser!(u32).range(1..))]
    handshakes_per_address: u32,
    /// Print one JSON object first: address, api, node, admin_token
    #[arg(long)]
    json: bool,
    /// End when standard input ends
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

fn heartbeat(text: &str) -> Result<Duration, String> {
    let span = parse_duration(text)?;
    if (LEAST_HEARTBEAT..=MOST_HEARTBEAT).contains(&span) { Ok(span) } else { Err("100ms to 60s are possible".into()) }
}

pub async fn run(args: Args) -> Result<()> {
    let (json, exit_with_stdin) = (args.json, args.exit_with_stdin);
    let running = headwater_center::start(config(args)?).await?;
    let (address, api, node) = (running.address, running.api_url.clone(), running.node.to_string());
    let token = running.first_admin_token.clone();
    if json {
        print_json(&json!({"address": address, "api": api, "node": node, "admin_token": token}))?;
    } else {
        let mut text = format!("control center at {address}\napi   {api}\nnode  {node}\n");
        if let Some(token) = token {
            text += &format!("\nThe first admin token, shown this once:\n  export HEADWATER_TOKEN={token}\n");
        }
        print(&text)?;
    }
    let service = Service::new();
    service.ready();
    let shutdown = async {
        lifetime::shutdown(exit_with_stdin).await;
        service.stopping("nodes are told to come back");
    };
    running.stopped(shutdown).await;
    Ok(())
}

fn config(args: Args) -> Result<ControlConfig> {
    let folder = |own: Option<PathBuf>, name: &str| match (own, &args.data) {
        (Some(own), _) => Ok(own),
        (None, Some(data)) => Ok(data.join(name)),
        (None, None) => Ok::<_, anyhow::Error>(folders::user_data()?.join("headwater").join("control").join(name)),
    };
    let heartbeat = Micros(args.heartbeat.as_micros() as u64);
    Ok(ControlConfig {
        listen: args.listen,
        public: args.public,
        state: folder(args.state, "state")?,
        identity: folder(args.identity, "identity")?,
        places: args.places,
        mmdb: args.mmdb,
        tls: args.tls_cert.zip(args.tls_key),
        per_address: AddressLimits {
            connections: args.connections_per_address,
            handshakes_per_s: args.handshakes_per_address,
            ..AddressLimits::default()
        },
        core: Config { heartbeat, ..Config::default() },
    })
}
