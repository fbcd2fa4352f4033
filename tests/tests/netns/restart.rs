//! The daemon ends, by SIGTERM or SIGKILL, and another takes over: no packet is lost.

use anyhow::{Context as _, Result, ensure};
use tests::harness::traffic::TcpPair;

use super::{
    network::{Network, Setup, SteadyPing, await_endpoint, config1, endpoint, own_routes, route, used},
    require_feature, require_root,
};

#[test]
fn no_packet_is_lost_by_tcx() -> Result<()> {
    require_feature!(Tcx);
    no_packet_is_lost("tcx", "tcx")
}

#[test]
fn no_packet_is_lost_by_clsact() -> Result<()> {
    require_root!();
    no_packet_is_lost("clsact", "clsact")
}

#[test]
fn no_packet_is_lost_from_clsact_to_tcx() -> Result<()> {
    require_feature!(Tcx);
    no_packet_is_lost("clsact", "tcx")
}

#[test]
fn the_way_is_never_lost_from_tcx_to_clsact() -> Result<()> {
    require_feature!(Tcx);
    no_packet_is_lost("tcx", "clsact")
}

fn no_packet_is_lost(before: &'static str, after: &'static str) -> Result<()> {
    let mut network = Network::with(Setup { attach: before, ..Setup::default() })?;
    let across = SteadyPing::start(&network.c1, network.c3.address)?;
    let here = SteadyPing::start(&network.c2, network.c1.address)?;
    let connection = TcpPair::connect(&network.c3, &network.c2, network.c2.address)?;
    let config = config1().datapath("tc-attach", format!("\"{after}\""));
    for end in ["SIGTERM", "SIGKILL"] {
        if end == "SIGTERM" {
            network.daemon1.stop()?
        } else {
            network.daemon1.kill()?
        }
        // With nobody there: established and new traffic alike. (Status is not to be had then.)
        across.continues(10)?;
        connection.exchange()?;
        network.daemon1.write_config(&config)?;
        network.daemon1.launch()?;
        network.by_bpf(|| {
            across.continues(10)?;
            connection.exchange()?;
            TcpPair::connect(&network.c1, &network.c3, network.c3.address)?.exchange()
        })?;
        let status = network.daemon1.cli(&["status", "--json"])?;
        for hook in status["hooks"].as_array().context("status without hooks")? {
            ensure!(hook["mode"] == after && hook["program_id"].is_u64(), "after {end}: {status}");
        }
    }
    if (before, after) == ("tcx", "clsact") {
        // The kernel takes an interface out of service for a moment when it gets its first clsact qdisc
        // (qdisc_graft() in net/sched/sch_api.c). That happens once.
        across.lost_at_most(5)?;
        return here.lost_at_most(5);
    }
    across.nothing_lost()?;
    here.nothing_lost()
}

#[test]
fn new_flows_are_carried_while_no_daemon_runs() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    network.daemon1.kill()?;
    network.daemon2.kill()?;
    let Network { c1, c2, c3, c4, node1, node2, .. } = &network;
    let kernel = || {
        let count = |node| tests::harness::traffic::ip_forw_datagrams(node);
        anyhow::Ok((count(node1)?, count(node2)?))
    };
    let before = kernel()?;
    for (from, to) in [(c1, c3), (c2, c4), (c4, c1), (c1, c2)] {
        tests::harness::traffic::ping(from, to.address, 3)?.all_answered()?;
        tests::harness::traffic::tcp_transfer(from, to, to.address, 1_000_000)?;
    }
    assert_eq!(kernel()?, before);
    Ok(())
}

#[test]
fn what_disappeared_meanwhile_is_removed() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    network.daemon1.write_config(&config1().route("172.19.40.0/24", "10.141.0.9").block("172.19.41.0/24"))?;
    network.daemon1.reload()?;
    let c5 = network.node1.routed_container("cali5", "172.19.35.5")?;
    await_endpoint(&network.daemon1, c5.address)?;
    assert_eq!(route(&network.daemon1, "172.19.40.1")?["kind"], "next-hop");
    assert_eq!(route(&network.daemon1, "172.19.41.1")?["kind"], "block");
    let hops = used(&network.daemon1, "next-hops")?;

    network.daemon1.kill()?;
    network.node1.remove(c5)?;
    network.node1.ip("route delete 172.19.35.3 dev cali2")?;
    network.daemon1.write_config(&config1())?;
    network.daemon1.launch()?;

    let Network { daemon1, c1, c3, node1, .. } = &network;
    assert_eq!(endpoint(daemon1, "172.19.35.5")?, None);
    assert_eq!(endpoint(daemon1, "172.19.35.3")?, None);
    assert_eq!(route(daemon1, "172.19.35.5")?["kind"], "block");
    assert!(route(daemon1, "172.19.40.1")?.is_null());
    assert!(route(daemon1, "172.19.41.1")?.is_null());
    assert_eq!((used(daemon1, "endpoints")?, used(daemon1, "next-hops")?), (1, hops - 1));
    let status = daemon1.cli(&["status", "--json"])?;
    let hooks = status["hooks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let walking: Vec<_> = hooks.iter().filter(|hook| hook["program"] != "waiting").collect();
    assert_eq!(walking.len(), 2, "{status}");
    let routes = own_routes(node1)?;
    assert!(routes.iter().all(|route| !route.contains("172.19.4")), "{routes:?}");
    network.ping_by_bpf(c1, c3.address)
}

#[test]
fn a_container_that_was_made_again_meanwhile_is_found() -> Result<()> {
    require_root!();
    let Network { mut daemon1, daemon2, c1, c2, c3, c4, node1, node2, fabric } = Network::new()?;
    daemon1.stop()?;
    let specs = [node1.remove(c1)?, node1.remove(c2)?];
    let [c1, c2] = node1.add(&specs)?.try_into().map_err(|_| anyhow::anyhow!("not two containers"))?;
    daemon1.launch()?;
    let network = Network { daemon1, daemon2, c1, c2, c3, c4, node1, node2, fabric };
    for container in [&network.c1, &network.c2] {
        let line = endpoint(&network.daemon1, container.address)?.context("no endpoint")?;
        assert_eq!(line["ifindex"], network.node1.ifindex(&container.interface)?);
        network.ping_by_bpf(&network.c3, container.address)?;
        network.ping_by_bpf(container, network.c3.address)?;
    }
    Ok(())
}

#[test]
fn tables_of_another_size_are_rebuilt() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    network.daemon1.stop()?;
    network.daemon1.write_config(&config1().datapath("max-endpoints", 64))?;
    network.daemon1.launch()?;
    let status = network.daemon1.cli(&["status", "--json"])?;
    assert!(status.to_string().contains("\"max\":64"), "{status}");
    network.ping_by_bpf(&network.c1, network.c3.address)
}
