//! ICMP errors that the data path sends itself, about packets that the kernel would be wrong about.

use bytemuck::{Pod, Zeroable};

/// The most of a packet that an error quotes, in bytes: RFC 1812, section 4.3.2.3 would have 548.
pub const QUOTE: usize = 512;

/// Room for the quoted bytes, and for what the verifier believes is read of them.
pub const QUOTE_ROOM: usize = QUOTE + 24;

/// At most so many errors come from one CPU in a second for a while, as from a whole Linux host
/// (`icmp_msgs_per_sec` of ip-sysctl.rst)...
pub const PER_SECOND: u64 = 1000;

/// ...and so many at once (`icmp_msgs_burst`).
pub const BURST: u64 = 50;

const INTERVAL: u64 = 1_000_000_000 / PER_SECOND;

/// An error to be sent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Error {
    /// ICMP type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// MTU of the next link in bytes, of an error that tells it.
    pub mtu: u16,
}

impl Error {
    /// Fragmentation needed, and "don't fragment" set (RFC 1191, section 4). No link of IPv4 takes more than 65,535 bytes.
    pub const fn frag_needed(mtu: u32) -> Self {
        Self { kind: 3, code: 4, mtu: if mtu > 0xffff { 0xffff } else { mtu as u16 } }
    }

    /// Communication administratively prohibited (RFC 1812, section 5.2.7.1): what a NAT answers where it has no port or
    /// no room for a new flow (RFC 5508, REQ-8).
    pub const PROHIBITED: Self = Self { kind: 3, code: 13, mtu: 0 };
}

/// What one CPU's programs tell each other, and what limits them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Rejection {
    /// When the next error would be due if they came evenly, in nanoseconds of `CLOCK_MONOTONIC`.
    pub due: u64,
    /// Number of the hook that the packet came in by.
    pub hook: u32,
    /// Number of the reason for which it ends.
    pub reason: u32,
    /// What is to be said about it.
    pub error: Error,
    /// Fills the line.
    pub reserved: u32,
    /// The first bytes of the packet, and zeros.
    pub quote: [u8; QUOTE_ROOM],
}

impl Rejection {
    /// Whether an error may be sent at that time, which then counts.
    ///
    /// A bucket of tokens, told by one number: GCRA (ITU-T I.371, annex A).
    #[inline(always)]
    pub const fn take(&mut self, now: u64) -> bool {
        let due = if self.due > now { self.due } else { now };
        if due - now >= BURST * INTERVAL {
            return false;
        }
        self.due = due + INTERVAL;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_in_bursts_and_then_evenly() {
        let error = Error::PROHIBITED;
        let mut rejection =
            Rejection { due: 0, hook: 0, reason: 0, error, reserved: 0, quote: [0; QUOTE_ROOM] };
        let mut sent = |now: u64| (0..200).filter(|_| rejection.take(now)).count() as u64;
        let second = 1_000_000_000;
        assert_eq!(sent(100 * second), BURST);
        assert_eq!(sent(100 * second), 0);
        assert_eq!(sent(100 * second + 10 * INTERVAL), 10);
        assert_eq!(sent(200 * second), BURST);
        let even = (1..=2 * PER_SECOND).map(|count| sent(200 * second + count * INTERVAL)).sum::<u64>();
        assert_eq!(even, 2 * PER_SECOND);
        // The clock of another boot is behind: nothing is sent before its time, and nothing overflows.
        assert_eq!(sent(0), 0);
    }

    #[test]
    fn an_mtu_fits_its_field() {
        assert_eq!(Error::frag_needed(1400), Error { kind: 3, code: 4, mtu: 1400 });
        assert_eq!(Error::frag_needed(100_000).mtu, 65_535);
    }
}
