//! The main job: the set-up that Calico leaves, made by hand.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::{
    Daemon,
    topology::HOST_MAC,
    traffic::{self, Hop, TcpPair, UdpPair},
};

use super::{
    network::{Network, Setup, endpoint, forwarded, route},
    require_feature, require_root,
};

const TWENTY_MEGABYTES: u64 = 20_000_000;

#[test]
fn containers_and_nodes_reach_each_other_by_tcx() -> Result<()> {
    require_feature!(Tcx);
    main_job("tcx")
}

#[test]
fn containers_and_nodes_reach_each_other_by_clsact() -> Result<()> {
    require_root!();
    main_job("clsact")
}

fn main_job(attach: &'static str) -> Result<()> {
    let network = Network::with(Setup { attach, ..Setup::default() })?;
    let Network { daemon1, daemon2, c1, c2, c3, c4, node1, node2, .. } = &network;

    hooks_are_shown(daemon1, attach, &["cali1", "cali2", "eth0"])?;
    hooks_are_shown(daemon2, attach, &["cali3", "cali4", "eth0"])?;

    // Each way, so that every container speaks first once: its ARP is answered, and the next hop resolved.
    for (from, to) in [(c1, c2), (c2, c1), (c1, c3), (c3, c1), (c2, c4), (c4, c2), (c4, c1), (c3, c2)] {
        network.ping_by_bpf(from, to.address)?;
    }
    network.by_bpf(|| {
        for container in [c1, c2, c3, c4] {
            for node in [node1, node2] {
                traffic::ping(container, node.address, 2)?.all_answered()?;
                traffic::ping(node, container.address, 2)?.all_answered()?;
            }
        }
        Ok(())
    })?;

    network.by_bpf(|| {
        let across = TcpPair::connect(c1, c3, c3.address)?;
        across.upload(TWENTY_MEGABYTES)?;
        across.download(TWENTY_MEGABYTES)?;
        let here = TcpPair::connect(c1, c2, c2.address)?;
        here.upload(TWENTY_MEGABYTES)?;
        here.download(TWENTY_MEGABYTES)?;
        traffic::tcp_transfer(c4, node1, node1.address, 1_000_000)?;
        traffic::tcp_transfer(node1, c4, c4.address, 1_000_000)?;
        Ok(())
    })?;

    network.by_bpf(|| {
        for (from, to) in [(c1, c2), (c1, c3), (c4, c2)] {
            let pair = UdpPair::new(from, to, to.address)?;
            for length in [0, 1, 1000, 1472] {
                let seen = pair.exchange(&vec![0x5a; length])?;
                ensure!(seen.ip() == from.address, "{to:?} saw {seen} in place of {}", from.address);
            }
        }
        Ok(())
    })?;

    let hop = |address: Ipv4Addr| Hop { address: Some(address), mark: None };
    let path = traffic::traceroute(c1, c3.address)?;
    assert_eq!(path, [node1.address, node2.address, c3.address].map(hop));
    let path = traffic::traceroute(c1, c2.address)?;
    assert_eq!(path, [node1.address, c2.address].map(hop));
    assert!(daemon1.drops(Hook::FromContainer, Reason::TtlExpired)? >= 2);
    assert!(daemon2.drops(Hook::FromUplink, Reason::TtlExpired)? >= 1);
    for daemon in [daemon1, daemon2] {
        let status = daemon.cli(&["status", "--json"])?;
        assert_eq!(status["packets"]["dropped"], 0, "{status}");
        assert_eq!(status["health"], "ok", "{status}");
    }
    Ok(())
}

fn hooks_are_shown(daemon: &Daemon, attach: &str, interfaces: &[&str]) -> Result<()> {
    let status = daemon.cli(&["status", "--json"])?;
    let hooks = status["hooks"].as_array().context("status without hooks")?;
    let mut names: Vec<&str> = hooks.iter().filter_map(|hook| hook["interface"].as_str()).collect();
    names.sort_unstable();
    ensure!(names == interfaces, "hooks at {names:?} in place of {interfaces:?}");
    for hook in hooks {
        let expected = if hook["interface"] == "eth0" { "from-uplink" } else { "from-container" };
        let right = hook["hook"] == expected && hook["mode"] == attach && hook["program_id"].is_u64();
        ensure!(right, "not attached as it should be: {hook}");
    }
    Ok(())
}

#[test]
fn endpoints_come_from_the_file_and_from_the_kernel() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c2, node1, .. } = &network;
    for (container, source) in [(c1, "config"), (c2, "kernel")] {
        let line = endpoint(daemon1, container.address)?.context("no endpoint")?;
        let mac = container.mac("eth0")?.map(|octet| format!("{octet:02x}")).join(":");
        assert_eq!(line["interface"], container.interface);
        assert_eq!(line["ifindex"], node1.ifindex(&container.interface)?);
        assert_eq!(line["mac"], mac);
        assert_eq!(line["mtu_bytes"], 1500);
        assert_eq!(line["source"], source);
        assert_eq!(route(daemon1, container.address)?["kind"], "endpoint");
    }
    Ok(())
}

#[test]
fn an_address_without_a_container_is_dropped() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, daemon2, c1, node1, .. } = &network;
    let nobody = |from, address: &str| traffic::ping_with(from, address, 3, &["-W", "0.2"])?.none_answered();
    nobody(c1, "172.19.35.99")?;
    assert_eq!(daemon1.drops(Hook::FromContainer, Reason::NoEndpoint)?, 3);
    nobody(c1, "172.19.36.60")?;
    assert_eq!(daemon2.drops(Hook::FromUplink, Reason::NoEndpoint)?, 3);
    nobody(node1, "172.19.36.61")?;
    assert_eq!(daemon2.drops(Hook::FromUplink, Reason::NoEndpoint)?, 6);
    // Outside every block: no route in either table, and the kernel says so to the container.
    let ping = traffic::ping(c1, "172.19.99.1", 2)?;
    assert!(ping.errors > 0 && ping.text.contains("Net Unreachable"), "{}", ping.text);
    assert_eq!(daemon1.drops(Hook::FromContainer, Reason::NoRoute)?, 2);
    Ok(())
}

#[test]
fn a_node_without_a_default_route_has_containers_that_speak() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, node1, .. } = &network;
    assert_eq!(node1.ip("route show default")?, "");
    assert_eq!(node1.run(["sysctl", "-n", "net.ipv4.conf.cali1.proxy_arp"]).ok()?.trim(), "0");
    let before = forwarded(daemon1)?;
    network.ping_by_bpf(c1, c3.address)?;
    let neighbour = c1.ip("neigh show 169.254.1.1")?;
    let mac = HOST_MAC.map(|octet| format!("{octet:02x}")).join(":");
    assert!(neighbour.contains(&format!("lladdr {mac}")), "{neighbour}");
    // The ARP request, three echo requests and three replies.
    assert!(forwarded(daemon1)? >= before + 7);
    assert_eq!(daemon1.drops(Hook::FromContainer, Reason::Arp)?, 0);
    Ok(())
}
