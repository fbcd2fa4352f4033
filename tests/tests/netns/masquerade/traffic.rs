//! What containers do all day: connections, datagrams, pings. The outside sees the node.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::{
    Capture, Namespace,
    packet::{Ipv4, L4, Udp},
    traffic::{self, TcpPair, UdpPair},
    wait::{patient, uninterrupted},
};

use super::{
    Egress, FAR, NODE, PATIENCE, RULE, Sender, config, offload, require_root, source_port, translated_port,
};

/// In both directions fewer packets than a capture has places for, even where each is on its own: at XDP some 2048.
const BYTES: u64 = 700_000;

#[test]
fn tcp_both_ways() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    net.by_bpf(|| {
        let pair = TcpPair::connect(&net.c1, &net.outside, FAR)?;
        pair.upload(BYTES)?;
        let seen_as = pair.download(BYTES)?.client_seen_as;
        ensure!(seen_as.ip() == NODE, "seen as {seen_as}");
        let flow = net.flow("tcp", pair.server.local_addr()?)?;
        ensure!(flow["translated"] == *seen_as.to_string(), "{flow}");
        ensure!(flow["original"] == *pair.client.local_addr()?.to_string(), "{flow}");
        ensure!(flow["state"] == "tcp-established", "{flow}");
        ensure!(flow["bytes_in"].as_u64() > Some(BYTES), "{flow}");
        Ok(())
    })?;
    net.finish().map(drop)
}

/// Checksums are the container's or left to a device, segments are single or in aggregates, in both directions.
#[test]
fn tcp_with_and_without_offloads() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let switch = |inside: &str, outside: &str| -> Result<()> {
        offload(&net.c1, "eth0", inside)?;
        offload(&net.node, "cali1", inside)?;
        offload(&net.node, "eth1", outside)?;
        offload(&net.outside, "eth0", outside)
    };
    for (inside, outside) in [("on", "off"), ("off", "off")] {
        switch(inside, outside)?;
        let capture = Capture::start(&net.c1, "eth0", "src net 203.0.113.0/24")?;
        net.by_bpf(|| {
            let pair = TcpPair::connect(&net.c1, &net.outside, FAR)?;
            pair.upload(500_000)?;
            pair.download(500_000).map(drop)
        })?;
        capture.verify_checksums()?;
        ensure!(!capture.stop()?.is_empty(), "nothing was captured");
    }
    // On the outside's link, all of it was complete so far.
    let Egress { seen, .. } = &net;
    seen.verify_checksums()?;
    for (inside, outside) in [("on", "on"), ("off", "on")] {
        switch(inside, outside)?;
        net.by_bpf(|| {
            let pair = TcpPair::connect(&net.c1, &net.outside, FAR)?;
            pair.upload(BYTES)?;
            pair.download(BYTES).map(drop)
        })?;
    }
    ensure!(traffic::snmp(&net.outside, "Tcp", "InCsumErrors")? == 0);
    ensure!(traffic::snmp(&net.c1, "Tcp", "InCsumErrors")? == 0);
    Ok(())
}

/// By the filters of kernels before 6.6, which go on in other programs in their own way.
#[test]
fn by_clsact_filters() -> Result<()> {
    require_root!();
    let net = Egress::with(config().datapath("tc-attach", "\"clsact\"").table(RULE))?;
    let status = net.daemon.cli(&["status", "--json"])?;
    let hooks = status["hooks"].as_array().context("status without hooks")?;
    ensure!(hooks.iter().all(|hook| hook["mode"] == "clsact" || hook["mode"] == "xdp"), "{status}");
    net.by_bpf(|| {
        traffic::ping(&net.c1, FAR, 3)?.all_answered()?;
        let pair = TcpPair::connect(&net.c2, &net.outside, FAR)?;
        pair.upload(BYTES)?;
        pair.download(BYTES)?;
        let pair = UdpPair::new(&net.c1, &net.outside, FAR)?;
        ensure!(pair.exchange(&[7; 4000])?.ip() == NODE);
        Ok(())
    })?;
    net.finish().map(drop)
}

