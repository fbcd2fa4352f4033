//! Everything that touches the kernel: BPF objects, maps, hooks, pins and netlink.

pub mod netlink;
pub mod table;
