//! Streams from a hand-written origin that can misbehave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headwater_model::live::OriginPlace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::origin::OriginConfig;
use ObjectKind::{Mp4, Mp4Init, Ts};

#[path = "ingest/trouble_tests.rs"]
mod trouble_tests;

/// What is answered to one path.
#[derive(Clone)]
enum Reply {
    Body(Vec<u8>),
    /// Whatever range is asked for.
    Whole(Vec<u8>),
    /// Breaks off after so many bytes.
    Cut(Vec<u8>, usize),
    Status(u16),
    /// These bytes, and no more until the client leaves.
    Raw(Vec<u8>),
    /// As chunks, when the test sends them; an empty one is the last.
    Chunks(Arc<tokio::sync::Mutex<mpsc::Receiver<&'static [u8]>>>),
    /// The same again and again, without an end.
    Flood(&'static [u8]),
    /// Held back until the test lets it go.
    Held(Arc<Notify>, Vec<u8>),
}
use Reply::*;

#[derive(Default)]
struct Site {
    /// Each reply once, the last one again and again.
    replies: Mutex<BTreeMap<String, Vec<Reply>>>,
    heads: Mutex<Vec<String>>,
}

struct Origin {
    url: Url,
    site: Arc<Site>,
}

impl Origin {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/live/index.m3u8", listener.local_addr().unwrap())).unwrap();
        let site = Arc::new(Site::default());
        let served = Arc::clone(&site);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // The client leaving early is part of many tests.
                tokio::spawn(serve(stream, Arc::clone(&served)));
            }
        });
        Origin { url, site }
    }

    fn put(&self, name: &str, replies: impl Into<Vec<Reply>>) {
        self.site.replies.lock().unwrap().insert(format!("/live/{name}"), replies.into());
    }

    fn list(&self, text: &str) {
        self.put("index.m3u8", [Body(text.into())]);
    }

    /// Segments of so many bytes each.
    fn segments(&self, numbers: std::ops::RangeInclusive<u64>) {
        numbers.for_each(|n| self.put(&format!("{n}.ts"), [Body(ts(n, 1000))]));
    }

    /// Heads of the requests for `name`.
    fn asked(&self, name: &str) -> Vec<String> {
        let heads = self.site.heads.lock().unwrap();
        heads.iter().filter(|h| h.split(['?', ' ']).nth(1) == Some(&format!("/live/{name}"))).cloned().collect()
    }
}

async fn serve(mut stream: TcpStream, site: Arc<Site>) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(['?', ' ']).nth(1).unwrap().to_owned();
        site.heads.lock().unwrap().push(head.clone());
        let reply = match site.replies.lock().unwrap().get_mut(&path) {
            None => Status(404),
            Some(all) if all.len() > 1 => all.remove(0),
            Some(all) => all[0].clone(),
        };
        answer(&mut stream, &head, reply).await?;
    }
}

async fn answer(stream: &mut TcpStream, head: &str, reply: Reply) -> std::io::Result<()> {
    let of_length =
        |status: &str, n: usize| format!("HTTP/1.1 {status}\r\nETag: \"v1\"\r\nContent-Length: {n}\r\n\r\n");
    match reply {
        Body(body) => {
            let range = head.lines().find_map(|l| l.strip_prefix("range: bytes=")?.split_once('-'));
            let (first, last) = range.map_or((0, ""), |(first, last)| (first.parse().unwrap(), last));
            let end = last.parse().map_or(body.len(), |last: usize| last + 1);
            let status = match range {
                None => "200 OK".to_owned(),
                Some(_) => format!("206 Part\r\nContent-Range: bytes {first}-{}/{}", end - 1, body.len()),
            };
            stream.write_all(of_length(&status, end - first).as_bytes()).await?;
            stream.write_all(&body[first..end]).await
        }
        Whole(body) => {
            stream.write_all(of_length("200 OK", body.len()).as_bytes()).await?;
            stream.write_all(&body).await
        }
        Cut(body, at) => {
            stream.write_all(of_length("200 OK", body.len()).as_bytes()).await?;
            stream.write_all(&body[..at]).await?;
            stream.shutdown().await
        }
        Status(status) => stream.write_all(of_length(&format!("{status} Status"), 0).as_bytes()).await,
        Raw(bytes) => {
            stream.write_all(&bytes).await?;
            stream.read_u8().await.map(|_| ())
        }
        Chunks(parts) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            let mut parts = parts.lock().await;
            while let Some(part) = parts.recv().await {
                let chunk = [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
                stream.write_all(&chunk).await?;
                if part.is_empty() {
                    break;
                }
            }
            Ok(())
        }
        Held(goes, body) => {
            goes.notified().await;
            stream.write_all(of_length("200 OK", body.len()).as_bytes()).await?;
            stream.write_all(&body).await
        }
        Flood(bytes) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(bytes).await?;
            }
        }
    }
}

