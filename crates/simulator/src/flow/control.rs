//! The real control center, what viewers say to it, and what it says.

use super::viewers::{HELPERS, LANES, NONE, SOURCE, State, Viewers, Vx, Who, ms};
use super::{What, World};
use crate::live::{id_of, nx_of};
use crate::scenario::{Checks, HostSpec};
use headwater_center_core::client_manager::Arrival;
use headwater_center_core::content_directory::{Content, Kind};
use headwater_center_core::trees::Trees;
use headwater_center_core::{Center, Config, Event as Told, Input, Output};
use headwater_model::id::{Hash, NodeId};
use headwater_model::live::{LiveTrack, Substreams};
use headwater_model::node::{Accepts, Capabilities, Priority, Role};
use headwater_model::report::{ContentReport, EdgeReport, Heartbeat, Introduction, Join, LiveReport};
use headwater_model::time::{Micros, Rate, Time};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A heartbeat's words on an edge, before they are written down: the other end, a substream, and its first piece's lag.
type Word = (Vx, u8, Micros);

/// See the module.
pub(super) struct Control {
    pub(super) center: Center,
    pub(super) track: LiveTrack,
    pub(super) heartbeat: Micros,
    outputs: Vec<Output>,
    pub(super) verdicts: u64,
    pub(super) violations: Vec<String>,
    words: Vec<Word>,
}

impl Control {
    pub(super) fn new(track: LiveTrack, nodes: usize, heartbeat: Option<Micros>) -> Control {
        let default = Config::default();
        let heartbeat = heartbeat.unwrap_or(default.heartbeat);
        // Who leaves and who takes the place are both there for a while.
        let config = Config { heartbeat, max_nodes: default.max_nodes.max(nodes * 2), ..default };
        let mut center = Center::new(Time(0), config, 1, false);
        let content = Content {
            version: track.version,
            name: track.name.clone(),
            kind: Kind::Live(track.terms),
            origin_needs_credentials: false,
            share_origin_credentials: false,
            stand_in: None,
            dcm: None,
            trees: None,
        };
        let mut outputs = Vec::new();
        center.handle(Time(0), Input::Publish(Box::new(content)), &mut outputs);
        outputs.clear();
        Control { center, track, heartbeat, outputs, verdicts: 0, violations: Vec::new(), words: Vec::new() }
    }

    pub(super) fn trees(&self) -> Option<&Trees> {
        self.center.directory().trees(&self.track.version.content)
    }

    pub(super) fn check(&mut self, now: Time) {
        let of = |p| format!("the control center at {now:?}: {p}");
        self.violations.extend(self.center.check(now).into_iter().map(of));
    }
}

/// A viewer's id: spread by the seed; its place and its number are the last bytes.
pub(super) fn node_of(seed: u64, who: Who) -> NodeId {
    let mut id = id_of(seed, who.number);
    id.0[24..28].copy_from_slice(&who.vx.to_be_bytes());
    id
}

pub(super) fn who_of(id: &NodeId) -> Who {
    let [.., a, b, c, d, _, _, _, _] = id.0;
    Who { vx: u32::from_be_bytes([a, b, c, d]), number: nx_of(id) }
}

