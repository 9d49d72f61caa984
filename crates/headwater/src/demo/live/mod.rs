//! `headwater demo --live`: a channel from its encoder to its viewers, and one of these killed.

pub(super) mod encoder;
pub(super) mod parts;
mod publisher;
mod result;
mod run;
mod viewer;

pub use run::Demo;
