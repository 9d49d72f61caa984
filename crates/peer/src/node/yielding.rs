//! Files leave the downlink to live streams: looks how these fare, as long as both are here.

use super::Inner;
use super::state::{Phase, State};
use headwater_model::id::NodeId;
use headwater_model::time::{Micros, Rate, Time};
use headwater_peer_core::{Delay, LATE, LOOK_EVERY, Yields};
use headwater_wire::frame::DelayDatagram;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a parent is probed.
const PROBE_EVERY: Micros = Micros::from_millis(400);

/// Probes to the parents of live streams: by when an echo left, and when it is here, this node's line is known, whatever its
/// uplink does.
#[derive(Debug, Default)]
pub(crate) struct Delays(Mutex<BTreeMap<NodeId, Probed>>);

/// A parent that is probed. The time of the latest probe is its number, too.
#[derive(Clone, Copy, Debug)]
struct Probed {
    at: Time,
    /// Of the latest echo, in microseconds of two clocks.
    delay: Option<i64>,
}

impl Delays {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Probed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The echo of a probe that came to the parent at that time of its clock.
    pub(super) fn echoed(&self, now: Time, node: &NodeId, number: u64, arrived_us: u64) {
        if let Some(probed) = self.lock().get_mut(node).filter(|p| p.at.0 == number) {
            probed.delay = Some((now.0 as i64).wrapping_sub(arrived_us as i64));
        }
    }

    /// The latest delay of each of the `parents`, and who is probed now.
    fn look(&self, now: Time, parents: &[NodeId]) -> (Vec<Delay>, Vec<NodeId>) {
        let mut probed = self.lock();
        probed.retain(|node, _| parents.contains(node));
        let delays = probed.iter().filter_map(|(node, p)| Some(Delay { node: *node, micros: p.delay? })).collect();
        let is_due = |p: &Probed| now.since(p.at) >= PROBE_EVERY;
        let due: Vec<NodeId> = parents.iter().filter(|p| probed.get(p).is_none_or(is_due)).copied().collect();
        for node in &due {
            probed.entry(*node).or_insert(Probed { at: now, delay: None }).at = now;
        }
        (delays, due)
    }
}

/// What is seen at one look.
struct Seen {
    streams: Rate,
    parents: Vec<NodeId>,
    late: bool,
    /// What files received so far.
    files_bytes: u64,
}

/// Says what files may take, for as long as the node runs.
pub(super) async fn to_streams(inner: Arc<Inner>) {
    let mut every = tokio::time::interval(Duration::from_micros(LOOK_EVERY.0));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut yields: Option<(Yields, u64, Time)> = None;
    loop {
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            _ = every.tick() => {}
        }
        let now = inner.now();
        let Some(seen) = look(&inner.lock(), now) else {
            if yields.take().is_some() {
                inner.downlink.beside_streams(None);
            }
            continue;
        };
        let (yields, before, at) = yields.get_or_insert_with(|| (Yields::new(seen.streams), seen.files_bytes, now));
        let took = Rate::of(seen.files_bytes.saturating_sub(*before), now.since(*at).max(Micros(1)));
        (*before, *at) = (seen.files_bytes, now);
        yields.set_streams(seen.streams);
        let (delays, due) = inner.delays.look(now, &seen.parents);
        let files = yields.seen(now, &delays, seen.late, took);
        inner.downlink.beside_streams(Some((seen.streams, files)));
        for parent in due {
            let connection = inner.lock().links.get(&parent).map(|l| l.connection.clone());
            if let Some(connection) = connection {
                // One that does not go out is a lost one.
                let _ = connection.send_datagram(DelayDatagram::Probe { number: now.0 }.encode());
            }
        }
    }
}

/// `None` where there is no stream, or no file that is not here.
fn look(state: &State, now: Time) -> Option<Seen> {
    let mut seen = Seen { streams: Rate(0), parents: Vec::new(), late: false, files_bytes: 0 };
    let mut fetches = false;
    for content in state.contents.values() {
        match &content.phase {
            Phase::Running(r) => {
                fetches |= !r.swarm.is_complete();
                seen.files_bytes += r.peer_bytes + r.waypoint_bytes + r.origin_bytes;
            }
            Phase::Live(l) => {
                seen.streams = Rate(seen.streams.0 + l.channel.terms().rate.0);
                seen.late |= l.channel.is_late(now, LATE);
                let pushes = l.channel.parent_edges().filter(|e| !e.spare);
                seen.parents.extend(pushes.map(|e| e.node));
            }
            Phase::Asking | Phase::Opening | Phase::StandIn(_) | Phase::Failed => {}
        }
    }
    (fetches && seen.streams.0 > 0).then_some(seen)
}
