//! Addresses as they stand in a packet.

use core::{fmt, net::Ipv4Addr};

use bytemuck::{Pod, Zeroable};

/// An IPv4 address in network byte order, as it stands in a header.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Ipv4Be(u32);

impl Ipv4Be {
    /// 0.0.0.0; in a next hop it means "the destination itself is on the link".
    pub const UNSPECIFIED: Self = Self(0);

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
    fn a_mac_address_is_written_as_ip_link_writes_it() {
        assert_eq!(MacAddr::new([0xee, 0xee, 0, 1, 2, 0xff]).to_string(), "ee:ee:00:01:02:ff");
    }
}
