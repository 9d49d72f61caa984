//! The published log of a stream: who reaches no control center, and has nobody to hear entries from, reads it there.

use super::logged;
use crate::node::Inner;
use crate::node::control::fetch_log_now;
use headwater_model::id::Version;
use headwater_wire::StaticLog;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at whether it is needed, and two requests.
const EVERY: Duration = Duration::from_secs(1);

/// Reads the log at `url` whenever there is nobody else, as long as the stream runs here.
pub(super) async fn follow_while_alone(inner: Arc<Inner>, version: Version, url: String) {
    let mut pulse = tokio::time::interval(EVERY);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failed = false;
    loop {
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            _ = pulse.tick() => {}
        }
        let newest = {
            let mut state = inner.lock();
            let has_session = state.session.is_connected();
            let Some(l) = state.live(version) else { return };
            if has_session || !l.channel.is_alone() || l.channel.has_ended() {
                continue;
            }
            l.channel.newest_entry()
        };
        let mark = if url.contains('?') { '&' } else { '?' };
        let asked = newest.map_or(url.clone(), |n| format!("{url}{mark}after={n}"));
        let fetched = fetch_log_now(&inner, &asked).await;
        match fetched.and_then(|bytes| StaticLog::decode(&bytes).map_err(|e| e.to_string())) {
            Ok(log) => {
                failed = false;
                logged(&inner, version.content, log.entries);
            }
            Err(why) if !failed => {
                failed = true;
                tracing::warn!("no control center, no parents, and the stream's log cannot be read: {why}");
            }
            Err(_) => {}
        }
    }
}
