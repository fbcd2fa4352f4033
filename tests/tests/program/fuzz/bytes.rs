//! What the bytes of a frame with an IPv4 header without options say.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

/// Protocol numbers.
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP: u8 = 1;

/// Source and destination.
pub(super) fn addresses(frame: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
    let at = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
    (at(26), at(30))
}

/// Source and destination port; of an echo request, or of a reply, the identifier and zero.
pub(super) fn ports(frame: &[u8], is_out: bool) -> Option<(u16, u16)> {
    let word = |at: usize| frame.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    if frame[20] & 0x1f != 0 || frame[21] != 0 {
        return None;
    }
    match (frame[23], is_out) {
        (TCP | UDP, _) => Some((word(34)?, word(36)?)),
        (ICMP, true) if frame.get(34) == Some(&8) => Some((word(38)?, 0)),
        (ICMP, false) if frame.get(34) == Some(&0) => Some((0, word(38)?)),
        _ => None,
    }
}

/// The packet that answers, with the checksum that it then has.
pub(super) fn reversed(frame: &[u8]) -> Option<Vec<u8>> {
    let mut reply = frame.to_vec();
    reply[22] = 64;
    reply[26..30].copy_from_slice(&frame[30..34]);
    reply[30..34].copy_from_slice(&frame[26..30]);
    match frame[23] {
        TCP | UDP => {
            reply.get_mut(34..36)?.copy_from_slice(frame.get(36..38)?);
            reply[36..38].copy_from_slice(&frame[34..36]);
        }
        _ => *reply.get_mut(34)? = 0,
    }
    Some(reply)
}

/// The sum of the Internet checksum (RFC 1071), with one form for zero.
pub(super) fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        sum += part
            .chunks(2)
            .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)))
            .sum::<u64>();
    }
    (sum % 0xffff) as u16
}

/// A packet that was carried or translated has lost one of its TTL for each hop, its header's checksum is right, and
/// what its other checksums cover sums up to what it did: right ones stay right, and wrong ones wrong.
pub(super) fn check_bytes(before: &[u8], after: &[u8], hops: u8) -> Result<()> {
    // What follows the packet may be cut off, and nothing else.
    let length = 14 + usize::from(u16::from_be_bytes([before[16], before[17]]));
    let before = if after.len() == length { &before[..length] } else { before };
    ensure!(before.len() == after.len(), "its length has changed");
    ensure!(after[22] == before[22] - hops, "its TTL went from {} to {}", before[22], after[22]);
    ensure!(sum(&[&after[14..34]]) == 0, "the checksum of its header is wrong");
    let is_first = before[20] & 0x1f == 0 && before[21] == 0;
    let transport = |frame: &[u8]| match (frame[23], frame.get(40..42)) {
        (UDP, Some([0, 0])) => 0,
        (TCP | UDP, _) => sum(&[&frame[26..]]),
        _ => sum(&[&frame[34..]]),
    };
    ensure!(!is_first || transport(before) == transport(after), "the checksum of its transport has changed");
    let is_error = is_first && before[23] == ICMP && matches!(before.get(34), Some(3 | 11 | 12));
    if is_error && before.len() >= 62 {
        let inner = |frame: &[u8]| sum(&[&frame[42..62]]);
        ensure!(inner(before) == inner(after), "the checksum of the quoted header has changed");
    }
    Ok(())
}
