//! The containers of this node.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use dataplane_common::{endpoint::Endpoint, net::Ipv4Be, reason::Reason, trace::StepCode};

use crate::{observe, route, verdict::Walk};

// The daemon sets the size when it loads the object: `max-endpoints`.
#[btf_map]
static ENDPOINTS: Array<Endpoint, 1> = Array::new();

/// The endpoint with that index.
#[inline(always)]
pub fn get(index: u32) -> Walk<&'static Endpoint> {
    let endpoint = ENDPOINTS.get(index).ok_or(Reason::TableFault)?;
    observe::step(StepCode::Endpoint, [index, endpoint.ifindex, endpoint.address.to_host()]);
    Ok(endpoint)
}

/// The endpoint that a packet from `address` at `ifindex` belongs to: the check against spoofed sources.
///
/// The route table serves as the index: the source must have a route to an endpoint, and that endpoint
/// must be behind the interface at which the packet came in.
#[inline(always)]
pub fn of_source(address: Ipv4Be, ifindex: u32) -> Walk<&'static Endpoint> {
    let entry = route::lookup(address);
    observe::step(StepCode::SourceLookup, [address.to_host(), entry.to_bits(), 0]);
    let index = entry.as_endpoint().ok_or(Reason::SpoofedSource)?;
    // A fault of the table proves nothing either.
    let endpoint = get(index).map_err(|_| Reason::SpoofedSource)?;
    if endpoint.ifindex != ifindex {
        return Err(Reason::SpoofedSource);
    }
    Ok(endpoint)
}
