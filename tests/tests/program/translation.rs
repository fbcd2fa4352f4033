//! Translation: packets out with the node's address, and the replies. The bytes are compared with packets that were
//! made, and their checksums computed, from the beginning.

use std::net::Ipv4Addr;

use dataplane_common::reason::Reason;
use tests::harness::packet::{Icmp, Ipv4, L4, Tcp, Udp, flags};

use crate::{
    case::Case,
    network::{Container, EXCLUDED, MAX_FLOWS, NODE, NOWHERE, Network, PORT},
    packets::{Sent, inbound, payload, tcp, udp},
};

groups!(
    on crate::network::Network::translating,
    a_flow_goes_both_ways,
    a_checksum_of_zero_is_none,
    a_checksum_that_comes_to_zero,
    every_length_and_ttl,
    an_aggregate_is_one_packet,
    what_is_excluded_leaves_as_it_is,
    fragments_follow_their_first,
    for_other_nodes,
    a_connection_ends_and_begins_again,
    a_flow_ends_with_its_rule,
);

/// The port of the containers.
pub(crate) const SOURCE_PORT: u16 = 40_000;

/// A packet of each transport, between ports that are given; with the same as a reply.
pub(crate) fn transports() -> [(&'static str, L4, L4); 3] {
    let segment = |from, to, flags| Tcp { payload: payload(33), ..Tcp::new(from, to, flags) };
    [
        (
            "TCP",
            segment(SOURCE_PORT, 443, flags::SYN).into(),
            segment(443, PORT, flags::SYN | flags::ACK).into(),
        ),
        (
            "UDP",
            Udp::new(SOURCE_PORT, 53, b"a question").into(),
            Udp::new(53, PORT, b"an answer of odd length").into(),
        ),
        (
            "ICMP echo",
            Icmp::echo_request(SOURCE_PORT, 7, b"ping").into(),
            Icmp::echo_reply(PORT, 7, b"pong").into(),
        ),
    ]
}

/// The packet as it leaves: one less to live, and the node's.
pub(crate) fn translated(sent: &Sent) -> Ipv4 {
    let mut packet = sent.ipv4().clone();
    (packet.source, packet.ttl) = (NODE.into(), packet.ttl - 1);
    match &mut packet.payload {
        L4::Tcp(segment) => segment.source_port = PORT,
        L4::Udp(datagram) => datagram.source_port = PORT,
        L4::Icmp(message) => message.rest[..2].copy_from_slice(&PORT.to_be_bytes()),
        L4::Raw(..) => {}
    }
    packet
}

/// The reply as the container gets it, one less to live.
pub(crate) fn restored(sent: &Sent, to: Ipv4Addr) -> Ipv4 {
    let mut packet = sent.ipv4().clone();
    (packet.destination, packet.ttl) = (to, packet.ttl - 1);
    match &mut packet.payload {
        L4::Tcp(segment) => segment.destination_port = SOURCE_PORT,
        L4::Udp(datagram) => datagram.destination_port = SOURCE_PORT,
        L4::Icmp(message) => message.rest[..2].copy_from_slice(&SOURCE_PORT.to_be_bytes()),
        L4::Raw(..) => {}
    }
    packet
}

/// The first packet of a flow.
pub(crate) fn opens(n: &Network, sent: Sent, name: &str) -> Case {
    let packet = translated(&sent);
    sent.called(format!("{name}: first")).must_open(packet, &n.outside)
}

/// Another one.
fn goes_on(n: &Network, sent: Sent, name: &str) -> Case {
    let packet = translated(&sent);
    sent.called(format!("{name}: next")).must_leave_as(packet, &n.outside)
}

/// A reply to it.
pub(crate) fn comes_back(sent: Sent, to: &Container, name: &str) -> Case {
    let packet = restored(&sent, to.address);
    sent.called(format!("{name}: reply")).must_reach_as(packet, to)
}

fn a_flow_goes_both_ways(n: &Network) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, out, back) in transports() {
        let reply = || inbound(n.eth0, NOWHERE, NODE, back.clone());
        let sends = || n.c1.sends(NOWHERE, out.clone());
        // Nobody has asked: the packet is the node's own affair.
        cases.push(reply().called(format!("{name}: unasked")).must_pass(Reason::ToHost));
        cases.push(opens(n, sends(), name));
        cases.push(goes_on(n, sends(), name));
        cases.push(comes_back(reply(), &n.c1, name));
        cases.push(goes_on(n, sends(), name));
        let stranger = inbound(n.eth0, [203, 0, 113, 6], NODE, back.clone());
        cases.push(stranger.called(format!("{name}: of another")).must_pass(Reason::ToHost));
    }
    // An echo request from outside is no reply, whatever its identifier.
    let request = inbound(n.eth0, NOWHERE, NODE, Icmp::echo_request(PORT, 7, b"ping"));
    cases.push(request.called("an echo request").must_pass(Reason::ToHost));
    cases
}

