//! Full mesh, a route reflector, and many prefixes.

use anyhow::{Result, ensure};
use tests::harness::{
    Bird, Container, Daemon, Fabric, Neighbour, Node, RoutingDaemon, Speaker, eventually, traffic,
};

use super::{
    PATIENCE, await_established, await_no_route, await_peer, await_route, bgp_peer, config, lead, peer,
    require_root, traffic_by_bpf, with_daemons,
};

with_daemons!(bird: Bird, frr: Frr, gobgp: GoBgp => [
    a_full_mesh_of_four_nodes,
    a_route_reflector_passes_the_blocks_on,
]);

/// Four nodes, a container on each; the first two are ours, the others the routing daemon's.
struct Site {
    nodes: Vec<Node>,
    containers: Vec<Container>,
    _fabric: Fabric,
}

impl Site {
    fn new() -> Result<Self> {
        let fabric = Fabric::new()?;
        let (mut nodes, mut containers) = (Vec::new(), Vec::new());
        for number in 1..=4 {
            let node = Node::new(&fabric, &format!("node{number}"), format!("10.141.0.{number}"))?;
            // The kernel answers a container's ARP request only where it has a route for the gateway.
            node.default_via("10.141.255.254")?;
            containers.push(node.routed_container("cali1", format!("172.19.{}.2", 34 + number))?);
            nodes.push(node);
        }
        Ok(Self { nodes, containers, _fabric: fabric })
    }

    fn block(number: usize) -> String {
        format!("172.19.{}.0/24", 34 + number)
    }

    /// Starts the daemon on a node, with these peers.
    fn daemon(&self, number: usize, peers: &[usize]) -> Result<Daemon> {
        let node = &self.nodes[number - 1];
        let config = peers.iter().fold(config(node, &Self::block(number)), |config, other| {
            peer(config, self.nodes[other - 1].address, "")
        });
        Daemon::start(node, &config)
    }

    /// Starts the routing daemon on a node, with these peers.
    fn router<R: RoutingDaemon>(&self, number: usize, peers: &[usize], client: bool) -> Result<R> {
        let mut speaker = Speaker::of(&self.nodes[number - 1]).block(&Self::block(number));
        for other in peers {
            let neighbour = Neighbour::new(self.nodes[other - 1].address);
            speaker = speaker.neighbour(Neighbour { reflector_client: client, ..neighbour });
        }
        R::start(&self.nodes[number - 1], &speaker)
    }

    /// Waits until a daemon of ours has the routes to the others' containers.
    fn await_routes(&self, daemon: &Daemon, others: &[usize]) -> Result<()> {
        for other in others {
            await_route(daemon, self.containers[other - 1].address, self.nodes[other - 1].address)?;
        }
        Ok(())
    }
}

fn a_full_mesh_of_four_nodes<R: RoutingDaemon>() -> Result<()> {
    let site = Site::new()?;
    let daemon1 = site.daemon(1, &[2, 3, 4])?;
    let daemon2 = site.daemon(2, &[1, 3, 4])?;
    let router3: R = site.router(3, &[1, 2, 4], false)?;
    let _router4: R = site.router(4, &[1, 2, 3], false)?;
    site.await_routes(&daemon1, &[2, 3, 4])?;
    site.await_routes(&daemon2, &[1, 3, 4])?;
    for other in [1, 2] {
        let other_node = &site.nodes[other - 1];
        router3.await_established(other_node.address)?;
        router3.await_next_hop(&Site::block(other), Some(other_node.address))?;
        lead::<R>(&site.nodes[2], &Site::block(other), other_node)?;
    }
    traffic_by_bpf(&[&site.nodes[0], &site.nodes[1]], &site.containers[0], &site.containers[1])?;
    traffic_by_bpf(&[&site.nodes[0]], &site.containers[0], &site.containers[2])?;

    // The slow path has them, too, and the peers' routes never come back to us as somebody else's.
    eventually(PATIENCE, || {
        let own = site.nodes[0].ip("route show proto 171")?;
        ensure!(own.contains("172.19.37.0/24 via 10.141.0.3"), "{own}");
        Ok(())
    })?;
    // A block that its node gives up.
    let peers = [1, 3, 4].iter().fold(config(&site.nodes[1], "172.19.99.0/24"), |config, other| {
        peer(config, site.nodes[other - 1].address, "")
    });
    daemon2.write_config(&peers)?;
    daemon2.reload()?;
    await_no_route(&daemon1, "172.19.36.77")?;
    await_route(&daemon1, "172.19.99.77", "10.141.0.2")?;
    // Its container is outside its blocks now, and announced by itself.
    await_route(&daemon1, site.containers[1].address, "10.141.0.2")?;
    let sessions = bgp_peer(&daemon1, "10.141.0.2")?["sessions"].clone();
    ensure!(sessions == 1, "the reload cost a session: {sessions}");
    Ok(())
}

