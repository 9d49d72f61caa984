//! What the servers of a demo count and explain, asked over HTTP while they run.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use crate::api_client::ApiClient;

/// On loopback an answer takes about a millisecond; who takes longer is asked again later.
const PATIENCE: Duration = Duration::from_millis(500);

/// A count of a server that starts again at 0 when the server does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    past: u64,
    current: u64,
    /// Of this life, but not to be counted.
    ignored: u64,
}

impl Counted {
    /// Forgets all that was counted so far.
    pub fn reset(&mut self, current: u64) {
        *self = Counted { past: 0, current, ignored: current };
    }

    /// Takes what the server says now.
    pub fn update(&mut self, current: u64) {
        self.current = current;
    }

    /// The server ended.
    pub fn end_life(&mut self) {
        *self = Counted { past: self.total(), ..Counted::default() };
    }

    /// Over all lives.
    pub fn total(&self) -> u64 {
        self.past + self.current.saturating_sub(self.ignored)
    }
}

#[derive(Deserialize)]
struct OriginStats {
    body_bytes: u64,
}

/// Body bytes that the origin with this URL has sent in this life.
///
/// # Errors
/// If it does not answer, soon.
pub async fn origin_body_bytes(http: &reqwest::Client, origin: &Url) -> Result<u64> {
    let answer = http.get(origin.join("/_stats")?).timeout(PATIENCE).send().await?.error_for_status()?;
    let stats: OriginStats = serde_json::from_slice(&answer.bytes().await?).context("the origin does not count")?;
    Ok(stats.body_bytes)
}

/// Pairs of lightweight peers that the control center has assigned in this life.
///
/// # Errors
/// If it does not answer, soon.
pub async fn lightweight_pairs(api: &ApiClient) -> Result<u64> {
    let status = timeout(PATIENCE, api.get_json("/v1/status")).await??;
    status["totals"]["lightweight_pairs"].as_u64().context("the control center does not count lightweight pairs")
}

/// Why the node has the parents that it has for the content, in words.
///
/// # Errors
/// If the control center does not answer, soon.
pub async fn explanation(api: &ApiClient, node: &str, hw: &str) -> Result<String> {
    let explained = timeout(PATIENCE, api.explain(node, hw)).await??;
    let words = explained["words"].as_str().context("the control center gives no reasons")?;
    Ok(words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_on_over_lives() {
        let mut counted = Counted::default();
        counted.reset(100);
        assert_eq!(counted.total(), 0);
        counted.update(150);
        counted.end_life();
        assert_eq!(counted.total(), 50);
        counted.update(30);
        assert_eq!(counted.total(), 80);
        counted.update(40);
        counted.end_life();
        assert_eq!(counted.total(), 90);
    }
}
