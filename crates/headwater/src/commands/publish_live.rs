//! `headwater publish --live`: a live stream, from its HLS playlist into the trees.

use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use headwater_model::live::{LIVE_PIECE_BYTES, LiveTerms, MAX_SUBSTREAMS, SUBSTREAMS};
use headwater_model::log::{Entry, Log};
use headwater_model::time::Micros;
use headwater_model::{ContentId, Hash, Name, Rate, Role};
use headwater_peer::ingest::{CHANNEL_MESSAGES, Ingest, IngestConfig, Ingested};
use headwater_peer::key::PublisherKey;
use headwater_peer::node::{Limits, Node, NodeConfig, StepsAside};
use headwater_peer::origin::{Access, OriginClient, OriginConfig};
use headwater_peer::publish::TRACK;
use headwater_peer::publish::live::{LiveNews, LiveProgress, LivePublisher};
use headwater_wire::StaticLog;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::publish::Args;
use super::{print, print_json};
use crate::api_client::{ApiClient, ApiError};
use crate::exit::Ending;
use crate::push_origin::PushOrigin;
use crate::units::{parse_duration, parse_rate};
use crate::{folders, lifetime, log_server};

/// The stream is looked at for so long at most, to find out its rate.
const MEASURE_WITHIN: Duration = Duration::from_secs(20);
/// Segments that are measured.
const MEASURED_SEGMENTS: usize = 3;
/// Places in the trees are made for so much more than was measured, in percent: other scenes take more.
const HEADROOM_PERCENT: u64 = 125;
/// Steps of measured rates, so that two publishers of one stream find the same.
const STEPS: [u64; 8] = [10, 15, 20, 25, 30, 40, 60, 80];

/// What a live stream needs beside what a file does.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Live streams", group = clap::ArgGroup::new("stream").args(["live", "live_push"]))]
pub struct LiveArgs {
    /// Publish the live stream that this HLS playlist is of, until it ends or you stop this program
    #[arg(long, value_name = "URL", conflicts_with_all = ["path", "origin", "check_all", "no_check", "piece_size"])]
    live: Option<Url>,
    /// Publish the live stream that an encoder puts here by HTTP, playlist and segments, at an address of this program's
    /// own; it prints where to. Nobody else needs to have the stream then. What is put while it is made is passed on while it
    /// is made, if the names of segments differ in a number that rises by one
    #[arg(long, value_name = "ADDR:PORT", conflicts_with_all = ["live", "path", "origin", "check_all", "no_check", "piece_size"])]
    live_push: Option<SocketAddr>,
    /// Where viewers reach that address, for those that need a piece at once [default: the same]
    #[arg(long, value_name = "URL", requires = "live_push")]
    push_url: Option<Url>,
    /// Give the stream's log here by HTTP: viewers that reach no control center begin with it, from the origin
    #[arg(long, value_name = "ADDR:PORT", requires = "stream")]
    log_listen: Option<SocketAddr>,
    /// Its rate at its peaks: viewers' uplinks are planned with it [default: measured, and a quarter more]
    #[arg(long, value_name = "RATE", value_parser = parse_rate, requires = "stream")]
    rate: Option<Rate>,
    /// Into how many substreams it is split, each of which has a tree of its own
    #[arg(long, value_name = "N", default_value_t = SUBSTREAMS, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_SUBSTREAMS)), requires = "stream")]
    substreams: u8,
    /// How far back viewers can seek; nodes keep so much in memory
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "60s", requires = "stream")]
    window: Duration,
    /// What this machine may send to the first viewers of the trees [default: a gigabit]
    #[arg(long, value_name = "RATE", value_parser = parse_rate, requires = "stream")]
    up: Option<Rate>,
    /// UDP address to listen on [default: any port]
    #[arg(long, value_name = "ADDR:PORT", requires = "stream")]
    listen: Option<SocketAddr>,
    /// Folder of this publisher's identity and of how far the stream has come [default: headwater/live in your data folder]
    #[arg(long, value_name = "DIR", requires = "stream")]
    data: Option<PathBuf>,
    /// Operator's token: this node's uplink is believed
    #[arg(long, value_name = "TOKEN", env = "HEADWATER_JOIN_TOKEN", hide_env_values = true, requires = "stream")]
    join_token: Option<String>,
    /// Begin a new version, though this stream is published with another playlist, rate or number of substreams
    #[arg(long, requires = "stream")]
    new_version: bool,
    /// Exit when standard input ends
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

