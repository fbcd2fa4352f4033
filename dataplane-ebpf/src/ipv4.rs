//! The IPv4 header: its checks, its TTL, and whether the packet fits a link.

use dataplane_common::{checksum, flow::tuple::protocol, net::Ipv4Be, reason::Reason, trace::StepCode};
use network_types::{ip::Ipv4Hdr, tcp::TcpHdr};

use crate::{
    observe,
    packet::{Header, Packet},
    verdict::Walk,
};

/// Where the header begins.
pub const OFFSET: usize = 14;

/// Where the transport header begins, in a packet without options.
pub const TRANSPORT: usize = OFFSET + HEADER as usize;

const HEADER: u32 = 20;
const UDP_HEADER: u32 = 8;

/// What the walk needs of the header.
pub struct Ipv4 {
    /// Source address.
    pub source: Ipv4Be,
    /// Destination address.
    pub destination: Ipv4Be,
    /// Protocol number of what it carries.
    pub protocol: u8,
    /// What tells the fragments of one datagram from another's; as loaded.
    pub identification: u16,
    /// Length of the packet in bytes; 0 for an aggregate of more than 65,535.
    length: u16,
    ttl: u8,
    version_and_length: u8,
    /// Flags and fragment offset, host byte order.
    fragment: u16,
}

impl Ipv4 {
    /// What stands in the header, unchecked.
    #[inline(always)]
    pub fn of(header: &Ipv4Hdr) -> Self {
        Self {
            source: Ipv4Be::from_wire(u32::from_ne_bytes(header.src_addr)),
            destination: Ipv4Be::from_wire(u32::from_ne_bytes(header.dst_addr)),
            protocol: header.proto,
            identification: u16::from_ne_bytes(header.id),
            length: u16::from_be_bytes(header.tot_len),
            ttl: header.ttl,
            version_and_length: header.vihl,
            fragment: u16::from_be_bytes(header.frags),
        }
    }

    /// Whether so many bytes of transport header are the packet's, and not what follows it in the frame. The header
    /// of the packet has no options.
    #[inline(always)]
    pub fn has_transport(&self, bytes: u32) -> bool {
        self.length == 0 || u32::from(self.length) >= HEADER + bytes
    }

    /// Whether the header is longer than 20 bytes.
    #[inline(always)]
    pub fn has_options(&self) -> bool {
        self.version_and_length != 0x45
    }

    /// Length of the packet in a frame of that length, in bytes.
    #[inline(always)]
    pub fn length_in(&self, frame: u32) -> u32 {
        if self.length == 0 { frame - OFFSET as u32 } else { self.length.into() }
    }

    /// Where the header ends, options included.
    #[inline(always)]
    pub fn header_end(&self) -> u32 {
        OFFSET as u32 + u32::from(self.version_and_length & 0xf) * 4
    }

    /// Whether Linux never forwards such a packet, whatever its routes say: the TTL ends here (`ip_forward()`), or the
    /// destination is the link's or the host's own (`ip_route_input_rcu()` in net/ipv4/route.c): a local group, everybody,
    /// nobody, loopback.
    #[inline(always)]
    pub fn is_never_forwarded(&self) -> bool {
        let destination = self.destination.to_host();
        self.ttl <= 1
            || destination >> 8 == 0xe0_0000
            || destination >> 24 == 127
            || matches!(destination, 0 | u32::MAX)
    }

    /// Whether a router may not fragment the packet.
    #[inline(always)]
    pub fn must_not_fragment(&self) -> bool {
        self.fragment & 0x4000 != 0
    }

    /// Whether it is the first of several fragments: it has the transport header.
    #[inline(always)]
    pub fn is_first_fragment(&self) -> bool {
        self.fragment & 0x3fff == 0x2000
    }

    /// Whether it is a fragment without transport header.
    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment & 0x1fff != 0
    }
}

/// The header as the five words that its checksum is made of.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct HeaderWords([u32; 5]);

// SAFETY: packed words, every value of which is valid.
unsafe impl Header for HeaderWords {}

/// Reads the header and checks it as RFC 1812, section 5.2.2 asks, but for the checksum.
#[inline(always)]
pub fn read(packet: &impl Packet) -> Walk<Ipv4> {
    let header = packet.header::<Ipv4Hdr>(OFFSET)?;
    let ipv4 = Ipv4::of(header);
    observe::step(
        StepCode::Ipv4,
        [
            ipv4.source.to_host(),
            ipv4.destination.to_host(),
            u32::from(ipv4.ttl) << 8 | u32::from(ipv4.protocol),
        ],
    );
    let header_length = ipv4.header_end() - OFFSET as u32;
    if ipv4.version_and_length >> 4 != 4 || header_length < HEADER {
        return Err(Reason::Malformed);
    }
    let total_length = u32::from(ipv4.length);
    let is_big_tcp = total_length == 0 && packet.gso_size() != 0; // too long for 16 bits: Linux 6.3
    if !is_big_tcp && (total_length < header_length || total_length > packet.len() - OFFSET as u32) {
        return Err(Reason::Malformed);
    }
    Ok(ipv4)
}

