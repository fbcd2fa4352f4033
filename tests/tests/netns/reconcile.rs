//! What could not be done is tried again by time, and `health` says what is pending.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::harness::{Config, Daemon, Fabric, Node, Stream, eventually, traffic};

use super::{
    masquerade::{Egress, FAR, RULE},
    network::{Network, PATIENCE, await_endpoint, base, config1},
    require_root,
};

/// What `dataplane status` complains of, one a line.
pub fn complaints(daemon: &Daemon) -> Result<String> {
    let status = daemon.cli(&["status", "--json"])?;
    let lines = status["complaints"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// Waits until a complaint has those words.
pub fn await_complaint(daemon: &Daemon, words: &[&str]) -> Result<String> {
    eventually(PATIENCE, || {
        let complaints = complaints(daemon)?;
        let found = complaints.lines().find(|line| words.iter().all(|word| line.contains(word)));
        ensure!(found.is_some(), "no complaint with {words:?} among {complaints:?}");
        Ok(found.unwrap_or_default().to_owned())
    })
}

/// Waits until there is no complaint.
pub fn await_health(daemon: &Daemon) -> Result<()> {
    eventually(PATIENCE, || {
        let complaints = complaints(daemon)?;
        ensure!(complaints.is_empty(), "{complaints}");
        Ok(())
    })
}

/// Calico's routes, and a prefix that none of the interfaces has; then a bridge, as flannel makes it.
#[test]
fn a_node_without_endpoints_says_what_it_looked_for() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node1", "10.141.0.1")?;
    let daemon = Daemon::start(&node, &base().node("workload-prefix", "\"veth\""))?;
    await_health(&daemon)?;
    let container = node.routed_container("cali1", "172.19.35.2")?;
    let complaint = await_complaint(&daemon, &["no container was found", "cali1", "\"veth\""])?;
    ensure!(complaint.contains("node.workload-prefix"), "{complaint}");
    daemon.write_config(&base())?;
    daemon.reload()?;
    await_health(&daemon)?;
    await_endpoint(&daemon, container.address).map(drop)
}

/// At nine in the morning the log tells what happened at three.
#[test]
fn changes_are_logged_once() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, node1, .. } = &network;
    let process = daemon1.process().context("no daemon")?;
    let logged = |words: &'static [&'static str]| {
        let says = move |line: &str| words.iter().all(|word| line.contains(word));
        process.wait_for_line(Stream::Stderr, says, PATIENCE)
    };
    logged(&["INFO", "endpoint 172.19.35.3 added", "cali2"])?;
    node1.ip("link set eth0 down")?;
    logged(&["INFO", "uplink is down", "eth0"])?;
    logged(&["WARN", "health: uplink eth0 is down"])?;
    node1.ip("link set eth0 up")?;
    logged(&["INFO", "health: no more: uplink eth0 is down"])?;
    node1.ip("route delete 172.19.35.3 dev cali2")?;
    logged(&["INFO", "endpoint 172.19.35.3 removed"])?;
    daemon1.write_config(&config1().block("172.19.41.0/24"))?;
    daemon1.reload()?;
    logged(&["INFO", "again: [[block]] +172.19.41.0/24"])?;
    let log = process.output(Stream::Stderr);
    ensure!(log.matches("health: uplink eth0 is down").count() == 1, "{log}");
    Ok(())
}

/// The program that is in the way goes without an event of the kernel's; the sweeps of the flow table go on meanwhile.
#[test]
fn a_reload_that_failed_half_way_is_completed_by_time() -> Result<()> {
    require_root!();
    // Two daemons would take each other's kernel routes away, and that makes events.
    let without_events = |config: Config| config.datapath("kernel-routes", false).datapath("discover", false);
    let file = |uplinks| {
        let file = Config::new().node("uplinks", uplinks).pool("172.19.0.0/16").block("172.19.35.0/24");
        without_events(file.endpoint("172.19.35.2", "cali1").table(RULE))
    };
    let net = Egress::with(file(r#"["eth1"]"#))?;
    let other = Daemon::start(&net.node, &without_events(base()))?;
    net.daemon.write_config(&file(r#"["eth1", "eth0"]"#))?;
    let refused = net.daemon.cli_output(&["reload"]);
    ensure!(refused.code() != Some(0) && refused.stderr.contains("another dataplane"), "{refused:?}");
    await_complaint(&net.daemon, &["tried every 2 s", "eth0 is already driven by another dataplane"])?;
    // What it finds left behind is the first daemon's.
    drop(other.finish());
    await_health(&net.daemon)?;
    net.by_bpf(|| traffic::ping(&net.c1, FAR, 3)?.all_answered())
}
