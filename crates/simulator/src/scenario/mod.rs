//! Scenarios: who fetches what over which links, what goes wrong on the way, and what must come out of it.
//!
//! Simulator and lab read the same files. What only one of them can do the other refuses by name, see
//! [`Scenario::check_simulable`].

mod bars;
mod faults;
mod hosts;
#[cfg(test)]
mod tests;

pub use bars::Bars;
pub use faults::{Fault, FaultKind};
pub use hosts::{HostSpec, Reach, scaled};

use headwater_model::layout::LayoutError;
use headwater_model::place::Place;
use headwater_model::time::Micros;
use headwater_model::{Layout, Priority, Role};
use serde::{Deserialize, Serialize};

/// Nodes of one scenario.
pub const NODES_MAX: usize = 1_000_000;
/// Contents of one scenario.
pub const CONTENTS_MAX: usize = 64;
/// The highest number of an ISP: the lab makes an address prefix of each.
pub const ISP_MAX: u16 = 250;
/// Bytes of a scenario file.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Bytes per second of one Mbit/s.
pub const MBIT: f64 = 125_000.0;
/// What the control center's own link carries both ways, Mbit/s.
pub const CONTROL_MBIT: f64 = 100.0;
/// What a site's LAN carries between two of its hosts, Mbit/s.
pub const LAN_MBIT: f64 = 1_000.0;

/// A scenario, as its TOML file says it. Rates are in Mbit/s (10⁶ bits): goodput in the simulator, what the wire
/// carries in the lab. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Short name, as reports print it.
    pub name: String,
    /// What it is for, in words.
    #[serde(default)]
    pub about: String,
    /// Size of the content in bytes.
    pub content_bytes: u64,
    /// Size of a piece in bytes: a power of two.
    pub piece_bytes: u32,
    /// Uplink of the origin.
    pub origin_up_mbit: f64,
    /// Further contents, which all hosts fetch as well; for the simulator.
    #[serde(default)]
    pub also: Vec<Also>,
    /// All nodes arrive within this time, evenly spread at random.
    #[serde(default)]
    pub arrive_within_s: f64,
    /// The run is over then, complete or not.
    #[serde(default = "default_time_limit")]
    pub time_limit_s: f64,
    /// How hosts arrive.
    #[serde(default)]
    pub arrivals: Arrivals,
    /// The first receiver starts with the whole content and counts as no receiver. For arrivals one by one only.
    #[serde(default)]
    pub seeded: bool,
    /// How often the invariants are checked; for the simulator.
    #[serde(default)]
    pub checks: Checks,
    /// What lies between the hosts; without it no ISPs, no shared links, and delays of a few tens of milliseconds.
    #[serde(default)]
    pub network: Option<NetworkSpec>,
    /// Enterprise lines.
    #[serde(default)]
    pub sites: Vec<Site>,
    /// The hosts.
    pub groups: Vec<Group>,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// The user's own traffic on a host's line; lab only.
    #[serde(default)]
    pub bystander: Option<Bystander>,
    /// The hosts watch a live channel, instead of fetching the content.
    #[serde(default)]
    pub live: Option<Live>,
    /// What must come out.
    #[serde(default)]
    pub bars: Bars,
}

/// A live channel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Live {
    /// Its rate.
    pub mbit: f64,
    /// Length of a segment.
    pub segment_s: f64,
    /// How far behind the end of the playlist players begin.
    pub hold_back_s: f64,
    /// How long the run is.
    pub seconds: f64,
    /// How it comes to the publisher.
    #[serde(default)]
    pub ingest: Ingest,
    /// What stands for its viewers; for the simulator.
    #[serde(default)]
    pub model: LiveModel,
    /// Time between two heartbeats of a node, where that is not the control center's default; for flows.
    #[serde(default)]
    pub heartbeat_s: Option<f64>,
    /// The viewer that most others depend on is killed this often, once arrivals are over.
    #[serde(default)]
    pub kill_parent_every_s: Option<f64>,
    /// Then the viewer is killed through which most of the stream comes in to a cluster, of those that pass it on there; lab
    /// only.
    #[serde(default)]
    pub kill_entry_at_s: Option<f64>,
    /// From then on each viewer fetches the content of the scenario, too; lab only.
    #[serde(default)]
    pub fetch_at_s: Option<f64>,
    /// How long viewers stay; for the simulator, as the lab's stay.
    #[serde(default)]
    pub sessions: LiveSessions,
    /// What must come out.
    pub bars: LiveBars,
}

