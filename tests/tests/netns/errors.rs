//! What cannot be: one clear line each, the right exit status, and nothing left or harmed.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context as _, Result, ensure};
use tests::harness::{Config, Daemon, Fabric, Node, Output, daemon::binary};

use super::{
    network::{Network, Setup, SteadyPing, base, config1, own_routes},
    require_feature, require_root,
};

/// The only complaint of a command that failed with that status: its standard error without the log.
fn complaint(output: &Output, status: i32) -> Result<String> {
    ensure!(output.code() == Some(status), "not exit status {status}: {output:?}");
    let is_log = |line: &str| line.starts_with("20") && [" INFO ", " WARN "].iter().any(|l| line.contains(l));
    let lines: Vec<&str> = output.stderr.lines().filter(|line| !is_log(line)).collect();
    let [line] = lines[..] else { anyhow::bail!("not one line: {output:?}") };
    ensure!(line.starts_with("dataplane: "), "{line}");
    Ok(line.to_owned())
}

/// Runs the daemon to its end, which must come.
fn run(node: &Node, daemon: &Daemon, before: &[&str], options: &[&str]) -> Result<Output> {
    let binary = binary()?.to_string_lossy().into_owned();
    let file = daemon.config_file().to_string_lossy().into_owned();
    // One that became ready would be stopped, and fail the test with another status.
    let command = [&["timeout", "20"], before, &[&binary, "run", "--config", &file], options].concat();
    Ok(node.run(command))
}

/// A second daemon with directories of its own on the interfaces of the first.
fn interface_in_use(first: &'static str, second: &str) -> Result<()> {
    let network = Network::with(Setup { attach: first, ..Setup::default() })?;
    let config = base().block("172.19.99.0/24").datapath("tc-attach", format!("\"{second}\""));
    let intruder = Daemon::prepare(&network.node1, &config)?;
    let result = is_refused(&network, &intruder).with_context(|| format!("{second} beside {first}"));
    // In this order: nothing of the first must be there when the second is looked over.
    let gone = network.daemon1.finish().and(intruder.finish());
    result.and(gone)
}

fn is_refused(network: &Network, intruder: &Daemon) -> Result<()> {
    let Network { daemon1, c1, c3, node1, .. } = network;
    let routes = own_routes(node1)?;
    let ping = SteadyPing::start(c1, c3.address)?;
    let error = complaint(&run(node1, intruder, &[], &[])?, 1)?;
    ensure!(error.contains("eth0 is already driven by another dataplane"), "{error}");
    ensure!(error.contains("dataplane detach"), "{error}");
    ensure!(!intruder.bpf_dir().exists(), "its pins are left");
    // Neither the packets nor the kernel's routes of the first took notice.
    ensure!(own_routes(node1)? == routes, "{:?}", own_routes(node1)?);
    network.by_bpf(|| ping.continues(10))?;
    ping.nothing_lost()?;
    let status = daemon1.cli(&["status", "--json"])?;
    for hook in status["hooks"].as_array().context("status without hooks")? {
        ensure!(hook["program_id"].is_u64(), "{status}");
    }
    Ok(())
}

#[test]
fn an_interface_that_another_daemon_drives_by_tcx() -> Result<()> {
    require_feature!(Tcx);
    interface_in_use("tcx", "tcx")?;
    interface_in_use("tcx", "clsact")
}

#[test]
fn an_interface_that_another_daemon_drives_by_clsact() -> Result<()> {
    require_root!();
    interface_in_use("clsact", "clsact")
}

#[test]
fn an_interface_that_another_daemon_drives_by_clsact_is_not_free_for_tcx() -> Result<()> {
    require_feature!(Tcx);
    interface_in_use("clsact", "tcx")
}

#[test]
fn a_state_directory_in_use() -> Result<()> {
    require_root!();
    let network = Network::new()?;
    let Network { daemon1, c1, c3, node1, .. } = &network;
    let pid = daemon1.process().context("no daemon")?.pid();
    let error = complaint(&run(node1, daemon1, &[], &[])?, 1)?;
    ensure!(error.contains("is in use by another daemon"), "{error}");
    // nsenter becomes the daemon: it is the same process.
    ensure!(error.contains(&format!("(pid {pid})")) && error.contains("node.state-dir"), "{error}");
    network.ping_by_bpf(c1, c3.address)
}

#[test]
fn a_missing_capability() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node1", "10.141.0.1")?;
    let daemon = Daemon::prepare(&node, &base().block("172.19.35.0/24"))?;
    for missing in ["-all", "-bpf,-sys_admin", "-net_admin,-sys_admin"] {
        let bounded = ["setpriv", "--bounding-set", missing, "--inh-caps", missing];
        let error = complaint(&run(&node, &daemon, &bounded, &[])?, 1)?;
        ensure!(error.contains("CAP_") || error.contains("root"), "without {missing}: {error}");
        ensure!(daemon.leftovers()?.is_empty(), "without {missing}: {:?}", daemon.leftovers()?);
    }
    Ok(())
}

