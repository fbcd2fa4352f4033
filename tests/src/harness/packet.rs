//! Packets as values: made into bytes for a program to take, and read back from what it gave.
//!
//! Checksums and lengths that follow from the rest are `None`: building computes them, and reading finds
//! them so if they are right. One that is `Some` is that value, wrong as a rule. So one comparison of a
//! packet that was read with the one expected checks every field, and every checksum, too.
//!
//! ```
//! use tests::harness::packet::{Frame, Ipv4, Udp};
//!
//! let udp = Udp::new(40_000, 53, b"query");
//! let packet = Ipv4 { ttl: 1, ..Ipv4::new([172, 19, 35, 2], [192, 0, 2, 1], udp) };
//! let frame = Frame::new([2, 0, 0, 0, 0, 1], [0xee; 6], packet);
//! assert_eq!(Frame::parse(&frame.bytes()).unwrap(), frame);
//! ```

mod checksum;
mod ethernet;
mod fragment;
mod icmp;
mod ipv4;
#[cfg(test)]
mod tests;
mod transport;

use anyhow::{Context, Result};

pub use self::{
    checksum::internet_checksum,
    ethernet::{Arp, Frame, Payload, Vlan, ethertype},
    icmp::Icmp,
    ipv4::{Ipv4, L4, protocol},
    transport::{Tcp, Udp, flags},
};

/// The two bytes at that offset as a big-endian number.
fn read_u16(bytes: &[u8], offset: usize) -> Result<u16> {
    Ok(u16::from_be_bytes(array(bytes, offset)?))
}

/// The four bytes at that offset as a big-endian number.
fn read_u32(bytes: &[u8], offset: usize) -> Result<u32> {
    Ok(u32::from_be_bytes(array(bytes, offset)?))
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N]> {
    let slice = bytes.get(offset..offset + N);
    let slice = slice.with_context(|| format!("{} bytes end before byte {}", bytes.len(), offset + N))?;
    Ok(slice.try_into()?)
}

/// `None` if the value is the right one.
fn unless_right<T: PartialEq>(found: T, right: T) -> Option<T> {
    (found != right).then_some(found)
}
