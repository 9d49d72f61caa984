//! HLS (RFC 8216 and its successor draft) as far as Headwater must understand it: what a playlist says, what is fetched
//! of it and when, how one is written, what a player's buffer does with it, and whether the media goes on where it ended.
//! Pure: no I/O, no clock.
#![deny(clippy::disallowed_methods)]

pub mod follow;
pub mod media;
pub mod player;
pub mod playlist;
pub mod write;
