//! What the BPF programs and the daemon must agree on, each thing once: the layouts of the maps, the
//! names, the reasons, and the pure functions that both sides run.
//!
//! Everything here is `no_std` and free of side effects, so that the host can test it.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch, core_intrinsics))]
#![cfg_attr(target_arch = "bpf", expect(internal_features, reason = "see `atomic`"))]

pub mod atomic;
pub mod checksum;
pub mod endpoint;
pub mod family;
pub mod flow;
pub mod monitor;
pub mod names;
pub mod neighbour;
pub mod net;
pub mod next_hop;
pub mod opaque;
pub mod ports;
pub mod reason;
pub mod reject;
pub mod repeat;
pub mod route;
pub mod stats;
pub mod trace;
pub mod trie;
pub mod uplink;
