#![doc = "Both cores under virtual time: links, population, faults, bounds."]
pub mod bounds;
pub mod links;
