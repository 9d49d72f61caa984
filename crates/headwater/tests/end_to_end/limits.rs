//! What a node's user allows it: pauses, a month's volume, a downlink that is not to be filled.

use crate::site::Site;
use headwater_model::{Name, Rate, Role};
use headwater_peer::node::{Conduct, Fetch, Limits, Node, NodeConfig, StepsAside};
use headwater_peer::sources::Sources;
use std::time::Duration;

fn config(site: &Site, who: &str, limits: Limits) -> NodeConfig {
    NodeConfig {
        role: Role::Peer,
        listen: "127.0.0.1:0".parse().unwrap(),
        dial_only: false,
        port_mapping: false,
        limits,
        steps_aside: StepsAside::Never,
        quota_bytes: None,
        pinned: Default::default(),
        data: site.folder.path().join(who),
        control: site.control_address.clone(),
        control_id: Some(site.control_id.parse().unwrap()),
        join_token: None,
        viewer_token: None,
        sources: Sources::Any,
        proxy: None,
        https: None,
        gateway: None,
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what} does not come to pass");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_node_serves_nobody_and_goes_on_afterwards() {
    let mut site = Site::start("unlimited");
    site.write("film", 4 << 20, 31);
    let name: Name = site.publish("film", &[]).parse().unwrap();
    let fetch = |name: &Name| Fetch {
        name: name.clone(),
        destination: None,
        state_dir: None,
        have: Vec::new(),
        follow: false,
        pin: false,
    };
    let slow = Limits { up: Some(Rate(1_000_000)), ..Limits::default() };
    let parent = Node::start(config(&site, "parent", slow)).await.unwrap();
    parent.fetch(fetch(&name)).complete().await.unwrap();
    site.origin.kill();
    let child = Node::start(config(&site, "child", Limits::default())).await.unwrap();
    let mut content = child.fetch(fetch(&name));
    until("serving", || parent.contents()[0].uploaded_bytes > 300_000).await;

    parent.pause(Conduct::Fetch);
    assert_eq!(parent.limits().conduct, "fetch");
    until("the end of serving", || parent.contents()[0].children == 0 && child.contents()[0].parents == 0).await;
    assert!(!child.contents()[0].complete);
    parent.resume();
    until("serving again", || parent.contents()[0].children == 1).await;

    // The child itself is paused: it lets go of its parent, and says so.
    child.pause(Conduct::Pause);
    until("the child's pause", || parent.contents()[0].children == 0).await;
    assert_eq!((child.limits().conduct.as_str(), child.contents()[0].complete), ("pause", false));
    child.resume();
    // Faster now: limits change while it serves.
    parent.set_limits(Limits::default());
    content.complete().await.unwrap();
    parent.stop().await;
    child.stop().await;
}

#[test]
fn a_months_volume_ends_serving_also_after_a_kill() {
    let mut site = Site::start("unlimited");
    site.write("film", 6 << 20, 32);
    let name = site.publish("film", &[]);
    let options = ["--no-gateway", "--monthly", "1MB", "--up", "2MB/s", "--fetch", &name];
    let mut parent = site.peer("parent", &options);
    parent.until("all of it", |v| v["contents"][0]["complete"] == true);
    site.origin.kill();
    let child = site.get(&name, "child", &[]);
    child.until("some of it", |v| v["peer_bytes"].as_u64() > Some(500_000));
    let is_over = |v: &serde_json::Value| v["limits"]["conduct"] == "fetch";
    let said = parent.until("the volume's end", is_over);
    assert!(said["limits"]["why"].as_str().unwrap().contains("--monthly"), "{said}");
    assert!(said["limits"]["sent_this_month_bytes"].as_u64() >= Some(1_000_000), "{said}");
    parent.kill();
    let parent = site.peer("parent", &options);
    parent.until("the volume's end after a restart", is_over);
    std::fs::write(site.path("parent/volume"), "something else").unwrap();
    drop(parent);
    let data = site.path("parent");
    let arguments = ["peer", "--control", &site.control_address, "--data", &data, "--no-gateway", "--monthly", "1GB"];
    crate::site::check(&arguments, 1, "remove that file to count it anew");
}

#[test]
fn a_downlink_is_not_filled() {
    let site = Site::start("unlimited");
    site.write("film", 4 << 20, 33);
    let name = site.publish("film", &[]);
    let parent = site.get(&name, "parent", &[]);
    parent.event("complete");
    // From the origin and from a parent.
    let child = site.get(&name, "child", &["--down", "1MB/s"]);
    let done = child.event("complete");
    let seconds = done["seconds"].as_f64().unwrap();
    assert!((3.2..15.0).contains(&seconds), "4.4 MB on the wire at 1 MB/s took {seconds} s");
}