fn a_checksum_of_zero_is_none(n: &Network) -> Vec<Case> {
    let without = |from, to| Udp { checksum: Some(0), ..Udp::new(from, to, b"no sum") };
    let sends = || n.c1.sends(NOWHERE, without(SOURCE_PORT, 53));
    let reply = inbound(n.eth0, NOWHERE, NODE, without(53, PORT));
    vec![opens(n, sends(), "none"), goes_on(n, sends(), "none"), comes_back(reply, &n.c1, "none")]
}

/// In UDP a sum that comes to zero is sent as its other form.
fn a_checksum_that_comes_to_zero(n: &Network) -> Vec<Case> {
    let of = |from, to, word: u16| Udp::new(from, to, word.to_be_bytes());
    let sum = |packet: &Ipv4| {
        let bytes = packet.bytes();
        u16::from_be_bytes([bytes[26], bytes[27]])
    };
    let out = |word| n.c1.sends(NOWHERE, of(SOURCE_PORT, 53, word));
    let zero = sum(&translated(&out(0)));
    let back = |word| inbound(n.eth0, NOWHERE, NODE, of(53, PORT, word));
    let zero_back = sum(&restored(&back(0), n.c1.address));
    vec![
        opens(n, out(0), "plain"),
        goes_on(n, out(zero), "out"),
        comes_back(back(zero_back), &n.c1, "in"),
    ]
}

fn every_length_and_ttl(n: &Network) -> Vec<Case> {
    let out = |length: usize, ttl: u8| {
        let segment = Tcp { payload: payload(length), ..Tcp::new(SOURCE_PORT, 443, flags::ACK) };
        n.c1.sends(NOWHERE, segment).with(|packet| packet.ttl = ttl)
    };
    let back = |length: usize, ttl: u8| {
        let segment = Tcp { payload: payload(length), ..Tcp::new(443, PORT, flags::ACK) };
        inbound(n.eth0, NOWHERE, NODE, segment).with(|packet| packet.ttl = ttl)
    };
    let mut cases = vec![opens(n, out(0, 64), "TCP")];
    for (length, ttl) in [(0, 2), (1, 3), (2, 255), (3, 128), (1459, 64), (1460, 64)] {
        cases.push(goes_on(n, out(length, ttl), &format!("{length} bytes, TTL {ttl}")));
        cases.push(comes_back(back(length, ttl), &n.c1, &format!("{length} bytes, TTL {ttl}")));
    }
    cases
}

fn an_aggregate_is_one_packet(n: &Network) -> Vec<Case> {
    let of = |from, to| Tcp { payload: payload(3000), ..Tcp::new(from, to, flags::ACK) };
    let out = || n.c1.sends(NOWHERE, of(SOURCE_PORT, 443)).in_segments_of(1460);
    let back = inbound(n.eth0, NOWHERE, NODE, of(443, PORT)).in_segments_of(1460);
    let large = out().in_segments_of(1461).called("in segments that do not fit").must_be_too_big(1500);
    vec![opens(n, out(), "TCP"), goes_on(n, out(), "TCP"), comes_back(back, &n.c1, "TCP"), large]
}

