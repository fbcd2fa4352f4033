//! A container speaks for its own addresses only, and by its own veth only.

use dataplane_common::reason::Reason;
use tests::harness::packet::{Icmp, Ipv4};

use crate::{
    case::Case,
    network::{Network, OUTSIDE, ROUTER_MAC},
    packets::{inbound, tcp, udp},
};

groups!(
    each_address_of_a_veth_is_its_own,
    another_s_address_is_dropped,
    at_another_interface_the_right_address_is_dropped,
    wherever_it_is_sent_to,
    however_it_is_sent,
    a_martian_is_dropped,
    other_sources_by_an_uplink_are_the_kernel_s_question,
    where_answers_are_the_kernel_s_requests_are_too,
);

fn each_address_of_a_veth_is_its_own(n: &Network) -> Vec<Case> {
    vec![
        n.c1.sends(n.c2.address, udp()).called("the first").must_reach(&n.c2),
        n.c1_second.sends(n.c2.address, udp()).called("the second").must_reach(&n.c2),
        // Endpoints are addresses: which MAC a container sends from is its own affair.
        {
            let mut sent = n.c1.sends(n.c2.address, udp());
            sent.frame.source = n.c2.mac;
            sent.called("from another MAC").must_reach(&n.c2)
        },
    ]
}

fn another_s_address_is_dropped(n: &Network) -> Vec<Case> {
    let sources: [(&str, [u8; 4]); 12] = [
        ("another container's", n.c2.address.octets()),
        ("a container's in another block", n.c3.address.octets()),
        ("one of its block that nobody has", [172, 19, 35, 77]),
        ("one on another node", [172, 19, 36, 2]),
        ("one of the fabric", [10, 141, 0, 2]),
        ("the node's", [10, 141, 0, 1]),
        ("one outside", OUTSIDE),
        ("the gateway's", [169, 254, 1, 1]),
        ("a group", [224, 0, 0, 1]),
        ("everybody's", [255; 4]),
        ("none, as DHCP has it", [0; 4]),
        ("loopback", [127, 0, 0, 1]),
    ];
    let case = |(name, source): (&str, [u8; 4])| {
        let sent = n.c1.sends(n.c2.address, udp()).with(|packet| packet.source = source.into());
        sent.called(name).must_drop(Reason::SpoofedSource)
    };
    sources.into_iter().map(case).collect()
}

fn at_another_interface_the_right_address_is_dropped(n: &Network) -> Vec<Case> {
    let sent = || n.c1.sends(n.c3.address, udp());
    vec![
        sent().by(n.c2.veth).called("another container's veth").must_drop(Reason::SpoofedSource),
        sent().by(n.c3.veth).called("the receiver's veth").must_drop(Reason::SpoofedSource),
        sent().by(n.vacant).called("a veth without an endpoint").must_drop(Reason::SpoofedSource),
        sent().by(n.eth0).called("an uplink").must_drop(Reason::SpoofedSource),
    ]
}

fn wherever_it_is_sent_to(n: &Network) -> Vec<Case> {
    let destinations: [[u8; 4]; 9] = [
        n.c2.address.octets(),
        [172, 19, 36, 2],
        [10, 141, 0, 1],
        [172, 19, 35, 77],
        [169, 254, 1, 1],
        [224, 0, 0, 1],
        [255; 4],
        [127, 0, 0, 1],
        crate::network::NOWHERE,
    ];
    let case = |to: [u8; 4]| {
        let sent = n.c1.sends(to, udp()).with(|packet| packet.source = n.c2.address);
        sent.called(format!("to {to:?}")).must_drop(Reason::SpoofedSource)
    };
    destinations.into_iter().map(case).collect()
}

