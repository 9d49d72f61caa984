//! Sessions: who is let in, who is sent away, and with which words.

use crate::harness::*;
use bytes::{BufMut, Bytes, BytesMut};
use headwater_model::assignment::Refusal;
use headwater_model::log::Object;
use headwater_model::report;
use headwater_transport::Identity;
use headwater_wire::{FromControl, FromNode, Heartbeat, Join, Token};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

fn identity() -> Arc<Identity> {
    Arc::new(Identity::ephemeral().unwrap())
}

fn heartbeat(interval: u64) -> Bytes {
    FromNode::Heartbeat(Heartbeat::new(report::Heartbeat { interval, ..Default::default() }, 0)).encode()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_beginnings_end_with_a_reason() {
    let control = Control::start().await;
    let mut newer = hello();
    newer.protocol += 1;
    let mut oversized = BytesMut::new();
    oversized.put_u32(u32::MAX);
    let mut garbage = BytesMut::new();
    garbage.put_u32(5);
    garbage.put_slice(b"\xff\xff\xff\xff\xff");
    for (bytes, says) in [
        (FromNode::Bye.encode(), "first message must be a hello"),
        (FromNode::Hello(newer).encode(), "speaks protocol 2, this control center protocol 1"),
        (oversized.freeze(), "a frame of 4294967295 bytes"),
        (garbage.freeze(), "malformed"),
    ] {
        let mut node = Node::connect(&control, identity()).await;
        node.raw(bytes).await;
        let (why, come_back) = node.goodbye().await;
        assert!(why.contains(says) && !come_back, "{why}");
    }
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_end_the_session_with_a_reason() {
    let control = Control::start().await;
    let film = sample("film", 1, 1, 1000);
    control.publish(&film).await;
    let past_the_end = report::Join { runs: Some(headwater_model::Bits::full(2000)), ..report::Join::to(film.version) };
    let past_the_end = FromNode::Join(headwater_wire::Join::new(past_the_end, Default::default())).encode();
    let mut oversized = BytesMut::new();
    oversized.put_u32(6 << 20);
    for (bytes, says) in [
        (past_the_end, "past the content's end"),
        (FromNode::Hello(hello()).encode(), "a second hello"),
        (oversized.freeze(), "5242880 is the limit"),
        (Bytes::from_static(b"\0\0\0\x03\x0a\x7f\0"), "past the message's end"),
    ] {
        let mut node = control.arrive().await;
        node.raw(bytes).await;
        let (why, come_back) = node.goodbye().await;
        assert!(why.contains(says) && !come_back, "{why}");
    }
    let events = control.get("/v1/events").await.to_string();
    assert!(events.contains("a second hello"), "{events}");
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_messages_ends_the_session() {
    let control = Control::start().await;
    let mut node = control.arrive().await;
    // More than a burst and what is allowed meanwhile: the sender needs some milliseconds for them.
    let nothing = FromNode::Leave(sample("nothing", 1, 1, 1).version).encode();
    let flood: Vec<u8> = (0..50_000).flat_map(|_| nothing.clone()).collect();
    // The control center may close while the flood is still on its way.
    let _ = node.writer.send(flood.into()).await;
    let (why, _) = node.goodbye().await;
    assert!(why.contains("more than 2000 messages per second"), "{why}");
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_read_loses_its_session() {
    let control = Control::start().await;
    let object = |i| Object { path: format!("{i}/{}", "x".repeat(900)), media_type: String::new(), size_bytes: 1 };
    let large = sample_of("large", 1, 1, (0..1000).map(object).collect());
    control.publish(&large).await;
    let mut node = control.arrive().await;
    // Each answer is a log of 900 kB: they fill what the connection takes, then the queue.
    for _ in 0..1500 {
        let join = report::Join::to(large.version);
        let join = FromNode::Join(headwater_wire::Join::new(join, Default::default())).encode();
        if node.writer.send(join).await.is_err() {
            break;
        }
    }
    // The reason itself may get lost in what the node did not read.
    soon("the end", node.connection.closed()).await;
    let events = control.get("/v1/events").await.to_string();
    assert!(events.contains("reads too slowly"), "{events}");
    let mut other = control.arrive().await;
    other.joined(large.version, false).await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_session_of_an_identity_wins_and_a_fight_ends_both() {
    let control = Control::start().await;
    let identity = identity();
    let mut first = Node::arrive(&control, identity.clone()).await;
    let mut second = Node::arrive(&control, identity.clone()).await;
    let (why, come_back) = first.goodbye().await;
    assert!(why.contains("newer process") && !come_back, "{why}");
    // The second one is served.
    second.raw(heartbeat(1)).await;
    second.wait(|m| matches!(m, FromControl::HeartbeatReply { .. }).then_some(())).await;
    assert_eq!(control.get("/v1/status").await["sessions"], 1);
    let mut third = Node::arrive(&control, identity.clone()).await;
    second.goodbye().await;
    let mut fourth = Node::connect(&control, identity.clone()).await;
    fourth.say(FromNode::Hello(hello())).await;
    for node in [&mut third, &mut fourth] {
        let (why, come_back) = node.goodbye().await;
        assert!(why.contains("data folder of its own") && !come_back, "{why}");
    }
    assert_eq!(control.get("/v1/status").await["sessions"], 0);
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_contents_are_refused() {
    let control = Control::start().await;
    let mut node = control.arrive().await;
    assert_eq!(node.refused(sample("nothing", 1, 1, 1).version, "").await, Refusal::UnknownContent);
    node.say(FromNode::Bye).await;
    soon("the end", node.connection.closed()).await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_a_node_has_seen_is_passed() {
    let control = Control::start().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let epoch_after = async |seen| {
        let hello = headwater_wire::Hello { control_epoch_seen: seen, ..hello() };
        Node::arrive_as(&control, identity(), hello).await.1.control_epoch
    };
    let before = epoch_after(0).await;
    assert_eq!(epoch_after(before - 1).await, before);
    let ahead = now + 3_600_000;
    assert_eq!(epoch_after(ahead).await, ahead + 1);
    assert_eq!(epoch_after(now + 7 * 24 * 3_600_000).await, ahead + 1, "too far ahead to be true");
    // It is kept.
    let control = Control::start_in(control.stop().await).await.unwrap();
    assert_eq!(control.get("/v1/status").await["epoch"], ahead + 2);
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_first_gets_log_and_pages_and_takes_part_later() {
    let control = Control::start().await;
    let film = sample("film", 1, 5, 600);
    control.publish(&film).await;
    let mut node = control.arrive().await;
    let looks = report::Join { looks_first: true, ..report::Join::to(newest(film.version.content)) };
    node.say(FromNode::Join(Join::new(looks, Token::default()))).await;
    node.say(FromNode::PageRequest { version: film.version, page: 1 }).await;
    let part = |m: &FromControl| matches!(m, FromControl::Lease { .. } | FromControl::Assignment { .. });
    loop {
        let message = node.next().await.unwrap();
        assert!(!part(&message), "it takes no part yet: {message:?}");
        if matches!(message, FromControl::Page { .. }) {
            break;
        }
    }
    node.join_as(film.version, false, "").await;
    node.wait(|m| matches!(m, FromControl::Lease { .. }).then_some(())).await;
    control.stop().await;
}
