//! ICMP errors about translated packets: each reaches the end that sent the packet, which finds its own packet in
//! it (RFC 5508, section 4).

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::{
    Capture,
    packet::{Icmp, Ipv4, L4, Tcp, Udp, flags},
    traffic::UdpPair,
    wait::uninterrupted,
};

use super::{Egress, FAR, NODE, PATIENCE, RULE, Sender, config, require_root, source_port};

/// A host that never answers: the outside gets the packets to it, and is no router.
const SILENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);

/// A router on the way back.
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);

/// Type, code, and the second word.
const ERRORS: &[(u8, u8, [u8; 4])] = &[
    (3, 0, [0; 4]),
    (3, 1, [0; 4]),
    (3, 2, [0; 4]),
    (3, 3, [0; 4]),
    (3, 4, [0, 0, 0x05, 0x14]),
    (3, 9, [0; 4]),
    (3, 10, [0; 4]),
    (3, 13, [0; 4]),
    (11, 0, [0; 4]),
    (11, 1, [0; 4]),
    (12, 0, [20, 0, 0, 0]),
];

/// What a container sends, of each protocol.
fn payloads() -> [L4; 4] {
    [
        Tcp { payload: b"data".to_vec(), ..Tcp::new(5000, 5001, flags::SYN) }.into(),
        Udp::new(5000, 5001, "datagram").into(),
        Udp { checksum: Some(0), ..Udp::new(5002, 5001, "no checksum") }.into(),
        Icmp::echo_request(7, 1, "echo data").into(),
    ]
}

/// A network whose flows outlive the test on a machine that is slow: the client's own stack answers the SYN-ACK with a RST,
/// and a connection that was reset before it was established lives ten seconds.
fn lasting() -> Result<Egress> {
    let timeouts =
        "[timeouts]\ntcp-aborted-seconds = 600\nudp-unreplied-seconds = 600\nicmp-echo-seconds = 600";
    Egress::with(config().table(&format!("{timeouts}\n{RULE}")))
}

#[test]
fn from_the_outside() -> Result<()> {
    require_root!();
    let net = lasting()?;
    let at_c1 = Capture::start(&net.c1, "eth0", "icmp and dst host 172.19.35.2")?;
    let (out, back) = (Sender::of(&net.c1)?, net.back()?);
    let mut expected = Vec::new();
    for (number, payload) in payloads().into_iter().enumerate() {
        let sent = Ipv4 { id: 100 + number as u16, ..Ipv4::new(net.c1.address, SILENT, payload) };
        out.send(&sent)?;
        let seen = net.arrives(|packet| packet.id == sent.id && packet.destination == SILENT)?;
        assert_eq!((seen.source, seen.ttl), (NODE, 63));
        // As the router sees it: one hop further.
        let (quoted, original) = (Ipv4 { ttl: 62, ..seen }.bytes(), Ipv4 { ttl: 62, ..sent }.bytes());
        for &(kind, code, rest) in ERRORS {
            // RFC 792 quotes 8 bytes of transport, RFC 1812 more; with 18 a TCP checksum is just there.
            for length in [28, 38, quoted.len()] {
                let length = length.min(quoted.len());
                let packet = |to, quoted: &[u8]| {
                    let id = expected.len() as u16;
                    Ipv4 { id, ..Ipv4::new(ROUTER, to, Icmp::error(kind, code, rest, &quoted[..length])) }
                };
                back.send(&packet(NODE, &quoted))?;
                let delivered = Ipv4 { ttl: 63, ..packet(net.c1.address, &original) };
                expected.push(delivered);
            }
        }
    }
    let last = expected.last().context("nothing expected")?.id;
    at_c1.wait_for(PATIENCE, |frame| frame.ipv4().is_some_and(|packet| packet.id == last))?;
    at_c1.verify_checksums()?;
    let got: Vec<Ipv4> = at_c1.stop()?.iter().filter_map(|frame| frame.ipv4().cloned()).collect();
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(&expected) {
        assert_eq!(got, expected);
    }
    // They neither end nor advance a flow (RFC 5508, REQ-4 and REQ-5; RFC 5382, REQ-10).
    ensure!(net.flow("tcp", (SILENT, 5001))?["state"] == "tcp-opening");
    ensure!(net.flow("icmp", (SILENT, 0))?["state"] == "icmp-echo");
    ensure!(net.flows("udp", (SILENT, 5001))?.iter().all(|flow| flow["state"] == "udp-unreplied"));
    net.finish().map(drop)
}

