//! The walks: each hook is a list of steps, in the order in which ARCHITECTURE.md tells them.

pub mod from_container;
pub mod from_uplink;

use dataplane_common::{endpoint::Endpoint, next_hop::NextHop};

use crate::{
    ethernet,
    ipv4::{self, Ipv4},
    next_hop,
    packet::Packet,
    verdict::{Action, Walk},
};

/// Into a container of this node.
#[inline(always)]
fn deliver(packet: &Packet, ipv4: &Ipv4, endpoint: &Endpoint) -> Walk<Action> {
    ipv4::check_forwardable(packet, ipv4)?;
    ipv4::check_size(packet, ipv4, endpoint.mtu)?;
    ipv4::decrement_ttl(packet)?;
    ethernet::set_addresses(packet, endpoint.mac, endpoint.gateway_mac)?;
    Ok(Action::Deliver { ifindex: endpoint.ifindex })
}

/// Out by an uplink. The kernel writes the Ethernet header.
#[inline(always)]
fn forward(packet: &Packet, ipv4: &Ipv4, next_hop: &NextHop) -> Walk<Action> {
    ipv4::check_forwardable(packet, ipv4)?;
    ipv4::check_size(packet, ipv4, next_hop.mtu)?;
    ipv4::decrement_ttl(packet)?;
    let neighbour = next_hop::neighbour(next_hop, ipv4.destination);
    Ok(Action::Forward { ifindex: next_hop.ifindex, neighbour })
}
