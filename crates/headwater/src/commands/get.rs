//! `headwater get`: fetches a content, and serves others meanwhile.

use crate::exit::Ending;
use crate::hours::{parse_conduct, parse_hours};
use crate::lifetime;
use crate::units::{UNLIMITED, parse_duration, parse_rate};
use anyhow::Context;
use clap::Args;
use headwater_model::{Name, Rate, Role};
use headwater_peer::node::{
    Conduct, ContentStatus, Fetch, FetchError, Hours, Limits, Node, NodeConfig, StartError, StepsAside,
};
use headwater_peer::sources::Sources;
use headwater_peer::store::Destination;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use url::Url;

/// Fetch a file or folder by its hw:// name, verified, from peers, waypoints and the origin.
///
/// The name is the line that `headwater publish` printed. It pins the publisher's key: whatever arrives is checked
/// against that key before it is used or passed on. An interrupted download goes on where it stopped when the same
/// command is given again. Of an older version that lies where it goes all that is equal is kept. Where UDP is blocked it fetches over HTTPS, by a proxy if there is one, from the origin and the
/// operator's nodes only, and says so. While it runs it serves others what it has; --seed-time makes it stay longer.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  headwater get 'hw://control.example/films/a.mp4#key=…' -o a.mp4\n  \
    headwater get 'hw://…' --up 5MB/s --seed-time 1h\n  headwater get 'hw://…' -o new.iso --have old.iso     # fetches what is not in old.iso\n\nExit status: 0 complete, 1 failed, 3 refused or unknown, 130 interrupted.")]
pub struct GetArgs {
    /// Name of the content (quote it: it has a # in it).
    name: Name,
    /// Where to put it; a folder content becomes a folder of this name.
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// A file or folder that may have equal parts, as an older version: these are taken from there instead of fetched.
    /// Only read; may be given several times. A file that lies where this one goes is looked through anyway.
    #[arg(long, value_name = "PATH")]
    have: Vec<PathBuf>,
    #[command(flatten)]
    node: NodeArgs,
    /// Stay and serve others this long after the download, e.g. 10m.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "0s")]
    seed_time: Duration,
    /// Let uploads wait for everything else on this line, as those of a resident peer do.
    #[arg(long)]
    step_aside: bool,
    /// Token from the publisher, for contents that are not open to all.
    #[arg(long, value_name = "TOKEN", env = "HEADWATER_VIEWER_TOKEN", hide_env_values = true)]
    viewer_token: Option<String>,
    /// Print progress and result as one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// What `get` and `peer` have in common.
#[derive(Args, Debug)]
pub struct NodeArgs {
    /// UDP address to listen on [default: any port, IPv6 and IPv4].
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Most to upload, e.g. 10MB/s or 20Mbit/s [default: what the line has to spare: uploads step aside for everything
    /// else on it].
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub up: Option<Rate>,
    /// Most to download, e.g. 1MB/s: the rest of the line stays free [default: unlimited].
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub down: Option<Rate>,
    /// Other limits by the hour, in local time, as 'Mon-Fri 08:00-18:00 up=200kB/s' or '22:00-06:00 serve=no': days, hours,
    /// then up=RATE, down=RATE, serve=no (fetch only) or pause. May be given several times; the first that fits counts.
    #[arg(long, value_name = "HOURS", value_parser = parse_hours)]
    pub when: Vec<Hours>,
    /// What to do on a network that is paid by volume, where the system says so (NetworkManager): serve; fetch only; or
    /// pause.
    #[arg(long, value_name = "serve|fetch|pause", value_parser = parse_conduct, default_value = "fetch")]
    pub on_metered: Conduct,
    /// What to do on battery power, where the system says so (Linux): serve; fetch only; or pause.
    #[arg(long, value_name = "serve|fetch|pause", value_parser = parse_conduct, default_value = "fetch")]
    pub on_battery: Conduct,
    /// Accept no connections: this node dials others only (behind a firewall).
    #[arg(long)]
    pub dial_only: bool,
    /// Do not ask the router (UPnP, PCP, NAT-PMP) to forward a port to this node.
    #[arg(long)]
    pub no_port_mapping: bool,
    /// From whom to fetch: any; operator (the origin and the operator's nodes only); or networks, as
    /// 192.0.2.0/24,2001:db8::/32 (those of them whose address is in one of these).
    #[arg(long, value_name = "any|operator|PREFIX,…", default_value = "any")]
    pub sources: Sources,
    /// HTTP proxy, for the origin and, where UDP is blocked, for waypoints and the control center [default: that of
    /// HTTPS_PROXY or ALL_PROXY; NO_PROXY counts].
    #[arg(long, value_name = "URL")]
    pub proxy: Option<Url>,
    /// Exit when standard input ends.
    #[arg(long, hide = true)]
    pub exit_with_stdin: bool,
}

impl NodeArgs {
    /// The uplink's pace, if it has one.
    pub fn paced(&self) -> Option<Rate> {
        self.up.filter(|r| *r != UNLIMITED)
    }

