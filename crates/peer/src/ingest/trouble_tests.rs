//! What goes wrong at an origin.

use super::*;

#[tokio::test]
async fn a_segment_that_breaks_off_is_read_on() {
    let origin = Origin::start().await;
    let body = |n| ts(n, 150_000);
    origin.put("1.ts", [Cut(body(1), 70_000), Status(503), Body(body(1))]);
    // This server knows no ranges.
    origin.put("2.ts", [Cut(body(2), 70_000), Cut(body(2), 90_000), Whole(body(2))]);
    // All has come but the end.
    let all = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGab\r\n".to_vec();
    origin.put(
        "3.ts",
        [Raw(all), Raw(b"HTTP/1.1 416 R\r\nContent-Range: bytes */3\r\nContent-Length: 0\r\n\r\n".into())],
    );
    origin.list(&ended(&list(1..=3)));
    let (idle, first) = (Duration::from_millis(400), Duration::from_secs(30));
    let mut run = Run::start_with(config(&origin.url), Patience { idle, first, ..hasty() });
    assert_eq!(run.end().await, Ok(()));
    assert_eq!(run.complete, [0, 1, 2].into(), "{:?}", run.troubles);
    assert!(run.bytes[&0] == body(1) && run.bytes[&1] == body(2) && run.bytes[&2] == b"Gab");
    let last = origin.asked("1.ts").pop().unwrap();
    assert!(last.contains("range: bytes=70000-\r\n") && last.contains("if-range: \"v1\"\r\n"), "{last}");
    assert!(run.has_trouble("segment 1 is asked for again"), "{:?}", run.troubles);
}

#[tokio::test]
async fn another_version_is_not_mixed_in() {
    let origin = Origin::start().await;
    let other = b"HTTP/1.1 200 OK\r\nETag: \"v2\"\r\nContent-Length: 1\r\n\r\nG".to_vec();
    origin.put("1.ts", [Cut(ts(1, 100), 70), Raw(other)]);
    origin.put("2.ts", [Body(ts(2, 100))]);
    origin.list(&ended(&list(1..=2)));
    let mut run = Run::start(config(&origin.url));
    assert_eq!(run.end().await, Ok(()));
    assert_eq!((run.complete, run.abandoned), ([1].into(), [0].into()));
    assert!(run.troubles.last().unwrap().contains("segment 1 is left out"), "{:?}", run.troubles);
}

#[tokio::test]
async fn what_is_not_there_or_no_media_is_left_out() {
    let origin = Origin::start().await;
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\nG", MAX_OBJECT_BYTES + 1);
    origin.put("2.ts", [Raw(long.into())]);
    origin.put("3", [Body(b"<!doctype html>".into())]);
    origin.put("5.ts", [Status(404), Body(vec![]), Body(ts(5, 100))]);
    // Its beginning is not there, nor is what needs it; a later one tries again.
    origin.put("i.mp4", [Status(404)]);
    origin.put("6.mp4", [Body(ts(6, 100))]);
    let segment = |name: &str| format!("#EXTINF:0.3,\n{name}\n");
    let names = ["1.ts", "2.ts", "3", "file:///etc/passwd", "5.ts"].map(segment).concat();
    let text = format!("{HEAD}#EXT-X-MEDIA-SEQUENCE:1\n{names}#EXT-X-GAP\n{}", segment("6.ts"));
    origin.list(&ended(&format!("{text}#EXT-X-MAP:URI=\"i.mp4\"\n{}", segment("6.mp4"))));
    let mut run = Run::start(config(&origin.url));
    assert_eq!(run.end().await, Ok(()));
    assert_eq!(run.sequences(), [1, 2, 5, 7]);
    assert!(run.is_complete(5) && run.complete.len() == 1);
    assert_eq!(run.abandoned.len(), 5, "{:?}", run.troubles);
    for words in [
        "segment 1 is left out: ",
        "does not exist (status 404)",
        "segment 2 is left out: it has more than 64 MiB",
        "segment 3 is left out: it is neither",
        "\"file:///etc/passwd\", which is no address",
        "segment 6 is listed as missing",
        "the initialisation section of segment 7 is left out",
        "segment 7 is left out: its initialisation section did not come",
    ] {
        assert!(run.has_trouble(words), "{words}: {:?}", run.troubles);
    }
    assert!(origin.asked("1.ts").len() > 1);
    assert_eq!(run.progress.unwrap().map, None);
}

