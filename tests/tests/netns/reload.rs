//! The file is read again: what is valid takes effect while packets flow, and what is not changes nothing.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tests::harness::{Container, Daemon, Output, Stream, eventually, traffic::TcpPair};

use super::{
    network::{Network, PATIENCE, SteadyPing, await_route, base, config1, endpoint, own_routes, route},
    require_feature, require_root,
};

#[test]
fn blocks_routes_and_endpoints_come_and_go_beside_traffic() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, daemon2, c1, c2, c3, node1, node2, .. } = &network;
    let ping = SteadyPing::start(c1, c3.address)?;
    let connection = TcpPair::connect(c3, c2, c2.address)?;
    // Neither has a route on its node: only the file tells of them.
    let c5: Container = node1.container("cali5", "172.19.37.5")?;
    let c6: Container = node2.container("cali6", "172.19.38.6")?;
    let routes = own_routes(node1)?;

    daemon1.write_config(
        &config1()
            .block("172.19.37.0/28")
            .endpoint(c5.address, "cali5")
            .route("172.19.38.0/28", "10.141.0.2"),
    )?;
    daemon2.write_config(
        &super::network::config2()
            .block("172.19.38.0/28")
            .endpoint(c6.address, "cali6")
            .route("172.19.37.0/28", "10.141.0.1"),
    )?;
    daemon1.reload()?;
    daemon2.reload()?;
    // A reload has taken effect when it returns: nothing is awaited.
    assert_eq!(route(daemon1, "172.19.37.9")?["kind"], "block");
    assert_eq!(route(daemon1, "172.19.38.6")?["via"], "10.141.0.2");
    assert_eq!(endpoint(daemon1, c5.address)?.context("no endpoint")?["source"], "config");
    network.ping_by_bpf(&c5, c6.address)?;
    network.ping_by_bpf(&c6, c1.address)?;
    ensure!(own_routes(node1)?.len() == routes.len() + 3, "{:?}", own_routes(node1)?);

    daemon1.write_config(&config1())?;
    daemon1.reload()?;
    assert!(route(daemon1, "172.19.37.9")?.is_null());
    assert!(route(daemon1, "172.19.38.6")?.is_null());
    assert_eq!(endpoint(daemon1, c5.address)?, None);
    assert_eq!(own_routes(node1)?, routes);
    connection.exchange()?;
    network.by_bpf(|| ping.continues(5))?;
    ping.nothing_lost()
}

#[test]
fn a_changed_next_hop_takes_effect_at_once() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, node1, .. } = &network;
    daemon1.write_config(&with_route("10.141.0.77"))?;
    daemon1.reload()?;
    assert_eq!(route(daemon1, c3.address)?["via"], "10.141.0.77");
    assert!(own_routes(node1)?.iter().any(|route| route.contains("172.19.36.0/26 via 10.141.0.77")));
    daemon1.write_config(&with_route("10.141.0.2"))?;
    daemon1.reload()?;
    assert_eq!(own_routes(node1)?.iter().filter(|route| route.contains("172.19.36.0/26")).count(), 1);
    network.ping_by_bpf(c1, c3.address)
}

fn with_route(via: &str) -> tests::harness::Config {
    base().block("172.19.35.0/24").endpoint("172.19.35.2", "cali1").route("172.19.36.0/26", via)
}

/// Everything that a refused file might have changed.
fn everything(daemon: &Daemon, network: &Network) -> Result<String> {
    let of = |arguments: &[&str]| daemon.cli(arguments);
    let status = of(&["status", "--json"])?;
    let routes = of(&["route", "list", "--json"])?;
    let endpoints = of(&["endpoint", "list", "--json"])?;
    let kernel = own_routes(&network.node1)?;
    Ok(format!("{}\n{}\n{routes}\n{endpoints}\n{kernel:?}", status["hooks"], status["tables"]))
}

