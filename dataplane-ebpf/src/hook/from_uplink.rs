//! A packet that came in by an uplink.

use dataplane_common::{endpoint::Endpoint, net::Ipv4Be, reason::Reason, route::Target, trace::StepCode};

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
            let endpoint = endpoint::get(index)?;
            if endpoint.flags & Endpoint::KERNEL_EGRESS != 0 {
                check_way_back(ipv4.source)?;
            }
            deliver(packet, &ipv4, endpoint)
        }
        Some(Target::Block) => Err(Reason::NoEndpoint),
        Some(Target::Kernel(reason @ (Reason::ToHost | Reason::Multicast | Reason::Broadcast))) => {
            Err(reason)
        }
        Some(Target::NextHop(_) | Target::Kernel(_)) => Err(Reason::NotLocal),
        None => Err(if entry.is_none() { Reason::NotLocal } else { Reason::TableFault }),
    }
}

/// Whether BPF carries the answers to a packet from there, too.
#[inline(always)]
fn check_way_back(source: Ipv4Be) -> Walk<()> {
    let entry = route::lookup(source)?;
    observe::step(StepCode::SourceLookup, [source.to_host(), entry.to_bits(), 0]);
    match entry.target() {
        Some(Target::Endpoint(_) | Target::NextHop(_) | Target::Block) => Ok(()),
        Some(Target::Kernel(_)) | None => Err(Reason::KernelRoute),
    }
}
