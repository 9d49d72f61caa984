//! A live channel whose viewers are flows: up to a million of them beside the real control center, which hears of each what
//! it hears in life (arrivals, joins, heartbeats, alarms, departures), and whose assignments are what is carried out.
//!
//! What stands for viewers and packets, and what is left out:
//!
//! - **Lag.** A piece is at a child one way after its parent sent it, and the parent sends whole pieces to its children in
//!   turn. Segments come in bursts (see [`stream`]), and every segment is followed through all trees once ([`pass`]), two
//!   segments after it was published, when its fate is known. A viewer that changes parents in between counts as if it had
//!   had the later one all the time. Checking and handing on take 0.2 ms a hop. Messages take 3 % of the stream's rate of
//!   each uplink, as measured in the packet model.
//! - **Changes.** A handover loses nothing, as the former parent goes on until the new one does. Where nobody goes on there is
//!   a gap ([`feeds`]): from the last word of a parent until a spare (500 ms later) or the next assigned one (700 ms, the
//!   control center, and eight ways between strangers) begins, which then sends all that is missing. What would be late for a
//!   player by then comes from the origin 600 ms before it is needed.
//! - **Start.** A newcomer reads two or three segments from before it came ([`start`]): of helpers, as much as their uplinks
//!   have left over after each burst, shared among those that ask; the rest of the origin, whose line all fetches share
//!   evenly ([`origin`]), after a TCP handshake and slow start.
//! - **Capacity.** What a parent has not sent when the next burst comes waits, and makes that later; where children get less
//!   than 40 % of the rate they raise the alarm.
//! - **Left out:** loss of packets, connections that fail, pieces that come twice, who asks a spare for single pieces.
//!   Every dial succeeds, as in the packet model. A viewer that leaves is served, and serves, for three seconds.
//!
//! Time goes on from event to event; those of one moment are in the order in which they were made. The same seed gives the
//! same run on any number of threads: threads only share the pass, in which rows do not depend on one another.

mod control;
mod faults;
mod feeds;
mod figures;
mod net;
mod origin;
mod pass;
mod start;
mod stream;
#[cfg(test)]
mod tests;
mod viewers;

use crate::live::{LiveOutcome, LiveSample, SESSION_ENDS, SETTLED, session, track};
use crate::queue::Queue;
use crate::scenario::{Checks, Live, LiveSessions, MBIT, Scenario, ScenarioError, span};
use control::{Control, Host, OfGroup};
use feeds::Word;
use figures::{Figures, Watched};
use headwater_center_core::Input;
use headwater_model::time::{Micros, Time};
use net::Net;
use origin::Pipe;
use stream::Stream;
use viewers::{SOURCE, State, Viewer, Viewers, Vx, Who};

/// A segment is looked at when so many more have been published.
const LOOKED_AT_AFTER: u64 = 2;
/// Who leaves on purpose serves its children for so long.
const SERVES_ON: Micros = Micros::from_secs(3);
/// A newcomer learns of so many segments at most.
const NEWCOMER_SEGMENTS: u64 = 4;
/// Worlds with fewer hosts are checked while they run, if that is asked for.
const CHECKED_MAX: usize = 256;
/// Violations kept; a broken run would make millions.
const VIOLATIONS_MAX: usize = 50;

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    /// Somebody sits down at a host.
    Comes(u32),
    /// The first word reaches the control center; its answer reaches the viewer; the join is there.
    Arrives(Who),
    Welcomed(Who),
    Joins(Who),
    /// The first entries came.
    Hears(Who),
    /// Helpers had their time; the origin is asked; a segment from before it came is here.
    Rest(Who),
    Asks(Who),
    Fetched(Who),
    /// A child has not heard of a parent for a while.
    Suspects(Who, Who),
    Alarm(Who, Who, Word),
    /// A viewer has seen enough; the control center hears that; it is gone.
    Ends(Who),
    Bye(Who),
    Gone(Who),
    /// The session of who died is over.
    Over(Who),
    /// Heartbeats of all in one place reach the control center.
    Beats(u8),
    Published(u64),
    /// A segment is followed through the trees.
    Looks(u64),
    /// Figures begin, and those after the first minute.
    Counts(bool),
    /// The viewer with most children dies.
    Kills,
    Fault(usize),
    /// An uplink is as fast as it was, in bytes per second.
    Restores(Who, u32),
}

/// See the module.
struct World<'a> {
    scenario: &'a Scenario,
    live: &'a Live,
    seed: u64,
    stream: Stream,
    net: Net,
    hosts: Vec<Host>,
    groups: Vec<OfGroup>,
    control: Control,
    viewers: Viewers,
    queue: Queue<What>,
    pipe: Pipe,
    origin_out_until: Time,
    /// What the origin sends just in time, in bytes per second.
    just_in_time: f64,
    /// Segments.
    held_back: u64,
    zero: Time,
    end: Time,
    newcomers: usize,
    killed: usize,
    figures: Figures,
}

