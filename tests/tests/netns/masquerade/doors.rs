//! Frames that a container makes itself, so that they pass what looks at them: whatever it sends, nothing leaves with its
//! own address.

use anyhow::{Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::{
    Capture, Config,
    daemon::config::uplink_hook,
    eventually,
    kernel::{self, Feature},
    packet::{Frame, Ipv4, L4, Udp},
    skip,
    topology::HOST_MAC,
    traffic,
};

use super::{Egress, FAR, NODE, PATIENCE, RULE, Sender, config, require_root};

/// Priority tags (VLAN 0): without a priority, with one, and two of them.
const PRIORITY_TAGS: [&[u16]; 3] = [&[0], &[0xa000], &[0, 0xe000]];

fn tagged(frame: Frame, tags: &[u16]) -> Frame {
    tags.iter().fold(frame, |frame, control| frame.tagged(*control))
}

/// What a datagram carries.
fn data(payload: &L4) -> &[u8] {
    if let L4::Udp(udp) = payload { &udp.payload } else { &[] }
}

#[test]
fn a_priority_tag_is_no_way_past_translation() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let all = Capture::start(&net.outside, "eth0", "")?;
    let sender = Sender::of(&net.c1)?;
    for (number, tags) in PRIORITY_TAGS.into_iter().enumerate() {
        let port = 5000 + number as u16;
        let frame = |source| {
            let packet = Ipv4::new(source, FAR, Udp::new(5353, port, "tagged"));
            tagged(Frame::new(sender.source, HOST_MAC, packet), tags)
        };
        sender.injector.send(&frame(net.c2.address).bytes())?;
        net.await_count(Hook::FromContainer, Reason::SpoofedSource, number as u64 + 1)?;
        sender.injector.send(&frame(net.c1.address).bytes())?;
        let arrived = net.arrives(|packet| packet.payload.ports().is_some_and(|(_, to)| to == port))?;
        ensure!(arrived.source == NODE, "{arrived:?}");
    }
    net.await_count(Hook::FromContainer, Reason::Vlan, 0)?;
    let frames = all.stop()?;
    ensure!(frames.iter().all(|frame| frame.vlans.is_empty()), "a tag has left: {frames:?}");
    net.finish().map(drop)
}

#[test]
fn what_comes_behind_a_priority_tag_is_delivered() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let back = net.back()?;
    let seen = Capture::start(&net.c1, "eth0", "")?;
    for (number, tags) in PRIORITY_TAGS.into_iter().enumerate() {
        let port = 5000 + number as u16;
        Sender::of(&net.c1)?.send(&Ipv4::new(net.c1.address, FAR, Udp::new(5353, port, "?")))?;
        let sent = net.arrives(|packet| packet.payload.ports().is_some_and(|(_, to)| to == port))?;
        let from = sent.payload.ports().map(|(from, _)| from).unwrap_or_default();
        let reply = Ipv4::new(FAR, NODE, Udp::new(port, from, "behind a tag"));
        let frame = Frame::new(back.source, back.destination, reply.clone());
        back.injector.send(&tagged(frame, tags).bytes())?;
        let is_reply =
            |frame: &Frame| frame.ipv4().is_some_and(|packet| packet.payload.ports() == Some((port, 5353)));
        let arrived = seen.wait_for(PATIENCE, is_reply)?;
        ensure!(arrived.vlans.is_empty(), "{arrived:?}");
        ensure!(
            arrived.ipv4().is_some_and(|packet| packet.destination == net.c1.address
                && matches!(&packet.payload, L4::Udp(udp) if udp.payload == b"behind a tag")),
            "{arrived:?}"
        );
        // To the container's own address, as in a fabric that routes it.
        let direct = Ipv4::new(FAR, net.c1.address, Udp::new(7, port, "to the container"));
        let frame = Frame::new(back.source, back.destination, direct.clone());
        back.injector.send(&tagged(frame, tags).bytes())?;
        let is_direct =
            |frame: &Frame| frame.ipv4().is_some_and(|packet| packet.payload.ports() == Some((7, port)));
        ensure!(seen.wait_for(PATIENCE, is_direct)?.vlans.is_empty());
    }
    // The container answers what came to its own address with that.
    Ok(())
}

