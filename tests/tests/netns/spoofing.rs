//! Packets that a container may not send.

use anyhow::Result;
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::{
    Capture,
    inject::Injector,
    packet::{Arp, Frame, Ipv4, L4, Payload, Udp},
    topology::{GATEWAY, HOST_MAC},
};

use super::{
    network::{Network, PATIENCE},
    require_root,
};

#[test]
fn a_source_that_is_not_the_container_s_never_arrives() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c2, c3, node1, .. } = &network;
    let mac = c1.mac("eth0")?;
    let injector = Injector::new(c1, "eth0")?;
    let captures = [
        (Capture::start(c2, "eth0", "udp port 5353")?, c2.address),
        (Capture::start(c3, "eth0", "udp port 5353")?, c3.address),
        (Capture::start(node1, "eth0", "udp port 5353 and dst host 10.141.0.2")?, "10.141.0.2".parse()?),
    ];
    let send = |source, destination, text| {
        let packet = Ipv4::new(source, destination, Udp::new(5353, 5353, text));
        injector.send(&Frame::new(mac, HOST_MAC, packet).bytes())
    };
    // A neighbour's, one without a container, another node's container's, the node's, anybody's, nobody's.
    let sources =
        ["172.19.35.3", "172.19.35.99", "172.19.36.2", "10.141.0.1", "192.0.2.1", "0.0.0.0", "127.0.0.1"];
    for source in sources {
        for (_, destination) in &captures {
            send(source.parse()?, *destination, "spoofed")?;
        }
    }
    // What is sent after them and arrives shows that they would have.
    for (_, destination) in &captures {
        send(c1.address, *destination, "honest")?;
    }
    for (capture, destination) in captures {
        let is_honest = |frame: &Frame| frame.ipv4().is_some_and(|packet| packet.source == c1.address);
        capture.wait_for(PATIENCE, is_honest)?;
        let frames = capture.stop()?;
        assert!(frames.iter().all(is_honest), "at {destination}: {frames:?}");
        assert_eq!(frames.len(), 1, "{frames:?}");
        let packet = frames[0].ipv4().map(|packet| &packet.payload);
        assert_eq!(packet, Some(&L4::Udp(Udp::new(5353, 5353, "honest"))));
    }
    assert_eq!(daemon1.drops(Hook::FromContainer, Reason::SpoofedSource)?, 3 * sources.len() as u64);
    Ok(())
}

#[test]
fn arp_in_another_s_name_is_dropped() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c2, .. } = &network;
    let mac = c1.mac("eth0")?;
    let injector = Injector::new(c1, "eth0")?;
    let capture = Capture::start(c1, "eth0", "arp")?;
    let ask = |sender| injector.send(&Frame::new(mac, [0xff; 6], Arp::request(mac, sender, GATEWAY)).bytes());
    ask(c2.address)?;
    ask(c1.address)?;
    let honest = Arp::request(mac, c1.address, GATEWAY);
    let reply = Payload::from(honest.reply(HOST_MAC));
    capture.wait_for(PATIENCE, |frame| frame.payload == reply && frame.destination == mac)?;
    let replies: Vec<_> = capture
        .stop()?
        .into_iter()
        .filter(|frame| frame.arp().is_some_and(|arp| arp.operation == 2))
        .collect();
    assert_eq!(replies.len(), 1, "{replies:?}");
    assert_eq!(daemon1.drops(Hook::FromContainer, Reason::SpoofedSource)?, 1);
    Ok(())
}
