//! What a shaped link really carries: the goodput of one transfer alone over a link of a given line rate, and the bytes on
//! the wire for each byte of it. Bounds, and the simulator's run beside the lab's, are computed from that.
//!
//! Links are calibrated without loss and jitter: a single transfer does not fill a lossy link, many together nearly do,
//! and a bound must not be above what many can reach.

use crate::net::{Net, NetError, NetHost, NetSpec};
use crate::outcome::CalibratedRate;
use headwater_simulator::Scenario;
use headwater_simulator::scenario::{HostSpec, MBIT, NetworkSpec, Reach};
use headwater_transport::{Alpn, Identity, Listener, bind};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Distinct rates that are measured in one scenario; others are interpolated.
const RATES_MAX: usize = 3;
/// Slow start, and the queue's first overflow, are over then.
const WARM_UP: Duration = Duration::from_secs(2);
/// A rate with less goodput over line rate than this is measured again: a busy machine, or an unlucky loss, held it up.
const WEAK: f64 = 0.93;
/// How often a rate is measured at most. The best counts: a bound must not be below what the link can do.
const ATTEMPTS: u32 = 3;
/// What is measured after it.
const MEASURED: Duration = Duration::from_secs(3);
/// A transfer that has not ended by then never will.
const PATIENCE: Duration = Duration::from_secs(20);
/// The other end's link, wide enough to be no limit.
const WIDE_MBIT: f64 = 1_000.0;
const BLOCK_BYTES: usize = 64 << 10;

/// What carries a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// QUIC, as between nodes.
    Quic,
    /// TCP, as from an HTTP origin.
    Tcp,
}

/// One calibrated rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// The line's rate: IP bytes, in Mbit/s.
    pub line_mbit: f64,
    /// What one transfer gets over it, in Mbit/s.
    pub goodput_mbit: f64,
    /// IP bytes that the sender's link carries for each byte that arrives in the other end's program.
    pub wire_per_payload: f64,
}

impl Point {
    /// Goodput over line rate.
    pub fn factor(&self) -> f64 {
        self.goodput_mbit / self.line_mbit
    }
}

/// The calibrated rates of one scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// Line rates of all the scenario's links, in Mbit/s, ascending.
    pub lines: Vec<f64>,
    /// With QUIC, by rate; at least one.
    pub quic: Vec<Point>,
    /// The origin's link with TCP.
    pub origin_tcp: Point,
}

impl Calibration {
    /// Goodput over line rate of a link of `line_mbit`: between two measured rates on the line through them, outside
    /// them as at the nearest.
    pub fn factor(&self, line_mbit: f64) -> f64 {
        let above = self.quic.partition_point(|p| p.line_mbit < line_mbit);
        match (above.checked_sub(1).and_then(|i| self.quic.get(i)), self.quic.get(above)) {
            (Some(low), Some(high)) => {
                let share = (line_mbit - low.line_mbit) / (high.line_mbit - low.line_mbit);
                low.factor() + share * (high.factor() - low.factor())
            }
            (Some(only), None) | (None, Some(only)) => only.factor(),
            (None, None) => 1.0,
        }
    }

    /// Goodput of a link of `line_mbit`, in bytes per second.
    pub fn goodput(&self, line_mbit: f64) -> f64 {
        line_mbit * MBIT * self.factor(line_mbit)
    }

    /// Goodput of the origin's link over its line rate: QUIC's or TCP's, whichever is higher.
    pub fn origin_factor(&self) -> f64 {
        self.factor(self.origin_tcp.line_mbit).max(self.origin_tcp.factor())
    }

    /// Goodput of the origin's link, in bytes per second.
    pub fn origin_goodput(&self) -> f64 {
        self.origin_tcp.line_mbit * MBIT * self.origin_factor()
    }

    /// All rates, as an outcome lists them.
    pub fn told(&self) -> Vec<CalibratedRate> {
        let told = |line_mbit: f64, goodput: f64, wire_per_payload, measured, by: &str| CalibratedRate {
            line_mbit,
            goodput_bytes_per_s: goodput,
            wire_per_payload,
            measured,
            by: by.into(),
        };
        let mut all: Vec<CalibratedRate> = self
            .lines
            .iter()
            .map(|line| match self.quic.iter().find(|p| p.line_mbit == *line) {
                Some(p) => told(*line, p.goodput_mbit * MBIT, p.wire_per_payload, true, "quic"),
                None => told(*line, self.goodput(*line), self.wire_per_payload(), false, "quic"),
            })
            .collect();
        let p = &self.origin_tcp;
        all.push(told(p.line_mbit, p.goodput_mbit * MBIT, p.wire_per_payload, true, "http"));
        all
    }

