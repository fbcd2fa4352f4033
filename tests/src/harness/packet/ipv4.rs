//! IPv4 packets.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use super::{Icmp, Tcp, Udp, array, internet_checksum, read_u16, unless_right};

/// Protocol numbers (the IANA's registry).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
}

/// The header without options, in bytes.
const BARE_HEADER: usize = 20;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// An IPv4 packet (RFC 791).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// The version, 4.
    pub version: u8,
    /// The header's length in words of four bytes; `None` if it agrees with the options.
    pub header_words: Option<u8>,
    /// Type of service: DSCP (6 bits) and ECN (2).
    pub tos: u8,
    /// The length field; `None` if it agrees with header and payload.
    pub total_length: Option<u16>,
    /// Identification.
    pub id: u16,
    /// The DF flag.
    pub dont_fragment: bool,
    /// The MF flag.
    pub more_fragments: bool,
    /// Where the payload belongs, in units of eight bytes.
    pub fragment_offset: u16,
    /// Time to live.
    pub ttl: u8,
    /// The header checksum; `None` if right.
    pub checksum: Option<u16>,
    /// Options, padded to a multiple of four bytes.
    pub options: Vec<u8>,
    /// What it carries.
    pub payload: L4,
}

/// What an IPv4 packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum L4 {
    /// A TCP segment.
    Tcp(Tcp),
    /// A UDP datagram.
    Udp(Udp),
    /// An ICMP message.
    Icmp(Icmp),
    /// Bytes of that protocol: another one, a fragment, or one that is cut short.
    Raw(u8, Vec<u8>),
}

impl Ipv4 {
    /// A packet as a host sends it: TTL 64, DF, identification 0, no options.
    pub fn new(
        source: impl Into<Ipv4Addr>,
        destination: impl Into<Ipv4Addr>,
        payload: impl Into<L4>,
    ) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
            version: 4,
            header_words: None,
            tos: 0,
            total_length: None,
            id: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            checksum: None,
            options: Vec::new(),
            payload: payload.into(),
        }
    }

    /// The packet as it is sent.
    ///
    /// # Panics
    /// If the options are no whole words, or longer than the ten that fit: say lengths that lie in
    /// [`Self::header_words`].
    pub fn bytes(&self) -> Vec<u8> {
        let payload = self.payload.bytes(self.source, self.destination);
        let header = BARE_HEADER + self.options.len();
        assert!(header.is_multiple_of(4) && header <= 60, "{header} bytes are no possible header");
        let words = self.header_words.unwrap_or((header / 4) as u8);
        let total = self.total_length.unwrap_or((header + payload.len()) as u16);
        let dont_fragment = u16::from(self.dont_fragment) * DONT_FRAGMENT;
        let more_fragments = u16::from(self.more_fragments) * MORE_FRAGMENTS;
        let flags = dont_fragment | more_fragments | (self.fragment_offset & FRAGMENT_OFFSET);
        let mut bytes = vec![(self.version << 4) | (words & 0xf), self.tos];
        bytes.extend([total, self.id, flags].map(u16::to_be_bytes).concat());
        bytes.extend([self.ttl, self.payload.protocol(), 0, 0]);
        bytes.extend([self.source.octets(), self.destination.octets()].concat());
        bytes.extend(&self.options);
        let checksum = self.checksum.unwrap_or_else(|| internet_checksum(&bytes));
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// Reads a packet; bytes after its length are no part of it.
    ///
    /// # Errors
    /// If the header is cut short, or its lengths contradict each other.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::parse_prefix(bytes).map(|(packet, _)| packet)
    }

    /// Reads a packet at the beginning of the bytes, and says how many of them it is.
    pub(super) fn parse_prefix(bytes: &[u8]) -> Result<(Self, usize)> {
        let [first, tos] = array(bytes, 0)?;
        let header = usize::from(first & 0xf) * 4;
        ensure!(header >= BARE_HEADER, "a header of {header} bytes is none");
        ensure!(header <= bytes.len(), "a header of {header} bytes in {} bytes", bytes.len());
        let total = read_u16(bytes, 2)?;
        // A length that claims more than there is shows in the field; one that claims less hides a trailer.
        let end = usize::from(total).min(bytes.len());
        ensure!(end >= header, "a total length of {total} bytes with a header of {header}");
        let flags = read_u16(bytes, 6)?;
        let [ttl, number] = array(bytes, 8)?;
        let found = read_u16(bytes, 10)?;
        let right = internet_checksum(&[&bytes[..10], &[0, 0], &bytes[12..header]].concat());
        let (source, destination) =
            (Ipv4Addr::from(array::<4>(bytes, 12)?), Ipv4Addr::from(array::<4>(bytes, 16)?));
        let whole = end == usize::from(total) && flags & (MORE_FRAGMENTS | FRAGMENT_OFFSET) == 0;
        let content = &bytes[header..end];
        let payload = whole.then(|| L4::parse(source, destination, number, content)).flatten();
        let packet = Self {
            source,
            destination,
            version: first >> 4,
            header_words: None,
            tos,
            total_length: unless_right(total, end as u16),
            id: read_u16(bytes, 4)?,
            dont_fragment: flags & DONT_FRAGMENT != 0,
            more_fragments: flags & MORE_FRAGMENTS != 0,
            fragment_offset: flags & FRAGMENT_OFFSET,
            ttl,
            checksum: unless_right(found, right),
            options: bytes[BARE_HEADER..header].to_vec(),
            payload: payload.unwrap_or_else(|| L4::Raw(number, content.to_vec())),
        };
        Ok((packet, end))
    }
}

