//! What an operator may set; the defaults suit everyone else.

use headwater_model::time::Micros;

/// Thresholds and limits of the control center's decisions.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Time between two heartbeats of a node.
    pub heartbeat: Micros,
    /// N of requirement R3 for silence: intervals without a byte from a parent that was asked.
    pub silent_intervals: u32,
    /// N of requirement R3 for slowness.
    pub slow_intervals: u32,
    /// A parent is slow below this share of what was promised, in percent.
    pub slow_percent: u32,
    /// Parents of a child while most members still fetch.
    pub parents: u32,
    /// Most parents of a child, when few still fetch.
    pub max_parents: u32,
    /// Links from other regions that the members of a region have together (requirement S7), so that about one copy of
    /// the content comes in however many they are; a member without parents may always have one.
    pub far_links: u32,
    /// Members of a live stream that are near one another form a cluster when they are so many, and none any more when they
    /// are fewer than that (T5).
    pub cluster_opens: u32,
    /// See `cluster_opens`.
    pub cluster_closes: u32,
    /// Spare parents named in an assignment.
    pub spares: u32,
    /// Most children of one peer in one content.
    pub max_children: u32,
    /// Most children of one waypoint in one content.
    pub max_waypoint_children: u32,
    /// How long a pair that failed is not tried again (S3): at first, then three times as long each time, at most.
    pub first_blacklist: Micros,
    /// See `first_blacklist`.
    pub blacklist: Micros,
    /// Candidates looked at in one decision, so that its cost does not grow with the swarm.
    pub max_considered: usize,
    /// Origin leases under way at once: at first and at least, at most.
    pub min_leases: u32,
    /// See `min_leases`.
    pub max_leases: u32,
    /// How long a node whose session broke stays assigned (it may still deliver, C12).
    pub grace: Micros,
    /// Assignments that change are sent together this often.
    pub flush: Micros,
    /// How long pieces whose last complete holder left may still turn up before the origin is asked again.
    pub lost_run_grace: Micros,
    /// After a restart: how long nodes that come back have to say what they hold before the origin is asked, at most; a
    /// quarter of it after the last one that came.
    pub settle: Micros,
    /// Tests who can be reached among nodes on this machine too, whose claims are believed otherwise: for tests.
    pub test_on_loopback: bool,
    /// How long a parent that unrelated children accuse is nobody's parent: at first, then twice as long each time, at
    /// most. As long, an accusation of wrong bytes is remembered.
    pub ban: Micros,
    /// See `ban`.
    pub max_ban: Micros,
    /// How long a link between regions counts as congested: no further edge is laid over it to a child that has parents;
    /// or as lossy: the region may have more of them.
    pub congested: Micros,
    /// Most nodes with a session.
    pub max_nodes: usize,
    /// Most contents that one node takes part in.
    pub max_contents_per_node: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat: Micros::from_secs(2),
            silent_intervals: 3,
            slow_intervals: 3,
            slow_percent: 20,
            parents: 8,
            max_parents: 24,
            far_links: 6,
            cluster_opens: 8,
            cluster_closes: 4,
            spares: 2,
            max_children: 200,
            max_waypoint_children: 4000,
            first_blacklist: Micros::from_secs(4),
            blacklist: Micros::from_secs(60),
            max_considered: 64,
            min_leases: 4,
            max_leases: 32,
            grace: Micros::from_secs(10),
            flush: Micros::from_millis(50),
            lost_run_grace: Micros::from_secs(2),
            settle: Micros::from_secs(4),
            test_on_loopback: false,
            ban: Micros::from_secs(600),
            max_ban: Micros::from_secs(86_400),
            congested: Micros::from_secs(20),
            max_nodes: 200_000,
            max_contents_per_node: 256,
        }
    }
}
