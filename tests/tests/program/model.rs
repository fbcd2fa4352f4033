//! The packet walk once more, in the plainest Rust: what the programs must come to.
//!
//! It follows the walk that ARCHITECTURE.md tells, and shares no code with the programs: routes are searched
//! one by one, checksums are computed from the whole header, packets are slices.

#[path = "model/tags.rs"]
mod tags;

use std::{collections::HashMap, net::Ipv4Addr};

use dataplane::wanted::Destination;
use dataplane_common::{
    endpoint::Endpoint,
    next_hop::NextHop,
    reason::{Class, Reason},
    stats::Hook,
};
use ipnet::Ipv4Net;
use tests::harness::packet::internet_checksum;

use self::tags::without_priority_tags;
use crate::programs::{Interface, Packet, action};

/// What is to become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The counter that counts it.
    pub(crate) reason: Reason,
    /// What the program returns.
    pub(crate) action: i32,
    /// The frame afterwards.
    pub(crate) bytes: Vec<u8>,
    /// Where it leads, if BPF carries it.
    pub(crate) to: Option<To>,
}

/// Where BPF carries a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// Into the container behind a veth.
    Container { ifindex: u32 },
    /// To a router by an uplink; without one, to the destination on its link.
    Router { ifindex: u32, gateway: Option<Ipv4Addr> },
    /// Back to where it came from.
    Back,
}

/// What the table has for a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// What it should have.
    To(Destination),
    /// An endpoint that is not there.
    MissingEndpoint,
    /// A next hop that is not there.
    MissingNextHop,
    /// A part of the table that is not there.
    MissingChunk,
    /// A word that has no meaning.
    Unknown,
}

/// A packet that is not carried ends with a reason.
type Walk = Result<(Vec<u8>, To), Reason>;

/// The node as the walk sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    routes: Vec<(Ipv4Net, Route)>,
    macs: HashMap<u32, [u8; 6]>,
}

/// The parts of an IPv4 header that matter.
struct Header {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: u8,
    protocol: u8,
    words: u8,
    length: usize,
}

impl Model {
    pub(crate) fn add_interface(&mut self, interface: Interface) {
        self.macs.insert(interface.ifindex, interface.mac.octets());
    }

    /// Routes a prefix.
    pub(crate) fn set(&mut self, prefix: Ipv4Net, route: Option<Route>) {
        self.routes.retain(|(present, _)| *present != prefix);
        self.routes.extend(route.map(|route| (prefix, route)));
    }

    /// The routes, in no order.
    pub(crate) fn routes(&self) -> &[(Ipv4Net, Route)] {
        &self.routes
    }

