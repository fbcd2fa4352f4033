//! The Ethernet header: what kind of packet this is, and the rewriting of addresses.

use dataplane_common::{net::MacPair, reason::Reason, trace::StepCode};
use network_types::eth::EthHdr;

use crate::{observe, packet::Packet, verdict::Walk};

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const VLAN_OUTER: u16 = 0x88a8;

/// What a frame carries, of the things that a walk goes on with.
pub enum Payload {
    /// An IPv4 packet.
    Ipv4,
    /// An ARP packet.
    Arp,
    /// An IPv4 packet of a VLAN, whose tag is beside the bytes.
    TaggedIpv4,
    /// Another tag: where the packet begins, and what it is, is not known.
    Tagged,
}

/// Reads the header; ends the walk for what is not IPv4 or ARP.
///
/// A priority tag (VLAN 0) is no tag: it is taken off here, as the kernel takes it off what no VLAN device is for
/// (`__netif_receive_skb_core()` in net/core/dev.c).
#[inline(always)]
pub fn classify(packet: &impl Packet) -> Walk<Payload> {
    packet.pull_headers();
    let mut ether_type = ether_type(packet)?;
    observe::step(StepCode::Frame, [packet.ifindex(), ether_type.into(), packet.len()]);
    if packet.has_vlan_tag() || is_vlan(ether_type) {
        packet.remove_priority_tags()?;
        ether_type = self::ether_type(packet)?;
        if is_vlan(ether_type) {
            return Ok(Payload::Tagged);
        }
        if packet.has_vlan_tag() {
            return if ether_type == IPV4 { Ok(Payload::TaggedIpv4) } else { Err(Reason::Vlan) };
        }
    }
    match ether_type {
        IPV4 => Ok(Payload::Ipv4),
        ARP => Ok(Payload::Arp),
        IPV6 => Err(Reason::Ipv6),
        _ => Err(Reason::OtherProtocol),
    }
}

/// Whether the frame is addressed to several: a group, or all.
#[inline(always)]
pub fn is_for_a_group(packet: &impl Packet) -> Walk<bool> {
    Ok(packet.header::<[u8; 6]>(0)?[0] & 1 != 0)
}

/// Whether an IPv4 packet follows the header.
#[inline(always)]
pub fn is_ipv4(packet: &impl Packet) -> Walk<bool> {
    Ok(ether_type(packet)? == IPV4)
}

#[inline(always)]
fn ether_type(packet: &impl Packet) -> Walk<u16> {
    Ok(u16::from_be(packet.header::<EthHdr>(0)?.ether_type))
}

/// Whether the number is that of a VLAN tag.
#[inline(always)]
pub fn is_vlan(ether_type: u16) -> bool {
    matches!(ether_type, VLAN | VLAN_OUTER)
}

/// Sets both addresses of the frame.
#[inline(always)]
pub fn set_addresses(packet: &impl Packet, macs: &MacPair) -> Walk<()> {
    let header: *mut [u16; 6] = packet.header(0)?;
    for (index, half) in macs.halves().iter().enumerate() {
        // SAFETY: the header is as long. Volatile, or the compiler makes one copy of them, and of that a call.
        unsafe { (&raw mut (*header)[index]).write_volatile(*half) };
    }
    Ok(())
}
