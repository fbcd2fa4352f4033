//! Programs and pins that somebody else removes: the daemon puts them back, and says so.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use dataplane_common::names::LAYOUT_VERSION;
use serde_json::Value;
use tests::harness::{Daemon, Stream, eventually, traffic::TcpPair};

use super::{
    masquerade::{Egress, FAR, RULE, config},
    network::{Network, PATIENCE, Setup, await_route},
    reconcile::{await_complaint, await_health},
    require_feature, require_root,
};

const REMOVED: &str = "the program was removed from the interface";

/// Every hook, with the id of its program.
fn hooks(daemon: &Daemon) -> Result<Vec<Value>> {
    let mut status = daemon.cli(&["status", "--json"])?;
    let hooks = status["hooks"].as_array_mut().context("status without hooks")?;
    Ok(std::mem::take(hooks))
}

/// Waits until the daemon has said that the interface's program was removed, and every hook has one.
fn await_restored(daemon: &Daemon, interfaces: &[&str]) -> Result<()> {
    let process = daemon.process().context("no daemon")?;
    for interface in interfaces {
        let says = |line: &str| line.contains(REMOVED) && line.contains(&format!("\"{interface}\""));
        process.wait_for_line(Stream::Stderr, says, PATIENCE)?;
    }
    eventually(PATIENCE, || {
        let hooks = hooks(daemon)?;
        ensure!(!hooks.is_empty() && hooks.iter().all(|hook| hook["program_id"].is_u64()), "{hooks:?}");
        Ok(())
    })?;
    await_health(daemon)
}

#[test]
fn links_that_somebody_detached() -> Result<()> {
    require_feature!(Tcx);
    let network = Network::with(Setup { attach: "tcx", ..Setup::default() })?;
    let links = network.daemon1.bpf_dir().join(format!("v{LAYOUT_VERSION}/links"));
    for pin in fs::read_dir(&links)? {
        let pin = pin?.path().to_string_lossy().into_owned();
        network.node1.run(["bpftool", "link", "detach", "pinned", &pin]).ok()?;
    }
    await_restored(&network.daemon1, &["eth0", "cali1", "cali2"])?;
    network.ping_by_bpf(&network.c1, network.c3.address)?;
    network.ping_by_bpf(&network.c2, network.c3.address)
}

#[test]
fn an_xdp_link_that_somebody_detached() -> Result<()> {
    require_root!();
    let net = Egress::with(config().datapath("uplink-hook", "\"xdp\"").table(RULE))?;
    let pin = format!("v{LAYOUT_VERSION}/links/xdp-from-uplink-{}", net.node.ifindex("eth1")?);
    let pin = net.daemon.bpf_dir().join(pin).to_string_lossy().into_owned();
    net.node.run(["bpftool", "link", "detach", "pinned", &pin]).ok()?;
    await_restored(&net.daemon, &["eth1"])
}

#[test]
fn a_clsact_qdisc_that_somebody_deleted() -> Result<()> {
    require_root!();
    let network = Network::with(Setup { attach: "clsact", ..Setup::default() })?;
    network.node1.run(["tc", "qdisc", "del", "dev", "eth0", "clsact"]).ok()?;
    network.node1.run(["tc", "qdisc", "del", "dev", "cali1", "clsact"]).ok()?;
    await_restored(&network.daemon1, &["eth0", "cali1"])?;
    network.ping_by_bpf(&network.c1, network.c3.address)
}

/// With the pins the links go, and the maps stay as long as the daemon holds them: the next one must find them again.
#[test]
fn a_bpf_dir_that_somebody_removed() -> Result<()> {
    require_root!();
    for attach in ["auto", "clsact"] {
        let mut net = Egress::with(config().datapath("tc-attach", format!("\"{attach}\"")).table(RULE))?;
        let pair = TcpPair::connect(&net.c1, &net.outside, FAR)?;
        pair.exchange()?;
        fs::remove_dir_all(net.daemon.bpf_dir())?;
        await_restored(&net.daemon, &["eth1", "cali1"])?;
        pair.exchange()?;
        net.daemon.kill()?;
        net.daemon.launch()?;
        await_route(&net.daemon, net.c1.address, "endpoint")?;
        pair.exchange()?;
        net.by_bpf(|| tests::harness::traffic::ping(&net.c1, FAR, 3)?.all_answered())?;
    }
    Ok(())
}

#[test]
fn an_uplink_without_carrier_is_named() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    network.node1.ip("link set eth0 down")?;
    await_complaint(&network.daemon1, &["eth0 is down: ip link set eth0 up"])?;
    network.node1.ip("link set eth0 up")?;
    await_health(&network.daemon1)?;
    network.fabric.ip("link set port0 down")?;
    await_complaint(&network.daemon1, &["eth0 is down: it has no carrier"])?;
    network.fabric.ip("link set port0 up")?;
    await_health(&network.daemon1)
}
