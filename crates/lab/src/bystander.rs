//! The user's own traffic on a host's line while the host serves others: small packets there and back all the time, a video
//! call's stream upwards where the scenario says so; and what serving did to them.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use headwater_simulator::scenario::{Bystander, MBIT};

use crate::measure::Seen;
use crate::net::Net;
use crate::outcome::BystanderOutcome;
use crate::site::{CONTROL, FIRST};

/// Port on the control center's host that answers.
const PORT: u16 = 9;
/// Between two small packets.
const PING_EVERY: Duration = Duration::from_millis(50);
/// Between two packets of a call.
const CALL_EVERY: Duration = Duration::from_millis(20);
/// IP and UDP headers.
const HEADERS_BYTES: f64 = 28.0;
/// A packet that is not there after this time is lost.
const LOST_AFTER: Duration = Duration::from_secs(2);
/// How long serving may take until it is steady, after the last child was started.
const STEADY_AFTER: Duration = Duration::from_secs(5);
/// After the host has everything, until it is quiet.
const QUIET_AFTER: Duration = Duration::from_millis(500);
/// Fewer packets than these tell nothing.
const PACKETS_MIN: usize = 60;
const KIND_PING: u8 = 1;
const KIND_CALL: u8 = 2;

/// When a packet was sent, and how long it took: there and back, or one way for those of a call; `None` for a lost one.
type Packet = (Instant, Option<Duration>);

/// Packets so far.
#[derive(Debug, Default)]
pub struct Traffic {
    pings: Mutex<Vec<Packet>>,
    call: Mutex<Vec<Packet>>,
    /// Payload that the host says it sent to others, and when it said so.
    uploaded: Mutex<Vec<(Instant, u64)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Traffic {
    /// What the host says that it has sent.
    pub fn note_uploaded(&self, at: Instant, bytes: u64) {
        let mut uploaded = locked(&self.uploaded);
        if uploaded.last().is_none_or(|(_, before)| *before != bytes) {
            uploaded.push((at, bytes));
        }
    }

    /// Sends from `host` and answers at the control center's host until `end`.
    ///
    /// # Errors
    /// If the system refuses a socket.
    pub fn run(&self, net: &Net, host: usize, what: &Bystander, end: &AtomicBool) -> Result<()> {
        let zero = Instant::now();
        let to = SocketAddr::new(net.inner_address(CONTROL), PORT);
        std::thread::scope(|scope| {
            let answering = scope.spawn(|| net.within(CONTROL, || self.answer(to, zero, end)));
            let sent = net.within(FIRST + host, || self.send(to, what, zero, end));
            let answered = answering.join().map_err(|_| anyhow::anyhow!("the answering thread panicked"))?;
            sent?.context("sending the user's own packets")?;
            answered?.context("answering the user's own packets")
        })
    }

    /// Echoes pings, and takes the time of what belongs to a call.
    fn answer(&self, at: SocketAddr, zero: Instant, end: &AtomicBool) -> Result<()> {
        let socket = UdpSocket::bind(at)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut packet = [0; 2048];
        while !end.load(Ordering::Relaxed) {
            let (len, from) = match socket.recv_from(&mut packet) {
                Ok(received) => received,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(e) => return Err(e.into()),
            };
            match packet.first() {
                Some(&KIND_PING) => drop(socket.send_to(&packet[..len], from)),
                Some(&KIND_CALL) => arrived(&mut locked(&self.call), &packet[..len], zero),
                _ => {}
            }
        }
        Ok(())
    }

    fn send(&self, to: SocketAddr, what: &Bystander, zero: Instant, end: &AtomicBool) -> Result<()> {
        let any: IpAddr = if to.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(1)))?;
        let call_bytes = what.call_mbit * MBIT * CALL_EVERY.as_secs_f64() - HEADERS_BYTES;
        let (mut ping_at, mut call_at) = (zero, zero);
        let mut packet = [0; 2048];
        while !end.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= ping_at {
                ping_at += PING_EVERY;
                say(&socket, to, &mut locked(&self.pings), KIND_PING, 56, zero);
            }
            if now >= call_at && call_bytes > 0.0 {
                call_at += CALL_EVERY;
                say(&socket, to, &mut locked(&self.call), KIND_CALL, call_bytes as usize, zero);
            }
            if let Ok((len, _)) = socket.recv_from(&mut packet) {
                arrived(&mut locked(&self.pings), &packet[..len], zero);
            }
        }
        Ok(())
    }

    /// What serving did to it. Times of serving begin when it is steady and end when the first child has everything.
    pub fn outcome(&self, seen: &Seen, host: usize) -> BystanderOutcome {
        let (scenario, peers, calibration) = (seen.scenario, seen.peers, seen.calibration);
        let mut outcome = BystanderOutcome { host: peers.all()[host].spec.name.clone(), ..BystanderOutcome::default() };
        let children =
            || peers.all().iter().enumerate().filter(|(i, p)| *i != host && p.spec.receives()).map(|(_, p)| p);
        let (Some(complete), Some(first), Some(last)) = (
            peers.all()[host].finished,
            children().filter_map(|p| p.started).min(),
            children().filter_map(|p| p.started).max(),
        ) else {
            outcome.note = "it has not everything, or nobody came to fetch".into();
            return outcome;
        };
        let over = children().filter_map(|p| p.finished).min().unwrap_or(seen.ended);
        let (quiet, busy) = ((complete + QUIET_AFTER, first), (last + STEADY_AFTER, over));
        let (pings, call) = (locked(&self.pings), locked(&self.call));
        let rise = |packets: &[Packet]| {
            let (off, on) = (p95_ms(packets, quiet)?, p95_ms(packets, busy)?);
            Some(on - off)
        };
        outcome.ping_rise_p95_ms = rise(&pings);
        outcome.ping_quiet_p95_ms = p95_ms(&pings, quiet);
        outcome.call_rise_p95_ms = rise(&call);
        outcome.call_loss_percent = loss_percent(&call, busy);
        let call_mbit = scenario.bystander.as_ref().map_or(0.0, |b| b.call_mbit);
        let line = peers.all()[host].spec.up_mbit;
        let spare = calibration.goodput(line) * (1.0 - call_mbit / line);
        let sent = rate(&locked(&self.uploaded), busy);
        outcome.served_bytes_per_s = sent;
        outcome.spare_share = sent.map(|sent| sent / spare);
        outcome
    }
}

