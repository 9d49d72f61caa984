//! A minimal HTTP origin for the demo and for tests: static files with byte ranges, at a set rate.
//!
//! It is no web server for publishers: a real origin is any server or CDN that has ranges. What
//! this one adds is an uplink of known size and a count of the bytes it sent.

use std::future::Future;
use std::io::SeekFrom;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::http::header::{
    ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

/// Most bytes read from disk, and let through by the pacer, at a time.
const MAX_CHUNK_BYTES: u64 = 64 * 1024;

/// Least bytes let through at a time, however low the rate.
const MIN_CHUNK_BYTES: u64 = 1024;

/// Chunks per second at rates that fill neither limit: with small chunks at low rates, each of many
/// concurrent responses gets some bytes before its client's patience ends.
const CHUNKS_PER_S: u64 = 32;

/// How long clients that do not read may hold up the end of the server.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// A static HTTP origin.
#[derive(Debug, Clone)]
pub struct OriginServer {
    /// The directory whose files are served; links that lead out of it are not followed.
    pub dir: PathBuf,
    /// Body bytes per second, all responses together; `None` = as fast as can be.
    pub up_bytes_per_s: Option<u64>,
}

/// What `GET /_stats` returns.
#[derive(Debug, Serialize)]
struct Stats {
    /// Body bytes of files handed to connections since the start.
    body_bytes: u64,
    /// Requests for files, failed ones included.
    requests: u64,
}

/// What the requests share.
struct Shared {
    /// Without links, so that other paths can be compared with it.
    dir: PathBuf,
    pacer: Pacer,
    body_bytes: Arc<AtomicU64>,
    requests: AtomicU64,
    stop: CancellationToken,
}

impl OriginServer {
    /// Serves until `shutdown` is done; bodies under way are then cut off.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            dir: tokio::fs::canonicalize(&self.dir).await?,
            pacer: Pacer::new(self.up_bytes_per_s),
            body_bytes: Arc::default(),
            requests: AtomicU64::new(0),
            stop: stop.clone(),
        });
        let router = Router::new().route("/_stats", get(stats)).route("/{*path}", get(file)).with_state(shared);
        let stopping = stop.clone();
        let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
            shutdown.await;
            stopping.cancel();
        });
        let out_of_patience = async {
            stop.cancelled().await;
            tokio::time::sleep(SHUTDOWN_GRACE).await;
        };
        tokio::select! {
            served = serving.into_future() => served,
            () = out_of_patience => Ok(()),
        }
    }
}

async fn stats(State(shared): State<Arc<Shared>>) -> Json<Stats> {
    Json(Stats {
        body_bytes: shared.body_bytes.load(Ordering::Relaxed),
        requests: shared.requests.load(Ordering::Relaxed),
    })
}

/// GET and HEAD of a file; everything that is no readable file below the directory is a 404.
async fn file(
    State(shared): State<Arc<Shared>>,
    UrlPath(path): UrlPath<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let Some((file, length, tag)) = open_below(&shared.dir, &path).await else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let same_version = headers.get(IF_RANGE).is_none_or(|expected| expected.as_bytes() == tag.as_bytes());
    let asked = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let part = match asked {
        Some(asked) if same_version => part_of(asked, length),
        _ => Part::Whole,
    };
    let (status, range) = match part {
        Part::Whole => (StatusCode::OK, 0..length),
        Part::Range(range) => (StatusCode::PARTIAL_CONTENT, range),
        Part::Unsatisfiable => {
            let headers = [(CONTENT_RANGE, format!("bytes */{length}"))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, headers).into_response();
        }
    };
    let content_range = (status == StatusCode::PARTIAL_CONTENT).then(|| {
        let (first, last) = (range.start, range.end - 1);
        [(CONTENT_RANGE, format!("bytes {first}-{last}/{length}"))]
    });
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (ACCEPT_RANGES, "bytes".to_owned()),
        // Pages of the publisher's site are peers, too.
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*".to_owned()),
        (ETAG, tag),
        (CONTENT_LENGTH, (range.end - range.start).to_string()),
    ];
    let body = if method == Method::HEAD { Body::empty() } else { body(shared, file, range) };
    (status, headers, content_range, body).into_response()
}

