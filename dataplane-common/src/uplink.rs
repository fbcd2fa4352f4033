//! The uplinks, as the program at XDP knows them.

use bytemuck::{Pod, Zeroable};

use crate::net::MacAddr;

/// Slots of the table of uplinks.
pub const UPLINK_SLOTS: u32 = 256;

/// One slot. An uplink whose slot another one has is not carried at XDP.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Uplink {
    /// The interface; 0 where the slot is empty.
    pub ifindex: u32,
    /// Its own MAC address: frames to others are not forwarded.
    pub mac: MacAddr,
    /// What frames may be redirected to it.
    pub flags: u16,
}

impl Uplink {
    /// Frames whose bytes lie in one piece (`NETDEV_XDP_ACT_NDO_XMIT` of `linux/netdev.h`).
    pub const TAKES_FRAMES: u16 = 1;

    /// Frames in several pieces (`NETDEV_XDP_ACT_NDO_XMIT_SG`).
    pub const TAKES_SCATTERED: u16 = 2;
}

const _: () = assert!(size_of::<Uplink>() == 12);

/// Where an interface has its slot.
#[inline(always)]
pub const fn slot(ifindex: u32) -> u32 {
    ifindex % UPLINK_SLOTS
}
