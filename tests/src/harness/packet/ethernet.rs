//! Ethernet frames, and ARP.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use super::{Ipv4, array, read_u16};

/// EtherTypes (the IEEE's registry; IANA repeats it).
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// A VLAN tag of IEEE 802.1Q.
    pub const VLAN: u16 = 0x8100;
    /// The outer one of two VLAN tags, of IEEE 802.1ad.
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// An Ethernet frame, without preamble and frame check sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Source MAC.
    pub source: [u8; 6],
    /// Destination MAC.
    pub destination: [u8; 6],
    /// VLAN tags, the outermost first.
    pub vlans: Vec<Vlan>,
    /// What it carries.
    pub payload: Payload,
    /// Bytes after an IPv4 or ARP packet: padding, in general.
    pub trailer: Vec<u8>,
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// [`ethertype::VLAN`] or [`ethertype::SERVICE_VLAN`].
    pub ethertype: u16,
    /// Priority (3 bits), drop eligibility (1), identifier (12).
    pub control: u16,
}

/// What a frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// An IPv4 packet.
    Ipv4(Ipv4),
    /// An ARP packet.
    Arp(Arp),
    /// Anything else: its EtherType, and the bytes.
    Other(u16, Vec<u8>),
}

impl Frame {
    /// A frame without VLAN tags and padding.
    pub fn new(source: [u8; 6], destination: [u8; 6], payload: impl Into<Payload>) -> Self {
        let (vlans, trailer) = (Vec::new(), Vec::new());
        Self { source, destination, vlans, payload: payload.into(), trailer }
    }

    /// The same with one more outer 802.1Q tag with that identifier.
    #[must_use]
    pub fn tagged(mut self, identifier: u16) -> Self {
        self.vlans.insert(0, Vlan { ethertype: ethertype::VLAN, control: identifier });
        self
    }

    /// The frame as it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.destination, self.source].concat();
        for vlan in &self.vlans {
            bytes.extend(vlan.ethertype.to_be_bytes());
            bytes.extend(vlan.control.to_be_bytes());
        }
        let (ethertype, payload) = match &self.payload {
            Payload::Ipv4(packet) => (ethertype::IPV4, packet.bytes()),
            Payload::Arp(packet) => (ethertype::ARP, packet.bytes()),
            Payload::Other(ethertype, bytes) => (*ethertype, bytes.clone()),
        };
        bytes.extend(ethertype.to_be_bytes());
        bytes.extend(payload);
        bytes.extend(&self.trailer);
        bytes
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// If a header is cut short.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (destination, source) = (array(bytes, 0)?, array(bytes, 6)?);
        let mut vlans = Vec::new();
        let mut offset = 12;
        let ethertype = loop {
            let ethertype = read_u16(bytes, offset)?;
            offset += 2;
            if !matches!(ethertype, ethertype::VLAN | ethertype::SERVICE_VLAN) {
                break ethertype;
            }
            vlans.push(Vlan { ethertype, control: read_u16(bytes, offset)? });
            offset += 2;
        };
        let rest = &bytes[offset..];
        let (payload, length) = match ethertype {
            ethertype::IPV4 => {
                let (packet, length) = Ipv4::parse_prefix(rest)?;
                (Payload::Ipv4(packet), length)
            }
            ethertype::ARP => (Payload::Arp(Arp::parse(rest)?), Arp::LENGTH),
            other => (Payload::Other(other, rest.to_vec()), rest.len()),
        };
        Ok(Self { source, destination, vlans, payload, trailer: rest[length..].to_vec() })
    }

    /// The IPv4 packet, if it carries one.
    pub fn ipv4(&self) -> Option<&Ipv4> {
        match &self.payload {
            Payload::Ipv4(packet) => Some(packet),
            _ => None,
        }
    }

    /// The ARP packet, if it carries one.
    pub fn arp(&self) -> Option<&Arp> {
        match &self.payload {
            Payload::Arp(packet) => Some(packet),
            _ => None,
        }
    }
}

impl From<Ipv4> for Payload {
    fn from(packet: Ipv4) -> Self {
        Self::Ipv4(packet)
    }
}

impl From<Arp> for Payload {
    fn from(packet: Arp) -> Self {
        Self::Arp(packet)
    }
}

/// An ARP packet for IPv4 over Ethernet (RFC 826).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// 1 for a request, 2 for a reply.
    pub operation: u16,
    /// Who speaks: MAC.
    pub sender_mac: [u8; 6],
    /// Who speaks: address.
    pub sender: Ipv4Addr,
    /// Who is asked for, or told: MAC.
    pub target_mac: [u8; 6],
    /// Who is asked for, or told: address.
    pub target: Ipv4Addr,
}

impl Arp {
    const LENGTH: usize = 28;
    /// Ethernet, IPv4, and the lengths of their addresses.
    const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

    /// Who has `target`? Tell `sender`.
    pub fn request(sender_mac: [u8; 6], sender: impl Into<Ipv4Addr>, target: impl Into<Ipv4Addr>) -> Self {
        let (sender, target) = (sender.into(), target.into());
        Self { operation: 1, sender_mac, sender, target_mac: [0; 6], target }
    }

    /// The reply to a request, from the holder of that MAC.
    pub fn reply(&self, mac: [u8; 6]) -> Self {
        Self {
            operation: 2,
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        }
    }

    /// The packet as it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let (sender, target) = (self.sender.octets(), self.target.octets());
        let operation = self.operation.to_be_bytes();
        [&Self::KIND[..], &operation, &self.sender_mac, &sender, &self.target_mac, &target].concat()
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let kind: [u8; 6] = array(bytes, 0)?;
        ensure!(kind == Self::KIND, "an ARP packet, but not for IPv4 over Ethernet: {kind:?}");
        Ok(Self {
            operation: read_u16(bytes, 6)?,
            sender_mac: array(bytes, 8)?,
            sender: array::<4>(bytes, 14)?.into(),
            target_mac: array(bytes, 18)?,
            target: array::<4>(bytes, 24)?.into(),
        })
    }
}