/// A reply that the container refuses: the outside gets the container's error, about its own reply.
#[test]
fn from_the_container() -> Result<()> {
    require_root!();
    let net = lasting()?;
    let at_c1 = Capture::start(&net.c1, "eth0", "src net 203.0.113.0/24")?;
    let (out, back) = (Sender::of(&net.c1)?, net.back()?);
    let mut id = 0;
    for (number, payload) in payloads().into_iter().enumerate() {
        let sent = Ipv4 { id: 100 + number as u16, ..Ipv4::new(net.c1.address, SILENT, payload) };
        out.send(&sent)?;
        let seen = net.arrives(|packet| packet.id == sent.id && packet.destination == SILENT)?;
        let port = source_port(&seen).context("no port")?;
        let answer: L4 = match sent.payload {
            L4::Tcp(_) => Tcp::new(5001, port, flags::SYN | flags::ACK).into(),
            L4::Udp(udp) => Udp { checksum: udp.checksum, ..Udp::new(5001, port, "answer") }.into(),
            _ => Icmp::echo_reply(port, 1, "echo data").into(),
        };
        let answer = Ipv4 { id: 200 + number as u16, ..Ipv4::new(SILENT, NODE, answer) };
        back.send(&answer)?;
        let got =
            at_c1.wait_for(PATIENCE, |frame| frame.ipv4().is_some_and(|packet| packet.id == answer.id))?;
        let (got, answer) = (got.ipv4().context("no packet")?.bytes(), Ipv4 { ttl: 63, ..answer }.bytes());
        for &(kind, code, rest) in ERRORS {
            for length in [28, 38, got.len()] {
                let length = length.min(got.len());
                id += 1;
                let packet = |from, quoted: &[u8]| Ipv4 {
                    id: 1000 + id,
                    ..Ipv4::new(from, SILENT, Icmp::error(kind, code, rest, &quoted[..length]))
                };
                out.send(&packet(net.c1.address, &got))?;
                let seen = net.arrives(|packet| packet.id == 1000 + id)?;
                assert_eq!(seen, Ipv4 { ttl: 63, ..packet(NODE, &answer) });
            }
        }
    }
    net.finish().map(drop)
}

/// An error about a flow of another container: it would reach the flow's remote end, as the other container's.
#[test]
fn about_another_container_s_flow() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let (first, second) = (Sender::of(&net.c1)?, Sender::of(&net.c2)?);
    first.send(&Ipv4::new(net.c1.address, SILENT, Udp::new(5000, 5001, "datagram")))?;
    net.arrives(|packet| packet.destination == SILENT)?;
    let answer = Ipv4::new(SILENT, net.c1.address, Udp::new(5001, 5000, "answer")).bytes();
    let error = |from, id| Ipv4 { id, ..Ipv4::new(from, SILENT, Icmp::unreachable(3, &answer)) };
    second.send(&error(net.c2.address, 1001))?;
    net.await_count(Hook::FromContainer, Reason::NatNoFlow, 1)?;
    first.send(&error(net.c1.address, 1002))?;
    let seen = net.arrives(|packet| packet.id == 1001 || packet.id == 1002)?;
    ensure!((seen.id, seen.source) == (1002, NODE), "{seen:?}");
    net.finish().map(drop)
}

#[test]
fn the_kernel_s_own_for_a_closed_socket() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let UdpPair { client, server } = UdpPair::new(&net.c1, &net.outside, FAR)?;
    client.send(b"question")?;
    let (_, from) = uninterrupted(|| server.recv_from(&mut [0; 10]))?;
    drop(client);
    server.connect(from)?;
    server.send(b"answer")?;
    // The outside's socket learns of it: its stack found its own packet in the error.
    let refused = uninterrupted(|| server.recv(&mut [0; 10])).expect_err("nobody answers");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let error = net.arrives(|packet| matches!(&packet.payload, L4::Icmp(message) if message.kind == 3))?;
    let L4::Icmp(message) = &error.payload else { anyhow::bail!("{error:?}") };
    assert_eq!((error.source, message.code, message.checksum), (NODE, 3, None));
    let inner = message.about()?;
    assert_eq!((inner.source, inner.destination, inner.checksum), (FAR, NODE, None));
    assert_eq!(inner.payload.ports(), Some((server.local_addr()?.port(), from.port())));
    let L4::Udp(datagram) = &inner.payload else { anyhow::bail!("{inner:?}") };
    assert_eq!(datagram.checksum, None);
    net.finish().map(drop)
}

