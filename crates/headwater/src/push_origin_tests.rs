use super::*;

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
