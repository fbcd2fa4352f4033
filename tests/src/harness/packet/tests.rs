use std::net::Ipv4Addr;

use super::*;

const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 19, 35, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

fn frame(payload: impl Into<Payload>) -> Frame {
    Frame::new([2, 0, 0, 0, 0, 1], [0xee; 6], payload)
}

/// The example of RFC 1071, section 3: the sum is ddf2, the checksum its complement.
#[test]
fn the_checksum_of_rfc_1071() {
    assert_eq!(internet_checksum(&hex("0001 f203 f4f5 f6f7")), !0xddf2);
    assert_eq!(internet_checksum(&hex("0001 f203 f4f5 f6f7 80")), !0x5df3);
}

/// The header that textbooks and the encyclopaedia use as the example of the IPv4 checksum: b861.
#[test]
fn the_well_known_header() {
    let bytes = hex("4500 0073 0000 4000 4011 b861 c0a8 0001 c0a8 00c7");
    let packet = Ipv4 {
        total_length: Some(0x73),
        ..Ipv4::new([192, 168, 0, 1], [192, 168, 0, 199], L4::Raw(protocol::UDP, Vec::new()))
    };
    assert_eq!(packet.bytes(), bytes);
    assert_eq!(Ipv4::parse(&bytes).unwrap(), packet);
}

/// Builds each of these frames, and reads it back: the bytes are what Linux 6.18 sent, with checksums
/// computed in software.
#[test]
fn frames_as_linux_sends_them() {
    let [a, b] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
    let request = Arp::request(a, CLIENT, [172, 19, 35, 1]);
    let datagram = Ipv4 { id: 0xa21d, ..Ipv4::new(CLIENT, SERVER, Udp::new(36_365, 53, "query")) };
    let refusal = Icmp::unreachable(3, &datagram.bytes()).to_sender_of(&datagram, SERVER);
    let syn = Tcp {
        sequence: 943_528_633,
        window: 64_240,
        options: hex("0204 05b4 0402 080a e43a da64 0000 0000 0103 030a"),
        ..Tcp::new(59_348, 443, flags::SYN)
    };
    let reset = Tcp {
        sequence: 0,
        acknowledgement: 943_528_634,
        window: 0,
        ..Tcp::new(443, 59_348, flags::RST | flags::ACK)
    };
    let echo = Icmp::echo_request(0x5c86, 1, [0, 1, 2, 3]);
    let answer = Icmp::echo_reply(0x5c86, 1, [0, 1, 2, 3]);
    let cases = [
        (
            Frame::new(a, [0xff; 6], request),
            "ffff ffff ffff 0200 0000 0001 0806 0001 0800 0604 0001 0200 0000 0001 ac13 2302
             0000 0000 0000 ac13 2301",
        ),
        (
            Frame::new(b, a, request.reply(b)),
            "0200 0000 0001 0200 0000 0002 0806 0001 0800 0604 0002 0200 0000 0002 ac13 2301
             0200 0000 0001 ac13 2302",
        ),
        (
            Frame::new(a, b, datagram),
            "0200 0000 0002 0200 0000 0001 0800 4500 0021 a21d 4000 4011 0798 ac13 2302 c000
             0201 8e0d 0035 000d 9092 7175 6572 79",
        ),
        (
            Frame::new(b, a, Ipv4 { id: 0x5a45, ..refusal }),
            "0200 0000 0001 0200 0000 0002 0800 45c0 003d 5a45 0000 4001 8ea4 c000 0201 ac13
             2302 0303 8e32 0000 0000 4500 0021 a21d 4000 4011 0798 ac13 2302 c000 0201 8e0d
             0035 000d 9092 7175 6572 79",
        ),
        (
            Frame::new(a, b, Ipv4 { id: 0x0629, ..Ipv4::new(CLIENT, SERVER, syn) }),
            "0200 0000 0002 0200 0000 0001 0800 4500 003c 0629 4000 4006 a37c ac13 2302 c000
             0201 e7d4 01bb 383d 1ab9 0000 0000 a002 faf0 c0cf 0000 0204 05b4 0402 080a e43a
             da64 0000 0000 0103 030a",
        ),
        (
            Frame::new(b, a, Ipv4::new(SERVER, CLIENT, reset)),
            "0200 0000 0001 0200 0000 0002 0800 4500 0028 0000 4000 4006 a9b9 c000 0201 ac13
             2302 01bb e7d4 0000 0000 383d 1aba 5014 0000 e232 0000",
        ),
        (
            Frame::new(a, b, Ipv4 { id: 0x67bd, ..Ipv4::new(CLIENT, SERVER, echo) }),
            "0200 0000 0002 0200 0000 0001 0800 4500 0020 67bd 4000 4001 4209 ac13 2302 c000
             0201 0800 9974 5c86 0001 0001 0203",
        ),
        (
            Frame::new(b, a, Ipv4 { id: 0x5a47, dont_fragment: false, ..Ipv4::new(SERVER, CLIENT, answer) }),
            "0200 0000 0001 0200 0000 0002 0800 4500 0020 5a47 0000 4001 8f7f c000 0201 ac13
             2302 0000 a174 5c86 0001 0001 0203",
        ),
    ];
    for (frame, sent) in cases {
        assert_eq!(frame.bytes(), hex(sent), "{frame:?}");
        assert_eq!(Frame::parse(&hex(sent)).unwrap(), frame);
    }
}

