//! How reading through the gateway ends when the content, or the node, does: a reader has bytes of one version only, and
//! never waits for what does not come. And readers that behave badly.

use crate::gateway::{MIB, ask, reader};
use crate::site::{Process, Site, check};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Begins to read `url`: the stream, after the head.
fn begin(url: &str) -> TcpStream {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// What else comes, until the other end closes or resets.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let (mut all, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return all,
            Ok(n) => all.extend(&chunk[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("it waits for what never comes"),
            Err(_) => return all,
        }
    }
}

/// A reader of a film that arrives slowly, after its first bytes.
fn reading(site: &Site) -> (Process, String, TcpStream, Vec<u8>) {
    site.write("film", 12 * MIB, 71);
    let name = site.publish("film", &[]);
    let film = std::fs::read(site.path("www/film")).unwrap();
    let (peer, url) = reader(site, &name, "reader");
    let file = format!("{url}film");
    let mut stream = begin(&file);
    let mut first = vec![0; 100_000];
    stream.read_exact(&mut first).unwrap();
    assert!(first == film[..first.len()]);
    (peer, file, stream, film)
}

/// What came belongs to `film`, and is not all of it.
fn is_beginning(film: &[u8], came: &[u8]) {
    assert!(film[100_000..].starts_with(came), "bytes of something else are among the {}", came.len());
    assert!(came.len() + 100_000 < film.len(), "everything came");
}

#[test]
fn a_new_version_is_never_mixed_with_the_old_one() {
    let site = Site::start("2MB/s");
    let (peer, file, mut stream, film) = reading(&site);
    let tag = ask("HEAD", &file, &[]).fields["etag"].clone();
    site.write("film", 5 * MIB, 72);
    site.publish("film", &[]);
    is_beginning(&film, &rest(&mut stream));
    peer.until("the new version", |v| v["contents"][0]["complete"] == true && v["contents"][0]["total"] == 5 * MIB);
    // Who goes on gets all of the new one, not a part that does not fit.
    let again = ask("GET", &file, &[("Range", "bytes=100000-"), ("If-Range", &tag)]);
    assert_eq!(again.status, 200);
    assert!(again.body == std::fs::read(site.path("www/film")).unwrap());
    assert_eq!(ask("GET", &file, &[("Range", "bytes=0-9"), ("If-Match", &tag)]).status, 412);
}

#[test]
fn a_withdrawn_content_ends_its_readers() {
    let site = Site::start("2MB/s");
    let (peer, file, mut stream, film) = reading(&site);
    check(&["unpublish", "film", "--control", &site.api, "--token", &site.token], 0, "");
    is_beginning(&film, &rest(&mut stream));
    peer.until("its end", |v| v["contents"][0]["state"] == "failed");
    let refused = ask("GET", &file, &[]);
    assert_eq!(refused.status, 502);
    assert!(String::from_utf8_lossy(&refused.body).contains("withdrawn"), "{refused:?}");
}

#[test]
fn a_node_that_stops_ends_its_readers() {
    let site = Site::start("2MB/s");
    let (mut peer, _, mut stream, film) = reading(&site);
    peer.stop();
    is_beginning(&film, &rest(&mut stream));
    assert_eq!(peer.code(), 0);
}

#[test]
fn readers_that_do_not_read_are_borne() {
    let site = Site::start("unlimited");
    site.write("film", 24 * MIB, 73);
    let name = site.publish("film", &[]);
    let film = std::fs::read(site.path("www/film")).unwrap();
    let (peer, url) = reader(&site, &name, "reader");
    peer.until("everything", |v| v["contents"][0]["complete"] == true);
    let file = format!("{url}film");
    let host = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let before = peer.resident_bytes();
    // Who asks for everything and takes nothing, who never ends a request, and who says nothing at all.
    let _never: Vec<TcpStream> = (0..100).map(|_| begin(&file)).collect();
    let slow = |_| {
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
        stream
    };
    let _slow: Vec<TcpStream> = (0..100).map(slow).collect();
    let _silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(host).unwrap()).collect();
    let begun = Instant::now();
    assert!(ask("GET", &file, &[]).body == film);
    assert!(begun.elapsed() < Duration::from_secs(10));
    if let (Some(before), Some(after)) = (before, peer.resident_bytes()) {
        assert!(after < before + (64 << 20), "{before} bytes became {after}");
        eprintln!("300 readers that do not read: {} KiB each", (after.saturating_sub(before)) / 300 / 1024);
    }
    // Nonsense ends a connection, not the node.
    for nonsense in
        ["\r\n\r\n", "GET\r\n\r\n", "\u{16}\u{3}\u{1}\0", "GET / HTTP/9.9\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(nonsense.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        rest(&mut stream);
    }
    assert_eq!(ask("GET", &format!("http://{host}/"), &[]).status, 200);
}