/// Runs a scenario with a live channel of flows; `watch` sees the world once per segment.
///
/// # Errors
/// [`ScenarioError`] when the scenario asks for what flows do not have.
pub(crate) fn run(
    scenario: &Scenario,
    live: &Live,
    seed: u64,
    watch: impl FnMut(&LiveSample),
) -> Result<LiveOutcome, ScenarioError> {
    let mut world = World::new(scenario, live, seed)?;
    world.run(watch);
    Ok(world.outcome())
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, live: &'a Live, seed: u64) -> Result<World<'a>, ScenarioError> {
        faults::check(scenario)?;
        let network = scenario.network.unwrap_or_default();
        let stream = Stream::new(live);
        let specs = scenario.hosts(seed);
        let net = Net::new(&network, &specs);
        let host = |(n, h): (usize, &crate::scenario::HostSpec)| Host {
            up: h.up() as u32,
            down: h.down() as u32,
            group: h.group as u16,
            place: net.place_of(seed, n, h),
            accepts: scenario.accepts(h),
        };
        let hosts: Vec<Host> = specs.iter().enumerate().map(host).collect();
        let first_of = |g: usize| specs.iter().find(|h| h.group == g).map(OfGroup::of);
        let groups = (0..scenario.groups.len()).filter_map(first_of).collect();
        let (zero, mut queue) = (stream.zero(), Queue::new());
        let mut arrivals: Vec<(Time, u32)> =
            (0..).zip(&specs).map(|(n, h)| (h.arrives.unwrap_or_default(), n)).collect();
        arrivals.sort_unstable();
        arrivals.into_iter().for_each(|(at, n)| queue.push(zero + at.since(Time(0)), What::Comes(n)));
        let end = zero + span(live.seconds);
        let held_back = span(live.hold_back_s).0.div_ceil(stream.segment.0.max(1)).clamp(1, NEWCOMER_SEGMENTS);
        let heartbeat = live.heartbeat_s.map(span);
        let mut world = World {
            control: Control::new(track(live)?, specs.len(), heartbeat),
            viewers: Viewers::new(),
            pipe: Pipe::new(scenario.origin_up_mbit * MBIT),
            origin_out_until: Time(0),
            just_in_time: 0.0,
            newcomers: 0,
            killed: 0,
            figures: Figures::default(),
            scenario,
            live,
            seed,
            stream,
            net,
            hosts,
            groups,
            queue,
            held_back,
            zero,
            end,
        };
        world.prepare();
        Ok(world)
    }

    /// The publisher comes, and what happens at times known beforehand is noted.
    fn prepare(&mut self) {
        let up = (self.scenario.origin_up_mbit * MBIT).min(f64::from(u32::MAX)) as u32;
        let source = Viewer { up, down: up, place: self.net.origin(), ..Viewer::vacant() };
        self.begins_session(Time(0), source);
        for place in self.net.places() {
            self.queue.push(Time(0) + self.control.heartbeat + self.net.to_origin(place), What::Beats(place));
        }
        let first = self.stream.newest(Time(0)) + 1;
        self.queue.push(self.stream.published(first), What::Published(first));
        self.queue.push(self.zero, What::Counts(false));
        self.queue.push(self.zero + SETTLED, What::Counts(true));
        if let Some(every) = self.live.kill_parent_every_s {
            let begins = SETTLED.min(span(self.live.seconds / 2.0)).max(span(every));
            self.queue.push(self.zero + begins, What::Kills);
        }
        for (n, fault) in self.scenario.faults.iter().enumerate() {
            self.queue.push(self.zero + span(fault.at_s.unwrap_or_default()), What::Fault(n));
        }
    }

    fn run(&mut self, mut watch: impl FnMut(&LiveSample)) {
        let mut watched = Watched::default();
        while self.control.violations.len() < VIOLATIONS_MAX {
            let happens = self.queue.next_at().unwrap_or(self.end);
            let sent = self.pipe.next_at().unwrap_or(self.end);
            let tick = self.control.center.next_timeout();
            if happens.min(sent).min(tick) >= self.end {
                break;
            }
            if tick < happens.min(sent) {
                self.says(tick, Input::Tick);
                if self.control.center.next_timeout() <= tick {
                    self.control.violations.push("the control center would spin".into());
                    break;
                }
            } else if sent < happens {
                if let Some(who) = self.pipe.pop(sent) {
                    self.sent(sent, who);
                }
            } else if let Some((now, what)) = self.queue.pop() {
                self.happens(now, what);
                if let What::Looks(_) = what {
                    watch(&self.sample(now, &mut watched));
                }
            }
        }
        self.control.check(self.end);
    }

    fn happens(&mut self, now: Time, what: What) {
        match what {
            What::Comes(host) => self.comes(now, host),
            What::Arrives(who) => {
                self.arrives(now, who);
                self.queue.push(now + self.to_center(who.vx), What::Welcomed(who));
            }
            What::Welcomed(who) => self.welcomed(now, who),
            What::Joins(who) => {
                if self.viewers.watching(who).is_some() {
                    self.joins(now, who);
                }
            }
            What::Hears(who) => self.hears(now, who),
            What::Rest(who) => self.rest(now, who),
            What::Asks(who) => self.asks_origin(now, who),
            What::Fetched(who) => self.fetched(now, who),
            What::Suspects(child, of) => self.suspects(now, child, of),
            What::Alarm(child, of, word) => self.alarm(now, child, of, word),
            What::Ends(who) => {
                if let Some(host) = self.ends(now, who) {
                    self.newcomers += 1;
                    self.comes(now, host);
                }
            }
            What::Bye(who) => self.departs(now, who, true),
            What::Gone(who) => {
                self.goes(now, who);
                self.viewers.leave(now, who.vx);
            }
            What::Over(who) => {
                self.departs(now, who, false);
                self.viewers.leave(now, who.vx);
            }
            What::Beats(place) => self.heartbeats(now, place),
            What::Published(segment) => self.published(now, segment),
            What::Looks(segment) => self.looks(now, segment),
            What::Counts(is_settled) => self.counts(is_settled),
            What::Kills => self.kills(now),
            What::Fault(number) => self.fault(now, number),
            What::Restores(who, up) => {
                if self.viewers.is_there(who) {
                    self.viewers.all[who.vx as usize].up = up;
                }
            }
        }
    }

    fn comes(&mut self, now: Time, host: u32) {
        let Some(h) = self.hosts.get(host as usize) else { return };
        self.begins_session(now, Viewer { host, up: h.up, down: h.down, place: h.place, ..Viewer::vacant() });
    }

    /// A handshake, and the first word.
    fn begins_session(&mut self, now: Time, viewer: Viewer) {
        let who = self.viewers.admit(Viewer { state: State::Coming, ..viewer });
        self.queue.push(now + self.to_center(who.vx).times(3), What::Arrives(who));
    }

    fn welcomed(&mut self, now: Time, who: Who) {
        let viewer = &mut self.viewers.all[who.vx as usize];
        (viewer.state, viewer.watches_since) = (State::Watching, now);
        self.queue.push(now + self.to_center(who.vx), What::Joins(who));
        if self.live.sessions == LiveSessions::Lognormal && who.vx != SOURCE {
            self.queue.push(now + session(self.seed, who.number), What::Ends(who));
        }
    }

    /// A viewer says goodbye, and serves on; its host, if it was still there.
    fn ends(&mut self, now: Time, who: Who) -> Option<u32> {
        let host = self.viewers.watching(who)?.host;
        self.stops_asking(who.vx);
        let viewer = &mut self.viewers.all[who.vx as usize];
        viewer.state = State::Leaving;
        self.figures.gone(now, viewer, false);
        self.queue.push(now + self.to_center(who.vx), What::Bye(who));
        self.queue.push(now + SERVES_ON, What::Gone(who));
        Some(host)
    }

    /// The source pushes a segment.
    fn published(&mut self, now: Time, segment: u64) {
        let outlets = u64::from(self.viewers.all[SOURCE as usize].outlets);
        self.figures.sent.pushed += outlets * self.stream.lane_bytes();
        let pushes = (outlets * self.stream.lane_bytes()) as f64 / self.stream.segment.as_secs_f64();
        self.pipe.used(now, pushes + self.just_in_time);
        self.behind(now);
        self.queue.push(self.stream.published(segment + LOOKED_AT_AFTER), What::Looks(segment));
        self.queue.push(self.stream.published(segment + 1), What::Published(segment + 1));
    }

    fn looks(&mut self, now: Time, segment: u64) {
        let origin = (now >= self.origin_out_until).then(|| self.pipe.share());
        let tally = pass::look(&mut self.viewers, &self.net, &self.stream, segment, origin);
        self.just_in_time = tally.origin_bytes as f64 / self.stream.segment.as_secs_f64();
        let arrived = now >= self.zero + span(self.scenario.arrive_within_s);
        self.figures.add(&tally, arrived);
        if self.scenario.checks == Checks::EverySecond && self.hosts.len() < CHECKED_MAX {
            self.control.check(now);
        }
    }

    /// The viewer with most children dies, as in the lab.
    fn kills(&mut self, now: Time) {
        let watching = |vx: &Vx| self.viewers.all[*vx as usize].state == State::Watching;
        let all = (1..self.viewers.all.len() as Vx).filter(watching);
        let every = span(self.live.kill_parent_every_s.unwrap_or_default());
        if now + every < self.end
            && let Some(vx) = all.max_by_key(|vx| self.viewers.all[*vx as usize].outlets)
        {
            self.kill(now, vx);
            self.queue.push(now + every, What::Kills);
        }
    }

    fn kill(&mut self, now: Time, vx: Vx) {
        self.stops_asking(vx);
        self.dies(now, vx);
        self.killed += 1;
        self.queue.push(now + SESSION_ENDS, What::Over(self.viewers.who(vx)));
    }
}