/// The daemon's file with one fault in it, behind changes that would be valid; and the line of the fault.
fn write_invalid(daemon: &Daemon) -> Result<usize> {
    daemon.write_config(&base().block("172.19.39.0/24"))?;
    let mut text = fs::read_to_string(daemon.config_file())?;
    text += "\n[[route]]\nto = \"172.19.36.300/26\"\nvia = \"10.141.0.2\"\n";
    fs::write(daemon.config_file(), &text)?;
    let line = text.lines().position(|line| line.contains("300")).context("no such line")?;
    Ok(line + 1)
}

#[test]
fn an_invalid_file_changes_nothing_and_says_where() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, .. } = &network;
    let before = everything(daemon1, &network)?;
    let line = write_invalid(daemon1)?;
    let place = format!("{}:{line}:6: ", daemon1.config_file().display());

    let output: Output = daemon1.cli_output(&["reload"]);
    assert_eq!(output.code(), Some(2), "{output:?}");
    assert!(output.stderr.contains(&place) && output.stderr.contains("172.19.36.300"), "{output:?}");
    assert_eq!(output.stdout, "");
    assert_eq!(everything(daemon1, &network)?, before);

    // By signal it is the log that says so.
    let process = daemon1.process().context("no daemon")?;
    process.signal(libc::SIGHUP)?;
    process.wait_for_line(Stream::Stderr, |line| line.contains(&place), PATIENCE)?;
    assert_eq!(everything(daemon1, &network)?, before);

    fs::remove_file(daemon1.config_file())?;
    let output = daemon1.cli_output(&["reload"]);
    assert!(!output.success() && output.stderr.contains("node.toml"), "{output:?}");
    assert_eq!(everything(daemon1, &network)?, before);
    network.ping_by_bpf(c1, c3.address)?;

    // A valid one is taken after that.
    daemon1.write_config(&config1().block("172.19.39.0/24"))?;
    daemon1.reload()?;
    assert_eq!(route(daemon1, "172.19.39.1")?["kind"], "block");
    Ok(())
}

#[test]
fn sighup_is_a_reload() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, .. } = &network;
    let ping = SteadyPing::start(c1, c3.address)?;
    for (text, kind) in [(config1().block("172.19.39.0/24"), "block"), (config1(), "none")] {
        daemon1.write_config(&text)?;
        daemon1.process().context("no daemon")?.signal(libc::SIGHUP)?;
        if kind == "block" {
            await_route(daemon1, "172.19.39.1", kind)?;
        } else {
            eventually(PATIENCE, || {
                ensure!(route(daemon1, "172.19.39.1")?.is_null(), "the block is still there");
                Ok(())
            })?;
        }
    }
    ping.nothing_lost()
}

#[test]
fn what_is_fixed_at_the_start_is_refused() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, .. } = &network;
    let before = everything(daemon1, &network)?;
    let fixed = [
        (config1().block("172.19.39.0/24").datapath("max-endpoints", 17), "datapath.max-endpoints"),
        (config1().block("172.19.39.0/24").datapath("max-routes", 17), "datapath.max-routes"),
    ];
    for (config, key) in fixed {
        daemon1.write_config(&config)?;
        let output = daemon1.cli_output(&["reload"]);
        assert_eq!(output.code(), Some(1), "{output:?}");
        assert!(output.stderr.contains(key) && output.stderr.contains("restart"), "{output:?}");
        assert_eq!(output.stderr.trim().lines().count(), 1, "{output:?}");
        assert_eq!(everything(daemon1, &network)?, before);
    }
    network.ping_by_bpf(c1, c3.address)
}

