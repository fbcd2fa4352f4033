//! The transport header: which flow a packet belongs to.

use dataplane_common::{
    family::V4,
    flow::{
        state::flags,
        tuple::{Tuple, protocol},
    },
    reason::Reason,
};

use crate::{
    ipv4::{self, Ipv4},
    packet::Packet,
    verdict::Walk,
};

/// ICMP types (RFC 792).
mod icmp {
    pub const ECHO_REPLY: u8 = 0;
    pub const UNREACHABLE: u8 = 3;
    pub const ECHO_REQUEST: u8 = 8;
    pub const TIME_EXCEEDED: u8 = 11;
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Bytes of an ICMP error that quotes as little as it may (RFC 792).
const LEAST_ERROR: u32 = 8 + 20 + 8;

/// What a packet is, as far as flows go.
pub enum Transport {
    /// A packet of a flow, with its TCP flags.
    Flow(Tuple<V4>, u8),
    /// An ICMP error.
    Error,
    /// Something that makes no flow.
    Other,
}

/// Reads the transport header of a packet without options that is no later fragment.
#[inline(always)]
pub fn read(packet: &impl Packet, ipv4: &Ipv4) -> Walk<Transport> {
    let least = match ipv4.protocol {
        protocol::TCP => 20,
        protocol::UDP | protocol::ICMP => 8,
        _ => 0,
    };
    if !ipv4.has_transport(least) {
        return Err(Reason::Malformed);
    }
    match ipv4.protocol {
        protocol::TCP => {
            let header = packet.header::<[u8; 20]>(ipv4::TRANSPORT)?;
            Ok(Transport::Flow(tuple(ipv4, ports(header)), header[13]))
        }
        protocol::UDP => {
            let header = packet.header::<[u8; 8]>(ipv4::TRANSPORT)?;
            Ok(Transport::Flow(tuple(ipv4, ports(header)), 0))
        }
        protocol::ICMP => {
            let header = packet.header::<[u8; 8]>(ipv4::TRANSPORT)?;
            Ok(match header[0] {
                icmp::ECHO_REQUEST => Transport::Flow(tuple(ipv4, echo_ports(header, header[0])), 0),
                // The flag says that it begins nothing: see `state::first`.
                icmp::ECHO_REPLY => Transport::Flow(tuple(ipv4, echo_ports(header, header[0])), flags::ACK),
                icmp::UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM => {
                    if !ipv4.has_transport(LEAST_ERROR) {
                        return Err(Reason::NatBadError);
                    }
                    Transport::Error
                }
                _ => Transport::Other,
            })
        }
        _ => Ok(Transport::Other),
    }
}

/// The tuple of a packet that an ICMP error quotes, of which 8 bytes of transport are there.
#[inline(always)]
pub fn read_quoted(packet: &impl Packet, ipv4: &Ipv4, offset: usize) -> Walk<Tuple<V4>> {
    let header = packet.header::<[u8; 8]>(offset)?;
    match ipv4.protocol {
        protocol::TCP | protocol::UDP => Ok(tuple(ipv4, ports(header))),
        protocol::ICMP if matches!(header[0], icmp::ECHO_REQUEST | icmp::ECHO_REPLY) => {
            Ok(tuple(ipv4, echo_ports(header, header[0])))
        }
        _ => Err(Reason::NatBadError),
    }
}

#[inline(always)]
fn tuple(ipv4: &Ipv4, (source_port, destination_port): (u16, u16)) -> Tuple<V4> {
    Tuple {
        protocol: ipv4.protocol,
        source: ipv4.source,
        source_port,
        destination: ipv4.destination,
        destination_port,
    }
}

#[inline(always)]
fn ports<const N: usize>(header: &[u8; N]) -> (u16, u16) {
    (u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]]))
}

/// The identifier is the port of the one who asks.
#[inline(always)]
fn echo_ports(header: &[u8; 8], icmp_type: u8) -> (u16, u16) {
    let identifier = u16::from_be_bytes([header[4], header[5]]);
    if icmp_type == icmp::ECHO_REQUEST { (identifier, 0) } else { (0, identifier) }
}
