//! The commands' side of a running peer's local API.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use headwater_peer::node::{ContentDetail, LimitsStatus, NodeStatus, SelfTest};
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::door::{Entry, nobody};
use crate::exit::Ending;
use crate::folders;

/// A test of everything takes ten seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// A thousand contents with all their edges.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Which peer of this machine is asked.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PeerAccess {
    /// Data folder of the peer that is asked [default: /var/lib/headwater for root, headwater/peer in your data folder
    /// for others]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

impl PeerAccess {
    /// The peer that runs there.
    ///
    /// # Errors
    /// None runs, or it is another user's.
    pub fn peer(&self) -> Result<LocalPeer> {
        LocalPeer::of(&self.folder()?)
    }

    /// Its data folder.
    ///
    /// # Errors
    /// None was said, and the usual one is not known.
    pub fn folder(&self) -> Result<PathBuf> {
        self.data.clone().map_or_else(folders::peer_data, Ok)
    }
}

/// A running peer of this machine.
#[derive(Debug)]
pub struct LocalPeer {
    data: PathBuf,
    base: String,
    token: String,
    http: reqwest::Client,
}

impl LocalPeer {
    /// The one that runs with the data folder `data`.
    ///
    /// # Errors
    /// As [`Entry::read`].
    pub fn of(data: &Path) -> Result<LocalPeer> {
        let entry = Entry::read(data)?;
        // What is on this machine is reached by no proxy.
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().context("no HTTP client")?;
        let base = format!("http://{}/local/v1/", entry.address());
        Ok(LocalPeer { data: data.into(), base, token: entry.token().to_owned(), http })
    }

    pub async fn status(&self) -> Result<NodeStatus> {
        self.call(Method::GET, "status", None).await
    }

    pub async fn contents(&self) -> Result<Vec<ContentDetail>> {
        #[derive(Deserialize)]
        struct Contents {
            contents: Vec<ContentDetail>,
        }
        Ok(self.call::<Contents>(Method::GET, "contents", None).await?.contents)
    }

    pub async fn test(&self) -> Result<SelfTest> {
        self.call(Method::POST, "test", None).await
    }

    pub async fn fetch(&self, name: &str, pin: bool) -> Result<Value> {
        self.call(Method::POST, "contents", Some(json!({"name": name, "pin": pin}))).await
    }

    pub async fn forget(&self, which: &str) -> Result<Value> {
        let which: String = url::form_urlencoded::byte_serialize(which.as_bytes()).collect();
        self.call(Method::DELETE, &format!("contents/{}", which.replace('+', "%20")), None).await
    }

    /// Has it serve nobody, nor fetch unless `keep_fetching`.
    pub async fn pause(&self, keep_fetching: bool) -> Result<LimitsStatus> {
        self.call(Method::POST, "pause", Some(json!({"keep_fetching": keep_fetching}))).await
    }

    pub async fn resume(&self) -> Result<LimitsStatus> {
        self.call(Method::POST, "resume", None).await
    }

    /// Other limits, as the API names them.
    pub async fn limit(&self, new: Value) -> Result<LimitsStatus> {
        self.call(Method::PUT, "limits", Some(new)).await
    }

    /// The filter in force after `new`, if there is a new one.
    pub async fn log(&self, new: Option<&str>) -> Result<Value> {
        match new {
            None => self.call(Method::GET, "log", None).await,
            Some(filter) => self.call(Method::PUT, "log", Some(json!({"filter": filter}))).await,
        }
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(&self) -> Result<Value> {
        let said: Value = self.call(Method::POST, "stop", None).await?;
        let gone = async {
            while Entry::read(&self.data).is_ok_and(|e| e.token() == self.token) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.context("it does not end")?;
        Ok(said)
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Value>) -> Result<T> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let mut answer = request.send().await.map_err(|e| {
            // What a killed peer left is no way into one.
            if e.is_connect() { nobody(&self.data).into() } else { anyhow::Error::from(e.without_url()) }
        })?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
            anyhow::ensure!(bytes.len() + chunk.len() <= MAX_ANSWER_BYTES, "the peer's answer is too long");
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return serde_json::from_slice(&bytes).context("the peer answers as no version known here does");
        }
        let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let why = said["error"].as_str().unwrap_or("it does not say why").to_owned();
        Err(match status.as_u16() {
            400 => Ending::Usage(why).into(),
            401 | 421 => nobody(&self.data).into(),
            403..=499 => Ending::Refused(why).into(),
            _ => anyhow::anyhow!("the peer failed: {why}"),
        })
    }
}
