//! A packet that a container sent.

use dataplane_common::{reason::Reason, route::Target, stats::Hook, trace::StepCode};

use crate::{
    arp, endpoint,
    ethernet::{self, Payload},
    hook::{deliver, forward, leave_to_kernel, translate_and_forward},
    ipv4, next_hop, observe,
    packet::Packet,
    route,
    verdict::{Action, Walk},
};

/// The packet's walk.
#[inline(always)]
pub fn walk(packet: &impl Packet) -> Walk<Action> {
    match ethernet::classify(packet)? {
        Payload::Arp => return arp::answer(packet),
        Payload::TaggedIpv4 | Payload::Tagged => return Err(Reason::Vlan),
        Payload::Ipv4 => {}
    }
    let ipv4 = ipv4::read(packet)?;
    endpoint::of_source(ipv4.source, packet.ifindex())?;

    let entry = route::lookup(ipv4.destination);
    observe::step(StepCode::RouteLookup, [ipv4.destination.to_host(), entry.to_bits(), 0]);
    match entry.target() {
        Some(Target::Endpoint(index)) => deliver(packet, &ipv4, endpoint::get(index)?),
        Some(Target::NextHop(index)) => {
            let next_hop = next_hop::get(index)?;
            if next_hop.translates != 0 {
                return translate_and_forward(packet, &ipv4, next_hop, Hook::FromContainer);
            }
            forward(packet, &ipv4, next_hop)
        }
        Some(Target::Block) => Err(Reason::NoEndpoint),
        Some(Target::Kernel(reason)) => Err(leave_to_kernel(&ipv4, reason)),
        None if entry.is_none() => Err(leave_to_kernel(&ipv4, Reason::NoRoute)),
        None => Err(Reason::TableFault),
    }
}
