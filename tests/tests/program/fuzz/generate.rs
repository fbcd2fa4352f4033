//! Packets: well-formed ones first, some of which are then damaged.

use std::net::Ipv4Addr;

use dataplane::wanted::Destination;
use dataplane_common::stats::Hook;
use ipnet::Ipv4Net;
use tests::harness::packet::internet_checksum;

use super::random::Random;
use crate::{
    model::{Model, Route},
    network::Network,
    programs::{Interface, LONGEST_FRAME, Packet},
};

/// Makes packets that meet the routes of a node.
pub(super) struct Generator {
    random: Random,
    veths: Vec<Interface>,
    uplinks: Vec<Interface>,
    prefixes: Vec<Ipv4Net>,
    /// Addresses of endpoints, with their interfaces.
    endpoints: Vec<(Ipv4Addr, u32)>,
}

impl Generator {
    pub(super) fn new(network: &Network, random: Random) -> Self {
        let (uplinks, veths) = network
            .interfaces()
            .into_iter()
            .partition(|interface| [network.eth0, network.eth1].contains(interface));
        Self { random, veths, uplinks, prefixes: Vec::new(), endpoints: Vec::new() }
    }

    /// From now on, packets meet the routes as they are now.
    pub(super) fn follow(&mut self, model: &Model) {
        self.prefixes = model.routes().iter().map(|(prefix, _)| *prefix).collect();
        let endpoint = |(prefix, route): &(Ipv4Net, Route)| match route {
            Route::To(Destination::Endpoint(endpoint)) => Some((prefix.addr(), endpoint.ifindex)),
            _ => None,
        };
        self.endpoints = model.routes().iter().filter_map(endpoint).collect();
    }

    /// The next packet that the kernel lets a program run on.
    pub(super) fn packet(&mut self) -> Packet {
        loop {
            let packet = self.any_packet();
            if packet.can_be_run() {
                return packet;
            }
        }
    }

    fn any_packet(&mut self) -> Packet {
        let hook = self.random.pick(Hook::TC);
        let is_usual = self.random.percent(95);
        let interface = match (hook == Hook::FromContainer) == is_usual {
            true => self.veth(),
            false => self.random.pick(&self.uplinks),
        };

        let mut frame = match self.random.within(0..100) {
            0..2 => {
                let length = self.random.within(14..200);
                self.random.bytes(length)
            }
            2..8 => self.other(interface),
            8..22 => self.arp(interface),
            _ => self.ipv4(hook, interface),
        };
        if self.random.percent(8) {
            let length = self.random.pick(&[60, 60, 60, 60, 60, 60, 3000]);
            let length = self.random.within(1..length);
            frame.extend(self.random.bytes(length));
        }
        if self.random.percent(35) {
            self.damage(&mut frame);
        }
        if self.random.percent(4) {
            self.tag(&mut frame);
        }
        let gso_size = if self.random.percent(15) { self.gso_size() } else { 0 };
        frame.truncate(LONGEST_FRAME);
        Packet { hook, ifindex: interface.ifindex, frame, gso_size }
    }

    /// Puts a tag in front of the frame, mostly a priority tag; sometimes several.
    fn tag(&mut self, frame: &mut Vec<u8>) {
        for _ in 0..self.random.pick(&[1, 1, 1, 2, 3]) {
            let [high, low] = self.random.pick(&[0u16, 0, 0, 0xa000, 0x1000, 5]).to_be_bytes();
            let kind = self.random.pick(&[0x81, 0x81, 0x88]);
            let ethertype = if kind == 0x81 { [0x81, 0x00] } else { [0x88, 0xa8] };
            frame.splice(12..12, ethertype.into_iter().chain([high, low]));
        }
    }

    /// Mostly one that an endpoint is behind.
    fn veth(&mut self) -> Interface {
        let veth = self.random.pick(&self.veths);
        let is_vacant = self.endpoints.iter().all(|(_, ifindex)| *ifindex != veth.ifindex);
        if is_vacant && self.random.percent(95) { self.random.pick(&self.veths) } else { veth }
    }

    fn ethernet(&mut self, interface: Interface, ether_type: u16) -> Vec<u8> {
        let destination = match self.random.within(0..40) {
            0 => [0xff; 6],
            1 => [1, 0, 0x5e, 0, 0, 1],
            2 => self.random.mac(),
            _ => interface.mac.octets(),
        };
        [&destination[..], &self.random.mac(), &ether_type.to_be_bytes()].concat()
    }

    fn other(&mut self, interface: Interface) -> Vec<u8> {
        let number = self.random.next() as u16;
        let ether_type = self.random.pick(&[0x86dd, 0x8100, 0x88a8, 0x88cc, 0x0800, 0x0806, number]);
        let mut frame = self.ethernet(interface, ether_type);
        let length = self.random.within(0..100);
        frame.extend(self.random.bytes(length));
        frame
    }

    fn arp(&mut self, interface: Interface) -> Vec<u8> {
        let mut frame = self.ethernet(interface, 0x0806);
        let operation = self.random.pick(&[1, 1, 1, 1, 1, 2, 3, 0]);
        let (sender, target) = (self.source(Hook::FromContainer, interface), self.address());
        let target = if self.random.percent(5) { sender } else { target };
        frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
        frame.extend(self.random.mac());
        frame.extend(sender.octets());
        frame.extend(self.random.mac());
        frame.extend(target.octets());
        frame
    }

