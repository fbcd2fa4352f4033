//! Packets of a node where the kernel decides (`netfilter = "respect"`): what belongs to a connection that was handed over is
//! carried, and nothing else.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Result, ensure};
use dataplane_common::{
    flow::{
        offer::{Offer, Outcome, Verb},
        record::ticks,
        tuple::Tuple,
    },
    reason::Reason,
};
use tests::harness::{
    packet::{Frame, Ipv4, L4, Payload, Tcp, Udp, flags, protocol},
    skip::skip_without_root,
    wait::eventually,
};

use crate::{
    network::{NODE, Network, OUTSIDE},
    packets::{Sent, inbound},
    programs::{Runner, action},
};

/// An address of a service, which BPF has no route for.
const SERVICE: [u8; 4] = [10, 96, 0, 10];
const LEASE: u32 = ticks(600);

type End = (Ipv4Addr, u16);

fn end(address: impl Into<Ipv4Addr>, port: u16) -> End {
    (address.into(), port)
}

/// A connection from one end to another, whose answers come from `replier` to `replied`.
fn offer(protocol: u8, (from, to): (End, End), (replier, replied): (End, End), lease: u32) -> Offer {
    let verb = Verb::Carry as u16;
    let tuple = |source: End, destination: End| Tuple {
        source: source.0.into(),
        destination: destination.0.into(),
        source_port: source.1,
        destination_port: destination.1,
        protocol,
    };
    let (original, reply) = (tuple(from, to).into(), tuple(replier, replied).into());
    Offer { original, reply, lease, verb, outcome: 0, packets: 0 }
}

fn hand_over(runner: &mut Runner, offer: Offer) -> Result<(Option<Outcome>, u64)> {
    let mut offers = [offer];
    runner.hand_over(&mut offers)?;
    Ok((Outcome::from_number(offers[0].outcome), offers[0].packets))
}

fn udp(from: u16, to: u16) -> L4 {
    Udp::new(from, to, b"some bytes").into()
}

fn tcp(from: u16, to: u16, flags: u8) -> L4 {
    Tcp { payload: b"some bytes".to_vec(), ..Tcp::new(from, to, flags) }.into()
}

/// The kernel gets the packet as it came.
fn is_left(runner: &mut Runner, sent: &Sent, reason: Reason) -> Result<()> {
    let packet = sent.packet();
    let counted = runner.run_counted(&packet)?;
    let moved: Vec<_> = counted.moved.iter().map(|(hook, reason, _)| (*hook, *reason)).collect();
    assert_eq!(moved, [(packet.hook, reason)], "{sent:?}");
    assert_eq!((counted.ran.action, counted.ran.bytes), (action::PASS, packet.frame), "{sent:?}");
    Ok(())
}

/// The packet leaves with these ends; `macs` are those of a frame for a container.
fn is_carried(
    runner: &mut Runner,
    sent: &Sent,
    (from, to): (End, End),
    macs: Option<([u8; 6], [u8; 6])>,
) -> Result<()> {
    let mut expected = Ipv4 { source: from.0, destination: to.0, ..sent.ipv4().clone() };
    expected.ttl -= 1;
    let ports = match &mut expected.payload {
        L4::Udp(udp) => (&mut udp.source_port, &mut udp.destination_port),
        L4::Tcp(tcp) => (&mut tcp.source_port, &mut tcp.destination_port),
        other => anyhow::bail!("no ports: {other:?}"),
    };
    (*ports.0, *ports.1) = (from.1, to.1);
    let (source, destination) = macs.unwrap_or((sent.frame.source, sent.frame.destination));
    let expected = Frame::new(source, destination, Payload::Ipv4(expected)).bytes();
    let packet = sent.packet();
    let counted = runner.run_counted(&packet)?;
    let reason = if macs.is_some() { Reason::Delivered } else { Reason::Forwarded };
    let moved: Vec<_> = counted.moved.iter().map(|(hook, reason, _)| (*hook, *reason)).collect();
    assert_eq!(moved, [(packet.hook, reason)], "{sent:?}");
    assert_eq!((counted.ran.action, counted.ran.bytes), (action::REDIRECT, expected), "{sent:?}");
    Ok(())
}

