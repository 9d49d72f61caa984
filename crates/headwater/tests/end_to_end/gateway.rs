//! Programs that read contents by plain HTTP from the node on their machine, also while these arrive.

use crate::site::{Process, Site};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

/// A response.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub fields: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// Asks for `url` with further header fields, and reads to the end.
pub fn ask(method: &str, url: &str, fields: &[(&str, &str)]) -> Got {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let mut head = format!("{method} /{path} HTTP/1.1\r\nConnection: close\r\n");
    if fields.iter().all(|(name, _)| *name != "Host") {
        head += &format!("Host: {host}\r\n");
    }
    fields.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let fields = lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned())).collect();
    Got { status, fields, body: answer[end + 4..].to_vec() }
}

/// A peer with a gateway, and where it lets `name` be read.
pub fn reader(site: &Site, name: &str, who: &str) -> (Process, String) {
    let peer = site.peer(who, &["--gateway", "127.0.0.1:0", "--fetch", name]);
    let status = peer.until("the content", |v| v["contents"][0]["total"].as_u64().is_some_and(|n| n > 0));
    let url = status["contents"][0]["gateway"].as_str().unwrap().to_owned();
    (peer, url)
}

pub const MIB: usize = 1 << 20;

#[test]
fn what_a_reader_needs_next_comes_first() {
    let site = Site::start("2MB/s");
    site.write("film", 24 * MIB, 31);
    let name = site.publish("film", &[]);
    let film = std::fs::read(site.path("www/film")).unwrap();
    let (peer, url) = reader(&site, &name, "reader");
    let file = format!("{url}film");

    // The end of the file, as a player that looks for its index there; then its middle.
    for (first, last) in [(23 * MIB, 24 * MIB - 1), (12 * MIB + 17, 12 * MIB + 99_999)] {
        let got = ask("GET", &file, &[("Range", &format!("bytes={first}-{last}"))]);
        assert_eq!(got.status, 206, "{:?}", got.fields);
        assert_eq!(got.fields["content-range"], format!("bytes {first}-{last}/{}", 24 * MIB));
        assert!(got.body == film[first..=last], "{} bytes of {first}-{last} are not those", got.body.len());
        let held = peer.until("a status", |v| v["event"] == "status")["contents"][0]["bytes"].as_u64().unwrap();
        assert!(held < 16 * MIB as u64, "{held} bytes came before what was needed");
    }
    let got = ask("GET", &file, &[]);
    assert_eq!((got.status, got.body == film), (200, true));
    peer.until("everything", |v| v["contents"][0]["complete"] == true);
    assert!(ask("GET", &file, &[]).body == film);
}

#[test]
fn a_reader_is_fed_by_peers_too() {
    let site = Site::start("4MB/s");
    site.write("film", 16 * MIB, 32);
    let name = site.publish("film", &[]);
    let seed = site.get(&name, "seed", &["--up", "4MB/s"]);
    seed.event("complete");
    let (peer, url) = reader(&site, &name, "reader");
    let film = std::fs::read(site.path("www/film")).unwrap();
    let got = ask("GET", &format!("{url}film"), &[("Range", "bytes=-65536")]);
    assert!(got.body == film[film.len() - 65536..]);
    let first = peer.until("a status", |v| v["event"] == "status");
    assert!(first["contents"][0]["bytes"].as_u64().unwrap() < 12 * MIB as u64, "{first}");
    assert!(ask("GET", &format!("{url}film"), &[]).body == film);
    let done = peer.until("everything", |v| v["contents"][0]["complete"] == true);
    assert_eq!(done["contents"][0]["origin_bytes"], 0, "{done}");
}

