//! The walks: each hook is a list of steps, in the order in which ARCHITECTURE.md tells them.

pub mod decide;
pub mod first;
pub mod from_container;
pub mod from_uplink;
mod respect;
pub mod tracked;
pub mod waiting;

use dataplane_common::{
    endpoint::Endpoint, monitor::bit, names::program_to_decide, net::Ipv4Be, next_hop::NextHop,
    reason::Reason, reject::Error, stats::Hook,
};

use crate::{
    ethernet, flow,
    ipv4::{self, Ipv4},
    next_hop,
    packet::Packet,
    reject::{self, Request},
    verdict::{Action, Walk},
};

/// Into a container of this node.
#[inline(always)]
fn deliver(packet: &impl Packet, ipv4: &Ipv4, endpoint: &Endpoint) -> Walk<Action> {
    ipv4::check_forwardable(packet, ipv4)?;
    ipv4::check_size(packet, ipv4, endpoint.mtu)?;
    packet.exit_to_container(endpoint.ifindex)?;
    deliver_checked(packet, endpoint)
}

#[inline(always)]
fn deliver_checked(packet: &impl Packet, endpoint: &Endpoint) -> Walk<Action> {
    ipv4::decrement_ttl(packet)?;
    ethernet::set_addresses(packet, &endpoint.macs)?;
    Ok(Action::Deliver)
}

/// Out by an uplink. The kernel writes the Ethernet header.
#[inline(always)]
fn forward(packet: &impl Packet, ipv4: &Ipv4, next_hop: &NextHop) -> Walk<Action> {
    ipv4::check_forwardable(packet, ipv4)?;
    ipv4::check_size(packet, ipv4, next_hop.mtu)?;
    exit(packet, ipv4.destination, next_hop)?;
    forward_checked(packet)
}

/// By the next hop; nothing is rewritten before it is certain that the packet can leave that way.
#[inline(always)]
fn exit(packet: &impl Packet, destination: Ipv4Be, next_hop: &NextHop) -> Walk<()> {
    packet.exit_to_neighbour(next_hop.ifindex, next_hop::neighbour(next_hop, destination))
}

#[inline(always)]
fn forward_checked(packet: &impl Packet) -> Walk<Action> {
    ipv4::decrement_ttl(packet)?;
    Ok(Action::Forward)
}

/// Out by an uplink, as a packet of a known flow; all others go on in the program that can do more.
#[inline(always)]
fn translate_and_forward(packet: &impl Packet, ipv4: &Ipv4, next_hop: &NextHop, hook: Hook) -> Walk<Action> {
    let known = match flow::lookup(packet, ipv4) {
        Some(known) if known.is_bound_to(next_hop) => known,
        _ => return Err(packet.go_on_in(program_to_decide(hook))),
    };
    // A packet whose TTL ends here is never forwarded by the kernel, and its answer needs the original.
    ipv4::check_forwardable(packet, ipv4)?;
    check_size(packet, ipv4, next_hop, true, hook)?;
    packet.check_finished(ipv4)?;
    exit(packet, ipv4.destination, next_hop)?;
    known.apply_outbound(packet, ipv4)?;
    forward_checked(packet)
}

/// Whether the packet fits the next hop's link. One that is to be translated is never left to the kernel: it would send it
/// on untranslated, in pieces without "don't fragment", and with it where its own route takes more.
#[inline(always)]
fn check_size(
    packet: &impl Packet,
    ipv4: &Ipv4,
    next_hop: &NextHop,
    is_translated: bool,
    hook: Hook,
) -> Walk<()> {
    ipv4::check_size(packet, ipv4, next_hop.mtu).map_err(|reason| match reason {
        Reason::TooBig if is_translated => refuse_too_big(packet, ipv4, next_hop.mtu, hook),
        reason => reason,
    })
}

/// The end of a packet that is too big for the next link and has to do with a translation, before anything is rewritten.
#[inline(always)]
fn refuse_too_big(packet: &impl Packet, ipv4: &Ipv4, mtu: u32, hook: Hook) -> Reason {
    let reason = Reason::NatTooBig;
    if !ipv4.must_not_fragment() {
        return reason;
    }
    reject::go_on(packet, Request { hook, reason, error: Error::frag_needed(mtu) })
}

/// The end of a walk that the data path does not carry the packet from: refuses to leave to the kernel what that might
/// forward and a rule says must be translated.
#[inline(always)]
fn leave_to_kernel(packet: &impl Packet, ipv4: &Ipv4, reason: Reason) -> Reason {
    let may_be_forwarded = Reason::MAY_BE_FORWARDED & bit(packet.veil(reason as u32)) != 0;
    if may_be_forwarded && !ipv4.is_never_forwarded() && flow::must_translate(ipv4.source, ipv4.destination) {
        Reason::NatKernelRoute
    } else {
        reason
    }
}