impl L4 {
    /// The protocol number.
    pub fn protocol(&self) -> u8 {
        match self {
            Self::Tcp(_) => protocol::TCP,
            Self::Udp(_) => protocol::UDP,
            Self::Icmp(_) => protocol::ICMP,
            Self::Raw(number, _) => *number,
        }
    }

    /// Source and destination port of TCP or UDP, also of one that is cut short or a first fragment.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self {
            Self::Tcp(tcp) => Some((tcp.source_port, tcp.destination_port)),
            Self::Udp(udp) => Some((udp.source_port, udp.destination_port)),
            Self::Raw(protocol::TCP | protocol::UDP, bytes) => {
                Some((read_u16(bytes, 0).ok()?, read_u16(bytes, 2).ok()?))
            }
            Self::Icmp(_) | Self::Raw(..) => None,
        }
    }

    /// The bytes, with checksums for a packet between those addresses.
    pub fn bytes(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        match self {
            Self::Tcp(tcp) => tcp.bytes(source, destination),
            Self::Udp(udp) => udp.bytes(source, destination),
            Self::Icmp(icmp) => icmp.bytes(),
            Self::Raw(_, bytes) => bytes.clone(),
        }
    }

    /// Reads a whole payload; none if it is too short for its protocol, or of one that is not known.
    fn parse(source: Ipv4Addr, destination: Ipv4Addr, number: u8, bytes: &[u8]) -> Option<Self> {
        match number {
            protocol::TCP => Tcp::parse(source, destination, bytes).ok().map(Self::Tcp),
            protocol::UDP => Udp::parse(source, destination, bytes).ok().map(Self::Udp),
            protocol::ICMP => Icmp::parse(bytes).ok().map(Self::Icmp),
            _ => None,
        }
    }
}

impl From<Tcp> for L4 {
    fn from(segment: Tcp) -> Self {
        Self::Tcp(segment)
    }
}

impl From<Udp> for L4 {
    fn from(datagram: Udp) -> Self {
        Self::Udp(datagram)
    }
}

impl From<Icmp> for L4 {
    fn from(message: Icmp) -> Self {
        Self::Icmp(message)
    }
}
