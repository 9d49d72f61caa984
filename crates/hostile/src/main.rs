//! `headwater-hostile`: a peer that misbehaves in one way, for the lab and for tests; never shipped.
//!
//! It speaks the real protocol over real sockets under an identity of its own, joins a content like an honest newcomer,
//! fetches what it needs to be believed, and then does its `--kind` of harm. It prints one JSON object a line, each with
//! `unix_ms`: `started`, `assigned` (its parents and children, when they change), `claimed` (a victim's address),
//! `harm` (the first to each node, and the first after it had left and come back), `left-by` (an edge or connection that
//! the other end dropped, also because it was complete), `assigned-again` (a child that had been harmed and left),
//! `taken` (free riders have all), `refused`, `end` (counters).

mod content;
mod flood;
mod free_riders;
mod kind;
mod liar;
mod replay;
mod serving;
mod slander;
mod story;
mod streams;
mod wires;

use anyhow::Context;
use clap::Parser;
use headwater_model::{Name, NodeId};
use headwater_transport::{Alpn, Identity, Listener, bind};
use kind::Kind;
use serde_json::json;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use story::Story;

/// A peer that misbehaves, for the lab.
#[derive(Parser, Debug)]
struct Args {
    /// How it misbehaves.
    #[arg(long, value_enum)]
    kind: Kind,
    /// Control center.
    #[arg(long, value_name = "HOST:PORT")]
    control: String,
    /// Node id of the control center.
    #[arg(long, value_name = "ID")]
    cc: Option<NodeId>,
    /// Folder of the identity and of what is fetched.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The content that it joins.
    #[arg(long)]
    name: Name,
    /// Whose address `names-victim` claims wherever an address can be claimed.
    #[arg(long, value_name = "ADDR:PORT", required_if_eq("kind", "names-victim"))]
    victim: Option<SocketAddr>,
    /// Ends after so many seconds.
    #[arg(long = "for", value_name = "SECONDS")]
    for_s: Option<u64>,
    /// UDP address to listen on.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:0")]
    listen: SocketAddr,
    /// What the kinds that serve true pieces send per second at most, all children together; 0 for no limit.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    up_bytes_per_s: u64,
    /// Connections that `opens-streams` opens to each peer.
    #[arg(long, value_name = "N", default_value_t = 24)]
    connections: usize,
    /// Children that `rides-free` has.
    #[arg(long, value_name = "N", default_value_t = 1)]
    children: usize,
    /// Ends when standard input ends.
    #[arg(long)]
    exit_with_stdin: bool,
}

/// What all parts need to know.
#[derive(Debug)]
struct Setup {
    kind: Kind,
    control: SocketAddr,
    cc: Option<NodeId>,
    name: Name,
    data: PathBuf,
    victim: Option<SocketAddr>,
    listener: Listener,
    up_bytes_per_s: u64,
    connections: usize,
    children: usize,
    /// Piece size of the content, once known.
    piece_bytes: AtomicU32,
}

impl Setup {
    /// An endpoint under a fresh identity, beside the node's own.
    fn stranger(&self) -> anyhow::Result<Listener> {
        let address = SocketAddr::new(self.listener.address()?.ip(), 0);
        Ok(bind(address, Arc::new(Identity::ephemeral()?), &[Alpn::Peer])?)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let identity = Arc::new(Identity::load_or_create(&args.data.join("identity"))?);
    let node = identity.node;
    let listener = bind(args.listen, identity, &[Alpn::Peer, Alpn::Page])?;
    let mut found = tokio::net::lookup_host(&args.control).await.context("looking the control center up")?;
    let control = found.next().context("the control center has no address")?;
    let story = Story::new();
    story.say(
        "started",
        json!({"node": node.to_string(), "address": listener.address()?.to_string(), "kind": args.kind.to_string()}),
    );
    let setup = Arc::new(Setup {
        kind: args.kind,
        control,
        cc: args.cc,
        name: args.name,
        data: args.data,
        victim: args.victim,
        listener,
        up_bytes_per_s: args.up_bytes_per_s,
        connections: args.connections,
        children: args.children,
        piece_bytes: AtomicU32::new(1),
    });
    let over = async {
        match args.for_s {
            Some(s) => tokio::time::sleep(Duration::from_secs(s)).await,
            None => std::future::pending().await,
        }
    };
    let misbehave = async {
        match setup.kind {
            Kind::FloodsControl => flood::run(setup.clone(), story.clone()).await,
            Kind::RidesFree => free_riders::run(setup.clone(), story.clone()).await,
            _ => liar::run(setup.clone(), story.clone()).await,
        }
    };
    let ended = tokio::select! {
        ended = misbehave => ended,
        () = over => Ok(()),
        () = told_to_stop(args.exit_with_stdin) => Ok(()),
    };
    story.end();
    setup.listener.endpoint.close(0u32.into(), b"");
    let _ = tokio::time::timeout(Duration::from_millis(300), setup.listener.endpoint.wait_idle()).await;
    ended
}

/// SIGTERM, SIGINT, and with `stdin` the end of standard input.
async fn told_to_stop(stdin: bool) {
    use tokio::signal::unix::{SignalKind, signal};
    let signalled = async {
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(mut terminate), Ok(mut interrupt)) => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
            // Without handlers the signals end the process themselves.
            _ => std::future::pending().await,
        }
    };
    let stdin_ended = async {
        if !stdin {
            return std::future::pending().await;
        }
        let (ended, at_end) = tokio::sync::oneshot::channel::<()>();
        // A thread of its own: one of tokio's would keep the process from ending.
        std::thread::spawn(move || {
            let mut ignored = [0; 1024];
            while !matches!(std::io::stdin().lock().read(&mut ignored), Ok(0) | Err(_)) {}
            drop(ended);
        });
        // The sender is only ever dropped.
        let _ = at_end.await;
    };
    tokio::select! {
        () = signalled => {}
        () = stdin_ended => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }
}
