//! What all of a node's connections put on the wire, so that its limit holds for acknowledgements and messages, too.

use super::Inner;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked up.
const EVERY: Duration = Duration::from_millis(50);
/// Headers of UDP and IPv4; those of IPv6 take 20 more.
const HEADERS_BYTES: u64 = 28;

/// Tells the pacer of the user's limit, for as long as the node runs. What HTTP and WebSocket take is not known.
pub(super) async fn tell_pacer(inner: Arc<Inner>) {
    let mut before: BTreeMap<usize, u64> = BTreeMap::new();
    let mut left = 0;
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            _ = every.tick() => {}
        }
        if !inner.pacer.is_limited() {
            continue;
        }
        let connections: Vec<quinn::Connection> = {
            let state = inner.lock();
            state.links.values().map(|l| &*l.connection).chain(&state.control_quic).cloned().collect()
        };
        let now: BTreeMap<usize, u64> = connections.iter().map(|c| (c.stable_id(), wire_bytes(c))).collect();
        left += now.iter().map(|(id, bytes)| bytes.saturating_sub(before.get(id).copied().unwrap_or(0))).sum::<u64>();
        before = now;
        inner.pacer.left(left);
    }
}

fn wire_bytes(connection: &quinn::Connection) -> u64 {
    let sent = connection.stats().udp_tx;
    sent.bytes + sent.datagrams * HEADERS_BYTES
}