#[test]
fn what_is_wrong_shows_in_its_field() {
    let datagram = Udp { checksum: Some(0x1234), ..Udp::new(1, 2, "payload") };
    let packet = Ipv4 { checksum: Some(0xbad), ..Ipv4::new(CLIENT, SERVER, datagram) };
    let wrong = frame(packet);
    assert_eq!(Frame::parse(&wrong.bytes()).unwrap(), wrong);

    let mut bytes = frame(Ipv4::new(CLIENT, SERVER, Tcp::new(1, 2, flags::SYN))).bytes();
    *bytes.last_mut().unwrap() ^= 1;
    let read = Frame::parse(&bytes).unwrap();
    let Some(Ipv4 { checksum: None, payload: L4::Tcp(segment), .. }) = read.ipv4() else {
        panic!("{read:?} is no TCP segment below an intact header")
    };
    assert!(segment.checksum.is_some());
}

#[test]
fn lengths_that_lie_are_read_as_they_are() {
    let longer = Ipv4 { total_length: Some(100), ..Ipv4::new(CLIENT, SERVER, Udp::new(1, 2, "four")) };
    let read = Ipv4::parse(&longer.bytes()).unwrap();
    assert_eq!(read.total_length, Some(100));
    assert_eq!(read.payload.ports(), Some((1, 2)));

    let shorter = Ipv4 { total_length: Some(24), ..longer.clone() };
    let read = Frame::parse(&frame(shorter).bytes()).unwrap();
    assert_eq!(read.ipv4().unwrap().payload, L4::Raw(protocol::UDP, hex("0001 0002")));
    assert_eq!(read.trailer.len(), 8);

    assert!(Ipv4::parse(&Ipv4 { header_words: Some(4), ..longer.clone() }.bytes()).is_err());
    assert!(Ipv4::parse(&Ipv4 { header_words: Some(15), ..longer }.bytes()).is_err());
    assert!(Frame::parse(&[0; 13]).is_err());
}

#[test]
fn tags_options_and_padding_survive() {
    let options = hex("9404 0000");
    let packet = Ipv4 { options, tos: 0x28, ttl: 1, ..Ipv4::new(CLIENT, SERVER, Udp::new(1, 2, "x")) };
    let sent = Frame { trailer: vec![0; 12], ..frame(packet).tagged(5).tagged(6) };
    let bytes = sent.bytes();
    assert_eq!(bytes[12..20], hex("8100 0006 8100 0005"));
    assert_eq!(Frame::parse(&bytes).unwrap(), sent);

    let other = frame(Payload::Other(ethertype::IPV6, vec![0x60, 0, 0, 0]));
    assert_eq!(Frame::parse(&other.bytes()).unwrap(), other);
}

#[test]
fn a_udp_sum_of_zero_is_sent_as_ones() {
    // The payload is chosen so that all words add up to ffff.
    let sum = !internet_checksum(
        &[&CLIENT.octets()[..], &SERVER.octets(), &hex("0011 000a 0001 0002 000a")].concat(),
    );
    let datagram = Udp::new(1, 2, (!sum).to_be_bytes());
    let bytes = Ipv4::new(CLIENT, SERVER, datagram.clone()).bytes();
    assert_eq!(bytes[26..28], [0xff, 0xff]);
    assert_eq!(Ipv4::parse(&bytes).unwrap().payload, L4::Udp(datagram));
}

#[test]
fn an_error_shows_the_packet_it_is_about() {
    let sent = Ipv4::new(CLIENT, SERVER, Tcp::new(40_000, 443, flags::ACK));
    let error = Icmp::frag_needed(1400, &sent.bytes()[..28]);
    assert_eq!(error.sequence_or_mtu(), 1400);
    let about = error.about().unwrap();
    assert_eq!((about.source, about.destination, about.total_length), (CLIENT, SERVER, Some(40)));
    assert_eq!(about.checksum, None);
    assert_eq!(about.payload.ports(), Some((40_000, 443)));

    let whole = Icmp::time_exceeded(&sent.bytes());
    assert_eq!(whole.about().unwrap(), sent);
    assert_eq!(Icmp::parameter_problem(20, &[]).rest, [20, 0, 0, 0]);
}

#[test]
fn fragments_make_the_packet_again() {
    let data: Vec<u8> = (0..100).collect();
    let packet =
        Ipv4 { id: 77, dont_fragment: false, ..Ipv4::new(CLIENT, SERVER, Udp::new(1000, 2000, &data)) };
    let mut fragments = packet.fragments(40);
    let shape: Vec<_> = fragments.iter().map(|f| (f.fragment_offset, f.more_fragments)).collect();
    assert_eq!(shape, [(0, true), (5, true), (10, false)]);
    assert_eq!(fragments[0].payload.ports(), Some((1000, 2000)));
    for fragment in &fragments {
        assert_eq!(Ipv4::parse(&fragment.bytes()).unwrap(), *fragment);
    }
    fragments.reverse();
    assert_eq!(Ipv4::reassemble(&fragments).unwrap(), packet);
    assert!(Ipv4::reassemble(&fragments[1..]).is_err());
    assert!(Ipv4::reassemble(&[&fragments[..], &fragments[..1]].concat()).is_err());
    assert!(Ipv4::reassemble(&[]).is_err());
}
