//! ARP of a container, answered here: its gateway 169.254.1.1, like any other address, is the veth itself.
//!
//! The kernel's `proxy_arp` answers only while the node has a route to the address by another interface,
//! which a node without a default route does not have for a link-local gateway.

use dataplane_common::{
    net::{Ipv4Be, MacAddr, MacPair},
    reason::Reason,
    trace::StepCode,
};
use network_types::arp::ArpHdr;

use crate::{
    endpoint, ethernet, observe,
    packet::Packet,
    verdict::{Action, Walk},
};

const OFFSET: usize = 14;
const ETHERNET: u16 = 1;
const IPV4: u16 = 0x0800;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// Answers a request; all other ARP is the kernel's.
#[inline(always)]
pub fn answer(packet: &impl Packet) -> Walk<Action> {
    let arp = packet.header::<ArpHdr>(OFFSET)?;
    let is_ipv4_over_ethernet = u16::from_be_bytes(arp.htype) == ETHERNET
        && u16::from_be_bytes(arp.ptype) == IPV4
        && arp.hlen == 6
        && arp.plen == 4;
    if !is_ipv4_over_ethernet {
        return Err(Reason::Arp);
    }
    let operation = u16::from_be_bytes(arp.oper);
    let sender = Ipv4Be::from_wire(u32::from_ne_bytes(arp.spa));
    let target = Ipv4Be::from_wire(u32::from_ne_bytes(arp.tpa));
    observe::step(StepCode::Arp, [operation.into(), sender.to_host(), target.to_host()]);

    // A probe (RFC 5227: sender 0.0.0.0) asks whether somebody else has the address. Answering it, or an
    // announcement of the container's own address, would tell the container that its address is taken.
    if operation != REQUEST || sender == Ipv4Be::UNSPECIFIED || sender == target {
        return Err(Reason::Arp);
    }
    let endpoint = endpoint::of_source(sender, packet.ifindex())?;

    let requester = arp.sha;
    arp.oper = REPLY.to_be_bytes();
    let gateway_mac = endpoint.macs.source();
    arp.sha = gateway_mac.octets();
    arp.spa = target.to_wire().to_ne_bytes();
    arp.tha = requester;
    arp.tpa = sender.to_wire().to_ne_bytes();
    ethernet::set_addresses(packet, &MacPair::new(MacAddr::new(requester), gateway_mac))?;
    Ok(Action::AnswerArp)
}
