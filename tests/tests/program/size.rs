//! What does not fit the next link is the kernel's, which fragments it or answers frag-needed. Of an aggregate
//! it is a segment that must fit.

use dataplane_common::reason::Reason;
use tests::harness::packet::{Ipv4, L4, Tcp, Udp, flags};

use crate::{
    case::Case,
    network::{Container, Hop, Network, OUTSIDE},
    packets::{Sent, inbound, payload, tcp},
};

groups!(
    a_packet_up_to_the_mtu_is_carried,
    a_segment_up_to_the_mtu_is_carried,
    an_aggregate_of_an_unknown_kind_is_the_kernel_s,
    an_aggregate_that_fits_is_a_packet,
    what_follows_the_packet_does_not_count,
);

/// The ways of a packet, each with its MTU.
fn ways(n: &Network) -> [(&'static str, Sent, Way, u32); 6] {
    let none = || L4::Raw(17, Vec::new());
    [
        ("container to container", n.c1.sends(n.c2.address, none()), Way::To(n.c2), n.c2.mtu),
        ("to a container of a smaller MTU", n.c1.sends(n.c3.address, none()), Way::To(n.c3), n.c3.mtu),
        ("from outside", inbound(n.eth0, OUTSIDE, n.c2.address, none()), Way::To(n.c2), n.c2.mtu),
        ("from outside, smaller", inbound(n.eth0, OUTSIDE, n.c3.address, none()), Way::To(n.c3), n.c3.mtu),
        ("to a node", n.c1.sends([172, 19, 36, 2], none()), Way::By(n.node2), n.node2.mtu),
        ("by a link of a smaller MTU", n.c1.sends([172, 19, 38, 2], none()), Way::By(n.node5), n.node5.mtu),
    ]
}

#[derive(Clone, Copy)]
enum Way {
    To(Container),
    By(Hop),
}

impl Way {
    fn takes(self, sent: Sent, name: String) -> Case {
        match self {
            Self::To(container) => sent.called(name).must_reach(&container),
            Self::By(hop) => sent.called(name).must_leave_by(&hop),
        }
    }
}

/// The packet with as much payload as makes `length` bytes of it.
fn of_length(packet: &mut Ipv4, length: u32) {
    packet.payload = L4::Raw(17, payload(length as usize - 20));
}

fn a_packet_up_to_the_mtu_is_carried(n: &Network) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, sent, way, mtu) in ways(n) {
        for dont_fragment in [false, true] {
            let of = |length: u32| {
                sent.clone().with(|packet| {
                    of_length(packet, length);
                    packet.dont_fragment = dont_fragment;
                })
            };
            let called = |length: u32| format!("{name}: {length} bytes, DF {dont_fragment}");
            for length in [20, mtu - 1, mtu] {
                cases.push(way.takes(of(length), called(length)));
            }
            for length in [mtu + 1, mtu + 4, 3600] {
                cases.push(of(length).called(called(length)).must_pass(Reason::TooBig));
            }
        }
    }
    cases
}

fn a_segment_up_to_the_mtu_is_carried(n: &Network) -> Vec<Case> {
    let bare = Tcp { payload: payload(3000), ..Tcp::new(40_000, 443, flags::ACK) };
    let full = Tcp { options: vec![1; 40], ..bare.clone() };
    let aggregates: [(&str, L4, u32); 4] = [
        ("TCP", bare.into(), 40),
        ("TCP with time stamps", tcp(3000).into(), 52),
        ("TCP with all options", full.into(), 80),
        ("UDP", Udp::new(40_000, 443, payload(3000)).into(), 28),
    ];
    let mut cases = Vec::new();
    for (name, sent, way, mtu) in ways(n) {
        for (kind, content, headers) in &aggregates {
            let of = |size: u32| {
                let aggregate = sent.clone().with(|packet| packet.payload = content.clone());
                aggregate.in_segments_of(size as u16)
            };
            let called = |size: u32| format!("{name}: {kind} in segments of {size} bytes");
            for size in [1, 500, mtu - headers - 1, mtu - headers] {
                cases.push(way.takes(of(size), called(size)));
            }
            for size in [mtu - headers + 1, mtu, 0xffff] {
                cases.push(of(size).called(called(size)).must_pass(Reason::TooBig));
            }
            cases.push(of(0).called(called(0)).must_pass(Reason::TooBig));
        }
    }
    cases
}

/// How large its segments will be cannot be told from the headers: SCTP's, for one (`GSO_BY_FRAGS`).
fn an_aggregate_of_an_unknown_kind_is_the_kernel_s(n: &Network) -> Vec<Case> {
    let protocols = [(132, 0xffff), (132, 1000), (1, 1000), (47, 1000), (4, 1)];
    let mut cases = Vec::new();
    for (protocol, size) in protocols {
        let content = || L4::Raw(protocol, payload(3000));
        let name = format!("protocol {protocol} in segments of {size} bytes");
        let sent = n.c1.sends(n.c2.address, content()).in_segments_of(size);
        cases.push(sent.called(&name).must_pass(Reason::TooBig));
        let sent = n.c1.sends([172, 19, 36, 2], content()).in_segments_of(size);
        cases.push(sent.called(&name).must_pass(Reason::TooBig));
        let sent = inbound(n.eth0, OUTSIDE, n.c2.address, content()).in_segments_of(size);
        cases.push(sent.called(&name).must_pass(Reason::TooBig));
    }
    cases
}

/// The frame may be longer than the packet that it carries: up to the MTU that is left as it is, beyond it is cut off.
fn what_follows_the_packet_does_not_count(n: &Network) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, sent, way, mtu) in ways(n) {
        for (length, dont_fragment) in [(20, true), (32, false), (100, true), (mtu - 1, false), (mtu, true)] {
            let sent = sent.clone().with(|packet| {
                of_length(packet, length);
                packet.dont_fragment = dont_fragment;
            });
            for frame in [mtu, mtu + 1, mtu + 4, 3580].into_iter().filter(|frame| *frame > length) {
                let called = format!("{name}: {length} bytes in a frame of {frame}");
                let padded = sent.clone().padded((frame - length) as usize);
                let case = way.takes(padded, called);
                cases.push(if frame > mtu { case.cut_to(length) } else { case });
            }
        }
        let large = sent.clone().with(|packet| of_length(packet, mtu + 1)).padded(9);
        cases.push(large.called(format!("{name}: too large by itself")).must_pass(Reason::TooBig));
    }
    cases
}

fn an_aggregate_that_fits_is_a_packet(n: &Network) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, sent, way, mtu) in ways(n) {
        for (protocol, size) in [(6, 100), (17, 100), (132, 0xffff), (6, 0xffff)] {
            let whole = sent.clone().with(|packet| {
                packet.payload = L4::Raw(protocol, payload(mtu as usize - 20));
            });
            let called = format!("{name}: protocol {protocol} in segments of {size} bytes");
            cases.push(way.takes(whole.in_segments_of(size), called));
        }
    }
    cases
}