#[test]
fn http_as_programs_expect_it() {
    let site = Site::start("unlimited");
    site.write("docs/a b.txt", 300_000, 33);
    site.write("docs/deep/c.bin", 70_000, 34);
    site.write("docs/empty", 0, 35);
    let name = site.publish("docs", &[]);
    let (peer, url) = reader(&site, &name, "reader");
    peer.until("everything", |v| v["contents"][0]["complete"] == true);
    let a = std::fs::read(site.path("www/docs/a b.txt")).unwrap();
    let file = format!("{url}a%20b.txt");

    let list = ask("GET", &url, &[]);
    let page = String::from_utf8(list.body).unwrap();
    assert!(page.contains("href=\"./a%20b.txt\"") && page.contains("href=\"./deep/\""), "{page}");
    assert_eq!(ask("HEAD", &url, &[]).fields["content-length"], page.len().to_string());
    let deep = ask("GET", &format!("{url}deep"), &[]);
    assert_eq!((deep.status, deep.fields["location"].as_str()), (301, "./deep/"));
    let deep = String::from_utf8(ask("GET", &format!("{url}./deep/"), &[]).body).unwrap();
    assert!(deep.contains("href=\"./c.bin\"") && !deep.contains("a%20b"), "{deep}");
    let whole = ask("GET", &file, &[]);
    assert!(whole.status == 200 && whole.body == a);
    assert_eq!(whole.fields["content-type"], "text/plain");
    assert_eq!(whole.fields["x-content-type-options"], "nosniff");
    assert_eq!(whole.fields["content-length"], "300000");
    let (tag, date) = (whole.fields["etag"].as_str(), whole.fields["last-modified"].as_str());
    let head = ask("HEAD", &file, &[]);
    assert_eq!((head.status, head.body.len(), head.fields["content-length"].as_str()), (200, 0, "300000"));
    assert_eq!(ask("GET", &file, &[("If-None-Match", tag)]).status, 304);
    assert_eq!(ask("GET", &file, &[("If-Modified-Since", date)]).status, 304);
    assert_eq!(ask("GET", &file, &[("If-Match", "\"other\"")]).status, 412);
    let part = ask("GET", &file, &[("If-Range", tag), ("Range", "bytes=299999-")]);
    assert_eq!((part.status, part.body), (206, a[299_999..].to_vec()));
    let beyond = ask("GET", &file, &[("Range", "bytes=300000-")]);
    assert_eq!((beyond.status, beyond.fields["content-range"].as_str()), (416, "bytes */300000"));
    assert!(
        ask("GET", &format!("{url}deep/c.bin"), &[]).body == std::fs::read(site.path("www/docs/deep/c.bin")).unwrap()
    );
    let empty = ask("GET", &format!("{url}empty"), &[]);
    assert_eq!((empty.status, empty.body.len()), (200, 0));

    // A new version has another tag.
    site.write("docs/a b.txt", 200_000, 36);
    let again = site.publish("docs", &[]);
    let (newer, url) = reader(&site, &again, "later");
    newer.until("everything", |v| v["contents"][0]["complete"] == true);
    assert_ne!(ask("HEAD", &format!("{url}a%20b.txt"), &[]).fields["etag"], tag);
}

#[test]
fn nobody_gets_in_without_leave() {
    let site = Site::start("unlimited");
    site.write("film", MIB, 37);
    let name = site.publish("film", &[]);
    let (peer, url) = reader(&site, &name, "reader");
    peer.until("everything", |v| v["contents"][0]["complete"] == true);
    let file = format!("{url}film");
    let host = url.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    // A name that was made to point here (DNS rebinding), a page of another site, and one of this gateway's.
    assert_eq!(ask("GET", &file, &[("Host", "films.example")]).status, 421);
    assert_eq!(ask("GET", &file, &[("Host", &host.replace("127.0.0.1", "localhost"))]).status, 200);
    assert_eq!(ask("GET", &file, &[("Origin", "https://films.example")]).status, 403);
    assert_eq!(ask("GET", &file, &[("Origin", "null")]).status, 403);
    assert_eq!(ask("GET", &file, &[("Origin", &format!("http://{host}"))]).status, 200);
    for path in ["c/", "c/AAAAAAAAAAAAAAAAAAAAAA/film", "c/%00/film", "c", "film", "c/../film", "%"] {
        assert_eq!(ask("GET", &format!("http://{host}/{path}"), &[]).status, 404, "{path}");
    }
    for path in ["other", "..%2ffilm", "film/", "%ff"] {
        assert_eq!(ask("GET", &format!("{url}{path}"), &[]).status, 404, "{path}");
    }
    assert_eq!(ask("POST", &file, &[]).status, 405);
    let long = ask("GET", &format!("{url}{}", "x".repeat(20_000)), &[]);
    assert!(matches!(long.status, 414 | 431), "{}", long.status);

    // Elsewhere than on loopback it does not listen; where the path leads stays as it is.
    let refused = crate::site::run(&[
        "peer",
        "--control",
        &site.control_address,
        "--data",
        &site.path("open"),
        "--gateway",
        "0.0.0.0:0",
    ]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("this machine only"), "{refused:?}");
    drop(peer);
    let (_again, later) = reader(&site, &name, "reader");
    assert_eq!(later.split("/c/").nth(1), url.split("/c/").nth(1));
}
