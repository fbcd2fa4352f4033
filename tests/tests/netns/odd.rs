//! Packets that BPF leaves to the kernel, or cannot take: each is counted, under its own reason.

use anyhow::{Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::{
    Capture, Daemon, eventually,
    inject::Injector,
    packet::{Arp, Frame, Icmp, Ipv4, L4, Payload, Udp, ethertype},
    skip,
    topology::HOST_MAC,
    traffic,
};

use super::{
    network::{Network, PATIENCE},
    require_root,
};

/// Counters follow the frame in a moment: an injected frame is counted before the send returns, or soon after.
fn await_count(daemon: &Daemon, hook: Hook, reason: Reason, count: u64) -> Result<()> {
    eventually(PATIENCE, || {
        let now = daemon.drops(hook, reason)?;
        ensure!(now == count, "{} {}: {now} in place of {count}", hook.name(), reason.name());
        Ok(())
    })
}

#[test]
fn ip_options_are_the_kernel_s() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, daemon2, c1, c3, node1, .. } = &network;
    let capture = Capture::start(c3, "eth0", "udp port 5353")?;
    // Three no-operations and the end of the list (RFC 791, 3.1).
    let packet = Ipv4 {
        options: vec![1, 1, 1, 0],
        ..Ipv4::new(c1.address, c3.address, Udp::new(5353, 5353, "with options"))
    };
    let before = traffic::ip_forw_datagrams(node1)?;
    Injector::new(c1, "eth0")?.send(&Frame::new(c1.mac("eth0")?, HOST_MAC, packet.clone()).bytes())?;
    let arrived = capture.wait_for(PATIENCE, |frame| frame.ipv4().is_some())?;
    assert_eq!(arrived.ipv4(), Some(&Ipv4 { ttl: 62, ..packet }));
    await_count(daemon1, Hook::FromContainer, Reason::IpOptions, 1)?;
    await_count(daemon2, Hook::FromUplink, Reason::IpOptions, 1)?;
    assert_eq!(traffic::ip_forw_datagrams(node1)?, before + 1);
    Ok(())
}

#[test]
fn a_tagged_frame_is_not_taken_for_an_untagged_one() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c2, node1, fabric, .. } = &network;
    let capture = Capture::start(c2, "eth0", "udp")?;
    let packet = |text| Ipv4::new(c1.address, c2.address, Udp::new(5353, 5353, text));
    let injector = Injector::new(c1, "eth0")?;
    let frame = |text| Frame::new(c1.mac("eth0").unwrap_or_default(), HOST_MAC, packet(text));
    // One tag, two tags, and a service tag (IEEE 802.1Q, 9.6).
    let mut service = frame("tagged").tagged(5);
    service.vlans[0].ethertype = ethertype::SERVICE_VLAN;
    for tagged in [frame("tagged").tagged(5), frame("tagged").tagged(5).tagged(6), service] {
        injector.send(&tagged.bytes())?;
    }
    await_count(daemon1, Hook::FromContainer, Reason::Vlan, 3)?;
    let from_outside = Frame::new([2, 0, 0, 0, 0, 9], node1.mac("eth0")?, packet("tagged")).tagged(6);
    Injector::new(fabric, "br0")?.send(&from_outside.bytes())?;
    await_count(daemon1, Hook::FromUplink, Reason::Vlan, 1)?;
    injector.send(&frame("untagged").bytes())?;
    capture.wait_for(PATIENCE, |frame| frame.ipv4().is_some())?;
    let payloads: Vec<L4> =
        capture.stop()?.iter().filter_map(|frame| Some(frame.ipv4()?.payload.clone())).collect();
    assert_eq!(payloads, [packet("untagged").payload]);
    Ok(())
}

