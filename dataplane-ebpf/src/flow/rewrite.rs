//! A packet's new address and port, with every checksum.

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use dataplane_common::{flow::tuple::protocol, net::Ipv4Be, trace::StepCode};

use crate::{
    ipv4::{self, Ipv4, Side},
    observe,
    packet::Packet,
    verdict::Walk,
};

/// What a side of a packet becomes.
#[derive(Clone, Copy)]
pub struct Change {
    /// Which side.
    pub side: Side,
    /// Its new address.
    pub address: Ipv4Be,
    /// Its port as it is.
    pub old_port: u16,
    /// Its new port, or echo identifier; host byte order.
    pub port: u16,
}

/// Where a transport header has its checksum, and the port of a side.
pub struct Fields {
    /// Offset of the checksum.
    pub checksum: usize,
    /// Offset of the port or identifier.
    pub port: usize,
}

impl Fields {
    /// Of that protocol, which is one that is translated.
    #[inline(always)]
    pub fn of(protocol: u8, side: Side) -> Self {
        let port = match side {
            Side::Source => 0,
            Side::Destination => 2,
        };
        match protocol {
            protocol::TCP => Self { checksum: 16, port },
            protocol::UDP => Self { checksum: 6, port },
            _ => Self { checksum: 2, port: 4 },
        }
    }
}

/// Sets an address of the packet where nothing else depends on it, as in an ICMP error.
#[inline(always)]
pub fn apply_to_header(packet: &impl Packet, side: Side, address: Ipv4Be) -> Walk<()> {
    observe::step(StepCode::Translated, [address.to_host(), 0, (side == Side::Destination).into()]);
    ipv4::set_address(packet, ipv4::OFFSET, side, address).map(drop)
}

/// Rewrites a packet without options. A later fragment has no transport header to be rewritten.
#[inline(always)]
pub fn apply(packet: &impl Packet, ipv4: &Ipv4, change: &Change) -> Walk<()> {
    observe::step(
        StepCode::Translated,
        [change.address.to_host(), change.port.into(), (change.side == Side::Destination).into()],
    );
    if !ipv4.is_later_fragment() {
        let old_address = match change.side {
            Side::Source => ipv4.source,
            Side::Destination => ipv4.destination,
        };
        // Constants on each path: the verifier wants to know where in the packet a helper writes.
        match ipv4.protocol {
            protocol::TCP => transport(packet, protocol::TCP, old_address, change, 0)?,
            protocol::UDP => transport(packet, protocol::UDP, old_address, change, BPF_F_MARK_MANGLED_0)?,
            _ => transport(packet, protocol::ICMP, old_address, change, 0)?,
        }
    }
    ipv4::set_address(packet, ipv4::OFFSET, change.side, change.address).map(drop)
}

#[inline(always)]
fn transport(
    packet: &impl Packet,
    protocol: u8,
    old_address: Ipv4Be,
    change: &Change,
    flags: u32,
) -> Walk<()> {
    let fields = Fields::of(protocol, change.side);
    let checksum = ipv4::TRANSPORT + fields.checksum;
    if protocol != protocol::ICMP {
        let flags = flags | BPF_F_PSEUDO_HDR | 4;
        packet.replace_checksum(checksum, old_address.to_wire(), change.address.to_wire(), flags)?;
    }
    // A flow keeps its source port where it can, so most packets end here.
    if change.port == change.old_port {
        return Ok(());
    }
    let (old_port, port) = (change.old_port.to_be(), change.port.to_be());
    packet.replace_checksum(checksum, old_port.into(), port.into(), flags | 2)?;
    *packet.header::<[u8; 2]>(ipv4::TRANSPORT + fields.port)? = port.to_ne_bytes();
    Ok(())
}