/// The file with its length and entity tag.
async fn open_below(dir: &Path, path: &str) -> Option<(File, u64, String)> {
    let path = Path::new(path);
    let inside = |part| matches!(part, Component::Normal(_));
    if !path.components().all(inside) {
        return None;
    }
    let path = tokio::fs::canonicalize(dir.join(path)).await.ok()?;
    // Looked at before opening: opening a pipe would wait for its writer.
    let found = tokio::fs::metadata(&path).await.ok()?;
    if !path.starts_with(dir) || !found.is_file() {
        return None;
    }
    let file = File::open(&path).await.ok()?;
    let opened = file.metadata().await.ok()?;
    let changed = opened.modified().ok()?;
    let changed = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
    let length = opened.len();
    let tag = format!("\"{length:x}-{:x}\"", changed.as_nanos());
    Some((file, length, tag))
}

/// What a Range header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Range(Range<u64>),
    Unsatisfiable,
}

/// Reads a Range header with one range of bytes; anything else is ignored, as RFC 9110 section 14.2
/// allows, and gets the whole file.
fn part_of(asked: &str, length: u64) -> Part {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let Some((first, last)) = asked.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Part::Whole;
    };
    let range = match (first.trim(), number(first), last.trim(), number(last)) {
        (_, Some(first), "", _) => first..length,
        (_, Some(first), _, Some(last)) if first <= last => first..length.min(last.saturating_add(1)),
        ("", _, _, Some(suffix)) => length.saturating_sub(suffix)..length,
        _ => return Part::Whole,
    };
    if range.is_empty() { Part::Unsatisfiable } else { Part::Range(range) }
}

/// A body that is read, paced and counted by a task of its own.
fn body(shared: Arc<Shared>, file: File, range: Range<u64>) -> Body {
    let (reader, writer) = tokio::io::duplex(MAX_CHUNK_BYTES as usize);
    tokio::spawn(async move {
        let stop = shared.stop.clone();
        let sent = stop.run_until_cancelled(send(&shared, file, range, writer));
        if let Some(Err(error)) = sent.await {
            tracing::debug!(%error, "a body was not sent in full");
        }
    });
    Body::from_stream(ReaderStream::with_capacity(reader, MAX_CHUNK_BYTES as usize))
}

/// Ends early with an error if the client left, or if the file became shorter meanwhile.
async fn send(shared: &Shared, mut file: File, range: Range<u64>, mut writer: DuplexStream) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(range.start)).await?;
    let mut left = range.end - range.start;
    let chunk_bytes = shared.pacer.chunk_bytes;
    let mut chunk = vec![0; chunk_bytes.min(left) as usize];
    while left > 0 {
        let part = &mut chunk[..chunk_bytes.min(left) as usize];
        file.read_exact(part).await?;
        let bytes = part.len() as u64;
        shared.pacer.wait_for(bytes).await;
        writer.write_all(part).await?;
        shared.body_bytes.fetch_add(bytes, Ordering::Relaxed);
        left -= bytes;
    }
    Ok(())
}

/// One token bucket for all bodies. Whoever waits longest goes first, one chunk at a time, so that
/// concurrent bodies share the rate equally.
struct Pacer {
    bytes_per_s: Option<u64>,
    /// Most bytes asked for at once, and the size of the bucket.
    chunk_bytes: u64,
    /// When all bytes let through so far will have been paid for; tokio's lock is first in, first out.
    paid_at: Mutex<Instant>,
}

