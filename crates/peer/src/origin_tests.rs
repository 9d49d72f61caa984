//! The origin client against a hand-written server that can misbehave in every way.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;

/// What the server does once it has read a request's head.
enum Reply {
    /// Sends this and reads the next request.
    Keep(Vec<u8>),
    /// Sends this and closes the connection.
    Close(Vec<u8>),
    /// Sends this and then nothing, until the client leaves.
    Hang(Vec<u8>),
    /// Sends this, then a byte each time so much time has passed.
    Drip(Vec<u8>, Duration),
    /// Sends this, then the second without end, until the client leaves.
    Flood(Vec<u8>, Vec<u8>),
}

struct Server {
    url: Url,
    /// Heads of the requests, in order.
    seen: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// A server whose replies are a function of the request's number, from 0, and its head.
    async fn start(script: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let url = Url::parse(&format!("http://{address}/file")).expect("url");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (heads, count) = (Arc::clone(&seen), Arc::clone(&connections));
        let script = Arc::new(script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (heads, script) = (Arc::clone(&heads), Arc::clone(&script));
                // The client leaving early is part of many tests.
                tokio::spawn(async move { drop(converse(stream, &heads, &*script).await) });
            }
        });
        Self { url, seen, connections }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("lock").clone()
    }
}

async fn converse(
    mut stream: TcpStream,
    heads: &Mutex<Vec<String>>,
    script: &(dyn Fn(usize, &str) -> Reply + Send + Sync),
) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let number = {
            let mut heads = heads.lock().expect("lock");
            heads.push(head.clone());
            heads.len() - 1
        };
        match script(number, &head) {
            Reply::Keep(bytes) => stream.write_all(&bytes).await?,
            Reply::Close(bytes) => return stream.write_all(&bytes).await,
            Reply::Hang(bytes) => {
                stream.write_all(&bytes).await?;
                stream.read_u8().await?;
            }
            Reply::Drip(bytes, every) => {
                stream.write_all(&bytes).await?;
                let mut ticks = tokio::time::interval(every);
                loop {
                    ticks.tick().await;
                    stream.write_all(b"x").await?;
                }
            }
            Reply::Flood(bytes, more) => {
                stream.write_all(&bytes).await?;
                loop {
                    stream.write_all(&more).await?;
                }
            }
        }
    }
}

fn raw(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

/// A head and a body with its length.
fn reply(head: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes = raw(&format!("HTTP/1.1 {head}\nContent-Length: {length}\n\n"));
    bytes.extend(body);
    bytes
}

/// What a good server replies for a file with the tag `"v1"`.
fn serve_file(file: &[u8], head: &str) -> Vec<u8> {
    let range = header(head, "range").expect("a range is asked for");
    let range = range.strip_prefix("bytes=").expect("unit");
    let (first, last) = range.split_once('-').expect("range");
    let first: usize = first.parse().expect("first");
    let last: usize = last.parse().expect("last");
    let total = file.len();
    let part = &file[first..=last];
    let head = format!("206 Partial Content\nETag: \"v1\"\nContent-Range: bytes {first}-{last}/{total}");
    reply(&head, part)
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then(|| value.to_owned())
    })
}

