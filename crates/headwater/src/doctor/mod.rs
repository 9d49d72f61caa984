//! What the doctor makes of what a peer found out about its circumstances: findings with their meaning, and what to do.
//! Nothing here does I/O.

mod findings;

pub use findings::{Finding, Health, findings};

#[cfg(test)]
mod tests;
