//! A peer's decisions as state machines: inputs in, outputs out. Nothing here reads a clock, does I/O or draws random
//! numbers; the native peer and the simulator drive the same code.
//!
//! [`Swarm`] is one file or folder at one node, as child and as parent; [`live::Channel`] a live stream. [`ControlSession`] keeps the session with the control
//! center, [`Finder`] finds pieces in what is here already, [`evict`] says what goes when the disk's quota is used up. The
//! shell moves bytes, checks tickets and hashes, and says what happened.
#![deny(clippy::disallowed_methods, reason = "time and I/O are arguments of the cores")]
#![warn(missing_docs)]

mod check;
mod children;
mod edges;
mod intake;
mod limits;
pub mod live;
mod origin;
mod pages;
mod parents;
mod readers;
mod reuse;
mod session;
mod storage;
mod swarm;
mod turns;
mod uplink;
mod yields;

pub use edges::{EdgeStage, EdgeView};
pub use intake::Intake;
pub use limits::{Circumstances, Conduct, DAY_MINUTES, Hours, Limits, Moment, Permission, Reason};
pub use reuse::Finder;
pub use session::{ControlSession, SessionOutput};
pub use storage::{Eviction, Kept, evict};
pub use swarm::{Config, Input, Output, PageSource, PieceFrom, PieceOutcome, Swarm};
pub use turns::{Turn, Turns};
pub use uplink::{Probe, Uplink};
pub use yields::{Delay, Delays, LATE, LOOK_EVERY, Yields};
