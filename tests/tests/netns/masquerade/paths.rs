//! What a path is found out by: traceroute and path MTU discovery, through translation.
//!
//! ```text
//!  c1 ─ node ══ 198.51.100.1 outside ── MTU 1400 ── 192.0.2.5 beyond
//! ```

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::{
    Capture, Namespace,
    packet::{Icmp, Ipv4, L4, Tcp, Udp, flags},
    traffic::{self, TcpPair},
    wait::uninterrupted,
};

use super::{Egress, NODE, PATIENCE, Sender, require_root};

const BEYOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 5);

/// A host behind the outside, which routes to it over a link of 1400 bytes.
fn beyond(net: &Egress) -> Result<Namespace> {
    let beyond = Namespace::new("beyond")?;
    net.outside.sysctl("net.ipv4.ip_forward", "1")?;
    net.outside.ip_batch(&format!(
        "link add eth1 mtu 1400 type veth peer name eth0 mtu 1400 netns {}\n\
         address add 192.0.2.1/24 dev eth1\nlink set eth1 up\n",
        beyond.name()
    ))?;
    beyond.ip_batch(&format!(
        "address add {BEYOND}/24 dev eth0\nlink set eth0 up\nroute add default via 192.0.2.1\n"
    ))?;
    // Nobody it talks to is offered more than the path takes: the path itself must tell.
    beyond.ip_batch("route change default via 192.0.2.1 advmss 1460\n")?;
    net.outside.await_links()?;
    beyond.await_links()?;
    Ok(beyond)
}

/// The message of an ICMP error, which came whole.
fn error(packet: &Ipv4) -> Option<&Icmp> {
    match &packet.payload {
        L4::Icmp(message) if matches!(message.kind, 3 | 11 | 12) => Some(message),
        _ => None,
    }
}

#[test]
fn traceroute_by_udp_icmp_and_tcp() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let _beyond = beyond(&net)?;
    for options in [&[][..], &["-I"], &["-T", "-p", "9"]] {
        let hops = traffic::traceroute_with(&net.c1, BEYOND, options)?;
        let addresses: Vec<_> = hops.iter().map(|hop| hop.address).collect();
        // The node itself answers with one of its own addresses.
        let [Some(node), outside, last] = addresses[..] else { anyhow::bail!("{options:?}: {hops:?}") };
        ensure!(net.node.ip("address")?.contains(&node.to_string()), "{options:?}: {hops:?}");
        ensure!(outside == Some(net.outside.address) && last == Some(BEYOND), "{options:?}: {hops:?}");
    }
    ensure!(net.daemon.drops(Hook::FromContainer, Reason::TtlExpired)? >= 3);
    net.finish().map(drop)
}

#[test]
fn tcp_learns_the_path_mtu() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let beyond = beyond(&net)?;
    let at_c1 = Capture::start(&net.c1, "eth0", "icmp")?;
    let pair = TcpPair::connect(&net.c1, &beyond, BEYOND)?;
    net.by_bpf(|| pair.upload(300_000).and_then(|_| pair.download(300_000)))?;
    let learned = net.c1.ip(&format!("route get {BEYOND}"))?;
    ensure!(learned.contains("mtu 1400"), "{learned}");

    let frame = at_c1.wait_for(PATIENCE, |frame| frame.ipv4().and_then(error).is_some())?;
    let packet = frame.ipv4().context("no packet")?;
    assert_eq!(
        (packet.source, packet.destination, packet.checksum),
        (net.outside.address, net.c1.address, None)
    );
    let message = error(packet).context("no error")?;
    assert_eq!((message.kind, message.code, message.sequence_or_mtu(), message.checksum), (3, 4, 1400, None));
    let inner = message.about()?;
    assert_eq!((inner.source, inner.destination, inner.checksum), (net.c1.address, BEYOND, None));
    let client = pair.client.local_addr()?.port();
    assert_eq!(inner.payload.ports().map(|(source, _)| source), Some(client));
    // The connection goes on, and a new one knows.
    pair.exchange()?;
    TcpPair::connect(&net.c1, &beyond, BEYOND)?.upload(300_000)?;
    net.finish().map(drop)
}

