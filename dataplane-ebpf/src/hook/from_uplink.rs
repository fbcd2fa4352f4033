//! A packet that came in by an uplink.

use dataplane_common::{
    endpoint::Endpoint,
    names::PROGRAM_FOR_TRACKED,
    next_hop::NextHop,
    reason::Reason,
    route::{Entry, Target},
    stats::Hook,
    trace::StepCode,
};

use crate::{
    endpoint,
    ethernet::{self, Payload},
    flow,
    hook::{
        deliver, deliver_checked, exit, forward_checked, leave_to_kernel, refuse_too_big, respect,
        translate_and_forward,
    },
    ipv4::{self, Ipv4},
    next_hop, observe,
    packet::Packet,
    route, source,
    verdict::{Action, Walk},
};

/// The packet's walk.
#[inline(always)]
pub fn walk<P: Packet>(packet: &P) -> Walk<Action> {
    let is_for_this_host = packet.is_for_this_host();
    // Another's, such as a macvlan's or a bridge port's above the uplink: nothing is decided about it.
    if !is_for_this_host && !ethernet::is_for_a_group(packet)? {
        return Err(Reason::OtherHost);
    }
    match ethernet::classify(packet)? {
        Payload::Arp => return Err(Reason::Arp),
        Payload::TaggedIpv4 | Payload::Tagged => return Err(Reason::Vlan),
        Payload::Ipv4 => {}
    }
    let ipv4 = ipv4::read(packet)?;

    if respect::is_on() && is_for_this_host {
        return respect::carry_from_uplink(packet, &ipv4);
    }

    let entry = route::lookup(ipv4.destination);
    observe::step(StepCode::RouteLookup, [ipv4.destination.to_host(), entry.to_bits(), 0]);
    let walk = match entry.target() {
        // Everybody's, among them those above the uplink.
        target if !is_for_this_host => Err(of_a_group(target)),
        Some(Target::Endpoint(index)) => {
            let source = source::lookup(ipv4.source)?;
            match endpoint::get(index) {
                Ok(endpoint) => {
                    if endpoint.flags & Endpoint::KERNEL_EGRESS != 0 {
                        check_way_back(source)?;
                    }
                    // What XDP leaves to tc is looked at there.
                    if !P::IS_FRAME && flow::is_tracked(source) {
                        return Err(packet.go_on_in(PROGRAM_FOR_TRACKED));
                    }
                    return deliver(packet, &ipv4, endpoint);
                }
                Err(reason) => Err(reason),
            }
        }
        Some(Target::Block) => return Err(Reason::NoEndpoint),
        Some(Target::Kernel(Reason::ToHost)) => {
            return match flow::find_reply(packet, &ipv4) {
                Some(reply) => answer(packet, &ipv4, &reply),
                None => Err(Reason::ToHost),
            };
        }
        _ => carry(packet, &ipv4, entry),
    };
    walk.map_err(|reason| leave_foreign_to_kernel(packet, &ipv4, reason))
}

/// Why a frame to a group of MAC addresses is the kernel's, which forwards it only as multicast.
#[inline(always)]
fn of_a_group(target: Option<Target>) -> Reason {
    match target {
        Some(Target::Kernel(reason @ (Reason::ToHost | Reason::Multicast | Reason::Broadcast))) => reason,
        _ => Reason::OtherHost,
    }
}

/// A packet to somebody else than this node and its containers.
#[inline(always)]
fn carry(packet: &impl Packet, ipv4: &Ipv4, entry: Entry) -> Walk<Action> {
    match entry.target() {
        Some(Target::NextHop(index)) => through(packet, ipv4, next_hop::get(index)?),
        Some(Target::Kernel(reason)) => Err(reason),
        None if entry.is_none() => Err(Reason::NoRoute),
        Some(Target::Endpoint(_) | Target::Block) | None => Err(Reason::TableFault),
    }
}

/// What is for no container of this node goes to the kernel for one reason, unless that would forward it untranslated.
#[inline(always)]
fn leave_foreign_to_kernel(packet: &impl Packet, ipv4: &Ipv4, reason: Reason) -> Reason {
    match leave_to_kernel(packet, ipv4, reason) {
        Reason::LinkLocal | Reason::Reserved | Reason::NoRoute | Reason::KernelRoute | Reason::NoNextHop => {
            Reason::NotLocal
        }
        reason => reason,
    }
}

/// A packet of another node that leaves by another uplink: carried if it is to be translated, as on a gateway.
#[inline(always)]
fn through<P: Packet>(packet: &P, ipv4: &Ipv4, next_hop: &NextHop) -> Walk<Action> {
    if next_hop.ifindex == packet.ifindex() || P::IS_FRAME && next_hop.translates == 0 {
        return Err(Reason::NotLocal);
    }
    let back = way_back(ipv4);
    if next_hop.translates == 0 {
        let is_tracked = flow::is_tracked(back);
        return Err(if is_tracked { packet.go_on_in(PROGRAM_FOR_TRACKED) } else { Reason::NotLocal });
    }
    // A translation lends the node's address: only to who is reached by the uplink that the packet came by
    // (RFC 3704, strict reverse path).
    match back.target() {
        Some(Target::NextHop(index)) if next_hop::interface(index)? == packet.ifindex() => {}
        _ => return Err(refuse_source(ipv4)),
    }
    translate_and_forward(packet, ipv4, next_hop, Hook::FromUplink)
}

/// What comes by a wrong uplink is not translated; where a rule wants that, it is not left to the kernel either.
#[inline(always)]
fn refuse_source(ipv4: &Ipv4) -> Reason {
    if flow::must_translate(ipv4.source, ipv4.destination) { Reason::SpoofedSource } else { Reason::NotLocal }
}

/// A reply to a translated packet. The kernel would take it for the node's own, so nothing is left to it that is not
/// translated.
#[inline(always)]
fn answer(packet: &impl Packet, ipv4: &Ipv4, reply: &flow::Reply) -> Walk<Action> {
    // The other packets of a flow are from the address that the container wrote to.
    if reply.is_error() {
        source::lookup(ipv4.source)?;
    }
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
/// fragment" the kernel's error would be about a packet that nobody sent. XDP leaves either to tc as it came.
#[inline(always)]
fn apply<P: Packet>(packet: &P, ipv4: &Ipv4, reply: &flow::Reply, mtu: u32) -> Walk<()> {
    if P::IS_FRAME || ipv4.must_not_fragment() {
        ipv4::check_size(packet, ipv4, mtu).map_err(|reason| match reason {
            Reason::TooBig if P::IS_FRAME => Reason::TcTranslates,
            Reason::TooBig => refuse_too_big(packet, ipv4, mtu, Hook::FromUplink),
            reason => reason,
        })?;
    }
    packet.check_finished(ipv4)?;
    reply.apply(packet, ipv4)?;
    // Again for some: what is known beforehand would have the verifier look at the translation twice.
    ipv4::check_size(packet, ipv4, mtu)
}

/// The route that the answers to a packet take.
#[inline(always)]
fn way_back(ipv4: &Ipv4) -> Entry {
    let back = route::lookup(ipv4.source);
    observe::step(StepCode::SourceLookup, [ipv4.source.to_host(), back.to_bits(), 0]);
    back
}

/// Whether BPF carries the answers to a packet from there, too.
#[inline(always)]
fn check_way_back(source: Entry) -> Walk<()> {
    match source.target() {
        Some(Target::Endpoint(_) | Target::NextHop(_) | Target::Block) => Ok(()),
        Some(Target::Kernel(_)) | None => Err(Reason::KernelRoute),
    }
}
