//! What a node is and can do (requirements A1–A6).

use serde::{Deserialize, Serialize};

/// What a node is there for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A user's node: fetches what its user asked for and serves it.
    Peer,
    /// An operator's node: serves only, and fetches what the control center tells it to.
    Waypoint,
}

/// Kinds of sources, cheapest first, as ranking compares them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceClass {
    /// Another peer.
    Peer,
    /// A waypoint.
    Waypoint,
    /// The publisher's HTTP origin or CDN.
    Origin,
}

/// How much a content matters at a node, beside its other ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// A quarter of what a normal one gets, where they compete.
    Low,
    /// As most are.
    #[default]
    Normal,
    /// Four times as much as a normal one.
    High,
}

impl Priority {
    /// Its share of what several compete for is this, out of the sum of all of theirs.
    pub const fn weight(self) -> u64 {
        match self {
            Priority::Low => 1,
            Priority::Normal => 4,
            Priority::High => 16,
        }
    }
}

/// Whether others can open a connection to the node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accepts {
    /// Anyone can.
    Open,
    /// After a rendezvous.
    Punchable,
    /// Nobody: it dials.
    DialOnly,
}

/// Which sources a node may use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceAccess {
    /// Any.
    Any,
    /// Origin and operator nodes only.
    Listed,
}

/// What a node can pass on of what it receives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forwards {
    /// Everything that it keeps on disk.
    Disk,
    /// What it holds in memory.
    Memory,
    /// Nothing.
    No,
}

/// Where the knowledge of a capability comes from; a later one wins over an earlier one (requirement A3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// The node said so.
    Claim,
    /// The operator's configuration says so.
    Operator,
    /// The control center tried it.
    Test,
}

/// A capability and where it came from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Known<T> {
    /// The value.
    pub value: T,
    /// Its source.
    pub from: From,
}

impl<T> Known<T> {
    /// As the node claims.
    pub const fn claim(value: T) -> Self {
        Self { value, from: From::Claim }
    }
}

/// What a node can do: the three capabilities of requirement A2, and whether UDP gets through to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Capabilities {
    /// Reachability.
    pub accepts: Known<Accepts>,
    /// Whether the node itself accepts connections, whatever stands before it.
    pub listens: bool,
    /// Permitted sources.
    pub sources: Known<SourceAccess>,
    /// Forwarding.
    pub forwards: Known<Forwards>,
    /// Whether UDP gets through: the control center knows it by how the session came. Without it there are no
    /// connections with peers; origin and operator nodes are reached by HTTPS.
    pub udp: Known<bool>,
}

/// What a lightweight node lacks (A2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lacks {
    /// Strangers cannot connect to it.
    Connections,
    /// It may fetch from the origin and operator nodes only.
    Sources,
    /// It passes on nothing, or only what it holds in memory.
    Forwarding,
}

impl std::fmt::Display for Lacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Lacks::Connections => "nobody can connect to it",
            Lacks::Sources => "it may fetch from the origin and the operator's nodes only",
            Lacks::Forwarding => "it passes on nothing of what is on its disk",
        })
    }
}

impl Capabilities {
    /// A regular peer that accepts connections, or one that only dials.
    pub const fn regular(accepts: Accepts) -> Self {
        Self {
            accepts: Known::claim(accepts),
            listens: !matches!(accepts, Accepts::DialOnly),
            sources: Known::claim(SourceAccess::Any),
            forwards: Known::claim(Forwards::Disk),
            udp: Known::claim(true),
        }
    }
    /// Whether no stranger can open a connection to the node.
    pub fn dial_only(&self) -> bool {
        self.accepts.value == Accepts::DialOnly
    }
    /// Lightweight: less than a regular peer in any capability (A2).
    pub fn lightweight(&self) -> bool {
        self.lacks().is_some()
    }
    /// What makes a node lightweight; the first of them where there are several.
    pub fn lacks(&self) -> Option<Lacks> {
        match self.forwards.value {
            _ if self.dial_only() => Some(Lacks::Connections),
            _ if self.limited().is_some() => Some(Lacks::Sources),
            Forwards::Memory | Forwards::No => Some(Lacks::Forwarding),
            Forwards::Disk => None,
        }
    }
    /// Why the node may fetch from the origin and operator nodes only, if it may, in words for people.
    pub fn limited(&self) -> Option<&'static str> {
        match (self.udp.value, self.udp.from, self.sources.value) {
            (false, From::Test, _) => Some("no UDP (found by test)"),
            (false, ..) => Some("no UDP (as it says)"),
            (true, _, SourceAccess::Listed) => Some("access list (its configuration)"),
            (true, _, SourceAccess::Any) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_only_node_is_lightweight() {
        let of = Capabilities::regular;
        assert!(of(Accepts::DialOnly).lightweight() && !of(Accepts::Open).lightweight());
        assert_eq!(of(Accepts::DialOnly).lacks(), Some(Lacks::Connections));
        let forgets = Capabilities { forwards: Known::claim(Forwards::Memory), ..of(Accepts::Punchable) };
        assert_eq!((forgets.lacks(), of(Accepts::Punchable).lacks()), (Some(Lacks::Forwarding), None));
    }

    #[test]
    fn a_node_with_limited_sources_says_why() {
        let open = Capabilities::regular(Accepts::Open);
        let walled = Capabilities { udp: Known { value: false, from: From::Test }, ..open };
        assert_eq!(walled.lacks(), Some(Lacks::Sources));
        assert_eq!(walled.limited(), Some("no UDP (found by test)"));
        let listed = Capabilities { sources: Known::claim(SourceAccess::Listed), ..open };
        assert_eq!((listed.limited(), open.limited()), (Some("access list (its configuration)"), None));
    }
}
