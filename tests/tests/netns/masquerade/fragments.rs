//! Fragments: the first one names the flow, the others follow it, or are dropped.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::{
    Capture,
    packet::{Ipv4, Udp},
    traffic::{self, UdpPair},
};

use super::{Egress, FAR, NODE, PATIENCE, Sender, require_root, translated_port};

/// Nobody has it, so nobody answers.
const SILENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);

fn datagram(source: impl Into<Ipv4Addr>, id: u16, size: usize) -> Ipv4 {
    let udp = Udp::new(5000, 5001, (0..size).map(|n| n as u8).collect::<Vec<u8>>());
    Ipv4 { id, dont_fragment: false, ..Ipv4::new(source, SILENT, udp) }
}

#[test]
fn both_ways_in_order() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    net.by_bpf(|| {
        let pair = UdpPair::new(&net.c1, &net.outside, FAR)?;
        for size in [1473, 4000, 9000] {
            ensure!(pair.exchange(&vec![0x5a; size])?.ip() == NODE);
        }
        traffic::ping_with(&net.c1, FAR, 5, &["-s", "4000"])?.all_answered()?;
        traffic::ping_with(&net.c2, FAR, 5, &["-s", "4000"])?.all_answered()
    })?;
    assert_eq!(net.daemon.drops(Hook::FromContainer, Reason::NatFragment)?, 0);
    net.finish().map(drop)
}

#[test]
fn outwards_the_first_one_comes_first_or_nothing_goes() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let sender = Sender::of(&net.c1)?;
    let send = |packet: &Ipv4| sender.send(packet);
    let sent = datagram(net.c1.address, 1, 100);
    let [first, second, third] = &sent.fragments(40)[..] else { anyhow::bail!("not three fragments") };

    send(second)?;
    send(third)?;
    net.await_count(Hook::FromContainer, Reason::NatFragment, 2)?;
    for fragment in [first, third, second] {
        send(fragment)?;
    }
    net.arrives(|packet| packet.id == 1 && packet.fragment_offset == second.fragment_offset)?;
    // Another datagram of the same flow: what is known of the first does not do for it.
    let other = datagram(net.c1.address, 2, 100).fragments(40);
    send(&other[1])?;
    net.await_count(Hook::FromContainer, Reason::NatFragment, 3)?;

    let port = translated_port(&net.flow("udp", (SILENT, 5001))?)?;
    let seen: Vec<Ipv4> = net.finish()?.into_iter().filter(|packet| packet.destination == SILENT).collect();
    let mut udp = Udp::new(port, 5001, []);
    udp.payload = (0..100).collect();
    let expected = Ipv4 { ttl: 63, source: NODE, payload: udp.into(), ..sent };
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert_eq!(Ipv4::reassemble(&seen)?, expected);
    Ok(())
}

#[test]
fn datagrams_may_be_interleaved() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    let containers = [&net.c1, &net.c2];
    let senders = [Sender::of(&net.c1)?, Sender::of(&net.c2)?];
    // The same ports and the same identification from two containers.
    let sent: Vec<Vec<Ipv4>> =
        containers.iter().map(|container| datagram(container.address, 9, 100).fragments(56)).collect();
    for place in 0..2 {
        for (sender, fragments) in senders.iter().zip(&sent) {
            sender.send(&fragments[place].clone())?;
        }
    }
    net.await_fragments(4)?;
    let ports: Vec<u16> =
        net.flows("udp", (SILENT, 5001))?.iter().map(translated_port).collect::<Result<_>>()?;
    assert_eq!(ports.len(), 2);
    assert_ne!(ports[0], ports[1]);
    assert_eq!(net.daemon.drops(Hook::FromContainer, Reason::NatFragment)?, 0);
    net.finish().map(drop)
}

#[test]
fn inwards_the_first_one_comes_first_or_the_host_has_it() -> Result<()> {
    require_root!();
    let net = Egress::new()?;
    Sender::of(&net.c1)?.send(&datagram(net.c1.address, 1, 10))?;
    net.arrives(|packet| packet.destination == SILENT)?;
    let port = translated_port(&net.flow("udp", (SILENT, 5001))?)?;

    let at_c1 = Capture::start(&net.c1, "eth0", "ip")?;
    let back = net.back()?;
    let reply = |id, to, port| Ipv4 {
        id,
        dont_fragment: false,
        ..Ipv4::new(SILENT, to, Udp::new(5001, port, vec![0x77; 100]))
    };
    let before = net.daemon.drops(Hook::FromUplink, Reason::ToHost)?;
    let early = reply(20, NODE, port).fragments(56);
    back.send(&early[1].clone())?;
    net.await_count(Hook::FromUplink, Reason::ToHost, before + 1)?;
    for fragment in reply(21, NODE, port).fragments(56) {
        back.send(&fragment)?;
    }
    at_c1.wait_for(PATIENCE, |frame| frame.ipv4().is_some_and(|packet| packet.fragment_offset == 7))?;
    let got: Vec<Ipv4> = at_c1.stop()?.iter().filter_map(|frame| frame.ipv4().cloned()).collect();
    let expected = Ipv4 { ttl: 63, ..reply(21, net.c1.address, 5000) };
    let got: Vec<Ipv4> = got.into_iter().filter(|packet| packet.source == SILENT).collect();
    assert_eq!(Ipv4::reassemble(&got).context("at c1")?, expected);
    net.finish().map(drop)
}

impl Egress {
    /// Waits until so many packets to the silent host have arrived.
    fn await_fragments(&self, count: usize) -> Result<()> {
        tests::harness::eventually(PATIENCE, || {
            let frames = self.seen.frames()?;
            let seen =
                frames.iter().filter_map(|frame| frame.ipv4()).filter(|packet| packet.destination == SILENT);
            let seen = seen.count();
            ensure!(seen == count, "{seen} fragments and not {count}");
            Ok(())
        })
    }
}
