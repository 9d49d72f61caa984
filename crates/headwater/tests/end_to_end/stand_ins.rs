//! What a publisher has for lightweight clients: who gets it, who gets the better one, and that both are told.

use crate::gateway::{MIB, ask};
use crate::live::{channel, has_gone_well, watch};
use crate::site::{Process, Site, check};
use serde_json::Value;

/// A film, and its smaller stand-in; the film's name.
fn publish(site: &Site) -> String {
    site.write("film", 6 * MIB, 51);
    site.write("small", 2 * MIB, 52);
    site.publish("small", &[]);
    site.publish("film", &["--lightweight", "small"])
}

/// The content of this name, at a peer that says `status`.
fn content<'a>(status: &'a Value, name: &str) -> &'a Value {
    let all = status["contents"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().find(|c| c["name"] == name).unwrap_or(&Value::Null)
}

fn until(peer: &Process, what: &str, name: &str, fit: impl Fn(&Value) -> bool) -> Value {
    content(&peer.until(what, |v| fit(content(v, name))), name).clone()
}

fn has_note(content: &Value, says: &str) -> bool {
    content["notes"].as_array().unwrap().iter().any(|n| n.as_str().unwrap().contains(says))
}

#[test]
fn a_peer_that_nobody_can_dial_gets_the_stand_in() {
    let site = Site::start("unlimited");
    let name = publish(&site);
    let (open, light) = (site.get(&name, "open", &[]), site.get(&name, "light", &["--dial-only"]));
    let (better, other) = (open.event("complete"), light.event("complete"));
    assert!(site.same("open", "film") && site.same("light", "small"));
    assert_eq!((&better["name"], &better["stands_in_for"]), (&"film".into(), &Value::Null));
    assert_eq!((&other["name"], &other["stands_in_for"]), (&"small".into(), &"film".into()));
    let why = "lightweight (nobody can connect to it): it gets \"small\" in place of \"film\"";
    assert!(has_note(&other, why) && !has_note(&better, "lightweight"), "{other:#} {better:#}");
    let film = site.api_json("contents/film");
    assert_eq!(film["lightweight"], "small");
    let members = film["swarm"]["members"].as_array().unwrap();
    assert!(members.len() == 1 && members[0]["lightweight"] == false, "{film:#}");

    // Found regular, it gets the better one with its next join, where the other one lies.
    let mut light = light;
    light.stop();
    assert_eq!(light.code(), 0);
    site.get(&name, "light", &[]).event("complete");
    assert!(site.same("light", "film"));

    // Nobody is sent on twice, nor anywhere without a control center.
    let (path, key, url) = (site.path("www/open"), site.path("key"), format!("{}/open", site.origin_url));
    site.write("open", 1000, 53);
    let third = ["publish", &path, "--origin", &url, "--name", "third", "--key", &key, "--lightweight", "film"];
    check(&[&third[..], &["--control", &site.api, "--token", &site.token]].concat(), 3, "nobody is sent on twice");
    check(&third, 2, "--control");
}

#[test]
fn programs_read_the_stand_in_where_they_look_for_the_film() {
    let site = Site::start("unlimited");
    let name = publish(&site);
    let arguments = ["--gateway", "127.0.0.1:0", "--fetch", &name];
    let mut light = site.peer("light", &[&arguments[..], &["--dial-only"]].concat());
    let film = until(&light, "the film", "film", |c| c["state"] == "replaced");
    assert!(has_note(&film, "in place of \"film\""), "{film:#}");
    let url = film["gateway"].as_str().unwrap();
    let small = std::fs::read(site.path("www/small")).unwrap();
    let got = ask("GET", &format!("{url}film"), &[]);
    assert!(got.status == 200 && got.body == small, "{}: {} bytes", got.status, got.body.len());
    let page = String::from_utf8(ask("GET", url, &[]).body).unwrap();
    assert!(page.contains("small") && !page.contains("film"), "{page}");
    let stand_in = until(&light, "its stand-in", "small", |c| c["complete"] == true);
    assert_eq!((&stand_in["stands_in_for"], &film["stand_in"]), (&"film".into(), &stand_in["content"]));

    // The next start goes on with both; as a regular peer it gets the film.
    light.stop();
    light.code();
    let light = site.peer("light", &["--gateway", "127.0.0.1:0", "--dial-only"]);
    until(&light, "the film", "film", |c| c["state"] == "replaced");
    let stand_in = until(&light, "its stand-in", "small", |c| c["complete"] == true);
    assert_eq!(stand_in["stands_in_for"], "film");
    // Who gives the film up gives up both, also for later.
    let data = site.path("light");
    check(&["forget", "film", "--data", &data], 0, "");
    light.until("nothing", |v| v["event"] == "status" && v["contents"].as_array().is_some_and(Vec::is_empty));
    assert_eq!(std::fs::read_dir(site.folder.path().join("light/contents")).unwrap().count(), 0);

    let open = site.peer("open", &arguments);
    let film = until(&open, "the film", "film", |c| c["complete"] == true);
    assert!(ask("GET", &format!("{}film", film["gateway"].as_str().unwrap()), &[]).body.len() == 6 * MIB);
}

#[test]
fn a_viewer_that_nobody_can_dial_watches_the_smaller_channel() {
    let site = Site::start("unlimited");
    let Some(_encoder) = channel(&site, "mpegts") else { return };
    let rate = ["--rate", "1Mbit/s"];
    let small = site.publish_live_as("small-publisher", "channel-small", &rate);
    small.event("active");
    let publisher = site.publish_live("publisher", &[&rate[..], &["--lightweight", "channel-small"]].concat());
    let name = publisher.event("started")["hw"].as_str().unwrap().to_owned();
    publisher.event("active");
    let gateway = ["--gateway", "127.0.0.1:0", "--up", "3Mbit/s"];
    let open = site.peer("viewer-0", &gateway);
    let light = site.peer("viewer-1", &[&gateway[..], &["--dial-only"]].concat());
    for peer in [&open, &light] {
        peer.until("a session", |v| v["control"] == true);
    }
    has_gone_well(&watch(&site, &name, 0..2, "8"));
    let much = |c: &Value| c["peer_bytes"].as_u64().is_some_and(|n| n > 180_000);
    until(&light, "much of the smaller one", "channel-small", much);
    let status = light.until("a status", |v| v["event"] == "status");
    assert_eq!(content(&status, "channel")["state"], "replaced", "{status:#}");
    until(&open, "much of the channel", "channel", much);
    let status = open.until("a status", |v| v["event"] == "status");
    assert_eq!(content(&status, "channel-small"), &Value::Null, "{status:#}");
}
