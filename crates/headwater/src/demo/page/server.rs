//! What a browser gets of a demo: its page, the SDK, and what there is to play and to fetch.

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const PAGE: &[u8] = include_bytes!("../../../assets/page/page.html");
const SCRIPT: &[u8] = include_bytes!("../../../assets/page/page.js");
/// The SDK as `npm run build` makes it; its tests see to it that it is what the sources make.
const SDK: &[u8] = include_bytes!("../../../../../web/sdk/dist/headwater.js");

/// Serves the page until `stop` is cancelled.
///
/// # Errors
/// If the system refuses connections.
pub async fn serve(
    listener: TcpListener,
    about: Value,
    player: Option<Bytes>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    tokio::select! {
        served = axum::serve(listener, router(&about, player)).into_future() => served,
        () = stop.cancelled() => Ok(()),
    }
}

/// `about` is what `GET /demo.json` gives; `player` is hls.js, if there is one.
fn router(about: &Value, player: Option<Bytes>) -> Router {
    Router::new()
        .route("/", file("text/html; charset=utf-8", Bytes::from_static(PAGE)))
        .route("/page.js", file("text/javascript", Bytes::from_static(SCRIPT)))
        .route("/headwater.js", file("text/javascript", Bytes::from_static(SDK)))
        .route("/demo.json", file("application/json", about.to_string().into()))
        .route("/hls.min.js", player.map_or_else(|| get(StatusCode::NOT_FOUND), |code| file("text/javascript", code)))
}

/// Always the same; kept by no browser, as the next demo may have the same address.
fn file(kind: &'static str, body: Bytes) -> MethodRouter {
    get(move || async move { ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")], body).into_response() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_browser_gets_all_that_the_page_names() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, json!({"control": "x:1"}), None, stop.clone()));
        let page = String::from_utf8(PAGE.to_vec()).unwrap();
        let scripts: Vec<&str> = page.split("src=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(scripts, ["headwater.js", "page.js"]);
        // Only the first in the process counts, and they are all the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        for (path, kind) in [("", "text/html"), ("headwater.js", "text/javascript"), ("page.js", "text/javascript")] {
            let answer = http.get(format!("http://{at}/{path}")).send().await.unwrap();
            assert!(answer.headers()["content-type"].to_str().unwrap().starts_with(kind), "{path}");
            assert!(answer.status().is_success() && !answer.text().await.unwrap().is_empty(), "{path}");
        }
        let told = http.get(format!("http://{at}/demo.json")).send().await.unwrap().text().await.unwrap();
        assert_eq!(told, r#"{"control":"x:1"}"#);
        assert_eq!(http.get(format!("http://{at}/hls.min.js")).send().await.unwrap().status(), 404);
        stop.cancel();
        serving.await.unwrap().unwrap();
    }
}