    /// What the node may do for others.
    pub fn limits(&self) -> Limits {
        Limits {
            up: self.paced(),
            down: self.down.filter(|r| *r != UNLIMITED),
            hours: self.when.clone(),
            monthly_bytes: None,
            on_metered: self.on_metered,
            on_battery: self.on_battery,
        }
    }

    /// Starts a node; without a given address on IPv6 and IPv4, or on IPv4 alone where there is no IPv6.
    pub async fn start(&self, config: impl Fn(SocketAddr) -> NodeConfig) -> Result<Node, StartError> {
        let any6 = SocketAddr::from(([0u16; 8], 0));
        let any4 = SocketAddr::from(([0u8; 4], 0));
        match self.listen {
            Some(address) => Node::start(config(address)).await,
            None => match Node::start(config(any6)).await {
                Err(StartError::Bind(_)) => Node::start(config(any4)).await,
                started => started,
            },
        }
    }
}

/// Runs the command.
pub async fn run(args: GetArgs) -> anyhow::Result<()> {
    let output = output_path(&args)?;
    if let Some(missing) = args.have.iter().find(|path| !path.exists()) {
        anyhow::bail!("{} (--have) does not exist", missing.display());
    }
    let state_dir = beside(&output);
    if let Some(parent) = output.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}: choose another place with -o", parent.display()))?;
    }
    let node = args
        .node
        .start(|listen| NodeConfig {
            role: Role::Peer,
            listen,
            dial_only: args.node.dial_only,
            port_mapping: !args.node.no_port_mapping,
            limits: args.node.limits(),
            steps_aside: if args.step_aside { StepsAside::Always } else { StepsAside::Never },
            data: state_dir.clone(),
            quota_bytes: None,
            pinned: BTreeSet::new(),
            control: args.name.control.clone(),
            control_id: args.name.control_id,
            join_token: None,
            viewer_token: args.viewer_token.clone(),
            sources: args.node.sources.clone(),
            proxy: args.node.proxy.clone(),
            https: None,
            gateway: None,
        })
        .await?;
    if args.json {
        say(&json!({"event": "started", "node": node.id().to_string(), "address": node.address()?.to_string()}));
    }
    let begun = Instant::now();
    let fetch = Fetch {
        name: args.name.clone(),
        destination: Some(Destination::File(output.clone())),
        state_dir: Some(state_dir.clone()),
        have: args.have.clone(),
        follow: false,
        pin: true,
    };
    let mut content = node.fetch(fetch);
    let mut shutdown = Box::pin(lifetime::shutdown(args.node.exit_with_stdin));
    let mut board = Board::new(args.json);
    let ended = tokio::select! {
        ended = content.complete() => Some(ended),
        _ = watch(&node, &args.name, &mut board) => None,
        _ = &mut shutdown => None,
    };
    let result = match ended {
        None => {
            board.interrupted();
            Err(Ending::Interrupted.into())
        }
        Some(Err(e)) => {
            board.failed(&e);
            Err(if e.is_refusal() { Ending::Refused(e.to_string()).into() } else { e.into() })
        }
        Some(Ok(())) => {
            board.complete(&content.status(), begun.elapsed(), &output);
            seed(&args, &node, &mut board, &mut shutdown).await;
            Ok(())
        }
    };
    drop(content);
    node.stop().await;
    if result.is_ok() {
        // The file is there; what was kept to go on with it is of no more use.
        let _ = std::fs::remove_dir_all(&state_dir);
    }
    result
}

fn output_path(args: &GetArgs) -> anyhow::Result<PathBuf> {
    let last = args.name.name.rsplit('/').next().filter(|n| headwater_model::log::is_plain_path(n));
    let output = match (&args.output, last) {
        (Some(o), Some(last)) if o.is_dir() && !beside(o).exists() => o.join(last),
        (Some(o), _) => o.clone(),
        (None, Some(last)) => PathBuf::from(last),
        (None, None) => anyhow::bail!("{:?} does not end in a file name: say where with -o PATH", args.name.name),
    };
    Ok(output)
}

/// Folder of the download's state.
fn beside(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".headwater");
    PathBuf::from(name)
}

/// Shows progress twice a second, for ever.
async fn watch(node: &Node, name: &Name, board: &mut Board) {
    let id = name.content();
    let mut pulse = tokio::time::interval(Duration::from_millis(500));
    loop {
        pulse.tick().await;
        if let Some(status) = node.status_of(&id) {
            board.progress(&status);
        }
    }
}

async fn seed(args: &GetArgs, node: &Node, board: &mut Board, shutdown: &mut (impl Future<Output = ()> + Unpin)) {
    if args.seed_time.is_zero() {
        return;
    }
    if !args.json {
        eprintln!("serving others for {:?}; Ctrl-C ends it", args.seed_time);
    }
    tokio::select! {
        _ = tokio::time::sleep(args.seed_time) => {}
        _ = watch(node, &args.name, board) => {}
        _ = shutdown => {}
    }
}

