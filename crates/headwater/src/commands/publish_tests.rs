use super::*;
use std::fs;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_RANGE, RANGE};
use axum::response::{IntoResponse, Response};
use headwater_peer::key::PublisherKey;
use headwater_peer::publish::OriginProblem;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::origin_server::OriginServer;

const PIECE: u32 = 4096;

/// A publisher's folder and what was prepared from it.
struct Published {
    dir: TempDir,
    track: Track,
    made: StaticLog,
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn publish(files: &[(&str, usize)], path: &str, origins: &[Url]) -> Published {
    let dir = tempfile::tempdir().unwrap();
    for (name, len) in files {
        let at = dir.path().join(name);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, content(*len)).unwrap();
    }
    let key = PublisherKey::create(&tempfile::tempdir().unwrap().path().join("key")).unwrap();
    let made = prepare(&dir.path().join(path), "n", &key, origins, Some(PIECE), 7, 2, &|_, _| {}).unwrap();
    let track = made.log.verify("n", Some(&key.fingerprint())).unwrap();
    Published { dir, track, made }
}

impl Published {
    async fn check(&self, access: &Access, how: Check) -> Result<OriginCheck, OriginProblem> {
        let config = OriginConfig { retries: 0, environment_proxy: false, ..OriginConfig::default() };
        let client = OriginClient::new(config).unwrap();
        check_origin(&client, access, &self.track, &self.made.leaves, how, &|done, all| assert!(done <= all)).await
    }

    async fn problem(&self, how: Check) -> OriginProblem {
        self.check(&Access::default(), how).await.unwrap_err()
    }
}

/// Serves a folder until the runtime ends.
async fn serve(dir: &Path) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let server = OriginServer { dir: dir.into(), up_bytes_per_s: None };
    tokio::spawn(server.serve(listener, std::future::pending()));
    url
}

/// A server that answers every request so.
async fn answering(answer: impl Fn(&Request) -> Response + Clone + Send + Sync + 'static) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/f", listener.local_addr().unwrap()).parse().unwrap();
    let router = Router::new().fallback(move |request: Request| {
        let answer = answer(&request);
        async move { answer }
    });
    tokio::spawn(axum::serve(listener, router).into_future());
    url
}

/// The part of `file` that is asked for, without a validator.
fn part(file: &[u8], request: &Request) -> Response {
    let asked = request.headers()[RANGE].to_str().unwrap().strip_prefix("bytes=").unwrap().to_owned();
    let (first, last) = asked.split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let range = format!("bytes {first}-{last}/{}", file.len());
    (StatusCode::PARTIAL_CONTENT, [(CONTENT_RANGE, range)], file[first..=last].to_vec()).into_response()
}

#[tokio::test]
async fn what_is_published_from_an_origin_is_there() {
    let origin = tempfile::tempdir().unwrap();
    fs::create_dir(origin.path().join("copy")).unwrap();
    for at in ["film", "copy/film"] {
        fs::write(origin.path().join(at), content(300_000)).unwrap();
    }
    let url = serve(origin.path()).await;
    let two = [url.join("film").unwrap(), url.join("copy/").unwrap()];
    let published = publish(&[("film", 300_000)], "film", &two);
    let sample = published.check(&Access::default(), Check::Sample).await.unwrap();
    assert_eq!(sample.origins.len(), 2);
    for (checked, url) in sample.origins.iter().zip([&two[0], &url.join("copy/film").unwrap()]) {
        assert_eq!((checked.url.as_str(), checked.objects, checked.pieces), (url.as_str(), 1, 16));
        assert_eq!(checked.objects_without_validator, 0);
    }
    let all = published.check(&Access::default(), Check::All).await.unwrap();
    assert!(all.origins.iter().all(|o| (o.pieces, o.bytes) == (74, 300_000)));
    // The static log that viewers read proves the same.
    let log = write_beside(&published.dir.path().join("film"), &published.made).unwrap();
    assert!(StaticLog::decode(&fs::read(log).unwrap()).unwrap().verify("n", None).is_ok());
}

#[tokio::test]
async fn a_folder_is_looked_at_object_by_object() {
    let files = [("it/a b.txt", 5000), ("it/d/empty", 0), ("it/d/ü", 10_000), ("it/z", 1)];
    // Publisher and origin have different folders of the same content.
    let origin = publish(&files, "it", &[]);
    let url = serve(origin.dir.path()).await;
    let published = publish(&files, "it", &[url.join("it").unwrap()]);
    let checked = published.check(&Access::default(), Check::Sample).await.unwrap();
    assert_eq!((checked.origins[0].objects, checked.origins[0].pieces, checked.origins[0].bytes), (4, 6, 15_001));
    fs::remove_file(origin.dir.path().join("it/d/empty")).unwrap();
    let said = published.problem(Check::Sample).await;
    assert!(matches!(&said, OriginProblem::NotFound { status: 404, path, .. } if path == "d/empty"), "{said}");
}

