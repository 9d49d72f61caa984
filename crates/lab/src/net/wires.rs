//! The links: where each packet is when, and which are dropped. Pure but for its random stream; time is nanoseconds since
//! the network was built.
//!
//! A packet passes the uplink of its line, the peering link when the ISPs differ, the delay of the path, and the downlink of
//! its destination. A link is a queue in virtual time: what enters leaves after what is ahead of it and after its own bytes
//! at the link's rate; what would wait longer than the queue holds is dropped.

use super::packet::{self, Glance};
use headwater_model::rng::Rng;
use headwater_simulator::scenario::NetworkSpec;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::IpAddr;

const NS_PER_MS: f64 = 1e6;
/// Pairs of destination and sender that are counted.
const PAIRS_COUNTED_MAX: usize = 65_536;
/// Buffers kept for reuse.
const SPARE_FRAMES_MAX: usize = 8192;

/// What went over one direction of a link, or did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// IP bytes, as segments on the wire.
    pub bytes: u64,
    /// Packets, as segments on the wire.
    pub packets: u64,
    /// Packets that the queue had no room for.
    pub dropped_queue: u64,
    /// Packets lost at random: on an uplink those of the paths behind it.
    pub dropped_loss: u64,
    /// Packets that met a cut.
    pub dropped_cut: u64,
}

/// One direction of a link.
#[derive(Clone, Debug)]
pub struct Link {
    ns_per_byte: f64,
    queue_ns: u64,
    busy_until: u64,
    pub counters: LinkCounters,
}

impl Link {
    fn new(mbit: f64, queue_ms: f64) -> Self {
        let queue_ns = (queue_ms * NS_PER_MS) as u64;
        Self { ns_per_byte: ns_per_byte(mbit), queue_ns, busy_until: 0, counters: LinkCounters::default() }
    }

    /// When the last byte of a parcel that is here at `now` is through; `None`: dropped.
    fn pass(&mut self, now: u64, parcel: &mut Parcel) -> Option<u64> {
        if self.busy_until.saturating_sub(now) > self.queue_ns {
            self.counters.dropped_queue += u64::from(parcel.packets);
            return None;
        }
        let whole = (f64::from(parcel.bytes) * self.ns_per_byte) as u64;
        let segment = whole / u64::from(parcel.packets);
        // Its first segment came `spread_ns` before its last one, and was sent on meanwhile.
        let started = now.saturating_sub(parcel.spread_ns).max(self.busy_until);
        self.busy_until = (started + whole).max(now + segment);
        parcel.spread_ns = parcel.spread_ns.max(whole - segment);
        self.counters.bytes += u64::from(parcel.bytes);
        self.counters.packets += u64::from(parcel.packets);
        Some(self.busy_until)
    }
}

fn ns_per_byte(mbit: f64) -> f64 {
    8e3 / mbit.max(1e-3)
}

/// A line: both directions.
#[derive(Clone, Debug)]
pub struct Line {
    isp: usize,
    pub up: Link,
    pub down: Link,
    pub up_mbit: f64,
    pub cut: bool,
}

impl Line {
    /// What already waits keeps its times.
    pub fn set_rates(&mut self, up_mbit: f64, down_mbit: f64) {
        self.up.ns_per_byte = ns_per_byte(up_mbit);
        self.down.ns_per_byte = ns_per_byte(down_mbit);
        self.up_mbit = up_mbit;
    }
}

/// The path from one line to another.
#[derive(Clone, Copy, Debug, Default)]
struct Path {
    /// When the latest parcel arrives: jitter does not reorder.
    latest: u64,
    cut: bool,
    corrupt: f64,
}

/// A packet on its way.
struct Parcel {
    from: u32,
    to: u32,
    bytes: u32,
    packets: u32,
    /// Time between the arrivals of its first and its last segment.
    spread_ns: u64,
    frame: Vec<u8>,
}

enum Stage {
    Peering,
    Downlink,
    Arrived,
}

