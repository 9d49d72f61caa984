//! Probes (requirement A3): dialling an address once at the control center's word, and telling it of those that come.

use super::Inner;
use super::state::State;
use headwater_model::reach::{Probe, canonical};
use headwater_model::time::{Micros, Time};
use headwater_transport::{Alpn, Listener};
use headwater_wire::FromNode;
use quinn::Connection;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Probes made in one second; more are not made, whatever the control center says.
const MAX_MADE_PER_S: u32 = 10;
/// Probes of others that the control center is told of in one second.
const MAX_TOLD_PER_S: u32 = 20;
/// A probe that is not through by then has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// Octets of a probe's number, which is all that it says.
const NUMBER_BYTES: usize = 16;

/// So many in the second that began then.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PerSecond {
    began: Time,
    count: u32,
}

impl PerSecond {
    /// Counts one more, unless there are `most` already.
    pub(crate) fn admit(&mut self, now: Time, most: u32) -> bool {
        if now.since(self.began) >= Micros::from_secs(1) {
            *self = Self { began: now, count: 0 };
        }
        self.count += 1;
        self.count <= most
    }
}

/// The control center wants a probe made.
pub(crate) fn ordered(inner: &Arc<Inner>, state: &mut State, probe: Probe) {
    let on_loopback = inner.is_on_loopback();
    if let Err(why) = may_be_probed(probe.address.ip(), on_loopback) {
        return failed(state, &probe, why.into());
    }
    if !state.probes_made.admit(inner.now(), MAX_MADE_PER_S) {
        return failed(state, &probe, "it makes as many probes as it may".into());
    }
    let inner = inner.clone();
    tokio::spawn(async move {
        let made = tokio::time::timeout(PATIENCE, make(&inner.listener, probe)).await;
        if let Err(why) = made.unwrap_or_else(|_| Err("no answer within 2 s".into())) {
            failed(&mut inner.lock(), &probe, why);
        }
    });
}

fn failed(state: &mut State, probe: &Probe, why: String) {
    state.tell_control(&FromNode::ProbeFailed { number: probe.number, why });
}

/// Whether a node dials such an address at somebody's word.
fn may_be_probed(ip: IpAddr, on_loopback: bool) -> Result<(), &'static str> {
    let ip = ip.to_canonical();
    match ip {
        _ if ip.is_unspecified() || ip.is_multicast() => Err("no node can be there"),
        IpAddr::V4(a) if a.is_broadcast() => Err("no node can be there"),
        _ if ip.is_loopback() && !on_loopback => Err("that is this machine"),
        _ => Ok(()),
    }
}

/// Dials, hands the number over, and waits until it was taken.
async fn make(listener: &Listener, probe: Probe) -> Result<(), String> {
    let fresh;
    let from = if probe.fresh_socket {
        fresh = listener.fresh().map_err(|e| e.to_string())?;
        &fresh
    } else {
        listener
    };
    let connection = from.dial(probe.address, Some(probe.node), Alpn::Probe).await.map_err(|e| e.to_string())?;
    let mut stream = connection.open_uni().await.map_err(|e| e.to_string())?;
    stream.write_all(&probe.number).await.map_err(|e| e.to_string())?;
    stream.finish().map_err(|e| e.to_string())?;
    // The other end closes when it has read the number.
    connection.closed().await;
    Ok(())
}

/// A probe comes here: its number goes to the control center.
pub(crate) async fn answer(inner: Arc<Inner>, connection: Connection) {
    let seen_from = canonical(connection.remote_address());
    if let Ok(Some(number)) = tokio::time::timeout(PATIENCE, read(&connection)).await {
        let mut state = inner.lock();
        if state.probes_told.admit(inner.now(), MAX_TOLD_PER_S) {
            state.tell_control(&FromNode::ProbeArrived { number, seen_from });
        }
    }
    connection.close(0u32.into(), b"");
}

async fn read(connection: &Connection) -> Option<[u8; NUMBER_BYTES]> {
    let mut stream = connection.accept_uni().await.ok()?;
    let bytes = stream.read_to_end(NUMBER_BYTES).await.ok()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_addresses_are_never_probed() {
        for (ip, on_loopback, may) in [
            ("192.0.2.1", false, true),
            ("10.0.0.1", false, true),
            ("127.0.0.1", false, false),
            ("127.0.0.1", true, true),
            ("::ffff:127.0.0.1", false, false),
            ("::1", false, false),
            ("0.0.0.0", true, false),
            ("224.0.0.1", true, false),
            ("255.255.255.255", true, false),
            ("ff02::1", false, false),
        ] {
            assert_eq!(may_be_probed(ip.parse().unwrap(), on_loopback).is_ok(), may, "{ip}");
        }
    }

    #[test]
    fn only_so_many_in_a_second() {
        let mut made = PerSecond::default();
        let admitted = |made: &mut PerSecond, at| (0..15).filter(|_| made.admit(Time(at), MAX_MADE_PER_S)).count();
        assert_eq!(admitted(&mut made, 5_000_000), 10);
        assert_eq!(admitted(&mut made, 5_900_000), 0);
        assert_eq!(admitted(&mut made, 6_000_000), 10);
    }
}
