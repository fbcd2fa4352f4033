//! Packets that do not fit: the kernel fragments them or answers, and the sender learns.

use anyhow::{Context as _, Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::{
    Capture, Config, Container, ContainerSpec, Daemon, Fabric, Node,
    inject::Injector,
    packet::{Frame, Icmp, Ipv4, L4, Udp},
    topology::HOST_MAC,
    traffic::{self, TcpPair},
};

use super::{
    network::{Network, PATIENCE, Setup, base},
    require_root,
};

const NARROW: Setup = Setup { attach: "auto", fabric_mtu: 1400, container_mtu: 1500 };

/// The ICMP message that a frame carries.
fn icmp(frame: &Frame) -> Option<&Icmp> {
    match &frame.ipv4()?.payload {
        L4::Icmp(message) => Some(message),
        _ => None,
    }
}

#[test]
fn the_container_gets_frag_needed_about_its_own_packet() -> Result<()> {
    require_root!();
    let network = Network::with(NARROW)?;
    let Network { daemon1, c1, c3, node1, .. } = &network;
    let capture = Capture::start(c1, "eth0", "icmp")?;
    let packet =
        Ipv4 { id: 4711, ttl: 60, ..Ipv4::new(c1.address, c3.address, Udp::new(5353, 5353, vec![7; 1472])) };
    let frame = Frame::new(c1.mac("eth0")?, HOST_MAC, packet.clone());
    Injector::new(c1, "eth0")?.send(&frame.bytes())?;
    let answer = capture.wait_for(PATIENCE, |frame| icmp(frame).is_some_and(|message| message.kind == 3))?;
    let outer = answer.ipv4().context("no packet")?;
    assert_eq!((outer.source, outer.destination, outer.checksum), (node1.address, c1.address, None));
    let message = icmp(&answer).context("no message")?;
    assert_eq!((message.code, message.sequence_or_mtu(), message.checksum), (4, 1400, None));
    let inner = message.about()?;
    // As the container sent it: the TTL, too.
    assert_eq!((inner.source, inner.destination), (packet.source, packet.destination));
    assert_eq!((inner.id, inner.ttl, inner.checksum), (4711, 60, None));
    assert_eq!(inner.payload.ports(), Some((5353, 5353)));
    assert_eq!(daemon1.drops(Hook::FromContainer, Reason::TooBig)?, 1);

    let ping = traffic::ping_with(c1, c3.address, 1, &["-s", "1472", "-M", "do"])?;
    ensure!(ping.errors == 1 || ping.text.contains("too long"), "{}", ping.text);
    traffic::ping_with(c1, c3.address, 3, &["-s", "1372", "-M", "do"])?.all_answered()
}

#[test]
fn tcp_learns_the_path_mtu_and_goes_on() -> Result<()> {
    require_root!();
    let network = Network::with(NARROW)?;
    let Network { daemon1, daemon2, c1, c3, .. } = &network;
    let pair = TcpPair::connect(c1, c3, c3.address)?;
    pair.upload(2_000_000)?;
    pair.download(2_000_000)?;
    assert!(daemon1.drops(Hook::FromContainer, Reason::TooBig)? >= 1);
    assert!(daemon2.drops(Hook::FromContainer, Reason::TooBig)? >= 1);
    let learned = c1.ip(&format!("route get {}", c3.address))?;
    assert!(learned.contains("mtu 1400"), "{learned}");
    // From here on every segment fits.
    network.by_bpf(|| {
        pair.upload(5_000_000)?;
        pair.download(5_000_000)?;
        traffic::tcp_transfer(c1, c3, c3.address, 1_000_000)
    })?;
    Ok(())
}

#[test]
fn without_df_the_kernel_fragments() -> Result<()> {
    require_root!();
    let network = Network::with(NARROW)?;
    let Network { daemon1, c1, c3, node1, .. } = &network;
    let before = traffic::ip_forw_datagrams(node1)?;
    traffic::ping_with(c1, c3.address, 3, &["-s", "1472", "-M", "dont"])?.all_answered()?;
    assert_eq!(daemon1.drops(Hook::FromContainer, Reason::TooBig)?, 3);
    // The kernel fragmented the requests; the fragments of the replies came in by BPF.
    assert_eq!(traffic::ip_forw_datagrams(node1)?, before + 3);
    Ok(())
}

#[test]
fn fragments_are_carried_by_bpf() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { c1, c2, c3, .. } = &network;
    network.by_bpf(|| {
        for to in [c2, c3] {
            traffic::ping_with(c1, to.address, 5, &["-s", "4000"])?.all_answered()?;
            traffic::udp_exchange(c1, to, to.address, &[0x5a; 9000])?;
        }
        Ok(())
    })
}

#[test]
fn a_container_with_a_smaller_mtu_than_the_sender_s() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node1", "10.141.0.1")?;
    let specs =
        [ContainerSpec::new("cali1", "172.19.35.2")?, ContainerSpec::new("cali2", "172.19.35.3")?.mtu(1300)];
    let [c1, c2]: [Container; 2] =
        node.add(&specs)?.try_into().map_err(|_| anyhow::anyhow!("not two containers"))?;
    let config: Config =
        base().block("172.19.35.0/24").endpoint(c1.address, "cali1").endpoint(c2.address, "cali2");
    let daemon = Daemon::start(&node, &config)?;
    let ping = traffic::ping_with(&c1, c2.address, 1, &["-s", "1400", "-M", "do"])?;
    ensure!(ping.errors == 1 && ping.text.contains("1300"), "{}", ping.text);
    assert_eq!(daemon.drops(Hook::FromContainer, Reason::TooBig)?, 1);
    let pair = TcpPair::connect(&c1, &c2, c2.address)?;
    pair.upload(2_000_000)?;
    pair.download(2_000_000).map(drop)
}

#[test]
fn a_changed_mtu_of_the_uplink_is_followed() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, node1, .. } = &network;
    let pair = TcpPair::connect(c1, c3, c3.address)?;
    pair.upload(1_000_000)?;
    node1.ip("link set eth0 mtu 1280")?;
    pair.upload(1_000_000)?;
    tests::harness::eventually(PATIENCE, || {
        let ping = traffic::ping_with(c1, c3.address, 1, &["-s", "1400", "-M", "do"])?;
        ensure!(ping.received == 0 && ping.errors == 1, "{}", ping.text);
        let learned = c1.ip(&format!("route get {}", c3.address))?;
        ensure!(learned.contains("mtu 1280"), "{learned}");
        Ok(())
    })?;
    assert!(daemon1.drops(Hook::FromContainer, Reason::TooBig)? >= 1);
    Ok(())
}
