//! Frames that a container makes itself, so that they pass what looks at them: whatever it sends, nothing leaves with its
//! own address.

use anyhow::{Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::{
    Capture,
    packet::{Frame, Ipv4, L4, Udp},
    topology::HOST_MAC,
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
    net.finish().map(drop)
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
