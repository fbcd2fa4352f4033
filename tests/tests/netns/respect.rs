//! `netfilter = "respect"`: the kernel decides by its rules, as Calico, kube-proxy and Docker write them, and BPF carries what is
//! established.

mod entries;
mod rules;
mod told;

use std::{
    net::{Shutdown, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::harness::{
    Config, Container, Daemon, Fabric, Namespace, Node, Outside,
    traffic::{self, TcpPair, UdpPair},
    wait::eventually,
};

use super::{network::await_endpoint, require_root};
use rules::{DOCKER_AND_UFW, IPTABLES, NFTABLES};

const SERVICE: &str = "10.96.0.10";
const REMOTE_SERVICE: &str = "10.96.0.11";

#[derive(Clone, Copy, Debug)]
enum Rules {
    Iptables,
    Nftables,
    DockerAndUfw,
}

struct Site {
    c1: Container,
    c2: Container,
    c3: Container,
    c4: Container,
    node1: Node,
    node2: Node,
    outside: Outside,
    _fabric: Fabric,
}

/// Who speaks to whom, by which address, and whether it may.
type Cell<'a> = (&'a Namespace, &'a Namespace, &'a str, bool);

impl Site {
    fn new(rules: Rules) -> Result<Self> {
        let fabric = Fabric::new()?;
        let node1 = Node::new(&fabric, "node1", "10.141.0.1")?;
        let node2 = Node::new(&fabric, "node2", "10.141.0.2")?;
        let c1 = node1.routed_container("cali1", "172.19.35.2")?;
        let c2 = node1.routed_container("cali2", "172.19.35.3")?;
        let c3 = node2.routed_container("cali3", "172.19.36.2")?;
        let c4 = node2.routed_container("cali4", "172.19.36.3")?;
        let outside = node1.outside("eth1", "192.168.200.172/24", "192.168.200.1")?;
        node1.ip_batch(
            "route add blackhole 172.19.35.0/24 proto bird\n\
             route add 172.19.36.0/24 via 10.141.0.2 proto bird\n\
             route add default via 10.141.255.254 metric 50\n",
        )?;
        node2.ip_batch(
            "route add blackhole 172.19.36.0/24 proto bird\n\
             route add 172.19.35.0/24 via 10.141.0.1 proto bird\n\
             route add default via 10.141.0.1\n",
        )?;
        match rules {
            Rules::Iptables => node1.run_with_input(["iptables-restore"], IPTABLES).ok()?,
            Rules::DockerAndUfw => node1.run_with_input(["iptables-restore"], DOCKER_AND_UFW).ok()?,
            Rules::Nftables => node1.run_with_input(["nft", "-f", "-"], NFTABLES).ok()?,
        };
        Ok(Self { c1, c2, c3, c4, node1, node2, outside, _fabric: fabric })
    }

    /// The daemon of the first node, once it knows the containers.
    fn start(&self) -> Result<Daemon> {
        let daemon = Daemon::start_from_kernel(&self.node1, &[])?;
        for container in [&self.c1, &self.c2] {
            await_endpoint(&daemon, container.address)?;
        }
        Ok(daemon)
    }

    fn cells(&self) -> [Cell<'_>; 9] {
        let Self { c1, c2, c3, c4, node2, outside, .. } = self;
        [
            (c1, c2, "172.19.35.3", true),
            (c1, c3, "172.19.36.2", true),
            (c1, c4, "172.19.36.3", false),
            (c2, c4, "172.19.36.3", true),
            (c1, c2, SERVICE, true),
            (c2, c3, REMOTE_SERVICE, true),
            (c1, outside, "192.168.200.1", true),
            (outside, c2, "192.168.200.172", true),
            (node2, c2, "172.19.35.3", true),
        ]
    }

    /// Every cell, by TCP and UDP: the first packet and the hundredth.
    fn check_cells(&self, when: &str) -> Result<()> {
        for (from, to, address, may) in self.cells() {
            let cell = format!("{when}: {} to {} by {address}", from.name(), to.name());
            let opened = TcpPair::connect(from, to, address);
            ensure!(opened.is_ok() == may, "{cell}, TCP: {:?}", opened.err());
            let datagram = UdpPair::new(from, to, address)?.exchange(b"first");
            ensure!(datagram.is_ok() == may, "{cell}, UDP: {datagram:?}");
            if let Ok(pair) = opened {
                (0..100).try_for_each(|_| pair.exchange()).with_context(|| format!("{cell}, TCP"))?;
            }
        }
        Ok(())
    }
}

/// The flows that the kernel decided.
fn flows(daemon: &Daemon) -> Result<Vec<Value>> {
    let list = daemon.cli(&["flow", "list", "--by", "kernel", "--json"])?;
    Ok(list.as_array().context("the list is none")?.clone())
}

fn has_flow(daemon: &Daemon, port: u16) -> Result<bool> {
    Ok(flows(daemon)?.iter().any(|flow| flow["original"]["source_port"] == port))
}

/// Lets bytes go to and fro until BPF carries the connection of that client's port.
fn await_carried(daemon: &Daemon, port: u16, exchange: impl Fn() -> Result<()>) -> Result<()> {
    eventually(Duration::from_secs(20), || {
        (0..50).try_for_each(|_| exchange())?;
        ensure!(
            has_flow(daemon, port)?,
            "no flow of port {port}: {:?}",
            daemon.cli(&["flow", "stats", "--json"])?["respect"]
        );
        Ok(())
    })
}

/// Lets bytes go to and fro until the kernel has the connection of that client's port.
fn await_left(daemon: &Daemon, port: u16, exchange: impl Fn() -> Result<()>) -> Result<()> {
    eventually(Duration::from_secs(60), || {
        exchange()?;
        ensure!(!has_flow(daemon, port)?, "still a flow");
        Ok(())
    })
}

fn tcp_port(pair: &TcpPair) -> Result<u16> {
    Ok(pair.client.local_addr()?.port())
}

fn every_cell_is_as_before(rules: Rules) -> Result<()> {
    let site = Site::new(rules)?;
    site.check_cells("before")?;
    let daemon = site.start()?;
    site.check_cells("with the daemon")?;
    // What is carried does not pass the kernel's forwarding any more.
    for (from, to, address, may) in site.cells() {
        if !may {
            continue;
        }
        let cell = || format!("{} to {} by {address}", from.name(), to.name());
        let pair = TcpPair::connect(from, to, address)?;
        await_carried(&daemon, tcp_port(&pair)?, || pair.exchange()).with_context(cell)?;
        let before = traffic::ip_forw_datagrams(&site.node1)?;
        (0..50).try_for_each(|_| pair.exchange()).with_context(cell)?;
        pair.upload(3_000_000)?;
        pair.download(3_000_000)?;
        let passed = traffic::ip_forw_datagrams(&site.node1)? - before;
        ensure!(passed == 0, "{}: {passed} packets were forwarded by the kernel", cell());
    }
    daemon.detach()?;
    site.check_cells("after")
}

#[test]
fn iptables_decide_in_every_cell_as_before() -> Result<()> {
    require_root!();
    every_cell_is_as_before(Rules::Iptables)
}

#[test]
fn nftables_decide_in_every_cell_as_before() -> Result<()> {
    require_root!();
    every_cell_is_as_before(Rules::Nftables)
}

#[test]
fn docker_s_and_ufw_s_rules_decide_in_every_cell_as_before() -> Result<()> {
    require_root!();
    every_cell_is_as_before(Rules::DockerAndUfw)
}

#[test]
fn a_half_closed_connection_goes_on_in_the_kernel() -> Result<()> {
    require_root!();
    let site = Site::new(Rules::Iptables)?;
    let daemon = site.start()?;
    for (from, to, address) in [(&*site.c1, &*site.c2, SERVICE), (&site.c1, &site.outside, "192.168.200.1")] {
        let pair = TcpPair::connect(from, to, address)?;
        let port = tcp_port(&pair)?;
        await_carried(&daemon, port, || pair.exchange())?;
        pair.client.shutdown(Shutdown::Write)?;
        await_left(&daemon, port, || Ok(()))?;
        // Enough packets that one would be sampled were it for them.
        pair.download(5_000_000)?;
        ensure!(!has_flow(&daemon, port)?, "BPF carries a connection that is closing");
    }
    Ok(())
}

#[test]
fn containers_with_the_same_port_are_told_apart_behind_masquerade() -> Result<()> {
    require_root!();
    let site = Site::new(Rules::Iptables)?;
    let daemon = site.start()?;
    let server = site.outside.enter(|| Ok(UdpSocket::bind("192.168.200.1:7000")?))?;
    server.set_read_timeout(Some(Duration::from_secs(10)))?;
    let client = |container: &Container| {
        let socket = container.enter(|| Ok(UdpSocket::bind("0.0.0.0:5000")?))?;
        socket.connect("192.168.200.1:7000")?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        anyhow::Ok(socket)
    };
    let clients = [client(&site.c1)?, client(&site.c2)?];
    let exchange = |number: usize| {
        let (mut buffer, text) = ([0; 8], [number as u8; 4]);
        clients[number].send(&text)?;
        let (length, from) = server.recv_from(&mut buffer)?;
        ensure!(buffer[..length] == text, "another's datagram");
        server.send_to(&buffer[..length], from)?;
        let length = clients[number].recv(&mut buffer)?;
        ensure!(buffer[..length] == text, "another's answer");
        Ok(from)
    };
    let first = [exchange(0)?, exchange(1)?];
    ensure!(first[0] != first[1], "both have {}", first[0]);
    eventually(Duration::from_secs(20), || {
        for _ in 0..50 {
            assert_eq!([exchange(0)?, exchange(1)?], first);
        }
        ensure!(
            flows(&daemon)?.iter().filter(|flow| flow["snat"] == true).count() == 2,
            "not both are carried"
        );
        Ok(())
    })?;
    let before = traffic::ip_forw_datagrams(&site.node1)?;
    for _ in 0..50 {
        assert_eq!([exchange(0)?, exchange(1)?], first);
    }
    assert_eq!(traffic::ip_forw_datagrams(&site.node1)?, before);
    Ok(())
}

#[test]
fn a_flow_ends_with_its_connection_and_with_its_entry() -> Result<()> {
    require_root!();
    let site = Site::new(Rules::Iptables)?;
    let Site { c1, c2, node1, .. } = &site;
    let daemon = site.start()?;
    let pair = TcpPair::connect(c1, c2, SERVICE)?;
    let port = tcp_port(&pair)?;
    await_carried(&daemon, port, || pair.exchange())?;
    let flow = flows(&daemon)?
        .into_iter()
        .find(|flow| flow["original"]["source_port"] == port)
        .context("no flow")?;
    assert_eq!((&flow["by"], &flow["dnat"], &flow["snat"]), (&"kernel".into(), &true.into(), &false.into()));
    assert_eq!(flow["reply"]["source"], "172.19.35.3", "{flow}");
    // The entry goes: the flow follows, and the next packet is judged anew. Without the loose pick-up, and with the rule that
    // drops what is INVALID, the connection is over; it was so before the daemon.
    let datagrams = UdpPair::new(c1, c2, SERVICE)?;
    let udp_port = datagrams.client.local_addr()?.port();
    await_carried(&daemon, udp_port, || datagrams.exchange(b"more").map(drop))?;
    node1.run(["conntrack", "-D", "-p", "udp", "--orig-dst", SERVICE]).ok()?;
    eventually(Duration::from_secs(10), || {
        ensure!(!has_flow(&daemon, udp_port)?, "still a flow");
        Ok(())
    })?;
    datagrams.exchange(b"anew")?;
    // FIN goes by the kernel, which sees the connection close.
    drop(pair);
    eventually(Duration::from_secs(10), || {
        ensure!(!has_flow(&daemon, port)?, "still a flow");
        let entries = node1.run(["conntrack", "-L", "-p", "tcp", "--orig-dst", SERVICE]).ok()?;
        ensure!(entries.contains("TIME_WAIT"), "{entries}");
        Ok(())
    })
}

#[test]
fn a_masqueraded_connection_gets_the_address_of_another_uplink() -> Result<()> {
    require_root!();
    let site = Site::new(Rules::Iptables)?;
    let far = site.outside.add_address("203.0.113.5")?;
    site.node1.ip("route add 203.0.113.0/24 via 192.168.200.1")?;
    // The other way out leads to nobody; what leaves there is looked at.
    let daemon = Daemon::start(
        &site.node1,
        &Config::new()
            .node("uplinks", r#"["eth0", "eth1"]"#)
            .datapath("netfilter", r#""respect""#)
            // Whatever hook the tests run at: at XDP it cannot be.
            .datapath("uplink-hook", r#""auto""#)
            .table("[kernel]\nimport = true"),
    )?;
    await_endpoint(&daemon, site.c1.address)?;
    let datagrams = UdpPair::new(&site.c1, &site.outside, far)?;
    let port = datagrams.client.local_addr()?.port();
    await_carried(&daemon, port, || datagrams.exchange(b"more").map(drop))?;
    let flow = flows(&daemon)?.into_iter().find(|flow| flow["snat"] == true).context("no flow")?;
    assert_eq!(
        (&flow["interface"], &flow["reply"]["destination"]),
        (&"eth1".into(), &"192.168.200.172".into())
    );
    site.node1.ip("route replace 203.0.113.0/24 via 10.141.0.2")?;
    eventually(Duration::from_secs(20), || {
        datagrams.client.send(b"by the other uplink")?;
        let entries = site.node1.run(["conntrack", "-L", "-p", "udp", "--orig-dst", "203.0.113.5"]).ok()?;
        ensure!(
            entries.contains("dst=10.141.0.1 ") && !entries.contains("dst=192.168.200.172 "),
            "{entries}"
        );
        ensure!(!has_flow(&daemon, port)?, "still a flow");
        Ok(())
    })
}

#[test]
fn connections_outlive_the_daemon() -> Result<()> {
    require_root!();
    let site = Site::new(Rules::Iptables)?;
    let mut daemon = site.start()?;
    let pairs: Vec<TcpPair> = site
        .cells()
        .into_iter()
        .filter(|(.., may)| *may)
        .map(|(from, to, address, _)| TcpPair::connect(from, to, address))
        .collect::<Result<_>>()?;
    let exchange = || pairs.iter().try_for_each(TcpPair::exchange);
    let await_all = |daemon: &Daemon| {
        pairs.iter().try_for_each(|pair| await_carried(daemon, tcp_port(pair)?, || pair.exchange()))
    };
    await_all(&daemon)?;
    // Killed: carried until the leases end, then the kernel's again, to which nothing is INVALID.
    daemon.kill()?;
    exchange()?;
    for pair in &pairs {
        await_left(&daemon, tcp_port(pair)?, exchange)?;
    }
    (0..20).try_for_each(|_| exchange())?;
    // Back: carried again, though the kernel tells of no new entry.
    daemon.launch()?;
    await_all(&daemon)?;
    daemon.stop()?;
    daemon.launch()?;
    await_all(&daemon)?;
    daemon.detach()?;
    (0..20).try_for_each(|_| exchange())
}
