//! What there is only so much of: ports, places in the table, one container's share of them, and time.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use serde_json::Value;
use tests::harness::{
    Container, ContainerSpec, eventually,
    packet::{Ipv4, Tcp, Udp, flags},
    traffic::{TcpPair, UdpPair},
    wait::{patient, uninterrupted},
};

use super::{Egress, FAR, NODE, PATIENCE, RULE, Sender, config, require_root, translated_port};

/// A host that never answers: the outside gets the packets to it, and is no router.
const SILENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);

/// The sweep passes each flow within 8 s; the rest is for a busy machine.
const SWEEP: Duration = Duration::from_secs(30);

impl Egress {
    fn stats(&self) -> Result<Value> {
        self.daemon.cli(&["nat", "stats", "--json"])
    }

    /// Sends a datagram from that port of the container to a host that never answers.
    fn send(&self, from: &Container, ports: (u16, u16)) -> Result<()> {
        let packet = Ipv4::new(from.address, SILENT, Udp::new(ports.0, ports.1, "hello"));
        Sender::of(from)?.send(&packet)
    }
}

#[test]
fn ports_towards_one_destination_run_out() -> Result<()> {
    require_root!();
    let net = Egress::with(config().table(&format!("{RULE}\nports = \"62000-62015\"")))?;
    let pairs: Vec<UdpPair> =
        (0..16).map(|_| UdpPair::new(&net.c1, &net.outside, FAR)).collect::<Result<_>>()?;
    // All talk to one socket: each needs a port of its own.
    let server = &pairs[0].server;
    let mut ports = Vec::new();
    for pair in &pairs {
        pair.client.connect(server.local_addr()?)?;
        pair.client.send(b"mine")?;
        let from = uninterrupted(|| server.recv_from(&mut [0; 10]))?.1;
        ports.push(from.port());
        // Established: nobody else's new flow evicts it.
        server.send_to(b"yours", from)?;
        ensure!(uninterrupted(|| pair.client.recv(&mut [0; 10]))? == 5);
    }
    ports.sort_unstable();
    assert_eq!(ports, (62_000..=62_015).collect::<Vec<u16>>(), "each of them, once");

    let late = net.c2.enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
    late.connect(server.local_addr()?)?;
    late.set_read_timeout(Some(PATIENCE))?;
    for count in 1..=3 {
        late.send(b"too late")?;
        net.await_count(Hook::FromContainer, Reason::NatNoPort, count)?;
        // It is told at once (RFC 5508, REQ-8).
        let told = uninterrupted(|| late.recv(&mut [0; 10])).expect_err("nobody has answered");
        ensure!(told.kind() == io::ErrorKind::HostUnreachable, "{told}");
    }
    // Another destination has ports of its own, and TCP has, too.
    ensure!(UdpPair::new(&net.c2, &net.outside, FAR)?.exchange(b"elsewhere")?.ip() == NODE);
    TcpPair::connect(&net.c2, &net.outside, FAR)?.exchange()?;
    // Whoever had one still has it.
    for pair in &pairs {
        pair.client.send(b"still")?;
        let (length, from) = uninterrupted(|| server.recv_from(&mut [0; 10]))?;
        ensure!(length == 5 && ports.contains(&from.port()), "{from}");
        server.send_to(b"yours", from)?;
        ensure!(uninterrupted(|| pair.client.recv(&mut [0; 10]))? == 5);
    }
    let refused = &net.stats()?["refused_packets"]["nat-no-port"];
    ensure!(*refused == 3, "{refused}");
    net.finish().map(drop)
}