    fn ipv4(&mut self, hook: Hook, interface: Interface) -> Vec<u8> {
        let options = if self.random.percent(4) { self.random.within(1..11) * 4 } else { 0 };
        let protocol = self.random.pick(&[6, 6, 6, 17, 17, 17, 1, 132, 47]);
        let mut payload = self.payload();
        if protocol == 6 && payload.len() > 12 {
            payload[12] = self.random.pick(&[5, 5, 8, 8, 15, 0, 4]) << 4;
        }
        let total = match self.random.within(0..50) {
            0 => 0,
            1 => self.random.within(0..65536),
            _ => 20 + options + payload.len(),
        };
        let fragment: u16 = match self.random.within(0..10) {
            0 => 0x2000,
            1 => 0x2000 | self.random.within(1..0x2000) as u16,
            2 => self.random.within(1..0x2000) as u16,
            3 | 4 => 0,
            _ => 0x4000,
        };
        let any = self.random.byte();
        let ttl = self.random.pick(&[64, 64, 64, 64, 128, 255, 2, 1, 0, any]);
        let mut frame = self.ethernet(interface, 0x0800);
        frame.extend([0x45 + (options / 4) as u8, self.random.byte()]);
        frame.extend((total as u16).to_be_bytes());
        frame.extend(self.random.bytes(2));
        frame.extend(fragment.to_be_bytes());
        frame.extend([ttl, protocol, 0, 0]);
        frame.extend(self.source(hook, interface).octets());
        frame.extend(self.address().octets());
        let options = self.options(options);
        frame.extend(options);
        set_checksum(&mut frame);
        frame.extend(payload);
        frame
    }

    /// Mostly well-formed.
    fn options(&mut self, length: usize) -> Vec<u8> {
        let mut options = Vec::new();
        while options.len() < length {
            match self.random.within(0..8) {
                0 => options.push(0),
                1..4 => options.push(1),
                kind => {
                    let bytes = self.random.within(2..9);
                    let kind = [7, 68, 148, 131][kind - 4];
                    options.extend([kind, bytes as u8]);
                    options.extend(self.random.bytes(bytes - 2));
                }
            }
        }
        options.truncate(length);
        if self.random.percent(30) { self.random.bytes(length) } else { options }
    }

    /// Mostly small, often about as large as a link takes, sometimes an aggregate.
    fn payload(&mut self) -> Vec<u8> {
        let length = match self.random.within(0..20) {
            0..13 => self.random.within(0..80),
            13..17 => {
                self.random.pick(&[576, 1280, 1400, 1500]) - 20 - self.random.within(0..3)
                    + self.random.within(0..3)
            }
            17 => self.random.within(0..1600),
            _ => self.random.within(1600..LONGEST_FRAME - 40),
        };
        self.random.bytes(length)
    }

    fn gso_size(&mut self) -> u16 {
        let headers = self.random.pick(&[28, 40, 52, 80]);
        let mtu = self.random.pick(&[576, 1280, 1400, 1500]);
        let near = mtu - headers + self.random.within(0..3) as u16 - 1;
        let any = self.random.next() as u16;
        self.random.pick(&[near, near, near, near, 1, 100, u16::MAX, any])
    }

    /// Mostly an address that a container may send from by that interface.
    fn source(&mut self, hook: Hook, interface: Interface) -> Ipv4Addr {
        if hook == Hook::FromContainer && self.random.percent(95) {
            let own: Vec<Ipv4Addr> = (self.endpoints.iter())
                .filter(|(_, ifindex)| *ifindex == interface.ifindex)
                .map(|(address, _)| *address)
                .collect();
            if !own.is_empty() {
                return self.random.pick(&own);
            }
        }
        if hook == Hook::FromUplink && self.random.percent(70) {
            return Ipv4Addr::from_bits(self.random.word());
        }
        self.address()
    }

    /// An address in, at the edge of, or just beyond some prefix; often an endpoint's.
    fn address(&mut self) -> Ipv4Addr {
        if !self.endpoints.is_empty() && self.random.percent(35) {
            return self.random.pick(&self.endpoints).0;
        }
        let prefix = self.random.pick(&self.prefixes);
        let (first, last) = (prefix.network().to_bits(), prefix.broadcast().to_bits());
        let any = self.random.word();
        let inside = first | (any & prefix.hostmask().to_bits());
        let (before, beyond) = (first.wrapping_sub(1), last.wrapping_add(1));
        self.random.pick(&[inside, inside, inside, first, last, before, beyond, any]).into()
    }

    /// Changes some bytes.
    pub(super) fn damage(&mut self, frame: &mut Vec<u8>) {
        for _ in 0..self.random.within(1..4) {
            // Headers are where it matters.
            let end = if self.random.percent(90) { frame.len().min(60) } else { frame.len() };
            let at = self.random.within(0..end);
            match self.random.within(0..8) {
                0 | 1 => frame[at] ^= 1 << self.random.within(0..8),
                2 => frame[at] = self.random.byte(),
                3 => frame[at] = self.random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
                4 => {
                    let value: u16 = self.random.pick(&[0, 1, 0x00ff, 0x7fff, 0x8000, 0xffff]);
                    let at = at & !1;
                    let end = frame.len().min(at + 2);
                    frame[at..end].copy_from_slice(&value.to_be_bytes()[..end - at]);
                }
                5 => frame.truncate(at.max(14)),
                6 => {
                    let from = self.random.within(0..frame.len());
                    frame.swap(at, from);
                }
                _ => {
                    let byte = self.random.byte();
                    frame.insert(at, byte);
                }
            }
        }
        // Else most damage would be seen by the checksum alone.
        if self.random.percent(60) {
            set_checksum(frame);
        }
    }
}

/// Makes the checksum of an IPv4 header right, of the length that it says it has.
pub(super) fn set_checksum(frame: &mut [u8]) {
    let Some(words) = frame.get(14).map(|byte| usize::from(byte & 15)) else { return };
    let end = 14 + words.max(5) * 4;
    if end <= frame.len() {
        frame[24..26].fill(0);
        let checksum = internet_checksum(&frame[14..end]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
}