    /// What the table has for the address.
    pub(crate) fn lookup(&self, address: Ipv4Addr) -> Option<Route> {
        let matching = self.routes.iter().filter(|(prefix, _)| prefix.contains(&address));
        matching.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, route)| *route)
    }

    /// What is to become of the packet.
    pub(crate) fn verdict(&self, packet: &Packet) -> Verdict {
        let is_another_s = packet.hook == Hook::FromUplink
            && packet.frame.first().is_some_and(|byte| byte & 1 == 0)
            && !self.is_for_this_host(packet);
        if is_another_s {
            return ends(Reason::OtherHost, packet.frame.clone());
        }
        let untagged = match without_priority_tags(packet) {
            Ok(untagged) => untagged,
            // Of a VLAN, only what a container sends is looked at.
            Err((bytes, Reason::Vlan)) if packet.hook == Hook::FromContainer && bytes[12..14] == [8, 0] => {
                let frame = Packet { frame: bytes.clone(), ..packet.clone() };
                return ends(header(&frame).err().unwrap_or(Reason::Vlan), bytes);
            }
            Err((bytes, reason)) => return ends(reason, bytes),
        };
        let packet = &untagged;
        match self.walk(packet) {
            Ok((bytes, to)) => {
                let reason = match to {
                    To::Container { .. } => Reason::Delivered,
                    To::Router { .. } => Reason::Forwarded,
                    To::Back => Reason::ArpAnswered,
                };
                Verdict { reason, action: action::REDIRECT, bytes, to: Some(to) }
            }
            Err(reason) => ends(reason, packet.frame.clone()),
        }
    }

    fn walk(&self, packet: &Packet) -> Walk {
        let frame = &packet.frame[..];
        match (number(&frame[12..14]), packet.hook) {
            (0x0800, Hook::FromContainer) => self.walk_from_container(packet),
            (0x0800, Hook::FromUplink) => self.walk_from_uplink(packet),
            (0x0806, Hook::FromContainer) => self.arp(packet),
            (0x0806, Hook::FromUplink) => Err(Reason::Arp),
            (0x86dd, _) => Err(Reason::Ipv6),
            (0x8100 | 0x88a8, _) => Err(Reason::Vlan),
            _ => Err(Reason::OtherProtocol),
        }
    }

    fn walk_from_container(&self, packet: &Packet) -> Walk {
        let header = header(packet)?;
        self.owner(header.source, packet.ifindex)?;
        // Of an aggregate without a length in its header, the header may be longer than all there is.
        let options = (34..14 + usize::from(header.words) * 4).map(|at| packet.frame.get(at).copied());
        check_options(&options.collect::<Vec<_>>())?;
        match self.lookup(header.destination) {
            Some(Route::To(Destination::Endpoint(endpoint))) => self.deliver(packet, &header, &endpoint),
            Some(Route::To(Destination::NextHop(next_hop))) => self.forward(packet, &header, &next_hop),
            Some(Route::To(Destination::Block)) => Err(Reason::NoEndpoint),
            Some(Route::To(Destination::Kernel(reason))) => Err(reason),
            Some(_) => Err(Reason::TableFault),
            None => Err(Reason::NoRoute),
        }
    }

    fn walk_from_uplink(&self, packet: &Packet) -> Walk {
        let header = header(packet)?;
        if !self.is_for_this_host(packet) {
            return Err(match self.lookup(header.destination) {
                Some(Route::To(Destination::Kernel(
                    reason @ (Reason::ToHost | Reason::Multicast | Reason::Broadcast),
                ))) => reason,
                _ => Reason::OtherHost,
            });
        }
        let reserved = header.source.is_loopback()
            || header.source.is_multicast()
            || header.source.is_broadcast()
            || header.source.octets()[0] == 0;
        match self.lookup(header.destination) {
            Some(Route::To(Destination::Endpoint(_)) | Route::MissingEndpoint)
                if reserved || self.is_of_this_node(header.source) =>
            {
                Err(Reason::MartianSource)
            }
            Some(Route::To(Destination::Endpoint(endpoint))) => {
                if endpoint.flags & Endpoint::KERNEL_EGRESS != 0 {
                    self.way_back(header.source)?;
                }
                self.deliver(packet, &header, &endpoint)
            }
            Some(Route::To(Destination::Block)) => Err(Reason::NoEndpoint),
            Some(Route::To(Destination::Kernel(
                reason @ (Reason::ToHost | Reason::Multicast | Reason::Broadcast),
            ))) => Err(reason),
            Some(Route::To(Destination::Kernel(_) | Destination::NextHop(_))) => Err(Reason::NotLocal),
            Some(_) => Err(Reason::TableFault),
            None => Err(Reason::NotLocal),
        }
    }

    fn is_for_this_host(&self, packet: &Packet) -> bool {
        self.macs.get(&packet.ifindex).is_some_and(|own| packet.frame.starts_with(own))
    }

    /// Whether the address is the node's, one of its containers', or a broadcast address.
    fn is_of_this_node(&self, address: Ipv4Addr) -> bool {
        matches!(
            self.lookup(address),
            Some(
                Route::MissingEndpoint
                    | Route::To(
                        Destination::Endpoint(_) | Destination::Kernel(Reason::ToHost | Reason::Broadcast)
                    )
            )
        )
    }

    /// Whether answers to that address have a route of BPF's, be it a broken one.
    fn way_back(&self, source: Ipv4Addr) -> Result<(), Reason> {
        match self.lookup(source) {
            Some(Route::To(Destination::Kernel(_)) | Route::Unknown | Route::MissingChunk) | None => {
                Err(Reason::KernelRoute)
            }
            Some(_) => Ok(()),
        }
    }

    /// The endpoint that has the address, behind that interface and no other.
    fn owner(&self, address: Ipv4Addr, ifindex: u32) -> Result<Endpoint, Reason> {
        match self.lookup(address) {
            Some(Route::To(Destination::Endpoint(endpoint))) if endpoint.ifindex == ifindex => Ok(endpoint),
            _ => Err(Reason::SpoofedSource),
        }
    }

    fn arp(&self, packet: &Packet) -> Walk {
        let Packet { frame, ifindex, .. } = packet;
        if frame.len() < 14 + 28 {
            return Err(Reason::Malformed);
        }
        let (kind, operation) = (&frame[14..20], number(&frame[20..22]));
        let (sender_mac, sender) = (&frame[22..28], &frame[28..32]);
        let target = &frame[38..42];
        let is_question =
            kind == [0, 1, 8, 0, 6, 4] && operation == 1 && sender != [0; 4] && sender != target;
        if !is_question {
            return Err(Reason::Arp);
        }
        let owner = self.owner(address(sender), *ifindex)?;
        let own_mac = owner.macs.source().octets();
        let answer = [
            sender_mac,
            &own_mac,
            &[8, 6],
            kind,
            &[0, 2],
            &own_mac,
            target,
            sender_mac,
            sender,
            &frame[42..],
        ];
        Ok((answer.concat(), To::Back))
    }

    fn deliver(&self, packet: &Packet, header: &Header, endpoint: &Endpoint) -> Walk {
        let mut bytes = self.one_hop_on(packet, header, endpoint.mtu)?;
        bytes[..12].copy_from_slice(bytemuck::bytes_of(&endpoint.macs));
        Ok((bytes, To::Container { ifindex: endpoint.ifindex }))
    }

    fn forward(&self, packet: &Packet, header: &Header, next_hop: &NextHop) -> Walk {
        let bytes = self.one_hop_on(packet, header, next_hop.mtu)?;
        let gateway = Some(Ipv4Addr::from(next_hop.gateway)).filter(|gateway| !gateway.is_unspecified());
        Ok((bytes, To::Router { ifindex: next_hop.ifindex, gateway }))
    }

    /// The packet after a hop, onto a link of that MTU: one less to live, and the checksum of that header; without what
    /// follows it in the frame where the link does not take that.
    fn one_hop_on(&self, packet: &Packet, header: &Header, mtu: u32) -> Result<Vec<u8>, Reason> {
        self.may_forward(packet, header, mtu)?;
        let mut bytes = packet.frame.clone();
        if bytes.len() - 14 > mtu as usize && packet.gso_size == 0 {
            bytes.truncate(14 + header.length);
        }
        bytes[22] -= 1;
        bytes[24..26].fill(0);
        let checksum = internet_checksum(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
        Ok(bytes)
    }

    fn may_forward(&self, packet: &Packet, header: &Header, mtu: u32) -> Result<(), Reason> {
        let frame = &packet.frame;
        if !self.is_for_this_host(packet) {
            return Err(Reason::OtherHost);
        }
        if header.words != 5 {
            return Err(Reason::IpOptions);
        }
        if internet_checksum(&frame[14..34]) != 0 {
            return Err(Reason::BadChecksum);
        }
        if header.ttl < 2 {
            return Err(Reason::TtlExpired);
        }
        if largest(packet, header, mtu as usize) > mtu as usize {
            return Err(Reason::TooBig);
        }
        Ok(())
    }
}