impl LiveArgs {
    /// Whether a live stream is meant.
    pub fn is_meant(&self) -> bool {
        self.live.is_some() || self.live_push.is_some()
    }
}

/// Runs the command.
pub async fn run(args: Args, access: Access, key: Arc<PublisherKey>) -> Result<()> {
    if args.log_url.is_some() && args.live.log_listen.is_none() {
        return Err(
            Ending::Usage("--log-url of a live stream is where viewers reach --log-listen: say both".into()).into()
        );
    }
    if args.live.log_listen.is_some_and(|at| at.ip().is_unspecified()) && args.log_url.is_none() {
        return Err(Ending::Usage("say where viewers reach that address: --log-url http://…".into()).into());
    }
    if args.control.control.is_none() {
        return Err(Ending::Usage("a live stream needs a control center: say --control".into()).into());
    }
    let api = args.control.api()?;
    let id = ContentId::of(&key.fingerprint(), &args.name);
    let data = match &args.live.data {
        Some(data) => data.clone(),
        None => folders::user_data()?.join("headwater").join("live").join(format!("{id:.16}")),
    };
    std::fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
    let progress_file = data.join("progress.json");
    let client = OriginClient::new(OriginConfig::default())?;
    let stop = CancellationToken::new();
    let interrupted = {
        let (stop, with_stdin) = (stop.clone(), args.live.exit_with_stdin);
        tokio::spawn(async move {
            lifetime::shutdown(with_stdin).await;
            stop.cancel();
        })
    };
    let (url, own_query) = playlist(&args, &stop).await?;
    let own_access = Access { query: both(access.query.as_deref(), own_query), headers: access.headers.clone() };
    let rate = match args.live.rate {
        Some(rate) => rate,
        None => measured(&client, &url, &own_access, &stop, args.json).await?,
    };
    let substreams = NonZeroU8::new(args.live.substreams).unwrap_or(NonZeroU8::MIN);
    let terms = LiveTerms { substreams, rate, window: Micros(args.live.window.as_micros() as u64) };
    let kept = LiveProgress::read(&progress_file).map(|p| p.epoch);
    let current = if args.live.new_version { None } else { current_epoch(&api, id).await?.or(kept) };
    let log = log_of(&args.name, &url, terms, current.unwrap_or_else(unix_ms), &key);
    let made = StaticLog { log: log.clone(), leaves: Vec::new(), sums: Vec::new(), entries: Vec::new() };
    let (shared, lightweight) = (args.share_origin_credentials, args.lightweight.as_deref());
    let published = api.publish(&made, &access, shared, args.audience, lightweight).await;
    let published = published.map_err(|e| explained(e, args.live.new_version))?;
    let hw: Name = published.hw.parse().context("the control center's answer")?;
    let node = start(&args, &hw, data).await?;
    let hw = match args.live.log_listen {
        None => hw,
        Some(address) => {
            let at = log_server::start(address, args.log_url.clone(), node.clone(), id, stop.clone()).await?;
            Name { log: Some(at.to_string()), ..hw }
        }
    };
    let source = node.live_source(hw.clone(), log, key)?;
    say_started(&args, &hw, &node, terms)?;
    let publisher = LivePublisher { source, client, url, access: own_access, progress_file };
    let (json, teller) = (args.json, node.clone());
    let uploaded = move || teller.contents().iter().map(|c| c.uploaded_bytes).sum();
    let ended = publisher.run(stop, move |news| say(&news, json, &uploaded)).await;
    node.stop().await;
    interrupted.abort();
    match ended? {
        true => print(if json { "{\"event\":\"ended\"}" } else { "the stream has ended" }),
        false => Err(Ending::Interrupted.into()),
    }
}

