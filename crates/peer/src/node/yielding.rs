//! Files leave the downlink to live streams: looks how these fare, as long as both are here.

use super::Inner;
use super::state::{Phase, State};
use headwater_model::id::NodeId;
use headwater_model::time::{Micros, Rate, Time};
use headwater_peer_core::{LATE, LOOK_EVERY, RoundTrip, Yields};
use headwater_wire::frame::DelayDatagram;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a round trip to a parent begins.
const TRIP_EVERY: Micros = Micros::from_millis(400);
/// A probe that nobody echoes for so long is lost.
const LOST: Micros = Micros::from_secs(2);

/// Round trips of probes to the parents of live streams: connections know only those of what asks for an
/// acknowledgement, which children seldom send.
#[derive(Debug, Default)]
pub(crate) struct Trips(Mutex<BTreeMap<NodeId, Trip>>);

/// The latest one to a node. It begins at a time that is the probe's number, too.
#[derive(Clone, Copy, Debug)]
struct Trip {
    begins: Time,
    took: Option<Micros>,
}

impl Trips {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Trip>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A probe's echo came.
    pub(super) fn echoed(&self, now: Time, node: &NodeId, number: u64) {
        if let Some(trip) = self.lock().get_mut(node).filter(|t| t.begins.0 == number && t.took.is_none()) {
            trip.took = Some(now.since(trip.begins));
        }
    }

    /// The latest trip to each of the `parents`, and to whom another one begins now.
    fn look(&self, now: Time, parents: &[NodeId]) -> (Vec<RoundTrip>, Vec<NodeId>) {
        let mut trips = self.lock();
        trips.retain(|node, _| parents.contains(node));
        let latest = trips.iter().map(|(node, trip)| {
            let took = trip.took.unwrap_or(now.since(trip.begins));
            RoundTrip { node: *node, took, over: trip.took.is_some() }
        });
        let latest = latest.collect();
        let is_due = |trip: &Trip| {
            let since = now.since(trip.begins);
            since >= LOST || (trip.took.is_some() && since >= TRIP_EVERY)
        };
        let due: Vec<NodeId> = parents.iter().filter(|p| trips.get(p).is_none_or(is_due)).copied().collect();
        trips.extend(due.iter().map(|node| (*node, Trip { begins: now, took: None })));
        (latest, due)
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
        let (trips, due) = inner.trips.look(now, &seen.parents);
        let files = yields.seen(now, &trips, seen.late, took);
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
            Phase::Asking | Phase::Opening | Phase::Failed => {}
        }
    }
    (fetches && seen.streams.0 > 0).then_some(seen)
}
