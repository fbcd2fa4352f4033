//! IPsec policies: the packets that they select are the kernel's.

use anyhow::{Context as _, Result, ensure};
use dataplane_common::{reason::Reason, stats::Hook};
use tests::harness::traffic;

use super::{
    network::{Network, await_route},
    reconcile::{await_complaint, await_health},
    require_root,
};

/// The policy's words, towards containers of the other node.
const BLOCK: &str = "src 172.19.35.0/24 dst 172.19.36.0/26 dir out";

#[test]
fn a_policy_that_blocks_is_obeyed() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    network.ping_by_bpf(&network.c1, network.c3.address)?;
    network.node1.ip(&format!("xfrm policy add {BLOCK} action block"))?;
    await_route(&network.daemon1, network.c3.address, "kernel")?;
    traffic::ping_with(&network.c1, network.c3.address, 3, &["-W", "0.2"])?.none_answered()?;
    ensure!(network.daemon1.drops(Hook::FromContainer, Reason::KernelRoute)? >= 3);
    await_health(&network.daemon1)?;
    let status = network.daemon1.cli(&["status", "--json"])?;
    ensure!(status["ipsec"] == serde_json::json!(["172.19.36.0/26"]), "{status}");
    let file = network.daemon1.config_file().to_string_lossy().into_owned();
    let checked = network.daemon1.cli_output(&["check", "--config", &file]);
    ensure!(
        checked.code() == Some(0) && checked.stderr.contains("those to and from 172.19.36.0/26"),
        "{checked:?}"
    );
    // A daemon that starts beside it finds it, too.
    network.daemon1.kill()?;
    network.daemon1.launch()?;
    await_route(&network.daemon1, network.c3.address, "kernel")?;
    traffic::ping_with(&network.c1, network.c3.address, 3, &["-W", "0.2"])?.none_answered()?;
    network.node1.ip(&format!("xfrm policy delete {BLOCK}"))?;
    await_route(&network.daemon1, network.c3.address, "next-hop")?;
    network.ping_by_bpf(&network.c1, network.c3.address)
}

/// Packets that must have come encrypted and did not are not delivered past the kernel's check.
#[test]
fn a_policy_for_what_comes_in_is_obeyed() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    network.ping_by_bpf(&network.c3, network.c1.address)?;
    let policy = "src 172.19.36.0/26 dst 172.19.35.0/24 dir fwd";
    let template = "tmpl src 10.141.0.2 dst 10.141.0.1 proto esp mode tunnel";
    network.node1.ip(&format!("xfrm policy add {policy} {template}"))?;
    await_route(&network.daemon1, network.c3.address, "kernel")?;
    traffic::ping_with(&network.c3, network.c1.address, 3, &["-W", "0.2"])?.none_answered()?;
    network.ping_by_bpf(&network.c1, network.c2.address)?;
    network.node1.ip(&format!("xfrm policy delete {policy}"))?;
    await_route(&network.daemon1, network.c3.address, "next-hop")?;
    network.ping_by_bpf(&network.c3, network.c1.address)
}

#[test]
fn a_policy_between_containers_of_the_node_is_refused() -> Result<()> {
    require_root!();
    let mut network = Network::new()?;
    let policy = "src 172.19.35.2/32 dst 172.19.35.0/24 dir out";
    network.node1.ip(&format!("xfrm policy add {policy} action block"))?;
    await_complaint(&network.daemon1, &["IPsec policies", "between containers of this node"])?;
    network.daemon1.stop()?;
    let refused = format!("{:#}", network.daemon1.launch().err().context("it started")?);
    ensure!(refused.contains("between containers of this node"), "{refused}");
    let file = network.daemon1.config_file().to_string_lossy().into_owned();
    ensure!(network.daemon1.cli_output(&["check", "--config", &file]).code() == Some(1));
    network.node1.ip(&format!("xfrm policy delete {policy}"))?;
    network.daemon1.launch()?;
    await_health(&network.daemon1)?;
    network.ping_by_bpf(&network.c1, network.c2.address)
}
