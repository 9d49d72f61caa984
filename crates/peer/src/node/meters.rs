//! Rates of a content and of its edges, from counters that are read once a second.

use headwater_model::id::NodeId;
use headwater_model::time::Time;
use headwater_peer_core::EdgeView;
use std::collections::BTreeMap;

/// Share of the newest second in a rate: a step shows to two thirds after two seconds.
const NEWEST: f64 = 0.4;
/// What is left of the fastest second's rate a second later: half after a minute.
const FADES: f64 = 0.989;

/// A rate, bytes per second, over about the last three seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Meter {
    bytes: u64,
    rate: f64,
}

impl Meter {
    fn read(&mut self, bytes: u64, seconds: f64) {
        // An edge that was opened anew counts from 0.
        let more = bytes.checked_sub(self.bytes).unwrap_or(bytes);
        self.rate += NEWEST * (more as f64 / seconds - self.rate);
        self.bytes = bytes;
    }
}

/// The meters of a content.
#[derive(Debug)]
pub(crate) struct Meters {
    /// When its swarm began here.
    pub(crate) began: Time,
    at: Time,
    down: Meter,
    /// Received in the fastest second of late, bytes per second.
    fastest_down: f64,
    up: Meter,
    parents: BTreeMap<NodeId, Meter>,
    children: BTreeMap<NodeId, Meter>,
}

impl Meters {
    pub(crate) fn new(now: Time) -> Self {
        let (down, up) = (Meter::default(), Meter::default());
        let (parents, children) = (BTreeMap::new(), BTreeMap::new());
        Self { began: now, at: now, down, fastest_down: 0.0, up, parents, children }
    }

    /// Reads the counters: bytes received and sent, and those of the edges.
    pub(crate) fn read(
        &mut self,
        now: Time,
        (down, up): (u64, u64),
        parents: impl Iterator<Item = EdgeView>,
        children: impl Iterator<Item = EdgeView>,
    ) {
        let seconds = now.since(self.at).as_secs_f64().max(0.01);
        self.at = now;
        let newest = down.saturating_sub(self.down.bytes) as f64 / seconds;
        self.fastest_down = newest.max(self.fastest_down * FADES);
        self.down.read(down, seconds);
        self.up.read(up, seconds);
        read_edges(&mut self.parents, parents, seconds);
        read_edges(&mut self.children, children, seconds);
    }

    /// Received, bytes per second.
    pub(crate) fn down(&self) -> u64 {
        self.down.rate as u64
    }
    /// Received in the fastest second of late, bytes per second: what the network can do at least.
    pub(crate) fn fastest_down(&self) -> u64 {
        self.fastest_down as u64
    }
    /// Sent, bytes per second.
    pub(crate) fn up(&self) -> u64 {
        self.up.rate as u64
    }
    /// From a parent, bytes per second.
    pub(crate) fn parent(&self, node: &NodeId) -> u64 {
        self.parents.get(node).map_or(0, |m| m.rate as u64)
    }
    /// To a child, bytes per second.
    pub(crate) fn child(&self, node: &NodeId) -> u64 {
        self.children.get(node).map_or(0, |m| m.rate as u64)
    }
}

/// Edges that ended are forgotten.
fn read_edges(meters: &mut BTreeMap<NodeId, Meter>, edges: impl Iterator<Item = EdgeView>, seconds: f64) {
    let mut former = std::mem::take(meters);
    for edge in edges {
        let mut meter = former.remove(&edge.node).unwrap_or_default();
        meter.read(edge.bytes, seconds);
        meters.insert(edge.node, meter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_model::time::Micros;
    use headwater_peer_core::EdgeStage;

    #[test]
    fn rates_follow_the_counters() {
        let edge = |bytes| EdgeView {
            node: NodeId([1; 32]),
            stage: EdgeStage::Open,
            spare: false,
            bytes,
            waiting_pieces: 0,
            rtt: Micros(0),
        };
        let mut meters = Meters::new(Time(0));
        for second in 1..=20u64 {
            let bytes = second * 1_000_000;
            meters.read(Time(second * 1_000_000), (bytes, 0), [edge(bytes)].into_iter(), std::iter::empty());
        }
        let near = |rate: u64, wanted: u64| rate.abs_diff(wanted) < wanted / 50;
        assert!(near(meters.down(), 1_000_000) && near(meters.parent(&NodeId([1; 32])), 1_000_000), "{meters:?}");
        assert_eq!(meters.up(), 0);
        // Opened anew: what it counts is new.
        meters.read(Time(21_000_000), (20_000_000, 0), [edge(500_000)].into_iter(), std::iter::empty());
        assert!(near(meters.parent(&NodeId([1; 32])), 800_000), "{meters:?}");
        assert!(near(meters.down(), 600_000), "{meters:?}");
        // Gone.
        meters.read(Time(22_000_000), (20_000_000, 0), std::iter::empty(), std::iter::empty());
        assert_eq!(meters.parent(&NodeId([1; 32])), 0);
        // Once it was fast, and does not forget that at once.
        meters.read(Time(23_000_000), (30_000_000, 0), std::iter::empty(), std::iter::empty());
        (24..84u64).for_each(|s| meters.read(Time(s * 1_000_000), (30_000_000, 0), [].into_iter(), [].into_iter()));
        assert!((4_500_000..5_500_000).contains(&meters.fastest_down()), "{meters:?}");
    }
}
