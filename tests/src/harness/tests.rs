//! The harness on the kernel's own forwarding, without any data path of ours.

use std::{
    net::Ipv4Addr,
    panic::{self, AssertUnwindSafe},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{
    packet::{Arp, Frame, Icmp, Ipv4, L4, Tcp, Udp, flags},
    skip::skip_without_root,
    topology::{GATEWAY, HOST_MAC},
    traffic::{self, Hop, TcpPair, UdpPair},
    wait::patient,
    *,
};

mod daemon;

/// Two nodes with one container each, and the kernel's routes between them.
struct TwoNodes {
    c1: Container,
    c2: Container,
    node1: Node,
    node2: Node,
    _fabric: Fabric,
}

impl TwoNodes {
    fn new() -> Result<Self> {
        let fabric = Fabric::new()?;
        let node1 = Node::new(&fabric, "node1", "10.141.0.1")?;
        let node2 = Node::new(&fabric, "node2", "10.141.0.2")?;
        node1.route_via("172.19.36.0/24", node2.address)?;
        node2.route_via("172.19.35.0/24", node1.address)?;
        let c1 = node1.routed_container("cali1", "172.19.35.2")?;
        let c2 = node2.routed_container("cali2", "172.19.36.2")?;
        // Proxy ARP answers only for what the node has a route to by another interface.
        node1.default_via(node2.address)?;
        node2.default_via(node1.address)?;
        Ok(Self { c1, c2, node1, node2, _fabric: fabric })
    }
}

fn hop(address: Ipv4Addr) -> Hop {
    Hop { address: Some(address), mark: None }
}

#[test]
fn traffic_passes_between_two_nodes() -> Result<()> {
    if skip_without_root("traffic_passes_between_two_nodes") {
        return Ok(());
    }
    let TwoNodes { c1, c2, node1, node2, _fabric } = TwoNodes::new()?;
    let before = traffic::ip_forw_datagrams(&node1)?;
    let ping = traffic::ping(&c1, c2.address, 5)?;
    ping.all_answered()?;
    assert_eq!(ping.sent, 5);
    // Ten packets of ours; were the counter of another namespace read, nothing would have moved.
    assert_eq!(traffic::ip_forw_datagrams(&node1)? - before, 10);

    assert_eq!(traffic::traceroute(&c1, c2.address)?, [node1.address, node2.address, c2.address].map(hop));
    traffic::ping(&c1, "172.19.36.77", 2)?.none_answered().unwrap_err();

    let upload = traffic::tcp_transfer(&c1, &c2, c2.address, 20_000_000)?;
    assert_eq!(upload.client_seen_as.ip(), c1.address);
    assert!(upload.bits_per_second() > 1e6);
    traffic::tcp_download(&c1, &c2, c2.address, 3_000_001)?;
    assert_eq!(traffic::udp_exchange(&c1, &c2, c2.address, b"hello")?.ip(), c1.address);

    let (tcp, udp) = (TcpPair::connect(&c1, &c2, c2.address)?, UdpPair::new(&c1, &c2, c2.address)?);
    tcp.exchange()?;
    udp.exchange(&[7; 1400])?;
    // Lost packets are a result as well, and an old connection outlives them.
    node1.ip("route add blackhole 172.19.36.2/32")?;
    traffic::ping(&c1, c2.address, 1)?.all_answered().unwrap_err();
    node1.ip("route del blackhole 172.19.36.2/32")?;
    tcp.exchange()?;
    udp.exchange(b"still here")?;
    Ok(())
}

#[test]
fn a_host_outside_sees_what_the_node_translates_to() -> Result<()> {
    if skip_without_root("a_host_outside_sees_what_the_node_translates_to") {
        return Ok(());
    }
    let fabric = Fabric::new()?;
    let head = Node::new(&fabric, "head", "10.141.255.254")?;
    let outside = head.outside("eth1", "192.168.200.172/24", "192.168.200.1")?;
    let far = outside.add_address("192.0.2.1")?;
    let c1 = head.routed_container("cali1", "172.19.35.2")?;
    let capture = Capture::start(&outside, "eth0", "icmp")?;
    traffic::ping(&c1, far, 1)?.none_answered()?;
    capture
        .wait_for(Duration::from_secs(5), |frame| frame.ipv4().is_some_and(|ip| ip.source == c1.address))?;
    head.run_with_input(
        ["nft", "-f", "-"],
        "table ip nat { chain post { type nat hook postrouting priority 100; oifname eth1 masquerade; }; }",
    )
    .ok()?;
    traffic::ping(&c1, far, 1)?.all_answered()?;
    capture.wait_for(Duration::from_secs(5), |frame| frame.ipv4().is_some_and(|ip| ip.source == far))?;
    assert!(capture.stop()?.iter().any(|frame| frame.ipv4().unwrap().source == outside.node_address));
    let seen = traffic::tcp_transfer(&c1, &outside, far, 1000)?.client_seen_as;
    assert_eq!(seen.ip(), outside.node_address);
    assert_eq!(traffic::udp_exchange(&c1, &outside, far, b"query")?.ip(), outside.node_address);
    Ok(())
}

/// The kernel verifies what we built, and we what the kernel built.
#[test]
fn packets_agree_with_the_kernel() -> Result<()> {
    if skip_without_root("packets_agree_with_the_kernel") {
        return Ok(());
    }
    let TwoNodes { c1, c2, node1, node2: _node2, _fabric } = TwoNodes::new()?;
    // Otherwise the kernel leaves the checksums of TCP and UDP to a device that is not there.
    c2.run(["ethtool", "-K", "eth0", "tx", "off"]).ok()?;
    let (mac, capture) = (c1.mac("eth0")?, Capture::start(&c1, "eth0", "")?);
    let injector = inject::Injector::new(&c1, "eth0")?;
    let send =
        |l4: L4| injector.send(&Frame::new(mac, HOST_MAC, Ipv4::new(c1.address, c2.address, l4)).bytes());
    let wait = |wanted: &dyn Fn(&L4) -> bool| {
        capture.wait_for(Duration::from_secs(5), |frame| {
            frame.destination == mac && frame.ipv4().is_some_and(|ip| wanted(&ip.payload))
        })
    };

    injector.send(&Frame::new(mac, [0xff; 6], Arp::request(mac, c1.address, GATEWAY)).bytes())?;
    let reply = Arp::request(mac, c1.address, GATEWAY).reply(HOST_MAC);
    capture.wait_for(Duration::from_secs(5), |frame| frame.arp() == Some(&reply))?;

    send(Icmp::echo_request(7, 9, "data").into())?;
    wait(&|l4| *l4 == L4::Icmp(Icmp::echo_reply(7, 9, "data")))?;
    // Nobody listens there: a reset, whose checksum is right.
    send(Tcp::new(40_000, 9, flags::SYN).into())?;
    wait(&|l4| matches!(l4, L4::Tcp(Tcp { flags: 0x14, checksum: None, acknowledgement: 2, .. })))?;
    let server = c2.enter(|| Ok(std::net::UdpSocket::bind("0.0.0.0:5353")?))?;
    server.set_read_timeout(Some(patient(Duration::from_secs(5))))?;
    // The first has a wrong checksum, so the socket sees only the second.
    send(Udp { checksum: Some(1), ..Udp::new(40_001, 5353, "wrong") }.into())?;
    send(Udp::new(40_001, 5353, "right").into())?;
    let mut buffer = [0; 16];
    let (length, from) = server.recv_from(&mut buffer)?;
    assert_eq!((&buffer[..length], from.to_string()), (&b"right"[..], "172.19.35.2:40001".to_owned()));
    server.send_to(b"answer", from)?;
    let answer = wait(&|l4| *l4 == L4::Udp(Udp::new(5353, 40_001, "answer")))?;
    assert_eq!((answer.source, answer.ipv4().unwrap().ttl), (HOST_MAC, 62));
    assert_eq!(node1.mac("cali1")?, HOST_MAC);
    capture.stop().map(drop)
}

#[test]
fn a_container_is_removed_and_made_again() -> Result<()> {
    if skip_without_root("a_container_is_removed_and_made_again") {
        return Ok(());
    }
    let TwoNodes { c1, c2, node1, node2: _node2, _fabric } = TwoNodes::new()?;
    let (old_index, old_path) = (node1.ifindex("cali1")?, c1.path());
    let spec = node1.remove(c1)?;
    node1.ifindex("cali1").unwrap_err();
    assert!(!Path::new(&old_path).exists());
    traffic::ping(&c2, "172.19.35.2", 1)?.all_answered().unwrap_err();
    let c1 = node1.add(&[spec])?.remove(0);
    assert_ne!(node1.ifindex("cali1")?, old_index);
    eventually(Duration::from_secs(5), || traffic::ping(&c2, c1.address, 1)?.all_answered())
}

#[test]
fn two_hundred_containers_are_quick() -> Result<()> {
    if skip_without_root("two_hundred_containers_are_quick") {
        return Ok(());
    }
    let fabric = Fabric::with_mtu(9000)?;
    let node = Node::new(&fabric, "node1", "10.141.0.1")?;
    assert!(node.ip("link show eth0")?.contains("mtu 9000"));
    // Proxy ARP answers only for what the node has a route to; nobody needs to be there.
    node.default_via("10.141.0.2")?;
    let start = Instant::now();
    let specs = (0..200)
        .map(|n| {
            Ok(ContainerSpec::new(&format!("cali{n}"), Ipv4Addr::new(172, 19, 35, n))?
                .host_route()
                .proxy_arp())
        })
        .collect::<Result<Vec<_>>>()?;
    let containers = node.add(&specs)?;
    eprintln!("200 containers took {:?}", start.elapsed());
    // Far above what it takes, and far below what one process for each step would.
    ensure!(start.elapsed() < patient(Duration::from_secs(20)), "200 containers took {:?}", start.elapsed());
    traffic::ping(&node, containers[199].address, 1)?.all_answered()?;
    assert_eq!(node.ip("route show scope link")?.lines().filter(|line| line.contains("cali")).count(), 200);
    // A container that cannot be leaves nothing.
    node.add(&[ContainerSpec::new("cali7", "172.19.36.7")?]).unwrap_err();
    Ok(())
}

#[test]
fn everything_is_gone_after_a_panic() -> Result<()> {
    if skip_without_root("everything_is_gone_after_a_panic") {
        return Ok(());
    }
    let mut paths = Vec::new();
    let mut pid = 0;
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let network = TwoNodes::new().unwrap();
        let process = network.c1.spawn(["sleep", "1000"]).unwrap();
        pid = process.pid();
        paths = [&*network.c1, &*network.c2, &*network.node1, &*network.node2].map(Namespace::path).to_vec();
        assert!(paths.iter().all(|path| Path::new(path).exists()));
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        // Dropped only after the namespace that it runs in.
        let _keeps_the_process = process;
        drop(network);
        panic!("as a failed assertion would");
    }));
    assert!(result.is_err());
    assert_eq!(paths.len(), 4);
    assert!(paths.iter().all(|path| !Path::new(path).exists()), "{paths:?}");
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    Ok(())
}

