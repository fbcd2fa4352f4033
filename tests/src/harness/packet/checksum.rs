//! The Internet checksum (RFC 1071), in its plain form: a yardstick for the clever ones.

use std::net::Ipv4Addr;

/// The checksum of these bytes, as a number in host byte order; an odd last byte counts as if followed by 0.
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u64 =
        bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The checksum of a UDP datagram or a TCP segment with its pseudo-header (RFC 768, RFC 9293 3.1).
pub(super) fn with_pseudo_header(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    segment: &[u8],
) -> u16 {
    // The length of a segment that was built with a wrong one is still its real one.
    let length = (segment.len() as u16).to_be_bytes();
    let header = [&source.octets()[..], &destination.octets(), &[0, protocol], &length].concat();
    internet_checksum(&[&header, segment].concat())
}