#[tokio::test]
async fn each_wrong_origin_is_told_apart() {
    let origin = tempfile::tempdir().unwrap();
    let url = serve(origin.path()).await;
    let mine = |url: Url| publish(&[("film", 300_000)], "film", &[url]);
    let there = mine(url.join("film").unwrap());

    let said = there.problem(Check::Sample).await.to_string();
    assert!(said.contains("there is no file at") && said.contains("404") && said.contains("upload \"film\""), "{said}");

    fs::write(origin.path().join("film"), content(299_999)).unwrap();
    let said = there.problem(Check::Sample).await.to_string();
    assert!(said.contains("has 299999 bytes and yours has 300000") && said.contains("Upload"), "{said}");

    let mut other = content(300_000);
    other.reverse();
    fs::write(origin.path().join("film"), &other).unwrap();
    let said = there.problem(Check::Sample).await.to_string();
    assert!(said.contains("differ in piece") && said.contains("nother version"), "{said}");

    let mut one_bit = content(300_000);
    one_bit[200_000] ^= 1;
    fs::write(origin.path().join("film"), &one_bit).unwrap();
    let said = there.problem(Check::All).await;
    assert!(matches!(said, OriginProblem::Bytes { piece: 48, offset: 196_608, .. }), "{said}");

    let whole = mine(answering(|_| content(300_000).into_response()).await);
    let said = whole.problem(Check::Sample).await.to_string();
    assert!(said.contains("no byte ranges") && said.contains("Accept-Ranges"), "{said}");

    for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
        let closed = mine(answering(move |_| status.into_response()).await);
        let said = closed.problem(Check::Sample).await.to_string();
        assert!(said.contains(status.as_str()) && said.contains("--origin-header"), "{said}");
        let access = Access { headers: vec![("x-key".into(), "hunter2".into())], query: None };
        let said = closed.check(&access, Check::Sample).await.unwrap_err().to_string();
        assert!(said.contains("refuses the credentials") && !said.contains("hunter2"), "{said}");
    }

    let busy = mine(answering(|_| StatusCode::SERVICE_UNAVAILABLE.into_response()).await);
    let said = busy.problem(Check::Sample).await.to_string();
    assert!(said.contains("cannot answer now"), "{said}");

    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let said = mine(format!("http://{gone}/film").parse().unwrap()).problem(Check::Sample).await.to_string();
    assert!(said.contains("cannot connect"), "{said}");
}

#[tokio::test]
async fn credentials_open_the_origin_and_missing_validators_are_counted() {
    let guarded = |request: &Request| match request.headers().get("x-key") {
        Some(key) if key == "hunter2" && request.uri().query() == Some("v=1&sig=2") => part(&content(300_000), request),
        _ => StatusCode::FORBIDDEN.into_response(),
    };
    let url = answering(guarded).await.join("?v=1").unwrap();
    let published = publish(&[("film", 300_000)], "film", &[url.join("/film?v=1").unwrap()]);
    let access = access(&["x-key: hunter2".into()], Some("sig=2".into())).unwrap();
    let checked = published.check(&access, Check::Sample).await.unwrap();
    assert_eq!(checked.origins[0].objects_without_validator, 1);
    assert!(!checked.origins[0].url.contains('?'), "queries are secrets");
}

#[tokio::test]
async fn hashes_of_another_content_are_refused() {
    let url: Url = "http://127.0.0.1:9/f".parse().unwrap();
    let mut published = publish(&[("film", 9000)], "film", &[url]);
    published.made.leaves.pop();
    let said = published.problem(Check::Sample).await;
    assert_eq!(said, OriginProblem::Leaves { leaves: 2, pieces: 3 });
}

#[test]
fn a_header_without_colon_is_refused_and_not_shown() {
    let error = access(&["a: b".into(), "hunter2".into()], None).unwrap_err();
    let said = format!("{error:#}");
    assert!(said.contains("number 2") && !said.contains("hunter2"), "{said}");
    assert_eq!(crate::exit::code(&error), 2);
    let good = access(&["Authorization: Bearer a:b".into()], None).unwrap();
    assert_eq!(good.headers, [("Authorization".to_owned(), "Bearer a:b".to_owned())]);
}
