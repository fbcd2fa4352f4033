//! A packet that a container sent.

use dataplane_common::{
    reason::Reason,
    route::{Entry, Target},
    stats::Hook,
    trace::StepCode,
};

use crate::{
    arp, endpoint,
    ethernet::{self, Payload},
    flow,
    hook::{deliver, forward, leave_to_kernel, respect, translate_and_forward},
    ipv4::{self, Ipv4},
    next_hop, observe, options,
    packet::Packet,
    route,
    verdict::{Action, Walk},
};

/// The packet's walk.
#[inline(always)]
pub fn walk(packet: &impl Packet) -> Walk<Action> {
    let is_tagged = match ethernet::classify(packet)? {
        Payload::Arp => return arp::answer(packet),
        Payload::Ipv4 => false,
        Payload::TaggedIpv4 => true,
        // What it is for cannot be told.
        Payload::Tagged if flow::translates() => return Err(Reason::NatUnsupported),
        Payload::Tagged => return Err(Reason::Vlan),
    };
    let ipv4 = ipv4::read(packet)?;
    if !is_tagged {
        endpoint::of_source(ipv4.source, packet.ifindex())?;
        if ipv4.has_options() {
            options::check(packet, &ipv4)?;
        }
    }

    if respect::is_on() {
        if is_tagged {
            return Err(Reason::Vlan);
        }
        check_addressee(packet)?;
        return respect::carry(packet, &ipv4);
    }

    let entry = route::lookup(ipv4.destination);
    observe::step(StepCode::RouteLookup, [ipv4.destination.to_host(), entry.to_bits(), 0]);
    let walk = match entry.target() {
        // The VLAN's device is the node's own, and may be the destination.
        Some(Target::Kernel(Reason::ToHost)) if is_tagged => return Err(Reason::Vlan),
        _ if is_tagged => Err(Reason::Vlan),
        // What is left to the kernel goes into the same container.
        Some(Target::Endpoint(index)) => match endpoint::get(index) {
            Ok(endpoint) => {
                check_addressee(packet)?;
                return deliver(packet, &ipv4, endpoint);
            }
            Err(reason) => Err(reason),
        },
        _ => carry(packet, &ipv4, entry),
    };
    walk.map_err(|reason| leave_to_kernel(packet, &ipv4, reason))
}

/// What is carried is addressed to the veth's own MAC: the kernel forwards nothing else.
#[inline(always)]
fn check_addressee(packet: &impl Packet) -> Walk<()> {
    if packet.is_for_this_host() { Ok(()) } else { Err(Reason::OtherHost) }
}

/// A packet to somebody else than a container of this node.
#[inline(always)]
fn carry(packet: &impl Packet, ipv4: &Ipv4, entry: Entry) -> Walk<Action> {
    match entry.target() {
        Some(Target::NextHop(index)) => {
            let next_hop = next_hop::get(index)?;
            check_addressee(packet)?;
            if next_hop.translates != 0 {
                return translate_and_forward(packet, ipv4, next_hop, Hook::FromContainer);
            }
            forward(packet, ipv4, next_hop)
        }
        Some(Target::Block) => Err(Reason::NoEndpoint),
        Some(Target::Kernel(reason)) => Err(reason),
        None if entry.is_none() => Err(Reason::NoRoute),
        Some(Target::Endpoint(_)) | None => Err(Reason::TableFault),
    }
}
