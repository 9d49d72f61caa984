//! `headwater publish`: sign a file or folder, check its origins, tell the control center.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use headwater_model::layout::{MAX_PIECE_BYTES, MIN_PIECE_BYTES};
use headwater_model::log::Track;
use headwater_model::{Hash, Name, NodeId, Rate, time::Micros};
use headwater_peer::origin::{Access, OriginClient, OriginConfig};
use headwater_peer::publish::{Check, OriginCheck, check_origin, prepare, write_beside};
use headwater_wire::StaticLog;
use indicatif::{BinaryBytes, HumanCount};
use serde_json::json;
use url::Url;

use super::key::{load, path_or_default};
use super::publish_live::{self, LiveArgs};
use super::{print, print_json};
use crate::api_client::{ApiError, Audience};
use crate::cli::ControlAccess;
use crate::exit::Ending;
use crate::lifetime;
use crate::progress::Progress;
use crate::units::parse_size;

/// Host in names of contents that no control center knows: it can never exist (RFC 6761, section 6.4).
const NO_CONTROL: &str = "none.invalid:7400";
/// Tries after the first when the origin is checked: its publisher waits and can be told.
const ORIGIN_RETRIES: u32 = 2;

/// Publish a file or folder that lies on a web server, or a live stream
///
/// Hashes and signs it, writes the static log beside it, compares the origin's bytes with yours, registers it at the
/// control center, and prints the name by which viewers get it. Publishing again under the same name makes a new version.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  headwater publish film.mp4 --name films/one --origin https://cdn.example/film.mp4 --control https://cc.example:7400
  headwater publish ./season --name season1 --origin https://cdn.example/season/
  headwater publish film.mp4 --name films/one --origin https://cdn.example/film.mp4 \\
      --origin-header 'Authorization: Bearer XYZ'     # the origin asks for credentials
  headwater publish film.mp4 --name films/one --origin https://cdn.example/film.mp4 \\
      --log-url https://cdn.example/film.mp4.hwlog    # names that work without a control center
  headwater publish film.mp4 --name films/one --origin https://cdn.example/film.mp4 \
      --lightweight films/one-small                   # a page in a browser gets that one
  headwater publish --live https://cdn.example/live/index.m3u8 --name channel1   # until it ends
  headwater publish --live-push 127.0.0.1:8080 --name channel1                   # an encoder puts it there

Without --control (or HEADWATER_CONTROL) only the static log is written and a name printed.")]
pub struct Args {
    /// The file or folder
    #[arg(value_name = "PATH", required_unless_present_any = ["live", "live_push"])]
    path: Option<PathBuf>,
    /// Where it lies on a web server or CDN, for a folder the folder's URL; may be given up to 8 times
    #[arg(long, value_name = "URL", required_unless_present_any = ["live", "live_push"])]
    origin: Vec<Url>,
    /// What to call it, such as films/one
    #[arg(long, value_name = "NAME")]
    pub(super) name: String,
    #[command(flatten)]
    pub(super) control: ControlAccess,
    /// The publisher's key [default: headwater/publisher.key in your configuration folder]
    #[arg(long, value_name = "PATH")]
    key: Option<PathBuf>,
    /// Header that the origin asks for, as a token or cookie; may be given several times. Your waypoints are told it
    #[arg(long, value_name = "NAME: VALUE")]
    origin_header: Vec<String>,
    /// Query that the origin asks for, as of a signed URL. Your waypoints are told it
    #[arg(long, value_name = "QUERY")]
    origin_query: Option<String>,
    /// Tell viewers these credentials too, so that they can use the origin
    #[arg(long)]
    pub(super) share_origin_credentials: bool,
    /// Compare every byte of the origin, not only 16 random pieces
    #[arg(long, conflicts_with = "no_check")]
    check_all: bool,
    /// Do not look at the origin
    #[arg(long)]
    no_check: bool,
    /// Size of a piece, a power of two from 4KiB to 4MiB [default: 64KiB, more above 1 GiB]
    #[arg(long, value_name = "SIZE", value_parser = piece_size)]
    piece_size: Option<u32>,
    /// Where you will upload the static log: names then work when no control center answers. Of a live stream: where
    /// viewers reach --log-listen [default there: that address]
    #[arg(long, value_name = "URL")]
    pub(super) log_url: Option<Url>,
    /// Who may get it
    #[arg(long, value_enum, default_value_t)]
    pub(super) audience: Audience,
    /// What lightweight clients get in its place: another content of yours that is published already, as one of a lower
    /// bitrate. Lightweight are pages in browsers, and peers that nobody can connect to or that pass nothing on. Said with
    /// each version
    #[arg(long, value_name = "NAME")]
    pub(super) lightweight: Option<String>,
    /// Print one JSON object; of a live stream one a line, for each thing that happens
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) live: LiveArgs,
}

