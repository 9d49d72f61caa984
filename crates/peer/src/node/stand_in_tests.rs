//! What the control center says of lightweight clients, told to a node; also what it should never say.

use super::*;
use crate::node::merging_tests::{lonely, until};
use crate::node::{Fetch, FetchError, Node};
use headwater_model::assignment::Refusal;
use headwater_model::{NodeId, Version};

fn named(name: &str) -> Name {
    let node = NodeId([3; 32]);
    format!("hw://cc.example:7400/{name}#key={}&log=http://cdn.example/log&cc={node}", "ab".repeat(32)).parse().unwrap()
}

fn refuse(node: &Node, name: &str, stand_in: &str) {
    let version = Version { content: named(name).content(), epoch: 0 };
    let refusal = Refusal::Lightweight { stand_in: stand_in.into(), lacks: Lacks::Connections };
    let message = headwater_wire::FromControl::Refused { version, refusal };
    crate::node::messages::from_control(&node.0, &mut node.0.lock(), message);
}

fn states(node: &Node) -> Vec<(String, String)> {
    let mut all: Vec<_> = node.contents().into_iter().map(|c| (c.name, c.state)).collect();
    all.sort();
    all
}

fn two(a: (&str, &str), b: (&str, &str)) -> Vec<(String, String)> {
    [a, b].map(|(name, state)| (name.to_owned(), state.to_owned())).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_goes_over_once() {
    let folder = tempfile::tempdir().unwrap();
    let node = lonely(folder.path()).await;
    let mut content = node.fetch(Fetch::kept(named("film")));
    // Said twice, as after two joins.
    refuse(&node, "film", "small");
    refuse(&node, "film", "small");
    until("the stand-in", || content.status().name == "small").await;
    assert_eq!(states(&node), two(("film", "replaced"), ("small", "asking")));
    let own = node.0.lock().contents[&named("small").content()].name.clone().unwrap();
    assert_eq!(own, Name { log: None, ..named("small") }, "of the same publisher, at the same control center");
    // And nobody is sent on twice: whoever waits for the film learns why there is nothing.
    refuse(&node, "small", "third");
    let refused = content.complete().await.unwrap_err();
    assert!(matches!(&refused, FetchError::Refused(Refusal::Lightweight { .. })), "{refused}");
    assert_eq!(states(&node), two(("film", "replaced"), ("small", "failed")));

    // Asked for again, the film may be had by now.
    node.fetch(Fetch::kept(named("film")));
    assert_eq!(states(&node), two(("film", "asking"), ("small", "failed")));
    refuse(&node, "film", "small");
    until("the stand-in again", || states(&node) == two(("film", "replaced"), ("small", "asking"))).await;

    // Given up together, but for what the user asked for as well.
    node.forget(named("film").content()).await.unwrap();
    assert!(states(&node).is_empty());
    node.fetch(Fetch::kept(named("small")));
    node.fetch(Fetch::kept(named("film")));
    refuse(&node, "film", "small");
    until("the film to be replaced", || content_state(&node, "film") == "replaced").await;
    node.forget(named("film").content()).await.unwrap();
    assert_eq!(states(&node), [("small".to_owned(), "asking".to_owned())]);
    node.stop().await;
}

fn content_state(node: &Node, name: &str) -> String {
    states(node).into_iter().find(|(n, _)| n == name).map(|(_, state)| state).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_would_replace_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = lonely(folder.path()).await;
    let mut content = node.fetch(Fetch::kept(named("film")));
    refuse(&node, "film", "film");
    assert!(content.complete().await.is_err());
    assert_eq!(states(&node), [("film".to_owned(), "failed".to_owned())]);
    node.stop().await;
}
