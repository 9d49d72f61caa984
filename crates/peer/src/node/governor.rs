//! The node's uplink governed: `peer-core` says how fast to send and whom to probe; this sends probes and echoes.

use super::Inner;
use super::connections::End;
use crate::pacer::Pacer;
use headwater_model::Rate;
use headwater_model::id::NodeId;
use headwater_model::time::Time;
use headwater_peer_core::Uplink;
use headwater_transport::PeerConnection;
use headwater_wire::frame::DelayDatagram;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How far sending may run ahead of the governed rate, to make up for timers that come late: what does stands in the queue.
const BURST: Duration = Duration::from_millis(8);
/// Probes of one child that are echoed within [`ECHOES_WITHIN`]; none sends so many.
const MAX_ECHOES: u32 = 100;
/// See [`MAX_ECHOES`].
const ECHOES_WITHIN: Duration = Duration::from_secs(1);

/// What is sent over the uplink goes through here, children on the node's own networks aside.
pub(crate) struct Governor {
    uplink: Mutex<Uplink>,
    pub(crate) pacer: Pacer,
    wake: Notify,
    always: bool,
    /// The user said what may be sent.
    told: AtomicBool,
}

/// When uploads leave the line to the user's own traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepsAside {
    /// Never: they may take what the limit says, or all.
    #[default]
    Never,
    /// As long as no limit says what they may take.
    UnlessTold,
    /// Always, within the limit.
    Always,
}

impl Governor {
    pub(crate) fn new(now: Time, when: StepsAside, most: Option<Rate>, seed: u64) -> Option<Self> {
        let always = match when {
            StepsAside::Never => return None,
            StepsAside::UnlessTold => false,
            StepsAside::Always => true,
        };
        let uplink = Uplink::new(now, most, seed);
        let pacer = Pacer::with_burst(Some(uplink.rate()), BURST);
        let told = AtomicBool::new(most.is_some());
        Some(Self { uplink: Mutex::new(uplink), pacer, wake: Notify::new(), always, told })
    }

    /// Whether anything is to wait for it now.
    pub(crate) fn governs(&self) -> bool {
        self.always || !self.told.load(Ordering::Relaxed)
    }

    fn uplink(&self) -> MutexGuard<'_, Uplink> {
        self.uplink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is about to be sent to `child`.
    pub(crate) fn sends_to(&self, now: Time, child: NodeId) {
        let mut uplink = self.uplink();
        let sleeps = !uplink.is_active(now);
        uplink.sends_to(now, child);
        if sleeps {
            self.wake.notify_one();
        }
    }

    /// The connection with `child` ended.
    pub(crate) fn gone(&self, child: &NodeId) {
        self.uplink().gone(child);
    }

    /// The user's limit is another one.
    pub(crate) fn limit(&self, most: Option<Rate>) {
        self.told.store(most.is_some(), Ordering::Relaxed);
        let mut uplink = self.uplink();
        uplink.limit(most);
        self.pacer.set_rate(Some(uplink.rate()));
    }

    /// How fast is sent at most now.
    pub(crate) fn rate(&self) -> Rate {
        self.uplink().rate()
    }

    fn echoed(&self, now: Time, child: NodeId, number: u64, arrived_us: u64) {
        let mut uplink = self.uplink();
        uplink.echoed(now, child, number, arrived_us);
        self.pacer.set_rate(Some(uplink.rate()));
    }
}

/// Sends probes while anything is sent, for as long as the node runs.
pub(crate) async fn govern(inner: Arc<Inner>) {
    let Some(governor) = &inner.governor else { return };
    loop {
        if !governor.uplink().is_active(inner.now()) {
            tokio::select! {
                _ = inner.stopping.cancelled() => return,
                _ = governor.wake.notified() => {}
            }
        }
        tokio::select! {
            _ = inner.stopping.cancelled() => return,
            _ = tokio::time::sleep(Duration::from_micros(Uplink::PULSE.0)) => {}
        }
        let probes = {
            let mut uplink = governor.uplink();
            let probes = uplink.pulse(inner.now(), governor.pacer.sent_bytes());
            governor.pacer.set_rate(Some(uplink.rate()));
            probes
        };
        for probe in probes {
            let connection = inner.lock().links.get(&probe.to).map(|l| l.connection.clone());
            if let Some(connection) = connection {
                // One that does not go out is a lost one.
                let _ = connection.send_datagram(DelayDatagram::Probe { number: probe.number }.encode());
            }
        }
    }
}

/// Echoes a node's probes and hears its echoes, until the connection ends: why.
pub(crate) async fn read_datagrams(inner: &Inner, node: NodeId, connection: &PeerConnection) -> End {
    let (mut echoes, mut since) = (0, tokio::time::Instant::now());
    loop {
        let datagram = match connection.read_datagram().await {
            Ok(datagram) => DelayDatagram::decode(&datagram),
            Err(e) => return e.into(),
        };
        match datagram {
            Ok(DelayDatagram::Probe { number }) => {
                let arrived_us = inner.now().0;
                if since.elapsed() >= ECHOES_WITHIN {
                    (echoes, since) = (0, tokio::time::Instant::now());
                }
                echoes += 1;
                if echoes <= MAX_ECHOES {
                    let _ = connection.send_datagram(DelayDatagram::Echo { number, arrived_us }.encode());
                }
            }
            Ok(DelayDatagram::Echo { number, arrived_us }) => {
                inner.echoes.lock().echoed(inner.now(), &node, number, arrived_us);
                if let Some(governor) = &inner.governor {
                    governor.echoed(inner.now(), node, number, arrived_us);
                }
            }
            Err(e) => return e.into(),
        }
    }
}

/// Whether `address` is on this machine or its own networks: what goes there does not use the uplink.
pub(crate) fn is_near(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let on = |i: if_addrs::Interface| match (i.addr, address) {
        (if_addrs::IfAddr::V4(own), IpAddr::V4(a)) => {
            let mask = own.netmask.to_bits();
            own.ip.to_bits() & mask == a.to_bits() & mask
        }
        (if_addrs::IfAddr::V6(own), IpAddr::V6(a)) => {
            let mask = own.netmask.to_bits();
            own.ip.to_bits() & mask == a.to_bits() & mask
        }
        _ => false,
    };
    address.is_loopback() || if_addrs::get_if_addrs().unwrap_or_default().into_iter().any(on)
}

#[cfg(test)]
mod tests {
    use super::is_near;

    #[test]
    fn this_machine_is_near_and_the_world_is_not() {
        for (address, expected) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::ffff:127.0.0.1", true),
            ("::1", true),
            ("203.0.113.7", false),
        ] {
            assert_eq!(is_near(address.parse().unwrap()), expected, "{address}");
        }
    }
}
