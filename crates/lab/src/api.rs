//! The control center's API, asked from inside its own host.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Client, Method};
use serde_json::Value;
use tokio::runtime::Runtime;

/// On the control center's own host an answer takes a few milliseconds, under a flood longer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A client of one control center. Use it only on a thread that is inside its host: its sockets are made there.
pub struct Api {
    runtime: Runtime,
    http: Client,
    base: String,
    token: String,
}

impl Api {
    /// For the control center at `address`; all requests bear `token`.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn new(address: SocketAddr, token: &str) -> Result<Api> {
        // An error means that the process has a provider, which then serves here too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // The certificate is the control center's own, and there is nobody else in its host.
        let http = Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().timeout(PATIENCE).build()?;
        Ok(Api { runtime, http, base: format!("https://{address}"), token: token.to_owned() })
    }

    /// GET of `path` with its query, such as `/v1/status`.
    ///
    /// # Errors
    /// If there is no answer soon, or one that says no.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None)
    }

    /// POST of a JSON body to `path`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, Some(body.to_string()))
    }

    fn call(&self, method: Method, path: &str, body: Option<String>) -> Result<Value> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.body(body);
        }
        self.runtime.block_on(async {
            let answer = request.send().await.with_context(|| format!("asking {path}"))?;
            let status = answer.status();
            let body = answer.bytes().await?;
            if !status.is_success() {
                bail!("{path} answers {status}: {}", String::from_utf8_lossy(&body).trim());
            }
            serde_json::from_slice(&body).with_context(|| format!("{path} answers no JSON"))
        })
    }
}