fn however_it_is_sent(n: &Network) -> Vec<Case> {
    let spoofed = |change: fn(&mut Ipv4)| {
        n.c1.sends(n.c2.address, udp()).with(|packet| packet.source = n.c3.address).with(change)
    };
    vec![
        spoofed(|packet| packet.payload = tcp(10).into()).called("TCP").must_drop(Reason::SpoofedSource),
        spoofed(|packet| packet.payload = Icmp::echo_request(1, 1, b"").into())
            .called("echo")
            .must_drop(Reason::SpoofedSource),
        spoofed(|packet| packet.ttl = 1).called("TTL 1").must_drop(Reason::SpoofedSource),
        spoofed(|packet| packet.checksum = Some(1)).called("checksum").must_drop(Reason::SpoofedSource),
        spoofed(|packet| packet.options = vec![1; 4]).called("options").must_drop(Reason::SpoofedSource),
        spoofed(|packet| packet.fragment_offset = 9).called("fragment").must_drop(Reason::SpoofedSource),
        spoofed(|_| ()).addressed_to([0xff; 6]).called("to all MACs").must_drop(Reason::SpoofedSource),
        spoofed(|_| ()).padded(3000).called("too large").must_drop(Reason::SpoofedSource),
        // The header is checked first: what has none has no source.
        spoofed(|packet| packet.version = 5).called("version 5").must_drop(Reason::Malformed),
    ]
}

/// As the kernel does, for a container at least: what is the node's own is its.
fn a_martian_is_dropped(n: &Network) -> Vec<Case> {
    let martians: [[u8; 4]; 15] = [
        // The node's addresses, a broadcast address of its, its containers.
        [10, 141, 0, 1],
        [172, 19, 35, 1],
        [10, 141, 255, 255],
        n.c1.address.octets(),
        n.c1_second.address.octets(),
        n.c2.address.octets(),
        n.c3.address.octets(),
        n.c4.address.octets(),
        // What no packet on the wire may have.
        [0; 4],
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [127, 255, 255, 255],
        [224, 0, 0, 1],
        [239, 255, 255, 255],
        [255; 4],
    ];
    let mut cases = Vec::new();
    for source in martians {
        for container in [n.c1, n.c4, n.c4_second] {
            for uplink in [n.eth0, n.eth1] {
                let sent = inbound(uplink, source, container.address, udp());
                let name = format!("{source:?} to {}", container.address);
                cases.push(sent.clone().called(&name).must_drop(Reason::MartianSource));
                let odd = sent.clone().with(|packet| (packet.ttl, packet.options) = (1, vec![1; 4]));
                cases.push(odd.called(format!("{name}, odd")).must_drop(Reason::MartianSource));
                // Another's.
                let other = sent.addressed_to([2, 0, 0, 0, 0, 9]);
                cases.push(other.called(format!("{name}, another MAC")).must_pass(Reason::OtherHost));
            }
        }
        let to_node = inbound(n.eth0, source, [10, 141, 0, 1], udp());
        cases.push(to_node.called(format!("{source:?} to the node")).must_pass(Reason::ToHost));
        let to_all = inbound(n.eth0, source, [255; 4], udp()).addressed_to([255; 6]);
        cases.push(to_all.called(format!("{source:?} to all")).must_pass(Reason::Broadcast));
    }
    cases
}

fn other_sources_by_an_uplink_are_the_kernel_s_question(n: &Network) -> Vec<Case> {
    let sent = |source: [u8; 4]| inbound(n.eth0, source, n.c1.address, udp()).called(format!("{source:?}"));
    let mut odd = inbound(n.eth0, OUTSIDE, n.c1.address, udp());
    odd.frame.source = [ROUTER_MAC[0], 1, 1, 1, 1, 1];
    vec![
        sent(OUTSIDE).must_reach(&n.c1),
        sent([169, 254, 9, 9]).must_reach(&n.c1),
        sent([240, 0, 0, 1]).must_reach(&n.c1),
        sent([172, 19, 35, 77]).must_reach(&n.c1),
        sent([172, 19, 36, 2]).must_reach(&n.c1),
        odd.called("from any MAC").must_reach(&n.c1),
    ]
}

fn where_answers_are_the_kernel_s_requests_are_too(n: &Network) -> Vec<Case> {
    let to = &n.c4_second;
    let sent = |source: [u8; 4]| inbound(n.eth0, source, to.address, udp()).called(format!("from {source:?}"));
    vec![
        sent([172, 19, 36, 2]).must_reach(to),
        sent([10, 141, 0, 9]).must_reach(to),
        sent([172, 19, 35, 77]).must_reach(to),
        sent(OUTSIDE).must_pass(Reason::KernelRoute),
        sent([192, 0, 2, 1]).must_pass(Reason::KernelRoute),
        sent([198, 51, 100, 1]).must_pass(Reason::KernelRoute),
        // From a container BPF has the way back.
        n.c1.sends(to.address, udp()).called("from a container here").must_reach(to),
    ]
}