    /// IP bytes per byte of payload between nodes: the median of what was measured.
    pub fn wire_per_payload(&self) -> f64 {
        let mut all: Vec<f64> = self.quic.iter().map(|p| p.wire_per_payload).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(1.0)
    }
}

/// Why links could not be calibrated.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// The small network for it could not be built.
    #[error("the network to calibrate links in: {0}")]
    Net(#[from] NetError),
    /// A transfer failed.
    #[error("calibrating a link of {line_mbit} Mbit/s: {what}")]
    Transfer {
        /// Which link.
        line_mbit: f64,
        /// Why.
        what: String,
    },
}

/// What was measured; each rate is once, however many scenarios have it.
#[derive(Debug, Default)]
pub struct Cache {
    known: BTreeMap<Job, Point>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Job {
    carrier: Carrier,
    line_kbit: u64,
    rtt_us: u64,
    queue_us: u64,
    ipv6: bool,
}

impl Job {
    fn line_mbit(&self) -> f64 {
        self.line_kbit as f64 / 1e3
    }
}

impl Cache {
    /// The calibrated rates for `scenario`: its lowest, middle and highest rate with QUIC, the origin's with TCP too.
    /// Takes some six seconds, unless all of them are known, and up to three times that on a busy machine.
    ///
    /// # Errors
    /// [`CalibrateError`].
    pub fn calibrate(&mut self, scenario: &Scenario, hosts: &[HostSpec]) -> Result<Calibration, CalibrateError> {
        let network = scenario.network.unwrap_or_default();
        let job = |carrier, mbit: f64| Job {
            carrier,
            line_kbit: (mbit * 1e3).round() as u64,
            rtt_us: (network.rtt_inside_ms * 1e3) as u64,
            queue_us: (network.queue_ms * 1e3) as u64,
            ipv6: network.ipv6,
        };
        let origin = job(Carrier::Tcp, scenario.origin_up_mbit);
        let lines = rates(scenario, hosts);
        let quic: Vec<Job> = ends_and_middle(&lines).into_iter().map(|r| job(Carrier::Quic, r)).collect();
        let wanted: Vec<Job> = quic.iter().chain([&origin]).copied().collect();
        let mut open: Vec<Job> = wanted.iter().filter(|j| !self.known.contains_key(j)).copied().collect();
        for _ in 0..ATTEMPTS {
            if open.is_empty() {
                break;
            }
            for (job, point) in measure(&network, &open)? {
                let best = self.known.entry(job).or_insert(point);
                if point.goodput_mbit > best.goodput_mbit {
                    *best = point;
                }
            }
            open.retain(|job| self.known.get(job).is_none_or(|best| best.factor() < WEAK));
        }
        let point = |job: &Job| {
            let not_measured = || CalibrateError::Transfer { line_mbit: job.line_mbit(), what: "not measured".into() };
            self.known.get(job).copied().ok_or_else(not_measured)
        };
        Ok(Calibration { lines, quic: quic.iter().map(point).collect::<Result<_, _>>()?, origin_tcp: point(&origin)? })
    }
}

/// All rates of links of hosts, sites and the origin, ascending.
fn rates(scenario: &Scenario, hosts: &[HostSpec]) -> Vec<f64> {
    let hosts = hosts.iter().flat_map(|h| [h.up_mbit, h.down_mbit]);
    let sites = scenario.sites.iter().flat_map(|s| [s.up_mbit, s.down_mbit]);
    let mut all: Vec<f64> = hosts.chain(sites).chain([scenario.origin_up_mbit]).filter(|r| *r > 0.0).collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    all
}

/// At most [`RATES_MAX`] of ascending `rates`.
fn ends_and_middle(rates: &[f64]) -> Vec<f64> {
    if rates.len() <= RATES_MAX {
        return rates.to_vec();
    }
    let last = rates.len() - 1;
    [0, last / 2, last].iter().filter_map(|i| rates.get(*i).copied()).collect()
}

/// All jobs at once, each on two hosts of its own: the even ones send.
fn measure(network: &NetworkSpec, jobs: &[Job]) -> Result<Vec<(Job, Point)>, CalibrateError> {
    let host = |name: String, up_mbit: f64| NetHost {
        name,
        isp: 1,
        up_mbit,
        down_mbit: WIDE_MBIT,
        reach: Reach::Open,
        site: None,
    };
    let pair = |(i, job): (usize, &Job)| {
        [host(format!("sends-{i}"), job.line_mbit()), host(format!("receives-{i}"), WIDE_MBIT)]
    };
    let network = NetworkSpec { loss_percent: 0.0, jitter_ms: 0.0, ..*network };
    let hosts = jobs.iter().enumerate().flat_map(pair).collect();
    let net = Net::build(NetSpec { network, sites: Vec::new(), hosts })?;
    std::thread::scope(|scope| {
        let net = &net;
        let start = |(i, job): (usize, &Job)| {
            let job = *job;
            scope.spawn(move || measure_one(net, 2 * i, job).map(|point| (job, point)))
        };
        let running: Vec<_> = jobs.iter().enumerate().map(start).collect();
        let died = |_| CalibrateError::Transfer { line_mbit: 0.0, what: "a thread ended early".into() };
        running.into_iter().map(|r| r.join().map_err(died)?).collect()
    })
}

/// When the measured part of a transfer begins or ends, and the payload until then.
type Moment = (Instant, u64);

fn measure_one(net: &Net, sender: usize, job: Job) -> Result<Point, CalibrateError> {
    let receiver = sender + 1;
    let to = net.address(sender);
    std::thread::scope(|scope| {
        let (listening, address) = channel();
        let (tell, told) = channel();
        let sending = scope.spawn(move || net.within(sender, move || send(job, to, &listening)));
        let receiving = scope.spawn(move || net.within(receiver, move || receive(job, &address, &tell)));
        let wire = || net.counters().hosts.get(sender).map_or(0, |h| h.up.bytes);
        let moment = || told.recv_timeout(PATIENCE).map(|(at, bytes)| (at, bytes, wire()));
        let moments = moment().and_then(|begin| moment().map(|end| (begin, end)));
        let ended =
            |thread: std::thread::ScopedJoinHandle<'_, Result<Result<(), String>, NetError>>| match thread.join() {
                Ok(Ok(result)) => result,
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("a thread ended early".into()),
            };
        // The sender is told by the receiver's going, or by its own patience.
        let received = ended(receiving);
        let sent = ended(sending);
        let ((begun, bytes_then, wire_then), (over, bytes, wire)) = moments.map_err(|silent| {
            let silent = match silent {
                RecvTimeoutError::Timeout => "the transfer stands still",
                RecvTimeoutError::Disconnected => "the transfer ended early",
            };
            let what = received.err().or(sent.err()).unwrap_or_else(|| silent.to_owned());
            CalibrateError::Transfer { line_mbit: job.line_mbit(), what }
        })?;
        let payload = (bytes - bytes_then) as f64;
        Ok(Point {
            line_mbit: job.line_mbit(),
            goodput_mbit: payload / MBIT / over.duration_since(begun).as_secs_f64(),
            wire_per_payload: (wire - wire_then) as f64 / payload,
        })
    })
}

