//! The lab: hosts in network namespaces behind shaped links, NATs and firewalls; the real binaries run in them, things go
//! wrong as a scenario says, and what came out is measured and judged.
//!
//! Linux only, as root: elsewhere the crate is empty and the command says so.
#![cfg(target_os = "linux")]

pub mod api;
pub mod bars;
pub mod baseline;
pub mod bystander;
pub mod calibrate;
pub mod compare;
pub mod faults;
pub mod live;
pub mod measure;
pub mod net;
pub mod observe;
pub mod outcome;
pub mod peers;
pub mod process;
pub mod report;
pub mod run;
pub mod simulated;
pub mod site;
