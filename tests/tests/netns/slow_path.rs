//! The kernel's own table, kept in step for what BPF leaves to the kernel.

use anyhow::{Result, ensure};
use tests::harness::{eventually, traffic};

use super::{
    network::{Network, PATIENCE, await_endpoint, await_route, config1, own_routes},
    reconcile::{await_complaint, await_health},
    require_root,
};

const ROUTES: [&str; 3] = [
    "172.19.35.2 dev cali1 scope link",
    "172.19.36.0/26 via 10.141.0.2 dev eth0",
    "blackhole 172.19.35.0/24",
];

#[test]
fn routes_follow_the_file_and_are_purged_after_a_kill() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    assert_eq!(own_routes(&network.node1)?, ROUTES);
    network.daemon1.write_config(&config1().block("172.19.41.0/24").route("172.19.42.0/24", "10.141.0.9"))?;
    network.daemon1.reload()?;
    let mut more =
        [&ROUTES[..], &["172.19.42.0/24 via 10.141.0.9 dev eth0", "blackhole 172.19.41.0/24"]].concat();
    more.sort_unstable();
    assert_eq!(own_routes(&network.node1)?, more);

    network.daemon1.kill()?;
    assert_eq!(own_routes(&network.node1)?, more);
    network.daemon1.write_config(&config1())?;
    network.daemon1.launch()?;
    assert_eq!(own_routes(&network.node1)?, ROUTES);

    network.daemon1.write_config(&config1().datapath("kernel-routes", false))?;
    network.daemon1.reload()?;
    assert_eq!(own_routes(&network.node1)?, Vec::<String>::new());
    network.ping_by_bpf(&network.c1, network.c3.address)
}

#[test]
fn somebody_else_s_route_for_the_prefix_is_left_alone() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, node1, .. } = &network;
    node1.ip("route add 172.19.42.0/24 via 10.141.0.5 proto bird metric 16")?;
    daemon1.write_config(&config1().route("172.19.42.0/24", "10.141.0.9"))?;
    daemon1.reload()?;
    assert_eq!(own_routes(node1)?, ROUTES);
    let other = "172.19.42.0/24 via 10.141.0.5 dev eth0 proto bird metric 16";
    assert_eq!(node1.ip("route show 172.19.42.0/24")?.trim(), other);
    daemon1.write_config(&config1())?;
    daemon1.reload()?;
    assert_eq!(node1.ip("route show 172.19.42.0/24")?.trim(), other);
    network.ping_by_bpf(c1, c3.address)
}

#[test]
fn a_route_of_ours_that_somebody_removes_comes_back() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { node1, .. } = &network;
    node1.ip_batch("route delete blackhole 172.19.35.0/24\nroute delete 172.19.36.0/26\n")?;
    eventually(PATIENCE, || {
        let routes = own_routes(node1)?;
        ensure!(routes == ROUTES, "{routes:?}");
        Ok(())
    })
}

#[test]
fn a_container_s_interface_that_was_switched_off_gets_its_route_back() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { node1, daemon1, c1, .. } = &network;
    // The kernel drops the route with the interface, and tells nobody.
    node1.ip_batch("link set cali1 down\nlink set cali1 up\n")?;
    eventually(PATIENCE, || {
        let routes = own_routes(node1)?;
        ensure!(routes == ROUTES, "{routes:?}");
        Ok(())
    })?;
    await_route(daemon1, c1.address, "endpoint").map(drop)
}

#[test]
fn somebody_else_s_route_that_replaced_ours_is_left_alone_until_it_goes() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { node1, .. } = &network;
    node1.ip("route replace 172.19.36.0/26 via 10.141.0.5 proto bird metric 16")?;
    node1.ip("route delete 172.19.36.0/26 proto bird")?;
    eventually(PATIENCE, || {
        let routes = own_routes(node1)?;
        ensure!(routes == ROUTES, "{routes:?}");
        Ok(())
    })
}

#[test]
fn the_kernel_finds_the_way_for_what_is_left_to_it() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, node1, node2, .. } = &network;
    // Detached hooks leave everything to the kernel: kernel routes alone must do.
    traffic::ping(c1, c3.address, 1)?.all_answered()?;
    let before = (traffic::ip_forw_datagrams(node1)?, traffic::ip_forw_datagrams(node2)?);
    // With IP options, which BPF passes.
    traffic::ping_with(c1, c3.address, 3, &["-R"])?.all_answered()?;
    let after = (traffic::ip_forw_datagrams(node1)?, traffic::ip_forw_datagrams(node2)?);
    ensure!(after == (before.0 + 6, before.1 + 6), "{before:?} {after:?}");
    await_route(daemon1, c3.address, "next-hop").map(drop)
}

/// A CNI plugin adds the route of its container with metric 0, beside the blackhole of a block of one address.
#[test]
fn a_container_s_route_can_be_added_beside_ours_and_wins() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, node1, .. } = &network;
    daemon1.write_config(&config1().block("172.19.40.9/32"))?;
    daemon1.reload()?;
    ensure!(own_routes(node1)?.contains(&"blackhole 172.19.40.9".to_owned()), "{:?}", own_routes(node1)?);
    let c9 = node1.routed_container("cali9", "172.19.40.9")?;
    await_endpoint(daemon1, c9.address)?;
    let found = node1.ip("route get 172.19.40.9")?;
    ensure!(found.contains("dev cali9"), "{found}");
    traffic::ping(c1, c9.address, 3)?.all_answered()?;
    node1.ip("link delete cali9")?;
    await_route(daemon1, c9.address, "block")?;
    network.ping_by_bpf(c1, c3.address)
}

/// Routes of metric 0 are those of an older version.
#[test]
fn routes_of_an_older_version_are_replaced() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    network.daemon1.stop()?;
    network.node1.ip_batch(
        "route add blackhole 172.19.35.0/24 proto 171\n\
         route add 172.19.36.0/26 via 10.141.0.7 proto 171\n\
         route add 172.19.44.0/24 via 10.141.0.2 proto 171\n",
    )?;
    network.daemon1.launch()?;
    eventually(PATIENCE, || {
        let text = network.node1.ip("route show table main proto 171")?;
        ensure!(text.lines().count() == 3 && text.lines().all(|line| line.contains("metric 16")), "{text}");
        Ok(())
    })?;
    assert_eq!(own_routes(&network.node1)?, ROUTES);
    network.ping_by_bpf(&network.c1, network.c3.address)
}

#[test]
fn forwarding_that_is_switched_off_and_on_is_followed() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    network.node1.sysctl("net.ipv4.ip_forward", "0")?;
    await_complaint(&network.daemon1, &["does not forward packets from eth0"])?;
    network.node1.sysctl("net.ipv4.ip_forward", "1")?;
    await_health(&network.daemon1)
}

/// The node itself goes by its own neighbour entry, which it would doubt half a minute later.
#[test]
fn the_node_follows_a_container_s_new_mac() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { node1, c1, c2, .. } = &network;
    for (container, mac) in [(c1, "02:00:00:00:35:02"), (c2, "02:00:00:00:35:03")] {
        traffic::ping(node1, container.address, 1)?.all_answered()?;
        container.ip(&format!("link set eth0 address {mac}"))?;
        eventually(PATIENCE, || {
            traffic::ping_with(node1, container.address, 1, &["-W", "0.3"])?.all_answered()
        })?;
        let entry = node1.ip(&format!("neighbour show {} dev {}", container.address, container.interface))?;
        ensure!(entry.contains(mac), "{entry}");
    }
    Ok(())
}