fn what_is_excluded_leaves_as_it_is(n: &Network) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, out, _) in transports() {
        cases.push(n.c1.sends(EXCLUDED, out.clone()).called(name).must_leave_by(&n.outside));
        // By a route on which nothing is translated.
        cases.push(n.c1.sends([172, 19, 36, 2], out).called(name).must_leave_by(&n.node2));
    }
    let odd = |payload: L4| n.c1.sends(EXCLUDED, payload);
    cases.push(odd(L4::Raw(47, payload(40))).called("GRE").must_leave_by(&n.outside));
    cases.push(odd(tcp(4).into()).called("a segment").must_leave_by(&n.outside));
    cases.push(
        odd(udp().into())
            .with(|packet| packet.fragment_offset = 9)
            .called("a fragment")
            .must_leave_by(&n.outside),
    );
    let error = Icmp::unreachable(3, &payload(28));
    cases.push(odd(error.into()).called("an error").must_leave_by(&n.outside));
    let options = odd(udp().into()).with(|packet| packet.options = vec![7, 4, 4, 0]);
    cases.push(options.called("options").must_pass(Reason::IpOptions));
    let large = odd(Udp::new(1, 2, payload(2000)).into()).with(|packet| packet.dont_fragment = false);
    cases.push(large.called("too big").must_pass(Reason::TooBig));
    cases.push(odd(udp().into()).with(|packet| packet.ttl = 1).called("TTL 1").must_pass(Reason::TtlExpired));
    cases
}

fn fragments_follow_their_first(n: &Network) -> Vec<Case> {
    let mut cases = Vec::new();
    let large = payload(2000);
    let pairs: [(&str, L4, L4); 3] = [
        (
            "TCP",
            Tcp { payload: large.clone(), ..Tcp::new(SOURCE_PORT, 443, flags::ACK) }.into(),
            Tcp { payload: large.clone(), ..Tcp::new(443, PORT, flags::ACK) }.into(),
        ),
        ("UDP", Udp::new(SOURCE_PORT, 53, &large).into(), Udp::new(53, PORT, &large).into()),
        ("ICMP echo", Icmp::echo_request(SOURCE_PORT, 1, &large).into(), Icmp::echo_reply(PORT, 1, &large).into()),
    ];
    for (id, (name, out, back)) in (100..).zip(pairs) {
        let whole = n.c1.sends(NOWHERE, out).with(|packet| (packet.id, packet.dont_fragment) = (id, false));
        let wanted = translated(&whole).fragments(1480);
        let pieces = whole.ipv4().fragments(1480);
        let piece = |index: usize| whole.clone().with(|packet| *packet = pieces[index].clone());
        let early = piece(1).called(format!("{name}: the last, before the first"));
        cases.push(early.must_drop(Reason::NatFragment));
        let first = piece(0).called(format!("{name}: the first"));
        cases.push(first.must_open(wanted[0].clone(), &n.outside));
        for again in ["", ", again"] {
            let last = piece(1).called(format!("{name}: the last{again}"));
            cases.push(last.must_leave_as(wanted[1].clone(), &n.outside));
        }
        let other = piece(1).with(|packet| packet.id += 1000).called(format!("{name}: of another datagram"));
        cases.push(other.must_drop(Reason::NatFragment));

        let whole = inbound(n.eth0, NOWHERE, NODE, back);
        let whole = whole.with(|packet| (packet.id, packet.dont_fragment) = (id + 50, false));
        let wanted = restored(&whole, n.c1.address).fragments(1480);
        let pieces = whole.ipv4().fragments(1480);
        let piece = |index: usize| whole.clone().with(|packet| *packet = pieces[index].clone());
        // The node itself may be waiting for it.
        let early = piece(1).called(format!("{name}: inbound, the last before the first"));
        cases.push(early.must_pass(Reason::ToHost));
        let first = piece(0).called(format!("{name}: inbound, the first"));
        cases.push(first.must_reach_as(wanted[0].clone(), &n.c1));
        let last = piece(1).called(format!("{name}: inbound, the last"));
        cases.push(last.must_reach_as(wanted[1].clone(), &n.c1));
    }
    cases
}

