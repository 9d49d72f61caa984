//! The native peer: QUIC, piece store, origin client, publisher.

mod buffer_pool;
pub mod consents;
pub mod hashing;
pub mod key;
pub mod node;
pub mod origin;
mod pacer;
pub mod publish;
pub mod sources;
pub mod store;
