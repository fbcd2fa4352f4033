//! Counters: per hook, per reason, per CPU.

use bytemuck::{Pod, Zeroable};

use crate::reason::Reason;

/// The places where a program runs; the number is the row of the counter map.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// tc ingress of a workload veth.
    FromContainer = 0,
    /// tc ingress of an uplink.
    FromUplink = 1,
    /// XDP of an uplink; what it passes comes to [`Self::FromUplink`].
    XdpFromUplink = 2,
}

impl Hook {
    /// The hooks of tc, whose programs packets go on in.
    pub const TC: &[Self] = &[Self::FromContainer, Self::FromUplink];

    /// Every hook, in the order of their numbers.
    pub const ALL: &[Self] = &[Self::FromContainer, Self::FromUplink, Self::XdpFromUplink];

    /// The name used in outputs, and of the program in the BPF object with `_` for `-`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromContainer => "from-container",
            Self::FromUplink => "from-uplink",
            Self::XdpFromUplink => "xdp-from-uplink",
        }
    }
}

/// Rows of the counter map: more than there are hooks, so that a new hook is no new layout.
pub const HOOK_SLOTS: u32 = 8;

/// Counters of a row: more than there are reasons, so that a new reason is no new layout.
pub const REASON_SLOTS: usize = 64;

const _: () = assert!(Reason::ALL.len() <= REASON_SLOTS && Hook::ALL.len() <= HOOK_SLOTS as usize);

/// What one hook counted for one reason on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Counter {
    /// Packets; an aggregate (GSO, GRO) counts once.
    pub packets: u64,
    /// Bytes of the frames, Ethernet headers included.
    pub bytes: u64,
}

/// A row of the counter map: one hook on one CPU, indexed by the reason's number.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct HookCounters {
    /// One counter per reason; those past the last reason stay zero.
    pub by_reason: [Counter; REASON_SLOTS],
}