/// How a live channel comes to its publisher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ingest {
    /// It follows the playlist on the origin: a segment is there when it is whole.
    #[default]
    Follow,
    /// The encoder puts it there while it makes it; the publisher is the origin.
    Push,
}

/// What stands for the viewers of a live channel. The control center is the real one in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LiveModel {
    /// The real channel at each, and every packet between them: up to some ten thousand viewers.
    #[default]
    Packet,
    /// Flows from parents to children: up to a million.
    Flow,
}

/// How long viewers of a live channel stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LiveSessions {
    /// To the end.
    #[default]
    Stay,
    /// For a lognormal time with the parameters 4.384 and 1.427 (seconds; median 80 s, mean 222 s). A newcomer takes the
    /// place of each that leaves.
    Lognormal,
}

/// What must come out of a live channel; what is missing is not judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LiveBars {
    /// Payload that publisher and origin send to viewers over S_min, after the first 60 s; at most.
    pub source_ratio_later: Option<f64>,
    /// The same of the whole run.
    pub source_ratio: Option<f64>,
    /// Stalls of all viewers that were not killed, at most.
    pub stalls: Option<f64>,
    /// Time from a player's start to its first picture, which 95 % do not pass; at most.
    pub start_up_p95_s: Option<f64>,
    /// Time from the publisher having a piece to its being at the viewer, which 95 % do not pass at any viewer; at most.
    pub lag_p95_s: Option<f64>,
    /// Gaps and repeats in the media, and segments that cannot be read; at most.
    pub media_breaks: Option<f64>,
    /// Share of the viewers' uplinks that is used after the first 60 s, at least.
    pub uplink_share: Option<f64>,
    /// From the last word of a parent that is lost until another one pushes its substream, which 99 % do not pass; at most.
    pub fed_again_p99_s: Option<f64>,
    /// From when a viewer's uplink is slower until it pushes no more than that carries, at most.
    pub left_within_s: Option<f64>,
    /// From the origin's return until every viewer has a segment that was published afterwards, at most.
    pub resumes_within_s: Option<f64>,
    /// Pairs among all assignments of which neither end can reach the other, at most.
    pub dial_only_pairs: Option<f64>,
    /// As `source_ratio_later`, over the bound for viewers of which some cannot be dialled.
    pub lightweight_ratio: Option<f64>,
    /// Copies that enter any ISP other than the origin's, after the first 60 s, at most.
    pub copies_into_isp: Option<f64>,
    /// Copies that leave any such ISP, after the first 60 s, at most.
    pub copies_out_of_isp: Option<f64>,
    /// Pieces that viewers gave up, as they had not come when they were needed; at most. The lab measures it.
    pub lost_pieces: Option<f64>,
    /// Clusters of viewers that came to be while the stream ran, at least. The lab measures it.
    pub splits: Option<f64>,
    /// Clusters that were merged with the ones around them, at least. The lab measures it.
    pub merges: Option<f64>,
    /// Every viewer that stays has the right content in the end.
    pub content_right: bool,
}

/// A user's own traffic: small packets there and back all the time, and a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bystander {
    /// The one host of this group shares its line with it.
    pub group: String,
    /// A stream upwards of 50 packets a second.
    #[serde(default)]
    pub call_mbit: f64,
}

fn default_time_limit() -> f64 {
    3600.0
}

/// A content beside the first one, in pieces of the same size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Also {
    /// Size of the content in bytes.
    pub content_bytes: u64,
    /// Uplink of its own origin.
    pub origin_up_mbit: f64,
    /// How much it matters to all hosts; the first one matters as most do.
    #[serde(default)]
    pub priority: Priority,
}

/// How hosts arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    /// All within [`Scenario::arrive_within_s`].
    #[default]
    Spread,
    /// Each when the former one has finished, and has left if it leaves. Waypoints are there from the start.
    OneByOne,
}

