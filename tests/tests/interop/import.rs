//! A routing daemon speaks BGP between the nodes and writes the kernel's table; the data path takes the routes from there.

use std::{fmt::Write as _, net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use ipnet::Ipv4Net;
use serde_json::Value;
use tests::harness::{
    Bird, Config, Container, Daemon, Fabric, Namespace, Neighbour, Node, RoutingDaemon, Speaker, eventually,
    traffic,
};

use super::{require_root, with_daemons};

with_daemons!(bird: Bird, frr: Frr => [
    its_routes_are_carried_as_long_as_it_has_them,
    without_a_file_everything_between_the_nodes_goes_by_bpf,
]);

const PATIENCE: Duration = Duration::from_secs(20);

/// Two nodes that route by a routing daemon, with the data path beside it.
struct Site<R> {
    daemon1: Daemon,
    daemon2: Daemon,
    router1: R,
    router2: R,
    c1: Container,
    c3: Container,
    node1: Node,
    node2: Node,
    _fabric: Fabric,
}

const BLOCK1: &str = "172.19.35.0/26";
const BLOCK2: &str = "172.19.36.0/26";

fn speaker(own: &Node, other: &Node, block: &str) -> Speaker {
    Speaker::of(own).block(block).neighbour(Neighbour::new(other.address))
}

/// The file of a node that takes the routing daemon's routes.
fn importing<R: RoutingDaemon>() -> Config {
    Config::new()
        .node("uplinks", r#"["eth0"]"#)
        .pool("172.19.0.0/16")
        .table(&format!("[kernel]\nimport = true\nprotocols = {:?}", R::PROTOCOLS))
}

impl<R: RoutingDaemon> Site<R> {
    fn new(start: impl Fn(&Node) -> Result<Daemon>) -> Result<Self> {
        let fabric = Fabric::new()?;
        let node1 = Node::new(&fabric, "node1", "10.141.0.1")?;
        let node2 = Node::new(&fabric, "node2", "10.141.0.2")?;
        for node in [&node1, &node2] {
            node.default_via("10.141.255.254")?;
        }
        let c1 = node1.routed_container("cali1", "172.19.35.2")?;
        let c3 = node2.routed_container("cali3", "172.19.36.2")?;
        let router1 = R::start(&node1, &speaker(&node1, &node2, BLOCK1))?;
        let router2 = R::start(&node2, &speaker(&node2, &node1, BLOCK2))?;
        let (daemon1, daemon2) = (start(&node1)?, start(&node2)?);
        router1.await_established(node2.address)?;
        let site = Self { daemon1, daemon2, router1, router2, c1, c3, node1, node2, _fabric: fabric };
        site.await_blocks()?;
        Ok(site)
    }

    /// Waits until either data path has both blocks.
    fn await_blocks(&self) -> Result<()> {
        for (daemon, own, other) in [(&self.daemon1, BLOCK1, BLOCK2), (&self.daemon2, BLOCK2, BLOCK1)] {
            await_route(daemon, own, "block")?;
            await_route(daemon, other, "next-hop")?;
        }
        Ok(())
    }

    /// Pings and a transfer each way, none of it forwarded by a kernel.
    fn traffic_by_bpf(&self) -> Result<()> {
        let counts = || {
            let kernels =
                [traffic::ip_forw_datagrams(&self.node1)?, traffic::ip_forw_datagrams(&self.node2)?];
            anyhow::Ok((kernels, [forwarded(&self.daemon1)?, forwarded(&self.daemon2)?]))
        };
        let (kernels, before) = counts()?;
        for (from, to) in [(&self.c1, &self.c3), (&self.c3, &self.c1)] {
            traffic::ping(from, to.address, 3)?.all_answered()?;
            traffic::tcp_transfer(from, to, to.address, 5_000_000)?;
        }
        let (kernels_after, after) = counts()?;
        ensure!(kernels == kernels_after, "the kernels forwarded: {kernels:?}, {kernels_after:?}");
        ensure!(after[0] > before[0] + 12 && after[1] > before[1] + 12, "BPF: {before:?}, {after:?}");
        Ok(())
    }
}

fn forwarded(daemon: &Daemon) -> Result<u64> {
    let status = daemon.cli(&["status", "--json"])?;
    status["packets"]["forwarded"].as_u64().context("status without forwarded packets")
}

fn used_routes(daemon: &Daemon) -> Result<u64> {
    let status = daemon.cli(&["status", "--json"])?;
    status["tables"][0]["used"].as_u64().context("status without its route table")
}

fn route(daemon: &Daemon, address: Ipv4Addr) -> Result<Value> {
    Ok(daemon.route_get(address)?["route"].take())
}

/// Waits until the last address of the block, which no container has, takes that very prefix.
fn await_route(daemon: &Daemon, block: &str, kind: &str) -> Result<()> {
    let last = block.parse::<Ipv4Net>()?.broadcast();
    eventually(PATIENCE, || {
        let route = route(daemon, last)?;
        ensure!(
            route["prefix"] == block && route["kind"] == kind,
            "{last} takes {route}, not {block} ({kind})"
        );
        Ok(())
    })
}

fn own_routes(node: &Namespace) -> Result<String> {
    node.ip("route show table all proto 171")
}

fn its_routes_are_carried_as_long_as_it_has_them<R: RoutingDaemon>() -> Result<()> {
    let mut site = Site::<R>::new(|node| Daemon::start(node, &importing::<R>()))?;
    site.traffic_by_bpf()?;
    let found = route(&site.daemon1, site.c3.address)?;
    assert_eq!((&found["prefix"], &found["source"]), (&BLOCK2.into(), &"kernel".into()));
    assert_eq!(route(&site.daemon1, Ipv4Addr::new(172, 19, 35, 60))?["kind"], "block");
    traffic::ping_with(&site.c3, "172.19.35.60", 2, &["-W", "0.2"])?.none_answered()?;
    assert_eq!(site.daemon1.drops(Hook::FromUplink, Reason::NoEndpoint)?, 2);

    // The first routing daemon ends, and takes its routes along: the other's block is nobody's then.
    site.router1.stop()?;
    await_gone(&site.daemon1, site.c3.address)?;
    await_gone(&site.daemon1, Ipv4Addr::new(172, 19, 35, 60))?;
    site.router1.launch()?;
    site.await_blocks()?;
    site.traffic_by_bpf()?;

    // The second is killed: its routes stay, in its kernel and in BPF, and traffic goes on.
    site.router2.kill()?;
    site.traffic_by_bpf()?;
    site.router2.launch()?;
    site.router1.await_established(site.node2.address)?;
    site.await_blocks()?;
    site.traffic_by_bpf()?;
    for node in [&site.node1, &site.node2] {
        assert_eq!(own_routes(node)?, "");
    }
    Ok(())
}

/// The longest match is the default route again.
fn await_gone(daemon: &Daemon, address: Ipv4Addr) -> Result<()> {
    eventually(PATIENCE, || {
        let route = route(daemon, address)?;
        ensure!(route["prefix"] == "0.0.0.0/0", "the route of {address} is {route}");
        Ok(())
    })
}

fn without_a_file_everything_between_the_nodes_goes_by_bpf<R: RoutingDaemon>() -> Result<()> {
    let site = Site::<R>::new(|node| Daemon::start_from_kernel(node, &["--bypass-netfilter"]))?;
    site.traffic_by_bpf()?;
    for (daemon, node) in [(&site.daemon1, &site.node1), (&site.daemon2, &site.node2)] {
        assert_eq!(own_routes(node)?, "");
        assert_eq!(daemon.cli(&["status", "--json"])?["import"]["carried"], 2);
    }
    Ok(())
}

#[test]
fn a_flap_storm_ends_where_it_should() -> Result<()> {
    require_root!();
    const PREFIXES: usize = 2000;
    const TURNS: usize = 10;
    let mut site = Site::<Bird>::new(|node| Daemon::start(node, &importing::<Bird>()))?;
    let before = used_routes(&site.daemon1)?;
    let quiet = speaker(&site.node2, &site.node1, BLOCK2);
    let mut storm = quiet.clone();
    for number in 0..PREFIXES {
        let mut prefix = String::new();
        write!(prefix, "172.19.{}.{}/28", 64 + number / 16, number % 16 * 16)?;
        storm.blocks.push(prefix);
    }
    let has = |site: &Site<Bird>, count: u64| {
        eventually(PATIENCE, || {
            let now = used_routes(&site.daemon1)?;
            ensure!(now == before + count, "{now} routes, not {before} and {count}");
            Ok(())
        })
    };
    let far = Ipv4Addr::new(172, 19, 64, 1);
    for turn in 0..TURNS {
        site.router2.change(&storm)?;
        if turn % 3 == 0 {
            has(&site, PREFIXES as u64)?;
            assert_eq!(route(&site.daemon1, far)?["via"], "10.141.0.2");
        }
        site.router2.change(&quiet)?;
        if turn % 3 == 1 {
            has(&site, 0)?;
        }
        traffic::ping(&site.c1, site.c3.address, 3)?.all_answered()?;
    }
    has(&site, 0)?;
    site.traffic_by_bpf()?;
    site.router2.change(&storm)?;
    has(&site, PREFIXES as u64)
}

#[test]
fn another_table_of_bird_s_is_carried() -> Result<()> {
    require_root!();
    let config = importing::<Bird>().table("table = 100");
    let fabric = Fabric::new()?;
    let node1 = Node::new(&fabric, "node1", "10.141.0.1")?;
    let node2 = Node::new(&fabric, "node2", "10.141.0.2")?;
    let c1 = node1.routed_container("cali1", "172.19.35.2")?;
    let daemon = Daemon::start(&node1, &config)?;
    let in_table = |own, other, block| speaker(own, other, block).kernel_table(Some(100));
    let bird1 = Bird::start(&node1, &in_table(&node1, &node2, BLOCK1))?;
    let _bird2 = Bird::start(&node2, &speaker(&node2, &node1, BLOCK2))?;
    bird1.await_established(node2.address)?;
    await_route(&daemon, BLOCK2, "next-hop")?;
    await_route(&daemon, BLOCK1, "block")?;
    assert_eq!(node1.ip("route show table main proto bird")?, "");
    // The container's packets arrive although its node's kernel has no route there.
    let before = forwarded(&daemon)?;
    traffic::ping_with(&c1, "172.19.36.9", 3, &["-W", "0.2"])?.none_answered()?;
    ensure!(forwarded(&daemon)? >= before + 3);
    Ok(())
}
