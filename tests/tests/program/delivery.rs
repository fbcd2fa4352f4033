//! Into a container of this node: by the other container's veth, or by an uplink.

use dataplane_common::reason::Reason;
use tests::harness::packet::{Icmp, Ipv4, L4, Tcp, flags};

use crate::{
    case::Case,
    network::{Network, OUTSIDE},
    packets::{inbound, payload, tcp, udp},
};

groups!(
    between_containers_of_the_node,
    from_the_fabric,
    every_protocol_and_field_is_left_alone,
    every_ttl_has_its_checksum,
    fragments_need_no_ports,
    padding_stays,
    frames_to_another_mac_are_the_kernel_s,
    sources_beside_the_reserved_ones_are_no_martians,
);

fn between_containers_of_the_node(n: &Network) -> Vec<Case> {
    let sends = |from: &crate::network::Container, to: &crate::network::Container| {
        from.sends(to.address, udp()).called(format!("{} to {}", from.address, to.address)).must_reach(to)
    };
    vec![
        sends(&n.c1, &n.c2),
        sends(&n.c2, &n.c1),
        sends(&n.c2, &n.c1_second),
        sends(&n.c1_second, &n.c2),
        sends(&n.c1, &n.c3),
        sends(&n.c3, &n.c4),
        sends(&n.c1, &n.c1_second),
        sends(&n.c1, &n.c1),
    ]
}

fn from_the_fabric(n: &Network) -> Vec<Case> {
    let to = |container: &crate::network::Container| {
        let sent = inbound(n.eth0, [172, 19, 36, 2], container.address, udp());
        sent.called(format!("to {}", container.address)).must_reach(container)
    };
    let mut cases: Vec<Case> = n.containers().map(|container| to(&container)).collect();
    cases.push(inbound(n.eth1, OUTSIDE, n.c1.address, udp()).called("from outside").must_reach(&n.c1));
    cases
}

fn every_protocol_and_field_is_left_alone(n: &Network) -> Vec<Case> {
    type Change = fn(&mut Ipv4);
    let payloads: [(&str, L4); 8] = [
        ("UDP", udp().into()),
        ("TCP", tcp(100).into()),
        ("a SYN", Tcp::new(1, 2, flags::SYN).into()),
        ("echo", Icmp::echo_request(7, 1, b"ping").into()),
        ("an ICMP error", Icmp::unreachable(3, &payload(28)).into()),
        ("SCTP", L4::Raw(132, payload(64))),
        ("no payload", L4::Raw(59, Vec::new())),
        ("a TCP header cut short", L4::Raw(6, payload(7))),
    ];
    let fields: [(&str, Change); 5] = [
        ("without DF", |packet| packet.dont_fragment = false),
        ("with an identification", |packet| packet.id = 0xbeef),
        ("with DSCP and ECN", |packet| packet.tos = 0xbb),
        ("with all bits of TOS and identification", |packet| (packet.id, packet.tos) = (0xffff, 0xff)),
        ("of the longest life", |packet| packet.ttl = 255),
    ];
    let mut cases = Vec::new();
    for (name, content) in payloads {
        let sent = n.c1.sends(n.c2.address, content.clone());
        cases.push(sent.called(name).must_reach(&n.c2));
        let sent = inbound(n.eth0, OUTSIDE, n.c2.address, content);
        cases.push(sent.called(format!("{name}, from outside")).must_reach(&n.c2));
    }
    for (name, change) in fields {
        cases.push(n.c1.sends(n.c2.address, udp()).with(change).called(name).must_reach(&n.c2));
    }
    cases
}