/// A gateway: what another node sends by one uplink leaves by the other.
fn for_other_nodes(n: &Network) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, out, back) in transports() {
        let sends = || inbound(n.eth1, [172, 19, 38, 2], NOWHERE, out.clone());
        let reply = inbound(n.eth0, NOWHERE, NODE, back);
        cases.push(opens(n, sends(), name));
        cases.push(goes_on(n, sends(), name));
        let wanted = restored(&reply, [172, 19, 38, 2].into());
        cases.push(reply.called(format!("{name}: reply")).must_leave_as(wanted, &n.node5));
    }
    let sends = |from: [u8; 4]| inbound(n.eth1, from, NOWHERE, udp());
    // A translation is for those alone who are reached by that uplink.
    cases.push(sends([172, 19, 36, 2]).called("by a wrong uplink").must_drop(Reason::SpoofedSource));
    cases.push(sends([172, 19, 35, 2]).called("with a container's address").must_drop(Reason::SpoofedSource));
    cases.push(sends([198, 51, 100, 1]).called("of no rule").must_pass(Reason::NotLocal));
    let hairpin = inbound(n.eth0, [172, 19, 36, 2], NOWHERE, udp());
    cases.push(hairpin.called("out by where it came in").must_pass(Reason::NotLocal));
    let excluded = inbound(n.eth1, [172, 19, 38, 2], EXCLUDED, udp());
    cases.push(excluded.called("excluded").must_pass(Reason::NotLocal));
    cases
}

fn a_connection_ends_and_begins_again(n: &Network) -> Vec<Case> {
    let out = |flags| n.c1.sends(NOWHERE, Tcp::new(SOURCE_PORT, 443, flags));
    let back = |flags| inbound(n.eth0, NOWHERE, NODE, Tcp::new(443, PORT, flags));
    let (syn, ack, fin, rst) = (flags::SYN, flags::ACK, flags::FIN, flags::RST);
    vec![
        out(rst).called("RST before anything").must_drop(Reason::NatNoFlow),
        out(fin | ack).called("FIN before anything").must_drop(Reason::NatNoFlow),
        opens(n, out(syn), "SYN"),
        comes_back(back(syn | ack), &n.c1, "SYN-ACK"),
        goes_on(n, out(ack), "ACK"),
        goes_on(n, out(fin | ack), "FIN"),
        comes_back(back(fin | ack), &n.c1, "FIN"),
        goes_on(n, out(ack), "late ACK"),
        goes_on(n, out(syn), "SYN once more"),
        comes_back(back(rst), &n.c1, "RST"),
        goes_on(n, out(rst), "late RST"),
    ]
}

/// With its next packet, which leaves as the rules say now, or with a sweep.
fn a_flow_ends_with_its_rule(n: &Network) -> Vec<Case> {
    let mut cases = Vec::new();
    let sends = |content: &L4| n.c1.sends(NOWHERE, content.clone());
    for (name, out, _) in transports() {
        cases.push(opens(n, sends(&out), name));
    }
    for (name, out, back) in transports() {
        let next = sends(&out).called(format!("{name}: without a rule")).must_leave_by(&n.outside);
        cases.push(next.after(|runner| runner.translate(&[], MAX_FLOWS, MAX_FLOWS)));
        let reply = inbound(n.eth0, NOWHERE, NODE, back).called(format!("{name}: late reply"));
        cases.push(reply.must_pass(Reason::ToHost));
    }
    cases
}
