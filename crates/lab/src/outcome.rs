//! What a run of a scenario came to: measured values, series over time, and the bars that they are judged by.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// All that is known about one run. Times are seconds since time zero, when the receivers were let loose; bytes that say
/// `wire` are IP bytes as links count them, all others are payload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The scenario's name.
    pub scenario: String,
    /// What it is for.
    pub about: String,
    /// What was delivered with: `headwater`, or the baseline's name.
    pub system: String,
    /// Seed of the run.
    pub seed: u64,
    /// Every bar was reached.
    pub pass: bool,
    /// The bars.
    pub bars: Vec<Bar>,
    /// Length of the content.
    pub content_bytes: u64,
    /// Time zero, Unix milliseconds.
    pub zero_unix_ms: u64,
    /// From time zero to the end of the run.
    pub duration_s: f64,
    /// When the last receiver had everything; absent when not all that should have it do.
    pub makespan_s: Option<f64>,
    /// Below which no makespan can be, by calibrated rates; absent where no bound is known.
    pub bound_s: Option<f64>,
    /// Goodput of one transfer alone, by line rate.
    pub calibrated: Vec<CalibratedRate>,
    /// Wire bytes for each byte of payload, as calibrated on the commonest link.
    pub wire_per_payload: f64,
    /// All hosts but origin and control center, in the scenario's order.
    pub hosts: Vec<HostOutcome>,
    /// The origin.
    pub origin: OriginOutcome,
    /// Traffic from one ISP to another.
    pub isps: Vec<IspFlow>,
    /// Traffic over the lines of sites.
    pub sites: Vec<SiteFlow>,
    /// Dials by what their two ends accept.
    pub punched: Vec<PunchCount>,
    /// The control center.
    pub control: ControlOutcome,
    /// Liars, in the scenario's order.
    pub hostile: Vec<HostileOutcome>,
    /// What serving did to the user's own traffic, where the scenario has any.
    #[serde(default)]
    pub bystander: Option<BystanderOutcome>,
    /// Packets that reached addresses which nobody has, by sender.
    pub victim_packets: Vec<VictimPackets>,
    /// The same scenario in the simulator.
    pub simulator: Option<SimulatorOutcome>,
    /// What went wrong on purpose.
    pub faults: Vec<FaultMark>,
    /// What the control center said happened.
    pub events: Vec<EventMark>,
    /// What else is to be known about this run.
    pub notes: Vec<String>,
    /// CPU seconds of the lab's own forwarder.
    pub forwarder_cpu_s: f64,
    /// Over time.
    pub series: Series,
}

/// A bar and how it was met.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// As the scenario calls it.
    pub name: String,
    /// What was measured; absent where the measure is missing, which fails.
    pub value: Option<f64>,
    /// What it must not pass (or, for shares of a rate, not stay below).
    pub bound: f64,
    /// Value over bound.
    pub ratio: Option<f64>,
    /// Whether it was met.
    pub pass: bool,
    /// Why the value is missing, or which host it is of.
    pub note: String,
}

/// Goodput of one transfer over a link of this rate alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CalibratedRate {
    /// Line rate.
    pub line_mbit: f64,
    /// Goodput, bytes per second.
    pub goodput_bytes_per_s: f64,
    /// Wire bytes for each byte of payload.
    pub wire_per_payload: f64,
    /// Measured here, or interpolated between two that were.
    pub measured: bool,
    /// `quic` or `http`.
    pub by: String,
}