struct Event {
    at: u64,
    /// Order among equals.
    number: u64,
    stage: Stage,
    parcel: Parcel,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// All links, and what is on them.
pub struct Wires {
    inside_ns: u64,
    across_ns: u64,
    jitter_ns: u64,
    loss: f64,
    peering_loss: f64,
    peering_cut: bool,
    isps: Vec<u16>,
    lines: Vec<Line>,
    /// From × to.
    paths: Vec<Path>,
    /// From × to.
    peering: Vec<Link>,
    routes: HashMap<IpAddr, u32>,
    seen: HashMap<(IpAddr, IpAddr), u64>,
    events: BinaryHeap<Reverse<Event>>,
    numbers: u64,
    spare_frames: Vec<Vec<u8>>,
    rng: Rng,
    /// Packets to addresses that nobody has.
    pub to_nobody: u64,
    /// Packets that a device did not take.
    pub refused: u64,
    /// Processor time of the thread that drives this, in seconds.
    pub cpu_s: f64,
}

impl Wires {
    /// Links of a network whose lines, each with its ISP and its rates up and down in Mbit/s, are given.
    pub fn new(network: &NetworkSpec, lines: &[(u16, f64, f64)]) -> Self {
        let mut isps: Vec<u16> = lines.iter().map(|(isp, _, _)| *isp).collect();
        isps.sort_unstable();
        isps.dedup();
        let line = |(isp, up, down): &(u16, f64, f64)| Line {
            isp: isps.partition_point(|i| i < isp),
            up: Link::new(*up, network.queue_ms),
            down: Link::new(*down, network.queue_ms),
            up_mbit: *up,
            cut: false,
        };
        Self {
            inside_ns: (network.rtt_inside_ms / 2.0 * NS_PER_MS) as u64,
            across_ns: (network.rtt_across_ms / 2.0 * NS_PER_MS) as u64,
            jitter_ns: (network.jitter_ms * NS_PER_MS) as u64,
            loss: network.loss_percent / 100.0,
            peering_loss: network.peering_loss_percent / 100.0,
            peering_cut: false,
            lines: lines.iter().map(line).collect(),
            paths: vec![Path::default(); lines.len() * lines.len()],
            peering: vec![Link::new(network.peering_mbit, network.queue_ms); isps.len() * isps.len()],
            isps,
            routes: HashMap::new(),
            seen: HashMap::new(),
            events: BinaryHeap::new(),
            numbers: 0,
            spare_frames: Vec::new(),
            rng: Rng::new(1, "wires"),
            to_nobody: 0,
            refused: 0,
            cpu_s: 0.0,
        }
    }

    /// Packets to an address go to a line from now on.
    pub fn route(&mut self, to: IpAddr, line: usize) {
        self.routes.insert(to, line as u32);
    }

    /// A line has another address.
    pub fn move_address(&mut self, old: IpAddr, new: IpAddr, line: usize) {
        self.routes.remove(&old);
        self.route(new, line);
    }

    /// A line.
    pub fn line(&self, line: usize) -> &Line {
        &self.lines[line]
    }

    /// A line, to change it.
    pub fn line_mut(&mut self, line: usize) -> &mut Line {
        &mut self.lines[line]
    }

    /// Whether something happens to single packets, so that none may stand for several.
    pub fn singles_only(&self) -> bool {
        self.loss > 0.0 || self.peering_loss > 0.0 || self.paths.iter().any(|path| path.corrupt > 0.0)
    }

    pub fn cut_pair(&mut self, a: usize, b: usize, cut: bool) {
        for at in [a * self.lines.len() + b, b * self.lines.len() + a] {
            self.paths[at].cut = cut;
        }
    }

    pub fn corrupt_pair(&mut self, a: usize, b: usize, percent: f64) {
        for at in [a * self.lines.len() + b, b * self.lines.len() + a] {
            self.paths[at].corrupt = percent / 100.0;
        }
    }

    pub fn set_peering(&mut self, mbit: f64, loss_percent: f64, cut: bool) {
        for link in &mut self.peering {
            link.ns_per_byte = ns_per_byte(mbit);
        }
        self.peering_loss = loss_percent / 100.0;
        self.peering_cut = cut;
    }

