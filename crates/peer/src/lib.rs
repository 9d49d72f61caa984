//! The native peer: QUIC, piece store, origin client, publisher.

pub mod hashing;
pub mod origin;
pub mod store;
