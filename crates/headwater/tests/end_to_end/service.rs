//! A resident peer and its user: commands to it, what it remembers, what systemd and the journal hear, and who else asks.

use crate::site::{Site, check, run};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

const MIB: usize = 1 << 20;

/// What `arguments` print, as JSON.
fn json(arguments: &[&str]) -> Value {
    let output = run(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_user_deals_with_the_peer_that_runs() {
    let site = Site::start("unlimited");
    site.write("film", 3 * MIB, 41);
    let name = site.publish("film", &[]);
    let mut peer = site.peer("home", &["--gateway", "127.0.0.1:0"]);
    peer.until("a session", |v| v["control"] == true);
    let data = site.path("home");
    let at = ["--data", data.as_str()];
    let with = |arguments: &[&'static str]| [arguments, &at[..]].concat();

    check(&with(&["status"]), 0, "no contents");
    check(&["fetch", &name, "--data", &data], 0, "is on its way");
    peer.until("everything", |v| v["contents"][0]["complete"] == true);
    check(&with(&["status"]), 0, "connected by QUIC");
    check(&with(&["status"]), 0, "complete");
    check(&with(&["top"]), 0, "100 %");
    let said = json(&with(&["status"]));
    assert_eq!(said["status"]["control"]["way"], "quic");
    assert_eq!(said["status"]["held_bytes"], 3 * MIB);
    let content = &said["contents"][0];
    assert_eq!((content["name"].as_str(), content["state"].as_str()), (Some("film"), Some("complete")));
    assert_eq!(content["origin_bytes"], 3 * MIB);
    check(&with(&["fetch", "hw://elsewhere:1/film#key=00"]), 2, "hw:// name");
    let elsewhere = name.replace(&site.control_address, "cc.example:7400").replace(&site.control_id, &"0".repeat(64));
    check(&["fetch", &elsewhere, "--data", &data], 3, "its own --data");

    check(&with(&["pause"]), 0, "serving nobody, and fetching nothing: paused");
    check(&with(&["status"]), 0, "paused");
    check(&with(&["pause", "--keep-fetching"]), 0, "fetching only: paused");
    check(&with(&["resume"]), 0, "serving others");
    check(&with(&["limit", "--up", "3MB/s", "--monthly", "5GB"]), 0, "up at most 3.0 MB/s");
    assert_eq!(json(&with(&["limit", "--up", "unlimited"]))["up_bytes_per_s"], Value::Null);
    assert_eq!(json(&with(&["status"]))["status"]["limits"]["monthly_bytes"], 5_000_000_000u64);

    check(&with(&["log"]), 0, "info");
    check(&with(&["log", "debug"]), 0, "debug");
    check(&with(&["log", "a=b=c"]), 2, "no filter");
    assert!(peer.said().contains("logging \"debug\""), "{}", peer.said());
    check(&with(&["log", "info"]), 0, "info");

    check(&with(&["peer", "--control", "127.0.0.1:1"]), 1, "already");
    let files = Path::new(&data).join("contents").join(content["content"].as_str().unwrap());
    assert!(files.join("files/film").exists());
    check(&with(&["forget", "other"]), 3, "no content");
    check(&with(&["forget", "film"]), 0, "given up");
    assert!(!files.exists());
    peer.until("nothing", |v| v["contents"].as_array().is_some_and(Vec::is_empty));
    check(&with(&["forget", "film"]), 3, "no content");

    check(&with(&["stop"]), 0, "stopped");
    assert_eq!(peer.code(), 0);
    check(&with(&["status"]), 3, "no peer runs");
    check(&with(&["doctor"]), 3, "no peer runs");
}

#[test]
fn a_peer_goes_on_with_what_it_had() {
    let site = Site::start("unlimited");
    site.write("film", MIB, 42);
    let name = site.publish("film", &[]);
    let mut peer = site.peer("home", &["--no-gateway"]);
    let data = site.path("home");
    peer.until("a session", |v| v["control"] == true);
    for (pin, pinned) in [(None, false), (Some("--pin"), true)] {
        let arguments: Vec<&str> = ["fetch", &name, "--data", &data].into_iter().chain(pin).collect();
        check(&arguments, 0, "is on its way");
        peer.until("everything", |v| v["contents"][0]["complete"] == true && v["contents"][0]["pinned"] == pinned);
    }
    peer.kill();
    // What it left is no way into a peer.
    check(&["status", "--data", &data], 3, "no peer runs");
    let again = site.peer_again("home");
    let status =
        again.until("a session and the content", |v| v["control"] == true && v["contents"][0]["complete"] == true);
    assert_eq!(
        (status["contents"][0]["name"].as_str(), status["contents"][0]["origin_bytes"].as_u64()),
        (Some("film"), Some(0))
    );
    assert_eq!(status["contents"][0]["pinned"], true);
    check(&["status", "--data", &data], 0, "complete, pinned");
    assert!(again.said().contains("\"film\" is here and served"), "{}", again.said());
    // Without any word of a control center there is nothing to go on with.
    check(&["peer", "--data", &site.path("new")], 2, "--control HOST:PORT");
}

#[test]
fn a_doctor_looks_at_a_peer() {
    let mut site = Site::start("unlimited");
    site.write("film", MIB, 43);
    let name = site.publish("film", &[]);
    let peer = site.peer("home", &["--no-gateway", "--fetch", &name]);
    peer.until("everything", |v| v["contents"][0]["complete"] == true);
    let data = site.path("home");
    let output = run(&["doctor", "--data", &data, "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let health = |test: &str| {
        let all = said["findings"].as_array().unwrap();
        all.iter().find(|f| f["test"] == test).unwrap_or_else(|| panic!("no {test}: {said:#}"))["health"].clone()
    };
    for test in
        ["control center by UDP", "control center by TCP", "session", "clock", "disk writes", "origin", "path MTU"]
    {
        assert_eq!(health(test), "good", "{test}: {said:#}");
    }
    assert_eq!(output.status.code(), Some(0), "{said:#}");
    check(&["doctor", "--control", &site.control_address, "--cc", &site.control_id], 0, "control center by UDP");
    // The origin is gone: that is told, and breaks nothing.
    site.origin.kill();
    check(&["doctor", "--data", &data], 0, "LIMITED  origin");
}

/// The status of the answer to `method path` with these fields and this body, and the answer.
fn ask(address: &str, request: &str, fields: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut head = format!("{request} HTTP/1.1\r\nConnection: close\r\n");
    if fields.iter().all(|(name, _)| *name != "Content-Length") {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    fields.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    // Who is refused may be cut off before all of it is sent.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    (status.unwrap_or_else(|| panic!("no HTTP: {answer:?}")), answer)
}

#[test]
fn nobody_else_commands_a_peer() {
    let site = Site::start("unlimited");
    let peer = site.peer("home", &["--no-gateway"]);
    peer.until("a status", |v| v["event"] == "status");
    let entry: Value = serde_json::from_slice(&std::fs::read(site.path("home/local.json")).unwrap()).unwrap();
    let address = entry["address"].as_str().unwrap();
    let bearer = format!("Bearer {}", entry["token"].as_str().unwrap());
    let (host, token) = (("Host", address), ("Authorization", bearer.as_str()));
    let json = ("Content-Type", "application/json");
    let status = "GET /local/v1/status";
    assert_eq!(ask(address, status, &[host, token], b"").0, 200);
    // No token, another, half of one; a page of another site, a name made to point here.
    for fields in [
        &[host][..],
        &[host, ("Authorization", "Bearer ")],
        &[host, ("Authorization", "Bearer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")],
        &[host, ("Authorization", &bearer[..20])],
        &[host, ("Authorization", &bearer[7..])],
    ] {
        let (code, answer) = ask(address, status, fields, b"");
        assert_eq!(code, 401, "{answer}");
        assert!(!answer.contains("node"), "{answer}");
    }
    assert_eq!(ask(address, status, &[host, token, ("Origin", "https://films.example")], b"").0, 403);
    assert_eq!(ask(address, status, &[host, token, ("Origin", "null")], b"").0, 403);
    assert_eq!(ask(address, status, &[("Host", "films.example"), token], b"").0, 421);
    assert_eq!(ask(address, "OPTIONS /local/v1/stop", &[host, ("Origin", "https://films.example")], b"").0, 403);
    // Garbage.
    let fetch = "POST /local/v1/contents";
    for (request, body, code) in [
        (fetch, &b"{"[..], 400),
        (fetch, b"\xff\x00\xfe", 400),
        (fetch, b"{}", 422),
        (fetch, b"{\"name\": 7}", 422),
        (fetch, b"{\"name\": \"hw://\", \"more\": 1}", 422),
        (fetch, b"{\"name\": \"http://films.example/\"}", 400),
        ("PUT /local/v1/log", b"{\"filter\": \"\"}", 400),
        ("PUT /local/v1/limits", b"{\"up_bytes_per_s\": 0}", 400),
        ("PUT /local/v1/limits", b"{\"up_bytes_per_s\": -1}", 422),
        ("POST /local/v1/pause", b"7", 422),
        ("DELETE /local/v1/contents/%00", b"", 404),
        ("DELETE /local/v1/contents/", b"", 404),
        ("POST /local/v1/status", b"", 405),
        ("GET /local/v2/status", b"", 404),
        ("GET /", b"", 404),
    ] {
        let (got, answer) = ask(address, request, &[host, token, json], body);
        assert_eq!(got, code, "{request} {:?}: {answer}", String::from_utf8_lossy(body));
    }
    assert_eq!(ask(address, fetch, &[host, token], b"{\"name\": \"hw://c/n\"}").0, 415);
    let deep = [b"{\"name\":".to_vec(), b"[".repeat(15_000)].concat();
    assert!(matches!(ask(address, fetch, &[host, token, json], &deep).0, 400 | 422));
    let huge = vec![b' '; 64 << 10];
    assert_eq!(ask(address, fetch, &[host, token, json], &huge).0, 413);
    assert_eq!(ask(address, fetch, &[host, token, json, ("Content-Length", "99999999999")], b"{").0, 413);
    let long = "a".repeat(20_000);
    assert!(matches!(ask(address, status, &[host, token, ("X-Long", &long)], b"").0, 400..=431));
    // It lives, and its token is in no log.
    assert_eq!(ask(address, status, &[host, token], b"").0, 200);
    assert!(!peer.said().contains(entry["token"].as_str().unwrap()));
}

#[cfg(unix)]
#[test]
fn systemd_hears_of_it_and_the_journal_reads_it() {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixDatagram;
    let site = Site::start("unlimited");
    let socket = site.path("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let hears = |what: &str| {
        let mut message = [0; 1024];
        loop {
            let n = systemd.recv(&mut message).unwrap_or_else(|e| panic!("{what} is not heard: {e}"));
            if String::from_utf8_lossy(&message[..n]).contains(what) {
                return;
            }
        }
    };
    // systemd names the stream by its file; here that is a plain one.
    let log = std::fs::File::create(site.path("home.err")).unwrap().metadata().unwrap();
    let stream = format!("{}:{}", log.dev(), log.ino());
    let variables = [("NOTIFY_SOCKET", socket.as_str()), ("WATCHDOG_USEC", "200000"), ("JOURNAL_STREAM", &stream)];
    let mut peer = site.peer_with(&variables, "home", &["--no-gateway"]);
    hears("READY=1");
    hears("STATUS=control center");
    hears("WATCHDOG=1");
    hears("WATCHDOG=1");
    peer.until("a session", |v| v["control"] == true);
    peer.stop();
    hears("STOPPING=1");
    assert_eq!(peer.code(), 0);
    let said = peer.said();
    assert!(said.lines().all(|l| l.starts_with("<6>") || l.starts_with("<4>")), "{said}");
    assert!(said.contains("<6>headwater_peer::node::control: session with the control center"), "{said}");
}
