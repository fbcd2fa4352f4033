//! The Internet checksum (RFC 1071) of an IPv4 header, and its update when the TTL changes (RFC 1624).

/// Folds a sum of 32-bit words to the 16-bit ones' complement sum.
#[inline(always)]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum of words, 16-bit or 32-bit ones, of which that is the sum. Same byte order as the words.
#[inline(always)]
pub const fn of_sum(sum: u64) -> u16 {
    !fold(sum)
}

/// Whether a header of five words, checksum included, is intact.
///
/// The words are taken as loaded, in either byte order, as long as all are the same: RFC 1071, 2(B).
#[inline(always)]
pub const fn header_is_intact(words: &[u32; 5]) -> bool {
    fold(words[0] as u64 + words[1] as u64 + words[2] as u64 + words[3] as u64 + words[4] as u64) == 0xffff
}

/// The checksum field of a header of five words; its own field must be zero. Same byte order as the words.
pub const fn of_header(words: &[u32; 5]) -> u16 {
    !fold(words[0] as u64 + words[1] as u64 + words[2] as u64 + words[3] as u64 + words[4] as u64)
}

/// The checksum after the TTL went down by one: both in network byte order, as loaded and as stored.
///
/// The TTL is the high byte of its 16-bit word, so the sum goes down by 0x0100 and the checksum up by it,
/// as `ip_decrease_ttl()` in the kernel's `include/net/ip.h` does it.
#[inline(always)]
pub const fn after_ttl_decrement(checksum: u16) -> u16 {
    let sum = checksum as u32 + 0x0100u16.to_be() as u32;
    (sum + (sum >= 0xffff) as u32) as u16
}

/// The checksum after a 32-bit word (or two 16-bit ones) changed, all in network byte order as loaded
/// (RFC 1624, equation 3).
#[inline(always)]
pub const fn after_change(checksum: u16, old: u32, new: u32) -> u16 {
    !fold((!checksum) as u64 + (!old) as u64 + new as u64)
}

/// The ones' complement sum of the pseudo header of TCP and UDP over IPv4 (RFC 9293, section 3.1; RFC 768), not
/// inverted; addresses in network byte order as loaded, as the sum is; `length` of header and data in bytes.
#[inline(always)]
pub const fn of_pseudo_header(source: u32, destination: u32, protocol: u8, length: u16) -> u16 {
    let words = (protocol as u16).to_be() as u64 + length.to_be() as u64;
    fold(source as u64 + destination as u64 + words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The header of RFC 1071 done the slow way: 16-bit big-endian words, carry added at the end.
    fn slow_checksum(bytes: &[u8; 20]) -> u16 {
        let mut sum: u32 =
            bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn words(bytes: &[u8; 20]) -> [u32; 5] {
        bytemuck::cast(*bytes)
    }

    proptest! {
        #[test]
        fn agrees_with_the_slow_way(mut bytes in any::<[u8; 20]>()) {
            bytes[10..12].fill(0);
            let expected = slow_checksum(&bytes);
            prop_assert_eq!(of_header(&words(&bytes)), expected.to_be());
            bytes[10..12].copy_from_slice(&expected.to_be_bytes());
            prop_assert!(header_is_intact(&words(&bytes)));
            bytes[3] ^= 0x10;
            prop_assert!(!header_is_intact(&words(&bytes)));
        }

        #[test]
        fn a_change_of_a_word_keeps_the_header_intact(
            mut bytes in any::<[u8; 20]>(),
            new in any::<[u8; 4]>(),
        ) {
            bytes[0] = 0x45; // as in any header: a sum of nothing but zeros has two checksums
            bytes[10..12].fill(0);
            let before = slow_checksum(&bytes);
            let old = u32::from_ne_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
            bytes[12..16].copy_from_slice(&new);
            let after = after_change(before.to_be(), old, u32::from_ne_bytes(new));
            bytes[10..12].copy_from_slice(&after.to_ne_bytes());
            prop_assert!(header_is_intact(&words(&bytes)));
        }

        #[test]
        fn a_ttl_decrement_keeps_the_header_intact(mut bytes in any::<[u8; 20]>(), ttl in 1u8..) {
            bytes[8] = ttl;
            bytes[10..12].fill(0);
            let before = slow_checksum(&bytes);
            bytes[8] -= 1;
            bytes[10..12].copy_from_slice(&after_ttl_decrement(before.to_be()).to_ne_bytes());
            prop_assert!(header_is_intact(&words(&bytes)));
        }
    }
}
