//! `dataplane detach` takes away everything of ours, and nothing of anybody else's.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use dataplane_common::names::LAYOUT_VERSION;
use tests::harness::{
    Node, Stream, bpf,
    kernel::{self, Feature},
};

use super::{
    foreign,
    network::{Network, PATIENCE, Setup, config1, own_routes},
    require_feature, require_root,
};

/// In which state the daemon is when it is detached.
#[derive(Clone, Copy, Debug)]
enum Daemon {
    Running,
    Stopped,
    Killed,
}

fn qdiscs(node: &Node, interface: &str) -> Result<String> {
    node.run(["tc", "qdisc", "show", "dev", interface]).ok()
}

fn filters(node: &Node, interface: &str) -> Result<String> {
    node.run(["tc", "filter", "show", "dev", interface, "ingress"]).ok()
}

fn detach_leaves_nothing(state: Daemon, attach: &'static str) -> Result<()> {
    let mut network = Network::with(Setup { attach, ..Setup::default() })?;
    // Written a moment ago: the daemon may not have seen its own route yet.
    network
        .daemon1
        .write_config(&config1().datapath("tc-attach", format!("\"{attach}\"")).block("172.19.41.0/24"))?;
    network.daemon1.reload()?;
    ensure!(own_routes(&network.node1)?.len() == 4, "{:?}", own_routes(&network.node1)?);
    let there = network.daemon1.leftovers()?.join("\n");
    for what in ["pin ", "route ", "from_uplink", "from_container"] {
        ensure!(there.contains(what), "nothing like {what:?} before the detach: {there}");
    }
    let clsact = attach == "clsact";
    ensure!(
        qdiscs(&network.node1, "eth0")?.contains("clsact") == clsact,
        "{}",
        qdiscs(&network.node1, "eth0")?
    );
    match state {
        Daemon::Running => {}
        Daemon::Stopped => network.daemon1.stop()?,
        Daemon::Killed => network.daemon1.kill()?,
    }
    network.daemon1.detach()?;
    let left = network.daemon1.leftovers()?;
    ensure!(left.is_empty(), "{state:?}: {left:?}");
    ensure!(!network.daemon1.bpf_dir().exists(), "{state:?}: the pins' directory is there");
    ensure!(!network.daemon1.state_dir().exists(), "{state:?}: the state directory is there");
    for interface in ["eth0", "cali1", "cali2"] {
        let qdiscs = qdiscs(&network.node1, interface)?;
        ensure!(!qdiscs.contains("clsact"), "{state:?}: at {interface}: {qdiscs}");
    }
    let Network { daemon1, node1, .. } = &network;
    // The runtime's own route is not ours.
    ensure!(node1.ip("route show")?.contains("172.19.35.3 dev cali2"), "{}", node1.ip("route show")?);
    // Again, with nothing there: no error.
    daemon1.detach()
}

#[test]
fn nothing_is_left_of_a_running_daemon_by_tcx() -> Result<()> {
    require_feature!(Tcx);
    detach_leaves_nothing(Daemon::Running, "tcx")
}

#[test]
fn nothing_is_left_of_a_running_daemon_by_clsact() -> Result<()> {
    require_root!();
    detach_leaves_nothing(Daemon::Running, "clsact")
}

#[test]
fn nothing_is_left_of_a_stopped_daemon_by_tcx() -> Result<()> {
    require_feature!(Tcx);
    detach_leaves_nothing(Daemon::Stopped, "tcx")
}

#[test]
fn nothing_is_left_of_a_stopped_daemon_by_clsact() -> Result<()> {
    require_root!();
    detach_leaves_nothing(Daemon::Stopped, "clsact")
}

#[test]
fn nothing_is_left_of_a_killed_daemon_by_tcx() -> Result<()> {
    require_feature!(Tcx);
    detach_leaves_nothing(Daemon::Killed, "tcx")
}

#[test]
fn nothing_is_left_of_a_killed_daemon_by_clsact() -> Result<()> {
    require_root!();
    detach_leaves_nothing(Daemon::Killed, "clsact")
}