#[test]
fn a_tagged_frame_reaches_the_vlan_s_own_device() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c2, node1, fabric, .. } = &network;
    let devices = node1.ip_batch(
        "link add link cali1 name vlan5 type vlan id 5\nlink set vlan5 up\n\
         link add link eth0 name vlan6 type vlan id 6\nlink set vlan6 up\n",
    );
    if devices.as_ref().is_err_and(|error| format!("{error:#}").contains("Unknown device type")) {
        skip(
            "netns::netns::odd::a_tagged_frame_reaches_the_vlan_s_own_device",
            "this kernel has no VLAN devices",
        );
        return Ok(());
    }
    devices?;
    let packet = Ipv4::new(c1.address, c2.address, Udp::new(5353, 5353, "tagged"));
    let capture = Capture::start(node1, "vlan5", "udp port 5353")?;
    let frame = Frame::new(c1.mac("eth0")?, HOST_MAC, packet.clone()).tagged(5);
    Injector::new(c1, "eth0")?.send(&frame.bytes())?;
    assert_eq!(capture.wait_for(PATIENCE, |_| true)?.ipv4(), Some(&packet));
    await_count(daemon1, Hook::FromContainer, Reason::Vlan, 1)?;

    let capture = Capture::start(node1, "vlan6", "udp port 5353")?;
    let frame = Frame::new([2, 0, 0, 0, 0, 9], node1.mac("eth0")?, packet.clone()).tagged(6);
    Injector::new(fabric, "br0")?.send(&frame.bytes())?;
    assert_eq!(capture.wait_for(PATIENCE, |_| true)?.ipv4(), Some(&packet));
    await_count(daemon1, Hook::FromUplink, Reason::Vlan, 1)
}

#[test]
fn other_protocols_are_passed() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, fabric, node1, .. } = &network;
    let (inside, mac) = (Injector::new(c1, "eth0")?, c1.mac("eth0")?);
    let (outside, node_mac) = (Injector::new(fabric, "br0")?, node1.mac("eth0")?);
    let ipv6 = Payload::Other(ethertype::IPV6, [&[0x60, 0, 0, 0, 0, 0, 59, 64][..], &[0; 32]].concat());
    // 0x88b5: for local experiments (IEEE 802).
    let other = Payload::Other(0x88b5, vec![0; 46]);
    for (payload, reason) in [(ipv6, Reason::Ipv6), (other, Reason::OtherProtocol)] {
        inside.send(&Frame::new(mac, HOST_MAC, payload.clone()).bytes())?;
        await_count(daemon1, Hook::FromContainer, reason, 1)?;
        outside.send(&Frame::new([2, 0, 0, 0, 0, 9], node_mac, payload).bytes())?;
        await_count(daemon1, Hook::FromUplink, reason, 1)?;
    }
    Ok(())
}

#[test]
fn malformed_packets_are_dropped() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c2, fabric, node1, .. } = &network;
    let capture = Capture::start(c2, "eth0", "udp")?;
    let good = Ipv4::new(c1.address, c2.address, Udp::new(5353, 5353, "payload"));
    let too_long = Ipv4 { total_length: Some(1000), ..good.clone() };
    let short_header = Ipv4 { header_words: Some(4), ..good.clone() };
    let bad_checksum = Ipv4 { checksum: Some(0x1234), ..good.clone() };
    let inside = |packet: &Ipv4| -> Result<()> {
        Injector::new(c1, "eth0")?.send(&Frame::new(c1.mac("eth0")?, HOST_MAC, packet.clone()).bytes())
    };
    let outside = |packet: &Ipv4| -> Result<()> {
        let packet = Ipv4 { source: [10, 141, 0, 9].into(), ..packet.clone() };
        let frame = Frame::new([2, 0, 0, 0, 0, 9], node1.mac("eth0")?, packet);
        Injector::new(fabric, "br0")?.send(&frame.bytes())
    };
    for (number, packet) in [&too_long, &short_header].into_iter().enumerate() {
        inside(packet)?;
        await_count(daemon1, Hook::FromContainer, Reason::Malformed, number as u64 + 1)?;
        outside(packet)?;
        await_count(daemon1, Hook::FromUplink, Reason::Malformed, number as u64 + 1)?;
    }
    inside(&bad_checksum)?;
    await_count(daemon1, Hook::FromContainer, Reason::BadChecksum, 1)?;
    outside(&bad_checksum)?;
    await_count(daemon1, Hook::FromUplink, Reason::BadChecksum, 1)?;
    inside(&good)?;
    capture.wait_for(PATIENCE, |frame| frame.ipv4().is_some_and(|packet| packet.payload == good.payload))?;
    assert_eq!(capture.stop()?.len(), 1);
    Ok(())
}