#[test]
fn udp_request_and_reply() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let replies = Capture::start(&net.c1, "eth0", "udp and dst host 172.19.35.2")?;
    net.by_bpf(|| {
        let pair = UdpPair::new(&net.c1, &net.outside, FAR)?;
        let remote = pair.server.local_addr()?;
        pair.client.send(b"first")?;
        net.arrives(|packet| packet.payload.ports().is_some_and(|(_, to)| to == remote.port()))?;
        ensure!(net.flow("udp", remote)?["state"] == "udp-unreplied");
        uninterrupted(|| pair.server.recv_from(&mut [0; 10]))?;
        for size in [0, 1, 2, 3, 1471, 1472] {
            let seen_as = pair.exchange(&vec![0xa5; size])?;
            ensure!(seen_as.ip() == NODE, "seen as {seen_as}");
            let flow = net.flow("udp", remote)?;
            ensure!(flow["state"] == "udp-replied" && flow["translated"] == *seen_as.to_string(), "{flow}");
        }
        Ok(())
    })?;
    replies.verify_checksums()?;
    net.finish().map(drop)
}

#[test]
fn ping() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let replies = Capture::start(&net.c1, "eth0", "icmp")?;
    net.by_bpf(|| {
        traffic::ping(&net.c1, FAR, 5)?.all_answered()?;
        traffic::ping_with(&net.c2, net.outside.address, 5, &["-s", "1472", "-M", "do"])?.all_answered()
    })?;
    ensure!(net.flow("icmp", SocketAddr::from((FAR, 0)))?["state"] == "icmp-echo");
    replies.verify_checksums()?;
    let packets = net.finish()?;
    let requests =
        packets.iter().filter(|packet| packet.source == NODE && source_port(packet) >= Some(16_384));
    assert_eq!(requests.count(), 10, "identifiers are of the rule's ports");
    Ok(())
}

/// RFC 768: a checksum of zero is none, and stays none.
#[test]
fn a_datagram_without_a_checksum() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let at_c1 = Capture::start(&net.c1, "eth0", "udp and src net 203.0.113.0/24")?;
    let bare = |from, to| Udp { checksum: Some(0), ..Udp::new(from, to, "no checksum") };
    let sent = Ipv4::new(net.c1.address, FAR, bare(5000, 5001));
    Sender::of(&net.c1)?.send(&sent)?;
    let seen = net.arrives(|packet| packet.destination == FAR)?;
    let port = translated_port(&net.flow("udp", SocketAddr::from((FAR, 5001)))?)?;
    assert_eq!(seen, Ipv4 { ttl: 63, ..Ipv4::new(NODE, FAR, bare(port, 5001)) });

    let reply = Ipv4::new(FAR, NODE, bare(5001, port));
    net.back()?.send(&reply)?;
    let got = at_c1.wait_for(PATIENCE, |_| true)?;
    let expected = Ipv4 { ttl: 63, ..Ipv4::new(FAR, net.c1.address, bare(5001, 5000)) };
    assert_eq!(got.ipv4(), Some(&expected));
    Ok(())
}

/// A sum that comes out as zero is sent as ones: zero would say that there is none.
#[test]
fn a_datagram_whose_checksum_comes_out_as_zero() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let sender = Sender::of(&net.c1)?;
    let send = |payload: u16| {
        let packet = Ipv4::new(net.c1.address, FAR, Udp::new(5000, 5001, payload.to_be_bytes()));
        sender.send(&packet)
    };
    send(0)?;
    let first = net.arrives(|packet| packet.destination == FAR)?;
    // What the first one's checksum is, the payload makes up for.
    let sum = u16::from_be_bytes(first.payload.bytes(NODE, FAR)[6..8].try_into()?);
    send(sum)?;
    let second = net.arrives(|packet| matches!(&packet.payload, L4::Udp(udp) if udp.payload != [0, 0]))?;
    assert_eq!(second.payload.bytes(NODE, FAR)[6..8], [0xff, 0xff]);
    let L4::Udp(datagram) = &second.payload else { anyhow::bail!("{second:?}") };
    assert_eq!(datagram.checksum, None, "right, and not absent");
    net.finish().map(drop)
}