    /// Of each ordered pair of ISPs.
    pub fn peering_counters(&self) -> BTreeMap<(u16, u16), LinkCounters> {
        let count = self.isps.len();
        let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to))).filter(|(from, to)| from != to);
        pairs.map(|(a, b)| ((self.isps[a], self.isps[b]), self.peering[a * count + b].counters)).collect()
    }

    /// Who sent packets to an address.
    pub fn packets_to(&self, to: IpAddr) -> Vec<(IpAddr, u64)> {
        let mut senders: Vec<(IpAddr, u64)> =
            self.seen.iter().filter(|((seen, _), _)| *seen == to).map(|((_, from), count)| (*from, *count)).collect();
        senders.sort_unstable();
        senders
    }

    /// A packet leaves a line's device.
    pub fn enter(&mut self, now: u64, line: usize, frame: &[u8]) {
        // What is not IP, or for the device's own link only (router solicitations …), goes nowhere.
        let Some(glance) = packet::glance(frame).filter(|glance| !is_local(glance.to)) else { return };
        self.note(&glance);
        let Some(to) = self.routes.get(&glance.to).copied() else {
            self.to_nobody += u64::from(glance.packets);
            return;
        };
        let path = self.paths[line * self.lines.len() + to as usize];
        let other_cut = self.lines[to as usize].cut;
        let from = &mut self.lines[line];
        if from.cut || other_cut || path.cut {
            from.up.counters.dropped_cut += u64::from(glance.packets);
            return;
        }
        let Glance { bytes, packets, .. } = glance;
        let mut parcel = Parcel { from: line as u32, to, bytes, packets, spread_ns: 0, frame: Vec::new() };
        let Some(at) = from.up.pass(now, &mut parcel) else { return };
        parcel.frame = self.spare_frames.pop().unwrap_or_default();
        parcel.frame.extend_from_slice(frame);
        if self.lines[line].isp == self.lines[to as usize].isp {
            self.travel(at, self.inside_ns, parcel);
        } else {
            self.schedule(at, Stage::Peering, parcel);
        }
    }

    /// When something happens next.
    pub fn next_at(&self) -> Option<u64> {
        self.events.peek().map(|event| event.0.at)
    }

    /// The next packet that has arrived by `now`, with the line of its destination; give its buffer back.
    pub fn arrival(&mut self, now: u64) -> Option<(usize, Vec<u8>)> {
        while self.events.peek().is_some_and(|event| event.0.at <= now) {
            let Reverse(Event { at, stage, mut parcel, .. }) = self.events.pop()?;
            match stage {
                Stage::Peering => self.cross(at, parcel),
                Stage::Downlink => {
                    let line = &mut self.lines[parcel.to as usize];
                    if line.cut {
                        line.down.counters.dropped_cut += u64::from(parcel.packets);
                        self.give_back(parcel.frame);
                    } else if let Some(at) = line.down.pass(at, &mut parcel) {
                        self.schedule(at, Stage::Arrived, parcel);
                    } else {
                        self.give_back(parcel.frame);
                    }
                }
                Stage::Arrived => {
                    let corrupt = self.paths[parcel.from as usize * self.lines.len() + parcel.to as usize].corrupt;
                    if corrupt > 0.0 && self.rng.unit() < corrupt {
                        packet::corrupt(&mut parcel.frame, self.rng.next_u64());
                    }
                    return Some((parcel.to as usize, parcel.frame));
                }
            }
        }
        None
    }

    /// Takes a buffer back.
    pub fn give_back(&mut self, mut frame: Vec<u8>) {
        if self.spare_frames.len() < SPARE_FRAMES_MAX {
            frame.clear();
            self.spare_frames.push(frame);
        }
    }

    fn note(&mut self, glance: &Glance) {
        let pair = (glance.to, glance.from);
        let packets = u64::from(glance.packets);
        if let Some(count) = self.seen.get_mut(&pair) {
            *count += packets;
        } else if self.seen.len() < PAIRS_COUNTED_MAX {
            self.seen.insert(pair, packets);
        }
    }

    /// Over the link between two ISPs.
    fn cross(&mut self, now: u64, mut parcel: Parcel) {
        let (from, to) = (self.lines[parcel.from as usize].isp, self.lines[parcel.to as usize].isp);
        let link = &mut self.peering[from * self.isps.len() + to];
        if self.peering_cut {
            link.counters.dropped_cut += u64::from(parcel.packets);
        } else if self.peering_loss > 0.0 && self.rng.unit() < self.peering_loss {
            link.counters.dropped_loss += u64::from(parcel.packets);
        } else if let Some(at) = link.pass(now, &mut parcel) {
            return self.travel(at, self.across_ns, parcel);
        }
        self.give_back(parcel.frame);
    }

    /// Along the path: delay, jitter, loss.
    fn travel(&mut self, now: u64, delay_ns: u64, parcel: Parcel) {
        if self.loss > 0.0 && self.rng.unit() < self.loss {
            self.lines[parcel.from as usize].up.counters.dropped_loss += u64::from(parcel.packets);
            return self.give_back(parcel.frame);
        }
        let jitter = if self.jitter_ns > 0 { self.rng.below(self.jitter_ns + 1) } else { 0 };
        let path = &mut self.paths[parcel.from as usize * self.lines.len() + parcel.to as usize];
        path.latest = path.latest.max(now + delay_ns + jitter);
        let at = path.latest;
        self.schedule(at, Stage::Downlink, parcel);
    }

    fn schedule(&mut self, at: u64, stage: Stage, parcel: Parcel) {
        self.numbers += 1;
        self.events.push(Reverse(Event { at, number: self.numbers, stage, parcel }));
    }
}

