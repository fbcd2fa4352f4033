//! Next hops by two uplinks, and networks that the node is connected to.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use tests::harness::{
    Bird, Config, Daemon, Fabric, Frr, Neighbour, Node, RoutingDaemon, Speaker, eventually,
};

use super::{PATIENCE, await_peer, await_route, peer, require_root};

/// A node of ours with an uplink in each of two fabrics, and a router in each, which announce the same.
struct Site {
    ours: Node,
    routers: [Node; 2],
    fabrics: [Fabric; 2],
}

impl Site {
    fn new() -> Result<Self> {
        let fabrics = [Fabric::new()?, Fabric::new()?];
        let ours = Node::new(&fabrics[0], "node1", "10.141.0.1")?;
        fabrics[1].plug(&ours.namespace(), "eth1", Some("10.142.0.1/16"))?;
        let routers = [
            Node::new(&fabrics[0], "router1", "10.141.0.2")?,
            Node::new(&fabrics[1], "router2", "10.142.0.2")?,
        ];
        Ok(Self { ours, routers, fabrics })
    }

    fn router(&self, number: usize, ours: Ipv4Addr, blocks: &[&str]) -> Result<Bird> {
        let router = &self.routers[number];
        let speaker = blocks.iter().fold(Speaker::of(router), |speaker, block| speaker.block(block));
        Bird::start(router, &speaker.neighbour(Neighbour::new(ours)).kernel_table(None))
    }
}

#[test]
fn a_next_hop_without_carrier_gives_way_and_a_connected_network_goes_first() -> Result<()> {
    require_root!();
    let site = Site::new()?;
    let second = Ipv4Addr::new(10, 142, 0, 1);
    let config = Config::new().node("uplinks", r#"["eth0", "eth1"]"#).block("172.19.35.0/24").table(
        "[bgp]\nasn = 64512\nrouter-id = \"10.141.0.1\"\nlisten = \"0.0.0.0:179\"\naccept = [\"0.0.0.0/0\"]",
    );
    let daemon = Daemon::start(&site.ours, &peer(peer(config, "10.141.0.2", ""), "10.142.0.2", ""))?;
    let _first = site.router(0, site.ours.address, &["172.19.36.0/24"])?;
    let _second = site.router(1, second, &["172.19.36.0/24", "10.141.0.0/16"])?;
    let both = await_peer(&daemon, "10.142.0.2", "all told", |peer| peer["prefixes_received"] == 2)?;
    ensure!(both["prefixes_accepted"] == 1 && both["refused"]["connected"] == 1, "{both:#}");
    await_route(&daemon, "172.19.36.7", "10.141.0.2")?;
    let connected = daemon.route_get("10.141.0.9")?["route"].take();
    ensure!(connected["source"] == "kernel", "{connected}");
    let table = site.ours.ip("route show 10.141.0.0/16")?;
    ensure!(!table.contains("proto 171"), "{table}");

    // The node's end of the cable loses its carrier, and the session its hold time much later.
    site.fabrics[0].ip("link set port0 down")?;
    await_route(&daemon, "172.19.36.7", "10.142.0.2")?;
    site.fabrics[0].ip("link set port0 up")?;
    await_route(&daemon, "172.19.36.7", "10.141.0.2")?;
    Ok(())
}

#[test]
fn nodes_of_one_system_behind_a_router_of_another_learn_each_other_s_blocks() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let nodes = [Node::new(&fabric, "node1", "10.141.0.1")?, Node::new(&fabric, "node2", "10.141.0.2")?];
    let router = Node::new(&fabric, "router", "10.141.0.254")?;
    let start = |node: &Node, block: &str| {
        let table = "[[bgp.peer]]\naddress = \"10.141.0.254\"\nasn = 4200000001\nallowas-in = 1";
        Daemon::start(node, &super::config(node, block).table(table))
    };
    let speaker = Speaker { asn: 4_200_000_001, ..Speaker::of(&router) };
    let neighbours = |speaker: Speaker, node: &Node| speaker.neighbour(Neighbour::new(node.address));
    let _router = Frr::start(&router, &nodes.iter().fold(speaker, neighbours))?;
    let daemons = [start(&nodes[0], "172.19.35.0/24")?, start(&nodes[1], "172.19.36.0/24")?];
    await_route(&daemons[0], "172.19.36.9", router.address)?;
    await_route(&daemons[1], "172.19.35.9", router.address)?;
    // What comes back of our own is no other node's with our block.
    eventually(PATIENCE, || {
        let routes = daemons[0].cli(&["bgp", "routes", "--refused", "--json"])?["learned"].take();
        let why: Vec<_> =
            routes.as_array().into_iter().flatten().map(|route| route["refused"].clone()).collect();
        ensure!(why == ["as-loop"], "{routes:#}");
        Ok(())
    })
}
