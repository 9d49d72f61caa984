//! Who may knock: connections, handshakes and bad sessions per address, so that a flood from one address costs a look-up
//! each and leaves room for everybody else. Addresses are single ones of IPv4 and /64 of IPv6.

use headwater_model::{Micros, Time};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Addresses that are kept in mind at once; beyond that, new ones wait until others are forgotten.
const MAX_ADDRESSES: usize = 65_536;
/// Handshakes of one address that may be under way before it must prove that it is its own: somebody else could have
/// written it on the datagrams.
const UNPROVED_AT_ONCE: u32 = 16;
/// Bad sessions in [`BAD_WINDOW`] that close the door to an address. Many honest nodes may share it: theirs stay.
const MAX_BAD_SESSIONS: u32 = 10;
const BAD_WINDOW: Micros = Micros::from_secs(10);
/// How long the door stays closed at first; twice as long each time.
const FIRST_BAN: Micros = Micros::from_secs(5);
const MAX_BAN: Micros = Micros::from_secs(60);
/// Forgotten addresses are swept up this often.
const SWEEP_EVERY: Micros = Micros::from_secs(1);

/// What one address may have. Generous, as many nodes may stand behind one.
#[derive(Clone, Copy, Debug)]
pub struct AddressLimits {
    /// Connections at once.
    pub connections: u32,
    /// Handshakes per second; four times as many may come at once.
    pub handshakes_per_s: u32,
    /// Addresses of this machine are exempt.
    pub exempt_loopback: bool,
}

impl Default for AddressLimits {
    fn default() -> Self {
        Self { connections: 200, handshakes_per_s: 50, exempt_loopback: true }
    }
}

/// What becomes of a connection that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// It may go on; [`Admission::left`] when it ends.
    Enter,
    /// It must first prove that its address is its own.
    Prove,
    /// It is refused.
    Refuse,
}

#[derive(Clone, Copy, Debug)]
struct Address {
    connections: u32,
    /// Of these, those without a hello yet.
    handshakes: u32,
    /// Thousandths of a handshake, and when they were counted.
    left_milli: u64,
    at: Time,
    bad: u32,
    bad_since: Time,
    bans: u32,
    banned_until: Time,
}

/// All addresses of late.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: AddressLimits,
    addresses: BTreeMap<IpAddr, Address>,
    sweep_at: Time,
}

fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(a) => IpAddr::V6((u128::from(a) >> 64 << 64).into()),
        v4 => v4,
    }
}

impl Admission {
    pub(crate) fn new(limits: AddressLimits) -> Self {
        Self { limits, addresses: BTreeMap::new(), sweep_at: Time(0) }
    }

    fn burst_milli(&self) -> u64 {
        u64::from(self.limits.handshakes_per_s) * 4000
    }
    fn is_exempt(&self, address: IpAddr) -> bool {
        self.limits.exempt_loopback && address.is_loopback()
    }

    /// A connection is asked for. `proved` tells that the address is known to be the sender's.
    pub(crate) fn knock(&mut self, now: Time, address: IpAddr, proved: bool) -> Answer {
        let address = key(address);
        if self.is_exempt(address) {
            return Answer::Enter;
        }
        let (full, limits) = (self.burst_milli(), self.limits);
        self.sweep(now);
        if self.addresses.len() >= MAX_ADDRESSES && !self.addresses.contains_key(&address) {
            return if proved { Answer::Refuse } else { Answer::Prove };
        }
        let new = Address {
            connections: 0,
            handshakes: 0,
            left_milli: full,
            at: now,
            bad: 0,
            bad_since: now,
            bans: 0,
            banned_until: Time(0),
        };
        let a = self.addresses.entry(address).or_insert(new);
        a.refill(now, limits.handshakes_per_s, full);
        if a.banned_until > now {
            return Answer::Refuse;
        }
        let ample = a.handshakes < UNPROVED_AT_ONCE && a.left_milli * 2 > full && a.connections < limits.connections;
        if !proved && !ample {
            return Answer::Prove;
        }
        if a.left_milli < 1000 || a.connections >= limits.connections {
            return Answer::Refuse;
        }
        a.left_milli -= 1000;
        a.connections += 1;
        a.handshakes += 1;
        Answer::Enter
    }

    /// The connection said hello.
    pub(crate) fn greeted(&mut self, address: IpAddr) {
        if let Some(a) = self.addresses.get_mut(&key(address)) {
            a.handshakes = a.handshakes.saturating_sub(1);
        }
    }

    /// A connection that was let in has ended; `greeted` when it had said hello.
    pub(crate) fn left(&mut self, address: IpAddr, greeted: bool) {
        if let Some(a) = self.addresses.get_mut(&key(address)) {
            a.connections = a.connections.saturating_sub(1);
            a.handshakes = a.handshakes.saturating_sub(u32::from(!greeted));
        }
    }

