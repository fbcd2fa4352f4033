//! Containers that come, go and change, while the daemon follows what the kernel tells.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::{
    ContainerSpec, eventually,
    traffic::{self, TcpPair},
};

use super::{
    network::{Network, PATIENCE, SteadyPing, await_endpoint, await_route, endpoint, used},
    require_feature, require_root,
};

#[test]
fn a_container_is_made_again_with_its_address_and_interface() -> Result<()> {
    require_root!();
    let Network { daemon1, daemon2, mut c1, mut c2, c3, c4, node1, node2, fabric } = Network::new()?;
    for round in 0..3 {
        let (first, second) = (node1.ifindex("cali1")?, node1.ifindex("cali2")?);
        let specs = [node1.remove(c1)?, node1.remove(c2)?];
        await_route(&daemon1, "172.19.35.2", "block")?;
        await_route(&daemon1, "172.19.35.3", "block")?;
        [c1, c2] = node1.add(&specs)?.try_into().map_err(|_| anyhow::anyhow!("not two containers"))?;
        assert_ne!([node1.ifindex("cali1")?, node1.ifindex("cali2")?], [first, second]);
        for container in [&c1, &c2] {
            let mac = container.mac("eth0")?.map(|octet| format!("{octet:02x}")).join(":");
            let line = await_endpoint(&daemon1, container.address)?;
            assert_eq!(line["mac"], mac, "in round {round}");
        }
        traffic::ping(&c3, c1.address, 3)?.all_answered()?;
        traffic::ping(&c2, c3.address, 3)?.all_answered()?;
    }
    let network = Network { daemon1, daemon2, c1, c2, c3, c4, node1, node2, fabric };
    network.ping_by_bpf(&network.c1, network.c2.address)?;
    network.ping_by_bpf(&network.c2, network.c3.address)
}

#[test]
fn a_container_that_changes_its_mac_stays_reachable() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    for (container, mac) in [(&network.c1, "02:00:00:00:35:02"), (&network.c2, "02:00:00:00:35:03")] {
        container.ip(&format!("link set eth0 address {mac}"))?;
        eventually(PATIENCE, || {
            let line = endpoint(&network.daemon1, container.address)?.context("no endpoint")?;
            ensure!(line["mac"] == mac, "{line}");
            Ok(())
        })?;
        network.ping_by_bpf(&network.c3, container.address)?;
        network.ping_by_bpf(container, network.c3.address)?;
    }
    Ok(())
}

/// A capture makes an event of the node's side, which says nothing of the container's.
#[test]
fn a_container_changes_its_mac_while_somebody_captures() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    for (container, mac) in [(&network.c1, "02:00:00:00:35:02"), (&network.c2, "02:00:00:00:35:03")] {
        network.node1.ip(&format!("link set {} promisc on", container.interface))?;
        container.ip(&format!("link set eth0 address {mac}"))?;
        eventually(PATIENCE, || {
            let line = endpoint(&network.daemon1, container.address)?.context("no endpoint")?;
            ensure!(line["mac"] == mac, "{line}");
            Ok(())
        })?;
        network.ping_by_bpf(&network.c3, container.address)?;
    }
    Ok(())
}

#[test]
fn a_route_that_disappears_takes_the_endpoint_with_it() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c2, node1, .. } = &network;
    let route = "172.19.35.3 dev cali2 scope link";
    node1.ip(&format!("route delete {route}"))?;
    await_route(daemon1, c2.address, "block")?;
    assert_eq!(endpoint(daemon1, c2.address)?, None);
    traffic::ping_with(c1, c2.address, 3, &["-W", "0.2"])?.none_answered()?;
    assert_eq!(daemon1.drops(Hook::FromContainer, Reason::NoEndpoint)?, 3);

    node1.ip(&format!("route add {route}"))?;
    await_endpoint(daemon1, c2.address)?;
    network.ping_by_bpf(c1, c2.address)?;
    network.ping_by_bpf(c2, c1.address)
}

#[test]
fn one_veth_may_have_two_addresses() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c2, c3, node1, .. } = &network;
    let endpoints = used(daemon1, "endpoints")?;
    c2.ip("address add 172.19.35.12/32 dev eth0")?;
    node1.ip("route add 172.19.35.12 dev cali2 scope link")?;
    let second = await_endpoint(daemon1, "172.19.35.12")?;
    assert_eq!(second["interface"], "cali2");
    assert_eq!(used(daemon1, "endpoints")?, endpoints + 1);
    network.ping_by_bpf(c3, "172.19.35.12")?;
    network.ping_by_bpf(c3, c2.address)?;
    let from = ["-I", "172.19.35.12"];
    network.by_bpf(|| traffic::ping_with(c2, c3.address, 3, &from)?.all_answered())?;

    // One goes, the other stays, and the hook with it.
    node1.ip("route delete 172.19.35.12 dev cali2")?;
    await_route(daemon1, "172.19.35.12", "block")?;
    network.ping_by_bpf(c2, c3.address)?;
    traffic::ping_with(c2, c3.address, 3, &["-I", "172.19.35.12", "-W", "0.2"])?.none_answered()?;
    assert_eq!(daemon1.drops(Hook::FromContainer, Reason::SpoofedSource)?, 3);
    Ok(())
}

