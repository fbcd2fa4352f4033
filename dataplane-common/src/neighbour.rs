//! What the program at XDP keeps of the kernel's neighbour table.

use bytemuck::{Pod, Zeroable};

use crate::net::{Ipv4Be, MacPair};

/// Slots of each CPU: two neighbours of one slot take turns, which is slower and right.
pub const NEIGHBOUR_SLOTS: u32 = 256;

/// `ktime` nanoseconds, shifted right by so much, are ticks: 134 ms. So long the kernel's answer is good for.
pub const TICK_SHIFT: u32 = 27;

/// After so many ticks a packet goes by the kernel, which confirms only neighbours that it sends to itself: 10 s.
pub const CONFIRM_PERIOD: u32 = 75;

/// One slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Neighbour {
    /// The neighbour.
    pub address: Ipv4Be,
    /// The uplink that it is reached by; 0 where the slot is empty.
    pub ifindex: u32,
    /// The tick at which the kernel was asked.
    pub asked: u32,
    /// The tick at which a packet went by the kernel.
    pub confirmed: u32,
    /// The neighbour's MAC address and the uplink's.
    pub addresses: MacPair,
    /// Fills the slot.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Neighbour>() == 32);

/// Where a neighbour has its slot.
#[inline(always)]
pub const fn slot(ifindex: u32, address: Ipv4Be) -> u32 {
    (address.to_host() ^ ifindex << 4).wrapping_mul(0x9e37_79b1) >> 24
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_neighbour_has_a_slot_and_those_of_a_network_have_different_ones() {
        let slots: std::collections::BTreeSet<u32> =
            (0..64).map(|host| slot(2, Ipv4Be::from_host(0x0a8d_0000 + host))).collect();
        assert!(slots.len() > 48, "{} slots for 64 neighbours", slots.len());
        assert!(slots.iter().all(|slot| *slot < NEIGHBOUR_SLOTS));
    }
}