impl World<'_> {
    /// The control center hears something, and what it says about it is done.
    pub(super) fn says(&mut self, now: Time, input: Input) {
        let mut outputs = std::mem::take(&mut self.control.outputs);
        self.control.center.handle(now, input, &mut outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Assign(node, assignment) => {
                    let who = who_of(&node);
                    if self.viewers.is_there(who) {
                        let told = now + self.to_center(who.vx);
                        self.assigned(told, who.vx, &assignment);
                    }
                }
                Output::Refuse(node, _, why) => {
                    self.control.violations.push(format!("viewer {} was refused: {why}", nx_of(&node)));
                }
                Output::Close { node, why, .. } => {
                    self.control.violations.push(format!("the session of viewer {} was ended: {why}", nx_of(&node)));
                }
                Output::Event(Told::Verdict(_)) => self.control.verdicts += 1,
                // Children that come or go take what they take when they do.
                _ => {}
            }
        }
        self.control.outputs = outputs;
        if self.scenario.checks == Checks::EveryStep {
            self.control.check(now);
        }
    }

    /// One way to the control center.
    pub(super) fn to_center(&self, vx: Vx) -> Micros {
        self.net.to_origin(self.viewers.all[vx as usize].place)
    }

    /// A session begins.
    pub(super) fn arrives(&mut self, now: Time, who: Who) {
        let viewer = &self.viewers.all[who.vx as usize];
        let spec = self.hosts.get(viewer.host as usize).filter(|_| who.vx != SOURCE);
        let group = spec.and_then(|s| self.groups.get(usize::from(s.group)));
        // Each in a /24 of its own: they are unrelated.
        let [_, a, b, c] = who.number.to_be_bytes();
        let address = Ipv4Addr::new(10u8.wrapping_add(a), b, c, 1);
        let mut place = group.map(|g| g.place.clone()).unwrap_or_default();
        place.lan = Some(address.to_string());
        if let Some(region) = self.net.region(viewer.place) {
            place.country.get_or_insert_with(|| region.into());
        }
        let node = node_of(self.seed, who);
        let arrival = Arrival {
            session: u64::from(who.number),
            node,
            introduction: Introduction {
                role: Role::Peer,
                capabilities: Capabilities::regular(spec.map_or(Accepts::Open, |s| s.accepts)),
                up: Rate(u64::from(viewer.up)),
                down: Rate(u64::from(viewer.down)),
                client: "simulator".into(),
                local_addresses: Vec::new(),
                https_port: None,
            },
            observed: SocketAddr::new(IpAddr::V4(address), 4433),
            certificate: Hash(node.0),
            enrolled: group.is_none_or(|g| g.enrolled),
            place,
        };
        self.says(now, Input::Arrived(Box::new(arrival)));
    }

    pub(super) fn joins(&mut self, now: Time, who: Who) {
        let join = Join { source: who.vx == SOURCE, ..Join::to(self.control.track.version) };
        self.says(now, Input::Join(node_of(self.seed, who), join));
    }

    /// A session is over.
    pub(super) fn departs(&mut self, now: Time, who: Who, bye: bool) {
        let departed = Input::Departed { node: node_of(self.seed, who), session: u64::from(who.number), bye };
        self.says(now, departed);
    }

    /// All in one place say how they fare; what they say arrives now.
    pub(super) fn heartbeats(&mut self, now: Time, place: u8) {
        let sent = now - self.net.to_origin(place);
        for vx in 0..self.viewers.all.len() as Vx {
            let v = &self.viewers.all[vx as usize];
            if v.place == place && v.state == State::Watching && v.watches_since <= sent {
                let heartbeat = self.heartbeat(sent, vx);
                self.says(now, Input::Heartbeat(node_of(self.seed, self.viewers.who(vx)), heartbeat));
            }
        }
        let next = sent + self.control.heartbeat;
        self.queue.push(next + self.net.to_origin(place), What::Beats(place));
    }

    /// What the peer's channel says: of each parent and each child what moved, and which piece was the last.
    fn heartbeat(&mut self, now: Time, vx: Vx) -> Heartbeat {
        let mut words = std::mem::take(&mut self.control.words);
        let (viewers, at) = (&self.viewers, ms(now));
        for (s, lane) in (0..).zip(&viewers.lanes) {
            if lane.flows(vx, at) {
                words.push((lane.parent[vx as usize], s, last_lag(viewers, vx, s)));
            }
        }
        let mut from = self.edges(now, vx, &mut words, true);
        // Spares and helpers are edges, too.
        let v = &self.viewers.all[vx as usize];
        let spares =
            self.viewers.lanes.iter().filter(|l| l.spare_open[vx as usize] <= at).map(|l| l.spare[vx as usize]);
        let mut others: [Vx; LANES + HELPERS] = [NONE; LANES + HELPERS];
        others.iter_mut().zip(spares.chain(v.helpers)).for_each(|(other, of)| *other = of);
        others.sort_unstable();
        let mut last = NONE;
        for other in others.into_iter().take_while(|o| *o != NONE) {
            let node = node_of(self.seed, self.viewers.who(other));
            if other != last && from.iter().all(|e| e.node != node) {
                from.push(edge(node));
            }
            last = other;
        }
        for (s, lane) in (0..).zip(&self.viewers.lanes) {
            for child in lane.children(vx).filter(|c| lane.flows(*c, at)) {
                words.push((child, s, last_lag(&self.viewers, child, s)));
            }
        }
        let to = self.edges(now, vx, &mut words, false);
        self.control.words = words;
        let lag = (0..LANES as u8).map(|s| last_lag(&self.viewers, vx, s)).max().unwrap_or_default();
        let live = LiveReport { newest_entry: self.stream.newest(now), lag, missing: 0, lost: 0 };
        let content = ContentReport {
            version: self.control.track.version,
            runs: None,
            pieces_held: 0,
            origin_bytes: 0,
            wasted_bytes: 0,
            from,
            to,
            priority: Priority::High,
            live: Some(live),
        };
        let interval = now.0 / self.control.heartbeat.0;
        Heartbeat { interval, contents: vec![content], ..Heartbeat::default() }
    }

    /// One report for each node that there are words on.
    fn edges(&self, now: Time, vx: Vx, words: &mut Vec<Word>, from: bool) -> Vec<EdgeReport> {
        words.sort_unstable();
        let mut edges: Vec<EdgeReport> = Vec::new();
        let mut last = NONE;
        for (other, s, lag) in words.drain(..) {
            if other != last {
                edges.push(edge(node_of(self.seed, self.viewers.who(other))));
                last = other;
            }
            let Some(edge) = edges.last_mut() else { continue };
            let child = if from { vx } else { other };
            let since = self.viewers.lanes[usize::from(s)].since[child as usize];
            edge.bytes += self.stream.rate as u64 / LANES as u64 * u64::from(ms(now).saturating_sub(since)) / 1000;
            edge.pieces = edge.bytes / super::stream::PIECE;
            // What a child has now its parent sent before.
            let pieces = self.stream.pieces_before(now - lag);
            let behind = (pieces + LANES as u64 - 1 - u64::from(s)) % LANES as u64 + 1;
            if let Some(piece) = pieces.checked_sub(behind) {
                edge.last_pieces.push((s, piece));
            }
        }
        edges
    }
}