impl Pacer {
    fn new(bytes_per_s: Option<u64>) -> Self {
        let fair = |rate: u64| (rate / CHUNKS_PER_S).clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES);
        Self {
            bytes_per_s,
            chunk_bytes: bytes_per_s.map_or(MAX_CHUNK_BYTES, fair),
            paid_at: Mutex::new(Instant::now()),
        }
    }

    /// Returns once `bytes` more may be sent.
    async fn wait_for(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_s else {
            return;
        };
        let time_of = |bytes: u64| Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let mut paid_at = self.paid_at.lock().await;
        // The time that passed unused fills the bucket, and no more than that.
        let full = Instant::now().checked_sub(time_of(self.chunk_bytes)).unwrap_or(*paid_at);
        *paid_at = full.max(*paid_at) + time_of(bytes);
        tokio::time::sleep_until(*paid_at).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    struct Running {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        served: JoinHandle<std::io::Result<()>>,
        dir: tempfile::TempDir,
    }

    async fn start(up_bytes_per_s: Option<u64>, length: usize) -> Running {
        let dir = tempfile::tempdir().expect("directory");
        let public = dir.path().join("public");
        tokio::fs::create_dir(&public).await.expect("directory");
        write(&dir.path().join("secret"), b"hunter2").await;
        write(&public.join("my film"), &content(length)).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let server = OriginServer { dir: dir.path().join("public"), up_bytes_per_s };
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server.serve(listener, async {
            let _ = stopped.await;
        }));
        Running { address, stop, served, dir }
    }

    async fn write(path: &Path, content: &[u8]) {
        tokio::fs::write(path, content).await.expect("file");
    }

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i % 251) as u8).collect()
    }

    impl Running {
        /// Sends a request as it is, without a client library's tidying; returns head and body.
        async fn ask(&self, method: &str, path: &str, headers: &str) -> (String, Vec<u8>) {
            let mut stream = TcpStream::connect(self.address).await.expect("connect");
            let request = format!("{method} {path} HTTP/1.1\r\nHost: origin\r\nConnection: close\r\n");
            let request = format!("{request}{headers}\r\n");
            stream.write_all(request.as_bytes()).await.expect("write");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("read");
            let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
            let body = answer.split_off(end.expect("head") + 4);
            let head = String::from_utf8(answer).expect("head is text");
            (head.to_ascii_lowercase(), body)
        }

        async fn stats(&self) -> String {
            let (_, body) = self.ask("GET", "/_stats", "").await;
            String::from_utf8(body).expect("text")
        }
    }

    #[tokio::test]
    async fn serves_files_and_ranges() {
        let origin = start(None, 200_000).await;
        let (head, body) = origin.ask("GET", "/my%20film", "").await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert_eq!(body, content(200_000));
        let cases = [
            ("bytes=10-19", 10..20),
            ("bytes=199999-", 199_999..200_000),
            ("bytes=-5", 199_995..200_000),
            ("bytes=100000-900000", 100_000..200_000),
        ];
        for (asked, range) in cases {
            let asked = format!("Range: {asked}\r\n");
            let (head, body) = origin.ask("GET", "/my%20film", &asked).await;
            assert!(head.starts_with("http/1.1 206"), "{head}");
            let (first, last) = (range.start, range.end - 1);
            let stated = format!("content-range: bytes {first}-{last}/200000\r\n");
            assert!(head.contains(&stated), "{head}");
            assert_eq!(body, &content(200_000)[range]);
        }
        let sent = 200_000 + 10 + 1 + 5 + 100_000;
        let stats = format!("{{\"body_bytes\":{sent},\"requests\":5}}");
        assert_eq!(origin.stats().await, stats);
    }

    #[tokio::test]
    async fn head_has_the_length_and_no_body() {
        let origin = start(None, 1000).await;
        let (head, body) = origin.ask("HEAD", "/my%20film", "").await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(head.contains("content-length: 1000\r\n"), "{head}");
        assert!(head.contains("accept-ranges: bytes\r\n"), "{head}");
        assert_eq!(body, b"");
        assert_eq!(origin.stats().await, "{\"body_bytes\":0,\"requests\":1}");
    }

    #[tokio::test]
    async fn a_range_behind_the_end_is_refused() {
        let origin = start(None, 1000).await;
        let (head, _) = origin.ask("GET", "/my%20film", "Range: bytes=1000-\r\n").await;
        assert!(head.starts_with("http/1.1 416"), "{head}");
        assert!(head.contains("content-range: bytes */1000\r\n"), "{head}");
    }

    #[tokio::test]
    async fn if_range_keeps_versions_apart() {
        let origin = start(None, 1000).await;
        let tag = |head: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix("etag: "));
            line.expect("tag").to_owned()
        };
        let (head, _) = origin.ask("HEAD", "/my%20film", "").await;
        let asked = format!("Range: bytes=0-9\r\nIf-Range: {}\r\n", tag(&head));
        let (same, _) = origin.ask("GET", "/my%20film", &asked).await;
        assert!(same.starts_with("http/1.1 206"), "{same}");
        let path = origin.dir.path().join("public/my film");
        write(&path, &content(1001)).await;
        let (other, body) = origin.ask("GET", "/my%20film", &asked).await;
        assert!(other.starts_with("http/1.1 200"), "{other}");
        assert_eq!(body, content(1001));
        assert_ne!(tag(&head), tag(&other));
    }

    #[tokio::test]
    async fn nothing_outside_the_directory_is_served() {
        let origin = start(None, 10).await;
        #[cfg(unix)]
        std::os::unix::fs::symlink("../secret", origin.dir.path().join("public/link")).expect("link");
        let secret = origin.dir.path().join("secret");
        let absolute = format!("/{}", secret.display());
        for path in [
            "/../secret",
            "/..%2fsecret",
            "/%2e%2e/secret",
            "/x/..%2f..%2fsecret",
            "/link",
            "/%00",
            "/.",
            "/nothing",
            &absolute,
        ] {
            let (head, body) = origin.ask("GET", path, "").await;
            assert!(head.starts_with("http/1.1 4"), "{path}: {head}");
            assert!(!body.windows(7).any(|seven| seven == b"hunter2"), "{path}");
        }
        let (head, _) = origin.ask("POST", "/my%20film", "").await;
        assert!(head.starts_with("http/1.1 405"), "{head}");
    }

    #[tokio::test]
    async fn all_responses_together_keep_to_the_rate() {
        const MIB: usize = 1024 * 1024;
        let origin = start(Some(2 * MIB as u64), MIB / 2).await;
        let started = Instant::now();
        let ends = async {
            let (_, body) = origin.ask("GET", "/my%20film", "").await;
            assert_eq!(body.len(), MIB / 2);
            started.elapsed()
        };
        let again = async {
            let (_, body) = origin.ask("GET", "/my%20film", "").await;
            assert_eq!(body.len(), MIB / 2);
            started.elapsed()
        };
        let (one, other) = tokio::join!(ends, again);
        // 1 MiB in all, less one full bucket, at 2 MiB/s.
        assert!(one.max(other) >= Duration::from_millis(400));
        // Equal shares: neither is done at half time.
        assert!(one.min(other) >= Duration::from_millis(350));
    }

    #[tokio::test]
    async fn shutdown_cuts_bodies_off() {
        let origin = start(Some(1), 1000).await;
        let mut stream = TcpStream::connect(origin.address).await.expect("connect");
        let request = b"GET /my%20film HTTP/1.1\r\nHost: origin\r\n\r\n";
        stream.write_all(request).await.expect("write");
        // The head is there, the body's first kilobyte would take 1000 s.
        stream.read_u8().await.expect("head");
        origin.stop.send(()).expect("running");
        origin.served.await.expect("no panic").expect("served");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(!rest.ends_with(&content(1000)));
    }

    #[test]
    fn range_headers() {
        let cases = [
            ("bytes=0-0", 10, Part::Range(0..1)),
            ("bytes= 2 - 4 ", 10, Part::Range(2..5)),
            ("bytes=-20", 10, Part::Range(0..10)),
            ("bytes=0-18446744073709551615", 10, Part::Range(0..10)),
            ("bytes=10-", 10, Part::Unsatisfiable),
            ("bytes=20-30", 10, Part::Unsatisfiable),
            ("bytes=-0", 10, Part::Unsatisfiable),
            ("bytes=0-", 0, Part::Unsatisfiable),
            ("bytes=4-2", 10, Part::Whole),
            ("bytes=0-1,3-4", 10, Part::Whole),
            ("bytes=-", 10, Part::Whole),
            ("bytes=x-4", 10, Part::Whole),
            ("bytes=4-x", 10, Part::Whole),
            ("pieces=0-1", 10, Part::Whole),
        ];
        for (asked, length, part) in cases {
            assert_eq!(part_of(asked, length), part, "{asked}");
        }
    }
}
