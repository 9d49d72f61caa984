use super::*;
use std::sync::Mutex;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use headwater_model::log::Log;
use tokio::net::TcpListener;

/// A request as the control center got it.
struct Seen {
    line: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

struct Control {
    /// `host:port`.
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// A control center that answers everything so.
async fn answering(status: u16, answer: &'static str) -> Control {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&seen);
    let router = Router::new().fallback(move |request: Request| {
        let heard = Arc::clone(&heard);
        async move {
            let (head, body) = request.into_parts();
            let body = to_bytes(body, 1 << 20).await.unwrap().to_vec();
            let line = format!("{} {}", head.method, head.uri);
            heard.lock().unwrap().push(Seen { line, headers: head.headers, body });
            (StatusCode::from_u16(status).unwrap(), answer)
        }
    });
    tokio::spawn(axum::serve(listener, router).into_future());
    Control { address, seen }
}

fn made() -> StaticLog {
    let log = Log { name: "n".into(), first_key: [1; 32], key_changes: vec![], entries: vec![] };
    StaticLog { log, leaves: vec![], sums: vec![], entries: vec![] }
}

#[tokio::test]
async fn a_content_is_registered_as_the_api_says() {
    let answer = r#"{"content":"ab","name":"n","epoch":7,"bytes":1,"pieces":1,"objects":1,"hw":"hw://x/n#key=ab"}"#;
    let control = answering(201, answer).await;
    let api = ApiClient::new(&control.address, Some("secret\n")).unwrap();
    let access = Access { headers: vec![("Cookie".into(), "a=b".into())], query: Some("s=1".into()) };
    let published = api.publish(&made(), &access, true, Audience::Tokens, Some("films/a b")).await.unwrap();
    assert_eq!((published.epoch, published.hw.as_str()), (7, "hw://x/n#key=ab"));
    api.publish(&made(), &Access::default(), false, Audience::Open, None).await.unwrap();
    let seen = control.seen.lock().unwrap();
    let asked = "POST /v1/contents?share_origin_credentials=true&audience=tokens&lightweight=films%2Fa%20b";
    assert_eq!(seen[0].line, asked);
    assert_eq!(seen[0].headers["authorization"], "Bearer secret");
    assert_eq!(StaticLog::decode(&seen[0].body).unwrap(), made());
    let header = STANDARD.decode(&seen[0].headers[ACCESS_HEADER]).unwrap();
    let json: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(json, serde_json::json!({"headers": [["Cookie", "a=b"]], "query": "s=1"}));
    assert_eq!(seen[1].line, "POST /v1/contents?share_origin_credentials=false&audience=open");
    assert!(!seen[1].headers.contains_key(ACCESS_HEADER));
}

#[tokio::test]
async fn names_are_one_segment_and_hw_names_become_ids() {
    let control = answering(200, "{}").await;
    let api = ApiClient::new(&format!("http://{}/prefix/", control.address), None).unwrap();
    let fingerprint = "ab".repeat(32);
    let name: Name = format!("hw://c/films/a%20b#key={fingerprint}").parse().unwrap();
    api.unpublish("films/a b?").await.unwrap();
    api.unpublish(&name.to_string()).await.unwrap();
    api.explain("ab&cd", "ü").await.unwrap();
    let lines: Vec<String> = control.seen.lock().unwrap().iter().map(|s| s.line.clone()).collect();
    assert_eq!(lines[0], "DELETE /prefix/v1/contents/films%2Fa%20b%3F");
    assert_eq!(lines[1], format!("DELETE /prefix/v1/contents/{}", name.content()));
    assert_eq!(lines[2], "GET /prefix/v1/explain?client=ab%26cd&content=%C3%BC");
    assert!(!control.seen.lock().unwrap()[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn refusals_and_failures_are_told_apart() {
    let said = async |status: u16, answer: &'static str| {
        let control = answering(status, answer).await;
        let error = ApiClient::new(&control.address, None).unwrap().get_json("/v1/status").await.unwrap_err();
        (crate::exit::code(&error.clone().into()), error.to_string())
    };
    let (code, text) = said(401, r#"{"error":"no token"}"#).await;
    assert!(code == 3 && text.contains("no token") && text.contains("HEADWATER_TOKEN"), "{text}");
    let (code, text) = said(404, r#"{"error":"no such content"}"#).await;
    assert!(code == 3 && text.ends_with("(status 404): no such content"), "{text}");
    let (code, text) = said(500, "").await;
    assert!(code == 1 && text.contains("gives no reason"), "{text}");
    let (code, text) = said(302, "elsewhere").await;
    assert!(code == 1 && text.contains("302"), "{text}");
    let (code, text) = said(200, "<html>").await;
    assert!(code == 1 && text.contains("not as a control center does"), "{text}");
}

#[tokio::test]
async fn no_answer_says_where_and_why() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = ApiClient::new(&gone.to_string(), None).unwrap().get_json("/v1/status").await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains(&gone.to_string()) && said.contains("is it running"), "{said}");
    assert!(!said.contains("for url"), "{said}");
}

#[test]
fn addresses() {
    for (text, expected) in [
        ("127.0.0.1:7400", "http://127.0.0.1:7400/"),
        ("localhost", "http://localhost/"),
        ("[::1]:7400", "http://[::1]:7400/"),
        ("cc.example:7400", "https://cc.example:7400/"),
        ("http://cc.example/x", "http://cc.example/x"),
        (DEFAULT_CONTROL, "http://127.0.0.1:7400/"),
    ] {
        assert_eq!(address(text).unwrap().0.as_str(), expected);
    }
    for bad in ["", "ftp://x", "http://", "http://a b", "http://me:pw@x", "http://x/?q"] {
        assert!(matches!(address(bad), Err(ApiError::Address { .. })), "{bad}");
    }
    let unchecked = ApiClient::pinned("http://127.0.0.1:1", None, Some(NodeId::default())).unwrap_err().to_string();
    assert!(unchecked.contains("https only"), "{unchecked}");
    assert!(ApiClient::new("x:1", Some("a\nb")).is_err());
}

#[test]
fn messages_of_strangers_are_cut_and_cleaned() {
    assert_eq!(message(400, "\u{1b}[31mred\u{7}".as_bytes()), "[31mred");
    assert_eq!(message(400, &[b'x'; 9000]).len(), MAX_MESSAGE_CHARS);
}

#[tokio::test]
async fn over_https_only_the_pinned_node_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let running = headwater_center::start(headwater_center::ControlConfig {
        // Beyond loopback the API is https, with a certificate of the control center's own making.
        listen: "0.0.0.0:0".parse().unwrap(),
        public: Some("127.0.0.1:1".into()),
        state: dir.path().join("state"),
        identity: dir.path().join("identity"),
        places: None,
        mmdb: None,
        tls: None,
        per_address: headwater_center::AddressLimits::default(),
        core: headwater_center_core::Config::default(),
    })
    .await
    .unwrap();
    assert!(running.api_url.starts_with("https://"), "{}", running.api_url);
    let status = async |pin| {
        let token = running.first_admin_token.as_deref();
        ApiClient::pinned(&running.api_url, token, pin).unwrap().get_json("/v1/status").await
    };
    assert_eq!(status(Some(running.node)).await.unwrap()["node"], running.node.to_string());
    let other = status(Some(NodeId::default())).await.unwrap_err().to_string();
    assert!(other.contains(&running.node.to_string()) && other.contains("pinned"), "{other}");
    let unpinned = status(None).await.unwrap_err().to_string();
    assert!(unpinned.contains("--cc"), "{unpinned}");
}