/// Lag of the last piece of a burst.
fn last_lag(viewers: &Viewers, vx: Vx, s: u8) -> Micros {
    let lane = &viewers.lanes[usize::from(s)];
    let (first, each) = (u64::from(lane.lag[vx as usize]), u64::from(lane.spacing[vx as usize]));
    Micros((first + each * 8).min(60_000_000))
}

fn edge(node: NodeId) -> EdgeReport {
    EdgeReport {
        node,
        pieces: 0,
        bytes: 0,
        waited: Micros(0),
        rtt: Micros(0),
        sent_packets: 0,
        lost_packets: 0,
        offers_nothing: false,
        last_pieces: Vec::new(),
    }
}

/// The substreams as a set.
pub(super) fn set_of(lanes: impl Iterator<Item = usize>) -> Substreams {
    let mut set = Substreams::default();
    lanes.for_each(|s| set.insert(s as u8));
    set
}

/// A host, as far as it is kept for all the run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    pub(super) up: u32,
    pub(super) down: u32,
    pub(super) group: u16,
    pub(super) place: u8,
    pub(super) accepts: Accepts,
}

/// What hosts of a group have in common.
#[derive(Clone, Debug)]
pub(super) struct OfGroup {
    pub(super) place: headwater_model::place::Place,
    pub(super) enrolled: bool,
}

impl OfGroup {
    pub(super) fn of(host: &HostSpec) -> OfGroup {
        OfGroup { place: host.place.clone(), enrolled: host.enrolled }
    }
}
