//! Headwater's messages on the wire: protobuf (schema in `proto/headwater.proto`), framing and conversion to the
//! nouns of `model`, with a limit on every length. Pure: bytes in, values out.
//!
//! [`FromNode`], [`FromControl`] and [`FromPeer`] are the three conversations; each `encode`s to a frame and `decode`s
//! from the body that a [`frame::FrameDecoder`] gives. [`StaticLog`] is the file that a publisher writes,
//! [`web`] what precedes a session over a WebSocket, and what a child shows to a waypoint by HTTPS.
#![deny(clippy::disallowed_methods, reason = "time and I/O are arguments of the pure crates")]

/// The generated messages; see the schema for what each field means. Private, as their `Debug` prints secrets.
#[allow(missing_docs, dead_code, clippy::all, reason = "generated; documented in the schema")]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/headwater.v1.rs"));
}

mod convert;
pub mod frame;
pub mod limits;
mod shape;
#[cfg(test)]
mod tests;

pub use convert::from_control::{
    Found, FromControl, GivenTicket, OriginAccess, PageCertificatesOf, TicketSecret, Welcome,
};
pub use convert::from_node::{FromNode, Heartbeat, Hello, Join};
pub use convert::from_peer::{DataHeader, EdgeRefusal, FromPeer, Held};
pub use convert::static_log::{StaticLog, StaticLogError, decode_log, encode_log};
pub use convert::web;
pub use convert::{Bitmap, Token};
pub use limits::PROTOCOL;

/// Why bytes are not a message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// Not protobuf, or fields of other types than the schema's.
    #[error("malformed message: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field is longer than its limit, occurs too often, or has another length than it must have.
    #[error("{field}: {got} where {limit} is the limit")]
    Length {
        /// Which, as the schema calls it.
        field: &'static str,
        /// Bytes or elements found.
        got: usize,
        /// Bytes or elements allowed.
        limit: usize,
    },
    /// A value that means nothing.
    #[error("{0} has a value without meaning")]
    Value(&'static str),
    /// A file of a later format.
    #[error(
        "format {found} was made by a newer version of Headwater (this one reads format {known}): update this node"
    )]
    Newer {
        /// Format of the file.
        found: u64,
        /// Newest format that is read here.
        known: u32,
    },
}