/// A host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostOutcome {
    /// Its name in the scenario.
    pub name: String,
    /// Its node id, once it told.
    pub node: Option<String>,
    /// Its ISP.
    pub isp: u16,
    /// Its address as others see it.
    pub address: Option<IpAddr>,
    /// Its uplink's line rate.
    pub up_mbit: f64,
    /// Its downlink's line rate.
    pub down_mbit: f64,
    /// Goodput that its downlink can have, as calibrated.
    pub down_goodput_bytes_per_s: f64,
    /// How the scenario built it.
    pub reach: String,
    /// `peer` or `waypoint`.
    pub role: String,
    /// Its site.
    pub site: Option<String>,
    /// What it lies about.
    pub hostile: Option<String>,
    /// What the control center says that it accepts, and how that is known.
    pub accepts: Option<String>,
    /// How that is known: `claim`, `operator`, `test`.
    pub accepts_from: Option<String>,
    /// What a test should find.
    pub accepts_expected: String,
    /// When it was started.
    pub started_s: Option<f64>,
    /// When it had everything.
    pub finished_s: Option<f64>,
    /// Its file is what the origin's is; absent if it has no whole file.
    pub hash_right: Option<bool>,
    /// It was killed for good, or left: it need not finish.
    pub excused: bool,
    /// Bytes of the content that it has.
    pub have_bytes: u64,
    /// From peers.
    pub peer_bytes: u64,
    /// From waypoints.
    pub waypoint_bytes: u64,
    /// From the origin.
    pub origin_bytes: u64,
    /// Twice or wrong.
    pub wasted_bytes: u64,
    /// Sent to others.
    pub uploaded_bytes: u64,
    /// Content over the time from its start to its finish, bytes per second.
    pub goodput_bytes_per_s: Option<f64>,
    /// Longest time without receiving, between its first byte and its finish.
    pub longest_wait_s: f64,
    /// Wire bytes out.
    pub wire_up_bytes: u64,
    /// Wire bytes in.
    pub wire_down_bytes: u64,
    /// CPU seconds of its process.
    pub cpu_s: f64,
    /// Peak resident memory of its process.
    pub peak_rss_bytes: u64,
    /// What it told its user.
    pub notes: Vec<String>,
    /// Why it failed.
    pub error: Option<String>,
}

/// The origin, by its own log and by its link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OriginOutcome {
    /// Body bytes by the web server's log, since time zero.
    pub body_bytes: u64,
    /// Requests that it answered.
    pub requests: u64,
    /// Wire bytes on its uplink since time zero.
    pub wire_up_bytes: u64,
    /// Body bytes over the content's length.
    pub copies: f64,
}

/// Traffic between two ISPs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IspFlow {
    /// Of the sender.
    pub from: u16,
    /// Of the receiver.
    pub to: u16,
    /// Wire bytes.
    pub wire_bytes: u64,
    /// Copies of the content: wire bytes by calibration, without what control traffic and acknowledgements take off.
    pub copies: f64,
}

/// Traffic over a site's line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SiteFlow {
    /// The site.
    pub name: String,
    /// Wire bytes in.
    pub wire_in_bytes: u64,
    /// Wire bytes out.
    pub wire_out_bytes: u64,
    /// Copies in.
    pub copies_in: f64,
    /// Copies out.
    pub copies_out: f64,
}

/// Dials between nodes of two kinds; both ends' dials count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PunchCount {
    /// What one end accepts.
    pub a: String,
    /// What the other accepts.
    pub b: String,
    /// Dials that ended.
    pub attempted: u64,
    /// After these the two were connected.
    pub connected: u64,
}

/// The control center.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ControlOutcome {
    /// CPU seconds over all its lives.
    pub cpu_s: f64,
    /// Peak resident memory.
    pub peak_rss_bytes: u64,
    /// Pairs assigned of which neither can reach the other, by its own count over all lives.
    pub unreachable_pairs: Option<u64>,
    /// From its return until all nodes that live have a session again.
    pub sessions_back_s: Option<f64>,
    /// When it first named a pair across ISPs as congested, after a peering fault began.
    pub congested_named_s: Option<f64>,
    /// Honest nodes that are or were banned; absent where the API does not tell.
    pub honest_banned: Option<u64>,
    /// Totals as the API last told them.
    pub totals: serde_json::Value,
}

/// A liar.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostileOutcome {
    /// Its host.
    pub name: String,
    /// What it does.
    pub kind: String,
    /// Honest nodes that it harmed.
    pub harmed: u64,
    /// Of these, those that left it each time that they were harmed.
    pub left: u64,
    /// Longest time from a harm to that peer's leaving, of all times that it was the liar's child; absent where nobody was
    /// harmed, or none left.
    pub longest_until_left_s: Option<f64>,
    /// Times that it was assigned a child that had left it, after it was found out: after the control center's events told
    /// of it and that child, or of its ban. (Before that, edges come and go for other reasons; where they never tell, all
    /// count.)
    pub assigned_again: u64,
    /// It shows in the control center's history or events.
    pub in_history: bool,
    /// The honest nodes that it harmed.
    #[serde(default)]
    pub children: Vec<HarmedChild>,
}

