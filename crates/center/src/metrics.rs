//! Numbers for Prometheus.

use crate::hub::Hub;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counted by the server itself; the core counts its own.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) messages: Counter,
    pub(crate) bad_sessions: Counter,
    pub(crate) slow_readers: Counter,
    pub(crate) refused_handshakes: Counter,
    pub(crate) page_requests: Counter,
    pub(crate) pages_given: Counter,
    pub(crate) api_requests: Counter,
}

/// All numbers as text (OpenMetrics).
///
/// # Errors
/// When formatting fails, which writing to memory does not.
pub(crate) fn render(hub: &Hub) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("headwater_control");
    let mut gauge = |name: &str, help: &str, value: u64| {
        let g: Gauge = Gauge::default();
        g.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, g);
    };
    let (totals, members) = {
        let state = hub.lock();
        let members: usize =
            state.center.directory().iter().filter_map(|(_, c)| c.dcm.as_ref()).map(|d| d.members().count()).sum();
        gauge("sessions", "Nodes with a session", state.sessions() as u64);
        gauge("contents", "Published contents", state.contents.len() as u64);
        gauge("epoch", "Durable epoch", state.center.epoch());
        (state.center.totals(), members as u64)
    };
    gauge("members", "Nodes in swarms, once per content", members);
    gauge("uptime_seconds", "Time since the start", hub.clock.now().0 / 1_000_000);
    let mut total = |name: &str, help: &str, value: u64| {
        let c: Counter = Counter::default();
        c.inc_by(value);
        registry.register(name, help, c);
    };
    total("assignments", "Assignments sent", totals.assignments);
    total("lightweight_pairs", "Assigned pairs of two dial-only nodes; must stay 0", totals.lightweight_pairs);
    total("leases", "Leases to fetch from the origin", totals.leases);
    total("alarms", "Alarms of children", totals.alarms);
    total("troubles", "Edges with trouble", totals.troubles);
    total("heartbeats", "Heartbeats", totals.heartbeats);
    total("joins", "Joins", totals.joins);
    total("dropped_records", "Transfer records dropped because the disk was slow", hub.store.dropped());
    let c = &hub.counters;
    for (name, help, counter) in [
        ("messages", "Messages of nodes", &c.messages),
        ("bad_sessions", "Sessions ended for a bad message", &c.bad_sessions),
        ("slow_readers", "Sessions ended because the node read too slowly", &c.slow_readers),
        ("refused_handshakes", "Connections refused because too many were being set up", &c.refused_handshakes),
        ("page_requests", "Requests for pages of leaf hashes", &c.page_requests),
        ("pages_given", "Pages of leaf hashes given", &c.pages_given),
        ("api_requests", "Requests to the API", &c.api_requests),
    ] {
        registry.register(name, help, counter.clone());
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}
