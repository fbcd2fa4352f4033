//! Every kind of configuration on this kernel: its programs load, are attached as it says, and carry packets.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::harness::{
    Config, eventually,
    kernel::{self, Feature},
    report::report,
};

use super::{
    network::{Network, PATIENCE, Setup, config1},
    require_feature, require_root,
};

/// What makes the daemon load other programs, or the same with other constants.
fn configurations() -> [(&'static str, Config); 3] {
    let rule = "[[masquerade]]\nsource = \"172.19.35.0/24\"";
    [
        ("forwarding", config1()),
        ("masquerade", config1().table(rule)),
        ("kernel egress", config1().datapath("egress", "\"kernel\"")),
    ]
}

#[test]
fn every_configuration_by_tcx() -> Result<()> {
    require_feature!(Tcx);
    every_configuration("tcx", "tcx")
}

#[test]
fn every_configuration_by_clsact() -> Result<()> {
    require_root!();
    every_configuration("clsact", "clsact")
}

#[test]
fn every_configuration_by_the_best_that_the_kernel_has() -> Result<()> {
    require_root!();
    let best = if kernel::running()? < Feature::Tcx.since() { "clsact" } else { "tcx" };
    every_configuration("auto", best)
}

fn every_configuration(attach: &'static str, mode: &str) -> Result<()> {
    let mut network = Network::with(Setup { attach, ..Setup::default() })?;
    for (name, config) in configurations() {
        network.daemon1.stop()?;
        network.daemon1.write_config(&config.datapath("tc-attach", format!("\"{attach}\"")))?;
        network.daemon1.launch()?;
        let status = network.daemon1.cli(&["status", "--json"])?;
        let hooks = status["hooks"].as_array().context("status without hooks")?;
        ensure!(hooks.len() == 3, "{name}: {status}");
        for hook in hooks {
            ensure!(hook["mode"] == mode && hook["program_id"].is_u64(), "{name}: {status}");
        }
        network.ping_by_bpf(&network.c1, network.c3.address)?;
        report("attached", &format!("{attach} {mode} {name}"));
    }
    Ok(())
}

/// What comes by the uplink meets the program at XDP first.
#[test]
fn every_configuration_at_xdp() -> Result<()> {
    require_feature!(XdpFeatures);
    let mut network = Network::new()?;
    for (name, config) in configurations() {
        network.daemon1.stop()?;
        network.daemon1.write_config(&config.datapath("uplink-hook", "\"xdp\""))?;
        network.daemon1.launch()?;
        eventually(PATIENCE, || {
            let status = network.daemon1.cli(&["status", "--json"])?;
            let hooks = status["hooks"].as_array().context("status without hooks")?;
            let at_xdp = |hook: &&Value| hook["program"] == "xdp_from_uplink" && hook["program_id"].is_u64();
            ensure!(hooks.iter().filter(at_xdp).count() == 1, "{name}: {status}");
            Ok(())
        })?;
        network.ping_by_bpf(&network.c1, network.c3.address)?;
    }
    Ok(())
}
