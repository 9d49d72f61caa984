//! The kinds of misbehaviour, and what each changes in an otherwise honest peer.

use clap::ValueEnum;
use headwater_model::Rate;
use std::fmt;

/// How a hostile peer misbehaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kind {
    /// Serves pieces with one bit flipped.
    FlipsBits,
    /// Serves another piece's bytes under a piece's number.
    WrongPiece,
    /// Claims everything, answers edges, never sends.
    KeepsSilent,
    /// Sends one piece every 2 s, to every other child some bytes of one.
    Trickles,
    /// Its heartbeats claim everything, also leased runs that it never fetched; it offers its children nothing.
    LiesHolds,
    /// Its heartbeats claim to have sent much more than it did.
    LiesSent,
    /// Claims an uplink of 10 Gbit/s.
    LiesCanSend,
    /// Raises alarms against every node that it hears of, again and again.
    Slanders,
    /// Names a victim's address wherever an address can be claimed.
    NamesVictim,
    /// As many messages, sessions and broken frames to the control center as it can.
    FloodsControl,
    /// Thousands of connections and half-open streams to peers.
    OpensStreams,
    /// Shows tickets elsewhere, on other connections, altered; opens edges without one.
    ReplaysTickets,
    /// Any number of children that take the content once, keep nothing and give nothing.
    RidesFree,
}

/// What children get of what they ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sends {
    /// The true pieces.
    True,
    /// One bit flipped.
    Flipped,
    /// Other bytes of the same length.
    Other,
    /// Nothing.
    Nothing,
    /// Next to nothing.
    Trickle,
}

/// What a peer says that it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claims {
    /// What it holds.
    True,
    /// Everything.
    All,
    /// Nothing.
    Nothing,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().map_or(String::new(), |v| v.get_name().to_owned()).as_str())
    }
}

impl Kind {
    /// What children get.
    pub fn sends(self) -> Sends {
        match self {
            Kind::FlipsBits => Sends::Flipped,
            Kind::WrongPiece => Sends::Other,
            Kind::KeepsSilent | Kind::LiesHolds => Sends::Nothing,
            Kind::Trickles => Sends::Trickle,
            _ => Sends::True,
        }
    }
    /// What the control center is told.
    pub fn claims(self) -> Claims {
        match self {
            Kind::KeepsSilent | Kind::LiesHolds => Claims::All,
            _ => Claims::True,
        }
    }
    /// What children are told.
    pub fn offers(self) -> Claims {
        match self {
            Kind::KeepsSilent => Claims::All,
            Kind::LiesHolds => Claims::Nothing,
            _ => Claims::True,
        }
    }
    /// Claimed uplink.
    pub fn up(self) -> Rate {
        match self {
            Kind::LiesCanSend => Rate::from_mbit(10_000),
            // What the lab's links have.
            _ => Rate::from_mbit(20),
        }
    }
}