/// A segment that differs from others.
fn ts(number: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| if i == 0 { 0x47 } else { (i as u64 % 251 + number) as u8 }).collect()
}

const HEAD: &str = "#EXTM3U\n#EXT-X-TARGETDURATION:0.3\n";

/// A playlist of `N.ts`.
fn list(numbers: std::ops::RangeInclusive<u64>) -> String {
    let first = numbers.start();
    let segments: String = numbers.clone().map(|n| format!("#EXTINF:0.3,\n{n}.ts\n")).collect();
    format!("{HEAD}#EXT-X-MEDIA-SEQUENCE:{first}\n{segments}")
}

/// Of an origin that says that it holds answers back.
fn blocking(list: &str) -> String {
    list.replacen("#EXT-X-MEDIA", "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES\n#EXT-X-MEDIA", 1)
}

fn ended(list: &str) -> String {
    format!("{list}#EXT-X-ENDLIST\n")
}

fn hasty() -> Patience {
    let ms = Duration::from_millis;
    Patience {
        first: ms(100),
        least_pause: ms(10),
        most_pause: ms(50),
        // Tests on a busy machine do not fetch two at once unless they mean to.
        alone: Duration::from_secs(20),
        ..Patience::default()
    }
}

fn config(url: &Url) -> IngestConfig {
    IngestConfig { url: url.clone(), access: Access::default(), resume: None, hold_back: Micros(0) }
}

/// A run, and what has come of it.
struct Run {
    rx: mpsc::Receiver<Ingested>,
    task: JoinHandle<Result<(), IngestError>>,
    stop: CancellationToken,
    listed: Vec<(u64, ObjectKind, Listed)>,
    kinds: BTreeMap<u64, ObjectKind>,
    bytes: BTreeMap<u64, Vec<u8>>,
    complete: BTreeSet<u64>,
    abandoned: BTreeSet<u64>,
    troubles: Vec<String>,
    progress: Option<Resume>,
    ended: bool,
}

impl Run {
    fn start(config: IngestConfig) -> Self {
        Self::start_with(config, hasty())
    }

    fn start_with(config: IngestConfig, patience: Patience) -> Self {
        let client = OriginConfig { environment_proxy: false, ..OriginConfig::default() };
        let client = OriginClient::new(client).unwrap();
        let (tx, rx) = mpsc::channel(CHANNEL_MESSAGES);
        let stop = CancellationToken::new();
        let task = tokio::spawn(Ingest::run_with(client, config, tx, stop.clone(), patience));
        Run {
            rx,
            task,
            stop,
            listed: Vec::new(),
            kinds: BTreeMap::new(),
            bytes: BTreeMap::new(),
            complete: BTreeSet::new(),
            abandoned: BTreeSet::new(),
            troubles: Vec::new(),
            progress: None,
            ended: false,
        }
    }

    /// Receives until this holds.
    async fn until(&mut self, what: &str, holds: impl Fn(&Run) -> bool) {
        while !holds(self) {
            let next = tokio::time::timeout(Duration::from_secs(10), self.rx.recv()).await;
            let Ok(Some(message)) = next else { panic!("{what}: {:?} {:?}", self.troubles, self.listed) };
            self.take(message);
        }
    }

    fn take(&mut self, message: Ingested) {
        assert!(!self.ended, "nothing comes after the end");
        match message {
            Ingested::Listed { object, kind, listed } => {
                assert!(!self.kinds.contains_key(&object), "it is listed before its bytes come");
                assert!(listed.map.is_none_or(|m| m < object));
                self.listed.push((object, kind, listed));
            }
            Ingested::Bytes { object, kind, data } => {
                let is_listed = self.listed.iter().any(|(o, k, _)| (*o, *k) == (object, kind));
                assert!(is_listed || kind == Mp4Init);
                assert!((1..=MAX_CHUNK_BYTES).contains(&data.len()));
                assert!(!self.complete.contains(&object) && !self.abandoned.contains(&object));
                assert_eq!(*self.kinds.entry(object).or_insert(kind), kind);
                self.bytes.entry(object).or_default().extend_from_slice(&data);
            }
            Ingested::Complete { object } => assert!(self.complete.insert(object)),
            Ingested::Abandoned { object } => assert!(self.abandoned.insert(object)),
            Ingested::Progress(resume) => self.progress = Some(resume),
            Ingested::Trouble(trouble) => self.troubles.push(trouble),
            Ingested::Ended => self.ended = true,
        }
    }

