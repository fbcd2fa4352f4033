//! The source of a packet that came in by an uplink and goes into a container.

use dataplane_common::{
    net::Ipv4Be,
    reason::Reason,
    route::{Entry, Target},
    trace::StepCode,
};

use crate::{observe, route, verdict::Walk};

/// What the route table has for the source; a martian ends the walk, as in the kernel (`ip_route_input_slow()` and
/// `__fib_validate_source()` in net/ipv4): an address of this node or of one of its containers, a broadcast address, or
/// one that no packet on the wire may have.
#[inline(always)]
pub fn lookup(address: Ipv4Be) -> Walk<Entry> {
    let entry = route::lookup(address);
    observe::step(StepCode::SourceLookup, [address.to_host(), entry.to_bits(), 0]);
    match entry.target() {
        _ if is_reserved(address) => Err(Reason::MartianSource),
        Some(Target::Endpoint(_) | Target::Kernel(Reason::ToHost | Reason::Broadcast)) => {
            Err(Reason::MartianSource)
        }
        _ => Ok(entry),
    }
}

/// Whether no packet on the wire may have this source: this network, loopback, a group, a broadcast
/// (RFC 1122, section 3.2.1.3).
#[inline(always)]
pub fn is_reserved(address: Ipv4Be) -> bool {
    let address = address.to_host();
    matches!(address >> 24, 0 | 127 | 224..=239) || address == u32::MAX
}
