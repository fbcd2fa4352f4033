//! ICMP errors: the packet that they quote is one of a flow, as the other end saw it.

use dataplane_common::{
    checksum,
    family::V4,
    flow::tuple::{Tuple, protocol},
    net::Ipv4Be,
    reason::Reason,
    trace::StepCode,
};
use network_types::ip::Ipv4Hdr;

use super::{rewrite::Fields, transport};
use crate::{
    ipv4::{self, Ipv4, Side},
    observe,
    packet::Packet,
    verdict::Walk,
};

/// Where the quoted packet begins, and its transport header.
const QUOTED: usize = ipv4::TRANSPORT + 8;
const QUOTED_TRANSPORT: usize = QUOTED + 20;

/// Up to the checksum of a quoted TCP header.
const HEADERS: u32 = QUOTED_TRANSPORT as u32 + 18;

/// The tuple of the packet that would answer the quoted one: by it the flow is found.
#[inline(always)]
pub fn answer_to_quoted(packet: &impl Packet) -> Walk<Tuple<V4>> {
    packet.pull(HEADERS);
    let icmp = packet.header::<[u8; 8]>(ipv4::TRANSPORT)?;
    let (icmp_type, code) = (icmp[0], icmp[1]);
    let header = packet.header::<Ipv4Hdr>(QUOTED).map_err(|_| Reason::NatBadError)?;
    let quoted = Ipv4::of(header);
    observe::step(StepCode::IcmpError, [icmp_type.into(), code.into(), quoted.protocol.into()]);
    // A later fragment names no ports, and what BPF translated had no options.
    if header.vihl != 0x45 || quoted.is_later_fragment() {
        return Err(Reason::NatBadError);
    }
    transport::read_quoted(packet, &quoted, QUOTED_TRANSPORT)
        .map(Tuple::reversed)
        .map_err(|_| Reason::NatBadError)
}

/// What becomes of one side of the quoted packet.
pub struct Change {
    /// The side: that which is our container.
    pub side: Side,
    /// Its protocol.
    pub protocol: u8,
    /// Its new address.
    pub address: Ipv4Be,
    /// Its port as it is.
    pub old_port: u16,
    /// Its new port.
    pub port: u16,
}

/// Rewrites the quoted packet, and the checksum of the error around it.
///
/// The quoted IP header keeps its sum, since its checksum takes up the change of the address. The transport
/// checksum, where it is quoted, takes up the changes of port and address, of which the latter is not among
/// the quoted bytes that it covers: what is left for the error's own checksum is the address, backwards.
#[inline(always)]
pub fn rewrite(packet: &impl Packet, change: &Change) -> Walk<()> {
    match change.protocol {
        protocol::TCP => rewrite_as(packet, protocol::TCP, change),
        protocol::UDP => rewrite_as(packet, protocol::UDP, change),
        _ => rewrite_as(packet, protocol::ICMP, change),
    }
}

#[inline(always)]
fn rewrite_as(packet: &impl Packet, protocol: u8, change: &Change) -> Walk<()> {
    let fields = Fields::of(protocol, change.side);
    let old_address = ipv4::set_address(packet, QUOTED, change.side, change.address)?;
    let (old_port, port) = (change.old_port.to_be(), change.port.to_be());
    *packet.header::<[u8; 2]>(QUOTED_TRANSPORT + fields.port)? = port.to_ne_bytes();

    // What lies behind the packet is not quoted, and not under the error's checksum.
    let length = u16::from_be_bytes(packet.header::<Ipv4Hdr>(ipv4::OFFSET)?.tot_len);
    let end = ipv4::OFFSET + usize::from(length);
    let mut has_checksum = false;
    if QUOTED_TRANSPORT + fields.checksum + 2 <= end
        && let Ok(field) = packet.header::<[u8; 2]>(QUOTED_TRANSPORT + fields.checksum)
    {
        let sum = u16::from_ne_bytes(*field);
        // A UDP checksum of zero is none (RFC 768).
        if protocol != protocol::UDP || sum != 0 {
            has_checksum = true;
            let sum = checksum::after_change(sum, old_port.into(), port.into());
            let sum = if protocol == protocol::ICMP {
                sum
            } else {
                checksum::after_change(sum, old_address.to_wire(), change.address.to_wire())
            };
            *field = sum.to_ne_bytes();
        }
    }
    let own_checksum = ipv4::TRANSPORT + 2;
    if !has_checksum {
        packet.replace_checksum(own_checksum, old_port.into(), port.into(), 2)
    } else if protocol != protocol::ICMP {
        packet.replace_checksum(own_checksum, change.address.to_wire(), old_address.to_wire(), 4)
    } else {
        Ok(())
    }
}