/// How often the invariants of both cores are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checks {
    /// After every step: for small worlds.
    EveryStep,
    /// Once per simulated second.
    #[default]
    EverySecond,
    /// Only at the end: for timing.
    AtTheEnd,
}

/// What lies between hosts: ISPs, joined each to each by a peering link of its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSpec {
    /// Round trip between two hosts of one ISP.
    pub rtt_inside_ms: f64,
    /// Round trip between hosts of two ISPs.
    pub rtt_across_ms: f64,
    /// Added to each one-way trip, evenly spread up to this.
    pub jitter_ms: f64,
    /// Packets lost at random on every path; lab only.
    pub loss_percent: f64,
    /// What each link buffers, in time at its rate. The simulator's links are fluid and have no queues.
    pub queue_ms: f64,
    /// The link between each two ISPs, in each direction.
    pub peering_mbit: f64,
    /// Packets lost at random on links between ISPs; lab only.
    pub peering_loss_percent: f64,
    /// Where the origin, on its own link, and the control center, on one of [`CONTROL_MBIT`], are.
    pub origin_isp: u16,
    /// Hosts have only IPv6 addresses, else only IPv4 ones.
    pub ipv6: bool,
    /// Hosts are in six regions of the world as viewers are, whatever their ISPs, with the round trips that are measured
    /// between these; for flows.
    pub regions: bool,
}

impl Default for NetworkSpec {
    fn default() -> Self {
        Self {
            rtt_inside_ms: 20.0,
            rtt_across_ms: 60.0,
            jitter_ms: 0.0,
            loss_percent: 0.0,
            queue_ms: 100.0,
            peering_mbit: 200.0,
            peering_loss_percent: 0.0,
            origin_isp: 1,
            ipv6: false,
            regions: false,
        }
    }
}

/// An enterprise's line. The hosts behind it share a LAN of [`LAN_MBIT`] and one NAT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Groups name it.
    pub name: String,
    /// Its ISP.
    #[serde(default = "first_isp")]
    pub isp: u16,
    /// What leaves it, at most.
    pub up_mbit: f64,
    /// What enters it, at most.
    pub down_mbit: f64,
    /// Its NAT.
    #[serde(default)]
    pub nat: SiteNat,
}

/// The NAT of a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SiteNat {
    /// The same public port for every destination.
    #[default]
    Independent,
    /// A port per destination.
    Dependent,
    /// None: hosts have public addresses.
    None,
}

/// Hosts alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its hosts are this, a hyphen and their number from 1; "g1", "g2" … when missing.
    #[serde(default)]
    pub name: Option<String>,
    /// How many.
    pub count: usize,
    /// Uplink of each.
    pub up_mbit: f64,
    /// Uplinks are evenly spread from `up_mbit` to this instead.
    #[serde(default)]
    pub up_mbit_to: Option<f64>,
    /// Downlink of each.
    pub down_mbit: f64,
    /// Their ISP.
    #[serde(default = "first_isp")]
    pub isp: u16,
    /// How others reach them.
    #[serde(default)]
    pub reach: Reach,
    /// Share of them that can only dial, chosen by the seed.
    #[serde(default)]
    pub dial_only_share: f64,
    /// Reachability as in life (public, endpoint-independent, endpoint-dependent, blocked) instead of `reach`; some
    /// pairs cannot be punched although their kinds allow it.
    #[serde(default)]
    pub nat_as_in_life: bool,
    /// Name of the site where they are.
    #[serde(default)]
    pub site: Option<String>,
    /// Waypoints serve only, start empty, and count as no receivers.
    #[serde(default = "peer")]
    pub role: Role,
    /// Which sources they accept.
    #[serde(default)]
    pub sources: Sources,
    /// How they lie, if they do. Liars count as no receivers.
    #[serde(default)]
    pub hostile: Option<String>,
    /// They came with the operator's token: their claimed uplinks are believed at once.
    #[serde(default = "yes")]
    pub enrolled: bool,
    /// They are told the rate of their uplinks (`--up`); waypoints always are. For the lab.
    #[serde(default)]
    pub told_up: bool,
    /// Their uploads step aside for their users' traffic (`--step-aside`). For the lab.
    #[serde(default)]
    pub steps_aside: bool,
    /// They arrive this much later than the others.
    #[serde(default)]
    pub late_s: f64,
    /// They leave when they have everything; else they stay and serve until the run ends.
    #[serde(default)]
    pub leaves_when_complete: bool,
    /// Where they are, besides their ISP and site.
    #[serde(default)]
    pub place: Place,
}

