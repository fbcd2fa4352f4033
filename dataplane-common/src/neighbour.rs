//! What the program at XDP keeps of the kernel's neighbour table.

use bytemuck::{Pod, Zeroable};

use crate::net::Ipv4Be;

/// Slots of each CPU: two neighbours of one slot take turns, which is slower and right.
pub const NEIGHBOUR_SLOTS: u32 = 256;

/// `ktime` nanoseconds, shifted right by so much, are ticks: 134 ms. So long the kernel's answer is good for.
pub const TICK_SHIFT: u32 = 27;

/// After so many ticks a packet goes by the kernel, which confirms only neighbours that it sends to itself: 10 s.
pub const CONFIRM_PERIOD: u32 = 75;

/// The first 12 bytes of a frame, as loaded: destination and source.
///
/// Words, since the verifier wants aligned access to the stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Addresses {
    /// The bytes.
    pub words: [u32; 3],
}

impl Addresses {
    /// None yet.
    pub const NONE: Self = Self { words: [0; 3] };

    /// From 16-bit words as loaded, in the order of the frame.
    #[inline(always)]
    pub const fn from_halves(halves: [u16; 6]) -> Self {
        // Little-endian, as the only BPF target that this is built for.
        const fn word(first: u16, second: u16) -> u32 {
            first as u32 | (second as u32) << 16
        }
        Self { words: [word(halves[0], halves[1]), word(halves[2], halves[3]), word(halves[4], halves[5])] }
    }
}

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
    pub addresses: Addresses,
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
    fn addresses_are_the_bytes_of_the_frame() {
        let bytes: [u8; 12] = core::array::from_fn(|index| index as u8);
        let halves = bytemuck::cast(bytes);
        assert_eq!(bytemuck::cast::<_, [u8; 12]>(Addresses::from_halves(halves).words), bytes);
    }

    #[test]
    fn every_neighbour_has_a_slot_and_those_of_a_network_have_different_ones() {
        let slots: std::collections::BTreeSet<u32> =
            (0..64).map(|host| slot(2, Ipv4Be::from_host(0x0a8d_0000 + host))).collect();
        assert!(slots.len() > 48, "{} slots for 64 neighbours", slots.len());
        assert!(slots.iter().all(|slot| *slot < NEIGHBOUR_SLOTS));
    }
}
