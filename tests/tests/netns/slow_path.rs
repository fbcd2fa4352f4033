//! The kernel's own table, kept in step for what BPF leaves to the kernel.

use anyhow::{Result, ensure};
use tests::harness::{eventually, traffic};

use super::{
    network::{Network, PATIENCE, await_route, config1, own_routes},
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
    node1.ip("route add 172.19.42.0/24 via 10.141.0.5 proto bird")?;
    daemon1.write_config(&config1().route("172.19.42.0/24", "10.141.0.9"))?;
    daemon1.reload()?;
    assert_eq!(own_routes(node1)?, ROUTES);
    let other = "172.19.42.0/24 via 10.141.0.5 dev eth0 proto bird";
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
    node1.ip("route replace 172.19.36.0/26 via 10.141.0.5 proto bird")?;
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
