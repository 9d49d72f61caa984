//! Hosts that UDP does not reach, proxies, and access lists. UDP is out of reach here because what `get` takes for the
//! control center's address is a forwarder of TCP alone.

use crate::site::{Site, check, run};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Copies bytes both ways until one side ends.
fn join(a: TcpStream, b: TcpStream) {
    let (mut from, mut to) = (a.try_clone().unwrap(), b.try_clone().unwrap());
    let there = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let (mut from, mut to) = (b, a);
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Write);
    let _ = there.join();
}

fn serve(each: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let each = Arc::new(each);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let each = each.clone();
            std::thread::spawn(move || each(stream));
        }
    });
    address
}

/// Forwards TCP to `to`; nothing listens on its UDP port.
fn forwarder(to: &str) -> SocketAddr {
    let to = to.to_owned();
    serve(move |stream| {
        if let Ok(there) = TcpStream::connect(&to) {
            join(stream, there);
        }
    })
}

/// An HTTP proxy, with the first lines of what it was asked.
fn proxy() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let said = asked.clone();
    let address = serve(move |mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
            head.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let line = text.lines().next().unwrap_or_default().to_owned();
        let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        said.lock().unwrap().push(line.clone());
        let host = target.trim_start_matches("http://").split('/').next().unwrap_or_default();
        let Ok(mut there) = TcpStream::connect(host) else { return };
        if line.starts_with("CONNECT ") {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        } else {
            there.write_all(&head).unwrap();
        }
        join(stream, there);
    });
    (address, asked)
}

/// The name with another address of the control center.
fn by_way_of(name: &str, control: &str, other: SocketAddr) -> String {
    assert!(name.contains(control), "{name} {control}");
    name.replace(control, &other.to_string())
}

const MIB: usize = 1 << 20;

#[test]
fn without_udp_a_file_comes_from_origin_and_waypoint() {
    let site = Site::start("unlimited");
    site.write("film", 12 * MIB, 11);
    let waypoint = site.peer("waypoint", &["--waypoint", "--https", "127.0.0.1:0"]);
    waypoint.until("a session", |v| v["control"] == true);
    let name = site.publish("film", &[]);
    waypoint.until("the content", |v| v["contents"][0]["complete"] == true);
    let peer = site.get(&name, "peer", &[]);
    peer.event("complete");

    let walled = by_way_of(&name, &site.control_address, forwarder(&site.control_address));
    let reader = site.get(&walled, "walled", &[]);
    let started = reader.event("started");
    let done = reader.event("complete");
    assert!(site.same("walled", "film"));
    let bytes = |what: &str| done[what].as_u64().unwrap();
    assert_eq!(bytes("peer_bytes"), 0);
    assert!(bytes("waypoint_bytes") > 0, "{done}");
    assert_eq!(bytes("waypoint_bytes") + bytes("origin_bytes"), 12 << 20, "{done}");
    assert!(done["notes"].to_string().contains("UDP does not get through here"), "{done}");
    // Said so by the control center too.
    let node = started["node"].as_str().unwrap();
    let shown = site.api_json(&format!("nodes/{node}"));
    assert_eq!((&shown["udp"], &shown["limited"]), (&false.into(), &"no UDP (found by test)".into()), "{shown}");
    let explained = site.api_json(&format!("explain?client={node}&content=film"));
    assert!(explained["words"].to_string().contains("sources are limited"), "{explained}");
    check(&["status", "--control", &site.api, "--token", &site.token], 0, "limited: no UDP (found by test)");
}

#[test]
fn without_udp_a_proxy_is_enough() {
    let site = Site::start_at("unlimited", "0.0.0.0:0");
    site.write("film", 6 * MIB, 12);
    let port = site.control_address.rsplit(':').next().unwrap();
    let control = format!("127.0.0.1:{port}");
    let waypoint = site.peer_of(&control, "waypoint", &["--waypoint", "--https", "127.0.0.1:0"]);
    let https = waypoint.event("started")["https_port"].as_u64().unwrap();
    waypoint.until("a session", |v| v["control"] == true);
    let name = site.publish("film", &["--cc", &site.control_id]);
    waypoint.until("the content", |v| v["contents"][0]["complete"] == true);

    let (proxy, asked) = proxy();
    let (proxy_url, forwarder) = (format!("http://{proxy}"), forwarder(&control));
    let walled = by_way_of(&name, &control, forwarder);
    let done = site.get(&walled, "walled", &["--proxy", &proxy_url]).event("complete");
    assert!(site.same("walled", "film"));
    assert!(done["waypoint_bytes"].as_u64() > Some(0), "{done}");
    assert!(done["control"] == true, "{done}");
    let asked = asked.lock().unwrap().join("\n");
    assert!(asked.contains(&format!("CONNECT {forwarder} ")), "the control center: {asked}");
    assert!(asked.contains(&format!("CONNECT 127.0.0.1:{https} ")), "the waypoint: {asked}");
}

#[test]
fn an_access_list_is_kept_to() {
    let site = Site::start("unlimited");
    site.write("film", 8 * MIB, 13);
    let name = site.publish("film", &[]);
    site.get(&name, "peer", &[]).event("complete");
    let peer = site.get(&name, "second", &[]);
    peer.event("complete");
    let waypoint = site.peer("waypoint", &["--waypoint"]);
    waypoint.until("the content", |v| v["contents"][0]["complete"] == true);

    let listed = site.get(&name, "listed", &["--sources", "operator"]);
    let node = listed.event("started")["node"].as_str().unwrap().to_owned();
    let done = listed.event("complete");
    assert!(site.same("listed", "film"));
    assert_eq!(done["peer_bytes"], 0, "{done}");
    assert!(done["notes"].to_string().contains("access list"), "{done}");
    let shown = site.api_json(&format!("nodes/{node}"));
    assert_eq!((&shown["sources"], &shown["limited"]), (&"listed".into(), &"access list (its configuration)".into()));
    check(&["status", "--control", &site.api, "--token", &site.token], 0, "limited: access list (its configuration)");

    // Nobody's address is on this list, the origin's neither.
    let nobody = site.get(&name, "nobody", &["--sources", "192.0.2.0/24"]);
    let said = nobody.until("a refusal", |v| v["notes"].to_string().contains("not on this node's access list"));
    assert_eq!((&said["bytes"], &said["origin_bytes"]), (&0.into(), &0.into()), "{said}");
    // And all of them are on this one.
    let done = site.get(&name, "local", &["--sources", "192.0.2.0/24,127.0.0.0/8"]).event("complete");
    assert_eq!(done["peer_bytes"], 0, "{done}");
    assert!(site.same("local", "film"));
    assert_eq!(run(&["get", &name, "--sources", "nonsense"]).status.code(), Some(2));
}
