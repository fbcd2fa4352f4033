//! The node daemon as a library: what `dataplane run` does, and what its tests drive.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))] // They panic where nobody reads.

pub mod applied;
pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
pub mod daemon;
pub mod datapath;
pub mod kernel;
pub mod log;
pub mod manual;
pub mod metrics;
pub mod monitor;
pub mod port_set;
pub mod reads;
pub mod respect;
pub mod rib;
pub mod show;
pub mod slow_path;
pub mod source;
pub mod trace;
pub mod wanted;