#[test]
fn a_service_is_translated_both_ways_between_containers() -> Result<()> {
    if skip_without_root("a_service_is_translated_both_ways_between_containers") {
        return Ok(());
    }
    let mut network = Network::respecting()?;
    let (c1, c2) = (network.c1, network.c2);
    let (client, service, backend) = (end(c1.address, 40_000), end(SERVICE, 80), end(c2.address, 8080));
    let into = |container: &crate::network::Container| Some((container.veth.mac.octets(), container.mac));
    network.programs.enter(|runner| {
        for (number, to, back) in [
            (protocol::UDP, udp(40_000, 80), udp(8080, 40_000)),
            (protocol::TCP, tcp(40_000, 80, flags::ACK), tcp(8080, 40_000, flags::ACK)),
        ] {
            let (to, back) = (c1.sends(SERVICE, to), c2.sends(c1.address, back));
            is_left(runner, &to, Reason::KernelDecides)?;
            is_left(runner, &back, Reason::KernelDecides)?;
            let connection = offer(number, (client, service), (backend, client), LEASE);
            assert_eq!(hand_over(runner, connection)?, (Some(Outcome::Carried), 0));
            is_carried(runner, &to, (client, backend), into(&c2))?;
            is_carried(runner, &back, (service, client), into(&c1))?;
            assert_eq!(hand_over(runner, connection)?, (Some(Outcome::Carried), 2), "renewed");
            assert_eq!(
                hand_over(runner, Offer { verb: Verb::End as u16, ..connection })?.0,
                Some(Outcome::Ended)
            );
            is_left(runner, &to, Reason::KernelDecides)?;
            is_left(runner, &back, Reason::KernelDecides)?;
        }
        runner.check_flows()
    })
}

#[test]
fn both_ends_may_be_translated_by_way_of_an_uplink() -> Result<()> {
    if skip_without_root("both_ends_may_be_translated_by_way_of_an_uplink") {
        return Ok(());
    }
    let mut network = Network::respecting()?;
    let (c1, eth0, outside) = (network.c1, network.eth0, network.outside.destination());
    network.set("203.0.113.0/24".parse()?, Some(outside))?;
    let (remote, published) = (end(OUTSIDE, 5000), end(NODE, 80));
    let (node, container) = (end([172, 19, 35, 1], 6000), end(c1.address, 8080));
    network.programs.enter(|runner| {
        let connection = offer(protocol::TCP, (remote, published), (container, node), LEASE);
        let to = inbound(eth0, OUTSIDE, NODE, tcp(5000, 80, flags::ACK));
        let back = c1.sends(node.0, tcp(8080, 6000, flags::ACK));
        is_left(runner, &to, Reason::KernelDecides)?;
        is_left(runner, &back, Reason::KernelDecides)?;
        assert_eq!(hand_over(runner, connection)?.0, Some(Outcome::Carried));
        is_carried(runner, &to, (node, container), Some((c1.veth.mac.octets(), c1.mac)))?;
        is_carried(runner, &back, (published, remote), None)?;
        // No rule of ours has to agree with what the kernel decided.
        runner.sweep()?;
        is_carried(runner, &to, (node, container), Some((c1.veth.mac.octets(), c1.mac)))?;
        // The same by a veth that the source is not behind.
        let forged = Sent { interface: network.c2.veth, ..back.clone() };
        let dropped = runner.run_counted(&forged.packet())?;
        assert_eq!((dropped.ran.action, dropped.moved[0].1), (action::DROP, Reason::SpoofedSource));
        // With a container's address, by an uplink.
        let forged = inbound(eth0, c1.address, node.0, tcp(8080, 6000, flags::ACK));
        is_left(runner, &forged, Reason::KernelDecides)
    })
}