#[test]
fn a_namespace_is_quiet_and_its_own() -> Result<()> {
    if skip_without_root("a_namespace_is_quiet_and_its_own") {
        return Ok(());
    }
    let namespace = Namespace::new("self")?;
    assert!(namespace.ip("-br link show lo")?.contains("UNKNOWN"), "lo is down");
    assert_eq!(namespace.ip("-6 address show")?, "");
    namespace.ip("link add v0 type veth peer name v1")?;
    namespace.ip_batch("link set v0 up\nlink set v1 up\n")?;
    assert_eq!(namespace.ip("-6 address show")?, "");
    let listed = std::process::Command::new("ip").args(["netns", "list"]).output()?;
    assert!(String::from_utf8(listed.stdout)?.contains(namespace.name()));
    assert_eq!(namespace.run(["sh", "-c", "echo out; echo err >&2; exit 3"]).code(), Some(3));
    let error = namespace.run(["sh", "-c", "echo why >&2; exit 3"]).ok().unwrap_err().to_string();
    assert!(error.contains("sh -c") && error.contains("why"), "{error}");
    let error = namespace.ip_batch("link set v0 down\nlink set none up\n").unwrap_err();
    assert!(format!("{error:#}").contains("none"), "{error:#}");
    namespace.sysctl("net.ipv4.no_such_key", "1").unwrap_err();
    Ok(())
}

#[test]
fn a_process_is_followed_and_ended() -> Result<()> {
    if skip_without_root("a_process_is_followed_and_ended") {
        return Ok(());
    }
    let namespace = Namespace::new("process")?;
    let limit = Duration::from_secs(10);
    let process = namespace.spawn([
        "sh",
        "-c",
        "echo one; echo two >&2; trap 'echo bye; exit 4' TERM; while :; do sleep 0.01; done",
    ])?;
    process.wait_for_line(Stream::Stderr, |line| line == "two", limit)?;
    // The trap is set a moment after the line.
    let status = eventually(limit, || {
        process.signal(libc::SIGTERM)?;
        process.wait(Duration::from_millis(100))
    })?;
    if status.code() == Some(4) {
        assert_eq!(process.output(Stream::Stdout), "one\nbye\n");
    }
    let start = Instant::now();
    let error = process.wait_for_line(Stream::Stdout, |line| line == "three", limit).unwrap_err();
    assert!(
        start.elapsed() < patient(Duration::from_secs(5)) && format!("{error:#}").contains("it ended"),
        "{error:#}"
    );
    Ok(())
}