/// Quotes that say nothing sure: dropped and counted on the way out, the host's on the way in.
#[test]
fn malformed_quotes() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let (out, back) = (Sender::of(&net.c1)?, net.back()?);
    let sent = Ipv4::new(net.c1.address, SILENT, Udp::new(5000, 5001, "datagram"));
    out.send(&sent)?;
    let seen = net.arrives(|packet| packet.destination == SILENT)?;
    let L4::Udp(Udp { source_port: port, .. }) = seen.payload else { anyhow::bail!("{seen:?}") };

    let quotes = |quoted: Ipv4| -> Vec<Vec<u8>> {
        let later = Ipv4 { fragment_offset: 5, payload: L4::Raw(17, vec![0; 16]), ..quoted.clone() };
        vec![
            quoted.bytes()[..19].to_vec(),
            quoted.bytes()[..27].to_vec(),
            Ipv4 { options: vec![1, 1, 1, 0], ..quoted.clone() }.bytes(),
            Ipv4 { version: 6, ..quoted.clone() }.bytes(),
            later.bytes(),
            Ipv4 { payload: L4::Raw(132, vec![0; 16]), ..quoted.clone() }.bytes(),
            Ipv4 { payload: Icmp::unreachable(3, &[0; 28]).into(), ..quoted }.bytes(),
        ]
    };
    let answer = Ipv4::new(SILENT, net.c1.address, Udp::new(5001, 5000, "answer"));
    let bad = quotes(answer.clone());
    for quote in &bad {
        let packet = Ipv4::new(net.c1.address, SILENT, Icmp::unreachable(3, quote));
        out.send(&packet)?;
    }
    net.await_count(Hook::FromContainer, Reason::NatBadError, bad.len() as u64)?;
    // A quote of a packet that never came.
    let other = Ipv4 { payload: Udp::new(5001, 5009, "answer").into(), ..answer };
    let packet = Ipv4::new(net.c1.address, SILENT, Icmp::unreachable(3, &other.bytes()));
    out.send(&packet)?;
    net.await_count(Hook::FromContainer, Reason::NatNoFlow, 1)?;

    let at_c1 = Capture::start(&net.c1, "eth0", "icmp and dst host 172.19.35.2")?;
    let before = net.daemon.drops(Hook::FromUplink, Reason::ToHost)?;
    let mut bad = quotes(seen.clone());
    bad.push(Ipv4 { payload: Udp::new(port, 5009, "not sent").into(), ..seen.clone() }.bytes());
    for quote in &bad {
        back.send(&Ipv4::new(ROUTER, NODE, Icmp::unreachable(3, quote)))?;
    }
    net.await_count(Hook::FromUplink, Reason::ToHost, before + bad.len() as u64)?;
    back.send(&Ipv4::new(ROUTER, NODE, Icmp::unreachable(3, &seen.bytes())))?;
    at_c1.wait_for(PATIENCE, |_| true)?;
    assert_eq!(at_c1.stop()?.len(), 1, "the good one alone");
    net.finish().map(drop)
}

/// Checksums are updated and not computed anew: what was damaged on its way is not made good.
#[test]
fn a_wrong_checksum_stays_wrong() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let at_c1 = Capture::start(&net.c1, "eth0", "dst host 172.19.35.2")?;
    Sender::of(&net.c1)?.send(&Ipv4::new(net.c1.address, SILENT, Udp::new(5000, 5001, "datagram")))?;
    let seen = net.arrives(|packet| packet.destination == SILENT)?;
    let port = source_port(&seen).context("no port")?;
    let damaged_error = Icmp { checksum: Some(0x1234), ..Icmp::unreachable(3, &seen.bytes()) };
    let damaged_reply = Udp { checksum: Some(0x1234), ..Udp::new(5001, port, "answer") };
    for payload in [L4::from(damaged_error), damaged_reply.into()] {
        net.back()?.send(&Ipv4 { id: 7, ..Ipv4::new(SILENT, NODE, payload) })?;
    }
    let checksums = |frame: &tests::harness::packet::Frame| match &frame.ipv4()?.payload {
        L4::Icmp(message) => message.checksum,
        L4::Udp(datagram) => datagram.checksum,
        _ => None,
    };
    at_c1.wait_for(PATIENCE, |frame| {
        checksums(frame).is_some() && frame.ipv4().is_some_and(|packet| matches!(packet.payload, L4::Icmp(_)))
    })?;
    at_c1.wait_for(PATIENCE, |frame| {
        checksums(frame).is_some() && frame.ipv4().is_some_and(|packet| matches!(packet.payload, L4::Udp(_)))
    })?;
    Ok(())
}