fn say(socket: &UdpSocket, to: SocketAddr, packets: &mut Vec<Packet>, kind: u8, len: usize, zero: Instant) {
    let mut packet = [0; 2048];
    packet[0] = kind;
    packet[1..9].copy_from_slice(&(packets.len() as u64).to_be_bytes());
    let now = Instant::now();
    packet[9..17].copy_from_slice(&(now.duration_since(zero).as_micros() as u64).to_be_bytes());
    packets.push((now, None));
    // What the system drops is lost like what the line drops.
    let _ = socket.send_to(&packet[..len.clamp(17, packet.len())], to);
}

fn arrived(packets: &mut [Packet], packet: &[u8], zero: Instant) {
    let number = |at: usize| packet.get(at..at + 8).and_then(|b| b.first_chunk().copied()).map(u64::from_be_bytes);
    let (Some(which), Some(sent_us)) = (number(1), number(9)) else { return };
    let took = zero.elapsed().saturating_sub(Duration::from_micros(sent_us));
    if let Some((_, time)) = packets.get_mut(which as usize)
        && took < LOST_AFTER
    {
        *time = Some(took);
    }
}

fn within(packets: &[Packet], (from, until): (Instant, Instant)) -> impl Iterator<Item = &Packet> {
    packets.iter().filter(move |(at, _)| (from..until).contains(at))
}

/// What 95 % of the packets did not pass; a lost one took as long as can be.
fn p95_ms(packets: &[Packet], span: (Instant, Instant)) -> Option<f64> {
    let mut all: Vec<Duration> = within(packets, span).map(|(_, took)| took.unwrap_or(LOST_AFTER)).collect();
    all.sort_unstable();
    let at = all.len() * 95 / 100;
    all.get(at).filter(|_| all.len() >= PACKETS_MIN).map(|took| took.as_secs_f64() * 1e3)
}

fn loss_percent(packets: &[Packet], span: (Instant, Instant)) -> Option<f64> {
    let (all, lost) = within(packets, span)
        .fold((0usize, 0usize), |(all, lost), (_, took)| (all + 1, lost + usize::from(took.is_none())));
    (all >= PACKETS_MIN).then(|| 100.0 * lost as f64 / all as f64)
}

/// Bytes per second between the first and the last word within the span.
fn rate(uploaded: &[(Instant, u64)], (from, until): (Instant, Instant)) -> Option<f64> {
    let mut within = uploaded.iter().filter(|(at, _)| (from..until).contains(at));
    let first = within.next()?;
    let last = within.next_back()?;
    Some((last.1 - first.1) as f64 / last.0.duration_since(first.0).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_count_lost_packets_and_few_tell_nothing() {
        let zero = Instant::now();
        let at = |n: u64| zero + Duration::from_millis(n * 50);
        let took = |ms| Some(Duration::from_millis(ms));
        let mut packets: Vec<Packet> = (0..100).map(|n| (at(n), took(n))).collect();
        let all = (zero, at(100));
        assert_eq!((p95_ms(&packets, all), loss_percent(&packets, all)), (Some(95.0), Some(0.0)));
        packets[3].1 = None;
        assert_eq!((p95_ms(&packets, all), loss_percent(&packets, all)), (Some(96.0), Some(1.0)));
        assert_eq!(p95_ms(&packets, (at(50), at(100))), None);
        let words = [(at(0), 0), (at(20), 1_000), (at(40), 3_000)];
        assert_eq!(rate(&words, (at(0), at(100))), Some(1_500.0));
    }
}
