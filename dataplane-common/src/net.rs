//! Addresses as they stand in a packet.

use core::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use bytemuck::{Pod, Zeroable};

/// An IPv4 address in network byte order, as it stands in a header.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Ipv4Be(u32);

impl Ipv4Be {
    /// 0.0.0.0; in a next hop it means "the destination itself is on the link".
    pub const UNSPECIFIED: Self = Self(0);

    /// 255.255.255.255.
    pub const BROADCAST: Self = Self(u32::MAX);

    /// Takes the four bytes as they were loaded from a packet.
    #[inline(always)]
    pub const fn from_wire(bits: u32) -> Self {
        Self(bits)
    }

    /// The four bytes as they are stored to a packet.
    #[inline(always)]
    pub const fn to_wire(self) -> u32 {
        self.0
    }

    /// The address as a number in host byte order: 10.0.0.1 is `0x0a00_0001`.
    #[inline(always)]
    pub const fn to_host(self) -> u32 {
        u32::from_be(self.0)
    }

    /// The inverse of [`Self::to_host`].
    #[inline(always)]
    pub const fn from_host(bits: u32) -> Self {
        Self(bits.to_be())
    }
}

impl From<Ipv4Addr> for Ipv4Be {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_host(address.to_bits())
    }
}

impl From<Ipv4Be> for Ipv4Addr {
    fn from(address: Ipv4Be) -> Self {
        Self::from_bits(address.to_host())
    }
}

impl fmt::Debug for Ipv4Be {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ipv4Addr::from(*self), f)
    }
}

/// An IPv6 address in network byte order, as it stands in a header: two words as loaded.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Ipv6Be([u64; 2]);

impl Ipv6Be {
    /// Takes the sixteen bytes as they were loaded from a packet.
    #[inline(always)]
    pub const fn from_wire(words: [u64; 2]) -> Self {
        Self(words)
    }

    /// The sixteen bytes as they are stored to a packet.
    #[inline(always)]
    pub const fn to_wire(self) -> [u64; 2] {
        self.0
    }
}

impl From<Ipv6Addr> for Ipv6Be {
    fn from(address: Ipv6Addr) -> Self {
        let bits = address.to_bits();
        Self([((bits >> 64) as u64).to_be(), (bits as u64).to_be()])
    }
}

impl From<Ipv6Be> for Ipv6Addr {
    fn from(address: Ipv6Be) -> Self {
        let [high, low] = address.0.map(u64::from_be);
        Self::from_bits(u128::from(high) << 64 | u128::from(low))
    }
}

impl fmt::Debug for Ipv6Be {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ipv6Addr::from(*self), f)
    }
}

/// An Ethernet (EUI-48) address.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// Takes the octets in the order in which they are sent.
    #[inline(always)]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The octets in the order in which they are sent.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

/// How a frame begins: destination, then source.
///
/// Kept as the 16-bit words that a program copies: frames begin at even addresses, and of single bytes the compiler makes
/// calls of memmove.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct MacPair([u16; 6]);

impl MacPair {
    /// None yet.
    pub const NONE: Self = Self([0; 6]);

    /// Of those addresses.
    #[inline(always)]
    pub const fn new(destination: MacAddr, source: MacAddr) -> Self {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (destination.0, source.0);
        const fn half(first: u8, second: u8) -> u16 {
            u16::from_ne_bytes([first, second])
        }
        Self([half(a, b), half(c, d), half(e, f), half(g, h), half(i, j), half(k, l)])
    }

    /// The words as loaded, in the order of the frame.
    #[inline(always)]
    pub const fn from_halves(halves: [u16; 6]) -> Self {
        Self(halves)
    }

    /// The words as they are stored, in the order of the frame.
    #[inline(always)]
    pub const fn halves(&self) -> &[u16; 6] {
        &self.0
    }

    /// Whom the frame goes to.
    #[inline(always)]
    pub const fn destination(&self) -> MacAddr {
        let [a, b, c, ..] = self.0;
        Self::address(a, b, c)
    }

    /// Whom it comes from.
    #[inline(always)]
    pub const fn source(&self) -> MacAddr {
        let [.., a, b, c] = self.0;
        Self::address(a, b, c)
    }

    #[inline(always)]
    const fn address(a: u16, b: u16, c: u16) -> MacAddr {
        let ([a, b], [c, d], [e, f]) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes());
        MacAddr([a, b, c, d, e, f])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_value_in_both_byte_orders() {
        let address = Ipv4Addr::new(172, 19, 35, 2);
        let wire = Ipv4Be::from(address);
        assert_eq!(wire.to_wire().to_ne_bytes(), [172, 19, 35, 2]);
        assert_eq!(wire.to_host(), 0xac13_2302);
        assert_eq!(Ipv4Addr::from(wire), address);
        assert_eq!(Ipv4Be::from_host(wire.to_host()), wire);
    }

    #[test]
    fn an_ipv6_address_keeps_its_bytes() {
        let address: Ipv6Addr = "2001:db8::1:2".parse().unwrap();
        let wire = Ipv6Be::from(address);
        assert_eq!(bytemuck::bytes_of(&wire), address.octets());
        assert_eq!(Ipv6Addr::from(wire), address);
    }

    #[test]
    fn a_pair_is_the_first_bytes_of_a_frame() {
        let (destination, source) = (MacAddr::new([0, 1, 2, 3, 4, 5]), MacAddr::new([6, 7, 8, 9, 10, 11]));
        let pair = MacPair::new(destination, source);
        let bytes: [u8; 12] = core::array::from_fn(|index| index as u8);
        assert_eq!(bytemuck::bytes_of(&pair), bytes);
        assert_eq!((pair.destination(), pair.source()), (destination, source));
        assert_eq!(MacPair::from_halves(*pair.halves()), pair);
    }

    #[test]
    fn a_mac_address_is_written_as_ip_link_writes_it() {
        assert_eq!(MacAddr::new([0xee, 0xee, 0, 1, 2, 0xff]).to_string(), "ee:ee:00:01:02:ff");
    }
}
