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
}

/// Reads the header; ends the walk for what is not IPv4 or ARP.
#[inline(always)]
pub fn classify(packet: &impl Packet) -> Walk<Payload> {
    packet.pull_headers();
    let ether_type = u16::from_be(packet.header::<EthHdr>(0)?.ether_type);
    observe::step(StepCode::Frame, [packet.ifindex(), ether_type.into(), packet.len()]);
    if packet.has_vlan_tag() {
        return Err(Reason::Vlan);
    }
    match ether_type {
        IPV4 => Ok(Payload::Ipv4),
        ARP => Ok(Payload::Arp),
        IPV6 => Err(Reason::Ipv6),
        VLAN | VLAN_OUTER => Err(Reason::Vlan),
        _ => Err(Reason::OtherProtocol),
    }
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
