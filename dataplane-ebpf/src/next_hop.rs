//! The routers and links that packets leave by.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use dataplane_common::{
    names::MAX_NEXT_HOPS, net::Ipv4Be, next_hop::NextHop, reason::Reason, trace::StepCode,
};

use crate::{observe, verdict::Walk};

#[btf_map]
static NEXT_HOPS: Array<NextHop, { MAX_NEXT_HOPS as usize }> = Array::new();

/// The interface that what has that next hop is reached by.
#[inline(always)]
pub fn interface(index: u32) -> Walk<u32> {
    NEXT_HOPS.get(index).map(|next_hop| next_hop.ifindex).ok_or(Reason::TableFault)
}

/// Whether a rule may say that packets by that next hop are to be translated.
#[inline(always)]
pub fn translates(index: u32) -> bool {
    NEXT_HOPS.get(index).is_some_and(|next_hop| next_hop.translates != 0)
}

/// The next hop with that index, to send a packet to.
#[inline(always)]
pub fn get(index: u32) -> Walk<&'static NextHop> {
    let next_hop = NEXT_HOPS.get(index).ok_or(Reason::TableFault)?;
    observe::step(StepCode::NextHop, [index, next_hop.ifindex, next_hop.gateway.to_host()]);
    Ok(next_hop)
}

/// The neighbour to send to: the router, or the destination itself where it is on the link.
#[inline(always)]
pub fn neighbour(next_hop: &NextHop, destination: Ipv4Be) -> Ipv4Be {
    if next_hop.gateway == Ipv4Be::UNSPECIFIED { destination } else { next_hop.gateway }
}
