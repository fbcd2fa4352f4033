//! A packet that leaves by an uplink, may have to be translated, and belongs to no flow that its hook's program
//! knew: a new flow, a fragment, an ICMP error, or something that is not translated at all.

use dataplane_common::{reason::Reason, route::Target, stats::Hook};

use crate::{
    hook::{check_size, exit, forward_checked},
    ipv4, nat, next_hop,
    packet::Packet,
    route,
    verdict::{Action, Walk},
};

/// The rest of the packet's walk: its source was checked at the hook.
#[inline(always)]
pub fn walk(packet: &impl Packet, hook: Hook) -> Walk<Action> {
    packet.pull_headers();
    let ipv4 = ipv4::read(packet)?;
    let Some(Target::NextHop(index)) = route::lookup(ipv4.destination).target() else {
        return Err(Reason::NatContended); // the route has changed in this moment
    };
    let next_hop = next_hop::get(index)?;
    let wanted = nat::wanted(packet, &ipv4, next_hop.ifindex)?;
    if wanted.is_none() && hook == Hook::FromUplink {
        return Err(Reason::NotLocal);
    }
    ipv4::check_forwardable(packet, &ipv4)?;
    check_size(packet, &ipv4, next_hop, wanted.is_some(), hook)?;
    exit(packet, ipv4.destination, next_hop)?;
    if let Some(wanted) = wanted {
        nat::translate(packet, &ipv4, wanted, next_hop, hook)?;
    }
    forward_checked(packet)
}
