//! What a destination's route says, and which route that is.

use anyhow::Result;
use dataplane_common::reason::Reason;
use tests::harness::skip::skip_without_root;

use crate::{
    case::{Case, check_on},
    network::{Container, NOWHERE, Network, OUTSIDE},
    packets::{inbound, udp},
};

groups!(
    from_a_container_to_what_is_the_kernel_s,
    from_an_uplink_to_what_is_the_kernel_s,
    an_address_of_a_block_that_nobody_has_is_dropped,
    the_longest_prefix_decides,
    what_is_not_forwarded_is_not_checked_for_it,
);

fn from_a_container_to_what_is_the_kernel_s(n: &Network) -> Vec<Case> {
    let cases: [([u8; 4], Reason); 17] = [
        ([10, 141, 0, 1], Reason::ToHost),
        ([172, 19, 35, 1], Reason::ToHost),
        ([224, 0, 0, 1], Reason::Multicast),
        ([239, 255, 255, 255], Reason::Multicast),
        ([255, 255, 255, 255], Reason::Broadcast),
        ([10, 141, 255, 255], Reason::Broadcast),
        ([169, 254, 0, 0], Reason::LinkLocal),
        ([169, 254, 1, 1], Reason::LinkLocal),
        ([169, 254, 255, 255], Reason::LinkLocal),
        ([0, 0, 0, 0], Reason::Reserved),
        ([127, 0, 0, 1], Reason::Reserved),
        ([127, 255, 255, 255], Reason::Reserved),
        ([192, 0, 2, 7], Reason::KernelRoute),
        ([198, 51, 100, 7], Reason::NoNextHop),
        (NOWHERE, Reason::NoRoute),
        ([169, 253, 255, 255], Reason::NoRoute),
        ([240, 0, 0, 1], Reason::NoRoute),
    ];
    let case = |(to, reason): ([u8; 4], Reason)| {
        n.c1.sends(to, udp()).called(format!("to {to:?}")).must_pass(reason)
    };
    cases.into_iter().map(case).collect()
}

fn from_an_uplink_to_what_is_the_kernel_s(n: &Network) -> Vec<Case> {
    let cases: [([u8; 4], Reason); 12] = [
        ([10, 141, 0, 1], Reason::ToHost),
        ([172, 19, 35, 1], Reason::ToHost),
        ([224, 0, 0, 5], Reason::Multicast),
        ([255, 255, 255, 255], Reason::Broadcast),
        ([10, 141, 255, 255], Reason::Broadcast),
        // This node is no router for others.
        ([10, 141, 0, 2], Reason::NotLocal),
        ([172, 19, 36, 2], Reason::NotLocal),
        ([169, 254, 1, 1], Reason::NotLocal),
        ([127, 0, 0, 1], Reason::NotLocal),
        ([192, 0, 2, 7], Reason::NotLocal),
        ([198, 51, 100, 7], Reason::NotLocal),
        (NOWHERE, Reason::NotLocal),
    ];
    let case = |(to, reason): ([u8; 4], Reason)| {
        inbound(n.eth0, OUTSIDE, to, udp()).called(format!("to {to:?}")).must_pass(reason)
    };
    cases.into_iter().map(case).collect()
}

fn an_address_of_a_block_that_nobody_has_is_dropped(n: &Network) -> Vec<Case> {
    let vacant: [[u8; 4]; 7] = [
        [172, 19, 35, 0],
        [172, 19, 35, 4],
        [172, 19, 35, 255],
        [172, 19, 40, 64],
        [172, 19, 40, 71],
        [172, 19, 40, 127],
        [172, 19, 50, 8],
    ];
    let mut cases = Vec::new();
    for to in vacant {
        let sent = n.c1.sends(to, udp()).called(format!("{to:?}"));
        cases.push(sent.must_drop(Reason::NoEndpoint));
        let sent = inbound(n.eth0, OUTSIDE, to, udp()).called(format!("{to:?}, from outside"));
        cases.push(sent.must_drop(Reason::NoEndpoint));
    }
    cases
}

