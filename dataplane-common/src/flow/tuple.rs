//! What tells one flow from another.

use crate::family::Family;

/// IP protocol numbers of what flows are made of.
pub mod protocol {
    /// ICMP, of which echo makes flows.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6, of which echo makes flows.
    pub const ICMPV6: u8 = 58;
}

/// Addresses and ports of a packet. An ICMP echo has its identifier as the port of the one who asks, and 0 as
/// the other's (RFC 5508, section 3.1).
///
/// Aligned so that a program may access two fields on its stack at once.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple<F: Family> {
    /// Source address.
    pub source: F::Address,
    /// Destination address.
    pub destination: F::Address,
    /// Source port, host byte order.
    pub source_port: u16,
    /// Destination port, host byte order.
    pub destination_port: u16,
    /// IP protocol number, one of [`protocol`].
    pub protocol: u8,
}

impl<F: Family> Tuple<F> {
    /// The tuple of packets in the other direction.
    #[inline(always)]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }

    /// Both addresses.
    #[inline(always)]
    pub fn pair(&self) -> F::Pair {
        F::pair(self.source, self.destination)
    }

    /// Ports and protocol, from the lowest: source port 16 bits, destination port 16, protocol 8.
    #[inline(always)]
    pub const fn ports(&self) -> u64 {
        self.source_port as u64 | (self.destination_port as u64) << 16 | (self.protocol as u64) << 32
    }

    /// The tuple of these words, as [`Self::pair`] and [`Self::ports`] give them.
    #[inline(always)]
    pub fn from_words(pair: &F::Pair, ports: u64) -> Self {
        Self {
            source: F::first(pair),
            destination: F::second(pair),
            source_port: ports as u16,
            destination_port: (ports >> 16) as u16,
            protocol: (ports >> 32) as u8,
        }
    }

    /// A hash that nobody can steer who does not know the seed.
    #[inline(always)]
    pub fn hash(&self, seed: u64) -> Hash {
        Hash(mix(F::fold(&self.pair()) ^ seed, self.ports() ^ seed.rotate_left(29)))
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
    /// Of one end alone: the same whoever the other one is. `purpose` keeps hashes of different use apart.
    #[inline(always)]
    pub fn of_endpoint<F: Family>(
        purpose: u8,
        protocol: u8,
        address: F::Address,
        port: u16,
        seed: u64,
    ) -> Self {
        let ports = port as u64 | (protocol as u64) << 32 | (purpose as u64) << 48;
        Self(mix(F::fold_address(address) ^ seed, ports))
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::family::{V4, V6};

    #[test]
    fn words_hold_the_whole_tuple() {
        let four: Tuple<V4> = Tuple {
            source: Ipv4Addr::new(172, 19, 35, 2).into(),
            destination: Ipv4Addr::new(192, 0, 2, 1).into(),
            source_port: 40_000,
            destination_port: 443,
            protocol: protocol::TCP,
        };
        assert_eq!(Tuple::from_words(&four.pair(), four.ports()), four);
        let six: Tuple<V6> = Tuple {
            source: "2001:db8::2".parse::<Ipv6Addr>().unwrap().into(),
            destination: "2001:db8:1::1".parse::<Ipv6Addr>().unwrap().into(),
            source_port: 1,
            destination_port: 2,
            protocol: protocol::UDP,
        };
        assert_eq!(Tuple::from_words(&six.pair(), six.ports()), six);
        assert_eq!(six.reversed().reversed(), six);
        assert_ne!(six.hash(7), six.reversed().hash(7));
    }

    #[test]
    fn every_part_of_an_address_counts() {
        let of = |text: &str| {
            let address = text.parse::<Ipv6Addr>().unwrap().into();
            Hash::of_endpoint::<V6>(0, 6, address, 1, 99)
        };
        let all = ["2001:db8::1", "2001:db8::2", "2001:db9::1", "2001:db8:0:1::1"].map(of);
        for (index, hash) in all.iter().enumerate() {
            assert!(!all[..index].contains(hash));
        }
    }
}
