//! What could not be done is tried again by time, and `health` says what is pending.

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::harness::{Config, Daemon, eventually, traffic};

use super::{
    masquerade::{Egress, FAR, RULE},
    network::{PATIENCE, base},
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
