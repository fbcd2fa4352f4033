//! From a container to another node, or to the outside.

use anyhow::Result;
use dataplane_common::reason::Reason;
use tests::harness::{
    packet::{Icmp, Ipv4},
    skip::skip_without_root,
};

use crate::{
    case::{Case, check_on},
    network::{NOWHERE, Network},
    packets::{payload, tcp, udp},
};

groups!(
    to_another_node_by_its_router,
    onto_the_link_without_a_router,
    every_protocol,
    fragments_need_no_ports,
    ttl_and_mac_are_checked,
);

fn to_another_node_by_its_router(n: &Network) -> Vec<Case> {
    let sends = |to: [u8; 4]| n.c1.sends(to, udp()).called(format!("to {to:?}"));
    vec![
        sends([172, 19, 36, 2]).must_leave_by(&n.node2),
        sends([172, 19, 37, 2]).must_leave_by(&n.node3),
        sends([172, 19, 48, 9]).must_leave_by(&n.node4),
        // By another uplink.
        sends([172, 19, 38, 2]).must_leave_by(&n.node5),
        n.c3.sends([172, 19, 36, 2], udp()).called("from another container").must_leave_by(&n.node2),
        n.c1_second.sends([172, 19, 36, 2], udp()).called("from a second address").must_leave_by(&n.node2),
    ]
}

fn onto_the_link_without_a_router(n: &Network) -> Vec<Case> {
    let sends = |to: [u8; 4]| n.c1.sends(to, udp()).called(format!("to {to:?}"));
    vec![
        sends([10, 141, 0, 2]).must_leave_by(&n.fabric),
        sends([10, 141, 255, 254]).must_leave_by(&n.fabric),
        // The node's own address and the subnet's broadcast address are longer prefixes.
        sends([10, 141, 0, 1]).must_pass(Reason::ToHost),
        sends([10, 141, 255, 255]).must_pass(Reason::Broadcast),
    ]
}

fn every_protocol(n: &Network) -> Vec<Case> {
    let to = [172, 19, 36, 2];
    vec![
        n.c1.sends(to, tcp(100)).called("TCP").must_leave_by(&n.node2),
        n.c1.sends(to, Icmp::echo_request(1, 1, b"ping")).called("echo").must_leave_by(&n.node2),
        n.c1.sends(to, Icmp::unreachable(1, &payload(28))).called("an ICMP error").must_leave_by(&n.node2),
        n.c1.sends(to, udp()).padded(18).called("padding stays").must_leave_by(&n.node2),
    ]
}

fn fragments_need_no_ports(n: &Network) -> Vec<Case> {
    let to = [172, 19, 36, 2];
    let whole = Ipv4 { dont_fragment: false, id: 5, ..Ipv4::new(n.c1.address, to, tcp(3000)) };
    let names = ["first", "middle", "last"].into_iter();
    let case = |(name, fragment): (&str, Ipv4)| {
        n.c1.sends(to, udp()).with(|packet| *packet = fragment).called(name).must_leave_by(&n.node2)
    };
    names.zip(whole.fragments(1480)).map(case).collect()
}

fn ttl_and_mac_are_checked(n: &Network) -> Vec<Case> {
    let sends = |ttl: u8| n.c1.sends([172, 19, 36, 2], udp()).with(|packet| packet.ttl = ttl);
    let wrong = |packet: &mut Ipv4| packet.checksum = Some(0x1234);
    vec![
        sends(0).called("TTL 0").must_pass(Reason::TtlExpired),
        sends(1).called("TTL 1").must_pass(Reason::TtlExpired),
        sends(2).called("TTL 2").must_leave_by(&n.node2),
        sends(255).called("TTL 255").must_leave_by(&n.node2),
        sends(64).addressed_to([0xff; 6]).called("to everybody's MAC").must_pass(Reason::OtherHost),
        sends(64).addressed_to([2; 6]).called("to another MAC").must_pass(Reason::OtherHost),
        sends(64).with(wrong).called("a wrong checksum").must_drop(Reason::BadChecksum),
        // An error of the kernel's would be about a packet that nobody sent so.
        sends(1).with(wrong).called("a wrong checksum and TTL 1").must_drop(Reason::BadChecksum),
    ]
}

#[test]
fn the_default_route_carries_what_no_other_does() -> Result<()> {
    if skip_without_root("the_default_route_carries_what_no_other_does") {
        return Ok(());
    }
    let mut network = Network::new()?;
    let default = "0.0.0.0/0".parse()?;
    let n = &network;
    let sends = |to: [u8; 4]| n.c1.sends(to, udp()).called(format!("to {to:?}"));
    let without = vec![
        sends(NOWHERE).must_pass(Reason::NoRoute),
        sends([8, 8, 8, 8]).must_pass(Reason::NoRoute),
        // Beside a /26, in the same /24.
        sends([172, 19, 37, 64]).must_pass(Reason::NoRoute),
    ];
    let with = vec![
        sends(NOWHERE).must_leave_by(&n.node4),
        sends([8, 8, 8, 8]).must_leave_by(&n.node4),
        sends([172, 19, 37, 64]).must_leave_by(&n.node4),
        sends([172, 19, 36, 2]).must_leave_by(&n.node2),
        sends([127, 0, 0, 1]).must_pass(Reason::Reserved),
        sends([192, 0, 2, 1]).must_pass(Reason::KernelRoute),
    ];
    let destination = n.node4.destination();
    check_on(&mut network, &without)?;
    network.set(default, Some(destination))?;
    check_on(&mut network, &with)?;
    network.set(default, None)?;
    check_on(&mut network, &without)
}
