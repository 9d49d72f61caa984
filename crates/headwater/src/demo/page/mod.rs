//! `headwater demo --page`: a channel and a file that stay, and a page that is a peer of both.

mod run;
mod server;

pub use run::Demo;
