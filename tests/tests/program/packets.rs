//! Packets of these tests, as somebody sent them.

use std::net::Ipv4Addr;

use dataplane_common::stats::Hook;
use tests::harness::packet::{Arp, Frame, Ipv4, L4, Payload, Tcp, Udp, Vlan, flags};

use crate::{
    network::{Container, ROUTER_MAC},
    programs::{Interface, Packet},
};

/// A packet that came in.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) hook: Hook,
    pub(crate) interface: Interface,
    pub(crate) frame: Frame,
    /// The bytes, where they are not those of the frame.
    pub(crate) bytes: Option<Vec<u8>>,
    pub(crate) gso_size: u16,
    /// Priority tags in front of the frame, which are no part of it: it goes on without them.
    pub(crate) tags: Vec<Vlan>,
}

impl Container {
    /// A packet of the container, to its gateway's MAC.
    pub(crate) fn sends(&self, to: impl Into<Ipv4Addr>, payload: impl Into<L4>) -> Sent {
        from_container(self.veth, self.frame(Ipv4::new(self.address, to, payload)))
    }

    /// An ARP packet of the container, to everybody.
    pub(crate) fn asks(&self, packet: Arp) -> Sent {
        from_container(self.veth, Frame::new(self.mac, [0xff; 6], packet))
    }

    /// A frame of the container with anything in it, to its gateway's MAC.
    pub(crate) fn frame(&self, payload: impl Into<Payload>) -> Frame {
        Frame::new(self.mac, self.veth.mac.octets(), payload)
    }
}

/// A frame that came in by a veth.
pub(crate) fn from_container(veth: Interface, frame: Frame) -> Sent {
    Sent { hook: Hook::FromContainer, interface: veth, frame, bytes: None, gso_size: 0, tags: Vec::new() }
}

/// A frame that came in by an uplink, from a router.
pub(crate) fn from_uplink(uplink: Interface, payload: impl Into<Payload>) -> Sent {
    let frame = Frame::new(ROUTER_MAC, uplink.mac.octets(), payload);
    Sent { hook: Hook::FromUplink, interface: uplink, frame, bytes: None, gso_size: 0, tags: Vec::new() }
}

/// An IPv4 packet that came in by an uplink.
pub(crate) fn inbound(
    uplink: Interface,
    source: impl Into<Ipv4Addr>,
    destination: impl Into<Ipv4Addr>,
    payload: impl Into<L4>,
) -> Sent {
    from_uplink(uplink, Ipv4::new(source, destination, payload))
}

impl Sent {
    /// The same with another IPv4 header or payload.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Ipv4)) -> Self {
        match &mut self.frame.payload {
            Payload::Ipv4(packet) => change(packet),
            other => panic!("no IPv4 packet: {other:?}"),
        }
        self
    }

    /// The same to another MAC.
    pub(crate) fn addressed_to(mut self, mac: [u8; 6]) -> Self {
        self.frame.destination = mac;
        self
    }

    /// The same by another interface, to its MAC.
    pub(crate) fn by(mut self, interface: Interface) -> Self {
        self.frame.destination = interface.mac.octets();
        self.interface = interface;
        self
    }

    /// The same with bytes after the packet.
    pub(crate) fn padded(mut self, length: usize) -> Self {
        self.frame.trailer = vec![0x5a; length];
        self
    }

    /// The same, with other bytes than the frame's.
    pub(crate) fn altered(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = self.frame.bytes();
        change(&mut bytes);
        self.bytes = Some(bytes);
        self
    }

    /// The same as an aggregate, whose segments carry that many bytes each.
    pub(crate) fn in_segments_of(mut self, gso_size: u16) -> Self {
        self.gso_size = gso_size;
        self
    }

    /// The IPv4 packet.
    pub(crate) fn ipv4(&self) -> &Ipv4 {
        match &self.frame.payload {
            Payload::Ipv4(packet) => packet,
            other => panic!("no IPv4 packet: {other:?}"),
        }
    }

    /// The same with priority tags in front, the outermost first.
    pub(crate) fn behind(mut self, tags: &[Vlan]) -> Self {
        self.tags = tags.to_vec();
        self
    }

    /// The frame without priority tags.
    pub(crate) fn untagged(&self) -> Vec<u8> {
        self.bytes.clone().unwrap_or_else(|| self.frame.bytes())
    }

    /// The packet at its hook.
    pub(crate) fn packet(&self) -> Packet {
        let mut frame = self.untagged();
        let tag = |tag: &Vlan| [tag.ethertype.to_be_bytes(), tag.control.to_be_bytes()].concat();
        if !self.tags.is_empty() {
            frame.splice(12..12, self.tags.iter().flat_map(tag));
        }
        Packet { hook: self.hook, ifindex: self.interface.ifindex, frame, gso_size: self.gso_size }
    }
}

/// A datagram.
pub(crate) fn udp() -> Udp {
    Udp::new(40_000, 53, b"a query of some length")
}

/// A segment with that many bytes of payload, and a time stamp, as all have nowadays.
pub(crate) fn tcp(length: usize) -> Tcp {
    let options = vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    Tcp { options, payload: payload(length), ..Tcp::new(40_000, 443, flags::ACK) }
}

/// Bytes that differ from their neighbours, so that one that was moved shows.
pub(crate) fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}