/// Two hundred containers connect to one server, until its ports are gone. The range is one that is searched whole.
#[test]
fn two_hundred_containers_share_forty_eight_ports() -> Result<()> {
    require_root!();
    let name = |n| (format!("cali1{n:03}"), format!("172.19.35.{}", 10 + n));
    let mut config = config().table(&format!("{RULE}\nports = \"62000-62047\""));
    for (interface, address) in (0..200).map(name) {
        config = config.endpoint(address, &interface);
    }
    let net = Egress::with(config)?;
    let specs = (0..200).map(name).map(|(interface, address)| ContainerSpec::new(&interface, address));
    let containers = net.node.add(&specs.collect::<Result<Vec<_>>>()?)?;
    eventually(SWEEP, || {
        let status = net.daemon.cli(&["status", "--json"])?;
        let hooks = status["hooks"].as_array().context("status without hooks")?;
        let walking = hooks.iter().filter(|hook| hook["program"] == "from_container").count();
        ensure!(walking >= 200, "{walking} hooks");
        Ok(())
    })?;
    let listener = net.outside.enter(|| Ok(TcpListener::bind((FAR, 0))?))?;
    let to = listener.local_addr()?;
    let connect = |container: &Container| {
        let client = container.enter(|| Ok(TcpStream::connect(to)?))?;
        anyhow::Ok(TcpPair { client, server: uninterrupted(|| listener.accept())?.0 })
    };
    let (first, others) = containers.split_at(48);
    let pairs: Vec<TcpPair> = first.iter().map(connect).collect::<Result<_>>()?;
    for container in others {
        let syn = Ipv4::new(container.address, FAR, Tcp::new(5000, to.port(), flags::SYN));
        Sender::of(container)?.send(&syn)?;
    }
    net.await_count(Hook::FromContainer, Reason::NatNoPort, 152)?;
    let mut ports = Vec::new();
    for pair in &pairs {
        pair.exchange()?;
        ports.push(pair.server.peer_addr()?.port());
    }
    ports.sort_unstable();
    assert_eq!(ports, (62_000..=62_047).collect::<Vec<u16>>(), "each of them, once");
    let stats = net.stats()?;
    let rules = stats["rules"].as_array().context("stats without rules")?;
    let used = rules.iter().find(|rule| rule["interface"] == "eth1").map(|rule| &rule["ports_in_use"]["tcp"]);
    ensure!(used == Some(&Value::from(48)), "{stats}");
    net.finish().map(drop)
}

#[test]
fn closed_connections_give_their_ports_up() -> Result<()> {
    require_root!();
    let net = Egress::with(config().table(&format!("{RULE}\nports = \"62000-62003\"")))?;
    let listener = net.outside.enter(|| Ok(TcpListener::bind((FAR, 0))?))?;
    let to = listener.local_addr()?;
    let connect = |container: &Container| {
        let client = container.enter(|| Ok(TcpStream::connect(to)?))?;
        anyhow::Ok(TcpPair { client, server: uninterrupted(|| listener.accept())?.0 })
    };
    let stays = connect(&net.c1)?;
    for _ in 0..12 {
        connect(&net.c2)?.exchange()?;
    }
    stays.exchange().context("an open one gave way")?;
    let stats = net.stats()?;
    ensure!(stats["displaced_ended"].as_u64() >= Some(9), "{stats}");
    net.finish().map(drop)
}

#[test]
fn a_full_table_keeps_what_is_established() -> Result<()> {
    require_root!();
    const MOST: u64 = 64;
    let net = Egress::with(
        config().datapath("max-flows", MOST).datapath("max-flows-per-source", MOST).table(RULE),
    )?;
    let pair = TcpPair::connect(&net.c1, &net.outside, FAR)?;
    pair.exchange()?;
    let datagrams: Vec<UdpPair> =
        (0..20).map(|_| UdpPair::new(&net.c1, &net.outside, FAR)).collect::<Result<_>>()?;
    for pair in &datagrams {
        pair.exchange(b"hello")?;
    }
    // A flood of half-open flows: each takes the place of another one of its bucket, of which all but a few have some.
    let sender = Sender::of(&net.c2)?;
    for port in 1..=1000 {
        let packet = Ipv4::new(net.c2.address, SILENT, Tcp::new(port, 80, flags::SYN));
        sender.send(&packet)?;
    }
    let stats = net.stats()?;
    ensure!(stats["flows"].as_u64() <= Some(MOST), "{stats}");
    ensure!(stats["displaced_half_open"].as_u64() > Some(700), "{stats}");
    pair.exchange()?;
    for pair in &datagrams {
        pair.exchange(b"still there")?;
    }
    // With nothing but established flows there is no place for another.
    let mut more = Vec::new();
    let full = (0..2 * MOST).find_map(|_| {
        let pair = UdpPair::new(&net.c1, &net.outside, FAR).ok()?;
        pair.client.set_read_timeout(Some(patient(Duration::from_millis(50)))).ok()?;
        pair.server.set_read_timeout(Some(patient(Duration::from_millis(50)))).ok()?;
        let refused = pair.exchange(b"hello").is_err();
        more.push(pair);
        refused.then_some(more.len())
    });
    ensure!(full.is_some(), "the table never became full: {}", net.stats()?);
    ensure!(net.daemon.drops(Hook::FromContainer, Reason::NatTableFull)? > 0);
    pair.exchange()?;
    for pair in &datagrams {
        pair.exchange(b"still there")?;
    }
    net.finish().map(drop)
}

