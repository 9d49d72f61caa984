//! The control center, and what its shell does.

use super::messages::{CENTER, Due, Event, FromCenter, Nx, SOURCE, ToCenter, id_of, nx_of};
use super::node::Shared;
use crate::baseline::{Baseline, Decider};
use crate::scenario::{HostSpec, Scenario};
use headwater_center_core::client_manager::Arrival;
use headwater_center_core::content_directory::{Content, Kind};
use headwater_center_core::trees::TreesStats;
use headwater_center_core::{Event as Told, Input, Output, Totals};
use headwater_model::id::{Hash, Version};
use headwater_model::live::LiveTrack;
use headwater_model::node::{Accepts, Capabilities, Role};
use headwater_model::place::Place;
use headwater_model::report::Introduction;
use headwater_model::time::{Rate, Time};
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// See the module.
pub(super) struct Control {
    center: Decider,
    version: Version,
    pub(super) mail: BinaryHeap<Due<(Nx, ToCenter)>>,
    /// What it says, until the round is over.
    pub(super) said: Vec<(Nx, Due<Event>)>,
    serial: u32,
    outputs: Vec<Output>,
    pub(super) verdicts: u64,
    pub(super) violations: Vec<String>,
}

/// What a node says of itself when it arrives.
pub(super) struct Arriving<'a> {
    pub(super) spec: Option<&'a HostSpec>,
    pub(super) accepts: Accepts,
    /// Of the publisher.
    pub(super) source_up: f64,
}

impl Control {
    pub(super) fn new(track: &LiveTrack, baseline: Option<Baseline>, seed: u64) -> Control {
        let mut control = Control {
            center: Decider::for_live(baseline, seed),
            version: track.version,
            mail: BinaryHeap::new(),
            said: Vec::new(),
            serial: 0,
            outputs: Vec::new(),
            verdicts: 0,
            violations: Vec::new(),
        };
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
        let mut out = Vec::new();
        control.center.handle(Time(0), Input::Publish(Box::new(content)), &mut out);
        control
    }

    /// All that it hears and does before `until`.
    pub(super) fn run<'a>(&mut self, until: Time, shared: &Shared, arriving: impl Fn(Nx) -> Arriving<'a>) {
        loop {
            let tick_at = self.center.next_timeout();
            let mail_at = self.mail.peek().map_or(Time(u64::MAX), |due| due.at);
            if tick_at.min(mail_at) >= until {
                return;
            }
            if tick_at < mail_at {
                self.handle(tick_at, Input::Tick, shared);
                if self.center.next_timeout() <= tick_at {
                    self.violations.push("the control center would spin".into());
                    return;
                }
                continue;
            }
            let Some(Due { at, what: (nx, what), .. }) = self.mail.pop() else { return };
            match what {
                ToCenter::Hello => {
                    let arrival = arrival(shared.seed, nx, &arriving(nx));
                    self.handle(at, Input::Arrived(Box::new(arrival)), shared);
                    self.say(at, nx, FromCenter::Welcome, shared);
                }
                ToCenter::Says(input) => self.handle(at, *input, shared),
            }
        }
    }

    /// A session broke.
    pub(super) fn session_ends(&mut self, at: Time, nx: Nx, seed: u64) {
        let departed = Input::Departed { node: id_of(seed, nx), session: u64::from(nx), bye: false };
        self.mail.push(Due { at, from: nx, serial: u32::MAX, what: (nx, ToCenter::Says(Box::new(departed))) });
    }

    fn handle(&mut self, now: Time, input: Input, shared: &Shared) {
        let mut out = std::mem::take(&mut self.outputs);
        self.center.handle(now, input, &mut out);
        for output in out.drain(..) {
            match output {
                Output::Assign(node, a) => self.say(now, nx_of(&node), FromCenter::Assigned(Box::new(a)), shared),
                Output::ChangeChildren(node, change) => {
                    self.say(now, nx_of(&node), FromCenter::ChildrenChanged(Box::new(change)), shared);
                }
                Output::Refuse(node, _, why) => {
                    self.violations.push(format!("node {} was refused: {why}", nx_of(&node)));
                }
                Output::Close { node, why, .. } => {
                    self.violations.push(format!("the session of node {} was ended: {why}", nx_of(&node)));
                }
                Output::Event(Told::Verdict(_)) => self.verdicts += 1,
                _ => {}
            }
        }
        self.outputs = out;
        if shared.checks {
            self.check(now);
        }
    }

    fn say(&mut self, now: Time, nx: Nx, what: FromCenter, shared: &Shared) {
        self.serial += 1;
        let at = now + shared.to_center(nx);
        self.said.push((nx, Due { at, from: CENTER, serial: self.serial, what: Event::Told(what) }));
    }

    /// Notes what is violated.
    pub(super) fn check(&mut self, now: Time) {
        let of = |p| format!("the control center at {now:?}: {p}");
        self.violations.extend(self.center.check(now).into_iter().map(of));
    }

    pub(super) fn totals(&self) -> Totals {
        self.center.totals()
    }
    pub(super) fn stats(&self) -> TreesStats {
        self.center.tree_stats(&self.version.content)
    }
    /// Of the viewers.
    pub(super) fn slots(&self, seed: u64) -> Vec<u32> {
        self.center.slots(&self.version.content, &id_of(seed, SOURCE))
    }
}

fn arrival(seed: u64, nx: Nx, of: &Arriving<'_>) -> Arrival {
    // Each node in a /24 of its own: they are unrelated.
    let [_, a, b, c] = nx.to_be_bytes();
    let address = Ipv4Addr::new(10 + a, b, c, 1);
    let id = id_of(seed, nx);
    let own = of.spec.map(|s| s.place.clone()).unwrap_or_default();
    Arrival {
        session: u64::from(nx),
        node: id,
        introduction: Introduction {
            role: Role::Peer,
            capabilities: Capabilities::regular(of.accepts),
            up: Rate(of.spec.map_or(of.source_up, HostSpec::up) as u64),
            down: Rate(of.spec.map_or(of.source_up, HostSpec::down) as u64),
            client: "simulator".into(),
            local_addresses: Vec::new(),
            https_port: None,
        },
        observed: SocketAddr::new(IpAddr::V4(address), 4433),
        certificate: Hash(id.0),
        enrolled: nx == SOURCE || of.spec.is_none_or(|s| s.enrolled),
        place: Place { lan: Some(address.to_string()), ..own },
    }
}

/// What others find when they try to reach a host; the publisher is open.
pub(crate) fn accepts(scenario: &Scenario, spec: Option<&HostSpec>) -> Accepts {
    spec.map_or(Accepts::Open, |s| scenario.accepts(s))
}