/// A socket has one port outside, whomever it talks to (RFC 4787, REQ-1), as long as that is free.
#[test]
fn one_socket_has_one_port_outside() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let sender = Sender::of(&net.c1)?;
    for last in 1..=20 {
        let to = [203, 0, 113, last];
        sender.send(&Ipv4::new(net.c1.address, to, Udp::new(5000, 5001, "hello")))?;
        net.arrives(|packet| packet.destination.octets() == to)?;
    }
    let packets = net.finish()?;
    let mut ports: Vec<_> = packets.iter().filter(|packet| packet.source == NODE).map(source_port).collect();
    assert_eq!(ports.len(), 20);
    ports.dedup();
    assert_eq!(ports.len(), 1, "{ports:?}");
    Ok(())
}

#[test]
fn two_containers_with_one_source_port() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let server = net.outside.enter(|| Ok(std::net::UdpSocket::bind((FAR, 0))?))?;
    server.set_read_timeout(Some(patient(PATIENCE)))?;
    let to = server.local_addr()?;
    let open = |from: &Namespace| {
        from.enter(|| {
            let socket = std::net::UdpSocket::bind(("0.0.0.0", 5000))?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(patient(PATIENCE)))?;
            Ok(socket)
        })
    };
    let sockets = [open(&net.c1)?, open(&net.c2)?];
    let mut seen = Vec::new();
    for (socket, name) in sockets.iter().zip(["one", "two"]) {
        socket.send(name.as_bytes())?;
        seen.push(uninterrupted(|| server.recv_from(&mut [0; 10]))?.1);
    }
    ensure!(seen[0].ip() == NODE && seen[1].ip() == NODE && seen[0] != seen[1], "{seen:?}");
    for (from, name) in seen.iter().zip(["one", "two"]) {
        server.send_to(name.as_bytes(), from)?;
    }
    for (socket, name) in sockets.iter().zip(["one", "two"]) {
        let mut buffer = [0; 10];
        let length = uninterrupted(|| socket.recv(&mut buffer))?;
        assert_eq!(&buffer[..length], name.as_bytes());
    }
    assert_eq!(net.flows("udp", to)?.len(), 2);
    net.finish().map(drop)
}

/// What came to an address of the node and belongs to no translation is the node's own.
#[test]
fn nobody_gets_in_who_was_not_asked() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let pair = UdpPair::new(&net.c1, &net.outside, FAR)?;
    let seen_as = pair.exchange(b"hello")?;
    let at_c1 = Capture::start(&net.c1, "eth0", "ip")?;
    let before = net.daemon.drops(Hook::FromUplink, Reason::ToHost)?;
    // Another port of the one that was asked, and another address (RFC 4787, REQ-8).
    for from in [FAR, net.outside.address] {
        let stranger = net.outside.enter(|| Ok(std::net::UdpSocket::bind((from, 0))?))?;
        stranger.send_to(b"stranger", seen_as)?;
    }
    net.await_count(Hook::FromUplink, Reason::ToHost, before + 2)?;
    pair.exchange(b"still there")?;
    // The last one may still be on its way into the capture.
    at_c1.wait_for(PATIENCE, |frame| frame.ipv4().is_some_and(|packet| packet.source == FAR))?;
    let got = at_c1.stop()?;
    let from_outside = got.iter().filter_map(|frame| frame.ipv4()).filter(|packet| packet.source == FAR);
    assert_eq!(from_outside.count(), 1, "{got:?}");
    // The port is the client's own, which nobody else has towards that server, unless the node keeps it for itself.
    let (port, kept) = (pair.client.local_addr().context("no address")?.port(), 32_768..32_768 + 8_192);
    assert_eq!(port == seen_as.port(), !kept.contains(&port), "{port} {seen_as}");
    net.finish().map(drop)
}