#[test]
fn what_is_not_plain_is_the_kernel_s() -> Result<()> {
    if skip_without_root("what_is_not_plain_is_the_kernel_s") {
        return Ok(());
    }
    let mut network = Network::respecting()?;
    let (c1, c2) = (network.c1, network.c2);
    let (from, to) = (end(c1.address, 40_000), end(c2.address, 80));
    let of = |flags| c1.sends(c2.address, tcp(40_000, 80, flags));
    let connection = offer(protocol::TCP, (from, to), (to, from), LEASE);
    let into = Some((c2.veth.mac.octets(), c2.mac));
    network.programs.enter(|runner| {
        assert_eq!(hand_over(runner, connection)?.0, Some(Outcome::Carried));
        let data = of(flags::ACK);
        let odd = [
            data.clone().with(|packet| packet.options = vec![1, 1, 1, 0]),
            data.clone().with(|packet| packet.more_fragments = true),
            data.clone().with(|packet| packet.fragment_offset = 100),
            c1.sends(c2.address, udp(40_000, 80)),
        ];
        let mut elsewhere = data.clone();
        elsewhere.frame.destination = [2, 0, 0, 0, 0, 99];
        is_left(runner, &elsewhere, Reason::OtherHost)?;
        for sent in &odd {
            is_left(runner, sent, Reason::KernelDecides)?;
        }
        is_left(runner, &data.clone().with(|packet| packet.ttl = 1), Reason::TtlExpired)?;
        is_carried(runner, &data, (from, to), into)?;
        for flag in [flags::SYN, flags::SYN | flags::ACK] {
            is_left(runner, &of(flag), Reason::KernelDecides)?;
            is_carried(runner, &data, (from, to), into)?;
        }
        // The end of a connection ends the flow; what follows is the kernel's.
        for flag in [flags::FIN | flags::ACK, flags::RST] {
            is_left(runner, &of(flag), Reason::KernelDecides)?;
            is_left(runner, &data, Reason::KernelDecides)?;
            // Who renews the lease does not bring the flow back.
            let renewal = Offer { verb: Verb::Renew as u16, ..connection };
            assert_eq!(hand_over(runner, renewal)?.0, Some(Outcome::Ended));
            is_left(runner, &data, Reason::KernelDecides)?;
            assert_eq!(hand_over(runner, connection)?.0, Some(Outcome::Carried));
            is_carried(runner, &data, (from, to), into)?;
        }
        runner.check_flows()
    })
}

#[test]
fn a_lease_ends_though_packets_come() -> Result<()> {
    if skip_without_root("a_lease_ends_though_packets_come") {
        return Ok(());
    }
    let mut network = Network::respecting()?;
    let (c1, c2) = (network.c1, network.c2);
    let (from, to) = (end(c1.address, 40_000), end(c2.address, 53));
    let sent = c1.sends(c2.address, udp(40_000, 53)).packet();
    network.programs.enter(|runner| {
        let connection = offer(protocol::UDP, (from, to), (to, from), ticks(1));
        assert_eq!(hand_over(runner, connection)?.0, Some(Outcome::Carried));
        // A datagram every few milliseconds: by its own timeout the flow would live for two minutes.
        eventually(Duration::from_secs(30), || {
            let ran = runner.run(&sent)?;
            ensure!(ran.action == action::PASS, "still carried");
            Ok(())
        })?;
        runner.sweep()?;
        runner.check_flows()
    })
}

#[test]
fn only_what_bpf_reaches_is_carried_and_the_latest_connection_has_its_tuples() -> Result<()> {
    if skip_without_root("only_what_bpf_reaches_is_carried") {
        return Ok(());
    }
    let mut network = Network::respecting()?;
    let (c1, c2) = (network.c1, network.c2);
    let ends = |one: Ipv4Addr, other: Ipv4Addr| (end(one, 40_000), end(other, 80));
    network.programs.enter(|runner| {
        for (one, other) in [
            (c1.address, NODE.into()),
            (c1.address, [192, 0, 2, 1].into()),
            (c1.address, [172, 19, 35, 99].into()),
            (c1.address, network.c1_second.address),
            ([172, 19, 36, 2].into(), [172, 19, 38, 2].into()),
        ] {
            let (from, to) = ends(one, other);
            let connection = offer(protocol::UDP, (from, to), (to, from), LEASE);
            let outcome = hand_over(runner, connection)?.0;
            // Two addresses of one container are two endpoints: BPF delivers between them.
            let is_reached = other == network.c1_second.address;
            let expected = if is_reached { Outcome::Carried } else { Outcome::Unreachable };
            assert_eq!(outcome, Some(expected), "{one} {other}");
        }
        let (client, service) = ends(c1.address, SERVICE.into());
        let (first, second) = (end(c2.address, 80), end(c2.address, 81));
        for backend in [first, second] {
            let connection = offer(protocol::UDP, (client, service), (backend, client), LEASE);
            assert_eq!(hand_over(runner, connection)?, (Some(Outcome::Carried), 0));
            runner.check_flows()?;
        }
        is_left(runner, &c2.sends(c1.address, udp(80, 40_000)), Reason::KernelDecides)?;
        is_carried(
            runner,
            &c2.sends(c1.address, udp(81, 40_000)),
            (service, client),
            Some((c1.veth.mac.octets(), c1.mac)),
        )
    })
}
