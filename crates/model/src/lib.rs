//! Nouns and units of Headwater: what the control center, the peers and the simulator all talk about.
//!
//! Pure: nothing here reads a clock, does I/O or draws random numbers.
#![deny(clippy::disallowed_methods, reason = "time and I/O are arguments of the pure crates")]
#![warn(missing_docs)]

pub mod assignment;
pub mod bits;
pub mod id;
pub mod layout;
pub mod live;
pub mod log;
pub mod merkle;
pub mod name;
pub mod node;
pub mod place;
pub mod reach;
pub mod report;
pub mod rng;
pub mod sums;
pub mod ticket;
pub mod time;

pub use assignment::{Assignment, Generation};
pub use bits::Bits;
pub use id::{ContentId, Hash, NodeId, Version};
pub use layout::Layout;
pub use live::Substreams;
pub use name::Name;
pub use node::{Accepts, Capabilities, Forwards, Known, Lacks, Priority, Role, SourceAccess, SourceClass};
pub use place::{Place, Tier};
pub use reach::{Probe, Reachability};
pub use rng::Rng;
pub use sums::Sum;
pub use ticket::Ticket;
pub use time::{Micros, Rate, Time};