/// The error is about the packet as the container sent it, but for what routers change.
#[test]
fn a_datagram_that_is_too_big_for_the_path() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let _beyond = beyond(&net)?;
    let at_c1 = Capture::start(&net.c1, "eth0", "icmp")?;
    let sent = Ipv4 { id: 4711, ..Ipv4::new(net.c1.address, BEYOND, Udp::new(5000, 5001, vec![7; 1472])) };
    Sender::of(&net.c1)?.send(&sent)?;
    let frame = at_c1.wait_for(PATIENCE, |frame| frame.ipv4().and_then(error).is_some())?;
    let message = frame.ipv4().and_then(error).context("no error")?;
    assert_eq!((message.kind, message.code, message.sequence_or_mtu(), message.checksum), (3, 4, 1400, None));
    // The router writes it before it takes one off the TTL.
    let quoted = Ipv4 { ttl: 63, ..sent }.bytes();
    assert_eq!(message.payload, quoted[..message.payload.len()]);
    ensure!(message.payload.len() >= 28);

    let ping = traffic::ping_with(&net.c2, BEYOND, 1, &["-s", "1472", "-M", "do"])?;
    ensure!(ping.errors == 1 && ping.text.contains("mtu = 1400"), "{}", ping.text);
    traffic::ping_with(&net.c2, BEYOND, 3, &["-s", "1372", "-M", "do"])?.all_answered()?;
    net.finish().map(drop)
}

/// On the node's own uplink: a packet with DF is answered; one without is dropped, and never sent on by the
/// kernel in untranslated pieces.
#[test]
fn a_packet_that_is_too_big_for_the_uplink() -> Result<()> {
    require_root!();
    let net = Egress::build(super::config().table(super::RULE), |node| {
        node.ip("link set eth1 mtu 1400").map(drop)
    })?;
    let at_c1 = Capture::start(&net.c1, "eth0", "icmp")?;
    let sender = Sender::of(&net.c1)?;
    let packet =
        Ipv4 { id: 4711, ..Ipv4::new(net.c1.address, super::FAR, Udp::new(5000, 5001, vec![7; 1472])) };
    sender.send(&packet)?;
    let frame = at_c1.wait_for(PATIENCE, |frame| frame.ipv4().and_then(error).is_some())?;
    let message = frame.ipv4().and_then(error).context("no error")?;
    assert_eq!((message.kind, message.code, message.sequence_or_mtu(), message.checksum), (3, 4, 1400, None));
    assert_eq!(message.payload, packet.bytes()[..message.payload.len()]);
    net.await_count(Hook::FromContainer, Reason::NatTooBig, 1)?;

    let without = Ipv4 { dont_fragment: false, ..packet };
    net.by_bpf(|| {
        sender.send(&without)?;
        net.await_count(Hook::FromContainer, Reason::NatTooBig, 2)
    })?;
    net.outside.ip("link set eth0 mtu 1400")?;
    let pair = TcpPair::connect(&net.c1, &net.outside, super::FAR)?;
    pair.upload(300_000)?;
    pair.download(300_000)?;
    net.finish().map(drop)
}

