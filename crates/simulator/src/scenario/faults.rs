//! What goes wrong, when, and to whom.

use serde::{Deserialize, Serialize};

/// Something that goes wrong, to hosts that the seed picks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When it begins: either this …
    #[serde(default)]
    pub at_s: Option<f64>,
    /// … or when the receivers hold on average this share of the content.
    #[serde(default)]
    pub at_share: Option<f64>,
    /// When it is over, after its beginning.
    #[serde(default)]
    pub for_s: f64,
    /// When it is over instead: when the receivers hold on average this share of the content. For faults of the origin,
    /// the control center and links between ISPs.
    #[serde(default)]
    pub until_share: Option<f64>,
    /// How many hosts (pairs, for a broken link) are hit; nothing for the origin, the control center and peering links.
    #[serde(default = "one")]
    pub count: usize,
    /// This share of the hosts that could be hit is, instead; for flows.
    #[serde(default)]
    pub of_share: Option<f64>,
    /// Only hosts of this group are hit.
    #[serde(default)]
    pub group: Option<String>,
    /// Percent, Mbit/s or seconds, as the kind says.
    #[serde(default)]
    pub value: f64,
    /// What.
    pub kind: FaultKind,
}

fn one() -> usize {
    1
}

impl Fault {
    /// What a slow uplink has of its rate.
    pub fn slow_share(&self) -> f64 {
        if self.value > 0.0 { self.value / 100.0 } else { 0.1 }
    }

    /// One host hit at a time known beforehand.
    pub fn at(at_s: f64, for_s: f64, kind: FaultKind) -> Self {
        Self {
            at_s: Some(at_s),
            at_share: None,
            for_s,
            until_share: None,
            count: 1,
            of_share: None,
            group: None,
            value: 0.0,
            kind,
        }
    }
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
    /// The process dies, and its folder with it: afterwards a node with another identity comes, which has nothing; simulator
    /// only.
    Reborn,
    /// A content that the seed picks is published in a new version, or again where it was withdrawn; simulator only.
    NewVersion,
    /// A further content that the seed picks is withdrawn, and published again afterwards; simulator only.
    Withdrawn,
    /// A content that the seed picks matters to the node as the seed says, from now on; simulator only.
    Priority,
    /// The process stops and goes on afterwards.
    #[serde(alias = "stop")]
    Freeze,
    /// The uplink has `value` percent of its rate; a tenth where that is not said.
    Slow,
    /// Uplink and downlink have `value` Mbit/s.
    Reshape,
    /// The host's link carries nothing.
    Cut,
    /// The host gets another address, for good; lab only.
    AddressChange,
    /// The host's clock jumps by `value` seconds, for good; lab only.
    ClockJump,
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
    /// Links between ISPs carry nothing.
    PeeringCut,
    /// Links between ISPs lose `value` percent of the packets; lab only.
    PeeringLoss,
    /// Links between ISPs carry `value` Mbit/s each way.
    PeeringRate,
}

impl FaultKind {
    /// The kind as scenario files write it.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Crash => "crash",
            FaultKind::Death => "death",
            FaultKind::Leave => "leave",
            FaultKind::Reborn => "reborn",
            FaultKind::NewVersion => "new-version",
            FaultKind::Withdrawn => "withdrawn",
            FaultKind::Priority => "priority",
            FaultKind::Freeze => "freeze",
            FaultKind::Slow => "slow",
            FaultKind::Reshape => "reshape",
            FaultKind::Cut => "cut",
            FaultKind::AddressChange => "address-change",
            FaultKind::ClockJump => "clock-jump",
            FaultKind::OriginOut => "origin-out",
            FaultKind::ControlOut => "control-out",
            FaultKind::ControlLost => "control-lost",
            FaultKind::LinkBreak => "link-break",
            FaultKind::Corrupt => "corrupt",
            FaultKind::Rot => "rot",
            FaultKind::PeeringCut => "peering-cut",
            FaultKind::PeeringLoss => "peering-loss",
            FaultKind::PeeringRate => "peering-rate",
        }
    }

    /// Whether it can hit the viewers of a live channel, or who brings it.
    pub fn is_of_live(self) -> bool {
        use FaultKind::{ControlLost, ControlOut, Crash, Death, Freeze, Leave, OriginOut, Slow};
        matches!(self, Crash | Death | Leave | Freeze | Slow | OriginOut | ControlOut | ControlLost)
    }

    /// Whether what is published changes.
    pub fn is_of_contents(self) -> bool {
        matches!(self, FaultKind::NewVersion | FaultKind::Withdrawn)
    }

    /// Whether it hits the links between ISPs.
    pub fn is_of_peering(self) -> bool {
        matches!(self, FaultKind::PeeringCut | FaultKind::PeeringLoss | FaultKind::PeeringRate)
    }
}
