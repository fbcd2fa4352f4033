//! Where packets leave: routers that come and go, the default route, and what is the kernel's alone.

use anyhow::{Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::{Config, Daemon, Fabric, Namespace, Node, eventually, traffic};

use super::{
    network::{Network, PATIENCE, await_route, config1, own_routes, route},
    require_root,
};

#[test]
fn a_next_hop_that_becomes_reachable_later_is_taken() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, node1, node2, .. } = &network;
    let config = super::network::base()
        .block("172.19.35.0/24")
        .endpoint(c1.address, "cali1")
        .route("172.19.36.0/26", "10.142.0.2");
    daemon1.write_config(&config)?;
    daemon1.reload()?;
    let left = route(daemon1, c3.address)?;
    assert_eq!((&left["kind"], &left["reason"]), (&"kernel".into(), &"no-next-hop".into()), "{left}");
    let status = daemon1.cli(&["status", "--json"])?;
    assert_eq!(status["health"], "degraded");
    assert!(status["complaints"].to_string().contains("10.142.0.2"), "{status}");
    traffic::ping(c1, c3.address, 2)?.all_answered().unwrap_err();
    assert_eq!(daemon1.drops(Hook::FromContainer, Reason::NoNextHop)?, 2);

    node2.ip("address add 10.142.0.2/16 dev eth0")?;
    node1.ip("address add 10.142.0.1/16 dev eth0")?;
    let route = await_route(daemon1, c3.address, "next-hop")?;
    assert_eq!(route["via"], "10.142.0.2");
    network.ping_by_bpf(c1, c3.address)?;
    assert!(own_routes(node1)?.iter().any(|route| route.contains("172.19.36.0/26 via 10.142.0.2")));
    assert_eq!(daemon1.cli(&["status", "--json"])?["health"], "ok");

    node1.ip("address delete 10.142.0.1/16 dev eth0")?;
    await_route(daemon1, c3.address, "kernel").map(drop)
}

#[test]
fn an_uplink_goes_down_and_comes_up() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c2, c3, node1, .. } = &network;
    let routes = own_routes(node1)?;
    for _ in 0..3 {
        node1.ip("link set eth0 down")?;
        await_route(daemon1, c3.address, "kernel")?;
        network.ping_by_bpf(c1, c2.address)?;
        node1.ip("link set eth0 up")?;
        await_route(daemon1, c3.address, "next-hop")?;
        eventually(PATIENCE, || {
            let now = own_routes(node1)?;
            ensure!(now == routes, "{now:?} in place of {routes:?}");
            Ok(())
        })?;
        network.by_bpf(|| eventually(PATIENCE, || traffic::ping(c1, c3.address, 1)?.all_answered()))?;
        network.ping_by_bpf(c3, c1.address)?;
    }
    Ok(())
}

#[test]
fn a_router_that_changes_its_mac_is_followed() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { c1, c3, node1, node2, .. } = &network;
    network.ping_by_bpf(c1, c3.address)?;
    node2.ip("link set eth0 address 02:00:00:00:00:22")?;
    node1.ip("neigh flush dev eth0")?;
    network.ping_by_bpf(c1, c3.address)
}

/// One node with the outside behind `eth1`, and a container.
fn with_outside(
    uplinks: Option<&str>,
) -> Result<(Daemon, tests::harness::Container, tests::harness::Outside, Node, Fabric)> {
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node1", "10.141.0.1")?;
    let c1 = node.container("cali1", "172.19.35.2")?;
    let outside = node.outside("eth1", "192.168.200.172/24", "192.168.200.1")?;
    // This outside knows the containers: nothing is translated here.
    outside.ip("route add 172.19.0.0/16 via 192.168.200.172")?;
    let mut config =
        Config::new().pool("172.19.0.0/16").block("172.19.35.0/24").endpoint(c1.address, "cali1");
    if let Some(uplinks) = uplinks {
        config = config.node("uplinks", uplinks);
    }
    let daemon = Daemon::start(&node, &config)?;
    Ok((daemon, c1, outside, node, fabric))
}