fn first_isp() -> u16 {
    1
}

fn peer() -> Role {
    Role::Peer
}

fn yes() -> bool {
    true
}

/// Which sources a host accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sources {
    /// Any.
    #[default]
    Any,
    /// The origin and the operator's nodes, by an access list in the host's configuration.
    Operator,
}

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("scenario {path}: {error}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// It is not what a scenario looks like.
    #[error("scenario {path}: {error}")]
    Parse {
        /// Which file.
        path: String,
        /// What is wrong, with the line.
        error: Box<toml::de::Error>,
    },
    /// The content cannot be laid out.
    #[error("content of the scenario: {0}")]
    Layout(#[from] LayoutError),
    /// A number is out of range.
    #[error("{0} is out of range")]
    OutOfRange(&'static str),
    /// Two fields contradict each other, or one names what is not there.
    #[error("{0}")]
    Contradiction(String),
    /// Only the lab, with real hosts, can do this.
    #[error("the simulator cannot do {0}; `cargo xtask lab` can")]
    LabOnly(String),
}

impl Group {
    /// Open peers of ISP 1 with these links in Mbit/s; everything else as a scenario file has it by default.
    pub fn new(count: usize, up_mbit: f64, down_mbit: f64) -> Self {
        Self {
            name: None,
            count,
            up_mbit,
            up_mbit_to: None,
            down_mbit,
            isp: first_isp(),
            reach: Reach::Open,
            dial_only_share: 0.0,
            nat_as_in_life: false,
            site: None,
            role: peer(),
            sources: Sources::Any,
            hostile: None,
            enrolled: yes(),
            told_up: false,
            steps_aside: false,
            late_s: 0.0,
            leaves_when_complete: false,
            place: Place::default(),
        }
    }
}

impl Scenario {
    /// Reads a scenario file.
    ///
    /// # Errors
    /// [`ScenarioError`] when it cannot be read, understood or run.
    pub fn read(path: &std::path::Path) -> Result<Scenario, ScenarioError> {
        let name = || path.display().to_string();
        let read = |error| ScenarioError::Read { path: name(), error };
        let bytes = std::fs::metadata(path).map_err(read)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(ScenarioError::OutOfRange("the size of the scenario file"));
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        let scenario: Scenario =
            toml::from_str(&text).map_err(|e| ScenarioError::Parse { path: name(), error: Box::new(e) })?;
        scenario.layout()?;
        Ok(scenario)
    }

    /// Geometry of the content.
    ///
    /// # Errors
    /// [`ScenarioError`] when any number of the scenario is out of range, or its parts do not fit together.
    pub fn layout(&self) -> Result<Layout, ScenarioError> {
        within(self.content_bytes > 0, "content_bytes")?;
        within(sane(self.origin_up_mbit) && self.origin_up_mbit > 0.0, "origin_up_mbit")?;
        within(sane(self.arrive_within_s), "arrive_within_s")?;
        within(sane(self.time_limit_s), "time_limit_s")?;
        if self.seeded && self.arrivals != Arrivals::OneByOne {
            return Err(ScenarioError::Contradiction("`seeded` needs arrivals one by one".into()));
        }
        for also in &self.also {
            within(sane(also.origin_up_mbit) && also.origin_up_mbit > 0.0, "origin_up_mbit")?;
            Layout::single(self.piece_bytes, also.content_bytes)?;
        }
        within(self.also.len() < CONTENTS_MAX, "the number of contents")?;
        within(self.bars.beside_ratio.is_none() || !self.also.is_empty(), "beside_ratio, without further contents,")?;
        self.check_network()?;
        self.check_groups()?;
        if let Some(b) = &self.bystander {
            let alone = |i: usize| self.group_name(i) == b.group && self.groups[i].count == 1;
            within(sane(b.call_mbit), "call_mbit")?;
            if !(0..self.groups.len()).any(alone) {
                return Err(ScenarioError::Contradiction(format!("no group {} has one host", b.group)));
            }
        }
        for fault in &self.faults {
            self.check_fault(fault)?;
        }
        if let Some(live) = &self.live {
            self.check_live(live)?;
        }
        Ok(Layout::single(self.piece_bytes, self.content_bytes)?)
    }

    fn check_live(&self, live: &Live) -> Result<(), ScenarioError> {
        within((0.1..=50.0).contains(&live.mbit), "mbit of the live channel")?;
        within((0.5..=10.0).contains(&live.segment_s), "segment_s")?;
        within((0.0..=60.0).contains(&live.hold_back_s), "hold_back_s")?;
        within((10.0..=7200.0).contains(&live.seconds), "seconds of the live channel")?;
        within(live.kill_parent_every_s.is_none_or(|s| (1.0..=3600.0).contains(&s)), "kill_parent_every_s")?;
        within(live.kill_entry_at_s.is_none_or(|s| sane(s) && s < live.seconds), "kill_entry_at_s")?;
        within(live.fetch_at_s.is_none_or(|s| sane(s) && s < live.seconds), "fetch_at_s")?;
        within(live.heartbeat_s.is_none_or(|s| (0.5..=60.0).contains(&s)), "heartbeat_s")?;
        let wrong = |what: &str| Err(ScenarioError::Contradiction(format!("a live channel {what}")));
        if live.heartbeat_s.is_some() && live.model != LiveModel::Flow {
            return wrong("needs `model = \"flow\"` for `heartbeat_s`");
        }
        if live.bars.content_right && live.fetch_at_s.is_none() {
            return wrong("whose viewers have the content right needs `fetch_at_s`");
        }
        let plain = self.bars == Bars::default() && self.bystander.is_none();
        let only_viewers = self.groups.iter().all(|g| g.role == Role::Peer && g.hostile.is_none());
        if !plain || !only_viewers || self.arrivals != Arrivals::Spread {
            return wrong("has viewers that arrive spread and bars of its own, and no others yet");
        }
        match self.faults.iter().find(|f| !f.kind.is_of_live() || f.at_s.is_none()) {
            Some(fault) => wrong(&format!("knows no fault {}, or needs `at_s` for it", fault.kind.name())),
            None => Ok(()),
        }
    }

    fn check_network(&self) -> Result<(), ScenarioError> {
        let isp = |isp: u16| within((1..=ISP_MAX).contains(&isp), "the number of an ISP");
        if let Some(n) = &self.network {
            if n.regions && !self.is_flow() {
                return Err(needs_flow("`regions` of the network"));
            }
            let times = [n.rtt_inside_ms, n.rtt_across_ms, n.jitter_ms, n.queue_ms];
            within(times.iter().all(|ms| sane(*ms) && *ms <= 10_000.0), "a delay of the network")?;
            within(percent(n.loss_percent) && percent(n.peering_loss_percent), "a loss of the network")?;
            within(sane(n.peering_mbit) && n.peering_mbit > 0.0, "peering_mbit")?;
            isp(n.origin_isp)?;
        }
        for (i, site) in self.sites.iter().enumerate() {
            isp(site.isp)?;
            let rates = [site.up_mbit, site.down_mbit];
            within(rates.iter().all(|r| sane(*r) && *r > 0.0), "the rate of a site's line")?;
            if self.sites.iter().take(i).any(|s| s.name == site.name) {
                return Err(ScenarioError::Contradiction(format!("two sites are named {}", site.name)));
            }
        }
        Ok(())
    }

    fn check_groups(&self) -> Result<(), ScenarioError> {
        let mut nodes = 0usize;
        for (i, g) in self.groups.iter().enumerate() {
            nodes = nodes.saturating_add(g.count);
            let ups = [g.up_mbit, g.up_mbit_to.unwrap_or(g.up_mbit), g.down_mbit];
            within(ups.iter().all(|r| sane(*r)) && g.down_mbit > 0.0, "a group's rate")?;
            within((0.0..=1.0).contains(&g.dial_only_share), "dial_only_share")?;
            within(sane(g.late_s), "late_s")?;
            within((1..=ISP_MAX).contains(&g.isp), "the number of an ISP")?;
            let name = self.group_name(i);
            let wrong = |what: &str| Err(ScenarioError::Contradiction(format!("group {name}: {what}")));
            if (0..i).any(|j| self.group_name(j) == name) {
                return wrong("another group has this name");
            }
            if let Some(site) = &g.site {
                match self.sites.iter().find(|s| s.name == *site) {
                    None => return wrong(&format!("there is no site {site}")),
                    Some(s) if s.isp != g.isp => return wrong(&format!("its site {site} is in ISP {}", s.isp)),
                    Some(_) => {}
                }
            }
            if g.role == Role::Waypoint && (g.sources == Sources::Operator || g.hostile.is_some()) {
                return wrong("a waypoint takes any source and is honest");
            }
            if g.nat_as_in_life && g.reach != Reach::Open {
                return wrong("`nat_as_in_life` and `reach` exclude each other");
            }
        }
        within((1..=NODES_MAX).contains(&nodes), "the number of nodes")
    }

    fn check_fault(&self, f: &Fault) -> Result<(), ScenarioError> {
        let share = |s: Option<f64>| s.is_none_or(|s| (0.0..=1.0).contains(&s));
        within(f.at_s.is_none_or(sane) && sane(f.for_s), "a fault's time")?;
        within(share(f.at_share) && share(f.until_share), "a fault's share")?;
        within(sane(f.value.abs()), "a fault's value")?;
        let wrong = |what: &str| Err(ScenarioError::Contradiction(format!("fault {}: {what}", f.kind.name())));
        if f.of_share.is_some() && !self.is_flow() {
            return Err(needs_flow("`of_share` of a fault"));
        }
        within(share(f.of_share), "a fault's share")?;
        if f.of_share.is_some() && f.count != 1 {
            return wrong("`count` and `of_share` exclude each other");
        }
        if f.at_s.is_some() == f.at_share.is_some() {
            return wrong("one of `at_s` and `at_share` says when it begins");
        }
        if let Some(group) = &f.group
            && !(0..self.groups.len()).any(|i| self.group_name(i) == *group)
        {
            return wrong(&format!("there is no group {group}"));
        }
        let of_nobody = matches!(f.kind, FaultKind::OriginOut | FaultKind::ControlOut | FaultKind::ControlLost);
        if f.until_share.is_some() && !(of_nobody || f.kind.is_of_peering()) {
            return wrong("`until_share` is for the origin, the control center and links between ISPs");
        }
        if f.kind.is_of_peering() && self.network.is_none() {
            return wrong("there is no peering link without [network]");
        }
        match f.kind {
            FaultKind::PeeringLoss if !percent(f.value) => wrong("`value` is the loss in percent"),
            FaultKind::Slow if !percent(f.value) => wrong("`value` is what is left of the rate, in percent"),
            FaultKind::PeeringRate | FaultKind::Reshape if f.value <= 0.0 => wrong("`value` is the rate in Mbit/s"),
            FaultKind::ClockJump if f.value == 0.0 => wrong("`value` is the jump in seconds"),
            _ => Ok(()),
        }
    }

    /// Whether its viewers are flows.
    pub(crate) fn is_flow(&self) -> bool {
        self.live.is_some_and(|l| l.model == LiveModel::Flow)
    }

    /// Name of a group.
    pub fn group_name(&self, group: usize) -> String {
        let own = self.groups.get(group).and_then(|g| g.name.clone());
        own.unwrap_or_else(|| format!("g{}", group + 1))
    }
}

fn needs_flow(what: &str) -> ScenarioError {
    ScenarioError::Contradiction(format!("{what} needs a live channel with `model = \"flow\"`"))
}

fn within(ok: bool, what: &'static str) -> Result<(), ScenarioError> {
    if ok { Ok(()) } else { Err(ScenarioError::OutOfRange(what)) }
}

fn sane(x: f64) -> bool {
    x.is_finite() && (0.0..1e9).contains(&x)
}

fn percent(x: f64) -> bool {
    (0.0..=100.0).contains(&x)
}

/// Seconds of a scenario as a span.
pub(crate) fn span(seconds: f64) -> Micros {
    Micros((seconds * 1e6) as u64)
}