    /// Receives all that comes; how the run ended.
    async fn end(&mut self) -> Result<(), IngestError> {
        while let Some(message) = tokio::time::timeout(Duration::from_secs(10), self.rx.recv()).await.expect("an end") {
            self.take(message);
        }
        (&mut self.task).await.unwrap()
    }

    async fn error(mut self) -> String {
        self.end().await.unwrap_err().to_string()
    }

    fn sequences(&self) -> Vec<u64> {
        self.listed.iter().map(|(.., l)| l.sequence).collect()
    }

    fn is_complete(&self, sequence: u64) -> bool {
        self.listed.iter().any(|(o, _, l)| l.sequence == sequence && self.complete.contains(o))
    }

    fn has_trouble(&self, words: &str) -> bool {
        self.troubles.iter().any(|t| t.contains(words))
    }
}

#[tokio::test]
async fn a_stream_of_fragmented_mp4_is_followed() {
    let origin = Origin::start().await;
    let all = ts(7, 300_000);
    origin.put("all.mp4", [Body(all.clone())]);
    origin.put("next.m4s", [Body(ts(8, 10))]);
    let map = "#EXT-X-MAP:URI=\"all.mp4\",BYTERANGE=\"700@0\"\n";
    let date = "#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:01Z\n";
    let part = |from: u32, bytes: u32| format!("#EXTINF:0.3,\n#EXT-X-BYTERANGE:{bytes}@{from}\nall.mp4\n");
    let first = format!("{HEAD}#EXT-X-MEDIA-SEQUENCE:5\n{map}{}{date}{}", part(700, 9300), part(10_000, 290_000));
    origin.list(&first);
    let mut run = Run::start(config(&origin.url));
    run.until("two segments", |r| r.complete.len() == 3).await;
    let new_map = "#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"all.mp4\",BYTERANGE=\"100@50\"\n";
    origin.list(&ended(&format!("{first}{new_map}#EXTINF:0.2,\nnext.m4s\n")));
    assert_eq!(run.end().await, Ok(()));

    assert!(run.ended && run.troubles.is_empty() && run.abandoned.is_empty(), "{:?}", run.troubles);
    assert_eq!(run.kinds, [(0, Mp4Init), (1, Mp4), (2, Mp4), (3, Mp4Init), (4, Mp4)].into());
    let expected = [&all[..700], &all[700..10_000], &all[10_000..], &all[50..150], &ts(8, 10)[..]];
    for (object, bytes) in expected.iter().enumerate() {
        assert!(run.bytes[&(object as u64)] == *bytes, "{object}");
    }
    let at = |name: &str, from| {
        let url = origin.url.join(name).unwrap().into();
        Some(OriginPlace { url, from })
    };
    let listed = |sequence, map, origin| Listed {
        sequence,
        duration: Micros::from_millis(300),
        target_duration: Micros::from_millis(300),
        discontinuity: false,
        map: Some(map),
        recorded_unix_us: None,
        origin,
    };
    let expected = [
        (1, Mp4, listed(5, 0, at("all.mp4", 700))),
        (2, Mp4, Listed { recorded_unix_us: Some(1_000_000), ..listed(6, 0, at("all.mp4", 10_000)) }),
        (4, Mp4, Listed { discontinuity: true, duration: Micros::from_millis(200), ..listed(7, 3, at("next.m4s", 0)) }),
    ];
    assert_eq!(run.listed, expected);
    let map = KnownMap { url: origin.url.join("all.mp4").unwrap().into(), from: 50, bytes: Some(100), object: 3 };
    let last = LastSegment { sequence: 7, listed: 7 };
    assert_eq!(run.progress, Some(Resume { next_object: 5, last: Some(last), map: Some(map) }));
}