#[test]
fn an_expiring_ttl_is_answered() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, daemon2, c1, c2, c3, .. } = &network;
    let ping = traffic::ping_with(c1, c3.address, 2, &["-t", "1"])?;
    ensure!(ping.errors == 2 && ping.text.contains("From 10.141.0.1"), "{}", ping.text);
    assert_eq!(daemon1.drops(Hook::FromContainer, Reason::TtlExpired)?, 2);
    let ping = traffic::ping_with(c1, c3.address, 2, &["-t", "2"])?;
    ensure!(ping.errors == 2 && ping.text.contains("From 10.141.0.2"), "{}", ping.text);
    assert_eq!(daemon2.drops(Hook::FromUplink, Reason::TtlExpired)?, 2);
    let ping = traffic::ping_with(c1, c2.address, 2, &["-t", "1"])?;
    ensure!(ping.errors == 2 && ping.text.contains("From 10.141.0.1"), "{}", ping.text);
    network.by_bpf(|| traffic::ping_with(c1, c3.address, 2, &["-t", "3"])?.all_answered())?;
    network.by_bpf(|| traffic::ping_with(c1, c2.address, 2, &["-t", "2"])?.all_answered())
}

#[test]
fn the_answer_about_an_expired_ttl_has_the_packet_as_it_was_sent() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { c1, c3, node1, .. } = &network;
    let capture = Capture::start(c1, "eth0", "icmp")?;
    let packet =
        Ipv4 { ttl: 1, id: 99, ..Ipv4::new(c1.address, c3.address, Udp::new(5353, 33_434, "probe")) };
    Injector::new(c1, "eth0")?.send(&Frame::new(c1.mac("eth0")?, HOST_MAC, packet.clone()).bytes())?;
    let answer =
        capture.wait_for(PATIENCE, |frame| frame.ipv4().is_some_and(|ip| ip.source == node1.address))?;
    let expected = Icmp::time_exceeded(&packet.bytes());
    assert_eq!(answer.ipv4().map(|packet| &packet.payload), Some(&L4::Icmp(expected)));
    Ok(())
}

#[test]
fn an_address_probe_of_the_container_is_not_answered() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, .. } = &network;
    let (mac, nobody) = (c1.mac("eth0")?, std::net::Ipv4Addr::UNSPECIFIED);
    let capture = Capture::start(c1, "eth0", "arp[6:2] = 2")?;
    let injector = Injector::new(c1, "eth0")?;
    // A probe and an announcement (RFC 5227, 2.1.1 and 2.3).
    for sender in [nobody, c1.address] {
        injector.send(&Frame::new(mac, [0xff; 6], Arp::request(mac, sender, c1.address)).bytes())?;
    }
    await_count(daemon1, Hook::FromContainer, Reason::Arp, 2)?;
    assert_eq!(capture.stop()?, []);
    Ok(())
}

#[test]
fn multicast_and_broadcast_go_to_the_kernel() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, .. } = &network;
    let injector = Injector::new(c1, "eth0")?;
    let mac = c1.mac("eth0")?;
    let cases = [
        ([224, 0, 0, 251], Reason::Multicast),
        ([255, 255, 255, 255], Reason::Broadcast),
        ([10, 141, 255, 255], Reason::Broadcast),
        ([169, 254, 9, 9], Reason::LinkLocal),
        ([127, 9, 9, 9], Reason::Reserved),
    ];
    let mut expected = std::collections::BTreeMap::new();
    for (destination, reason) in cases {
        let packet = Ipv4::new(c1.address, destination, Udp::new(5353, 5353, "to many"));
        injector.send(&Frame::new(mac, HOST_MAC, packet).bytes())?;
        let count = expected.entry(reason.name()).or_insert(0);
        *count += 1;
        await_count(daemon1, Hook::FromContainer, reason, *count)?;
    }
    Ok(())
}