/// A reply that is too big for the container: the kernel fragments it, translated; with DF its sender is told.
#[test]
fn a_reply_that_is_too_big_for_the_container() -> Result<()> {
    require_root!();
    let net = Egress::build_with(super::config().table(super::RULE), 1400, |_| Ok(()))?;
    let pair = traffic::UdpPair::new(&net.c1, &net.outside, super::FAR)?;
    let seen_as = pair.exchange(b"hello")?;
    let (from, port) = (pair.server.local_addr()?.port(), pair.client.local_addr()?.port());
    let reply = Ipv4::new(super::FAR, NODE, Udp::new(from, seen_as.port(), vec![7; 1472]));
    net.back()?.send(&reply)?;
    net.await_count(Hook::FromUplink, Reason::NatTooBig, 1)?;
    // Its sender is told, of the packet that it sent.
    let told = net.arrives(|packet| error(packet).is_some())?;
    let message = error(&told).context("no error")?;
    assert_eq!((told.source, told.destination, told.ttl), (NODE, super::FAR, 64));
    assert_eq!((message.kind, message.code, message.sequence_or_mtu(), message.checksum), (3, 4, 1400, None));
    assert_eq!(message.payload, reply.bytes()[..message.payload.len()]);

    let at_c1 = Capture::start(&net.c1, "eth0", "src net 203.0.113.0/24")?;
    net.back()?.send(&Ipv4 { dont_fragment: false, id: 4711, ..reply.clone() })?;
    let mut buffer = [0; 2000];
    assert_eq!(uninterrupted(|| pair.client.recv(&mut buffer))?, 1472);
    assert_eq!(buffer[..1472], [7; 1472]);
    assert_eq!(net.daemon.drops(Hook::FromUplink, Reason::TooBig)?, 1);
    // The last one may still be on its way into the capture.
    at_c1.wait_for(PATIENCE, |frame| {
        frame.ipv4().is_some_and(|packet| packet.fragment_offset != 0 && !packet.more_fragments)
    })?;
    let fragments: Vec<Ipv4> = at_c1.stop()?.iter().filter_map(|frame| frame.ipv4().cloned()).collect();
    let expected = Ipv4::new(super::FAR, net.c1.address, Udp::new(from, port, vec![7; 1472]));
    assert_eq!(Ipv4::reassemble(&fragments)?, Ipv4 { dont_fragment: false, id: 4711, ttl: 63, ..expected });
    // TCP tells the other end what fits.
    TcpPair::connect(&net.c1, &net.outside, super::FAR)?.download(500_000)?;
    net.finish().map(drop)
}

/// A packet whose TTL ends at the node is answered by the kernel, about the packet as the container sent it, and
/// begins no translation that it does not need.
#[test]
fn a_ttl_that_ends_at_the_node() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let at_c1 = Capture::start(&net.c1, "eth0", "icmp")?;
    let sender = Sender::of(&net.c1)?;
    let payloads: [L4; 3] = [
        Udp::new(5000, 5001, "to the next").into(),
        Tcp::new(5000, 5001, flags::SYN).into(),
        Icmp::echo_request(7, 1, [1; 56]).into(),
    ];
    for payload in payloads {
        let packet = Ipv4 { ttl: 1, ..Ipv4::new(net.c1.address, super::FAR, payload) };
        sender.send(&packet)?;
        at_c1.wait_for(PATIENCE, |frame| {
            let message = frame.ipv4().and_then(error);
            message.is_some_and(|message| {
                message.kind == 11
                    && message.checksum.is_none()
                    && packet.bytes().starts_with(&message.payload)
            })
        })?;
    }
    assert_eq!(net.daemon.drops(Hook::FromContainer, Reason::TtlExpired)?, 3);
    ensure!(net.daemon.cli(&["nat", "list", "--json"])?.as_array().is_some_and(Vec::is_empty));
    // A reply whose TTL ends here is not the host's: it is dropped, and counted.
    let pair = traffic::UdpPair::new(&net.c1, &net.outside, super::FAR)?;
    let seen_as = pair.exchange(b"hello")?;
    let reply = Udp::new(pair.server.local_addr()?.port(), seen_as.port(), "the last hop");
    let reply = Ipv4 { ttl: 1, ..Ipv4::new(super::FAR, NODE, reply) };
    net.back()?.send(&reply)?;
    net.await_count(Hook::FromUplink, Reason::NatTtlExpired, 1)?;
    net.finish().map(drop)
}