#[test]
fn an_interface_that_is_renamed_keeps_its_container() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c2, c3, node1, .. } = &network;
    let ping = SteadyPing::start(c2, c3.address)?;
    node1.ip("link set cali2 down")?;
    await_route(daemon1, c2.address, "block")?;
    drop(ping);
    node1.ip_batch("link set cali2 name cali7\nlink set cali7 up\n")?;
    node1.ip("route add 172.19.35.3 dev cali7 scope link")?;
    assert_eq!(await_endpoint(daemon1, c2.address)?["interface"], "cali7");
    network.ping_by_bpf(c2, c3.address)
}

#[test]
fn an_interface_that_is_renamed_while_it_is_up_loses_nothing() -> Result<()> {
    require_feature!(LiveRename);
    let network = Network::new()?;
    let Network { daemon1, c2, c3, node1, .. } = &network;
    let ping = SteadyPing::start(c2, c3.address)?;
    network.by_bpf(|| {
        node1.ip("link set cali2 name cali7")?;
        eventually(PATIENCE, || {
            let line = endpoint(daemon1, c2.address)?.context("no endpoint")?;
            ensure!(line["interface"] == "cali7", "{line}");
            Ok(())
        })?;
        ping.continues(10)
    })?;
    ping.nothing_lost()?;
    let status = daemon1.cli(&["status", "--json"])?;
    let hooks = status["hooks"].as_array().context("status without hooks")?;
    let hook = hooks.iter().find(|hook| hook["interface"] == "cali7").context("no hook at cali7")?;
    assert!(hook["program_id"].is_u64(), "{status}");
    assert_eq!(hooks.len(), 3, "{status}");
    network.ping_by_bpf(c3, c2.address)
}

#[test]
fn two_hundred_containers_come_and_go_beside_a_connection() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, node1, .. } = &network;
    let (endpoints, routes) = (used(daemon1, "endpoints")?, used(daemon1, "routes")?);
    let specs = (20..220)
        .map(|n| Ok(ContainerSpec::new(&format!("cali{n}"), format!("172.19.35.{n}"))?.host_route()))
        .collect::<Result<Vec<_>>>()?;

    let pair = TcpPair::connect(c1, c3, c3.address)?;
    let over = AtomicBool::new(false);
    let losses = || anyhow::Ok([traffic::tcp_losses(c1)?, traffic::tcp_losses(c3)?]);
    let before = losses()?;
    let rounds = thread::scope(|scope| {
        let flow = scope.spawn(|| -> Result<u32> {
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) {
                pair.upload(100_000)?;
                pair.download(100_000)?;
                rounds += 1;
            }
            Ok(rounds)
        });
        let churn = network.by_bpf(|| {
            let containers = node1.add(&specs)?;
            for container in [&containers[0], &containers[99], &containers[199]] {
                await_endpoint(daemon1, container.address)?;
            }
            eventually(PATIENCE, || {
                let now = used(daemon1, "endpoints")?;
                ensure!(now == endpoints + 200, "{now} endpoints of {}", endpoints + 200);
                Ok(())
            })?;
            traffic::ping(&containers[199], c3.address, 3)?.all_answered()?;
            traffic::ping(c3, containers[0].address, 3)?.all_answered()?;
            let lines: String = (20..220).map(|n| format!("link delete cali{n}\n")).collect();
            node1.ip_batch(&lines)?;
            eventually(PATIENCE, || {
                let now = (used(daemon1, "endpoints")?, used(daemon1, "routes")?);
                ensure!(now == (endpoints, routes), "{now:?} in place of {endpoints} and {routes}");
                Ok(())
            })
        });
        over.store(true, Ordering::Relaxed);
        let flow = flow.join().map_err(|_| anyhow::anyhow!("the connection's thread panicked"))?;
        churn.and(flow)
    })?;
    assert_eq!(losses()?, before, "segments were lost in {rounds} rounds");
    ensure!(rounds > 10, "the connection made only {rounds} rounds");
    Ok(())
}
