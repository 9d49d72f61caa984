//! What goes wrong outside: tokens, ports, folders, databases.

use crate::harness::*;
use headwater_center::StartError;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn tokens_open_what_they_say_and_no_more() {
    let control = Control::start().await;
    let film = sample("films/one", 1, 1, 10);
    let publisher = control.make_token(r#"{"role":"publisher","names":["films/*"],"days":1}"#).await;
    let other = control.make_token(r#"{"role":"publisher","names":["music/*"],"days":1}"#).await;
    let viewer = control.make_token(r#"{"role":"viewer","names":["*"],"days":1}"#).await;
    let join = control.make_token(r#"{"role":"join","names":[],"days":1}"#).await;
    let publish = |token| control.call("POST", "/v1/contents", token, film.file.encode());
    for (token, expected) in [("nonsense", 401), (&viewer, 403), (&join, 403), (&other, 403), (&publisher, 201)] {
        let (status, reply) = publish(token).await;
        assert_eq!(status, expected, "{reply}");
        assert!(status == 201 || reply["error"].as_str().is_some_and(|e| e.len() > 20), "{reply}");
    }
    let all = ["/v1/nodes", "/v1/status", "/v1/events", "/v1/transfers", "/v1/nodes/abcd"];
    for path in all.iter().chain(&["/v1/contents", "/v1/contents/films/one", "/v1/explain?client=abcd&content=x"]) {
        for token in ["", "nonsense"] {
            assert_eq!(control.call("GET", path, token, vec![]).await.0, 401, "{path}");
        }
        for token in [&viewer, &join] {
            assert_eq!(control.call("GET", path, token, vec![]).await.0, 403, "{path}");
        }
    }
    for path in all {
        assert_eq!(control.call("GET", path, &publisher, vec![]).await.0, 403, "{path}");
    }
    let listed = |token| control.call("GET", "/v1/contents", token, vec![]);
    assert_eq!(listed(&publisher).await.1.as_array().unwrap().len(), 1);
    assert_eq!(listed(&other).await.1, json!([]));
    assert_eq!(control.call("DELETE", "/v1/contents/films/one", &other, vec![]).await.0, 403);
    assert_eq!(control.call("POST", "/v1/tokens", &publisher, b"{}".to_vec()).await.0, 403);
    assert_eq!(control.call("POST", "/v1/tokens", &control.token, b"{}".to_vec()).await.0, 400);
    assert_eq!(control.call("POST", "/v1/tokens", &control.token, vec![b' '; 70_000]).await.0, 413);
    assert_eq!(control.call("GET", "/healthz", "", vec![]).await, (200, json!("ok\n")));
    assert_eq!(control.call("GET", "/v1/openapi.json", "", vec![]).await.0, 200);
    for (method, path, expected) in [
        ("GET", "/v2", 404),
        ("PUT", "/v1/nodes", 405),
        ("GET", "/v1/contents/none", 404),
        ("GET", "/v1/nodes/abcd", 404),
        ("GET", "/v1/explain?client=abcd&content=films/one", 404),
        ("GET", "/v1/explain?client=abcd", 400),
        ("GET", "/v1/events?after=x", 400),
    ] {
        let (status, reply) = control.call(method, path, &control.token, vec![]).await;
        assert_eq!(status, expected, "{path}: {reply}");
        assert!(reply["error"].is_string(), "{path}: {reply}");
    }
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn off_loopback_the_api_speaks_tls() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.listen = "0.0.0.0:0".parse().unwrap();
    config.public = Some("control.example:7400".into());
    let control = Control::start_as(folder, config).await.unwrap();
    assert_eq!(control.api_url, format!("https://127.0.0.1:{}", control.address.port()));
    assert_eq!(control.get("/v1/status").await["contents"], 0);
    let reply = control.publish(&sample("film", 1, 1, 1)).await;
    assert!(reply["hw"].as_str().unwrap().starts_with("hw://control.example:7400/film#"), "{reply}");
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_said_so() {
    let control = Control::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.listen = control.address;
    let said = Control::start_as(folder, config).await.err().unwrap();
    assert!(matches!(said, StartError::PortTaken { protocol: "TCP", .. }), "{said}");
    assert!(said.to_string().contains("--listen"));
    let udp = udp_only();
    let folder = tempfile::tempdir().unwrap();
    let mut config = crate::harness::config(folder.path());
    config.listen = udp.local_addr().unwrap();
    let said = Control::start_as(folder, config).await.err().unwrap();
    assert!(matches!(said, StartError::PortTaken { protocol: "UDP", .. }), "{said}");
    control.stop().await;
}

/// A port that is taken for UDP, and for TCP by nobody: not by another test either.
fn udp_only() -> std::net::UdpSocket {
    let udp = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let is_free = |udp: &std::net::UdpSocket| std::net::TcpListener::bind(udp.local_addr().unwrap()).is_ok();
    std::iter::repeat_with(udp).find(is_free).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_control_center_ends() {
    let folder = tempfile::tempdir().unwrap();
    let running = headwater_center::start(config(folder.path())).await.unwrap();
    let mut again = config(folder.path());
    again.listen = running.address;
    drop(running);
    // Its port and its database are free as soon as its tasks have seen it.
    let restart = async {
        loop {
            match headwater_center::start(again.clone()).await {
                Ok(running) => break running,
                Err(StartError::PortTaken { .. } | StartError::State(_)) => tokio::task::yield_now().await,
                Err(e) => panic!("{e}"),
            }
        }
    };
    let running = soon("a restart", restart).await;
    running.stopped(async {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_control_center_per_state_folder() {
    let control = Control::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.state = control.state();
    let said = Control::start_as(folder, config).await.err().unwrap().to_string();
    assert!(said.contains("another control center runs on this state folder"), "{said}");
    control.stop().await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn unwritable_folders_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
    if std::fs::write(folder.path().join("probe"), "").is_ok() {
        eprintln!("SKIPPED: this user (root?) may write everywhere");
        return;
    }
    let (identity, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut config = config(folder.path());
    config.identity = identity.path().into();
    let said = headwater_center::start(config.clone()).await.unwrap_err().to_string();
    assert!(said.contains("cannot write to the state folder"), "{said}");
    config.identity = folder.path().join("identity");
    config.state = state.path().into();
    let said = headwater_center::start(config).await.unwrap_err().to_string();
    assert!(said.contains("the identity folder must be writable"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_a_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("state"), "").unwrap();
    let said = headwater_center::start(config(folder.path())).await.unwrap_err().to_string();
    assert!(said.contains("cannot write to the state folder"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_database_does_not_stop_the_start() {
    let control = Control::start().await;
    control.publish(&sample("film", 1, 1, 10)).await;
    let state = control.state();
    let folder = control.stop().await;
    std::fs::write(state.join("headwater.db"), vec![0x55; 20_000]).unwrap();
    let control = Control::start_in(folder).await.unwrap();
    assert_eq!(control.get("/v1/contents").await, json!([]));
    let events = control.get("/v1/events").await.to_string();
    assert!(events.contains("THE DATABASE WAS CORRUPT") && events.contains("headwater.db.corrupt-"), "{events}");
    control.publish(&sample("film", 1, 1, 10)).await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_files_stop_the_start_with_their_names() {
    for (file, bytes, says) in [
        ("identity/node.key", "x", "no P-256 key"),
        ("identity/secret", "x", "32"),
        ("identity/epoch", "x", "no number"),
        ("places.csv", "10.0.0.0/8\nx\n", "line 2"),
        ("tls.pem", "x", "certificate"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("identity")).unwrap();
        std::fs::write(folder.path().join(file), bytes).unwrap();
        let mut config = config(folder.path());
        let given = |name: &str| folder.path().join(name);
        config.places = (file == "places.csv").then(|| given("places.csv"));
        config.tls = (file == "tls.pem").then(|| (given("tls.pem"), given("tls.pem")));
        let said = headwater_center::start(config).await.unwrap_err().to_string();
        assert!(said.contains(file) && said.contains(says), "{said}");
    }
}
