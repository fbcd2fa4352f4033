//! What a flow has carried.

use super::{record::Known, state::Direction};
use crate::{
    atomic::{Word32, Word64},
    family::Family,
};

/// Bits of a word of bytes that count bytes; those above are the packets' high bits.
const BYTES_BITS: u32 = 52;

/// What one flow has carried, by [`Direction`]. Packets that two CPUs handle at one time may count once.
///
/// ```text
///  63       52 51                     0
/// +-----------+------------------------+
/// | packets / 2^32 |      bytes        |   for each direction
/// +-----------+------------------------+
/// |      packets % 2^32                |   32 bits for each direction
/// +------------------------------------+
/// ```
#[repr(C)]
#[derive(Debug, Default)]
pub struct Counts {
    bytes: [Word64; 2],
    packets: [Word32; 2],
}

const _: () = assert!(size_of::<Counts>() == 24);

impl Counts {
    /// Counts a packet, an aggregate as one.
    #[inline(always)]
    pub fn add(&self, direction: Direction, bytes: u32) {
        let (bytes_word, packets_word) = match direction {
            Direction::Original => (&self.bytes[0], &self.packets[0]),
            Direction::Reply => (&self.bytes[1], &self.packets[1]),
        };
        let packets = packets_word.load().wrapping_add(1);
        packets_word.store(packets);
        let carry = if packets == 0 { 1 << BYTES_BITS } else { 0 };
        bytes_word.store(bytes_word.load().wrapping_add(bytes as u64 + carry));
    }

    /// Bytes of frames in that direction.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.bytes[direction as usize].load() & ((1 << BYTES_BITS) - 1)
    }

    /// Packets in that direction.
    pub fn packets(&self, direction: Direction) -> u64 {
        let high = self.bytes[direction as usize].load() >> BYTES_BITS;
        high << 32 | u64::from(self.packets[direction as usize].load())
    }

    /// Makes it the count of a new flow.
    #[inline(always)]
    pub(super) fn clear(&self) {
        self.bytes[0].store(0);
        self.bytes[1].store(0);
        self.packets[0].store(0);
        self.packets[1].store(0);
    }

    /// Sets what another table counted.
    pub(super) fn restore<F: Family>(&self, known: &Known<F>) {
        for index in 0..2 {
            let bytes = known.bytes[index] & ((1 << BYTES_BITS) - 1);
            self.bytes[index].store(bytes | known.packets[index] >> 32 << BYTES_BITS);
            self.packets[index].store(known.packets[index] as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{family::V4, flow::state::State};

    #[test]
    fn packets_are_counted_beyond_32_bits() {
        let counts = Counts::default();
        let mut known: Known<V4> = crate::flow::table::tests::known(1, 2, State::UdpReplied);
        known.packets = [u32::MAX.into(), 7];
        known.bytes = [1 << 50, 3];
        counts.restore(&known);
        counts.add(Direction::Original, 100);
        counts.add(Direction::Reply, 1);
        assert_eq!(counts.packets(Direction::Original), 1 << 32);
        assert_eq!(counts.bytes(Direction::Original), (1 << 50) + 100);
        assert_eq!((counts.packets(Direction::Reply), counts.bytes(Direction::Reply)), (8, 4));
    }
}