fn the_longest_prefix_decides(n: &Network) -> Vec<Case> {
    let sends = |to: [u8; 4]| n.c1.sends(to, udp()).called(format!("to {to:?}"));
    vec![
        // A container, in a /26 block, in another node's /20.
        sends(n.c4.address.octets()).must_reach(&n.c4),
        sends([172, 19, 50, 6]).must_drop(Reason::NoEndpoint),
        sends([172, 19, 50, 63]).must_drop(Reason::NoEndpoint),
        sends([172, 19, 50, 64]).must_leave_by(&n.node4),
        sends([172, 19, 49, 255]).must_leave_by(&n.node4),
        sends([172, 19, 63, 255]).must_leave_by(&n.node4),
        sends([172, 19, 64, 0]).must_pass(Reason::NoRoute),
        sends([172, 19, 47, 255]).must_pass(Reason::NoRoute),
        // A /26 without anything around it.
        sends([172, 19, 37, 63]).must_leave_by(&n.node3),
        sends([172, 19, 37, 64]).must_pass(Reason::NoRoute),
        sends([172, 19, 40, 63]).must_pass(Reason::NoRoute),
        sends([172, 19, 40, 128]).must_pass(Reason::NoRoute),
        // An address of the node in one of its blocks.
        sends([172, 19, 35, 1]).must_pass(Reason::ToHost),
    ]
}

fn what_is_not_forwarded_is_not_checked_for_it(n: &Network) -> Vec<Case> {
    let odd = |to: [u8; 4]| {
        let sent = n.c1.sends(to, udp()).addressed_to([0xff; 6]).padded(3000);
        sent.with(|packet| (packet.ttl, packet.checksum) = (0, Some(0)))
    };
    let odd_inbound = |to: [u8; 4]| {
        let sent = inbound(n.eth0, OUTSIDE, to, udp()).addressed_to([0xff; 6]).padded(3000);
        sent.with(|packet| (packet.ttl, packet.checksum) = (0, Some(0)))
    };
    vec![
        odd([10, 141, 0, 1]).called("to the node").must_pass(Reason::ToHost),
        odd([224, 0, 0, 1]).called("to a group").must_pass(Reason::Multicast),
        odd([172, 19, 35, 4]).called("to nobody").must_drop(Reason::NoEndpoint),
        odd(NOWHERE).called("to nowhere").must_pass(Reason::NoRoute),
        odd_inbound([10, 141, 0, 1]).called("from outside to the node").must_pass(Reason::ToHost),
        // To everybody's MAC: also for what is above the uplink.
        odd_inbound([172, 19, 35, 4]).called("from outside to nobody").must_pass(Reason::OtherHost),
        odd_inbound(n.c1.address.octets()).called("from outside to a container").must_pass(Reason::OtherHost),
        odd_inbound(NOWHERE).called("from outside to nowhere").must_pass(Reason::OtherHost),
        odd_inbound([224, 0, 0, 5]).called("from outside to a group").must_pass(Reason::Multicast),
        odd_inbound([255; 4]).called("from outside to all").must_pass(Reason::Broadcast),
    ]
}

#[test]
fn a_container_comes_goes_and_is_made_anew() -> Result<()> {
    if skip_without_root("a_container_comes_goes_and_is_made_anew") {
        return Ok(());
    }
    let mut network = Network::new()?;
    let n = &network;
    let old = n.c2;
    let anew = Container { mac: [0x02, 0xc0, 0, 0, 1, 1], mtu: 1280, veth: n.vacant, ..old };
    let reaches = |container: &Container| {
        vec![
            n.c1.sends(container.address, udp()).called("from a container").must_reach(container),
            inbound(n.eth0, OUTSIDE, container.address, udp()).called("from outside").must_reach(container),
            container.sends(n.c1.address, udp()).called("its own").must_reach(&n.c1),
        ]
    };
    let gone = vec![
        n.c1.sends(old.address, udp()).called("to the one that is gone").must_drop(Reason::NoEndpoint),
        old.sends(n.c1.address, udp()).called("by the one that is gone").must_drop(Reason::SpoofedSource),
    ];
    let (there, back) = (reaches(&old), reaches(&anew));
    let elsewhere = [old.sends(n.c1.address, udp()).called("by the old veth").must_drop(Reason::SpoofedSource)];

    check_on(&mut network, &there)?;
    network.set(old.address.into(), None)?;
    check_on(&mut network, &gone)?;
    network.set(old.address.into(), Some(anew.destination()))?;
    check_on(&mut network, &back)?;
    check_on(&mut network, &elsewhere)?;
    // From one store to the next, without a moment in which nobody has the address.
    network.set(old.address.into(), Some(old.destination()))?;
    check_on(&mut network, &there)
}
