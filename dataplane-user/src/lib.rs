//! The node daemon as a library: what `dataplane run` does, and what its tests drive.

pub mod config;
pub mod kernel;
pub mod rib;
