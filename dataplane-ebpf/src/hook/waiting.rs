//! A packet that came by a veth behind which no container is known, yet or any more.
//!
//! What a container needs for its set-up passes: ARP, what is not IPv4, and the broadcasts of who has no address yet
//! (DHCP). All else would leave with an address that nobody has checked, and untranslated. Where the kernel decides
//! (`netfilter = "respect"`), its rules see to both.

use dataplane_common::{net::Ipv4Be, reason::Reason, route::Target};

use crate::{
    endpoint,
    ethernet::{self, Payload},
    flow,
    hook::{leave_to_kernel, respect},
    ipv4, options,
    packet::Packet,
    route,
    verdict::{Action, Walk},
};

/// The packet's walk.
#[inline(always)]
pub fn walk(packet: &impl Packet) -> Walk<Action> {
    match ethernet::classify(packet)? {
        Payload::Arp => return Err(Reason::Arp),
        Payload::Tagged | Payload::TaggedIpv4 if flow::translates() => return Err(Reason::NatUnsupported),
        Payload::Tagged | Payload::TaggedIpv4 => return Err(Reason::Vlan),
        Payload::Ipv4 => {}
    }
    let ipv4 = ipv4::read(packet)?;
    if ipv4.has_options() {
        options::check(packet, &ipv4)?;
    }
    if ipv4.source == Ipv4Be::UNSPECIFIED && ipv4.destination == Ipv4Be::BROADCAST {
        return Err(Reason::Broadcast);
    }
    if respect::is_on() {
        return Err(Reason::KernelDecides);
    }
    endpoint::of_source(ipv4.source, packet.ifindex())?;
    // It has become one in this moment: the next packet finds the walk of containers.
    match route::lookup(ipv4.destination).target() {
        Some(Target::Kernel(Reason::ToHost)) => Err(Reason::ToHost),
        Some(Target::Endpoint(_)) => Err(Reason::KernelRoute),
        _ => Err(leave_to_kernel(packet, &ipv4, Reason::KernelRoute)),
    }
}
