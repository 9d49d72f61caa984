//! Two nodes that dial each other at the same moment end up with one connection.

use super::*;
use connections::dial;
use headwater_model::assignment::Reach;

/// A node whose control center never answers.
pub(super) async fn lonely(folder: &std::path::Path) -> Node {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = NodeConfig {
        role: Role::Peer,
        listen: "127.0.0.1:0".parse().unwrap(),
        dial_only: false,
        port_mapping: false,
        limits: Limits::default(),
        data: folder.to_owned(),
        steps_aside: StepsAside::Never,
        quota_bytes: None,
        pinned: BTreeSet::new(),
        control: "127.0.0.1:1".into(),
        control_id: None,
        join_token: None,
        viewer_token: None,
        sources: Sources::Any,
        proxy: None,
        https: None,
        gateway: None,
    };
    Node::start(config).await.unwrap()
}

fn dials(from: &Node, to: &Node, times: usize) {
    let certificate = to.0.listener.identity().certificate_hash;
    let reach = Reach { addresses: vec![to.address().unwrap(); times].into(), certificate };
    dial(&from.0, &mut from.0.lock(), to.id(), reach, Duration::ZERO);
}

fn link(at: &Node, with: &Node) -> Option<(u64, usize)> {
    let state = at.0.lock();
    state
        .links
        .get(&with.id())
        .filter(|l| l.connection.close_reason().is_none())
        .map(|l| (l.id, l.connection.stable_id()))
}

fn settled(at: &Node, with: &Node) -> bool {
    let state = at.0.lock();
    state.greeting.is_empty() && state.dialling.is_empty() && state.links.contains_key(&with.id())
}

pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Both ends use the same connection, and it carries messages both ways.
async fn one_connection(a: &Node, b: &Node) {
    until("both are linked", || settled(a, b) && settled(b, a)).await;
    let local = |n: &Node, other: &Node| {
        let state = n.0.lock();
        let l = &state.links[&other.id()].connection;
        (l.remote_address(), l.close_reason().is_none())
    };
    let (at_a, at_b) = (local(a, b), local(b, a));
    assert!(at_a.1 && at_b.1, "{at_a:?} {at_b:?}");
    let kept: usize = [a, b].iter().map(|n| n.0.lock().kept.len()).sum();
    assert_eq!(kept, 1, "one end decides");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_dial_at_the_same_moment() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (lonely(&folder.path().join("a")).await, lonely(&folder.path().join("b")).await);
    for round in 0..40 {
        // One first, the other first, both with several addresses.
        let (first, second) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        dials(first, second, 1 + round % 3);
        dials(second, first, 1 + round % 2);
        one_connection(&a, &b).await;
        let before = (link(&a, &b), link(&b, &a));
        // A dial that comes later changes nothing.
        let late = second.0.listener.dial(first.address().unwrap(), Some(first.id()), Alpn::Peer).await.unwrap();
        drop(late);
        assert_eq!((link(&a, &b), link(&b, &a)), before, "round {round}");
        // Also one whose handshake ends only now.
        let over = || {
            let close = |l: &state::Link| l.connection.close(0u32.into(), b"next round");
            [&a, &b].iter().for_each(|n| n.0.lock().links.values().for_each(close));
            [&a, &b].iter().all(|n| n.0.lock().kept.is_empty() && n.0.lock().links.is_empty())
        };
        until("both notice", over).await;
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_s_connection_replaces_the_dead_one() {
    let folder = tempfile::tempdir().unwrap();
    let a = lonely(&folder.path().join("a")).await;
    for round in 0..4 {
        let b = lonely(&folder.path().join("b")).await;
        dials(&a, &b, 1);
        dials(&b, &a, 1);
        one_connection(&a, &b).await;
        let old = link(&a, &b);
        // It comes again under the same identity, and nobody told `a` that the first one is gone.
        let again = lonely(&folder.path().join("b")).await;
        assert_eq!(again.id(), b.id());
        // Either dials: `a` was told of another certificate.
        let (first, second) = if round % 2 == 0 { (&again, &a) } else { (&a, &again) };
        dials(first, second, 1);
        until("the new one is used", || {
            link(&a, &again).is_some() && link(&a, &again) != old && link(&again, &a).is_some()
        })
        .await;
        again.stop().await;
        b.stop().await;
        until("it is gone", || link(&a, &again).is_none()).await;
        until("it is forgotten", || a.0.lock().links.is_empty() && a.0.lock().kept.is_empty()).await;
    }
    a.stop().await;
}