fn piece_size(text: &str) -> Result<u32, String> {
    let bytes = u32::try_from(parse_size(text)?).unwrap_or(u32::MAX);
    if bytes.is_power_of_two() && (MIN_PIECE_BYTES..=MAX_PIECE_BYTES).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("powers of two from 4KiB to 4MiB are possible".into())
    }
}

pub async fn run(args: Args) -> Result<()> {
    let access = access(&args.origin_header, args.origin_query.clone())?;
    // What can be known before the first byte is read is.
    let key_path = path_or_default(args.key.clone())?;
    let key = Arc::new(load(&key_path)?);
    if args.live.is_meant() {
        return publish_live::run(args, access, key).await;
    }
    if args.lightweight.is_some() && args.control.control.is_none() {
        let why = "--lightweight is for a control center, which sends clients there: say --control";
        return Err(Ending::Usage(why.into()).into());
    }
    let path = args.path.clone().ok_or_else(|| Ending::Usage("which file or folder?".into()))?;
    let api = args.control.control.is_some().then(|| args.control.api()).transpose()?;
    let mut interrupted = pin!(lifetime::shutdown(false));

    let hashed = hash(&args, &path, Arc::clone(&key));
    let (made, took) = or_interrupted(interrupted.as_mut(), hashed).await?;
    let track = made.log.verify(&args.name, Some(&key.fingerprint()))?;
    if !args.json {
        print(&summary(&path, &track, took))?;
    }
    // Not to be interrupted, so that it leaves nothing half written behind.
    let log_path = write_beside(&path, &made)?;

    let check = match args.no_check {
        true => None,
        false => Some(or_interrupted(interrupted.as_mut(), checked(&args, &access, &track, &made.leaves)).await?),
    };
    let (hw, registered) = match &api {
        Some(api) => {
            let call = async {
                let shared = args.share_origin_credentials;
                Ok(api.publish(&made, &access, shared, args.audience, args.lightweight.as_deref()).await?)
            };
            let published = or_interrupted(interrupted.as_mut(), call).await?;
            let hw: Name = published.hw.parse().map_err(|e: headwater_model::name::NotAName| ApiError::Answer {
                url: api.url().to_string(),
                why: e.to_string(),
            })?;
            (hw, true)
        }
        None => (name_without_control(&args.name, key.fingerprint(), args.control.cc), false),
    };
    let hw = Name { log: args.log_url.as_ref().map(Url::to_string).or(hw.log.clone()), ..hw };
    if args.json {
        print_json(&json!({
            "content": track.version.content.to_string(),
            "name": track.name,
            "epoch": track.version.epoch,
            "bytes": track.layout.bytes(),
            "pieces": track.layout.pieces(),
            "piece_bytes": track.layout.piece_bytes(),
            "objects": track.objects.len(),
            "hw": hw.to_string(),
            "log": log_path,
            "registered": registered,
            "checked": check,
        }))
    } else {
        print(&told(&args, &log_path, check.as_ref(), &hw, api.as_ref().map(|a| a.url())))
    }
}

/// `work`, given up when `interrupted`, which is kept so that no signal is lost between two works.
async fn or_interrupted<T>(
    interrupted: Pin<&mut impl Future<Output = ()>>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        result = work => result,
        () = interrupted => Err(Ending::Interrupted.into()),
    }
}