/// The checks of a packet that is to be forwarded: it must be intact, and plain enough to be forwarded without the kernel.
/// That it is addressed to this machine's MAC, its hook has seen.
#[inline(always)]
pub fn check_forwardable(packet: &impl Packet, ipv4: &Ipv4) -> Walk<()> {
    if ipv4.has_options() {
        return Err(Reason::IpOptions);
    }
    let words = packet.header::<HeaderWords>(OFFSET)?.0;
    if !checksum::header_is_intact(&words) {
        return Err(Reason::BadChecksum);
    }
    if ipv4.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    Ok(())
}

/// Whether the packet, or each segment of an aggregate, fits a link of that MTU.
///
/// Only the packet counts, and not what follows it in the frame: padding up to the MTU is carried along, more is cut off,
/// as the kernel does (`ip_rcv_core()` in net/ipv4/ip_input.c).
#[inline(always)]
pub fn check_size(packet: &impl Packet, ipv4: &Ipv4, mtu: u32) -> Walk<()> {
    let mut size = packet.len() - OFFSET as u32;
    if size > mtu {
        let payload = packet.gso_size();
        if payload != 0 {
            size = payload + HEADER + transport_header(packet, ipv4)?;
        } else if u32::from(ipv4.length) < size {
            size = ipv4.length.into();
            if size <= mtu {
                packet.trim(OFFSET as u32 + size)?;
            }
        }
    }
    observe::step(StepCode::Size, [size, mtu, 0]);
    if size > mtu { Err(Reason::TooBig) } else { Ok(()) }
}

/// Length of the transport header of an aggregate; what is neither TCP nor UDP is left to the kernel.
#[inline(always)]
fn transport_header(packet: &impl Packet, ipv4: &Ipv4) -> Walk<u32> {
    match ipv4.protocol {
        protocol::TCP => {
            let Ok(tcp) = packet.header::<TcpHdr>(TRANSPORT) else {
                return Err(Reason::TooBig);
            };
            Ok(u32::from(tcp.doff()) * 4)
        }
        protocol::UDP => Ok(UDP_HEADER),
        _ => Err(Reason::TooBig),
    }
}

/// The checksum field of a TCP or UDP packet, and the sum of its pseudo header (RFC 9293, section 3.1; RFC 768), both
/// as loaded; `None` for other protocols.
#[inline(always)]
pub fn checksum_of_transport(packet: &impl Packet, ipv4: &Ipv4) -> Walk<Option<(u16, u16)>> {
    let offset = match ipv4.protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return Ok(None),
    };
    let length = u16::from_be_bytes(packet.header::<Ipv4Hdr>(OFFSET)?.tot_len) - HEADER as u16;
    let field = u16::from_ne_bytes(*packet.header::<[u8; 2]>(TRANSPORT + offset)?);
    let (source, destination) = (ipv4.source.to_wire(), ipv4.destination.to_wire());
    Ok(Some((field, checksum::of_pseudo_header(source, destination, ipv4.protocol, length))))
}

/// Takes one from the TTL and sets the checksum accordingly (RFC 1812, section 5.3.1).
#[inline(always)]
pub fn decrement_ttl(packet: &impl Packet) -> Walk<()> {
    let header = packet.header::<Ipv4Hdr>(OFFSET)?;
    header.ttl -= 1;
    header.check = checksum::after_ttl_decrement(u16::from_ne_bytes(header.check)).to_ne_bytes();
    Ok(())
}

/// Which address of a header.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where the packet comes from.
    Source,
    /// Where it goes to.
    Destination,
}

/// Sets an address of the header at `offset`, and its checksum accordingly; gives the address before.
#[inline(always)]
pub fn set_address(packet: &impl Packet, offset: usize, side: Side, address: Ipv4Be) -> Walk<Ipv4Be> {
    let header = packet.header::<Ipv4Hdr>(offset)?;
    let field = match side {
        Side::Source => &mut header.src_addr,
        Side::Destination => &mut header.dst_addr,
    };
    let old = u32::from_ne_bytes(*field);
    *field = address.to_wire().to_ne_bytes();
    let sum = checksum::after_change(u16::from_ne_bytes(header.check), old, address.to_wire());
    header.check = sum.to_ne_bytes();
    Ok(Ipv4Be::from_wire(old))
}