/// An honest node that a liar harmed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HarmedChild {
    /// Its host.
    pub name: String,
    /// From a harm on until it left, after time zero; the end is absent where it did not.
    pub stays_s: Vec<(f64, Option<f64>)>,
    /// When the control center's events first told of the two, or of the liar's ban.
    pub found_out_s: Option<f64>,
    /// When it was assigned the liar again after having left it.
    pub again_s: Vec<f64>,
}

/// The user's own traffic on a host's line, while it serves and while it does not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BystanderOutcome {
    /// Whose line.
    pub host: String,
    /// Round trip of small packets while nothing is served: what 95 % do not pass.
    pub ping_quiet_p95_ms: Option<f64>,
    /// The same while it serves, less this.
    pub ping_rise_p95_ms: Option<f64>,
    /// Payload served, bytes per second.
    pub served_bytes_per_s: Option<f64>,
    /// That over what the line carries alone, less the user's own stream.
    pub spare_share: Option<f64>,
    /// Packets of the user's own stream lost while it serves.
    pub call_loss_percent: Option<f64>,
    /// How much longer they take one way while it serves: what 95 % do not pass.
    pub call_rise_p95_ms: Option<f64>,
    /// Why something is missing.
    pub note: String,
}

/// Packets to an address that nobody has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VictimPackets {
    /// Where they went.
    pub victim: IpAddr,
    /// Who sent them.
    pub from: IpAddr,
    /// How many.
    pub packets: u64,
}

/// The same scenario in the simulator, at calibrated rates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SimulatorOutcome {
    /// When the last receiver had everything.
    pub makespan_s: Option<f64>,
    /// Copies that left the origin.
    pub origin_copies: f64,
    /// Most copies that entered an ISP other than the origin's.
    pub copies_into_isp: Option<f64>,
    /// Lab's makespan over the simulator's, less 1, in percent.
    pub makespan_difference_percent: Option<f64>,
    /// Lab's origin copies over the simulator's, less 1, in percent.
    pub origin_difference_percent: Option<f64>,
    /// No difference is over 15 %.
    pub agrees: bool,
    /// Why there is no prediction.
    pub note: String,
}

/// Something that was made to go wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultMark {
    /// When it began.
    pub at_s: f64,
    /// When it was over; absent if it never was.
    pub until_s: Option<f64>,
    /// In words, with the hosts.
    pub what: String,
}

/// Something that the control center said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventMark {
    /// When.
    pub at_s: f64,
    /// What.
    pub text: String,
}

/// Over time: all lists have an entry per entry of `at_s`, and counts only grow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// When.
    pub at_s: Vec<f64>,
    /// Per host, in the order of [`Outcome::hosts`].
    pub hosts: Vec<HostSeries>,
    /// Wire bytes on the origin's uplink.
    pub origin_wire_up_bytes: Vec<u64>,
    /// Wire bytes between ISPs.
    pub isps: Vec<IspSeries>,
    /// Payload that all hosts together have from the origin.
    pub from_origin_bytes: Vec<u64>,
    /// … from waypoints.
    pub from_waypoint_bytes: Vec<u64>,
    /// … from peers.
    pub from_peer_bytes: Vec<u64>,
    /// Packets that links dropped (queue, loss, cut).
    pub dropped_packets: Vec<u64>,
    /// Resident memory of the control center.
    pub control_rss_bytes: Vec<u64>,
    /// CPU seconds of the control center.
    pub control_cpu_s: Vec<f64>,
}

/// A host over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostSeries {
    /// Bytes of the content that it has.
    pub have_bytes: Vec<u64>,
    /// Wire bytes out.
    pub wire_up_bytes: Vec<u64>,
    /// Wire bytes in.
    pub wire_down_bytes: Vec<u64>,
}

/// Traffic between two ISPs over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IspSeries {
    /// Of the sender.
    pub from: u16,
    /// Of the receiver.
    pub to: u16,
    /// Wire bytes.
    pub wire_bytes: Vec<u64>,
}