#[test]
fn what_follows_a_packet_does_not_make_it_too_big() -> Result<()> {
    require_root!();
    // The uplink takes less than the container may send, and another container less than comes by the uplink.
    let net =
        Egress::build_with(config().table(RULE), 1500, |node| node.ip("link set eth1 mtu 1400").map(drop))?;
    let sender = Sender::of(&net.c1)?;
    for (port, length, dont_fragment) in [(5000, 1400, true), (5001, 1482, true), (5002, 1482, false)] {
        let packet = Ipv4 { dont_fragment, ..Ipv4::new(net.c1.address, FAR, Udp::new(5353, port, "?")) };
        let mut frame = Frame::new(sender.source, HOST_MAC, packet.clone());
        frame.trailer = vec![0x5a; length - packet.bytes().len()];
        sender.injector.send(&frame.bytes())?;
        let arrived = net.arrives(|packet| packet.payload.ports().is_some_and(|(_, to)| to == port))?;
        ensure!(arrived.source == NODE && data(&arrived.payload) == b"?", "{arrived:?}");
    }
    net.await_count(Hook::FromContainer, Reason::TooBig, 0)?;
    net.finish().map(drop)
}

#[test]
fn what_follows_a_reply_does_not_make_it_too_big() -> Result<()> {
    require_root!();
    let net = Egress::build_with(config().table(RULE), 1400, |_| Ok(()))?;
    let back = net.back()?;
    let seen = Capture::start(&net.c1, "eth0", "")?;
    Sender::of(&net.c1)?.send(&Ipv4::new(net.c1.address, FAR, Udp::new(5353, 53, "?")))?;
    let sent = net.arrives(|packet| packet.destination == FAR)?;
    let from = sent.payload.ports().map(|(from, _)| from).unwrap_or_default();
    for (length, dont_fragment) in [(1372, true), (1372, false), (10, true)] {
        let reply = Ipv4 { dont_fragment, ..Ipv4::new(FAR, NODE, Udp::new(53, from, vec![7; length])) };
        let mut frame = Frame::new(back.source, back.destination, reply.clone());
        frame.trailer = vec![0x5a; 1500 - reply.bytes().len()];
        back.injector.send(&frame.bytes())?;
        let is_it = |frame: &Frame| {
            frame.ipv4().is_some_and(|packet| {
                packet.destination == net.c1.address
                    && packet.dont_fragment == dont_fragment
                    && data(&packet.payload).len() == length
            })
        };
        let arrived = seen.wait_for(PATIENCE, is_it)?;
        ensure!(arrived.trailer.is_empty(), "{} bytes follow", arrived.trailer.len());
    }
    net.await_count(Hook::FromUplink, Reason::NatTooBig, 0)?;
    net.finish().map(drop)
}

#[test]
fn what_only_the_kernel_would_forward_is_dropped() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let sender = Sender::of(&net.c1)?;
    // Linux forwards 0.0.0.0/8 since 5.3, and a multicast router groups beyond the link.
    for (number, to) in [[0, 1, 2, 3], [239, 1, 2, 3], [169, 254, 9, 9]].into_iter().enumerate() {
        sender.send(&Ipv4::new(net.c1.address, to, Udp::new(5353, 5353, "to somewhere")))?;
        net.await_count(Hook::FromContainer, Reason::NatKernelRoute, number as u64 + 1)?;
    }
    // The kernel's error about the second option would follow the first, with the packet in it.
    let options = [&[131, 7, 4][..], &FAR.octets(), &[7, 0, 0, 0, 0]].concat();
    let packet = Ipv4::new(net.c1.address, FAR, Udp::new(5353, 5353, "by a source route"));
    let to_node = Ipv4 { destination: NODE, ..packet.clone() };
    for (number, packet) in [packet, to_node].into_iter().enumerate() {
        sender.send(&Ipv4 { options: options.clone(), ..packet })?;
        net.await_count(Hook::FromContainer, Reason::SourceRoute, number as u64 + 1)?;
    }
    traffic::ping(&net.c1, FAR, 1)?.all_answered()?;
    for packet in net.finish()? {
        ensure!(
            matches!(packet.payload, L4::Icmp(ref icmp) if icmp.kind == 8 || icmp.kind == 0),
            "{packet:?}"
        );
    }
    Ok(())
}