#[tokio::test]
async fn the_next_one_does_not_wait_for_one_that_hangs() {
    let origin = Origin::start().await;
    origin.segments(1..=3);
    origin.put("1.ts", [Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nG".into())]);
    origin.list(&list(1..=3));
    let mut run = Run::start_with(config(&origin.url), Patience { alone: Duration::from_millis(50), ..hasty() });
    run.until("the others", |r| r.is_complete(2) && r.is_complete(3)).await;
    // Nothing is done up to here: a later run has to begin with the first one.
    assert_eq!((run.bytes[&0].len(), &run.progress), (1, &None));
}

#[tokio::test]
async fn what_left_the_playlist_is_given_up() {
    let origin = Origin::start().await;
    origin.segments(1..=9);
    origin.put("2.ts", [Cut(ts(2, 100), 10), Status(503)]);
    origin.list(&list(1..=3));
    let mut run = Run::start(config(&origin.url));
    run.until("the first", |r| r.is_complete(1) && r.bytes.contains_key(&1)).await;
    origin.list(&list(4..=5));
    run.until("the second is given up", |r| r.abandoned.contains(&1)).await;
    run.until("the rest", |r| r.is_complete(5)).await;
    assert!(run.has_trouble("segment 2 is left out: "), "{:?}", run.troubles);
}

#[tokio::test]
async fn numbers_never_go_back() {
    let origin = Origin::start().await;
    origin.segments(0..=12);
    let map = "#EXT-X-MAP:URI=\"0.ts\"\n#EXTINF";
    let with_map = |text: String| text.replacen("#EXTINF", map, 1);
    origin.list(&with_map(list(10..=12)));
    let mut run = Run::start(config(&origin.url));
    run.until("the first ones", |r| r.is_complete(12)).await;
    origin.list(&ended(&with_map(list(0..=2))));
    assert_eq!(run.end().await, Ok(()));
    let shown: Vec<_> = run.listed.iter().map(|(.., l)| (l.sequence, l.discontinuity, l.map)).collect();
    let (old, new) = (Some(0), Some(4));
    let first = [(10, false, old), (11, false, old), (12, false, old)];
    assert_eq!(shown[..3], first);
    assert_eq!(shown[3..], [(13, true, new), (14, false, new), (15, false, new)]);
    assert!(run.bytes[&5] == ts(0, 1000));
    let last = Some(LastSegment { sequence: 2, listed: 15 });
    assert_eq!(run.progress.as_ref().unwrap().last, last);
    // After that, a run that finds the packager counting from zero again.
    origin.list(&ended(&list(0..=1)));
    let resume = Resume { last: Some(LastSegment { sequence: 20, listed: 33 }), ..run.progress.unwrap() };
    let mut next = Run::start(IngestConfig { resume: Some(resume), ..config(&origin.url) });
    assert_eq!(next.end().await, Ok(()));
    assert_eq!((next.sequences(), next.listed[0].2.discontinuity), (vec![34, 35], true));
}

#[tokio::test]
async fn an_answer_that_is_held_back_for_ever_is_asked_for_in_the_ordinary_way() {
    let origin = Origin::start().await;
    origin.segments(1..=4);
    let (first, last) = (blocking(&list(1..=3)), ended(&blocking(&list(1..=4))));
    origin.put("index.m3u8", [Body(first.into()), Raw(Vec::new()), Body(last.into())]);
    let mut run = Run::start(config(&origin.url));
    assert_eq!(run.end().await, Ok(()));
    assert!(run.is_complete(4));
    assert!(run.has_trouble("the playlist was not loaded") && run.has_trouble("loaded again"), "{:?}", run.troubles);
    let asked: Vec<bool> = origin.asked("index.m3u8").iter().map(|h| h.contains("?_HLS_msn=4 ")).collect();
    assert_eq!(asked, [false, true, false]);
}

#[tokio::test]
async fn a_packager_that_was_interrupted_in_a_segment_begins_anew_with_it() {
    let origin = Origin::start().await;
    origin.segments(0..=11);
    origin.put("12.ts", [Cut(ts(12, 1000), 500), Status(404)]);
    origin.list(&blocking(&list(10..=12)));
    let mut run = Run::start(config(&origin.url));
    run.until("the last one is given up", |r| !r.abandoned.is_empty()).await;
    assert!(run.has_trouble("segment 12 is asked for again"), "{:?}", run.troubles);
    origin.list(&ended(&blocking(&list(0..=2))));
    assert_eq!(run.end().await, Ok(()));
    assert!(run.has_trouble("segment 12 is left out") && run.has_trouble("began anew"), "{:?}", run.troubles);
    let shown: Vec<_> =
        run.listed.iter().map(|(o, _, l)| (l.sequence, l.discontinuity, run.complete.contains(o))).collect();
    let (before, after) = shown.split_at(3);
    assert_eq!(before, [(10, false, true), (11, false, true), (12, false, false)]);
    assert_eq!(after, [(12, true, true), (13, false, true), (14, false, true)]);
    assert_eq!(run.progress.unwrap().last, Some(LastSegment { sequence: 2, listed: 14 }));
}

#[tokio::test]
async fn a_discontinuity_that_is_listed_late_is_told() {
    let origin = Origin::start().await;
    origin.segments(1..=3);
    origin.list(&list(1..=3));
    let mut run = Run::start(config(&origin.url));
    run.until("three segments", |r| r.is_complete(3)).await;
    let late =
        list(1..=3).replace("0.3,\n3.ts", "0.2,\n3.ts").replace("#EXTINF:0.2", "#EXT-X-DISCONTINUITY\n#EXTINF:0.2");
    origin.list(&ended(&late));
    assert_eq!(run.end().await, Ok(()));
    assert_eq!(run.troubles.len(), 1);
    assert!(run.has_trouble("segment 3 is listed as a discontinuity only now"), "{:?}", run.troubles);
}

#[tokio::test]
async fn what_is_no_playlist_is_tried_again() {
    let origin = Origin::start().await;
    origin.segments(1..=3);
    let html = Body(b"<!doctype html>".into());
    origin.put("index.m3u8", [html, Body(list(1..=3).into()), Status(500), Body(ended(&list(1..=3)).into())]);
    let patient = Patience { first: Duration::from_secs(30), ..hasty() };
    let mut run = Run::start_with(config(&origin.url), patient);
    assert_eq!(run.end().await, Ok(()));
    assert_eq!(run.complete.len(), 3);
    for words in ["this is no playlist", "status 500", "loaded again"] {
        assert!(run.has_trouble(words), "{words}: {:?}", run.troubles);
    }
}

#[tokio::test]
async fn a_playlist_that_never_comes_is_an_error_that_says_what_to_do() {
    let stated = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n".to_vec();
    let cases = [
        (Flood(b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.ts\n"), "has more than 8388608 bytes"),
        (Raw(stated), "has more than 8388608 bytes"),
        (Body(vec![0xff; 10]), "is no text"),
        (Body(b"#EXTM3U\n".into()), "no EXT-X-TARGETDURATION"),
        (Status(404), "does not exist (status 404)"),
        (Status(403), "refuses access (status 403)"),
    ];
    let mut all = Vec::new();
    for (reply, words) in cases {
        let origin = Origin::start().await;
        origin.put("index.m3u8", [reply]);
        all.push((Run::start(config(&origin.url)), words));
    }
    for (run, words) in all {
        let error = run.error().await;
        assert!(error.contains(words) && error.contains("check the address, that the encoder runs"), "{error}");
    }
    let access = Access { headers: vec![("a b".into(), "secret".into())], query: None };
    let origin = Origin::start().await;
    let error = Run::start(IngestConfig { access, ..config(&origin.url) }).error().await;
    assert!(error.contains("header 1 has an invalid name"), "{error}");
}

#[tokio::test]
async fn encrypted_streams_are_refused() {
    let origin = Origin::start().await;
    origin.list(&list(1..=3).replacen("#EXTINF", "#EXT-X-KEY:METHOD=AES-128,URI=\"k\"\n#EXTINF", 1));
    let error = Run::start(config(&origin.url)).error().await;
    assert!(error.contains("encrypted segments: not supported yet"), "{error}");
}

#[tokio::test]
async fn one_rendition_is_chosen_and_credentials_stay_at_home() {
    let (home, away) = (Origin::start().await, Origin::start().await);
    away.segments(2..=2);
    home.segments(1..=1);
    let elsewhere = away.url.join("2.ts").unwrap();
    home.put("high.m3u8", [Body(ended(&list(1..=2).replace("2.ts", elsewhere.as_str())).into())]);
    home.list(
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=800000\nlow.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=8000000\nhigh.m3u8\n",
    );
    let access =
        Access { headers: vec![("authorization".into(), "secret".into())], query: Some("token=secret".into()) };
    let mut url = home.url.clone();
    url.set_username("user").unwrap();
    let mut run = Run::start(IngestConfig { url, access, ..config(&home.url) });
    assert_eq!(run.end().await, Ok(()));
    assert_eq!(run.complete.len(), 2, "{:?}", run.troubles);
    assert_eq!(run.troubles.len(), 1);
    assert!(run.has_trouble("of 2 renditions http://127.0.0.1") && run.has_trouble("8.0 Mbit/s"), "{:?}", run.troubles);
    for name in ["index.m3u8", "high.m3u8", "1.ts"] {
        let head = &home.asked(name)[0];
        assert!(head.contains("authorization: secret\r\n") && head.contains("?token=secret "), "{head}");
    }
    assert!(!away.asked("2.ts")[0].contains("secret"));
    let places = run.listed.iter().filter_map(|(.., l)| l.origin.clone()).map(|o| o.url);
    assert_eq!(places.collect::<Vec<_>>(), [home.url.join("1.ts").unwrap().as_str(), elsewhere.as_str()]);
}

#[tokio::test]
async fn it_stops_at_once() {
    let origin = Origin::start().await;
    origin.put("1.ts", [Body(vec![0x47; 8 << 20])]);
    origin.list(&list(1..=1));
    // Nobody receives: the channel is full.
    let run = Run::start(config(&origin.url));
    while run.rx.len() < CHANNEL_MESSAGES {
        tokio::task::yield_now().await;
    }
    run.stop.cancel();
    assert_eq!(tokio::time::timeout(Duration::from_secs(2), run.task).await.expect("prompt").unwrap(), Ok(()));
    // It waits for an answer.
    origin.put("index.m3u8", [Raw(Vec::new())]);
    let before = origin.asked("index.m3u8").len();
    let run = Run::start(config(&origin.url));
    while origin.asked("index.m3u8").len() == before {
        tokio::task::yield_now().await;
    }
    run.stop.cancel();
    assert_eq!(tokio::time::timeout(Duration::from_secs(2), run.task).await.expect("prompt").unwrap(), Ok(()));
    // Nobody is there any more.
    origin.list(&list(1..=1));
    let run = Run::start(config(&origin.url));
    drop(run.rx);
    assert_eq!(tokio::time::timeout(Duration::from_secs(2), run.task).await.expect("prompt").unwrap(), Ok(()));
}
