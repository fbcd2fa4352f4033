//! The walks: each hook is a list of steps, in the order in which ARCHITECTURE.md tells them.

pub mod from_container;
pub mod from_uplink;

use dataplane_common::{endpoint::Endpoint, net::Ipv4Be, next_hop::NextHop, reason::Reason};

use crate::{
    ethernet,
    ipv4::{self, Ipv4},
    nat, next_hop,
    packet::Packet,
    verdict::{Action, Walk},
};

/// Into a container of this node.
#[inline(always)]
fn deliver(packet: &Packet, ipv4: &Ipv4, endpoint: &Endpoint) -> Walk<Action> {
    ipv4::check_forwardable(packet, ipv4)?;
    ipv4::check_size(packet, ipv4, endpoint.mtu)?;
    deliver_checked(packet, endpoint)
}

#[inline(always)]
fn deliver_checked(packet: &Packet, endpoint: &Endpoint) -> Walk<Action> {
    ipv4::decrement_ttl(packet)?;
    ethernet::set_addresses(packet, endpoint.mac, endpoint.gateway_mac)?;
    Ok(Action::Deliver { ifindex: endpoint.ifindex })
}

/// Out by an uplink. The kernel writes the Ethernet header.
#[inline(always)]
fn forward(packet: &Packet, ipv4: &Ipv4, next_hop: &NextHop) -> Walk<Action> {
    ipv4::check_forwardable(packet, ipv4)?;
    ipv4::check_size(packet, ipv4, next_hop.mtu)?;
    forward_checked(packet, ipv4.destination, next_hop)
}

#[inline(always)]
fn forward_checked(packet: &Packet, destination: Ipv4Be, next_hop: &NextHop) -> Walk<Action> {
    ipv4::decrement_ttl(packet)?;
    let neighbour = next_hop::neighbour(next_hop, destination);
    Ok(Action::Forward { ifindex: next_hop.ifindex, neighbour })
}

/// Out by an uplink, translated. Everything that can keep the packet back is asked before a flow begins.
#[inline(always)]
fn translate_and_forward(
    packet: &Packet,
    ipv4: &Ipv4,
    next_hop: &NextHop,
    outgoing: &nat::Outgoing,
) -> Walk<Action> {
    // A packet whose TTL ends here is never forwarded by the kernel, and its answer needs the original.
    ipv4::check_forwardable(packet, ipv4)?;
    if let Err(reason) = ipv4::check_size(packet, ipv4, next_hop.mtu) {
        // Without "don't fragment" the kernel would send it on in pieces, untranslated.
        return Err(if ipv4.must_not_fragment() { reason } else { Reason::NatTooBig });
    }
    outgoing.apply(packet, ipv4)?;
    forward_checked(packet, ipv4.destination, next_hop)
}

/// Refuses to leave to the kernel what it would forward untranslated against a rule.
#[inline(always)]
fn leave_to_kernel(ipv4: &Ipv4, reason: Reason) -> Reason {
    let forwards = matches!(reason, Reason::KernelRoute | Reason::NoNextHop | Reason::LinkLocal);
    if forwards && nat::must_translate(ipv4.source, ipv4.destination) {
        Reason::NatKernelRoute
    } else {
        reason
    }
}
