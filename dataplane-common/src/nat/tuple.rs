//! What tells one flow from another.

use crate::net::Ipv4Be;

/// IP protocol numbers of what is translated.
pub mod protocol {
    /// ICMP, of which echo is translated as a flow.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
}

/// Addresses and ports of a packet. An ICMP echo has its identifier as the port of the one who asks, and 0 as
/// the other's (RFC 5508, section 3.1).
///
/// Aligned so that a program may access two fields on its stack at once.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// IP protocol number, one of [`protocol`].
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Be,
    /// Source port, host byte order.
    pub source_port: u16,
    /// Destination address.
    pub destination: Ipv4Be,
    /// Destination port, host byte order.
    pub destination_port: u16,
}

impl Tuple {
    /// The tuple of packets in the other direction.
    #[inline(always)]
    pub const fn reversed(self) -> Self {
        Self {
            protocol: self.protocol,
            source: self.destination,
            source_port: self.destination_port,
            destination: self.source,
            destination_port: self.source_port,
        }
    }

    /// A hash that nobody can steer who does not know the seed.
    #[inline(always)]
    pub const fn hash(self, seed: u64) -> Hash {
        let addresses = (self.source.to_wire() as u64) << 32 | self.destination.to_wire() as u64;
        let ports =
            (self.protocol as u64) << 32 | (self.source_port as u64) << 16 | self.destination_port as u64;
        Hash(mix(addresses ^ seed, ports ^ seed.rotate_left(29)))
    }
}

/// Two rounds of multiply and shift, with the odd constants of SplitMix64 (Steele, Lea and Flood, 2014).
#[inline(always)]
const fn mix(first: u64, second: u64) -> u64 {
    let mut hash = first.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 32 ^ second).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 29).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 32
}

/// A hash of a tuple: where it is to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(u64);

impl Hash {
    /// Of an address and a port alone: the same whomever they talk to.
    #[inline(always)]
    pub const fn of_endpoint(protocol: u8, address: Ipv4Be, port: u16, seed: u64) -> Self {
        Self(mix(address.to_wire() as u64 ^ seed, (protocol as u64) << 16 | port as u64))
    }

    /// Another of its kind, for each of a few numbers.
    #[inline(always)]
    pub const fn rotated(self, number: u32) -> Self {
        Self(self.0.rotate_left(number % 16 * 4))
    }

    /// A number below `count`: from the high half, as the bucket is.
    #[inline(always)]
    pub const fn below(self, count: u32) -> u32 {
        (((self.0 >> 32) * count as u64) >> 32) as u32
    }

    /// 8 bits that are not all zero.
    #[inline(always)]
    pub const fn tag8(self) -> u8 {
        let tag = self.0 as u8;
        if tag == 0 { 1 } else { tag }
    }
}
