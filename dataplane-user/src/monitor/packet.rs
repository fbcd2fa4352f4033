//! What stands in the first bytes of a packet.

use std::{fmt::Write as _, net::IpAddr};

use etherparse::{
    ArpPacketSlice, EtherType, IpNumber, Ipv4HeaderSlice, LaxNetSlice, LaxSlicedPacket, TcpSlice,
    TransportSlice,
};
use serde::Serialize;

/// The five-tuple, as far as it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `arp`, `ip-NUMBER` or `ethertype-NUMBER`.
    pub protocol: String,
    /// Source address; the sender's of ARP.
    pub source: Option<IpAddr>,
    /// Source port of TCP and UDP.
    pub source_port: Option<u16>,
    /// Destination address; the one that ARP asks for.
    pub destination: Option<IpAddr>,
    /// Destination port of TCP and UDP.
    pub destination_port: Option<u16>,
    /// Flags of TCP, type of ICMP with the packet that an error quotes, operation of ARP, place of a fragment.
    pub detail: Option<String>,
}

impl Summary {
    /// Reads a frame from its Ethernet header on; what is cut off or wrong is left out.
    pub fn of(frame: &[u8]) -> Self {
        let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else {
            return Self { protocol: "unknown".to_owned(), ..Self::default() };
        };
        let ether_type = frame.get(12..14).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        Self::of_packet(&packet).unwrap_or_else(|| {
            let protocol = match EtherType(ether_type) {
                EtherType::IPV4 => "ipv4".to_owned(),
                EtherType::IPV6 => "ipv6".to_owned(),
                EtherType::ARP => "arp".to_owned(),
                _ => format!("ethertype-{ether_type:#06x}"),
            };
            Self { protocol, ..Self::default() }
        })
    }

    fn of_packet(packet: &LaxSlicedPacket<'_>) -> Option<Self> {
        let mut summary = match packet.net.as_ref()? {
            LaxNetSlice::Ipv4(ipv4) => Self {
                protocol: protocol(ipv4.payload_ip_number()),
                source: Some(ipv4.header().source_addr().into()),
                destination: Some(ipv4.header().destination_addr().into()),
                detail: fragment(ipv4.header()),
                ..Self::default()
            },
            LaxNetSlice::Ipv6(ipv6) => Self {
                protocol: protocol(ipv6.payload().ip_number),
                source: Some(ipv6.header().source_addr().into()),
                destination: Some(ipv6.header().destination_addr().into()),
                ..Self::default()
            },
            LaxNetSlice::Arp(arp) => return Some(Self::of_arp(arp)),
        };
        match packet.transport.as_ref() {
            Some(TransportSlice::Tcp(tcp)) => {
                (summary.source_port, summary.destination_port) =
                    (Some(tcp.source_port()), Some(tcp.destination_port()));
                summary.detail = summary.detail.or_else(|| flags(tcp));
            }
            Some(TransportSlice::Udp(udp)) => {
                (summary.source_port, summary.destination_port) =
                    (Some(udp.source_port()), Some(udp.destination_port()));
            }
            Some(TransportSlice::Icmpv4(icmp)) => {
                let quoted = matches!(icmp.type_u8(), 3 | 4 | 5 | 11 | 12).then(|| icmp.payload());
                summary.detail = Some(icmp_type(icmp.type_u8(), icmp.code_u8(), quoted));
            }
            Some(TransportSlice::Icmpv6(icmp)) => {
                summary.detail = Some(format!("type {} code {}", icmp.type_u8(), icmp.code_u8()));
            }
            None => {}
        }
        Some(summary)
    }

    fn of_arp(arp: &ArpPacketSlice<'_>) -> Self {
        let address = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
        Self {
            protocol: "arp".to_owned(),
            source: address(arp.sender_protocol_addr()),
            destination: address(arp.target_protocol_addr()),
            detail: Some(match arp.operation().0 {
                1 => "request".to_owned(),
                2 => "reply".to_owned(),
                other => format!("operation {other}"),
            }),
            ..Self::default()
        }
    }

    /// In one line: `udp 10.0.0.1:53 > 10.0.0.2:4000`.
    pub fn text(&self) -> String {
        let mut text = self.protocol.clone();
        let side = |address: Option<IpAddr>, port: Option<u16>| match (address, port) {
            (Some(IpAddr::V6(address)), Some(port)) => format!("[{address}]:{port}"),
            (Some(address), Some(port)) => format!("{address}:{port}"),
            (Some(address), None) => address.to_string(),
            (None, _) => "?".to_owned(),
        };
        if self.source.is_some() || self.destination.is_some() {
            let source = side(self.source, self.source_port);
            let destination = side(self.destination, self.destination_port);
            let _ = write!(text, " {source} > {destination}");
        }
        if let Some(detail) = &self.detail {
            let _ = write!(text, " ({detail})");
        }
        text
    }
}