#[test]
fn an_ordinary_user() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node1", "10.141.0.1")?;
    let daemon = Daemon::prepare(&node, &base())?;
    let directory = daemon.config_file().parent().context("no directory")?.to_owned();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777))?;
    // A copy that everybody may run, wherever the real one is.
    let copy = directory.join("dataplane");
    fs::copy(binary()?, &copy)?;
    let (copy, file) = (copy.to_string_lossy(), daemon.config_file().to_string_lossy().into_owned());
    let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let output = node.run([&user[..], &["timeout", "20", &copy, "run", "--config", &file]].concat());
    let error = complaint(&output, 1)?;
    ensure!(error.contains("CAP_") || error.contains("root"), "{error}");
    Ok(())
}

#[test]
fn a_bad_file_is_exit_status_two() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node1", "10.141.0.1")?;
    let text = "[node]\nuplink = [\"eth0\"]\n\n[[block]]\ncidr = \"172.19.35.0/24\"\n\n\
                [[block]]\ncidr = \"172.19.35.128/25\"\n\n[[endpoint]]\naddress = \"172.20.0.1\"\n\
                interface = \"cali1\"\n";
    let daemon = Daemon::prepare(&node, &Config::new())?;
    fs::write(daemon.config_file(), text)?;
    let file = daemon.config_file().to_string_lossy().into_owned();
    // The key, the second block, the endpoint: each with its place.
    let places = [":2:1: ", ":8:8: ", ":11:11: "];
    for command in ["run", "check"] {
        let output = daemon.cli_output(&[command, "--config", &file]);
        assert_eq!(output.code(), Some(2), "{output:?}");
        for place in places {
            assert!(output.stderr.contains(&format!("{file}{place}")), "no {place} in {output:?}");
        }
        assert!(output.stderr.contains("uplinks"), "no mend in {output:?}");
    }
    assert_eq!(daemon.leftovers()?, Vec::<String>::new());
    let output = daemon.cli_output(&["run", "--config", "/nonexistent/node.toml"]);
    assert!(output.code() == Some(2) && output.stderr.contains("/nonexistent/node.toml"), "{output:?}");
    let output = daemon.cli_output(&["check", "--config", &file, "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&output.stdout)?;
    assert_eq!((output.code(), &answer["valid"]), (Some(2), &false.into()));
    assert_eq!(answer["errors"].as_array().map(Vec::len), Some(3), "{answer}");
    daemon.write_config(&base())?;
    Ok(())
}

#[test]
fn a_valid_file_is_exit_status_zero() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node1", "10.141.0.1")?;
    let _c1 = node.container("cali1", "172.19.35.2")?;
    let daemon = Daemon::prepare(&node, &config1())?;
    let file = daemon.config_file().to_string_lossy().into_owned();
    let output = daemon.cli_output(&["check", "--config", &file]);
    assert_eq!(output.code(), Some(0), "{output:?}");
    assert!(output.stdout.contains("is valid") && output.stderr.is_empty(), "{output:?}");
    let answer = daemon.cli(&["check", "--config", &file, "--json"])?;
    assert_eq!((&answer["valid"], &answer["errors"]), (&true.into(), &serde_json::json!([])));
    // A check leaves nothing, and starts nothing.
    assert_eq!(daemon.leftovers()?, Vec::<String>::new());
    assert!(!daemon.state_dir().exists());
    Ok(())
}

#[test]
fn commands_without_a_daemon_say_so() -> Result<()> {
    require_root!();
    let fabric = Fabric::new()?;
    let node = Node::new(&fabric, "node1", "10.141.0.1")?;
    let daemon = Daemon::prepare(&node, &base())?;
    let socket = daemon.state_dir().join("control.sock").display().to_string();
    let commands: [&[&str]; 7] = [
        &["status"],
        &["endpoint", "list"],
        &["route", "list"],
        &["route", "get", "172.19.35.2"],
        &["drops"],
        &["trace", "--in", "eth0", "icmp", "10.0.0.1", "10.0.0.2"],
        &["reload"],
    ];
    for command in commands {
        let error = complaint(&daemon.cli_output(command), 1)?;
        ensure!(error.contains(&socket) && error.contains("dataplane run"), "{error}");
    }
    for bad in [&["no-such-command"][..], &["route", "get", "nowhere"], &["trace", "icmp"]] {
        let output = daemon.cli_output(bad);
        ensure!(output.code() == Some(2), "{output:?}");
    }
    Ok(())
}