/// One JSON object on a line of its own.
pub fn say(object: &serde_json::Value) {
    let mut out = std::io::stdout().lock();
    // Whoever reads may be gone; that ends nothing.
    let _ = writeln!(out, "{object}").and_then(|()| out.flush());
}

/// Where progress is shown: JSON lines, a bar on a terminal, or a plain line now and then.
struct Board {
    json: bool,
    bar: Option<ProgressBar>,
    plain_at: Option<Instant>,
    rate: Smoothed,
    notes: usize,
    done: bool,
}

/// Rate over the last seconds.
struct Smoothed {
    last: Option<(Instant, u64)>,
    rate: f64,
}

impl Smoothed {
    fn add(&mut self, bytes: u64) -> f64 {
        let now = Instant::now();
        if let Some((at, before)) = self.last {
            let sample = bytes.saturating_sub(before) as f64 / (now - at).as_secs_f64().max(1e-3);
            self.rate = if self.rate == 0.0 { sample } else { 0.7 * self.rate + 0.3 * sample };
        }
        self.last = Some((now, bytes));
        self.rate
    }
}

/// Share of the bytes that did not come from the origin, in percent.
fn offload_percent(s: &ContentStatus) -> f64 {
    let all = s.peer_bytes + s.waypoint_bytes + s.origin_bytes;
    if all == 0 { 0.0 } else { 100.0 * (all - s.origin_bytes) as f64 / all as f64 }
}

impl Board {
    fn new(json: bool) -> Self {
        let bar = (!json && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(0);
            let style = "{bar:30.cyan/blue} {bytes}/{total_bytes}  {msg}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar
        });
        Self { json, bar, plain_at: None, rate: Smoothed { last: None, rate: 0.0 }, notes: 0, done: false }
    }

    fn progress(&mut self, s: &ContentStatus) {
        let rate = self.rate.add(s.bytes);
        if self.json {
            let mut object = json!(s);
            object["event"] = "progress".into();
            object["rate"] = (rate as u64).into();
            return say(&object);
        }
        self.new_notes(s);
        if self.done {
            return;
        }
        let left = (s.total.saturating_sub(s.bytes)) as f64 / rate.max(1.0);
        let left = if rate > 0.0 && s.total > 0 { format!("{left:.0} s left") } else { String::new() };
        let what = match (s.state.as_str(), s.control) {
            ("asking", true) => "asking the control center".to_owned(),
            ("asking", false) => "no control center yet, dialling".to_owned(),
            ("opening", _) => "checking what is here".to_owned(),
            ("looking", _) => "looking for equal parts in what is here".to_owned(),
            _ => format!(
                "{} {left}  {} parents, {} children, {:.0} % offload{}",
                Rate(rate as u64),
                s.parents,
                s.children,
                offload_percent(s),
                if s.control { "" } else { " (no control center)" }
            ),
        };
        match &self.bar {
            Some(bar) => {
                bar.set_length(s.total);
                bar.set_position(s.bytes);
                bar.set_message(what);
            }
            None if self.plain_at.is_none_or(|t| t.elapsed() >= Duration::from_secs(2)) => {
                self.plain_at = Some(Instant::now());
                let percent = 100.0 * s.bytes as f64 / s.total.max(1) as f64;
                eprintln!("{percent:5.1} %  {what}");
            }
            None => {}
        }
    }

    fn new_notes(&mut self, s: &ContentStatus) {
        for note in s.notes.iter().skip(self.notes) {
            self.line(&format!("note: {note}"));
        }
        self.notes = s.notes.len();
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    fn interrupted(&mut self) {
        self.done = true;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.json {
            say(&json!({"event": "interrupted"}));
        } else {
            eprintln!("the same command goes on from here");
        }
    }

    fn failed(&mut self, e: &FetchError) {
        self.done = true;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.json {
            say(&json!({"event": "error", "error": e.to_string()}));
        }
    }

    fn complete(&mut self, s: &ContentStatus, took: Duration, output: &Path) {
        self.done = true;
        let seconds = took.as_secs_f64();
        if self.json {
            let mut object = json!(s);
            object["event"] = "complete".into();
            object["seconds"] = seconds.into();
            object["path"] = output.display().to_string().into();
            object["verified"] = true.into();
            return say(&object);
        }
        self.new_notes(s);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        println!(
            "{}: {} bytes, every piece verified, in {seconds:.1} s ({})",
            output.display(),
            s.total,
            Rate((s.total as f64 / seconds.max(1e-3)) as u64)
        );
        println!(
            "from peers {}, waypoints {}, origin {} bytes: {:.0} % offload; served {} bytes to others",
            s.peer_bytes,
            s.waypoint_bytes,
            s.origin_bytes,
            offload_percent(s),
            s.uploaded_bytes
        );
    }
}
