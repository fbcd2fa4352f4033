//! Restarts of either side, under full load, without a packet lost.

use anyhow::{Result, ensure};
use tests::harness::{
    Bird, Container, Daemon, Fabric, Neighbour, Node, RoutingDaemon, Speaker,
    traffic::{self, Way},
};

use super::{
    await_established, await_no_route, await_peer, await_route, config, lead, peer, require_root,
    with_daemons,
};

with_daemons!(bird: Bird, frr: Frr, gobgp: GoBgp => [
    the_daemon_restarts_and_nobody_notices,
    the_peer_restarts_and_its_routes_are_kept,
    a_route_that_is_not_told_again_goes_when_everything_was_told,
    a_farewell_takes_the_routes_along,
]);

/// Connections on each of the two ways.
const CONNECTIONS: usize = 50;

struct Site<R> {
    daemon: Daemon,
    router: R,
    c1: Container,
    c3: Container,
    node1: Node,
    node2: Node,
    _fabric: Fabric,
}

impl<R: RoutingDaemon> Site<R> {
    fn new() -> Result<Self> {
        let fabric = Fabric::new()?;
        let node1 = Node::new(&fabric, "node1", "10.141.0.1")?;
        let node2 = Node::new(&fabric, "node2", "10.141.0.2")?;
        node2.default_via("10.141.255.254")?;
        let c1 = node1.routed_container("cali1", "172.19.35.2")?;
        let c3 = node2.routed_container("cali3", "172.19.36.2")?;
        let speaker = Speaker::of(&node2).block("172.19.36.0/24").neighbour(Neighbour::new(node1.address));
        let router = R::start(&node2, &speaker)?;
        let daemon = Daemon::start(&node1, &peer(config(&node1, "172.19.35.0/24"), node2.address, ""))?;
        await_route(&daemon, c3.address, node2.address)?;
        router.await_established(node1.address)?;
        lead::<R>(&node2, "172.19.35.0/24", &node1)?;
        router.await_next_hop("172.19.35.0/24", Some(node1.address))?;
        traffic::ping(&c1, c3.address, 3)?.all_answered()?;
        Ok(Self { daemon, router, c1, c3, node1, node2, _fabric: fabric })
    }

    /// Full load across the nodes while something happens; nothing is lost, and this node's part goes by BPF.
    fn under_load(
        &mut self,
        happens: impl FnOnce(&mut Daemon, &mut R, &dyn Fn() -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        let Self { daemon, router, c1, c3, node1, .. } = self;
        let ways: [Way<'_>; 2] = [(c1, c3, c3.address), (c3, c1, c1.address)];
        traffic::under_load(node1, &ways, CONNECTIONS, |go_on| happens(daemon, router, go_on))
    }
}

#[test]
fn a_route_that_is_kept_over_a_restart_is_translated_by_the_new_rules() -> Result<()> {
    require_root!();
    let mut site = Site::<Bird>::new()?;
    let translating = |exclude: &str| {
        let rule = format!("[[masquerade]]\nsource = \"172.19.0.0/16\"\nexclude = [{exclude}]");
        peer(config(&site.node1, "172.19.35.0/24"), site.node2.address, "").table(&rule)
    };
    let trace = |daemon: &Daemon| {
        let container = site.c3.address.to_string();
        let arguments = ["trace", "--in", "cali1", "icmp", "172.19.35.2", &container, "--json"];
        anyhow::Ok(daemon.cli(&arguments)?["steps"].to_string())
    };
    // A rule begins and is not one of the file's that was, so that the tables are those of one with rules.
    for (exclude, translated) in [("\"172.19.0.0/16\"", false), ("", true), ("\"172.19.0.0/16\"", false)] {
        site.daemon.stop()?;
        site.daemon.write_config(&translating(exclude))?;
        site.daemon.launch()?;
        let steps = trace(&site.daemon)?;
        ensure!(steps.contains("a rule applies") == translated, "{exclude}: {steps}");
        if site.router.process().is_some() {
            await_route(&site.daemon, site.c3.address, site.node2.address)?;
            // From now on nobody says the route again.
            site.router.kill()?;
        }
    }
    Ok(())
}

fn the_daemon_restarts_and_nobody_notices<R: RoutingDaemon>() -> Result<()> {
    let mut site = Site::<R>::new()?;
    let (peer, container) = (site.node2.address, site.c3.address);
    site.under_load(|daemon, router, go_on| {
        daemon.stop()?;
        go_on()?;
        daemon.launch()?;
        await_route(daemon, container, peer)?;
        go_on()?;
        daemon.kill()?;
        go_on()?;
        daemon.launch()?;
        // It forwards before the peer has told anything, and after.
        ensure!(daemon.route_get(container)?["route"]["via"] == "10.141.0.2", "the route was dropped");
        await_route(daemon, container, peer)?;
        router.await_established("10.141.0.1".parse()?)
    })?;
    site.router.await_next_hop("172.19.35.0/24", Some(site.node1.address))
}

fn the_peer_restarts_and_its_routes_are_kept<R: RoutingDaemon>() -> Result<()> {
    let mut site = Site::<R>::new()?;
    let peer = site.node2.address;
    site.under_load(|daemon, router, go_on| {
        router.kill()?;
        await_peer(daemon, peer, "kept", |peer| peer["prefixes_stale"] == 1)?;
        go_on()?;
        router.launch()?;
        let again = |value: &serde_json::Value| {
            value["state"] == "established" && value["sessions"] == 2 && value["prefixes_stale"] == 0
        };
        await_peer(daemon, peer, "established again", again).map(drop)
    })
}

fn a_route_that_is_not_told_again_goes_when_everything_was_told<R: RoutingDaemon>() -> Result<()> {
    let mut site = Site::<R>::new()?;
    site.daemon.stop()?;
    let other =
        Speaker::of(&site.node2).block("172.19.37.0/24").neighbour(Neighbour::new(site.node1.address));
    site.router.change(&other)?;
    site.daemon.launch()?;
    await_route(&site.daemon, "172.19.37.9", site.node2.address)?;
    // No source offers it; it is what the data path held.
    super::eventually(super::PATIENCE, || {
        let route = site.daemon.route_get("172.19.36.9")?["route"].take();
        ensure!(route["via"].is_null(), "{route}");
        Ok(())
    })
}

fn a_farewell_takes_the_routes_along<R: RoutingDaemon>() -> Result<()> {
    let mut site = Site::<R>::new()?;
    let (address, container) = (site.node2.address, site.c3.address);
    site.router.disable(site.node1.address)?;
    await_no_route(&site.daemon, container)?;
    super::await_error(&site.daemon, address, "Cease: Administrative Shutdown")?;
    site.router.enable(site.node1.address)?;
    await_established(&site.daemon, address)?;
    await_route(&site.daemon, container, address)?;
    // Ours: the peer forgets the block at once.
    site.router.await_next_hop("172.19.35.0/24", Some(site.node1.address))?;
    site.daemon.detach()?;
    site.router.await_next_hop("172.19.35.0/24", None)
}
