//! The control center's server: sessions of nodes over QUIC, the HTTP API, and what is kept on disk. The decisions are
//! those of `headwater-center-core`; nothing here chooses who feeds whom.
//!
//! [`start`] makes a control center that runs until [`Running::stopped`] ends. One lock guards the core and the
//! sessions (`hub`); a thread owns the database (`store`); the identity folder holds what must not be lost
//! (`identity`).
#![warn(missing_docs)]

mod admission;
mod api;
mod config;
mod contents;
mod events;
mod hub;
mod identity;
mod metrics;
mod pages;
mod places;
mod server;
mod session;
mod store;
mod tokens;
mod words;

pub use admission::AddressLimits;
pub use config::ControlConfig;
pub use headwater_center_core::Config as CoreConfig;
pub use identity::FolderError;
pub use places::PlacesError;
pub use server::{Running, StartError, TlsError, start};
pub use store::StoreError;
pub use tokens::{TokenError, TokenRole};
