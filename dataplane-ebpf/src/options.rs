//! IPv4 options of a container's packet. The kernel processes them; what must not come to it ends here.

use dataplane_common::reason::Reason;

use crate::{ipv4::Ipv4, packet::Packet, repeat::repeat, verdict::Walk};

/// Kinds of options (RFC 791, section 3.1).
mod kind {
    pub const END: u8 = 0;
    pub const NO_OPERATION: u8 = 1;
    pub const LOOSE_SOURCE_ROUTE: u8 = 131;
    pub const STRICT_SOURCE_ROUTE: u8 = 137;
}

/// The most bytes that options take.
const LONGEST: u32 = 40;

/// Where the options begin.
const BEGIN: u32 = crate::ipv4::TRANSPORT as u32;

/// What the options of a packet are, so far.
struct Options {
    /// The offset of the next one.
    next: u32,
    end: u32,
    /// The number of the reason to drop it; that of [`Reason::IpOptions`] if there is none.
    reason: u32,
}

/// Checks the options of a packet whose source is the container's.
///
/// A source route takes the packet elsewhere than its destination says, and the kernel's error about any option goes where
/// the source route says, with the container's address in it (`icmp_reply()` in net/ipv4/icmp.c).
#[inline(always)]
pub fn check(packet: &impl Packet, ipv4: &Ipv4) -> Walk<()> {
    let mut options = Options { next: BEGIN, end: ipv4.header_end(), reason: Reason::IpOptions as u32 };
    repeat(LONGEST, |_| options.next < options.end && step(packet, &mut options));
    match options.reason {
        reason if reason == Reason::SourceRoute as u32 => Err(Reason::SourceRoute),
        reason if reason == Reason::Malformed as u32 => Err(Reason::Malformed),
        _ => Ok(()),
    }
}

/// Reads the next option; says whether there may be more.
#[inline(always)]
fn step(packet: &impl Packet, options: &mut Options) -> bool {
    let refuse = |options: &mut Options, reason: Reason| {
        options.reason = reason as u32;
        false
    };
    match packet.byte(options.next) {
        Ok(kind::END) => false,
        Ok(kind::NO_OPERATION) => {
            options.next += 1;
            true
        }
        Ok(kind::LOOSE_SOURCE_ROUTE | kind::STRICT_SOURCE_ROUTE) => refuse(options, Reason::SourceRoute),
        Ok(_) => match packet.byte(options.next + 1) {
            Ok(length) if length >= 2 && options.next + u32::from(length) <= options.end => {
                options.next += u32::from(length);
                true
            }
            _ => refuse(options, Reason::Malformed),
        },
        Err(reason) => refuse(options, reason),
    }
}
