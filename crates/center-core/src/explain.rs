//! Decisions that explain themselves: who was considered, who was removed by what, how the rest ranked.

use headwater_model::id::NodeId;
use headwater_model::node::SourceClass;
use headwater_model::place::Tier;
use headwater_model::time::Time;
use std::collections::BTreeMap;

/// Names kept of each list in a decision.
pub const MAX_NAMED: usize = 16;

/// Why a candidate was removed. In the order of the tests, cheapest first: the later one is removed, the nearer it was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Removed {
    /// UDP does not get through to one of both.
    NoUdp,
    /// Neither end can be reached by the other.
    OutOfReach,
    /// The candidate passes nothing on.
    ForwardsNothing,
    /// The child may use operator nodes and the origin only.
    NotListed,
    /// Unrelated children accuse it: it is nobody's parent for a while.
    Banned,
    /// Assigned already.
    AlreadyParent,
    /// The pair failed a short while ago.
    Blacklisted,
    /// The child got wrong bytes from it.
    Accused,
    /// Its session broke.
    Away,
    /// Peers that can be reached by fewer need its uplink more.
    KeptForOthers,
    /// Peers with limited sources need its uplink more: they may use operator nodes and the origin only.
    KeptForLimited,
    /// The child's region has its share of this scarce source.
    RegionShare,
    /// It is accused, and the one child that it may have meanwhile tries it.
    OnTrial,
    /// The link from its region to the child's is congested, and the child has other parents.
    CongestedLink,
    /// Enough links into the child's region exist; it is far.
    TooFar,
    /// Others behind the same public address bring the content in.
    SiteServed,
    /// No uplink to spare.
    NoSpareUplink,
}

impl Removed {
    /// In words, and what would have to change.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Removed::NoUdp => ("UDP does not get through to both", "if UDP got through to both"),
            Removed::OutOfReach => {
                ("neither end can be reached by the other", "if either accepted connections from everywhere")
            }
            Removed::ForwardsNothing => ("passes nothing on", "if it were allowed to upload"),
            Removed::NotListed => ("not on the child's access list", "if the child might use any source"),
            Removed::Banned => ("banned, as unrelated children accuse it", "when the ban is over"),
            Removed::Accused => ("sent the child wrong bytes", "when that is long ago"),
            Removed::OnTrial => ("on trial, as a child accuses it", "when other children confirm it"),
            Removed::CongestedLink => ("behind a congested link", "when the link is free again"),
            Removed::AlreadyParent => ("is a parent already", "it serves the child"),
            Removed::Blacklisted => ("a connection failed a short while ago", "when the blacklist time is over"),
            Removed::Away => ("its session is broken", "when it comes back"),
            Removed::KeptForOthers => ("kept for peers that fewer can reach", "if more peers accepted connections"),
            Removed::KeptForLimited => {
                ("kept for peers that may use operator nodes and the origin only", "if fewer peers had limited sources")
            }
            Removed::RegionShare => ("the child's region has its share of it", "if other regions needed less"),
            Removed::TooFar => ("far, and enough links lead into the region", "if a link into the region ended"),
            Removed::SiteServed => (
                "others behind the same public address bring the content in",
                "if they, and it, were not on one network",
            ),
            Removed::NoSpareUplink => ("no uplink to spare", "when one of its children finishes"),
        }
    }
}

/// A candidate that passed all tests, with what it was ranked by.
#[derive(Clone, PartialEq, Debug)]
pub struct Ranked {
    /// Who.
    pub node: NodeId,
    /// Class of source.
    pub class: SourceClass,
    /// Nearness.
    pub tier: Tier,
    /// log2 of spare uplink in bytes per second.
    pub spare_bucket: u32,
    /// 0 to 3.
    pub history: u32,
    /// Whether it became a parent.
    pub chosen: bool,
}

/// One choice of parents.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision {
    /// When.
    pub at: Time,
    /// Why it was made, in words.
    pub occasion: &'static str,
    /// Parents looked for.
    pub wanted: u32,
    /// Candidates looked at one by one.
    pub considered: u32,
    /// Members of the swarm that were not looked at because they have no uplink to spare, or enough were found before.
    pub not_reached: u32,
    /// How many were removed by what.
    pub removed: BTreeMap<Removed, u32>,
    /// Some of them.
    pub removed_named: Vec<(NodeId, Removed)>,
    /// Those that passed, best first.
    pub ranked: Vec<Ranked>,
}

impl Decision {
    /// When nobody was found: the candidate that was nearest to being one, and what kept it out.
    pub fn nearest_miss(&self) -> Option<(NodeId, Removed)> {
        if self.ranked.iter().any(|r| r.chosen) {
            return None;
        }
        self.removed_named.iter().filter(|(_, r)| *r != Removed::AlreadyParent).max_by_key(|(_, r)| *r).copied()
    }
}