/// A clsact filter of somebody else's, and where the kernel has TCX a program, there before the daemon comes.
fn others_stay(attach: &'static str) -> Result<()> {
    let network = Network::with(Setup { attach, ..Setup::default() })?;
    network.daemon1.detach()?;
    let Network { mut daemon1, daemon2, c1, c2, c3, c4, node1, node2, fabric } = network;
    let has_tcx = kernel::running()? >= Feature::Tcx.since();
    let mut foreign = Vec::new();
    for interface in ["eth0", "cali1"] {
        if has_tcx {
            foreign.push(foreign::attach_tcx(&node1, interface)?);
        }
        foreign::add_filter(&node1, interface, "ingress")?;
    }
    let alien = |node: &Node| -> Result<()> {
        for interface in ["eth0", "cali1"] {
            let programs = bpf::tcx_programs(node, node.ifindex(interface)?)?;
            ensure!(
                programs.iter().any(|name| name == foreign::NAME) == has_tcx,
                "{interface}: {programs:?}"
            );
            let (qdiscs, filters) = (qdiscs(node, interface)?, filters(node, interface)?);
            ensure!(
                qdiscs.contains("clsact") && filters.contains(foreign::NAME),
                "{interface}: {qdiscs} {filters}"
            );
        }
        Ok(())
    };
    alien(&node1)?;
    // The daemon ended with the detach; another one starts beside the others' programs.
    daemon1.stop()?;
    daemon1.launch()?;
    alien(&node1)?;
    let network = Network { daemon1, daemon2, c1, c2, c3, c4, node1, node2, fabric };
    network.ping_by_bpf(&network.c1, network.c3.address)?;
    network.daemon1.detach()?;
    let left = network.daemon1.leftovers()?;
    ensure!(left.is_empty(), "{left:?}");
    alien(&network.node1)?;
    ensure!(!qdiscs(&network.node1, "cali2")?.contains("clsact"), "a qdisc of ours is left at cali2");
    Ok(())
}

#[test]
fn other_programs_stay_beside_tcx() -> Result<()> {
    require_feature!(Tcx);
    others_stay("tcx")
}

#[test]
fn other_programs_stay_beside_clsact() -> Result<()> {
    require_root!();
    others_stay("clsact")
}

#[test]
fn filters_that_came_later_keep_the_qdisc_that_was_ours() -> Result<()> {
    require_root!();
    let network = Network::with(Setup { attach: "clsact", ..Setup::default() })?;
    let Network { daemon1, c1, c3, node1, .. } = &network;
    foreign::add_filter(node1, "eth0", "egress")?;
    foreign::add_filter(node1, "cali1", "ingress")?;
    network.ping_by_bpf(c1, c3.address)?;
    daemon1.detach()?;
    for (interface, direction) in [("eth0", "egress"), ("cali1", "ingress")] {
        let filters = node1.run(["tc", "filter", "show", "dev", interface, direction]).ok()?;
        ensure!(filters.contains(foreign::NAME), "{interface} {direction}: {filters:?}");
    }
    ensure!(!qdiscs(node1, "cali2")?.contains("clsact"), "a qdisc of ours is left at cali2");
    Ok(())
}

/// What cannot be taken away keeps nothing else in place, and the daemon does not go on in a state between.
#[test]
fn a_detach_that_fails_goes_as_far_as_it_can() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let daemon = &network.daemon1;
    let in_the_way = daemon.bpf_dir().join(format!("v{LAYOUT_VERSION}/links/from-uplink-424242"));
    fs::create_dir(&in_the_way)?;
    let error = format!("{:#}", daemon.detach().err().context("it succeeded")?);
    ensure!(error.contains(&in_the_way.display().to_string()), "{error}");
    let process = daemon.process().context("no daemon")?;
    ensure!(process.wait(PATIENCE)?.success(), "{}", process.output(Stream::Stderr));
    let left = daemon.leftovers()?;
    ensure!(!left.is_empty() && left.iter().all(|what| what.starts_with("pin ")), "{left:?}");
    fs::remove_dir(&in_the_way)?;
    daemon.detach()?;
    ensure!(daemon.leftovers()?.is_empty(), "{:?}", daemon.leftovers()?);
    Ok(())
}

/// The state directory says where the pins are, and the answer that something was done.
#[test]
fn a_data_path_without_a_file_is_detached() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let daemon = &network.daemon1;
    let output = daemon.cli_output(&["detach", "--config", "/nonexistent/node.toml"]);
    ensure!(output.success() && output.stdout == "detached\n", "{output:?}");
    ensure!(daemon.leftovers()?.is_empty(), "{:?}", daemon.leftovers()?);
    let output = daemon.cli_output(&["detach", "--config", "/nonexistent/node.toml"]);
    ensure!(output.code() == Some(1) && output.stderr.contains("--from-kernel"), "{output:?}");
    Ok(())
}