/// Sends until the receiver goes.
fn send(job: Job, from: IpAddr, listening: &Sender<SocketAddr>) -> Result<(), String> {
    match job.carrier {
        Carrier::Tcp => {
            let listener = TcpListener::bind(SocketAddr::new(from, 0)).map_err(|e| e.to_string())?;
            let _ = listening.send(listener.local_addr().map_err(|e| e.to_string())?);
            let (mut stream, _) = listener.accept().map_err(|e| e.to_string())?;
            stream.set_write_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
            let block = vec![0; BLOCK_BYTES];
            while stream.write_all(&block).is_ok() {}
            Ok(())
        }
        Carrier::Quic => within_patience(async {
            let listener = quic(from, &[Alpn::Peer])?;
            let _ = listening.send(listener.address().map_err(|e| e.to_string())?);
            let incoming = listener.endpoint.accept().await.ok_or("the endpoint closed")?;
            let connection = incoming.await.map_err(|e| e.to_string())?;
            let mut stream = connection.open_uni().await.map_err(|e| e.to_string())?;
            let block = vec![0; BLOCK_BYTES];
            while stream.write_all(&block).await.is_ok() {}
            Ok(())
        }),
    }
}

/// Receives for [`WARM_UP`] and [`MEASURED`], and tells the moments at the end of both.
fn receive(job: Job, address: &Receiver<SocketAddr>, tell: &Sender<Moment>) -> Result<(), String> {
    let address = address.recv_timeout(PATIENCE).map_err(|_| "nobody listens".to_owned())?;
    let mut watch = Watch { begun: None, bytes: 0, moments: 0, tell };
    match job.carrier {
        Carrier::Tcp => {
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|e| e.to_string())?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
            let mut block = vec![0; BLOCK_BYTES];
            while watch.goes_on() {
                watch.received(stream.read(&mut block).map_err(|e| e.to_string())?);
            }
            Ok(())
        }
        Carrier::Quic => within_patience(async {
            let any: IpAddr =
                if address.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
            let dialler = quic(any, &[])?;
            let connection = dialler.dial(address, None, Alpn::Peer).await.map_err(|e| e.to_string())?;
            let mut stream = connection.accept_uni().await.map_err(|e| e.to_string())?;
            while watch.goes_on() {
                let chunk = stream.read_chunk(BLOCK_BYTES, true).await.map_err(|e| e.to_string())?;
                watch.received(chunk.ok_or("the stream ended")?.bytes.len());
            }
            connection.close(0u32.into(), b"measured");
            dialler.endpoint.wait_idle().await;
            Ok(())
        }),
    }
}