#[test]
fn the_default_route_is_carried() -> Result<()> {
    require_root!();
    // With and without the key: the uplink is then that of the default route.
    for uplinks in [Some(r#"["eth0", "eth1"]"#), None] {
        let (daemon, c1, outside, node, _fabric) = with_outside(uplinks)?;
        let far = outside.add_address("203.0.113.5")?;
        let default = route(&daemon, far)?;
        assert_eq!((&default["prefix"], &default["via"]), (&"0.0.0.0/0".into(), &"192.168.200.1".into()));
        assert_eq!((&default["interface"], &default["source"]), (&"eth1".into(), &"kernel".into()));
        let before = traffic::ip_forw_datagrams(&node)?;
        for address in [far, outside.address] {
            traffic::ping(&c1, address, 3)?.all_answered()?;
            traffic::tcp_transfer(&c1, &outside, address, 1_000_000)?;
        }
        traffic::ping(&outside, c1.address, 3)?.all_answered()?;
        assert_eq!(traffic::ip_forw_datagrams(&node)?, before);

        // It goes, and the kernel says so to the container; it comes back, and is taken again.
        node.ip("route delete default")?;
        eventually(PATIENCE, || {
            ensure!(route(&daemon, far)?.is_null(), "the default route is still there");
            Ok(())
        })?;
        let ping = traffic::ping(&c1, far, 1)?;
        assert!(ping.errors == 1 && ping.received == 0, "{}", ping.text);
        node.default_via(outside.address)?;
        await_route(&daemon, far, "next-hop")?;
        // Without the key, eth1 is an uplink only as long as it has the default route: hooked again.
        eventually(PATIENCE, || traffic::ping(&c1, far, 1)?.all_answered())?;
    }
    Ok(())
}

#[test]
fn a_route_by_another_interface_is_left_to_the_kernel() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, node1, .. } = &network;
    let side = Namespace::new("side")?;
    node1.ip_batch(&format!(
        "link add side0 type veth peer name eth0 netns {}\n\
         address add 198.51.100.1/24 dev side0\n\
         link set side0 up\n",
        side.name()
    ))?;
    side.ip_batch(
        "address add 198.51.100.9/24 dev eth0\nlink set eth0 up\nroute add default via 198.51.100.1\n",
    )?;
    node1.await_links()?;
    side.await_links()?;
    let left = await_route(daemon1, "198.51.100.9", "kernel")?;
    assert_eq!(left["reason"], "kernel-route");
    let before = traffic::ip_forw_datagrams(node1)?;
    traffic::ping(c1, "198.51.100.9", 3)?.all_answered()?;
    assert_eq!(traffic::ip_forw_datagrams(node1)?, before + 6);
    assert_eq!(daemon1.drops(Hook::FromContainer, Reason::KernelRoute)?, 3);
    // A longer route by that interface takes its part of what BPF carries otherwise.
    node1.ip("route add 172.19.36.16/28 via 198.51.100.9")?;
    await_route(daemon1, "172.19.36.17", "kernel")?;
    assert_eq!(route(daemon1, c3.address)?["kind"], "next-hop");
    network.ping_by_bpf(c1, c3.address)
}

#[test]
fn a_connected_network_of_an_uplink_is_carried() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, fabric, .. } = &network;
    let host = Namespace::new("host")?;
    fabric.plug(&host, "eth0", Some("10.141.0.50/16"))?;
    host.ip("route add 172.19.35.0/24 via 10.141.0.1")?;
    let route = route(daemon1, "10.141.0.50")?;
    assert_eq!((&route["kind"], &route["via"]), (&"next-hop".into(), &serde_json::Value::Null), "{route}");
    network.ping_by_bpf(c1, "10.141.0.50")?;
    network.ping_by_bpf(&host, c1.address)?;
    network.by_bpf(|| traffic::tcp_transfer(c1, &host, "10.141.0.50", 1_000_000)).map(drop)
}

#[test]
fn an_uplink_that_comes_later_is_hooked() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, node1, fabric, .. } = &network;
    daemon1.write_config(&config1().node("uplinks", r#"["eth0", "eth7"]"#))?;
    // The base has a list of its own: this file names the key twice.
    let output = daemon1.cli_output(&["reload"]);
    assert_eq!(output.code(), Some(2), "{output:?}");
    let config = Config::new()
        .node("uplinks", r#"["eth0", "eth7"]"#)
        .block("172.19.35.0/24")
        .endpoint(c1.address, "cali1");
    daemon1.write_config(&config)?;
    daemon1.reload()?;
    let status = daemon1.cli(&["status", "--json"])?;
    assert!(status["complaints"].to_string().contains("eth7"), "{status}");
    fabric.plug(node1, "eth7", Some("10.143.0.1/16"))?;
    let host = Namespace::new("host")?;
    fabric.plug(&host, "eth0", Some("10.143.0.50/16"))?;
    host.ip("route add 172.19.35.0/24 via 10.143.0.1")?;
    await_route(daemon1, "10.143.0.50", "next-hop")?;
    network.ping_by_bpf(&host, c1.address)?;
    assert_eq!(daemon1.cli(&["status", "--json"])?["health"], "ok");
    Ok(())
}