/// Credentials as given. What is wrong with one is said without showing it.
fn access(headers: &[String], query: Option<String>) -> Result<Access> {
    let one = |(i, line): (usize, &String)| {
        let no_colon = || Ending::Usage(format!("--origin-header number {} is not of the form 'Name: value'", i + 1));
        let (name, value) = line.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or_else(no_colon)?;
        Ok::<_, Ending>((name.trim().to_owned(), value.trim().to_owned()))
    };
    Ok(Access { headers: headers.iter().enumerate().map(one).collect::<Result<_, _>>()?, query })
}

async fn hash(
    args: &Args,
    path: &Path,
    key: Arc<headwater_peer::key::PublisherKey>,
) -> Result<(StaticLog, std::time::Duration)> {
    let (path, name, origins) = (path.to_owned(), args.name.clone(), args.origin.clone());
    let piece_bytes = args.piece_size;
    let epoch =
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?.as_millis() as u64;
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let progress = Progress::new("hashing", args.json);
    let started = Instant::now();
    let work = move || {
        prepare(&path, &name, &key, &origins, piece_bytes, epoch, threads, &|done, all| progress.set(done, all))
    };
    let made = tokio::task::spawn_blocking(work).await??;
    Ok((made, started.elapsed()))
}

async fn checked(args: &Args, access: &Access, track: &Track, leaves: &[Hash]) -> Result<OriginCheck> {
    let how = if args.check_all { Check::All } else { Check::Sample };
    let client = OriginClient::new(OriginConfig { retries: ORIGIN_RETRIES, ..OriginConfig::default() })?;
    let progress = Progress::new("checking", args.json);
    Ok(check_origin(&client, access, track, leaves, how, &|done, all| progress.set(done, all)).await?)
}

fn name_without_control(name: &str, key: Hash, control_id: Option<NodeId>) -> Name {
    Name { control: NO_CONTROL.into(), name: name.into(), key, log: None, control_id }
}

fn summary(path: &Path, track: &Track, took: std::time::Duration) -> String {
    let layout = &track.layout;
    let rate = Rate::of(layout.bytes(), Micros(took.as_micros() as u64));
    let files = match track.objects.len() {
        1 => String::new(),
        n => format!("{} files, ", HumanCount(n as u64)),
    };
    format!(
        "{}: {files}{} in {} pieces of {}, hashed in {:.1} s ({rate})",
        path.display(),
        BinaryBytes(layout.bytes()),
        HumanCount(u64::from(layout.pieces())),
        BinaryBytes(u64::from(layout.piece_bytes())),
        took.as_secs_f64(),
    )
}

fn told(args: &Args, log: &Path, check: Option<&OriginCheck>, hw: &Name, api: Option<&Url>) -> String {
    let mut text = String::new();
    for origin in check.iter().flat_map(|c| &c.origins) {
        text += &format!(
            "origin {}: length and byte ranges are right, and so are {} of {}\n",
            origin.url,
            if args.check_all { "all bytes" } else { "random pieces" },
            BinaryBytes(origin.bytes),
        );
        if origin.objects_without_validator > 0 {
            text += "  it sends neither ETag nor Last-Modified, so that changes there are noticed late\n";
        }
    }
    text += &format!("static log {}", log.display());
    text += match &args.log_url {
        Some(_) => ": upload it to the address given with --log-url\n",
        None => " (uploaded, and its address given with --log-url, names work without a control center)\n",
    };
    match (api, &args.log_url) {
        (Some(api), _) => text += &format!("registered at {api} as {}\n", args.name),
        (None, Some(_)) => {
            text += "not registered, as no control center was given: the static log alone is what viewers need\n"
        }
        (None, None) => {
            text += "not registered, as no control center was given: give --control or --log-url, or no viewer can use this name\n";
            return format!("{text}\n{hw}");
        }
    }
    format!("{text}\n{hw}\n\nViewers run:\n  headwater get '{hw}'")
}

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;