fn a_route_reflector_passes_the_blocks_on<R: RoutingDaemon>() -> Result<()> {
    let site = Site::new()?;
    let _reflector: R = site.router(4, &[1, 2, 3], true)?;
    let daemon1 = site.daemon(1, &[4])?;
    let daemon2 = site.daemon(2, &[4])?;
    let _router3: R = site.router(3, &[4], false)?;
    site.await_routes(&daemon1, &[2, 3, 4])?;
    site.await_routes(&daemon2, &[1, 3, 4])?;
    traffic_by_bpf(&[&site.nodes[0], &site.nodes[1]], &site.containers[0], &site.containers[1])?;
    let routes = daemon1.cli(&["bgp", "routes", "--json"])?;
    let learned = routes["learned"].as_array().cloned().unwrap_or_default();
    let reflected = learned.iter().find(|route| route["prefix"] == "172.19.36.0/24");
    ensure!(reflected.is_some_and(|route| route["originator"] == "10.141.0.2"), "{routes:#}");
    Ok(())
}

#[test]
fn a_hundred_thousand_prefixes_come_and_go_while_packets_flow() -> Result<()> {
    require_root!();
    let site = Site::new()?;
    let daemon1 = Daemon::start(
        &site.nodes[0],
        &peer(config(&site.nodes[0], &Site::block(1)), "10.141.0.3", "max-prefixes = 200000")
            .table("[[pool]]\ncidr = \"100.64.0.0/10\"")
            .datapath("kernel-routes", false),
    )?;
    let few =
        Speaker::of(&site.nodes[2]).block(&Site::block(3)).neighbour(Neighbour::new(site.nodes[0].address));
    let many = (0..100_000u32).map(|n| format!("{}/32", std::net::Ipv4Addr::from(0x6440_0000 + 2 * n)));
    let many = Speaker { blocks: few.blocks.iter().cloned().chain(many).collect(), ..few.clone() };
    // The node's own kernel needs none of them.
    let (few, many) = (few.kernel_table(None), many.kernel_table(None));
    site.nodes[2].route_via(&Site::block(1), site.nodes[0].address)?;
    let mut bird = Bird::start(&site.nodes[2], &few)?;
    await_established(&daemon1, "10.141.0.3")?;
    await_route(&daemon1, site.containers[2].address, "10.141.0.3")?;
    bird.change(&many)?;
    await_peer(&daemon1, "10.141.0.3", "everything", |peer| peer["prefixes_accepted"] == 100_001)?;
    await_route(&daemon1, "100.67.13.62", "10.141.0.3")?;
    traffic::ping(&site.containers[0], site.containers[2].address, 20)?.all_answered()?;
    let used = |daemon: &Daemon| anyhow::Ok(daemon.cli(&["status", "--json"])?["tables"][0]["used"].clone());
    ensure!(used(&daemon1)?.as_u64() > Some(100_000), "{}", used(&daemon1)?);
    bird.change(&few)?;
    eventually(PATIENCE, || {
        let left = used(&daemon1)?;
        ensure!(left.as_u64() < Some(1000), "{left} routes");
        Ok(())
    })?;
    traffic::ping(&site.containers[0], site.containers[2].address, 20)?.all_answered()
}