/// The playlist to follow: one that is there, or the first that an encoder puts here; and the query that only its publisher
/// adds.
async fn playlist(args: &Args, stop: &CancellationToken) -> Result<(Url, Option<String>)> {
    if let Some(url) = &args.live.live {
        return Ok((url.clone(), None));
    }
    let address = args.live.live_push.context("no playlist")?;
    if address.ip().is_unspecified() && args.live.push_url.is_none() {
        return Err(Ending::Usage("say where viewers reach that address: --push-url http://…".into()).into());
    }
    let origin = PushOrigin::start(address, args.live.push_url.clone(), stop.clone()).await?;
    let (to, from) = (origin.push_url.join("index.m3u8")?, &origin.public_url);
    if args.json {
        print_json(&json!({ "event": "listens", "push_url": origin.push_url.as_str(), "public_url": from.as_str() }))?;
    } else {
        print(&format!("put the stream to {to}, as with ffmpeg … -f hls -method PUT {to}\nwaiting for it …"))?;
    }
    tokio::select! {
        url = origin.playlist() => Ok((url?, Some(origin.own_query().to_owned()))),
        () = stop.cancelled() => Err(Ending::Interrupted.into()),
    }
}

/// One query of two.
fn both(one: Option<&str>, other: Option<String>) -> Option<String> {
    match (one, other) {
        (Some(one), Some(other)) => Some(format!("{}&{other}", one.trim_start_matches('?'))),
        (one, other) => other.or(one.map(str::to_owned)),
    }
}

async fn start(args: &Args, hw: &Name, data: PathBuf) -> Result<Node> {
    let any6 = SocketAddr::from(([0u16; 8], 0));
    let any4 = SocketAddr::from(([0u8; 4], 0));
    let config = |listen| NodeConfig {
        role: Role::Peer,
        listen,
        dial_only: false,
        port_mapping: false,
        limits: Limits { up: args.live.up, ..Limits::default() },
        steps_aside: StepsAside::Never,
        data: data.clone(),
        quota_bytes: None,
        pinned: Default::default(),
        control: hw.control.clone(),
        control_id: hw.control_id,
        join_token: args.live.join_token.clone(),
        viewer_token: None,
        sources: Default::default(),
        proxy: None,
        https: None,
        gateway: None,
    };
    Ok(match args.live.listen {
        Some(listen) => Node::start(config(listen)).await?,
        None => match Node::start(config(any6)).await {
            Ok(node) => node,
            Err(_) => Node::start(config(any4)).await?,
        },
    })
}

