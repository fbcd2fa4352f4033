//! A packet that came in by an uplink.

use dataplane_common::{
    endpoint::Endpoint, net::Ipv4Be, next_hop::NextHop, reason::Reason, route::Target, stats::Hook,
    trace::StepCode,
};

use crate::{
    endpoint,
    ethernet::{self, Payload},
    hook::{deliver, deliver_checked, exit, forward_checked, leave_to_kernel, translate_and_forward},
    ipv4::{self, Ipv4},
    nat, next_hop, observe,
    packet::Packet,
    route,
    verdict::{Action, Walk},
};

/// The packet's walk.
#[inline(always)]
pub fn walk(packet: &impl Packet) -> Walk<Action> {
    match ethernet::classify(packet)? {
        Payload::Arp => return Err(Reason::Arp),
        Payload::TaggedIpv4 | Payload::Tagged => return Err(Reason::Vlan),
        Payload::Ipv4 => {}
    }
    let ipv4 = ipv4::read(packet)?;

    let entry = route::lookup(ipv4.destination);
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
        Some(Target::Kernel(Reason::ToHost)) => match nat::find_reply(packet, &ipv4) {
            Some(reply) => answer(packet, &ipv4, &reply),
            None => Err(Reason::ToHost),
        },
        Some(Target::Kernel(reason @ (Reason::Multicast | Reason::Broadcast))) => Err(reason),
        Some(Target::NextHop(index)) => through(packet, &ipv4, next_hop::get(index)?),
        Some(Target::Kernel(reason)) => Err(leave_foreign_to_kernel(&ipv4, reason)),
        None if entry.is_none() => Err(leave_foreign_to_kernel(&ipv4, Reason::NoRoute)),
        None => Err(Reason::TableFault),
    }
}

/// What is for no container of this node goes to the kernel, unless that would forward it untranslated.
#[inline(always)]
fn leave_foreign_to_kernel(ipv4: &Ipv4, reason: Reason) -> Reason {
    match leave_to_kernel(ipv4, reason) {
        Reason::NatKernelRoute => Reason::NatKernelRoute,
        _ => Reason::NotLocal,
    }
}

/// A packet of another node that leaves by another uplink: carried if it is to be translated, as on a gateway.
#[inline(always)]
fn through(packet: &impl Packet, ipv4: &Ipv4, next_hop: &NextHop) -> Walk<Action> {
    if next_hop.translates == 0 || next_hop.ifindex == packet.ifindex() {
        return Err(Reason::NotLocal);
    }
    // A translation lends the node's address: only to who is reached by the uplink that the packet came by
    // (RFC 3704, strict reverse path).
    let back = route::lookup(ipv4.source);
    observe::step(StepCode::SourceLookup, [ipv4.source.to_host(), back.to_bits(), 0]);
    match back.target() {
        Some(Target::NextHop(index)) if next_hop::interface(index)? == packet.ifindex() => {}
        _ => return Err(refuse_source(ipv4)),
    }
    translate_and_forward(packet, ipv4, next_hop, Hook::FromUplink)
}

/// What comes by a wrong uplink is not translated; where a rule wants that, it is not left to the kernel either.
#[inline(always)]
fn refuse_source(ipv4: &Ipv4) -> Reason {
    if nat::must_translate(ipv4.source, ipv4.destination) { Reason::SpoofedSource } else { Reason::NotLocal }
}

/// A reply to a translated packet. The kernel would take it for the node's own, so nothing is left to it that is not
/// translated.
#[inline(always)]
fn answer(packet: &impl Packet, ipv4: &Ipv4, reply: &nat::Reply) -> Walk<Action> {
    match ipv4::check_forwardable(packet, ipv4) {
        Err(Reason::TtlExpired) => return Err(Reason::NatTtlExpired),
        checked => checked?,
    }
    let entry = route::lookup(reply.destination);
    observe::step(StepCode::RouteLookup, [reply.destination.to_host(), entry.to_bits(), 0]);
    match entry.target() {
        Some(Target::Endpoint(index)) => {
            let endpoint = endpoint::get(index)?;
            packet.exit_to_container(endpoint.ifindex)?;
            apply(packet, ipv4, reply, endpoint.mtu)?;
            deliver_checked(packet, endpoint)
        }
        Some(Target::NextHop(index)) => {
            let next_hop = next_hop::get(index)?;
            exit(packet, reply.destination, next_hop)?;
            apply(packet, ipv4, reply, next_hop.mtu)?;
            forward_checked(packet)
        }
        _ => Err(Reason::NoEndpoint),
    }
}

/// Translates the reply. One that does not fit the next link goes on in the kernel, which fragments it; with "don't
/// fragment" the kernel's error would be about a packet that nobody sent.
#[inline(always)]
fn apply(packet: &impl Packet, ipv4: &Ipv4, reply: &nat::Reply, mtu: u32) -> Walk<()> {
    if ipv4.must_not_fragment() {
        ipv4::check_size(packet, ipv4, mtu).map_err(|_| Reason::NatTooBig)?;
    }
    packet.check_finished(ipv4)?;
    reply.apply(packet, ipv4)?;
    // Again for some: what is known beforehand would have the verifier look at the translation twice.
    ipv4::check_size(packet, ipv4, mtu)
}

/// Whether BPF carries the answers to a packet from there, too.
#[inline(always)]
fn check_way_back(source: Ipv4Be) -> Walk<()> {
    let entry = route::lookup(source);
    observe::step(StepCode::SourceLookup, [source.to_host(), entry.to_bits(), 0]);
    match entry.target() {
        Some(Target::Endpoint(_) | Target::NextHop(_) | Target::Block) => Ok(()),
        Some(Target::Kernel(_)) | None => Err(Reason::KernelRoute),
    }
}
