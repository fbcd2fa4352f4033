//! A packet that came in by an uplink.

use dataplane_common::{reason::Reason, route::Target, trace::StepCode};

use crate::{
    endpoint,
    ethernet::{self, Payload},
    hook::deliver,
    ipv4, observe,
    packet::Packet,
    route,
    verdict::{Action, Walk},
};

/// The packet's walk.
#[inline(always)]
pub fn walk(packet: &Packet) -> Walk<Action> {
    match ethernet::classify(packet)? {
        Payload::Arp => return Err(Reason::Arp),
        Payload::Ipv4 => {}
    }
    let ipv4 = ipv4::read(packet)?;

    let entry = route::lookup(ipv4.destination)?;
    observe::step(StepCode::RouteLookup, [ipv4.destination.to_host(), entry.to_bits(), 0]);
    match entry.target() {
        Some(Target::Endpoint(index)) => {
            if ipv4::is_reserved_source(ipv4.source) {
                return Err(Reason::Reserved);
            }
            deliver(packet, &ipv4, endpoint::get(index)?)
        }
        Some(Target::Block) => Err(Reason::NoEndpoint),
        Some(Target::Kernel(reason @ (Reason::ToHost | Reason::Multicast | Reason::Broadcast))) => {
            Err(reason)
        }
        Some(Target::NextHop(_) | Target::Kernel(_)) => Err(Reason::NotLocal),
        None => Err(if entry.is_none() { Reason::NotLocal } else { Reason::TableFault }),
    }
}