/// What is not carried.
fn ends(reason: Reason, bytes: Vec<u8>) -> Verdict {
    let action = if reason.class() == Class::Drop { action::DROP } else { action::PASS };
    Verdict { reason, action, bytes, to: None }
}

/// What a container's options must not be; of bytes that the packet does not have, none.
fn check_options(options: &[Option<u8>]) -> Result<(), Reason> {
    match options {
        [] | [Some(0), ..] => Ok(()),
        [Some(1), rest @ ..] => check_options(rest),
        [Some(131 | 137), ..] => Err(Reason::SourceRoute),
        [Some(_), Some(length), ..] if *length >= 2 && usize::from(*length) <= options.len() => {
            check_options(&options[usize::from(*length)..])
        }
        _ => Err(Reason::Malformed),
    }
}

/// Reads and checks the header of an IPv4 packet.
fn header(packet: &Packet) -> Result<Header, Reason> {
    let ip = &packet.frame[14..];
    if ip.len() < 20 {
        return Err(Reason::Malformed);
    }
    let (version, words) = (ip[0] >> 4, ip[0] & 15);
    let total = usize::from(number(&ip[2..4]));
    // Zero is the length of an aggregate of more than 65,535 bytes.
    let fits = total == 0 && packet.gso_size > 0 || (usize::from(words) * 4..=ip.len()).contains(&total);
    if version != 4 || words < 5 || !fits {
        return Err(Reason::Malformed);
    }
    Ok(Header {
        source: address(&ip[12..16]),
        destination: address(&ip[16..20]),
        ttl: ip[8],
        protocol: ip[9],
        words,
        length: total,
    })
}

/// Bytes of the largest IP packet that goes onto a link: what follows it in the frame does not count. Of an aggregate
/// that does not fit as a whole it is a segment, where the headers tell its size.
fn largest(packet: &Packet, header: &Header, mtu: usize) -> usize {
    let whole = packet.frame.len() - 14;
    let transport = match header.protocol {
        6 => packet.frame.get(46).map(|byte| usize::from(byte >> 4) * 4),
        17 => Some(8),
        _ => None,
    };
    match transport {
        Some(transport) if packet.gso_size > 0 && whole > mtu => {
            20 + transport + usize::from(packet.gso_size)
        }
        _ if packet.gso_size == 0 => header.length,
        _ => whole,
    }
}

fn number(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn address(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
}
