//! Scenarios: who fetches what over which links, what goes wrong on the way, and what must come out of it.

use headwater_model::Layout;
use headwater_model::layout::LayoutError;
use headwater_model::place::Place;
use headwater_model::rng::Rng;
use headwater_model::time::{Micros, Time};
use serde::{Deserialize, Serialize};

/// Nodes of one scenario.
pub const NODES_MAX: usize = 1_000_000;
/// Bytes of a scenario file.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// A scenario, as its TOML file says it. Rates are goodput in Mbit/s (10⁶ bits), times in virtual seconds.
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
    /// All nodes arrive within this time, evenly spread at random.
    pub arrive_within_s: f64,
    /// The run is over then, complete or not.
    #[serde(default = "default_time_limit")]
    pub time_limit_s: f64,
    /// How often the invariants are checked.
    #[serde(default)]
    pub checks: Checks,
    /// The nodes.
    pub groups: Vec<Group>,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// What must come out.
    #[serde(default)]
    pub bars: Bars,
}

fn default_time_limit() -> f64 {
    3600.0
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

/// Nodes alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// How many.
    pub count: usize,
    /// Uplink of each.
    pub up_mbit: f64,
    /// Downlink of each.
    pub down_mbit: f64,
    /// Share of them that can only dial, chosen by the seed.
    #[serde(default)]
    pub dial_only_share: f64,
    /// Reachability as in life (public, endpoint-independent, endpoint-dependent, blocked) instead of open.
    #[serde(default)]
    pub nat_as_in_life: bool,
    /// They came with the operator's token: their claimed uplinks are believed at once.
    #[serde(default = "yes")]
    pub enrolled: bool,
    /// They arrive this much later than the others.
    #[serde(default)]
    pub late_s: f64,
    /// Where they are.
    #[serde(default)]
    pub place: Place,
}

fn yes() -> bool {
    true
}

/// Something that goes wrong, to nodes that the seed picks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When it begins.
    pub at_s: f64,
    /// When it is over, after its beginning.
    pub for_s: f64,
    /// How many nodes (pairs, for a broken link) are hit; nothing for the origin and the control center.
    #[serde(default = "one")]
    pub count: usize,
    /// What.
    pub kind: FaultKind,
}

fn one() -> usize {
    1
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The process dies; afterwards it comes back with the pieces that it had.
    Crash,
    /// The process dies and stays away.
    Death,
    /// The node says goodbye; afterwards it comes back.
    Leave,
    /// The process stops and goes on afterwards.
    Freeze,
    /// The uplink has a tenth of its rate.
    Slow,
    /// The origin answers nothing.
    OriginOut,
    /// The control center cannot be reached.
    ControlOut,
    /// The control center is gone, and comes back without its state.
    ControlLost,
    /// Two connected nodes can no longer reach each other.
    LinkBreak,
    /// The node sends bytes that are not the content.
    Corrupt,
    /// Pieces rot on the node's disk: it sends bytes that are not the content, and finds out when told.
    Rot,
}

/// What a run must reach to pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bars {
    /// Makespan over its bound, at most.
    pub makespan_ratio: Option<f64>,
    /// Copies that leave the origin, at most.
    pub origin_copies: Option<f64>,
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
    /// [`ScenarioError`] when any number of the scenario is out of range.
    pub fn layout(&self) -> Result<Layout, ScenarioError> {
        let within = |ok: bool, what| if ok { Ok(()) } else { Err(ScenarioError::OutOfRange(what)) };
        let sane = |x: f64| x.is_finite() && (0.0..1e9).contains(&x);
        within(self.content_bytes > 0, "content_bytes")?;
        within(sane(self.origin_up_mbit) && self.origin_up_mbit > 0.0, "origin_up_mbit")?;
        within(sane(self.arrive_within_s), "arrive_within_s")?;
        within(sane(self.time_limit_s), "time_limit_s")?;
        let mut nodes = 0usize;
        for g in &self.groups {
            nodes = nodes.saturating_add(g.count);
            within(sane(g.up_mbit) && sane(g.down_mbit) && g.down_mbit > 0.0, "a group's rate")?;
            within((0.0..=1.0).contains(&g.dial_only_share), "dial_only_share")?;
            within(sane(g.late_s), "late_s")?;
        }
        within((1..=NODES_MAX).contains(&nodes), "the number of nodes")?;
        for f in &self.faults {
            within(sane(f.at_s) && sane(f.for_s), "a fault's time")?;
        }
        Ok(Layout::single(self.piece_bytes, self.content_bytes)?)
    }

    /// The nodes, in order of their groups.
    pub fn nodes(&self, seed: u64) -> Vec<NodeSpec> {
        let mut rng = Rng::new(seed, "population");
        let mut nodes = Vec::new();
        for group in &self.groups {
            let dial_only = (group.count as f64 * group.dial_only_share).round() as usize;
            let mut nats: Vec<Nat> = (0..group.count)
                .map(|i| match i {
                    _ if i < dial_only => Nat::Blocked,
                    _ if group.nat_as_in_life => Nat::as_in_life(rng.unit()),
                    _ => Nat::Public,
                })
                .collect();
            rng.shuffle(&mut nats);
            nodes.extend(nats.into_iter().map(|nat| NodeSpec {
                up: group.up_mbit * 125_000.0,
                down: group.down_mbit * 125_000.0,
                nat,
                enrolled: group.enrolled,
                arrives: Time(((group.late_s + rng.unit() * self.arrive_within_s) * 1e6) as u64),
                place: group.place.clone(),
            }));
        }
        nodes
    }
}

/// A node of a world.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Uplink, bytes per second.
    pub up: f64,
    /// Downlink, bytes per second.
    pub down: f64,
    /// How others reach it.
    pub nat: Nat,
    /// Whether its claims are believed.
    pub enrolled: bool,
    /// When it arrives.
    pub arrives: Time,
    /// Where it is.
    pub place: Place,
}

/// Classes of reachability (benchmarks, "NAT classes").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Accepts connections.
    Public,
    /// Endpoint-independent mapping.
    Independent,
    /// Endpoint-dependent mapping.
    Dependent,
    /// Only dials.
    Blocked,
}

impl Nat {
    fn as_in_life(unit: f64) -> Nat {
        match unit {
            x if x < 0.20 => Nat::Public,
            x if x < 0.75 => Nat::Independent,
            x if x < 0.95 => Nat::Dependent,
            _ => Nat::Blocked,
        }
    }

    /// Probability that a connection between the two can come about; the same whoever dials, except that a blocked
    /// node must dial and the other be public.
    pub fn success(self, other: Nat) -> f64 {
        use Nat::{Blocked, Dependent, Independent, Public};
        match (self, other) {
            (Public, _) | (_, Public) => 1.0,
            (Blocked, _) | (_, Blocked) => 0.0,
            (Independent, Independent) => 0.92,
            (Dependent, Dependent) => 0.05,
            (Independent, Dependent) | (Dependent, Independent) => 0.55,
        }
    }
}

/// Whether NATs let nodes `a` and `b` connect at all in the world of `seed`: the same whichever dials, and for ever.
pub(crate) fn pair_connects(seed: u64, a: (u32, Nat), b: (u32, Nat)) -> bool {
    let (low, high) = (a.0.min(b.0), a.0.max(b.0));
    Rng::new(seed ^ (u64::from(low) << 32 | u64::from(high)), "nat").unit() < a.1.success(b.1)
}

/// Seconds of a scenario as a span.
pub(crate) fn span(seconds: f64) -> Micros {
    Micros((seconds * 1e6) as u64)
}
