//! Everything that touches the kernel: BPF objects, maps, hooks, pins and netlink.

pub mod attach;
pub mod capabilities;
pub mod counters;
pub mod flow_ports;
pub mod flows;
pub mod interface;
pub mod limits;
mod mapping;
pub mod monitor;
pub mod nat;
pub mod netlink;
pub mod object;
pub mod offers;
pub mod ownership;
pub mod pinned;
pub mod pins;
pub mod previous;
pub mod reserved_ports;
pub mod slots;
pub mod sysctl;
pub mod table;
pub mod uplinks;
