//! Contents: published, joined, kept, lost and restored, withdrawn, restricted.

use crate::harness::*;
use base64::Engine;
use headwater_model::assignment::Refusal;
use headwater_model::report::{self, ContentReport};
use headwater_model::{Bits, Hash, Priority, Ticket, merkle};
use headwater_transport::Identity;
use headwater_wire::{FromControl, FromNode, Heartbeat};
use serde_json::json;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn a_swarm_from_publishing_to_explaining() {
    let control = Control::start().await;
    let film = sample("films/one", 1, 7, 1000);
    let reply = control.publish(&film).await;
    let expected = json!({
        "content": film.version.content.to_string(), "name": "films/one", "epoch": 7, "bytes": 4_096_000,
        "pieces": 1000, "objects": 1,
        "hw": format!("hw://{}/films/one#key={}&cc={}", control.address, film.key, control.node),
    });
    assert_eq!(reply, expected);

    // The first node gets leases; it holds everything at once, as heartbeats say.
    let (mut seed, welcome) = Node::arrive_as(&control, Arc::new(Identity::ephemeral().unwrap()), hello()).await;
    assert!(welcome.observed_address.unwrap().ip().is_loopback());
    assert_eq!((welcome.heartbeat_ms, welcome.backoff_cap_ms), (2000, 2000));
    // The present key and the one before; shortly before a change, the next one too.
    assert!((2..=3).contains(&welcome.parent_keys.len()));
    let (log, access) = seed.joined(newest(film.version.content), false).await;
    assert_eq!((log, access), (film.file.log.clone(), Default::default()));
    let lease = seed.wait(|m| if let FromControl::Lease { lease, .. } = m { Some(lease) } else { None }).await;
    assert_eq!(lease.version, film.version);
    let runs = film.file.log.verify("films/one", None).unwrap().layout.runs();
    let content = ContentReport {
        version: film.version,
        runs: Some(Bits::full(runs)),
        pieces_held: 1000,
        origin_bytes: 4_096_000,
        wasted_bytes: 0,
        from: vec![],
        to: vec![],
        priority: Priority::Normal,
        live: None,
    };
    let heartbeat = report::Heartbeat { interval: 1, contents: vec![content], ..Default::default() };
    seed.say(FromNode::Heartbeat(Heartbeat::new(heartbeat, 42))).await;
    let echo = seed
        .wait(|m| if let FromControl::HeartbeatReply { echo_local_us, .. } = m { Some(echo_local_us) } else { None })
        .await;
    assert_eq!(echo, 42);

    // The second one gets the first as parent, with a ticket that the first accepts.
    let mut child = control.arrive().await;
    child.joined(film.version, false).await;
    let (assignment, tickets) = child
        .wait(|m| match m {
            FromControl::Assignment { assignment, tickets, .. } if !assignment.parents.is_empty() => {
                Some((assignment, tickets))
            }
            _ => None,
        })
        .await;
    assert_eq!(assignment.parents[0].node, seed.identity.node);
    assert_eq!(assignment.parents[0].reach.certificate, seed.identity.certificate_hash);
    assert_eq!(assignment.generation.epoch, welcome.control_epoch);
    let (given, nonce) = (&tickets[0], [9; 32]);
    assert_eq!(given.ticket.highest_piece, 999);
    let certificate = &seed.identity.certificate_hash;
    let proof = Ticket::prove(&given.secret.0, &nonce, certificate);
    let (child_id, seed_id) = (child.identity.node, seed.identity.node);
    let now = welcome.control_unix_ms;
    let accepted = given.ticket.check(&welcome.parent_keys, &child_id, &seed_id, now, &proof, &nonce, certificate);
    assert_eq!(accepted, Ok(()));

    // What operators see.
    let listed = control.get("/v1/contents").await;
    assert_eq!((&listed[0]["members"], &listed[0]["complete"]), (&json!(2), &json!(1)));
    assert_eq!(listed[0]["origin_bytes"], 4_096_000);
    let shown = control.get("/v1/contents/films/one").await;
    assert_eq!(shown, control.get(&format!("/v1/contents/{}", film.version.content)).await);
    let members = shown["swarm"]["members"].as_array().unwrap();
    let of_child = members.iter().find(|m| m["node"] == child_id.to_string()).unwrap();
    assert_eq!(of_child["parents"], json!([seed_id.to_string()]));
    let nodes = control.get("/v1/nodes").await;
    assert_eq!(nodes.as_array().unwrap().len(), 2);
    assert_eq!((&nodes[0]["enrolled"], &nodes[0]["accepts_from"]), (&json!(true), &json!("claim")));
    let node = control.get(&format!("/v1/nodes/{seed_id:.10}")).await;
    assert_eq!(node["downloads"][0]["origin_bytes"], 4_096_000);
    let explained = control.get(&format!("/v1/explain?client={child_id:.12}&content=films/one")).await;
    let words = explained["words"].as_str().unwrap();
    let begin = format!("{child_id:.8} asked for parents in \"films/one\" 0 s ago because it joined, and wanted ");
    assert!(words.starts_with(&begin), "{words}");
    let chosen = format!("1. {seed_id:.8}: peer, same LAN, ");
    assert!(words.contains(&chosen) && words.contains("(chosen)"), "{words}");
    assert!(words.ends_with(&format!("Its parents now: {seed_id:.8}.")), "{words}");
    assert_eq!(explained["ranked"][0]["tier"], "lan");
    let status = control.get("/v1/status").await;
    assert_eq!((&status["sessions"], &status["totals"]["joins"]), (&json!(2), &json!(2)));
    assert_eq!(status["totals"]["lightweight_pairs"], 0);
    let transfers = control.get("/v1/transfers?limit=5").await;
    assert_eq!((&transfers[0]["title"], &transfers[0]["complete"]), (&json!("films/one"), &json!(true)));
    let events = control.get("/v1/events").await;
    assert_eq!(events["events"][0]["text"], "films/one (epoch 7) is published");
    let later = control.get(&format!("/v1/events?after={}", events["next"])).await;
    assert_eq!(later["events"], json!([]));
    let metrics = control.get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains("headwater_control_sessions 2\n"), "{metrics}");
    let document = control.get("/v1/openapi.json").await;
    assert!(document["paths"]["/v1/explain"]["get"].is_object());
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_prove_the_log() {
    let control = Control::start().await;
    let film = sample("film", 1, 1, 1300);
    control.publish(&film).await;
    let mut node = control.arrive().await;
    for number in [2, 0, 1, 1] {
        let page = node.page(film.version, number).await.unwrap();
        assert!(page.number == number && page.is_true(1300, &film.root, Some(&film.sums_root)));
    }
    assert_eq!(node.page(film.version, 3).await, None, "past the end");
    assert_eq!(node.page(sample("other", 1, 1, 9).version, 0).await, None, "unknown content");
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_outlive_a_restart() {
    let control = Control::start().await;
    let (film, gone) = (sample("film", 1, 5, 600), sample("gone", 1, 5, 10));
    control.publish(&film).await;
    control.publish(&gone).await;
    let (status, reply) = control.call("DELETE", "/v1/contents/gone", &control.token, vec![]).await;
    assert_eq!((status, &reply["name"]), (200, &json!("gone")));
    let (mut node, welcome) = Node::arrive_as(&control, Arc::new(Identity::ephemeral().unwrap()), hello()).await;
    let (id, token) = (control.node, control.token.clone());
    let stopping = tokio::spawn(control.stop());
    let (why, come_back) = node.goodbye().await;
    assert!(come_back && why.contains("should be back"), "{why}");
    let control = Control::start_in(stopping.await.unwrap()).await.unwrap();
    assert_eq!((control.node, &control.token), (id, &token));
    let (mut node, again) = Node::arrive_as(&control, node.identity.clone(), hello()).await;
    assert!(again.control_epoch > welcome.control_epoch);
    node.joined(film.version, false).await;
    assert!(node.page(film.version, 1).await.unwrap().is_true(600, &film.root, Some(&film.sums_root)));
    assert_eq!(node.refused(gone.version, "").await, Refusal::Unpublished);
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_comes_back_by_announcements() {
    let control = Control::start().await;
    let film = sample("film", 1, 5, 1300);
    let secret = sample("secret", 1, 5, 10);
    control.publish(&film).await;
    control.publish_with(&secret, "?audience=tokens").await;
    let folder = control.stop().await;
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();

    let control = Control::start_in(folder).await.unwrap();
    assert_eq!(control.get("/v1/contents").await, json!([]));
    let (mut holder, mut asker) = (control.arrive().await, control.arrive().await);
    assert_eq!(asker.refused(film.version, "").await, Refusal::UnknownContent);
    let stranger = sample("film 2", 9, 5, 10);
    let mut forged = film.file.log.clone();
    forged.entries[0].entry.epoch = 99;
    for log in [&stranger.file.log, &forged, &secret.file.log, &film.file.log] {
        holder.say(FromNode::Announce(log.clone())).await;
    }
    // Messages of a session are handled in their order.
    holder.joined(film.version, true).await;
    let listed = control.get("/v1/contents").await;
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|c| (&c["name"], &c["epoch"], &c["audience"])).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.contains(&(&json!("film"), &json!(5), &json!("open"))));
    assert!(names.contains(&(&json!("secret"), &json!(5), &json!("tokens"))), "{names:?}");
    assert!(matches!(asker.refused(secret.version, "").await, Refusal::NotPermitted(_)));

    // Pages come from the node that has them; a false one is not passed on.
    asker.joined(film.version, false).await;
    let pages = merkle::cut_pages(&film.file.leaves, &film.file.sums);
    for (number, page) in pages.iter().enumerate() {
        asker.say(FromNode::PageRequest { version: film.version, page: number as u32 }).await;
        let wanted =
            holder.wait(|m| if let FromControl::PageRequest { page, .. } = m { Some(page) } else { None }).await;
        assert_eq!(wanted as usize, number);
        holder.say(FromNode::Page { version: film.version, page: page.clone() }).await;
        let got = asker.wait(|m| if let FromControl::Page { page, .. } = m { Some(page) } else { None }).await;
        assert_eq!(got, *page);
    }
    // Once all are back, they are kept: nobody is asked again, also after a restart.
    assert!(asker.page(film.version, 0).await.is_some());
    let control = Control::start_in(control.stop().await).await.unwrap();
    let mut asker = control.arrive().await;
    assert!(asker.page(film.version, 2).await.unwrap().is_true(1300, &film.root, Some(&film.sums_root)));
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_page_is_not_passed_on() {
    let control = Control::start().await;
    let film = sample("film", 1, 5, 700);
    control.publish(&film).await;
    let folder = control.stop().await;
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    let control = Control::start_in(folder).await.unwrap();
    let (mut liar, mut asker) = (control.arrive().await, control.arrive().await);
    liar.say(FromNode::Announce(film.file.log.clone())).await;
    liar.joined(film.version, true).await;
    asker.say(FromNode::PageRequest { version: film.version, page: 0 }).await;
    liar.wait(|m| matches!(m, FromControl::PageRequest { .. }).then_some(())).await;
    let mut page = merkle::cut_pages(&film.file.leaves, &film.file.sums).remove(0);
    page.leaves[3] = Hash::default();
    liar.say(FromNode::Page { version: film.version, page }).await;
    asker.wait(|m| matches!(m, FromControl::PageUnavailable { page: 0, .. }).then_some(())).await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_names_and_keys() {
    let control = Control::start().await;
    let publish = async |s: &Sample| control.call("POST", "/v1/contents", &control.token, s.file.encode()).await;
    let (old, new) = (sample("film", 1, 5, 10), sample("film", 1, 6, 20));
    assert_eq!(publish(&old).await.0, 201);
    assert_eq!(publish(&old).await.0, 201, "again the same");
    let mut node = control.arrive().await;
    node.joined(old.version, false).await;
    assert_eq!(publish(&new).await.0, 201);
    let why = node.wait(|m| if let FromControl::Withdrawn { why, .. } = m { Some(why) } else { None }).await;
    assert_eq!(why, "a newer version was published");
    assert_eq!(node.refused(old.version, "").await, Refusal::OtherVersion { current: 6 });
    for (sample, says) in [
        (&old, "epoch 6 is published already"),
        (&sample("film", 1, 6, 30), "with other objects already"),
        (&sample("film", 2, 7, 10), "is taken"),
    ] {
        let (status, reply) = publish(sample).await;
        assert_eq!(status, 409);
        assert!(reply["error"].as_str().unwrap().contains(says), "{reply}");
    }
    let mut broken = sample("x", 1, 1, 10);
    broken.file.leaves[0] = Hash::default();
    for (body, says) in [(broken.file.encode(), "is not true"), (b"garbage".to_vec(), "no static log")] {
        let (status, reply) = control.call("POST", "/v1/contents", &control.token, body).await;
        assert_eq!(status, 400);
        assert!(reply["error"].as_str().unwrap().contains(says), "{reply}");
    }
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_go_to_those_who_may_have_them() {
    let control = Control::start().await;
    let (shared, kept) = (sample("shared", 1, 1, 10), sample("kept", 1, 1, 10));
    let access = json!({"headers": [["authorization", "Basic c2VjcmV0"]], "query": "sig=1"}).to_string();
    let access = base64::engine::general_purpose::STANDARD.encode(access);
    let headers = [("x-headwater-origin-access", access.as_str())];
    for (content, share) in [(&shared, true), (&kept, false)] {
        let path = format!("/v1/contents?share_origin_credentials={share}");
        let (status, reply) = control.call_with("POST", &path, &control.token, content.file.encode(), &headers).await;
        assert_eq!(status, 201, "{reply}");
    }
    let bad = [("x-headwater-origin-access", "c2VjcmV0")];
    let (status, reply) = control.call_with("POST", "/v1/contents", &control.token, kept.file.encode(), &bad).await;
    assert!(status == 400 && !reply.to_string().contains("secret"), "{reply}");
    // Also after a restart.
    let control = Control::start_in(control.stop().await).await.unwrap();
    let mut node = control.arrive().await;
    let (_, given) = node.joined(shared.version, false).await;
    assert_eq!(given.headers, [("authorization".to_owned(), "Basic c2VjcmV0".to_owned())]);
    assert_eq!(given.query, "sig=1");
    let (_, given) = node.joined(kept.version, false).await;
    assert_eq!(given, Default::default());
    let mut waypoint = hello();
    waypoint.introduction.role = headwater_model::Role::Waypoint;
    let (mut waypoint, _) = Node::arrive_as(&control, Arc::new(Identity::ephemeral().unwrap()), waypoint).await;
    waypoint.wait(|m| matches!(m, FromControl::Fetch { .. }).then_some(())).await;
    let (_, given) = waypoint.joined(kept.version, false).await;
    assert_eq!(given.query, "sig=1");
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lightweight_clients_get_what_the_publisher_has_for_them() {
    let control = Control::start().await;
    let (film, small) = (sample("film", 1, 1, 10), sample("small", 1, 1, 5));
    let refused = async |sample: &Sample, stand_in: &str, says: &str| {
        let path = format!("/v1/contents?lightweight={stand_in}");
        let (status, reply) = control.call("POST", &path, &control.token, sample.file.encode()).await;
        assert!(status == 400 && reply["error"].as_str().unwrap().contains(says), "{status}: {reply}");
    };
    refused(&film, "small", "publish that first").await;
    control.publish(&small).await;
    // Of another publisher, of the same name.
    refused(&sample("other", 2, 1, 10), "small", "publish that first").await;
    refused(&film, "film", "itself").await;
    control.publish_with(&film, "?lightweight=small").await;
    refused(&sample("third", 1, 1, 10), "film", "nobody is sent on twice").await;
    control.publish(&sample("third", 1, 1, 10)).await;
    refused(&small, "third", "nobody is sent on twice").await;

    // Also after a restart.
    let control = Control::start_in(control.stop().await).await.unwrap();
    let listed = control.get("/v1/contents/film").await;
    assert_eq!((&listed["lightweight"], listed["members"].as_u64()), (&json!("small"), Some(0)));
    let mut dial_only = hello();
    dial_only.introduction.capabilities = headwater_model::Capabilities::regular(headwater_model::Accepts::DialOnly);
    let (mut light, _) = Node::arrive_as(&control, Arc::new(Identity::ephemeral().unwrap()), dial_only).await;
    let lacks = headwater_model::Lacks::Connections;
    let expected = Refusal::Lightweight { stand_in: "small".into(), lacks };
    assert_eq!(light.refused(newest(film.version.content), "").await, expected);
    light.joined(newest(small.version.content), false).await;
    control.arrive().await.joined(newest(film.version.content), false).await;

    // A newer version that another node brings keeps the terms; its publisher can take them back.
    let next = sample("film", 1, 2, 10);
    let mut holder = control.arrive().await;
    holder.say(FromNode::Announce(next.file.log.clone())).await;
    holder.joined(next.version, true).await;
    assert_eq!(light.refused(newest(film.version.content), "").await, expected);
    control.publish(&next).await;
    light.joined(newest(film.version.content), false).await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_need_tokens_where_the_publisher_says_so() {
    let control = Control::start().await;
    let film = sample("paid/film", 1, 1, 10);
    control.publish_with(&film, "?audience=tokens").await;
    let good = control.make_token(r#"{"role":"viewer","names":["paid/*"],"days":1}"#).await;
    let other = control.make_token(r#"{"role":"viewer","names":["free/*"],"days":1}"#).await;
    let mut node = control.arrive().await;
    for (token, says) in [("", "--viewer-token"), (other.as_str(), "ask its publisher"), ("x", "not one of this")] {
        match node.refused(film.version, token).await {
            Refusal::NotPermitted(why) => assert!(why.contains(says), "{why}"),
            other => panic!("{other}"),
        }
    }
    assert_eq!(node.page(film.version, 0).await, None, "nor its hashes");
    node.join_as(film.version, false, &good).await;
    node.wait(|m| matches!(m, FromControl::Content { .. }).then_some(())).await;
    assert!(node.page(film.version, 0).await.is_some());
    control.stop().await;
}