fn protocol(number: IpNumber) -> String {
    match number {
        IpNumber::TCP => "tcp".to_owned(),
        IpNumber::UDP => "udp".to_owned(),
        IpNumber::ICMP => "icmp".to_owned(),
        IpNumber::IPV6_ICMP => "icmpv6".to_owned(),
        IpNumber(other) => format!("ip-{other}"),
    }
}

fn fragment(header: Ipv4HeaderSlice<'_>) -> Option<String> {
    let offset = header.fragments_offset().byte_offset();
    (header.more_fragments() || offset != 0).then(|| format!("fragment at {offset}"))
}

fn flags(tcp: &TcpSlice<'_>) -> Option<String> {
    let flags =
        [(tcp.syn(), "SYN"), (tcp.fin(), "FIN"), (tcp.rst(), "RST"), (tcp.psh(), "PSH"), (tcp.ack(), "ACK")];
    let set: Vec<&str> = flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect();
    (!set.is_empty()).then(|| set.join(" "))
}

/// The type of an ICMP message (RFC 792), and the packet that it is about.
fn icmp_type(kind: u8, code: u8, quoted: Option<&[u8]>) -> String {
    let mut text = match (kind, code) {
        (0, _) => "echo reply".to_owned(),
        (8, _) => "echo request".to_owned(),
        (3, 4) => "fragmentation needed".to_owned(),
        (3, code) => format!("unreachable, code {code}"),
        (11, _) => "time exceeded".to_owned(),
        (12, _) => "parameter problem".to_owned(),
        (kind, code) => format!("type {kind} code {code}"),
    };
    let quoted = quoted.and_then(|packet| LaxSlicedPacket::from_ip(packet).ok());
    if let Some(quoted) = quoted.as_ref().and_then(Summary::of_packet) {
        let _ = write!(text, ", about {}", quoted.text());
    }
    text
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn frame(builder: etherparse::PacketBuilderStep<etherparse::IpHeaders>, ports: (u16, u16)) -> Vec<u8> {
        let mut bytes = Vec::new();
        builder.udp(ports.0, ports.1).write(&mut bytes, &[0; 200]).unwrap();
        bytes
    }

    fn ethernet() -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
        PacketBuilder::ethernet2([2; 6], [4; 6])
    }

    #[test]
    fn a_five_tuple_is_read_from_the_first_bytes() {
        let udp = frame(ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64), (53, 4000));
        assert_eq!(Summary::of(&udp[..96]).text(), "udp 10.0.0.1:53 > 10.0.0.2:4000");
        let udp = frame(ethernet().ipv6([0x20; 16], [0x21; 16], 64), (53, 4000));
        let text = Summary::of(&udp[..96]).text();
        assert!(text.starts_with("udp [2020:") && text.ends_with(":2121]:4000"), "{text}");
        let mut tcp = Vec::new();
        let builder = ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(1, 80, 7, 100).syn().ack(8);
        builder.write(&mut tcp, &[]).unwrap();
        assert_eq!(Summary::of(&tcp).text(), "tcp 10.0.0.1:1 > 10.0.0.2:80 (SYN ACK)");
    }

    #[test]
    fn an_error_is_told_with_what_it_quotes() {
        let quoted = frame(ethernet().ipv4([10, 0, 0, 1], [192, 0, 2, 1], 1), (40_000, 33_434));
        let mut error = Vec::new();
        let builder = ethernet().ipv4([10, 0, 0, 9], [10, 0, 0, 1], 64).icmpv4_raw(11, 0, [0; 4]);
        builder.write(&mut error, &quoted[14..14 + 28]).unwrap();
        assert_eq!(
            Summary::of(&error).text(),
            "icmp 10.0.0.9 > 10.0.0.1 (time exceeded, about udp 10.0.0.1:40000 > 192.0.2.1:33434)"
        );
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_left_out() {
        let udp = frame(ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64), (53, 4000));
        assert_eq!(Summary::of(&udp[..34]).text(), "udp 10.0.0.1 > 10.0.0.2");
        assert_eq!(Summary::of(&udp[..20]).text(), "ipv4");
        assert_eq!(Summary::of(&udp[..5]).text(), "unknown");
        let mut lldp = [0; 60];
        lldp[12..14].copy_from_slice(&[0x88, 0xcc]);
        assert_eq!(Summary::of(&lldp).text(), "ethertype-0x88cc");
        let mut part = udp;
        part[20..22].copy_from_slice(&(0x2000u16 | 185).to_be_bytes());
        assert_eq!(Summary::of(&part).text(), "udp 10.0.0.1 > 10.0.0.2 (fragment at 1480)");
        let every = [0x00, 0x45, 0x60, 0xff];
        for byte in every {
            for length in 0..96 {
                let _ = Summary::of(&[&[0; 12][..], &[8, 0], &vec![byte; length]].concat()).text();
            }
        }
    }
}
