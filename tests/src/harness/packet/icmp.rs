//! ICMP messages.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{Ipv4, array, internet_checksum, read_u16, unless_right};

const HEADER: usize = 8;

/// An ICMP message (RFC 792).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// The type: 0 echo reply, 3 destination unreachable, 8 echo request, 11 time exceeded, 12 parameter problem.
    pub kind: u8,
    /// The code, which refines the type.
    pub code: u8,
    /// The checksum; `None` if right.
    pub checksum: Option<u16>,
    /// The second word of the header: what it means depends on the type.
    pub rest: [u8; 4],
    /// The data of an echo; the packet that an error is about.
    pub payload: Vec<u8>,
}

impl Icmp {
    /// An echo request.
    pub fn echo_request(identifier: u16, sequence: u16, data: impl AsRef<[u8]>) -> Self {
        Self::echo(8, identifier, sequence, data.as_ref())
    }

    /// An echo reply.
    pub fn echo_reply(identifier: u16, sequence: u16, data: impl AsRef<[u8]>) -> Self {
        Self::echo(0, identifier, sequence, data.as_ref())
    }

    fn echo(kind: u8, identifier: u16, sequence: u16, data: &[u8]) -> Self {
        let [a, b] = identifier.to_be_bytes();
        let [c, d] = sequence.to_be_bytes();
        Self { kind, code: 0, checksum: None, rest: [a, b, c, d], payload: data.to_vec() }
    }

    /// Destination unreachable with that code, about a packet (1 host, 3 port, 13 prohibited, ...).
    pub fn unreachable(code: u8, about: &[u8]) -> Self {
        Self::error(3, code, [0; 4], about)
    }

    /// Fragmentation needed, with the MTU of the next hop in bytes (RFC 1191, 4).
    pub fn frag_needed(mtu: u16, about: &[u8]) -> Self {
        let [a, b] = mtu.to_be_bytes();
        Self::error(3, 4, [0, 0, a, b], about)
    }

    /// Time exceeded in transit.
    pub fn time_exceeded(about: &[u8]) -> Self {
        Self::error(11, 0, [0; 4], about)
    }

    /// Parameter problem at that byte of the packet.
    pub fn parameter_problem(pointer: u8, about: &[u8]) -> Self {
        Self::error(12, 0, [pointer, 0, 0, 0], about)
    }

    /// An error about a packet, of which as much is included as is given: at the least it must be the
    /// header and eight bytes.
    pub fn error(kind: u8, code: u8, rest: [u8; 4], about: &[u8]) -> Self {
        Self { kind, code, checksum: None, rest, payload: about.to_vec() }
    }

    /// The identifier of an echo.
    pub fn identifier(&self) -> u16 {
        u16::from_be_bytes([self.rest[0], self.rest[1]])
    }

    /// The sequence number of an echo; the MTU of a frag-needed.
    pub fn sequence_or_mtu(&self) -> u16 {
        u16::from_be_bytes([self.rest[2], self.rest[3]])
    }

    /// The packet that an error is about; its `total_length` is `Some` if it is cut short.
    ///
    /// # Errors
    /// If not even its IPv4 header is there.
    pub fn about(&self) -> Result<Ipv4> {
        Ipv4::parse(&self.payload)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = [&[self.kind, self.code, 0, 0], &self.rest[..], &self.payload].concat();
        let checksum = self.checksum.unwrap_or_else(|| internet_checksum(&bytes));
        bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let rest = array(bytes, 4)?;
        let right = internet_checksum(&[&bytes[..2], &[0, 0], &bytes[4..]].concat());
        Ok(Self {
            kind: bytes[0],
            code: bytes[1],
            checksum: unless_right(read_u16(bytes, 2)?, right),
            rest,
            payload: bytes[HEADER..].to_vec(),
        })
    }

    /// The error as a packet from `router` to the sender of the packet `about`.
    pub fn to_sender_of(self, about: &Ipv4, router: impl Into<Ipv4Addr>) -> Ipv4 {
        Ipv4 { dont_fragment: false, tos: 0xc0, ..Ipv4::new(router, about.source, self) }
    }
}