fn every_ttl_has_its_checksum(n: &Network) -> Vec<Case> {
    let case = |ttl: u8| {
        let sent = inbound(n.eth0, OUTSIDE, n.c1.address, udp()).with(|packet| {
            packet.ttl = ttl;
            // Goes through checksums on both sides of the carry.
            packet.id = u16::from(ttl).wrapping_mul(257);
        });
        let draft = sent.called(format!("TTL {ttl}"));
        if ttl < 2 { draft.must_pass(Reason::TtlExpired) } else { draft.must_reach(&n.c1) }
    };
    (0..=255).map(case).collect()
}

fn fragments_need_no_ports(n: &Network) -> Vec<Case> {
    let whole = Ipv4 { dont_fragment: false, id: 77, ..Ipv4::new(n.c1.address, n.c2.address, tcp(3000)) };
    let fragments = whole.fragments(1480);
    assert_eq!(fragments.len(), 3);
    let outside = |fragment: &Ipv4| Ipv4 { source: OUTSIDE.into(), ..fragment.clone() };
    let mut cases = Vec::new();
    for (name, fragment) in ["first", "middle", "last"].into_iter().zip(&fragments) {
        let sent = n.c1.sends(n.c2.address, udp()).with(|packet| *packet = fragment.clone());
        cases.push(sent.called(format!("the {name} one")).must_reach(&n.c2));
        let sent = inbound(n.eth0, OUTSIDE, n.c2.address, udp()).with(|packet| *packet = outside(fragment));
        cases.push(sent.called(format!("the {name} one, from outside")).must_reach(&n.c2));
    }
    // Smaller than a transport header, and at the far end of what an offset can say.
    let tiny = Ipv4 { fragment_offset: 0x1fff, payload: L4::Raw(17, vec![1; 8]), ..fragments[1].clone() };
    let sent = n.c1.sends(n.c2.address, udp()).with(|packet| *packet = tiny);
    cases.push(sent.called("a tiny one").must_reach(&n.c2));
    cases
}

fn padding_stays(n: &Network) -> Vec<Case> {
    let small = || n.c1.sends(n.c2.address, L4::Raw(17, payload(8)));
    let outside = || inbound(n.eth0, OUTSIDE, n.c2.address, L4::Raw(17, payload(8)));
    vec![
        small().padded(18).called("to the least length of a frame").must_reach(&n.c2),
        outside().padded(18).called("to the least length of a frame, from outside").must_reach(&n.c2),
        small().padded(1472).called("to the MTU").must_reach(&n.c2),
        // A link would refuse the frame; the kernel takes the padding off.
        small().padded(1473).called("beyond the MTU").must_reach(&n.c2).cut_to(28),
        outside().padded(1473).called("beyond the MTU, from outside").must_reach(&n.c2).cut_to(28),
    ]
}

fn frames_to_another_mac_are_the_kernel_s(n: &Network) -> Vec<Case> {
    let macs: [(&str, [u8; 6]); 4] = [
        ("another machine's", [0x02, 1, 2, 3, 4, 5]),
        ("everybody", [0xff; 6]),
        ("a group", [0x01, 0, 0x5e, 0, 0, 1]),
        ("the receiver's own", n.c2.mac),
    ];
    let mut cases = Vec::new();
    for (name, mac) in macs {
        let sent = n.c1.sends(n.c2.address, udp()).addressed_to(mac);
        cases.push(sent.called(name).must_pass(Reason::OtherHost));
        let sent = inbound(n.eth0, OUTSIDE, n.c2.address, udp()).addressed_to(mac);
        cases.push(sent.called(format!("{name}, from outside")).must_pass(Reason::OtherHost));
    }
    cases
}

fn sources_beside_the_reserved_ones_are_no_martians(n: &Network) -> Vec<Case> {
    let near = [[1, 0, 0, 0], [126, 255, 255, 255], [128, 0, 0, 1], [223, 255, 255, 255], [255, 255, 255, 254]];
    let sent = |source: [u8; 4]| inbound(n.eth0, source, n.c1.address, udp()).called(format!("{source:?}"));
    near.into_iter().map(|source| sent(source).must_reach(&n.c1)).collect()
}
