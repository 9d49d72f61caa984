//! `headwater demo --live`: a channel from its encoder to its viewers, and one of these killed.

mod encoder;
mod parts;
mod publisher;
mod result;
mod run;
mod viewer;

pub use run::Demo;
