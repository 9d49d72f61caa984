//! Files leave the downlink to live streams: looks how these fare, as long as both are here.

use super::Inner;
use super::state::{Phase, State};
use headwater_model::id::NodeId;
use headwater_model::time::{Micros, Rate, Time};
use headwater_peer_core::{Delays, LATE, LOOK_EVERY, Yields};
use headwater_wire::frame::DelayDatagram;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What echoes of probes to the parents of live streams say.
#[derive(Debug, Default)]
pub(crate) struct Echoes(Mutex<Delays>);

impl Echoes {
    pub(super) fn lock(&self) -> MutexGuard<'_, Delays> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let (delays, probes) = inner.echoes.lock().look(now, &seen.parents);
        let files = yields.seen(now, &delays, seen.late, took);
        inner.downlink.beside_streams(Some((seen.streams, files)));
        for (parent, number) in probes {
            let connection = inner.lock().links.get(&parent).map(|l| l.connection.clone());
            if let Some(connection) = connection {
                // One that does not go out is a lost one.
                let _ = connection.send_datagram(DelayDatagram::Probe { number }.encode());
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