#[test]
fn the_way_of_attaching_changes_without_a_lost_packet() -> Result<()> {
    require_feature!(Tcx);
    let network = Network::with(super::network::Setup { attach: "clsact", ..Default::default() })?;
    let Network { daemon1, c1, c3, node1, .. } = &network;
    let ping = SteadyPing::start(c1, c3.address)?;
    for mode in ["tcx", "clsact", "tcx"] {
        daemon1.write_config(&config1().datapath("tc-attach", format!("\"{mode}\"")))?;
        daemon1.reload()?;
        network.by_bpf(|| ping.continues(5))?;
        let status = daemon1.cli(&["status", "--json"])?;
        for hook in status["hooks"].as_array().context("status without hooks")? {
            ensure!(hook["mode"] == mode && hook["program_id"].is_u64(), "{status}");
        }
        // The qdisc stays: its coming and going would cost packets. The filter does not.
        let shown = |what| node1.run(["tc", what, "show", "dev", "eth0", "ingress"]).ok();
        ensure!(shown("qdisc")?.contains("clsact"), "{}", shown("qdisc")?);
        ensure!(shown("filter")?.contains("from_uplink") == (mode == "clsact"), "{}", shown("filter")?);
    }
    ping.nothing_lost()?;
    daemon1.detach()?;
    let qdiscs = node1.run(["tc", "qdisc", "show"]).ok()?;
    ensure!(!qdiscs.contains("clsact"), "{qdiscs}");
    Ok(())
}

#[test]
fn a_state_directory_from_the_command_line_holds_for_reloads_too() -> Result<()> {
    require_root!();
    let fabric = tests::harness::Fabric::new()?;
    let node = tests::harness::Node::new(&fabric, "node1", "10.141.0.1")?;
    let daemon = Daemon::prepare(&node, &base())?;
    let other = tempfile::tempdir()?;
    let directory = other.path().to_string_lossy().into_owned();
    let binary = tests::harness::daemon::binary()?.to_string_lossy().into_owned();
    let file = daemon.config_file().to_string_lossy().into_owned();
    let process = node.spawn([&*binary, "run", "--config", &file, "--state-dir", &directory])?;
    process.wait_for_line(Stream::Stdout, |line| line == "ready", PATIENCE)?;
    node.run([&*binary, "reload", "--state-dir", &directory]).ok()?;
    node.run([&*binary, "detach", "--config", &file, "--state-dir", &directory]).ok()?;
    let status = process.wait(Duration::from_secs(10))?;
    assert!(status.success(), "{status}");
    Ok(())
}

#[test]
fn a_refused_reload_is_logged_and_shown() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let daemon = &network.daemon1;
    let process = daemon.process().context("no daemon")?;
    write_invalid(daemon)?;
    ensure!(daemon.cli_output(&["reload"]).code() == Some(2));
    process.wait_for_line(tests::harness::Stream::Stderr, |line| line.contains("cannot reload"), PATIENCE)?;
    let status = daemon.cli(&["status", "--json"])?;
    let complaint = status["complaints"][0].as_str().context("no complaint")?;
    let file = daemon.config_file().display().to_string();
    ensure!(complaint.contains("the reload at") && complaint.contains(&file), "{complaint}");
    daemon.write_config(&config1())?;
    daemon.reload()?;
    ensure!(daemon.cli(&["status", "--json"])?["health"] == "ok");
    Ok(())
}

#[test]
fn a_fifo_in_the_file_s_place_is_refused() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let daemon = &network.daemon1;
    fs::remove_file(daemon.config_file())?;
    network.node1.run(["mkfifo", &daemon.config_file().to_string_lossy()]).ok()?;
    let output = daemon.cli_output(&["reload"]);
    fs::remove_file(daemon.config_file())?;
    daemon.write_config(&config1())?;
    ensure!(output.code() == Some(2) && output.stderr.contains("this is a FIFO"), "{output:?}");
    daemon.reload()
}

#[test]
fn one_absent_router_is_one_complaint() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let daemon = &network.daemon1;
    let routes =
        (0..200).fold(config1(), |config, third| config.route(&format!("60.0.{third}.0/24"), "10.99.0.1"));
    daemon.write_config(&routes)?;
    daemon.reload()?;
    let status = daemon.cli(&["status", "--json"])?;
    let complaints = status["complaints"].as_array().context("no complaints")?;
    ensure!(complaints.len() == 1, "{complaints:?}");
    let text = complaints[0].as_str().context("no text")?;
    ensure!(text.contains("200 routes, that to 60.0.0.0/24 among them: 10.99.0.1 is not"), "{text}");
    Ok(())
}
