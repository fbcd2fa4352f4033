//! A packet that must be looked at more closely: one that may have to be translated, or whose answers must not be, and
//! whose flow the hook's program has not found. It begins a flow, or is a fragment, an ICMP error, or something that makes
//! no flow.

use dataplane_common::{
    endpoint::Endpoint, net::Ipv4Be, next_hop::NextHop, reason::Reason, route::Target, stats::Hook,
};

use crate::{
    endpoint,
    flow::{self, Exit},
    hook::{check_size, deliver_checked, exit, forward_checked},
    ipv4::{self, Ipv4},
    next_hop,
    packet::Packet,
    route,
    verdict::{Action, Walk},
};

/// The rest of the packet's walk: its source was checked at the hook.
#[inline(always)]
pub fn walk(packet: &impl Packet, hook: Hook) -> Walk<Action> {
    packet.pull_headers();
    let ipv4 = ipv4::read(packet)?;
    match route::lookup(ipv4.destination).target() {
        Some(Target::NextHop(index)) => {
            let next_hop = next_hop::get(index)?;
            if hook == Hook::FromUplink && next_hop.translates == 0 {
                return through(packet, &ipv4);
            }
            outbound(packet, &ipv4, next_hop, hook)
        }
        Some(Target::Endpoint(index)) if hook == Hook::FromUplink => {
            inbound(packet, &ipv4, index, endpoint::get(index)?)
        }
        _ => Err(Reason::NatContended), // the route has changed in this moment
    }
}

#[inline(always)]
fn outbound(packet: &impl Packet, ipv4: &Ipv4, next_hop: &NextHop, hook: Hook) -> Walk<Action> {
    let outbound = flow::outbound(packet, ipv4, next_hop, hook)?;
    if !outbound.concerns && hook == Hook::FromUplink {
        return Err(Reason::NotLocal);
    }
    ipv4::check_forwardable(packet, ipv4)?;
    check_size(packet, ipv4, next_hop, outbound.concerns, hook)?;
    exit(packet, ipv4.destination, next_hop)?;
    if outbound.concerns {
        let neighbour = next_hop::neighbour(next_hop, ipv4.destination);
        let number = next_hop.ifindex;
        let exit = Exit { kind: Exit::FORWARD, number, neighbour, hook: hook as u32 };
        outbound.apply(packet, ipv4, next_hop, exit)?;
    }
    forward_checked(packet)
}

/// A packet from outside for a container.
#[inline(always)]
fn inbound(packet: &impl Packet, ipv4: &Ipv4, index: u32, endpoint: &Endpoint) -> Walk<Action> {
    ipv4::check_forwardable(packet, ipv4)?;
    ipv4::check_size(packet, ipv4, endpoint.mtu)?;
    packet.exit_to_container(endpoint.ifindex)?;
    note(packet, ipv4, Exit::DELIVER, index)?;
    deliver_checked(packet, endpoint)
}

/// A packet from outside for a container of another node, whose answers come through here: the kernel forwards it.
#[inline(always)]
fn through(packet: &impl Packet, ipv4: &Ipv4) -> Walk<Action> {
    note(packet, ipv4, Exit::PASS, Reason::NotLocal as u32)?;
    Err(Reason::NotLocal)
}

/// Lets the packet begin or renew the flow by which its answers go back as it came.
#[inline(always)]
fn note(packet: &impl Packet, ipv4: &Ipv4, kind: u32, number: u32) -> Walk<()> {
    let back = match route::lookup(ipv4.source).target() {
        Some(Target::NextHop(index)) => Some(next_hop::get(index)?),
        _ => None,
    };
    let hook = Hook::FromUplink as u32;
    flow::inbound(packet, ipv4, back, Exit { kind, number, neighbour: Ipv4Be::UNSPECIFIED, hook })
}