/// The version that the control center has, if it is a live stream.
async fn current_epoch(api: &ApiClient, id: ContentId) -> Result<Option<u64>> {
    match api.get_json(&format!("/v1/contents/{id}")).await {
        Ok(item) if item["live"].is_object() => Ok(item["epoch"].as_u64()),
        Ok(_) | Err(ApiError::Refused { status: 404, .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn explained(error: ApiError, new_version: bool) -> anyhow::Error {
    match &error {
        ApiError::Refused { status: 409, .. } if !new_version => anyhow::Error::from(error).context(
            "the stream is published with another playlist, rate, window or number of substreams: give the same, or begin \
             a new version with --new-version",
        ),
        _ => error.into(),
    }
}

fn log_of(name: &str, url: &Url, terms: LiveTerms, epoch: u64, key: &PublisherKey) -> Log {
    let mut public = url.clone();
    // Both fail only for URLs that cannot carry a user.
    let _ = public.set_username("");
    let _ = public.set_password(None);
    let mut log = Log { name: name.into(), first_key: key.public(), key_changes: Vec::new(), entries: Vec::new() };
    let entry = Entry {
        track: TRACK.into(),
        epoch,
        number: 0,
        previous: Hash::default(),
        // Two publishers of one version say the same, to the last byte.
        time_unix_ms: epoch,
        piece_bytes: LIVE_PIECE_BYTES,
        objects: Vec::new(),
        first_leaf: 0,
        leaves: 0,
        root: Hash::default(),
        origins: vec![public.into()],
        last: false,
        sums: None,
        live: Some(terms),
    };
    log.entries.push(key.sign(log.content(), entry));
    log
}

/// The stream's rate, from its last segments.
async fn measured(
    client: &OriginClient,
    url: &Url,
    access: &Access,
    stop: &CancellationToken,
    quiet: bool,
) -> Result<Rate> {
    if !quiet {
        print("measuring the stream's rate (say --rate to begin at once) …")?;
    }
    let hold_back = Micros::from_secs(10);
    let config = IngestConfig { url: url.clone(), access: access.clone(), resume: None, hold_back };
    let (tx, mut came) = mpsc::channel(CHANNEL_MESSAGES);
    let ends = stop.child_token();
    let _ends = ends.clone().drop_guard();
    let mut ingest = tokio::spawn(Ingest::run(client.clone(), config, tx, ends));
    let mut segments: Vec<(u64, Micros, u64)> = Vec::new();
    let mut done = 0;
    let all = async {
        while let Some(what) = came.recv().await {
            match what {
                Ingested::Listed { object, listed, .. } => segments.push((object, listed.duration, 0)),
                Ingested::Bytes { object, data, .. } => {
                    if let Some(s) = segments.iter_mut().find(|s| s.0 == object) {
                        s.2 += data.len() as u64;
                    }
                }
                Ingested::Complete { object } if segments.iter().any(|s| s.0 == object) => done += 1,
                _ => {}
            }
            if done >= MEASURED_SEGMENTS {
                return Ok(());
            }
        }
        (&mut ingest).await.context("the origin was read")?.map_err(anyhow::Error::from)
    };
    let looked = tokio::time::timeout(MEASURE_WITHIN, all).await;
    if stop.is_cancelled() {
        return Err(Ending::Interrupted.into());
    }
    if let Ok(failed @ Err(_)) = looked {
        return failed.map(|()| Rate(0));
    }
    let highest = segments.iter().take(done).map(|(_, span, bytes)| Rate::of(*bytes, *span).0).max().unwrap_or(0);
    anyhow::ensure!(highest > 0, "no segment of {url} came within {} s: say --rate", MEASURE_WITHIN.as_secs());
    Ok(rounded(Rate(highest * HEADROOM_PERCENT / 100)))
}

/// The next step, in bits per second.
fn rounded(rate: Rate) -> Rate {
    let bits = rate.0.saturating_mul(8);
    let mut scale = 1u64;
    while bits.div_ceil(scale) > 80 {
        scale = scale.saturating_mul(10);
    }
    let step = STEPS.into_iter().find(|s| s.saturating_mul(scale) >= bits).unwrap_or(80);
    Rate(step.saturating_mul(scale) / 8)
}

fn say_started(args: &Args, hw: &Name, node: &Node, terms: LiveTerms) -> Result<()> {
    let address = node.address()?;
    if args.json {
        return print_json(&json!({
            "event": "started", "hw": hw.to_string(), "node": node.id().to_string(), "address": address.to_string(),
            "rate_bytes_per_s": terms.rate.0, "substreams": terms.substreams,
        }));
    }
    print(&format!(
        "live at up to {} in {} substreams; node {:.8} listens on {address}\n\n{hw}\n\nViewers run:\n  headwater play '{hw}'\n",
        terms.rate,
        terms.substreams,
        node.id(),
    ))
}

fn say(news: &LiveNews, json: bool, uploaded: &impl Fn() -> u64) {
    let line = match (news, json) {
        (LiveNews::Active(active), true) => json!({ "event": "active", "active": active }).to_string(),
        (LiveNews::Segment(sequence, bytes), true) => {
            json!({ "event": "segment", "sequence": sequence, "bytes": bytes, "uploaded_bytes": uploaded() })
                .to_string()
        }
        (LiveNews::Trouble(what), true) => json!({ "event": "trouble", "what": what }).to_string(),
        (LiveNews::Active(true), false) => "viewers are fed from here".into(),
        (LiveNews::Active(false), false) => "another publisher of this stream feeds the viewers; standing by".into(),
        (LiveNews::Trouble(what), false) => what.clone(),
        (LiveNews::Segment(..), false) => return,
    };
    // Who closed the other end of the pipe does not want to know.
    let _ = print(&line);
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_rounded_up_to_steps() {
        for (bits, expected) in
            [(1, 10), (80, 80), (81, 100), (2_100_000, 2_500_000), (2_500_000, 2_500_000), (8_000_001, 10_000_000)]
        {
            let found = rounded(Rate(u64::div_ceil(bits, 8))).0 * 8;
            assert!(found >= bits && found.abs_diff(expected) <= 8, "{bits}: {found}");
        }
    }
}