#[tokio::test]
async fn it_begins_with_three_segments_and_sees_what_they_are() {
    let origin = Origin::start().await;
    (1..=9).for_each(|n| origin.put(&n.to_string(), [Body(ts(n, 500))]));
    let bare = |numbers| list(numbers).replace(".ts", "");
    origin.list(&bare(1..=8));
    let mut run = Run::start(config(&origin.url));
    run.until("three segments", |r| r.complete.len() == 3).await;
    // What it learnt of the first ones lets it list this one before its bytes come.
    origin.put("9", [Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".into())]);
    origin.list(&bare(2..=9));
    run.until("the fourth is listed", |r| r.listed.len() == 4).await;
    assert_eq!(run.sequences(), [6, 7, 8, 9]);
    assert!(run.listed.iter().all(|(_, kind, _)| *kind == Ts));
    // It holds more back where it should.
    origin.put("9", [Body(ts(9, 500))]);
    let mut more = Run::start(IngestConfig { hold_back: Micros::from_millis(1500), ..config(&origin.url) });
    more.until("five segments", |r| r.listed.len() == 5).await;
    assert_eq!(more.sequences()[0], 5);
}

#[tokio::test]
async fn bytes_go_out_while_the_origin_still_writes() {
    let origin = Origin::start().await;
    let (parts, received) = mpsc::channel(4);
    origin.put("1.ts", [Chunks(Arc::new(tokio::sync::Mutex::new(received)))]);
    origin.list(&ended(&list(1..=1)));
    let mut run = Run::start(config(&origin.url));
    let mut expected = Vec::new();
    for part in [&b"Gabc"[..], b"d", b"ef"] {
        expected.extend_from_slice(part);
        parts.send(part).await.unwrap();
        run.until("a part", |r| r.bytes.get(&0) == Some(&expected)).await;
        assert!(run.complete.is_empty());
    }
    parts.send(b"").await.unwrap();
    assert_eq!(run.end().await, Ok(()));
    assert!(run.is_complete(1));
}

#[tokio::test]
async fn an_origin_holds_its_answer_back_until_there_is_something_new() {
    let origin = Origin::start().await;
    origin.segments(1..=5);
    // In the ordinary way it would take too long for this test.
    let slow = |list: String| blocking(&list.replace("DURATION:0.3", "DURATION:60"));
    let (fourth, fifth) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    origin.put(
        "index.m3u8",
        [
            Body(slow(list(1..=3)).into()),
            Held(fourth.clone(), slow(list(1..=4)).into()),
            Held(fifth.clone(), ended(&slow(list(2..=5))).into()),
        ],
    );
    let mut url = origin.url.clone();
    url.set_query(Some("a=b%20c"));
    let access = Access { headers: Vec::new(), query: Some("token=secret".into()) };
    let mut run = Run::start(IngestConfig { url, access, ..config(&origin.url) });
    run.until("three segments", |r| r.is_complete(3)).await;
    fourth.notify_one();
    run.until("the fourth", |r| r.is_complete(4)).await;
    fifth.notify_one();
    assert_eq!(run.end().await, Ok(()));
    assert!(run.is_complete(5) && run.troubles.is_empty(), "{:?}", run.troubles);
    let asked = origin.asked("index.m3u8");
    let asked: Vec<&str> = asked.iter().filter_map(|h| h.split(['?', ' ']).nth(2)).collect();
    assert_eq!(asked, ["a=b%20c&token=secret", "a=b%20c&_HLS_msn=4&token=secret", "a=b%20c&_HLS_msn=5&token=secret"]);
    assert!(origin.asked("4.ts")[0].starts_with("GET /live/4.ts?token=secret "));
    let place = run.listed.last().and_then(|(.., l)| l.origin.clone()).unwrap();
    assert_eq!(place.url, origin.url.join("5.ts").unwrap().as_str());
}

#[tokio::test]
async fn a_later_run_goes_on_where_an_earlier_one_stopped() {
    let origin = Origin::start().await;
    origin.segments(1..=40);
    origin.list(&list(1..=5));
    let mut run = Run::start(config(&origin.url));
    run.until("three segments", |r| r.progress.as_ref().is_some_and(|p| p.last.is_some_and(|l| l.sequence == 5))).await;
    let resume = |next_object, sequence, listed| {
        let last = Some(LastSegment { sequence, listed });
        Some(Resume { next_object, last, map: None })
    };
    assert_eq!(run.progress, resume(3, 5, 5));
    origin.list(&ended(&list(4..=9)));
    let mut next = Run::start(IngestConfig { resume: run.progress.clone(), ..config(&origin.url) });
    assert_eq!(next.end().await, Ok(()));
    assert_eq!((next.sequences(), next.complete.first(), &next.troubles[..]), (vec![6, 7, 8, 9], Some(&3), &[][..]));
    assert!(next.bytes[&3] == ts(6, 1000));

    // It was away for too long; numbers had been ahead of the playlist's.
    origin.list(&list(20..=40));
    let mut late = Run::start(IngestConfig { resume: resume(7, 9, 109), ..config(&origin.url) });
    late.until("three segments", |r| r.is_complete(140)).await;
    assert_eq!(late.sequences(), [138, 139, 140]);
    assert!(late.has_trouble("28 segments left the playlist"), "{:?}", late.troubles);
    assert!(late.listed.iter().all(|(.., l)| !l.discontinuity));
}
