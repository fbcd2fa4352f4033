//! UDP datagrams and TCP segments.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use super::{array, checksum::with_pseudo_header, protocol, read_u16, read_u32, unless_right};

/// TCP flags (RFC 9293 3.1).
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

const UDP_HEADER: usize = 8;
const TCP_BARE_HEADER: usize = 20;

/// A UDP datagram (RFC 768).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// The length field; `None` if it agrees with the payload.
    pub length: Option<u16>,
    /// The checksum; `None` if right. `Some(0)` is a datagram without one.
    pub checksum: Option<u16>,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Udp {
    /// A datagram.
    pub fn new(source_port: u16, destination_port: u16, payload: impl AsRef<[u8]>) -> Self {
        let payload = payload.as_ref().to_vec();
        Self { source_port, destination_port, length: None, checksum: None, payload }
    }

    pub(super) fn bytes(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let length = self.length.unwrap_or((UDP_HEADER + self.payload.len()) as u16);
        let header = [self.source_port, self.destination_port, length, 0];
        let mut bytes = [&header.map(u16::to_be_bytes).concat()[..], &self.payload].concat();
        let checksum = self.checksum.unwrap_or_else(|| Self::right_checksum(source, destination, &bytes));
        bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    pub(super) fn parse(source: Ipv4Addr, destination: Ipv4Addr, bytes: &[u8]) -> Result<Self> {
        let found = read_u16(bytes, 6)?;
        let zeroed = [&bytes[..6], &[0, 0], &bytes[UDP_HEADER..]].concat();
        let right = Self::right_checksum(source, destination, &zeroed);
        Ok(Self {
            source_port: read_u16(bytes, 0)?,
            destination_port: read_u16(bytes, 2)?,
            length: unless_right(read_u16(bytes, 4)?, bytes.len() as u16),
            checksum: unless_right(found, right),
            payload: bytes[UDP_HEADER..].to_vec(),
        })
    }

    /// A sum of 0 is sent as its other form, since 0 in the field says that there is none.
    fn right_checksum(source: Ipv4Addr, destination: Ipv4Addr, zeroed: &[u8]) -> u16 {
        match with_pseudo_header(source, destination, protocol::UDP, zeroed) {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

/// A TCP segment (RFC 9293).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// The header's length in words of four bytes; `None` if it agrees with the options.
    pub header_words: Option<u8>,
    /// The flags, of [`flags`].
    pub flags: u8,
    /// The window, unscaled.
    pub window: u16,
    /// The checksum; `None` if right.
    pub checksum: Option<u16>,
    /// The urgent pointer.
    pub urgent: u16,
    /// Options, padded to a multiple of four bytes.
    pub options: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Tcp {
    /// A segment with those flags, and neither options nor payload.
    pub fn new(source_port: u16, destination_port: u16, flags: u8) -> Self {
        Self {
            source_port,
            destination_port,
            sequence: 1,
            acknowledgement: 0,
            header_words: None,
            flags,
            window: 0xffff,
            checksum: None,
            urgent: 0,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    pub(super) fn bytes(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let header = TCP_BARE_HEADER + self.options.len();
        assert!(header.is_multiple_of(4) && header <= 60, "{header} bytes are no possible TCP header");
        let words = self.header_words.unwrap_or((header / 4) as u8);
        let mut bytes = [self.source_port, self.destination_port].map(u16::to_be_bytes).concat();
        bytes.extend([self.sequence, self.acknowledgement].map(u32::to_be_bytes).concat());
        bytes.extend([words << 4, self.flags]);
        bytes.extend([self.window, 0, self.urgent].map(u16::to_be_bytes).concat());
        bytes.extend(&self.options);
        bytes.extend(&self.payload);
        let right = || with_pseudo_header(source, destination, protocol::TCP, &bytes);
        let checksum = self.checksum.unwrap_or_else(right);
        bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    pub(super) fn parse(source: Ipv4Addr, destination: Ipv4Addr, bytes: &[u8]) -> Result<Self> {
        let urgent = read_u16(bytes, 18)?;
        let [words, flags] = array(bytes, 12)?;
        let header = usize::from(words >> 4) * 4;
        ensure!((TCP_BARE_HEADER..=bytes.len()).contains(&header), "a TCP header of {header} bytes");
        let zeroed = [&bytes[..16], &[0, 0], &bytes[18..]].concat();
        let right = with_pseudo_header(source, destination, protocol::TCP, &zeroed);
        Ok(Self {
            source_port: read_u16(bytes, 0)?,
            destination_port: read_u16(bytes, 2)?,
            sequence: read_u32(bytes, 4)?,
            acknowledgement: read_u32(bytes, 8)?,
            header_words: None,
            flags,
            window: read_u16(bytes, 14)?,
            checksum: unless_right(read_u16(bytes, 16)?, right),
            urgent,
            options: bytes[TCP_BARE_HEADER..header].to_vec(),
            payload: bytes[header..].to_vec(),
        })
    }
}
