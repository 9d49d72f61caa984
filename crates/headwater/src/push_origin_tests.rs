use super::*;
use headwater_model::Micros;
use headwater_model::live::Listed;
use headwater_peer::ingest::{CHANNEL_MESSAGES, Ingest, IngestConfig, Ingested};
use headwater_peer::origin::{Access, OriginClient, OriginConfig};
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

async fn origin() -> (PushOrigin, reqwest::Client, CancellationToken) {
    // An error means that the process has one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let stop = CancellationToken::new();
    let origin = PushOrigin::start(([127, 0, 0, 1], 0).into(), None, stop.clone()).await.unwrap();
    (origin, reqwest::Client::builder().no_proxy().build().unwrap(), stop)
}

const PLAYLIST: &str = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n1.ts\n";

#[tokio::test]
async fn what_is_put_is_served() {
    let (o, http, _stop) = origin().await;
    let put = |path: &str, body: &'static str| http.put(o.push_url.join(path).unwrap()).body(body).send();
    assert_eq!(put("a/1.ts", "0123456789").await.unwrap().status(), 201);
    assert_eq!(put("a/master.m3u8", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nx.m3u8\n").await.unwrap().status(), 201);
    assert_eq!(put("a/x.m3u8", PLAYLIST).await.unwrap().status(), 201);
    assert_eq!(o.playlist().await.unwrap(), o.public_url.join("a/x.m3u8").unwrap());
    let get =
        |path: &str, range: &'static str| http.get(o.public_url.join(path).unwrap()).header("range", range).send();
    for (range, status, body) in [
        ("", 200, "0123456789"),
        ("bytes=2-4", 206, "234"),
        ("bytes=7-", 206, "789"),
        ("bytes=7-99", 206, "789"),
        ("bytes=99-", 200, "0123456789"),
        ("lines=1-2", 200, "0123456789"),
    ] {
        let answer = get("a/1.ts", range).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (status, body), "{range}");
    }
    // Deleted by its encoder, it stays for viewers.
    assert_eq!(http.delete(o.push_url.join("a/1.ts").unwrap()).send().await.unwrap().status(), 204);
    assert_eq!(get("a/1.ts", "").await.unwrap().status(), 200);
    assert_eq!(get("a/2.ts", "").await.unwrap().status(), 404);
}

#[tokio::test]
async fn only_who_knows_the_path_puts() {
    let (o, http, _stop) = origin().await;
    let mut other = o.push_url.clone();
    other.set_path("/push/0123/1.ts");
    assert_eq!(http.put(other).body("x").send().await.unwrap().status(), 404);
    assert_eq!(http.put(o.public_url.join("1.ts").unwrap()).body("x").send().await.unwrap().status(), 405);
    let odd = format!("{}a%2F..%2F..%2Fb.ts", o.push_url);
    assert_eq!(http.put(odd).body("x").send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_segment_is_read_while_it_comes_and_a_playlist_only_whole() {
    let (o, http, _stop) = origin().await;
    let (send, body) = tokio::io::duplex(1 << 10);
    let mut send = Some(send);
    let putting = tokio::spawn({
        let (http, url) = (http.clone(), o.push_url.join("1.ts").unwrap());
        async move { http.put(url).body(reqwest::Body::wrap_stream(ReaderStream::new(body))).send().await }
    });
    send.as_mut().unwrap().write_all(b"begin").await.unwrap();
    let url = o.public_url.join("1.ts").unwrap();
    let mut answer = loop {
        match http.get(url.clone()).send().await.unwrap() {
            answer if answer.status() == 200 => break answer,
            _ => tokio::task::yield_now().await,
        }
    };
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "begin");
    send.as_mut().unwrap().write_all(b" and end").await.unwrap();
    send = None;
    assert_eq!(answer.chunk().await.unwrap().unwrap(), " and end");
    assert!(answer.chunk().await.unwrap().is_none() && send.is_none());
    assert_eq!(putting.await.unwrap().unwrap().status(), 201);
}

#[tokio::test]
async fn the_oldest_go_and_what_is_too_large_is_refused() {
    let (o, http, _stop) = origin().await;
    let put = |path: &str, bytes: usize| http.put(o.push_url.join(path).unwrap()).body(vec![7; bytes]).send();
    assert_eq!(put("large.ts", MAX_OBJECT_BYTES + 1).await.map_or(413, |a| a.status().as_u16()), 413);
    for n in 0..5 {
        assert_eq!(put(&format!("{n}.ts"), 60 << 20).await.unwrap().status(), 201);
    }
    let there = |path: &str| http.head(o.public_url.join(path).unwrap()).send();
    assert_eq!(there("0.ts").await.unwrap().status(), 404);
    assert_eq!(there("4.ts").await.unwrap().status(), 200);
    assert!(o.shared.stored().bytes <= MAX_BYTES);
}

/// Something that is being put.
struct Putting {
    send: Option<tokio::io::DuplexStream>,
    answer: tokio::task::JoinHandle<reqwest::Result<reqwest::Response>>,
}

impl Putting {
    /// It is there when this returns.
    async fn begin(o: &PushOrigin, http: &reqwest::Client, path: &str, first: &[u8]) -> Putting {
        let before = o.version(path);
        let (mut send, body) = tokio::io::duplex(1 << 20);
        let request =
            http.put(o.push_url.join(path).unwrap()).body(reqwest::Body::wrap_stream(ReaderStream::new(body)));
        let answer = tokio::spawn(request.send());
        send.write_all(first).await.unwrap();
        while o.version(path) == before || o.bytes(path) < first.len() {
            tokio::task::yield_now().await;
        }
        Putting { send: Some(send), answer }
    }

    async fn more(&mut self, bytes: &[u8]) {
        self.send.as_mut().unwrap().write_all(bytes).await.unwrap();
    }

    /// Its status.
    async fn end(mut self) -> u16 {
        self.send = None;
        self.answer.await.unwrap().unwrap().status().as_u16()
    }

    /// The encoder is gone.
    async fn breaks_off(self, o: &PushOrigin, path: &str) {
        self.answer.abort();
        while o.version(path).is_some() {
            tokio::task::yield_now().await;
        }
    }
}

impl PushOrigin {
    fn version(&self, path: &str) -> Option<u64> {
        self.shared.stored().objects.get(path).map(|o| o.borrow().version)
    }
    fn bytes(&self, path: &str) -> usize {
        self.shared.stored().objects.get(path).map_or(0, |o| o.borrow().bytes)
    }
    fn own(&self, path: &str, more: &str) -> Url {
        self.public_url.join(&format!("{path}?{more}{}", self.own_query())).unwrap()
    }
}

async fn text(http: &reqwest::Client, url: Url) -> String {
    http.get(url).send().await.unwrap().text().await.unwrap()
}

fn list(first: u64, last: u64) -> String {
    let segments: String = (first..=last).map(|n| format!("#EXTINF:1.5,\n{n}.ts\n")).collect();
    format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{first}\n{segments}")
}

async fn put(o: &PushOrigin, http: &reqwest::Client, path: &str, body: impl Into<reqwest::Body>) {
    let answer = http.put(o.push_url.join(path).unwrap()).body(body).send().await.unwrap();
    assert_eq!(answer.status(), 201, "{path}");
}

#[tokio::test]
async fn only_the_publisher_learns_of_a_segment_that_is_being_put() {
    let (o, http, _stop) = origin().await;
    put(&o, &http, "a/7.ts", "G7").await;
    put(&o, &http, "a/x.m3u8", list(7, 7)).await;
    assert_eq!(o.playlist().await.unwrap().query(), None, "what viewers are told has no secret");
    let held = tokio::spawn(http.get(o.own("a/x.m3u8", "_HLS_msn=8&")).send());
    let eighth = Putting::begin(&o, &http, "a/8.ts", b"G").await;
    let own = held.await.unwrap().unwrap();
    assert_eq!(own.headers()["cache-control"], "private, no-store");
    let own = own.text().await.unwrap();
    assert!(own.contains("CAN-BLOCK-RELOAD=YES") && own.ends_with("7.ts\n#EXTINF:1.500000,\n8.ts\n"), "{own}");
    // Everybody else has what the encoder says, at once, whatever they ask.
    for query in ["", "?_HLS_msn=9", "?ahead=", "?ahead=0123&_HLS_msn=9"] {
        let url = o.public_url.join(&format!("a/x.m3u8{query}")).unwrap();
        assert_eq!(text(&http, url).await, list(7, 7), "{query}");
    }
    // Between its end and the encoder's word it stays.
    assert_eq!(eighth.end().await, 201);
    assert!(text(&http, o.own("a/x.m3u8", "")).await.ends_with("8.ts\n"));
    let _ninth = Putting::begin(&o, &http, "a/9.ts", b"G").await;
    put(&o, &http, "a/x.m3u8", list(7, 8)).await;
    assert!(
        text(&http, o.own("a/x.m3u8", "_HLS_msn=9&")).await.ends_with("#EXTINF:1.5,\n8.ts\n#EXTINF:1.500000,\n9.ts\n")
    );
    // One that began before the first playlist came counts, too.
    let _first = Putting::begin(&o, &http, "b/1.ts", b"G").await;
    put(&o, &http, "b/x.m3u8", list(0, 0)).await;
    assert!(text(&http, o.own("b/x.m3u8", "_HLS_msn=1&")).await.ends_with("\n1.ts\n"));
}

#[tokio::test]
async fn an_answer_is_not_held_back_for_ever_and_only_so_many_are() {
    let (o, http, _stop) = origin().await;
    put(&o, &http, "x.m3u8", list(7, 7)).await;
    let begun = tokio::time::Instant::now();
    let wait = || tokio::spawn(http.get(o.own("x.m3u8", "_HLS_msn=8&")).send());
    let waiting: Vec<_> = (0..MAX_OWN_WAITS).map(|_| wait()).collect();
    while o.shared.own_waits.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(wait().await.unwrap().unwrap().status(), 503);
    assert_eq!(o.shared.own_waits.available_permits(), 0, "that was at once");
    for answer in waiting {
        assert_eq!(answer.await.unwrap().unwrap().status(), 503);
    }
    assert!(begun.elapsed() >= Duration::from_secs(3), "three target durations");
    // What is far off is no segment of this stream: it is told what there is.
    assert!(text(&http, o.own("x.m3u8", "_HLS_msn=99&")).await.ends_with("7.ts\n"));
}

#[tokio::test]
async fn a_part_of_what_still_comes_is_the_right_part() {
    let (o, http, _stop) = origin().await;
    let mut putting = Putting::begin(&o, &http, "1.ts", b"01234").await;
    let get = |range: &'static str| http.get(o.public_url.join("1.ts").unwrap()).header("range", range).send();
    let seen = |answer: reqwest::Response| async {
        let range = answer.headers().get("content-range").map(|v| v.to_str().unwrap().to_owned());
        (answer.status().as_u16(), range, answer.text().await.unwrap())
    };
    let part = |range: &str, body: &str| (206, Some(format!("bytes {range}")), body.to_owned());
    assert_eq!(seen(get("bytes=1-3").await.unwrap()).await, part("1-3/*", "123"));
    let (later, last) = (tokio::spawn(get("bytes=4-6")), tokio::spawn(get("bytes=6-99")));
    while o.shared.waits.available_permits() > MAX_WAITS - 2 {
        tokio::task::yield_now().await;
    }
    putting.more(b"56").await;
    assert_eq!(seen(later.await.unwrap().unwrap()).await, part("4-6/*", "456"));
    // To an end that nobody knows: all of it.
    let all = get("bytes=2-").await.unwrap();
    putting.more(b"789").await;
    assert_eq!(putting.end().await, 201);
    assert_eq!(seen(last.await.unwrap().unwrap()).await, part("6-9/10", "6789"));
    assert_eq!(seen(all).await, (200, None, "0123456789".into()));
}

#[tokio::test]
async fn what_is_put_again_is_never_mixed() {
    let (o, http, _stop) = origin().await;
    let first = Putting::begin(&o, &http, "1.ts", b"one").await;
    let url = o.public_url.join("1.ts").unwrap();
    let mut reading = http.get(url.clone()).send().await.unwrap();
    let tag = reading.headers()["etag"].clone();
    assert_eq!(reading.chunk().await.unwrap().unwrap(), "one");
    let waiting = tokio::spawn(http.get(url.clone()).header("range", "bytes=2-5").send());
    while o.shared.waits.available_permits() == MAX_WAITS {
        tokio::task::yield_now().await;
    }
    let second = Putting::begin(&o, &http, "1.ts", b"TWO").await;
    assert!(reading.chunk().await.is_err(), "nobody waits for the rest of the first");
    assert_eq!(waiting.await.unwrap().unwrap().status(), 404);
    assert_eq!(first.end().await, 409);
    assert_eq!(second.end().await, 201);
    let get = |tag| http.get(url.clone()).header("range", "bytes=1-2").header("if-range", tag).send();
    let answer = get(tag).await.unwrap();
    assert_eq!(answer.status(), 200, "that was the first one's");
    let tag = answer.headers()["etag"].clone();
    assert_eq!(get(tag).await.unwrap().text().await.unwrap(), "WO");
}

/// What the publisher's ingest makes of it.
struct Publisher {
    came: tokio::sync::mpsc::Receiver<Ingested>,
    listed: Vec<(u64, Listed)>,
    bytes: BTreeMap<u64, Vec<u8>>,
    complete: Vec<u64>,
    troubles: Vec<String>,
}

impl Publisher {
    async fn of(o: &PushOrigin, stop: &CancellationToken) -> Publisher {
        let client = OriginConfig { environment_proxy: false, ..OriginConfig::default() };
        let (tx, came) = tokio::sync::mpsc::channel(CHANNEL_MESSAGES);
        let config = IngestConfig {
            url: o.playlist().await.unwrap(),
            access: Access { headers: Vec::new(), query: Some(o.own_query().to_owned()) },
            resume: None,
            hold_back: Micros(0),
        };
        tokio::spawn(Ingest::run(OriginClient::new(client).unwrap(), config, tx, stop.clone()));
        Publisher { came, listed: Vec::new(), bytes: BTreeMap::new(), complete: Vec::new(), troubles: Vec::new() }
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&Publisher) -> bool) {
        while !holds(self) {
            let next = tokio::time::timeout(Duration::from_secs(20), self.came.recv()).await;
            match next {
                Ok(Some(Ingested::Listed { object, listed, .. })) => self.listed.push((object, listed)),
                Ok(Some(Ingested::Bytes { object, data, .. })) => self.bytes.entry(object).or_default().extend(&data),
                Ok(Some(Ingested::Complete { object })) => self.complete.push(object),
                Ok(Some(Ingested::Trouble(trouble))) => self.troubles.push(trouble),
                Ok(Some(_)) => {}
                _ => panic!("{what}: {:?} {:?}", self.listed, self.troubles),
            }
        }
    }

    /// Whether the newest segment listed has this number, and these bytes so far.
    fn has(&self, sequence: u64, bytes: &[u8]) -> bool {
        let last = self.listed.last().filter(|(_, l)| l.sequence == sequence);
        last.is_some_and(|(object, _)| self.bytes.get(object).is_some_and(|b| b == bytes))
    }
}

#[tokio::test]
async fn an_encoder_is_published_while_it_pushes_and_begins_anew_when_it_was_interrupted() {
    let (o, http, stop) = origin().await;
    put(&o, &http, "40.ts", "G40").await;
    put(&o, &http, "x.m3u8", list(40, 40)).await;
    let mut p = Publisher::of(&o, &stop).await;
    p.until("the first", |p| p.has(40, b"G40")).await;
    let mut putting = Putting::begin(&o, &http, "41.ts", b"Gbegin").await;
    p.until("the beginning of the next", |p| p.has(41, b"Gbegin")).await;
    assert_eq!(p.listed[1].1.origin.as_ref().unwrap().url, o.public_url.join("41.ts").unwrap().as_str());
    putting.more(b" and end").await;
    p.until("the rest", |p| p.has(41, b"Gbegin and end")).await;
    assert_eq!((putting.end().await, p.complete.len()), (201, 1));
    put(&o, &http, "x.m3u8", list(40, 41)).await;
    // It breaks off: what was listed stays listed, and is given up.
    let putting = Putting::begin(&o, &http, "42.ts", b"Ghalf").await;
    p.until("a half", |p| p.has(42, b"Ghalf")).await;
    putting.breaks_off(&o, "42.ts").await;
    p.until("it is given up", |p| p.troubles.iter().any(|t| t.contains("segment 42 is left out"))).await;
    assert!(text(&http, o.own("x.m3u8", "_HLS_msn=42&")).await.ends_with("42.ts\n"));
    // It is started again, and counts from 0.
    put(&o, &http, "0.ts", "Ganew").await;
    put(&o, &http, "x.m3u8", list(0, 0)).await;
    p.until("the first one of the new run", |p| p.has(42, b"Ganew")).await;
    assert!(p.troubles.iter().any(|t| t.contains("began anew")), "{:?}", p.troubles);
    let _putting = Putting::begin(&o, &http, "1.ts", b"Gnext").await;
    p.until("the next", |p| p.has(43, b"Gnext")).await;
    let told: Vec<(u64, bool)> = p.listed.iter().map(|(_, l)| (l.sequence, l.discontinuity)).collect();
    assert_eq!(told, [(40, false), (41, false), (42, false), (42, true), (43, false)]);
}

#[tokio::test]
async fn what_is_put_twice_or_never_listed_is_told() {
    let (o, http, stop) = origin().await;
    put(&o, &http, "1.ts", "G1").await;
    put(&o, &http, "x.m3u8", list(1, 1)).await;
    let mut p = Publisher::of(&o, &stop).await;
    p.until("the first", |p| p.has(1, b"G1")).await;
    let first = Putting::begin(&o, &http, "2.ts", b"Gone").await;
    p.until("the second", |p| p.has(2, b"Gone")).await;
    let second = Putting::begin(&o, &http, "2.ts", b"Gother").await;
    p.until("it is left out", |p| p.troubles.iter().any(|t| t.contains("segment 2 is left out"))).await;
    assert_eq!((first.end().await, second.end().await), (409, 201));
    // The encoder lists another one in its place, and goes on.
    let _fourth = Putting::begin(&o, &http, "4.ts", b"G4").await;
    put(&o, &http, "x.m3u8", list(1, 1) + "#EXTINF:1.5,\n3.ts\n").await;
    p.until("the one after it", |p| p.has(3, b"G4")).await;
    assert!(p.troubles.iter().any(|t| t.contains("segment 2 is listed as another one")), "{:?}", p.troubles);
}