fn file(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

fn tag(value: &str) -> Option<Validator> {
    Some(Validator::ETag(value.to_owned()))
}

fn expected(length: u64) -> Expected {
    let validator = tag("\"v1\"");
    Expected { length, validator }
}

fn config() -> OriginConfig {
    OriginConfig { backoff: Duration::from_millis(1), environment_proxy: false, ..OriginConfig::default() }
}

fn client() -> OriginClient {
    OriginClient::new(config()).expect("client")
}

fn hasty_client() -> OriginClient {
    let hasty = OriginConfig {
        connect_timeout: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(200),
        retries: 0,
        ..config()
    };
    OriginClient::new(hasty).expect("client")
}

async fn read(mut stream: RangeStream) -> Result<Vec<u8>, OriginError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn fetch(server: &Server, range: Range<u64>, length: u64) -> Result<Vec<u8>, OriginError> {
    let access = Access::default();
    let expected = expected(length);
    let client = client();
    let stream = client.fetch_range(&server.url, &access, range, &expected);
    read(stream.await?).await
}

/// `fetch_all` into one vector, checking that offsets join up.
async fn fetch_all(
    client: &OriginClient,
    server: &Server,
    range: Range<u64>,
    expected: &Expected,
) -> Result<Vec<u8>, OriginError> {
    let mut bytes = Vec::new();
    let start = range.start;
    let sink = |offset: u64, chunk: Bytes| {
        assert_eq!(offset, start + bytes.len() as u64, "offsets join up");
        bytes.extend_from_slice(&chunk);
    };
    let access = Access::default();
    let fetched = client.fetch_all(&server.url, &access, range, expected, sink);
    runs_on_any_thread(fetched).await.map(|()| bytes)
}

fn runs_on_any_thread<F: Future + Send>(future: F) -> F {
    future
}

#[tokio::test]
async fn probes_a_good_origin() {
    let server = Server::start(|_, head| Reply::Keep(serve_file(&file(1000), head))).await;
    let info = client().probe(&server.url, &Access::default()).await;
    let good = OriginInfo { length: 1000, validator: tag("\"v1\""), ranges: true, final_url: server.url.clone() };
    assert_eq!(info, Ok(good));
    let head = &server.seen()[0];
    let agent = concat!("headwater/", env!("CARGO_PKG_VERSION"));
    assert_eq!(header(head, "user-agent").as_deref(), Some(agent));
    assert_eq!(header(head, "accept-encoding").as_deref(), Some("identity"));
}

#[tokio::test]
async fn probes_origins_without_ranges() {
    let cases = [
        // Claims ranges and has none.
        ("200 OK\nAccept-Ranges: bytes", "0123456789", 10, false),
        ("416 Range Not Satisfiable\nContent-Range: bytes */0", "", 0, true),
    ];
    for (head, body, length, ranges) in cases {
        let server = Server::start(move |_, _| Reply::Keep(reply(head, body.as_bytes()))).await;
        let info = client().probe(&server.url, &Access::default()).await;
        let info = info.expect("probe");
        assert_eq!((info.length, info.ranges), (length, ranges), "{head}");
    }
}

#[tokio::test]
async fn asks_by_head_where_get_states_no_length() {
    let script = |stated: bool| {
        move |_: usize, head: &str| match (head.starts_with("HEAD"), stated) {
            (true, true) => Reply::Close(raw("HTTP/1.1 200 OK\nContent-Length: 10\n\n")),
            (true, false) => Reply::Close(raw("HTTP/1.1 200 OK\n\n")),
            (false, _) => Reply::Close(raw("HTTP/1.1 200 OK\n\n0123456789")),
        }
    };
    let access = Access::default();
    let server = Server::start(script(true)).await;
    let info = client().probe(&server.url, &access).await.expect("probe");
    assert_eq!((info.length, info.ranges), (10, false));
    let server = Server::start(script(false)).await;
    let error = client().probe(&server.url, &access).await.unwrap_err();
    assert!(matches!(error, OriginError::NoLength { .. }), "{error}");
}

#[tokio::test]
async fn fetches_ranges_over_one_connection() {
    let server = Server::start(|_, head| Reply::Keep(serve_file(&file(100_000), head))).await;
    let client = client();
    for range in [0..1, 10..90_000, 99_999..100_000, 0..100_000] {
        let got = fetch_all(&client, &server, range.clone(), &expected(100_000)).await;
        let part = &file(100_000)[range.start as usize..range.end as usize];
        assert_eq!(got.expect("range"), part);
    }
    let head = &server.seen()[1];
    assert_eq!(header(head, "range").as_deref(), Some("bytes=10-89999"));
    assert_eq!(header(head, "if-range").as_deref(), Some("\"v1\""));
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    for range in [5..5, 0..100_001] {
        let access = Access::default();
        let whole = expected(100_000);
        let asked = client.fetch_range(&server.url, &access, range, &whole);
        let error = asked.await.unwrap_err();
        assert!(matches!(error, OriginError::BadRange { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_whole_file_may_come_without_ranges() {
    let script = |_: usize, _: &str| Reply::Keep(reply("200 OK\nETag: \"v1\"", b"0123456789"));
    let server = Server::start(script).await;
    assert_eq!(fetch(&server, 0..10, 10).await.expect("all"), b"0123456789");
    let error = fetch(&server, 0..9, 10).await.unwrap_err();
    assert!(matches!(error, OriginError::NoRanges { .. }), "{error}");
}

#[tokio::test]
async fn a_changed_file_is_refused() {
    let cases = [
        ("206 P\nETag: \"v2\"\nContent-Range: bytes 0-4/10", "validator"),
        ("206 P\nETag: \"v1\"\nContent-Range: bytes 0-4/11", "length"),
        ("200 OK\nETag: \"v2\"\nX: y", "length"),
        ("416 R\nContent-Range: bytes */3", "length"),
    ];
    for (head, changed) in cases {
        let server = Server::start(move |_, _| Reply::Keep(reply(head, b"01234"))).await;
        match fetch(&server, 0..5, 10).await.unwrap_err() {
            OriginError::Changed { what, .. } => assert_eq!(what, changed, "{head}"),
            error => panic!("{head}: {error}"),
        }
        assert_eq!(server.seen().len(), 1);
    }
    // The length alone is the same: If-Range made the server send all of the new version.
    let script = |_: usize, _: &str| Reply::Keep(reply("200 OK\nETag: \"v2\"", b"0123456789"));
    let error = fetch(&Server::start(script).await, 0..5, 10).await;
    let message = error.unwrap_err().to_string();
    assert!(message.contains("validator was \"v1\" and is \"v2\""), "{message}");
}

#[tokio::test]
async fn permanent_refusals_are_not_repeated_and_say_what_to_do() {
    let cases = [
        ("401 Unauthorized", "give the header, cookie or signed query"),
        ("403 Forbidden", "give the header, cookie or signed query"),
        ("404 Not Found", "check the path"),
        ("410 Gone", "check the path"),
        ("416 Range Not Satisfiable", "not the one published"),
        ("418 Teapot", "status 418"),
        ("200 OK\nContent-Encoding: gzip", "switch compression off"),
        ("206 P\nContent-Range: bytes 1-5/10", "nobody asked for"),
        ("206 P\nContent-Range: bytes 0-5/10", "nobody asked for"),
        ("206 P\nContent-Range: bytes 0-4/*", "without a valid Content-Range"),
        ("206 P\nContent-Range: bytes 0--4/10", "without a valid Content-Range"),
        ("206 P", "without a valid Content-Range"),
        ("302 Found", "without a usable Location"),
        ("302 Found\nLocation: file:///etc/passwd", "not an http or https URL"),
    ];
    for (head, advice) in cases {
        let server = Server::start(move |_, _| Reply::Keep(reply(head, b"01234"))).await;
        let error = fetch_all(&client(), &server, 0..5, &expected(10)).await;
        let error = error.unwrap_err();
        assert!(!error.is_transient(), "{head}: {error}");
        assert!(error.to_string().contains(advice), "{head}: {error}");
        assert_eq!(server.seen().len(), 1, "{head}");
    }
}

#[tokio::test]
async fn a_redirect_elsewhere_takes_no_credentials_along() {
    let target = Server::start(|_, head| Reply::Keep(serve_file(&file(100), head))).await;
    let elsewhere = format!("{}?signature=theirs", target.url);
    let server = Server::start(move |number, _| {
        let location = if number == 0 { "/moved" } else { &elsewhere };
        Reply::Keep(reply(&format!("302 Found\nLocation: {location}"), b""))
    })
    .await;
    let secret = |name: &str| (name.to_owned(), "hunter2".to_owned());
    let access = Access {
        headers: ["Authorization", "Cookie", "X-Token"].map(secret).to_vec(),
        query: Some("?sig=hunter2".to_owned()),
    };
    let info = client().probe(&server.url, &access).await.expect("probe");
    assert_eq!(info.final_url.query(), Some("signature=theirs"));
    assert!(!format!("{info:?}").contains("theirs"));
    let (ours, theirs) = (server.seen(), target.seen());
    assert_eq!((ours.len(), theirs.len()), (2, 1));
    assert!(ours[0].starts_with("GET /file?sig=hunter2 HTTP/1.1"));
    for name in ["authorization", "cookie", "x-token"] {
        assert_eq!(header(&ours[0], name).as_deref(), Some("hunter2"));
        assert_eq!(header(&ours[1], name).as_deref(), Some("hunter2"));
    }
    assert!(!theirs[0].contains("hunter2"), "{}", theirs[0]);
    assert_eq!(header(&theirs[0], "referer"), None);
    assert_eq!(header(&theirs[0], "range").as_deref(), Some("bytes=0-0"));
}

#[tokio::test]
async fn redirects_end() {
    let script = |_: usize, _: &str| Reply::Keep(reply("307 T\nLocation: /file", b""));
    let server = Server::start(script).await;
    let error = fetch(&server, 0..1, 10).await.unwrap_err();
    let limit = 5;
    let url = server.url.to_string();
    assert_eq!(error, OriginError::TooManyRedirects { url, limit });
    assert_eq!(server.seen().len(), 6);
}

#[tokio::test]
async fn a_busy_origin_is_left_alone_as_long_as_it_asks() {
    let server = Server::start(|number, head| match number {
        0 => Reply::Keep(reply("503 Busy\nRetry-After: 1", b"")),
        1 => Reply::Keep(reply("429 Slow down", b"")),
        _ => Reply::Keep(serve_file(&file(100), head)),
    })
    .await;
    let started = Instant::now();
    let got = fetch_all(&client(), &server, 0..100, &expected(100)).await;
    assert_eq!(got.expect("third try"), file(100));
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn retries_have_a_limit() {
    let server = Server::start(|_, _| Reply::Keep(reply("500 Broken", b""))).await;
    let error = fetch_all(&client(), &server, 0..100, &expected(100)).await;
    assert!(matches!(error, Err(OriginError::Busy { status: 500, .. })));
    assert_eq!(server.seen().len(), 1 + config().retries as usize);
}

#[tokio::test]
async fn a_broken_body_resumes_where_it_broke() {
    let server = Server::start(|number, head| {
        let mut bytes = serve_file(&file(100_000), head);
        if number < 3 {
            bytes.truncate(bytes.len() - 10_000);
            return Reply::Close(bytes);
        }
        Reply::Keep(bytes)
    })
    .await;
    // Each try but the last lacks 10,000 bytes at its end.
    let untagged = Expected { length: 100_000, validator: None };
    let got = fetch_all(&client(), &server, 20_000..90_000, &untagged).await;
    assert_eq!(got.expect("resumed"), &file(100_000)[20_000..90_000]);
    let seen = server.seen();
    let asked: Vec<_> = seen.iter().filter_map(|head| header(head, "range")).collect();
    assert_eq!(asked, ["bytes=20000-89999", "bytes=80000-89999", "bytes=80000-89999", "bytes=80000-89999"]);
    // The first answer's tag holds for the rest.
    assert_eq!(header(&seen[0], "if-range"), None);
    assert_eq!(header(&seen[1], "if-range").as_deref(), Some("\"v1\""));
}

#[tokio::test]
async fn a_shorter_part_is_completed() {
    let server = Server::start(|_, head| {
        let range = header(head, "range").expect("range");
        let first = range.trim_start_matches("bytes=").split('-').next();
        let first: usize = first.and_then(|n| n.parse().ok()).expect("first");
        let last = (first + 39).min(99);
        let head = format!("206 P\nContent-Range: bytes {first}-{last}/100");
        Reply::Keep(reply(&head, &file(100)[first..=last]))
    })
    .await;
    let got = fetch_all(&client(), &server, 0..100, &expected(100)).await;
    assert_eq!(got.expect("three parts"), file(100));
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_part_of_a_file_that_still_grows_may_come() {
    let all = file(100);
    let answers = [("10-19/*", 10..20), ("10-14/*", 10..15), ("0-19/*", 0..20), ("10-29/*", 10..30), ("*/*", 10..20)];
    let server = Server::start(move |n, _| {
        let (range, part) = &answers[n];
        Reply::Keep(reply(&format!("206 P\nContent-Range: bytes {range}"), &all[part.clone()]))
    })
    .await;
    let mut came = Vec::new();
    for _ in 0..5 {
        let body = client().fetch_part(&server.url, &Access::default(), 10..20).await;
        came.push(match body {
            Ok(mut body) => {
                let mut bytes = Vec::new();
                let end = loop {
                    match body.next_chunk().await {
                        Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                        Ok(None) => break None,
                        Err(error) => break Some(error),
                    }
                };
                Ok((bytes, end))
            }
            Err(error) => Err(error),
        });
    }
    assert_eq!(came[0], Ok((file(100)[10..20].to_vec(), None)));
    assert!(
        matches!(&came[1], Ok((bytes, Some(OriginError::Truncated { got: 5, wanted: 10, .. }))) if *bytes == file(100)[10..15])
    );
    for bad in &came[2..] {
        assert!(matches!(bad, Err(OriginError::BadResponse { .. })), "{bad:?}");
    }
}

#[tokio::test]
async fn bodies_that_are_not_as_long_as_promised() {
    let head = "HTTP/1.1 206 P\nContent-Range: bytes 0-4/10\n";
    let short = raw(&format!("{head}Content-Length: 3\n\n012"));
    let early_end = raw(&format!("{head}Content-Length: 5\n\n012"));
    let long = raw(&format!("{head}Content-Length: 7\n\n0123456"));
    let endless = raw(&format!("{head}\n01234"));
    let bad_chunks = raw(&format!("{head}Transfer-Encoding: chunked\n\n3\n012\nzz\n"));
    let truncated = |error: &OriginError| matches!(error, OriginError::Truncated { got: 3, wanted: 5, .. });
    let too_long = |error: &OriginError| matches!(error, OriginError::TooLong { wanted: 5, .. });
    type Check<'a> = &'a dyn Fn(&OriginError) -> bool;
    let cases: [(Reply, Check<'_>); 5] = [
        (Reply::Keep(short), &truncated),
        (Reply::Close(early_end), &truncated),
        (Reply::Keep(long), &too_long),
        (Reply::Flood(endless, vec![b'5'; 4096]), &too_long),
        (Reply::Close(bad_chunks), &truncated),
    ];
    for (number, (reply, check)) in cases.into_iter().enumerate() {
        let reply = Mutex::new(Some(reply));
        let script = move |_: usize, _: &str| reply.lock().expect("lock").take().expect("once");
        let server = Server::start(script).await;
        let error = fetch(&server, 0..5, 10).await.unwrap_err();
        assert!(check(&error), "case {number}: {error}");
    }
}

#[tokio::test]
async fn silence_and_dripping_time_out() {
    let head = "HTTP/1.1 206 P\nContent-Range: bytes 0-9999/10000\nContent-Length: 10000\n\n";
    let every = Duration::from_millis(20);
    let cases = [
        Reply::Hang(Vec::new()),
        Reply::Drip(raw("HTTP/1.1 206 P\nX: "), every),
        Reply::Hang(raw(head)),
        Reply::Drip(raw(head), every),
    ];
    for (number, reply) in cases.into_iter().enumerate() {
        let reply = Mutex::new(Some(reply));
        let script = move |_: usize, _: &str| reply.lock().expect("lock").take().expect("once");
        let server = Server::start(script).await;
        let started = Instant::now();
        let got = fetch_all(&hasty_client(), &server, 0..10_000, &expected(10_000)).await;
        let error = got.unwrap_err();
        assert!(matches!(error, OriginError::TimedOut { .. }), "case {number}: {error}");
        assert!(error.is_transient());
        // Far below the 200 s that all the bytes would take at the drip's rate.
        assert!(started.elapsed() < Duration::from_secs(10), "case {number}");
    }
}

#[tokio::test]
async fn answers_that_are_not_http() {
    let many: String = (0..1000).map(|i| format!("X-{i}: y\n")).collect();
    let cases = [
        Reply::Close(Vec::new()),
        Reply::Close(b"\x00\xff\x16\x03 garbage\r\n\r\n".to_vec()),
        Reply::Close(raw("SSH-2.0-OpenSSH_9.6\n")),
        Reply::Close(raw("HTTP/1.1 206 P\nContent-Length: 5\nContent-Length: 6\n\n01234")),
        Reply::Close(raw("HTTP/1.1 206 P\nContent-Length: -5\n\n01234")),
        Reply::Close(raw(&format!("HTTP/1.1 206 P\n{many}\n"))),
        Reply::Flood(raw("HTTP/1.1 206 P\nX: "), vec![b'x'; 4096]),
        Reply::Flood(raw("HTTP/1.1 206 P\n"), raw("X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\n")),
    ];
    for (number, reply) in cases.into_iter().enumerate() {
        let reply = Mutex::new(Some(reply));
        let none = || Reply::Close(Vec::new());
        let script = move |_: usize, _: &str| reply.lock().expect("lock").take().unwrap_or_else(none);
        let server = Server::start(script).await;
        let error = fetch(&server, 0..5, 10).await.unwrap_err();
        assert!(matches!(error, OriginError::NoAnswer { .. }), "case {number}: {error}");
    }
}

#[tokio::test]
async fn errors_and_debug_show_no_secret() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = gone.local_addr().expect("address");
    drop(gone);
    let url = format!("http://user:hunter2@{address}/file?token=hunter2#hunter2");
    let url = Url::parse(&url).expect("url");
    let secret = |name: &str, value: &str| Access {
        headers: vec![(name.to_owned(), value.to_owned())],
        query: Some("sig=hunter2".to_owned()),
    };
    let cases = [
        secret("Cookie", "hunter2"),
        secret("Authorization: hunter2", ""),
        secret("Authorization", "hunter2\n"),
        secret("Range", "hunter2"),
        Access { query: Some("hunter2".repeat(10_000)), ..Access::default() },
    ];
    for (number, access) in cases.iter().enumerate() {
        let error = client().probe(&url, access).await.unwrap_err();
        let shown = format!("{error} {error:?} {access:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(error.is_transient(), number == 0, "{shown}");
    }
}

#[tokio::test]
async fn https_needs_a_trusted_certificate() {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("made");
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("certificate");
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tls = Arc::new(tls);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let server = std::thread::spawn(move || {
        // The first client does not trust the certificate and leaves.
        for _ in 0..2 {
            let (tcp, _) = listener.accept().expect("accept");
            let session = rustls::ServerConnection::new(Arc::clone(&tls)).expect("session");
            let mut stream = rustls::StreamOwned::new(session, tcp);
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            if !head.is_empty() {
                stream.write_all(&serve_file(&file(100), &head)).expect("reply");
                stream.flush().expect("flush");
            }
        }
    });
    let url = Url::parse(&format!("https://{address}/file")).expect("url");
    let error = client().probe(&url, &Access::default()).await.unwrap_err();
    assert!(matches!(error, OriginError::Tls { .. }), "{error}");
    let trusting = OriginConfig { extra_root_pem: vec![made.cert.pem().into_bytes()], ..config() };
    let trusting = OriginClient::new(trusting).expect("client");
    let info = trusting.probe(&url, &Access::default()).await;
    assert_eq!(info.expect("trusted").length, 100);
    server.join().expect("server");
}

#[test]
fn a_bad_root_certificate_is_refused() {
    for pem in [&b"not a certificate"[..], b"-----BEGIN CERTIFICATE-----\n!\n"] {
        let bad = OriginConfig { extra_root_pem: vec![pem.to_vec()], ..config() };
        let error = OriginClient::new(bad).unwrap_err();
        assert!(matches!(error, OriginError::Setup { .. }), "{error}");
    }
}

#[test]
fn pauses_double_up_to_ten_seconds() {
    let client = OriginClient::new(OriginConfig::default()).expect("client");
    for (failures, full_ms) in [(0, 250), (1, 500), (3, 2000), (6, 10_000), (1000, 10_000)] {
        let full = Duration::from_millis(full_ms);
        let pause = client.backoff(failures);
        assert!(pause >= full / 2 && pause <= full, "{failures}: {pause:?}");
    }
}