fn is_local(to: IpAddr) -> bool {
    match to {
        IpAddr::V4(to) => to.is_multicast() || to.is_broadcast() || to.is_unspecified() || to.is_link_local(),
        IpAddr::V6(to) => to.is_multicast() || to.is_unspecified() || to.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::packet::VNET_BYTES;

    const MS: u64 = 1_000_000;

    fn address(line: usize) -> IpAddr {
        IpAddr::from([20, 1, line as u8, 2])
    }

    /// Lines of 8 Mbit/s, 1,000 bytes in a millisecond: two in ISP 1, one in ISP 2, whose links are eight times as fast.
    fn wires(network: NetworkSpec) -> Wires {
        let network = NetworkSpec { peering_mbit: 64.0, ..network };
        let mut wires = Wires::new(&network, &[(1, 8.0, 8.0), (1, 8.0, 8.0), (2, 8.0, 8.0)]);
        for line in 0..3 {
            wires.route(address(line), line);
        }
        wires
    }

    /// A UDP packet of 1,000 bytes, or one for several of those.
    fn frame(to: IpAddr, segments: usize) -> Vec<u8> {
        let mut frame = vec![0; VNET_BYTES + 28 + 972 * segments];
        if segments > 1 {
            frame[1] = 5;
            frame[4..6].copy_from_slice(&972u16.to_le_bytes());
        }
        frame[VNET_BYTES] = 0x45;
        frame[VNET_BYTES + 9] = 17;
        if let IpAddr::V4(to) = to {
            frame[VNET_BYTES + 16..VNET_BYTES + 20].copy_from_slice(&to.octets());
        }
        frame
    }

    /// When each packet arrives, in nanoseconds, with its line.
    fn arrivals(wires: &mut Wires) -> Vec<(u64, usize)> {
        let mut arrived = Vec::new();
        while let Some(at) = wires.next_at() {
            if let Some((line, frame)) = wires.arrival(at) {
                arrived.push((at, line));
                wires.give_back(frame);
            }
        }
        arrived
    }

    #[test]
    fn a_packet_takes_its_bytes_and_the_delay() {
        let mut wires = wires(NetworkSpec::default());
        wires.enter(0, 0, &frame(address(1), 1));
        assert_eq!(arrivals(&mut wires), [((1 + 10 + 1) * MS, 1)]);
        wires.enter(100 * MS, 0, &frame(address(2), 1));
        assert_eq!(arrivals(&mut wires), [((100 + 1 + 30 + 1) * MS + MS / 8, 2)]);
    }

    #[test]
    fn several_in_one_are_not_stored_and_forwarded_whole() {
        let mut wires = wires(NetworkSpec::default());
        wires.enter(0, 0, &frame(address(1), 10));
        assert_eq!(arrivals(&mut wires), [((10 + 10 + 1) * MS, 1)], "as ten packets, of which the last counts");
        assert_eq!((wires.line(1).down.counters.packets, wires.line(1).down.counters.bytes), (10, 10_000));
    }

    #[test]
    fn a_queue_holds_its_time_and_drops_the_rest() {
        let mut wires = wires(NetworkSpec { queue_ms: 20.0, ..NetworkSpec::default() });
        for _ in 0..100 {
            wires.enter(0, 0, &frame(address(1), 1));
        }
        let arrived = arrivals(&mut wires);
        assert_eq!(arrived.len(), 21, "the queue, and the one that is being sent");
        assert_eq!(arrived.last(), Some(&((21 + 10 + 1) * MS, 1)));
        assert_eq!(wires.line(0).up.counters.dropped_queue, 79);
    }

    #[test]
    fn jitter_delays_and_does_not_reorder() {
        let mut wires = wires(NetworkSpec { jitter_ms: 50.0, queue_ms: 500.0, ..NetworkSpec::default() });
        for n in 0..100 {
            wires.enter(n * 2 * MS, 0, &frame(address(1), 1));
        }
        let arrived = arrivals(&mut wires);
        assert_eq!(arrived.len(), 100);
        assert!(arrived.is_sorted());
        assert!(arrived.iter().enumerate().all(|(n, (at, _))| *at >= (n as u64 * 2 + 12) * MS));
    }

    #[test]
    fn strangers_and_former_addresses_are_counted_and_go_nowhere() {
        let mut wires = wires(NetworkSpec::default());
        let new = IpAddr::from([20, 1, 9, 2]);
        wires.move_address(address(1), new, 1);
        wires.enter(0, 0, &frame(address(1), 1));
        wires.enter(0, 0, &frame(IpAddr::from([224, 0, 0, 1]), 1));
        wires.enter(0, 0, &[1, 2, 3]);
        assert_eq!((arrivals(&mut wires).len(), wires.to_nobody), (0, 1));
        assert_eq!(wires.packets_to(address(1)), [(IpAddr::from([0, 0, 0, 0]), 1)]);
        wires.enter(0, 0, &frame(new, 1));
        assert_eq!(arrivals(&mut wires).len(), 1);
    }
}