    /// A connection broke the rules. Returns how long its address waits now, if it does.
    pub(crate) fn misbehaved(&mut self, now: Time, address: IpAddr) -> Option<Micros> {
        let a = self.addresses.get_mut(&key(address))?;
        if now.since(a.bad_since) > BAD_WINDOW {
            (a.bad, a.bad_since) = (0, now);
        }
        a.bad += 1;
        if a.bad < MAX_BAD_SESSIONS {
            return None;
        }
        let ban = Micros(FIRST_BAN.0 << a.bans.min(8)).min(MAX_BAN);
        (a.bad, a.bans, a.banned_until) = (0, a.bans + 1, now + ban);
        Some(ban)
    }

    /// Addresses that nothing is to be remembered of are forgotten.
    fn sweep(&mut self, now: Time) {
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now + SWEEP_EVERY;
        let (full, rate) = (self.burst_milli(), self.limits.handshakes_per_s);
        self.addresses.retain(|_, a| {
            a.refill(now, rate, full);
            let banned = a.bans > 0 && now.since(a.banned_until) < MAX_BAN;
            a.connections > 0 || a.left_milli < full || banned || (a.bad > 0 && now.since(a.bad_since) < BAD_WINDOW)
        });
    }
}

impl Address {
    fn refill(&mut self, now: Time, per_s: u32, full: u64) {
        let new = now.since(self.at).0 * u64::from(per_s) / 1000;
        if new > 0 {
            self.left_milli = (self.left_milli + new).min(full);
            self.at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
    fn ms(n: u64) -> Time {
        Time(n * 1000)
    }

    #[test]
    fn a_flood_from_one_address_is_held_down_and_others_enter() {
        let mut door = Admission::new(AddressLimits::default());
        let mut entered = 0;
        // 5,000 garbage sessions in ten seconds, each of which ends at once.
        for n in 0..5000u64 {
            if door.knock(ms(n * 2), ip("192.0.2.1"), true) == Answer::Enter {
                entered += 1;
                door.left(ip("192.0.2.1"), false);
                door.misbehaved(ms(n * 2), ip("192.0.2.1"));
            }
            let (other, v6) = (ip("198.51.100.7"), ip("2001:db8::7"));
            if n % 250 == 0 {
                assert_eq!(door.knock(ms(n * 2), other, false), Answer::Enter);
                assert_eq!(door.knock(ms(n * 2), v6, false), Answer::Enter);
                door.greeted(other);
                door.greeted(v6);
            }
        }
        assert_eq!(entered, 20, "ten bad ones close the door for five seconds, then for ten");
        assert!(door.addresses.len() <= 3);
    }

    #[test]
    fn many_honest_nodes_behind_one_address_enter() {
        let mut door = Admission::new(AddressLimits::default());
        for n in 0..200u64 {
            let answer = match door.knock(ms(n), ip("192.0.2.1"), false) {
                Answer::Prove => door.knock(ms(n), ip("192.0.2.1"), true),
                other => other,
            };
            assert_eq!(answer, Answer::Enter, "{n}");
            door.greeted(ip("192.0.2.1"));
        }
        assert_eq!(door.knock(ms(9000), ip("192.0.2.1"), true), Answer::Refuse, "the 201st at once");
        door.left(ip("192.0.2.1"), true);
        assert_eq!(door.knock(ms(9000), ip("192.0.2.1"), true), Answer::Enter);
    }

    #[test]
    fn who_forges_an_address_does_not_lock_its_owner_out() {
        let mut door = Admission::new(AddressLimits::default());
        let answers: Vec<Answer> = (0..5000).map(|n| door.knock(ms(n), ip("192.0.2.1"), false)).collect();
        let entered = answers.iter().filter(|a| **a == Answer::Enter).count();
        assert_eq!(entered, UNPROVED_AT_ONCE as usize);
        assert!(!answers.contains(&Answer::Refuse));
        assert_eq!(door.knock(ms(5000), ip("192.0.2.1"), true), Answer::Enter);
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_memory_is_bounded() {
        let mut door = Admission::new(AddressLimits { connections: 2, ..AddressLimits::default() });
        let answers = ["2001:db8::1", "2001:db8::2", "2001:db8::3"].map(|a| door.knock(ms(0), ip(a), true));
        assert_eq!(answers, [Answer::Enter, Answer::Enter, Answer::Refuse]);
        for n in 0..100_000u32 {
            door.knock(ms(1), IpAddr::V4(n.into()), true);
        }
        assert_eq!(door.addresses.len(), MAX_ADDRESSES);
        for n in 0..100_000u32 {
            door.left(IpAddr::V4(n.into()), false);
        }
        door.knock(ms(60_000), ip("192.0.2.9"), true);
        assert_eq!(door.addresses.len(), 2);
    }
}