#[test]
fn a_container_that_is_not_known_any_more_lets_nothing_out() -> Result<()> {
    require_root!();
    for attach in ["tcx", "clsact"] {
        if attach == "tcx" && kernel::running()? < Feature::Tcx.since() {
            continue;
        }
        let found = Config::new()
            .node("uplinks", r#"["eth0", "eth1"]"#)
            .pool("172.19.0.0/16")
            .block("172.19.35.0/24")
            .datapath("tc-attach", format!("\"{attach}\""));
        let routes = "route add 172.19.35.2 dev cali1\nroute add 172.19.35.3 dev cali2\n";
        let net = Egress::build(found.table(RULE), |node| node.ip_batch(routes).map(drop))?;
        traffic::ping(&net.c1, FAR, 1)?.all_answered()?;
        net.node.ip("route del 172.19.35.2 dev cali1")?;
        eventually(PATIENCE, || {
            let endpoints = net.daemon.cli(&["endpoint", "list", "--json"])?;
            ensure!(!endpoints.to_string().contains("172.19.35.2\""), "{endpoints}");
            Ok(())
        })?;
        let before = net.daemon.drops(Hook::FromContainer, Reason::SpoofedSource)?;
        let sender = Sender::of(&net.c1)?;
        let sources = [net.c1.address, net.c2.address, "192.0.2.77".parse()?];
        for source in sources {
            sender.send(&Ipv4::new(source, FAR, Udp::new(5353, 5353, "from nobody")))?;
        }
        net.await_count(Hook::FromContainer, Reason::SpoofedSource, before + sources.len() as u64)?;
        net.node.ip("route add 172.19.35.2 dev cali1")?;
        eventually(PATIENCE, || traffic::ping(&net.c1, FAR, 1)?.all_answered())?;
        for packet in net.finish()? {
            ensure!(packet.payload.ports().is_none(), "{attach}: {packet:?}");
        }
    }
    Ok(())
}

#[test]
fn a_martian_does_not_reach_a_container() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let seen = Capture::start(&net.c1, "eth0", "udp")?;
    let back = net.back()?;
    let sources = [NODE, "10.141.0.1".parse()?, net.c2.address, "127.0.0.1".parse()?, "224.0.0.1".parse()?];
    // At XDP, a packet for a container goes on to tc unless it is dropped there.
    let hook = if uplink_hook().is_some() { Hook::XdpFromUplink } else { Hook::FromUplink };
    for (number, source) in sources.into_iter().enumerate() {
        back.send(&Ipv4::new(source, net.c1.address, Udp::new(5353, 5353, "a martian")))?;
        net.await_count(hook, Reason::MartianSource, number as u64 + 1)?;
    }
    back.send(&Ipv4::new(FAR, net.c1.address, Udp::new(5353, 5353, "from outside")))?;
    seen.wait_for(PATIENCE, |frame| frame.ipv4().is_some_and(|packet| packet.source == FAR))?;
    ensure!(seen.stop()?.len() == 1, "a martian has arrived");
    Ok(())
}

#[test]
fn frames_for_a_device_above_the_uplink_arrive_there() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let above = "02:00:00:00:0a:bc";
    let made = net.node.ip_batch(&format!(
        "link add macvlan0 link eth1 address {above} type macvlan mode bridge\nlink set macvlan0 up\n"
    ));
    if made.as_ref().is_err_and(|error| format!("{error:#}").contains("Unknown device type")) {
        skip(
            "netns::masquerade::doors::frames_for_a_device_above_the_uplink_arrive_there",
            "this kernel has no macvlan devices",
        );
        return Ok(());
    }
    made?;
    let seen = Capture::start(&net.node, "macvlan0", "udp")?;
    let back = net.back()?;
    // Addresses of a block, with and without a container, a martian, a header that is none.
    let packets = [
        Ipv4::new(FAR, [172, 19, 35, 77], Udp::new(1, 5000, "")),
        Ipv4::new(FAR, net.c1.address, Udp::new(1, 5001, "")),
        Ipv4::new(NODE, net.c1.address, Udp::new(1, 5002, "")),
        Ipv4 { checksum: Some(1), ..Ipv4::new(FAR, net.c1.address, Udp::new(1, 5003, "")) },
    ];
    for packet in packets {
        let ports = packet.payload.ports();
        back.injector.send(&Frame::new(back.source, [2, 0, 0, 0, 0x0a, 0xbc], packet).bytes())?;
        seen.wait_for(PATIENCE, |frame| frame.ipv4().is_some_and(|packet| packet.payload.ports() == ports))?;
    }
    Ok(())
}
