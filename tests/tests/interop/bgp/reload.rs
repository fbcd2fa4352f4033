//! `[bgp]` comes, changes and goes with a reload.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::harness::{Config, Daemon, Fabric, Neighbour, Node, RoutingDaemon, Speaker, eventually, traffic};

use super::{
    PATIENCE, await_established, await_no_route, await_route, bgp_peer, config, peer, require_root,
    traffic_by_bpf, with_daemons,
};

with_daemons!(bird: Bird, frr: Frr, gobgp: GoBgp => [a_router_of_another_system]);

#[test]
fn the_speaker_comes_and_goes_with_the_file() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let node1 = Node::new(&fabric, "node1", "10.141.0.1")?;
    let node2 = Node::new(&fabric, "node2", "10.141.0.2")?;
    let c1 = node1.routed_container("cali1", "172.19.35.2")?;
    let c3 = node2.routed_container("cali3", "172.19.36.2")?;
    let without =
        |block: &str| Config::new().node("uplinks", r#"["eth0"]"#).pool("172.19.0.0/16").block(block);
    let by_file = without("172.19.35.0/24").route("172.19.36.0/24", node2.address);
    let daemon1 = Daemon::start(&node1, &by_file)?;
    let daemon2 = Daemon::start(&node2, &without("172.19.36.0/24"))?;
    ensure!(daemon1.cli(&["bgp", "peers", "--json"])?.as_array().is_some_and(Vec::is_empty));

    let speaking = peer(config(&node1, "172.19.35.0/24"), node2.address, "");
    daemon1.write_config(&speaking)?;
    daemon1.reload()?;
    let complaints = daemon1.cli(&["status", "--json"])?["complaints"].to_string();
    ensure!(complaints.contains("BGP peer 10.141.0.2 is not established"), "{complaints}");
    daemon2.write_config(&peer(config(&node2, "172.19.36.0/24"), node1.address, ""))?;
    daemon2.reload()?;
    await_route(&daemon1, c3.address, node2.address)?;
    await_route(&daemon2, c1.address, node1.address)?;
    traffic_by_bpf(&[&node1, &node2], &c1, &c3)?;
    ensure!(daemon1.cli(&["status", "--json"])?["health"] == "ok");

    // Of the file's route and the peer's, the file's holds; without it, the peer's does again, and nothing is lost.
    daemon1.write_config(&peer(
        config(&node1, "172.19.35.0/24").route("172.19.36.0/24", node2.address),
        node2.address,
        "",
    ))?;
    daemon1.reload()?;
    let answer = daemon1.route_get(c3.address)?;
    ensure!(
        answer["route"]["source"] == "config" && answer["other_offers"][0]["source"] == "bgp",
        "{answer:#}"
    );
    daemon1.write_config(&speaking)?;
    daemon1.reload()?;
    ensure!(daemon1.route_get(c3.address)?["route"]["source"] == "bgp");
    ensure!(bgp_peer(&daemon1, node2.address)?["sessions"] == 1, "a reload cost the session");

    // A file with an error changes nothing.
    daemon1.write_config(&speaking.clone().table("[[bgp.peer]]\naddress = \"10.141.0.7\"\nasn = 65535"))?;
    ensure!(daemon1.cli_output(&["reload"]).code() == Some(2));
    traffic::ping(&c1, c3.address, 5)?.all_answered()?;

    daemon1.write_config(&by_file)?;
    daemon1.reload()?;
    ensure!(daemon1.route_get(c3.address)?["route"]["source"] == "config");
    await_no_route(&daemon2, c1.address)?;
    let said = bgp_peer(&daemon2, node1.address)?["last_down_reason"].to_string();
    ensure!(said.contains("Administrative Shutdown"), "{said}");
    eventually(PATIENCE, || {
        let routes = node2.ip("route show 172.19.35.0/24")?;
        ensure!(routes.is_empty(), "{routes}");
        Ok(())
    })
}

fn a_router_of_another_system<R: RoutingDaemon>() -> Result<()> {
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node1", "10.141.0.1")?;
    let router = Node::new(&fabric, "router", "10.141.0.254")?;
    let file =
        config(&node, "172.19.35.0/24").table("[[bgp.peer]]\naddress = \"10.141.0.254\"\nasn = 4200000001");
    let daemon = Daemon::start(&node, &file)?;
    let speaker = Speaker { asn: 4_200_000_001, ..Speaker::of(&router) };
    let speaking =
        R::start(&router, &speaker.block("172.19.36.0/24").neighbour(Neighbour::new(node.address)))?;
    await_established(&daemon, router.address)?;
    await_route(&daemon, "172.19.36.9", router.address)?;
    speaking.await_next_hop("172.19.35.0/24", Some(node.address))?;
    let routes = daemon.cli(&["bgp", "routes", "--json"])?["learned"].take();
    for route in routes.as_array().context("no routes")? {
        // FRR sends our own block back.
        let ours = route["prefix"] == "172.19.35.0/24";
        let refused = if ours { Value::from("as-loop") } else { Value::Null };
        ensure!(route["as_path"][0] == 4_200_000_001_u32, "{route:#}");
        ensure!(route["best"] == !ours && route["refused"] == refused, "{route:#}");
    }
    Ok(())
}