#[test]
fn one_container_cannot_take_the_table_from_the_others() -> Result<()> {
    require_root!();
    let net = Egress::with(config().datapath("max-flows-per-source", 10).table(RULE))?;
    for port in 5000..5030 {
        net.send(&net.c1, (port, 5001))?;
    }
    net.await_count(Hook::FromContainer, Reason::NatShare, 20)?;
    for _ in 0..10 {
        UdpPair::new(&net.c2, &net.outside, FAR)?.exchange(b"my own share")?;
    }
    // What the first one has goes on.
    net.send(&net.c1, (5000, 5001))?;
    assert_eq!(net.daemon.drops(Hook::FromContainer, Reason::NatShare)?, 20);
    net.finish().map(drop)
}

#[test]
fn an_expired_flow_gives_its_port_back() -> Result<()> {
    require_root!();
    let rule = format!("[timeouts]\nudp-unreplied-seconds = 1\n{RULE}\nports = \"62000-62000\"");
    let net = Egress::with(config().table(&rule))?;
    let to = SocketAddr::from((SILENT, 5001));
    net.send(&net.c1, (5000, 5001))?;
    net.arrives(|packet| packet.destination == SILENT)?;
    // The port is there again before anybody sweeps: whoever wants it ends what has expired.
    eventually(SWEEP, || {
        net.send(&net.c2, (6000, 5001))?;
        let flow = net.flow("udp", to)?;
        ensure!(flow["original"] == "172.19.35.3:6000", "{flow}");
        Ok(())
    })?;
    assert_eq!(translated_port(&net.flow("udp", to)?)?, 62_000);
    // And without packets the sweep finds it.
    eventually(SWEEP, || {
        let stats = net.stats()?;
        ensure!(stats["flows"] == 0 && stats["expired"].as_u64() >= Some(1), "{stats}");
        Ok(())
    })?;
    ensure!(net.flows("udp", to)?.is_empty());
    net.send(&net.c1, (5000, 5001))?;
    eventually(SWEEP, || net.flow("udp", to))?;
    net.finish().map(drop)
}

/// Packets out keep a flow; so do those that come back (RFC 4787, REQ-6).
#[test]
fn a_flow_in_use_does_not_expire() -> Result<()> {
    require_root!();
    let rule = format!("[timeouts]\nudp-replied-seconds = 2\nudp-unreplied-seconds = 2\n{RULE}");
    let net = Egress::with(config().table(&rule))?;
    let used = UdpPair::new(&net.c1, &net.outside, FAR)?;
    let idle = UdpPair::new(&net.c1, &net.outside, FAR)?;
    let seen_as = used.exchange(b"hello")?;
    idle.exchange(b"hello")?;
    let idle = idle.server.local_addr()?;
    // As long as the other one lives and longer.
    eventually(SWEEP, || {
        ensure!(used.exchange(b"again")? == seen_as, "another port");
        ensure!(net.flows("udp", idle)?.is_empty(), "the idle one is still there");
        Ok(())
    })?;
    let flow = net.flow("udp", used.server.local_addr()?)?;
    ensure!(flow["packets_in"].as_u64() > Some(1) && flow["translated"] == *seen_as.to_string(), "{flow}");
    net.finish().map(drop)
}
