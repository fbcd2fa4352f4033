//! Restarts of either side, under traffic, without a packet lost.

use std::thread;

use anyhow::{Context as _, Result, ensure};
use tests::harness::{
    Bird, Container, Daemon, Fabric, Neighbour, Node, RoutingDaemon as _, Speaker, traffic,
};

use super::{await_established, await_no_route, await_peer, await_route, config, peer, require_root};

struct Site {
    daemon: Daemon,
    bird: Bird,
    c1: Container,
    c3: Container,
    node1: Node,
    node2: Node,
    _fabric: Fabric,
}

impl Site {
    fn new() -> Result<Self> {
        let fabric = Fabric::new()?;
        let node1 = Node::new(&fabric, "node1", "10.141.0.1")?;
        let node2 = Node::new(&fabric, "node2", "10.141.0.2")?;
        node2.default_via("10.141.255.254")?;
        let c1 = node1.routed_container("cali1", "172.19.35.2")?;
        let c3 = node2.routed_container("cali3", "172.19.36.2")?;
        let speaker = Speaker::of(&node2).block("172.19.36.0/24").neighbour(Neighbour::new(node1.address));
        let bird = Bird::start(&node2, &speaker)?;
        let daemon = Daemon::start(&node1, &peer(config(&node1, "172.19.35.0/24"), node2.address, ""))?;
        await_route(&daemon, c3.address, node2.address)?;
        bird.await_established(node1.address)?;
        traffic::ping(&c1, c3.address, 3)?.all_answered()?;
        Ok(Self { daemon, bird, c1, c3, node1, node2, _fabric: fabric })
    }

    /// Pings for ten seconds while something happens; every ping is answered, by BPF.
    fn under_traffic(&mut self, happens: impl FnOnce(&mut Daemon, &mut Bird) -> Result<()>) -> Result<()> {
        let Self { daemon, bird, c1, c3, node1, .. } = self;
        let before = traffic::ip_forw_datagrams(node1)?;
        thread::scope(|scope| {
            let ping = scope.spawn(|| traffic::ping(c1, c3.address, 1000)?.all_answered());
            happens(daemon, bird)?;
            ping.join().ok().context("the ping failed")?
        })?;
        let after = traffic::ip_forw_datagrams(node1)?;
        ensure!(before == after, "the kernel forwarded {} packets", after - before);
        Ok(())
    }
}

#[test]
fn the_daemon_restarts_and_nobody_notices() -> Result<()> {
    require_root!();
    let mut site = Site::new()?;
    let (peer, container) = (site.node2.address, site.c3.address);
    site.under_traffic(|daemon, bird| {
        daemon.stop()?;
        daemon.launch()?;
        await_route(daemon, container, peer)?;
        daemon.kill()?;
        daemon.launch()?;
        // It forwards before BIRD has told anything, and after.
        ensure!(daemon.route_get(container)?["route"]["via"] == "10.141.0.2", "the route was dropped");
        await_route(daemon, container, peer)?;
        bird.await_established("10.141.0.1".parse()?)
    })?;
    let route = site.node2.ip("route show 172.19.35.0/24")?;
    ensure!(route.contains("via 10.141.0.1"), "BIRD kept the block: {route:?}");
    Ok(())
}

#[test]
fn bird_restarts_and_its_routes_are_kept() -> Result<()> {
    require_root!();
    let mut site = Site::new()?;
    let peer = site.node2.address;
    site.under_traffic(|daemon, bird| {
        bird.kill()?;
        await_peer(daemon, peer, "kept", |peer| peer["prefixes_stale"] == 1)?;
        bird.launch()?;
        let again = |value: &serde_json::Value| {
            value["state"] == "established" && value["sessions"] == 2 && value["prefixes_stale"] == 0
        };
        await_peer(daemon, peer, "established again", again).map(drop)
    })
}

#[test]
fn a_route_that_is_not_told_again_goes_when_everything_was_told() -> Result<()> {
    require_root!();
    let mut site = Site::new()?;
    site.daemon.stop()?;
    let other =
        Speaker::of(&site.node2).block("172.19.37.0/24").neighbour(Neighbour::new(site.node1.address));
    site.bird.change(&other)?;
    site.daemon.launch()?;
    await_route(&site.daemon, "172.19.37.9", site.node2.address)?;
    // No source offers it; it is what the data path held.
    super::eventually(super::PATIENCE, || {
        let route = site.daemon.route_get("172.19.36.9")?["route"].take();
        ensure!(route["via"].is_null(), "{route}");
        Ok(())
    })
}

#[test]
fn a_farewell_takes_the_routes_along() -> Result<()> {
    require_root!();
    let site = Site::new()?;
    let (address, container) = (site.node2.address, site.c3.address);
    // BIRD without -R's promise: an administrative end.
    site.bird.birdc("disable peer_10_141_0_1")?;
    await_no_route(&site.daemon, container)?;
    super::await_error(&site.daemon, address, "Cease: Administrative Shutdown")?;
    site.bird.birdc("enable peer_10_141_0_1")?;
    await_established(&site.daemon, address)?;
    await_route(&site.daemon, container, address)?;
    // Ours: BIRD forgets the block at once.
    site.daemon.detach()?;
    super::eventually(super::PATIENCE, || {
        let route = site.node2.ip("route show 172.19.35.0/24")?;
        ensure!(route.is_empty(), "{route}");
        Ok(())
    })
}