/// Counts what arrives, and tells the two moments.
struct Watch<'a> {
    begun: Option<Instant>,
    bytes: u64,
    moments: u8,
    tell: &'a Sender<Moment>,
}

impl Watch<'_> {
    fn goes_on(&self) -> bool {
        self.moments < 2
    }

    fn received(&mut self, bytes: usize) {
        let now = Instant::now();
        let begun = *self.begun.get_or_insert(now);
        self.bytes += bytes as u64;
        let due = if self.moments == 0 { WARM_UP } else { WARM_UP + MEASURED };
        if now.duration_since(begun) >= due {
            self.moments += 1;
            let _ = self.tell.send((now, self.bytes));
        }
    }
}

fn quic(from: IpAddr, accept: &[Alpn]) -> Result<Listener, String> {
    let identity = Identity::ephemeral().map_err(|e| e.to_string())?;
    bind(SocketAddr::new(from, 0), Arc::new(identity), accept).map_err(|e| e.to_string())
}

/// Runs `work` on this thread, whose sockets are then made in this thread's namespace.
fn within_patience(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err("the transfer stands still".into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(line_mbit: f64, factor: f64) -> Point {
        Point { line_mbit, goodput_mbit: line_mbit * factor, wire_per_payload: 1.0 / factor }
    }

    #[test]
    fn factors_between_measured_rates_are_interpolated() {
        let quic = vec![point(10.0, 0.9), point(20.0, 0.92), point(40.0, 0.96)];
        let c = Calibration { lines: vec![2.0, 20.0], quic, origin_tcp: point(20.0, 0.95) };
        for (rate, factor) in [(2.0, 0.9), (10.0, 0.9), (15.0, 0.91), (20.0, 0.92), (30.0, 0.94), (200.0, 0.96)] {
            assert!((c.factor(rate) - factor).abs() < 1e-9, "{rate}: {}", c.factor(rate));
        }
        assert!((c.goodput(20.0) - 2.5e6 * 0.92).abs() < 1e-3);
        assert!((c.origin_goodput() - 2.5e6 * 0.95).abs() < 1e-3);
        assert!((c.wire_per_payload() - 1.0 / 0.92).abs() < 1e-9);
        let told: Vec<(f64, bool)> = c.told().iter().map(|r| (r.line_mbit, r.measured)).collect();
        assert_eq!(told, [(2.0, false), (20.0, true), (20.0, true)]);
    }

    /// A second scenario with the same links must cost nothing.
    #[test]
    fn one_transfer_gets_nearly_the_whole_link() {
        let _alone = crate::net::tests::alone();
        let scenario = "name = \"x\"\ncontent_bytes = 1\npiece_bytes = 65536\norigin_up_mbit = 20.0\n[network]\n\
            [[groups]]\ncount = 1\nup_mbit = 5.0\ndown_mbit = 20.0\n";
        let scenario: Scenario = toml::from_str(scenario).unwrap();
        let mut cache = Cache::default();
        let calibration = match cache.calibrate(&scenario, &scenario.hosts(1)) {
            Err(CalibrateError::Net(error @ (NetError::NotRoot | NetError::Missing { .. }))) => {
                return eprintln!("SKIPPED: {error}");
            }
            calibration => calibration.unwrap(),
        };
        eprintln!("{calibration:?}");
        assert_eq!(calibration.lines, [5.0, 20.0]);
        for point in calibration.quic.iter().chain([&calibration.origin_tcp]) {
            // Headers of IP, UDP or TCP, and QUIC take 3 to 6 %; a busy machine takes some more.
            assert!((0.8..0.98).contains(&point.factor()), "{point:?}");
            assert!((1.02..1.15).contains(&point.wire_per_payload), "{point:?}");
        }
        let again = Instant::now();
        assert_eq!(cache.calibrate(&scenario, &scenario.hosts(2)).unwrap(), calibration);
        assert!(again.elapsed() < Duration::from_millis(500));
    }

    #[test]
    fn at_most_three_rates_are_measured() {
        assert_eq!(ends_and_middle(&[1.0, 2.0]), [1.0, 2.0]);
        assert_eq!(ends_and_middle(&(1..=9).map(f64::from).collect::<Vec<_>>()), [1.0, 5.0, 9.0]);
    }
}
