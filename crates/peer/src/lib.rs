//! The native peer: QUIC, piece store, origin client, publisher.

mod buffer_pool;
mod circumstances;
pub mod consents;
pub mod downlink;
pub mod hashing;
pub mod ingest;
pub mod key;
pub mod node;
pub mod origin;
mod pacer;
pub mod publish;
pub mod sources;
pub mod store;
mod volume;
